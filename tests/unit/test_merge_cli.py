"""pt-merge as a process: outputs that load, refusals line by line, dry runs, runs that are done already."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

TIES = ("pt-merge", "ties", "base", "a", "b", "-w", "0.5", "0.5", "--density", "0.5", "-o", "out")


@pytest.fixture
def three(policy, tmp_path):
    """base/, a/ and b/: one model, and two with seeded noise on every tensor."""
    for number, name in enumerate(("base", "a", "b")):
        shutil.copytree(policy, tmp_path / name)
        change(tmp_path / name, lambda key, value, n=number: value + np.float32(0.01 * n) * noise(n, value.shape))
    return tmp_path


def noise(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def change(path, function):
    tensors = {key: function(key, value) for key, value in load_file(path / "model.safetensors").items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, path / "model.safetensors", {"format": "pt"})


def test_linear_is_the_mean_loads_and_generates(pt, three):
    done = pt("pt-merge", "linear", "a", "b", "-w", "0.25", "0.75", "-o", "out", check=0)
    assert done.out == "out\n"
    a, b, out = (load_file(three / name / "model.safetensors") for name in ("a", "b", "out"))
    for name in a:
        assert np.allclose(out[name], np.float32(0.25) * a[name] + np.float32(0.75) * b[name], rtol=1e-6, atol=1e-7)
    from pt_tools import models

    model, tokenizer = models.load_model(three / "out"), models.load_tokenizer(three / "out")
    ids = tokenizer("What is 2 plus 3?", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4, min_new_tokens=4).shape[1] == ids.shape[1] + 4


def test_three_spellings_of_weights_are_one(pt, three):
    for place, words in enumerate((["-w", "0.3", "0.7"], ["-w", "0.3,0.7"], ["-w", "0.3", "-w", "0.7"])):
        pt("pt-merge", "linear", "a", "b", *words, "-o", f"out{place}", check=0)
    files = [(three / f"out{n}" / "model.safetensors").read_bytes() for n in range(3)]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("words", [["linear", "a", "b"], ["greedy_soup", "a", "b", "--evaluate", "sh -c 'echo 1' {}"], ["m.yml"],
                                   ["lora_extract", "a", "b", "--rank", "2"]])
def test_a_merge_imports_nothing_heavy(three, words):
    (three / "m.yml").write_text("merge_method: slerp\nmodels: [{model: a}, {model: b}]\n")
    code = (f"import sys; sys.argv = {['pt-merge', *words, '-o', 'out']!r}\nfrom pt_tools.commands.merge import main\n"
            "try: main()\nexcept SystemExit as end: print(end.code, sorted({'torch', 'transformers', 'scipy', 'safetensors'} "
            "& set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=three, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_done_once_and_again_when_an_input_changes(pt, three):
    pt(*TIES, check=0)
    assert "nothing to do" in pt(*TIES, "--threads", "1", check=0).err
    before = (three / "out" / "model.safetensors").read_bytes()
    change(three / "b", lambda key, value: value * 2)
    assert "nothing to do" not in pt(*TIES, check=0).err
    assert (three / "out" / "model.safetensors").read_bytes() != before


def test_yaml_and_flags_make_the_same(pt, three):
    (three / "m.yml").write_text("merge_method: ties\nbase_model: base\nmodels:\n- model: base\n- model: a\n"
                                 "  parameters: {weight: 0.5, density: 0.5}\n- model: b\n  parameters: {weight: 0.5, density: 0.5}\n")
    pt(*TIES, check=0)
    pt("pt-merge", "m.yml", "-o", "other", check=0)
    assert (three / "out/model.safetensors").read_bytes() == (three / "other/model.safetensors").read_bytes()


def test_dry_run_writes_nothing(pt, three):
    before = sorted(three.iterdir())
    found = json.loads(pt("pt-merge", "slerp", "a", "b", "--param", "self_attn:t=[0,1]", "--param", "t=0.5", "-o", "out",
                          "--dry-run", check=0).out)
    size = sum(value.nbytes for value in load_file(three / "a/model.safetensors").values())
    assert (found["bytes_out"], found["bytes_in"]) == (size, 2 * size) and found["memory"] > 0
    t = {item["name"]: item["shared"]["t"] for item in found["items"]}
    assert t["model.layers.0.self_attn.q_proj.weight"] == 0 and t["model.layers.1.self_attn.q_proj.weight"] == 1
    assert t["model.layers.0.mlp.up_proj.weight"] == 0.5 and sorted(three.iterdir()) == before


def test_layers_are_stacked_and_numbered(pt, three):
    pt("pt-merge", "passthrough", "--layers", "a:0-2", "--layers", "b:1-2", "-o", "out", check=0)
    out, b = load_file(three / "out/model.safetensors"), load_file(three / "b/model.safetensors")
    assert np.array_equal(out["model.layers.2.mlp.up_proj.weight"], b["model.layers.1.mlp.up_proj.weight"])
    config = json.loads((three / "out/config.json").read_text())
    assert config["num_hidden_layers"] == 3
    types = json.loads((three / "a/config.json").read_text()).get("layer_types", [None] * 2)
    assert config.get("layer_types", [None] * 3) == [types[0], types[1], types[1]]
    from pt_tools import models

    models.load_model(three / "out")


def test_an_added_token_keeps_its_owners_row(pt, three):
    path = three / "b"
    tokens = json.loads((path / "tokenizer.json").read_text())
    rows = json.loads((path / "config.json").read_text())["vocab_size"]
    tokens["added_tokens"].append({**tokens["added_tokens"][-1], "id": rows, "content": "<|new|>"})
    (path / "tokenizer.json").write_text(json.dumps(tokens))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": rows + 1}))
    change(path, lambda key, value: np.concatenate([value, value[:1] + 7]) if "embed" in key else value)
    done = pt("pt-merge", "linear", "a", "b", "-o", "out", check=0)
    assert f"tokenizers differ: that of b goes out, {rows + 1} rows" in done.err
    out, a, b = (load_file(three / name / "model.safetensors")["model.embed_tokens.weight"] for name in ("out", "a", "b"))
    assert np.array_equal(out[-1], b[-1]) and np.allclose(out[:rows], (a + b[:rows]) / 2, atol=1e-7)
    assert json.loads((three / "out/config.json").read_text())["vocab_size"] == rows + 1


REFUSALS = [
    (["tis", "a", "b"], 2, "no such method: tis; did you mean ties?"),
    (["ties", "base", "a", "--t", "0.5"], 2, "--t is of no use with ties"),
    (["linear", "a", "b", "-w", "1", "2", "3"], 2, "--weight: 3 values for 2 models"),
    (["slerp", "a", "b", "base"], 2, "slerp takes 2 models, not 3"),
    (["linear", "a", "b", "--param", "nonsense=1"], 2, "linear has no parameter nonsense (it has: normalize, weight)"),
    (["linear", "a", "b", "--tokenizer-from", "c"], 2, "--tokenizer-from: c is none of the models (a, b)"),
    (["linear", "a", "b", "--shard-size", "x"], 2, "--shard-size x: expected bytes, or a number with KB, MB, GB or TB"),
]


@pytest.mark.parametrize("words, code, line", REFUSALS, ids=[" ".join(r[0][:2] + r[0][-1:]) for r in REFUSALS])
def test_refused(pt, three, words, code, line):
    done = pt("pt-merge", *words, "-o", "out", check=code)
    assert done.err == f"pt-merge: {line}\n" and not list(three.glob("out*"))


def test_shapes_missing_tensors_and_nan_are_named(pt, three):
    name = "model.layers.0.mlp.up_proj.weight"
    for edit, code, line in (
            (lambda v: v[:-1].copy(), 4, f"tensor {name} is [256, 128] in a and [255, 128] in b"),
            (lambda v: None, 4, f"tensor {name} is not in b, but in other models"),
            (lambda v: v * np.float32("nan"), 4, f"tensor {name} has NaN or infinite numbers: 32768 in b/model.safetensors (--force merges it all the same)")):
        shutil.copytree(three / "b", three / "kept")
        change(three / "b", lambda key, value: edit(value) if key == name else value)
        assert pt("pt-merge", "linear", "a", "b", "-o", "out", check=code).err.splitlines()[-1] == f"pt-merge: {line}"
        shutil.rmtree(three / "b")
        (three / "kept").rename(three / "b")


# --- soups, checkpoints, task vectors -----------------------------------------------------------------------------


def weights(path):
    return load_file(path / "model.safetensors")


def same(made, want, tolerance=2e-7):
    assert made.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(made[name], value, rtol=0, atol=tolerance * max(1.0, np.abs(value).max()), err_msg=name)


def combined(three, **factors):
    """Σ factor · model."""
    models = {name: weights(three / name) for name in factors}
    return {name: sum(np.float64(f) * models[model][name] for model, f in factors.items()) for name in models[next(iter(factors))]}


CASES = [
    (["soup", "a", "b", "base"], {"a": 1 / 3, "b": 1 / 3, "base": 1 / 3}),
    (["warm", "a", "b"], {"a": 0.5, "b": 0.5}),
    (["ema", "base", "a", "b", "--beta", "0.25"], {"base": 0.0625, "a": 0.1875, "b": 0.75}),
    (["last", "base", "a", "b", "--last", "2"], {"a": 0.5, "b": 0.5}),
    (["task_arithmetic", "base", "a", "--lambda", "1.5"], {"base": -0.5, "a": 1.5}),  # extrapolation
    (["task_arithmetic", "base", "a", "b"], {"base": -1, "a": 1, "b": 1}),  # chat vector: a + (b - base)
    (["task_arithmetic", "a", "b", "--base", "base", "-w", "0.5", "2"], {"base": -1.5, "a": 0.5, "b": 2}),
    (["wise_ft", "base", "a", "--eta", "0.3"], {"base": 0.7, "a": 0.3}),
    (["linear", "a", "b", "-w", "0.3", "-0.1", "--no-normalize"], {"a": 0.3, "b": -0.1}),
    (["linear", "a", "b", "--weight=0.3", "0.1"], {"a": 0.75, "b": 0.25}),
]


@pytest.mark.parametrize("words, factors", CASES, ids=[" ".join(words) for words, _ in CASES])
def test_sums(pt, three, words, factors):
    pt("pt-merge", *words, "-o", "out", check=0)
    same(weights(three / "out"), combined(three, **factors))


def test_greedy_soup_keeps_what_helps(pt, three):
    """The score is minus the distance of one bias-like entry to a target: b is best, a spoils it, base helps."""
    name = "model.norm.weight"
    for model, value in (("base", 1.0), ("a", 9.0), ("b", 2.5)):
        change(three / model, lambda key, tensor, v=value: np.full_like(tensor, v) if key == name else tensor)
    code = ("import sys; from safetensors.numpy import load_file as l; open('calls', 'a').write('x'); "
            f"print(-abs(float(l(sys.argv[1] + '/model.safetensors')['{name}'][0]) - 2))")
    (three / "score.py").write_text(code)
    command = f"{sys.executable} score.py {{}}"
    done = pt("pt-merge", "greedy_soup", "a", "base", "b", "--evaluate", command, "-o", "out", check=0)
    assert [line.removeprefix("pt-merge: ") for line in done.err.splitlines() if "score" not in line][:5] == [
        "a: -7", "base: -1", "b: -0.5", "with base: -0.25 against -0.5: kept", "with a: -2.16667 against -0.25: left out"]
    same(weights(three / "out"), combined(three, b=0.5, base=0.5))
    final = json.loads((three / "out/MANIFEST.json").read_text())["final"]
    assert final["kept"] == ["b", "base"] and final["score"] == -0.25 and final["scores"] == {"a": -7, "base": -1, "b": -0.5}
    assert (three / "calls").read_text() == "x" * 5
    bad = pt("pt-merge", "greedy_soup", "a", "b", "--evaluate", "false {}", "-o", "bad", check=4)
    assert bad.err == "pt-merge: a: the evaluation command ended with status 1\n" and not (three / "bad").exists()


def test_a_killed_greedy_soup_scores_nothing_twice(pt, three):
    (three / "score.py").write_text(
        "import os, signal, sys\n"
        "calls = os.path.getsize('calls') if os.path.exists('calls') else 0\n"
        "if calls == 3 and not os.path.exists('killed'):\n"
        "    open('killed', 'w').close()\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    sys.exit(1)\n"
        "open('calls', 'a').write('x')\n"
        "print({'a': 1, 'base': 3, 'b': 2}.get(sys.argv[1], 4 - calls / 10))\n")
    line = ("pt-merge", "greedy_soup", "a", "base", "b", "--evaluate", f"{sys.executable} score.py {{}}", "-o", "out")
    pt(*line, check=-signal.SIGKILL)
    assert not (three / "out").exists() and (three / "calls").read_text() == "xxx"
    pt(*line, check=0)
    assert (three / "calls").read_text() == "x" * 5  # three members, then two means
    final = json.loads((three / "out/MANIFEST.json").read_text())["final"]
    assert final["kept"] == ["base", "b"] and final["scores"] == {"a": 1, "base": 3, "b": 2} and final["score"] == 3.7
    same(weights(three / "out"), combined(three, base=0.5, b=0.5))


def test_the_report_and_the_dry_run_of_the_same_merge(pt, three):
    pt(*TIES, "--report", "rows.jsonl", check=0)
    rows = {row["tensor"]: row for row in map(json.loads, (three / "rows.jsonl").read_text().splitlines())}
    base, a, b = (weights(three / name) for name in ("base", "a", "b"))
    assert rows.keys() == base.keys()
    row, name = rows["model.layers.0.mlp.up_proj.weight"], "model.layers.0.mlp.up_proj.weight"
    first, second = (x[name].astype(np.float64).ravel() - base[name].ravel() for x in (a, b))
    assert row["kept"] == pytest.approx([0.5, 0.5], abs=1e-4) and row["sign_conflicts"] == pytest.approx(np.mean(first * second < 0))
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert row["delta_cosine"] == [[0, 1, pytest.approx(cosine, abs=1e-6)]]
    assert row["delta_norm"] == pytest.approx([np.linalg.norm(first), np.linalg.norm(second)], rel=1e-5)
    assert "nothing to do" not in pt(*TIES, "--report", "more.jsonl", check=0).err and (three / "more.jsonl").exists()
    assert pt(*TIES, "--report", "no/such/rows", check=2).err == "pt-merge: no/such/rows: no such file or directory\n"
    dry = json.loads(pt(*TIES, "--dry-run", check=0).out)
    assert dry["tensors"] == len(rows) and [item["name"] for item in dry["items"]] == list(rows)
    assert dry["models"] == ["base", "a", "b"] and dry["method"] == "ties"


@pytest.mark.parametrize("method, flags", [("ties", ["--density", "0.3"]), ("dare_ties", ["--density", "0.3", "--seed", "5"]),
                                           ("della", ["--density", "0.5"]), ("slerp", ["--t", "0.3"])])
def test_bytes_do_not_depend_on_threads_shards_or_order(pt, three, method, flags):
    base = ["base"] if method != "slerp" else []
    made = []
    for number, (threads, size) in enumerate((("1", "5GB"), ("2", "5GB"), ("3", "100KB"), ("1", "1"))):
        pt("pt-merge", method, *base, "a", "b", *flags, "--threads", threads, "--shard-size", size, "-o", f"o{number}", check=0)
        tensors = {}
        for file in (three / f"o{number}").glob("*.safetensors"):
            tensors |= load_file(file)
        made.append({name: value.tobytes() for name, value in tensors.items()})
    assert all(one == made[0] for one in made)
    index = json.loads((three / "o3/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == made[0].keys() and index["metadata"]["total_size"] == sum(map(len, made[0].values()))


def written(scratch):
    """Bytes on the disk, or on their way to it."""
    return sum(path.stat().st_blocks * 512 for path in scratch.glob("*.safetensors"))


def test_a_stopped_merge_goes_on(pt, three):
    """TERM in the middle: exit 75, nothing under the name; the same line finishes with the same bytes."""
    for name in ("base", "a", "b"):  # large enough to be stopped in the middle
        big = noise(len(name), (3000, 4000))
        save_file({f"model.layers.{n}.up.weight": big + n for n in range(4)}, three / name / "model.safetensors", {"format": "pt"})
    pt(*TIES, check=0)
    want = (three / "out/model.safetensors").read_bytes()
    for attempt in range(20):  # until a signal comes in time
        argv = [os.path.join(os.path.dirname(sys.executable), "pt-merge"), *TIES[1:-1], f"again{attempt}", "--threads", "1"]
        process = subprocess.Popen(argv, cwd=three, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while process.poll() is None and written(three / f"again{attempt}.run/merge") < 1 << 22:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
        if process.returncode:
            break
    assert process.returncode == 75 and b"run the same line again" in error and not (three / argv[-3]).exists()
    assert "going on with tensor" in pt("pt-merge", *argv[1:], check=0).err
    assert (three / argv[-3] / "model.safetensors").read_bytes() == want and not (three / f"{argv[-3]}.run").exists()


# --- adapters -----------------------------------------------------------------------------------------------------


def test_adapters_there_and_back(pt, three):
    """Extracted at full rank and baked: the tuned model; concatenated with weights: the same sum of changes."""
    for name in ("a", "b"):
        pt("pt-merge", "lora_extract", "base", name, "--energy", "1", "-o", f"lora-{name}", check=0)
        pt("pt-merge", "lora", "base", f"lora-{name}", "-o", f"baked-{name}", check=0)
        same(weights(three / f"baked-{name}"), weights(three / name), 2e-6)
    for name in ("a", "b"):  # of matrices only, for tensors that are kept whole are in no sum
        change(three / name, lambda key, value: value if "proj" in key else weights(three / "base")[key])
        pt("pt-merge", "lora_extract", "base", name, "--rank", "8", "-o", f"low-{name}", check=0)
    pt("pt-merge", "lora_cat", "low-a", "low-b", "-w", "0.5", "-1", "-o", "cat", check=0)
    pt("pt-merge", "lora", "base", "cat", "-o", "baked", check=0)
    pt("pt-merge", "task_arithmetic", "base", "base+low-a", "base+low-b", "-w", "0.5", "-1", "-o", "sum", check=0)
    same(weights(three / "baked"), weights(three / "sum"), 2e-6)
    from pt_tools import models

    models.load_model(three / "baked")


WRONG = [
    (["lora", "base"], "lora needs a base and its adapters, not 1 argument"),
    (["lora", "base", "a"], "a is no adapter directory"),
    (["lora_extract", "base", "a"], "lora_extract needs --rank or --energy"),
    (["lora_cat", "x", "--seed", "1"], "--seed is of no use with lora_cat"),
    (["lora_extract", "base", "base", "--rank", "2"], "base does not differ from base"),
    (["ema", "a", "b"], "ema needs --beta"), (["last", "a", "b", "--last", "3"], "--last: 3 of 2 checkpoints"),
    (["greedy_soup", "a", "b"], "greedy_soup needs --evaluate"),
    (["greedy_soup", "a", "a", "--evaluate", "x {}"], "greedy_soup: a model is named twice"),
    (["greedy_soup", "a", "b", "--evaluate", "x"], "the evaluation command must contain {}"),
    (["greedy_soup", "a", "b", "--evaluate", "x {} '"], "the evaluation command has an open quotation"),
    (["linear", "a", "b", "--seed", "4"], "--seed is of no use with linear, which draws nothing"),
    (["linear", "a", "b", "--beta", "0.5"], "--beta is of no use with linear"),
    (["linear", "a", "b", "-w", "x"], "--weight: 'x' is not a number"),
    (["slerp", "a", "b", "--param", "t=none"], "t: 'none' is not a number of float32"),
    (["linear", "a", "c"], "c is no directory here, and the hub does not give it"),
    (["linear", "a", "b", "-w", "1e39"], "weight: 1e+39 is not a number of float32"),
]


@pytest.mark.parametrize("words, line", WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_use(pt, three, words, line):
    done = pt("pt-merge", *words, "-o", "out", check=2)
    assert done.err.startswith(f"pt-merge: {line}") and done.err.count("\n") == 1 and not list(three.glob("out*"))


@pytest.mark.parametrize("out", ["a", "a/deeper", "link", "."])
def test_the_output_is_no_input(pt, three, out):
    (three / "link").symlink_to("a")
    before = {path: path.read_bytes() for path in (three / "a").iterdir()}
    done = pt("pt-merge", "linear", "a", "b", "-o", out, check=2)
    assert "which it is made of, are one directory or lie in each other" in done.err
    assert {path: path.read_bytes() for path in (three / "a").iterdir()} == before


def test_checkpoints_of_a_training_run_are_averaged(pt, three):
    """They hold weights alone, a tied embedding under its other name; the rest comes from the finished model."""
    rows = [{"messages": [{"role": "user", "content": f"What is {i} plus 3?"}, {"role": "assistant", "content": f"{i + 3}"}]}
            for i in range(8)]
    (three / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pt("pt-sft", "rows.jsonl", "-m", "base", "-o", "sft", "--batch-size", "2", "--lr", "0.01", "--save-every", "1", "--threads", "1",
       "--keep-checkpoints", "2", check=0)
    saved = sorted((three / "sft.run/checkpoints").glob("checkpoint-*"))
    assert [path.name for path in saved] == ["checkpoint-2", "checkpoint-3"] and not (saved[0] / "config.json").exists()
    names = [str(path.relative_to(three)) for path in saved]
    done = pt("pt-merge", "last", *names, "sft", "--last", "3", "-o", "mean", check=0)
    assert f"{names[0]}, {names[1]}: no config.json; that of sft counts, and its tokenizer" in done.err
    members = [weights(path) for path in (*saved, three / "sft")]
    members = [{n.replace("lm_head.", "model.embed_tokens."): value for n, value in one.items()} for one in members]
    assert all(any(not np.array_equal(one[name], members[2][name]) for name in one) for one in members[:2])
    same(weights(three / "mean"), {name: np.mean([one[name] for one in members], 0, np.float64) for name in members[2]})
    assert (three / "mean/config.json").exists() and (three / "mean/tokenizer.json").exists()
    pt("pt-merge", "last", "sft.run/checkpoints", "sft", "--last", "3", "-o", "again", check=0)
    assert (three / "again/model.safetensors").read_bytes() == (three / "mean/model.safetensors").read_bytes()
    only = pt("pt-merge", "last", *names, "--last", "2", "-o", "no", check=4)
    assert only.err == f"pt-merge: {names[0]}: not a model directory: no config.json\n"


NEEDS = {"wise_ft": ["--eta", "0.5"], "nearswap": ["--t", "0.01"], "ties": ["--density", "0.3"], "dare_ties": ["--density", "0.3"],
         "della": ["--density", "0.5"], "breadcrumbs": ["--density", "0.5", "--gamma", "0.02"], "sce": ["--select-topk", "0.2"]}


def test_every_methods_model_loads_and_generates(pt, three):
    """In both formats; finite logits, and another model than any of its inputs."""
    import torch

    from pt_tools import merge, models
    from pt_tools.merge import methods

    prompt = torch.arange(1, 9)[None]
    inputs = [models.load_model(three / name)(prompt).logits.detach() for name in ("base", "a", "b")]
    for number, name in enumerate(merge.METHODS):
        method, words = methods.get(name), ["a"] if methods.get(name).models[1] == 1 else ["a", "b"]
        words = (["base"] if method.base == "required" else []) + words
        dtype = ("float32", "bfloat16")[number % 2]
        pt("pt-merge", name, *words, *NEEDS.get(name, []), "--dtype", dtype, "-o", f"out-{name}", check=0)
        model = models.load_model(three / f"out-{name}")
        config = json.loads((three / f"out-{name}" / "config.json").read_text())
        logits = model(prompt).logits.detach()
        assert config["dtype"] == dtype and logits.isfinite().all(), name
        if name != "passthrough":
            assert min(float((logits - one).abs().max()) for one in inputs) > 1e-4, name
        assert model.generate(prompt, max_new_tokens=3, min_new_tokens=3).shape == (1, 11), name
