"""A key-value cache for batched decoding in which rows come and go.

Shapes: B live rows, P prompts, H key-value heads, D head width.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: a (slots, H, columns, D) buffer of which `cache` says what is live."""

    def __init__(self, cache):
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states, value_states):
        rows, columns = self.cache.slots, self.cache.columns
        # Zeros, not empty: a masked column is multiplied by a probability of 0, and 0 * NaN is NaN.
        self.keys = key_states.new_zeros(rows, key_states.shape[1], columns, key_states.shape[3])
        self.values = value_states.new_zeros(rows, value_states.shape[1], columns, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        c = self.cache
        self.keys[: c.live, :, c.column] = key_states[:, :, 0]
        self.values[: c.live, :, c.column] = value_states[:, :, 0]
        window = slice(c.first, c.column + 1)
        return self.keys[: c.live, :, window], self.values[: c.live, :, window]

    def get_seq_length(self):
        return self.cache.column - self.cache.first

    def get_mask_sizes(self, query_length):
        return self.get_seq_length() + query_length, 0

    def get_max_length(self):
        return -1


class SlotCache(Cache):
    """A cache whose live rows are the first `live` slots and whose rows all end at the same column.

    Every row writes its next token at `column`; a row of length t therefore begins at `column - t`, which
    `start` holds, and what lies before is masked. A finished row is overwritten by the last live one, so
    the batch is always dense; a new row of any length joins at the end, right-aligned.
    """

    def __init__(self, n_layers, slots, columns, device):
        super().__init__(layers=[_Layer(self) for _ in range(n_layers)])
        self.slots, self.columns, self.device = slots, columns, device
        self.live = self.column = self.first = 0
        self.start = np.zeros(slots, np.int64)

    def remove(self, dead):
        """Free the live rows where `dead` is true. Returns the old index of every row that stays, in slot order."""
        left = int(self.live - dead.sum())
        order = np.arange(left)
        holes, movers = np.flatnonzero(dead[:left]), left + np.flatnonzero(~dead[left:])
        if len(holes):
            order[holes] = movers
            to, frm = torch.from_numpy(holes).to(self.device), torch.from_numpy(movers).to(self.device)
            window = slice(self.first, self.column)
            for layer in self.layers:
                layer.keys[:, :, window].index_copy_(0, to, layer.keys[frm, :, window])
                layer.values[:, :, window].index_copy_(0, to, layer.values[frm, :, window])
        self.start[:left] = self.start[order]
        self.live = left
        self.first = int(self.start[:left].min()) if left else self.column
        return order

    def insert(self, prefilled, lengths, copies):
        """Add rows from a left-padded prefill (P prompts of `lengths` tokens), `copies[p]` of each."""
        width = prefilled.layers[0].keys.shape[2]
        if self.live == 0:
            self.column = self.first = min(width, self.columns)
        self.make_room(max(0, width - self.column))
        rows = slice(self.live, self.live + sum(copies))
        copies_P = torch.tensor(copies, device=self.device)
        window = slice(self.column - width, self.column)
        for mine, theirs in zip(self.layers, prefilled.layers):
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.keys, theirs.values)
            mine.keys[rows, :, window] = theirs.keys.repeat_interleave(copies_P, 0)
            mine.values[rows, :, window] = theirs.values.repeat_interleave(copies_P, 0)
        self.live = rows.stop
        self.start[rows] = self.column - np.repeat(lengths, copies)
        self.first = int(self.start[: self.live].min())

    def make_room(self, shift=0):
        """Move all columns right by `shift` (left by `first` when that frees a quarter), growing when full."""
        if shift == 0 and self.column < self.columns:
            return
        if shift == 0 and self.first * 4 >= self.columns:
            shift = -self.first
        old = slice(self.first, self.column)
        new = slice(self.first + shift, self.column + shift)
        if new.stop >= self.columns:
            self.columns = new.stop + max(64, new.stop // 2)
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys = self._moved(layer.keys, old, new)
                layer.values = self._moved(layer.values, old, new)
        self.start += shift
        self.first, self.column = new.start, new.stop

    def _moved(self, buffer, old, new):
        fresh = buffer.new_zeros(*buffer.shape[:2], self.columns, buffer.shape[3])
        fresh[: self.live, :, new] = buffer[: self.live, :, old]
        return fresh

    def mask(self, dtype):
        """(live, 1, 1, columns in use) additive attention mask for one new token a row; None when nothing is padded."""
        start = self.start[: self.live]
        if int(start.max()) == self.first:
            return None
        columns = np.arange(self.first, self.column + 1)
        hidden = torch.from_numpy(columns[None, :] < start[:, None]).to(self.device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
        return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None, :]
