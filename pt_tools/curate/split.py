"""Which part of a split a record belongs to, by a hash and so whatever the order of the input."""

import math

from pt_tools import record
from pt_tools.curate import seeded
from pt_tools.curate.words import letters, terms


def part_of(rec: dict, parts: dict[str, float], seed: int, together: "Together | None" = None) -> str | None:
    """The part (name -> share, in order) of a record: by its prompt, so that a prompt is never in two of them.

    Records that are `together` are in one part whatever their prompts. None where the shares sum to less than 1 and the
    record falls behind the last.
    """
    prompt = _prompt(rec)
    name = together.name(seeded.key(0, *prompt), rec.get("cluster")) if together else None
    place = seeded.draw(seed, "split", *prompt) if name is None else seeded.draw(seed, "split by cluster", name)
    for part, share in parts.items():
        if place < share:
            return part
        place -= share
    # Rounding may leave a gap of 1e-16 behind shares that sum to 1.
    return part if math.isclose(sum(parts.values()), 1.0) else None


def link(rec: dict) -> tuple[int, str] | None:
    """(hash of the prompt, cluster) of a record that is in a cluster of copies."""
    cluster = rec.get("cluster")
    return None if cluster is None else (seeded.key(0, *_prompt(rec)), str(cluster))


def _prompt(rec):
    """Equal for prompts that differ in case, spacing and punctuation only; also in operators, which divides no worse."""
    return [letters(turn).decode() or terms(turn) or turn.strip() for turn in record.user_turns(rec)]


class Together:
    """Clusters and the prompts of their records: what shares either, directly or through others, has one name.

    A prompt that is in no cluster has none. Memory grows with the clusters and the prompts in them.
    """

    def __init__(self):
        self._above = {}

    def add(self, prompt: int, cluster: str) -> None:
        a, b = self._root(prompt), self._root(cluster)
        if a != b:
            # A cluster names the group, the first by its spelling, so that the order of the links does not.
            low, high = sorted((a, b), key=lambda node: (isinstance(node, int), str(node)))
            self._above[high] = low

    def name(self, prompt: int, cluster=None) -> str | None:
        node = prompt if cluster is None else str(cluster)
        return self._root(node) if node in self._above else None

    def __len__(self):
        return len(self._above)

    def _root(self, node):
        path = []
        while (above := self._above.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for passed in path:
            self._above[passed] = node
        return node
