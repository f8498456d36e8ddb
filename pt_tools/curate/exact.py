"""Exact copies: texts that are equal but for Unicode form (NFC), case, spacing and punctuation.

Most texts differ at their end, so a hash of it is enough to tell them apart, and only the others have to be looked at as
a whole.
"""

import re
import unicodedata
from hashlib import blake2b
from zlib import crc32

import orjson

from pt_tools.curate.words import fold, prompt_key

WINDOW = 128  # characters at the end
ENOUGH, KEPT = 64, 48  # bytes of letters there; a few before those that are kept may hang on what was cut off
MANY = 2**20  # keys from which on numpy is worth its start
_WORD = re.compile(r"[^\W_]+")
_NO_LETTERS = bytes(c for c in range(256) if not (c < 128 and chr(c).isalnum()))
_LOWER = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))


def rough_key(turns: list[str]) -> int:
    """A 32-bit number that copies share."""
    end = _ascii_letters(turns[-1][-WINDOW:])
    if len(end) < ENOUGH:
        end = _end("\n".join(turns))
    return crc32(end[-KEPT:], len(turns)) or 1


def _end(text):
    """Letters of its end: ASCII letters if there are enough of them in all of it, else letters of every script."""
    letters = _ascii_letters(text)
    if len(letters) >= ENOUGH:
        return letters
    letters = _letters(text[-WINDOW:])
    return letters if len(letters) >= ENOUGH else _letters(text)


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


def clusters(places: list, read) -> list[list]:
    """The copies among some places, a list for each text that several have, in order; `read(place)` gives the turns of one.

    Most are the same to the letter, or differ in their letters, and need no third look.
    """
    same, alike = {}, {}  # hash of the turns as they are -> places; hash of their letters -> hashes of such turns
    for place in places:
        turns = read(place)
        raw = hash(tuple(turns))
        if raw not in same:
            alike.setdefault(hash(_ascii_letters("\n".join(turns))), []).append(raw)
        same.setdefault(raw, []).append(place)
    found = []
    for raws in alike.values():
        by_key = {}
        for raw in raws:
            by_key.setdefault(whole_key(read(same[raw][0])) if len(raws) > 1 else None, []).extend(same[raw])
        found += [sorted(copies) for copies in by_key.values() if len(copies) > 1]
    return sorted(found)


def _ascii_letters(text):
    """Its ASCII letters and digits, in lower case; the same for copies."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).replace("İ", "i")
    return text.encode("ascii", "ignore").translate(_LOWER, _NO_LETTERS)


def _letters(text):
    """All its letters and digits, in lower case; the same for copies."""
    return "".join(_WORD.findall(fold(text))).encode()
