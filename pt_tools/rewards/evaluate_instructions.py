"""Accuracy of following instructions, strict and loose, by prompt and by instruction (IFEval, Zhou et al. 2023).

A prompt counts as followed if all of its instructions are. The accuracy by instruction pools the instructions of all
prompts, as the paper does; its bounds know which of them share a prompt.
"""

from __future__ import annotations

from statistics import fmean

from pt_tools import rewards
from pt_tools.rewards import constraints

MEASURES = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")


def followed(record, completions):
    """(instructions, prompt strict, prompt loose, instructions strict, instructions loose), the last four means over the
    completions; None for a record without a `constraints` verifier, or with texts missing.

    Both modes are graded here, whichever the record's verifier was run in.
    """
    specs = [spec for _, spec in rewards.specs(record) if spec["name"] == "constraints"] if record.get("verifier") else []
    texts = [completion["text"] for completion in completions if isinstance(completion.get("text"), str)]
    if not specs or len(texts) < len(completions):
        return None
    lists = [_both(specs, text) for text in texts]
    if not lists[0][0]:
        return None
    prompts = (fmean(all(verdicts[mode]) for verdicts in lists) for mode in (0, 1))
    return len(lists[0][0]), *prompts, *(fmean(sum(verdicts[mode]) for verdicts in lists) for mode in (0, 1))


def _both(specs, text):
    """(strict, loose) lists of booleans, one an instruction, over all the verifier objects."""
    both = [constraints.both(spec, text) for spec in specs]
    return sum((list(strict) for strict, _ in both), []), sum((list(loose) for _, loose in both), [])


def report(prompts, estimate):
    """{measure: {"n", "mean", "low", "high"}} over the prompts that have instructions; n counts prompts."""
    found = [(prompt.cluster, *prompt.followed) for prompt in prompts if prompt.followed]
    by_prompt = [estimate((cluster, values[mode]) for cluster, _, *values in found) for mode in (0, 1)]
    pooled = [estimate((cluster, values[mode], count) for cluster, count, *values in found) for mode in (2, 3)]
    return dict(zip(MEASURES, by_prompt + pooled))
