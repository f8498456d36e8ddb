"""The LM head over the positions that carry loss, and no others."""

import torch
from trl.trainer import utils as trl_utils

from pt_tools import rollout

# Where it has no Triton, TRL's fused head scores every position, prompts and padding included. The name decides only
# that (the kernels ask for themselves); it has a canary test.
trl_utils._use_triton = lambda device: True

# Configurations whose loss has a further term, which only the model itself computes.
_FURTHER_TERM = ("output_router_logits", "num_experts", "num_local_experts")


def plain(model):
    """Whether `token_logps` applies: on a CPU the fused head costs more than the small logits it saves."""
    config = model.config.get_text_config()
    return model.device.type == "cpu" and not any(getattr(config, name, None) for name in _FURTHER_TERM)


def prepare(model):
    """Give a model that no TRL trainer holds the fused head, where `token_logps` needs it."""
    if not plain(model):
        trl_utils.add_fused_lm_head(model)


def token_logps(model, inputs, labels):
    """(log-probs of the labelled next tokens, flat; mask (B, T-1) of where they belong).

    `inputs` are those of the model without labels; `labels` (B, T) is -100 where nothing is scored. Off the CPU the
    model must be `prepare`d, or held by a trainer of TRL.
    """
    if not plain(model):
        scored = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
        return scored.log_probs[scored.label_mask], scored.label_mask
    mask = labels[:, 1:] != -100
    places = torch.nn.functional.pad(mask, (0, 1)).flatten().nonzero().squeeze(1)
    logits = rollout.logits_at(model, places, **inputs)
    return -torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][mask], reduction="none"), mask
