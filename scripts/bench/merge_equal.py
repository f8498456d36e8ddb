#!/usr/bin/env python3
"""pt-merge beside mergekit on the same YAML files, entry by entry: merge_equal.py MERGEKIT-YAML [--methods …]

Both commands merge small Llama models (three fine-tunes and a base, in float32 and in bfloat16). A JSON line for every
file: the share of entries with equal bits, the largest difference, and that beside the largest change of a model.
`exact` says where equal bits are expected: linear, task arithmetic and TIES computed in float32 (away from ties at the
threshold: mergekit's sort keeps any of several equal entries, pt-merge the first ones), copies. Exits 1 if they are not.
Methods that draw random numbers agree only in what they keep on average; they are compared at density 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

BIN = Path(sys.executable).parent
WEIGHTS = (0.3, 0.5, 0.4)
SIZES = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 5, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300}
GRADIENT = [{"filter": "self_attn", "value": [0, 0.3, 1]}, {"filter": "mlp", "value": [1, 0.2]}, {"value": 0.5}]


def both(**more):
    """Parameters of every model: the weights, and the same of everything else."""
    return [{"weight": weight, **more} for weight in WEIGHTS]


# name: (method, parameters of each model, of the merge, whether bits must be equal)
CASES = {
    "linear": ("linear", both(), {}, True), "linear, sum": ("linear", both(), {"normalize": False}, True),
    "linear, gradient": ("linear", [{"weight": GRADIENT}, {"weight": 0.5}], {}, True),
    "task_arithmetic": ("task_arithmetic", both(), {}, True),
    "task_arithmetic, 1.7": ("task_arithmetic", both(), {"lambda": 1.7, "normalize": True}, True),
    "ties": ("ties", both(density=0.4), {}, True), "ties, sparse": ("ties", both(density=0.05), {"lambda": 1.3}, True),
    "ties, sum": ("ties", both(density=0.7), {"normalize": False}, True),
    "ties, l1": ("ties", both(density=0.4), {"rescale": True}, False),
    "slerp": ("slerp", [{}], {"t": 0.3}, False), "slerp, gradient": ("slerp", [{}], {"t": GRADIENT}, False),
    "nuslerp": ("nuslerp", both()[:2], {}, False),
    "nuslerp, rows": ("nuslerp", both()[:2], {"nuslerp_flatten": False}, False),
    "nuslerp, columns": ("nuslerp", both()[:2], {"nuslerp_flatten": False, "nuslerp_row_wise": True}, False),
    "multislerp": ("multislerp", both(), {}, False), "karcher": ("karcher", [{}] * 3, {}, False),
    "model_stock": ("model_stock", [{}] * 3, {}, False),
    "model_stock, rows": ("model_stock", [{}] * 3, {"filter_wise": True}, False),
    "breadcrumbs": ("breadcrumbs", both(density=0.5, gamma=0.05), {}, True),
    "breadcrumbs_ties": ("breadcrumbs_ties", both(density=0.5, gamma=0.05), {}, True),
    "sce": ("sce", [{}] * 3, {"select_topk": 0.3}, False),
    "ram": ("ram", [{}] * 3, {"epsilon": 1e-4}, False), "ramplus_tl": ("ramplus_tl", [{}] * 3, {"epsilon": 1e-4}, False),
    "nearswap": ("nearswap", [{}], {"t": 0.005}, False), "passthrough": ("passthrough", [{}], {}, True),
    "dare_ties": ("dare_ties", both(density=1), {}, True), "della": ("della", both(density=1), {}, True),
}
WITHOUT_BASE = ("linear", "karcher", "passthrough")


def shapes():
    hidden, middle, pairs = SIZES["hidden_size"], SIZES["intermediate_size"], SIZES["hidden_size"] // 2
    yield "model.embed_tokens.weight", (SIZES["vocab_size"], hidden)
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for part, shape in (("q", (hidden, hidden)), ("k", (pairs, hidden)), ("v", (pairs, hidden)), ("o", (hidden, hidden))):
            yield f"{at}self_attn.{part}_proj.weight", shape
        for part, shape in (("gate", (middle, hidden)), ("up", (middle, hidden)), ("down", (hidden, middle))):
            yield f"{at}mlp.{part}_proj.weight", shape
        yield at + "input_layernorm.weight", (hidden,)
        yield at + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (SIZES["vocab_size"], hidden)


def make(path: Path, dtype: str) -> None:
    """base/ and a/, b/, c/, whose changes have a part in common; bfloat16 is written by torch."""
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape).astype(np.float32) * np.float32(0.05) for name, shape in shapes()}
    common = {name: rng.standard_normal(value.shape) * 0.01 for name, value in base.items()}
    for model in ("base", "a", "b", "c"):
        change = {name: 0 if model == "base" else common[name] + rng.standard_normal(value.shape) * 0.01
                  for name, value in base.items()}
        tensors = {name: (value + change[name]).astype(np.float32) for name, value in base.items()}
        (path / model).mkdir(parents=True)
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False,
                  "torch_dtype": dtype, **SIZES}
        (path / model / "config.json").write_text(json.dumps(config))
        file = path / model / "model.safetensors"
        if dtype == "float32":
            save_file(tensors, file, {"format": "pt"})
        else:
            import torch
            from safetensors.torch import save_file as save

            save({name: torch.from_numpy(value).bfloat16() for name, value in tensors.items()}, file, {"format": "pt"})


def recipe(case: str, path: Path) -> str:
    method, own, shared, _ = CASES[case]
    models = [{"model": str(path / name), "parameters": one} for name, one in zip("abc", own)]
    config = {"merge_method": method, "models": models, "parameters": shared, "dtype": "float32"}
    if method not in WITHOUT_BASE:
        config["base_model"] = str(path / "base")
    return json.dumps(config)  # JSON is YAML


def compare(case: str, path: Path, mergekit: str) -> dict:
    (path / "merge.yml").write_text(recipe(case, path))
    outs = [path / "ours", path / "theirs"]
    for argv in ([BIN / "pt-merge", path / "merge.yml", "-o", outs[0], "-q"],
                 [mergekit, path / "merge.yml", outs[1], "--no-copy-tokenizer", "--no-write-model-card"]):
        done = subprocess.run(list(map(str, argv)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{case}: {argv[0]} failed\n{done.stderr[-3000:]}")
    ours, theirs = ({k: v for file in out.glob("*.safetensors") for k, v in load_file(file).items()} for out in outs)
    if ours.keys() != theirs.keys():
        return {"case": case, "tensors": sorted(ours.keys() ^ theirs.keys()), "equal": 0.0}
    pairs = [(ours[name].astype(np.float64), theirs[name].astype(np.float64)) for name in ours]
    equal = sum(int((a == b).sum()) for a, b in pairs)
    return {"case": case, "equal": equal / sum(a.size for a, _ in pairs),
            "largest": max(float(np.abs(a - b).max()) for a, b in pairs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mergekit", help="mergekit-yaml of another environment")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    args = parser.parse_args()
    failed = False
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as work:
            make(Path(work) / dtype, dtype)
            for case in args.cases:
                row = compare(case, Path(work) / dtype, args.mergekit)
                method, _, _, equal = CASES[case]
                exact = equal and (dtype == "float32" or method in ("linear", "task_arithmetic", "passthrough"))
                failed |= exact and row["equal"] < 1
                print(json.dumps({"inputs": dtype, "exact": exact, **row}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
