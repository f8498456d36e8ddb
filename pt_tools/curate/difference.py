"""How two streams of records differ, by id: what was added, removed, and changed in which keys.

Of a record no more is kept than a hash of every value, so that files larger than memory can be compared.
"""

import hashlib
from collections import Counter

from pt_tools import record


class Difference:
    """Feed it all records of the first stream, then those of the second, then ask for what was `removed`.

    Of an id that occurs several times the first record is compared with the first, and so on.
    """

    def __init__(self):
        self._first, self._seen, self._again = {}, set(), {}
        self._keys, self._last = {}, -1
        self.counts, self.keys, self.reordered = Counter(added=0, removed=0, changed=0, same=0), Counter(), False

    def before(self, rec: dict) -> None:
        """A record of the first stream."""
        name, keys = self._name(rec, self._first), tuple(rec)
        self._first[name] = len(self._first), self._keys.setdefault(keys, keys), b"".join(map(_hash, rec.values()))

    def _name(self, rec, known):
        """The id, or (id, how many of it there were) where it is known already."""
        name = rec.get("id") or record.content_hash(rec)
        if name not in known:
            return name
        self._again[id(known), name] = n = self._again.get((id(known), name), 0) + 1
        return name, n

    def after(self, rec: dict) -> dict | None:
        """What a record of the second stream is: {id, change, keys}; None if it is as it was."""
        name = self._name(rec, self._seen)
        self._seen.add(name)
        if name not in self._first:
            self.counts["added"] += 1
            return {"id": _id(name), "change": "added", "keys": list(rec)}
        place, keys, hashes = self._first[name]
        self.reordered, self._last = self.reordered or place < self._last, max(place, self._last)
        old = {key: hashes[8 * i:8 * i + 8] for i, key in enumerate(keys)}
        new = {key: _hash(value) for key, value in rec.items()}
        changed = [key for key in old if old[key] != new.get(key)] + [key for key in new if key not in old]
        self.counts["changed" if changed else "same"] += 1
        self.keys.update(changed)
        return {"id": _id(name), "change": "changed", "keys": changed} if changed else None

    def removed(self):
        """What only the first stream has, in its order."""
        for name, (_, keys, _) in self._first.items():
            if name not in self._seen:
                self.counts["removed"] += 1
                yield {"id": _id(name), "change": "removed", "keys": list(keys)}


def _id(name):
    return name if isinstance(name, str) else name[0]


def _hash(value):
    """8 bytes that are the same whatever the order of an object's keys."""
    import orjson

    return hashlib.blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=8).digest()
