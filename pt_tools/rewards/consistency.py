r"""The `language` verifier: the share of words in the target language.

    {"name": "language", "language": "en"}              optional: "of": "thinking" (default) | "answer" | "all"

DeepSeek-R1's language-consistency reward (arXiv:2501.12948v2): R = words in the target language / words of the chain of
thought. What the paper leaves open is defined here:

- A word is a run of letters of one script. Scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) count
  every letter as a word. A lone Latin or Greek letter is a symbol, not a word.
- Code (fenced and in backticks), LaTeX and addresses have no words; what is never closed is text.
- A word is in the target language if its script is. Languages that share a script (Chinese and Japanese too) are told
  apart sentence by sentence: 8 or more words of the script count only where `language.detect` says that together they
  are the target language; shorter sentences follow the verdict on all of them together.
- No words at all: score 0 with the reason, so that saying nothing earns nothing.

The thinking ends at the last `</think>`; a text without any such tag is its own thinking, and its own answer.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter

from pt_tools.rewards import common, language

MIN_SENTENCE = 8  # words; fewer are no evidence of a language
MARK = 60  # characters of the longest closing mark, \end{…}

_SCRIPTS = {
    "zh": ("HAN",), "ja": ("HAN", "KANA"), "ko": ("HANGUL",), "he": ("HEBREW",), "th": ("THAI",), "el": ("GREEK",),
    "bn": ("BENGALI",), "pa": ("GURMUKHI",), "gu": ("GUJARATI",), "ta": ("TAMIL",), "te": ("TELUGU",),
    "kn": ("KANNADA",), "ml": ("MALAYALAM",), "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "bg": ("CYRILLIC",),
    "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "hi": ("DEVANAGARI",), "mr": ("DEVANAGARI",),
    "ne": ("DEVANAGARI",),
}  # fmt: skip
_LATIN = ("LATIN",)  # every other language that can be detected
_SHARED = {"LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI", "HAN"}  # by several languages
_UNSPACED = {"HAN", "KANA", "THAI", "LAO", "KHMER", "MYANMAR"}
_NAMES = {"CJK": "HAN", "HIRAGANA": "KANA", "KATAKANA": "KANA", "KATAKANA-HIRAGANA": "KANA"}
_JOINERS = "'’\u200c\u200d"  # stand inside a word

# (closing mark, what to drop). Only the text up to the end of the last closing mark is searched: that keeps it linear.
_NO_WORDS = [
    ("```", re.compile(r"```.*?```", re.S)),
    ("`", re.compile(r"`[^`\n]+`")),
    ("\\end{", re.compile(r"\\begin\{.*?\\end\{[^{}\n]{0,50}\}?", re.S)),
    ("$$", re.compile(r"\$\$.*?\$\$", re.S)),
    ("\\]", re.compile(r"\\\[.*?\\\]", re.S)),
    ("\\)", re.compile(r"\\\(.*?\\\)", re.S)),
    ("$", re.compile(r"\$(?![\s$])[^$\n]+(?<!\s)\$(?![0-9])")),  # not the prices of "$5 and $10"
    ("", re.compile(r"\\[A-Za-z]+|https?://\S+|</?[a-z]+>")),
]
_SENTENCE = re.compile(r"(?<=[.!?])\s+|[\n。！？]+")


def check(spec):
    """ValueError(reason) if the language is missing or cannot be told from others."""
    common.only(spec, "language", "of")
    common.choice(spec, "of", ("thinking", "answer", "all"))
    code = spec.get("language")
    if not isinstance(code, str) or code not in _known():
        raise ValueError(f"language must be one of {', '.join(_known())}, not {code!r}")


def grade(spec, completion):
    """(share in [0, 1], {"words": all, "target": those in the language}), or (0.0, {"reason": …})."""
    if len(completion["text"]) > common.MAX_TEXT:
        return 0.0, {"reason": f"longer than {common.MAX_TEXT} characters"}
    target, total = count(common.part(completion["text"], spec.get("of", "thinking")), spec["language"])
    if not total:
        return 0.0, {"reason": "no words"}
    return target / total, {"words": total, "target": target}


def count(text, code):
    """(words in the language `code`, all words) of a text."""
    scripts = _SCRIPTS.get(code, _LATIN)
    family = ("HAN", "KANA") if "HAN" in scripts else scripts
    total, long, short = 0, [], []
    for sentence in _SENTENCE.split(prose(text)):
        words = list(_words(sentence))
        total += len(words)
        words = [word for word in words if word[1] in family]
        long.append(words) if len(words) >= MIN_SENTENCE else short.extend(words)
    told_apart = family[0] in _SHARED
    return sum(_in_language(words, scripts, code, told_apart) for words in (*long, short)), total


def script_words(text):
    """How many words of each script the prose of a text has, as a Counter; Han and kana are one script."""
    return Counter("HAN" if script == "KANA" else script for _, script in _words(prose(text)))


def _in_language(words, scripts, code, told_apart):
    """How many of a sentence's words, all of one family of scripts, count as the language `code`."""
    if told_apart and words and language.detect(" ".join(word for word, _ in words)) != code:
        return 0
    return sum(script in scripts for _, script in words)


def prose(text):
    """`text` without what has no words: code, LaTeX, addresses, tags."""
    for closing, pattern in _NO_WORDS:
        end = text.rfind(closing) + MARK
        text = pattern.sub(" ", text[:end]) + text[end:]
    return text


def _words(text):
    """(word, script) of every word."""
    word, script = "", None
    for char in text + " ":
        here = _script(char)
        if here == "INSIDE" and word:
            word += char
        elif here == script and here not in _UNSPACED and word:
            word += char
        else:
            if word and not (len(word) == 1 and script in ("LATIN", "GREEK")):
                yield word, script
            word, script = ("", None) if here in (None, "INSIDE") else (char, here)


@functools.lru_cache(maxsize=65536)
def _script(char):
    """The script of a letter; INSIDE for what only continues a word (accents, vowel signs); None for the rest."""
    category = unicodedata.category(char)
    if category[0] == "M" or char in _JOINERS:
        return "INSIDE"
    if category[0] != "L":
        return None
    name = unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").split(" ")[0]
    return _NAMES.get(name, name) or None


@functools.lru_cache(maxsize=1)
def _known():
    return tuple(language.LANGUAGES)
