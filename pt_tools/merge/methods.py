"""The methods by name; a module is imported when one of its methods is wanted."""

from __future__ import annotations

import difflib
import importlib

from pt_tools import merge
from pt_tools.errors import Usage
from pt_tools.merge.method import Method

SAME = {"soup": "linear", "uniform_soup": "linear", "warm": "linear", "multi_slerp": "multislerp", "ramplus": "ramplus_tl",
        "ram_plus": "ramplus_tl"}
VERBS = ("greedy_soup", "ema", "last", "lora", "lora_cat", "lora_extract")  # of the command, no methods


def get(name: str) -> Method:
    """The method; Usage, with the nearest name, if there is none."""
    known = merge.METHODS
    plain = name.replace("-", "_")
    plain = SAME.get(plain, plain)
    if plain not in known:
        names = [*known, *VERBS]
        near = difflib.get_close_matches(plain, names, 1)
        raise Usage(f"no such method: {name}"
                    + (f"; did you mean {near[0]}?" if near else f" (there are {', '.join(names)})"))
    module, _, attribute = known[plain].partition(":")
    return getattr(importlib.import_module(module), attribute)()
