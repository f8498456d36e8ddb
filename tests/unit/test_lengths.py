"""Length penalties, by hand."""

import pytest

from pt_tools import rewards
from pt_tools.rewards import lengths

DAPO = {"name": "length", "mode": "soft-overlong", "max_length": 20480, "cache": 4096}
LINEAR = {"name": "length", "mode": "linear", "max_length": 1000, "weight": 0.5}


def score(spec, count, **more):
    lengths.check(spec)
    return lengths.grade(spec, {"text": "x", "token_ids": [7] * count, **more})


@pytest.mark.parametrize("count, expected", [
    (0, 0), (1, 0), (16383, 0), (16384, 0), (16385, -1 / 4096), (17408, -0.25), (18432, -0.5), (20479, -4095 / 4096), (20480, -1),
    (20481, -1), (60000, -1),
])  # fmt: skip
def test_dapo_equation_13(count, expected):
    assert score(DAPO, count) == (expected, {"tokens": count})
    assert score({key: value for key, value in DAPO.items() if key != "mode"}, count)[0] == expected  # it is the default
    assert score(DAPO, count, finish="length")[0] == expected
    assert str(score(DAPO, count)[0]) != "-0.0"


def test_the_whole_limit_may_be_the_cache():
    assert [score({**DAPO, "max_length": 4, "cache": 4}, n)[0] for n in range(6)] == [0, -0.25, -0.5, -0.75, -1, -1]


@pytest.mark.parametrize("count, expected", [(0, 0), (1, -0.0005), (500, -0.25), (1000, -0.5), (2000, -0.5)])
def test_linear(count, expected):
    assert score(LINEAR, count)[0] == pytest.approx(expected, abs=1e-15)


def test_well_formed_is_between_0_and_1():
    assert [lengths.well_formed(DAPO, {"token_ids": [1] * n}) for n in (0, 18432, 30000)] == [1, 0.5, 0]
    assert lengths.well_formed({**LINEAR, "weight": 9}, {"token_ids": [1] * 1000}) == 0


@pytest.mark.parametrize("completion", [{"text": "some words"}, {"text": "x", "token_ids": None}, {"text": "x", "token_ids": 5}])
def test_without_tokens_the_grader_does_not_know(completion):
    verdict = rewards.verify({"verifier": DAPO}, completion)
    assert verdict.scores == {} and "token_ids" in verdict.errors["length"] and verdict.reward is None


@pytest.mark.parametrize("spec", [
    {}, {"max_length": 10}, {"max_length": 10, "cache": 11}, {"max_length": 10, "cache": 0}, {"max_length": 10, "cache": -1},
    {"max_length": 0, "cache": 1}, {"max_length": 10.0, "cache": 1}, {"max_length": True, "cache": True}, {"max_length": "10", "cache": 1},
    {"max_length": 10, "cache": 1, "weight": 1}, {"mode": "linear", "max_length": 10}, {"mode": "linear", "max_length": 10, "weight": -1},
    {"mode": "linear", "max_length": 10, "weight": float("nan")}, {"mode": "linear", "max_length": 10, "weight": 1, "cache": 1},
    {"mode": "cosine", "max_length": 10, "cache": 1}, {"mode": None, "max_length": 10, "cache": 1}, {"mode": [], "max_length": 1, "cache": 1},
])  # fmt: skip
def test_what_can_never_grade_is_refused(spec):
    with pytest.raises(ValueError):
        lengths.check({"name": "length", **spec})
