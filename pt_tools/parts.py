"""Several output files of one run: each written aside, all put in place when the last row is written."""

import contextlib

from pt_tools import job as runs
from pt_tools import outdir, stream


class Parts:
    """`write_lines(name, lines, rows)` writes to one of the files; `done` says that all were complete already."""

    def __init__(self, job, names):
        self._job, self.writers, self.rows = job, {}, dict.fromkeys(names, 0)
        self.done = False

    def write_lines(self, name: str, lines: bytes, rows: int) -> None:
        if name in self.writers:  # a part that a run before completed stays as it is
            self.writers[name].write_lines(lines)
        if rows:
            self.rows[name] += rows
            self._job.rows.add("out", rows, f"part {name}")


@contextlib.contextmanager
def opened(command, job, paths: dict[str, str]):
    """The Parts for `paths` (name -> file). Nothing appears if the block raises."""
    key = None if any(map(runs.is_pipe, job.records.files)) else runs.key_of(command, job)
    parts, outs, finished = Parts(job, paths), {}, False
    with contextlib.ExitStack() as stack:
        for name, path in paths.items():
            out = outdir.Out(path, key and {**key, "part": name}, directory=False, say=job.say)
            if not out.begin():
                outs[name] = out
                stack.callback(lambda out=out: out.close(done=finished))
        with contextlib.ExitStack() as files:
            for name, out in outs.items():
                file = files.enter_context(stream.open_output(out.stage, out.path.name))
                parts.writers[name] = stream.Writer(file)
            parts.done = not outs
            yield parts
        for name, out in outs.items():
            out.commit(**job.manifest(), part={"name": name, "rows": parts.rows[name]})
        finished = True
