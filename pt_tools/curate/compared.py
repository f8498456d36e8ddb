"""What of a record is compared with other records, to find copies."""

import orjson

from pt_tools import record
from pt_tools.record import as_turns

PARTS = ("all", "prompt", "response")
_SAID = ("role", "content", "train")


def turns(rec: dict, on: str) -> list[str]:
    """The texts of all turns, of the user's turns, or of the answers: everything that the assistant says, both answers
    of a pair, sampled completions.

    What a turn has besides its content (tool calls, thoughts) belongs to its text. A text record is one text whatever
    `on` says.
    """
    if on == "prompt":
        return record.user_turns(rec)
    found = _turns(rec)
    if on == "response":
        found = [turn for turn in found if turn["role"] == "assistant"]
    return [turn["content"] if len(turn) == 2 else _text(turn) for turn in found]


def conversation(rec: dict, on: str) -> str:
    """The same as one text without system prompts: many records share them, and are no copies for that."""
    if on == "prompt":
        return "\n".join(record.user_turns(rec))
    return "\n".join([_text(turn) for turn in _turns(rec) if turn["role"] != "system" and (
        on == "all" or turn["role"] == "assistant")])


def _turns(rec):
    if "messages" in rec:
        found = rec["messages"]
    else:
        found = _parts(rec)
    if rec.get("completions"):
        found = found + [turn for one in rec["completions"] for turn in as_turns(one["text"], "assistant")]
    return found


def _parts(rec):
    kind = record.kind(rec)
    if kind == "text":
        return as_turns(rec["text"], "assistant")
    prompt = record.prompt_of(rec)
    if kind == "prompt":
        answers = []
    elif kind == "preference":
        start = len(prompt) if "prompt" not in rec else 0
        answers = [rec[key][start:] for key in ("chosen", "rejected")]
    else:
        answers = [rec["completion"]]
    return as_turns(prompt, "user") + [turn for answer in answers for turn in as_turns(answer, "assistant")]


def _text(turn):
    if len(turn) == 2:
        return turn["content"]
    more = {key: value for key, value in turn.items() if key not in _SAID}
    return turn["content"] + "\n" + orjson.dumps(more, option=orjson.OPT_SORT_KEYS).decode() if more else turn["content"]
