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
    "pt-score --raters correct,instructions,ended,format pool.jsonl -o rated.jsonl",
]


@dataclass(frozen=True)
class Config(options.Verifying, options.Input, options.Output, options.Common):
    verify: bool = opt(False, "Grade with the verifier that each record names; the reward is the sum of its scores.")
    raters: str | None = opt(
        None,
        f"Rate these aspects from 1 to 5 with the record's verifier: {', '.join(RATERS)}. The reward is their mean.",
        metavar="NAME,…",
    )
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
        scorers = [stack.enter_context(contextlib.closing(scorer)) for scorer in _scorers(cfg)]
        grading.run(job, scorers, lambda record: _check(record, scorers), explain=cfg.explain)


def _scorers(cfg):
    """The scorers that the options ask for, in the order in which they work."""
    import os

    from pt_tools.rewards import added, verifiers

    raters = _raters(cfg)
    if not (cfg.verify or cfg.verifier or raters):
        raise Usage("say how to score: --verify, --verifier or --raters")
    try:
        added.configure(cfg.verifier, cfg.unsafe_local)
    except ValueError as reason:
        raise Usage(f"--verifier: {reason}") from None
    return [verifiers.Verifiers(cfg.verify, raters, cfg.jobs or len(os.sched_getaffinity(0)))]


def _raters(cfg):
    names = tuple(name.strip() for name in (cfg.raters or "").split(",") if name.strip())
    unknown = sorted(set(names) - set(RATERS))
    if unknown or len(set(names)) < len(names):
        wrong = f"unknown rater {unknown[0]!r}" if unknown else "a rater is named twice"
        raise Usage(f"--raters: {wrong}; there are {', '.join(RATERS)}")
    return names


def _check(record, scorers):
    """ValueError if the record cannot be scored."""
    from pt_tools import record as rec

    rec.check_scores(record)
    for scorer in scorers:
        if check := getattr(scorer, "check", None):
            check(record)
