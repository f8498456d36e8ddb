"""pt-curate filter, tag, diff, stats as real processes: every flag, one output for any -j, what is counted and refused."""

import json
import shutil
from pathlib import Path

import pytest
from rows import assistant, jsonl, user

from pt_tools import blocks


def rows_of(done_or_path):
    text = done_or_path.read_text() if isinstance(done_or_path, Path) else done_or_path.out
    return [json.loads(line) for line in text.splitlines()]


def ids(done):
    return [rec["id"] for rec in rows_of(done)]


def chat(id, text, asked="What is it?", **more):
    return {"id": id, "messages": [user(asked), assistant(text)], **more}


ROWS = [chat("ok", "It is so.", source="web", n=1), chat("refused", "I'm sorry, but I can't help.", source="web", n=2),
        chat("ai", "As an AI language model, I have no body.", source="wiki", n=3), chat("mail", "Write to jane@corp.com.", "Where?", source="web"),
        chat("עברית", "שלום לכולם, מה שלומכם היום חברים?", "東京は?", source="wiki", n=5),
        {"id": "group", "source": "web", "prompt": [user("How?")], "completions": [
            {"text": "So.", "reward": 1.0}, {"text": "I cannot help you.", "reward": 0.0}, {"text": "Cut", "finish": "length"}]}]


@pytest.fixture
def here(tmp_path):
    jsonl(tmp_path / "a.jsonl", ROWS)
    jsonl(tmp_path / "ids.jsonl", [{"id": "ok", "cluster": "x"}, {"id": "mail"}, {"id": "elsewhere"}])
    (tmp_path / "words.txt").write_text("# none\nno body\n東京\n")
    return tmp_path


FILTERS = [
    (["n >= 2", "a.jsonl"], ["refused", "ai", "עברית"]),
    (["--where", "source == 'web'", "--where", "n < 2", "a.jsonl"], ["ok"]),
    (["max(reward) > 0", "a.jsonl"], ["group"]),
    (["'東京' in text(messages)", "a.jsonl"], ["עברית"]),
    (["--rule", "refusal", "a.jsonl"], ["ok", "ai", "mail", "עברית", "group"]),
    (["--rule", "not-refusal", "a.jsonl"], ["refused", "group"]),
    (["--rule", "self-reference", "--rule", "pii:kinds=email", "a.jsonl"], ["ok", "refused", "עברית", "group"]),
    (["--rule", "keywords:file=words.txt", "a.jsonl"], ["ok", "refused", "mail", "group"]),
    (["--rule", "language:keep=en", "a.jsonl"], ["ok", "refused", "ai", "mail", "group"]),
    (["--drop", "ids.jsonl", "a.jsonl"], ["refused", "ai", "עברית", "group"]),
    (["--keep", "ids.jsonl", "a.jsonl"], ["ok", "mail"]),
    (["--keep", "ids.jsonl", "--where", "n == 1", "a.jsonl"], ["ok"]),
    (["true", "a.jsonl"], [rec["id"] for rec in ROWS]),
]


@pytest.mark.parametrize("argv, wanted", FILTERS, ids=lambda x: " ".join(x[:3]) if "-" in x[0] or "a.jsonl" in x else None)
def test_filter(pt, here, argv, wanted):
    done = pt("pt-curate", "filter", *argv, check=0)
    assert ids(done) == wanted
    kept = {line["id"]: line for line in rows_of(done)}
    assert all(kept[rec["id"]] == rec for rec in ROWS if rec["id"] in kept and "completions" not in rec), "rows pass on as they are"
    again = pt("pt-curate", "filter", *argv[:-1], input=done.stdout, check=0)
    assert again.stdout == done.stdout, "twice is once"
    assert f"rows: {len(ROWS)} in, {len(wanted)} out" in done.err


def test_completions_are_taken_out(pt, here):
    done = pt("pt-curate", "filter", "--rule", "refusal", "--rule", "truncated", "--json", "a.jsonl", check=0)
    assert rows_of(done)[-1]["completions"] == ROWS[-1]["completions"][:1]
    summary = json.loads(done.err.splitlines()[-1])
    assert summary["completions_dropped"] == 2 and summary["hits"] == {"refusal": 2, "truncated": 1}
    assert summary["by_source"] == {"web": {"in": 4, "refusal": 1}, "wiki": {"in": 2}}
    assert summary["rows"]["reasons"] == {"dropped: refusal": 1}


def test_mark_keeps_every_row_and_stats_count_the_marks(pt, here):
    done = pt("pt-curate", "filter", "--mark", "--rule", "refusal", "--rule", "truncated", "--where", "source == 'web'", "a.jsonl", check=0)
    marks = {rec["id"]: (rec.get("rules"), [c.get("rules") for c in rec.get("completions", [])]) for rec in rows_of(done)}
    assert marks["refused"] == ({"refusal": "I'm sorry, but I can't"}, []) and marks["ok"] == (None, [])
    assert marks["ai"] == ({"where": "source == 'web'"}, [])
    assert marks["group"] == (None, [None, {"refusal": "I cannot help"}, {"truncated": "finish is length"}])
    assert "6 in, 6 out" in done.err and "marked: refusal 2, truncated 1, where 2" in done.err
    report = json.loads(pt("pt-curate", "stats", "--json", input=done.stdout, check=0).out)
    assert report["marks"] == {"refusal": 2, "truncated": 1, "where": 2}
    assert report["sources"]["wiki"]["marks"] == {"where": 2}


def test_scrub(pt, here):
    done = pt("pt-curate", "filter", "--scrub", "email,phone", "a.jsonl", check=0)
    assert rows_of(done)[3]["messages"][1]["content"] == "Write to [EMAIL_1]." and "scrubbed: email 1" in done.err
    assert [rec for rec in rows_of(done) if rec["id"] != "mail"] == [rec for rec in ROWS if rec["id"] != "mail"]
    again = pt("pt-curate", "filter", "--scrub", "all", input=done.stdout, check=0)
    assert again.stdout == done.stdout and "scrubbed" not in again.err
    assert pt("pt-curate", "filter", "--scrub", "phone", "a.jsonl", check=0).stdout == (here / "a.jsonl").read_bytes().replace(b'": ', b'": ')


@pytest.fixture
def tokenizer(world, here):
    shutil.copytree(world / "blank", here / "tok")
    (here / "chatml.jinja").write_text("{% for m in messages %}{{ m.content * 4 }}|{% endfor %}")
    return "tok"


def test_lengths_in_tokens(pt, here, tokenizer):
    from pt_tools.curate.lengths import Lengths

    n = {rec["id"]: Lengths(str(here / "tok")).count(rec)["all"] for rec in ROWS}
    most = sorted(n.values())[2]
    done = pt("pt-curate", "filter", "--rule", f"length:max={most}", "--tokenizer", "tok", "a.jsonl", check=0)
    assert [name for name in ids(done) if name != "group"] == [name for name in n if n[name] <= most and name != "group"]
    other = pt("pt-curate", "filter", "--rule", f"length:max={most}", "--tokenizer", "tok", "--chat-template", "chatml.jinja", "a.jsonl", check=0)
    assert len(ids(other)) < len(ids(done)), "another template, another length"
    tagged = pt("pt-curate", "tag", "--tokenizer", "tok", "a.jsonl", check=0)
    assert {rec["id"]: rec["tokens"]["all"] for rec in rows_of(tagged)} == n
    assert pt("pt-curate", "tag", "--tokenizer", "tok", input=tagged.stdout, check=0).stdout == tagged.stdout
    kept = pt("pt-curate", "filter", f"tokens.all <= {most}", input=tagged.stdout, check=0)
    assert ids(kept) == [name for name in n if n[name] <= most]
    report = json.loads(pt("pt-curate", "stats", "--json", "--tokenizer", "tok", "a.jsonl", check=0).out)
    assert report["prompt_tokens"]["sum"] + report["response_tokens"]["sum"] == sum(n.values())
    shown = pt("pt-curate", "stats", "--tokenizer", "tok", "a.jsonl", check=0).out
    assert str(sum(n.values())) in shown.splitlines()[1].split()
    assert "█" in pt("pt-curate", "stats", "--tokenizer", "tok", "--plot", "response_tokens", "a.jsonl", check=0).out


def test_tag(pt, here):
    done = pt("pt-curate", "tag", "--label", "safety=true", "--label", "note=a b", "--label", "list=[1]", "--where", "source == 'web'", "--rule", "refusal", "a.jsonl",
              "-o", "out.jsonl", "--json", check=0)
    out = rows_of(here / "out.jsonl")
    assert out[1] == {**ROWS[1], "safety": True, "note": "a b", "list": [1]} and [r for r in out if r["id"] != "refused"] == [r for r in ROWS if r["id"] != "refused"]
    assert json.loads(done.err.splitlines()[-1])["tagged"] == 1 and "1 rows tagged" in done.err
    assert pt("pt-curate", "tag", "--label", "safety=true", "--label", "note=a b", "--label", "list=[1]", "--where", "source == 'web'", "--rule", "refusal",
              "out.jsonl", check=0).stdout == (here / "out.jsonl").read_bytes()
    told = pt("pt-curate", "tag", "--let", "language=language(text(messages))", "--let", "double=n * 2", "a.jsonl", check=0)
    assert [(rec.get("language"), rec.get("double")) for rec in rows_of(told)][-3:] == [("en", None), ("he", 10), (None, None)]


def test_tag_never_overwrites_in_silence(pt, here):
    done = pt("pt-curate", "tag", "--label", "source=books", "a.jsonl", check=3)
    assert done.err == 'pt-curate: a.jsonl:1: source is "web" already; --replace changes it\n'
    assert {rec["source"] for rec in rows_of(pt("pt-curate", "tag", "--label", "source=books", "--replace", "a.jsonl", check=0))} == {"books"}
    done = pt("pt-curate", "tag", "--label", "source=wiki", "--on-error", "skip", "--rejects", "bad", "a.jsonl", check=0)
    assert ids(done) == ["ai", "עברית"] and [row["line"] for row in rows_of(here / "bad")] == [1, 2, 4, 6]
    assert rows_of(here / "bad")[0]["row"] == ROWS[0]


def test_diff(pt, here):
    new = [ROWS[5], {**ROWS[0], "n": 9, "extra": 1}, *ROWS[2:5], chat("new", "x")]
    jsonl(here / "b.jsonl", new)
    done = pt("pt-curate", "diff", "a.jsonl", "b.jsonl", check=0)
    assert rows_of(done) == [{"id": "ok", "change": "changed", "keys": ["n", "extra"]}, {"id": "new", "change": "added", "keys": ["id", "messages"]},
                             {"id": "refused", "change": "removed", "keys": ["id", "messages", "source", "n"]}]
    assert "1 added, 1 removed, 1 changed, 4 same (n 1, extra 1); in another order" in done.err
    summary = json.loads(pt("pt-curate", "diff", "--json", "a.jsonl", "b.jsonl", check=0).out)
    assert (summary["added"], summary["removed"], summary["changed"], summary["same"], summary["reordered"]) == (1, 1, 1, 4, True)
    assert summary["rows"]["in"] == summary["rows"]["out"] == 12
    assert "pt-curate: the files differ: 1 added" in pt("pt-curate", "diff", "--exit-code", "a.jsonl", "b.jsonl", check=3).err
    same = pt("pt-curate", "diff", "--exit-code", "a.jsonl", "-", input=(here / "a.jsonl").read_bytes(), check=0)
    assert same.out == "" and "0 added, 0 removed, 0 changed, 6 same" in same.err and "order" not in same.err


def test_stats_tell_why_rows_were_dropped(pt, here):
    pt("pt-curate", "filter", "--rule", "refusal", "a.jsonl", "-o", "kept.jsonl", check=0)
    done = pt("pt-curate", "stats", "kept.jsonl", "a.jsonl", check=0)
    assert "kept.jsonl was made with: dropped: refusal 1" in done.err
    report = json.loads(pt("pt-curate", "stats", "--json", "kept.jsonl", check=0).out)
    assert report["files"]["kept.jsonl"]["by_source"]["web"] == {"in": 4, "refusal": 1}
    shown = pt("pt-curate", "stats", "--languages", "a.jsonl", check=0).out.splitlines()
    assert shown[0].endswith("languages") and "en 4" in shown[1] and "he 1" in shown[1]


BIG = ("convert", "validate", "filter", "filter-marks", "tag", "stats")


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A file of several blocks, with faults in it."""
    path = tmp_path_factory.mktemp("big") / "big.jsonl"
    with open(path, "w") as file:
        for i in range(13000):
            text = f"Answer {i} is " + ("I cannot help with that. " if i % 7 == 0 else "what it is. ") * 40
            row = chat(f"r{i if i % 1000 != 999 else i - 1}", text if i % 1500 else "", f"Question {i} 東京?", source=f"s{i % 3}", n=i % 11)
            file.write(json.dumps(row) + "\n" if i % 2000 != 1999 else '{"id": \n')
    assert path.stat().st_size > 2 * blocks.SIZE
    return path


@pytest.mark.parametrize("verb", BIG)
def test_any_number_of_processes_gives_the_same_bytes(pt, big, tmp_path, verb):
    argv = {"convert": ["--domain", "d"], "filter": ["n < 9"], "filter-marks": ["--mark", "--rule", "refusal", "--rule", "repetition", "--scrub", "all"],
            "tag": ["--let", "m=n * 2", "--rule", "not-refusal"], "stats": ["--json", "--languages"]}.get(verb, [])
    verb, found = verb.partition("-")[0], []
    for jobs in (1, 2):
        done = pt("pt-curate", verb, *argv, str(big), "-j", jobs, "--on-error", "skip", "--rejects", f"bad{jobs}", check=0)
        found.append((done.stdout, (tmp_path / f"bad{jobs}").read_bytes(), done.err.partition(" in ")[0]))
    assert found[0] == found[1] and len(found[0][1].splitlines()) >= 10
    lines = [json.loads(line)["line"] for line in found[0][1].splitlines()]
    assert lines == sorted(lines), "rejects in the order of the rows"
    done = pt("pt-curate", verb, *argv, str(big), "-j", 2, check=3)
    assert f"big.jsonl:{min(lines)}: " in done.err


def test_pipes_flow_and_files_are_whole(pt, here):
    piped = pt("pt-curate", "filter", "n > 1", "-", input=(here / "a.jsonl").read_bytes(), check=0)
    pt("pt-curate", "filter", "n > 1", "a.jsonl", "-o", "out.jsonl.gz", check=0)
    pt("pt-curate", "filter", "n > 1", "a.jsonl", "-o", "out.jsonl.zst", check=0)
    assert ids(piped) == ids(pt("pt-curate", "filter", "true", "out.jsonl.gz", check=0)) == ids(pt("pt-curate", "filter", "true", "out.jsonl.zst", check=0))
    assert "nothing to do" in pt("pt-curate", "filter", "n > 1", "a.jsonl", "-o", "out.jsonl.gz", check=0).err
    assert "nothing to do" not in pt("pt-curate", "filter", "n > 2", "a.jsonl", "-o", "out.jsonl.gz", check=0).err
    (here / "words.txt").write_text("corp\n")
    argv = ("pt-curate", "filter", "--rule", "keywords:file=words.txt", "a.jsonl", "-o", "w.jsonl")
    pt(*argv, check=0)
    (here / "words.txt").write_text("nothing\n")
    assert "nothing to do" not in pt(*argv, check=0).err, "the list is in the run key"


WRONG = [
    (["filter"], "say what stays|it is empty|- is a file"), (["filter", "a.jsonl"], "a.jsonl is a file, not an expression"),
    (["filter", "n > 1", "--rule", "refusal", "a.jsonl"], "no such file: n > 1 (beside an option that says what stays, an expression is a --where)"),
    (["filter", "n >", "a.jsonl"], "--where 'n >'"),
    (["filter", "n ** 2", "a.jsonl"], "the operators are"), (["filter", "--rule", "nonsense", "a.jsonl"], "unknown rule 'nonsense'"),
    (["filter", "--rule", "length:max=5", "a.jsonl"], "counts tokens with --tokenizer"), (["filter", "--rule", "refusal", "--rule", "refusal", "a.jsonl"], "given twice"),
    (["filter", "--tokenizer", "nowhere", "--rule", "refusal", "a.jsonl"], "nowhere: no such file"), (["filter", "--drop", "nowhere", "a.jsonl"], "no such file"),
    (["filter", "--chat-template", "a.jsonl", "--rule", "refusal", "a.jsonl"], "--chat-template is of use only with --tokenizer"),
    (["filter", "--tokenizer", "words.txt", "--rule", "refusal", "a.jsonl"], "words.txt: no tokenizer"),
    (["filter", "--scrub", "names", "a.jsonl"], "--scrub: all, or some of"), (["filter", "--rule", "refusal", "nowhere.jsonl"], "no such file: nowhere.jsonl"),
    (["tag", "a.jsonl"], "nothing to write"), (["tag", "--label", "x", "a.jsonl"], "has not the form NAME=VALUE"), (["tag", "--label", "id=x", "a.jsonl"], "id is no label"),
    (["tag", "--label", "messages=[]", "a.jsonl"], "messages is no label"), (["tag", "--label", "safety=yes", "a.jsonl"], "safety is a string, not true or false"),
    (["tag", "--label", "k=-18446744073709551616", "a.jsonl"], "--label k: a number beyond 64 bits"),
    (["tag", "--label", "a=1", "--let", "a=1", "a.jsonl"], "both give a"), (["tag", "--label", "a=1", "--label", "a=2", "a.jsonl"], "given twice"),
    (["tag", "--let", "a=1 +", "a.jsonl"], "--let a="), (["diff", "a.jsonl"], "diff compares two files"), (["diff", "a.jsonl", "a.jsonl", "a.jsonl"], "two files"),
    (["diff", "-", "-"], "two files"), (["stats", "--plot", "turns", "--json", "a.jsonl"], "--plot draws for people"),
    (["stats", "--plot", "prompt_tokens", "a.jsonl"], "needs --tokenizer"), (["stats", "--plot", "colour", "a.jsonl"], "colour"),
    (["stats", "--tokenizer", "words.txt", "a.jsonl"], "words.txt: no tokenizer"), (["stats", "--chat-template", "words.txt", "a.jsonl"], "only with --tokenizer"),
]


@pytest.mark.parametrize("argv, words", WRONG, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_wrong_use(pt, here, argv, words):
    done = pt("pt-curate", *argv, input=b"", check=2)
    assert any(part in done.err for part in words.split("|")) and done.err.count("\n") == 1 and done.out == ""


def test_an_expression_that_makes_no_sense_is_a_bad_row(pt, here):
    done = pt("pt-curate", "filter", "reward > 0", "a.jsonl", check=3)
    assert done.err.startswith("pt-curate: a.jsonl:6: a list is not compared with a number; use max")
    skipped = pt("pt-curate", "filter", "not reward > 0", "a.jsonl", "--on-error", "skip", check=0)
    assert "6 in, 5 out, 1 errored" in skipped.err
    jsonl(here / "bad-ids.jsonl", [{"id": "a"}, {"id": 5}])
    assert "bad-ids.jsonl:2: no id in this row" in pt("pt-curate", "filter", "--drop", "bad-ids.jsonl", "a.jsonl", check=3).err
