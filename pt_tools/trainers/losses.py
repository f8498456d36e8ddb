"""Preference losses as pure functions of log-probs."""

import torch.nn.functional as F

# Peak of the sigmoid's pull where nobody says otherwise: DPO, Tulu 3 (per-token means), IPO, SimPO.
BETA = {"sigmoid": 0.1, "sigmoid_norm": 5.0, "ipo": 0.1, "simpo": 2.0}
GAMMA = 1.0
REFERENCE_FREE = ("simpo",)


def preference(name, chosen, rejected, ref_chosen, ref_rejected, chosen_length, rejected_length, beta, gamma=0.0):
    """(loss per pair, margin per pair), each (P,).

    `chosen` … `ref_rejected` (P,): log-probs summed over the completion; lengths (P,): completion tokens.
    sigmoid: DPO (arXiv:2305.18290 eq. 7). sigmoid_norm: Tulu 3 (arXiv:2411.15124 eq. 6). ipo: arXiv:2310.12036
    eq. 17, on per-token means as its authors advise. simpo: arXiv:2405.14734 eq. 6, no reference.
    The margin is what the loss pushes up, before beta and gamma.
    """
    if name == "simpo":
        margin = chosen / chosen_length - rejected / rejected_length
        return -F.logsigmoid(beta * margin - gamma), margin
    chosen, rejected = chosen - ref_chosen, rejected - ref_rejected
    if name == "sigmoid":
        margin = chosen - rejected
        return -F.logsigmoid(beta * margin), margin
    margin = chosen / chosen_length - rejected / rejected_length
    if name == "sigmoid_norm":
        return -F.logsigmoid(beta * margin), margin
    if name == "ipo":
        return (margin - 1 / (2 * beta)) ** 2, margin
    raise ValueError(f"no preference loss named {name}")
