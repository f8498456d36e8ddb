"""Reinforced Agent Merging (arXiv:2601.13572): RL changes few entries; what one model alone changed is kept whole."""

from __future__ import annotations

import math

import numpy as np

from pt_tools.merge.geometry import differences, parts
from pt_tools.merge.method import Method


class Ram(Method):
    """b + mean of the d_i that changed this entry (|d_i| > epsilon), over those models alone; b where none did."""

    name = "ram"
    base = "required"
    shared = {"epsilon": 1e-5}

    def check(self, parameters):
        if not 0 <= parameters.shared["epsilon"] < math.inf:
            raise ValueError(f"epsilon: {parameters.shared['epsilon']} is not in [0, ∞)")

    def apply(self, block, parameters, stats):
        for part in parts(len(block.out)):
            deltas = differences(block, part)
            changed, count = changes(deltas, parameters)
            total = np.zeros_like(deltas[0])
            for index, (delta, mask) in enumerate(zip(deltas, changed)):
                total += delta * mask * self.scale(index, count, parameters, stats)
            block.out[part] = block.base[part] + total / np.maximum(count, 1)

    def scale(self, index: int, count: np.ndarray, parameters, stats):
        """What the model's part is multiplied by before the mean."""
        return np.float32(1)


class RamPlus(Ram):
    """RAM with the entries that model i alone changed multiplied by λ_i = 1 + r · clip(shared_i/unique_i, 0, alpha).

    shared_i and unique_i count the entries that model i changed together with others and alone, per tensor. Without
    unique entries λ_i has nothing to act on.
    """

    name = "ramplus_tl"
    shared = {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}
    passes = 1

    def check(self, parameters):
        super().check(parameters)
        for name in ("r", "alpha"):
            if not 0 <= parameters.shared[name] < math.inf:
                raise ValueError(f"{name}: {parameters.shared[name]} is not in [0, ∞)")

    def observe(self, number, block, parameters, stats):
        """(models, 2): entries changed with others, and alone."""
        counts = np.zeros((len(block.models), 2), np.int64)
        for part in parts(len(block.out)):
            changed, count = changes(differences(block, part), parameters)
            alone = count == 1
            for index, mask in enumerate(changed):
                unique = np.count_nonzero(mask & alone)
                counts[index] += np.count_nonzero(mask) - unique, unique
        return counts

    def fold(self, number, state, partial):
        return partial if state is None else state + partial

    def finish(self, number, state, shape, parameters, stats):
        """λ_i, (models,)."""
        ratio = state[:, 0] / np.maximum(state[:, 1], 1)
        return 1 + parameters.shared["r"] * np.minimum(ratio, parameters.shared["alpha"])

    def scale(self, index, count, parameters, stats):
        return np.where(count == 1, np.float32(stats[0][index]), np.float32(1))


def changes(deltas: list[np.ndarray], parameters) -> tuple[list[np.ndarray], np.ndarray]:
    """Which entries each model changed, and how many models changed each entry (fp32)."""
    epsilon = np.float32(parameters.shared["epsilon"])
    changed = [np.abs(delta) > epsilon for delta in deltas]
    return changed, np.sum(changed, axis=0, dtype=np.float32)
