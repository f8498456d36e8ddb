"""TERM to a real training process: exit 75, nothing half-made, and the same line again ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SUM = {"role": "user", "content": "What is 2 plus 3?"}
RIGHT, WRONG = ({"role": "assistant", "content": f"The answer is {n}."} for n in (5, 6))
ROWS = {
    "pt-sft": [{"messages": [{**SUM, "content": f"What is {i} plus 3?"}, RIGHT]} for i in range(64)],
    "pt-dpo": [{"prompt": [SUM], "chosen": [RIGHT], "rejected": [WRONG]}] * 64,
    "pt-rlvr": [{"id": str(i), "prompt": [{**SUM, "content": f"What is {i} plus 3?"}],
                 "verifier": {"name": "math", "answer": str(i + 3)}} for i in range(64)]}
FLAGS = {"pt-sft": ["--batch-size", "8", "--max-steps", "60"], "pt-dpo": ["--batch-size", "8", "--max-steps", "60"],
         "pt-rlvr": ["--batch-size", "256", "--group-size", "8", "--max-steps", "2", "--max-new-tokens", "160"]}


def start(name, tmp_path, policy, out):
    argv = [BIN / name, "rows.jsonl", "-m", policy, "-o", out, "--lr", "1e-3", "--threads", "1", "--save-every", "0", *FLAGS[name]]
    return subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def lines(path):
    return path.read_text().count("\n") if path.exists() else -1


@pytest.mark.parametrize("name", ROWS)
def test_term_then_the_same_line(tmp_path, policy, name):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    whole = start(name, tmp_path, policy, "whole")
    assert whole.wait(timeout=200) == 0, whole.stderr.read()

    child = start(name, tmp_path, policy, "out")
    metrics = tmp_path / "out.run/metrics.jsonl"
    # pt-rlvr is stopped inside its first rollout: the run has begun, and no step has been made.
    wanted = 0 if name == "pt-rlvr" else 3
    deadline = time.monotonic() + 120
    while lines(metrics) < wanted and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=200) == 75
    assert child.stdout.read() == "" and "run the same line again" in child.stderr.read()
    assert not (tmp_path / "out").exists()
    saved = [path.name for path in (tmp_path / "out.run/checkpoints").glob("checkpoint-*")]
    assert len(saved) == 1 and (saved == ["checkpoint-0"]) == (name == "pt-rlvr")

    again = start(name, tmp_path, policy, "out")
    assert again.wait(timeout=200) == 0 and again.stdout.read() == "out\n"
    for file in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert not (tmp_path / "out.run").exists()
