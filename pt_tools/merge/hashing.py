"""The sha256 of files that are filled block by block, in almost any order, while they are filled."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PIECE = 1 << 18  # bytes read at a time
TURN = 2  # ranges that one call takes at most: it came with one, and may find what others left


class Hasher:
    """Each file's hash goes on from its beginning as far as the file is whole, in the threads that fill it.

    `wrote` says that a range is whole. A range that comes in its turn is hashed from memory, one that was early is read
    again when those before it are there. One thread hashes a file at any time, and none waits for it. `digests` takes
    the rest, when everything is there: all that comes after a range which an earlier process wrote.
    """

    def __init__(self, directory, sizes: dict[str, int]):
        self._files = {name: _File(Path(directory, name), size) for name, size in sizes.items()}

    def wrote(self, name: str, start: int, end: int, data=None) -> None:
        """Bytes `start` … `end` of a file are whole; `data` are they, if they are still in memory."""
        file = self._files[name]
        with file.lock:
            file.whole[start] = end
            if file.busy:
                return
            file.busy = True
        for _ in range(TURN):
            with file.lock:
                first, last = file.at, file.whole.pop(file.at, None)
                if last is None:
                    file.busy = False
                    return
            file.go_on(last, data if first == start else None)
        with file.lock:
            file.busy = False

    def digests(self) -> dict[str, str]:
        """Hex digests by name."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda file: file.go_on(file.size), [file for file in self._files.values() if file.at < file.size]))
        return {name: file.hash.hexdigest() for name, file in self._files.items()}


class _File:
    """How far the hash of a file is (`at`), and which ranges after that are whole (`whole`: start → end)."""

    def __init__(self, path: Path, size: int):
        self.path, self.size, self.at = path, size, 0
        self.hash, self.whole = hashlib.sha256(), {}
        self.lock, self.busy = threading.Lock(), False

    def go_on(self, end: int, data=None) -> None:
        """Hash up to `end`, from memory if `data` are the bytes up to there."""
        if data is None:
            self._read(end)
        else:
            self.hash.update(data)
        self.at = end

    def _read(self, end: int) -> None:
        buffer, rest = memoryview(bytearray(min(PIECE, end - self.at))), end - self.at
        with open(self.path, "rb", 0) as file:
            file.seek(self.at)
            while rest:
                got = file.readinto(buffer[:rest])
                if not got:
                    raise OSError(f"{self.path.name} ends before it should")
                self.hash.update(buffer[:got])
                rest -= got
