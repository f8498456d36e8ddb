"""English sentences and capital words, counted as IFEval's reference counts them (nltk's punkt and word tokenizer).

The rules are those of Kiss and Strunk (2006, "Unsupervised Multilingual Sentence Boundary Detection"): every . ? !
before white space or closing punctuation ends a sentence, whatever follows, except a full stop after an abbreviation,
an initial, a number before a small letter, or an ellipsis. What that method learns from a corpus is here a few short
lists of words, so the counts agree nearly always, not always. Known quirks that are kept: "1. The" is two sentences,
"e.g." and "No." end one, and asterisks after the last full stop are a sentence of their own.
"""

from __future__ import annotations

import re

_ABBREVIATIONS = set(
    "adm col dr gen lt maj messrs mr mrs ms prof rep reps sen sr jr st ph.d m.b.a "  # people
    "bros chg cie co corp cos inc ltd conn ill tenn "
    "jan feb aug sep sept oct nov dec tues fri yr a.m p.m a.d c.v vs ok ave ft mg ct "
    "ala ariz calif colo fla ga kan ky mich minn nev okla ore pa va vt wash wis w.va "
    "d.c l.a n.c n.d n.h n.j n.m n.v n.y s.c u.k u.n u.s u.s.a u.s.s.r "
    "d.h j.b j.c j.j j.k j.p j.r m.j r.j s.a s.g s.s w.w".split()  # the commoner pairs of initials
) | set("cdefghklmnprstvw")  # any other single letter ends a sentence unless a name follows

# Written with a small letter inside a sentence, with a capital first: with a capital they open a sentence.
_STARTERS = set(
    "most he since so both these it nevertheless this indeed however instead under similarly some though while when in "
    "despite although nonetheless thus there if the separately moreover but they yet many according among meanwhile "
    "even i absolutely adding allow always anyway artificial ask assuming being build calculate certainly check choose "
    "combine consider convert create creating currently define depending determine develop does encourage enjoy ensure "
    "enter evaluate example examples explore final finally following furthermore given hence her here humans implement "
    "important include increased learn list note number okay otherwise overall person please practice provide question "
    "regular remember remove replace right select serve sometimes sorry specifically step taking text therefore "
    "through throughout together true try type typically ultimately understand unfortunately unlike useful using "
    "whether which without working writing yes your".split()
)
# Written with a capital inside a sentence too: after an initial they open one, after an abbreviation they need not.
_AMBIGUOUS = set(
    "a add after all also an and another are as at be because before based by can could did do during each first for "
    "from get good great have his how is its just keep let like make maybe my new next no not now of on once one or "
    "other our over people she sure take that then their to use we well what who why with would you".split()
)
# After a number these do not open a sentence: headings of the newspaper that the reference's model was trained on.
_AFTER_NUMBER = {"business", "credit", "corrections", "financing", "international", "letters", "review", "who"}

_CLOSING = "\"')\\]}‘’“”«»"
_APART = rf"[;*:@({{\[?!{_CLOSING}]"  # what is never part of a word
_END = re.compile(rf"[.?!](?={_APART}|\s+(?P<next>\S+))")
_CLOSED = re.compile(rf"[{_CLOSING}]+?(?:\s+|(?=--)|$)", re.M)
_TOKEN = re.compile(
    rf"\.{{2,}}|-{{2,}}|(?:\.\s){{2,}}\.|(?=[^(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{_APART}|-{{2}}|\.{{2}}|(?:\.\s){{2}}"
    rf"\.|,(?:$|\s|{_APART}|-{{2}}|\.{{2}}))|\S"
)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.?")


def count(text):
    """The number of sentences of `text`."""
    return len(split(text))


def split(text):
    """The sentences of `text` in order, none empty; closing quotes and brackets belong to the sentence before them."""
    found, start = [], 0
    for opening, stop in _openings(text):
        closed = _CLOSED.match(text, opening, stop)
        cut = closed.end() if closed else opening
        found.append(text[start:cut].strip())
        start = cut
    return [sentence for sentence in (*found, text[start:].strip()) if sentence]


def _openings(text):
    """[(start of a sentence, its end without what closes it)] of all but the first one."""
    found = list(_candidates(text))
    starts = [end.start("next") if end["next"] else end.end() for end in found]
    return zip(starts, [*(end.end() for end in found[1:]), len(text.rstrip())])


def _candidates(text):
    """The matches of _END that end a sentence; of those in one run without white space only the last is asked."""
    last, run = None, 0
    for end in _END.finditer(text):
        since = last.start() if last else 0
        space = max(text.rfind(white, since, end.start()) for white in " \n\t\r\v\f")
        if space > since and last and _ends(text, run, last):
            yield last
        last, run = end, space + 1 if space > since else run
    if last and _ends(text, run, last):
        yield last


def _ends(text, run, end):
    word = text[run : end.start()]
    if end[0] != "." or (len(word) > 1 and word.isalpha() and word.lower() not in _ABBREVIATIONS):
        return True
    tokens = _TOKEN.findall(f"{word}.{end['next'] and ' ' + end['next'] or text[end.end()]}")
    item = len(word) == 1 and not text[max(0, run - 9, text.rfind("\n", max(0, run - 9), run) + 1) : run].strip()
    return any(_divides(*pair, item) for pair in zip(tokens, tokens[1:]))


def _divides(token, following, item):
    """Whether a sentence ends with `token`, a word with its full stop or one mark, before the token `following`.

    `item`: a single letter that begins a line, as in a list of choices: no initial of a name.
    """
    if token in (".", "?", "!") or token[-1] != ".":
        return token in (".", "?", "!")
    stem, first, after = token[:-1].lower(), following[0], following.lower().rstrip(".")
    short = len(stem) > 1 and not _ABBREVIATIONS.isdisjoint((stem, stem.rpartition("-")[2]))
    if short or token.startswith(".."):
        return first.isupper() and after in _STARTERS
    if _NUMBER.fullmatch(token):
        return not (first.islower() or following in ";:,.!?" or after in _AFTER_NUMBER)
    if len(stem) == 1 and stem.isalpha():
        known = item or after in _STARTERS or after in _AMBIGUOUS
        opens = known if first.isupper() else not (first.islower() or following in ";:,.!?")
        return stem not in _ABBREVIATIONS and opens
    return True


# A word as a tokenizer of English cuts it: hyphens, inner full stops and numbers stay whole.
_PIECE = re.compile(r"(?:[^\s;@#$%&?!*\[\](){}<>\"“”‘’«»„`\u2012-\u2015:,.-]|[:,](?=\d)|\.(?!\.)|-(?!-))+")
_CLITIC = re.compile(r"(?<=[^'])(?=(?:'[SsMmDd]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)\.?$)")
_CONTRACTED = re.compile(r"\b(?:CAN(?=NOT\b)|GIM(?=ME\b)|GON(?=NA\b)|GOT(?=TA\b)|LEM(?=ME\b)|WAN(?=NA\b))")


def capital_words(text):
    """The number of words all in capitals: "I" is one, "DON'T" (DO, N'T) and "CANNOT" (CAN, NOT) are two each."""
    pieces = _PIECE.findall(_CONTRACTED.sub(r"\g<0> ", text))
    return sum(part.isupper() for piece in pieces if not piece.islower() for part in _CLITIC.split(piece))
