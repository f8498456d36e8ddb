"""pt-eval: figures by hand, masked completions, win rates, files, and a real model."""

import json

import pytest

from pt_tools.rewards import evaluate, stats


def record(id, domain, rewards, key="math", **more):
    """A record scored by its verifier; a reward of None is a grader's failure."""
    completions = [
        {"text": "x", "finish": "stop", "scores": {} if r is None else {key: r}, "errors": {key: "lost"} if r is None else {}, "reward": r}
        for r in rewards
    ]
    return {"id": id, "domain": domain, "verifier": {"name": "math", "answer": "1"}, "completions": completions, **more}


RECORDS = [
    record("a", "m", [1.0, 1.0, 0.0, 0.0]),
    record("b", "m", [1.0, 1.0, 1.0, 1.0]),
    record("c", "s", [0.0, 0.0, 0.0, 1.0]),
    record("d", "s", [None, 1.0, None, None]),
    record("e", "s", [None, None, None, None]),
]


def lines(records):
    return "".join(json.dumps(each) + "\n" for each in records)


def test_figures_by_hand(pt):
    done = pt("pt-eval", "--k", "1,2,4", "--json", input=lines(RECORDS), check=0)
    report = json.loads(done.out)
    m, s = report["domains"]["m"], report["domains"]["s"]
    assert (m["n"], m["samples"], m["mean"], m["reward"]) == (2, 8, 0.75, 0.75)
    assert (s["n"], s["samples"], s["mean"]) == (2, 5, (0.25 + 1.0) / 2)
    assert m["pass@2"]["mean"] == pytest.approx((5 / 6 + 1) / 2) and m["pass@4"]["mean"] == 1.0
    assert s["pass@2"] == pytest.approx({"n": 1, **stats.proportion([0.5])._asdict()})
    assert (m["low"], m["high"]) == pytest.approx(stats.proportion([0.5, 1.0])[1:])
    assert report["mean"] == pytest.approx(stats.macro([stats.proportion([0.5, 1.0]), stats.proportion([0.25, 1.0])])._asdict())
    assert report["extra"]["pass@1"] == pytest.approx(report["mean"])
    assert report["extra"]["ungraded_completions"] == 7 and report["extra"]["finish"] == {"stop": 20}
    assert (report["rows"]["in"], report["rows"]["out"], report["rows"]["masked"]) == (5, 5, 1)
    assert report["sampling"] is None
    assert "1 masked [masked: no completion could be graded (1)]" in done.err


def test_the_table(pt):
    out = pt("pt-eval", "--k", "2", input=lines(RECORDS), check=0).out.splitlines()
    assert out[0].split() == ["domain", "prompts", "pass@1", "95", "%", "pass@2"]
    assert [line.split()[:3] for line in out[1:]] == [["m", "2", "0.750"], ["s", "2", "0.625"], ["mean", "4", "0.688"]]
    assert out[1].split()[-1] == "0.917"


def test_what_correct_means():
    two = {"verifier": [{"name": "math", "answer": "1"}, {"name": "math", "answer": "2", "key": "b"}]}
    assert evaluate.outcome(two, {"scores": {"math": 1.0, "b": 0.0}, "reward": 1.0}) is False
    assert evaluate.outcome(two, {"scores": {"math": 1.0, "b": 1.0}, "reward": 2.0}) is True
    assert evaluate.outcome(two, {"scores": {"math": 1.0}, "errors": {"b": "lost"}, "reward": None}) is None
    assert evaluate.outcome(two, {"scores": {"correct": 5.0, "ended": 1.0}, "reward": 3.0}) is True
    assert evaluate.outcome(two, {"scores": {}, "errors": {"correct": "lost"}, "reward": None}) is None
    assert evaluate.outcome({}, {"reward": 1.0}) is True and evaluate.outcome({}, {"reward": None}) is None
    for rec, completion in ((two, {"text": "x"}), (two, {"scores": {"judge": 1.0}, "reward": 1.0}), ({}, {})):
        with pytest.raises(ValueError, match="no scores"):
            evaluate.outcome(rec, completion)


def test_win_rate_over_another_model(pt, tmp_path):
    other = [record("a", "m", [0.0]), record("b", "m", [1.0]), record("c", "s", [1.0, 0.0]), record("zz", "s", [0.0])]
    (tmp_path / "other.jsonl").write_text(lines(other))
    report = json.loads(pt("pt-eval", "--against", "other.jsonl", "--json", input=lines(RECORDS), check=0).out)
    against = report["extra"]["against"]
    # a: two of four beat 0, two tie: .75; b: all tie: .5; c: of 4 x 2 pairs 1 wins, 4 tie, 3 lose: .375
    assert against["domains"]["m"]["mean"] == 0.625 and against["domains"]["s"]["mean"] == 0.375
    assert against["mean"]["mean"] == 0.5 and against["unmatched"] == 2  # zz, and d of ours
    swapped = json.loads(pt("pt-eval", "--against", "-", "other.jsonl", "--json", input=lines(RECORDS), check=0).out)
    assert swapped["extra"]["against"]["mean"]["mean"] == 0.5
    (tmp_path / "none.jsonl").write_text(lines([record("zz", "s", [0.0])]))
    assert "same id" in pt("pt-eval", "--against", "none.jsonl", input=lines(RECORDS), check=3).err


def test_a_report_file_is_whole_and_kept(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    first = pt("pt-eval", "in.jsonl", "-o", "eval.json", check=0)
    report = json.loads((tmp_path / "eval.json").read_text())
    assert report["mean"] == json.loads((tmp_path / "eval.json.manifest.json").read_text())["final"]["mean"]
    again = pt("pt-eval", "in.jsonl", "-o", "eval.json", check=0)
    assert "nothing to do" in again.err and again.out == first.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json", "eval.json.manifest.json", "in.jsonl"]


def test_errors(pt):
    unscored = {"id": "a", "verifier": {"name": "math", "answer": "1"}, "completions": [{"text": "1"}]}
    assert "stdin:1: a completion has no scores" in pt("pt-eval", input=lines([unscored]), check=3).err
    assert "no completions" in pt("pt-eval", input=lines([{"id": "a"}]), check=3).err
    assert "no prompt has a graded completion" in pt("pt-eval", input=lines(RECORDS[4:]), check=3).err
    assert "pass@8 needs at least 8 samples" in pt("pt-eval", "--k", "8", input=lines(RECORDS), check=3).err
    assert "whole numbers" in pt("pt-eval", "--k", "two", input="", check=2).err
    assert "needs at least -n 4" in pt("pt-eval", "--k", "4", "-m", "x", input="", check=2).err


def test_a_real_model_is_sampled_and_verified(pt, world, policy, tmp_path):
    prompts = [json.loads(line) for line in open(world / "heldout.jsonl")][:12]
    (tmp_path / "prompts.jsonl").write_text(lines(prompts))
    argv = ["pt-eval", "prompts.jsonl", "-m", policy, "-n", "3", "--k", "3", "--max-new-tokens", "8", "--threads", "1", "--json"]
    report = json.loads(pt(*argv, check=0).out)
    assert sum(part["n"] for part in report["domains"].values()) == 12
    assert {part["samples"] // part["n"] for part in report["domains"].values()} == {3}
    assert set(report["domains"]) == {prompt["domain"] for prompt in prompts}
    assert report["sampling"]["max_new_tokens"] == 8 and sum(report["extra"]["finish"].values()) == 36
    assert report["mean"]["mean"] < 0.5  # random weights


def test_options_of_sampling_are_refused_where_nothing_is_sampled(pt):
    for flags in (["-n", "4"], ["--temperature", "0"], ["--seed", "1"], ["--threads", "1"]):
        assert "of use only with -m" in pt("pt-eval", *flags, input=lines(RECORDS), check=2).err
