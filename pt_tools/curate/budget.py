"""What a record costs in tokens where it is enough to estimate, and tokenizers without a model."""

import functools
import math
import os

from pt_tools.record import as_turns

KEYS = {"messages": "user", "prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant",
        "text": "user"}


def texts(rec: dict) -> list[str]:
    """The texts that a record would be trained on or sampled from: contents of its messages, without a chat template."""
    return [turn["content"] for key, role in KEYS.items() if key in rec for turn in as_turns(rec[key], role)]


def estimate(rec: dict, bytes_per_token: float) -> int:
    """Tokens of a record's texts: bytes of UTF-8 through `bytes_per_token`, rounded up; at least 1."""
    return max(1, math.ceil(sum(len(text.encode("utf-8", "replace")) for text in texts(rec)) / bytes_per_token))


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
