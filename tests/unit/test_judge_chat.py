"""The chat client against a real server: retries, limits, order, and what it does when the server misbehaves."""

import email.utils
import signal
import subprocess
import sys
import threading
import time

import pytest
from judge_server import completion, serving

from pt_tools import chat
from pt_tools.errors import Usage


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(chat, "BACKOFF_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def user(text):
    return [{"role": "user", "content": text}]


def said(body):
    return body["messages"][-1]["content"]


def test_a_reply_and_what_is_sent():
    with serving(lambda body: f"you said {said(body)}") as server:
        client = chat.Chat(server.url)
        reply = client.complete(user("é \U0001f600"), temperature=0.5, max_tokens=7, seed=3)
        assert reply == chat.Reply("you said é \U0001f600", "stop", 10, 3)
        assert server.seen == [{"model": "tiny", "messages": user("é \U0001f600"), "temperature": 0.5, "max_tokens": 7, "seed": 3}]
        assert "Authorization" not in server.headers[0]
        assert chat.Chat(server.url.removesuffix("/v1")).base_url == server.url
        client.close()


def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-1")

    def refuse(body):
        return 400, {}, b'{"error": {"message": "bad request of sk-secret-1"}}'

    with serving(refuse) as server:
        client = chat.Chat(server.url, api_key_env="MY_KEY")
        with pytest.raises(chat.Refused) as caught:
            client.complete(user("x"))
        assert str(caught.value) == "HTTP 400: bad request of …" and caught.value.status == 400
        assert server.headers[0]["Authorization"] == "Bearer sk-secret-1"
        assert len(server.seen) == 1
    with pytest.raises(Usage, match="NO_SUCH_KEY, which should hold the API key, is not set"):
        chat.Chat("http://localhost:1", api_key_env="NO_SUCH_KEY")


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_failures_that_may_pass_are_tried_again(status):
    def say(body):
        return (status, {}, b"busy") if len(server.seen) <= 2 else "fine"

    with serving(say) as server:
        assert chat.Chat(server.url, retries=2).complete(user("x")).text == "fine"
        assert len(server.seen) == 3 and server.seen[0] == server.seen[2]
        server.seen.clear()
        with pytest.raises(chat.Unreachable, match=f"HTTP {status}: busy \\(2 attempts\\)"):
            chat.Chat(server.url, retries=1).complete(user("x"))


@pytest.mark.parametrize("data", [b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 5}}]}',
                                  b"[" * 100_000])
def test_answers_that_are_none(data):
    with serving(lambda body: (200, {}, data)) as server:
        with pytest.raises(chat.Unreachable, match="the answer is no"):
            chat.Chat(server.url, retries=1).complete(user("x"))
        assert len(server.seen) == 2


def test_retry_after_is_honoured():
    """Lower bounds only: how long a client waits at least does not depend on the machine."""

    def say(body):
        first = len(server.seen) == 1
        return (429, {"Retry-After": "1"}, b"slow down") if first else "fine"

    with serving(say) as server:
        client = chat.Chat(server.url, concurrency=1, retries=1)
        assert [reply.text for _, reply in client.complete_all([(user("a"), {}), (user("b"), {})])] == ["fine", "fine"]
        assert [said(body) for body in server.seen] == ["a", "a", "b"]
        assert server.times[1] - server.times[0] >= 0.99
    with serving(lambda body: (429, {"Retry-After": "3600"}, b"")) as server:
        with pytest.raises(chat.Unreachable, match="asks to wait 3600 s"):
            chat.Chat(server.url, retries=5).complete(user("x"))
        assert len(server.seen) == 1


def test_only_too_many_requests_hold_back_the_others():
    for status, expected in ((429, [0.25]), (503, [])):
        with serving(lambda body: "fine" if len(server.seen) > 1 else (status, {"Retry-After": "0.25"}, b"")) as server:
            client, held = chat.Chat(server.url), []
            hold = client._pace.hold
            client._pace.hold = lambda seconds: (held.append(seconds), hold(seconds))
            assert client.complete(user("x")).text == "fine" and held == expected
    pace, start = chat._Pace(0), time.monotonic()
    pace.hold(0.3)
    pace.turn(threading.Event())
    assert time.monotonic() - start >= 0.3


def test_retry_after_in_all_its_forms():
    soon = time.time() + 100
    assert chat._retry_after("7") == 7.0 and chat._retry_after("0.5") == 0.5
    assert 90 < chat._retry_after(email.utils.formatdate(soon, usegmt=True)) <= 100
    assert chat._retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert [chat._retry_after(text) for text in (None, "", "soon", "-3", "1 2", " ")] == [None] * 6


def test_a_server_that_hangs_is_asked_again():
    release = threading.Event()

    def say(body):
        if len(server.seen) == 1:
            release.wait(60)
        return "fine"

    with serving(say) as server:
        assert chat.Chat(server.url, timeout_s=1.0, retries=10).complete(user("x")).text == "fine"
        assert len(server.seen) >= 2
        release.set()


def test_an_endless_answer_ends():
    with serving(lambda body: (200, {}, b" " * (chat.MAX_REPLY + 1))) as server:
        with pytest.raises(chat.Refused, match="more than 16777216 bytes"):
            chat.Chat(server.url).complete(user("x"))


def test_so_many_at_once_and_no_more():
    together = threading.Barrier(3)

    def say(body):
        together.wait(60)  # only three that are there at the same time come past
        return said(body)

    with serving(say) as server:
        client = chat.Chat(server.url, concurrency=3, retries=0)
        found = dict(client.complete_all([(user(str(n)), {}) for n in range(12)]))
        assert {n: reply.text for n, reply in found.items()} == {n: str(n) for n in range(12)}
        assert server.most == 3


def test_requests_a_minute():
    with serving(lambda body: "x") as server:
        client = chat.Chat(server.url, rate_per_minute=240)
        start = time.monotonic()
        assert len(list(client.complete_all([(user("x"), {})] * 4))) == 4
        assert time.monotonic() - start >= 0.75  # the first /models request and three gaps of a quarter second


CHILD = """
import sys
from pt_tools import chat, stop
from pt_tools.errors import Stopped
stop.install()
client = chat.Chat(sys.argv[1], timeout_s=3600, concurrency=2)
try:
    list(client.complete_all([([], {})] * 5))
except Stopped:
    client.close()
    sys.exit(75)
"""


def test_a_stop_ends_the_process_though_the_server_hangs():
    asked, release = threading.Event(), threading.Event()

    def say(body):
        asked.set()
        release.wait(600)
        return "late"

    with serving(say) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, server.url], stderr=subprocess.PIPE)
        try:
            assert asked.wait(300)
            child.send_signal(signal.SIGTERM)
            _, said = child.communicate(timeout=300)
            assert (child.returncode, said) == (75, b"")
        finally:
            child.kill()
            release.set()
        assert len(server.seen) <= 2


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://user:pw@host/v1", "http://host/v1?key=1",
                                 "http://host:99999/"])
def test_addresses_that_are_none(url):
    with pytest.raises(Usage):
        chat.Chat(url)


def test_what_cannot_work_is_said_at_once(monkeypatch):
    with pytest.raises(Usage, match="does not answer: ConnectError"):
        chat.Chat("http://127.0.0.1:9/v1", retries=1)
    with serving(lambda body: "x", models=401) as server:
        with pytest.raises(Usage, match="wants an API key; put it into the environment variable OPENAI_API_KEY"):
            chat.Chat(server.url, "tiny")
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        with pytest.raises(Usage, match="refuses the API key in OPENAI_API_KEY"):
            chat.Chat(server.url, "tiny")
    with serving(lambda body: "x", models=("a", "b")) as server:
        with pytest.raises(Usage, match=r"has several models \(a, b\); name the one to ask"):
            chat.Chat(server.url)
        assert chat.Chat(server.url, "b").model == "b"


@pytest.mark.parametrize("models", [404, 500, 429, ()])
def test_a_server_without_a_list_of_models(models):
    with serving(lambda body: "x", models=models) as server:
        with pytest.raises(Usage, match="lists no models"):
            chat.Chat(server.url)
        assert chat.Chat(server.url, "c").complete(user("x")).text == "x"


def test_a_reply_without_content_is_empty():
    data = completion("x").replace(b'"content": "x"', b'"content": null')
    with serving(lambda body: (200, {}, data)) as server:
        assert chat.Chat(server.url).complete(user("x")) == chat.Reply("", "stop", 10, 3)
