"""pt-curate split, mix: which records go where."""

import contextlib

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import REQUIRED, opt

SEED = "Seed of everything random."


def rates(values, option):
    """("a.jsonl=0.5", …) as {"a.jsonl": "0.5"}."""
    out = {}
    for value in values:
        name, mark, rate = value.rpartition("=")
        if not (mark and name and rate):
            raise Usage(f"{option}: {value!r} has not the form NAME=NUMBER")
        if name in out:
            raise Usage(f"{option}: {name} is given twice")
        out[name] = rate
    return out


@options.config
class Split(options.Input, options.Parallel, options.Common):
    part: tuple = opt(REQUIRED, "A part and its share of the prompts.", metavar="NAME=SHARE", multiple=True)
    out: str = opt(REQUIRED, "Files to write, with {part} where the name goes.", short="-o", metavar="FILE", result=False)
    by: str = opt("prompt", "What is never in two parts: a prompt; or a prompt and a cluster of near copies, as pt-curate "
                  "dedup --mark finds them.", choices=("prompt", "cluster"))
    seed: int = opt(0, SEED, least=0)


SPLIT = ["pt-curate split all.jsonl --part train=0.9 --part dev=0.1 -o 'data/{part}.jsonl'"]


@command("pt-curate split", Split, reads="records", writes="files", examples=SPLIT)
def split(cfg, job):
    """Split records into parts that share no prompt.

    A record's part follows from a hash of the letters and digits of its prompt (the user turns, in lower case) and
    the seed: the same prompt is always in the same part, in every file. With --by cluster copies stay together too,
    and whatever shares a prompt with one of them. Shares that sum to less than 1 leave the rest out. Rows stream, and
    are written as they came, in their order; --by cluster reads them twice (see pt-curate mix) and holds clusters in
    memory.
    """
    import os

    from pt_tools import blocks, parts

    shares = _shares(cfg.part)
    if "{part}" not in cfg.out:
        raise Usage("--out needs {part} where the name of the part goes")
    paths = {name: cfg.out.replace("{part}", name) for name in shares}
    if len(set(map(os.path.realpath, paths.values()))) < len(paths):
        raise Usage("--part: two parts would be one file")
    inputs = set(map(os.path.realpath, cfg.files))
    if whole := next((path for path in paths.values() if os.path.realpath(path) in inputs), None):
        raise Usage(f"--part: {whole} is an input; the same line again would split the part")
    with parts.opened(split, job, paths) as out:
        job.out = out
        if out.done:
            job.say("all parts are complete and up to date; nothing to do")
            return
        with _together(cfg, job) as together:
            for lines in blocks.each(job, _divide, shares, together, cfg.seed, jobs=cfg.jobs):
                for name, found in lines.items():
                    out.write_lines(name, *found)


@contextlib.contextmanager
def _together(cfg, job):
    """The clusters of the job's records with --by cluster, else None; meanwhile its inputs can be read once more."""
    if cfg.by == "prompt":
        yield None
        return
    from types import SimpleNamespace

    from pt_tools import blocks, readback, stream
    from pt_tools.curate.split import Together

    found = Together()
    with readback.opened(job):
        rows = stream.Rows()  # bad rows are told, and all are counted, when they are written
        first = SimpleNamespace(records=stream.Reader(job.records.files, rows, "skip"), rows=rows)
        for links in blocks.each(first, _links, jobs=cfg.jobs):
            for prompt, cluster in links:
                found.add(prompt, cluster)
        if not found and rows.n["in"]:
            job.say("no row has a `cluster`; all go by their prompts (pt-curate dedup --mark finds clusters)")
        yield found


def _links(records, out):
    from pt_tools.curate.split import link

    return [found for found in map(link, record.checked(records)) if found]


def _divide(records, out, shares, together, seed):
    """Lines, and their number, of every part of a block."""
    from pt_tools.curate.split import part_of

    taken = records.map(lambda rec: part_of(rec, shares, seed, together))
    lines = {name: [] for name in shares}
    for name, line in zip(taken.values, taken.lines):
        if name is None:
            records.rows.add("dropped", 1, "in no part")
        else:
            lines[name].append(line.rstrip())
    return {name: (b"\n".join([*found, b""]), len(found)) for name, found in lines.items()}


def _shares(parts):
    try:
        shares = {name: float(share) for name, share in rates(parts, "--part").items()}
    except ValueError as error:
        raise Usage(f"--part: {error}") from None
    if not all(0 < share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise Usage("--part: shares lie between 0 and 1 and sum to at most 1")
    return shares


@options.config
class Mix(options.Input, options.Output, options.Tokens, options.Parallel, options.Common):
    by: str = opt("file", "What the options below call NAME: a file, or a source, wherever its rows are.",
                  choices=("file", "source"))
    take: tuple = opt((), "Rows of a file or source: so many (500), or a share (0.5, 50%; above 1 rows repeat). "
                      "Default: all.", metavar="NAME=N", multiple=True)
    total: int | None = opt(None, "Rows of the mixture, divided by --weight.", least=1)
    total_tokens: int | None = opt(None, "Tokens of the mixture, divided by --weight; of each file or source as many rows "
                                   "as fit.", least=1)
    weight: tuple = opt((), "With a total: a file's or source's part of the mixture; 1 where not given.", metavar="NAME=W",
                        multiple=True)
    alpha: float | None = opt(None, "With a total: weights are times the size to this power; 1 is in proportion, 0 alike, "
                              "between them small ones gain (a temperature of 1/ALPHA).", least=0, most=10)
    repeat: int = opt(1, "With a total: take a row at most so many times where there are too few.", least=1)
    bytes_per_token: float | None = opt(None, "Estimate the tokens of the texts from their bytes instead of --tokenizer.",
                                         above=0)
    cap: tuple = opt((), "At most so many rows of one source, cluster (as pt-curate dedup finds them) or prompt; without "
                     "KEY of one source.", metavar="[KEY=]N", multiple=True)
    seed: int = opt(0, SEED, least=0)


MIX = ["pt-curate mix math.jsonl chat.jsonl --take math.jsonl=500 --take chat.jsonl=0.5 -o mix.jsonl",
       "pt-curate mix math.jsonl chat.jsonl --total 300 --weight math.jsonl=2 -o mix.jsonl",
       "pt-curate mix math.jsonl chat.jsonl --by source --total-tokens 5000 --bytes-per-token 4 --alpha 0.5 -o mix.jsonl",
       "pt-curate mix math.jsonl chat.jsonl --cap source=400 --cap prompt=1 -o mix.jsonl"]


@command("pt-curate mix", Mix, reads="records", writes="records", examples=MIX)
def mix(cfg, job):
    """Mix files or sources in given amounts, in random order.

    Which rows are taken, and their order, follow from hashes of the ids and the seed: the result does not depend on
    the order of the rows or of the files. Caps come first (prompt, cluster, source), amounts of what they leave.
    Files are read twice: once in order, to note where each row is (under 200 bytes of memory a row, whatever its
    length), and row by row when it is written. stdin and packed files are unpacked into scratch space for that, which
    is OUT.run/, or without -o the system's temporary directory.
    """
    rules = _rules(cfg)
    from pt_tools import mixing, readback

    with readback.opened(job) as files:
        mixing.run(mixing.Rules(**rules), job, files, cfg.jobs)


def _rules(cfg):
    """What the options say, checked before anything is read."""
    from pt_tools.curate import lengths

    total = cfg.total or cfg.total_tokens
    if cfg.total and cfg.total_tokens:
        raise Usage("give --total or --total-tokens, not both")
    if not total:
        options.refuse_unused(cfg, ("weight", "alpha", "repeat"), "is of use only with --total or --total-tokens")
    elif cfg.take:
        raise Usage("give --take, or a total (with --weight or --alpha)")
    if not cfg.total_tokens:
        options.refuse_unused(cfg, ("tokenizer", "chat_template", "bytes_per_token"), "is of use only with --total-tokens")
    elif (cfg.tokenizer is None) == (cfg.bytes_per_token is None):
        raise Usage("--total-tokens needs --tokenizer, or --bytes-per-token for an estimate")
    lengths.check(cfg)
    take, weight = _amounts(cfg)
    pools = tuple(cfg.files) if cfg.by == "file" else None
    unknown = sorted((take.keys() | weight.keys()) - set(pools)) if pools else []
    if unknown:
        raise Usage(f"{unknown[0]} is not among the files to mix")
    return {"pools": pools, "take": take, "weight": weight, "total": total, "in_tokens": bool(cfg.total_tokens),
            "caps": _caps(cfg.cap), **{name: getattr(cfg, name) for name in (
                "tokenizer", "chat_template", "alpha", "bytes_per_token", "repeat", "seed")}}


def _amounts(cfg):
    """What --take and --weight say."""
    from pt_tools.curate import mix as mixing

    take, weight = rates(cfg.take, "--take"), rates(cfg.weight, "--weight")
    try:
        take = {name: mixing.amount(rule) for name, rule in take.items()}
    except ValueError as error:
        raise Usage(f"--take: {error}") from None
    try:
        weight = {name: float(value) for name, value in weight.items()}
    except ValueError as error:
        raise Usage(f"--weight: {error}") from None
    if not all(0 <= value < float("inf") for value in weight.values()):
        raise Usage("--weight: weights are at least 0, and finite")
    return take, weight


def _caps(values):
    """("100", "prompt=1") as {"source": 100, "prompt": 1}."""
    caps = {}
    for value in values:
        key, _, number = value.rpartition("=")
        key = key or "source"
        if key not in ("source", "cluster", "prompt") or not number.isdecimal() or not int(number):
            raise Usage(f"--cap: {value!r} has not the form KEY=N with source, cluster or prompt as KEY")
        if key in caps:
            raise Usage(f"--cap: {key} is given twice")
        caps[key] = int(number)
    return caps
