"""Our side of a benchmark: `ours.py PART WORK` prints the seconds of one unit. `base` makes the model first."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import world  # noqa: E402

from pt_tools import models, outdir, rollout, tokens  # noqa: E402
from pt_tools.job import Job  # noqa: E402
from pt_tools.trainers import base  # noqa: E402

import torch  # noqa: E402

THREADS = int(os.environ["OMP_NUM_THREADS"])


def job_of(name, Config, work, part, **options):
    files = (world.write_rows(work / f"{part}.jsonl", world.rows(part)),)
    job = Job(name, Config(files=files, out=str(work / name), quiet=True, save_every=0, threads=THREADS, **options))
    job.out = outdir.Out(work / f"{name}.{time.monotonic_ns()}", None, directory=True)
    job.out.stage.mkdir(parents=True)
    base.prepare(job.cfg)
    return job


def make_base(work):
    """A model that has learned how long completions are; sampling and pt-rlvr need that."""
    from pt_tools.commands.sft import Config

    world.write_blank(work / "blank")
    job = job_of("pt-sft", Config, work, "base", model=str(work / "blank"), lr=3e-3, batch_size=16, max_steps=48)
    from pt_tools.trainers import sft

    model = models.from_config(str(work / "blank"), 0)
    trainer = _sft(sft, job, model)
    trainer.run()
    models.save_model(model, models.load_tokenizer(str(work / "blank")), work / "base")


def _sft(sft, job, model):
    tokenizer = models.load_tokenizer(job.cfg.model)
    return sft.build(job.cfg, job, model, tokenizer, sft.read_rows(job, tokenizer, 1024))


def timed(run, units):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / units


def bench_sft(work):
    from pt_tools.commands.sft import Config
    from pt_tools.trainers import sft

    job = job_of("pt-sft", Config, work, "sft", model=str(work / "base"), lr=1e-4, **world.SFT)
    trainer = _sft(sft, job, models.load_model(job.cfg.model))
    return timed(trainer.run, world.SFT["max_steps"])


def bench_dpo(work):
    from pt_tools.commands.dpo import Config
    from pt_tools.trainers import preference

    job = job_of("pt-dpo", Config, work, "dpo", model=str(work / "base"), lr=1e-5, **world.DPO)
    tokenizer, model = models.load_tokenizer(job.cfg.model), models.load_model(job.cfg.model)
    read = preference.read_pairs(job, tokenizer, 1024)

    def run():
        pairs = preference.with_reference(job.cfg, job, model, torch.float32, tokenizer, read)
        preference.build(job.cfg, job, model, tokenizer, pairs).run()

    return timed(run, world.DPO["max_steps"])


def bench_rlvr(work):
    from pt_tools import rewards
    from pt_tools.commands.rlvr import Config
    from pt_tools.trainers import onpolicy, rlvr

    job = job_of("pt-rlvr", Config, work, "rlvr", model=str(work / "base"), lr=1e-5, max_new_tokens=world.LONGEST,
                 clip_high=0.2, **world.RLVR)
    tokenizer, model = models.load_tokenizer(job.cfg.model), models.load_model(job.cfg.model)
    tasks = onpolicy.read_tasks(job, tokenizer, 1024, rewards.check)
    return timed(rlvr.build(job.cfg, job, model, tokenizer, tasks).run, world.RLVR["max_steps"])


def bench_sample(work):
    torch.set_num_threads(THREADS)
    tokenizer, model = models.load_tokenizer(str(work / "base")), models.load_model(str(work / "base"))
    n = world.SAMPLE["prompts"]
    prompts = [rollout.Prompt(row["id"], tokens.encode_prompt(tokenizer, row["prompt"])) for row in world.rows("rlvr", n)]
    engine = rollout.LocalEngine(model, tokens.stop_ids(tokenizer, model), 0, world.SAMPLE["batch_size"])
    sampling, made = rollout.Sampling(max_new_tokens=world.LONGEST), []
    seconds = timed(lambda: made.extend(engine.sample(prompts, world.SAMPLE["samples"], sampling)), 1)
    return seconds / sum(len(c.token_ids) for group in made for c in group) * 1000


if __name__ == "__main__":
    part, work = sys.argv[1], Path(sys.argv[2])
    print({"base": make_base, "sft": bench_sft, "dpo": bench_dpo, "rlvr": bench_rlvr, "sample": bench_sample}[part](work) or 0)
