"""The `constraints` verifier: instructions of the IFEval family.

    {"name": "constraints", "instruction_id_list": […], "kwargs": [{…}, …],
     optional: "mode": "strict" | "loose", "fail_closed": true | false}

Known are the 25 ids of IFEval (Zhou et al., 2023, arXiv:2311.07911) and two of Tulu 3's own (`instructions.py`), the 29
of IF-RLVR and 56 of IFBench (Pyatkin et al., 2025, arXiv:2507.02833; `instructions_more.py`).

Score 1 if every instruction is followed, else 0; the detail is the list of booleans, one an instruction. `strict` (the
default) looks at the text as it is; `loose` accepts an instruction if it holds for the text without its first line, its
last line, both, or its asterisks: right for evaluation, wrong for training (it pays for a throw-away line).

An unknown id, an argument that is missing (the reference draws it at random) or one that the instruction does not have
makes the row unusable. Verdicts follow the reference checker with these differences: keywords, section marks and
postscript marks are plain text, not patterns; letter_frequency counts any one character (the reference draws a letter
instead of one that is not a to z); sentences and languages are found without nltk and langdetect, always in the same
way; a text without letters is in no language. The reference lets such a text pass; `"fail_closed": false` does so too,
for numbers beside its own: in training that is a free reward. "less than" means strictly fewer; no instructions at all
score 0.
"""

from __future__ import annotations

from pt_tools.rewards.common import MAX_TEXT, only
from pt_tools.rewards.instructions import INSTRUCTIONS


def check(spec):
    """ValueError(reason) if an instruction is unknown, lacks an argument or has one too many."""
    _bound(spec)


def grade(spec, completion):
    """(1.0 or 0.0, one boolean an instruction)."""
    followed = _followed(spec, completion["text"], spec.get("mode", "strict"))
    return float(bool(followed) and all(followed)), followed


def both(spec, text):
    """(strict, loose): what `grade` lists in each mode, whatever the object's own; one boolean an instruction.

    ValueError if the object can never grade anything.
    """
    return _followed(spec, text, "strict"), _followed(spec, text, "loose")


def _followed(spec, text, mode):
    checks, untold = _bound(spec), not spec.get("fail_closed", True)
    if len(text) > MAX_TEXT:
        return [False] * len(checks)
    views = [view for view in ([text] if mode == "strict" else loose_views(text)) if view.strip()]
    return [any(_verdict(follows(view, **kwargs), untold) for view in views) for follows, kwargs in checks]


def _verdict(followed, untold):
    """None, for a language that cannot be told, is `untold`."""
    return untold if followed is None else bool(followed)


def loose_views(text):
    """The texts of the loose mode: whole, without first line, last line, both; each with and without asterisks."""
    lines = text.split("\n")
    cut = [text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return list(dict.fromkeys([*cut, *(view.replace("*", "") for view in cut)]))


def _bound(spec):
    """[(predicate, its arguments)] of the object's instructions."""
    only(spec, "instruction_id_list", "kwargs", "mode", "fail_closed")
    ids, kwargs = spec.get("instruction_id_list"), spec.get("kwargs")
    if not isinstance(ids, list) or not isinstance(kwargs, list) or len(ids) != len(kwargs):
        raise ValueError("instruction_id_list and kwargs must be lists of the same length")
    if spec.get("mode", "strict") not in ("strict", "loose"):
        raise ValueError(f"unknown mode {spec['mode']!r}; known are strict, loose")
    if not isinstance(spec.get("fail_closed", True), bool):
        raise ValueError("fail_closed must be true or false")
    return [_bind(name, {} if given is None else given) for name, given in zip(ids, kwargs)]


def _bind(name, given):
    if not isinstance(given, dict):
        raise ValueError(f"{name}: kwargs must be an object")
    follows, readers = _instruction(name)
    extra = sorted(str(key) for key, value in given.items() if value is not None and key not in readers)
    if extra:
        raise ValueError(f"{name} has no argument {extra[0]!r}")
    arguments = {}
    for key, read in readers.items():
        try:
            arguments[key] = read(given.get(key))
        except ValueError as reason:
            raise ValueError(f"{name}: {key} {reason}") from None
    return follows, arguments


def _instruction(name):
    """(predicate, argument readers) of an id; the second set is imported when one of its ids is first named."""
    if isinstance(name, str) and name in INSTRUCTIONS:
        return INSTRUCTIONS[name]
    from pt_tools.rewards import instructions_more

    if not isinstance(name, str) or name not in instructions_more.INSTRUCTIONS:
        raise ValueError(f"unknown instruction {name!r}")
    return instructions_more.INSTRUCTIONS[name]
