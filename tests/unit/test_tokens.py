"""Ids and labels: what is trained is exactly what a model would have to say, and it includes the stop token."""

import pytest
import toys
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from pt_tools import tokens
from pt_tools.models import template_hash, tokenizer_hash

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "No."}]


def trained(tok, encoded):
    """The trained text, with | between runs of trained tokens."""
    parts, open_ = [], False
    for label in encoded.labels:
        if label != tokens.IGNORE:
            parts.append(tok.decode([label]))
        elif open_:
            parts.append("|")
        open_ = label != tokens.IGNORE
    return "".join(parts).strip("|")


def test_every_assistant_turn_is_trained_with_its_stop_token_and_nothing_else():
    tok = toys.tokenizer()
    encoded = tokens.encode_chat(tok, TALK)
    assert tok.decode(encoded.input_ids) == ("<|system|>Be brief.<|user|>Hi<|assistant|>Yes.<|end|>\n"
                                             "<|user|>Bye<|assistant|>No.<|end|>\n")
    assert trained(tok, encoded) == "Yes.<|end|>|No.<|end|>"
    assert all(label in (tokens.IGNORE, i) for i, label in zip(*encoded))


def test_a_turn_with_train_false_carries_no_loss():
    tok = toys.tokenizer()
    talk = [{**m, "train": m["content"] != "Yes."} for m in TALK]
    encoded = tokens.encode_chat(tok, talk)
    assert trained(tok, encoded) == "No.<|end|>"
    assert encoded.input_ids == tokens.encode_chat(tok, TALK).input_ids
    with pytest.raises(ValueError, match="no assistant turn"):
        tokens.encode_chat(tok, TALK[:2])


def test_prompt_ids_are_a_prefix_of_what_is_trained():
    tok = toys.tokenizer()
    prompt = tokens.encode_prompt(tok, TALK[:2])
    before, after = tokens.encode_completion(tok, TALK[:2], "Yes.")
    assert prompt == before == tokens.encode_chat(tok, TALK[:3]).input_ids[:len(prompt)]
    assert tok.decode(after) == "Yes.<|end|>"
    assert tokens.encode_completion(tok, TALK[:2], [TALK[2]]) == (before, after)


def test_plain_strings_and_text_end_with_end_of_text():
    tok = toys.tokenizer()
    assert tokens.encode_completion(tok, "2+2=", "4") == ([*tok("2+2=")["input_ids"]], [*tok("4")["input_ids"], 1])
    ids, labels = tokens.encode_text(tok, "abc")
    assert ids == labels == [*tok("abc")["input_ids"], 1]


def test_pad_equal_to_end_still_trains_the_end():
    tok = toys.tokenizer(pad_token="<|end|>")
    assert tok.pad_token_id == tok.eos_token_id
    assert tokens.encode_chat(tok, TALK).labels.count(tok.eos_token_id) == 2


def test_a_template_without_a_stop_token_gets_one_after_the_last_turn():
    tok = toys.tokenizer("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                         "{% if add_generation_prompt %}assistant: {% endif %}")
    assert tokens.end_of_turn(tok) is None
    encoded = tokens.encode_chat(tok, TALK)
    assert trained(tok, encoded) == "Yes.\n|No.\n<|end|>"


def test_a_template_that_drops_earlier_thoughts_trains_what_it_shows():
    thinking = ("{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last %}"
                "{{ m.content.split('=')[-1] }}{% else %}{{ m.content }}{% endif %}"
                "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
                "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    tok = toys.tokenizer(thinking)
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "hm=Yes."},
            {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "oh=No."}]
    assert trained(tok, tokens.encode_chat(tok, talk)) == "Yes.<|end|>|oh=No.<|end|>"


def test_a_generation_prompt_that_opens_a_thought_is_kept_as_far_as_it_agrees():
    tok = toys.tokenizer(toys.CHAT.replace("<|assistant|>{% endif %}", "<|assistant|>think{% endif %}"))
    assert trained(tok, tokens.encode_chat(tok, TALK[:3])) == "Yes.<|end|>"
    # Where the answer begins like the thought, only the rest of it can be told apart from the prompt.
    assert tok.decode(tokens.encode_prompt(tok, TALK[:2])).endswith("<|assistant|>think")


def test_a_token_that_straddles_the_border_is_split_there():
    backend = Tokenizer(models.BPE({"<e>": 0, "a": 1, "b": 2, "ab": 3, "c": 4}, [("a", "b")]))
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    assert tok("ab", add_special_tokens=False)["input_ids"] == [3]
    assert tokens.encode_completion(tok, "ca", "bc") == ([4, 1], [2, 4, 0])
    assert tokens.encode_prompt(tok, "ca") == [4, 1]


def test_no_second_beginning_of_text():
    from tokenizers import processors

    tok = toys.tokenizer("<|system|>" + toys.CHAT, bos_token="<|system|>")
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", tok.bos_token_id)])
    bos = tok.bos_token_id
    assert tokens.encode_prompt(tok, TALK[1:2]).count(bos) == 1
    assert tokens.encode_prompt(tok, "abc")[0] == bos and tokens.encode_prompt(tok, "abc").count(bos) == 1
    assert tokens.encode_text(tok, "abc").input_ids == [bos, *tok("abc", add_special_tokens=False)["input_ids"], 1]


def test_stop_ids_hold_end_of_text_end_of_turn_and_the_models_own():
    tok = toys.tokenizer(toys.CHAT.replace("<|end|>", "<|system|>"))
    model = toys.llama()
    model.generation_config.eos_token_id = [7, 9]
    assert tokens.stop_ids(tok, model) == {1, tok.convert_tokens_to_ids("<|system|>"), 7, 9}
    assert tokens.stop_ids(tok) == {1, tok.convert_tokens_to_ids("<|system|>")}


def test_what_a_template_refuses_is_a_reason_not_a_crash():
    tok = toys.tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValueError, match="roles must alternate"):
        tokens.encode_chat(tok, TALK)
    with pytest.raises(ValueError, match="no chat template"):
        tokens.encode_chat(toys.tokenizer(None), TALK)


def test_leftover_truncation_settings_do_not_cut():
    tok = toys.tokenizer()
    tok("abc", truncation=True, max_length=2, padding="max_length")
    assert len(tokens.encode_text(tok, "abcdef").input_ids) == 7


def test_hashes_tell_tokenizers_and_templates_apart():
    a, b = toys.tokenizer(), toys.tokenizer("x{{ messages }}")
    a("abc", padding="max_length", max_length=9, truncation=True)      # settings of a call, not of the tokenizer
    assert tokenizer_hash(a) == tokenizer_hash(b) and len(tokenizer_hash(a)) == 16
    assert template_hash(a) != template_hash(b)
    assert tokenizer_hash(a) != tokenizer_hash(toys.tokenizer(eos_token="<|user|>"))
    b.add_tokens(["<|new|>"])
    assert tokenizer_hash(a) != tokenizer_hash(b)


def test_a_template_that_shows_no_answer_is_a_reason_not_an_empty_turn():
    tok = toys.tokenizer("hello")
    messages = toys.chat("Hi", "there")["messages"]
    with pytest.raises(ValueError, match="leaves out"):
        tokens.encode_chat(tok, messages)
    with pytest.raises(ValueError, match="leaves out"):
        tokens.encode_completion(tok, messages[:1], "there")
