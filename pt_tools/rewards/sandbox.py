"""Runs model-written Python where it can harm nothing.

Tiers, the best one that works here is used:

    ns        fresh user, process, mount, network, IPC, UTS and cgroup namespaces: an empty network, a read-only root of
              system folders and python, a small private /tmp; no other process can be seen or signalled
    bwrap     the same, made by bubblewrap, where the system lets only it make namespaces
    landlock  where namespaces are forbidden: the same file system view by Landlock, no new processes, no sockets, no
              signals to others and no changes of files' attributes by the system-call filter
    rlimit    resource limits only: no protection; used only after --unsafe-local

In these three a system-call filter refuses what programs of this kind never need (ptrace, io_uring, new namespaces,
sockets, keys, …). In all of them memory, processor time, processes, file sizes, open files and time by the clock are
limited, the environment is empty, privileges are dropped, and the whole process tree is killed at the end.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pt_tools.errors import NoSandbox
from pt_tools.rewards.jail import values

TIERS = ("ns", "bwrap", "landlock")  # in the order of preference
UNSAFE = "rlimit"
START_S = 60.0  # a launcher on a busy machine
END_S = 30.0  # from the kill to the report that all is gone
FOLDER = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """The sandbox itself failed: no memory, no processes, a launcher that died. Never the submission's doing."""


class Ended(Exception):
    """The jailed process has closed its channel."""


class Late(Exception):
    """No message in time."""


@dataclass(frozen=True)
class Limits:
    """`wall_s` and `cpu_s` in seconds; `memory_mb` of address space for each process."""

    wall_s: float = 10.0
    memory_mb: int = 512
    cpu_s: int = 11


class Clock:
    """The time that a submission has: `seconds`, without what its processes, or this thread, waited for a processor.

    So a verdict does not depend on how busy the machine is. `latest` bounds what is added (where the kernel does not
    tell of the waiting, nothing is).
    """

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
        self.latest = self.end + longest(seconds) - seconds
        self.jails, self._before = [], _waited("thread-self")

    def left(self):
        """Seconds until the time is up, 0 from then on."""
        now = time.monotonic()
        if now < self.end:
            return self.end - now
        waited = sum(_waited(jail.pid) for jail in self.jails) + _waited("thread-self") - self._before
        return max(0.0, min(self.end + waited, self.latest) - now)

    @contextlib.contextmanager
    def run(self, limits, tier, stdin=None, stdout=None):
        """`start`, whose own time does not count; what the jail waits for a processor is added."""
        begun = time.monotonic()
        with start(limits, tier, stdin, stdout) as jail:
            took = time.monotonic() - begun
            self.end, self.latest = self.end + took, self.latest + took
            self.jails.append(jail)
            try:
                yield jail
            finally:
                self.settle(jail)

    def settle(self, jail):
        """Add what this jail has waited so far, for good; its process may end now."""
        if jail in self.jails:
            self.jails.remove(jail)
            self.end = min(self.end + _waited(jail.pid), self.latest)


def longest(seconds):
    """Seconds by the clock after which even a process that got no processor is out of time."""
    return 5 * seconds + 30


def _waited(process):
    """Seconds that the main thread of a process was ready to run and did not; 0 if the kernel does not tell."""
    try:
        with open(f"/proc/{process}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Jail:
    """One confined python process (see jail/child.py for what it answers). Use as a context manager."""

    def __init__(self, launcher, limits, stdin=None, stdout=None):
        self.tier, self.ended = launcher.tier, None
        self._life, life = socket.socketpair()
        self._channel, channel = socket.socketpair()
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # its first message says its process id
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            request = {"wall_s": limits.wall_s, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb}
            streams = [null if fd is None else fd for fd in (stdin, stdout)]
            fds = [life.fileno(), channel.fileno(), *streams]
            launcher.send(json.dumps(request).encode(), fds)
        except BaseException:
            self._life.close(), self._channel.close()
            raise
        finally:
            life.close(), channel.close(), os.close(null)
        self._channel.setblocking(False)
        try:
            clock = Clock(START_S)
            self.pid = self._sender(clock)
            self.receive(clock)  # it is ready: only now the submission's time begins
        except (Late, Ended) as error:
            raise Failed(f"sandbox: not ready ({self.close() or type(error).__name__})") from None

    def _sender(self, clock):
        """The id, as seen here, of the process that sent what comes next; None if it cannot be seen. Late, Ended."""
        self._wait(select.POLLIN, clock)
        _, extra, _, _ = self._channel.recvmsg(1, socket.CMSG_SPACE(12), socket.MSG_PEEK)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        found = [struct.unpack("3i", data)[0] for _, kind, data in extra if kind == socket.SCM_CREDENTIALS]
        return found[0] if found and found[0] > 0 else None

    def send(self, data, clock):
        """Send one message (bytes). Late, Ended."""
        view = memoryview(struct.pack("<I", len(data)) + data)
        while view:
            self._wait(select.POLLOUT, clock)
            try:
                view = view[self._channel.send(view) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Ended from None

    def receive(self, clock):
        """One message (bytes). Late, Ended; a message that is too large is Ended too."""
        (size,) = struct.unpack("<I", self._exactly(4, clock))
        if size > values.MAX_FRAME + 16:
            raise Ended
        return self._exactly(size, clock)

    def _exactly(self, size, clock):
        parts = bytearray()
        while len(parts) < size:
            self._wait(select.POLLIN, clock)
            try:
                block = self._channel.recv(min(size - len(parts), 2**18))
            except BlockingIOError:
                continue
            except OSError:
                block = b""
            if not block:
                raise Ended
            parts += block
        return bytes(parts)

    def _wait(self, event, clock):
        if not ready([self.fileno()], event, clock):
            raise Late

    def fileno(self):
        """The descriptor that is readable when a message comes, or the process has closed its channel."""
        return self._channel.fileno()

    def wait(self, clock):
        """True when the process has ended by itself in time."""
        return bool(ready([self._life.fileno()], select.POLLIN, clock))

    def close(self):
        """Kill all of it, wait until it is gone -> {"exit": code}, {"signal": number} or {"over": "disk"}. Failed if
        the jail was never built."""
        if self.ended is None:
            self._life.shutdown(socket.SHUT_WR)
            self._life.settimeout(END_S)
            try:
                self.ended = json.loads(self._life.recv(4096) or b'{"setup": "the supervisor died"}')
            except TimeoutError:
                self.ended = {"setup": "the jail did not end"}
            self._life.close(), self._channel.close()
        if "setup" in self.ended:
            raise Failed(f"sandbox: {self.ended['setup']}")
        return self.ended

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.close()
        except Failed:
            if kind is None or issubclass(kind, (Late, Ended)):
                raise


def ready(fds, event, clock):
    """Wait for `event` on any of the descriptors -> those where it came; none if the time was up before."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, event)
    while not (found := poll.poll((left := clock.left()) * 1000)):
        if not left:
            return []
    return [fd for fd, _ in found]


class Gone(Failed):
    """The launcher has ended."""


class Launcher:
    """The small process that starts jails of one tier; it ends by itself when idle. Failed if it cannot start."""

    def __init__(self, tier):
        self.tier, self.lock = tier, threading.Lock()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\n"
        code += "from pt_tools.rewards.jail import launcher\nlauncher.main()"
        python = getattr(sys, "_base_executable", None) or sys.executable
        argv = [python, "-P", "-s", "-S", "-B", "-c", code, tier, str(theirs.fileno())]
        with theirs:  # the fixed seed makes the order of sets, and so the verdict, the same every time
            subprocess.run(
                argv, env={"PYTHONHASHSEED": "0"}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/",
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, check=False,
            )  # fmt: skip
        self.control.settimeout(START_S)
        try:
            answer = self.control.recv(4096).decode(errors="replace")
        except OSError as error:
            answer = str(error)
        if not answer.startswith("ready "):
            self.control.close()
            raise Failed(answer or "the launcher died")
        self.pid = int(answer.split()[1])

    def send(self, data, fds):
        """Ask for a jail. Gone."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            with self.lock:
                self.control.sendmsg([data], rights)
        except OSError as error:
            raise Gone(f"the sandbox's launcher is gone ({error})") from None


_lock = threading.RLock()
_launchers = {}  # (process id, tier) -> Launcher
_offers = {}  # tier -> None, or why it is not offered


def _forget():
    """A forked process starts launchers of its own, whoever held the lock."""
    global _lock
    _lock = threading.RLock()
    _launchers.clear()


os.register_at_fork(after_in_child=_forget)


def start(limits, tier=None, stdin=None, stdout=None):
    """A new Jail of the best tier, or of `tier`; `stdin` and `stdout` are descriptors. NoSandbox, Failed."""
    tier = tier or best()
    launcher = _launcher(tier)
    try:
        return Jail(launcher, limits, stdin, stdout)
    except Gone:  # it was idle
        return Jail(_launcher(tier, instead_of=launcher), limits, stdin, stdout)


def best():
    """The tier that is used here. NoSandbox if there is none and the command line does not allow to do without."""
    with _lock:
        for tier in TIERS:
            if refusal(tier) is None:
                return tier
    from pt_tools import rewards

    if rewards.settings.unsafe_local:
        return UNSAFE
    reasons = "; ".join(f"{tier}: {refusal(tier)}" for tier in TIERS)
    raise NoSandbox(f"no sandbox here to run model-written code in ({reasons}); --unsafe-local runs it unprotected")


tier = best  # the name for manifests


def refusal(tier):
    """None if `tier` works here, by a real run; else why not."""
    with _lock:
        if tier not in _offers:
            try:
                _offers[tier] = _probe(tier)
            except Failed as error:
                _offers[tier] = str(error)
        return _offers[tier]


def _launcher(tier, instead_of=None):
    with _lock:
        key = (os.getpid(), tier)
        found = _launchers.get(key)
        if found is None or found is instead_of:
            found = _launchers[key] = Launcher(tier)
        return found


PROBE = """
def broken(path):
    found = []
    try:
        open(path).close()
        found.append("reads files")
    except OSError:
        pass
    try:
        open(path + ".new", "w").close()
        found.append("writes files")
    except OSError:
        pass
    try:
        import socket
        socket.socket()
        found.append("opens sockets")
    except OSError:
        pass
    import zipfile
    return found
"""


def _probe(tier):
    import tempfile

    clock = Clock(START_S)
    with tempfile.TemporaryDirectory() as folder, start(Limits(START_S), tier) as jail:
        os.chmod(folder, 0o777)
        canary = Path(folder, "canary")
        canary.write_text("")
        try:
            jail.send(values.dumps({"role": "solution", "texts": [PROBE]}), clock)
            answers = [values.loads(jail.receive(clock))]
            jail.send(values.dumps(["call", "broken", None, (str(canary),), {}]), clock)
            answers.append(values.loads(jail.receive(clock)))
        except (Late, Ended):
            return f"a trial run failed: {jail.close()}"
        return None if answers == [["ok", None], ["ok", []]] else f"a trial run gave {answers}"
