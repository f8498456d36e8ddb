"""From scored completions to training data: preference pairs and best of n."""

from pt_tools import record
from pt_tools.curate import seeded
from pt_tools.record import as_turns

REJECTED = ("random-lower", "worst")
# What a pair or a conversation is made of, and so takes the place of.
CONSUMED = ("prompt", "messages", "completion", "label", "completions", "prompt_ids", "tokenizer", "template")


def pair(rec: dict, seed: int = 0, rejected: str = "random-lower", margin: float = 0.0):
    """(pair, None), or (None, why there is none).

    Chosen is a completion of the highest reward; rejected one of lower reward, by at least `margin`: a random one
    (Tulu 3, section 5.2.1) or the worst. Chance depends on the seed and the record's id alone.
    """
    usable = usable_completions(rec)
    if len(usable) < 2:
        return None, "fewer than two completions with a reward and a text"
    top = max(c["reward"] for c in usable)
    lower = [c for c in usable if c["reward"] < top]
    if not lower:
        return None, "tie: all rewards are equal"
    lower = [c for c in lower if top - c["reward"] >= margin]
    if not lower:
        return None, "margin: no completion is so much worse than the best"
    if rejected == "worst":
        least = min(c["reward"] for c in lower)
        lower = [c for c in lower if c["reward"] == least]
    best = seeded.pick([c for c in usable if c["reward"] == top], seed, "chosen", rec["id"])
    lower = [c for c in lower if c["text"] != best["text"]]
    if not lower:
        return None, "same text: the rewards differ, the completions do not"
    return _pair(rec, best, seeded.pick(lower, seed, "rejected", rec["id"])), None


def _pair(rec, best, other):
    out = {key: value for key, value in rec.items() if key not in CONSUMED}
    out["prompt"] = as_turns(record.prompt_of(rec), "user")
    out["chosen"], out["rejected"] = as_turns(best["text"], "assistant"), as_turns(other["text"], "assistant")
    out["margin"] = best["reward"] - other["reward"]
    if rec.get("prompt_ids") is not None and all(ids_are_native(rec, c) for c in (best, other)):
        out |= {key: rec[key] for key in ("prompt_ids", "tokenizer", "template") if key in rec}
        out["chosen_ids"], out["rejected_ids"] = best["token_ids"], other["token_ids"]
    return out


def ids_are_native(rec: dict, completion: dict) -> bool:
    """Whether a completion's token ids are of the tokenizer that made the record's prompt_ids.

    It says so itself (`tokenizer`), or it is of the model that came first, which made the prompt_ids.
    """
    if completion.get("token_ids") is None:
        return False
    if "tokenizer" in completion:
        return completion["tokenizer"] == rec.get("tokenizer")
    return completion.get("model") == rec["completions"][0].get("model")


def best(rec: dict, k: int = 1, min_reward: float | None = None):
    """(conversations, None), or ([], why there is none): the prompt with each of its `k` best completions.

    Equal rewards keep the order of sampling; equal texts count once.
    """
    usable = usable_completions(rec)
    if not usable:
        return [], "no completion with a reward and a text"
    usable = [c for c in usable if min_reward is None or c["reward"] >= min_reward]
    if not usable:
        return [], "no completion reaches --min-reward"
    ranked = {}
    for completion in sorted(usable, key=lambda c: -c["reward"]):
        ranked.setdefault(completion["text"], completion)
    return [_conversation(rec, c, rank) for rank, c in enumerate(list(ranked.values())[:k], 1)], None


def _conversation(rec, completion, rank):
    out = {key: value for key, value in rec.items() if key not in CONSUMED}
    if rank > 1:
        out["id"] = f"{rec['id']}/{rank}"
    turns = record.untrained(as_turns(record.prompt_of(rec), "user")) + as_turns(completion["text"], "assistant")
    return {**out, "messages": turns, "reward": completion["reward"], "rank": rank}


def usable_completions(rec: dict) -> list[dict]:
    """Completions with a reward, that ended by themselves or at the limit, whose text can be trained on."""
    return [c for c in rec.get("completions") or () if c.get("reward") is not None and _trainable(c)]


def _trainable(completion):
    try:
        record.check_text(completion.get("text"), "text")
    except ValueError:
        return False
    return completion.get("finish") in (None, "stop", "length")
