"""Best of n: the best completions of a prompt as conversations, or prompts by how often they are answered rightly."""

from dataclasses import dataclass

from pt_tools import record
from pt_tools.curate import completions as comps
from pt_tools.record import as_turns


@dataclass(frozen=True)
class Rule:
    """What is kept of a record.

    `scores`: what completions are ranked by (the mean of several; the reward if none). `vote`: by how many of the scores
    put them first instead. `limits`: (score, least value); a kept completion has all of them. `least`: least value of what
    it is ranked by. `band`: (lowest, highest) pass rate of a prompt, `passing`: the limits that count as a pass there
    (the name None: what it is ranked by).
    `majority`: keep those that give the most frequent answer, if at least such a share does. `prompts`: keep the prompt.
    """

    per_prompt: int = 1
    scores: tuple = ()
    vote: bool = False
    limits: tuple = ()
    least: float | None = None
    band: tuple | None = None
    passing: tuple = ((None, 1.0),)
    majority: float | None = None
    prompts: bool = False


class _Nothing(Exception):
    """Why nothing is kept."""


def best(rec: dict, rule: Rule = Rule()):
    """(records, None), or ([], why there is none): a conversation of each kept completion, best first; or the prompt.

    Equal values keep the order of sampling; equal texts count once.
    """
    try:
        rec = _with_pass_rate(rec, rule) if rule.band else rec
        if rule.prompts:
            return [comps.without(rec, ("completions",))], None
        unlike = {}
        for value, completion in _ranked(rec, rule):
            unlike.setdefault(completion["text"], (value, completion))
        return [_conversation(rec, *one, rank) for rank, one in enumerate(list(unlike.values())[:rule.per_prompt], 1)], None
    except _Nothing as why:
        return [], str(why)


def _with_pass_rate(rec, rule):
    rate = comps.pass_rate(rec, rule.passing, rule.scores)
    if rate is None:
        raise _Nothing("no completion of which it is known whether it passes")
    if not rule.band[0] <= rate <= rule.band[1]:
        raise _Nothing(f"pass rate {'below' if rate < rule.band[0] else 'above'} the band")
    return {**rec, "pass_rate": rate}


def _ranked(rec, rule):
    """[(value, completion)] of the completions to keep, best first; value is None where only the majority counts."""
    found = [c for c in comps.of(rec) if comps.trainable(c)]
    if rule.majority is not None:
        found = _agreeing(rec, found, rule.majority)
    valued = [(comps.value(c, rule.scores), c) for c in found]
    if any(value is not None for value, _ in valued) or rule.majority is None or rule.scores:
        valued = [(value, c) for value, c in valued if value is not None]
    if not valued:
        raise _Nothing(f"no completion with {comps.missing(rule.scores)} and a text")
    valued = [(value, c) for value, c in valued if comps.passes(c, rule.limits)]
    if not valued:
        raise _Nothing("no completion passes")
    if rule.least is not None:
        valued = [(value, c) for value, c in valued if value is not None and value >= rule.least]
    if not valued:
        raise _Nothing("no completion reaches --min-reward")
    places = _votes(valued, rule.scores) if rule.vote else [-value if value is not None else 0 for value, _ in valued]
    return [valued[i] for i in sorted(range(len(valued)), key=places.__getitem__)]


def _votes(valued, names):
    """Sort keys: most firsts among the named scores, then the highest mean."""
    columns = [[comps.score(c, name) for _, c in valued] for name in names]
    firsts = [sum(column[i] == max(column) for column in columns) for i in range(len(valued))]
    return [(-n, -value) for n, (value, _) in zip(firsts, valued)]


def _agreeing(rec, found, share):
    """The completions that give the most frequent answer; an answer that is not found agrees with none."""
    from pt_tools.rewards import evaluate_majority

    groups, _ = evaluate_majority.grouped(rec, found, otherwise=_stated_answer)
    sizes = sorted((len(members) for _, members in groups), reverse=True)
    if not sizes:
        raise _Nothing("no completion with an answer")
    if sizes[1:2] == sizes[:1]:
        raise _Nothing("no majority: two answers are equally frequent")
    if sizes[0] < share * len(found):
        raise _Nothing("no majority: the most frequent answer is too rare")
    return next([found[i] for i in members] for _, members in groups if len(members) == sizes[0])


def _stated_answer(completion):
    """The final answer that a text states, whoever asked for it; None if it states none."""
    from pt_tools.rewards import math

    answers = math.find(completion["text"])
    return None if isinstance(answers, str) else answers[-1].answer


def _conversation(rec, value, completion, rank):
    out = comps.without(rec)
    if rank > 1:
        out["id"] = f"{rec['id']}/{rank}"
    turns = record.untrained(as_turns(record.prompt_of(rec), "user")) + as_turns(completion["text"], "assistant")
    return {**out, "messages": turns, **({"reward": value} if value is not None else {}), "rank": rank}
