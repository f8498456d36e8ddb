r"""Exact comparison of two final answers: no computer algebra, no eval, bounded time and memory.

What counts as equal, beside equal text:
- the same rational number: integers, decimals, a/b, \frac{a}{b}, mixed numbers, thousands separators, currency signs,
  a leading plus, a trailing full stop, scientific notation; unreduced fractions count (6/8 = 3/4), rounding does not
  (0.333 is not 1/3);
- 50% and 50 and 0.5 (a percent sign is read as a unit or as a hundredth, when only one side has it);
- a number with a unit and the same number without; two different units are different answers;
- the same LaTeX up to spacing and synonyms (\dfrac, \left, \text, degrees, `x =` in front);
- tuples and intervals element by element, brackets and order alike; sets and bare lists in any order.

Digits are ASCII digits: int() would read others, and a policy could learn to write them.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

MAX_LENGTH = 1000  # characters of an answer; Python refuses int <-> text beyond 4,300 digits
MAX_DEPTH = 10  # nested brackets
MAX_EXPONENT = 1000

_INTEGER = re.compile(r"[-+]?[0-9]+")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_EXPONENT = r"([-+]?[0-9]{1,4})"
_PLAIN = re.compile(rf"([-+]?)({_DECIMAL})(?:[eE]{_EXPONENT}|(?:\*|\\times|\\cdot)10\^\{{?{_EXPONENT}\}}?)?")
_RATIO = re.compile(rf"([-+]?)([-+]?{_DECIMAL})/([-+]?{_DECIMAL})")
_FRAC = re.compile(rf"([-+]?)([0-9]*)\\frac\{{([-+]?{_DECIMAL})\}}\{{([-+]?{_DECIMAL})\}}")
_MIXED = re.compile(r"([-+]?)([0-9]+) +([0-9]+)/([0-9]+)")
_WITH_UNIT = re.compile(r"([^A-Za-z]*[0-9}][.]?)\s*([A-Za-z][A-Za-z./ ]*(?:\^\{?[23]\}?)?)")
_SHORT_UNITS = {"m", "g", "s", "h", "l", "L"}
# Words after a number that are mathematics, quantities or a second thought, not a unit.
_NOT_UNITS = set("""or and but not to if maybe perhaps possibly than about approximately plus minus times over of is are a
    an no pi e i x y z n k t sin cos tan log ln exp sqrt theta infinity infty mod hundred thousand million billion
    trillion     dozen half third quarter one two three four five six seven eight nine ten eleven twelve zero""".split())
_TWO_NUMBERS = re.compile(r"[0-9.] +(?:\.|(?![0-9]{3}(?![0-9]))[0-9])")  # "3 4" is not 34; "12 345" is 12345
_IDLE_SPACE = re.compile(r"(?<![0-9.])\s+|\s+(?![0-9.])")
_LEFT_SIDE = re.compile(r"(\\?[A-Za-z]{1,8}(?:\([A-Za-z]\))?)\s*=(?!=)\s*(?=.)")
_WORDS = re.compile(r"[A-Za-z ]+")


def equal(answer, gold):
    """True if both texts give the same final answer. Symmetric; never raises on text of at most MAX_LENGTH."""
    answer, gold = answer.strip(), gold.strip()
    if answer == gold:
        return True
    if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        return False
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
        return int(answer) == int(gold)
    return _equal_forms(normal(answer), normal(gold), 0)


def check_gold(text):
    """ValueError if a gold answer can never be matched."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the gold answer is longer than {MAX_LENGTH} characters")
    if not normal(text):
        raise ValueError("the gold answer has no content")


def number(text):
    """The rational value of `text` as a Fraction (units, currency and percent sign ignored), None if it has none."""
    value, _ = _quantity(normal(text)) if len(text) <= MAX_LENGTH else (None, "")
    return value


def _equal_forms(a, b, depth):
    if a == b or depth > MAX_DEPTH:
        return a == b
    a, b = _drop_left_side(a, b)
    (value_a, unit_a), (value_b, unit_b) = _quantity(a), _quantity(b)
    if value_a is not None and value_b is not None:
        return _equal_quantities(value_a, unit_a, value_b, unit_b)
    if _WORDS.fullmatch(a) and _WORDS.fullmatch(b):
        return a == b  # "abc abc" is not "abcabc"
    return _compact(a) == _compact(b) or _equal_lists(a, b, depth)


def _equal_quantities(value_a, unit_a, value_b, unit_b):
    if (unit_a == "%") != (unit_b == "%") and not (unit_a and unit_b):
        percent, other = (value_a, value_b) if unit_a == "%" else (value_b, value_a)
        return other in (percent, percent / 100)
    return value_a == value_b and (not unit_a or not unit_b or bool(_forms(unit_a) & _forms(unit_b)))


def _forms(unit):
    """A unit as it is and without a plural's ending."""
    unit = unit.lower().rstrip(".")
    return {unit, unit.removesuffix("s"), unit.removesuffix("es")}


def _equal_lists(a, b, depth):
    """Compare as tuples, intervals, sets or bare lists."""
    (open_a, parts_a, close_a), (open_b, parts_b, close_b) = _parts(a), _parts(b)
    if len(parts_a) != len(parts_b) or not (len(parts_a) > 1 or open_a or open_b):
        return False
    if (open_a, close_a) != (open_b, close_b):
        # (A) and A are the same choice
        return {open_a + close_a, open_b + close_b} == {"", "()"} and len(parts_a) == 1 and parts_a == parts_b
    if open_a in ("(", "["):
        return all(_equal_forms(x, y, depth + 1) for x, y in zip(parts_a, parts_b))
    return _same_members(parts_a, parts_b, depth)


def _same_members(parts_a, parts_b, depth):
    """True if the parts can be matched one to one (the lists are short: MAX_LENGTH bounds them)."""
    left = list(parts_b)
    if len(left) > 32:
        return False
    for part in parts_a:
        at = next((i for i, other in enumerate(left) if _equal_forms(part, other, depth + 1)), None)
        if at is None:
            return False
        del left[at]
    return True


def _parts(text):
    """(opening, parts at the top-level commas, closing); thousands separators do not divide."""
    text, opening, closing = text.strip(), "", ""
    for left, right in (("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"), ("\\{", "\\}")):
        if text.startswith(left) and text.endswith(right) and len(text) > 1:
            inner = text[len(left) : -len(right)]
            if _balanced(inner):
                text, opening, closing = inner, left, right
                break
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0 and not _is_separator(text, i):
            parts.append(text[start:i].strip())
            start = i + 1
    return opening, [*parts, text[start:].strip()], closing


def _balanced(text):
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _is_separator(text, i):
    return bool(text[i - 1 : i].isdigit() and re.match(r"[0-9]{3}(?![0-9])", text[i + 1 : i + 5]))


def _drop_left_side(a, b):
    """Drop `x =` in front, unless both sides have one and they differ."""
    left_a, left_b = _LEFT_SIDE.match(a), _LEFT_SIDE.match(b)
    if left_a and left_b and left_a.group(1) != left_b.group(1):
        return a, b
    return a[left_a.end() :] if left_a else a, b[left_b.end() :] if left_b else b


@functools.lru_cache(maxsize=65536)
def _quantity(text):
    """(value, unit) of a normal form; value None if it is not one rational number. A percent sign is the unit "%"."""
    text = text.strip().replace("$", "").replace("€", "").replace("£", "").strip()
    if text.endswith("%"):
        return _rational(text[:-1].rstrip()), "%"
    value = _rational(text)
    if value is not None:
        return value, ""
    match = _WITH_UNIT.fullmatch(text)
    unit = match.group(2).strip() if match else ""
    if unit.lower() in ("percent", "per cent"):
        return _rational(match.group(1).strip()), "%"
    if unit and _is_unit(unit):
        return _rational(match.group(1).strip()), unit
    return None, ""


def _is_unit(unit):
    words = re.findall(r"[A-Za-z]+", unit)
    if len(words) == 1 and len(words[0]) == 1:
        return words[0] in _SHORT_UNITS
    return len(words) <= 4 and not any(word.lower() in _NOT_UNITS for word in words)


def _rational(text):
    """Fraction of one written number, None for anything else."""
    if match := _MIXED.fullmatch(text):
        sign, whole, top, bottom = match.groups()
        return _signed(sign, int(whole) + Fraction(int(top), int(bottom))) if int(bottom) else None
    if _TWO_NUMBERS.search(text):
        return None
    text = text.replace(" ", "")
    if match := _PLAIN.fullmatch(text):
        sign, digits, *exponents = match.groups()
        exponent = int(next((e for e in exponents if e), "0"))
        return _signed(sign, _decimal(digits) * Fraction(10) ** exponent) if abs(exponent) <= MAX_EXPONENT else None
    if match := _RATIO.fullmatch(text):
        sign, top, bottom = match.groups()
        return _divided(sign, 0, _decimal(top), _decimal(bottom))
    if match := _FRAC.fullmatch(text):
        sign, whole, top, bottom = match.groups()
        return _divided(sign, int(whole or 0), _decimal(top), _decimal(bottom))
    return None


def _divided(sign, whole, top, bottom):
    return _signed(sign, whole + top / bottom) if bottom else None


def _signed(sign, value):
    return -value if sign == "-" else value


def _decimal(digits):
    whole, _, part = digits.replace(",", "").partition(".")
    sign = -1 if whole.startswith("-") else 1
    return Fraction(sign * int((whole.lstrip("+-") + part) or "0"), 10 ** len(part))


_REPLACED = [
    (re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|textstyle|limits)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;:!]|\\(?:quad|qquad)(?![A-Za-z])|\\ |~"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°"), ""),
    (re.compile(r"\\frac\s*([0-9A-Za-z])\s*([0-9A-Za-z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*([0-9A-Za-z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*([0-9A-Za-z])\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"\\frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*([0-9A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\\(le|ge|ne)q(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"−|–"), "-"),
]


@functools.lru_cache(maxsize=65536)
def normal(text):
    """One spelling for LaTeX synonyms and decoration; spaces collapsed to one, not removed."""
    if _INTEGER.fullmatch(text):
        return text
    text = text.replace("\\$", "$").replace("\\%", "%").replace("\\(", " ").replace("\\)", " ")
    text = text.replace("\\[", " ").replace("\\]", " ")
    if "\\" in text or any(mark in text for mark in "~{°−–"):
        for pattern, new in _REPLACED:
            text = pattern.sub(new, text)
    text = " ".join(text.replace("$", " ").split())
    return text.rstrip(".").strip() if not text.endswith("..") else text


def _compact(text):
    return _IDLE_SPACE.sub("", text)
