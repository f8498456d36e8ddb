"""pt-curate dedup, sketch, cluster: rows that are there already."""

from pt_tools import options
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt


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


@options.config
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

    Rows keep their order and bytes. Without --near, where the first copy stays, they are written as they come; else files are
    read twice. What cannot be read again (stdin, .gz, .zst) is unpacked first.
    """
    from pt_tools import copies, finders, readback

    rules = _rules(cfg)
    options.check_apart(cfg, "table")
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


@options.config
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


@options.config
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
