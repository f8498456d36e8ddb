"""Words of a text in any script, and what makes two texts the same.

A word is a run of letters, digits and combining marks, in NFC and lower case. In scripts that write no spaces every
character is a word, so that n-grams of words are n-grams of characters there.
"""

import functools
import re
import unicodedata

WORD = re.compile(r"[a-z0-9]+")
# In a short prompt an operator is the question: "47+38" and "47-38" have the same words. A minus stands before a digit.
OPERATORS = "+*/^=<>%×÷−"
MINUS = re.compile(r"-(?=\s*\d)")
# White space and punctuation beyond ASCII, without other forms of the operators, as of full width. What is missing here
# only keeps two prompts apart. As in a set of a regular expression.
BETWEEN = (
    "\x80-\xa1\xa7\xab\xad\xb4\xb6-\xb8\xbb\xbf\u037e\u0387\u055a-\u055f\u0589\u058a\u05be"
    "\u05c0\u05c3\u05c6\u05f3\u05f4\u060c\u060d\u061b-\u061f\u066b-\u066d\u06d4\u0964\u0965\u0970\u0e5a\u0e5b\u0f04-\u0f14"
    "\u104a-\u104f\u10fb\u1360-\u1368\u1680\u17d4-\u17d6\u17d8-\u17da\u1800-\u180a\u2000-\u202f\u2032-\u2043\u2045-\u2051"
    "\u2053-\u206f\u207d\u207e\u2308-\u230b\u2329\u232a\u27e6-\u27eb\u2983-\u2998"
    "\u2e00-\u2e2e\u2e30-\u2e7f\u3000-\u3004\u3008-\u3020\u3030\u303d\u30a0\u30fb"
    "\ufe10-\ufe1f\ufe30-\ufe60\ufe67-\ufe69\ufe6b\ufeff\uff01-\uff04\uff07-\uff09\uff0c\uff0e"
    "\uff1a\uff1b\uff1f\uff20\uff3b-\uff3d\uff3f\uff40\uff5b-\uff65")
_SPACES = re.compile(b"  +")
_SPACED = [(sign, f" {sign} ") for sign in OPERATORS]
_TERMS = bytes(c if chr(c).isalnum() or chr(c) in OPERATORS else 32 for c in range(128)) + bytes(range(128, 256))
# The same for ASCII texts without operators: letters in lower case. And all bytes but those of operators and minus.
_PLAIN = bytes(ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else 32 for c in range(256))
_NO_SIGNS = bytes(c for c in range(256) if chr(c) not in "+*/^=<>%-")
# The same with operators, a place for every other byte, and turns that end in a byte that UTF-8 has not.
_PLACES = bytes(128 if 128 <= c < 255 else c if c == 255 or chr(c) in OPERATORS else _PLAIN[c] for c in range(256))
_MINUS = re.compile(rb"-[^0-9A-Za-z-]*[0-9]")
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W_]")
# For the letters and digits alone: lower case, and what is none of them.
_SMALL = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))
_ASCII = bytes(range(128))
_ASCII_OR_END = _ASCII + b"\xff"
_NO_ALNUM = bytes(c for c in range(128) if not chr(c).isalnum())
_NO_LETTERS = _NO_ALNUM + bytes(range(128, 256))
_LETTERS = re.compile(r"[^\W_]+")
FEW_SIGNS = 24  # bytes beyond ASCII that are worth a look for letters, punctuation most likely
# Upper case to lower case, what is between words to 0, UTF-8 left alone.
_LOWER = bytes(c + 32 if 65 <= c <= 90 else c if chr(c).isalnum() or c > 127 else 0 for c in range(256))

# Thai, Lao, Myanmar, Khmer, Tai and Balinese scripts, kana, Bopomofo, Han, Yi, Javanese, Tangut, Nushu.
SPACELESS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F),
             (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48F),
             (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x16FE0, 0x1B2FF))
PLANE = 0x10000
PLANES = 2 * PLANE  # code points with an entry in a table; behind are Han characters, and from BEHIND on no letters
BEHIND = 0x40000
# Letters whose lower case has another length in UTF-8.
RESIZED = ("\u0130\u023a\u023e\u1e9e\u2126\u212a\u212b\u2c62\u2c64\u2c6d\u2c6e\u2c6f\u2c70\u2c7e\u2c7f"
           "\ua78d\ua7aa\ua7ab\ua7ac\ua7ad\ua7ae\ua7b0\ua7b1\ua7b2\ua7c5")
_RESIZED = re.compile(f"[{RESIZED}]")
# First bytes in UTF-8 of the characters of scripts that write no spaces, and all other bytes.
_SPACELESS_LEADS = {lead for first, last in (*SPACELESS, (PLANES, BEHIND - 1))
                    for lead in range(chr(first).encode()[0], chr(last).encode()[0] + 1)}
_NO_LEADS = bytes(set(range(256)) - _SPACELESS_LEADS)
ALONE, RESIZES, CODE = 1 << 30, 1 << 29, (1 << 29) - 1  # flags: a word by itself; a letter of RESIZED


def words(text: str) -> list[str]:
    """The words of a text."""
    if text.isascii():
        return WORD.findall(text.lower())
    buffer, starts, lengths, _ = split([text])
    data = buffer.tobytes()
    return [data[start:start + length].decode() for start, length in zip(starts.tolist(), lengths.tolist())]


def fold(text: str) -> str:
    """NFC and lower case, with one lower-case form of a letter wherever it stands."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text).replace("İ", "i").lower().replace("ς", "σ")


def prompt_key(turns: list[str]) -> tuple[str, ...]:
    """Equal for texts that differ in case, spacing and punctuation only; operators and symbols count. One string a turn."""
    return tuple(terms(turn) or turn.strip() for turn in turns)


def quick_key(turns: list[str]) -> tuple | None:
    """Texts that share it share their `prompt_key`, but not all that share that do; None where it says nothing. Sooner made.

    Only ASCII is looked at: the rest is in lower case, which needs NFC, and every byte of it has its place, which letters of
    RESIZED have not. They, a minus before a digit, and a turn without a letter or digit are left to `prompt_key`.
    """
    beyond = [turn for turn in turns if not turn.isascii()]
    if not all(map(_LETTER.search, turns)) or not all([unicodedata.is_normalized("NFC", turn) for turn in beyond]):
        return None
    data = b" \xff ".join([turn.encode("utf-8", "replace") for turn in turns])
    other = data.translate(None, _ASCII_OR_END).decode() if beyond else ""
    if _RESIZED.search(other) or b"-" in data and (_MINUS.search(data) or _DIGIT.search(other)):
        return None
    return _narrow(data.translate(_PLACES)), other.lower()


def terms(text: str) -> str:
    """Its words, operators and symbols in lower case with a space between, but none beside a character of a script without."""
    data = text.encode("utf-8", "replace")
    signs = data.translate(None, _NO_SIGNS)
    if text.isascii() and not signs.strip(b"-") and not (signs and MINUS.search(text)):
        return _narrow(data.translate(_PLAIN)).decode()
    text = fold(text)
    if b"-" in signs:
        text = MINUS.sub("−", text)
    for sign, spaced in _SPACED:
        if sign in text:
            text = text.replace(sign, spaced)
    data = text.encode("utf-8", "replace")
    if data.isascii():
        return _narrow(data.translate(_TERMS)).decode()
    for lead in _between():
        if lead in data:
            data = _signs(lead).sub(b" ", data)
    text = _narrow(data.translate(_TERMS)).decode()
    if text.isascii() or _SPACELESS_LEADS.isdisjoint(data.translate(None, _NO_LEADS)):
        return text
    before, behind = _spaceless()
    return behind.sub("", before.sub("", text))


def letters(text: str) -> bytes:
    """All its letters and digits in lower case, in UTF-8: the same for texts of the same `terms`, and sooner made."""
    if text.isascii():
        return text.encode().translate(_SMALL, _NO_LETTERS)
    data = text.encode("utf-8", "replace")
    other = data.translate(None, _ASCII)
    if len(other) <= FEW_SIGNS and _no_letters(other):
        return data.translate(_SMALL, _NO_LETTERS)
    text = fold(text)
    data = text.encode("utf-8", "replace")
    if data.translate(None, _ASCII).decode().isalnum():
        return data.translate(None, _NO_ALNUM)
    return "".join(_LETTERS.findall(text)).encode()


@functools.lru_cache(10_000)
def _no_letters(data):
    """Whether characters in UTF-8 are neither letters or digits nor marks, which may make other letters of ASCII ones."""
    return not any(char.isalnum() or unicodedata.category(char)[0] == "M" for char in data.decode())


def _narrow(data):
    """One space for each run of them, none at the ends."""
    return _SPACES.sub(b" ", data).strip(b" ")


@functools.cache
def _between():
    """The characters of BETWEEN in UTF-8, by the first byte: most texts have few of them, and a byte is soon found."""
    leads = {}
    for first, last in re.findall("(.)(?:-(.))?", BETWEEN):
        for char in map(chr, range(ord(first), ord(last or first) + 1)):
            data = char.encode()
            leads.setdefault(data[:1], {}).setdefault(data[1:-1], []).append(data[-1:])
    return leads


@functools.cache
def _signs(lead):
    """One of the characters of BETWEEN that begin with this byte."""
    return re.compile(lead + b"(?:" + b"|".join(
        re.escape(middle) + b"[" + re.escape(b"".join(last)) + b"]" for middle, last in _between()[lead].items()) + b")")


@functools.cache
def _spaceless():
    """A space before, and one behind, a character of the scripts that write none."""
    some = "".join(f"{chr(first)}-{chr(last)}" for first, last in (*SPACELESS, (PLANES, BEHIND - 1)))
    return re.compile(f" (?=[{some}])"), re.compile(f" (?<=[{some}] )")


def split(texts: list[str]):
    """(bytes, where words start in them, their lengths in bytes, which word is the first of each text (N + 1,)).

    Vectorised over the bytes of all texts, in UTF-8; 8 bytes follow on the last word.
    """
    import numpy as np

    plain = all(map(str.isascii, texts))
    if plain:
        data, joined = texts, "\n".join(["", *texts, " " * 8]).encode()
    else:
        texts = [text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts]
        data = [text.encode("utf-8", "replace") for text in texts]
        joined = b"\n".join([b"", *data, b" " * 8])
    behind = np.cumsum([0, *map(len, data)]) + np.arange(len(data) + 1)
    joined = joined.translate(_LOWER)
    buffer, cuts = np.frombuffer(joined, np.uint8), None
    if not plain:
        buffer, cuts, resized = _folded(bytearray(joined))
        if len(resized):
            odd = set((np.searchsorted(behind, resized) - 1).tolist())
            return split([_of_one_size(text) if i in odd else text for i, text in enumerate(texts)])
    inside = buffer != 0
    borders = inside[1:] != inside[:-1]
    if cuts is None:
        edges = np.flatnonzero(borders)
        starts, ends = edges[0::2], edges[1::2]
    else:
        borders |= cuts[1:]
        starts, ends = np.flatnonzero(borders & inside[1:]), np.flatnonzero(borders & inside[:-1])
    return buffer, starts + 1, ends - starts, np.searchsorted(starts, behind)


def _of_one_size(text):
    """The text without letters that have another length in lower case."""
    for letter in RESIZED:
        if letter in text:
            text = text.replace(letter, fold(letter))
    return text


def _folded(data):
    """The bytes with what is not ASCII folded in place; where words are cut that follow on each other, or None; and where
    letters are whose lower case has another length."""
    import numpy as np

    buffer = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(buffer >= 0xC0)
    codes, lengths = _decoded(buffer, at)
    entries = _looked_up(codes)
    lower = entries & CODE
    gone = np.flatnonzero(lower == 32)
    other = np.flatnonzero((lower != codes) & (lower != 32))
    other = other[_length(lower[other]) == lengths[other]]
    for i in range(lengths.max(initial=0)):
        buffer[at[gone[lengths[gone] > i]] + i] = 0
        some = other[lengths[other] > i]
        buffer[at[some] + i] = _encoded(lower[some], lengths[some], i)
    alone, cuts = (entries & ALONE) != 0, None
    if alone.any():
        cuts = np.zeros(len(buffer), bool)
        cuts[at[alone]] = cuts[at[alone] + lengths[alone]] = True
    return buffer, cuts, at[(entries & RESIZES) != 0]


def _decoded(buffer, at):
    """Code points of the UTF-8 sequences at these places, and their lengths."""
    import numpy as np

    four = np.ndarray((len(buffer) - 3,), "<u4", buffer, strides=(1,))[at]
    lengths = np.full(len(at), 2, np.uint8)
    codes = (four & 0x1F) << 6 | four >> 8 & 0x3F
    longer = np.flatnonzero(four & 0x20)
    if len(longer):
        four = four[longer]
        lengths[longer] = 3
        codes[longer] = (four & 0x0F) << 12 | four >> 2 & 0xFC0 | four >> 16 & 0x3F
        longest = np.flatnonzero(four & 0x10)
        if len(longest):
            four, longest = four[longest], longer[longest]
            lengths[longest] = 4
            codes[longest] = (four & 0x07) << 18 | (four & 0x3F00) << 4 | four >> 10 & 0xFC0 | four >> 24 & 0x3F
    return codes, lengths


def _encoded(codes, lengths, i):
    """Byte `i` of the UTF-8 sequences of code points that are `lengths` bytes long."""
    import numpy as np

    bits = codes >> 6 * (lengths.astype(np.uint32) - 1 - i)
    return (bits & 0x3F | 0x80 if i else bits | np.where(lengths == 2, 0xC0, np.where(lengths == 3, 0xE0, 0xF0))).astype(np.uint8)


def _looked_up(codes):
    import numpy as np

    most = codes.max(initial=0)
    table = _table(PLANE if most < PLANE else PLANES)
    if most < PLANES:
        return table[codes]
    return np.where(codes < PLANES, table[np.minimum(codes, PLANES - 1)], np.where(codes < BEHIND, codes | ALONE, 32))


@functools.cache
def _table(size):
    """For the first code points their lower case, or 32 where they separate words, and their flags."""
    import numpy as np

    every = np.arange(size, dtype="<u4")
    text = every.tobytes().decode("utf-32-le", "surrogatepass")
    lower = np.frombuffer(text.replace("İ", "i").lower().replace("ς", "σ").encode("utf-32-le", "surrogatepass"), "<u4")
    letter = np.ones(size, bool)
    for run in re.finditer(r"[\W_]+", text):
        letter[run.start():run.end()] = [category[0] == "M" for category in map(unicodedata.category, run.group())]
    table = np.where(letter, lower, np.uint32(32))
    for first, last in SPACELESS:
        table[first:last + 1] |= np.where(letter[first:last + 1], np.uint32(ALONE), np.uint32(0))
    table[list(map(ord, RESIZED))] |= RESIZES
    return table


def _length(codes):
    """Bytes of UTF-8."""
    return 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
