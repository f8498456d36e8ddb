"""Requests for a model out of personas, templates and seed prompts, each with an id that follows from what it is made of."""

import hashlib
import os

from pt_tools import record
from pt_tools.curate import seeded

SEED = "seed"  # what a template calls the text of a seed prompt
ROW = "row"  # and the persona's whole row, for keys that are no names


class Template:
    """A Jinja file, rendered in a sandbox with the keys of a persona's row, `row`, and `seed`. ValueError if it is none."""

    def __init__(self, path: str):
        from jinja2 import StrictUndefined, TemplateError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            self._template = environment.from_string(text)
            names = meta.find_undeclared_variables(environment.parse(text))
        except (OSError, UnicodeDecodeError, TemplateError) as error:
            raise ValueError(f"{path}: {error}") from None
        self.name = os.path.basename(path).split(".")[0]
        self.digest = hashlib.sha256(text.encode()).digest()
        self.seeded, self.personal = SEED in names, bool(names - {SEED})

    def render(self, persona: dict, seed: str | None = None) -> str:
        """The request's text. ValueError if the template fails, or the text cannot be a prompt."""
        values = {**persona, ROW: persona, **({SEED: seed} if seed is not None else {})}
        try:
            text = self._template.render(values).strip()
        except Exception as error:  # jinja raises whatever the template's own code raises
            raise ValueError(f"template {self.name}: {type(error).__name__}: {error}") from None
        record.check_text(text, f"the text of template {self.name}")
        return text


class Combinations:
    """The combinations of personas with templates and, where a template speaks of one, with seed prompts, by number.

    Those of one persona have numbers in a row: `of(number)` is (number of the persona, template, seed or None).
    """

    def __init__(self, personas: int, templates: list[Template], seeds: list[dict]):
        self._each = [
            (template, seed) for template in templates for seed in (seeds if template.seeded and seeds else [None])
        ]
        self.total, self.each = personas * len(self._each), len(self._each)

    def of(self, number: int):
        persona, rest = divmod(number, self.each)
        return persona, *self._each[rest]

    def drawn(self, count: int | None, seed: int):
        """Numbers of `count` combinations (None: all), rising, all sets equally likely; a larger count has the smaller's."""
        import numpy as np

        if count is None or count >= self.total:
            return range(self.total)
        return np.sort(np.fromiter((shuffled(i, self.total, seed) for i in range(count)), np.int64, count))


def shuffled(i: int, n: int, seed: int) -> int:
    """Where `i` comes in a random order of 0 … n - 1, without the order itself (a Feistel network that walks in cycles)."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    turns = 4 if half > 8 else 16  # few bits are mixed slowly
    while True:
        left, right = i >> half, i & mask
        for turn in range(turns):
            left, right = right, left ^ (seeded.key(seed, "synth", turn, right) & mask)
        i = left << half | right
        if i < n:
            return i


def digest(row: dict) -> bytes:
    """A hash of a row's content, whatever the order of its keys."""
    import orjson

    return hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).digest()


def request_id(template: Template, persona: dict, seed: dict | None) -> str:
    parts = (template.digest, digest(persona), digest(seed) if seed else b"")
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def request(template: Template, persona: dict, seed: dict | None) -> dict:
    """The record of one request; `synth` says what it is made of. ValueError if it cannot be made."""
    made_of = {"template": template.name, "persona": _name(persona)} | ({"seed": _name(seed)} if seed else {})
    text = template.render(persona, seed_text(seed) if seed else None)
    domain = {"domain": seed["domain"]} if seed and seed.get("domain") else {}
    return {"id": request_id(template, persona, seed), "source": template.name, **domain,
            "prompt": [{"role": "user", "content": text}], "synth": made_of}


def seed_text(seed: dict) -> str:
    """What a seed prompt asks: its user turns."""
    return "\n\n".join(record.user_turns(seed))


def _name(row):
    return row["id"] if isinstance(row.get("id"), str) and row["id"] else digest(row).hex()[:16]
