"""Clusters of near copies: rows that share keys are candidates, their n-grams decide, connected pairs are a cluster.

The smallest row is a cluster's root, and everything follows from the order of the rows alone.
"""

import numpy as np

from pt_tools.curate.grams import different
from pt_tools.curate.near import jaccard

BIG = 16  # rows that share one key above which the next band's key divides them: texts of one template, say
DIVISIONS = 3
ROUNDS = BIG - 1  # so that in other groups all are compared with all
MANY = 4  # candidates for one row from which on a look at half of the bits comes first
_TABLE = 2**16


def groups(columns, bands: int):
    """Groups of rows that share a key other than 0, for each band: yields (rows, starts), rows ascending within a group.

    `columns(band)` is the column (N,) of the keys. A group of more than BIG rows is divided by the keys of the next
    bands, DIVISIONS times at most: of a thousand texts made of one template most are no copies of each other.
    """
    waiting = []  # (divisions, rows, group) of big groups
    for band in range(bands + DIVISIONS):
        column = columns(band % bands)
        found = [(times + 1, *_divided(column[rows], rows, group)) for times, rows, group in waiting]
        if band < bands:
            found.append((0, *_divided(column, np.arange(len(column)), None)))
        waiting = []
        for times, rows, starts in found:
            if times < DIVISIONS:
                rows, starts, big = _parted(rows, starts)
                if len(big[0]):
                    waiting.append((times, *big))
            if len(rows):
                yield rows, starts


def _divided(keys, rows, group):
    """The rows that share key and group with another, (rows, starts of the groups)."""
    order = np.argsort(keys, kind="stable") if group is None else np.lexsort((keys, group))
    same = (keys[order[1:]] == keys[order[:-1]]) & (keys[order[1:]] != 0)
    if group is not None:
        same &= group[order[1:]] == group[order[:-1]]
    inside = np.zeros(len(order) + 1, bool)
    inside[1:-1] = same
    shared = inside[1:] | inside[:-1]
    return rows[order[shared]], np.flatnonzero(~inside[:-1][shared])


def _parted(rows, starts):
    """Small groups as (rows, starts), and the big ones as (rows, group of each)."""
    sizes = np.diff(starts, append=len(rows))
    group = np.repeat(np.arange(len(starts)), sizes)
    big = (sizes > BIG)[group]
    small = sizes[sizes <= BIG]
    return rows[~big], np.cumsum(small) - small, (rows[big], group[big])


def firsts(prints: np.ndarray) -> np.ndarray:
    """For every row the first of the same print; itself where the print is 0."""
    _, first, which = np.unique(prints, return_index=True, return_inverse=True)
    return np.where(prints == 0, np.arange(len(prints)), first[which])


def spread(found: list[list[int]], first: np.ndarray) -> list[list[int]]:
    """Clusters of the first rows of their prints with all other rows of these prints, in order of their first rows."""
    root = np.arange(len(first))
    for cluster in found:
        root[cluster] = cluster[0]
    root = root[first]
    order = np.argsort(root, kind="stable")
    starts = np.flatnonzero(np.diff(root[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    return [order[start:start + size].tolist() for start, size in zip(starts[sizes > 1], sizes[sizes > 1])]


class Clusters:
    """Union-find over candidate rows. `sets(i)` is the sorted set of the n-grams of `rows[i]`, rows ascending."""

    def __init__(self, rows: np.ndarray, sizes: np.ndarray, sets, threshold: float):
        self.rows, self._sizes, self._sets, self._threshold = rows, sizes, sets, threshold
        self._parent = np.arange(len(rows))
        self._table = np.zeros(_TABLE, bool)
        self.compared = self.left = 0  # pairs; rows of large groups that were not compared with all others

    def roots(self) -> np.ndarray:
        """The place in `rows` of the root of every row's cluster."""
        while True:
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return self._parent
            self._parent = above

    def clusters(self) -> list[list[int]]:
        """The rows of every cluster of two at least, in order."""
        roots = self.roots()
        order = np.argsort(roots, kind="stable")
        starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
        parts = np.split(self.rows[order], starts[1:])
        return [part.tolist() for part in parts if len(part) > 1]

    def join(self, rows: np.ndarray, starts: np.ndarray) -> None:
        """Compare the rows of every group with each other; of a large one the first ROUNDS with all others."""
        members = np.searchsorted(self.rows, rows)
        sizes = np.diff(starts, append=len(rows))
        group = np.repeat(np.arange(len(starts)), sizes)
        place = np.arange(len(rows)) - starts[group]
        for turn in range(min(ROUNDS, sizes.max(initial=0) - 1)):
            later = np.flatnonzero(place > turn)
            self._compare(members[starts[group[later]] + turn], members[later])
        rest = np.flatnonzero(place > ROUNDS)
        self.left += np.count_nonzero(self.roots()[members[rest]] != self.roots()[members[starts[group[rest]]]])

    def _compare(self, heads, members):
        """Join those pairs that are copies."""
        roots = self.roots()
        apart = roots[heads] != roots[members]
        pairs = np.stack(np.divmod(different(heads[apart] * len(roots) + members[apart]), len(roots)), 1)
        small, large = np.sort(self._sizes[pairs], axis=1).T
        pairs = pairs[small >= self._threshold * large]
        edges = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1)) if len(pairs) else []
        for start, end in zip(edges, [*edges[1:], len(pairs)]):
            self._compare_one(pairs[start, 0], pairs[start:end, 1])

    def _compare_one(self, head, members):
        grams = self._sets(head)
        if len(members) >= MANY:
            members = members[self._may_be(grams, members)]
        self.compared += len(members)
        for member in members:
            if self._find(member) != self._find(head) and jaccard(grams, self._sets(member)) >= self._threshold:
                a, b = sorted((self._find(head), self._find(member)))
                self._parent[b] = a

    def _may_be(self, grams, members):
        """Whether 16 bits of every n-gram, in which sets look more alike than they are, leave a pair possible."""
        self._table[grams.astype(np.uint16)] = True
        shared = np.array([np.count_nonzero(self._table[self._sets(member).astype(np.uint16)]) for member in members])
        self._table[grams.astype(np.uint16)] = False
        return shared >= self._threshold * (len(grams) + self._sizes[members] - shared)

    def _find(self, i):
        while self._parent[i] != i:
            i = self._parent[i]
        return i
