"""Messages out of every spelling that data use for them, and the other parts that rows of many forms share.

Every function takes its keys out of the row, and raises ValueError with the reason for what it cannot read.
"""

import re

from pt_tools.record import as_turns

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    "function_call": "call", "tool_call": "call",
}
REASONING = ("reasoning_content", "reasoning", "thinking")  # the first is what chat templates read
_PLAIN = ("user", "assistant", "system", "tool")
_SPEAKERS = {"Human:": re.compile(r"(?:\A|\n\n)(Human|Assistant):"), "### Human:": re.compile(r"### (Human|Assistant):")}


def turns(value, where: str) -> list[dict]:
    """Messages from messages, ShareGPT turns (from, value), one such turn, or none of them: ValueError."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"{where} is not a list of messages")
    return [turn if _is_plain(turn) else _turn(dict(turn), f"{where}[{i}]") for i, turn in enumerate(value)]


def _is_plain(turn):
    return tuple(turn) == ("role", "content") and type(turn["content"]) is str and turn["role"] in _PLAIN


def _turn(turn, where):
    name = turn.pop("role", None) or turn.pop("from", None)
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise ValueError(f"{where} has the unknown role {name!r:.40}" if name else f"{where} has no role")
    turn.pop("from", None)
    content = turn.pop("content") if "content" in turn else turn.pop("value", None)
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, where), **turn}
    calls, thoughts = _tool_calls(turn, where), _reasoning(turn)
    content, more = _joined(content, where)
    if content is None and calls:
        content = ""
    made = {"role": role, "content": content}
    if thoughts or more:
        made["reasoning_content"] = thoughts or more
    if calls:
        made["tool_calls"] = calls
    return {**made, **_trained(turn, role)}


def _trained(turn, role):
    """`weight` 0 or 1 of an answer says whether it is trained (OpenAI's fine-tuning files)."""
    if role == "assistant" and "train" not in turn and type(turn.get("weight")) in (int, float) and turn["weight"] in (0, 1):
        return {**({} if turn.pop("weight") else {"train": False}), **turn}
    return turn


def _reasoning(turn):
    """The thoughts of a turn, out of its row."""
    found = [turn.pop(key) for key in REASONING if isinstance(turn.get(key), str) or turn.get(key, 0) is None]
    return next((text for text in found if text), None)


def _joined(content, where):
    """(text, thoughts) of a content: a string as it is, text parts joined."""
    if not isinstance(content, list):
        return content, None
    texts, thoughts = [], []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get(kind, part.get("text")) if isinstance(part, dict) and isinstance(kind, str) else part
        if kind not in ("text", "input_text", "output_text", "thinking", "reasoning") or not isinstance(text, str):
            raise ValueError(f"{where}.content has a part that is not text ({kind!r:.40})")
        (thoughts if kind in ("thinking", "reasoning") else texts).append(text)
    return "".join(texts), "".join(thoughts)


def _tool_calls(turn, where):
    """Calls as chat templates read them: {type, function: {name, arguments}}, arguments unpacked from their string."""
    calls, old = turn.pop("tool_calls", None), turn.pop("function_call", None)
    if old and not calls:
        return _calls(old, where)
    if not isinstance(calls, list):
        return calls
    return [_call(call) if isinstance(call, dict) else call for call in calls]


def _call(call):
    inner = call.get("function", call)
    if not isinstance(inner, dict) or not isinstance(inner.get("arguments"), str):
        return call if "function" in call or "name" not in call else {"type": "function", "function": call}
    inner = {**inner, "arguments": _object(inner["arguments"])}
    return {**call, "function": inner} if "function" in call else {"type": "function", "function": inner}


def _object(text):
    """The object that a string of JSON says; other strings as they are."""
    import orjson

    try:
        value = orjson.loads(text or "{}")
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _calls(content, where):
    calls = parsed(content, f"{where}: a function call")
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        raise ValueError(f"{where}: a function call without a name")
    return [_call(call) for call in calls]


def parsed(value, where):
    """JSON that came as a string, or what it says."""
    if not isinstance(value, str):
        return value
    import orjson

    try:
        return orjson.loads(value)
    except ValueError:
        raise ValueError(f"{where} is not JSON") from None


# --- dialogues in one string --------------------------------------------------------------------------------------


def is_dialogue(text) -> bool:
    """Whether a text is a dialogue, `Human:` (or `### Human:`) first, that has an answer or room for one."""
    return isinstance(text, str) and text.lstrip().startswith(tuple(_SPEAKERS)) and "Assistant:" in text


def dialogue(text, where) -> list[dict]:
    """The turns of a text with `Human:` and `Assistant:` (or with `### ` before both)."""
    text = text.lstrip()
    before, *rest = _SPEAKERS["### Human:" if text.startswith("###") else "Human:"].split(text)
    if before or not rest:
        raise ValueError(f"{where} does not start with Human: or Assistant:")
    return [{"role": "user" if who == "Human" else "assistant", "content": said.strip()}
            for who, said in zip(rest[::2], rest[1::2])]


# --- parts of rows ------------------------------------------------------------------------------------------------


def string(row, key, empty=False):
    """The string under `key`."""
    value = row.pop(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    if not empty and not value.strip():
        raise ValueError(f"{key} is empty")
    return value


def optional(row, key):
    """The string under `key`; "" where there is none."""
    return string(row, key, empty=True) if row.get(key) is not None else row.pop(key, None) or ""


def first(row, keys):
    """The first of these keys that the row has."""
    return next((key for key in keys if key in row), None)


def with_system(row, given: list[dict]) -> list[dict]:
    """The turns with the system text of the row, if it has one, in front."""
    texts = [text for key in ("system", "system_prompt") if (text := optional(row, key))]
    if given and given[0]["role"] == "system":
        texts.append(given[0]["content"])
    if any(text != texts[0] for text in texts):
        raise ValueError("there are two different system texts")
    return as_turns(texts[0], "system") + given if texts and given[:1] != as_turns(texts[0], "system") else given


def unpack_tools(row) -> None:
    """`tools` out of a string of JSON, or of the old `functions`."""
    if isinstance(row.get("functions"), list) and "tools" not in row:
        row["tools"] = [{"type": "function", "function": function} for function in row.pop("functions")]
    if isinstance(row.get("tools"), str):
        tools = parsed(row["tools"], "tools") if row["tools"].strip() else []
        row["tools"] = tools if isinstance(tools, list) else [tools]


def prompt(value, where="prompt") -> list[dict]:
    """What is to be answered: a text is the user's, unless it is a dialogue that waits for its last answer."""
    if not isinstance(value, str):
        return turns(value, where)
    if is_dialogue(value):
        said = dialogue(value, where)
        return said[:-1] if said[-1] == {"role": "assistant", "content": ""} else said
    return as_turns(value, "user")


def answer(value, where) -> list[dict]:
    """What answers it."""
    return as_turns(value, "assistant") if isinstance(value, str) else turns(value, where)


def instruction(row) -> list[dict]:
    """History as pairs of turns, then the instruction and on the next line its input (Alpaca)."""
    messages, history = [], row.pop("history", None) or []
    for pair in history if isinstance(history, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError("history is not a list of [user, assistant] pairs")
        messages += as_turns(pair[0], "user") + as_turns(pair[1], "assistant")
    parts = [string(row, "instruction"), optional(row, "input")]
    return messages + as_turns("\n".join(part for part in parts if part.strip()), "user")


def named(row, key, format) -> dict:
    """An id from a native key: a number, also in digits, gets the format's name before it; a string is one already."""
    value = row.pop(key, None)
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, (str, int)):  # a number beyond 64 bits comes rounded, a float
        raise ValueError(f"{key} is neither a string nor a whole number of 64 bits")
    return {"id": value if isinstance(value, str) and not value.isdecimal() else f"{format}/{value}"}


def number(value, where):
    """A number, also one that came as a string; None where there is none."""
    if isinstance(value, str):
        try:
            value = float(value) if value.strip().lower() not in ("", "n/a", "none", "null") else None
        except ValueError:
            raise ValueError(f"{where} is not a number") from None
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value - value != 0):
        raise ValueError(f"{where} is not a number")
    return value


def boolean(value):
    """true or false, also as 1 or 0, or as a word; anything else as it is."""
    words = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, str):
        return words.get(value.strip().lower(), value)
    return bool(value) if type(value) in (int, float) and value in (0, 1) else value
