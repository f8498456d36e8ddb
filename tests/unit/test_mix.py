"""Mixing: hand-computed amounts, a naive twin that holds all records, and what must not depend on order."""

import gzip
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import assistant, jsonl, rows_of, user

from pt_tools import mixing, readback, record, stream
from pt_tools.curate import budget, mix, seeded
from pt_tools.curate.words import prompt_key
from pt_tools.errors import BadData


# --- amounts ------------------------------------------------------------------------------------------------------


def test_amounts():
    assert mix.amount("500") == 500 and isinstance(mix.amount("500"), int)
    assert mix.amount("0.5") == 0.5 and mix.amount("50%") == 0.5 and mix.amount("2.0") == 2.0 and mix.amount(".5") == 0.5
    for bad in ("x", "-1", "nan", "inf", "1e400", "1e3", "1_000", "5 rows", "", "%", ".", "5%%"):
        with pytest.raises(ValueError):
            mix.amount(bad)
    assert mix.plan({"a": 10, "b": 10, "c": 10}, {"a": 3, "b": 1.5}) == {"a": 3, "b": 15, "c": 10}
    with pytest.raises(ValueError, match="a has 10 rows, not 11"):
        mix.plan({"a": 10}, {"a": 11})
    assert mix.plan({"a": 10}, {"a": 20}, repeat=2) == {"a": 20}
    with pytest.raises(ValueError, match="a has 10 rows, not 21"):
        mix.plan({"a": 10}, {"a": 21}, repeat=2)


@given(st.integers(0, 1000), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_shares_are_those_of_largest_remainder(total, weights):
    named = {str(i): w for i, w in enumerate(weights)}
    out = mix.shares(total, named)
    exact = {name: total * w / sum(weights) for name, w in named.items()}
    assert sum(out.values()) == total
    assert all(out[name] - math.floor(exact[name]) in (0, 1) for name in named)
    up = [exact[name] % 1 for name in named if out[name] > math.floor(exact[name])]
    down = [exact[name] % 1 for name in named if out[name] == math.floor(exact[name])]
    assert not up or not down or min(up) >= max(down) - 1e-9


def test_tempered_weights():
    sizes = {"a": 100, "b": 25, "c": 0}
    assert mix.tempered(sizes, {}, None) == {"a": 1, "b": 1, "c": 1}
    assert mix.tempered(sizes, {"b": 3.0}, 1.0) == {"a": 100, "b": 75, "c": 0}
    assert mix.tempered(sizes, {}, 0.5) == {"a": 10, "b": 5, "c": 0}
    assert mix.shares(30, mix.tempered(sizes, {}, 0.5)) == {"a": 20, "b": 10, "c": 0}


def test_rows_within_a_budget_of_tokens():
    tokens = {"a": np.array([5, 3, 2, 10])}
    for budget_, rows in ((0, 0), (4, 0), (5, 1), (9, 2), (10, 3), (19, 3), (20, 4)):
        assert mix.plan_tokens(tokens, {"a": budget_}) == {"a": rows}
    assert mix.plan_tokens(tokens, {"a": 48}, repeat=3) == {"a": 4 + 4 + 2}
    assert mix.plan_tokens(tokens, {"a": 60}, repeat=3) == {"a": 12}
    for too_much, repeat in ((21, 1), (61, 3)):
        with pytest.raises(ValueError, match=f"a has 20 tokens, not {too_much}"):
            mix.plan_tokens(tokens, {"a": too_much}, repeat)
    assert mix.plan_tokens({"a": np.array([], int)}, {"a": 0}) == {"a": 0}
    with pytest.raises(ValueError, match="a has 0 tokens, not 1"):
        mix.plan_tokens({"a": np.array([], int)}, {"a": 1}, 5)


def test_an_estimate_of_tokens(world):
    rec = {"id": "x", "prompt": "12345678", "chosen": [assistant("abcd")], "rejected": "é東", "source": "not counted"}
    assert budget.texts(rec) == ["12345678", "abcd", "é東"]
    assert budget.estimate(rec, 4.0) == 5 and budget.estimate(rec, 2.5) == math.ceil(17 / 2.5)
    assert budget.estimate({"text": "abc"}, 4.0) == budget.estimate({"messages": [user("ab"), assistant("cd")]}, 4.0) == 1
    with pytest.raises(ValueError, match="no tokenizer"):
        budget.load(str(world / "sft.jsonl"))


# --- order, caps, choice ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), max_size=40))
def test_equal_keys_are_ordered_by_what_ties_them(keys):
    tie = [hash((i * 7919) % 101) for i in range(len(keys))]
    found = mix.order_of(np.array(keys, np.uint64), lambda row: (tie[row], row))
    assert found.tolist() == sorted(range(len(keys)), key=lambda row: (keys[row], tie[row], row))


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 4))
def test_caps_equal_a_naive_twin(groups, cap):
    rows, seen, wanted = np.arange(len(groups)) * 3, Counter(), []
    for row, group in zip(rows.tolist(), groups):
        seen[group] += 1
        if group == mix.NO_GROUP or seen[group] <= cap:
            wanted.append(row)
    assert mix.capped(rows, np.array(groups, np.uint64), cap).tolist() == wanted


@given(st.integers(0, 20), st.integers(0, 70))
def test_a_choice_takes_evenly(size, n):
    rows, copies = mix.choose(np.arange(size) * 2, n)
    if not size:
        assert len(rows) == 0
        return
    assert len(rows) == len(copies) == n and len(set(zip(rows.tolist(), copies.tolist()))) == n
    found = Counter(rows.tolist())
    assert all(n // size <= found[row] <= n // size + 1 for row in range(0, 2 * size, 2))
    assert all(found[row] == n // size + 1 for row in range(0, 2 * (n % size), 2))


# --- the command against records in memory ------------------------------------------------------------------------


def twin(pools, counts, seed, caps=()):
    """The mixture from its definition, with all records in memory."""
    def place(rec, copy=0):
        return (seeded.key(seed, "mix", rec["id"], copy), rec["id"], copy, record.content_hash(rec), rec.get("source") or "",
                hashlib.sha256(stream.dumps(rec)).digest())

    records = sorted(((place(record.ensure_id(dict(rec))), name, record.ensure_id(dict(rec)))
                      for name, pool in pools.items() for rec in pool), key=lambda item: item[:2])
    for key, cap in caps:
        seen, kept = Counter(), []
        for item in records:
            group = prompt_key(record.user_turns(item[2])) if key == "prompt" else item[2].get(key)
            seen[group] += 1
            if seen[group] <= cap or (key == "cluster" and group is None):
                kept.append(item)
        records = kept
    out = []
    for name in pools:
        pool = [rec for _, pool_name, rec in records if pool_name == name]
        n = counts.get(name, len(pool))
        n = n if isinstance(n, int) else round(n * len(pool))
        whole, rest = divmod(n, len(pool))
        out += [(place(rec, copy), rec) for copy in range(whole) for rec in pool] + [
            (place(rec, whole), rec) for rec in pool[:rest]
        ]
    return [rec for _, rec in sorted(out, key=lambda item: item[0])]


def messy(seed, n, name):
    """Records as they come: some without id or source, some twice, several of one prompt, in several scripts."""
    rng, out = random.Random(seed), []
    for _ in range(n):
        rec = {"source": rng.choice(["web", "本", name]), "messages": [
            user(f"Question {rng.randrange(n // 3)} مرحبا 東京?"), assistant("a" * rng.randrange(1, 9))]}
        if rng.random() < 0.3:
            del rec["source"]
        if rng.random() < 0.7:
            rec["id"] = f"{name}{rng.randrange(n // 2)}"
        if rng.random() < 0.5:
            rec["cluster"] = f"k{rng.randrange(20)}"
        out.append(rec)
    return out


@pytest.fixture
def here(tmp_path):
    for number, name in enumerate("ab"):
        jsonl(tmp_path / f"{name}.jsonl", messy(number, 200, name))
    return tmp_path


def pools_of(here):
    return {f"{name}.jsonl": rows_of((here / f"{name}.jsonl").read_text()) for name in "ab"}


@pytest.mark.parametrize("flags,counts,caps", [
    ((), {}, ()),
    (("--take", "a.jsonl=50", "--take", "b.jsonl=0.25"), {"a.jsonl": 50, "b.jsonl": 0.25}, ()),
    (("--take", "a.jsonl=250%"), {"a.jsonl": 2.5}, ()),
    (("--total", "90", "--weight", "a.jsonl=2"), {"a.jsonl": 60, "b.jsonl": 30}, ()),
    (("--total", "700", "--repeat", "2", "--weight", "b.jsonl=0.9"), {"a.jsonl": 368, "b.jsonl": 332}, ()),
    (("--cap", "source=30", "--cap", "cluster=4", "--cap", "prompt=2"), {}, (("prompt", 2), ("cluster", 4), ("source", 30))),
    (("--cap", "60", "--take", "b.jsonl=9"), {"b.jsonl": 9}, (("source", 60),)),
], ids=["all", "take", "repeat", "total", "repeated-total", "caps", "cap-then-take"])
def test_the_command_equals_its_twin(here, pt, flags, counts, caps):
    wanted = twin(pools_of(here), counts, 3, caps)
    for jobs in ("1", "2"):
        found = rows_of(pt("pt-curate", "mix", "a.jsonl", "b.jsonl", "--seed", "3", "-j", jobs, *flags, check=0).out)
        assert [rec["id"] for rec in found] == [rec["id"] for rec in wanted]
        assert found == wanted and len(found) > 50


@pytest.mark.parametrize("flags", [("--take", "a.jsonl=2.5", "--take", "b.jsonl=17"), ("--cap", "cluster=2", "--cap", "20"),
                                   ("--by", "source", "--take", "web=3", "--take", "none=30"),
                                   ("--total-tokens", "500", "--bytes-per-token", "3", "--alpha", "0.5")])
def test_order_of_rows_and_files_changes_nothing(here, pt, flags):
    (here / "x").mkdir()
    for name, pool in pools_of(here).items():
        jsonl(here / "x" / name, random.Random(0).sample(pool, len(pool)))
    one = pt("pt-curate", "mix", "a.jsonl", "b.jsonl", *flags, check=0).out
    two = pt("pt-curate", "mix", "b.jsonl", "a.jsonl", *flags, check=0, cwd=here / "x").out
    assert one == two and one


def test_mixing_again_changes_nothing(here, pt):
    (here / "once.jsonl").write_text(
        pt("pt-curate", "mix", "a.jsonl", "b.jsonl", "--seed", "3", "--cap", "prompt=3", check=0).out
    )
    again = pt("pt-curate", "mix", "once.jsonl", "--seed", "3", "--cap", "prompt=3", check=0)
    assert again.out == (here / "once.jsonl").read_text() and "dropped" not in again.err


def test_a_mixture_of_nothing(tmp_path, pt):
    jsonl(tmp_path / "none.jsonl", [])
    for flags in ((), ("--by", "source"), ("--cap", "prompt=1"), ("--take", "none.jsonl=0")):
        assert pt("pt-curate", "mix", "none.jsonl", *flags, check=0).out == ""
    assert "none.jsonl has 0 rows, not 1" in pt("pt-curate", "mix", "none.jsonl", "--take", "none.jsonl=1", check=3).err
    assert "nothing to take" in pt("pt-curate", "mix", "none.jsonl", "--total", "1", "--alpha", "1", check=3).err


def test_pools_by_source(here, pt):
    sizes = Counter(rec.get("source", "none") for pool in pools_of(here).values() for rec in pool)
    done = pt(
        "pt-curate",
        "mix",
        "a.jsonl",
        "b.jsonl",
        "--by",
        "source",
        "--take",
        "本=7",
        "--take",
        "none=50%",
        "--take",
        "a=2.0",
        check=0,
    )
    found = Counter(rec.get("source", "none") for rec in rows_of(done.out))
    assert found == {"web": sizes["web"], "b": sizes["b"], "本": 7, "none": round(sizes["none"] / 2), "a": 2 * sizes["a"]}
    wrong = pt("pt-curate", "mix", "a.jsonl", "--by", "source", "--take", "wbe=7", check=3)
    assert "no row is of the source wbe; there are a, none, web, 本" in wrong.err


def test_proportions_and_alpha(tmp_path, pt):
    for name, n in (("big", 900), ("mid", 100), ("low", 1)):
        jsonl(tmp_path / f"{name}.jsonl", [{"source": name, "text": f"{name} {i}"} for i in range(n)])
    files = ("big.jsonl", "mid.jsonl", "low.jsonl")

    def found(*flags):
        return Counter(rec["source"] for rec in rows_of(pt("pt-curate", "mix", *files, *flags, check=0).out))

    # 900 : 100 : 1 of 100 is 89.91 : 9.99 : 0.10; square roots 30 : 10 : 1 of 41.
    assert found("--total", "100", "--alpha", "1") == {"big": 90, "mid": 10}
    assert found("--total", "41", "--alpha", "0.5") == {"big": 30, "mid": 10, "low": 1}
    assert found("--total", "9", "--alpha", "0", "--repeat", "3") == {"big": 3, "mid": 3, "low": 3}
    assert found("--total", "9", "--alpha", "0.5", "--weight", "low.jsonl=0", "--weight", "mid.jsonl=1.5") == {
        "big": 6,
        "mid": 3,
    }
    done = pt("pt-curate", "mix", *files, "--total", "9", check=3)
    assert "low.jsonl has 1 rows, not 3" in done.err


def test_a_budget_of_tokens(tmp_path, pt, world):
    pool = [
        {
            "id": f"r{i}",
            "source": "s",
            "messages": [user(f"What is {i} plus {i * 7}?"), assistant("The answer is " + "7" * (i % 5 + 1))],
        }
        for i in range(300)
    ]
    jsonl(tmp_path / "a.jsonl", pool)
    jsonl(tmp_path / "b.jsonl", [{**rec, "id": rec["id"] + "b", "source": "t"} for rec in pool])
    from pt_tools import models, tokens

    tokenizer, tok = str(world / "blank" / "tokenizer.json"), models.load_tokenizer(str(world / "blank"))
    sizes = {rec["id"]: len(tokens.encode_chat(tok, rec["messages"]).input_ids) for rec in pool}  # as pt-sft encodes
    for jobs, flags in ((1, ("--tokenizer", tokenizer)), (2, ("--tokenizer", world / "blank"))):
        done = pt(
            "pt-curate",
            "mix",
            "a.jsonl",
            "b.jsonl",
            "--total-tokens",
            "2000",
            "--weight",
            "a.jsonl=3",
            *flags,
            "-j",
            jobs,
            "-o",
            f"{jobs}.jsonl",
            check=0,
        )
        spent = Counter()
        for rec in rows_of((tmp_path / f"{jobs}.jsonl").read_text()):
            spent[rec["source"]] += sizes[rec["id"].removesuffix("b")]
        longest = max(sizes.values())
        assert 1500 - longest < spent["s"] <= 1500 and 500 - longest < spent["t"] <= 500
        mixture = json.loads((tmp_path / f"{jobs}.jsonl.manifest.json").read_text())["final"]["mixture"]
        assert [row["tokens"] for row in mixture] == [spent["s"], spent["t"]]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    first = sorted((seeded.key(0, "mix", rec["id"], 0), rec["id"]) for rec in pool)
    kept = {rec["id"] for rec in rows_of((tmp_path / "1.jsonl").read_text()) if rec["source"] == "s"}
    assert kept == {id for _, id in first[:len(kept)]}  # the first in seeded order: no length is preferred
    assert (
        "give --total or --total-tokens" in pt("pt-curate", "mix", "a.jsonl", "--total", 5, "--total-tokens", 5, check=2).err
    )
    assert "needs --tokenizer, or" in pt("pt-curate", "mix", "a.jsonl", "--total-tokens", 5, check=2).err
    assert "no tokenizer" in pt("pt-curate", "mix", "a.jsonl", "--total-tokens", 5, "--tokenizer", "a.jsonl", check=2).err


@pytest.mark.parametrize(
    "argv,why",
    [
        (("--cap", "x"), "has not the form KEY=N"),
        (("--cap", "prompt=0"), "has not the form KEY=N"),
        (("--cap", "3", "--cap", "source=4"), "source is given twice"),
        (("--cap", "domain=3"), "source, cluster or prompt"),
        (("--alpha", "1"), "--alpha is of use only with"),
        (("--repeat", "2"), "--repeat is of use only with"),
        (("--bytes-per-token", "4"), "of use only with --total-tokens"),
        (("--take", "a.jsonl=1", "--total", "1"), "give --take, or a total"),
        (("--take", "a.jsonl=1e3"), "neither a number of rows nor a share"),
        (("--total", "1", "--weight", "a.jsonl=inf"), "at least 0, and finite"),
    ],
)
def test_wrong_use(tmp_path, pt, argv, why):
    jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    assert why in pt("pt-curate", "mix", "a.jsonl", *argv, check=2).err


# --- files --------------------------------------------------------------------------------------------------------


def test_pipes_and_packed_files_are_unpacked(here, pt):
    plain = pt("pt-curate", "mix", "a.jsonl", "b.jsonl", check=0).out
    (here / "a.jsonl.gz").write_bytes(gzip.compress((here / "a.jsonl").read_bytes()))
    (here / "b.bom.jsonl").write_bytes(stream.BOM + (here / "b.jsonl").read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n\n"))
    done = pt("pt-curate", "mix", "a.jsonl.gz", "-", "--take", "-=1.0", input=(here / "b.jsonl").read_bytes(), check=0)
    assert done.out == plain
    assert pt("pt-curate", "mix", "a.jsonl.gz", "b.bom.jsonl", "-o", "m.jsonl", check=0)
    assert (here / "m.jsonl").read_text() == plain and not list(here.glob("*.run"))
    piped = subprocess.run(["bash", "-c", f"{Path(sys.executable).parent}/pt-curate mix <(cat a.jsonl) b.jsonl"], cwd=here,
                           capture_output=True, check=True)
    assert piped.stdout.decode() == plain
    (here / "cut.jsonl.gz").write_bytes((here / "a.jsonl.gz").read_bytes()[:-20])
    assert (
        "cut.jsonl.gz:" in (err := pt("pt-curate", "mix", "cut.jsonl.gz", "-o", "n.jsonl", check=3).err)
        and "cannot be read" in err
    )
    assert not list(here.glob("n.jsonl*"))


def test_rejects_over_a_packed_input_are_refused(here, pt):
    packed = gzip.compress((here / "a.jsonl").read_bytes())
    (here / "a.jsonl.gz").write_bytes(packed)
    done = pt("pt-curate", "mix", "a.jsonl.gz", "--on-error", "skip", "--rejects", "a.jsonl.gz", check=2)
    assert "is an input" in done.err and (here / "a.jsonl.gz").read_bytes() == packed


def test_bad_rows_are_left_out_and_places_stay_right(tmp_path, pt):
    good = [{"id": f"r{i}", "text": f"text {i} é"} for i in range(50)]
    lines = [json.dumps(rec, ensure_ascii=False) for rec in good]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(line + ("\n{broken\n\n[1]" if i % 5 == 0 else "") for i, line in enumerate(lines))
    )
    done = pt("pt-curate", "mix", "a.jsonl", "--on-error", "skip", check=0)
    assert sorted(rows_of(done.out), key=lambda rec: int(rec["id"][1:])) == good
    assert "rows: 70 in, 50 out, 20 errored" in done.err


class Job:
    run = None

    def __init__(self, *files):
        self.rows = stream.Rows()
        self.records = stream.Reader(tuple(map(str, files)), self.rows)


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "abc"}, {"text": "abcdef"}])
    with pytest.raises(BadData, match=r"a\.jsonl: has changed.*run the same line again"), readback.opened(Job(path)) as files:
        assert files.read(0, 0, 16) == {"text": "abc"}
        path.write_text("x" * 40)
        with pytest.raises(BadData, match=r"a\.jsonl: has changed"):
            files.read(0, 0, 16)


def test_many_files_are_not_all_open(tmp_path, monkeypatch):
    monkeypatch.setattr(readback, "MOST_OPEN", 3)
    paths = [jsonl(tmp_path / f"{i}.jsonl", [{"text": f"t{i}"}]) for i in range(8)]
    with readback.opened(Job(*paths)) as files:
        for i in (*range(8), *range(8)):
            assert files.read(i, 0, 14) == {"text": f"t{i}"}
        assert len(files._open) == 3


def test_memory_a_row_is_bounded(tmp_path):
    """What the index keeps: 28 bytes a row, 8 more for tokens and for each cap; the rows themselves stay in the file."""
    path = jsonl(tmp_path / "a.jsonl", [{"id": f"r{i}", "text": "x" * 500} for i in range(3000)])
    rules = mixing.Rules(pools=(str(path),), take={}, weight={}, alpha=None, total=10, in_tokens=True, tokenizer=None,
                         chat_template=None, bytes_per_token=4.0, repeat=1, caps={"prompt": 1, "source": 9}, seed=0)
    job = Job(path)
    with readback.opened(job) as files:
        index = mixing._Index(rules, job, files, 1)
    assert sum(column.nbytes for column in index.columns.values()) == 3000 * (28 + 8 + 16)
    assert not any(isinstance(value, (list, dict)) and len(value) >= 3000 for value in vars(index).values())


@pytest.mark.slow
def test_peak_memory_of_a_process(tmp_path):
    """At most 250 bytes for each further row, with every cap there is."""
    peaks = {}
    for rows in (50_000, 350_000):
        with open(tmp_path / f"{rows}.jsonl", "w") as file:
            for i in range(rows):
                file.write(f'{{"id":"row-{i}","source":"s{i % 9}","cluster":"k{i // 3}","prompt":"Question {i}?"}}\n')
        command = [
            str(Path(sys.executable).parent / "pt-curate"),
            "mix",
            str(tmp_path / f"{rows}.jsonl"),
            "-o",
            str(tmp_path / "out"),
            "-q",
            "--cap",
            "source=90000",
            "--cap",
            "cluster=2",
            "--cap",
            "prompt=1",
        ]
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        peaks[rows] = usage.ru_maxrss * 1024
    assert (peaks[350_000] - peaks[50_000]) / 300_000 < 250
