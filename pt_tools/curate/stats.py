"""What is in a file of records: rows, kinds, turns, lengths, languages and marks, by source and domain."""

import math
from collections import Counter

from pt_tools import record
from pt_tools.curate.words import words
from pt_tools.errors import printable
from pt_tools.record import as_turns

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}
MEASURES = ("turns", "prompt_chars", "response_chars", "response_words", "prompt_tokens", "response_tokens")
MAX_BINS, BAR = 24, 50  # of a histogram: most bins, characters of the longest bar


class Stats:
    """Feed it records, or add up those of parts of a stream; then read `report`.

    Keeps how often each length occurs, not the records: memory grows with the number of different lengths.
    """

    def __init__(self):
        self._groups = {("all", ""): _Group()}

    def add(self, rec: dict, tokens: dict | None = None, language: str | None = None) -> None:
        """Count a record; `tokens` is {"prompt": n, "all": n}."""
        found = measure(rec)
        if tokens:
            found["prompt_tokens"], found["response_tokens"] = [tokens["prompt"]], [tokens["all"] - tokens["prompt"]]
        found["language"] = [language] if language else []
        for key in (("all", ""), ("source", rec.get("source") or "none"), ("domain", rec.get("domain") or "none")):
            self._groups.setdefault(key, _Group()).add(found)

    def merge(self, other: "Stats") -> None:
        for key, group in other._groups.items():
            self._groups.setdefault(key, _Group()).merge(group)

    def report(self) -> dict:
        """{rows, kinds, completions, scored, reward_mean, turns: {mean, min, p10 … max}, …, sources: {…}, domains: {…}}"""
        named = {of: {name: group.report() for (kind, name), group in sorted(self._groups.items()) if kind == of}
                 for of in ("source", "domain")}
        return {**self._groups["all", ""].report(), "sources": named["source"], "domains": named["domain"]}

    def counts(self, name: str) -> Counter:
        """How often each value of a measure occurs, over all records."""
        return self._groups["all", ""].values[name]


def measure(rec: dict) -> dict:
    """Kind and lengths of one record, in messages, characters and words; one response length a completion."""
    found = record.kind(rec)
    prompt, responses = as_turns(record.prompt_of(rec), "user") if found != "text" else [], _responses(rec, found)
    texts = ["".join(turn["content"] for turn in response) for response in responses]
    completions = rec.get("completions") or ()
    return {"kind": [found], "turns": [len(prompt) + (len(responses[0]) if responses else 0)],
            "prompt_chars": [sum(len(turn["content"]) for turn in prompt)],
            "response_chars": [len(text) for text in texts], "response_words": [len(words(text)) for text in texts],
            "rewards": [c["reward"] for c in completions if c.get("reward") is not None],
            "mark": _marks(rec, completions), "completions": len(completions)}


def _marks(rec, completions):
    """Names of the rules that `filter --mark` found, and of contamination, once a record or completion."""
    marks = [name for part in (rec, *completions) if isinstance(part.get("rules"), dict) for name in part["rules"]]
    return marks + (["contamination"] if rec.get("contamination") else [])


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
    NAMED = {"kind": "kinds", "language": "languages", "mark": "marks"}

    def __init__(self):
        self.rows = self.completions = self.scored = 0
        self.reward = 0.0
        self.values = {name: Counter() for name in (*MEASURES, *self.NAMED)}

    def add(self, found):
        self.rows += 1
        self.completions += found["completions"]
        self.scored += len(found["rewards"])
        self.reward += sum(found["rewards"])
        for name, counts in self.values.items():
            for value in found.get(name, ()):
                counts[value] += 1

    def merge(self, other):
        for name in ("rows", "completions", "scored", "reward"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, counts in self.values.items():
            counts.update(other.values[name])

    def report(self):
        named = {title: dict(sorted(self.values[name].items())) for name, title in self.NAMED.items()}
        return {"rows": self.rows, "kinds": named.pop("kinds"), "completions": self.completions, "scored": self.scored,
                "reward_mean": self.reward / self.scored if self.scored else None,
                **{name: spread(self.values[name]) for name in MEASURES}, **named}


def spread(counts: Counter) -> dict | None:
    """Sum, mean, extremes and quantiles (by nearest rank: always a value that occurs); None of nothing."""
    n = counts.total()
    if not n:
        return None
    ordered, total = sorted(counts), sum(value * times for value, times in counts.items())
    ranks = {name: max(1, math.ceil(share * n - 1e-9)) for name, share in QUANTILES.items()}
    found, seen = {}, 0
    for value in ordered:
        seen += counts[value]
        found |= {name: value for name, rank in ranks.items() if name not in found and seen >= rank}
    found = {name: found[name] for name in ranks}
    return {"sum": total, "mean": round(total / n, 4), "min": ordered[0], **found, "max": ordered[-1]}


# --- for people ---------------------------------------------------------------------------------------------------


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
    tokens = report["prompt_tokens"] is not None
    named = [title for title in ("languages", "marks") if report[title]]
    return [{"group": name, "rows": group["rows"], "kinds": ",".join(group["kinds"]), "completions": group["completions"],
             "reward": group["reward_mean"], **_lengths(group, tokens),
             **{title: _counted(group[title]) for title in named}} for name, group in groups]


def _lengths(group, tokens):
    out = {}
    for name, title in (("turns", "turns"), ("prompt_chars", "prompt"), ("response_chars", "response")):
        found = group[name] or {}
        out |= {f"{title} {q}": found.get(q) for q in (("mean", "max") if name == "turns" else ("p50", "p90", "max"))}
    if tokens:
        found = [group[name] or {} for name in ("prompt_tokens", "response_tokens")]
        out |= {"tokens": sum(part.get("sum", 0) for part in found),
                **{f"response tokens {q}": found[1].get(q) for q in ("p50", "p90", "max")}}
    return out


def _counted(counts):
    return " ".join(f"{name} {n}" for name, n in Counter(counts).most_common()) or "-"


def histogram(counts: Counter) -> list[str]:
    """A bar a bin: one bin a value where there are few, else bins that end at 1, 2, 5, 10, 20, …"""
    if not counts:
        return ["nothing to show"]
    edges = _edges(min(counts), max(counts))
    bins = [0] * (len(edges) - 1)
    place = 0
    for value in sorted(counts):
        while value >= edges[place + 1]:
            place += 1
        bins[place] += counts[value]
    names = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in zip(edges, edges[1:])]
    width, most = max(map(len, names)), max(bins)
    return [f"{name:>{width}}  {'█' * -(-n * BAR // most):{BAR}}  {n}" for name, n in zip(names, bins)]


def _edges(low, high):
    if high - low < MAX_BINS:
        return list(range(low, high + 2))
    series = [0] + [step * 10**power for power in range(19) for step in (1, 2, 5)]
    first = max(i for i, edge in enumerate(series) if edge <= low)
    last = next(i for i, edge in enumerate(series) if edge > high)
    return series[first:last + 1]
