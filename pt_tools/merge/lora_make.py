"""New LoRA adapters in the peft library's layout: concatenated from others, or extracted from two dense models."""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np

from pt_tools.errors import BadModel, Usage
from pt_tools.files import apply_umask, sync, to_json
from pt_tools.merge import tensors
from pt_tools.merge.engine import Crew
from pt_tools.merge.lora import CONFIG, PREFIX, WEIGHTS, Adapter
from pt_tools.merge.lora_svd import Delta, truncated

EMBEDDING = re.compile(r"(^|\.)([^.]*emb[^.]*|wte|wpe|shared)$")  # modules whose matrix is looked up by rows


class _File:
    """adapter_model.safetensors, written tensor by tensor; its header, whose room is kept free, comes last."""

    def __init__(self, path: Path, room: int):
        self.path, self.room, self.header, self.end = path, room + (-room) % 8, {"__metadata__": {"format": "pt"}}, 0
        self.file = open(path, "wb")
        self.file.seek(8 + self.room)

    def add(self, name: str, array: np.ndarray) -> None:
        """An fp32 array."""
        self._entry(name, "F32", array.shape, array.nbytes)
        self.file.write(np.ascontiguousarray(array, np.float32).data)

    def copy(self, name: str, tensor: tensors.Tensor) -> None:
        """A stored tensor as it is."""
        self._entry(name, tensor.dtype, tensor.shape, tensor.nbytes)
        rest = tensor.nbytes
        with open(tensor.path, "rb") as source:
            source.seek(tensor.offset)
            while rest:
                block = source.read(min(rest, 1 << 20))
                if not block:
                    raise BadModel(f"the file ends inside tensor {tensor.name}", tensor.path)
                self.file.write(block)
                rest -= len(block)

    def _entry(self, name: str, dtype: str, shape, size: int) -> None:
        self.header[PREFIX + name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [self.end, self.end + size]}
        self.end += size

    def close(self) -> None:
        text = json.dumps(self.header, ensure_ascii=False).encode()
        self.file.seek(0)
        self.file.write(struct.pack("<Q", self.room) + text.ljust(self.room))
        self.file.close()
        apply_umask(self.path)
        sync(self.path)


def _room(names) -> int:
    """Bytes that are enough for a header in which every module of these names has two or three parts."""
    return 200 + sum(3 * (len(json.dumps(name, ensure_ascii=False).encode()) + 160) for name in names)


# --- concatenation ------------------------------------------------------------------------------------------------


def concatenate(paths, weights, stage) -> dict:
    """The adapter in directory `stage` whose change is the weighted sum of the adapters' changes, exactly.

    A = [A_1; …; A_n] and B = [w_1 s_1 B_1, …, w_n s_n B_n] for every module, so the ranks add up and the scale is 1;
    in fp32. Returns modules and the largest rank. Refused (`BadModel`): what is no sum: DoRA, tensors that replace the
    base's, biases; `Usage` for weights that do not fit.
    """
    paths, weights, stage = list(paths), list(weights), Path(stage)
    if len(paths) != len(weights) or not paths:
        raise Usage(f"{len(weights)} weights for {len(paths)} adapters")
    if not all(math.isfinite(weight) for weight in weights):
        raise Usage("a weight is not finite")
    adapters = [Adapter(path) for path in paths]
    for adapter in adapters:
        _refuse_unsummable(adapter)
    turned = {bool(adapter.config.get("fan_in_fan_out")) for adapter in adapters}
    if len(turned) > 1:
        raise BadModel("fan_in_fan_out differs from the other adapters'", str(paths[-1]))
    names = list(dict.fromkeys(name for adapter in adapters for name in adapter.modules))
    stage.mkdir(parents=True, exist_ok=True)
    out, ranks = _File(stage / WEIGHTS, _room(names)), {}
    for name in names:
        ranks[name] = _stack(out, name, [(a, w) for a, w in zip(adapters, weights) if name in a.modules])
    out.close()
    first = adapters[0].config
    _write_config(stage, ranks, _targets(names, names), base=first.get("base_model_name_or_path"),
                  fan_in_fan_out=turned.pop(), task_type=first.get("task_type"))
    return {"modules": len(ranks), "rank": max(ranks.values())}


def _refuse_unsummable(adapter: Adapter) -> None:
    if adapter.config.get("use_dora"):
        raise BadModel("DoRA adapters cannot be concatenated: their change is not linear in B·A", str(adapter.path))
    for name in [*adapter.whole, *adapter.rows]:
        raise BadModel(f"{name} replaces a tensor of the base, so it is in no sum of changes", str(adapter.path))
    for module in adapter.modules.values():
        if "lora_B.bias" in module.parts:
            raise BadModel(f"module {module.name} has a bias beside B, which is not supported here", str(adapter.path))


def _stack(out: _File, name: str, members: list) -> int:
    """Write one module's A and B; returns its rank."""
    modules = [adapter.modules[name] for adapter, _ in members]
    kind = "lora_embedding_" if modules[0].embedding else "lora_"
    for (adapter, _), module in zip(members, modules):
        same = (module.embedding, module.a.shape[1:], module.b.shape[:1], module.b.shape[2:])
        if same != (modules[0].embedding, modules[0].a.shape[1:], modules[0].b.shape[:1], modules[0].b.shape[2:]):
            raise BadModel(f"module {name} has other shapes than in the other adapters", str(adapter.path))
    a = [adapter.store.load(module.a.name) for (adapter, _), module in zip(members, modules)]
    b = [adapter.store.load(module.b.name).astype(np.float64) * (weight * module.scale)
         for (adapter, weight), module in zip(members, modules)]
    end, sides = "" if modules[0].embedding else ".weight", {"A": np.concatenate(a, axis=0), "B": np.concatenate(b, axis=1)}
    for side, array in sides.items():
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise BadModel(f"module {name} has NaN or infinite numbers, or a scale or weight that makes them",
                           str(members[0][0].path))
        out.add(f"{name}.{kind}{side}{end}", array)
    return sum(module.rank for module in modules)


# --- extraction ---------------------------------------------------------------------------------------------------


def extract(base, tuned, stage, rank: int | None = None, energy: float | None = None, fan_in_fan_out: bool = False,
            seed: int = 0, threads: int = 1, report=None) -> dict:
    """The adapter in directory `stage` that turns `base` nearly into `tuned`: per matrix a truncated SVD of the change.

    The rank is `rank`, or the least that keeps the share `energy` of ‖change‖², or the smaller of both. Matrices named
    as embeddings become embedding adapters. Everything else that changed (vectors, biases, tensors of three axes, the
    embedding of a tied model) is kept whole. `report` is called with a row for every changed tensor: tensor, rank,
    energy (the share that is kept), norm. Returns modules, the largest rank, kept whole and the share of all.
    """
    if rank is None and energy is None:
        raise Usage("say --rank or --energy")
    if (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
        raise Usage("--rank must be at least 1, --energy above 0 and at most 1")
    old, new, stage = tensors.Checkpoint(base), tensors.Checkpoint(tuned), Path(stage)
    _compare(old, new)
    stage.mkdir(parents=True, exist_ok=True)
    out, ranks, whole, sums = _File(stage / WEIGHTS, _room(new.tensors)), {}, [], np.zeros(2)
    for name, change in _changes(old, new, rank, energy, seed, threads):
        if isinstance(change, float):
            whole.append(name)
            kept = total = change
        else:
            module = name.removesuffix(".weight")
            ranks[module] = _write_factors(out, module, change, fan_in_fan_out)
            kept, total = change.kept, change.total
        sums += (kept, total)
        if report:
            report({"tensor": name, "rank": None if name in whole else ranks[module],
                    "energy": kept / total if total else 1.0, "norm": math.sqrt(total)})
    saved, bias = _keep_whole(out, new, whole, ranks)
    out.close()
    if not (ranks or whole):
        raise Usage(f"{tuned} does not differ from {base}")
    matrices = [name.removesuffix(".weight") for name, t in old.tensors.items() if name.endswith(".weight")]
    _write_config(stage, ranks, _targets(ranks, matrices), base=str(base), fan_in_fan_out=fan_in_fan_out,
                  modules_to_save=saved or None, bias=bias)
    return {"modules": len(ranks), "rank": max(ranks.values(), default=0), "whole": len(whole),
            "energy": float(sums[0] / sums[1]) if sums[1] else 1.0}


def _changes(old, new, rank, energy, seed: int, threads: int):
    """(name, low-rank change, or the squared norm of one that is kept whole) of every tensor that differs, by name."""
    names, crew = sorted(new.tensors), Crew(threads)

    def one(_, index):
        delta = Delta(old, new, names[index])
        module, _, last = names[index].rpartition(".")
        if not delta.changed():
            return None
        matrix = last == "weight" and len(delta.shape) == 2 and not (EMBEDDING.search(module) and _tied(new))
        return truncated(delta, rank, energy, seed) if matrix else delta.square()

    try:
        yield from (pair for pair in zip(names, crew.map(one, range(len(names)))) if pair[1] is not None)
    finally:
        crew.close()


def _tied(checkpoint) -> bool:
    return bool(checkpoint.config.get("tie_word_embeddings", (checkpoint.config.get("text_config") or {}).get(
        "tie_word_embeddings", False))) and not any(re.search(r"(^|\.)lm_head\.weight$", n) for n in checkpoint.tensors)


def _compare(old, new) -> None:
    lone = sorted(old.tensors.keys() ^ new.tensors.keys())
    if lone:
        raise BadModel(f"tensor {lone[0]} is in one of the models only", str(new.path))
    for name, tensor in new.tensors.items():
        if tensor.shape != old.tensors[name].shape:
            raise BadModel(f"tensor {name} is {list(tensor.shape)}, in the base {list(old.tensors[name].shape)}",
                           str(new.path))


def _write_factors(out: _File, module: str, found, fan_in_fan_out: bool) -> int:
    """B·A = the change for a linear layer; its transpose for an embedding or a layer stored as (in, out)."""
    if EMBEDDING.search(module):
        out.add(f"{module}.lora_embedding_A", found.left.T)
        out.add(f"{module}.lora_embedding_B", found.right.T)
    else:
        out.add(f"{module}.lora_A.weight", found.left.T if fan_in_fan_out else found.right)
        out.add(f"{module}.lora_B.weight", found.right.T if fan_in_fan_out else found.left)
    return found.left.shape[1]


def _keep_whole(out: _File, new, whole: list[str], ranks: dict) -> tuple[list[str], str]:
    """Write the tensors that are kept whole; returns modules_to_save and the `bias` of the configuration."""
    saved, bias = [], "none"
    for name in whole:
        module, _, last = name.rpartition(".")
        if module in ranks:  # beside a low-rank matrix: a module cannot be both
            if last != "bias":
                raise BadModel(f"{name} changed beside a low-rank change, which peft cannot hold", str(new.path))
            out.copy(f"{module}.base_layer.bias", new.tensors[name])
            bias = "all"
        elif module not in saved:
            saved.append(module)
            for other in sorted(n for n in new.tensors if n.rpartition(".")[0] == module):
                out.copy(other, new.tensors[other])
    if _tied(new) and any(EMBEDDING.search(module) for module in saved):
        embedding = next(module for module in saved if EMBEDDING.search(module))
        out.copy("lm_head.weight", new.tensors[f"{embedding}.weight"])  # peft unties what it saves: so both
        saved.append("lm_head")
    return saved, bias


# --- configuration ------------------------------------------------------------------------------------------------


def _targets(names, among) -> list[str]:
    """target_modules: last parts of the names where they mean these modules and no others, else the whole names."""
    short = sorted({name.rpartition(".")[2] for name in names})
    meant = {name for name in among if name.rpartition(".")[2] in short}
    return short if meant == set(names) else sorted(names)


def _write_config(stage: Path, ranks: dict[str, int], targets: list[str], **more) -> None:
    """adapter_config.json with scale 1 everywhere: alpha is the rank."""
    usual = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    other = {name: rank for name, rank in sorted(ranks.items()) if rank != usual}
    config = {"peft_type": "LORA", "task_type": more.pop("task_type", None) or "CAUSAL_LM",
              "base_model_name_or_path": more.pop("base", None), "inference_mode": True, "r": usual,
              "lora_alpha": usual, "lora_dropout": 0.0, "use_rslora": False, "use_dora": False,
              "init_lora_weights": True, "bias": "none", "target_modules": targets,
              "rank_pattern": other, "alpha_pattern": other, "modules_to_save": None, **more}
    (stage / CONFIG).write_bytes(to_json(config))
    apply_umask(stage / CONFIG)
