"""Computer algebra in a worker: what it decides, what it is never asked, and that no answer outlives its limits."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pt_tools.rewards import answers, math, symbolic
from pt_tools.rewards.worker import Lost, Pool

needs_extra = pytest.mark.skipif(not symbolic.available(), reason="the extra [math] is not installed")

# (answer, gold, equal), all undecided by exact comparison
PAIRS = [
    (r"2\sin x\cos x", r"\sin 2x", True),
    (r"2\ln 2", r"\ln 4", True),
    (r"\log_2 8", "3", True),
    (r"\cos\frac{\pi}{3}", r"\frac12", True),
    (r"\sqrt{x^2}", "|x|", True),
    (r"2^{x+1}", r"2\cdot 2^x", True),
    (r"\frac{x^2-1}{x-1}", "x+1", True),
    (r"\left(\frac{1}{1+\sqrt2}, 2\right)", r"(\sqrt2 - 1, 2)", True),
    (r"\frac{1}{1+\sqrt2}, 2", r"2, \sqrt2 - 1", True),
    (r"\begin{pmatrix} \sin 2x \\ 1 \end{pmatrix}", r"\begin{pmatrix} 2\sin x\cos x \\ 1 \end{pmatrix}", True),
    (r"(-\infty,3)\cup(3,\infty)", r"x \ne 3", True),
    (r"x \ne 3", r"(-\infty,3)\cup(3,\infty)", False),
    (r"|x|", "x", False),
    (r"\sin(10^{-30})", r"\sin(10^{-31})", False),
    (r"\frac{\sin x}{7^{70}}", r"\frac{\sin x}{7^{71}}", False),
    (r"1 + \sin(10^{-40})", "1", False),
    (r"\left(\frac{1}{1+\sqrt2}, 3\right)", r"(\sqrt2 - 1, 2)", False),
    (r"x < 3", "x > 3", False),
    (r"\tan\frac{\pi}{2}", r"\sec\frac{\pi}{2}", False),
]


@needs_extra
@pytest.mark.parametrize("answer, gold, same", PAIRS)
def test_verdicts(answer, gold, same):
    assert answers.compare(answer, gold) in (None, same)
    assert symbolic.decide(answer, gold) == ((True, None) if same else (False, "wrong answer"))


@needs_extra
def test_real_golds_that_only_computer_algebra_reads_equal_themselves_in_other_words():
    """An addend moved to the front and a factor 1 written out: text no more, value the same."""
    for gold in (r"\sin 2t", r"\log_3 7", r"3^x - 2^x", r"\sqrt{3+2\sqrt2}", r"2 \sec x", r"|2y|", r"\frac{a}{\ln a}"):
        assert symbolic.decide(rf"\cos^2 u - 1 + \sin^2 u + {gold}", gold) == (True, None)
        assert symbolic.decide(rf"\cos^2 u - 2 + \sin^2 u + {gold}", gold) == (False, "wrong answer")


REFUSED = [
    "8^{7^{8^{7}}}", "8^{7^8}", "2^{401}", "9**999", r"x^{10^9}", r"(x+1)^{21}", r"((x^9)^9)^9", "2^{9!}", "2^{9*9*9}", r"2^{9 \cdot 99}",
    "101!", "(99)!", "x!", "9!!", r"\binom{9}{3}", r"\Gamma(3)", "1" * 31 + "+x", "(" * 9 + "x" + ")" * 9, r"1,2,\ldots,n", "1..n",
    r"1+\cdots+n", r"\sum_{n=1}^9 n", r"\prod n", r"\int_0^1 x dx", r"\lim_{x\to 0} x", r"\log\log\log\log x", "1011_2", "x_1", r"\sqrt(x",
    "not twelve", "x.__class__", "import os", "५", "x" + "+x" * 150, r"||||||x||||||", r"9 \bmod 7",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_the_guard_turns_away(text):
    assert symbolic.too_large(text)


@pytest.mark.parametrize("text", [r"\sin^2 x", r"e^{-x^2}", r"\frac{3^{x+1}}{\log_2 7}", r"\sqrt[3]{x^2+1}", "5!", r"2^{400}", r"(1+\sqrt2)^{10}",
                                  r"\begin{pmatrix} \cos x & -\sin x \\ \sin x & \cos x \end{pmatrix}", r"x \in \mathbb{R}"])  # fmt: skip
def test_the_guard_lets_ordinary_answers_pass(text):
    assert symbolic.too_large(text) is None


def test_refused_is_no_reward_and_says_why():
    grade, detail = math.grade({"answer": r"\sin 1"}, {"text": r"\boxed{\sin(8^{7^{8^7}})}"})
    assert grade == 0.0 and "by" not in detail
    if symbolic.available():
        assert detail["reason"] == "answer not for computer algebra: a large exponent"
        assert math.grade({"answer": r"\sin 101!"}, {"text": r"\boxed{\sin 1}"})[1]["reason"].startswith("gold answer not for")


@needs_extra
def test_the_detail_says_who_decided():
    spec = {"answer": r"\sin 2x"}
    assert math.grade(spec, {"text": r"\boxed{2\sin x\cos x}"}) == (1.0, {"answer": r"2\sin x\cos x", "by": "symbolic"})
    assert math.grade(spec, {"text": r"\boxed{2\cos x}"})[1] == {"answer": r"2\cos x", "reason": "wrong answer", "by": "symbolic"}
    assert math.grade(spec, {"text": r"\boxed{\sin 2x}"}) == (1.0, {"answer": r"\sin 2x"})
    fast = math.grade({**spec, "symbolic": False}, {"text": r"\boxed{2\sin x\cos x}"})
    assert fast == (0.0, {"answer": r"2\sin x\cos x", "reason": "undecided without computer algebra"})


def test_settings_are_checked(monkeypatch):
    math.check({"name": "math", "key": "m", "answer": "1", "symbolic": False})
    with pytest.raises(ValueError, match="symbolic must be true or false"):
        math.check({"answer": "1", "symbolic": "yes"})
    with pytest.raises(ValueError, match="unknown key 'polcy'"):
        math.check({"answer": "1", "polcy": "boxed"})


def test_without_the_extra_nothing_is_equal_here_and_true_is_refused(tmp_path):
    """In a process where the packages cannot be found."""
    code = """if 1:
        import sys
        sys.modules["math_verify"] = None
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "math_verify" else real(name, *more)
        from pt_tools.rewards import math, symbolic
        import pt_tools.rewards.symbolic_worker
        assert symbolic.versions() == {} == math.versions()
        assert symbolic.decide("\\\\sin 2x", "2\\\\sin x\\\\cos x") == (False, "undecided without the extra [math]")
        assert math.grade({"answer": "\\\\frac{1}{2}"}, {"text": "\\\\boxed{0.5}"})[0] == 1.0
        try:
            math.check({"answer": "1", "symbolic": True})
        except ValueError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("symbolic answers need the extra [math]"), done.stderr


@needs_extra
def test_versions():
    assert symbolic.versions()["math-verify"].startswith("0.9.") and set(symbolic.versions()) >= {"math-verify", "sympy"}


# What the guard keeps out, put to the worker itself: the limits hold without the guard too.


@pytest.fixture
def pool():
    pool = Pool("pt_tools.rewards.symbolic_worker:compare", 1, memory_mb=1024)
    yield pool
    pool.end()


HARD = [r"\sin(8^{7^{8^{7}}})"]
HARDER = [r"\sin((7\cdot 10^8)!)", r"\ln\binom{8\cdot 10^8}{3\cdot 10^8}"]


@needs_extra
@pytest.mark.parametrize("answer", [*HARD, *(pytest.param(one, marks=pytest.mark.slow) for one in HARDER)])
def test_the_worker_is_killed_and_the_next_answer_gets_its_verdict(answer, pool, monkeypatch):
    monkeypatch.setattr(symbolic, "_pool", lambda: pool)
    monkeypatch.setattr(symbolic, "TIME_S", 2.0)
    same, reason = symbolic._ask(answer, "6")
    assert not same and reason.startswith("no verdict within")
    monkeypatch.setattr(symbolic, "TIME_S", 120.0)
    assert symbolic._ask(r"2\sin x\cos x", r"\sin 2x") == (True, None)


@needs_extra
def test_a_worker_that_cannot_start_is_the_graders_failure(monkeypatch):
    broken = Pool("pt_tools.rewards.symbolic_worker:missing", 1)
    monkeypatch.setattr(symbolic, "_pool", lambda: broken)
    with pytest.raises(Lost, match="did not start"):
        symbolic._ask(r"\sin 2x", r"2\sin x\cos x")


@needs_extra
def test_threads_and_forks_get_the_same_verdicts():
    symbolic.decide.cache_clear()
    wanted = [same for _, _, same in PAIRS]
    with ThreadPoolExecutor(8) as threads:
        assert [same for same, _ in threads.map(lambda pair: symbolic.decide(*pair[:2]), PAIRS)] == wanted
    symbolic.decide.cache_clear()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int([symbolic.decide(a, g)[0] for a, g, _ in PAIRS[:6]] != wanted[:6])
        finally:
            os._exit(code)
    deadline = time.monotonic() + 200
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done[1] == 0
