"""Foreign forms of post-training data, told apart by their keys, turned into records.

Every converter takes its keys out of the row and leaves the others: unknown keys pass through, after ours. Strings
become chat messages; only `text` stays text. A worked answer that a verifier does not need is kept as `solution`.
"""

import re

from pt_tools import record
from pt_tools.record import as_turns, untrained

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    "function_call": "call", "tool_call": "call",
}


def convert(obj: dict, format: str | None = None) -> dict:
    """A checked record made of one row. ValueError: an unknown form, or the first fault of the record."""
    if not isinstance(obj, dict):
        raise ValueError("not an object")
    name = format or detect(obj)
    if name not in FORMATS:
        raise ValueError(f"unknown format {name}; known: {', '.join(FORMATS)}")
    _, _, convert_row = FORMATS[name]
    try:
        rec = convert_row(dict(obj))
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing (format {name})") from None
    if isinstance(rec.get("id"), int) and not isinstance(rec["id"], bool):
        rec["id"] = str(rec["id"])
    record.check(rec)
    return rec


def detect(obj: dict) -> str:
    """The name of the first format whose keys the row has."""
    for name, (keys, fits, _) in FORMATS.items():
        if all(key in obj for key in keys) and (fits is None or fits(obj)):
            return name
    keys = ", ".join(list(obj)[:8])
    raise ValueError(f"no known format has these keys: {keys}" if keys else "an empty object")


# --- parts --------------------------------------------------------------------------------------------------------


def turns(value, where: str) -> list[dict]:
    """Messages from messages, ShareGPT turns (from, value), one such turn, or none of them: ValueError."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"{where} is not a list of messages")
    return [_turn(turn, f"{where}[{i}]") for i, turn in enumerate(value)]


def _turn(turn, where):
    turn = dict(turn)
    name = turn.pop("role", None) or turn.pop("from", None)
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise ValueError(f"{where} has the unknown role {name!r:.40}" if name else f"{where} has no role")
    turn.pop("from", None)
    content = turn.pop("content") if "content" in turn else turn.pop("value", None)
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, where), **turn}
    if content is None and turn.get("tool_calls"):
        content = ""
    return {"role": role, "content": _joined(content, where), **turn}


def _joined(content, where):
    """A string as it is; a list of text parts as one string."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise ValueError(f"{where}.content has a part that is not text")
    return "".join(part["text"] for part in content)


def _calls(content, where):
    calls = _parsed(content, f"{where}: a function call")
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        raise ValueError(f"{where}: a function call without a name")
    return [{"type": "function", "function": call} for call in calls]


def _parsed(value, where):
    """JSON that came as a string, or what it says."""
    if not isinstance(value, str):
        return value
    import orjson

    try:
        return orjson.loads(value)
    except ValueError:
        raise ValueError(f"{where} is not JSON") from None


def _string(row, key, empty=False):
    value = row.pop(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    if not empty and not value.strip():
        raise ValueError(f"{key} is empty")
    return value


def _optional(row, key):
    return _string(row, key, empty=True) if row.get(key) is not None else row.pop(key, None) or ""


def _conversation(row, key):
    """The turns under `key`, a system text beside them put first, tools unpacked from their string."""
    system, value = _optional(row, "system"), turns(row.pop(key), key)
    if isinstance(row.get("tools"), str):
        tools = _parsed(row["tools"], "tools") if row["tools"].strip() else []
        row["tools"] = tools if isinstance(tools, list) else [tools]
    if system and not (value and value[0]["role"] == "system"):
        value = as_turns(system, "system") + value
    return value


def _prompt(value, where="prompt"):
    return as_turns(value, "user") if isinstance(value, str) else turns(value, where)


def _answer(value, where):
    return as_turns(value, "assistant") if isinstance(value, str) else turns(value, where)


def _named(row, key, format):
    """An id from a native key: a number gets the format's name before it, a string is one already."""
    value = row.pop(key, None)
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, (str, int)):  # a number beyond 64 bits comes rounded, a float
        raise ValueError(f"{key} is neither a string nor a whole number of 64 bits")
    return {"id": value if isinstance(value, str) else f"{format}/{value}"}


# --- conversations and texts --------------------------------------------------------------------------------------


def _messages(row):
    return {"messages": _conversation(row, "messages"), **row}


def _sharegpt(row):
    conversation = _conversation(row, "conversations")
    if "chosen" in row and "rejected" in row:
        pair = {key: _answer(row.pop(key), key) for key in ("chosen", "rejected")}
        return {"prompt": conversation, **pair, **row}
    if "label" in row or "kto_tag" in row:
        return _labelled(row, conversation)
    return {"messages": conversation, **row}


def _labelled(row, conversation):
    label = row.pop("label") if "label" in row else row.pop("kto_tag")
    return {"prompt": conversation[:-1], "completion": conversation[-1:], "label": label, **row}


def _unpaired(row):
    if "messages" in row:
        return _labelled(row, _conversation(row, "messages"))
    pair = {"prompt": _prompt(row.pop("prompt")), "completion": _answer(row.pop("completion"), "completion")}
    return {**pair, "label": row.pop("label"), **row}


def _prompt_completion(row):
    prompt = untrained(_prompt(row.pop("prompt")))  # TRL trains the completion only
    return {"messages": prompt + _answer(row.pop("completion"), "completion"), **row}


def _prompt_only(row):
    return {"prompt": _prompt(row.pop("prompt")), **row}


def _text(row):
    return row


def _alpaca(row):
    messages = _alpaca_prompt(row) + as_turns(_string(row, "output"), "assistant")
    return {"messages": messages, **row}


def _alpaca_prompt(row):
    """system, history as pairs of turns, then the instruction and on the next line its input."""
    messages = []
    system = _optional(row, "system")
    if system:
        messages += as_turns(system, "system")
    history = row.pop("history", None) or []
    for pair in history if isinstance(history, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError("history is not a list of [user, assistant] pairs")
        messages += as_turns(pair[0], "user") + as_turns(pair[1], "assistant")
    parts = [_string(row, "instruction"), _optional(row, "input")]
    return messages + as_turns("\n".join(part for part in parts if part.strip()), "user")


def _dolly(row):
    row["input"], row["output"] = row.pop("context"), row.pop("response")
    return _alpaca(row)


def _self_instruct(row):
    instances = row.pop("instances")
    if not isinstance(instances, list) or not instances or not isinstance(instances[0], dict):
        raise ValueError("instances is not a list of objects")
    row["input"], row["output"] = instances[0]["input"], instances[0]["output"]
    return _alpaca(row)


# --- preferences --------------------------------------------------------------------------------------------------


def _preference(row):
    given = next((key for key in ("prompt", "question", "instruction") if key in row), None)
    chosen, rejected = row.pop("chosen"), row.pop("rejected")
    if given is None:
        return {**_split_pair(chosen, rejected), **row}
    if given == "instruction":
        prompt = _alpaca_prompt(row)
    else:
        system = _optional(row, "system")
        prompt = (as_turns(system, "system") if system else []) + _prompt(row.pop(given), given)
    answers = {"chosen": _answer(chosen, "chosen"), "rejected": _answer(rejected, "rejected")}
    return {"prompt": prompt, **{key: _after(prompt, value) for key, value in answers.items()}, **row}


def _after(prompt, answer):
    """The answer alone, where the data repeats the prompt in front of it."""
    return answer[len(prompt):] if len(answer) > len(prompt) and answer[:len(prompt)] == prompt else answer


def _split_pair(chosen, rejected):
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt = record.implicit_prompt(chosen, rejected)
        chosen, rejected = chosen[len(prompt):].strip(), rejected[len(prompt):].strip()
        return {"prompt": as_turns(prompt.strip(), "user"), "chosen": as_turns(chosen, "assistant"),
                "rejected": as_turns(rejected, "assistant")}
    chosen, rejected = turns(chosen, "chosen"), turns(rejected, "rejected")
    n = len(record.implicit_prompt(chosen, rejected))
    return {"prompt": chosen[:n], "chosen": chosen[n:], "rejected": rejected[n:]}


def _hh(row):
    return {**_split_pair(*(_dialogue(_string(row, key), key) for key in ("chosen", "rejected"))), **row}


def _dialogue(text, where):
    before, *rest = re.split(r"(?:\A|\n\n)(Human|Assistant):", text)
    if before.strip() or not rest:
        raise ValueError(f"{where} does not start with Human: or Assistant:")
    return [{"role": "user" if who == "Human" else "assistant", "content": said.strip()}
            for who, said in zip(rest[::2], rest[1::2])]


def _is_hh(row):
    return all(isinstance(row[key], str) and re.match(r"\s*Human:", row[key]) for key in ("chosen", "rejected"))


# --- prompts with verifiers ---------------------------------------------------------------------------------------


def _math_prompt(row, problem, answer):
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float, type(None))):
        raise ValueError("the answer to check against is neither text nor a number")
    if answer is None or not str(answer).strip():
        raise ValueError("the answer to check against is empty")
    if isinstance(answer, float) and abs(answer) >= 2**63:
        raise ValueError("the answer to check against is a number beyond 64 bits; it must be text")
    return {"prompt": as_turns(problem, "user"), "verifier": {"name": "math", "answer": str(answer).strip()}, **row}


def _gsm8k(row):
    problem, solution = _string(row, "question"), _string(row, "answer")
    _, mark, gold = solution.rpartition("####")
    if not mark:
        raise ValueError("answer has no #### before the result")
    row["solution"] = solution
    return _math_prompt(row, problem, gold)


def _math(row):
    problem = _string(row, "problem")
    answer = row.pop("answer") if "answer" in row else _boxed(row["solution"])
    return {**_named(row, "unique_id", "math"), **_math_prompt(row, problem, answer)}


def _boxed(solution):
    r"""What the last \boxed{...} holds."""
    start = solution.rfind("\\boxed{") if isinstance(solution, str) else -1
    depth = 0
    for i in range(start + 6, len(solution)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(solution[i], 0)
        if depth == 0:
            return solution[start + 7:i]
    raise ValueError(r"solution has no \boxed{...}")


def _ifeval(row):
    verifier = _constraints(row.pop("instruction_id_list"), row.pop("kwargs"))
    prompt = as_turns(_string(row, "prompt"), "user")
    return {**_named(row, "key", "ifeval"), "prompt": prompt, "verifier": verifier, **row}


def _constraints(ids, kwargs):
    ids, kwargs = ids if isinstance(ids, list) else None, kwargs if isinstance(kwargs, list) else []
    kwargs = [kw or {} for kw in kwargs or [{}] * len(ids or ())]
    if ids is None or len(ids) != len(kwargs) or not all(isinstance(kw, dict) for kw in kwargs):
        raise ValueError("instruction_id_list and kwargs are not lists of one length")
    # Arrow files fill absent arguments with null.
    kwargs = [{key: value for key, value in kw.items() if value is not None} for kw in kwargs]
    return {"name": "constraints", "instruction_id_list": ids, "kwargs": kwargs}


def _rlvr(row):
    conversation, truth = _conversation(row, "messages"), row.pop("ground_truth")
    if conversation and conversation[-1]["role"] == "assistant":
        conversation = conversation[:-1]
    name = row["dataset"][0] if isinstance(row["dataset"], list) and row["dataset"] else row["dataset"]
    verifier = _rlvr_verifier(str(name).lower(), truth[0] if isinstance(truth, list) and len(truth) == 1 else truth)
    return {"prompt": conversation, "verifier": verifier, **row}


def _rlvr_verifier(name, truth):
    if name in ("gsm8k", "math"):
        return _math_prompt({}, "", truth)["verifier"]
    if not name.startswith("ifeval"):
        raise ValueError(f"no verifier is known for the data set {name!r:.40}")
    truth = _parsed(truth, "ground_truth")
    if isinstance(truth, list) and len(truth) == 1:
        truth = truth[0]
    if not isinstance(truth, dict):
        raise ValueError("ground_truth is not an object")
    ids = truth.get("instruction_id_list", truth.get("instruction_id"))
    if ids is not None:
        return _constraints(ids, truth.get("kwargs"))
    from pt_tools.curate import tulu

    return _constraints(*tulu.constraints(truth))


def _humaneval(row):
    """The verifier gets the prompt too: a completion is the whole function, or only what continues the prompt."""
    name, test, start = _string(row, "entry_point"), _string(row, "test"), _string(row, "prompt")
    verifier = {"name": "code", "tests": [f"{test.rstrip()}\n\ncheck({name})"], "entry_point": name, "prompt": start}
    return {**_named(row, "task_id", "humaneval"), "prompt": as_turns(start, "user"), "verifier": verifier, **row}


def _mbpp(row):
    """The task and its asserts (they name the function), as the paper prompts."""
    task, tests, setup = _string(row, "text"), row.pop("test_list"), _optional(row, "test_setup_code").strip()
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise ValueError("test_list is not a list of strings")
    prompt = f"{task}\nYour code should pass these tests:\n" + "\n".join(tests)
    verifier = {"name": "code", "tests": [f"{setup}\n{test}" if setup else test for test in tests]}
    return {**_named(row, "task_id", "mbpp"), "prompt": as_turns(prompt, "user"), "verifier": verifier, **row}


def _mt_bench(row):
    """The first turn is the prompt; all turns stay under `turns`, for who asks the second."""
    if not isinstance(row["turns"], list) or not row["turns"]:
        raise ValueError("turns is not a list of prompts")
    return {**_named(row, "question_id", "mt_bench"), "prompt": _prompt(row["turns"][0], "turns[0]"), **row}


# name: (keys that tell it, a further test or None, converter); the first that fits wins, so the special come first
FORMATS = {
    "mbpp": (("text", "test_list"), None, _mbpp),
    "humaneval": (("prompt", "test", "entry_point"), None, _humaneval),
    "ifeval": (("prompt", "instruction_id_list", "kwargs"), None, _ifeval),
    "rlvr": (("messages", "ground_truth", "dataset"), None, _rlvr),
    "mt-bench": (("turns", "question_id"), None, _mt_bench),
    "sharegpt": (("conversations",), None, _sharegpt),
    "hh": (("chosen", "rejected"), _is_hh, _hh),
    "preference": (("chosen", "rejected"), None, _preference),
    "unpaired": (("label",), lambda row: "messages" in row or {"prompt", "completion"} <= row.keys(), _unpaired),
    "prompt-completion": (("prompt", "completion"), None, _prompt_completion),
    "messages": (("messages",), None, _messages),
    "prompt": (("prompt",), None, _prompt_only),
    "gsm8k": (("question", "answer"), lambda row: "####" in str(row["answer"]), _gsm8k),
    "math": (("problem",), lambda row: "answer" in row or "solution" in row, _math),
    "self-instruct": (("instruction", "instances"), None, _self_instruct),
    "dolly": (("instruction", "context", "response"), None, _dolly),
    "alpaca": (("instruction", "output"), None, _alpaca),
    "text": (("text",), None, _text),
}
