"""From a Config to a command: origins, refusals, errors as one line and one code, signals, pipes."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import tomllib

import pytest

COMMAND = textwrap.dedent('''
    import os, sys, time
    from dataclasses import dataclass
    from pt_tools import errors, options, stop
    from pt_tools.cli import command
    from pt_tools.options import opt

    @dataclass(frozen=True)
    class Config(options.Run, options.Model, options.Input, options.Common):
        beta: float = opt(0.1, "Strength of the pull.", least=0)
        loss: str = opt("sigmoid", "Loss.", choices=("sigmoid", "ipo"))
        fail: str | None = opt(None, "How to fail.")

    @command("pt-model", Config, reads="records", writes="model", examples=["pt-model x.jsonl -m m -o o"])
    def model(cfg, job):
        "Make a model."
        job.rows.add("out", len(job.records.load()[0]))
        (job.out.stage / "weights").write_text(str(cfg.beta))
        if cfg.fail == "storage":
            raise OSError(28, "No space left on device", "weights")
        if cfg.fail == "memory":
            raise MemoryError
        if cfg.fail == "bug":
            raise KeyError("x")
        if cfg.fail == "lose":
            job.rows.n["out"] -= 1
        if cfg.fail == "wait":
            print("ready", file=sys.stderr, flush=True)
            while not stop.requested():
                time.sleep(0.01)
            job.out.checkpoints.mkdir(exist_ok=True)
            (job.out.checkpoints / "1").write_text("state")
            stop.check()

    @dataclass(frozen=True)
    class Stream(options.Output, options.Input, options.Common):
        pass

    @command("pt-stream", Stream, reads="records", writes="records", examples=["pt-stream x.jsonl"])
    def stream(cfg, job):
        "Copy records."
        for record in job.records:
            job.out.write(record)

    {"model": model, "stream": stream}[sys.argv.pop(1)]()
''')


@pytest.fixture
def tool(tmp_path):
    (tmp_path / "tool.py").write_text(COMMAND)
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_text("1")

    def run(*argv, input=None, **more):
        argv = [sys.executable, "tool.py", *argv]
        return subprocess.run(argv, cwd=tmp_path, input=input, capture_output=True, text=True, timeout=60, **more)

    run.start = lambda *argv, **more: subprocess.Popen(
        [sys.executable, "tool.py", *argv], cwd=tmp_path, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **more)
    return run


MODEL = ("model", "rows.jsonl", "-m", "m", "-o", "o")


def test_stdout_is_exactly_the_directory(tool, tmp_path):
    done = tool(*MODEL, "--json")
    assert (done.returncode, done.stdout) == (0, "o\n")
    summary = json.loads(done.stderr.splitlines()[-1])
    assert summary["rows"]["in"] == summary["rows"]["out"] == 2 and summary["out"] == "o"
    assert not (tmp_path / "o.run").exists()
    again = tool(*MODEL)
    assert (again.returncode, again.stdout) == (0, "o\n") and "nothing to do" in again.stderr


@pytest.mark.parametrize("flags, code, line", [
    (("--beta", "-1"), 2, "--beta must be at least 0, not -1.0"),
    (("--loss", "kto"), 2, "'kto' is not one of 'sigmoid', 'ipo'"),
    (("--lr", "1"), 2, "No such option"),
    (("--fail", ""), 2, "--fail is empty"),
    (("--max-bad", "3"), 2, "--max-bad is of use only with --on-error skip"),
    (("--rejects", "r"), 2, "--rejects is of use only with --on-error skip"),
    (("--config", "nowhere.toml"), 2, "no such file: nowhere.toml"),
    (("--fail", "storage"), 7, "weights: No space left on device"),
    (("--fail", "memory"), 7, "out of memory"),
    (("--fail", "bug"), 1, "unexpected KeyError: 'x'"),
    (("--fail", "lose"), 1, "1 rows are unaccounted for"),
    (("--resume", "must"), 2, "there is nothing to resume"),
])
def test_failures_are_one_line_and_a_code(tool, tmp_path, flags, code, line):
    done = tool(*MODEL, *flags)
    assert done.returncode == code and done.stdout == ""
    last = done.stderr.strip().splitlines()
    assert len(last) == 1 and line in last[0] and last[0].startswith("pt-model: "), done.stderr
    assert not (tmp_path / "o").exists()


def test_missing_option_and_input(tool):
    assert "--model is required" in tool("model", "rows.jsonl", "-o", "o").stderr
    assert tool("model", "nope.jsonl", "-m", "m", "-o", "o").returncode == 2
    assert tool("model", "rows.jsonl", "-m", "./nope", "-o", "o").returncode == 2


def test_traceback_only_with_v(tool):
    assert "Traceback" in tool(*MODEL, "--fail", "bug", "-v").stderr


def test_bad_line_of_stdin_is_named(tool):
    done = tool("model", "-m", "m", "-o", "o", input='{"a": 1}\n' * 1500 + "{\n")
    assert done.returncode == 3
    assert done.stderr.startswith("pt-model: stdin:1501: not JSON") and done.stderr.count("\n") == 1


def test_origins_and_config_round_trip(tool, tmp_path):
    (tmp_path / "c.toml").write_text('beta = 1\nloss = "ipo"\nmodel = "m"\nset = ["a=1", "b=2"]\n')
    done = tool("model", "rows.jsonl", "-o", "o", "--config", "c.toml", "--beta", "2", "--print-config")
    assert done.returncode == 0
    for line in ("beta = 2.0  # flag", 'loss = "ipo"  # c.toml', "seed = 0  # default", 'set = ["a=1", "b=2"]  # c.toml'):
        assert line in done.stdout.splitlines()
    (tmp_path / "again.toml").write_text(done.stdout)
    again = tool("model", "--config", "again.toml", "--print-config")
    assert tomllib.loads(again.stdout) == tomllib.loads(done.stdout)


@pytest.mark.parametrize("text, line", [
    ("betta = 1\n", "c.toml: unknown option 'betta'"), ('beta = "x"\n', "c.toml: beta = 'x' is not float"),
    ('loss = "kto"\n', "c.toml: loss = 'kto' is not one of sigmoid, ipo"), ("beta = \n", "c.toml: not TOML"),
    ("seed = true\n", "c.toml: seed = True is not int")])
def test_bad_config(tool, tmp_path, text, line):
    (tmp_path / "c.toml").write_text(text)
    done = tool(*MODEL, "--config", "c.toml")
    assert done.returncode == 2 and line in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_signals(tool, tmp_path, number):
    child = tool.start(*MODEL, "--fail", "wait")
    child.stderr.readline()
    child.send_signal(number)
    child.wait(timeout=120)
    assert child.returncode == (-signal.SIGINT if number == signal.SIGINT else 75)
    assert child.stdout.read() == "" and "run the same line again" in child.stderr.read()
    assert (tmp_path / "o.run" / "checkpoints").is_dir() and not (tmp_path / "o.run" / "lock").exists()


def test_second_signal_ends_at_once(tool):
    child = tool.start(*MODEL, "--fail", "wait", start_new_session=True)
    child.stderr.readline()
    os.kill(child.pid, signal.SIGSTOP)
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGINT)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait(timeout=120) in (-signal.SIGTERM, -signal.SIGINT)


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("kind", ["model", "stream"])
def test_signal_while_waiting_for_stdin(tool, kind):
    argv = ("model", "-m", "m", "-o", "o") if kind == "model" else ("stream",)
    child = tool.start(*argv, stdin=subprocess.PIPE)
    while not catches(child.pid, signal.SIGTERM):
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=120) == 75


def test_pipes(tool, tmp_path):
    (tmp_path / "many.jsonl").write_text('{"a": 1}\n' * 200_000)
    head = subprocess.run(["bash", "-c", f"{sys.executable} tool.py stream many.jsonl | head -1; echo ${{PIPESTATUS[0]}}"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert head.stdout == '{"a":1}\n141\n' and head.stderr == ""
    for argv in (("stream", "rows.jsonl"), ("stream", "--help"), ("model", "--print-config")):
        full = subprocess.run([sys.executable, "tool.py", *argv], cwd=tmp_path, stdout=open("/dev/full", "w"),
                              stderr=subprocess.PIPE, text=True)
        assert full.returncode == 7 and full.stderr.count("\n") == 1, full.stderr
    closed = subprocess.run(["bash", "-c", f"{sys.executable} tool.py stream rows.jsonl >&-"], cwd=tmp_path,
                            capture_output=True, text=True)
    assert closed.returncode == 2 and closed.stderr == "pt-stream: stdout is closed\n"
    assert subprocess.run(["bash", "-c", f"{sys.executable} tool.py stream rows.jsonl 2>&-"], cwd=tmp_path,
                          capture_output=True).returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_write_that_ends_half_way_is_no_success(tmp_path, tool, unbuffered):
    """The disk is full, or the reader gone, in the middle of one long line: what is left of it is not forgotten."""
    (tmp_path / "long.jsonl").write_text('{"a": "%s"}\n' % ("x" * 2**20))
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    for line, code in (("(ulimit -f 100; exec {} > out.jsonl)", 7), ("{} | head -c 9 > out.jsonl", 141)):
        line = f"set -o pipefail; {line.format(f'{sys.executable} tool.py stream long.jsonl')}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == code and "rows:" not in done.stderr
    assert done.stderr == ""
    whole = subprocess.run([sys.executable, "tool.py", "stream", "long.jsonl"], cwd=tmp_path, capture_output=True, env=env)
    assert whole.returncode == 0 and len(whole.stdout) == len('{"a":""}\n') + 2**20


def test_two_writers(tool):
    first = tool.start(*MODEL, "--fail", "wait")
    first.stderr.readline()
    second = tool(*MODEL, "--fail", "wait")
    assert second.returncode == 6 and f"process {first.pid}" in second.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 75


def test_secrets_stay_out_of_the_manifest(tool, tmp_path):
    done = tool(*MODEL, "--set", "hub=hf_abcdefghijklmnop", "--set", "url=https://me:pass@host/x")
    assert done.returncode == 0
    text = (tmp_path / "o" / "MANIFEST.json").read_text()
    assert "hf_abc" not in text and "me:pass" not in text and text.count("[redacted]") >= 2


def test_paths_in_the_manifest_are_relative(tool, tmp_path):
    done = tool("model", str(tmp_path / "rows.jsonl"), "-m", str(tmp_path / "m"), f"--out={tmp_path}/o")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "o" / "MANIFEST.json").read_text())
    assert manifest["command"][1:] == ["rows.jsonl", "-m", "m", "--out=o"]
    assert (manifest["options"]["files"], manifest["options"]["out"]) == (["rows.jsonl"], "o")


def test_data_command_file_is_atomic_and_keyed(tool, tmp_path):
    assert tool("stream", "rows.jsonl", "-o", "out.jsonl").returncode == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    assert "nothing to do" in tool("stream", "rows.jsonl", "-o", "out.jsonl").stderr
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n')
    done = tool("stream", "rows.jsonl", "-o", "out.jsonl")
    assert done.returncode == 3 and "rows.jsonl:2: not JSON" in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_no_secret_reaches_stderr(tool):
    done = tool("model", "rows.jsonl", "-m", "hf_abcdefghijklmnop", "-o", "o")
    assert done.returncode == 2 and "hf_abc" not in done.stderr and "[redacted]" in done.stderr


def test_an_output_is_no_input_nor_around_one(tool, tmp_path):
    (tmp_path / "m" / "rows.jsonl").write_text('{"a": 1}\n')
    before = sorted(path.name for path in (tmp_path / "m").iterdir())
    for out, rows in (("m", "rows.jsonl"), ("m/sub", "rows.jsonl"), (".", "rows.jsonl"), ("m", "m/rows.jsonl")):
        done = tool("model", rows, "-m", "m", "-o", out)
        assert done.returncode == 2 and "are one, or one is inside the other" in done.stderr, done.stderr
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == before


def test_rows_from_pipes_are_those_of_a_file(tool, tmp_path):
    line = f"{sys.executable} tool.py model <(cat rows.jsonl) rows.jsonl <(cat rows.jsonl) -m m -o o"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "rows: 6 in, 6 out" in done.stderr, done.stdout + done.stderr
    bad = f"{sys.executable} tool.py model <(echo 1) -m m -o p"
    done = subprocess.run(["bash", "-c", bad], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and re.search(r"/dev/fd/\d+:1: not a JSON object", done.stderr), done.stderr
    assert not (tmp_path / "p.run").exists()


def test_a_flag_of_a_file_of_options_can_be_taken_back(tool, tmp_path):
    (tmp_path / "c.toml").write_text("quiet = true\nkeep-checkpoints = 2\n")
    shown = tool(*MODEL, "--config", "c.toml", "--no-quiet", "--print-config").stdout
    assert tomllib.loads(shown)["quiet"] is False and tomllib.loads(shown)["keep-checkpoints"] == 2
    (tmp_path / "c.toml").write_text("keep-checkpoints = 2\nkeep_checkpoints = 3\n")
    done = tool(*MODEL, "--config", "c.toml")
    assert done.returncode == 2 and "c.toml: an option is given twice" in done.stderr


@pytest.mark.parametrize("flags", [("--seed", str(2**32)), ("--threads", "5000")])
def test_numbers_beyond_all_use_are_refused(tool, flags):
    done = tool(*MODEL, *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
