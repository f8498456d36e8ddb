"""Seeded choices that depend on a record's id and not on its place in the file."""

from hashlib import blake2b


def key(seed: int, *parts) -> int:
    """A 64-bit number for these parts: sort by it for a seeded order."""
    text = "\x1f".join(str(part) for part in (seed, *parts))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def draw(seed: int, *parts) -> float:
    """The same as a uniform draw from [0, 1)."""
    return (key(seed, *parts) >> 11) * 2.0**-53


def pick(items: list, seed: int, *parts):
    """One of the items, all equally likely."""
    return items[key(seed, *parts) % len(items)]


def draws(items: list, seed: int, *parts):
    """All the items in random order; the first is the one that `pick` picks."""
    left = list(items)
    for number in range(len(left)):
        yield left.pop(key(seed, *parts, *([number] if number else [])) % len(left))
