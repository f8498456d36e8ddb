"""The `user` verifier: a function of whoever runs the command, never of the data.

    {"name": "user", "key": NAME, "function": "module:function"}
    optional: "timeout_s": 60, "path": [the current directory]

The function is called as `function(completion, spec)`, two dicts: the completion has `text` and what else pt-sample
wrote (`token_ids`, `finish`), the spec is this object. It returns a number, or {"score": number, "detail": what JSON
holds}. A score of 0 is how it says that a completion fails: an exception, a time-out, a score that is no finite number
or a process that dies is the grader's failure, an error of that completion.

It runs in worker processes, several at once, each importing the module once from `path` (in front of Python's own);
they are killed and started anew after a time-out. There is no sandbox and no memory limit: it is your code.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re

from pt_tools.rewards import common, worker

_TARGET = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.A)
_POOLS = {}  # (function, path) -> its workers; as many as the command line names


def check(spec):
    """ValueError(reason) if the object names no function. Nothing is imported."""
    common.only(spec, "function", "timeout_s", "path")
    target, path = spec.get("function"), spec.get("path", [])
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise ValueError(f"function must be module:function, not {target!r}")
    common.real(spec, "timeout_s", 0.001, 86400, 60)
    if not isinstance(path, list) or not all(isinstance(folder, str) for folder in path):
        raise ValueError("path must be a list of folders")


def grade(spec, completion):
    """What the function says: (score, detail). Raises worker.Failed, Lost or Timeout, or ValueError for no score."""
    request = json.dumps([completion, spec])  # as ASCII: a text may hold lone surrogates
    answer = _pool(spec).call(request, spec.get("timeout_s", 60))
    return answer["score"], answer["detail"]


def try_import(spec):
    """Import the function in a worker, and end it. Raises worker.Lost or Timeout if that cannot be done."""
    pool = _pool(spec)
    pool.start()
    pool.close()


def _pool(spec):
    key = spec["function"], tuple(spec.get("path") or [os.getcwd()])
    return _POOLS.get(key) or _POOLS.setdefault(key, worker.Pool(f"{__name__}:{key[0]}", memory_mb=0, path=key[1]))


def __getattr__(name):
    """The worker's side: `module:function` as an attribute, so that its import is not on a completion's time."""
    module, colon, function = name.partition(":")
    if not colon:
        raise AttributeError(name)
    function = getattr(importlib.import_module(module), function)
    return lambda request: _called(function, *json.loads(request))


def _called(function, completion, spec):
    answer = function(completion, spec)
    score, detail = (answer["score"], answer.get("detail")) if isinstance(answer, dict) else (answer, None)
    score = float(score)
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    return {"score": score, "detail": detail}
