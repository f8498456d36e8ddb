"""Tables: CSV by hand, Parquet and Arrow files, data sets of local directories (hubs cannot be reached by tests)."""

import datetime
import gzip
import json

import pytest

from pt_tools.curate import tables

ROWS = [{"instruction": "Say 1", "input": "", "output": "1", "n": 7}, {"instruction": "東京は?", "input": "x\ny", "output": "שלום", "n": None}]


def records(done):
    return [json.loads(line) for line in done.out.splitlines()]


def said(rec):
    return [turn["content"] for turn in rec["messages"]]


def test_names_of_tables():
    assert all(map(tables.is_table, ("a.csv", "A.CSV", "a.tsv.gz", "a.csv.zst", "d/a.parquet", "a.arrow")))
    assert not any(map(tables.is_table, ("a.jsonl", "a.json.gz", "csv", "a.csv.jsonl", "-")))


def test_csv(pt, tmp_path):
    """A column called messages is no message of ours where --format says what the rows are."""
    text = 'instruction,input,output,messages\r\n"Say ""1""",,"a, b\nc",\r\n\r\nSay 007,,007,x\n'
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"instruction\toutput\nA\tB\n"))
    first, second, third = records(pt("pt-curate", "convert", "a.csv", "b.tsv.gz", "--format", "alpaca", check=0))
    assert said(first) == ['Say "1"', "a, b\nc"] and said(second) == ["Say 007", "007"] and said(third) == ["A", "B"]
    assert [rec["source"] for rec in (first, second, third)] == ["a", "a", "b"]


def test_csv_cells(pt, tmp_path):
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "a.csv").write_text('messages,weight,safety,id,note\n"' + json.dumps(turns).replace('"', '""') + '",0.5,True,007,3.0\n')
    (rec,) = records(pt("pt-curate", "convert", "a.csv", check=0))
    assert rec == {"id": "007", "source": "a", "messages": turns, "weight": 0.5, "safety": True, "note": "3.0"}


def test_bad_rows_of_csv_are_named_by_their_line(pt, tmp_path):
    (tmp_path / "a.csv").write_text('instruction,output\nA,"B\nb"\nC\nD,E,F\nG,H\n')
    assert "pt-curate: a.csv:4: 1 cells, where the header has 2\n" in pt("pt-curate", "convert", "a.csv", check=3).err
    done = pt("pt-curate", "convert", "a.csv", "--on-error", "skip", "--rejects", "bad.jsonl", check=0)
    assert [said(rec) for rec in records(done)] == [["A", "B\nb"], ["G", "H"]]
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(row["line"], row["row"]) for row in bad] == [(4, {"raw": "C"}), (5, {"raw": "D,E,F"})]
    assert "4 in, 2 out, 2 errored" in done.err


@pytest.mark.parametrize("name, data, words", [
    ("a.csv", b'x\n"open', "a.csv:2: not CSV"), ("a.csv", b"x\n\xff\n", "a.csv:2: not UTF-8"), ("a.csv", b"x,x\n1,2\n", "a.csv:1: a column occurs twice"),
    ("a.parquet", b"PAR1", "a.parquet: cannot be read"), ("a.arrow", b"", "a.arrow: cannot be read"),
    ("a.arrow", b"ARROW1\0\0", "a.arrow: cannot be read"), ("a.csv.gz", gzip.compress(b"x\n1\n" * 1000, mtime=0)[:-20], "a.csv.gz:")],
    ids=lambda value: value if isinstance(value, str) else "")
def test_files_that_are_no_tables(pt, tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    done = pt("pt-curate", "convert", name, "--format", "text")
    assert done.returncode == 3 and words in done.err and done.err.count("\n") == 1, done.err


def test_the_puzzles_of_tree_of_thought(pt, data):
    made = records(pt("pt-curate", "convert", data / "game24/24.csv", check=0))
    assert len(made) == 1362 and made[0]["verifier"] == {"name": "game24", "numbers": [1, 1, 4, 6]} and made[0]["id"] == "game24/1"
    assert len({rec["id"] for rec in made}) == 1362


def test_an_empty_table_has_no_rows(pt, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b"instruction,output\n")
    assert pt("pt-curate", "convert", "a.csv", "b.csv", check=0).out == ""


def save(rows, path):
    import datasets

    table = datasets.Dataset.from_list(rows)
    if path.suffix == ".parquet":
        table.to_parquet(str(path))
        return
    import pyarrow

    table = table.data.table if hasattr(table.data, "table") else table.data
    with (pyarrow.ipc.new_stream if path.stem == "stream" else pyarrow.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow"])
def test_parquet_and_arrow(pt, tmp_path, name):
    save(ROWS, tmp_path / name)
    first, second = records(pt("pt-curate", "convert", name, check=0))
    assert said(first) == ["Say 1", "1"] and said(second) == ["東京は?\nx\ny", "שלום"]
    assert first["n"] == 7 and "n" not in second, "the null that Arrow filled in is none"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in ROWS))
    same = records(pt("pt-curate", "convert", "a.jsonl", "--source", first["source"], check=0))
    assert same == [first, second]


def test_what_is_no_json_is_a_bad_row(pt, tmp_path):
    save([{"text": "t", "day": datetime.date(2024, 5, 1), "image": b""}], tmp_path / "a.parquet")
    done = pt("pt-curate", "convert", "a.parquet", check=3)
    assert "a.parquet:1: image holds bytes, which is no JSON" in done.err
    save([{"text": "t", "day": datetime.date(2024, 5, 1), "nan": float("nan"), "deep": [{"a": None, "b": 1}]}], tmp_path / "b.parquet")
    (rec,) = records(pt("pt-curate", "convert", "b.parquet", check=0))
    assert rec["day"] == "2024-05-01" and rec["deep"] == [{"b": 1}] and "nan" not in rec


def test_a_directory_of_parquet_becomes_records(pt, tmp_path):
    rows = [{"prompt": "Say A.", "key": 1, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            {"prompt": "Say B in 5 words.", "key": 2, "instruction_id_list": ["length_constraints:number_words"],
             "kwargs": [{"relation": "at least", "num_words": 5}]}]
    (tmp_path / "set").mkdir()
    save(rows, tmp_path / "set" / "train.parquet")
    done = pt("pt-curate", "convert", "--dataset", "./set", "--split", "train", "--source", "ifeval", check=0)
    first, second = records(done)
    assert first["verifier"]["kwargs"] == [{}]  # not the nulls that Arrow filled in
    assert second["verifier"]["kwargs"] == [{"relation": "at least", "num_words": 5}]
    assert "2 in, 2 out" in done.err


def test_a_data_set_saved_to_disk(pt, tmp_path):
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "all"))
    table.save_to_disk(str(tmp_path / "one"))
    for where, split in (("./all", "test"), ("./one", "train")):
        assert [said(rec)[1] for rec in records(pt("pt-curate", "convert", "--dataset", where, "--split", split, check=0))] == ["1", "שלום"]
    assert "cannot load ./all, split train" in pt("pt-curate", "convert", "--dataset", "./all", check=2).err


@pytest.mark.parametrize("argv, words", [
    (("--dataset", "./nowhere"), "cannot load ./nowhere"), (("x.jsonl", "--dataset", "./set"), "at once"),
    (("--split", "test"), "only with --dataset"), (("x.jsonl", "x.csv"), "at once"), (("x.xlsx",), "not a form that is read"),
    (("x.csv", "-j", "2"), "--jobs works on JSONL")])
def test_refusals(pt, tmp_path, argv, words):
    for name in ("x.jsonl", "x.csv", "x.xlsx"):
        (tmp_path / name).write_text("")
    done = pt("pt-curate", "convert", *argv)
    assert done.returncode == 2 and words in done.err and done.err.count("\n") == 1
