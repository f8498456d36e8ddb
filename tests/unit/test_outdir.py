"""Whole or not at all: every row of the table of situations, locks, kills at every step of a commit."""

import hashlib
import json
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from pt_tools import outdir
from pt_tools.errors import BadModel, Locked, Usage
from pt_tools.lock import Lock
from pt_tools.outdir import Out

KEY = {"options": {"lr": 1}, "inputs": {"files": ["aa"]}}


def make(path, key=KEY, text="new", **more):
    """Begin, write one file, commit; True if there was nothing to do."""
    said = []
    out = Out(path, key, say=said.append, **more)
    if out.begin():
        return "complete", said
    (out.stage / "model.txt").write_text(text)
    out.commit(rows={})
    out.close(done=True)
    return "built", said


def test_same_key_touches_the_manifest_and_works_not(tmp_path):
    assert make(tmp_path / "o")[0] == "built"
    manifest = tmp_path / "o" / outdir.MANIFEST
    os.utime(manifest, (1, 1))
    assert make(tmp_path / "o", text="other")[0] == "complete"
    assert manifest.stat().st_mtime > 1
    assert (tmp_path / "o" / "model.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["o"]


def test_other_key_replaces_at_the_end(tmp_path):
    make(tmp_path / "o", text="old")
    out = Out(tmp_path / "o", {"options": {"lr": 2}})
    assert out.begin() is False
    (out.stage / "model.txt").write_text("new")
    assert (tmp_path / "o" / "model.txt").read_text() == "old"
    out.commit()
    assert (tmp_path / "o" / "model.txt").read_text() == "new"
    out.close(done=True)
    assert os.listdir(tmp_path) == ["o"]


def test_damaged_output_is_built_again(tmp_path):
    make(tmp_path / "o")
    (tmp_path / "o" / "model.txt").write_text("damaged")
    what, said = make(tmp_path / "o", text="new again")
    assert what == "built" and "model.txt is not the file that its manifest lists" in said[0]


def left_over(path, key=KEY):
    """A run that was stopped after it wrote a checkpoint."""
    out = Out(path, key)
    assert not out.begin()
    out.checkpoints.mkdir()
    (out.checkpoints / "1").write_text("state")
    out.close()


def test_resume_with_the_same_key(tmp_path):
    left_over(tmp_path / "o")
    out = Out(tmp_path / "o", KEY, resume="must")
    assert not out.begin() and out.resuming()
    assert (out.checkpoints / "1").read_text() == "state"


def test_resume_auto_with_another_key_moves_aside(tmp_path):
    left_over(tmp_path / "o")
    said = []
    out = Out(tmp_path / "o", {"options": {"lr": 2}, "inputs": {"files": ["aa"]}}, say=said.append)
    assert not out.begin() and not out.resuming()
    assert (tmp_path / "o.run.old" / "checkpoints" / "1").read_text() == "state"
    assert "options.lr: 1 → 2" in said[0] and "starting clean" in said[0]


def test_resume_must_refuses(tmp_path):
    with pytest.raises(Usage, match="nothing to resume"):
        Out(tmp_path / "o", KEY, resume="must").begin()
    left_over(tmp_path / "o")
    with pytest.raises(Usage, match="options.lr: 1 → 2"):
        Out(tmp_path / "o", {"options": {"lr": 2}, "inputs": {"files": ["aa"]}}, resume="must").begin()
    assert (tmp_path / "o.run" / "checkpoints" / "1").read_text() == "state"


def test_resume_never_starts_clean(tmp_path):
    left_over(tmp_path / "o")
    out = Out(tmp_path / "o", KEY, resume="never")
    assert not out.begin() and not out.resuming()
    assert not (tmp_path / "o.run.old").exists()


def test_foreign_directory_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("dear")
    with pytest.raises(Usage, match="was not made by pt-tools"):
        Out(tmp_path / "home", KEY).begin()
    (tmp_path / "file").write_text("x")
    with pytest.raises(Usage, match="is a file already"):
        Out(tmp_path / "file", KEY).begin()


def test_identity(tmp_path):
    model = tmp_path / "m"
    model.mkdir()
    (model / "w").write_text("1")
    foreign = outdir.identity(model)
    outdir.seal(model, seconds=1, final={"loss": 1})
    sealed = outdir.identity(model)
    outdir.seal(model, seconds=2, final={"loss": 2})
    assert outdir.identity(model) == sealed != foreign  # times and metrics do not matter, bytes do
    (model / "w").write_text("2")
    with pytest.raises(BadModel, match="w is not the file"):
        outdir.identity(model)
    with pytest.raises(Usage, match="no such model directory"):
        outdir.identity("./nowhere/")


def test_work_directory_elsewhere(tmp_path):
    out = Out(tmp_path / "o", KEY, work=tmp_path / "scratch")
    assert not out.begin()
    assert out.run.parent == tmp_path / "scratch"
    (out.stage / "w").write_text("1")
    out.commit()
    out.close(done=True)
    assert (tmp_path / "o" / "w").read_text() == "1" and not (tmp_path / "o.run").exists()
    assert os.listdir(tmp_path / "scratch") == []


def test_file_output(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text in ("1", "2"):
        out = Out(path, {"n": text}, directory=False)
        assert not out.begin()
        out.stage.write_text(text)
        out.commit(rows={})
        out.close(done=True)
        assert path.read_text() == text
    assert Out(path, {"n": "2"}, directory=False).begin() is True
    assert sorted(os.listdir(tmp_path)) == ["rows.jsonl", "rows.jsonl.manifest.json"]
    assert outdir.verify(path)["files"] == {"rows.jsonl": outdir.file_digest(path)}


def test_umask_is_honoured(tmp_path):
    previous = os.umask(0o022)
    try:
        make(tmp_path / "o")
        assert stat.S_IMODE((tmp_path / "o" / "model.txt").stat().st_mode) == 0o644
    finally:
        os.umask(previous)


@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_every_call_of_a_replacement(tmp_path, exchange):
    """A child dies at the n-th file operation, for n = 1, 2, 3 … until it lives: old or new output, never a third."""
    seen, n = set(), 0
    make(tmp_path / "o", text="old")
    while True:
        n += 1
        child = multiprocessing.get_context("fork").Process(target=_die_at, args=(tmp_path / "o", n, exchange))
        child.start()
        child.join()
        recovered = Out(tmp_path / "o", None)
        recovered.begin()
        text = (tmp_path / "o" / "model.txt").read_text()
        outdir.verify(tmp_path / "o")
        recovered.close(done=True)
        seen.add(text)
        assert text in ("old", "new"), n
        if child.exitcode == 0:
            break
        assert child.exitcode == 137
        make(tmp_path / "o", key={"again": n}, text="old")
    assert n > 15 and seen == {"old", "new"}


def _die_at(path, n, exchange):
    count = 0

    def dying(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == n:
                os._exit(137)
            return real(*args, **kwargs)
        return call

    for name in ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir", "chmod"):
        setattr(os, name, dying(getattr(os, name)))
    outdir.exchange = dying(outdir.exchange) if exchange else (lambda a, b: False)
    make(path, key={"other": "key"}, text="new")


def _race(path, barrier, results, over):
    barrier.wait()
    lock = Lock(path)
    try:
        lock.take()
        results.put("won")
        over.wait(120)  # an owner that is gone has no lock
    except Locked:
        results.put("locked")


@pytest.mark.parametrize("stale", [False, True])
def test_eight_racers_one_winner(tmp_path, stale):
    context = multiprocessing.get_context("fork")
    for _ in range(12):
        path = tmp_path / "run" / "lock"
        path.parent.mkdir(exist_ok=True)
        if stale:
            dead = subprocess.Popen([sys.executable, "-c", ""])
            dead.wait()
            import socket
            path.write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid, "start": "1", "job": None}))
        barrier, results, over = context.Barrier(8), context.Queue(), context.Event()
        racers = [context.Process(target=_race, args=(path, barrier, results, over)) for _ in range(8)]
        for racer in racers:
            racer.start()
        outcomes = [results.get(timeout=120) for _ in racers]
        over.set()
        for racer in racers:
            racer.join()
        assert sorted(outcomes) == ["locked"] * 7 + ["won"]
        path.unlink()


def test_lock_names_its_owner(tmp_path):
    first, second = Lock(tmp_path / "o.run" / "lock"), Lock(tmp_path / "o.run" / "lock")
    first.take()
    with pytest.raises(Locked, match=f"process {os.getpid()} on .* is writing .*o.run"):
        second.take()
    first.release()
    second.take()


def test_lock_of_another_host_is_respected(tmp_path):
    path = tmp_path / "o.run" / "lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "1", "job": None}))
    with pytest.raises(Locked, match="if it is dead: rm "):
        Lock(path).take()


def test_a_complete_file_is_touched_for_make(tmp_path):
    for _ in range(2):
        out = Out(tmp_path / "a.jsonl", {"v": 1}, directory=False)
        if not out.begin():
            out.stage.write_text("x\n")
            out.commit()
            out.close(done=True)
            os.utime(out.path, (1, 1))
    assert (tmp_path / "a.jsonl").stat().st_mtime > 1


@pytest.mark.parametrize("manifest", [{}, {"files": []}, {"files": None}])
def test_a_manifest_without_files_is_refused(tmp_path, manifest):
    (tmp_path / outdir.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BadModel, match="lists no files"):
        outdir.identity(tmp_path)


def test_a_file_that_would_be_loaded_must_be_in_the_manifest(tmp_path):
    make(tmp_path / "o")
    (tmp_path / "o" / "README.md").write_text("notes are welcome")
    outdir.verify(tmp_path / "o")
    (tmp_path / "o" / "chat_template.jinja").write_text("another template")
    with pytest.raises(BadModel, match="chat_template.jinja is not in its manifest"):
        outdir.identity(tmp_path / "o")


def test_seconds_of_stopped_starts_are_kept(tmp_path):
    for starts in (1, 2, 3):
        out = Out(tmp_path / "o", KEY)
        assert not out.begin()
        assert out.history == {"seconds": 2.0 * (starts - 1), "starts": starts}
        out.checkpoints.mkdir(exist_ok=True)
        (out.checkpoints / "1").write_text("state")
        out.close(seconds=2.0)


def test_the_spool_of_a_killed_process_is_removed(tmp_path):
    (tmp_path / "o.run").mkdir()
    (tmp_path / "o.run" / "spool.999999999").write_text("left")
    out = Out(tmp_path / "o", KEY)
    spool = out.spool_path(0)
    assert spool.name == f"spool.{os.getpid()}.0" and os.listdir(tmp_path / "o.run") == []
    spool.write_text("mine")
    out.drop_spools()
    assert os.listdir(tmp_path / "o.run") == []


def test_what_a_process_killed_while_it_took_the_lock_left_is_removed(tmp_path):
    """Its half-made lock would keep OUT.run/ for ever; that of a living process stays."""
    child = subprocess.Popen(["true"])
    child.wait()
    home, host = tmp_path / "out.run", socket.gethostname()
    home.mkdir()
    for pid in (child.pid, os.getppid()):
        (home / f"lock.{pid}.{host}.tmp").write_text("")
    lock = Lock(home / "lock")
    lock.take()
    lock.release()
    assert [path.name for path in home.iterdir() if path.suffix == ".tmp"] == [f"lock.{os.getppid()}.{host}.tmp"]
    (home / f"lock.{os.getppid()}.{host}.tmp").rename(home / f"lock.{child.pid}.{host}.tmp")
    assert make(tmp_path / "out")[0] == "built" and not home.exists()


def test_a_zombie_holds_no_lock(tmp_path):
    """A killed owner that its parent has not waited for still has its number; the lock is stale all the same."""
    import socket

    path = tmp_path / "o.run" / "lock"
    path.parent.mkdir()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from pt_tools.lock import _start

    path.write_text(json.dumps({"host": socket.gethostname(), "pid": child.pid, "start": _start(child.pid), "job": None}))
    with pytest.raises(Locked):
        Lock(path).take()
    child.kill()
    while open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    Lock(path).take()
    child.wait()


def test_a_hub_id_is_its_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    ref = tmp_path / "models--meta-llama--Llama-3.1-8B" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text("0e9e39f249a16976918f6564b8830bc894c89659")
    assert outdir.identity("meta-llama/Llama-3.1-8B") == "hub:meta-llama/Llama-3.1-8B@0e9e39f249a16976918f6564b8830bc894c89659"
    with pytest.raises(Usage, match="nobody/nothing is no directory here, and the hub does not give it"):
        outdir.identity("nobody/nothing")


# --- digests between processes ------------------------------------------------------------------------------------

HASHED = """
import hashlib, sys
from pt_tools import digestcache, outdir
digestcache.LEAST, digestcache.SETTLED_S = 4, float(sys.argv[2])
real, calls = hashlib.file_digest, []
hashlib.file_digest = lambda *more: calls.append(1) or real(*more)
print(outdir.file_digest(sys.argv[1]), len(calls))
"""


def hashed(path, home, settled="0"):
    """(digest, times that the file was read) in a process of its own."""
    done = subprocess.run([sys.executable, "-c", HASHED, str(path), settled], capture_output=True, text=True, check=True,
                          env={**os.environ, "XDG_CACHE_HOME": str(home)})
    digest, calls = done.stdout.split()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    return int(calls)


def test_a_foreign_model_is_known_by_the_xxh3_of_its_files(tmp_path):
    import xxhash

    (tmp_path / "sub").mkdir()
    for name, content in {"config.json": b"{}", "sub/model.safetensors": b"12345", "metrics.jsonl": b"1"}.items():
        (tmp_path / name).write_bytes(content)
    digests = {name: xxhash.xxh3_128_hexdigest((tmp_path / name).read_bytes()) for name in ("config.json", "sub/model.safetensors")}
    assert outdir.identity(tmp_path) == outdir.digest_of(digests)
    outdir.seal(tmp_path)  # now there is a manifest, and what it lists counts
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in digests}
    assert outdir.identity(tmp_path) == outdir.digest_of(digests)


def test_digests_of_large_files_are_remembered_until_they_change(tmp_path):
    path, home = tmp_path / "weights", tmp_path / "cache"
    path.write_bytes(b"12345")
    assert hashed(path, home) == 1 and hashed(path, home) == 0
    before = path.stat()
    path.write_bytes(b"54321")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a change that hides: same size, inode and mtime
    assert path.stat().st_mtime_ns == before.st_mtime_ns and hashed(path, home) == 1
    for entry in (p for p in home.rglob("*") if p.is_file()):
        entry.write_text("no digest")
    assert hashed(path, home) == 1 and hashed(path, home) == 0
    path.write_bytes(b"small"[:3])
    assert hashed(path, home) == 1 and hashed(path, home) == 1  # too small to be looked up


def test_what_changed_just_now_is_not_remembered(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"12345")
    assert hashed(path, tmp_path / "cache", "1000") == 1 and hashed(path, tmp_path / "cache", "1000") == 1
    assert hashed(path, tmp_path / "weights") == 1 and path.read_bytes() == b"12345"  # a home that is no directory


def test_what_is_not_ours_in_the_scratch_directory_stays(tmp_path):
    (tmp_path / "o.run").mkdir()
    (tmp_path / "o.run" / "thesis.tex").write_text("years")
    with pytest.raises(Usage, match="holds thesis.tex, which is not of it"):
        Out(tmp_path / "o", KEY).begin()
    assert (tmp_path / "o.run" / "thesis.tex").read_text() == "years"
    (tmp_path / "o.run" / "thesis.tex").unlink()
    assert make(tmp_path / "o")[0] == "built" and not (tmp_path / "o.run").exists()


def test_scratch_of_a_pipe_is_never_taken_up(tmp_path):
    """What was read from a pipe cannot be named, so nothing of such a run can be gone on from."""
    out = Out(tmp_path / "o.jsonl", None, directory=False)
    assert not out.begin()
    out.stage.write_text("half")
    out.lock.release()  # as a kill would leave it
    assert make(tmp_path / "o")[0] == "built"
    again = Out(tmp_path / "o.jsonl", None, directory=False)
    assert not again.begin() and not again.stage.exists()
    again.close()


def test_kept_scratch_stays_after_success_only(tmp_path):
    for done, left in ((True, True), (False, False)):
        out = Out(tmp_path / f"o{done}", KEY, keep=True)
        out.begin()
        if done:
            out.checkpoints.mkdir()
            (out.checkpoints / "1").write_text("state")
            (out.stage / "model.txt").write_text("new")
            out.commit(rows={})
        out.close(done=done)
        assert out.run.exists() == left


def test_places_that_cannot_be_an_output(tmp_path):
    with pytest.raises(Usage, match="cannot be made"):
        Out("/", KEY)
    for stream in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with pytest.raises(Usage, match="is a stream and no file; without --out records go to stdout"):
            Out(stream, KEY, directory=False)
        with pytest.raises(Usage, match="is a stream and no directory$"):
            Out(stream, KEY)
    assert Out("/dev/shm/out.jsonl", KEY, directory=False).path.name == "out.jsonl"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Usage, match="symbolic link to nothing"):
        Out(tmp_path / "dangling", KEY).begin()


def test_a_lock_without_an_owner_is_said_and_not_stolen(tmp_path):
    path = tmp_path / "o.run" / "lock"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(Locked, match="does not say whose it is; if no other command is at work: rm"):
        Lock(path).take()
    assert path.read_text() == "{"


def test_a_lock_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "o.run").mkdir()
    first, second = Lock(tmp_path / "o.run" / "lock"), Lock(tmp_path / "o.run" / "lock")
    first.take()
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        second.take()
    first.release()
    second.take()
    second.release()
