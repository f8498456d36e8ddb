"""Records of one id or one prompt, wherever they are in the input, made one record with all their completions."""

import hashlib

import numpy as np

from pt_tools import record, stream

BY = ("id", "prompt")


class Pooled:
    """The records of a job, pooled, as a stream.Reader gives records; `rows` has the account.

    They come in the order of their first rows; what is not completions is of the first row. Rows are read twice: 28
    bytes a row are kept in memory, and the rows of one record.
    """

    def __init__(self, job, files, by: str, jobs: int):
        self.rows, self.where, self.is_plain = job.rows, None, False
        self._records, self._files, self._by = job.records, files, by
        parts = [_columns()]
        for file, columns, _ in files.index(job, _index, by, jobs=jobs):
            columns["file"] += np.int32(file)
            parts.append(columns)
        self._columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def __iter__(self):
        keys = self._columns["key"]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[:len(order)])
        ends = np.append(starts[1:], len(order))
        for group in np.argsort(order[starts], kind="stable").tolist():
            yield from self._pooled(order[starts[group]:ends[group]].tolist())

    def _pooled(self, rows):
        first = self._read(rows[0])
        first_where, pooled, prompt = self.where, 0, _prompt(first)
        completions = list(first.get("completions") or [])
        for row in rows[1:]:
            rec = self._read(row)
            if _prompt(rec) != prompt:
                self.reject(f"its prompt is not that of {first_where}, which has the same id", rec)
                continue
            completions += rec.get("completions") or []
            self.rows.add("dropped", 1, f"joined to the first record of its {self._by}")
        self.where = first_where
        yield {**first, "completions": completions} if completions else first

    def _read(self, row):
        file, start, length, line = (int(self._columns[name][row]) for name in ("file", "start", "length", "line"))
        self.where = f"{self._files.name(file)}:{line}"
        return record.ensure_id(self._files.read(file, start, length))

    def reject(self, reason: str, rec=None, where: str | None = None) -> None:
        self._records.reject(reason, rec, where or self.where)


def _index(records, out, by):
    """(columns, None) of a block."""
    return _columns([(_key(rec, by), *records.span, records.number) for rec in record.checked(records)]), None


def _columns(rows=()):
    rows = np.array(rows, np.uint64).reshape(-1, 4)
    return {"key": rows[:, 0], "start": rows[:, 1].astype(np.int64), "length": rows[:, 2].astype(np.uint32),
            "line": rows[:, 3].astype(np.uint32), "file": np.zeros(len(rows), np.int32)}


def _key(rec, by):
    named = record.ensure_id(rec)["id"].encode() if by == "id" else _prompt(rec)
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "big")


def _prompt(rec):
    return stream.dumps([record.as_turns(record.prompt_of(rec), "user"), rec.get("tools")])
