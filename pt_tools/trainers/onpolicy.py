"""On-policy training: rollouts, rewards, token-level advantages, one clipped policy update.

`OnPolicy` is the engine; a command's trainer adds `grade`, which says where the rewards and advantages come from.
"""

from dataclasses import dataclass

from pt_tools import models, rollout, stop, stream
from pt_tools.trainers import base, buffer
from pt_tools.trainers.order import Order

import numpy as np
import torch
from transformers import Trainer

from pt_tools import objectives


@dataclass(frozen=True)
class Task:
    """A record and the token ids of its prompt."""

    record: dict
    id: str
    ids: list


@dataclass
class Draw:
    """One sampled completion on its way into the buffer: `advantages` is None until it is graded, and stays None
    for a completion that is not trained on."""

    completion: rollout.Completion
    text: str
    advantages: np.ndarray | None = None


class PromptOrder(Order):
    """One batch a step: the prompts of the rollout that the step belongs to.

    A rollout takes `prompts` prompts and feeds `updates` steps; `epochs` and the permutations count prompts.
    """

    def __init__(self, rows, prompts, updates, seed, epochs=1.0, max_steps=0):
        super().__init__(rows, prompts, prompts, seed, epochs, -(-max_steps // updates))
        self.updates = updates
        self.steps = max_steps or self.steps * updates

    def __len__(self):
        return self.steps

    def __iter__(self):
        return (self.batch(step) for step in range(self.steps))

    def batch(self, step):
        return super().batch(step // self.updates)

    def visits(self, step):
        """How often each row of the step's batch was drawn before: its epoch."""
        start = step // self.updates * self.batch_size
        return [position // self.rows for position in range(start, min(start + self.batch_size, self.total))]

    def epochs_at(self, step):
        return super().epochs_at(-(-step // self.updates))


class OnPolicy(base.Promises, Trainer):
    """Policy-gradient training on own samples.

    A rollout samples `cfg.group_size` completions for each prompt, `cfg.updates_per_rollout` times
    `cfg.batch_size` in all; `grade` gives them advantages; each optimizer step takes its share of the prompts. What
    of a rollout is still to be used is saved with a checkpoint. `reference` is needed for cfg.kl > 0 only.
    """

    def __init__(self, model, *, stop_ids, reference=None, **kwargs):
        without_dropout(model)
        super().__init__(model, **kwargs)
        cfg = self.job.cfg
        self.reference, self.buffer = reference, None
        pad = models.pad_id(self.model, self.processing_class)
        self.engine = rollout.LocalEngine(self.model, stop_ids, pad, cfg.sample_batch_size)
        self.sampling = rollout.Sampling(cfg.temperature, cfg.top_p, cfg.top_k, cfg.max_new_tokens, cfg.seed)
        self.width = self.model.config.get_text_config().hidden_size
        self.max_tokens = 16384 if self.model.device.type == "cuda" else 1536  # on a CPU what fits its caches is quickest
        self.sums, self.shown = {}, {}

    def grade(self, tasks, groups):
        """Set `advantages` (one number a token) of every `Draw` that is to be trained on; return metrics.

        `groups` are lists of Draw, one a task. Called once a rollout.
        """
        raise NotImplementedError

    # --- one optimizer step ---

    def training_step(self, model, inputs, num_items_in_batch=None):
        step = self.state.global_step
        if self.buffer is None:
            self.buffer = self._roll_out(inputs, self.order.visits(step))
        groups = self.buffer.minibatches[step % self.order.updates]
        samples = [sample for group in groups for sample in group.samples]
        self.counts = {"tokens": max(1, sum(len(s.tokens) for s in samples)), "sequences": max(1, len(samples))}
        total = torch.zeros((), device=self.args.device)
        for part in self._micro_batches(groups):
            total += super().training_step(model, part, num_items_in_batch)
        if not samples:
            self._losses = total  # nothing to learn from: no gradient, so the optimizer leaves the weights alone
        self._count("trained_completions", len(samples))
        if (step + 1) % self.order.updates == 0:
            self.buffer = None
        return total

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        cfg, mask_BL = self.job.cfg, inputs["mask"]
        logps_BL = self._logps(model, inputs)
        old_BL = inputs["old_logps"]
        loss_BL, clipped_BL = objectives.clipped_policy_loss(
            logps_BL, old_BL, inputs["advantages"], cfg.clip_low, cfg.clip_high
        )
        if cfg.kl:
            kl_BL = objectives.kl(logps_BL, inputs["ref_logps"], cfg.kl_estimator, old_BL)
            loss_BL = loss_BL + cfg.kl * kl_BL
            self._count("kl", (kl_BL.detach() * mask_BL).sum() / self.counts["tokens"])
        self._count("clip_share", (clipped_BL & mask_BL).sum() / self.counts["tokens"])
        self._count("old_kl", ((old_BL - logps_BL.detach()) * mask_BL).sum() / self.counts["tokens"])
        return objectives.aggregate(loss_BL, mask_BL, cfg.loss_aggregation, **self.counts, max_tokens=cfg.max_new_tokens)

    def _logps(self, model, inputs):
        """Log-probs (B, L) of the completion tokens at the sampling temperature; 0 where there is no token."""
        names = ("input_ids", "position_ids", "attention_mask")
        logits_NV = rollout.logits_at(model, inputs["places"], **{name: inputs[name] for name in names})
        logps_N = rollout.token_logprobs(logits_NV, inputs["tokens"], self.job.cfg.temperature)
        return torch.zeros(inputs["mask"].shape, device=logps_N.device).masked_scatter(inputs["mask"], logps_N)

    def _micro_batches(self, groups):
        batches = buffer.micro_batches(groups, self.width, self.max_tokens, self.job.cfg.micro_batch_size)
        return (buffer.collate(batch) for batch in batches)

    # --- a rollout ---

    def _roll_out(self, tasks, visits):
        """Sample, grade and keep what is to be trained on. Raises Stopped when a stop was requested meanwhile."""
        prompts = [rollout.Prompt(task.id, task.ids, visit) for task, visit in zip(tasks, visits)]
        with self.compute_loss_context_manager():
            sampled = self.engine.sample(prompts, self.job.cfg.group_size, self.sampling)
        tokenizer = self.processing_class
        groups = [[Draw(c, rollout.text_of(tokenizer, c)) for c in completions] for completions in sampled]
        self.shown = {**self.grade(tasks, groups), **_describe(groups)}
        kept = [_group(task, draws) for task, draws in zip(tasks, groups)]
        parts = np.array_split(np.arange(len(kept)), self.order.updates)
        minibatches = [[kept[i] for i in part if kept[i].samples] for part in parts]
        everything = [group for part in minibatches for group in part]
        if not self._samples_are_exact():
            self._score(self.model, everything, "old_logps")
        if self.job.cfg.kl:
            self._score(self.reference, everything, "ref_logps")
        return buffer.Buffer(minibatches)

    def _samples_are_exact(self):
        """Whether the log-probs of sampling are those that training computes, up to rounding: else they are computed."""
        return self.sampling.top_p == 1.0 and self.sampling.top_k == 0 and not self.args.bf16

    @torch.no_grad()
    def _score(self, model, groups, name):
        """Set `name` of every sample to the log-probs of `model`."""
        for batch in buffer.micro_batches(groups, self.width, self.max_tokens):
            stop.check()
            inputs = self._prepare_inputs(buffer.collate(batch))
            with self.compute_loss_context_manager():
                logps_BL = self._logps(model, inputs).cpu().numpy()
            for sample, logps in zip((s for pack in batch for s in pack.samples), logps_BL):
                setattr(sample, name, logps[: len(sample.tokens)].copy())

    # --- promises ---

    def finish(self, **final):
        learnt = int(sum(line["trained_completions"] for line in stream.read_jsonl(str(self.metrics.path))))
        if not learnt:
            self.job.say("nothing was learnt: in every group all rewards were equal, or masked; the weights are as before")
        super().finish(trained_completions=learnt, **final)

    def extra_state(self):
        masked = {reason: n for reason, n in self.job.rows.reasons.items() if reason.startswith("masked: ")}
        return self.buffer.to_tensors() if self.buffer else {}, {"masked": masked}

    def load_extra_state(self, tensors, notes):
        self.buffer = buffer.Buffer.from_tensors(tensors)
        for reason, n in notes["masked"].items():
            self.job.rows.add("masked", n, reason.removeprefix("masked: "))

    def _count(self, name, value):
        self.sums[name] = self.sums.get(name, 0.0) + value

    def log(self, logs, start_time=None):
        logs = {**logs, **self.shown, **{name: float(value) for name, value in self.sums.items()}}
        self.sums, self.shown = {}, {}
        super().log(logs, start_time)


def _group(task, draws):
    samples = [
        buffer.Sample(np.array(d.completion.token_ids), np.array(d.completion.logprobs, np.float32), d.advantages)
        for d in draws
        if d.advantages is not None
    ]
    return buffer.Group(np.array(task.ids), samples)


def _describe(groups):
    """Metrics of a rollout that need no reward. Entropy is estimated by the mean of -log p of the sampled tokens."""
    completions = [draw.completion for draws in groups for draw in draws]
    lengths = [len(c.token_ids) for c in completions]
    return {
        "completion_length": sum(lengths) / len(lengths),
        "truncated": sum(c.finish == "length" for c in completions) / len(completions),
        "entropy": -sum(sum(c.logprobs) for c in completions) / sum(lengths),
    }


def without_dropout(model):
    """Turn off dropout for good: the policy that is trained must be the one that was sampled from."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def arguments(cfg, job, order):
    """TrainingArguments of an on-policy run. Build them right before the trainer."""
    from transformers import TrainingArguments

    return base.arguments(TrainingArguments, "onpolicy", cfg, job, order)


def read_tasks(job, tokenizer, context, check):
    """The records as tasks, every one counted; `check(record)` raises ValueError for one that cannot be used."""
    from pt_tools import noise, record as rec, tokens

    names = noise.Names()
    hashes = {"tokenizer": models.tokenizer_hash(tokenizer), "template": models.template_hash(tokenizer)}
    tasks = []
    for record in job.records:
        try:
            rec.check(record)
            check(record)
            ids = _prompt_ids(record, tokenizer, hashes, context, rec, tokens)
        except ValueError as reason:
            job.records.reject(str(reason), record)
            continue
        tasks.append(Task(record, names.of(record.get("id") or rec.content_hash(record)), ids))
        job.rows.add("out")
    return tasks


def _prompt_ids(record, tokenizer, hashes, context, rec, tokens):
    if rec.kind(record) == "text":
        raise ValueError("it has no prompt")
    if record.get("prompt_ids"):
        if record.get("tokenizer") != hashes["tokenizer"]:
            raise ValueError("its prompt_ids are of another tokenizer")
        if record.get("template", hashes["template"]) != hashes["template"]:
            raise ValueError("its prompt_ids were made with another chat template")
        ids = record["prompt_ids"]
    else:
        ids = tokens.encode_prompt(tokenizer, rec.prompt_of(record), record.get("tools"))
    if not 0 < len(ids) < context:
        raise ValueError(f"the prompt has {len(ids)} tokens, the model's context is {context}")
    return ids
