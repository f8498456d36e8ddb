"""The `format` verifier: is the completion laid out as the template demands?

    {"name": "format"}        optional: "tags": ["think", "answer"], "start_inside": false, "answer": "tagged" | "free"

DeepSeek-R1-Zero's template (arXiv:2501.12948, table 1): `<think>…</think>` then `<answer>…</answer>`. The score is 1 if
every tag of `tags` opens and closes once, in this order, each around visible text, with nothing but white space before,
between and behind; else 0 with the reason. (R1 adds this to the accuracy reward with equal weight.)

start_inside   the prompt has already opened the first tag, so the completion begins inside it
answer "free"  the answer is what follows the last tag, and must be visible text: with "tags": ["think"] the layout of
               R1 itself and of DeepSeek V3.1 to V4, `<think>…</think> answer`

Tags are matched as they are written, lower and upper case differ. White space, control, zero-width and filler
characters are not visible text. Pay for the format only beside correctness, or it is all that is learned.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from pt_tools.rewards import common

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols by their category, blank on every screen


def check(spec):
    """ValueError(reason) if the tags are no list of different names."""
    common.only(spec, "tags", "start_inside", "answer")
    tags = spec.get("tags", ["think", "answer"])
    if not isinstance(tags, list) or not 1 <= len(tags) <= 16:
        raise ValueError("tags must be a list of 1 to 16 names")
    if not all(isinstance(tag, str) and _NAME.fullmatch(tag) for tag in tags) or len(set(tags)) < len(tags):
        raise ValueError("tags must be different names of ASCII letters, digits, _ and -")
    common.choice(spec, "start_inside", (False, True))
    common.choice(spec, "answer", ("tagged", "free"))


def grade(spec, completion):
    """(1.0, None) or (0.0, {"reason": …})."""
    text = completion["text"]
    if len(text) > common.MAX_TEXT:
        return 0.0, {"reason": f"longer than {common.MAX_TEXT} characters"}
    tags = tuple(spec.get("tags", ("think", "answer")))
    if spec.get("start_inside", False):
        text = f"<{tags[0]}>{text}"
    reason = fault(text, tags, spec.get("answer", "tagged") == "free")
    return (0.0, {"reason": reason}) if reason else (1.0, None)


def well_formed(spec, completion):
    return grade(spec, completion)[0]


def fault(text, tags, free=False):
    """What is wrong with the layout of `text`, None if nothing is."""
    found = list(_pattern(tags).finditer(text))
    marks = [match.group() for match in found]
    wanted = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    if marks != wanted:
        return _misplaced(marks, wanted)
    ends = [0, *(match.end() for match in found)]
    starts = [*(match.start() for match in found), len(text)]
    parts = [text[end:start] for end, start in zip(ends, starts)]  # outside, inside, outside, …
    for tag, inside in zip(tags, parts[1::2]):
        if not visible(inside):
            return f"<{tag}> is empty"
    outside = parts[:-1:2] if free else parts[::2]
    if any(map(str.strip, outside)):
        return "text before the first tag" if outside[0].strip() else "text outside the tags"
    if free and not visible(parts[-1]):
        return "no answer"
    return None


def visible(text):
    """True if `text` has a character that can be seen: a letter, digit, mark of punctuation or symbol."""
    return any(unicodedata.category(char)[0] in "LNPS" and char not in _FILLERS for char in text)


@functools.lru_cache(maxsize=256)
def _pattern(tags):
    return re.compile("</?(?:" + "|".join(map(re.escape, tags)) + ")>")


def _misplaced(marks, wanted):
    """Why the tags found are not the wanted ones."""
    for mark in wanted:
        if mark not in marks:
            return f"no {mark}"
    repeated = next((mark for mark in wanted if marks.count(mark) > 1), None)
    return f"{repeated} is repeated" if repeated else "the tags are nested or in the wrong order"
