"""Truncated singular value decompositions of the change between two stored matrices, read in pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from pt_tools.merge import numbers

PIECE = 1 << 20  # entries of a change that are in memory at a time
EXACT = 1024  # shorter side up to which a matrix is decomposed whole
OVERSAMPLED, ROUNDS = 16, 4  # of the randomised decomposition (Halko, Martinsson & Tropp 2011, algorithm 4.4)


@dataclass
class Low:
    """change ≈ left · right, (rows, rank) and (rank, columns) in fp32; `kept` of `total`, squared norms."""

    left: np.ndarray
    right: np.ndarray
    kept: float
    total: float


class Delta:
    """tuned - base of one tensor, fp32."""

    def __init__(self, old, new, name: str):
        self.old, self.new, self.name, self.shape = old, new, name, new.tensors[name].shape

    def pieces(self, width: int | None = None):
        """(start, flat fp32 piece) in order; whole rows of `width`."""
        total, step = math.prod(self.shape), max(1, PIECE // (width or 1)) * (width or 1)
        for start in range(0, total, step):
            count = min(step, total - start)
            a, b = (self._read(store, start, count) for store in (self.old, self.new))
            yield start, b - a

    def _read(self, store, start: int, count: int) -> np.ndarray:
        tensor = store.tensors[self.name]
        raw, out = np.empty(count * numbers.SIZES[tensor.dtype], np.uint8), np.empty(count, np.float32)
        store.read_into(tensor, start, count, raw)
        if tensor.dtype in numbers.FLOATS:
            numbers.decode(numbers.view(raw, tensor.dtype), tensor.dtype, out)
            return out
        return raw.view(np.dtype(f"u{numbers.SIZES[tensor.dtype]}")).astype(np.float64)

    def changed(self) -> bool:
        for _, piece in self.pieces():
            if not np.isfinite(piece).all():
                from pt_tools.errors import BadModel

                raise BadModel(f"tensor {self.name} has NaN or infinite numbers", str(self.new.path))
            if piece.any():
                return True
        return False

    def square(self) -> float:
        """The squared Frobenius norm, in fp64."""
        return sum(float(np.square(piece, dtype=np.float64).sum()) for _, piece in self.pieces())

    def whole(self) -> np.ndarray:
        out = np.empty(math.prod(self.shape))
        for start, piece in self.pieces():
            out[start:start + piece.size] = piece
        return out.reshape(self.shape)

    def times(self, right: np.ndarray) -> np.ndarray:
        """change · right, (rows, k), fp64."""
        width, out = self.shape[1], np.empty((self.shape[0], right.shape[1]))
        right = right.astype(np.float32)
        for start, piece in self.pieces(width):
            rows = piece.reshape(-1, width)
            out[start // width:start // width + len(rows)] = rows @ right
        return out

    def times_transposed(self, left: np.ndarray) -> np.ndarray:
        """changeᵀ · left, (columns, k), fp64."""
        width, out = self.shape[1], np.zeros((self.shape[1], left.shape[1]))
        left = left.astype(np.float32)
        for start, piece in self.pieces(width):
            rows = piece.reshape(-1, width)
            out += rows.T @ left[start // width:start // width + len(rows)]
        return out


def truncated(delta: Delta, rank: int | None, energy: float | None, seed: int = 0) -> Low:
    """The best approximation of this rank, or of the least rank that keeps the share `energy`, at most `rank`.

    Exact where the shorter side is at most 1024 or the rank is a quarter of it; else randomised subspace iteration
    whose start is drawn from (seed, name), for `energy` with ranks that double until the share is reached.
    """
    shortest, total = min(delta.shape), delta.square()
    guess = min(rank or shortest, shortest) if energy is None else min(rank or shortest, 64, shortest)
    while shortest > EXACT and 4 * guess <= shortest:
        u, s, vt = _randomised(delta, guess, seed)
        if energy is None or np.sum(s[:guess] ** 2) >= energy * total or guess == rank:
            return _cut(u, s, vt, rank, energy, total)
        guess = min(2 * guess, rank or shortest)
    u, s, vt = np.linalg.svd(delta.whole(), full_matrices=False)
    return _cut(u, s, vt, rank, energy, total)


def _randomised(delta: Delta, rank: int, seed: int):
    draw = np.random.Generator(np.random.PCG64([seed, crc32(delta.name.encode())]))
    size = min(rank + OVERSAMPLED, *delta.shape)
    q = np.linalg.qr(delta.times(draw.standard_normal((delta.shape[1], size))))[0]
    for _ in range(ROUNDS):
        q = np.linalg.qr(delta.times_transposed(q))[0]
        q = np.linalg.qr(delta.times(q))[0]
    u, s, vt = np.linalg.svd(delta.times_transposed(q).T, full_matrices=False)
    return q @ u, s, vt


def _cut(u, s, vt, rank, energy, total: float) -> Low:
    sums = np.cumsum(s ** 2)
    r = min(rank or len(s), len(s))
    if energy is not None:
        r = min(r, int(np.searchsorted(sums, energy * total * (1 - 1e-12))) + 1)
    r = max(1, min(r, int(np.count_nonzero(s > s[0] * 1e-9))))  # what is below is rounding
    root = np.sqrt(s[:r])  # shared between both sides, so that neither is tiny
    return Low((u[:, :r] * root).astype(np.float32), (root[:, None] * vt[:r]).astype(np.float32),
               min(float(sums[r - 1]), total), total)
