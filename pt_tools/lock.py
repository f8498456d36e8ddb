"""One writer for one output: a file made with O_EXCL that names its owner.

It needs no flock (network file systems often lack it). A lock is stale when its owner's process is gone from this
host, or its Slurm job from the queue; on another host without a job we cannot know, and say what to do.
"""

import fcntl
import json
import os
import time
from pathlib import Path

from pt_tools.errors import Locked
from pt_tools.files import read_json

TRIES = 100


class Lock:
    def __init__(self, path):
        self.path = Path(path)
        self.held = False

    def take(self) -> None:
        """Take the lock or raise `Locked`, naming the owner; never waits."""
        for _ in range(TRIES):
            self.path.parent.mkdir(exist_ok=True)
            try:
                if self._create() or self._steal():
                    self.held = True
                    self._sweep()
                    return
            except FileNotFoundError:
                continue  # the previous owner removed the directory just now
            owner = self._owner()
            if owner is not None:
                raise Locked(self._message(owner))
            time.sleep(0.01)
        raise Locked(f"{self.path} does not say whose it is; if no other command is at work: rm {self.path}")

    def _sweep(self) -> None:
        """Remove what processes of this host left that were killed while they took the lock."""
        for left in self.path.parent.glob(f"lock.*.{os.uname().nodename}.tmp"):
            pid = left.name.split(".")[1]
            if not (pid.isdecimal() and is_alive(int(pid))):
                left.unlink(missing_ok=True)

    def release(self) -> None:
        if self.held:
            self.path.unlink(missing_ok=True)
            self.held = False

    def _create(self) -> bool:
        # Linked into place whole: a reader never sees a lock without its owner.
        aside = self.path.with_name(f"lock.{os.getpid()}.{os.uname().nodename}.tmp")
        _write(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        try:
            os.link(aside, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: a reader may see the lock before its owner
            try:
                _write(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            except FileExistsError:
                return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _steal(self) -> bool:
        """Replace a stale lock; stealers take turns by flock, and taking a free lock needs none."""
        with open(self.path.with_name("lock.steal"), "a") as turn:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX)
            except OSError:
                pass
            owner = self._owner()
            if owner is None or not _gone(owner):
                return False
            self.path.unlink(missing_ok=True)
            return self._create()

    def _owner(self) -> dict | None:
        return read_json(self.path)

    def _message(self, owner) -> str:
        who = f"process {owner.get('pid')} on {owner.get('host')}"
        if owner.get("job"):
            who += f" (Slurm job {owner['job']})"
        advice = "" if owner.get("host") == os.uname().nodename else f"; if it is dead: rm {self.path}"
        return f"{who} is writing {self.path.parent}{advice}"


def _write(fd) -> None:
    with open(fd, "w") as file:
        json.dump(_me(), file)
        file.flush()
        os.fsync(fd)


def _me() -> dict:
    return {"host": os.uname().nodename, "pid": os.getpid(), "start": _start(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID")}


def _start(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: tells a process from a later one with its number."""
    stat = _stat(pid)
    return stat[19] if stat else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty where there is no such file."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs; one that is dead and not yet waited for by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _stat(pid)[:1] not in (["Z"], ["X"])


def _gone(owner: dict) -> bool:
    if owner.get("host") == os.uname().nodename:
        if not isinstance(owner.get("pid"), int):
            return False
        started = _start(owner["pid"])
        later = started is not None and owner.get("start") is not None and started != owner["start"]
        return later or not is_alive(owner["pid"])
    if owner.get("job"):
        return _left_queue(str(owner["job"]))
    return False


def _left_queue(job):
    """Whether a Slurm job is over; a job that left the queue is unknown to squeue, and any other failure proves nothing."""
    import shutil
    import subprocess

    if not shutil.which("squeue"):
        return False
    queue = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True)
    return (queue.returncode == 0 and not queue.stdout.strip()) or "Invalid job id" in queue.stderr
