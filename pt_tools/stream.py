"""JSONL in and out: constant memory, errors as `file:line: reason`, and every row accounted for."""

import contextlib
import functools
import os
import select
import stat
import sys
from collections import Counter

from pt_tools import stop
from pt_tools.errors import BadData, Usage

BOM = b"\xef\xbb\xbf"
KINDS = ("in", "out", "dropped", "truncated", "masked", "errored")
MAX_LINE = 256 * 2**20
BLOCK = 2**18
MAX_DEPTH = 250  # what can be read but not written again is refused when it is read
ARRAY = "not a JSON object; of a file that is one array pt-curate convert makes records"
UNREADABLE = (EOFError, OSError, ValueError)
MAX_REASONS_SHOWN = 5
MAX_REASONS = 1000  # reasons may quote the data; more of them than this are counted together


class Rows:
    """Row accounting: in = out + dropped + errored; truncated and masked are parts of out."""

    def __init__(self):
        self.n = dict.fromkeys(KINDS, 0)
        self.reasons = Counter()

    def add(self, kind: str, n: int = 1, reason: str | None = None) -> None:
        self.n[kind] += n
        if reason:
            self._because(f"{kind}: {reason}", n)

    def _because(self, full, n):
        if full not in self.reasons and len(self.reasons) >= MAX_REASONS:
            full = f"{full.partition(': ')[0]}: other"
        self.reasons[full] += n

    def merge(self, other: "Rows") -> None:
        """Add what another part of the same stream counted."""
        for kind, n in other.n.items():
            self.n[kind] += n
        for full, n in other.reasons.items():
            self._because(full, n)

    def as_dict(self) -> dict:
        return {**self.n, "reasons": dict(sorted(self.reasons.items()))}

    def missing(self) -> int:
        """Rows that went in and were never spoken of again; anything but 0 is a bug."""
        n = self.n
        return n["in"] - n["out"] - n["dropped"] - n["errored"]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.n[k]} {k}" for k in KINDS if self.n[k] or k in ("in", "out"))
        most = self.reasons.most_common(MAX_REASONS_SHOWN)
        more = len(self.reasons) - len(most)
        shown = [f"{reason} ({n})" for reason, n in most] + ([f"{more} more reasons"] if more else [])
        return f"rows: {counts}" + (f" [{'; '.join(shown)}]" if shown else "")


class Reader:
    """The records of `files` ('-' is stdin; .gz and .zst are unpacked) in order, as dicts.

    `where` is "file:line" of the last record. A line that is no JSON object, and a row handed to `reject`, end the
    command with `BadData` (`on_error="fail"`), or are counted, written to `rejects` and left out (`"skip"`), until
    there are more than `max_bad` of them.

    With `arrays`, a file that starts with "[" is one JSON array of records, held in memory; `where` then counts
    its items from 1. Else `span` is where the last record's line starts in its unpacked file, and its length, in bytes;
    `line` is that line (without a BOM), `number` its number. `plain`, if it is set, is a quick test that rows
    may pass; `is_plain` says whether the last one did.
    """

    def __init__(self, files=("-",), rows=None, on_error="fail", rejects=None, max_bad=None, max_line=MAX_LINE,
                 arrays=False):
        self.files = tuple(files)
        self.rows = rows if rows is not None else Rows()
        self.on_error, self.rejects, self.max_bad = on_error, rejects, max_bad
        self.max_line, self.arrays = max_line, arrays
        self.span = self.line = self.number = self._where = self._name = None
        self.plain, self.is_plain = None, False
        self._names = {}
        self._bad = 0
        self._rejects_file = None

    @property
    def where(self) -> str | None:
        return f"{self._name}:{self.number}" if self._where is None and self._name else self._where

    @where.setter
    def where(self, where: str | None) -> None:
        self._where = where

    def rename(self, path: str, name: str) -> None:
        """Call `path` by another name in messages (a spooled stdin stays '-')."""
        self._names[path] = name

    def name_of(self, path: str) -> str:
        """What messages call an input."""
        return self._names.get(path, "stdin" if path == "-" else path)

    def idle(self) -> None:
        """Called before a pipe is waited for that has nothing yet; a job that streams puts its flush here."""

    def begin(self) -> None:
        """Empty the file of rejects at once: rows of an earlier run are not of this one."""
        if self.rejects and self.on_error == "skip":
            self._open_rejects()

    def __iter__(self):
        self.begin()
        for path in self.files:
            with open_input(path) as file:
                yield from self._records(file, self.name_of(path))

    def load(self) -> tuple[list, list]:
        """All records, and beside them "file:line" of each."""
        records, wheres = [], []
        for record in self:
            records.append(record)
            wheres.append(self.where)
        return records, wheres

    def is_array(self, file) -> bool:
        """Whether an open input is to be read as one JSON array."""
        return self.arrays and file.peek(64).removeprefix(BOM).lstrip()[:1] == b"["

    def _records(self, file, name):
        if self.is_array(file):
            yield from self.items(file.read(), name)
        else:
            yield from self.lines(self._lines(file), name)

    def lines(self, lines, name, before=0):
        """The records of some lines, the first of which has number `before` + 1."""
        import orjson

        loads, n, plain, check, end = orjson.loads, self.rows.n, self.plain, stop.check, 0
        self._where, self._name, self.number = None, name, before
        for line in lines:
            check()
            self.number += 1
            self.span = end, len(line)
            end += len(line)
            if len(line) > self.max_line:
                raise BadData(f"line is longer than {self.max_line} bytes", self.where)
            try:
                record, self.line = loads(line), line
            except ValueError:
                record = None
            self.is_plain = plain is not None and type(record) is dict and plain(record)
            if not self.is_plain and (type(record) is not dict or line.count(b"{") + line.count(b"[") > MAX_DEPTH):
                record = self._odd(line)
                if record is None:
                    continue
            n["in"] += 1
            yield record

    def _odd(self, line):
        """The record of a line that is not plainly one; None if the line is blank, or bad and so rejected."""
        import jsonlines

        self.line = None
        if not line.removeprefix(BOM).strip():
            return None
        try:
            record = jsonlines.Reader([line.rstrip(b"\r\n")], loads=_loads).read(type=dict)
        except jsonlines.InvalidLineError as error:
            self.rows.add("in")
            array = self.number == 1 and line.removeprefix(BOM).lstrip()[:1] == b"["
            self.reject(ARRAY if array else _why(error), error.line)
            return None
        start, length = self.span
        self.line = line.removeprefix(BOM)
        self.span = start + length - len(self.line), len(self.line)
        return record

    def items(self, data, name):
        """The records of one JSON array."""
        import orjson

        try:
            items = orjson.loads(data.removeprefix(BOM))
            orjson.dumps(items)
        except (ValueError, TypeError) as error:
            reason = f"nested more than {MAX_DEPTH} deep" if isinstance(error, TypeError) else error
            raise BadData(f"not JSON ({reason})", name) from None
        for number, item in enumerate(items, 1):
            stop.check()
            self.rows.add("in")
            self.where, self.line, self.is_plain = f"{name}:{number}", None, False
            if isinstance(item, dict):
                yield item
            else:
                self.reject("not a JSON object", str(item)[:1000])

    def _lines(self, file):
        """The lines of an open file; of one that is too long more than `max_line` bytes."""
        if may_wait(file):
            yield from self._waited_for(file)
            return
        try:
            yield from iter(functools.partial(file.readline, self.max_line + 1), b"")
        except UNREADABLE as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error):
        return BadData(f"cannot be read: {error}", f"{self._name}:{self.number + 1}")

    def _waited_for(self, file):
        """The lines of a pipe, as they come; a signal ends the wait for them."""
        before = []  # parts of a line that goes on
        while True:
            if not is_ready(file):
                self.idle()
            try:
                with stop.waiting():
                    block = file.read1(BLOCK)
            except UNREADABLE as error:
                raise self._unreadable(error) from None
            *lines, last = block.split(b"\n")
            for line in lines:
                yield b"".join([*before, line, b"\n"])
                before = []
            before.append(last)
            if not block or sum(map(len, before)) > self.max_line:
                break
        if any(before):
            yield b"".join(before)

    def reject(self, reason: str, record=None, where: str | None = None) -> None:
        """Take one row out of the stream because it is bad, as `on_error` says."""
        where = where or self.where
        if self.on_error == "fail":
            raise BadData(reason, where)
        self._bad += 1
        self.rows.add("errored", 1, reason)
        if self.rejects:
            self._write_reject(where, reason, record)
        if self.max_bad is not None and self._bad > self.max_bad:
            raise BadData(f"{reason}; this is more than --max-bad {self.max_bad} bad rows", where)

    def _open_rejects(self):
        if self._rejects_file is None:
            if any(_same_file(self.rejects, path) for path in self.files):
                raise Usage(f"--rejects {self.rejects} is an input")
            self._rejects_file = open(self.rejects, "wb")

    def _write_reject(self, where, reason, record):
        self._open_rejects()
        name, _, line = (where or "").rpartition(":")
        row = record if isinstance(record, dict) else {"raw": str(record)} if record is not None else None
        self._rejects_file.write(dumps({"file": name, "line": int(line or 0), "reason": reason, "row": row}) + b"\n")
        self._rejects_file.flush()


class Writer:
    """Records out, one a line, counted as `out`."""

    def __init__(self, file, rows=None):
        self._file, self.rows = file, rows

    def write(self, record: dict) -> None:
        self._file.write(dumps(record, newline=True))
        if self.rows is not None:
            self.rows.n["out"] += 1

    def copy(self, record: dict, reader: Reader) -> None:
        """Write the reader's last record as it was read, byte for byte."""
        line = reader.line
        if line is None:
            self.write(record)
            return
        self._file.write(line if line.endswith(b"}\n") else line.rstrip() + b"\n")
        if self.rows is not None:
            self.rows.n["out"] += 1

    def write_lines(self, data: bytes) -> None:
        """Whole lines that are counted already."""
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def dumps(record, newline: bool = False) -> bytes:
    """One record as JSON bytes; numbers that JSON does not know become null."""
    import orjson

    return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_APPEND_NEWLINE if newline else 0))


def open_input(path: str):
    """The bytes of a file or stdin, unpacked if its name ends in .gz or .zst."""
    try:
        if path == "-":
            if sys.stdin is None:
                raise Usage("stdin is closed")
            return contextlib.nullcontext(sys.stdin.buffer)
        if path.endswith(".gz"):
            import gzip

            os.stat(path)
            return gzip.open(path, "rb")
        if path.endswith(".zst"):
            from pt_tools import unzstd

            return unzstd.open_file(path)
        return open(path, "rb", buffering=2**20)
    except FileNotFoundError:
        raise Usage(f"no such file: {path}") from None
    except OSError as error:
        raise Usage(f"cannot open {path}: {error.strerror}") from None


def open_output(path: str, name: str | None = None):
    """A file for bytes, packed if its (final) name ends in .gz or .zst; the same bytes every time."""
    name = name or path
    if name.endswith(".gz"):
        import gzip

        file = gzip.GzipFile(filename="", mode="wb", fileobj=open(path, "wb"), mtime=0)
        file.myfileobj = file.fileobj  # closed with it: what a full disk refuses at the last flush is an error
        return file
    if name.endswith(".zst"):
        import zstandard

        return zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(write_checksum=True))
    return open(path, "wb")


def stem(path: str) -> str | None:
    """The name of a file without folders and endings: data/gsm8k.jsonl.gz is gsm8k."""
    name = path.rpartition("/")[2].split(".")[0]
    return name.encode(errors="backslashreplace").decode() if path != "stdin" else None


def read_jsonl(path: str):
    """The records of one file; for small files of our own."""
    yield from Reader([path])


def may_wait(file) -> bool:
    """Whether an open input is a pipe or the like, which has more only when someone writes it."""
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):
        return False  # in memory, or unpacked


def is_ready(file) -> bool:
    """Whether a read of an open pipe would not wait; of what is in the file's own buffer nothing is known."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


def _same_file(a, b) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _loads(text: str):
    import orjson

    value = orjson.loads(text)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        try:
            orjson.dumps(value)
        except TypeError:
            raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    return value


def _why(error) -> str:
    """What is wrong with a line, in a few words; the decoder saw one line, so only its column is of use."""
    reason = str(error.__cause__ or error)
    if "utf-8" in reason:
        return "not UTF-8"
    if error.__cause__ is None:
        return "not a JSON object"
    message, _, position = reason.partition(": line 1 column ")
    return f"not JSON ({message} at column {position.split()[0]})" if position else f"not JSON ({message})"
