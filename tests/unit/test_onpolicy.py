"""The on-policy trainer against naive loops: packs, losses, whole runs, masking, order."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import onpolicy_run as small  # noqa: E402

from pt_tools import models, rewards, rollout  # noqa: E402
from pt_tools.trainers import buffer, onpolicy, rlvr  # noqa: E402

UNUSABLE = {"name": "math"}  # no answer: the grader cannot grade, whatever the completion says


@pytest.fixture(scope="module")
def blank(world):
    return world / "blank"


@pytest.fixture(scope="module")
def tokenizer(blank):
    return models.load_tokenizer(str(blank))


# --- packs -----------------------------------------------------------------------------------------


def random_groups(seed=0, vocab=50, ref=False):
    rng = np.random.default_rng(seed)
    out = []
    for size in (1, 4, 2, 3):
        samples = []
        for _ in range(size):
            n = int(rng.integers(1, 9))
            arrays = [rng.normal(size=n).astype(np.float32) for _ in range(3)]
            samples.append(buffer.Sample(rng.integers(1, vocab, n), arrays[0], arrays[1], arrays[2] if ref else None))
        out.append(buffer.Group(rng.integers(1, vocab, int(rng.integers(1, 7))), samples))
    return out


def naive_logps(model, prompt, tokens, temperature):
    ids = torch.tensor([[*prompt.tolist(), *tokens.tolist()]])
    logps = torch.log_softmax(model(ids).logits[0] / temperature, -1)
    return torch.stack([logps[len(prompt) - 1 + t, x] for t, x in enumerate(tokens.tolist())])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("width, budget", [(64, 4096), (64, 24), (0.01, 4096)], ids=["packed", "small-batches", "single"])
def test_packs_give_the_log_probs_and_gradients_of_separate_rows(tokenizer, kind, width, budget):
    model, groups = small.tiny(tokenizer, kind).eval(), random_groups()
    seen = 0
    for batch in buffer.micro_batches(groups, width, budget):
        inputs = buffer.collate(batch)
        assert (inputs["attention_mask"] is None) == all(len(pack.samples) == 1 for pack in batch)
        names = ("input_ids", "position_ids", "attention_mask")
        logits = rollout.logits_at(model, inputs["places"], **{n: inputs[n] for n in names})
        got = rollout.token_logprobs(logits, inputs["tokens"], 0.7)
        rows = [(pack.prompt, s) for pack in batch for s in pack.samples]
        want = torch.cat([naive_logps(model, prompt, s.tokens, 0.7) for prompt, s in rows])
        assert torch.allclose(got, want, atol=1e-5)
        assert torch.equal(inputs["advantages"][inputs["mask"]], torch.tensor(np.concatenate([s.advantages for _, s in rows])))
        weight = torch.from_numpy(np.random.default_rng(1).normal(size=len(got))).float()
        gradients = [torch.autograd.grad((weight * logps).sum(), list(model.parameters()), allow_unused=True)
                     for logps in (got, want)]
        for a, b in zip(*gradients):
            assert (a is None and b is None) or torch.allclose(a, b, atol=2e-5)
        seen += len(rows)
    assert seen == 10


def test_micro_batches_keep_to_their_limits_and_lose_nothing():
    groups = [g for seed in range(20) for g in random_groups(seed)]
    for width, tokens, most in [(64, 4096, 0), (64, 40, 0), (1, 40, 0), (64, 4096, 3), (64, 30, 2)]:
        batches = buffer.micro_batches(groups, width, tokens, most)
        assert sorted(id(s) for b in batches for p in b for s in p.samples) == sorted(id(s) for g in groups for s in g.samples)
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(buffer.length(p) for p in batch) <= tokens
            assert not most or sum(len(p.samples) for p in batch) <= most


def test_the_pack_length_is_the_cheapest():
    """The closed form against the cost itself, for every number of completions in a pack."""
    for p, t, w in [(10, 10, 128), (100, 20, 256), (500, 100, 1024), (20, 400, 64)]:
        cost = {k: (24 * w * w * (p + k * t) + 4 * w * (p + k * t) ** 2) / k for k in range(1, 200)}
        best = min(cost, key=cost.get)
        group = buffer.Group(np.zeros(p), [buffer.Sample(np.zeros(t), None, None) for _ in range(200)])
        chosen = len(buffer.packs([group], w)[0].samples)
        assert cost[chosen] < 1.02 * cost[best]


@pytest.mark.parametrize("ref", [False, True])
def test_buffer_survives_a_file_to_the_last_bit(tmp_path, ref):
    import safetensors.torch

    before = buffer.Buffer([random_groups(1, ref=ref), [], random_groups(2, ref=ref)])
    safetensors.torch.save_file(before.to_tensors(), tmp_path / "x.safetensors")
    after = buffer.Buffer.from_tensors(safetensors.torch.load_file(tmp_path / "x.safetensors"))
    assert [len(part) for part in after.minibatches] == [4, 0, 4]
    for a, b in zip(itertools.chain(*before.minibatches), itertools.chain(*after.minibatches)):
        assert np.array_equal(a.prompt, b.prompt) and len(a.samples) == len(b.samples)
        for x, y in zip(a.samples, b.samples):
            for name in ("tokens", "old_logps", "advantages") + (("ref_logps",) if ref else ()):
                assert np.array_equal(getattr(x, name), getattr(y, name))
            assert ref or y.ref_logps is None
    assert buffer.Buffer.from_tensors({}) is None
    assert buffer.Buffer.from_tensors(buffer.Buffer([[], []]).to_tensors()).minibatches == [[], []]


# --- order -----------------------------------------------------------------------------------------


def test_order_draws_each_prompt_once_an_epoch_and_repeats_it_for_the_updates():
    order = onpolicy.PromptOrder(10, prompts=4, updates=2, seed=1, epochs=3)
    steps = list(order)
    assert order.steps == len(order) == len(steps) == 16
    assert steps[0::2] == steps[1::2]
    drawn = [(row, visit) for step in range(0, 16, 2) for row, visit in zip(order.batch(step), order.visits(step))]
    assert sorted(drawn) == sorted((row, visit) for row in range(10) for visit in range(3))
    assert [visit for _, visit in drawn] == [0] * 10 + [1] * 10 + [2] * 10
    assert [order.epochs_at(step) for step in (0, 1, 2, 16)] == [0, 0.4, 0.4, 3.0]
    assert onpolicy.PromptOrder(10, 4, 2, 1, max_steps=5).steps == 5


# --- whole runs ------------------------------------------------------------------------------------


def naive_run(trainer, steps):
    """The same training written out: one completion at a time, torch's own AdamW, everything in plain loops."""
    cfg, tasks, order = trainer.job.cfg, trainer.rows, trainer.order
    model = trainer.model.eval()
    reference = trainer.reference
    tok, stops = trainer.processing_class, set(np.flatnonzero(trainer.engine.is_stop).tolist())
    optimizer = torch.optim.AdamW(
        model.parameters(), cfg.lr, (cfg.adam_beta1, cfg.adam_beta2), cfg.adam_eps, weight_decay=cfg.weight_decay
    )
    for step in range(steps):
        if step % cfg.updates_per_rollout == 0:
            rolled = []
            for row, visit in zip(order.batch(step), order.visits(step)):
                rolled.append(naive_group(cfg, model, tok, stops, tasks[row], visit))
        share = len(rolled) // cfg.updates_per_rollout
        k = step % cfg.updates_per_rollout
        batch = [s for group in rolled[k * share : (k + 1) * share] for s in group]
        tokens = sum(len(s["tokens"]) for s in batch)
        loss = 0
        for s in batch:
            logps = naive_logps(model, np.array(s["prompt"]), np.array(s["tokens"]), cfg.temperature)
            ratio = (logps - torch.tensor(s["old"])).exp()
            terms = -torch.min(ratio * s["a"], ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high) * s["a"])
            if cfg.kl:
                with torch.no_grad():
                    ref = naive_logps(reference, np.array(s["prompt"]), np.array(s["tokens"]), cfg.temperature)
                x = logps - ref
                terms = terms + cfg.kl * ((-x).exp() - 1 + x)
            scale = {"token": 1 / tokens, "sequence": 1 / len(s["tokens"]) / len(batch),
                     "constant": 1 / len(batch) / cfg.max_new_tokens}[cfg.loss_aggregation]
            loss = loss + terms.sum() * scale
        optimizer.zero_grad()
        if batch:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.grad_clip)
            optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def naive_group(cfg, model, tok, stops, task, visit):
    engine = rollout.LocalEngine(model, stops, 0, 1)
    sampling = rollout.Sampling(cfg.temperature, 1.0, 0, cfg.max_new_tokens, cfg.seed)
    group = engine.sample([rollout.Prompt(task.id, task.ids, visit)], cfg.group_size, sampling)[0]
    got = []
    for c in group:
        ids = c.token_ids[:-1] if c.finish == "stop" else c.token_ids
        got.append((c, rewards.verify(task.record, {"text": tok.decode(ids), "finish": c.finish}).reward))
    graded = [r for _, r in got if r is not None]
    if (len(set(graded)) < 2 and not cfg.kl) or not graded:
        return []
    mean, std = np.mean(graded), np.std(graded, ddof=1) if len(graded) > 1 else 0.0
    return [{"prompt": task.ids, "tokens": c.token_ids, "old": c.logprobs, "a": (r - mean) / (std + 1e-4)}
            for c, r in got if r is not None]


SETTINGS = {
    "token": {},
    "sequence-kl": {"loss_aggregation": "sequence", "kl": 0.1, "updates_per_rollout": 1},
    "constant": {"loss_aggregation": "constant", "temperature": 0.8, "updates_per_rollout": 3, "batch_size": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_equals_the_naive_loop(blank, tokenizer, tmp_path, name):
    """Some prompts cannot be graded; weights after 6 steps agree to rounding though they moved a thousand times more."""
    rows = small.tasks(tokenizer)
    rows[3] = onpolicy.Task({**rows[3].record, "verifier": UNUSABLE}, rows[3].id, rows[3].ids)
    options = {**SETTINGS[name], "rows": rows, "max_steps": 6, "adam_eps": 1e-4}
    ours = small.trainer(blank, tmp_path / "a", **options)
    start = {k: v.detach().clone() for k, v in ours.model.named_parameters()}
    ours.run()
    twin = naive_run(small.trainer(blank, tmp_path / "b", **options), 6)
    moved = max(float((p - start[k]).abs().max()) for k, p in ours.model.named_parameters())
    apart = max(float((p - twin[k]).abs().max()) for k, p in ours.model.named_parameters())
    assert moved > 5e-3 and apart < moved / 1000


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_micro_batches_do_not_change_the_update(blank, tmp_path, aggregation):
    """8 x 1 = 2 x 4 = 1 x 8 completions."""
    runs = []
    for micro in (1, 4, 0):
        trainer = small.trainer(blank, tmp_path / str(micro), micro_batch_size=micro, loss_aggregation=aggregation,
                                max_steps=4, adam_eps=1e-4)
        trainer.run()
        runs.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert (runs[0] - runs[1]).abs().max() < 1e-6 and (runs[0] - runs[2]).abs().max() < 1e-6


class Spy(rlvr.Rlvr):
    """Keeps the largest |log ratio| of every micro-batch, by step, and the tokens of every rollout."""

    def __init__(self, *args, **kwargs):
        self.ratios, self.rolled = {}, []
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, **kwargs):
        with torch.no_grad():
            off = (self._logps(model, inputs) - inputs["old_logps"])[inputs["mask"]].abs().max()
        self.ratios.setdefault(self.state.global_step, []).append(float(off))
        return super().compute_loss(model, inputs, **kwargs)

    def grade(self, tasks, groups):
        self.rolled += [(task.id, tuple(d.completion.token_ids)) for task, draws in zip(tasks, groups) for d in draws]
        return super().grade(tasks, groups)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_p": 0.9}, {"top_k": 20}], ids=str)
def test_the_ratio_is_one_on_the_first_minibatch_only(blank, tmp_path, options):
    trainer = small.trainer(blank, tmp_path, Spy, max_steps=8, **options)
    trainer.run()
    first = [r for step, rs in trainer.ratios.items() if step % 2 == 0 for r in rs]
    later = [r for step, rs in trainer.ratios.items() if step % 2 == 1 for r in rs]
    assert first and max(first) < 1e-5
    assert later and max(later) > 1e-3


def test_epochs_draw_different_samples(blank, tokenizer, tmp_path):
    trainer = small.trainer(blank, tmp_path, Spy, rows=small.tasks(tokenizer, 4), lr=0.0, max_steps=6)
    trainer.run()
    rounds = [set(trainer.rolled[i : i + 16]) for i in range(0, 48, 16)]
    assert all(len(r) > 12 for r in rounds)
    assert not rounds[0] & rounds[1] and not rounds[1] & rounds[2]


def test_dropout_is_off_for_the_policy(blank, tokenizer, tmp_path):
    model = small.tiny(tokenizer, "gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    trainer = small.trainer(blank, tmp_path, Spy, model=model, max_steps=2)
    trainer.run()
    assert trainer.ratios and max(trainer.ratios[0]) < 1e-5


def test_without_a_grade_there_is_no_gradient_at_all(blank, tokenizer, tmp_path):
    """All rows failed, with a KL term whose gradient would not be 0: weights and optimizer stay as they are."""
    rows = small.tasks(tokenizer, verifier=UNUSABLE)
    trainer = small.trainer(blank, tmp_path, rows=rows, kl=0.5, max_steps=4)
    before = {k: v.detach().clone() for k, v in trainer.model.named_parameters()}
    trainer.run()
    assert all(torch.equal(before[k], v) for k, v in trainer.model.named_parameters())
    assert not trainer.optimizer.state_dict()["state"]
    assert trainer.job.rows.n["masked"] == 2 * 16
    lines = small.metrics(trainer).splitlines()
    assert '"masked": 16' in lines[0] and '"grad_norm": 0.0' in lines[0]


@pytest.mark.parametrize("verifier, learnt", [(UNUSABLE, False), (None, True)], ids=["nothing", "something"])
def test_a_run_that_learns_nothing_says_so(blank, tokenizer, tmp_path, monkeypatch, verifier, learnt):
    said = []
    trainer = small.trainer(blank, tmp_path, rows=small.tasks(tokenizer, verifier=verifier), max_steps=2)
    monkeypatch.setattr(trainer.job, "say", said.append)
    trainer.run()
    trainer.finish()
    assert (trainer.job.final["trained_completions"] > 0) == learnt
    assert any("nothing was learnt" in line for line in said) == (not learnt)


def test_a_reward_that_is_no_number_is_masked(blank, tmp_path, monkeypatch):
    real = rewards.verify

    def verify(record, completion, own=True):
        verdict = real(record, completion, own)
        verdict.reward = float("nan") if record["id"] == "r1" else verdict.reward
        return verdict

    monkeypatch.setattr(rewards, "verify", verify)
    trainer = small.trainer(blank, tmp_path, max_steps=6)
    trainer.run()
    drawn = sum(trainer.rows[row].id == "r1" for step in (0, 2, 4) for row in trainer.order.batch(step))
    assert drawn and trainer.job.rows.reasons == {"masked: completion not graded (reward is not finite)": 4 * drawn}
    models.check_finite(trainer.model)


def test_equal_rewards_leave_the_step_and_its_normaliser(blank, tokenizer, tmp_path):
    """Half of the prompts always fail: the update is that of the other half alone."""
    never, rows = small.words(1000), small.tasks(tokenizer, 4)
    mixed = [t if i % 2 else onpolicy.Task({**t.record, "verifier": never}, t.id, t.ids) for i, t in enumerate(rows)]
    ends = []
    for name, some, size in [("mixed", mixed, 16), ("alone", [mixed[1], mixed[3]], 8)]:
        trainer = small.trainer(blank, tmp_path / name, rows=some, batch_size=size, updates_per_rollout=1, max_steps=1,
                                adam_eps=1e-4)
        trainer.run()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert (ends[0] - ends[1]).abs().max() < 1e-6


def test_reward_rises(blank, tokenizer, tmp_path):
    """At most one word: from about a third to nearly always, in 25 steps."""
    import json

    rows = small.tasks(tokenizer, 16, verifier=small.words(2, "less than"))
    trainer = small.trainer(blank, tmp_path, rows=rows, batch_size=64, group_size=8, updates_per_rollout=1, lr=1e-2,
                            max_steps=25, sample_batch_size=64)
    trainer.run()
    rewards_ = [json.loads(line)["reward"] for line in small.metrics(trainer).splitlines()]
    assert np.mean(rewards_[:3]) < 0.6 and np.mean(rewards_[-3:]) > 0.9


# --- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags, words", [
    (["--temperature", "0"], "--temperature"),
    (["--group-size", "1"], "--group-size"),
    (["--batch-size", "12"], "multiple"),
    (["--reference", "x"], "--reference"),
    (["--kl", "-1"], "--kl must be at least 0"),
    (["--set", "output_dir=x"], "output_dir"),
])
def test_wrong_use_is_said_before_torch_starts(tmp_path, capfd, flags, words):
    from pt_tools import cli
    from pt_tools.commands.rlvr import main

    model = tmp_path / "m"
    model.mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "rows.jsonl").write_text("{}\n")
    flags = [str(tmp_path / "x") if f == "x" else f for f in flags]
    code = cli.funnel(main, [str(tmp_path / "rows.jsonl"), "-m", str(model), "-o", str(tmp_path / "out"), *flags])
    assert code == 2 and words in capfd.readouterr().err


def test_rows_that_cannot_be_used_are_errors(blank, tokenizer):
    from pt_tools.errors import BadData
    from pt_tools.job import Job

    good = small.tasks(tokenizer, 1)[0].record
    bad = [
        {k: v for k, v in good.items() if k != "verifier"},
        {**good, "verifier": UNUSABLE},
        {"text": "x", "verifier": good["verifier"]},
        {**good, "prompt": [{"role": "user", "content": "1" * 500}]},
        {**good, "prompt_ids": [1, 2], "tokenizer": "another"},
        {**good, "prompt_ids": [1, 2], "tokenizer": models.tokenizer_hash(tokenizer), "template": "another"},
    ]
    cfg = small.Config(**{**small.OPTIONS, "on_error": "skip"})
    job = Job("pt-rlvr", cfg)
    read = lambda rows: iter([job.rows.add("in") or row for row in rows])  # noqa: E731
    job.records.__class__ = type("Given", (job.records.__class__,), {"__iter__": lambda self: read([*bad, good])})
    found = onpolicy.read_tasks(job, tokenizer, 128, rewards.check)
    assert [task.record for task in found] == [good]
    assert job.rows.n["in"] == 7 and job.rows.n["errored"] == 6 and job.rows.n["out"] == 1
    job.records.on_error = "fail"
    with pytest.raises(BadData):
        onpolicy.read_tasks(job, tokenizer, 128, rewards.check)
