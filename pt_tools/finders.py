"""Which rows are copies of each other: exact ones, and near ones."""

import os
import tempfile
from array import array
from dataclasses import dataclass, field
from functools import partial

from pt_tools import blocks, record
from pt_tools.curate import compared

PORTION = 256  # rows that are read again at once


@dataclass
class Found:
    """Clusters of copies, each a list of rows in order, and (id, source) of their rows.

    `left` rows were not compared with all that share a key with them, because too many do.
    """

    clusters: list[list[int]] = field(default_factory=list)
    labels: dict[int, tuple[str, str]] = field(default_factory=dict)
    left: int = 0


class Exact:
    """Finds rows that are equal but for case, spacing and punctuation."""

    text = staticmethod(compared.turns)

    def __init__(self):
        self._keys = array("I")

    @staticmethod
    def of(texts):
        from pt_tools.curate.exact import rough_key

        return array("I", [rough_key(turns) if any(turns) else 0 for turns in texts])

    def add(self, keys):
        self._keys.extend(keys)

    def found(self, index, rules, jobs) -> Found:
        from pt_tools.curate.exact import alike

        found = Found()
        work = partial(_exact, index, rules.on)
        for clusters, labels in blocks.ordered(work, _portions(alike(self._keys)), jobs):
            found.clusters += clusters
            found.labels.update(labels)
        found.clusters.sort()
        return found


def _portions(groups):
    """Groups of rows in lists that are worth a trip to another process."""
    portion, size = [], 0
    for group in groups:
        portion.append(group)
        size += len(group)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _exact(index, on, groups):
    """The clusters within groups of rows that share a rough key, and the labels of their rows."""
    from pt_tools.curate.exact import Equal

    clusters, labels = [], {}
    for group in groups:
        of_group = {}

        def turns(row, of_group=of_group):
            rec = index.read(row)
            of_group[row] = label(rec)
            return compared.turns(rec, on)

        equal = Equal(turns)
        for row in group:
            equal.add(row)
        for cluster in equal.clusters():
            clusters.append(cluster)
            labels.update((row, of_group[row]) for row in cluster)
    return clusters, labels


def label(rec: dict) -> tuple[str, str]:
    """(id, source) of a record."""
    return record.ensure_id(rec)["id"], rec.get("source") or "none"


class Near:
    """Finds rows most of whose n-grams are the same."""

    text = staticmethod(compared.conversation)

    def __init__(self, threshold: float, directory=None):
        from pt_tools.curate import bands, near

        self.threshold, self._directory = threshold, directory
        self.banding = near.banding(threshold)
        self.of = partial(near.keys, bands=self.banding)
        self.keys = bands.Bands(self.banding.bands, directory)
        self.add = self.keys.add

    def found(self, index, rules, jobs) -> Found:
        return near_found(index, self.keys, rules, jobs, self._directory)


def near_found(index, keys, rules, jobs, directory=None) -> Found:
    """The clusters of near copies among rows whose keys share a column of `keys` (bands.Bands or bands.Files)."""
    import numpy as np

    from pt_tools.curate import clusters

    groups = list(clusters.groups(keys.column, keys.count))
    wanted = np.zeros(len(index), bool)
    for rows, _ in groups:
        wanted[rows] = True
    rows = np.flatnonzero(wanted)
    sets, labels = _Sets(directory), {}
    portions = (rows[i:i + PORTION].tolist() for i in range(0, len(rows), PORTION))
    for portion, (grams, sizes, of_rows) in blocks.ordered(partial(_grams, index, rules.on), portions, jobs):
        sets.add(grams, sizes)
        labels.update(zip(portion, of_rows))
    joined = clusters.Clusters(rows, sets.sizes(), sets.get, rules.threshold)
    for of_band in groups:
        joined.join(*of_band)
    found = joined.clusters()
    return Found(found, {row: labels[row] for cluster in found for row in cluster}, joined.left)


def _grams(index, on, rows):
    from pt_tools.curate import near

    recs = [index.read(row) for row in rows]
    grams, sizes = near.sorted_sets([compared.conversation(rec, on) for rec in recs])
    return rows, (grams, sizes, [label(rec) for rec in recs])


class _Sets:
    """Sorted sets of numbers, in a temporary file."""

    def __init__(self, directory):
        self._file = tempfile.TemporaryFile(dir=directory)
        self._sizes, self._places = [], None

    def add(self, numbers, sizes):
        self._file.write(numbers)
        self._sizes.append(sizes)

    def sizes(self):
        """How many numbers each has; nothing can be added from now on."""
        import numpy as np

        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        self._file.flush()
        self._places = np.concatenate([[0], np.cumsum(sizes)]) * 8
        return sizes

    def get(self, i):
        import numpy as np

        start, end = self._places[i:i + 2].tolist()
        return np.frombuffer(os.pread(self._file.fileno(), end - start, start), np.uint64)
