"""Words and n-grams of many texts as 64-bit numbers, vectorised over their bytes.

A word of up to 8 bytes of UTF-8 is one load and a mask, so the work is per word, not per character; its number is one to
one. Longer words and n-grams are hashed: two of a billion different n-grams share a number with probability 3 %.
"""

from hashlib import blake2b

import numpy as np

from pt_tools.curate.words import split

VERSION = 1  # of the numbers: files with those of different versions cannot be compared
PIECE = 2**17  # characters whose numbers fit the second-level cache
LONG = 64  # bytes of a word above which its rest is hashed by itself
_MASKS = np.array([(1 << 8 * i) - 1 for i in range(9)], np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD6E8FEB86659FD93)


def hash_words(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all words (W,) uint64, and where those of every text begin (N + 1,) int64."""
    parts, starts = [], [np.zeros(1, np.int64)]
    for piece in pieces(texts, PIECE):
        buffer, at, lengths, first = split(piece)
        starts.append(first[1:] + starts[-1][-1])
        parts.append(_numbers(buffer, at, lengths))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64), np.concatenate(starts)


def pieces(texts: list[str], most: int):
    """The texts in lists of `most` characters, and the rest of the last text."""
    piece, size = [], 0
    for text in texts:
        piece.append(text)
        size += len(text)
        if size >= most:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _numbers(buffer, starts, lengths):
    """Of the words at `starts` in the buffer, which goes on for 8 bytes behind the last."""
    loads = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    numbers = loads.take(starts)
    numbers &= _MASKS.take(lengths, mode="clip")
    _mixed(numbers)
    more = np.flatnonzero(lengths > 8)
    for at in range(8, LONG, 8):
        if not len(more):
            return numbers
        rest = lengths[more] - at
        numbers[more] = _mixed(numbers[more] + (loads[starts[more] + at] & _MASKS.take(rest, mode="clip")))
        more = more[rest > 8]
    for i in more:
        rest = buffer[starts[i] + LONG:starts[i] + lengths[i]].tobytes()
        numbers[i] ^= np.uint64(int.from_bytes(blake2b(rest, digest_size=8).digest(), "little"))
    return numbers


def _mixed(numbers):
    """One to one on 64 bits."""
    numbers *= _ODD
    numbers ^= numbers >> np.uint64(32)
    return numbers


def ngrams(numbers: np.ndarray, starts: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all runs of n words within a text (G,), and where those of every text begin (N + 1,).

    `numbers` and `starts` as from hash_words.
    """
    counts = np.maximum(np.diff(starts) - (n - 1), 0)
    if len(numbers) < n:
        return np.zeros(0, np.uint64), np.zeros(len(starts), np.int64)
    whole = np.ones(len(numbers), bool)  # whether the run that starts here ends in the same text
    for i in range(1, n):
        last = starts[1:] - i
        whole[last[last >= starts[:-1]]] = False
    return _mixed(_polynomials(numbers, n)[whole[:len(numbers) - n + 1]]), np.concatenate([[0], np.cumsum(counts)])


def runs(numbers: np.ndarray, n: int) -> np.ndarray:
    """Numbers of all runs of n words, those too that begin in one text and end in another (W - n + 1,)."""
    return _mixed(_polynomials(numbers, n)) if len(numbers) >= n else np.zeros(0, np.uint64)


def _polynomials(numbers, n):
    """Of each run of n words x₀ … xₙ₋₁ the sum of STEPⁿ⁻¹⁻ⁱ xᵢ, from those of its halves; a copy."""
    if n == 1:
        return numbers.copy()
    half = n // 2
    part = _polynomials(numbers, half)
    out = part[:len(part) - half] * np.uint64(pow(int(_STEP), half, 2**64))
    out += part[half:]
    if n % 2:
        out = out[:-1] * _STEP
        out += numbers[n - 1:]
    return out


def different(numbers: np.ndarray) -> np.ndarray:
    """Each number once, ascending; several times as quick as np.unique."""
    numbers = np.sort(numbers)
    new = np.ones(len(numbers), bool)
    new[1:] = numbers[1:] != numbers[:-1]
    return numbers[new]
