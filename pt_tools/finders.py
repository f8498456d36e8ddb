"""Which rows are copies of each other: exact ones, and near ones."""

import os
import re
from array import array
from dataclasses import dataclass
from functools import partial

from pt_tools import blocks, stop
from pt_tools.copies import PORTION
from pt_tools.curate import compared, exact


_LABELS = re.compile(rb'\{"id": ?"[^"\\]*", ?(?:"source": ?"[^"\\]*", ?)?(?="messages": ?\[)')


@dataclass
class Found:
    """Clusters of copies, each a list of rows in order; `left` rows were not compared with all that share a key with them,
    because too many do."""

    clusters: list[list[int]]
    left: int = 0

    def rows(self) -> list[int]:
        """The rows of all clusters, in order."""
        return sorted(row for cluster in self.clusters for row in cluster)


class Exact:
    """Finds rows that are equal but for case, spacing and punctuation."""

    text, size = staticmethod(compared.turns), None

    def __init__(self):
        self._keys = array("I")

    @staticmethod
    def key(turns):
        return exact.rough_key(turns) if any(turns) else 0

    of = staticmethod(partial(array, "I"))

    def add(self, keys):
        self._keys.extend(keys)

    def found(self, index, rules, jobs) -> Found:
        parts = blocks.ordered(partial(_exact, index, rules.on), _portions(exact.alike(self._keys)), jobs)
        return Found(sorted(cluster for part in parts for cluster in part))


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
    """The clusters within groups of rows that share a rough key."""
    def turns(line, row):
        return compared.turns(index.parsed(line, row), on)

    return [cluster for group in groups for cluster in exact.clusters(group, lambda row: _unlabelled(index.bytes(row)), turns)]


def _unlabelled(line):
    """A line without id and source, which copies need not share, where they stand at its beginning as they mostly do."""
    labels = _LABELS.match(line)
    return b"{" + line[labels.end():].rstrip() if labels else line


class Near:
    """Finds rows most of whose n-grams are the same."""

    text, key, size = staticmethod(compared.conversation), str, blocks.LARGE

    def __init__(self, threshold: float, directory=None):
        from pt_tools.curate import bands, near

        self.threshold, self._directory = threshold, directory
        self.banding = near.banding(threshold)
        self.of = partial(near.keys, bands=self.banding)
        self.keys = bands.Bands(self.banding.bands + 1, directory)
        self.add = self.keys.add

    def found(self, index, rules, jobs) -> Found:
        return near_found(self.keys, index, rules, jobs, self._directory)


def near_found(keys, index, rules, jobs, directory=None) -> Found:
    """The clusters of near copies; `keys` (bands.Bands or bands.Files) are those of near.keys for all rows."""
    import numpy as np

    from pt_tools.curate import clusters

    bands = keys.count - 1
    first = clusters.firsts(keys.column(bands))
    alone = first == np.arange(len(first))  # rows of the same n-grams as an earlier one need no second look
    groups = list(clusters.groups(lambda band: np.where(alone, keys.column(band), np.uint64(0)), bands))
    wanted = np.zeros(len(index), bool)
    for rows, _ in groups:
        wanted[rows] = True
    rows, sets = np.flatnonzero(wanted), _Sets(directory)
    portions = (rows[i:i + PORTION].tolist() for i in range(0, len(rows), PORTION))
    for grams, sizes in blocks.ordered(partial(_grams, index, rules.on), portions, jobs):
        sets.add(grams, sizes)
    joined = clusters.Clusters(rows, sets.sizes(), sets.get, rules.threshold)
    for of_band in groups:
        stop.check()
        joined.join(*of_band)
    return Found(clusters.spread(joined.clusters(), first), joined.left)


def _grams(index, on, rows):
    from pt_tools.curate import near

    return near.sorted_sets([compared.conversation(index.read(row), on) for row in rows])


class _Sets:
    """Sorted sets of numbers, in a temporary file."""

    def __init__(self, directory):
        import tempfile

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
