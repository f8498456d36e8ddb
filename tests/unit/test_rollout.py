"""Sampling and scoring against naive twins: one row at a time, no cache, no padding."""

import hashlib
import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from pt_tools import noise, rollout, stop
from pt_tools.errors import BadModel, Diverged, Stopped
from pt_tools.rollout import LocalEngine, Prompt, Sampling

VOCAB = 40


def llama(kv_heads=4, **kw):
    torch.manual_seed(0)
    kw = {"max_position_embeddings": 512, "initializer_range": 0.3, **kw}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            intermediate_size=48,
            **kw,
        )
    )


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3)
    )


MODELS = {"llama": llama, "llama-gqa": lambda: llama(kv_heads=2), "gpt2": gpt2}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    yield
    stop.clear()


def prompts(count, low=1, high=12, seed=0, **more):
    rng = np.random.default_rng(seed)
    return [Prompt(f"p{i}", rng.integers(1, VOCAB, rng.integers(low, high + 1)).tolist(), **more) for i in range(count)]


def naive_uniform(key, position):
    mask = (1 << 64) - 1
    z = (key + (position + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 12) / 2**52


def naive_distribution(logits, sampling):
    """Probabilities as a Python list, by the definition in `Sampling`."""
    if sampling.temperature == 0:
        return [float(i == int(logits.argmax())) for i in range(len(logits))]
    p = torch.softmax(logits.double() / sampling.temperature, -1).tolist()
    ranked = sorted(range(len(p)), key=lambda i: -p[i])
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    total = sum(p[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if mass / total >= sampling.top_p:
            break
        kept.append(i)
        mass += p[i]
    return [p[i] / mass if i in kept else 0.0 for i in range(len(p))]


@torch.no_grad()
def naive_sample(model, prompt, stops, sampling, k):
    text = f"{sampling.seed}\0{prompt.visit}\0{prompt.id}\0{k}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    ids, tokens, logps = list(prompt.ids), [], []
    while len(tokens) < sampling.max_new_tokens:
        logits = model.eval()(torch.tensor([ids])).logits[0, -1]
        p = naive_distribution(logits, sampling)
        target, mass, token = naive_uniform(key, len(tokens)), 0.0, None
        for i, share in enumerate(p):
            mass += share
            if mass > target:
                token = i
                break
        full = torch.log_softmax(logits.double(), -1)
        tokens.append(token)
        logps.append(math.log(p[token]) if sampling.temperature else float(full[token]))
        ids.append(token)
        if token in stops:
            return tokens, logps, "stop"
    return tokens, logps, "length"


SETTINGS = [
    Sampling(max_new_tokens=12, seed=3),
    Sampling(temperature=0.6, top_p=0.8, max_new_tokens=12),
    Sampling(temperature=1.3, top_k=5, top_p=0.9, max_new_tokens=12),
    Sampling(temperature=0.0, max_new_tokens=12),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampling", SETTINGS, ids=["plain", "top-p", "top-k-p", "greedy"])
@pytest.mark.parametrize("batch", [100, 5])
def test_equals_the_naive_sampler(name, sampling, batch):
    model, stops = MODELS[name](), {0, 7, 8, 9}
    asked = prompts(7, visit=2, first=1)
    got = LocalEngine(model, stops, 0, batch).sample(asked, 3, sampling)
    assert [len(group) for group in got] == [3] * 7
    for prompt, group in zip(asked, got):
        for k, completion in enumerate(group):
            tokens, logps, finish = naive_sample(model, prompt, stops, sampling, k + 1)
            assert completion.token_ids == tokens
            assert completion.finish == finish
            assert np.allclose(completion.logprobs, logps, atol=1e-5)


def test_group_larger_than_the_batch_and_long_tails_cross_the_buffer():
    """400 tokens outgrow the first buffer; mixed ends force removal, refill, shifting and growth."""
    model, sampling = llama(), Sampling(max_new_tokens=400, seed=5)
    asked = prompts(5, 1, 60)
    got = LocalEngine(model, {1}, 0, 3).sample(asked, 4, sampling)
    lengths = {len(c.token_ids) for group in got for c in group}
    assert len(lengths) > 5 and max(lengths) > 100
    flat = [(p.ids, c) for p, group in zip(asked, got) for c in group]
    scores = rollout.logprobs(model, [p for p, _ in flat], [c.token_ids for _, c in flat])
    for (_, c), score in zip(flat, scores):
        assert np.allclose(c.logprobs, score, atol=2e-5)
        assert (c.finish == "stop") == (c.token_ids[-1] == 1) and 1 not in c.token_ids[:-1]
        assert c.finish == "stop" or len(c.token_ids) == 400


def test_same_call_same_bytes_and_other_keys_other_draws():
    model, asked, sampling = llama(), prompts(4), Sampling(max_new_tokens=8)
    engine = LocalEngine(model, set(), 0, 8)
    first = engine.sample(asked, 2, sampling)
    assert first == engine.sample(asked, 2, sampling)
    tokens = [c.token_ids for group in first for c in group]
    others = [
        engine.sample(prompts(4, visit=1), 2, sampling),
        engine.sample(prompts(4, first=2), 2, sampling),
        engine.sample(asked, 2, Sampling(max_new_tokens=8, seed=1)),
        engine.sample([Prompt(p.id + "x", p.ids) for p in asked], 2, sampling),
    ]
    for other in others:
        assert [c.token_ids for group in other for c in group] != tokens
    assert len({tuple(t) for t in tokens}) == len(tokens)


def test_a_record_does_not_depend_on_its_batch():
    model, asked, sampling = llama(), prompts(9), Sampling(max_new_tokens=10)
    together = LocalEngine(model, {3}, 0, 64).sample(asked, 2, sampling)
    alone = [LocalEngine(model, {3}, 0, 1).sample([p], 2, sampling)[0] for p in asked]
    for a, b in zip(together, alone):
        assert [c.token_ids for c in a] == [c.token_ids for c in b]
        assert all(np.allclose(x.logprobs, y.logprobs, atol=1e-5) for x, y in zip(a, b))


def test_sampled_frequencies_are_the_distribution():
    """20,000 draws of one token: chi-square over 40 cells stays below its 1 - 1e-6 quantile (93.2 at 39 d.f.)."""
    model, prompt = llama(initializer_range=0.02), Prompt("x", [5, 6, 7])
    draws = LocalEngine(model, set(), 0, 4096).sample([prompt], 20000, Sampling(max_new_tokens=1, seed=11))[0]
    counts = np.bincount([c.token_ids[0] for c in draws], minlength=VOCAB)
    expected = 20000 * np.array(naive_distribution(model(torch.tensor([prompt.ids])).logits[0, -1], Sampling()))
    assert ((counts - expected) ** 2 / expected).sum() < 93.2


def test_uniforms_are_uniform_and_below_one():
    keys = np.array([noise.key_of(0, Prompt("r", [1]), k) for k in range(400)], np.uint64)
    u = np.stack([noise.uniforms(keys, np.full(400, t)) for t in range(100)])
    assert 0.0 <= u.min() and u.max() <= 1 - 2.0**-52
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * u.size)
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 5 / math.sqrt(u.size)


def test_context_ends_a_completion_and_refuses_a_prompt_that_fills_it():
    model = llama(max_position_embeddings=16)
    engine = LocalEngine(model, set(), 0, 4)
    got = engine.sample([Prompt("a", [1] * 10), Prompt("b", [2] * 3)], 1, Sampling(max_new_tokens=50))
    assert [(len(g[0].token_ids), g[0].finish) for g in got] == [(6, "length"), (13, "length")]
    with pytest.raises(ValueError, match="16 tokens"):
        engine.sample([Prompt("a", [1] * 16)], 1, Sampling())
    with pytest.raises(ValueError, match="0 tokens"):
        engine.sample([Prompt("a", [])], 1, Sampling())


def test_dropout_and_training_mode_are_left_as_they_were():
    model = gpt2().train()
    before = torch.random.get_rng_state()
    LocalEngine(model, set(), 0, 4).sample(prompts(2), 2, Sampling(max_new_tokens=3))
    assert model.training and torch.equal(before, torch.random.get_rng_state())


def test_non_finite_logits_are_an_error():
    model = llama()
    model.lm_head.weight.data[3, 0] = float("nan")
    with pytest.raises(Diverged):
        LocalEngine(model, set(), 0, 4).sample(prompts(2), 1, Sampling(max_new_tokens=3))


def test_models_with_windows_are_refused():
    model = MistralForCausalLM(
        MistralConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, sliding_window=8)
    )
    with pytest.raises(BadModel):
        LocalEngine(model, set(), 0, 4)


def test_stop_is_polled_every_token(monkeypatch):
    model, calls = llama(), []
    real = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    engine = LocalEngine(model, set(), 0, 4)
    monkeypatch.setattr(rollout.stop, "check", lambda: len(calls) >= 3 and (_ for _ in ()).throw(Stopped("TERM")))
    with pytest.raises(Stopped):
        engine.sample(prompts(3), 1, Sampling(max_new_tokens=50))
    assert len(calls) == 3


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_logprobs_equal_a_plain_forward(name, temperature):
    model = MODELS[name]()
    questions = [p.ids for p in prompts(9)]
    answers = [p.ids for p in prompts(9, 1, 20, seed=1)]
    answers[3] = []
    got = rollout.logprobs(model, questions, answers, temperature)
    for q, a, row in zip(questions, answers, got):
        with torch.no_grad():
            logits = model.eval()(torch.tensor([q + a])).logits[0]
        full = torch.log_softmax(logits.double() / (temperature or 1), -1)
        assert np.allclose(row, [float(full[len(q) - 1 + t, x]) for t, x in enumerate(a)], atol=1e-5)


def test_logprobs_keep_what_a_model_does_to_its_logits():
    """Gemma 2 caps its logits after the head: the selected positions must be capped too."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=None,
        attn_implementation="eager",
        initializer_range=0.5,
    )
    model = Gemma2ForCausalLM(config).eval()
    full = torch.log_softmax(model(torch.tensor([[1, 2, 3, 4]])).logits[0], -1)
    got = rollout.logprobs(model, [[1, 2]], [[3, 4]])
    assert np.allclose(got[0], [float(full[1, 3]), float(full[2, 4])], atol=1e-5)


def test_windows_by_another_name_and_biased_positions_are_refused():
    from transformers import FalconConfig, FalconForCausalLM, GPTNeoConfig, GPTNeoForCausalLM

    local = GPTNeoConfig(vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4,
                         attention_types=[[["global", "local"], 1]])
    biased = FalconConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=True)
    for model in (GPTNeoForCausalLM(local), FalconForCausalLM(biased)):
        with pytest.raises(BadModel):
            LocalEngine(model, set(), 0, 4)
