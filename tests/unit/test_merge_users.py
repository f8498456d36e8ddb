"""Merges as users post them, and machines as users have them: YAML of model cards, a full disk, two writers."""

import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_merge_cli import TIES, three  # noqa: F401  (a fixture)

PRO = """
slices:
- sources:
  - {model: a, layer_range: [0, 2]}
- sources:
  - layer_range: [0, 2]
    model: b
    parameters:
      scale:
        - filter: o_proj
          value: 0.0
        - filter: down_proj
          value: 0.0
        - value: 1.0
merge_method: passthrough
dtype: float32
"""
CARD = """
slices:
  - sources:
      - model: a
        layer_range: [0, 2]
      - model: b
        layer_range: [0, 2]
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [0.9, 0.5, 0.7, 0.3, 0.2]
    - value: 0.5 # fallback for rest of tensors
dtype: float32
"""


def test_inserted_layers_that_add_nothing_change_nothing(pt, three):  # noqa: F811
    """Depth up-scaling: a layer whose two output matrices are 0 hands on what it was given, to the last bit."""
    import torch

    from pt_tools import models

    (three / "pro.yml").write_text(PRO)
    pt("pt-merge", "pro.yml", "-o", "pro", check=0)
    deep = models.load_model(three / "pro")
    tensors = dict(deep.named_parameters())
    assert deep.config.num_hidden_layers == 4 and not tensors["model.layers.3.mlp.down_proj.weight"].any()
    prompt = torch.arange(1, 20)[None]
    a, b = (load_file(three / name / "model.safetensors") for name in "ab")
    for name, value in b.items():
        if ".layers.1." in name and "o_proj" not in name and "down_proj" not in name:
            assert np.array_equal(tensors[name.replace(".1.", ".3.")].detach().numpy(), value), name
    with torch.no_grad():
        deep.model.norm.weight.copy_(torch.from_numpy(a["model.norm.weight"]))  # the last slice's
        assert torch.equal(deep(prompt).logits, models.load_model(three / "a")(prompt).logits)


def test_slerp_with_gradients_as_on_model_cards(pt, three):  # noqa: F811
    (three / "card.yml").write_text(CARD)
    pt("pt-merge", "card.yml", "-o", "card", check=0)
    out, a, b = (load_file(three / name / "model.safetensors") for name in ("card", "a", "b"))
    for name, value in out.items():
        t = 0.5
        if "layers" in name:
            last = "layers.1." in name
            t = float(last) if "self_attn" in name else (0.2 if last else 0.9) if "mlp" in name else 0.5
        x, y = a[name].astype(np.float64), b[name].astype(np.float64)
        cosine = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
        angle = np.arccos(cosine)
        parts = (1 - t, t) if cosine > 0.9995 else np.sin(np.array([1 - t, t]) * angle) / np.sin(angle)
        np.testing.assert_allclose(value, parts[0] * x + parts[1] * y, rtol=0, atol=1e-6, err_msg=name)


def test_a_disk_that_takes_no_more_is_exit_7_and_the_same_line_goes_on(pt, three):  # noqa: F811
    pt(*TIES[:-1], "want", check=0)
    size = (three / "want/model.safetensors").stat().st_size
    limit = size // 2
    done = pt(*TIES, check=7, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.err == "pt-merge: output: File too large\n" and not (three / "out").exists()
    pt(*TIES, check=0)
    assert (three / "out/model.safetensors").read_bytes() == (three / "want/model.safetensors").read_bytes()


def test_of_several_writers_at_once_one_writes(pt, three):  # noqa: F811
    argv = [os.path.join(os.path.dirname(sys.executable), TIES[0]), *TIES[1:], "-q"]
    writers = [subprocess.Popen(argv, cwd=three, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    said = [one.communicate()[1].decode() for one in writers]
    codes = [one.returncode for one in writers]
    assert set(codes) <= {0, 6} and 0 in codes
    assert all("is writing" in text and text.count("\n") == 1 if code else not text for code, text in zip(codes, said))
    pt(*TIES[:-1], "want", check=0)
    assert (three / "out/model.safetensors").read_bytes() == (three / "want/model.safetensors").read_bytes()
    assert not (three / "out.run").exists()


@pytest.mark.parametrize("shards", ["5GB", "100KB"])
def test_a_shard_that_is_missing_is_named(pt, three, shards):  # noqa: F811
    pt("pt-merge", "linear", "a", "b", "--shard-size", shards, "-o", "mean", check=0)
    shutil.copytree(three / "mean", three / "plain")
    (three / "plain/MANIFEST.json").unlink()  # a foreign model has none
    victim = sorted((three / "plain").glob("*.safetensors"))[-1]
    victim.unlink()
    done = pt("pt-merge", "linear", "plain", "a", "-o", "out", check=4)
    reason = "no safetensors file" if shards == "5GB" else f"{victim.name} is in the index but not there"
    assert done.err == f"pt-merge: plain: {reason}\n"
    (three / "mean" / victim.name).unlink()
    done = pt("pt-merge", "linear", "mean", "a", "-o", "out", check=4)
    assert done.err == f"pt-merge: mean: {victim.name} is missing, though its manifest lists it\n"
    assert json.loads((three / "mean/MANIFEST.json").read_bytes())["files"].keys() >= {victim.name}
