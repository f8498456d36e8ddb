r"""The `regex`, `exact` and `json-schema` verifiers: does the text look as the record says?

    {"name": "regex", "pattern": "\\bsorry\\b"}     optional: "flags": some of "ims", "mode": "search" | "fullmatch"
    {"name": "exact", "answer": "Paris"}            optional: "ignore_case": false, "strip": true
    {"name": "json-schema", "schema": {"type": "object"}}

all of them: optional "of": "all" | "thinking" | "answer", the part of the completion that counts (`common.part`).

The score is 1 or 0 with the reason. Patterns are Python's `re`. The JSON is the whole text, or its last fenced block
(``` or ```json); no key may occur twice, and every number must fit a double: NaN, Infinity and 1e999 are not JSON.
Schemas need the extra `[schema]` (jsonschema); `$schema` names the draft (2020-12 if it does not), `format` is an
annotation, and a `$ref` leads nowhere outside the schema.

Patterns and schemas come from the data: they run in a worker process with limits on processor time and memory. What
takes too long or too much on a completion scores 0; what can never be used (it does not compile, it loops) refuses the
row.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import re

from pt_tools.rewards import Grader, common, worker

MAX_SPEC = 100_000  # characters of a pattern or a schema
CPU_S = 2.0  # processor time for one completion, so that a busy machine changes no verdict
WALL_S = 120.0  # only ends what is stuck
MEMORY_MB = 1024
FLAGS = {"i": re.I, "m": re.M, "s": re.S}

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_PROBES = (None, True, 0, "", [], {}, [None], {"": None})  # no schema may loop on these
_POOL = worker.Pool(f"{__name__}:work", memory_mb=MEMORY_MB)


def _check_regex(spec):
    common.only(spec, "pattern", "flags", "mode", "of")
    pattern, flags = spec.get("pattern"), spec.get("flags", "")
    if not isinstance(pattern, str) or len(pattern) > MAX_SPEC:
        raise ValueError(f"pattern must be a text of at most {MAX_SPEC} characters")
    if not isinstance(flags, str) or set(flags) - FLAGS.keys() or len(set(flags)) < len(flags):
        raise ValueError(f"flags must be some of the letters i, m, s, not {flags!r}")
    common.choice(spec, "mode", ("search", "fullmatch"))
    common.choice(spec, "of", common.PARTS)
    _usable("regex", pattern, flags)


def _grade_regex(spec, completion):
    return _ask("regex", spec["pattern"], spec.get("flags", ""), spec.get("mode", "search"), _text(spec, completion))


def _check_exact(spec):
    common.only(spec, "answer", "ignore_case", "strip", "of")
    strip = common.choice(spec, "strip", (True, False))
    common.choice(spec, "ignore_case", (False, True))
    common.choice(spec, "of", common.PARTS)
    answer = spec.get("answer")
    if not isinstance(answer, str) or not (answer.strip() if strip else answer):
        raise ValueError("answer must be a text that is not empty")


def _grade_exact(spec, completion):
    text, answer = _text(spec, completion), spec["answer"]
    if spec.get("strip", True):
        text, answer = text.strip(), answer.strip()
    if spec.get("ignore_case", False):
        text, answer = text.casefold(), answer.casefold()
    return (1.0, None) if text == answer else (0.0, {"reason": "another text" if text else "empty"})


def _check_schema(spec):
    common.only(spec, "schema", "of")
    common.choice(spec, "of", common.PARTS)
    if not isinstance(spec.get("schema"), (dict, bool)):
        raise ValueError("schema must be a JSON schema: an object")
    if importlib.util.find_spec("jsonschema") is None:
        raise ValueError("needs jsonschema: pip install pt-tools[schema]")
    _usable("schema", _dumped(spec["schema"]))


def _grade_schema(spec, completion):
    return _ask("schema", _dumped(spec["schema"]), _text(spec, completion))


REGEX = Grader(_check_regex, _grade_regex)
EXACT = Grader(_check_exact, _grade_exact)
SCHEMA = Grader(_check_schema, _grade_schema)


def _text(spec, completion):
    return common.part(completion["text"], spec.get("of", "all"))


def _dumped(schema):
    try:
        text = json.dumps(schema)
    except (RecursionError, ValueError, TypeError):
        raise ValueError("the schema is nested too deeply, or no JSON") from None
    if len(text) > MAX_SPEC:
        raise ValueError(f"the schema is longer than {MAX_SPEC} characters")
    return text


def _usable(*task):
    """ValueError(reason) if a worker cannot compile a pattern or schema. The verdict is kept."""
    try:
        reason = _refusal(task)
    except (worker.Failed, worker.Lost, OSError) as error:
        reason = f"it could not be checked: {error}"
    if reason:
        raise ValueError(reason)


@functools.lru_cache(maxsize=4096)
def _refusal(task):
    return _sent("check", *task)


def _ask(*task):
    """(score, detail) of a completion; its text is the task's last part."""
    if len(task[-1]) > common.MAX_TEXT:
        return 0.0, {"reason": f"longer than {common.MAX_TEXT} characters"}
    reason = _sent(*task)
    return (0.0, {"reason": reason}) if reason else (1.0, None)


def _sent(*task):
    """The worker's reason, None if there is none to complain."""
    try:
        return _POOL.call(json.dumps(task), WALL_S)  # as ASCII: a text may hold lone surrogates
    except worker.Timeout:
        return "it takes too long"


def work(request):
    """The worker's side: the reason why a check or a completion fails, None if it does not."""
    kind, *task = json.loads(request)
    if "schema" in (kind, *task[:1]):
        import jsonschema  # noqa: F401  (not on the completion's time)
    try:
        with common.cpu_limit(CPU_S):
            reason = _ACTS[kind](*task)
    except common.TooSlow:
        reason = "it takes too long"
    except MemoryError:
        reason = "it takes too much memory"
    return reason and reason[:500].encode("utf-8", "replace").decode()


def _act_check(kind, *task):
    try:
        _compiled(*task) if kind == "regex" else _probed(*task)
    except RecursionError:
        return "the pattern is nested too deeply" if kind == "regex" else "the schema loops, or is nested too deeply"
    except (re.error, OverflowError) as error:
        return f"the pattern cannot be compiled: {error}"
    except ValueError as error:
        return str(error)
    return None


def _act_regex(pattern, flags, mode, text):
    return None if getattr(_compiled(pattern, flags), mode)(text) else "no match"


def _act_schema(schema, text):
    try:
        value = _json(text)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return f"no JSON: {error}"
    try:
        error = next(_validator(schema).iter_errors(value), None)
    except RecursionError:
        return "nested too deeply"
    return error and f"{error.json_path}: {error.validator}"


_ACTS = {"check": _act_check, "regex": _act_regex, "schema": _act_schema}


@functools.lru_cache(maxsize=256)
def _compiled(pattern, flags):
    return re.compile(pattern, functools.reduce(int.__or__, (FLAGS[flag].value for flag in flags), 0))


@functools.lru_cache(maxsize=256)
def _validator(text):
    """The validator of a schema given as JSON text."""
    import jsonschema
    from referencing import Registry

    schema = json.loads(text)
    dialect = schema.get("$schema") if isinstance(schema, dict) else None
    kind = jsonschema.validators.validator_for(schema, default=None if dialect else jsonschema.Draft202012Validator)
    if kind is None:
        raise ValueError(f"unknown $schema {dialect!r}")
    return kind(schema, registry=Registry())  # an empty registry: nothing is ever fetched


def _probed(text):
    """ValueError if a schema is invalid, RecursionError if it loops without end."""
    import jsonschema

    _walk(json.loads(text))
    validator = _validator(text)
    try:
        validator.check_schema(validator.schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"invalid schema at {error.json_path}: {error.message[:200]}") from None
    for probe in _PROBES:
        try:
            list(validator.iter_errors(probe))
        except RecursionError:
            raise
        except Exception as error:  # what the library raises for a reference that leads nowhere is its private affair
            raise ValueError(f"unusable schema: {type(error).__name__}: {error}"[:300]) from None


def _walk(schema):
    """ValueError for a reference out of the schema, re.error for a pattern that does not compile."""
    if isinstance(schema, list):
        for item in schema:
            _walk(item)
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
            raise ValueError(f"a {key} may not leave the schema: {value[:200]!r}")
        if key == "pattern" and isinstance(value, str):
            _compiled(value, "")
        if key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                _compiled(pattern, "")
        _walk(value)


def _json(text):
    """The value of a whole text, or of its last fenced block."""
    if not text.lstrip().startswith(("{", "[", '"')):
        text = _fenced(text)
    if not text.strip():
        raise ValueError("empty")
    return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number, parse_int=_number)


def _fenced(text):
    """The content of the last closed fence with no language or json, the whole text if there is none."""
    found, fence, start = text, None, 0
    lines = text.split("\n")
    for at, line in enumerate(lines):
        line = line.strip().lower()
        if fence is None and line.startswith("```"):
            fence, start = line[3:].strip(), at + 1
        elif line == "```":
            found, fence = "\n".join(lines[start:at]) if fence in ("", "json") else found, None
    return found


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _constant(text):
    raise ValueError(f"{text} is not JSON")


def _number(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond the range of a double")
    return value if any(mark in text for mark in ".eE") else int(text)
