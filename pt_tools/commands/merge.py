"""pt-merge: new models out of old ones by weight arithmetic."""

import json
import os
import re

from pt_tools import options
from pt_tools.cli import Command, command
from pt_tools.errors import Usage
from pt_tools.options import REQUIRED, opt

SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SEVERAL = ("weight", "density")  # flags that take one value for all models, or one for each
SINGLE = ("lambda_", "t", "eta", "gamma", "epsilon", "select_topk", "normalize", "rescale")
OF_VERBS = ("beta", "last", "evaluate", "rank", "energy", "fan_in_fan_out")  # not of methods
OPTIONAL = ("base", *SEVERAL, *SINGLE, "param", "layers", "dtype", "tokenizer_from", "pad_to_multiple_of", "chat_template",
            "shard_size", "force", "report", "dry_run", "seed", "threads", *OF_VERBS)
LISTS = re.compile(r"-w.|--(weight|density)=")  # a word that is flag and value
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def _method(text: str):
    """The method's name, or what a YAML file and the models in it are."""
    if not is_recipe(text):
        return text, None
    from pt_tools.merge import mergekit_yaml

    return None, (text, *(_paths(one) for one in mergekit_yaml.read(text).models()))


def _model(text: str):
    from pt_tools.merge import spec

    return None, tuple(_paths(spec.ref(one)) for one in spec.checkpoints(text))


def _paths(ref):
    return ref.path if ref.adapter is None else (ref.path, ref.adapter)


def _part(text: str):
    model, layers = _layers(text)
    return list(layers), _paths(model)


def is_recipe(text: str) -> bool:
    return text.endswith((".yml", ".yaml"))


@options.config
class Config(options.Common):
    method: str = opt(REQUIRED, "The method, or a YAML file of mergekit's.", metavar="METHOD|FILE.yml", input=_method,
                      argument=True)
    models: tuple = opt((), "Model directories or hub ids, the base first where the method needs one; MODEL+ADAPTER has "
                        "a LoRA adapter baked in.", metavar="MODEL", multiple=True, input=_model, argument=True)
    out: str = opt(REQUIRED, "Model directory to make.", short="-o", metavar="DIR", result=False)
    base: str | None = opt(None, "The base, if it is not the first of the models, or if the method can do without.",
                           metavar="MODEL", input=_model)
    weight: tuple = opt((), "Weight: one for all models, or one for each (-w 0.5 0.5, -w 0.5,0.5 or -w 0.5 -w 0.5).",
                        short="-w", metavar="W", multiple=True)
    density: tuple = opt((), "Share of every task vector that is kept: one for all models, or one for each.", metavar="D",
                         multiple=True)
    lambda_: float | None = opt(None, "Factor of the merged task vector; above 1 it extrapolates.")
    normalize: bool | None = opt(None, "Divide by the sum of the weights.")
    rescale: str | None = opt(None, "After dropping: divide by the density, keep the L1 norm, or neither.",
                              choices=("inverse", "l1", "none"))
    t: float | None = opt(None, "Place between the two models, 0 to 1.")
    eta: float | None = opt(None, "Place between the base and the model, or the merged models.")
    gamma: float | None = opt(None, "Share of the largest entries that is dropped.")
    epsilon: float | None = opt(None, "Spread of the keep probabilities (della), or the smallest change (ram).")
    select_topk: float | None = opt(None, "Share of the entries of largest variance that is merged.")
    param: tuple = opt((), "Any parameter, for tensors whose name contains FILTER only if one is given. VALUE is a number, "
                       "true or false, or a gradient over the layers as [0,0.5,1]; with commas outside brackets, one for "
                       "each model.", metavar="[FILTER:]NAME=VALUE", multiple=True)
    layers: tuple = opt((), "passthrough: layers A up to but not B of a model; several are stacked in this order.",
                        metavar="MODEL:A-B", multiple=True, input=_part)
    beta: float | None = opt(None, "ema: share of the mean so far that every later checkpoint leaves.", least=0, most=1)
    last: int | None = opt(None, "last: how many checkpoints to average.", least=1)
    evaluate: str | None = opt(None, "greedy_soup: command with {} for a model directory that prints its score, larger is "
                               "better: a number on the last line, or what pt-eval --json does.", metavar="COMMAND")
    rank: int | None = opt(None, "lora_extract: largest rank.", least=1)
    energy: float | None = opt(None, "lora_extract: the least rank that keeps this share of the squared change.", above=0,
                               most=1)
    fan_in_fan_out: bool = opt(False, "lora_extract: linear layers are stored as (in, out), as GPT-2's.")
    dtype: str = opt("auto", "Number format of the output; auto is the base's or first model's. Arithmetic is float32.",
                     choices=("auto", "float32", "bfloat16", "float16"))
    tokenizer_from: str | None = opt(None, "Whose tokenizer, chat template and generation settings go out: base, one of the "
                                     "models, or union (the base's with the others' added tokens) [default: the base's or "
                                     "first model's; of different vocabularies the one that has all tokens].",
                                     metavar="MODEL|base|union")
    pad_to_multiple_of: int | None = opt(None, "Pad the embedding's rows to a multiple of this.", least=1)
    chat_template: str | None = opt(None, "Jinja file to use as the chat template instead of the model's own.",
                                    metavar="FILE", input=True)
    shard_size: str = opt("5GB", "Largest size of one weight file: bytes, or with KB, MB, GB.", metavar="SIZE")
    seed: int = opt(0, "Seed of everything random.", least=0)
    force: bool = opt(False, "Merge although inputs have NaN or infinite numbers.")
    threads: int = opt(0, "CPU threads; 0 is all cores. The result is the same for any number.", least=0, result=False)
    report: str | None = opt(None, "Write a line for every tensor: cosines, norms, kept share, sign conflicts.",
                             metavar="FILE")
    dry_run: bool = opt(False, "Print what would be done as JSON: bytes, tensors, memory, parameters. Nothing is written.",
                        result=False)
    resume: str = opt("auto", "Whether to go on from an earlier run's finished blocks.", choices=("auto", "must", "never"),
                      result=False)
    work: str | None = opt(None, "Put scratch below this directory.", metavar="DIR", result=False)

    def __post_init__(self):
        _import_numpy()
        _checked(self)  # wrong use is said before gigabytes are hashed


EXAMPLES = [
    "pt-merge linear sft/ dpo/ -w 0.3 0.7 -o mean/",
    "pt-merge ties base/ sft/ dpo/ -w 0.5 0.5 --density 0.5 -o ties/",
    "pt-merge task_arithmetic sft/ dpo/ --lambda 1.5 -o further/",
    "pt-merge slerp sft/ dpo/ --param 'self_attn:t=[0,0.5,1]' --param t=0.5 -o between/",
    "pt-merge passthrough --layers sft/:0-2 --layers dpo/:1-2 -o deeper/",
    "pt-merge merge.yml -o merged/ --dry-run",
    "pt-merge greedy_soup sft/ dpo/ --evaluate 'pt-eval heldout.jsonl -m {} --json' -o soup/",
    "pt-merge ema base/ sft/ dpo/ --beta 0.5 -o ema/",
    "pt-merge lora_extract base/ sft/ --rank 8 -o adapter/",
    "pt-merge lora base/ adapter/ -o baked/",
]


class _Merge(Command):
    """A command whose -w and --density take all the numbers that follow: -w 0.5 0.5."""

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, joined(args))


def joined(args: list[str]) -> list[str]:
    """Numbers after -w, --weight or --density as one value with commas."""
    out, open_ = [], False
    for arg in args:
        if open_ and NUMBER.fullmatch(arg):
            out[-1] += f",{arg}"
            continue
        open_ = bool(out and out[-1] in ("-w", "--weight", "--density")) or bool(LISTS.match(arg))
        out.append(arg)
    return out


def _import_numpy() -> None:
    """With one thread for its BLAS: ours are enough, and a sum must not depend on the number of cores."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    import numpy  # noqa: F401  (reads the variable once)

    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before


@command("pt-merge", Config, reads="models", writes="model", examples=EXAMPLES, cls=_Merge)
def main(cfg, job):
    """Make a model out of models by arithmetic on their weights.

    METHOD is linear, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear, breadcrumbs, breadcrumbs_ties,
    sce, slerp, nuslerp, multislerp, karcher, model_stock, wise_ft, warp, nearswap, ram, ramplus_tl or passthrough; or a
    YAML file of mergekit's stands for method, models and parameters. linear with equal weights is a soup, and WARM over
    reward models. pt-merge-methods(7) has their formulas, parameters and rules.

    greedy_soup, ema and last are linear merges too: greedy_soup scores every member, then takes them, best first, as
    long as the mean's score does not fall; ema takes checkpoints, oldest first, with weights that fall by --beta; last
    takes the mean of the last few. lora BASE ADAPTER... bakes LoRA adapters into a model, lora_cat ADAPTER... makes one
    adapter whose change is the weighted sum, lora_extract BASE TUNED an adapter out of two models.

    Tensors are matched by name and read in blocks, so that memory does not grow with the models; arithmetic is in
    float32 and rounds once. A tensor that only some models have, another shape or unequal integers are refused; so are
    quantised and pickled weights, NaN and infinities. The first model's (or base's) config.json goes out.
    """
    from pt_tools.merge import run, verbs

    name, spec, size = _checked(cfg)
    if name == "lora":
        verbs.bake(cfg, job, size)
    elif name == "lora_cat":
        verbs.concatenate(cfg, job, _numbers(cfg.weight, "--weight"))
    elif name == "lora_extract":
        verbs.extract(cfg, job)
    elif name == "greedy_soup":
        verbs.greedy(cfg, job, spec, size)
    else:
        run.main(cfg, job, spec, size)
        if name in verbs.VERBS:
            job.final.update(method=name)


def _checked(cfg):
    """The method or verb, what is asked for (None for adapters), and the size of a shard; Usage for what cannot be meant."""
    from pt_tools.merge import build, methods, verbs
    from pt_tools.merge.spec import ref

    size, name = shard_size(cfg.shard_size), cfg.method.replace("-", "_")
    if name in verbs.VERBS:
        _check_verb(cfg, name, verbs.VERBS[name])
        _refuse_own_input(cfg.out, map(ref, cfg.models))
        return name, _changed(cfg, verbs.soup(cfg, name)) if name in verbs.SOUPS else None, size
    options.refuse_unused(cfg, OF_VERBS, f"is of no use with {cfg.method}")
    spec = _spec(cfg)
    method = methods.get(spec.method)
    if not method.random:
        options.refuse_unused(cfg, ("seed",), f"is of no use with {spec.method}, which draws nothing")
    build.checked(spec, method)
    _refuse_own_input(cfg.out, spec.models())
    return name, spec, size


def _refuse_own_input(out: str, refs) -> None:
    """Usage if the output would take the place of a model that it is made of, or lie in it."""
    for path in [path for one in refs for path in (one.path, one.adapter) if path and os.path.isdir(path)]:
        pair = os.path.realpath(out), os.path.realpath(path)
        if os.path.commonpath(pair) in pair:
            raise Usage(f"--out {out} and {path}, which it is made of, are one directory or lie in each other")


def _check_verb(cfg, name, verb) -> None:
    from pt_tools.merge import verbs

    options.refuse_unused(cfg, [one for one in OPTIONAL if one not in verb.flags], f"is of no use with {name}")
    verbs.check(name, cfg.models)
    if verb.required and getattr(cfg, verb.required) is None:
        raise Usage(f"{name} needs {options.flag(verb.required)}")
    if name == "lora_extract" and cfg.rank is None and cfg.energy is None:
        raise Usage("lora_extract needs --rank or --energy")


def shard_size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMGT]B)?", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise Usage(f"--shard-size {text}: expected bytes, or a number with KB, MB, GB or TB")
    return int(match[1]) * SIZES[(match[2] or "").upper()]


def _spec(cfg):
    """What is asked for, from flags or from the YAML file."""
    from pt_tools.merge import methods

    if is_recipe(cfg.method):
        from pt_tools.merge import mergekit_yaml

        why = f"is of no use with {cfg.method}, which says it all"
        options.refuse_unused(cfg, ("models", "base", *SEVERAL, *SINGLE, "param", "layers"), why)
        return _changed(cfg, mergekit_yaml.read(cfg.method))
    return _changed(cfg, _from_flags(cfg, methods.get(cfg.method)))


def _changed(cfg, spec):
    """With what the flags say about the output's form."""
    from dataclasses import replace

    changes = {"dtype": None if cfg.dtype == "auto" else cfg.dtype, "tokenizer": cfg.tokenizer_from,
               "pad_to_multiple_of": cfg.pad_to_multiple_of, "chat_template": _template(cfg.chat_template)}
    return replace(spec, **{name: value for name, value in changes.items() if value is not None})


def _template(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read the chat template: {error}", path) from None


def _from_flags(cfg, method):
    from pt_tools.merge.spec import Part, Slice, Spec, ref

    refs = [ref(text) for text in cfg.models]
    base = ref(cfg.base) if cfg.base else None
    if base is None and method.base == "required" and refs:
        base, *refs = refs
    if base is not None and method.base == "none":
        raise Usage(f"--base is of no use with {cfg.method}, which has no base")
    for name in (*SEVERAL, *SINGLE):
        if getattr(cfg, name) not in (None, ()) and name.rstrip("_") not in {*method.own, *method.shared}:
            raise Usage(f"{options.flag(name)} is of no use with {cfg.method}")
    if cfg.layers:
        if cfg.method != "passthrough":
            raise Usage(f"--layers is of use only with passthrough, not {cfg.method}")
        if refs:
            raise Usage("--layers names the models itself; leave out MODEL")
        slices = tuple(Slice((Part(*_layers(text)),)) for text in cfg.layers)
        return Spec(cfg.method, slices, settings=_settings(cfg, method, 1)[1])
    if not refs:
        raise Usage(f"{cfg.method} needs models; see pt-merge --help")
    own, shared = _settings(cfg, method, len(refs))
    return Spec(cfg.method, (Slice(tuple(Part(one, None, settings) for one, settings in zip(refs, own))),), base, shared)


def _layers(text: str):
    from pt_tools.merge.spec import ref

    match = re.fullmatch(r"(.+):(\d+)-(\d+)", text)
    if not match or int(match[2]) >= int(match[3]):
        raise Usage(f"--layers {text}: expected MODEL:A-B with A below B")
    return ref(match[1]), (int(match[2]), int(match[3]))


def _settings(cfg, method, count: int):
    """Settings of every model, and of the merge. Those with a filter win over those without."""
    entries = [(text, *_param(text)) for text in cfg.param]
    for name in (*SEVERAL, *SINGLE):
        value = getattr(cfg, name)
        if value not in (None, ()):
            key = name.rstrip("_")
            values = _numbers(value, options.flag(name)) if name in SEVERAL else [value]
            entries.append((options.flag(name), "", key, values))
    own, shared = [{} for _ in range(count)], {}
    for text, fits, name, values in sorted(entries, key=lambda entry: entry[1] == ""):
        if len(values) == 1:
            shared[name] = (*shared.get(name, ()), (fits, values[0]))
        elif name not in method.own:
            raise Usage(f"{text}: {cfg.method} has one {name} for all models")
        elif len(values) != count:
            raise Usage(f"{text}: {len(values)} values for {count} models")
        else:
            for settings, value in zip(own, values):
                settings[name] = (*settings.get(name, ()), (fits, value))
    return own, shared


def _param(text: str):
    head, equals, tail = text.partition("=")
    fits, colon, name = head.rpartition(":")
    if not equals or not name or not tail:
        raise Usage(f"--param {text}: expected [FILTER:]NAME=VALUE")
    return fits, name, [_value(one, f"--param {text}") for one in re.findall(r"\[[^\]]*\]|[^,]+", tail)]


def _value(text: str, where: str):
    if text.startswith("["):
        return tuple(_number(one, where) for one in text.strip("[]").split(","))
    words = {"true": True, "false": False, "inverse": "inverse", "l1": "l1", "none": "none"}
    return words[text] if text in words else _number(text, where)


def _numbers(texts, where: str) -> list:
    return [_number(one, where) for text in texts for one in text.split(",")]


def _number(text: str, where: str):
    if not NUMBER.fullmatch(text.strip()):
        raise Usage(f"{where}: {text!r} is not a number")
    return json.loads(text) if text.strip().isdigit() else float(text)
