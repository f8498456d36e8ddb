"""Loading and saving: safetensors only, nothing missing, nothing executed."""

import json
import math
import os
import shutil

import pytest
import safetensors.torch
import torch
import toys

from pt_tools import models, outdir
from pt_tools.errors import BadModel, Diverged, Usage


def test_a_saved_model_loads_to_the_same_bits_and_holds_no_pickle(tmp_path):
    model = toys.llama()
    path = toys.save(tmp_path / "m", model)
    loaded = models.load_model(path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))
    assert sorted(p.suffix for p in (tmp_path / "m").iterdir()) == [".jinja", ".json", ".json", ".json", ".json", ".safetensors"]
    assert models.load_tokenizer(path).chat_template == toys.CHAT


def test_a_missing_tensor_is_refused(tmp_path):
    path = toys.save(tmp_path / "m")
    file = str(tmp_path / "m" / "model.safetensors")
    tensors = safetensors.torch.load_file(file)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadModel, match="model.layers.1.mlp.up_proj.weight"):
        models.load_model(path)


def test_a_misshapen_tensor_is_refused(tmp_path):
    path = toys.save(tmp_path / "m")
    file = str(tmp_path / "m" / "model.safetensors")
    tensors = safetensors.torch.load_file(file)
    tensors["model.norm.weight"] = torch.ones(5)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadModel):
        models.load_model(path)


def test_pickled_weights_are_never_read(tmp_path):
    path = toys.save(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"x": Bomb()}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(BadModel, match="pickled"):
        models.load_model(path)
    assert not (tmp_path / "exploded").exists()


def test_remote_code_is_never_run(tmp_path):
    path = toys.save(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}, "model_type": "evil"}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'exploded')!r})")
    with pytest.raises(BadModel):
        models.load_model(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("fault", ["truncated", "garbage", "no config", "bad config", "not a directory"])
def test_broken_directories_are_bad_models_not_crashes(tmp_path, fault):
    path = tmp_path / "m"
    toys.save(path)
    weights = path / "model.safetensors"
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == "garbage":
        weights.write_bytes(os.urandom(5000))
    elif fault == "no config":
        (path / "config.json").unlink()
    elif fault == "bad config":
        (path / "config.json").write_text("{")
    else:
        shutil.rmtree(path)
    with pytest.raises(BadModel):
        models.load_model(str(path))


def test_a_manifest_that_does_not_match_is_refused(tmp_path):
    path = toys.save(tmp_path / "m")
    outdir.seal(path)
    models.load_model(path)
    (tmp_path / "m" / "config.json").write_text((tmp_path / "m" / "config.json").read_text() + " ")
    with pytest.raises(BadModel, match="config.json"):
        models.load_model(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_is_named(value):
    model = toys.llama()
    models.check_finite(model)
    model.model.layers[1].self_attn.k_proj.weight.data[3, 4] = value
    with pytest.raises(Diverged, match="model.layers.1.self_attn.k_proj.weight"):
        models.check_finite(model)


def test_device_and_dtype():
    from pt_tools.commands.sft import Config

    assert models.device_and_dtype(toys.config(Config)) == (torch.device("cpu"), torch.float32)
    assert models.device_and_dtype(toys.config(Config, dtype="bfloat16"))[1] == torch.bfloat16
    if not torch.cuda.is_available():
        assert models.device_and_dtype(toys.config(Config, device="auto")) == (torch.device("cpu"), torch.float32)
        with pytest.raises(Usage, match="no CUDA"):
            models.device_and_dtype(toys.config(Config, device="cuda"))


@pytest.mark.parametrize("name, value", [("hidden_size", "x"), ("num_attention_heads", 0)])
def test_a_configuration_with_a_wrong_value_is_a_bad_model(tmp_path, name, value):
    path = toys.save(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(BadModel):
        models.load_model(path)


def test_ids_without_an_embedding_are_the_models_fault_and_never_pads():
    model = toys.llama(vocab_size=40)
    models.check_ids(model, [[0, 39], []])
    for wrong in (40, -1):
        with pytest.raises(BadModel, match=f"token id {wrong} has no embedding"):
            models.check_ids(model, [[3], [2, wrong, 4]])
    assert models.pad_id(model, toys.tokenizer()) == 0
    assert models.pad_id(model, toys.tokenizer(pad_token="z")) == 1      # "z" has id 97, <|end|> has 1


@pytest.mark.parametrize("changes", [
    {"attn_implementation": "someone/kernels"}, {"text_config": {"_attn_implementation": "a/b:c"}}])
def test_a_config_that_names_code_is_refused(tmp_path, changes):
    path = toys.save(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(BadModel, match="names code to load"):
        models.load_model(path)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", "pytorch_model.bin", 3])
def test_an_index_that_leaves_its_directory_is_refused(tmp_path, name):
    path = toys.save(tmp_path / "m")
    toys.save(tmp_path / "other")
    os.rename(tmp_path / "m" / "model.safetensors", tmp_path / "m" / "model-00001-of-00001.safetensors")
    tensors = safetensors.torch.load_file(str(tmp_path / "other" / "model.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadModel, match="weight_map names"):
        models.load_model(path)


def test_a_template_with_a_mistake_is_the_model_s_fault_not_a_row_s(tmp_path):
    path = toys.save(tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m.content }")
    with pytest.raises(BadModel, match="chat template, line 2"):
        models.load_tokenizer(path)
