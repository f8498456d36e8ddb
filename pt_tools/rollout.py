"""Sampling and scoring with a local causal language model.

`LocalEngine.sample` draws n completions for each prompt; `logprobs` scores given completions. Both
return the log-probability of every token under one distribution, softmax(logits / temperature)
restricted to the top-k and top-p sets, so that what a record holds is what was sampled from.

Shapes: B live rows, V vocabulary, T tokens of a padded batch, H heads, D head width.
"""

from __future__ import annotations

import inspect
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache

from pt_tools import noise, stop
from pt_tools.errors import BadModel, Diverged
from pt_tools.kvcache import SlotCache

PREFILL_TOKENS = 16384  # padded tokens of one prefill forward: bounds its activations
SCORE_TOKENS = 16384  # padded tokens of one scoring forward


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    The distribution is softmax(logits / temperature), cut to the `top_k` most probable tokens (0: all),
    then to the smallest set of most probable tokens whose mass reaches `top_p`, renormalised. At
    temperature 0 the most probable token is taken, and log-probs are those of temperature 1.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt, and what the noise of its completions depends on besides the seed.

    `id` is the record's; `visit` counts how often a training run comes to it; its samples are numbered from `first`.
    """

    id: str
    ids: list[int]
    visit: int = 0
    first: int = 0


@dataclass
class Completion:
    """Sampled tokens (the stop token included), their log-probs, and why it ended: stop or length."""

    token_ids: list[int]
    logprobs: list[float]
    finish: str


# --- one token -------------------------------------------------------------------------------------


def restrict(logits_BV, top_k, top_p):
    """Set the logits outside the top-k set, then outside the top-p nucleus, to -inf."""
    if 0 < top_k < logits_BV.shape[-1]:
        kth_B1 = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
    if top_p < 1.0:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
        probs_BV = sorted_BV.softmax(-1)
        before_BV = probs_BV.cumsum(-1) - probs_BV
        outside_BV = before_BV >= top_p
        outside_BV[:, 0] = False
        outside_BV = torch.zeros_like(outside_BV).scatter(1, order_BV, outside_BV)
        logits_BV = logits_BV.masked_fill(outside_BV, -torch.inf)
    return logits_BV


def choose(logits_BV, sampling, uniforms_B):
    """Draw one token a row by inverse CDF. Returns (tokens_B, logprobs_B); see `Sampling` for the distribution."""
    logits_BV = logits_BV.float()
    if sampling.temperature == 0.0:
        tokens_B = logits_BV.argmax(-1)
    else:
        logits_BV = restrict(logits_BV / sampling.temperature, sampling.top_k, sampling.top_p)
    total_B = logits_BV.logsumexp(-1)
    if not torch.isfinite(total_B).all():
        raise Diverged("the model gives non-finite logits while sampling")
    if sampling.temperature > 0.0:
        cdf_BV = (logits_BV - total_B[:, None]).exp_().cumsum(-1, dtype=torch.float64)
        tokens_B = torch.searchsorted(cdf_BV, uniforms_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0]
    return tokens_B, logits_BV.gather(1, tokens_B[:, None])[:, 0] - total_B


# --- the engine ------------------------------------------------------------------------------------


@dataclass
class _Live:
    """The live rows of the batch, in slot order. Arrays of length B."""

    row: np.ndarray  # number of the completion: prompt * n + sample
    key: np.ndarray  # uint64 noise key
    made: np.ndarray  # tokens made so far
    limit: np.ndarray  # tokens it may make
    length: np.ndarray  # prompt length
    token: np.ndarray  # last token made

    def take(self, order):
        return _Live(*(getattr(self, name)[order] for name in self.__dataclass_fields__))

    def plus(self, other):
        return _Live(*(np.concatenate([getattr(self, f), getattr(other, f)]) for f in self.__dataclass_fields__))


@dataclass
class _Log:
    """What every decode step made, joined into completions at the end."""

    rows: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    logps: list = field(default_factory=list)
    finish: dict = field(default_factory=dict)

    def completions(self, total):
        rows = np.concatenate(self.rows)
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum(np.bincount(rows, minlength=total))[:-1]
        tokens = np.split(np.concatenate(self.tokens)[order], ends)
        logps = np.split(np.concatenate(self.logps)[order], ends)
        return [Completion(t.tolist(), p.tolist(), self.finish[i]) for i, (t, p) in enumerate(zip(tokens, logps))]


class LocalEngine:
    """Batched sampling from a local causal model with full attention and rotary or absolute positions.

    At most `batch_size` completions are in flight. A prompt goes through the model once for a group and its
    cache is copied to the group's rows (once for every `batch_size` samples when a group is larger); a
    finished row leaves the batch at once and waiting prompts take the free rows. A completion depends on
    the noise key (seed, record id, visit, sample) and not on its neighbours, up to floating point; the
    same call gives the same bytes.
    """

    def __init__(self, model, stop_ids, pad_id, batch_size):
        check_supported(model)
        self.model, self.pad_id, self.batch_size = model, pad_id or 0, max(1, batch_size)
        self.context = context_length(model)
        self.is_stop = np.zeros(1 + max([len(model.get_output_embeddings().weight), *stop_ids]), bool)
        self.is_stop[list(stop_ids)] = True

    @torch.inference_mode()
    def sample(self, prompts, n, sampling):
        """n completions for each `Prompt`: list (prompts) of lists (n) of `Completion`.

        Raises ValueError for a prompt that is empty or fills the context, Diverged on non-finite logits,
        Stopped when a stop was requested (polled every token).
        """
        self._check(prompts, n, sampling)
        if not prompts:
            return []
        was_training = self.model.training
        self.model.eval()
        try:
            log = self._run(prompts, n, sampling)
        finally:
            self.model.train(was_training)
        flat = log.completions(len(prompts) * n)
        return [flat[i : i + n] for i in range(0, len(flat), n)]

    def _check(self, prompts, n, sampling):
        if n < 1 or sampling.max_new_tokens < 1:
            raise ValueError("n and max_new_tokens must be at least 1")
        for prompt in prompts:
            if not prompt.ids or len(prompt.ids) >= self.context:
                raise ValueError(f"prompt {prompt.id} has {len(prompt.ids)} tokens, the context {self.context}")

    def _run(self, prompts, n, sampling):
        unit = min(n, self.batch_size)
        # Neighbours of like length waste the least padding; the sort is stable, so the order is a function of the input.
        by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids))
        waiting = deque((i, k, min(unit, n - k)) for i in by_length for k in range(0, n, unit))
        width = max(len(p.ids) for p in prompts)
        slots = min(self.batch_size, len(prompts) * n)
        cache = SlotCache(
            self.model.config.num_hidden_layers, slots, width + min(sampling.max_new_tokens, 256), self.model.device
        )
        log, live = _Log(), None
        while waiting or cache.live:
            stop.check()
            free = slots - cache.live
            if waiting and (cache.live == 0 or free >= max(unit, slots // 4)):
                joined = self._admit(prompts, waiting, free, cache, n, sampling, log)
                live = joined if live is None else live.plus(joined)
                continue
            logits_BV = self._step(cache, live)
            live = self._settle(logits_BV, cache, live, sampling, log)
        return log

    def _admit(self, prompts, waiting, free, cache, n, sampling, log):
        """Prefill as many waiting prompts as fit and draw their first tokens. Returns the rows that go on."""
        batch, rows = self._next(prompts, waiting, free)
        lengths = np.array([len(prompts[i].ids) for i, _, _ in batch])
        copies = [count for _, _, count in batch]
        prefilled, logits_PV = self._prefill([prompts[i].ids for i, _, _ in batch], lengths)
        before = cache.live
        cache.insert(prefilled, lengths, copies)
        sampled = [(i, k + j) for i, k, count in batch for j in range(count)]
        length_B = np.repeat(lengths, copies)
        new = _Live(
            row=np.array([i * n + k for i, k in sampled]),
            key=np.array([noise.key_of(sampling.seed, prompts[i], k) for i, k in sampled], np.uint64),
            made=np.zeros(rows, np.int64),
            limit=np.minimum(sampling.max_new_tokens, self.context - length_B),
            length=length_B,
            token=np.zeros(rows, np.int64),
        )
        logits_BV = logits_PV.repeat_interleave(torch.tensor(copies, device=logits_PV.device), 0)
        return self._settle(logits_BV, cache, new, sampling, log, before)

    def _next(self, prompts, waiting, free):
        """The waiting (prompt, first sample, count) to prefill together, at least one, and the rows they take."""
        batch, rows = [], 0
        while waiting and rows + waiting[0][2] <= free:
            if batch and (len(batch) + 1) * len(prompts[batch[0][0]].ids) > PREFILL_TOKENS:
                break
            batch.append(waiting.popleft())
            rows += batch[-1][2]
        return batch, rows

    def _prefill(self, prompts_ids, lengths):
        width = int(lengths.max())
        ids = np.full((len(lengths), width), self.pad_id, np.int64)
        for row, prompt in zip(ids, prompts_ids):
            row[width - len(prompt) :] = prompt
        pads = width - lengths
        inputs = {"input_ids": ids}
        if pads.any():
            columns = np.arange(width)
            inputs["attention_mask"] = (columns >= pads[:, None]).astype(np.int64)
            inputs["position_ids"] = np.maximum(columns - pads[:, None], 0)
        inputs = {name: torch.from_numpy(x).to(self.model.device) for name, x in inputs.items()}
        cache = DynamicCache()
        output = self.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache, output.logits[:, -1]

    def _step(self, cache, live):
        """One forward of the last token of every live row. Returns logits (B, V)."""
        cache.make_room()
        device = self.model.device
        positions_B = live.length + live.made - 1
        output = self.model(
            input_ids=torch.from_numpy(live.token)[:, None].to(device),
            position_ids=torch.from_numpy(positions_B)[:, None].to(device),
            attention_mask=cache.mask(self.model.dtype),
            past_key_values=cache,
            use_cache=True,
        )
        cache.column += 1
        return output.logits[:, -1]

    def _settle(self, logits_BV, cache, live, sampling, log, offset=0):
        """Draw a token for the rows from slot `offset` on, log it, and let finished rows leave."""
        uniforms_B = torch.from_numpy(noise.uniforms(live.key, live.made)).to(logits_BV.device)
        tokens_B, logps_B = choose(logits_BV, sampling, uniforms_B)
        live.token, logps_B = tokens_B.cpu().numpy(), logps_B.cpu().numpy()
        live.made = live.made + 1
        log.rows.append(live.row)
        log.tokens.append(live.token)
        log.logps.append(logps_B)
        stopped_B = self.is_stop[live.token]
        done_B = stopped_B | (live.made >= live.limit)
        if not done_B.any():
            return live
        for row, stopped in zip(live.row[done_B], stopped_B[done_B]):
            log.finish[int(row)] = "stop" if stopped else "length"
        order = cache.remove(np.concatenate([np.zeros(offset, bool), done_B]))
        return live.take(order[offset:] - offset)


def context_length(model):
    """Positions the model has, prompt and completion together."""
    return int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)


def check_supported(model):
    """Raise BadModel for positions that follow padding, or a cache that is not the keys and values of all positions."""
    config = model.config
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        raise BadModel(f"{config.model_type}: only models that take position ids can be sampled from")
    if getattr(config, "alibi", False):
        raise BadModel(f"{config.model_type}: models whose positions are a bias (ALiBi) cannot be sampled from")
    types = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    local = "local" in (getattr(config, "attention_layers", None) or ())      # GPT-Neo's name for windows
    if types != {"full_attention"} or local or (sliding and sliding < context_length(model)):
        raise BadModel(f"{config.model_type}: only models with full attention in every layer can be sampled from")
    _check_positions(model)


@torch.no_grad()
def _check_positions(model):
    """BadModel unless the positions that the model takes by itself count from 0, and no token sees a later one."""
    was_training = model.training
    model.eval()
    ids = torch.arange(6, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    positions = torch.arange(6, device=model.device)[None]
    by_itself, given = (model(ids, use_cache=False, **more).logits[:, :-1].float() for more in ({}, {"position_ids": positions}))
    first = model(ids[:, :-1], use_cache=False).logits.float()
    model.train(was_training)
    if max(float((by_itself - other).abs().max()) for other in (given, first)) > 0.01 * float(by_itself.abs().max()):
        raise BadModel(f"{model.config.model_type}: only causal models whose positions count from 0 can be sampled from")


def text_of(tokenizer, completion):
    """The text of a completion, without the stop token that ended it."""
    ids = completion.token_ids[:-1] if completion.finish == "stop" else completion.token_ids
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


# --- scoring ---------------------------------------------------------------------------------------


def logits_at(model, places_N, **inputs):
    """Logits (N, V) at the given places of the flattened (B, T) batch; only these go through the head.

    The hook sits before the head, so whatever the model does to its logits (scaling, soft caps) still happens.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: (args[0].flatten(0, 1).index_select(0, places_N)[None],)
    )
    try:
        return model(**inputs, use_cache=False).logits[0]
    finally:
        hook.remove()


def token_logprobs(logits_NV, tokens_N, temperature):
    """log softmax(logits / temperature) at the tokens, in float32; temperature 0 scores as 1."""
    logits_NV = logits_NV.float() / (temperature or 1.0)
    return logits_NV.gather(1, tokens_N[:, None])[:, 0] - logits_NV.logsumexp(-1)


@torch.no_grad()
def logprobs(model, prompts_ids, completions_ids, temperature=1.0):
    """Teacher-forced log-probs of each completion token given its prompt: list of lists, in the given order.

    Sequences of like length share a right-padded batch, which needs no mask under causal attention. Polls
    `stop.check()` between batches. Raises ValueError for an empty prompt.
    """
    order = sorted(range(len(prompts_ids)), key=lambda i: len(prompts_ids[i]) + len(completions_ids[i]))
    result = [[] for _ in order]
    was_training = model.training
    model.eval()
    try:
        for batch in _batches(order, prompts_ids, completions_ids):
            stop.check()
            for i, row in zip(batch, _score(model, batch, prompts_ids, completions_ids, temperature)):
                result[i] = row
    finally:
        model.train(was_training)
    return result


def _batches(order, prompts_ids, completions_ids):
    batch = []
    for i in order:
        if not prompts_ids[i]:
            raise ValueError("a completion can only be scored after a non-empty prompt")
        width = len(prompts_ids[i]) + len(completions_ids[i])
        if batch and (len(batch) + 1) * width > SCORE_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _score(model, batch, prompts_ids, completions_ids, temperature):
    width = max(len(prompts_ids[i]) + len(completions_ids[i]) for i in batch)
    ids = np.zeros((len(batch), width), np.int64)
    mask = np.zeros((len(batch), width), bool)
    for row, chosen, i in zip(ids, mask, batch):
        p, end = len(prompts_ids[i]), len(prompts_ids[i]) + len(completions_ids[i])
        row[:end] = [*prompts_ids[i], *completions_ids[i]]
        chosen[p - 1 : end - 1] = True
    ids_BT, mask_BT = torch.from_numpy(ids).to(model.device), torch.from_numpy(mask).to(model.device)
    if not mask.any():
        return [[] for _ in batch]
    places_N = mask_BT.flatten().nonzero()[:, 0]
    tokens_N = ids_BT.flatten()[places_N + 1]
    logps_N = token_logprobs(logits_at(model, places_N, input_ids=ids_BT), tokens_N, temperature)
    return [part.tolist() for part in logps_N.cpu().split(mask.sum(1).tolist())]
