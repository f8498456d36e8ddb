"""Merging as a whole: against naive twins, whatever threads and shards, after kills, with bad inputs."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pt_tools import stop
from pt_tools.errors import BadModel, Diverged, Stopped
from pt_tools.merge import engine
from pt_tools.merge.geometry import NuSlerp
from pt_tools.merge.magnitude import DareLinear, DareTies, Ties
from pt_tools.merge.method import Parameters
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.simple import Copy, Linear, TaskArithmetic
from pt_tools.merge.sphere import Slerp
from pt_tools.merge.tensors import Checkpoint

SHAPES = {"embed": (900, 700), "norm": (700,), "empty": (0, 4), "scalar": (), "mlp": (700, 401)}


def models(path, count=3, dtype=torch.bfloat16, noise=0.02):
    """`count` fine-tunes of one base, the base last."""
    torch.manual_seed(7)
    base = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    tensors = [{name: (t + noise * torch.randn(t.shape) * (i < count - 1)).to(dtype) for name, t in base.items()}
               for i in range(count)]
    for i, one in enumerate(tensors):
        save_file(one, path / f"m{i}.safetensors")
    return tensors, [Checkpoint(path / f"m{i}.safetensors") for i in range(count)]


def plan_of(checkpoints, method, own, shared, dtype="BF16", base=True, **more):
    parameters = Parameters(tuple({**method.own, **one} for one in own), {**method.shared, **shared})
    method.check(parameters)
    last = checkpoints[-1]
    items = [Item(name, dtype, t.shape, tuple(Source(c.tensors[name]) for c in checkpoints[:len(own)]),
                  Source(last.tensors[name]) if base else None, parameters, method) for name, t in last.tensors.items()]
    return Plan(items, **more)


def merged(tmp_path, plan, **more):
    out = tmp_path / f"out{random.random()}"
    engine.run(plan, out, tmp_path / f"scratch{random.random()}", **more)
    tensors = {}
    for file in out.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def election(deltas, weights):
    """Sum and divisor over the entries that have the sign of the weighted sum."""
    weighted = [w * d for w, d in zip(weights, deltas)]
    sign = torch.where(sum(weighted, torch.zeros(())) >= 0, 1.0, -1.0)
    agree = [torch.sign(d) == sign for d in weighted]
    total = sum((d * a for d, a in zip(weighted, agree)), torch.zeros(()))
    return total, sum((w * a.float() for w, a in zip(weights, agree)), torch.zeros(()))


def trimmed(delta, density):
    """The k largest magnitudes, one at least; a stable sort puts equal ones in index order."""
    flat = delta.flatten()
    keep = torch.sort(flat.abs(), descending=True, stable=True).indices[:max(1, int(density * flat.numel()))]
    out = torch.zeros_like(flat)
    out[keep] = flat[keep]
    return out.view(delta.shape)


def test_linear_is_the_weighted_mean_rounded_once(tmp_path):
    tensors, checkpoints = models(tmp_path)
    w = torch.tensor([0.3, 0.9])
    out = merged(tmp_path, plan_of(checkpoints, Linear(), [{"weight": 0.3}, {"weight": 0.9}], {"normalize": True}, base=False))
    for name, got in out.items():
        first, second = (t[name].float() for t in tensors[:2])
        want = ((w[0] * first).double() + w[1].double() * second.double()).float() / (w[0] + w[1])  # fused multiply-add
        assert torch.equal(got, want.bfloat16()), name
    assert out.keys() == SHAPES.keys()


def test_task_arithmetic(tmp_path):
    tensors, checkpoints = models(tmp_path)
    out = merged(tmp_path, plan_of(checkpoints, TaskArithmetic(), [{"weight": 0.3}, {"weight": 0.9}],
                                   {"lambda": 1.5, "normalize": False}, "F32"))
    for name, got in out.items():
        a, b, base = (t[name].float() for t in tensors)
        want = base + torch.tensor(1.5) * (torch.tensor(0.3) * (a - base) + torch.tensor(0.9) * (b - base))
        assert torch.equal(got, want), name


@pytest.mark.parametrize("dtype,noise", [(torch.bfloat16, 0.02), (torch.float32, 0.02), (torch.float32, 0.0), (torch.float16, 9.0)])
@pytest.mark.parametrize("weights,normalize", [((0.3, 0.9), True), ((0.5, -0.5), True), ((1.0, 0.4), False)])
def test_ties_keeps_exactly_k_and_elects_signs(tmp_path, dtype, noise, weights, normalize):
    tensors, checkpoints = models(tmp_path, dtype=dtype, noise=noise)
    own = [{"weight": weights[0], "density": 0.5}, {"weight": weights[1], "density": 0.1}]
    out = merged(tmp_path, plan_of(checkpoints, Ties(), own, {"lambda": 1.0, "normalize": normalize}, "F32"), threads=2)
    for name, got in out.items():
        a, b, base = (t[name].float() for t in tensors)
        total, divisor = election([trimmed(a - base, 0.5), trimmed(b - base, 0.1)], [torch.tensor(w) for w in weights])
        divisor = torch.where(divisor.abs() < 1e-8, 1.0, divisor) if normalize else 1.0
        assert torch.equal(got, base + total / divisor), name


def test_slerp_and_nuslerp(tmp_path):
    tensors, checkpoints = models(tmp_path, noise=2.0)
    slerp = merged(tmp_path, plan_of(checkpoints, Slerp(), [{}, {}], {"t": 0.3}, "F32", base=False))
    nuslerp = merged(tmp_path, plan_of(checkpoints, NuSlerp(), [{"weight": 1.0}, {"weight": 3.0}], NuSlerp.shared, "F32"))

    def arc(a, b, t):
        cosine = (a.flatten() @ b.flatten() / (a.norm() * b.norm())).clamp(-1, 1)
        angle = torch.acos(cosine)
        if cosine.abs() > 0.9995:
            return (1 - t) * a + t * b
        return torch.sin((1 - t) * angle) / torch.sin(angle) * a + torch.sin(t * angle) / torch.sin(angle) * b

    for name in slerp.keys() - {"empty"}:
        a, b, base = (t[name].double() for t in tensors)
        assert torch.allclose(slerp[name].double(), arc(a, b, 0.3), rtol=1e-5, atol=1e-5), name
        assert torch.allclose(nuslerp[name].double(), base + arc(a - base, b - base, 0.75), rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_dare_keeps_its_share_and_rescales(tmp_path, rescale):
    tensors, checkpoints = models(tmp_path, count=2, dtype=torch.float32)
    shared = {"lambda": 1.0, "normalize": False, "rescale": rescale}
    out = merged(tmp_path, plan_of(checkpoints, DareLinear(), [{"weight": 1.0, "density": 0.25}], shared, "F32", seed=3))
    delta, got = tensors[0]["embed"] - tensors[1]["embed"], out["embed"] - tensors[1]["embed"]
    kept = got != 0
    assert abs(kept.float().mean() - 0.25) < 0.003
    factor = {"inverse": 4.0, "none": 1.0, "l1": float(delta.abs().sum() / delta[kept].abs().sum())}[rescale]
    assert torch.allclose(got[kept], factor * delta[kept], atol=1e-5)
    assert abs(factor - {"inverse": 4, "none": 1, "l1": 4}[rescale]) < 0.1


def test_dare_masks_are_of_the_seed_the_tensor_and_the_model(tmp_path):
    _, checkpoints = models(tmp_path)
    shared = {"lambda": 1.0, "normalize": False, "rescale": "inverse"}
    one, two, other = (merged(tmp_path, plan_of([checkpoints[0], checkpoints[0], checkpoints[2]], DareLinear(), own, shared,
                                                "F32", seed=seed))["embed"]
                       for own, seed in (([{"weight": 1.0, "density": 0.5}] * 2, 1), ([{"weight": 1.0, "density": 0.5}] * 2, 2),
                                         ([{"weight": 1.0, "density": 0.5}, {"weight": 0.0, "density": 0.5}], 1)))
    assert not torch.equal(one, two) and not torch.equal(one, other)


CASES = [(Linear(), {"weight": 0.5}, {"normalize": True}), (Slerp(), {}, {"t": 0.3}),
         (Ties(), {"weight": 0.5, "density": 0.3}, {"lambda": 1.0, "normalize": True}),
         (DareTies(), {"weight": 0.5, "density": 0.3}, {"lambda": 1.0, "normalize": False, "rescale": "l1"})]


@pytest.mark.parametrize("method,own,shared", CASES, ids=lambda value: getattr(value, "name", ""))
def test_bytes_do_not_depend_on_threads_shards_or_order(tmp_path, method, own, shared):
    _, checkpoints = models(tmp_path, noise=1.0)
    want = merged(tmp_path, plan_of(checkpoints, method, [own] * 2, shared))
    for threads, shard_size in ((2, 5_000_000_000), (5, 600_000), (1, 1)):
        plan = plan_of(checkpoints, method, [own] * 2, shared, shard_size=shard_size)
        got = merged(tmp_path, Plan(plan.items[::-1], shard_size), threads=threads)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_copy_keeps_every_bit(tmp_path):
    raw = {"n": torch.arange(7), "b": torch.tensor([True, False, True]), "f": torch.randn(5, dtype=torch.float64)}
    save_file(raw, tmp_path / "m.safetensors")
    tensors = Checkpoint(tmp_path / "m.safetensors").tensors.values()
    out = merged(tmp_path, Plan([Item(t.name, t.dtype, t.shape, (Source(t),), None, Parameters(), Copy()) for t in tensors]))
    assert out.keys() == raw.keys()
    assert all(out[name].dtype == raw[name].dtype and torch.equal(out[name], raw[name]) for name in raw)


def test_rows_are_gathered_in_runs(tmp_path):
    raw = torch.randn(3000, 401)
    save_file({"e": raw}, tmp_path / "m.safetensors")
    tensor = Checkpoint(tmp_path / "m.safetensors").tensors["e"]
    rows = np.concatenate([np.arange(1500), np.random.default_rng(1).permutation(3000), [-1, -1, 2999, -1, 0]])
    parameters = Parameters(({"weight": 1.0},), {"normalize": True})
    out = merged(tmp_path, Plan([Item("e", "F32", (len(rows), 401), (Source(tensor, rows),), None, parameters, Linear())]))
    assert torch.equal(out["e"], torch.where(torch.tensor(rows)[:, None] < 0, 0.0, raw[torch.tensor(rows)]))


def test_nan_and_infinity_are_counted_and_refused(tmp_path):
    tensors, checkpoints = models(tmp_path)
    tensors[1]["mlp"].view(-1)[[3, 270_000, 280_000]] = torch.tensor([float("nan"), float("inf"), -float("inf")]).bfloat16()
    save_file(tensors[1], tmp_path / "m1.safetensors")
    plan = plan_of(checkpoints, Linear(), [{"weight": 0.5}] * 2, {"normalize": True}, base=False)
    with pytest.raises(BadModel, match="tensor mlp has NaN or infinite numbers: 3 in .*m1.safetensors"):
        engine.run(plan, tmp_path / "out", tmp_path / "scratch")
    done = engine.run(plan, tmp_path / "out", tmp_path / "scratch", force=True)
    assert done["nonfinite"] == {"mlp": 3}
    assert load_file(tmp_path / "out/model.safetensors")["mlp"].isfinite().logical_not().sum() == 3


@pytest.mark.parametrize("method", [Linear(), TaskArithmetic()])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0, 1), (1, -0.25), (0, 0.0001)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_input_is_named_whatever_the_weights_make_of_it(tmp_path, method, weights, bad):
    """These methods look at their results alone, so that no weight may hide what was read."""
    base = method.base == "required"
    for place in range(2 + base):
        tensors, checkpoints = models(tmp_path)
        tensors[place]["norm"][1] = bad
        save_file(tensors[place], tmp_path / f"m{place}.safetensors")
        plan = plan_of(checkpoints, method, [{"weight": weight} for weight in weights], {}, base=base)
        with pytest.raises(BadModel, match=rf"tensor norm has NaN or infinite numbers: 1 in \S*m{place}.safetensors"):
            engine.run(plan, tmp_path / "out", tmp_path / "scratch")


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("method", [Linear(), Slerp()])
def test_the_first_bad_tensor_is_the_one_that_is_named(tmp_path, threads, method):
    """Blocks of the next tensor are computed while those of the one before are still being written."""
    tensors, checkpoints = models(tmp_path)
    names = list(checkpoints[1].tensors)
    first, second = [name for name in names if name in ("scalar", "mlp", "norm")][:2]
    for name in (first, second):
        tensors[1][name].view(-1)[-1] = float("nan")
    save_file(tensors[1], tmp_path / "m1.safetensors")
    plan = plan_of(checkpoints, method, [{}] * 2, {}, base=False)
    for _ in range(3):  # also on a later start, which begins with what is there
        with pytest.raises(BadModel, match=f"tensor {first} has NaN or infinite numbers: 1 in .*m1.safetensors"):
            engine.run(plan, tmp_path / "out", tmp_path / "scratch", threads=threads)
    done = engine.run(plan, tmp_path / "out", tmp_path / "scratch", threads=threads, force=True)
    assert done["nonfinite"] == {first: 1, second: 1}


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    tensors, checkpoints = models(tmp_path)
    plan = plan_of(checkpoints, Linear(), [{"weight": 0.5}] * 2, {"normalize": True}, base=False)
    calls = iter(range(1000))
    monkeypatch.setattr(stop, "check", lambda: save_file(tensors[2], tmp_path / "m1.safetensors") if next(calls) == 3 else None)
    with pytest.raises(BadModel, match=r"m1.safetensors: it changed while it was read; run the same line again"):
        engine.run(plan, tmp_path / "out", tmp_path / "scratch")
    assert not (tmp_path / "out").exists()
    engine.run(plan, tmp_path / "out", tmp_path / "scratch", say=lambda line: pytest.fail(line))  # nothing of it is taken up


def test_a_result_too_large_for_its_format_is_refused(tmp_path):
    save_file({"x": torch.full((4,), 60000.0)}, tmp_path / "m.safetensors")
    plan = plan_of([Checkpoint(tmp_path / "m.safetensors")] * 2, Linear(), [{"weight": 1.0}] * 2, {"normalize": False}, "F16",
                   base=False)
    with pytest.raises(Diverged, match="tensor x: 4 results"):
        engine.run(plan, tmp_path / "out", tmp_path / "scratch")


def test_the_report(tmp_path):
    tensors, checkpoints = models(tmp_path)
    rows = []
    own = [{"weight": 0.5, "density": 0.25}] * 2
    engine.run(plan_of(checkpoints, Ties(), own, {"lambda": 1.0, "normalize": True}), tmp_path / "o", tmp_path / "s",
               report=rows.append)
    row = next(row for row in rows if row["tensor"] == "mlp")
    a, b, base = (t["mlp"].double() for t in tensors)
    assert row["kept"] == pytest.approx([0.25, 0.25], abs=1e-5)
    assert row["delta_norm"] == pytest.approx([float((a - base).norm()), float((b - base).norm())], rel=1e-5)
    assert row["cosine_to_base"][0] == pytest.approx(float((a * base).sum() / a.norm() / base.norm()), rel=1e-5)
    assert row["sign_conflicts"] == pytest.approx(float(((a - base) * (b - base) < 0).double().mean()), abs=1e-9)
    json.dumps(rows)


def test_a_stopped_run_goes_on_and_reports_everything_once(tmp_path, monkeypatch):
    _, checkpoints = models(tmp_path)
    plan = plan_of(checkpoints, Linear(), [{"weight": 0.5}] * 2, {"normalize": True})
    want = []
    engine.run(plan, tmp_path / "want", tmp_path / "s0", report=want.append)
    rows, calls = [], iter(range(1000))
    monkeypatch.setattr(stop, "check", lambda: (_ for _ in ()).throw(Stopped("stop")) if next(calls) == 4 else None)
    with pytest.raises(Stopped):
        engine.run(plan, tmp_path / "out", tmp_path / "s1", report=rows.append)
    said, again = [], []
    engine.run(plan, tmp_path / "out", tmp_path / "s1", report=again.append, say=said.append)
    assert said and again == want
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "want/model.safetensors").read_bytes()


KILLED = """
from pathlib import Path
from pt_tools.merge import engine, magnitude, writer
from pt_tools.merge.method import Parameters
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.tensors import Checkpoint
writer.SYNC_BYTES, engine.BLOCK = 1 << 14, 1 << 12
path = Path({path!r})
a, b, base = (Checkpoint(path / f"m{{i}}.safetensors").tensors for i in range(3))
parameters = Parameters(({{"weight": 0.5, "density": 0.3}},) * 2, magnitude.Ties.shared)
items = [Item(n, "BF16", t.shape, (Source(t), Source(b[n])), Source(base[n]), parameters, magnitude.Ties())
         for n, t in a.items()]
print("ready", flush=True)
engine.run(Plan(items), path / "out", path / "scratch", threads=2, say=lambda line: print(line, flush=True))
print("done", flush=True)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_any_moment_leave_what_a_next_run_finishes(tmp_path, kills):
    models(tmp_path, noise=1.0)
    code = KILLED.format(path=str(tmp_path))

    def start():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    process, began = start(), time.monotonic()
    assert process.communicate()[0].endswith("done\n")
    took, want = time.monotonic() - began, (tmp_path / "out/model.safetensors").read_bytes()
    resumed, draw = 0, random.Random(kills)
    for _ in range(kills):
        (tmp_path / "out/model.safetensors").unlink(missing_ok=True)
        process = start()
        time.sleep(draw.random() * took)
        process.send_signal(signal.SIGKILL)
        resumed += "going on" in process.communicate()[0]
        if draw.random() < 0.3:
            process = start()
            resumed += "going on" in process.communicate()[0]
            assert (tmp_path / "out/model.safetensors").read_bytes() == want
            (tmp_path / "scratch/merge/journal").unlink()
    start().communicate()
    assert (tmp_path / "out/model.safetensors").read_bytes() == want
    assert resumed


@pytest.mark.parametrize("report", [None, [].append])
def test_forced_counts_outlive_a_stop(tmp_path, monkeypatch, report):
    tensors, checkpoints = models(tmp_path)
    tensors[1]["embed"].view(-1)[5] = tensors[1]["mlp"].view(-1)[270_000] = float("nan")
    save_file(tensors[1], tmp_path / "m1.safetensors")
    plan = plan_of(checkpoints, Linear(), [{"weight": 0.5}] * 2, {"normalize": True}, base=False)
    for steps in range(2, 7):  # seven blocks in all
        calls = iter(range(1000))
        monkeypatch.setattr(stop, "check", lambda: (_ for _ in ()).throw(Stopped("stop")) if next(calls) == steps else None)
        with pytest.raises(Stopped):
            engine.run(plan, tmp_path / "out", tmp_path / f"s{steps}", force=True, report=report)
        monkeypatch.undo()
        done = engine.run(plan, tmp_path / "out", tmp_path / f"s{steps}", force=True, report=report)
        assert done["nonfinite"] == {"embed": 1, "mlp": 1}


def test_integers_and_parameters_out_of_range_are_refused_before_anything_is_written(tmp_path):
    save_file({"x": torch.zeros(4), "n": torch.arange(4)}, tmp_path / "m.safetensors")
    checkpoint = Checkpoint(tmp_path / "m.safetensors")
    weights = [{"weight": 0.5}] * 2
    with pytest.raises(BadModel, match="tensor n: I64 cannot be merged by linear, only copied"):
        engine.run(plan_of([checkpoint] * 2, Linear(), weights, {"normalize": True}, "I64"), tmp_path / "out", tmp_path / "s")
    good = plan_of([checkpoint] * 2, Linear(), weights, {"normalize": True}).items[0]
    bad = Item("x", "F32", (4,), good.sources, None, Parameters(({"weight": 1.0}, {"weight": -1.0}), {"normalize": True}), good.method)
    with pytest.raises(ValueError, match="sum to 0"):
        engine.run(Plan([bad]), tmp_path / "out", tmp_path / "s")
    assert not (tmp_path / "s").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [Linear(), TaskArithmetic(), Ties(), DareLinear()], ids=lambda method: method.name)
def test_weights_whose_sum_is_infinite_are_not_divided_by(method):
    # Every sum divided by infinity is 0: a model of zeros that looks finished.
    parameters = Parameters(({**method.own, "weight": 3e38, "density": 0.5},) * 2, {**method.shared, "normalize": True})
    with pytest.raises(ValueError, match="sum to more than float32 holds"):
        method.check(parameters)
    method.check(Parameters(parameters.own, {**parameters.shared, "normalize": False}))
