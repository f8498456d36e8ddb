"""A language model as judge of completions: aspects, comparisons, rubrics, or agreement with a right answer.

The judge is a server or a local model. See judge_modes for what is asked, judge_prompts for why an answer cannot grade
itself. A reply without a valid judgement is asked for again, with another seed; where none comes, or no reply at all,
the completion gets an error, never a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from pt_tools import chat, rewards
from pt_tools.errors import Usage
from pt_tools.rewards import common, journal
from pt_tools.rewards import judge_modes as modes
from pt_tools.rewards import judge_prompts as prompts

ASK_AGAIN_TEMPERATURE = 0.7  # greedy decoding would give the same malformed reply again


@dataclass(frozen=True)
class JudgeSettings:
    """How completions are judged.

    `judge`: address of an OpenAI-compatible server (http://host:8000/v1), or a model directory. `aspects`: NAME, or
    NAME=DESCRIPTION for one of your own. `prompt`: a file for this mode's prompt, or a directory with MODE.jinja.
    `baseline`: the record's key with the answer that all completions are compared with; None compares them with each
    other. `part` of a completion that is judged: answer (without thinking), all or thinking. `samples` replies are
    averaged. `retries`: of a request without answer, and of a reply without judgement.
    """

    judge: str
    model: str | None = None
    mode: str = "aspects"
    aspects: tuple = modes.ASPECTS
    prompt: str | None = None
    baseline: str | None = None
    min_gap: float = 0.0
    part: str = "answer"
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int = 0
    concurrency: int = 8
    rate_per_minute: float = 0.0
    retries: int = 4
    timeout_s: float = 120.0
    api_key_env: str = chat.API_KEY_ENV

    @property
    def remote(self):
        return self.judge.startswith(("http://", "https://"))

    def check(self):
        """ValueError if a setting is wrong, or would change nothing."""
        if not self.remote and ":" in self.judge:
            raise ValueError(f"an address begins with http:// or https://; {self.judge!r} is none, and no model")
        default = {name: field.default for name, field in self.__dataclass_fields__.items()}
        changed = {name for name in default if getattr(self, name) != default[name]}
        for name, options in (("mode", tuple(modes.MODES)), ("part", common.PARTS)):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} must be one of {', '.join(options)}, not {getattr(self, name)!r}")
        for mode, names in (("aspects", {"aspects"}), ("pairwise", {"baseline", "min_gap"})):
            if self.mode != mode and names & changed:
                raise ValueError(f"{min(names & changed)} is of use only with mode {mode}")
        local = {"model", "concurrency", "rate_per_minute", "timeout_s", "api_key_env"}
        if not self.remote and local & changed:
            raise ValueError(f"{min(local & changed)} is of use only with a server")
        for name in ("samples", "max_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("temperature", "retries", "min_gap", "rate_per_minute"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.min_gap >= modes.BEST - modes.WORST:
            raise ValueError(f"min_gap must be below {modes.BEST - modes.WORST}, the largest gap there is")
        if self.timeout_s <= 0:
            raise ValueError("timeout_s must be above 0")
        if self.samples > 1 and not self.temperature:
            raise ValueError("several samples are of use only with a temperature above 0: they would all be the same")
        names = [text.partition("=")[0].strip() for text in self.aspects]
        if not names or len(set(names)) < len(names):
            raise ValueError("aspects must be some names, each once")


class Judge:
    """A scorer: `keys` are the names of the scores it writes; `usage` counts requests, tokens in and tokens out.

    `journal` is a file in which every reply is kept, so that a run that was killed asks for none twice; `usage` is that of
    all its replies. `device` has `threads`, `device` and `dtype` for a local model. Usage if the judge cannot be
    asked: wrong settings, address, key, model, or prompt.
    """

    def __init__(self, settings, journal_path=None, device=None):
        self.settings = settings
        try:
            settings.check()
            self.mode = modes.MODES[settings.mode](settings)
        except ValueError as reason:
            raise Usage(f"judge: {reason}") from None
        self.keys = self.mode.keys
        self.journal = journal.Journal(journal_path)
        try:
            self.engine = self._engine(device)
        except BaseException:
            self.journal.close()
            raise
        self.usage = {"requests": 0, "tokens_in": 0, "tokens_out": 0}
        for kept in self.journal:
            self._count(kept)
        self._answered = len(self.journal) > 0

    def check(self, record):
        """ValueError if this record cannot be judged."""
        if record.get("verifier"):
            taken = {key for key, _ in rewards.specs(record)} & set(self.keys)
            if taken:
                raise ValueError(f"a verifier and the judge share the name {min(taken)!r}; give the verifier another `key`")
        prompts.conversation(record)
        self.mode.check(record)

    def score(self, records):
        """Judge every completion of the records in place: scores, details and errors, not the reward."""
        plans, faults = [], {}
        for number, record in enumerate(records):
            try:
                self.check(record)
                plans += [(number, ask) for ask in self.mode.plan(record)]
            except ValueError as reason:
                faults[number] = str(reason)
        answers = {}
        for (number, ask), answer in zip(plans, self._ask([ask for _, ask in plans])):
            answers.setdefault(number, {})[ask.name] = answer
        for number, record in enumerate(records):
            if number in faults:
                verdict = rewards.Verdict(errors=dict.fromkeys(self.keys, faults[number]))
                verdicts = dict.fromkeys(range(len(record["completions"])), verdict)
            else:
                verdicts = self.mode.settle(record, answers.get(number, {}))
            for place, verdict in verdicts.items():
                rewards.put(record["completions"][place], verdict)

    def close(self):
        self.engine.close()
        self.journal.close()

    # --- asking ----------------------------------------------------------------------------------

    def _engine(self, device):
        s = self.settings
        if s.remote:
            return chat.Chat(s.judge, s.model, s.api_key_env, s.concurrency, s.rate_per_minute, s.retries, s.timeout_s,
                             s.seed)
        from pt_tools import localchat

        return localchat.LocalChat(s.judge, device)

    def _ask(self, asks):
        """The answer to each ask: Answered or Failed. All that lack a valid judgement are asked for again together."""
        wanted = [(n, sample) for n in range(len(asks)) for sample in range(self.settings.samples)]
        found = {}
        for attempt in range(self.settings.retries + 1):
            missing = [each for each in wanted if attempt == 0 or isinstance(found[each], _Malformed)]
            replies = self._replies([self._request(asks[n], sample, attempt) for n, sample in missing])
            for (n, sample), reply in zip(missing, replies):
                found[n, sample] = _judged(asks[n], reply)
        return [self._mean([found[n, sample] for sample in range(self.settings.samples)]) for n in range(len(asks))]

    def _request(self, ask, sample, attempt):
        temperature = self.settings.temperature or (ASK_AGAIN_TEMPERATURE if attempt else 0.0)
        seed = self.settings.seed + attempt * self.settings.samples + sample
        return ask.messages, {"temperature": temperature, "max_tokens": self.settings.max_tokens, "seed": seed}

    def _mean(self, found):
        bad = next((each for each in found if isinstance(each, modes.Failed)), None)
        if bad is None:
            return modes.Answered(fmean(each.value for each in found), found[0].reply)
        if isinstance(bad, _Malformed):
            return modes.Failed(f"no valid judgement in {self.settings.retries + 1} replies: {bad.reason}")
        return bad

    def _replies(self, requests):
        """A chat.Reply or chat.Failure for each request; none is sent twice, or again if the journal has its reply."""
        keys = [journal.key_of([self.engine.model, *request]) for request in requests]
        found, fresh = {}, {}
        for key, request in zip(keys, requests):
            kept = None if key in found or key in fresh else self.journal.get(key)
            if kept is not None:
                found[key] = chat.Reply(kept["text"], kept["finish"], kept["tokens_in"], kept["tokens_out"])
            elif key not in found:
                fresh[key] = request
        names = list(fresh)
        for index, reply in self.engine.complete_all(list(fresh.values())):
            found[names[index]] = reply
            if isinstance(reply, chat.Failure):
                self._refuse_to_go_on(reply)
                continue
            self._answered = True
            self._count(reply._asdict())
            self.journal.add(names[index], reply._asdict())
        if fresh and not self._answered:
            raise Usage(f"judge: {self.engine.explain(found[names[0]])}")
        return [found[key] for key in keys]

    def _refuse_to_go_on(self, failure):
        """A wrong key or model fails every request: say so at the first, unless others were answered."""
        if not self._answered and failure.status in (401, 403, 404):
            raise Usage(f"judge: {self.engine.explain(failure)}")

    def _count(self, reply):
        self.usage["requests"] += 1
        for name in ("tokens_in", "tokens_out"):
            self.usage[name] += reply[name]


class _Malformed(modes.Failed):
    """A reply without a valid judgement; another may have one."""


def _judged(ask, reply):
    if isinstance(reply, chat.Failure):
        return modes.Failed(f"judge: {reply}")
    try:
        return modes.Answered(ask.read(prompts.judgement(reply, ask.texts)), reply.text.strip()[-modes.REASONING :])
    except ValueError as reason:
        return _Malformed(str(reason))
