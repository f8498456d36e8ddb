"""How figures came about: sampling, models, template, verifiers and data, as the records themselves tell it."""

from __future__ import annotations

import hashlib

import pt_tools
from pt_tools import record as rec
from pt_tools import rewards

SETTINGS = ("temperature", "top_p", "top_k", "max_new_tokens")  # what two runs must share; seeds may differ
SHARED = ("tokenizer", "template", "verifiers", "tiers", "graded_by")


class Protocol:
    """Collects records one by one; holds a hash of each, and the distinct values of the rest."""

    def __init__(self):
        self.values = {name: {} for name in ("models", "sampling", "tokenizer", "template", "tiers")}
        self.samples, self.verifiers, self.prompts = set(), set(), []

    def add(self, record):
        """Take note of a record that the tally has counted."""
        completions = record.get("completions") or ()
        self.samples.add(len(completions))
        self.verifiers.update(spec["name"] for spec in _specs(record))
        self.prompts.append(rec.content_hash(record))
        for name in ("tokenizer", "template"):
            self._note(name, record.get(name))
        for completion in completions:
            self._note("models", completion.get("model"))
            self._note("sampling", completion.get("sampling"))
            for detail in (completion.get("details") or {}).values():
                self._note("tiers", detail.get("tier") if isinstance(detail, dict) else None)

    def _note(self, name, value):
        import orjson

        if value is not None:
            self.values[name][orjson.dumps(value, option=orjson.OPT_SORT_KEYS)] = value

    def report(self, **more):
        """JSON: lists of the distinct values, empty where nothing is known; `tiers` are the sandboxes that code ran in,
        `prompts.sha256` is the same for the same prompts in any order."""
        found = {name: [value for _, value in sorted(values.items())] for name, values in self.values.items()}
        digest = hashlib.sha256("\n".join(sorted(self.prompts)).encode()).hexdigest()
        return {"pt_tools": pt_tools.__version__, **found,
                "samples": {"least": min(self.samples, default=0), "most": max(self.samples, default=0)},
                "verifiers": versions(sorted(self.verifiers)), "prompts": {"n": len(self.prompts), "sha256": digest}, **more}


def _specs(record):
    own = [spec for _, spec in rewards.specs(record)] if record.get("verifier") else []
    return [*own, *rewards.settings.added]


def versions(names):
    """{verifier: {package: version}} of the verifiers installed here: pt-tools, and what a verifier itself names."""
    found = {}
    for name in names:
        try:
            more = getattr(rewards.module_of({"name": name}, trusted=True), "versions", dict)()
        except ValueError:
            more = {}  # a name that is unknown here
        found[name] = {"pt-tools": pt_tools.__version__, **more}
    return found


def differing(ours, theirs):
    """What differs between the protocols of two runs that should share it, as words: ["temperature: 1.0 | 0.0", …].

    Where one of the two does not know a value, nothing is said of it.
    """
    found = []
    for name in SETTINGS:
        mine, other = (sorted({each[name] for each in one["sampling"] if isinstance(each, dict) and name in each}, key=str)
                       for one in (ours, theirs))
        found += _unequal(name, mine, other)
    if ours["samples"] != theirs["samples"]:
        found += _unequal("samples a prompt", *(list(one["samples"].values()) for one in (ours, theirs)))
    for name in SHARED:
        found += _unequal(name, ours.get(name), theirs.get(name))
    return found


def _unequal(name, mine, other):
    if not mine or not other or mine == other:
        return []
    return [f"{name}: {_words(mine)} | {_words(other)}"]


def _words(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(each)}" for key, each in sorted(value.items()))
    if isinstance(value, list):
        return ", ".join(map(str, dict.fromkeys(str(each)[:16] for each in value)))
    return str(value)
