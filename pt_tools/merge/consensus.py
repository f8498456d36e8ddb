"""SCE: the positions on which models differ most, weighted by how far each model moved there, minorities erased."""

from __future__ import annotations

import numpy as np

from pt_tools.merge.magnitude import to_deltas
from pt_tools.merge.method import Block, Method
from pt_tools.merge.select import LOOKS, Counts, guess

STEP = 257  # one entry of so many guesses the threshold


class Sce(Method):
    """Select, calculate, erase (FuseChat, arXiv:2408.07990): b + Σ_agree w_i d_i / Σ_agree w_i, tensor by tensor.

    Select: exactly k = ⌊select_topk · (entries whose variance over d_i is not 0)⌋ entries stay, the largest variances
    (computed in fp32); of equal ones the first in index order. Calculate: w_i is the mean square of what is left of
    d_i, over their sum; equal where nothing is left (in mergekit also where that sum is below 1e-6). Erase: at each
    entry only the d_i with the sign of Σ d_i count, a sum of 0 being positive. b where nothing counts.
    """

    name = "sce"
    base = "required"
    models = (2, None)
    shared = {"select_topk": 1.0}
    passes = LOOKS + 1
    buffers = 3

    def check(self, parameters):
        if not 0 < parameters.shared["select_topk"] <= 1:
            raise ValueError("select_topk must be above 0 and at most 1")

    def passes_for(self, parameters):
        return 1 if parameters.shared["select_topk"] == 1 else self.passes

    def select(self, number, count, parameters, stats):
        if number in (0, self.passes_for(parameters) - 1):
            return range(count)
        return range(count) if stats[-1].open else range(0)

    def observe(self, number, block, parameters, stats):
        to_deltas(block)
        if number == self.passes_for(parameters) - 1:
            self._chosen(block, parameters, stats)
            return np.array([np.multiply(model, model, dtype=np.float64).sum() for model in block.models])
        bits = self._variance(block).view(np.int32)
        if number == 0:
            return np.count_nonzero(bits), bits[::STEP].copy()
        return stats[-1].look(bits, block.scratch[0])

    def fold(self, number, state, partial):
        if isinstance(partial, np.ndarray):
            return partial if state is None else state + partial
        if number == 0:
            count, samples = state or (0, [])
            return count + partial[0], [*samples, partial[1]]
        state = state or Counts()
        state.append(partial)
        return state

    def finish(self, number, state, shape, parameters, stats):
        if number == self.passes_for(parameters) - 1:
            total = state.sum()
            return state / total if total > 0 else np.full(len(state), 1 / len(state))
        if number == 0:
            keep = int(parameters.shared["select_topk"] * int(state[0]))
            return guess(np.concatenate(state[1]), keep, int(np.prod(shape)))
        return stats[-1] if state is None else stats[-1].narrowed(state)

    def apply(self, block, parameters, stats):
        to_deltas(block)
        self._chosen(block, parameters, stats)
        above, total, weight = block.scratch[0], block.out, block.scratch[1]
        np.add.reduce(block.models, axis=0, out=above)
        above = above >= 0
        total[:] = 0
        weight[:] = 0
        for share, model in zip(stats[-1].astype(np.float32), block.models):
            agree = np.where(above, model > 0, model < 0)
            total += model * agree * share
            weight += agree * share
        np.divide(total, weight, out=total, where=weight > 0)
        np.add(block.base, total, out=block.out)

    @staticmethod
    def _variance(block: Block) -> np.ndarray:
        """Population variance of the d_i, in a scratch array."""
        mean, work, out = block.scratch
        mean[:] = 0
        out[:] = 0
        size = np.float32(len(block.models))
        with np.errstate(over="ignore"):
            for model in block.models:
                mean += model
            mean /= size
            for model in block.models:
                np.subtract(model, mean, out=work)
                work *= work
                out += work
            out /= size
        return out

    def _chosen(self, block: Block, parameters, stats) -> None:
        """0 for the entries that were not selected."""
        kept = len(block.out)
        if self.passes_for(parameters) > 1:
            variance = self._variance(block)
            stats[self.passes - 2].trim(variance, block, block.scratch[0])
            chosen = variance > 0
            kept = int(np.count_nonzero(chosen))
            for model in block.models:
                np.multiply(model, chosen, out=model)
        if block.kept is not None:
            block.kept.extend([kept] * len(block.models))
