"""Weighted means of models as weights of one linear merge, and the greedy soup, which measures its members.

Compositions that need nothing new: WARM is `linear` with equal weights over reward models from one SFT model (the value
head is a tensor like others). WARP's second and third step are the method `warp`; done by hand they are `nuslerp` with
the common start as base, then `wise_ft` from that start.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from pt_tools.errors import BadData, BadModel, Usage


def uniform(count: int) -> list[float]:
    """Equal weights; sum 1."""
    return [1.0 / count] * count


def last(count: int, k: int) -> list[float]:
    """The mean of the last k of `count` checkpoints, oldest first."""
    if not 1 <= k <= count:
        raise ValueError(f"last: {k} of {count} checkpoints")
    return [0.0] * (count - k) + [1.0 / k] * k


def ema(count: int, beta: float) -> list[float]:
    """Weights of checkpoints x_0 … x_K, oldest first, in m_K where m_0 = x_0 and m_k = β m_(k−1) + (1−β) x_k.

    Closed form: β^K for x_0 and (1−β) β^(K−k) for x_k; sum 1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta: {beta} is not in [0, 1]")
    final = count - 1
    return [beta**final] + [(1 - beta) * beta ** (final - k) for k in range(1, count)]


def greedy(members: list, score: Callable, build: Callable, say: Callable = lambda line: None) -> tuple[list, float]:
    """Greedy soup (Wortsman et al. 2022, Recipe 1): (members kept, their score), best first.

    Members are scored and sorted, best first (equal scores keep the given order). Each joins if the plain mean of those
    kept and itself does not score worse than the mean so far. `score(directory)` → float, larger is better;
    `build(members)` → directory of their mean, which may be overwritten by the next call.
    """
    alone = [(score(member), member) for member in members]
    for value, member in alone:
        say(f"{member}: {value:g}")
    alone.sort(key=lambda pair: -pair[0])
    best, kept = alone[0][0], [alone[0][1]]
    for _, member in alone[1:]:
        value = score(build([*kept, member]))
        say(f"with {member}: {value:g} against {best:g}: {'kept' if value >= best else 'left out'}")
        if value >= best:
            best, kept = value, [*kept, member]
    return kept, best


def evaluator(command: str) -> Callable[[Path], float]:
    """A score function out of a command line in which `{}` stands for the model directory (no shell).

    The score is `mean.mean` of the last JSON object that the command prints, as `pt-eval --json` does, or a number
    alone on the last line. Usage without `{}`; BadModel if the command fails; BadData if it prints no finite score.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Usage(f"the evaluation command has an open quotation: {error}") from None
    if not any("{}" in word for word in words):
        raise Usage("the evaluation command must contain {}, where the model directory goes")

    def score(directory: Path) -> float:
        argv = [word.replace("{}", str(directory)) for word in words]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
        except OSError as error:
            raise Usage(f"the evaluation command cannot run: {error}") from None
        if done.returncode:
            raise BadModel(f"the evaluation command ended with status {done.returncode}", str(directory))
        value = read_score(done.stdout)
        if value is None or not math.isfinite(value):
            raise BadData("the evaluation command printed neither mean.mean nor a number", str(directory))
        return value

    return score


def read_score(text: str) -> float | None:
    """The number on the last line, or `mean.mean` of the last JSON object; None if there is neither."""
    lines = text.strip().splitlines() or [""]
    try:
        return float(lines[-1])
    except ValueError:
        found = last_object(text)
    mean = found.get("mean") if found else None
    value = mean.get("mean") if isinstance(mean, dict) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def last_object(text: str) -> dict | None:
    """The last JSON object that starts a line, on one line or many."""
    decoder, found, start = json.JSONDecoder(), None, 0
    while (start := text.find("{", start)) >= 0:
        try:
            if start and text[start - 1] != "\n":
                raise ValueError("not at the start of a line")
            found, start = decoder.raw_decode(text, start)
        except ValueError:
            start += 1
    return found
