"""The commonest record told quickly: a conversation with nothing in it that has to be looked at twice.

Most rows of most files are such, and this is a third of what it costs to find every possible fault.
"""

import functools

from pt_tools import record

FLAT = (str, int, float, bool, type(None))
FIRST_ROLES = ("system", "user")
# Keys that make another kind of record, or that have a form of their own.
OTHERS = frozenset(record.FIELDS) - {"messages", "id", "source", "domain"}


def is_plain(rec: dict) -> bool:
    """Whether a row is a conversation that `record.check` accepts, and nested no deeper than that takes. False says nothing."""
    if type(rec) is not dict:
        return False
    labels, more = _keys(tuple(rec))
    if labels is None:
        return False
    for key in labels:
        if type(rec[key]) is not str:
            return False
    for key in more:
        if type(rec[key]) not in FLAT and not _is_flat(rec[key]):
            return False
    return rec.get("id") != "" and _are_plain(rec["messages"])


@functools.lru_cache(maxsize=1000)
def _keys(keys):
    """(labels, keys that the schema does not know) of a conversation; (None, None) of anything else."""
    if "messages" not in keys or not OTHERS.isdisjoint(keys):
        return None, None
    labels = [key for key in keys if key in record.LABELS]
    return labels, [key for key in keys if key not in labels and key != "messages"]


def _is_flat(value):
    values = value.values() if type(value) is dict else value if type(value) is list else (value,)
    return all(type(one) in FLAT for one in values)


def _are_plain(turns):
    role, allowed, after = None, FIRST_ROLES, record.NEXT_ROLES
    if type(turns) is not list:
        return False
    try:
        for turn in turns:
            role, content = turn["role"], turn["content"]
            if type(content) is not str or len(turn) != 2 or role not in allowed or not content or content.isspace():
                return False
            if ("<" in content or "[" in content) and record.template_token(content):
                return False
            allowed = after[role]
    except (KeyError, TypeError):  # no message
        return False
    return role == "assistant"
