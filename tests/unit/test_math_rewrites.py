"""Real gold answers of MATH, rewritten as models write them (still right) and changed a little (wrong)."""

import json
import random
import re

import pytest

from pt_tools.rewards import math

FRACTION = re.compile(r"\\frac\{(-?\d+)\}\{(\d+)\}")


def whole(text):
    return re.fullmatch(r"-?\d+", text) is not None


def bare_list(text):
    return "," in text and not re.search(r"[()\[\]{}=]|text|\\[!,]|\d,\d{3}(?!\d)", text)


def plain(text):
    """No relation, list, text or bracket at the outside: `x = …` may stand before it."""
    return not re.search(r"[=,<>]|text|mbox|\\in|\\[lg]e", text)


def on(fits, change):
    return lambda text: change(text) if fits(text) else text


def matrix(text, left, right):
    """A pmatrix as an array."""
    rows = re.search(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", text, re.S)
    columns = "c" * (rows[1].split("\\\\")[0].count("&") + 1)
    return text.replace(rows[0], rf"\left{left}\begin{{array}}{{{columns}}}{rows[1]}\end{{array}}\right{right}")


SAME = {
    "dfrac": lambda t: t.replace("\\frac", "\\dfrac"),
    "no braces": lambda t: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", t),
    "slash": on(lambda t: FRACTION.fullmatch(t), lambda t: FRACTION.sub(r"\1/\2", t)),
    "unreduced": lambda t: FRACTION.sub(lambda m: rf"\frac{{{int(m[1]) * 2}}}{{{int(m[2]) * 2}}}", t) if "ABC" not in t else t,
    "minus above": lambda t: re.sub(r"^-\\frac\{(\d+)\}\{(\d+)\}$", r"\\frac{-\1}{\2}", t),
    "minus below": lambda t: re.sub(r"^-\\frac\{(\d+)\}\{(\d+)\}$", r"\\frac{\1}{-\2}", t),
    "mixed": lambda t: re.sub(r"^\\frac\{(\d+)\}\{(\d+)\}$", lambda m: rf"{int(m[1]) // int(m[2])}\frac{{{int(m[1]) % int(m[2])}}}{{{m[2]}}}"
                              if int(m[1]) > int(m[2]) and int(m[1]) % int(m[2]) else m[0], t),
    "left right": on(lambda t: "\\left" not in t and t.count("(") == t.count(")"),
                     lambda t: t.replace("(", "\\left(").replace(")", "\\right)")),
    "full stop": on(lambda t: t[-1:] != ".", lambda t: t + "."),
    "dollars": lambda t: f"${t}$",
    "braces": lambda t: f"{{{t}}}",
    "box in box": lambda t: rf"\boxed{{{t}}}",
    "display": lambda t: rf"\displaystyle {t}\,",
    "equals": lambda t: f"= {t}",
    "named": on(plain, lambda t: f"x = {t}"),
    "named longer": on(plain, lambda t: f"S_{{n}} = {t}"),
    "degrees": on(whole, lambda t: rf"{t}^{{\circ}}"),
    "square units": on(whole, lambda t: rf"{t}\,\text{{cm}}^2"),
    "ways": on(whole, lambda t: rf"{t} \text{{ ways}}"),
    "money": on(whole, lambda t: rf"\${t}.00"),
    "percent": on(whole, lambda t: rf"{t}\%"),
    "separators": on(lambda t: whole(t) and len(t) > 3, lambda t: f"{int(t):,}".replace(",", "{,}")),
    "thin separators": on(lambda t: whole(t) and len(t) > 3, lambda t: f"{int(t):,}".replace(",", "\\,")),
    "root without braces": lambda t: re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", t),
    "into the root": lambda t: re.sub(r"^(\d+)\\sqrt\{(\d+)\}$", lambda m: rf"\sqrt{{{int(m[1]) ** 2 * int(m[2])}}}", t),
    "a half first": lambda t: re.sub(r"^\\frac\{\\sqrt\{(\d+)\}\}\{(\d+)\}$", r"\\frac{1}{\2}\\sqrt{\1}", t),
    "root sign": lambda t: re.sub(r"^(\d*)\\sqrt\{(\d+)\}$", r"\1√\2", t),
    "pi sign": lambda t: t.replace("\\pi", "π"),
    "powers in braces": lambda t: re.sub(r"\^(\d)(?!\d)", r"^{\1}", t),
    "list turned": on(bare_list, lambda t: ",".join(reversed(t.split(",")))),
    "and": on(lambda t: bare_list(t) and t.count(",") == 1, lambda t: t.replace(",", " \\text{ and } ")),
    "set": on(bare_list, lambda t: rf"\left\{{{t}\right\}}"),
    "each named": on(bare_list, lambda t: " \\text{ or } ".join(f"x = {part}" for part in t.split(","))),
    "no text": lambda t: re.sub(r"\\text\{([^{}]*)\}", r"\1", t),
    "bold text": lambda t: t.replace("\\text{", "\\textbf{"),
    "choice": lambda t: re.sub(r"^\\text\{\(([A-F])\)\}$", r"\1", t),
    "infinities": lambda t: re.sub(r"(?<![-+])\\infty", r"+\\infty", t),
    "bmatrix": lambda t: t.replace("pmatrix", "bmatrix"),
    "array": on(lambda t: t.count("pmatrix") == 2, lambda t: matrix(t, "[", "]")),
    "base in words": lambda t: re.sub(r"^(\w+)_\{?(\d)\}?$", r"\1_{\\text{base }\2}", t),
}


def digit(text, change):
    """One digit of the text changed; `change(digit, rng)`."""
    rng = random.Random(text)
    places = [match.start() for match in re.finditer(r"(?<!sqrt)(?<!frac)\d(?!,\\!)", text)]
    if not places:
        return text
    at = rng.choice(places)
    return text[:at] + change(text[at], rng) + text[at + 1 :]


CHANGED = {
    "another digit": lambda t: digit(t, lambda d, rng: rng.choice([c for c in "123456789" if c != d])),
    "one digit more": on(whole, lambda t: digit(t, lambda d, rng: d + rng.choice("123456789"))),
    "sign": on(lambda t: whole(t) and t != "0" or FRACTION.fullmatch(t), lambda t: t[1:] if t[0] == "-" else "-" + t),
    "sign inside": lambda t: t.replace("+", "-", 1),
    "upside down": lambda t: FRACTION.sub(lambda m: rf"\frac{{{m[2]}}}{{{m[1]}}}", t, count=1) if "\\frac{1}{1}" not in t else t,
    "no root": lambda t: re.sub(r"\\sqrt\{([02-9]|\d\d+)\}", r"\1", t, count=1),
    "a root": on(lambda t: whole(t) and t.lstrip("0") not in ("", "1") and t[0] != "-", lambda t: rf"\sqrt{{{t}}}"),
    "no pi": lambda t: re.sub(r"(?<=\d)\\pi", "", t, count=1),
    "open": on(lambda t: t[:1] == "[" and "," in t and "infty" not in t, lambda t: "(" + t[1:]),
    "closed": on(lambda t: t[:1] == "(" and t[-1:] == "]" and "infty" not in t, lambda t: "[" + t[1:]),
    "swapped": lambda t: re.sub(r"^\(\s*([^(),]+),\s*([^(),]+)\)$", lambda m: f"({m[2]}, {m[1]})" if m[1].strip() != m[2].strip() else m[0], t),
    "part missing": on(bare_list, lambda t: t.rpartition(",")[0]),
    "one part more": on(lambda t: whole(t) and t != "17", lambda t: t + ", 17"),
    "or another": on(lambda t: whole(t) and t != "17", lambda t: rf"{t} \text{{ or }} 17"),
    "twice": on(whole, lambda t: f"{t}, {t}"),
    "plus one": on(plain, lambda t: t + "+1" if t[:1] not in "([" and "matrix" not in t and "left" not in t else t),
    "power": lambda t: re.sub(r"(?<=[a-z])\^(\d)", lambda m: f"^{int(m[1]) + 1}", t, count=1),
    "a square": on(lambda t: whole(t) and abs(int(t)) > 1, lambda t: f"({t})^2"),
    "a factorial": on(lambda t: re.fullmatch(r"[3-9]\d?", t), lambda t: t + "!"),
    "denied": on(whole, lambda t: rf"\text{{not }} {t}"),
    "below": on(whole, lambda t: f"< {t}"),
    "about": on(whole, lambda t: rf"\approx {t}.5"),
    "a range": on(lambda t: re.fullmatch(r"[1-9]\d*", t), lambda t: f"{int(t) - 1}-{int(t) + 1}"),
    "millions": on(lambda t: whole(t) and int(t), lambda t: rf"{t} \text{{ million}}"),
    "dozens": on(lambda t: whole(t) and int(t), lambda t: rf"{t} \text{{ dozen}}"),
    "another choice": lambda t: re.sub(r"^\\text\{\(([A-E])\)\}$", lambda m: rf"\text{{({'ABCDE'['ABCDE'.index(m[1]) - 1]})}}", t),
    "another base": lambda t: re.sub(r"_\{?(\d)\}?$", lambda m: f"_{9 if m[1] != '9' else 8}", t),
    "a letter less": lambda t: re.sub(r"^\\text\{([A-Za-z]{3,})\}$", lambda m: rf"\text{{{m[1][:-1]}}}", t),
}


@pytest.fixture(scope="module")
def golds(data):
    rows = json.loads((data / "math" / "train.json").read_text())
    rows += map(json.loads, (data / "math" / "math500_test.jsonl").read_text().splitlines())
    answers = {row["answer"].strip() for row in rows if row["answer"]}
    return sorted(answer for answer in answers if "\\approx" not in answer)  # the rounding behind it is not looked at


def graded(golds, rewrite):
    """[(gold, rewritten, reward)] of the golds that the rewriting changes."""
    pairs = [(gold, text) for gold in golds if (text := rewrite(gold)) != gold]
    return [(gold, text, math.grade({"answer": gold}, {"text": rf"So it is $\boxed{{{text}}}$."})[0]) for gold, text in pairs]


@pytest.mark.parametrize("name", SAME)
def test_the_same_answer_in_another_spelling_is_right(name, golds):
    found = graded(golds, SAME[name])
    assert len(found) >= 5 and [row for row in found if row[2] != 1.0] == []


@pytest.mark.parametrize("name", CHANGED)
def test_another_answer_is_wrong(name, golds):
    found = graded(golds, CHANGED[name])
    assert len(found) >= 5 and [row for row in found if row[2] != 0.0] == []
