"""pt-curate decontaminate: rows that are there already, or that an evaluation asks."""

from dataclasses import dataclass

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.commands.curate_forms import checked, stem
from pt_tools.errors import BadData, Usage
from pt_tools.options import REQUIRED, opt


@dataclass(frozen=True)
class Decontaminate(options.Input, options.Output, options.Common):
    against: tuple = opt(REQUIRED, "Evaluation prompts, in any form that convert knows; may be given again.",
                         metavar="FILE", multiple=True, input=True, named=True)
    ngram: int = opt(8, "Words in a row that count as shared; 0 looks for equal prompts only.", least=0)
    coverage: float = opt(0.5, "Share of an evaluation prompt's words above which a row is contaminated.")
    mark: bool = opt(False, "Keep contaminated rows, with what was found in `contamination`.")
    require_clean: bool = opt(False, "Fail (exit code 3, no output) if any row is contaminated.")


DECONTAMINATE = ["pt-curate decontaminate sft.jsonl --against math500.jsonl --against ifeval.jsonl -o clean.jsonl",
                 "pt-curate decontaminate sft.jsonl --against heldout.jsonl --require-clean -o sft-proved.jsonl"]


@command("pt-curate decontaminate", Decontaminate, reads="records", writes="records", examples=DECONTAMINATE)
def decontaminate(cfg, job):
    """Drop rows whose prompts overlap evaluation prompts.

    The rule of Tulu 3: a row is contaminated if more than half of an evaluation prompt's words lie in 8-grams that the
    row's user turns share. Prompts shorter than 8 words must be equal, but for case, spacing and punctuation. Says on
    stderr how much of every evaluation every source hits, and where that is above Tulu 3's 2 %.
    """
    from pt_tools.curate.decontaminate import Table

    if not 0 <= cfg.coverage < 1:
        raise Usage("--coverage must be at least 0 and below 1")
    index = _evaluations(cfg)
    table, first = Table(index.sizes), None
    for rec in checked(job):
        hits = index.find(record.user_turns(rec))
        table.add(rec.get("source") or "none", hits)
        if hits and first is None:
            first = job.records.where, hits[0]
        if hits and not cfg.mark:
            job.rows.add("dropped", 1, f"overlaps {hits[0]['eval']}")
        else:
            job.out.write({**rec, "contamination": hits} if hits else rec)
    _say_overlap(job, table.rows())
    if cfg.require_clean and first:
        where, hit = first
        raise BadData(f"overlaps {hit['eval']} item {hit['id']} (coverage {hit['coverage']}): {hit['span'][:100]!r}", where)


def _evaluations(cfg):
    from pt_tools import stream
    from pt_tools.curate.decontaminate import Index

    index = Index(cfg.ngram, cfg.coverage)
    names = [stem(path) for path in cfg.against]
    for path, name in zip(cfg.against, names):
        reader = stream.Reader([path], arrays=True)
        for row in reader:
            try:
                rec = record.ensure_id(record.convert(row))
            except ValueError as reason:
                raise BadData(str(reason), reader.where) from None
            index.add(name if names.count(name) == 1 else path, rec["id"], record.user_turns(rec))
        if not reader.rows.n["in"]:
            raise BadData("no evaluation prompts", path)
    return index


def _say_overlap(job, rows):
    from pt_tools.curate.stats import table

    job.final["contamination"] = rows
    for line in table(rows).splitlines():
        job.say(line)
    for row in rows:
        if row["contaminated"]:
            job.say(f"{row['source']} overlaps {row['share']:.1%} of {row['eval']}, more than 2 %: contaminated as a whole")
