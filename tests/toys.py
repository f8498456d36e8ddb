"""Small tokenizers, models and jobs for tests of training, made in memory."""

import contextlib
import dataclasses
import json

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pt_tools import models, options, outdir, stop, stream
from pt_tools.job import Job

CHAT = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{% if m.role == 'assistant' %}<|end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def tokenizer(template=CHAT, **special):
    """A token a character; <|end|> (1) ends text and turns."""
    words = ["<|pad|>", "<|end|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|system|>", "\n", *map(chr, range(32, 127))]
    backend = Tokenizer(tokenizer_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<|unk|>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    special = {"pad_token": "<|pad|>", "eos_token": "<|end|>", "unk_token": "<|unk|>"} | special
    made = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template,
                                   additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"], **special)
    return made


def llama(seed=0, **changes):
    """Two layers of 32, with attention dropout where `attention_dropout` says so."""
    torch.manual_seed(seed)
    config = dict(vocab_size=102, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, tie_word_embeddings=True)
    return LlamaForCausalLM(LlamaConfig(**config | changes))


def save(path, model=None, tok=None):
    """A model directory."""
    models.save_model(model or llama(), tok or tokenizer(), path)
    return str(path)


def write(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return str(path)


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def chats(n):
    """Conversations of many lengths."""
    return [chat(f"Say {i}.", f"{i} " * (1 + i % 5)) for i in range(n)]


def pairs(n):
    return [{"prompt": [{"role": "user", "content": f"Say {i}."}], "chosen": f"{i} " * (1 + i % 4), "rejected": f"no {i}"}
            for i in range(n)]


def config(cls, **values):
    """A Config with its defaults, one thread, no progress."""
    values = {"threads": 1, "quiet": True, "device": "cpu", "out": "out", **values}
    return cls(**{f.name: f.default for f in dataclasses.fields(cls)} | values)


@contextlib.contextmanager
def job(cfg, path):
    """A job whose output is `path`; a second one for the same path goes on where the first stopped."""
    made = Job("pt-test", cfg)
    made.records = stream.Reader(cfg.files, made.rows, cfg.on_error, cfg.rejects, cfg.max_bad)
    made.out = outdir.Out(path, {"options": str(options.fields(cfg).keys())}, say=made.say)
    made.out.begin()
    made.run = made.out.run
    try:
        yield made
    finally:
        made.out.close()
        stop.clear()
