"""A run that was stopped or killed anywhere and then taken up again ends with the same bytes as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import toys

from pt_tools import models, stop
from pt_tools.commands import dpo
from pt_tools.commands import sft as sft_command
from pt_tools.errors import BadModel, Stopped
from pt_tools.trainers import checkpoint, preference, sft

STEPS = 14      # 19 rows, batches of 4 in 2 micro-batches: the border of the epochs lies inside the fifth batch


class StopAt(sft.base.TrainerCallback):
    """Ask for a stop in the middle of step `step`, as a signal would."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step - 1:
            stop.request("SIGTERM")


def build(kind, cfg, job):
    model, tok = models.load_model(cfg.model), models.load_tokenizer(cfg.model)
    if kind == "sft":
        return sft.build(cfg, job, model, tok, sft.read_rows(job, tok, 64))
    pairs = preference.read_pairs(job, tok, 64)
    return preference.build(cfg, job, model, tok, preference.with_reference(cfg, job, model, models.torch.float32, tok, pairs))


def config(kind, tmp_path, **changes):
    start = tmp_path / "start"
    if not start.exists():
        toys.save(start, toys.llama(attention_dropout=0.2))
    records = toys.chats(19) if kind == "sft" else toys.pairs(19)
    files = (toys.write(tmp_path / "rows.jsonl", records),)
    values = dict(model=str(start), files=files, lr=1e-2, batch_size=4, micro_batch_size=2, max_steps=STEPS,
                  warmup=3, save_every=0, weight_decay=0.1)
    if kind == "dpo":
        values |= {"set": ("disable_dropout=false",), "sft_weight": 0.1}
    return toys.config(sft_command.Config if kind == "sft" else dpo.Config, **values | changes)


def run(kind, cfg, out, stop_at=None):
    """Train until `stop_at` or to the end; the files of the result."""
    with toys.job(cfg, out) as job:
        trainer = build(kind, cfg, job)
        if stop_at is not None:
            trainer.add_callback(StopAt(stop_at))
            with pytest.raises(Stopped):
                trainer.run()
            assert checkpoint.latest(job.out.checkpoints).name == f"checkpoint-{stop_at}"
            return None
        trainer.run()
        trainer.finish()
        return {p.name: p.read_bytes() for p in job.out.stage.iterdir()}


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_stopped_at_every_step_and_resumed_equals_uninterrupted(kind, tmp_path):
    cfg = config(kind, tmp_path)
    whole = run(kind, cfg, tmp_path / "whole")
    assert len(whole["metrics.jsonl"].splitlines()) == STEPS
    assert json.loads(whole["metrics.jsonl"].splitlines()[-1])["epoch"] > 2
    for step in range(1, STEPS):
        out = tmp_path / f"stopped-{step}"
        run(kind, cfg, out, stop_at=step)
        assert run(kind, cfg, out) == whole, f"stopped at step {step}"


def test_stopped_many_times_and_dropout_is_really_on(tmp_path):
    cfg = config("sft", tmp_path)
    whole = run("sft", cfg, tmp_path / "whole")
    for step in (1, 2, 5, 9, 13):
        run("sft", cfg, tmp_path / "often", stop_at=step)
    assert run("sft", cfg, tmp_path / "often") == whole
    models.save_model(toys.llama(), toys.tokenizer(), tmp_path / "start")
    assert run("sft", cfg, tmp_path / "without")["metrics.jsonl"] != whole["metrics.jsonl"]


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_stopped_between_two_micro_batches_goes_back_to_the_edge_of_the_step(kind, tmp_path):
    """As a poll inside a rollout does: half an accumulation is thrown away, random generators are put back."""
    cfg = config(kind, tmp_path)
    whole = run(kind, cfg, tmp_path / "whole")
    for step in (1, 2, 5, 14):
        with toys.job(cfg, tmp_path / f"out-{step}") as job:
            trainer = build(kind, cfg, job)
            inner = trainer.compute_loss

            def compute_loss(*args, **kwargs):
                loss = inner(*args, **kwargs)
                if trainer.state.global_step == step - 1 and args[0].training:
                    stop.request("SIGTERM")
                stop.check()
                return loss

            trainer.compute_loss = compute_loss
            with pytest.raises(Stopped):
                trainer.run()
            assert checkpoint.latest(job.out.checkpoints).name == f"checkpoint-{step - 1}"
        assert run(kind, cfg, tmp_path / f"out-{step}") == whole, step


def test_two_trainers_in_one_process_do_not_disturb_each_other(tmp_path):
    sft_cfg, dpo_cfg = config("sft", tmp_path), config("dpo", tmp_path, files=(toys.write(tmp_path / "p", toys.pairs(19)),))
    sft_cfg = config("sft", tmp_path)
    first = run("sft", sft_cfg, tmp_path / "a")
    run("dpo", dpo_cfg, tmp_path / "b", stop_at=3)
    assert run("sft", sft_cfg, tmp_path / "c") == first


def test_only_the_last_two_checkpoints_stay_and_hold_no_pickle(tmp_path):
    cfg = config("sft", tmp_path, save_every=3)
    with toys.job(cfg, tmp_path / "out") as job:
        build("sft", cfg, job).run()
        assert sorted(p.name for p in job.out.checkpoints.iterdir()) == ["checkpoint-12", "checkpoint-9"]
        names = {p.name for p in (job.out.checkpoints / "checkpoint-12").iterdir()}
        assert names == {"MANIFEST.json", "model.safetensors", "optimizer.safetensors", "extra.safetensors",
                         "state.json", "trainer_state.json"}


def test_the_checkpoints_that_are_kept_do_not_depend_on_stops(tmp_path):
    cfg = config("sft", tmp_path, save_every=3, keep_checkpoints=3)
    kept = []
    for out, stops in (("whole", ()), ("stopped", (4, 8, 9, 11, 13))):
        for step in stops:
            run("sft", cfg, tmp_path / out, stop_at=step)
        run("sft", cfg, tmp_path / out)
        kept.append({path.parent.name: path.read_bytes() for path in (tmp_path / f"{out}.run").rglob("model.safetensors")
                     if path.parent.name != "stage"})
    assert kept[0].keys() == {"checkpoint-6", "checkpoint-9", "checkpoint-12"}
    assert kept[0] == kept[1]


def test_the_newest_stays_whatever_is_kept(tmp_path):
    for step in (4, 5, 6, 8, 9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    cfg = types.SimpleNamespace(save_every=4, keep_checkpoints=1)
    checkpoint.rotate(tmp_path, cfg)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11", "checkpoint-8"]
    checkpoint.rotate(tmp_path, cfg, newest=0)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]


def test_a_damaged_checkpoint_is_refused(tmp_path):
    cfg = config("sft", tmp_path)
    run("sft", cfg, tmp_path / "out", stop_at=5)
    weights = tmp_path / "out.run/checkpoints/checkpoint-5/model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(BadModel, match="model.safetensors"):
        run("sft", cfg, tmp_path / "out")


def test_a_missing_tensor_is_refused_though_the_manifest_fits(tmp_path):
    import safetensors.torch
    from pt_tools import outdir

    for name, wanted in (("model", "lm_head"), ("optimizer", "exp_avg")):
        cfg = config("sft", tmp_path)
        run("sft", cfg, tmp_path / name, stop_at=5)
        saved = tmp_path / f"{name}.run/checkpoints/checkpoint-5"
        tensors = safetensors.torch.load_file(str(saved / f"{name}.safetensors"))
        del tensors[next(n for n in tensors if wanted in n)]
        safetensors.torch.save_file(tensors, str(saved / f"{name}.safetensors"))
        outdir.seal(saved, step=5)
        with pytest.raises(BadModel, match=wanted):
            run("sft", cfg, tmp_path / name)


def test_reference_log_probs_are_taken_up_where_they_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(preference.reference, "BLOCK", 4)
    cfg = config("dpo", tmp_path)
    whole = run("dpo", cfg, tmp_path / "whole")
    done = []
    inner = preference.reference._block

    def block(*args):
        done.append(1)
        if len(done) == 3:
            stop.request("SIGTERM")
        return inner(*args)

    monkeypatch.setattr(preference.reference, "_block", block)
    with pytest.raises(Stopped):
        run("dpo", cfg, tmp_path / "out")
    assert len(list((tmp_path / "out.run/reference").iterdir())) == 2
    assert run("dpo", cfg, tmp_path / "out") == whole
    assert len(done) == 3 + 3      # 5 blocks, 2 of them before the stop


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_process_that_was_killed_and_run_again_equals_one_that_was_not(kind, number, tmp_path):
    config(kind, tmp_path)
    line = [str(Path(sys.executable).parent / f"pt-{kind}"), "rows.jsonl", "-m", "start", "--lr", "1e-2", "--batch-size", "4",
            "--max-steps", "400", "--save-every", "5", "--threads", "1", "--device", "cpu"]
    done = subprocess.run([*line, "-o", "whole"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and done.stdout == b"whole\n", done.stderr
    interrupted = 0
    for after in (1, 2):
        process = subprocess.Popen([*line, "-o", "out"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        metrics, lines = tmp_path / "out.run/metrics.jsonl", 60 * after
        while process.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= lines):
            time.sleep(0.02)
        process.send_signal(number)
        process.wait()
        interrupted += process.returncode in (75, -number)
        assert process.stdout.read() == b""
    assert interrupted == 2
    assert subprocess.run([*line, "-o", "out"], cwd=tmp_path, capture_output=True).returncode == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not os.path.exists(tmp_path / "out.run")


def test_before_a_damaged_checkpoint_there_is_an_older_one(tmp_path):
    cfg = config("sft", tmp_path, save_every=2)
    whole = run("sft", cfg, tmp_path / "whole")
    run("sft", cfg, tmp_path / "out", stop_at=5)
    saved = tmp_path / "out.run/checkpoints"
    (saved / "checkpoint-5" / "optimizer.safetensors").unlink()
    run("sft", cfg, tmp_path / "out", stop_at=5)      # the same step again: its name is free
    assert checkpoint.latest(saved) == saved / "checkpoint-5"
    assert run("sft", cfg, tmp_path / "out") == whole
