"""Digests of large files, remembered from one process to the next.

Every command hashes the weights that it reads, which takes as long as reading them. A file is known by its device,
inode and size and by the nanoseconds when its content and its status last changed: a write moves both times, and no
program can set the second. What changed less than a moment ago is not remembered, since a clock tick has room for two
writes. The memory is a small file a digest below $XDG_CACHE_HOME/pt-tools (~/.cache); without it all is hashed anew.
"""

import hashlib
import os
import re
import time
from pathlib import Path

LEAST = 64 << 20  # bytes; smaller files are hashed sooner than looked up
SETTLED_S = 0.1


def load(stat: os.stat_result, kind: str) -> str | None:
    """The digest of this kind of the file with this stat, or None."""
    if stat.st_size < LEAST:
        return None
    try:
        text = _place(stat, kind).read_text()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", text) else None


def save(before: os.stat_result, after: os.stat_result, digest: str, kind: str) -> None:
    """Remember the digest of a file whose stat was `before` when its hashing began, and is `after`."""
    if after.st_size < LEAST or _name(before) != _name(after) or not is_settled(after):
        return
    try:
        place = _place(after, kind)
        aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        place.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(digest)
        os.replace(aside, place)
    except OSError:
        pass  # a home that cannot be written costs time, nothing else


def stand_in(stat: os.stat_result) -> str | None:
    """What tells a large file from others without reading it, if it `is_settled`; None where a digest is had sooner."""
    return f"unread {_name(stat)}" if stat.st_size >= LEAST else None


def is_settled(stat: os.stat_result) -> bool:
    """Whether a later change would show in the stat."""
    return time.time() - stat.st_ctime > SETTLED_S


def _place(stat: os.stat_result, kind: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(home):  # no home is known
        raise OSError(f"no such directory: {home}")
    return Path(home, "pt-tools", f"digests-{kind}", _name(stat))


def _name(stat: os.stat_result) -> str:
    known = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return hashlib.sha256(" ".join(map(str, known)).encode()).hexdigest()[:40]
