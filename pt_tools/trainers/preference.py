"""Learning from pairs on TRL's DPOTrainer: our tokenisation and order, resumable reference log-probs, four losses."""

from functools import partial
from typing import NamedTuple

from pt_tools import models, tokens
from pt_tools.trainers import base, data, losses, reference
from pt_tools.trainers.order import Order, micro_batch_size

import torch
from trl import DPOConfig, DPOTrainer

from pt_tools.record import as_turns, kind as kind_of, prompt_of, untrained
from pt_tools.trainers.sft import check_row, check_tokenizer, longest


class Pair(NamedTuple):
    """Prompt + completion, chosen and rejected (Rows), and their log-probs under the reference."""
    chosen: data.Row
    rejected: data.Row
    reference: tuple = (0.0, 0.0)


class Preference(base.Promises, DPOTrainer):
    """Mean loss over the pairs of a global batch, plus `sft_weight` times the mean loss of its chosen tokens.

    Private names of TRL: _prepare_dataset and _precompute_ref_logps, both of which hand the data set back as it is.
    """

    loss_is_scaled_for_ga = True      # compute_loss divides by the pairs of the whole batch

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        return dataset

    def _precompute_ref_logps(self, dataset, name, batch_size):
        return dataset

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.pairs = sum(len(b["reference"]) for b in batches)
        self.chosen_tokens = sum(int((b["labels"][:len(b["reference"])] != tokens.IGNORE).sum()) for b in batches)
        return batches, count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        cfg = self.job.cfg
        sums, lengths = reference.sequence_logps(model, inputs["input_ids"], inputs["labels"])
        chosen, rejected = sums.chunk(2)
        each, margin = losses.preference(cfg.loss, chosen, rejected, *inputs["reference"].unbind(1), *lengths.chunk(2),
                                         beta=self.beta, gamma=gamma_of(cfg))
        loss = each.sum() / self.pairs - cfg.sft_weight * chosen.sum() / self.chosen_tokens
        self.note(accuracy=(margin > 0).sum() / self.pairs, margin=margin.detach().sum() / self.pairs,
                  chosen_logps=chosen.detach().sum() / self.pairs, rejected_logps=rejected.detach().sum() / self.pairs)
        return loss


def beta_of(cfg):
    return losses.BETA[cfg.loss] if cfg.beta is None else cfg.beta


def gamma_of(cfg):
    return losses.GAMMA if cfg.gamma is None else cfg.gamma


def train(cfg, job):
    """Train `cfg.model` on the pairs of job.records; writes the model into job.out.stage."""
    device, dtype = base.prepare(cfg)
    tokenizer = models.load_tokenizer(cfg.model)
    model = models.load_model(cfg.model, device)
    pairs = read_pairs(job, tokenizer, longest(model, cfg.max_length))
    models.check_ids(model, [side.input_ids for pair in pairs for side in (pair.chosen, pair.rejected)], cfg.model)
    if cfg.loss not in losses.REFERENCE_FREE:
        pairs = with_reference(cfg, job, model, dtype, tokenizer, pairs)
    trainer = build(cfg, job, model, tokenizer, pairs)
    trainer.run()
    trainer.finish()


def order_of(cfg, model, pairs):
    lengths = lengths_of(pairs)
    micro = micro_batch_size(cfg, 2 * max(lengths), model.device.type == "cuda")
    return Order(len(pairs), cfg.batch_size, micro, cfg.seed, cfg.epochs, cfg.max_steps, lengths)


def build(cfg, job, model, tokenizer, pairs):
    """The trainer for tokenised pairs that carry their reference log-probs."""
    order = order_of(cfg, model, pairs)
    args = base.arguments(DPOConfig, "dpo", cfg, job, order, beta=beta_of(cfg), max_length=None,
                          precompute_ref_log_probs=True)
    trainer = Preference(model=model, args=args, processing_class=tokenizer, train_dataset=data.numbers(pairs),
                         data_collator=partial(collate, pad_id=models.pad_id(model, tokenizer)), job=job, order=order,
                         rows=pairs)
    if len(trainer.train_dataset) != len(pairs):
        raise AssertionError("TRL changed the number of rows")
    return trainer


def lengths_of(pairs):
    return [max(len(p.chosen.input_ids), len(p.rejected.input_ids)) for p in pairs]


def collate(pairs, pad_id):
    """(2P, T) `input_ids` and `labels`, chosen first, and `reference` (P, 2)."""
    batch = data.collate([p.chosen for p in pairs] + [p.rejected for p in pairs], pad_id)
    return batch | {"reference": torch.tensor([p.reference for p in pairs], dtype=torch.float32)}


def with_reference(cfg, job, model, dtype, tokenizer, pairs):
    """The pairs with log-probs under `--reference`, or under the model they start from; of those that the run comes to."""
    order, pairs = order_of(cfg, model, pairs), list(pairs)
    used = order.used()
    if cfg.reference:
        model = reference.load(cfg.reference, tokenizer, model)
    collated = partial(collate, pad_id=models.pad_id(model, tokenizer))
    logps = reference.logps(model, dtype, [pairs[i] for i in used], collated, job.out.run / "reference",
                            order.micro_batch_size, [order.lengths[i] for i in used], job.say)
    for i, both in zip(used, logps.tolist(), strict=True):
        pairs[i] = pairs[i]._replace(reference=tuple(both))
    return pairs


def read_pairs(job, tokenizer, max_length):
    """Tokenise job.records; every record is counted as out, dropped or errored."""
    check_tokenizer(job, tokenizer)
    hashes = models.tokenizer_hash(tokenizer), models.template_hash(tokenizer)

    def encoded(record):
        pair, cut = make_pair(encode(tokenizer, record, hashes, job.rows), max_length)
        return pair, cut, data.trained(pair.chosen) and data.trained(pair.rejected)

    return data.read(job, encoded, max_length, "pair", "completion token")


def make_pair(sides, max_length):
    """(Pair cut to `max_length` tokens a side, whether anything was cut) of the (ids, labels) of both sides."""
    rows, cuts = zip(*(data.row(ids, labels, max_length) for ids, labels in sides))
    return Pair(*rows), any(cuts)


def encode(tokenizer, record, hashes, rows):
    """(ids, labels) of the prompt with chosen, and with rejected. Ids of this tokenizer are taken, else the text is encoded.

    Each with its own prompt, whose end may be encoded differently before different completions.
    """
    check_row(record)
    if kind_of(record) != "preference":
        raise ValueError(f"a {kind_of(record)} record is no pair: it has no chosen and rejected")
    if all(isinstance(record.get(k), list) for k in ("prompt_ids", "chosen_ids", "rejected_ids")):
        if (record.get("tokenizer"), record.get("template", hashes[1])) == hashes:
            return [_labelled(record["prompt_ids"], record[k]) for k in ("chosen_ids", "rejected_ids")]
        rows.reasons["out: ids of another tokenizer or template, text encoded"] += 1
    prompt = prompt_of(record)
    sides = []
    for key in ("chosen", "rejected"):
        completion = record[key][len(prompt):] if "prompt" not in record else record[key]
        turns = prompt if isinstance(prompt, str) and isinstance(completion, str) else as_turns(prompt, "user")
        if isinstance(completion, list) and (len(completion) > 1 or not completion[0].get("train", True)):
            # Of several turns only the assistant's count, and of these not those without loss.
            sides.append(tokens.encode_chat(tokenizer, untrained(turns) + completion, record.get("tools")))
        else:
            sides.append(_labelled(*tokens.encode_completion(tokenizer, turns, completion, record.get("tools"))))
    return sides


def _labelled(prompt_ids, completion_ids):
    return prompt_ids + completion_ids, [tokens.IGNORE] * len(prompt_ids) + completion_ids
