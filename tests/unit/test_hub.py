"""Data sets through `datasets`, from local directories (hubs cannot be reached by tests)."""

import json

import pytest


def test_a_directory_of_parquet_becomes_records(pt, tmp_path):
    import datasets

    rows = [{"prompt": "Say A.", "key": 1, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            {"prompt": "Say B in 5 words.", "key": 2, "instruction_id_list": ["length_constraints:number_words"],
             "kwargs": [{"relation": "at least", "num_words": 5}]}]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "set" / "train.parquet"))
    done = pt("pt-curate", "convert", "--dataset", "./set", "--split", "train", "--source", "ifeval", check=0)
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first["verifier"]["kwargs"] == [{}]  # not the nulls that Arrow filled in
    assert second["verifier"]["kwargs"] == [{"relation": "at least", "num_words": 5}]
    assert "2 in, 2 out" in done.err


@pytest.mark.parametrize("argv, words", [
    (("--dataset", "./nowhere"), "cannot load ./nowhere"), (("x.jsonl", "--dataset", "./set"), "at once"),
    (("--split", "test"), "only with --dataset")])
def test_refusals(pt, tmp_path, argv, words):
    (tmp_path / "x.jsonl").write_text("")
    done = pt("pt-curate", "convert", *argv)
    assert done.returncode == 2 and words in done.err and done.err.count("\n") == 1
