"""The IFBench test constraints about formats, and those written for one prompt (see `instructions_more`)."""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from bisect import bisect_right
from itertools import pairwise

from pt_tools.rewards.instructions import text
from pt_tools.rewards.instructions_more_text import EDGES, bare, sentences, tokens

# ---------------------------------------------------------------- marks

_CLOSES = {")": "(", "]": "[", "}": "{"}


def parentheses(response):
    """Brackets of any kind closed from at least five levels; a wrong closing bracket starts anew."""
    opened, deepest = [], 0
    for mark in re.findall(r"[][(){}]", response):
        if mark not in _CLOSES:
            opened.append(mark)
            deepest = max(deepest, len(opened))
        elif opened and opened[-1] == _CLOSES[mark]:
            opened.pop()
            if deepest >= 5:
                return True
        else:
            opened, deepest = [], 0
    return False


def quotes(response):
    """Double and single quotation marks, each inside the other, closed from three levels."""
    opened, deepest = [], 0
    for mark in re.findall("[\"']", response):
        if opened and opened[-1] == mark:
            opened.pop()
            if deepest - len(opened) >= 3:
                return True
        else:
            opened.append(mark)
            deepest = max(deepest, len(opened))
    return False


def quote_unquote(response):
    """No quotation stands beside another or at the end."""
    body = "".join(response.replace("“", '"').replace("”", '"').replace("'\"'", "").split())
    return '""' not in body and not body.strip(string.digits + string.punctuation.replace('"', "")).endswith('"')


def options(response, options):
    """One of the options, that "/", else "or", else "," divides; marks and case count only for options a, b, c."""
    divider = next((divider for divider in ("/", "or") if divider in options), ",")
    choices = [option.strip() for option in options.split(divider)]
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]", options):
        return response in choices
    return response.strip(EDGES).lower() in [choice.strip(EDGES).lower() for choice in choices]


# ---------------------------------------------------------------- lines


def newline(response):
    """As many lines as words."""
    body = bare(response).strip()
    return sum(map(bool, body.split("\n"))) == len(body.split())


def line_indent(response):
    """Each line is indented further than the one before. As in the reference, of blank lines in a row every second
    stays and counts; so at least half the lines are left, which must not need more spaces than there are."""
    lines = response.split("\n")
    left = len(lines) // 2
    if left * (left - 1) // 2 > len(response):
        return False
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            lines.remove(lines[place])
        place += 1
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return all(before < after for before, after in pairwise(indents))


def separated_list(response, sep):
    return response.count(sep) >= 2


def thesis(response):
    """Something in italics, <i> or <em>, and something behind it."""
    start = _first(response, ("<i>", "<em>"), 0)
    end = _first(response, ("</i>", "</em>"), max(start, 0))
    return 0 <= start <= end and bool(response[start + 3 : end].strip()) and bool(response[end + 4 :].strip())


def _first(response, tags, start):
    """The place of the first of the tags that occurs at all, else -1."""
    return next((place for tag in tags if (place := response.find(tag, start)) >= 0), -1)


def sub_bullets(response):
    """A hyphen behind every asterisk."""
    return all("-" in part for part in response.split("*")[1:])


def no_bullets_bullets(response):
    """At least two sentences, then at least two lines that start with an asterisk, and nothing else. A blank line ends
    the sentences."""
    spoken, open_, bullets = 0, True, 0
    for line in response.split("\n"):
        if line.strip().startswith("*"):
            open_, bullets = False, bullets + 1
            if spoken < 2:
                return False
        elif not open_:
            return False
        else:
            found = len(sentences(line))
            spoken, open_ = spoken + found, bool(found)
    return bullets >= 2


# ---------------------------------------------------------------- characters

# Every character that is an emoji by itself, with or without a variation selector (Unicode 17), as first[-last].
_EMOJI = """
a9 ae 203c 2049 2122 2139 2194-2199 21a9-21aa 231a-231b 2328 23cf 23e9-23f3 23f8-23fa 24c2 25aa-25ab 25b6 25c0
25fb-25fe 2600-2604 260e 2611 2614-2615 2618 261d 2620 2622-2623 2626 262a 262e-262f 2638-263a 2640 2642 2648-2653
265f-2660 2663 2665-2666 2668 267b 267e-267f 2692-2697 2699 269b-269c 26a0-26a1 26a7 26aa-26ab 26b0-26b1 26bd-26be
26c4-26c5 26c8 26ce-26cf 26d1 26d3-26d4 26e9-26ea 26f0-26f5 26f7-26fa 26fd 2702 2705 2708-270d 270f 2712 2714 2716
271d 2721 2728 2733-2734 2744 2747 274c 274e 2753-2755 2757 2763-2764 2795-2797 27a1 27b0 27bf 2934-2935 2b05-2b07
2b1b-2b1c 2b50 2b55 3030 303d 3297 3299 1f004 1f0cf 1f170-1f171 1f17e-1f17f 1f18e 1f191-1f19a 1f201-1f202 1f21a 1f22f
1f232-1f23a 1f250-1f251 1f300-1f321 1f324-1f393 1f396-1f397 1f399-1f39b 1f39e-1f3f0 1f3f3-1f3f5 1f3f7-1f4fd
1f4ff-1f53d 1f549-1f54e 1f550-1f567 1f56f-1f570 1f573-1f57a 1f587 1f58a-1f58d 1f590 1f595-1f596 1f5a4-1f5a5 1f5a8
1f5b1-1f5b2 1f5bc 1f5c2-1f5c4 1f5d1-1f5d3 1f5dc-1f5de 1f5e1 1f5e3 1f5e8 1f5ef 1f5f3 1f5fa-1f64f 1f680-1f6c5
1f6cb-1f6d2 1f6d5-1f6d9 1f6dc-1f6e5 1f6e9 1f6eb-1f6ec 1f6f0 1f6f3-1f6fc 1f7e0-1f7eb 1f7f0 1f90c-1f93a 1f93c-1f945
1f947-1f9ff 1fa70-1fa7c 1fa80-1fac6 1fac8 1facc-1fadd 1fadf-1faeb 1faef-1fafa
"""
_RANGES = [[int(end, 16) for end in (span.split("-") * 2)[:2]] for span in _EMOJI.split()]
_FIRSTS = [first for first, _ in _RANGES]


def _is_emoji(char):
    place = bisect_right(_FIRSTS, ord(char)) - 1
    return place >= 0 and ord(char) <= _RANGES[place][1]


def emoji(response):
    """Each sentence ends with an emoji, or the next begins with one; marks do not count."""
    bodies = [bare(sentence).strip() for sentence in sentences(response)]
    followed = [*bodies[1:], ""]
    return all(bodies) and all(
        any(map(_is_emoji, body[-2:])) or any(map(_is_emoji, after[:1])) for body, after in zip(bodies, followed)
    )


def title_case(response):
    """No word starts with a small letter, unless its further letters are of both cases."""
    return not any(word[0].islower() and word[0].isalpha() and not _mixed(word[1:]) for word in tokens(response))


def _mixed(rest):
    return bool(rest) and not rest.isupper() and not rest.islower()


def output_template(response):
    return all(label in response for label in ("My Answer:", "My Conclusion:", "Future Outlook:"))


def no_whitespace(response):
    return response.split() == [response] or not response


# ---------------------------------------------------------------- for one prompt


def multiples(response):
    """The multiples of 7 from 10 to 50, and no other number."""
    return re.findall(r"\d+", response) == ["14", "21", "28", "35", "42", "49"]


def mcq_count_length(response):
    """Four questions of five options a) to e), each question longer than the one before; nothing in front of them."""
    parts = [part.strip() for part in re.split(r"Question \d+[.|):;]?", response)]
    lengths = [_question_length(part) for part in parts if part]
    if not response.startswith("Question") or len(lengths) != 4 or None in lengths:
        return False
    return all(before < after for before, after in pairwise(lengths))


def _question_length(part):
    lines = [line.strip() for line in part.split("\n")]
    is_option = [re.match(r"[A-Ea-e][.|)]\s*\w", line) is not None for line in lines]
    return len(" ".join(lines[: is_option.index(True)]).strip()) if sum(is_option) == 5 else None


def reverse_newline(response):
    """At least 52 lines from the first that names Zimbabwe on, in reverse alphabetical order, accents apart."""
    lines = [line for line in (line.strip(EDGES) for line in response.split("\n")) if line]
    start = next((place for place, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    listed = [_ascii(line) for line in lines[start:]]
    return len(listed) >= 52 and all(before >= after for before, after in pairwise(listed))


def _ascii(body):
    return unicodedata.normalize("NFKD", body).encode("ascii", "ignore").decode("ascii")


def word_reverse(response):
    """Names the bald eagle, read word by word from the end."""
    return "bald eagle" in " ".join(bare(response.lower()).split()[::-1])


def character_reverse(response):
    return "elgae dlab" in response.lower()


def sentence_alphabet(response):
    """26 sentences that begin with a to z."""
    firsts = [sentence.lstrip(string.punctuation + string.whitespace)[:1].lower() for sentence in sentences(response)]
    return firsts == list(string.ascii_lowercase)


_CAPITALS = (
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam "
    "Warsaw London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana "
    "Zagreb".split()
)


def european_capitals_sort(response):
    named = (name.strip() for name in _ascii(response).split(","))
    return [name for name in named if name] == _CAPITALS


def _rows(body, delimiter):
    """The rows of a delimited text; none if it is no such text."""
    try:
        return list(csv.reader(io.StringIO(body), delimiter=delimiter))
    except csv.Error:
        return []


def csv_city(response):
    rows = _rows(response, ",")
    header = ["ID", "Country", "City", "Year", "Count"]
    return len(rows) == 8 and rows[0] == header and all(len(row) == 5 for row in rows)


def _header(response, columns, between):
    """Whether the first line names the columns, quoted or not."""
    names = between.join(f'(?:{name}|"{name}")' for name in columns)
    return re.fullmatch(names, response.split("\n", 1)[0].strip()) is not None


def csv_special_character(response):
    """14 rows of 5 fields; a quoted field of one has a character that is no letter, digit or space."""
    rows = _rows(response.replace('"', '"""'), ",")
    if not _header(response, ("ProductID", "Category", "Brand", "Price", "Stock"), r",[ \t]*") or len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(map(_special, row)):
            return True
    return False


def _special(field):
    """A character that is no letter, digit or space between the quotation mark it starts with and the line's last."""
    line = field.split("\n", 1)[0]
    return line.startswith('"') and re.search(r"[^\w\s]", line[1 : max(1, line.rfind('"'))]) is not None


def csv_quotes(response):
    """3 rows of 5 fields below the header, tabs between them, every field in quotation marks."""
    rows = _rows(response.replace('"', '"""'), "\t")
    if not _header(response, ("StudentID", "Subject", "Grade", "Semester", "Score"), r"\t *") or len(rows) != 4:
        return False
    fields = [field.strip() for row in rows for field in row]
    return all(len(row) == 5 for row in rows) and all(field[:1] == field[-1:] == '"' for field in fields)


_MONTHS = [31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]  # the reference lets a month 0 pass, of any day


def date_format_list(response):
    """Dates YYYY-MM-DD of 1769 to 1821 with commas between them."""
    for date in response.split(","):
        found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", date.strip())
        if not found:
            return False
        year, month, day = map(int, found.groups())
        if not 1769 <= year <= 1821 or month > 12 or (month and day > _MONTHS[month]):
            return False
    return True


INSTRUCTIONS = {
    "format:parentheses": (parentheses, {}),
    "format:quotes": (quotes, {}),
    "format:quote_unquote": (quote_unquote, {}),
    "format:options": (options, {"options": text}),
    "format:newline": (newline, {}),
    "format:line_indent": (line_indent, {}),
    "format:list": (separated_list, {"sep": text}),
    "format:thesis": (thesis, {}),
    "format:sub-bullets": (sub_bullets, {}),
    "format:no_bullets_bullets": (no_bullets_bullets, {}),
    "format:emoji": (emoji, {}),
    "format:title_case": (title_case, {}),
    "format:output_template": (output_template, {}),
    "format:no_whitespace": (no_whitespace, {}),
    "custom:multiples": (multiples, {}),
    "custom:mcq_count_length": (mcq_count_length, {}),
    "custom:reverse_newline": (reverse_newline, {}),
    "custom:word_reverse": (word_reverse, {}),
    "custom:character_reverse": (character_reverse, {}),
    "custom:sentence_alphabet": (sentence_alphabet, {}),
    "custom:european_capitals_sort": (european_capitals_sort, {}),
    "custom:csv_city": (csv_city, {}),
    "custom:csv_special_character": (csv_special_character, {}),
    "custom:csv_quotes": (csv_quotes, {}),
    "custom:date_format_list": (date_format_list, {}),
}
