"""One pass of scorers over records: in chunks, in order, journalled so that a torn run goes on where it was."""

import contextlib
import json
import tempfile

from pt_tools import record as rec
from pt_tools import stop, stream
from pt_tools.errors import printable

CHUNK = 64  # records; scorers work on so many at once


def run(job, scorers, usable, rule=None, explain=False):
    """Score `job.records` with `scorers` and write them.

    `usable(record)` raises ValueError for a bad row. `rule` (rewards.combine) makes the reward of the scores; without
    it the reward is what the last scorer made. `explain` prints a line a completion on stderr.
    """
    with _journal(job, rule) as journal:
        for record in _scored(job, scorers, usable, journal):
            if rule is not None and rule.two_pass:
                _observe(rule, record)
            else:
                _finish(job, record, rule, explain)
        if rule is not None and rule.two_pass:
            for record in journal.read():
                _finish(job, record, rule, explain)


def _scored(job, scorers, usable, journal):
    chunk = []
    for record in job.records:
        try:
            usable(record)
        except ValueError as reason:
            job.records.reject(str(reason), record)
            continue
        if (kept := journal.take(record)) is not None:
            yield kept
            continue
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield from _score(chunk, scorers, journal)
            chunk = []
    yield from _score(chunk, scorers, journal)


def _score(chunk, scorers, journal):
    for scorer in scorers:
        stop.check()
        scorer.score(chunk)
    journal.add(chunk)
    return chunk


def _observe(rule, record):
    for completion in record["completions"]:
        raw = rule.raw(record, completion)
        if raw is not None:
            rule.observe(raw)


def _finish(job, record, rule, explain):
    """Give the completions their rewards, account for the row, and write it."""
    if rule is not None:
        for completion in record["completions"]:
            raw = rule.raw(record, completion)
            completion["reward"] = None if raw is None else rule.final(raw)
    if explain:
        _explain(job, record)
    if reason := failure(record, rule):
        job.rows.add("masked", 1, reason)
    job.out.write(record)


def failure(record, rule=None):
    """Why a completion of the record lacks its reward or a teacher; None if all have what was asked for."""
    needed = rule.needs(record) if rule else ()
    for completion in record["completions"]:
        errors = completion.get("errors") or {}
        unrewarded = completion.get("reward", 0) is None
        named = [key for key in errors if key.startswith("teachers.") or (unrewarded and (rule is None or key in needed))]
        if named or (unrewarded and errors):
            key = (named or list(errors))[0]
            return f"{key}: {errors[key]}"
        if unrewarded:
            return _lack(completion, needed) if rule else "no reward"
    return None


def _lack(completion, needed):
    """Why a rule that needs these scores made no reward of a completion without errors."""
    if not needed:
        return "the record has no verifier"
    scores = completion.get("scores") or {}
    missing = next((key for key in needed if key not in scores), None)
    return "the reward is not finite" if missing is None else f"no score {missing!r}"


def _explain(job, record):
    name = _name(record)
    for number, completion in enumerate(record["completions"]):
        details, errors = completion.get("details") or {}, completion.get("errors") or {}
        words = [f"{key} {score:.6g}{_shown(details.get(key))}" for key, score in (completion.get("scores") or {}).items()]
        words += [f"{key} error: {why}" for key, why in errors.items()]
        job._print(printable(f"{name}[{number}] reward {_number(completion.get('reward'))}: {'; '.join(words)}"))


def _number(value):
    return "none" if value is None else f"{value:.6g}"


def _shown(detail):
    return "" if detail is None else " " + json.dumps(detail, ensure_ascii=False, default=str)[:300]


@contextlib.contextmanager
def _journal(job, rule):
    """The journal in the run's scratch; a temporary one where a stream is read twice; else one that keeps nothing."""
    if job.run is not None:
        with Journal(job.run / "scored.jsonl") as journal:
            yield journal
    elif rule is not None and rule.two_pass:
        with tempfile.TemporaryDirectory(prefix="pt-score-") as folder, Journal(f"{folder}/scored.jsonl") as journal:
            yield journal
    else:
        yield _Nowhere()


class _Nowhere:
    def take(self, record):
        return None

    def add(self, records):
        pass


class Journal:
    """Scored records in the order of the input. A line that is torn or unreadable, and all after it, is scored again."""

    def __init__(self, path):
        self.path = str(path)
        whole = _whole_lines(self.path)
        self._file = open(self.path, "ab")
        self._file.truncate(whole)
        self._kept = self._lines(whole)
        self._next = next(self._kept, None)
        self._position = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def take(self, record):
        """The scored record of an earlier run if it is this one's turn and it is the same record, else None."""
        if self._next is None:
            return None
        line, kept = self._next
        if _name(kept) != _name(record):  # the input is the same by its run key; only rejected rows lie between
            self._cut()
            return None
        self._position += line
        self._next = next(self._kept, None)
        return kept

    def add(self, records):
        self._cut()
        self._file.write(b"".join(stream.dumps(record) + b"\n" for record in records))
        self._file.flush()

    def read(self):
        """All records, once they are all there."""
        self._file.flush()
        return stream.read_jsonl(self.path)

    def _cut(self):
        """From here on records are new: what the journal has beyond this place is no use."""
        if self._next is not None:
            self._next = None
            self._kept.close()
            self._file.truncate(self._position)

    def _lines(self, end):
        import orjson

        if not end:
            return
        with open(self.path, "rb") as file:
            while (start := file.tell()) < end:
                line = file.readline()
                try:
                    kept = orjson.loads(line)
                except ValueError:  # what a crash of the machine left
                    self._file.truncate(start)
                    return
                yield len(line), kept


def _whole_lines(path):
    """The length of a file up to its last line end; 0 if it is not there."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, 2)
            while end:
                start = max(0, end - 2**16)
                file.seek(start)
                at = file.read(end - start).rfind(b"\n")
                if at >= 0:
                    return start + at + 1
                end = start
    except FileNotFoundError:
        pass
    return 0


def _name(record):
    return record["id"] if record.get("id") is not None else rec.content_hash(record)
