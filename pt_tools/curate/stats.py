"""What is in a file of records: rows, kinds, turns, lengths, by source and domain."""

from array import array
from collections import Counter

from pt_tools import record
from pt_tools.curate.words import words
from pt_tools.errors import printable
from pt_tools.record import as_turns

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}
MEASURES = ("turns", "prompt_chars", "response_chars", "response_words")


class Stats:
    """Feed it records, then read `report`. Keeps four numbers a response, not the records."""

    def __init__(self):
        self._all, self._sources, self._domains = _Group(), {}, {}

    def add(self, rec: dict) -> None:
        found = measure(rec)
        for group in (self._all, self._sources.setdefault(rec.get("source") or "none", _Group()),
                      self._domains.setdefault(rec.get("domain") or "none", _Group())):
            group.add(found)

    def report(self) -> dict:
        """{rows, kinds, completions, scored, reward_mean, turns: {mean, min, p10 … max}, …, sources: {…}, domains: {…}}"""
        return {**self._all.report(), "sources": {name: g.report() for name, g in sorted(self._sources.items())},
                "domains": {name: g.report() for name, g in sorted(self._domains.items())}}


def measure(rec: dict) -> dict:
    """Kind and lengths of one record, in messages, characters and words; one response length a completion."""
    found = record.kind(rec)
    prompt, responses = as_turns(record.prompt_of(rec), "user") if found != "text" else [], _responses(rec, found)
    texts = ["".join(turn["content"] for turn in response) for response in responses]
    return {"kind": found, "turns": [len(prompt) + (len(responses[0]) if responses else 0)],
            "prompt_chars": [sum(len(turn["content"]) for turn in prompt)],
            "response_chars": [len(text) for text in texts], "response_words": [len(words(text)) for text in texts],
            "rewards": [c["reward"] for c in rec.get("completions") or () if c.get("reward") is not None],
            "completions": len(rec.get("completions") or ())}


def _responses(rec, found):
    if rec.get("completions"):
        return [as_turns(c["text"], "assistant") for c in rec["completions"]]
    if found == "messages":
        return [rec["messages"][-1:]]
    keys = {"preference": ("chosen", "rejected"), "prompt-completion": ("completion",), "unpaired": ("completion",),
            "text": ("text",)}.get(found, ())
    answers = [as_turns(rec[key], "assistant") for key in keys]
    if found == "preference" and "prompt" not in rec and not isinstance(rec["chosen"], str):
        n = len(record.prompt_of(rec))
        return [answer[n:] for answer in answers]
    return answers


class _Group:
    def __init__(self):
        self.rows = self.completions = 0
        self.kinds = Counter()
        self.values = {name: array("q") for name in MEASURES}
        self.rewards = array("d")

    def add(self, found):
        self.rows += 1
        self.kinds[found["kind"]] += 1
        self.completions += found["completions"]
        self.rewards.extend(found["rewards"])
        for name in MEASURES:
            self.values[name].extend(found[name])

    def report(self):
        scored = len(self.rewards)
        return {"rows": self.rows, "kinds": dict(sorted(self.kinds.items())), "completions": self.completions,
                "scored": scored, "reward_mean": sum(self.rewards) / scored if scored else None,
                **{name: spread(values) for name, values in self.values.items()}}


def spread(values) -> dict | None:
    """Mean, extremes and quantiles (by nearest rank: always a value that occurs); None of nothing."""
    if not values:
        return None
    ordered, n = sorted(values), len(values)
    ranks = {name: ordered[max(0, -int(-share * n // 1) - 1)] for name, share in QUANTILES.items()}
    return {"mean": round(sum(ordered) / n, 4), "min": ordered[0], **ranks, "max": ordered[-1]}


def table(rows: list[dict]) -> str:
    """Rows of equal keys as aligned columns, numbers to the right."""
    if not rows:
        return ""
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    left = [isinstance(value, str) for value in rows[0].values()]
    return "\n".join("  ".join(cell.ljust(w) if is_left else cell.rjust(w)
                               for cell, w, is_left in zip(line, widths, left)).rstrip() for line in cells)


def _cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else printable(str(value))


def overview(report: dict) -> list[dict]:
    """Rows for `table`: all, then every source and domain."""
    groups = [("all", report), *((f"source {k}", v) for k, v in report["sources"].items()),
              *((f"domain {k}", v) for k, v in report["domains"].items())]
    return [{"group": name, "rows": group["rows"], "kinds": ",".join(group["kinds"]), "completions": group["completions"],
             "reward": group["reward_mean"], **_lengths(group)} for name, group in groups]


def _lengths(group):
    out = {}
    for name, title in (("turns", "turns"), ("prompt_chars", "prompt"), ("response_chars", "response")):
        found = group[name] or {}
        out |= {f"{title} {q}": found.get(q) for q in (("mean", "max") if name == "turns" else ("p50", "p90", "max"))}
    return out
