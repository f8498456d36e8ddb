"""Repeated n-grams, by hand and by a naive twin."""

import json
import random

import pytest

from pt_tools import rewards
from pt_tools.rewards import repetition

TWO = {"name": "repetition", "n": 2}


def score(spec, text, **more):
    repetition.check(spec)
    return repetition.grade(spec, {"text": text, **more})[0]


@pytest.mark.parametrize("spec, text, expected", [
    (TWO, "a b a b a", -0.5),  # ab ba ab ba
    (TWO, "A b, a B", -0.25),  # the pairs: ab, b and comma, comma and a, ab
    (TWO, "a b c d", 0), (TWO, "a", 0), (TWO, "", 0), ({**TWO, "n": 1}, "a a a a", -0.75),
    ({**TWO, "penalty": 0.05}, "a b a b a", -0.025), ({**TWO, "limit": 0.5}, "a b a b a", 0), ({**TWO, "limit": 0.25}, "a b a b a", -1 / 3),
    ({**TWO, "n": 1}, "好好好好", -0.75), ({**TWO, "n": 1}, "ああ b", -1 / 3), ({**TWO, "n": 1}, "!!!!", -0.75), ({**TWO, "n": 1}, "😀😀", -0.5),
    ({**TWO, "n": 1}, "x" * 100, -0.8), ({**TWO, "n": 1}, "ha" * 50, -0.8), ({**TWO, "n": 1000}, "a " * 999, 0), ({**TWO, "n": 1000}, "a " * 1001, -0.5),
])  # fmt: skip
def test_by_hand(spec, text, expected):
    assert score(spec, text) == pytest.approx(expected, abs=1e-12)


def test_tokens_are_the_recorded_ones():
    spec = {**TWO, "unit": "tokens"}
    assert score(spec, "whatever", token_ids=[1, 2, 1, 2, 1]) == -0.5
    verdict = rewards.verify({"verifier": spec}, "a b a b a")
    assert verdict.scores == {} and "token_ids" in verdict.errors["repetition"]


def test_the_same_count_as_a_set_of_tuples():
    rng = random.Random(0)
    for _ in range(600):
        units = rng.choices(range(rng.choice([1, 2, 5, 50])), k=rng.randrange(1, 80))
        n = rng.randrange(1, len(units) + 1)
        grams = [tuple(units[at : at + n]) for at in range(len(units) - n + 1)]
        assert repetition.distinct(units, n) == len(set(grams))
        assert repetition.repeated(units, n) == pytest.approx(1 - len(set(grams)) / len(grams))


def test_human_text_repeats_little_and_a_loop_much(data):
    rows = json.loads((data / "dolly" / "dolly_3k.json").read_text())
    texts = [row["output"] for row in rows if len(row["output"].split()) > 100][:200]
    spec = {**TWO, "n": 20}
    assert len(texts) == 200 and sum(score(spec, text) == 0 for text in texts) > 185
    for text in texts:
        assert score(spec, (text + "\n") * 10) < -0.85


def test_huge_texts_are_bounded(limit):
    for text in ("a" * 999_999, "a b " * 50_000, "好" * 100_000, "!" * 999_999, "\ud800" * 100_000):
        with limit(30):
            assert score({**TWO, "n": 40}, text) < -0.99
    verdict = rewards.verify({"verifier": {**TWO, "penalty": 0.5}}, "a" * 1_000_001)
    assert verdict.scores == {"repetition": -0.5} and "longer than" in verdict.details["repetition"]["reason"]


@pytest.mark.parametrize("spec", [
    {"n": None}, {"n": 0}, {"n": 1001}, {"n": 2.0}, {"n": True}, {"limit": 1}, {"limit": -0.1}, {"limit": "0"}, {"penalty": -1},
    {"penalty": float("inf")}, {"unit": "letters"}, {"max_penalty": 1},
])  # fmt: skip
def test_what_can_never_grade_is_refused(spec):
    with pytest.raises(ValueError):
        repetition.check({**TWO, **spec})
