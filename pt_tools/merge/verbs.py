"""What pt-merge does beside methods of arithmetic: soups that weigh or choose their members, and LoRA adapters.

A verb's `flags` are those beside the ones of every merge (`-o`, `--threads`, …) that change something in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pt_tools import job as jobs
from pt_tools import stop
from pt_tools.errors import Usage
from pt_tools.files import read_json, remove, to_json, write_atomic
from pt_tools.merge import build, directory, methods, run, soups
from pt_tools.merge.build import Built
from pt_tools.merge.spec import Part, Ref, Slice, Spec, checkpoints, ref

DENSE = ("shard_size", "force", "report", "dry_run", "threads")
SOUP = (*DENSE, "dtype", "pad_to_multiple_of", "chat_template")


@dataclass(frozen=True)
class Verb:
    does: str  # for the manual
    needs: str  # what it needs, in words
    least: int
    most: int | None
    flags: tuple[str, ...]
    required: str | None = None  # the flag without which it means nothing


VERBS = {
    "greedy_soup": Verb(
        "Scores every model with the command --evaluate, then takes them into a mean, best first, each if the mean's score "
        "does not fall (arXiv:2203.05482, recipe 1).",
        "two models or more", 2, None, (*SOUP, "evaluate"), "evaluate"),
    "ema": Verb(
        "Exponential moving average of checkpoints x_0 ... x_K, oldest first, as if taken while training: "
        "m_0 = x_0, m_k = beta m_(k-1) + (1 - beta) x_k.",
        "checkpoints, oldest first", 1, None, (*SOUP, "tokenizer_from", "beta"), "beta"),
    "last": Verb(
        "The mean of the last --last of the checkpoints, oldest first. OUT.run/checkpoints of a training command (see its "
        "--keep-checkpoints) stands for all that are in it; configuration and tokenizer are those of the finished model.",
        "checkpoints, oldest first", 1, None, (*SOUP, "tokenizer_from", "last"), "last"),
    "lora": Verb(
        "BASE ADAPTER...: a dense model with the adapters' changes in it, W + s B A: rank-stabilised scales, DoRA, "
        "embeddings, whole modules, trained tokens, patterns of ranks and alphas.",
        "a base and its adapters", 2, None, DENSE),
    "lora_cat": Verb(
        "ADAPTER...: one adapter whose change is exactly the weighted sum of theirs; the ranks add up.",
        "adapters", 1, None, ("weight",)),
    "lora_extract": Verb(
        "BASE TUNED: the adapter that turns the one nearly into the other, by truncated singular value decompositions of "
        "rank --rank or as large as --energy asks for; what is no matrix and changed is kept whole.",
        "a base and a tuned model", 2, 2, ("rank", "energy", "fan_in_fan_out", "report", "seed", "threads")),
}
SOUPS = ("greedy_soup", "ema", "last")


def check(name: str, models: tuple) -> None:
    """Usage if a verb has too few or too many models."""
    verb = VERBS[name]
    if len(models) < verb.least or (verb.most is not None and len(models) > verb.most):
        raise Usage(f"{name} needs {verb.needs}, not {len(models)} argument{'s' * (len(models) != 1)}")


def soup(cfg, name: str) -> Spec:
    """The linear merge that a soup is; for the greedy one that of all its members."""
    refs = [ref(text) for one in cfg.models for text in checkpoints(one)]
    if name == "greedy_soup":
        soups.evaluator(cfg.evaluate)
        if len(set(refs)) < len(refs):
            raise Usage("greedy_soup: a model is named twice")
    try:
        if name == "last":
            refs, weights = refs[len(refs) - cfg.last:], [w for w in soups.last(len(refs), cfg.last) if w]
        else:
            weights = soups.ema(len(refs), cfg.beta) if name == "ema" else soups.uniform(len(refs))
    except ValueError as error:
        raise Usage(f"--{error}") from None
    return Spec("linear", (Slice(tuple(Part(one, None, {"weight": (("", w),)}) for one, w in zip(refs, weights))),))


def greedy(cfg, job, spec: Spec, shard_size: int) -> None:
    """The greedy soup of the spec's models. Scores are kept in the scratch, so that a stopped run goes on from them."""
    evaluate = soups.evaluator(cfg.evaluate)
    made = build.build(spec, methods.get("linear"), shard_size=shard_size, seed=cfg.seed)  # refuses what does not fit
    if cfg.dry_run:
        run.show(cfg, spec, made)
        return
    members = _Members(cfg, job, spec, shard_size)
    scores = _Scores(job.run / "scores.json", evaluate, members.directory)
    kept, best = soups.greedy(spec.models(), scores, list, say=job.say)
    run.main(cfg, job, members.spec(kept), shard_size)
    job.final.update(method="greedy_soup", kept=list(map(str, kept)), score=best,
                     scores={str(one): scores([one]) for one in spec.models()})


class _Members:
    """Directories of means of some of a spec's models, made in the scratch."""

    def __init__(self, cfg, job, spec: Spec, shard_size: int):
        self.cfg, self.job, self.all, self.shard_size = cfg, job, spec, shard_size

    def spec(self, members: list[Ref]) -> Spec:
        return replace(self.all, slices=(Slice(tuple(Part(one) for one in members)),))

    def directory(self, members: list[Ref]) -> Path:
        if len(members) == 1 and members[0].adapter is None:
            return directory.resolve(members[0].path)
        out, scratch = self.job.run / "soup", self.job.run / "soup.run"
        for path in (out, scratch):
            remove(path)
            path.mkdir()
        built = build.build(self.spec(members), methods.get("linear"), shard_size=self.shard_size, seed=self.cfg.seed)
        run.write(built, out, scratch, self.cfg)
        return out


class _Scores:
    """The score of every set of members, measured once; `path` remembers them."""

    def __init__(self, path: Path, evaluate, directory):
        self.path, self.evaluate, self.directory, self.known = path, evaluate, directory, read_json(path) or {}

    def __call__(self, members) -> float:
        members = members if isinstance(members, list) else [members]
        key = json.dumps(list(map(str, members)))
        if key not in self.known:
            path = self.directory(members)
            with stop.waiting():
                self.known[key] = self.evaluate(path)
            write_atomic(self.path, to_json(self.known))
        return self.known[key]


# --- adapters -----------------------------------------------------------------------------------------------------


def bake(cfg, job, shard_size: int) -> None:
    """BASE ADAPTER…: a dense model with the adapters' changes in it."""
    from pt_tools.merge import lora

    base, *adapters = _directories("lora", cfg.models)
    donor = directory.Model(Ref(str(base)))
    plan, config = lora.bake(base, adapters, shard_size=shard_size)
    config.pop("auto_map", None)  # names code of the model's directory, which is never copied
    spec = Spec("lora", (Slice(tuple(Part(Ref(path)) for path in cfg.models[1:])),), Ref(cfg.models[0]))
    run.make(cfg, job, spec, Built(plan, config, donor, {}, None, []))


def concatenate(cfg, job, weights: list[float]) -> None:
    """One adapter whose change is the weighted sum of the adapters' changes."""
    from pt_tools.merge import lora_make

    paths = _directories("lora_cat", cfg.models)
    weights = (weights or [1.0]) * (len(paths) if len(weights) < 2 else 1)
    if len(weights) != len(paths):
        raise Usage(f"--weight: {len(weights)} values for {len(paths)} adapters")
    done = lora_make.concatenate(paths, weights, job.out.stage)
    job.final.update(method="lora_cat", models=list(cfg.models), weights=weights, **done)
    job.say(f"{done['modules']} modules, rank up to {done['rank']}")


def extract(cfg, job) -> None:
    """BASE TUNED: the adapter that turns the one nearly into the other."""
    from pt_tools.merge import lora_make

    base, tuned = _directories("lora_extract", cfg.models)
    with run.Report(cfg.report) as report:
        done = lora_make.extract(base, tuned, job.out.stage, rank=cfg.rank, energy=cfg.energy,
                                 fan_in_fan_out=cfg.fan_in_fan_out, seed=cfg.seed, threads=jobs.threads(cfg),
                                 report=report.row)
    job.final.update(method="lora_extract", models=list(cfg.models), **done)
    job.say(f"{done['modules']} modules, rank up to {done['rank']}, {done['whole']} tensors whole, "
            f"{done['energy']:.4f} of the change")


def _directories(name: str, texts) -> list[Path]:
    for text in texts:
        if ref(text).adapter is not None:
            raise Usage(f"{name} takes models and adapters as arguments of their own, not {text}")
    return [directory.resolve(ref(text).path) for text in texts]
