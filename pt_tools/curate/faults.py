"""What rules look for in texts. Each function takes a rule's keys and makes a test: text -> what was found, "" if nothing.

Rules that need more than a text have tests (record, of) -> what was found, None where there is nothing to look at.
"""

import functools
import re

from pt_tools.curate.texts import texts

MIN_LINE = 20  # characters of a line that counts as repeated; closing brackets do not
SHORT = 4  # units of the n-grams that are looked at first
MIN_WORDS = 20  # in a text whose scripts are compared
MIN_LETTERS, TOLD_BY = 12, 2000  # in a text whose language is told; characters that tell it

_DANGLING = set("the a an and or of with for by from because if than your my their its our his her every each into".split())
_LISTED = re.compile(r"\s*(?:[-*+•#>|]|\d+[.)]|\w[.)])\s?")
_MARKED = re.compile(r"[`|#/]")  # code, a table, a hashtag, an address
_OTHER_SCRIPT = re.compile("[^\\W\\d_\u0000-\u024f\u1e00-\u1eff]")
_LONE = re.compile(r"(?<![^\W\d_])[A-Za-z](?![^\W\d_])")  # a Latin letter by itself is the name of something
_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.S)
_CLOSED = re.compile(r"[.!?…。！？]")


def truncated():
    """A completion that ran out of tokens, or a text that stops in the middle."""
    return _truncated


def _truncated(rec, of):
    if rec.get("finish") == "length":
        return "finish is length"
    found = texts(rec, of)
    return next((reason for reason in map(_cut_off, found) if reason), "") if found else None


def _cut_off(text):
    from pt_tools.rewards import common

    if "<think>" in text and "</think>" not in text:
        return "ends in its thoughts"
    text = common.part(text, "answer").rstrip()
    if not text:
        return ""
    last = text[text.rfind("\n") + 1:]
    words = last.split()
    signed_off = text[-1] == "," and len(words) <= 3 and len(last) < len(text)  # "Best wishes," and no name
    if text[-1] in ",;:([{、，；：（" and not signed_off:
        return f"ends with {text[-1]}"
    if _fence(text).startswith("not closed"):
        return "ends in a code block"
    if len(words) >= 8 and words[-1].lower() in _DANGLING:
        return f"ends with {words[-1]}"
    ends_open = text[-1].isalnum() and not _LISTED.match(last) and len(_CLOSED.findall(text)) >= 3
    long = len(words) >= 12 or (len(last) >= 40 and "。" in last and len(last) - last.rfind("。") > 15)
    return "ends without a full stop" if ends_open and long and not _MARKED.search(last) else ""


def fence():
    return _fence


def _fence(text):
    """Fences as CommonMark has them, at any depth of indentation: ``` or ~~~, closed by as many of the same."""
    if "```" not in text and "~~~" not in text:
        return ""
    opened = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip().lstrip("> ")
        run = re.match(r"`{3,}|~{3,}", line)
        if run is None:
            if opened is None and line.count("```") % 2:
                return f"a fence inside line {number}"
        elif opened is None:
            opened = run[0] if "`" not in line[run.end():] else None
        elif run[0].startswith(opened):
            if line[run.end():].strip():
                return f"one opens inside another in line {number}"
            opened = None
    return "not closed" if opened else ""


def think(tag: str = "think"):
    if not re.fullmatch(r"[A-Za-z][\w-]{0,63}", tag):
        raise ValueError("tag is the name of a tag")
    return functools.partial(_think, f"<{tag}>", f"</{tag}>")


def _think(opening, closing, text):
    if opening not in text and closing not in text:
        return ""
    inside = False
    for mark in re.findall(f"{re.escape(opening)}|{re.escape(closing)}", text):
        if inside == (mark == opening):
            return f"{mark} inside {opening}" if inside else f"{closing} without {opening}"
        inside = not inside
    return f"{opening} is not closed" if inside else ""


def repetition(max: float = 0.2, n: int = 10, lines: float = 0.3):
    from pt_tools.rewards import repetition as grader

    grader.check({"name": "repetition", "n": n, "limit": max if max < 1 else 0.0})
    if not 0 <= lines <= 1:
        raise ValueError("lines is a share, from 0 to 1")
    return functools.partial(_repeated, max, n, lines)


def _repeated(most, n, most_lines, text):
    from pt_tools.rewards import repetition as grader

    units = grader.words(text)
    # An n-gram that occurred before starts with a shorter one that did: mostly the short ones settle it.
    if len(units) >= n and (n <= SHORT or grader.repeated(units, SHORT) * (len(units) - SHORT + 1) > most * (len(units) - n + 1)):
        share = grader.repeated(units, n)
        if share > most:
            return f"{share:.2f} of the {n}-grams repeat"
    long = [line for line in map(str.strip, text.split("\n")) if len(line) >= MIN_LINE]
    again = 1 - len(set(long)) / len(long) if len(long) > 3 else 0.0
    return f"{again:.2f} of the lines repeat" if again > most_lines else ""


def mixed_scripts(max: float = 0.1):
    return functools.partial(_mixed, max)


def _mixed(most, text):
    from pt_tools.rewards import consistency

    if not _OTHER_SCRIPT.search(text):
        return ""
    words = consistency.script_words(text)
    total = sum(words.values())
    if total < MIN_WORDS:
        return ""
    (main, n), *others = words.most_common()
    return f"{1 - n / total:.2f} in {others[0][0].lower()} beside {main.lower()}" if 1 - n / total > most else ""


def language(keep: str = "", drop: str = ""):
    from pt_tools.rewards import language as detector

    keep, drop = (set(codes.split("|")) if codes else set() for codes in (keep, drop))
    unknown = sorted((keep | drop) - {*detector.LANGUAGES, "und"})
    if unknown or bool(keep) == bool(drop):
        raise ValueError(f"unknown language {unknown[0]!r:.20}; known: {', '.join(detector.LANGUAGES)}" if unknown else
                         "give keep=, the languages wanted, or drop=, those unwanted")
    return functools.partial(_language, keep, drop)


def _language(keep, drop, text):
    found = spoken(text)
    return found if found and (found in drop or (keep and found not in keep)) else ""


def spoken(text: str) -> str | None:
    """The language of a text without its code and formulas; None where too few letters are left to tell."""
    from pt_tools.rewards import consistency
    from pt_tools.rewards import language as detector

    text = _LONE.sub(" ", consistency.prose(_DRAWING.sub(" ", text[:2 * TOLD_BY])))[:TOLD_BY]
    return detector.detect(text) if sum(map(str.isalpha, text)) >= MIN_LETTERS else None


def length(min: int = 0, max: int = 2**62, unit: str = "tokens", lengths=None):
    if unit not in ("tokens", "words", "chars"):
        raise ValueError("unit is tokens, words or chars")
    if unit == "tokens" and lengths is None:
        raise ValueError("counts tokens with --tokenizer; or unit=words, unit=chars")
    if min <= 0 and max == 2**62 or min > max:
        raise ValueError("give min=, max=, or both in this order")
    return functools.partial(_tokens, lengths, min, max) if unit == "tokens" else functools.partial(_size, unit, min, max)


def _tokens(lengths, least, most, rec, of):
    """Tokens of the whole, or of the prompt: a response alone is what the whole has beside the prompt."""
    if of == "all" and least <= 1:
        found = lengths.over(rec, most)
        return f"{found} tokens" if found else ""
    found = lengths.count(rec)
    n = {"all": found["all"], "prompt": found["prompt"], "response": found["all"] - found["prompt"]}[of]
    return "" if least <= n <= most else f"{n} tokens"


def _size(unit, least, most, rec, of):
    from pt_tools.curate.words import words

    found = texts(rec, of)
    n = sum(len(text) if unit == "chars" else len(words(text)) for text in found)
    return None if not found else "" if least <= n <= most else f"{n} {unit}"


def keywords(file: str = "", words: str = ""):
    from pt_tools.curate.phrases import Phrases, read

    if bool(file) == bool(words):
        raise ValueError("give file= or words=")
    return Phrases(read(file) if file else words.split("|")).find


def pii(kinds: str = ""):
    from pt_tools.curate import pii as finder

    wanted = tuple(kinds.split("|")) if kinds else finder.KINDS
    if not set(wanted) <= set(finder.KINDS):
        raise ValueError(f"kinds are {', '.join(finder.KINDS)}")
    return lambda text: finder.first(text, wanted) or ""


def refusal():
    from pt_tools.curate import phrases

    return phrases.refusal


def self_reference():
    from pt_tools.curate import phrases

    return phrases.self_reference
