"""What every command keeps: cheap help, current man pages, one vocabulary, examples that run, bad rows named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import judge_server
import man
import pytest

from pt_tools import options, outdir

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COMMANDS = {name: c for name, c in man.commands().items() if hasattr(c, "config")}
TRAINERS = [name for name, c in COMMANDS.items() if c.writes == "model"]

# The bundles say what a flag means once; a command may redeclare only these, with another default or place.
OWN_FORM = {"files", "lr", "batch_size", "out", "seed", "model", "temperature", "max_new_tokens", "warmup", "schedule", "epochs",
            "threads", "dtype", "resume", "work"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_flag_and_example(name):
    argv = COMMANDS[name].name.split()
    text = subprocess.run([BIN / argv[0], *argv[1:], "--help"], capture_output=True, text=True, check=True).stdout
    for field_name, field in options.fields(COMMANDS[name].config).items():
        assert field_name == "files" or (field.metadata["metavar"] if field.metadata["argument"] else options.flag(field_name)) in text
    assert COMMANDS[name].examples and all(example in text for example in COMMANDS[name].examples)


def test_a_group_says_of_its_verbs_what_they_say():
    for group in (c for c in man.commands().values() if hasattr(c, "verbs")):
        assert {name: text for name, (_, text) in group.verbs.items()} == {
            name: verb.help.strip().splitlines()[0] for name, verb in group.all().items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_slow(name):
    """What makes a start slow, checked by what is imported; the milliseconds are measured by `make bench`."""
    argv = COMMANDS[name].name.split()
    code = (f"import sys; sys.argv = {argv!r} + ['--help']\nfrom importlib.metadata import entry_points\n"
            f"main = entry_points(group='console_scripts')[{argv[0]!r}].load()\n"
            "try: main()\nexcept SystemExit: pass\n"
            "slow = {'torch', 'transformers', 'trl', 'datasets', 'rich', 'numpy', 'jsonlines', 'orjson', 'jinja2', 'asyncio'}\n"
            "print('SLOW', sorted(slow & set(sys.modules)), len(sys.modules) < 260)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "SLOW [] True"


def test_one_vocabulary():
    """The same flag has the same type in all commands, and a bundle's flag is not declared again elsewhere."""
    types, bundles = {}, {}
    for bundle in (options.Common, options.Input, options.Output, options.Model, options.Run, options.Optim, options.Sampling):
        bundles.update(options.fields(bundle))
    for name, command in COMMANDS.items():
        own = command.config.__dict__.get("__annotations__", {})
        for field_name, field in options.fields(command.config).items():
            kind = options.kind(field)
            assert types.setdefault(field_name, kind) is kind, f"{name} {field_name}"
            if field_name in own and field_name in bundles and not issubclass(command.config, _owner(field_name)):
                assert field_name in OWN_FORM, f"{name} declares --{field_name} of a bundle again"
            assert re.fullmatch(r"[a-z][a-z0-9_]*", field_name) and field.metadata["help"].endswith((".", ")"))


def _owner(field_name):
    bundles = (options.Common, options.Input, options.Output, options.Model, options.Run, options.Optim, options.Sampling)
    return next(b for b in bundles if field_name in options.fields(b))


def test_man_pages_are_current_and_clean(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts/man.py", "--check", ROOT / "man"], check=True)
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    for page in sorted((ROOT / "man").glob("*.[1-8]")):
        done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", page], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", page
        text = re.sub(".\b", "", done.stdout).replace("\u2010", "-").replace("\u2212", "-")
        fields = options.fields(COMMANDS[page.stem].config) if page.stem in COMMANDS else {}
        for field_name, field in fields.items():
            assert field_name == "files" or field.metadata["argument"] or options.flag(field_name) in text


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_flag_is_a_usage_error(pt, name):
    done = pt(*COMMANDS[name].name.split(), "--no-such-flag")
    assert done.returncode == 2 and "--no-such-flag" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("name", [name for name, c in COMMANDS.items() if c.reads not in ("models", "sketches")])
def test_malformed_line_1501(pt, tmp_path, policy, name):
    """Exit 3, one line, file:1501: reason, and no output."""
    rows = GOOD[COMMANDS[name].reads.split()[-1]] if COMMANDS[name].reads in GOOD else ROW
    (tmp_path / "rows.jsonl").write_text((json.dumps(rows) + "\n") * 1500 + '{"id": \n')
    make_by_hand(tmp_path)
    done = pt(*COMMANDS[name].name.split(), "rows.jsonl", *needed(COMMANDS[name], policy))
    assert done.returncode == 3, done.err
    lines = [line for line in done.err.splitlines() if line]
    assert re.search(r"rows\.jsonl:1501: not JSON \(", lines[-1]) and not list(tmp_path.glob("out*"))


USER, ANSWER = {"role": "user", "content": "What is 2 plus 3?"}, {"role": "assistant", "content": "The answer is 5."}
COMPLETION = {"text": "The answer is 5.", "finish": "stop", "reward": 1.0, "scores": {"math": 1.0}}
WORSE = {"text": "The answer is 6.", "finish": "stop", "reward": 0.0, "scores": {"math": 0.0}}
ROW = {"source": "t", "domain": "arithmetic", "prompt": [USER], "verifier": {"name": "math", "answer": "5"},
       "completions": [COMPLETION, WORSE]}
GOOD = {"messages": {"messages": [USER, ANSWER]}, "pairs": {"prompt": [USER], "chosen": [ANSWER], "rejected": [
    {"role": "assistant", "content": "The answer is 6."}]}, "prompts": {k: v for k, v in ROW.items() if k != "completions"}}


def needed(command, policy) -> list[str]:
    """The flags without which a command does not start."""
    given = {"model": str(policy), "out": "out", "part": "a=1", "against": "rows.jsonl", "verify": None,
             "instructions": "lists.jsonl", "template": "math.jinja"}
    fields = options.fields(command.config)
    required = [n for n, f in fields.items() if f.metadata["required"]] + [n for n in ("verify", "instructions") if n in fields]
    if command.name == "pt-curate split":
        given["out"] = "out.{part}"
    more = {"pt-curate filter": ["--rule", "refusal"], "pt-curate tag": ["--label", "note=d"], "pt-curate diff": ["rows.jsonl"]}
    return [word for n in required for word in ([options.flag(n)] + ([given[n]] if given[n] else []))] + more.get(command.name, [])


def make_by_hand(path) -> None:
    """The files that a user writes: instructions for gatt, personas and templates for synth."""
    lists = {"name": "Figure", "instruction": "Always act as {value}.", "values": ["Napoleon"]}
    (path / "lists.jsonl").write_text(json.dumps(lists) + "\n")
    (path / "personas.jsonl").write_text("".join(json.dumps({"persona": f"a baker of {i} loaves"}) + "\n" for i in range(60)))
    for name, text in (("math", "A sum for {{ persona }}."), ("similar", "For {{ persona }}, like: {{ seed }}"),
                       ("answer", "{{ completions[0].text }}")):
        (path / f"{name}.jinja").write_text(text)


def readme_lines() -> list[str]:
    """Command lines of the README's shell blocks, continuation lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_run(examples_dir, name):
    """Every line shown in --help and the man page is executed as it stands; a server is a real one, at its own address."""
    with judge_server.serving(lambda body: '{"score": 3}') as server:
        for example in COMMANDS[name].examples:
            run_line(example.replace("http://localhost:8000/v1", server.url), examples_dir)


def run_line(line, cwd):
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PT_EXAMPLE": "1"}
    done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", line], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def moved(path, step):
    """Every weight a little larger: a model that differs from the one it was copied from."""
    from safetensors.numpy import load_file, save_file

    file = path / "model.safetensors"
    save_file({name: value + value.dtype.type(step) for name, value in load_file(file).items()}, file, {"format": "pt"})


def reward_model(policy, path):
    """The policy's body under a head of one output."""
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(policy, path)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    model.save_pretrained(path)


@pytest.fixture
def examples_dir(tmp_path, world, policy) -> Path:
    """A directory with the file and model names that the examples use."""
    for seed, name in enumerate(("base", "sft", "dpo")):
        shutil.copytree(policy, tmp_path / name)
        moved(tmp_path / name, seed * 1e-3)
        outdir.seal(tmp_path / name)  # as if a command had made it: an example may build it anew
    shutil.copytree(policy, tmp_path / "teacher")
    for name in ("rm", "rm-h", "rm-s"):
        reward_model(policy, tmp_path / name)
    shutil.copytree(world / "blank", tmp_path / "blank")
    scored = [{**ROW, "id": f"r{i}", "prompt": [{"role": "user", "content": f"What is {10 + i} plus {20 + i}?"}]} for i in range(6)]
    tables = {
        "messages": [{"id": f"m{i}", "messages": [USER, ANSWER]} for i in range(8)],
        "pairs": [{**GOOD["pairs"], "id": f"p{i}"} for i in range(8)],
        "prompts": [{k: v for k, v in row.items() if k != "completions"} for row in scored],
        "scored": scored,
        "exam": [{"id": "e", "prompt": [{"role": "user", "content": "What is 99 minus 98?"}], "verifier": {"name": "math", "answer": "1"}}],
        "text": [{"text": "What is 2 plus 3? The answer is 5."}] * 8,
        "alpaca": [{"instruction": "Add 2 and 3.", "input": "", "output": "5"}],
    }
    tables["many"] = [{"id": f"c{i}", "messages": [{**USER, "content": f"Question {i}?"}, ANSWER]} for i in range(500)]
    names = {"messages": ["sft", "chats", "all", "a", "b"], "many": ["chat", "math"], "pairs": ["pairs"], "prompts": ["prompts"],
             "scored": ["scored", "samples", "pool", "dpo.rated", "sft.rated"],
             "exam": ["heldout", "math500", "ifeval"], "text": ["corpus"], "alpaca": ["alpaca.json"]}
    for table, files in names.items():
        for file in files:
            path = tmp_path / (file if "." in file and file.endswith("json") else f"{file}.jsonl")
            path.write_text("".join(json.dumps(row) + "\n" for row in tables[table]))
    (tmp_path / "merge.yml").write_text("merge_method: linear\nmodels:\n- model: sft\n- model: dpo\nparameters: {weight: 0.5}\n")
    make_by_hand(tmp_path)
    asked = {"prompt": [{**USER, "content": "Act as Ann.\nHi?"}], "gatt": {"instruction": "Act as Ann.", "first": "Figure: Ann."}}
    (tmp_path / "answered.jsonl").write_text(json.dumps({"id": "g", **asked, "completions": [COMPLETION]}) + "\n")
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text(json.dumps({"question": "2+3?", "answer": "2+3=5\n#### 5"}) + "\n")
    (tmp_path / "data").mkdir()
    for name in "ab":
        run_line(f"pt-curate sketch {name}.jsonl > {name}.bands", tmp_path)
    return tmp_path


def test_readme_runs(examples_dir):
    """The README's own page, line by line, on tiny models (its make targets are tested with the recipes)."""
    chats = [{"instruction": f"Add {i} and 3.", "input": "", "output": f"The answer is {i + 3}."} for i in range(60)]
    (examples_dir / "my-chats.json").write_text(json.dumps(chats))
    for made in ("sft", "dpo", "train.jsonl", "test.jsonl", "samples.jsonl", "scored.jsonl", "good.jsonl", "pairs.jsonl"):
        path = examples_dir / made
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    lines = [line for line in readme_lines() if not line.startswith("make ")]
    assert len(lines) >= 11
    with judge_server.serving(lambda body: '{"score": 3}') as server:
        run_line("\n".join(lines).replace("http://localhost:8000/v1", server.url), examples_dir)
