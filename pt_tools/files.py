"""Files made whole and durable: write aside, fsync, rename, fsync of the directory."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path



def sync(path) -> None:
    """fsync a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path, data: bytes) -> None:
    """Write a whole file or nothing: aside, fsync, rename, fsync of the directory."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync(path.parent)


def to_json(value) -> bytes:
    # backslashreplace: a file name that is not UTF-8 is written as JSON's own escapes.
    return json.dumps(value, indent=1, ensure_ascii=False, default=str).encode(errors="backslashreplace") + b"\n"


def read_json(path) -> dict | None:
    try:
        value = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def apply_umask(path) -> None:
    # safetensors and tempfile write mode 0600 whatever the umask; a group on a cluster could not read that.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def remove(path) -> None:
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        # Renamed first, so that a kill in between never leaves half a directory under a name that means something.
        doomed = path.with_name(f".{path.name}.{time.monotonic_ns()}.rm")
        os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def bring_home(stage, copy) -> Path:
    remove(copy)
    if stage.is_dir():
        shutil.copytree(stage, copy)
        for path in copy.rglob("*"):
            sync(path)
    else:
        shutil.copy2(stage, copy)
    sync(copy)
    return copy


def flat(path) -> str:
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def exchange(a, b) -> bool:
    """Exchange two directories in one call (Linux); False where the file system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_fdcwd, exchange = -100, 2
    return renameat2(at_fdcwd, os.fsencode(a), at_fdcwd, os.fsencode(b), exchange) == 0
