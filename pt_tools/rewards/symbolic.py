r"""Computer algebra for the pairs of answers that exact comparison leaves open: `\sin 2x` and `2 \sin x \cos x`.

The optional extra `[math]` (math-verify) is asked, only ever in a worker process with limits of memory and time, and only
about short answers of modest size: a guard turns away what could keep it busy or fool it, before it is handed over.
A worker that runs out of time or memory means: not shown to be equal.

Without the extra nothing is equal here. So that a verdict does not silently depend on the machine, a verifier object can
say `"symbolic": true` (the extra must be there) or `false` (it is never asked), and `versions` goes into the protocol of
an evaluation.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from importlib import metadata

from pt_tools.rewards.spelling import normal
from pt_tools.rewards.worker import Failed, Lost, Pool, Timeout

PACKAGE = "math-verify"
WRONG = "wrong answer"  # the reason where computer algebra has decided
TIME_S = 10.0  # by the clock; an ordinary answer takes some milliseconds
MEMORY_MB = 2048

MAX_LENGTH = 300  # characters
MAX_DEPTH = 8  # nested brackets
MAX_DIGITS = 30  # of one number
MAX_EXPONENT = 400
MAX_OF_GROUPS = 20  # product of the exponents of bracketed groups, whose expansion may be large
MAX_FACTORIAL = 100
MAX_LOGARITHMS = 3
MAX_BARS = 6  # of absolute values

_LARGE = re.compile(r"[0-9][0-9,]{%d,}" % MAX_DIGITS)
_ENDLESS = re.compile(
    r"\\(?:[lcdv]?dots[a-z]*|sum|prod|coprod|i+nt|oint|lim|bigcup|bigcap|underbrace|overbrace|uparrow)(?![A-Za-z])|\.\.|…"
)
_EXPONENT = re.compile(r"\^|\*\*")
_OF_GROUP = re.compile(r"[)\]}]\s*(?:\^|\*\*)\s*[{(]?\s*-?([0-9]+)")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]+\}|\\mathbb\s*\{?[A-Z]\}?")
_WORD = re.compile(r"(?<![\\A-Za-z])(?!(?:arc)?(?:sin|cos|tan|sec|csc|cot)h?(?![a-z])|(?:log|exp|sqrt|deg)(?![a-z]))[A-Za-z]{3,}")
_NUMBER_BEFORE = re.compile(r"(?<![0-9.,}\])])([0-9]{1,3})\s*!")
_CALL = re.compile(r"\\(?:binom|choose|gamma|Gamma|zeta)(?![A-Za-z])|\\(?:gcd|lcm|det|max|min)(?![A-Za-z])|\\mod|\\bmod|\\pmod")
_LOGARITHM = re.compile(r"\\(?:log|ln|lg|exp)(?![A-Za-z])")
_SUBSCRIPT = re.compile(r"(?<!\\log)\s*_")  # math-verify loses that of 1011_2
_MALFORMED = re.compile(r"\\sqrt\s*\(|\\frac\s*[^\s{]|\\(?:input|def|let|newcommand)")
_HUGE_WORDS = re.compile(r"(?i)tetrat|knuth|graham|ackermann|googol")


@functools.cache
def available():
    """True if the extra is installed."""
    return all(importlib.util.find_spec(name) for name in ("math_verify", "latex2sympy2_extended"))


def versions():
    """{package: version} of what decides here; {} without the extra."""
    if not available():
        return {}
    return {name: metadata.version(name) for name in (PACKAGE, "latex2sympy2_extended", "sympy")}


@functools.lru_cache(maxsize=16384)
def decide(answer, gold):
    """(True, None), or (False, reason), for two answers that `answers.compare` leaves undecided.

    Raises Lost if no worker can be started.
    """
    if not available():
        return False, "undecided without the extra [math]"
    for name, text in (("answer", answer), ("gold answer", gold)):
        if why := too_large(text):
            return False, f"{name} not for computer algebra: {why}"
    return _ask(answer, gold)


def _ask(answer, gold):
    for again in (True, False):  # a worker that an earlier answer has bloated may die of this one
        try:
            return (True, None) if _pool().call([answer, gold], TIME_S) else (False, WRONG)
        except Timeout:
            return False, f"no verdict within {TIME_S:g} s"
        except Failed as error:
            return False, f"computer algebra failed ({str(error)[:80]})"
        except Lost as error:
            if "did not start" in str(error) or "were ended" in str(error):
                raise
    return False, "no verdict within the memory limit"


@functools.cache
def _pool():
    return Pool("pt_tools.rewards.symbolic_worker:compare", memory_mb=MEMORY_MB)


def too_large(text):
    """Why a text is not handed to computer algebra, None if it may be."""
    if len(text) > MAX_LENGTH:
        return f"longer than {MAX_LENGTH} characters"
    if not text.isascii():
        return "characters beyond ASCII"
    text = normal(text)
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    checks = (
        (deepest > MAX_DEPTH, "too many nested brackets"),
        (_LARGE.search(text), "a number with too many digits"),
        (_WORD.search(_ENVIRONMENT.sub("", text)), "words"),
        (_ENDLESS.search(text), "a sum, limit, integral or an ellipsis"),
        (_CALL.search(text), "a function that is not evaluated"),
        (text.count("|") > MAX_BARS, "too many absolute values"),
        (math.prod(int(n) or 1 for n in _OF_GROUP.findall(text)) > MAX_OF_GROUPS, "a large power of a group"),
        (len(_LOGARITHM.findall(text)) > MAX_LOGARITHMS, "too many logarithms"),
        (_SUBSCRIPT.search(text), "a subscript"),
        (_MALFORMED.search(text), "malformed LaTeX"),
        (text.count("!") > len(_small_factorials(text)), "a large factorial"),
        (not all(_small_exponent(text, match.end()) for match in _EXPONENT.finditer(text)), "a large exponent"),
    )
    return next((reason for failed, reason in checks if failed), None)


def _small_factorials(text):
    return [n for n in _NUMBER_BEFORE.findall(text) if int(n) <= MAX_FACTORIAL]


def _small_exponent(text, start):
    """True if the exponent that starts there holds no further power and no number above MAX_EXPONENT."""
    rest = text[start:].lstrip()
    end = _closing(rest) if rest[:1] in "{(" else len(re.match(r"[-+]?(?:[0-9.,]+|\\?[A-Za-z]+|.?)", rest).group())
    exponent, after = rest[:end], rest[end:].lstrip()
    numbers = re.findall(r"[0-9]+", exponent)
    height = _EXPONENT.search(exponent) and not re.fullmatch(r"[{(]?[-+]?[0-9]*\s*\\?[A-Za-z]+\^\{?[0-9]\}?[)}]?", exponent)
    product = len(numbers) > 1 and re.search(r"[*!]|\\(?:cdot|times)", exponent)
    return not (height or product or "!" in exponent or after[:1] == "^" or any(int(n) > MAX_EXPONENT for n in numbers))


def _closing(text):
    """Offset behind the bracket that closes the first one, or the length of the text."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return i + 1
    return len(text)
