"""Losses, advantages and KL estimators of policy-gradient training. Pure functions, tensors to tensors.

Shapes: P prompts, G completions a prompt, B completions, T tokens. Log-probs are those of the sampled tokens. A
mask is true where a completion has a token.
"""

import torch

GRPO_EPSILON = 1e-4  # added to the standard deviation, which a group of near-equal rewards brings close to 0


def group_advantages(rewards_PG, valid_PG, kind):
    """One advantage a completion from the rewards of its group: (P, G), 0 where `valid_PG` is false.

    `grpo`: (r - mean) / (std + 1e-4), std with G - 1 (arXiv 2402.03300 eq 3). `mean`: r - mean (Dr. GRPO, arXiv
    2503.20783). `rloo`: r - mean of the others (arXiv 2402.14740). Means are over the valid completions; a group
    whose valid rewards are all equal, or which has fewer than two, has advantage exactly 0.
    """
    count_P1 = valid_PG.sum(1, keepdim=True).clamp(min=1)
    rewards_PG = torch.where(valid_PG, rewards_PG, 0.0)
    centred_PG = torch.where(valid_PG, rewards_PG - rewards_PG.sum(1, keepdim=True) / count_P1, 0.0)
    others_P1 = (count_P1 - 1).clamp(min=1)
    if kind == "grpo":
        advantages_PG = centred_PG / ((centred_PG.square().sum(1, keepdim=True) / others_P1).sqrt() + GRPO_EPSILON)
    elif kind == "rloo":
        advantages_PG = centred_PG * count_P1 / others_P1
    elif kind == "mean":
        advantages_PG = centred_PG
    else:
        raise ValueError(f"unknown advantage {kind!r}")
    return torch.where(varied(rewards_PG, valid_PG)[:, None], advantages_PG, 0.0)


def varied(rewards_PG, valid_PG):
    """Which groups have at least two different valid rewards, (P,)."""
    highest_P = rewards_PG.masked_fill(~valid_PG, -torch.inf).amax(1)
    lowest_P = rewards_PG.masked_fill(~valid_PG, torch.inf).amin(1)
    return highest_P > lowest_P


def clipped_policy_loss(logps_BT, old_logps_BT, advantages_BT, clip_low, clip_high):
    """-min(r A, clip(r, 1 - low, 1 + high) A) a token, r = pi / pi_old, and where the clip is what counts (arXiv
    1707.06347 eq 7; `clip_high` > `clip_low` is DAPO's clip-higher). Returns (loss_BT, clipped_BT)."""
    ratio_BT = (logps_BT - old_logps_BT).exp()
    free_BT = ratio_BT * advantages_BT
    bound_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_BT
    return -torch.minimum(free_BT, bound_BT), bound_BT < free_BT


def kl(logps_BT, ref_logps_BT, kind, old_logps_BT=None):
    """Estimate of KL(pi || ref) a token from the sampled tokens alone, with x = log pi - log ref.

    `k1`: x; `k2`: x^2 / 2; `k3`: e^-x - 1 + x. `unbiased`: k3 times r = pi / pi_old, whose gradient is that of the
    KL itself; the gradient of k3 alone is, in expectation, that of KL(ref || pi) (DeepSeek-V3.2 eq 7).
    """
    x_BT = logps_BT - ref_logps_BT
    if kind == "k1":
        return x_BT
    if kind == "k2":
        return x_BT.square() / 2
    k3_BT = (-x_BT).exp() - 1 + x_BT
    if kind == "k3":
        return k3_BT
    if kind == "unbiased":
        return (logps_BT - old_logps_BT).exp() * k3_BT
    raise ValueError(f"unknown KL estimator {kind!r}")


def aggregate(loss_BT, mask_BT, kind, tokens, sequences, max_tokens):
    """One number from a micro-batch's token losses; those of the micro-batches of a step add up to the step's loss.

    `tokens` and `sequences` count the whole optimizer step. `token`: every token weighs the same (DAPO, arXiv
    2503.14476). `sequence`: mean over completions of the mean over their tokens (GRPO). `constant`: sum over
    sequences * max_tokens, so that length does not weigh (Dr. GRPO).
    """
    loss_BT = torch.where(mask_BT, loss_BT, 0.0)
    if kind == "token":
        return loss_BT.sum() / tokens
    if kind == "sequence":
        return (loss_BT.sum(1) / mask_BT.sum(1).clamp(min=1)).sum() / sequences
    if kind == "constant":
        return loss_BT.sum() / (sequences * max_tokens)
    raise ValueError(f"unknown aggregation {kind!r}")
