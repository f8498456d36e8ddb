"""What holds of every verb that makes records of records: rows in every script, bad ones among them, in several blocks."""

import gzip
import json
import random
import unicodedata
from collections import Counter

import pytest
import zstandard
from rows import assistant, user

from pt_tools import blocks

TEXTS = ["hello there, world", "What is 2+2?", "東京はどこですか", "北京是中国的首都", "สวัสดีครับ", "שלום עולם", "مرحبا بالعالم",
         "e\u0301te\u0301", "été", unicodedata.normalize("NFD", "한국어 문장"), "\u202eabc\u202c", "👩‍👩‍👧 family",
         "??!", "a\0b", "x\u2028y\x85z", "İstanbul ß ﬁ", "\u0308",
         "I'm sorry, but I can't help.", "Write to jane@corp.com.", '{"a": [1]}', "12345678901234567890123"]
BAD = [b'{"prompt": "a\\ud800"}', b'{"id": 5, "prompt": "x"}', b"[1]", b'{"messages": []}', b'{"prompt": "\\u3000"}',
       b'{"x": 1}', b"\xff", b'{"prompt": "<|im_start|>"}', b'{"prompt": "x", "weight": NaN}', b'{"prompt":']

# verb and its options: the result is records, and the same when the verb gets it again
SAME_AGAIN = {"convert": ("--source", "s"), "dedup": (), "dedup --near": ("--keep", "longest"),
              "dedup --mark": ("--on", "prompt"), "decontaminate": ("--against", "exam.jsonl"),
              "decontaminate --mark": ("--against", "exam.jsonl", "--rule", "any"), "filter": ("len(text(messages)) < 40",),
              "filter --mark": ("--rule", "refusal", "--rule", "pii"), "filter --scrub": ("all",),
              "mix": (), "mix --cap": ("source=9", "--cap", "prompt=1"), "tag": ("--label", "k=[1]", "--where", "n > 1"),
              "pair --margins": ("small",)}
ONCE = {"best --pass-rate": ("0:1", "--prompts"), "best": ("--per-prompt", "2"), "best --pool": ("prompt",),
        "pair": ("--rejected", "every", "--per-prompt", "3"),
        "gatt": ("--instructions", "lists.jsonl"), "gatt --turn-by-turn": ("--instructions", "lists.jsonl"),
        "mix --take": ("@=150%",), "stats": ("--json", "--languages")}
VERBS = SAME_AGAIN | ONCE
KINDS = ("messages", "prompt", "text", "pair", "scored")


def rows_of(data):
    return [json.loads(line) for line in data.split(b"\n") if line]


def said(rng):
    return rng.choice([" ", "", "\n"]).join(rng.choices(TEXTS, k=rng.choice([1, 1, 2, 7])))


def dialogue(rng):
    turns = [{"role": "system", "content": said(rng)}] * (rng.random() < 0.2)
    for _ in range(rng.choice([1, 1, 2])):
        turns += [user(rng.choice(TEXTS[:12]) if rng.random() < 0.6 else said(rng)), assistant(said(rng))]
    return turns


def rows(rng, n, kinds):
    """Records of all kinds, some of one id, some without, from several sources, with keys of nobody."""
    for i in range(n):
        kind = rng.choice(kinds)
        rec = {"id": rng.choice([f"r{i}", f"本/{i}", f"r{rng.randrange(n)}"]), "source": rng.choice(["web", "本", "a b"])}
        rec |= {"messages": {"messages": dialogue(rng)}, "prompt": {"prompt": said(rng)}, "text": {"text": said(rng)},
                "pair": {"prompt": said(rng), "chosen": said(rng) + " a", "rejected": said(rng) + " b", "rating": "better"},
                "scored": {"prompt": dialogue(rng)[:-1], "completions": [
                    {"text": said(rng), "reward": rng.choice([None, 0, 0.5, 1])} for _ in range(rng.randrange(5))]}}[kind]
        for key in ("id", "source"):
            if rng.random() < 0.2:
                del rec[key]
        yield rec | {"n": rng.choice([-1, 0, 2**53 + 1, 2**64 - 1, 1e300]), "x-é": {"deep": [1, None, {"k": 0.1}]}}


def lines(rng, records, bad=0.1):
    """(the bytes of a file in several blocks, with all that a line may have, and numbers of its bad lines)."""
    found, wrong = [], []
    for i, rec in enumerate(records):
        if rng.random() < bad:
            found.append(rng.choice(BAD))
            wrong.append(len(found))
        if i % 40 == 20:
            rec = rec | {"pad": " " * blocks.SIZE}
        line = json.dumps(rec, ensure_ascii=rng.random() < 0.5).encode() + b"\r" * (rng.random() < 0.1)
        found += [b" "] * (rng.random() < 0.05) + [line]
    return b"\xef\xbb\xbf" + b"\n".join(found), wrong


@pytest.fixture
def here(tmp_path):
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS[1:4]))
    (tmp_path / "lists.jsonl").write_text('{"name": "F", "instruction": "Be {value}.", "values": ["kind", "優しい"]}\n')
    return tmp_path


def test_counts_by_source_add_up(here, pt):
    data, wrong = lines(random.Random(1), list(rows(random.Random(1), 90, ("messages", "scored"))))
    good = [json.loads(line) for number, line in enumerate(data[3:].split(b"\n"), 1) if line.strip() and number not in wrong]
    wanted = Counter(rec.get("source", "none") for rec in good)
    (here / "a.jsonl").write_bytes(data)
    skip = ("a.jsonl", "--on-error", "skip", "--json")
    summary = json.loads(pt("pt-curate", "filter", "n != 0", *skip, check=0).err.splitlines()[-1])
    assert {name: found["in"] for name, found in summary["by_source"].items()} == wanted
    gone = {name: sum(n for why, n in found.items() if why != "in") for name, found in summary["by_source"].items()}
    assert sum(gone.values()) == summary["rows"]["dropped"] and gone == Counter(
        rec.get("source", "none") for rec in good if rec["n"] == 0)
    done = pt("pt-curate", "dedup", "--on", "prompt", *skip, check=0)
    summary, left = json.loads(done.err.splitlines()[-1]), Counter(rec.get("source", "none") for rec in rows_of(done.stdout))
    assert {name: n for name, n in (wanted - left).items()} == summary["copies"]["redundant"]
    assert sum(summary["copies"]["redundant"].values()) == summary["rows"]["dropped"] > 0
    report = json.loads(pt("pt-curate", "stats", *skip, check=0).out)
    assert {name: found["rows"] for name, found in report["sources"].items()} == wanted


def test_two_steps_of_dedup_are_one(here, pt):
    """Shards with bad rows, odd lines, rows of one id and rows without one: the same bytes stay, and the same rows go."""
    rng = random.Random(4)
    records = list(rows(rng, 60, ("messages", "text", "scored")))
    copies = [dict(rec, **{"x-é": 1}) for rec in rng.sample(records, 40)]
    for rec in rng.sample(copies, 25):
        rec.pop("id", None)
    for name, part in (("a", records[:40] + copies[:20]), ("b", copies[20:] + records[40:])):
        (here / f"{name}.jsonl").write_bytes(lines(rng, part)[0])
    skip = ("--on-error", "skip")
    for options in ((), ("--on", "prompt", "--keep", "best", "--prefer", "本", "--threshold", "0.5")):
        one = pt("pt-curate", "dedup", "--near", "a.jsonl", "b.jsonl", *options, *skip, "--table", "table.jsonl", check=0)
        for name in "ab":
            pt("pt-curate", "sketch", f"{name}.jsonl", "-o", f"{name}.bands", "-j", "2", *options, *skip, check=0)
        pt("pt-curate", "cluster", "a.bands", "b.bands", "-o", "drop.jsonl", check=0)
        two = [pt("pt-curate", "filter", "--drop", "drop.jsonl", f"{name}.jsonl", *skip, check=0).stdout for name in "ab"]
        assert b"".join(two) == one.stdout
        table, drop = (rows_of((here / name).read_bytes()) for name in ("table.jsonl", "drop.jsonl"))
        for row in (*table, *drop):
            row["file"] = row.get("file", "").rpartition("/")[2]
        assert table == drop and len(drop) > 30


def run(pt, verb, name, *more, **how):
    """A verb over a file (or stdin, "-"), bad rows left out: what it writes, its rejects and its summary."""
    options = [option.replace("@", name) for option in VERBS[verb]]
    done = pt("pt-curate", *verb.split(), *options, name, "--on-error", "skip", "--rejects", "bad",
              *["--json"] * (verb != "stats"), *more, check=0, **how)
    return done, (how.get("cwd") / "bad").read_bytes()


def kinds_of(verb):
    return {"best --pass-rate": ("scored",), "pair --margins": ("pair",), "gatt": ("messages",),
            "gatt --turn-by-turn": ("messages",)}.get(verb, KINDS)


@pytest.mark.parametrize("verb", VERBS)
def test_properties(here, pt, verb):
    rng = random.Random(verb)
    data, wrong = lines(rng, list(rows(rng, 70, kinds_of(verb))))
    (here / "a.jsonl").write_bytes(data)
    done, bad = run(pt, verb, "a.jsonl", cwd=here)
    # every row is accounted for, and bad ones by their line
    rejected = [row["line"] for row in rows_of(bad)]
    assert rejected == wrong if not verb.startswith(("pair", "gatt")) else set(rejected) >= set(wrong)
    summary = json.loads(done.err.splitlines()[-1]) if verb != "stats" else {}
    if summary:
        counts = summary["rows"]
        assert counts["in"] == counts["out"] + counts["dropped"] + counts["errored"] and counts["errored"] == len(rejected)
        further = sum(n for why, n in counts["reasons"].items() if why.startswith("in: "))
        assert counts["in"] - further == sum(bool(line.strip()) for line in data[3:].split(b"\n"))
        assert counts["out"] == done.stdout.count(b"\n") > 0
    # the same bytes from several processes, a pipe, packed files
    found = [run(pt, verb, "a.jsonl", "-j", "2", cwd=here)]
    (here / "a.jsonl.zst").write_bytes(zstandard.compress(data))
    if verb != "mix --take":
        found += [run(pt, verb, "a.jsonl.zst", cwd=here), run(pt, verb, "-", input=data, cwd=here)]
    for other, other_bad in found:
        assert other.stdout == done.stdout
        assert [{**row, "file": ""} for row in rows_of(other_bad)] == [{**row, "file": ""} for row in rows_of(bad)]
    # the same rows in another order; copies that stay, and samples that are joined, may be others
    if not verb.startswith("dedup") and verb != "best --pool":
        shuffled = data[3:].split(b"\n")
        rng.shuffle(shuffled)
        (here / "a.jsonl").write_bytes(b"\n".join(shuffled))
        other, wanted = run(pt, verb, "a.jsonl", cwd=here)[0].stdout, done.stdout
        if not verb.startswith(("mix", "stats")):  # rows in the order of the input
            other, wanted = sorted(other.split(b"\n")), sorted(done.stdout.split(b"\n"))
        assert other == wanted
    if verb in SAME_AGAIN:
        (here / "b.jsonl").write_bytes(done.stdout)
        assert run(pt, verb, "b.jsonl", cwd=here)[0].stdout == done.stdout
