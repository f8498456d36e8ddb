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
FEW = 2  # texts of one key that are compared one by one
LONG = 2**14  # bytes of a text
# What begins a text: a run that ASCII ends, of scripts that write spaces and of common signs, which may be one word or more;
# or nothing. Before it there may be ASCII that means nothing of its own; see words.terms.
_RUN = re.compile(r"""[\x00-\x20!"#$&'(),.:;?@\[\\\]_`{|}~\x7f-]*(?:([0-9A-Za-z\x80-\u0dff\u2000-\u206f\uac00-\ud7a3]+)"""
                  r"""(?=[\x00-/:-@\[-`{-\x7f]|\Z)|\Z)""")


def rough_key(turns: list[str]) -> int:
    """A 32-bit number that copies share: of the last letters and digits, in lower case, and of the number of turns. 0 if all
    turns are empty."""
    if not turns:
        return 0
    text = turns[-1][-WINDOW:]
    end = b"" if text.isascii() else letters(text[-WINDOW // 2:])  # letters beyond ASCII are more bytes
    if len(end) < ENOUGH:
        end = letters(text)
    if len(end) < ENOUGH:
        text = "\n".join(turns)
        end = letters(text[-8 * WINDOW:])
        if len(end) < ENOUGH:
            end = letters(text)
        if not any(turns):
            return 0
    return crc32(end[-KEPT:], len(turns)) or 1


def whole_key(turns: list[str]) -> bytes:
    """16 bytes that copies, and nothing else, share."""
    from hashlib import blake2b

    return blake2b(orjson.dumps(prompt_key(turns)), digest_size=16).digest()


def letters_key(turns: list[str]) -> int:
    """A number that copies share, and other texts mostly do not; sooner made than `whole_key`."""
    return hash(letters("\n".join(turns)))


class Text:
    """What is said at a place: `said` in any form in which the same is equal, and as turns, which are made when asked for."""

    __slots__ = ("said", "_turns_of", "_turns")

    def __init__(self, said, turns_of):
        self.said, self._turns_of, self._turns = said, turns_of, None

    @property
    def turns(self) -> list[str]:
        if self._turns is None:
            self._turns = self._turns_of()
        return self._turns

    def is_copy_of(self, other: "Text") -> bool:
        return self.said == other.said or are_copies(self.turns, other.turns)


class Known:
    """The places of texts that are known, one for each, by a key that copies share: about 100 bytes a place.

    Few texts of one key are compared one by one, the last one that was met first; where there are more, finer keys decide.
    So no row costs more than a few of those before it.
    """

    FINER = (letters_key, whole_key)

    def __init__(self, read):
        """`read(place)` gives the Text of a place that is known; a place is an int."""
        self._read = read
        self._places = [{} for _ in range(1 + len(self.FINER))]  # key -> place, places, or None where a finer key decides

    def later(self, keys, place: int):
        """Yield (place, key) of those of some keys, of this place and the next ones, that are known; the others are from now on."""
        add = self._places[0].setdefault
        for place, key in enumerate(keys, place):
            if key and add(key, place) != place:
                yield place, key

    def find(self, key, place: int, text: Text) -> int | None:
        """The place of a copy of a text whose key is known; None, and its place is known from now on, if there is none."""
        return self._find(0, key, place, text)

    def _find(self, level, key, place, text):
        places = self._places[level]
        before = places.setdefault(key, place)
        if before == place:
            return None
        if before is None:
            return self._find(level + 1, self.FINER[level](text.turns), place, text)
        if level == len(self.FINER):
            return before
        several = before if isinstance(before, list) else [before]
        for known in several:
            other = self._read(known)
            if text.is_copy_of(other):
                if len(several) > 1:
                    places[key] = [known, *(one for one in several if one != known)]
                if len(other.said) > max(LONG, 4 * len(text.said)):  # which is not to be read for every short copy
                    self._split(level, key, several)
                return known
        places[key] = [place, *several]
        if len(several) == FEW:
            self._split(level, key, places[key])
        return None

    def _split(self, level, key, several):
        self._places[level][key] = None
        for place in several:
            text = self._read(place)
            self._find(level + 1, self.FINER[level](text.turns), place, text)


def are_copies(one: list[str], other: list[str]) -> bool:
    """Whether two texts have the same `prompt_key`; most that do not have another word soon after they begin to differ."""
    if len(one) != len(other):
        return False
    different = [(a, b) for a, b in zip(one, other) if a != b]
    if not different:
        return True
    if _have_other_words(*different[0]):
        return False
    ones, others = zip(*different)
    quick = quick_key(ones)
    if quick is not None and quick == quick_key(others):
        return True
    return letters_key(ones) == letters_key(others) and prompt_key(ones) == prompt_key(others)


def _have_other_words(a, b):
    """Whether the first word behind the last space before the first difference is another one; False says nothing.

    ASCII on both sides keeps the word from what is beside it.
    """
    start = a.rfind(" ", 0, _same_until(a, b)) + 1
    runs = _RUN.match(a, start), _RUN.match(b, start)
    if not all(runs) or runs[0][1] == runs[1][1]:
        return False
    words = [run[1] and terms(run[1]).partition(" ")[0] for run in runs]
    return "" not in words and words[0] != words[1]


def _same_until(a, b):
    """The place of the first character that is not the same in two strings."""
    end, most = 0, min(len(a), len(b))
    while end < most:
        middle = (end + most + 1) // 2
        if b.startswith(a[end:middle], end):
            end = middle
        else:
            most = middle - 1
    return end
