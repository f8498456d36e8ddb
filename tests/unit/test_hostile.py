"""Input that no one means well with: odd types, odd names, odd places. One line, the right code, nothing lost."""

import copy
import json
import os
import random

import pytest

from pt_tools import errors, record, rewards, stream
from pt_tools.curate import choose, pairs, split, stats
from pt_tools.rewards import answers, evaluate, evaluate_against, math, verifiers

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
MATH = {"name": "math", "answer": "5"}
ODD = [None, True, 0, -1, 1.5, "", "x", "\x1b[31m", [], [1], ["a"], [[]], [{}], {}, {"a": 1}, USER, [USER], "####"]
ROWS = [
    {"id": "a", "domain": "m", "prompt": [USER], "verifier": MATH, "prompt_ids": [1], "tokenizer": "t", "completions": [
        {"text": "The answer is 5.", "finish": "stop", "token_ids": [1], "logprobs": [-0.1], "scores": {"math": 1.0}, "details": {},
         "errors": {}, "reward": 1.0, "model": "m"}, {"text": "no", "finish": "length", "scores": {"math": 0.0}, "reward": 0.0}]},
    {"prompt": "q", "verifier": [{"name": "constraints", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}],
     "completions": [{"text": "a", "finish": "stop"}]},
    {"messages": [USER, ANSWER]}, {"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "b"}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": "[]", "system": "s"},
    {"instruction": "i", "input": "x", "output": "o", "history": [["a", "b"]]}, {"question": "q", "answer": "a #### 5"},
    {"problem": "p", "answer": 5, "unique_id": 3}, {"messages": [USER], "ground_truth": "5", "dataset": "gsm8k"},
    {"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "key": 1},
    {"messages": [USER], "ground_truth": '{"func_name": "verify_keywords", "keyword_list": ["a"]}', "dataset": "ifeval"},
]  # fmt: skip


def places(value, path=()):
    """The path of every value inside a row."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def curate(rec):
    record.check(rec)
    rewards.check(rec) if rec.get("verifier") else None
    stats.table([stats.measure(record.ensure_id(rec))])
    pairs.pairs(rec), choose.best(rec, choose.Rule(2)), split.part_of(rec, {"a": 1.0}, 0)


def evaluated(rec):
    tally = evaluate.Tally((1,))
    if tally.add(rec):
        tally.report()


def score(rec, *raters):
    scorer = verifiers.Verifiers(True, raters)
    rewards.read_columns(rec)
    record.check_scores(rec)
    scorer.check(rec)
    scorer.score([rec])


@pytest.mark.parametrize("use", [record.convert, curate, evaluated, score,
                                 lambda rec: score(rec, "correct", "instructions", "ended", "format")])
def test_any_type_anywhere_is_used_or_refused(use):
    rng = random.Random(0)
    for _ in range(4000):
        row = copy.deepcopy(rng.choice(ROWS))
        *path, last = rng.choice(list(places(row)))
        inner = row
        for key in path:
            inner = inner[key]
        inner[last] = copy.deepcopy(rng.choice(ODD))
        try:
            use(row)
        except ValueError:
            pass  # a bad row, exit code 3; anything else is a bug


def test_a_rater_does_not_make_up_for_a_verifier_that_failed():
    rec = {"prompt": "q", "verifier": {"name": "math"}, "completions": [{"text": "5", "finish": "stop"}]}
    score(rec, "ended")
    assert rec["completions"][0]["scores"] == {"ended": 5.0} and rec["completions"][0]["reward"] is None


def test_records_without_ids_are_compared_by_content():
    def scored(question, reward):
        return {"prompt": question, "completions": [{"text": "x", "reward": reward}]}

    ours, theirs = evaluate.Tally(), evaluate.Tally()
    for question in ("a", "b"):
        ours.add(scored(question, 1.0))
    for question, reward in (("a", 0.0), ("b", 1.0), ("c", 0.0)):
        theirs.add(scored(question, reward))
    found = evaluate_against.compare(ours, theirs)
    assert found["domains"]["all"]["mean"] == 0.75 and found["unmatched"] == 1


@pytest.mark.parametrize("answer", ["3 4", "1. 5", "12 34", "1 2345"])
def test_two_numbers_are_not_one(answer):
    assert not answers.equal(answer, answer.replace(" ", "")) and answers.equal("1 234 567", "1234567")


def test_a_gold_answer_that_the_reader_rounded_or_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="beyond 64 bits"):
        math.check({"answer": 12345678901234567890123.0})
    for gold in (None, ["1", "2"], {}, True):
        with pytest.raises(ValueError, match="answer to check against"):
            record.convert({"messages": [USER], "ground_truth": gold, "dataset": "gsm8k"})


def test_messages_are_one_line_that_steers_no_terminal(pt, tmp_path):
    assert str(errors.Usage("a\x1b[31mb", "x\ny")) == "x\\ny: a\\x1b[31mb"
    (tmp_path / "new\nline.jsonl").write_text('{"\x9b31m": 1}\n')
    err = pt("pt-curate", "convert", "new\nline.jsonl", check=3).err
    assert err.count("\n") == 1 and "\\x9b31m" in err
    row = json.dumps({"prompt": "q", "domain": "\x1b[31m"})
    assert "\x1b" not in pt("pt-curate", "stats", input=row, check=0).out
    assert pt("pt-curate", check=2).err == "pt-curate: a command is missing; see --help\n"


def test_odd_places_are_wrong_use(pt, tmp_path):
    row = tmp_path / "p.jsonl"
    row.write_text('{"prompt": "q"}\n')
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for flags in (["-o", "p.jsonl/x"], ["-o", "a" * 300], ["--config", "d"], ["--on-error", "skip", "--rejects", "d"],
                  ["--on-error", "skip", "--rejects", "./p.jsonl"], ["-o", "pipe"], ["-o", "/dev/null"]):
        done = pt("pt-curate", "convert", "p.jsonl", *flags, check=2)
        assert done.err.count("\n") == 1 and "bug" not in done.err
    assert row.read_text() == '{"prompt": "q"}\n' and (tmp_path / "pipe").is_fifo() and not os.path.isfile("/dev/null")
    assert "finite" in pt("pt-curate", "best", "p.jsonl", "--min-reward", "nan", check=2).err


def test_a_name_that_is_not_utf8(pt, tmp_path):
    name = os.fsdecode(b"\xff.jsonl")
    (tmp_path / name).write_text('{"prompt": "q"}\n')
    pt("pt-curate", "convert", name, "-o", "out.jsonl", check=0)
    assert name in json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["command"]


def test_rejects_of_an_earlier_run_do_not_stay(pt, tmp_path):
    (tmp_path / "rejects").write_text("old\n")
    pt("pt-curate", "validate", "--on-error", "skip", "--rejects", "rejects", input='{"prompt": "q"}\n', check=0)
    assert (tmp_path / "rejects").read_text() == ""


def test_arrays_with_a_mark_and_too_deep(pt, tmp_path):
    (tmp_path / "marked.json").write_bytes(b'\xef\xbb\xbf[{"prompt": "q"}]')
    pt("pt-curate", "convert", "marked.json", check=0)
    (tmp_path / "deep.json").write_text('[{"prompt": "q", "x": ' + "[" * 300 + "]" * 300 + "}]")
    assert "deep" in pt("pt-curate", "convert", "deep.json", check=3).err


def test_reasons_that_quote_the_data_do_not_grow_without_end():
    rows = stream.Rows()
    for number in range(5000):
        rows.add("errored", 1, f"the role {number}")
    assert len(rows.reasons) <= stream.MAX_REASONS + 1 and sum(rows.reasons.values()) == rows.n["errored"] == 5000
