"""pt-curate dedup at work: rows are indexed by keys, those that share one are read again, and of copies one stays."""

import bisect
import contextlib
import math
import os
from array import array
from collections import Counter
from dataclasses import dataclass
from functools import partial

from pt_tools import blocks, record, stop, stream
from pt_tools.curate import compared

COPIED = 2**18  # bytes at once
PORTION = 256  # rows that are read again at once


@dataclass(frozen=True)
class Rules:
    """What is compared, and which copy stays; as the options of pt-curate dedup say.

    `threshold` is None where only exact copies are looked for. `prefer`: sources, the best first.
    """

    on: str = "all"
    threshold: float | None = None
    keep: str = "first"
    score: str = "reward"
    prefer: tuple = ()


class Index:
    """Where every row is, its source, and what decides which copy stays: 20 to 38 bytes a row."""

    TYPES = {"starts": "Q", "lengths": "I", "lines": "I", "source": "I", "ranks": "H", "measures": "d", "ids": "Q"}

    def __init__(self, files):
        self.files, self._ends = files, []  # number of rows up to the end of every file
        self.columns = {name: array(code) for name, code in self.TYPES.items()}
        self.starts, self.lengths, self.lines, self.source, self.ranks, self.measures, self.ids = self.columns.values()
        self.sources = {}  # name -> number
        self.odd = set()  # rows whose line does not end as it should

    def __len__(self):
        return len(self.starts)

    def add(self, file: int, columns: dict, odd=()) -> None:
        """Further rows; `odd` are numbers of rows among these."""
        self.odd.update(map(len(self).__add__, odd))
        for name, values in columns.items():
            self.columns[name].extend(values)
        self._ends += [self._ends[-1] if self._ends else 0] * (file + 1 - len(self._ends))
        self._ends[file] = len(self)

    def file(self, row: int) -> int:
        return bisect.bisect_right(self._ends, row)

    def ends(self) -> list[int]:
        """How many rows there are up to the end of every file."""
        return self._ends

    def where(self, row: int) -> tuple[str, int]:
        """The name of its file, and the number of its line."""
        return self.files.name(self.file(row)), self.lines[row]

    def read(self, row: int) -> dict:
        return self.parsed(self.bytes(row), row)

    def bytes(self, row: int) -> bytes:
        return self.files.bytes(self.file(row), self.starts[row], self.lengths[row])

    def parsed(self, line: bytes, row: int) -> dict:
        """The record of a line, or of what of it stands for that of a row."""
        return self.files.parsed(line, self.file(row))

    def best(self, cluster: list[int]) -> int:
        """The row that stays of a cluster: of the best source, of the highest measure, the first."""
        return min(cluster, key=lambda row: (self.ranks[row] if self.ranks else 0,
                                             -self.measures[row] if self.measures else 0, row))


def take(job, index: Index, rules: Rules, finder, jobs: int, ids: bool = False, passed: bool = False) -> None:
    """Index the rows of all inputs; the keys that `finder.of` makes of a block's `finder.key(text)` go to `finder.add`.

    With `ids` there is a column of hashes of the ids. With `passed` rows are written but those that `finder.add` returns.
    """
    each = blocks.with_blocks(job, _index, rules, finder.text, finder.key, finder.of, ids, jobs=jobs, size=finder.size)
    for block, (columns, sources, odd, keys) in each:
        numbers = [index.sources.setdefault(name, len(index.sources)) for name in sources]
        columns["source"] = map(numbers.__getitem__, columns["source"])
        begun = len(index)
        index.add(block.file, columns, odd)
        copies = finder.add(keys, block)
        if passed:
            _pass(job, index, block, range(begun, len(index)), copies)


def _pass(job, index, block, rows, copies):
    """Write the rows of a block but the copies, byte for byte as they were."""
    lines = block.lines.copy()
    if sum(map(len, lines)) > sum(index.lengths[rows.start:]) or not index.odd.isdisjoint(rows):  # there is more than rows
        lines = [block.line(index.lines[row]).removeprefix(stream.BOM).rstrip() + b"\n" for row in rows]
    for row in sorted(copies, reverse=True):
        del lines[row - rows.start]
    job.out.write_lines(b"".join(lines))
    job.rows.add("out", len(lines))


def _index(records, out, rules, text, key, of, with_ids):
    """(columns of its rows, names of the sources, odd rows, keys) of a block."""
    ranking, sources = _Ranking(rules), {}

    def of_row(rec):
        said = text(rec, rules.on)
        if ranking.needed:
            ranking.add(rec, said)
        return key(said), sources.setdefault(rec.get("source"), len(sources)), with_ids and id_number(record.ensure_id(rec)["id"])

    taken = records.map(of_row)
    keys, source, ids = zip(*taken.values) if taken.values else ((), (), ())
    odd = [i for i, line in enumerate(taken.lines) if not line.endswith(b"}\n")]
    starts = [records.block.start + start for start, _ in taken.spans]
    columns = zip(Index.TYPES.items(), (starts, [length for _, length in taken.spans], taken.numbers, source, ranking.ranks,
                                        ranking.measures, ids if with_ids else ()))
    packed = {name: array(code, values) for (name, code), values in columns}
    return packed, [name or "none" for name in sources], odd, of(keys)


def id_number(id: str) -> int:
    """64 bits of its hash."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "little")


class _Ranking:
    """What decides between copies: a number for the source, the smaller the better, and one for the row, the larger."""

    def __init__(self, rules):
        self._rules = rules
        self._rank_of = {source: rank for rank, source in enumerate(rules.prefer)}
        self.ranks, self.measures = [], []
        self.needed = bool(self._rank_of) or rules.keep != "first"

    def add(self, rec, said):
        """ValueError if the score is no number."""
        if self._rules.keep == "longest":
            self.measures.append(len(said) if isinstance(said, str) else sum(map(len, said)))
        elif self._rules.keep == "best":
            self.measures.append(_score(rec, self._rules.score))
        if self._rank_of:
            self.ranks.append(self._rank_of.get(rec.get("source"), len(self._rank_of)))


def _score(rec, name):
    """The number under a dotted name; of a record with scored completions the best reward; -inf where there is none."""
    value = rec
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None and name == "reward":
        value = max((c["reward"] for c in rec.get("completions") or () if c.get("reward") is not None), default=None)
    if value is None:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is not a number")
    return value


# --- what goes out ------------------------------------------------------------------------------------------------


def write(job, index: Index, found, mark: bool, jobs: int = 1) -> None:
    """Write the rows that stay, byte for byte as they were, or all rows with `cluster` in those that have copies."""
    kept_for = kept(index, found)
    marks = {row: cluster[0] for cluster in found.clusters for row in cluster} if mark else {}
    names = ids_of(index, sorted(set(marks.values())), jobs)
    apart, lines = index.odd | marks.keys() | (set() if mark else kept_for.keys()), _Lines(job, index)
    for start, end in _runs(index, apart):
        if start not in apart:
            lines.add(start, end)
        elif mark or start not in kept_for:
            lines.flush()
            _write_alone(job, index, start, names[marks[start]] if start in marks else None)
    lines.flush()


def _write_alone(job, index, row, cluster):
    if cluster is not None:
        job.out.write({**index.read(row), "cluster": cluster})
        return
    job.out.write_lines(index.bytes(row).rstrip() + b"\n")
    job.rows.add("out")


def ids_of(index: Index, rows: list[int], jobs: int = 1) -> dict[int, str]:
    """The ids of some rows, which are read for it."""
    portions = (rows[i:i + PORTION] for i in range(0, len(rows), PORTION))
    out = {}
    for part in blocks.ordered(partial(_ids, index), portions, jobs):
        out.update(part)
    return out


def _ids(index, rows):
    return {row: record.ensure_id(index.read(row))["id"] for row in rows}


def kept(index: Index, found) -> dict[int, int]:
    """The row that stays for every other one of its cluster."""
    out = {}
    for cluster in found.clusters:
        best = index.best(cluster)
        out.update((row, best) for row in cluster if row != best)
    return out


def _runs(index, apart):
    """(first row, end) of runs of rows whose lines follow on each other; every row of `apart` is a run."""
    first, end = 0, None  # of the run, and the byte behind it
    borders = set(index.ends())
    for row, (start, length) in enumerate(zip(index.starts, index.lengths)):
        if start != end or row in apart or row in borders:
            if row > first:
                yield first, row
            first = row
        end = start + length if row not in apart else None
    if len(index) > first:
        yield first, len(index)


class _Lines:
    """Lines that are passed on as they are; those that lie near each other are read at once."""

    def __init__(self, job, index):
        self._job, self._index, self._file, self._spans = job, index, None, []

    def add(self, first: int, end: int) -> None:
        """Rows `first` to `end`, which follow on each other."""
        index = self._index
        file, start, behind = index.file(first), index.starts[first], index.starts[end - 1] + index.lengths[end - 1]
        if self._spans and (file != self._file or behind - self._spans[0][0] > COPIED):
            self.flush()
        self._file = file
        self._spans.append((start, behind))
        self._job.rows.add("out", end - first)

    def flush(self) -> None:
        stop.check()
        if not self._spans:
            return
        begun, behind = self._spans[0][0], self._spans[-1][1]
        if len(self._spans) > 1:
            data = memoryview(self._read(begun, behind))
            self._job.out.write_lines(b"".join([data[start - begun:end - begun] for start, end in self._spans]))
        else:
            for at in range(begun, behind, COPIED):
                stop.check()
                self._job.out.write_lines(self._read(at, min(at + COPIED, behind)))
        self._spans = []

    def _read(self, start, end):
        return self._index.files.bytes(self._file, start, end - start)


def finish(job, index: Index, found, mark: bool) -> dict[int, int]:
    """Count the rows that do not stay, and say what was found. Returns the row that stays for every other one of its cluster."""
    kept_for = kept(index, found)
    if kept_for and not mark:
        job.rows.add("dropped", len(kept_for), "copy of another row")
    say(job, index, found, kept_for)
    return kept_for


def say(job, index: Index, found, kept) -> None:
    """Say how many copies there are, and of which sources are the rows that do not stay."""
    names = list(index.sources)
    sources = Counter(names[index.source[row]] for row in kept)
    sizes = list(map(len, found.clusters))
    job.final["copies"] = {"clusters": len(sizes), "rows": sum(sizes), "largest": max(sizes, default=0),
                           "redundant": dict(sorted(sources.items()))}
    if sizes:
        job.say(f"{sum(sizes)} rows in {len(sizes)} clusters of copies, the largest of {max(sizes)}; redundant: "
                + ", ".join(f"{source} {n}" for source, n in sources.most_common(10)))
    if found.left:
        job.final["copies"]["not_compared"] = found.left
        job.say(f"{found.left} times a row was not compared with all that look like it, because too many do: texts of one template")


def losers(index: Index, found, kept: dict[int, int], ids: dict[int, str]):
    """{id, cluster, kept} of every row that does not stay, in order; `ids` are of all rows of clusters.

    Where several rows have its id, which `index.ids` tell, `file` and `line` too.
    """
    seen = Counter(index.ids)
    for cluster in found.clusters:
        for row in cluster:
            if row in kept:
                entry = {"id": ids[row], "cluster": ids[cluster[0]], "kept": ids[kept[row]]}
                name, line = index.where(row)
                yield entry | ({"file": name, "line": line} if seen[id_number(ids[row])] > 1 else {})


def write_table(path: str, index: Index, found, kept: dict[int, int], jobs: int = 1) -> None:
    """Write the losers to a file, whole or not at all."""
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        with stream.open_output(aside, path) as file:
            out = stream.Writer(file)
            for entry in losers(index, found, kept, ids_of(index, found.rows(), jobs)):
                out.write(entry)
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside)
