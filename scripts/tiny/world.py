#!/usr/bin/env python3
"""Generate the tiny world: a seeded corpus to train a base model on, data for every later stage, and a blank model.

    python scripts/tiny/world.py --seed 0 -o world/

Only the standard library is needed, and the same seed writes the same bytes everywhere. Part of the corpus is wrong on
purpose, as the web is. No training file shares a prompt with the development or the held-out set: a training prompt is
drawn again when it equals one of theirs or shares eight consecutive words with one.
"""
import argparse
import json
import random
import re
from pathlib import Path

import blueprint
from tasks import DOMAINS, Noise, Task

EXAM = ("arithmetic", "strings", "constraints")
WEB = Noise(working=0.6, slip=0.15, guess=0.5, wrong=0.25, missed=0.25, babble=0.15, comply=0.5)
TAUGHT = Noise(working=0.7, slip=0.06, guess=0.3, wrong=0.1, missed=0.15, babble=0.03, comply=0.05)
MIX = {"arithmetic": 0.45, "strings": 0.25, "constraints": 0.27, "safety": 0.03}
EXAM_MIX = {"arithmetic": 1, "strings": 1, "constraints": 1}  # of the prompts for preferences and reinforcement
SIZES = {"corpus": 80_000, "sft": 4_000, "prompts": 1_500, "rlvr": 4_000, "dev": 200, "heldout": 300}


def words_of(prompt: str) -> tuple[str, ...]:
    return tuple(re.findall("[0-9a-z]+", prompt.lower()))


def grams(prompt: str) -> set[tuple[str, ...]]:
    """The runs of eight words, or the whole of a shorter prompt."""
    words = words_of(prompt)
    return {words[i:i + 8] for i in range(max(1, len(words) - 7))}


class World:
    """Draws tasks; what is set aside for an examination is never drawn for training."""

    def __init__(self, seed: int):
        self.seed = seed
        self._aside: set[tuple[str, ...]] = set()

    def stream(self, name: str) -> random.Random:
        return random.Random(f"tiny world/{self.seed}/{name}")

    def set_aside(self, name: str, domains: tuple[str, ...], per_domain: int) -> list[Task]:
        """Distinct prompts that nothing set aside before shares."""
        rng, tasks = self.stream(name), []
        for domain in domains:
            for _ in range(per_domain):
                task = self.draw(domain, rng)
                self._aside |= grams(task.prompt)
                tasks.append(task)
        return tasks

    def draw(self, domain: str, rng: random.Random) -> Task:
        while True:
            task = DOMAINS[domain](rng)
            if not grams(task.prompt) & self._aside:
                return task

    def mixed(self, rng: random.Random, count: int, mix: dict[str, float]):
        for domain in rng.choices(list(mix), list(mix.values()), k=count):
            yield self.draw(domain, rng)

    def distinct(self, rng: random.Random, count: int, mix: dict[str, float]) -> list[Task]:
        seen: dict[str, Task] = {}
        while len(seen) < count:
            for task in self.mixed(rng, count - len(seen), mix):
                seen.setdefault(task.prompt, task)
        return list(seen.values())


def _record(source: str, number: int, task: Task, **fields) -> dict:
    return {"id": f"{source}/{number}", "source": f"tiny/{source}", "domain": task.domain, "safety": task.safety} | fields


def _messages(source: str, tasks, rng: random.Random, noise: Noise):
    for number, task in enumerate(tasks):
        turns = [{"role": "user", "content": task.prompt}, {"role": "assistant", "content": task.answer(rng, noise)}]
        yield _record(source, number, task, messages=turns)


def _prompts(source: str, tasks):
    for number, task in enumerate(tasks):
        yield _record(source, number, task, prompt=[{"role": "user", "content": task.prompt}], verifier=task.verifier)


def _write(path: Path, records) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def generate(seed: int, out: Path, sizes: dict[str, int]) -> None:
    """Write every file of the world of this seed to the directory `out`."""
    world = World(seed)
    heldout = world.set_aside("heldout", EXAM, sizes["heldout"])
    safe_heldout = world.set_aside("heldout-safety", ("safety",), sizes["heldout"])
    dev = world.set_aside("dev", EXAM, sizes["dev"])
    safe_dev = world.set_aside("dev-safety", ("safety",), sizes["dev"])

    def drawn(name, draw, mix):
        rng = world.stream(name)
        return draw(rng, sizes[name], mix)

    corpus, sft = drawn("corpus", world.mixed, MIX), drawn("sft", world.mixed, MIX)
    files = {
        "corpus": _messages("corpus", corpus, world.stream("corpus answers"), WEB),
        "sft": _messages("sft", sft, world.stream("sft answers"), TAUGHT),
        "prompts": _prompts("prompts", drawn("prompts", world.distinct, EXAM_MIX)),
        "rlvr": _prompts("rlvr", drawn("rlvr", world.distinct, EXAM_MIX)),
        "dev": _prompts("dev", dev), "dev-safety": _prompts("dev-safety", safe_dev),
        "heldout": _prompts("heldout", heldout), "heldout-safety": _prompts("heldout-safety", safe_heldout),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        _write(out / f"{name}.jsonl", records)
    blueprint.write(out / "blank")


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate the tiny world.")
    parser.add_argument("--seed", type=int, default=0, help="everything in the world follows from it")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="directory to write")
    for name, size in SIZES.items():
        unit = "prompts a domain" if name in ("dev", "heldout") else "rows"
        parser.add_argument(f"--{name}", type=int, default=size, metavar="N", help=f"{unit} (default {size})")
    args = parser.parse_args()
    generate(args.seed, args.out, {name: getattr(args, name) for name in SIZES})


if __name__ == "__main__":
    main()
