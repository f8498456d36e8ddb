"""LoRA adapters as the peft library stores them, and the dense model that one makes of its base.

A module's weight W becomes W + s·B·A with s = alpha / r, or alpha / sqrt(r) with rank-stabilised scaling
(rsLoRA); with DoRA it becomes m · (W + s·B·A) / ‖W + s·B·A‖, the norm taken over the input axis. Everything is fp32 and
added to the blocks of W as they are read: neither W nor its change is ever in memory as a whole.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from pt_tools.errors import BadModel, Usage
from pt_tools.merge import tensors
from pt_tools.merge.lora_delta import Chain, Dora, Factors, LowRank, Rows, Vector
from pt_tools.merge.method import Parameters
from pt_tools.merge.plan import Item, Plan, Source
from pt_tools.merge.simple import Copy

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
PART = re.compile(r"(?P<module>.*)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
                  r"(\.(?!weight$|bias$)[^.]+)?(\.(?P<field>weight|bias))?$")
ROWS = re.compile(r"(?P<module>.*)\.token_adapter\.trainable_tokens_delta$")
WHOLE = re.compile(r"(?P<module>.*?)(\.base_layer|\.modules_to_save(\.(?!weight$|bias$)[^.]+)?)?"
                   r"\.(?P<field>[^.]+)$")
FOREIGN = re.compile(r"\.((lora|ada|hada|lokr|vera|oft|boft|ia3)_[A-Za-z]\w*|token_adapter)\b")
# Variants whose weights mean something else.
OTHERWISE = ("use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "velora_config", "kasa_config",
             "monteclora_config", "layer_replication", "target_parameters")
MOVED_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga|mica")  # initialisations that change the base's weights


@dataclass
class Module:
    """What an adapter has for one module: `parts` (name → tensor), `rank`, and the `scale` of B·A."""

    name: str
    rank: int = 0
    scale: float = 1.0
    parts: dict = field(default_factory=dict)

    @property
    def embedding(self) -> bool:
        return "lora_embedding_A" in self.parts

    @property
    def a(self) -> tensors.Tensor:
        """(rank, in): or (rank, vocabulary) for an embedding."""
        return self.parts["lora_embedding_A" if self.embedding else "lora_A"]

    @property
    def b(self) -> tensors.Tensor:
        """(out, rank): or (dimension, rank) for an embedding."""
        return self.parts["lora_embedding_B" if self.embedding else "lora_B"]


class Adapter:
    """An adapter directory: `modules` with low-rank parts, `whole` tensors that replace the base's, `rows` of them.

    Refused (`BadModel`): pickle weights, other kinds than LoRA, variants that no dense weights equal, parts that lack
    their counterpart or whose rank is not the configuration's.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.config = read_config(self.path)
        if not (self.path / WEIGHTS).is_file():
            if (self.path / "adapter_model.bin").exists():
                raise BadModel("adapter_model.bin: pickle weights are not read", str(path))
            raise BadModel(f"no {WEIGHTS}", str(path))
        self.store = tensors.Checkpoint(self.path / WEIGHTS)
        self.modules: dict[str, Module] = {}
        self.whole: dict[str, tensors.Tensor] = {}
        self.rows: dict[str, tensors.Tensor] = {}
        for name, tensor in self.store.tensors.items():
            self._sort(name.removeprefix(PREFIX), tensor)
        for module in self.modules.values():
            self._complete(module)
        if not (self.modules or self.whole or self.rows):
            self._refuse("it is empty")

    def _sort(self, name: str, tensor) -> None:
        """Put one stored tensor where it belongs."""
        if part := PART.match(name):
            module = self.modules.setdefault(part["module"], Module(part["module"]))
            key = part["part"] + (".bias" if part["field"] == "bias" else "")
            if key in module.parts:
                self._refuse(f"two tensors are {key} of {module.name}")
            module.parts[key] = tensor
        elif rows := ROWS.match(name):
            self.rows[rows["module"] + ".weight"] = tensor
        elif FOREIGN.search(name):
            self._refuse(f"tensor {name} is of a kind that cannot be baked (LoRA, rsLoRA, DoRA and whole modules can)")
        elif whole := WHOLE.match(name):
            self.whole[f"{whole['module']}.{whole['field']}"] = tensor
        else:
            self.whole[name] = tensor

    def _complete(self, module: Module) -> None:
        """Check that a module's parts belong together; find its rank and scale."""
        kind = "lora_embedding_" if module.embedding else "lora_"
        for part in (kind + "A", kind + "B"):
            if part not in module.parts:
                self._refuse(f"module {module.name} has no {part}")
        if ("lora_magnitude_vector" in module.parts) != bool(self.config.get("use_dora")):
            self._refuse(f"module {module.name}: a magnitude vector goes with use_dora, and only with it")
        strange = module.parts.keys() - {kind + "A", kind + "B", "lora_B.bias", "lora_magnitude_vector"}
        if strange:
            self._refuse(f"module {module.name} has {min(strange)} too")
        module.rank = self._of(module, "r", "rank_pattern")
        alpha = self._of(module, "lora_alpha", "alpha_pattern")
        stored = (module.a.shape[:1], module.b.shape[1:2])
        if stored != ((module.rank,), (module.rank,)) or not module.rank:
            self._refuse(f"module {module.name}: {CONFIG} says rank {module.rank}, its tensors have the shapes "
                         f"{list(module.a.shape)} and {list(module.b.shape)}")
        module.scale = alpha / (math.sqrt(module.rank) if self.config.get("use_rslora") else module.rank)

    def _of(self, module: Module, name: str, patterns: str):
        """A number of the configuration for one module: that of the first pattern which the end of the module's name
        matches, from a dot on, as peft matches; else the general one."""
        value, table = self.config.get(name, 8), self.config.get(patterns) or {}
        try:
            value = next((v for p, v in table.items() if re.match(rf"(.*\.)?({p})$", module.name)), value)
        except (AttributeError, re.error):
            self._refuse(f"{patterns} in {CONFIG} is no table of patterns")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._refuse(f"{name} in {CONFIG} is no number for module {module.name}")
        return value

    def _refuse(self, reason: str):
        raise BadModel(reason, str(self.path))

    def close(self) -> None:
        self.store.files.close()


def read_config(path: Path) -> dict:
    """adapter_config.json, after refusing by name what cannot be baked."""
    if not (path / CONFIG).is_file():
        raise Usage(f"{path} is no adapter directory: no {CONFIG}")
    try:
        config = json.loads((path / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{CONFIG}: {error}", str(path)) from error
    if config.get("peft_type") != "LORA":
        raise BadModel(f"peft_type {config.get('peft_type')} is not supported; LORA is", str(path))
    for name in OTHERWISE:
        if config.get(name):
            raise BadModel(f"{name} in {CONFIG} is not supported: its weights are no plain low-rank change", str(path))
    start = config.get("init_lora_weights")
    if isinstance(start, str) and MOVED_BASE.match(start):
        raise BadModel(f"init_lora_weights {start} changed the base's own weights; convert it to plain LoRA first "
                       "(save_pretrained with path_initial_model_for_weight_conversion)", str(path))
    return config


# --- a base and its adapter ---------------------------------------------------------------------------------------


def adapted(sources: dict[str, Source], adapter: Adapter, config: dict) -> tuple[dict[str, Source], dict]:
    """The sources of base + adapter, by tensor name, and the keys of config.json that change.

    `sources` are the base's (themselves perhaps with a delta: adapters add up in order), `config` its config.json.
    Modules are found by tensor name, also when the adapter was trained with a longer or shorter prefix. Where the
    head is tied to the embedding and the adapter changes only one of them, as peft's forward pass does, the result has
    a head of its own. `BadModel` names what matches nothing or has another shape.
    """
    heads = _Tied(sources, adapter, config)
    out = dict(heads.sources)
    for name, tensor in adapter.whole.items():
        target = _find(out, name, adapter, missing=f"{name} replaces no tensor of the base")
        if tensor.shape != out[target].tensor.shape and not _resized(tensor.shape, out[target].tensor.shape):
            adapter._refuse(f"{name}: shape {list(tensor.shape)}, in the base {list(out[target].tensor.shape)}")
        out[target] = Source(replace(tensor, name=target))
    for name, tensor in adapter.rows.items():
        target = _find(out, name, adapter, missing=f"the rows of {name} match no tensor of the base")
        out[target] = _with(out[target], Rows(tensor, _indices(adapter, name, tensor), out[target].tensor))
    for module in adapter.modules.values():
        _low_rank(out, module, adapter)
    return heads.finish(out)


def _low_rank(out: dict[str, Source], module: Module, adapter: Adapter) -> None:
    target = _find(out, f"{module.name}.weight", adapter, missing=f"module {module.name} matches no tensor of the base")
    source = out[target]
    factors = _factors(module, source.tensor.shape, adapter)
    if "lora_magnitude_vector" in module.parts:
        by_rows = not (factors.transposed or module.embedding)
        delta = Dora(factors, module.parts["lora_magnitude_vector"], source, by_rows)
        if math.prod(delta.magnitude.shape) != delta.length:
            adapter._refuse(f"module {module.name}: magnitudes {list(delta.magnitude.shape)}, not {delta.length}")
        out[target] = Source(source.tensor, source.rows, delta=delta)  # it has what came before inside
    else:
        out[target] = _with(source, LowRank(factors))
    if bias := module.parts.get("lora_B.bias"):
        place = target.removesuffix("weight") + "bias"
        if place not in out:
            adapter._refuse(f"module {module.name} has a bias to add, the base has none")
        if out[place].tensor.shape != bias.shape:
            adapter._refuse(f"{place}: shape {list(bias.shape)}, in the base {list(out[place].tensor.shape)}")
        out[place] = _with(out[place], Vector(bias, module.scale))


def _factors(module: Module, shape: tuple[int, ...], adapter: Adapter) -> Factors:
    """The factors of the change in the base's orientation: (out, in), or (in, out) for a transposed layer (Conv1D)."""
    rows, columns = shape[0] if shape else 0, math.prod(shape[1:])
    outs, ins = module.b.shape[0], math.prod(module.a.shape[1:])
    plain = (rows, columns) == (outs, ins) and shape[1:] == module.a.shape[1:] and not module.embedding
    turned = (rows, columns) == (ins, outs) and len(shape) == 2
    if math.prod(module.b.shape) != outs * module.rank or not (plain or turned):
        adapter._refuse(f"module {module.name}: its change is {outs} × {ins}, the base's tensor {list(shape)}")
    prefer = module.embedding or bool(adapter.config.get("fan_in_fan_out"))
    return Factors(module.a, module.b, module.scale, turned and (prefer or not plain))


def _with(source: Source, delta) -> Source:
    return Source(source.tensor, source.rows, delta=delta if source.delta is None else Chain((source.delta, delta)))


def _find(out: dict, name: str, adapter: Adapter, missing: str) -> str:
    """The base's tensor of that name, or the only one whose name is its end or has it as its end."""
    if name in out:
        return name
    near = [other for other in out if other.endswith("." + name) or name.endswith("." + other)]
    if len(near) > 1:
        adapter._refuse(f"{name} could be {near[0]} or {near[1]} of the base")
    if not near:
        adapter._refuse(missing)
    return near[0]


def _resized(new: tuple, old: tuple) -> bool:
    """Whether a matrix has only more or fewer rows: a vocabulary that was resized."""
    return len(new) == len(old) == 2 and new[1] == old[1]


def _indices(adapter: Adapter, name: str, tensor) -> list[int]:
    given = adapter.config.get("trainable_token_indices")
    if isinstance(given, dict):
        module = name.removesuffix(".weight")
        found = [rows for key, rows in given.items() if module == key or module.endswith("." + key)]
        given = found[0] if len(found) == 1 else None
    if not isinstance(given, list) or len(given) != tensor.shape[0]:
        adapter._refuse(f"trainable_token_indices does not say which rows of {name} are meant")
    return given


# --- tied heads ---------------------------------------------------------------------------------------------------


class _Tied:
    """A base without a head of its own: the head's source is the embedding's until it is known that they differ."""

    HEAD, EMBEDDING = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$"), re.compile(
        r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")

    def __init__(self, sources: dict[str, Source], adapter: Adapter, config: dict):
        text = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
        self.config, self.adapter, self.sources = config, adapter, dict(sources)
        embeddings = [name for name in sources if self.EMBEDDING.search(name)]
        tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", bool(config)))
        own = any(self.HEAD.search(name) for name in sources)
        self.embedding = embeddings[0] if tied and not own and len(embeddings) == 1 else None
        if self.embedding:
            self.sources["lm_head.weight"] = sources[self.embedding]

    def finish(self, out: dict[str, Source]) -> tuple[dict[str, Source], dict]:
        """Drop the head again if it is still the embedding; else the model is not tied any more."""
        changes = {}
        if self.embedding:
            head, embedding = out["lm_head.weight"], out[self.embedding]
            if self._same(head, embedding):
                del out["lm_head.weight"]
            else:
                changes["tie_word_embeddings"] = False
        resized = {source.tensor.shape[0] for name, source in out.items() if self.EMBEDDING.search(name)
                   and source.tensor.path == str(self.adapter.path / WEIGHTS)}
        if len(resized) == 1 and "vocab_size" in self.config and resized != {self.config["vocab_size"]}:
            changes["vocab_size"] = min(resized)
        return out, changes

    def _same(self, head: Source, embedding: Source) -> bool:
        """Whether the adapter left both as they were, changed them alike, or was trained with them tied."""
        if head is embedding or self.adapter.config.get("ensure_weight_tying"):
            return True
        if isinstance(embedding.delta, Rows) and head is self.sources["lm_head.weight"]:
            return True  # peft keeps trainable tokens tied
        if head.delta or embedding.delta or head.tensor.nbytes != embedding.tensor.nbytes:
            return False
        return tensors.bytes_digest(head.tensor) == tensors.bytes_digest(embedding.tensor)


def bake(base, adapters, shard_size: int = 5_000_000_000) -> tuple[Plan, dict]:
    """The plan of base + adapters (directories, in order) as a dense model in the base's formats, and its config.json.

    Raises as `Adapter` and `adapted`; run the plan with `engine.run`.
    """
    checkpoint = tensors.Checkpoint(base)
    config = checkpoint.config
    sources = {name: Source(tensor) for name, tensor in checkpoint.tensors.items()}
    for path in adapters:
        sources, changes = adapted(sources, Adapter(path), config)
        config = changed(config, changes)
    items = []
    for name, source in sources.items():
        old = checkpoint.tensors.get(name)
        dtype = old.dtype if old else source.tensor.dtype
        items.append(Item(name, dtype, source.tensor.shape, (source,), None, Parameters(({},), {}), Copy()))
    return Plan(items, shard_size=shard_size), config


def changed(config: dict, changes: dict) -> dict:
    """A configuration with keys changed where they are: in its text part if they are there."""
    config = json.loads(json.dumps(config))
    text = config.get("text_config")
    for key, value in changes.items():
        (text if isinstance(text, dict) and key in text else config)[key] = value
        if key in config:
            config[key] = value
    return config
