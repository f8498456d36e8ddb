"""Words of a text in any script, and what makes two texts the same.

A word is a run of letters, digits and combining marks, in NFC and lower case. In scripts that write no spaces every
character is a word, so that n-grams of words are n-grams of characters there.
"""

import functools
import re
import unicodedata

WORD = re.compile(r"[a-z0-9]+")
# In a short prompt an operator is the question: "47+38" and "47-38" have the same words. A minus stands before a digit.
OPERATORS = b"+*/^=<>%"
MINUS = re.compile(r"-(?=\s*\d)")
_SPACED = [(bytes([c]), bytes([32, c, 32])) for c in OPERATORS]
_TERMS = bytes(c if chr(c).isalnum() or c > 127 or c in OPERATORS else 32 for c in range(256))
# Upper case to lower case, what is between words to 0, UTF-8 left alone.
_LOWER = bytes(c + 32 if 65 <= c <= 90 else c if chr(c).isalnum() or c > 127 else 0 for c in range(256))
_LOWER_OR_OPERATOR = bytes(c if c in OPERATORS else _LOWER[c] for c in range(256))

# Thai, Lao, Myanmar, Khmer, Tai and Balinese scripts, kana, Bopomofo, Han, Yi, Javanese, Tangut, Nushu.
SPACELESS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F),
             (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48F),
             (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x16FE0, 0x1B2FF))
PLANES = 0x20000  # code points with an entry in a table; behind are Han characters, and from BEHIND on no letters
BEHIND = 0x40000
ALONE, RESIZED, CODE = 1 << 30, 1 << 29, (1 << 29) - 1  # flags: a word by itself; other length in lower case


def words(text: str) -> list[str]:
    """The words of a text."""
    if text.isascii():
        return WORD.findall(text.lower())
    return _strings([text], False)


def prompt_key(turns: list[str]) -> tuple[str, ...]:
    """Equal for texts that differ in case, spacing and punctuation only; operators and symbols count. One string a turn."""
    return tuple(_terms(turn) or turn.strip() for turn in turns)


def _terms(text):
    if not text.isascii():
        return " ".join(_strings([MINUS.sub("−", text)], True))
    data = text.lower().encode()
    for sign, spaced in _SPACED:
        if sign in data:
            data = data.replace(sign, spaced)
    if b"-" in data:
        data = MINUS.sub(" − ", data.decode()).encode()
    return b" ".join(data.translate(_TERMS).split()).decode()


def _strings(texts, symbols):
    buffer, starts, lengths, _ = split(texts, symbols)
    data = buffer.tobytes()
    return [data[start:start + length].decode() for start, length in zip(starts.tolist(), lengths.tolist())]


def split(texts: list[str], symbols: bool = False):
    """(bytes, where words start in them, their lengths in bytes, which word is the first of each text (N + 1,)).

    Vectorised over the bytes of all texts, in UTF-8; 8 bytes follow on the last word. With `symbols` these (operators,
    currencies, emoji) are words too.
    """
    return _split([text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts], symbols)


def _split(texts, symbols):
    import numpy as np

    data = [text.encode("utf-8", "replace") for text in texts]
    joined = b"\n".join([b"", *data, b" " * 8]).translate(_LOWER_OR_OPERATOR if symbols else _LOWER)
    buffer, cuts = np.frombuffer(joined, np.uint8), None
    if symbols or not joined.isascii():
        buffer, cuts = _folded(bytearray(joined), symbols)
        if buffer is None:
            return _split([text.replace("İ", "i").lower() for text in texts], symbols)
    inside = buffer != 0
    if cuts is None:
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        starts, ends = edges[0::2], edges[1::2]
    else:
        starts = np.flatnonzero(inside[1:] & (~inside[:-1] | cuts[1:])) + 1
        ends = np.flatnonzero(inside[:-1] & (~inside[1:] | cuts[1:])) + 1
    behind = np.cumsum([0, *(len(one) + 1 for one in data)])
    return buffer, starts, ends - starts, np.searchsorted(starts, behind)


def _folded(data, symbols):
    """(the bytes with what is not ASCII folded in place, where words are cut that follow on each other, or None).

    (None, None) if a letter has another length in lower case.
    """
    import numpy as np

    buffer = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(buffer >= 0xC0)
    codes, lengths = _decoded(buffer, at)
    entries = _looked_up(codes, _tables()[symbols])
    if (entries & RESIZED).any():
        return None, None
    lower = entries & CODE
    gone = lower == 32
    for i in range(4):
        buffer[at[gone & (lengths > i)] + i] = 0
    other = np.flatnonzero((lower != codes) & ~gone)
    for i in range(4):
        some = other[lengths[other] > i]
        buffer[at[some] + i] = _encoded(lower[some], lengths[some], i)
    alone, cuts = entries >= ALONE, None
    if alone.any() or symbols:
        cuts = np.zeros(len(buffer), bool)
        cuts[at[alone]] = cuts[at[alone] + lengths[alone]] = True
        if symbols:
            signs = np.flatnonzero(np.isin(buffer, np.frombuffer(OPERATORS, np.uint8)))
            cuts[signs] = cuts[signs + 1] = True
    return buffer, cuts


def _decoded(buffer, at):
    """Code points of the UTF-8 sequences at these places, and their lengths."""
    import numpy as np

    four = np.ndarray((len(buffer) - 3,), "<u4", buffer, strides=(1,))[at]
    first, second, third, fourth = four & 0xFF, four >> 8 & 0x3F, four >> 16 & 0x3F, four >> 24 & 0x3F
    lengths = 2 + (first >= 0xE0) + (first >= 0xF0)
    codes = (first & 0x1F) << 6 | second
    codes = np.where(lengths == 3, (first & 0x0F) << 12 | second << 6 | third, codes)
    return np.where(lengths == 4, (first & 0x07) << 18 | second << 12 | third << 6 | fourth, codes), lengths


def _encoded(codes, lengths, i):
    """Byte `i` of the UTF-8 sequences of code points that are `lengths` bytes long."""
    import numpy as np

    bits = codes >> (6 * (lengths - 1 - i)).astype(np.uint32)
    return (bits & 0x3F | 0x80 if i else bits | np.where(lengths == 2, 0xC0, np.where(lengths == 3, 0xE0, 0xF0))).astype(np.uint8)


def _looked_up(codes, table):
    import numpy as np

    if codes.max(initial=0) < PLANES:
        return table[codes]
    return np.where(codes < PLANES, table[np.minimum(codes, PLANES - 1)], np.where(codes < BEHIND, codes | ALONE, 32))


@functools.cache
def _tables():
    """For every code point its lower case, or 32 where it separates words, and its flags.

    One table for words, one for words and symbols.
    """
    import numpy as np

    every = np.arange(PLANES, dtype="<u4")
    text = every.tobytes().decode("utf-32-le", "surrogatepass")
    lower = np.frombuffer(text.replace("İ", "i").lower().replace("ς", "σ").encode("utf-32-le", "surrogatepass"), "<u4")
    letter = np.zeros(PLANES, bool)
    for run in re.finditer(r"[^\W_]+", text):
        letter[run.start():run.end()] = True
    category = {int(code): unicodedata.category(text[code]) for code in np.flatnonzero(~letter)}
    letter[[code for code, name in category.items() if name[0] == "M"]] = True
    symbol = [code for code, name in category.items() if code > 127 and name in ("Sm", "Sc", "So")]
    words = np.where(letter, lower, np.uint32(32))
    words |= np.where(letter & (_length(lower) != _length(every)), np.uint32(RESIZED), np.uint32(0))
    for first, last in SPACELESS:
        words[first:last + 1] |= np.where(letter[first:last + 1], np.uint32(ALONE), np.uint32(0))
    with_symbols = words.copy()
    with_symbols[symbol] = lower[symbol] | ALONE
    return words, with_symbols


def _length(codes):
    """Bytes of UTF-8."""
    return 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
