"""A first start hashes its inputs while it reads them: the same key, kills before it is known, inputs that change."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
from safetensors.numpy import save_file

from pt_tools import digestcache, outdir
from pt_tools.merge.hashing import COPIES, Hasher, Inputs
from pt_tools.merge.tensors import Tensor

LINE = ("linear", "a", "b", "-w", "0.25", "0.75", "-o", "out", "--threads", "2")
START = """
import hashlib, json, os, shutil, signal, sys
from pt_tools import digestcache, job, latekey, outdir, stop
from pt_tools.merge import engine, run, writer
digestcache.LEAST, digestcache.SETTLED_S = 1000, 0
engine.BLOCK, writer.SYNC_BYTES = 1 << 10, 1 << 12
read, real = [], hashlib.file_digest
hashlib.file_digest = lambda file, kind: read.append(file.name) or real(file, kind)
def before(owner, name, act, count=1):
    known, calls = getattr(owner, name), iter(range(1 << 30))
    setattr(owner, name, lambda *a, **k: (act() if next(calls) == count - 1 else None, known(*a, **k))[1])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
{harm}
sys.argv = ["pt-merge", *{words!r}]
from pt_tools.commands.merge import main
try:
    main()
finally:
    print(json.dumps(read))
"""


@pytest.fixture
def models(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        tensors = {f"t{i}": rng.standard_normal((40, 300)).astype(np.float32) for i in range(4)} | {"one": np.float32([1])}
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
    return tmp_path


def start(path, *more, harm="", check=0, cache="cache"):
    """pt-merge in a process for which files of a kilobyte are large; returns stderr and what was hashed apart."""
    code = START.format(words=[*LINE, *more], harm=harm)
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True,
                          env={**os.environ, "XDG_CACHE_HOME": str(path / cache)})
    assert done.returncode == check, done.stderr
    hashed = json.loads(done.stdout.splitlines()[-1]) if check >= 0 else []
    return done.stderr, {os.path.relpath(path / file, path) for file in hashed if "safetensors" in file}


def key(path):
    return json.loads((path / "out" / outdir.MANIFEST).read_text())["key"]


def test_inputs_are_read_once_and_the_key_is_the_same(models):
    _, hashed = start(models)
    assert not hashed
    first = key(models)
    said, hashed = start(models, cache="another")  # there is an output now, so inputs are hashed before
    assert "nothing to do" in said and {"a/model.safetensors", "b/model.safetensors"} <= hashed
    os.rename(models / "out", models / "before")
    start(models, harm="outdir.Out.is_new = lambda self: False")
    assert key(models) == first
    assert (models / "out/model.safetensors").read_bytes() == (models / "before/model.safetensors").read_bytes()


KILLS = {"in the middle": "before(writer.Writer, 'advance', die, 30)", "before the key": "before(latekey.LateKey, 'settle', die)",
         "before the end": "before(outdir.Out, '_replace', die)"}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_start_killed_before_its_key_was_known_is_resumed(models, kill):
    start(models)
    want = key(models), (models / "out/model.safetensors").read_bytes()
    os.rename(models / "out", models / "before")
    start(models, harm=kill, check=-signal.SIGKILL, cache="none")
    assert outdir.digest_of(json.loads((models / "out.run/key.json").read_text())) != want[0] and not (models / "out").exists()
    said, _ = start(models, "--resume", "must", cache="none")
    assert "going on" in said or "advance" in kill
    assert (key(models), (models / "out/model.safetensors").read_bytes()) == want and not (models / "out.run").exists()


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_an_input_that_changed_after_the_kill_is_noticed(models, kill):
    start(models, harm=kill, check=-signal.SIGKILL)
    file = models / "b/model.safetensors"
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of the status tells
    said, _ = start(models, "--resume", "must", check=2)
    assert "made by another run: inputs.models" in said
    said, _ = start(models)
    assert "starting clean" in said
    got = key(models), (models / "out/model.safetensors").read_bytes()
    os.rename(models / "out", models / "before")
    start(models)
    assert (key(models), (models / "out/model.safetensors").read_bytes()) == got


def test_another_run_is_told_by_what_differs(models):
    start(models, harm=KILLS["in the middle"], check=-signal.SIGKILL)
    said, _ = start(models, "--force")
    assert "made by another run (options.force: False → True); moved" in said


@pytest.mark.parametrize("file", ["b/model.safetensors", "b/config.json"])
def test_an_input_that_changes_before_it_is_hashed_is_noticed(models, file):
    """After the last tensor was merged: the output would have the key of an input that it is not made of."""
    harm = f"before(latekey.LateKey, 'settle', lambda: shutil.copy('{file}', 'x') and open('{file}', 'ab').write(b' '))"
    said, _ = start(models, harm=harm, check=4)
    assert "an input changed while it was read; run the same line again" in said and not (models / "out").exists()
    start(models, check=0 if file.endswith("json") else 4)  # weights with a byte too many are refused as always


@pytest.mark.parametrize("least,settled", [(1 << 30, 0), (1000, 1e9)])
def test_small_and_new_files_are_hashed_before(models, least, settled):
    """A change of what is not settled need not show in its stat."""
    _, hashed = start(models, harm=f"digestcache.LEAST, digestcache.SETTLED_S = {least}, {settled}")
    assert {"a/model.safetensors", "b/model.safetensors"} <= hashed


@pytest.mark.parametrize("order", ["as they lie", "backwards", "with a gap"])
def test_inputs_have_the_digests_of_their_bytes(tmp_path, monkeypatch, order):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digestcache, "LEAST", 4)
    monkeypatch.setattr(digestcache, "SETTLED_S", 0)
    path, data = tmp_path / "m.safetensors", np.random.default_rng(0).bytes(1 << 20)
    path.write_bytes(data)
    tensor = Tensor("x", "U8", (len(data) - 100,), str(path), 100, len(data) - 100)
    other = Tensor("y", "U8", (1,), str(tmp_path / "other"), 0, 1)
    inputs = Inputs([tensor, other], {str(path)})
    starts = range(0, tensor.nbytes, 1 << 16)
    for begin in {"as they lie": starts, "backwards": starts[::-1], "with a gap": starts[5:]}[order]:
        for _ in range(2):  # a pass for a statistic, and the last one
            inputs.read(tensor, begin, np.frombuffer(data, np.uint8)[100 + begin:100 + begin + (1 << 16)])
    inputs.read(other, 0, b"1")
    inputs.remember()
    assert digestcache.load(path.stat(), "xxh128") == xxhash.xxh3_128_hexdigest(data) == outdir.file_digest(path, "xxh128")


def test_copies_of_early_ranges_are_bounded_and_given_back(tmp_path):
    data = np.random.default_rng(0).bytes(2 * COPIES)
    Path(tmp_path, "x").write_bytes(data)
    hasher, size = Hasher(tmp_path, {"x": len(data)}), 1 << 20
    for start in range(size, len(data), size):
        hasher.wrote("x", start, start + size, data[start:start + size])
    held = sum(len(copy or b"") for _, copy in hasher._files["x"].whole.values())
    assert held == COPIES and hasher._room == 0
    for _ in range(len(data) // size):
        hasher.wrote("x", 0, size, data[:size])
    assert hasher._room == COPIES and not hasher._files["x"].whole
    assert hasher.digests() == {"x": hashlib.sha256(data).hexdigest()}
