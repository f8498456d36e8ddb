"""pt-sample: completions of prompts from a local model."""

from itertools import islice

from pt_tools import options
from pt_tools.cli import command
from pt_tools.options import REQUIRED, opt

EXAMPLES = [
    "pt-sample prompts.jsonl -m sft/ -n 16 -o samples.jsonl",
    "pt-sample prompts.jsonl -m sft/ -n 4 --temperature 0.6 --top-p 0.95 | pt-score --verify > scored.jsonl",
    "pt-sample samples.jsonl -m base/ -n 2 --append -o pool.jsonl",
]
CHUNK_BATCHES = 8  # a chunk is this many full batches: what a stop loses at most, and how seldom a batch drains


@options.config
class Config(options.Input, options.Output, options.Sampling, options.Template, options.Device, options.Common):
    model: str = opt(REQUIRED, "Model directory or hub id to sample from.", short="-m", metavar="MODEL", input=True)
    samples: int = opt(1, "Completions per prompt.", short="-n", least=1)
    seed: int = opt(0, "Seed of the sampling; with it, id and number of the sample fix each completion.", least=0, most=2**32 - 1)
    append: bool = opt(False, "Add to completions that are there; otherwise they are an error.")
    batch_size: int = opt(256, "Completions in flight.", least=1)


@command("pt-sample", Config, reads="prompts", writes="records", examples=EXAMPLES)
def main(cfg, job):
    """Sample completions of prompts.

    Writes token ids, the log-probs of the distribution that was sampled from, and why each completion ended. With -o
    what is done is kept, and the same line goes on after a stop with the same result. A prompt that fills the model's
    context is a bad row. "truncated" counts records with a completion that reached --max-new-tokens or the context.
    """
    options.check_sampling(cfg)
    sampler = _Sampler(cfg, job)
    usable, chunk_size = sampler.usable(), max(1, CHUNK_BATCHES * cfg.batch_size // cfg.samples)
    for number, chunk in enumerate(iter(lambda: list(islice(usable, chunk_size)), [])):
        for record in _kept(job, number, lambda: sampler.complete(chunk)):
            if any(c["finish"] == "length" for c in record["completions"][-cfg.samples:]):
                job.rows.add("truncated", 1, "a completion reached the limit of tokens")
            job.out.write(record)
        job.out.flush()


def _kept(job, number, make):
    """The records of one chunk, from the scratch directory when an earlier run has made it."""
    from pt_tools import outdir, stream

    if job.run is None:
        return make()
    path = job.run / f"chunk-{number:06d}.jsonl"
    if path.exists():
        return list(stream.read_jsonl(str(path)))
    records = make()
    outdir.write_atomic(path, b"".join(stream.dumps(record) + b"\n" for record in records))
    return records


class _Sampler:
    """The model, and what of it goes into every record."""

    def __init__(self, cfg, job):
        from pt_tools import models, noise, outdir, rollout, tokens

        models.set_threads(cfg)
        device, dtype = models.device_and_dtype(cfg)
        self.cfg, self.job, self.names = cfg, job, noise.Names()
        self.tok = models.load_tokenizer(cfg.model, cfg.chat_template)
        self.hashes = {"tokenizer": models.tokenizer_hash(self.tok), "template": models.template_hash(self.tok)}
        model = models.load_model(cfg.model, device, dtype)
        stops = tokens.stop_ids(self.tok, model)
        self.engine = rollout.LocalEngine(model, stops, models.pad_id(model, self.tok), cfg.batch_size)
        self.sampling = rollout.Sampling(cfg.temperature, cfg.top_p, cfg.top_k, cfg.max_new_tokens, cfg.seed)
        names = ("temperature", "top_p", "top_k", "max_new_tokens", "seed")
        self.origin = {"model": outdir.identity(cfg.model), "sampling": {name: getattr(cfg, name) for name in names}}

    def usable(self):
        """(record, prompt ids, name in the noise) of every record that can be sampled from; the others are bad rows."""
        from pt_tools import record as rec

        for record in self.job.records:
            try:
                ids = self._prompt_ids(record)
            except ValueError as reason:
                self.job.records.reject(str(reason), record)
                continue
            yield record, ids, self.names.of(record.get("id") or rec.content_hash(record))

    def _prompt_ids(self, record):
        from pt_tools import models, record as rec, tokens

        rec.check(record)
        if record.get("completions") and not self.cfg.append:
            raise ValueError("it has completions already; --append adds to them")
        if rec.kind(record) == "text":
            raise ValueError("it has no prompt")
        known = record.get("prompt_ids") and all(record.get(name) == self.hashes[name] for name in self.hashes)
        ids = record["prompt_ids"] if known else tokens.encode_prompt(self.tok, rec.prompt_of(record), record.get("tools"))
        if not 0 < len(ids) < self.engine.context:
            raise ValueError(f"the prompt has {len(ids)} tokens, the model's context is {self.engine.context}")
        models.check_ids(self.engine.model, [ids], self.cfg.model)
        return ids

    def complete(self, chunk):
        """The records with `samples` completions added."""
        from pt_tools import rollout

        prompts = [rollout.Prompt(name, ids, first=len(record.get("completions") or ())) for record, ids, name in chunk]
        groups = self.engine.sample(prompts, self.cfg.samples, self.sampling)
        return [self._add(record, ids, group) for (record, ids, _), group in zip(chunk, groups)]

    def _add(self, record, ids, group):
        """Ids in a record are of one tokenizer: where a first model's are there, one of another tokenizer adds text only."""
        earlier = record.get("completions") or []
        with_ids = not earlier or all(record.get(name) == self.hashes[name] for name in self.hashes)
        if not earlier:
            record.update(prompt_ids=ids, **self.hashes)
        record["completions"] = earlier + [self._completion(each, with_ids) for each in group]
        return record

    def _completion(self, completion, with_ids):
        from pt_tools.rollout import text_of

        made = {"text": text_of(self.tok, completion)}
        if with_ids:
            made["token_ids"] = completion.token_ids
            made["logprobs"] = [float(f"{x:.7g}") for x in completion.logprobs]
        return {**made, "finish": completion.finish, **self.origin}
