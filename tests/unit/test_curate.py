"""Chance in curation: it hangs on seed and id alone."""

from pt_tools.curate import seeded


# --- chance -------------------------------------------------------------------------------------------------------


def test_chance_is_uniform_and_fixed():
    draws = [seeded.draw(0, "x", i) for i in range(4000)]
    assert all(0 <= d < 1 for d in draws) and abs(sum(draws) / 4000 - 0.5) < 0.02
    assert seeded.key(0, "a", "b") == seeded.key(0, "a", "b") != seeded.key(0, "ab")
    assert seeded.key(7, "split", "hello") == 8252500917921040020  # a new release splits as the last one did
