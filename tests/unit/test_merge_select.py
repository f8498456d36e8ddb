"""The exact k-th largest magnitude, against a sort: data that the sample misleads, ties across blocks, every k."""

import numpy as np
import pytest
from merge_harness import parameters, run

from pt_tools.merge import select
from pt_tools.merge.magnitude import Ties

BLOCK = 512
COUNT = 64 * BLOCK + 77


def skewed(rng):
    """Blocks that are sampled hold small numbers, the others large ones."""
    values = rng.normal(size=COUNT)
    sampled = (np.arange(COUNT) // BLOCK) % select.SAMPLED_BLOCKS == 0
    return np.where(sampled, values * 1e-3, values + 10)


DATA = {
    "continuous": lambda rng: rng.normal(size=COUNT),
    "few": lambda rng: rng.integers(-3, 4, COUNT) / 8,
    "one": lambda rng: np.full(COUNT, 0.5),
    "mostly zero": lambda rng: rng.normal(size=COUNT) * (rng.random(COUNT) < 0.01),
    "misleading sample": skewed,
    "periodic": lambda rng: np.arange(COUNT) % select.SAMPLED_ENTRIES + 1.0,
    "rising": lambda rng: np.linspace(0, 1, COUNT) ** 3,
    "falling": lambda rng: np.linspace(1, 0, COUNT) ** 3,
    "wide": lambda rng: np.exp(rng.normal(size=COUNT) * 20),
    "subnormal": lambda rng: rng.integers(0, 100, COUNT) * 1e-44,
    "huge": lambda rng: np.where(rng.random(COUNT) < 0.5, 3e38, -3e38),
}


def kept(values, k):
    out = np.zeros_like(values)
    order = np.argsort(-np.abs(values), kind="stable")[:k]
    out[order] = values[order]
    return out


@pytest.mark.parametrize("held", [select.HELD, 40])
@pytest.mark.parametrize("density", [1e-6, 0.01, 0.2, 0.5, 0.9, 1 - 1e-6])
@pytest.mark.parametrize("data", DATA)
def test_exactly_k_stay_and_equal_ones_in_index_order(data, density, held, monkeypatch):
    """With room for few distinct values a histogram takes their place, and more passes are made."""
    monkeypatch.setattr(select, "HELD", held)
    values = np.asarray(DATA[data](np.random.default_rng(3)), np.float32)
    given = parameters(Ties, 1, {"density": [density]}, normalize=False)
    got = run(Ties(), [values], np.zeros(COUNT), given, BLOCK)
    assert np.array_equal(got, kept(values, max(1, int(density * COUNT))))


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 30])
def test_every_k_of_small_tensors(count):
    values = np.random.default_rng(count).integers(-4, 5, count).astype(np.float32)
    for k in range(1, count + 1):
        given = parameters(Ties, 1, {"density": [(k + 0.5) / count if k < count else 1.0]}, normalize=False)
        for size in (1, 4, 100):
            assert np.array_equal(run(Ties(), [values], np.zeros(count), given, size), kept(values, k)), (k, size)


def test_passes_are_few():
    """One counting pass after the sample decides for continuous data and for few values; the worst case stays in bounds."""
    seen = {}
    for name, make in DATA.items():
        values = np.asarray(make(np.random.default_rng(3)), np.float32)
        passes = set()

        class Watched(Ties):
            def look(self, number, *rest):
                passes.add(number)
                return Ties.look(self, number, *rest)

        run(Watched(), [values], np.zeros(COUNT), parameters(Ties, 1, {"density": [0.4]}), BLOCK)
        seen[name] = len(passes)
    assert seen["continuous"] == seen["few"] == seen["one"] == 2
    assert max(seen.values()) <= select.LOOKS


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_rescaled_to_the_size_before(density):
    values = np.random.default_rng(8).normal(size=COUNT).astype(np.float32)
    given = parameters(Ties, 1, {"density": [density]}, normalize=False, rescale="l1")
    got = run(Ties(), [values], np.zeros(COUNT), given, BLOCK)
    plain = kept(values, int(density * COUNT))
    factor = np.abs(values).sum(dtype=np.float64) / np.abs(plain).sum(dtype=np.float64)
    np.testing.assert_allclose(got, plain * factor, rtol=2e-6)
