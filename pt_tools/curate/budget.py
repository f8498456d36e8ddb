"""How many tokens a record's texts have: counted by a tokenizer, or estimated from their bytes."""

import functools
import math
import os

from pt_tools.record import as_turns

KEYS = {"messages": "user", "prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant",
        "text": "user"}


def texts(rec: dict) -> list[str]:
    """The texts that a record would be trained on or sampled from: contents of its messages, without a chat template."""
    return [turn["content"] for key, role in KEYS.items() if key in rec for turn in as_turns(rec[key], role)]


def count(records: list[dict], tokenizer: str | None = None, bytes_per_token: float = 4.0) -> list[int]:
    """Tokens of each record, at least 1: by a tokenizer.json, or bytes of UTF-8 through `bytes_per_token`, rounded up."""
    found = [texts(rec) for rec in records]
    if tokenizer is None:
        return [max(1, math.ceil(sum(len(text.encode("utf-8", "replace")) for text in each) / bytes_per_token))
                for each in found]
    encoded = iter(load(tokenizer).encode_batch_fast([text for each in found for text in each], add_special_tokens=False))
    return [max(1, sum(len(next(encoded).ids) for _ in each)) for each in found]


@functools.lru_cache(maxsize=1)
def load(path: str):
    """The tokenizer of a tokenizer.json, without padding and truncation. ValueError if it is none."""
    # Set before the threads exist: a forked process would hang on them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path}: no tokenizer ({error})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
