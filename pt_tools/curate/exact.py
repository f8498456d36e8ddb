"""Exact copies: texts that are equal but for Unicode form (NFC), case, spacing and punctuation.

Most texts differ at their end, so a hash of it is enough to tell them apart, and only the others have to be looked at as
a whole.
"""

import re
from zlib import crc32

import orjson

from pt_tools.curate.words import letters, prompt_key, quick_key, terms

WINDOW = 128  # characters at the end
ENOUGH, KEPT = 64, 48  # bytes of letters there; a few before those that are kept may hang on what was cut off
MANY = 2**20  # keys from which on numpy is worth its start
FEW = 16  # texts that may be in memory at once
# What begins a text: a run that ASCII ends, of scripts that write spaces and of common signs, which may be one word or more;
# or nothing. Before it there may be ASCII that means nothing of its own; see words.terms.
_RUN = re.compile(r"""[\s!"#$&'(),.:;?@\[\\\]_`{|}~-]*(?:([0-9A-Za-z\x80-\u0dff\u2000-\u206f\uac00-\ud7a3]+)(?=[\x00-\x7f]|\Z)|\Z)""")


def rough_key(turns: list[str]) -> int:
    """A 32-bit number that copies share: of the last letters and digits, in lower case, and of the number of turns."""
    text = turns[-1][-WINDOW:]
    end = b"" if text.isascii() else letters(text[-WINDOW // 2:])  # letters beyond ASCII are more bytes
    if len(end) < ENOUGH:
        end = letters(text)
    if len(end) < ENOUGH:
        text = "\n".join(turns)
        end = letters(text[-8 * WINDOW:])
        if len(end) < ENOUGH:
            end = letters(text)
    return crc32(end[-KEPT:], len(turns)) or 1


def whole_key(turns: list[str]) -> bytes:
    """16 bytes that copies, and nothing else, share."""
    from hashlib import blake2b

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


def clusters(places: list, read, turns_of=lambda said, place: said) -> list[list]:
    """The copies among some places, a list for each text that several have, in order.

    `read(place)` gives what is said there, in any form in which the same is equal, and `turns_of(said, place)` its turns.
    """
    if len(places) > FEW:
        return _clusters_of_many(places, read, turns_of)
    same = []  # (what is said, places)
    for place in places:
        said = read(place)
        for known, of_known in same:
            if known == said:
                of_known.append(place)
                break
        else:
            same.append((said, [place]))
    if len(same) == 1:
        return [sorted(places)] if len(places) > 1 else []
    groups = _copies([(turns_of(said, of_said[0]), of_said) for said, of_said in same])
    found = [sorted(place for _, of_text in group for place in of_text) for group in groups]
    return sorted(copies for copies in found if len(copies) > 1)


def _copies(texts):
    """Some (turns, places) in lists of copies; most are none, which the first word shows that differs, soon after it does."""
    found, left = [], _parted(texts, [len(turns) for turns, _ in texts])
    while left:
        group = left.pop()
        first, *others = [turns for turns, _ in group]
        if all([turns == first for turns in others]):
            found.append(group)
            continue
        finer = _parted(group, _words_that_differ(first, others))
        if len(finer) == 1:
            found += _by_key(group)
        else:
            left += finer
    return found


def _by_key(texts):
    """The same for texts that differ by more or less than a word, as most of them have it."""
    keys = [quick_key(turns) for turns, _ in texts]
    if None in keys or len(set(keys)) > 1:
        keys = [prompt_key(turns) for turns, _ in texts]
    return _parted(texts, keys)


def _parted(items, keys):
    """Lists of items whose keys are the same."""
    parts = {}
    for key, item in zip(keys, items):
        parts.setdefault(key, []).append(item)
    return list(parts.values())


def _words_that_differ(first, others):
    """For each of some texts, some of which differ, a word, or None for all: those of another word are no copies.

    It is the first one behind the last space before the first difference: ASCII on both sides keeps it from the rest.
    """
    at = next(at for at, turn in enumerate(first) if any([turns[at] != turn for turns in others]))
    texts = [turns[at] for turns in (first, *others)]
    start = texts[0].rfind(" ", 0, _same_until(texts)) + 1
    found = [_RUN.match(text, start) for text in texts]
    return [terms(run[1] or "").partition(" ")[0] for run in found] if all(found) else [None] * len(found)


def _same_until(texts):
    """The place of the first character that is not the same in all."""
    first, *others = texts
    end, most = 0, min(map(len, texts))
    while end < most:
        middle = (end + most + 1) // 2
        part = first[end:middle]
        if all([text.startswith(part, end) for text in others]):
            end = middle
        else:
            most = middle - 1
    return end


def _clusters_of_many(places, read, turns_of):
    """The same, with hashes for the texts, which need not fit the memory; letters tell most apart, and are sooner made."""
    same, alike = {}, {}  # hash of what is said -> places; hash of its letters -> hashes of such
    for place in places:
        said = read(place)
        raw = hash(said if isinstance(said, bytes) else tuple(said))
        if raw not in same:
            alike.setdefault(hash(letters("\n".join(turns_of(said, place)))), []).append(raw)
        same.setdefault(raw, []).append(place)
    found = []
    for raws in alike.values():
        by_key = {}
        for raw in raws:
            place = same[raw][0]
            by_key.setdefault(whole_key(turns_of(read(place), place)) if len(raws) > 1 else None, []).extend(same[raw])
        found += [sorted(copies) for copies in by_key.values() if len(copies) > 1]
    return sorted(found)
