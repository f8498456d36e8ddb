"""Every method through the real engine: the same bytes for any number of threads, finite for special models."""

import numpy as np
import pytest
from merge_harness import parameters

from pt_tools.merge import METHODS, engine, methods
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.tensors import Checkpoint

safetensors = pytest.importorskip("safetensors.numpy")
OWN = {"density": 0.5, "gamma": 0.02}
SHARED = {"select_topk": 0.5, "eta": 0.5, "t": 0.5}


def models(tmp_path, count):
    """A base and models; `same` has zero differences, `flat` is zero in all of them."""
    rng = np.random.default_rng(0)
    base = {"big": rng.normal(size=(600, 1000)), "cube": rng.normal(size=(3, 4, 5)), "vector": rng.normal(size=9),
            "same": rng.normal(size=(3, 4)), "flat": np.zeros((2, 3))}
    out = []
    for number in range(count + 1):
        change = {name: value * 0 if name in ("same", "flat") else np.round(rng.normal(size=value.shape) * 4) / 64
                  for name, value in base.items()}
        path = tmp_path / f"{number}.safetensors"
        safetensors.save_file({k: (base[k] + (change[k] if number else 0)).astype(np.float16) for k in base}, path)
        out.append(Checkpoint(path))
    return out[0], out[1:]


def plan(method, base, others):
    own = {name: [value] * len(others) for name, value in OWN.items() if name in method.own}
    shared = {name: value for name, value in SHARED.items() if name in method.shared}
    given = parameters(method, len(others), own, **shared)
    method.check(given)
    items = []
    for name, tensor in sorted(base.tensors.items()):
        sources = tuple(Source(other.tensors[name]) for other in others)
        of_base = None if method.base == "none" else Source(tensor)
        items.append(Item(name, tensor.dtype, tensor.shape, sources, of_base, given, method))
    return Plan(items, seed=3)


@pytest.mark.parametrize("name", METHODS)
def test_threads_change_nothing(name, tmp_path):
    method = methods.get(name)
    base, others = models(tmp_path, min(3, method.models[1] or 3))
    digests = []
    for threads in (1, 3):
        out, scratch = tmp_path / f"out{threads}", tmp_path / f"scratch{threads}"
        out.mkdir()
        scratch.mkdir()
        done = engine.run(plan(method, base, others), out, scratch, threads=threads)
        assert done["tensors"] == 5 and not done["nonfinite"]
        digests.append(done["files"])
    assert digests[0] == digests[1]
    merged = Checkpoint(out)
    for tensor in merged.tensors:
        assert np.isfinite(merged.load(tensor)).all()
    assert not merged.load("flat").any()
