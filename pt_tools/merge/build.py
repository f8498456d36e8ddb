"""From what is asked for to a plan: tensors of all models matched by name, each with its sources and parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pt_tools.errors import BadModel, Usage
from pt_tools.merge import directory, numbers, vocabulary
from pt_tools.merge.directory import DTYPES, Model, layer_of
from pt_tools.merge.method import Method, Parameters
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.simple import Copy
from pt_tools.merge.spec import Part, Ref, Slice, Spec, lookup
from pt_tools.merge.tensors import Tensor

COMPARED = 1 << 20  # bytes of integer tensors compared at a time
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Built:
    """A plan and the files around it: `config` of the output, the tokenizer's `donor`, tokens `added` to it, `notes`."""

    plan: Plan
    config: dict
    donor: Model
    added: dict
    chat_template: str | None
    notes: list[str]


@dataclass(frozen=True)
class _Row:
    """One output tensor before its sources are looked at: names in the parts' models, its slice, and its depth: 0 for
    the first layer and for what is in no layer (as in mergekit), 1 for the last layer."""

    name: str
    names: tuple[str, ...]
    base: str | None
    depth: float
    slice: Slice


def build(spec: Spec, method: Method, *, shard_size: int, seed: int) -> Built:
    """Usage for a merge that cannot be meant, BadModel for models that do not fit; tensors and models are named."""
    return _Builder(checked(spec, method), method).built(shard_size, seed)


def checked(spec: Spec, method: Method) -> Spec:
    """The spec with the base in its place. Usage for what can be seen without opening a model."""
    spec = _arranged(spec, method)
    _check_settings(spec, method)
    return spec


def _arranged(spec: Spec, method: Method) -> Spec:
    """The base out of the models where the method has one; in front of them where it counts as the first (slerp)."""
    if method.base == "required" and spec.base is None:
        raise Usage(f"{method.name} needs a base model")
    return replace(spec, slices=tuple(_arranged_slice(one, spec.base, method) for one in spec.slices))


def _arranged_slice(one: Slice, base: Ref | None, method: Method) -> Slice:
    parts, layers = one.parts, None
    if base is not None and method.base != "none":
        layers = next((part.layers for part in parts if part.model == base), None)
        if parts[0].layers and layers is None:
            raise Usage(f"a slice has no layer range for the base {base}")
        parts = tuple(part for part in parts if part.model != base)
    elif base is not None and method.name == "slerp":
        if base not in [part.model for part in parts]:
            parts = (Part(base, parts[0].layers), *parts)
        parts = tuple(sorted(parts, key=lambda part: part.model != base))
    least, most = method.models
    if len(parts) < least or (most is not None and len(parts) > most):
        many = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        beside = " beside the base" if method.base == "required" else ""
        raise Usage(f"{method.name} takes {many} model{'s' * (many != '1')}{beside}, not {len(parts)}")
    return Slice(parts, one.settings, layers)


def _check_settings(spec: Spec, method: Method) -> None:
    """Every parameter named is one of the method's, at a level where it means something."""
    levels = [(spec.settings, False)] + [(one.settings, False) for one in spec.slices]
    levels += [(part.settings, True) for one in spec.slices for part in one.parts]
    for settings, of_model in levels:
        for name in settings:
            if name not in method.own and name not in method.shared:
                known = ", ".join(sorted({*method.own, *method.shared})) or "none"
                raise Usage(f"{method.name} has no parameter {name} (it has: {known})")
            if of_model and name not in method.own:
                raise Usage(f"{name} is a parameter of the merge, not of one model")


class _Builder:
    def __init__(self, spec: Spec, method: Method):
        self.spec, self.method, self.known = spec, method, {}
        self.refs = spec.models()
        self.models, self.notes = directory.opened(self.refs)
        self.by_ref = dict(zip(self.refs, self.models))
        self.base = None if spec.base is None else 0
        self.uses_base = spec.base is not None and method.base != "none"
        self.alignment = vocabulary.align([m.vocabulary for m in self.models], self.base, self._choice(),
                                          spec.pad_to_multiple_of)
        self.donor = self.models[self.alignment.donor]
        if self.alignment.note:
            self.notes.append(self.alignment.note)
        # A head of its own goes out only if some model has one that it uses; tied ones only seem to have it in the file.
        self.tied = not any(m.head and not m.tied for m in self.models)

    def _choice(self):
        wanted = self.spec.tokenizer
        if wanted is None or wanted == "union":
            return wanted
        if wanted == "base":
            return 0
        found = next((i for i, ref in enumerate(self.refs) if wanted.rstrip("/") == ref.path), None)
        if found is None:
            raise Usage(f"--tokenizer-from: {wanted} is none of the models ({', '.join(map(str, self.refs))})")
        return found

    def built(self, shard_size: int, seed: int) -> Built:
        items = [item for item in map(self.item, self.rows()) if item is not None]
        if not items:
            raise BadModel("no tensors to merge", str(self.models[0]))
        rows = self.alignment.size
        if any(m.rows != self.donor.rows for m in self.models) and rows is None:
            rows = self.donor.rows
        directory.check_special(self.donor, rows if rows is not None else self.donor.rows)
        config = directory.edited(self.models[0].config, self.donor, dtype=self._dtype(items), rows=rows,
                                  layers=self._layers(), tied=self.tied)
        self.notes += directory.differences(self.models) + directory.special_notes(self.models, self.donor)
        return Built(Plan(items, shard_size=shard_size, seed=seed), config, self.donor, self.alignment.added,
                     self._template(), self.notes)

    def _dtype(self, items) -> str:
        """The format of most of the output."""
        sizes: dict[str, int] = {}
        for item in items:
            sizes[item.dtype] = sizes.get(item.dtype, 0) + int(np.prod(item.shape, dtype=object))
        return max(sizes, key=sizes.get)

    def _template(self) -> str | None:
        wanted = self.spec.chat_template
        if wanted is None:
            donor, others = directory.template_of(self.donor), [m for m in self.models if directory.template_of(m)]
            if donor is None and others:
                self.notes.append(f"{self.donor} has no chat template, {others[0]} has one: "
                                  f"--tokenizer-from {others[0]} takes it")
            return None
        if wanted == "auto":
            found = [t for t in map(directory.template_of, self.models) if t]
            return max(found, key=found.count) if found else None
        if "{{" not in wanted and "{%" not in wanted:
            raise Usage(f"chat_template {wanted!r} is not a Jinja template; mergekit's built-in names are not supported")
        return wanted

    # --- which tensors ------------------------------------------------------------------------------------------

    def rows(self) -> list[_Row]:
        """Every output tensor, in the order of the first model's files."""
        if self.spec.slices[0].parts[0].layers is None:
            return self._whole(self.spec.slices[0])
        first, last, out = self.spec.slices[0], self.spec.slices[-1], []
        stack = self.stack(self.by_ref[first.parts[0].model])
        for name in self._names(first):
            place = layer_of(name)
            if place is None or place[0] != stack:
                one = first if directory.EARLY.search(name) else last
                out.append(_Row(name, (name,) * len(one.parts), name if self.uses_base else None, 0.0, one))
        offset = 0
        for one in self.spec.slices:
            out += self._layered(one, stack, offset)
            offset += one.parts[0].layers[1] - one.parts[0].layers[0]
        return out

    def _names(self, one: Slice) -> list[str]:
        models = [self.by_ref[part.model] for part in one.parts] + ([self.models[0]] if self.uses_base else [])
        return list(dict.fromkeys(name for model in models for name in model.tensors))

    def _whole(self, one: Slice) -> list[_Row]:
        names = self._names(one)
        counts: dict[str, int] = {}
        for place in filter(None, map(layer_of, names)):
            counts[place[0]] = max(counts.get(place[0], 0), place[1] + 1)
        out = []
        for name in names:
            place, depth = layer_of(name), 0.0
            if place is not None:
                depth = place[1] / (counts[place[0]] - 1) if counts[place[0]] > 1 else 1.0
            out.append(_Row(name, (name,) * len(one.parts), name if self.uses_base else None, depth, one))
        return out

    def stack(self, model: Model) -> str:
        """The prefix of the layers that layer ranges count: as many as the configuration says, else the most."""
        seen: dict[str, set] = {}
        for place in filter(None, map(layer_of, model.tensors)):
            seen.setdefault(place[0], set()).add(place[1])
        text = directory.text_part(model.config)
        wanted = text.get(directory.depth_key(text))
        if not seen:
            raise BadModel("has no numbered layers", str(model))
        return max(seen, key=lambda prefix: (len(seen[prefix]) == wanted, len(seen[prefix])))

    def _layered(self, one: Slice, stack: str, offset: int) -> list[_Row]:
        ranges = [part.layers for part in one.parts]
        base = one.base_layers
        lengths = {last - first for first, last in [*ranges, *([base] if base else [])]}
        if len(lengths) != 1:
            raise Usage("the layer ranges of a slice differ in length")
        (length,), out = lengths, []
        for part in one.parts:
            there = {p[1] for p in map(layer_of, self.by_ref[part.model].tensors) if p and p[0] == stack}
            if not set(range(*part.layers)) <= there:
                raise Usage(f"{part.model} has layers 0 to {max(there, default=-1)}; "
                            f"{part.layers[0]}-{part.layers[1]} asks for more")
        for index in range(length):
            depth = index / (length - 1) if length > 1 else 1.0
            rest = [[p[2] for p in map(layer_of, self.by_ref[part.model].tensors)
                     if p and p[:2] == (stack, part.layers[0] + index)] for part in one.parts]
            for tail in dict.fromkeys(tail for tails in rest for tail in tails):
                names = tuple(f"{stack}.{first + index}.{tail}" for first, _ in ranges)
                out.append(_Row(f"{stack}.{offset + index}.{tail}", names,
                                f"{stack}.{base[0] + index}.{tail}" if base else None, depth, one))
        return out

    def _layers(self) -> list[int] | None:
        if self.spec.slices[0].parts[0].layers is None:
            return None
        return [n for one in self.spec.slices for n in range(*one.parts[0].layers)]

    # --- one tensor ---------------------------------------------------------------------------------------------

    def item(self, row: _Row) -> Item | None:
        models = [self.by_ref[part.model] for part in row.slice.parts]
        head = directory.is_head(row.name)
        if head and self.tied and row.name.endswith("weight") and all(m.head in (None, row.name) for m in models):
            return None
        wanted = list(zip(models, row.names)) + ([(self.models[0], row.base)] if row.base else [])
        tensors = [self._tensor(model, name) for model, name in wanted]
        missing = [str(model) for (model, _), tensor in zip(wanted, tensors) if tensor is None]
        if missing:
            raise BadModel(f"tensor {row.name} is not in {', '.join(missing)}, but in other models")
        aligned = self.alignment.size is not None and all(m.of_vocabulary(t.name) for (m, _), t in zip(wanted, tensors))
        sources = [self._source(model, name, tensor, aligned) for (model, name), tensor in zip(wanted, tensors)]
        shape = (self.alignment.size, *tensors[0].shape[1:]) if aligned else tensors[0].shape
        for (model, _), tensor in zip(wanted, tensors):
            if (tensor.shape[1:], len(tensor.shape)) != (shape[1:], len(shape)) or (not aligned and tensor.shape != shape):
                raise BadModel(f"tensor {row.name} is {list(tensors[0].shape)} in {wanted[0][0]} and "
                               f"{list(tensor.shape)} in {model}")
        if tensors[0].dtype not in numbers.FLOATS:
            self._refuse_unequal(row.name, wanted, tensors)
            return Item(row.name, tensors[0].dtype, shape, (sources[0],), None, Parameters(({},), {}), Copy())
        base = sources.pop() if row.base else None
        dtype = DTYPES[self.spec.dtype] if self.spec.dtype else (base or sources[0]).tensor.dtype
        return Item(row.name, dtype, shape, tuple(sources), base, self._parameters(row), self.method)

    def _key(self, model: Model, name: str) -> str:
        """The name of a model's tensor; the embedding for the head that a tied model does not store or does not use."""
        if directory.is_head(name) and name.endswith("weight") and not self.tied and model.tied and model.embedding:
            return model.embedding
        return name

    def _tensor(self, model: Model, name: str) -> Tensor | None:
        return model.tensors.get(self._key(model, name))

    def _source(self, model: Model, name: str, tensor: Tensor, aligned: bool) -> Source:
        if not aligned:
            return model.source(self._key(model, name))
        which = self.models.index(model)
        return self.alignment.source(which, [one.source(self._key(one, name)) for one in self.models], self.base)

    def _refuse_unequal(self, name, wanted, tensors):
        """Integers and truth values have no mean: all models must have the same."""
        (first, _), one = wanted[0], tensors[0]
        for (model, _), other in zip(wanted[1:], tensors[1:]):
            same = one.dtype == other.dtype and one.nbytes == other.nbytes and all(
                _bytes(first, one, at) == _bytes(model, other, at) for at in range(0, one.nbytes, COMPARED))
            if not same:
                raise BadModel(f"tensor {name} ({one.dtype}) differs between {first} and {model}; "
                               "only equal integers can be merged")

    def _parameters(self, row: _Row) -> Parameters:
        def value(levels, name, default, tensor):
            found = lookup(levels, name, tensor, row.depth)
            if found is None and default is ...:
                raise Usage(f"{self.method.name} needs {name}" + ("" if levels == [] else f" (for tensor {row.name})"))
            return default if found is None else _of_kind(name, found, default)

        own = tuple({name: value([part.settings, row.slice.settings, self.spec.settings], name, default, tensor)
                     for name, default in self.method.own.items()} for part, tensor in zip(row.slice.parts, row.names))
        shared = {name: value([row.slice.settings, self.spec.settings], name, default, row.name)
                  for name, default in self.method.shared.items()}
        key = repr((own, shared))
        if key not in self.known:  # the same object for all tensors with the same values
            self.known[key] = Parameters(own, shared)
            try:
                self.method.check(self.known[key])
            except ValueError as error:
                raise Usage(f"{self.method.name}: {error}") from None
        return self.known[key]


def _of_kind(name: str, value, default):
    """The value, 0 and 1 as truth values where these are meant; Usage if it is of another kind than the default."""
    if isinstance(default, str):
        fits, wanted = isinstance(value, str), "a word"
    elif isinstance(default, bool):
        fits, wanted = isinstance(value, int | float) and value in (0, 1), "true or false"
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, wanted = number and abs(value) <= LARGEST, "a number of float32"
    if not fits:
        raise Usage(f"{name}: {value!r} is not {wanted}")
    return bool(value) if isinstance(default, bool) else value


def _bytes(model: Model, tensor: Tensor, at: int) -> bytes:
    size = numbers.SIZES[tensor.dtype]
    count = min(COMPARED, tensor.nbytes - at) // size
    buffer = np.empty(count * size, np.uint8)
    model.checkpoint.read_into(tensor, at // size, count, buffer)
    return buffer.tobytes()
