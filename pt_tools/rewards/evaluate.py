"""From scored records to a report: pass@1, pass@k and win rate by domain, with 95 % bounds.

The prompt is the unit: a prompt's samples are averaged first, then prompts, then (unweighted) domains.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from pt_tools import record as rec
from pt_tools import rewards
from pt_tools.rewards import stats


class Tally:
    """Collects records one by one; holds a few numbers a prompt. `ks`: the k of pass@k beside 1."""

    def __init__(self, ks=()):
        self.ks = tuple(ks)
        self.prompts = {}  # domain -> [(samples graded, samples correct)]
        self.rewards = {}  # domain -> [mean reward of a prompt]
        self.seen = {}  # record id -> (domain, rewards of its graded completions)
        self.finish = Counter()
        self.ungraded = 0

    def add(self, record):
        """Count one record. False if none of its completions has a verdict; ValueError if it was never scored."""
        rec.check_scores(record)
        verdicts = [outcome(record, completion) for completion in record["completions"]]
        graded = [verdict for verdict in verdicts if verdict is not None]
        self.ungraded += len(verdicts) - len(graded)
        self.finish.update(str(completion.get("finish")) for completion in record["completions"])
        if not graded:
            return False
        domain = record.get("domain") or "all"
        self.prompts.setdefault(domain, []).append((len(graded), sum(graded)))
        values = known_rewards(record)
        if values:
            self.rewards.setdefault(domain, []).append(fmean(values))
            self.seen[name_of(record)] = (domain, values)
        return True

    def report(self):
        """{"domains": {NAME: …}, "mean": …, "extra": …}, as `pt-eval --json` prints them. ValueError without a prompt."""
        if not self.prompts:
            raise ValueError("no prompt has a graded completion")
        domains = {name: self._domain(name) for name in sorted(self.prompts)}
        extra = {"finish": dict(sorted(self.finish.items())), "ungraded_completions": self.ungraded}
        for name in (f"pass@{k}" for k in self.ks):
            extra[name] = _macro(domain[name] for domain in domains.values())
        return {"domains": domains, "mean": _macro(domains.values()), "extra": extra}

    def _domain(self, name):
        prompts = self.prompts[name]
        pass_1 = stats.proportion(correct / n for n, correct in prompts)
        report = {"n": len(prompts), "samples": sum(n for n, _ in prompts), **pass_1._asdict()}
        for k in self.ks:
            values = [stats.pass_at_k(n, correct, k) for n, correct in prompts if n >= k]
            if not values:
                raise ValueError(f"pass@{k} needs at least {k} samples a prompt; no prompt of {name!r} has them")
            report[f"pass@{k}"] = {"n": len(values), **stats.proportion(values)._asdict()}
        if name in self.rewards:
            report["reward"] = fmean(self.rewards[name])
        return report


def outcome(record, completion):
    """True if the completion is correct, None if its grader failed. ValueError if it was never scored.

    Correct is: full score from every verifier of the record; without those, the rater "correct" at 5; for a record
    without verifier, a reward of at least 1.
    """
    scores, errors = completion.get("scores") or {}, completion.get("errors") or {}
    keys = [key for key, _ in rewards.specs(record)] if record.get("verifier") else []
    if keys and any(key in errors for key in keys):
        return None
    if keys and all(key in scores for key in keys):
        return all(scores[key] >= 1 for key in keys)
    if "correct" in scores or "correct" in errors:
        return scores["correct"] >= 5 if "correct" in scores else None
    if keys or "reward" not in completion:
        raise ValueError("a completion has no scores; pt-score --verify makes them")
    return None if completion["reward"] is None else completion["reward"] >= 1


def known_rewards(record):
    """The rewards of a record's completions that have one."""
    return [each["reward"] for each in record["completions"] if each.get("reward") is not None]


def name_of(record):
    """What tells a record from another: its id, or the hash of its content where it has none."""
    return record["id"] if record.get("id") is not None else rec.content_hash(record)


def win_rates(ours, others):
    """Win rate by domain over records with the same ids. `ours`: Tally.seen; `others`: records.

    {"domains": {NAME: {"n", "mean", "low", "high"}}, "mean": …, "unmatched": ids in only one of the two}.
    ValueError if no id is in both. Records without an id are matched by their content.
    """
    by_domain, matched, unmatched = {}, set(), 0
    for record in others:
        rec.check_scores(record)
        found, theirs = ours.get(name_of(record)), known_rewards(record)
        if not found or not theirs:
            unmatched += 1
            continue
        matched.add(name_of(record))
        by_domain.setdefault(found[0], []).append(stats.win_rate(found[1], theirs))
    if not matched:
        raise ValueError("no prompt with rewards has the same id in both files")
    domains = {name: {"n": len(v), **stats.proportion(v)._asdict()} for name, v in sorted(by_domain.items())}
    return {"domains": domains, "mean": _macro(domains.values()), "unmatched": unmatched + len(ours.keys() - matched)}


def _macro(parts):
    intervals = [stats.Interval(part["mean"], part["low"], part["high"]) for part in parts]
    return stats.macro(intervals)._asdict()
