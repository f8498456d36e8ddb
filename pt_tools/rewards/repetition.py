"""The `repetition` verifier: a penalty on repeated n-grams, never above 0.

    {"name": "repetition", "n": 20}       optional: "limit": 0.0, "penalty": 1.0, "unit": "words" | "tokens"

share = 1 - distinct n-grams / n-grams; score = penalty min(limit - share, 0) / (1 - limit)

The share of repeated n-grams is the penalty of Yeo et al. (arXiv:2502.03373, appendix C) summed over a completion, and
open-r1's, which has no free `limit`. "words" are lower-cased runs of letters and digits, cut every 20 characters so
that one endless word repeats too; Han and kana characters and marks of punctuation are a word each. "tokens" counts
the recorded `token_ids`. A completion of fewer than n units repeats nothing: use it beside a verifier of the answer.
"""

from __future__ import annotations

import re

from pt_tools.rewards import common

MAX_N = 1000

_HAN_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNIT = re.compile(rf"[{_HAN_KANA}]|[^\W{_HAN_KANA}]{{1,20}}|[^\w\s]")


def check(spec):
    """ValueError(reason) if n is missing, or a number is out of its range."""
    common.only(spec, "n", "limit", "penalty", "unit")
    common.whole(spec, "n", 1, MAX_N)
    common.real(spec, "penalty", 0, 1e6, 1.0)
    if common.real(spec, "limit", 0, 1, 0.0) == 1:
        raise ValueError("limit must be below 1: no share is above it")
    common.choice(spec, "unit", ("words", "tokens"))


def grade(spec, completion):
    """(penalty <= 0, {"repeated": share of n-grams that occurred before})."""
    if spec.get("unit", "words") == "tokens":
        units = common.token_ids(completion)
    elif len(completion["text"]) > common.MAX_TEXT:
        return -float(spec.get("penalty", 1.0)), {"reason": f"longer than {common.MAX_TEXT} characters"}
    else:
        units = words(completion["text"])
    share, limit = repeated(units, spec["n"]), spec.get("limit", 0.0)
    return spec.get("penalty", 1.0) * min(limit - share, 0.0) / (1 - limit), {"repeated": round(share, 6)}


def words(text):
    """The units of a text."""
    return _UNIT.findall(text.lower())


def repeated(units, n):
    """1 - distinct / all of the n-grams of a list; 0 if it is shorter than n."""
    count = len(units) - n + 1
    return 1 - distinct(units, n) / count if count > 0 else 0.0


def distinct(units, n):
    """The number of different n-grams of a list at least n long, in O(len log n) time and O(len) memory.

    Every piece of 1, 2, 4, … units gets a number of its own; two pieces that overlap make an n-gram.
    """
    names, size = _numbered(units), 1
    while 2 * size <= n:
        names = _numbered(zip(names, names[size:]))
        size *= 2
    return len(set(zip(names, names[n - size :])))


def _numbered(items):
    seen = {}
    return [seen.setdefault(item, len(seen)) for item in items]


def well_formed(spec, completion):
    return 1.0 + max(-1.0, grade(spec, completion)[0])
