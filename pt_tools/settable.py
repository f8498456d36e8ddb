"""`--set NAME=VALUE`: which fields of a trainer's configuration can be reached, checked without importing it."""

import json
import math

from pt_tools.errors import Usage
from pt_tools.settable_fields import FIELDS, OWNED

_READ = {"int": int, "float": float, "str": str, "json": json.loads,
         "bool": lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()]}


def parse(trainer, pairs):
    """{name: value} from NAME=VALUE strings; Usage for a name that is unknown, or that pt-tools sets itself."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise Usage(f"--set {pair}: expected NAME=VALUE")
        values[name] = _value(FIELDS[trainer], name, text)
    return values


def _value(fields, name, text):
    if name not in fields:
        import difflib

        if name in OWNED:
            raise Usage(f"--set {name}: pt-tools sets this itself; use the command's own options (--help)")
        near = difflib.get_close_matches(name, fields, 1)
        raise Usage(f"--set {name}: no such field of the trainer" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        value = _READ[fields[name]](text)
    except (ValueError, KeyError):
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        raise Usage(f"--set {name}={text}: not a {fields[name]}")
    return value
