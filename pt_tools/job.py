"""One run of one command: its input, output, row accounting and manifest, and the promises around them."""

import dataclasses
import functools
import os
import stat
import sys
import time

from pt_tools import __version__, options, stop, stream
from pt_tools.errors import PtError, Usage, printable, redacted

ENGINE = ("torch", "transformers", "trl", "accelerate")
GRADERS = ("math-verify", "latex2sympy2_extended", "sympy", "jsonschema", "reasoning-gym")  # what verdicts hang on


class Job:
    """What an engine sees of a run: `cfg`, `records`, `rows`, `out`, `run`, `final`, `say`.

    `out` is an `outdir.Out` for a model command (fill `out.stage`), a `stream.Writer` for a command that writes
    records, else None. `run` is the scratch directory (None when the output is a stream). What the engine puts into
    `final` goes to the manifest and the summary.
    """

    def __init__(self, name: str, cfg):
        self.name, self.cfg = name, cfg
        self.rows = stream.Rows()
        self.final = {}
        self.out = self.run = self.output = self.late = None
        self.started = time.monotonic()
        files = getattr(cfg, "files", ("-",)) or ("-",)
        self.records = stream.Reader(files, self.rows, *(getattr(cfg, n, None) for n in ("on_error", "rejects", "max_bad")))
        if self.records.on_error is None:
            self.records.on_error = "fail"
        rejects, out = getattr(cfg, "rejects", None), getattr(cfg, "out", None)
        if rejects and out and os.path.realpath(rejects) == os.path.realpath(out):
            raise Usage(f"--rejects and --out are one file: {out}")

    def say(self, text: str) -> None:
        """One line of progress on stderr, unless --quiet."""
        if not getattr(self.cfg, "quiet", False):
            self._print(printable(f"{self.name}: {text}"))

    def _print(self, text: str) -> None:
        try:
            print(redacted(text), file=sys.stderr, flush=True)
        except (OSError, ValueError, AttributeError):
            pass

    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 3)

    def summary(self, **more) -> dict:
        return {"command": self.name, **more, "rows": self.rows.as_dict(), "seconds": self.seconds(), **self.final}

    def manifest(self) -> dict:
        fields = {"command": command_line(), "pt_tools": __version__, "versions": versions(),
                  "options": {name: shown(value) for name, value in vars(self.cfg).items()}}
        if hasattr(self.cfg, "threads"):
            fields["threads"] = threads(self.cfg)
        history = self.history()
        return {**fields, "rows": self.rows.as_dict(), "seconds": round(history["seconds"] + self.seconds(), 3),
                "starts": history["starts"], "final": self.final}

    def history(self) -> dict:
        """Seconds of earlier starts that were stopped (those of a kill are unknown), and the number of all starts."""
        return self.output.history if self.output is not None else {"seconds": 0.0, "starts": 1}

    def finish(self, **more) -> None:
        """Check that every row was spoken of, and say what happened."""
        if self.rows.missing():
            raise PtError(f"{self.rows.missing()} rows are unaccounted for ({self.rows}); this is a bug")
        if self.rows.n["in"]:
            self.say(f"{self.rows} in {self.seconds():.1f} s")
        if getattr(self.cfg, "json", False) and self.out is not None:
            import json

            self._print(json.dumps(self.summary(**more), ensure_ascii=False, default=str))


def run(command, cfg) -> int:
    """Run `command` with `cfg`; returns the exit code, or raises what the funnel turns into one."""
    job = Job(command.name, cfg)
    if command.writes == "model":
        return _run_model(command, job)
    _refuse_overwriting(cfg)
    if command.writes == "records" and cfg.out:
        return _run_file(command, job)
    if command.writes == "records":
        job.out = stream.Writer(_stdout(), job.rows)
        job.records.idle = job.out.flush
        command.function(cfg, job)
        job.out.flush()
    else:
        command.function(cfg, job)
    job.finish()
    return 0


def _run_model(command, job) -> int:
    from pt_tools import outdir
    from pt_tools.latekey import LateKey

    cfg = job.cfg
    if getattr(cfg, "dry_run", False):
        command.function(cfg, job)
        return 0
    out = outdir.Out(cfg.out, None, directory=True, work=cfg.work, resume=cfg.resume, say=job.say,
                     keep=bool(getattr(cfg, "keep_checkpoints", 0)))
    _refuse_overlap(cfg, out.path)
    try:
        _spool(job, out)
        if command.reads == "models":
            job.late = LateKey(lambda digests: key_of(command, job, digests))
            job.late.begin(out)
        else:
            out.set_key(key_of(command, job))
        if out.begin():
            job.say(f"{cfg.out} is complete and up to date; nothing to do")
        else:
            _train(command, job, out)
    finally:
        out.drop_spools()
        out.leave()
    print(cfg.out, flush=True)
    return 0


def _train(command, job, out) -> None:
    job.out, job.output, job.run, done = out, out, out.run, False
    try:
        command.function(job.cfg, job)
        if job.late:
            job.late.settle(out)
        job.finish(out=job.cfg.out)
        out.commit(**job.manifest())
        done = True
    finally:
        out.close(done=done, seconds=job.seconds())


def _run_file(command, job) -> int:
    """A command that writes records to a file: keyed and resumable like a model, unless it reads a pipe."""
    from pt_tools import outdir

    cfg = job.cfg
    piped = any(map(is_pipe, job.records.files))
    out = outdir.Out(cfg.out, None if piped else key_of(command, job), directory=False, say=job.say)
    if out.begin():
        job.say(f"{cfg.out} is complete and up to date; nothing to do")
        return 0
    job.output, job.run, done = out, out.run, False
    try:
        with stream.open_output(out.stage, out.path.name) as file:
            job.out = stream.Writer(file, job.rows)
            command.function(cfg, job)
            job.out.flush()
        job.finish(out=cfg.out)
        out.commit(**job.manifest())
        done = True
    finally:
        out.close(done=done, seconds=job.seconds())
    return 0


def _stdout():
    return sys.stdout.buffer


def is_pipe(path: str) -> bool:
    """Whether an input can be read only once: stdin, a named pipe, what a shell puts for <(…)."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return path == "-"
    return path == "-" or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _spool(job, out) -> None:
    """Keep what comes from pipes in files of OUT.run/ first, so that a model command knows what it reads before it begins."""
    files = list(job.records.files) if hasattr(job.cfg, "files") else []
    for number, path in enumerate(files):
        if not is_pipe(path):
            continue
        files[number] = str(out.spool_path(number))
        with stream.open_input(path) as source, open(files[number], "wb") as file:
            while True:
                with stop.waiting():
                    block = source.read1(2**20)
                if not block:
                    break
                file.write(block)
        job.records.rename(files[number], job.records.name_of(path))
    job.records.files = tuple(files) or job.records.files


def _refuse_overlap(cfg, out) -> None:
    """An output is no input, nor inside one, nor around one: replacing it would lose what it is made of."""
    out = os.path.realpath(out)
    for _, path in _inputs(cfg):
        real = os.path.realpath(path)
        if os.path.commonpath([real, out]) in (real, out):
            raise Usage(f"--out {cfg.out} and the input {path} are one, or one is inside the other")


def _refuse_overwriting(cfg) -> None:
    """No list, template or index that is read is written over. Rows may be: a file can be replaced by what is made of it."""
    for option in ("out", "rejects"):
        target = getattr(cfg, option, None)
        for name, path in _inputs(cfg) if target else ():
            if name != "files" and os.path.realpath(path) == os.path.realpath(target):
                raise Usage(f"{options.flag(option)} {target} is read, as {options.flag(name)}")


def _inputs(cfg):
    """(option, path) of every input that is a file or directory."""
    for name, field in options.fields(cfg).items():
        value = getattr(cfg, name) if field.metadata["input"] else None
        yield from ((name, path) for path in (value if isinstance(value, tuple) else (value,)) if path and os.path.exists(path))


def key_of(command, job, digests=None) -> dict:
    """What the result depends on: options, the identity of every input (`digests` as for `outdir.identity`), versions."""
    from pt_tools import outdir

    identity = functools.partial(outdir.identity, digests=digests)
    values, inputs = {}, {}
    for name, field in options.fields(job.cfg).items():
        value = job.records.files if name == "files" else getattr(job.cfg, name)
        if name == "files":
            inputs[name] = [identity(_existing(path)) for path in value]
        elif field.metadata["input"]:
            inputs[name] = _identities(value, field.metadata["input"], identity)
        if field.metadata["named"]:
            values[f"{name}_names"] = [os.path.basename(path) for path in value]
        if field.metadata["result"] and name not in inputs:
            values[name] = list(value) if isinstance(value, tuple) else value
    if "threads" in values:
        values |= computed_on(job.cfg) if job.cfg.computes() else {"threads": None}
    packages = versions(ENGINE + GRADERS if isinstance(job.cfg, options.Verifying) else ENGINE)
    return {"command": job.name, "options": values, "inputs": inputs, "versions": {"pt-tools": __version__, **packages}}


def _existing(path: str) -> str:
    if not os.path.isfile(path):
        raise Usage(f"{path} is not a file" if os.path.exists(path) else f"no such file: {path}")
    return path


def _identities(value, how, identity):
    if value is None:
        return None
    if isinstance(value, (tuple, list)):
        return [_identities(v, how, identity) for v in value]
    if how is not True:
        label, path = how(value)
        return label if path is None else [label, _identities(path, True, identity)]
    return identity(value) if "://" not in value else shown(value)


def threads(cfg) -> int:
    """The number of CPU threads that a run uses."""
    return cfg.threads or len(os.sched_getaffinity(0))


def computed_on(cfg) -> dict:
    """Device, number format and threads as they will be, told without torch: a result of a GPU is not one of a CPU, whose
    bits hang on the number of threads."""
    device = cfg.device if cfg.device != "auto" else "cuda" if _has_gpu() else "cpu"
    dtype = "float32" if (cfg.dtype, device) == ("auto", "cpu") else cfg.dtype
    return {"device": device, "dtype": dtype, "threads": threads(cfg) if device == "cpu" else None}


def _has_gpu() -> bool:
    build = versions(("torch",)).get("torch", "+cpu")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not build.endswith("+cpu") and not hidden and any(map(os.path.exists, ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd")))


def versions(packages=ENGINE) -> dict:
    """Versions of packages that are installed, those below the torch line by default, without importing them."""
    return {name: version for name in packages if (version := _version(name))}


@functools.cache
def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def command_line() -> list[str]:
    """This process's command line as a manifest shows it."""
    return [os.path.basename(sys.argv[0]), *shown(sys.argv[1:])]


def shown(value):
    """A value as a manifest shows it: what looks like a secret replaced, paths relative to the working directory."""
    if isinstance(value, (tuple, list)):
        return [shown(v) for v in value]
    if not isinstance(value, str):
        return value
    flag, equals, path = value.rpartition("=") if value.startswith("--") else ("", "", value)
    path = os.path.relpath(path) if os.path.isabs(path) else path
    return redacted(flag + equals + path)
