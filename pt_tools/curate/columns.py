"""Columns of numbers in one file, in the layout of safetensors, with some settings in its metadata."""

import json
import os

import numpy as np

from pt_tools.errors import BadData

DTYPES = {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "F64": "<f8", "BOOL": "|b1"}
MOST_HEADER = 2**26


def write(write, name: str, settings: dict, columns: dict[str, tuple[str, list[int], object]]) -> None:
    """Write a file by calls of `write(bytes)`. `columns`: name -> (type, shape, arrays that together make the column)."""
    tensors, at = {}, 0
    for key, (dtype, shape, _) in columns.items():
        size = _size(dtype, shape)
        tensors[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps({"__metadata__": {name: json.dumps(settings)}, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    write(len(header).to_bytes(8, "little") + header)
    for dtype, _, parts in columns.values():
        for part in parts:
            write(np.asarray(part, DTYPES[dtype]).tobytes())


def _size(dtype, shape):
    return int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize


class File:
    """Such a file for reading; `settings` is what it was written with. BadData if it is none of this name, or not whole."""

    def __init__(self, path: str, name: str):
        self.path = path
        try:
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if size <= MOST_HEADER else None
            self.settings = json.loads(header.pop("__metadata__")[name])
            self._columns = {key: (entry["dtype"], entry["shape"], *entry["data_offsets"]) for key, entry in header.items()}
            whole = all(_size(dtype, shape) == end - start for dtype, shape, start, end in self._columns.values())
            end = 8 + size + max(entry[3] for entry in self._columns.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadData(f"not a file of pt-tools with {name}", path) from None
        self._start = 8 + size
        if not whole or os.path.getsize(path) != end:
            raise BadData("the file is not whole", path)

    def __contains__(self, key: str) -> bool:
        return key in self._columns

    def shape(self, key: str) -> list[int]:
        return self._columns[key][1]

    def read(self, key: str, part: int | None = None) -> np.ndarray:
        """A column; with `part` that row of a matrix."""
        dtype, shape, start, _ = self._columns[key]
        dtype, count = np.dtype(DTYPES[dtype]), shape[-1]
        return np.fromfile(self.path, dtype, count, offset=self._start + start + (part or 0) * count * dtype.itemsize)


def is_file(path: str) -> bool:
    """Whether a file looks like one of these."""
    try:
        with open(path, "rb") as file:
            return file.read(24)[8:] == b'{"__metadata__":'
    except OSError:
        return False
