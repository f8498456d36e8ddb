"""Statistics of evaluations: pass@k, and 95 % intervals that know that the samples of a prompt belong together.

The unit of sampling is the prompt: every function takes one number a prompt (a mean over its samples, or its pass@k),
never one a sample. Plain Python, nothing random: the same input gives the same interval.
"""

from __future__ import annotations

from math import comb, sqrt
from statistics import fmean, variance
from typing import NamedTuple

Z = 1.959963984540054  # the 97.5 % point of the normal distribution


class Interval(NamedTuple):
    """An estimate with its 95 % bounds."""

    mean: float
    low: float
    high: float


def pass_at_k(n, correct, k):
    """Unbiased estimate that at least one of k samples is correct, from `correct` of n (Chen et al. 2021, eq. 1).

    ValueError if k > n: the estimate does not exist.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def t_point(df):
    """The 97.5 % point of Student's t: exact for df 1 and 2, else Cornish and Fisher's expansion (off by under 1 %)."""
    if df < 3:
        return (12.7062, 4.3027)[df - 1]
    z = Z
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / df**power for power, term in enumerate(terms, 1))


def proportion(values):
    """Interval of the mean of per-prompt values in [0, 1]: Wilson's, with the effective number of prompts.

    m prompts with variance s^2 of their values carry as much as m_eff = p(1-p) m/s^2 prompts with one sample each
    (never less than m); z is Student's t for m - 1 degrees of freedom. Never leaves [0, 1], never has width 0.
    """
    values = list(values)
    m, p = len(values), fmean(values)
    spread = variance(values) if m > 1 else 0.0
    effective = p * (1 - p) * m / spread if spread > 0 else m
    return wilson(p, max(effective, m), t_point(max(m - 1, 1)) if m < 200 else Z)


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


def win_rate(ours, theirs):
    """Probability that a draw of `ours` beats a draw of `theirs`; ties count a half. Lists of numbers."""
    wins = sum((a > b) + 0.5 * (a == b) for a in ours for b in theirs)
    return wins / (len(ours) * len(theirs))
