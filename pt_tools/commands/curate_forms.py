"""pt-curate convert, validate, stats: into records, and what is in them."""

from dataclasses import dataclass

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt


def checked(job):
    """The rows that are records; others are rejected by file and line."""
    return record.checked(job.records)


@dataclass(frozen=True)
class Convert(options.Input, options.Output, options.Common):
    files: tuple = opt(("-",), "JSONL files, .gz and .zst too; '-' is stdin.", multiple=True, input=True, named=True)
    format: str | None = opt(None, "Form of the input; without it each row is told by its keys.",
                             choices=record.FORMATS)
    source: str | None = opt(None, "Source of every row; without it what the row says, else the file's name.",
                             metavar="NAME")
    domain: str | None = opt(None, "Domain of every row; without it what the row says.", metavar="NAME")
    dataset: str | None = opt(None, "Read a data set of the hub, or a directory of one, instead of files.",
                              metavar="NAME[:CONFIG]")
    split: str = opt("train", "With --dataset: the split to read.")


CONVERT = ["pt-curate convert alpaca.json --source alpaca -o sft.jsonl",
           "pt-curate convert gsm8k/train.jsonl --source gsm8k --domain math -o prompts.jsonl"]


@command("pt-curate convert", Convert, reads="rows of any known form", writes="records", examples=CONVERT)
def convert(cfg, job):
    """Turn data into records.

    Reads JSONL, and files that are one JSON array (held in memory), in the forms that --format names. Every record
    gets an id (a hash of its content if the data has none) and a source; keys that the form does not define pass
    through. A row with a fault, such as an empty turn, roles that do not alternate or a chat template's token in a
    content, is a bad row.
    """
    for path in job.records.files:
        if path.lower().endswith((".parquet", ".arrow", ".csv", ".tsv", ".xlsx")):
            raise Usage(f"{path}: only JSONL and JSON are read; write it as JSONL first (datasets: to_json)")
    if cfg.split != "train" and not cfg.dataset:
        raise Usage("--split is of use only with --dataset")
    job.records.arrays = True
    for row in _hub_rows(cfg, job) if cfg.dataset else job.records:
        try:
            rec = record.convert(row, cfg.format)
        except ValueError as reason:
            job.records.reject(str(reason), row)
            continue
        job.out.write(_labelled(rec, cfg, job.records.where))


def _hub_rows(cfg, job):
    """The rows of a data set, streamed, without the nulls that Arrow puts where a row lacks a key."""
    from pt_tools.curate import hub

    if job.records.files != ("-",):
        raise Usage("--dataset and files at once; convert them one after the other")
    for number, row in enumerate(hub.rows(cfg.dataset, cfg.split), 1):
        job.rows.add("in")
        job.records.where = f"{cfg.dataset}/{cfg.split}:{number}"
        yield row


def _labelled(rec, cfg, where):
    source = cfg.source or rec.get("source") or cfg.dataset or stem(where.rpartition(":")[0])
    labels = {"id": record.ensure_id(rec)["id"], "source": source, "domain": cfg.domain or rec.get("domain")}
    return {**{key: value for key, value in labels.items() if value}, **{k: v for k, v in rec.items() if k not in labels}}


def stem(path):
    """The name of a file without folders and endings: data/gsm8k.jsonl.gz is gsm8k."""
    name = path.rpartition("/")[2].split(".")[0]
    return name.encode(errors="backslashreplace").decode() if path != "stdin" else None


@dataclass(frozen=True)
class Validate(options.Input, options.Common):
    pass


VALIDATE = ["pt-curate validate sft.jsonl", "pt-curate validate --on-error skip --rejects bad.jsonl sft.jsonl"]


@command("pt-curate validate", Validate, reads="records", writes="report", examples=VALIDATE)
def validate(cfg, job):
    """Check records, and say where the first fault is (exit code 3).

    Checks types, roles, empty contents, template tokens in contents, verifiers and ids that occur twice. With
    --on-error skip all faults are counted, and written with --rejects; nothing else is written.
    """
    from pt_tools import rewards

    seen = {}
    for rec in checked(job):
        try:
            if rec.get("verifier") is not None:
                rewards.check(rec)
            _check_new(rec.get("id"), job.records.where, seen)
        except ValueError as reason:
            job.records.reject(str(reason), rec)
        else:
            job.rows.add("out")
    if cfg.json:
        print_json(job.summary())


def _check_new(id, where, seen):
    if id is not None and id in seen:
        raise ValueError(f"id {id!r:.60} was at {seen[id]} already")
    seen[id] = where


def print_json(value):
    import json

    print(json.dumps(value, ensure_ascii=False))


@dataclass(frozen=True)
class Stats(options.Input, options.Common):
    pass


@command("pt-curate stats", Stats, reads="records", writes="report",
         examples=["pt-curate stats sft.jsonl", "pt-curate stats --json sft.jsonl"])
def stats(cfg, job):
    """Count records and measure their lengths, by source and domain.

    Lengths are in characters and words. Prints a table; with --json one object with all quantiles.
    """
    from pt_tools.curate import stats as counting

    total = counting.Stats()
    for rec in checked(job):
        total.add(rec)
        job.rows.add("out")
    report = total.report()
    if cfg.json:
        print_json(report)
    else:
        print(counting.table(counting.overview(report)))
