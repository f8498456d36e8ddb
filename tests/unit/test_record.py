"""Records: kinds, faults, ids, and every foreign form against a record written by hand."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import user

from pt_tools import record, rewards
from pt_tools.curate import formats, tulu
from pt_tools.stream import Reader


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


KINDS = [
    ("messages", {"messages": [system("s"), user("u"), assistant("a")]}),
    ("messages", {"prompt": "left over", "messages": [user("u"), assistant("a")]}),
    ("prompt", {"prompt": [user("u")]}),
    ("prompt", {"prompt": "u", "completions": [{"text": ""}]}),
    ("prompt-completion", {"prompt": [user("u")], "completion": [assistant("a")]}),
    ("preference", {"prompt": [user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("preference", {"chosen": "What? Yes", "rejected": "What? No"}),
    ("unpaired", {"prompt": "u", "completion": "a", "label": True}),
    ("text", {"text": "t"}),
]


@pytest.mark.parametrize("kind,rec", KINDS, ids=lambda x: x if isinstance(x, str) else None)
def test_kinds_and_sound_records(kind, rec):
    assert record.kind(rec) == kind
    before = copy.deepcopy(rec)
    record.check(rec)
    assert rec == before


ASK = [user("u")]
FAULTS = [
    ([1], "not an object but a list"),
    ({}, "it has none of messages"),
    ({"question": "q"}, "it has none of messages"),
    ({"messages": []}, "messages is empty"),
    ({"messages": "hello"}, "messages is a string, not a list of messages"),
    ({"messages": None}, "messages is null, not a list"),
    ({"messages": ["hello"]}, r"messages\[0\] is a string, not a message"),
    ({"messages": [user("u")]}, "messages ends with user, not assistant"),
    ({"messages": [assistant("a")]}, r"messages\[0\] is assistant, where system or user should be"),
    ({"messages": [user("u"), user("v"), assistant("a")]}, r"messages\[1\] is user, where assistant should be"),
    ({"messages": [user("u"), system("s"), assistant("a")]}, r"messages\[1\] is system"),
    ({"messages": [user("u"), assistant("a"), assistant("b")]}, r"messages\[2\] is assistant, where user or tool"),
    ({"messages": [{"content": "x"}, assistant("a")]}, r"messages\[0\] has no role"),
    ({"messages": [{"role": "gpt", "content": "x"}]}, r"messages\[0\] has the unknown role 'gpt'"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, r"messages\[0\] has the unknown role"),
    ({"messages": [{"role": "user"}, assistant("a")]}, r"messages\[0\] has no content"),
    ({"messages": [user(" \n"), assistant("a")]}, r"messages\[0\].content is empty"),
    ({"messages": [user(7), assistant("a")]}, r"messages\[0\].content is a number, not a string"),
    ({"messages": [user("u"), assistant(None)]}, r"messages\[1\].content is null, not a string"),
    ({"messages": [user("u"), assistant("", tool_calls="f")]}, r"tool_calls is not a list of objects"),
    ({"messages": [user("u"), assistant("a", train=0)]}, r"messages\[1\].train is a number, not true or false"),
    ({"messages": [user("u <|im_start|>assistant"), assistant("a")]}, r"template token <\|im_start\|>"),
    ({"messages": [user("u"), assistant("a</s>")]}, "template token </s>"),
    ({"messages": [user("[INST] u [/INST]"), assistant("a")]}, r"template token \[INST\]"),
    ({"prompt": "a<end_of_turn>"}, "prompt contains the template token <end_of_turn>"),
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": 3}, "prompt is a number, not a list"),
    ({"prompt": [user("u"), assistant("a")]}, "prompt ends with assistant, not user or tool"),
    ({"prompt": ASK, "completion": [user("v")]}, r"completion\[0\] is user, where assistant should be"),
    ({"prompt": ASK, "completion": ""}, "completion is empty"),
    ({"prompt": "u", "completion": "a", "label": "good"}, "label is a string, not true or false"),
    ({"prompt": ASK, "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
    ({"chosen": "Yes", "rejected": "No"}, "no common beginning"),
    ({"chosen": "Yes", "rejected": [user("u"), assistant("a")]}, "chosen is a string, not a list"),
    ({"text": "  "}, "text is empty"),
    ({"text": ["t"]}, "text is a list, not a string"),
    ({"id": 7, "text": "t"}, "id is a number, not a string"),
    ({"id": "", "text": "t"}, "id is empty"),
    ({"source": None, "text": "t"}, "source is null, not a string"),
    ({"safety": 1, "text": "t"}, "safety is a number, not true or false"),
    ({"weight": "2", "text": "t"}, "weight is a string, not a number"),
    ({"weight": -1, "text": "t"}, "weight is negative"),
    ({"weight": True, "text": "t"}, "weight is true or false, not a number"),
    ({"prompt": "u", "verifier": "math"}, "verifier is no object with a name"),
    ({"prompt": "u", "verifier": [{"answer": "1"}]}, "verifier is no object with a name"),
    ({"prompt": "u", "completions": {}}, "completions is an object, not a list"),
    ({"prompt": "u", "completions": ["x"]}, r"completions\[0\] is a string, not an object"),
    ({"prompt": "u", "completions": [{}]}, r"completions\[0\].text is null, not a string"),
    ({"prompt": "u", "completions": [{"text": "", "finish": "eos"}]}, "finish is 'eos', not one of stop"),
    ({"prompt": "u", "completions": [{"text": "", "reward": "1"}]}, "reward is a string, not a number"),
    ({"prompt": "u", "completions": [{"text": "", "token_ids": ["1"]}]}, "token_ids is not a list of token ids"),
    ({"prompt": "u", "completions": [{"text": "", "token_ids": [1, 2], "logprobs": [0.0]}]}, "2 token_ids but 1 logprobs"),
]


@pytest.mark.parametrize("rec,reason", FAULTS, ids=lambda x: x if isinstance(x, str) else None)
def test_faults_are_named(rec, reason):
    with pytest.raises(ValueError, match=reason):
        record.check(rec)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3), max_leaves=8)
KEYS = st.sampled_from(sorted(formats._telling() | record.FIELDS.keys() | {
    "history", "system", "system_prompt", "functions", "input", "answer", "solution", "kto_tag", "role", "from", "value", "scores", "rank", "meta"}))


@given(st.dictionaries(KEYS, JSON | st.lists(st.dictionaries(KEYS, JSON, max_size=3), max_size=3), max_size=6))
def test_no_row_makes_check_or_convert_fail_otherwise_than_by_a_reason(row):
    before = copy.deepcopy(row)
    for act in (record.check, record.convert):
        try:
            made = act(row)
        except ValueError as error:
            assert 0 < len(str(error)) < 400
        else:
            assert made is None or record.convert(made) == made, "converting twice is converting once"
        assert row == before


SAID = st.sampled_from(["a", "b c", "#### 7", "\n\nHuman: u\n\nAssistant: v", "### Human: a### Assistant: b", "東京", "[]", "{}"])
TURN = st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant", "system", "tool", "human"]), SAID)
CHAT = st.sampled_from([[user("u"), assistant("a")], [system("s"), user("u"), assistant("a")], [user("u")], [assistant("a")]])
LIKELY = {
    **dict.fromkeys(("prompt", "messages", "completion", "chosen", "rejected", "conversations", "conversation"), CHAT | SAID),
    **dict.fromkeys(("responses", "completions", "answers", "candidates", "output"), SAID | st.lists(SAID | st.fixed_dictionaries({"text": SAID}), max_size=2)),
    **dict.fromkeys(("label", "kto_tag"), st.booleans() | SAID), "labels": st.lists(st.booleans(), max_size=2), "turns": st.lists(SAID, max_size=2),
    **dict.fromkeys(("scores", "rank"), st.lists(st.integers(0, 3), max_size=2)), "verifier": st.just({"name": "math", "answer": "1"}) | SAID,
    "tools": st.just([{"name": "f"}]) | SAID, "reward_model": st.just({"ground_truth": "1"}), "kwargs": st.just([{}]), "instruction_id_list": st.just(["a:b"]),
    "history": st.just([]) | st.just([["a", "b"]]), "test_list": st.just(["assert 1"]), "instances": st.just([{"input": "", "output": "o"}])}
PLAIN = {key: SAID for key in formats._telling() | {"system", "system_prompt", "functions", "input", "solution", "meta", "source"} if key not in LIKELY}


@settings(max_examples=600)
@given(st.lists(st.sampled_from(sorted(LIKELY | PLAIN)), max_size=6, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: (LIKELY | PLAIN)[key] for key in keys})), st.none() | st.sampled_from(record.FORMATS))
def test_converting_twice_is_converting_once(row, format):
    try:
        made = record.convert(row, format)
    except ValueError:
        return
    record.check(made)
    assert record.convert(made, "text" if "text" in made and format == "text" else None) == made
    kept = {key for key in row if key in made or key in made.get("meta", {})}
    gone = row.keys() - kept
    assert all(key in formats._telling() | {"system", "system_prompt", "functions", "input", "history", "kto_tag", "scores", "rank", "source"} for key in gone)


def test_tool_turns_stand_between():
    call = assistant("", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {}}}])
    record.check({"messages": [user("u"), call, {"role": "tool", "content": ""}, assistant("a")]})
    record.check({"messages": [user("u"), call]})
    with pytest.raises(ValueError, match="content is empty"):
        record.check({"messages": [user("u"), assistant("")]})


def test_parts_of_records():
    assert record.prompt_of({"messages": [system("s"), user("u"), assistant("a")]}) == [system("s"), user("u")]
    assert record.prompt_of({"prompt": "u", "completion": "a"}) == "u"
    assert record.prompt_of({"text": "t"}) == ""
    both = [user("u"), assistant("a"), user("v")]
    assert record.prompt_of({"chosen": [*both, assistant("b")], "rejected": [*both, assistant("c")]}) == both
    assert record.prompt_of({"chosen": "Is it so? Yes, it", "rejected": "Is it so? Yesterday"}) == "Is it so?"
    assert record.messages_of({"prompt": both, "completion": "b"}) == [
        user("u"), assistant("a", train=False), user("v"), assistant("b")]
    assert record.user_turns({"prompt": [system("s"), *both]}) == ["u", "v"]
    with pytest.raises(ValueError, match="a prompt record has no messages"):
        record.messages_of({"prompt": "u"})


def test_ids_say_the_content_and_nothing_else():
    rec = {"prompt": [user("u")], "verifier": {"name": "math", "answer": "1"}}
    first = record.ensure_id(dict(rec))["id"]
    assert len(first) == 16 and int(first, 16) >= 0
    other_order = {"verifier": {"answer": "1", "name": "math"}, "prompt": [{"content": "u", "role": "user"}]}
    later = {**rec, "source": "s", "domain": "d", "completions": [{"text": "x"}], "prompt_ids": [1], "tokenizer": "t",
             "cluster": "c", "rules": {"pii": "x"}, "contamination": [{}], "tokens": {"all": 1}}
    assert record.ensure_id(other_order)["id"] == record.ensure_id(later)["id"] == first
    assert record.ensure_id({**rec, "prompt": [user("v")]})["id"] != first
    assert record.ensure_id({**rec, "id": "mine"})["id"] == "mine"


# --- foreign forms ------------------------------------------------------------------------------------------------

MATH = {"name": "math", "answer": "72"}
FORMS = [
    ("alpaca", {"instruction": "Add.", "input": "1 2", "output": "3", "category": "sum"},
     {"messages": [user("Add.\n1 2"), assistant("3")], "category": "sum"}),
    ("alpaca", {"instruction": "Hi", "input": "", "output": "Ho", "system": "Be kind", "history": [["a", "b"]]},
     {"messages": [system("Be kind"), user("a"), assistant("b"), user("Hi"), assistant("Ho")]}),
    ("dolly", {"instruction": "Add.", "context": "1 2", "response": "3", "category": "sum"},
     {"messages": [user("Add.\n1 2"), assistant("3")], "category": "sum"}),
    ("self-instruct", {"id": "seed_0", "instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]},
     {"messages": [user("Add.\n1 2"), assistant("3")], "id": "seed_0"}),
    ("sharegpt", {"id": 5, "system": "s", "conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
     {"messages": [system("s"), user("u"), assistant("a")], "id": "5"}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "w?"}, {"from": "function_call", "value":
                                    '{"name": "w", "arguments": {"x": 1}}'}, {"from": "observation", "value": "9"},
                                    {"from": "gpt", "value": "It is 9."}], "tools": '[{"name": "w"}]'},
     {"messages": [user("w?"), assistant("", tool_calls=[{"type": "function", "function": {"name": "w", "arguments":
      {"x": 1}}}]), {"role": "tool", "content": "9"}, assistant("It is 9.")], "tools": [{"name": "w"}]}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "u"}], "chosen": {"from": "gpt", "value": "a"},
                  "rejected": {"from": "gpt", "value": "b"}},
     {"prompt": [user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("messages", {"messages": [user("u"), {"role": "assistant", "content": [{"type": "text", "text": "a"},
                                                                            {"type": "text", "text": "b"}]}], "x": 1},
     {"messages": [user("u"), assistant("ab")], "x": 1}),
    ("prompt-completion", {"prompt": [user("u"), assistant("a"), user("v")], "completion": "b"},
     {"messages": [user("u"), assistant("a", train=False), user("v"), assistant("b")]}),
    ("prompt", {"prompt": "u", "verifier": MATH}, {"prompt": [user("u")], "verifier": MATH}),
    ("preference", {"prompt": "u", "chosen": "a", "rejected": "b", "margin": 1.5},
     {"prompt": [user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")], "margin": 1.5}),
    ("preference", {"prompt": "u", "chosen": [user("u"), assistant("a")], "rejected": [user("u"), assistant("b")]},
     {"prompt": [user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("preference", {"chosen": [system("s"), user("u"), assistant("a")], "rejected": [system("s"), user("u"), assistant("b")]},
     {"prompt": [system("s"), user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("preference", {"chosen": "The sky is blue", "rejected": "The sky is green"},
     {"prompt": [user("The sky is")], "chosen": [assistant("blue")], "rejected": [assistant("green")]}),
    ("preference", {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"},
     {"prompt": [user("Add.\n1 2")], "chosen": [assistant("3")], "rejected": [assistant("4")]}),
    ("preference", {"system": "s", "question": "u", "chosen": "a", "rejected": "b"},
     {"prompt": [system("s"), user("u")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("hh", {"chosen": "\n\nHuman: u\n\nAssistant: a\n\nHuman: v\n\nAssistant: yes",
            "rejected": "\n\nHuman: u\n\nAssistant: a\n\nHuman: v\n\nAssistant: no"},
     {"prompt": [user("u"), assistant("a"), user("v")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}),
    ("unpaired", {"messages": [user("u"), assistant("a")], "label": False},
     {"prompt": [user("u")], "completion": [assistant("a")], "label": False}),
    ("unpaired", {"prompt": "u", "completion": "a", "label": True},
     {"prompt": [user("u")], "completion": [assistant("a")], "label": True}),
    ("text", {"text": "t", "url": "x"}, {"text": "t", "url": "x"}),
    ("gsm8k", {"question": "How many?", "answer": "48+24 = <<48+24=72>>72.\n#### 72"},
     {"prompt": [user("How many?")], "verifier": MATH, "solution": "48+24 = <<48+24=72>>72.\n#### 72"}),
    ("math", {"problem": "p", "answer": 72, "solution": "so", "unique_id": "test/7.json"},
     {"id": "test/7.json", "prompt": [user("p")], "verifier": MATH, "solution": "so"}),
    ("math", {"problem": "p", "solution": r"\boxed{1} then $\boxed{\frac{1}{2}}$."},
     {"prompt": [user("p")], "verifier": {"name": "math", "answer": r"\frac{1}{2}"},
      "solution": r"\boxed{1} then $\boxed{\frac{1}{2}}$."}),
    ("ifeval", {"key": 1000, "prompt": "p", "instruction_id_list": ["a:b"], "kwargs": [{"n": 3, "m": None}]},
     {"id": "ifeval/1000", "prompt": [user("p")],
      "verifier": {"name": "constraints", "instruction_id_list": ["a:b"], "kwargs": [{"n": 3}]}}),
    ("rlvr", {"messages": [user("p")], "ground_truth": "72", "dataset": "gsm8k"},
     {"prompt": [user("p")], "verifier": MATH, "dataset": "gsm8k"}),
    ("rlvr", {"messages": [user("p")], "ground_truth": ["72"], "dataset": ["MATH"]},
     {"prompt": [user("p")], "verifier": MATH, "dataset": ["MATH"]}),
    ("rlvr", {"messages": [user("p")], "dataset": "ifeval",
              "ground_truth": '{"func_name": "validate_lowercase", "N": null}'},
     {"prompt": [user("p")], "dataset": "ifeval",
      "verifier": {"name": "constraints", "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}}),
    ("humaneval", {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(c):\n    pass\n",
                   "canonical_solution": "    return 1\n"},
     {"id": "HumanEval/0", "prompt": [user("def f():\n")], "canonical_solution": "    return 1\n",
      "verifier": {"name": "code", "tests": ["def check(c):\n    pass\n\ncheck(f)"], "entry_point": "f", "prompt": "def f():\n"}}),
    ("mbpp", {"text": "Write f.", "code": "def f(): …", "task_id": 1, "test_setup_code": "", "test_list": ["assert f()"]},
     {"id": "mbpp/1", "prompt": [user("Write f.\nYour code should pass these tests:\nassert f()")],
      "verifier": {"name": "code", "tests": ["assert f()"]}, "code": "def f(): …"}),
    ("verl", {"prompt": [user("p")], "data_source": "openai/gsm8k", "reward_model": {"style": "rule", "ground_truth": "72"}},
     {"prompt": [user("p")], "verifier": MATH, "data_source": "openai/gsm8k"}),
    ("game24", {"Rank": "7", "Puzzles": "1 1 4 6", "Solved rate": "99.20%"},
     {"id": "game24/7", "Solved rate": "99.20%", "verifier": {"name": "game24", "numbers": [1, 1, 4, 6]},
      "prompt": [user("Use the four numbers 1, 1, 4, 6 and the operations + - * / to reach 24. Use every number exactly "
                      "once.\nEnd with the expression, as in: Answer: (1 + 2) * (3 + 5)")]}),
    ("stepwise", {"id": "x", "prompt": "p", "completions": ["one", "two"], "labels": [True, False]},
     {"id": "x", "prompt": [user("p")], "completions": [
         {"text": "one\ntwo", "steps": [{"text": "one", "label": True}, {"text": "two", "label": False}]}]}),
    ("scored", {"id": "x", "prompt": "p", "responses": ["a", "b"], "scores": [1, 2.5]},
     {"id": "x", "prompt": [user("p")], "completions": [{"text": "a", "reward": 1}, {"text": "b", "reward": 2.5}]}),
    ("question-answer", {"system_prompt": "s", "question": "u", "response": "a"},
     {"messages": [system("s"), user("u"), assistant("a")]}),
    ("dialogue", {"text": "### Human: u### Assistant: a"}, {"messages": [user("u"), assistant("a")]}),
    ("mt-bench", {"question_id": 81, "category": "writing", "turns": ["one", "two"]},
     {"id": "mt_bench/81", "prompt": [user("one")], "category": "writing", "turns": ["one", "two"]}),
]


@pytest.mark.parametrize("form,row,wanted", FORMS, ids=lambda x: x if isinstance(x, str) else None)
def test_forms(form, row, wanted):
    before = copy.deepcopy(row)
    assert formats.detect(row) == form
    got = record.convert(row)
    assert got == wanted
    assert row == before
    assert record.convert(row, form) == wanted
    again = record.convert(got)
    assert again == got, "a record stays as it is"


def test_the_list_of_forms_is_that_of_the_converters():
    assert record.FORMATS == tuple(formats.FORMATS)
    assert {form for form, _, _ in FORMS} == set(record.FORMATS)


BAD_FORMS = [
    ({"instruction": "i", "output": ""}, r"messages\[1\].content is empty|output is empty"),
    ({"instruction": "i", "output": None}, "output is not a string"),
    ({"instruction": "i", "output": "o", "history": [["a"]]}, "history is not a list of"),
    ({"conversations": [{"from": "alien", "value": "x"}]}, r"conversations\[0\] has the unknown role 'alien'"),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "f(x)"}]}, "is not JSON"),
    ({"conversations": "x"}, "conversations is not a list of messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a part that is not text"),
    ({"problem": "p", "answer": " "}, "the answer to check against is empty"),
    ({"problem": "p", "solution": "no box"}, "no .boxed"),
    ({"prompt": "p", "instruction_id_list": ["a", "b"], "kwargs": [{}]}, "not lists of one length"),
    ({"messages": [user("p")], "ground_truth": "1", "dataset": "poems"}, "no verifier is known for the data set 'poems'"),
    ({"messages": [user("p")], "ground_truth": "{", "dataset": "ifeval"}, "ground_truth is not JSON"),
    ({"messages": [user("p")], "ground_truth": '{"func_name": "validate_taste", "options": []}', "dataset": "ifeval"},
     "no constraint verifier means the same as validate_taste"),
    ({"a": 1, "b": 2}, "no known format has these keys: a, b"),
    ({}, "an empty object"),
]


@pytest.mark.parametrize("row,reason", BAD_FORMS, ids=lambda x: x if isinstance(x, str) else None)
def test_bad_rows_of_foreign_forms(row, reason):
    with pytest.raises(ValueError, match=reason):
        record.convert(row)


def test_format_overrides_detection():
    row = {"question": "q", "answer": "no mark"}
    with pytest.raises(ValueError, match="no known format"):
        record.convert(row)
    with pytest.raises(ValueError, match="answer has no ####"):
        record.convert(row, "gsm8k")
    with pytest.raises(ValueError, match="instruction is missing|output is missing"):
        record.convert(row, "alpaca")


# --- Tulu's constraints mean the same in IFEval's words -----------------------------------------------------------


def naive(func, text, truth):
    """Tulu 3's rules in their own words."""
    n, quantifier = truth.get("N"), truth.get("quantifier")
    if func == "verify_keyword_frequency":
        return text.lower().split().count(truth["word"]) == n
    if func == "verify_letter_frequency":
        return text.lower().count(truth["letter"]) == n
    count = len([w for w in text.split() if w.isupper()]) if "capital" in func else len(text.split())
    slack = 0 if "capital" in func else max(round(n * 0.1), 1)
    return {"at least": count >= n, "at most": count <= n, "around": abs(count - n) <= slack}[quantifier]


@given(st.lists(st.sampled_from(["tea", "Cup", "TEA", "sun"]), min_size=1, max_size=25), st.integers(1, 25),
       st.sampled_from(["at least", "at most", "around"]),
       st.sampled_from(["verify_keyword_frequency", "verify_letter_frequency", "validate_word_constraint",
                        "validate_frequency_capital_words"]))
def test_tulu_constraints_equal_their_rules(said, n, quantifier, func):
    truth = {"func_name": func, "N": n, "quantifier": quantifier, "word": "tea", "letter": "u"}
    rec = record.convert({"messages": [user("p")], "ground_truth": json.dumps(truth), "dataset": "ifeval"})
    text = " ".join(said)
    assert rewards.verify(rec, text).reward == float(naive(func, text, truth))


@pytest.mark.parametrize("name", sorted(tulu._MAP))
def test_every_tulu_constraint_is_one_that_the_verifier_knows(name):
    truth = {"func_name": name, "N": 3, "quantifier": "around", "options": ["a", "b"], "keyword_list": ["k"], "forbidden_words": ["k"],
             "word": "k", "letter": "k", "language": "en", "end_phrase": "End.", "postscript_marker": "P.S.",
             "original_prompt": "p", "section_splitter": "Section", "i": 1, "first_word": "k"}
    ids, kwargs = tulu.constraints(truth)
    rewards.check({"prompt": "p", "verifier": {"name": "constraints", "instruction_id_list": ids, "kwargs": kwargs}})
    needs = {key for kw in kwargs for key in kw}
    if needs:
        with pytest.raises(ValueError, match="lacks an argument"):
            tulu.constraints({"func_name": name})


# --- the real data ------------------------------------------------------------------------------------------------

REAL = {
    "dolly/dolly_3k.json": ("alpaca", 2996, {}),
    "sft/alpaca_en_demo.json": ("alpaca", 999, {}),
    "sft/glaive_toolcall_en_demo.json": ("sharegpt", 300, {}),
    "sft/self_instruct_seeds.jsonl": ("self-instruct", 175, {}),
    "preference/dpo_en_demo.json": ("sharegpt", 300, {}),
    "preference/kto_en_demo.json": ("unpaired", 298, {"template token": 2}),
    "preference/harmless-base-test.jsonl.gz": ("hh", 2299, {"roles alternate": 9, "is empty": 4}),
    "gsm8k/train.jsonl": ("gsm8k", 7473, {}),
    "gsm8k/test.jsonl": ("gsm8k", 1319, {}),
    "math/train.json": ("math", 7470, {"answer to check against is empty": 4}),
    "math/math500_test.jsonl": ("math", 500, {}),
    "ifeval/input_data.jsonl": ("ifeval", 541, {}),
    "humaneval/HumanEval.jsonl.gz": ("humaneval", 164, {}),
    "mbpp/mbpp.jsonl": ("mbpp", 974, {}),
    "mt_bench/question.jsonl": ("mt-bench", 80, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_converts_and_every_reject_is_explained(data, name):
    form, good, explained = REAL[name]
    seen, converted, faults = set(), 0, []
    for row in Reader([str(data / name)], arrays=True):
        seen.add(formats.detect(row))
        try:
            rec = record.ensure_id(record.convert(row))
        except ValueError as reason:
            faults.append(str(reason))
            continue
        converted += 1
        if rec.get("verifier", {}).get("name", "code") != "code":
            rewards.check(rec)
    assert seen == {form}
    assert converted == good
    assert {why: sum(why in fault for fault in faults) for why in explained} == explained
    assert len(faults) == sum(explained.values())
