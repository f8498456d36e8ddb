"""pt-score: grade the completions of records."""

from pt_tools import options
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt

RATERS = ("correct", "instructions", "ended", "format")
EXAMPLES = [
    "pt-score --verify samples.jsonl -o scored.jsonl",
    "pt-sample prompts.jsonl -m sft/ -n 16 | pt-score --verify -j 2 | pt-curate best > good.jsonl",
    "pt-score --verify --verifier format --explain samples.jsonl -o r1.jsonl",
    "pt-score --reward-model helpful=rm-h/ --reward-model safe=rm-s/ --combine 'llama2(helpful, safe)' samples.jsonl -o r.jsonl",
    "pt-score --judge http://localhost:8000/v1 --judge-concurrency 32 samples.jsonl -o judged.jsonl",
    "pt-score --logprobs math=teacher/ samples.jsonl -o with-teacher.jsonl",
    "pt-score --raters correct,instructions,ended,format pool.jsonl -o rated.jsonl",
]


@options.config
class Config(options.Verifying, options.Judging, options.Input, options.Output, options.Device, options.Common):
    verify: bool = opt(False, "Grade with the verifier that each record names; the reward is the sum of its scores.")
    raters: str | None = opt(
        None,
        f"Rate these aspects from 1 to 5 with the record's verifier: {', '.join(RATERS)}. The reward is their mean.",
        metavar="NAME,…",
    )
    reward_model: tuple = opt((), "Score with this reward model; NAME is the score's.", metavar="NAME=DIR", multiple=True,
                              input=options.pair)
    logprobs: tuple = opt((), "Add the log-probs of the completions under this model, as teacher NAME.", metavar="NAME=DIR",
                          multiple=True, input=options.pair)
    combine: str | None = opt(None, "Make the reward of the scores: sum, 0.7*helpful + 0.3*math, mean(a, b), min(a, b), "
                              "all(math, helpful>=0.5) or llama2(helpful, safety); also of scores that are there already.",
                              metavar="RULE")
    batch_size: int = opt(32, "Completions per forward pass of a reward model.", least=1)
    jobs: int = opt(1, "Processes that verify at once; 0 is one a core.", short="-j", least=0, result=False)
    explain: bool = opt(False, "Print what was found in each completion, and why it scores so, on stderr.", result=False)

    def local_judge(self):
        return self.judge is not None and "://" not in self.judge

    def computes(self):
        return bool(self.reward_model or self.logprobs or self.local_judge())


@command("pt-score", Config, reads="records with completions", writes="records", examples=EXAMPLES)
def main(cfg, job):
    """Grade completions.

    A completion's own failure (empty, no answer, too large) scores 0, with the reason in `details`. A failure of the
    data or the grader (no gold answer, unknown instruction) goes to `errors`: no score, reward null, row counted as
    masked. A record without completions or with a verifier that does not exist is a bad row; rows of public data (GSM8K,
    MATH, IFEval, Tulu's RLVR data, HumanEval, MBPP) with completions need no verifier, and get it. Rows keep their order;
    with -o a run that was stopped or killed goes on where it was.
    """
    import contextlib

    from pt_tools import grading

    with contextlib.ExitStack() as stack:
        rule = _rule(cfg)
        scorers = [stack.enter_context(contextlib.closing(scorer)) for scorer in _scorers(cfg, job)]
        rule = rule or _only_rule(cfg, scorers)
        keys = _keys(cfg, scorers)
        grading.run(job, scorers, lambda record: _check(record, scorers, cfg.verify, keys), rule, cfg.explain)
        job.final.update(_graded_by(scorers))


MODELS = ("reward_model", "logprobs")


def _scorers(cfg, job):
    """The scorers that the options ask for, in the order in which they work; models are loaded as they are reached."""
    import os

    from pt_tools.rewards import verifiers

    raters = _raters(cfg)
    if cfg.verify or cfg.verifier or raters:
        yield verifiers.Verifiers(cfg.verify, raters, cfg.jobs or len(os.sched_getaffinity(0)))
    else:
        options.refuse_unused(cfg, ("jobs", "unsafe_local"), "is of use only with verifiers")
    if cfg.judge:
        yield _judge(cfg, job)
    else:
        options.refuse_unused(cfg, options.fields(options.Judging), "is of use only with --judge")
    if not cfg.computes():
        options.refuse_unused(cfg, options.fields(options.Device), "is of use only with a model")
    if not cfg.reward_model:
        options.refuse_unused(cfg, ("batch_size",), "is of use only with --reward-model")
    if not (cfg.reward_model or cfg.logprobs):
        return
    from pt_tools import scoring

    for name, path in map(options.pair, cfg.reward_model):
        yield scoring.RewardModel(name, path, cfg, cfg.batch_size)
    for name, path in map(options.pair, cfg.logprobs):
        yield scoring.Logprobs(name, path, cfg)


def _graded_by(scorers):
    """What the manifest says of the verifiers that were used: their versions, and the sandbox of model-written code."""
    from pt_tools.rewards import evaluate_protocol, sandbox

    names = sorted({name for scorer in scorers for name in getattr(scorer, "used", ())})
    found = {"verifiers": evaluate_protocol.versions(names)} if names else {}
    return {**found, "sandbox": sandbox.best()} if "code" in names else found


def _judge(cfg, job):
    from pt_tools.rewards import judge

    given = {name.removeprefix("judge_"): getattr(cfg, name) for name in options.fields(options.Judging)}
    if not given["aspects"]:
        del given["aspects"]
    settings = judge.JudgeSettings(**given)
    found = judge.Judge(settings, job.run and job.run / "judge.jsonl", cfg)
    job.final["judge"] = found.usage
    return found


def _raters(cfg):
    names = tuple(name.strip() for name in (cfg.raters or "").split(",") if name.strip())
    unknown = sorted(set(names) - set(RATERS))
    if unknown or len(set(names)) < len(names):
        wrong = f"unknown rater {unknown[0]!r}" if unknown else "a rater is named twice"
        raise Usage(f"--raters: {wrong}; there are {', '.join(RATERS)}")
    return names


def _rule(cfg):
    """The rule that makes the reward; None where the verifiers or raters make it, or nobody does."""
    from pt_tools.rewards import added, combine

    if not (_asked(cfg) or cfg.logprobs or cfg.combine):
        raise Usage("say how to score: --verify, --verifier, --raters, --judge, --reward-model, --logprobs or --combine")
    try:
        added.configure(cfg.verifier, cfg.unsafe_local)
    except ValueError as reason:
        raise Usage(f"--verifier: {reason}") from None
    try:
        rule = combine.parse(cfg.combine) if cfg.combine else None
    except ValueError as reason:
        raise Usage(f"--combine: {reason}") from None
    for models in (cfg.reward_model, cfg.logprobs):
        names = [name for name, _ in map(options.pair, models)]
        for name in names:
            if not name or '"' in name or names.count(name) > 1:
                raise Usage(f"a model needs a name of its own: NAME=DIR, not {name!r}")
    several = len(cfg.reward_model) > 1 or len({"verify" if "verif" in name else name for name in _asked(cfg)}) > 1
    if rule is None and several and (cfg.judge or cfg.reward_model):
        raise Usage("several scores and no reward: say how to --combine them")
    return rule


def _asked(cfg):
    return [name for name in ("verify", "verifier", "raters", "judge", "reward_model") if getattr(cfg, name)]


def _only_rule(cfg, scorers):
    """The rule of a judge alone, the mean of what it writes, or of a reward model alone."""
    from pt_tools.rewards import combine

    if not (cfg.judge or cfg.reward_model):
        return None
    names = next(scorer.keys for scorer in scorers if getattr(scorer, "keys", ()))
    return combine.parse("mean(" + ", ".join(f'"{name}"' for name in names) + ")")


def _keys(cfg, scorers):
    """The names of the scores that are the same for all records; each may have one writer."""
    from pt_tools import rewards

    found = [key for scorer in scorers for key in getattr(scorer, "keys", ())]
    found += [*_raters(cfg), *(key for key, _ in rewards.keyed(list(rewards.settings.added)))]
    for key in found:
        if found.count(key) > 1:
            raise Usage(f"two scorers write the score {key!r}")
    return set(found)


def _check(record, scorers, verify, keys):
    """ValueError if the record cannot be scored."""
    from pt_tools import record as rec, rewards

    rec.check_scores(record)
    if verify:
        rewards.read_columns(record)
    taken = keys & {key for key, _ in rewards.specs(record)} if verify else None
    if taken:
        raise ValueError(f"a verifier and another scorer share the name {min(taken)!r}; give the verifier another `key`")
    for scorer in scorers:
        if check := getattr(scorer, "check", None):
            check(record)
