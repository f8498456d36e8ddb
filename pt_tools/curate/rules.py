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

    def find(self, rec: dict, of: str | None = None) -> str | None:
        """Why the record is hit, None if it is not."""
        found = self.test(rec, of or self.of)
        if self.negated:
            return f"no {self.name.removeprefix('not-').partition(':')[0]}" if found == "" else None
        return found[:MAX_REASON] if found else None


def parse(spec: str, lengths=None) -> Rule:
    """The rule that the text `spec` names; `lengths` counts tokens for the rule that needs it. ValueError says what is wrong."""
    name, _, rest = spec.removeprefix("not-").partition(":")
    if name not in RULES:
        raise ValueError(f"unknown rule {name!r:.40}; known: {', '.join(RULES)}")
    kind = RULES[name]
    given = _given(rest, spec)
    of = given.pop("of", kind.of)
    if of not in PARTS:
        raise ValueError(f"{spec}: of is one of {', '.join(PARTS)}")
    try:
        test = kind.make(**_typed(kind.make, given, spec), **({"lengths": lengths} if "lengths" in _keys(kind.make) else {}))
    except ValueError as reason:
        raise ValueError(f"{spec}: {reason}") from None
    return Rule(spec, test if kind.whole else functools.partial(_on_texts, test), of, spec.startswith("not-"))


def _given(text, spec):
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if not all(key and equals and value for key, equals, value in pairs) or len({key for key, _, _ in pairs}) < len(pairs):
        raise ValueError(f"{spec}: not of the form NAME:KEY=VALUE,KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _keys(make):
    return inspect.signature(make).parameters


def _typed(make, given, spec):
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
    """A kind of rule: the function that makes its test, what it looks at, whether it takes whole records, what it finds."""

    make: Callable
    of: str
    finds: str
    whole: bool = False


RULES = {
    "refusal": Kind(faults.refusal, "response", "an answer that begins with a refusal"),
    "self-reference": Kind(faults.self_reference, "response", "\"as an AI language model\", a knowledge cut-off, a vendor as its maker"),
    "truncated": Kind(faults.truncated, "response", "an end in the middle: of a sentence, of a code fence, of the sampler's tokens", True),
    "fence": Kind(faults.fence, "response", "code fences that do not close, or open inside another"),
    "think": Kind(faults.think, "response", "think tags that do not pair (tag=think)"),
    "repetition": Kind(faults.repetition, "response", "more than max=0.2 of the n=10-grams, or lines=0.3 of long lines, said before"),
    "mixed-scripts": Kind(faults.mixed_scripts, "response", "more than max=0.1 of the words in another script than most"),
    "language": Kind(faults.language, "all", "another language than keep=en|de, or one of drop=zh"),
    "length": Kind(faults.length, "all", "fewer than min=, more than max= of unit=tokens (needs --tokenizer), words or chars", True),
    "keywords": Kind(faults.keywords, "all", "a phrase of file=FILE (one a line) or of words=a|b, whole words, in any case"),
    "pii": Kind(faults.pii, "all", "personal data: kinds=email|phone|ip|key|card"),
}
