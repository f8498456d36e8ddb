"""pt-merge as a process: outputs that load, refusals line by line, dry runs, runs that are done already."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

TIES = ("pt-merge", "ties", "base", "a", "b", "-w", "0.5", "0.5", "--density", "0.5", "-o", "out")


@pytest.fixture
def three(policy, tmp_path):
    """base/, a/ and b/: one model, and two with seeded noise on every tensor."""
    for number, name in enumerate(("base", "a", "b")):
        shutil.copytree(policy, tmp_path / name)
        change(tmp_path / name, lambda key, value, n=number: value + np.float32(0.01 * n) * noise(n, value.shape))
    return tmp_path


def noise(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def change(path, function):
    tensors = {key: function(key, value) for key, value in load_file(path / "model.safetensors").items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, path / "model.safetensors", {"format": "pt"})


def test_linear_is_the_mean_loads_and_generates(pt, three):
    done = pt("pt-merge", "linear", "a", "b", "-w", "0.25", "0.75", "-o", "out", check=0)
    assert done.out == "out\n"
    a, b, out = (load_file(three / name / "model.safetensors") for name in ("a", "b", "out"))
    for name in a:
        assert np.allclose(out[name], np.float32(0.25) * a[name] + np.float32(0.75) * b[name], rtol=1e-6, atol=1e-7)
    from pt_tools import models

    model, tokenizer = models.load_model(three / "out"), models.load_tokenizer(three / "out")
    ids = tokenizer("What is 2 plus 3?", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4, min_new_tokens=4).shape[1] == ids.shape[1] + 4


def test_three_spellings_of_weights_are_one(pt, three):
    for place, words in enumerate((["-w", "0.3", "0.7"], ["-w", "0.3,0.7"], ["-w", "0.3", "-w", "0.7"])):
        pt("pt-merge", "linear", "a", "b", *words, "-o", f"out{place}", check=0)
    files = [(three / f"out{n}" / "model.safetensors").read_bytes() for n in range(3)]
    assert files[0] == files[1] == files[2]


def test_done_once_and_again_when_an_input_changes(pt, three):
    pt(*TIES, check=0)
    assert "nothing to do" in pt(*TIES, "--threads", "1", check=0).err
    before = (three / "out" / "model.safetensors").read_bytes()
    change(three / "b", lambda key, value: value * 2)
    assert "nothing to do" not in pt(*TIES, check=0).err
    assert (three / "out" / "model.safetensors").read_bytes() != before


def test_yaml_and_flags_make_the_same(pt, three):
    (three / "m.yml").write_text("merge_method: ties\nbase_model: base\nmodels:\n- model: base\n- model: a\n"
                                 "  parameters: {weight: 0.5, density: 0.5}\n- model: b\n  parameters: {weight: 0.5, density: 0.5}\n")
    pt(*TIES, check=0)
    pt("pt-merge", "m.yml", "-o", "other", check=0)
    assert (three / "out/model.safetensors").read_bytes() == (three / "other/model.safetensors").read_bytes()


def test_dry_run_writes_nothing(pt, three):
    before = sorted(three.iterdir())
    found = json.loads(pt("pt-merge", "slerp", "a", "b", "--param", "self_attn:t=[0,1]", "--param", "t=0.5", "-o", "out",
                          "--dry-run", check=0).out)
    size = sum(value.nbytes for value in load_file(three / "a/model.safetensors").values())
    assert (found["bytes_out"], found["bytes_in"]) == (size, 2 * size) and found["memory"] > 0
    t = {item["name"]: item["shared"]["t"] for item in found["items"]}
    assert t["model.layers.0.self_attn.q_proj.weight"] == 0 and t["model.layers.1.self_attn.q_proj.weight"] == 1
    assert t["model.layers.0.mlp.up_proj.weight"] == 0.5 and sorted(three.iterdir()) == before


def test_layers_are_stacked_and_numbered(pt, three):
    pt("pt-merge", "passthrough", "--layers", "a:0-2", "--layers", "b:1-2", "-o", "out", check=0)
    out, b = load_file(three / "out/model.safetensors"), load_file(three / "b/model.safetensors")
    assert np.array_equal(out["model.layers.2.mlp.up_proj.weight"], b["model.layers.1.mlp.up_proj.weight"])
    assert json.loads((three / "out/config.json").read_text())["num_hidden_layers"] == 3
    from pt_tools import models

    models.load_model(three / "out")


def test_an_added_token_keeps_its_owners_row(pt, three):
    path = three / "b"
    tokens = json.loads((path / "tokenizer.json").read_text())
    rows = json.loads((path / "config.json").read_text())["vocab_size"]
    tokens["added_tokens"].append({**tokens["added_tokens"][-1], "id": rows, "content": "<|new|>"})
    (path / "tokenizer.json").write_text(json.dumps(tokens))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": rows + 1}))
    change(path, lambda key, value: np.concatenate([value, value[:1] + 7]) if "embed" in key else value)
    done = pt("pt-merge", "linear", "a", "b", "-o", "out", check=0)
    assert f"tokenizers differ: that of b goes out, {rows + 1} rows" in done.err
    out, a, b = (load_file(three / name / "model.safetensors")["model.embed_tokens.weight"] for name in ("out", "a", "b"))
    assert np.array_equal(out[-1], b[-1]) and np.allclose(out[:rows], (a + b[:rows]) / 2, atol=1e-7)
    assert json.loads((three / "out/config.json").read_text())["vocab_size"] == rows + 1


REFUSALS = [
    (["tis", "a", "b"], 2, "no such method: tis; did you mean ties?"),
    (["ties", "base", "a", "--t", "0.5"], 2, "--t is of no use with ties"),
    (["linear", "a", "b", "-w", "1", "2", "3"], 2, "--weight: 3 values for 2 models"),
    (["slerp", "a", "b", "base"], 2, "slerp takes 2 models, not 3"),
    (["linear", "a", "b", "--param", "nonsense=1"], 2, "linear has no parameter nonsense (it has: normalize, weight)"),
    (["linear", "a", "b", "--tokenizer-from", "c"], 2, "--tokenizer-from: c is none of the models (a, b)"),
    (["linear", "a", "b", "--shard-size", "x"], 2, "--shard-size x: expected bytes, or a number with KB, MB, GB or TB"),
]


@pytest.mark.parametrize("words, code, line", REFUSALS, ids=[" ".join(r[0][:2] + r[0][-1:]) for r in REFUSALS])
def test_refused(pt, three, words, code, line):
    done = pt("pt-merge", *words, "-o", "out", check=code)
    assert done.err == f"pt-merge: {line}\n" and not list(three.glob("out*"))


def test_shapes_missing_tensors_and_nan_are_named(pt, three):
    name = "model.layers.0.mlp.up_proj.weight"
    for edit, code, line in (
            (lambda v: v[:-1].copy(), 4, f"tensor {name} is [256, 128] in a and [255, 128] in b"),
            (lambda v: None, 4, f"tensor {name} is not in b, but in other models"),
            (lambda v: v * np.float32("nan"), 4, f"tensor {name} has NaN or infinite numbers: 32768 in b/model.safetensors")):
        shutil.copytree(three / "b", three / "kept")
        change(three / "b", lambda key, value: edit(value) if key == name else value)
        assert pt("pt-merge", "linear", "a", "b", "-o", "out", check=code).err.splitlines()[-1] == f"pt-merge: {line}"
        shutil.rmtree(three / "b")
        (three / "kept").rename(three / "b")
