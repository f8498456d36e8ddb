"""pt-score: grade the completions of records."""

from dataclasses import dataclass

from pt_tools import options
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt

RATERS = ("correct", "instructions", "ended", "format")
EXAMPLES = [
    "pt-score --verify samples.jsonl -o scored.jsonl",
    "pt-sample prompts.jsonl -m sft/ -n 16 | pt-score --verify | pt-curate best > good.jsonl",
    "pt-score --raters correct,instructions,ended,format pool.jsonl -o rated.jsonl",
]


@dataclass(frozen=True)
class Config(options.Input, options.Output, options.Common):
    verify: bool = opt(False, "Grade with the verifier that each record names; the reward is the sum of its scores.")
    raters: str | None = opt(
        None,
        f"Rate these aspects from 1 to 5 with the record's verifier: {', '.join(RATERS)}. The reward is their mean.",
        metavar="NAME,…",
    )


@command("pt-score", Config, reads="records with completions", writes="records", examples=EXAMPLES)
def main(cfg, job):
    """Grade completions.

    A completion's own failure (empty, no answer, too large) scores 0, with the reason in `details`. A failure of the
    data or the grader (no gold answer, unknown instruction) goes to `errors`: no score, reward null, row counted as
    masked. A record without completions or with a verifier that does not exist is a bad row.
    """
    raters = _raters(cfg)
    if not (cfg.verify or raters):
        raise Usage("say how to score: --verify, --raters, or both")
    for record in job.records:
        try:
            _score(record, cfg.verify, raters)
        except ValueError as reason:
            job.records.reject(str(reason), record)
            continue
        if reason := _failure(record):
            job.rows.add("masked", 1, reason)
        job.out.write(record)


def _raters(cfg):
    names = tuple(name.strip() for name in (cfg.raters or "").split(",") if name.strip())
    unknown = sorted(set(names) - set(RATERS))
    if unknown or len(set(names)) < len(names):
        wrong = f"unknown rater {unknown[0]!r}" if unknown else "a rater is named twice"
        raise Usage(f"--raters: {wrong}; there are {', '.join(RATERS)}")
    return names


def _score(record, verify, raters):
    from pt_tools import record as rec, rewards
    from pt_tools.rewards import raters as rating

    rec.check_scores(record)
    for _, spec in rewards.specs(record):
        rewards.module_of(spec)
    if verify:
        rewards.score(record)
    failed = [completion for completion in record["completions"] if verify and completion["reward"] is None]
    if raters:
        rating.rate(record, raters)
    for completion in failed:  # a rater that needs no verifier does not make up for one that failed
        completion["reward"] = None


def _failure(record):
    """The first grader's failure of a record, None if every completion has its reward."""
    failed = (completion for completion in record["completions"] if completion["reward"] is None)
    return next((f"{key}: {why}" for completion in failed for key, why in completion["errors"].items()), None)
