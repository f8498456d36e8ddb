"""Exact copies: texts that are equal but for Unicode form (NFC), case, spacing and punctuation.

Most texts differ at their beginning or end, so a hash of these is enough to tell them apart, and only the others have to
be looked at as a whole.
"""

import re
import unicodedata
from hashlib import blake2b
from zlib import crc32

import orjson

from pt_tools.curate.words import prompt_key

WINDOW = 256  # characters at either end
ENOUGH, KEPT = 80, 64  # bytes of letters there; a few behind those that are kept may hang on what was cut off
MANY = 2**20  # keys from which on numpy is worth its start
_WORD = re.compile(r"[^\W_]+")
_NO_LETTERS = bytes(c for c in range(256) if not (c < 128 and chr(c).isalnum()))
_LOWER = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))


def rough_key(turns: list[str]) -> int:
    """A 32-bit number that copies share."""
    text = "\n".join(turns) if len(turns) != 1 else turns[0]
    start, end = _letters(text[:WINDOW]), _letters(text[-WINDOW:])
    if len(start) < ENOUGH or len(end) < ENOUGH:
        start = end = _letters(text)
    return crc32(start[:KEPT] + end[-KEPT:], len(turns))


def whole_key(turns: list[str]) -> bytes:
    """16 bytes that copies, and nothing else, share."""
    return blake2b(orjson.dumps(prompt_key(turns)), digest_size=16).digest()


def alike(keys) -> list[list[int]]:
    """The groups of places that share a key, which is not 0; places ascend in a group, groups by their first place."""
    if len(keys) >= MANY:
        return _alike_many(keys)
    first, groups = {}, {}
    for place, key in enumerate(keys):
        before = first.setdefault(key, place)
        if before != place and key:
            groups.setdefault(before, [before]).append(place)
    return [groups[before] for before in sorted(groups)]


def _alike_many(keys):
    """The same with numpy, in less memory."""
    import numpy as np

    keys = np.asarray(keys)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(starts, append=len(keys))
    groups = [order[start:start + size].tolist() for start, size in zip(starts[sizes > 1], sizes[sizes > 1]) if ordered[start]]
    return sorted(groups)


class Equal:
    """Tells which of the texts that it is given are copies. Most are the same to the letter, and need no second look."""

    def __init__(self):
        self._same = {}  # hash of the turns as they are -> places
        self._whole = {}  # hash of the turns -> whole key; while there is only one, None
        self._first = None

    def add(self, place, turns: list[str]) -> None:
        raw = hash(tuple(turns))
        if raw not in self._same:
            if self._first is None:
                self._first = raw, turns
            else:
                raw_first, turns_first = self._first
                if turns_first is not None:
                    self._whole[raw_first] = whole_key(turns_first)
                    self._first = raw_first, None
                self._whole[raw] = whole_key(turns)
        self._same.setdefault(raw, []).append(place)

    def clusters(self) -> list[list]:
        """The places of those that have copies, a list for each cluster, in order."""
        by_key = {}
        for raw, places in self._same.items():
            by_key.setdefault(self._whole.get(raw), []).extend(places)
        return sorted(sorted(places) for places in by_key.values() if len(places) > 1)


def _letters(text):
    """Its letters and digits, in lower case, as UTF-8; equal for copies."""
    if text.isascii():
        return text.encode().translate(_LOWER, _NO_LETTERS)
    text = unicodedata.normalize("NFC", text).replace("İ", "i").lower().replace("ς", "σ")
    return "".join(_WORD.findall(text)).encode()
