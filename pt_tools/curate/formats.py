"""Foreign forms of post-training data, told apart by their keys, turned into records.

A converter takes its keys out of the row; the others pass through, after ours, but for keys that would make the record
one of another kind. Strings become chat messages; only `text` stays text.
"""

import functools

from pt_tools import record
from pt_tools.curate import forms_chat as chat
from pt_tools.curate import forms_choice as choice
from pt_tools.curate import forms_task as task
from pt_tools.curate import turns
from pt_tools.plain import is_plain

_KINDS = ("prompt", "messages", "completion", "chosen", "rejected")
_LABELLED, _TURN = {*record.LABELS, "messages"}, ("role", "content")
# A row that has these keys without a value does not have them.
_LABELS = ("id", "source", "domain", "safety", "weight", "margin", "reward", "verifier", "completions", "tools")


def convert(obj: dict, format: str | None = None) -> dict:
    """A checked record made of one row. ValueError: an unknown form, or the first fault of the record."""
    if not isinstance(obj, dict):
        raise ValueError("not an object")
    obj = {key: value for key, value in obj.items() if value not in (None, "") or key not in _LABELS}
    name = format or detect(obj)
    if name not in FORMATS:
        raise ValueError(f"unknown format {name}; known: {', '.join(FORMATS)}")
    _, _, make = FORMATS[name]
    try:
        made = make(obj)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing (format {name})") from None
    key = "messages" if "messages" in made else "prompt"
    if key in made:
        made[key] = turns.with_system(obj, made[key])
        turns.unpack_tools(obj)
    rec = _with_rest(made, obj)
    if type(rec.get("id")) is int:
        rec["id"] = str(rec["id"])
    if not is_plain(rec):
        record.check(rec)
    return rec


def is_record(row: dict) -> bool:
    """Whether a row is a plain conversation that `convert` leaves as it is. False says nothing."""
    return (_LABELLED.issuperset(row) and is_plain(row) and all([row[key] for key in row])
            and [*map(tuple, row["messages"])].count(_TURN) == len(row["messages"]))


def _with_rest(made, row):
    """The record and the keys of the row that no one read. They go under `meta` where they would tell another form."""
    rest = {key: value for key, value in row.items() if key not in made and key not in _KINDS}
    if not rest.keys().isdisjoint(_telling()) and detect(made | rest) != record.kind(made):
        telling = {key: rest.pop(key) for key in list(rest) if key in _telling()}
        meta = rest.pop("meta", {})
        rest["meta"] = {**(meta if isinstance(meta, dict) else {"meta": meta}), **telling}
    return made | rest


@functools.cache
def _telling():
    """All keys by which forms are told apart; a solution tells nothing without its problem."""
    return {name for keys, _, _ in FORMATS.values() for key in keys for name in key.split("|")} - {"solution"}


def detect(obj: dict) -> str:
    """The name of the first format whose keys the row has."""
    for name in _candidates(tuple(obj)):
        fits = FORMATS[name][1]
        if fits is None or fits(obj):
            return name
    keys = ", ".join(list(obj)[:8])
    raise ValueError(f"no known format has these keys: {keys}" if keys else "an empty object")


@functools.lru_cache(maxsize=4096)
def _candidates(found):
    """Names of the formats that rows with these keys may have; data sets have few different lists of keys."""
    return [name for name, (keys, _, _) in FORMATS.items() if all(set(key.split("|")) & set(found) for key in keys)]


# name: (keys that tell it, a further test or None, converter); the first that fits wins, so the special come first
FORMATS = {
    "mbpp": (("text", "test_list"), None, task.mbpp),
    "humaneval": (("prompt", "test", "entry_point"), None, task.humaneval),
    "ifeval": (("prompt", "instruction_id_list", "kwargs"), None, task.ifeval),
    "rlvr": (("ground_truth", "messages|prompt"), task.is_rlvr, task.rlvr),
    "verl": (("prompt", "data_source", "reward_model"), task.is_verl, task.verl),
    "mt-bench": (("turns", "question_id"), None, task.mt_bench),
    "game24": (("Puzzles",), None, task.game24),
    "sharegpt": (("conversations|conversation",), None, chat.sharegpt),
    "hh": (("chosen", "rejected"), choice.is_hh, choice.hh),
    "preference": (("chosen", "rejected"), None, choice.preference),
    "stepwise": (("completions", "labels"), choice.is_stepwise, choice.stepwise),
    "scored": (("prompt|question|query|instruction", "responses|completions|answers|candidates|outputs|generations|output"),
               choice.is_scored, choice.scored),
    "unpaired": (("label|kto_tag", "messages|prompt|instruction"), chat.is_unpaired, chat.unpaired),
    "prompt-completion": (("prompt", "completion|response"), None, chat.prompt_completion),
    "messages": (("messages",), None, chat.messages),
    "prompt": (("prompt",), None, chat.prompt_only),
    "gsm8k": (("question", "answer"), task.is_gsm8k, task.gsm8k),
    "math": (("problem", "answer|solution"), None, task.math),
    "self-instruct": (("instruction", "instances"), None, chat.self_instruct),
    "dolly": (("instruction", "context", "response"), None, chat.alpaca),
    "alpaca": (("instruction", "output|response|completion"), None, chat.alpaca),
    # not question and answer: those that lack the mark of gsm8k are rows of it that went wrong
    "question-answer": (("question|query|input|inputs", "response|output|targets|completion"), None, chat.prompt_completion),
    "dialogue": (("text",), lambda row: turns.is_dialogue(row["text"]), chat.dialogue),
    "text": (("text",), None, chat.text),
}
