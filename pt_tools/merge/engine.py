"""The engine: tensors in blocks, passes, threads, and where a stopped run goes on.

Blocks have a fixed size whatever the number of threads or shards, and what the blocks say is folded in their order, so
the result does not depend on either. Every thread has its own buffers, a few blocks in all.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from pt_tools import stop
from pt_tools.errors import BadModel, Diverged
from pt_tools.merge import numbers
from pt_tools.merge.hashing import Inputs
from pt_tools.merge.method import Block
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.report import Tally
from pt_tools.merge.tensors import Files
from pt_tools.merge.writer import Writer, size_of
from pt_tools.outdir import digest_of, file_digest

BLOCK = 1 << 18  # entries; random masks depend on it, so it is part of what a method is


class _NonFinite(Exception):
    """A block of an input of this item holds a NaN or an infinity."""


@dataclass(frozen=True, slots=True)
class _Step:
    """The last pass over one block, or (`block` None) over a tensor without entries."""

    index: int
    block: int | None
    last: bool
    stats: list
    tally: Tally


def run(plan: Plan, out, scratch, threads: int = 1, force: bool = False, report=None, say=None, unread=()) -> dict:
    """Write the plan's tensors as safetensors files into directory `out`; goes on from what `scratch` has of it.

    `report` is called with a row (dict) for every tensor. NaN or infinite numbers in an input are refused
    (`BadModel`, with their count), results that overflow too (`Diverged`), both unless `force`. Input files in `unread`
    (absolute paths) are hashed on the way, for `outdir.file_digest`. Returns bytes, tensors, seconds, what was refused
    but forced (`nonfinite`: tensor → count) and the sha256 of every file.
    """
    began = time.monotonic()
    merge, before = _Merge(plan, scratch, threads, force, report, unread), stats(plan)
    try:
        if say and merge.writer.position != {"item": 0, "block": 0}:
            say(f"going on with tensor {merge.writer.position['item'] + 1} of {len(plan.items)}")
        merge.run()
        after = stats(plan)
        changed = next((path for path in before if before[path] != after[path]), None)
        if changed:
            raise BadModel("it changed while it was read; run the same line again", changed)
        merge.inputs.remember()
        digests = {name: file_digest(path) for name, path in merge.writer.publish(out).items()}
    finally:
        merge.close()
    return {"bytes": sum(map(size_of, plan.items)), "tensors": len(plan.items), "seconds": time.monotonic() - began,
            "nonfinite": merge.nonfinite, "files": digests}


def block_entries(item: Item) -> int:
    """Entries of a block of this tensor: whole rows where the method wants them."""
    row = item.shape[-1] if item.shape else 1
    return max(1, BLOCK // row) * row if item.method.whole_rows(item.parameters) and row else BLOCK


def count_of(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count


def digest(plan: Plan, **more) -> str:
    """What the output depends on: the plan, the inputs as the file system knows them, the size of blocks."""
    items = hashlib.sha256()
    for item in plan.items:
        described = [item.name, item.dtype, item.shape, [_described(source) for source in _sources(item)],
                     item.base is not None, type(item.method).__qualname__, vars(item.method),
                     item.parameters.own, item.parameters.shared]
        items.update(digest_of(described).encode())  # one by one: some models have tens of thousands of tensors
    return digest_of([items.hexdigest(), stats(plan), plan.shard_size, plan.metadata, plan.seed, BLOCK, more])


def stats(plan: Plan) -> dict[str, list[int]]:
    """Size, time of change and inode of every input file, by path."""
    out = {}
    for path in {source.tensor.path for item in plan.items for source in _sources(item)}:
        found = os.stat(path)
        out[path] = [found.st_size, found.st_mtime_ns, found.st_ino]
    return out


def _described(source: Source) -> list:
    tensor = source.tensor
    return [tensor.name, tensor.dtype, tensor.shape, tensor.path, tensor.offset, None if source.rows is None else source.rows.tolist(),
            None if source.share is None else source.share.tolist(), list(map(_described, source.fill)),
            None if source.delta is None else source.delta.identity()]


def _sources(item: Item) -> list[Source]:
    return [*item.sources, *([item.base] if item.base else [])]


def _verbatim(item: Item) -> bool:
    """Whether the stored bytes go out as they are."""
    source = item.sources[0]
    return (item.method.verbatim(item.parameters) and source.tensor.dtype == item.dtype
            and not (source.delta or source.fill))


def _check(plan: Plan) -> None:
    """Parameters in their range (`ValueError`, each set once), numbers that there is arithmetic for (`BadModel`)."""
    seen = set()
    for item in plan.items:
        key = item.method, repr(item.parameters)
        if key not in seen:
            item.method.check(item.parameters)
            seen.add(key)
        for tensor in () if _verbatim(item) else [source.tensor for source in _sources(item)]:
            for dtype in (tensor.dtype, item.dtype):
                if dtype not in numbers.FLOATS:
                    raise BadModel(f"tensor {item.name}: {dtype} cannot be merged by {item.method.name}, "
                                   "only copied as it is", tensor.path)


def _allow_files(plan: Plan) -> None:
    """Every file of every model stays open, and every file of the output: more than some systems allow at first."""
    inputs = {source.tensor.path for item in plan.items for source in _sources(item)}
    outputs = min(len(plan.items), 1 + 2 * sum(map(size_of, plan.items)) // plan.shard_size)
    wanted = 256 + len(inputs) + outputs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))


class Space:
    """The buffers of one thread, made when first wanted and used for all blocks."""

    def __init__(self):
        self._buffers: dict[tuple, np.ndarray] = {}

    def array(self, kind: str, index: int, count: int, dtype=np.float32) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        held = self._buffers.get((kind, index))
        if held is None or held.nbytes < size:
            held = self._buffers[kind, index] = np.empty(max(size, BLOCK), np.uint8)
        return held[:size].view(dtype)


class Crew:
    """Threads that take numbers and give results in the order of the numbers; one thread is the caller itself."""

    def __init__(self, threads: int):
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.spaces: SimpleQueue[Space] = SimpleQueue()
        for _ in range(threads):
            self.spaces.put(Space())

    def map(self, function, indices):
        pending: deque = deque()
        try:
            for index in indices:
                stop.check()
                if self.pool is None:
                    yield self._call(function, index)
                    continue
                pending.append(self.pool.submit(self._call, function, index))
                if len(pending) > 2 * self.threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _call(self, function, index):
        space = self.spaces.get()
        try:
            with np.errstate(all="ignore"):  # what is not finite is counted where it is read and where it is stored
                return function(space, index)
        finally:
            self.spaces.put(space)

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


class _Merge:
    def __init__(self, plan: Plan, scratch, threads: int, force: bool, report, unread):
        self.plan, self.force, self.report = plan, force, report
        _check(plan)
        _allow_files(plan)
        self.files, self.crew = Files(), Crew(threads)
        self.inputs = Inputs({s.tensor for item in plan.items for s in _sources(item)}, unread)
        self.writer = Writer(plan.items, plan.shard_size, plan.metadata,
                             digest(plan, report=report is not None, force=force), Path(scratch) / "merge")
        self.nonfinite = {row["tensor"]: row["nonfinite"] for row in self.writer.rows if row["nonfinite"]}

    def close(self) -> None:
        self.crew.close()
        self.writer.close()
        self.files.close()

    def run(self) -> None:
        if self.report:
            for row in self.writer.rows:
                self.report(row)
        try:
            for step, part in self.crew.map(self._work, self._steps()):
                self._done(step, part)
        except BaseException as error:
            self.crew.close()  # no thread writes any more
            self.writer.flush()
            if isinstance(error, _NonFinite):
                raise BadModel(self._refusal(error.args[0])) from None
            raise

    def _steps(self):
        """All that is left to do, in order; a tensor's statistics are taken while the one before is still being written."""
        begun = self.writer.position
        for index in range(begun["item"], len(self.plan.items)):
            item, first = self.plan.items[index], begun["block"] if index == begun["item"] else 0
            sums = begun.get("sums") if index == begun["item"] else None
            tally, stats = Tally(item, wanted=self.report is not None, sums=sums), self._statistics(item)
            count = -(-count_of(item.shape) // block_entries(item))
            for block in range(first, count) or [None]:
                yield _Step(index, block, block in (None, count - 1), stats, tally)

    def _work(self, space, step: _Step) -> tuple[_Step, np.ndarray | None]:
        """In any thread."""
        if step.block is None:
            return step, None
        work = self._copy if _verbatim(self.plan.items[step.index]) else self._compute
        return step, work(step.index, space, step.block, step.stats, step.tally)

    def _done(self, step: _Step, part: np.ndarray | None) -> None:
        """In the order of the steps."""
        item, tally = self.plan.items[step.index], step.tally
        if part is not None:
            tally.add(part)
            entries = min(block_entries(item), count_of(item.shape) - step.block * block_entries(item))
            self.writer.advance(step.index, step.block + 1, entries * numbers.SIZES[item.dtype], sums=tally.sums.tolist())
        if not step.last:
            return
        if tally.nonfinite:
            self.nonfinite[item.name] = tally.nonfinite
        row = tally.row(item) if self.report or tally.nonfinite else None
        self.writer.finished(step.index, row)
        if self.report:
            self.report(row)

    def _statistics(self, item: Item) -> list:
        method, stats, count = item.method, [], count_of(item.shape)
        blocks = -(-count // block_entries(item))
        for number in range(method.passes_for(item.parameters) if count else 0):
            state = None

            def observe(space, block):
                return method.observe(number, self._read(item, space, block, count=False)[0], item.parameters, stats)

            for part in self.crew.map(observe, method.select(number, blocks, item.parameters, stats)):
                state = method.fold(number, state, part)
            stats = [*stats, method.finish(number, state, item.shape, item.parameters, stats)]
        return stats

    def _compute(self, index: int, space: Space, number: int, stats: list, tally: Tally) -> np.ndarray:
        item = self.plan.items[index]
        checked = self.force or not item.method.spreads_nonfinite
        block, bad = self._read(item, space, number, count=checked)
        part = tally.observe(block, bad)
        item.method.apply(block, item.parameters, stats)
        n = len(block.out)
        raw = space.array("raw", 0, n * numbers.SIZES[item.dtype], np.uint8)
        overflow = numbers.encode(block.out, item.dtype, numbers.view(raw, item.dtype), space.array("scratch", 0, n))
        if overflow and not self.force:
            if not checked:
                self._read(item, space, number)  # raises if it is an input's
            raise Diverged(f"tensor {item.name}: {overflow} results in one block are NaN or too large for {item.dtype}")
        self.writer.write(index, block.start * numbers.SIZES[item.dtype], raw)
        return tally.complete(part, block)

    def _copy(self, index: int, space: Space, number: int, stats: list, tally: Tally) -> np.ndarray:
        item, entries = self.plan.items[index], block_entries(self.plan.items[index])
        start = number * entries
        n = min(entries, count_of(item.shape) - start)
        raw, bad = self._fetch(item.sources[0], space, item, start, n)
        self.writer.write(index, start * numbers.SIZES[item.dtype], raw)
        return tally.copied(bad)

    def _read(self, item: Item, space: Space, number: int, count: bool = True) -> tuple[Block, list[int]]:
        """A block of all sources in fp32, and how many numbers of each are not finite (counted once, where they go out)."""
        entries = block_entries(item)
        start = number * entries
        n = min(entries, count_of(item.shape) - start)
        arrays, counts = [], []
        for place, source in enumerate(_sources(item)):
            raw, bad = self._fetch(source, space, item, start, n, count)
            arrays.append(space.array("model", place, n))
            numbers.decode(numbers.view(raw, source.tensor.dtype), source.tensor.dtype, arrays[-1])
            if source.delta is not None:
                source.delta.add(arrays[-1], start, source.rows)
            for other in source.fill:
                bad += self._fill(other, space, item, start, arrays[-1], count)
            counts.append(bad)
        base = arrays.pop() if item.base else None
        scratch = [space.array("scratch", place, n) for place in range(item.method.buffers)]
        return Block(arrays, base, space.array("out", 0, n), start, item.name, item.shape, scratch, self.plan.seed), counts

    def _fill(self, source: Source, space: Space, item: Item, start: int, out: np.ndarray, count: bool) -> int:
        """Add another model's rows, each times its share, to rows that this model has not."""
        raw, bad = self._fetch(source, space, item, start, len(out), count)
        work = space.array("fill", 0, len(out))
        numbers.decode(numbers.view(raw, source.tensor.dtype), source.tensor.dtype, work)
        if source.delta is not None:
            source.delta.add(work, start, source.rows)
        work *= source.share[np.arange(start, start + len(out)) // count_of(item.shape[1:])]
        out += work
        return bad

    def _fetch(self, source: Source, space: Space, item: Item, start: int, n: int,
               count: bool = True) -> tuple[np.ndarray, int]:
        """The stored bytes of a block, and how many of its numbers are not finite (an exception unless forced)."""
        dtype = source.tensor.dtype
        raw = space.array("raw", 0, n * numbers.SIZES[dtype], np.uint8)
        if source.rows is None:
            self.files.read_into(source.tensor, start, n, raw)
            self.inputs.read(source.tensor, start * numbers.SIZES[dtype], raw)
        else:
            self._gather(source, item, start, raw)
        bad = numbers.nonfinite(numbers.view(raw, dtype), dtype) if count and dtype in numbers.FLOATS else 0
        if bad and not self.force:
            raise _NonFinite(item)
        return raw, bad

    def _gather(self, source: Source, item: Item, start: int, raw: np.ndarray) -> None:
        """Rows by their index, each run of neighbours in one read; -1 gives zeros."""
        size = numbers.SIZES[source.tensor.dtype]
        row = count_of(item.shape[1:])
        end, at = start + len(raw) // size, start
        rows = source.rows[start // row: -(-end // row)]
        breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] < 0) | (rows[:-1] < 0)) + 1
        for first, last in zip([0, *breaks], [*breaks, len(rows)]):
            stop_at = min(end, (start // row + last) * row)
            part = raw[(at - start) * size:(stop_at - start) * size]
            if rows[first] < 0:
                part[:] = 0
            else:
                self.files.read_into(source.tensor, int(rows[first]) * row + at - (start // row + first) * row,
                                     stop_at - at, part)
            at = stop_at

    def _refusal(self, item: Item) -> str:
        """The whole count, once something was found."""
        found, space = [], Space()
        self.force, entries, count = True, block_entries(item), count_of(item.shape)
        for place, source in enumerate(_sources(item)):
            starts = range(0, count, entries)
            bad = sum(self._fetch(source, space, item, start, min(entries, count - start))[1] for start in starts)
            if bad:
                found.append(f"{bad} in {source.tensor.path}")
        self.force = False
        return f"tensor {item.name} has NaN or infinite numbers: {', '.join(found)} (--force merges it all the same)"
