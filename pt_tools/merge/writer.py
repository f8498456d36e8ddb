"""Safetensors files laid out before any arithmetic, filled block by block at their final places.

The scratch directory holds the files to be and `journal`: a first line that says which merge this is, then a line
after every sync, {"item": i, "block": b, …}: all blocks before block b of tensor i are on the disk. A run that finds a
journal of the same merge goes on from its last whole line.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pt_tools.errors import Exhausted
from pt_tools.files import apply_umask, remove, sync, to_json, write_atomic
from pt_tools.merge.hashing import Hasher
from pt_tools.merge.numbers import SIZES
from pt_tools.outdir import remember

SYNC_BYTES = 64 << 20  # so many bytes go to the disk together; a killed run loses no more


@dataclass(frozen=True, slots=True)
class Place:
    """Where an output tensor goes: `offset` from the start of the file."""

    file: str
    offset: int


def size_of(item) -> int:
    """Bytes of an output tensor (anything with dtype and shape)."""
    count = SIZES[item.dtype]
    for axis in item.shape:
        count *= axis
    return count


def layout(items, shard_size: int, metadata: dict) -> tuple[list[Place], dict[str, tuple[bytes, int]]]:
    """The place of every item, and header and size of every file. A tensor larger than a shard has one to itself."""
    shards, room = [[]], shard_size
    for index, item in enumerate(items):
        size = size_of(item)
        if size > room and shards[-1]:
            shards.append([])
            room = shard_size
        shards[-1].append(index)
        room -= size
    places: list[Place] = [None] * len(items)
    files = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # Wide numbers first, so that every tensor is aligned.
        shard.sort(key=lambda index: (-SIZES[items[index].dtype], index))
        header, offset = {"__metadata__": metadata}, 0
        for index in shard:
            item, size = items[index], size_of(items[index])
            header[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [offset, offset + size]}
            places[index] = Place(name, offset)
            offset += size
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        files[name] = struct.pack("<Q", len(text)) + text, 8 + len(text) + offset
        for index in shard:
            places[index] = Place(name, 8 + len(text) + places[index].offset)
    return places, files


def _link(source: Path, target: Path) -> None:
    """A second name for the file; where there are no links the file moves, to another file system it is copied."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            os.rename(source, target)
            return
        shutil.copyfile(source, target)
        sync(target)


class Writer:
    """The files of one merge in `scratch`, and how far they are. `digest` says which merge this is.

    `position` is where to go on: {"item", "block", …}, what the last `advance` that reached the disk said; `rows` what
    `finished` was given until then.
    """

    def __init__(self, items, shard_size: int, metadata: dict, digest: str, scratch):
        self.items, self.scratch, self.digest = items, Path(scratch), digest
        self.places, self.files = layout(items, shard_size, metadata)
        self.rows: list[dict] = []
        self.position = self._take_up() or self._start()
        self._fds = {name: os.open(self.scratch / name, os.O_WRONLY | os.O_CLOEXEC) for name in self.files}
        self._journal = os.open(self.scratch / "journal", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._background = ThreadPoolExecutor(1)
        self._syncing: Future | None = None
        self._dirty: set[str] = set()
        self._unsynced, self._new_rows = 0, []
        self.hasher = Hasher(self.scratch, {name: size for name, (_, size) in self.files.items()})
        for name, (header, _) in self.files.items():
            self.hasher.wrote(name, 0, len(header), header)

    def _take_up(self) -> dict | None:
        """The last position of a journal of the same merge whose files are all there, their headers as they should be."""
        try:
            journal = (self.scratch / "journal").read_bytes()
            whole = journal.rfind(b"\n") + 1
            lines = journal[:whole].splitlines()
            if json.loads(lines[0]) != {"merge": self.digest} or not all(map(self._is_ours, self.files)):
                return None
            position = {"item": 0, "block": 0}
            for line in lines[1:]:
                position = json.loads(line)
                self.rows += position.pop("rows", [])
            if whole < len(journal):
                os.truncate(self.scratch / "journal", whole)  # what a kill tore must not be the beginning of a next line
            return position
        except (OSError, ValueError, IndexError):
            return None

    def _is_ours(self, name: str) -> bool:
        header, size = self.files[name]
        with open(self.scratch / name, "rb") as file:
            return os.fstat(file.fileno()).st_size == size and file.read(len(header)) == header

    def _start(self) -> dict:
        self.rows = []
        remove(self.scratch)
        self.scratch.mkdir(parents=True)
        self._refuse_full_disk()
        for name, (header, size) in self.files.items():
            with open(self.scratch / name, "wb") as file:
                file.write(header)
                file.truncate(size)
                os.fsync(file.fileno())
        write_atomic(self.scratch / "journal", json.dumps({"merge": self.digest}).encode() + b"\n")
        return {"item": 0, "block": 0}

    def _refuse_full_disk(self) -> None:
        """Before hours of arithmetic, not after. What others write meanwhile, and quotas, still show only then."""
        wanted, disk = sum(size for _, size in self.files.values()), os.statvfs(self.scratch)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and wanted > free:
            raise Exhausted(f"{wanted / 1e9:.2f} GB to write, {free / 1e9:.2f} GB free", str(self.scratch))

    def write(self, index: int, start: int, data) -> None:
        """Bytes of item `index` from its byte `start` on; from any thread."""
        place, data = self.places[index], memoryview(data).cast("B")
        rest, offset = data, place.offset + start
        while len(rest):
            done = os.pwrite(self._fds[place.file], rest, offset)
            rest, offset = rest[done:], offset + done
        self.hasher.wrote(place.file, place.offset + start, offset, data)

    def advance(self, index: int, block: int, nbytes: int, **more) -> None:
        """All before block `block` of item `index` is written; `nbytes` since the last call. Syncs now and then."""
        self.position = {"item": index, "block": block, **more}
        self._dirty.add(self.places[index].file)
        self._unsynced += nbytes
        if self._unsynced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._sync()

    def finished(self, index: int, row: dict | None) -> None:
        """Item `index` is whole; `row` is kept for a later start."""
        if row is not None:
            self.rows.append(row)
            self._new_rows.append(row)
        self.position = {"item": index + 1, "block": 0}

    def _sync(self) -> None:
        """In the background: the bytes, then the line that says so."""
        if self._syncing:
            self._syncing.result()
        names, self._dirty = self._dirty, set()
        rows, self._new_rows, self._unsynced = self._new_rows, [], 0
        line = json.dumps({**self.position, **({"rows": rows} if rows else {})}).encode() + b"\n"

        def work():
            for name in names:
                os.fdatasync(self._fds[name])
            if os.write(self._journal, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.scratch / "journal"))
            os.fdatasync(self._journal)

        self._syncing = self._background.submit(work)

    def flush(self) -> None:
        """Everything written so far is on the disk, and the journal says so."""
        self._sync()
        self._syncing.result()

    def publish(self, out) -> dict[str, Path]:
        """The whole files in directory `out`, with an index if there are several. The scratch stays complete.

        The files are linked, not moved, so that a run killed while its output is being sealed has all of them still.
        """
        self._sync()
        digests = self.hasher.digests()  # while the disk is written
        self.flush()
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        made = {}
        for name in self.files:
            made[name] = out / name
            remove(made[name])
            _link(self.scratch / name, made[name])
            apply_umask(made[name])
            remember(made[name], digests[name])
        if len(self.files) > 1:
            total = sum(size_of(item) for item in self.items)
            where = {item.name: place.file for item, place in zip(self.items, self.places)}
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
            write_atomic(out / "model.safetensors.index.json", to_json(index))
            apply_umask(out / "model.safetensors.index.json")
        sync(out)
        return made

    def close(self) -> None:
        self._background.shutdown()
        for fd in [*self._fds.values(), self._journal]:
            os.close(fd)
