"""What every trainer keeps: order, atomic checkpoints, exact resume, a finite guard, a clean stop, metrics once.

`class Sft(Promises, SFTTrainer)`: the mixin comes first. The loop it hooks into is that of transformers.Trainer.
Private names used: _save_checkpoint, _load_from_checkpoint, _load_optimizer_and_scheduler, _load_rng_state,
_get_grad_norm (each has a canary test).
"""

import math
import shutil

from pt_tools import models  # noqa: F401  first: it sets the environment that the imports below read

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from pt_tools import settable, stop
from pt_tools.errors import Diverged, PtError, Stopped, Usage
from pt_tools.trainers import checkpoint
from pt_tools.trainers.metrics import Metrics, Progress

SAVED_BY_US = {"save_strategy": "no", "eval_strategy": "no", "logging_steps": 1, "report_to": "none",
               "logging_nan_inf_filter": False, "disable_tqdm": True, "remove_unused_columns": False,
               "log_level": "error", "activation_checkpointing": False}


def arguments(config_class, name, cfg, job, order, **own):
    """The trainer's configuration: our options, what we own, and `--set`. Build it right before the trainer."""
    device, dtype = models.device_and_dtype(cfg)
    values = SAVED_BY_US | dict(
        output_dir=str(job.out.checkpoints), max_steps=order.steps, seed=cfg.seed,
        per_device_train_batch_size=order.micro_batch_size, gradient_accumulation_steps=order.accumulation,
        learning_rate=cfg.lr, weight_decay=cfg.weight_decay, max_grad_norm=cfg.grad_clip,
        adam_beta1=cfg.adam_beta1, adam_beta2=cfg.adam_beta2, adam_epsilon=cfg.adam_eps,
        bf16=dtype == torch.bfloat16, use_cpu=device.type == "cpu", dataloader_pin_memory=device.type == "cuda")
    given = settable.parse(name, cfg.set)
    try:
        return config_class(**(values | own | given))
    except ValueError as err:
        if not given:
            raise
        raise Usage(f"--set: {' '.join(str(err).split())}") from err


def learning_rate_factor(step, steps, warmup, schedule, min_ratio):
    """Share of the peak rate at `step` of `steps`; `warmup` below 1 is a share of the steps.

    With `min_ratio` 0 the same as transformers' linear, cosine and constant-with-warmup schedules.
    """
    warm = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    if step < warm:
        return step / max(1, warm)
    done = min(1.0, (step - warm) / max(1, steps - warm))
    left = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]
    return min_ratio + (1 - min_ratio) * left


def prepare(cfg):
    """Threads and determinism, before the first tensor. Returns (device, dtype of the computation)."""
    models.set_threads(cfg)
    device, dtype = models.device_and_dtype(cfg)
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False      # a debugging aid that costs as much as the model
    return device, dtype


class _Steps(TrainerCallback):
    """Decides at the only safe boundary, the end of a step, whether to save or stop."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **_):
        self.trainer.keep_edge()

    def on_step_end(self, args, state, control, **_):
        self.trainer.keep_edge()
        last = state.global_step >= state.max_steps
        every = self.trainer.job.cfg.save_every
        if stop.requested() and not last:
            control.should_save = control.should_training_stop = True
        elif every and state.global_step % every == 0 and not last:
            control.should_save = True


class Promises:
    """Mixin of a transformers Trainer. `rows` are what the collator gets, by the row numbers of `order`."""

    def __init__(self, *args, job, order, rows=None, **kwargs):
        self.job, self.order, self.rows = job, order, rows
        self.metrics = Metrics(job.out.run / "metrics.jsonl")
        self.progress = Progress(job, order.steps)
        self._losses, self._notes = None, {}
        super().__init__(*args, **kwargs)
        if self.args.fp16 or self.is_deepspeed_enabled:
            raise PtError("fp16 and DeepSpeed update the weights where no guard can stand")
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_Steps(self))

    # --- a run ---

    def run(self):
        """Train to the end, resuming from the newest checkpoint; raises Stopped with the state saved."""
        resume = checkpoint.latest(self.job.out.checkpoints, self.job.say)
        self.metrics.cut(checkpoint.read_state(resume)["notes"]["metrics"] if resume else 0)
        if resume:
            self.job.say(f"resuming from step {resume.name.rpartition('-')[2]} of {self.order.steps}")
        try:
            self.train(resume_from_checkpoint=str(resume) if resume else None)
        except Stopped:
            self._back_to_edge()
            self._save_checkpoint(self.model, None)
            raise
        finally:
            self.metrics.close()
            self.progress.close()
        if self.state.global_step < self.state.max_steps:
            stop.check()
            raise PtError(f"training ended at step {self.state.global_step} of {self.state.max_steps}")

    def finish(self, **final):
        """Write model, tokenizer and metrics into the stage and the final numbers into the job."""
        models.save_model(self.model, self.processing_class, self.job.out.stage)
        if self.job.cfg.keep_checkpoints:
            checkpoint.rotate(self.job.out.checkpoints, self.job.cfg, newest=0)
        shutil.copyfile(self.metrics.path, self.job.out.stage / "metrics.jsonl")
        last = {k: v for k, v in (self.metrics.last or {}).items() if k not in ("step", "learning_rate", "grad_norm")}
        self.job.final.update({"steps": self.state.global_step, **last, **final})

    # --- what a trainer may add ---

    def extra_state(self):
        """(tensors, JSON) of the trainer's own that a checkpoint must hold, as of the last step boundary."""
        return {}, None

    def load_extra_state(self, tensors, notes):
        """The inverse of `extra_state`."""

    # --- order ---

    def get_train_dataloader(self):
        loader = DataLoader(_Rows(self.rows), batch_sampler=self.order, collate_fn=self.data_collator,
                            pin_memory=self.args.dataloader_pin_memory)
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._losses, self._notes = None, {}
        return batches, count

    def create_optimizer(self, *args, **kwargs):
        try:
            return super().create_optimizer(*args, **kwargs)
        except (ImportError, ValueError, TypeError) as err:      # asked for by name and not installed, or malformed
            if not self.job.cfg.set:
                raise
            raise Usage(f"--set: {' '.join(str(err).split())}") from err

    def create_scheduler(self, num_training_steps, optimizer=None):
        cfg = self.job.cfg
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: learning_rate_factor(
                    step, num_training_steps, cfg.warmup, cfg.schedule, cfg.min_lr_ratio))
        return self.lr_scheduler

    # --- finite guard ---

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses = loss if self._losses is None else self._losses + loss
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # One read of the device a step; both come before the update, so the weights are still whole.
        if not math.isfinite(float(norm + self._losses)):
            what = "loss" if not math.isfinite(float(self._losses)) else "gradient norm"
            raise Diverged(f"{what} is not finite at step {self.state.global_step + 1}; nothing was updated or saved")
        return norm

    def floating_point_ops(self, inputs):
        return 0      # nothing reads it, and counting parameters takes longer than a small step

    # --- metrics ---

    def note(self, **values):
        """Add tensors to the metrics of this step; they are read from the device once, when the step is logged."""
        for name, value in values.items():
            self._notes[name] = self._notes[name] + value if name in self._notes else value

    def log(self, logs, start_time=None):
        if "train_runtime" in logs:      # the closing summary: times, which no two runs share
            return
        super().log(logs, start_time)
        self.state.log_history.clear()      # it would make each checkpoint longer than the last
        step = self.state.global_step
        logs |= {name: float(value) for name, value in self._notes.items()}
        logs = {"step": step, **logs, "epoch": round(self.order.epochs_at(step), 6)}
        self.metrics.write(logs)
        self.progress.show(logs)

    # --- checkpoints ---

    def keep_edge(self):
        """Remember the state of a step boundary, so that a stop inside the next step can return to it."""
        self._edge = (checkpoint.random_state(), self.extra_state())

    def _back_to_edge(self):
        self.model.zero_grad()
        checkpoint.restore_random(self._edge[0])

    def _save_checkpoint(self, model, trial):
        models.check_finite(self.model)
        self.metrics.sync()
        rng, (tensors, notes) = self._edge
        checkpoint.write(self.job.out.checkpoints, self.state.global_step, self, rng, tensors,
                         {"metrics": self.metrics.offset, "extra": notes})
        checkpoint.rotate(self.job.out.checkpoints, self.job.cfg)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        checkpoint.load_weights(model or self.model, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint_dir):
        if checkpoint_dir is None:
            return
        checkpoint.load_optimizer(self.optimizer, self.lr_scheduler, checkpoint_dir)
        tensors = checkpoint.read_extra(checkpoint_dir)
        self.load_extra_state({k: v for k, v in tensors.items() if not k.startswith("rng.")},
                              checkpoint.read_state(checkpoint_dir)["notes"]["extra"])

    def _load_rng_state(self, checkpoint_dir):
        if checkpoint_dir is not None:
            checkpoint.restore_random({"tensors": checkpoint.read_extra(checkpoint_dir),
                                       "json": checkpoint.read_state(checkpoint_dir)["rng"]})


class _Rows(torch.utils.data.Dataset):
    """Rows as they are: Arrow would decode every one of them again in each epoch."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]
