#!/usr/bin/env python3
"""Time pt-merge beside mergekit and beside plain read + write: seconds, CPU seconds, peak anonymous memory.

    merge.py [--dir DIR] [--mergekit MERGEKIT-YAML] [--methods …] [--threads 1 2] [--layers 24] [--repeat N]

Two fine-tunes and a base, synthetic Llama of 440 M parameters at 24 layers in bf16, 4 shards, are made in DIR (kept there;
else in a temporary directory) and are in the page cache. Both sides are whole commands in processes of their own, from
the start of Python to the exit. pt-merge hashes what it reads (inputs whose digests it knows from an earlier run are
measured apart) and what it writes, and what it wrote is on the disk when it ends. The floor reads the same bytes, writes
as many, hashes what it wrote and syncs it, with no arithmetic, and hashes no inputs. The fastest of the repeats counts.

One JSON line an entry on stdout: name, ours, peer, peer_name, ratio (peer / ours), unit. Without mergekit only the
floor is the peer.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PLAIN = ["--no-copy-tokenizer", "--no-write-model-card"]  # mergekit's options for weights and nothing else
METHODS = {  # name: whether there is a base, parameters of each model, of the merge
    "linear": (False, {"weight": 0.5}, {}), "slerp": (False, {}, {"t": 0.5}),
    "dare_ties": (True, {"weight": 0.5, "density": 0.5}, {}), "ties": (True, {"weight": 0.5, "density": 0.5}, {}),
    "task_arithmetic": (True, {"weight": 0.5}, {}),
}


def shapes(layers: int, hidden: int, middle: int, vocabulary: int):
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


def make(path: Path, layers: int, hidden=1024, middle=4096, vocabulary=32000) -> None:
    """base/, a/ and b/ in `path`."""
    import numpy as np

    from pt_tools.merge import numbers, writer
    from pt_tools.merge.method import Parameters
    from pt_tools.merge.plan import Item
    from pt_tools.merge.simple import Copy

    items = [Item(name, "BF16", shape, (), None, Parameters(), Copy())
             for name, shape in shapes(layers, hidden, middle, vocabulary)]
    total = sum(map(writer.size_of, items))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "intermediate_size": middle, "num_hidden_layers": layers, "num_attention_heads": hidden // 64,
              "num_key_value_heads": hidden // 64, "vocab_size": vocabulary, "tie_word_embeddings": True,
              "torch_dtype": "bfloat16"}
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
        (path / name / "config.json").write_text(json.dumps(config))
    shutil.rmtree(path / "scratch")


def floor(path: Path, out: Path, base: bool) -> None:
    """Read every input, write one, sync and hash it."""
    out.mkdir()
    buffer = memoryview(bytearray(1 << 20))
    for file in sorted((path / "a").glob("*.safetensors")):
        others = [open(path / name / file.name, "rb", 0) for name in ("b", "base")[:1 + base]]
        with open(file, "rb", 0) as first, open(out / file.name, "wb", 0) as to:
            while n := first.readinto(buffer):
                to.write(buffer[:n])
                for other in others:
                    other.readinto(buffer)
            os.fsync(to.fileno())
        with open(out / file.name, "rb") as done:
            hashlib.file_digest(done, "sha256")


def yaml(method: str, path: Path) -> str:
    base, own, shared = METHODS[method]
    config = {"merge_method": method, "dtype": "bfloat16", "parameters": shared,
              "models": [{"model": str(path / name), "parameters": own} for name in "ab"]}
    if base or method == "slerp":
        config["base_model"] = str(path / ("base" if base else "a"))
    return json.dumps(config)


def flags(method: str, path: Path) -> list[str]:
    base, own, shared = METHODS[method]
    words = [method, *(str(path / name) for name in (("base",) if base else ()) + ("a", "b"))]
    return words + [word for name, value in {**own, **shared}.items() for word in (f"--{name}", str(value))]


def measured(command: list, out: Path, known: bool = False) -> dict:
    """Run it with `out` gone: wall and CPU seconds, and the largest sum of anonymous pages seen, in MB.

    Unless `known`, no digest of an input is remembered from an earlier run.
    """
    cache = out.with_name("digests")
    for left in (out, out.with_name(out.name + ".run"), *(() if known else (cache,))):
        shutil.rmtree(left, ignore_errors=True)
    os.sync()  # what an earlier run left to be written is not this one's
    before, began, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)})

    def watch():
        nonlocal peak
        while process.poll() is None:
            try:
                text = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            peak = max([peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon"))])
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    error = process.stderr.read().decode()
    process.wait()
    wall = time.monotonic() - began
    watcher.join()
    if process.returncode:
        sys.exit(f"bench: {command} failed\n{error}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"s": round(wall, 2), "CPU s": round(cpu, 2), "MB anonymous": round(peak * 1024 / 1e6, 1)}


def say(name: str, ours: dict, peer: dict, peer_name: str, units=("s", "CPU s", "MB anonymous")) -> None:
    for unit in units:
        entry = {"name": name if unit == "s" else f"{name}, {unit}", "ours": ours[unit], "peer": peer[unit],
                 "peer_name": peer_name, "ratio": round(peer[unit] / max(ours[unit], 1e-9), 2), "unit": unit}
        print(json.dumps(entry), flush=True)


def count(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def best(commands: dict, out: Path, repeat: int) -> dict:
    """Of each command the fastest run; they take turns, so that a slow minute of the machine is everyone's."""
    found = {}
    for _ in range(repeat):
        for name, (command, known) in commands.items():
            one = measured(command, out, known)
            found[name] = min(found.get(name, one), one, key=lambda run: run["s"])
    return found


def large(args, path: Path) -> None:
    if not (path / "b" / "config.json").exists():
        make(path, args.layers)
    out, yml = path / "out", path / "merge.yml"
    for method in args.methods:
        base, command = METHODS[method][0], [BIN / "pt-merge", *flags(method, path), "-o", out, "-q", "--threads"]
        runs = {count(n): ([*command, n], False) for n in args.threads}
        if method == "linear":
            runs |= {f"{count(n)}, inputs known": ([*command, n], True) for n in args.threads}
        yml.write_text(yaml(method, path))
        others = {"floor": ([sys.executable, __file__, "--floor", str(int(base)), "--dir", path], True),
                  **({"mergekit": ([args.mergekit, yml, out, *PLAIN], True)} if args.mergekit else {})}
        found = best(runs | others, out, args.repeat)
        for how in runs:
            name = f"pt-merge {method}, {how}"
            say(f"{name}: floor", found[how], found["floor"], "read + write + sync + hash", ("s", "CPU s"))
            if args.mergekit:
                say(name, found[how], found["mergekit"], "mergekit")
    for left in (out, path / "digests", yml):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def small(args, path: Path) -> None:
    """What a start costs: --help, and a merge of models of a few kilobytes."""
    make(path / "tiny", 2, 64, 128, 500)
    (path / "tiny.yml").write_text(yaml("linear", path / "tiny"))
    pairs = {"pt-merge --help": ([BIN / "pt-merge", "--help"], [args.mergekit, "--help"]),
             "pt-merge linear, tiny models": ([BIN / "pt-merge", *flags("linear", path / "tiny"), "-o", path / "out", "-q"],
                                              [args.mergekit, path / "tiny.yml", path / "out", *PLAIN])}
    for name, (ours, peer) in pairs.items():
        best = min((measured(ours, path / "out") for _ in range(3)), key=lambda one: one["s"])
        other = measured(peer, path / "out") if args.mergekit else best
        say(name, best, other, "mergekit" if args.mergekit else "itself", ("s", "CPU s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--mergekit", default=shutil.which("mergekit-yaml"))
    parser.add_argument("--floor", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.floor is not None:
        return floor(args.dir, args.dir / "out", bool(args.floor))
    with tempfile.TemporaryDirectory(prefix="pt-bench-") as work:
        small(args, Path(work))
        large(args, args.dir or Path(work))


if __name__ == "__main__":
    main()
