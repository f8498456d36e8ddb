r"""The `math` verifier: find the final answer in a completion and compare it with the gold answer.

    {"name": "math", "answer": "72"}
    optional: "policy": "default" | "boxed" | "gsm8k" | "flex";  "symbolic": true | false

Where the answer is looked for (after the end of thinking, `</think>`):

default   the last `\boxed{…}`; else what follows the last `#### `; else the last `<answer>…</answer>`; else the X of the
          last "the answer is X"; else a final line `Result: X` or `A: X`; else all of it, if that is only a number
boxed     the last `\boxed{…}` and nothing else
gsm8k     the last number of the text, as in Tulu 3's GSM8K verifier
flex      Tulu 3's MATH verifier: the last box and Minerva's "Final Answer: The final answer is X. I hope"; if there is
          neither, the text between the last two `$`. Where Tulu 3 is content if one of two matches is right, both must be

An answer given in another way is no answer: score 0, reason "no answer". A box or tag that is never closed is an
unfinished answer. Of several answers the last one counts if text between them says why ("Wait, …"); answers with nothing
but "or", "and", "maybe", punctuation between them are one answer, their list: `\boxed{12} or \boxed{13}` is neither 12
nor 13, "12, but 13 is possible too" is not 12. A box that is denied, "not \boxed{9}", is none.

How answers are compared: exactly, see `answers.py` (EQUAL ANSWERS); the base of a gold answer such as 2516_8 may be left
out, as the question says it. Where that does not decide (functions, roots of sums), computer algebra does (math-verify),
if the extra `[math]` is installed; `"symbolic": false` never asks it, `true` refuses to grade without it. The detail
names it (`"by": "symbolic"`) where it decided, and a reason where no decision could be had: then the score is 0. That
holds too for a gold answer that only computer algebra could read; one that nothing can match (empty, a box never closed,
too long) is an error. Text answers work: with `"answer": "afd"`, "The answer is afd." scores 1.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from pt_tools.rewards import answers, symbolic

POLICIES = ("default", "boxed", "gsm8k", "flex")
KEYS = {"name", "key", "answer", "policy", "symbolic"}
MAX_TEXT = 1_000_000  # characters; a longer completion is hostile, not an answer

# A few words may stand between ("the answer to the question is"); bounded, so that matching stays linear.
_ANSWER_IS = re.compile(
    r"(?<![^\W_])answer(?![^\W_])[*_]{0,3}(?: [a-z' ]{0,60}?)?[*_ ]{0,4}(?:\b(?:is|are|equals|(?:would|must|will|should) be)\b|[:：=])[*_ :：=]*"
    r"|^[#*_ ]{1,8}(?:the )?(?:final )?answer[*_ ]{0,4}\n", re.I | re.M)  # fmt: skip
_RESULT = re.compile(r"[*_# ]*(?:(?:the )?(?:final )?result[*_ ]*(?::|=|\bis\b)|(?-i:A)[*_ ]*:)[*_ :=]*", re.I)
_MINERVA = re.compile(r"final answer:? the final answer is(.{1,2000}?)\. i hope", re.I | re.S)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{|[-+]?[0-9A-Za-z.]+)")
_BRACE = re.compile(r"\\.|[{}]", re.S)  # an escaped brace is a character of the answer
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=\s|$|\*|\$)|,?\s+\(?(?:because|since|which)\b")
_NUMBER = re.compile(r"(?:(?<![0-9A-Za-z)\]}])[-+])?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)", re.A)
# What may stand between answers that are offered together, and what opens a second thought behind one.
# Of two alternatives none may match the same text: the time would double with every word.
_OFFERED = re.compile(
    r"(?:[\s$,;:.?!()\[\]*_&/-]|\\[()\[\],;:! ]|\\(?:text|mathrm|quad|qquad)(?![A-Za-z])|[{}]|</?answer>|#?\d[.):]"
    r"|(?:and|or|also|maybe|perhaps|possibly|alternatively|else|either|otherwise|is|are|could|can|may|might|be|possible|too"
    r"|but|as|well|it|the|a|my|i|think|say|final|correct|valid|right|plausible|alternative|another|other|next|first|second"
    r"|third|last|guess|possibility|x|y|z|n|[b-e](?=[.):])|if|when|even|odd|(?:answer|option|candidate|choice|case|solution|attempt|version|value)s?)(?![a-z]))*",
    re.I)  # fmt: skip
_SECOND_THOUGHT = re.compile(
    r"[\s$,)\].*]*(?:\\[)\]])?[\s,]*\(?(?:(?:and/)?or|alternatively|(?:but|though) (?:it )?(?:maybe|perhaps|possibly|could be|might be))"
    r"\s+(?:maybe |perhaps |possibly |else |it is |it could be |even )?[\\($]*(-?[0-9](?:[^\n;.$)]|\.(?=[0-9])){0,40})"
    r"|[\s$,)\].*]*(?:but|though)\s+[\\($]*(-?[0-9]\S{0,30}) (?:is|may|might|could)", re.I)  # fmt: skip
_NEGATED = re.compile(r"(?:\b(?:not|never|nor)|n't|\\neq?|≠)(?:\s+(?:be|equal(?: to)?|just|simply))?[\s$\\(\[*]*\Z", re.I)
_SAME_AGAIN = re.compile(r"([^()]{1,100}?),?\s+\(?or\s([^()]{1,100}?)\)?")
_BASE = re.compile(r"\$?([0-9A-F]+)_(?:[0-9]|\{[0-9]{1,2}\})\$?")
_DECIMALS = re.compile(r"\.[0-9]{1,20}")
_NEAR = 60  # characters between offered answers


class Found(NamedTuple):
    """An answer as it stands in the text, and where its statement ends (an offset into the text)."""

    answer: str
    end: int


def check(spec):
    """ValueError(reason) if the gold answer is missing or unusable, or a setting is unknown."""
    if spec.get("policy", "default") not in POLICIES:
        raise ValueError(f"unknown policy {spec['policy']!r}; known are {', '.join(POLICIES)}")
    if not spec.keys() <= KEYS:
        raise ValueError(f"unknown key {min(spec.keys() - KEYS)!r} in a math verifier")
    if spec.get("symbolic") not in (None, True, False):
        raise ValueError("symbolic must be true or false")
    if spec.get("symbolic") and not symbolic.available():
        raise ValueError("symbolic answers need the extra [math]: pip install 'pt-tools[math]'")
    gold(spec.get("answer"))


def grade(spec, completion):
    """(1.0 or 0.0, {"answer": …} or {"answer": …, "reason": …}, with "by": "symbolic" where computer algebra decided)."""
    right = gold(spec["answer"])
    candidates = find(completion["text"], spec.get("policy", "default"))
    if isinstance(candidates, str):
        return 0.0, {"reason": candidates}
    detail = {"answer": candidates[-1].answer[:200]}
    for found in candidates:
        same, more = _compare(found.answer, right, spec.get("symbolic") is not False)
        if not same:
            return 0.0, {**detail, **more}
        detail.update(more)
    return 1.0, detail


def _compare(answer, right, may_ask):
    """(equal, what the detail says about it)."""
    base = _BASE.fullmatch(right)
    if base and answer.strip("$ ") == base.group(1):
        return True, {}
    same = answers.compare(answer, right)
    if same is not None:
        return same, {} if same else {"reason": "wrong answer"}
    if not may_ask:
        return False, {"reason": "undecided without computer algebra"}
    same, reason = symbolic.decide(answer, right)
    decided = same or reason == symbolic.WRONG
    return same, {**({"reason": reason} if reason else {}), **({"by": "symbolic"} if decided else {})}


def versions():
    """{package: version} of what verdicts depend on beside this package."""
    return symbolic.versions()


def well_formed(spec, completion):
    """How well the answer is given: 1 if it ends the completion, 0.5 if more text follows, 0 if there is none."""
    text = completion["text"]
    candidates = find(text, spec.get("policy", "default"))
    if isinstance(candidates, str):
        return 0.0
    return 0.5 if text[candidates[-1].end :].strip(" \n\t.!$*)]}\\\"'") else 1.0


def gold(answer):
    """The gold answer as text; from a whole GSM8K solution what follows `####`, from a MATH solution its last box."""
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError("the gold answer is missing" if answer is None else "the gold answer must be text or a number")
    if isinstance(answer, float) and 2**63 <= abs(answer) < float("inf"):  # the JSON reader has rounded it
        raise ValueError("the gold answer is a number beyond 64 bits; write it as text")
    return _gold_text(repr(answer) if isinstance(answer, float) else str(answer))


@functools.lru_cache(maxsize=65536)
def _gold_text(text):
    if "####" in text:
        text = text.rpartition("####")[2]
    elif _last_box_start(text) >= 0:
        box = _boxed(text)
        if box is None:
            raise ValueError("the gold answer has a box that is never closed")
        text = box.answer
    text = text.strip()
    if not text or text in ("nan", "inf", "-inf"):
        raise ValueError("the gold answer is empty" if not text else f"the gold answer is {text}")
    answers.check_gold(text)
    return text


def find(text, policy="default"):
    """The candidate answers of a completion, a non-empty list of Found; or the reason, a string, why there is none."""
    if not text.strip():
        return "empty"
    if len(text) > MAX_TEXT:
        return f"longer than {MAX_TEXT} characters"
    start, end = _after_thinking(text)
    candidates = _FINDERS[policy](text[start:end])
    if isinstance(candidates, str):
        return candidates
    candidates = [Found(found.answer, found.end + start) for found in candidates if found and found.answer.strip()]
    if any(len(found.answer) > answers.MAX_LENGTH for found in candidates):
        return f"answer longer than {answers.MAX_LENGTH} characters"
    return candidates or "no answer"


def _after_thinking(text):
    """Bounds of what follows the last closed thinking part, up to one that is never closed."""
    start = text.rfind("</think>")
    start = 0 if start < 0 else start + len("</think>")
    end = text.find("<think>", start)
    return start, len(text) if end < 0 else end


def _default(text):
    if _last_box_start(text) >= 0:
        return _boxed_only(text)
    found = _after_hashes(text) or _tagged(text) or _answer_is(text) or _result_line(text)
    return [found or _lone(text)]


def _lone(text):
    """All of a text that is nothing but a number."""
    bare = text.strip().strip("*_` ")
    return Found(bare, len(text)) if answers.number(bare) is not None else None


def _boxed_only(text):
    if _last_box_start(text) < 0:
        return "no answer"
    closed = _box_at(text, _last_box_start(text))
    return [_boxed(text)] if closed else "unfinished box"


def _last_number(text):
    last = None
    for last in _NUMBER.finditer(text):
        pass
    return [last and Found(last.group().rstrip(","), last.end())]


def _flex(text):
    boxed, minerva = _boxed(text), None
    for minerva in _MINERVA.finditer(text):
        pass
    found = [boxed, minerva and Found(minerva.group(1), minerva.end())]
    if not any(found):
        parts = text.rsplit("$", 2)
        found = [Found(parts[1], len(text) - len(parts[2]))] if len(parts) == 3 else []
    return found


_FINDERS = {"default": _default, "boxed": _boxed_only, "gsm8k": _last_number, "flex": _flex}


def _last_box_start(text, end=None):
    return max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))


def _boxed(text):
    r"""The content of the last \boxed{…} (or \boxed 5) that is not denied, with those it is offered with; None without a
    closed box."""
    last, *earlier = [*_boxes(text)] or [None]
    if not last:
        return None
    offered, (found, start) = [last[0].answer], last
    for box, place in earlier:
        if not 0 <= start - box.end <= _NEAR or not _OFFERED.fullmatch(text, box.end, start):
            break
        offered.append(box.answer)
        start = place
    return Found(_together(offered[::-1], text, found.end), found.end)


def _boxes(text):
    """(Found, where it opens) of the last boxes that are not denied ("11, not 9"), from the last one; none of them if the
    last is never closed."""
    start = len(text)
    for _ in range(10):
        start = _last_box_start(text, start)
        box = _box_at(text, start)
        if not box:
            return
        if not _NEGATED.search(text, max(0, start - 30), start):
            yield box, start


def _together(offered, text, end):
    """One answer of those offered together, and of a second thought behind them."""
    different = [one for n, one in enumerate(offered) if not any(_alike(one, other) for other in offered[:n])]
    thought = _SECOND_THOUGHT.match(text, end, end + 2 * _NEAR)
    if thought and not _alike(different[0], thought := thought.group(1) or thought.group(2)):
        different.append(thought)
    return " or ".join(different) if len(different) > 1 else different[0]


def _alike(a, b):
    """True if b says the same as a, or rounds it."""
    if max(len(a), len(b)) > answers.MAX_LENGTH:
        return False
    value, rounded = answers.number(a), answers.number(b)
    decimals = _DECIMALS.search(b)
    if value is None or rounded is None or not decimals:
        return answers.equal(a, b)
    return value == rounded or abs(value - rounded) * 10 ** (len(decimals.group()) - 1) < 1


def _box_at(text, start):
    opening = _BOX.match(text, start) if start >= 0 else None
    if not opening:
        return None
    if opening.group(1) != "{":
        return Found(opening.group(1).rstrip("."), opening.end())
    depth = 0
    for mark in _BRACE.finditer(text, opening.start(1)):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if depth == 0:
            return Found(text[opening.end() : mark.start()], mark.end())
    return None


def _after_hashes(text):
    """What follows the last `####`, with those it is offered with."""
    start = text.rfind("####")
    found = _hashes_at(text, start, len(text))
    if not found:
        return None
    earlier = text.rfind("####", 0, len(text[:start].rstrip("#")))
    return _offered_with(_hashes_at(text, earlier, start), found, text, start)


def _hashes_at(text, start, end):
    """The rest of the line: on the last line anything; above it a number (else it is a Markdown heading)."""
    if start < 0:
        return None
    line, newline, rest = text[start:end].lstrip("#").lstrip(" ").partition("\n")
    stop = end - len(newline) - len(rest)
    line = _MARKS.sub("", line).strip().removesuffix("</answer>").strip("*_ ")
    if _ANSWER_IS.match(line.removeprefix("The ").removeprefix("final ")):
        return None
    if (text[stop:].strip() or end < len(text)) and answers.number(line.rstrip(".")) is None:
        return None
    return line and Found(line, stop)


def _offered_with(earlier, last, text, start):
    """`last`, an answer whose statement begins at `start`, or the list of both if nothing stands between them."""
    near = earlier and earlier.answer and 0 <= start - earlier.end <= _NEAR and _OFFERED.fullmatch(text, earlier.end, start)
    return Found(_together([earlier.answer, last.answer] if near else [last.answer], text, last.end), last.end)


def _tagged(text):
    found, start = _tag_before(text, len(text))
    return found and _offered_with(_tag_before(text, start)[0], found, text, start)


def _tag_before(text, end):
    """(what the last tag before `end` says, where it opens)."""
    closing = text.rfind("</answer>", 0, end)
    opening = text.rfind("<answer>", 0, max(closing, 0))
    if opening < 0:
        return None, 0
    inside = text[opening + len("<answer>") : closing].strip()
    said = _answer_is(inside)
    return Found(said.answer if said else inside, closing + len("</answer>")), opening


_OR_THE = re.compile(r"\bor\b[a-z, ]{0,20}$", re.I)


def _answer_is(text):
    """The last "the answer is X"; with "… or the answer is Y", the whole offer."""
    previous = last = None
    for match in _ANSWER_IS.finditer(text):
        previous, last = last, match
    if previous and _OR_THE.search(text, max(0, last.start() - 30), last.start()) and last.start() - previous.end() < 200:
        return Found(text[previous.end() : last.end()] + _statement(text, last.end()).answer, last.end())
    if not last:
        return None
    return _offered_with(previous and _statement(text, previous.end()), _statement(text, last.end()), text, last.start())


def _result_line(text):
    body = text.rstrip()
    start = body.rfind("\n") + 1
    marker = _RESULT.match(body, start)
    return marker and _statement(text, marker.end())


# GSM8K's calculator, and the marks of bold text inside a line.
_MARKS = re.compile(r"<<[^<>\n]{0,200}>>|(?<![^\s(])\*\*(?=\S)|(?<=\S)\*\*(?=[\s.,;:!?)]|$)")
_LEAD = re.compile(
    r"(?:\s|\\\[|\\\(|\$\$?(?=\s)|(?:therefore|thus|hence|then|indeed|still|clearly|simply|just|exactly)(?![a-z])[,:]?)*",
    re.I,
)


def _statement(text, start):
    """The rest of the sentence at `start`; if the line ends there, of the next line with text."""
    start = _LEAD.match(text, start).end()
    line = text[start : text.find("\n", start) % (len(text) + 1)]
    ends = _SENTENCE_END.finditer(line)
    # the full stop of \text{sq. units} ends no sentence
    stop = next((end for end in ends if line.count("{", 0, end.start()) <= line.count("}", 0, end.start())), None)
    line = line[: stop.start()] if stop else line
    end = start + (stop.end() if stop else len(line))
    line = _MARKS.sub("", line).strip().strip("*_`\"' ")
    again = _SAME_AGAIN.fullmatch(line)  # \frac{1}{2} (or 0.5)
    return Found(again.group(1) if again and _alike(again.group(1), again.group(2)) else line, end)
