"""Verifiers that the command line adds to every record: a name, a JSON object, or a function of the user's."""

from __future__ import annotations

import re

from pt_tools import rewards

FUNCTION = re.compile(r"(?:([A-Za-z0-9_.-]+)=)?([A-Za-z_][\w.]*:[A-Za-z_]\w*)", re.A)


def configure(texts, unsafe_local=False):
    """Add the verifiers that `texts` name to every record of this process. ValueError says which text is wrong."""
    rewards.configure(added=tuple(map(parse, texts)), unsafe_local=unsafe_local)


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
        target = parse(text).get("function", "")
    except ValueError:  # it is refused where it is used
        target = ""
    return text, _source(target.partition(":")[0]) if target else None


def _source(module):
    """The file of a module in the working directory or on sys.path, without importing it; None if it is not there."""
    import sys
    from pathlib import Path

    part = Path(*module.split("."))
    for folder in ("", *sys.path):
        for path in (Path(folder) / part.with_suffix(".py"), Path(folder) / part / "__init__.py"):
            if path.is_file():
                return str(path)
    return None
