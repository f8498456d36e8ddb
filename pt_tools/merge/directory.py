"""Model directories around their tensors: what is opened, and what goes into the output beside weights."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from pathlib import Path

from pt_tools.errors import BadModel, Usage
from pt_tools.files import read_json, to_json
from pt_tools.merge import lora
from pt_tools.merge.plan import Source
from pt_tools.merge.spec import Ref
from pt_tools.merge.tensors import Checkpoint, bytes_digest, read_config
from pt_tools.merge.vocabulary import Vocabulary

FROM_TOKENIZER = re.compile(r"(tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json"
                            r"|merges\.txt|vocab\.txt|tokenizer\.model|spiece\.model|chat_template\.(jinja|json)"
                            r"|generation_config\.json|(pre|video_pre|)processor(_config)?\.json|preprocessor_config\.json"
                            r"|video_preprocessor_config\.json)")
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]  # of a model on the hub
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# What two configurations may differ in without meaning another computation.
HARMLESS = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "vocab_size", "tie_word_embeddings",
            *DEPTHS, "layer_types", "architectures", "id2label", "label2id", "max_window_layers", *SPECIAL}
EMBEDDING = re.compile(r"(^|[._])(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|embeddings?|embed|shared)"
                       r"\.weight$")
EARLY = re.compile(r"emb|wte|wpe|shared")  # what stands before the layers
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.(weight|bias)$")


class Model:
    """An opened model: `config`, `tensors` (name → Tensor), `embedding` (its name or None), `vocabulary`.

    `home` is where its configuration and tokenizer are: a checkpoint of a training run has none and uses the `lender`'s.
    """

    def __init__(self, ref: Ref, lender: Path | None = None):
        self.ref, self.path = ref, resolve(ref.path)
        self.home = self.path if has_config(self.path) else lender
        if self.home is None:
            raise BadModel("not a model directory: no config.json", str(self.path))
        self.checkpoint = Checkpoint(self.path)
        self.config = self.checkpoint.config if self.home == self.path else read_config(self.home)
        self.tensors = self.checkpoint.tensors
        self.deltas: dict[str, object] = {}  # what an adapter changes, by tensor
        if ref.adapter is not None:
            self._adapt(resolve(ref.adapter))
        self.embedding = self._embedding()
        self.head = next((n for n in self.tensors if is_head(n) and n.endswith("weight")), None)
        self.rows = self.tensors[self.embedding].shape[0] if self.embedding else None
        self.vocabulary = Vocabulary(self.home, self.rows)

    def _adapt(self, path: Path) -> None:
        sources, changes = lora.adapted({n: Source(t) for n, t in self.tensors.items()}, lora.Adapter(path), self.config)
        self.tensors = {name: source.tensor for name, source in sources.items()}
        self.deltas = {name: source.delta for name, source in sources.items() if source.delta is not None}
        self.config = lora.changed(self.config, changes)

    def _embedding(self) -> str | None:
        """The matrix with a row for each token: of several candidates one of as many rows as the configuration says."""
        found = [n for n in self.tensors if EMBEDDING.search(n) and layer_of(n) is None and len(self.tensors[n].shape) == 2]
        size = text_part(self.config).get("vocab_size", self.config.get("vocab_size"))
        return min(found, key=lambda name: self.tensors[name].shape[0] != size, default=None)

    def source(self, name: str) -> Source | None:
        """A tensor with what the adapter changes in it, None if there is no such tensor."""
        return Source(self.tensors[name], delta=self.deltas.get(name)) if name in self.tensors else None

    @functools.cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding: as the configuration says, or else as the stored bytes say."""
        said = text_part(self.config).get("tie_word_embeddings", self.config.get("tie_word_embeddings"))
        if said is not None or self.head is None or self.embedding is None:
            return bool(said)
        return bytes_digest(self.tensors[self.head]) == bytes_digest(self.tensors[self.embedding])

    def of_vocabulary(self, name: str) -> bool:
        """Whether a tensor has one row for each token: the embedding, the head and the head's bias."""
        tensor = self.tensors.get(name)
        return (tensor is not None and self.rows is not None and tensor.shape[:1] == (self.rows,)
                and (name == self.embedding or is_head(name)))

    def special(self, key: str):
        """A special token's id, or a list of them; the configuration's, for the generation's may have more."""
        found = text_part(self.config).get(key, self.config.get(key))
        ids = found if isinstance(found, list) else [found]
        return found if ids and all(type(one) is int for one in ids) else None

    def __str__(self) -> str:
        return str(self.ref)


def opened(refs: list[Ref]) -> tuple[list[Model], list[str]]:
    """The models, and what there is to say of those that have no configuration of their own."""
    paths = [resolve(ref.path) for ref in refs]
    lender = next((path for path in paths if has_config(path)), None)
    borrowing = [str(ref) for ref, path in zip(refs, paths) if not has_config(path)]
    notes = [f"{', '.join(borrowing)}: no config.json; that of {lender} counts, and its tokenizer"] if borrowing else []
    return [Model(ref, lender) for ref in refs], notes


def has_config(path: Path) -> bool:
    return (path / "config.json").is_file()


def resolve(name: str) -> Path:
    """The directory of a model: itself, or what the hub's cache or the hub has under this id."""
    if os.path.isdir(name):
        return Path(name)
    from pt_tools.outdir import HUB_ID

    if os.path.exists(name) or not HUB_ID.fullmatch(name):
        raise Usage(f"no such model directory: {name}")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=WANTED))
    except Exception as error:  # the library raises many kinds: offline, unknown, gated
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise Usage(f"{name} is no directory here, and the hub does not give it: {first[0]}") from error


def layer_of(name: str) -> tuple[str, int, str] | None:
    """A tensor's place by the first number in its name: (what stands before, number, after), None without one."""
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return None if place is None else (".".join(parts[:place]), int(parts[place]), ".".join(parts[place + 1:]))


def is_head(name: str) -> bool:
    """Whether a name is that of the output layer's weight or bias; layers have parts of such names too."""
    return bool(HEAD.search(name)) and layer_of(name) is None


def text_part(config: dict) -> dict:
    """The part of a configuration that describes the language model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def depth_key(config: dict) -> str:
    """The key of a configuration's text part that has the number of layers."""
    return next((key for key in DEPTHS if key in config), DEPTHS[0])


def differences(models: list[Model]) -> list[str]:
    """What the models' configurations say differently, in words; the first one's goes out."""
    first, out = models[0], []
    for other in models[1:]:
        a, b = text_part(first.config), text_part(other.config)
        for key in sorted((a.keys() & b.keys()) - HARMLESS):
            if a[key] != b[key]:
                out.append(f"config.json: {key} is {a[key]!r} in {first} and {b[key]!r} in {other}; {a[key]!r} goes out")
    return out


def special_notes(models: list[Model], donor: Model) -> list[str]:
    """Special tokens that the models set differently, by token where the tokenizers differ, else by id."""
    out = []
    for key in SPECIAL:
        for other in models:
            mine, theirs = _named(donor, other, key)
            if None not in (mine, theirs) and mine != theirs:
                out.append(f"{key} is {mine} in {donor} and {theirs} in {other}; that of {donor} goes out")
    return out


def _named(donor: Model, other: Model, key: str):
    mine, theirs = donor.special(key), other.special(key)
    if donor.vocabulary.same(other.vocabulary):
        return mine, theirs
    return tuple(_tokens(one, ids) for one, ids in ((donor, mine), (other, theirs)))


def _tokens(model: Model, ids):
    if ids is None:
        return None
    by_id = {i: token for token, i in model.vocabulary.ids.items()}
    return [by_id.get(i, i) for i in (ids if isinstance(ids, list) else [ids])]


def check_special(donor: Model, rows: int | None) -> None:
    """BadModel for a special token id that has no row in the output."""
    generation = read_json(donor.home / "generation_config.json") or {}
    for key in SPECIAL:
        for ids in (donor.special(key), generation.get(key)):
            for one in ids if isinstance(ids, list) else [ids]:
                if isinstance(one, int) and rows is not None and one >= rows:
                    raise BadModel(f"{key} {one} has no row: the output's embedding has {rows}", str(donor))


def edited(config: dict, donor: Model, *, dtype: str | None, rows: int | None, layers: list[int] | None, tied: bool) -> dict:
    """config.json of the output, from the architecture donor's: number format, vocabulary, layers and special tokens.

    `layers` are the numbers of the donor's layers that the output's stand for; `dtype` as safetensors names it.
    """
    out = json.loads(json.dumps(config))
    text = text_part(out)
    words = {short: long for long, short in DTYPES.items()}
    if dtype in words:
        for part in (out, text):
            for key in ("dtype", "torch_dtype"):
                if key in part or (part is out and key == "dtype" and "torch_dtype" not in part):
                    part[key] = words[dtype]
    if rows is not None:
        text["vocab_size"] = rows
    for key in SPECIAL:
        if donor.special(key) is not None:
            (text if key in text else out)[key] = donor.special(key)
    if layers is not None:
        depth = depth_key(text)
        for key, value in text.items():
            if isinstance(value, list) and "layer" in key and max(layers) < len(value) == text.get(depth):
                text[key] = [value[n] for n in layers]  # layer_types and the like
        text[depth] = len(layers)
    (text if "tie_word_embeddings" in text else out)["tie_word_embeddings"] = tied
    out.pop("auto_map", None)  # names code of the model's directory, which is never copied
    return out


def write(stage: Path, config: dict, donor: Model, added: dict[str, dict], chat_template: str | None) -> None:
    """The files beside the weights: config.json, and from `donor` its tokenizer, chat template and generation settings."""
    (stage / "config.json").write_bytes(to_json(config))
    for file in sorted(donor.home.iterdir()):
        if file.is_file() and FROM_TOKENIZER.fullmatch(file.name):
            shutil.copyfile(file, stage / file.name)
    if added:
        content = json.loads((stage / "tokenizer.json").read_bytes())
        content["added_tokens"] = [*(content.get("added_tokens") or ()), *added.values()]
        (stage / "tokenizer.json").write_bytes(json.dumps(content, indent=2).encode())
    if chat_template is not None:
        (stage / "chat_template.json").unlink(missing_ok=True)
        (stage / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def template_of(model: Model) -> str | None:
    """A model's chat template, None without one."""
    if (model.home / "chat_template.jinja").is_file():
        return (model.home / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            found = json.loads((model.home / name).read_bytes()).get("chat_template")
            str(found).encode()  # a ValueError for what no file can hold
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, str):
            return found
    return None
