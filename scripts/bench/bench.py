#!/usr/bin/env python3
"""Speed beside the peers, in one run on one machine: `bench.py [PART …] [--repeat N] [--threads N] [--data DIR] [--oracle …]`.

Same model (Llama, 4 layers of 256, vocabulary 8192), data, batch and number of steps on both sides, each side in its
own process, in turn; the best of the repeats counts. What is timed is the work itself: no imports, no loading, no
tokenisation. Prompts are longer than completions and completions have a long tail. TRL's trainers are called with
their defaults, except bf16 off and gradient checkpointing off (on, its default, it only costs time here). pt-rlvr
leaves groups of equal rewards out of the update, which TRL computes. The verifiers have scripts of their own
(verify_*.py); math, constraints and code read real data (--data), and constraints measures its peer only where lm-eval is
at hand: --oracle SITE-PACKAGES --nltk-data DIR; so does merge: --mergekit MERGEKIT-YAML. Writes bench/results.json; entries of other
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
SCRIPTS = {"math": "verify_math.py", "constraints": "verify_constraints.py", "code": "verify_code.py", "merge": "merge.py",
           "curate": "curate.py"}
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


def script(part, args):
    """The entries that a part's own script prints, a JSON line each."""
    more = {"math": [args.data], "constraints": [args.data, *(
        word for name in ("oracle", "nltk_data") if getattr(args, name)
        for word in (f"--{name.replace('_', '-')}", getattr(args, name)))],
            "merge": ["--mergekit", args.mergekit] if args.mergekit else [],
            "curate": ["--peers", args.peers] if args.peers else []}.get(part, [])
    argv = [sys.executable, HERE / SCRIPTS[part], *more]
    done = subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": str(args.threads)})
    if done.returncode:
        sys.exit(f"bench: {part} failed")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def write(entries):
    """Replace the entries of the same name, keep the others."""
    RESULTS.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    names = {entry["name"] for entry in entries}
    RESULTS.write_text(json.dumps([e for e in kept if e["name"] not in names] + entries, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join([*PARTS, *SCRIPTS])}; all if none is named")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PT_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--oracle", help="site-packages with lm_eval, langdetect and nltk")
    parser.add_argument("--mergekit", help="mergekit-yaml of another environment; without it merges are compared with plain I/O")
    parser.add_argument("--nltk-data", help="directory with tokenizers/punkt_tab")
    parser.add_argument("--peers", help="python with rensa, datasketch and datatrove; without it curation is compared with plain reading")
    args = parser.parse_args()
    known = [*PARTS, *SCRIPTS]
    unknown = set(args.parts) - set(known)
    if unknown:
        parser.error(f"unknown part {unknown.pop()}; known are {', '.join(known)}")
    print(" ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))
    entries = []
    with tempfile.TemporaryDirectory() as work:
        parts = args.parts or known
        if set(parts) & PARTS.keys() - {"help"}:
            side("ours", "base", work, args.threads)
        for part in parts:
            fresh = script(part, args) if part in SCRIPTS else [measure(part, work, args.repeat, args.threads)]
            for e in fresh:
                print(f"{e['name']}: {e['ours']} {e['unit']}, {e['peer_name']} {e['peer']}, {e['ratio']} times as fast")
            entries += fresh
    write(entries)


if __name__ == "__main__":
    main()
