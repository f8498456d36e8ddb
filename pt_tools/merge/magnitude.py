"""Task vectors with entries dropped: TIES by magnitude, DARE by chance, both with or without a vote on signs.

Entries are dropped and signs compared on bit patterns: an arithmetic shift of a difference gives a mask of all ones.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pt_tools.merge.method import Block, Method, Parameters
from pt_tools.merge.simple import add_weighted, fp32_sum

MAGNITUDE = 0x7FFFFFFF  # all bits of an fp32 but the sign: patterns in the order of magnitudes
LARGEST = 0x7FFFFFFF
BINS = 1 << 16
SAMPLE = 64  # one entry of so many, of one block in so many / 8, guesses the threshold


def to_deltas(block: Block) -> None:
    """The models become their differences from the base."""
    for model in block.models:
        np.subtract(model, block.base, out=model)


def combine(block: Block, parameters: Parameters, vote: bool) -> None:
    """out = b + λ Σ w_i d_i, divided by Σ w_i if `normalize`; the models hold d_i, dropped entries being 0.

    With `vote`, an entry's sign is that of Σ w_i d_i (arXiv:2306.01708, section 3), and only the entries w_i d_i of
    that sign count, in the sum and in the divisor.
    """
    weights, (work, divisor) = parameters.weights(), block.scratch[:2]
    normalize = parameters.shared["normalize"]
    total = fp32_sum(weights)
    if vote:
        for weight, model in zip(weights, block.models):
            np.multiply(model, np.float32(weight), out=model)
        np.add(block.models[0], np.float32(0), out=block.out)
        for model in block.models[1:]:
            np.add(block.out, model, out=block.out)
        _elect(block, weights, divisor if normalize else None)
        total = divisor
    else:
        add_weighted(block.models, weights, block.out, work)
    if normalize and (vote or abs(total) >= 1e-8):
        np.divide(block.out, total, out=block.out)
    if parameters.shared["lambda"] != 1:
        np.multiply(block.out, np.float32(parameters.shared["lambda"]), out=block.out)
    np.add(block.base, block.out, out=block.out)


def _elect(block: Block, weights: np.ndarray, divisor: np.ndarray | None) -> None:
    """From the sum in `out` to the sum of the entries that have its sign; `divisor` becomes the sum of their weights.

    A sum of 0 counts as positive.
    """
    work = block.scratch[0].view(np.int32)
    sign = block.scratch[2].view(np.int32)
    np.copyto(sign, block.out.view(np.int32))
    block.out[:] = 0
    if divisor is not None:
        divisor[:] = 0
    for weight, model in zip(weights, block.models):
        bits = model.view(np.int32)
        np.bitwise_xor(bits, sign, out=work)
        np.right_shift(work, 31, out=work)
        np.invert(work, out=work)
        np.bitwise_and(bits, work, out=bits)  # all ones where the signs agree
        np.add(block.out, model, out=block.out)
        if divisor is not None:
            np.bitwise_and(bits, MAGNITUDE, out=bits)
            np.negative(bits, out=bits)
            np.right_shift(bits, 31, out=bits)  # all ones where something is left
            np.bitwise_and(bits, np.float32(weight).view(np.int32), out=bits)
            np.add(divisor, model, out=divisor)
    if divisor is not None and (weights >= 1e-8).all():
        np.maximum(divisor, np.float32(1e-8), out=divisor)  # 0 only where the sum is 0
    elif divisor is not None:
        divisor[np.abs(divisor) < 1e-8] = 1


class Ties(Method):
    """Trim, elect, merge (arXiv:2306.01708, algorithm 1), tensor by tensor as everybody does, the paper globally.

    Of each x_i - b exactly k = ⌊density · n⌋ entries stay, the largest magnitudes; of equal ones at the threshold the
    first in index order. The threshold is exact: an interval around a sample's quantile is counted, then narrowed by
    histograms of the fp32 bit patterns until one value is left.
    """

    name = "ties"
    base = "required"
    own = {"weight": 1.0, "density": 1.0}
    shared = {"lambda": 1.0, "normalize": True}
    passes = 7
    buffers = 3

    def check(self, parameters: Parameters) -> None:
        if not all(0 < one["density"] <= 1 for one in parameters.own):
            raise ValueError("density must be above 0 and at most 1")

    def select(self, number: int, count: int, parameters: Parameters, stats: list) -> range:
        if number == 0:
            return range(0, count, SAMPLE // 8) if min(one["density"] for one in parameters.own) < 1 else range(0)
        return range(count) if any(search.open for search in stats[-1]) else range(0)

    def observe(self, number: int, block: Block, parameters: Parameters, stats: list) -> list:
        out = []
        for i, model in enumerate(block.models):
            if number and not stats[-1][i].open:
                out.append(None)
                continue
            np.subtract(model, block.base, out=model)
            bits = model.view(np.int32)
            np.bitwise_and(bits, MAGNITUDE, out=bits)
            # An odd step would be cheaper to defend against periodic data; sampling only guesses, so any will do.
            out.append(bits[::SAMPLE // 8 + 1].copy() if number == 0 else stats[-1][i].look(bits, block))
        return out

    def fold(self, number: int, state, partial: list) -> list:
        state = state or [[] if number == 0 else Counts() for _ in partial]
        for one, part in zip(state, partial):
            if part is not None:
                one.append(part)
        return state

    def finish(self, number: int, state, shape: tuple[int, ...], parameters: Parameters, stats: list) -> list:
        if state is None:
            return stats[-1] if stats else [Search(0, 0, 0)] * len(parameters.own)
        if number == 0:
            count = int(np.prod(shape))
            return [guess(np.concatenate(samples), int(one["density"] * count) % count, count)
                    for samples, one in zip(state, parameters.own)]
        return [search.narrowed(counts) if search.open else search for search, counts in zip(stats[-1], state)]

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        to_deltas(block)
        for i, model in enumerate(block.models):
            if parameters.own[i]["density"] < 1:
                stats[-1][i].trim(model, block, block.scratch[0])
            if block.kept is not None:
                dense = parameters.own[i]["density"] >= 1
                block.kept.append(len(model) if dense else int(np.count_nonzero(model)))
        combine(block, parameters, vote=True)


class Counts:
    """What a pass found of one model: entries above the interval, entries in each bin, entries inside by block."""

    def __init__(self):
        self.above, self.bins, self.inside = 0, None, []

    def append(self, part) -> None:
        above, bins, inside = part
        self.above += above
        self.inside.append(inside)
        self.bins = np.zeros(BINS, np.int64) if self.bins is None else self.bins
        if bins is not None:
            self.bins += np.bincount(bins, minlength=BINS)


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

    def look(self, bits: np.ndarray, block: Block):
        above = int(np.count_nonzero(bits > self.high))
        inside = int(np.count_nonzero(bits >= self.low)) - above
        if self.low == self.high or not inside:
            return above, None, inside
        found = bits[(bits >= self.low) & (bits <= self.high)]
        found -= np.int32(self.low)
        found >>= self.shift
        return above, found.astype(np.uint16), inside

    def narrowed(self, counts: Counts) -> Search:
        inside = sum(counts.inside)
        if self.keep <= counts.above:
            return Search(self.high + 1, LARGEST, self.keep)
        if self.keep > counts.above + inside:
            return Search(0, self.low - 1, self.keep)
        if self.low == self.high:
            return self._closed(self.low, counts.above, inside, counts.inside)
        above = counts.above + np.cumsum(counts.bins[::-1])[::-1] - counts.bins  # entries above each bin
        place = int(np.flatnonzero(above < self.keep)[0])
        low = self.low + (place << self.shift)
        if not self.shift and above[place] + counts.bins[place] == self.keep:
            return self._closed(low, int(above[place]), int(counts.bins[place]), None)
        return Search(low, min(self.high, low + (1 << self.shift) - 1), self.keep)

    def _closed(self, value: int, above: int, equal: int, by_block) -> Search:
        out = Search(value, value, self.keep)
        out.open, out.wanted = False, self.keep - above
        if out.wanted < equal:
            out.inside = by_block
            out.before = np.concatenate([[0], np.cumsum(by_block)])
        return out

    def trim(self, model: np.ndarray, block: Block, work: np.ndarray) -> None:
        """0 for the entries that do not stay."""
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


def guess(sample: np.ndarray, keep: int, count: int) -> Search:
    """Nothing to look for if all or none stay. Otherwise an interval that should hold the keep-th largest of `count` entries:
    four deviations about a sample's quantile."""
    sample.sort()
    share = 1 - keep / count
    spread = 4 * np.sqrt(share * (1 - share) / len(sample)) + 2 / len(sample)
    low, high = np.clip(((share - spread) * len(sample), (share + spread) * len(sample)), 0, len(sample) - 1).astype(int)
    return Search(int(sample[low]), int(sample[high]), keep)


class Dare(Method):
    """b + λ Σ w_i d'_i, d' = (x - b) with each entry kept with probability `density` (arXiv:2311.03099, eq. 3-4).

    Whether an entry stays is decided by 16 random bits, so the probability is density rounded to a multiple of 2⁻¹⁶.
    `rescale`: what stays is divided by that probability (inverse, the paper's), multiplied by ‖d‖₁/‖d'‖₁ of the tensor
    (l1), or left (none). The bits depend on seed, tensor name, model and block, and on nothing else.
    """

    base = "required"
    own = {"weight": 1.0, "density": 1.0}
    shared = {"lambda": 1.0, "normalize": False, "rescale": "inverse"}
    passes = 1
    random = True
    buffers = 3
    vote = False

    def check(self, parameters: Parameters) -> None:
        if not all(2**-16 <= one["density"] <= 1 for one in parameters.own):
            raise ValueError("density must be above 0 (at least 1/65536) and at most 1")
        if parameters.shared["rescale"] not in ("inverse", "l1", "none"):
            raise ValueError("rescale must be inverse, l1 or none")

    def passes_for(self, parameters: Parameters) -> int:
        return int(parameters.shared["rescale"] == "l1")

    def observe(self, number: int, block: Block, parameters: Parameters, stats: list) -> np.ndarray:
        to_deltas(block)
        before = [_size(model, block.scratch[0]) for model in block.models]
        self._drop(block, parameters)
        return np.array([before, [_size(model, block.scratch[0]) for model in block.models]])

    def fold(self, number: int, state, partial: np.ndarray) -> np.ndarray:
        return partial if state is None else state + partial

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        to_deltas(block)
        self._drop(block, parameters)
        for i, model in enumerate(block.models):
            factor = self._factor(i, parameters, stats)
            if factor != 1:
                np.multiply(model, np.float32(factor), out=model)
        combine(block, parameters, self.vote)

    def _factor(self, i: int, parameters: Parameters, stats: list) -> float:
        rescale = parameters.shared["rescale"]
        if rescale == "l1":
            return stats[0][0, i] / stats[0][1, i] if stats[0][1, i] else 1.0
        return 2**16 / _limit(parameters.own[i]["density"]) if rescale == "inverse" else 1.0

    def _drop(self, block: Block, parameters: Parameters) -> None:
        for i, (model, one) in enumerate(zip(block.models, parameters.own)):
            limit, count = _limit(one["density"]), len(model)
            kept = count
            if limit < 2**16:
                keep = random_bits(block, i) < limit
                np.copyto(block.scratch[0], keep)
                np.multiply(model, block.scratch[0], out=model)
                kept = np.count_nonzero(keep) if block.kept is not None else 0
            if block.kept is not None:
                block.kept.append(int(kept))


class DareLinear(Dare):
    __doc__ = Dare.__doc__
    name = "dare_linear"


class DareTies(Dare):
    """DARE's dropped and rescaled differences, then the vote on signs of TIES (arXiv:2306.01708)."""

    name = "dare_ties"
    vote = True


def _limit(density: float) -> int:
    return round(density * 2**16)


def _size(array: np.ndarray, work: np.ndarray) -> float:
    np.abs(array, out=work)
    return float(np.add.reduce(work))


def random_bits(block: Block, model: int) -> np.ndarray:
    """(n,) uint16 for one model's part of a block: an SFC64 stream keyed by seed, tensor, model and place."""
    key = hashlib.blake2b(f"{block.seed}\0{block.name}\0{model}\0{block.start}".encode("utf-8", "surrogatepass"))
    bits = np.random.SFC64(int.from_bytes(key.digest()[:16], "little")).random_raw(-(-len(block.out) // 4))
    return bits.astype("<u8", copy=False).view("<u2")[:len(block.out)]
