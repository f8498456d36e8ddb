"""Verifiers: programs that grade a completion against its record.

A record says how it is graded in `verifier`: one object with a `name`, or a list of them (with `key` where a
name occurs twice). A verifier module has two functions:

    check(spec) -> None                        ValueError(reason) if this object can never grade anything
    grade(spec, text) -> (score, detail)       score in [0, 1]; detail is what JSON can hold

The completion's own failure (empty, unparsable, hostile) is a score of 0 with a reason in `detail`. An exception out
of `grade` is the grader's failure: tried once more, then recorded as an error, never as a reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pt_tools.rewards import constraints, math

VERIFIERS = {"math": math, "constraints": constraints}
PLANNED = {"code", "game24"}  # names of the record's schema that this version does not grade
IMPORTING = {"import", "module", "callable", "class", "function", "file", "path"}


@dataclass
class Verdict:
    """What the verifiers of one record say about one completion. Keys are verifier keys.

    `reward` is the sum of the scores, or None when any verifier failed: such a sample must be masked out.
    """

    scores: dict = field(default_factory=dict)
    details: dict = field(default_factory=dict)
    errors: dict = field(default_factory=dict)
    reward: float | None = None


def specs(record):
    """The record's verifier objects as a list of (key, object). ValueError if there are none or they are malformed."""
    found = record.get("verifier")
    found = found if isinstance(found, list) else [found] if found else []
    if not found:
        raise ValueError("the record has no verifier")
    keyed = []
    for spec in found:
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise ValueError("a verifier must be an object with a name")
        keyed.append((str(spec.get("key") or spec["name"]), spec))
    keys = [key for key, _ in keyed]
    if len(set(keys)) < len(keys):
        raise ValueError(f"two verifiers share the key {max(keys, key=keys.count)!r}; give each a `key`")
    return keyed


def check(record):
    """Raise ValueError(reason) if the record cannot be graded."""
    for _, spec in specs(record):
        module_of(spec).check(spec)


def verify(record, text, finish=None):
    """Grade one completion of `record` -> Verdict. Never raises for what the data or a completion contains.

    `finish` is the completion's finish reason; "error" means that there is no completion to grade.
    """
    verdict = Verdict()
    try:
        keyed = specs(record)
    except ValueError as reason:
        verdict.errors["verifier"] = str(reason)
        return verdict
    for key, spec in keyed:
        _grade_into(verdict, key, spec, text, finish)
    if not verdict.errors:
        verdict.reward = float(sum(verdict.scores.values()))
    return verdict


def score(record):
    """Grade every completion of `record` in place: scores, details, errors and reward.

    Scores of other scorers stay; those of this record's verifiers are replaced.
    """
    for completion in record.get("completions") or []:
        verdict = verify(record, completion.get("text"), completion.get("finish"))
        put(completion, verdict)
        completion["reward"] = verdict.reward


def put(completion, verdict):
    """Merge a verdict into a completion's scores, details and errors (not its reward)."""
    fresh = {"scores": verdict.scores, "details": verdict.details, "errors": verdict.errors}
    keys = {key for part in fresh.values() for key in part}
    for name, part in fresh.items():
        kept = {key: value for key, value in (completion.get(name) or {}).items() if key not in keys}
        completion[name] = {**kept, **part}


def module_of(spec):
    """The verifier module a verifier object names. ValueError if there is none, or if it asks for code to import."""
    name = spec["name"]
    if name in VERIFIERS:
        named = sorted(IMPORTING & spec.keys())
        if named:
            raise ValueError(f"a record cannot name code to import ({named[0]!r} in its verifier)")
        return VERIFIERS[name]
    if any(mark in name for mark in ".:/"):
        raise ValueError(f"a record cannot name code to import ({name!r})")
    if name in PLANNED:
        raise ValueError(f"the verifier {name!r} is not available in this version")
    raise ValueError(f"unknown verifier {name!r}; known are {', '.join(sorted(VERIFIERS))}")


def _grade_into(verdict, key, spec, text, finish):
    try:
        module = module_of(spec)
        module.check(spec)
        if not isinstance(text, str) or finish == "error":
            raise ValueError("there is no completion to grade (finish = error)" if finish == "error" else "no text")
    except ValueError as reason:
        verdict.errors[key] = str(reason)
        return
    grade, failure = _attempt_twice(module.grade, spec, text)
    if failure is not None:
        verdict.errors[key] = failure
        return
    verdict.scores[key], detail = grade
    if detail is not None:
        verdict.details[key] = detail


def _attempt_twice(grade, spec, text):
    """(result, None), or (None, message) when `grade` raised both times."""
    for _ in range(2):
        try:
            return grade(spec, text), None
        except Exception as error:  # whatever a grader raises is its own failure; Ctrl-C is no Exception
            failure = f"{type(error).__name__}: {error}"
    return None, failure
