"""What the completions of a record are worth, and which of them can be trained on."""

import re
from statistics import fmean

from pt_tools import record

REWARD = "reward"
_LIMIT = re.compile(r"(?P<name>.+?)\s*>=\s*(?P<least>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)")
# What a pair or a conversation is made of, and so takes the place of.
CONSUMED = ("prompt", "messages", "completion", "label", "completions", "prompt_ids", "tokenizer", "template")


def of(rec: dict) -> list[dict]:
    return rec.get("completions") or []


def trainable(completion: dict) -> bool:
    """Whether it ended by itself or at the limit, and its text can be trained on."""
    try:
        record.check_text(completion.get("text"), "text")
    except ValueError:
        return False
    return completion.get("finish") in (None, "stop", "length")


def score(completion: dict, name: str) -> float | None:
    """A completion's score by name, or its `reward`; None where it is absent or its scorer failed."""
    if name == REWARD:
        return completion.get(REWARD)
    return None if name in (completion.get("errors") or {}) else (completion.get("scores") or {}).get(name)


def value(completion: dict, names: tuple = ()) -> float | None:
    """The mean of the named scores, the reward where none is named; None where one is missing.

    ValueError if the mean is beyond all floats.
    """
    found = [score(completion, name) for name in names or (REWARD,)]
    try:
        return None if None in found else fmean(found) if len(found) > 1 else found[0]
    except OverflowError:
        raise ValueError(f"the mean of the scores {' and '.join(names)} is no number") from None


def missing(names: tuple = ()) -> str:
    """What a completion without `value` lacks, in words."""
    return f"the score {' and '.join(names)}" if names else "a reward"


def limit(rule: str) -> tuple[str, float]:
    """"math>=0.5" as ("math", 0.5). ValueError if it is no such rule."""
    found = _LIMIT.fullmatch(rule.strip())
    if not found:
        raise ValueError(f"{rule!r} has not the form NAME>=NUMBER")
    return found["name"], float(found["least"])


def passes(completion: dict, limits, ranked: tuple = ()) -> bool | None:
    """Whether every named score is at least its limit; None where one is missing and none is too low.

    The name None stands for what completions are ranked by, `value` of the scores `ranked`.
    """
    found = [(value(completion, ranked) if name is None else score(completion, name), least) for name, least in limits]
    if any(value is not None and value < least for value, least in found):
        return False
    return None if any(value is None for value, _ in found) else True


def pass_rate(rec: dict, limits, ranked: tuple = ()) -> float | None:
    """The share of a record's completions that pass, of those of which it is known; None if of none.

    Completions that nobody would train on (empty, cut off) count: they were tries.
    """
    known = [verdict for verdict in (passes(c, limits, ranked) for c in of(rec)) if verdict is not None]
    return sum(known) / len(known) if known else None


def ids_are_native(rec: dict, completion: dict) -> bool:
    """Whether a completion's token ids are of the tokenizer that made the record's prompt_ids: it says no other, and
    pt-sample --append adds no ids of another."""
    return completion.get("token_ids") is not None and completion.get("tokenizer", rec.get("tokenizer")) == rec.get("tokenizer")


def without(rec: dict, keys=CONSUMED) -> dict:
    return {key: value for key, value in rec.items() if key not in keys}
