"""Reinforcement learning from verifiable rewards: group-relative advantages from the records' verifiers."""

import contextlib
import math
import os
from collections import defaultdict

from pt_tools import models, objectives, rewards, rollout, tokens
from pt_tools.errors import BadData, Usage
from pt_tools.rewards import added, verifiers
from pt_tools.trainers import base, onpolicy, reference

import numpy as np
import torch


class Rlvr(onpolicy.OnPolicy):
    """Advantages of a group from its verified rewards, the same for every token of a completion.

    A completion that could not be graded is masked: out of the loss, KL included, and out of its group's mean. A
    group whose rewards are all equal has advantage 0; without a KL term it is left out, so that the normalisers
    count only what is learnt from; with one it stays, for the KL acts on it.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.verifiers = verifiers.Verifiers(own=True, jobs=self.job.cfg.jobs or len(os.sched_getaffinity(0)))

    def grade(self, tasks, groups):
        graded = [{**task.record, "completions": [_seen(draw) for draw in draws]} for task, draws in zip(tasks, groups)]
        self.verifiers.score(graded)
        rewards_PG = torch.tensor([[self._reward(each) for each in record["completions"]] for record in graded])
        valid_PG = rewards_PG.isfinite()
        advantages_PG = objectives.group_advantages(rewards_PG, valid_PG, self.job.cfg.advantage)
        varied_P = objectives.varied(rewards_PG, valid_PG)
        trained_PG = valid_PG & (varied_P[:, None] | (self.job.cfg.kl > 0))
        for p, g in trained_PG.nonzero().tolist():
            draw = groups[p][g]
            draw.advantages = np.full(len(draw.completion.token_ids), float(advantages_PG[p, g]), np.float32)
        return {**_rewards_by_domain(tasks, rewards_PG), "zero_variance": 1 - float(varied_P.float().mean()),
                "masked": int((~valid_PG).sum())}

    def _reward(self, completion):
        """The verifiers' reward, NaN (and counted) where they failed: the grader's failure is no reward."""
        reward = completion["reward"]
        if reward is not None and math.isfinite(reward):
            return reward
        failed = ", ".join(f"{key}: {reason}" for key, reason in completion["errors"].items()) or "reward is not finite"
        self.job.rows.add("masked", 1, f"completion not graded ({failed:.200})")
        return math.nan


def _seen(draw):
    """A completion as verifiers see it."""
    return {"text": draw.text, "finish": draw.completion.finish, "token_ids": list(draw.completion.token_ids)}


def _rewards_by_domain(tasks, rewards_PG):
    """Mean reward of the graded completions, over all and by domain."""
    found = defaultdict(list)
    for task, row in zip(tasks, rewards_PG.tolist()):
        graded = [r for r in row if math.isfinite(r)]
        found["reward"] += graded
        if task.record.get("domain"):
            found[f"reward/{task.record['domain']}"] += graded
    return {name: sum(values) / len(values) for name, values in sorted(found.items()) if values}


def train(cfg, job):
    """Train cfg.model on the verifiers of job.records; writes the model into job.out.stage."""
    device, _ = base.prepare(cfg)
    try:
        added.configure(cfg.verifier, cfg.unsafe_local)
    except ValueError as reason:
        raise Usage(f"--verifier: {reason}") from None
    tokenizer = models.load_tokenizer(cfg.model)
    model = models.load_model(cfg.model, device)
    tasks = onpolicy.read_tasks(job, tokenizer, rollout.context_length(model), rewards.check)
    if not tasks:
        raise BadData(f"no prompt to train on ({job.rows})")
    models.check_ids(model, [task.ids for task in tasks], cfg.model)
    trainer = build(cfg, job, model, tokenizer, tasks)
    with contextlib.closing(trainer.verifiers):
        trainer.run()
    trainer.finish()


def build(cfg, job, model, tokenizer, tasks):
    """The trainer for a list of tasks."""
    prompts = cfg.batch_size // cfg.group_size * cfg.updates_per_rollout
    order = onpolicy.PromptOrder(len(tasks), prompts, cfg.updates_per_rollout, cfg.seed, cfg.epochs, cfg.max_steps)
    fixed = None
    if cfg.kl:
        fixed = reference.load(cfg.reference or cfg.model, tokenizer, model).eval().requires_grad_(False)
    return Rlvr(model, args=onpolicy.arguments(cfg, job, order), processing_class=tokenizer, data_collator=list,
                train_dataset=tasks, job=job, order=order, rows=tasks, reference=fixed,
                stop_ids=tokens.stop_ids(tokenizer, model))
