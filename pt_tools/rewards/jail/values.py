"""Plain values as JSON, for the pipes between a jail and the outside.

Only None, bool, int, float, complex, str, bytes, range, list, tuple, set, frozenset and dict cross, always as exactly
these types, and the built-in types themselves. A value of a subclass crosses as its contents, so that no method written
by a submission is ever called on the side that compares. Anything else crosses as a `Ref`, a number under which the
submission's process keeps the object.
"""

from __future__ import annotations

import builtins
import json

MAX_DEPTH = 100
MAX_FRAME = 4 * 2**20  # bytes of one message
MAX_ITEMS = 10**6  # of one container; more cannot fit into a message
SMALL = 2**53
SEQUENCES = {"l": list, "t": tuple, "s": set, "f": frozenset}
TAGS = {kind: tag for tag, kind in SEQUENCES.items()}


class NotPlain(ValueError):
    """A value that cannot cross: too deep, too large, or of another kind."""


def dumps(value, refer=None):
    """JSON bytes of a value; `refer(object)` -> number for what is not plain. NotPlain without it, or if too large."""
    try:
        data = json.dumps(encode(value, refer), separators=(",", ":")).encode()
    except RecursionError:
        raise NotPlain("nested too deeply") from None
    if len(data) > MAX_FRAME:
        raise NotPlain(f"more than {MAX_FRAME} bytes")
    return data


def loads(data, resolve=None, tables=None):
    """The value of JSON bytes; `resolve(number)` -> what stands for a Ref. NotPlain for anything malformed.

    `tables` is TABLES or NAMED.
    """
    try:
        return decode(json.loads(data), resolve, tables or TABLES)
    except NotPlain:
        raise
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError, MemoryError) as error:
        raise NotPlain(f"malformed: {type(error).__name__}") from None


def encode(value, refer=None, depth=0):
    """The value as JSON can hold it: scalars as they are, all else as [tag, …]."""
    if depth > MAX_DEPTH:
        raise NotPlain("nested too deeply")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, type) and vars(builtins).get(value.__name__) is value:
        return ["y", value.__name__]
    kind = next((k for k in type(value).__mro__ if k in ENCODERS), None)
    if kind is not None:
        return ENCODERS[kind](value, lambda item: encode(item, refer, depth + 1))
    if refer is None:
        raise NotPlain(f"a value of type {type(value).__name__!r} is no plain value")
    return ["r", refer(value)]


def _int(value, _):
    value = int.__add__(value, 0)
    return value if -SMALL < value < SMALL else ["I", hex(value)]


def _fitting(kind, value):
    if kind.__len__(value) > MAX_ITEMS:
        raise NotPlain(f"more than {MAX_ITEMS} items")
    return value


def _dict(value, item):
    return ["d", *([item(key), item(held)] for key, held in dict.items(_fitting(dict, value)))]


def _sequence(kind):
    return lambda value, item: [TAGS[kind], *map(item, kind.__iter__(_fitting(kind, value)))]


ENCODERS = {
    int: _int,
    float: lambda value, _: float.__pos__(value),
    str: lambda value, _: str.__str__(value),
    complex: lambda value, _: ["c", complex.__pos__(value).real, complex.__pos__(value).imag],
    bytes: lambda value, _: ["b", bytes.hex(value)],
    range: lambda value, item: ["g", item(value.start), item(value.stop), item(value.step)],
    dict: _dict,
    **{kind: _sequence(kind) for kind in TAGS},
}


def _named(pairs):
    pairs = [(key if isinstance(key, str) else str(key), value) for key, value in pairs]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotPlain("two keys with the same text")
    return found


def _no_set(items):
    raise NotPlain("a set")


TABLES = {**SEQUENCES, "d": dict}
# For a process that must not hang: numbers can be chosen so that all have the same hash, and a table of them takes hours.
# Here a dict's keys are texts, as in JSON, which has no sets.
NAMED = {**TABLES, "s": _no_set, "f": _no_set, "d": _named}


def decode(value, resolve=None, tables=None, depth=0):
    """The inverse of `encode`, for data from a hostile side."""
    if depth > MAX_DEPTH:
        raise NotPlain("nested too deeply")
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise NotPlain("malformed")
        return value
    tag, items = value[0], value[1:]
    if tag in SEQUENCES:
        return tables[tag]([decode(item, resolve, tables, depth + 1) for item in items])
    if tag == "d":
        return tables[tag]((decode(key, resolve, tables, depth + 1), decode(held, resolve, tables, depth + 1))
                           for key, held in items)
    if tag == "I":
        return int(items[0], 16)
    if tag == "c":
        return complex(float(items[0]), float(items[1]))
    if tag == "b":
        return bytes.fromhex(items[0])
    if tag == "g":
        return range(*(decode(item, None, tables, depth + 1) for item in items))
    if tag == "y" and isinstance(vars(builtins).get(items[0]), type):
        return vars(builtins)[items[0]]
    if tag == "r" and resolve is not None and type(items[0]) is int:
        return resolve(items[0])
    raise NotPlain("malformed")
