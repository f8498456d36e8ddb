"""Adapters: baked, concatenated, extracted, beside float64 twins that hold whole matrices."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pt_tools.errors import BadModel, Usage
from pt_tools.merge import build, engine, lora, lora_make, methods
from pt_tools.merge.plan import Source
from pt_tools.merge.spec import Part, Ref, Slice, Spec

SHAPES = {"model.embed_tokens.weight": (40, 24), "model.layers.0.self_attn.q_proj.weight": (24, 24),
          "model.layers.0.self_attn.q_proj.bias": (24,), "model.layers.0.mlp.up_proj.weight": (56, 24),
          "model.layers.10.mlp.up_proj.weight": (56, 24), "model.norm.weight": (24,), "lm_head.weight": (40, 24)}
Q, UP, UP10 = (f"model.layers.{n}" for n in ("0.self_attn.q_proj", "0.mlp.up_proj", "10.mlp.up_proj"))


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def base(tmp_path):
    return model(tmp_path / "base", {name: draw(i, *shape) for i, (name, shape) in enumerate(SHAPES.items())})


def model(path, tensors, **config):
    path.mkdir()
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"tie_word_embeddings": False, "vocab_size": 40, **config}))
    return path


def adapter(path, parts, **config):
    path.mkdir()
    save_file({"base_model.model." + name: np.ascontiguousarray(t) for name, t in parts.items()},
              path / "adapter_model.safetensors")
    given = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", **config}
    (path / "adapter_config.json").write_text(json.dumps(given))
    return path


def pair(module, out, ins, rank=4, seed=0):
    return {f"{module}.lora_A.weight": draw(100 + seed, rank, ins),
            f"{module}.lora_B.weight": draw(200 + seed, out, rank)}


def product(parts, module):
    return parts[f"{module}.lora_B.weight"].astype(np.float64) @ parts[f"{module}.lora_A.weight"].astype(np.float64)


def baked(tmp_path, base, *adapters, threads=1, shard=10**9, name="out"):
    plan, config = lora.bake(base, adapters, shard_size=shard)
    engine.run(plan, tmp_path / name, tmp_path / (name + ".run"), threads=threads)
    (tmp_path / name / "config.json").write_text(json.dumps(config))
    return {k: v for file in sorted((tmp_path / name).glob("*.safetensors")) for k, v in load_file(file).items()}


def close(ours, twin):
    np.testing.assert_allclose(ours, twin, rtol=2e-6, atol=2e-6 * np.abs(twin).max())


@pytest.mark.parametrize("more, scale", [({}, 6 / 4), ({"use_rslora": True}, 6 / 2), ({"lora_alpha": 5}, 5 / 4)])
def test_bake(tmp_path, base, more, scale):
    parts = pair(Q, 24, 24) | pair(UP, 56, 24, seed=1)
    out, old = baked(tmp_path, base, adapter(tmp_path / "a", parts, **more)), load_file(base / "model.safetensors")
    for module in (Q, UP):
        close(out[module + ".weight"], old[module + ".weight"] + scale * product(parts, module))
    for name in old.keys() - {Q + ".weight", UP + ".weight"}:
        assert out[name].tobytes() == old[name].tobytes()
    assert out.keys() == old.keys()


def test_patterns_match_the_end_of_a_name_from_a_dot_on(tmp_path, base):
    parts = pair(Q, 24, 24, rank=2) | pair(UP, 56, 24, seed=1, rank=3) | pair(UP10, 56, 24, seed=2)
    given = adapter(tmp_path / "a", parts, rank_pattern={"q_.*": 2, "0.mlp.up_proj": 3, "up_proj": 4},
                    alpha_pattern={"proj": 100, r"layers\.\d+\.mlp\..*": 9})
    out, old = baked(tmp_path, base, given), load_file(base / "model.safetensors")
    for module, scale in ((Q, 6 / 2), (UP, 9 / 3), (UP10, 9 / 4)):
        close(out[module + ".weight"], old[module + ".weight"] + scale * product(parts, module))


def test_dora_divides_by_the_norm_over_the_input(tmp_path, base):
    magnitude = np.abs(draw(5, 56)) + 1
    parts = pair(UP, 56, 24) | {f"{UP}.lora_magnitude_vector": magnitude}
    out = baked(tmp_path, base, adapter(tmp_path / "a", parts, use_dora=True))
    old = load_file(base / "model.safetensors")
    moved = old[UP + ".weight"] + 1.5 * product(parts, UP)
    close(out[UP + ".weight"], magnitude[:, None] * moved / np.linalg.norm(moved, axis=1, keepdims=True))


def test_dora_of_an_embedding_and_on_top_of_another_adapter(tmp_path, base):
    magnitude = np.abs(draw(5, 24)) + 1
    a, b, name = draw(6, 4, 40), draw(7, 24, 4), "model.embed_tokens"
    first = {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
    plain = adapter(tmp_path / "a", first)
    dora = adapter(tmp_path / "b", first | {f"{name}.lora_magnitude_vector": magnitude}, use_dora=True)
    out, old = baked(tmp_path, base, plain, dora), load_file(base / "model.safetensors")
    moved = old[name + ".weight"] + 2 * 1.5 * (b.astype(np.float64) @ a).T
    close(out[name + ".weight"], magnitude * moved / np.linalg.norm(moved, axis=0, keepdims=True))


@pytest.mark.parametrize("dora", [False, True])
def test_layers_stored_as_in_by_out(tmp_path, dora):
    old = model(tmp_path / "base", {"h.0.c_attn.weight": draw(1, 24, 56), "h.0.c_proj.weight": draw(2, 24, 24)})
    magnitude = np.abs(draw(5, 56)) + 1
    parts = pair("h.0.c_attn", 56, 24)
    if dora:
        parts["h.0.c_attn.lora_magnitude_vector"] = magnitude
    else:
        parts |= pair("h.0.c_proj", 24, 24, seed=1)
    given = adapter(tmp_path / "a", parts, fan_in_fan_out=True, use_dora=dora)
    out, old = baked(tmp_path, old, given), load_file(old / "model.safetensors")
    moved = old["h.0.c_attn.weight"] + 1.5 * product(parts, "h.0.c_attn").T
    close(out["h.0.c_attn.weight"], magnitude * moved / np.linalg.norm(moved, axis=0) if dora else moved)
    if not dora:
        close(out["h.0.c_proj.weight"], old["h.0.c_proj.weight"] + 1.5 * product(parts, "h.0.c_proj").T)


def test_whole_modules_biases_and_tokens(tmp_path, base):
    parts = pair(Q, 24, 24) | {f"{Q}.lora_B.bias": draw(8, 24), "model.norm.weight": draw(9, 24),
                               "lm_head.modules_to_save.weight": draw(10, 40, 24),
                               "model.embed_tokens.token_adapter.trainable_tokens_delta": draw(11, 2, 24)}
    given = adapter(tmp_path / "a", parts, lora_bias=True, trainable_token_indices=[39, 3])
    out, old = baked(tmp_path, base, given), load_file(base / "model.safetensors")
    close(out[Q + ".bias"], old[Q + ".bias"] + 1.5 * parts[f"{Q}.lora_B.bias"])
    assert out["model.norm.weight"].tobytes() == parts["model.norm.weight"].tobytes()
    assert out["lm_head.weight"].tobytes() == parts["lm_head.modules_to_save.weight"].tobytes()
    rows = old["model.embed_tokens.weight"].copy()
    rows[[39, 3]] = parts["model.embed_tokens.token_adapter.trainable_tokens_delta"]
    assert out["model.embed_tokens.weight"].tobytes() == rows.tobytes()


def tied(tmp_path):
    tensors = {n: draw(i, *s) for i, (n, s) in enumerate(SHAPES.items()) if n != "lm_head.weight"}
    return model(tmp_path / "tied", tensors, tie_word_embeddings=True), tensors


def test_a_tied_head_stays_tied_unless_one_side_changes(tmp_path):
    base, old = tied(tmp_path)
    head = baked(tmp_path, base, adapter(tmp_path / "a", pair("lm_head", 40, 24)), name="head")
    embedding = "model.embed_tokens.weight"
    close(head["lm_head.weight"], old[embedding] + 1.5 * product(pair("lm_head", 40, 24), "lm_head"))
    assert head[embedding].tobytes() == old[embedding].tobytes()
    assert json.loads((tmp_path / "head" / "config.json").read_text())["tie_word_embeddings"] is False
    both = {"model.embed_tokens.weight": draw(3, 48, 24), "lm_head.weight": draw(3, 48, 24)}
    out = baked(tmp_path, base, adapter(tmp_path / "b", both), name="both")
    config = json.loads((tmp_path / "both" / "config.json").read_text())
    assert "lm_head.weight" not in out and out[embedding].tobytes() == both[embedding].tobytes()
    assert config["tie_word_embeddings"] is True and config["vocab_size"] == 48


@pytest.mark.parametrize("rows", [None, [3, -1, 0, 39, 39, 7]])
def test_any_piece_of_a_tensor_is_the_same(tmp_path, base, rows):
    """Blocks may begin and end inside rows, and rows may be gathered."""
    magnitude, a, b = np.abs(draw(5, 24)) + 1, draw(6, 4, 40), draw(7, 24, 4)
    parts = {"model.embed_tokens.lora_embedding_A": a, "model.embed_tokens.lora_embedding_B": b,
             "model.embed_tokens.lora_magnitude_vector": magnitude}
    given = lora.Adapter(adapter(tmp_path / "a", parts, use_dora=True))
    store = lora.tensors.Checkpoint(base)
    sources, _ = lora.adapted({n: Source(t) for n, t in store.tensors.items()}, given, store.config)
    old, delta = store.load("model.embed_tokens.weight"), sources["model.embed_tokens.weight"].delta
    moved = old + 1.5 * (b.astype(np.float64) @ a).T
    wanted = magnitude * moved / np.linalg.norm(moved, axis=0)
    index = None if rows is None else np.array(rows)
    if rows is not None:
        old, wanted = (np.where(index[:, None] < 0, 0, t[index]) for t in (old, wanted))
    for start, count in ((0, old.size), (5, 30), (24, 48), (30, 7), (40, 60)):
        block = old.reshape(-1)[start:start + count].astype(np.float32)
        delta.add(block, start, index)
        close(block, wanted.reshape(-1)[start:start + count])


def test_bytes_do_not_depend_on_threads_or_shards(tmp_path):
    old = model(tmp_path / "base", {f"l.{i}.up_proj.weight": draw(i, 700, 500).astype(np.float16) for i in range(3)})
    parts = {k: v for i in range(3) for k, v in pair(f"l.{i}.up_proj", 700, 500, seed=i).items()}
    parts |= {f"l.{i}.up_proj.lora_magnitude_vector": np.abs(draw(i, 700)) for i in range(3)}
    given = adapter(tmp_path / "a", parts, use_dora=True)
    first = baked(tmp_path, old, given, name="one")
    for threads, shard in ((2, 10**9), (2, 800_000), (1, 800_000)):
        again = baked(tmp_path, old, given, threads=threads, shard=shard, name=f"t{threads}s{shard}")
        assert {k: v.tobytes() for k, v in again.items()} == {k: v.tobytes() for k, v in first.items()}


def test_names_with_a_longer_or_shorter_prefix(tmp_path, base):
    old = load_file(base / "model.safetensors")
    short, long = pair("layers.0.mlp.up_proj", 56, 24), pair("outer." + UP, 56, 24)
    for name, parts, module in (("a", short, "layers.0.mlp.up_proj"), ("b", long, "outer." + UP)):
        out = baked(tmp_path, base, adapter(tmp_path / name, parts), name="out" + name)
        close(out[UP + ".weight"], old[UP + ".weight"] + 1.5 * product(parts, module))


REFUSED = [
    (pair("model.layers.7.mlp.up_proj", 56, 24), {}, "model.layers.7.mlp.up_proj matches no tensor"),
    (pair(UP, 56, 23), {}, r"its change is 56 × 23, the base's tensor \[56, 24\]"),
    (pair(UP, 56, 24, rank=5), {}, "says rank 4"),
    ({"x.vera_lambda_b": draw(0, 4)}, {}, "x.vera_lambda_b is of a kind"),
    ({f"{UP}.lora_A.weight": draw(0, 4, 24)}, {}, "has no lora_B"),
    (pair(UP, 56, 24), {"peft_type": "LOHA"}, "peft_type LOHA"),
    (pair(UP, 56, 24), {"use_dora": True}, "magnitude vector goes with use_dora"),
    (pair(UP, 56, 24), {"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 changed the base"),
    (pair(UP, 56, 24), {"target_parameters": ["w"]}, "target_parameters"),
    (pair(UP, 56, 24) | {f"{UP}.lora_B.bias": draw(0, 56)}, {}, "the base has none"),
    ({"model.other.weight": draw(0, 24)}, {}, "model.other.weight replaces no tensor"),
    ({"model.norm.weight": draw(0, 25)}, {}, r"model.norm.weight: shape \[25\], in the base \[24\]"),
    (pair("up_proj", 56, 24), {}, "up_proj.weight could be"),
]


@pytest.mark.parametrize("parts, config, words", REFUSED, ids=range(len(REFUSED)))
def test_refusals(tmp_path, base, parts, config, words):
    given = adapter(tmp_path / "a", parts, **config)
    with pytest.raises(BadModel, match=words):
        lora.bake(base, [given])


def test_pickle_and_no_adapter(tmp_path, base):
    with pytest.raises(Usage, match="no adapter directory"):
        lora.bake(base, [base])
    given = adapter(tmp_path / "a", pair(UP, 56, 24))
    (given / "adapter_model.safetensors").rename(given / "adapter_model.bin")
    with pytest.raises(BadModel, match="pickle"):
        lora.bake(base, [given])


def test_adapters_in_a_merge(tmp_path, base):
    """MODEL+ADAPTER beside a plain model: as if it had been baked first, but with one rounding."""
    parts = pair(UP, 56, 24)
    given = adapter(tmp_path / "a", parts)
    spec = Spec("linear", (Slice((Part(Ref(str(base), str(given))), Part(Ref(str(base))))),),
                settings={"weight": (("", 1.0),)})
    built = build.build(spec, methods.get("linear"), shard_size=10**9, seed=0)
    engine.run(built.plan, tmp_path / "out", tmp_path / "run")
    out, old = load_file(tmp_path / "out" / "model.safetensors"), load_file(base / "model.safetensors")
    close(out[UP + ".weight"], old[UP + ".weight"] + 1.5 / 2 * product(parts, UP))
    assert built.plan.items and out["model.norm.weight"].tobytes() == old["model.norm.weight"].tobytes()


# --- concatenation ------------------------------------------------------------------------------------------------


def test_a_concatenation_is_the_weighted_sum_of_changes(tmp_path, base):
    one = pair(Q, 24, 24, rank=2) | pair(UP, 56, 24, seed=1)
    two = pair(Q, 24, 24, rank=8, seed=2) | pair(UP10, 56, 24, rank=8, seed=3)
    paths = [adapter(tmp_path / "a", one, rank_pattern={"q_proj": 2}),
             adapter(tmp_path / "b", two, r=8, lora_alpha=3, use_rslora=True)]
    made = lora_make.concatenate(paths, [0.7, -1.3], tmp_path / "cat")
    assert made == {"modules": 3, "rank": 10}
    out, old = baked(tmp_path, base, tmp_path / "cat"), load_file(base / "model.safetensors")
    first, second = 0.7 * 6, -1.3 * 3 / np.sqrt(8)
    wanted = {Q: first / 2 * product(one, Q) + second * product(two, Q), UP: first / 4 * product(one, UP),
              UP10: second * product(two, UP10)}
    stored = load_file(tmp_path / "cat" / "adapter_model.safetensors")
    for module, delta in wanted.items():
        a, b = (stored[f"base_model.model.{module}.lora_{part}.weight"].astype(np.float64) for part in "AB")
        assert np.abs(b @ a - delta).max() < 1e-6 * np.abs(delta).max()
        close(out[module + ".weight"], old[module + ".weight"] + delta)
    config = json.loads((tmp_path / "cat" / "adapter_config.json").read_text())
    assert {config["rank_pattern"].get(m, config["r"]) for m in (Q, UP, UP10)} == {10, 4, 8}
    assert config["rank_pattern"] == config["alpha_pattern"] and config["r"] == config["lora_alpha"]


@pytest.mark.parametrize("more, config, words", [
    ({f"{UP}.lora_magnitude_vector": draw(1, 56)}, {"use_dora": True}, "DoRA adapters cannot"),
    ({"model.norm.weight": draw(1, 24)}, {}, "model.norm.weight replaces a tensor"),
    ({}, {"fan_in_fan_out": True}, "fan_in_fan_out differs")])
def test_what_cannot_be_concatenated(tmp_path, more, config, words):
    paths = [adapter(tmp_path / "a", pair(UP, 56, 24)), adapter(tmp_path / "b", pair(UP, 56, 24) | more, **config)]
    with pytest.raises(BadModel, match=words):
        lora_make.concatenate(paths, [1, 1], tmp_path / "cat")
    with pytest.raises(Usage, match="1 weights for 2"):
        lora_make.concatenate(paths, [1], tmp_path / "cat")


# --- extraction ---------------------------------------------------------------------------------------------------


def tuned(tmp_path, base, change, **config):
    old = load_file(base / "model.safetensors")
    return model(tmp_path / "tuned", {n: (t + change.get(n, 0)).astype(np.float32) for n, t in old.items()}, **config)


def test_extraction_recovers_a_change_of_low_rank(tmp_path, base):
    parts = pair(Q, 24, 24, rank=3)
    new = tuned(tmp_path, base, {Q + ".weight": 0.01 * product(parts, Q), "model.norm.weight": 0.5})
    rows = []
    made = lora_make.extract(base, new, tmp_path / "a", rank=3, report=rows.append)
    assert made["modules"] == 1 and made["rank"] == 3 and made["whole"] == 1 and made["energy"] > 1 - 1e-9
    assert [(row["tensor"], row["rank"]) for row in rows] == [(Q + ".weight", 3), ("model.norm.weight", None)]
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj"] and config["modules_to_save"] == ["model.norm"]
    out, wanted = baked(tmp_path, base, tmp_path / "a"), load_file(new / "model.safetensors")
    for name in wanted:
        np.testing.assert_allclose(out[name], wanted[name], atol=1e-6)


def test_extraction_at_full_rank_bakes_to_the_tuned_model(tmp_path, base):
    """Also embeddings, biases beside a matrix, and only one of two modules that have the same last name."""
    change = {name: 0.02 * draw(50 + i, *shape) for i, (name, shape) in enumerate(SHAPES.items()) if ".10." not in name}
    new = tuned(tmp_path, base, change)
    lora_make.extract(base, new, tmp_path / "a", energy=1.0)
    out, wanted = baked(tmp_path, base, tmp_path / "a"), load_file(new / "model.safetensors")
    for name in wanted:
        np.testing.assert_allclose(out[name], wanted[name], atol=2e-6)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert UP in config["target_modules"] and UP10 not in config["target_modules"] and config["bias"] == "all"


def test_energy_is_the_share_of_the_squared_singular_values(tmp_path, base):
    change = 0.1 * draw(60, 56, 24)
    new = tuned(tmp_path, base, {UP + ".weight": change})
    delta = np.subtract(*(load_file(path / "model.safetensors")[UP + ".weight"] for path in (new, base)))
    squares = np.linalg.svd(delta.astype(np.float64), compute_uv=False) ** 2
    share = np.cumsum(squares) / squares.sum()
    rows = []
    lora_make.extract(base, new, tmp_path / "a", energy=0.6, report=rows.append)
    rank = int(np.argmax(share >= 0.6)) + 1
    assert rows[0]["rank"] == rank and rows[0]["energy"] == pytest.approx(share[rank - 1], rel=1e-6)
    lora_make.extract(base, new, tmp_path / "b", energy=0.6, rank=2, report=rows.append)
    assert rows[1]["rank"] == 2 and rows[1]["energy"] == pytest.approx(share[1], rel=1e-6)
    parts = load_file(tmp_path / "b" / "adapter_model.safetensors")
    left = delta - product({k.removeprefix("base_model.model."): v for k, v in parts.items()}, UP)
    assert np.square(left).sum() == pytest.approx(squares[2:].sum(), rel=1e-4)


def test_large_matrices_are_decomposed_without_being_held(tmp_path):
    shape, scale = (1100, 1200), 0.7 ** np.arange(40)
    u, v = (np.linalg.qr(draw(i, n, 40).astype(np.float64))[0] for i, n in enumerate(shape))
    old = model(tmp_path / "base", {"l.up.weight": np.zeros(shape, np.float32)})
    new = model(tmp_path / "tuned", {"l.up.weight": ((u * scale) @ v.T).astype(np.float32)})
    rows, squares = [], np.cumsum(scale ** 2) / np.sum(scale ** 2)
    lora_make.extract(old, new, tmp_path / "a", rank=6, report=rows.append)
    lora_make.extract(old, new, tmp_path / "b", energy=0.999, report=rows.append)
    assert rows[0]["energy"] == pytest.approx(squares[5], rel=1e-5)
    assert rows[1]["rank"] == int(np.argmax(squares >= 0.999)) + 1
    first = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    lora_make.extract(old, new, tmp_path / "c", rank=6)
    assert (tmp_path / "c" / "adapter_model.safetensors").read_bytes() == first


def test_models_that_cannot_be_compared(tmp_path, base):
    with pytest.raises(Usage, match="does not differ"):
        lora_make.extract(base, base, tmp_path / "a", rank=2)
    with pytest.raises(Usage, match="--rank or --energy"):
        lora_make.extract(base, base, tmp_path / "a")
    old = load_file(base / "model.safetensors")
    wider = model(tmp_path / "w", old | {"lm_head.weight": draw(1, 41, 24)})
    with pytest.raises(BadModel, match=r"lm_head.weight is \[41, 24\], in the base \[40, 24\]"):
        lora_make.extract(base, wider, tmp_path / "a", rank=2)


# --- a real model -------------------------------------------------------------------------------------------------


def test_a_baked_model_computes_what_its_adapter_adds(tmp_path, policy):
    """Logits of the baked directory beside the base with x ↦ Wx + s·B(Ax) hooked into its layers."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    modules = {n: m for n, m in net.named_modules() if re.search("([qv]|up)_proj$", n)}
    parts = {}
    for i, (name, module) in enumerate(modules.items()):
        parts |= {k: 0.05 * v for k, v in pair(name, module.out_features, module.in_features, seed=i).items()}
    tokens = torch.arange(20)[None] % net.config.vocab_size
    with torch.no_grad():
        before = net(tokens).logits
        for name, module in modules.items():
            a, b = (torch.from_numpy(parts[f"{name}.lora_{p}.weight"]) for p in "AB")
            module.register_forward_hook(lambda m, x, y, a=a, b=b: y + 1.5 * (x[0] @ a.T @ b.T))
        wanted = net(tokens).logits
    shutil.copytree(policy, tmp_path / "base")
    baked(tmp_path, tmp_path / "base", adapter(tmp_path / "a", parts))
    with torch.no_grad():
        got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)(tokens).logits
    stored = next(iter(net.state_dict().values())).dtype
    assert stored == torch.float32 and (wanted - before).abs().max() > 1e-3
    assert (got - wanted).abs().max() < 2e-2 * (wanted - before).abs().max()
