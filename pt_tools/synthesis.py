"""pt-curate synth at work: rows with personas are indexed, combinations drawn by number, and requests written row by row."""

import hashlib
import json

import numpy as np

from pt_tools import record, stream
from pt_tools.curate import synth


def run(job, files, templates, seeds, cfg) -> None:
    """Write the requests, or with `cfg.dry_run` print how many there would be."""
    rows = _Rows(job, files)
    combinations = synth.Combinations(len(rows), templates, seeds)
    numbers = combinations.drawn(cfg.count, cfg.seed)
    done = _answered(cfg.done, cfg.on_error)
    counts = {"personas": len(rows), "templates": len(templates), "seeds": len(seeds), "combinations": combinations.total,
              "drawn": len(numbers)}
    requests = _Requests(job, rows, combinations, done)
    if cfg.dry_run:
        counts["answered"] = sum(id in done for _, id, *_ in requests.of(numbers)) if done else 0
        counts["requests"] = counts["drawn"] - counts["answered"]
        job.rows.add("dropped", job.rows.missing(), "dry run")
        print(json.dumps(counts))
        return
    requests.write(numbers)
    job.final["synth"] = {**counts, "answered": requests.answered, "requests": job.rows.n["out"]}


class _Rows:
    """The rows of the job's input without repetitions: 32 bytes each in memory."""

    def __init__(self, job, files):
        self._job, self._files = job, files
        parts = [_columns()]
        for file, columns, _ in files.index(job, _index):
            columns["file"] += np.int32(file)
            parts.append(columns)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        _, first = np.unique(columns["digest"], return_index=True)
        first.sort()
        self._columns = {name: column[first] for name, column in columns.items()}
        if repeated := len(columns["digest"]) - len(first):
            job.rows.add("dropped", repeated, "repeated")

    def __len__(self):
        return len(self._columns["digest"])

    def read(self, number):
        """(row, "file:line")"""
        file, start, length, line = (int(self._columns[name][number]) for name in ("file", "start", "length", "line"))
        return self._files.read(file, start, length), f"{self._files.name(file)}:{line}"


def _index(records, out):
    return _columns([(int.from_bytes(synth.digest(row)[:8], "big"), *records.span, records.number) for row in records]), None


def _columns(rows=()):
    rows = np.array(rows, np.uint64).reshape(-1, 4)
    return {"digest": rows[:, 0], "start": rows[:, 1].astype(np.int64), "length": rows[:, 2].astype(np.uint32),
            "line": rows[:, 3].astype(np.uint32), "file": np.zeros(len(rows), np.int32)}


class _Requests:
    def __init__(self, job, rows, combinations, done):
        self._job, self._rows, self._combinations, self._done = job, rows, combinations, done
        self.answered = 0

    def of(self, numbers):
        """(number of the row, id, row, where, template, seed) of each combination."""
        at = None
        for number in numbers:
            persona, template, seed = self._combinations.of(int(number))
            if persona != at:
                at, (row, where) = persona, self._rows.read(persona)
            yield at, synth.request_id(template, row, seed), row, where, template, seed

    def write(self, numbers):
        rows, at = self._job.rows, None
        drawn = 0
        for number, id, row, where, template, seed in self.of(numbers):
            if number == at:
                rows.add("in", 1, "further requests of a row")
            at, drawn = number, drawn + (number != at)
            if id in self._done:
                self.answered += 1
                rows.add("dropped", 1, "answered already")
                continue
            try:
                self._job.out.write(synth.request(template, row, seed))
            except ValueError as reason:
                self._job.records.reject(str(reason), row, where)
        if len(self._rows) > drawn:
            rows.add("dropped", len(self._rows) - drawn, "in no combination that was drawn")


class _Ids:
    """A set of strings as 8-byte hashes."""

    def __init__(self):
        self._hashes = set()

    def add(self, id):
        self._hashes.add(self._hash(id))

    def __contains__(self, id):
        return self._hash(id) in self._hashes

    def __len__(self):
        return len(self._hashes)

    @staticmethod
    def _hash(id):
        return hashlib.blake2b(id.encode(), digest_size=8).digest()


def _answered(files, on_error):
    """Ids of the records that have a completion with a text."""
    ids = _Ids()
    for rec in record.checked(stream.Reader(files, on_error=on_error)):
        if any(c["text"].strip() and c.get("finish") != "error" for c in rec.get("completions") or ()):
            ids.add(record.ensure_id(rec)["id"])
    return ids
