"""Judges that are real models: a tiny one behind `transformers serve`, and one in this process."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import toys
import torch

from pt_tools import chat, localchat, models, options, tokens
from pt_tools.errors import BadModel, Usage
from pt_tools.rewards.judge import Judge, JudgeSettings

ONE = options.Device(threads=1)
PROMPT = "{{ aspect }}{{ description }} {{ nonce }} {{ prompt }} {{ completion }}"


def row(*texts, id="r"):
    return {"id": id, "prompt": "1+1?", "completions": [{"text": text} for text in texts]}


@pytest.fixture
def prompt(tmp_path):
    (tmp_path / "aspects.jinja").write_text(PROMPT)
    return str(tmp_path)


@pytest.fixture(scope="module")
def served(policy, tmp_path_factory):
    """Address of `transformers serve` with a tiny model of random weights."""
    pytest.importorskip("fastapi", reason="pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    env = {**os.environ, "HF_HOME": str(log.parent / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    argv = [Path(sys.executable).parent / "transformers", "serve", policy, "--host", "127.0.0.1", "--port", str(port),
            "--device", "cpu"]
    with open(log, "wb") as file:
        process = subprocess.Popen(list(map(str, argv)), stdout=file, stderr=file, env=env)
    try:
        while not healthy(port):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def healthy(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30).status == 200
    except OSError:
        return False


def test_transformers_serve(served, policy, prompt):
    """A model of random weights talks gibberish: every request is answered, none is a judgement, each is an error."""
    client = chat.Chat(served, str(policy), retries=2)
    first = client.complete([{"role": "user", "content": "1+1"}], temperature=0.0, max_tokens=8, seed=0)
    assert first.finish in ("stop", "length") and first.text
    tok = models.load_tokenizer(str(policy))
    assert first.tokens_in == len(tokens.encode_prompt(tok, [{"role": "user", "content": "1+1"}])) and 0 < first.tokens_out <= 8
    assert client.complete([{"role": "user", "content": "1+1"}], temperature=0.0, max_tokens=8, seed=0) == first
    records = [row("2", "3"), row("", id="s")]
    judge = Judge(JudgeSettings(served, str(policy), aspects=("honesty", "wit=x"), prompt=prompt, retries=1, max_tokens=8))
    judge.score(records)
    judge.close()
    for completion in records[0]["completions"]:
        assert completion["scores"] == {} and sorted(completion["errors"]) == ["honesty", "wit"]
        assert completion["errors"]["honesty"].startswith("no valid judgement in 2 replies: the judge's reply ")
    assert records[1]["completions"][0]["scores"] == {"honesty": 1.0, "wit": 1.0}
    assert judge.usage["requests"] == 8 and judge.usage["tokens_in"] > 8 and 8 <= judge.usage["tokens_out"] <= 64
    with pytest.raises(Usage, match="HTTP 400: Server is pinned"):
        Judge(JudgeSettings(served, "no/such", retries=1)).score([row("2")])


def test_the_server_and_this_process_say_the_same(served, policy):
    remote, local = chat.Chat(served, str(policy)), localchat.LocalChat(str(policy), ONE)
    for text in ("1+1", "Name a colour.", "x"):
        request = [{"role": "user", "content": text}]
        a, b = (each.complete(request, temperature=0.0, max_tokens=12, seed=0) for each in (remote, local))
        assert (a.text, a.finish, a.tokens_in) == (b.text, b.finish, b.tokens_in)


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    """A model directory that was taught to judge: 5 if the answer is a, 2 if it is b, prose if it is c."""
    torch.set_num_threads(1)
    tok, model = toys.tokenizer(), toys.llama(initializer_range=0.05)
    replies = {"a": '{"score": 5}', "b": '{"score": 2}', "c": "who knows..."}
    rows = [tokens.encode_completion(tok, [{"role": "user", "content": f"honesty {7**n % 2**64:016x} 1+1? {answer}"}], reply)
            for n in range(30, 46) for answer, reply in replies.items()]
    start, batch = len(rows[0][0]), torch.tensor([head + tail for head, tail in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(70):
        logits = model(input_ids=batch).logits[:, start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, start:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return toys.save(tmp_path_factory.mktemp("grader") / "model", model.eval(), tok)


def test_a_local_model_as_judge(grader, prompt, tmp_path):
    settings = JudgeSettings(grader, aspects=("honesty",), prompt=prompt, retries=1, max_tokens=30)
    records = [row("a", "b", "c", id="r"), row("b", "a", "a" * 200, id="s")]
    judge = Judge(settings, tmp_path / "judge.jsonl", ONE)
    judge.score(records)
    judge.close()
    scores = [[each["scores"].get("honesty") for each in record["completions"]] for record in records]
    assert scores == [[5.0, 2.0, None], [2.0, 5.0, None]]
    assert records[0]["completions"][2]["errors"]["honesty"].startswith("no valid judgement in 2 replies")
    assert "the model's context is 128" in records[1]["completions"][2]["errors"]["honesty"]
    assert records[0]["completions"][0]["details"]["honesty"] == {"reply": '{"score": 5}'}
    assert judge.usage["requests"] == 6
    again = Judge(settings, tmp_path / "judge.jsonl", ONE)
    again.engine.complete_all = lambda requests: iter(()) if not requests else pytest.fail("asked again")
    fresh = [row("a", "b", "c", id="r")]
    again.score(fresh)
    assert fresh[0] == records[0] and again.usage == judge.usage


def test_a_judge_that_is_no_model(tmp_path):
    with pytest.raises(BadModel, match="no config.json"):
        Judge(JudgeSettings(str(tmp_path)))
    with pytest.raises(BadModel):
        Judge(JudgeSettings(str(tmp_path / "none")))
