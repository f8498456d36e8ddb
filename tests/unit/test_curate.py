"""Curation: hand-computed cases, naive twins on random data, and what must not depend on order."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pt_tools import record
from pt_tools.curate import seeded
from pt_tools.curate.decontaminate import Index, Table
from pt_tools.curate.words import prompt_key, words


# --- words --------------------------------------------------------------------------------------------------------


def test_words_and_prompt_keys():
    assert words("Don't_stop: ÉTÉ 3.14, 東京!") == ["don", "t", "stop", "été", "3", "14", "東", "京"]
    assert prompt_key(["What is 2+2?"]) == prompt_key(["what  IS 2 + 2"]) == ("what is 2 + 2",)
    assert len({prompt_key([f"What is 47{op}38?"]) for op in "+-*/^"}) == 5
    assert prompt_key(["a well-known man"]) == prompt_key(["A well known man."])
    assert prompt_key(["?!"]) != prompt_key(["!?"])
    assert prompt_key(["a b"]) != prompt_key(["a", "b"])


# --- decontamination ----------------------------------------------------------------------------------------------


def index_of(*prompts, n=8, coverage=0.5):
    index = Index(n, coverage)
    for i, prompt in enumerate(prompts):
        index.add("exam", f"e{i}", [prompt] if isinstance(prompt, str) else prompt)
    return index


def letters(text):
    return " ".join(text)


def test_coverage_by_hand():
    item = letters("abcdefghijklmnop")  # 16 words
    index = index_of(item)
    # 8 of 16 words is one half: not above it.
    assert index.find([letters("abcdefgh")]) == []
    assert index.find([letters("xxabcdefghixx")]) == [
        {"eval": "exam", "id": "e0", "coverage": 0.5625, "span": "a b c d e f g h i"}]
    # 7 words in a row are no 8-gram, however many there are.
    assert index.find([letters("abcdefg"), letters("hijklmn")]) == []
    # Two runs of 8 that overlap in the item are counted once: a-h and e-l are 12 words.
    assert index.find([letters("abcdefgh"), letters("efghijkl")])[0]["coverage"] == 0.75
    # The end of one turn and the start of the next are not one text.
    assert index.find([letters("abcdefgh"), letters("xxxx")]) == []
    assert index_of(letters("abcdefgh") + " " + letters("ijklmnopq"), coverage=0.4).find([letters("abcd"), letters("efgh")]) == []


def test_coverage_is_of_one_row():
    index = index_of(letters("abcdefghijklmnop"))
    assert index.find([letters("abcdefgh")]) == index.find([letters("ijklmnop")]) == []
    assert index.find([letters("abcdefgh"), letters("ijklmnop")])[0]["coverage"] == 1.0


def test_short_items_match_equal_prompts_only():
    index = index_of("What is 47+38?", letters("abcdefg"))
    assert index.find(["what is 47 + 38"])[0] == {"eval": "exam", "id": "e0", "coverage": 1.0, "span": "what is 47 38"}
    assert index.find(["What is 47-38?"]) == []
    assert index.find(["What is 47+38? Tell me."]) == []
    assert index.find(["Hi", "What is 47+38?"])[0]["id"] == "e0"  # one turn of several
    assert index.find([letters("abcdefg")])[0]["id"] == "e1"
    assert index.find([letters("xabcdefgx")]) == []


def test_equal_prompts_only():
    index = index_of(letters("abcdefghijkl"), n=0)
    assert index.find([letters("ABCDEFGHIJKL")])[0]["coverage"] == 1.0
    assert index.find([letters("abcdefghijklm")]) == []


def test_items_of_two_turns():
    index = index_of([letters("abcdefgh"), letters("ijk")])
    assert index.find([letters("abcdefgh")])[0]["coverage"] == pytest.approx(8 / 11, abs=1e-4)
    assert index.find([letters("ijk")]) == []


def naive_coverage(item, turns, n):
    """Word by word, from the definition."""
    split = [re.findall("[a-z]+", turn) for turn in turns]
    item_words = re.findall("[a-z]+", item)
    covered = 0
    for position in range(len(item_words)):
        starts = range(max(0, position - n + 1), min(position, len(item_words) - n) + 1)
        windows = [item_words[s:s + n] for s in starts]
        covered += any(turn[i:i + n] == w for w in windows for turn in split for i in range(len(turn) - n + 1))
    return covered / len(item_words)


SENTENCE = st.lists(st.sampled_from("abc"), min_size=1, max_size=14).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=4), st.lists(SENTENCE, min_size=1, max_size=3), st.integers(1, 5),
       st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_decontamination_equals_a_naive_twin(items, turns, n, threshold):
    found = {hit["id"]: hit["coverage"] for hit in index_of(*items, n=n, coverage=threshold).find(turns)}
    wanted = {}
    for i, item in enumerate(items):
        coverage = naive_coverage(item, turns, n)
        if coverage > threshold or item in turns:
            wanted[f"e{i}"] = 1.0 if item in turns else round(coverage, 4)
    assert found == wanted


def test_table_and_the_rule_of_two_percent():
    totals = Table()
    hit = [{"eval": "exam", "id": f"e{i}"} for i in range(3)]
    totals.add("web", hit[:2])
    totals.add("web", hit[:1])
    totals.add("web", [])
    totals.add("books", hit)
    rows = {(r["source"], r["eval"]): r for r in totals.rows({"exam": 100, "quiz": 50})}
    assert len(rows) == 4
    assert rows["web", "exam"] == {"source": "web", "eval": "exam", "items": 100, "hit": 2, "share": 0.02, "rows": 2,
                                   "contaminated": False}
    assert rows["books", "exam"]["contaminated"] is True and rows["books", "exam"]["rows"] == 1
    assert rows["books", "quiz"]["hit"] == 0


def test_the_tiny_world_is_clean(world):
    """The built-in world sets held-out prompts aside by its own rule; the published one finds nothing either."""
    import json

    def rows(name):
        return [json.loads(line) for line in (world / f"{name}.jsonl").open()]

    index = Index()
    for row in rows("heldout"):
        index.add("heldout", row["id"], record.user_turns(row))
    trained = [path.stem for path in world.glob("*.jsonl") if not path.stem.startswith(("heldout", "corpus"))]
    assert "sft" in trained and len(trained) > 3
    for name in trained:
        assert not any(index.find(record.user_turns(row)) for row in rows(name))
    assert all(index.find(record.user_turns(row)) for row in rows("heldout"))


# --- chance -------------------------------------------------------------------------------------------------------


def test_chance_is_uniform_and_fixed():
    draws = [seeded.draw(0, "x", i) for i in range(4000)]
    assert all(0 <= d < 1 for d in draws) and abs(sum(draws) / 4000 - 0.5) < 0.02
    assert seeded.key(0, "a", "b") == seeded.key(0, "a", "b") != seeded.key(0, "ab")
    assert seeded.key(7, "split", "hello") == 8252500917921040020  # a new release splits as the last one did
