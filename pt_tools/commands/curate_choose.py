"""pt-curate pair, best: training data from scored completions."""

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt

SEED = "Seed of everything random."


def _model(name):
    """A directory as the hash that its completions have in `model`; other names as they are."""
    import os

    from pt_tools import outdir

    return outdir.identity(name) if os.path.isdir(name) else name


@options.bundle
class Choosing(options.Input, options.Output, options.Parallel, options.Common):
    score: tuple = opt((), "Go by this score instead of the reward; by the mean of several.", metavar="NAME", multiple=True)
    per_prompt: int = opt(1, "Make at most so many of every record.", least=1)
    pool: str | None = opt(None, "Join records of one id, or of one prompt, first: the samples of several rounds or models. "
                           "Rows are read twice for that, see pt-curate mix.", choices=("id", "prompt"))


@options.config
class Pair(Choosing):
    rejected: str = opt("random-lower", "The rejected completion: a random one of lower reward than the best, or the worst; "
                        "every: pairs of each completion with each of lower reward.",
                        choices=("random-lower", "worst", "every"))
    margin: float = opt(0.0, "Least difference of the two rewards.", least=0)
    gap: float = opt(0.0, "The difference of the two rewards is more than this (DeepSeek-R1: 1, over four votes).", least=0)
    length_ratio: float | None = opt(None, "The longer answer has at most so many times the characters of the shorter.",
                                     least=1)
    chosen_model: str | None = opt(None, "Whatever the rewards: chosen is by this model (a directory, a hub id, or what "
                                   "the completions say in `model`, or its beginning).", metavar="MODEL",
                                   input=lambda value: (_model(value), None))
    rejected_model: str | None = opt(None, "With --chosen-model: rejected is by this one.", metavar="MODEL",
                                     input=lambda value: (_model(value), None))
    rating_gaps: str | None = opt(None, "Rate every pair: least differences of the rewards of a slightly better, a better, "
                                  "and a significantly better answer.", metavar="S,B,L")
    margins: str = opt("reward", "What `margin` is: the difference of the rewards, or that of the pair's rating in one of "
                       "Llama 2's tables (1, 2/3, 1/3, 0, or 3, 2, 1, 0).", choices=("reward", "small", "large"))
    seed: int = opt(0, SEED, least=0)


PAIR = ["pt-curate pair scored.jsonl -o pairs.jsonl",
        "pt-curate pair scored.jsonl --rejected worst --margin 1 -o pairs.jsonl",
        "pt-curate pair scored.jsonl --rejected every --per-prompt 6 --rating-gaps 0.2,0.5,0.9 --margins large -o rm.jsonl",
        "pt-curate pair scored.jsonl --score math --gap 0.5 --length-ratio 2 -o matched.jsonl"]


@command("pt-curate pair", Pair, reads="records with rewards", writes="records", examples=PAIR)
def pair(cfg, job):
    """Make preference pairs of every record's scored completions.

    Chosen is a completion of the highest reward, rejected a random one of lower reward (Tulu 3) or the worst; or
    every two that differ; or one of a strong and one of a weak model (delta learning). Completions without a reward
    or a text are left aside; records that give no pair are dropped and counted. With --per-prompt the pairs after the
    first of record ID have the ids ID/2, ID/3, ..., which no record should have already. Rows that are pairs already get the
    margin of their `rating` with --margins, or a rating by their margin. Says on stderr how long chosen and rejected
    answers are, by source: a policy learns length where the better answers are the longer ones.
    """
    from pt_tools.curate.lengthbias import Lengths

    total = Lengths()
    for part in _each(cfg, job, _pairs, _pair_rule(cfg)):
        total.merge(part)
    if total.sources:
        job.final["length_bias"] = total.report()
        for line in total.lines():
            job.say(line)


def _pairs(records, out, rule):
    from pt_tools.curate import pairs
    from pt_tools.curate.lengthbias import Lengths

    lengths = Lengths()
    for made in _made(records, out, pairs.pairs, rule):
        lengths.add(made)
    return lengths


def _pair_rule(cfg):
    """What the options say, as the engine wants it."""
    from pt_tools.curate import pairs

    models = None
    if cfg.chosen_model or cfg.rejected_model:
        if not (cfg.chosen_model and cfg.rejected_model):
            raise Usage("--chosen-model and --rejected-model belong together")
        options.refuse_unused(cfg, ("score", "rejected", "margin", "gap", "rating_gaps", "margins"),
                              "is about rewards, which --chosen-model leaves aside")
        models = tuple(map(_model, (cfg.chosen_model, cfg.rejected_model)))
    return pairs.Rule(cfg.rejected, cfg.score, cfg.gap, cfg.margin, cfg.length_ratio, cfg.per_prompt, models,
                      _gaps(cfg.rating_gaps), None if cfg.margins == "reward" else cfg.margins, cfg.seed)


def _gaps(text):
    if text is None:
        return None
    try:
        gaps = tuple(float(part) for part in text.split(","))
    except ValueError:
        gaps = ()
    if len(gaps) != 3 or not 0 <= gaps[0] <= gaps[1] <= gaps[2] < float("inf"):
        raise Usage("--rating-gaps are three rising numbers: of slightly better, better, significantly better")
    return gaps


@options.config
class Best(Choosing):
    min_reward: float | None = opt(None, "Keep only completions of at least this reward.")
    passes: tuple = opt((), "Keep only completions with this score at least so high; all of several.", metavar="NAME>=X",
                        multiple=True)
    pass_rate: str | None = opt(None, "Keep only prompts of which such a share of completions passes: --passes, "
                                "--min-reward, or without them a reward (or --score) of 1 or more.", metavar="LO:HI")
    prompts: bool = opt(False, "With --pass-rate: write the prompts, for another round of sampling or pt-rlvr.")
    majority: float | None = opt(None, "Keep only completions whose final answer is the most frequent, where it has at "
                                 "least this share of the completions with a text, and no other is as frequent "
                                 "(self-consistency; rewards are not needed).", least=0, most=1)
    vote: bool = opt(False, "With several --score: best is what most of them put first.")


BEST = ["pt-curate best scored.jsonl -o sft.jsonl", "pt-curate best scored.jsonl --min-reward 1 --per-prompt 2 -o sft.jsonl",
        "pt-curate best scored.jsonl --pass-rate 0.1:0.9 --prompts -o rlvr.jsonl",
        "pt-curate best samples.jsonl --majority 0.5 -o agreed.jsonl",
        "pt-curate best samples.jsonl scored.jsonl --pool id -o best.jsonl"]


@command("pt-curate best", Best, reads="records with rewards", writes="records", examples=BEST)
def best(cfg, job):
    """Make conversations of the best completions (rejection sampling).

    Every kept completion becomes one record with messages, its reward and its rank; with --per-prompt those after the
    first of record ID have the ids ID/2, ID/3, ..., which no record should have already. Of equal rewards the first goes
    before; equal texts count once. Records without one that qualifies are dropped and counted. With --pool id or prompt
    the samples of earlier rounds are among them (Llama 2); score them anew first, as rewards of two models are not
    comparable.
    """
    for _ in _each(cfg, job, _bests, _best_rule(cfg)):
        pass


def _bests(records, out, rule):
    from pt_tools.curate import choose

    for _ in _made(records, out, choose.best, rule):
        pass


def _best_rule(cfg):
    from pt_tools.curate import choose
    from pt_tools.curate.completions import limit

    try:
        limits = tuple(map(limit, cfg.passes))
    except ValueError as error:
        raise Usage(f"--passes: {error}") from None
    if cfg.vote and len(cfg.score) < 2:
        raise Usage("--vote is of use only with several --score")
    if cfg.prompts:
        if not cfg.pass_rate:
            raise Usage("--prompts is of use only with --pass-rate")
        by_score = cfg.min_reward is not None or not limits
        options.refuse_unused(cfg, ("per_prompt", "majority", "vote", *(() if by_score else ("score",))),
                              "is about completions, which --prompts leaves out")
    passing = (*limits, *([(None, cfg.min_reward)] if cfg.min_reward is not None else []))
    return choose.Rule(cfg.per_prompt, cfg.score, cfg.vote, limits, cfg.min_reward, _band(cfg.pass_rate),
                       passing or choose.Rule.passing, cfg.majority, cfg.prompts)


def _band(text):
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise Usage(f"--pass-rate: {text!r} has not the form LO:HI") from None
    if not 0 <= low <= high <= 1:
        raise Usage("--pass-rate: the bounds lie between 0 and 1")
    return low, high


# --- both ---------------------------------------------------------------------------------------------------------


def _each(cfg, job, work, rule):
    """What `work(records, out, rule)` returns, over blocks of the input or over its pooled records."""
    from pt_tools import blocks

    if len(set(cfg.score)) < len(cfg.score):
        raise Usage("--score: a name is given twice")
    if cfg.pool is None:
        yield from blocks.each(job, work, rule, jobs=cfg.jobs)
        return
    from pt_tools import pooling, readback

    with readback.opened(job) as files:
        yield work(pooling.Pooled(job, files, cfg.pool, cfg.jobs), job.out, rule)


def _made(records, out, make, rule):
    """Write what `make(record, rule)` makes of every record, and yield it; count what it makes nothing of."""
    for rec in record.checked(records):
        try:
            made, why = make(record.ensure_id(rec), rule)
        except ValueError as reason:
            records.reject(str(reason), rec)
            continue
        if not made:
            records.rows.add("dropped", 1, why)
        elif len(made) > 1:
            records.rows.add("in", len(made) - 1, "further ones of a record")
        for one in made:
            out.write(one)
            yield one
