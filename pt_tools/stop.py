"""Signals become a flag.

A handler does nothing but set the flag (or, while the process only waits for input, raise), so that work stops at a
place where its state can be saved. A second signal ends the process at once.
"""

import contextlib
import os
import signal

from pt_tools.errors import Stopped

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")

_requested: str | None = None
_waiting = False


def install() -> None:
    """Catch TERM, USR1, USR2 and INT from now on; call it in the main thread."""
    for name in SIGNALS:
        signal.signal(getattr(signal, name), _handle)


def _handle(number, _frame):
    if _requested is not None:
        die(signal.Signals(number).name)
    request(signal.Signals(number).name)
    if _waiting:
        check()


def request(name: str) -> None:
    """Ask for a stop, as the signal `name` would."""
    global _requested
    _requested = name


def requested() -> str | None:
    """The name of the signal that asked for a stop, or None."""
    return _requested


def clear() -> None:
    """Forget a request (a process that runs several jobs)."""
    global _requested
    _requested = None


def check() -> None:
    """Raise `Stopped` if a stop was asked for."""
    if _requested is not None:
        raise Stopped(f"stopped by {_requested}; run the same line again to go on")


@contextlib.contextmanager
def waiting():
    """Inside, a signal raises `Stopped` at once: for blocking reads that no flag can end."""
    global _waiting
    _waiting = True  # first: a signal from here on raises, one from before is seen by the check
    try:
        check()
        yield
    finally:
        _waiting = False


def die(name: str) -> None:
    """End this process by the signal itself, so that the caller sees its true status."""
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
