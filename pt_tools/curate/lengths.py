"""Lengths of records in tokens: of what a trainer would see, by tokenizer and chat template."""

import functools
import hashlib
import json
import os

from pt_tools import record
from pt_tools.curate import budget
from pt_tools.curate.chat_template import ChatTemplate
from pt_tools.errors import Usage

_PROBE = "Probe7"
# Of ASCII these make no more characters; Prepend makes one more for each piece between special tokens.
_KEEPING = {"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "BertNormalizer",
            "Prepend"}


def check(cfg) -> None:
    """Usage if the tokenizer or the template that the options name cannot be used."""
    if not cfg.tokenizer and cfg.chat_template:
        raise Usage("--chat-template is of use only with --tokenizer")
    of(cfg)


def of(cfg):
    """The Lengths that --tokenizer and --chat-template name; None without them."""
    if not cfg.tokenizer:
        return None
    try:
        return _loaded(cfg.tokenizer, cfg.chat_template)
    except ValueError as error:
        raise Usage(f"--tokenizer: {error}") from None


@functools.lru_cache(maxsize=2)
def _loaded(value, chat_template):
    return Lengths(value, chat_template)


def identity(value: str) -> str:
    """16 hex digits of what --tokenizer names, its chat template included."""
    try:
        return _loaded(value, None).name
    except ValueError as error:
        raise Usage(f"--tokenizer: {error}") from None


def place(value: str) -> tuple[str, str]:
    """(directory, tokenizer.json) of what --tokenizer names. ValueError where there is none."""
    path = os.path.join(value, "tokenizer.json") if os.path.isdir(value) else value
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file")
    return os.path.dirname(path) or ".", path


class Lengths:
    """Token counts of records. A count that a record has (`tokens`) is taken if it is of the same tokenizer and content."""

    def __init__(self, value: str, chat_template: str | None = None):
        directory, path = place(value)
        self._tokenizer = budget.load(path)
        self._spec = self._tokenizer.to_str()
        self.template = ChatTemplate(directory, chat_template)
        self._bos, self._chat_end = self._plain_start(), 0 if self._ends_turns() else 1
        self.name = _hash(self._spec, self.template.text or "")

    # --- counts ---------------------------------------------------------------------------------------------------

    def stamp(self, rec: dict) -> dict:
        """Counts as a record keeps them: {"prompt": n, "all": n, "of": hash of what was counted, and by what}."""
        return {**self.count(rec), "of": self._key(rec)}

    def _key(self, rec):
        said = [completion["text"] for completion in rec.get("completions") or ()]  # sampled later than the content
        return _hash(self.name, record.content_hash(rec), *said)

    def count(self, rec: dict) -> dict:
        """{"prompt": n, "all": n}: tokens of the prompt with what opens the answer, and with the longest answer.

        Counted as the trainers encode: chat template, end of turn, and end of text where the template ends no turn. Where
        a template marks no turns and a token would straddle the border of an answer, they have up to two more for it.
        ValueError where the template refuses the conversation.
        """
        kept = rec.get("tokens")
        if isinstance(kept, dict) and kept.get("of") == self._key(rec):
            return {"prompt": kept["prompt"], "all": kept["all"]}
        prompt, wholes, around = self._texts(rec)
        asked = self._ids(prompt)
        return {"prompt": asked, "all": max((self._ids(whole) + around for whole in wholes), default=asked)}

    def over(self, rec: dict, most: int) -> int | None:
        """The tokens of a record that has more than `most`, else None; short ones are never encoded."""
        kept = rec.get("tokens")
        if not isinstance(kept, dict):
            prompt, wholes, around = self._texts(rec)
            # A token stands for at least one byte.
            if all(self._bounded(text) and len(text.encode()) + 1 + around <= most for text in wholes or [prompt]):
                return None
        found = self.count(rec)["all"]
        return found if found > most else None

    def _ids(self, text):
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    # --- texts ----------------------------------------------------------------------------------------------------

    def _texts(self, rec):
        """(prompt, prompt with each answer, tokens around the latter), as text for the tokenizer."""
        kind = record.kind(rec)
        if kind == "text":
            return "", [rec["text"]], self._bos + 1
        prompt, tools = record.prompt_of(rec), rec.get("tools")
        if isinstance(prompt, str) and kind != "prompt":
            return prompt, [prompt + answer for answer in self._plain_answers(rec, kind, prompt)], self._bos + 1
        prompt = record.as_turns(prompt, "user")
        asked = self.template.render(prompt, generate=True, tools=tools)
        if kind == "messages":
            return asked, [self.template.render(rec["messages"], tools=tools)], self._chat_end
        if kind == "prompt":
            answers = [completion["text"] for completion in rec.get("completions") or ()]
        else:
            answers = [rec[key] for key in (("chosen", "rejected") if kind == "preference" else ("completion",))]
        if kind == "preference" and "prompt" not in rec:
            answers = [answer[len(prompt):] for answer in answers]
        wholes = [prompt + record.as_turns(answer, "assistant") for answer in answers]
        return asked, [self.template.render(whole, tools=tools) for whole in wholes], self._chat_end

    def _plain_answers(self, rec, kind, prompt):
        answers = [rec[key] for key in (("chosen", "rejected") if kind == "preference" else ("completion",))]
        if not all(isinstance(answer, str) for answer in answers):
            raise ValueError("a text prompt needs a text completion")
        return answers if "prompt" in rec else [answer[len(prompt):] for answer in answers]

    def _plain_start(self):
        """How many tokens are put before plain text."""
        encoded = self._tokenizer.encode("", add_special_tokens=True).ids
        ends = {self._tokenizer.token_to_id(t) for t in (self.template.special.get("eos_token"),) if t} - {
            self._tokenizer.token_to_id(t) for t in (self.template.special.get("bos_token"),) if t}
        return len([id for id in encoded if id not in ends][:1])

    def _ends_turns(self):
        """Whether the template writes a special token after an answer."""
        if self.template.text is None:
            return False
        try:
            text = self.template.render([{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}])
        except ValueError:
            return False
        special = {id for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        return not special.isdisjoint(self._tokenizer.encode(text.rpartition(_PROBE)[2], add_special_tokens=False).ids)

    # --- the bound ------------------------------------------------------------------------------------------------

    def _bounded(self, text):
        return self._kept if text.isascii() else self._kept and self._verbatim

    @functools.cached_property
    def _verbatim(self):
        return json.loads(self._spec)["normalizer"] is None

    @functools.cached_property
    def _kept(self):
        """Whether no part of the tokenizer makes more characters of ASCII than there are (but one at the start)."""
        spec = json.loads(self._spec)
        parts = list(_parts(spec["normalizer"])) + list(_parts(spec["pre_tokenizer"]))
        marks = [p.get("content", p.get("replacement", "")) for p in parts if p["type"] in ("Replace", "Metaspace")]
        known = all(len(mark) <= 1 and (not mark or self._tokenizer.token_to_id(mark) is not None) for mark in marks)
        return known and {p["type"] for p in _parts(spec["normalizer"])} <= _KEEPING | {"Replace"}


def _parts(spec):
    """A normalizer or pre-tokenizer and all that it consists of."""
    if isinstance(spec, dict):
        yield spec
        for part in spec.get("normalizers", []) + spec.get("pretokenizers", []):
            yield from _parts(part)


def _hash(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
