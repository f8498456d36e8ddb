"""Tokens counted without transformers: equal to what the trainers encode, and the bound that spares the counting."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import user

from pt_tools import models, record, tokens
from pt_tools.curate.chat_template import ChatTemplate
from pt_tools.curate.lengths import Lengths
from pt_tools.errors import Usage


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


TEMPLATES = {
    "own": None,
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
              "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "eos": "{{ bos_token }}{% for m in messages %}\n  {% if m['role'] == 'user' %}\n[U] {{ m['content'] | trim }}\n  {% else %}\n"
           "{% generation %}[A] {{ m['content'] }}{{ eos_token }}{% endgeneration %}\n  {% endif %}\n{% endfor %}",
    "tools": "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}"
             "{{ m.role }}: {{ m.reasoning_content or '' }}{{ m.thinking or '' }}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}\n{% endfor %}"
             "{% if add_generation_prompt %}assistant: {% endif %}",
}
CHATS = [
    [user("What is 2 plus 3?"), assistant("The answer is 5.")],
    [{"role": "system", "content": "Be brief."}, user("Hi <b>&amp;</b> 'you'"), assistant("東京 שלום"), user(" so? "), assistant("ok", train=False), user("x"), assistant("y")],
    [user("u"), assistant("", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {"x": ["<é>"]}}}]), {"role": "tool", "content": "9"},
     assistant("a", reasoning_content="hm")],
]


@pytest.fixture(scope="module", params=TEMPLATES)
def both(request, world, tmp_path_factory):
    """The tokenizer of transformers, and ours, of one directory with one of the templates."""
    path = tmp_path_factory.mktemp("tok") / "dir"
    shutil.copytree(world / "blank", path)
    template = None
    if TEMPLATES[request.param]:
        template = path / "other.jinja"
        template.write_text(TEMPLATES[request.param])
    return models.load_tokenizer(str(path), template), Lengths(str(path), template and str(template))


TOOLS = [{"type": "function", "function": {"name": "f", "description": "<é>", "parameters": {}}}]


@pytest.mark.parametrize("turns", CHATS, ids=["one turn", "several", "tools"])
def test_chats_are_rendered_and_counted_as_in_training(both, turns):
    tok, lengths = both
    plain = [{k: v for k, v in turn.items() if k != "train"} for turn in turns]
    for tools in (None, TOOLS):
        for generate in (False, True):
            assert lengths.template.render(turns, generate, tools) == tok.apply_chat_template(
                plain, tools=tools, tokenize=False, add_generation_prompt=generate)
        rec = {"messages": turns, "tools": tools}
        try:
            encoded = len(tokens.encode_chat(tok, turns, tools).input_ids)
        except ValueError:
            continue
        found = lengths.count(rec)
        assert found["prompt"] == len(tokens.encode_prompt(tok, plain[:-1], tools))
        # Where a token would straddle the border of an answer, trainers encode the two sides apart.
        borders = 2 * sum(turn["role"] == "assistant" for turn in turns) if tok.chat_template == TEMPLATES["tools"] else 0
        assert encoded - borders <= found["all"] <= encoded


def test_other_kinds_are_counted_as_in_training(both):
    tok, lengths = both
    text = {"text": "What is 2 plus 3? 東京"}
    assert lengths.count(text) == {"prompt": 0, "all": len(tokens.encode_text(tok, text["text"]).input_ids)}
    plain = {"prompt": "What is 2", "completion": " plus 3?"}
    ids = tokens.encode_completion(tok, plain["prompt"], plain["completion"])
    assert lengths.count(plain) == {"prompt": len(ids[0]), "all": len(ids[0]) + len(ids[1])}
    pair = {"prompt": [user("Is it?")], "chosen": [assistant("Yes, it is so.")], "rejected": "No."}
    sides = [sum(map(len, tokens.encode_completion(tok, pair["prompt"], pair[side]))) for side in ("chosen", "rejected")]
    assert lengths.count(pair)["all"] == max(sides)
    implicit = {"chosen": [user("Is it?"), assistant("Yes.")], "rejected": [user("Is it?"), assistant("No, it is not so.")]}
    sides = [sum(map(len, tokens.encode_completion(tok, implicit[side][:1], implicit[side][1:]))) for side in ("chosen", "rejected")]
    assert lengths.count(implicit)["all"] == max(sides)
    prompt = {"prompt": "Is it?"}
    asked = len(tokens.encode_prompt(tok, [user("Is it?")]))
    assert lengths.count(prompt) == {"prompt": asked, "all": asked}


@given(st.text(max_size=60), st.integers(0, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bound_never_decides_wrongly(both, text, most):
    """over() without encoding says the same as counting."""
    _, lengths = both
    rec = {"messages": [user("What?"), assistant(text + ".")]}
    n = lengths.count(rec)["all"]
    assert lengths.over(rec, most) == (n if n > most else None)


def test_short_records_are_not_encoded(both, monkeypatch):
    _, lengths = both
    monkeypatch.setattr(lengths, "_ids", lambda text: pytest.fail("encoded"))
    assert lengths.over({"messages": CHATS[0]}, 4000) is None


def test_counts_that_a_record_has_are_taken_while_they_are_true(both, monkeypatch):
    _, lengths = both
    rec = {"messages": CHATS[0]}
    stamped = {**rec, "tokens": lengths.stamp(rec), "source": "later", "id": "x"}
    n = lengths.count(rec)
    assert record.content_hash(stamped) == record.content_hash(rec)
    with monkeypatch.context() as patched:
        patched.setattr(lengths, "_ids", lambda text: pytest.fail("encoded"))
        assert lengths.count(stamped) == n and lengths.over(stamped, n["all"]) is None and lengths.over(stamped, 1) == n["all"]
    changed = {**stamped, "messages": [user("What is 2 plus 3?"), assistant("The answer is 5, and nothing else.")]}
    assert lengths.count(changed)["all"] > n["all"]
    forged = {**rec, "tokens": {"prompt": 1, "all": 1, "of": "0" * 16}}
    assert lengths.count(forged) == n


def test_another_template_is_another_count(world, tmp_path):
    (tmp_path / "t.jinja").write_text(TEMPLATES["chatml"])
    own, other = Lengths(str(world / "blank")), Lengths(str(world / "blank" / "tokenizer.json"), str(tmp_path / "t.jinja"))
    rec = {"messages": CHATS[0]}
    assert own.name != other.name and own.count(rec) != other.count(rec)
    assert other.count({**rec, "tokens": own.stamp(rec)}) == other.count(rec)


def test_templates_by_name_and_from_files(world, tmp_path):
    config = json.loads((world / "blank" / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    config["bos_token"] = {"content": "<s>", "lstrip": False}
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named}))
    assert ChatTemplate(str(tmp_path)).render([]) == "D<s>"
    (tmp_path / "chat_template.jinja").write_text("F")
    assert ChatTemplate(str(tmp_path)).render([]) == "F"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no chat template"):
        ChatTemplate(str(tmp_path)).render([])


HOSTILE = ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__.__init__.__globals__ }}", "{% set x = messages.append(1) %}",
           "{{ cycler.__init__.__globals__.os.popen('id') }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ messages[0].x.y }}",
           "{% for i in range(10**9) %}x{% endfor %}", "{{ lipsum.__globals__.os }}"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_templates_are_refused_by_a_reason(tmp_path, text):
    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(ValueError, match="chat template: "):
        ChatTemplate(str(tmp_path), str(tmp_path / "t.jinja")).render(CHATS[0])


def test_what_is_private_is_not_shown(tmp_path):
    (tmp_path / "t.jinja").write_text("{{ lipsum.__globals__ }}{{ messages.__class__ }}")
    assert ChatTemplate(str(tmp_path), str(tmp_path / "t.jinja")).render(CHATS[0]) == ""


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        Lengths(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="no tokenizer"):
        Lengths(str(tmp_path))
    from pt_tools.curate import lengths

    with pytest.raises(Usage, match="--tokenizer: .*no such file"):
        lengths.identity(str(tmp_path / "nowhere"))


def test_sampled_texts_are_counted_with_the_end_of_their_turn(both):
    """As what `best` and `pair` make of them is trained on."""
    tok, lengths = both
    before, after = tokens.encode_completion(tok, [user("What is 2 plus 3?")], "It is 5.")
    rec = {"prompt": [user("What is 2 plus 3?")], "completions": [{"text": "5"}, {"text": "It is 5."}]}
    more = len(before) + len(after) - lengths.count(rec)["all"]
    assert more == 0 if tokens.end_of_turn(tok) is not None else 0 <= more <= 2  # a token may straddle the border
    kept = {**rec, "completions": [], "tokens": lengths.stamp({**rec, "completions": []})}
    assert lengths.count({**kept, "completions": rec["completions"]}) == lengths.count(rec)  # a count from before they were sampled
    assert lengths.count(kept) == {"prompt": len(before), "all": len(before)}
