"""A local model that answers as a chat server does: the same requests, the same replies."""

from __future__ import annotations

from pt_tools import chat

BATCH = 32  # replies in flight


class LocalChat:
    """A model directory with a chat template. `device` has `threads`, `device` and `dtype` (None: the defaults).

    A reply depends on its request alone, up to floating point. BadModel for what cannot be loaded.
    """

    def __init__(self, path, device=None):
        from pt_tools import models, options, rollout, tokens

        device = device or options.Device()
        models.set_threads(device)
        where, dtype = models.device_and_dtype(device)
        self._tok, model = models.load_tokenizer(path), models.load_model(path, where, dtype)
        self.model = f"local {models.tokenizer_hash(self._tok)} {models.template_hash(self._tok)} {path}"
        self._engine = rollout.LocalEngine(model, tokens.stop_ids(self._tok, model), models.pad_id(model, self._tok), BATCH)

    def complete(self, messages, **sampling):
        """The model's reply to `messages`; `sampling`: temperature, top_p, max_tokens, seed. Raises chat.Refused."""
        (_, reply), = self.complete_all([(messages, sampling)])
        if isinstance(reply, chat.Failure):
            raise reply
        return reply

    def complete_all(self, requests):
        """(index, Reply or Failure) of each (messages, sampling); those of the same sampling share batches."""
        groups = {}
        for index, (messages, sampling) in enumerate(requests):
            try:
                prompt = self._prompt(messages)
            except ValueError as reason:
                yield index, chat.Refused(str(reason))
                continue
            groups.setdefault(tuple(sorted(sampling.items())), []).append((index, prompt))
        for sampling, group in groups.items():
            found = self._engine.sample([prompt for _, prompt in group], 1, _sampling(dict(sampling)))
            for (index, prompt), (completion,) in zip(group, found):
                yield index, self._reply(prompt, completion)

    def explain(self, failure):
        return f"the model cannot answer: {failure}"

    def close(self):
        pass

    def _prompt(self, messages):
        import hashlib

        from pt_tools import rollout, tokens

        ids = tokens.encode_prompt(self._tok, messages)
        if not 0 < len(ids) < self._engine.context:
            raise ValueError(f"the request has {len(ids)} tokens, the model's context is {self._engine.context}")
        return rollout.Prompt(hashlib.sha256(repr(ids).encode()).hexdigest(), ids)

    def _reply(self, prompt, completion):
        from pt_tools import rollout

        text = rollout.text_of(self._tok, completion)
        return chat.Reply(text, completion.finish, len(prompt.ids), len(completion.token_ids))


def _sampling(sampling):
    from pt_tools import rollout

    names = {"max_tokens": "max_new_tokens"}
    return rollout.Sampling(**{names.get(name, name): value for name, value in sampling.items()})
