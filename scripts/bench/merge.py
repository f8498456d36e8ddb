#!/usr/bin/env python3
"""Time pt-merge's engine beside mergekit and beside plain read + write: wall, CPU seconds, peak anonymous memory.

    merge.py make DIR [--layers 24]        synthetic Llama checkpoints base/, a/, b/ (bf16, 4 shards; 24 layers: 440 M)
    merge.py run DIR [--mergekit PATH]     every method, one line of JSON each; PATH is another environment's mergekit-yaml
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

METHODS = {
    "floor": (False, {}, {}), "linear": (False, {"weight": 0.5}, {"normalize": True}), "slerp": (False, {}, {"t": 0.5}),
    "dare_ties": (True, {"weight": 0.5, "density": 0.5}, {"lambda": 1.0, "normalize": False, "rescale": "inverse"}),
    "ties": (True, {"weight": 0.5, "density": 0.5}, {"lambda": 1.0, "normalize": True}),
    "task_arithmetic": (True, {"weight": 0.5}, {"lambda": 1.0, "normalize": False}),
}


def shapes(layers: int, hidden=1024, middle=4096, vocabulary=32000):
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (hidden,)
        for part in "qkvo":
            yield f"{at}self_attn.{part}_proj.weight", (hidden, hidden)
        yield at + "post_attention_layernorm.weight", (hidden,)
        for part, shape in (("gate", (middle, hidden)), ("up", (middle, hidden)), ("down", (hidden, middle))):
            yield f"{at}mlp.{part}_proj.weight", shape
    yield "model.norm.weight", (hidden,)


def make(path: Path, layers: int) -> None:
    import numpy as np

    from pt_tools.merge import numbers, writer
    from pt_tools.merge.method import Parameters
    from pt_tools.merge.plan import Item
    from pt_tools.merge.simple import Copy

    items = [Item(name, "BF16", shape, (), None, Parameters(), Copy()) for name, shape in shapes(layers)]
    total = sum(map(writer.size_of, items))
    for number, name in enumerate(("base", "a", "b")):
        files = writer.Writer(items, total // 4 + (40 << 20), {"format": "pt"}, name, path / "scratch")
        for index, item in enumerate(items):
            n = int(np.prod(item.shape))
            values = np.random.default_rng([0, index]).standard_normal(n, np.float32) * np.float32(0.02)
            if number:
                values += np.random.default_rng([number, index]).standard_normal(n, np.float32) * np.float32(2e-4)
            stored = np.empty(n, np.uint16)
            numbers.encode(values, "BF16", stored, np.empty_like(values))
            files.write(index, 0, stored)
            files.advance(index, 1, 2 * n)
        files.publish(path / name)
        files.close()
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
                  "intermediate_size": 4096, "num_hidden_layers": layers, "num_attention_heads": 16,
                  "num_key_value_heads": 16, "vocab_size": 32000, "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
        (path / name / "config.json").write_text(json.dumps(config))
    shutil.rmtree(path / "scratch")


def ours(method: str, path: Path, out: Path, threads: int) -> None:
    """The child: one merge, hashed and synced."""
    base, own, shared = METHODS[method]
    if method == "floor":
        return floor(path, out)
    from pt_tools.merge import engine, magnitude, simple, sphere
    from pt_tools.merge.method import Parameters
    from pt_tools.merge.plan import Item, Plan, Source
    from pt_tools.merge.tensors import Checkpoint

    known = {kind.name: kind for kind in (simple.Linear, simple.TaskArithmetic, sphere.Slerp, magnitude.Ties, magnitude.DareTies)}
    a, b, root = (Checkpoint(path / name).tensors for name in ("a", "b", "base"))
    one, parameters = known[method](), Parameters((own, own), shared)
    items = [Item(n, "BF16", t.shape, (Source(t), Source(b[n])), Source(root[n]) if base else None, parameters, one)
             for n, t in a.items()]
    engine.run(Plan(items), out, out.with_name("scratch"), threads=threads)


def floor(path: Path, out: Path) -> None:
    """Read both inputs, write one, sync and hash it."""
    out.mkdir()
    buffer = memoryview(bytearray(1 << 20))
    for file in sorted((path / "a").glob("*.safetensors")):
        with open(file, "rb", 0) as a, open(path / "b" / file.name, "rb", 0) as b, open(out / file.name, "wb", 0) as to:
            while n := a.readinto(buffer):
                b.readinto(buffer)
                to.write(buffer[:n])
            os.fsync(to.fileno())
        with open(out / file.name, "rb") as done:
            hashlib.file_digest(done, "sha256")


def yaml(method: str, path: Path) -> str:
    base, own, shared = METHODS[method]
    config = {"merge_method": method, "dtype": "bfloat16", "parameters": {k: v for k, v in shared.items() if k != "rescale"},
              "models": [{"model": str(path / name), "parameters": own} for name in "ab"]}
    if base:
        config["base_model"] = str(path / "base")
    if method == "slerp":
        config["base_model"] = str(path / "a")
    return json.dumps(config)


def measured(command: list[str]) -> dict:
    """Run it; wall and CPU seconds, and the largest sum of anonymous pages seen (every 10 ms)."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    peak = 0

    def watch():
        nonlocal peak
        while process.poll() is None:
            try:
                text = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")), 0)
            except OSError:
                return
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    error = process.stderr.read().decode()
    process.wait()
    watcher.join()
    if process.returncode:
        sys.exit(error)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.monotonic() - began, 2), "cpu_s": round(cpu, 2), "peak_anon_mb": peak // 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "one"])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--mergekit")
    args = parser.parse_args()
    if args.what == "make":
        return make(args.dir, args.layers)
    out = args.dir / "out"
    if args.what == "one":
        return ours(args.methods[0], args.dir, out, args.threads[0])
    for method in args.methods:
        runs = {f"pt-tools, {n}": [sys.executable, __file__, "one", str(args.dir), "--methods", method, "--threads", str(n)]
                for n in (args.threads if method != "floor" else [1])}
        if args.mergekit and method != "floor":
            (args.dir / "merge.yml").write_text(yaml(method, args.dir))
            runs["mergekit"] = [args.mergekit, str(args.dir / "merge.yml"), str(out), "--no-copy-tokenizer"]
        for who, command in runs.items():
            for left in (out, args.dir / "scratch"):
                shutil.rmtree(left, ignore_errors=True)
            print(json.dumps({"method": method, "who": who, **measured(command)}), flush=True)


if __name__ == "__main__":
    main()
