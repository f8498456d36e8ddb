"""Near copies: MinHash with banding finds pairs that may be one, the exact Jaccard index of their n-grams decides.

The n-grams of a text are runs of NGRAM words (of characters where a script writes no spaces). A text of fewer words has
one "n-gram", the text itself as `words.prompt_key` sees it: it is a copy of equal texts only.
"""

from dataclasses import dataclass
from hashlib import blake2b, shake_256

import numpy as np

from pt_tools.curate.grams import hash_words, ngrams, pieces
from pt_tools.curate.words import prompt_key

KEYS = 2  # version of the keys made of n-grams
NGRAM = 5
LEAST_BANDS, MOST_BANDS, MOST_ROWS = 16, 20, 5
FOUND = 0.9  # least share of the pairs at the threshold itself that share a key; of pairs above it nearly all do
BATCH = 2**19  # characters whose n-grams fit the second-level cache
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Banding:
    """`bands` keys a text, each made of the minima of `rows` hash functions.

    Two texts with Jaccard index s share a key with probability 1 - (1 - s**rows)**bands (Broder 1997; Indyk and Motwani
    1998).
    """

    bands: int
    rows: int

    def found(self, similarity: float) -> float:
        """The probability that two texts share a key."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def banding(threshold: float) -> Banding:
    """The most selective bands, and the fewest, that find the share FOUND of the pairs at the threshold."""
    fitting = (Banding(bands, rows) for rows in range(MOST_ROWS, 0, -1) for bands in range(LEAST_BANDS, MOST_BANDS + 1))
    return next((b for b in fitting if b.found(threshold) >= FOUND), Banding(MOST_BANDS, 1))


def gram_sets(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams of all texts as numbers, with repetitions (G,), and where those of every text begin (N + 1,).

    An empty text has none.
    """
    numbers, starts = hash_words(texts)
    grams, places = ngrams(numbers, starts, NGRAM)
    short = [i for i in np.flatnonzero(np.diff(places) == 0) if texts[i].strip()]
    if short:
        grams = np.insert(grams, places[short], [_whole(texts[i]) for i in short])
        counts = np.diff(places)
        counts[short] = 1
        places = np.concatenate([[0], np.cumsum(counts)])
    return grams, places


def _whole(text):
    return np.uint64(int.from_bytes(blake2b(prompt_key([text])[0].encode(), digest_size=8).digest(), "little"))


def keys(texts: list[str], bands: Banding) -> np.ndarray:
    """Keys (bands + 1, N) uint64 of N texts, 0 for an empty text, which is no copy of anything.

    The last is a print: equal for texts of the same n-grams, as often in each, and for no others but by chance (2**-64).
    """
    out = np.zeros((bands.bands + 1, len(texts)), np.uint64)
    done = 0
    for piece in pieces(texts, BATCH):
        grams, starts = gram_sets(piece)
        some = np.flatnonzero(np.diff(starts))
        if len(some):
            out[:-1, done + some] = np.maximum(_keys((grams >> np.uint64(32)).astype(np.uint32), starts[some], bands), 1)
            out[-1, done + some] = np.maximum(np.add.reduceat(grams, starts[some]), 1)
        done += len(piece)
    return out


def _keys(grams, starts, bands):
    """Of texts that have an n-gram."""
    hashed = np.empty_like(grams)
    out = np.empty((bands.bands, len(starts)), np.uint64)
    for band, multipliers in enumerate(_multipliers(bands)):
        key = np.full(len(starts), band, np.uint64)
        for multiplier in multipliers:
            np.multiply(grams, multiplier, out=hashed)
            key += np.minimum.reduceat(hashed, starts)
            key *= _ODD
            key ^= key >> np.uint64(29)
        out[band] = key
    return out


def _multipliers(bands):
    """(bands, rows) odd numbers, always the same: a hash function is x -> multiplier * x modulo 2**32.

    The x are hashes themselves, so the minimum falls on each of them with nearly the same probability.
    """
    drawn = shake_256(b"MinHash %d" % KEYS).digest(4 * MOST_BANDS * MOST_ROWS)
    return (np.frombuffer(drawn, "<u4") | np.uint32(1)).reshape(MOST_BANDS, MOST_ROWS)[:bands.bands, :bands.rows]


def sorted_sets(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The different n-grams of every text in order, one text after the other, and how many each has (N,)."""
    grams, starts = gram_sets(texts)
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
        grams[start:end].sort()
    new = np.ones(len(grams), bool)
    new[1:] = grams[1:] != grams[:-1]
    new[starts[:-1][np.diff(starts) > 0]] = True
    before = np.concatenate([[0], np.cumsum(new)])
    return grams[new], np.diff(before[starts])


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """The Jaccard index of two sets, given as arrays of different numbers."""
    both = np.concatenate([a, b])
    both.sort()
    shared = np.count_nonzero(both[1:] == both[:-1])
    return shared / (len(both) - shared) if len(both) else 0.0
