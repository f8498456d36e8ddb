"""Preference pairs out of a record's completions: which are compared, and how much better the better one is."""

from dataclasses import dataclass

from pt_tools import record
from pt_tools.curate import completions as comps
from pt_tools.curate import seeded
from pt_tools.record import as_turns

REJECTED = ("random-lower", "worst", "every")
# Llama 2, section 3.1: how much better the chosen answer is; and the margins of its Table 27.
RATINGS = ("significantly better", "better", "slightly better", "negligibly better")
MARGINS = {"small": (1.0, 2 / 3, 1 / 3, 0.0), "large": (3.0, 2.0, 1.0, 0.0)}


@dataclass(frozen=True)
class Rule:
    """Which pairs are made of a record.

    `rejected`: chosen is a completion of the highest value, and rejected one of lower value, random (Tulu 3, section
    5.2.1) or the worst; or every completion with every lower one. `scores`: the value is their mean, the reward if none.
    `gap`: the values differ by more; `margin`: by at least so much. `length_ratio`: the longer text has at most so many
    times the characters of the shorter. `per_prompt`: pairs of one record. `models`: (name, name) instead of values:
    chosen is of the first model, rejected of the second. `rating_gaps`: least differences of a slightly better, a
    better and a significantly better answer. `margins`: a table of MARGINS, or None: the margin is the difference.
    Chance depends on `seed` and the record's id alone.
    """

    rejected: str = "random-lower"
    scores: tuple = ()
    gap: float = 0.0
    margin: float = 0.0
    length_ratio: float | None = None
    per_prompt: int = 1
    models: tuple | None = None
    rating_gaps: tuple | None = None
    margins: str | None = None
    seed: int = 0


class _Nothing(Exception):
    """Why there is no pair."""


def pairs(rec: dict, rule: Rule = Rule()):
    """(pairs, None), or ([], why there is none). ValueError if a rating is asked for and nothing gives one."""
    try:
        if record.kind(rec) == "preference" and not rec.get("completions"):
            return [_rerated(rec, rule)], None
        found = _of_models(rec, rule) if rule.models else _by_value(rec, rule)
    except _Nothing as why:
        return [], str(why)
    return [_pair(rec, *one, rule, number) for number, one in enumerate(found[:rule.per_prompt], 1)], None


def _rerated(rec, rule):
    """A pair already: it gets the margin of its rating, or the rating of its margin."""
    if not (rule.margins or rule.rating_gaps):
        raise _Nothing(f"fewer than two completions with {comps.missing(rule.scores)} and a text")
    if rule.rating_gaps and rec.get("margin") is None:
        raise ValueError("margin is missing")
    return {**rec, **_rated(rec, rec.get("margin"), rule)}


# --- which completions --------------------------------------------------------------------------------------------


def _by_value(rec, rule):
    """[(chosen, its value, rejected, its value)], as many as there are."""
    valued = [(comps.value(c, rule.scores), c) for c in comps.of(rec) if comps.trainable(c)]
    valued = [item for item in valued if item[0] is not None]
    if len(valued) < 2:
        raise _Nothing(f"fewer than two completions with {comps.missing(rule.scores)} and a text")
    top = max(value for value, _ in valued)
    if all(value == top for value, _ in valued):
        raise _Nothing("tie: all rewards are equal")
    if rule.rejected == "every":
        return _every(rec, valued, rule)
    best, lower = _best_with_lower(rec, [item for item in valued if item[0] == top], valued, rule)
    ranks = sorted({value for value, _ in lower}) if rule.rejected == "worst" else [None]
    drawn = [item for rank in ranks for item in seeded.draws([item for item in lower if rank in (None, item[0])],
                                                             rule.seed, "rejected", rec["id"])]
    return [(best[1], best[0], other, value) for value, other in _unlike(drawn)]


def _best_with_lower(rec, bests, valued, rule):
    """One of the best at random, of those that may be preferred to some, and these."""
    why = None
    for best in seeded.draws(bests, rule.seed, "chosen", rec["id"]):
        try:
            return best, _below(best, valued, rule)
        except _Nothing as reason:
            why = why or reason
    raise why


def _below(best, valued, rule):
    """The completions that `best` may be preferred to."""
    steps = (("tie: all rewards are equal", lambda value, c: best[0] > value),
             ("margin: no completion is so much worse than the best",
              lambda value, c: best[0] - value > rule.gap and best[0] - value >= rule.margin),
             ("same text: the rewards differ, the completions do not", lambda value, c: c["text"] != best[1]["text"]),
             ("lengths: no completion of lower reward is about as long", lambda value, c: _match(best[1], c, rule)))
    for why, fits in steps:
        valued = [item for item in valued if fits(*item)]
        if not valued:
            raise _Nothing(why)
    return valued


def _match(one, other, rule):
    short, long = sorted(len(c["text"]) for c in (one, other))
    return rule.length_ratio is None or long <= rule.length_ratio * short


def _every(rec, valued, rule):
    found, why = {}, None
    for number, best in enumerate(valued):
        try:
            for value, other in _below(best, valued, rule):
                texts = best[1]["text"], other["text"]
                if texts[::-1] not in found:  # equal texts may have been given unlike rewards
                    key = seeded.key(rule.seed, "every", rec["id"], number, texts[1])
                    found.setdefault(texts, (key, (best[1], best[0], other, value)))
        except _Nothing as reason:
            why = why if why and not why.startswith("tie") else str(reason)
    if not found:
        raise _Nothing(why)
    return [one for _, one in sorted(found.values(), key=lambda item: item[0])]


def _of_models(rec, rule):
    better, worse = ([c for c in comps.of(rec) if comps.trainable(c) and is_of(c, name)] for name in rule.models)
    for side, name in zip((better, worse), rule.models):
        if not side:
            raise _Nothing(f"no completion with a text is of the model {name}")
    found = {}
    for number, one in enumerate(better):
        for other in worse:
            if one["text"] != other["text"] and _match(one, other, rule):
                key = seeded.key(rule.seed, "models", rec["id"], number, other["text"])
                found.setdefault((one["text"], other["text"]), (key, (one, None, other, None)))
    if not found:
        raise _Nothing("same text or unlike lengths: no completion of one model goes with one of the other")
    return [one for _, one in sorted(found.values(), key=lambda item: item[0])]


def is_of(completion: dict, name: str) -> bool:
    """Whether a completion's `model` is so named: the same, a hub id, or the beginning of a hash (8 digits or more)."""
    model = completion.get("model")
    if not isinstance(model, str):
        return False
    return name in (model, model.removeprefix("hub:").rpartition("@")[0]) or (len(name) >= 8 and model.startswith(name))


def _unlike(items):
    """The (value, completion) items without those whose text came before."""
    seen = set()
    return [item for item in items if item[1]["text"] not in seen and not seen.add(item[1]["text"])]


# --- the pair -----------------------------------------------------------------------------------------------------


def _pair(rec, best, value, other, other_value, rule, number):
    out = comps.without(rec)
    if number > 1:
        out["id"] = f"{rec['id']}/{number}"
    out["prompt"] = as_turns(record.prompt_of(rec), "user")
    out["chosen"], out["rejected"] = as_turns(best["text"], "assistant"), as_turns(other["text"], "assistant")
    out |= _rated(rec, None if rule.models else value - other_value, rule)
    if rec.get("prompt_ids") is not None and all(comps.ids_are_native(rec, c) for c in (best, other)):
        out |= {key: rec[key] for key in ("prompt_ids", "tokenizer", "template") if key in rec}
        out["chosen_ids"], out["rejected_ids"] = best["token_ids"], other["token_ids"]
    return out


def _rated(rec, difference, rule):
    """The fields rating and margin of a pair."""
    if rule.rating_gaps:
        rating = RATINGS[sum(difference < least for least in rule.rating_gaps)]
    elif rule.margins:
        rating = rating_of(rec)
    else:
        return {} if difference is None else {"margin": difference}
    margin = MARGINS[rule.margins][RATINGS.index(rating)] if rule.margins else difference
    return {"rating": rating, "margin": margin}


def rating_of(rec: dict) -> str:
    """The record's own rating, one of RATINGS. ValueError if it has none."""
    text = rec.get("rating")
    name = " ".join(text.lower().replace("_", " ").split()) if isinstance(text, str) else None
    name = RATINGS[-1] if name in ("unsure", "negligibly better / unsure") else name
    if name not in RATINGS:
        raise ValueError("rating is missing" if text is None else f"rating is {text!r:.60}, not one of {', '.join(RATINGS)}")
    return name
