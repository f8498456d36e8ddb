"""Files that somebody else wrote: whatever stands in them, a merge says what is wrong in one line or makes a model."""

import json
import random
import shutil
import struct
import warnings

import pytest
import test_merge_lora as lora_models
import test_merge_vocabulary as dense_models

from pt_tools.errors import PtError
from pt_tools.merge import lora_make
from pt_tools.merge.tensors import Checkpoint

JUNK = [None, True, False, 0, -1, 1, 3.5, 1e308, 10**30, -(10**20), "", "x", "(", "\ud800", [], {}, [1], [None], {"a": 1}, [[[]]],
        ["a", "b"], "0", float("nan")]


def places(value, path=()):
    """The path of every value in a JSON value."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def changed(value, rng):
    """A JSON value with one to three places removed, renamed or replaced by junk."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(list(places(value)))
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        how = rng.random()
        if how < 0.2:
            parent.pop(path[-1])
        elif how < 0.3 and isinstance(parent, dict):
            parent[rng.choice(["x", "\ud800", f"{path[-1]}2"])] = parent.pop(path[-1])
        else:
            parent[path[-1]] = json.loads(json.dumps(rng.choice(JUNK)))
    return value


def spoil(file, rng):
    if file.suffix == ".json":
        file.write_text(json.dumps(changed(json.loads(file.read_text()), rng)))
        return
    raw = file.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    if rng.random() < 0.7:
        header = json.dumps(changed(json.loads(raw[8:end]), rng)).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + raw[end:])
        return
    spoilt = bytearray(raw)
    for _ in range(3):
        spoilt[rng.randrange(min(len(spoilt), end + 32))] = rng.randrange(256)
    file.write_bytes(spoilt[:rng.randrange(len(spoilt))] if rng.random() < 0.3 else spoilt)


def dense(path, rng):
    """Two models to merge, one of them with everything that is read beside weights."""
    files = {"generation_config.json": dense_models.GENERATION, "tokenizer_config.json": '{"chat_template": "x{{ y }}"}'}
    a = dense_models.model(path / "a", seed=1, added=rng.choice([(), ["<y>"]]), rows=rng.choice([None, 8]), eos_token_id=2,
                           head=rng.random() < 0.5, files=files, num_hidden_layers=1, layer_types=["a"],
                           text_config=rng.choice([None, {"vocab_size": 5, "num_hidden_layers": 1}]))
    b = dense_models.model(path / "b", rng.choice([dense_models.WORDS, ["e", "c", "a", "b", "d"]]), seed=3,
                           added=rng.choice([(), ["<x>"]]), head=rng.random() < 0.5)
    more = {"tokenizer": rng.choice([None, "union", str(a), str(b)]), "pad_to_multiple_of": rng.choice([None, 8]),
            "chat_template": rng.choice([None, "auto"]), "method": rng.choice(["linear", "slerp", "nuslerp"])}
    return [a, b], lambda: dense_models.merge(path, a, b, **more)


def adapters(path, rng):
    """A base and two adapters, to bake or to concatenate."""
    base = lora_models.model(path / "base", {n: lora_models.draw(i, *s) for i, (n, s) in enumerate(lora_models.SHAPES.items())})
    parts = lora_models.pair(lora_models.Q, 24, 24) | lora_models.pair(lora_models.UP, 56, 24, seed=1)
    both = [lora_models.adapter(path / "one", parts, rank_pattern={"q_.*": 4}, alpha_pattern={"x": 1}, trainable_token_indices=[1]),
            lora_models.adapter(path / "two", lora_models.pair(lora_models.Q, 24, 24))]
    if rng.random() < 0.5:
        return [base, *both], lambda: lora_models.baked(path, base, *both)
    return both, lambda: lora_make.concatenate(both, [1, 2], path / "cat")


@pytest.mark.parametrize("seed", range(150))
def test_one_line_or_a_model(tmp_path, seed):
    rng = random.Random(seed)
    models, merge = rng.choice([dense, adapters])(tmp_path, rng)
    spoil(rng.choice(sorted(rng.choice(models).iterdir())), rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's would be on stderr beside the line
        try:
            merge()
        except PtError as error:
            assert str(error) and "\n" not in str(error)


def test_names_that_are_no_files(tmp_path):
    """Pipes and directories with the name of a weight file are not opened."""
    import os

    path = dense_models.model(tmp_path / "a")
    shutil.copytree(path, tmp_path / "b")
    os.mkfifo(path / "more.safetensors")
    (path / "other.safetensors").mkdir()
    assert Checkpoint(path).tensors.keys() == Checkpoint(tmp_path / "b").tensors.keys()
    os.rename(path / "model.safetensors", path / "weights.safetensors")
    assert Checkpoint(path).tensors.keys() == Checkpoint(tmp_path / "b").tensors.keys()
