"""Outputs that appear whole or not at all: staging, manifest, lock, run key, and what is found on the next start.

An output OUT (a directory of a model command, a file of a data command) is made in OUT.run/, the only scratch place,
and comes into being by one rename. OUT.run/ holds `lock` (who writes), `key.json` (the run key and what went into
it), `stage/` (the output to be), `checkpoints/`, and whatever a command keeps there to go on after a stop.
"""

import hashlib
import json
import os
import re
from pathlib import Path

from pt_tools import digestcache
from pt_tools.errors import BadModel, Usage
from pt_tools.files import apply_umask, bring_home, exchange, flat, read_json, remove, sync, to_json, write_atomic
from pt_tools.lock import Lock, is_alive

MANIFEST = "MANIFEST.json"
STREAMS = ("/dev", "/dev/fd", "/proc/self/fd")  # where a name is no file's: a rename would put one in its place, for everyone
LOADED = {".json", ".jinja", ".safetensors", ".bin", ".pt", ".model", ".txt", ".py"}  # what changes a loaded model
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class Out:
    """One output on its way. `path` is OUT, `run` is OUT.run/, `stage` what will become OUT.

    `begin` returns True when OUT is complete already. Otherwise the command fills `stage` (an empty directory, or for
    a file the path to write) and calls `commit`. `close` gives up the lock and leaves what a next start can use.
    """

    def __init__(self, path, key: dict | None, *, directory=True, work=None, resume="auto", keep=False, say=print):
        self.path = Path(os.path.abspath(path))
        if not self.path.name:
            raise Usage(f"--out {path} cannot be made")
        if str(path) == "-" or str(self.path.parent) in STREAMS:
            why = "no directory" if directory else "no file; without --out records go to stdout"
            raise Usage(f"--out {path} is a stream and {why}")
        self.directory, self.resume, self.keep, self.say = directory, resume, keep, say
        self.home = self.path.with_name(self.path.name + ".run")
        self.run = Path(work, flat(self.home)) if work else self.home
        self.set_key(key)
        self.stage = self.run / "stage" if directory else self.run / self.path.name
        self.checkpoints = self.run / "checkpoints"
        self.history = {"seconds": 0.0, "starts": 1}
        self.lock = Lock(self.home / "lock")

    def set_key(self, key: dict | None, *others: dict) -> None:
        """The run key: what the result depends on; None (a file made from a pipe) is never complete or resumed.

        What a run with one of the `others` left is resumed too: the same run, told in another way.
        """
        self.key, self.keys = key, [key, *others]
        self.digest = digest_of(key) if key else None

    def is_new(self) -> bool:
        """Whether there is nothing that a run key would be compared with."""
        return not any(map(os.path.lexists, (self.path, self.home, self.run)))

    def spool_path(self, number: int) -> Path:
        """Where this process may keep what it reads from a pipe."""
        self.home.mkdir(parents=True, exist_ok=True)
        for left in self.home.glob("spool.*"):
            pid = left.name.split(".")[1]
            if not (pid.isdecimal() and is_alive(int(pid))):
                left.unlink(missing_ok=True)  # its process was killed
        return self.home / f"spool.{os.getpid()}.{number}"

    def drop_spools(self) -> None:
        for spool in self.home.glob(f"spool.{os.getpid()}.*"):
            spool.unlink(missing_ok=True)

    def begin(self) -> bool:
        self._refuse_foreign()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lock.take()
        try:
            self._recover()
            if self._complete():
                self.close(done=True)
                return True
            self._take_up_or_clear()
            self._note_start()
        except BaseException:
            self.close()
            raise
        return False

    def _note_start(self):
        """Count this start, so that a manifest can tell the time of all of them."""
        found = read_json(self.run / "history.json") or {}
        seconds, starts = found.get("seconds"), found.get("starts")
        self.history = {"seconds": seconds if isinstance(seconds, float) else 0.0,
                        "starts": (starts if isinstance(starts, int) else 0) + 1}
        write_atomic(self.run / "history.json", to_json(self.history))

    def _refuse_foreign(self):
        if not self.path.exists():
            if self.path.is_symlink():
                raise Usage(f"{self.path} is a symbolic link to nothing")
            return
        if self.directory != self.path.is_dir():
            kind = "a file" if self.directory else "a directory"
            raise Usage(f"{self.path} is {kind} already; choose another --out")
        if not self.directory and not self.path.is_file():
            raise Usage(f"{self.path} is no regular file, so it cannot be replaced; without --out the output is stdout")
        if self.directory and any(self.path.iterdir()) and not (self.path / MANIFEST).exists():
            raise Usage(f"{self.path} was not made by pt-tools (no {MANIFEST}); it will not be replaced")

    def _recover(self):
        """Put OUT back if a kill came between the two renames of a replacement."""
        previous = self.home / "previous"
        if previous.exists() and not self.path.exists():
            os.rename(previous, self.path)
        remove(previous)

    def _complete(self) -> bool:
        manifest = read_manifest(self.path) if self.key else None
        if not manifest or manifest.get("key") != self.digest:
            return False
        try:
            verify(self.path)
        except BadModel as error:
            self.say(f"{error}; building it again")
            return False
        os.utime(manifest_path(self.path))
        if not self.directory:
            os.utime(self.path)  # make knows a data file by its own time
        return True

    def _take_up_or_clear(self):
        self.run.mkdir(parents=True, exist_ok=True)
        found = read_json(self.run / "key.json")
        if found is not None and (found not in self.keys or self.resume == "never"):  # {} was a pipe's: never the same
            self._set_aside(found)
        elif found is None:
            if self.resume == "must":
                raise Usage(f"--resume must: there is nothing to resume in {self.run}")
            foreign = [child for child in self._children() if child.suffix not in (".rm", ".tmp")]
            if foreign:
                raise Usage(f"{self.run} is this command's scratch directory, and holds {foreign[0].name}, which is not of it; "
                            "move it away")
            self._clear()
        write_atomic(self.run / "key.json", to_json(self.key or {}))
        if self.directory:
            remove(self.stage)
            self.stage.mkdir()

    def _set_aside(self, found):
        if found and found not in self.keys:
            changed = "; ".join(min((differences(found, key or {}) for key in self.keys), key=len))
            if self.resume == "must":
                raise Usage(f"--resume must: {self.run} was made by another run: {changed}")
            if self.resume == "auto":
                self.say(f"{self.run} was made by another run ({changed}); moved to {self.run}.old, starting clean")
                self._move_old()
        self._clear()

    def _move_old(self):
        old = Path(f"{self.run}.old")
        remove(old)
        old.mkdir()
        for child in self._children():
            os.rename(child, old / child.name)

    def _children(self):
        """What lies in OUT.run/; key.json, which says that the rest is ours, last."""
        children = [child for child in self.run.iterdir() if not child.name.startswith(("lock", "spool"))]
        return sorted(children, key=lambda child: child.name == "key.json")

    def _clear(self):
        for child in self._children():
            remove(child)

    def resuming(self) -> bool:
        """Whether a run with the same key left something to go on from."""
        made = [child for child in self._children() if child.name not in ("key.json", "history.json", self.stage.name)]
        return any(not child.is_dir() or any(child.iterdir()) for child in made)

    def commit(self, **fields) -> dict:
        """Write the manifest, make everything durable, and let OUT come into being. Returns the manifest."""
        manifest = {**fields, **({"key": self.digest} if self.key else {})}
        if self.directory:
            manifest = seal(self.stage, **manifest)
            self._replace(self.stage)
            return manifest
        sync(self.stage)
        manifest["files"] = {self.path.name: file_digest(self.stage)}
        apply_umask(self.stage)
        # The old manifest goes first: a file without one is foreign and whole.
        remove(manifest_path(self.path))
        self._replace(self.stage)
        write_atomic(manifest_path(self.path), to_json(manifest))
        return manifest

    def _replace(self, stage):
        if self.run != self.home:
            stage = bring_home(stage, self.home / "stage.copy")
        if not self.path.is_dir():
            os.replace(stage, self.path)
        elif not exchange(stage, self.path):
            os.rename(self.path, self.home / "previous")
            os.rename(stage, self.path)
        sync(self.path.parent)

    def close(self, done=False, seconds=0.0) -> None:
        """Give up the lock. Scratch goes too after success (unless `keep`), or if there is nothing to go on from.

        `seconds` that an unfinished start took are kept for the manifest of the last one.
        """
        try:
            ours = (self.run / "key.json").exists()
            if ours and not done and self.resuming():
                write_atomic(self.run / "history.json", to_json({**self.history, "seconds": self.history["seconds"] + seconds}))
            elif ours and not (done and self.keep):
                self._clear()
                if self.run != self.home:
                    remove(self.run)
        finally:
            self.lock.release()
            self.leave()

    def leave(self) -> None:
        """Remove OUT.run/ if nothing is left in it."""
        try:
            if [child.name for child in self.home.iterdir()] == ["lock.steal"]:
                (self.home / "lock.steal").unlink()
            self.home.rmdir()
        except OSError:
            pass  # another run is in it, or it holds what a next start can use


# --- manifests ----------------------------------------------------------------------------------------------------


def seal(directory, **fields) -> dict:
    """Write MANIFEST.json with the sha256 of every file below `directory`, last, and make all of it durable."""
    directory = Path(directory)
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST):
        apply_umask(path)
        sync(path)
        files[str(path.relative_to(directory))] = file_digest(path)
    manifest = {**fields, "files": files}
    write_atomic(directory / MANIFEST, to_json(manifest))
    sync(directory)
    return manifest


def publish(stage, final) -> None:
    """Rename a sealed directory to its final name (which must not exist) and make the name durable."""
    os.rename(stage, final)
    sync(Path(final).parent)


def manifest_path(path) -> Path:
    """Where the manifest of an output lies: inside a directory, beside a file."""
    path = Path(path)
    return path / MANIFEST if path.is_dir() else path.with_name(path.name + ".manifest.json")


def read_manifest(path) -> dict | None:
    """The manifest of a directory or file, or None; an unreadable one counts as none."""
    return read_json(manifest_path(path))


def verify(path) -> dict:
    """Compare the files of an output with its manifest and return it; `BadModel` names the first difference."""
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        raise BadModel(f"no readable {manifest_path(path).name}", str(path))
    if not isinstance(manifest.get("files"), dict):
        raise BadModel(f"{manifest_path(path).name} lists no files", str(path))
    base = path if path.is_dir() else path.parent
    file_digests(file for name in manifest["files"] if (file := base / name).is_file())
    for name, digest in manifest["files"].items():
        file = base / name
        if not file.is_file():
            raise BadModel(f"{name} is missing, though its manifest lists it", str(path))
        if file_digest(file) != digest:
            raise BadModel(f"{name} is not the file that its manifest lists", str(path))
    for file in sorted(base.rglob("*")) if path.is_dir() else ():
        if file.suffix in LOADED and file.name != MANIFEST and str(file.relative_to(base)) not in manifest["files"]:
            raise BadModel(f"{file.relative_to(base)} is not in its manifest, though it would be loaded", str(path))
    return manifest


def identity(path, digests=None) -> str:
    """The digest of an input: of the file hashes in its manifest if it has one, else of its bytes.

    A directory whose files differ from its manifest is refused (`BadModel`). Where there is no manifest there is no sha256
    to be compared with, and XXH3 tells bytes apart four times as fast. A name that is neither file nor directory is taken
    for a hub id and stands for itself, with the commit that the local cache holds for it. `digests` (by default
    `file_digests`) gives what stands for files that have no manifest.
    """
    name, path, digests = str(path), Path(path), digests or file_digests
    if path.is_dir():
        if (path / MANIFEST).exists():
            files = verify(path)["files"]
        else:
            found = digests((p for p in sorted(path.rglob("*")) if p.is_file()), "xxh128")
            files = {str(p.relative_to(path)): digest for p, digest in found.items()}
        return digest_of({name: digest for name, digest in files.items() if name != "metrics.jsonl"})
    if path.is_file():
        return digests([path], "xxh128")[path]
    if not HUB_ID.fullmatch(name):
        raise Usage(f"no such model directory or file: {name}")
    return f"hub:{name}@{_hub_commit(name)}"


def _hub_commit(name: str) -> str:
    """The commit that a hub model is at: the one in the local cache, else the newest, whose config.json is fetched."""
    home = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"), "hub")
    ref = Path(home, "models--" + name.replace("/", "--"), "refs", "main")
    if not ref.is_file():
        try:
            import huggingface_hub

            huggingface_hub.hf_hub_download(name, "config.json")
        except Exception as error:  # the library raises many kinds: offline, unknown, gated
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise Usage(f"{name} is no directory here, and the hub does not give it: {first[0]}") from error
    return ref.read_text().strip()


# --- digests ------------------------------------------------------------------------------------------------------

_digests: dict[tuple, str] = {}


def file_digest(path, kind="sha256") -> str:
    """sha256 (or "xxh128") of a file's bytes, hex.

    Remembered by size, mtime and inode, of large files between processes too.
    """
    key = _file_key(path, kind)
    if key not in _digests:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            found = digestcache.load(stat, kind)
            if found is None:
                found = hashlib.file_digest(file, kind if kind == "sha256" else xxh128).hexdigest()
                digestcache.save(stat, os.fstat(file.fileno()), found, kind)
        _digests[key] = found
    return _digests[key]


def xxh128():
    """A hash as hashlib's are."""
    import xxhash

    return xxhash.xxh3_128()


def remember(path, digest: str, kind="sha256") -> None:
    """The digest of a file as it is now, for `file_digest`: who wrote or read it may have hashed it on the way."""
    _digests[_file_key(path, kind)] = digest


def _file_key(path, kind) -> tuple:
    stat = os.stat(path)
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino, kind


def file_digests(paths, kind="sha256") -> dict:
    """`file_digest` of every path; several at a time, since hashing gigabytes is as long as reading them."""
    from concurrent.futures import ThreadPoolExecutor

    paths = list(paths)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(paths, pool.map(lambda path: file_digest(path, kind), paths)))


def digest_of(value) -> str:
    """sha256 of a JSON value, hex, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def differences(old: dict, new: dict, prefix="") -> list[str]:
    """What differs between two run keys, as "options.lr: 0.1 → 0.2"."""
    out = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            out.append(f"{prefix}{name}: {_short(a)} → {_short(b)}")
    return out


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"
