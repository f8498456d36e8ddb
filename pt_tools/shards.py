"""pt-curate sketch and cluster at work: near-dedup in two steps, so that shards can be sketched anywhere and at once."""

import os
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np

from pt_tools import copies, finders, readback, stream
from pt_tools.curate import bands, columns, grams, near
from pt_tools.errors import BadData, Usage

VERSION = [grams.VERSION, near.KEYS]
SKETCH = "sketch"  # what such a file calls its settings
COLUMNS = {"starts": "U64", "lengths": "U32", "lines": "U32", "source": "U32", "ranks": "U16", "measures": "F64", "ids": "U64"}


def sketch(job, files, paths, rules: copies.Rules, jobs: int) -> None:
    """Write the sketch of the job's records, which are in the files `paths`, to its output."""
    index = copies.Index(files)
    finder = finders.Near(index, rules.threshold, job.run)
    copies.take(job, index, rules, finder, jobs, ids=True)
    sizes = [os.path.getsize(path) for path in paths]
    header = {"version": VERSION, "ngram": near.NGRAM, "bands": finder.banding.bands, "rows": finder.banding.rows,
              "rules": asdict(rules), "sources": list(index.sources),
              "files": [list(entry) for entry in zip(map(os.path.abspath, paths), sizes, index.ends())]}
    keys = finder.keys
    made = {"keys": ("U64", [keys.count, len(index)], map(keys.column, range(keys.count)))}
    made |= {name: (COLUMNS[name], [len(index)], [values]) for name, values in index.columns.items() if len(values) == len(index)}
    columns.write(job.out.write_lines, SKETCH, header, made)
    job.rows.add("out", len(index))


def cluster(job, paths, jobs: int) -> None:
    """Write the losers among the rows of all sketches."""
    sketches = [columns.File(path, SKETCH) for path in paths]
    first = _settings(sketches[0])
    for one in sketches[1:]:
        if _settings(one) != first:
            raise Usage(f"{one.path} was not sketched as {sketches[0].path} was: other options, or another version")
    rules = copies.Rules(**{**first["rules"], "prefer": tuple(first["rules"]["prefer"])})
    records = stream.Reader([_found(path, size, one) for one in sketches for path, size, _ in one.settings["files"]])
    with readback.opened(SimpleNamespace(records=records, run=job.run)) as files:
        index = _index(files, sketches)
        found = finders.near_found(bands.Files(sketches), index, rules, jobs, job.run)
        ids, kept = copies.ids_of(index, found.rows(), jobs), copies.kept(index, found)
        _check(index, ids)
        for entry in copies.losers(index, found, kept, ids):
            job.out.write(entry)
    job.rows.add("in", len(index))
    job.rows.add("dropped", len(index) - len(kept), "rows that stay")
    copies.say(job, index, found, kept)


def _settings(one):
    if one.settings["version"] != VERSION:
        raise BadData("made by another version of pt-tools, with other keys; sketch it again", one.path)
    return {name: value for name, value in one.settings.items() if name not in ("files", "sources")}


def _found(path, size, one):
    """A sketched file, where it was or beside its sketch."""
    beside = os.path.join(os.path.dirname(one.path), os.path.basename(path))
    for place in (path, beside):
        if os.path.isfile(place):
            if os.path.getsize(place) != size:
                raise BadData(f"is not as it was when {one.path} was made", place)
            return place
    raise Usage(f"no such file: {path}, of which {one.path} is the sketch; its texts decide what is a copy")


def _index(files, sketches):
    index, file = copies.Index(files), 0
    for one in sketches:
        read = {name: one.read(name) for name in COLUMNS if name in one}
        numbers = np.array([index.sources.setdefault(name, len(index.sources)) for name in one.settings["sources"]], np.uint32)
        read["source"] = numbers[read["source"]] if len(numbers) else read["source"]
        start = 0
        for _, _, end in one.settings["files"]:
            index.add(file, {name: values[start:end].tolist() for name, values in read.items()})
            start, file = end, file + 1
    return index


def _check(index, ids):
    """The rows that were read again are those that were sketched."""
    for row, id in ids.items():
        if copies.id_number(id) != index.ids[row]:
            raise BadData("is not as it was when it was sketched", index.where(row)[0])
