"""What is asked for, whichever way it was written (flags or YAML): models, slices of layers, and parameter settings."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field

from pt_tools.errors import Usage


@dataclass(frozen=True)
class Ref:
    """A model as it was named: a directory or hub id, perhaps with a LoRA adapter to bake in (`model+adapter`)."""

    path: str
    adapter: str | None = None

    def __str__(self) -> str:
        return self.path if self.adapter is None else f"{self.path}+{self.adapter}"


def ref(text: str) -> Ref:
    """The model that a string names. A directory may have '+' or '@' in its name; otherwise '+' begins an adapter."""
    if os.path.isdir(text):
        return Ref(text.rstrip("/") or "/")
    path, plus, adapter = text.partition("+")
    if "@" in path and not os.path.isdir(path):
        raise Usage(f"{text}: revisions of hub models are not supported; download the one you want and name its directory")
    if not path or (plus and not adapter):
        raise Usage(f"{text!r} does not name a model")
    return Ref(path.rstrip("/"), adapter.rstrip("/") or None)


def checkpoints(text: str) -> list[str]:
    """The checkpoints of a training run in their order, if `text` is the directory that holds them; else itself alone."""
    found = [path for path in glob.glob(os.path.join(glob.escape(text), "checkpoint-*")) if path.rpartition("-")[2].isdecimal()]
    if not found or glob.glob(os.path.join(glob.escape(text), "*.safetensors")):
        return [text]
    return sorted(found, key=lambda path: int(path.rpartition("-")[2]))


# Parameter settings of one level: name -> ((filter, value), …). A filter is a part of tensor names ("" fits all); a
# value is a number, truth value or word, or a tuple of numbers: a gradient over the depth of the layers.
Settings = dict[str, tuple[tuple[str, object], ...]]


@dataclass(frozen=True)
class Part:
    """One model in a slice; `layers` is the half-open range of layers taken, None for the whole model."""

    model: Ref
    layers: tuple[int, int] | None = None
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """Models that are merged with each other layer by layer; `base_layers` are the base's, where ranges are given."""

    parts: tuple[Part, ...]
    settings: Settings = field(default_factory=dict)
    base_layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Spec:
    """A merge: slices stand one after another in the output. `tokenizer`: base, union or a model; `dtype`: of the output."""

    method: str
    slices: tuple[Slice, ...]
    base: Ref | None = None
    settings: Settings = field(default_factory=dict)
    dtype: str | None = None
    tokenizer: str | None = None
    pad_to_multiple_of: int | None = None
    chat_template: str | None = None

    def models(self) -> list[Ref]:
        """Every model once, the base first."""
        named = [part.model for one in self.slices for part in one.parts]
        return list(dict.fromkeys(([self.base] if self.base else []) + named))


def lookup(levels: list[Settings], name: str, tensor: str, depth: float):
    """The value of a parameter for a tensor at `depth` (0 … 1): of the first level with a filter that fits, else None."""
    for settings in levels:
        for fits, value in settings.get(name, ()):
            if fits in tensor:
                return interpolate(value, depth) if isinstance(value, tuple) else value
    return None


def interpolate(values: tuple, depth: float) -> float:
    """A gradient at depth 0 … 1: straight lines between values that stand at equal distances."""
    place = depth * (len(values) - 1)
    left = min(int(place), len(values) - 1)
    right = min(left + 1, len(values) - 1)
    share = place - left
    return (1 - share) * values[left] + share * values[right]
