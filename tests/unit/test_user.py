"""Functions of the user: what they may return, how they fail, and that no record reaches them."""

import json
import os
import sys
import threading

import pytest

from pt_tools import rewards
from pt_tools.rewards import user, worker

BODY = '''
import os, sys, time
STARTED = os.getpid()
def words(completion, spec): return len(completion["text"].split())
def both(completion, spec): return {"score": 0.5, "detail": [spec["key"], sorted(completion)]}
def bare(completion, spec): return {"score": 2}
def truth(completion, spec): return "yes" in completion["text"]
def echo(completion, spec): return {"score": 1, "detail": ascii(completion["text"])}
def pid(completion, spec): return {"score": 1, "detail": [os.getpid(), STARTED]}
def act(completion, spec):
    text = completion["text"]
    if text == "raise": raise ValueError("no idea")
    if text == "exit": os._exit(3)
    if text == "leave": sys.exit(0)
    if text == "hang": time.sleep(600)
    if text == "spin":
        while True: pass
    if text == "print": print("1.0\\n" * 100, flush=True)
    return {"nan": float("nan"), "inf": float("-inf"), "none": None, "word": "good", "list": [1], "empty": {}, "set": {"score": 1, "detail": {1}}}.get(text, 1.0)
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The module graders.py in the current directory."""
    (tmp_path / "graders.py").write_text(BODY)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "inner.py").write_text("def one(completion, spec): return 1\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for pool in user._POOLS.values():
        pool.close()
    user._POOLS.clear()
    rewards.configure(added=())


def spec(function, **more):
    found = {"name": "user", "key": function, "function": f"graders:{function}", **more}
    user.check(found)
    return found


def grade(function, text, **more):
    return user.grade(spec(function, **more), {"text": text, "finish": "stop"})


def test_what_a_function_may_return(here):
    assert grade("words", "a b c") == (3.0, None)
    assert grade("both", "x") == (0.5, ["both", ["finish", "text"]])
    assert grade("bare", "x") == (2.0, None)
    assert [grade("truth", text)[0] for text in ("yes", "no")] == [1.0, 0.0]
    assert grade("act", "print") == (1.0, None)
    for text in ("", "\x00\x1b", "\ud800é", "x" * 1_000_000):
        assert grade("echo", text) == (1.0, ascii(text))
    assert user.grade({"name": "user", "function": "pack.inner:one"}, {"text": ""}) == (1.0, None)


@pytest.mark.parametrize("text, failure, why", [
    ("raise", worker.Failed, "ValueError: no idea"), ("leave", worker.Failed, "SystemExit"), ("exit", worker.Lost, "exit 3"), ("nan", worker.Failed, "nan"),
    ("inf", worker.Failed, "inf"), ("none", worker.Failed, "TypeError"), ("word", worker.Failed, "ValueError"), ("list", worker.Failed, "TypeError"),
    ("empty", worker.Failed, "KeyError"), ("set", worker.Failed, "TypeError"),
])  # fmt: skip
def test_whatever_goes_wrong_is_the_graders_failure(here, text, failure, why):
    with pytest.raises(failure, match=why):
        grade("act", text)
    assert grade("act", "fine") == (1.0, None)


@pytest.mark.parametrize("text", ["hang", "spin"])
def test_a_function_that_hangs_is_ended(here, text):
    with pytest.raises(worker.Timeout):
        grade("act", text, timeout_s=0.3)
    assert grade("act", "fine", timeout_s=60) == (1.0, None)


def test_a_function_that_is_not_there(here):
    (here / "broken.py").write_text("import nothing_of_this_name\n")
    for target in ("graders:missing", "nowhere_at_all:f", "broken:f"):
        with pytest.raises(worker.Lost, match="did not start"):
            user.grade({"name": "user", "function": target}, {"text": "x"})


def test_through_the_core_only_the_command_line_reaches_it(here):
    rewards.configure(added=(spec("words", key="count"), spec("act")))
    verdict = rewards.verify({}, "a b")
    assert verdict.scores == {"count": 2.0, "act": 1.0} and verdict.reward == 3.0
    verdict = rewards.verify({}, "raise")
    assert verdict.scores == {"count": 1.0} and verdict.errors == {"act": "Failed: ValueError: no idea"} and verdict.reward is None
    rewards.configure(added=())
    for own in (spec("words"), {"name": "user"}, {"name": "graders:words"}, {"name": "math", "answer": "1", "function": "graders:words"}):
        verdict = rewards.verify({"verifier": own}, "a b")
        assert verdict.scores == {} and "code to import" in verdict.errors["verifier"]
    assert "graders" not in sys.modules


def test_the_folders_to_import_from(here):
    other = here / "other"
    other.mkdir()
    (other / "graders.py").write_text("def words(completion, spec): return -1\n")
    assert grade("words", "a b") == (2.0, None) and grade("words", "a b", path=[str(other)]) == (-1.0, None)


def test_checking_imports_nothing(here):
    (here / "noisy.py").write_text("open('imported', 'w')\ndef f(completion, spec): return 1\n")
    user.check({"name": "user", "function": "noisy:f"})
    assert not os.path.exists("imported")
    assert user.grade({"name": "user", "function": "noisy:f"}, {"text": "x"}) == (1.0, None) and os.path.exists("imported")


@pytest.mark.parametrize("wrong", [
    {}, {"function": None}, {"function": "graders"}, {"function": "graders:"}, {"function": ":f"}, {"function": "a/b.py:f"}, {"function": "a:f()"}, {"function": "a..b:f"},
    {"function": "a:f.g"}, {"function": "a:f", "timeout_s": 0}, {"function": "a:f", "timeout_s": "5"}, {"function": "a:f", "path": "."}, {"function": "a:f", "path": [1]},
    {"function": "a:f", "threads": 2},
])  # fmt: skip
def test_what_names_no_function_is_refused(wrong):
    with pytest.raises(ValueError):
        user.check({"name": "user", **wrong})


def test_eight_threads_share_the_workers(here):
    texts = [f"{'a ' * n}b" for n in range(40)]
    found = [None] * 8

    def work(at):
        found[at] = [grade("words", text)[0] for text in texts]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [[n + 1 for n in range(40)]] * 8 and len(user._POOLS) == 1
    pids = {json.dumps(grade("pid", "x")[1]) for _ in range(5)}
    assert all(len(set(json.loads(pair))) == 1 for pair in pids) and os.getpid() not in {json.loads(pair)[0] for pair in pids}
