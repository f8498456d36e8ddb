"""The record: one JSON object on one line, a prompt with all its completions. Its fields, its kinds, and its faults.

Besides records of our own making the kinds of TRL are records too (`messages`; `prompt` + `completion`; `chosen` +
`rejected`; `label`; `text`). Other forms are turned into records by `convert`, see `curate/formats.py`.

Lines are UTF-8, numbers finite. Where a key occurs twice in an object the last one counts. A whole number beyond 64 bits is
read as the nearest float, and written so where its row is not passed on as it came; text keeps all digits.
"""

import re

from pt_tools.record_fields import FIELDS  # noqa: F401 (part of this module for all others)

# In this order: a record of a later kind may carry the keys of no earlier one.
KINDS = {
    "preference": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "prompt-completion": ("prompt", "completion"),
    "messages": ("messages",),
    "prompt": ("prompt",),
    "text": ("text",),
}

# The foreign forms that `convert` knows, in the order in which they are told apart.
FORMATS = ("mbpp", "humaneval", "ifeval", "rlvr", "verl", "mt-bench", "game24", "sharegpt", "hh", "preference", "stepwise",
           "scored", "unpaired", "prompt-completion", "messages", "prompt", "gsm8k", "math", "self-instruct", "dolly", "alpaca",
           "question-answer", "dialogue", "text")

# Not part of what a record says, and so not of its content hash.
LABELS = ("id", "source", "domain")
MADE_LATER = ("prompt_ids", "tokenizer", "template", "completions", "contamination", "margin", "rank", "reward",
              "chosen_ids", "rejected_ids", "tokens", "rules", "pass_rate", "cluster")
_NO_CONTENT = {*LABELS, *MADE_LATER}
FINISHES = ("stop", "length", "stopped", "error")

# A template's own marks inside a content would let the data open and close turns.
# One expression for each first character: so the search for it is quick.
_ANGLE = r"<(?:\|[A-Za-z0-9_]+\||｜[^｜<>]+｜|/?s|</?SYS>|(?:start|end)_of_turn|[be]os)>"
_SQUARE = r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
TEMPLATE_TOKEN = re.compile(f"{_ANGLE}|{_SQUARE}")
_ANGLE_TOKEN, _SQUARE_TOKEN = re.compile(_ANGLE), re.compile(_SQUARE)

_SCALARS = {"id": str, "source": str, "domain": str, "safety": bool, "tokenizer": str, "template": str, "cluster": str,
            "weight": float, "margin": float, "reward": float}
_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
NEXT_ROLES = {"system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"),
               "tool": ("assistant", "tool")}


def kind(rec: dict) -> str:
    """"preference", "unpaired", "prompt-completion", "messages", "prompt" or "text"; ValueError if none of them."""
    if "messages" in rec and "chosen" not in rec and "completion" not in rec:
        return "messages"  # the loop says the same; this is asked of every row several times
    for name, keys in KINDS.items():
        if all(map(rec.__contains__, keys)):
            return name
    raise ValueError("no record: it has none of messages, prompt, chosen and rejected, text")


def convert(obj: dict, format: str | None = None) -> dict:
    """A record made of a row in any known format; `format` overrides detection by keys. ValueError says the fault."""
    from pt_tools.curate import formats

    return formats.convert(obj, format)


# --- parts of a record --------------------------------------------------------------------------------------------


def as_turns(value, role: str) -> list[dict]:
    """Messages as they are; a string as one message of `role`."""
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def prompt_of(rec: dict):
    """What a completion of this record answers: messages, or a string where the data has one."""
    found = kind(rec)
    if found == "messages":
        return rec["messages"][:-1] if rec["messages"][-1]["role"] == "assistant" else rec["messages"]
    if found == "text":
        return ""
    if found == "preference" and "prompt" not in rec:
        return implicit_prompt(rec["chosen"], rec["rejected"])
    return rec["prompt"]


def messages_of(rec: dict) -> list[dict]:
    """The conversation of a messages or prompt-completion record; only the completion's turns are trained."""
    found = kind(rec)
    if found == "messages":
        return rec["messages"]
    if found in ("prompt-completion", "unpaired"):
        return untrained(as_turns(rec["prompt"], "user")) + as_turns(rec["completion"], "assistant")
    raise ValueError(f"a {found} record has no messages")


def untrained(turns: list[dict]) -> list[dict]:
    """The same turns, assistant turns marked as without loss."""
    return [{**turn, "train": False} if turn["role"] == "assistant" else turn for turn in turns]


def user_turns(rec: dict) -> list[str]:
    """The texts of the user's turns; of a text record its whole text."""
    found = kind(rec)
    if found == "text":
        return [rec["text"]]
    turns = rec["messages"] if found == "messages" else as_turns(prompt_of(rec), "user")
    return [turn["content"] for turn in turns if turn["role"] == "user"]


def implicit_prompt(chosen, rejected):
    """The common beginning of two conversations (whole messages) or two strings (whole words)."""
    if type(chosen) is not type(rejected):
        raise ValueError("chosen and rejected are of different types")
    n = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    if isinstance(chosen, list):
        while n and chosen[n - 1]["role"] not in ("user", "tool"):
            n -= 1  # the answers begin with the same turn
    else:
        while n and not chosen[n - 1].isspace():
            n -= 1
        n = len(chosen[:n].rstrip(" "))  # the space before a word belongs to the word, for the tokenizer
    if not n:
        raise ValueError("no prompt: chosen and rejected have no common beginning")
    return chosen[:n]


def ensure_id(rec: dict) -> dict:
    """Give the record an id if it has none: 16 hex digits of the sha256 of what the data says, whatever the key order."""
    if rec.get("id") is None:
        rec["id"] = content_hash(rec)
    return rec


def content_hash(rec: dict) -> str:
    """16 hex digits that stay the same under another source, order of keys, or sampling."""
    import hashlib

    import orjson

    content = {key: value for key, value in rec.items() if key not in _NO_CONTENT}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


# --- faults -------------------------------------------------------------------------------------------------------


def checked(records):
    """The rows of a stream.Reader that are records; others are rejected by file and line."""
    from pt_tools.plain import is_plain

    records.plain = is_plain
    for rec in records:
        if records.is_plain:
            yield rec
            continue
        try:
            check(rec)
        except ValueError as reason:
            records.reject(str(reason), rec)
        else:
            yield rec


def check(rec: dict) -> None:
    """Raise ValueError with the first fault of a record; duplicate ids are for the caller, who sees them all."""
    if not isinstance(rec, dict):
        raise ValueError(f"not an object but {_type(rec)}")
    found = kind(rec)
    for key in _SCALARS:
        if key in rec:
            _check_scalar(rec, key)
    if rec.get("id") == "":
        raise ValueError("id is empty")
    _CHECKS[found](rec)
    if "verifier" in rec:
        _check_verifier(rec)
    if "completions" in rec:
        _check_completions(rec)
    for key in _IDS:
        if rec.get(key) is not None:
            _check_ids(rec[key], key)


def _check_ids(ids, where):
    if not (isinstance(ids, list) and all(type(id) is int and 0 <= id < 2**31 for id in ids)):
        raise ValueError(f"{where} is not a list of token ids")


def _check_scalar(rec, key):
    value, type_ = rec[key], _SCALARS[key]
    if type_ is not float:
        if not isinstance(value, type_):
            raise ValueError(f"{key} is {_type(value)}, not {_TYPES[type_]}")
    elif value is not None and not _is_number(value):
        raise ValueError(f"{key} is {_type(value)}, not a number")
    elif key == "weight" and value is not None and value < 0:
        raise ValueError("weight is negative")


def _check_messages(rec):
    check_turns(rec["messages"], "messages", last=("assistant",))


def _check_prompt(rec):
    if isinstance(rec["prompt"], str):
        check_text(rec["prompt"], "prompt")
    else:
        check_turns(rec["prompt"], "prompt", last=("user", "tool"))


def _check_answer(rec, key):
    if isinstance(rec[key], str):
        check_text(rec[key], key)
    else:
        check_turns(rec[key], key, before="user", last=("assistant",))


def _check_prompt_completion(rec):
    _check_prompt(rec)
    _check_answer(rec, "completion")


def _check_unpaired(rec):
    _check_prompt_completion(rec)
    if not isinstance(rec["label"], bool):
        raise ValueError(f"label is {_type(rec['label'])}, not true or false")


def _check_preference(rec):
    if "prompt" in rec:
        _check_prompt(rec)
        _check_answer(rec, "chosen")
        _check_answer(rec, "rejected")
    elif isinstance(rec["chosen"], str) and isinstance(rec["rejected"], str):
        check_text(rec["chosen"], "chosen")
        check_text(rec["rejected"], "rejected")
        implicit_prompt(rec["chosen"], rec["rejected"])
    else:
        check_turns(rec["chosen"], "chosen", last=("assistant",))
        check_turns(rec["rejected"], "rejected", last=("assistant",))
        implicit_prompt(rec["chosen"], rec["rejected"])
    if rec["chosen"] == rec["rejected"]:
        raise ValueError("chosen and rejected are the same")


def _check_text(rec):
    check_text(rec["text"], "text", tokens=False)


_CHECKS = {"messages": _check_messages, "prompt": _check_prompt, "prompt-completion": _check_prompt_completion,
           "unpaired": _check_unpaired, "preference": _check_preference, "text": _check_text}


def check_text(text, where: str, tokens=True, empty=False) -> None:
    """A non-empty string without the marks of a chat template."""
    if not isinstance(text, str):
        raise ValueError(f"{where} is {_type(text)}, not a string")
    if not empty and (not text or text.isspace()):
        raise ValueError(f"{where} is empty")
    found = tokens and template_token(text)
    if found:
        raise ValueError(f"{where} contains the template token {found}")


def template_token(text: str) -> str | None:
    """A mark of a chat template that is in a text."""
    found = "<" in text and _ANGLE_TOKEN.search(text) or "[" in text and _SQUARE_TOKEN.search(text)
    return found.group() if found else None


def check_turns(turns, where: str, before: str | None = None, last=("assistant",)) -> None:
    """Turns that follow on `before`: system first, then user and assistant in turn, tools between; ending in `last`."""
    if not isinstance(turns, list):
        raise ValueError(f"{where} is {_type(turns)}, not a list of messages")
    if not turns:
        raise ValueError(f"{where} is empty")
    allowed = NEXT_ROLES[before] if before else ("system", "user")
    for i, turn in enumerate(turns):
        _check_turn(turn, where, i, allowed)
        allowed = NEXT_ROLES[turn["role"]]
    if turns[-1]["role"] not in last:
        raise ValueError(f"{where} ends with {turns[-1]['role']}, not {' or '.join(last)}")


def _check_turn(turn, where, i, allowed):
    if not isinstance(turn, dict):
        raise ValueError(f"{where}[{i}] is {_type(turn)}, not a message")
    role = turn.get("role")
    if not isinstance(role, str) or role not in NEXT_ROLES:
        raise ValueError(f"{where}[{i}] has no role" if role is None else f"{where}[{i}] has the unknown role {role!r:.40}")
    if role not in allowed:
        raise ValueError(f"{where}[{i}] is {role}, where {' or '.join(allowed)} should be (roles alternate)")
    calls = turn.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise ValueError(f"{where}[{i}].tool_calls is not a list of objects")
    if "train" in turn and not isinstance(turn["train"], bool):
        raise ValueError(f"{where}[{i}].train is {_type(turn['train'])}, not true or false")
    if "content" not in turn:
        raise ValueError(f"{where}[{i}] has no content")
    try:
        check_text(turn["content"], "content", empty=bool(calls) or role == "tool")
    except ValueError as reason:
        raise ValueError(f"{where}[{i}].{reason}") from None


def _check_verifier(rec):
    verifiers = rec.get("verifier")
    if verifiers is None:
        return
    for v in verifiers if isinstance(verifiers, list) else [verifiers]:
        if not isinstance(v, dict) or not isinstance(v.get("name"), str):
            raise ValueError("verifier is no object with a name, nor a list of such objects")


def _check_completions(rec):
    completions = rec.get("completions")
    if completions is None:
        return
    if not isinstance(completions, list):
        raise ValueError(f"completions is {_type(completions)}, not a list")
    for i, completion in enumerate(completions):
        _check_completion(completion, f"completions[{i}]")


def check_scores(rec: dict) -> None:
    """Raise ValueError with the first fault in what grading and evaluation read beside prompt and verifier."""
    if isinstance(rec.get("id"), (dict, list)):
        raise ValueError(f"id is {_type(rec['id'])}, not a string")
    if not isinstance(rec.get("domain"), (str, type(None))):
        raise ValueError(f"domain is {_type(rec['domain'])}, not a string")
    if not isinstance(rec.get("completions"), list):
        raise ValueError("the record has no completions; pt-sample makes them")
    for i, completion in enumerate(rec["completions"]):
        _check_scored(completion, f"completions[{i}]")


def _check_scored(c, where):
    if not isinstance(c, dict):
        raise ValueError(f"{where} is {_type(c)}, not an object")
    for key in ("scores", "details", "errors"):
        if not isinstance(c.get(key), (dict, type(None))):
            raise ValueError(f"{where}.{key} is {_type(c[key])}, not an object")
    for key, value in (c.get("scores") or {}).items():
        if not _is_number(value):
            raise ValueError(f"{where}.scores: {key} is {_type(value)}, not a number")
    if c.get("reward") is not None and not _is_number(c["reward"]):
        raise ValueError(f"{where}.reward is {_type(c['reward'])}, not a number")


def _check_completion(c, where):
    _check_scored(c, where)
    if not isinstance(c.get("text"), str):
        raise ValueError(f"{where}.text is {_type(c.get('text'))}, not a string")
    if c.get("finish") not in (None, *FINISHES):
        raise ValueError(f"{where}.finish is {c['finish']!r:.40}, not one of {', '.join(FINISHES)}")
    ids, logprobs = c.get("token_ids"), c.get("logprobs")
    if ids is not None:
        _check_ids(ids, f"{where}.token_ids")
    if not isinstance(logprobs, (list, type(None))):
        raise ValueError(f"{where}.logprobs is {_type(logprobs)}, not a list")
    if ids is not None and logprobs is not None and len(ids) != len(logprobs):
        raise ValueError(f"{where} has {len(ids)} token_ids but {len(logprobs)} logprobs")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0


_TYPES = {str: "a string", bool: "true or false", dict: "an object", list: "a list", type(None): "null"}


def _type(value) -> str:
    return _TYPES.get(type(value), "a number") if not isinstance(value, bool) else "true or false"
