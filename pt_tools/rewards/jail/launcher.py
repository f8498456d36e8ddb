"""Starts jails. One small process for each process that grades: no secrets, an empty environment, one thread.

A request brings four descriptors: `life`, `channel`, standard input and standard output. For each a supervisor is
forked, and by it the jailed process. The supervisor kills the jail when `life` is shut at its other end (also when that
end's process has died) or the time is up, waits until all of it is gone, and then says on `life` how it ended, as JSON:
{"setup": reason} if the jail could not be built, else {"exit": code} or {"signal": number}.
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress

from pt_tools.rewards.jail import confine, seccomp

CHANNEL = 3  # the jailed process's descriptor; 0 and 1 are its input and output
WATCH_S = 0.1  # how often a writable folder on the host's disk is measured
IDLE_S = 1.0  # without a request for so long, the launcher ends; the next one takes a tenth of a second
GRACE_S = 5.0  # the grading side's own clock comes first
# What programs import most often, loaded once: a fork then costs a millisecond where an import costs ten.
PRELOADED = (
    "abc array bisect collections collections.abc copy dataclasses datetime decimal enum fractions functools heapq "
    "inspect io itertools json math operator os queue random re statistics string sys threading time traceback typing"
).split()


def main():
    tier, control = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    if os.fork():  # an orphan needs nobody to wait for it
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for name in PRELOADED:
            importlib.import_module(name)
        importlib.import_module("pt_tools.rewards.jail.child")
        with suppress(OSError):  # when memory runs out, these go first
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")
        confine.adopt_orphans()
        if tier in ("ns", "landlock"):
            seccomp.program(alone=tier == "landlock", pid=0)  # most of it is kept for all jails
        if tier == "ns":
            confine.enter_root()
        if tier == "bwrap":
            confine.check_bubblewrap()
    except Exception as error:
        control.send(f"{type(error).__name__}: {error}".encode())
        return
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.path[:] = [folder for folder in sys.path if folder != root]
    os.environ.clear()
    gc.collect()
    gc.freeze()
    control.send(b"ready %d" % os.getpid())
    serve(tier, control)


def serve(tier, control):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors leave no zombies
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    while True:
        if not poll.poll(IDLE_S * 1000):
            control.shutdown(socket.SHUT_RD)  # from now on a request fails; what has come before is still answered
        data, fds = receive(control)
        if not data:
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            pid = os.fork()
        except OSError as error:
            pid = None
            os.write(fds[0], json.dumps({"setup": str(error)}).encode())
        if pid == 0:
            control.close()
            try:
                supervise(tier, json.loads(data), *fds)
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)


def receive(control):
    """(data, descriptors) of one request."""
    data, extra, _, _ = control.recvmsg(4096, socket.CMSG_LEN(4 * 4))
    fds = array.array("i")
    for level, kind, payload in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def supervise(tier, request, life, *fds):
    """Build a jail, watch it, report how it ended."""
    confine.adopt_orphans()
    died, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    folder = None if tier in ("ns", "bwrap") else tempfile.mkdtemp(prefix="pt-jail-")
    ready, tell = os.pipe()
    try:
        if tier == "ns":
            confine.new_namespaces()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(ready)
            jailed(tier, request, folder, tell, life, *fds)
        for fd in (*fds, tell):
            os.close(fd)
        ended = watch(pid, died, ready, life, folder, time.monotonic() + request["wall_s"] + GRACE_S)
    except OSError as error:
        ended = {"setup": str(error)}
    finally:
        if folder:
            with suppress(OSError):
                os.chmod(folder, 0o700)
            shutil.rmtree(folder, ignore_errors=True)
    if tier == "bwrap" and ended.get("exit", 0) > 128:  # its way to say that a signal ended what it ran
        ended = {"signal": ended["exit"] - 128}
    with suppress(OSError):
        os.write(life, json.dumps(ended).encode())


def watch(pid, died, ready, life, folder, deadline):
    """Wait for the end of the jail, or end it -> how it ended."""
    poll = select.poll()
    for fd in (died, life):
        poll.register(fd, select.POLLIN | select.POLLHUP)
    over = None
    while over is None and time.monotonic() < deadline:
        events = dict(poll.poll(WATCH_S * 1000 if folder else 1000))
        if life in events:
            break
        if died in events:  # of any child: adopted ones too
            os.read(died, 64)
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
        if folder and too_full(folder):
            over = "disk"
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    kill_orphans()
    message = os.read(ready, 1000).decode()
    if message != "ok":
        return {"setup": message or f"the jail ended with status {status} before it was ready"}
    if over:
        return {"over": over}
    code = os.waitstatus_to_exitcode(status)
    return {"exit": code} if code >= 0 else {"signal": -code}


def too_full(folder):
    sizes = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):  # files come and go
                sizes.append(entry.stat(follow_symlinks=False).st_size)
    return len(sizes) > confine.TMP_FILES or sum(sizes) > confine.TMP_BYTES


def kill_orphans():
    """Kill and reap what is left below this process (nothing, where process 1 of a namespace has died)."""
    path = f"/proc/self/task/{os.getpid()}/children"
    while True:
        with suppress(OSError):
            with open(path) as file:
                for child in file.read().split():
                    os.kill(int(child), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def jailed(tier, request, folder, tell, life, *fds):
    """In the new process: confine it, say so, and run a role. Never returns."""
    try:
        os.close(life)
        tell, *fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (tell, *fds)]
        channel, stdin, stdout = fds
        null = os.open(os.devnull, os.O_RDWR)
        for number, fd in enumerate((stdin, stdout, null, channel)):
            os.dup2(fd, number)
        if tier == "bwrap":
            in_bubblewrap(request, tell)
        {"ns": in_namespaces, "landlock": in_landlock, "rlimit": unprotected}[tier](request, folder)
        os.write(tell, b"ok")
        os.closerange(CHANNEL + 1, 4096)
    except BaseException as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode()[:900] or b"failed")
        os._exit(1)
    try:
        from pt_tools.rewards.jail import child

        child.run(CHANNEL)
    finally:
        os._exit(1)


def in_namespaces(request, _):
    confine.private_tmp()
    if os.geteuid() == 0:
        confine.become_nobody()
    confine.own_user_namespace()
    confine.no_privileges()
    confine.limit(request["memory_mb"], request["cpu_s"])
    confine.die_with_parent()
    confine.filter_calls(alone=False)


def in_bubblewrap(request, tell):
    """Become bubblewrap, which starts a python that calls `inside`; CHANNEL + 1 is where it says that it is ready."""
    os.dup2(tell, CHANNEL + 1)
    os.closerange(CHANNEL + 2, 4096)
    if os.geteuid() == 0:
        confine.become_nobody()
    code = "import sys; sys.path.insert(0, '/pt'); from pt_tools.rewards.jail.launcher import inside; inside()"
    python = [sys.executable, "-P", "-s", "-S", "-B", "-c", code, str(request["memory_mb"]), str(request["cpu_s"])]
    package = os.path.abspath(__file__).rpartition("/rewards/")[0]
    os.execv(confine.bubblewrap(), [*confine.bubblewrap_command(package), *python])


def inside():
    """In bubblewrap's jail: the rest of the confinement, then a role."""
    from pt_tools.rewards.jail import child

    try:
        os.environ.clear()
        sys.path.remove("/pt")
        confine.own_user_namespace()
        confine.no_privileges()
        confine.limit(int(sys.argv[1]), int(sys.argv[2]))
        confine.filter_calls(alone=False)
        os.write(CHANNEL + 1, b"ok")
        os.closerange(CHANNEL + 1, 4096)
        child.run(CHANNEL)
    finally:
        os._exit(1)


def own_folder(folder):
    os.setsid()
    os.chdir(folder)
    tempfile.tempdir = folder


def in_landlock(request, folder):
    own_folder(folder)
    root = os.geteuid() == 0
    if root:
        os.chmod(folder, 0o777)
    confine.landlock(folder)
    if root and all(map(confine.nobody_can_read, confine.python_folders())):
        confine.become_nobody()
    confine.no_privileges()
    confine.limit(request["memory_mb"], request["cpu_s"], processes=False)
    confine.die_with_parent()
    confine.filter_calls(alone=True)


def unprotected(request, folder):
    """Resource limits only; for who typed --unsafe-local."""
    own_folder(folder)
    confine.limit(request["memory_mb"], request["cpu_s"], processes=False)
    with suppress(OSError):  # inside another sandbox it may be refused; the supervisor kills all the same
        confine.die_with_parent()
