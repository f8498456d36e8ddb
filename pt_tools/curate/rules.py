"""Named rules that find what is wrong with a record, as the command line gives them: [not-]NAME[:KEY=VALUE,…].

A rule looks at the response, the prompt or both (`of`), and says what it found. Of a record with sampled completions each
completion is judged by itself, as an answer to the prompt.
"""

import functools
import inspect
from typing import Callable, NamedTuple

from pt_tools.curate import faults
from pt_tools.curate.texts import PARTS, texts

MAX_REASON = 80  # characters of what a rule says it found


class Rule(NamedTuple):
    """`test(record, of)` gives what was found, "" for nothing, or None where there was nothing to look at."""

    name: str
    test: Callable
    of: str
    negated: bool = False
    counts_tokens: bool = False

    def find(self, rec: dict, of: str | None = None) -> str | None:
        """Why the record is hit, None if it is not."""
        found = self.test(rec, of or self.of)
        if self.negated:
            return f"no {self.name.removeprefix('not-').partition(':')[0]}" if found == "" else None
        return found[:MAX_REASON] if found else None


def parse(spec: str, lengths=None) -> Rule:
    """The rule that `spec` names; `lengths` counts tokens for the rule that needs it. ValueError says what is wrong."""
    name, _, rest = spec.removeprefix("not-").partition(":")
    if name not in RULES:
        raise ValueError(f"unknown rule {name!r:.40}; known: {', '.join(RULES)}")
    kind = RULES[name]
    given = _given(rest, spec)
    of = given.pop("of", kind.of)
    if of not in PARTS:
        raise ValueError(f"{spec}: of is one of {', '.join(PARTS)}")
    try:
        values = _typed(kind.make, given)
        in_tokens = "lengths" in _keys(kind.make) and values.get("unit", "tokens") == "tokens"
        test = kind.make(**values, **({"lengths": lengths} if in_tokens else {}))
    except ValueError as reason:
        raise ValueError(f"{spec}: {reason}") from None
    test = test if kind.whole else functools.partial(_on_texts, test)
    return Rule(spec, test, of, spec.startswith("not-"), in_tokens)


def _given(text, spec):
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if not all(key and equals and value for key, equals, value in pairs) or len({key for key, _, _ in pairs}) < len(pairs):
        raise ValueError(f"{spec}: not of the form NAME:KEY=VALUE,KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _keys(make):
    return inspect.signature(make).parameters


def _typed(make, given):
    """The values of a rule's keys, by the types that its function says."""
    known = {key: param for key, param in _keys(make).items() if key != "lengths"}
    values = {}
    for key, text in given.items():
        if key not in known:
            raise ValueError(f"unknown key {key!r:.40}; known: {', '.join([*known, 'of'])}")
        try:
            values[key] = known[key].annotation(text)
        except ValueError:
            raise ValueError(f"{key} is a number, not {text!r:.40}") from None
    missing = [key for key, param in known.items() if param.default is param.empty and key not in values]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return values


def _on_texts(test, rec, of):
    found = texts(rec, of)
    return next((reason for reason in map(test, found) if reason), "") if found else None


# --- records ------------------------------------------------------------------------------------------------------


def hits(rec: dict, rules: list[Rule]) -> tuple[dict, list[dict]]:
    """{rule: what it found} of the record, and of each of its completions."""
    whole = {rule.name: found for rule in rules if (found := rule.find(rec)) is not None}
    return whole, [_of_completion(rec, completion, rules) for completion in rec.get("completions") or ()]


def _of_completion(rec, completion, rules):
    view = {**rec, "completion": completion["text"], "finish": completion.get("finish")}
    view.pop("label", None)
    found = {}
    for rule in rules:
        if rule.of != "prompt" and (reason := rule.find(view, "response" if rule.of == "all" else rule.of)) is not None:
            found[rule.name] = reason
    return found


class Kind(NamedTuple):
    """A kind of rule: the function that makes its test, what it looks at, whether its test takes whole records."""

    make: Callable
    of: str
    whole: bool = False


RULES = {
    "refusal": Kind(faults.refusal, "response"),
    "self-reference": Kind(faults.self_reference, "response"),
    "truncated": Kind(faults.truncated, "response", True),
    "fence": Kind(faults.fence, "response"),
    "think": Kind(faults.think, "response"),
    "repetition": Kind(faults.repetition, "response"),
    "mixed-scripts": Kind(faults.mixed_scripts, "response"),
    "language": Kind(faults.language, "all"),
    "length": Kind(faults.length, "all", True),
    "keywords": Kind(faults.keywords, "all"),
    "pii": Kind(faults.pii, "all"),
}
