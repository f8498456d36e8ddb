"""From scored records to a report: pass@1, pass@k, maj@k, mean@n and instruction accuracy by domain, with 95 % bounds.

The prompt is the unit: a prompt's samples are averaged first, then prompts, then (unweighted) domains. A prompt that
several records repeat counts once for each record in the mean, but once in the bounds.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import NamedTuple

from pt_tools import record as rec
from pt_tools import rewards
from pt_tools.rewards import evaluate_instructions, evaluate_majority, stats


class Prompt(NamedTuple):
    """What is kept of one record: a few numbers."""

    name: str  # its id, or a hash of its content
    cluster: str  # the same for the same prompt
    domain: str
    graded: int  # completions with a verdict
    correct: int  # of these
    rewards: list  # of the completions that have one
    votes: tuple | None  # evaluate_majority.votes
    followed: tuple | None  # evaluate_instructions.followed


class Tally:
    """Collects records one by one; holds a few numbers a prompt.

    `ks` and `majority`: the k of pass@k and of maj@k; `by`: the field of the record that names its domain; `interval`:
    a name in stats.INTERVALS.
    """

    def __init__(self, ks=(), majority=(), by="domain", interval="wilson"):
        self.ks, self.majority, self.by, self.interval = tuple(ks), tuple(majority), by, interval
        self.prompts = []
        self.finish = Counter()
        self.ungraded = 0

    def add(self, record):
        """Count one record. False if none of its completions has a verdict; ValueError if it was never scored."""
        rec.check_scores(record)
        domain = group_of(record, self.by)
        verdicts = [(completion, outcome(record, completion)) for completion in record["completions"]]
        graded = [(completion, verdict) for completion, verdict in verdicts if verdict is not None]
        self.ungraded += len(verdicts) - len(graded)
        self.finish.update(str(completion.get("finish")) for completion in record["completions"])
        if not graded:
            return False
        votes = evaluate_majority.votes(record, graded) if self.majority else None
        followed = evaluate_instructions.followed(record, [completion for completion, _ in graded])
        self.prompts.append(Prompt(name_of(record), cluster_of(record), domain, len(graded), sum(v for _, v in graded),
                                   known_rewards(record), votes, followed))
        return True

    def report(self):
        """{"domains": {NAME: …}, "mean": …, "extra": …}, as `pt-eval --json` prints them. ValueError without a prompt."""
        if not self.prompts:
            raise ValueError("no prompt has a graded completion")
        domains = by_domain(self.prompts, self._domain)
        extra = {"finish": dict(sorted(self.finish.items())), "ungraded_completions": self.ungraded}
        extra["repeated_prompts"] = len(self.prompts) - len({prompt.cluster for prompt in self.prompts})
        for name in dict.fromkeys(name for part in domains.values() for name in part if "@" in name):
            extra[name] = macro(part[name] for part in domains.values() if name in part)
        instructed = [part["instructions"] for part in domains.values() if "instructions" in part]
        if instructed:
            extra["instructions"] = {name: macro(part[name] for part in instructed) for name in instructed[0]}
        return {"measure": "pass@1", "by": self.by, "domains": domains, "mean": macro(domains.values()), "extra": extra}

    def _domain(self, name, prompts):
        pass_1 = self.estimate((p.cluster, p.correct / p.graded) for p in prompts)
        report = {**pass_1, "samples": sum(p.graded for p in prompts)}
        for k in self.ks:
            values = [(p.cluster, stats.pass_at_k(p.graded, p.correct, k)) for p in prompts if p.graded >= k]
            report[f"pass@{k}"] = self.estimate(enough(values, f"pass@{k}", k, name))
        for k in self.majority:
            values = [(p.cluster, stats.maj_at_k(*p.votes, k)) for p in prompts if p.graded >= k]
            report[f"maj@{k}"] = self.estimate(enough(values, f"maj@{k}", k, name))
        rewarded = [(p.cluster, fmean(p.rewards)) for p in prompts if p.rewards]
        if rewarded:
            report["mean@n"] = self.estimate(rewarded, bounded=False)
            report["reward"] = report["mean@n"]["mean"]
        if any(p.followed for p in prompts):
            report["instructions"] = evaluate_instructions.report(prompts, self.estimate)
        return report

    def estimate(self, values, bounded=True):
        """{"n", "mean", "low", "high"} of (cluster, value) or (cluster, total, weight), one a prompt.

        `bounded`: the values are in [0, 1]; for others Student's t takes the place of Wilson's interval.
        """
        clusters, totals, *weights = zip(*values)
        parts = stats.parts_of(totals, clusters, *weights)
        interval = stats.INTERVALS[self.interval] if bounded or self.interval == "bootstrap" else stats.student
        return {"n": len(totals), **interval(parts)._asdict()}


def outcome(record, completion):
    """True if the completion is correct, None if its grader failed. ValueError if it was never scored.

    Correct is: full score from every verifier of the record and every one added on the command line, penalties apart;
    without those, the rater "correct" at 5; for a record without verifier, a reward of at least 1.
    """
    scores, errors = completion.get("scores") or {}, completion.get("errors") or {}
    keys = keys_of(record)
    if keys and any(key in errors for key in keys):
        return None
    if keys and all(key in scores for key in keys):
        return all(scores[key] >= 1 for key in keys)
    if "correct" in scores or "correct" in errors:
        return scores["correct"] >= 5 if "correct" in scores else None
    if keys or "reward" not in completion:
        raise ValueError("a completion has no scores; pt-score --verify makes them")
    return None if completion["reward"] is None else completion["reward"] >= 1


def keys_of(record):
    """The keys of the verifiers that a completion must satisfy, in order; a penalty has nothing to satisfy."""
    own = [spec for _, spec in rewards.specs(record)] if record.get("verifier") else []
    return [key for key, spec in rewards.keyed([*own, *rewards.settings.added]) if spec["name"] not in rewards.PENALTIES]


def known_rewards(record):
    """The rewards of a record's completions that have one."""
    return [each["reward"] for each in record["completions"] if each.get("reward") is not None]


def name_of(record):
    """What tells a record from another: its id, or the hash of its content where it has none."""
    return record["id"] if record.get("id") is not None else rec.content_hash(record)


def cluster_of(record):
    """The same for records that ask the same, whatever their ids: a hash of the prompt; without one, the name."""
    prompt = record.get("prompt") or record.get("messages")
    return rec.content_hash({"prompt": prompt}) if prompt else name_of(record)


def group_of(record, by):
    """The value of the field `by` of a record, "all" where it has none. ValueError if it is no text."""
    if not isinstance(record.get(by), (str, type(None))):
        raise ValueError(f"{by} is not a string")
    return record.get(by) or "all"


def enough(values, measure, k, domain):
    if not values:
        raise ValueError(f"{measure} needs at least {k} samples a prompt; no prompt of {domain!r} has them")
    return values


def by_domain(prompts, report):
    """{domain: report(domain, its prompts)}, sorted by name."""
    domains = {}
    for prompt in prompts:
        domains.setdefault(prompt.domain, []).append(prompt)
    return {name: report(name, domains[name]) for name in sorted(domains)}


def macro(parts):
    """{"mean", "low", "high"} of the unweighted mean of estimates."""
    return stats.macro(stats.Interval(part["mean"], part["low"], part["high"]) for part in parts)._asdict()
