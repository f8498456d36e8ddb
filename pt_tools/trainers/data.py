"""Tokenised rows and how they become padded tensors."""

from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset

from pt_tools.errors import BadData
from pt_tools.tokens import IGNORE


class Row(NamedTuple):
    """Token ids and labels (int32, equal length); `lengths` of its documents where several are packed."""
    input_ids: np.ndarray
    labels: np.ndarray
    lengths: tuple = ()


def row(input_ids, labels, max_length):
    """(Row, whether it was cut): the start is kept. The first label is never used, so it is set to IGNORE."""
    ids, labels = np.asarray(input_ids[:max_length], np.int32), np.asarray(labels[:max_length], np.int32)
    labels[:1] = IGNORE
    return Row(ids, labels, (len(ids),)), len(input_ids) > max_length


def trained(row):
    """Number of positions that carry loss."""
    return int((row.labels != IGNORE).sum())


def read(job, encode, max_length, what, lacking):
    """What `encode` makes of job.records, in order; every record is counted as out, dropped or errored.

    `encode(record)` gives (item, whether it was cut to `max_length`, whether it has a token to train on) or raises
    ValueError. `what` an item is called and what a dropped one is `lacking` go into messages.
    """
    items = []
    for record in job.records:
        try:
            item, cut, trains = encode(record)
        except ValueError as err:
            job.records.reject(str(err), record)
            continue
        if not trains:
            job.rows.add("dropped", reason=f"no {lacking} within {max_length}" if cut else f"no {lacking}")
            continue
        job.rows.add("out")
        if cut:
            job.rows.add("truncated", reason=f"longer than {max_length} tokens")
        items.append(item)
    if not items:
        raise BadData(f"no {what} to train on ({job.rows})")
    return items


def pack(rows, max_length):
    """Best-fit decreasing: rows joined into windows of at most `max_length` tokens, none cut."""
    room = {}      # free tokens → open windows with that much room
    windows = []
    for index in sorted(range(len(rows)), key=lambda i: (-len(rows[i].input_ids), i)):
        size = len(rows[index].input_ids)
        free = min((f for f in room if f >= size), default=None)
        if free is None:
            free = max_length
            windows.append([])
            room.setdefault(free, []).append(len(windows) - 1)
        window = room[free].pop()
        if not room[free]:
            del room[free]
        windows[window].append(index)
        room.setdefault(free - size, []).append(window)
    return [_join([rows[i] for i in sorted(window)]) for window in windows]


def _join(rows):
    return Row(np.concatenate([r.input_ids for r in rows]), np.concatenate([r.labels for r in rows]),
               tuple(len(r.input_ids) for r in rows))


def collate(rows, pad_id):
    """Right-padded (B, T) `input_ids` and `labels`; for packed rows also `position_ids` that start anew at every document.

    No attention mask: pads come after every real token, so causal attention never sees them, and documents are
    kept apart by their positions. B = rows, T = longest row.
    """
    shape = len(rows), max(len(r.input_ids) for r in rows)
    ids, labels = np.full(shape, pad_id, np.int64), np.full(shape, IGNORE, np.int64)
    for k, r in enumerate(rows):
        ids[k, :len(r.input_ids)], labels[k, :len(r.labels)] = r.input_ids, r.labels
    batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if any(len(r.lengths) > 1 for r in rows):
        batch["position_ids"] = torch.from_numpy(_positions(rows, shape))
    return batch


def _positions(rows, shape):
    positions = np.zeros(shape, np.int64)
    for k, r in enumerate(rows):
        ends = [*r.lengths, shape[1] - sum(r.lengths)]      # the padding is a document of its own
        positions[k] = np.concatenate([np.arange(n) for n in ends])
    return positions


def numbers(rows):
    """What TRL gets as its data set: row numbers. The rows themselves stay ours (see Promises)."""
    return Dataset.from_dict({"row": range(len(rows))})
