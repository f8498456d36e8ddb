"""The contract of verifiers: whose failure is a zero, whose is an error, and what a record may not ask for."""

import threading

import pytest

from pt_tools import rewards
from pt_tools.rewards import math, raters, verifiers

MATH = {"name": "math", "answer": "72"}
QUIET = {"name": "constraints", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def test_the_reward_is_the_sum_over_the_verifiers():
    record = {"verifier": [MATH, QUIET, {**QUIET, "key": "again"}]}
    verdict = rewards.verify(record, {"text": "The answer is 72.", "finish": "stop"})
    assert verdict.scores == {"math": 1.0, "constraints": 1.0, "again": 1.0} and verdict.reward == 3.0
    verdict = rewards.verify(record, "Well, the answer is 73.")
    assert verdict.scores == {"math": 0.0, "constraints": 0.0, "again": 0.0} and verdict.reward == 0.0
    assert verdict.details == {"math": {"answer": "73", "reason": "wrong answer"}, "constraints": [False], "again": [False]}
    assert verdict.errors == {}


@pytest.mark.parametrize("text", ["", " \n ", "\x00\x01", "\ud800 The answer is 7", "{" * 100_000, "x" * 2_000_000])
def test_a_completions_own_failure_scores_zero_with_a_reason(text):
    verdict = rewards.verify({"verifier": MATH}, text)
    assert verdict.scores == {"math": 0.0} and verdict.errors == {} and verdict.reward == 0.0
    assert verdict.details["math"]["reason"]


def test_the_datas_failure_is_an_error_and_no_reward():
    verdict = rewards.verify({"verifier": [MATH, {"name": "math", "key": "b", "answer": None}]}, "The answer is 72.")
    assert verdict.scores == {"math": 1.0} and verdict.reward is None
    assert verdict.errors == {"b": "the gold answer is missing"}


@pytest.mark.parametrize("text, finish", [(None, "stop"), ("The answer is 72.", "error"), (["72"], None)])
def test_without_a_completion_nothing_is_graded(text, finish):
    verdict = rewards.verify({"verifier": MATH}, {"text": text, "finish": finish})
    assert verdict.scores == {} and list(verdict.errors) == ["math"] and verdict.reward is None


@pytest.mark.parametrize(
    "verifier, why",
    [
        (None, "no verifier"),
        ([], "no verifier"),
        ("math", "object with a name"),
        ({"answer": "72"}, "object with a name"),
        ([MATH, MATH], "share the key 'math'"),
        ({"name": "maths"}, "unknown verifier"),
        ({"name": "user"}, "code to import"),
        ({"name": "math.py"}, "code to import"),
        ({"name": "os.system"}, "code to import"),
        ({"name": "my_module:grade"}, "code to import"),
        ({"name": "/tmp/grade.py"}, "code to import"),
        ({**MATH, "module": "os"}, "code to import"),
        ({**MATH, "path": "grade.py"}, "code to import"),
    ],
)
def test_a_record_that_cannot_be_graded_is_refused(verifier, why):
    record = {"verifier": verifier}
    with pytest.raises(ValueError, match=why):
        rewards.check(record)
    verdict = rewards.verify(record, "72")
    assert verdict.reward is None and not verdict.scores and why in " ".join(verdict.errors.values())


def test_a_failing_grader_is_tried_twice_then_an_error(monkeypatch):
    calls = []

    def grade(spec, completion):
        calls.append(completion)
        if len(calls) <= failures:
            raise OSError("lost")
        return 1.0, None

    monkeypatch.setattr(math, "grade", grade)
    for failures, scores, errors in [(1, {"math": 1.0}, {}), (2, {}, {"math": "OSError: lost"})]:
        calls.clear()
        verdict = rewards.verify({"verifier": MATH}, "72")
        assert (len(calls), verdict.scores, verdict.errors) == (2, scores, errors)
    monkeypatch.setattr(math, "grade", lambda spec, completion: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rewards.verify({"verifier": MATH}, "72")


def test_score_fills_the_record_and_keeps_what_others_wrote():
    completions = [{"text": "The answer is 72.", "scores": {"helpful": 0.3, "math": 0.0}, "errors": {"math": "old", "judge": "down"}}, {"text": ""}]
    record = {"verifier": MATH, "completions": completions}
    rewards.score(record)
    assert completions[0]["scores"] == {"helpful": 0.3, "math": 1.0} and completions[0]["errors"] == {"judge": "down"}
    assert completions[0]["reward"] == 1.0
    assert completions[1] == {"text": "", "scores": {"math": 0.0}, "details": {"math": {"reason": "empty"}}, "errors": {}, "reward": 0.0}


def test_the_same_verdicts_from_eight_threads():
    texts = [f"Well, {i}. The answer is {i % 100}." for i in range(400)]
    record = {"verifier": [MATH, QUIET]}
    expected = [rewards.verify(record, text) for text in texts]
    found = [None] * 8

    def work(number):
        found[number] = [rewards.verify(record, text) for text in texts]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8


def test_raters_by_hand():
    two = {**QUIET, "instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    names = list(raters.RATERS)
    cases = [
        (MATH, "The answer is 72.", "stop", [5, 5, 5, 5]),
        (MATH, "The answer is 72. cat", "stop", [5, 5, 5, 3]),
        (MATH, "The answer is 73.", "length", [1, 1, 1, 5]),
        (MATH, "about 72", "stop", [1, 1, 5, 1]),
        (two, '"a b"', "stop", [5, 5, 5, 5]),
        (two, "a b", "stop", [1, 3, 5, 5]),
        (two, "a, b", "length", [1, 1, 1, 5]),
        ([MATH, two], "The answer is 72.", "stop", [1, 4, 5, 5]),
    ]
    for verifier, text, finish, expected in cases:
        record = {"verifier": verifier, "completions": [{"text": text, "finish": finish}]}
        verifiers.Verifiers(False, names).score([record])
        completion = record["completions"][0]
        assert completion["scores"] == dict(zip(names, expected)), text
        assert completion["reward"] == sum(expected) / 4


def test_a_rater_fails_when_its_verifier_or_the_finish_reason_is_missing():
    record = {"verifier": {"name": "math"}, "completions": [{"text": "1", "finish": "stop"}]}
    verifiers.Verifiers(False, ["correct", "ended"]).score([record])
    assert record["completions"][0]["scores"] == {"ended": 5.0} and record["completions"][0]["reward"] is None
    record = {"verifier": MATH, "completions": [{"text": "1"}]}
    verifiers.Verifiers(False, ["ended"]).score([record])
    assert "not stop or length" in record["completions"][0]["errors"]["ended"]
    with pytest.raises(ValueError, match="share the name 'correct'"):
        raters.check({"verifier": {**MATH, "key": "correct"}}, ["correct"])
