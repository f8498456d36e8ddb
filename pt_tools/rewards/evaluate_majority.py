"""Majority vote: completions of a prompt grouped by their final answer (maj@k, cons@k; Wang et al. 2023)."""

from __future__ import annotations

from pt_tools import rewards
from pt_tools.rewards import answers


def votes(record, graded):
    """(groups, silent) for stats.maj_at_k, of [(completion, whether it is correct)].

    A vote is the answer that the record's verifier extracted: `answer` in the detail of the first verifier that gives
    one. Two answers are one if `answers.equal` says so; which is right is not looked at. A completion in which no answer
    was found casts no vote. Where no verifier extracts answers, the whole text is the vote, white space apart.
    """
    key = _extracting(record, graded)
    groups = []  # [answer, size, correct]
    known = {}  # text of an answer -> its group
    silent = 0
    for completion, correct in graded:
        answer = _text(completion) if key is None else _answer(completion, key)
        if answer is None:
            silent += 1
            continue
        group = known.get(answer) or next((g for g in groups if key is not None and answers.equal(answer, g[0])), None)
        if group is None:
            group = [answer, 0, 0]
            groups.append(group)
        known[answer] = group
        group[1] += 1
        group[2] += correct
    return tuple(sorted((size, right) for _, size, right in groups)), silent


def _extracting(record, graded):
    keys = [key for key, _ in rewards.specs(record)] if record.get("verifier") else []
    return next((key for key in keys if any(_answer(completion, key) is not None for completion, _ in graded)), None)


def _answer(completion, key):
    detail = (completion.get("details") or {}).get(key)
    answer = detail.get("answer") if isinstance(detail, dict) else None
    return answer if isinstance(answer, str) else None


def _text(completion):
    text = completion.get("text")
    return " ".join(text.split()) or None if isinstance(text, str) else None
