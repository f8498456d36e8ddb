"""The worker's side of `symbolic.py`: math-verify, and a second check of what it calls equal. Only ever in a worker.

math-verify compares numbers after cutting off what is small (1/7^70 and 1/7^71 are both 0 to it) and has other ways of
saying yes, so its yes counts only if the values agree, relative to their size, at 30 digits.
"""

import logging
import os

from pt_tools.rewards import answers

try:  # here and not in the functions: a worker loads them when it starts, outside the time limit of an answer
    import sympy
    from latex2sympy2_extended import latex2sympy
    from math_verify import verify
    from math_verify.grader import should_treat_as_complex
    from sympy.core.relational import Relational
except ImportError:  # without the extra no worker is started
    pass

logging.disable(logging.WARNING)  # math-verify warns that no alarm is set; the parent kills instead

DIGITS = 30
# Variable k is set to (p k + 1) / q: three points without structure, positive, so that roots and logarithms are real.
POINTS = ((37, 101), (53, 89), (29, 31))


def compare(payload):
    """payload: [answer, gold], texts that the guard let through -> True or False. MemoryError ends the worker."""
    answer, gold = payload
    try:
        return answers.compare(answer, gold, _same) is True
    except MemoryError:
        os._exit(3)  # what is left of the memory may not be enough for the next answer


def _same(answer, gold):
    """One pair of expressions in normal form."""
    a, g = _parsed(answer), _parsed(gold)
    if a is None or g is None:
        return False
    return bool(verify(g, a, timeout_seconds=None)) and _agrees(a, g)


def _parsed(text):
    try:
        parsed = latex2sympy(text, is_real=not should_treat_as_complex(text), convert_degrees=False)
        return parsed.subs({symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"})
    except MemoryError:
        raise
    except Exception:  # a parser for anything raises anything
        return None


def _agrees(a, g):
    """False if the values differ, whatever math-verify says."""
    if isinstance(a, Relational) and isinstance(g, Relational):
        ratios = [_value(a.lhs - a.rhs, *point) / _value(g.lhs - g.rhs, *point) for point in _substitutions(a, g)]
        return all(_near(ratio, ratios[0]) for ratio in ratios)
    if isinstance(a, Relational) and isinstance(a.rhs, sympy.Expr) and isinstance(g, sympy.Expr):
        a = a.rhs
    if isinstance(g, Relational) and isinstance(g.rhs, sympy.Expr) and isinstance(a, sympy.Expr):
        g = g.rhs
    if not isinstance(a, sympy.Expr) or not isinstance(g, sympy.Expr):
        return not isinstance(a, sympy.Expr) and not isinstance(g, sympy.Expr)
    return all(_same_value(a, g, *point) for point in _substitutions(a, g))


def _substitutions(a, g):
    """Tuples of one dict {name: value}, one for each point; the same name gets the same value on both sides."""
    names = sorted({symbol.name for symbol in a.free_symbols | g.free_symbols})
    return [({name: sympy.Rational(p * k + 1, q) for k, name in enumerate(names, 1)},) for p, q in POINTS]


def _value(expression, values):
    chosen = {symbol: values[symbol.name] for symbol in expression.free_symbols}
    return sympy.N(expression.subs(chosen).doit(), DIGITS)


def _same_value(a, g, values):
    one, other = _value(a, values), _value(g, values)
    if max(abs(one), abs(other)) < sympy.Float("1e-20") and one != other:
        chosen = {symbol: values[symbol.name] for symbol in a.free_symbols | g.free_symbols}
        return sympy.simplify((a - g).subs(chosen).doit()) == 0
    return one == other or _near(one, other)


def _near(one, other):
    scale = max(abs(one), abs(other))
    return bool(scale.is_finite) and bool(abs(one - other) <= scale * sympy.Float("1e-12"))
