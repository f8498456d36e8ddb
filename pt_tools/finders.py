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
    """Finds rows that are equal but for case, spacing and punctuation, as they come."""

    text, key, size = staticmethod(compared.turns), staticmethod(exact.rough_key), blocks.LARGE
    of = staticmethod(partial(array, "I"))

    def __init__(self, index, on: str = "all"):
        self._index, self._on = index, on
        self._known = exact.Known(lambda row: self._text(index.bytes(row), row))
        self._clusters = {}

    def add(self, keys, block) -> set[int]:
        """Take the last rows of the index, with their keys; returns those that are copies of earlier ones."""
        known, copies = self._known, set()
        for row, key in known.later(keys, len(self._index) - len(keys)):
            first = known.find(key, row, self._text(block.line(self._index.lines[row]), row))
            if first is not None:
                self._clusters.setdefault(first, [first]).append(row)
                copies.add(row)
        return copies

    def _text(self, line, row):
        return exact.Text(_unlabelled(line), lambda: compared.turns(self._index.parsed(line, row), self._on))

    def found(self, rules, jobs) -> Found:
        return Found([self._clusters[row] for row in sorted(self._clusters)])


def _unlabelled(line):
    """A line without id and source, which copies need not share, where they stand at its beginning as they mostly do."""
    labels = _LABELS.match(line)
    return line[labels.end():] if labels else line


class Near:
    """Finds rows most of whose n-grams are the same."""

    text, key, size = staticmethod(compared.conversation), str, blocks.LARGE

    def __init__(self, index, threshold: float, directory=None):
        from pt_tools.curate import bands, near

        self._index = index
        self.threshold, self._directory = threshold, directory
        self.banding = near.banding(threshold)
        self.of = partial(near.keys, bands=self.banding)
        self.keys = bands.Bands(self.banding.bands + 1, directory)

    def add(self, keys, block) -> None:
        self.keys.add(keys)

    def found(self, rules, jobs) -> Found:
        return near_found(self.keys, self._index, rules, jobs, self._directory)


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
