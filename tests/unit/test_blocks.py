"""Blocks of lines in several processes: the same bytes, counts and errors as one after the other."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pt_tools import blocks, record, stream
from pt_tools.errors import BadData, PtError


class Job:
    """What blocks need of a job."""

    def __init__(self, out, *files, **how):
        self.rows = stream.Rows()
        self.records = stream.Reader(tuple(map(str, files)), self.rows, **how)
        self.out = stream.Writer(out, self.rows)


def odd(records, out, factor):
    """Keep odd numbers, times a factor; 13 is bad."""
    last = None
    for rec in records:
        last = records.where.rpartition(":")[2]
        if rec["n"] % 100 == 13:
            records.reject("unlucky", rec)
        elif rec["n"] % 2:
            out.write({"n": rec["n"] * factor})
        else:
            records.rows.add("dropped", 1, "even")
    return int(last or 0)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", 100)


def numbers(path, count, start=0):
    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "wb") as file:
        file.write(b"".join(b'{"n": %d}\n' % n for n in range(start, start + count)))
    return path


def done(tmp_path, jobs, *files, **how):
    path = tmp_path / f"out.{jobs}"
    with open(path, "wb") as file:
        job = Job(file, *files, **how)
        answers = list(blocks.each(job, odd, 3, jobs=jobs))
    return path.read_bytes(), job.rows.as_dict(), answers


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_processes(tmp_path, small, jobs):
    files = numbers(tmp_path / "a.jsonl", 400), numbers(tmp_path / "b.jsonl.gz", 300, 400)
    array = tmp_path / "c.json"
    array.write_text(json.dumps([{"n": n} for n in range(700, 720)]))
    rejects = tmp_path / f"rejects.{jobs}"
    data, rows, answers = done(tmp_path, jobs, *files, array, on_error="skip", rejects=str(rejects), arrays=True)
    kept = [n for n in range(720) if n % 2 and n % 100 != 13]
    assert [json.loads(line)["n"] for line in data.splitlines()] == [3 * n for n in kept]
    assert rows == {"in": 720, "out": len(kept), "dropped": 360, "truncated": 0, "masked": 0, "errored": 8,
                    "reasons": {"dropped: even": 360, "errored: unlucky": 8}}
    end = answers.index(400) + 1
    for of_file, rows_of_file in ((answers[:end], 400), (answers[end:-1], 300), (answers[-1:], 20)):
        assert of_file == sorted(set(of_file)) and of_file[-1] == rows_of_file
    assert len(answers) > 50
    found = [(r["file"].rpartition("/")[2], r["line"], r["row"]["n"]) for r in stream.read_jsonl(str(rejects))]
    lines = [("a.jsonl", 14 + 100 * i) for i in range(4)] + [("b.jsonl.gz", 14 + 100 * i) for i in range(3)] + [("c.json", 14)]
    assert found == [(*line, 13 + 100 * i) for i, line in enumerate(lines)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_bad_row_ends_it(tmp_path, small, jobs):
    path = numbers(tmp_path / "a.jsonl", 400)
    with pytest.raises(BadData, match=r"a\.jsonl:14: unlucky$"):
        done(tmp_path, jobs, path)
    with pytest.raises(BadData, match=r"a\.jsonl:214: unlucky; this is more than --max-bad 2"):
        done(tmp_path, jobs, path, on_error="skip", max_bad=2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_long_lines_and_a_file_without_a_last_newline(tmp_path, small, jobs):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1, "x": "%s"}\n\n{"n": 3}' % (b"x" * 1000))
    data, rows, answers = done(tmp_path, jobs, path)
    assert data == b'{"n":3}\n{"n":9}\n' and rows["in"] == 2 and [n for n in answers if n] == [1, 3]
    with pytest.raises(BadData, match="a.jsonl:1: line is longer than 500 bytes"):
        done(tmp_path, jobs, path, max_line=500)


def test_a_pipe_that_has_the_beginning_of_a_row_is_not_waited_for_before_earlier_rows_went_on(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    hung = threading.Timer(60, os.write, (pipe, b"the end of a line that was waited for\n"))
    hung.start()
    pieces = blocks.cut(stream.Reader([str(path)]), 100)

    def after(data):
        os.write(pipe, data)
        piece = next(pieces)
        return piece and (piece.lines, piece.before, piece.start)

    assert after(b"1\n") == ([b"1\n"], 0, 0)
    assert after(b"2") is None
    assert after(b"3") is None
    assert after(b"4\n\n5") == ([b"234\n", b"\n"], 1, 2)
    assert after(b"6" * 300) is None
    hung.cancel()
    os.close(pipe)
    assert [(piece.lines, piece.before, piece.start) for piece in pieces] == [([b"5" + b"6" * 300], 3, 7)]


def crash(records, out):
    os._exit(3)


def test_a_process_that_dies_is_an_error(tmp_path):
    job = Job(open(os.devnull, "wb"), numbers(tmp_path / "a.jsonl", 10))
    with pytest.raises(PtError, match="a process of -j died"):
        blocks.run(job, crash, jobs=2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(tmp_path, number):
    """One that works when the parent is killed ends too; after TERM nothing is left either."""
    numbers(tmp_path / "a.jsonl", 100_000)
    code = f"""
        import os, sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pt_tools import stop
        stop.install()
        import test_blocks
        test_blocks.blocks.SIZE = 1000
        job = test_blocks.Job(open(os.devnull, "wb"), "a.jsonl")
        test_blocks.blocks.run(job, test_blocks.slow, jobs=2)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("pid.*"))) < 2:
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(number)
    assert child.wait() != 0
    pids = [int(path.suffix[1:]) for path in tmp_path.glob("pid.*")]
    while any(_runs(pid) for pid in pids):
        time.sleep(0.05)


def slow(records, out):
    open(f"pid.{os.getpid()}", "w").close()
    time.sleep(0.3)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- all records of a block ---------------------------------------------------------------------------------------

CHAT = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
LINES = [b'{"id": "1", %s\n', b'\xef\xbb\xbf{"id": "2", %s\n', b'  {"id": "3", %s \n', b"\n", b'{"id": "bad", %s\n', b"no JSON\n", b"[1]\n",
         b'{"id": "4", "text": "t", "x": [[1]]}\n', b'{"id": "5", "messages": []}\n', b'{"id": "6", %s']


@pytest.mark.parametrize("seed", range(20))
def test_map_is_checked_in_a_tight_loop(seed):
    """The same values, places, lines, counts and rejects as of the rows one by one, whatever their order."""
    rng = random.Random(seed)
    body = json.dumps(CHAT).encode()[1:]
    lines = [line % body if b"%s" in line else line for line in rng.choices(LINES[:-1], [20, 1, 1, 1, 1, 1, 1, 1, 1], k=30)] + [LINES[-1] % body]

    def of(row):
        if row["id"] == "bad":
            raise ValueError("bad")
        return row["id"]

    block = blocks.Block("f", 3, lines, before=7, start=100)
    one, slow_rows = blocks.Reader(block, stream.Rows(), "skip", 10**6), stream.Rows()
    two = blocks.Reader(block, slow_rows, "skip", 10**6)
    taken, wanted = one.map(of), []
    for row in record.checked(two):
        try:
            wanted.append((of(row), two.line, two.number, two.span))
        except ValueError as reason:
            two.reject(str(reason), row)
    assert list(zip(taken.values, taken.lines, taken.numbers, taken.spans, strict=True)) == wanted
    assert one.rejected == two.rejected and one.rows.n == slow_rows.n and slow_rows.n["in"] == 30 - lines.count(b"\n") + 1
    assert [b"".join(lines)[start:start + size] for start, size in taken.spans] == taken.lines
