"""Rules that make one reward of several scores.

    rule     = expression | "llama2(" NAME "," NAME ")"
    expression = term (("+" | "-") term)*          term = factor ("*" factor)*
    factor   = "-" factor | NUMBER | "(" expression ")" | NAME | call
    call     = "sum" | ("sum" | "mean" | "min" | "max") "(" expression ("," expression)* ")"
             | "all(" NAME [">=" NUMBER] ("," …)* ")"

A NAME is the key of a score: letters, digits, `_`, `.`, `/`, and a hyphen between two words of it (`json-schema`; so a
minus needs a space, a bracket or a number after it). Other names, and those of the functions, go in double quotes.

| rule | reward |
|---|---|
| `sum` | the sum of the scores of the record's verifiers: its own, and those that the command line adds |
| `0.7*helpful + 0.3*math - 0.1*length` | the weighted sum |
| `mean(a, b)` `sum(a, b)` `min(a, b)` `max(a, b)` | as they say |
| `all(math, helpful>=0.5)` | 1 if every score is at least its limit (1 where none is given), else 0 |
| `llama2(helpful, safety)` | Llama 2's rule, see `Llama2` |

A score that a rule names and that is missing, or that failed, leaves the completion without reward.
"""

from __future__ import annotations

import math
import re
from statistics import fmean

from pt_tools import rewards

TOKEN = re.compile(r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[^\W\d][\w./]*(?:-[^\W\d][\w./]*)*)|"(?P<quoted>[^"]+)"|(?P<mark>>=|[-+*(),])|(?P<end>\Z))""", re.VERBOSE)
MEANS = {"sum": math.fsum, "mean": fmean, "min": min, "max": max}
FUNCTIONS = {*MEANS, "all", "llama2"}
DEEPEST = 50  # brackets
SAFE_LOGIT = math.log(0.15 / (1 - 0.15))
EPSILON = 1e-8


class _Missing(Exception):
    """A score that the rule needs is not there."""


class Rule:
    """A rule in one pass: the reward depends on the completion's own scores alone.

    `names`: the keys of the scores that it names. `verifiers`: whether it asks for each record's verifiers too.
    """

    two_pass = False

    def __init__(self, names, verifiers, value):
        self.names, self.verifiers, self._value = tuple(names), verifiers, value

    def needs(self, record):
        """The keys of all scores that the rule asks for in this record; empty if they are those of no verifier."""
        return [*self.names, *(_verifier_keys(record) if self.verifiers else ())]

    def raw(self, record, completion):
        """The rule's value for one completion; None if a score is missing or failed, or the value is not finite."""
        scores, errors = completion.get("scores") or {}, completion.get("errors") or {}

        def score(name):
            if name in errors or scores.get(name) is None:
                raise _Missing
            return float(scores[name])

        try:
            value = self._value(score, record)
        except (_Missing, OverflowError, ValueError):  # fsum raises these two for what is infinite in between
            return None
        return value if math.isfinite(value) else None

    def observe(self, value):
        """Take a raw value into what `final` needs to know of the whole run."""

    def final(self, value):
        """The reward made of a raw value."""
        return value


class Llama2(Rule):
    """Llama 2's reward (Touvron et al. 2023, section 3.2.3) without its KL term, which is the trainer's.

        R_c(g|p) = R_s(g|p)  if is_safety(p) or R_s(g|p) < 0.15,  else R_h(g|p)
        R(g|p)   = whiten(logit(R_c(g|p)))

    The paper's R_s and R_h are reward models after a sigmoid. The scores here are what a reward model gives, before it:
    logit(sigmoid(r)) = r, so the raw value is the score taken, and R_s < 0.15 means r_s < logit(0.15) = -1.7346.
    `is_safety(p)` is the record's `safety`. Both scores must be there, whichever is taken.

    The paper leaves open over what is whitened and whether the mean goes too. Here (x - mean) / sqrt(variance + 1e-8)
    over all completions of the run that have a reward, safety prompts and others together; the variance is the mean of
    the squares. So the rewards of two runs are on two scales.
    """

    two_pass = True

    def __init__(self, helpful, safety):
        super().__init__((helpful, safety), False, self._choose)
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def _choose(self, score, record):
        r_h, r_s = (score(name) for name in self.names)
        return r_s if record.get("safety") is True or r_s < SAFE_LOGIT else r_h

    def observe(self, value):
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.squares += off * (value - self.mean)

    def final(self, value):
        variance = self.squares / max(1, self.count)
        return (value - self.mean) / math.sqrt(variance + EPSILON)


def parse(text):
    """The `Rule` that a text says. ValueError with the place (from 1) and what is wrong there."""
    parser = _Parser(text)
    value = None if parser.ahead("llama2") else parser.expression()
    names = parser.llama2() if value is None else parser.names
    parser.expect("end")
    if not names and not parser.verifiers:
        raise ValueError("at 1: the rule names no score")
    return Llama2(*names) if value is None else Rule(names, parser.verifiers, value)


class _Parser:
    """Recursive descent, giving functions of (score, record) where score(name) is a score or raises _Missing."""

    def __init__(self, text):
        self.text, self.position, self.depth = text, 0, 0
        self.names, self.verifiers = {}, False
        self._next()

    def _next(self):
        found = TOKEN.match(self.text, self.position)
        if found is None:
            blank = len(self.text[self.position :]) - len(self.text[self.position :].lstrip())
            self.start = self.position + blank
            raise self.fault(f"{self.text[self.start]!r} is no part of a rule")
        self.kind, self.start = found.lastgroup, found.start(found.lastgroup)
        self.token, self.position = found.group(found.lastgroup), found.end()
        if self.kind == "mark":
            self.kind = self.token

    def fault(self, what):
        return ValueError(f"at {self.start + 1}: {what}")

    def ahead(self, word):
        return self.kind == "name" and self.token == word

    def take(self, kind):
        """The token if it is of this kind, and on to the next; else None."""
        if self.kind != kind:
            return None
        token = self.token
        self._next()
        return token

    def expect(self, kind):
        if self.kind != kind:
            seen = "the end" if self.kind == "end" else repr(self.token)
            wanted = {"end": "an operator or the end", "number": "a number"}.get(kind, repr(kind))
            raise self.fault(f"{seen} where {wanted} should be")
        return self.take(kind) if kind != "end" else None

    def name(self):
        if self.kind not in ("name", "quoted") or (self.kind == "name" and self.token in FUNCTIONS):
            seen = "the end" if self.kind == "end" else repr(self.token)
            raise self.fault(f"{seen} where the name of a score should be")
        found = self.take(self.kind)
        self.names[found] = None
        return found

    def number(self):
        sign = -1.0 if self.take("-") else 1.0
        start, value = self.start, float(self.expect("number"))
        if math.isinf(value):
            self.start = start
            raise self.fault("the number is too large")
        return sign * value

    def series(self, part):
        """"(" part ("," part)* ")" """
        self.expect("(")
        found = [part()]
        while self.take(","):
            found.append(part())
        self.expect(")")
        return found

    def llama2(self):
        self._next()
        start, names = self.start, self.series(self.name)
        if len(names) != 2 or names[0] == names[1]:
            self.start = start
            raise self.fault("llama2 takes two scores: helpfulness, safety")
        return names

    def expression(self):
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fault(f"more than {DEEPEST} brackets in each other")
        terms = [(1.0, self.term())]
        while self.kind in ("+", "-"):
            sign = 1.0 if self.take(self.kind) == "+" else -1.0
            terms.append((sign, self.term()))
        self.depth -= 1
        if len(terms) == 1:
            return terms[0][1]
        return lambda score, record: math.fsum(sign * term(score, record) for sign, term in terms)

    def term(self):
        factors = [self.factor()]
        while self.take("*"):
            factors.append(self.factor())
        if len(factors) == 1:
            return factors[0]
        return lambda score, record: math.prod(factor(score, record) for factor in factors)

    def factor(self):
        sign = 1.0
        while self.take("-"):
            sign = -sign
        value = self.atom()
        return value if sign > 0 else lambda score, record: -value(score, record)

    def atom(self):
        if self.kind == "number":
            value = self.number()
            return lambda score, record: value
        if self.take("("):
            value = self.expression()
            self.expect(")")
            return value
        if self.kind == "name" and self.token in FUNCTIONS:
            return self.call()
        name = self.name()
        return lambda score, record: score(name)

    def call(self):
        if self.ahead("llama2"):
            raise self.fault("llama2 is whitened over the whole run, so it must be the whole rule")
        function = self.take("name")
        if function == "sum" and self.kind != "(":
            self.verifiers = True
            return _verifiers
        if function == "all":
            limits = self.series(self.limit)
            # Every score is asked for: a missing one leaves no reward, even where another fails its limit.
            return lambda score, record: float(all([score(name) >= limit for name, limit in limits]))
        parts, mean = self.series(self.expression), MEANS[function]
        return lambda score, record: mean([part(score, record) for part in parts])

    def limit(self):
        return self.name(), self.number() if self.take(">=") else 1.0


def _verifiers(score, record):
    keys = _verifier_keys(record)
    if not keys:
        raise _Missing
    return math.fsum(score(key) for key in keys)


def _verifier_keys(record):
    """The keys of the record's verifiers and of those that the command line adds; none if they are malformed."""
    try:
        own = rewards.specs(record) if record.get("verifier") else []
        return [key for key, _ in rewards.keyed([*(spec for _, spec in own), *rewards.settings.added])]
    except ValueError:
        return []
