"""The math verifier: where the answer is found, what equals what, and that hostile text costs neither reward nor time."""

import cmath
import json
from math import pi

import pytest
from hypothesis import given, settings, strategies as st

from pt_tools.rewards import answers, canonical, math


def score(text, gold, policy="default"):
    return math.grade({"name": "math", "answer": gold, "policy": policy}, {"text": text})[0]


def reason(text, gold="1"):
    return math.grade({"name": "math", "answer": gold}, {"text": text})[1].get("reason")


# --- extraction -----------------------------------------------------------------------------------------------------

EXTRACTED = [
    (r"So \boxed{56}." + " remark" * 60, "56"),
    (r"So \boxed{9}. Wait, one case is missing, so \boxed{11}.", "11"),
    (r"\boxed{\frac{1}{\sqrt{2}}} done", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed 7 is it", "7"),
    (r"\fbox{8}", "8"),
    ("4*18=72\n#### 72", "72"),
    ("#### 305.", "305"),
    ("#### $1,000", "1000"),
    ("#### Step 1\nAdd.\nThe answer is 5.", "5"),
    ("<answer>63</answer>", "63"),
    ("<answer> 63 </answer> I am sure.", "63"),
    ("The answer is 85.", "85"),
    ("The answer is afd.", "afd"),
    ("7+8=15, 4+3+1=8. The answer is 85.", "85"),
    ("**Answer:** 12", "12"),
    ("Answer:\n12", "12"),
    ("The final answer to the question is **12**!", "12"),
    ("The answer is 3.5. I checked.", "3.5"),
    ("The answer is $12$ dollars.", "12"),
    (r"The answer is $34\text{ sq. units}$.", "34"),
    ("The answer is 12 because 3*4 = 12.", "12"),
    ("Split it as 4*115 first.\n**Result: 58**", "58"),
    ("<think>\\boxed{4}</think> The answer is 5.", "5"),
    ("<think>so it is 5</think>\n+63", "63"),
    ("first 3, then 12 is the answer. The answer is 3. No, the answer is 12.", "12"),
]


@pytest.mark.parametrize("text, gold", EXTRACTED)
def test_finds_the_answer(text, gold):
    assert score(text, gold) == 1.0
    assert score(text, gold + "3") == 0.0


NOT_ANSWERED = [
    ("", "empty"),
    (" \n", "empty"),
    ("1, or so", "no answer"),
    ("it could be 1", "no answer"),
    ("<think> maybe \\boxed{1} </think> I could not finish.", "no answer"),
    ("<think> the answer is 1.", "no answer"),
    ("\\boxed{}", "no answer"),
    ("\\boxed{2} no, \\boxed{1", "unfinished box"),
    ("<answer>1", "no answer"),
    ("The answer is 1, but 2 is possible too.", "wrong answer"),
    ("The answer is 1 or 2.", "wrong answer"),
    ("\\boxed{1, 2}", "wrong answer"),
    ("\\boxed{1 \\text{ or } 2}", "wrong answer"),
    ("\\boxed{" + "1" * 1001 + "}", "answer longer than 1000 characters"),
    ("x" * 1_000_001 + "\\boxed{1}", "longer than 1000000 characters"),
]


@pytest.mark.parametrize("text, why", NOT_ANSWERED)
def test_no_reward_without_one_answer(text, why):
    assert score(text, "1") == 0.0
    assert reason(text) == why


def test_policies():
    text = r"First \boxed{3}. Then $x=4$ and so 5."
    assert [score(text, gold, "boxed") for gold in ("3", "5")] == [1.0, 0.0]
    assert [score(text, gold, "gsm8k") for gold in ("3", "5")] == [0.0, 1.0]
    assert [score(text, gold, "flex") for gold in ("3", "4", "5")] == [1.0, 0.0, 0.0]
    minerva = "Final Answer: The final answer is $\\frac{1}{2}$. I hope it is correct."
    assert score(minerva, "1/2", "flex") == 1.0
    assert score("so $x$ is $4$, see", "4", "flex") == 1.0
    assert score("The answer is 4.", "4", "boxed") == 0.0
    assert score("5-3 is 2", "2", "gsm8k") == score("it is -3", "-3", "gsm8k") == score("1,234.50 left", "1234.5", "gsm8k") == 1.0
    assert score("none", "0", "gsm8k") == 0.0
    with pytest.raises(ValueError, match="unknown policy"):
        math.check({"answer": "1", "policy": "eval"})


# --- equality -------------------------------------------------------------------------------------------------------

EQUAL = [
    ("72", "72.0"), ("1,000", "1000"), ("25{,}000", "25000"), ("10,\\!000", "10000"), ("$5", "5"), ("\\$5.00", "5"),
    ("+3", "3"), ("-0", "0"), ("1/2", "0.5"), ("\\frac{6}{8}", "3/4"), ("\\frac79", "7/9"), ("\\dfrac{1}{2}", ".5"),
    ("\\frac{-1}{2}", "-\\frac{1}{2}"), ("1\\frac{1}{2}", "3/2"), ("1 1/2", "1.5"), ("50\\%", "50"), ("50%", "0.5"),
    ("50 percent", "50\\%"), ("36 pencils", "36"), ("5\\text{ cm}^2", "5"), ("5 km/h", "5"), ("90^\\circ", "90"),
    ("x=5", "5"), ("x \\in [1,2]", "x\\in[1, 2]"), ("1.5 \\times 10^{3}", "1500"), ("2e3", "2000"),
    ("(3, \\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)"), ("(0.5,1)", "(1/2, 1)"), ("1, 2", "2,1"),
    ("\\{1,2\\}", "\\{2, 1\\}"), ("\\text{(A)}", "A"), ("\\text{Evelyn}", "Evelyn"), ("\\sqrt2", "\\sqrt{2}"),
    ("−4", "-4"), ("3x + 1", "3x+1"), ("10\\text{ inches}", "10 inch"), ("\\tfrac{1}{2}x", "\\frac{1}{2} x"),
]  # fmt: skip
DIFFERENT = [
    ("72", "73"), ("1/3", "0.333"), ("3 + 2/\\mathrm{e}", "3 - 2/\\mathrm{e}"), ("5\\sqrt(3)", "5"), ("1/1500!", "1/1498!"),
    ("1/7^{70}", "1/7^{71}"), ("2, 5, 8, \\ldots, 3n-1", "2, 3, \\ldots, n"), ("1:8:27:\\ldots", "1:3:5:\\ldots"),
    ("-1 \\le x \\le 4", "x \\in [-1,4]"), ("5 km", "5 miles"), ("5x", "5"), ("5 x", "5"), ("2 pi", "2"), ("5 million", "5"),
    ("(1,2)", "[1,2]"), ("(1,2)", "(2,1)"), ("2,1", "(1,2)"), ("1,1", "1"), ("1/0", "0"), ("x=3", "y=3"), ("abc abc", "abcabc"),
    ("Evelyn", "Eve"), ("५७", "57"), ("³", "3"), ("1_000", "1000"), ("0x10", "16"), ("nan", "0"), ("1e5000", "1e4999"),
    ("12 or thirteen", "12"), ("not 12", "12"), ("2^3", "9"), ("25\\%", "2500"), ("1..2", "1.2"), ("", "0"),
]  # fmt: skip


@pytest.mark.parametrize("a, b", EQUAL)
def test_equal_answers(a, b):
    assert answers.equal(a, b) and answers.equal(b, a)


@pytest.mark.parametrize("a, b", DIFFERENT)
def test_different_answers(a, b):
    assert not answers.equal(a, b) and not answers.equal(b, a)


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_read_as_itself(value):
    for text in (f"{value.numerator}/{value.denominator}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"):
        assert answers.number(text) == value
    assert not answers.equal(str(value), str(value + 1))


@given(st.integers(), st.integers(0, 6))
def test_separators_and_decimal_zeros_change_nothing(n, zeros):
    assert answers.equal(f"{n:,}." + "0" * zeros, str(n))


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gets_a_verdict(text, gold):
    assert answers.equal(text, text)
    assert answers.equal(text, gold) == answers.equal(gold, text)
    assert math.grade({"answer": "7"}, {"text": text + "\\boxed{" + gold})[0] in (0.0, 1.0)


PIECES = ["1", "2", "x", "\\frac", "{", "}", "(", ")", "[", ",", " ", "^", "_", "+", "-", "/", "\\sqrt", "\\pm", "\\cup", "=", "\\le", "and", "!",
          "\\text{", "cm", "\\pi", "12.5", "1,000", "\\%", "$", "\\begin{pmatrix}", "\\\\", "&", ".", "million", "५", "|", "10^", "(abc)", "am"]  # fmt: skip


@given(*[st.lists(st.sampled_from(PIECES), max_size=14).map("".join)] * 2)
def test_any_latex_gets_a_verdict(a, b):
    assert answers.equal(a, b) == answers.equal(b, a)
    assert answers.equal(a, a)


# Expressions with their value by floating point: (text, value).
LEAVES = st.one_of(
    st.integers(0, 12).map(lambda n: (str(n), complex(n))),
    st.integers(2, 50).map(lambda n: (rf"\sqrt{{{n}}}", cmath.sqrt(n))),
    st.sampled_from([(r"\pi", complex(pi)), ("i", 1j), ("x", complex(0.7310585)), (r"\frac{2}{3}", complex(2 / 3))]),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) + {p[1][0]}", p[0][1] + p[1][1])),
        st.tuples(inner, inner).map(lambda p: (f"{p[0][0]} - ({p[1][0]})", p[0][1] - p[1][1])),
        st.tuples(inner, inner).map(lambda p: (rf"({p[0][0]}) \\cdot ({p[1][0]})", p[0][1] * p[1][1])),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: (rf"\frac{{{p[0][0]}}}{{{p[1]}}}", p[0][1] / p[1])),
        st.tuples(inner, st.integers(0, 3)).map(lambda p: (f"({p[0][0]})^{p[1]}" if p[1] else "1", p[0][1] ** p[1])),
    ),
    max_leaves=7,
)


@settings(max_examples=400)
@given(EXPRESSIONS, EXPRESSIONS)
def test_canonical_forms_are_equal_exactly_when_the_values_are(a, b):
    forms = [canonical.form(text) for text, _ in (a, b)]
    if None in forms or max(abs(a[1]), abs(b[1])) > 1e9:
        return
    one, other = forms
    close = abs(a[1] - b[1]) <= 1e-9 * max(1.0, abs(a[1]))
    assert (one.terms == other.terms) == close or not (one.exact and other.exact)
    turned = canonical.form(f"-(-1)({b[0]}) + ({a[0]}) - ({b[0]})")
    assert turned is None or turned.terms == one.terms


# --- gold -----------------------------------------------------------------------------------------------------------


def test_gold_forms():
    assert math.gold("She has 8*9 = <<8*9=72>>72.\n#### 72") == "72"
    assert math.gold(r"Thus $x=\boxed{\frac{1}{2}}$.") == r"\frac{1}{2}"
    assert math.gold(72) == "72" and math.gold(0.5) == "0.5"


@pytest.mark.parametrize("gold", [None, "", " ", "####", True, ["1"], float("nan"), "\\boxed{1", "1" * 1001, "$$"])
def test_unusable_gold_is_no_reward_but_an_error(gold):
    with pytest.raises(ValueError, match="gold answer"):
        math.check({"answer": gold})


def test_well_formed():
    forms = ["The answer is 85.", r"So $\boxed{85}$.", "The answer is 85. cat dog", "about 85"]
    assert [math.well_formed({}, {"text": text}) for text in forms] == [1.0, 1.0, 0.5, 0.0]


# --- hostile texts --------------------------------------------------------------------------------------------------

HOSTILE = ["{" * 400_000, "\\boxed{" * 100_000, "answer " * 100_000, "the answer is " * 70_000, "$" * 900_000, "1," * 400_000,
           "####" * 200_000, "answer:" + " " * 900_000, "\\boxed{" + "(" * 900 + "}", "\\boxed{" + "\\frac" * 190 + "}",
           "\\boxed{8^{7^{8^{7}}}}", "\\boxed{1e9999}", "answer" + "*" * 900_000, "\\boxed{" + "1," * 450 + "1}"]  # fmt: skip


@pytest.mark.parametrize("policy", math.POLICIES)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12] + f"…{len(text)}")
def test_hostile_text_is_refused_in_time(text, policy, limit):
    with limit(120):  # linear work takes a fraction of a second, quadratic work hours
        assert score(text, "6", policy) == 0.0


# --- real data ------------------------------------------------------------------------------------------------------


def test_gsm8k_solutions_verify_against_their_own_answer_only(data):
    names = [data / "gsm8k" / f"{name}.jsonl" for name in ("train", "test")]
    solutions = [json.loads(line)["answer"] for name in names for line in open(name)]
    for solution, other in zip(solutions, solutions[1:] + solutions[:1]):
        own, next_gold = solution.rpartition("#### ")[2], other.rpartition("#### ")[2]
        assert score(solution, own) == score(solution, solution) == score(solution, own, "gsm8k") == 1.0
        assert score(solution, next_gold) == (own.replace(",", "") == next_gold.replace(",", ""))


def test_math_answers_and_solutions_verify(data):
    rows = json.load(open(data / "math" / "train.json")) + [json.loads(line) for line in open(data / "math" / "math500_test.jsonl")]
    rows = [row for row in rows if row["answer"]]
    for form in (r"So \boxed{%s}.", "The answer is $%s$."):
        right = sum(score(form % row["answer"], row["answer"]) for row in rows)
        assert right >= 0.995 * len(rows)
    solved = [row for row in rows if "solution" in row]
    assert len(solved) == 500 and all(score(row["solution"], row["answer"]) for row in solved)
    wrong = [(a["answer"], b["answer"]) for a, b in zip(rows, rows[1:]) if answers.equal(a["answer"], b["answer"])]
    assert all(answers.number(a.split("=")[-1]) == answers.number(b.split("=")[-1]) for a, b in wrong if a != b)
