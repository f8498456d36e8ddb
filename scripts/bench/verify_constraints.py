#!/usr/bin/env python3
"""Checks a second of the `constraints` verifier beside lm-eval's IFEval classes, in one process: one line of JSON.

    verify_constraints.py DATA [--oracle SITE-PACKAGES] [--nltk-data DIR] [--rows N]

Each of IFEval's 541 prompts, with all its instructions, checks real texts (Dolly, Alpaca, preference data) strictly;
DATA is the directory that holds them. The peer needs langdetect and nltk with punkt_tab; it is called plainly, building
its checkers anew each time as lm-eval does. Processor time of one core, best of three. How often the verdicts agree goes
to stderr.
"""

import argparse
import importlib
import json
import random
import sys
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pt_tools.rewards import constraints  # noqa: E402


def texts(data):
    """Real answers of natural length."""
    found = [row["output"] for name in ("dolly/dolly_3k.json", "sft/alpaca_en_demo.json") for row in load(data / name)]
    pairs = load(data / "preference/dpo_en_demo.json")
    found += [row[side]["value"] for row in pairs for side in ("chosen", "rejected")]
    return [text for text in found if text.strip()]


def load(path):
    return json.loads(path.read_text())


def peer(oracle, nltk_data):
    """lm-eval's {id: class}, without importing the rest of lm-eval; None where it cannot be imported."""
    sys.path.append(oracle)
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
        package = types.ModuleType(name)
        package.__path__ = [f"{oracle}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    try:
        if nltk_data:
            importlib.import_module("nltk").data.path.insert(0, nltk_data)
        registry = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry")
        tools = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
        punkt = importlib.import_module("nltk.tokenize").PunktTokenizer("english")
    except (ImportError, LookupError) as error:
        print(f"no peer: {error}", file=sys.stderr)
        return None
    tools._get_sentence_tokenizer = lambda: punkt  # its own way asks for a pickle, which nltk reads no more
    return registry.INSTRUCTION_DICT


def ours(work):
    """The verdicts, one an instruction."""
    return [verdict for row, text in work for verdict in constraints.grade(row, {"text": text})[1]]


def theirs(work, classes):
    return [check(classes[name](name), kwargs, text)
            for row, text in work for name, kwargs in zip(row["instruction_id_list"], row["kwargs"])]


def check(checker, kwargs, text):
    checker.build_description(**{key: value for key, value in kwargs.items() if value})
    return bool(checker.check_following(text))


def rate(run, *arguments):
    """(checks a second of processor time, best of three, and the verdicts)."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        verdicts = run(*arguments)
        seconds.append(time.process_time() - start)
    return len(verdicts) / min(seconds), verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--oracle", help="site-packages that hold lm_eval, langdetect and nltk")
    parser.add_argument("--nltk-data", help="directory with tokenizers/punkt_tab")
    parser.add_argument("--rows", type=int, default=541)
    given = parser.parse_args()
    rows = [json.loads(line) for line in (given.data / "ifeval/input_data.jsonl").read_text().splitlines()]
    rows = [{"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]} for row in rows]
    answers = texts(given.data)
    rng = random.Random(0)
    work = [(row, rng.choice(answers)) for row in rows[: given.rows]]
    speed, mine = rate(ours, work)
    found = {"name": "constraints: IFEval checks", "ours": round(speed), "peer": None, "peer_name": "lm-eval IFEval",
             "ratio": None, "unit": "checks/s"}
    classes = peer(given.oracle, given.nltk_data) if given.oracle else None
    if classes:
        speed, other = rate(theirs, work, classes)
        found.update(peer=round(speed), ratio=round(found["ours"] / speed, 1))
        print(f"{sum(a == b for a, b in zip(mine, other))} of {len(mine)} verdicts agree", file=sys.stderr)
    elif not given.oracle:
        print("no peer: --oracle names none", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
