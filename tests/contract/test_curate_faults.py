"""The twenty kinds of malformed input, through real processes: convert, validate, filter, tag, stats, diff; file and stdin;
the policies fail, skip, skip with rejects. Bad rows are named by file and line, everything else goes through."""

import gzip
import json

import pytest

GOOD = {"source": "s", "messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]}
VERBS = {"convert": [], "validate": [], "filter": ["--rule", "refusal"], "tag": ["--label", "domain=d"], "stats": ["--json"], "diff": []}


def row(i, **more):
    return json.dumps({"id": f"r{i}", **GOOD, **more}).encode()


def said(text):
    return b'{"id": "x", "messages": [{"role": "user", "content": "' + text + b'"}, {"role": "assistant", "content": "A."}]}'


# name: (the lines, what is said of the first of them; None if nothing is wrong with it)
LINES = {
    "cut line": (row(0)[:40], "not JSON"),
    "UTF-16": (row(0).decode().encode("utf-16"), "not UTF-8"),
    "NUL": (said(b"\x00"), "not JSON"),
    "lone surrogate": (said(b"\\ud800"), "not JSON"),
    "NaN": (row(0)[:-1] + b', "weight": NaN}', "not JSON"),
    "deep nesting": (row(0)[:-1] + b', "x": ' + b"[" * 3000 + b"]" * 3000 + b"}", "not JSON"),
    "array": (b"[" + row(0) + b"]", "not a JSON object"),
    "scalar": (b"7", "not a JSON object"),
    "wrong type": (row(0, messages="hello"), "messages is"),
    "missing field": (b'{"id": "x"}', "no known format|no record: it has none"),
    "duplicate key": (row("first")[:-1] + b', "id": "last"}', None),
    "blank lines": (b"\n  \n" + row("blank"), None),
    "CRLF": (row("crlf") + b"\r", None),
    "extra field": (row("extra", **{"x-note": {"a": [None, "\u05d0"]}}), None),
    "a long line": (said(b"long " * 10_000_000), None),
}


def content(name, n=20):
    """A file with the fault behind n good rows, and the reason that is given for line n + 1."""
    if name == "BOM":
        return b"\xef\xbb\xbf" + b"".join(row(i) + b"\n" for i in range(n)), None
    if name == "empty file":
        return b"", None
    if name == "no final newline":
        return b"\n".join(row(i) for i in range(n)), None
    if name == "duplicate id":
        return b"".join(row(i) + b"\n" for i in (*range(n), 0)), "id 'r0' was at"
    if name == "cut file":
        return b"".join(row(i) + b"\n" for i in range(n)) + row(n)[:50], "not JSON"
    line, reason = LINES[name]
    return b"".join([*(row(i) + b"\n" for i in range(n)), line + b"\n", *(row(i) + b"\n" for i in range(n, n + 3))]), reason


KINDS = [*LINES, "BOM", "empty file", "no final newline", "duplicate id", "cut file"]


def run(pt, tmp_path, verb, data, channel, *more):
    argv = ["pt-curate", verb, *VERBS[verb]]
    if verb == "diff":
        (tmp_path / "old.jsonl").write_bytes(row(0) + b"\n")
        argv += ["old.jsonl"]
    (tmp_path / "in.jsonl").write_bytes(data)
    return pt(*argv, "in.jsonl" if channel == "file" else "-", *more, input=data if channel == "stdin" else b"")


def check(pt, tmp_path, verb, kind, channel, policy):
    data, reason = content(kind)
    if kind == "duplicate id" and verb != "validate":
        reason = None
    more = {"fail": [], "skip": ["--on-error", "skip"], "rejects": ["--on-error", "skip", "--rejects", "bad"]}[policy]
    done = run(pt, tmp_path, verb, data, channel, *more)
    name = "in.jsonl" if channel == "file" else "stdin"
    if reason is None or policy != "fail":
        assert done.returncode == 0, done.err
        found = 1 if reason else 0
        good = sum(bool(line.strip()) for line in data.split(b"\n")) - found + (verb == "diff")
        if good + found:
            assert f"rows: {good + found} in, {good} out" + (f", {found} errored" if found else "") in done.err
        if policy == "rejects":
            bad = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
            assert [(b["file"], b["line"]) for b in bad] == [(name, 21)] * found and all(b["row"] for b in bad)
    else:
        assert done.returncode == 3
        assert any(f"{name}:21: {part}" in done.err for part in reason.split("|")), done.err
        assert len([line for line in done.err.splitlines() if line]) == 1 and len(done.err) < 1000


@pytest.mark.parametrize("verb", ["convert", "filter"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(pt, tmp_path, verb, kind):
    check(pt, tmp_path, verb, kind, *(("file", "fail") if verb == "filter" else ("stdin", "rejects")))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fail", "skip", "rejects"])
@pytest.mark.parametrize("channel", ["file", "stdin"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_with_every_verb(pt, tmp_path, verb, kind, channel, policy):
    check(pt, tmp_path, verb, kind, channel, policy)


@pytest.mark.parametrize("channel", ["file", "stdin"])
@pytest.mark.parametrize("verb", VERBS)
def test_all_bad_lines_of_a_file(pt, tmp_path, verb, channel):
    bad = [line for line, reason in LINES.values() if reason]
    lines = [line for i, one in enumerate(bad) for line in (row(i), one)]
    done = run(pt, tmp_path, verb, b"\n".join(lines), channel, "--on-error", "skip", "--rejects", "bad")
    assert done.returncode == 0, done.err
    found = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
    assert [one["line"] for one in found] == [2 * (i + 1) for i in range(len(bad))]
    assert f"{len(bad)} errored" in done.err
    done = run(pt, tmp_path, verb, b"\n".join(lines), channel, "--on-error", "skip", "--max-bad", len(bad) - 1)
    assert done.returncode == 3 and f"more than --max-bad {len(bad) - 1} bad rows" in done.err
    assert run(pt, tmp_path, verb, b"\n".join(lines), channel, "--on-error", "skip", "--max-bad", len(bad)).returncode == 0


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "diff"])
def test_a_torn_archive_is_no_end(pt, tmp_path, verb):
    """Nothing says that more was to come but the archive itself: no policy skips that."""
    whole = gzip.compress(b"".join(row(i) + b"\n" for i in range(50_000)))
    (tmp_path / "in.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = pt("pt-curate", verb, *VERBS[verb], "in.jsonl.gz", "--on-error", "skip")
    assert done.returncode == 3 and "in.jsonl.gz:" in done.err and "cannot be read" in done.err


def test_the_wrong_types_of_every_field(pt, tmp_path):
    """Whatever stands where a text or a list should: never a traceback, never exit code 1."""
    values = [None, True, 7, 2.5, "x", [], [1], {}, {"a": 1}, [[]], [{}], [{"role": "user"}], [{"role": 5, "content": []}]]
    keys = ["messages", "prompt", "completion", "chosen", "rejected", "text", "completions", "label", "labels", "conversations", "instruction", "input",
            "output", "history", "system", "tools", "ground_truth", "dataset", "reward_model", "responses", "scores", "rank", "answers", "question", "answer",
            "problem", "solution", "kwargs", "instruction_id_list", "turns", "question_id", "Puzzles", "test_list", "id", "source", "weight", "rules", "tokens",
            "verifier", "chosen_score", "rejected_score", "functions", "data_source"]
    rows = [{**base, key: value} for base in (GOOD, {"prompt": "p", "completions": [{"text": "t"}]}, {"instruction": "i", "output": "o"}, {"chosen": "a b", "rejected": "a c"},
                                              {"prompt": "p", "responses": ["a"]}, {"question": "q", "answer": "#### 1"}) for key in keys for value in values]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    made = pt("pt-curate", "convert", "in.jsonl", "--on-error", "skip", "-o", "out.jsonl")
    assert made.returncode == 0, made.err
    for verb, more in VERBS.items():
        argv = ["out.jsonl", "in.jsonl"] if verb == "diff" else ["in.jsonl", "out.jsonl"]
        for extra in ([], ["--mark"], ["--scrub", "all"]) if verb == "filter" else ([],):
            done = pt("pt-curate", verb, *more, *extra, *argv, "--on-error", "skip")
            assert done.returncode == 0, done.err
    again = pt("pt-curate", "convert", "out.jsonl", check=0)
    assert again.stdout == (tmp_path / "out.jsonl").read_bytes(), "twice is once"
