"""The `constraints` verifier: instructions of the IFEval family (Zhou et al., 2023, arXiv:2311.07911).

    {"name": "constraints", "instruction_id_list": […], "kwargs": [{…}, …], "mode": "strict" | "loose"}

Score 1 if every instruction is followed, else 0; the detail is the list of booleans, one an instruction. `strict` (the
default) looks at the text as it is; `loose` accepts an instruction if it holds for the text without its first line, its
last line, both, or its asterisks: right for evaluation, wrong for training (it pays for a throw-away line).

An unknown id, or an argument that is missing (the reference draws it at random), makes the row unusable. Verdicts
follow the reference with three differences, all against free reward: keywords are plain text, not patterns; a text
without letters is in no language (the reference lets it pass); sentences and languages are found without nltk and
langdetect. "less than" means strictly fewer; an empty list of instructions scores 0.
"""

from __future__ import annotations

from pt_tools.rewards.instructions import INSTRUCTIONS

MAX_TEXT = 1_000_000


def check(spec):
    """ValueError(reason) if an instruction is unknown or lacks an argument."""
    _bound(spec)


def grade(spec, completion):
    """(1.0 or 0.0, one boolean an instruction)."""
    checks, text = _bound(spec), completion["text"]
    if not text.strip() or len(text) > MAX_TEXT:
        return 0.0, [False] * len(checks)
    texts = [text] if spec.get("mode", "strict") == "strict" else [view for view in loose_views(text) if view.strip()]
    followed = [any(follows(view, **kwargs) for view in texts) for follows, kwargs in checks]
    return float(bool(followed) and all(followed)), followed


def loose_views(text):
    """The eight texts of the loose mode: without first line, last line, both; each with and without asterisks."""
    lines = text.split("\n")
    cut = [text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return [*cut, *(view.replace("*", "") for view in cut)]


def _bound(spec):
    """[(predicate, its arguments)] of the object's instructions."""
    ids, kwargs = spec.get("instruction_id_list"), spec.get("kwargs")
    if not isinstance(ids, list) or not isinstance(kwargs, list) or len(ids) != len(kwargs):
        raise ValueError("instruction_id_list and kwargs must be lists of the same length")
    if spec.get("mode", "strict") not in ("strict", "loose"):
        raise ValueError(f"unknown mode {spec['mode']!r}; known are strict, loose")
    return [_bind(name, given or {}) for name, given in zip(ids, kwargs)]


def _bind(name, given):
    if not isinstance(given, dict):
        raise ValueError(f"{name}: kwargs must be an object")
    follows, readers = _instruction(name)
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
    try:
        from pt_tools.rewards import instructions_more
    except ImportError:
        raise ValueError(f"unknown instruction {name!r}") from None
    if not isinstance(name, str) or name not in instructions_more.INSTRUCTIONS:
        raise ValueError(f"unknown instruction {name!r}")
    return instructions_more.INSTRUCTIONS[name]
