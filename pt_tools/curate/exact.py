"""Exact copies: texts that are equal but for Unicode form (NFC), case, spacing and punctuation.

Most texts differ at their end, so a hash of it is enough to tell them apart, and only the others have to be looked at as
a whole.
"""

import functools
import re
import unicodedata
from hashlib import blake2b
from zlib import crc32

import orjson

from pt_tools.curate.words import fold, prompt_key, terms

WINDOW = 128  # characters at the end
ENOUGH, KEPT = 64, 48  # bytes of letters there; a few before those that are kept may hang on what was cut off
MANY = 2**20  # keys from which on numpy is worth its start
FEW = 16  # texts that may be in memory at once
_WORD = re.compile(r"[^\W_]+")
_ASCII = bytes(range(128))
_NO_ALNUM = bytes(c for c in range(128) if not chr(c).isalnum())
_NO_LETTERS = _NO_ALNUM + bytes(range(128, 256))
_LOWER = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))


def rough_key(turns: list[str]) -> int:
    """A 32-bit number that copies share: of the last letters and digits, in lower case, and of the number of turns."""
    end = _letters(turns[-1][-WINDOW:])
    if len(end) < ENOUGH:
        text = "\n".join(turns)
        end = _letters(text[-8 * WINDOW:])
        if len(end) < ENOUGH:
            end = _letters(text)
    return crc32(end[-KEPT:], len(turns)) or 1


def _letters(text):
    """All its letters and digits, in lower case; the same for copies."""
    if text.isascii():
        return text.encode().translate(_LOWER, _NO_LETTERS)
    data = text.encode("utf-8", "replace")
    other = data.translate(None, _ASCII)
    if len(other) <= 4 * WINDOW and _no_letters(other):
        return data.translate(_LOWER, _NO_LETTERS)
    text = fold(text)
    data = text.encode("utf-8", "replace")
    if data.translate(None, _ASCII).decode().isalnum():
        return data.translate(None, _NO_ALNUM)
    return "".join(_WORD.findall(text)).encode()


@functools.lru_cache(10_000)
def _no_letters(data):
    """Whether characters in UTF-8 are neither letters or digits nor marks, which may make other letters of ASCII ones."""
    return not any(char.isalnum() or unicodedata.category(char)[0] == "M" for char in data.decode())


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
    """The copies among some places, a list for each text that several have, in order; `read(place)` gives the turns of one."""
    if len(places) > FEW:
        return _clusters_of_many(places, read)
    same = {}  # the turns as they are -> places
    for place in places:
        same.setdefault(tuple(read(place)), []).append(place)
    found = [sorted(place for turns in group for place in same[turns]) for group in _copies(list(same))]
    return sorted(copies for copies in found if len(copies) > 1)


def _copies(texts):
    """Some texts in lists of copies; most are none, which the first turn shows that differs."""
    found, left = [], [([turns for turns in texts if len(turns) == n], 0) for n in set(map(len, texts))]
    while left:
        group, at = left.pop()
        first, *others = group
        while others and at < len(first) and all(turns[at] == first[at] for turns in others):
            at += 1
        if not others or at == len(first):
            found.append(group)
            continue
        by_key, start = {}, _same_until([turns[at] for turns in group])
        for turns in group:
            key = terms(turns[at][start:]) if start else prompt_key([turns[at]])
            by_key.setdefault(key, []).append(turns)
        left += [(finer, at + 1) for finer in by_key.values()]
    return found


def _same_until(texts):
    """A place before which the texts are the same, and what follows it decides: behind a word and a space.

    There the terms of a text are those of its two parts, since no rule looks back over a letter or digit.
    """
    first, end = texts[0], 0
    while end < len(first) and all(text.startswith(first[end:end + WINDOW], end) for text in texts):
        end += WINDOW
    space = first.rfind(" ", 0, end)
    return space + 1 if space > 0 and first[space - 1].isascii() and first[space - 1].isalnum() else 0


def _clusters_of_many(places, read):
    """The same, with hashes for the texts, which need not fit the memory; letters tell most apart, and are sooner made."""
    same, alike = {}, {}  # hash of the turns as they are -> places; hash of their letters -> hashes of such turns
    for place in places:
        turns = read(place)
        raw = hash(tuple(turns))
        if raw not in same:
            alike.setdefault(hash(_letters("\n".join(turns))), []).append(raw)
        same.setdefault(raw, []).append(place)
    found = []
    for raws in alike.values():
        by_key = {}
        for raw in raws:
            by_key.setdefault(whole_key(read(same[raw][0])) if len(raws) > 1 else None, []).extend(same[raw])
        found += [sorted(copies) for copies in by_key.values() if len(copies) > 1]
    return sorted(found)
