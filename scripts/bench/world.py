"""The data, tokenizer and blank model that both sides of a benchmark use."""

import json
from pathlib import Path

import numpy as np

VOCAB, LONGEST = 8192, 64
SFT = dict(batch_size=16, max_steps=6)
DPO = dict(batch_size=8, max_steps=4)
RLVR = dict(batch_size=32, group_size=8, max_steps=3)
SAMPLE = dict(prompts=16, samples=8, batch_size=64)


def words(rng, count):
    return " ".join(f"w{i}" for i in rng.integers(0, VOCAB - 2, count))


def prompt(rng):
    """32 to 96 tokens."""
    return words(rng, int(rng.integers(32, 97)))


def completion(rng):
    """Geometric with mean 16, at most LONGEST tokens."""
    return " " + words(rng, min(LONGEST - 1, int(rng.geometric(1 / 16))))


def rows(part, count=512):
    rng = np.random.default_rng(7)
    make = {
        "base": lambda: {"prompt": words(rng, 4), "completion": completion(rng)},
        "sft": lambda: {"prompt": prompt(rng), "completion": completion(rng)},
        "dpo": lambda: {"prompt": prompt(rng), "chosen": completion(rng), "rejected": completion(rng)},
        "rlvr": lambda: {"prompt": prompt(rng), "verifier": verifier()},
    }[part]
    return [{"id": str(i), **make()} for i in range(count)]


def verifier():
    """Fewer than 12 words: a model that has learned the lengths passes about half of the time."""
    return {"name": "constraints", "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"relation": "less than", "num_words": 12}], "mode": "strict"}


def write_blank(path):
    """A model directory without weights: configuration and a tokenizer of one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i + 2 for i in range(VOCAB - 2)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(path)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(path)


def write_rows(path, some):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in some))
    return str(path)
