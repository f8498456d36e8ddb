"""The parts that every trainer shares: data order, schedule, state files, metrics, --set."""

import json
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import toys
from conftest import ROOT
from transformers import get_scheduler

from pt_tools import settable
from pt_tools.commands.sft import Config
from pt_tools.errors import Usage
from pt_tools.settable_fields import OWNED
from pt_tools.trainers import base, checkpoint
from pt_tools.trainers.metrics import Metrics
from pt_tools.trainers.order import Order


def flat(order):
    return [row for batch in order for row in batch]


@pytest.mark.parametrize("rows, batch, micro, epochs", [(7, 3, 2, 3), (10, 4, 4, 2), (5, 8, 3, 2), (9, 2, 1, 1), (1, 4, 2, 3)])
def test_every_row_is_seen_exactly_as_often_as_there_are_epochs(rows, batch, micro, epochs):
    order = Order(rows, batch, micro, seed=3, epochs=epochs)
    assert Counter(flat(order)) == dict.fromkeys(range(rows), epochs)
    assert len(list(order)) == len(order)
    for epoch in range(epochs):      # each epoch is whole before the next one begins
        drawn = [order.row(p) for p in range(epoch * rows, (epoch + 1) * rows)]
        assert drawn == np.random.default_rng([3, epoch]).permutation(rows).tolist()


def test_batches_are_the_positions_in_turn_and_the_last_one_may_be_small():
    order = Order(5, 4, 3, seed=0, epochs=2)
    positions = [order.row(p) for p in range(10)]
    assert [order.batch(s) for s in range(order.steps)] == [positions[:4], positions[4:8], positions[8:]]
    assert (order.accumulation, order.micro_batch_size) == (2, 2)
    assert [len(b) for b in order] == [2, 2, 2, 2, 2]
    assert order.epochs_at(1) == 0.8 and order.epochs_at(3) == 2.0


def test_fractions_of_an_epoch_and_max_steps():
    assert len(flat(Order(10, 4, 4, 0, epochs=0.55))) == 6 and len(flat(Order(10, 4, 4, 0, epochs=1.3))) == 13
    order = Order(10, 4, 2, 0, epochs=1.0, max_steps=6)
    assert order.steps == 6 and len(flat(order)) == 24


def test_rows_of_a_batch_are_sorted_but_stay_in_their_batch():
    lengths = [9, 1, 8, 2, 7, 3, 6, 4]
    plain, sorted_ = Order(8, 4, 2, 1), Order(8, 4, 2, 1, lengths=lengths)
    for step in range(2):
        batch = sorted_.batch(step)
        assert batch == plain.batch(step)
        cut = [row for part in sorted_.micro_batches(batch) for row in part]
        assert sorted(cut) == sorted(batch) and [lengths[r] for r in cut] == sorted(lengths[r] for r in batch)


@pytest.mark.parametrize("schedule, theirs", [("linear", "linear"), ("cosine", "cosine"), ("constant", "constant_with_warmup")])
def test_the_schedule_is_that_of_transformers(schedule, theirs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(theirs, optimizer, num_warmup_steps=3, num_training_steps=11)
    for step in range(11):
        assert base.learning_rate_factor(step, 11, 3, schedule, 0.0) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step(), scheduler.step()


def test_warmup_is_a_share_below_one_and_the_rate_ends_at_its_least():
    assert base.learning_rate_factor(9, 100, 0.1, "linear", 0.0) == pytest.approx(0.9)
    assert base.learning_rate_factor(10, 100, 0.1, "linear", 0.0) == base.learning_rate_factor(10, 100, 10, "linear", 0.0) == 1
    assert base.learning_rate_factor(100, 100, 0, "cosine", 0.2) == pytest.approx(0.2)
    assert base.learning_rate_factor(50, 100, 0, "linear", 0.2) == pytest.approx(0.6)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD])
def test_optimizer_state_survives_the_files_to_the_last_bit(tmp_path, optimizer):
    import safetensors.torch

    weights = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    first = optimizer([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.3}])
    for _ in range(3):
        for w in weights:
            w.grad = torch.randn_like(w)
        first.step()
    tensors, record = checkpoint.flatten(first.state_dict())
    checkpoint._save(tmp_path / "o.safetensors", tensors)
    record = json.loads(json.dumps(record))
    back = checkpoint.unflatten(safetensors.torch.load_file(str(tmp_path / "o.safetensors")), record)
    second = optimizer([{"params": [weights[0]]}, {"params": [weights[1]]}])
    second.load_state_dict(back)
    old, new = first.state_dict(), second.state_dict()
    assert old["param_groups"] == json.loads(json.dumps(new["param_groups"])) or old["param_groups"] == [
        {k: tuple(v) if isinstance(v, list) and k == "betas" else v for k, v in g.items()} for g in new["param_groups"]]
    for i in old["state"]:
        assert old["state"][i].keys() == new["state"][i].keys()
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(new["state"][i][k])) for k, v in old["state"][i].items())


def test_random_generators_survive_the_files(tmp_path):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    random.gauss(0, 1), np.random.normal()      # both keep a second number for the next call
    saved = checkpoint.random_state()
    checkpoint._save(tmp_path / "r.safetensors", saved["tensors"])
    drawn = [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(3).tolist()]
    import safetensors.torch

    checkpoint.restore_random({"tensors": safetensors.torch.load_file(str(tmp_path / "r.safetensors")),
                               "json": json.loads(json.dumps(saved["json"]))})
    assert drawn == [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(3).tolist()]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    metrics = Metrics(tmp_path / "run" / "metrics.jsonl")
    metrics.cut(0)
    metrics.write({"step": 1})
    offset = metrics.offset
    metrics.write({"step": 2})
    os.write(metrics._fd, b'{"step": 3, "lo')      # a kill in the middle of a line
    metrics.close()
    again = Metrics(metrics.path)
    again.cut(offset)
    assert again.last == {"step": 1}
    again.write({"step": 2})
    again.close()
    assert metrics.path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_set_reads_values_and_refuses_what_is_owned_or_unknown():
    assert settable.parse("sft", ("tf32=true", "torch_empty_cache_steps=4")) == {"tf32": True, "torch_empty_cache_steps": 4}
    for name in OWNED:
        with pytest.raises(Usage, match="pt-tools sets this itself"):
            settable.parse("sft", (f"{name}=1",))
    for name in ("output_dir", "save_strategy", "logging_steps", "resume_from_checkpoint", "push_to_hub", "hub_token",
                 "report_to", "trust_remote_code", "model_init_kwargs", "remove_unused_columns", "dataloader_num_workers",
                 "accelerator_config", "deepspeed", "fp16", "bf16", "fsdp", "fsdp_config", "seed", "learning_rate"):
        assert name in OWNED
    with pytest.raises(Usage, match="did you mean tf32"):
        settable.parse("dpo", ("tf33=1",))
    with pytest.raises(Usage, match="NAME=VALUE"):
        settable.parse("dpo", ("tf32",))
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(Usage, match=f"neftune_noise_alpha={value}: not a"):
            settable.parse("sft", (f"neftune_noise_alpha={value}",))


def test_the_list_of_fields_is_current():
    done = subprocess.run([sys.executable, str(ROOT / "scripts/settable.py"), "--check"], capture_output=True)
    assert done.returncode == 0, "run: python scripts/settable.py"


def test_set_reaches_the_trainer(tmp_path):
    from trl import SFTConfig

    cfg = toys.config(Config, set=("torch_empty_cache_steps=7",), lr=3e-4)
    with toys.job(cfg, tmp_path / "out") as job:
        args = base.arguments(SFTConfig, "sft", cfg, job, Order(10, 4, 2, 0))
        with pytest.raises(Usage, match="nonsense"):
            base.arguments(SFTConfig, "sft", toys.config(Config, set=("optim=nonsense",)), job, Order(10, 4, 2, 0))
    assert args.torch_empty_cache_steps == 7 and args.learning_rate == 3e-4
    assert args.bf16 is False and args.fp16 is False and args.activation_checkpointing is False
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("field, value, words", [
    ("lr", -1.0, "at least 0"), ("epochs", 0.0, "above 0"), ("warmup", -0.1, "at least 0"), ("min_lr_ratio", 1.5, "at most 1"),
    ("adam_beta2", 1.0, "below 1"), ("grad_clip", -1.0, "at least 0"), ("top_p", 0.0, "above 0"), ("top_p", 1.5, "at most 1"),
    ("temperature", -1.0, "at least 0"), ("clip_low", -0.1, "at least 0")])
def test_numbers_out_of_bounds_are_usage_errors(field, value, words):
    from pt_tools import cli, options
    from pt_tools.commands.rlvr import Config as Rlvr

    with pytest.raises(Usage, match=f"{options.flag(field)} must be {words}, not {value}"):
        cli.resolve(Rlvr, {field: value}, None)
