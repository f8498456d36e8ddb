"""The vocabulary: one spelling, type, default and help text per concept, for all commands.

A command's Config inherits the bundles it needs; a bundle is listed as one section of --help.
"""

import dataclasses
import functools

# A Config makes the object; a bundle only has fields. What a dataclass generates besides costs time at every start.
config = functools.partial(dataclasses.dataclass, frozen=True, repr=False, eq=False, match_args=False)
bundle = functools.partial(config, init=False)

REQUIRED = object()


def opt(default, help, *, short=None, choices=None, result=True, metavar=None, multiple=False, input=False, named=False,
        least=None, most=None, above=None, below=None, argument=False):
    """A field of a Config that is also a flag (its name in kebab-case, without a last underscore), or an argument.

    `result=False`: it does not change what is computed, so it is not in the run key. `input=True`: it names a file,
    directory or hub model whose content, not whose name, is in the run key; a function instead of True takes the value
    apart: (what goes into the key as it is, path or None). `named=True`: the name without its folder is in the key too,
    because it goes into the result. `REQUIRED` as default: it must be given.
    `argument=True`: it stands on the command line without a flag, shown as its metavar.
    `least` and `most` bound the values allowed, `above` and `below` without the bound itself.
    """
    meta = {"help": help, "short": short, "choices": choices, "result": result, "metavar": metavar,
            "multiple": multiple, "input": input, "named": named, "required": default is REQUIRED, "argument": argument,
            "bounds": {"at least": least, "at most": most, "above": above, "below": below}}
    return dataclasses.field(default=None if default is REQUIRED else default, metadata=meta)


@bundle
class Common:
    verbose: bool = opt(False, "Print the traceback of an error.", short="-v", result=False)
    quiet: bool = opt(False, "Print nothing but errors on stderr.", short="-q", result=False)
    json: bool = opt(False, "Print the summary as one JSON object.", result=False)


@bundle
class Input:
    files: tuple = opt(("-",), "JSONL files, .gz and .zst too; '-' is stdin.", multiple=True, input=True)
    on_error: str = opt("fail", "What to do about a bad row.", choices=("fail", "skip"))
    rejects: str | None = opt(None, "Write the rows that --on-error skip leaves out to this file.", metavar="FILE",
                              result=False)
    max_bad: int | None = opt(None, "With --on-error skip: fail after more than this many bad rows.", least=0)


@bundle
class Output:
    out: str | None = opt(None, "Write here, whole or not at all, instead of to stdout.", short="-o", metavar="FILE",
                          result=False)


@bundle
class Parallel:
    jobs: int = opt(1, "Processes that work at once; 0 is one a core. The output is the same for any number.", short="-j",
                    least=0, result=False)


@bundle
class Model:
    model: str = opt(REQUIRED, "Model directory or hub id to start from.", short="-m", metavar="MODEL", input=True)
    out: str = opt(REQUIRED, "Model directory to make.", short="-o", metavar="DIR", result=False)


@bundle
class Template:
    chat_template: str | None = opt(None, "Jinja file to use as the chat template instead of the model's own.",
                                    metavar="FILE", input=True)


def _tokenizer(value: str):
    """What of --tokenizer is in the run key: what turns text into tokens, not a model's weights."""
    from pt_tools.curate import lengths

    return lengths.identity(value), None


@bundle
class Tokens(Template):
    tokenizer: str | None = opt(None, "Count tokens with this tokenizer and its chat template (tokenizer.json, or a "
                                "directory that has it).", metavar="FILE|DIR", input=_tokenizer)


@config  # also used on its own
class Device:
    threads: int = opt(0, "CPU threads; 0 is all cores. Bit-equal results need the same number.", least=0, most=4096)
    device: str = opt("auto", "Where to compute.", choices=("auto", "cpu", "cuda"))
    dtype: str = opt("auto", "Number format of the computation; auto is bfloat16 on GPUs that have it.",
                     choices=("auto", "float32", "bfloat16"))

    def computes(self) -> bool:
        """Whether a model computes anything in this run, so that the number of threads may change its result."""
        return True


@bundle
class Run(Device):
    seed: int = opt(0, "Seed of everything random.", least=0, most=2**32 - 1)
    resume: str = opt("auto", "Whether to go on from an earlier run's checkpoint.", choices=("auto", "must", "never"),
                      result=False)
    work: str | None = opt(None, "Put checkpoints and other scratch below this directory.", metavar="DIR", result=False)
    keep_checkpoints: int = opt(0, "Keep so many of --save-every's checkpoints after success, the newest.", least=0, result=False)
    save_every: int = opt(100, "Steps between checkpoints; 0 saves only on a stop.", result=False, least=0)
    set: tuple = opt((), "Set any other field of the trainer's configuration.", metavar="NAME=VALUE", multiple=True)


@bundle
class Optim:
    lr: float = opt(2e-5, "Peak learning rate.", least=0)
    batch_size: int = opt(32, "Rows per optimizer step, over all devices.", least=1, most=2**31 - 1)
    micro_batch_size: int = opt(0, "Rows per forward pass; 0 is as many as fit.", least=0)
    epochs: float = opt(1.0, "Passes over the data.", above=0, most=10**6)
    max_steps: int = opt(0, "Optimizer steps; overrides --epochs.", least=0, most=2**31 - 1)
    warmup: float = opt(0.0, "Warm-up: below 1 a share of the steps, else steps.", least=0)
    schedule: str = opt("linear", "Learning rate after the warm-up.", choices=("linear", "cosine", "constant"))
    min_lr_ratio: float = opt(0.0, "Final learning rate as a share of the peak.", least=0, most=1)
    weight_decay: float = opt(0.0, "AdamW weight decay.", least=0)
    adam_beta1: float = opt(0.9, "AdamW beta1.", least=0, below=1)
    adam_beta2: float = opt(0.999, "AdamW beta2.", least=0, below=1)
    adam_eps: float = opt(1e-8, "AdamW epsilon.", least=0)
    grad_clip: float = opt(1.0, "Clip the gradient to this norm; 0 turns clipping off.", least=0)


def check_optim(config) -> None:
    if config.schedule == "constant":
        refuse_unused(config, ("min_lr_ratio",), "is of no use with --schedule constant")


def check_sampling(config) -> None:
    if config.temperature == 0:
        refuse_unused(config, ("top_p", "top_k"), "is of no use with --temperature 0")


def pair(text: str) -> tuple[str, str]:
    """NAME=DIR taken apart; a value without name is named by its directory."""
    name, equals, path = text.partition("=")
    return (name, path) if equals else (text.rstrip("/").rpartition("/")[2], text)


def _verifier(text: str):
    from pt_tools.rewards import added

    return added.split(text)


@bundle
class Verifying:
    verifier: tuple = opt((), "Grade every record with this verifier too: a name, a JSON object, or a function of your "
                          "own as module:function.", metavar="SPEC", multiple=True, input=_verifier)
    unsafe_local: bool = opt(False, "Run model-written code even where no sandbox can be made.")


@bundle
class Judging:
    judge: str | None = opt(None, "Let a language model judge: the address of an OpenAI-compatible server, or a model "
                            "directory.", metavar="URL|DIR", input=True)
    judge_mode: str = opt("aspects", "aspects: 1 to 5 on each; pairwise: completions against each other, both orders; "
                          "rubric: the record's criteria; reference: agreement with the right answer.",
                          choices=("aspects", "pairwise", "rubric", "reference"))
    judge_model: str | None = opt(None, "The server's model; needed if it has several.", metavar="NAME")
    judge_aspects: tuple = opt((), "An aspect of your own; several may be given [default: helpfulness, "
                               "instruction_following, honesty, truthfulness].", metavar="NAME[=TEXT]", multiple=True)
    judge_prompt: str | None = opt(None, "Jinja file of the prompt, or a directory with MODE.jinja.", metavar="PATH", input=True)
    judge_part: str = opt("answer", "What is judged: the answer, all, or the thinking.", choices=("answer", "all", "thinking"))
    judge_baseline: str | None = opt(None, "Pairwise: compare with the answer in this key of the record, not with each other.",
                                     metavar="KEY")
    judge_min_gap: float = opt(0.0, "Pairwise: a smaller mean difference of ratings is a tie.", least=0)
    judge_samples: int = opt(1, "Judgements to average.", least=1)
    judge_temperature: float = opt(0.0, "The judge's sampling temperature.", least=0)
    judge_max_tokens: int = opt(1024, "Longest reply in tokens.", least=1)
    judge_seed: int = opt(0, "Seed of the judge.", least=0)
    judge_retries: int = opt(4, "Times to ask again where no valid judgement came.", least=0)
    judge_concurrency: int = opt(8, "Requests at once.", least=1, result=False)
    judge_rate_per_minute: float = opt(0.0, "Most requests a minute; 0 sets no limit.", least=0, result=False)
    judge_timeout_s: float = opt(120.0, "Seconds to wait for a reply.", above=0, result=False)
    judge_api_key_env: str = opt("OPENAI_API_KEY", "The environment variable that has the server's key.", result=False,
                                 metavar="NAME")


@bundle
class Sampling:
    temperature: float = opt(1.0, "Sampling temperature; 0 is greedy.", least=0)
    top_p: float = opt(1.0, "Keep the most likely tokens up to this mass.", above=0, most=1)
    top_k: int = opt(0, "Keep this many most likely tokens; 0 keeps all.", least=0)
    max_new_tokens: int = opt(256, "Longest completion in tokens.", least=1)


def fields(config) -> dict:
    """The fields of a Config (class or object) by name, bundles last."""
    cls = config if isinstance(config, type) else type(config)
    own = [f for f in dataclasses.fields(cls) if f.name in cls.__dict__.get("__annotations__", {})]
    rest = [f for f in dataclasses.fields(cls) if f not in own]
    return {f.name: f for f in own + rest}


def sections(config) -> list[tuple[str, list[str]]]:
    """Names of the fields, grouped by the bundle that declares them: the command's own first."""
    seen, out = set(), []
    for cls in config.__mro__[:-1]:
        names = [n for n in cls.__dict__.get("__annotations__", {}) if n not in seen]
        seen.update(names)
        if names:
            out.append((cls.__name__ if cls is not config else "Options", names))
    return out


def refuse_unused(config, names, why: str) -> None:
    """Usage error if one of the options `names` was given although nothing will read it."""
    from pt_tools.errors import Usage

    known = fields(config)
    for name in names:
        if getattr(config, name) != known[name].default:
            raise Usage(f"{flag(name)} {why}")


def check_apart(config, name: str) -> None:
    """Usage if the file that another option than --out writes is the output or an input."""
    import os

    from pt_tools.errors import Usage

    path = getattr(config, name)
    if path and os.path.realpath(path) in map(os.path.realpath, filter(None, (config.out, *config.files))):
        raise Usage(f"{flag(name)} {path} is the output or an input")


def flag(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def kind(field) -> type:
    """The type of one value of a field: bool, int, float or str."""
    if field.metadata["multiple"]:
        return str
    annotation = field.type if isinstance(field.type, type) else getattr(field.type, "__args__", (str,))[0]
    return annotation if annotation in (bool, int, float) else str
