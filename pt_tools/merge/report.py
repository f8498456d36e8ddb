"""What one merged tensor looked like: sums over its blocks, and the row made of them."""

from __future__ import annotations

import math

import numpy as np

from pt_tools.merge.method import Block
from pt_tools.merge.numbers import dot


class Tally:
    """Sums over the blocks of one tensor, additive and few, so that a stopped run can go on with them.

    `sums` (float64): non-finite inputs, then, if a report is wanted: entries kept of each model, sign conflicts, and
    the inner products of all pairs of models and base, and of all pairs of differences from the base.
    """

    def __init__(self, item, wanted: bool, sums=None):
        self.wanted, self.models, self.base = wanted, len(item.sources), item.base is not None
        vectors = self.models + self.base
        size = 1 + (self.models + 1 + _pairs(vectors) + _pairs(self.models) if wanted else 0)
        self.sums = np.zeros(size) if sums is None else np.array(sums, np.float64)

    @property
    def nonfinite(self) -> int:
        return int(self.sums[0])

    def add(self, part: np.ndarray) -> None:
        self.sums += part

    def observe(self, block: Block, bad: list[int]) -> np.ndarray:
        """The part of a block before `apply` works in its arrays."""
        if not self.wanted:
            return np.array([sum(bad)], np.float64)
        block.kept = []
        work = np.empty_like(block.out)
        vectors = [*block.models, *([block.base] if self.base else [])]
        deltas = [model - block.base for model in block.models] if self.base else block.models
        positive = np.logical_or.reduce([delta > 0 for delta in deltas])
        negative = np.logical_or.reduce([delta < 0 for delta in deltas])
        conflicts = np.count_nonzero(positive & negative)
        return np.array([sum(bad), *[0] * self.models, conflicts, *_products(vectors, work), *_products(deltas, work)])

    def complete(self, part: np.ndarray, block: Block) -> np.ndarray:
        """With what `apply` kept; a method that says nothing keeps all."""
        if self.wanted:
            part[1:1 + self.models] = block.kept or [len(block.out)] * self.models
        return part

    def copied(self, bad: int) -> np.ndarray:
        part = np.zeros_like(self.sums)
        part[0] = bad
        return part

    def row(self, item) -> dict:
        """tensor, shape, dtype, method, nonfinite, and for what was computed: shares of entries that stay (those that
        are 0 do not count where a method drops any), share of entries on which
        models (their differences from the base, if there is one) have both signs, cosines and norms."""
        row = {"tensor": item.name, "shape": list(item.shape), "dtype": item.dtype, "method": item.method.name,
               "nonfinite": self.nonfinite}
        if not self.wanted or item.method.verbatim(item.parameters):
            return row
        count = max(1, math.prod(item.shape))
        kept, rest = self.sums[1:1 + self.models], self.sums[1 + self.models:]
        vectors = self.models + self.base
        gram, deltas = _matrix(rest[1:1 + _pairs(vectors)], vectors), _matrix(rest[1 + _pairs(vectors):], self.models)
        row |= {"kept": [float(n) / count for n in kept], "sign_conflicts": float(rest[0]) / count,
                "norm": _norms(gram)[:self.models], "cosine": _cosines(gram, self.models)}
        if self.base:
            row["cosine_to_base"] = [_cosine(gram, i, self.models) for i in range(self.models)]
            row |= {"delta_norm": _norms(deltas), "delta_cosine": _cosines(deltas, self.models)}
        return row


def _pairs(count: int) -> int:
    return count * (count + 1) // 2


def _products(vectors: list, work: np.ndarray) -> list[float]:
    return [dot(vectors[i], vectors[j], work) for i in range(len(vectors)) for j in range(i + 1)]


def _matrix(flat: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((size, size))
    out[np.tril_indices(size)] = flat
    return out + np.tril(out, -1).T


def _norms(gram: np.ndarray) -> list[float]:
    return np.sqrt(np.diag(gram)).tolist()


def _cosine(gram: np.ndarray, i: int, j: int) -> float | None:
    norm = math.sqrt(gram[i, i] * gram[j, j])
    return float(gram[i, j] / norm) if norm else None


def _cosines(gram: np.ndarray, count: int) -> list:
    """[i, j, cosine] of all pairs."""
    return [[i, j, _cosine(gram, i, j)] for j in range(count) for i in range(j)]
