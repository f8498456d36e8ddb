"""Safetensors directories, read by hand: headers checked before anything is believed, tensors read in blocks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pt_tools.errors import BadModel, Usage
from pt_tools.merge import numbers

LARGEST_HEADER = 100_000_000  # bytes; the limit of the format's own library
QUANTISED = re.compile(r"(F8_|F6_|F4$)|(U8|I8|I4|U4)$")
QUANTISED_NAME = re.compile(r"(^|[._])(qweight|qzeros|g_idx|absmax|quant_map|quant_state|SCB|weight_packed|"
                            r"weight_scale\w*|weight_zero_point|input_scale|scale_inv)($|\.)")
MASK = re.compile(r"(^|[._])(attn|attention)\.(masked_)?bias$|mask$")  # bytes that are no weights: causal masks of GPT-NeoX


@dataclass(frozen=True, slots=True)
class Tensor:
    """A stored tensor: where its bytes are (`offset` from the start of the file)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: str
    offset: int
    nbytes: int


def bytes_digest(tensor: Tensor) -> str:
    """A digest of a tensor's stored bytes."""
    digest, rest = hashlib.sha256(), tensor.nbytes
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset)
        while rest and (block := file.read(min(rest, 1 << 20))):
            digest.update(block)
            rest -= len(block)
    return digest.hexdigest()


class Files:
    """Open files, kept open; reads go from any thread to any place."""

    def __init__(self):
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def descriptor(self, path: str) -> int:
        with self._lock:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return self._open[path]

    def read_into(self, tensor: Tensor, start: int, count: int, buffer: np.ndarray) -> None:
        """Entries `start` … `start + count` of the flattened tensor into a contiguous buffer of as many bytes."""
        size = numbers.SIZES[tensor.dtype]
        if start < 0 or (start + count) * size > tensor.nbytes:
            raise ValueError(f"{tensor.name} has no entries {start} … {start + count}")
        rest = memoryview(buffer).cast("B")
        if len(rest) != count * size:
            raise ValueError(f"a buffer of {len(rest)} bytes for {count} entries of {tensor.dtype}")
        fd, offset = self.descriptor(tensor.path), tensor.offset + start * size
        while len(rest):
            got = os.preadv(fd, [rest], offset)
            if not got:
                raise BadModel(f"the file ends inside tensor {tensor.name}", tensor.path)
            rest, offset = rest[got:], offset + got

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Checkpoint:
    """A directory of safetensors files, or one file. `tensors`: name → Tensor, `config`: config.json or {}.

    Refused (`BadModel`, naming the file or tensor): headers that do not hold, an index that disagrees with its files,
    pickle weights, quantised tensors.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.files = Files()
        self.config = read_config(self.path)
        self.tensors: dict[str, Tensor] = {}
        for file, wanted in _shards(self.path):
            found = read_header(file, shared=wanted is None)
            if wanted is not None and wanted != found.keys():
                name = min(wanted ^ found.keys())
                raise BadModel(f"the index and {file.name} disagree about tensor {name}", str(self.path))
            for name, tensor in found.items():
                if name in self.tensors:
                    raise BadModel(f"tensor {name} is in two files", str(self.path))
                self.tensors[name] = tensor
        _refuse_quantised(self)

    def read_into(self, tensor: Tensor, start: int, count: int, buffer: np.ndarray) -> None:
        self.files.read_into(tensor, start, count, buffer)

    def load(self, name: str) -> np.ndarray:
        """A whole tensor in fp32, in its shape: for small ones."""
        tensor = self.tensors[name]
        raw, out = np.empty(tensor.nbytes, np.uint8), np.empty(tensor.shape, np.float32)
        if tensor.nbytes:
            self.read_into(tensor, 0, out.size, raw)
        numbers.decode(numbers.view(raw, tensor.dtype), tensor.dtype, out.reshape(-1))
        return out


def read_config(path: Path) -> dict:
    """config.json of a directory, {} without one."""
    if not (path / "config.json").is_file():
        return {}
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadModel("config.json is not JSON", str(path)) from error
    if not isinstance(config, dict):
        raise BadModel("config.json is not an object", str(path))
    return config


def _shards(path: Path) -> list[tuple[Path, set[str] | None]]:
    """The files to read, each with the names that the index promises."""
    if path.is_file():
        return [(path, None)]
    if not path.is_dir():
        raise Usage(f"no such model directory or file: {path}")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return _indexed(path, index)
    if (path / "model.safetensors").is_file():
        return [(path / "model.safetensors", None)]
    found = sorted(file for file in path.glob("*.safetensors") if file.is_file())
    if found:
        return [(file, None) for file in found]
    pickled = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in path.glob(kind))
    if pickled:
        raise BadModel(f"{pickled[0]}: pickle weights are not read; save them as safetensors first", str(path))
    raise BadModel("no safetensors file", str(path))


def _indexed(path: Path, index: Path) -> list[tuple[Path, set[str] | None]]:
    try:
        files = json.loads(index.read_bytes())["weight_map"]
        promised: dict[str, set[str]] = {}
        for name, file in files.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(f"the file of {name} is not a plain name")
            promised.setdefault(file, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadModel(f"{index.name} is no index: {error}", str(path)) from error
    missing = sorted(file for file in promised if not (path / file).is_file())
    if missing:
        raise BadModel(f"{missing[0]} is in the index but not there", str(path))
    return [(path / file, names) for file, names in sorted(promised.items())]


def _refuse_quantised(checkpoint: Checkpoint) -> None:
    if checkpoint.config.get("quantization_config"):
        raise BadModel("quantised (quantization_config in config.json): dequantise it first", str(checkpoint.path))
    for name, tensor in checkpoint.tensors.items():
        if QUANTISED_NAME.search(name) or (QUANTISED.match(tensor.dtype) and not MASK.search(name)):
            raise BadModel(f"tensor {name} ({tensor.dtype}) is quantised: dequantise the model first",
                           str(checkpoint.path))


# --- headers ------------------------------------------------------------------------------------------------------


def read_header(path, shared: bool = False) -> dict[str, Tensor]:
    """The tensors of one file in the order of their bytes; `BadModel` unless they fill it exactly, without overlap.

    `shared` adds the other names of tensors that the file notes.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
            if length > min(LARGEST_HEADER, size - 8):
                raise ValueError("the header is longer than the file or than the format allows")
            text = file.read(length)
        entries = json.loads(text, object_pairs_hook=_unique)
        tensors = _tensors(path, entries, 8 + length, size)
        return tensors | _aliases(entries.get("__metadata__"), tensors) if shared else tensors
    except (ValueError, RecursionError) as error:
        raise BadModel(f"no safetensors file: {error}", str(path)) from error


def _unique(pairs: list) -> dict:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key twice in the header")
    return out


def _tensors(path: Path, entries, start: int, size: int) -> dict[str, Tensor]:
    if not isinstance(entries, dict):
        raise ValueError("the header is not an object")
    out, where = [], str(path)
    for name, entry in entries.items():
        if name != "__metadata__":
            out.append(_tensor(where, name, entry, start))
    out.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    for tensor in out:
        if tensor.offset != start:
            raise ValueError(f"tensor {tensor.name} overlaps another or leaves a hole before it")
        start += tensor.nbytes
    if start != size:
        raise ValueError(f"its tensors end at byte {start}, the file at {size}")
    return {tensor.name: tensor for tensor in out}


def _aliases(metadata, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of tensors that share their bytes with a stored one (a tied head), as safetensors' save_model notes them."""
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    return {name: replace(tensors[other], name=name) for name, other in pairs
            if isinstance(other, str) and other in tensors and name not in tensors}


def _tensor(path: str, name: str, entry, start: int) -> Tensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"tensor {name} lacks dtype, shape or data_offsets")
    name.encode()  # a ValueError for half a surrogate pair, which no header can hold
    dtype, shape, ends = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(ends) or len(ends) != 2:
        raise ValueError(f"tensor {name} has a dtype, shape or data_offsets of a wrong kind")
    nbytes = ends[1] - ends[0]
    if QUANTISED.match(dtype) and dtype not in numbers.SIZES:
        raise BadModel(f"tensor {name} ({dtype}) is quantised: dequantise the model first", path)
    if dtype not in numbers.SIZES:
        raise ValueError(f"tensor {name} has the unknown dtype {dtype}")
    count = 1
    for axis in shape:
        count *= axis
    if count * numbers.SIZES[dtype] != nbytes:
        raise ValueError(f"tensor {name}: shape {shape} of {dtype} does not take {nbytes} bytes")
    return Tensor(name, sys.intern(dtype), tuple(shape), path, start + ends[0], nbytes)


def _naturals(value) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
