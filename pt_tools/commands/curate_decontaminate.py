"""pt-curate decontaminate: rows that ask what an evaluation asks."""

import functools

from pt_tools import options, record, stream
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import REQUIRED, opt


@options.config
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
    options.check_apart(cfg, "save_index")
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
