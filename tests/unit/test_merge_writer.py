"""The files of a merge: where tensors go, what other libraries read there, what a file system may lack."""

import errno
import hashlib
import json
import os
import random
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pt_tools import stop
from pt_tools.errors import Exhausted, Stopped
from pt_tools.merge import engine, writer
from pt_tools.merge.hashing import Hasher
from pt_tools.merge.method import Parameters
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.simple import Copy, Linear
from pt_tools.merge.tensors import Checkpoint

MIXED = {"b": torch.tensor([True, False, True]), "h": torch.randn(7, 3).bfloat16(), "l": torch.arange(5), "f": torch.randn(3, 5),
         "d": torch.randn(3, dtype=torch.float64), "u": torch.tensor(3, dtype=torch.int16), "e": torch.zeros(0, 4),
         "ü \"quoted\"": torch.randn(2).half()}


def copied(path, tensors, shard_size=5_000_000_000, **more):
    """A plan that copies all of these tensors, which were saved beside it."""
    save_file(tensors, path / "in.safetensors")
    found = Checkpoint(path / "in.safetensors").tensors
    items = [Item(name, found[name].dtype, found[name].shape, (Source(found[name]),), None, Parameters(), Copy()) for name in tensors]
    return Plan(items, shard_size, **more)


def header(path) -> tuple[dict, int]:
    raw = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8:8 + length]), 8 + length


@pytest.mark.parametrize("shard_size", [5_000_000_000, 40, 1])
def test_mixed_formats_are_aligned_and_read_by_the_formats_own_library(tmp_path, shard_size):
    done = engine.run(copied(tmp_path, MIXED, shard_size), tmp_path / "out", tmp_path / "scratch")
    seen = {}
    for file in done["files"]:
        entries, start = header(tmp_path / "out" / file)
        assert start % 8 == 0 and entries.pop("__metadata__") == {"format": "pt"}
        with safe_open(tmp_path / "out" / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            for name in opened.keys():
                seen[name] = opened.get_tensor(name)
                assert (start + entries[name]["data_offsets"][0]) % max(1, seen[name].element_size()) == 0, name
    assert seen.keys() == MIXED.keys()
    assert all(seen[name].dtype == t.dtype and torch.equal(seen[name], t) for name, t in MIXED.items())


def test_shards_and_their_index(tmp_path):
    tensors = {f"t{i}": torch.full((25,), float(i)) for i in range(10)}  # 100 bytes each
    done = engine.run(copied(tmp_path, tensors, 300), tmp_path / "out", tmp_path / "scratch")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 1000} and done["bytes"] == 1000
    names = [f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert list(done["files"]) == names
    assert index["weight_map"] == {f"t{i}": names[i // 3] for i in range(10)}
    for name in names:
        assert load_file(tmp_path / "out" / name).keys() == {t for t, file in index["weight_map"].items() if file == name}


@pytest.mark.parametrize("sizes,shard_size,want", [
    ([100], 100, [[0]]), ([100], 99, [[0]]), ([100, 100], 200, [[0, 1]]), ([100, 100], 199, [[0], [1]]),
    ([40, 500, 40, 40], 100, [[0], [1], [2, 3]]), ([500, 40], 100, [[0], [1]]), ([0, 500, 0, 500], 100, [[0], [1], [2], [3]]),
    ([60, 60, 40, 0, 4], 100, [[0], [1, 2, 3], [4]])])
def test_a_tensor_larger_than_a_shard_has_one_to_itself(sizes, shard_size, want):
    items = [Item(str(i), "F32", (size // 4,), (), None, Parameters(), Copy()) for i, size in enumerate(sizes)]
    places, files = writer.layout(items, shard_size, {})
    names = list(files)
    assert [[i for i, place in enumerate(places) if place.file == name] for name in names] == want
    assert len(names) == len(want) and (names == ["model.safetensors"]) == (len(want) == 1)
    for number, (head, size) in enumerate(files.values()):
        assert size == len(head) + sum(sizes[i] for i in want[number])


@pytest.mark.parametrize("umask,mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        engine.run(copied(tmp_path, MIXED, 40), tmp_path / "out", tmp_path / "scratch")
    finally:
        os.umask(before)
    made = sorted((tmp_path / "out").iterdir())
    assert len(made) > 3 and {stat.S_IMODE(path.stat().st_mode) for path in made} == {mode}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV])
def test_a_file_system_without_links_gets_the_same_files(tmp_path, monkeypatch, code):
    plan = copied(tmp_path, MIXED, 40)
    want = engine.run(plan, tmp_path / "want", tmp_path / "s0")["files"]

    def refused(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(os, "link", refused)
    if code == errno.EXDEV:
        monkeypatch.setattr(os, "rename", refused)
    assert engine.run(plan, tmp_path / "out", tmp_path / "s1")["files"] == want
    kept = sorted(path.name for path in (tmp_path / "s1/merge").glob("*.safetensors"))
    assert kept == (sorted(want) if code == errno.EXDEV else [])
    monkeypatch.undo()
    assert engine.run(plan, tmp_path / "again", tmp_path / "s1")["files"] == want


def test_scratch_on_another_file_system(tmp_path):
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    import tempfile

    plan = copied(tmp_path, MIXED)
    want = engine.run(plan, tmp_path / "want", tmp_path / "s0")["files"]
    with tempfile.TemporaryDirectory(dir=shared) as scratch:
        assert engine.run(plan, tmp_path / "out", scratch)["files"] == want
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "want/model.safetensors").read_bytes()


@pytest.mark.parametrize("harm", ["journal", "half", "size", "gone", "other"])
def test_scratch_that_is_no_use_is_made_anew(tmp_path, harm):
    plan = copied(tmp_path, MIXED, 40)
    want = engine.run(plan, tmp_path / "want", tmp_path / "s")["files"]
    scratch = tmp_path / "s/merge"
    journal, file = scratch / "journal", sorted(scratch.glob("*.safetensors"))[0]
    file.unlink()  # the link in want/ stays what it is
    file.write_bytes(b"\0" * (tmp_path / "want" / file.name).stat().st_size)
    if harm == "journal":
        journal.write_bytes(b"\xff\n")
    elif harm == "half":  # only the first line was written, and a part of the second
        journal.write_bytes(b"\n".join(journal.read_bytes().split(b"\n")[:1]) + b'\n{"item": 3, "blo')
    elif harm == "size":
        file.write_bytes(b"")
    elif harm == "gone":
        file.unlink()
    else:
        plan = Plan(plan.items, plan.shard_size, plan.metadata, seed=1)
    assert engine.run(plan, tmp_path / "out", tmp_path / "s")["files"] == want
    assert all((tmp_path / "out" / n).read_bytes() == (tmp_path / "want" / n).read_bytes() for n in want)


def test_transformers_loads_several_shards(policy, tmp_path):
    import shutil

    from transformers import AutoModelForCausalLM

    tensors = Checkpoint(policy).tensors
    items = [Item(n, t.dtype, t.shape, (Source(t), Source(t)), None, Parameters(({"weight": 0.25}, {"weight": 0.75}),
                  {"normalize": True}), Linear()) for n, t in tensors.items()]
    done = engine.run(Plan(items, 200_000), tmp_path / "out", tmp_path / "scratch", threads=2)
    assert len(done["files"]) > 3
    shutil.copy(Path(policy) / "config.json", tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    whole = AutoModelForCausalLM.from_pretrained(policy).state_dict()
    assert all(torch.allclose(value, whole[name], rtol=1e-6, atol=0) for name, value in model.state_dict().items())


def test_bytes_of_one_tensor_written_in_any_order(tmp_path):
    data = np.arange(1000, dtype=np.float32)
    items = [Item("x", "F32", (1000,), (), None, Parameters(), Copy())]
    files = writer.Writer(items, 1 << 30, {}, "x", tmp_path / "scratch")
    for start in (3000, 0, 1000, 2000):
        files.write(0, start, data.view(np.uint8)[start:start + 1000])
    files.advance(0, 1, 4000)
    files.finished(0, None)
    made = files.publish(tmp_path / "out")
    files.close()
    assert np.array_equal(load_file(made["model.safetensors"])["x"].numpy(), data)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shard_size", [1 << 30, 600_000, 40])
def test_digests_are_those_of_the_bytes(tmp_path, monkeypatch, threads, shard_size):
    """Hashed while they are filled, in another order than that of their parts, and from the start after a stop."""
    tensors = MIXED | {f"t{i}": torch.randn(400, 700).to([torch.float32, torch.bfloat16, torch.float64][i % 3]) for i in range(5)}
    plan = copied(tmp_path, tensors, shard_size)
    for number, stopped in enumerate((None, 3, 7)):
        out, scratch = tmp_path / f"out{number}", tmp_path / f"scratch{number}"
        if stopped is not None:
            calls = iter(range(1000))
            monkeypatch.setattr(stop, "check", lambda: (_ for _ in ()).throw(Stopped("x")) if next(calls) == stopped else None)
            with pytest.raises(Stopped):
                engine.run(plan, out, scratch, threads=threads)
            monkeypatch.undo()
        done = engine.run(plan, out, scratch, threads=threads)["files"]
        assert done == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.safetensors")}


def test_a_hash_of_what_is_not_there_fails(tmp_path):
    (tmp_path / "x").write_bytes(b"1234")
    hasher = Hasher(tmp_path, {"x": 9})
    hasher.wrote("x", 0, 3, b"123")
    with pytest.raises(OSError, match="x ends before it should"):
        hasher.digests()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_hash_of_ranges_in_any_order(tmp_path, threads):
    """Every byte once, whoever brings it; what is in memory is believed, the rest is read."""
    data, rng = random.Random(0).randbytes(300_000), random.Random(1)
    (tmp_path / "x").write_bytes(data)
    for case in range(30):
        ends = sorted({*rng.sample(range(1, len(data)), 60), len(data)})
        ranges = list(zip([0, *ends], ends))
        rng.shuffle(ranges)
        del ranges[:case % 3]  # the rest is taken at the end
        hasher = Hasher(tmp_path, {"x": len(data)})
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda one: hasher.wrote("x", *one, data[slice(*one)] if one[0] % 2 else None), ranges))
        assert hasher.digests() == {"x": hashlib.sha256(data).hexdigest()}


def test_what_comes_in_its_turn_is_not_read_again(tmp_path):
    hasher = Hasher(tmp_path, {"missing": 6})
    hasher.wrote("missing", 0, 2, b"ab")
    hasher.wrote("missing", 2, 6, b"cdef")
    assert hasher.digests() == {"missing": hashlib.sha256(b"abcdef").hexdigest()}


def test_a_full_disk_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: type("Disk", (), {"f_blocks": 9, "f_bavail": 0, "f_frsize": real.f_frsize}))
    with pytest.raises(Exhausted, match=r"0.00 GB to write, 0.00 GB free"):
        engine.run(copied(tmp_path, MIXED), tmp_path / "out", tmp_path / "scratch")
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
