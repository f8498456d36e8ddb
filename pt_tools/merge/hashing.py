"""The sha256 of files that are filled from several places: each as far as it is whole from its beginning on."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path

PIECE = 1 << 20


class Hasher:
    """`parts` are, by file, what fills it: (key, offset of its end) in the order of the file; `sizes` the files' sizes.

    `finished(key)` lets the hash go on up to the first part that is not whole, in the threads of `pool` that fill the
    files too (more threads than cores only get in each other's way), later if there is none. `digests()` takes the rest,
    when everything is there.
    """

    def __init__(self, directory, parts: dict[str, list[tuple[int, int]]], sizes: dict[str, int], pool=None):
        self.directory, self.sizes = Path(directory), sizes
        self._parts = {name: deque(found) for name, found in parts.items()}
        self._file = {key: name for name, found in parts.items() for key, _ in found}
        self._whole: set[int] = set()
        self._hashes = {name: hashlib.sha256() for name in sizes}
        self._ends, self._at = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
        self._lock, self._pool, self._runs = threading.Lock(), pool, {}

    def finished(self, key: int) -> None:
        if self._pool is None:
            return
        self._whole.add(key)
        name, end = self._file[key], 0
        parts = self._parts[name]
        while parts and parts[0][0] in self._whole:
            end = parts.popleft()[1]
        if end:
            self._go_on(name, end)

    def digests(self) -> dict[str, str]:
        """Hex digests by name; raises what went wrong in the background."""
        for name, size in self.sizes.items():
            self._go_on(name, size)
        for name, run in list(self._runs.items()):
            if self._pool is None:
                self._run(name)
            elif run is not None:
                run.result()
        return {name: found.hexdigest() for name, found in self._hashes.items()}

    def _go_on(self, name: str, end: int) -> None:
        """Hash the file up to `end`: one thread a file at any time."""
        with self._lock:
            self._ends[name] = max(end, self._ends[name])
            run: Future | None = self._runs.get(name)
            if run is None:
                self._runs[name] = self._pool and self._pool.submit(self._run, name)

    def _run(self, name: str) -> None:
        buffer = memoryview(bytearray(PIECE))
        with open(self.directory / name, "rb", 0) as file:
            file.seek(self._at[name])
            while True:
                with self._lock:
                    if self._at[name] >= self._ends[name]:
                        self._runs[name] = None
                        return
                    count = min(PIECE, self._ends[name] - self._at[name])
                got = file.readinto(buffer[:count])
                if not got:
                    raise OSError(f"{name} ends before it should")
                self._hashes[name].update(buffer[:got])
                self._at[name] += got
