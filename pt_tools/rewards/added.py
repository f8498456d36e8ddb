"""Verifiers that the command line adds to every record: a name, a JSON object, or a function of the user's."""

from __future__ import annotations

import re

from pt_tools import rewards
from pt_tools.rewards import worker

FUNCTION = re.compile(r"(?:([A-Za-z0-9_.-]+)=)?([A-Za-z_][\w.]*:[A-Za-z_]\w*)", re.A)


def configure(texts, unsafe_local=False):
    """Add the verifiers that `texts` name to every record of this process. ValueError says which text is wrong.

    A user's function is imported once, in a worker of its own: a wrong name is no failure of every single completion.
    """
    specs = tuple(map(parse, texts))
    rewards.configure(added=specs, unsafe_local=unsafe_local)
    for text, spec in zip(texts, specs):
        if spec["name"] == rewards.USER:
            try:
                rewards.module_of(spec, trusted=True).try_import(spec)
            except (worker.Lost, worker.Timeout) as error:
                raise ValueError(f"{text}: {error}") from None


def parse(text):
    """The verifier object of `format`, `{"name": "length", …}`, `module:function` or `key=module:function`.

    A user's function with options is `{"name": "user", "function": "module:function", "timeout_s": 5}`.
    """
    import orjson

    if function := FUNCTION.fullmatch(text):
        key, target = function.groups()
        return {"name": rewards.USER, "key": key or target.rpartition(":")[2], "function": target}
    if not text.lstrip().startswith("{"):
        spec = {"name": text}
    else:
        try:
            spec = orjson.loads(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no JSON object: {error}") from None
    rewards.keyed([spec])
    try:
        rewards.module_of(spec, trusted=True).check(spec)
    except ValueError as reason:
        raise ValueError(f"{text}: {reason}") from None
    return spec


def split(text):
    """(text, the file of the user's function that it names), for the run key; the file is None if there is none."""
    try:
        spec = parse(text)
    except ValueError:  # it is refused where it is used
        spec = {}
    target = spec.get("function")
    return text, _source(target.partition(":")[0], spec.get("path") or [""]) if target else None


def _source(module, path):
    """The file of a module in the folders `path` or on sys.path, without importing it; None if it is not there."""
    import sys
    from pathlib import Path

    part = Path(*module.split("."))
    for folder in (*path, *sys.path):
        for path in (Path(folder) / part.with_suffix(".py"), Path(folder) / part / "__init__.py"):
            if path.is_file():
                return str(path)
    return None
