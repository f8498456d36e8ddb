"""Task vectors thinned by the rank of their entries: breadcrumbs between two thresholds, DELLA by chance."""

from __future__ import annotations

import numpy as np

from pt_tools.merge.magnitude import MAGNITUDE, SAMPLE, Counts, Dare, combine, guess, random_bits, to_deltas
from pt_tools.merge.method import Block, Method, Parameters

CHANCES = 1 << 16  # random_bits gives 16 bits: probabilities are multiples of 1/CHANCES


class Breadcrumbs(Method):
    """b + λ Σ w_i d'_i; of each d_i = x_i − b the largest and the smallest magnitudes are dropped (arXiv:2312.06795).

    ⌊gamma · n⌋ outliers go, then exactly ⌊density · n⌋ entries stay and the rest goes; fewer outliers where both do not
    fit. Of equal magnitudes the first in index order counts as the larger, as in TIES.
    """

    name = "breadcrumbs"
    base = "required"
    own = {"weight": 1.0, "density": 1.0, "gamma": 0.01}
    shared = {"lambda": 1.0, "normalize": False}
    passes = 7
    buffers = 3
    vote = False

    def check(self, parameters):
        if not all(0 < one["density"] <= 1 for one in parameters.own):
            raise ValueError("density must be above 0 and at most 1")
        if not all(0 <= one["gamma"] < 1 for one in parameters.own):
            raise ValueError("gamma must be at least 0 and below 1")

    def select(self, number, count, parameters, stats):
        if number == 0:
            return range(0, count, SAMPLE // 8)
        return range(count) if any(search.open for pair in stats[-1] for search in pair) else range(0)

    def observe(self, number, block, parameters, stats):
        to_deltas(block)
        out = []
        for i, model in enumerate(block.models):
            bits = model.view(np.int32)
            np.bitwise_and(bits, MAGNITUDE, out=bits)
            if number == 0:
                out.append(bits[:: SAMPLE // 8 + 1].copy())
            else:
                out.append([search.look(bits, block) if search.open else None for search in stats[-1][i]])
        return out

    def fold(self, number, state, partial):
        if number == 0:
            return [[*before, part] for before, part in zip(state or [[]] * len(partial), partial)]
        state = state or [(Counts(), Counts()) for _ in partial]
        for pair, parts in zip(state, partial):
            for counts, part in zip(pair, parts):
                if part is not None:
                    counts.append(part)
        return state

    def finish(self, number, state, shape, parameters, stats):
        """For each model the searches for the entries down to the last that stays, and for the outliers."""
        if state is None:
            return stats[-1]
        if number == 0:
            return [self._searches(np.concatenate(samples), int(np.prod(shape)), one)
                    for samples, one in zip(state, parameters.own)]
        return [[search.narrowed(counts) if search.open else search for search, counts in zip(searches, pair)]
                for searches, pair in zip(stats[-1], state)]

    @staticmethod
    def _searches(sample: np.ndarray, count: int, one: dict) -> list:
        stay = int(one["density"] * count)
        outliers = min(int(one["gamma"] * count), count - stay)
        return [guess(sample, stay + outliers, count), guess(sample, outliers, count)]

    def apply(self, block, parameters, stats):
        to_deltas(block)
        work, large = block.scratch[:2]
        for model, (all_of_them, outliers) in zip(block.models, stats[-1]):
            np.copyto(large, model)
            outliers.trim(large, block, work)
            all_of_them.trim(model, block, work)
            np.subtract(model, large, out=model)
            if block.kept is not None:
                block.kept.append(int(np.count_nonzero(model)))
        combine(block, parameters, self.vote)


class BreadcrumbsTies(Breadcrumbs):
    """Breadcrumbs' thinned differences, then the vote on signs of TIES (arXiv:2306.01708)."""

    name = "breadcrumbs_ties"
    shared = {"lambda": 1.0, "normalize": True}
    vote = True


class DellaLinear(Dare):
    """DARE with a chance that grows with magnitude (MAGPRUNE, arXiv:2406.11617), without its vote on signs.

    In every row (last axis) of d = x − b the entry of rank r = 0 … n−1, smallest magnitude first and equal ones in
    index order, stays with probability p_r = density − epsilon + 2 epsilon · r/(n−1); density where n = 1. All stay at
    density 1. `rescale`: inverse divides what stays by its p_r (the paper's), l1 multiplies it by ‖d‖₁/‖d'‖₁ of the
    tensor, none leaves it. p_r is rounded to a multiple of 2⁻¹⁶.
    """

    name = "della_linear"
    own = {"weight": 1.0, "density": 1.0, "epsilon": 0.15}
    rows = True

    def check(self, parameters):
        for one in parameters.own:
            density, epsilon = one["density"], one["epsilon"]
            if density != 1 and not (epsilon >= 0 and 1 / CHANCES <= density - epsilon and density + epsilon < 1):
                raise ValueError(f"density ± epsilon ({density} ± {epsilon}) must lie between 0 and 1, or density be 1")
        if parameters.shared["rescale"] not in ("inverse", "l1", "none"):
            raise ValueError("rescale must be inverse, l1 or none")

    def _drop(self, block: Block, parameters: Parameters) -> None:
        for i, (model, one) in enumerate(zip(block.models, parameters.own)):
            if one["density"] < 1:
                chances = _chances(model.reshape(-1, block.row_length), one["density"], one["epsilon"])
                keep = random_bits(block, i) < chances
                np.multiply(model, keep, out=model)
                if parameters.shared["rescale"] == "inverse":
                    np.multiply(model, np.float32(CHANCES) / chances.astype(np.float32), out=model)
            if block.kept is not None:
                block.kept.append(len(model) if one["density"] == 1 else int(np.count_nonzero(keep)))

    def _factor(self, i: int, parameters: Parameters, stats: list) -> float:
        return super()._factor(i, parameters, stats) if parameters.shared["rescale"] == "l1" else 1.0


class Della(DellaLinear):
    """DELLA: entries kept by chance, larger ones more often (see della_linear), then the vote on signs of TIES."""

    name = "della"
    shared = {"lambda": 1.0, "normalize": True, "rescale": "inverse"}
    vote = True


def _chances(rows: np.ndarray, density: float, epsilon: float) -> np.ndarray:
    """(n,) int32 of CHANCES by rank in the row: one sort of magnitude and index packed into 64 bits."""
    length = rows.shape[1]
    slope = np.arange(length) / (length - 1) if length > 1 else np.array([0.5])
    of_rank = np.rint((density - epsilon + 2 * epsilon * slope) * CHANCES).astype(np.int32)
    keys = (rows.view(np.int32) & MAGNITUDE).astype(np.int64)
    keys <<= 32
    keys |= np.arange(length)
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    out = np.empty(rows.shape, np.int32)
    np.put_along_axis(out, keys, of_rank[None], axis=1)
    return out.reshape(-1)
