"""Words of a text, and what makes two prompts the same."""

import re

WORD = re.compile(r"[^\W_]+")
# In a short prompt an operator is the question: "47+38" and "47-38" have the same words. A minus stands before a digit.
TERM = re.compile(r"[^\W_]+|[+*/^=<>%×÷−]|-(?=\s*\d)")


def words(text: str) -> list[str]:
    """Runs of letters and digits, lower-case."""
    return WORD.findall(text.lower())


def prompt_key(turns: list[str]) -> tuple[str, ...]:
    """Equal for prompts that differ in case, spacing and punctuation only; operators count. One string a turn."""
    return tuple(" ".join(TERM.findall(turn.lower())) or turn.strip() for turn in turns)
