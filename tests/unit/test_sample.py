"""pt-sample: what it writes, what it refuses, and that a stopped run ends with the same bytes.

Runs are in this process (importing torch takes longer than they do), the one that is stopped by a signal is not.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def pt(tmp_path, monkeypatch, capfdbinary):
    """Run pt-sample here: pt(args…) → (stdout bytes, stderr text)."""
    from pt_tools import cli, stop
    from pt_tools.commands.sample import main

    def run(*argv, check=0):
        monkeypatch.chdir(tmp_path)
        capfdbinary.readouterr()
        code = cli.funnel(main, [*map(str, argv), "--threads", "1"])
        out, err = capfdbinary.readouterr()
        assert code == check, err.decode()
        return out, err.decode()

    handlers = {name: signal.getsignal(getattr(signal, name)) for name in stop.SIGNALS}
    yield run
    for name, handler in handlers.items():
        signal.signal(getattr(signal, name), handler)
    stop.clear()


@pytest.fixture
def asked(world, tmp_path):
    found = sorted(world.glob("*.jsonl"))
    rows = [row for path in found for row in read(path) if "prompt" in row][:40]
    return write(tmp_path / "prompts.jsonl", [{**row, "extra": {"kept": i}} for i, row in enumerate(rows)])


def test_records_hold_ids_logprobs_and_origin(pt, asked, policy, tmp_path):
    from pt_tools import models, outdir, rollout, tokens

    pt(asked, "-m", policy, "-n", 3, "--max-new-tokens", 8, "--temperature", 0.8, "-o", "out.jsonl")
    rows, before = read(tmp_path / "out.jsonl"), read(asked)
    assert len(rows) == 40 and [row["extra"] for row in rows] == [row["extra"] for row in before]
    tok, model = models.load_tokenizer(str(policy)), models.load_model(str(policy))
    for row, old in zip(rows, before):
        assert list(row)[: len(old)] == list(old)
        assert row["prompt_ids"] == tokens.encode_prompt(tok, old["prompt"])
        assert row["tokenizer"] == models.tokenizer_hash(tok) and row["template"] == models.template_hash(tok)
        for c in row["completions"]:
            assert c["model"] == outdir.identity(str(policy))
            assert c["sampling"] == {"temperature": 0.8, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8, "seed": 0}
            assert c["finish"] == ("stop" if c["token_ids"][-1] in tokens.stop_ids(tok, model) else "length")
            assert c["text"] == tok.decode(c["token_ids"][:-1] if c["finish"] == "stop" else c["token_ids"])
            scored = rollout.logprobs(model, [row["prompt_ids"]], [c["token_ids"]], 0.8)[0]
            assert np.allclose(scored, c["logprobs"], atol=2e-5)
    assert len({tuple(c["token_ids"]) for row in rows for c in row["completions"]}) > 100
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    cut = sum(any(c["finish"] == "length" for c in row["completions"]) for row in rows)
    assert manifest["rows"]["in"] == manifest["rows"]["out"] == 40 and manifest["rows"]["truncated"] == cut


def test_stdout_is_the_same_as_a_file(pt, asked, policy, tmp_path):
    args = (asked, "-m", policy, "--max-new-tokens", 6, "--batch-size", 4)
    pt(*args, "-o", "out.jsonl")
    assert pt(*args)[0] == (tmp_path / "out.jsonl").read_bytes()


def test_existing_completions_need_append_and_get_new_noise(pt, asked, policy, tmp_path):
    args = ("-m", policy, "--max-new-tokens", 8, "-n", 2)
    pt(asked, *args, "-o", "one.jsonl")
    _, refused = pt("one.jsonl", *args, "-o", "two.jsonl", check=3)
    assert "one.jsonl:1" in refused and "--append" in refused
    pt("one.jsonl", *args, "--append", "-o", "two.jsonl")
    pt(asked, *args[:-1], 4, "-o", "four.jsonl")
    two, four = read(tmp_path / "two.jsonl"), read(tmp_path / "four.jsonl")
    tokens = lambda rows: [[c["token_ids"] for c in row["completions"]] for row in rows]  # noqa: E731
    assert tokens(two) == tokens(four)


def test_a_model_with_another_tokenizer_adds_text_only(pt, asked, policy, tmp_path):
    import shutil

    other = shutil.copytree(policy, tmp_path / "other")
    (other / "MANIFEST.json").unlink(missing_ok=True)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    pt(asked, "-m", policy, "--max-new-tokens", 4, "-o", "one.jsonl")
    pt("one.jsonl", "-m", other, "--max-new-tokens", 4, "--append", "-o", "two.jsonl")
    for old, new in zip(read(tmp_path / "one.jsonl"), read(tmp_path / "two.jsonl")):
        assert new["completions"][0] == old["completions"][0] and new["template"] == old["template"]
        assert "text" in new["completions"][1] and "token_ids" not in new["completions"][1]


def test_bad_rows_are_errors_or_left_out(pt, asked, policy, tmp_path):
    rows = read(asked)[:3]
    long = {"id": "long", "prompt": [{"role": "user", "content": "a" * 4000}]}
    bad = write(tmp_path / "bad.jsonl", [rows[0], long, rows[1], {"id": "t", "text": "no prompt"}])
    _, failed = pt(bad, "-m", policy, "-o", "out.jsonl", check=3)
    assert "bad.jsonl:2" in failed and "context" in failed and not (tmp_path / "out.jsonl").exists()
    args = ("--on-error", "skip", "--rejects", "rejects.jsonl", "--max-new-tokens", 4)
    _, done = pt(bad, "-m", policy, *args, "-o", "out.jsonl")
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == [row["id"] for row in rows[:2]]
    assert [row["line"] for row in read(tmp_path / "rejects.jsonl")] == [2, 4]
    assert "4 in, 2 out" in done and "2 errored" in done


def test_stopped_and_run_again_is_the_same(pt, asked, policy, tmp_path):
    args = [asked, "-m", policy, "-n", 4, "--max-new-tokens", 24, "--batch-size", 4]
    args = [str(a) for a in args]
    pt(*args, "-o", "whole.jsonl")
    command = [str(Path(sys.executable).parent / "pt-sample"), *args, "--threads", "1", "-o", "out.jsonl"]
    for _ in range(10):  # on a busy machine it may be done before the signal
        running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
        while not list((tmp_path / "out.jsonl.run").glob("chunk-*")) and running.poll() is None:
            time.sleep(0.002)
        running.send_signal(signal.SIGTERM)
        if running.wait(200) == 75:
            break
        assert running.returncode == 0, running.stderr.read()
        (tmp_path / "out.jsonl").unlink()
    assert running.returncode == 75
    chunks = list((tmp_path / "out.jsonl.run").glob("chunk-*"))
    assert 1 <= len(chunks) < 5 and not (tmp_path / "out.jsonl").exists()
    stamps = {path: path.stat().st_mtime_ns for path in chunks}
    assert stamps
    pt(*args, "-o", "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "out.jsonl.run").exists()


def test_repeated_ids_are_answered_apart(pt, asked, policy, tmp_path):
    """Two records of one id and one prompt are two draws; the first is what it would be alone."""
    row = {"id": "q", "prompt": [{"role": "user", "content": "Say something."}]}
    write(tmp_path / "twice.jsonl", [row, row, {**row, "id": "r"}])
    write(tmp_path / "once.jsonl", [row])
    for name in ("twice", "once"):
        pt(f"{name}.jsonl", "-m", policy, "-n", 2, "--max-new-tokens", 12, "-o", f"{name}.out.jsonl")
    drawn = [[c["token_ids"] for c in found["completions"]] for found in read(tmp_path / "twice.out.jsonl")]
    assert drawn[0] == [c["token_ids"] for c in read(tmp_path / "once.out.jsonl")[0]["completions"]]
    assert len({str(ids) for group in drawn for ids in group}) == 6


def test_malformed_ids_are_a_bad_row(pt, policy, tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "Hi"}], "prompt_ids": ids} for ids in ([1, "2"], [-1], [2**40], [1.5])]
    write(tmp_path / "bad.jsonl", rows)
    _, err = pt("bad.jsonl", "-m", policy, "-o", "out.jsonl", "--on-error", "skip")
    assert "4 in, 0 out, 4 errored" in err and "prompt_ids is not a list of token ids" in err
