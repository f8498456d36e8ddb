"""One function over blocks of lines, in several processes: results come in the order of the rows.

The inputs are cut at line ends, so one large file is work for many processes, and the output is the same for any number
of them. Memory: a few blocks a process. A file that is one JSON array is one block.
"""

import collections
import contextlib
import functools
import io
import itertools
import os
import signal
from dataclasses import dataclass, field

from pt_tools import stop, stream
from pt_tools.errors import BadData, Exhausted

SIZE = 2**18  # bytes of a block, about; what is made of it should fit the cache
LARGE = 2**20  # where work is the same few calls for a block of any size
KEEP = 2**24  # bytes
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Block:
    """Some lines of the input `name`; the first has number `before` + 1. With `array` the one "line" is a JSON array.

    The input is number `file` of all, and in it (unpacked) the block begins at byte `start`.
    """

    name: str
    file: int
    lines: list[bytes]
    before: int = 0
    start: int = 0
    array: bool = False

    def line(self, number: int) -> bytes:
        """The line of this number in the input."""
        return self.lines[number - self.before - 1]


@dataclass
class Result:
    """What came of a block: lines written, rows counted, rows to reject (where, reason, row), and the work's answer."""

    lines: bytes = b""
    rows: stream.Rows = field(default_factory=stream.Rows)
    rejects: list = field(default_factory=list)
    answer: object = None


@dataclass
class Taken:
    """What was made of the records of a block, and of each its line, the line's number, and (start in the block, bytes)."""

    values: list
    lines: list
    numbers: list
    spans: list


class Reader(stream.Reader):
    """The records of one block; rows that are rejected are kept for the process that has the whole stream."""

    def __init__(self, block, rows, on_error, max_line):
        super().__init__((), rows, on_error, max_line=max_line)
        self.block, self.rejected = block, []
        self._taken = Taken([], [], [], [])

    def __iter__(self):
        if self.block.array:
            yield from self.items(self.block.lines[0], self.block.name)
        else:
            begun = len(self._taken.values)
            yield from self.lines(self.block.lines[begun:], self.block.name, self.block.before + begun)

    def map(self, work):
        """What `work` returns for every record of a block of lines (Taken); rows that it raises a ValueError for are rejected.

        This is `record.checked` in a tight loop, since there is little to do for a row.
        """
        from pt_tools import record

        taken = self._taken = self._plain(work)
        if len(taken.values) < len(self.block.lines):
            begun = sum(size for _, size in taken.spans)
            for row in record.checked(self):
                try:
                    taken.values.append(work(row))
                except ValueError as reason:
                    self.reject(str(reason), row)
                    continue
                taken.lines.append(self.line)
                taken.numbers.append(self.number)
                taken.spans.append((begun + self.span[0], self.span[1]))
        return taken

    def _plain(self, work):
        """The same for the block's lines up to one that has to be looked at twice."""
        import orjson

        from pt_tools.plain import is_plain

        lines, values = self.block.lines, []
        with contextlib.suppress(ValueError):
            for line in lines if max(map(len, lines)) <= self.max_line else ():
                row = orjson.loads(line)
                if not is_plain(row):
                    break
                values.append(work(row))
        stop.check()
        done, first = lines[:len(values)], self.block.before + 1
        self.rows.n["in"] += len(done)
        sizes = list(map(len, done))
        return Taken(values, done, list(range(first, first + len(done))), list(zip(itertools.accumulate(sizes, initial=0), sizes)))

    def reject(self, reason, record=None, where=None):
        if self.on_error == "fail":
            raise BadData(reason, where or self.where)
        self.rejected.append((where or self.where, reason, record))


def each(job, work, *args, **how):
    """Yield what `work(records, out, *args)` returns for every block of the job's input, in order.

    `records` and `out` are a Reader and a Writer with row accounting, as a job has them. `work` is a function of a
    module, and must not depend on other blocks; what it returns is pickled if `jobs` (0: one a core) is not 1.
    Lines, counts and rejected rows of a block have gone to the job when its answer is yielded.
    """
    return (answer for _, answer in with_blocks(job, work, *args, **how))


def with_blocks(job, work, *args, jobs=1, size=None):
    """`each`, with the block of every answer before it."""
    records = job.records
    records.begin()
    bytearray(KEEP)  # glibc keeps twice as much as was once freed; what a block takes is not asked of the system again and again
    task = functools.partial(_done, work, args, records.on_error, records.max_line)
    pending = collections.deque()
    for result in ordered(task, _noted(cut(records, size or SIZE), pending), jobs):
        job.rows.merge(result.rows)
        for where, reason, row in result.rejects:
            records.reject(reason, row, where)
        if result.lines:
            job.out.write_lines(result.lines)
        yield pending.popleft(), result.answer


def _noted(blocks, pending):
    for block in blocks:
        if block is not None:
            pending.append(block)
        yield block


def run(job, work, *args, jobs=1) -> None:
    """`each`, for work that returns nothing."""
    for _ in each(job, work, *args, jobs=jobs):
        pass


def cut(records, size):
    """The blocks of a stream.Reader's inputs, of so many bytes; None where a pipe has nothing yet."""
    for number, path in enumerate(records.files):
        name = records.name_of(path)
        with stream.open_input(path) as file:
            if records.is_array(file):
                yield Block(name, number, [file.read()], array=True)
            else:
                for piece in _cut_lines(file, size, name, records.max_line):
                    yield piece and Block(name, number, *piece)
                    if piece is None:
                        records.idle()


def _cut_lines(file, size, name, max_line):
    """(whole lines, lines before them, bytes before them); None before a pipe is waited for."""
    before, start, waits, rest = 0, 0, stream.may_wait(file), bytearray()  # `rest`: the beginning of a line
    read = file.read1 if waits else file.read  # a pipe gives what is there: its rows need not wait for a whole block
    while True:
        stop.check()
        if waits and not stream.is_ready(file):
            yield None
        try:
            with stop.waiting():
                data = read(size)
        except stream.UNREADABLE as error:
            raise BadData(f"cannot be read: {error}", f"{name}:{before + 1}") from None
        lines = io.BytesIO(data).readlines()
        begun = b"" if data[-1:] in (b"", b"\n") else lines.pop()
        if rest and (lines or not data):
            lines[:1] = [b"".join([rest, *lines[:1]])]
            rest.clear()
        rest += begun
        if len(rest) > max_line:
            lines.append(bytes(rest))
            rest.clear()
        if lines:
            yield lines, before, start
        if not data:
            return
        before += len(lines)
        start += sum(map(len, lines))


def ordered(function, items, jobs=1):
    """Yield `function(item)` for every item, in order, from `jobs` processes (0: one a core).

    An item None stands for a wait for the next one: all that is under way is yielded first. The processes see what this one
    has loaded when the first item is there. What goes in and out is pickled.
    """
    jobs = jobs or len(os.sched_getaffinity(0))
    if jobs == 1:
        for item in items:
            stop.check()
            if item is not None:
                yield function(item)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # A fork has what the parent has loaded (an index, say) without a copy; spawn where there is no fork.
    pool = ProcessPoolExecutor(jobs, get_context("fork" if hasattr(os, "fork") else None), _enter, (function, os.getpid()))
    waiting = collections.deque()
    try:
        for item in items:
            if item is not None:
                waiting.append(pool.submit(_work, item))
            while len(waiting) > (2 * jobs if item is not None else 0):
                yield _answer(waiting.popleft())
        while waiting:
            yield _answer(waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _answer(future):
    from concurrent.futures import TimeoutError
    from concurrent.futures.process import BrokenProcessPool

    while True:
        stop.check()
        try:
            return future.result(timeout=0.5)
        except TimeoutError:
            continue
        except BrokenProcessPool:
            raise Exhausted("a process of -j died, out of memory most likely; try fewer") from None


_function = None


def _enter(function, parent):
    """In a new process: the parent alone decides about signals, and none outlives it."""
    global _function
    _function = function
    for name in stop.SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)


def _work(item):
    return _function(item)


class _Lines(list):
    """Lines written, which are joined once; a buffer that grows would copy them several times."""

    write = list.append


def _done(work, args, on_error, max_line, block):
    out, rows = _Lines(), stream.Rows()
    records = Reader(block, rows, on_error, max_line)
    answer = work(records, stream.Writer(out, rows), *args)
    return Result(b"".join(out), rows, records.rejected, answer)
