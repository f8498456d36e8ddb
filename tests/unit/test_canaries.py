"""Every private name of TRL, transformers and accelerate that we use: if one moves, this says which.

The behaviour behind each is tested where it is used (test_base, test_sft, test_preference, contract/test_resume).
"""

import inspect
from importlib import metadata

import pytest
import transformers
import trl
from trl.trainer import utils as trl_utils

from pt_tools.trainers import head, onpolicy, preference, sft

SIGNATURES = {
    (transformers.Trainer, "_save_checkpoint"): "(self, model, trial)",
    (transformers.Trainer, "_load_from_checkpoint"): "(self, resume_from_checkpoint, model)",
    (transformers.Trainer, "_load_optimizer_and_scheduler"): "(self, checkpoint)",
    (transformers.Trainer, "_load_rng_state"): "(self, checkpoint)",
    (transformers.Trainer, "_get_grad_norm"): "(self, model, grad_norm)",
    (trl.DPOTrainer, "_prepare_dataset"): "(self, dataset, processing_class, args, dataset_name)",
    (trl.DPOTrainer, "_precompute_ref_logps"): "(self, dataset, name, batch_size)",
    (trl_utils, "_use_triton"): "(device)",
}


def test_the_packages_are_the_ones_that_were_tried():
    for name, version in (("trl", "1.16."), ("transformers", "5.23."), ("accelerate", "1.15.")):
        assert metadata.version(name).startswith(version), name


@pytest.mark.parametrize("owner, name", SIGNATURES, ids=lambda x: getattr(x, "__name__", x))
def test_a_private_name_is_what_it_was(owner, name):
    found = inspect.signature(getattr(owner, name))
    assert "(" + ", ".join(found.parameters) + ")" == SIGNATURES[owner, name]


@pytest.mark.parametrize("ours", [sft.Sft, preference.Preference, onpolicy.OnPolicy])
def test_no_other_private_name_is_overridden(ours):
    theirs = next(c for c in ours.__mro__ if c.__module__.split(".")[0] in ("trl", "transformers"))
    known = {name for _, name in SIGNATURES}
    for cls in ours.__mro__[:ours.__mro__.index(theirs)]:
        for name in vars(cls):
            assert not (name.startswith("_") and not name.startswith("__") and hasattr(theirs, name)) or name in known, name


def test_every_name_is_still_used():
    used = set().union(*(vars(c) for ours in (sft.Sft, preference.Preference, onpolicy.OnPolicy) for c in ours.__mro__
                         if c.__module__.startswith("pt_tools")))
    assert {name for owner, name in SIGNATURES if owner is not trl_utils} <= used


def test_the_fused_head_asks_the_name_that_is_patched(monkeypatch):
    """TRL scores only the labelled positions where `_use_triton` says yes, and every position where it says no."""
    import torch
    import toys

    rows = []
    inner = trl_utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(trl_utils._ChunkedLogProbFunction, "apply", lambda hidden, *a: rows.append(len(hidden)) or inner(hidden, *a))
    model = toys.llama()
    trl_utils.add_fused_lm_head(model)
    ids = torch.arange(12).view(2, 6)
    labels = torch.where(ids % 3 == 0, ids, -100)
    model(input_ids=ids, labels=labels, fused_lm_head=True)
    assert head.trl_utils._use_triton(model.device) is True
    monkeypatch.setattr(trl_utils, "_use_triton", lambda device: False)
    model(input_ids=ids, labels=labels, fused_lm_head=True)
    assert rows == [int((labels[:, 1:] != -100).sum()), 10]
