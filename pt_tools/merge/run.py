"""One merge from what is asked for to a whole directory, or what it would be."""

from __future__ import annotations

import json
import os

from pt_tools import job as jobs
from pt_tools.merge import build, directory, engine, methods
from pt_tools.merge.build import Built
from pt_tools.merge.spec import Spec
from pt_tools.merge.writer import size_of


def main(cfg, job, spec: Spec, shard_size: int) -> None:
    """Fill job.out.stage with the merged model; with --dry-run print what would be done instead."""
    built = build.build(spec, methods.get(spec.method), shard_size=shard_size, seed=cfg.seed)
    for note in built.notes:
        job.say(note)
    threads = jobs.threads(cfg)
    if cfg.dry_run:
        print(json.dumps(summary(built, threads) | {"method": spec.method, "models": list(map(str, spec.models()))}, default=list))
        return
    stage, report = job.out.stage, _Report(cfg.report)
    try:
        done = engine.run(built.plan, stage, job.run, threads=threads, force=cfg.force, report=report.add if cfg.report else None,
                          say=job.say)
        report.finish()
    finally:
        report.close()
    directory.write(stage, built.config, built.donor, built.added, built.chat_template)
    job.final.update(method=spec.method, models=list(map(str, spec.models())), bytes=done["bytes"], tensors=done["tensors"],
                     notes=built.notes, **({"nonfinite": done["nonfinite"]} if done["nonfinite"] else {}))
    job.say(f"{done['tensors']} tensors, {done['bytes'] / 1e6:.1f} MB in {done['seconds']:.1f} s")


def summary(built: Built, threads: int) -> dict:
    """Bytes read (once) and written, tensors, bytes of the engine's buffers, and every tensor's parameters."""
    sources = {(s.tensor.path, s.tensor.offset): s.tensor.nbytes for item in built.plan.items for s in engine._sources(item)}
    return {"bytes_in": sum(sources.values()), "bytes_out": sum(map(size_of, built.plan.items)),
            "tensors": len(built.plan.items), "memory": threads * max(map(_buffers, built.plan.items)),
            "notes": built.notes,
            "items": [{"name": item.name, "dtype": item.dtype, "shape": item.shape, "method": item.method.name,
                       "models": item.parameters.own, "shared": item.parameters.shared} for item in built.plan.items]}


def _buffers(item) -> int:
    """Bytes of one thread's buffers for a tensor: fp32 blocks of all sources, result and scratch, and the stored bytes."""
    return min(engine.block_entries(item), engine.count_of(item.shape)) * (4 * (len(engine._sources(item)) + 2 + item.method.buffers) + 8)


class _Report:
    """Rows as JSON lines, written aside and renamed when all are there."""

    def __init__(self, path: str | None):
        self.path, self.aside = path, f"{path}.{os.getpid()}.tmp"
        self.file = open(self.aside, "w", encoding="utf-8") if path else None

    def add(self, row: dict) -> None:
        self.file.write(json.dumps(row, default=float) + "\n")

    def finish(self) -> None:
        if self.file:
            self.file.close()
            os.replace(self.aside, self.path)

    def close(self) -> None:
        if self.file:
            self.file.close()
            if os.path.exists(self.aside):
                os.unlink(self.aside)
