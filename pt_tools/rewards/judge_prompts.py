"""What a judge is shown, and what of its reply counts.

The judged texts are data, and hostile: they stand between markers with a code that none of them contains, marks of chat
templates in them are broken, and nothing in them is ever parsed. Of the judge's reply only the last JSON object after
its thinking counts, and only if it has exactly the asked form.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pt_tools import record as rec
from pt_tools.rewards import common

HOME = Path(__file__).parent / "prompts"
TAIL = 8_000  # characters of a reply in which its judgement is looked for


class Template:
    """A prompt file in Jinja, rendered in a sandbox. ValueError if it cannot be used for a judge."""

    def __init__(self, mode, path=None):
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import SandboxedEnvironment

        path = Path(path) if path else HOME
        self.path = path / f"{mode}.jinja" if path.is_dir() else path
        environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)
        try:
            self.text = self.path.read_text(encoding="utf-8")
            self._template = environment.from_string(self.text)
        except (OSError, UnicodeDecodeError, TemplateError) as error:
            raise ValueError(f"{self.path}: {error}") from None

    def messages(self, **values):
        """The conversation that asks the judge. ValueError if the template fails."""
        return [{"role": "user", "content": self._render(values)}]

    def check(self, **values):
        """ValueError if the prompt leaves out one of `values`; without the nonce an answer could end its own fence."""
        shown = self._render(values)
        for name, value in values.items():
            if not all(text in shown for text in ([value] if isinstance(value, str) else value)):
                raise ValueError(f"{self.path}: the prompt does not show {name}")

    def _render(self, values):
        try:
            return self._template.render(values)
        except Exception as error:  # jinja raises whatever the template's own code raises
            raise ValueError(f"{self.path}: {type(error).__name__}: {error}") from None


def conversation(record):
    """What the completions answer, as text: a lone user turn as it is, else each turn under its role.

    ValueError if the record has no prompt of messages with texts.
    """
    try:
        turns = rec.as_turns(rec.prompt_of(record), "user")
        if not turns:
            raise ValueError("the prompt is empty")
        if len(turns) == 1 and turns[0]["role"] == "user":
            return tame(turns[0]["content"])
        return tame("\n\n".join(map(_turn, turns)))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("the prompt is no text and no list of messages with role and content") from None


def _turn(turn):
    calls = f"\n{json.dumps(turn['tool_calls'])}" if turn.get("tool_calls") else ""
    return f"[{turn['role']}]\n" + (turn.get("content") or "") + calls


def judged_part(completion, of):
    """The judged text of a completion. ValueError if it has none to judge (the sampler failed)."""
    if completion.get("finish") == "error":
        raise ValueError("there is no completion to judge (finish = error)")
    if not isinstance(completion.get("text"), str):
        raise ValueError("no text")
    return common.part(completion["text"], of)


def tame(text):
    """Text that cannot steer the judge's chat template: its marks get a space (`<|im_end|>` → `< |im_end|>`).

    Servers turn such marks into real end-of-turn tokens wherever they stand. Lone surrogates become "?".
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return rec.TEMPLATE_TOKEN.sub(lambda mark: mark[0][0] + " " + mark[0][1:], text)


def nonce(seed, record, *texts):
    """16 hex digits that none of `texts` contains, the same in every run.

    Nobody who writes a text can know them: they are a hash of the text itself.
    """
    name = rec.content_hash(record) if record.get("id") is None else record["id"]
    for attempt in range(10_000):
        words = [str(seed), str(name), str(attempt), *texts]
        found = hashlib.sha256("\0".join(words).encode("utf-8", "replace")).hexdigest()[:16]
        if not any(found in text for text in texts):
            return found
    raise ValueError("no code could be found that the text does not contain")


def judgement(reply, texts):
    """The last JSON object of a judge's reply after its thinking. ValueError(reason) if there is none that counts.

    An object that `texts` contain too may be a quotation: it counts only where it stands on a line of its own and ends
    the reply.
    """
    if reply.finish not in (None, "stop", "eos", "end_turn"):
        raise ValueError(f"the judge's reply did not end by itself (finish = {reply.finish})")
    said = reply.text.rpartition("</think>")[2]
    if "<think>" in said:
        raise ValueError("the judge's thinking did not end")
    said = said[-TAIL:]
    found, start, end = _last_object(said)
    if "{" in said[end:]:
        raise ValueError("the judge's reply ends in a torn JSON object")
    alone = not (said[:start].rpartition("\n")[2] + said[end:]).strip(" \t\r\n`*.")
    if not alone and any(_squeezed(said[start:end]) in _squeezed(text) for text in texts):
        raise ValueError("the last JSON object may be a quotation")
    return found


def _squeezed(text):
    return "".join(text.split())


def _last_object(text):
    """(object, start, end) of the last JSON object that stands by itself, not inside another."""
    decoder, found, at = json.JSONDecoder(object_pairs_hook=_once), None, text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            found = (value, at, end)
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
    if found is None:
        raise ValueError("the judge's reply has no JSON object")
    return found


def _once(pairs):
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


# --- forms of a judgement ----------------------------------------------------------------------------------------------


def whole_number(found, key, low, high):
    """The value of `key`, an integer in [low, high] (true is none, nor is 4.0)."""
    value = found.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key} is {_shown(value)}, not a whole number from {low} to {high}")
    return value


def only_keys(found, *keys):
    if set(found) != set(keys):
        raise ValueError(f"the judgement has the keys {_shown(sorted(found))}, not {', '.join(keys)}")


def booleans(found, key, count):
    """The value of `key`, a list of `count` booleans."""
    value = found.get(key)
    if not isinstance(value, list) or len(value) != count or not all(type(each) is bool for each in value):
        raise ValueError(f"{key} is {_shown(value)}, not a list of {count} times true or false")
    return value


def _shown(value):
    return json.dumps(value)[:80]
