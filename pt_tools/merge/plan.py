"""What a merge will write: every output tensor with its sources, method and parameters, before any arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pt_tools.merge.method import Method, Parameters
from pt_tools.merge.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Source:
    """One model's part of an output tensor: a stored tensor, or rows of it (`rows[i]` along axis 0, -1 for zeros).

    Where `rows` is -1, the sum of the `fill` sources stands instead, each of its rows times `share` (fp32, one a row).
    `delta` is what an adapter changes, and is called for every block after it was read: `delta.add(block, start, rows)`
    changes in place the fp32 entries (n,) from entry `start` of the (gathered) tensor on. Any thread, any order.
    """

    tensor: Tensor
    rows: np.ndarray | None = None
    fill: tuple[Source, ...] = ()
    share: np.ndarray | None = None
    delta: object | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One output tensor. `dtype` as safetensors names it; `sources` one a model, in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    base: Source | None
    parameters: Parameters
    method: Method


@dataclass(frozen=True)
class Plan:
    """The whole output: tensors in the order in which they are written, the largest size of a shard in bytes."""

    items: list[Item]
    shard_size: int = 5_000_000_000
    metadata: dict = field(default_factory=lambda: {"format": "pt"})
    seed: int = 0
