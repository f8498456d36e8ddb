"""Forms of preferences: pairs, scored and ranked responses, steps with labels.

Each function makes the fields of a record out of a row, and takes what it reads out of it.
"""

from pt_tools import record
from pt_tools.curate import turns
from pt_tools.record import as_turns

PROMPTS = ("prompt", "question", "query", "instruction")
ANSWERS = ("responses", "completions", "answers", "candidates", "outputs", "generations")
SCORES = ("scores", "rewards", "ratings", "scores_list")
RANKS = ("ranks", "rank", "ranking", "rankings")
SCORE = ("reward", "score", "overall_score", "rating")
TEXT = ("response", "answer", "text", "content", "completion", "output")


# --- pairs --------------------------------------------------------------------------------------------------------


def preference(row):
    given = turns.first(row, PROMPTS)
    chosen, rejected = row.pop("chosen"), row.pop("rejected")
    margin = _margin(row)
    if given is None:
        return {**_split_pair(chosen, rejected), **margin}
    prompt = _prompt(row, given)
    answers = {"chosen": turns.answer(chosen, "chosen"), "rejected": turns.answer(rejected, "rejected")}
    return {"prompt": prompt, **{key: _after(prompt, value) for key, value in answers.items()}, **margin}


def _prompt(row, key):
    return turns.instruction(row) if key == "instruction" else turns.prompt(row.pop(key), key)


def _margin(row):
    """How much better chosen is, where the data score both and say no margin."""
    for pattern in ("{}_score", "score_{}", "{}_rating", "rating_{}", "{}-rating"):
        keys = [pattern.format(side) for side in ("chosen", "rejected")]
        if row.get("margin") is None and all(key in row for key in keys):
            chosen, rejected = (turns.number(row[key], key) for key in keys)
            if chosen is not None and rejected is not None:
                return {"margin": chosen - rejected}
    return {}


def _after(prompt, answer):
    """The answer alone, where the data repeats the prompt in front of it."""
    return answer[len(prompt):] if len(answer) > len(prompt) and answer[:len(prompt)] == prompt else answer


def _split_pair(chosen, rejected):
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt = record.implicit_prompt(chosen, rejected)
        chosen, rejected = chosen[len(prompt):].strip(), rejected[len(prompt):].strip()
        return {"prompt": as_turns(prompt.strip(), "user"), "chosen": as_turns(chosen, "assistant"),
                "rejected": as_turns(rejected, "assistant")}
    chosen, rejected = turns.turns(chosen, "chosen"), turns.turns(rejected, "rejected")
    n = len(record.implicit_prompt(chosen, rejected))
    return {"prompt": chosen[:n], "chosen": chosen[n:], "rejected": rejected[n:]}


def hh(row):
    pair = (turns.dialogue(turns.string(row, key), key) for key in ("chosen", "rejected"))
    return {**_split_pair(*pair), **_margin(row)}


def is_hh(row):
    return turns.is_dialogue(row["chosen"]) and turns.is_dialogue(row["rejected"]) and "prompt" not in row


# --- many responses to a prompt -----------------------------------------------------------------------------------


def is_scored(row):
    """Whether a row has a list of responses, and no completions of ours: those have `text`."""
    if isinstance(row.get("output"), list):
        return True
    key = turns.first(row, ANSWERS)
    ours = isinstance(row.get("completions"), list) and all(isinstance(c, dict) and "text" in c for c in row["completions"])
    return not ours and key is not None and isinstance(row[key], list) and all(isinstance(c, (str, dict)) for c in row[key])


def scored(row):
    """A prompt and its completions with rewards or ranks; 1 is the best rank. UltraFeedback's ratings become scores."""
    given = turns.first(row, PROMPTS)
    if given is None:
        raise KeyError("a prompt")
    key = turns.first(row, ANSWERS)
    if key is None or not isinstance(row[key], list):
        key = "output"  # Alpaca's form of a ranking: best first
        if not isinstance(row.get(key), list):
            raise ValueError("there is no list of responses")
        row["ranks"] = list(range(1, len(row[key]) + 1))
    completions = [_completion(one, f"{key}[{i}]") for i, one in enumerate(row.pop(key))]
    _spread(row, SCORES, "reward", completions)
    _spread(row, RANKS, "rank", completions)
    if any(completion.get("rank") == 0 for completion in completions):
        completions = [{**c, "rank": c["rank"] + 1} if isinstance(c.get("rank"), int) else c for c in completions]
    return _identified({"prompt": _prompt(row, given), "completions": completions}, row)


def _identified(made, row):
    """With an id that the responses decide too: here they are what the data says, while those sampled later are not."""
    if "id" in row:
        return made
    said = {**row, **made, "responses": [completion["text"] for completion in made["completions"]]}
    return {"id": record.content_hash(said), **made}


def _completion(one, where):
    if isinstance(one, str):
        return {"text": one}
    if not isinstance(one, dict):
        raise ValueError(f"{where} is neither a string nor an object")
    one = dict(one)
    key = turns.first(one, TEXT)
    if key is None:
        raise ValueError(f"{where} has no text")
    made = {"text": turns.string(one, key, empty=True)}
    scores = _ratings(one.get("annotations"), where)
    score = turns.first(one, SCORE)
    reward = turns.number(one.pop(score), f"{where}.{score}") if score else None
    if scores:
        made["scores"] = scores
        reward = sum(scores.values()) / len(scores)  # Tulu 3 binarises the mean of the aspects
    rank = turns.number(one.pop("rank", None), f"{where}.rank")
    found = {"reward": reward, "rank": _whole(rank, where)}
    return {**made, **{name: value for name, value in found.items() if value is not None}, **one}


def _ratings(annotations, where):
    """{aspect: rating} out of UltraFeedback's annotations; those that are N/A left out."""
    if not isinstance(annotations, dict):
        return {}
    found = {}
    for aspect, said in annotations.items():
        said = said[0] if isinstance(said, list) and said else said
        rating = turns.number(said.get("Rating"), f"{where}: the rating of {aspect}") if isinstance(said, dict) else None
        if rating is not None:
            found[aspect] = rating
    return found


def _spread(row, keys, name, completions):
    """Give every completion its number of the list that stands beside them."""
    key = next((key for key in keys if isinstance(row.get(key), list)), None)
    if key is None:
        return
    values = row.pop(key)
    if len(values) != len(completions):
        raise ValueError(f"{key} has {len(values)} values for {len(completions)} responses")
    for i, (completion, value) in enumerate(zip(completions, values)):
        value = turns.number(value, f"{key}[{i}]")
        if value is not None:
            completion[name] = _whole(value, f"{key}[{i}]") if name == "rank" else value


def _whole(value, where):
    if value is not None and value != int(value):
        raise ValueError(f"{where} is a rank that is no whole number")
    return value if value is None else int(value)


# --- steps --------------------------------------------------------------------------------------------------------


def is_stepwise(row):
    return isinstance(row["labels"], list) and isinstance(row["completions"], list)


def stepwise(row):
    """TRL's stepwise supervision: one completion whose `steps` have a label each, joined by line breaks."""
    steps, labels = row.pop("completions"), row.pop("labels")
    if not isinstance(steps, list) or not isinstance(labels, list) or len(steps) != len(labels) or not steps:
        raise ValueError("completions and labels are not lists of one length")
    made = []
    for i, (text, label) in enumerate(zip(steps, labels)):
        label = turns.boolean(label)
        if not isinstance(text, str) or not isinstance(label, bool):
            raise ValueError(f"step {i + 1} is no text with a label of true or false")
        made.append({"text": text, "label": label})
    completion = {"text": "\n".join(step["text"] for step in made), "steps": made}
    return _identified({"prompt": _prompt(row, turns.first(row, PROMPTS) or "prompt"), "completions": [completion]}, row)
