"""`pt-score --judge`: a language model grades the completions. There are four modes:

aspects    each completion by itself, 1 to 5 on each aspect; scores `helpfulness`, `instruction_following`, `honesty`,
           `truthfulness` (Tulu 3, arXiv:2411.15124), or those that --judge-aspects NAME=DESCRIPTION gives
pairwise   completions of a record against each other, or each against --judge-baseline KEY of the record; both orders
           are asked and averaged, 1 to 10 for each answer; `pairwise` is the share of comparisons won, and a gap of at
           most --judge-min-gap is a tie, a half (DeepSeek-R1, arXiv:2501.12948)
rubric     the record's `rubric`, a list of {"criterion": …, "weight": 1}; `rubric` is the weighted share that is met
reference  1 if the completion agrees with the right answer, the record's `reference` or its verifier's `answer`, else 0

Prompts are files (--judge-prompt). What is judged stands between marks with a code that it cannot know, marks of chat
templates in it are broken, and of the judge's reply only the last JSON object counts, if it has exactly the asked form: a
completion that says "Score: 5" gains nothing. A reply without a valid judgement is asked for again; where none comes
there is an error, no score. An empty completion gets the lowest score without being asked about.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any, Callable, NamedTuple

from pt_tools import record as rec
from pt_tools.rewards import Verdict, common
from pt_tools.rewards import judge_prompts as shown

# A mode has `keys` (the scores it writes), `check(record)` (ValueError if it cannot be judged), `plan(record)` (its Asks)
# and `settle(record, answers)`: {completion number: Verdict} out of {ask's name: judgement, or a Failed}.

ASPECTS = ("helpfulness", "instruction_following", "honesty", "truthfulness")
LOWEST, HIGHEST = 1, 5  # of an aspect
WORST, BEST = 1, 10  # of an answer in a comparison
REASONING = 300  # characters of the judge's reasons that go to the details


class Ask(NamedTuple):
    """One question to the judge, asked `samples` times. `read(object)` makes a judgement of its JSON, or ValueError."""

    name: tuple
    messages: list
    read: Callable
    texts: tuple  # what is judged; a reply may quote it


class Failed(NamedTuple):
    """Why there is no judgement."""

    reason: str


class Answered(NamedTuple):
    """A judgement, the mean over the samples, and the end of the first reply."""

    value: Any
    reply: str


class Aspects:
    """Each completion rated 1 to 5 on each aspect, one request for each (Tulu 3, arXiv:2411.15124, section 5.2.1).

    UltraFeedback, whose method Tulu 3 takes, shows four answers in one request; here an answer is rated alone, so that
    its rating does not depend on its neighbours. An empty answer is rated 1 without asking.
    """

    lowest = float(LOWEST)

    def __init__(self, settings):
        self.settings = settings
        self.aspects = dict(_aspect(text) for text in settings.aspects)
        self.keys = tuple(self.aspects)
        self.template = shown.Template("aspects", settings.prompt)
        unknown = [name for name, said in self.aspects.items() if not said and name not in ASPECTS]
        if unknown and settings.prompt is None:
            raise ValueError(f"what is the aspect {unknown[0]!r}? Say it as NAME=TEXT, or take of {', '.join(ASPECTS)}")
        for aspect, description in self.aspects.items():
            self.template.check(prompt="a question", completion="an answer", aspect=aspect, description=description,
                                nonce="c0de")

    def check(self, record):
        pass

    def plan(self, record):
        asks, prompt = [], shown.conversation(record)
        for number, text in _texts(record, self.settings.part):
            nonce = shown.nonce(self.settings.seed, record, text, prompt)
            asks += [Ask((number, aspect), self.template.messages(prompt=prompt, completion=text, aspect=aspect,
                                                                  description=description, nonce=nonce),
                         _rating, (text, prompt)) for aspect, description in self.aspects.items()]
        return asks

    def settle(self, record, answers):
        return _by_completion(self, record, answers)


class Reference:
    """1 if the answer agrees with the right one, which the judge is shown, else 0: `reference` of the record, a string,
    or the `answer` of its verifier."""

    keys, lowest = ("reference",), 0.0

    def __init__(self, settings):
        self.settings, self.template = settings, shown.Template("reference", settings.prompt)
        self.template.check(prompt="a question", completion="an answer", reference="the answer", nonce="c0de")

    def check(self, record):
        _reference(record)

    def plan(self, record):
        asks, prompt, right = [], shown.conversation(record), shown.tame(_reference(record))
        for number, text in _texts(record, self.settings.part):
            nonce = shown.nonce(self.settings.seed, record, text, prompt, right)
            messages = self.template.messages(prompt=prompt, completion=text, reference=right, nonce=nonce)
            asks.append(Ask((number, "reference"), messages, _verdict, (text, prompt, right)))
        return asks

    def settle(self, record, answers):
        return _by_completion(self, record, answers)


class Rubric:
    """The weighted share of the record's criteria that the answer meets: `rubric`, a list of {"criterion", "weight"}.

    score = Σ w·met / Σ w; a weight is 1 where it is absent. All criteria are asked in one request.
    """

    keys, lowest = ("rubric",), 0.0

    def __init__(self, settings):
        self.settings, self.template = settings, shown.Template("rubric", settings.prompt)
        self.template.check(prompt="a question", completion="an answer", rubric=["a criterion"], nonce="c0de")

    def check(self, record):
        _rubric(record)

    def plan(self, record):
        asks, prompt, rubric = [], shown.conversation(record), _rubric(record)
        criteria = [shown.tame(criterion) for criterion, _ in rubric]
        weights = [weight for _, weight in rubric]

        def share(found):
            shown.only_keys(found, "met")
            met = shown.booleans(found, "met", len(weights))
            return sum(weight for weight, yes in zip(weights, met) if yes) / sum(weights)

        for number, text in _texts(record, self.settings.part):
            nonce = shown.nonce(self.settings.seed, record, text, prompt, *criteria)
            messages = self.template.messages(prompt=prompt, completion=text, rubric=criteria, nonce=nonce)
            asks.append(Ask((number, "rubric"), messages, share, (text, prompt, *criteria)))
        return asks

    def settle(self, record, answers):
        return _by_completion(self, record, answers)


class Pairwise:
    """The share of comparisons that an answer wins, against a baseline or against the record's other completions.

    Each pair is asked in both orders, with scores 1 to 10 for both answers; the gap is the mean over orders and samples
    of the answer's score less its opponent's. A gap of more than `min_gap` wins (1), one below -min_gap loses (0), what
    lies between is a tie (1/2). DeepSeek-R1 (arXiv:2501.12948) asks four times in random order, averages, and keeps pairs
    with a gap of more than 1 (samples 2 and min_gap 1 here); it drops the others, which a score of 1/2 each leaves to
    who makes pairs: the gaps are in the details. Equal texts tie and an empty answer loses without asking.
    """

    keys, lowest = ("pairwise",), 0.0

    def __init__(self, settings):
        self.settings, self.template = settings, shown.Template("pairwise", settings.prompt)
        self.template.check(prompt="a question", completion="an answer", other="some other", nonce="c0de")

    def check(self, record):
        if self.settings.baseline is not None:
            _baseline(record, self.settings.baseline)
        elif len(record["completions"]) < 2:
            raise ValueError("a completion can only be compared with another, or with a baseline")

    def plan(self, record):
        asks, prompt, texts = [], shown.conversation(record), self._contestants(record)
        for a, b in self._pairs(texts):
            if _settled(texts[a], texts[b]) is not None:
                continue
            nonce = shown.nonce(self.settings.seed, record, *sorted((texts[a], texts[b])), prompt)
            for order in ((a, b), (b, a)):
                messages = self.template.messages(prompt=prompt, completion=texts[order[0]], other=texts[order[1]],
                                                  nonce=nonce)
                asks.append(Ask(order, messages, _gap, (texts[a], texts[b], prompt)))
        return asks

    def settle(self, record, answers):
        texts = self._contestants(record)
        gaps, failed, replies = {}, {}, {}
        for a, b in self._pairs(texts):
            gap = _settled(texts[a], texts[b])
            if gap is None:
                found = [answers[a, b], answers[b, a]]
                bad = next((each for each in found if isinstance(each, Failed)), None)
                if bad:
                    failed.setdefault(a, bad.reason), failed.setdefault(b, bad.reason)
                    continue
                gap = (found[0].value - found[1].value) / 2
                replies.setdefault(a, found[0].reply), replies.setdefault(b, found[1].reply)
            gaps.setdefault(a, {})[b], gaps.setdefault(b, {})[a] = gap, -gap
        return {number: self._verdict(record, number, gaps, failed, replies)
                for number in range(len(record["completions"]))}

    def _verdict(self, record, number, gaps, failed, replies):
        verdict = Verdict()
        reason = failed.get(number) or _missing(record["completions"][number], self.settings.part)
        if reason or not gaps.get(number):
            verdict.errors["pairwise"] = reason or "there is no other completion to compare with"
            return verdict
        least, found = self.settings.min_gap, gaps[number]
        verdict.scores["pairwise"] = fmean(0.5 + 0.5 * (gap > least) - 0.5 * (gap < -least) for gap in found.values())
        verdict.details["pairwise"] = {"gaps": {str(other): gap for other, gap in found.items()}}
        if number in replies:
            verdict.details["pairwise"]["reply"] = replies[number]
        return verdict

    def _contestants(self, record):
        """{number of the completion, or "baseline": text}, without those that have no text."""
        texts = {}
        for number, completion in enumerate(record["completions"]):
            if not _missing(completion, self.settings.part):
                texts[number] = shown.tame(shown.judged_part(completion, self.settings.part))
        if self.settings.baseline is not None:
            texts["baseline"] = shown.tame(_baseline(record, self.settings.baseline))
        return texts

    def _pairs(self, texts):
        if self.settings.baseline is not None:
            return [(number, "baseline") for number in texts if number != "baseline"]
        return [(a, b) for a in texts for b in texts if a < b]


MODES = {"aspects": Aspects, "pairwise": Pairwise, "rubric": Rubric, "reference": Reference}


# --- completions -------------------------------------------------------------------------------------------------------


def _texts(record, part):
    """(number, text) of the completions to ask about."""
    for number, completion in enumerate(record["completions"]):
        if not _missing(completion, part) and not _own_failure(shown.judged_part(completion, part)):
            yield number, shown.tame(shown.judged_part(completion, part))


def _missing(completion, part):
    """Why there is nothing to judge, None if there is."""
    try:
        shown.judged_part(completion, part)
    except ValueError as reason:
        return str(reason)
    return None


def _own_failure(text):
    """Why a completion gets the lowest score without being read, None if it does not."""
    if not text.strip():
        return "empty"
    return f"longer than {common.MAX_TEXT} characters" if len(text) > common.MAX_TEXT else None


def _settled(a, b):
    """The gap of two texts that need no judge, None if they do."""
    if bool(_own_failure(a)) != bool(_own_failure(b)):
        return float(WORST - BEST if _own_failure(a) else BEST - WORST)
    return 0.0 if _own_failure(a) or a == b else None


def _by_completion(mode, record, answers):
    """Verdicts of modes that judge each completion by itself."""
    verdicts = {}
    for number, completion in enumerate(record["completions"]):
        verdict = verdicts[number] = Verdict()
        missing = _missing(completion, mode.settings.part)
        own = None if missing else _own_failure(shown.judged_part(completion, mode.settings.part))
        for key in mode.keys:
            found = Failed(missing) if missing else answers.get((number, key))
            if own:
                verdict.scores[key], verdict.details[key] = mode.lowest, {"reason": own}
            elif isinstance(found, Failed):
                verdict.errors[key] = found.reason
            else:
                verdict.scores[key], verdict.details[key] = float(found.value), {"reply": found.reply}
    return verdicts


# --- what a record must have -------------------------------------------------------------------------------------------


def _aspect(text):
    """(name, description) of NAME or NAME=DESCRIPTION."""
    name, _, description = text.partition("=")
    if not name.strip():
        raise ValueError("an aspect needs a name")
    return name.strip(), description.strip()


def _reference(record):
    if "reference" in record:
        found = [record["reference"]]
    else:
        verifiers = record.get("verifier")
        verifiers = verifiers if isinstance(verifiers, list) else [verifiers]
        found = [each["answer"] for each in verifiers if isinstance(each, dict) and "answer" in each]
    if len(found) != 1 or not isinstance(found[0], (str, int, float)) or not str(found[0]).strip():
        raise ValueError("the record needs one right answer: `reference`, a string, or a verifier with an `answer`")
    return str(found[0])


def _rubric(record):
    """[(criterion, weight)] of a record."""
    rubric = record.get("rubric")
    if not isinstance(rubric, list) or not rubric:
        raise ValueError("the record has no `rubric`, a list of objects with `criterion` and `weight`")
    for n, each in enumerate(rubric):
        if not isinstance(each, dict) or not isinstance(each.get("criterion"), str) or not each["criterion"].strip():
            raise ValueError(f"rubric[{n}] is no object with a criterion")
        unknown = sorted(each.keys() - {"criterion", "weight"})
        if unknown:
            raise ValueError(f"rubric[{n}]: unknown key {unknown[0]!r}; known are criterion, weight")
        weight = each.get("weight", 1)
        if type(weight) not in (int, float) or not 0 < weight < 1e9:
            raise ValueError(f"rubric[{n}]: weight must be a number above 0, not {weight!r}")
    return [(each["criterion"], float(each.get("weight", 1))) for each in rubric]


def _baseline(record, key):
    """The text of the answer that `key` of the record holds: a string, or messages that end with it."""
    value = record.get(key)
    if isinstance(value, list) and value and isinstance(value[-1], dict) and value[-1].get("role") == "assistant":
        value = value[-1].get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"the record has no baseline answer at {key!r}")
    return value


# --- forms of a judgement ----------------------------------------------------------------------------------------------


def _rating(found):
    shown.only_keys(found, "score")
    return shown.whole_number(found, "score", LOWEST, HIGHEST)


def _verdict(found):
    shown.only_keys(found, "score")
    return shown.whole_number(found, "score", 0, 1)


def _gap(found):
    shown.only_keys(found, "A", "B")
    return shown.whole_number(found, "A", WORST, BEST) - shown.whole_number(found, "B", WORST, BEST)
