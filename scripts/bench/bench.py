#!/usr/bin/env python3
"""Speed beside the peers, in one run on one machine: `bench.py [sft] [dpo] [rlvr] [sample] [help] [--repeat N] [--threads N]`.

Same model (Llama, 4 layers of 256, vocabulary 8192), data, batch and number of steps on both sides, each side in its
own process, in turn; the best of the repeats counts. What is timed is the work itself: no imports, no loading, no
tokenisation. Prompts are longer than completions and completions have a long tail. TRL's trainers are called with
their defaults, except bf16 off and gradient checkpointing off (on, its default, it only costs time here). pt-rlvr
leaves groups of equal rewards out of the update, which TRL computes. Writes bench/results.json; entries of other
parts stay.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "bench" / "results.json"
PARTS = {
    "sft": ("pt-sft: 16 rows a step", "TRL SFTTrainer", "s/step"),
    "dpo": ("pt-dpo: 8 pairs a step, reference included", "TRL DPOTrainer", "s/step"),
    "rlvr": ("pt-rlvr: 4 prompts x 8 completions a step", "TRL GRPOTrainer", "s/step"),
    "sample": ("pt-sample: 16 prompts x 8 completions", "transformers generate", "s/1000 tokens"),
    "help": ("--help of the slowest command", "trl sft --help", "CPU s"),
}
PACKAGES = ("torch", "transformers", "trl", "accelerate")


def side(name, part, work, threads):
    """Seconds per unit of one side, measured in a process of its own."""
    command = [sys.executable, str(HERE / f"{name}.py"), part, str(work)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode:
        sys.exit(f"bench: {name} {part} failed\n{done.stderr}")
    return float(done.stdout.split()[-1])


def cpu_s(*argv):
    """User + system seconds of one run of a command."""
    child = subprocess.Popen([Path(sys.executable).parent / argv[0], *argv[1:]], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"bench: {' '.join(argv)} failed")
    return usage.ru_utime + usage.ru_stime


def help_sides(repeat):
    """The best of the repeats of our slowest command, and of the peer's."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    ours = max(min(cpu_s(name, "--help") for _ in range(repeat)) for name in scripts)
    return [ours], [min(cpu_s("trl", "sft", "--help") for _ in range(repeat))]


def measure(part, work, repeat, threads):
    name, peer_name, unit = PARTS[part]
    ours, peer = help_sides(repeat) if part == "help" else ([], [])
    for _ in range(0 if part == "help" else repeat):
        ours.append(side("ours", part, work, threads))
        peer.append(side("peer", part, work, threads))
    return {
        "name": name, "ours": round(min(ours), 4), "peer": round(min(peer), 4), "peer_name": peer_name,
        "ratio": round(min(peer) / min(ours), 2), "unit": unit,
    }


def write(entries):
    """Replace the entries of the same name, keep the others."""
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    names = {entry["name"] for entry in entries}
    RESULTS.write_text(json.dumps([e for e in kept if e["name"] not in names] + entries, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    unknown = set(args.parts) - PARTS.keys()
    if unknown:
        parser.error(f"unknown part {unknown.pop()}; known are {', '.join(PARTS)}")
    print(" ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))
    entries = []
    with tempfile.TemporaryDirectory() as work:
        if args.parts != ["help"]:
            side("ours", "base", work, args.threads)
        for part in args.parts or PARTS:
            entries.append(measure(part, work, args.repeat, args.threads))
            e = entries[-1]
            print(f"{e['name']}: {e['ours']} {e['unit']}, {e['peer_name']} {e['peer']}, {e['ratio']} times as fast")
    write(entries)


if __name__ == "__main__":
    main()
