"""Number formats of safetensors files to and from fp32 blocks, in buffers that are used again.

One rounding, to the nearest even, when a result is stored. Everything is exact on bit patterns, in numpy, without BLAS
(whose threads would multiply with ours and whose sums depend on their number). F64 is rounded to fp32 when it is read
for arithmetic, so an F64 output holds fp32 values; only a copy keeps all its bits.
"""

from __future__ import annotations

import numpy as np

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
         "F64": 8, "I64": 8, "U64": 8}
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # how numpy holds the bytes
_INFINITY = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x7C00, "BF16": 0x7F80}  # bits; larger ones are NaN
_BF16_OVERFLOW = 0x7F7F8000  # the smallest fp32 pattern that rounds to infinity


def view(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes (uint8) as an array of the format; BF16 as uint16."""
    return raw.view(FLOATS[dtype])


def nonfinite(stored: np.ndarray, dtype: str) -> int:
    """How many entries of an array made by `view` are NaN or infinite."""
    return _count(stored, _INFINITY[dtype])


def _count(array: np.ndarray, limit: int) -> int:
    """Entries whose bits without the sign are at least `limit`: two maxima decide the usual case, zero."""
    bits = array.itemsize * 8
    signed, unsigned = array.view(f"i{array.itemsize}"), array.view(f"u{array.itemsize}")
    sign = 1 << (bits - 1)
    if not array.size or (signed.max() < limit and unsigned.max() < limit + sign):
        return 0
    return int(np.count_nonzero((unsigned & (sign - 1)) >= limit))


def decode(stored: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Fill fp32 `out` (n,) from an array made by `view`; exact but for F64, which is rounded."""
    if dtype == "BF16":
        bits = out.view(np.uint32)
        np.copyto(bits, stored)
        np.left_shift(bits, 16, out=bits)
    else:
        with np.errstate(over="ignore"):
            np.copyto(out, stored, casting="same_kind")


def encode(values: np.ndarray, dtype: str, stored: np.ndarray, scratch: np.ndarray) -> int:
    """Round fp32 `values` (n,) into `stored`; returns how many entries are NaN or infinite there.

    `scratch` is an fp32 array (n,) to work in. A NaN is stored as the quiet NaN.
    """
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            np.copyto(stored, values, casting="same_kind")
        return nonfinite(stored, dtype)
    bits, work = values.view(np.uint32), scratch.view(np.uint32)
    np.right_shift(bits, 16, out=work)
    np.bitwise_and(work, 1, out=work)  # a half rounds up only onto an odd number
    np.add(work, bits, out=work)
    np.add(work, 0x7FFF, out=work)
    np.right_shift(work, 16, out=work)
    np.copyto(stored, work, casting="unsafe")
    bad = _count(values, _BF16_OVERFLOW)
    if bad:
        stored[np.isnan(values)] = 0x7FC0
    return bad


def dot(a: np.ndarray, b: np.ndarray, scratch: np.ndarray) -> float:
    """Inner product of two fp32 blocks: fp32 products, summed in pairs, the same on every machine and thread count."""
    np.multiply(a, b, out=scratch)
    return float(np.add.reduce(scratch))
