"""pt-curate filter, tag, diff: which records stay, what is written into them, and what changed."""

import functools
from collections import Counter

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import opt

MAX_SOURCES = 1000  # that are counted apart
WHERE = "An expression over the record's fields; may be given again, all must be true."


def _rule_files(spec):
    """A rule in the run key: its text, and the list of phrases that it names."""
    return spec, next((part[5:] for part in spec.partition(":")[2].split(",") if part.startswith("file=")), None)


def _rules(help):
    return opt((), help, metavar="[not-]NAME[:KEY=VALUE,...]", multiple=True, input=_rule_files)


@options.config
class Filter(options.Input, options.Output, options.Tokens, options.Parallel, options.Common):
    files: tuple = opt(("-",), "First the expression, unless an option below says what stays; then JSONL files, .gz and "
                       ".zst too; '-' is stdin.", multiple=True, input=True, metavar="[EXPRESSION] [FILE]...")
    where: tuple = opt((), "Keep rows for which this is true. " + WHERE, metavar="EXPRESSION", multiple=True)
    rule: tuple = _rules("Drop what this rule finds, with not- what it does not find; may be given again.")
    drop: tuple = opt((), "Drop rows whose id is in this file of rows with `id`, as pt-curate cluster writes it, and which are "
                      "at its `file` and `line` where it has these.", metavar="FILE", multiple=True, input=True)
    keep: tuple = opt((), "Keep only rows whose id is in this file.", metavar="FILE", multiple=True, input=True)
    mark: bool = opt(False, "Keep every row, and write into `rules` what was found.")
    scrub: str | None = opt(None, "Put placeholders for personal data: all, or some of email,phone,ip,key,card.",
                            metavar="KINDS")

    def __post_init__(self):
        if not (self.where or self.rule or self.drop or self.keep or self.scrub):
            expression, *files = self.files
            object.__setattr__(self, "where", (expression,))
            object.__setattr__(self, "files", tuple(files) or ("-",))
        elif not _is_file(self.files[0]):
            raise Usage(f"no such file: {self.files[0]} (beside an option that says what stays, an expression is a --where)")


FILTER = ["pt-curate filter 'max(reward) > 0' scored.jsonl -o good.jsonl",
          "pt-curate filter 'source in [\"c\", \"s\"] and len(messages) <= 6' all.jsonl -o some.jsonl",
          "pt-curate filter --rule refusal --rule self-reference --rule length:unit=words,min=2 sft.jsonl -o plain.jsonl",
          "pt-curate filter --rule repetition:max=0.3 --mark sft.jsonl -o marked.jsonl",
          "pt-curate filter --scrub all sft.jsonl -o scrubbed.jsonl"]


@command("pt-curate filter", Filter, reads="records", writes="records", examples=FILTER)
def filter(cfg, job):
    """Keep the records that an expression, rules or lists of ids leave.

    Expressions are Python's: fields as names, with dots (meta.lang) and [0], numbers, "texts", [lists], null, true, false,
    + - * / // %, == != < <= > >= in, and or not, A if B else C, [… for x in …]. Functions: abs all any language len lower
    match(text, r"pattern") max mean min round sum text words, and field("x-y") for a name that is none. A missing field
    is null: no order comparison with null is true, and max, min, sum and mean pass it over. A name that the record lacks
    and its completions have is the list of theirs: max(reward), any(s > 0.5 for s in scores.math). A name that no row has
    is said on stderr.

    Rules look at the response (all trained assistant turns, completion, chosen), the prompt or all of it, as of= says; of
    a record with sampled completions those that a rule finds are taken out, and the record when none is left.

    refusal: a refusal in the first 400 characters of an answer. self-reference: "as an AI language model", a knowledge cut-off, a
    vendor as its maker. truncated: an end in the middle of a sentence or a code block, or completions that ran out of
    tokens. fence: code fences that do not close. think: tags that do not pair (tag=think). repetition: more than max=0.2
    of the n=10-grams, or more than lines=0.3 of the lines, were said before. mixed-scripts: more than max=0.1 of the
    words are in another script than most. language: another than keep=en|de, or one of drop=zh. length: fewer than min=
    or more than max= of unit=tokens (with --tokenizer and the chat template), words or chars. keywords: a phrase of
    file=FILE (one a line) or of words=a|b. pii: personal data, kinds=email|phone|ip|key|card.

    Rows stream, in order and as they were read; only ids of --drop and --keep are held in memory.
    """
    from pt_tools import blocks

    if cfg.files == ("-",) and len(cfg.where) == 1 and _is_file(cfg.where[0]):
        raise Usage(f"{cfg.where[0]} is a file, not an expression; say what stays: an expression, --rule, --drop or --keep")
    _selection(cfg)
    counts, sources = Counter(), set()
    for found in blocks.each(job, _filter, cfg, jobs=cfg.jobs):
        for (of, name, *what), n in found.items():
            if of == "source" and name not in sources and len(sources) >= MAX_SOURCES:
                name = "other"
            elif of == "source":
                sources.add(name)
            counts[of, name, *what] += n
    _tell(job, counts)


def _is_file(text):
    import os

    return text == "-" or os.path.exists(text)


@functools.lru_cache(maxsize=1)
def _selection(cfg):
    from pt_tools.curate import pii
    from pt_tools.curate.selection import Selection

    kinds = () if cfg.scrub is None else pii.KINDS if cfg.scrub == "all" else tuple(cfg.scrub.replace("|", ",").split(","))
    if not set(kinds) <= set(pii.KINDS):
        raise Usage(f"--scrub: all, or some of {', '.join(pii.KINDS)}, not {cfg.scrub!r:.40}")
    named, keep = _named_rules(cfg), _ids(cfg.keep) if cfg.keep else None
    if cfg.tokenizer and not any(rule.counts_tokens for rule in named):
        raise Usage("--tokenizer is of use only with --rule length")
    if _places(cfg.drop) and "-" in cfg.files:
        raise Usage("--drop names rows by file and line, because their ids are not unique; name the files instead of a pipe")
    return Selection(_conditions(cfg), named, _ids(cfg.drop), keep, cfg.mark, kinds)


def _conditions(cfg):
    return [_condition(text, "--where") for text in cfg.where]


def _condition(text, option):
    from pt_tools.curate import expression
    from pt_tools.curate.selection import Condition

    try:
        return Condition(text, expression.parse(text))
    except ValueError as error:
        raise Usage(f"{option} {text!r:.60}: {error}") from None


def _named_rules(cfg):
    from pt_tools.curate import lengths, rules

    lengths.check(cfg)
    counter = lengths.of(cfg)
    try:
        found = [rules.parse(spec, counter) for spec in cfg.rule]
    except ValueError as error:
        raise Usage(f"--rule {error}") from None
    if len(set(cfg.rule)) < len(cfg.rule):
        raise Usage("--rule: one is given twice")
    return found


def _ids(paths):
    """The ids of files; rows of any kind, each with `id`."""
    return frozenset(row["id"] for row in _listed(paths) if "line" not in row)


@functools.lru_cache(maxsize=1)
def _places(paths):
    """id -> {(file, line)} of rows that are listed so, because others have the same id."""
    import os

    places = {}
    for row in _listed(paths):
        if "line" in row:
            file = str(row.get("file"))
            # A file that has moved since is known by its name.
            file = os.path.abspath(file) if os.path.exists(file) else os.path.basename(file)
            places.setdefault(row["id"], set()).add((file, row["line"]))
    return places


def _listed(paths):
    from pt_tools import stream

    reader = stream.Reader(paths)
    for row in reader if paths else ():
        if not isinstance(row.get("id"), str):
            raise BadData("no id in this row", reader.where)
        yield row


def _listed_here(places, records, rec):
    """Whether a row is listed by its place."""
    import os

    name, file = rec.get("id") or record.content_hash(rec), records.block.name
    return any((path, records.number) in places.get(name, ()) for path in (os.path.abspath(file), os.path.basename(file)))


def _filter(records, out, cfg):
    """Write what stays of a block; counts of what was found."""
    from pt_tools.curate import functions, selection

    plan, places, counts = _selection(cfg), _places(cfg.drop), Counter()
    unseen = _fields(cfg.where)
    for rec in record.checked(records):
        unseen = {name for name in unseen if functions.field(rec, name) is None} if unseen else unseen
        try:
            made, reason = selection.select(plan, rec, counts, bool(places) and _listed_here(places, records, rec))
        except ValueError as fault:
            records.reject(str(fault), rec)
            continue
        source = rec.get("source") or "none"
        counts["source", source, "in"] += 1
        if made is None:
            counts["source", source, reason] += 1
            records.rows.add("dropped", 1, reason)
        elif made is rec:
            out.copy(rec, records)
        else:
            out.write(made)
    counts.update(("seen", name) for name in _fields(cfg.where) - unseen)
    return counts


@functools.lru_cache(maxsize=1)
def _fields(where):
    from pt_tools.curate import expression

    return frozenset().union(*map(expression.fields, where))


def _tell(job, counts):
    by_source, named = {}, {"hit": {}, "scrubbed": {}, "completions": {}, "seen": {}}
    for (of, name, *what), n in sorted(counts.items()):
        if of == "source":
            by_source.setdefault(name, {})[what[0]] = n
        else:
            named[of][name] = n
    job.final |= {"by_source": by_source, "hits": named["hit"]}
    if by_source and (unseen := sorted(_fields(job.cfg.where) - named["seen"].keys())):
        job.say(f"no row has the field{'s' * (len(unseen) > 1)} {', '.join(unseen)}")
    if named["scrubbed"]:
        job.final["scrubbed"] = named["scrubbed"]
        job.say("scrubbed: " + ", ".join(f"{kind} {n}" for kind, n in named["scrubbed"].items()))
    if named["completions"]:
        job.final["completions_dropped"] = named["completions"]["dropped"]
        job.say(f"{named['completions']['dropped']} completions taken out")
    if job.cfg.mark and named["hit"]:
        job.say("marked: " + ", ".join(f"{name} {n}" for name, n in named["hit"].items()))


# --- tag ----------------------------------------------------------------------------------------------------------


@options.config
class Tag(options.Input, options.Output, options.Tokens, options.Parallel, options.Common):
    label: tuple = opt((), "Give this label: the value is JSON (true, 0.5, [\"a\"]), else text.", metavar="NAME=VALUE",
                       multiple=True)
    let: tuple = opt((), "Give what an expression says as this label; null gives none.", metavar="NAME=EXPRESSION",
                     multiple=True)
    where: tuple = opt((), "Tag rows for which this is true. " + WHERE, metavar="EXPRESSION", multiple=True)
    rule: tuple = _rules("Tag rows that this rule finds, with not- those that it does not find; all must agree.")
    replace: bool = opt(False, "Replace values that are there already; without it they are bad rows.")


TAG = ["pt-curate tag --label safety=true --where 'source == \"c\"' all.jsonl -o tagged.jsonl",
       "pt-curate tag --label domain=poems --rule 'keywords:words=poem|haiku' sft.jsonl -o tagged.jsonl",
       "pt-curate tag --let 'language=language(text(messages))' sft.jsonl -o told.jsonl"]


@command("pt-curate tag", Tag, reads="records", writes="records", examples=TAG)
def tag(cfg, job):
    """Write labels into records: domain, safety, source, weight, or a key of your own.

    Which records: those that fulfil all --where and that all --rule find; without either, all. What filter says of
    expressions and rules holds here. With --tokenizer each of them gets its length in tokens (`tokens`), which filter
    and stats then need not count again. Rows that are not tagged pass on as they were read.
    """
    from pt_tools import blocks

    if not (cfg.label or cfg.let or cfg.tokenizer):
        raise Usage("nothing to write: --label, --let or --tokenizer")
    _labels(cfg)
    job.final["tagged"] = sum(blocks.each(job, _tag, cfg, jobs=cfg.jobs))
    job.say(f"{job.final['tagged']} rows tagged")


@functools.lru_cache(maxsize=1)
def _labels(cfg):
    from pt_tools.curate import lengths
    from pt_tools.curate.selection import Labels

    values = {key: _json(key, text) for key, text in _named(cfg.label, "--label").items()}
    let = {key: _condition(text, f"--let {key}=") for key, text in _named(cfg.let, "--let").items()}
    if twice := sorted(values.keys() & let.keys()):
        raise Usage(f"--label and --let both give {twice[0]}")
    return Labels(values, let, _conditions(cfg), _named_rules(cfg), cfg.replace, lengths.of(cfg))


def _named(values, option):
    """("domain=math", …) as {"domain": "math"}."""
    from pt_tools.curate.selection import FIXED

    out = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (key and equals and text) or key in out:
            raise Usage(f"{option}: {value!r:.60} " + ("is given twice" if key in out else "has not the form NAME=VALUE"))
        if key in FIXED:
            raise Usage(f"{option}: {key} is no label")
        out[key] = text
    return out


def _json(key, text):
    """The value that a text says; Usage if a record cannot have it under this key."""
    import orjson

    try:
        value = orjson.loads(text)
    except ValueError:
        value = text
    if isinstance(value, float) and text.strip().removeprefix("-").isdecimal():
        raise Usage(f"--label {key}: a number beyond 64 bits; write it as text, in quotes")
    try:
        record.check({"text": "x", key: value})
    except ValueError as error:
        raise Usage(f"--label {key}: {error}") from None
    return value


def _tag(records, out, cfg):
    """Write a block with its labels; how many records have them."""
    from pt_tools.curate import selection

    plan, tagged = _labels(cfg), 0
    for rec in record.checked(records):
        try:
            made = selection.label(plan, rec)
        except ValueError as fault:
            records.reject(str(fault), rec)
            continue
        tagged += made is not None
        if made is None or made is rec:
            out.copy(rec, records)
        else:
            out.write(made)
    return tagged


# --- diff ---------------------------------------------------------------------------------------------------------


@options.config
class Diff(options.Input, options.Common):
    files: tuple = opt(("-",), "Two JSONL files, .gz and .zst too; '-' is stdin.", multiple=True, input=True,
                       metavar="OLD NEW")
    exit_code: bool = opt(False, "Exit with 3 if the files differ.")


DIFF = ["pt-curate diff sft.jsonl all.jsonl", "pt-curate diff --json sft.jsonl all.jsonl"]


@command("pt-curate diff", Diff, reads="records", writes="report", examples=DIFF)
def diff(cfg, job):
    """Compare two files of records by id.

    Prints one JSON object for each record that was added or changed, in the order of the new file, then for each that
    was removed: its id, the change, and the keys (those that changed). Records without an id are known by their
    content; of an id that occurs several times the first is compared with the first, and so on. The exit code is 0
    whether they differ or not, as git's is; --exit-code makes it 3 if they do, as for bad data. Another order alone is
    said, and is no difference. Hashes of the old file's values are held in memory, some 400 bytes a record.
    """
    from pt_tools.curate.difference import Difference

    if len(cfg.files) != 2 or cfg.files == ("-", "-"):
        raise Usage("diff compares two files: the old one and the new one")
    found = Difference()
    for rec in _each_of(job, cfg.files[0], found.before):
        pass
    for change in _each_of(job, cfg.files[1], found.after):
        _print(cfg, change)
    for change in found.removed():
        _print(cfg, change)
    summary = {**found.counts, "keys": dict(found.keys.most_common()), "reordered": found.reordered}
    job.final |= summary
    if cfg.json:
        from pt_tools.commands.curate_forms import print_json

        print_json(job.summary())
    said = ", ".join(f"{n} {change}" for change, n in found.counts.items())
    job.say(said + (f" ({', '.join(f'{key} {n}' for key, n in found.keys.most_common(8))})" if found.keys else "")
            + ("; in another order" if found.reordered else ""))
    if cfg.exit_code and any(found.counts[change] for change in ("added", "removed", "changed")):
        raise BadData(f"the files differ: {said}")


def _each_of(job, path, compare):
    """What `compare` finds in the records of one file."""
    job.records.files = (path,)
    for rec in record.checked(job.records):
        change = compare(rec)
        job.rows.add("out")
        if change is not None:
            yield change


def _print(cfg, change):
    if not cfg.json:
        import sys

        from pt_tools import stream

        sys.stdout.buffer.write(stream.dumps(change) + b"\n")
