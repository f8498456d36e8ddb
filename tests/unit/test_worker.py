"""Worker processes: answers, limits, and what becomes of those that hang, leak or die."""

import os
import threading
import time

import pytest

from pt_tools.rewards import worker

BODY = '''
import os, sys, time
def act(request):
    kind, value = request
    if kind == "sleep": time.sleep(value)
    if kind == "raise": raise ValueError(value)
    if kind == "exit": os._exit(value)
    if kind == "leave": sys.exit(value)
    if kind == "fill": return len(bytearray(value))
    if kind == "print": print(value, flush=True); os.write(1, b"forged\\n")
    if kind == "odd": return {1, 2}
    if kind == "flood": return "x" * value
    if kind == "pid": return os.getpid()
    return value
'''


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "acts.py").write_text(BODY)
    pool = worker.Pool("acts:act", size=2, memory_mb=512, path=[str(tmp_path)])
    yield pool
    pool.close()


def gone(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_answers_and_failures(pool):
    assert pool.call(["echo", {"a": [1, None, "é"]}], 30) == {"a": [1, None, "é"]}
    assert pool.call(["print", 5], 30) == 5
    for request, why in [(["raise", "no"], "ValueError: no"), (["leave", 0], "SystemExit: 0"), (["odd", 0], "TypeError"),
                         (["fill", 2**31], "MemoryError")]:
        with pytest.raises(worker.Failed, match=why):
            pool.call(request, 30)
    big = "y" * 3_000_000
    assert pool.call(["echo", big], 30) == big


def test_a_worker_that_hangs_is_killed_and_replaced(pool):
    first = pool.call(["pid", 0], 30)
    start = time.monotonic()
    with pytest.raises(worker.Timeout):
        pool.call(["sleep", 60], 0.3)
    assert time.monotonic() - start < 30 and gone(first)
    second = pool.call(["pid", 0], 30)
    assert second != first
    with pytest.raises(worker.Lost, match="exit 7"):
        pool.call(["exit", 7], 30)
    assert pool.call(["pid", 0], 30) != second
    with pytest.raises(worker.Lost, match="more than"):
        pool.call(["flood", worker.MAX_REPLY + 10], 60)


def test_the_kernel_ends_a_worker_whose_parent_is_gone(pool, tmp_path):
    pid = os.fork()
    if pid == 0:
        threading.Timer(0.5, os._exit, (0,)).start()
        (tmp_path / "pid").write_text(str(pool.call(["pid", 0], 30)))
        try:
            pool.call(["sleep", 300], 1)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    orphan = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while not gone(orphan) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(orphan)


def test_threads_share_the_pool_and_forks_do_not(pool):
    found = []
    threads = [threading.Thread(target=lambda i=i: found.append(pool.call(["echo", i], 60))) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(found) == list(range(8))
    mine = {pool.call(["pid", 0], 30) for _ in range(4)}
    pid = os.fork()
    if pid == 0:
        os._exit(0 if pool.call(["pid", 0], 30) not in mine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.call(["pid", 0], 30) in mine


@pytest.mark.parametrize("target", ["nowhere:f", "acts:missing"])
def test_a_function_that_does_not_exist_is_said(tmp_path, target):
    (tmp_path / "acts.py").write_text(BODY)
    with pytest.raises(worker.Lost, match="did not start: (ModuleNotFoundError|AttributeError)"):
        worker.Pool(target, 1, path=[str(tmp_path)]).call(1, 10)
