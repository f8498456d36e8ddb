"""What a merge method is: pure functions over blocks of one tensor, fp32 inside, rounded once by the writer.

The engine cuts every tensor into blocks of a fixed size (whole rows where a method asks for them), the same for any
number of threads or shards. For each tensor it runs the method's passes, then `apply`:

    for number in range(method.passes_for(parameters)):
        state = None
        for block in blocks that method.select names:   # observe in any thread, fold in the order of the blocks
            state = method.fold(number, state, method.observe(number, block, parameters, stats))
        stats = [*stats, method.finish(number, state, tensor, parameters, stats)]
    for block in blocks:
        method.apply(block, parameters, stats)          # fills block.out
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Parameters:
    """Values for one tensor: `own[i]` are the parameters of model i (weight, density, …), `shared` those of the merge."""

    own: tuple[dict, ...] = ()
    shared: dict = field(default_factory=dict)

    def weights(self) -> np.ndarray:
        """(models,) float64."""
        return np.array([one["weight"] for one in self.own], np.float64)


@dataclass
class Block:
    """The same part of one tensor in all models: flat fp32 arrays (n,), buffers of the engine that are used again.

    `start` is the place of the first entry in the flattened tensor, `name` and `shape` are the whole tensor's,
    `scratch` is a list of (n,) fp32 buffers to work in, `seed` the run's. `apply` may overwrite the models and the base.
    `kept` is a list for a report, or None: a method that drops entries adds how many of each model stay and are not 0.
    """

    models: list[np.ndarray]
    base: np.ndarray | None
    out: np.ndarray
    start: int
    name: str
    shape: tuple[int, ...]
    scratch: list[np.ndarray] = field(default_factory=list)
    seed: int = 0
    kept: list[int] | None = None

    @property
    def row_length(self) -> int:
        """Entries of one row: the last axis; a vector is one row."""
        return self.shape[-1] if self.shape else 1


class Method:
    """Base of all methods. A subclass says what it takes and overrides `apply`, and the pass functions if it has passes."""

    name = ""
    base = "none"  # none, optional or required
    models = (1, None)  # least and most, beside the base
    own: dict = {}  # parameters a model has: name -> default; ... means that it must be given
    shared: dict = {}  # parameters of the merge: name -> default
    passes = 0
    random = False  # what it does depends on a seed
    spreads_nonfinite = False  # one NaN or infinity of an input makes the result one, whatever the parameters
    buffers = 0  # scratch arrays that apply and observe want

    def check(self, parameters: Parameters) -> None:
        """ValueError if a value is out of range."""

    def whole_rows(self, parameters: Parameters) -> bool:
        """Whether blocks must be whole rows (last axis), however long these are."""
        return False

    def verbatim(self, parameters: Parameters) -> bool:
        """Whether the stored bytes of the only model go out as they are, where the number format is the same."""
        return False

    def passes_for(self, parameters: Parameters) -> int:
        """Passes that these parameters need: a statistic nobody uses is not read for."""
        return self.passes

    def select(self, number: int, count: int, parameters: Parameters, stats: list) -> range:
        """The blocks (of `count`) that pass `number` reads; with none of them, `finish` gets the state None."""
        return range(count)

    def observe(self, number: int, block: Block, parameters: Parameters, stats: list):
        """What pass `number` needs of one block; must not keep the block's arrays."""
        raise NotImplementedError

    def fold(self, number: int, state, partial):
        """The state with one more block's part, in the order of the blocks; the first state is None."""
        raise NotImplementedError

    def finish(self, number: int, state, shape: tuple[int, ...], parameters: Parameters, stats: list):
        """The statistic of pass `number`."""
        return state

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        """Fill block.out."""
        raise NotImplementedError
