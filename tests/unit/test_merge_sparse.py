"""Methods that drop entries (DELLA, breadcrumbs, SCE) against whole-tensor twins in float64."""

import numpy as np
import pytest
from merge_harness import parameters, run

from pt_tools.merge.consensus import Sce
from pt_tools.merge.magnitude import Breadcrumbs, BreadcrumbsTies, DareLinear, DareTies
from pt_tools.merge.sparse import Della, DellaLinear

SHAPES = [(7,), (1, 1), (33, 65), (130, 257), (5, 12, 31)]


def grid(shape, count, seed=0, steps=8):
    """Models whose differences from the base take 2·steps+1 values, zero among them; sums of them are exact in fp32."""
    rng = np.random.default_rng(seed)
    base = rng.integers(-64, 65, shape) / 128
    return base, [base + rng.integers(-steps, steps + 1, shape) / 512 for _ in range(count)]


def smooth(shape, count, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape).astype(np.float32)
    return base, [(base + rng.normal(size=shape) * 0.02).astype(np.float32) for _ in range(count)]


def close(ours, twin, tolerance=5e-7):
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, twin, rtol=0, atol=tolerance * max(1.0, np.abs(twin).max()))


def by_magnitude(values):
    """Indices, largest magnitude first, equal ones in index order."""
    return np.argsort(-np.abs(values.ravel()), kind="stable")


def kept(delta, order):
    out = np.zeros(delta.size)
    out[order] = delta.ravel()[order]
    return out.reshape(delta.shape)


def merged(base, deltas, weights, vote, normalize, scale):
    """Task arithmetic or, with a vote, the election and disjoint mean of TIES."""
    terms = [w * d for w, d in zip(weights, deltas)]
    total, divisor = sum(terms), sum(weights)
    if vote:
        agree = [np.where(total >= 0, t > 0, t < 0) for t in terms]
        total = sum(t * a for t, a in zip(terms, agree))
        divisor = sum(w * a for w, a in zip(weights, agree))
        divisor = np.where(divisor == 0, 1, divisor)
    return base + scale * (total / divisor if normalize else total)


@pytest.mark.parametrize("make", [grid, smooth])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", [Breadcrumbs(), BreadcrumbsTies()], ids=lambda m: m.name)
@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.4])
def test_breadcrumbs(make, shape, method, gamma):
    base, models = make(shape, 3, seed=1)
    own = {"weight": [0.5, 1.0, 0.25], "density": [0.3, 0.7, 1.0], "gamma": [gamma] * 3}
    given = parameters(method, 3, own, **{"lambda": 0.5, "normalize": True})
    deltas = []
    for model, density in zip(models, own["density"]):
        delta = np.asarray(model, np.float32) - np.asarray(base, np.float32)
        stay = int(density * delta.size)
        outliers = min(int(gamma * delta.size), delta.size - stay)
        deltas.append(kept(delta.astype(np.float64), by_magnitude(delta)[outliers:outliers + stay]))
    twin = merged(base, deltas, own["weight"], method.vote, True, 0.5)
    results = [run(method, models, base, given, size) for size in (500, 4096, 10**6)]
    close(results[0], twin)
    assert len({result.tobytes() for result in results}) == 1


@pytest.mark.parametrize("make", [grid, smooth])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("topk", [1.0, 0.6, 0.05])
def test_sce(make, shape, count, topk):
    base, models = make(shape, count, seed=2)
    base32 = np.asarray(base, np.float32)
    deltas = np.stack([(np.asarray(m, np.float32) - base32).astype(np.float64) for m in models])
    if topk < 1:
        variance = deltas.var(0)
        order = by_magnitude(variance)[:int(topk * np.count_nonzero(variance))]
        deltas = np.stack([kept(delta, order) for delta in deltas])
    squares = (deltas**2).reshape(count, -1).mean(1)
    weights = squares / squares.sum() if squares.sum() else np.full(count, 1 / count)
    agree = np.where(deltas.sum(0) >= 0, deltas > 0, deltas < 0)
    shares = agree * weights.reshape(-1, *[1] * len(shape))
    below = shares.sum(0)
    twin = base32 + (shares * deltas).sum(0) / np.where(below == 0, 1, below)
    results = [run(Sce(), models, base, parameters(Sce, count, select_topk=topk), size) for size in (500, 10**6)]
    close(results[0], twin)
    close(results[1], results[0], 1e-7)


ALL = [Breadcrumbs(), BreadcrumbsTies(), Sce(), Della(), DellaLinear()]


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("shape", [(1,), (), (40, 33)])
def test_models_equal_to_the_base(method, shape):
    base = np.full(shape, 0.75, np.float32)
    own = {"density": [0.5, 0.5]} if "density" in method.own else None
    shared = {"select_topk": 0.5} if method.name == "sce" else {"normalize": True}
    assert np.array_equal(run(method, [base, base], base, parameters(method, 2, own, **shared)), base)


def probabilities(delta, density, epsilon):
    """Row by row, rank by rank."""
    rows = delta.reshape(-1, delta.shape[-1])
    out = np.zeros(rows.shape)
    for row, values in enumerate(rows):
        for rank, place in enumerate(sorted(range(len(values)), key=lambda k: (abs(values[k]), k))):
            share = rank / (len(values) - 1) if len(values) > 1 else 0.5
            out[row, place] = density - epsilon + 2 * epsilon * share
    return (np.rint(out * 65536) / 65536).reshape(delta.shape)


@pytest.mark.parametrize("make", [grid, smooth])
@pytest.mark.parametrize("shape", SHAPES)
def test_della_keeps_by_rank_and_divides_by_the_chance(make, shape):
    _, (delta,) = make(shape, 1, seed=3)
    delta = np.asarray(delta, np.float32)
    zero = np.zeros(shape, np.float32)
    given = parameters(DellaLinear, 1, {"density": [0.6], "epsilon": [0.3]})
    chance = probabilities(delta, 0.6, 0.3)
    out = run(DellaLinear(), [delta], zero, given, seed=5)
    stayed = out != 0
    close(out, np.where(stayed, delta / chance, 0), 3e-7)
    plain = run(DellaLinear(), [delta], zero, parameters(DellaLinear, 1, {"density": [0.6], "epsilon": [0.3]},
                                                         rescale="none"), seed=5)
    assert np.array_equal(plain, np.where(stayed, delta, 0))  # the same entries


def test_della_chances_in_the_long_run():
    """Entries of each rank stay as often as they should: 4000 rows, five standard deviations."""
    delta = np.random.default_rng(4).normal(size=(4000, 16)).astype(np.float32)
    given = parameters(DellaLinear, 1, {"density": [0.5], "epsilon": [0.4]}, rescale="none")
    stayed = run(DellaLinear(), [delta], np.zeros_like(delta), given, 4096) != 0
    ranks = np.abs(delta).argsort(1).argsort(1)
    for rank in range(16):
        chance = 0.1 + 0.8 * rank / 15
        assert abs(stayed[ranks == rank].mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / 4000)


def test_della_l1_keeps_the_size_of_the_tensor():
    _, (delta,) = smooth((90, 77), 1)
    given = parameters(DellaLinear, 1, {"density": [0.4], "epsilon": [0.2]}, rescale="l1")
    out = run(DellaLinear(), [delta], np.zeros_like(delta), given, 1000)
    assert np.count_nonzero(out) < 0.5 * delta.size
    assert np.abs(out).sum(dtype=np.float64) == pytest.approx(np.abs(delta).sum(dtype=np.float64), rel=1e-5)


def test_della_votes_over_what_stayed():
    """The merge of two models is TIES' election over what each leaves alone (masks depend on the model's place)."""
    base, models = grid((50, 40), 2, seed=6)
    zero = np.zeros((50, 40))
    deltas = [m - base for m in models]
    own = {"density": [0.5, 0.5], "epsilon": [0.2, 0.2]}
    none = parameters(DellaLinear, 2, own, rescale="none")
    alone = [run(DellaLinear(), [deltas[0], zero], zero, none), run(DellaLinear(), [zero, deltas[1]], zero, none)]
    own = {**own, "weight": [0.5, 1.0]}
    ours = run(Della(), models, base, parameters(Della, 2, own, rescale="none", **{"lambda": 2.0}))
    close(ours, merged(base, alone, [0.5, 1.0], True, True, 2.0))


@pytest.mark.parametrize("rescale, factors", [("inverse", (2.0, 4.0)), ("none", (1.0, 1.0))])
def test_dare_drops_then_sums_or_votes(rescale, factors):
    """Of each model alone the entries that stay are found out; both merges are their definitions over these."""
    base, models = grid((50, 40), 2, seed=6)
    zero, own = np.zeros((50, 40)), {"density": [0.5, 0.25]}
    none = parameters(DareLinear, 2, own, rescale="none")
    alone = []
    for index, model in enumerate(models):
        both = [zero, zero]
        both[index] = model - base
        kept_ones = run(DareLinear(), both, zero, none, seed=3)
        stayed = kept_ones != 0
        assert np.array_equal(kept_ones[stayed], (model - base)[stayed].astype(np.float32))
        assert abs(stayed[model != base].mean() - own["density"][index]) < 0.04
        alone.append(factors[index] * np.where(stayed, model - base, 0))
    own |= {"weight": [0.5, -1.0]}
    for method, vote, normalize in ((DareLinear(), False, False), (DareTies(), True, False), (DareTies(), True, True)):
        given = parameters(method, 2, own, rescale=rescale, normalize=normalize, **{"lambda": 0.5})
        close(run(method, models, base, given, seed=3), merged(base, alone, [0.5, -1.0], vote, normalize, 0.5))


def test_della_masks_differ_by_seed_tensor_and_model_only():
    _, (delta,) = smooth((60, 50), 1)
    zero, given = np.zeros_like(delta), parameters(DellaLinear, 1, {"density": [0.5]})

    def mask(**keys):
        return run(DellaLinear(), [delta], zero, given, **keys) != 0

    assert np.array_equal(mask(), mask())
    for other in (mask(seed=1), mask(name="v")):
        assert 0.3 < (other == mask()).mean() < 0.7


def test_density_one_is_everything():
    base, models = grid((20, 30), 2, seed=7)
    given = parameters(Della, 2, {"weight": [1.0, 1.0]})
    close(run(Della(), models, base, given), merged(base, [m - base for m in models], [1, 1], True, True, 1))


REFUSED = [
    (Breadcrumbs, {"density": [0.0, 1.0]}, {}, "density"), (Breadcrumbs, {"gamma": [0.1, 1.0]}, {}, "gamma"),
    (BreadcrumbsTies, {"density": [float("nan"), 1.0]}, {}, "density"), (Sce, None, {"select_topk": 0}, "select_topk"),
    (Sce, None, {"select_topk": 1.5}, "select_topk"), (Della, {"density": [0.1, 0.5]}, {}, "density ± epsilon"),
    (Della, {"density": [0.9, 0.5]}, {}, "density ± epsilon"), (Della, None, {"rescale": "l2"}, "rescale"),
    (DellaLinear, {"density": [0.5, 0.5], "epsilon": [-0.1, 0.1]}, {}, "density ± epsilon"),
]


@pytest.mark.parametrize("method, own, shared, words", REFUSED)
def test_values_out_of_range(method, own, shared, words):
    with pytest.raises(ValueError, match=words):
        method().check(parameters(method, 2, own, **shared))
