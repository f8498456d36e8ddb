"""Keys of many rows, band by band: while they are collected, and as a file that others can put together with theirs.

A sketch file has the layout of safetensors: U64 `keys` (bands, rows) and other columns of one number a row; the metadata
have the `sketch` as JSON, all that two sketches must agree on.
"""

import json
import os
import tempfile

import numpy as np

from pt_tools.errors import BadData

IN_MEMORY = 2**26  # bytes of keys; more lie in a temporary file
DTYPES = {"U64": "<u8", "U32": "<u4", "U16": "<u2", "F64": "<f8"}
MOST_HEADER = 2**20


class Bands:
    """The keys of all rows so far. Memory: IN_MEMORY, and one column when it is asked for."""

    def __init__(self, count: int, directory=None):
        self.count = count
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=directory)
        self._sizes = []

    def add(self, keys: np.ndarray) -> None:
        """Keys (bands, N) of the next N rows."""
        self._file.write(np.ascontiguousarray(keys, "<u8"))
        self._sizes.append(keys.shape[1])

    def column(self, band: int) -> np.ndarray:
        """The keys (rows,) of one band."""
        parts, at = [np.zeros(0, "<u8")], 0
        for size in self._sizes:
            self._file.seek(at + 8 * band * size)
            parts.append(np.frombuffer(self._file.read(8 * size), "<u8"))
            at += 8 * self.count * size
        return np.concatenate(parts)


class Files:
    """The same of several sketch files, one behind the other."""

    def __init__(self, sketches: list["Sketch"]):
        self.count, self._sketches = sketches[0].shape("keys")[0], sketches

    def column(self, band: int) -> np.ndarray:
        return np.concatenate([sketch.read("keys", band) for sketch in self._sketches])


def write(write, sketch: dict, bands: Bands, columns: dict[str, tuple[str, object]]) -> None:
    """Write a sketch by calls of `write(bytes)`. `columns`: name -> (type as DTYPES has it, array or sequence of numbers)."""
    rows = sum(bands._sizes)
    tensors, at = {}, 0
    for name, (dtype, shape) in {"keys": ("U64", [bands.count, rows]), **{
            name: (dtype, [rows]) for name, (dtype, _) in columns.items()}}.items():
        size = int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps({"__metadata__": {"sketch": json.dumps(sketch)}, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    write(len(header).to_bytes(8, "little") + header)
    for band in range(bands.count):
        write(bands.column(band).tobytes())
    for dtype, values in columns.values():
        write(np.asarray(values, DTYPES[dtype]).tobytes())


class Sketch:
    """A sketch file: `sketch` is what it was written with. BadData if it is none."""

    def __init__(self, path: str):
        self.path = path
        try:
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if size <= MOST_HEADER else None
            self._tensors = {name: (DTYPES[entry["dtype"]], entry["shape"], *entry["data_offsets"])
                             for name, entry in header.items() if name != "__metadata__"}
            self.sketch = json.loads(header["__metadata__"]["sketch"])
            self._start = 8 + size
            whole = all(int(np.prod(shape)) * np.dtype(dtype).itemsize == end - start
                        for dtype, shape, start, end in self._tensors.values())
            whole &= os.path.getsize(path) == self._start + max(entry[3] for entry in self._tensors.values())
        except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
            raise BadData("not a sketch; pt-curate sketch makes them", path) from None
        if not whole:
            raise BadData("the sketch is not whole", path)

    def has(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> list[int]:
        return self._tensors[name][1]

    def read(self, name: str, part: int | None = None) -> np.ndarray:
        """A column; with `part` that row of a matrix."""
        dtype, shape, start, _ = self._tensors[name]
        count = shape[-1]
        return np.fromfile(self.path, dtype, count, offset=self._start + start + (part or 0) * count * np.dtype(dtype).itemsize)
