"""The sandbox: probes that must fail on every tier, limits, what crosses the pipe, and its own failures."""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time

import probes
import pytest

from pt_tools import rewards
from pt_tools.errors import NoSandbox
from pt_tools.rewards import code, code_run, sandbox
from pt_tools.rewards.jail import seccomp, values

ADD = {"name": "code", "tests": ["assert add(1, 2) == 3"]}
RIGHT = "def add(a, b):\n    return a + b\n"
QUICK = [n for n in probes.NAMES if not n.startswith("flood") and n not in ("survivor", "disk", "processes")]
ROOT = probes.Path(code.__file__).resolve().parents[2]


@pytest.fixture(params=sandbox.TIERS)
def tier(request):
    if sandbox.refusal(request.param):
        pytest.skip(f"no tier {request.param} here: {sandbox.refusal(request.param)}")
    return request.param


def output(text, tier, stdin="", limits=probes.LIMITS, seconds=60):
    return code_run.run_program(textwrap.dedent(text), stdin, limits, tier, sandbox.Clock(seconds))


# ---- probes


def test_there_are_forty_probes_and_their_controls():
    assert len(probes.NAMES) == len(set(probes.NAMES)) >= 40


def test_controls(tier):
    assert probes.controls(tier)


@pytest.mark.parametrize("name", QUICK)
def test_probe(name, tier):
    assert not probes.broken(name, tier)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in probes.NAMES if name not in QUICK])
def test_long_probe(name, tier):
    assert not probes.broken(name, tier)


@pytest.mark.parametrize("name", ["environment", "secret-file", "symlink", "open-descriptors", "tcp", "unix-socket",
                                  "abstract-socket", "datagram", "signal-host", "write", "append", "unlink", "spawn"])  # fmt: skip
def test_the_probe_succeeds_without_a_sandbox(name):
    assert probes.leaks_plainly(name)


# ---- what a jail looks like from inside


def test_nothing_of_the_host_is_seen_in_namespaces(tier):
    if tier == "landlock":
        pytest.skip("names of files can be seen there")
    text = """
        import os
        print([os.getpid(), dict(os.environ), os.getcwd(), os.listdir("."), os.listdir("/dev"), os.path.exists("/proc/1"),
               os.path.exists("/home"), os.path.exists("/etc/passwd")])
        for call in (lambda: os.mkdir("/x"), lambda: open("/usr/x", "w"), lambda: os.mkdir("/dev/x")):
            try:
                call()
                print("made")
            except OSError as error:
                print(error.errno)
    """
    found, how = output(text, tier)
    first, *rest = found.decode().splitlines()
    assert how == "exit 0" and rest == ["30", "30", "30"]  # read-only file system
    assert sorted(first) == sorted("[1, {}, '/tmp', [], ['null', 'zero', 'full', 'random', 'urandom'], False, False, False]")


def test_the_user_is_not_root_and_has_no_rights(tier):
    text = """
        import ctypes, os, struct
        data = ctypes.create_string_buffer(24)
        print(ctypes.CDLL(None).capget(struct.pack("=Ii", 0x20080522, 0), data), any(data.raw[:24]))
        print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), ctypes.CDLL(None).prctl(21, 0, 0, 0, 0), os.getuid())
    """
    found, how = output(text, tier)
    rights, state = found.decode().splitlines()
    assert (how, rights) == ("exit 0", "0 False")
    assert state.startswith("1 2 ")  # no new privileges; a filter of system calls
    if tier != "landlock":
        assert state != "1 2 0"


def test_two_runs_share_nothing(tier):
    write = "open('left', 'w').write('x')\nimport os\nprint(os.listdir('.'))"
    assert output(write, tier)[0] == b"['left']\n"
    assert output("import os\nprint(os.listdir('.'))", tier)[0] == b"[]\n"


@pytest.mark.parametrize("text, how", [
    ("x = bytearray(2**30)", "MemoryError"), ("open('f', 'wb').write(bytes(2**25))", "OSError: [Errno 27] File too large"),
    ("f = [open('/dev/null') for _ in range(200)]", "OSError: [Errno 24] Too many open files: '/dev/null'"),
    ("import os, time\nfor _ in range(99): os.fork() or time.sleep(9)", "Error"),
    ("raise SystemExit(3)", "exit 3"), ("import os\nos._exit(9)", "exit 9"), ("import os\nos.abort()", "killed"),
    ("while True: pass", "timeout"), ("import time\ntime.sleep(99)", "timeout"), ("print('x' * 2**24)", "killed: too much output"),
])  # fmt: skip
def test_limits(tier, text, how):
    assert how in output(text, tier, seconds=3)[1]


def test_processor_time_is_limited(tier):
    limits = sandbox.Limits(wall_s=60, cpu_s=1)
    assert output("while True: pass", tier, limits=limits)[1] == "killed: signal 9"


def test_a_disk_is_not_filled(tier):
    text = "n = 0\nwhile True:\n    open(f'f{n}', 'wb').write(bytes(2**22))\n    n += 1\n"
    assert output(text, tier, seconds=20)[1] in ("killed: disk", "OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize("memory_mb", [64, 512])
def test_the_smallest_memory_is_enough_for_python(tier, memory_mb):
    assert code.grade({**ADD, "memory_mb": memory_mb}, {"text": RIGHT}, tier)[0] == 1.0
    assert code.grade({**ADD, "memory_mb": memory_mb}, {"text": "x = bytearray(600 << 20)\n" + RIGHT}, tier)[0] == 0.0


# ---- plain values


@pytest.mark.parametrize("value", [
    None, True, 0, -5, 2**53, 2**64, -(10**4000), 0.5, -0.0, math.inf, 1e-320, 1j, "", "a\0\ud800\u2028", b"\xff", range(1, 9, 2),
    [], [[1], (2, [3])], (), {1, "a"}, frozenset({(1,)}), {}, {1: {"a": [None]}, (1, 2): 3.0}, int, ValueError,
])  # fmt: skip
def test_plain_values_cross_as_they_are(value):
    found = values.loads(values.dumps(value))
    assert type(found) is type(value) and repr(found) == repr(value)


def test_values_of_subclasses_cross_as_their_contents():
    class Liar:
        def __eq__(self, other):
            raise AssertionError("called")

        __hash__ = __len__ = __iter__ = __repr__ = __str__ = __bool__ = __int__ = __float__ = __index__ = __eq__

    for kind, value in ((int, 5), (float, 0.5), (str, "x"), (list, [1]), (tuple, (1, 2)), (dict, {1: 2}), (bytes, b"x"),
                        (set, {3}), (complex, 2j)):  # fmt: skip
        sub = type("Sub", (Liar, kind), {})
        made = sub.__new__(sub, value) if kind in (int, float, str, tuple, bytes, complex) else sub()
        if kind is list:
            list.append(made, 1)
        elif kind is dict:
            dict.__setitem__(made, 1, 2)
        elif kind is set:
            set.add(made, 3)
        found = values.loads(values.dumps(made))
        assert type(found) is kind and found == value


@pytest.mark.parametrize("data", [
    b"", b"{}", b"[]", b'["zz"]', b'["I", "zz"]', b'["I", 3]', b'["r", 0]', b'["s", ["l"]]', b'["d", 1]', b'["d", [1, 2, 3]]', b'["c", "x", 1]',
    b'["b", "zz"]', b'["y", "print"]', b'["y", "os"]', b'["y", []]', b'["g", 1, 2, 0]', b"[" * 10**5, b"\xff", b'["l", {"a": 1}]',
    b'["l", ' * 101 + b"1" + b"]" * 101, b"1" * 5000,
])  # fmt: skip
def test_malformed_values_are_refused(data):
    with pytest.raises(values.NotPlain):
        values.loads(data)


@pytest.mark.parametrize("value", [object(), lambda: 1, [object()], iter([]), "x" * (5 << 20), [0] * (2 * 10**6)])
def test_what_is_not_plain_does_not_cross(value):
    with pytest.raises(values.NotPlain):
        values.dumps(value)


# ---- the filter


def test_the_filter_knows_the_numbers_of_this_machine():
    """Against the kernel's own header, where it is installed."""
    names = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
    header = probes.Path(names.get(platform.machine(), ""))
    if not header.is_file():
        pytest.skip("no kernel headers")
    column = seccomp.MACHINES[platform.machine()][0]
    known = {a[1].partition("_NR")[2].lstrip("3264").lstrip("_"): a[2] for line in header.read_text().splitlines()
             if len(a := line.split()) >= 3 and a[0] == "#define" and "_NR" in a[1]}  # fmt: skip
    table = {**seccomp.ALWAYS, **seccomp.ALONE, "clone": seccomp.CLONE, "kill": seccomp.KILL, "fcntl": seccomp.FCNTL,
             "ioctl": seccomp.IOCTL, "prlimit64": seccomp.PRLIMIT, "tgkill": seccomp.TGKILL, "prctl": seccomp.PRCTL, "socketpair": seccomp.SOCKETPAIR}  # fmt: skip
    checked = {name: (number[column], int(known[name])) for name, number in table.items() if known.get(name, "").isdigit()}
    assert len(checked) >= 60 and all(a == b for a, b in checked.values()), checked


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("alone", [True, False])
def test_the_filter_is_a_sound_program(machine, alone, monkeypatch):
    """Every jump lands inside, every path ends; and simulated, it refuses what it should and nothing of daily use."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    column, arch = seccomp.MACHINES[machine]
    data = seccomp.program(alone, 77)
    lines = [probes_unpack(data[n : n + 8]) for n in range(0, len(data), 8)]
    assert len(data) % 8 == 0 and len(lines) < 4096

    def run(number, *arguments, arch=arch):
        words = {0: number, 4: arch, **{16 + 8 * n: value for n, value in enumerate(arguments)}}
        at, value = 0, 0
        while True:
            operation, yes, no, k = lines[at]
            at += 1
            if operation == seccomp.RETURN:
                return k
            if operation == seccomp.LOAD:
                value = words.get(k, 0)
                continue
            true = {seccomp.EQUAL: value == k, seccomp.AT_LEAST: value >= k, seccomp.ANY_BIT: bool(value & k)}[operation]
            at += yes if true else no

    refused, missing = seccomp.REFUSE | 1, seccomp.REFUSE | 38
    assert run(0, arch=0x40000003) == seccomp.KILL_PROCESS  # i386 calls
    for name, numbers in {**seccomp.ALWAYS, **seccomp.ALONE}.items():
        if numbers[column] is not None:
            assert run(numbers[column]) == (refused if alone or name in seccomp.ALWAYS else seccomp.ALLOW), name
    assert run(425) == run(435) == run(434) == run(0x40000000 | 1) == run(9999) == missing
    assert run(seccomp.CLONE[column], 0x10000000 | 17) == refused
    assert run(seccomp.CLONE[column], 17) == (refused if alone else seccomp.ALLOW)
    assert run(seccomp.CLONE[column], 0x3D0F00) == seccomp.ALLOW  # a thread
    assert run(seccomp.KILL[column], 77) == seccomp.ALLOW
    assert run(seccomp.KILL[column], 1) == run(seccomp.PRLIMIT[column], 1) == (refused if alone else seccomp.ALLOW)
    assert run(seccomp.PRLIMIT[column], 0) == run(seccomp.PRLIMIT[column], 77) == seccomp.ALLOW
    assert run(seccomp.FCNTL[column], 3, 8) == refused and run(seccomp.FCNTL[column], 3, 3) == seccomp.ALLOW
    assert run(seccomp.SOCKETPAIR[column], 1, 0x80001) == seccomp.ALLOW and run(seccomp.SOCKETPAIR[column], 1, 5) == seccomp.ALLOW
    assert run(seccomp.SOCKETPAIR[column], 1, 0x80002) == run(seccomp.SOCKETPAIR[column], 1, 3) == refused
    assert run(seccomp.SOCKETPAIR[column], 30, 1) == run(seccomp.PRCTL[column], 1) == refused
    assert run(seccomp.PRCTL[column], 15) == seccomp.ALLOW
    daily = {"x86_64": (0, 1, 2, 3, 9, 11, 12, 202, 228, 257, 262), "aarch64": (56, 57, 63, 64, 214, 222, 98, 113)}[machine]
    assert {run(number) for number in (*daily, 436, 437)} == {seccomp.ALLOW}


def probes_unpack(line):
    import struct

    return struct.unpack("<HBBI", line)


# ---- failures of the sandbox itself


def test_a_dead_launcher_is_replaced_and_is_no_verdict(tier):
    for _ in range(3):
        assert code.grade(ADD, {"text": RIGHT}, tier)[0] == 1.0
        pid = sandbox._launchers[os.getpid(), tier].pid
        os.kill(pid, signal.SIGKILL)
        _until_gone([pid])


def test_an_idle_launcher_ends_and_leaves_nothing(tier):
    assert code.grade(ADD, {"text": RIGHT}, tier)[0] == 1.0
    _until_gone([sandbox._launchers[os.getpid(), tier].pid])
    assert code.grade(ADD, {"text": RIGHT}, tier)[0] == 1.0


def test_a_jail_that_cannot_be_built_is_the_graders_failure(monkeypatch):
    """Fewer descriptors than a jail needs: an error after two attempts, never a number."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    sandbox.best()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, limits[1]))
    try:
        verdict = rewards.verify({"verifier": ADD}, RIGHT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert verdict.scores == {} and verdict.reward is None and "Too many open files" in verdict.errors["code"]


def test_a_forked_process_grades_by_itself(tier):
    assert code.grade(ADD, {"text": RIGHT}, tier)[0] == 1.0
    pid = os.fork()
    if pid == 0:
        try:
            score = code.grade(ADD, {"text": RIGHT}, tier)[0]
            assert (os.getpid(), tier) in sandbox._launchers
            os._exit(7 if score == 1.0 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert code.grade(ADD, {"text": RIGHT}, tier)[0] == 1.0


def test_nothing_outlives_a_killed_grader(tier, tmp_path):
    """SIGKILL to the grading process while a submission runs: launcher, supervisor and jail end by themselves."""
    text = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pt_tools.rewards import code, sandbox
        code.grade({ADD!r}, {{"text": {RIGHT!r}}}, {tier!r})
        print(sandbox._launchers[__import__("os").getpid(), {tier!r}].pid, flush=True)
        code.grade({ {**ADD, "timeout_s": 300}!r}, {{"text": "while True: pass"}}, {tier!r})
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True) as process:
        launcher = int(process.stdout.readline())
        family = _family(launcher, least=3)
        process.kill()
    _until_gone(family)


def _until_gone(pids):
    deadline = time.monotonic() + 60
    while alive := [pid for pid in pids if _alive(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _family(pid, least):
    """The process and all below it, once there are so many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
        parents = {int(a): int(b) for a, b in map(str.split, lines)}
        found = {pid}
        while more := {child for child, parent in parents.items() if parent in found} - found:
            found |= more
        if len(found) >= least:
            return found
        time.sleep(0.05)
    raise AssertionError(f"only {found}")


def _alive(pid):
    try:
        return probes.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_best_tier_that_works_is_used(monkeypatch):
    for number, best in enumerate(sandbox.TIERS):
        offers = {tier: "no" if n < number else None for n, tier in enumerate(sandbox.TIERS)}
        monkeypatch.setattr(sandbox, "_offers", offers)
        assert sandbox.tier() == best


def test_where_the_system_forbids_both_tiers_nothing_runs_unless_it_was_typed():
    """A real process that may neither make namespaces nor use Landlock."""
    text = f"""
        import sys, json
        sys.path.insert(0, {str(ROOT)!r})
        from pt_tools import rewards
        from pt_tools.errors import NoSandbox
        from pt_tools.rewards.jail import confine
        confine.no_privileges()
        confine.filter_calls(alone=False)
        record = {{"verifier": {ADD!r}}}
        try:
            print(json.dumps(rewards.verify(record, {RIGHT!r}).scores))
        except NoSandbox as error:
            print(json.dumps([error.code, str(error)]))
        rewards.configure(unsafe_local=True)
        verdict = rewards.verify(record, {RIGHT!r})
        print(json.dumps([verdict.scores, verdict.details]))
        print(json.dumps(rewards.verify(record, "while True: pass").scores))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    refused, allowed, hung = map(json.loads, done.stdout.splitlines())
    assert refused[0] == 8 and "--unsafe-local" in refused[1] and "ns:" in refused[1] and "landlock:" in refused[1]
    assert allowed == [{"code": 1.0}, {"code": {"tier": "rlimit", "passed": 1, "of": 1}}]
    assert hung == {"code": 0.0}


def test_no_sandbox_ends_the_run(monkeypatch):
    monkeypatch.setattr(sandbox, "_offers", dict.fromkeys(sandbox.TIERS, "no"))
    with pytest.raises(NoSandbox):
        rewards.verify({"verifier": ADD}, RIGHT)
