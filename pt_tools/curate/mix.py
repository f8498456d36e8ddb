"""Which records go where: mixtures and splits, by hashes of ids and prompts and so whatever the order of the input."""

import math

from pt_tools import record
from pt_tools.curate import seeded
from pt_tools.curate.words import prompt_key


def part_of(rec: dict, parts: dict[str, float], seed: int) -> str | None:
    """The part (name -> share, in order) of a record: by its prompt, so that a prompt is never in two of them.

    None where the shares sum to less than 1 and the prompt falls behind the last.
    """
    place = seeded.draw(seed, "split", *prompt_key(record.user_turns(rec)))
    for name, share in parts.items():
        if place < share:
            return name
        place -= share
    # Rounding may leave a gap of 1e-16 behind shares that sum to 1.
    return name if math.isclose(sum(parts.values()), 1.0) else None


def amount(rule: str) -> int | float:
    """"500" is so many rows (int); "0.5" and "50%" are a share (float; above 1 rows repeat). ValueError if neither."""
    try:
        value = int(rule) if rule.isdecimal() else float(rule.removesuffix("%")) / (100 if rule.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"{rule!r} is neither a number of rows nor a share") from None
    if not 0 <= value < math.inf:
        raise ValueError(f"{rule!r} is out of range")
    return value


def plan(sizes: dict[str, int], amounts: dict[str, int | float]) -> dict[str, int]:
    """How many rows of every pool; all where no amount is given. ValueError where there are fewer than asked for."""
    counts = {}
    for name, size in sizes.items():
        wanted = amounts.get(name, size)
        if isinstance(wanted, int) and wanted > size:
            raise ValueError(f"{name} has {size} rows, not {wanted}; a share above 1, as 2.0, repeats rows")
        counts[name] = wanted if isinstance(wanted, int) else round(wanted * size)
    return counts


def shares(total: int, weights: dict[str, float]) -> dict[str, int]:
    """`total` rows in proportion to the weights, by largest remainder: whole numbers that sum to `total`."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    out = {name: math.floor(x) for name, x in exact.items()}
    for name in sorted(exact, key=lambda name: (out[name] - exact[name], name))[:total - sum(out.values())]:
        out[name] += 1
    return out


def capped(pools: dict[str, list[dict]], cap: int, seed: int) -> dict[str, list[dict]]:
    """At most `cap` records of one source over all pools, the first in seeded order."""
    sources = {}
    for name, pool in pools.items():
        for rec in pool:
            sources.setdefault(rec.get("source"), []).append((_place(rec, seed), name, rec))
    out = {name: [] for name in pools}
    for found in sources.values():
        for _, name, rec in sorted(found, key=lambda item: item[:2])[:cap]:
            out[name].append(rec)
    return out


def choose(records: list[dict], n: int, seed: int) -> list[tuple[int, dict]]:
    """`n` of the records as (copy, record): first all of them `n // len` times over, then the first by seeded order."""
    whole, rest = divmod(n, len(records)) if records else (0, 0)
    chosen = [(copy, rec) for copy in range(whole) for rec in records]
    return chosen + [(whole, rec) for rec in sorted(records, key=lambda rec: _place(rec, seed))[:rest]]


def shuffle(chosen: list[tuple[int, dict]], seed: int) -> list[dict]:
    """The records in seeded order."""
    return [rec for _, rec in sorted(chosen, key=lambda item: _place(item[1], seed, item[0]))]


def _place(rec, seed, copy=0):
    # The content decides between records of one id, so that even they come in the same order from any input.
    return seeded.key(seed, "mix", rec["id"], copy), rec["id"], copy, record.content_hash(rec), rec.get("source") or ""
