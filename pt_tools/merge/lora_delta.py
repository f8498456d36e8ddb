"""What adapters change in the blocks of a tensor: objects with `add(block, start, rows)`, see `plan.Source`.

`identity()` is a JSON value that says which change it is: the adapter's tensors as the file system knows them.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from pt_tools.merge import numbers, tensors
from pt_tools.merge.plan import Source

PIECE = 1 << 18  # entries that a pass over a tensor reads at a time


class _Kept:
    """The last few tensors that were loaded in fp32, for all threads: an adapter is never in memory as a whole."""

    def __init__(self, size: int = 12):
        self._size, self._lock, self._files = size, threading.Lock(), tensors.Files()
        self._arrays: OrderedDict = OrderedDict()

    def load(self, tensor: tensors.Tensor) -> np.ndarray:
        key = (tensor.path, tensor.offset, tensor.name)
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = self._read(tensor)
            self._arrays.move_to_end(key)
            while len(self._arrays) > self._size:
                self._arrays.popitem(last=False)
            return self._arrays[key]

    def _read(self, tensor) -> np.ndarray:
        out = np.empty(tensor.shape, np.float32)
        self.read(tensor, 0, out.reshape(-1))
        return out

    def read(self, tensor, start: int, out: np.ndarray) -> None:
        """Entries from `start` on into flat fp32 `out`."""
        raw = np.empty(out.size * numbers.SIZES[tensor.dtype], np.uint8)
        if out.size:
            self._files.read_into(tensor, start, out.size, raw)
        numbers.decode(numbers.view(raw, tensor.dtype), tensor.dtype, out)


def _stored(tensor: tensors.Tensor) -> list:
    stat = os.stat(tensor.path)
    return [tensor.path, tensor.offset, list(tensor.shape), stat.st_size, stat.st_mtime_ns, stat.st_ino]


_kept = _Kept()
_local = threading.local()


def _buffer(size: int) -> np.ndarray:
    """This thread's fp32 buffer: fresh memory costs more than the product that goes into it."""
    if getattr(_local, "buffer", np.empty(0)).size < size:
        _local.buffer = np.empty(size, np.float32)
    return _local.buffer[:size]


def spans(start: int, count: int, width: int):
    """The rectangles (row, rows, column, columns) that entries start … start + count of rows of `width` fill."""
    end = start + count
    while start < end:
        row, column = divmod(start, width)
        if column or end - start < width:
            columns = min(width - column, end - start)
            yield row, 1, column, columns
            start += columns
        else:
            whole = (end - start) // width
            yield row, whole, 0, width
            start += whole * width


@dataclass(frozen=True)
class Factors:
    """scale · B·A, or its transpose: A (r, in…), B (out, r…)."""

    a: tensors.Tensor
    b: tensors.Tensor
    scale: float
    transposed: bool

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, r) and (r, columns)."""
        a, b = _kept.load(self.a), _kept.load(self.b)
        a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        return (a.T, b.T) if self.transposed else (b, a)

    @property
    def width(self) -> int:
        """Entries of one row of the changed tensor."""
        return self.b.shape[0] if self.transposed else int(np.prod(self.a.shape[1:]))


class LowRank:
    """W + scale · B·A."""

    def __init__(self, factors: Factors):
        self.factors = factors

    def identity(self) -> list:
        one = self.factors
        return ["low rank", _stored(one.a), _stored(one.b), one.scale, one.transposed]

    def add(self, block: np.ndarray, start: int, rows: np.ndarray | None = None) -> None:
        left, right = self.factors.sides()
        place = 0
        for row, number, column, columns in spans(start, block.size, self.factors.width):
            part = left[row:row + number] if rows is None else _gathered(left, rows[row:row + number])
            out = _buffer(number * columns).reshape(number, columns)
            np.matmul(part, right[:, column:column + columns], out=out)
            np.multiply(out, np.float32(self.factors.scale), out=out)
            flat = block[place:place + out.size]
            np.add(flat, out.reshape(-1), out=flat)
            place += out.size


def _gathered(left: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows, zeros where the gather has none."""
    out = left[np.maximum(rows, 0)]
    out[rows < 0] = 0
    return out


class Dora:
    """m · (W + scale · B·A) / ‖W + scale · B·A‖: one norm a row, or a column where the tensor is stored transposed.

    The norms want one pass over W before the first block; sums of squares are fp64 over fixed pieces.
    """

    def __init__(self, factors: Factors, magnitude: tensors.Tensor, source: Source, by_rows: bool):
        self.change, self.magnitude, self.by_rows = LowRank(factors), magnitude, by_rows
        self.source, self._lock, self._ratio = source, threading.Lock(), None
        self.length = source.tensor.shape[0] if by_rows else factors.width

    def identity(self) -> list:
        before = self.source.delta.identity() if self.source.delta else None
        return ["dora", self.change.identity(), _stored(self.magnitude), before]

    def add(self, block: np.ndarray, start: int, rows: np.ndarray | None = None) -> None:
        ratio, place = self._ratios(), 0
        if self.source.delta is not None:
            self.source.delta.add(block, start, rows)
        self.change.add(block, start, rows)
        for row, number, column, columns in spans(start, block.size, self.change.factors.width):
            part = block[place:place + number * columns].reshape(number, columns)
            index = np.arange(row, row + number) if rows is None else rows[row:row + number]
            there = slice(None) if rows is None else np.flatnonzero(index >= 0)
            part[there] *= ratio[index[there], None] if self.by_rows else ratio[column:column + columns]
            place += part.size

    def _ratios(self) -> np.ndarray:
        with self._lock:
            if self._ratio is None:
                magnitude = _kept.load(self.magnitude).reshape(-1)
                with np.errstate(divide="ignore", invalid="ignore"):
                    self._ratio = (magnitude / np.sqrt(self._squares())).astype(np.float32)
        return self._ratio

    def _squares(self) -> np.ndarray:
        out, tensor, width = np.zeros(self.length), self.source.tensor, self.change.factors.width
        step = max(1, PIECE // width) * width
        total = tensor.shape[0] * width
        for start in range(0, total, step):
            block = np.empty(min(step, total - start), np.float32)
            _kept.read(tensor, start, block)
            if self.source.delta is not None:
                self.source.delta.add(block, start, None)
            self.change.add(block, start, None)
            squares = np.square(block.reshape(-1, width), dtype=np.float64)
            if self.by_rows:
                out[start // width:start // width + len(squares)] = squares.sum(axis=1)
            else:
                out += squares.sum(axis=0)
        return out


class Rows:
    """Some rows are replaced: `indices[i]` by row i of `tensor` (trainable tokens)."""

    def __init__(self, tensor: tensors.Tensor, indices: list[int], target: tensors.Tensor):
        from pt_tools.errors import BadModel

        if tensor.shape[1:] != target.shape[1:] or not all(0 <= i < target.shape[0] for i in indices):
            raise BadModel(f"trainable tokens do not fit into {target.name} {list(target.shape)}", tensor.path)
        self.tensor, self.width = tensor, target.shape[1]
        self.place = {row: i for i, row in enumerate(indices)}

    def identity(self) -> list:
        return ["rows", _stored(self.tensor), list(self.place)]

    def add(self, block: np.ndarray, start: int, rows: np.ndarray | None = None) -> None:
        place, new = 0, _kept.load(self.tensor)
        for row, number, column, columns in spans(start, block.size, self.width):
            part = block[place:place + number * columns].reshape(number, columns)
            for i, wanted in enumerate(range(row, row + number) if rows is None else rows[row:row + number]):
                if int(wanted) in self.place:
                    part[i] = new[self.place[int(wanted)], column:column + columns]
            place += part.size


class Vector:
    """A bias plus scale · vector."""

    def __init__(self, tensor: tensors.Tensor, scale: float):
        self.tensor, self.scale = tensor, scale

    def identity(self) -> list:
        return ["vector", _stored(self.tensor), self.scale]

    def add(self, block: np.ndarray, start: int, rows: np.ndarray | None = None) -> None:
        vector = _kept.load(self.tensor)
        part = vector[start:start + block.size] if rows is None else _gathered(vector, rows[start:start + block.size])
        block += np.float32(self.scale) * part


class Chain:
    """Several changes, one after another."""

    def __init__(self, parts: tuple):
        self.parts = parts

    def identity(self) -> list:
        return [part.identity() for part in self.parts]

    def add(self, block: np.ndarray, start: int, rows: np.ndarray | None = None) -> None:
        for part in self.parts:
            part.add(block, start, rows)
