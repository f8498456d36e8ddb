#!/usr/bin/env python3
"""Comparisons of answers per second of one core, ours beside math-verify called plainly, in one run: `verify_math.py [DATA]`.

Pairs are the final answers of GSM8K and MATH as they stand in the data: each with itself and with that of the next row.
Ours: `answers.compare`, the exact path, with cold caches (every text is new) and warm ones (as in a group of samples with
one gold answer). math-verify: `parse` on both and `verify`, on every 40th pair. Prints one JSON line; the figure is the
cold one.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

from pt_tools.rewards import answers, canonical, quantities, spelling

ROOT = Path(__file__).resolve().parents[2]
CACHES = (spelling.normal, quantities.quantity, quantities.split_unit, answers._parts, canonical.form, canonical.proportional)


def pairs(data):
    lines = [line for name in ("train", "test") for line in open(data / "gsm8k" / f"{name}.jsonl")]
    gsm8k = [json.loads(line)["answer"].rpartition("#### ")[2] for line in lines]
    rows = json.load(open(data / "math" / "train.json")) + [json.loads(x) for x in open(data / "math" / "math500_test.jsonl")]
    hard = [row["answer"] for row in rows if row["answer"]]
    texts = [text for pair in zip(gsm8k, hard) for text in pair]
    return [(f"{text} ", text) for text in texts] + list(zip(texts, texts[2:] + texts[:2]))


def rate(compare, work):
    start = time.process_time()
    for a, b in work:
        compare(a, b)
    return len(work) / (time.process_time() - start)


def peer(answer, gold):
    from math_verify import parse, verify

    return verify(parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None)


def main():
    data = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PT_DATA") or ROOT.parent / "shared" / "data")
    work = pairs(data)
    colds, warms = [], []
    for _ in range(3):
        for cache in CACHES:
            cache.cache_clear()
        colds.append(rate(answers.compare, work))
        warms.append(rate(answers.compare, work))
    logging.disable(logging.WARNING)
    peer("1", "2")
    theirs = rate(peer, work[::40])
    print(f"warm: {max(warms):.0f}/s", file=sys.stderr)
    print(json.dumps({
        "name": "math: comparisons of extracted answers", "ours": round(max(colds)), "peer": round(theirs),
        "peer_name": "math-verify parse + verify", "ratio": round(max(colds) / theirs, 1), "unit": "comparisons/s",
    }))  # fmt: skip


if __name__ == "__main__":
    main()
