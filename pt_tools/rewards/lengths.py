"""The `length` verifier: a penalty on long completions, never above 0, in tokens.

    {"name": "length", "mode": "soft-overlong", "max_length": 20480, "cache": 4096}
    {"name": "length", "mode": "linear", "max_length": 32768, "weight": 0.1}

soft-overlong (the default)  DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), n tokens, limit L, cache C:
              0 if n <= L - C;  ((L - C) - n) / C if L - C < n <= L;  -1 if n > L
linear        -weight min(n / L, 1). DeepSeek-V3.2 (arXiv:2512.02556, section 3) pays reasoning and agent tasks with a
              length penalty whose form it does not publish; this is the simplest. DeepSeek-V4 has another one for each
              reasoning effort: another `weight` and `max_length`.

n counts the completion's `token_ids` as they are recorded, the end token included; a completion without them is the
grader's failure, not a short one. Only n counts: a completion that was cut off (`finish` = length) is penalised for its
length, so -1 can only be reached where the sampler's limit is at least `max_length`. An empty completion pays no
penalty: use it beside a verifier of the answer.
"""

from __future__ import annotations

from pt_tools.rewards import common

MODES = ("soft-overlong", "linear")


def check(spec):
    """ValueError(reason) if a limit is missing or no limit can be."""
    mode = common.choice(spec, "mode", MODES)
    common.only(spec, "mode", "max_length", "cache" if mode == "soft-overlong" else "weight")
    most = common.whole(spec, "max_length", 1)
    if mode == "soft-overlong":
        common.whole(spec, "cache", 1, most)
    else:
        common.real(spec, "weight", 0, 1e6, None)


def grade(spec, completion):
    """(penalty <= 0, {"tokens": n}). ValueError if the completion's tokens are not recorded."""
    count = common.token_count(completion)
    if spec.get("mode", MODES[0]) == "linear":
        return spec["weight"] * max(-count / spec["max_length"], -1.0), {"tokens": count}
    return soft_overlong(count, spec["max_length"], spec["cache"]), {"tokens": count}


def soft_overlong(count, max_length, cache):
    """DAPO's eq. 13, in [-1, 0]."""
    return max(-1.0, min(0.0, (max_length - cache - count) / cache))


def well_formed(spec, completion):
    return 1.0 + max(-1.0, grade(spec, completion)[0])
