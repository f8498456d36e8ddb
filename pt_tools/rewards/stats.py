"""Statistics of evaluations: pass@k, maj@k, 95 % intervals, and the comparison of two runs on the same prompts.

The unit of sampling is the prompt. What is averaged comes as `parts`, one (total, weight) a prompt: the mean is the sum of
totals over the sum of weights. Weight 1 and a total in [0, 1] is the plain case; samples of one prompt, and records that
repeat a prompt, are summed into one part, because they are no independent evidence. Plain Python; the same input gives
the same numbers, those of the seeded resampling included.
"""

from __future__ import annotations

import random
from functools import lru_cache
from math import ceil, comb, lcm, sqrt
from operator import getitem, itemgetter
from statistics import NormalDist, fmean
from typing import NamedTuple

NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)
RESAMPLES = 2000  # of the bootstrap
FLIPS = 20_000  # of the sign-flip test: the standard error of p = 0.05 is 0.0015
EXACT = 16  # prompts that differ; up to here all 2^m signs are tried


class Interval(NamedTuple):
    """An estimate with its 95 % bounds."""

    mean: float
    low: float
    high: float


# --- of the samples of one prompt ---------------------------------------------------------------------------------


def pass_at_k(n, correct, k):
    """Unbiased estimate that at least one of k samples is correct, from `correct` of n (Chen et al. 2021, eq. 1).

    ValueError if k > n: the estimate does not exist.
    """
    _check_k("pass", n, k)
    return 1.0 - comb(n - correct, k) / comb(n, k)


@lru_cache(maxsize=65536)
def maj_at_k(groups, silent, k):
    """Probability that the most frequent answer of k of the n samples, drawn without replacement, is correct. Exact.

    `groups`: a tuple of (size, correct), one for each distinct answer; `silent`: samples without an answer, which cast
    no vote. Answers that tie for the most votes win with equal probability; a group in which only some samples are
    correct counts for their share; without any vote nothing is correct. ValueError if k > n.

    For each number of votes of the winner, the choices are counted by generating functions over the groups; at worst
    about n k^2 log k multiplications, which matters from some hundred samples on.
    """
    n = silent + sum(size for size, _ in groups)
    _check_k("maj", n, k)
    scale = lcm(*(size for size, _ in groups))
    largest = max((size for size, _ in groups), default=0)
    won = 0.0
    for top in range(max(1, ceil((k - silent) / max(len(groups), 1))), min(k, largest) + 1):
        tied = _choices(groups, silent, k, top, scale)
        won += sum(right[k] / comb(n, k) / t for t, (_, right) in enumerate(tied) if t)
    return won / scale


def _choices(groups, silent, k, top, scale):
    """For t tied winners with `top` votes each, and each number j of samples chosen: (ways to choose them, the same
    weighted with the sum of the winners' shares of correct samples times `scale`)."""
    tied = [([comb(silent, j) for j in range(k + 1)], [0] * (k + 1))]
    for size, correct in groups:
        fewer = [comb(size, votes) for votes in range(min(top - 1, size) + 1)]
        winning, share = comb(size, top), correct * scale // size
        after = [(_product(ways, fewer), _product(right, fewer)) for ways, right in tied]
        if winning and len(tied) <= k // top:
            after.append(([0] * (k + 1), [0] * (k + 1)))
        for t in range(1, len(after)) if winning else ():
            ways, right = tied[t - 1]
            for j in range(top, k + 1):
                after[t][0][j] += winning * ways[j - top]
                after[t][1][j] += winning * (right[j - top] + share * ways[j - top])
        tied = after
    return tied


def _product(a, b):
    """Product of two polynomials, coefficients from x^0, cut to the length of `a`."""
    out = [0] * len(a)
    for shift, factor in enumerate(b):
        for j in range(shift, len(a)):
            out[j] += factor * a[j - shift]
    return out


def _check_k(name, n, k):
    if not 1 <= k <= n:
        raise ValueError(f"{name}@{k} needs at least {k} samples, there are {n}")


def win_rate(ours, theirs):
    """Probability that a draw of `ours` beats a draw of `theirs`; ties count a half. Lists of numbers."""
    wins = sum((a > b) + 0.5 * (a == b) for a in ours for b in theirs)
    return wins / (len(ours) * len(theirs))


# --- intervals ----------------------------------------------------------------------------------------------------


def parts_of(values, clusters=None, weights=None):
    """The parts of values, one each; those of the same cluster are summed."""
    sums = {}
    values = list(values)
    for name, value, weight in zip(clusters or range(len(values)), values, weights or [1] * len(values)):
        total, sum_of_weights = sums.get(name, (0.0, 0))
        sums[name] = total + value, sum_of_weights + weight
    return list(sums.values())


def proportion(values):
    """`wilson_parts` of one value in [0, 1] a prompt."""
    return wilson_parts(parts_of(values))


def wilson_parts(parts):
    """Interval of a mean in [0, 1]: Wilson's, with the effective number of prompts.

    A mean with the variance V (that of a ratio over the clusters) carries as much as p(1-p)/V prompts with one sample
    each; never less than if all samples of a prompt were one, (sum of weights)^2 / sum of their squares, the number of
    prompts when weights are equal. z is Student's t. Never leaves [0, 1], never has width 0.
    """
    p, squares = _mean(parts), _squares(parts)
    total = sum(weight for _, weight in parts)
    variance = squares / total**2 * len(parts) / (len(parts) - 1) if len(parts) > 1 else 0.0
    least = total**2 / sum(weight**2 for _, weight in parts)
    return wilson(p, max(p * (1 - p) / variance, least) if variance > 0 else least, _t_of(parts))


def student(parts):
    """Interval of the mean of any numbers, by Student's t; a single prompt has bounds at its mean."""
    mean, total = _mean(parts), sum(weight for _, weight in parts)
    error = sqrt(_squares(parts) * len(parts) / (len(parts) - 1)) / total if len(parts) > 1 else 0.0
    return Interval(mean, mean - _t_of(parts) * error, mean + _t_of(parts) * error)


def bootstrap(parts):
    """Interval of the mean of any numbers by resampling prompts: BCa (Efron 1987), seeded.

    Bias-corrected and accelerated, 2,000 resamples. Where all prompts agree it has width 0 and says too much;
    Wilson's does not.
    """
    rng, mean = random.Random(0), _mean(parts)
    draws = sorted(_mean(rng.choices(parts, k=len(parts))) for _ in range(RESAMPLES))
    slack = 1e-12 * max(1.0, abs(mean))
    if draws[-1] - draws[0] <= slack:
        return Interval(mean, mean, mean)
    below = sum((draw < mean - slack) + (draw <= mean + slack) for draw in draws) / 2 / RESAMPLES
    bias = NORMAL.inv_cdf(min(max(below, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES))
    skew = _acceleration(parts)
    low, high = (NORMAL.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in (-Z, Z))
    return Interval(mean, min(mean, _quantile(draws, low)), max(mean, _quantile(draws, high)))


INTERVALS = {"wilson": wilson_parts, "bootstrap": bootstrap}


def wilson(p, n, z=Z):
    """Wilson's score interval of a proportion p of n trials."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))


def macro(intervals):
    """Unweighted mean of independent estimates, bounds by the method of variance recovery (Zou and Donner 2008)."""
    intervals = list(intervals)
    count = len(intervals)
    mean = fmean(each.mean for each in intervals)
    below = sqrt(sum((each.mean - each.low) ** 2 for each in intervals)) / count
    above = sqrt(sum((each.high - each.mean) ** 2 for each in intervals)) / count
    return Interval(mean, mean - below, mean + above)


def t_point(df):
    """The 97.5 % point of Student's t: exact for df 1 and 2, else Cornish and Fisher's expansion (off by under 1 %)."""
    if df < 3:
        return (12.7062, 4.3027)[df - 1]
    z = Z
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / df**power for power, term in enumerate(terms, 1))


def _t_of(parts):
    return t_point(max(len(parts) - 1, 1)) if len(parts) < 200 else Z


def _mean(parts):
    return sum(map(itemgetter(0), parts)) / sum(map(itemgetter(1), parts))


def _residuals(parts):
    mean = _mean(parts)
    return [total - mean * weight for total, weight in parts]


def _squares(parts):
    return sum(each * each for each in _residuals(parts))


def _acceleration(parts):
    """A sixth of the skewness of the mean, from leaving out one prompt at a time."""
    total, weight = (sum(map(itemgetter(i), parts)) for i in (0, 1))
    without = [(total - t) / (weight - w) for t, w in parts]
    centre = fmean(without)
    squares = sum((centre - each) ** 2 for each in without)
    return sum((centre - each) ** 3 for each in without) / (6 * squares**1.5) if squares else 0.0


def _quantile(ordered, share):
    place = share * (len(ordered) - 1)
    left = int(place)
    right = min(left + 1, len(ordered) - 1)
    return ordered[left] + (place - left) * (ordered[right] - ordered[left])


# --- two runs on the same prompts ---------------------------------------------------------------------------------


def difference(ours, theirs):
    """Interval of the difference of two means in [0, 1] over the same prompts; parts in the same order.

    Wilson's bounds of both, put together with the correlation of the prompts' residuals (Newcombe 1998, method 10, and
    Zou and Donner 2008 for other than single samples). Never leaves [-1, 1].
    """
    (p, p_low, p_high), (q, q_low, q_high) = wilson_parts(ours), wilson_parts(theirs)
    scale = sqrt(_squares(ours) * _squares(theirs))
    r = sum(a * b for a, b in zip(_residuals(ours), _residuals(theirs))) / scale if scale else 0.0

    def distance(a, b):
        return sqrt(max(0.0, a * a - 2 * r * a * b + b * b))

    return Interval(p - q, p - q - distance(p - p_low, q_high - q), p - q + distance(p_high - p, q - q_low))


def sign_flip(differences):
    """(p-value, method) of the hypothesis that each prompt's difference could as well have the other sign; two-sided.

    `differences` add up to the statistic, one a prompt. Where all that are not 0 have the same size, as for one sample a
    prompt in both runs, this is McNemar's exact test; up to 16 of them all signs are tried; else 20,000 seeded draws,
    with the observed signs as one more, so that p is never 0.
    """
    values = [float(each) for each in differences if each]
    observed = abs(sum(values)) - 1e-9 * sum(map(abs, values))
    if not values:
        return 1.0, "none differ"
    if max(map(abs, values)) - min(map(abs, values)) <= 1e-9 * abs(values[0]):
        fewer = min(sum(value > 0 for value in values), sum(value < 0 for value in values))
        return min(1.0, 2 * _tail(len(values), fewer)), "mcnemar exact"
    if len(values) <= EXACT:
        sums = _signed_sums(values)
        return sum(abs(each) >= observed for each in sums) / len(sums), "sign-flip exact"
    values += [0.0] * (-len(values) % 8)
    tables = [_signed_sums(values[i : i + 8]) for i in range(0, len(values), 8)]  # 8 signs at once, by a random byte
    rng = random.Random(0)
    hits = sum(abs(sum(map(getitem, tables, rng.randbytes(len(tables))))) >= observed for _ in range(FLIPS))
    return (hits + 1) / (FLIPS + 1), "sign-flip monte carlo"


def _tail(n, most):
    """Probability of at most `most` heads in n throws of a fair coin."""
    ways, term = 0, 1
    for i in range(most + 1):
        ways += term
        term = term * (n - i) // (i + 1)
    return ways / 2**n


def _signed_sums(values):
    """The sums of the values under all 2^m signs."""
    sums = [0.0]
    for value in values:
        sums = [each + value for each in sums] + [each - value for each in sums]
    return sums
