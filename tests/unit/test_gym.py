"""Reasoning-gym's sets: their own answers, senseless ones, and scorers that would run text as code."""

import importlib.util
import json
import os
import threading

import pytest

from pt_tools import rewards
from pt_tools.rewards import gym, worker

ENTRY = {"question": "2 + 2", "answer": "4", "metadata": {}}
EVALUATES = {"bitwise_arithmetic", "countdown", "intermediate_integration", "number_sorting", "polynomial_multiplication", "puzzle24", "simple_integration"}
UNSOUND = {"game_of_life_halting", "arc_agi", "rearc"}  # pays for anything; lose their own answer's type in JSON
CODE = "[__import__('os').system('touch canary')]"


@pytest.fixture(scope="module")
def sets():
    """One entry of every set that can be built, as it comes out of a JSON file."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    from reasoning_gym.factory import DATASETS

    found = {}
    for name in sorted(DATASETS.keys() - {"composite"}):
        entry = reasoning_gym.create_dataset(name, size=1, seed=7)[0]
        found[name] = {"name": "reasoning-gym", "dataset": name, "entry": json.loads(json.dumps(entry, default=str))}
    yield found
    gym._POOL.close()


def test_without_the_package_the_row_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    verdict = rewards.verify({"verifier": {"name": "reasoning-gym", "dataset": "x", "entry": ENTRY}}, "4")
    assert verdict.scores == {} and "needs reasoning-gym: pip install" in verdict.errors["reasoning-gym"]


@pytest.mark.parametrize("wrong", [
    {"dataset": None}, {"dataset": "os:system"}, {"dataset": "../x"}, {"dataset": ""}, {"entry": None}, {"entry": {"question": "q"}}, {"entry": {**ENTRY, "answer": 4}},
    {"partial": 1}, {"seed": 3},
])  # fmt: skip
def test_what_can_never_grade_is_refused(wrong):
    with pytest.raises(ValueError, match="dataset|entry|partial|unknown key"):
        gym.check({"name": "reasoning-gym", "dataset": "x", "entry": ENTRY, **wrong})


@pytest.mark.parametrize("text, answer", [
    ("4", "4"), (" 4\n", "4"), ("<think>5</think> 4", "4"), ("<answer>4</answer> or 5", "4"), ("<answer>3</answer><answer>\n4 </answer>", "4"), ("<think><answer>4</answer></think>", ""),
])  # fmt: skip
def test_where_the_answer_is_found(text, answer):
    assert gym._answer(text) == answer


def test_the_guard_stops_eval_and_exec_and_nothing_else():
    guard = gym._Guard()
    guard.on = True
    for name in ("<string>", b"<string>"):
        with pytest.raises(gym._Stopped):
            guard("compile", ("1 + 1", name))
    guard("compile", (b"x = 1", "/a/module.py"))
    guard("open", ("<string>", "r", 0))
    guard.on = False
    guard("compile", ("1 + 1", "<string>"))
    assert guard.stopped


def test_every_set(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full = 0
    for name, spec in sets.items():
        gym.check(spec)
        own = spec["entry"]["answer"]
        if name in EVALUATES | UNSOUND:
            for text in (own or "x", "no", CODE):
                with pytest.raises(worker.Failed, match="own answer|senseless|runs text as code"):
                    gym.grade(spec, {"text": text})
            continue
        if own is not None:
            score, detail = gym.grade(spec, {"text": f"<think>hm</think><answer>{own}</answer>"})
            assert (score, detail["score"]) == (1.0, 1.0), name
            full += 1
        for text in ("wrong [1] 17 x", CODE, "", "9**9**9**9", "(" * 5000, "\x00", "\ud800", "x" * 100_001):
            score, detail = gym.grade(spec, {"text": text})
            assert score == 0.0, (name, text[:50])
    assert full >= 88 and os.listdir(tmp_path) == []


def test_partial_scores_only_on_request(sets):
    for name, part in [("rush_hour", 0.01), ("propositional_logic", 0.05)]:
        spec = sets[name]
        assert gym.grade(spec, {"text": "wrong"}) == (0.0, {"answer": "wrong", "score": part})
        assert gym.grade({**spec, "partial": True}, {"text": "wrong"}) == (part, {"answer": "wrong", "score": part})


def test_an_entry_is_code_to_nobody(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("number_sorting", "simple_integration", "polynomial_multiplication"):
        spec = json.loads(json.dumps(sets[name]))
        spec["entry"]["answer"] = f"open({str(tmp_path / 'canary')!r}, 'w')"
        with pytest.raises(worker.Failed):
            gym.grade(spec, {"text": spec["entry"]["answer"]})
    with pytest.raises(worker.Failed, match="not registered"):
        gym.grade({**sets["spiral_matrix"], "dataset": "no_such_set"}, {"text": "1"})
    assert os.listdir(tmp_path) == []


def test_the_same_from_eight_threads(sets):
    rows = [(sets[name], text) for name in ("basic_arithmetic", "spiral_matrix", "prime_factorization") for text in (sets[name]["entry"]["answer"], "five", "5")]
    expected = [gym.grade(spec, {"text": text}) for spec, text in rows]
    assert [score for score, _ in expected] == [1, 0, 0] * 3
    found = [None] * 8

    def work(at):
        found[at] = [gym.grade(spec, {"text": text}) for spec, text in rows]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8
