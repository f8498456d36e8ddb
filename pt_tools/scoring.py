"""Scorers that are models: reward models, and the log-probs of a teacher or a reference model.

Each keeps its model in memory from the start until `close()`, so several take the sum of theirs. Both raise BadModel or
Diverged when the model cannot be used, Stopped between two batches when a stop was requested, and never for what a
record holds: a completion that cannot be scored gets an entry in `errors`. It never gets a number, be it over-long or
unreadable: the scale of a reward model has no zero that would mean failure, and its context is its own limit.

Shapes: B rows, T tokens of the longest of them.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from pt_tools import models, record as rec, rewards, rollout, stop, tokens
from pt_tools.errors import BadModel


class _Scorer:
    def _load(self, directory, cfg, **more):
        models.set_threads(cfg)
        self.where = str(directory)
        self.tok = models.load_tokenizer(directory)
        self.model = models.load_model(directory, *models.device_and_dtype(cfg), **more).eval()

    def close(self):
        """Free the model's memory."""
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class RewardModel(_Scorer):
    """One number a completion from a sequence-classification model with one output, written to `scores[name]`.

    The number is the model's raw output (before any sigmoid), in float32; the model computes in `cfg.dtype`. What is
    scored is the whole conversation as the reward model's own tokenizer and chat template write it (see `encode`),
    whatever the record's token ids say. It is read where the model reads it: for decoders at the last token that is not
    the configuration's pad token, so that one trained with pad = end-of-text is read before that token, as in training.

    Up to `batch_size` rows of like length share a right-padded, masked forward. A number depends on its row alone up to
    rounding: sums are ordered by the shape of the batch. A model without pad token takes one row at a time.
    """

    def __init__(self, name, directory, cfg, batch_size=32):
        self.keys = (name,)
        self._load(directory, cfg, auto_class=AutoModelForSequenceClassification)
        if self.model.config.num_labels != 1:
            raise BadModel(f"a reward model has one output, this one has {self.model.config.num_labels}", self.where)
        config = self.model.config.get_text_config()
        config.use_cache, self.pad = False, config.pad_token_id
        padded = self.pad is not None and 0 <= self.pad < self.model.get_input_embeddings().num_embeddings
        self.batch_size = max(1, batch_size) if padded else 1
        self.context = min(rollout.context_length(self.model), self.tok.model_max_length)

    def score(self, records):
        """Write `scores[name]`, or `errors[name]`, of every completion, in place."""
        places = [(record, completion) for record in records for completion in record["completions"]]
        for (_, completion), (reward, reason) in zip(places, self._rewards(self._completion_ids, places)):
            (key,) = self.keys
            verdict = rewards.Verdict({key: reward}) if reason is None else rewards.Verdict(errors={key: reason})
            rewards.put(completion, verdict)

    def pairs(self, records):
        """[(reward of chosen, reward of rejected, reason)] of preference records; a number that failed is None.

        The reason is None unless one did.
        """
        sides = [(record, side) for record in records for side in ("chosen", "rejected")]
        found = self._rewards(self._pair_ids, sides)
        return [(a, b, why or also) for (a, why), (b, also) in zip(found[::2], found[1::2])]

    def _completion_ids(self, record, completion):
        return encode(self.tok, rec.prompt_of(record), text_of(completion), record.get("tools"))

    def _pair_ids(self, record, side):
        if rec.kind(record) != "preference":
            raise ValueError("no pair: chosen or rejected is missing")
        prompt = rec.prompt_of(record)
        answer = record[side] if "prompt" in record else record[side][len(prompt) :]
        return encode(self.tok, prompt, answer, record.get("tools"))

    def _rewards(self, ids_of, items):
        """[(reward, None) or (None, reason)] of the items; `ids_of(*item)` gives token ids, or raises."""
        rows, found = [], [None] * len(items)
        for number, item in enumerate(items):
            stop.check()
            try:
                ids = ids_of(*item)
                if len(ids) > self.context:
                    raise ValueError(f"{len(ids)} tokens, the context of the reward model is {self.context}")
                rows.append((len(ids), number, ids))
            except (ValueError, TypeError, LookupError, AttributeError) as reason:  # messages may be malformed
                found[number] = None, str(reason) or type(reason).__name__
        for batch in self._batches(sorted(rows)):
            stop.check()
            for (_, number, _), reward in zip(batch, self._forward([ids for _, _, ids in batch])):
                finite = math.isfinite(reward)
                found[number] = (reward, None) if finite else (None, "reward is not finite")
        return found

    def _batches(self, rows):
        """Rows, sorted by length, in batches of `batch_size` at most and of SCORE_TOKENS padded tokens."""
        batch = []
        for row in rows:
            if batch and (len(batch) == self.batch_size or (len(batch) + 1) * row[0] > rollout.SCORE_TOKENS):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.inference_mode()
    def _forward(self, rows):
        models.check_ids(self.model, rows, self.where)
        lengths = np.array([len(ids) for ids in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self.pad or 0, np.int64)
        ids[mask] = np.concatenate(rows)
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        inputs = {name: torch.from_numpy(x).to(self.model.device) for name, x in inputs.items()}
        rewards_B = self.model(**inputs).logits[:, 0].float().cpu().numpy()
        return [float(str(reward)) for reward in rewards_B]  # no more digits than float32 has


class Logprobs(_Scorer):
    """Log-probs of the completions' token ids under a model, written to `completions[k].teachers[name].logprobs`.

    One number a token of the completion, temperature 1, 7 digits. Where pt-sample drew at temperature 1 without top-k
    and top-p, those of the same model are the recorded ones up to rounding. The ids must be of the model's tokenizer.
    The prompt is the record's `prompt_ids` as they are: where the models' chat templates differ, the policy's is what
    both see, as the log-ratio of the two asks for.

    It writes no score; what fails is in `errors["teachers.NAME"]`, apart from a verifier of the same name.
    """

    keys = ()

    def __init__(self, name, directory, cfg):
        self.name = name
        self._load(directory, cfg)
        self.tokenizer = models.tokenizer_hash(self.tok)
        self._lock = threading.Lock()  # the forward hooks the model's head
        self.context = rollout.context_length(self.model)

    def score(self, records):
        """Write `teachers[name]`, or `errors["teachers.NAME"]`, of every completion, in place."""
        prompts, completions, places = [], [], []
        for record in records:
            for completion in record["completions"]:
                try:
                    prompts.append(self._prompt(record, completion))
                except ValueError as reason:
                    self._put(completion, error=str(reason))
                    continue
                completions.append(completion["token_ids"])
                places.append(completion)
        models.check_ids(self.model, prompts + completions, self.where)
        with self._lock:
            rows = rollout.logprobs(self.model, prompts, completions)
        for completion, found in zip(places, rows):
            if all(map(math.isfinite, found)):
                self._put(completion, {"logprobs": [float(f"{x:.7g}") for x in found]})
            else:
                self._put(completion, error="log-probs are not finite")

    def _prompt(self, record, completion):
        _check_finished(completion)
        prompt, ids = record.get("prompt_ids"), completion.get("token_ids")
        if not prompt or ids is None:
            raise ValueError("no token ids; pt-sample writes them")
        if record.get("tokenizer") != self.tokenizer:
            raise ValueError("ids of another tokenizer")
        if len(prompt) + len(ids) > self.context:
            raise ValueError(f"{len(prompt) + len(ids)} tokens, the context of the model is {self.context}")
        return prompt

    def _put(self, completion, found=None, error=None):
        for field, key, value in (("teachers", self.name, found), ("errors", f"teachers.{self.name}", error)):
            kept = {k: v for k, v in (completion.get(field) or {}).items() if k != key}
            if value is not None or kept or field in completion:
                completion[field] = {**kept, **({} if value is None else {key: value})}


def encode(tok, prompt, answer, tools=None):
    """Token ids of a prompt with its answer, for a reward model with the tokenizer `tok`.

    Two strings are plain text: the tokenizer's begin-of-text token, both, end-of-text. Else it is one conversation as
    the chat template writes it, to its last character (where that is a newline after the end of the turn, this newline
    is read too, as TRL's RewardTrainer and the published models have it); end-of-text is added where the template
    writes no end of turn. A completion that was cut off ends like any other; a mark of the template inside it is read
    as one. ValueError(reason) if the template refuses the conversation or leaves out the answer.
    """
    if isinstance(prompt, str) and isinstance(answer, str):
        return tokens.encode_text(tok, prompt + answer).input_ids
    turns = [*rec.as_turns(prompt, "user"), *rec.as_turns(answer, "assistant")]
    text = _render(tok, turns, tools)
    if text == _render(tok, rec.as_turns(prompt, "user"), tools):
        raise ValueError("the chat template leaves out the completion")
    ids = tok(text, add_special_tokens=False, verbose=False)["input_ids"]
    missing = tokens.end_of_turn(tok) is None and tok.eos_token_id is not None
    return [*ids, tok.eos_token_id] if missing else ids


def text_of(completion):
    """The text of a completion; ValueError if there is none, or it is no Unicode text (a lone surrogate)."""
    _check_finished(completion)
    if not isinstance(completion.get("text"), str):
        raise ValueError("no text")
    completion["text"].encode()
    return completion["text"]


def _check_finished(completion):
    if completion.get("finish") == "error":
        raise ValueError("there is no completion to score (finish = error)")


def _render(tok, turns, tools):
    try:
        return tok.apply_chat_template(turns, tools=tools, tokenize=False)
    except Exception as error:  # a template raises what its own code raises
        raise ValueError(f"chat template: {error}") from error
