"""Preference losses against twins written out and against TRL's own trainer; pairs, reference, options."""

import math

import pytest
import safetensors.torch
import torch
import toys
from test_sft import Gradients, same

from pt_tools import models
from pt_tools.commands.dpo import LOSSES, Config
from pt_tools.errors import BadModel
from pt_tools.trainers import losses, preference, reference

BETAS = {"sigmoid": 0.3, "sigmoid_norm": 5.0, "ipo": 0.3, "simpo": 2.0}


@pytest.fixture
def start(tmp_path):
    return toys.save(tmp_path / "start")


@pytest.fixture
def other(tmp_path):
    return toys.save(tmp_path / "other", toys.llama(seed=1))


def one_step(tmp_path, start, records, name="out", **changes):
    cfg = toys.config(Config, model=start, files=(toys.write(tmp_path / "pairs.jsonl", records),), batch_size=len(records),
                      grad_clip=0.0, max_steps=1, **changes)
    seen = {}
    with toys.job(cfg, tmp_path / name) as job:
        model, tok = models.load_model(start), models.load_tokenizer(start)
        pairs = preference.read_pairs(job, tok, cfg.max_length)
        if cfg.loss != "simpo":
            pairs = preference.with_reference(cfg, job, model, torch.float32, tok, pairs)
        trainer = preference.build(cfg, job, model, tok, pairs)
        trainer.add_callback(Gradients(model, seen))
        trainer.run()
        return trainer.metrics.last["loss"], seen


def log_probs(model, tok, record, key):
    """(sum over the completion of log p, its length), one row, whole logits."""
    ids = tok.apply_chat_template(record["prompt"], add_generation_prompt=True, return_dict=False)
    answer = tok(record[key])["input_ids"] + [tok.eos_token_id]
    logp = torch.log_softmax(model(torch.tensor([ids + answer])).logits[0], -1)
    return sum(logp[len(ids) - 1 + k, token] for k, token in enumerate(answer)), len(answer)


def twin(start, reference, records, name, beta, gamma=0.0, sft_weight=0.0):
    """Each formula as its paper prints it, a pair at a time."""
    model, ref, tok = models.load_model(start), models.load_model(reference), models.load_tokenizer(start)
    total, nll, tokens = 0.0, 0.0, 0
    for record in records:
        (pc, nc), (pr, nr) = log_probs(model, tok, record, "chosen"), log_probs(model, tok, record, "rejected")
        with torch.no_grad():
            (rc, _), (rr, _) = log_probs(ref, tok, record, "chosen"), log_probs(ref, tok, record, "rejected")
        if name == "sigmoid":
            loss = -torch.log(torch.sigmoid(beta * (pc - rc) - beta * (pr - rr)))
        elif name == "sigmoid_norm":
            loss = -torch.log(torch.sigmoid(beta / nc * (pc - rc) - beta / nr * (pr - rr)))
        elif name == "ipo":
            loss = ((pc - rc) / nc - (pr - rr) / nr - 1 / (2 * beta)) ** 2
        else:
            loss = -torch.log(torch.sigmoid(beta / nc * pc - beta / nr * pr - gamma))
        total, nll, tokens = total + loss, nll - pc, tokens + nc
    total = total / len(records) + sft_weight * nll / tokens
    total.backward()
    return total.item(), {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_equal_the_formula(tmp_path, start, other, name):
    records, gamma = toys.pairs(6), 0.7 if name == "simpo" else None
    reference = None if name == "simpo" else other
    expected = twin(start, other, records, name, BETAS[name], gamma or 0.0, 0.2)
    for micro in (6, 4, 1):
        got = one_step(tmp_path, start, records, f"m{micro}", loss=name, beta=BETAS[name], gamma=gamma, sft_weight=0.2,
                       reference=reference, micro_batch_size=micro)
        same(got, expected, 2e-5)


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "ipo"])
def test_loss_and_gradient_equal_trl(tmp_path, start, other, name):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    records = toys.pairs(6)
    model, tok = models.load_model(start), models.load_tokenizer(start)
    text = [{"prompt": tok.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False),
             "chosen": r["chosen"], "rejected": r["rejected"]} for r in records]
    args = DPOConfig(str(tmp_path / "trl"), bf16=False, use_cpu=True, max_steps=1, per_device_train_batch_size=6,
                     max_grad_norm=0.0, report_to="none", save_strategy="no", disable_tqdm=True, beta=BETAS[name],
                     loss_type=[name], max_length=None)
    seen = {}
    trainer = DPOTrainer(model, models.load_model(other), args, train_dataset=Dataset.from_list(text),
                         processing_class=tok, callbacks=[Gradients(model, seen)])
    loss = trainer.train().training_loss
    same((loss, seen), one_step(tmp_path, start, records, loss=name, beta=BETAS[name], reference=other), 2e-5)


def test_fused_head_of_trl_gives_the_same(tmp_path, start, other, monkeypatch):
    from pt_tools.trainers import head

    expected = one_step(tmp_path, start, toys.pairs(6), "plain", reference=other)
    monkeypatch.setattr(head, "plain", lambda model: False)
    same(one_step(tmp_path, start, toys.pairs(6), "fused", reference=other, micro_batch_size=4), expected, 2e-5)


def test_values_by_hand():
    """log-ratios 2 and −1 over 4 and 2 tokens."""
    t = torch.tensor
    args = t([-1.0]), t([-5.0]), t([-3.0]), t([-4.0]), t([4.0]), t([2.0])

    def value(name, beta, gamma=0.0):
        return losses.preference(name, *args, beta=beta, gamma=gamma)[0].item()

    assert value("sigmoid", 0.1) == pytest.approx(math.log(1 + math.exp(-0.3)))
    assert value("sigmoid_norm", 5.0) == pytest.approx(math.log(1 + math.exp(-5 * (2 / 4 + 1 / 2))))
    assert value("ipo", 0.25) == pytest.approx((1.0 - 2.0) ** 2)
    assert value("simpo", 2.0, 1.0) == pytest.approx(math.log(1 + math.exp(-(2 * (-1 / 4 + 5 / 2) - 1))))


def test_normalised_equals_plain_when_both_completions_are_one_token():
    logps = [torch.randn(5, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    ones = torch.ones(5)
    a, b = (losses.preference(n, *logps, ones, ones, beta=0.7)[0] for n in ("sigmoid", "sigmoid_norm"))
    assert torch.equal(a, b)


def test_at_the_start_the_policy_is_the_reference(tmp_path, start):
    loss, _ = one_step(tmp_path, start, toys.pairs(6))
    assert loss == pytest.approx(math.log(2), abs=1e-5)


def test_forms_of_pairs_give_the_same_ids(tmp_path, start):
    tok = models.load_tokenizer(start)
    user = [{"role": "user", "content": "Hi"}]
    yes, no = ([{"role": "assistant", "content": c}] for c in ("Yes", "No"))
    forms = [{"prompt": user, "chosen": "Yes", "rejected": "No"}, {"prompt": user, "chosen": yes, "rejected": no},
             {"prompt": "Hi", "chosen": yes, "rejected": no}, {"chosen": user + yes, "rejected": user + no}]
    hashes = models.tokenizer_hash(tok), models.template_hash(tok)
    with toys.job(toys.config(Config, model=start), tmp_path / "out") as job:
        ids = [preference.encode(tok, form, hashes, job.rows) for form in forms]
        assert all(i == ids[0] for i in ids[1:])
        assert [tok.decode(side) for side, _ in ids[0]] == [f"<|user|>Hi<|assistant|>{word}<|end|>" for word in ("Yes", "No")]
        assert [tok.decode([i for i in labels if i >= 0]) for _, labels in ids[0]] == ["Yes<|end|>", "No<|end|>"]
        text = preference.encode(tok, {"prompt": "2+2=", "chosen": "4", "rejected": "5"}, hashes, job.rows)
        assert tok.decode(text[0][0]) == "2+2=4<|end|>"


def test_ids_of_this_tokenizer_are_taken_and_others_are_counted(tmp_path, start):
    tok = models.load_tokenizer(start)
    hashes = models.tokenizer_hash(tok), models.template_hash(tok)
    record = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "Yes", "rejected": "No", "prompt_ids": [5, 6],
              "chosen_ids": [7], "rejected_ids": [8], "tokenizer": hashes[0], "template": hashes[1]}
    with toys.job(toys.config(Config, model=start), tmp_path / "out") as job:
        assert preference.encode(tok, record, hashes, job.rows) == [
            ([5, 6, 7], [-100, -100, 7]), ([5, 6, 8], [-100, -100, 8])]
        assert not job.rows.reasons
        for changed in ({"tokenizer": "0" * 16}, {"template": "0" * 16}):
            ids = preference.encode(tok, record | changed, hashes, job.rows)
            assert tok.decode([i for i in ids[0][1] if i >= 0]) == "Yes<|end|>"
        assert job.rows.reasons["out: ids of another tokenizer or template, text encoded"] == 2


def test_only_the_assistant_s_trained_turns_count(tmp_path, start):
    tok = models.load_tokenizer(start)

    def turns(*words, **first):
        roles = ("assistant", "user", "assistant")
        return [{"role": role, "content": word} | (first if not i else {}) for i, (role, word) in enumerate(zip(roles, words))]

    record = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": turns("Yes", "And?", "Done"),
              "rejected": turns("No", "Why?", "So", train=False)}
    with toys.job(toys.config(Config, model=start), tmp_path / "out") as job:
        sides = preference.encode(tok, record, ("", ""), job.rows)
    assert [tok.decode([i for i in labels if i >= 0]) for _, labels in sides] == ["Yes<|end|>Done<|end|>", "So<|end|>"]
    assert tok.decode(sides[1][0]) == "<|user|>Hi<|assistant|>No<|end|>\n<|user|>Why?<|assistant|>So<|end|>\n"


def test_pairs_are_accounted_for(tmp_path, start):
    records = [*toys.pairs(3), {"prompt": "x" * 70, "chosen": "a", "rejected": "b"},
               {"prompt": "Hi", "chosen": "y" * 70, "rejected": "b"}, {"text": "abc"}]
    cfg = toys.config(Config, model=start, files=(toys.write(tmp_path / "p.jsonl", records),), on_error="skip")
    with toys.job(cfg, tmp_path / "out") as job:
        pairs = preference.read_pairs(job, models.load_tokenizer(start), 64)
        assert job.rows.n == {"in": 6, "out": 4, "dropped": 1, "truncated": 1, "masked": 0, "errored": 1}
        assert len(pairs) == 4 and max(preference.lengths_of(pairs)) == 64


def test_a_reference_with_another_tokenizer_is_refused(tmp_path, start):
    foreign = toys.save(tmp_path / "foreign", tok=toys.tokenizer(eos_token="<|user|>"))
    with pytest.raises(BadModel, match="another tokenizer"):
        one_step(tmp_path, start, toys.pairs(2), reference=foreign)


def test_a_reference_with_fewer_embeddings_is_refused(tmp_path, start):
    small = toys.save(tmp_path / "small", toys.llama(vocab_size=40))
    tok, policy = models.load_tokenizer(start), models.load_model(start)
    with pytest.raises(BadModel, match="has no embedding"):
        reference.load(small, tok, policy)
    assert reference.load(start, tok, policy) is not policy


def test_training_on_pairs_prefers_the_chosen(tmp_path, start):
    cfg = toys.config(Config, model=start, files=(toys.write(tmp_path / "p.jsonl", toys.pairs(16)),), batch_size=8, lr=2e-3,
                      epochs=10.0, loss="sigmoid_norm")
    with toys.job(cfg, tmp_path / "out") as job:
        preference.train(cfg, job)
        assert job.final["loss"] < 0.2 and job.final["steps"] == 20


@pytest.mark.parametrize("line, fault", [
    (["--gamma", "1"], "--gamma is of use only with --loss simpo"),
    (["--loss", "simpo", "--reference", "x"], "--reference"), (["--beta", "0"], "--beta must be positive"),
    (["--loss", "hinge"], "hinge"), (["--set", "beta=1"], "pt-tools sets this itself"),
    (["--set", "label_smoothin=1"], "no such field"), (["--set", "tf32=maybe"], "not a bool"),
])
def test_wrong_and_useless_options_are_usage_errors(pt, tmp_path, line, fault):
    (tmp_path / "p.jsonl").write_text("{}\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "m").mkdir()
    done = pt("pt-dpo", "p.jsonl", "-m", "m", "-o", "out", *line, check=2)
    assert fault in done.err and not done.out


def test_the_reference_scores_only_pairs_that_the_run_comes_to(tmp_path, start, other):
    cfg = toys.config(Config, model=start, files=(toys.write(tmp_path / "p.jsonl", toys.pairs(40)),), batch_size=4, max_steps=3,
                      reference=other)
    with toys.job(cfg, tmp_path / "out") as job:
        model, tok = models.load_model(start), models.load_tokenizer(start)
        pairs = preference.read_pairs(job, tok, cfg.max_length)
        some = preference.with_reference(cfg, job, model, torch.float32, tok, pairs)
        order = preference.order_of(cfg, model, pairs)
    used = {row for step in range(3) for row in order.batch(step)}
    assert len(used) == 12 and {i for i, pair in enumerate(some) if pair.reference != (0.0, 0.0)} == used
    ref = models.load_model(other).eval()
    for i in used:
        for ids, labels in (pairs[i].chosen[:2], pairs[i].rejected[:2]):
            logps = ref(torch.tensor([list(ids)])).logits[0, :-1].log_softmax(-1)
            expected = sum(float(logps[t - 1, ids[t]]) for t in range(1, len(ids)) if labels[t] >= 0)
            assert expected == pytest.approx(some[i].reference[0 if ids is pairs[i].chosen[0] else 1], abs=1e-4)


def test_a_damaged_block_of_the_reference_is_made_again(tmp_path, start, other):
    cfg = toys.config(Config, model=start, files=(toys.write(tmp_path / "p.jsonl", toys.pairs(6)),), batch_size=6, reference=other)
    with toys.job(cfg, tmp_path / "out") as job:
        model, tok = models.load_model(start), models.load_tokenizer(start)
        pairs = preference.read_pairs(job, tok, cfg.max_length)
        args = cfg, job, model, torch.float32, tok, pairs
        whole = [pair.reference for pair in preference.with_reference(*args)]
        (block,) = (job.out.run / "reference").iterdir()
        data = block.read_bytes()
        for damaged in (data[:-4], b"", safetensors.torch.save({"logps": torch.full((6, 2), math.nan)}),
                        safetensors.torch.save({"logps": torch.zeros(5, 2)})):
            block.write_bytes(damaged)
            assert [pair.reference for pair in preference.with_reference(*args)] == whole and block.read_bytes() == data
