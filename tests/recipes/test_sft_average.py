"""make tulu3 SFT_AVERAGE=K: what preference tuning starts from is the mean of the last K SFT checkpoints."""

import json

import numpy as np
from safetensors.numpy import load_file
from test_tulu3 import commands, make

AVERAGED = {"SFT_AVERAGE": "3", "SFT_SAVE_FLAGS": "--save-every 3", "SEED": "4"}


def test_the_sft_model_is_the_mean_of_the_last_checkpoints(tmp_path):
    path = tmp_path / "tiny/tulu3"
    assert commands(make(path / "sft/MANIFEST.json", RUNS=tmp_path, **AVERAGED))[-2:] == ["pt-sft", "pt-merge"]
    saved = path / "sft.last3.run/checkpoints"
    assert sorted(one.name for one in saved.iterdir()) == ["checkpoint-6", "checkpoint-9"]
    last = (saved / "checkpoint-6", saved / "checkpoint-9", path / "sft.last3")
    members = [load_file(one / "model.safetensors") for one in last]
    mean = load_file(path / "sft/model.safetensors")
    for name, value in mean.items():
        stored = [one.get(name, one.get("lm_head.weight")) for one in members]
        assert len({one.tobytes() for one in stored}) == 3, name
        wanted = np.mean(np.stack(stored).astype(np.float64), axis=0)
        assert np.abs(value - wanted).max() <= 1e-6 * np.abs(wanted).max(), name
    assert json.loads((path / "sft/MANIFEST.json").read_bytes())["final"]["method"] == "last"
    assert commands(make(path / "sft/MANIFEST.json", RUNS=tmp_path, **AVERAGED)) == []


def test_what_comes_after_starts_from_the_mean_and_the_table_has_the_training(tmp_path):
    lines = make("-n", "tulu3", RUNS=tmp_path, **AVERAGED).replace("\\\n", " ").splitlines()
    models = {line.split()[0]: line.split(" -m ")[1].split()[0] for line in lines if " -m " in line}
    assert models["pt-dpo"] == f"{tmp_path}/tiny/tulu3/sft"
    (report,) = (line for line in lines if line.startswith("python scripts/report.py -o "))
    assert f"--part sft {tmp_path}/tiny/tulu3/sft.last3 " in report


def test_without_it_nothing_is_averaged(tmp_path):
    text = make("-n", "tulu3", RUNS=tmp_path, SEED="4")
    assert "pt-merge" not in text and "keep-checkpoints" not in text and "sft.last" not in text
