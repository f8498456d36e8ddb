"""pt-score: grade the completions of records."""

from dataclasses import dataclass

from pt_tools import options
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt

RATERS = ("correct", "instructions", "ended", "format")
EXAMPLES = [
    "pt-score --verify samples.jsonl -o scored.jsonl",
    "pt-sample prompts.jsonl -m sft/ -n 16 | pt-score --verify -j 2 | pt-curate best > good.jsonl",
    "pt-score --verify --verifier format --explain samples.jsonl -o r1.jsonl",
    "pt-score --reward-model helpful=rm-h/ --reward-model safe=rm-s/ --combine 'llama2(helpful, safe)' samples.jsonl -o r.jsonl",
    "pt-score --logprobs math=teacher/ samples.jsonl -o with-teacher.jsonl",
    "pt-score --raters correct,instructions,ended,format pool.jsonl -o rated.jsonl",
]


@dataclass(frozen=True)
class Config(options.Verifying, options.Input, options.Output, options.Device, options.Common):
    verify: bool = opt(False, "Grade with the verifier that each record names; the reward is the sum of its scores.")
    raters: str | None = opt(
        None,
        f"Rate these aspects from 1 to 5 with the record's verifier: {', '.join(RATERS)}. The reward is their mean.",
        metavar="NAME,…",
    )
    reward_model: tuple = opt((), "Score with this reward model; NAME is the score's.", metavar="NAME=DIR", multiple=True,
                              input=options.pair)
    logprobs: tuple = opt((), "Add the log-probs of the completions under this model, as teacher NAME.", metavar="NAME=DIR",
                          multiple=True, input=options.pair)
    combine: str | None = opt(None, "Make the reward of the scores: sum, 0.7*helpful + 0.3*math, mean(a, b), min(a, b), "
                              "all(math, helpful>=0.5) or llama2(helpful, safety); also of scores that are there already.",
                              metavar="RULE")
    batch_size: int = opt(32, "Completions per forward pass of a reward model.", least=1)
    jobs: int = opt(1, "Processes that verify at once; 0 is one a core.", short="-j", least=0, result=False)
    explain: bool = opt(False, "Print what was found in each completion, and why it scores so, on stderr.", result=False)


@command("pt-score", Config, reads="records with completions", writes="records", examples=EXAMPLES)
def main(cfg, job):
    """Grade completions.

    A completion's own failure (empty, no answer, too large) scores 0, with the reason in `details`. A failure of the
    data or the grader (no gold answer, unknown instruction) goes to `errors`: no score, reward null, row counted as
    masked. A record without completions or with a verifier that does not exist is a bad row. Rows keep their order;
    with -o a run that was stopped or killed goes on where it was.
    """
    import contextlib

    from pt_tools import grading

    with contextlib.ExitStack() as stack:
        rule = _rule(cfg)
        scorers = [stack.enter_context(contextlib.closing(scorer)) for scorer in _scorers(cfg)]
        grading.run(job, scorers, lambda record: _check(record, scorers), rule, cfg.explain)


MODELS = ("reward_model", "logprobs")


def _scorers(cfg):
    """The scorers that the options ask for, in the order in which they work; models are loaded as they are reached."""
    import os

    from pt_tools.rewards import verifiers

    raters = _raters(cfg)
    if cfg.verify or cfg.verifier or raters:
        yield verifiers.Verifiers(cfg.verify, raters, cfg.jobs or len(os.sched_getaffinity(0)))
    else:
        options.refuse_unused(cfg, ("jobs", "unsafe_local"), "is of use only with verifiers")
    if not (cfg.reward_model or cfg.logprobs):
        options.refuse_unused(cfg, options.fields(options.Device), "is of use only with a model")
        options.refuse_unused(cfg, ("batch_size",), "is of use only with --reward-model")
        return
    from pt_tools import scoring

    for name, path in map(options.pair, cfg.reward_model):
        yield scoring.RewardModel(name, path, cfg, cfg.batch_size)
    for name, path in map(options.pair, cfg.logprobs):
        yield scoring.Logprobs(name, path, cfg)


def _raters(cfg):
    names = tuple(name.strip() for name in (cfg.raters or "").split(",") if name.strip())
    unknown = sorted(set(names) - set(RATERS))
    if unknown or len(set(names)) < len(names):
        wrong = f"unknown rater {unknown[0]!r}" if unknown else "a rater is named twice"
        raise Usage(f"--raters: {wrong}; there are {', '.join(RATERS)}")
    return names


def _rule(cfg):
    """The rule that makes the reward; None where the verifiers or raters make it, or nobody does."""
    from pt_tools.rewards import added, combine

    asked = [name for name in ("verify", "verifier", "raters", "reward_model") if getattr(cfg, name)]
    if not (asked or cfg.logprobs or cfg.combine):
        raise Usage("say how to score: --verify, --verifier, --raters, --reward-model, --logprobs or --combine")
    try:
        added.configure(cfg.verifier, cfg.unsafe_local)
        rule = combine.parse(cfg.combine) if cfg.combine else None
    except ValueError as reason:
        raise Usage(str(reason)) from None
    names = [name for name, _ in map(options.pair, cfg.reward_model)]
    _check_names(names, [name for name, _ in map(options.pair, cfg.logprobs)])
    if rule is None and names:
        if len(names) > 1 or len(asked) > 1:
            raise Usage("several scores and no reward: say how to --combine them")
        rule = combine.parse(f'"{names[0]}"')
    return rule


def _check_names(*groups):
    for names in groups:
        for name in names:
            if not name or '"' in name or names.count(name) > 1:
                raise Usage(f"a model needs a name of its own: NAME=DIR, not {name!r}")


def _check(record, scorers):
    """ValueError if the record cannot be scored."""
    from pt_tools import record as rec

    rec.check_scores(record)
    for scorer in scorers:
        if check := getattr(scorer, "check", None):
            check(record)
