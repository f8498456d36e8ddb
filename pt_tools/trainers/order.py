"""The order of rows over a whole run, as one list, so that resuming is a position in it."""

import math

import numpy as np


class Order:
    """Micro-batches (lists of row numbers) of a whole run, epoch after epoch.

    Epoch e is the permutation drawn from (seed, e); batches run on across the border of epochs, so every row is
    seen exactly `epochs` times and only the last batch may be smaller. `max_steps`, if given, counts full batches
    instead. Inside a batch rows are sorted by length before they are cut into micro-batches: less padding, same batch.
    """

    def __init__(self, rows, batch_size, micro_batch_size, seed, epochs=1.0, max_steps=0, lengths=None):
        if rows < 1:
            raise ValueError("no rows")
        self.rows, self.batch_size, self.seed, self.lengths = rows, batch_size, seed, lengths
        self.accumulation = math.ceil(batch_size / min(micro_batch_size, batch_size))
        self.micro_batch_size = math.ceil(batch_size / self.accumulation)
        self.total = max_steps * batch_size if max_steps else max(1, round(rows * epochs))
        self.steps = math.ceil(self.total / batch_size)

    def __len__(self):
        last = self.total - (self.steps - 1) * self.batch_size
        return (self.steps - 1) * self.accumulation + math.ceil(last / self.micro_batch_size)

    def __iter__(self):
        for step in range(self.steps):
            yield from self.micro_batches(self.batch(step))

    def batch(self, step):
        """Row numbers of one optimizer step, in the drawn order."""
        start = step * self.batch_size
        return [self.row(p) for p in range(start, min(start + self.batch_size, self.total))]

    def used(self):
        """The rows that a run comes to, in order."""
        return range(self.rows) if self.total >= self.rows else sorted(map(self.row, range(self.total)))

    def row(self, position):
        """The row at a position of the run."""
        return int(self._permutation(position // self.rows)[position % self.rows])

    def _permutation(self, epoch):
        if getattr(self, "_drawn", None) != epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            self._drawn = epoch
        return self._order

    def micro_batches(self, batch):
        """The batch cut into micro-batches of nearly equal size."""
        if self.lengths is not None:
            batch = sorted(batch, key=lambda row: self.lengths[row])
        parts = math.ceil(len(batch) / self.micro_batch_size)
        borders = [len(batch) * k // parts for k in range(parts + 1)]
        return [batch[a:b] for a, b in zip(borders, borders[1:])]

    def epochs_at(self, step):
        """Rows seen after `step` steps, in epochs."""
        return min(step * self.batch_size, self.total) / self.rows


def micro_batch_size(cfg, longest, on_gpu):
    """`--micro-batch-size`, or as many rows of the longest length as fit a budget of tokens."""
    budget = 16384 if on_gpu else 1024
    return cfg.micro_batch_size or max(1, min(cfg.batch_size, budget // max(1, longest)))
