"""`code`: runs a submission in the sandbox against tests that stay outside of its process.

    {"name": "code", "tests": ["assert f(1) == 2", …], "entry_point": "f", "setup": "…", "prompt": "…"}
    {"name": "code", "stdio": [{"input": "1 2", "output": "3"}]}
    {"name": "code", "calls": [{"args": [1, 2], "expected": 3}], "entry_point": "f"}

Options of all three: `timeout_s` for the whole completion (10; time in which it waits for a processor does not count),
`memory_mb` of address space (512), `reward`: "all" (1 if every test passes, the default) or "fraction" of the tests
that pass.

The submission runs in a jail of its own and only plain values come out of it (jail/values.py), so a test counts as
passed only if the comparison, made in another process, says so. No result is a failure. Arguments are copies: what a
submission changes in them is not seen; objects of its own are neither compared nor calculated with.

`prompt` is the start of a module (HumanEval): where a completion does not define the entry point itself, it is taken as
what continues the prompt (the body of the function); what the prompt defines beside the entry point is trusted, and
always there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from pt_tools.rewards import code_run, code_text, sandbox

MAX_PROGRAM = 2**20  # characters
MAX_TIMEOUT_S, MAX_MEMORY_MB = 600, 8192
FORMS = {"tests": {"entry_point", "setup", "prompt"}, "calls": {"entry_point", "prompt"}, "stdio": set()}
COMMON = {"name", "key", "timeout_s", "memory_mb", "reward"}
RUN = {"tests": code_run.run_tests, "calls": code_run.run_calls, "stdio": code_run.run_stdio}


@dataclass(frozen=True)
class Plan:
    """A verifier object, checked: what to run and what the submission must define."""

    form: str
    tests: list
    calls: list
    stdio: list
    names: list  # that the submission must define
    modules: list  # standard modules that the tests use without importing them
    given: list  # trusted texts that come before the tests
    setup: str
    prompt: str | None
    fraction: bool
    timeout_s: float
    limits: sandbox.Limits

    def count(self):
        return len(getattr(self, self.form))


def check(spec):
    """ValueError(reason) if this object can never grade anything."""
    _plan_of(spec)


def grade(spec, completion, tier=None):
    """(score, {"tier", "passed", "of", "reason"}); `tier` forces a sandbox tier. NoSandbox, sandbox.Failed."""
    plan = _plan_of(spec)
    tier = tier or sandbox.best()
    texts = _texts(plan, completion["text"])
    if not texts[-1].strip():
        passed, reason = [], "no code"
    elif len(texts[-1]) > MAX_PROGRAM:
        passed, reason = [], f"more than {MAX_PROGRAM} characters of code"
    else:
        passed, reason = RUN[plan.form](plan, texts, tier)
    right = sum(passed)
    detail = {"tier": tier, "passed": right, "of": plan.count()}
    if right < plan.count():
        detail["reason"] = reason or "no result"
    return right / plan.count() if plan.fraction else float(right == plan.count()), detail


def _texts(plan, text):
    """The texts that make up the submission's module, the completion's own last."""
    code = code_text.unindented(code_text.program(text, plan.names), plan.names)
    if plan.prompt is None:
        return [code]
    if any(code_text.defines(code, name) for name in plan.names):
        return [*plan.given, code]
    return [plan.prompt + code if code.strip() else ""]


def _plan_of(spec):
    try:
        return _plan(json.dumps(spec, sort_keys=True, allow_nan=False))
    except TypeError:
        raise ValueError("the verifier is not what JSON can hold") from None


@lru_cache(maxsize=256)
def _plan(text):
    spec = json.loads(text)
    forms = [form for form in FORMS if form in spec]
    if len(forms) != 1:
        raise ValueError("give exactly one of `tests`, `stdio` and `calls`")
    form = forms[0]
    unknown = sorted(spec.keys() - COMMON - {form} - FORMS[form])
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} beside `{form}`")
    if not isinstance(spec[form], list) or not spec[form]:
        raise ValueError(f"`{form}` is no list, or an empty one")
    for item in spec[form]:
        ITEMS[form](item)
    for key in FORMS[form] & spec.keys():
        if not isinstance(spec[key], str):
            raise ValueError(f"`{key}` is no text")
    names, modules, given = _names(form, spec)
    timeout_s, memory_mb = _number(spec, "timeout_s", 10, MAX_TIMEOUT_S), _number(spec, "memory_mb", 512, MAX_MEMORY_MB)
    if spec.get("reward", "all") not in ("all", "fraction"):
        raise ValueError("`reward` is neither \"all\" nor \"fraction\"")
    return Plan(
        form, spec.get("tests"), spec.get("calls"), spec.get("stdio"), names, modules, given, spec.get("setup", ""),
        spec.get("prompt"), spec.get("reward") == "fraction", timeout_s,
        sandbox.Limits(wall_s=sandbox.longest(timeout_s) + 2 * sandbox.START_S, memory_mb=int(memory_mb), cpu_s=int(timeout_s) + 2),
    )  # fmt: skip


def _names(form, spec):
    """(names, modules, given) of Plan."""
    entry_point, prompt, given = spec.get("entry_point"), spec.get("prompt"), []
    if entry_point is not None and not entry_point.isidentifier():
        raise ValueError(f"`entry_point` is no name: {entry_point!r}")
    if prompt is not None:
        if entry_point is None:
            raise ValueError("`prompt` without `entry_point`")
        try:
            code_text.parse(prompt)
            given = [prompt]
        except ValueError:  # a start that is no module by itself can still be continued
            pass
    if form == "tests":
        return *code_text.wanted([spec.get("setup", ""), *spec["tests"]], given, entry_point), given
    if form == "calls" and entry_point is None:
        raise ValueError("`calls` without `entry_point`")
    return [entry_point] if entry_point else [], [], given


def _number(spec, key, default, most):
    value = spec.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise ValueError(f"`{key}` is no number above 0 and up to {most}")
    if key == "memory_mb" and value < 64:
        raise ValueError("`memory_mb` is below 64, less than Python itself needs")
    return value


def _test(item):
    if not isinstance(item, str):
        raise ValueError("a test is no text")


def _case(item):
    if not isinstance(item, dict) or item.keys() != {"input", "output"} or not all(
            isinstance(value, str) for value in item.values()):
        raise ValueError("a case of `stdio` is no object with the texts `input` and `output`")


def _call(item):
    if not isinstance(item, dict) or item.keys() != {"args", "expected"} or not isinstance(item["args"], list):
        raise ValueError("a call is no object with a list `args` and `expected`")


ITEMS = {"tests": _test, "stdio": _case, "calls": _call}
