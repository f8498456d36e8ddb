"""The code verifier: what it takes for the program, what passes, and real reference solutions."""

import gzip
import json

import pytest

from pt_tools import rewards
from pt_tools.curate.formats import FORMATS
from pt_tools.errors import NoSandbox
from pt_tools.rewards import code, code_run, code_text, sandbox

ADD = {"name": "code", "tests": ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(5, 5) == 10"]}
RIGHT = "def add(a, b):\n    return a + b\n"
HALF_RIGHT = "def add(a, b):\n    return 4\n"


@pytest.fixture(scope="module", autouse=True)
def some_tier():
    try:
        sandbox.best()
    except NoSandbox as reason:
        pytest.skip(str(reason))


def grade(spec, text):
    return code.grade(spec, {"text": text})


def reason(spec, text):
    score, detail = grade(spec, text)
    assert score == 0.0
    return detail["reason"]


# ---- what is refused


@pytest.mark.parametrize("change, word", [
    ({"tests": []}, "empty"), ({"tests": "assert f() == 1"}, "no list"), ({"tests": [3]}, "no text"),
    ({"tests": ["assert f( == 1"]}, "no Python"), ({"tests": ["assert 1 == 1"]}, "nothing of the submission"),
    ({"tests": None, "calls": [{"args": [], "expected": 1}]}, "entry_point"),
    ({"calls": [{"args": [], "expected": 1}]}, "exactly one"), ({"tests": None}, "exactly one"),
    ({"tests": None, "stdio": [{"input": "1"}]}, "input"), ({"tests": None, "stdio": [{"input": 1, "output": "1"}]}, "input"),
    ({"tests": None, "calls": [{"args": 1, "expected": 1}], "entry_point": "f"}, "args"),
    ({"timeout": 3}, "'timeout'"), ({"timeout_s": 0}, "timeout_s"), ({"timeout_s": True}, "timeout_s"),
    ({"timeout_s": 10**6}, "timeout_s"), ({"memory_mb": 10**9}, "memory_mb"), ({"memory_mb": 8}, "memory_mb"),
    ({"reward": "some"}, "reward"), ({"entry_point": "f()"}, "no name"), ({"entry_point": 3}, "no text"),
    ({"setup": ["x"]}, "no text"), ({"prompt": "def f():\n"}, "entry_point"),
    ({"tests": None, "stdio": [{"input": "", "output": ""}], "entry_point": "f"}, "'entry_point'"),
    ({"tests": None, "calls": [{"args": [], "expected": 1}], "entry_point": "f", "setup": "x = 1"}, "'setup'"),
])  # fmt: skip
def test_what_can_never_grade_is_refused(change, word):
    spec = {key: value for key, value in {**ADD, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=word.replace("(", "\\(")):
        code.check(spec)


def test_a_spec_that_cannot_grade_is_an_error_and_no_score():
    verdict = rewards.verify({"verifier": {**ADD, "timeout": 3}}, RIGHT)
    assert (verdict.scores, verdict.reward) == ({}, None) and "timeout" in verdict.errors["code"]


# ---- what is the program


@pytest.mark.parametrize("text, program", [
    ("x = 1", "x = 1"), ("a\n```\nx = 1\n```\nb", "x = 1\n"), ("```py\nx\n```\n```sh\nls\n```", "x\n"),
    ("```python\ndef f(): 1\n```\n```python\nf()\n```", "def f(): 1\n"), ("```python\nx = 1", "x = 1"),
    ("~~~\nx\n```\ny\n~~~", "x\n```\ny\n"), ("````\n```\n````", "```\n"), ("```\nx ``` y\n```", "x ``` y\n"),
    ("<think>```\na\n```</think>\nb", "b"), ("<think>a", ""), ("a <think> b", "a <think> b"), ("\ufeffx", "x"),
    ("  ```python\n  def f():\n      1\n  ```", "def f():\n    1\n"), ("use `x` or ```y```", "use `x` or ```y```"),
    ("```python title=a.py\nx\n```", "x\n"), ("", ""), ("```python\n```", ""), ("```\n\n```", "\n"),
])  # fmt: skip
def test_program(text, program):
    assert code_text.program(text, ["f"]).replace("\r\n", "\n") == program


@pytest.mark.parametrize("tests, names, modules", [
    (["assert f(1) == 2"], ["f"], []), (["assert set(f(1)) == set([g])"], ["f", "g"], []),
    (["x = 1\nassert f(x) == x"], ["f"], []), (["import math\nassert math.isclose(f(1), 2)"], ["f"], []),
    (["assert math.isclose(f(1), 2)"], ["f"], ["math"]), (["assert sum(10, 15) == 6"], ["sum"], []),
    (["assert not (sum(len(x) for x in [[1]])) == 6"], ["sum"], []), (["assert [y for y in f(1)] == []"], ["f"], []),
    (["def check(c):\n    assert c(1) == 2\ncheck(f)"], ["f"], []), (["assert f.x(1) == 2"], ["f"], []),
    (["try:\n    f(1)\nexcept ValueError as e:\n    assert str(e)"], ["f"], []), (["assert P(1).x == f(P(1))"], ["P", "f"], []),
])  # fmt: skip
def test_names_that_the_tests_want(tests, names, modules):
    assert code_text.wanted(tests) == (names, modules)


def test_what_the_prompt_defines_is_trusted_but_the_entry_point():
    prompt = "def helper(x):\n    return x\n\ndef f(x):\n    '''doc'''\n"
    assert code_text.wanted(["assert helper(f(1)) == 1"], [prompt], "f") == (["f"], [])
    spec = {"name": "code", "tests": ["assert helper(f(1)) == 5"], "prompt": prompt, "entry_point": "f"}
    assert grade(spec, "    return 5\n")[0] == 1.0
    assert grade(spec, "def f(x):\n    return helper(5)\n")[0] == 1.0  # the prompt comes before
    assert grade(spec, "```python\ndef f(x):\n    return 5\n```")[0] == 1.0
    assert grade(spec, "def helper(x):\n    return 5\ndef f(x):\n    return 1\n")[0] == 0.0


# ---- what passes


def test_verdicts_say_the_tier_and_how_many_passed():
    tier = sandbox.best()
    assert grade(ADD, RIGHT) == (1.0, {"tier": tier, "passed": 3, "of": 3})
    assert grade(ADD, HALF_RIGHT) == (0.0, {"tier": tier, "passed": 0, "of": 3, "reason": "wrong: test 1: AssertionError"})
    score, detail = grade({**ADD, "reward": "fraction"}, HALF_RIGHT)
    assert score == 1 / 3 and detail["passed"] == 1 and detail["reason"] == "wrong: test 1: AssertionError"


def test_a_fraction_stands_where_a_later_test_hangs():
    text = "def add(a, b):\n    while a == 5: pass\n    return a + b\n"
    score, detail = grade({**ADD, "reward": "fraction", "timeout_s": 4}, text)
    assert score == 2 / 3 and detail["reason"] == "timeout: test 3"


@pytest.mark.parametrize("text, why", [
    ("", "no code"), ("x = ", "import: SyntaxError"), ("import os\nos._exit(3)", "exit 3: import"),
    ("import os\ndef add(a, b): os._exit(0)", "exit 0: test 1"), ("def add(a): 1", "TypeError"),
    ("def plus(a, b): return a + b", "NameError: name 'add' is not defined"), ("raise KeyError('\x1b[2J' * 999)", "import: KeyError"),
    ("x = bytearray(1 << 31)", "MemoryError"), ("def add(a, b): raise ValueError('v')", "wrong: test 1: ValueError: v"),
])  # fmt: skip
def test_reasons(text, why):
    found = reason(ADD, text)
    assert why in found and len(found) <= 300 and found.isprintable()


@pytest.mark.parametrize("got, expected, equal", [
    (3, 3, True), (3, 4, False), (3.0, 3, True), (0.1 + 0.2, 0.3, True), (1.00001, 1, False), (1.0000001, 1, True),
    (True, 1, False), (1, True, False), (True, True, True), (None, None, True), (0, None, False), ((1, 2), [1, 2], True),
    ([1, (2,)], [1, [2]], True), ([1], [1, 2], False), ({1: 2}, {"1": 2}, True), ({"a": 1.0}, {"a": 1}, True),
    ({1: 2, "1": 2}, {"1": 2}, False), ({}, [], False), ({1, 2}, [1, 2], False), ("a", "a", True), ("1", 1, False),
    (float("nan"), 1.0, False), (float("inf"), 1e308, False), (10**400, 1.5, False), (10**400, 10**400, True),
    (2**60, 2**60 + 1, False), (1e-12, 0, True), (1j, 1, False), (b"a", "a", False),
])  # fmt: skip
def test_the_comparison_of_calls(got, expected, equal):
    assert code_run.same(got, expected) is equal


def test_calls_compare_outside_and_count():
    spec = {"name": "code", "entry_point": "f", "reward": "fraction",
            "calls": [{"args": [[3, 1]], "expected": [1, 3]}, {"args": [["b", "a"]], "expected": ["a", "b"]},
                      {"args": [[1.5, None]], "expected": []}]}  # fmt: skip
    score, detail = grade(spec, "f = lambda x: tuple(sorted(x))")
    assert score == 2 / 3 and detail["reason"].startswith("TypeError")


@pytest.mark.parametrize("written, expected, equal", [
    ("3\n", "3", True), ("3  \n\n", "3\n", True), (" 3", "3", False), ("1\r\n2", "1\n2\n", True), ("1 2", "1  2", False),
    ("", "", True), ("\n\n", "", True), ("3.0", "3", False), ("a\n\nb", "a\nb", False),
])  # fmt: skip
def test_the_comparison_of_output(written, expected, equal):
    assert (code_run.lines(written) == code_run.lines(expected)) is equal
    spec = {"name": "code", "stdio": [{"input": "", "output": expected}]}
    assert grade(spec, f"import sys\nsys.stdout.buffer.write({written.encode()!r})")[0] == float(equal)


def test_a_test_may_use_objects_of_the_submission_but_not_compare_them():
    text = ("class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return True\n    __hash__ = None\n"
            "    __lt__ = __eq__\n    def __sub__(self, o): return self\n    __abs__ = lambda self: self\n"
            "def f(p): return p.x\ndef g(p):\n    p.y = 2\n    return p\ndef h():\n    yield 1\n    yield P(4)\n")  # fmt: skip
    for test, score in {
        "assert f(P(3)) == 3": 1.0, "p = P(1)\np.x = P(9)\nassert f(p).x == 9": 1.0, "assert g(P(3)).y == 2": 1.0,
        "assert [type(x).__name__ for x in h()][0] == 'int'": 1.0, "assert P(1) == P(1)": 0.0, "assert P(1) != P(2)": 0.0,
        "assert f(P([1, {2: {3}}])) == [1, {2: {3}}]": 1.0, "assert isinstance(f(P(int)), type)": 1.0,
        "try:\n    f(3)\n    assert 0\nexcept AttributeError:\n    pass": 1.0, "assert P(1) == 1": 0.0,
        "x = h()\nassert next(x) == 1 and next(x).x == 4\ntry:\n    next(x)\n    assert 0\nexcept StopIteration:\n    pass": 1.0,
        "assert P(1) < 5": 0.0, "assert abs(P(1) - 5) < 1": 0.0,
    }.items():  # fmt: skip
        assert grade({"name": "code", "tests": [test]}, text)[0] == score, test


def test_setup_runs_before_the_tests_and_sees_the_submission():
    spec = {"name": "code", "setup": "base = add(1, 1)", "tests": ["assert add(base, 1) == 3", "assert add(base, 2) == 4"]}
    assert grade(spec, RIGHT)[0] == 1.0
    assert "setup: NameError" in reason({**spec, "setup": "base = missing(1)"}, RIGHT)


def test_arguments_are_copies():
    """A submission that changes its argument cannot change what the test compares with."""
    spec = {"name": "code", "tests": ["x = [3, 1, 2]\nassert f(x) == sorted(x)"]}
    assert grade(spec, "def f(x):\n    x.clear()\n    return []\n")[0] == 0.0


def test_the_same_verdict_every_time():
    """Sets and hashes do not depend on the run."""
    spec = {"name": "code", "entry_point": "f", "calls": [{"args": [], "expected": "?"}], "reward": "fraction"}
    text = "def f(): return ''.join(set('abcdefghij'))"
    orders = {grade({**spec, "calls": [{"args": [], "expected": order}]}, text)[0]
              for order in [_order(text) for _ in range(3)]}  # fmt: skip
    assert orders == {1.0}


def _order(text):
    return code_run.run_program(text + "\nprint(f())", "", sandbox.Limits(), sandbox.best(), sandbox.Clock(60))[0].decode().strip()


# ---- real data


def humaneval(data):
    for line in gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt"):
        row = json.loads(line)
        yield FORMATS["humaneval"][2](dict(row)), row


def mbpp(data):
    for line in open(data / "mbpp" / "mbpp.jsonl"):
        row = json.loads(line)
        yield FORMATS["mbpp"][2](dict(row)), row


def reward(record, text):
    verdict = rewards.verify(record, text)
    assert not verdict.errors
    return verdict.reward


def test_some_references(data):
    for n, (record, row) in enumerate(humaneval(data)):
        if n % 9 == 0 or n in (32, 38, 50):  # these use other functions of the prompt
            assert reward(record, row["prompt"] + row["canonical_solution"]) == 1.0, record["id"]
            assert reward(record, row["prompt"] + "    return None\n") == 0.0, record["id"]
    for n, (record, row) in enumerate(mbpp(data)):
        if n % 60 == 0 or row["task_id"] in (126, 533, 596, 601):  # names of built-ins, types as arguments, classes
            assert reward(record, f"```python\n{row['code']}\n```") == 1.0, record["id"]


def test_a_completion_may_go_on_with_the_prompt(data):
    for n, (record, row) in enumerate(humaneval(data)):
        if n in (0, 10, 32, 38):
            spec = {**record["verifier"], "prompt": row["prompt"]}
            assert reward({"verifier": spec}, row["canonical_solution"]) == 1.0
            assert reward({"verifier": spec}, f"```python\n{row['canonical_solution']}```") == 1.0
            assert reward({"verifier": spec}, "    pass\n") == 0.0


@pytest.mark.slow
def test_all_references_of_humaneval(data):
    wrong = [record["id"] for record, row in humaneval(data) if reward(record, row["prompt"] + row["canonical_solution"]) != 1]
    assert wrong == []


@pytest.mark.slow
def test_all_references_of_mbpp(data):
    """974 of 974: the two whose tests build trees of the solution's own class too, because it is loaded first."""
    wrong = [record["id"] for record, row in mbpp(data) if reward(record, row["code"]) != 1]
    assert wrong == []


def test_without_their_set_up_two_references_of_mbpp_fail(data):
    rows = [row for _, row in mbpp(data) if row["test_setup_code"]]
    verifiers = [{"name": "code", "tests": row["test_list"]} for row in rows]
    assert [row["task_id"] for row in rows] == [367, 927]
    assert [reward({"verifier": verifier}, row["code"]) for verifier, row in zip(verifiers, rows)] == [0, 0]


@pytest.mark.slow
def test_no_reference_passes_the_tests_of_the_next_task(data):
    rows = list(mbpp(data))
    named = [(record, other["code"], name) for (record, _), (_, other) in zip(rows, rows[1:] + rows[:1])
             if (name := code_text.wanted(record["verifier"]["tests"])[0][0])]  # fmt: skip
    passed = [record["id"] for record, text, _ in named if reward(record, text) == 1]
    assert len(named) == 974 and passed == []


@pytest.mark.parametrize("value", ["'x' * 4_000_000", "['%d' % n for n in range(50_000)]"])
def test_answers_that_fill_the_memory_of_the_tests_are_the_submissions_failure(value):
    spec = {"name": "code", "tests": ["found = [f(n) for n in range(500)]\nassert found[1] == 2"], "memory_mb": 96, "timeout_s": 30}
    score, detail = code.grade(spec, {"text": f"def f(n):\n    return {value}\n"})
    assert (score, detail["passed"], detail["of"]) == (0.0, 0, 1) and "MemoryError" in detail["reason"]
