r"""One spelling for what LaTeX and people write in several ways: \dfrac and \frac, \left( and (, \text{yes} and yes."""

from __future__ import annotations

import functools
import re

ROW = "¶"  # between the rows of a matrix, `\\` in LaTeX
CURRENCY = "¤"  # a dollar sign that means money

_INTEGER = re.compile(r"[-+]?[0-9]+")
_MONEY = re.compile(r"\\\$|^\$(?=[0-9.,]+$)")
_ROW_GAP = re.compile(r"\\\\\s*\[\s*-?[0-9.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]")  # \\[4pt]
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")
_REPLACED = [
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|mathstrut|ensuremath)(?![A-Za-z])"), ""),
    (re.compile(r"\\!|\\negthinspace(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;:]|\\(?:quad|qquad|thinspace|newline)(?![A-Za-z])|\\ |(?<=[^\s$=])~"), " "),  # ~18 is "about 18"
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9]{3})"), ","),
    (re.compile(r"\{,\}"), ", "),
    (re.compile(r"\\(?:text)?color\s*\{[a-z]+\}"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|texttt|mathrm|mathbf|mathit|mathsf|boldsymbol|mbox|operatorname\*?|underline)"
                r"\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\{\\(?:rm|bf|it)\s([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:rm|bf|it|sf|tt|large|Large|LARGE|huge|Huge|small|normalsize)(?![A-Za-z])"), " "),
    (re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?[0-9]\}?)?\s*[({]?\s*)([0-9]+(?:\.[0-9]+)?)\s*"
                r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°)"),
     r"\1{\2\\pi/180}"),  # elsewhere degrees are a unit, here they are a number
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\(?:degree|deg)(?![A-Za-z])|°|º"), ""),
    (re.compile(r"(?<=[0-9])\s*\^\s*\{\s*(st|nd|rd|th)\s*\}"), r"\1"),
    (re.compile(r"\\frac\s*([0-9A-Za-z])\s*([0-9A-Za-z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*([0-9A-Za-z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*([0-9A-Za-z])\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"\\frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*([0-9A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s*([0-9]+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s*(?=[A-Za-z({])"), r"\\sqrt "),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=\.)([0-9]*)\\(?:overline|bar|dot)\s*(?:\{([0-9]+)\}|([0-9]))"), r"\1\\overline{\2\3}"),
    (re.compile(r"\\mathbb\s*([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(r"≈"), r"\\approx "),
    (re.compile(r"(?<![A-Za-z])\(\s*([0-9A-F]+)\s*\)\s*_(?=[0-9{])"), r"\1_"),
    (re.compile(r"\[\s*(?=-\s*(?:\\infty|∞))"), "("),
    (re.compile(r"(\\infty|∞)\s*\]"), r"\1)"),
    (re.compile(r"_\s*\{\s*(?:base\s*)?([0-9]+)\s*\}"), r"_{\1}"),
    (re.compile(r"\\(le|ge)q?(?:slant)?(?![A-Za-z])|≤|≥"), lambda m: f"\\{m.group(1) or {'≤': 'le', '≥': 'ge'}[m.group()]} "),
    (re.compile(r"\\neq(?![A-Za-z])|≠|!="), r"\\ne "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"\\langle(?![A-Za-z])|\\lparen(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])|\\rparen(?![A-Za-z])"), ")"),
    (re.compile(r"\\l(?:brace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\r(?:brace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\varnothing(?![A-Za-z])|∅|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"∪"), r"\\cup "),
    (re.compile(r"∈"), r"\\in "),
    (re.compile(r"±"), r"\\pm "),
    (re.compile(r"[−–‐‑]"), "-"),
    (re.compile(r"([_^])\{([0-9A-Za-z])\}"), r"\1\2"),
]  # fmt: skip
_ODD = frozenset("~{°º−–‐‑≤≥≠∅∪∈±<>!√∞≈_")
_NOON = re.compile(r"(?<=[0-9])\s*([ap])\.? ?m\b\.?", re.I)
_IDLE_SPACE = re.compile(r"(?<![0-9.])\s+|\s+(?![0-9.])")


@functools.lru_cache(maxsize=65536)
def normal(text):
    """The normal form of an answer's text; spaces collapsed to one, not removed."""
    if _INTEGER.fullmatch(text):
        return text
    if "\\" in text or "$" in text or not _ODD.isdisjoint(text) or "sqrt" in text:
        text = _plain_latex(text)
    text = " ".join(text.split()).lstrip("=: ")
    if ":" in text:
        text = _NOON.sub(lambda match: f" {match.group(1).lower()}m", text)
    return text.rstrip(f".,;{ROW}").strip() if not text.endswith("..") else text


def _plain_latex(text):
    text = _ROW_GAP.sub(lambda _: r"\\", text.strip())
    if "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _MONEY.sub(CURRENCY, text.replace("\\\\", ROW)).replace("\\%", "%").replace("\\#", "#").replace("\\&", "and")
    for mark in ("\\(", "\\)", "\\[", "\\]", "$"):
        text = text.replace(mark, " ")
    for pattern, new in _REPLACED:
        text = pattern.sub(new, text)
    return _unbraced(text.strip())


def _unbraced(text):
    """Without braces around the whole: they group, and are not seen."""
    left, right = len(text) - len(text.lstrip("{")), len(text) - len(text.rstrip("}"))
    depth = lowest = 0
    for char in text[left : len(text) - right] if left and right else "":
        depth += (char == "{") - (char == "}")
        lowest = min(lowest, depth)
    around = left + lowest if left + depth == right else 0
    return text[around : len(text) - around].strip() if around > 0 else text


def compact(text):
    """Without the spaces that change nothing; "3 4" keeps its own."""
    return _IDLE_SPACE.sub("", text)
