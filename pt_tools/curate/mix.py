"""Which rows make a mixture, and in which order: by hashes of ids, and so whatever the order of the input.

A row is known here by numbers alone; columns are arrays of one length, in the order of the rows.
"""

import math
import re

import numpy as np

NO_GROUP = 0  # in a column of groups: this row is in none
_ROWS = re.compile(r"[0-9]{1,18}")
_SHARE = re.compile(r"(?:[0-9]{1,9}\.?[0-9]*|\.[0-9]+)%?")


def amount(rule: str) -> int | float:
    """"500" is so many rows (int); "0.5" and "50%" are a share (float; above 1 rows repeat). ValueError if neither."""
    if _ROWS.fullmatch(rule):
        return int(rule)
    if not _SHARE.fullmatch(rule):  # 1e3 and 1_000 are refused: as shares they would be a thousand copies
        raise ValueError(f"{rule!r} is neither a number of rows nor a share")
    return float(rule.removesuffix("%")) / (100 if rule.endswith("%") else 1)


# --- how many -----------------------------------------------------------------------------------------------------


def plan(sizes: dict[str, int], amounts: dict[str, int | float], repeat: int = 1) -> dict[str, int]:
    """How many rows of every pool; all where no amount is given, a share rounded.

    ValueError where a number of rows needs a row more than `repeat` times.
    """
    counts = {}
    for name, size in sizes.items():
        wanted = amounts.get(name, size)
        if isinstance(wanted, int) and wanted > size * repeat:
            raise ValueError(f"{name} has {size} rows, not {wanted}; {_HOW_TO_REPEAT}")
        counts[name] = wanted if isinstance(wanted, int) else round(wanted * size)
    return counts


_HOW_TO_REPEAT = "a share above 1, as 2.0, repeats rows, and so does --repeat with a total"


def plan_tokens(tokens: dict[str, np.ndarray], budgets: dict[str, int], repeat: int = 1) -> dict[str, int]:
    """How many rows of every pool, in order, have at most so many tokens together.

    `tokens` has those of each row. A pool that is used up begins again; ValueError if it would more than `repeat` times.
    """
    counts = {}
    for name, of_rows in tokens.items():
        sums = np.cumsum(of_rows)
        whole, rest = divmod(budgets[name], int(sums[-1])) if len(sums) else (0, budgets[name])
        if whole > repeat or (whole == repeat and rest) or (rest and not len(sums)):
            raise ValueError(f"{name} has {int(sums[-1]) if len(sums) else 0} tokens, not {budgets[name]}; "
                             "--repeat repeats rows")
        counts[name] = whole * len(sums) + int(np.searchsorted(sums, rest, side="right"))
    return counts


def shares(total: int, weights: dict[str, float]) -> dict[str, int]:
    """`total` in proportion to the weights, by largest remainder: whole numbers that sum to `total`."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    out = {name: math.floor(x) for name, x in exact.items()}
    for name in sorted(exact, key=lambda name: (out[name] - exact[name], name))[:total - sum(out.values())]:
        out[name] += 1
    return out


def tempered(sizes: dict[str, int], weights: dict[str, float], alpha: float | None) -> dict[str, float]:
    """The weights (1 where there is none), times the pool's size to the power `alpha` (1: in proportion; None: alike)."""
    return {name: weights.get(name, 1.0) * (1.0 if alpha is None else size ** alpha) for name, size in sizes.items()}


# --- which --------------------------------------------------------------------------------------------------------


def order_of(keys: np.ndarray, tied) -> np.ndarray:
    """The rows in seeded order: by `keys` (N,), 64-bit hashes; rows of one key (and so of one id) by `tied(row)`."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    start = 0
    while start < len(same):
        stop = start
        while stop + 1 < len(same) and same[stop + 1] == same[stop] + 1:
            stop += 1
        run = slice(same[start], same[stop] + 2)
        order[run] = sorted(order[run].tolist(), key=tied)
        start = stop + 1
    return order


def capped(rows: np.ndarray, groups: np.ndarray, cap: int) -> np.ndarray:
    """Those of `rows`, in their order, that are among the first `cap` of their group; `groups` has one for each row."""
    by_group = np.argsort(groups, kind="stable")
    ordered = groups[by_group]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[:len(ordered)])
    place = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    kept = np.empty(len(rows), bool)
    kept[by_group] = (place < cap) | (ordered == NO_GROUP)
    return rows[kept]


def choose(rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, number of the copy) of `n` of the rows: all of them `n // len` times over, and the first of the next copy."""
    whole, rest = divmod(n, len(rows)) if len(rows) else (0, 0)
    return np.concatenate([np.tile(rows, whole), rows[:rest]]), np.repeat(np.arange(whole + 1), [len(rows)] * whole + [rest])
