"""mergekit's YAML files, read as they are into a Spec; what is not supported is refused by name and line."""

from __future__ import annotations

import yaml

from pt_tools.errors import Usage
from pt_tools.merge.spec import Part, Settings, Slice, Spec, ref

TOP = {"merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
       "tokenizer", "chat_template", "name"}
DTYPES = {"float32", "bfloat16", "float16"}
WITHOUT_EFFECT = {"int8_mask"}  # saves memory there, changes nothing
DROPPING_NOTHING = {"task_arithmetic": {"density", "rescale"}}  # mergekit takes them and does nothing with them
RESCALE = {True: "l1", False: "none"}  # mergekit rescales differences by the measured L1 ratio …
RESCALED = {"dare_linear", "dare_ties", "della", "della_linear"}  # … and these unless told otherwise


class _Mapping(dict):
    """A mapping that knows the lines of its keys."""

    lines: dict


class _Loader(yaml.SafeLoader):
    pass


def _mapping(loader, node):
    own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]  # << may bring keys that stand here too
    out = _Mapping(loader.construct_mapping(node, deep=True))
    out.lines = {loader.construct_object(key, deep=True): key.start_mark.line + 1 for key in own}
    if len(out.lines) != len(own):
        raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
    return out


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read(path) -> Spec:
    """The merge that a file describes. Usage, with file and line, for what is not mergekit's or not supported here."""
    try:
        with open(path, encoding="utf-8") as file:
            top = yaml.load(file, _Loader)  # noqa: S506  (a SafeLoader)
        return _Reader(str(path)).spec(top)
    except OSError as error:
        raise Usage(f"cannot read: {error.strerror}", str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise Usage(f"not YAML: {getattr(error, 'problem', None) or error}", where) from None


class _Reader:
    def __init__(self, path: str):
        self.path = path

    def refuse(self, message: str, mapping=None, key=None):
        line = getattr(mapping, "lines", {}).get(key)
        raise Usage(message, f"{self.path}:{line}" if line else self.path)

    def keys(self, mapping, allowed: set, what: str):
        if not isinstance(mapping, dict):
            self.refuse(f"{what} is not a mapping")
        for key in mapping:
            if key not in allowed:
                self.refuse(f"{what}: key {key!r} is not supported", mapping, key)

    def spec(self, top) -> Spec:
        self.keys(top, TOP, "the merge")
        if not isinstance(top.get("merge_method"), str):
            self.refuse("merge_method is missing")
        if ("models" in top) == ("slices" in top):
            self.refuse("exactly one of models and slices must be given")
        self.idle = WITHOUT_EFFECT | DROPPING_NOTHING.get(top["merge_method"], set())
        tokenizer, pad = self.tokenizer(top)
        settings = self.settings(top)
        if top["merge_method"] in RESCALED:
            settings["rescale"] = (*settings.get("rescale", ()), ("", "l1"))
        return Spec(top["merge_method"], self.slices(top), self.model(top, "base_model") if top.get("base_model") else None,
                    settings, self.dtype(top), tokenizer, pad, self.word(top, "chat_template"))

    def slices(self, top) -> tuple[Slice, ...]:
        if "models" in top:
            return (Slice(tuple(self.part(one, {"model", "parameters"}) for one in self.list(top, "models"))),)
        out = []
        for one in self.list(top, "slices"):
            self.keys(one, {"sources", "parameters"}, "a slice")
            parts = tuple(self.part(p, {"model", "layer_range", "parameters"}) for p in self.list(one, "sources"))
            if any(part.layers is None for part in parts):
                self.refuse("every source of a slice needs a layer_range", one, "sources")
            out.append(Slice(parts, self.settings(one)))
        return tuple(out)

    def list(self, mapping, key) -> list:
        value = mapping.get(key)
        if not isinstance(value, list) or not value:
            self.refuse(f"{key} is not a list with entries", mapping, key)
        return value

    def part(self, one, allowed) -> Part:
        self.keys(one, allowed, "a model")
        layers = one.get("layer_range")
        if layers is not None and not (isinstance(layers, list) and len(layers) == 2 and all(type(n) is int for n in layers)
                                       and 0 <= layers[0] < layers[1]):
            self.refuse("layer_range is not [first, after the last]", one, "layer_range")
        return Part(self.model(one, "model"), tuple(layers) if layers else None, self.settings(one))

    def model(self, mapping, key):
        name = mapping.get(key)
        if not isinstance(name, str) or not name:
            self.refuse(f"{key} is not the name of a model", mapping, key)
        return ref(name)

    def word(self, mapping, key) -> str | None:
        value = mapping.get(key)
        if value is not None and not isinstance(value, str):
            self.refuse(f"{key} is not a string", mapping, key)
        return value

    def dtype(self, top) -> str | None:
        for key in ("out_dtype", "dtype"):
            name = self.word(top, key)
            if name is not None and name not in DTYPES:
                self.refuse(f"{key} {name} is not supported; one of {', '.join(sorted(DTYPES))}", top, key)
        return self.word(top, "out_dtype") or self.word(top, "dtype")

    def tokenizer(self, top) -> tuple[str | None, int | None]:
        if "tokenizer" not in top:
            return self.word(top, "tokenizer_source"), None
        if "tokenizer_source" in top:
            self.refuse("tokenizer and tokenizer_source exclude each other", top, "tokenizer_source")
        self.keys(top["tokenizer"], {"source", "pad_to_multiple_of"}, "tokenizer")
        pad = top["tokenizer"].get("pad_to_multiple_of")
        if pad is not None and (type(pad) is not int or pad < 1):
            self.refuse("pad_to_multiple_of is not a whole number above 0", top["tokenizer"], "pad_to_multiple_of")
        source = top["tokenizer"].get("source", "union")
        source = source.get("model") if isinstance(source, dict) and set(source) == {"model"} else source
        if not isinstance(source, str):
            self.refuse("source is not base, union or the name of a model", top["tokenizer"], "source")
        return source, pad

    def settings(self, mapping) -> Settings:
        table = mapping.get("parameters")
        if table is None:
            return {}
        if not isinstance(table, dict):
            self.refuse("parameters is not a mapping", mapping, "parameters")
        return {str(name): self.setting(name, value, table) for name, value in table.items() if name not in self.idle}

    def setting(self, name, value, table) -> tuple:
        value = [value] if isinstance(value, dict) else value
        if not (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
            return (("", self.value(name, value, table)),)
        out = []
        for one in value:
            if not isinstance(one, dict):
                out.append(("", self.value(name, one, table)))
                continue
            self.keys(one, {"filter", "value"}, f"parameter {name}")
            if "value" not in one or not isinstance(one.get("filter", ""), str | None):
                self.refuse(f"parameter {name}: an entry needs a value, and a filter that is a string", table, name)
            fits = one.get("filter") or ""
            out.append(("" if fits == "*" else fits, self.value(name, one["value"], table)))
        return tuple(out)

    def value(self, name, value, table):
        if isinstance(value, list):
            if not value:
                self.refuse(f"parameter {name} is empty", table, name)
            return tuple(self.number(name, one, table) for one in value)
        if name == "rescale" and isinstance(value, bool):
            return RESCALE[value]
        return value if isinstance(value, bool) else self.number(name, value, table)

    def number(self, name, value, table):
        try:
            if isinstance(value, bool):
                raise ValueError(value)
            return value if isinstance(value, int) else float(value)  # YAML 1.1 takes 1e-5 for a word
        except (TypeError, ValueError):
            if name == "rescale" and value in ("inverse", "l1", "none"):
                return value
            self.refuse(f"parameter {name}: {value!r} is not a number", table, name)
