"""The digests of files that are filled, or read, block by block in almost any order, while that is done."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pt_tools import digestcache
from pt_tools.outdir import remember, xxh128

PIECE = 1 << 18  # bytes read at a time
COPIES = 8 << 20  # bytes of ranges that came early
MOST = 1 << 14  # ranges of a file that wait; those beyond are hashed at the end


class Hasher:
    """Each file's hash (of `kind`, as hashlib's are) goes on from its beginning as far as the file is whole, in the threads
    that fill it.

    `wrote` says that a range is whole; a second time is not heard. A range that comes in its turn is hashed from memory,
    one that is early from a copy, or is read again if there are many. One thread hashes a file at any time, and none waits
    for it. `digests` takes the rest, when everything is there: all that comes after a range of which nothing was said.
    """

    def __init__(self, directory, sizes: dict[str, int], kind=hashlib.sha256):
        self._files = {name: _File(Path(directory, name), size, kind()) for name, size in sizes.items()}
        self._lock, self._room = threading.Lock(), COPIES

    def wrote(self, name: str, start: int, end: int, data=None) -> None:
        """Bytes `start` … `end` of a file are whole; `data` are they, if they are still in memory."""
        file = self._files[name]
        with self._lock:
            if file.busy or start != file.at:
                self._keep(file, start, end, data)
                last, data = (None, None) if file.busy else self._next(file)
            else:
                last = end
            if last is None:
                return
            file.busy = True
        file.go_on(last, data)
        with self._lock:
            last, data = self._next(file)  # one more, which others left
            file.busy = last is not None
        if last is not None:
            file.go_on(last, data)
            file.busy = False

    def _keep(self, file: _File, start: int, end: int, data) -> None:
        if start >= file.at and len(file.whole) < MOST:
            copy = None if data is None or len(data) > self._room else bytes(data)
            self._room -= len(copy or b"")
            file.whole[start] = end, copy

    def _next(self, file: _File) -> tuple:
        """End of the range whose turn it is, and its bytes if they are here; (None, None) without one."""
        last, copy = file.whole.pop(file.at, (None, None))
        self._room += len(copy or b"")
        return last, copy

    def digests(self) -> dict[str, str]:
        """Hex digests by name."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda file: file.go_on(file.size), [file for file in self._files.values() if file.at < file.size]))
        return {name: file.hash.hexdigest() for name, file in self._files.items()}


class _File:
    """How far the hash of a file is (`at`), and which ranges after that are whole (`whole`: start → end, copy)."""

    def __init__(self, path: Path, size: int, new_hash):
        self.path, self.size, self.at = path, size, 0
        self.hash, self.whole = new_hash, {}
        self.busy = False

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


class Inputs:
    """The digests of those files of `tensors` that are in `unread`, hashed where their blocks are read from memory."""

    def __init__(self, tensors, unread):
        paths = [path for path in {tensor.path for tensor in tensors} if os.path.abspath(path) in unread]
        self._stats = {path: os.stat(path) for path in paths}
        self._hasher = Hasher("", {path: stat.st_size for path, stat in self._stats.items()}, xxh128)
        for path in paths:
            self._hasher.wrote(path, 0, min(tensor.offset for tensor in tensors if tensor.path == path))  # the header

    def read(self, tensor, start: int, data) -> None:
        """`data` was read from byte `start` of the tensor on; any thread."""
        if tensor.path in self._stats:
            self._hasher.wrote(tensor.path, tensor.offset + start, tensor.offset + start + len(data), data)

    def remember(self) -> None:
        """When all was read: the digests, for this process and for later ones."""
        for path, digest in self._hasher.digests().items():
            remember(path, digest, "xxh128")
            digestcache.save(self._stats[path], os.stat(path), digest, "xxh128")
