"""Headers that lie, indexes that disagree, weights that are refused."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pt_tools.errors import BadModel
from pt_tools.merge.tensors import Checkpoint


def file_of(path, header, data=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("header,reason", [
    ({"a": entry(0, 8), "b": entry(4, 16)}, "overlaps"),
    ({"a": entry(0, 16), "b": entry(0, 16)}, "overlaps"),
    ({"a": entry(0, 4), "b": entry(8, 16)}, "hole"),
    ({"a": entry(0, 32)}, "end at byte"),
    ({"a": entry(0, 8)}, "end at byte"),
    ({"a": entry(0, 16, "F16")}, "does not take 16 bytes"),
    ({"a": entry(0, 16, "F33")}, "unknown dtype"),
    ({"a": entry(0, 16, shape=[-4])}, "wrong kind"),
    ({"a": entry(0, 16, shape=[True, 4])}, "wrong kind"),
    ({"a": entry(0, 16, shape=[1 << 40, 1 << 40])}, "does not take"),
    ({"a": entry(16, 0, shape=[4])}, "does not take"),
    ({"a": {"dtype": "F32", "shape": [4]}}, "lacks"),
    ({"a": 5}, "lacks"),
    ([], "not an object"),
    (b"{", "no safetensors file"),
    (b"[" * 100000, "no safetensors file"),
    (b"\xff\xfe", "no safetensors file"),
    (b'{"a": 1, "a": 2}', "a key twice"),
    ({"a": entry(0, 16, "F8_E4M3", [16])}, "quantised"),
    ({"a": entry(0, 16, "U8", [16])}, "quantised"),
    ({"x.qweight": entry(0, 16)}, "x.qweight"),
])
def test_headers_that_do_not_hold(tmp_path, header, reason):
    with pytest.raises(BadModel, match=reason):
        Checkpoint(file_of(tmp_path / "m.safetensors", header))


@pytest.mark.parametrize("length", [1 << 63, 101_000_000, 500])
def test_a_header_longer_than_its_file(tmp_path, length):
    with pytest.raises(BadModel, match="longer than"):
        Checkpoint(file_of(tmp_path / "m.safetensors", {"a": entry(0, 16)}, length=length))


def test_short_files(tmp_path):
    for size in (0, 7):
        (tmp_path / "m.safetensors").write_bytes(b"\0" * size)
        with pytest.raises(BadModel):
            Checkpoint(tmp_path)


def test_real_files_read_as_they_were_saved(tmp_path):
    raw = {"a": torch.randn(30, 7), "b": torch.randn(5).bfloat16(), "c": torch.randn(3).double(), "s": torch.tensor(2.0)}
    save_file(raw, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint(tmp_path)
    for name, tensor in raw.items():
        assert np.array_equal(checkpoint.load(name), tensor.float().numpy())
    part = np.empty(9, np.float32)
    checkpoint.read_into(checkpoint.tensors["a"], 11, 9, part)
    assert np.array_equal(part, raw["a"].flatten()[11:20].numpy())
    with pytest.raises(ValueError):
        checkpoint.read_into(checkpoint.tensors["a"], 205, 9, part)


@pytest.mark.parametrize("files,reason", [
    ({"a": "../m1.safetensors"}, "plain name"), ({"a": "none.safetensors"}, "not there"), ({"z": "m1.safetensors"}, "disagree"),
    ([], "no index")])
def test_indexes_that_lie(tmp_path, files, reason):
    save_file({"a": torch.zeros(2)}, tmp_path / "m1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(BadModel, match=reason):
        Checkpoint(tmp_path)


def test_pickle_and_quantised_configs_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadModel, match="pickle"):
        Checkpoint(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    with pytest.raises(BadModel, match="quantization_config"):
        Checkpoint(tmp_path)


def test_masks_of_bytes_and_scales_of_layers_are_not_taken_for_quantised(tmp_path):
    tensors = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8).tril(),
               "vision.layer_scales": torch.full((3,), 0.1), "causal_mask": torch.ones(2, dtype=torch.int8)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert Checkpoint(tmp_path).tensors.keys() == tensors.keys()
    save_file(tensors | {"layers.0.mlp.weight": torch.ones(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(BadModel, match=r"tensor layers.0.mlp.weight \(I8\) is quantised: dequantise the model first"):
        Checkpoint(tmp_path)


def test_shared_tensors_have_all_their_names(tmp_path):
    """safetensors' save_model stores one of them and notes the others."""
    from safetensors.torch import save_model

    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3, bias=False), "b": torch.nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    save_model(model, tmp_path / "model.safetensors", metadata={"format": "pt", "c": "nothing"})
    checkpoint = Checkpoint(tmp_path)
    assert sorted(checkpoint.tensors) == ["a.weight", "b.weight"]
    for name in checkpoint.tensors:
        assert np.array_equal(checkpoint.load(name), model["a"].weight.detach().numpy())
