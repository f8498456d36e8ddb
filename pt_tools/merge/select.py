"""The exact k-th largest magnitude of a tensor that is never in memory: a guess from a sample, then one counting pass.

Magnitudes are compared as bit patterns of fp32, which are in their order. A pass counts what lies above an interval and
keeps the distinct values inside it; a guessed interval holds so few of them that one pass usually decides.
"""

from __future__ import annotations

import numpy as np

from pt_tools.merge.method import Block

MAGNITUDE = 0x7FFFFFFF  # all bits of an fp32 but the sign
LARGEST = 0x7FFFFFFF
BINS = 1 << 16
HELD = 1 << 19  # distinct values of all blocks up to which they are kept; from then on only a histogram is
SAMPLED_BLOCKS, SAMPLED_ENTRIES = 8, 9  # one in so many blocks, and of its entries, is in the sample
LOOKS = 5  # passes that any data need at most: sample, interval, all beside it, one bin of that, one value


class Counts:
    """What a pass found of one model: entries above the interval, and the values inside, by block while they are few."""

    def __init__(self):
        self.search, self.above = None, 0
        self.parts, self.held, self.bins = [], 0, None

    def append(self, part) -> None:
        self.search, above, values, counts = part
        self.above += above
        if self.bins is not None:
            self._bin(values, counts)
            return
        self.parts.append((values, counts))
        self.held += len(values)
        if self.held > HELD and self.search.low < self.search.high:
            self.bins = np.zeros(BINS, np.int64)
            for one in self.parts:
                self._bin(*one)
            self.parts = None

    def _bin(self, values: np.ndarray, counts: np.ndarray) -> None:
        places = (values - np.int32(self.search.low)) >> self.search.shift
        self.bins += np.bincount(places, counts, BINS).astype(np.int64)

    def table(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Values, or first values of bins, in ascending order, how many entries each has, and how many values wide it is."""
        if self.bins is not None:
            return self.search.low + (np.arange(BINS) << self.search.shift), self.bins, 1 << self.search.shift
        values, places = np.unique(np.concatenate([part[0] for part in self.parts]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([part[1] for part in self.parts]), len(values))
        return values.astype(np.int64), counts.astype(np.int64), 1

    def of_each_block(self, value: int) -> list[int] | None:
        """How many entries of every block have a value; None if only a histogram was kept."""
        if self.parts is None:
            return None
        return [int(counts[values == value].sum()) for values, counts in self.parts]


class Search:
    """The k-th largest magnitude of one model, known to lie between two bit patterns, both included, or guessed so.

    When it is `open` no more, `low` is the threshold, `wanted` says how many entries equal to it stay, `inside` how
    many there are in each block (None if all of them stay).
    """

    def __init__(self, low: int, high: int, keep: int):
        self.low, self.high, self.keep = low, high, keep
        self.open, self.wanted, self.before, self.inside = keep > 0, 0, None, None

    @property
    def shift(self) -> int:
        return max(0, (self.high - self.low).bit_length() - 16)

    def look(self, bits: np.ndarray, work: np.ndarray):
        """Of one block's magnitudes: itself, how many are above the interval, the values inside it, how many of each."""
        work, width = work.view(np.int32), self.high - self.low
        np.subtract(bits, np.int32(self.low), out=work)
        above, inside = int(np.count_nonzero(work > width)), work.view(np.uint32) <= width
        if not width:
            return self, above, np.array([self.low], np.int32), np.array([np.count_nonzero(inside)])
        found = work[inside]
        if width < BINS:
            counts = np.bincount(found)
            values = np.flatnonzero(counts)
            counts = counts[values]
        else:
            values, counts = np.unique(found, return_counts=True)
        return self, above, values.astype(np.int32) + np.int32(self.low), counts

    def narrowed(self, counts: Counts) -> Search:
        values, numbers, width = counts.table()
        if self.keep <= counts.above:
            return Search(self.high + 1, LARGEST, self.keep)
        if self.keep > counts.above + int(numbers.sum()):
            return Search(0, self.low - 1, self.keep)
        above = counts.above + np.cumsum(numbers[::-1])[::-1] - numbers  # entries above each value or bin
        place = int(np.flatnonzero(above < self.keep)[0])
        low, rest = int(values[place]), self.keep - int(above[place])
        if width > 1:
            return Search(low, min(self.high, low + width - 1), self.keep)
        out = Search(low, low, self.keep)
        if rest < int(numbers[place]):
            out.inside = counts.of_each_block(low)
            if out.inside is None:
                return out  # one more pass counts this value block by block
            out.before = np.concatenate([[0], np.cumsum(out.inside)])
        out.open, out.wanted = False, rest
        return out

    def trim(self, model: np.ndarray, block: Block, work: np.ndarray) -> None:
        """0 for the entries that do not stay."""
        assert not self.open
        bits, work = model.view(np.int32), work.view(np.int32)
        if not self.keep:
            model[:] = 0
            return
        np.bitwise_and(bits, MAGNITUDE, out=work)
        stay, equal = self._share(block)
        if 0 < stay < equal:  # one block in the tensor: the rest of the equal ones are made 0 by hand
            model[np.flatnonzero(work == self.low)[stay:]] = 0
        np.subtract(self.low - (stay > 0), work, out=work)
        np.right_shift(work, 31, out=work)
        np.bitwise_and(bits, work, out=bits)

    def _share(self, block: Block) -> tuple[int, int]:
        """How many of this block's entries equal to the threshold stay, of how many; (1, 1) for all of them."""
        if self.before is None:
            return 1, 1
        from pt_tools.merge.engine import BLOCK

        number = block.start // BLOCK
        return int(np.clip(self.wanted - self.before[number], 0, self.inside[number])), self.inside[number]


def all_of_them(count: int) -> Search:
    """Nothing to look for: every entry stays."""
    out = Search(0, 0, count)
    out.open = False
    return out


def sampled(count: int) -> range:
    """The blocks, of `count`, that a sample is taken from."""
    return range(0, count, SAMPLED_BLOCKS)


def sample(bits: np.ndarray) -> np.ndarray:
    return bits[::SAMPLED_ENTRIES].copy()


def guess(sample: np.ndarray, keep: int, count: int) -> Search:
    """An interval that should hold the keep-th largest of `count` entries: four deviations about a sample's quantile."""
    if keep >= count:
        return all_of_them(count)
    sample.sort()
    share = 1 - keep / count
    spread = 4 * np.sqrt(share * (1 - share) / len(sample)) + 2 / len(sample)
    low, high = np.clip(((share - spread) * len(sample), (share + spread) * len(sample)), 0, len(sample) - 1).astype(int)
    return Search(int(sample[low]), int(sample[high]), keep)
