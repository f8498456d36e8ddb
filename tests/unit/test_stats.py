"""Evaluation statistics against enumeration, hand-computed values and simulation."""

import itertools
import random
from collections import Counter
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


def enumerated_maj_at_k(groups, silent, k):
    """Every k-subset votes; the answers with most votes share the win, each with its share of correct samples."""
    samples = [answer for answer, (size, _) in enumerate(groups) for _ in range(size)] + [None] * silent
    won = []
    for subset in itertools.combinations(samples, k):
        votes = Counter(answer for answer in subset if answer is not None).most_common()
        tied = [groups[answer] for answer, count in votes if count == votes[0][1]]
        won.append(fmean(correct / size for size, correct in tied) if tied else 0.0)
    return fmean(won)


def test_maj_at_k_is_the_share_of_subsets():
    rng = random.Random(0)
    for _ in range(60):
        sizes = [rng.randint(1, 4) for _ in range(rng.randint(0, 4))]
        groups = tuple((size, rng.choice([0, size, rng.randint(0, size)])) for size in sizes)
        silent = rng.randint(0, 3)
        for k in range(1, sum(sizes) + silent + 1):
            assert stats.maj_at_k(groups, silent, k) == pytest.approx(enumerated_maj_at_k(groups, silent, k), abs=1e-12)


def test_maj_at_k_by_hand():
    assert stats.maj_at_k(((3, 3), (2, 0)), 0, 5) == 1.0 and stats.maj_at_k(((3, 0), (2, 2)), 0, 5) == 0.0
    assert stats.maj_at_k(((2, 2), (2, 0), (1, 0)), 0, 5) == 0.5  # a tie of two, one of them right
    assert stats.maj_at_k(((2, 2),), 14, 16) == 1.0  # who gives no answer casts no vote
    assert stats.maj_at_k((), 4, 2) == 0.0
    # 3 right, 2 wrong alike, 3 drawn: 1 + 3*2 of 10 subsets have a right majority
    assert stats.maj_at_k(((3, 3), (2, 0)), 0, 3) == pytest.approx(7 / 10)
    assert stats.maj_at_k(((5, 5), (3, 0)), 2, 1) == pytest.approx(0.5)  # maj@1 is pass@1
    with pytest.raises(ValueError, match="maj@9 needs at least 9"):
        stats.maj_at_k(((5, 5), (3, 0)), 0, 9)


def test_maj_at_k_of_many_samples(limit):
    """Against drawing at random; 64 samples are what the papers take."""
    groups, rng = ((20, 20), (14, 0), (9, 0), (3, 0), *((1, 0),) * 10), random.Random(1)
    answers = [answer for answer, (size, _) in enumerate(groups) for _ in range(size)] + [None] * 8
    won = 0.0
    for _ in range(4000):
        votes = Counter(answer for answer in rng.sample(answers, 16) if answer is not None).most_common()
        tied = [answer for answer, count in votes if count == votes[0][1]]
        won += (0 in tied) / len(tied)
    with limit(10):
        assert stats.maj_at_k(groups, 8, 16) == pytest.approx(won / 4000, abs=4 * 0.5 / 4000**0.5)
        stats.maj_at_k(((1, 1), *((1, 0),) * 255), 0, 64)


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


def clustered_draw(rng):
    """60 prompts, each asked by one to four records with the same answers: (values, names of the prompts)."""
    values, names = [], []
    for prompt in range(60):
        value = float(rng.random() < 0.3)
        for _ in range(rng.choice([1, 1, 2, 4])):
            values.append(value), names.append(prompt)
    return values, names


@pytest.mark.parametrize("interval, least", [(stats.wilson_parts, 0.92), (stats.student, 0.9)])
def test_repeated_prompts_are_covered_only_with_their_clusters(interval, least):
    known = coverage(clustered_draw, lambda drawn: interval(stats.parts_of(*drawn)), 0.3)
    blind = coverage(clustered_draw, lambda drawn: interval(stats.parts_of(drawn[0])), 0.3)
    assert least <= known <= 0.985 and blind < 0.88


def test_ratio_of_sums_covers_the_truth():
    """Instructions pooled over prompts that have one to three, the prompts being hard or easy as a whole."""

    def draw(rng):
        parts = []
        for _ in range(100):
            rate, count = rng.choice([0.9, 0.3]), rng.choice([1, 1, 2, 3])
            parts.append((sum(rng.random() < rate for _ in range(count)), count))
        return parts

    assert 0.92 <= coverage(draw, stats.wilson_parts, 0.6) <= 0.985


def test_parts_by_hand():
    assert stats.parts_of([1.0, 0.5, 0.0], "aba") == [(1.0, 2), (0.5, 1)]
    assert stats.parts_of([2, 1], None, [3, 1]) == [(2.0, 3), (1.0, 1)]
    found = stats.wilson_parts([(2.0, 3), (0.0, 1)])
    # mean 1/2; residuals 1/2 and -1/2; V = 2 (1/4 + 1/4) / 16 = 1/16, so 4 prompts; at least 16/10
    assert found == pytest.approx(stats.wilson(0.5, 4, stats.t_point(1)))


# The expected bounds are those of scipy 1.17.1: scipy.stats.bootstrap, BCa, 200,000 resamples, and scipy.stats.t.
SKEWED = [3.305, 1.221, 0.082, 0.0, 5.612, 0.499, 2.67, 5.965, 2.601, 7.198, 0.243, 4.115, 0.391, 7.662, 5.966, 0.001, 0.003,
          0.022, 8.689, 0.362, 1.542, 0.082, 0.662, 0.222, 0.152]  # fmt: skip
RATES = [1.0] * 20 + [0.75] * 6 + [0.5] * 2 + [0.25] * 8 + [0.0] * 4


def test_bootstrap_is_that_of_scipy():
    found = stats.bootstrap(stats.parts_of(SKEWED))
    assert found == pytest.approx((fmean(SKEWED), 1.4115, 3.6283), abs=0.03)
    assert stats.bootstrap(stats.parts_of(RATES)) == pytest.approx((fmean(RATES), 0.5625, 0.79375), abs=0.013)
    assert found == stats.bootstrap(stats.parts_of(SKEWED))
    assert stats.student(stats.parts_of(SKEWED)) == pytest.approx((fmean(SKEWED), 1.19433, 3.54703), abs=1e-3)


@pytest.mark.slow
def test_bootstrap_covers_the_truth():
    def draw(rng):
        return stats.parts_of(rng.betavariate(2, 1) for _ in range(40))

    assert 0.91 <= coverage(draw, stats.bootstrap, 2 / 3) <= 0.97


def test_bootstrap_without_spread():
    assert stats.bootstrap([(1.0, 1)] * 5) == (1.0, 1.0, 1.0) and stats.bootstrap([(0.3, 1)]) == (0.3, 0.3, 0.3)


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


def test_difference_by_hand():
    """Single samples, as Newcombe (1998) gives them: bounds of the two rates, joined by the phi coefficient."""
    ours = [1.0] * 14 + [1.0] * 5 + [0.0] * 2 + [0.0] * 9
    theirs = [1.0] * 14 + [0.0] * 5 + [1.0] * 2 + [0.0] * 9
    p, q = stats.proportion(ours), stats.proportion(theirs)
    phi = (14 * 9 - 5 * 2) / (19 * 11 * 16 * 14) ** 0.5
    low = ((p.mean - p.low) ** 2 - 2 * phi * (p.mean - p.low) * (q.high - q.mean) + (q.high - q.mean) ** 2) ** 0.5
    high = ((p.high - p.mean) ** 2 - 2 * phi * (p.high - p.mean) * (q.mean - q.low) + (q.mean - q.low) ** 2) ** 0.5
    found = stats.difference(stats.parts_of(ours), stats.parts_of(theirs))
    assert found == pytest.approx((0.1, 0.1 - low, 0.1 + high)) and found.low < 0 < found.high
    turned = stats.difference(stats.parts_of(theirs), stats.parts_of(ours))
    assert turned == pytest.approx((-found.mean, -found.high, -found.low))


def test_difference_stays_inside():
    sure, never = stats.parts_of([1.0] * 8), stats.parts_of([0.0] * 8)
    found = stats.difference(sure, never)
    assert 0.3 < found.low < found.mean == found.high == 1.0
    same = stats.difference(sure, sure)
    assert same.low < same.mean == 0 < same.high


@pytest.mark.parametrize("samples", [1, 4])
def test_difference_covers_the_truth(samples):
    """Prompts that are hard for one run are hard for the other."""

    def draw(rng):
        rates = [rng.choice([(0.95, 0.9), (0.5, 0.3), (0.1, 0.15)]) for _ in range(80)]
        mean = lambda rate: sum(rng.random() < rate for _ in range(samples)) / samples  # noqa: E731
        return [[mean(rate[run]) for rate in rates] for run in (0, 1)]

    covered = coverage(draw, lambda runs: stats.difference(*map(stats.parts_of, runs)), (0.05 + 0.2 - 0.05) / 3)
    assert 0.92 <= covered <= 0.99


def enumerated_sign_flip(values):
    sums = [abs(sum(v * s for v, s in zip(values, signs))) for signs in itertools.product((1, -1), repeat=len(values))]
    return sum(each >= abs(sum(values)) - 1e-9 for each in sums) / len(sums)


def test_sign_flip_is_the_share_of_signs():
    rng = random.Random(2)
    for _ in range(60):
        values = [rng.choice([-1, -0.5, -0.25, 0, 0.25, 0.5, 1]) for _ in range(rng.randint(1, 9))]
        p, method = stats.sign_flip(values)
        assert p == pytest.approx(enumerated_sign_flip(values))
        assert method == "none differ" if not any(values) else method.endswith("exact")


def test_sign_flip_of_single_samples_is_mcnemar():
    assert stats.sign_flip([1] * 10 + [-1] * 2 + [0] * 50) == (pytest.approx(2 * (1 + 12 + 66) / 2**12), "mcnemar exact")
    assert stats.sign_flip([0.1] * 3 + [-0.1] * 3)[0] == 1.0 and stats.sign_flip([0.0] * 3) == (1.0, "none differ")
    assert stats.sign_flip([1] * 5000 + [-1] * 4800)[0] == pytest.approx(0.0444, abs=5e-4)  # normal: 2 (1 - Phi(199/sqrt(9800)))


def test_sign_flip_by_drawing():
    values = [random.Random(i).choice([-1, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1]) for i in range(30)]
    p, method = stats.sign_flip(values)
    assert method == "sign-flip monte carlo" and p == pytest.approx(0.2632, abs=0.012)  # scipy.stats.permutation_test
    assert stats.sign_flip(values) == (p, method)
    assert stats.sign_flip([0.5] * 40 + [1.0] * 10)[0] == 1 / 20001  # never 0


def test_sign_flip_rejects_as_often_as_it_says():
    rng, rejected = random.Random(3), 0
    for _ in range(400):
        values = [rng.choice([-1, -0.5, 0, 0.5, 1]) for _ in range(14)]
        rejected += stats.sign_flip(values)[0] <= 0.05
    assert 0.01 <= rejected / 400 <= 0.08
