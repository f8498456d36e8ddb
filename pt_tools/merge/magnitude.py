"""Task vectors with entries dropped: TIES and breadcrumbs by magnitude, DARE by chance, with or without a vote on signs.

Entries are dropped and signs turned on bit patterns: an arithmetic shift of a difference gives a mask of all ones.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from pt_tools.merge.method import Block, Method, Parameters
from pt_tools.merge.select import LOOKS, MAGNITUDE, Counts, Search, guess, sample, sampled
from pt_tools.merge.simple import add_weighted, check_sum, fp32_sum

SIGN = np.int32(-1 << 31)  # the sign bit of an fp32
CHANCES = 1 << 16  # random_bits gives 16 bits: probabilities are multiples of 1/CHANCES


def to_deltas(block: Block) -> None:
    """The models become their differences from the base."""
    for model in block.models:
        np.subtract(model, block.base, out=model)


def combine(block: Block, parameters: Parameters, factors: list[float], vote: bool) -> None:
    """out = b + λ Σ w_i f_i d_i, divided by Σ w_i if `normalize`; the models hold d_i, dropped entries being 0.

    With `vote`, an entry's sign is that of the sum (arXiv:2306.01708, section 3), a sum of 0 being positive, and only
    the entries w_i f_i d_i of that sign count, in the sum and in the divisor.
    """
    weights, normalize = parameters.weights(), parameters.shared["normalize"]
    scales = [weight * factor for weight, factor in zip(weights, factors)]
    total = fp32_sum(weights)
    if vote:
        total = _elect(block, weights, scales, normalize)
    else:
        add_weighted(block.models, scales, block.out, block.scratch[0])
    if normalize and (vote or abs(total) >= 1e-8):
        np.divide(block.out, total, out=block.out)
    if parameters.shared["lambda"] != 1:
        np.multiply(block.out, np.float32(parameters.shared["lambda"]), out=block.out)
    np.add(block.base, block.out, out=block.out)


def _elect(block: Block, weights: np.ndarray, scales: list[float], normalize: bool) -> np.ndarray | None:
    """The sum of the entries that have the sign of the sum of all, in `out`; returns the sum of their weights if wanted.

    The entries change their sign where that sum is negative, so that those that count are the positive ones.
    """
    sign, divisor, work = block.scratch
    for scale, model in zip(scales, block.models):
        np.multiply(model, np.float32(scale), out=model)
    np.add(block.models[0], np.float32(0), out=sign)
    for model in block.models[1:]:
        np.add(sign, model, out=sign)
    np.bitwise_and(sign.view(np.int32), SIGN, out=sign.view(np.int32))
    block.out.fill(0)
    work.fill(0)
    for model in block.models:
        np.bitwise_xor(model.view(np.int32), sign.view(np.int32), out=model.view(np.int32))
        np.maximum(model, work, out=model)
        np.add(block.out, model, out=block.out)
    np.bitwise_xor(block.out.view(np.int32), sign.view(np.int32), out=block.out.view(np.int32))
    return _weights_of_positive(block.models, weights, divisor, work) if normalize else None


def _weights_of_positive(models, weights: np.ndarray, out: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Σ w_i over the models whose entry is above 0, in `out`; a number that divides 0 to 0 where there is none."""
    for index, (weight, model) in enumerate(zip(weights, models)):
        into = work if index else out
        np.copyto(into, model > 0)
        np.multiply(into, np.float32(weight), out=into)
        if index:
            np.add(out, work, out=out)
    if (weights >= 1e-8).all():
        np.add(out, np.float32(1e-30), out=out)  # far below the rounding of a weight
    else:
        out[np.abs(out) < 1e-8] = 1
    return out


class Thinned(Method):
    """b + λ Σ w_i d'_i, the d'_i being differences from the base with entries dropped, perhaps after a vote on signs.

    `rescale` none leaves what stays, l1 multiplies it by ‖d‖₁/‖d'‖₁ of the tensor (one more pass); inverse is for
    methods that drop by chance.
    """

    base = "required"
    buffers = 3
    vote = False
    rescales = ("l1", "none")

    def check(self, parameters: Parameters) -> None:
        if parameters.shared["rescale"] not in self.rescales:
            raise ValueError(f"rescale must be {', '.join(self.rescales[:-1])} or {self.rescales[-1]}")
        check_sum(parameters)

    def looks(self, parameters: Parameters) -> int:
        """Passes that `look` needs before anything can be dropped."""
        return 0

    def look(self, number: int, block: Block, parameters: Parameters, stats: list):
        """What pass `number` finds in a block whose models are differences."""
        raise NotImplementedError

    def thin(self, block: Block, parameters: Parameters, stats: list) -> None:
        """Drop entries of the differences in place."""
        raise NotImplementedError

    def factor(self, i: int, parameters: Parameters, stats: list) -> float:
        """What the entries that stay are multiplied by."""
        if parameters.shared["rescale"] != "l1":
            return 1.0
        before, after = stats[-1][:, i]
        return before / after if after else 1.0

    def passes_for(self, parameters: Parameters) -> int:
        return self.looks(parameters) + (parameters.shared["rescale"] == "l1")

    def observe(self, number: int, block: Block, parameters: Parameters, stats: list):
        to_deltas(block)
        if number < self.looks(parameters):
            return self.look(number, block, parameters, stats)
        before = [_size(model, block.scratch[0]) for model in block.models]
        self.thin(block, parameters, stats)
        return np.array([before, [_size(model, block.scratch[0]) for model in block.models]])

    def fold(self, number: int, state, partial: np.ndarray) -> np.ndarray:
        return partial if state is None else state + partial

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        to_deltas(block)
        self.thin(block, parameters, stats)
        if block.kept is not None:
            block.kept += [int(np.count_nonzero(model)) for model in block.models]
        factors = [self.factor(i, parameters, stats) for i in range(len(block.models))]
        combine(block, parameters, factors, self.vote)


class Trimmed(Thinned):
    """Entries dropped by exact magnitude: for every model one or more searches, found by counting passes."""

    def check(self, parameters: Parameters) -> None:
        super().check(parameters)
        if not all(0 < one["density"] <= 1 for one in parameters.own):
            raise ValueError("density must be above 0 and at most 1")

    def ranks(self, one: dict, count: int) -> list[int]:
        """The numbers of largest entries that are searched for in one model's `count`."""
        raise NotImplementedError

    def looks(self, parameters: Parameters) -> int:
        return LOOKS if any(one["density"] < 1 for one in parameters.own) else 0

    def select(self, number: int, count: int, parameters: Parameters, stats: list) -> range:
        if number == 0 and self.looks(parameters):
            return sampled(count)
        if number < self.looks(parameters) and not any(search.open for searches in stats[-1] for search in searches):
            return range(0)
        return range(count)

    def look(self, number: int, block: Block, parameters: Parameters, stats: list) -> list:
        out = []
        for i, model in enumerate(block.models):
            bits = model.view(np.int32)
            np.bitwise_and(bits, MAGNITUDE, out=bits)
            out.append(sample(bits) if number == 0 else
                       [search.look(bits, block.scratch[0]) if search.open else None for search in stats[-1][i]])
        return out

    def fold(self, number: int, state, partial):
        if isinstance(partial, np.ndarray):
            return super().fold(number, state, partial)
        if number == 0:
            return [[*before, part] for before, part in zip(state or [[]] * len(partial), partial)]
        state = state or [[Counts() for _ in parts] for parts in partial]
        for counts, parts in zip(state, partial):
            for one, part in zip(counts, parts):
                if part is not None:
                    one.append(part)
        return state

    def finish(self, number: int, state, shape: tuple[int, ...], parameters: Parameters, stats: list):
        """For every model its searches; after the last pass the sums for `rescale`."""
        if number >= self.looks(parameters):
            return state
        if number == 0:
            count = math.prod(shape)
            return [[guess(np.concatenate(samples), rank, count) for rank in self.ranks(one, count)]
                    for samples, one in zip(state, parameters.own)]
        if state is None:
            return stats[-1]
        return [[search.narrowed(counts) if search.open else search for search, counts in zip(searches, found)]
                for searches, found in zip(stats[-1], state)]

    def thin(self, block: Block, parameters: Parameters, stats: list) -> None:
        looks = self.looks(parameters)
        for i, model in enumerate(block.models):
            if parameters.own[i]["density"] < 1:
                self.drop(model, block, stats[looks - 1][i])

    def drop(self, model: np.ndarray, block: Block, searches: list[Search]) -> None:
        """Make 0 what does not stay."""
        searches[0].trim(model, block, block.scratch[0])


class Ties(Trimmed):
    """b + λ Σ_agree w_i d'_i / Σ_agree w_i: trim, elect, merge (arXiv:2306.01708, algorithm 1). The trim is tensor by
    tensor, as everybody does it; the paper's is over all of a model.

    Of each d_i = x_i − b exactly k = max(1, ⌊density · n⌋) entries stay, the largest magnitudes; of equal ones at the
    threshold the first in index order. At every entry those agree that have the sign of Σ w_i d'_i, 0 being positive.
    The sum is not divided without `normalize`. `rescale` l1 multiplies what stays by ‖d‖₁/‖d'‖₁ of the tensor.
    """

    name = "ties"
    own = {"weight": 1.0, "density": 1.0}
    shared = {"lambda": 1.0, "normalize": True, "rescale": "none"}
    vote = True

    def ranks(self, one: dict, count: int) -> list[int]:
        return [max(1, int(one["density"] * count))]


class Breadcrumbs(Trimmed):
    """b + λ Σ w_i d'_i; of each d_i = x_i − b the largest and the smallest magnitudes are dropped (arXiv:2312.06795).

    ⌊gamma · n⌋ outliers go, then exactly ⌊density · n⌋ entries stay and the rest goes; fewer outliers where both do not
    fit. Of equal magnitudes the first in index order counts as the larger, as in TIES.
    """

    name = "breadcrumbs"
    own = {"weight": 1.0, "density": 1.0, "gamma": 0.01}
    shared = {"lambda": 1.0, "normalize": False, "rescale": "none"}

    def check(self, parameters: Parameters) -> None:
        super().check(parameters)
        if not all(0 <= one["gamma"] < 1 for one in parameters.own):
            raise ValueError("gamma must be at least 0 and below 1")

    def ranks(self, one: dict, count: int) -> list[int]:
        stay = int(one["density"] * count)
        outliers = min(int(one["gamma"] * count), count - stay)
        return [stay + outliers, outliers]

    def drop(self, model: np.ndarray, block: Block, searches: list[Search]) -> None:
        work, large = block.scratch[:2]
        np.copyto(large, model)
        searches[1].trim(large, block, work)
        searches[0].trim(model, block, work)
        np.subtract(model, large, out=model)


class BreadcrumbsTies(Breadcrumbs):
    """Breadcrumbs' thinned differences, then the vote on signs of TIES (arXiv:2306.01708)."""

    name = "breadcrumbs_ties"
    vote = True


class Dare(Thinned):
    """b + λ Σ w_i d'_i, d' = (x - b) with each entry kept with probability `density` (arXiv:2311.03099, eq. 3-4).

    Whether an entry stays is decided by 16 random bits, so the probability is density rounded to a multiple of 2⁻¹⁶.
    `rescale`: what stays is divided by that probability (inverse, the paper's), multiplied by ‖d‖₁/‖d'‖₁ of the tensor
    (l1), or left (none). The bits depend on seed, tensor name, model and block, and on nothing else.
    """

    own = {"weight": 1.0, "density": 1.0}
    shared = {"lambda": 1.0, "normalize": False, "rescale": "inverse"}
    random = True
    rescales = ("inverse", "l1", "none")

    def check(self, parameters: Parameters) -> None:
        super().check(parameters)
        if not all(1 / CHANCES <= one["density"] <= 1 for one in parameters.own):
            raise ValueError("density must be above 0 (at least 1/65536) and at most 1")

    def factor(self, i: int, parameters: Parameters, stats: list) -> float:
        if parameters.shared["rescale"] == "inverse":
            return CHANCES / round(parameters.own[i]["density"] * CHANCES)
        return super().factor(i, parameters, stats)

    def thin(self, block: Block, parameters: Parameters, stats: list) -> None:
        for i, (model, one) in enumerate(zip(block.models, parameters.own)):
            limit = round(one["density"] * CHANCES)
            if limit < CHANCES:
                np.copyto(block.scratch[0], random_bits(block, i) < limit)
                np.multiply(model, block.scratch[0], out=model)


class DareLinear(Dare):
    __doc__ = Dare.__doc__

    name = "dare_linear"


class DareTies(Dare):
    """DARE's dropped and rescaled differences, then the vote on signs of TIES (arXiv:2306.01708)."""

    name = "dare_ties"
    vote = True


def _size(array: np.ndarray, work: np.ndarray) -> float:
    np.abs(array, out=work)
    return float(np.add.reduce(work))


def random_bits(block: Block, model: int) -> np.ndarray:
    """(n,) uint16 for one model's part of a block: an SFC64 stream keyed by seed, tensor, model and place."""
    key = hashlib.blake2b(f"{block.seed}\0{block.name}\0{model}\0{block.start}".encode("utf-8", "surrogatepass"))
    bits = np.random.SFC64(int.from_bytes(key.digest()[:16], "little")).random_raw(-(-len(block.out) // 4))
    return bits.astype("<u8", copy=False).view("<u2")[:len(block.out)]
