"""Rows in and out: names of bad rows, policies, accounting, constant memory."""

import gzip
import subprocess
import sys

import pytest

from pt_tools import stream
from pt_tools.errors import BadData, Usage

BAD = {
    "cut line": (b'{"a": 1', "not JSON"),
    "NaN": (b'{"a": NaN}', "not JSON"),
    "NUL": (b'{"a": "\x00"}', "not JSON"),
    "lone surrogate": (b'{"a": "\\ud800"}', "not JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "array": (b"[1, 2]", "not a JSON object"),
    "scalar": (b"7", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "deep": (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "not JSON"),
    "deeper than can be written": (b'{"a":' + b"[" * 400 + b"]" * 400 + b"}", "not JSON (nested more than"),
    "two objects": (b'{"a": 1} {"b": 2}', "not JSON"),
}


@pytest.mark.parametrize("text", ['[{"a": 1}]', '\ufeff [\n{"a": 1},\n{"a": 2}\n]'])
def test_a_file_that_is_an_array_is_told_what_reads_it(tmp_path, text):
    (tmp_path / "x").write_text(text)
    with pytest.raises(BadData, match="x:1: not a JSON object; of a file that is one array pt-curate convert makes records"):
        list(stream.Reader([str(tmp_path / "x")]))


@pytest.mark.parametrize("name", BAD)
def test_bad_line_is_named(tmp_path, name):
    line, reason = BAD[name]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"i": 0}\n' * 1500 + line + b'\n{"i": 1}\n')
    with pytest.raises(BadData) as error:
        list(stream.Reader([str(path)]))
    assert str(error.value).startswith(f"{path}:1501: {reason}")
    assert "\n" not in str(error.value)
    reader = stream.Reader([str(path)], on_error="skip", rejects=str(tmp_path / "rejects"))
    assert len(list(reader)) == 1501
    assert (reader.rows.n["in"], reader.rows.n["errored"]) == (1502, 1)
    (reject,) = stream.read_jsonl(str(tmp_path / "rejects"))
    assert (reject["file"], reject["line"]) == (str(path), 1501) and reject["reason"].startswith(reason)


@pytest.mark.parametrize("text, records", [
    (b"", 0), (b"\n\n", 0), (b'\xef\xbb\xbf{"a":1}\n', 1), (b'{"a":1}\r\n{"a":2}\r\n', 2), (b'{"a":1}', 1),
    (b'{"a":1}\n\n  \n{"a":2}\n', 2), (b"\xef\xbb\xbf", 0), (b'\xef\xbb\xbf\r\n\n{"a":1}\n', 1),
    (b'{"a":1}\n\t\x0b\n', 1)])
def test_harmless_oddities(tmp_path, text, records):
    (tmp_path / "x.jsonl").write_bytes(text)
    assert len(list(stream.Reader([str(tmp_path / "x.jsonl")]))) == records


def test_lines_are_given_as_they_are(tmp_path):
    """Of rows that are not plain too: behind a BOM, with many brackets in them, before a carriage return."""
    lines = [b'{"a": 1}\n', b'{"a": "' + b"[" * 300 + b'"}\n', b"\n", b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}\r\n", b'{"a":1}']
    data = stream.BOM + b"".join(lines)
    (tmp_path / "x.jsonl").write_bytes(data)
    reader, found = stream.Reader([str(tmp_path / "x.jsonl")]), []
    for _ in reader:
        start, length = reader.span
        assert data[start:start + length] == reader.line
        found.append(reader.line)
    assert found == [line for line in lines if line.strip()]


def test_where_counts_blank_lines_and_files(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"n":1}\n\n{"n":3}\n')
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as file:
        file.write(b'{"n":1}\n')
    reader = stream.Reader([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz")])
    seen = [(r["n"], reader.where.rsplit("/", 1)[1]) for r in reader]
    assert seen == [(1, "a.jsonl:1"), (3, "a.jsonl:3"), (1, "b.jsonl.gz:1")]


def test_max_bad_and_long_line(tmp_path):
    (tmp_path / "x").write_bytes(b"1\n2\n3\n")
    with pytest.raises(BadData, match=r"x:3: not a JSON object; this is more than --max-bad 2"):
        list(stream.Reader([str(tmp_path / "x")], on_error="skip", max_bad=2))
    with pytest.raises(BadData, match="x:1: line is longer than 10 bytes"):
        (tmp_path / "x").write_bytes(b'{"a": "0123456789"}\n')
        list(stream.Reader([str(tmp_path / "x")], max_line=10))


def test_torn_gz_is_an_error_with_its_line(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 100000)
    (tmp_path / "x.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"x.gz:\d+: "):
        list(stream.Reader([str(tmp_path / "x.gz")]))


def test_missing_file():
    with pytest.raises(Usage, match="no such file: nowhere.jsonl"):
        list(stream.Reader(["nowhere.jsonl"]))


def test_arrays(tmp_path):
    (tmp_path / "x.json").write_bytes(b' [{"a": 1}, 2, {"a": 3}]')
    reader = stream.Reader([str(tmp_path / "x.json")], arrays=True, on_error="skip")
    assert [(r["a"], reader.where[-2:]) for r in reader] == [(1, ":1"), (3, ":3")]
    assert reader.rows.n["errored"] == 1


def test_rows_account():
    rows = stream.Rows()
    rows.add("in", 5)
    rows.add("out", 2)
    rows.add("dropped", 2, "too short")
    assert rows.missing() == 1
    rows.add("errored", 1, "no prompt")
    assert rows.missing() == 0
    assert str(rows) == "rows: 5 in, 2 out, 2 dropped, 1 errored [dropped: too short (2); errored: no prompt (1)]"


def test_gz_output_is_the_same_bytes_every_time(tmp_path):
    blobs = []
    for name in ("a", "b"):
        with stream.open_output(str(tmp_path / name), "x.jsonl.gz") as file:
            stream.Writer(file).write({"a": "ü", "f": 0.1})
        blobs.append((tmp_path / name).read_bytes())
    assert blobs[0] == blobs[1] and gzip.decompress(blobs[0]) == '{"a":"ü","f":0.1}\n'.encode()


def test_memory_does_not_grow_with_the_file(tmp_path):
    script = ("import sys\nfrom pt_tools import stream\n"
              "n = sum(1 for _ in stream.Reader([sys.argv[1]]))\n"
              "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
              "print(n, status['VmHWM'].split()[0])")
    peaks = []
    for lines in (1_000, 400_000):
        (tmp_path / "x").write_bytes(b'{"text": "%s"}\n' % (b"x" * 100) * lines)
        out = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], capture_output=True, check=True)
        n, peak = map(int, out.stdout.split())
        assert n == lines
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 10_000  # KiB, for a file of 44 MB


def test_a_zst_file_that_was_cut_off_is_no_whole_one(tmp_path):
    """zstandard's own reader would end in silence where the file does, with the rows that were whole."""
    import zstandard

    lines = b"".join(b'{"n": %d, "x": "%x"}\n' % (i, hash((i, 1)) % 2**60) for i in range(50_000))
    packed = zstandard.compress(lines[:900_000]) + zstandard.compress(lines[900_000:])  # two frames are one file
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(packed)
    assert [row["n"] for row in stream.Reader([str(path)])] == list(range(50_000))
    for size in (len(packed) - 1, len(packed) // 2, 5):
        path.write_bytes(packed[:size])
        with pytest.raises(BadData, match=r"x.jsonl.zst:\d+: .*cut off"):
            list(stream.Reader([str(path)]))
    path.write_bytes(b"")
    assert list(stream.Reader([str(path)])) == []


def test_a_damaged_zst_output_is_seen(tmp_path):
    with stream.open_output(str(tmp_path / "x"), "x.jsonl.zst") as file:
        for i in range(2000):
            stream.Writer(file).write({"n": i, "x": f"{i * 7919 % 10007:x}"})
    data = bytearray((tmp_path / "x").read_bytes())
    for at in (len(data) // 3, len(data) // 2, len(data) - 2):
        damaged = bytearray(data)
        damaged[at] ^= 4
        (tmp_path / "y.zst").write_bytes(damaged)
        with pytest.raises(BadData, match=r"y.zst:\d+: "):
            list(stream.Reader([str(tmp_path / "y.zst")]))
