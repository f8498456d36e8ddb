"""pt-eval: pass rates with confidence bounds, from scored records, from prompts and a model, or of a reward model."""

from pt_tools import options
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import opt

EXAMPLES = [
    "pt-eval scored.jsonl",
    "pt-eval heldout.jsonl -m sft/ -n 4 --k 4 --maj 4 -o sft.eval.json",
    "pt-sample heldout.jsonl -m sft/ -n 16 | pt-score --verify | pt-eval --k 1,4,16 --maj 16 --json",
    "pt-eval dpo.rated.jsonl --against sft.rated.jsonl",
    "pt-eval pairs.jsonl --reward-model rm/",
]


@options.config
class Config(options.Verifying, options.Input, options.Output, options.Sampling, options.Device, options.Common):
    model: str | None = opt(
        None, "Sample this model's answers to the prompts and verify them.", short="-m", metavar="MODEL", input=True
    )
    samples: int = opt(1, "With -m: completions per prompt.", short="-n", least=1)
    seed: int = opt(0, "With -m: seed of the sampling.", least=0)
    batch_size: int = opt(256, "With a model: completions in flight.", least=1)
    reward_model: str | None = opt(
        None, "Score preference pairs with this reward model and report how often it prefers the chosen answer.",
        metavar="DIR", input=True,
    )  # fmt: skip
    k: str | None = opt(None, "Also report pass@k for these k (unbiased).", metavar="K,…")
    maj: str | None = opt(
        None, "Also report maj@k for these k: how often the most frequent of k answers is correct.", metavar="K,…"
    )
    by: str = opt("domain", "Report by this field of the records.", choices=("domain", "source"))
    interval: str = opt("wilson", "How 95 % bounds are made.", choices=("wilson", "bootstrap"))
    against: str | None = opt(
        None, "Also report the gain in pass@1, and how often the rewards win, over this file's same prompts.",
        metavar="FILE", input=True,
    )  # fmt: skip

    def computes(self):
        return bool(self.model or self.reward_model)


@command("pt-eval", Config, reads="scored records, or prompts", writes="report", examples=EXAMPLES)
def main(cfg, job):
    """Report pass@1 by domain and its mean over domains.

    A completion is correct if every verifier of its record gives the full score of 1, penalties (length, repetition)
    apart; where there is no verifier, if its reward is at least 1. Completions whose grader failed are left out and counted. Bounds are 95 % over prompts: samples of one prompt, and
    records that repeat a prompt, count together. They are Wilson's with the effective number of prompts, or, with
    --interval bootstrap, BCa over 2,000 seeded resamples of the prompts. The mean is the unweighted mean over domains.

    maj@k is the exact expectation over k of the n samples. A vote is the answer that the verifier extracted, or the whole
    text where it extracts none; a completion without answer casts no vote, and answers that tie win with equal
    probability. mean@n is the mean reward of all n samples. Records with instructions to follow are also reported strict
    and loose, by prompt and by instruction.

    --against compares prompts of the same id: the difference of pass@1 with its bounds and the p-value of a two-sided
    sign-flip test over prompts (McNemar's exact test for single samples; p-values are not corrected for the number of
    domains).

    With -m all prompts are held in memory. The report holds the protocol: sampling, models, template, verifiers, data.
    With -o it goes to that file as JSON.
    """
    ks = _ks(cfg, "k"), _ks(cfg, "maj")
    _refuse_unused(cfg)
    if cfg.out is None:
        report = _evaluate(cfg, job, *ks)
    else:
        report = _kept(cfg, job, lambda: _evaluate(cfg, job, *ks))
    _show(report, cfg.json)


def _ks(cfg, name):
    """The whole numbers of --k or --maj."""
    given, flag = getattr(cfg, name), options.flag(name)
    try:
        ks = sorted({int(word) for word in (given or "").split(",") if word.strip()})
    except ValueError:
        raise Usage(f"{flag}: {given!r} is no list of whole numbers") from None
    if given is not None and (not ks or ks[0] < 1):
        raise Usage(f"{flag}: k must be at least 1")
    if cfg.model and ks and ks[-1] > cfg.samples:
        raise Usage(f"{flag} {ks[-1]} needs at least -n {ks[-1]}")
    return ks


def _refuse_unused(cfg):
    if cfg.model:
        options.check_sampling(cfg)
    if cfg.model and cfg.reward_model:
        raise Usage("-m and --reward-model: a run evaluates one of them")
    sampling = (*options.fields(options.Sampling), *options.fields(options.Verifying), "samples", "seed")
    computing = (*options.fields(options.Device), "batch_size")
    unused = [] if cfg.model else [(name, "-m: nothing is sampled here") for name in sampling]
    if not cfg.model and not cfg.reward_model:
        unused += [(name, "-m or --reward-model: no model is used here") for name in computing]
    if cfg.reward_model:
        unused = [(name, "completions: here are pairs") for name in (*sampling, "k", "maj", "against")]
    fields = options.fields(cfg)
    for name, where in unused:
        if getattr(cfg, name) != fields[name].default:
            raise Usage(f"{options.flag(name)} is of use only with {where}")


def _evaluate(cfg, job, ks, majority):
    """The whole report as a dict."""
    from pt_tools.rewards import evaluate, evaluate_pairs, evaluate_protocol

    protocol = evaluate_protocol.Protocol()
    if cfg.reward_model:
        tally = evaluate_pairs.Pairs(cfg.by, cfg.interval)
        _add_pairs(cfg, job, tally, protocol)
    else:
        tally = evaluate.Tally(ks, majority, cfg.by, cfg.interval)
        _add_records(cfg, job, tally, protocol)
    try:
        report = tally.report()
    except (ValueError, OverflowError) as reason:  # rewards may be near the largest number there is
        raise BadData(str(reason)) from None
    report["protocol"] = _protocol(protocol, cfg, job.records.files, cfg.model or cfg.reward_model)
    if report["extra"]["repeated_prompts"]:
        job.say(f"{report['extra']['repeated_prompts']} records repeat a prompt; the bounds count it once")
    if cfg.against:
        report["extra"]["against"] = _against(cfg, job, tally, report["protocol"])
    job.final.update(mean=report["mean"])
    return {**report, "rows": job.rows.as_dict()}


def _add_records(cfg, job, tally, protocol):
    for record, where in _records(cfg, job):
        try:
            graded = tally.add(record)
        except ValueError as reason:
            job.records.reject(str(reason), record, where)
            continue
        protocol.add(record)
        job.rows.add("out")
        if not graded:
            job.rows.add("masked", 1, "no completion could be graded")


def _records(cfg, job):
    if not cfg.model:
        return ((record, job.records.where) for record in job.records)
    from pt_tools import evaluation
    from pt_tools.rewards import added

    try:
        added.configure(cfg.verifier, cfg.unsafe_local)
    except ValueError as reason:
        raise Usage(f"--verifier: {reason}") from None
    return evaluation.sampled(cfg, job)


def _add_pairs(cfg, job, pairs, protocol):
    from pt_tools import evaluation

    for record, where, (chosen, rejected, failure) in evaluation.scored_pairs(cfg, job):
        try:
            if failure is None:
                pairs.add(record, chosen, rejected)
        except ValueError as reason:
            job.records.reject(str(reason), record, where)
            continue
        protocol.add(record)
        job.rows.add("out")
        if failure is not None:
            job.rows.add("masked", 1, failure)


def _protocol(protocol, cfg, files, model):
    """The protocol of the records in `files`: what they say themselves, and what their manifests say of the grading."""
    from pt_tools import job, outdir

    more = {"inputs": {job.shown(path): outdir.file_digest(path) for path in files if path != "-"}, "interval": cfg.interval}
    if cfg.reward_model:
        more["reward_model"] = [outdir.identity(cfg.reward_model)]
    made = [] if model else [outdir.read_manifest(path) for path in files if path != "-"]
    graded = [manifest for manifest in made if manifest and "pt_tools" in manifest]
    if graded:
        more["graded_by"] = [{"pt-tools": each["pt_tools"], **each.get("final", {}).get("verifiers", {})} for each in graded]
    return protocol.report(**more)


def _against(cfg, job, tally, mine):
    """The comparison with the other run; says what of the protocols differs."""
    from pt_tools import stream
    from pt_tools.rewards import evaluate, evaluate_against, evaluate_protocol

    theirs, protocol = evaluate.Tally(by=cfg.by), evaluate_protocol.Protocol()
    records = stream.Reader([cfg.against])
    for record in records:
        try:
            theirs.add(record)
        except ValueError as reason:
            raise BadData(str(reason), records.where) from None
        protocol.add(record)
    other = _protocol(protocol, cfg, [cfg.against], None)
    try:
        found = evaluate_against.compare(tally, theirs)
    except (ValueError, OverflowError) as reason:
        raise BadData(str(reason), cfg.against) from None
    differing = evaluate_protocol.differing(mine, other)
    if differing:
        job.say(f"the two runs differ in {'; '.join(differing)}")
    if found["unmatched"]:
        names = [name for side in found["unmatched_ids"].values() for name in side]
        job.say(f"{found['unmatched']} prompts are in only one of the two files: {', '.join(map(str, names[:5]))}")
    return {**found, "protocol": other, "differing": differing}


def _kept(cfg, job, evaluate):
    """The report of `evaluate`, also written to cfg.out with a manifest; an up-to-date file is read instead."""
    import json
    from pathlib import Path

    from pt_tools import outdir
    from pt_tools.job import key_of

    piped = "-" in job.records.files
    out = outdir.Out(cfg.out, None if piped else key_of(main, job), directory=False, say=job.say)
    if out.begin():
        job.say(f"{cfg.out} is complete and up to date; nothing to do")
        return json.loads(Path(cfg.out).read_bytes())
    done = False
    try:
        report = evaluate()
        Path(out.stage).write_bytes(json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
        out.commit(**job.manifest())
        done = True
    finally:
        out.close(done=done)
    return report


def _show(report, as_json):
    if as_json:
        import json

        print(json.dumps(report, ensure_ascii=False))
        return
    from pt_tools.rewards import evaluate_table

    print("\n".join(evaluate_table.text(report)))
