"""Aspects of a completion rated 1 to 5 by program, where the published recipes ask a language model.

Tulu 3 (arXiv:2411.15124, section 5.2.1) rates helpfulness, instruction following, honesty and truthfulness 1 to 5 and
takes their mean. On prompts with verifiers these can be measured instead:

| rater        | 5 if | 1 if |
|--------------|------|------|
| correct      | every verifier, penalties apart, gives its full score | any does not |
| instructions | all instructions are followed (their share lies between) | none is |
| ended        | the model ended the completion itself (finish = stop) | it was cut off |
| format       | the answer is found and ends the completion (3: text follows) | no answer is found |

With several verifiers `instructions` and `format` are means over them.
"""

from __future__ import annotations

from statistics import fmean

from pt_tools import rewards


def check(record, names):
    """ValueError if the record has no verifier, or one whose key is a rater's name."""
    taken = {key for key, _ in rewards.specs(record)} & set(names)
    if taken:
        raise ValueError(f"a verifier and a rater share the name {min(taken)!r}; give the verifier another `key`")


def rate(record, completion, names, graded):
    """Verdict of the raters `names` on one completion: scores by rater name, `reward` their mean (None on any error).

    `graded` is the verdict of the record's verifiers; a rater that needs one of them fails when it did.
    """
    verdict = rewards.Verdict()
    for name in names:
        try:
            verdict.scores[name] = 1 + 4 * RATERS[name](record, completion, graded)
        except ValueError as reason:
            verdict.errors[name] = str(reason)
    if not verdict.errors:
        verdict.reward = fmean(verdict.scores.values())
    return verdict


def _correct(record, completion, graded):
    scores = _scores(graded)
    asked = [scores[key] for key, spec in rewards.specs(record) if spec["name"] not in rewards.PENALTIES]
    return float(all(score >= 1 for score in asked))


def _instructions(record, completion, graded):
    details = [graded.details.get(key) for key in _scores(graded)]
    parts = zip(details, graded.scores.values())
    return fmean(fmean(detail) if isinstance(detail, list) and detail else score for detail, score in parts)


def _ended(record, completion, graded):
    finish = completion.get("finish")
    if finish not in ("stop", "length"):
        raise ValueError(f"the finish reason is {finish!r}, not stop or length")
    return float(finish == "stop")


def _format(record, completion, graded):
    _scores(graded)
    return fmean(rewards.well_formed(spec, completion) for _, spec in rewards.specs(record))


def _scores(graded):
    if graded.errors:
        key, reason = next(iter(graded.errors.items()))
        raise ValueError(f"verifier {key}: {reason}")
    return graded.scores


RATERS = {"correct": _correct, "instructions": _instructions, "ended": _ended, "format": _format}
