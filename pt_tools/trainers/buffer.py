"""What a rollout leaves for its updates, and how it becomes batches in which a group shares one prompt.

A pack is one row of a batch: a prompt once, then several of its completions, each of which attends to the prompt and
to itself. The numbers are those of separate rows; the prompt is computed once instead of once a completion.

Shapes: R packs, T tokens of the longest, N completion tokens, B completions, L tokens of the longest completion.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Sample:
    """One completion that is trained on. Arrays of one number a token; `ref_logps` only where there is a KL term."""

    tokens: np.ndarray
    old_logps: np.ndarray
    advantages: np.ndarray
    ref_logps: np.ndarray | None = None


@dataclass
class Group:
    """A prompt and those of its completions that are trained on."""

    prompt: np.ndarray
    samples: list


@dataclass
class Buffer:
    """The groups of a rollout, by the optimizer step that they belong to."""

    minibatches: list = field(default_factory=list)

    def to_tensors(self):
        """Everything as flat tensors for a checkpoint."""
        groups = [group for part in self.minibatches for group in part]
        samples = [sample for group in groups for sample in group.samples]
        flat = {
            "groups": np.array([len(part) for part in self.minibatches]),
            "sizes": np.array([len(group.samples) for group in groups]),
            **_joined("prompt", [group.prompt for group in groups], np.int64),
            **_joined("tokens", [s.tokens for s in samples], np.int64),
            **_joined("old_logps", [s.old_logps for s in samples], np.float32),
            **_joined("advantages", [s.advantages for s in samples], np.float32),
        }
        if samples and samples[0].ref_logps is not None:
            flat |= _joined("ref_logps", [s.ref_logps for s in samples], np.float32)
        return {f"buffer.{name}": torch.from_numpy(np.asarray(values)) for name, values in flat.items()}

    @classmethod
    def from_tensors(cls, tensors):
        """The inverse of `to_tensors`; None where the tensors hold no buffer."""
        if "buffer.groups" not in tensors:
            return None
        flat = {name.removeprefix("buffer."): t.numpy() for name, t in tensors.items()}
        columns = [_split(flat, name) for name in ("tokens", "old_logps", "advantages", "ref_logps") if name in flat]
        samples = iter([Sample(*values) for values in zip(*columns)])
        groups = iter([Group(p, [next(samples) for _ in range(n)]) for p, n in zip(_split(flat, "prompt"), flat["sizes"])])
        return cls([[next(groups) for _ in range(count)] for count in flat["groups"]])


def _joined(name, arrays, dtype):
    lengths = np.array([len(a) for a in arrays], np.int64)
    return {name: np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype), f"{name}.lengths": lengths}


def _split(flat, name):
    return np.split(flat[name], np.cumsum(flat[f"{name}.lengths"])[:-1]) if len(flat[f"{name}.lengths"]) else []


# --- packs -----------------------------------------------------------------------------------------


def packs(groups, width):
    """Groups cut into packs (groups again) of about the cheapest length for a model of hidden size `width`.

    Sharing saves the prompt p once a completion, but the completions of a pack also meet in the (masked) attention
    matrix. With 24 w^2 operations a token and 4 w a pair of tokens, the cost a completion is least where a pack's
    completions have sqrt(p^2 + 6 w p) tokens together.
    """
    cut = []
    for group in groups:
        p, room = len(group.prompt), 0
        best = math.sqrt(p * p + 6 * width * p)
        for sample in group.samples:
            if room < len(sample.tokens):
                cut.append(Group(group.prompt, []))
                room = best
            cut[-1].samples.append(sample)
            room -= len(sample.tokens)
    return cut


def length(pack):
    """Tokens of a pack. The last token of a completion predicts nothing and stays out."""
    return len(pack.prompt) + sum(len(s.tokens) - 1 for s in pack.samples)


def micro_batches(groups, width, max_tokens, max_samples=0):
    """The groups as packs of like length, in micro-batches of at most `max_tokens` padded tokens, and of
    `max_samples` completions if that is not 0; at least one pack each."""
    batches, samples = [], 0
    if max_samples:
        groups = [Group(g.prompt, g.samples[i : i + max_samples]) for g in groups for i in range(0, len(g.samples), max_samples)]
    for pack in sorted(packs(groups, width), key=length, reverse=True):
        full = batches and (len(batches[-1]) + 1) * length(batches[-1][0]) > max_tokens
        if not batches or full or (max_samples and samples + len(pack.samples) > max_samples):
            batches.append([])
            samples = 0
        batches[-1].append(pack)
        samples += len(pack.samples)
    return batches


def collate(micro_batch, pad_id=0):
    """Tensors of a micro-batch (a list of packs).

    `input_ids`, `position_ids` (R, T) and `attention_mask` (R, 1, T, T; additive; None when every pack has one
    completion) for the model; `places` (N,) in the flattened (R, T) that predict the completion tokens `tokens` (N,);
    `mask` (B, L), true where a completion has a token, in whose order the N are; `old_logps`, `advantages` and, if
    the samples have them, `ref_logps` (B, L).
    """
    shape = len(micro_batch), max(length(pack) for pack in micro_batch)
    ids, positions, segments = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    places = []
    for r, pack in enumerate(micro_batch):
        _lay_out(pack, ids[r], positions[r], segments[r], places, r * shape[1])
    samples = [sample for pack in micro_batch for sample in pack.samples]
    return {
        "input_ids": torch.from_numpy(ids),
        "position_ids": torch.from_numpy(positions),
        "attention_mask": _tree_mask(torch.from_numpy(segments)) if len(samples) > len(micro_batch) else None,
        "places": torch.from_numpy(np.concatenate(places)),
        "tokens": torch.from_numpy(np.concatenate([s.tokens for s in samples])),
        **_per_token(samples),
    }


def _lay_out(pack, ids, positions, segments, places, offset):
    """Fill one row; append, a completion, the places that predict its tokens."""
    p = len(pack.prompt)
    ids[:p], positions[:p] = pack.prompt, np.arange(p)
    end = p
    for k, sample in enumerate(pack.samples, 1):
        start, end = end, end + len(sample.tokens) - 1
        ids[start:end] = sample.tokens[:-1]
        positions[start:end] = np.arange(p, p + end - start)
        segments[start:end] = k
        places.append(offset + np.concatenate([[p - 1], np.arange(start, end)]))
    # Pads go on counting, so that positions never look like the start of another document.
    positions[end:] = np.arange(len(ids) - end) + (positions[end - 1] + 1)
    segments[end:] = -1


def _tree_mask(segments_RT):
    """A token sees what lies before it in its own segment and in segment 0, the prompt."""
    own = segments_RT[:, :, None] == segments_RT[:, None, :]
    seen = (own | (segments_RT[:, None, :] == 0)).tril()
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]


def _per_token(samples):
    shape = len(samples), max(len(s.tokens) for s in samples)
    mask = np.arange(shape[1]) < np.array([len(s.tokens) for s in samples])[:, None]
    out = {"mask": torch.from_numpy(mask)}
    for name in ("old_logps", "advantages", "ref_logps"):
        if getattr(samples[0], name) is not None:
            values = np.zeros(shape, np.float32)
            values[mask] = np.concatenate([getattr(s, name) for s in samples])
            out[name] = torch.from_numpy(values)
    return out
