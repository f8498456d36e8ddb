"""pt-curate mix at work: files are indexed, numbers say which rows make the mixture, and those are read again."""

import hashlib
from dataclasses import dataclass

import numpy as np

from pt_tools import record, stream
from pt_tools.curate import budget, lengths, mix, seeded
from pt_tools.curate.words import prompt_key
from pt_tools.errors import BadData

CAPS = ("prompt", "cluster", "source")  # in this order: the finer one first


@dataclass(frozen=True)
class Rules:
    """What a mixture is to be. `take`, `weight`, `total` and the rest are as the options of pt-curate mix say.

    `pools`: the files by name, or None where rows are pooled by their source. `caps`: most rows of one group, by CAPS.
    """

    pools: tuple | None
    take: dict
    weight: dict
    alpha: float | None
    total: int | None
    in_tokens: bool
    tokenizer: str | None
    chat_template: str | None
    bytes_per_token: float | None
    repeat: int
    caps: dict
    seed: int


def run(rules: Rules, job, files, jobs: int) -> None:
    """Write the mixture of the job's records; `files` are readback.Files of its inputs."""
    index = _Index(rules, job, files, jobs)
    rows = _capped(index, rules, job)
    pools = {name: rows[index.columns["pool"][rows] == number] for number, name in enumerate(index.pools)}
    try:
        counts = _counts(rules, index, pools)
    except ValueError as error:
        raise BadData(str(error)) from None
    _account(job, index, pools, counts)
    drawn = [mix.choose(rows[:0], 0), *(mix.choose(pools[name], counts[name]) for name in pools)]
    chosen, copies = (np.concatenate(part) for part in zip(*drawn))
    for row in chosen[index.shuffled(chosen, copies)].tolist():
        job.out.write(index.read(row))


def _capped(index, rules, job):
    """All rows, in seeded order, that the caps leave."""
    rows = np.arange(len(index.columns["key"]))
    for name in CAPS:
        if name in rules.caps:
            kept = mix.capped(rows, index.columns[name][rows], rules.caps[name])
            if len(kept) < len(rows):
                job.rows.add("dropped", len(rows) - len(kept), f"above --cap of its {name}")
            rows = kept
    return rows


def _counts(rules, index, pools):
    sizes = {name: len(rows) for name, rows in pools.items()}
    unknown = sorted((rules.take.keys() | rules.weight.keys()) - set(pools))
    if unknown:
        raise ValueError(f"no row is of the source {unknown[0]}; there are {', '.join(sorted(pools)[:20])}")
    if not rules.total:
        return mix.plan(sizes, rules.take)
    tokens = {name: index.columns["tokens"][rows] for name, rows in pools.items()} if rules.in_tokens else {}
    weights = mix.tempered({name: int(of.sum()) for name, of in tokens.items()} or sizes, rules.weight, rules.alpha)
    if not sum(weights.values()):
        raise ValueError("there is nothing to take the total from")
    parts = mix.shares(rules.total, weights)
    return mix.plan_tokens(tokens, parts, rules.repeat) if rules.in_tokens else mix.plan(sizes, parts, rules.repeat)


def _account(job, index, pools, counts):
    table = []
    for name, rows in pools.items():
        size, taken = len(rows), counts[name]
        if taken < size:
            job.rows.add("dropped", size - taken, f"not taken of {name}")
        elif taken > size:
            job.rows.add("in", taken - size, f"repeated of {name}")
        table.append({"name": name, "rows": size, "taken": taken})
        if "tokens" in index.columns:
            table[-1]["tokens"] = int(index.columns["tokens"][mix.choose(rows, taken)[0]].sum())
    job.final["mixture"] = table


class _Index:
    """Where every row is, and what the rules ask of it, as columns of numbers in seeded order.

    `pools` are the names of files or sources; column `pool` has the number of one.
    """

    def __init__(self, rules, job, files, jobs):
        self.rules, self._files = rules, files
        numbers = {}  # of the pools
        for name in rules.pools or ():
            numbers.setdefault(name, len(numbers))
        parts = {name: [column] for name, column in _columns(rules).items()}
        for file, columns, sources in files.index(job, _index, rules, jobs=jobs):
            of_sources = sources if rules.pools is None else [rules.pools[file]] * len(sources)
            columns["pool"] = np.array([numbers.setdefault(name, len(numbers)) for name in of_sources],
                                       np.int32)[columns["pool"]]
            columns["file"] += np.int32(file)
            for name, column in columns.items():
                parts[name].append(column)
        self.pools = tuple(numbers)
        self.columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
        order = mix.order_of(self.columns["key"], self._tied)
        for name, column in self.columns.items():
            self.columns[name] = column[order]

    def read(self, row):
        place = (int(self.columns[name][row]) for name in ("file", "start", "length"))
        return record.ensure_id(self._files.read(*place))

    def _tied(self, row):
        # The content decides between records of one id, so that even they come in the same order from any input.
        rec = self.read(row)
        return (rec["id"], record.content_hash(rec), rec.get("source") or "", hashlib.sha256(stream.dumps(rec)).digest(),
                self.pools[self.columns["pool"][row]])

    def shuffled(self, rows, copies):
        """The order in which `rows`, of which each is the copy of a number, are written."""
        keys = self.columns["key"][rows]
        for place in np.flatnonzero(copies).tolist():
            keys[place] = _key(self.rules.seed, self.read(rows[place])["id"], copies[place])
        return np.lexsort((rows, keys))


def _key(seed, id, copy=0):
    return seeded.key(seed, "mix", id, copy)


def _index(records, out, rules):
    """(columns, sources) of a block; column `pool` has the number of the row's source."""
    rows, groups, tokens, sources = [], [], [], {}
    counter = lengths.of(rules)
    for rec in record.checked(records):
        record.ensure_id(rec)
        try:
            tokens += [_tokens(rec, counter, rules)] if rules.in_tokens else []
        except ValueError as reason:
            records.reject(str(reason), rec)
            continue
        source = sources.setdefault(rec.get("source") or "none", len(sources))
        rows.append((_key(rules.seed, rec["id"]), *records.span, source))
        groups.append([_group(rec, name) for name in rules.caps])
    return _columns(rules, rows, groups, tokens), list(sources)


def _tokens(rec, counter, rules):
    return counter.count(rec)["all"] if counter else budget.estimate(rec, rules.bytes_per_token)


def _columns(rules, rows=(), groups=(), tokens=()):
    """Columns of (key, start, length, source), of groups, and of tokens if the rules are about tokens."""
    rows = np.array(rows, np.uint64).reshape(-1, 4)
    groups = np.array(groups, np.uint64).reshape(len(rows), len(rules.caps))
    columns = {"key": rows[:, 0], "start": rows[:, 1].astype(np.int64), "length": rows[:, 2].astype(np.uint32),
               "pool": rows[:, 3].astype(np.int32), "file": np.zeros(len(rows), np.int32)}
    columns |= {name: groups[:, number] for number, name in enumerate(rules.caps)}
    return columns | ({"tokens": np.array(tokens, np.int64)} if rules.in_tokens else {})


def _group(rec, name):
    """A hash of the record's source, cluster or prompt; a row without cluster is in none."""
    if name == "cluster" and rec.get("cluster") is None:
        return mix.NO_GROUP
    parts = prompt_key(record.user_turns(rec)) if name == "prompt" else (rec.get(name) or "",)
    return seeded.key(0, name, *parts) or 1
