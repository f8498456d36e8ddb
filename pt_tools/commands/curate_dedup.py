"""pt-curate dedup, sketch, cluster, decontaminate: rows that are there already, or that an evaluation asks."""

import functools
from dataclasses import dataclass

from pt_tools import options, record, stream
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import REQUIRED, opt


@options.bundle
class Copies:
    threshold: float = opt(0.7, "Least share of the runs of 5 words of two near copies that both have (Jaccard index).",
                           above=0, most=1)
    on: str = opt("all", "What is compared: the conversation, the user's turns, or the answers.",
                  choices=("all", "prompt", "response"))
    keep: str = opt("first", "The copy that stays: the first, the longest, or the best, which has the highest score.",
                    choices=("first", "longest", "best"))
    score: str = opt("reward", "With --keep best: the field of the score, as meta.quality; for reward a record without one has "
                     "that of its best completion.", metavar="FIELD")
    prefer: tuple = opt((), "A source whose row stays rather than that of another; several in order.", metavar="SOURCE",
                        multiple=True)


@dataclass(frozen=True)
class Dedup(Copies, options.Input, options.Output, options.Parallel, options.Common):
    near: bool = opt(False, "Find near copies too: texts that share most of their runs of 5 words.")
    mark: bool = opt(False, "Keep all rows, with the id of its cluster's first row in `cluster` of each that has copies.")
    table: str | None = opt(None, "Write id, cluster and kept of every other copy to this file, as pt-curate cluster does.",
                            metavar="FILE")


DEDUP = ["pt-curate dedup sft.jsonl -o once.jsonl", "pt-curate dedup sft.jsonl --near --keep longest -o once.jsonl",
         "pt-curate dedup a.jsonl b.jsonl --near --on prompt --mark -j 0 -o marked.jsonl"]


@command("pt-curate dedup", Dedup, reads="records", writes="records", examples=DEDUP)
def dedup(cfg, job):
    """Drop copies of rows, in one file or several.

    Copies are rows whose texts are equal but for Unicode form (NFC), case, white space and punctuation; operators, and
    symbols as emoji, count. With --near also texts of 5 words or more of which --threshold of all runs of 5 words are in
    both (of 5 characters in scripts without spaces), whatever their system prompts; candidates come from MinHash with
    16 bands, which finds 95 % of the pairs at 0.7 and 99.8 % at 0.8, and the Jaccard index itself decides. Copies of
    copies are one cluster, of which one row stays. A row without a text to compare stays.

    Rows keep their order and bytes. Files are read twice, and those that cannot be (stdin, .gz, .zst) unpacked first.
    """
    from pt_tools import copies, finders, readback

    rules = _rules(cfg)
    _check_apart(cfg, "table")
    with readback.opened(job) as files:
        index = copies.Index(files)
        finder = finders.Near(index, rules.threshold, job.run) if cfg.near else finders.Exact(index, rules.on)
        at_once = not cfg.near and not cfg.mark and rules.keep == "first" and not rules.prefer
        copies.take(job, index, rules, finder, cfg.jobs, ids=bool(cfg.table), passed=at_once)
        found = finder.found(rules, cfg.jobs)
        if not at_once:
            copies.write(job, index, found, cfg.mark, cfg.jobs)
        kept = copies.finish(job, index, found, cfg.mark)
        if cfg.table:
            copies.write_table(cfg.table, index, found, kept, cfg.jobs)


def _check_apart(cfg, name):
    """Another file to write is neither the output nor an input."""
    import os

    path = getattr(cfg, name)
    if path and os.path.realpath(path) in map(os.path.realpath, filter(None, (cfg.out, *cfg.files))):
        raise Usage(f"{options.flag(name)} {path} is the output or an input")


def _check_out(cfg, why):
    import os

    if cfg.out and os.path.realpath(cfg.out) in map(os.path.realpath, cfg.files):
        raise Usage(f"--out {cfg.out} {why}")


def _rules(cfg):
    from pt_tools.copies import Rules

    near = getattr(cfg, "near", True)
    if not near:
        options.refuse_unused(cfg, ("threshold",), "is of use only with --near")
    if cfg.keep != "best":
        options.refuse_unused(cfg, ("score",), "is of use only with --keep best")
    return Rules(cfg.on, cfg.threshold if near else None, cfg.keep, cfg.score, cfg.prefer)


@dataclass(frozen=True)
class Sketch(Copies, options.Input, options.Output, options.Parallel, options.Common):
    pass


SKETCH = ["pt-curate sketch a.jsonl -o a.bands", "pt-curate sketch b.jsonl -o b.bands"]


@command("pt-curate sketch", Sketch, reads="records", writes="records", examples=SKETCH)
def sketch(cfg, job):
    """Sketch a shard: the first of two steps of near-dedup, for shards that are worked on at once or anywhere.

    pt-curate cluster puts the sketches of all shards together and says which rows are copies, the same ones as
    pt-curate dedup --near finds in all shards at once; pt-curate filter --drop takes them out of each shard. A sketch has
    some 170 bytes a row, in the layout of safetensors: `keys` (bands, rows), where every row is, what decides which copy
    stays, and all options.
    """
    from pt_tools import readback, shards

    if "-" in cfg.files:
        raise Usage("a sketch is of files, which pt-curate cluster reads again")
    _check_out(cfg, "is sketched, and read again by pt-curate cluster")
    with readback.opened(job) as files:
        shards.sketch(job, files, cfg.files, _rules(cfg), cfg.jobs)


@dataclass(frozen=True)
class Cluster(options.Output, options.Parallel, options.Common):
    files: tuple = opt(("-",), "Sketches, in the order in which the first of several copies stays.", multiple=True, input=True)


CLUSTER = ["pt-curate cluster a.bands b.bands -o drop.jsonl"]


@command("pt-curate cluster", Cluster, reads="sketches", writes="records", examples=CLUSTER)
def cluster(cfg, job):
    """Say which rows of sketched shards are copies: the second step of near-dedup.

    Writes {"id", "cluster", "kept"} of every row that is to go: its id, the id of the first row of its cluster, and the id
    of the row that stays; where the id is not unique, its file and line too. Rows that may be copies are read again in the
    shards, where they were or beside their sketches, and their n-grams decide.
    """
    from pt_tools import shards

    if "-" in cfg.files:
        raise Usage("name the sketches; they are not read from a pipe")
    _check_out(cfg, "is a sketch that is read")
    shards.cluster(job, cfg.files, cfg.jobs)


@dataclass(frozen=True)
class Decontaminate(options.Input, options.Output, options.Parallel, options.Common):
    against: tuple = opt(REQUIRED, "Evaluation prompts, in any form that convert knows, or a saved index; may be given again.",
                         metavar="FILE", multiple=True, input=True, named=True)
    rule: str = opt("coverage", "coverage: a row that has more than --coverage of an item's words in shared runs of words; any: "
                    "a row that shares any run.", choices=("coverage", "any"))
    ngram: int | None = opt(None, "Words in a row that count as shared; 0 looks for equal texts only. [default: 8, or 10 with "
                            "--rule any].", least=0, most=1000)
    coverage: float = opt(0.5, "Share of an item's words above which a row is contaminated.", least=0, below=1)
    on: str = opt("prompt", "What of a row is looked at: the user's turns, or all turns.", choices=("prompt", "all"))
    field: tuple = opt((), "What of an evaluation row makes an item: prompt, response, or a key of the record such as solution; "
                       "of several the mean coverage counts. Default: prompt.", metavar="NAME", multiple=True)
    max_items: int | None = opt(None, "Runs of words that are in more items than this are stock phrases and match nothing.",
                                metavar="N", least=1)
    mark: bool = opt(False, "Keep contaminated rows, with what was found in `contamination`.")
    require_clean: bool = opt(False, "Fail (exit code 3, no output) if any row is contaminated.")
    save_index: str | None = opt(None, "Write the items to this file, for --against.", metavar="FILE", result=False)


DECONTAMINATE = ["pt-curate decontaminate sft.jsonl --against math500.jsonl --against ifeval.jsonl -o clean.jsonl",
                         "pt-curate decontaminate sft.jsonl --against heldout.jsonl --require-clean -o sft-proved.jsonl"]


@command("pt-curate decontaminate", Decontaminate, reads="records", writes="records", examples=DECONTAMINATE)
def decontaminate(cfg, job):
    """Drop rows whose prompts overlap evaluation prompts.

    The rule of Tulu 3: a row is contaminated if more than half of an evaluation prompt's words lie in 8-grams that the
    row's user turns share. Prompts shorter than 8 words must be equal, but for case, spacing and punctuation. With --rule
    any it is that of DeepSeek-R1: any shared 10-gram. In scripts without spaces every character is a word. Says on stderr
    how much of every evaluation every source hits, and where that is above Tulu 3's 2 %.

    Rows stream, and keep their order and bytes.
    """
    from pt_tools import blocks
    from pt_tools.curate.decontaminate import Table

    if cfg.rule == "any":
        options.refuse_unused(cfg, ("coverage",), "is of use only with --rule coverage")
    _check_apart(cfg, "save_index")
    index, table, first = _evaluations(cfg), Table(), None
    each = blocks.each(job, _decontaminate, index, cfg.on, cfg.mark, jobs=cfg.jobs, size=blocks.LARGE)
    for of_block, contaminated in each:
        table.merge(of_block)
        first = first or contaminated
    _say_overlap(job, table.rows(index.sizes))
    if cfg.require_clean and first:
        where, hit = first
        raise BadData(f"overlaps {hit['eval']} item {hit['id']} (coverage {hit['coverage']}): {hit['span'][:100]!r}", where)


def _decontaminate(records, out, index, on, mark):
    """(Table of a block, (place, hit) of its first contaminated row or None)."""
    import orjson

    from pt_tools.curate import compared
    from pt_tools.curate.decontaminate import Table

    texts_of = record.user_turns if on == "prompt" else functools.partial(compared.turns, on=on)
    taken = records.map(lambda rec: (texts_of(rec), rec.get("source") or "none"))
    table, first, lines = Table(source for _, source in taken.values), None, taken.lines.copy()
    for place, hits in enumerate(index.find_all([texts for texts, _ in taken.values])):
        if not hits:
            continue
        table.add(taken.values[place][1], hits)
        first = first or (f"{records.block.name}:{taken.numbers[place]}", hits[0])
        lines[place] = b""
        if mark:
            lines[place] = stream.dumps({**orjson.loads(taken.lines[place]), "contamination": hits})
        else:
            records.rows.add("dropped", 1, f"overlaps {hits[0]['eval']}")
    lines = [line if line.endswith(b"}\n") else line.rstrip() + b"\n" for line in lines if line]
    out.write_lines(b"".join(lines))
    records.rows.add("out", len(lines))
    return table, first


def _evaluations(cfg):
    from pt_tools.curate import columns
    from pt_tools.curate.decontaminate import RULES, Index

    index = Index(RULES[cfg.rule] if cfg.ngram is None else cfg.ngram, cfg.coverage, cfg.rule, cfg.max_items)
    names = [stream.stem(path) for path in cfg.against]
    for path, name in zip(cfg.against, names):
        if not columns.is_file(path):
            _add_items(index, path, name if names.count(name) == 1 else path, cfg.field or ("prompt",))
        elif cfg.field:
            raise Usage(f"--field: the fields of {path} are those that it was made of")
        else:
            index.load(path)
    if cfg.save_index:
        import io

        from pt_tools.files import write_atomic

        data = io.BytesIO()
        index.save(data.write)
        write_atomic(cfg.save_index, data.getbuffer())
    index.overlap()  # before other processes begin, which then need not make it
    return index


def _add_items(index, path, name, fields):
    reader, found = stream.Reader([path], arrays=True), set()
    for row in reader:
        try:
            rec = record.ensure_id(record.convert(row))
            item = {field: _texts(rec, field) for field in fields}
        except ValueError as reason:
            raise BadData(str(reason), reader.where) from None
        of_item = [texts for texts in item.values() if texts]
        if not of_item:
            raise BadData(f"has none of the fields {', '.join(fields)}", reader.where)
        found.update(field for field, texts in item.items() if texts)
        index.add(name, rec["id"], *of_item)
    if not reader.rows.n["in"]:
        raise BadData("no evaluation prompts", path)
    if missing := [field for field in fields if field not in found]:
        raise BadData(f"no row has the field {missing[0]}", path)


def _texts(rec, field):
    """The texts of a field of an evaluation row; none if it has no such field."""
    from pt_tools.curate import compared

    if field in ("prompt", "response"):
        return compared.turns(rec, field)
    value = rec.get(field)
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{field} is neither a text nor a list of texts")
    return texts


def _say_overlap(job, rows):
    from pt_tools.curate.stats import table

    job.final["contamination"] = rows
    for line in table(rows).splitlines():
        job.say(line)
    for row in rows:
        if row["contaminated"]:
            job.say(f"{row['source']} overlaps {row['share']:.1%} of {row['eval']}, more than 2 %: contaminated as a whole")
