"""pt-eval: pass rates with confidence bounds, from scored records or from prompts and a model."""

from dataclasses import dataclass

from pt_tools import options
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage, printable
from pt_tools.options import opt

EXAMPLES = [
    "pt-eval scored.jsonl",
    "pt-eval heldout.jsonl -m sft/ -n 4 --k 4 -o sft.eval.json",
    "pt-sample heldout.jsonl -m sft/ -n 16 | pt-score --verify | pt-eval --k 1,4,16 --json",
    "pt-eval dpo.rated.jsonl --against sft.rated.jsonl",
]


@dataclass(frozen=True)
class Config(options.Input, options.Output, options.Sampling, options.Device, options.Common):
    model: str | None = opt(
        None, "Sample this model's answers to the prompts and verify them.", short="-m", metavar="MODEL", input=True
    )
    samples: int = opt(1, "With -m: completions per prompt.", short="-n", least=1)
    seed: int = opt(0, "With -m: seed of the sampling.", least=0)
    batch_size: int = opt(256, "With -m: completions in flight.", least=1)
    k: str | None = opt(None, "Also report pass@k for these k (unbiased).", metavar="K,…")
    against: str | None = opt(
        None, "Also report how often the rewards beat those of this file's same prompts.", metavar="FILE", input=True
    )


@command("pt-eval", Config, reads="scored records, or prompts", writes="report", examples=EXAMPLES)
def main(cfg, job):
    """Report pass@1 by domain and its mean over domains.

    Bounds are 95 % over prompts: the samples of one prompt count together. Wilson intervals with the effective number
    of prompts; the mean is the unweighted mean over domains. Completions whose grader failed are left out and
    counted. With -o the JSON report goes to that file.
    """
    ks = _ks(cfg)
    if not cfg.model:
        _refuse_unused(cfg)
    if cfg.out is None:
        report = _evaluate(cfg, job, ks)
    else:
        report = _kept(cfg, job, lambda: _evaluate(cfg, job, ks))
    _show(report, cfg.json)


def _ks(cfg):
    try:
        ks = sorted({int(word) for word in (cfg.k or "").split(",") if word.strip()})
    except ValueError:
        raise Usage(f"--k: {cfg.k!r} is no list of whole numbers") from None
    if ks and ks[0] < 1:
        raise Usage("--k: k must be at least 1")
    if cfg.model and ks and ks[-1] > cfg.samples:
        raise Usage(f"--k {ks[-1]} needs at least -n {ks[-1]}")
    return ks


def _refuse_unused(cfg):
    fields = options.fields(cfg)
    for name in (*options.fields(options.Sampling), *options.fields(options.Device), "samples", "seed", "batch_size"):
        if getattr(cfg, name) != fields[name].default:
            raise Usage(f"{options.flag(name)} is of use only with -m: nothing is sampled here")


def _evaluate(cfg, job, ks):
    """The whole report as a dict."""
    from pt_tools.rewards import evaluate

    tally = evaluate.Tally(ks)
    for record, where in _sampled(cfg, job) if cfg.model else ((record, job.records.where) for record in job.records):
        try:
            graded = tally.add(record)
        except ValueError as reason:
            job.records.reject(str(reason), record, where)
            continue
        job.rows.add("out")
        if not graded:
            job.rows.add("masked", 1, "no completion could be graded")
    try:
        report = tally.report()
        if cfg.against:
            report["extra"]["against"] = evaluate.win_rates(tally.seen, _others(cfg.against))
    except ValueError as reason:
        raise BadData(str(reason)) from None
    job.final.update(mean=report["mean"])
    return {**report, "rows": job.rows.as_dict(), "sampling": _sampling(cfg)}


def _others(path):
    from pt_tools import stream

    return stream.read_jsonl(path)


def _sampling(cfg):
    names = ("model", "samples", "temperature", "top_p", "top_k", "max_new_tokens", "seed")
    return {name: getattr(cfg, name) for name in names} if cfg.model else None


def _sampled(cfg, job):
    """(record, where) of every prompt, with completions sampled from the model and verified."""
    from pt_tools import models, record as rec, rewards, rollout, tokens

    models.set_threads(cfg)
    device, dtype = models.device_and_dtype(cfg)
    tok, model = models.load_tokenizer(cfg.model), models.load_model(cfg.model, device, dtype)
    engine = rollout.LocalEngine(model, tokens.stop_ids(tok, model), models.pad_id(model, tok), cfg.batch_size)
    sampling = rollout.Sampling(cfg.temperature, cfg.top_p, cfg.top_k, cfg.max_new_tokens, cfg.seed)
    rows, prompts = [], []
    for record in job.records:
        try:
            rewards.check(record)
            rec.ensure_id(record)
            ids = tokens.encode_prompt(tok, rec.prompt_of(record), record.get("tools"))
            if not 0 < len(ids) < engine.context:
                raise ValueError(f"the prompt has {len(ids)} tokens, the model's context is {engine.context}")
        except ValueError as reason:
            job.records.reject(str(reason), record)
            continue
        rows.append((record, job.records.where))
        prompts.append(rollout.Prompt(record["id"], ids))
    models.check_ids(model, [prompt.ids for prompt in prompts], cfg.model)
    for (record, where), group in zip(rows, engine.sample(prompts, cfg.samples, sampling)):
        record["completions"] = [{"text": rollout.text_of(tok, each), "finish": each.finish} for each in group]
        rewards.score(record)
        yield record, where


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
    import json
    import sys

    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    header, *lines = _table(report)
    if sys.stdout.isatty():
        from rich import box, console, table, text

        shown = table.Table(*header, box=box.SIMPLE)
        for line in lines:
            shown.add_row(*map(text.Text, line))  # a domain's name is no markup
        console.Console().print(shown)
        return
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    for line in (header, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _table(report):
    """Header and lines of text: one line a domain, then their mean, then the win rates."""
    domains, extra = report["domains"], report["extra"]
    ks = [name for name in extra if name.startswith("pass@")]
    lines = [["domain", "prompts", "pass@1", "95 %", *ks]]
    for name, part in domains.items():
        lines.append([printable(name), str(part["n"]), *_cells(part), *(f"{part[k]['mean']:.3f}" for k in ks)])
    prompts = str(sum(part["n"] for part in domains.values()))
    lines.append(["mean", prompts, *_cells(report["mean"]), *(f"{extra[k]['mean']:.3f}" for k in ks)])
    for name, part in _win_lines(extra.get("against")):
        lines.append([f"win rate {printable(name)}", str(part.get("n", "")), *_cells(part), *("" for _ in ks)])
    return lines


def _win_lines(against):
    return [*against["domains"].items(), ("mean", against["mean"])] if against else []


def _cells(part):
    return [f"{part['mean']:.3f}", f"{part['low']:.3f}-{part['high']:.3f}"]
