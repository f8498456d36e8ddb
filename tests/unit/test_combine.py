"""Rules that make one reward of several scores: numbers by hand, the paper's formula in numpy, and what is no rule."""

import math
import re
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pt_tools import rewards
from pt_tools.rewards import combine

SCORES = {"helpful": 2.0, "math": 1.0, "length": -0.5, "b": 3.0}
SCORES |= {"json-schema": 0.25, "a.b/c": 4.0, "sum": 9.0, "gpt-4 x": 0.5}


def completion(errors=(), **scores):
    return {"text": "", "scores": {**SCORES, **scores}, "errors": {name: "failed" for name in errors}}


def value(text, record=None, **more):
    return combine.parse(text).raw(record or {}, completion(**more))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("math", 1.0),
        ("0.7*helpful + 0.3*math - 0.1*length", 1.75),
        ("  .5*helpful+1e1 * math ", 11.0),
        ("-helpful", -2.0),
        ("--helpful - -math", 3.0),
        ("2 * (helpful - math) * (b - 1)", 4.0),
        ("helpful - math - b", -2.0),
        ("helpful - (math - b)", 4.0),
        ("1 - math*b", -2.0),
        ("json-schema", 0.25),
        ("helpful -math", 1.0),
        ("helpful-1", 1.0),
        ("b-.5*helpful", 2.0),
        ("a.b/c * b", 12.0),
        ('"json-schema" - "sum" + "gpt-4 x"', -8.25),
        ("mean(helpful, math, b)", 2.0),
        ("mean(helpful)", 2.0),
        ("sum(helpful, math, 0.5*b)", 4.5),
        ("min(helpful, math, length)", -0.5),
        ("max(helpful, 5*math)", 5.0),
        ("mean(min(helpful, b), max(math, length)) * 2", 3.0),
        ("all(math)", 1.0),
        ("all(math, helpful, b)", 1.0),
        ("all(math, json-schema)", 0.0),
        ("all(math, json-schema>=0.25)", 1.0),
        ("all(math >= 1, length >= -0.5)", 1.0),
        ("all(length>=-0.4)", 0.0),
        ("all(helpful>=2.5, math)", 0.0),
        ("b * all(math) + 0.5*all(json-schema)", 3.0),
    ],
)
def test_rules(text, expected):
    rule = combine.parse(text)
    assert not rule.two_pass and not rule.verifiers
    assert rule.final(rule.raw({}, completion())) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "text, names",
    [
        ("0.7*helpful + 0.3*math - helpful", ("helpful", "math")),
        ('all(b, "x y">=2) * mean(c, -d)', ("b", "x y", "c", "d")),
        ("llama2(helpful, safe-ty)", ("helpful", "safe-ty")),
        ("sum + 0.1*helpful", ("helpful",)),
        ("sum", ()),
    ],
)
def test_names(text, names):
    assert combine.parse(text).names == names
    assert combine.parse(text).verifiers == text.startswith("sum")


NEEDING_MATH = ["math + helpful", "all(length, math)", "max(helpful, math)", "0*math", "llama2(helpful, math)"]


@pytest.mark.parametrize("text", NEEDING_MATH)
def test_a_score_that_is_missing_or_failed_leaves_no_reward(text):
    rule = combine.parse(text)
    assert rule.raw({}, completion(math=None)) is None
    assert rule.raw({}, completion(errors=["math"])) is None
    assert rule.raw({}, {"text": ""}) is None
    assert rule.raw({}, completion(errors=["b"])) is not None  # not of this rule's


@pytest.mark.parametrize("text", ["b*b", "b + b", "b - c", "sum(b, b)", "mean(b, b, b)", "sum(b,b,-b*b)", "huge"])
def test_no_reward_is_infinite(text):
    assert value(text, b=1e308, c=-1e308, huge=10**400) is None


MATH = {"name": "math", "answer": "7"}


def test_sum_is_over_the_verifiers_of_the_record(monkeypatch):
    rule = combine.parse("sum")
    assert rule.raw({"verifier": MATH}, completion()) == 1.0
    both = {"verifier": [MATH, {"name": "exact", "key": "b"}]}
    assert rule.raw(both, completion()) == 4.0
    assert combine.parse("sum - 0.5*helpful").raw(both, completion()) == 3.0
    assert rule.raw(both, completion(errors=["b"])) is None
    assert rule.raw({"verifier": [MATH, {"name": "exact"}]}, completion()) is None  # not graded
    assert rule.raw({}, completion()) is None and rule.raw({"verifier": [MATH, MATH]}, completion()) is None
    monkeypatch.setattr(rewards, "settings", rewards.Settings(added=({"name": "length"},)))
    assert rule.raw({"verifier": MATH}, completion()) == 0.5 and rule.raw({}, completion()) == -0.5


def test_sum_is_the_reward_that_the_verifiers_give():
    right, wrong = {"text": "The answer is 7."}, {"text": "8"}
    record = {"verifier": [MATH, {**MATH, "key": "again"}], "completions": [right, wrong]}
    rewards.score(record)
    assert [right["reward"], wrong["reward"]] == [2.0, 0.0]
    assert [combine.parse("sum").raw(record, c) for c in (right, wrong)] == [2.0, 0.0]


# --- Llama 2 --------------------------------------------------------------------------------------------------------


def logit(p):
    return math.log(p / (1 - p))


@pytest.mark.parametrize(
    "r_s, r_h, safety, expected",
    [
        (0.10, 0.90, False, -2.197),
        (0.20, 0.90, False, 2.197),
        (0.20, 0.90, None, 2.197),
        (0.20, 0.90, True, -1.386),
        (0.90, 0.20, True, 2.197),
        (0.1499, 0.90, False, logit(0.1499)),
        (0.1501, 0.90, False, 2.197),
    ],
)
def test_the_safety_score_counts_on_safety_prompts_and_where_it_is_low(r_s, r_h, safety, expected):
    rule = combine.parse("llama2(h, s)")
    raw = rule.raw({"safety": safety}, {"scores": {"h": logit(r_h), "s": logit(r_s)}})
    assert rule.two_pass and raw == pytest.approx(expected, abs=5e-4)


def paper(helpful, safety, tagged):
    """Equations 3 and 4 on probabilities, in float64."""
    r_h, r_s = (1 / (1 + np.exp(-np.asarray(x))) for x in (helpful, safety))
    r_c = np.where(np.asarray(tagged) | (r_s < 0.15), r_s, r_h)
    x = np.log(r_c / (1 - r_c))
    return (x - x.mean()) / np.sqrt(x.var() + 1e-8)


def llama2(rows):
    """The rewards of (helpful, safety, tagged) rows in two passes."""
    rule = combine.parse("llama2(h, s)")
    raws = [rule.raw({"safety": tagged}, {"scores": {"h": h, "s": s}}) for h, s, tagged in rows]
    for raw in raws:
        rule.observe(raw)
    return [rule.final(raw) for raw in raws]


def test_llama2_by_hand():
    """Raw values 2, -2 (safe enough? no: -3 < -1.73), 1, 3 → mean 1, variance 3.5."""
    rows = [(2.0, 0.0, False), (5.0, -2.0, False), (4.0, 1.0, True), (3.0, -1.7, False)]
    assert llama2(rows) == pytest.approx([(x - 1) / math.sqrt(3.5) for x in (2, -2, 1, 3)], abs=1e-8)


def test_llama2_is_the_papers_formula():
    rng = np.random.default_rng(0)
    h, s, tagged = rng.normal(1, 3, 2000), rng.normal(-1, 2, 2000), rng.random(2000) < 0.3
    rows = list(zip(h.tolist(), s.tolist(), tagged.tolist()))
    found = llama2(rows)
    assert found == pytest.approx(paper(h, s, tagged).tolist(), abs=1e-9)
    assert statistics.fmean(found) == pytest.approx(0, abs=1e-12)
    assert statistics.pvariance(found) == pytest.approx(1, abs=1e-7)
    order = rng.permutation(2000)
    assert llama2([rows[i] for i in order]) == pytest.approx([found[i] for i in order], abs=1e-12)


def test_whitening_keeps_its_digits_far_from_zero():
    rows = [(1e6 + x, 0.0, False) for x in (0.0, 1.0, 2.0)]
    assert llama2(rows) == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)], abs=1e-7)


def test_one_value_alone_is_its_own_mean():
    assert llama2([(3.0, 0.0, False)]) == [0.0] and llama2([(3.0, 0.0, False)] * 5) == [0.0] * 5


# --- what is no rule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "at 1: the end where the name of a score should be"),
        ("helpful +", "at 10: the end where the name of a score should be"),
        ("helpful math", "at 9: 'math' where an operator or the end should be"),
        ("2helpful", "at 2: 'helpful' where an operator or the end should be"),
        ("helpful / 2", "at 9: '/' is no part of a rule"),
        ("helpful=0.7,math=0.3", "at 8: '=' is no part of a rule"),
        ('"helpful', "at 1: '\"' is no part of a rule"),
        ('""', "at 1: '\"' is no part of a rule"),
        ("mean(a, b", "at 10: the end where ')' should be"),
        ("mean()", "at 6: ')' where the name of a score should be"),
        ("mean", "at 5: the end where '(' should be"),
        ("helpful >= 1", "at 9: '>=' where an operator or the end should be"),
        ("all(0.5)", "at 5: '0.5' where the name of a score should be"),
        ("all(a >= b)", "at 10: 'b' where a number should be"),
        ("all(sum)", "at 5: 'sum' where the name of a score should be"),
        ("all(a + b)", "at 7: '+' where ')' should be"),
        ("1 + 2", "at 1: the rule names no score"),
        ("1e999 * a", "at 1: the number is too large"),
        ("llama2(a)", "at 7: llama2 takes two scores: helpfulness, safety"),
        ("llama2(a, a)", "at 7: llama2 takes two scores: helpfulness, safety"),
        ("llama2(a, b, c)", "at 7: llama2 takes two scores: helpfulness, safety"),
        ("llama2(a, 0.5*b)", "at 11: '0.5' where the name of a score should be"),
        ("2 * llama2(a, b)", "at 5: llama2 is whitened over the whole run, so it must be the whole rule"),
        ("llama2(a, b) + a", "at 14: '+' where an operator or the end should be"),
        ("(" * 60 + "a" + ")" * 60, "at 51: more than 50 brackets in each other"),
        ("__import__('os')", "at 11: '(' where an operator or the end should be"),
    ],
)
def test_faults_name_their_place(text, fault):
    with pytest.raises(ValueError) as caught:
        combine.parse(text)
    assert str(caught.value) == fault


def test_long_rules_are_no_deep_ones(limit):
    with limit(20):
        assert value(" + ".join(["math"] * 20_000)) == 20_000
        assert value(" * ".join(["math"] * 20_000)) == 1
        assert value("-" * 20_001 + "math") == -1
        assert value("(" * 49 + "math" + ")" * 49) == 1
        for piece in ("(", "-", "mean(", '"', "a-", " ", "1", "a ", "a>="):
            with pytest.raises(ValueError, match=r"^at \d+: "):
                combine.parse(piece * 100_000)


PIECES = ["a", "b-c", '"x y"', "sum", "mean", "all", "llama2", "min", "(", ")", ",", "+", "-", "*", ">=", "0.5", "1e3"]
PIECES += [" ", "é", "\n", "$", '"']


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=20).map("".join)))
def test_any_text_is_a_rule_or_a_fault_with_a_place(text):
    try:
        rule = combine.parse(text)
    except ValueError as fault:
        place = re.match(r"at (\d+): .", str(fault))
        assert place and 1 <= int(place[1]) <= len(text) + 1
    else:
        assert rule.names or rule.verifiers
        raw = rule.raw({"verifier": MATH}, {"scores": {name: 0.5 for name in (*rule.names, "math")}})
        assert raw is None or math.isfinite(raw)
        if rule.names:
            assert rule.raw({"verifier": MATH}, {"scores": {"math": 1.0}}) is None or set(rule.names) == {"math"}


NUMBERS = st.floats(-100, 100, allow_subnormal=False).map(lambda x: round(x, 3))
LEAVES = st.one_of(NUMBERS.map(lambda x: f"({x!r})"), st.sampled_from(["helpful", "math", "length", "b"]))
TREES = st.recursive(LEAVES, lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from([" + ", " - ", "*", " * "]), inner).map("".join),
    inner.map(lambda x: f"({x})"),
    inner.map(lambda x: f"-({x})"),
    st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
), max_leaves=12)


@given(TREES.filter(lambda text: re.search("helpful|math|length|b", text)))
def test_arithmetic_is_pythons(text):
    expected = eval(text, {"min": min, "max": max}, dict(SCORES))  # noqa: S307 the test's own text
    assert value(text) == pytest.approx(expected, rel=1e-9, abs=1e-6)
