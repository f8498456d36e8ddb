"""Best of n: hand-computed cases, pass rates, majorities, votes, samples of several rounds."""

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import assistant, jsonl, rows_of, scored, user

from pt_tools import record
from pt_tools.curate import choose
from pt_tools.curate import completions as comps
from pt_tools.curate.choose import Rule


def answers(rec, **rule):
    """The kept answers of a record, best first; or why there is none."""
    made, why = choose.best(rec, Rule(**rule))
    assert bool(made) == (why is None)
    return [one["messages"][-1]["content"] for one in made] if made else why


# --- best ---------------------------------------------------------------------------------------------------------


def test_best_by_hand():
    rec = scored(0.5, 1.0, None, 1.0, 0.0)
    made, why = choose.best(rec)
    assert why is None
    assert made == [{"id": "r", "source": "s", "domain": "d", "messages": [user("u"), assistant("answer 1")],
                     "reward": 1.0, "rank": 1}]
    record.check(made[0])
    made, _ = choose.best(rec, Rule(3, least=0.5))
    assert [(m["id"], m["messages"][-1]["content"], m["rank"]) for m in made] == [
        ("r", "answer 1", 1), ("r/2", "answer 3", 2), ("r/3", "answer 0", 3)]
    assert len(choose.best(rec, Rule(9, least=0.5))[0]) == 3
    assert choose.best(rec, Rule(least=1.5)) == ([], "no completion reaches --min-reward")
    assert (
        answers(scored(None))
        == answers(scored())
        == answers({"id": "x", "prompt": "u"})
        == "no completion with a reward and a text"
    )


def test_best_keeps_one_of_equal_texts():
    rec = scored(1.0, 1.0, 0.5)
    rec["completions"][1]["text"] = "answer 0"
    assert answers(rec, per_prompt=3) == ["answer 0", "answer 2"]


def test_best_trains_the_new_turn_only():
    rec = scored(1.0, prompt=[user("u"), assistant("old"), user("v")])
    assert [turn.get("train", True) for turn in choose.best(rec)[0][0]["messages"]] == [True, False, True, True]


def test_completions_that_cannot_be_trained_on_are_left_aside():
    rec = scored(1.0, 0.9, 0.8, 0.1)
    for completion, text in zip(rec["completions"], ("", "a</s>", "x", "good")):
        completion["text"] = text
    rec["completions"][2]["finish"] = "stopped"
    assert answers(rec, per_prompt=9) == ["good"]


@given(st.lists(st.one_of(st.none(), st.integers(-2, 2)), max_size=8), st.integers(1, 9), st.sampled_from([None, -1, 0, 2]))
def test_best_equals_a_naive_twin(rewards, k, least):
    found = [(r, i) for i, r in enumerate(rewards) if r is not None and (least is None or r >= least)]
    wanted = [f"answer {i}" for _, i in sorted(found, key=lambda item: (-item[0], item[1]))][:k]
    made, why = choose.best(scored(*rewards), Rule(k, least=least))
    assert [one["messages"][-1]["content"] for one in made] == wanted and (why is None) == bool(wanted)
    assert [one["rank"] for one in made] == list(range(1, len(wanted) + 1))


# --- scores -------------------------------------------------------------------------------------------------------


def by_scores(**columns):
    rec = scored(*[0] * len(next(iter(columns.values()))))
    for i, completion in enumerate(rec["completions"]):
        completion["scores"] = {name: column[i] for name, column in columns.items() if column[i] is not None}
    return rec


def test_scores_instead_of_the_reward():
    rec = by_scores(math=[0, 1, 1, 0], help=[4, 1, 2, 5])
    assert answers(rec, scores=("help",), per_prompt=4) == ["answer 3", "answer 0", "answer 2", "answer 1"]
    assert answers(rec, scores=("math", "help"), per_prompt=2) == ["answer 3", "answer 0"]  # means 2, 1, 1.5, 2.5
    assert choose.best(rec, Rule(scores=("math", "help")))[0][0]["reward"] == 2.5
    assert answers(rec, scores=("help",), limits=(("math", 1.0),), per_prompt=4) == ["answer 2", "answer 1"]
    assert answers(rec, limits=(("math", 2.0),)) == "no completion passes"
    assert answers(rec, scores=("other",)) == "no completion with the score other and a text"
    rec["completions"][3]["errors"] = {"help": "no judge"}
    assert answers(rec, scores=("help",)) == ["answer 0"]
    assert answers(by_scores(a=[1, None]), scores=("a",), per_prompt=2) == ["answer 0"]


def test_a_vote_of_scorers():
    """Two of three raters put answer 1 first, though the mean prefers answer 0; means decide between equal votes."""
    rec = by_scores(a=[10, 5, 0], b=[4, 5, 1], c=[4, 5, 5])
    names = ("a", "b", "c")
    assert answers(rec, scores=names, per_prompt=3) == ["answer 0", "answer 1", "answer 2"]
    assert answers(rec, scores=names, vote=True, per_prompt=3) == ["answer 1", "answer 0", "answer 2"]
    assert choose.best(rec, Rule(scores=names, vote=True))[0][0]["reward"] == 5


def test_limits():
    assert comps.limit("math>=0.5") == ("math", 0.5) and comps.limit("json-schema >= -1e1") == ("json-schema", -10.0)
    for bad in ("math", "math>0.5", ">=1", "math>=", "math>=x", "math>=nan", "math>=1 2"):
        with pytest.raises(ValueError, match="NAME>=NUMBER"):
            comps.limit(bad)
    one = {"scores": {"a": 1.0, "b": 0.0}, "reward": 2}
    assert comps.passes(one, [("a", 1.0), ("reward", 2)]) is True and comps.passes(one, []) is True
    assert comps.passes(one, [("a", 1.0), ("b", 0.1)]) is False
    assert comps.passes(one, [("a", 1.0), ("c", 0.0)]) is None
    assert comps.passes(one, [("c", 0.0), ("b", 0.1)]) is False  # it fails whatever c is


# --- pass rates ---------------------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([None, 0.0, 0.5, 1.0]), max_size=8), st.sampled_from([(0.1, 0.9), (0, 1), (0.5, 0.5), (0, 0)])
)
def test_a_band_of_pass_rates(rewards, band):
    rec = scored(*rewards)
    for completion in rec["completions"][1::2]:
        completion["text"] = ""  # a try that failed, but a try
    known = [r for r in rewards if r is not None]
    rate = Fraction(sum(r == 1 for r in known), len(known)) if known else None
    made, why = choose.best(rec, Rule(band=band, prompts=True))
    if rate is None:
        assert why == "no completion of which it is known whether it passes"
    elif band[0] <= rate <= band[1]:
        (one,) = made
        assert one == {**{k: v for k, v in rec.items() if k != "completions"}, "pass_rate": float(rate)}
        record.check(one)
    else:
        assert why == f"pass rate {'below' if rate < band[0] else 'above'} the band"


def test_a_pass_of_several_scores():
    rec = by_scores(math=[1, 1, 0, 1], format=[1, 0, 1, None])
    assert comps.pass_rate(rec, (("math", 1.0), ("format", 1.0))) == 1 / 3
    assert comps.pass_rate(rec, (("math", 1.0),)) == 3 / 4
    made, _ = choose.best(
        rec, Rule(band=(0.1, 0.5), passing=(("math", 1.0), ("format", 1.0)), limits=(("math", 1.0),), scores=("format",))
    )
    assert made[0]["pass_rate"] == 1 / 3 and made[0]["messages"][-1]["content"] == "answer 0"


# --- majority -----------------------------------------------------------------------------------------------------


def saying(*texts, **more):
    return {"id": "r", "prompt": "Question?", "completions": [{"text": text, "finish": "stop"} for text in texts], **more}


def test_the_majority_of_stated_answers():
    """Answers are compared as mathematics; rewards and gold answers are not needed."""
    rec = saying("so \\boxed{0.5}", "The answer is 1/2.", "#### 3", "no idea", "\\boxed{\\frac{1}{2}}")
    assert answers(rec, majority=0.5, per_prompt=9) == ["so \\boxed{0.5}", "The answer is 1/2.", "\\boxed{\\frac{1}{2}}"]
    assert answers(rec, majority=0.6) == ["so \\boxed{0.5}"]
    assert answers(rec, majority=0.61) == "no majority: the most frequent answer is too rare"
    assert (
        answers(saying("#### 1", "#### 2", "#### 2.0", "#### 1"), majority=0.0)
        == "no majority: two answers are equally frequent"
    )
    assert answers(saying("a", "b"), majority=0.0) == "no completion with an answer"
    assert answers(saying(), majority=0.0) == "no completion with an answer"
    made, _ = choose.best(rec, Rule(majority=0.5))
    assert "reward" not in made[0] and made[0]["rank"] == 1
    record.check(made[0])


def test_the_majority_of_answers_that_a_verifier_extracted():
    rec = saying("x", "y", "z", verifier={"name": "exact", "answer": "A"})
    for completion, answer, reward in zip(rec["completions"], ("A", "B", "B"), (1, 0, 0.5)):
        completion.update(details={"exact": {"answer": answer}}, reward=reward)
    assert answers(rec, majority=0.5, per_prompt=2) == ["z", "y"]  # by reward among those that agree
    assert answers(rec, majority=0.5, least=0.6) == "no completion reaches --min-reward"
    with pytest.raises(ValueError):
        answers({**rec, "verifier": [1]}, majority=0.5)


# --- the command --------------------------------------------------------------------------------------------------


def rounds(tmp_path, n=40, by="id"):
    """Three rounds of samples; the best of a prompt may be in any, and a prompt may be missing in one."""
    rng, best = random.Random(0), {}
    for number in range(3):
        rows = []
        for i in range(n):
            if rng.random() < 0.2:
                continue
            rec = {
                "id": f"q{i}" if by == "id" else f"q{i}.{number}",
                "source": "s",
                "prompt": [user(f"Frage {i} 質問?")],
                "round": number,
                "completions": [{"text": f"answer {number}.{k}", "reward": rng.random()} for k in range(3)],
            }
            rows.append(rec)
            top = max(rec["completions"], key=lambda c: c["reward"])
            best[i] = max(best.get(i, (0, "")), (top["reward"], top["text"]))
        rng.shuffle(rows)
        jsonl(tmp_path / f"round{number}.jsonl", rows)
    return best


@pytest.mark.parametrize("by", ["id", "prompt"])
def test_the_best_of_all_rounds(tmp_path, pt, by):
    """Llama 2, section 3.2.3: the samples of all earlier iterations are candidates."""
    best = rounds(tmp_path, by=by)
    files = [f"round{number}.jsonl" for number in range(3)]
    done = pt("pt-curate", "best", *files, "--pool", by, "-j", "2", check=0)
    made = {int(one["messages"][0]["content"].split()[1]): one for one in rows_of(done.out)}
    assert {i: (one["reward"], one["messages"][-1]["content"]) for i, one in made.items()} == best
    rows = [row for file in files for row in rows_of((tmp_path / file).read_text())]
    assert f"rows: {len(rows)} in, {len(best)} out, {len(rows) - len(best)} dropped" in done.err
    # In the order of the first rows, whose other fields they keep.
    firsts = {}
    for row in rows:
        firsts.setdefault(int(row["prompt"][0]["content"].split()[1]), row)
    assert list(made) == list(firsts)
    assert all((made[i]["id"], made[i]["round"]) == (row["id"], row["round"]) for i, row in firsts.items())
    # Pooled by hand, it is the same.
    for i, row in firsts.items():
        row = firsts[i] = dict(row)
        row["completions"] = [c for r in rows if r["prompt"] == row["prompt"] for c in r["completions"]]
    jsonl(tmp_path / "all.jsonl", firsts.values())
    assert pt("pt-curate", "best", "all.jsonl", check=0).out == done.out
    assert pt("pt-curate", "best", "all.jsonl", "--pool", by, check=0).out == done.out


def test_one_id_of_two_prompts_is_a_bad_row(tmp_path, pt):
    jsonl(tmp_path / "a.jsonl", [scored(1, id="x"), scored(0, id="y")])
    jsonl(tmp_path / "b.jsonl", [scored(2, id="y"), scored(3, id="x", prompt=[user("another")])])
    done = pt("pt-curate", "best", "a.jsonl", "b.jsonl", "--pool", "id", check=3)
    assert "b.jsonl:2: its prompt is not that of a.jsonl:1, which has the same id" in done.err
    done = pt(
        "pt-curate", "best", "a.jsonl", "b.jsonl", "--pool", "id", "--on-error", "skip", "--rejects", "bad.jsonl", check=0
    )
    assert [(one["id"], one["reward"]) for one in rows_of(done.out)] == [("x", 1), ("y", 2)]
    assert "rows: 4 in, 2 out, 1 dropped, 1 errored" in done.err
    (bad,) = rows_of((tmp_path / "bad.jsonl").read_text())
    assert (bad["file"], bad["line"]) == ("b.jsonl", 2)


def test_pass_rates_go_by_the_named_scores(tmp_path, pt):
    """The same value decides the rate, --min-reward and the order; the reward says the opposite here, or nothing."""
    rec = by_scores(math=[1, 1, 0, None], style=[1, 0, 0, 1])
    for completion, reward in zip(rec["completions"], (0, 0, 1, 1)):
        completion["reward"] = reward
    bare = {**rec, "id": "bare", "completions": [{k: v for k, v in c.items() if k != "reward"} for c in rec["completions"]]}
    jsonl(tmp_path / "a.jsonl", [rec, bare])
    for rate, argv in ((2 / 3, ["--score", "math"]), (1 / 3, ["--score", "math", "--score", "style"]),
                       (2 / 3, ["--score", "math", "--score", "style", "--min-reward", "0.5"]),
                       (1 / 3, ["--score", "math", "--min-reward", "0.5", "--passes", "style>=1"])):
        for more in ([], ["--prompts"]):
            made = rows_of(pt("pt-curate", "best", "a.jsonl", "--pass-rate", "0:1", *argv, *more, check=0).out)
            assert [one["pass_rate"] for one in made] == [rate, rate], argv
    rewards = rows_of(pt("pt-curate", "best", "a.jsonl", "--pass-rate", "0:1", "--prompts", check=0).out)
    assert [(one["id"], one["pass_rate"]) for one in rewards] == [(rec["id"], 0.5)]


def test_prompts_of_middling_difficulty(tmp_path, pt):
    rows = [
        scored(*[1] * (i % 5), *[0] * (4 - i % 5), id=f"r{i}", verifier={"name": "math", "answer": "1"}) for i in range(50)
    ]
    jsonl(tmp_path / "a.jsonl", rows)
    for jobs in (1, 2):
        done = pt("pt-curate", "best", "a.jsonl", "--pass-rate", "0.1:0.9", "--prompts", "-j", jobs, check=0)
        kept = rows_of(done.out)
        assert [one["id"] for one in kept] == [f"r{i}" for i in range(50) if i % 5 in (1, 2, 3)]
        assert [one["pass_rate"] for one in kept[:3]] == [0.25, 0.5, 0.75]
        assert all("completions" not in one and one["verifier"] for one in kept)
        assert "rows: 50 in, 30 out, 20 dropped" in done.err and "pass rate below the band (10)" in done.err
    again = pt("pt-curate", "best", "a.jsonl", "--pass-rate", "0.25:0.25", "--min-reward", "0.5", check=0)
    assert Counter(one["pass_rate"] for one in rows_of(again.out)) == {0.25: 10}


@pytest.mark.parametrize("argv,why", [
    (("--pass-rate", "0.1"), "has not the form LO:HI"), (("--pass-rate", "0.9:0.1"), "between 0 and 1"),
    (("--pass-rate", "0:2"), "between 0 and 1"), (("--prompts",), "--prompts is of use only with --pass-rate"),
    (("--prompts", "--pass-rate", "0:1", "--majority", "0.5"), "--majority is about completions"),
    (("--prompts", "--pass-rate", "0:1", "--score", "a", "--passes", "a>=1"), "--score is about completions"),
    (("--vote", "--score", "a"), "--vote is of use only with several --score"), (("--passes", "a"), "NAME>=NUMBER"),
    (("--majority", "1.5"), "--majority must be at most 1"), (("--pool", "source"), "source"),
])
def test_wrong_use(tmp_path, pt, argv, why):
    jsonl(tmp_path / "a.jsonl", [scored(1, 0)])
    assert why in pt("pt-curate", "best", "a.jsonl", *argv, check=2).err


def test_graded_samples_of_real_problems(data, tmp_path, pt):
    """GSM8K: three stated answers a problem, two of them right; what is kept is what the verifier calls right."""
    pt("pt-curate", "convert", data / "gsm8k" / "test.jsonl", "--source", "gsm8k", "-o", "p.jsonl", check=0)
    rows = rows_of((tmp_path / "p.jsonl").read_text())[:200]
    for row in rows:
        gold = row["verifier"]["answer"]
        row["completions"] = [
            {"text": text, "finish": "stop"}
            for text in ("So it is 123456789.\n#### 123456789", f"#### {gold}", f"The answer is {gold}.")
        ]
    jsonl(tmp_path / "s.jsonl", rows)
    pt("pt-score", "--verify", "s.jsonl", "-o", "scored.jsonl", check=0)
    kept = rows_of(pt("pt-curate", "best", "scored.jsonl", "--passes", "math>=1", "--per-prompt", "3", check=0).out)
    assert len(kept) == 400 and not any("123456789" in one["messages"][-1]["content"] for one in kept)
    agreed = rows_of(pt("pt-curate", "best", "s.jsonl", "--majority", "0.5", "--per-prompt", "3", check=0).out)
    assert [one["messages"] for one in agreed] == [one["messages"] for one in kept]
    rates = rows_of(pt("pt-curate", "best", "scored.jsonl", "--pass-rate", "0.6:0.7", "--prompts", check=0).out)
    assert len(rates) == 200 and {one["pass_rate"] for one in rates} == {2 / 3}
