"""Ghost Attention (Llama 2, section 3.3): dialogues in which an instruction of the first turn holds to the end.

1. `start` puts an instruction in front of every user turn, so that a model that is sampled from keeps it in mind;
2. after sampling, `following` gives the prompt of the next turn where answers are made turn by turn, and
3. `trained` makes the training record: the instruction stands in the first turn alone, and only the last answer has a
   loss; those before it were not given to the shortened context.

The instruction is lists of values, as {"name": "Figure", "instruction": "Always act as {value}.", "values": ["Napoleon",
…]}, of which several are combined; half of the time its training form is short, as "Figure: Napoleon." What a dialogue
needs on its way is in its record's `gatt`.
"""

from pt_tools import record
from pt_tools.curate import completions as comps
from pt_tools.curate import seeded
from pt_tools.record import as_turns

VALUE = "{value}"


class Lists:
    """The instructions: rows of a file. ValueError if one is no list."""

    def __init__(self, rows: list[dict]):
        self.rows = rows
        for number, row in enumerate(rows, 1):
            try:
                _check(row)
            except ValueError as reason:
                raise ValueError(f"list {number}: {reason}") from None
        if not rows:
            raise ValueError("it has no lists")
        if len({row["name"] for row in rows}) < len(rows):
            raise ValueError("two lists have one name")

    def draw(self, seed: int, id: str, most: int) -> tuple[str, str]:
        """An instruction for one dialogue, long and short: of 1 to `most` lists a value each, all equally likely."""
        count = 1 + seeded.key(seed, "gatt", "count", id) % min(most, len(self.rows))
        drawn = [(row, seeded.pick(row["values"], seed, "gatt", row["name"], id))
                 for row, _ in zip(seeded.draws(self.rows, seed, "gatt", "lists", id), range(count))]
        return (" ".join(row["instruction"].replace(VALUE, value) for row, value in drawn),
                " ".join(f"{row['name']}: {value}." for row, value in drawn))


def _check(row):
    for key in ("name", "instruction"):
        record.check_text(row.get(key), key)
    if VALUE not in row["instruction"]:
        raise ValueError(f"the instruction has no {VALUE}")
    if not isinstance(row.get("values"), list) or not row["values"]:
        raise ValueError("values is no list, or empty")
    for number, value in enumerate(row["values"]):
        record.check_text(value, f"values[{number}]")


# --- the three steps ----------------------------------------------------------------------------------------------


def start(rec: dict, lists: Lists, seed: int = 0, combine: int = 3, short: float = 0.5, turn_by_turn: bool = False) -> dict:
    """The prompt of a dialogue with an instruction in front of every user turn, to be answered at its last one.

    With `turn_by_turn` the dialogue's own answers are left out, and the prompt is of its first turn; where the record has
    `turns`, texts, they are the user's (MT-Bench). ValueError if the record has no dialogue.
    """
    turns = _dialogue(rec)
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    turns, later = turns[:last + 1], []
    if turn_by_turn:
        asked = [turn for turn in turns if turn["role"] == "user"]
        later = [turn["content"] for turn in asked[1:]] or _more_turns(rec, asked[0])
        turns = [turn for turn in turns if turn["role"] == "system"] + asked[:1]
    long, brief = lists.draw(seed, rec["id"], combine)
    first = brief if seeded.draw(seed, "gatt", "short", rec["id"]) < short else long
    prompt = [_instructed(turn, long) if turn["role"] == "user" else turn for turn in turns]
    gatt = {"instruction": long, "first": first, **({"turns": later} if later else {})}
    return {**comps.without(rec), "prompt": prompt, "gatt": gatt}


def _dialogue(rec):
    if record.kind(rec) not in ("messages", "prompt"):
        raise ValueError(f"a {record.kind(rec)} record is no dialogue")
    return rec["messages"] if "messages" in rec else as_turns(rec["prompt"], "user")


def _more_turns(rec, first):
    turns = rec.get("turns")
    if not isinstance(turns, list) or turns[:1] != [first["content"]]:
        return []
    for number, text in enumerate(turns):
        record.check_text(text, f"turns[{number}]")
    return turns[1:]


def following(rec: dict):
    """(the prompt of the dialogue's next turn, None), or (None, why there is none). Its answer so far is the best one."""
    later = _of(rec).get("turns")
    if not later:
        return None, "it has no more turns: --step train"
    answer = _answer(rec)
    if answer is None:
        return None, "no completion with a text"
    turn = _instructed({"role": "user", "content": later[0]}, rec["gatt"]["instruction"])
    gatt = {key: value for key, value in rec["gatt"].items() if key != "turns"} | ({"turns": later[1:]} if later[1:] else {})
    prompt = [*_asked(rec), {"role": "assistant", "content": answer}, turn]
    return {**comps.without(rec), "prompt": prompt, "gatt": gatt}, None


def trained(rec: dict):
    """(the training record of a dialogue that is answered to its end, None), or (None, why there is none)."""
    gatt = _of(rec)
    if gatt.get("turns"):
        return None, "it has more turns: --step next"
    answer = _answer(rec)
    if answer is None:
        return None, "no completion with a text"
    turns = record.untrained([_plain(turn, gatt["instruction"]) for turn in _asked(rec)])
    first = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
    turns[first] = _instructed(turns[first], gatt["first"])
    return {**comps.without(rec), "messages": [*turns, {"role": "assistant", "content": answer}]}, None


def _asked(rec):
    """The dialogue up to the turn that completions answer."""
    turns = _dialogue(rec)
    return turns[:-1] if turns[-1]["role"] == "assistant" else turns


def _of(rec):
    gatt = rec.get("gatt")
    if not (isinstance(gatt, dict) and all(isinstance(gatt.get(key), str) for key in ("instruction", "first"))):
        raise ValueError("the record has no gatt; --step start makes it")
    later = gatt.get("turns", [])
    if not isinstance(later, list):
        raise ValueError("gatt.turns is no list of texts")
    for number, text in enumerate(later):
        record.check_text(text, f"gatt.turns[{number}]")
    return gatt


def _answer(rec):
    """The text of the completion with the highest reward, the first where none has one; None if none can be used."""
    usable = [c for c in comps.of(rec) if comps.trainable(c)]
    rewarded = [c for c in usable if c.get("reward") is not None]
    return max(rewarded, key=lambda c: c["reward"])["text"] if rewarded else usable[0]["text"] if usable else None


def _instructed(turn, instruction):
    return {**turn, "content": f"{instruction}\n{turn['content']}"}


def _plain(turn, instruction):
    """A turn without the instruction in front."""
    if turn["role"] != "user":
        return turn
    head = f"{instruction}\n"
    if not turn["content"].startswith(head):
        raise ValueError("a user turn does not begin with the instruction of the dialogue")
    return {**turn, "content": turn["content"][len(head):]}

