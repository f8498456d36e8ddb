"""What the small verifiers share: checks of their objects, and the parts of a completion."""

from __future__ import annotations

import contextlib
import signal

MAX_TEXT = 1_000_000  # characters; a longer completion is hostile, not an answer
PARTS = ("all", "thinking", "answer")

_ALWAYS = {"name", "key"}


class TooSlow(BaseException):
    """Past the processor time. No Exception: no library may take it for its own."""


@contextlib.contextmanager
def cpu_limit(seconds):
    """In a worker's main thread: TooSlow after so much processor time, which a busy machine does not shorten."""
    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_slow(*_):
    raise TooSlow


def only(spec, *keys):
    """ValueError if `spec` has a key that would change nothing."""
    unknown = sorted(str(key) for key in spec.keys() - _ALWAYS - set(keys))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(keys)}")


def choice(spec, key, options):
    """The value of `key`, one of `options`; the first of them where it is absent."""
    value = spec.get(key, options[0])
    if not any(value == option and type(value) is type(option) for option in options):
        raise ValueError(f"{key} must be one of {', '.join(map(str, options))}, not {value!r}")
    return value


def whole(spec, key, least, most=2**31, default=None):
    """The value of `key`, an integer in [least, most]."""
    value = spec.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} must be an integer from {least} to {most}, not {value!r}")
    return value


def real(spec, key, low, high, default):
    """The value of `key`, a number in [low, high]."""
    value = spec.get(key, default)
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{key} must be a number from {low} to {high}, not {value!r}")
    return value


def part(text, of):
    """The part `of` a completion: all of it, its thinking or its answer.

    The thinking ends at the last `</think>`; where there is none, an opening `<think>` makes all that follows it
    thinking. A text with neither is both (the template may have opened the thinking, or there is none).
    """
    if of == "all" or ("<think>" not in text and "</think>" not in text):
        return text
    before, _, after = text.rpartition("</think>") if "</think>" in text else (text, "", "")
    if of == "answer":
        return after.partition("<think>")[0]
    return before.replace("<think>", " ").replace("</think>", " ")


def token_count(completion):
    """The number of tokens of a completion. ValueError if they are not recorded: only the sampler knows."""
    return len(token_ids(completion))


def token_ids(completion):
    """The token ids of a completion. ValueError if they are not recorded."""
    ids = completion.get("token_ids")
    if not isinstance(ids, list):
        raise ValueError("the completion has no token_ids; sample with pt-sample, which records them")
    return ids
