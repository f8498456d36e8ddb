"""Sandboxed runs a second of the `code` verifier (two threads), beside a plain `python -I file` for each, in turns.

    python scripts/bench/verify_code.py [SECONDS]

Both run the same submissions with the same tests. A run of ours is a whole verdict: two jails, the submission's and the
tests'. One JSON line on stdout.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pt_tools.rewards import code, sandbox  # noqa: E402

THREADS, TURNS = 2, 3
SUBMISSION = """
def primes(n):
    sieve = [True] * (n + 1)
    for i in range(2, int(n ** 0.5) + 1):
        for j in range(i * i, n + 1, i):
            sieve[j] = False
    return [i for i in range(2, n + 1) if sieve[i]]
"""
TESTS = ["assert primes(10) == [2, 3, 5, 7]", "assert len(primes(1000)) == 168", "assert primes(1) == []"]


def ours():
    assert code.grade({"name": "code", "tests": TESTS}, {"text": SUBMISSION})[0] == 1.0


def plain():
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write("\n".join([SUBMISSION, *TESTS]))
        file.flush()
        assert subprocess.run([sys.executable, "-I", file.name], timeout=60).returncode == 0


def rate(run, seconds):
    """Runs a second from THREADS threads."""
    done, end, start = itertools.count(), time.monotonic() + seconds, time.monotonic()

    def work(_):
        while time.monotonic() < end:
            run()
            next(done)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    return next(done) / (time.monotonic() - start)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    tier = sandbox.tier()
    for run in (ours, plain):
        run()
    rates = [(rate(ours, seconds), rate(plain, seconds)) for _ in range(TURNS)]
    mine, theirs = (sorted(column)[TURNS // 2] for column in zip(*rates))
    print(json.dumps({"name": "verify code", "ours": round(mine, 1), "peer": round(theirs, 1),
                      "peer_name": f"plain subprocess, no isolation (ours: tier {tier})", "ratio": round(mine / theirs, 3),
                      "unit": f"runs/s, {THREADS} threads"}))  # fmt: skip


if __name__ == "__main__":
    main()
