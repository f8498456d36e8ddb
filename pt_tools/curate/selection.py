"""Which records stay, what is marked in them, and what is put into them: the engine of `filter` and `tag`."""

import json
from collections import Counter
from typing import Callable, NamedTuple

from pt_tools import record
from pt_tools.curate import pii, rules
from pt_tools.curate.functions import equal

FIXED = ("id", "prompt", "messages", "text", "completion", "chosen", "rejected", "completions", "tokens", "rules")
SHOWN = 60  # characters of an expression in a reason


class Condition(NamedTuple):
    """An expression: its text, and the function of a record."""

    text: str
    value: Callable


class Selection(NamedTuple):
    """What `filter` is to do. `drop` and `keep` are sets of ids, `keep` None where all may stay."""

    where: list[Condition]
    rules: list[rules.Rule]
    drop: frozenset = frozenset()
    keep: frozenset | None = None
    mark: bool = False
    scrub: tuple = ()


def select(plan: Selection, rec: dict, counts: Counter, listed: bool = False) -> tuple[dict | None, str | None]:
    """(the record as it goes on, or None; why it does not). Counts what is found, by rule.

    The same object comes back where nothing changes. `listed`: it is to be dropped whatever its id, which others share.
    ValueError where an expression makes no sense for the record.
    """
    found, of_completions = rules.hits(rec, plan.rules)
    found = {**({"drop": "it is listed"} if listed else {}), **dict(_unwanted(plan, rec)), **found}
    counts.update(("hit", name) for part in (found, *of_completions) for name in part)
    if plan.mark:
        rec = _marked(plan, rec, found, of_completions)
    elif found:
        name = next(iter(found))
        return None, f"{name}: {found[name][:SHOWN]}" if name == "where" else name
    elif any(of_completions):
        kept = [completion for completion, hit in zip(rec["completions"], of_completions) if not hit]
        counts["completions", "dropped"] += len(of_completions) - len(kept)
        if not kept:
            return None, f"{next(iter(of_completions[0]))} in every completion"
        rec = {**rec, "completions": kept}
    if plan.scrub:
        rec, scrubbed = pii.scrub(rec, plan.scrub)
        counts.update({("scrubbed", kind): n for kind, n in scrubbed.items()})
    return rec, None


def _unwanted(plan, rec):
    """(name, what was found) for what lists of ids and expressions say against a record."""
    if plan.drop or plan.keep is not None:
        name = rec.get("id") or record.content_hash(rec)
        if name in plan.drop:
            yield "drop", "it is listed"
        if plan.keep is not None and name not in plan.keep:
            yield "keep", "its id is not listed"
    for condition in plan.where:
        if not condition.value(rec):
            yield "where", condition.text[:rules.MAX_REASON]


def _marked(plan, rec, found, of_completions):
    """The record with what was found under `rules`; marks of rules that are not of this run stay."""
    asked = {rule.name for rule in plan.rules} | {"drop", "keep", "where"}
    made = _with_marks(rec, found, asked)
    completions = rec.get("completions") or []
    marked = [_with_marks(completion, hit, asked) for completion, hit in zip(completions, of_completions)]
    return {**made, "completions": marked} if any(a is not b for a, b in zip(completions, marked)) else made


def _with_marks(part, found, asked):
    before = part.get("rules") or {}
    if not isinstance(before, dict):
        raise ValueError("rules is there already, and no object; --mark would overwrite it")
    after = {name: said for name, said in before.items() if name not in asked} | found
    if after == before:
        return part
    rest = {key: value for key, value in part.items() if key != "rules"}
    return {**rest, "rules": after} if after else rest


# --- labels -------------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """What `tag` is to do: values and expressions by key, for records that fulfil all conditions and that all rules hit."""

    values: dict
    let: dict[str, Condition]
    where: list[Condition]
    rules: list[rules.Rule]
    replace: bool = False
    lengths: object = None


def label(plan: Labels, rec: dict) -> dict | None:
    """The record with its labels, the same object if it has them already; None if they are not for it.

    ValueError for a label that the record has with another value, or that makes it no record.
    """
    if not (all(condition.value(rec) for condition in plan.where) and all(rule.find(rec) is not None for rule in plan.rules)):
        return None
    made = {key: _value(key, condition, rec) for key, condition in plan.let.items()}
    labels = {**plan.values, **{key: value for key, value in made.items() if value is not None}}
    new = {key: value for key, value in labels.items() if key not in rec or not equal(rec[key], value)}
    for key in new:
        if rec.get(key) is not None and not plan.replace:
            raise ValueError(f"{key} is {json.dumps(rec[key], ensure_ascii=False)[:40]} already; --replace changes it")
    if plan.lengths is not None:
        stamp = plan.lengths.stamp({**rec, **new})
        new |= {"tokens": stamp} if rec.get("tokens") != stamp else {}
    if not new:
        return rec
    made = {**rec, **new}
    record.check(made)
    return made


def _value(key, condition, rec):
    value = condition.value(rec)
    try:
        fits = value is None or isinstance(value, (str, list, dict)) or (abs(value) < 2**63)
    except (TypeError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(f"{key} would be a number beyond 64 bits")
    return value
