"""pt-curate split, mix: which records go where."""

from dataclasses import dataclass

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.commands.curate_forms import checked
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


@dataclass(frozen=True)
class Split(options.Input, options.Common):
    part: tuple = opt(REQUIRED, "A part and its share of the prompts.", metavar="NAME=SHARE", multiple=True)
    out: str = opt(REQUIRED, "Files to write, with {part} where the name goes.", short="-o", metavar="FILE", result=False)
    seed: int = opt(0, SEED, least=0)


SPLIT = ["pt-curate split all.jsonl --part train=0.9 --part dev=0.1 -o 'data/{part}.jsonl'"]


@command("pt-curate split", Split, reads="records", writes="files", examples=SPLIT)
def split(cfg, job):
    """Split records into parts that share no prompt.

    A record's part follows from a hash of its prompt (user turns, whatever their case, spacing and punctuation) and
    the seed: the same prompt is always in the same part, in every file. Shares that sum to less than 1 leave the
    rest out.
    """
    from pt_tools import parts
    from pt_tools.curate import mix

    shares = _shares(cfg.part)
    if "{part}" not in cfg.out:
        raise Usage("--out needs {part} where the name of the part goes")
    with parts.opened(split, job, {name: cfg.out.replace("{part}", name) for name in shares}) as out:
        job.out = out
        if out.done:
            job.say("all parts are complete and up to date; nothing to do")
            return
        for rec in checked(job):
            name = mix.part_of(rec, shares, cfg.seed)
            if name is None:
                job.rows.add("dropped", 1, "in no part")
            else:
                out.write(name, rec)


def _shares(parts):
    try:
        shares = {name: float(share) for name, share in rates(parts, "--part").items()}
    except ValueError as error:
        raise Usage(f"--part: {error}") from None
    if not all(0 < share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise Usage("--part: shares lie between 0 and 1 and sum to at most 1")
    return shares


@dataclass(frozen=True)
class Mix(options.Input, options.Output, options.Common):
    take: tuple = opt((), "Rows of a file: so many (500), or a share (0.5, 50%; above 1 rows repeat). Default: all.",
                      metavar="FILE=N", multiple=True)
    weight: tuple = opt((), "With --total: a file's part of the mixture; 1 where not given.", metavar="FILE=W",
                        multiple=True)
    total: int | None = opt(None, "Rows of the mixture, divided by --weight.", least=1)
    cap: int | None = opt(None, "At most so many rows of one source.", least=1)
    seed: int = opt(0, SEED, least=0)


MIX = ["pt-curate mix math.jsonl chat.jsonl --take math.jsonl=500 --take chat.jsonl=0.5 -o mix.jsonl",
       "pt-curate mix math.jsonl chat.jsonl --total 300 --weight math.jsonl=2 -o mix.jsonl"]


@command("pt-curate mix", Mix, reads="records", writes="records", examples=MIX)
def mix(cfg, job):
    """Mix files in given amounts, in random order.

    Which rows are taken, and their order, follow from hashes of the ids and the seed: the result does not depend on
    the order of the rows or of the files. Rows are held in memory.
    """
    from pt_tools.curate import mix as mixing

    amounts, weights = _amounts(cfg, job.records.files)
    pools = _pools(cfg, job)
    sizes = {name: len(pool) for name, pool in pools.items()}
    try:
        counts = mixing.plan(sizes, mixing.shares(cfg.total, weights) if cfg.total else amounts)
    except ValueError as error:
        raise BadData(str(error)) from None
    for name, size in sizes.items():
        if counts[name] < size:
            job.rows.add("dropped", size - counts[name], f"not taken of {name}")
        elif counts[name] > size:
            job.rows.add("in", counts[name] - size, f"repeated of {name}")
    chosen = [item for name, pool in pools.items() for item in mixing.choose(pool, counts[name], cfg.seed)]
    for rec in mixing.shuffle(chosen, cfg.seed):
        job.out.write(rec)


def _amounts(cfg, files):
    """What --take and --weight say, checked before anything is read."""
    from pt_tools.curate import mix as mixing

    take, weight = rates(cfg.take, "--take"), rates(cfg.weight, "--weight")
    unknown = sorted((take.keys() | weight.keys()) - set(files))
    if unknown:
        raise Usage(f"{unknown[0]} is not among the files to mix")
    if (weight and not cfg.total) or (take and cfg.total):
        raise Usage("give --take, or --total with --weight")
    try:
        amounts = {name: mixing.amount(rule) for name, rule in take.items()}
        weights = {name: float(weight.get(name, 1)) for name in files}
    except ValueError as error:
        raise Usage(f"--take or --weight: {error}") from None
    if not (all(w >= 0 for w in weights.values()) and 0 < sum(weights.values()) < float("inf")):
        raise Usage("--weight: weights are at least 0, and one is above")
    return amounts, weights


def _pools(cfg, job):
    """The records of every file with ids, at most --cap of a source."""
    from pt_tools.curate import mix as mixing

    pools = {name: [] for name in job.records.files}
    for rec in checked(job):
        name = job.records.where.rpartition(":")[0]
        pools["-" if name == "stdin" and name not in pools else name].append(record.ensure_id(rec))
    if cfg.cap is None:
        return pools
    kept = mixing.capped(pools, cfg.cap, cfg.seed)
    if dropped := sum(map(len, pools.values())) - sum(map(len, kept.values())):
        job.rows.add("dropped", dropped, "above --cap of its source")
    return kept
