"""Ghost Attention: the instruction's places, the loss mask turn by turn, and the pipeline with a sampled model."""

import json
from collections import Counter

import pytest
from rows import jsonl, user

from pt_tools import record
from pt_tools.curate import ghost
from pt_tools.curate.ghost import Lists


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


ROWS = [{"name": "Figure", "instruction": "Always act as {value}.", "values": ["Napoleon", "نفرتيتي"]},
        {"name": "Language", "instruction": "Answer in {value}.", "values": ["French", "日本語", "Latin"]},
        {"name": "Hobby", "instruction": "You enjoy {value}.", "values": ["tennis"]}]
ONE = Lists(ROWS[2:])
TALK = {"id": "d", "source": "s", "messages": [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Ho"),
                                               user("And?"), assistant("So.")]}
LONG, SHORT = "You enjoy tennis.", "Hobby: tennis."


# --- by hand ------------------------------------------------------------------------------------------------------


def test_a_dialogue_by_hand():
    """Llama 2, section 3.3: on every user turn while sampling; then in the first only, and a loss on the last answer."""
    asked = ghost.start(TALK, ONE, short=1)
    assert asked == {"id": "d", "source": "s", "gatt": {"instruction": LONG, "first": SHORT}, "prompt": [
        {"role": "system", "content": "Be kind."}, user(f"{LONG}\nHi"), assistant("Ho"), user(f"{LONG}\nAnd?")]}
    record.check(asked)
    asked["completions"] = [
        {"text": "", "reward": 9},
        {"text": "Low.", "reward": 0},
        {"text": "High.", "reward": 1, "finish": "length"},
    ]
    made, why = ghost.trained(asked)
    assert why is None and made == {
        "id": "d",
        "source": "s",
        "gatt": {"instruction": LONG, "first": SHORT},
        "messages": [
            {"role": "system", "content": "Be kind."},
            user(f"{SHORT}\nHi"),
            assistant("Ho", train=False),
            user("And?"),
            assistant("High."),
        ],
    }
    record.check(made)
    assert ghost.following(asked) == (None, "it has no more turns: --step train")


def test_turn_by_turn_by_hand():
    asked = ghost.start(TALK, ONE, short=0, turn_by_turn=True)
    assert asked["prompt"] == [{"role": "system", "content": "Be kind."}, user(f"{LONG}\nHi")]
    assert asked["gatt"] == {"instruction": LONG, "first": LONG, "turns": ["And?"]}
    asked["completions"] = [{"text": "First."}, {"text": "Second."}]
    asked["prompt_ids"] = [1]
    assert ghost.trained(asked) == (None, "it has more turns: --step next")
    second, why = ghost.following(asked)
    assert why is None and "completions" not in second and "prompt_ids" not in second
    assert second["prompt"] == [
        {"role": "system", "content": "Be kind."},
        user(f"{LONG}\nHi"),
        assistant("First."),
        user(f"{LONG}\nAnd?"),
    ]
    assert second["gatt"] == {"instruction": LONG, "first": LONG}
    second["completions"] = [{"text": "Third."}]
    made, _ = ghost.trained(second)
    assert made["messages"][1:] == [user(f"{LONG}\nHi"), assistant("First.", train=False), user("And?"), assistant("Third.")]


def test_what_cannot_be_used():
    assert ghost.trained({**ghost.start(TALK, ONE), "completions": [{"text": " "}]}) == (None, "no completion with a text")
    assert ghost.following({**ghost.start(TALK, ONE, turn_by_turn=True), "completions": []}) == (
        None,
        "no completion with a text",
    )
    for broken in ({}, {"gatt": 1}, {"gatt": {"instruction": "x"}}):
        for step in (ghost.trained, ghost.following):
            with pytest.raises(ValueError, match="has no gatt"):
                step({"prompt": "u", **broken})
    for turns, why in ((1, "is no list of texts"), ([1], r"\[0\] is a number, not a string"), (["a", " "], r"\[1\] is empty")):
        with pytest.raises(ValueError, match=f"gatt.turns{why}|gatt.turns {why}"):
            ghost.following({"prompt": "u", "gatt": {"instruction": "x", "first": "y", "turns": turns}})
    with pytest.raises(ValueError, match="does not begin with the instruction"):
        ghost.trained({**ghost.start(TALK, ONE), "prompt": [user("Hi")], "completions": [{"text": "x"}]})
    with pytest.raises(ValueError, match="a text record is no dialogue"):
        ghost.start({"id": "x", "text": "t"}, ONE)
    started = {"gatt": {"instruction": "x", "first": "y"}}
    with pytest.raises(ValueError, match="a preference record is no dialogue"):
        ghost.trained({"prompt": "p", "chosen": "a", "rejected": "b", **started, "completions": [{"text": "t"}]})


def test_a_prompt_that_is_a_text():
    rec = {"id": "a", "prompt": "Be.\nHi?", "completions": [{"text": "Ho."}], "gatt": {"instruction": "Be.", "first": "F."}}
    assert ghost.trained(rec)[0]["messages"] == [user("F.\nHi?"), assistant("Ho.")]
    rec["gatt"]["turns"] = ["And?"]
    assert ghost.following(rec)[0]["prompt"] == [user("Be.\nHi?"), assistant("Ho."), user("Be.\nAnd?")]


def test_other_forms_of_dialogue():
    assert ghost.start({"id": "x", "prompt": "Hi"}, ONE)["prompt"] == [user(f"{LONG}\nHi")]
    bench = {"id": "x", "prompt": [user("One")], "turns": ["One", "Two", "三"]}
    assert ghost.start(bench, ONE, turn_by_turn=True)["gatt"]["turns"] == ["Two", "三"]
    assert "turns" not in ghost.start(bench, ONE)["gatt"]
    with pytest.raises(ValueError, match=r"turns\[1\] is empty"):
        ghost.start({**bench, "turns": ["One", ""]}, ONE, turn_by_turn=True)
    tools = {
        "id": "x",
        "messages": [
            user("u"),
            assistant("", tool_calls=[{"name": "f"}]),
            {"role": "tool", "content": "5"},
            assistant("a"),
            user("v"),
            assistant("b"),
        ],
    }
    asked = ghost.start(tools, ONE)
    assert [turn["role"] for turn in asked["prompt"]] == ["user", "assistant", "tool", "assistant", "user"]
    made, _ = ghost.trained({**asked, "completions": [{"text": "c"}]})
    assert [turn.get("train", True) for turn in made["messages"]] == [True, False, True, False, True, True]
    record.check(made)


@pytest.mark.parametrize(
    "rows,why",
    [
        ([], "it has no lists"),
        ([{}], "list 1: name is null"),
        ([ROWS[0], {**ROWS[1], "values": []}], "list 2: values is no list, or empty"),
        ([{**ROWS[0], "instruction": "Act."}], "the instruction has no {value}"),
        ([ROWS[0], ROWS[0]], "two lists have one name"),
        ([{**ROWS[0], "values": ["a", " "]}], r"values\[1\] is empty"),
        ([{**ROWS[0], "values": ["</s>"]}], "template token </s>"),
    ],
)
def test_lists_that_are_none(rows, why):
    with pytest.raises(ValueError, match=why):
        Lists(rows)


# --- chance -------------------------------------------------------------------------------------------------------


def test_instructions_are_combined_at_random_and_half_are_short():
    lists, found, values, short = Lists(ROWS), Counter(), Counter(), 0
    for i in range(1200):
        asked = ghost.start({**TALK, "id": str(i)}, lists, seed=3)["gatt"]
        long, brief = lists.draw(3, str(i), 3)
        assert asked["instruction"] == long and asked["first"] in (long, brief) and long != brief
        short += asked["first"] == brief
        names = [part.partition(": ")[0] for part in brief.removesuffix(".").split(". ")]
        assert len(set(names)) == len(names)
        found[tuple(names)] += 1
        values.update(part for part in brief.removesuffix(".").split(". ") if part.startswith("Language"))
        by_name = {row["name"]: row for row in ROWS}
        parts = [part.split(": ") for part in brief.removesuffix(".").split(". ")]
        assert long == " ".join(by_name[name]["instruction"].replace("{value}", value) for name, value in parts)
    assert abs(short - 600) < 60  # three standard deviations are 52
    sizes = Counter(map(len, found.elements()))
    assert all(abs(sizes[n] - 400) < 55 for n in (1, 2, 3))  # three standard deviations are 49
    assert len(found) == 3 + 6 + 6  # every list alone, every ordered pair, every order of three
    total = sum(values.values())
    assert len(values) == 3 and all(abs(n - total / 3) < 70 for n in values.values())
    assert {len(lists.draw(3, str(i), 1)[1].split(": ")) for i in range(50)} == {2}  # one list only
    assert lists.draw(3, "x", 3) == lists.draw(3, "x", 3) and len({lists.draw(s, "x", 3) for s in range(30)}) > 5


# --- the loss mask ------------------------------------------------------------------------------------------------


def test_only_the_last_answer_is_trained(policy):
    """Token by token, from the character offsets of the rendered conversation, apart from the trainer's own way."""
    from pt_tools import models, tokens

    tok = models.load_tokenizer(str(policy))
    talk = {
        "id": "t",
        "messages": [
            user("What is 2 plus 3?"),
            assistant("The answer is 5."),
            user("What is 4 plus 3?"),
            assistant("x"),
            user("Say it again."),
            assistant("y"),
        ],
    }
    asked = ghost.start(talk, ONE, short=1)
    made, _ = ghost.trained({**asked, "completions": [{"text": "The answer is 7."}]})
    contents = [turn["content"] for turn in made["messages"]]
    assert contents == [
        f"{SHORT}\nWhat is 2 plus 3?",
        "The answer is 5.",
        "What is 4 plus 3?",
        "x",
        "Say it again.",
        "The answer is 7.",
    ]
    plain = [{"role": turn["role"], "content": turn["content"]} for turn in made["messages"]]
    text = tok.apply_chat_template(plain, tokenize=False)
    encoded = tok(text, add_special_tokens=False, return_offsets_mapping=True)
    begin = text.rindex("The answer is 7.")
    end_of_turn = tokens.end_of_turn(tok)
    after = next(i for i, (a, b) in enumerate(encoded["offset_mapping"])
                 if a >= begin + len("The answer is 7.") and encoded["input_ids"][i] == end_of_turn)
    trained = [begin <= a and i <= after for i, (a, b) in enumerate(encoded["offset_mapping"])]
    found = tokens.encode_chat(tok, made["messages"])
    assert found.input_ids == encoded["input_ids"]
    assert [label != tokens.IGNORE for label in found.labels] == trained
    assert 0 < sum(trained) < len(trained) / 3
    # The control: without Ghost Attention all three answers have a loss.
    everything = tokens.encode_chat(tok, plain)
    spans = sum(1 for a, b in zip([tokens.IGNORE, *everything.labels], everything.labels) if a == tokens.IGNORE != b)
    assert spans == 3


# --- the pipeline -------------------------------------------------------------------------------------------------


def test_the_pipeline_with_a_sampled_model(tmp_path, pt, policy):
    """start, sample, and then train and next after each sampling, until no dialogue has a turn left."""
    talks = [{"id": f"d{i}", "source": "s", "messages": [turn for t in range(1 + i % 3) for turn in (
        user(f"What is {i} plus {t}?"), assistant(f"It is {i + t}."))]} for i in range(12)]
    jsonl(tmp_path / "talks.jsonl", talks)
    jsonl(tmp_path / "lists.jsonl", ROWS)
    pt(
        "pt-curate",
        "gatt",
        "talks.jsonl",
        "--instructions",
        "lists.jsonl",
        "--turn-by-turn",
        "--seed",
        "5",
        "-o",
        "p1.jsonl",
        check=0,
    )
    made, said = [], {}
    for turn in (1, 2, 3):
        pt(
            "pt-sample",
            f"p{turn}.jsonl",
            "-m",
            policy,
            "-n",
            "3",
            "--max-new-tokens",
            "6",
            "--seed",
            turn,
            "-o",
            f"s{turn}.jsonl",
            check=0,
        )
        for rec in rows_of(tmp_path / f"s{turn}.jsonl"):
            assert all(
                t["content"].startswith(rec["gatt"]["instruction"] + "\n") for t in rec["prompt"] if t["role"] == "user"
            )
            said[rec["id"], turn] = [c["text"] for c in rec["completions"]]
        trained = pt("pt-curate", "gatt", "--step", "train", f"s{turn}.jsonl", "-o", f"t{turn}.jsonl", check=0)
        after = pt("pt-curate", "gatt", "--step", "next", f"s{turn}.jsonl", "-o", f"p{turn + 1}.jsonl", check=0)
        made += rows_of(tmp_path / f"t{turn}.jsonl")
        n = len(rows_of(tmp_path / f"s{turn}.jsonl"))
        assert f"rows: {n} in" in trained.err and f"rows: {n} in" in after.err
    assert rows_of(tmp_path / "p4.jsonl") == []
    lost = {id for (id, turn), texts in said.items() if not any(_usable(text) for text in texts)}
    assert {rec["id"] for rec in made} == {talk["id"] for talk in talks} - lost and len(made) >= 6
    by_id = {talk["id"]: [t["content"] for t in talk["messages"] if t["role"] == "user"] for talk in talks}
    for rec in made:
        record.check(rec)
        users = [t["content"] for t in rec["messages"] if t["role"] == "user"]
        answers = [t for t in rec["messages"] if t["role"] == "assistant"]
        assert users == [f"{rec['gatt']['first']}\n{by_id[rec['id']][0]}", *by_id[rec["id"]][1:]]
        assert [t.get("train", True) for t in answers] == [False] * (len(answers) - 1) + [True]
        assert all(t["content"] in said[rec["id"], turn] for turn, t in enumerate(answers, 1))
    assert Counter(len(rec["messages"]) for rec in made).keys() <= {2, 4, 6}
    pt("pt-curate", "validate", *(f"t{turn}.jsonl" for turn in (1, 2, 3)), check=0)


def _usable(text):
    try:
        record.check_text(text, "text")
    except ValueError:
        return False
    return True


def test_a_model_trains_on_it(tmp_path, pt, policy):
    """pt-sft takes the records, and counts as trained tokens those of the last answers."""
    talk = {"messages": [user("What is 2 plus 3?"), assistant("The answer is 5."), user("Say it again."), assistant("x")]}
    asked = [ghost.start({**talk, "id": f"t{i}"}, ONE) for i in range(4)]
    jsonl(
        tmp_path / "asked.jsonl", [{**rec, "completions": [{"text": "The answer is 5.", "finish": "stop"}]} for rec in asked]
    )
    pt("pt-curate", "gatt", "--step", "train", "asked.jsonl", "-o", "gatt.jsonl", check=0)
    pt("pt-sft", "gatt.jsonl", "-m", policy, "-o", "out", "--max-steps", "1", "--batch-size", "4", "--threads", "1", check=0)
    assert (tmp_path / "out" / "MANIFEST.json").exists()


# --- the command --------------------------------------------------------------------------------------------------


def test_real_dialogues(data, tmp_path, pt):
    """MT-Bench's second turns wait; the tool dialogues of Glaive keep their tools."""
    jsonl(tmp_path / "lists.jsonl", ROWS)
    pt("pt-curate", "convert", data / "mt_bench" / "question.jsonl", "-o", "mt.jsonl", check=0)
    for jobs in (1, 2):
        done = pt(
            "pt-curate",
            "gatt",
            "mt.jsonl",
            "--instructions",
            "lists.jsonl",
            "--turn-by-turn",
            "-j",
            jobs,
            "-o",
            f"{jobs}.jsonl",
            check=0,
        )
        assert "rows: 80 in, 80 out" in done.err
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert all(len(rec["gatt"]["turns"]) == 1 for rec in rows_of(tmp_path / "1.jsonl"))
    pt("pt-curate", "convert", data / "sft" / "glaive_toolcall_en_demo.json", "-o", "tools.jsonl", check=0)
    pt("pt-curate", "gatt", "tools.jsonl", "--instructions", "lists.jsonl", "-o", "t.jsonl", check=0)
    before, after = rows_of(tmp_path / "tools.jsonl"), rows_of(tmp_path / "t.jsonl")
    assert len(after) == len(before) == 300
    for old, new in zip(before, after):
        record.check(new)
        users = [t["content"] for t in old["messages"] if t["role"] == "user"]
        assert [t["content"] for t in new["prompt"] if t["role"] == "user"] == [
            f"{new['gatt']['instruction']}\n{text}" for text in users
        ]
        assert [t for t in new["prompt"] if t["role"] != "user"] == [
            t for t in old["messages"][: len(new["prompt"])] if t["role"] != "user"
        ]


@pytest.mark.parametrize(
    "argv,code,why",
    [
        ((), 2, "--step start needs --instructions"),
        (("--step", "next", "--seed", "1"), 2, "--seed is of use only with --step start"),
        (("--step", "train", "--instructions", "lists.jsonl"), 2, "--instructions is of use only with"),
        (("--instructions", "bad.jsonl"), 3, "bad.jsonl: list 1: instruction is null"),
        (("--step", "train"), 3, "a.jsonl:1: the record has no gatt"),
        (("--instructions", "none.jsonl"), 2, "none.jsonl"),
    ],
)
def test_wrong_use(tmp_path, pt, argv, code, why):
    jsonl(tmp_path / "a.jsonl", [TALK])
    jsonl(tmp_path / "lists.jsonl", ROWS)
    jsonl(tmp_path / "bad.jsonl", [{"name": "x"}])
    assert why in pt("pt-curate", "gatt", "a.jsonl", *argv, check=code).err
