"""On-policy training stopped anywhere and run again ends with the same bits as a run that was left alone.

14 steps, two updates a rollout, 4 of 10 prompts a rollout: stops lie at rollout borders and between them, in the
first, second and third epoch.
"""

import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import onpolicy_run as small  # noqa: E402

from pt_tools import stop  # noqa: E402
from pt_tools.errors import Stopped  # noqa: E402


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            stop.request("SIGTERM")


@pytest.fixture(autouse=True)
def no_signal():
    stop.clear()
    yield
    stop.clear()


WITH_KL = pytest.param({"kl": 0.1, "loss_aggregation": "sequence"}, id="kl", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[pytest.param({}, id="plain"), WITH_KL])
def whole(request, world, tmp_path_factory):
    """(options, digest, metrics) of the run that is left alone."""
    trainer = small.trainer(world / "blank", tmp_path_factory.mktemp("whole"), **request.param)
    trainer.run()
    assert trainer.state.global_step == 14
    return request.param, small.digest(trainer), small.metrics(trainer)


def resumed(world, path, options):
    """What a second start makes of what a stop left."""
    stop.clear()
    torch.manual_seed(12345)  # nothing may hang on the state of the process
    trainer = small.trainer(world / "blank", path, **options)
    trainer.run()
    return small.digest(trainer), small.metrics(trainer)


@pytest.mark.parametrize("step", range(1, 14))
def test_stop_at_every_step(world, tmp_path, whole, step):
    options, digest, metrics = whole
    trainer = small.trainer(world / "blank", tmp_path, **options)
    trainer.callback_handler.callbacks.insert(0, StopAt(step))
    with pytest.raises(Stopped):
        trainer.run()
    assert trainer.state.global_step == step
    saved = tmp_path / "out.run" / "checkpoints" / f"checkpoint-{step}"
    assert not [f for f in saved.iterdir() if f.suffix not in (".json", ".safetensors")]
    assert resumed(world, tmp_path, options) == (digest, metrics)


@pytest.mark.parametrize("forward", [1, 4, 30, 60, 90, 110])
def test_stop_inside_a_rollout(world, tmp_path, whole, forward):
    """The n-th forward of sampling asks for a stop: what is half sampled is thrown away, the edge is saved."""
    options, digest, metrics = whole
    trainer, count = small.trainer(world / "blank", tmp_path, **options), []

    def ask(module, args):
        if not torch.is_grad_enabled():
            count.append(1)
            if len(count) == forward:
                stop.request("SIGTERM")

    trainer.model.register_forward_pre_hook(ask)
    with pytest.raises(Stopped):
        trainer.run()
    assert trainer.state.global_step % 2 == 0 and trainer.state.global_step < 14
    assert resumed(world, tmp_path, options) == (digest, metrics)


def test_two_stops_in_one_run(world, tmp_path, whole):
    options, digest, metrics = whole
    for step in (3, 8):
        trainer = small.trainer(world / "blank", tmp_path, **options)
        trainer.callback_handler.callbacks.insert(0, StopAt(step))
        with pytest.raises(Stopped):
            trainer.run()
        stop.clear()
    assert resumed(world, tmp_path, options) == (digest, metrics)


def test_a_checkpoint_holds_a_buffer_only_inside_a_cycle(world, tmp_path, whole):
    from pt_tools.trainers import checkpoint

    options, *_ = whole
    trainer = small.trainer(world / "blank", tmp_path, save_every=1, **options)
    trainer.run()
    found = sorted((tmp_path / "out.run" / "checkpoints").iterdir())
    held = {path.name: any(k.startswith("buffer.") for k in checkpoint.read_extra(path)) for path in found}
    assert held == {"checkpoint-12": False, "checkpoint-13": True}
