"""pt-curate as real processes: what it prints, writes, counts, refuses, and that examples run."""

import gzip
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rows import assistant, user

from pt_tools.commands import curate
from test_commands import make_by_hand

VERBS = sorted(curate.main.verbs)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def counts(path):
    rows = json.loads(Path(f"{path}.manifest.json").read_text())["rows"]
    assert rows["in"] == rows["out"] + rows["dropped"] + rows["errored"]
    return {kind: rows[kind] for kind in ("in", "out", "dropped", "errored")}


def chats(n, name="c"):
    return [{"id": f"{name}{i}", "source": name, "messages": [user(f"Question {name} {i}?"), assistant(f"Answer {i}.")]}
            for i in range(n)]


def scored(n):
    return [{"id": f"s{i}", "source": "s", "prompt": [user(f"Question {i}?")], "completions": [
        {"text": f"answer {i} {k}", "reward": None if (i + k) % 5 == 4 else (i * k) % 3 / 2} for k in range(4)]}
        for i in range(n)]


@pytest.fixture
def here(tmp_path, pt):
    """The files that the examples name."""
    jsonl(tmp_path / "sft.jsonl", chats(40))
    jsonl(tmp_path / "all.jsonl", chats(200))
    jsonl(tmp_path / "chat.jsonl", chats(400, "chat"))
    jsonl(tmp_path / "math.jsonl", chats(600, "math"))
    jsonl(tmp_path / "scored.jsonl", scored(60))
    jsonl(tmp_path / "samples.jsonl", scored(60))
    jsonl(tmp_path / "heldout.jsonl", [{"prompt": "What is never asked?"}])
    jsonl(tmp_path / "math500.jsonl", [{"problem": "What is 1+1?", "answer": "2"}])
    jsonl(tmp_path / "ifeval.jsonl", [{"key": 1, "prompt": "No commas.", "kwargs": [{}],
                                       "instruction_id_list": ["punctuation:no_comma"]}])
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Hi", "input": "", "output": "Ho"}]))
    jsonl(tmp_path / "chats.jsonl", chats(9))
    jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"What is {i}?"} for i in range(5)])
    jsonl(tmp_path / "answered.jsonl", [{"prompt": [user("Act as Ann.\nHi?")], "completions": [{"text": "Ho."}],
                                         "gatt": {"instruction": "Act as Ann.", "first": "Figure: Ann."}}])
    make_by_hand(tmp_path)
    (tmp_path / "gsm8k").mkdir()
    jsonl(tmp_path / "gsm8k/train.jsonl", [{"question": "2+2?", "answer": "Four.\n#### 4"}])
    (tmp_path / "data").mkdir()
    for name in "ab":
        jsonl(tmp_path / f"{name}.jsonl", chats(40, name))
        pt("pt-curate", "sketch", f"{name}.jsonl", "-o", f"{name}.bands", check=0)
        (tmp_path / f"{name}.bands.manifest.json").unlink()
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_examples_run_and_every_row_is_accounted_for(verb, here, pt):
    for example in curate.main.all()[verb].examples:
        argv = shlex.split(example)
        done = pt(*argv, check=0)
        outs = [argv[argv.index("-o") + 1]] if "-o" in argv else []
        outs = [o.replace("{part}", part) for o in outs for part in (("train", "dev") if "{part}" in o else ("",))]
        for out in outs:
            found = counts(here / out)
            assert found["in"] > 0 and found["errored"] == 0
            if verb not in ("split", "sketch"):
                assert found["out"] == len(rows_of(here / out))
        assert "rows: " in done.err


def test_help_is_quick_and_complete(pt):
    assert all(f"  {verb} " in pt("pt-curate", "--help", check=0).out for verb in VERBS)
    before = os.times()
    pt("pt-curate", "decontaminate", "--help", check=0)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.25


def test_convert_an_array_and_lines_and_gzip(tmp_path, pt):
    rows = [{"instruction": f"Say {i}", "input": "", "output": str(i), "extra": [i]} for i in range(3)]
    wanted = [{"source": "web", "domain": "d", "messages": [user(f"Say {i}"), assistant(str(i))], "extra": [i]}
              for i in range(3)]
    (tmp_path / "web.json").write_text(json.dumps(rows))
    jsonl(tmp_path / "web.jsonl", rows)
    (tmp_path / "web.jsonl.gz").write_bytes(gzip.compress((tmp_path / "web.jsonl").read_bytes()))
    for name in ("web.json", "web.jsonl", "web.jsonl.gz"):
        out = [json.loads(line) for line in pt("pt-curate", "convert", name, "--domain", "d", check=0).out.splitlines()]
        assert [{k: v for k, v in rec.items() if k != "id"} for rec in out] == wanted
        assert len({rec["id"] for rec in out}) == 3
        assert list(out[0]) == ["id", "source", "domain", "messages", "extra"]
    piped = pt("pt-curate", "convert", input=(tmp_path / "web.jsonl").read_bytes(), check=0).out
    assert "source" not in json.loads(piped.splitlines()[0])


def test_convert_names_file_and_line_of_the_first_bad_row(tmp_path, pt):
    good = {"instruction": "a", "output": "b"}
    jsonl(tmp_path / "a.jsonl", [good, good, {"instruction": "a", "output": ""}, good])
    done = pt("pt-curate", "convert", "a.jsonl", "-o", "out.jsonl", check=3)
    assert done.err.splitlines()[-1] == "pt-curate: a.jsonl:3: output is empty"
    assert not (tmp_path / "out.jsonl").exists()
    pt("pt-curate", "convert", "a.jsonl", "-o", "out.jsonl", "--on-error", "skip", "--rejects", "bad.jsonl", check=0)
    assert counts(tmp_path / "out.jsonl") == {"in": 4, "out": 3, "dropped": 0, "errored": 1}
    (bad,) = rows_of(tmp_path / "bad.jsonl")
    assert (bad["file"], bad["line"], bad["row"]) == ("a.jsonl", 3, {"instruction": "a", "output": ""})
    (tmp_path / "a.json").write_text(json.dumps([good, 7]))
    assert "a.json:2: not a JSON object" in pt("pt-curate", "convert", "a.json", check=3).err


def test_convert_refuses_what_it_cannot_read(tmp_path, pt):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert "a.xlsx: not a form that is read" in pt("pt-curate", "convert", "a.xlsx", check=2).err
    assert "no-such" in pt("pt-curate", "convert", "--format", "no-such", check=2).err


def test_validate(tmp_path, pt):
    rows = chats(5)
    rows[2]["messages"][0]["content"] = "<|user|> hello"
    rows[4]["id"] = "c1"
    jsonl(tmp_path / "a.jsonl", rows)
    done = pt("pt-curate", "validate", "a.jsonl", check=3)
    assert done.out == "" and "a.jsonl:3: messages[0].content contains the template token <|user|>" in done.err
    done = pt("pt-curate", "validate", "a.jsonl", "--on-error", "skip", "--rejects", "bad.jsonl", "--json", check=0)
    assert {k: json.loads(done.out)["rows"][k] for k in ("in", "out", "errored")} == {"in": 5, "out": 3, "errored": 2}
    assert [(bad["line"], bad["reason"]) for bad in rows_of(tmp_path / "bad.jsonl")][1] == (
        5, "id 'c1' was at a.jsonl:2 already")
    assert pt("pt-curate", "validate", "a.jsonl", "--on-error", "skip", "--max-bad", "1", check=3)
    verifier = {"name": "math"}
    jsonl(tmp_path / "b.jsonl", [{"prompt": "u", "verifier": verifier}])
    assert "b.jsonl:1: " in pt("pt-curate", "validate", "b.jsonl", check=3).err


def unchanged(path):
    """What a file that nobody wrote again keeps; a run that finds it complete touches it, for make."""
    return path.stat().st_ino, path.read_bytes()


def test_split_parts_are_disjoint_and_whole(tmp_path, pt):
    twice = [{**rec, "id": rec["id"] + "x", "messages": [user(rec["messages"][0]["content"].upper()), assistant("b")]}
             for rec in chats(300)]
    jsonl(tmp_path / "all.jsonl", chats(300) + twice)
    argv = ("pt-curate", "split", "all.jsonl", "--part", "train=0.6", "--part", "dev=0.3", "-o", "{part}.jsonl.gz")
    pt(*argv, check=0)
    parts = {name: [json.loads(line) for line in gzip.open(tmp_path / f"{name}.jsonl.gz")] for name in ("train", "dev")}
    asked = {name: {rec["messages"][0]["content"].lower() for rec in part} for name, part in parts.items()}
    assert not asked["train"] & asked["dev"]
    assert all(len(part) == 2 * len(asked[name]) for name, part in parts.items())
    found = counts(tmp_path / "train.jsonl.gz")
    assert found["in"] == 600 and found["out"] == sum(map(len, parts.values())) and found["dropped"] > 0
    assert "nothing to do" in pt(*argv, check=0).err
    (tmp_path / "dev.jsonl.gz").unlink()
    before = unchanged(tmp_path / "train.jsonl.gz")
    pt(*argv, check=0)  # only what is missing is made again
    assert unchanged(tmp_path / "train.jsonl.gz") == before
    assert [json.loads(line) for line in gzip.open(tmp_path / "dev.jsonl.gz")] == parts["dev"]
    assert not list(tmp_path.glob("*.run"))


def test_split_writes_nothing_when_a_row_is_bad(tmp_path, pt):
    jsonl(tmp_path / "all.jsonl", [*chats(20), {"prompt": ""}])
    done = pt("pt-curate", "split", "all.jsonl", "--part", "a=0.5", "--part", "b=0.5", "-o", "{part}.jsonl", check=3)
    assert "all.jsonl:21: prompt is empty" in done.err
    assert not (tmp_path / "a.jsonl").exists() and not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize("argv,why", [
    (("split", "--part", "a=0.7", "--part", "b=0.7", "-o", "{part}"), "sum to at most 1"),
    (("split", "--part", "a=0.7", "-o", "x"), "needs {part}"),
    (("split", "--part", "a", "-o", "{part}"), "has not the form NAME=NUMBER"),
    (("split", "--part", "a=0.1", "--part", "a=0.2", "-o", "{part}"), "given twice"),
    (("split", "--part", "a=x", "-o", "{part}"), "--part"),
    (("split", "--part", "a=0.1", "--part", "./a=0.2", "-o", "{part}"), "one file"),
    (("split", "a.jsonl", "--part", "a=0.5", "--part", "b=0.5", "-o", "{part}.jsonl"), "a.jsonl is an input"),
    (("sketch", "a.jsonl", "-o", "./a.jsonl"), "--out ./a.jsonl is sketched"),
    (("cluster", "a.jsonl", "-o", "a.jsonl"), "--out a.jsonl is a sketch"),
    (("decontaminate", "-", "--against", "a.jsonl", "-o", "a.jsonl"), "--out a.jsonl is read, as --against"),
    (("filter", "--drop", "a.jsonl", "--rejects", "./a.jsonl", "--on-error", "skip"), "--rejects ./a.jsonl is read, as --drop"),
    (("mix", "a.jsonl", "--take", "b.jsonl=1"), "b.jsonl is not among the files"),
    (("mix", "a.jsonl", "--take", "a.jsonl=many"), "neither a number of rows nor a share"),
    (("mix", "a.jsonl", "--weight", "a.jsonl=1"), "--weight is of use only with --total"),
    (("mix", "a.jsonl", "--total", "3", "--weight", "a.jsonl=-1"), "weights are at least 0"),
    (("decontaminate", "a.jsonl"), "--against is required"),
    (("decontaminate", "a.jsonl", "--against", "a.jsonl", "--coverage", "1.5"), "--coverage must be"),
    (("decontaminate", "a.jsonl", "--against", "missing.jsonl"), "missing.jsonl"),
    (("pair", "a.jsonl", "--rejected", "best"), "best"),
    (("best", "a.jsonl", "--per-prompt", "0"), "--per-prompt must be at least 1"),
], ids=lambda x: x if isinstance(x, str) else x[0])
def test_wrong_use(argv, why, tmp_path, pt):
    before = jsonl(tmp_path / "a.jsonl", chats(3)).read_bytes()
    assert why in pt("pt-curate", *argv, input=b"", check=2).err
    assert (tmp_path / "a.jsonl").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_mix_does_not_depend_on_the_order_of_rows_or_files(tmp_path, pt):
    a, b = chats(30, "a"), chats(30, "b")
    for folder, one, two in (("x", a, b), ("y", a[::-1], b[10:] + b[:10])):
        (tmp_path / folder).mkdir()
        jsonl(tmp_path / folder / "a.jsonl", one)
        jsonl(tmp_path / folder / "b.jsonl", two)
    take = ("--take", "a.jsonl=12", "--take", "b.jsonl=150%", "--seed", "3")
    one = pt("pt-curate", "mix", "a.jsonl", "b.jsonl", *take, cwd=tmp_path / "x", check=0)
    two = pt("pt-curate", "mix", "b.jsonl", "a.jsonl", *take, cwd=tmp_path / "y", check=0)
    assert one.out == two.out and one.out.count('"source":"a"') == 12 and one.out.count('"source":"b"') == 45
    assert "rows: 75 in, 57 out, 18 dropped" in one.err and "repeated of b.jsonl (15)" in one.err
    capped = pt("pt-curate", "mix", "a.jsonl", "b.jsonl", "--cap", "7", cwd=tmp_path / "x", check=0)
    assert "rows: 60 in, 14 out, 46 dropped" in capped.err
    short = pt("pt-curate", "mix", "a.jsonl", "--take", "a.jsonl=31", cwd=tmp_path / "x", check=3)
    assert "a.jsonl has 30 rows, not 31" in short.err
    weighted = pt("pt-curate", "mix", "a.jsonl", "b.jsonl", "--total", "30", "--weight", "a.jsonl=2", cwd=tmp_path / "x",
                  check=0)
    assert weighted.out.count('"source":"a"') == 20 and weighted.out.count('"source":"b"') == 10


def test_decontaminate_drops_marks_or_refuses(tmp_path, pt):
    long = "please tell me how many red balls are in the big box over there"  # 14 words
    rows = [{"id": f"r{i}", "source": "web", "messages": [user(text), assistant("ok")]} for i, text in enumerate(
        [f"So {long}?", "what is 4 +7", "What is 4-7?", "please tell me how many red balls there are", "hello"])]
    jsonl(tmp_path / "a.jsonl", rows)
    jsonl(tmp_path / "exam.jsonl", [{"key": 7, "prompt": long, "instruction_id_list": [], "kwargs": []},
                                    {"question": "What is 4+7?", "answer": "#### 11"}, {"prompt": "Never asked."}])
    done = pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.jsonl", "-o", "out.jsonl", check=0)
    assert [rec["id"] for rec in rows_of(tmp_path / "out.jsonl")] == ["r2", "r3", "r4"]
    assert counts(tmp_path / "out.jsonl") == {"in": 5, "out": 3, "dropped": 2, "errored": 0}
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest["final"]["contamination"] == [{"source": "web", "eval": "exam", "items": 3, "hit": 2, "share": 2 / 3,
                                                   "rows": 2, "contaminated": True}]
    assert "web overlaps 66.7% of exam, more than 2 %" in done.err
    marked = [json.loads(line) for line in
              pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.jsonl", "--mark", check=0).out.splitlines()]
    assert len(marked) == 5 and [rec["id"] for rec in marked if "contamination" in rec] == ["r0", "r1"]
    assert marked[0]["contamination"] == [{"eval": "exam", "id": "ifeval/7", "coverage": 1.0, "span": long}]
    refused = pt("pt-curate", "decontaminate", "a.jsonl", "--against", "exam.jsonl", "--require-clean", "-o", "p.jsonl",
                 check=3)
    assert "a.jsonl:1: overlaps exam item ifeval/7" in refused.err and not (tmp_path / "p.jsonl").exists()
    jsonl(tmp_path / "clean.jsonl", rows[2:])
    pt("pt-curate", "decontaminate", "clean.jsonl", "--against", "exam.jsonl", "--require-clean", "-o", "p.jsonl", check=0)
    assert rows_of(tmp_path / "p.jsonl") == rows[2:]
    jsonl(tmp_path / "broken.jsonl", [{"prompt": ""}])
    assert "broken.jsonl:1: prompt[0].content is empty" in pt("pt-curate", "decontaminate", "a.jsonl", "--against", "broken.jsonl",
                                                  check=3).err
    (tmp_path / "none.jsonl").write_text("\n")
    assert "none.jsonl: no evaluation prompts" in pt("pt-curate", "decontaminate", "a.jsonl", "--against", "none.jsonl",
                                                    check=3).err


def test_pair_and_best(tmp_path, pt):
    jsonl(tmp_path / "a.jsonl", scored(40))
    one = pt("pt-curate", "pair", "a.jsonl", "-o", "pairs.jsonl", "--json", check=0)
    pairs, found = rows_of(tmp_path / "pairs.jsonl"), counts(tmp_path / "pairs.jsonl")
    assert found["in"] == 40 and found["out"] == len(pairs) > 20 and found["dropped"] == 40 - len(pairs) > 0
    by_id = {rec["id"]: {c["text"]: c["reward"] for c in rec["completions"]} for rec in scored(40)}
    for made in pairs:
        rewards = by_id[made["id"]]
        chosen, rejected = (rewards[made[key][0]["content"]] for key in ("chosen", "rejected"))
        assert chosen == max(r for r in rewards.values() if r is not None) > rejected == chosen - made["margin"]
    bias = json.loads(one.err.splitlines()[-1])["length_bias"]
    assert bias["chosen_chars"] == pytest.approx(sum(len(p["chosen"][0]["content"]) for p in pairs) / len(pairs))
    jsonl(tmp_path / "b.jsonl", scored(40)[::-1])
    two = pt("pt-curate", "pair", "b.jsonl", check=0).out
    assert sorted(two.splitlines()) == sorted((tmp_path / "pairs.jsonl").read_text().splitlines())
    done = pt("pt-curate", "best", "a.jsonl", "--min-reward", "1", "--per-prompt", "2", "-o", "best.jsonl", check=0)
    kept, found = rows_of(tmp_path / "best.jsonl"), counts(tmp_path / "best.jsonl")
    wanted = sum(min(2, sum(r == 1 for r in rewards.values())) for rewards in by_id.values())
    assert len(kept) == found["out"] == wanted and all(rec["reward"] == 1 for rec in kept)
    assert found["dropped"] == sum(1 not in rewards.values() for rewards in by_id.values())
    assert "no completion reaches --min-reward" in done.err
    pt("pt-curate", "validate", "best.jsonl", "pairs.jsonl", check=3)  # one id in both files
    pt("pt-curate", "validate", "best.jsonl", check=0)
    pt("pt-curate", "validate", "pairs.jsonl", check=0)
    jsonl(tmp_path / "t.jsonl", [{"chosen": "a b", "rejected": "a c"}])
    assert "dropped: fewer than two completions" in pt("pt-curate", "pair", "t.jsonl", check=0).err


def test_stats(tmp_path, pt):
    jsonl(tmp_path / "a.jsonl", chats(3, "a") + chats(2, "b") + scored(2))
    found = json.loads(pt("pt-curate", "stats", "--json", "a.jsonl", check=0).out)
    assert (found["rows"], found["kinds"], found["completions"], found["scored"]) == (7, {"messages": 5, "prompt": 2}, 8, 7)
    assert {name: group["rows"] for name, group in found["sources"].items()} == {"a": 3, "b": 2, "s": 2}
    assert found["sources"]["a"]["prompt_chars"] == {"sum": 39} | dict.fromkeys(
        ("mean", "min", "p10", "p50", "p90", "p99", "max"), 13)
    shown = pt("pt-curate", "stats", "a.jsonl", check=0).out.splitlines()
    assert shown[0].split()[:3] == ["group", "rows", "kinds"] and shown[1].split()[:3] == ["all", "7", "messages,prompt"]
    assert json.loads(pt("pt-curate", "stats", "--json", input=b"", check=0).out)["rows"] == 0


RECORD_FAULTS = [
    {"messages": "hello"}, {"id": "x"}, {"messages": [{"role": "user"}]}, {"messages": [{"role": "alien", "content": "x"}]},
    {"id": 5, "prompt": "u"}, {"messages": None}, {"messages": []}, {"text": ["a"]}, {"prompt": "u", "completions": "c"},
    {"prompt": {"role": "user"}}, {"prompt": "u", "verifier": 1}, {"chosen": 1, "rejected": 2}, {},
]


@pytest.mark.parametrize("verb", ["validate", "split", "mix", "dedup", "decontaminate", "pair", "best", "stats"])
def test_faulty_records_are_named_by_every_verb(verb, tmp_path, pt):
    good = scored(3)
    jsonl(tmp_path / "a.jsonl", [*good[:2], *RECORD_FAULTS, good[2]])
    jsonl(tmp_path / "exam.jsonl", [{"prompt": "What?"}])
    more = {"split": ("--part", "p=1", "-o", "{part}.jsonl"), "decontaminate": ("--against", "exam.jsonl")}.get(verb, ())
    done = pt("pt-curate", verb, "a.jsonl", *more, check=3)
    assert done.err.splitlines()[-1].startswith("pt-curate: a.jsonl:3: messages is a string")
    done = pt("pt-curate", verb, "a.jsonl", *more, "--on-error", "skip", "--rejects", "bad.jsonl", check=0)
    bad = rows_of(tmp_path / "bad.jsonl")
    assert [row["line"] for row in bad] == list(range(3, 3 + len(RECORD_FAULTS)))
    assert [row["row"] for row in bad] == RECORD_FAULTS
    assert f"rows: {3 + len(RECORD_FAULTS)} in" in done.err and f"{len(RECORD_FAULTS)} errored" in done.err


def test_unknown_keys_pass_through_every_verb(tmp_path, pt):
    extra = {"x-note": {"deep": [1, None, "é"]}, "annotator": "ann"}
    jsonl(tmp_path / "a.jsonl", [{**rec, **extra} for rec in scored(20)])
    jsonl(tmp_path / "exam.jsonl", [{"prompt": "What?"}])
    for verb, *more in (("convert",), ("mix",), ("dedup", "--near"), ("dedup", "--mark", "--on", "prompt"),
                        ("decontaminate", "--against", "exam.jsonl"), ("pair",), ("best",)):
        made = [json.loads(line) for line in pt("pt-curate", verb, "a.jsonl", *more, check=0).out.splitlines()]
        assert made and all({key: rec[key] for key in extra} == extra for rec in made), verb


def test_filter_names_fields_that_no_row_has(tmp_path, pt):
    long = [user("q " * 3000), assistant("r")]  # so that there are several blocks
    rows = [{"id": str(i), "source": "a", "messages": long, **({"x": 1} if i == 499 else {})} for i in range(500)]
    jsonl(tmp_path / "all.jsonl", rows)
    done = pt("pt-curate", "filter", 'sorce == "a" or source == "b" or x == 1', "all.jsonl", "-j", "2", check=0)
    assert "no row has the field sorce\n" in done.err and len(done.out.splitlines()) == 1
    assert "no row has" not in pt("pt-curate", "filter", "x == 1", "all.jsonl", check=0).err


@pytest.mark.parametrize("verb", ["convert", "filter 'len(id) > 0'", "filter -j 2 'len(id) > 0'", "tag --label a=1",
                                  "decontaminate -j 2 --against exam.jsonl", "filter 'len(id) > 0' <(cat)"])
def test_rows_come_through_while_the_input_stays_open(verb, tmp_path):
    jsonl(tmp_path / "exam.jsonl", [{"prompt": "What are the words of which this is made?"}])
    tool = Path(sys.executable).parent / "pt-curate"
    line = f"{tool} {verb} -q | {tool} convert -q"
    process = subprocess.Popen(["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)
    for rec in chats(3):
        process.stdin.write(json.dumps(rec).encode() + b"\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 120)[0], "the row waits for the end of the input"
        assert json.loads(process.stdout.readline())["id"] == rec["id"]
    assert process.communicate(timeout=120) == (b"", None) and process.returncode == 0


def test_a_stop_leaves_no_part_behind(tmp_path):
    argv = [str(Path(sys.executable).parent / "pt-curate"), "split", "--part", "a=0.5", "--part", "b=0.5", "-o", "{part}.jsonl"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    process.stdin.write(b"".join(json.dumps(rec).encode() + b"\n" for rec in chats(100)))
    process.stdin.flush()
    for _ in range(2000):
        if (tmp_path / "b.jsonl.run" / "b.jsonl").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75 and b"stopped by SIGTERM" in err
    assert not (tmp_path / "a.jsonl").exists() and not (tmp_path / "b.jsonl").exists()
    assert not list(tmp_path.rglob("lock"))


def test_a_name_that_goes_into_the_result_is_in_the_run_key(pt, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"prompt": "What is 2 plus 3?"}\n')
        pt("pt-curate", "convert", name, "-o", "out.jsonl", check=0)
        assert json.loads((tmp_path / "out.jsonl").read_text())["source"] == name[0]
    (tmp_path / "d").mkdir()
    (tmp_path / "b.jsonl").rename(tmp_path / "d" / "b.jsonl")
    assert "nothing to do" in pt("pt-curate", "convert", "d/b.jsonl", "-o", "out.jsonl", check=0).err
