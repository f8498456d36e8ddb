"""An append-only file of finished answers, by the hash of what was asked: what a run has paid for is not asked again."""

from __future__ import annotations

import hashlib
import json
import os
import time

SYNC_S = 5.0  # at most so much is lost with the machine; with the process alone, nothing


class Journal:
    """Key → JSON object, one line each. A torn or unreadable line counts as not written. One writer, one thread.

    Without `path` nothing is kept. Only places are held in memory, some hundred bytes an entry.
    """

    def __init__(self, path=None):
        self._places, self._file, self._synced = {}, None, time.monotonic()
        if path is not None:
            self._file = open(path, "a+b")
            self._file.truncate(self._read())
            self._file.seek(0, os.SEEK_END)

    def __len__(self):
        return len(self._places)

    def __iter__(self):
        """All values, in the order in which they were first written."""
        return (self._at(place) for place in self._places.values())

    def get(self, key):
        """The value of `key`, None if there is none."""
        place = self._places.get(_short(key))
        return None if place is None else self._at(place)

    def add(self, key, value):
        if self._file is None:
            return
        line = json.dumps({"key": key, **value}).encode() + b"\n"
        self._places[_short(key)] = (self._file.tell(), len(line))
        self._file.write(line)
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_S:
            self._sync()

    def close(self):
        if self._file is not None and not self._file.closed:
            self._sync()
            self._file.close()

    def _at(self, place):
        start, length = place
        return json.loads(os.pread(self._file.fileno(), length, start))

    def _read(self):
        """Find the entries; returns where the last whole line ends."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                self._places[_short(json.loads(line)["key"])] = (end, len(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                pass  # what a crash of the machine left
            end += len(line)
        return end

    def _sync(self):
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def key_of(value):
    """The key of what is asked, anything that JSON can hold: a sha256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _short(key):
    return bytes.fromhex(key[:32])
