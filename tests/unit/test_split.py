"""Splitting: a prompt or cluster is never in two parts, shares hold, and processes change nothing."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import assistant, jsonl, user

from pt_tools import blocks
from pt_tools.curate import seeded, split
from pt_tools.curate.split import Together


def prompts(n):
    return [{"id": str(i), "prompt": [user(f"Question {i}?")]} for i in range(n)]


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_split_never_parts_a_prompt():
    shares = {"train": 0.8, "dev": 0.1, "test": 0.1}
    for i in range(300):
        variants = [{"prompt": f"Question {i}?"}, {"prompt": [user(f"question  {i}")], "id": "x"},
                    {"messages": [{"role": "system", "content": "Be brief."}, user(f"QUESTION {i}!"), assistant("a")]},
                    {"prompt": f"Question {i}?", "chosen": "a", "rejected": "b"}]
        assert len({split.part_of(rec, shares, 3) for rec in variants}) == 1


def test_split_shares_and_seeds():
    shares = {"train": 0.7, "dev": 0.1}
    records = prompts(4000)
    found = Counter(split.part_of(rec, shares, 0) for rec in records)
    # Binomial: three standard deviations are 87 of 2800 and 57 of 400.
    assert abs(found["train"] - 2800) < 90 and abs(found["dev"] - 400) < 60 and sum(found.values()) == 4000
    other = Counter((split.part_of(rec, shares, 0), split.part_of(rec, shares, 1)) for rec in records)
    assert abs(other["train", "train"] - 0.49 * 4000) < 100  # independent, seed by seed


def test_split_into_everything_leaves_nothing():
    assert all(split.part_of(rec, {name: 0.1 for name in "abcdefghij"}, 0) for rec in prompts(2000))


def test_a_part_by_hand():
    """The definition, once more: a draw from the seed and the letters and digits of the turns, laid along the shares."""
    for i in range(200):
        rec = {"prompt": [user(f"Wie heißt Nr. {i}? 東京 مرحبا")]}
        place = seeded.draw(5, "split", f"wieheißtnr{i}東京مرحبا")
        wanted = "a" if place < 0.25 else "b" if place < 0.75 else None
        assert split.part_of(rec, {"a": 0.25, "b": 0.5}, 5) == wanted


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcdef")), max_size=12), st.randoms(use_true_random=False))
def test_what_shares_a_prompt_or_a_cluster_is_together(links, rng):
    """Against components found by walking, and whatever the order of the links."""
    one, two = Together(), Together()
    for link in links:
        one.add(*link)
    for link in rng.sample(links, len(links)):
        two.add(*link)
    for prompt in range(10):
        seen, todo = set(), [prompt]
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += [b if a == node else a for a, b in links if node in (a, b)]
        names = seen - set(range(10))
        assert one.name(prompt) == two.name(prompt) == (min(names) if names else None)
        assert all(one.name(prompt, cluster) == min(names) for cluster in names)
    assert one.name(0, "z") is None


def test_a_cluster_is_a_matter_of_its_name_and_the_seed():
    shares, together = {"train": 0.5, "test": 0.5}, Together()
    rows = [{"prompt": f"Question {i} of {c}?", "cluster": f"k{c}"} for i in range(20) for c in range(200)]
    for rec in rows:
        together.add(*split.link(rec))
    found = {}
    for rec in rows:
        found.setdefault(rec["cluster"], set()).add(split.part_of(rec, shares, 0, together))
    assert all(len(parts) == 1 for parts in found.values())
    assert 70 < sum(parts == {"train"} for parts in found.values()) < 130  # three standard deviations are 21
    assert split.part_of({"prompt": "Question 3 of 5?"}, shares, 0, together) in found["k5"]  # its prompt is in one


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_command(tmp_path, pt, jobs, monkeypatch):
    """Every row is in one part, in its order, whatever the number of processes; cluster mates are in the same."""
    rows = [{"id": f"r{i}", "source": "s", "cluster": f"k{i % 300}", "messages": [
        user(f"Frage {i // 2} 質問 سؤال?"), assistant("x" * (i % 50 + 1))]} for i in range(0, 3000, 7)]
    rows += [{"id": f"n{i}", "messages": [user(f"Frage {i} 質問 سؤال?"), assistant(str(i))]} for i in range(2000)]
    rng = random.Random(0)
    rng.shuffle(rows)
    jsonl(tmp_path / "all.jsonl", rows)
    done = pt("pt-curate", "split", "all.jsonl", "--part", "a=0.6", "--part", "b=0.3", "--by", "cluster", "-j", jobs,
              "-o", "{part}.jsonl", check=0)
    parts = {name: rows_of(tmp_path / f"{name}.jsonl") for name in "ab"}
    place = {row["id"]: i for i, row in enumerate(rows)}
    for part in parts.values():
        assert [place[row["id"]] for row in part] == sorted(place[row["id"]] for row in part)
        assert all(row == rows[place[row["id"]]] for row in part)
    for key in (lambda row: row.get("cluster"), lambda row: row["messages"][0]["content"]):
        groups = {name: {key(row) for row in part} - {None} for name, part in parts.items()}
        assert not groups["a"] & groups["b"] and all(len(found) > 50 for found in groups.values())
    out = sum(map(len, parts.values()))
    assert f"rows: {len(rows)} in, {out} out, {len(rows) - out} dropped" in done.err and "in no part" in done.err
    manifest = json.loads((tmp_path / "b.jsonl.manifest.json").read_text())
    assert manifest["part"] == {"name": "b", "rows": len(parts["b"])}


def test_any_number_of_processes_gives_the_same_bytes(tmp_path, pt):
    rows = [{"prompt": f"Question {i}? " + "x" * 900} for i in range(12_000)]  # some blocks
    path = jsonl(tmp_path / "all.jsonl", rows)
    assert path.stat().st_size > 2 * blocks.SIZE
    for jobs in (1, 2, 3):
        pt(
            "pt-curate",
            "split",
            "all.jsonl",
            "--part",
            "a=0.5",
            "--part",
            "b=0.25",
            "-j",
            jobs,
            "-o",
            f"{jobs}.{{part}}",
            check=0,
        )
    assert len({(tmp_path / f"{jobs}.a").read_bytes() for jobs in (1, 2, 3)}) == 1
    assert len({(tmp_path / f"{jobs}.b").read_bytes() for jobs in (1, 2, 3)}) == 1


def test_without_clusters_prompts_decide(tmp_path, pt):
    jsonl(tmp_path / "all.jsonl", prompts(50))
    done = pt(
        "pt-curate",
        "split",
        "--part",
        "a=0.5",
        "--by",
        "cluster",
        "-o",
        "{part}.jsonl",
        input=(tmp_path / "all.jsonl").read_bytes(),
        check=0,
    )
    assert "no row has a `cluster`" in done.err and "rows: 50 in" in done.err
    pt("pt-curate", "split", "all.jsonl", "--part", "a=0.5", "-o", "by-prompt.{part}.jsonl", check=0)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "by-prompt.a.jsonl").read_bytes() != b""


def test_bad_rows_are_told_once(tmp_path, pt):
    (tmp_path / "all.jsonl").write_text(
        json.dumps({"prompt": "u", "cluster": "k"}) + "\n{broken\n" + json.dumps({"prompt": ""}) + "\n"
    )
    argv = ("pt-curate", "split", "all.jsonl", "--part", "a=1", "--by", "cluster", "-o", "{part}.jsonl")
    assert "all.jsonl:2: not JSON" in pt(*argv, check=3).err and not (tmp_path / "a.jsonl").exists()
    done = pt(*argv, "--on-error", "skip", "--rejects", "bad.jsonl", check=0)
    assert "rows: 3 in, 1 out, 2 errored" in done.err and len(rows_of(tmp_path / "bad.jsonl")) == 2


def test_rows_are_written_as_they_came(tmp_path, pt):
    lines = ['{"prompt": "a",  "x": 1.0}', '{"x":1e2,"prompt":"\\u00e9"}', '{"prompt":"c"} ']
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    pt("pt-curate", "split", "all.jsonl", "--part", "a=1", "-o", "{part}.jsonl", check=0)
    assert (tmp_path / "a.jsonl").read_text() == "".join(line.rstrip() + "\n" for line in lines)


@pytest.mark.parametrize("by", ["prompt", "cluster"])
def test_a_pipe_with_a_name_is_read(tmp_path, pt, by):
    jsonl(tmp_path / "all.jsonl", prompts(40))
    line = f"{Path(sys.executable).parent}/pt-curate split --by {by} <(cat all.jsonl) --part a=1 -o '{{part}}.jsonl'"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes(), done.stderr


def test_splitting_a_part_again_changes_nothing(tmp_path, pt):
    jsonl(tmp_path / "all.jsonl", prompts(400))
    pt("pt-curate", "split", "all.jsonl", "--part", "a=0.5", "--part", "b=0.5", "-o", "{part}.jsonl", check=0)
    pt("pt-curate", "split", "a.jsonl", "--part", "a=0.5", "--part", "b=0.5", "-o", "again.{part}.jsonl", check=0)
    assert (tmp_path / "again.a.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert (tmp_path / "again.b.jsonl").read_bytes() == b""


def test_near_copies_never_straddle(tmp_path, pt):
    """dedup --mark, split --by cluster: chats with a word changed stay together, with what shares their prompts."""
    rng = random.Random(3)
    vocabulary = [f"word{i}" for i in range(4000)]
    rows = []
    for i in range(120):
        answer = rng.choices(vocabulary, k=80)
        for copy in range(3):
            said = [*answer[:copy * 20], rng.choice(vocabulary), *answer[copy * 20 + 1:]]
            rows.append(
                {
                    "id": f"{i}.{copy}",
                    "family": i,
                    "messages": [user(f"Tell me {i}" + "!" * copy), assistant(" ".join(said))],
                }
            )
        rows.append(
            {
                "id": f"{i}.other",
                "family": i,
                "messages": [user(f"tell me {i}"), assistant("another " + " ".join(rng.choices(vocabulary, k=60)))],
            }
        )
    rng.shuffle(rows)
    jsonl(tmp_path / "all.jsonl", rows)
    pt("pt-curate", "dedup", "--near", "--mark", "all.jsonl", "-o", "marked.jsonl", check=0)
    marked = rows_of(tmp_path / "marked.jsonl")
    assert sum("cluster" in row for row in marked) == 360  # the three copies of a family, not its other answer
    pt(
        "pt-curate",
        "split",
        "marked.jsonl",
        "--part",
        "a=0.5",
        "--part",
        "b=0.5",
        "--by",
        "cluster",
        "-o",
        "{part}.jsonl",
        check=0,
    )
    families = [{row["family"] for row in rows_of(tmp_path / f"{name}.jsonl")} for name in "ab"]
    assert (
        not families[0] & families[1]
        and len(families[0] | families[1]) == 120
        and all(len(found) > 40 for found in families)
    )
