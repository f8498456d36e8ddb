"""The `reasoning-gym` verifier: an entry of a reasoning-gym data set, scored by the set's own scorer.

    {"name": "reasoning-gym", "dataset": "basic_arithmetic", "entry": {"question": …, "answer": …, "metadata": {…}}}
    optional: "partial": false

Needs the extra `[gym]` (reasoning-gym). The answer is what stands in the last `<answer>…</answer>` behind the thinking,
or all that stands there. Its scorers are not made for hostile answers, so:

- They run in a worker process with limits on processor time and memory. A scorer that would run text as Python code
  (`eval`, sympy's `parse_expr`, on the answer or on the entry) is stopped before it does.
- An entry is used only if its scorer gives its own answer the full score, where it has one, and a senseless answer
  less; else the row is an error (`game_of_life_halting` pays for any text; for `countdown` use our own verifier).
- Where the entry is sound, a scorer that raises, or is stopped, on a completion scores it 0 with the reason.
- Only the full score counts: many sets pay 0.01 to 0.1 for a wrong answer. "partial": true passes the set's score on.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import re

from pt_tools.rewards import common, worker

MAX_ANSWER = 100_000  # characters
CPU_S = 10.0  # processor time for one answer
WALL_S = 120.0  # only ends what is stuck
MEMORY_MB = 4096
SENSELESS = "no answer at all"

_NAME = re.compile(r"[a-z0-9_]{1,100}")
_POOL = worker.Pool(f"{__name__}:work", memory_mb=MEMORY_MB)


def check(spec):
    """ValueError(reason) if the package or a part of the entry is missing. Nothing is imported."""
    common.only(spec, "dataset", "entry", "partial")
    name, entry = spec.get("dataset"), spec.get("entry")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"dataset must be the name of a reasoning-gym set, not {name!r}")
    if not isinstance(entry, dict) or not entry.keys() >= {"question", "answer", "metadata"}:
        raise ValueError("entry must be an object with question, answer and metadata")
    if not isinstance(entry["answer"], (str, type(None))):
        raise ValueError("the answer of the entry must be a text or null")
    common.choice(spec, "partial", (False, True))
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ValueError("needs reasoning-gym: pip install pt-tools[gym]")


def grade(spec, completion):
    """(score, {"answer": …, "score": the set's}) or (0.0, {"reason": …}). Raises Failed if the entry is of no use."""
    answer = _answer(completion["text"])
    if not answer or len(answer) > MAX_ANSWER:
        return 0.0, {"reason": f"the answer is longer than {MAX_ANSWER} characters" if answer else "empty"}
    request = json.dumps([spec["dataset"], spec["entry"], answer])  # as ASCII: a text may hold lone surrogates
    try:
        score, reason = _POOL.call(request, WALL_S)
    except worker.Timeout:
        score, reason = 0.0, "it takes too long"
    shown = {"answer": answer[:200], "score": score} if reason is None else {"answer": answer[:200], "reason": reason}
    return (score if spec.get("partial", False) else float(score >= 1)), shown


def _answer(text):
    text = common.part(text[: common.MAX_TEXT + 1], "answer")
    closing = text.rfind("</answer>")
    opening = text.rfind("<answer>", 0, max(closing, 0))
    return (text if opening < 0 else text[opening + len("<answer>") : closing]).strip()


def work(request):
    """The worker's side: [the set's score, None] or [0, reason]. Raises if the entry is of no use."""
    name, entry, answer = json.loads(request)
    text = json.dumps(entry)
    _prove(name, text)
    try:
        score = _score(name, text, answer)
    except common.TooSlow:
        return 0.0, "it takes too long"
    except MemoryError:
        return 0.0, "it takes too much memory"
    except Exception as error:
        return 0.0, f"the scorer fails on it: {type(error).__name__}"
    return score, None


@functools.lru_cache(maxsize=256)
def _prove(name, entry):
    """ValueError if a scorer does not tell the entry's own answer from a senseless one."""
    own = json.loads(entry)["answer"]
    try:
        if own is not None and _score(name, entry, own) < 1:
            raise ValueError(f"{name} does not give the entry's own answer the full score")
        senseless = _attempt(name, entry, SENSELESS)
    except common.TooSlow:
        raise ValueError(f"{name} takes too long on the entry's own answer") from None
    if senseless >= 1:
        raise ValueError(f"{name} gives a senseless answer the full score")


def _attempt(name, entry, answer):
    try:
        return _score(name, entry, answer)
    except Exception:  # many scorers raise on words
        return 0.0


def _score(name, entry, answer):
    """The set's score of an answer. Raises what the scorer raises; _Stopped if it would have run text as code."""
    dataset, guard = _dataset(name), _guard()
    with common.cpu_limit(CPU_S):
        guard.stopped, guard.on = False, True
        try:
            score = float(dataset.score_answer(answer, json.loads(entry)))
        finally:
            guard.on = False
    if guard.stopped:  # a scorer may have caught the exception
        raise _Stopped(f"the scorer of {name} runs text as code")
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    return score


@functools.lru_cache(maxsize=16)
def _dataset(name):
    import reasoning_gym

    return reasoning_gym.create_dataset(name, size=1, seed=0)


class _Stopped(Exception):
    """A scorer would have run text as code."""


class _Guard:
    """An audit hook that, while `on`, refuses to compile a source text as eval and exec do."""

    def __init__(self):
        self.on = self.stopped = False

    def __call__(self, event, args):
        if self.on and event == "compile" and args[1] in ("<string>", b"<string>"):
            self.stopped = True
            raise _Stopped("text is not run as code")


@functools.lru_cache(maxsize=1)
def _guard():
    import sys

    guard = _Guard()
    sys.addaudithook(guard)  # for the life of the worker
    return guard
