r"""Exact canonical forms of expressions, without computer algebra: enough for most answers, bounded in time and memory.

An expression becomes a sum of rational multiples of products of independent numbers and variables:

    8\sqrt{2} - 4 - \pi,   \frac{2\sqrt6}{5},   6 + 3i,   (x+1)(x-1),   2^{27} - 2^{11},   \frac{7}{2x^2}

Square roots of square-free integers, powers of pi, e and of variables are linearly independent over the rationals, so
two such forms are equal exactly when the expressions are. What this does not cover (roots of sums, division by sums,
fractional powers) becomes an opaque factor: equal forms are still equal expressions, different ones are undecided. What
cannot be read at all (functions, absolute values, subscripts, unknown commands, too much work) has no form.
"""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction
from typing import NamedTuple

MAX_TERMS = 64
MAX_WORK = 4000  # products of terms for one expression
MAX_BITS = 4096  # of a power; 2^{4000} is read, 8^{7^{8^7}} is not
MAX_RADICAND = 10**9
MAX_DEPTH = 12
MAX_FACTORIAL = 30

_TOKEN = re.compile(
    r"\s*((?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<char>[-A-Za-z+*/^(){}\[\]!×·÷∞π√]))"
)
_ATOMS = {f"\\{name}": name for name in """alpha beta gamma delta epsilon varepsilon zeta eta theta lambda mu nu xi pi
    rho sigma tau phi varphi chi psi omega infty""".split()}  # fmt: skip
_CHARS = {"π": "\\pi", "∞": "\\infty", "×": "\\times", "·": "\\cdot", "÷": "\\div", "√": "\\sqrt"}
_TIMES = {"*", "\\times", "\\cdot", "\\ast"}
_OVER = {"/", "\\div"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}

# A term is (imaginary, radicand, factors): imaginary 0 or 1, radicand square-free, factors a sorted tuple of
# (name, exponent). A polynomial is a dict of terms to non-zero Fractions.
_UNIT = (0, 1, ())
_I = {(1, 1, ()): Fraction(1)}


class Form(NamedTuple):
    """`terms`: frozenset of (term, coefficient); `exact`: another exact form with other terms is another expression."""

    terms: frozenset
    exact: bool


class _Unreadable(Exception):
    pass


@functools.lru_cache(maxsize=16384)
def form(text):
    """Form of an expression, None if it cannot be read."""
    try:
        parser = _Parser(text)
        terms = parser.expression()
        if parser.next is not None:
            return None
    except _Unreadable:
        return None
    return Form(frozenset(terms.items()), parser.exact)


@functools.lru_cache(maxsize=4096)
def proportional(a, b):
    """True if two Forms are equal up to a rational factor, so that `a = 0` and `b = 0` are the same equation."""
    if not a.terms or not b.terms or len(a.terms) != len(b.terms):
        return a.terms == b.terms
    a, b = dict(a.terms), dict(b.terms)
    if a.keys() != b.keys():
        return False
    return len({a[term] / b[term] for term in a}) == 1


def difference(a, b):
    """The Form of a - b."""
    terms = _add(dict(a.terms), {term: -value for term, value in b.terms})
    return Form(frozenset(terms.items()), a.exact and b.exact)


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text):
        self.tokens = _tokens(text)
        self.at, self.depth, self.work, self.exact = 0, 0, 0, True

    @property
    def next(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self):
        token = self.next
        if token is None:
            raise _Unreadable
        self.at += 1
        return token

    def accept(self, *tokens):
        if self.next in tokens:
            return self.take()
        return None

    def expression(self):
        sign = -1 if self.accept("-", "+") == "-" else 1
        total = _scale(self.term(), sign)
        while mark := self.accept("+", "-"):
            total = _add(total, _scale(self.term(), -1 if mark == "-" else 1))
            if len(total) > MAX_TERMS:
                raise _Unreadable
        return total

    def term(self):
        """Factors; an implicit product after a slash (1/2x) can be read in two ways, so it is not read."""
        product, slashed = self.power(), False
        while self.next is not None and self.next not in ("+", "-", ")", "]", "}"):
            if self.accept(*_OVER):
                product, slashed = self.times(product, self.inverse(self.signed())), True
            elif self.accept(*_TIMES):
                product, slashed = self.times(product, self.signed()), False
            elif slashed or self.next[0] in "0123456789.":
                raise _Unreadable
            else:
                product = self.times(product, self.power())
        return product

    def signed(self):
        sign = -1 if self.accept("-", "+") == "-" else 1
        return _scale(self.power(), sign)

    def power(self):
        base = self.atom()
        while self.accept("!"):
            base = _factorial(base)
        if not self.accept("^"):
            return base
        exponent = self.argument()
        if self.next == "^":
            raise _Unreadable
        return self.raised(base, exponent)

    def atom(self):
        token = self.take()
        if token[0] in "0123456789.":
            return self.number(token)
        if token in _CLOSING:
            return self.group(token)
        if token.isalpha():
            return _I if token == "i" else _variable(token)
        if token in _ATOMS:
            return _variable(token)
        if token in ("\\frac", "\\binom"):
            top, bottom = self.argument(), self.argument()
            return self.times(top, self.inverse(bottom)) if token == "\\frac" else _binomial(top, bottom)
        if token == "\\sqrt":
            degree = _whole(self.group("[")) if self.accept("[") else 2
            return self.root(self.argument(), degree)
        raise _Unreadable

    def number(self, token):
        """A number; `1\\frac{1}{2}` is a mixed one."""
        value = _decimal(token)
        if self.next == "\\frac" and "." not in token:
            start = self.at
            self.take()
            top, bottom = _rational(self.argument()), _rational(self.argument())
            if top is not None and bottom is not None and 0 < top < bottom and top.denominator == bottom.denominator == 1:
                return _constant(value + top / bottom)
            self.at = start
        return _constant(value)

    def group(self, opening):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unreadable
        inner = self.expression()
        if self.take() != _CLOSING[opening]:
            raise _Unreadable
        self.depth -= 1
        return inner

    def argument(self):
        """What a command or an exponent applies to: a group in braces, or one digit, letter or constant."""
        if self.accept("{"):
            return self.group("{")
        token = self.take()
        if token.isdigit() and len(token) > 1:  # \frac12 takes one digit, and 2^10 is written by people for 2^{10}
            if self.tokens[self.at - 2] != "^":
                self.at -= 1
                self.tokens[self.at] = token[1:]
            else:
                return _constant(Fraction(token))
            token = token[0]
        if token in ("-", "("):
            if token == "-":
                if self.next == "-":
                    raise _Unreadable
                return _scale(self.argument(), -1)
            return self.group("(")
        if token.isdigit():
            return _constant(Fraction(token))
        if token.isalpha() or token in _ATOMS:
            return _I if token == "i" else _variable(token)
        raise _Unreadable

    def times(self, a, b):
        self.work += len(a) * len(b)
        if self.work > MAX_WORK:
            raise _Unreadable
        product = {}
        for term_a, value_a in a.items():
            for term_b, value_b in b.items():
                term, factor = _term_product(term_a, term_b)
                product[term] = product.get(term, 0) + value_a * value_b * factor
        product = {term: value for term, value in product.items() if value}
        if len(product) > MAX_TERMS:
            raise _Unreadable
        return product

    def inverse(self, base):
        if not base:
            raise _Unreadable
        if len(base) > 1:
            return self.opaque("/", base)
        ((imaginary, radicand, factors), value), = base.items()
        term = imaginary, radicand, tuple((name, -exponent) for name, exponent in factors)
        return {term: (-1 if imaginary else 1) / (value * radicand)}

    def raised(self, base, exponent):
        exponent = _rational(exponent)
        if exponent is None:
            raise _Unreadable
        if exponent.denominator == 2:
            base, exponent = self.root(base, 2), Fraction(exponent.numerator)
        if exponent.denominator != 1:
            base, exponent = self.root(base, exponent.denominator), Fraction(exponent.numerator)
        n = abs(exponent.numerator)
        size = max((max(v.numerator.bit_length(), v.denominator.bit_length()) for v in base.values()), default=0)
        if n > MAX_BITS or n * size > MAX_BITS or (not base and exponent <= 0):
            raise _Unreadable
        if len(base) == 1:
            result = self.monomial(base, n)
        else:
            result = _constant(Fraction(1))
            for _ in range(n):
                result = self.times(result, base)
        return self.inverse(result) if exponent < 0 else result

    def monomial(self, base, n):
        ((imaginary, radicand, factors), value), = base.items()
        sign = -1 if imaginary and n % 4 >= 2 else 1
        term = imaginary * (n % 2), radicand if n % 2 else 1, tuple((name, e * n) for name, e in factors if n)
        if n * radicand.bit_length() > MAX_BITS:
            raise _Unreadable
        return {term: sign * value**n * radicand ** (n // 2)}

    def root(self, base, degree):
        value = _rational(base)
        if degree == 2 and value is not None and value.numerator.bit_length() + value.denominator.bit_length() < 31:
            return _square_root(value)
        if degree and value is not None and value >= 0:
            top, bottom = _whole_root(value.numerator, degree), _whole_root(value.denominator, degree)
            if top is not None and bottom is not None:
                return _constant(Fraction(top, bottom))
        return self.opaque(("root", degree), base)

    def opaque(self, kind, base):
        self.exact = False
        return {(0, 1, ((f"{kind}{sorted(base.items(), key=repr)}", 1),)): Fraction(1)}


def _tokens(text):
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if not match:
            raise _Unreadable
        token = match.group(1)
        tokens.append(_CHARS.get(token, token))
        at = match.end()
    if not tokens:
        raise _Unreadable
    return tokens


def _term_product(a, b):
    """(term, rational factor) of a product of two terms."""
    common = math.gcd(a[1], b[1])
    factors = a[2] or b[2]
    if a[2] and b[2]:
        merged = dict(a[2])
        for name, exponent in b[2]:
            merged[name] = merged.get(name, 0) + exponent
        factors = tuple(sorted((name, exponent) for name, exponent in merged.items() if exponent))
    return (a[0] ^ b[0], a[1] * b[1] // common**2, factors), -common if a[0] and b[0] else common


def _add(a, b):
    total = dict(a)
    for term, value in b.items():
        total[term] = total.get(term, 0) + value
    return {term: value for term, value in total.items() if value}


def _scale(a, sign):
    return a if sign == 1 else {term: -value for term, value in a.items()}


def _constant(value):
    return {_UNIT: value} if value else {}


def _variable(name):
    return {(0, 1, ((name, 1),)): Fraction(1)}


def _rational(terms):
    """The value of a polynomial without roots and variables, else None."""
    if not terms:
        return Fraction(0)
    return terms.get(_UNIT) if len(terms) == 1 else None


def _whole(terms):
    value = _rational(terms)
    if value is None or value.denominator != 1 or not 0 <= value <= 99:
        raise _Unreadable
    return int(value)


def _factorial(terms):
    n = _whole(terms)
    if n > MAX_FACTORIAL:
        raise _Unreadable
    return _constant(Fraction(math.factorial(n)))


def _binomial(top, bottom):
    return _constant(Fraction(math.comb(_whole(top), _whole(bottom))))


def _decimal(token):
    whole, _, part = token.replace(",", "").partition(".")
    return Fraction(int(whole + part), 10 ** len(part))


def _square_root(value):
    """sqrt(p/q) = sqrt(pq)/q, with the squares taken out of pq."""
    n = abs(value.numerator) * value.denominator
    if n > MAX_RADICAND:
        raise _Unreadable
    outside, inside = _squares(n)
    return {(int(value < 0), inside, ()): Fraction(outside, value.denominator)} if n else {}


@functools.lru_cache(maxsize=4096)
def _squares(n):
    """(s, r) with n = s²r and r square-free. After the primes up to the cube root at most two are left."""
    outside, inside, d = 1, 1, 2
    while d * d * d <= n:
        power = 0
        while n % d == 0:
            n, power = n // d, power + 1
        outside, inside = outside * d ** (power // 2), inside * d ** (power % 2)
        d += 1
    # a factor above the cube root of what is left may still be a small prime: test for a square, and n = p·q, p ≠ q
    root = math.isqrt(n)
    return (outside * root, inside) if root * root == n else (outside, inside * n)


def _whole_root(n, degree):
    root = round(n ** (1 / degree)) if n < 2**52 else 0
    return root if root**degree == n else None
