"""Which row of which model's embedding goes where, when tokenizers or paddings differ.

Rows are matched by token; rows that belong to no token (padding) by their number. A model without a row for a token gets
the base's row, else that of the only model that has it, else the mean of those that have it; then the method runs.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from pt_tools.errors import BadModel, Usage
from pt_tools.merge.plan import Source

LARGEST_ID = 1 << 26
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")


class Vocabulary:
    """The tokenizer of a model directory. `rows`: rows of its embedding, None without one."""

    def __init__(self, path: Path, rows: int | None):
        self.path, self.rows = path, rows
        self.files = [path / name for name in FILES if (path / name).is_file()]

    @functools.cached_property
    def content(self) -> dict:
        """tokenizer.json without what does not touch ids."""
        try:
            content = json.loads((self.path / "tokenizer.json").read_bytes())
            if not isinstance(content.get("model"), dict):
                raise ValueError("it has no model")
            return {key: content.get(key) for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
        except (ValueError, AttributeError, RecursionError) as error:
            raise BadModel(f"cannot read tokenizer.json: {error}", str(self.path)) from error
        except OSError:
            raise BadModel("has no tokenizer.json to compare tokens by; save it with a fast tokenizer",
                           str(self.path)) from None

    @functools.cached_property
    def learned(self) -> dict[str, int]:
        """Token → id, without added tokens."""
        try:
            vocab = self.content["model"]["vocab"]
            return dict(vocab) if isinstance(vocab, dict) else {token: i for i, (token, _) in enumerate(vocab)}
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel("tokenizer.json has no vocabulary", str(self.path)) from error

    @functools.cached_property
    def added(self) -> dict[str, dict]:
        """Added token → its entry in tokenizer.json."""
        try:
            return {one["content"]: {**one, "id": one["id"]} for one in self.content["added_tokens"] or ()}
        except (KeyError, TypeError) as error:
            raise BadModel("tokenizer.json has an added token without content or id", str(self.path)) from error

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Token → id, with added tokens."""
        out = self.learned | {token: one["id"] for token, one in self.added.items()}
        if not all(type(i) is int and 0 <= i < LARGEST_ID for i in out.values()):
            raise BadModel("tokenizer.json has an id that is no whole number, or too large", str(self.path))
        return out

    def same(self, other: Vocabulary) -> bool:
        """Whether both turn text into the same ids."""
        if [f.name for f in self.files] == [f.name for f in other.files] and all(
                a.read_bytes() == b.read_bytes() for a, b in zip(self.files, other.files)):
            return True
        if not ((self.path / "tokenizer.json").is_file() and (other.path / "tokenizer.json").is_file()):
            return not self.files or not other.files  # a model without tokenizer is taken at its shapes
        return self.content == other.content

    def refuse_foreign(self, other: Vocabulary) -> None:
        """BadModel unless one vocabulary is the other with tokens added or reordered."""
        a, b = self.content, other.content
        differs = next((key for key in ("normalizer", "pre_tokenizer") if a[key] != b[key]), None)
        if a["model"].get("type") != b["model"].get("type"):
            differs = "model type"
        elif not (self.learned.keys() <= other.learned.keys() or other.learned.keys() <= self.learned.keys()):
            differs = "vocabulary"
        elif not _nested(a["model"].get("merges"), b["model"].get("merges")):
            differs = "merges"
        if differs:
            raise BadModel(f"its tokenizer is another than that of {self.path} ({differs}): rows of the embeddings do not "
                           "mean the same; transplant one vocabulary first (mergekit-tokensurgeon)", str(other.path))


def _nested(a, b) -> bool:
    a, b = a or [], b or []
    short, long = sorted((a, b), key=len)
    return long[:len(short)] == short


class Alignment:
    """The output's rows. `donor`: index of the model whose tokenizer goes out; `size`: rows, None to leave all as it is;
    `added`: tokens that the donor lacks, with their owner's entries and new ids; `note`: what was done, in words."""

    def __init__(self, donor: int, size=None, maps=(), added=None, note=None):
        self.donor, self.size, self.maps, self.added, self.note = donor, size, maps, added or {}, note

    def source(self, which: int, sources: list, base: int | None) -> Source:
        """The aligned tensor of model `which`; sources: that tensor of every model, None where it has none."""
        own = self.maps[which]
        missing = own < 0
        if not missing.any():
            return replace(sources[which], rows=own)
        has = [one >= 0 if source is not None else np.zeros(self.size, bool) for one, source in zip(self.maps, sources)]
        if base is not None:
            for j, mask in enumerate(has):
                if j != base:
                    mask &= ~has[base]
        share = 1.0 / np.maximum(np.sum(has, axis=0), 1).astype(np.float32)
        fill = tuple(replace(sources[j], rows=np.where(mask & missing, self.maps[j], -1), share=share)
                     for j, mask in enumerate(has) if (mask & missing).any())
        return replace(sources[which], rows=own, fill=fill)


def align(models: list[Vocabulary], base: int | None, choice: int | str | None, pad: int | None) -> Alignment:
    """Where the rows go. `choice`: index of the model whose tokenizer is taken, "union", or None (see `_donor`)."""
    first = 0 if base is None else base
    same = all(models[first].same(one) for one in models)
    known = [one.rows for one in models if one.rows is not None]
    if same and choice == "union":
        choice = None
    if same and (not known or len(set(known)) == 1 and (pad is None or known[0] % pad == 0)):
        return Alignment(first if choice is None else choice)
    if same:
        donor = first if choice is None else choice
        # Padding only: the larger, so that no row is lost, unless one model was chosen.
        size = max(known) if choice is None else models[donor].rows
        size = -(-size // pad) * pad if pad else size
        note = f"embeddings have {min(known)} to {max(known)} rows: {size} go out"
        return _alignment(donor, size, _by_id(models), {}, note)
    for one in models:
        models[first].refuse_foreign(one)
    donor, added = _donor(models, first, choice)
    ids = models[donor].ids | {token: one["id"] for token, one in added.items()}
    size = _size(models[donor], max(ids.values()) + 1, pad)
    note = f"tokenizers differ: that of {models[donor].path} goes out, {size} rows"
    note += f", {len(added)} tokens added" if added else ""
    return _alignment(donor, size, [_by_token(one, ids) for one in models], added, note)


def _alignment(donor, size, functions, added, note):
    return Alignment(donor, size, [function(size) for function in functions], added, note)


def _by_id(models):
    return [functools.partial(_numbered, one.rows or 0) for one in models]


def _numbered(rows: int, size: int) -> np.ndarray:
    out = np.arange(size)
    out[rows:] = -1
    return out


def _by_token(model: Vocabulary, ids: dict[str, int]):
    """A function: size → row of the model for every row of the output, -1 where it has none."""

    def rows(size):
        out, have = _numbered(model.rows or 0, size), model.rows or 0
        own = np.fromiter(model.ids.values(), np.int64, len(model.ids))
        out[own[own < size]] = -1  # rows of the model that belong to tokens are no padding
        for token, place in ids.items():
            row = model.ids.get(token, -1)
            out[place] = row if row < have else -1
        return out

    return rows


def _donor(models, first, choice):
    """The tokenizer that goes out: the chosen one; else the first, base before others, that knows all tokens."""
    every = {token for one in models for token in one.ids}
    if choice == "union":
        donor = models[first]
        added, place = {}, max(donor.ids.values()) + 1
        for one in models:
            extra = sorted(((i, token) for token, i in one.ids.items() if token not in donor.ids and token not in added))
            learned = next((token for _, token in extra if token in one.learned), None)
            if learned is not None:
                raise Usage(f"--tokenizer-from union: {learned!r} of {one.path} is no added token and cannot be added; "
                            f"choose --tokenizer-from {one.path}")
            for _, token in extra:
                added[token] = {**one.added[token], "id": place}
                place += 1
        return first, added
    if choice is not None:
        return choice, {}
    order = [first, *(i for i in range(len(models)) if i != first)]
    donor = next((i for i in order if models[i].ids.keys() >= every), None)
    if donor is None:
        raise Usage("no model's tokenizer knows the tokens of all; choose --tokenizer-from MODEL (drops tokens) or union")
    return donor, {}


def _size(donor: Vocabulary, tokens: int, pad: int | None) -> int:
    """Rows of the output: the donor's, where they are enough; else rounded up to the multiple to which its are padded."""
    rows = donor.rows or tokens
    if pad:
        return -(-tokens // pad) * pad
    if tokens <= rows:
        return rows
    multiple = rows & -rows if rows > max(donor.ids.values()) + 1 else 1
    multiple = min(multiple, 128)
    return -(-tokens // multiple) * multiple
