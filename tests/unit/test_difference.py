"""Two streams compared by id, against a twin that keeps all records."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pt_tools import record
from pt_tools.curate.difference import Difference

VALUES = st.sampled_from([0, 1, 1.0, True, "1", None, [1], [], {}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, "東京", "é", "e\u0301"])
ROWS = st.lists(st.builds(
    lambda id, text, more: ({"id": id} if id else {}) | {"text": text} | more,
    st.sampled_from(["", "", "a", "b", "本/2"]), st.sampled_from("xyz"),
    st.dictionaries(st.sampled_from(["n", "source", "reward"]), VALUES, max_size=2)), max_size=9)


def twin(old, new):
    """(id, change, keys that changed) in the order of the new rows, then of the old ones that are left."""
    left, found = list(old), []
    for row in new:
        before = next((one for one in left if name(one) == name(row)), None)
        if before is None:
            found.append((name(row), "added", set(row)))
            continue
        del left[next(i for i, one in enumerate(left) if one is before)]
        keys = {key for key in before | row if key not in before or key not in row or text(before[key]) != text(row[key])}
        found += [(name(row), "changed", keys)] if keys else []
    return found + [(name(row), "removed", set(row)) for row in left]


def name(row):
    return row.get("id") or record.content_hash(row)


def text(value):
    return json.dumps(value, sort_keys=True)


@given(ROWS, ROWS)
def test_differences_against_the_twin(old, new):
    old, new = json.loads(json.dumps([old, new]))  # no row is there twice but by value
    seen = Difference()
    for row in old:
        assert seen.before(row) is None
    found = [change for change in map(seen.after, new) if change] + list(seen.removed())
    assert [(one["id"], one["change"], set(one["keys"])) for one in found] == twin(old, new)
    assert seen.counts["same"] + seen.counts["changed"] + seen.counts["added"] == len(new)
    assert seen.counts["same"] + seen.counts["changed"] + seen.counts["removed"] == len(old)


@given(ROWS)
def test_nothing_differs_from_itself(rows):
    seen = Difference()
    for row in rows:
        seen.before(row)
    assert not any(map(seen.after, rows)) and not list(seen.removed()) and not seen.reordered
    assert seen.counts["same"] == len(rows)
