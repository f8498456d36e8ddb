"""Killable worker processes for code that may hang, leak or crash: computer algebra, patterns of the data, users' code.

A worker imports one function `module:function` and answers requests one at a time, JSON in, JSON out. The parent waits
no longer than the time limit, then kills it; the next request gets a fresh one. The kernel ends a worker that outlives
its limit even if its parent is gone.
"""

from __future__ import annotations

import importlib
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import time

MAX_REPLY = 16 * 2**20  # bytes
START_S = 120.0  # a worker may import large libraries, on a busy machine
GRACE_S = 2.0  # the parent's own clock comes first


class Failed(Exception):
    """The function raised; the message is "Type: text"."""


class Lost(Exception):
    """The worker died, or said what is no answer."""


class Timeout(Exception):
    """No answer within the limit; the worker was killed."""


class Pool:
    """Up to `size` workers for one function, safe from threads and after a fork.

    `memory_mb` limits a worker's address space (0: no limit); `path` is put in front of its sys.path; an answer of more
    than `max_reply` bytes counts as none.
    """

    def __init__(self, target, size=None, memory_mb=2048, path=(), max_reply=MAX_REPLY):
        self.target, self.memory_mb, self.path, self.max_reply = target, memory_mb, tuple(path), max_reply
        self.size = size or len(os.sched_getaffinity(0))
        self._reset()

    def _reset(self):
        self._pid = os.getpid()
        self._closed = False
        self._busy = {}  # worker -> itself; a dict, so that threads may add and remove without a lock
        self._idle = queue.LifoQueue()
        for _ in range(self.size):
            self._idle.put(None)

    def call(self, payload, timeout_s):
        """The function's answer to `payload` (what JSON can hold). Raises Failed, Lost or Timeout."""
        if self._pid != os.getpid():  # a fork shares the pipes of its parent's workers
            self._reset()
        worker = self._idle.get()
        try:
            if self._closed:
                raise Lost("the workers were ended")
            worker = worker or self._fresh()
            self._busy[worker] = worker
            return worker.call(payload, timeout_s)
        except Failed:
            raise
        except BaseException:
            if worker:
                worker.kill()
            worker = None
            raise
        finally:
            self._busy.pop(worker, None)
            self._idle.put(worker)

    def start(self):
        """Start a worker, if none is idle. Raises Lost or Timeout if its function cannot be imported."""
        worker = self._idle.get()
        try:
            worker = worker or self._fresh()
        finally:
            self._idle.put(worker)

    def _fresh(self):
        return _Worker(self.target, self.memory_mb, self.path, self.max_reply)

    def close(self):
        """End the idle workers; the next call starts new ones."""
        for _ in range(self.size):
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                break
            if worker:
                worker.kill()
            self._idle.put(None)

    def end(self):
        """End all workers, also those at work (their callers get Lost), for good."""
        self._closed = True
        for worker in list(self._busy):
            worker.end()
        self.close()


class _Worker:
    def __init__(self, target, memory_mb, path, max_reply):
        self.max_reply = max_reply
        code = "from pt_tools.rewards.worker import serve; serve()"
        argv = [sys.executable, "-c", code, target, str(memory_mb), *path]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        start_new_session=True, bufsize=0)
        os.set_blocking(self.process.stdout.fileno(), False)
        os.set_blocking(self.process.stdin.fileno(), False)
        self.buffer = b""
        try:
            ready = self._read(time.monotonic() + START_S)
        except BaseException:
            self.kill()
            raise
        if "error" in ready:
            self.kill()
            raise Lost(f"the worker did not start: {ready['error']}")

    def call(self, payload, timeout_s):
        import orjson

        deadline = time.monotonic() + timeout_s
        self._write(orjson.dumps([timeout_s, payload]) + b"\n", deadline)
        answer = self._read(deadline)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["ok"]

    def _write(self, data, deadline):
        view = memoryview(data)
        try:
            while view:
                _wait(self.process.stdin.fileno(), select.POLLOUT, deadline)
                view = view[os.write(self.process.stdin.fileno(), view[: 2**16]) :]
        except BrokenPipeError:
            raise Lost("the worker died") from None

    def _read(self, deadline):
        import orjson

        parts, size = [self.buffer], len(self.buffer)
        while b"\n" not in parts[-1]:
            _wait(self.process.stdout.fileno(), select.POLLIN, deadline)
            block = os.read(self.process.stdout.fileno(), 2**20)
            if not block:
                raise Lost(f"the worker died ({_how(self.process)})")
            parts.append(block)
            size += len(block)
            if size > self.max_reply:
                raise Lost(f"the worker answered with more than {self.max_reply} bytes")
        line, _, self.buffer = b"".join(parts).partition(b"\n")
        return orjson.loads(line)

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def kill(self):
        self.end()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def _wait(fd, event, deadline):
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise Timeout("no answer in time")


def _how(process):
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        return "its pipe closed"
    return f"signal {-code}" if code < 0 else f"exit {code}"


def serve():
    """The worker's side: sys.argv is [_, module:function, memory_mb, *path]."""
    import orjson

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):  # what the function prints is no answer
        os.dup2(null, fd)
    target, memory_mb = sys.argv[1], int(sys.argv[2])
    sys.path[:0] = sys.argv[3:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    function, answer = None, {"ok": None}
    try:
        module, _, name = target.partition(":")
        function = getattr(importlib.import_module(module), name)
    except BaseException as error:
        answer = _error(error)
    _answer(answers, answer)
    for line in requests if function else ():
        timeout_s, payload = orjson.loads(line)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE_S)
        try:
            answer = {"ok": function(payload)}
            orjson.dumps(answer)
        except BaseException as error:  # SystemExit too: it must not look like an answer
            answer = _error(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(answers, answer)


def _error(error):
    return {"error": f"{type(error).__name__}: {error}"[:2000].encode("utf-8", "replace").decode()}


def _answer(file, answer):
    import orjson

    file.write(orjson.dumps(answer) + b"\n")
    file.flush()
