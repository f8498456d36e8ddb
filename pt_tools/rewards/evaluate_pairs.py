"""How often a reward model prefers the chosen answer: pairwise accuracy by domain, with 95 % bounds."""

from __future__ import annotations

from pt_tools.rewards.evaluate import Tally, by_domain, cluster_of, group_of, macro


class _Pair:
    def __init__(self, record, domain, chosen, rejected):
        self.cluster, self.domain, self.margin = cluster_of(record), domain, chosen - rejected


class Pairs:
    """Collects scored preference pairs; pairs of one prompt count together in the bounds. Arguments as of Tally."""

    def __init__(self, by="domain", interval="wilson"):
        self.by, self.tally, self.pairs = by, Tally(by=by, interval=interval), []

    def add(self, record, chosen, rejected):
        """Count one pair and the scores of its two answers. ValueError if its domain is no text."""
        self.pairs.append(_Pair(record, group_of(record, self.by), chosen, rejected))

    def report(self):
        """As Tally.report; a tie counts a half, and is counted in "ties". ValueError without a pair."""
        if not self.pairs:
            raise ValueError("no pair could be scored")
        domains = by_domain(self.pairs, lambda _, pairs: self._domain(pairs))
        extra = {"ties": sum(part["ties"] for part in domains.values()),
                 "repeated_prompts": len(self.pairs) - len({pair.cluster for pair in self.pairs})}
        return {"measure": "accuracy", "by": self.by, "domains": domains, "mean": macro(domains.values()), "extra": extra}

    def _domain(self, pairs):
        accuracy = self.tally.estimate((pair.cluster, (pair.margin > 0) + 0.5 * (pair.margin == 0)) for pair in pairs)
        return {**accuracy, "ties": sum(pair.margin == 0 for pair in pairs)}
