"""What `stats` counts: lengths by hand, quantiles against a naive twin, parts that add up, tables and histograms."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import assistant, user

from pt_tools.curate import stats
from pt_tools.curate.stats import Stats, measure, spread, table


def test_measures_by_hand():
    two = {"messages": [{"role": "system", "content": "12"}, user("345"), assistant("Two words")]}
    assert measure(two) == {"kind": ["messages"], "turns": [3], "prompt_chars": [5], "response_chars": [9], "response_words": [2],
                            "rewards": [], "completions": 0, "mark": []}
    scored = {"prompt": "u", "completions": [{"text": "answer 1", "reward": 1.0, "rules": {"refusal": "no"}}, {"text": "answer 2"}],
              "contamination": [{"eval": "e"}], "rules": {"pii": "email"}}
    found = measure(scored)
    assert found["response_chars"] == [8, 8] and found["rewards"] == [1.0] and found["completions"] == 2
    assert found["mark"] == ["pii", "refusal", "contamination"]
    pair = {"chosen": [user("u"), assistant("long one")], "rejected": [user("u"), assistant("no")]}
    assert measure(pair)["response_chars"] == [8, 2] and measure(pair)["prompt_chars"] == [1]


ROWS = [{"text": "t"}, {"prompt": "u"}, {"prompt": "u", "completion": "a"}, {"chosen": "q a", "rejected": "q b"},
        {"prompt": "u", "completion": "a", "label": True, "source": "s", "domain": "d"},
        {"prompt": "東京", "source": "s", "completions": [{"text": "שלום", "reward": 0.5}, {"text": "", "reward": -1}, {"text": "x"}]}]


def test_every_kind_is_measured():
    total = Stats()
    for row in ROWS:
        total.add(row)
    report = total.report()
    assert report["rows"] == 6 and sum(report["kinds"].values()) == 6
    assert report["sources"]["s"]["rows"] == 2 and report["sources"]["none"]["rows"] == 4
    assert report["domains"]["d"]["kinds"] == {"unpaired": 1}
    s = report["sources"]["s"]
    assert (s["scored"], s["reward_mean"], s["completions"]) == (2, -0.25, 3)
    assert s["prompt_chars"]["sum"] == 3 and s["response_chars"]["max"] == 4


@given(st.lists(st.sampled_from(ROWS), max_size=20), st.integers(0, 20))
def test_parts_of_a_stream_add_up(rows, cut):
    whole, first, second = Stats(), Stats(), Stats()
    for i, row in enumerate(rows):
        whole.add(row, {"prompt": i, "all": 2 * i}, "en")
        (first if i < cut else second).add(row, {"prompt": i, "all": 2 * i}, "en")
    first.merge(second)
    assert first.report() == whole.report()
    assert whole.report()["languages"] == ({"en": len(rows)} if rows else {})
    assert sum(group["rows"] for group in whole.report()["sources"].values()) == len(rows)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200))
def test_spread_is_of_values_that_occur(values):
    found = spread(Counter(values))
    assert found["mean"] == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert (found["sum"], found["min"], found["max"]) == (sum(values), min(values), max(values))
    for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        rank = max(1, math.ceil(round(share * len(values), 9)))
        assert found[name] == sorted(values)[rank - 1]


def test_nothing_has_no_spread():
    assert spread(Counter()) is None and stats.histogram(Counter()) == ["nothing to show"]


def test_tables_are_aligned():
    rows = [{"name": "a", "n": 5, "share": 0.5, "ok": True}, {"name": "bcd", "n": 100, "share": None, "ok": False}]
    assert table(rows).splitlines() == ["name    n  share   ok", "a       5    0.5  yes", "bcd   100      -   no"]


def test_a_histogram_by_hand():
    lines = stats.histogram(Counter({2: 1, 4: 100, 5: 25}))
    assert [line.split() for line in lines] == [["2", "█", "1"], ["3", "0"], ["4", "█" * 50, "100"], ["5", "█" * 13, "25"]]
    lines = stats.histogram(Counter({7: 1, 10: 2, 19: 2, 20: 1, 300: 4}))
    assert [line.split() for line in lines] == [
        ["5", "to", "9", "█" * 13, "1"], ["10", "to", "19", "█" * 50, "4"], ["20", "to", "49", "█" * 13, "1"], ["50", "to", "99", "0"],
        ["100", "to", "199", "0"], ["200", "to", "499", "█" * 50, "4"]]
    assert len({len(line.rpartition(" ")[0]) for line in lines}) == 1, "aligned"


@given(st.dictionaries(st.integers(0, 10**9), st.integers(1, 1000), min_size=1, max_size=30))
def test_a_histogram_counts_every_value_once(counts):
    lines = stats.histogram(Counter(counts))
    assert sum(int(line.split()[-1]) for line in lines) == sum(counts.values()) and len(lines) <= 30
