"""The recipe as a user runs it, with a few steps a stage: what make does, not what the model learns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("base", "sft", "dpo", "rlvr")
SMALL = {
    "LEARNED": "", "EVAL_SAMPLES": "1", "POOL_SFT": "2", "POOL_BASE": "1", "EVAL_FLAGS": "--max-new-tokens 16",
    "POOL_FLAGS": "--max-new-tokens 24", "BASE_FLAGS": "--lr 2e-3 --batch-size 64 --max-steps 60 --max-length 64",
    "SFT_FLAGS": "--lr 1e-3 --batch-size 32 --max-steps 10 --max-length 64",
    "DPO_FLAGS": "--lr 1e-4 --batch-size 16 --max-steps 3 --beta 5 --max-length 64",
    "RLVR_FLAGS": "--lr 1e-4 --batch-size 32 --group-size 4 --max-steps 2 --max-new-tokens 16"}


def make(*goals, **variables):
    """Run make with few steps; returns what it printed, command lines and all."""
    settings = [f"{k}={v}" for k, v in {**SMALL, **variables}.items()]
    done = subprocess.run(["make", f"VENV={sys.prefix}", *goals, *settings], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "MAKEFLAGS": ""})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def commands(text: str) -> list[str]:
    """The stages among the lines that make printed."""
    return [line.split()[0] for line in text.splitlines() if line.startswith("pt-")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    text = make("tulu3", RUNS=path, SEED="4")
    assert {"pt-sft", "pt-dpo", "pt-rlvr", "pt-sample", "pt-score", "pt-eval", "pt-curate"} <= set(commands(text))
    return path


def test_table(runs):
    table = json.loads((runs / "tiny/tulu3/table.json").read_text())
    assert (table["recipe"], table["scale"], table["seed"]) == ("tulu3", "tiny", 4)
    assert [stage["name"] for stage in table["stages"]] == list(STAGES)
    for stage in table["stages"]:
        assert set(stage) == {"name", "model", "seconds", "rows", "domains", "mean", "extra"}
        assert set(stage["domains"]) == {"arithmetic", "strings", "constraints"}
        for score in (*stage["domains"].values(), stage["mean"]):
            assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1
        assert stage["mean"]["mean"] == pytest.approx(sum(d["mean"] for d in stage["domains"].values()) / 3, abs=1e-6)
        rows = stage["rows"]
        assert rows["in"] == rows["out"] + rows["dropped"] + rows["errored"] > 0 and stage["seconds"] > 0
    assert "win_rate_over_sft" in table["stages"][2]["extra"]


@pytest.mark.parametrize("scale", ("tiny", "real", "8b", "70b"))
def test_an_interrupted_make_removes_no_output(tmp_path, scale):
    """make deletes what it was making when INT or TERM comes, unless the target is precious: all that pt-tools makes is."""
    done = subprocess.run(["make", "-npq", "tulu3", f"VENV={sys.prefix}", f"SCALE={scale}", f"RUNS={tmp_path}", f"DATA={tmp_path}"],
                          cwd=ROOT, capture_output=True, text=True)
    precious = re.search(r"^\.PRECIOUS: (.*)$", done.stdout, re.M)[1].split()
    rules = re.findall(r"^([^#\s.$][^:\n]*):.*\n((?:[#\t].*\n)+)", done.stdout, re.M)
    made = [target for target, recipe in rules if re.search(r"^\t\s*(\$\(RUN\) )?pt-", recipe, re.M)]
    assert len(made) > 15 and set(made) <= set(precious)


def test_second_make_runs_no_stage(runs):
    assert commands(make("tulu3", RUNS=runs, SEED="4")) == []


def test_a_changed_input_rebuilds_what_depends_on_it(runs):
    path = runs / "tiny/tulu3"
    before = {stage: (path / stage / "MANIFEST.json").stat().st_mtime_ns for stage in STAGES}
    prompts = path / "data/rlvr.jsonl"
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:-1]))
    ran = make("tulu3", RUNS=runs, SEED="4")
    after = {stage: (path / stage / "MANIFEST.json").stat().st_mtime_ns for stage in STAGES}
    assert [stage for stage in STAGES if after[stage] != before[stage]] == ["rlvr"]
    assert commands(ran) == ["pt-curate", "pt-rlvr", "pt-sample", "pt-score", "pt-eval"]


def test_a_touched_input_works_but_changes_nothing(runs):
    path = runs / "tiny/tulu3"
    digests = [(path / stage / "model.safetensors").read_bytes() for stage in STAGES]
    (path / "data/prompts.jsonl").touch()
    ran = commands(make("tulu3", RUNS=runs, SEED="4"))
    assert "pt-sft" not in ran and "pt-dpo" in ran
    assert [(path / stage / "model.safetensors").read_bytes() for stage in STAGES] == digests


def test_a_setting_rebuilds(runs):
    path = runs / "tiny/tulu3"
    before = (path / "sft/model.safetensors").read_bytes(), (path / "rlvr/model.safetensors").read_bytes()
    make("tulu3", RUNS=runs, SEED="4", RLVR_FLAGS=SMALL["RLVR_FLAGS"].replace("1e-4", "3e-4"))
    assert (path / "sft/model.safetensors").read_bytes() == before[0]
    assert (path / "rlvr/model.safetensors").read_bytes() != before[1]


@pytest.mark.parametrize("scale, words", [
    ("8b", ["meta-llama/Llama-3.1-8B", "allenai/tulu-3-sft-mixture", "--lr 5e-6", "--lr 5e-7", "--beta 5", "--kl 0.01"]),
    ("70b", ["meta-llama/Llama-3.1-70B", "allenai/llama-3.1-tulu-3-70b-preference-mixture", "--lr 2e-6", "--lr 2e-7", "--kl 0.07"])])
def test_published_scales_print_a_script_of_valid_commands(tmp_path, scale, words):
    """make -n prints a script that bash reads, and every command line of it parses (checked with --print-config)."""
    text = subprocess.run(["make", "-n", "tulu3", f"VENV={sys.prefix}", f"SCALE={scale}", f"RUNS={tmp_path}"], cwd=ROOT,
                          capture_output=True, text=True, check=True).stdout
    assert all(word in text for word in words)
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("pt-")]
    assert len(lines) > 15
    script = "\n".join(f"{line} --print-config >/dev/null" for line in lines)
    done = subprocess.run(["bash", "-eu", "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr


def test_a_base_that_has_not_learned_stops_with_a_message(tmp_path):
    score = {"mean": 0.05, "low": 0.0, "high": 0.1, "n": 300}
    (tmp_path / "base.json").write_text(json.dumps({"domains": {"arithmetic": score}}))
    done = subprocess.run([sys.executable, ROOT / "scripts/tiny/learned.py", tmp_path / "base.json", "arithmetic=0.2"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "the base model has not learned arithmetic: pass@1 is 0.050" in done.stderr


def test_a_changed_setting_reaches_its_stage_and_no_other(runs):
    path = runs / "tiny/tulu3"
    before = {stage: (path / stage / "model.safetensors").stat().st_ino for stage in STAGES[:3]}
    make("tulu3", RUNS=runs, SEED="4", EVAL_SAMPLES="2")
    assert len(json.loads((path / "eval/dpo.samples.jsonl").open().readline())["completions"]) == 2
    assert before == {stage: (path / stage / "model.safetensors").stat().st_ino for stage in STAGES[:3]}
    assert commands(make("tulu3", RUNS=runs, SEED="4", EVAL_SAMPLES="2")) == []


@pytest.mark.slow
def test_real_data(data, tmp_path):
    """Every stage changes the weights that it was given, and its rows add up."""
    text = subprocess.run(["make", f"VENV={sys.prefix}", "tulu3-real", f"DATA={data}", f"RUNS={tmp_path}"], cwd=ROOT, check=True,
                          capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""}).stdout
    path = tmp_path / "real/tulu3"
    assert "pt-rlvr" in text and len({(path / stage / "model.safetensors").read_bytes() for stage in STAGES}) == 4
    for stage in json.loads((path / "table.json").read_text())["stages"]:
        assert stage["rows"]["in"] == stage["rows"]["out"] + stage["rows"]["dropped"] > 0 and stage["rows"]["errored"] == 0
    steps = [json.loads(line) for line in (path / "rlvr/metrics.jsonl").read_text().splitlines()]
    assert sum(step["trained_completions"] for step in steps) > 0 and all(step["masked"] == 0 for step in steps)
