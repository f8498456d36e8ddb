"""pt-curate convert, validate, stats: into records, and what is in them."""

from pt_tools import options, record, stream
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import opt


def checked(job):
    """The rows that are records; others are rejected by file and line."""
    return record.checked(job.records)


@options.config
class Convert(options.Input, options.Output, options.Parallel, options.Common):
    files: tuple = opt(("-",), "JSONL files (.gz and .zst too; '-' is stdin) or files of one JSON array; or tables: "
                       ".parquet, .arrow, .csv, .tsv.", multiple=True, input=True, named=True)
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

    Reads the forms that --format names, from JSONL, from files that are one JSON array, and from tables. Every record
    gets an id (a hash of its content if the data has none) and a source; keys that the form does not define pass
    through. A row with a fault, such as an empty turn, roles that do not alternate or a chat template's token in a
    content, is a bad row. Says how many rows had which form.

    In a CSV file a cell that starts with [ or { is read as JSON, every other one is text. A file that is one JSON array
    is held in memory, everything else streams; -j works on JSONL.
    """
    from collections import Counter

    from pt_tools import blocks

    rows, forms = _tables(cfg, job), Counter()
    if rows is None:
        job.records.arrays = True
        for found in blocks.each(job, _convert, cfg, jobs=cfg.jobs):
            forms.update(found)
    else:
        options.refuse_unused(cfg, ("jobs",), "works on JSONL; tables are read by one process")
        job.records.begin()
        forms.update(_convert_rows(rows, job.records, job.out, cfg))
    job.final["formats"] = dict(forms.most_common())
    if len(forms) > 1 and not cfg.format:
        job.say("formats: " + ", ".join(f"{name} {n}" for name, n in forms.most_common()))


def _convert(records, out, cfg):
    from pt_tools.curate import formats

    if cfg.format in (None, "messages"):
        records.plain = formats.is_record
    return _convert_rows(records, records, out, cfg)


def _convert_rows(rows, records, out, cfg):
    """Write a record of every row; how many were of which form."""
    from collections import Counter

    from pt_tools.curate import formats

    forms = Counter()
    for row in rows:
        try:
            form = "messages" if records.is_plain else cfg.format or formats.detect(row)
            rec = row if records.is_plain else formats.convert(row, form)
        except ValueError as reason:
            records.reject(str(reason), row)
        else:
            forms[form] += 1
            out.write(_labelled(rec, cfg, records))
    return forms


def _labelled(rec, cfg, records):
    """The record with id, source and domain first."""
    if records.is_plain and tuple(rec) == ("id", "source", "messages") and not (cfg.source or cfg.domain):
        return rec  # the commonest, as it is
    labels = {"id": rec.get("id") or record.content_hash(rec),
              "source": cfg.source or rec.get("source") or cfg.dataset or stream.stem(records.where.rpartition(":")[0]),
              "domain": cfg.domain or rec.get("domain")}
    for key in labels:
        rec.pop(key, None)
    return {key: value for key, value in labels.items() if value} | rec


def _tables(cfg, job):
    """The rows of the tables that are the input, counted as they come; None where the input is JSON."""
    from pt_tools.curate import tables

    files = job.records.files
    if cfg.split != "train" and not cfg.dataset:
        raise Usage("--split is of use only with --dataset")
    if cfg.dataset and files != ("-",):
        raise Usage("--dataset and files at once; convert them one after the other")
    if cfg.dataset:
        return _counted(job, {f"{cfg.dataset}/{cfg.split}": lambda: tables.hub(cfg.dataset, cfg.split)})
    for path in files:
        if path.lower().endswith((".xlsx", ".xls", ".ods", ".pkl", ".pt")):
            raise Usage(f"{path}: not a form that is read; write it as JSONL, CSV or Parquet first")
    found = [path for path in files if tables.is_table(path)]
    if found and len(found) < len(files):
        raise Usage("tables and JSON at once; convert them one after the other")
    return _counted(job, {path: lambda path=path: _opened(tables, path) for path in found}) if found else None


def _opened(tables, path):
    with stream.open_input(path) as file:
        yield from tables.rows(path, file)


def _counted(job, inputs):
    """The rows of tables (name -> what gives numbered rows), with the accounts that a reader of JSONL keeps."""
    from pt_tools import stop

    for name, numbered in inputs.items():
        for number, row in numbered():
            stop.check()
            job.rows.add("in")
            job.records.where = f"{name}:{number}"
            if isinstance(row, ValueError):
                job.records.reject(str(row), row.raw)
            else:
                yield row


@options.config
class Validate(options.Input, options.Parallel, options.Common):
    pass


VALIDATE = ["pt-curate validate sft.jsonl", "pt-curate validate --on-error skip --rejects bad.jsonl sft.jsonl"]


@command("pt-curate validate", Validate, reads="records", writes="report", examples=VALIDATE)
def validate(cfg, job):
    """Check records, and say where the first fault is (exit code 3).

    Checks types, roles, empty contents, template tokens in contents, verifiers and ids that occur twice. With
    --on-error skip all faults are counted, and written with --rejects; nothing else is written. The ids are held in
    memory.
    """
    from pt_tools import blocks

    seen = {}
    for events, end in blocks.each(job, _faults, cfg.rejects is not None, jobs=cfg.jobs):
        for where, id, reason, row in events:
            if reason is None and id in seen:
                reason = f"id {id!r:.60} was at {seen[id]} already"
            if reason is not None:
                job.records.reject(reason, row, where)
                continue
            job.rows.add("out")
            if id is not None:
                seen[id] = where
        if end is not None:
            raise end
    if cfg.json:
        print_json(job.summary())


def _faults(records, out, with_rows):
    """(where, id, fault or None, row) of every row of a block in order, and the error that ended it, if one did.

    Ids are compared where the whole stream is seen, and so faults are reported there too, in the order of the rows.
    """
    from pt_tools import rewards

    records.on_error, sound, end = "skip", [], None
    try:
        for rec in record.checked(records):
            try:
                if rec.get("verifier") is not None:
                    rewards.check(rec)
            except ValueError as reason:
                records.reject(str(reason), rec)
            else:
                sound.append((records.where, rec.get("id"), None, rec if with_rows else None))
    except BadData as error:
        end = error
    bad, records.rejected = [(where, None, reason, row) for where, reason, row in records.rejected], []
    return sorted(sound + bad, key=lambda event: int(event[0].rpartition(":")[2])), end


def print_json(value):
    import json

    print(json.dumps(value, ensure_ascii=False))

@options.config
class Stats(options.Input, options.Tokens, options.Parallel, options.Common):
    languages: bool = opt(False, "Detect the language of every record.")
    plot: str | None = opt(None, "Draw the histogram of a measure instead of the table.", choices=(
        "turns", "prompt_chars", "response_chars", "response_words", "prompt_tokens", "response_tokens"))


STATS = ["pt-curate stats sft.jsonl", "pt-curate stats --json --languages sft.jsonl",
         "pt-curate stats --plot response_words sft.jsonl"]


@command("pt-curate stats", Stats, reads="records", writes="report", examples=STATS)
def stats(cfg, job):
    """Count records and measure their lengths, by source and domain.

    Lengths are in characters and words, with --tokenizer in tokens too. Prints a table; with --json one object with all
    quantiles. What filter --mark found is counted by rule; of a file with a manifest the reasons why rows were dropped
    when it was made are told. Memory grows with the number of different lengths and sources, not with the rows.
    """
    from pt_tools import blocks
    from pt_tools.curate import lengths
    from pt_tools.curate import stats as counting

    if cfg.plot and cfg.json:
        raise Usage("--plot draws for people; it does not go with --json")
    if cfg.plot in ("prompt_tokens", "response_tokens") and not cfg.tokenizer:
        raise Usage(f"--plot {cfg.plot} needs --tokenizer")
    lengths.check(cfg)
    total = counting.Stats()
    for part in blocks.each(job, _stats, cfg, jobs=cfg.jobs):
        total.merge(part)
    report = total.report() | {"files": _manifests(job.records.files)}
    if cfg.json:
        print_json(report)
    elif cfg.plot:
        print("\n".join(counting.histogram(total.counts(cfg.plot))))
    else:
        print(counting.table(counting.overview(report)))
        _say_manifests(job, report["files"])


def _stats(records, out, cfg):
    """The Stats of a block."""
    from pt_tools.curate import faults, lengths, texts
    from pt_tools.curate import stats as counting

    part, counter = counting.Stats(), lengths.of(cfg)
    for rec in record.checked(records):
        try:
            tokens = counter.count(rec) if counter else None
        except ValueError as reason:
            records.reject(str(reason), rec)
            continue
        part.add(rec, tokens, (faults.spoken("\n".join(texts.texts(rec, "all"))) or "none") if cfg.languages else None)
        records.rows.add("out")
    return part


def _manifests(files):
    """Command and row accounting of the run that made a file, where a manifest lies beside it."""
    import json

    found = {}
    for path in files:
        try:
            with open(f"{path}.manifest.json", encoding="utf-8") as file:
                manifest = json.load(file)
            found[path] = {"command": manifest["command"], "rows": manifest["rows"],
                           "by_source": manifest["final"].get("by_source", {})}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def _say_manifests(job, files):
    for path, made in files.items():
        reasons = made["rows"].get("reasons") if isinstance(made["rows"], dict) else None
        if reasons:
            job.say(f"{path} was made with: " + ", ".join(f"{reason} {n}" for reason, n in reasons.items()))
