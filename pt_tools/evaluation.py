"""What pt-eval has a model do: answer prompts and have the answers graded, or score preference pairs."""

from __future__ import annotations

from itertools import islice

from pt_tools import models, noise, outdir, record as rec, rewards, rollout, scoring, tokens

CHUNK = 256  # pairs scored at once


def sampled(cfg, job):
    """(record, where) of every prompt, with `cfg.samples` completions of `cfg.model`, graded; bad rows are rejected.

    The records are as pt-sample and pt-score --verify write them, but for token ids and log-probs. All prompts and their
    completions are held in memory.
    """
    models.set_threads(cfg)
    device, dtype = models.device_and_dtype(cfg)
    tok, model = models.load_tokenizer(cfg.model), models.load_model(cfg.model, device, dtype)
    engine = rollout.LocalEngine(model, tokens.stop_ids(tok, model), models.pad_id(model, tok), cfg.batch_size)
    sampling = rollout.Sampling(cfg.temperature, cfg.top_p, cfg.top_k, cfg.max_new_tokens, cfg.seed)
    origin = {"model": outdir.identity(cfg.model), "sampling": vars(sampling)}
    hashes = {"tokenizer": models.tokenizer_hash(tok), "template": models.template_hash(tok)}
    rows, prompts, names = [], [], noise.Names()
    for record in job.records:
        try:
            prompts.append(_prompt(record, tok, engine.context, names))
        except ValueError as reason:
            job.records.reject(str(reason), record)
            continue
        rows.append((record, job.records.where))
    models.check_ids(model, [prompt.ids for prompt in prompts], cfg.model)
    for (record, where), group in zip(rows, engine.sample(prompts, cfg.samples, sampling)):
        completions = [{"text": rollout.text_of(tok, each), "finish": each.finish, **origin} for each in group]
        record.update(completions=completions, **hashes)
        rewards.score(record)
        yield record, where


def _prompt(record, tok, context, names):
    """The rollout.Prompt of a record. ValueError if it cannot be graded, or its prompt does not fit."""
    rec.check(record)
    rewards.check(record)
    rec.ensure_id(record)
    ids = tokens.encode_prompt(tok, rec.prompt_of(record), record.get("tools"))
    if not 0 < len(ids) < context:
        raise ValueError(f"the prompt has {len(ids)} tokens, the model's context is {context}")
    return rollout.Prompt(names.of(record["id"]), ids)


def scored_pairs(cfg, job):
    """(record, where, (score of chosen, score of rejected, None)) of every pair under `cfg.reward_model`; bad rows are
    rejected, and a pair that cannot be scored has a reason in the last place."""
    scorer = scoring.RewardModel("reward", cfg.reward_model, cfg, cfg.batch_size)
    rows = _pairs(job)
    try:
        while chunk := list(islice(rows, CHUNK)):
            yield from ((*row, scores) for row, scores in zip(chunk, scorer.pairs([record for record, _ in chunk])))
    finally:
        scorer.close()


def _pairs(job):
    for record in job.records:
        try:
            rec.check(record)
            if rec.kind(record) != "preference":
                raise ValueError("no pair: chosen or rejected is missing")
        except ValueError as reason:
            job.records.reject(str(reason), record)
            continue
        yield record, job.records.where
