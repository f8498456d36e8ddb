#!/usr/bin/env python3
"""Time pt-curate on a seeded corpus with planted copies, beside rensa, datasketch and datatrove: rows per CPU second.

    curate.py [--dir DIR] [--peers PYTHON] [--rows N] [--seed S] [--repeat N]

The corpus of chats.py is made in DIR (kept there; else in a temporary directory). Every figure is of a whole command in a
process of its own, user and system time from the start of Python to the exit, the best of --repeat; output goes to a file.
PYTHON is of an environment with datatrove 0.10.1, datasketch 2.0.0 and rensa 0.5.0 (curate_peer.py has what they do);
datatrove sees the first rows only, it takes minutes. Recall is the share of planted pairs of Jaccard index 0.8 and more of
which one row is gone, precision the share of the rows gone that belong to a pair of 0.6 and more.

One JSON line an entry on stdout: name, ours, peer, peer_name, ratio (in our favour above 1), unit.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import chats

HERE = Path(__file__).resolve().parent
PT = Path(sys.executable).parent / "pt-curate"
FEW = 2_500  # rows for the slowest peer
DOUBTFUL = 0.05  # a coverage so near to one half decides nothing


# In a process of its own: a child's peak memory is at least what its parent had when it began.
RUN = """
import os, subprocess, sys
with open(sys.argv[1], "wb") as out:
    child = subprocess.Popen(sys.argv[2:], stdout=out)
_, status, usage = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""


def run(argv, out, repeat=1):
    """(CPU seconds, peak memory in MiB) of a command, the best of so many runs, with stdout in a file."""
    best = (float("inf"), 0.0)
    for _ in range(repeat):
        done = subprocess.run([sys.executable, "-S", "-c", RUN, out, *map(str, argv)], capture_output=True, text=True)
        code, seconds, memory = done.stdout.split()
        if code != "0":
            sys.exit(f"bench: {argv} failed\n{done.stderr}")
        best = min(best, (float(seconds), float(memory)))
    return best


def entry(name, ours, peer, peer_name, unit, more_is_better=True):
    ratio = (ours / peer if more_is_better else peer / ours) if ours and peer else None
    print(json.dumps({"name": name, "ours": round(ours, 4), "peer": peer and round(peer, 4), "peer_name": peer_name,
                      "ratio": ratio and round(ratio, 2), "unit": unit}), flush=True)


def ids(path):
    """Ids in a file of records, or of ids."""
    with open(path) as file:
        return [json.loads(line)["id"] if line.startswith("{") else line.rstrip("\n") for line in file]


class Truth:
    def __init__(self, folder):
        self.rows = ids(folder / "chats.jsonl")
        self.labels = [json.loads(line) for line in open(folder / "labels.jsonl")]

    def near(self, kept, rows):
        """(recall, precision) of near-dedup of the first rows."""
        kept, seen = set(kept), set(self.rows[:rows])
        pairs = [label for label in self.labels if "jaccard" in label and {label["id"], label["of"]} <= seen]
        families = defaultdict(set)
        for label in pairs:
            if label["jaccard"] >= 0.6:
                families[label["of"]].add(label["id"])
        may = {id for of, copies in families.items() for id in (of, *copies)}
        must = [label for label in pairs if label["jaccard"] >= 0.8]
        gone = seen - kept
        return sum(not {label["id"], label["of"]} <= kept for label in must) / len(must), len(gone & may) / max(1, len(gone))

    def contaminated(self, kept):
        """(recall, precision) of decontamination; what is contaminated by chance counts as wrong."""
        kept, planted = set(kept), {label["id"]: label["coverage"] for label in self.labels if "coverage" in label}
        must = [id for id, coverage in planted.items() if coverage > 0.5 + DOUBTFUL]
        gone = set(self.rows) - kept
        right = [id for id in gone if planted.get(id, 0) > 0.5 - DOUBTFUL]
        return sum(id not in kept for id in must) / len(must), len(right) / max(1, len(gone))


def near(folder, work, truth, args):
    ours, rows = work / "near", len(truth.rows)
    seconds, memory = run([PT, "dedup", "--near", folder / "chats.jsonl"], ours, args.repeat)
    recall, precision = truth.near(ids(ours), rows)
    run([PT, "dedup", "--near", folder / "chats.jsonl", "-j", "2"], work / "near2")
    entry("near-dedup: the same bytes from 1 and 2 processes", float(ours.read_bytes() == (work / "near2").read_bytes()), None, "", "yes")
    for peer in ("rensa", "datasketch", "datatrove") if args.peers else ():
        part, n = folder / "chats.jsonl", rows
        if peer == "datatrove":
            part, n = work / "few.jsonl", min(FEW, rows)
            part.write_bytes(b"".join((folder / "chats.jsonl").read_bytes().splitlines(True)[:n]))
        theirs, their_memory = run([args.peers, HERE / "curate_peer.py", peer, part], work / peer, args.repeat if peer == "rensa" else 1)
        entry("near-dedup", rows / seconds, n / theirs, peer, "rows/CPU s")
        their_recall, their_precision = truth.near(ids(work / peer), n)
        entry("near-dedup: recall of pairs of 0.8 and more", recall, their_recall, peer, "")
        entry("near-dedup: precision", precision, their_precision, peer, "")
        entry("near-dedup: peak memory", memory, their_memory, peer, "MiB", more_is_better=False)
    if not args.peers:
        entry("near-dedup", rows / seconds, None, "", "rows/CPU s")
        entry("near-dedup: recall of pairs of 0.8 and more", recall, None, "", "")
        entry("near-dedup: precision", precision, None, "", "")
    quarter = work / "quarter.jsonl"
    quarter.write_bytes(b"".join((folder / "chats.jsonl").read_bytes().splitlines(True)[:rows // 4]))
    _, before = run([PT, "dedup", "--near", quarter], work / "near4")
    entry("near-dedup: memory for every further row", (memory - before) * 2**20 / (rows - rows // 4), 250, "the most allowed", "bytes",
          more_is_better=False)


def exact(folder, work, truth, args):
    seconds, _ = run([PT, "dedup", folder / "chats.jsonl"], work / "exact", args.repeat)
    for name in ("xxh3_128", "sha256"):
        floor, _ = run([sys.executable, HERE / "curate_peer.py", f"floor-{name}", folder / "chats.jsonl"], work / "floor", args.repeat)
        entry("exact dedup", len(truth.rows) / seconds, len(truth.rows) / floor, f"reading, parsing and {name}", "rows/CPU s")


def decontaminate(folder, work, truth, args):
    seconds, _ = run([PT, "decontaminate", folder / "chats.jsonl", "--against", folder / "evals.jsonl"], work / "clean", args.repeat)
    sets, _ = run([sys.executable, HERE / "curate_peer.py", "grams", folder / "chats.jsonl"], work / "sets", args.repeat)
    name = "any shared 8-gram, Python sets"
    entry("decontamination against 2000 prompts", len(truth.rows) / seconds, len(truth.rows) / sets, name, "rows/CPU s")
    for what, ours, theirs in zip(("recall", "precision"), truth.contaminated(ids(work / "clean")), truth.contaminated(ids(work / "sets"))):
        entry(f"decontamination: {what}", ours, theirs, name, "")


def whole(folder, work, args):
    """Five commands with files between them; of each the best of the repeats."""
    seconds = {}
    for number in range(args.repeat):
        at = work / f"whole{number}"
        at.mkdir()
        a, b, c, d = (at / f"{name}.jsonl" for name in ("converted", "once", "apart", "clean"))
        steps = {"convert": (folder / "chats.jsonl", "-o", a), "dedup": (a, "-o", b), "dedup --near": (b, "-o", c),
                 "decontaminate": (c, "--against", folder / "evals.jsonl", "-o", d),
                 "split": (d, "--part", "train=0.95", "--part", "dev=0.05", "-o", at / "{part}.jsonl")}
        for step, words in steps.items():
            seconds[step] = min(seconds.get(step, float("inf")), run([PT, *step.split(), *words], work / "nothing")[0])
        shutil.rmtree(at)
    size = (folder / "chats.jsonl").stat().st_size / 1e6
    print("whole pass:", ", ".join(f"{name} {s:.2f}" for name, s in seconds.items()), f"CPU s for {size:.0f} MB", file=sys.stderr)
    entry("convert, dedup, dedup --near, decontaminate, split", sum(seconds.values()) * 150 / size, 8, "the most allowed", "CPU s/150 MB",
          more_is_better=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="keep the corpus here, and use it if it is there")
    parser.add_argument("--peers", help="python of the peers' environment")
    parser.add_argument("--rows", type=int, default=chats.ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        folder = args.dir / f"{args.rows}-{args.seed}" if args.dir else work / "corpus"
        if not (folder / "evals.jsonl").exists():
            chats.make(folder, args.rows, args.seed)
        truth = Truth(folder)
        near(folder, work, truth, args)
        exact(folder, work, truth, args)
        decontaminate(folder, work, truth, args)
        whole(folder, work, args)
        (work / "empty").touch()
        entry("start of pt-curate dedup", min(run([PT, "dedup", work / "empty"], work / "nothing")[0] for _ in range(3)), 0.2,
              "the most allowed", "CPU s", more_is_better=False)


if __name__ == "__main__":
    main()
