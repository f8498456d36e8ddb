"""Formats to fp32 and back, against torch."""

import numpy as np
import pytest
import torch

from pt_tools.merge import numbers

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_all_patterns_come_back_as_they_are(dtype):
    raw = np.arange(1 << 16, dtype=np.uint16)
    stored, values, again = numbers.view(raw.view(np.uint8), dtype), np.empty(1 << 16, np.float32), np.empty(1 << 16, np.uint16)
    numbers.decode(stored, dtype, values)
    want = torch.from_numpy(raw.view(np.int16).copy()).view(TORCH[dtype]).float()
    assert torch.equal(torch.from_numpy(values).nan_to_num(123.0), want.nan_to_num(123.0))
    assert numbers.nonfinite(stored, dtype) == int((~want.isfinite()).sum())
    bad = numbers.encode(values, dtype, numbers.view(again.view(np.uint8), dtype), np.empty_like(values))
    assert bad == int((~want.isfinite()).sum())
    known = ~want.isnan().numpy()
    assert (again[known] == raw[known]).all() and np.isnan(numbers.view(again, dtype)[~known].astype(np.float32)).all() \
        if dtype == "F16" else (again[known] == raw[known]).all() and (again[~known] == 0x7FC0).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_rounding_is_torchs(dtype):
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    bits[:1 << 18] = bits[:1 << 18] & 0xFFFF0000 | 0x8000  # halves exactly
    bits[-6:] = 0x7F7F7FFF, 0x7F7F8000, 0xFF7F8000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF
    values = bits.view(np.float32)
    stored = np.empty(len(bits), numbers.FLOATS[dtype])
    bad = numbers.encode(values.copy(), dtype, stored, np.empty_like(values))
    want = torch.from_numpy(values.copy()).to(TORCH[dtype])
    got = torch.from_numpy(stored.view(np.int16 if dtype == "BF16" else stored.dtype)).view(TORCH[dtype])
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got[~got.isnan()], want[~want.isnan()])
    assert bad == int((~want.isfinite()).sum())
