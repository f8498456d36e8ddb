"""What the second set of instructions is made of: readers of arguments, sentences, words and a few closed lists.

Two kinds of sentences are needed, because the references use two. `sentences` is the rule list of their sentence
constraints: every . ? ! ends a sentence, wherever it stands, except behind titles, initials, in acronyms, numbers and
web addresses. `tokens` cuts words as the Penn treebank tokenizer of nltk does, in sentences found as punkt finds them.
Everything is linear in the text.
"""

from __future__ import annotations

import math
import re
import string

from pt_tools.rewards import sentences as english
from pt_tools.rewards.instructions import count, text

# ---------------------------------------------------------------- arguments


def positive(value):
    """A whole number of at least 1: the references draw a 0 at random, as if it were missing."""
    if count(value) == 0:
        raise ValueError("must be at least 1")
    return count(value)


def number(value):
    """A finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("is missing" if value is None else f"must be a number of at least 0, not {value!r}")
    return value


def keyword(value):
    """A word or phrase without the white space around it; of a list the first, as published rows have it."""
    return text(value[0] if isinstance(value, list) and value else value).strip()


# ---------------------------------------------------------------- words

EDGES = string.punctuation + " "
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def bare(response):
    """The text without ASCII punctuation."""
    return response.translate(_NO_PUNCTUATION)


def words(response):
    """The words in small letters, without ASCII punctuation; what is punctuation only is no word."""
    return bare(response.lower()).split()


def occurrences(wanted, response, flags=re.IGNORECASE):
    """How often a phrase occurs, anywhere, without overlap."""
    return sum(1 for _ in re.finditer(re.escape(wanted), response, flags))


# ---------------------------------------------------------------- sentences by rules

_DOT, _STOP = "\x00", "\x01"  # a full stop that ends nothing; the end of a sentence
_STARTERS = (
    r"(Mrs?|Ms|Dr|Prof|Capt|Cpt|Lt|He\s|She\s|It\s|They\s|Their\s|Our\s|We\s|But\s|However\s|That\s|This\s|Wherever)"
)
# In this order: a full stop that one rule has marked is none for the next.
_RULES = [
    (re.compile(pattern), change)
    for pattern, change in [
        (r"(Mrs?|St|Ms|Dr)\.", rf"\1{_DOT}"),
        (r"\.(com|net|org|io|gov|edu|me)", rf"{_DOT}\1"),
        (r"([0-9])\.([0-9])", rf"\1{_DOT}\2"),
        (r"\.{2,}", lambda dots: _DOT * len(dots[0]) + _STOP),
        (r"Ph\.D\.", f"Ph{_DOT}D{_DOT}"),
        (r"\s([A-Za-z])\. ", rf" \1{_DOT} "),
        (rf"([A-Z]\.[A-Z]\.(?:[A-Z]\.)?) {_STARTERS}", rf"\1{_STOP} \2"),
        (r"([A-Za-z])\.([A-Za-z])\.([A-Za-z])\.", rf"\1{_DOT}\2{_DOT}\3{_DOT}"),
        (r"([A-Za-z])\.([A-Za-z])\.", rf"\1{_DOT}\2{_DOT}"),
        (rf" (Inc|Ltd|Jr|Sr|Co)\. {_STARTERS}", rf" \1{_STOP} \2"),
        (r" (Inc|Ltd|Jr|Sr|Co)\.", rf" \1{_DOT}"),
        (r" ([A-Za-z])\.", rf" \1{_DOT}"),
    ]
]
_QUOTED_ENDS = [(".”", "”."), ('."', '".'), ('!"', '"!'), ('?"', '"?')]  # the mark goes behind the quotation


def sentences(response):
    """The sentences by the references' rules, without the white space around them; the last is never empty."""
    body = " " + response.replace(_DOT, "").replace(_STOP, "").replace("\n", " ") + "  "
    for pattern, change in _RULES:
        body = pattern.sub(change, body)
    for mark, moved in _QUOTED_ENDS:
        body = body.replace(mark, moved)
    found = [part.strip() for part in re.sub(r"([.?!])", rf"\1{_STOP}", body).replace(_DOT, ".").split(_STOP)]
    return found if found[-1] else found[:-1]


# ---------------------------------------------------------------- tokens of the Penn treebank

_OPENING = " ([{<`«“‘„"
_CLOSERS = "])}>\"'»”’ \t\r\n"
_TOKEN = re.compile(
    r"""\.{2,} | -- | '' | ``? | ["«»“”‘’„\[\](){}<>;@\#$%&?!*‒–—―] | (?<![:,])[:,](?!\d)
      | (?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)
      | (?: [^\s"«»“”‘’„\[\](){}<>;@\#$%&?!*‒–—―:,.'`-] | [:,](?=\d) | (?<=[:,])[:,] | \.(?!\.) | -(?!-)
          | '(?!') )+""",
    re.X | re.I,
)
_CLITIC = re.compile(r"(?<=[^' ])('[sSmMdD]|'|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)$")
_CONTRACTED = re.compile(
    r"(?i)\b(can)(not)\b|\b(d)('ye)\b|\b(gim)(me)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(lem)(me)\b|\b(wan)(na)$"
)


def tokens(response):
    """The words and marks of a text: a clitic is a word ("Do n't"), quotation marks are `` and '', and the full stop
    at the end of a sentence stands alone."""
    return [token for sentence in english.split(response) for token in _treebank(sentence)]


def _treebank(sentence):
    end = len(sentence.rstrip(_CLOSERS))
    if end > 1 and sentence[end - 1] == "." != sentence[end - 2]:
        return [*_cut(sentence, 0, end - 1), ".", *_cut(sentence, end, len(sentence))]
    return _cut(sentence, 0, len(sentence))


def _cut(sentence, start, end):
    found = []
    for match in _TOKEN.finditer(sentence, start, end):
        token = match[0]
        if token in ('"', "''"):
            opens = not match.start() or sentence[match.start() - 1] in _OPENING
            found.append("``" if opens else "''")
        else:
            found += _split_word(token)
    return found


def _split_word(token):
    """A word without its clitic and the clitic; contractions such as "cannot" in two."""
    clitic = _CLITIC.search(token)
    stem = token[: clitic.start()] if clitic else token
    stems = _CONTRACTED.sub(lambda pair: " ".join(filter(None, pair.groups())), stem).split()
    return [*stems, clitic[0]] if clitic else stems
