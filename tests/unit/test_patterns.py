"""Patterns, exact texts and JSON schemas: verdicts, and data that would hang, crash or fetch."""

import json
import os
import socket
import threading

import pytest

from pt_tools import rewards
from pt_tools.rewards import patterns, worker

PARTS = {"regex": patterns.REGEX, "exact": patterns.EXACT, "json-schema": patterns.SCHEMA}
BOMB = "(a+)+$"


@pytest.fixture(scope="module", autouse=True)
def workers():
    yield
    patterns._POOL.close()


def reason(name, text, **spec):
    """None where the score is 1, else the reason."""
    spec = {"name": name, **spec}
    PARTS[name].check(spec)
    score, detail = PARTS[name].grade(spec, {"text": text})
    assert score in (0.0, 1.0) and (score == 1.0) == (detail is None)
    return detail and detail["reason"]


@pytest.mark.parametrize("spec, text, matches", [
    ({"pattern": "b+"}, "abbc", True), ({"pattern": "b+"}, "ac", False), ({"pattern": "b+", "mode": "fullmatch"}, "abbc", False),
    ({"pattern": "b+", "mode": "fullmatch"}, "bb", True), ({"pattern": "B", "flags": "i"}, "abc", True), ({"pattern": "B"}, "abc", False),
    ({"pattern": "^b"}, "a\nb", False), ({"pattern": "^b", "flags": "m"}, "a\nb", True), ({"pattern": "a.b"}, "a\nb", False),
    ({"pattern": "a.b", "flags": "s"}, "a\nb", True), ({"pattern": "^A.B$", "flags": "ims"}, "x\na\nb\nx", True), ({"pattern": ""}, "", True),
    ({"pattern": "x", "of": "answer"}, "<think>x</think>y", False), ({"pattern": "y", "of": "answer"}, "<think>x</think>y", True),
    ({"pattern": "x", "of": "thinking"}, "<think>x</think>y", True), ({"pattern": "(?P<a>x)(?P=a)"}, "xx", True), ({"pattern": "\ud800"}, "a\ud800", True),
    ({"pattern": r"\bsorry\b", "flags": "i"}, "I am Sorry.", True), ({"pattern": "\x00"}, "\x00", True), ({"pattern": r"\d"}, "५", True),
])  # fmt: skip
def test_regex(spec, text, matches):
    assert reason("regex", text, **spec) == (None if matches else "no match")


@pytest.mark.parametrize("spec, text, same", [
    ({"answer": "Paris"}, "Paris", True), ({"answer": "Paris"}, " Paris\n", True), ({"answer": " Paris"}, "Paris", True), ({"answer": "Paris"}, "paris", False),
    ({"answer": "Paris", "strip": False}, "Paris\n", False), ({"answer": " ", "strip": False}, " ", True), ({"answer": "PARIS", "ignore_case": True}, "paris", True),
    ({"answer": "straße", "ignore_case": True}, "STRASSE", True), ({"answer": "Paris"}, "Paris.", False), ({"answer": "Paris"}, "", False),
    ({"answer": "b", "of": "answer"}, "<think>a</think> b", True), ({"answer": "b"}, "<think>a</think> b", False), ({"answer": "\ud800"}, "\ud800", True),
])  # fmt: skip
def test_exact(spec, text, same):
    assert reason("exact", text, **spec) == (None if same else "another text" if text else "empty")


PERSON = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer"}}}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "additionalProperties": {"$ref": "#/$defs/node"}}}}


@pytest.mark.parametrize("schema, text, expected", [
    (PERSON, '{"name": "A", "age": 3}', None), (PERSON, ' \n{"name": "A"}\n', None), (PERSON, '{"age": 3}', "$: required"), (PERSON, '{"name": 5}', "$.name: type"),
    (PERSON, '{"name": "A", "age": 1.5}', "$.age: type"), (PERSON, '{"name": "A", "age": 3.0}', None), (PERSON, "[]", "$: type"),
    (PERSON, 'Here:\n```json\n{"name": "A"}\n```\nDone.', None), (PERSON, '```\n{"name": "A"}\n```', None), (PERSON, '```JSON\r\n{"name": "A"}\r\n```', None),
    (PERSON, '```json\n{"name": 1}\n```\n```json\n{"name": "A"}\n```', None), (PERSON, '```json\n{"name": "A"}\n```\n```json\n{}\n```', "$: required"),
    (PERSON, '{"name": "```json"}', None), (PERSON, '```python\nx\n```\n```json\n{"name": "A"}\n```', None),
    (PERSON, '```json\n{"name": "A"}\n```\n```python\nx\n```', None), (PERSON, '```json\n{"name": "\u2028"}\n```', None), (TREE, '{"a": {"b": {}}}', None), (TREE, '{"a": {"b": 1}}', "$.a.b: type"), (True, "5", None), (False, "5", "$: None"),
    ({"pattern": "^a+$"}, '"aa"', None), ({"pattern": "^a+$"}, '"ab"', "$: pattern"), ({"patternProperties": {"^x": {"type": "null"}}}, '{"x1": 1}', "$.x1: type"),
    ({"$id": "http://a/b", "$defs": {"x": {"type": "integer"}}, "$ref": "#/$defs/x"}, "1", None), ({"enum": [1, "a"]}, '"a"', None),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]}, "[1]", "$[0]: type"), ({"multipleOf": 0.1}, "0.3", "$: multipleOf"),
    ({"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}}, '{"$ref": "http://x", "pattern": "("}', None),
    ({"format": "email"}, '"x"', None), ({"uniqueItems": True}, "[1, true]", None), ({"const": 1}, "true", "$: const"),
])  # fmt: skip
def test_schema(schema, text, expected):
    assert reason("json-schema", text, schema=schema) == expected


@pytest.mark.parametrize("text, why", [
    ("", "empty"), (" \n", "empty"), ("```json\n```", "empty"), ("{", "no JSON"), ("{'a': 1}", "no JSON"), ('{"a": 1,}', "no JSON"), ('{"a": 1} {"a": 1}', "no JSON"),
    ('Sure: {"a": 1}', "no JSON"), ('{"a": 1, "a": 2}', "twice"), ('{"b": [{"a": 1, "a": 1}]}', "twice"), ("NaN", "NaN is not JSON"), ("[-Infinity]", "not JSON"),
    ("1e999", "double"), ("-1e999", "double"), ("9" * 309, "double"), ("9" * 100_000, "double"), ("[" * 5000 + "]" * 5000, "nested too deeply"),
    ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"), ("[" * 900_000, "nested too deeply"), ('"\ud800', "no JSON"), ("\x00", "no JSON"), ("True", "no JSON"),
    ("// x\n1", "no JSON"), ("1" * 1_000_001, "longer than"), ("\ufeff{}", "no JSON"), ("```json\n" * 100_000, "no JSON"), ("```\n{}\n``` x", "no JSON"), ("0x10", "no JSON"), ("+1", "no JSON"),
])  # fmt: skip
def test_what_is_no_json(text, why, limit):
    with limit(20):
        assert why in reason("json-schema", text, schema={})


def test_numbers_up_to_a_doubles_range_are_exact():
    assert reason("json-schema", "9" * 308, schema={"const": int("9" * 308)}) is None
    assert reason("json-schema", "9" * 308, schema={"multipleOf": 0.5}) is None
    assert reason("json-schema", "1e308", schema={"type": "integer"}) is None


# class -> what the data asks for; the texts are harmless
REFUSED = {
    "keys": [("regex", {"pattern": "a", "flag": "i"}), ("exact", {"answer": "a", "case": True}), ("json-schema", {"schema": {}, "strict": True})],
    "types": [("regex", {}), ("regex", {"pattern": None}), ("regex", {"pattern": ["a"]}), ("regex", {"pattern": "a", "flags": 2}), ("regex", {"pattern": "a", "mode": "match"}),
              ("regex", {"pattern": "a", "of": "cot"}), ("exact", {}), ("exact", {"answer": 5}), ("exact", {"answer": ""}), ("exact", {"answer": " \n"}),
              ("exact", {"answer": "a", "strip": 1}), ("json-schema", {}), ("json-schema", {"schema": "{}"}), ("json-schema", {"schema": []})],
    "flags": [("regex", {"pattern": "a", "flags": "x"}), ("regex", {"pattern": "a", "flags": "ii"}), ("regex", {"pattern": "a", "flags": "L"})],
    "no pattern": [("regex", {"pattern": pattern}) for pattern in ("(", "[", "*", "a{2,1}", "(?P<a>x)(?P<a>y)", "\\", "(?<=a*)b", r"\p{L}", "(?z)", "a{99999999999}",
                                                                   "(" * 5000 + ")" * 5000, "x" * 100_001, r"(?P=no)", "a++b)")],
    "no schema": [("json-schema", {"schema": schema}) for schema in ({"type": 5}, {"type": "number", "minimum": "1"}, {"required": "a"}, {"enum": 1}, {"pattern": "("},
                                                                     {"patternProperties": {"[": {}}}, {"items": {"pattern": "*"}}, {"$schema": "http://nowhere/x"}, {"multipleOf": 0})],
    "references": [("json-schema", {"schema": schema}) for schema in (
        {"$ref": "http://localhost:1/x"}, {"$ref": "https://example.org/s.json#/a"}, {"$ref": "file:///etc/passwd"}, {"$ref": "other.json"}, {"allOf": [{"$ref": "//x/y"}]},
        {"properties": {"a": {"$ref": "http://x"}}}, {"$dynamicRef": "http://x#a"}, {"$defs": {"a": {"$ref": "ftp://x"}}}, {"$ref": "#/nowhere"}, {"$ref": "#nowhere"})],
    "loops": [("json-schema", {"schema": schema}) for schema in (
        {"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, {"not": {"$ref": "#"}},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]})],
    "size": [("json-schema", {"schema": {"enum": ["x" * 100_001]}}), ("json-schema", {"schema": json.loads('{"items":' * 900 + "{}" + "}" * 900)})],
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_data_that_can_never_grade_is_refused(kind, limit):
    for name, spec in REFUSED[kind]:
        with pytest.raises(ValueError), limit(20):
            PARTS[name].check({"name": name, **spec})
        verdict = rewards.verify({"verifier": {"name": name, **spec}}, "{}")
        assert verdict.scores == {} and list(verdict.errors) == [name], spec


# class -> (verifier, spec, text): each takes for ever, or all memory
SLOW = {
    "regex": [({"pattern": BOMB}, "a" * 40 + "b"), ({"pattern": "(a|a)*$", "mode": "fullmatch"}, "a" * 60 + "b"), ({"pattern": "(x+x+)+y"}, "x" * 60),
              ({"pattern": ".*.*.*.*z"}, "x" * 500_000), ({"pattern": r"^(([a-z])+.)+[A-Z]([a-z])+$"}, "a" * 60), ({"pattern": r"(?:(\w+)\s?)+\1\1!"}, "ab " * 30)],
    "json-schema": [({"schema": {"pattern": BOMB}}, json.dumps("a" * 40 + "b")), ({"schema": {"patternProperties": {BOMB: {}}}}, json.dumps({"a" * 40 + "b": 1})),
                    ({"schema": {"uniqueItems": True}}, json.dumps([{"a": n} for n in range(20_000)])),
                    ({"schema": {"$defs": {"n": {"anyOf": [{"items": {"$ref": "#/$defs/n"}, "type": "array", "minItems": 1}] * 8}}, "$ref": "#/$defs/n"}}, "[" * 20 + "]" * 20)],
}  # fmt: skip


def test_what_takes_too_long_on_a_completion_scores_nothing():
    for name, rows in SLOW.items():
        spec, text = rows[0]
        assert reason(name, text, **spec) == "it takes too long"
    assert reason("regex", "aaa", pattern=BOMB) is None  # the worker lives, and the pattern is not to blame


@pytest.mark.slow
def test_whatever_takes_too_long():
    for name, rows in SLOW.items():
        for spec, text in rows:
            assert reason(name, text, **spec) == "it takes too long"


def test_no_reference_is_ever_fetched():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema"
        for schema in ({"$ref": url}, {"$schema": url}, {"$id": url, "$ref": "#/a"}, {"$id": url, "$dynamicRef": "#a"}, {"items": {"$id": url, "$ref": "x"}}):
            with pytest.raises(ValueError):
                patterns.SCHEMA.check({"name": "json-schema", "schema": schema})
            verdict = rewards.verify({"verifier": {"name": "json-schema", "schema": schema}}, "[1]")
            assert verdict.scores == {}
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_worker_that_dies_is_the_graders_failure(monkeypatch, tmp_path):
    (tmp_path / "dies.py").write_text("import os\ndef work(request): os._exit(9)\n")
    monkeypatch.setattr(patterns, "_POOL", worker.Pool("dies:work", size=1, path=[str(tmp_path)]))
    spec = {"name": "regex", "pattern": "never asked before"}
    with pytest.raises(ValueError, match="could not be checked"):
        patterns.REGEX.check(spec)
    with pytest.raises(worker.Lost):
        patterns.REGEX.grade(spec, {"text": "x"})
    assert rewards.verify({"verifier": spec}, "x").scores == {}
    patterns._POOL.close()


def test_the_same_from_eight_threads_and_after_a_fork():
    rows = [("regex", {"pattern": f"a{{{n}}}"}, "a" * k) for n in range(5) for k in range(5)]
    rows += [("json-schema", {"schema": {"maximum": n}}, str(k)) for n in range(3) for k in range(3)]
    expected = [reason(name, text, **spec) for name, spec, text in rows]
    found = [None] * 8

    def work(at):
        found[at] = [reason(name, text, **spec) for name, spec, text in rows]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8 and None in expected and "no match" in expected
    pid = os.fork()
    if pid == 0:
        work(0)
        patterns._POOL.close()
        os._exit(0 if found[0] == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
