"""Two runs on the same prompts: how often the one's rewards win, and the difference of their pass@1.

Prompts are matched by id (by content without one). Both comparisons are paired: what is hard for both runs cancels.
"""

from __future__ import annotations


from pt_tools.rewards import stats
from pt_tools.rewards.evaluate import by_domain, macro

SHOWN = 20  # ids named of those in only one run


def compare(ours, theirs):
    """Our Tally against theirs; ValueError if no id is in both. Domains and interval are ours.

    {"domains", "mean", "unmatched": prompts in only one of the two} are the win rates of the rewards; "difference" has
    "domains" and "mean" of pass@1, ours less theirs, each with the p-value of a two-sided sign-flip test over prompts;
    "unmatched_ids" names some of the unmatched.
    """
    mine, other = _by_name(ours.prompts), _by_name(theirs.prompts)
    pairs = [(mine[name], other[name]) for name in mine if name in other]
    if not pairs:
        raise ValueError("no prompt has the same id in both files")
    only = {"here": [name for name in mine if name not in other], "there": [name for name in other if name not in mine]}
    return {**_win_rates(ours, pairs), "unmatched": sum(map(len, only.values())),
            "unmatched_ids": {side: names[:SHOWN] for side, names in only.items()},
            "difference": _difference(ours, pairs)}


def _by_name(prompts):
    """{name: prompt}; the samples of records that share a name are put together."""
    found = {}
    for prompt in prompts:
        before = found.get(prompt.name)
        found[prompt.name] = prompt if before is None else before._replace(
            graded=before.graded + prompt.graded, correct=before.correct + prompt.correct,
            rewards=before.rewards + prompt.rewards)
    return found


class _Pair:
    def __init__(self, ours, theirs):
        self.ours, self.theirs, self.domain, self.cluster = ours, theirs, ours.domain, ours.cluster


def _win_rates(tally, pairs):
    rewarded = [_Pair(*pair) for pair in pairs if pair[0].rewards and pair[1].rewards]
    if not rewarded:
        return {"domains": {}, "mean": None}
    domains = by_domain(rewarded, lambda _, found: tally.estimate(
        (pair.cluster, stats.win_rate(pair.ours.rewards, pair.theirs.rewards)) for pair in found))
    return {"domains": domains, "mean": macro(domains.values())}


def _difference(tally, pairs):
    pairs = [_Pair(*pair) for pair in pairs]
    domains = by_domain(pairs, lambda _, found: _paired(tally, found))
    sizes = {name: part["n"] for name, part in domains.items()}
    p, test = _test(pairs, [1 / sizes[pair.domain] for pair in pairs])
    return {"domains": domains, "mean": {**macro(domains.values()), "p": p, "test": test}}


def _paired(tally, pairs):
    """Of one domain: {"n", "mean", "low", "high", "p", "test", and the numbers of prompts "better" and "worse"}."""
    clusters = [pair.cluster for pair in pairs]
    ours, theirs = (stats.parts_of(values, clusters) for values in zip(*map(_rates, pairs)))
    if tally.interval == "bootstrap":
        interval = stats.bootstrap([(mine - other, weight) for (mine, weight), (other, _) in zip(ours, theirs)])
    else:
        interval = stats.difference(ours, theirs)
    p, test = _test(pairs, [1] * len(pairs))
    better, worse = (sum(sign * (a - b) > 0 for a, b in map(_rates, pairs)) for sign in (1, -1))
    return {"n": len(pairs), **interval._asdict(), "p": p, "test": test, "better": better, "worse": worse}


def _rates(pair):
    return pair.ours.correct / pair.ours.graded, pair.theirs.correct / pair.theirs.graded


def _test(pairs, weights):
    """The sign-flip test; the records of one prompt flip together."""
    differences = [weight * (a - b) for weight, (a, b) in zip(weights, map(_rates, pairs))]
    return stats.sign_flip([total for total, _ in stats.parts_of(differences, [pair.cluster for pair in pairs])])
