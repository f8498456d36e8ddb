"""Keys of many rows, band by band: while they are collected, and in files of columns."""

import tempfile

import numpy as np

from pt_tools.curate.columns import File

IN_MEMORY = 2**22  # bytes of keys; more lie in a temporary file


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

    def __len__(self):
        return sum(self._sizes)

    def column(self, band: int) -> np.ndarray:
        """The keys (rows,) of one band."""
        parts, at = [np.zeros(0, "<u8")], 0
        for size in self._sizes:
            self._file.seek(at + 8 * band * size)
            parts.append(np.frombuffer(self._file.read(8 * size), "<u8"))
            at += 8 * self.count * size
        return np.concatenate(parts)


class Files:
    """The same of several files with a column `keys`, one behind the other."""

    def __init__(self, files: list[File]):
        self.count, self._files = files[0].shape("keys")[0], files

    def column(self, band: int) -> np.ndarray:
        return np.concatenate([file.read("keys", band) for file in self._files])
