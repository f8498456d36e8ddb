r"""Rational numbers as people write them, with units: 1,000 · 0.5 · 3/4 · \frac34 · 1 1/2 · 1.5e3 · 0.\overline{3} · $5 · 36 pencils."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from pt_tools.rewards.spelling import CURRENCY

MAX_EXPONENT = 1000

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_EXPONENT = r"([-+]?[0-9]{1,4})"
_PLAIN = re.compile(rf"([-+]?)({_DECIMAL})(?:[eE]{_EXPONENT}|(?:\*|\\times|\\cdot)10\^\{{?{_EXPONENT}\}}?)?")
_RATIO = re.compile(rf"([-+]?)([-+]?{_DECIMAL})/([-+]?{_DECIMAL})")
_FRAC = re.compile(rf"([-+]?)([0-9]*)\\frac\{{([-+]?{_DECIMAL})\}}\{{([-+]?{_DECIMAL})\}}")
_MIXED = re.compile(r"([-+]?)([0-9]+) +([0-9]+)/([0-9]+)")
_REPEATING = re.compile(r"([-+]?)([0-9]*)\.([0-9]*)\\overline\{([0-9]+)\}")
_TWO_NUMBERS = re.compile(r"[0-9.] +(?:\.|(?![0-9]{3}(?![0-9]))[0-9])")  # "3 4" is not 34; "12 345" is 12345
_WITH_UNIT = re.compile(r"(.*?[0-9A-Za-z})][.]?)(\s+|(?<=[0-9}.)]))(/?\s*[A-Za-z][A-Za-z./ -]*(?:\^\{?[23]\}?)?)")
_WITH_WORDS = re.compile(r"(.*?[0-9A-Za-z})][.]?)(\s+)([A-Za-z][A-Za-z./ -]*(?:\^\{?[23]\}?)?)")
_NOTE = re.compile(r"(.*[0-9A-Za-z}])\s*\(([A-Za-z ]{3,40})\)")
_SCALE = re.compile(r"([-+]?[0-9][0-9,.]*)\s*(thousand|million|billion|trillion)\b(.*)", re.I)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINAL = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_PLACE = re.compile(r"[A-Za-z]+")

# A unit of three letters or less must be one of these, or `2ab` would be 2.
_SHORT_UNITS = frozenset("""m g s h l L cm mm km dm kg mg ml mL dl ft in yd mi lb lbs oz hr hrs min sec ms pm am mph kph km/h m/s
    sq cu day men egg cup pen dog cat car box bag hat toy bus pie row way kid boy cow hen pig ant bee cap can jar tin ton gal
    yr yrs rad Hz kW W J N V A C F K per USD""".split())
# Words after a number that are mathematics, quantities or a second thought, not a unit.
_NOT_UNITS = frozenset("""or and but not to if maybe perhaps possibly than about approximately plus minus times over is are an
    no pi sin cos tan sec csc cot log ln exp sqrt theta alpha beta gamma delta infinity infty mod hundred thousand million
    billion trillion dozen half third quarter one two three four five six seven eight nine ten eleven twelve zero though
    although otherwise either alternatively unless also nearly almost roughly around wait wrong yes thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety negative squared cubed factorial
    frac""".split())
_MEASURES = {name: names.split()[0] for names in (
    "% percent", "mm millimeter millimetre", "cm centimeter centimetre", "m meter metre", "km kilometer kilometre", "in inch inches",
    "ft foot feet", "yd yard", "mi mile", "mg milligram", "g gram", "kg kilogram", "oz ounce", "lb lbs pound", "ton", "ml mL milliliter",
    "l L liter litre", "gal gallon", "s sec second", "min minute", "h hr hrs hour", "day", "week", "month", "yr yrs year",
    "am", "pm", "C celsius", "F fahrenheit", "K kelvin", "N newton", "J joule", "W watt", "kW kilowatt", "Hz hertz", "mph", "kph",
    "cent", "dollar USD", "euro", "rupee", "degree", "rad radian",
) for name in names.split()}  # fmt: skip
_POWERS = {2: ("^2", "^{2}", "square", "sq"), 3: ("^3", "^{3}", "cubic", "cubed")}
_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty""".split()
_WORDS = {word: Fraction(n) for n, word in enumerate(_ONES)}


@functools.lru_cache(maxsize=65536)
def quantity(text):
    """(value, unit) of a normal form; value None if it is not one rational number. A percent sign is the unit "%"."""
    if not text.isascii() or CURRENCY in text:
        text, currency = _without_currency(text)
        value, unit = quantity(text) if text and currency else (rational(text), "")
        return value, f"{currency} {unit}".strip()
    value = rational(text)
    if value is not None:
        return value, ""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()], ""
    if scale := _SCALE.fullmatch(text):
        value, unit = quantity(scale.group(1) + scale.group(3))
        return (None if value is None else value * _SCALES[scale.group(2).lower()]), unit
    number, unit = split_unit(text)
    return (rational(number), unit) if unit else (None, "")


def _without_currency(text):
    for sign, name in ((CURRENCY, "dollars"), ("€", "euros"), ("£", "pounds"), ("₹", "rupees")):
        if sign in text:
            return text.replace(sign, "", 1).replace("- ", "-").strip(), name
    return text, ""


@functools.lru_cache(maxsize=65536)
def split_unit(text):
    """(rest, unit) of a normal form; unit "" if it ends in none."""
    if text.endswith("%"):
        return text[:-1].rstrip(), "%"
    if text.endswith(")") and (note := _NOTE.fullmatch(text)) and _NOT_UNITS.isdisjoint(note.group(2).lower().split()):
        text = note.group(1)  # 18 (eggs)
        return split_unit(text) if split_unit(text)[1] else (text, note.group(2))
    if not text[-1:].isalnum() and text[-1:] not in (".", "}"):
        return text, ""
    for pattern in (_WITH_UNIT, _WITH_WORDS):
        match = pattern.fullmatch(text)
        unit = match.group(3).strip() if match else ""
        if unit.lower() in ("percent", "per cent"):
            return match.group(1), "%"
        if unit and _is_unit(unit, match.group(2) == "" and unit[0] != "/", match.group(1)):
            return match.group(1), unit
    return text, ""


def same_units(a, b):
    """False if both are measures, and different ones: 5 km and 5 miles, 5 cm^2 and 5 cm^3; not 5 pieces and 5 slices, or
    5 and 5 km, or 5 cm and 5 cm^2."""
    return a == b or not a or not b or all(len({part(a), part(b)} - {None}) < 2 for part in (_measure, _power))


def rational(text):
    """Fraction of one written number, None for anything else."""
    if not text or text[-1] not in "0123456789.}htd":
        return None
    if match := _MIXED.fullmatch(text):
        sign, whole, top, bottom = match.groups()
        return _signed(sign, int(whole) + Fraction(int(top), int(bottom))) if int(bottom) else None
    if ", " in text or _TWO_NUMBERS.search(text):
        return None
    text = text.replace(" ", "")
    if match := _PLAIN.fullmatch(text):
        sign, digits, *exponents = match.groups()
        exponent = int(next((e for e in exponents if e), "0"))
        if not exponent:
            return _signed(sign, _decimal(digits))
        return _signed(sign, _decimal(digits) * Fraction(10) ** exponent) if abs(exponent) <= MAX_EXPONENT else None
    if match := _RATIO.fullmatch(text):
        sign, top, bottom = match.groups()
        return _divided(sign, 0, _decimal(top), _decimal(bottom))
    if match := _FRAC.fullmatch(text):
        sign, whole, top, bottom = match.groups()
        return _divided(sign, int(whole or 0), _decimal(top), _decimal(bottom))
    if match := _REPEATING.fullmatch(text):
        sign, whole, fixed, period = match.groups()
        repeated = Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
        return _signed(sign, _decimal(f"{whole or 0}.{fixed}") + repeated)
    match = _ORDINAL.fullmatch(text)
    return Fraction(int(match.group(1))) if match else None


def _is_unit(unit, joined, number):
    words = _PLACE.findall(unit)
    known = [word in _SHORT_UNITS or unit in _SHORT_UNITS for word in words]
    if len(words) > 4 or any(word.lower() in _NOT_UNITS for word in words):
        return False
    if len(words[0]) == 1 and (len(words) == 1 or joined) and number[-1:] not in "0123456789.":
        return False  # `2\sqrt{3} m` may be a product with the variable m
    if joined:
        return known[0]
    return all(short or len(word) > 3 or n for n, (short, word) in enumerate(zip(known, words)))


@functools.lru_cache(maxsize=4096)
def _measure(unit):
    """The first word of a unit that is a measure, under its common name; None if none is. Squares count as their base."""
    words = [word if word in _MEASURES else word.lower() for word in _PLACE.findall(unit)]
    singular = [word if word in _MEASURES else word.removesuffix("s") for word in words]
    return next((_MEASURES[word] for word in [unit, *singular] if word in _MEASURES), None)


def _power(unit):
    """2 or 3 for what is squared or cubed, else None."""
    return next((power for power, words in _POWERS.items() if any(word in unit for word in words)), None)


def _divided(sign, whole, top, bottom):
    return _signed(sign, whole + top / bottom) if bottom else None


def _signed(sign, value):
    return -value if sign == "-" else value


def _decimal(digits):
    whole, _, part = digits.replace(",", "").partition(".")
    if not part:
        return Fraction(int(whole or "0"))
    sign = -1 if whole.startswith("-") else 1
    return Fraction(sign * int((whole.lstrip("+-") + part) or "0"), 10 ** len(part))
