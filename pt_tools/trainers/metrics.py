"""metrics.jsonl, one line a step, and progress for people."""

import json
import os
import sys
import time

from pt_tools.errors import BadModel


class Metrics:
    """Appends one line a call in one write; `offset` goes into checkpoints, `cut` returns to it at resume."""

    def __init__(self, path):
        self.path, self.last, self.offset, self._fd = path, None, 0, None

    def cut(self, offset):
        """Open the file, cut back to `offset` bytes: lines after the checkpoint will be written again."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        if os.fstat(self._fd).st_size < offset:
            raise BadModel("it is shorter than its checkpoint says; --resume never starts anew", str(self.path))
        os.ftruncate(self._fd, offset)
        self.offset = os.lseek(self._fd, offset, os.SEEK_SET)
        lines = self.path.read_bytes().splitlines()
        self.last = json.loads(lines[-1]) if lines else None

    def write(self, values):
        line = json.dumps(values).encode() + b"\n"
        self.offset += os.write(self._fd, line)
        self.last = values

    def sync(self):
        """Make the lines durable: a checkpoint that outlives a crash of the machine counts on them."""
        os.fsync(self._fd)

    def close(self):
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Progress:
    """A line on stderr: renewed in place on a terminal, else a new one every `every_s` seconds."""

    def __init__(self, job, steps, every_s=15.0):
        self.job, self.steps = job, steps
        self.terminal = sys.stderr.isatty() and not getattr(job.cfg, "quiet", False)
        self.every_s = 0.2 if self.terminal else every_s
        self.start = self.shown = time.monotonic()
        self.first = None

    def show(self, logs):
        now = time.monotonic()
        if self.first is None:
            self.first = logs["step"] - 1
        if now - self.shown < self.every_s:
            return
        self.shown = now
        pace = (now - self.start) / (logs["step"] - self.first)
        values = " ".join(f"{k} {logs[k]:.4g}" for k in ("loss", "reward", "learning_rate") if k in logs)
        left = pace * (self.steps - logs["step"])
        text = f"step {logs['step']}/{self.steps} {values} {pace:.3g} s/step, {left:.0f} s left"
        if self.terminal:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
        else:
            self.job.say(text)

    def close(self):
        if self.terminal and self.first is not None:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
