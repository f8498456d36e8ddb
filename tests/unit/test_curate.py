"""Curation: hand-computed cases, naive twins on random data, and what must not depend on order."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pt_tools import record
from pt_tools.curate import choose, seeded
from pt_tools.curate.decontaminate import Index, Table
from pt_tools.curate.words import prompt_key, words


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# --- words --------------------------------------------------------------------------------------------------------


def test_words_and_prompt_keys():
    assert words("Don't_stop: ÉTÉ 3.14, 東京!") == ["don", "t", "stop", "été", "3", "14", "東京"]
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
    totals = Table({"exam": 100, "quiz": 50})
    hit = [{"eval": "exam", "id": f"e{i}"} for i in range(3)]
    totals.add("web", hit[:2])
    totals.add("web", hit[:1])
    totals.add("web", [])
    totals.add("books", hit)
    rows = {(r["source"], r["eval"]): r for r in totals.rows()}
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


# --- pairs --------------------------------------------------------------------------------------------------------


def scored(*rewards, id="r", **more):
    completions = [{"text": f"answer {i}", "token_ids": [i, 9], "model": "m", "finish": "stop", "reward": r}
                   for i, r in enumerate(rewards)]
    return {"id": id, "source": "s", "domain": "d", "prompt": [user("u")], "prompt_ids": [1, 2], "tokenizer": "T",
            "template": "C", "completions": completions, **more}


def test_a_pair_by_hand():
    made, why = choose.pair(scored(0.25, 1.0, None))
    assert why is None
    assert made == {"id": "r", "source": "s", "domain": "d", "prompt": [user("u")], "chosen": [assistant("answer 1")],
                    "rejected": [assistant("answer 0")], "margin": 0.75, "prompt_ids": [1, 2], "tokenizer": "T",
                    "template": "C", "chosen_ids": [1, 9], "rejected_ids": [0, 9]}
    record.check(made)


def test_why_there_is_no_pair():
    assert choose.pair(scored(1.0, 1.0, 1.0)) == (None, "tie: all rewards are equal")
    assert choose.pair(scored(1.0, None))[1] == "fewer than two completions with a reward and a text"
    assert choose.pair(scored())[1] == "fewer than two completions with a reward and a text"
    assert choose.pair(scored(1.0, 0.75), margin=0.5)[1] == "margin: no completion is so much worse than the best"
    assert choose.pair(scored(1.0, 0.5), margin=0.5)[0]["margin"] == 0.5
    same = scored(1.0, 0.5)
    same["completions"][1]["text"] = same["completions"][0]["text"]
    assert choose.pair(same)[1].startswith("same text")


def test_completions_that_cannot_be_trained_on_are_left_aside():
    rec = scored(1.0, 0.5, 0.25, 0.0)
    for completion, text in zip(rec["completions"][1:], (" ", "a<|user|>", "good")):
        completion["text"] = text
    rec["completions"][0]["finish"] = "error"
    assert choose.pair(rec)[0] is None
    assert [c["text"] for c in choose.usable_completions(rec)] == ["good"]


def test_rejected_is_any_lower_one_and_chosen_any_best_one():
    rejected, chosen = Counter(), Counter()
    for i in range(1200):
        made, _ = choose.pair(scored(3, 2, 1, 0, 3, None, id=str(i)), seed=1)
        rejected[made["rejected"][0]["content"]] += 1
        chosen[made["chosen"][0]["content"]] += 1
    assert rejected.keys() == {"answer 1", "answer 2", "answer 3"} and chosen.keys() == {"answer 0", "answer 4"}
    assert all(abs(n - 400) < 60 for n in rejected.values()) and abs(chosen["answer 0"] - 600) < 60
    assert {choose.pair(scored(3, 2, 1, 0, id=str(i)), rejected="worst")[0]["margin"] for i in range(50)} == {3}
    assert {choose.pair(scored(3, 2, 1, 0, id=str(i)), margin=2)[0]["margin"] for i in range(50)} == {2, 3}


def test_pairs_are_a_matter_of_seed_and_id_alone():
    many = [scored(3, 2, 1, 0, id=str(i)) for i in range(50)]
    one = {rec["id"]: choose.pair(rec, seed=4)[0] for rec in many}
    two = {rec["id"]: choose.pair(rec, seed=4)[0] for rec in random.Random(0).sample(many, 50)}
    other = {rec["id"]: choose.pair(rec, seed=5)[0] for rec in many}
    assert one == two != other


def test_ids_of_another_tokenizer_are_left_out():
    pool = scored(1.0, 0.0)
    pool["completions"][1]["model"] = "other"
    assert "chosen_ids" not in choose.pair(pool)[0] and "prompt_ids" not in choose.pair(pool)[0]
    pool["completions"][0]["tokenizer"] = pool["completions"][1]["tokenizer"] = "T"
    assert choose.pair(pool)[0]["rejected_ids"] == [1, 9]
    pool["completions"][1]["tokenizer"] = "U"
    assert "tokenizer" not in choose.pair(pool)[0]
    server = scored(1.0, 0.0)
    del server["completions"][0]["token_ids"]
    assert "chosen_ids" not in choose.pair(server)[0]


# --- best of n ----------------------------------------------------------------------------------------------------


def test_best_by_hand():
    rec = scored(0.5, 1.0, None, 1.0, 0.0)
    made, why = choose.best(rec)
    assert why is None
    assert made == [{"id": "r", "source": "s", "domain": "d", "messages": [user("u"), assistant("answer 1")],
                     "reward": 1.0, "rank": 1}]
    record.check(made[0])
    made, _ = choose.best(rec, k=3, min_reward=0.5)
    assert [(m["id"], m["messages"][-1]["content"], m["rank"]) for m in made] == [
        ("r", "answer 1", 1), ("r/2", "answer 3", 2), ("r/3", "answer 0", 3)]
    assert len(choose.best(rec, k=9, min_reward=0.5)[0]) == 3
    assert choose.best(rec, min_reward=1.5) == ([], "no completion reaches --min-reward")
    assert choose.best(scored(None)) == ([], "no completion with a reward and a text")


def test_best_keeps_one_of_equal_texts():
    rec = scored(1.0, 1.0, 0.5)
    rec["completions"][1]["text"] = "answer 0"
    assert [m["messages"][-1]["content"] for m in choose.best(rec, k=3)[0]] == ["answer 0", "answer 2"]


def test_best_trains_the_new_turn_only():
    rec = scored(1.0, prompt=[user("u"), assistant("old"), user("v")])
    assert [turn.get("train", True) for turn in choose.best(rec)[0][0]["messages"]] == [True, False, True, True]


# --- chance -------------------------------------------------------------------------------------------------------


def test_chance_is_uniform_and_fixed():
    draws = [seeded.draw(0, "x", i) for i in range(4000)]
    assert all(0 <= d < 1 for d in draws) and abs(sum(draws) / 4000 - 0.5) < 0.02
    assert seeded.key(0, "a", "b") == seeded.key(0, "a", "b") != seeded.key(0, "ab")
    assert seeded.key(7, "split", "hello") == 8252500917921040020  # a new release splits as the last one did
