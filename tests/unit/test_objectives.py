"""Objectives against naive loops, hand-computed numbers and GRPOTrainer's own loss."""

import math
import statistics
from types import SimpleNamespace

import pytest
import torch

from pt_tools import objectives

NAN = float("nan")


def naive_advantages(rewards, kind):
    """One group; None is a completion without reward."""
    known = [r for r in rewards if r is not None]
    if len(set(known)) < 2:
        return [0.0] * len(rewards)
    mean = sum(known) / len(known)

    def one(i, r):
        if r is None:
            return 0.0
        if kind == "grpo":
            return (r - mean) / (statistics.stdev(known) + 1e-4)
        if kind == "mean":
            return r - mean
        others = [x for j, x in enumerate(rewards) if x is not None and j != i]
        return r - sum(others) / len(others)

    return [one(i, r) for i, r in enumerate(rewards)]


GROUPS = [
    [1.0, 0.0, 0.0, 1.0],
    [1.0, 0.0, None, 0.5],
    [0.1, 0.1, 0.1, 0.1],
    [None, 0.7, None, None],
    [None, None, None, None],
    [2.0, None, -3.0, None],
]


@pytest.mark.parametrize("kind", ["grpo", "mean", "rloo"])
def test_group_advantages_equal_the_naive_twin(kind):
    valid = torch.tensor([[r is not None for r in g] for g in GROUPS])
    rewards = torch.tensor([[NAN if r is None else r for r in g] for g in GROUPS], dtype=torch.float64)
    got = objectives.group_advantages(rewards, valid, kind)
    want = torch.tensor([naive_advantages(g, kind) for g in GROUPS], dtype=torch.float64)
    assert torch.allclose(got, want, atol=1e-12)
    assert torch.equal(got[2:5], torch.zeros(3, 4, dtype=torch.float64))


def test_group_advantages_by_hand():
    rewards, valid = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
    grpo = objectives.group_advantages(rewards, valid, "grpo")
    assert torch.allclose(grpo, torch.tensor([[0.75, -0.25, -0.25, -0.25]]) / (0.5 + 1e-4))
    rloo = objectives.group_advantages(rewards, valid, "rloo")
    assert torch.allclose(rloo, torch.tensor([[1.0, -1 / 3, -1 / 3, -1 / 3]]))


def batch(seed=0, lengths=(5, 1, 3, 4), double=True):
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    make = lambda: torch.randn(mask.shape, dtype=dtype) * 0.4 - 2  # noqa: E731
    return make().requires_grad_(), make(), make(), torch.randn(mask.shape, dtype=dtype), mask


def naive_loss(logps, old, ref, advantages, mask, low, high, beta, estimator, kind, max_tokens):
    """Loss of one whole step in plain floats."""
    rows = []
    for b in range(mask.shape[0]):
        row = []
        for t in range(int(mask[b].sum())):
            lp, lo, lr, a = (float(x[b, t]) for x in (logps, old, ref, advantages))
            r = math.exp(lp - lo)
            policy = -min(r * a, min(max(r, 1 - low), 1 + high) * a)
            x = lp - lr
            k3 = math.exp(-x) - 1 + x
            row.append(policy + beta * {"k1": x, "k2": x * x / 2, "k3": k3, "unbiased": r * k3}[estimator])
        rows.append(row)
    if kind == "token":
        return sum(map(sum, rows)) / sum(map(len, rows))
    if kind == "sequence":
        return sum(sum(r) / len(r) for r in rows) / len(rows)
    return sum(map(sum, rows)) / (len(rows) * max_tokens)


def our_loss(logps, old, ref, advantages, mask, low, high, beta, estimator, kind, max_tokens, cut=1):
    """The same by the functions under test, in `cut` micro-batches."""
    total = 0
    for part in torch.arange(mask.shape[0]).chunk(cut):
        a, b, c, d, m = (x[part] for x in (logps, old, ref, advantages, mask))
        loss, _ = objectives.clipped_policy_loss(a, b, d, low, high)
        loss = loss + beta * objectives.kl(a, c, estimator, b)
        total = total + objectives.aggregate(loss, m, kind, mask.sum(), mask.shape[0], max_tokens)
    return total


@pytest.mark.parametrize("kind", ["token", "sequence", "constant"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "unbiased"])
def test_loss_equals_the_naive_twin_however_it_is_cut(kind, estimator):
    data = batch()
    want = naive_loss(*data, 0.2, 0.28, 0.3, estimator, kind, 7)
    grads = []
    for cut in (1, 2, 4):
        loss = our_loss(*data, 0.2, 0.28, 0.3, estimator, kind, 7, cut)
        assert float(loss) == pytest.approx(want, abs=1e-12)
        grads.append(torch.autograd.grad(loss, data[0])[0])
    assert all(torch.allclose(g, grads[0], atol=1e-15) for g in grads)
    assert torch.equal(grads[0][~data[4]], torch.zeros_like(grads[0][~data[4]]))


def test_clip_share_counts_where_the_bound_decides():
    ratio = torch.tensor([[0.5, 0.5, 1.0, 2.0, 2.0]])
    advantage = torch.tensor([[1.0, -1.0, 1.0, 1.0, -1.0]])
    loss, clipped = objectives.clipped_policy_loss(ratio.log(), torch.zeros(1, 5), advantage, 0.2, 0.28)
    assert torch.allclose(loss, torch.tensor([[-0.5, 0.8, -1.0, -1.28, 2.0]]))
    assert clipped.tolist() == [[False, True, False, True, False]]


@pytest.mark.parametrize("estimator", ["k1", "k3", "unbiased"])
def test_kl_estimators_are_exact_in_expectation(estimator):
    """Sum over a 5-way categorical weighted by pi: the KL itself."""
    torch.manual_seed(0)
    logits, ref = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    logps, ref = logits.log_softmax(0), ref.log_softmax(0)
    exact = (logps.exp() * (logps - ref)).sum()
    terms = objectives.kl(logps[None], ref[None], estimator, logps.detach()[None])[0]
    assert float((logps.exp().detach() * terms).sum()) == pytest.approx(float(exact), abs=1e-12)


def test_the_gradient_of_the_unbiased_estimator_is_that_of_the_kl():
    torch.manual_seed(1)
    logits, ref = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    ref = ref.log_softmax(0)

    def gradient(estimator):
        logps = logits.log_softmax(0)
        terms = objectives.kl(logps[None], ref[None], estimator, logps.detach()[None])[0]
        return torch.autograd.grad((logps.exp().detach() * terms).sum(), logits)[0]

    logps = logits.log_softmax(0)
    exact = torch.autograd.grad((logps.exp() * (logps - ref)).sum(), logits)[0]
    forward = torch.autograd.grad((ref.exp() * (ref - logits.log_softmax(0))).sum(), logits)[0]
    assert torch.allclose(gradient("unbiased"), exact, atol=1e-12)
    assert torch.allclose(gradient("k2"), exact, atol=1e-12)
    assert torch.allclose(gradient("k3"), forward, atol=1e-12)
    assert gradient("k1").abs().max() < 1e-12


def grpo_trainer(loss_type, beta, corrected, logps, max_tokens, accumulation):
    """What GRPOTrainer._compute_loss reads of its trainer, around given log-probs."""
    from collections import defaultdict

    device = torch.device("cpu")
    args = SimpleNamespace(use_bias_correction_kl=corrected, delta=None, steps_per_generation=accumulation)
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, device=device, reduce=lambda x, reduction=None: x, process_index=0
    )
    return SimpleNamespace(
        args=args,
        accelerator=accelerator,
        loss_type=loss_type,
        beta=beta,
        epsilon_low=0.2,
        epsilon_high=0.28,
        model=SimpleNamespace(training=True),
        max_completion_length=max_tokens,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=accumulation,
        _entropy_bonus_enabled=False,
        aux_loss_enabled=False,
        use_adaptive_entropy=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, torch.zeros_like(logps), None),
    )


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("loss_type, kind", [("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "constant")])
def test_loss_and_gradient_equal_grpo_trainer(loss_type, kind, beta, corrected):
    from trl import GRPOTrainer

    logps, old, ref, advantages, mask = batch(seed=3)
    trainer = grpo_trainer(loss_type, beta, corrected, logps, 9, accumulation=1)
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages[:, 0],
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    spread = advantages[:, :1].expand_as(logps)
    ours = our_loss(logps, old, ref, spread, mask, 0.2, 0.28, beta, "unbiased" if corrected else "k3", kind, 9)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-14)
    gradients = [torch.autograd.grad(loss, logps)[0] for loss in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-16)
