"""pt-curate pair, best: training data from scored completions."""

from dataclasses import dataclass

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.commands.curate_forms import checked
from pt_tools.options import opt

SEED = "Seed of everything random."


@dataclass(frozen=True)
class Pair(options.Input, options.Output, options.Common):
    rejected: str = opt("random-lower", "The rejected completion: a random one of lower reward, or the worst.",
                        choices=("random-lower", "worst"))
    margin: float = opt(0.0, "Least difference of the two rewards.", least=0)
    seed: int = opt(0, SEED, least=0)


PAIR = ["pt-curate pair scored.jsonl -o pairs.jsonl", "pt-curate pair scored.jsonl --rejected worst --margin 1 -o pairs.jsonl"]


@command("pt-curate pair", Pair, reads="records with rewards", writes="records", examples=PAIR)
def pair(cfg, job):
    """Make one preference pair of every record's scored completions.

    Chosen is a completion of the highest reward, rejected a random one of lower reward (Tulu 3) or the worst.
    Completions without a reward or a text are left aside; records that give no pair are dropped and counted.
    """
    from pt_tools.curate import choose

    lengths = []
    for rec in checked(job):
        try:
            made, why = choose.pair(record.ensure_id(rec), cfg.seed, cfg.rejected, cfg.margin)
        except ValueError as reason:
            job.records.reject(str(reason), rec)
            continue
        if made is None:
            job.rows.add("dropped", 1, why)
            continue
        job.out.write(made)
        lengths.append([len(made[key][0]["content"]) for key in ("chosen", "rejected")])
    if lengths:
        _say_lengths(job, *zip(*lengths))


def _say_lengths(job, chosen, rejected):
    """A policy learns length where the better answers are the longer ones; so it is said."""
    n = len(chosen)
    longer = sum(a > b for a, b in zip(chosen, rejected)) / n
    job.final["length_bias"] = {"chosen_chars": sum(chosen) / n, "rejected_chars": sum(rejected) / n, "chosen_longer": longer}
    job.say(f"mean length: chosen {sum(chosen) / n:.1f}, rejected {sum(rejected) / n:.1f} characters; "
            f"chosen is longer in {longer:.0%} of the pairs")


@dataclass(frozen=True)
class Best(options.Input, options.Output, options.Common):
    per_prompt: int = opt(1, "Completions to keep of every prompt, best first.", least=1)
    min_reward: float | None = opt(None, "Keep only completions of at least this reward.")


BEST = ["pt-curate best scored.jsonl -o sft.jsonl", "pt-curate best scored.jsonl --min-reward 1 --per-prompt 2 -o sft.jsonl"]


@command("pt-curate best", Best, reads="records with rewards", writes="records", examples=BEST)
def best(cfg, job):
    """Make conversations of the best completions (rejection sampling).

    Every kept completion becomes one record with messages, its reward and its rank. Records without one that
    qualifies are dropped and counted.
    """
    from pt_tools.curate import choose

    for rec in checked(job):
        try:
            kept, why = choose.best(record.ensure_id(rec), cfg.per_prompt, cfg.min_reward)
        except ValueError as reason:
            job.records.reject(str(reason), rec)
            continue
        if not kept:
            job.rows.add("dropped", 1, why)
        elif len(kept) > 1:
            job.rows.add("in", len(kept) - 1, "further completions of a prompt")
        for made in kept:
            job.out.write(made)
