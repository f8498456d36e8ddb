"""The texts of a record: what is asked, and what is answered."""

from pt_tools import record
from pt_tools.record import as_turns

PARTS = ("response", "prompt", "all")


def texts(rec: dict, of: str) -> list[str]:
    """Texts of the prompt (all turns before the answer but the assistant's), of the response, or of both, in order.

    The response is what is trained: every assistant turn of a conversation that is not marked otherwise, the completion,
    chosen; thoughts stand in front of it between think tags. A text record is its own response. Completions that were
    sampled are none of a record's texts: there may be many, each with a fate of its own.
    """
    asked, said = _parts(rec)
    return said if of == "response" else asked if of == "prompt" else asked + said


def _parts(rec):
    kind = record.kind(rec)
    if kind == "text":
        return [], [rec["text"]]
    if kind == "messages":
        turns = rec["messages"]
        asked = [turn["content"] for turn in turns if turn["role"] != "assistant"]
        return asked, [said(turn) for turn in turns if turn["role"] == "assistant" and turn.get("train", True)]
    prompt, answer = as_turns(record.prompt_of(rec), "user"), _answer(rec, kind)
    return ([turn["content"] for turn in prompt if turn["role"] != "assistant"],
            [said(turn) for turn in answer if turn["role"] == "assistant"])


def _answer(rec, kind):
    if kind in ("prompt-completion", "unpaired"):
        return as_turns(rec["completion"], "assistant")
    if kind == "prompt":
        return []
    chosen = rec["chosen"]
    if "prompt" not in rec:  # both sides begin with the prompt
        chosen = chosen[len(record.prompt_of(rec)):]
    return as_turns(chosen, "assistant")


def said(turn: dict) -> str:
    """What an assistant says, thoughts first, as a completion has it."""
    thoughts = turn.get("reasoning_content")
    return f"<think>{thoughts}</think>{turn['content']}" if isinstance(thoughts, str) and thoughts else turn["content"]
