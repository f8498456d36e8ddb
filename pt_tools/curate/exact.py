"""Exact copies: texts that are equal but for Unicode form (NFC), case, spacing and punctuation.

Most texts differ at their end, so a hash of it is enough to tell them apart, and only the others have to be looked at as
a whole.
"""

import re
from hashlib import blake2b
from zlib import crc32

import orjson

from pt_tools.curate.words import letters, prompt_key, terms

WINDOW = 128  # characters at the end
ENOUGH, KEPT = 64, 48  # bytes of letters there; a few before those that are kept may hang on what was cut off
STEP = 4  # characters: a difference found so nearly is found
MANY = 2**20  # keys from which on numpy is worth its start
FEW = 16  # texts that may be in memory at once
_FIRST = re.compile(r"\s*([A-Za-z0-9]+) ")


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
    """Some (turns, places) in lists of copies; most are none, which the first turn shows that differs, soon after it does."""
    found, left = [], [([text for text in texts if len(text[0]) == n], 0) for n in {len(turns) for turns, _ in texts}]
    while left:
        group, at = left.pop()
        first, *others = [turns for turns, _ in group]
        while others and at < len(first) and all(turns[at] == first[at] for turns in others):
            at += 1
        if not others or at == len(first):
            found.append(group)
            continue
        start = _same_until([turns[at] for turns, _ in group])
        rests = [turns[at][start:] for turns, _ in group]
        keys, decided = _first_words(rests), 0
        if len(set(keys)) < 2:
            keys, decided = [terms(rest) for rest in rests] if start else [prompt_key([rest]) for rest in rests], 1
        by_key = {}
        for key, text in zip(keys, group):
            by_key.setdefault(key, []).append(text)
        left += [(finer, at + decided) for finer in by_key.values()]
    return found


def _first_words(texts):
    """The first word of each text in lower case, of all or of none; a space behind it says that no mark belongs to it."""
    found = [_FIRST.match(text) for text in texts]
    return [word[1].lower() for word in found] if all(found) else []


def _same_until(texts):
    """A place before which the texts are the same, and what follows it decides: behind a word and a space.

    There the terms of a text are those of its two parts, since no rule looks back over a letter or digit.
    """
    first, *others = texts
    end, most = 0, min(map(len, texts))  # they are the same up to `end`, and no longer at `most`
    if not all([text.startswith(first[:STEP]) for text in others]):
        return 0
    while most - end > STEP:
        middle = (end + most) // 2
        part = first[end:middle]
        if all([part == text[end:middle] for text in others]):
            end = middle
        else:
            most = middle
    space = first.rfind(" ", 0, end)
    return space + 1 if space > 0 and first[space - 1].isascii() and first[space - 1].isalnum() else 0


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
