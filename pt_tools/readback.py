"""Rows that are read twice: once in order, and again by their place in the file."""

import contextlib
import os

from pt_tools import blocks, stop, stream
from pt_tools.errors import BadData

MOST_OPEN = 200  # files at once
CHANGED = "has changed while it was read"


class Files:
    """The inputs of a job as files of plain lines. A row's place is (file, start, length): a number and two byte counts."""

    def __init__(self, records):
        self._records, self._open = records, {}

    def index(self, job, work, *args, jobs=1):
        """Yield (number of the file, columns, answer) for every block of the inputs, in order.

        `work(records, out, *args)` is run over blocks (see blocks.each) and returns (columns, answer). Columns are arrays
        with one number a row; `start` and `length` are of `records.span`, and here `start` becomes that in the file.
        """
        file, start = -1, 0
        names = [self._records.name_of(path) for path in self._records.files]
        for name, before, length, columns, answer in blocks.each(job, _with_block, work, args, jobs=jobs):
            if before == 0:  # a file begins; those without a line give no block
                file, start = names.index(name, file + 1), 0
            columns["start"] += start
            start += length
            yield file, columns, answer

    def name(self, file: int) -> str:
        """What messages call a file."""
        return self._records.name_of(self._records.files[file])

    def read(self, file: int, start: int, length: int) -> dict:
        """The row at a place. BadData if the file is no longer what it was."""
        return self.parsed(self.bytes(file, start, length), file)

    def parsed(self, line: bytes, file: int) -> dict:
        """The row of a line of a file. BadData if it is none, as when the file is no longer what it was."""
        import orjson

        try:
            row = orjson.loads(line.removeprefix(stream.BOM))
            if isinstance(row, dict):
                return row
        except ValueError:
            pass
        raise BadData(CHANGED, self.name(file))

    def bytes(self, file: int, start: int, length: int) -> bytes:
        """The bytes at a place. BadData if the file ends before."""
        stop.check()
        if file not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[file] = open(self._records.files[file], "rb", buffering=0)
        data = os.pread(self._open[file].fileno(), length, start)
        if len(data) < length:
            raise BadData(CHANGED, self.name(file))
        return data

    def close(self):
        for file in self._open.values():
            file.close()


def _with_block(records, out, work, args):
    columns, answer = work(records, out, *args)
    return records.block.name, records.block.before, sum(map(len, records.block.lines)), columns, answer


@contextlib.contextmanager
def opened(job):
    """The job's inputs as Files. What is no plain file (stdin, a pipe, .gz, .zst) is unpacked into scratch space first.

    That is OUT.run/, or without -o a temporary directory; it is gone at the end. BadData then if a plain one has changed
    meanwhile: places were those of other rows.
    """
    records = job.records
    named, before = records.files, [_state(path) for path in records.files]
    records.begin()  # while the files are still those that were named
    with contextlib.ExitStack() as stack:
        scratch = None
        paths = []
        for number, path in enumerate(records.files):
            if not _is_plain(path):
                import tempfile

                scratch = scratch or stack.enter_context(tempfile.TemporaryDirectory(prefix="unpacked.", dir=job.run))
                paths.append(os.path.join(scratch, str(number)))
                _unpack(records, path, paths[-1])
            else:
                paths.append(path)
        records.files = tuple(paths)
        files = Files(records)
        stack.callback(files.close)
        yield files
    for path, state in zip(named, before):
        if state != _state(path):
            raise BadData(f"{CHANGED}; run the same line again", path)


def _state(path):
    """What tells a plain file from another one, or from itself with other bytes; None of what is read once only."""
    if not (_is_plain(path) and os.path.isfile(path)):
        return None
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _is_plain(path):
    return path != "-" and not path.endswith((".gz", ".zst")) and (os.path.isfile(path) or not os.path.exists(path))


def _unpack(records, path, to):
    name, lines = records.name_of(path), 0
    with stream.open_input(path) as source, open(to, "wb") as spool:
        # A pipe that stands still must not hold back a stop.
        read = source.read1 if path == "-" else source.read
        while True:
            try:
                with stop.waiting():
                    data = read(2**20)
            except (EOFError, OSError, ValueError) as error:
                raise BadData(f"cannot be read: {error}", f"{name}:{lines + 1}") from None
            if not data:
                break
            spool.write(data)
            lines += data.count(b"\n")
    records.rename(to, name)
