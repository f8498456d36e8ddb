"""Which part of a split a record belongs to, by a hash and so whatever the order of the input."""

import math

from pt_tools import record
from pt_tools.curate import seeded
from pt_tools.curate.words import prompt_key


def part_of(rec: dict, parts: dict[str, float], seed: int, cluster=None) -> str | None:
    """The part (name -> share, in order) of a record: by its cluster if there is one, else by its prompt.

    So neither is ever in two parts. None where the shares sum to less than 1 and the record falls behind the last.
    """
    group = ("split", *prompt_key(record.user_turns(rec))) if cluster is None else ("split by cluster", cluster)
    place = seeded.draw(seed, *group)
    for name, share in parts.items():
        if place < share:
            return name
        place -= share
    # Rounding may leave a gap of 1e-16 behind shares that sum to 1.
    return name if math.isclose(sum(parts.values()), 1.0) else None
