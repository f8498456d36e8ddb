"""Spellings of the foreign forms: every row beside the record written by hand that it must become."""

import copy

import pytest
from rows import user

from pt_tools import record, rewards
from pt_tools.curate import formats


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, arguments, **more):
    return {"type": "function", **more, "function": {"name": name, "arguments": arguments}}


CHATS = {
    "roles in any spelling": (
        {"conversations": [{"from": "Human", "value": "a"}, {"from": "CHATGPT", "value": "b"}, {"from": "prompter", "value": "c"},
                           {"from": "bing", "value": "d"}, {"from": "user", "value": "e"}, {"from": "Bard", "value": "f"}]},
        [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")]),
    "developer is system": ({"messages": [{"role": "developer", "content": "s"}, user("u"), assistant("a")]},
                            [system("s"), user("u"), assistant("a")]),
    "a conversation of role and content": ({"conversation": [user("u"), assistant("a")]}, [user("u"), assistant("a")]),
    "system beside and inside, the same": ({"system": "s", "conversations": [{"from": "system", "value": "s"}, {
        "from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}, [system("s"), user("u"), assistant("a")]),
    "keys in another order": ({"messages": [{"content": "u", "role": "user"}, assistant("a")]}, [user("u"), assistant("a")]),
    "parts of a content": (
        {"messages": [{"role": "user", "content": ["u", {"text": "v"}, {"type": "input_text", "text": "w"}]}, assistant("a")]},
        [user("uvw"), assistant("a")]),
    "thoughts as a part": (
        {"messages": [user("u"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]}]},
        [user("u"), assistant("a", reasoning_content="hm")]),
    "thoughts by any name": (
        {"messages": [user("u"), assistant("a", thinking="hm"), user("v"), assistant("b", reasoning="so", reasoning_content=None)]},
        [user("u"), assistant("a", reasoning_content="hm"), user("v"), assistant("b", reasoning_content="so")]),
    "tool calls with arguments in a string": (
        {"messages": [user("u"), {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": [1]}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "9"}, assistant("a")]},
        [user("u"), assistant("", tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1]}}}]),
         {"role": "tool", "content": "9", "tool_call_id": "c1"}, assistant("a")]),
    "tool calls without their wrapper": (
        {"messages": [user("u"), assistant("", tool_calls=[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": ""}])]},
        [user("u"), assistant("", tool_calls=[call("f", {"x": 1}), call("g", {})])]),
    "arguments that are no object stay a string": (
        {"messages": [user("u"), assistant("", tool_calls=[{"name": "f", "arguments": "x = 1"}])]},
        [user("u"), assistant("", tool_calls=[call("f", "x = 1")])]),
    "the old function_call": (
        {"messages": [user("u"), {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                      {"role": "function", "name": "f", "content": "9"}, assistant("a")]},
        [user("u"), assistant("", tool_calls=[call("f", {})]), {"role": "tool", "content": "9", "name": "f"}, assistant("a")]),
    "several calls in one turn": (
        {"conversations": [{"from": "human", "value": "u"}, {"from": "function_call", "value":
                           '[{"name": "f", "arguments": "{\\"x\\": 1}"}, {"name": "g", "arguments": {}}]'},
                           {"from": "observation", "value": "1"}, {"from": "observation", "value": "2"}, {"from": "gpt", "value": "a"}]},
        [user("u"), assistant("", tool_calls=[call("f", {"x": 1}), call("g", {})]), {"role": "tool", "content": "1"},
         {"role": "tool", "content": "2"}, assistant("a")]),
    "weight 0 is not trained": (
        {"messages": [user("u"), assistant("a", weight=0), user("v"), assistant("b", weight=1)]},
        [user("u"), assistant("a", train=False), user("v"), assistant("b")]),
    "history": ({"instruction": "c", "input": "d", "output": "e", "history": [["a", "b"], ["x", "y"]]},
                [user("a"), assistant("b"), user("x"), assistant("y"), user("c\nd"), assistant("e")]),
    "instruction and response": ({"instruction": "a", "response": "b", "system_prompt": "s"}, [system("s"), user("a"), assistant("b")]),
    "a prompt of messages and a response": (
        {"prompt": [user("a"), assistant("b"), user("c")], "response": "d"},
        [user("a"), assistant("b", train=False), user("c"), assistant("d")]),
    "query and response": ({"query": "a", "response": "b"}, [user("a"), assistant("b")]),
    "inputs and targets": ({"inputs": "a", "targets": "b"}, [user("a"), assistant("b")]),
    "a dialogue as prompt": (
        {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "completion": "d"},
        [user("a"), assistant("b", train=False), user("c"), assistant("d")]),
    "a dialogue as text": ({"text": "Human: a\n\nAssistant: b: c\n\nHuman: d\n\nAssistant: e"},
                           [user("a"), assistant("b: c"), user("d"), assistant("e")]),
    "東京 and עברית": ({"instruction": "翻訳してください", "input": "שלום עולם", "output": "世界よ、こんにちは。"},
                     [user("翻訳してください\nשלום עולם"), assistant("世界よ、こんにちは。")]),
}


@pytest.mark.parametrize("name", CHATS)
def test_conversations(name):
    row, wanted = CHATS[name]
    before = copy.deepcopy(row)
    got = formats.convert({**row, "x": [None]})
    assert got == {"messages": wanted, "x": [None]} and row == before
    assert list(map(list, got["messages"])) == list(map(list, wanted)), "the order of the keys too"
    assert formats.convert(got) == got


def test_tools_beside_a_conversation():
    turns = [user("u"), assistant("a")]
    for tools in ([{"name": "f"}], '[{"name": "f"}]', '{"name": "f"}'):
        assert formats.convert({"messages": turns, "tools": tools})["tools"] == [{"name": "f"}]
    assert formats.convert({"messages": turns, "functions": [{"name": "f"}]}) == {
        "messages": turns, "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert "tools" not in formats.convert({"messages": turns, "tools": None})


PAIR = {"prompt": [user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
PREFERENCES = {
    "scores make a margin": ({"prompt": "u", "chosen": "a", "rejected": "b", "chosen_score": 8.5, "rejected_score": "6"},
                             {**PAIR, "chosen_score": 8.5, "rejected_score": "6", "margin": 2.5}),
    "the other spelling": ({"prompt": "u", "chosen": "a", "rejected": "b", "score_chosen": 3, "score_rejected": 4},
                           {**PAIR, "score_chosen": 3, "score_rejected": 4, "margin": -1}),
    "a margin of its own stays": ({**PAIR, "margin": 7, "chosen_score": 1, "rejected_score": 0},
                                  {**PAIR, "margin": 7, "chosen_score": 1, "rejected_score": 0}),
    "a score that is missing makes none": ({**PAIR, "chosen_score": 1, "rejected_score": None},
                                           {**PAIR, "chosen_score": 1, "rejected_score": None}),
    "nulls of Arrow": ({**PAIR, "margin": None, "source": None, "domain": None}, PAIR),
    "one message each": ({"prompt": [user("u")], "chosen": assistant("a"), "rejected": assistant("b")}, PAIR),
    "unpaired by number": ({"prompt": "u", "completion": "a", "label": 1},
                           {"prompt": [user("u")], "completion": [assistant("a")], "label": True}),
    "unpaired by word": ({"prompt": "u", "response": "a", "label": "False"},
                         {"prompt": [user("u")], "completion": [assistant("a")], "label": False}),
    "kto_tag": ({"instruction": "u", "input": "", "output": "a", "kto_tag": False},
                {"prompt": [user("u")], "completion": [assistant("a")], "label": False}),
    "kto_tag of a conversation": ({"messages": [user("u"), assistant("a"), user("v"), assistant("b")], "kto_tag": True},
                                  {"prompt": [user("u"), assistant("a"), user("v")], "completion": [assistant("b")], "label": True}),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_preferences(name):
    row, wanted = PREFERENCES[name]
    got = formats.convert(row)
    assert got == wanted and formats.convert(got) == got


def ratings(*values):
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {aspect: {"Rating": value, "Rationale": "…"} for aspect, value in zip(aspects, values)}


MANY = {
    "scores as text": ({"query": "u", "responses": ["a", "b"], "scores": ["1.5", None]},
                       [{"text": "a", "reward": 1.5}, {"text": "b"}]),
    "ranks": ({"prompt": "u", "responses": ["a", "b", "c"], "rank": [2, 1, 3]},
              [{"text": "a", "rank": 2}, {"text": "b", "rank": 1}, {"text": "c", "rank": 3}]),
    "ranks from 0": ({"prompt": "u", "candidates": ["a", "b"], "ranking": [1.0, 0.0]},
                     [{"text": "a", "rank": 2}, {"text": "b", "rank": 1}]),
    "objects": ({"prompt": "u", "answers": [{"answer": "a", "model": "m", "rank": 2}, {"answer": "b", "model": "n", "rank": 1}]},
                [{"text": "a", "rank": 2, "model": "m"}, {"text": "b", "rank": 1, "model": "n"}]),
    "neither score nor rank": ({"question": "u", "generations": ["a", ""]}, [{"text": "a"}, {"text": ""}]),
    "UltraFeedback": (
        {"instruction": "u", "completions": [
            {"response": "a", "model": "m", "overall_score": 9.0, "annotations": ratings("5", "4", "N/A", "3")},
            {"response": "b", "model": "n", "overall_score": 7.5, "annotations": {}}]},
        [{"text": "a", "scores": {"helpfulness": 5.0, "honesty": 4.0, "truthfulness": 3.0}, "reward": 4.0, "model": "m",
          "annotations": ratings("5", "4", "N/A", "3")}, {"text": "b", "reward": 7.5, "model": "n", "annotations": {}}]),
    "Alpaca, best first": ({"instruction": "u", "input": "", "output": ["a", "b"]}, [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}]),
}


@pytest.mark.parametrize("name", MANY)
def test_scored_and_ranked_responses(name):
    row, completions = MANY[name]
    got = formats.convert(row)
    assert {**got, "id": ""} == {"prompt": [user("u")], "completions": completions, "id": ""}
    assert formats.convert(got) == got
    other = copy.deepcopy(row)
    key = next(key for key in ("responses", "candidates", "answers", "generations", "completions", "output") if key in row)
    other[key] = other[key][:-1] + ["z"] if isinstance(other[key][0], str) else [{**o, next(iter(o)): "z"} for o in other[key]]
    assert formats.convert(other)["id"] != got["id"], "the responses are what the data says"


def test_completions_of_ours_are_no_foreign_form():
    for completions in ([{"text": "a", "reward": 1.0}], [], [{"text": ""}]):
        rec = {"prompt": [user("u")], "completions": completions}
        assert formats.detect(rec) == "prompt" and formats.convert(rec) == rec


MATH = {"name": "math", "answer": "72"}
STDIO = {"name": "code", "stdio": [{"input": "1", "output": "2"}]}
TASKS = {
    "ground truth alone": ({"prompt": "p", "ground_truth": 72}, MATH),
    "a verifier by name": ({"prompt": "p", "ground_truth": "Paris", "verifier": "string_matcher"}, {"name": "exact", "answer": "Paris"}),
    "several verifiers": ({"messages": [user("p")], "ground_truth": ["72", '{"func_name": "validate_lowercase"}'], "dataset": ["math", "ifeval"]},
                          [MATH, {"name": "constraints", "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}]),
    "asserts": ({"messages": [user("p")], "ground_truth": '["assert f() == 1"]', "dataset": "code"},
                {"name": "code", "tests": ["assert f() == 1"]}),
    "input and output": ({"messages": [user("p")], "ground_truth": [[{"input": "1", "output": "2", "type": "x"}]], "dataset": ["code_stdio"]}, STDIO),
    "verl's code": ({"prompt": [user("p")], "data_source": "codecontests", "ability": "code",
                     "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1"], "outputs": ["2"]}'}}, STDIO),
    "verl's maths": ({"prompt": [user("p")], "data_source": "math_dapo", "reward_model": {"ground_truth": "72"}}, MATH),
}


@pytest.mark.parametrize("name", TASKS)
def test_rows_that_name_their_verifier(name):
    row, verifier = TASKS[name]
    got = formats.convert(row)
    assert got["prompt"] == [user("p")] and got["verifier"] == verifier
    assert not got.keys() & {"ground_truth", "reward_model", "messages"}
    rewards.check(got)
    assert formats.convert(got) == got


BAD = [
    ({"system": "s", "messages": [system("t"), user("u"), assistant("a")]}, "there are two different system texts"),
    ({"messages": [user("u"), {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]}, r"part that is not text \('tool_use'\)"),
    ({"prompt": "p", "responses": ["a"], "scores": [1, 2]}, "scores has 2 values for 1 responses"),
    ({"prompt": "p", "responses": ["a"], "scores": ["good"]}, r"scores\[0\] is not a number"),
    ({"prompt": "p", "responses": ["a"], "rank": [1.5]}, r"rank\[0\] is a rank that is no whole number"),
    ({"prompt": "p", "answers": [{"x": 1}]}, r"answers\[0\] has no text"),
    ({"prompt": "p", "completions": ["a"], "labels": [True, False]}, "completions and labels are not lists of one length"),
    ({"prompt": "p", "completions": ["a"], "labels": ["good"]}, "step 1 is no text with a label"),
    ({"prompt": "p", "completion": "a", "label": "good"}, "label is a string, not true or false"),
    ({"prompt": "p", "completion": "a", "label": 2}, "label is a number, not true or false"),
    ({"messages": [user("p")], "ground_truth": ["1", "2"], "dataset": ["math"]}, "not of one length|neither text nor a number"),
    ({"prompt": [user("p")], "data_source": "poems", "reward_model": {"ground_truth": "x"}}, "no verifier is known for the data source 'poems'"),
    ({"prompt": "p", "ground_truth": "Paris"}, "no dataset or verifier says how"),
    ({"messages": [user("p")], "ground_truth": "[1]", "dataset": "code"}, "neither asserts nor inputs and outputs"),
    ({"Puzzles": "1 2 3"}, "Puzzles is not four whole numbers"),
    ({"text": "Human: a"}, None),
    ({"question": "q", "answer": "a"}, "no known format has these keys: question, answer"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": "high", "rejected_score": 1}, "chosen_score is not a number"),
]


@pytest.mark.parametrize("row,reason", BAD, ids=lambda x: x if isinstance(x, str) else None)
def test_rows_that_are_wrong(row, reason):
    if reason is None:
        assert formats.convert(row) == row, "a text that no one answers is a text"
        return
    with pytest.raises(ValueError, match=reason):
        formats.convert(row)


def test_question_and_answer_by_name():
    assert formats.convert({"question": "q", "answer": "a"}, "question-answer") == {"messages": [user("q"), assistant("a")]}
    with pytest.raises(ValueError, match="the answer is missing"):
        formats.convert({"question": "q"}, "question-answer")


def test_keys_of_another_kind_do_not_pass():
    numina = {"problem": "p", "answer": "72", "messages": [user("p"), assistant("72")], "source": "aops"}
    assert formats.convert(numina) == {"messages": numina["messages"], "problem": "p", "answer": "72", "source": "aops"}
    assert formats.convert(numina, "math") == {"prompt": [user("p")], "verifier": MATH, "source": "aops"}
    binarised = {"prompt": "p", "messages": [user("p"), assistant("a")], "chosen": [user("p"), assistant("a")],
                 "rejected": [user("p"), assistant("b")], "score_chosen": 2, "score_rejected": 1}
    assert formats.convert(binarised) == {"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")],
                                          "margin": 1, "score_chosen": 2, "score_rejected": 1}


def test_keys_of_another_form_go_under_meta():
    row = {"question": "q", "answer": "#### 72", "response": "72", "level": 3}
    made = formats.convert(row)
    assert made == {"prompt": [user("q")], "verifier": MATH, "solution": "#### 72", "level": 3, "meta": {"response": "72"}}
    assert formats.convert({**row, "meta": {"a": 1}}, "gsm8k")["meta"] == {"a": 1, "response": "72"}
    assert formats.convert({**row, "meta": 5}, "gsm8k")["meta"] == {"meta": 5, "response": "72"}
    assert formats.convert({"turns": ["a"], "question_id": 1, "responses": ["b"]})["meta"] == {"turns": ["a"], "responses": ["b"]}


def test_a_system_text_and_tools_beside_any_form():
    for row in ({"question": "q", "answer": "#### 72"}, {"problem": "q", "answer": "72"}, {"prompt": "q"}, {"prompt": "q", "chosen": "a", "rejected": "b"}):
        made = formats.convert({**row, "system": "s", "tools": '{"name": "f"}'})
        assert made["prompt"] == [system("s"), user("q")] and made["tools"] == [{"name": "f"}] and "system" not in made
    assert formats.convert({"text": "t", "system": "s"}) == {"text": "t", "system": "s"}


def test_ids():
    assert record.convert({"id": 7, "text": "t"})["id"] == "7"
    assert "id" not in record.convert({"id": None, "text": "t"}) and "id" not in record.convert({"id": "", "text": "t"})
    with pytest.raises(ValueError, match="id is a number, not a string"):
        record.convert({"id": 7.5, "text": "t"})


def test_records_that_pass_as_they_are():
    """`is_record` is a short cut: where it says yes, the long way changes nothing."""
    chat = [user("q"), assistant("a")]
    plain = {"id": "i", "source": "s", "domain": "d", "messages": [system("t"), *chat]}
    assert formats.is_record(plain) and formats.convert(copy.deepcopy(plain)) == plain
    turned = {"messages": [{"content": "q", "role": "user"}, assistant("a")]}
    for row in ({"messages": chat, "id": ""}, {"messages": chat, "source": None}, {"messages": chat, "id": 7}, turned,
                {"messages": chat, "system": "t"}, {"messages": chat[:1]}, {"messages": []}, {"messages": "q"}, {"id": "i"},
                {"messages": [{"role": "human", "content": "q"}, assistant("a")]}, {"messages": [["role", "content"]]},
                {"messages": [{**user("q"), "name": "n"}, assistant("a")]}, {"messages": [user("<|im_end|>"), assistant("a")]}):
        assert not formats.is_record(row)
    assert [list(turn) for turn in formats.convert(turned)["messages"]] == [["role", "content"]] * 2
