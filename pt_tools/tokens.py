"""Messages and text to token ids and labels.

Token ids of a prompt are a prefix of the ids of prompt + completion, so that what is trained is
what is sampled: where a token would straddle the border, the two sides are encoded apart.
"""

import os
from typing import NamedTuple
from weakref import WeakKeyDictionary

IGNORE = -100
_PROBE = "Probe7"
_facts = WeakKeyDictionary()


class Encoded(NamedTuple):
    """One row: token ids and, of the same length, labels (-100 where no loss is taken)."""
    input_ids: list
    labels: list


class _Facts(NamedTuple):
    template: str | None
    bos: list           # ids the tokenizer puts before plain text
    end_of_turn: int | None
    stops: frozenset    # end of text, end of turn


def encode_prompt(tok, prompt, tools=None):
    """Ids of a prompt: messages (chat template with the generation prompt) or a plain string."""
    if isinstance(prompt, str):
        return _known(tok).bos + _ids(tok, prompt)
    return _ids(tok, _render(tok, prompt, True, tools))


def encode_text(tok, text):
    """Plain text and the end-of-text token, every position trained."""
    ids = _known(tok).bos + _ids(tok, text) + _eos(tok)
    return Encoded(ids, list(ids))


def encode_chat(tok, messages, tools=None):
    """A conversation; loss on assistant turns without `"train": false`, end-of-turn token included.

    Raises ValueError(reason) where the template refuses or rewrites the conversation, or nothing is trained.
    """
    turns = [i for i, m in enumerate(messages) if m.get("role") == "assistant" and m.get("train", True)]
    if not turns:
        raise ValueError("no assistant turn to train on")
    if any("train" in m for m in messages):
        messages = [{k: v for k, v in m.items() if k != "train"} for m in messages]
    text = _render(tok, messages, False, tools)
    spans = [_span(tok, messages, i, text, tools) for i in turns]
    if any(start >= end for start, end in spans):
        raise ValueError("the chat template leaves out an assistant turn")
    ids, borders = _encode_at(tok, text, [position for span in spans for position in span])
    labels = [IGNORE] * len(ids)
    for start, end in zip(borders[::2], borders[1::2]):
        end = _after_stop(tok, ids, start, end)
        labels[start:end] = ids[start:end]
    if turns[-1] == len(messages) - 1 and _known(tok).end_of_turn is None:
        ids, labels = ids + _eos(tok), labels + _eos(tok)
    return Encoded(ids, labels)


def encode_completion(tok, prompt, completion, tools=None):
    """(prompt_ids, completion_ids); a completion is text or messages and ends with a stop token."""
    if isinstance(prompt, str):
        if not isinstance(completion, str):
            raise ValueError("a text prompt needs a text completion")
        ids, (border,) = _encode_at(tok, prompt + completion, [len(prompt)])
        bos = _known(tok).bos
        return bos + ids[:border], ids[border:] + _eos(tok)
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    text = _render(tok, prompt + completion, False, tools)
    start = _start(tok, prompt, text, tools)
    if start >= len(text):
        raise ValueError("the chat template leaves out the completion")
    ids, (border,) = _encode_at(tok, text, [start])
    end = _after_stop(tok, ids, border, len(ids))
    return ids[:border], ids[border:end] + (_eos(tok) if _known(tok).end_of_turn is None else [])


def stop_ids(tok, model=None):
    """Ids that end a completion: end of text, end of turn, and those of the generation config."""
    config = getattr(model, "generation_config", None)
    more = getattr(config, "eos_token_id", None)
    more = more if isinstance(more, (list, tuple)) else [more]
    return set(_known(tok).stops) | {i for i in more if i is not None}


def end_of_turn(tok):
    """The stop token that the chat template writes after an assistant turn, or None."""
    return _known(tok).end_of_turn


def _known(tok):
    facts = _facts.get(tok)
    if facts is None or facts.template != tok.chat_template:
        mark = _end_of_turn(tok)
        _facts[tok] = facts = _Facts(tok.chat_template, _bos(tok), mark, frozenset({tok.eos_token_id, mark} - {None}))
    return facts


def _bos(tok):
    # Empty text shows what is added on both sides; an end-of-text token is ours to add.
    return [i for i in tok("", add_special_tokens=True)["input_ids"] if i != tok.eos_token_id or i == tok.bos_token_id][:1]


def _eos(tok):
    if tok.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token")
    return [tok.eos_token_id]


def _end_of_turn(tok):
    if not tok.chat_template:
        return None
    try:
        text = _render(tok, [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}], False, None)
    except ValueError:
        return None
    special = {tok.eos_token_id, *(i for i, t in tok.added_tokens_decoder.items() if t.special)}
    return next((i for i in _ids(tok, text[text.rfind(_PROBE) + len(_PROBE):]) if i in special), None)


def _ids(tok, text):
    backend = getattr(tok, "backend_tokenizer", None)
    if backend is None:
        return tok(text, add_special_tokens=False)["input_ids"]
    if backend.truncation or backend.padding:      # left behind by an earlier call with such options
        backend.no_truncation()
        backend.no_padding()
    return backend.encode(text, add_special_tokens=False).ids


def _render(tok, messages, generate, tools):
    if not tok.chat_template:
        raise ValueError("the tokenizer has no chat template")
    try:
        return tok.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=generate)
    except Exception as err:      # jinja raises whatever the template's own code raises
        raise ValueError(f"chat template: {err}") from err


def _start(tok, before, text, tools):
    """Where the turn after `before` begins in `text`: the end of its generation prompt."""
    head = _render(tok, before, True, tools)
    if text.startswith(head):
        return len(head)
    # A generation prompt that opens a thought, say: as far as it agrees, but never inside earlier turns.
    start = len(os.path.commonprefix([head, text]))
    if start < len(_render(tok, before, False, tools)):
        raise ValueError("the chat template rewrites earlier turns")
    return start


def _span(tok, messages, i, text, tools):
    """(start, end) in `text` of what assistant turn i adds after its generation prompt."""
    if i == 0:
        raise ValueError("the conversation begins with an assistant turn")
    start = _start(tok, messages[:i], text, tools)
    if i == len(messages) - 1:
        return start, len(text)
    until = _render(tok, messages[:i + 1], False, tools)
    if text.startswith(until):
        return start, len(until)
    # Shown differently as the last turn (thoughts dropped later): its end is the next end-of-turn token.
    mark = end_of_turn(tok)
    end = -1 if mark is None else text.find(tok.convert_ids_to_tokens(mark), start)
    if end < 0:
        raise ValueError("the chat template rewrites earlier turns")
    return start, end + len(tok.convert_ids_to_tokens(mark))


def _encode_at(tok, text, positions):
    """Ids of `text`, and the token index of each (ascending) character position in it."""
    ids = _ids(tok, text)
    borders = []
    for position in positions:
        head = ids if position == len(text) else _ids(tok, text[:position])
        if ids[:len(head)] != head:
            return _encode_apart(tok, text, positions)
        borders.append(len(head))
    return ids, borders


def _encode_apart(tok, text, positions):
    ids, borders, last = [], [], 0
    for position in positions:
        ids += _ids(tok, text[last:position])
        borders.append(len(ids))
        last = position
    return ids + _ids(tok, text[last:]), borders


def _after_stop(tok, ids, start, end):
    """`end`, moved back to just after the last stop token of ids[start:end] (a newline may follow it)."""
    stops = _known(tok).stops
    return next((k + 1 for k in range(end - 1, start - 1, -1) if ids[k] in stops), end)
