"""Preference pairs: hand-computed cases, a naive twin on random records, ratings, models, lengths, real data."""

import itertools
import json
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import assistant, jsonl, rows_of, scored, user

from pt_tools import outdir, record
from pt_tools.curate import pairs, seeded
from pt_tools.curate.lengthbias import Lengths
from pt_tools.curate.pairs import Rule


def pair(rec, **rule):
    """The only pair of a record, or why there is none."""
    made, why = pairs.pairs(rec, Rule(**rule))
    assert len(made) == (why is None)
    return made[0] if made else why


def texts(made):
    return [(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in made]


# --- one pair -----------------------------------------------------------------------------------------------------


def test_a_pair_by_hand():
    made = pair(scored(0.25, 1.0, None))
    assert made == {"id": "r", "source": "s", "domain": "d", "prompt": [user("u")], "chosen": [assistant("answer 1")],
                    "rejected": [assistant("answer 0")], "margin": 0.75, "prompt_ids": [1, 2], "tokenizer": "T",
                    "template": "C", "chosen_ids": [1, 9], "rejected_ids": [0, 9]}
    record.check(made)


def test_why_there_is_no_pair():
    assert pair(scored(1.0, 1.0, 1.0)) == "tie: all rewards are equal"
    assert pair(scored(1.0, None)) == "fewer than two completions with a reward and a text"
    assert pair(scored()) == pair({"id": "x", "prompt": "u"}) == "fewer than two completions with a reward and a text"
    assert (
        pair(scored(1, 0), scores=("math", "help")) == "fewer than two completions with the score math and help and a text"
    )
    assert pair(scored(1.0, 0.75), margin=0.5) == "margin: no completion is so much worse than the best"
    assert pair(scored(1.0, 0.5), margin=0.5)["margin"] == 0.5
    same = scored(1.0, 0.5)
    same["completions"][1]["text"] = same["completions"][0]["text"]
    for rejected in pairs.REJECTED:
        assert pair(same, rejected=rejected).startswith("same text")
        assert pair(scored(1, 1), rejected=rejected) == "tie: all rewards are equal"


def test_a_gap_is_exceeded_and_a_margin_reached():
    """DeepSeek-R1: the mean of four votes, kept if the gap is above 1."""
    votes = [(9, 8, 9, 8), (7, 8, 7, 8), (8, 7, 8, 8), (2, 3, 2, 3)]
    rec = scored(0, 0, 0, 0)
    for completion, four in zip(rec["completions"], votes):
        completion["scores"] = {f"vote{i}": v for i, v in enumerate(four)}
    names = tuple(f"vote{i}" for i in range(4))
    # means 8.5, 7.5, 7.75, 2.5: only the last is more than 1 below
    assert pair(rec, scores=names, gap=1.0)["rejected"][0]["content"] == "answer 3"
    assert {pair({**rec, "id": str(i)}, scores=names, margin=1.0)["margin"] for i in range(40)} == {1.0, 6.0}
    assert {pair({**rec, "id": str(i)}, scores=names)["margin"] for i in range(40)} == {0.75, 1.0, 6.0}
    assert pair(rec, scores=names, gap=6.0).startswith("margin:")


def test_of_the_best_one_that_goes_with_a_worse_one():
    """However the best are drawn: the first has no worse one about as long, the second none of another text."""
    pool = scored(1.0, 1.0, 0.0, 0.0, 1.0)
    for completion, text in zip(pool["completions"], ("a" * 99, "bbbb", "ccccc", "bbbb", "a" * 98)):
        completion["text"] = text
    for seed in range(20):
        made = pair(pool, length_ratio=2.0, seed=seed)
        assert texts([made]) == [("bbbb", "ccccc")]
    pool["completions"][2]["text"] = "c" * 9
    assert pair(pool, length_ratio=2.0).startswith(("lengths:", "same text:"))


def test_scores_beyond_all_floats():
    pool = scored(None, None)
    pool["completions"][1]["scores"] = {"a": 1.7e308, "b": 1.7e308}
    with pytest.raises(ValueError, match="the mean of the scores a and b is no number"):
        pairs.pairs(pool, Rule(scores=("a", "b")))


def test_completions_that_cannot_be_trained_on_are_left_aside():
    rec = scored(1.0, 0.5, 0.25, 0.0)
    for completion, text in zip(rec["completions"][1:], (" ", "a<|user|>", "good")):
        completion["text"] = text
    rec["completions"][0]["finish"] = "error"
    assert pair(rec) == "fewer than two completions with a reward and a text"
    rec["completions"][0]["finish"] = "length"
    assert texts([pair(rec)]) == [("answer 0", "good")]


def test_rejected_is_any_lower_one_and_chosen_any_best_one():
    rejected, chosen = Counter(), Counter()
    for i in range(1200):
        made = pair(scored(3, 2, 1, 0, 3, None, id=str(i)), seed=1)
        rejected[made["rejected"][0]["content"]] += 1
        chosen[made["chosen"][0]["content"]] += 1
    assert rejected.keys() == {"answer 1", "answer 2", "answer 3"} and chosen.keys() == {"answer 0", "answer 4"}
    assert all(abs(n - 400) < 60 for n in rejected.values()) and abs(chosen["answer 0"] - 600) < 60
    assert {pair(scored(3, 2, 1, 0, id=str(i)), rejected="worst")["margin"] for i in range(50)} == {3}
    assert {pair(scored(3, 2, 1, 0, id=str(i)), margin=2)["margin"] for i in range(50)} == {2, 3}


def test_pairs_are_a_matter_of_seed_and_id_alone():
    many = [scored(3, 2, 1, 0, id=str(i)) for i in range(50)]
    one = {rec["id"]: pair(rec, seed=4) for rec in many}
    two = {rec["id"]: pair(rec, seed=4) for rec in random.Random(0).sample(many, 50)}
    other = {rec["id"]: pair(rec, seed=5) for rec in many}
    assert one == two != other


def test_ids_of_another_tokenizer_are_left_out():
    pool = scored(1.0, 0.0)
    pool["completions"][1]["model"] = "other"  # of the same tokenizer, or its ids would not be there
    assert pair(pool)["rejected_ids"] == [1, 9]
    pool["completions"][1]["tokenizer"] = "U"
    made = pair(pool)
    assert not {"chosen_ids", "rejected_ids", "prompt_ids", "tokenizer"} & made.keys()
    pool["tokenizer"] = "U"
    assert pair(pool)["rejected_ids"] == [1, 9]
    server = scored(1.0, 0.0)
    del server["completions"][0]["token_ids"]
    assert "chosen_ids" not in pair(server)


# --- several pairs ------------------------------------------------------------------------------------------------

REWARDS = st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=7)


def naive(rec, rule):
    """The pairs of texts that the rule allows, with the differences of their rewards, by trying all."""
    found = [c for c in rec["completions"] if c["reward"] is not None]
    top = max((c["reward"] for c in found), default=None)
    allowed = defaultdict(set)
    for a, b in itertools.product(found, found):
        (short, long), gap = sorted((len(a["text"]), len(b["text"]))), a["reward"] - b["reward"]
        if ((rule.rejected == "every" or a["reward"] == top) and gap > rule.gap and gap >= rule.margin
                and a["text"] != b["text"] and (not rule.length_ratio or long <= rule.length_ratio * short)):
            allowed[a["text"], b["text"]].add(gap)
    return allowed


@given(
    REWARDS,
    st.sampled_from(pairs.REJECTED),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([None, 1.0, 1.5, 3.0]),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_pairs_equal_a_naive_twin(rewards, rejected, gap, margin, ratio, per_prompt, seed):
    rec = scored(*rewards)
    for i, completion in enumerate(rec["completions"]):
        completion["text"] = "本" * (i % 5 + 1)  # the sixth is the first again, it may be of another reward
    rule = Rule(rejected, gap=gap, margin=margin, length_ratio=ratio, per_prompt=per_prompt, seed=seed)
    made, why = pairs.pairs(rec, rule)
    allowed, found = naive(rec, rule), texts(made)
    assert len(set(found)) == len(found) and set(found) <= set(allowed)
    assert (why is None) == bool(made) == bool(allowed)
    assert all(one["margin"] in allowed[texts] for one, texts in zip(made, found))
    assert [one["id"] for one in made] == [f"r/{i}" if i > 1 else "r" for i in range(1, len(made) + 1)]
    if rejected == "every":
        assert len(found) == min(per_prompt, len({frozenset(texts) for texts in allowed}))  # one of a pair and its reverse
    elif made:
        assert len({a for a, _ in found}) == 1  # one chosen, whichever of the best it was
        partners = {b for a, b in allowed if a == found[0][0]}
        assert len(found) == min(per_prompt, len(partners))
        if rejected == "worst":
            margins = [one["margin"] for one in made]
            assert margins == sorted(margins, reverse=True)
            assert margins[0] == max(max(gaps) for (a, _), gaps in allowed.items() if a == found[0][0])


@given(REWARDS, st.sampled_from(pairs.REJECTED), st.integers(0, 3))
def test_more_pairs_begin_with_the_fewer(rewards, rejected, seed):
    rec = scored(*rewards)
    all_ = pairs.pairs(rec, Rule(rejected, per_prompt=99, seed=seed))[0]
    for n in range(1, 5):
        assert pairs.pairs(rec, Rule(rejected, per_prompt=n, seed=seed))[0] == all_[:n]


def test_the_first_draw_is_the_pick():
    items = list("abcdefg")
    for i in range(50):
        drawn = list(seeded.draws(items, 3, "x", i))
        assert drawn[0] == seeded.pick(items, 3, "x", i) and sorted(drawn) == items
    assert items == list("abcdefg")
    second = Counter(list(seeded.draws(items, 3, i))[1] for i in range(700))
    assert all(60 < second[item] < 140 for item in items)  # three standard deviations are 28


def test_a_pair_and_its_reverse_are_never_made():
    """Equal texts with unlike rewards."""
    rec = scored(3, 2, 1, 0)
    for completion, text in zip(rec["completions"], ("a", "b", "a", "c")):
        completion["text"] = text
    found = set(texts(pairs.pairs(rec, Rule("every", per_prompt=99))[0]))
    assert found == {("a", "b"), ("a", "c"), ("b", "c")}


# --- ratings ------------------------------------------------------------------------------------------------------


def test_ratings_by_gap_and_the_margins_of_llama2():
    """Llama 2, Table 27: small 1, 2/3, 1/3, 0; large 3, 2, 1, 0."""
    wanted = [(2.0, "significantly better", 1, 3), (1.0, "significantly better", 1, 3), (0.75, "better", 2 / 3, 2),
              (0.5, "better", 2 / 3, 2), (0.375, "slightly better", 1 / 3, 1), (0.25, "slightly better", 1 / 3, 1),
              (0.125, "negligibly better", 0, 0)]
    for gap, rating, small, large in wanted:
        made = pair(scored(gap, 0.0), rating_gaps=(0.25, 0.5, 1.0))
        assert (made["rating"], made["margin"]) == (rating, gap)
        assert pair(scored(gap, 0.0), rating_gaps=(0.25, 0.5, 1.0), margins="small")["margin"] == pytest.approx(small)
        made = pair(scored(gap, 0.0), rating_gaps=(0.25, 0.5, 1.0), margins="large")
        assert (made["rating"], made["margin"]) == (rating, large)
        record.check(made)


def test_ratings_from_the_data():
    assert pair(scored(5, 1, rating="slightly better"), margins="large")["margin"] == 1
    ready = {"id": "p", "prompt": "u", "chosen": "a", "rejected": "b", "x": 1}
    for text, margin in (
        ("Significantly  better", 3),
        ("better", 2),
        ("SLIGHTLY_BETTER", 1),
        ("negligibly better / unsure", 0),
        ("unsure", 0),
    ):
        made = pair({**ready, "rating": text}, margins="large")
        assert made == {**ready, "rating": made["rating"], "margin": margin} and made["rating"] in pairs.RATINGS
    with pytest.raises(ValueError, match="rating is missing"):
        pair(ready, margins="small")
    with pytest.raises(ValueError, match="rating is 4, not one of significantly better"):
        pair({**ready, "rating": 4}, margins="small")
    assert pair(ready) == "fewer than two completions with a reward and a text"
    made = pair({**ready, "margin": 0.6}, rating_gaps=(0.1, 0.5, 1.0))
    assert (made["rating"], made["margin"]) == ("better", 0.6)
    assert pair({**ready, "margin": 0.6}, rating_gaps=(0.1, 0.5, 1.0), margins="small")["margin"] == 2 / 3
    with pytest.raises(ValueError, match="margin is missing"):
        pair(ready, rating_gaps=(0.1, 0.5, 1.0))


def test_rating_again_changes_nothing():
    made = pair(scored(5, 1), rating_gaps=(1, 2, 3), margins="small")
    assert pair(made, margins="small") == made


# --- two models ---------------------------------------------------------------------------------------------------

STRONG, WEAK = "a1" * 32, "hub:org/small@" + "b2" * 20


def delta(n=2, m=2, id="r"):
    completions = [{"text": f"strong {i}", "model": STRONG, "finish": "stop"} for i in range(n)]
    return {"id": id, "prompt": "u", "completions": completions + [
        {"text": f"weak {i}", "model": WEAK, "finish": "stop", "reward": 9.0} for i in range(m)]}


def test_delta_pairs():
    for names in ((STRONG, WEAK), ("a1a1a1a1", "org/small")):
        made, _ = pairs.pairs(delta(), Rule(models=names, per_prompt=9))
        assert set(texts(made)) == {(f"strong {i}", f"weak {j}") for i in range(2) for j in range(2)} and len(made) == 4
        assert all("margin" not in one for one in made)
        record.check(made[0])
    firsts = Counter(texts([pair(delta(id=str(i)), models=(STRONG, WEAK))])[0] for i in range(400))
    assert len(firsts) == 4 and all(60 < n < 140 for n in firsts.values())
    assert (
        pair(delta(), models=("a1a1a1", WEAK)) == "no completion with a text is of the model a1a1a1"
    )  # too short to be a hash
    assert pair(delta(m=0), models=(STRONG, "org/small")).endswith("of the model org/small")
    same = delta(1, 1)
    same["completions"][1]["text"] = "strong 0"
    assert pair(same, models=(STRONG, WEAK)).startswith("same text")
    assert pair(delta(1, 1), models=(STRONG, WEAK), length_ratio=1.1).startswith("same text or unlike lengths")
    assert pair(delta(1, 1), models=(STRONG, WEAK), length_ratio=1.5)["chosen"][0]["content"] == "strong 0"


def test_delta_pairs_of_two_files_and_a_directory(tmp_path, pt, policy):
    """Samples of two models in two files are pooled; a directory stands for what its completions call it."""
    model = outdir.identity(str(policy))
    rows = [{"id": f"r{i}", "source": "s", "prompt": [user(f"What is {i}?")]} for i in range(30)]
    jsonl(tmp_path / "strong.jsonl", [{**r, "completions": [{"text": "good " + r["id"], "model": model}]} for r in rows])
    jsonl(tmp_path / "weak.jsonl", [{**r, "completions": [{"text": "bad", "model": "w" * 64}]} for r in reversed(rows[:20])])
    argv = (
        "pt-curate",
        "pair",
        "strong.jsonl",
        "weak.jsonl",
        "--pool",
        "id",
        "--chosen-model",
        policy,
        "--rejected-model",
        "w" * 64,
    )
    done = pt(*argv, check=0)
    made = rows_of(done.out)
    assert [one["id"] for one in made] == [f"r{i}" for i in range(20)]
    assert texts(made) == [(f"good r{i}", "bad") for i in range(20)]
    assert "rows: 50 in, 20 out, 30 dropped" in done.err
    assert "belong together" in pt("pt-curate", "pair", "weak.jsonl", "--chosen-model", "x", check=2).err
    assert "--gap is about rewards" in pt(*argv, "--gap", "1", check=2).err


# --- lengths ------------------------------------------------------------------------------------------------------


def test_length_bias_by_hand():
    lengths, other = Lengths(), Lengths()
    for source, chosen, rejected in (("a", "1234", "12"), ("a", "12", "1234"), ("b", "123", "1")):
        lengths.add({"source": source, "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]})
    other.add({"chosen": "12345678", "rejected": [user("u"), assistant("12345678")]})
    lengths.merge(other)
    assert lengths.report() == {
        "pairs": 4, "chosen_chars": 17 / 4, "rejected_chars": 15 / 4, "chosen_longer": 0.5, "sources": {
            "a": {"pairs": 2, "chosen_chars": 3, "rejected_chars": 3, "chosen_longer": 0.5},
            "b": {"pairs": 1, "chosen_chars": 3, "rejected_chars": 1, "chosen_longer": 1.0},
            "none": {"pairs": 1, "chosen_chars": 8, "rejected_chars": 8, "chosen_longer": 0.0}}}
    assert lengths.lines()[:2] == [
        "mean length: chosen 4.2, rejected 3.8 characters; chosen is longer in 50% of the pairs",
        "a: mean length: chosen 3.0, rejected 3.0 characters; chosen is longer in 50% of the pairs",
    ]
    for i in range(20):
        lengths.add({"source": f"x{i}\x1b", "chosen": "a", "rejected": "b"})
    assert (
        len(lengths.lines()) == 12
        and lengths.lines()[-1] == "13 more sources"
        and not any("\x1b" in x for x in lengths.lines())
    )


# --- the command --------------------------------------------------------------------------------------------------


def test_any_number_of_processes(tmp_path, pt):
    rng = random.Random(1)
    rows = [
        scored(*(rng.choice([None, 0, 0.5, 1]) for _ in range(4)), id=f"質問{i}", source=f"s{i % 3}", pad="x" * 2000)
        for i in range(5000)
    ]
    jsonl(tmp_path / "a.jsonl", rows)
    argv = ("pt-curate", "pair", "a.jsonl", "--rejected", "every", "--per-prompt", "3", "--seed", "7")
    for jobs in (1, 2):
        pt(*argv, "-j", jobs, "-o", f"{jobs}.jsonl", check=0)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    one, two = (json.loads((tmp_path / f"{jobs}.jsonl.manifest.json").read_text()) for jobs in (1, 2))
    assert one["final"] == two["final"] and one["rows"] == two["rows"]
    rule = Rule("every", per_prompt=3, seed=7)
    wanted = [made for rec in rows for made in pairs.pairs(rec, rule)[0]]
    assert rows_of((tmp_path / "1.jsonl").read_text()) == wanted
    n = one["rows"]
    assert n["in"] == n["out"] + n["dropped"] and n["out"] == len(wanted) and n["in"] > 5000
    assert set(one["final"]["length_bias"]["sources"]) == {"s0", "s1", "s2"}


@pytest.mark.parametrize("argv,why", [
    (("--rating-gaps", "1,2"), "three rising numbers"), (("--rating-gaps", "3,2,1"), "three rising numbers"),
    (("--rating-gaps", "a,b,c"), "three rising numbers"), (("--score", "a", "--score", "a"), "a name is given twice"),
    (("--length-ratio", "0.5"), "--length-ratio must be at least 1"), (("--margins", "huge"), "huge"),
])
def test_wrong_use(tmp_path, pt, argv, why):
    jsonl(tmp_path / "a.jsonl", [scored(1, 0)])
    assert why in pt("pt-curate", "pair", "a.jsonl", *argv, check=2).err


def test_real_pairs_get_ratings(data, tmp_path, pt):
    """300 public pairs, with a rating each: all come back, in order, with the margin of their rating."""
    pt("pt-curate", "convert", data / "preference" / "dpo_en_demo.json", "--source", "demo", "-o", "p.jsonl", check=0)
    rows = rows_of((tmp_path / "p.jsonl").read_text())
    jsonl(tmp_path / "rated.jsonl", [{**rec, "rating": pairs.RATINGS[i % 4]} for i, rec in enumerate(rows)])
    done = pt("pt-curate", "pair", "rated.jsonl", "--margins", "large", "--json", check=0)
    made = rows_of(done.out)
    assert len(made) == len(rows) == 300 and [one["margin"] for one in made[:5]] == [3, 2, 1, 0, 3]
    assert all(one == {**rec, "rating": one["rating"], "margin": one["margin"]} for one, rec in zip(made, rows))
    bias = json.loads(done.err.splitlines()[-1])["length_bias"]["sources"]["demo"]
    assert bias["chosen_chars"] == pytest.approx(sum(len(rec["chosen"][-1]["content"]) for rec in rows) / 300)
    assert (
        bias["chosen_longer"] == sum(len(r["chosen"][-1]["content"]) > len(r["rejected"][-1]["content"]) for r in rows) / 300
    )
