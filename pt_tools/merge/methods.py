"""The methods by name; a module is imported when one of its methods is wanted."""

from __future__ import annotations

import difflib
import importlib

from pt_tools import merge
from pt_tools.errors import Usage
from pt_tools.merge.method import Method

SAME = {"soup": "linear", "task-arithmetic": "task_arithmetic", "wise-ft": "wise_ft", "model-stock": "model_stock"}


def get(name: str) -> Method:
    """The method; Usage, with the nearest name, if there is none."""
    known = merge.METHODS
    name = SAME.get(name, name)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise Usage(f"no such method: {name}" + (f"; did you mean {near[0]}?" if near else f" (there are {', '.join(known)})"))
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()
