"""What expressions can do with values of JSON: fields, comparisons, arithmetic, and the functions by name."""

_TYPES = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object",
          type(None): "null"}


def _type(value):
    return _TYPES.get(type(value), type(value).__name__)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- fields -------------------------------------------------------------------------------------------------------


def field(rec, name):
    """A field of the record; else the list of that field of its completions, if one of them has it; else null."""
    if name in rec:
        return rec[name]
    completions = rec.get("completions")
    if not isinstance(completions, list):
        return None
    values = [get(completion, name) for completion in completions]
    return values if any(value is not None for value in values) else None


def get(value, name):
    """A field of an object; of a list the fields of its items, lists among them joined; else null."""
    if isinstance(value, dict):
        return value.get(name)
    if not isinstance(value, list):
        return None
    found = []
    for one in value:
        one = get(one, name)
        if isinstance(one, list):
            found += one
        else:
            found.append(one)
    return found


def item(value, index):
    """An item of a list by number (negative from the end), a field of an object by name; null where there is none."""
    if isinstance(index, str):
        return get(value, index)
    if value is None:
        return None
    if not isinstance(index, int) or isinstance(index, bool) or not isinstance(value, (list, str)):
        raise ValueError(f"{_type(value)} has no item {index!r:.20}")
    return value[index] if -len(value) <= index < len(value) else None


def cut(value, start, end):
    """A part of a list or a text."""
    if value is None:
        return None
    if not isinstance(value, (list, str)) or not all(type(place) in (int, type(None)) for place in (start, end)):
        raise ValueError(f"{_type(value)} cannot be cut there")
    return value[start:end]


def items(value):
    """The items of a list; null has none, and any other value is one."""
    return value if isinstance(value, list) else [] if value is None else [value]


# --- operators ----------------------------------------------------------------------------------------------------


def equal(a, b):
    """Equal as JSON is: true is not 1, inside lists and objects neither. In Python, so that a limit of time can end it."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())
    return a == b


def ordered(test, a, b):
    """An order comparison: of two numbers or two texts; false where one of them is null."""
    if a is None or b is None:
        return False
    if (_is_number(a) and _is_number(b)) or (isinstance(a, str) and isinstance(b, str)):
        return test(a, b)
    raise ValueError(f"{_type(a)} is not compared with {_type(b)}" + (
        "; use max, min, or any(x > 0 for x in …)" if list in (type(a), type(b)) else ""))


def within(a, b):
    """Whether a list has an item, a text has a part, an object has a field; null has nothing."""
    if b is None:
        return False
    if isinstance(b, list):
        return any(equal(a, one) for one in b)
    if isinstance(b, (str, dict)) and (a is None or isinstance(a, str)):
        return a is not None and a in b
    raise ValueError(f"{_type(a)} is not looked for in {_type(b)}")


def arithmetic(act, a, b):
    if a is None or b is None:
        return None
    if not _is_number(a) or not _is_number(b):
        raise ValueError(f"no arithmetic with {_type(b if _is_number(a) else a)}")
    return act(a, b)


# --- functions ----------------------------------------------------------------------------------------------------


def _numbers(values, what):
    """The numbers (or texts) among several values, or in one list; nulls left out."""
    found = [value for value in (items(values[0]) if len(values) == 1 else values) if value is not None]
    kinds = {str if isinstance(value, str) else float if _is_number(value) else None for value in found}
    if None in kinds or len(kinds) > 1 or (what in ("sum", "mean") and str in kinds):
        raise ValueError(f"{what} of what are not all numbers")
    return found


def _max(*values):
    return max(_numbers(values, "max"), default=None)


def _min(*values):
    return min(_numbers(values, "min"), default=None)


def _sum(value):
    return sum(_numbers([value], "sum"))


def _mean(value):
    found = _numbers([value], "mean")
    return sum(found) / len(found) if found else None


def _len(value):
    if value is None:
        return 0
    if not isinstance(value, (str, list, dict)):
        raise ValueError(f"len of {_type(value)}")
    return len(value)


def _any(value):
    return any(items(value))


def _all(value):
    return all(items(value))


def _abs(value):
    return arithmetic(lambda a, b: abs(a), value, 0)


def _round(value, digits=0):
    if type(digits) is not int or abs(digits) > 15:
        raise ValueError("round to so many digits")
    return arithmetic(lambda a, b: round(a, digits) if digits else round(a), value, 0)


def text(value):
    """What messages, completions or a list of texts say, one below the other."""
    if isinstance(value, dict):
        value = value.get("content", value.get("text"))
    if isinstance(value, list):
        return "\n".join(text(one) for one in value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{_type(value)} is no text")
    return value


def _lower(value):
    return None if value is None else text(value).lower()


def _words(value):
    from pt_tools.curate.words import words

    return words(text(value))


def _language(value):
    from pt_tools.curate.faults import spoken

    return spoken(text(value))


def match(value, search):
    """Whether a pattern occurs in a text, or in one of a list of texts."""
    return any(search(one) for one in map(text, items(value)))


FUNCTIONS = {  # name: (function, least and most values)
    "abs": (_abs, 1, 1), "all": (_all, 1, 1), "any": (_any, 1, 1), "field": (field, 1, 1), "language": (_language, 1, 1),
    "len": (_len, 1, 1), "lower": (_lower, 1, 1), "match": (match, 2, 2), "max": (_max, 1, 20), "mean": (_mean, 1, 1),
    "min": (_min, 1, 20), "round": (_round, 1, 2), "sum": (_sum, 1, 1), "text": (text, 1, 1), "words": (_words, 1, 1),
}
