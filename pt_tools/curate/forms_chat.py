"""Forms of conversations and texts.

Each function makes the fields of a record out of a row, and takes what it reads out of it.
"""

from pt_tools.curate import turns
from pt_tools.record import as_turns, untrained

QUESTIONS = ("prompt", "question", "query", "input", "inputs")
RESPONSES = ("completion", "response", "output", "targets", "target", "answer")


def messages(row):
    return {"messages": turns.turns(row.pop("messages"), "messages")}


def sharegpt(row):
    key = "conversations" if "conversations" in row else "conversation"
    given = turns.turns(row.pop(key), key)
    if "chosen" in row and "rejected" in row:
        pair = {key: turns.answer(row.pop(key), key) for key in ("chosen", "rejected")}
        return {"prompt": given, **pair}
    if "label" in row or "kto_tag" in row:
        return labelled(row, given)
    return {"messages": given}


def labelled(row, given):
    """Unpaired preference: the last turn is the completion."""
    label = turns.boolean(row.pop("label") if "label" in row else row.pop("kto_tag"))
    return {"prompt": given[:-1], "completion": given[-1:], "label": label}


def is_unpaired(row):
    return "messages" in row or "instruction" in row or turns.first(row, RESPONSES) is not None


def unpaired(row):
    if "messages" in row:
        return labelled(row, turns.turns(row.pop("messages"), "messages"))
    if "instruction" in row:
        return labelled(row, instructed(row))
    prompt, completion = answered(row)
    label = turns.boolean(row.pop("label") if "label" in row else row.pop("kto_tag"))
    return {"prompt": prompt, "completion": completion, "label": label}


def prompt_completion(row):
    prompt, completion = answered(row)
    return {"messages": untrained(prompt) + completion}  # TRL trains the completion only


def answered(row):
    """Prompt and answer of a row that has them under any of their names."""
    question, response = turns.first(row, QUESTIONS), turns.first(row, RESPONSES)
    if question is None or response is None:
        raise KeyError("the question" if question is None else "the answer")
    return turns.prompt(row.pop(question), question), turns.answer(_said(row, response), response)


def _said(row, key):
    """An answer: a string that is not empty, or messages."""
    return turns.string(row, key) if isinstance(row[key], str) or row[key] is None else row.pop(key)


def prompt_only(row):
    return {"prompt": turns.prompt(row.pop("prompt"))}


def text(row):
    return {"text": row.pop("text")}


def dialogue(row):
    said = turns.dialogue(turns.string(row, "text"), "text")
    if said[-1] == {"role": "assistant", "content": ""}:  # room for an answer
        return {"prompt": said[:-1]}
    return {"messages": said}


def alpaca(row):
    return {"messages": instructed(row)}


def instructed(row):
    """Instruction and answer; Dolly's `context` and `response` are Alpaca's `input` and `output`."""
    if "context" in row and "input" not in row:
        row["input"] = row.pop("context")
    key = turns.first(row, ("output", "response", "completion"))
    if key is None:
        raise KeyError("output")
    return turns.instruction(row) + as_turns(turns.string(row, key), "assistant")


def self_instruct(row):
    instances = row.pop("instances")
    if not isinstance(instances, list) or not instances or not isinstance(instances[0], dict):
        raise ValueError("instances is not a list of objects")
    row["input"], row["output"] = instances[0]["input"], instances[0]["output"]
    return alpaca(row)
