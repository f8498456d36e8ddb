"""One merge from what is asked for to a whole directory, or what it would be."""

from __future__ import annotations

import json
import os

from pt_tools import job as jobs
from pt_tools.errors import Usage
from pt_tools.merge import build, directory, engine, methods
from pt_tools.merge.build import Built
from pt_tools.merge.spec import Spec
from pt_tools.merge.writer import size_of

PROCESS = 24_000_000  # bytes of Python and numpy


def main(cfg, job, spec: Spec, shard_size: int) -> None:
    """Fill job.out.stage with the merged model; with --dry-run print what would be done instead."""
    make(cfg, job, spec, build.build(spec, methods.get(spec.method), shard_size=shard_size, seed=cfg.seed))


def make(cfg, job, spec: Spec, built: Built) -> None:
    """As `main`, from what was built."""
    for note in built.notes:
        job.say(note)
    if cfg.dry_run:
        show(cfg, spec, built)
        return
    with Report(cfg.report) as report:
        done = write(built, job.out.stage, job.run, cfg, report=report.row, say=job.say, unread=job.late.unread)
    job.final.update(method=spec.method, models=list(map(str, spec.models())), bytes=done["bytes"],
                     tensors=done["tensors"], notes=built.notes,
                     **({"nonfinite": done["nonfinite"]} if done["nonfinite"] else {}))
    job.say(f"{done['tensors']} tensors, {done['bytes'] / 1e6:.1f} MB in {done['seconds']:.1f} s")


def write(built: Built, out, scratch, cfg, **more) -> dict:
    """The model directory `out`; takes and returns what `engine.run` does."""
    done = engine.run(built.plan, out, scratch, threads=jobs.threads(cfg), force=cfg.force, **more)
    directory.write(out, built.config, built.donor, built.added, built.chat_template)
    return done


def show(cfg, spec: Spec, built: Built) -> None:
    """Print what would be done as one JSON object."""
    named = {"method": spec.method, "models": list(map(str, spec.models()))}
    print(json.dumps(summary(built, jobs.threads(cfg)) | named, default=list))


def summary(built: Built, threads: int) -> dict:
    """Bytes read (once) and written, tensors, bytes of memory that it will take, and every tensor's parameters."""
    items = built.plan.items
    sources = {(s.tensor.path, s.tensor.offset): s.tensor.nbytes for item in items for s in engine._sources(item)}
    return {"bytes_in": sum(sources.values()), "bytes_out": sum(map(size_of, items)), "tensors": len(items),
            "memory": PROCESS + threads * max(map(_buffers, items)), "notes": built.notes,
            "items": [{"name": item.name, "dtype": item.dtype, "shape": item.shape, "method": item.method.name,
                       "models": item.parameters.own, "shared": item.parameters.shared} for item in items]}


def _buffers(item) -> int:
    """Bytes of one thread's buffers for a tensor: fp32 blocks of all sources, result and scratch, and the stored bytes."""
    entries = min(engine.block_entries(item), engine.count_of(item.shape))
    return entries * (4 * (len(engine._sources(item)) + 2 + item.method.buffers) + 8)


class Report:
    """Rows as JSON lines, written aside and renamed when all are there; `row` is None without a path."""

    def __init__(self, path: str | None):
        self.path, self.aside = path, f"{path}.{os.getpid()}.tmp"
        self.file = self._open() if path else None
        self.row = self._add if path else None

    def _open(self):
        try:
            return open(self.aside, "w", encoding="utf-8")
        except OSError as error:
            raise Usage(f"{self.path}: {(error.strerror or 'cannot be written').lower()}") from None

    def _add(self, row: dict) -> None:
        self.file.write(json.dumps(row, default=float) + "\n")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_) -> None:
        if self.file:
            self.file.close()
            if kind is None:
                os.replace(self.aside, self.path)
            else:
                os.unlink(self.aside)
