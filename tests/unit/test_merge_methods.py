"""Merge methods in the span of the models, and entry by entry, against their formulas written plainly in float64."""

import numpy as np
import pytest
from merge_harness import parameters, run

from pt_tools.merge.agents import Ram, RamPlus
from pt_tools.merge.geometry import Karcher, ModelStock, MultiSlerp, NuSlerp, Warp
from pt_tools.merge.interpolate import Nearswap, Passthrough, WiseFt

SHAPES = [(7,), (1, 1), (33, 65), (130, 257), (5, 12, 31)]


def bf16(values):
    """Rounded to bf16's 8 bits of mantissa."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def world(shape, count, seed=0, spread=0.02, share=1.0):
    """A base and models near it, all of bf16 values; each model changed only `share` of the entries."""
    rng = np.random.default_rng(seed)
    base = bf16(rng.normal(size=shape))
    change = [rng.normal(size=shape) * spread * (rng.random(shape) < share) for _ in range(count)]
    return base, [bf16(base + one) for one in change]


def close(ours, twin, tolerance=3e-7):
    """Equal to a few roundings of fp32 at the scale of the tensor."""
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, twin, rtol=0, atol=tolerance * max(1.0, np.abs(twin).max()))


def turned(a, b, t):
    """The textbook formula, on flat float64 vectors."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    angle = np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
    return np.sin((1 - t) * angle) / np.sin(angle) * a + np.sin(t * angle) / np.sin(angle) * b


@pytest.mark.parametrize("shape", [s for s in SHAPES if s != (1, 1)])
@pytest.mark.parametrize("with_base", [False, True])
def test_nuslerp_flat(shape, with_base):
    base, (a, b) = world(shape, 2)
    ours = run(NuSlerp(), [a, b], base if with_base else None, parameters(NuSlerp, 2, {"weight": [0.3, 0.9]}))
    origin = base.astype(np.float64) if with_base else np.zeros(shape)
    close(ours, origin + turned((a - origin).ravel(), (b - origin).ravel(), 0.75).reshape(shape))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s != (1, 1)])
@pytest.mark.parametrize("across", [False, True])
def test_nuslerp_by_vectors(shape, across):
    base, (a, b) = world(shape, 2)
    given = parameters(NuSlerp, 2, {"weight": [1, 2]}, nuslerp_flatten=False, nuslerp_row_wise=across)
    ours = run(NuSlerp(), [a, b], base, given)
    first, second = ((x - base.astype(np.float64)).reshape(-1, shape[-1]) for x in (a, b))
    across &= len(shape) > 1  # a vector is one vector either way
    if across:
        first, second = first.T, second.T
    twin = np.array([turned(x, y, 2 / 3) for x, y in zip(first, second)])
    close(ours, base + (twin.T if across else twin).reshape(shape), 3e-6)


def test_nuslerp_without_an_angle():
    """Parallel, antipodal, equal and zero vectors interpolate linearly; cancelling weights count as halves."""
    a = np.array([[1.0, 2.0, -3.0]])
    for b in (2 * a, -a, a, 0 * a):
        close(run(NuSlerp(), [a, b]), (a + b) / 2)
    other = np.array([[3.0, 0.5, 1.0]])
    given = parameters(NuSlerp, 2, {"weight": [1, -1]})
    close(run(NuSlerp(), [a, other], given=given), turned(a[0], other[0], 0.5)[None])


def test_nuslerp_of_nearly_equal_models():
    """A cosine of 1 − 5e-7: the turn is the straight line, to the precision of fp32."""
    _, (a, b) = world((64, 64), 2, spread=1e-3)
    ours = run(NuSlerp(), [a, b], given=parameters(NuSlerp, 2, {"weight": [3, 1]}))
    close(ours, 0.75 * a.astype(np.float64) + 0.25 * b)


def multislerp(vectors, weights, eps=1e-8):
    """The published step in full, with its correction."""
    vectors = [v.astype(np.float64) for v in vectors]
    norms = np.array([np.linalg.norm(v) for v in vectors])
    units = [v / n for v, n in zip(vectors, norms)]
    mean = sum(w * u for w, u in zip(weights, units))
    mean /= np.linalg.norm(mean)
    step = sum(w * (u - (u @ mean) * mean) for w, u in zip(weights, units))
    length = np.linalg.norm(step)
    moved = np.cos(length) * mean + (np.sin(length) * step / length if length > eps else 0)
    return moved * (weights @ norms)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_multislerp(shape, with_base, normalise):
    base, models = world(shape, 3, seed=1)
    weights = np.array([0.2, 0.5, 0.9])
    given = parameters(MultiSlerp, 3, {"weight": weights.tolist()}, normalize_weights=normalise)
    ours = run(MultiSlerp(), models, base if with_base else None, given)
    origin = base.astype(np.float64) if with_base else np.zeros(shape)
    twin = multislerp([(m - origin).ravel() for m in models], weights / weights.sum() if normalise else weights)
    close(ours, origin + twin.reshape(shape), 1e-6)


def test_multislerp_of_directions_that_cancel():
    a = np.array([1.0, 2.0, 2.0])
    close(run(MultiSlerp(), [a, -2 * a]), -a / 2)
    close(run(MultiSlerp(), [a, a, 0 * a]), a * 2 / 3)
    close(run(MultiSlerp(), [0 * a, 0 * a]), 0 * a)


def karcher(vectors, iterations, tol=1e-5):
    """Logarithms and exponentials on the sphere, written with vectors."""
    vectors = [v.astype(np.float64) for v in vectors]
    units = [v / np.linalg.norm(v) for v in vectors]
    mean = sum(units) / len(units)
    mean /= np.linalg.norm(mean)
    for _ in range(iterations):
        tangent = np.zeros_like(mean)
        for unit in units:
            cosine = np.clip(unit @ mean, -1, 1)
            off = unit - cosine * mean
            if np.linalg.norm(off) > 1e-12:
                tangent += np.arccos(cosine) * off / np.linalg.norm(off) / len(units)
        length = np.linalg.norm(tangent)
        if length:
            mean = np.cos(length) * mean + np.sin(length) * tangent / length
        if length < tol:
            break
    return mean * np.mean([np.linalg.norm(v) for v in vectors])


@pytest.mark.parametrize("shape", SHAPES)
def test_karcher(shape):
    rng = np.random.default_rng(3)
    models = [bf16(rng.normal(size=shape) + 1) * scale for scale in (1, 2, 0.5)]
    twin = karcher([m.ravel() for m in models], 10).reshape(shape)
    close(run(Karcher(), models), twin, 1e-6)
    if shape == (33, 65):
        coarse = run(Karcher(), models, given=parameters(Karcher, 3, max_iter=1, tol=1e-9))
        close(coarse, karcher([m.ravel() for m in models], 1, 1e-9).reshape(shape), 1e-6)


def test_karcher_moves_the_chordal_mean_and_solves_its_equation():
    """At the result the logarithms cancel; at the chordal mean they do not."""
    models = [np.array([1.0, 0, 0]), np.array([1.0, 0.1, 0]), np.array([0.0, 0, 1.0])]
    ours = run(Karcher(), models, given=parameters(Karcher, 3, max_iter=100, tol=1e-12)).astype(np.float64)
    units = [m / np.linalg.norm(m) for m in models]

    def pull(point):
        point = point / np.linalg.norm(point)
        offs = [(u - (u @ point) * point, np.arccos(u @ point)) for u in units]
        return np.linalg.norm(sum(angle * off / np.linalg.norm(off) for off, angle in offs))

    assert pull(ours) < 1e-6 < 1e-2 < pull(sum(units))


def test_karcher_of_special_models():
    a, b = np.array([1.0, 2.0, 2.0]), np.array([2.0, -2.0, 1.0])
    close(run(Karcher(), [a, a]), a)
    close(run(Karcher(), [a, -a]), a)  # the antipode pulls nowhere: the first
    close(run(Karcher(), [a, 0 * a, b]), (a + b) / np.sqrt(2) * 2 / 3)  # no direction, but a length
    close(run(Karcher(), [0 * a, 0 * a]), 0 * a)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("filter_wise", [False, True])
@pytest.mark.parametrize("shift", [False, True])
def test_model_stock(shape, filter_wise, shift):
    """With a common part of the changes, and without: then cosines of both signs."""
    base, models = world(shape, 3, seed=2)
    if shift:
        shift = bf16(np.abs(np.random.default_rng(9).normal(size=shape)) * 0.02)
        models = [bf16(m + shift) for m in models]
    deltas = [(m.astype(np.float64) - base).reshape(-1, shape[-1] if filter_wise else base.size) for m in models]
    twin = np.zeros_like(deltas[0])
    for row in range(len(twin)):
        d = [delta[row] for delta in deltas]
        pairs = [d[i] @ d[j] / np.linalg.norm(d[i]) / np.linalg.norm(d[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        cosine = np.mean(pairs)
        twin[row] = 3 * cosine / (1 + 2 * cosine) * np.mean(d, 0)
    ours = run(ModelStock(), models, base, parameters(ModelStock, 3, filter_wise=filter_wise))
    close(ours, base + twin.reshape(shape))


def test_model_stock_of_special_models():
    base = np.array([1.0, 2.0, 3.0])
    step = np.array([1.0, -1.0, 0.5])
    close(run(ModelStock(), [base + step, base + step], base), base + step)
    close(run(ModelStock(), [base + step, base - step], base), base)
    close(run(ModelStock(), [base, base], base), base)
    close(run(ModelStock(), [base + step, base], base), base)


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_warp_is_nuslerp_then_interpolation(eta):
    base, models = world((40, 51), 3, seed=4)
    deltas = [(m.astype(np.float64) - base).ravel() for m in models]
    twin = turned(turned(deltas[0], deltas[1], 1 / 2), deltas[2], 1 / 3)
    close(run(Warp(), models, base, parameters(Warp, 3, eta=eta)), base + eta * twin.reshape(base.shape))
    two = run(Warp(), models[:2], base, parameters(Warp, 2, eta=eta))
    by_hand = run(WiseFt(), [run(NuSlerp(), models[:2], base)], base, parameters(WiseFt, 1, eta=eta))
    close(two, by_hand)


def ram(base, models, epsilon, r=0.0, alpha=0.0):
    """Entry by entry in Python."""
    deltas = [(m - base).ravel() for m in models]
    who = [[i for i, d in enumerate(deltas) if abs(d[k]) > np.float32(epsilon)] for k in range(base.size)]
    shared = [sum(i in w and len(w) > 1 for w in who) for i in range(len(models))]
    unique = [sum(w == [i] for w in who) for i in range(len(models))]
    scale = [1 + r * min(s / u, alpha) if u else 1 for s, u in zip(shared, unique)]
    out = base.astype(np.float64).ravel()
    for k, w in enumerate(who):
        if len(w) == 1:
            out[k] += scale[w[0]] * deltas[w[0]][k]
        elif w:
            out[k] += np.mean([deltas[i][k] for i in w], dtype=np.float64)
    return out.reshape(base.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.05, 0.7])
@pytest.mark.parametrize("epsilon", [1e-5, 0.01])
def test_ram(shape, share, epsilon):
    base, models = world(shape, 3, seed=5, share=share)
    close(run(Ram(), models, base, parameters(Ram, 3, epsilon=epsilon)), ram(base, models, epsilon))
    plus = run(RamPlus(), models, base, parameters(RamPlus, 3, epsilon=epsilon, r=0.5, alpha=0.9))
    close(plus, ram(base, models, epsilon, 0.5, 0.9))


def test_ram_of_unchanged_and_single_models():
    base, (one,) = world((9, 9), 1)
    for method in (Ram(), RamPlus()):
        assert np.array_equal(run(method, [base, base], base), base)
        close(run(method, [one, base], base), one)
        assert np.array_equal(run(method, [one], base, parameters(method, 1, epsilon=10.0)), base)


def test_ram_counts_the_edge_of_epsilon_as_unchanged():
    base, model = np.zeros(3), np.array([0.25, -0.25, 0.2500001])
    out = run(Ram(), [model], base, parameters(Ram, 1, epsilon=0.25))
    assert out.tolist() == [0, 0, np.float32(0.2500001)]


@pytest.mark.parametrize("shape", SHAPES)
def test_one_model_beside_a_base(shape):
    base, (model,) = world(shape, 1, seed=6)
    wide, wide_base = model.astype(np.float64), base.astype(np.float64)
    for eta in (0.0, 0.4, 1.0, 1.5):
        close(run(WiseFt(), [model], base, parameters(WiseFt, 1, eta=eta)), (1 - eta) * wide_base + eta * wide)
    gap = np.abs(wide - wide_base)
    share = np.clip(np.divide(0.01, gap, out=np.ones_like(gap), where=gap > 0), 0, 1)
    near = run(Nearswap(), [model], base, parameters(Nearswap, 1, t=0.01))
    close(near, share * wide + (1 - share) * wide_base)
    assert np.array_equal(near[gap <= 0.0099], model[gap <= 0.0099])
    assert np.array_equal(run(Nearswap(), [model], base, parameters(Nearswap, 1, t=0.0)), base)
    assert np.array_equal(run(Passthrough(), [model]), model)
    scaled = run(Passthrough(), [model], given=parameters(Passthrough, 1, {"scale": [0.5]}))
    assert np.array_equal(scaled, model / 2)


BLOCKS = [
    (NuSlerp(), 2, {}), (NuSlerp(), 2, {"nuslerp_flatten": False}),
    (NuSlerp(), 2, {"nuslerp_flatten": False, "nuslerp_row_wise": True}), (MultiSlerp(), 3, {}), (Karcher(), 3, {}),
    (ModelStock(), 3, {}), (ModelStock(), 3, {"filter_wise": True}), (Warp(), 3, {}),
    (Ram(), 3, {}), (RamPlus(), 3, {}),
]


@pytest.mark.parametrize("method, count, shared", BLOCKS, ids=lambda value: getattr(value, "name", None))
def test_the_size_of_a_block_changes_nothing(method, count, shared):
    """Sums in double precision differ in their last bits by block; the fp32 result does not (chosen tensors)."""
    base, models = world((60, 700), count, seed=7)
    given = parameters(method, count, **shared)
    results = [run(method, models, None if method.base == "none" else base, given, size) for size in (777, 8192, 10**6)]
    assert len({result.tobytes() for result in results}) == 1


REFUSED = [
    (NuSlerp, 2, {"weight": [1.0, float("nan")]}, {}, "weight"),
    (NuSlerp, 2, None, {"nuslerp_row_wise": True}, "nuslerp_row"),
    (MultiSlerp, 2, {"weight": [1.0, -1.0]}, {}, "sum to zero"), (MultiSlerp, 2, None, {"eps": -1.0}, "eps"),
    (MultiSlerp, 2, {"weight": [1.0, float("inf")]}, {}, "weight"), (Karcher, 2, None, {"max_iter": 0}, "max_iter"),
    (Karcher, 2, None, {"max_iter": 2.5}, "max_iter"), (Karcher, 2, None, {"tol": 0.0}, "tol"),
    (Ram, 2, None, {"epsilon": -1e-5}, "epsilon"), (RamPlus, 2, None, {"r": float("nan")}, "r:"),
    (RamPlus, 2, None, {"alpha": -1.0}, "alpha"), (WiseFt, 1, None, {"eta": float("inf")}, "eta"),
    (Warp, 2, None, {"eta": float("nan")}, "eta"), (Nearswap, 1, None, {"t": -0.1}, "t:"),
    (Passthrough, 1, {"scale": [float("nan")]}, {}, "scale"),
]


@pytest.mark.parametrize("method, count, own, shared, words", REFUSED)
def test_values_out_of_range(method, count, own, shared, words):
    with pytest.raises(ValueError, match=words):
        method().check(parameters(method, count, own, **shared))
