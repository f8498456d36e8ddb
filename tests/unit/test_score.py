"""pt-score as a process: what it writes, in which order, and with which exit code."""

import json

MATH = {"name": "math", "answer": "72"}
QUIET = {"name": "constraints", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}


def record(id, verifier, *texts, **more):
    completions = [{"text": text, "finish": "stop", "token_ids": [1, 2]} for text in texts]
    return {"id": id, "verifier": verifier, "completions": completions, **more}


def lines(records):
    return "".join(json.dumps(each) + "\n" for each in records)


RECORDS = [
    record("b", MATH, "The answer is 72.", "The answer is 73.", "", domain="m", note={"kept": None}),
    record("a", QUIET, '"yes"', "a, b"),
    record("c", {"name": "math"}, "The answer is 72."),
    record("d", [MATH, {**QUIET, "key": "form"}], '"The answer is 72."'),
]


def test_verdicts_stand_where_the_design_says(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    done = pt("pt-score", "--verify", "in.jsonl", check=0)
    out = [json.loads(line) for line in done.out.splitlines()]
    assert [each["id"] for each in out] == ["b", "a", "c", "d"]
    first = out[0]["completions"]
    assert [(each["scores"]["math"], each["reward"], each["errors"]) for each in first] == [(1.0, 1.0, {}), (0.0, 0.0, {}), (0.0, 0.0, {})]
    assert first[2]["details"]["math"] == {"reason": "empty"}
    assert [each["details"]["constraints"] for each in out[1]["completions"]] == [[True, True], [False, False]]
    assert out[2]["completions"][0]["errors"] == {"math": "the gold answer is missing"}
    assert out[2]["completions"][0]["scores"] == {} and out[2]["completions"][0]["reward"] is None
    assert out[3]["completions"][0]["scores"] == {"math": 1.0, "form": 1.0} and out[3]["completions"][0]["reward"] == 2.0
    for before, after in zip(RECORDS, out):  # everything else passes through
        kept = [{key: each[key] for key in ("text", "finish", "token_ids")} for each in after["completions"]]
        assert {**after, "completions": kept} == before
    assert "4 in, 4 out, 1 masked [masked: math: the gold answer is missing (1)]" in done.err


def test_scoring_twice_changes_nothing_and_files_equal_stdout(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    once = pt("pt-score", "--verify", "in.jsonl", check=0).stdout
    assert pt("pt-score", "--verify", input=once, check=0).stdout == once
    pt("pt-score", "--verify", "in.jsonl", "-o", "out.jsonl", check=0)
    assert (tmp_path / "out.jsonl").read_bytes() == once
    rows = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["rows"]
    assert (rows["in"], rows["out"], rows["masked"]) == (4, 4, 1)


def test_raters_are_aspects_from_one_to_five(pt):
    pool = record("a", MATH, "The answer is 72.", "The answer is 73. dog")
    done = pt("pt-score", "--verify", "--raters", "correct,ended,format", input=lines([pool]), check=0)
    good, bad = json.loads(done.out)["completions"]
    assert good["scores"] == {"math": 1.0, "correct": 5.0, "ended": 5.0, "format": 5.0} and good["reward"] == 5.0
    assert bad["scores"] == {"math": 0.0, "correct": 1.0, "ended": 5.0, "format": 3.0} and bad["reward"] == 3.0


def test_usage_and_bad_rows(pt, tmp_path):
    assert pt("pt-score", input="", check=2).err.startswith("pt-score: say how to score")
    assert "unknown rater 'nice'" in pt("pt-score", "--raters", "nice", input="", check=2).err
    assert "named twice" in pt("pt-score", "--raters", "ended,ended", input="", check=2).err
    assert pt("pt-score", "--verify", input="", check=0).out == ""
    bad = [{"id": "x", "verifier": MATH}, record("y", {"name": "os.system"}, "72"), record("z", None, "72"), RECORDS[0]]
    for number, why in enumerate(("no completions", "code to import", "no verifier")):
        done = pt("pt-score", "--verify", input=lines(bad[number:]), check=3)
        assert f"stdin:1: " in done.err and why in done.err and not done.out
    done = pt("pt-score", "--verify", "--on-error", "skip", "--rejects", "bad.jsonl", input=lines(bad), check=0)
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["b"]
    assert [json.loads(line)["row"]["id"] for line in open(tmp_path / "bad.jsonl")] == ["x", "y", "z"]
    assert "4 in, 1 out, 3 errored" in done.err
