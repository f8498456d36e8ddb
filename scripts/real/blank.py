"""A small blank model for real text: a byte-level BPE tokenizer trained on the records given, and a Llama config.

    python scripts/real/blank.py corpus.jsonl -o blank/

The directory has no weights; pt-sft --from-scratch draws them from its seed.
"""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pt_tools import record, stream

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = r"'(?:s|t|re|ve|m|ll|d)|\s?[A-Za-z]+|[0-9]|\s?[^\sA-Za-z0-9]+|\s+"


def texts(files):
    for path in files:
        for row in stream.read_jsonl(path):
            for message in record.messages_of(row):
                yield message.get("content") or ""


def tokenizer(files, size: int) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts(files), trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return bpe


def config(size: int, hidden: int, layers: int, length: int) -> dict:
    ids = {name: SPECIAL.index(token) for name, token in (("pad_token_id", "<|pad|>"), ("eos_token_id", "<|end|>"))}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": size, "hidden_size": hidden,
            "intermediate_size": 2 * hidden, "num_hidden_layers": layers, "num_attention_heads": 4,
            "num_key_value_heads": 4, "max_position_embeddings": length, "tie_word_embeddings": True,
            "bos_token_id": None, **ids}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("-o", "--out", required=True, type=Path)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=1024)
    args = parser.parse_args()
    bpe = tokenizer(args.files, args.vocabulary)
    args.out.mkdir(parents=True, exist_ok=True)
    bpe.save(str(args.out / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|pad|>", "eos_token": "<|end|>",
             "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False, "model_max_length": args.max_length}
    (args.out / "tokenizer_config.json").write_text(json.dumps(facts, indent=1) + "\n")
    blank = config(bpe.get_vocab_size(), args.hidden, args.layers, args.max_length)
    (args.out / "config.json").write_text(json.dumps(blank, indent=1) + "\n")


if __name__ == "__main__":
    main()
