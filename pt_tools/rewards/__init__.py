"""Verifiers: programs that grade a completion against its record.

A record says how it is graded in `verifier`: one object with a `name`, or a list of them (with `key` where a
name occurs twice); rows of IFEval, Tulu's RLVR data, GSM8K and other public sets say it in their own columns. Who runs
the command may add verifiers to every record (`configure`), users' functions included; a record can never name code. A
verifier is a module, or a `Grader`, with two functions:

    check(spec) -> None                              ValueError(reason) if this object can never grade anything
    grade(spec, completion) -> (score, detail)       score a finite number; detail is what JSON can hold

`completion` has `text`, a string, and may have what else pt-sample writes (`token_ids`, `finish`). The completion's own
failure (empty, unparsable, hostile, too slow) is a score of 0 with a reason in `detail`. An exception out of `grade` is
the grader's failure: tried once more, then recorded as an error, never as a reward. `NoSandbox` ends the run.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Callable, NamedTuple

from pt_tools.errors import NoSandbox

# Where each verifier is: a module of this package, or module:object. Imported when first named.
VERIFIERS = {
    "math": "math", "constraints": "constraints", "code": "code", "format": "tags", "language": "consistency",
    "length": "lengths", "repetition": "repetition", "regex": "patterns:REGEX", "exact": "patterns:EXACT",
    "json-schema": "patterns:SCHEMA", "game24": "puzzles:GAME24", "countdown": "puzzles:COUNTDOWN",
    "reasoning-gym": "gym",
}  # fmt: skip
PENALTIES = {"length", "repetition"}  # their scores never exceed 0: they lower a reward and say nothing of correctness
USER = "user"  # the name of a user's function among the added verifiers; no record may use it
IMPORTING = {"import", "module", "callable", "class", "function", "file", "path"}


class Grader(NamedTuple):
    """A verifier that is one of several in its module."""

    check: Callable
    grade: Callable
    well_formed: Callable | None = None


@dataclass(frozen=True)
class Settings:
    """What the command line says about grading, the same for all records of this process.

    `added`: verifier objects that every record gets beside its own. `unsafe_local`: model-written code may run without
    a sandbox.
    """

    added: tuple = ()
    unsafe_local: bool = False


settings = Settings()


def configure(**changes):
    """Change the process-wide settings (see Settings). ValueError if an added verifier can never grade anything, or two
    share a key."""
    global settings
    fresh = replace(settings, **changes)
    for _, spec in keyed(list(fresh.added)):
        module_of(spec, trusted=True).check(spec)
    settings = fresh


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
    """The record's own verifier objects as a list of (key, object). ValueError if there are none or they are malformed."""
    found = record.get("verifier") or from_columns(record)
    found = found if isinstance(found, list) else [found] if found else []
    if not found:
        raise ValueError("the record has no verifier")
    return keyed(found)


def read_columns(record):
    """Give a row of public data that has no verifier the one that its columns say. ValueError if they are malformed."""
    if found := record.get("verifier") or from_columns(record):
        record["verifier"] = found


def from_columns(record):
    """The verifier object, or the list of them, that the columns of a row of public data say; None if they say none.

    Which forms there are, and what they mean, says pt_tools.curate.formats. ValueError if the columns are malformed.
    """
    from pt_tools.curate import formats

    try:
        *_, convert = formats.FORMATS[formats.detect(record)]
    except ValueError:  # no form that is known
        return None
    try:
        return convert(dict(record)).get("verifier")
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None


def keyed(found):
    """[(key, object)] of verifier objects. ValueError if one has no name or two share a key."""
    pairs = []
    for spec in found:
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise ValueError("a verifier must be an object with a name")
        pairs.append((str(spec.get("key") or spec["name"]), spec))
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"two verifiers share the key {max(keys, key=keys.count)!r}; give each a `key`")
    return pairs


def graders(record, own=True, added=True):
    """[(key, object, module)] of the verifiers that grade `record`: its `own`, then the `added` ones.

    A record without verifier is left to the added ones. ValueError if there are none at all, or one is unknown, or
    shares a key with another.
    """
    extra = settings.added if added else ()
    mine = [spec for _, spec in specs(record)] if own and (record.get("verifier") or not extra) else []
    pairs = keyed([*mine, *extra])
    return [(key, spec, module_of(spec, trusted=n >= len(mine))) for n, (key, spec) in enumerate(pairs)]


def check(record):
    """Raise ValueError(reason) if the record cannot be graded. A row of public data gets its verifier."""
    read_columns(record)
    for _, spec, module in graders(record):
        module.check(spec)


def verify(record, completion, own=True, added=True):
    """Grade one completion of `record` -> Verdict. Never raises for what the data or a completion contains.

    `completion` is an object with `text` and `finish`, or a text; finish "error" means that there is none to grade.
    """
    verdict = Verdict()
    completion = {"text": completion} if isinstance(completion, str) else completion
    try:
        found = graders(record, own, added)
    except ValueError as reason:
        verdict.errors["verifier"] = str(reason)
        return verdict
    for key, spec, module in found:
        _grade_into(verdict, key, spec, module, completion)
    if not verdict.errors:
        verdict.reward = float(sum(verdict.scores.values()))
    return verdict


def score(record, own=True):
    """Grade every completion of `record` in place: scores, details, errors and reward.

    Scores of other scorers stay; those of these verifiers are replaced.
    """
    for completion in record.get("completions") or []:
        verdict = verify(record, completion, own)
        put(completion, verdict)
        completion["reward"] = verdict.reward


def put(completion, verdict):
    """Merge a verdict into a completion's scores, details and errors (not its reward)."""
    fresh = {"scores": verdict.scores, "details": verdict.details, "errors": verdict.errors}
    keys = {key for part in fresh.values() for key in part}
    for name, part in fresh.items():
        kept = {key: value for key, value in (completion.get(name) or {}).items() if key not in keys}
        completion[name] = {**kept, **part}


def module_of(spec, trusted=False):
    """The verifier that a verifier object names. ValueError if there is none, or if a record asks for code to import."""
    name = spec["name"]
    if name == USER and trusted:
        return importlib.import_module("pt_tools.rewards.user")
    if name in VERIFIERS:
        named = sorted(IMPORTING & spec.keys())
        if named:
            raise ValueError(f"a record cannot name code to import ({named[0]!r} in its verifier)")
        module, _, part = VERIFIERS[name].partition(":")
        module = importlib.import_module(f"pt_tools.rewards.{module}")
        return getattr(module, part) if part else module
    if name == USER or any(mark in name for mark in ".:/"):
        raise ValueError(f"a record cannot name code to import ({name!r})")
    raise ValueError(f"unknown verifier {name!r}; known are {', '.join(sorted(VERIFIERS))}")


def well_formed(spec, completion):
    """How well a completion is formed, 0 to 1; where a verifier has nothing to say about it, 1 if there is any text."""
    judge = getattr(module_of(spec), "well_formed", None)
    return judge(spec, completion) if judge else float(bool(completion["text"].strip()))


def _grade_into(verdict, key, spec, module, completion):
    try:
        module.check(spec)
        if completion.get("finish") == "error":
            raise ValueError("there is no completion to grade (finish = error)")
        if not isinstance(completion.get("text"), str):
            raise ValueError("no text")
    except ValueError as reason:
        verdict.errors[key] = str(reason)
        return
    grade, failure = _attempt_twice(module.grade, spec, completion)
    if failure is not None:
        verdict.errors[key] = failure
        return
    verdict.scores[key], detail = grade
    if detail is not None:
        verdict.details[key] = detail


def _attempt_twice(grade, spec, completion):
    """(result, None), or (None, message) when `grade` raised, or gave no finite number, both times."""
    for _ in range(2):
        try:
            found, detail = grade(spec, completion)
            if not isfinite(found):
                raise ValueError(f"the score is {found}")
            return (float(found), detail), None
        except NoSandbox:
            raise
        except Exception as error:  # whatever a grader raises is its own failure; Ctrl-C is no Exception
            failure = f"{type(error).__name__}: {error}"
    return None, failure
