"""Checkpoints of a training run: safetensors and JSON only, whole or absent, verified before they are read."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from pt_tools import outdir
from pt_tools.errors import BadModel

KEEP = 2


def path_of(directory, step):
    return Path(directory) / f"checkpoint-{step}"


def latest(directory, say=print):
    """The newest checkpoint below `directory` that is whole, or None where there is none at all.

    A damaged one is moved out of the way when an older one is whole; when none is, it is BadModel.
    """
    fault = None
    for path in reversed(_found(directory)):
        try:
            outdir.verify(path)
        except BadModel as error:
            say(f"{error}; looking for an older checkpoint")
            fault = fault or error
            continue
        _move_newer(directory, path)
        return path
    if fault:
        raise BadModel(f"{fault.args[0]}; no checkpoint is whole; --resume=never starts anew", fault.where)
    return None


def _found(directory):
    named = [(path.name.rpartition("-")[2], path) for path in Path(directory).glob("checkpoint-*")]
    return [path for _, path in sorted((int(step), path) for step, path in named if step.isdecimal())]


def _move_newer(directory, path):
    found = _found(directory)
    for newer in found[found.index(path) + 1:]:      # their names are wanted again
        damaged = newer.with_name(f"damaged-{newer.name}")
        shutil.rmtree(damaged, ignore_errors=True)
        newer.rename(damaged)


def write(directory, step, trainer, rng, extra, notes):
    """Save everything a resumed run needs as `checkpoint-STEP`.

    `extra` are tensors of the trainer's own (buffers), `notes` any JSON value.
    """
    final = path_of(directory, step)
    if final.exists():      # a run that resumed here and was stopped before its next step
        return
    stage = Path(directory) / ".stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    safetensors.torch.save_model(trainer.model, str(stage / "model.safetensors"))
    state, groups = flatten(trainer.optimizer.state_dict())
    _save(stage / "optimizer.safetensors", state)
    _save(stage / "extra.safetensors", {**extra, **rng["tensors"]})
    record = {"optimizer": groups, "scheduler": trainer.lr_scheduler.state_dict(), "rng": rng["json"], "notes": notes}
    (stage / "state.json").write_text(json.dumps(record))
    trainer.state.save_to_json(str(stage / "trainer_state.json"))
    outdir.seal(stage, step=step)
    outdir.publish(stage, final)


def rotate(directory, cfg, newest=KEEP):
    """Remove all but the `newest`, and the newest `cfg.keep_checkpoints` of those that `cfg.save_every` asked for.

    What a stop saved is not among the latter: which checkpoints a finished run leaves does not depend on its stops.
    """
    found = _found(directory)
    due = [path for path in found if cfg.save_every and int(path.name.rpartition("-")[2]) % cfg.save_every == 0]
    stay = {*found[max(0, len(found) - newest):], *due[max(0, len(due) - cfg.keep_checkpoints):]}
    for old in (path for path in found if path not in stay):
        doomed = old.with_name(".old")      # renamed first: half a directory never bears a checkpoint's name
        shutil.rmtree(doomed, ignore_errors=True)
        old.rename(doomed)
        shutil.rmtree(doomed)


def _save(path, tensors):
    safetensors.torch.save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, str(path))


def read_state(checkpoint):
    """The JSON part: optimizer groups, scheduler, random generators, notes."""
    return json.loads((Path(checkpoint) / "state.json").read_text())


def read_extra(checkpoint):
    return safetensors.torch.load_file(str(Path(checkpoint) / "extra.safetensors"))


def load_weights(model, checkpoint):
    """Put the checkpoint's weights into `model`; a missing or surplus tensor is BadModel."""
    try:
        safetensors.torch.load_model(model, str(Path(checkpoint) / "model.safetensors"), strict=True)
    except (RuntimeError, OSError) as err:
        raise BadModel(f"weights do not fit the model: {' '.join(str(err).split())}", where=str(checkpoint)) from err


def load_optimizer(optimizer, scheduler, checkpoint):
    """Put optimizer and scheduler back to the last bit; a missing tensor is BadModel."""
    record = read_state(checkpoint)
    tensors = safetensors.torch.load_file(str(Path(checkpoint) / "optimizer.safetensors"))
    try:
        optimizer.load_state_dict(unflatten(tensors, record["optimizer"], str(checkpoint)))
        scheduler.load_state_dict(record["scheduler"])
    except (ValueError, KeyError, TypeError) as err:
        raise BadModel(f"the optimizer's state does not fit: {' '.join(str(err).split())}", where=str(checkpoint)) from err


def flatten(state_dict):
    """An optimizer's state as ({"3.exp_avg": tensor}, JSON of all that is no tensor)."""
    tensors, scalars = {}, {}
    for index, entries in state_dict["state"].items():
        for name, value in entries.items():
            (tensors if torch.is_tensor(value) else scalars)[f"{index}.{name}"] = value
    return tensors, {"groups": state_dict["param_groups"], "scalars": scalars, "tensors": sorted(tensors)}


def unflatten(tensors, record, where=None):
    """The inverse of `flatten`."""
    missing = sorted(set(record["tensors"]) ^ set(tensors))
    if missing:
        raise BadModel(f"optimizer state: tensor {missing[0]} is missing or unknown", where=where)
    state = {}
    for key, value in {**tensors, **record["scalars"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": record["groups"]}


def random_state():
    """Every global random generator, as {"tensors": {...}, "json": {...}}."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.from_numpy(keys.astype(np.int64))}
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return {"tensors": tensors, "json": {"python": [version, list(words), gauss],
                                         "numpy": [kind, position, has_gauss, cached]}}


def restore_random(rng):
    """The inverse of `random_state`."""
    version, words, gauss = rng["json"]["python"]
    random.setstate((version, tuple(words), gauss))
    kind, position, has_gauss, cached = rng["json"]["numpy"]
    tensors = rng["tensors"]
    np.random.set_state((kind, tensors["rng.numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["rng.torch"])
    cuda = [tensors[f"rng.cuda.{i}"] for i in range(sum(k.startswith("rng.cuda.") for k in tensors))]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)
