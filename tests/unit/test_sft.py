"""SFT against an independent twin and against TRL's plain trainer: loss, gradient, masks, packing, row accounting."""

import json
import math

import pytest
import safetensors.torch
import torch
import toys

from pt_tools import models, stop
from pt_tools.commands.sft import Config
from pt_tools.errors import BadData, BadModel, Diverged, Usage
from pt_tools.trainers import data, sft


@pytest.fixture
def start(tmp_path):
    return toys.save(tmp_path / "start")


def cfg_of(tmp_path, start, records, **changes):
    files = (toys.write(tmp_path / "rows.jsonl", records),)
    return toys.config(Config, model=start, files=files, **{"lr": 1e-3, "batch_size": 8, "grad_clip": 0.0} | changes)


def one_step(tmp_path, start, records, name="out", **changes):
    """(loss, {name: gradient}) of the first step."""
    cfg = cfg_of(tmp_path, start, records, max_steps=1, **changes)
    seen = {}
    with toys.job(cfg, tmp_path / name) as job:
        model, tok = models.load_model(start), models.load_tokenizer(start)
        rows = sft.read_rows(job, tok, cfg.max_length)
        trainer = sft.build(cfg, job, model, tok, data.pack(rows, cfg.max_length) if cfg.packing else rows)
        trainer.add_callback(Gradients(model, seen))
        trainer.run()
        return trainer.metrics.last["loss"], seen


class Gradients(sft.base.TrainerCallback):
    def __init__(self, model, seen):
        self.model, self.seen = model, seen

    def on_pre_optimizer_step(self, args, state, control, **_):
        self.seen.update({n: p.grad.clone() for n, p in self.model.named_parameters()})


def twin(start, records):
    """The mean over all trained tokens of −log p, a row at a time with whole logits, written out."""
    model, tok = models.load_model(start), models.load_tokenizer(start)
    total, count = 0.0, 0
    for record in records:
        ids, labels = sft.encode(tok, record)
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        for t in range(1, len(ids)):
            if labels[t] != -100:
                total, count = total - logp[t - 1, labels[t]], count + 1
    (total / count).backward()
    return total.item() / count, {n: p.grad for n, p in model.named_parameters()}


def same(a, b, tolerance=2e-6):
    assert a[0] == pytest.approx(b[0], abs=tolerance)
    assert a[1].keys() == b[1].keys()
    for name in a[1]:
        assert torch.allclose(a[1][name], b[1][name], atol=tolerance, rtol=1e-4), name


def test_loss_and_gradient_equal_the_twin_whatever_the_micro_batches(tmp_path, start):
    records = toys.chats(8)
    expected = twin(start, records)
    for micro in (8, 3, 2, 1):
        same(one_step(tmp_path, start, records, f"m{micro}", micro_batch_size=micro), expected)


def test_loss_and_gradient_equal_trl(tmp_path, start):
    """The same rows through TRL's own trainer, collator and loss."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    records = toys.chats(8)
    model, tok = models.load_model(start), models.load_tokenizer(start)
    encoded = [sft.encode(tok, r) for r in records]
    columns = Dataset.from_dict({"input_ids": [e[0] for e in encoded], "labels": [e[1] for e in encoded]})
    args = SFTConfig(str(tmp_path / "trl"), bf16=False, use_cpu=True, max_steps=1, per_device_train_batch_size=8,
                     max_length=None, max_grad_norm=0.0, report_to="none", save_strategy="no", disable_tqdm=True,
                     dataset_kwargs={"skip_prepare_dataset": True})
    seen = {}
    trainer = SFTTrainer(model, args, train_dataset=columns, processing_class=tok, callbacks=[Gradients(model, seen)])
    loss = trainer.train().training_loss
    same((loss, seen), one_step(tmp_path, start, records))


def test_packed_equals_separate(tmp_path, start):
    records = toys.chats(8)
    packed = one_step(tmp_path, start, records, "packed", packing=True, max_length=64, batch_size=3, micro_batch_size=2)
    rows = pack_of(start, records, 64)
    assert len(rows) == 3 and max(len(r.lengths) for r in rows) > 1
    same(packed, twin(start, records))


def pack_of(start, records, window):
    tok = models.load_tokenizer(start)
    return data.pack([data.row(*sft.encode(tok, r), window)[0] for r in records], window)


def test_packing_loses_no_token_and_fills_windows(start):
    records = toys.chats(60)
    tok = models.load_tokenizer(start)
    rows = [data.row(*sft.encode(tok, r), 64)[0] for r in records]
    windows = data.pack(rows, 64)
    assert sum(len(w.input_ids) for w in windows) == sum(len(r.input_ids) for r in rows)
    assert all(len(w.input_ids) <= 64 and sum(w.lengths) == len(w.input_ids) for w in windows)
    documents = sorted(tuple(d) for w in windows for d in torch.tensor(w.input_ids).split(list(w.lengths)) for d in [d.tolist()])
    assert documents == sorted(tuple(r.input_ids.tolist()) for r in rows)
    assert len(windows) <= math.ceil(1.1 * sum(len(r.input_ids) for r in rows) / 64)


def test_fused_head_of_trl_gives_the_same(tmp_path, start, monkeypatch):
    """The path of GPUs and of unusual heads."""
    from pt_tools.trainers import head

    expected = one_step(tmp_path, start, toys.chats(8), "plain")
    monkeypatch.setattr(head, "plain", lambda model: False)
    same(one_step(tmp_path, start, toys.chats(8), "fused", micro_batch_size=3), expected)


def test_padding_changes_nothing(start):
    model, tok = models.load_model(start).eval(), models.load_tokenizer(start)
    row, _ = data.row(*sft.encode(tok, toys.chat("Hi", "Yes")), 64)
    long, _ = data.row(*sft.encode(tok, toys.chat("Hi", "Yes" * 12)), 64)
    alone, padded = data.collate([row], 0), data.collate([row, long], 7)
    n = len(row.input_ids)
    with torch.no_grad():
        a = model(input_ids=alone["input_ids"]).logits[0]
        b = model(input_ids=padded["input_ids"]).logits[0, :n]
    assert torch.allclose(a, b, atol=1e-5)
    assert (padded["labels"][0, n:] == -100).all()


def test_rows_are_accounted_for(tmp_path, start):
    records = [toys.chat("Hi", "Yes"), {"text": "abc"}, {"prompt": "2+2=", "completion": "4"},
               {"prompt": [{"role": "user", "content": "Hi"}], "completion": "Yes"},
               toys.chat("Hi", "long " * 20),                                            # cut
               toys.chat("x" * 60, "Yes"),                                               # cut before its answer
               {"chosen": "a b", "rejected": "a c"}, {"messages": "Hi"},                 # bad
               {**toys.chat("Hi", "Yes"), "weight": 0.5}]
    with toys.job(cfg_of(tmp_path, start, records, on_error="skip"), tmp_path / "out") as job:
        rows = sft.read_rows(job, models.load_tokenizer(start), 40)
        assert job.rows.n == {"in": 9, "out": 5, "dropped": 1, "truncated": 1, "masked": 0, "errored": 3}
        assert job.rows.reasons["dropped: no trained token within 40"] == 1
        assert job.rows.reasons["truncated: longer than 40 tokens"] == 1
        assert [len(r.input_ids) for r in rows][-1] == 40 and len(rows) == 5
    with toys.job(cfg_of(tmp_path, start, records), tmp_path / "other") as job:
        with pytest.raises(BadData) as err:
            sft.read_rows(job, models.load_tokenizer(start), 40)
        assert str(err.value).startswith(f"{tmp_path / 'rows.jsonl'}:7: ")


def test_a_whole_run_sees_every_row_and_publishes_a_model_that_loads(tmp_path, start):
    cfg = cfg_of(tmp_path, start, toys.chats(11), epochs=2.0, batch_size=4, micro_batch_size=2)
    with toys.job(cfg, tmp_path / "out") as job:
        sft.train(cfg, job)
        lines = [json.loads(line) for line in (job.out.stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
        assert [line["epoch"] for line in lines] == [round(n / 11, 6) for n in (4, 8, 12, 16, 20, 22)]
        assert job.final["steps"] == 6 and job.final["loss"] == lines[-1]["loss"]
        names = {p.name for p in job.out.stage.rglob("*")} | {p.name for p in job.out.run.rglob("*")}
        assert not [n for n in names if n.endswith((".bin", ".pt", ".pth", ".pkl")) or n == "README.md"]
        models.load_model(str(job.out.stage)), models.load_tokenizer(str(job.out.stage))


def test_training_learns(tmp_path, start):
    cfg = cfg_of(tmp_path, start, [toys.chat("Hi", "Yes.")] * 16, epochs=20.0, lr=1e-2, batch_size=8)
    with toys.job(cfg, tmp_path / "out") as job:
        sft.train(cfg, job)
        assert job.final["loss"] < 0.1


def test_from_scratch_draws_the_weights_from_the_seed(tmp_path):
    blank = tmp_path / "blank"
    toys.save(blank)
    (blank / "model.safetensors").unlink()
    weights = []
    for seed in (0, 0, 1):
        cfg = cfg_of(tmp_path, str(blank), toys.chats(4), from_scratch=True, seed=seed, max_steps=1)
        with toys.job(cfg, tmp_path / f"out{len(weights)}") as job:
            sft.train(cfg, job)
            weights.append(safetensors.torch.load_file(str(job.out.stage / "model.safetensors")))
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])
    assert not torch.equal(weights[0]["model.embed_tokens.weight"], weights[2]["model.embed_tokens.weight"])
    with pytest.raises(BadModel, match="--from-scratch"):
        models.load_model(str(blank))
    with pytest.raises(Usage, match="holds weights already"):
        models.from_config(toys.save(tmp_path / "full"), 0)


@pytest.mark.parametrize("where", ["used", "unused"])
def test_a_nan_anywhere_in_the_start_model_ends_the_run_with_nothing_saved(tmp_path, start, where):
    model = models.load_model(start)
    row = 95 if where == "unused" else models.load_tokenizer(start)("S")["input_ids"][0]
    model.model.embed_tokens.weight.data[row, 0] = math.nan
    with pytest.raises(Diverged, match="embed_tokens"):
        toys.save(tmp_path / "bad", model)
    model.save_pretrained(start)
    cfg = cfg_of(tmp_path, start, toys.chats(4))
    with toys.job(cfg, tmp_path / "out") as job, pytest.raises(Diverged, match="embed_tokens"):
        sft.train(cfg, job)
    assert not list((tmp_path / "out.run").rglob("*.safetensors"))


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_step_that_is_not_finite_updates_and_saves_nothing(tmp_path, start, poison):
    cfg = cfg_of(tmp_path, start, toys.chats(24), max_steps=6, micro_batch_size=4, save_every=2)
    with toys.job(cfg, tmp_path / "out") as job:
        model, tok = models.load_model(start), models.load_tokenizer(start)
        trainer = sft.build(cfg, job, model, tok, sft.read_rows(job, tok, 64))
        before = {}
        inner = trainer.compute_loss

        def compute_loss(*args, **kwargs):
            loss = inner(*args, **kwargs)
            if trainer.state.global_step == 3:
                before.update({n: p.detach().clone() for n, p in model.named_parameters()})
                # sqrt has an infinite gradient at 0
                loss = loss * math.nan if poison == "loss" else loss + (loss * 0).abs().sqrt()
            return loss

        trainer.compute_loss = compute_loss
        with pytest.raises(Diverged, match="loss is not finite at step 4" if poison == "loss" else "gradient norm"):
            trainer.run()
        assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
        assert [p.name for p in job.out.checkpoints.iterdir()] == ["checkpoint-2"]
        assert len(trainer.metrics.path.read_text().splitlines()) == 3


def test_a_tensor_that_turns_nan_unseen_is_caught_when_saving(tmp_path, start):
    cfg = cfg_of(tmp_path, start, toys.chats(24), max_steps=6, save_every=4)
    with toys.job(cfg, tmp_path / "out") as job:
        model, tok = models.load_model(start), models.load_tokenizer(start)
        trainer = sft.build(cfg, job, model, tok, sft.read_rows(job, tok, 64))
        model.register_buffer("spare", torch.tensor([math.inf]))
        with pytest.raises(Diverged, match="spare"):
            trainer.run()
        assert not job.out.checkpoints.exists() or not list(job.out.checkpoints.iterdir())


def test_a_tokenizer_without_an_end_is_refused_and_a_template_without_one_is_said(tmp_path, start, capsys):
    with toys.job(cfg_of(tmp_path, start, [], quiet=False), tmp_path / "out") as job:
        with pytest.raises(BadModel, match="end-of-text"):
            sft.check_tokenizer(job, toys.tokenizer(eos_token=None))
        sft.check_tokenizer(job, toys.tokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}"))
        assert "ends no assistant turn" in capsys.readouterr().err
    stop.clear()


@pytest.mark.parametrize("kind, apart", [("llama", True), ("gpt2", True), ("opt", False), ("bloom", False)])
def test_packing_is_refused_where_documents_would_see_each_other(kind, apart):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"llama": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32},
             "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 4},
             "opt": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "ffn_dim": 32,
                     "word_embed_proj_dim": 32},
             "bloom": {"hidden_size": 32, "n_layer": 1, "n_head": 4}}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=102, **sizes[kind])).train()
    if apart:
        sft.check_packing(model)
        assert model.training
    else:
        with pytest.raises(BadModel, match="kept apart"):
            sft.check_packing(model)


def test_an_optimizer_that_is_not_installed_is_a_usage_error(tmp_path, start):
    cfg = cfg_of(tmp_path, start, toys.chats(4), max_steps=1, set=("optim=galore_adamw",))
    with toys.job(cfg, tmp_path / "out") as job, pytest.raises(Usage, match="--set.*galore_torch"):
        sft.train(cfg, job)


def test_a_model_with_fewer_embeddings_than_its_tokenizer_uses_is_refused(tmp_path):
    start = toys.save(tmp_path / "small", toys.llama(vocab_size=40))
    cfg = cfg_of(tmp_path, start, toys.chats(4), max_steps=1)
    with toys.job(cfg, tmp_path / "out") as job, pytest.raises(BadModel, match="has no embedding"):
        sft.train(cfg, job)


@pytest.mark.parametrize("settings", [{"temperature": 0.6, "top_p": 0.9}, {"num_beams": 1, "length_penalty": 2.0}])
def test_generation_settings_that_cannot_be_written_do_not_cost_the_trained_model(tmp_path, start, settings):
    settings = {"do_sample": False, "eos_token_id": [1, 5], **settings}
    (tmp_path / "start" / "generation_config.json").write_text(json.dumps(settings))
    cfg = cfg_of(tmp_path, start, toys.chats(4), max_steps=1)
    with toys.job(cfg, tmp_path / "out") as job:
        sft.train(cfg, job)
        assert models.load_model(str(job.out.stage)).generation_config.eos_token_id == [1, 5]
