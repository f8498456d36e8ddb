"""Safetensors directories, read by hand: headers checked before anything is believed, tensors read in blocks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: where its bytes are (`offset` from the start of the file)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: str
    offset: int
    nbytes: int
