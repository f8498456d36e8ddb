"""Counter-based random numbers: a sampled token depends on the names of its prompt and sample, not on its batch."""

import hashlib
from collections import Counter

import numpy as np


class Names:
    """Names of prompts in the noise: a record's id, and which of those with this id it is, so that no two are the same."""

    def __init__(self):
        self._seen = Counter()

    def of(self, id: str) -> str:
        self._seen[id] += 1
        return id if self._seen[id] == 1 else f"{id}\0{self._seen[id]}"


def key_of(seed, prompt, sample):
    """The 64-bit key of the stream of uniforms of one completion of a `Prompt`."""
    text = f"{seed}\0{prompt.visit}\0{prompt.id}\0{prompt.first + sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniforms(keys_B, positions_B):
    """Uniform numbers in [0, 1) that depend on (key, position) only: splitmix64, 52 bits.

    52 bits, not 53: u * total stays below total in double precision, so an inverse CDF never runs off its end.
    """
    z = keys_B + (positions_B.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(12)).astype(np.float64) * 2.0**-52
