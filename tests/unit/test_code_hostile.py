"""Hostile and odd submissions: every verdict as in tests/golden/code, from one thread and eight, and nothing left."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pt_tools.rewards import code, sandbox
from pt_tools.rewards.jail import confine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden" / "code"))

import hostile  # noqa: E402

LONG = ("sizes/", "pipes/huge")  # seconds each
CASES = {case[0]: case for case in hostile.CASES}
assert len(CASES) == len(hostile.CASES)


@pytest.fixture(params=sandbox.TIERS)
def tier(request):
    if sandbox.refusal(request.param):
        pytest.skip(f"no tier {request.param} here: {sandbox.refusal(request.param)}")
    return request.param


class Canary:
    """A folder in which nothing may change; leftovers elsewhere and living processes are counted too."""

    ELSEWHERE = [Path(p) for p in ("/dev/shm/pt-canary", "/tmp/pt-canary", "/var/tmp/pt-canary")]

    def __init__(self, folder):
        self.folder = folder
        folder.chmod(0o777)
        for parent in list(folder.parents)[:3]:
            if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
                parent.chmod(0o755)
        (folder / "shared").write_text("as it was")
        (folder / "shared").chmod(0o666)
        self.before = self.state()

    def state(self):
        stat = (self.folder / "shared").stat()
        return (sorted(p.name for p in self.folder.iterdir()), (self.folder / "shared").read_bytes(), stat.st_mode,
                stat.st_mtime_ns, [p.exists() for p in (*self.ELSEWHERE, Path.home() / "pt-canary")])  # fmt: skip

    def grade(self, name, tier):
        _, spec, text, _ = CASES[name]
        for word, value in (("CANARY", self.folder), ("HOSTPID", os.getpid()), ("HOSTPORT", 9)):
            text = text.replace(word, str(value))
        return code.grade(spec, {"text": text}, tier)


@pytest.fixture(autouse=True, scope="module")
def adopted():
    """Orphans of the sandbox become children of this process, so that none can be overlooked; launchers too, so those of
    earlier tests are not used."""
    confine.adopt_orphans()
    sandbox._forget()
    yield
    confine.libc.prctl(confine.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def left():
    """What has been started since and still lives; workers of other verifiers, from earlier tests, stay."""
    earlier = set(processes())
    return lambda: [pid for pid in processes() if pid not in earlier]


def processes():
    """Living processes below this one, but for launchers."""
    launchers = {launcher.pid for launcher in sandbox._launchers.values()}
    ps = subprocess.Popen(["ps", "-eo", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True)
    table = [line.split() for line in ps.communicate()[0].splitlines()]
    below, size = {os.getpid()}, 0
    while len(below) > size:
        size = len(below)
        below |= {int(pid) for pid, parent, _ in table if int(parent) in below}
    return [int(pid) for pid, _, stat in table
            if int(pid) in below - launchers - {os.getpid(), ps.pid} and not stat.startswith("Z")]  # fmt: skip


def run(names, tier, folder, threads, left):
    canary = Canary(folder)
    with ThreadPoolExecutor(threads) as pool:
        verdicts = list(pool.map(lambda name: canary.grade(name, tier), names)) if threads > 1 else [
            canary.grade(name, tier) for name in names]
    wrong = [(name, verdict) for name, verdict in zip(names, verdicts) if verdict[0] != CASES[name][3]]
    assert wrong == []
    for score, detail in verdicts:
        assert detail["tier"] == tier and (score == 1) == (detail["passed"] == detail["of"])
        assert score == 1 or len(detail["reason"]) <= 300 and detail["reason"].isprintable()
    if any("daemon" in name for name in names):
        time.sleep(4)
    assert canary.state() == canary.before
    until_none(left)


def until_none(left):
    deadline = time.monotonic() + 60
    while found := left():  # a launcher that was idle may be about to end
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_there_are_enough_of_each_kind():
    assert len(CASES) >= 250
    assert sum(case[3] == 0 for case in CASES.values()) >= 180


def test_what_is_left_would_be_seen(tier, left):
    with sandbox.start(sandbox.Limits(), tier):
        assert len(left()) >= 2  # a supervisor and its jail
    until_none(left)


def test_a_sample(tier, tmp_path, left):
    names = [name for n, name in enumerate(CASES) if not name.startswith(LONG) and n % 3 == 0]
    run(names, tier, tmp_path, 8, left)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
def test_all(tier, tmp_path, threads, left):
    run(list(CASES), tier, tmp_path, threads, left)


@pytest.mark.parametrize("name", hostile.FOOLS)
def test_the_attacks_work_where_tests_and_submission_share_an_interpreter(name, tmp_path):
    """The control of the attacks: the usual way to grade takes them for right."""
    _, spec, text, _ = CASES[name]
    (tmp_path / "all.py").write_text(text + "\n" + "\n".join(spec["tests"]))
    done = subprocess.run([sys.executable, "-I", "all.py"], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0
