r"""Exact comparison of two final answers: no computer algebra, no eval, bounded time and memory.

What counts as equal, beside equal text:
- the same rational number: integers, decimals, a/b, \frac{a}{b}, mixed numbers, thousands separators, a leading plus, a
  trailing full stop, scientific notation, repeating decimals, number words to twenty; unreduced fractions count
  (6/8 = 3/4), rounding does not (0.333 is not 1/3, 1.414 not \sqrt{2}; of `10/3 \approx 3.33` the first counts);
- 50% and 50 and 0.5 (a percent sign is read as a unit or as a hundredth, when only one side has it);
- a number with a unit or a currency and the same number without; two different units are different answers;
- 30^\circ and 30, but \sin 30^\circ is no \sin 30; 02:30 and 2:30, but a time of day is no fraction: 1:15 is another one;
- the same expression: reordered, factored, expanded, other roots (`canonical.py`);
- the same LaTeX up to spacing and synonyms (`spelling.py`); words in any letter case; (A) and A, the same choice;
- `x = 5`, `x \in S` and 5, S; a chain `6/8 = 3/4` if every member is right; an equation and a multiple of it;
- tuples, intervals, vectors and matrices element by element, brackets and order alike; sets, unions and bare lists in
  any order; a bare list and {…}; a bare list and (…) in the same order; `a \pm b` is the list of both; "and" and "or"
  between members are commas, so that "12 or 13" is a list of two and not 12.
Inequalities and intervals are compared as they are written: a restated problem is no solved one. (Computer algebra, if
installed, takes an interval for an inequality in the gold answer, never the other way round.)

Digits are ASCII digits: int() would read others, and a policy could learn to write them.
"""

from __future__ import annotations

import functools
import re

from pt_tools.rewards import canonical
from pt_tools.rewards.quantities import quantity, same_units, split_unit
from pt_tools.rewards.spelling import ROW, compact, normal

MAX_LENGTH = 1000  # characters of an answer; Python refuses int <-> text beyond 4,300 digits
MAX_DEPTH = 10  # nested brackets
MAX_MEMBERS = 32  # of an unordered list

_INTEGER = re.compile(r"[-+]?[0-9]+")
_WORDS = re.compile(r"[A-Za-z ]+")
_BRACKETS = (("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"), ("\\{", "\\}"))
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}")
_BRACKETED = re.compile(r"[(\[]\s*(\\begin\{array\}.*\\end\{array\})\s*[)\]]")
_CHOICE = re.compile(r"\(([A-J])\)\s+(?!and|or)(?!.*\([A-J]\)).+")
_NAME = re.compile(r"\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|\w))?(?:\([^()]*\))?")
_NAMES = re.compile(r"\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)+\s*\)")
_AND = re.compile(r"\s*,?(?<![A-Za-z])(?:and|or)(?![A-Za-z])\s*", re.I)
_SIDES = re.compile(r"(?<![<>!:])=(?!=)|\\equiv(?![A-Za-z])|\\in(?![A-Za-z])")
_ARGUMENT = re.compile(r"(?<=[A-Za-z}])(?:\([^()=]{1,20}\)|_(?:\{[^{}=]{1,20}\}|[0-9A-Za-z]))")
_ORDER = re.compile(r"<|>|\\(?:le|ge|ne)(?![A-Za-z])")
_TIME = re.compile(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]")
_SET = re.compile(r"^[(\[]|\\(?:cup|cap|setminus|mathbb|emptyset)(?![A-Za-z])")


def equal(answer, gold):
    """True if both texts give the same final answer. Symmetric; never raises on text of at most MAX_LENGTH."""
    return compare(answer, gold) is True


def compare(answer, gold, decide=None):
    """True: the same final answer; False: not; None: two expressions that only computer algebra can compare.

    `decide(a, b)` -> True or False is asked about such pairs, in normal form and piece by piece, where it is given.
    """
    answer, gold = answer.strip(), gold.strip()
    if answer == gold:
        return True
    if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        return False
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
        return int(answer) == int(gold)
    return _compare(_exact_part(normal(answer)), _exact_part(normal(gold)), decide, 0)


def check_gold(text):
    """ValueError if a gold answer can never be matched."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the gold answer is longer than {MAX_LENGTH} characters")
    if not normal(text):
        raise ValueError("the gold answer has no content")


def number(text):
    """The rational value of `text` as a Fraction (units, currency and percent sign ignored), None if it has none."""
    return quantity(normal(text))[0] if len(text) <= MAX_LENGTH else None


def _compare(a, b, decide, depth):
    if a == b or depth > MAX_DEPTH:
        return a == b
    (value_a, unit_a), (value_b, unit_b) = quantity(a), quantity(b)
    if value_a is not None and value_b is not None:
        return _same_quantities(value_a, unit_a, value_b, unit_b)
    if not a or not b:
        return False
    if ":" in a and ":" in b and _TIME.fullmatch(compact(a)) and _TIME.fullmatch(compact(b)):
        return compact(a).lstrip("0") == compact(b).lstrip("0")  # 2:30 is not 1:15
    list_a, list_b = _parts(a), _parts(b)
    sides_a, sides_b = _sides(a, list_a), _sides(b, list_b)
    if len(sides_a) > 1 or len(sides_b) > 1:
        return compact(a) == compact(b) or _compare_sides(sides_a, sides_b, a, b, decide, depth)
    if len(list_a.parts) > 1 or len(list_b.parts) > 1 or (list_a.kind and list_b.kind):
        return _compare_lists(list_a, list_b, a, b, decide, depth)
    if max(len(a), len(b)) > 3 >= min(len(a), len(b)) and (choice := _CHOICE.fullmatch(max(a, b, key=len))):
        return choice.group(1) == min(a, b, key=len).strip("()")  # "(C) 12" and "(C)"
    if _is_choice(list_a, list_b):
        return _compare(list_a.parts[0], list_b.parts[0], decide, depth + 1)
    if _WORDS.fullmatch(a) and _WORDS.fullmatch(b):
        return a.lower() == b.lower()  # "abc abc" is not "abcabc"
    if compact(a) == compact(b):
        return True
    return _compare_expressions(a, b, decide)


def _exact_part(text):
    r"""What stands before \approx, or behind it if that is only a name."""
    if "\\approx" not in text:
        return text
    exact, rounded = (part.strip() for part in text.split("\\approx", 1))
    return rounded if not exact or (_NAME.fullmatch(exact) and exact != "\\pi") else exact


def _same_quantities(value_a, unit_a, value_b, unit_b):
    if (unit_a == "%") != (unit_b == "%") and not (unit_a and unit_b):
        percent, other = (value_a, value_b) if unit_a == "%" else (value_b, value_a)
        return other in (percent, percent / 100)
    return value_a == value_b and same_units(unit_a, unit_b)


# --- lists, tuples, intervals, sets, unions, matrices ---------------------------------------------------------------


class _List:
    """kind: the brackets, "" for a bare list, or "cup", "pm", "matrix …"; a single expression is a bare list of one."""

    __slots__ = ("kind", "parts", "ordered")

    def __init__(self, kind, parts, ordered):
        self.kind, self.parts, self.ordered = kind, parts, ordered


def _compare_lists(a, b, text_a, text_b, decide, depth):
    if len(a.parts) != len(b.parts):
        a, b = (_parts(text, True) if x.kind in ("()", "[]", "(]", "[)") else x for x, text in ((a, text_a), (b, text_b)))
    if len(a.parts) != len(b.parts) or not _same_kind(a, b):
        if not (_may_be_set(text_a) and _may_be_set(text_b)):
            return False
        return None if decide is None else decide(text_a, text_b)
    if a.ordered or b.ordered:
        return _all(_compare(x, y, decide, depth + 1) for x, y in zip(a.parts, b.parts))
    return _same_members(a.parts, b.parts, decide, depth)


def _may_be_set(text):
    return _ORDER.search(text) or _SET.search(text)


def _same_kind(a, b):
    kinds = {a.kind, b.kind}
    return len(kinds) == 1 or kinds in ({"", "\\{\\}"}, {"", "()"}, {"", "pm"}, {"pm", "\\{\\}"})


def _all(verdicts):
    """False if any is, else None if any is."""
    found = True
    for verdict in verdicts:
        if verdict is False:
            return False
        found = found and verdict
    return found


def _same_members(parts_a, parts_b, decide, depth):
    """True if the parts can be matched one to one; None if that depends on pairs which are undecided."""
    left, undecided = list(parts_b), False
    if len(left) > MAX_MEMBERS:
        return False
    for part in sorted(parts_a, key=lambda part: part not in left):
        verdicts = []
        for other in left:
            verdicts.append(_compare(part, other, decide, depth + 1))
            if verdicts[-1]:
                break
        if verdicts and verdicts[-1]:
            del left[len(verdicts) - 1]
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _is_choice(a, b):
    """(A) and A are the same choice, (5) and 5 the same number, {5} is the set of the one solution 5."""
    return {a.kind, b.kind} in ({"", "()"}, {"", "\\{\\}"}) and len(a.parts) == len(b.parts) == 1


@functools.lru_cache(maxsize=16384)
def _parts(text, strict=False):
    """The _List that a normal form spells. Thousands separators do not divide, unless `strict`."""
    if "\\begin{" in text and (matrix := _MATRIX.fullmatch(_BRACKETED.sub(r"\1", text))):
        rows = [row.split("&") for row in matrix.group(2).strip().strip(ROW).split(ROW)]
        kind = "vmatrix" if matrix.group(1) == "vmatrix" else "matrix"
        return _List(f"{kind} {[len(row) for row in rows]}", [cell.strip() for row in rows for cell in row], True)
    if "\\cup" in text and len(parts := _split(text, "\\cup")) > 1:
        return _List("cup", parts, False)
    kind = ""
    for left, right in _BRACKETS:
        if text.startswith(left) and text.endswith(right) and len(text) > 1 and _balanced(text[len(left) : -len(right)]):
            text, kind = text[len(left) : -len(right)].strip(), left + right
            break
    if "and" in text or "or" in text:
        text = _AND.sub(" , ", text)
    parts = _split(text, ",;", strict) if "," in text or ";" in text else [text]
    if not kind or kind == "\\{\\}":
        parts = [part for part in parts if part] or [text]
        if any("\\pm" in part or "\\mp" in part for part in parts):
            parts = [one for part in parts for one in _both_signs(part)]
            kind = kind or "pm"
    return _List(kind, parts, kind not in ("", "\\{\\}", "pm"))


def _both_signs(text):
    if "\\pm" not in text and "\\mp" not in text:
        return [text]
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    return [side.strip().removeprefix("+").strip() for side in (upper, lower)]


def _split(text, mark, strict=False):
    """`text` at its top-level marks: the characters of `mark`, or the command that it is."""
    parts, depth, start = [], 0, 0
    command = mark.startswith("\\")
    for i, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif command and char == "\\" and text.startswith(mark, i) or not command and char in mark:
            # brackets of half-open intervals close each other, so only braces would count in a union
            if (depth == 0 or command) and (strict or command or not _is_separator(text, i)):
                parts.append(text[start:i].strip())
                start = i + len(mark if command else char)
    return [*parts, text[start:].strip()]


def _balanced(text):
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return depth == 0


_THREE_DIGITS = re.compile(r"[0-9]{3}(?![0-9])")


def _is_separator(text, i):
    return i > 0 and text[i] == "," and text[i - 1] in "0123456789" and bool(_THREE_DIGITS.match(text, i + 1))


# --- equations and expressions --------------------------------------------------------------------------------------


def _sides(text, members):
    """The members of a chain of equations `x = a = b`, `x \\in S`; the text alone if it is none, or a list of them."""
    if len(members.parts) > 1 or ("=" not in text and "\\" not in text):
        return (text,)
    if not _SIDES.search(text) or _ORDER.search(text):
        return (text,)
    return tuple(part.strip() for part in _SIDES.split(text))


def _is_name(text):
    """True for a left side that names the answer: letters and commands, digits only in subscripts and arguments."""
    if _NAMES.fullmatch(text):
        return True
    rest = _ARGUMENT.sub("", text)
    return any(char.isalpha() for char in rest) and not any(char in "0123456789,;<>=" for char in rest)


def _compare_sides(a, b, text_a, text_b, decide, depth):
    named_a, named_b = (len(x) > 1 and _is_name(x[0]) for x in (a, b))
    if len(a) > 1 and len(b) > 1:
        if compact(a[0]) == compact(b[0]):
            return _all(_compare(x, y, decide, depth + 1) for x in a[1:] for y in b[1:])
        return _same_equation(a, b, text_a, text_b, decide) if len(a) == len(b) == 2 else False
    right_a, right_b = a[1:] if named_a else a, b[1:] if named_b else b
    if not all(right_a) or not all(right_b) or len(right_a) > 4 or len(right_b) > 4:
        return False
    return _all(_compare(x, y, decide, depth + 1) for x in right_a for y in right_b)


def _same_equation(a, b, text_a, text_b, decide):
    forms = [canonical.form(side) for side in (*a, *b)]
    if None in forms:
        return None if decide is None else decide(text_a, text_b)
    one, other = canonical.difference(*forms[:2]), canonical.difference(*forms[2:])
    if canonical.proportional(one, other):
        return True
    if one.exact and other.exact:
        return False
    return None if decide is None else decide(text_a, text_b)


def _compare_expressions(a, b, decide):
    if _WORDS.fullmatch(a) and len(a) > 2 or _WORDS.fullmatch(b) and len(b) > 2:
        return False  # words against an expression
    form_a, form_b = canonical.form(a), canonical.form(b)
    if form_a and form_b and form_a.terms == form_b.terms:
        return True
    (rest_a, unit_a), (rest_b, unit_b) = split_unit(a), split_unit(b)
    if unit_a or unit_b:
        same = same_units(unit_a, unit_b)
        return same and _compare(rest_a, rest_b, decide, MAX_DEPTH)
    if form_a and form_b and form_a.exact and form_b.exact:
        return False
    return None if decide is None else decide(a, b)
