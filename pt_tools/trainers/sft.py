"""Supervised fine-tuning on TRL's SFTTrainer, with our tokenisation, masks, packing and order."""

from functools import partial

from pt_tools import models, tokens
from pt_tools.trainers import base, data, head
from pt_tools.trainers.order import Order, micro_batch_size

import torch
from trl import SFTConfig, SFTTrainer

from pt_tools.errors import BadModel
from pt_tools.record import check, kind as kind_of, messages_of


class Sft(base.Promises, SFTTrainer):
    """Cross-entropy, summed over the trained tokens of a global batch and divided by their number."""

    loss_is_scaled_for_ga = True      # compute_loss divides by the tokens of the whole batch

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.trained_tokens = sum(int((b["labels"][:, 1:] != tokens.IGNORE).sum()) for b in batches)
        return batches, count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not head.plain(self.model):
            shape = inputs["input_ids"].shape
            inputs.setdefault("position_ids", torch.arange(shape[1], device=self.model.device).expand(shape))
            return super().compute_loss(model, inputs, return_outputs, self.trained_tokens)
        labels = inputs.pop("labels")
        logps, _ = head.token_logps(self.model, inputs, labels)
        return -logps.sum() / self.trained_tokens


def train(cfg, job):
    """Train `cfg.model` on job.records; writes the model into job.out.stage."""
    device, _ = base.prepare(cfg)
    tokenizer = models.load_tokenizer(cfg.model, cfg.chat_template)
    if cfg.from_scratch:
        model = models.from_config(cfg.model, cfg.seed, device)
    else:
        model = models.load_model(cfg.model, device)
    if cfg.packing:
        check_packing(model)
    rows = read_rows(job, tokenizer, longest(model, cfg.max_length))
    models.check_ids(model, [row.input_ids for row in rows], cfg.model)
    if cfg.packing:
        rows = data.pack(rows, longest(model, cfg.max_length))
        job.say(f"packed into {len(rows)} rows")
    trainer = build(cfg, job, model, tokenizer, rows)
    trainer.run()
    trainer.finish()


def build(cfg, job, model, tokenizer, rows):
    """The trainer for tokenised rows."""
    lengths = [len(r.input_ids) for r in rows]
    micro = micro_batch_size(cfg, max(lengths), model.device.type == "cuda")
    order = Order(len(rows), cfg.batch_size, micro, cfg.seed, cfg.epochs, cfg.max_steps, lengths)
    args = base.arguments(SFTConfig, "sft", cfg, job, order, max_length=None,
                          dataset_kwargs={"skip_prepare_dataset": True})
    trainer = Sft(model=model, args=args, processing_class=tokenizer, train_dataset=data.numbers(rows),
                  data_collator=partial(data.collate, pad_id=models.pad_id(model, tokenizer)), job=job, order=order,
                  rows=rows)
    if len(trainer.train_dataset) != len(rows):
        raise AssertionError("TRL changed the number of rows")
    return trainer


@torch.no_grad()
def check_packing(model):
    """BadModel unless documents of one row, told apart by positions alone, do not see each other in this model.

    Some architectures make their mask without the positions, or carry a state along the row.
    """
    training = model.training
    model.eval()
    ids = torch.arange(12, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    positions = torch.tensor([[*range(5), *range(7)]], device=model.device)
    try:
        packed = model.base_model(ids, position_ids=positions, use_cache=False).last_hidden_state[:, 5:]
        alone = model.base_model(ids[:, 5:], position_ids=positions[:, 5:], use_cache=False).last_hidden_state
        apart = bool((packed - alone).abs().max() <= 1e-4 * alone.abs().max())
    except (TypeError, ValueError):      # no positions to give
        apart = False
    if not apart:
        raise BadModel(f"{model.config.model_type}: documents cannot be kept apart in this model; leave out --packing")
    model.train(training)


def longest(model, max_length):
    """`max_length`, or what the model has positions for if that is less."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_length, limit or max_length)


def read_rows(job, tokenizer, max_length):
    """Tokenise job.records; every record is counted as out, dropped or errored."""
    check_tokenizer(job, tokenizer)

    def encoded(record):
        row, cut = data.row(*encode(tokenizer, record), max_length)
        return row, cut, data.trained(row)

    return data.read(job, encoded, max_length, "row", "trained token")


def check_tokenizer(job, tokenizer):
    """A model learns to stop only from a stop token: refuse a tokenizer without, warn about a template without."""
    if tokenizer.eos_token_id is None:
        raise BadModel("the tokenizer has no end-of-text token, so a model could never learn to stop")
    if tokenizer.chat_template and tokens.end_of_turn(tokenizer) is None:
        job.say(f"the chat template ends no assistant turn with a stop token; "
                f"{tokenizer.eos_token} is added after the last one")


def check_row(record):
    """ValueError for a record with a fault, or that asks for what no loss here does."""
    check(record)
    if record.get("weight") not in (None, 1):
        raise ValueError("a weight other than 1 is not supported")


def encode(tokenizer, record):
    """(input_ids, labels) of a record: messages, prompt + completion, or text. ValueError says what is wrong."""
    check_row(record)
    kind = kind_of(record)
    if kind == "text":
        return tokens.encode_text(tokenizer, record["text"])
    if kind == "prompt-completion" and isinstance(record["prompt"], str) and isinstance(record["completion"], str):
        before, after = tokens.encode_completion(tokenizer, record["prompt"], record["completion"])
        return before + after, [tokens.IGNORE] * len(before) + after
    if kind in ("messages", "prompt-completion"):
        return tokens.encode_chat(tokenizer, messages_of(record), record.get("tools"))
    raise ValueError(f"a {kind} record is neither messages, nor prompt and completion, nor text")
