"""Majority vote: completions of a prompt grouped by their final answer (maj@k, cons@k; Wang et al. 2023)."""

from __future__ import annotations

from pt_tools import rewards
from pt_tools.rewards import answers


def votes(record, graded):
    """(groups, silent) for stats.maj_at_k, of [(completion, whether it is correct)]; which is right is not looked at."""
    groups, silent = grouped(record, [completion for completion, _ in graded])
    return tuple(sorted((len(members), sum(graded[i][1] for i in members)) for _, members in groups)), silent


def grouped(record, completions, otherwise=None):
    """([(answer, numbers of the completions that give it)], how many give none).

    A vote is the answer that the record's verifier extracted: `answer` in the detail of the first verifier that gives
    one. Two answers are one if `answers.equal` says so. A completion in which no answer was found casts no vote. Where no
    verifier extracts answers, the vote is `otherwise(completion)`, or without it the whole text, white space apart.
    """
    key = _extracting(record, completions)
    read = (lambda completion: _answer(completion, key)) if key else otherwise or _text
    groups, silent = [], 0
    known = {}  # text of an answer -> its group
    for number, completion in enumerate(completions):
        answer = read(completion)
        if answer is None:
            silent += 1
            continue
        group = known.get(answer) or next((g for g in groups if read is not _text and answers.equal(answer, g[0])), None)
        if group is None:
            group = (answer, [])
            groups.append(group)
        known[answer] = group
        group[1].append(number)
    return groups, silent


def _extracting(record, completions):
    keys = [key for key, _ in rewards.specs(record)] if record.get("verifier") else []
    return next((key for key in keys if any(_answer(completion, key) is not None for completion in completions)), None)


def _answer(completion, key):
    detail = (completion.get("details") or {}).get(key)
    answer = detail.get("answer") if isinstance(detail, dict) else None
    return answer if isinstance(answer, str) else None


def _text(completion):
    text = completion.get("text")
    return " ".join(text.split()) or None if isinstance(text, str) else None
