"""DELLA: task vectors thinned by chance, the larger entries of a row less often."""

from __future__ import annotations

import numpy as np

from pt_tools.merge.magnitude import CHANCES, Dare, Thinned, random_bits
from pt_tools.merge.method import Block, Parameters
from pt_tools.merge.select import MAGNITUDE


class DellaLinear(Dare):
    """DARE with a chance that grows with magnitude (MAGPRUNE, arXiv:2406.11617), without its vote on signs.

    In every row (last axis) of d = x − b the entry of rank r = 0 … n−1, smallest magnitude first and equal ones in
    index order, stays with probability p_r = density − epsilon + 2 epsilon · r/(n−1); density where n = 1. All stay at
    density 1. `rescale`: inverse divides what stays by its p_r (the paper's), l1 multiplies it by ‖d‖₁/‖d'‖₁ of the
    tensor, none leaves it. p_r is rounded to a multiple of 2⁻¹⁶.
    """

    name = "della_linear"
    own = {"weight": 1.0, "density": 1.0, "epsilon": 0.15}

    def check(self, parameters):
        for one in parameters.own:
            density, epsilon = one["density"], one["epsilon"]
            if density != 1 and not (epsilon >= 0 and 1 / CHANCES <= density - epsilon and density + epsilon < 1):
                raise ValueError(f"density ± epsilon ({density} ± {epsilon}) must lie between 0 and 1, or density be 1")
        Thinned.check(self, parameters)

    def whole_rows(self, parameters):
        return True

    def thin(self, block: Block, parameters: Parameters, stats: list) -> None:
        for i, (model, one) in enumerate(zip(block.models, parameters.own)):
            if one["density"] < 1:
                chances = _chances(model.reshape(-1, block.row_length), one["density"], one["epsilon"])
                keep = random_bits(block, i) < chances
                np.multiply(model, keep, out=model)
                if parameters.shared["rescale"] == "inverse":
                    np.multiply(model, np.float32(CHANCES) / chances.astype(np.float32), out=model)

    def factor(self, i: int, parameters: Parameters, stats: list) -> float:
        return Thinned.factor(self, i, parameters, stats)  # inverse is done entry by entry


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
