"""Twenty kinds of broken lines before every verb that chooses, mixes, splits or makes records: each is named, once."""

import json
import re

import pytest

USER, ANSWER = {"role": "user", "content": "Frage 1 質問 سؤال?"}, {"role": "assistant", "content": "Antwort."}
FULL = {"id": "good", "source": "s", "prompt": [USER], "gatt": {"instruction": "Be.", "first": "Be."}, "persona": "a baker",
        "completions": [{"text": "one", "reward": 1.0}, {"text": "two", "reward": 0.0}]}


def full(i, **more):
    return {
        **FULL,
        "id": f"good{i}",
        "prompt": [{**USER, "content": f"Be.\nFrage {i} 質問 سؤال?"}],
        "persona": f"baker {i}",
        **more,
    }


def line(row):
    return json.dumps(row, ensure_ascii=False).encode()


# name: (the line, whether it is bad for a reader of records, and for one of any rows); faults of reliability F9
FAULTS = {
    "cut line": (line(FULL)[:-9], True, True),
    "UTF-16": ('{"a": 1}'.encode("utf-16-le").replace(b"\n", b""), True, True),
    "NUL": (b'{"prompt": "a\0b"}', True, True),
    "lone surrogate": (b'{"prompt": "a\\ud800"}', True, True),
    "NaN": (b'{"prompt": "a", "reward": NaN}', True, True),
    "deep nesting": (b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}", True, True),
    "array": (b"[1, 2]", True, True),
    "scalar": (b"7", True, True),
    "not UTF-8": (b'{"prompt": "\xff"}', True, True),
    "two objects": (b'{"prompt": "a"} {"prompt": "b"}', True, True),
    "trailing comma": (b'{"prompt": "a",}', True, True),
    "wrong type": (line({**FULL, "prompt": 5}), True, False),
    "missing field": (b'{"id": "x"}', True, False),
    "empty object": (b"{}", True, False),
    "null text": (line({**FULL, "prompt": None}), True, False),
    "bad reward": (line({**FULL, "completions": [{"text": "a", "reward": "high"}]}), True, False),
    "text of a number": (line({**FULL, "completions": [{"text": 5}]}), True, False),
    "roles": (line({**FULL, "prompt": [USER, USER]}), True, False),
    "template token": (line({**FULL, "prompt": "<|im_start|>"}), True, False),
    "empty turn": (line({**FULL, "prompt": [{"role": "user", "content": " "}]}), True, False),
}
VERBS = {"dedup": (), "dedup --near": (), "split": ("--part", "a=1", "-o", "{part}.out"), "mix": (), "best": (),
         "pair": (), "gatt --step train": (), "decontaminate": ("--against", "exam.jsonl"), "sketch": ("-o", "a.bands"),
         "gatt": ("--instructions", "lists.jsonl"), "synth": ("--template", "t.jinja"), "best --pool prompt": (),
         "split --by cluster": ("--part", "a=1", "-o", "{part}.out")}
ANY_ROWS = ("synth",)


@pytest.fixture
def here(tmp_path):
    (tmp_path / "lists.jsonl").write_text(json.dumps({"name": "F", "instruction": "Be {value}.", "values": ["kind"]}) + "\n")
    (tmp_path / "t.jinja").write_text("For {{ persona }}.")
    (tmp_path / "exam.jsonl").write_text('{"prompt": "What is never asked?"}\n')
    return tmp_path


def bad_of(verb, fault):
    return FAULTS[fault][2 if verb in ANY_ROWS else 1]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("verb", VERBS)
def test_bad_rows_are_left_out_and_told(here, pt, verb, jobs):
    """BOM, CRLF, blank lines, other keys, a key twice, and no newline at the end are no faults; every other line is, by its
    number and reason."""
    lines, bad = [b"\xef\xbb\xbf" + line(full(0)), b"", line(full(1)) + b"\r", b"  ",
                  line(full(98, **{"x-note": {"a": [None, "\u05d0"]}}))[:-1] + b', "id": "the last one counts"}'], []
    for i, (name, (text, *_)) in enumerate(FAULTS.items(), 2):
        lines.append(text if bad_of(verb, name) else line(full(100 + i)))
        bad += [(len(lines), name)] if bad_of(verb, name) else []
        lines.append(line(full(i)))
    good = sum(bool(text.strip()) for text in lines) - len(bad)
    (here / "rows.jsonl").write_bytes(b"\n".join(lines))
    more = () if verb == "synth" else ("-j", jobs)
    argv = ("pt-curate", *verb.split(), "rows.jsonl", *VERBS[verb], *more, "--on-error", "skip", "--rejects", "bad.jsonl")
    done = pt(*argv, check=0)
    found = [json.loads(text) for text in (here / "bad.jsonl").read_text().splitlines()]
    assert [row["line"] for row in found] == [number for number, _ in bad]
    assert all(row["file"] == "rows.jsonl" and row["reason"] and row["row"] is not None for row in found)
    assert f"rows: {good + len(bad)} in, {good} out, {len(bad)} errored" in done.err
    out = (here / "a.out").read_text() if verb.startswith("split") else done.out
    assert out.count("\n") == (good if verb != "sketch" else 0)


@pytest.mark.parametrize("verb, from_stdin", [(verb, way) for verb in VERBS for way in (False, True) if verb != "sketch" or not way])
def test_the_first_bad_row_is_named(here, pt, verb, from_stdin):
    faults = [name for name in FAULTS if bad_of(verb, name)]
    for name in faults[sum(map(ord, verb)) % 7::7]:  # some of them for each verb; together all
        (here / "rows.jsonl").write_bytes(line(full(1)) + b"\n\n" + FAULTS[name][0] + b"\n" + line(full(2)) + b"\n")
        source = "-" if from_stdin else "rows.jsonl"
        done = pt("pt-curate", *verb.split(), source, *VERBS[verb], input=(here / "rows.jsonl").read_bytes(), check=3)
        assert re.fullmatch(rf"pt-curate: {'stdin' if from_stdin else 'rows.jsonl'}:3: \S.*", done.err.splitlines()[-1]), (
            name
        )
        assert not (here / "a.out").exists() and not list(here.glob("*.run"))


@pytest.mark.parametrize("verb", VERBS)
def test_empty_files_and_cut_ones(here, pt, verb):
    (here / "rows.jsonl").write_bytes(b"\xef\xbb\xbf\r\n")
    done = pt("pt-curate", *verb.split(), "rows.jsonl", *VERBS[verb], check=0)
    assert done.out == "" and "error" not in done.err
    (here / "rows.jsonl").write_bytes(line(full(1)) + b"\n" + line(full(2))[:50])
    done = pt("pt-curate", *verb.split(), "rows.jsonl", *VERBS[verb], check=3)
    assert done.err.splitlines()[-1].startswith("pt-curate: rows.jsonl:2: not JSON")


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_line_of_50_megabytes(here, pt, verb):
    long = line(full(1, prompt="Be.\nlong " + "words and words " * 3_300_000, persona="long " * 10_000_000))
    (here / "rows.jsonl").write_bytes(b"\n".join([line(full(0)), long, line(full(2)), b"{", line(full(3))]))
    done = pt("pt-curate", *verb.split(), "rows.jsonl", *VERBS[verb], "--on-error", "skip", check=0)
    assert "rows: 5 in, 4 out, 1 errored" in done.err
