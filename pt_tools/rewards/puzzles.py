r"""The `game24` and `countdown` verifiers: reach a number by arithmetic on given numbers.

    {"name": "game24", "numbers": [4, 9, 10, 13], "target": 24}             target 24 if absent; every number once
    {"name": "countdown", "numbers": [3, 7, 25], "target": 46, "all": false}   every number at most once;
                                                                           "all": true: exactly once, as TinyZero's

The expression is what stands in the last `<answer>…</answer>`, else in the last `\boxed{…}`, else behind the last
"Answer:" (or "answer is") on its line or the next one, else on the last line, words in front of it apart; after the
thinking part if there is one. It may end in "= 24", which must then be true; the step lines of tree-of-thought answers
are not looked at.

An expression is whole numbers in ASCII digits, the binary operators + - * / and parentheses, evaluated exactly with
fractions. A minus sign may stand in front of a number or a bracket (nothing positive is reached by it that is not
reached without), a plus sign may not. There is no power, no `//`, no decimal point, no number glued
together or written with a leading zero. × ⋅ · ∗ ÷ ∕ − – and LaTeX's \times \cdot \div \frac{}{} \left \right are read
as what they mean. Nothing is ever given to an interpreter.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from pt_tools.rewards import Grader, common

MAX_LENGTH = 1000  # characters of an expression
MAX_DEPTH = 50  # open brackets
MAX_NUMBER = 10**9

_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
_OPERATORS = str.maketrans({"×": "*", "⋅": "*", "·": "*", "∗": "*", "÷": "/", "∕": "/", "−": "-", "–": "-"})
_LATEX = [
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[()\[\],;:! ]|\$"), " "),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
]
_FRAC = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_MARKER = re.compile(r"\banswer\b[*_ ]{0,4}(?:[:：]|is\b)[*_ ]{0,4}[:：]?", re.I)
_LEAD = re.compile(r"[*_A-Za-z' ,]{1,100}(?::|\bis\b)[*_ ]*")
_BRACE = re.compile(r"[{}]")


class Malformed(ValueError):
    """An answer that is no expression of the game; the message is the reason."""


def _check_game24(spec):
    common.only(spec, "numbers", "target")
    _check_numbers(spec)


def _check_countdown(spec):
    common.only(spec, "numbers", "target", "all")
    if "target" not in spec:
        raise ValueError("the target is missing")
    common.choice(spec, "all", (False, True))
    _check_numbers(spec)


def _check_numbers(spec):
    numbers = spec.get("numbers")
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= 20:
        raise ValueError("numbers must be a list of 1 to 20 integers")
    if not all(type(number) is int and 0 <= number <= MAX_NUMBER for number in numbers):
        raise ValueError(f"numbers must be integers from 0 to {MAX_NUMBER}")
    common.whole(spec, "target", -MAX_NUMBER, MAX_NUMBER, 24)


def _grade_game24(spec, completion):
    return _grade(completion["text"], spec["numbers"], spec.get("target", 24), True)


def _grade_countdown(spec, completion):
    return _grade(completion["text"], spec["numbers"], spec["target"], spec.get("all", False))


GAME24 = Grader(_check_game24, _grade_game24)
COUNTDOWN = Grader(_check_countdown, _grade_countdown)


def _grade(text, numbers, target, every):
    """(1.0 or 0.0, {"answer": …, "reason": …}); the reason only with 0."""
    answer = None
    try:
        answer = find(text)
        solve(answer, numbers, target, every)
    except Malformed as reason:
        shown = {} if answer is None else {"answer": answer[:200]}
        return 0.0, {**shown, "reason": str(reason)}
    return 1.0, {"answer": answer}


def solve(answer, numbers, target, every):
    """Malformed(reason) unless `answer` is an expression over `numbers`, each once, that gives `target`."""
    left, equals, right = plain(answer).partition("=")
    value, used = evaluate(left)
    used, given = Counter(used), Counter(numbers)
    if used - given or (every and used != given):
        raise Malformed("other numbers than the given ones" if used - given else "not all numbers are used")
    if value != target:
        raise Malformed(f"it gives {value}, not {target}")
    if equals and not _says(right, target):
        raise Malformed("what follows the equals sign is wrong")


def _says(right, target):
    """True if the text behind an equals sign begins with the target: `24`, `24.`, `24 (all used)`, `24 * 1 = 24`."""
    side = right.partition("=")[0]
    try:
        return evaluate(side)[0] == target
    except Malformed:
        stated = re.match(r"\s*(-?[0-9]{1,10})(?:\.0+)?(?![0-9]|\.[0-9])\s*(?![-+*/^])", side, re.A)
        return bool(stated) and int(stated.group(1)) == target


def find(text):
    """The answer as it stands in a completion. Malformed if there is none."""
    if len(text) > common.MAX_TEXT:
        raise Malformed(f"longer than {common.MAX_TEXT} characters")
    text = common.part(text, "answer")
    for finder in (_tagged, _boxed, _marked):
        answer = finder(text)
        if answer is not None:
            break
    else:
        answer = _LEAD.sub("", text.strip().removesuffix("```").rstrip().rpartition("\n")[2])
    answer = answer.strip().strip("*_`").strip()
    if not answer:
        raise Malformed("no answer" if text.strip() else "empty")
    return answer


def _tagged(text):
    closing = text.rfind("</answer>")
    opening = text.rfind("<answer>", 0, max(closing, 0))
    return None if opening < 0 else text[opening + len("<answer>") : closing]


def _boxed(text):
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for mark in _BRACE.finditer(text, start):
        depth += 1 if mark.group() == "{" else -1
        if depth == 0:
            return text[start + len("\\boxed{") : mark.start()]
    raise Malformed("unfinished box")


def _marked(text):
    last = None
    for last in _MARKER.finditer(text):
        pass
    return None if last is None else text[last.end() :].strip(" \t\r\n*_").partition("\n")[0]


def plain(answer):
    """An answer with typographic and LaTeX operators written in ASCII."""
    if len(answer) > MAX_LENGTH:
        raise Malformed(f"the answer is longer than {MAX_LENGTH} characters")
    answer = answer.translate(_OPERATORS)
    if "\\" in answer or "$" in answer:
        for pattern, new in _LATEX:
            answer = pattern.sub(new, answer)
        while (fewer := _FRAC.sub(r"((\1)/(\2))", answer)) != answer:
            answer = fewer
    return answer.strip().rstrip(".").rstrip()


def evaluate(text):
    """(exact value as a Fraction, the numbers in it as they stand). Malformed if `text` is no expression."""
    return _Parser(text).parse()


class _Parser:
    """Recursive descent: sum = product (± product)*, product = atom (*/ atom)*, atom = [-] number or [-] ( sum )."""

    def __init__(self, text):
        self.tokens, at, text = [], 0, text.strip()
        while at < len(text):
            token = _TOKEN.match(text, at)
            if not token:
                raise Malformed("not an expression of + - * / and whole numbers")
            self.tokens.append(token.group(1))
            at = token.end()
        self.tokens.append("")
        self.at, self.depth, self.numbers = 0, 0, []

    def parse(self):
        value = self.sum()
        if self.tokens[self.at]:
            raise Malformed(f"{self.tokens[self.at]!r} is out of place")
        return value, self.numbers

    def sum(self):
        value = self.product()
        while (operator := self.tokens[self.at]) in ("+", "-"):
            self.at += 1
            other = self.product()
            value = value + other if operator == "+" else value - other
        return value

    def product(self):
        value = self.atom()
        while (operator := self.tokens[self.at]) in ("*", "/"):
            self.at += 1
            other = self.atom()
            if operator == "/" and other == 0:
                raise Malformed("division by zero")
            value = value * other if operator == "*" else value / other
        return value

    def atom(self):
        token = self.tokens[self.at]
        self.at += 1
        if token == "-" and self.tokens[self.at] != "-":
            return -self.atom()
        if token == "(":
            return self.bracket()
        if not token or token in "+-*/)":
            raise Malformed(f"{token!r} is out of place" if token else "the expression ends too early")
        if len(token) > 10 or (token[0] == "0" and token != "0"):
            raise Malformed(f"{token[:20]!r} is none of the numbers")
        self.numbers.append(int(token))
        return Fraction(int(token))

    def bracket(self):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Malformed(f"more than {MAX_DEPTH} nested brackets")
        value = self.sum()
        if self.tokens[self.at] != ")":
            raise Malformed("a bracket is not closed")
        self.at += 1
        self.depth -= 1
        return value
