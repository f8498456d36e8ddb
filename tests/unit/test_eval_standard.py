"""scripts/eval-standard.sh: what it refuses, the command line it runs, and a run of the real harness where one is."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "eval-standard.sh"


@pytest.fixture
def standard(tmp_path):
    """Run the script in tmp_path, where model/ looks like a model directory."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "chat_template.jinja"):
        (model / name).write_text("{}")

    def run(*argv, check, **env):
        env = {"PATH": "/usr/bin:/bin", **env}
        done = subprocess.run(["bash", SCRIPT, *argv], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == check, done.stderr
        return done

    return run


def test_it_is_a_script():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_the_command_line(standard):
    done = standard("--dry-run", "--seed", "7", "model", "gsm8k_cot,ifeval", "out/", "--", "--limit", "8", check=0)
    assert shlex.split(done.stdout) == [
        "lm_eval", "run", "--model", "hf", "--model_args", "pretrained=model,trust_remote_code=False",
        "--tasks", "gsm8k_cot,ifeval", "--seed", "7", "--batch_size", "auto", "--output_path", "out.run", "--log_samples",
        "--apply_chat_template", "--limit", "8"]  # fmt: skip
    assert done.stderr == ""
    plain = standard("--dry-run", "--no-chat-template", "--batch-size", "4", "model", "ifeval", "out", check=0, LM_EVAL="/x y/lm")
    assert shlex.split(plain.stdout)[0] == "/x y/lm" and "--apply_chat_template" not in plain.stdout
    assert "--batch_size 4" in plain.stdout


def test_a_model_without_template(standard, tmp_path):
    (tmp_path / "model" / "chat_template.jinja").unlink()
    assert "--apply_chat_template" not in standard("--dry-run", "model", "out", check=0).stdout
    (tmp_path / "model" / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert "--apply_chat_template" in standard("--dry-run", "model", "out", check=0).stdout


def test_code_runs_only_where_it_is_allowed(standard):
    done = standard("--dry-run", "model", "tulu3", "out", check=0)
    assert "humaneval" not in done.stdout and "gsm8k_cot" in done.stdout and "left out" in done.stderr
    assert done.stdout == standard("--dry-run", "model", "out", check=0).stdout
    allowed = standard("--dry-run", "--unsafe-local", "model", "tulu3", "out", check=0).stdout
    assert ",humaneval_instruct,humaneval_plus " in allowed and "--confirm_run_unsafe_code" in allowed
    assert "without a sandbox" in standard("--dry-run", "model", "gsm8k_cot,mbpp", "out", check=8).stderr
    assert "mbpp" in standard("--dry-run", "--unsafe-local", "model", "mbpp", "out", check=0).stdout


@pytest.mark.parametrize("argv, code, words", [
    (["model"], 2, "usage"), (["a", "b", "c", "d"], 2, "usage"), (["--sed", "1", "model", "out"], 2, "no such option: --sed"),
    (["--seed", "x", "model", "out"], 2, "whole number"), (["--batch-size", "0", "model", "out"], 2, "whole number or auto"),
    (["model", "out", "--seed"], 2, "needs a value"), (["nowhere", "out"], 2, "no config.json"), (["pickled", "out"], 4, "pickled"),
    (["a,b", "out"], 2, "comma"), (["model", "model"], 2, "there already"), (["model", "a;b", "out"], 2, "names with commas"),
])  # fmt: skip
def test_wrong_use(standard, tmp_path, argv, code, words):
    for name in ("pickled", "a,b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "a,b" / "model.safetensors").write_text("")
    done = standard(*argv, check=code)
    assert words in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


def test_without_a_harness_nothing_is_made(standard, tmp_path):
    done = standard("model", "ifeval", "out", check=2, LM_EVAL="no-such-harness")
    assert "pip install 'lm_eval[hf,math,ifeval]'" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_harness_that_fails_leaves_nothing(standard, tmp_path):
    done = standard("model", "ifeval", "out", check=1, LM_EVAL="/bin/false")
    assert "the harness failed" in done.stderr and sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.slow
def test_a_real_run(policy, tmp_path):
    """A task of our own over a file here; the harness's own data sets are on the hub."""
    harness = os.environ.get("LM_EVAL") or shutil.which("lm_eval")
    if not harness:
        pytest.skip("no lm-evaluation-harness here; set LM_EVAL")
    (tmp_path / "task").mkdir()
    rows = [{"question": f"What is {n} plus 2?", "answer": str(n + 2)} for n in range(4)]
    (tmp_path / "task" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task" / "tiny_sums.yaml").write_text(
        f"task: tiny_sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/task/rows.jsonl}}}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        'generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 8, do_sample: false}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n")  # fmt: skip
    argv = ["bash", SCRIPT, "--seed", "3", "--batch-size", "4", policy, "tiny_sums", "out", "--", "--include_path", "task", "--device", "cpu"]
    env = {**os.environ, "LM_EVAL": harness, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and done.stdout == "out\n", done.stderr
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert protocol["results"]["tiny_sums"]["sample_len"] == 4 and protocol["harness"]["config"]["torch_seed"] == 3
    template = (policy / "chat_template.jinja").read_text()
    assert protocol["template"] == hashlib.sha256(template.encode()).hexdigest() == protocol["harness"]["chat_template_sha"]
    weights = (policy / "model.safetensors").read_bytes()
    assert protocol["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert not (tmp_path / "out.run").exists()
