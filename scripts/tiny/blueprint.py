"""The blank model of the tiny world: a tokenizer, a chat template and a configuration, but no weights.

The tokenizer is lossless for printable ASCII: known words are one token, with or without the blank before them, and
everything else is a token a character. Digits and letters therefore join without blanks when they are decoded.
"""
import json
import re
from pathlib import Path

from tasks import ANSWER_WORDS, COLOURS, NOUNS, PROMPT_WORDS, TOPICS

SPECIAL = ["<|pad|>", "<|unk|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHARACTERS = ["\n"] + [chr(code) for code in range(32, 127)]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def words() -> list[str]:
    """Every word that is one token, longest first (a regular expression takes the first that matches)."""
    known = set(PROMPT_WORDS + ANSWER_WORDS + NOUNS + COLOURS + list(TOPICS))
    return sorted((word for word in known if len(word) > 1), key=lambda word: (-len(word), word))


def vocabulary() -> dict[str, int]:
    tokens = SPECIAL + CHARACTERS + [form for word in words() for form in (word, " " + word)]
    return {token: number for number, token in enumerate(tokens)}


def _pieces() -> str:
    """A word stands alone: no letter touches it on either side."""
    alternatives = "|".join(re.escape(word) for word in words())
    return rf"(?: |(?<![A-Za-z]))(?:{alternatives})(?![A-Za-z])|[\s\S]"


def _tokenizer(vocab: dict[str, int]) -> dict:
    added = [{"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for token in SPECIAL]
    split = {"type": "Split", "pattern": {"Regex": _pieces()}, "behavior": "Isolated", "invert": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": split, "post_processor": None, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<|unk|>"}}


def _tokenizer_config() -> dict:
    return {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|pad|>", "eos_token": "<|end|>",
            "unk_token": "<|unk|>", "clean_up_tokenization_spaces": False, "model_max_length": 256,
            "padding_side": "right", "chat_template": TEMPLATE}


def _model_config(vocab: dict[str, int], hidden: int, layers: int) -> dict:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(vocab),
            "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.06, "tie_word_embeddings": True,
            "attention_bias": False, "mlp_bias": False, "bos_token_id": None, "eos_token_id": vocab["<|end|>"],
            "pad_token_id": vocab["<|pad|>"], "dtype": "float32"}


def write(directory: Path, hidden: int = 128, layers: int = 2) -> None:
    """Write a directory that transformers loads: `config.json` and the tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    files = {"tokenizer.json": _tokenizer(vocab), "tokenizer_config.json": _tokenizer_config(),
             "config.json": _model_config(vocab, hidden, layers)}
    for name, content in files.items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8", newline="\n")
