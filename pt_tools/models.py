"""Load and save models: safetensors only, no remote code, no missing tensors."""

import hashlib
import json
import os
from pathlib import Path

# Read at import by huggingface_hub: TRL counts every trainer start otherwise.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Read at import by OpenMP: spinning threads stall each other for minutes where another process wants a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# One process uses one GPU; transformers would split a batch over all that it sees.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from pt_tools.errors import BadModel, Diverged, Usage
from pt_tools.job import threads

transformers_logging.disable_progress_bar()


def device_and_dtype(cfg):
    """(torch.device, torch.dtype) for `cfg.device` and `cfg.dtype`.

    "auto" is CUDA where there is a GPU, and bfloat16 where that GPU computes in it; else CPU, float32.
    """
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise Usage("--device cuda: no CUDA device is available")
    name = cfg.device if cfg.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and name == "cuda" and torch.cuda.is_bf16_supported())
    return torch.device(name), torch.bfloat16 if bf16 else torch.float32


def set_threads(cfg):
    """Fix the number of threads: sums, and so every bit of the result, depend on it."""
    count = threads(cfg)
    torch.set_num_threads(count)
    return count


def _has_weights(path):
    return any(Path(path).glob("*.safetensors"))


def _check_directory(path):
    path = Path(path)
    if not path.is_dir():
        return
    if not (path / "config.json").is_file():
        raise BadModel("not a model directory: no config.json", where=str(path))
    _check_config(path / "config.json")
    for index in path.glob("*.safetensors.index.json"):
        _check_index(index)
    if (path / "MANIFEST.json").is_file():
        from pt_tools import outdir
        outdir.verify(path)


def _json(path):
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise BadModel("not JSON", where=str(path)) from None


def _check_config(path):
    """BadModel for a configuration that names code of the hub: kernels for its attention."""
    values = [_json(path)]
    while values:
        value = values.pop()
        for name, inner in value.items() if isinstance(value, dict) else ():
            values.append(inner)
            if "attn_implementation" in name and isinstance(inner, str) and not inner.replace("_", "").isalnum():
                raise BadModel(f"{name} names code to load: {inner}", where=str(path))


def _check_index(path):
    """BadModel for weights that an index has in another kind of file, or outside its directory."""
    index = _json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    for name in names.values() if isinstance(names, dict) else [None]:
        if not isinstance(name, str) or not name.endswith(".safetensors") or os.path.basename(name) != name:
            raise BadModel(f"weight_map names {name!r}, which is no safetensors file beside it", where=str(path))


def _read(what, path, load):
    """`load()`, with every failure of reading a model directory turned into BadModel."""
    try:
        return load()
    except MemoryError:
        raise
    except Exception as err:      # a field of the wrong type can fail anywhere below
        first = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise BadModel(f"cannot load the {what}: {first}", where=str(path)) from err


def _local_only(path):
    return Path(path).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1"


def load_tokenizer(path, chat_template=None):
    """The tokenizer of a model directory, with the chat template of a file if one is named; no remote code."""
    _check_directory(path)
    tokenizer = _read("tokenizer", path, lambda: AutoTokenizer.from_pretrained(
        path, trust_remote_code=False, local_files_only=_local_only(path)))
    if chat_template:
        try:
            tokenizer.chat_template = Path(chat_template).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(f"cannot read the chat template: {error}", chat_template) from None
    _check_template(tokenizer, chat_template or path)
    return tokenizer


def _check_template(tokenizer, where):
    """BadModel for a template that no row could use, so that no row is blamed for it."""
    import jinja2

    try:
        if tokenizer.chat_template:
            tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        raise BadModel(f"chat template, line {error.lineno}: {error.message}", where=str(where)) from None
    except Exception:
        pass  # what it refuses in this conversation it may take in another


def load_model(path, device="cpu", dtype=torch.float32, auto_class=AutoModelForCausalLM):
    """The causal language model of a directory (or hub id), on `device`, weights in `dtype`.

    Raises BadModel for pickled weights, remote code, missing or misshapen tensors and for a
    directory whose manifest does not match its files; Diverged for a non-finite weight.
    """
    _check_directory(path)
    if Path(path).is_dir() and not _has_weights(path):
        pickled = any(Path(path).glob("*.bin"))
        hint = "only pickled weights, which are never read" if pickled else \
            "no weights (*.safetensors); to train from scratch use pt-sft --from-scratch"
        raise BadModel(hint, where=str(path))
    model, info = _read("model", path, lambda: auto_class.from_pretrained(
        path, dtype=dtype, use_safetensors=True, trust_remote_code=False,
        local_files_only=_local_only(path), output_loading_info=True))
    missing = sorted(info["missing_keys"])
    if missing:
        raise BadModel(f"{len(missing)} tensors are missing from the weights, first {missing[0]}", where=str(path))
    check_finite(model.to(device))
    _make_saveable(model)
    return model


def _make_saveable(model):
    """Mend generation settings that are read but refused when written, which would be after all the training.

    Published models have temperature or top_p without do_sample; whatever else is wrong, the token ids are kept.
    """
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if any(stop is not None and (type(stop) is not int or stop < 0) for stop in stops):
        raise BadModel(f"eos_token_id of the generation settings is no token id: {config.eos_token_id!r}")
    try:
        config.validate(strict=True)
    except ValueError:
        ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config.do_sample = True
        try:
            config.validate(strict=True)
        except ValueError:
            model.generation_config = GenerationConfig(**ids)


def check_ids(model, ids, where=None):
    """BadModel for a token id (of arrays or lists of them) that the model has no embedding for."""
    rows = model.get_input_embeddings().num_embeddings
    wrong = next((int(i) for part in ids if len(part) for i in (np.max(part), np.min(part)) if not 0 <= i < rows), None)
    if wrong is not None:
        raise BadModel(f"token id {wrong} has no embedding, the model has {rows}: the tokenizer is another model's", where)


def pad_id(model, tokenizer):
    """Any id with an embedding will do: pads carry no label and no real token attends to them."""
    known = (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None)
    return next((i for i in known if 0 <= i < model.get_input_embeddings().num_embeddings), 0)


def from_config(path, seed, device="cpu", dtype=torch.float32):
    """A model with weights drawn from `seed`, from a directory with config.json and no weights."""
    _check_directory(path)
    if _has_weights(path):
        raise Usage(f"--from-scratch: {path} holds weights already; give a directory with config.json and a tokenizer only")
    config = _read("configuration", path, lambda: AutoConfig.from_pretrained(
        path, trust_remote_code=False, local_files_only=_local_only(path)))
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False).to(device)


def save_model(model, tokenizer, directory):
    """Write weights (safetensors), configurations and tokenizer into `directory`."""
    check_finite(model)
    Path(directory).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def check_finite(model):
    """Raise Diverged naming the first tensor of the model that holds NaN or infinity."""
    tensors = [(n, t) for n, t in model.state_dict(keep_vars=True).items() if t.is_floating_point()]
    with torch.no_grad():
        flags = [torch.isfinite(t).all() for _, t in tensors]
        if not flags or bool(torch.stack([f.to(flags[0].device) for f in flags]).all()):
            return
    name = next(n for (n, _), f in zip(tensors, flags) if not f)
    raise Diverged(f"tensor {name} holds NaN or infinity")


def _digest(text):
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()[:16]


def tokenizer_hash(tokenizer):
    """16 hex digits over everything that turns text into ids (not padding or truncation settings)."""
    import orjson
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        spec = {"vocab": tokenizer.get_vocab()}
    else:
        spec = orjson.loads(backend.to_str())
        spec.pop("padding", None), spec.pop("truncation", None)
    spec["special"] = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    return _digest(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS))


def template_hash(tokenizer):
    """16 hex digits over the chat template ("" where there is none)."""
    return _digest(tokenizer.chat_template or "")
