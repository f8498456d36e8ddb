"""How long chosen and rejected answers are, by source: a policy learns length where the better ones are longer."""

from collections import Counter

from pt_tools.errors import printable

MOST_SHOWN = 10


class Lengths:
    """Feed it pairs, or merge another; then read `report` or `lines`. Four numbers a source."""

    def __init__(self):
        self.sources = {}

    def add(self, pair: dict) -> None:
        chosen, rejected = (_characters(pair[key]) for key in ("chosen", "rejected"))
        found = self.sources.setdefault(pair.get("source") or "none", Counter())
        found.update(pairs=1, chosen=chosen, rejected=rejected, longer=chosen > rejected)

    def merge(self, other: "Lengths") -> None:
        for name, found in other.sources.items():
            self.sources.setdefault(name, Counter()).update(found)

    def report(self) -> dict:
        """{pairs, chosen_chars, rejected_chars, chosen_longer (a share)}, and the same by source."""
        total = Counter()
        for found in self.sources.values():
            total.update(found)
        return {**_means(total), "sources": {name: _means(found) for name, found in sorted(self.sources.items())}}

    def lines(self) -> list[str]:
        """The report as text, the largest sources only."""
        report = self.report()
        sources = sorted(report["sources"].items(), key=lambda item: -item[1]["pairs"])
        out = [_line(report, "")]
        if len(sources) > 1:
            out += [_line(found, f"{printable(name)}: ") for name, found in sources[:MOST_SHOWN]]
        return out + ([f"{len(sources) - MOST_SHOWN} more sources"] if len(sources) > MOST_SHOWN else [])


def _characters(answer):
    return len(answer) if isinstance(answer, str) else len(answer[-1]["content"])


def _means(found):
    n = found["pairs"]
    return {"pairs": n, "chosen_chars": found["chosen"] / n, "rejected_chars": found["rejected"] / n,
            "chosen_longer": found["longer"] / n}


def _line(found, head):
    return (f"{head}mean length: chosen {found['chosen_chars']:.1f}, rejected {found['rejected_chars']:.1f} characters; "
            f"chosen is longer in {found['chosen_longer']:.0%} of the pairs")
