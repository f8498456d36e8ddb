"""Personal data in texts: email addresses, phone numbers, IP addresses, keys and tokens, numbers of payment cards.

Patterns, each with what keeps numbers of other kinds out of it. Private, local and broadcast IP addresses name nobody and
are left alone; card numbers need a known beginning, the right length and Luhn's check digit.
"""

import ipaddress
import re
from collections import Counter

KINDS = ("email", "phone", "ip", "key", "card")

# Letters of scripts without spaces are no part of an address: the words around it are written in them.
_WORD = r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af]"
_LOCAL = re.compile(rf"(?:{_WORD}|[.%+'-]){{1,64}}\Z")
_DOMAIN = re.compile(rf"(?:(?!_){_WORD}(?:(?:{_WORD}|-){{0,61}}(?!_){_WORD})?\.){{1,8}}"
                     rf"([A-Za-z]{{2,24}}|xn--[a-z0-9-]{{2,40}}|(?:(?![a-zA-Z0-9_]){_WORD}){{2,6}})(?!{_WORD}|-)")
_LONG_ENDS = {"academy", "agency", "capital", "company", "computer", "digital", "foundation", "health", "international",
              "marketing", "network", "photography", "services", "solutions", "support", "systems", "technology", "travel"}
_PHONES = (
    re.compile(r"(?:\+?1[ .-]?)?(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}"),  # North America
    re.compile(r"\+[1-9][0-9]{0,2}(?:[ .-]?(?:\([0-9]{1,5}\)|[0-9]{1,5})){1,6}"),
)
_CALLED = re.compile(r"(?i)(?:\b(?:tel|phone|telephone|mobile|cell|fax|whatsapp|call(?: (?:me|us|him|her|them))?(?: at| on)?)"
                     r"|电话|手机|热线|電話|携帯|전화)[^\w\n(]{0,6}(?:(?:no|number|is|num|at)\b[^\w\n(]{0,6}){0,3}"
                     r"(?:(\([0-9]{2,4}\)[ .-]?[0-9][0-9 .-]{3,14}[0-9])|\(?([0-9][0-9 .-]{5,16}[0-9]))")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}")
_NOT_AN_IP = re.compile(r"(?i)(?:\b(?:v|ver|version|release|section|sec|chapter|figure|fig|table|firmware|build|python|java|"
                        r"chrome)|§)[.:]? ?\Z")
_CARD = re.compile(r"[2-6][0-9]{3}(?:(?: [0-9]{4}){3}|(?:-[0-9]{4}){3})|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5}|"
                   r"[2-6][0-9]{14,15}|3[0-9]{13}")
_KEYS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:sk-[A-Za-z0-9_-]{20,}|[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}"
    r"|pypi-[A-Za-z0-9_-]{50,}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----"
    r"(?:[\s\S]{0,10000}?-----END [A-Z ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----)?")
_MARKS = ("sk-", "k_live_", "k_test_", "gh", "glpat-", "hf_", "xox", "AKIA", "ASIA", "AIza", "ya29.", "npm_", "pypi-", "eyJ",
          "PRIVATE KEY")
_JOINED = re.compile(rf"{_WORD}|[=*/^]")
_NUMBER = re.compile("[0-9][0-9 ().-]{5,}[0-9]")


def find(text: str, kinds=KINDS) -> list[tuple[int, int, str]]:
    """(start, end, kind) of what is found, in order, none inside another."""
    spans = []
    for kind, seek in _SEEK.items():
        if kind in kinds:
            spans += [(start, end, kind) for start, end in seek(text)]
    if len(spans) < 2:
        return spans
    kept, last = [], 0
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= last:
            kept.append((start, end, kind))
            last = end
    return kept


def first(text: str, kinds=KINDS) -> str | None:
    """The kind of the first thing found."""
    found = find(text, kinds)
    return found[0][2] if found else None


# --- the kinds ----------------------------------------------------------------------------------------------------


def _emails(text):
    at = text.find("@")
    while at >= 0:
        local, domain = _LOCAL.search(text[max(0, at - 64):at]), _DOMAIN.match(text, at + 1)
        name = local[0].lstrip(".'-") if local else ""
        if name and domain and _is_ending(domain[1].lower()) and name.lower() not in ("git", "hg", "svn"):
            yield at - len(name), domain.end()
        at = text.find("@", at + 1)


def _is_ending(name):
    """Whether a domain ends so; `x @ W.transpose` does not."""
    return len(name) <= 6 or name.startswith("xn--") or name in _LONG_ENDS


def _phones(text):
    if not _NUMBER.search(text):
        return
    for pattern in _PHONES:
        for found in pattern.finditer(text):
            start, end = found.span()
            digits = sum(map(str.isdecimal, found[0]))
            if _alone(text, start, end) and (10 <= digits <= 13 if found[0][1:].isdecimal() else 8 <= digits <= 15):
                yield start, end
    for found in _CALLED.finditer(text):
        which = found.lastindex
        if 7 <= sum(map(str.isdecimal, found[which])) <= 13 and _alone(text, *found.span(which)):
            yield found.span(which)


def _alone(text, start, end):
    """Whether a number is not a part of a longer one, of a word or of an expression."""
    before, after = text[max(0, start - 2):start], text[end:end + 2]
    return not (_JOINED.match(before[-1:]) or _JOINED.match(after[:1]) or before[-1:] == "+"
                or (before[-1:] in (".", ",", "-") and before[:1].isdecimal())
                or (after[:1] in (".", ",", "-", ":") and after[1:].isdecimal()))


def _ips(text):
    if text.count(".") > 2:
        for found in _IPV4.finditer(text):
            if _alone(text, *found.span()) and _names_a_host(found[0]) and not _is_a_place(text, *found.span()):
                yield found.span()
    if text.count(":") > 1:
        for found in _IPV6.finditer(text):
            address = found[0] if found[0].endswith("::") else found[0].rstrip(":")
            start, end = found.start(), found.start() + len(address)
            if not (_JOINED.match(text[start - 1:start]) or _JOINED.match(text[end:end + 1])) and _names_a_host(address):
                yield start, end


def _names_a_host(address):
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6:
        return True
    return not (ip.is_loopback or ip.is_multicast or ip.is_link_local or ip.is_unspecified or ip.packed[0] in (0, 10, 255)
                or ip.packed[:2] == b"\xc0\xa8" or (ip.packed[0] == 172 and 16 <= ip.packed[1] < 32))


def _is_a_place(text, start, end):
    """Whether what looks like an address is a version, or the number of a heading."""
    line = text.rfind("\n", 0, start) + 1
    heads = not text[line:start].strip(" #*") and text[end:end + 1] in (" ", ".", ")") and text[end + 1:end + 2].isupper()
    return heads or _NOT_AN_IP.search(text[max(0, start - 12):start]) is not None


def _cards(text):
    if not _NUMBER.search(text):
        return
    for found in _CARD.finditer(text):
        digits = found[0].replace(" ", "").replace("-", "")
        if _alone(text, *found.span()) and _is_card(digits):
            yield found.span()


def _is_card(digits):
    two, four, n = int(digits[:2]), int(digits[:4]), len(digits)
    known = {16: (digits[0] == "4" or 51 <= two <= 55 or 2221 <= four <= 2720 or 3528 <= four <= 3589 or four == 6011
                  or two in (62, 64, 65)),
             15: two in (34, 37), 14: two in (36, 38, 39) or 3000 <= four <= 3059}[n]
    return known and luhn(digits) and len(set(digits)) > 1


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    doubled = [2 * int(digit) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(n // 10 + n % 10 for n in doubled)) % 10 == 0


def _keys(text):
    if not any(mark in text for mark in _MARKS):
        return
    for found in _KEYS.finditer(text):
        yield found.span()


_SEEK = {"key": _keys, "email": _emails, "card": _cards, "phone": _phones, "ip": _ips}


# --- scrubbing ----------------------------------------------------------------------------------------------------

_TEXTS = ("prompt", "messages", "text", "completion", "chosen", "rejected", "reference", "solution")
# What was made from the texts as they were, of the record and of a completion.
_STALE = ("prompt_ids", "tokenizer", "template", "chosen_ids", "rejected_ids", "tokens")
_STALE_IN = ("token_ids", "logprobs", "teachers")


def scrub(rec: dict, kinds=KINDS) -> tuple[dict, Counter]:
    """The record with placeholders such as [EMAIL_1] in all its texts, and how many of each kind there are.

    Equal data have equal placeholders in a record, different ones others, numbered in the order in which they occur. Token
    ids, log-probs and counts of a record that changed are left out: they are not of its texts any more.
    """
    names, counts = {}, Counter()

    def replaced(value):
        if isinstance(value, str):
            return _replaced(value, kinds, names, counts)
        if isinstance(value, list):
            return [replaced(one) for one in value]
        return {key: replaced(one) for key, one in value.items()} if isinstance(value, dict) else value

    made = {key: replaced(value) if key in _TEXTS else value for key, value in rec.items()}
    if isinstance(rec.get("completions"), list):
        made["completions"] = [{key: replaced(value) if key in ("text", "steps") else value for key, value in c.items()}
                               for c in rec["completions"]]
    if not counts:
        return rec, counts
    made = {key: value for key, value in made.items() if key not in _STALE}
    if "completions" in made:
        made["completions"] = [{key: value for key, value in c.items() if key not in _STALE_IN} for c in made["completions"]]
    return made, counts


def _replaced(text, kinds, names, counts):
    while found := find(text, kinds):  # again: what is left beside a placeholder may be something now
        parts, last = [], 0
        for start, end, kind in found:
            known = names.setdefault(kind, {})
            number = known.setdefault(text[start:end], len(known) + 1)
            parts += [text[last:start], f"[{kind.upper()}_{number}]"]
            counts[kind] += 1
            last = end
        text = "".join(parts) + text[last:]
    return text
