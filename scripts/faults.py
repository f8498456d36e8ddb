"""Faults on purpose, with real processes: python scripts/faults.py [PART…] [--cases N] [--seed S]

    recipe    kill -9 at random moments of `make tulu3`, the same line again until it finishes, tensors compared
    kill      kill -9 at random moments of pt-sft, pt-dpo, pt-rlvr and pt-sample, run again, bytes compared
    merge     kill -9 at random moments of pt-merge (ties, three models of 0.3 GB), run again, bytes compared
    signals   TERM, USR1, USR2 and INT at random moments: 75 (or true SIGINT), never 0; run again, bytes compared

Writes faults/results.json: {"name", "cases", "failures", "upper_bound"}, the bound being the 95 % Clopper-Pearson upper
bound of the failure rate. Exits 1 if anything failed.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from pt_tools import outdir
from pt_tools.errors import BadModel

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ENV = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
FAULTS = ROOT / "faults"
UNFINISHED = {75, -signal.SIGINT, -signal.SIGKILL}


def upper_bound(cases: int, failures: int) -> float:
    """95 % Clopper-Pearson upper bound of a rate, by bisection of the binomial tail."""
    from math import comb

    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        tail = sum(comb(cases, k) * p**k * (1 - p) ** (cases - k) for k in range(failures + 1))
        low, high = (p, high) if tail > 0.05 else (low, p)
    return round(high, 4)


def digests(directory: Path) -> dict:
    """sha256 of every tensor file below a directory, and of a file itself."""
    paths = [directory] if directory.is_file() else sorted(directory.rglob("*.safetensors"))
    return {str(p.relative_to(directory.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


class TooLate(Exception):
    """A command ended before its signal came."""


class Stage:
    """A small command line whose output can be compared."""

    def __init__(self, name: str, argv: list[str], work: Path):
        self.name, self.argv, self.work = name, argv, work

    def start(self, out: Path):
        return subprocess.Popen([BIN / self.argv[0], *self.argv[1:], "-o", str(out), "-q"], cwd=self.work, env=ENV,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)

    def whole(self, suffix: str) -> tuple[dict, float]:
        """Digests of an uninterrupted run, and its seconds."""
        began = time.monotonic()
        out = self.work / f"{self.name}.{suffix}"
        child = self.start(out)
        _, err = child.communicate()
        assert child.returncode == 0, err.decode()
        return self.compared(out), time.monotonic() - began

    def compared(self, out: Path) -> dict:
        """Digests by file name; a file output goes by the stage's name."""
        return {self.name if out.is_file() else Path(k).name: v for k, v in digests(out).items()}

    def broken(self, number: int, delay: float, case: int, wanted: dict) -> str | None:
        """Send a signal after `delay` seconds, run again to the end; what went wrong, or None.

        Raises TooLate if the command had finished before its signal: that tried nothing.
        """
        out = self.work / f"{self.name}.{case}"
        child = self.start(out)
        try:
            child.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            child.send_signal(number)
        else:
            child.stderr.close()
            raise TooLate
        code = child.wait()
        child.stderr.close()
        if code not in UNFINISHED | {0} and code != -number:
            return f"exit {code} after signal {number} at {delay:.2f} s"
        if code == 0 and not out.exists():
            return "exit 0 without an output"
        if out.is_dir():
            outdir.verify(out)  # what there is, is whole
        again = self.start(out)
        _, err = again.communicate()
        if again.returncode != 0:
            return f"the second run: exit {again.returncode}: {err.decode().strip()}"
        if self.compared(out) != wanted:
            return f"other bytes after signal {number} at {delay:.2f} s"
        left = out.with_name(out.name + ".run")
        return f"{left.name} is still there after signal {number} at {delay:.2f} s" if left.exists() else None


def stages(work: Path) -> list[Stage]:
    """A tiny world and one short run of every training command and of the sampler."""
    world = work / "world"
    subprocess.run([sys.executable, ROOT / "scripts/tiny/world.py", "--seed", "9", "-o", world], check=True, env=ENV)
    rows = {name: (world / f"{name}.jsonl").read_text().splitlines()[:240] for name in ("sft", "rlvr")}
    for name, lines in rows.items():
        (work / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    pairs = [{"prompt": m[:-1], "chosen": m[-1:], "rejected": [{"role": "assistant", "content": "It is a fox."}]}
             for m in (json.loads(line)["messages"] for line in rows["sft"][:120])]
    (work / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    sft = Stage("sft", ["pt-sft", "sft.jsonl", "-m", str(world / "blank"), "--from-scratch", "--epochs", "3",
                        "--batch-size", "16", "--micro-batch-size", "8", "--lr", "1e-3", "--save-every", "7", "--threads", "1"], work)
    sft.whole("start")
    model = str(work / "sft.start")
    return [sft,
            Stage("dpo", ["pt-dpo", "pairs.jsonl", "-m", model, "--batch-size", "8", "--epochs", "3", "--lr", "1e-4",
                          "--save-every", "7", "--threads", "1"], work),
            Stage("rlvr", ["pt-rlvr", "rlvr.jsonl", "-m", model, "--group-size", "4", "--batch-size", "32",
                           "--max-steps", "30", "--max-new-tokens", "24", "--lr", "1e-4", "--save-every", "7", "--threads", "1"], work),
            Stage("sample.jsonl", ["pt-sample", "rlvr.jsonl", "-m", model, "-n", "4", "--max-new-tokens", "24", "--batch-size", "64",
                                   "--threads", "1"], work)]


def merges(work: Path) -> list[Stage]:
    """A merge of models that are large enough for it to be stopped between two points from which it can go on."""
    sys.path.insert(0, str(ROOT / "scripts/bench"))
    import merge

    merge.make(work, layers=8)
    return [Stage("merge", ["pt-merge", "ties", "base", "a", "b", "-w", "0.5", "0.5", "--density", "0.5", "--threads", "2"], work)]


def trial(name: str, numbers: list, cases: int, rng: random.Random, make=stages) -> list[dict]:
    import tempfile

    results = []
    with tempfile.TemporaryDirectory(prefix="pt-faults-") as scratch:
        for stage in make(Path(scratch)):
            wanted, seconds = stage.whole("timed")
            failures, tried, case = [], 0, 0
            while tried < cases:
                case += 1
                try:
                    fault = stage.broken(rng.choice(numbers), rng.uniform(0.1, seconds), case, wanted)
                except TooLate:
                    continue
                except BadModel as error:
                    fault = f"a broken output: {error}"
                finally:
                    shutil.rmtree(stage.work / f"{stage.name}.{case}", ignore_errors=True)
                tried += 1
                failures += [fault] if fault else []
                print(f"{name} {stage.name} {tried}/{cases} {fault or 'ok'}", file=sys.stderr, flush=True)
            results.append(result(f"{name}-{stage.name.removesuffix('.jsonl')}", cases, failures))
    return results


def result(name: str, cases: int, failures: list) -> dict:
    return {"name": name, "cases": cases, "failures": len(failures), "upper_bound": upper_bound(cases, len(failures))}


def recipe(cases: int, rng: random.Random, make_flags: list[str]) -> list[dict]:
    """Kill the whole process group of make at random moments; afterwards the same line must finish with the same bytes."""
    flags = ["make", "--no-print-directory", "tulu3", *make_flags]
    whole, killed = FAULTS / "whole", FAULTS / "killed"
    shutil.rmtree(killed, ignore_errors=True)  # what an earlier trial finished cannot be broken
    began = time.monotonic()
    subprocess.run([*flags, f"RUNS={whole}"], cwd=ROOT, check=True, env=ENV)
    seconds = max(time.monotonic() - began, 240.0)
    moments = sorted(rng.uniform(0, seconds) for _ in range(cases))
    kills = sum(killed_after(moment - before + 8.0, [*flags, f"RUNS={killed}"])  # 8 s: a start that did something
                for before, moment in zip([0.0, *moments], moments))
    subprocess.run([*flags, f"RUNS={killed}"], cwd=ROOT, check=True, env=ENV)
    (table,) = whole.glob("*/tulu3/table.json")
    ours, theirs = digests(table.parent), digests(killed / table.relative_to(whole).parent)
    failures = [name for name in ours if ours[name] != theirs.get(name)]
    print(f"recipe: {kills} kills, {len(ours)} tensor files compared, {len(failures)} differ {failures}", file=sys.stderr)
    return [result("recipe-kill", kills, failures)]


def killed_after(seconds: float, argv: list[str]) -> bool:
    """Run a command and kill its whole process group after a while; False if it had finished by itself."""
    child = subprocess.Popen(argv, cwd=ROOT, env=ENV, start_new_session=True)
    try:
        if child.wait(timeout=seconds) != 0:
            sys.exit(f"recipe: exit {child.returncode} without a kill")
        return False
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        print(f"recipe: killed after {seconds:.1f} s", file=sys.stderr, flush=True)
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["kill", "signals"], metavar="PART")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", action="append", default=[], metavar="NAME=VALUE", help="for recipe: handed to make")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    run = {"recipe": lambda: recipe(args.cases, rng, args.make),
           "kill": lambda: trial("kill", [signal.SIGKILL], args.cases, rng),
           "merge": lambda: trial("kill", [signal.SIGKILL], args.cases, rng, merges),
           "signals": lambda: trial("signals", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT], args.cases, rng)}
    results = [row for part in args.parts for row in run[part]()]
    FAULTS.mkdir(exist_ok=True)
    old = json.loads((FAULTS / "results.json").read_text()) if (FAULTS / "results.json").exists() else []
    kept = [row for row in old if row["name"] not in {r["name"] for r in results}]
    (FAULTS / "results.json").write_text(json.dumps(kept + results, indent=1) + "\n")
    for row in results:
        print(row)
    sys.exit(any(row["failures"] for row in results))


if __name__ == "__main__":
    main()
