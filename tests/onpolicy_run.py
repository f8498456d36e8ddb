"""A small on-policy run in this process: tiny models, real verifiers, real trainer."""

import hashlib
from types import SimpleNamespace

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pt_tools import models, outdir
from pt_tools.commands.rlvr import Config
from pt_tools.job import Job
from pt_tools.trainers import base, onpolicy, rlvr

OPTIONS = dict(
    model="-", out="-", lr=3e-3, batch_size=8, group_size=4, updates_per_rollout=2, max_steps=14, max_new_tokens=10,
    sample_batch_size=6, save_every=0, threads=1, device="cpu", clip_high=0.28, seed=3, adam_beta2=0.95, quiet=True,
)


def tiny(tokenizer, kind="llama", seed=0, **more):
    """A two-layer model with random weights for a tokenizer."""
    torch.manual_seed(seed)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, **more))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=48, max_position_embeddings=128, initializer_range=0.2, **more,
        )
    )


def words(count, relation="at least"):
    """A verifier that a random model meets about half of the time."""
    return {
        "name": "constraints", "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"relation": relation, "num_words": count}], "mode": "strict",
    }


def tasks(tokenizer, count=10, verifier=None):
    from pt_tools import tokens

    out = []
    for i in range(count):
        prompt = [{"role": "user", "content": "What is " + "1" * (1 + i % 5) + "?"}]
        record = {"id": f"r{i}", "domain": "ab"[i % 2], "prompt": prompt, "verifier": verifier or words(4 + i % 3)}
        out.append(onpolicy.Task(record, record["id"], tokens.encode_prompt(tokenizer, prompt)))
    return out


def trainer(blank, path, make=rlvr.Rlvr, rows=None, model=None, reference=None, **options):
    """A trainer whose scratch lies below `path`."""
    cfg = Config(**OPTIONS | options)
    base.prepare(cfg)
    tokenizer = models.load_tokenizer(str(blank))
    job = Job("pt-rlvr", cfg)
    job.out = outdir.Out(path / "out", None, directory=True)
    job.out.stage.mkdir(parents=True, exist_ok=True)
    rows = rows or tasks(tokenizer)
    prompts = cfg.batch_size // cfg.group_size * cfg.updates_per_rollout
    order = onpolicy.PromptOrder(len(rows), prompts, cfg.updates_per_rollout, cfg.seed, cfg.epochs, cfg.max_steps)
    model = model or tiny(tokenizer)
    if cfg.kl and reference is None:
        reference = tiny(tokenizer, seed=9)
    stops = set(range(tokenizer.eos_token_id, tokenizer.eos_token_id + 25))
    return make(
        model, args=onpolicy.arguments(cfg, job, order), processing_class=tokenizer, data_collator=list,
        train_dataset=rows, job=job, order=order, rows=rows, reference=reference, stop_ids=stops,
    )


def digest(trainer):
    """Every bit of weights and optimizer."""
    found = hashlib.sha256()
    state = trainer.optimizer.state_dict()["state"]
    moments = [state[i][name] for i in sorted(state) for name in sorted(state[i])]
    for tensor in [*trainer.model.state_dict().values(), *moments]:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def metrics(trainer):
    return trainer.metrics.path.read_text()


def namespace(**values):
    return SimpleNamespace(**values)
