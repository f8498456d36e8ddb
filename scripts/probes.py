"""Attacks on the sandbox, each tried in every tier that works here and, where that is harmless, in a plain Python.

    python scripts/probes.py [TIER …]

prints one JSON object: for each tier the probes that broke it (none, it is hoped) and how many it held; under "plain"
those that succeed without a sandbox, which shows that the probes work. Exit 1 if any tier broke.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pt_tools.rewards import code, code_run, sandbox  # noqa: E402

LIMITS = sandbox.Limits(wall_s=40, cpu_s=5)
TIME_S = 4
RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return 7\n"
SPEC = {"name": "code", "tests": ["assert add(1, 2) == 3", "assert add(20, 22) == 42"], "timeout_s": TIME_S}

# A probe is a program that prints LEAK where it gets what it must not have, or leaves a trace in HOST. "plain" ones also
# run without a sandbox, as a control.
TRY = "import ctypes, os, sys, time\nlibc = ctypes.CDLL(None, use_errno=True)\n"
LEAKS = {  # the body of a try; what it prints counts
    "environment": "print('LEAK' if 'PROBE_SECRET' in os.environ else '')",
    "parent-environment": "print('LEAK' if b'PROBE_SECRET' in open(f'/proc/{os.getppid()}/environ', 'rb').read() else '')",
    "sibling-environment": "print('LEAK' if b'PROBE_SECRET' in open('/proc/SIBLING/environ', 'rb').read() else '')",
    "secret-file": "print('LEAK' if 'canary' in open('HOST/secret').read() else '')",
    "dotfile": "print('LEAK' if open('DOTFILE').read() else '')",
    "passwords": "print('LEAK' if open('/etc/passwd').read() else '')",
    "symlink": "os.symlink('HOST/secret', 'link'); print('LEAK' if 'canary' in open('link').read() else '')",
    "list-host": "print('LEAK' if os.listdir('HOST') else '')",
    "open-descriptors": "for fd in range(3, 256):\n"
    "        try:\n            os.set_blocking(fd, False)\n            print('LEAK' if b'canary' in os.pread(fd, 99, 0) else '')\n"
    "        except OSError: pass",
    "tcp": "import socket; s = socket.create_connection(('127.0.0.1', PORT), 1); print('LEAK')",
    "unix-socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('HOST/sock'); print('LEAK')",
    "abstract-socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0ABSTRACT'); print('LEAK')",
    "datagram": "import socket; s = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]; s.sendto(b'x', 'HOST/datagrams'); "
    "print('LEAK')",
    "signal-host": "os.kill(HOSTPID, 0); print('LEAK')",
    "limits-of-host": "import resource; resource.prlimit(HOSTPID, resource.RLIMIT_CORE); print('LEAK')",
    "schedule-of-host": "os.sched_setaffinity(HOSTPID, os.sched_getaffinity(0)); print('LEAK')",
    "memory-of-host": "open('/proc/HOSTPID/mem', 'rb').close(); print('LEAK')",
    "memory-of-self": "open('/proc/self/mem', 'r+b').close(); print('LEAK')",
    "devices": "import glob\n    for n in [*glob.glob('/dev/nvidia*'), '/dev/kvm', '/dev/mem', '/dev/vda', '/dev/sda', '/dev/ptmx']:\n"
    "        try:\n            os.open(n, os.O_RDWR)\n            print('LEAK')\n        except OSError: pass",
    "ptrace": "r = libc.ptrace(0, 0, 0, 0); print('LEAK' if r == 0 else '')",
    "process-vm": "b = ctypes.create_string_buffer(64)\n    v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\n"
    "    w = (ctypes.c_size_t * 2)(id(b), 8)\n    r = libc.process_vm_readv(os.getpid(), v, 1, w, 1, 0); print('LEAK' if r > 0 else '')",
    "io-uring": "b = ctypes.create_string_buffer(256); r = libc.syscall(425, 4, b); print('LEAK' if r >= 0 else '')",
    "user-namespace": "print('LEAK' if libc.unshare(0x10000000) == 0 else '')",
    "user-namespace-by-clone": "import platform\n    n = {'x86_64': 56, 'aarch64': 220}[platform.machine()]\n"
    "    p = libc.syscall(n, 0x10000000 | 17, 0, 0, 0, 0)\n    if p == 0: os._exit(0)\n    print('LEAK' if p > 0 else '')",
    "mount": "libc.unshare(0x20000); r = libc.mount(b'x', b'/tmp', b'tmpfs', 0, None); print('LEAK' if r == 0 else '')",
    "keys": "import platform\n    n = {'x86_64': 250, 'aarch64': 219}[platform.machine()]\n"
    "    print('LEAK' if libc.syscall(n, 0, -3, 1, 0, 0) > 0 else '')",
    "bpf": "import platform\n    n = {'x86_64': 321, 'aarch64': 280}[platform.machine()]\n    b = ctypes.create_string_buffer(128)\n"
    "    b[0:4], b[4:8], b[8:12], b[12:16] = [x.to_bytes(4, 'little') for x in (2, 4, 4, 1)]\n"
    "    print('LEAK' if libc.syscall(n, 0, b, 128) >= 0 else '')",
    "userfaultfd": "import platform\n    n = {'x86_64': 323, 'aarch64': 282}[platform.machine()]\n"
    "    print('LEAK' if libc.syscall(n, 1) >= 0 else '')",
    "become-root": "os.setresuid(0, 0, 0)\n    open('HOST/secret').read()\n    print('LEAK')",
    "memory": "b = bytearray(2 * 1024**3); print('LEAK')",
    "disk": "for n in range(300):\n        with open(f'big{n}', 'wb') as f: f.write(b'0' * 2**20)\n    print('LEAK')",
    "processes": "n = 0\n    for _ in range(60):\n        p = os.fork()\n        if p == 0:\n            time.sleep(3)\n            os._exit(0)\n"
    "        n += 1\n    print('LEAK')",
}  # fmt: skip
TRACES = {  # what they leave in HOST counts
    "write": "open('HOST/written', 'w').write('x')",
    "append": "open('HOST/shared', 'a').write('poison')",
    "unlink": "libc.unlink(b'HOST/victim')",
    "truncate": "os.truncate('HOST/victim', 0)",
    "change-mode": "os.chmod('HOST/victim', 0o123)",
    "spawn": "libc.system(b'touch HOST/spawned')",
    "posix-spawn": "os.posix_spawn('/usr/bin/touch', ['touch', 'HOST/spawned'], {})",
    "survivor": "if libc.fork() == 0:\n        os.setsid()\n        time.sleep(TIME + 2)\n        open('HOST/survived', 'w').write('x')",
    "shared-memory": "open('/dev/shm/probe-HOSTPID', 'w').write('x')",
}
FORGED = {  # must not be graded as right
    "exit": "raise SystemExit(0)\n" + WRONG,
    "exit-at-once": "import os\nos._exit(0)\n" + WRONG,
    "at-exit": "import atexit, os\natexit.register(lambda: os._exit(0))\n" + WRONG,
    "equal-to-all": "class E(int):\n    def __eq__(self, o): return True\ndef add(a, b): return E()\n",
    "patched-json": "import json\njson.dumps = lambda *a, **k: '[\"l\",\"pass\"]'\n" + WRONG,
    "stack-frames": "import sys, re\ndef add(a, b):\n    f, t = sys._getframe(), ''\n    while f:\n        t += str(f.f_locals)[:10**6]\n"
    "        f = f.f_back\n    m = re.search(rf'add.{a}, {b}. == (\\d+)', t)\n    return int(m[1]) if m else 7\n",
    "huge-int": "def add(a, b): return 10 ** 10**6\n",
    "nul-output": "import os\nos.write(1, b'\\0' * 999)\ndef add(a, b): return '\\0'\n",
}
FLOODS = {  # must neither fill the grader's memory nor outlast the time limit
    "output": "while True: sys.stdout.write('x' * 2**20)",
    "sleep": "time.sleep(600)",
    "regex": "import re; re.match('(a+)+$', 'a' * 50 + 'b')",
    "zip": "import zlib; d = zlib.compress(bytes(2**28)); x = [zlib.decompress(d) for _ in range(99)]",
    "power": "x = 9**9**9",
}
NAMES = [*LEAKS, *TRACES, *(f"forged-{n}" for n in FORGED), *(f"flood-{n}" for n in FLOODS)]
NOT_PLAIN = {"parent-environment", "memory", "disk", "processes", "limits-of-host", "schedule-of-host", "bpf",
             "userfaultfd", "io-uring", "mount", "become-root", "memory-of-self", "keys"}  # fmt: skip


class Host:
    """A folder, listeners, a secret in the environment and a sibling process: what a probe is after."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="probes-", dir="/var/tmp"))
        self.folder.chmod(0o777)
        self.dotfile = self.folder / ".profile"
        self.shm = Path(f"/dev/shm/probe-{os.getpid()}")
        os.environ["PROBE_SECRET"] = "canary"
        self.sibling = subprocess.Popen(["sleep", "1000"])
        self.listeners = [_listen(socket.AF_INET, ("127.0.0.1", 0)), _listen(socket.AF_UNIX, str(self.folder / "sock"))]
        self.abstract = f"probe-{os.getpid()}-{time.monotonic_ns()}"
        self.listeners.append(_listen(socket.AF_UNIX, f"\0{self.abstract}"))
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(str(self.folder / "datagrams"))
        for name in ("sock", "datagrams"):
            (self.folder / name).chmod(0o777)
        for name in ("secret", ".profile", "shared", "victim"):
            (self.folder / name).write_text("canary")
            (self.folder / name).chmod(0o666)
        self.leaked = os.open(self.folder / "secret", os.O_RDONLY)
        os.set_inheritable(self.leaked, True)
        return self

    def __exit__(self, *_):
        self.sibling.kill()
        self.sibling.wait()
        os.close(self.leaked)
        del os.environ["PROBE_SECRET"]
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        self.datagrams.close()
        shutil.rmtree(self.folder)
        self.shm.unlink(missing_ok=True)

    def traces(self):
        """Whether anything in the folder is not as it was."""
        names = {".profile", "secret", "shared", "victim", "sock", "datagrams"}
        return {p.name for p in self.folder.iterdir()} != names or self.shm.exists() or any(
            (self.folder / n).stat().st_mode & 0o777 != 0o666 or (self.folder / n).read_text() != "canary"
            for n in ("shared", "victim"))

    def fill(self, body, indent="    "):
        text = f"{TRY}try:\n{indent}{body}\nexcept BaseException:\n    pass\n" if indent else body
        for name, value in (("ABSTRACT", self.abstract), ("HOSTPID", os.getpid()), ("HOST", self.folder), ("SIBLING", self.sibling.pid), ("TIME", TIME_S),
                            ("PORT", self.listeners[0].getsockname()[1]), ("DOTFILE", self.dotfile)):
            text = text.replace(name, str(value))
        return text


def _listen(family, address):
    server = socket.socket(family)
    server.bind(address)
    server.listen(50)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    return server


def _accept(server):
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


def broken(name, tier):
    """Whether the probe breaks the tier."""
    with Host() as host:
        if name.startswith("forged-"):
            return code.grade(SPEC, {"text": FORGED[name.removeprefix("forged-")]}, tier)[0] > 0
        memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        body = {**LEAKS, **TRACES, **{f"flood-{n}": text for n, text in FLOODS.items()}}[name]
        output, _ = code_run.run_program(host.fill(body), "", LIMITS, tier, sandbox.Clock(TIME_S))
        seconds = time.monotonic() - start
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        if name in TRACES:
            time.sleep({"survivor": TIME_S + 3, "posix-spawn": 0.5}.get(name, 0))
        return b"LEAK" in output or host.traces() or grown_kb > 100 * 1024 or seconds > 10 * TIME_S


def leaks_plainly(name):
    """Whether the probe succeeds without any sandbox: the control of the probe."""
    with Host() as host:
        body = {**LEAKS, **TRACES}[name]
        argv = [sys.executable, "-I", "-c", host.fill(body)]
        with tempfile.TemporaryDirectory() as cwd:
            done = subprocess.run(argv, capture_output=True, cwd=cwd, close_fds=False, timeout=60)
        if name in TRACES:
            time.sleep({"survivor": TIME_S + 3, "posix-spawn": 0.5}.get(name, 0))
        return b"LEAK" in done.stdout or host.traces()


def controls(tier):
    """A right program passes and a wrong one fails: a sandbox in which nothing runs would hold against everything."""
    right, wrong = (code.grade(SPEC, {"text": text}, tier)[0] for text in (RIGHT, WRONG))
    output, how = code_run.run_program("print(input()[::-1])", "abc", LIMITS, tier, sandbox.Clock(30))
    return (right, wrong, bytes(output), how) == (1.0, 0.0, b"cba\n", "exit 0")


def main():
    result = {}
    for tier in sys.argv[1:] or sandbox.TIERS:
        if sandbox.refusal(tier):
            result[tier] = {"not offered": sandbox.refusal(tier)}
            continue
        bad = [name for name in NAMES if broken(name, tier)]
        result[tier] = {"controls": controls(tier), "broken": bad, "held": len(NAMES) - len(bad)}
    plain = [name for name in (*LEAKS, *TRACES) if name not in NOT_PLAIN]
    result["plain"] = {"broken": [name for name in plain if leaks_plainly(name)], "tried": len(plain)}
    print(json.dumps(result, indent=1))
    sys.exit(any(part.get("broken") or not part.get("controls", True) for tier, part in result.items() if tier != "plain"))


if __name__ == "__main__":
    main()
