"""Embeddings whose rows do not correspond: padding, tokens added or in another order, tied heads, and the files beside."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from pt_tools.errors import BadModel, Usage
from pt_tools.merge import build, directory, engine, methods
from pt_tools.merge.spec import Part, Ref, Slice, Spec

EMBED, HEAD, BODY = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"
WORDS = ["a", "b", "c", "d", "e"]


def entry(i, token, **more):
    return {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **more}


def model(path, words=WORDS, added=(), rows=None, seed=0, head=True, tokenizer=True, width=4, files=None, tensors=None, **config):
    """A model whose embedding's row r is [seed, r, seed, r], its head's the negative."""
    path.mkdir()
    ids = {word: i for i, word in enumerate(words)}
    more = [entry(len(words) + n, token) if isinstance(token, str) else token for n, token in enumerate(added)]
    if tokenizer:
        text = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": more, "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
                "model": {"type": "WordLevel", "vocab": ids, "unk_token": words[0]}}
        (path / "tokenizer.json").write_text(json.dumps(text))
    rows = rows or max([*ids.values(), *(one["id"] for one in more)]) + 1
    embedding = np.stack([np.full(rows, seed), np.arange(rows)] * (width // 2), 1).astype(np.float32)
    own = {EMBED: embedding, BODY: np.full((3, 4), seed, np.float32), **({HEAD: -embedding} if head else {}), **(tensors or {})}
    save_file(own, path / "model.safetensors")
    config = {"vocab_size": rows, "tie_word_embeddings": not head, **config}
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    for name, text in (files or {}).items():
        (path / name).write_text(text)
    return path


def merge(tmp_path, *paths, method="linear", base=None, settings=None, **more):
    """(tensors, config, notes, directory) of a merge."""
    spec = Spec(method, (Slice(tuple(Part(Ref(str(path))) for path in paths)),), Ref(str(base)) if base else None,
                {name: (("", value),) for name, value in (settings or {}).items()}, **more)
    built = build.build(spec, methods.get(method), shard_size=10**9, seed=0)
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    engine.run(built.plan, out, tmp_path / f"{out.name}.run")
    directory.write(out, built.config, built.donor, built.added, built.chat_template)
    return load_file(out / "model.safetensors"), json.loads((out / "config.json").read_text()), built.notes, out


def rows(tensor):
    """[seed, row] of every row."""
    assert np.array_equal(tensor[:, :2], tensor[:, 2:])
    return tensor[:, :2].tolist()


def test_equal_tokenizers_need_nothing(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", seed=3)
    out, config, notes, _ = merge(tmp_path, a, b)
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] and rows(-out[HEAD]) == rows(out[EMBED]) and not notes
    assert config["vocab_size"] == 5


def test_a_tokenizer_written_another_way_is_the_same(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", seed=3)
    text = json.loads((b / "tokenizer.json").read_text())
    text["model"]["vocab"] = dict(reversed(text["model"]["vocab"].items()))
    (b / "tokenizer.json").write_text(json.dumps(text, indent=3))
    assert not merge(tmp_path, a, b)[2]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_padding_of_one_model_is_its_own(tmp_path, order):
    """Where only the number of rows differs, the larger goes out, and its rows beyond the other's are kept."""
    made = {"a": model(tmp_path / "a", seed=1), "b": model(tmp_path / "b", seed=3, rows=8)}
    out, config, notes, _ = merge(tmp_path, *(made[name] for name in order))
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] + [[3, r] for r in range(5, 8)]
    assert rows(-out[HEAD]) == rows(out[EMBED])
    assert config["vocab_size"] == 8 and "embeddings have 5 to 8 rows: 8 go out" in notes[0]


def test_a_chosen_tokenizers_rows_are_the_outputs(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", seed=3, rows=8)
    out, config, _, _ = merge(tmp_path, a, b, tokenizer=str(a))
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] and config["vocab_size"] == 5


def test_padding_to_a_multiple(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", seed=3)
    out, config, _, _ = merge(tmp_path, a, b, pad_to_multiple_of=8)
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] + [[0, 0]] * 3 and config["vocab_size"] == 8
    assert not merge(tmp_path, a, b, pad_to_multiple_of=5)[2]


def test_tokens_in_another_order_are_brought_into_the_donors(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", ["e", "c", "a", "b", "d"], seed=3)
    out, _, notes, where = merge(tmp_path, a, b)
    places = {word: i for i, word in enumerate(["e", "c", "a", "b", "d"])}
    assert rows(out[EMBED]) == [[2, (r + places[word]) / 2] for r, word in enumerate(WORDS)]
    assert (where / "tokenizer.json").read_bytes() == (a / "tokenizer.json").read_bytes()
    assert "tokenizers differ: that of" in notes[0]


def test_an_added_token_has_its_owners_row(tmp_path):
    """The first tokenizer that knows all tokens goes out; padding rows are matched by number."""
    a, b = model(tmp_path / "a", seed=1, rows=8), model(tmp_path / "b", added=["<x>"], seed=3, rows=8)
    out, _, _, where = merge(tmp_path, a, b)
    # Row 5 is <x>, which a has not: its row 5 is padding, and stays so.
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] + [[3, 5]] + [[2, 6], [2, 7]]
    assert (where / "tokenizer.json").read_bytes() == (b / "tokenizer.json").read_bytes()


def test_a_token_that_several_have_is_their_mean_unless_the_base_has_it(tmp_path):
    a = model(tmp_path / "a", seed=1)
    b, c = model(tmp_path / "b", added=["<x>"], seed=3), model(tmp_path / "c", added=["<x>"], seed=8)
    out = merge(tmp_path, a, b, c)[0]
    assert rows(out[EMBED])[5] == [pytest.approx((5.5 + 3 + 8) / 3), 5]
    out = merge(tmp_path, a, c, base=b, method="task_arithmetic", settings={"weight": 1.0})[0]
    assert rows(out[EMBED])[5] == [3 + 0 + 5, 5]  # a has the base's row there: no difference


def test_a_union_adds_the_others_tokens_as_they_were(tmp_path):
    a = model(tmp_path / "a", added=["<y>"], seed=1)
    b = model(tmp_path / "b", added=[entry(5, "<x>", special=True, lstrip=True)], seed=3)
    with pytest.raises(Usage, match="no model's tokenizer knows the tokens of all; choose --tokenizer-from"):
        merge(tmp_path, a, b)
    out, config, _, where = merge(tmp_path, a, b, tokenizer="union")
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] + [[1, 5], [3, 5]] and config["vocab_size"] == 7
    made = Tokenizer.from_file(str(where / "tokenizer.json"))
    assert made.token_to_id("<y>") == 5 and made.token_to_id("<x>") == 6
    token = made.get_added_tokens_decoder()[6]
    assert token.special and token.lstrip and not made.get_added_tokens_decoder()[5].special
    ours = merge(tmp_path, a, b, tokenizer=str(a))[0]
    assert rows(ours[EMBED]) == [[2, r] for r in range(5)] + [[1, 5]]  # <x> is dropped: it was asked for


@pytest.mark.parametrize("change, reason", [
    (lambda text: text["model"]["vocab"].update(z=9), "union"), (lambda text: text.update(normalizer={"type": "NFC"}), "normalizer"),
    (lambda text: text["model"].update(type="BPE", merges=[]), "model type"),
    (lambda text: text.update(pre_tokenizer=None), "pre_tokenizer")])
def test_other_tokenizers_are_refused(tmp_path, change, reason):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", seed=3, rows=12)
    text = json.loads((b / "tokenizer.json").read_text())
    change(text)
    (b / "tokenizer.json").write_text(json.dumps(text))
    if reason == "union":
        with pytest.raises(Usage, match="'z' of .*b is no added token and cannot be added"):
            merge(tmp_path, a, b, tokenizer="union")
    else:
        with pytest.raises(BadModel, match=rf"another than that of .*a \({reason}\)"):
            merge(tmp_path, a, b)


def test_foreign_vocabularies_are_refused(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", ["a", "b", "x", "y", "z"], seed=3)
    with pytest.raises(BadModel, match=r"\(vocabulary\): rows of the embeddings do not mean the same; transplant"):
        merge(tmp_path, a, b)


def test_what_cannot_be_compared_is_refused(tmp_path):
    a, b = model(tmp_path / "a", seed=1), model(tmp_path / "b", tokenizer=False, files={"tokenizer.model": "x"}, seed=3)
    with pytest.raises(BadModel, match="no tokenizer.json to compare tokens by"):
        merge(tmp_path, a, b)
    c = model(tmp_path / "c", tokenizer=False, seed=5)
    assert rows(merge(tmp_path, a, c)[0][EMBED]) == [[3, r] for r in range(5)]  # without a tokenizer: taken at its shapes


# --- heads --------------------------------------------------------------------------------------------------------


def test_a_tied_head_is_not_written(tmp_path):
    """Neither where a file has one by mistake: with the configuration's word, or with equal bytes where it says nothing."""
    a = model(tmp_path / "a", seed=1, head=False)
    spurious = {HEAD: np.ones((5, 4), np.float32)}
    b = model(tmp_path / "b", seed=3, head=False, tensors=spurious)
    out, config, _, _ = merge(tmp_path, a, b)
    assert HEAD not in out and config["tie_word_embeddings"] is True
    embedding = np.stack([np.full(5, 3), np.arange(5)] * 2, 1).astype(np.float32)
    c = model(tmp_path / "c", seed=3, head=False, tensors={HEAD: embedding}, tie_word_embeddings=None)
    out, config, _, _ = merge(tmp_path, c, c)
    assert HEAD not in out and config["tie_word_embeddings"] is True


def test_a_head_of_its_own_meets_the_embedding_of_a_tied_model(tmp_path):
    a, b = model(tmp_path / "a", seed=1, head=False), model(tmp_path / "b", seed=3)
    out, config, _, _ = merge(tmp_path, a, b)
    assert rows(out[EMBED]) == [[2, r] for r in range(5)] and rows(out[HEAD]) == [[-1, 0]] * 5
    assert config["tie_word_embeddings"] is False


def test_parts_of_layers_that_are_named_like_a_head_are_no_head(tmp_path):
    part = {"model.layers.0.attn.output.weight": np.ones((4, 4), np.float32)}
    a, b = model(tmp_path / "a", seed=1, head=False, tensors=part), model(tmp_path / "b", seed=3, head=False, tensors=part)
    assert np.array_equal(merge(tmp_path, a, b)[0]["model.layers.0.attn.output.weight"], np.ones((4, 4)))


def test_the_embedding_is_the_one_with_a_row_a_token(tmp_path):
    """OPT has positions too, under a name that comes first."""
    made = [model(tmp_path / str(n), seed=n, added=["<x>"] * (n == 3), tensors={"model.embed.weight": np.full((9, 4), n, np.float32)})
            for n in (1, 3)]
    out = merge(tmp_path, *made)[0]
    assert np.array_equal(out["model.embed.weight"], np.full((9, 4), 2)) and rows(out[EMBED])[5] == [3, 5]


# --- the files beside ---------------------------------------------------------------------------------------------

GENERATION = '{"eos_token_id": 4, "temperature": 0.6}'


def test_template_and_generation_settings_are_the_donors(tmp_path):
    a = model(tmp_path / "a", seed=1, files={"generation_config.json": "{}", "modeling_x.py": "raise SystemExit"})
    b = model(tmp_path / "b", seed=3, files={"generation_config.json": GENERATION, "chat_template.jinja": "{{ messages }}"},
              eos_token_id=4)
    where, notes = merge(tmp_path, a, b)[3], merge(tmp_path, a, b)[2]
    assert (where / "generation_config.json").read_text() == "{}" and not (where / "chat_template.jinja").exists()
    assert not (where / "modeling_x.py").exists()
    assert any("has no chat template" in note and "--tokenizer-from" in note for note in notes)
    _, config, _, where = merge(tmp_path, a, b, tokenizer=str(b))
    assert (where / "generation_config.json").read_text() == GENERATION and config["eos_token_id"] == 4
    assert (where / "chat_template.jinja").read_text() == "{{ messages }}"
    where = merge(tmp_path, a, b, chat_template="{{ x }}")[3]
    assert (where / "chat_template.jinja").read_text() == "{{ x }}"


def test_special_tokens_are_checked(tmp_path):
    a, b = model(tmp_path / "a", seed=1, eos_token_id=2), model(tmp_path / "b", seed=3, eos_token_id=[3, 4])
    _, config, notes, _ = merge(tmp_path, a, b)
    assert config["eos_token_id"] == 2 and [n for n in notes if n.startswith("eos_token_id is 2 in ")]
    c = model(tmp_path / "c", seed=1, pad_token_id=5)
    with pytest.raises(BadModel, match="pad_token_id 5 has no row: the output's embedding has 5"):
        merge(tmp_path, c, a)
    d = model(tmp_path / "d", seed=1, files={"generation_config.json": '{"eos_token_id": [1, 7]}'})
    with pytest.raises(BadModel, match="eos_token_id 7 has no row"):
        merge(tmp_path, d, a)


def test_what_configurations_say_differently_is_said(tmp_path):
    a, b = model(tmp_path / "a", rope_theta=1e4), model(tmp_path / "b", rope_theta=1e6)
    assert any("rope_theta is 10000.0 in" in note for note in merge(tmp_path, a, b)[2])
