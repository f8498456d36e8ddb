"""Evaluation statistics against enumeration, hand-computed values and simulation."""

import itertools
import random
from statistics import fmean

import pytest

from pt_tools.rewards import stats


def enumerated_pass_at_k(n, correct, k):
    """Share of the k-subsets of n samples that hold a correct one."""
    subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    return sum(map(any, subsets)) / len(subsets)


def test_pass_at_k_is_the_share_of_subsets():
    for n in range(1, 9):
        for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
            assert stats.pass_at_k(n, correct, k) == pytest.approx(enumerated_pass_at_k(n, correct, k), abs=1e-12)


def test_pass_at_k_by_hand():
    assert stats.pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert stats.pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    assert stats.pass_at_k(200, 1, 100) == pytest.approx(0.5)
    for n, k in ((3, 4), (3, 0)):
        with pytest.raises(ValueError, match="needs at least"):
            stats.pass_at_k(n, 1, k)


def test_t_points_of_the_tables():
    table = {3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}
    for df, point in table.items():
        assert stats.t_point(df) == pytest.approx(point, rel=0.01)


def test_wilson_by_hand():
    # p = 0.5, n = 10, z = 2: centre (0.5 + 0.2) / 1.4 = 0.5, half 2 sqrt(0.025 + 0.01) / 1.4
    interval = stats.wilson(0.5, 10, 2.0)
    assert interval == pytest.approx((0.5, 0.5 - 2 * 0.035**0.5 / 1.4, 0.5 + 2 * 0.035**0.5 / 1.4))
    assert stats.wilson(0.0, 10, 2.0) == pytest.approx((0.0, 0.0, 0.4 / 1.4))  # centre = half = 0.2 / 1.4


def test_one_sample_a_prompt_is_the_plain_wilson_interval():
    values = [1.0] * 300 + [0.0] * 100
    # m_eff = p(1-p) m / s^2 with s^2 = p(1-p) m/(m-1): m - 1, held up to m
    assert stats.proportion(values) == stats.wilson(0.75, 400)


def test_samples_of_a_prompt_count_together():
    """Repeating every prompt's sample ten times adds nothing; independent samples do."""
    rng = random.Random(0)
    bits = [float(rng.random() < 0.5) for _ in range(400)]
    copied = stats.proportion(fmean([bit] * 10) for bit in bits)
    assert copied == stats.proportion(bits)
    independent = stats.proportion(fmean(float(rng.random() < 0.5) for _ in range(10)) for _ in range(400))
    ratio = (independent.high - independent.low) / (copied.high - copied.low)
    assert ratio == pytest.approx(10**-0.5, rel=0.1)


def coverage(draw, interval, truth, runs=600):
    rng = random.Random(1)
    hits = 0
    for _ in range(runs):
        found = interval(draw(rng))
        hits += found.low <= truth <= found.high
    return hits / runs


@pytest.mark.parametrize("prompts, samples", [(20, 1), (20, 4), (100, 1), (100, 8), (300, 4)])
@pytest.mark.parametrize("easy, hard", [(0.9, 0.1), (0.5, 0.5), (1.0, 0.8)])
def test_proportion_covers_the_truth(prompts, samples, easy, hard):
    """Half of the prompts are easy, half hard, drawn at random; bounds must hold the mean in about 95 % of the runs."""

    def draw(rng):
        rates = [easy if rng.random() < 0.5 else hard for _ in range(prompts)]
        return [sum(rng.random() < rate for _ in range(samples)) / samples for rate in rates]

    # three standard errors of 600 runs are 0.027; Wilson's intervals are a little wide for few prompts
    assert 0.92 <= coverage(draw, stats.proportion, (easy + hard) / 2) <= 0.995


def test_macro_covers_the_truth():
    rates = {"a": 0.3, "b": 0.7, "c": 0.95}

    def draw(rng):
        return [[float(rng.random() < rate) for _ in range(80)] for rate in rates.values()]

    covered = coverage(draw, lambda parts: stats.macro(map(stats.proportion, parts)), fmean(rates.values()))
    assert 0.92 <= covered <= 0.985



def test_macro_by_hand():
    parts = [stats.Interval(0.5, 0.4, 0.7), stats.Interval(0.9, 0.6, 1.0)]
    assert stats.macro(parts) == pytest.approx((0.7, 0.7 - (0.01 + 0.09) ** 0.5 / 2, 0.7 + (0.04 + 0.01) ** 0.5 / 2))
    assert stats.macro(parts[:1]) == pytest.approx(parts[0])


def test_bounds_stay_inside_and_have_width():
    for values in ([1.0], [0.0] * 5, [1.0] * 300, [0.5, 0.5], [0.99] * 3 + [1.0] * 4):
        found = stats.proportion(values)
        assert 0 <= found.low <= found.mean <= found.high <= 1 and found.high - found.low > 0


def test_win_rate_by_hand():
    assert stats.win_rate([1, 3], [2]) == 0.5
    assert stats.win_rate([2, 3], [2, 1]) == (0.5 + 1 + 1 + 1) / 4
    assert stats.win_rate([1.0], [1.0]) == 0.5
