"""The instructions of IFEval as pure predicates: `follows(text, **arguments) -> bool`, None if it cannot be told.

`INSTRUCTIONS` maps an id to its predicate and, for each argument, the function that reads it (ValueError if missing or
of the wrong type). Nothing here keeps state, imports nltk or draws at random. `tulu:` marks what Tulu 3's RLVR data
have beside those of IFEval.
"""

from __future__ import annotations

import json
import re

from pt_tools.rewards import language, sentences

# ---------------------------------------------------------------- arguments


def count(value):
    """A whole number of at least 0; a float without fraction is one (JSON writers make them)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value < 0 or value % 1:
        raise ValueError("is missing" if value is None else f"must be a whole number, not {value!r}")
    return int(value)


def text(value):
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is missing" if value is None else f"must be text, not {value!r}")
    return value


def texts(value):
    if not isinstance(value, list) or not value:
        raise ValueError("is missing" if value is None else f"must be a list of texts, not {value!r}")
    return [text(item) for item in value]


def letter(value):
    if len(text(value).strip()) != 1:
        raise ValueError(f"must be one letter, not {value!r}")
    return value.strip().lower()


def relation(value):
    if value not in ("less than", "at least"):
        raise ValueError("is missing" if value is None else f"must be 'less than' or 'at least', not {value!r}")
    return value


def language_code(value):
    if value not in language.LANGUAGES:
        raise ValueError("is missing" if value is None else f"{value!r} is no language that can be detected")
    return value


# ---------------------------------------------------------------- lengths


def _holds(n, wanted, bound):
    return n < bound if wanted == "less than" else n >= bound


def number_words(response, relation, num_words):
    return _holds(len(re.findall(r"\w+", response)), relation, num_words)


def number_sentences(response, relation, num_sentences):
    return _holds(sentences.count(response), relation, num_sentences)


def number_paragraphs(response, num_paragraphs):
    """Paragraphs divided by `***`; one that is empty between two dividers fails."""
    parts = [part.strip() for part in response.split("***")]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def nth_paragraph_first_word(response, num_paragraphs, nth_paragraph, first_word):
    """Paragraphs divided by a blank line; blank ones are not counted but keep their place, as in the reference."""
    chunks = response.split("\n\n")
    filled = sum(bool(chunk.strip()) for chunk in chunks)
    if not 1 <= nth_paragraph <= filled or not chunks[nth_paragraph - 1].strip():
        return False
    word = chunks[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return filled == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


# ---------------------------------------------------------------- keywords


def existence(response, keywords):
    return all(keyword.lower() in response.lower() for keyword in keywords)


def frequency(response, keyword, relation, frequency):
    return _holds(response.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(response, forbidden_words):
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", response, re.I) for word in forbidden_words)


def letter_frequency(response, letter, let_relation, let_frequency):
    return _holds(response.lower().count(letter), let_relation, let_frequency)


# ---------------------------------------------------------------- format and content


_STAR = re.compile(r"^[^\S\n]*\*[^*].*$", re.M)  # [^*] may be the end of the line: then the next is the bullet's text
_DASH = re.compile(r"^[^\S\n]*-", re.M)


def number_bullet_lists(response, num_bullets):
    """Exactly so many lines that start with `*` (not `**`) or `-`."""
    return len(_STAR.findall(response)) + len(_DASH.findall(response)) == num_bullets


def constrained_response(response):
    return any(option in response for option in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def number_highlighted_sections(response, num_highlights):
    """At least so many *highlights* that are not empty; a **bold** one counts too."""
    single = [part for part in re.findall(r"\*([^\n*]*)\*", response) if part.strip()]
    double = [part for part in re.findall(r"\*\*([^\n*]*)\*\*", response) if part.strip()]
    return len(single) + len(double) >= num_highlights


def multiple_sections(response, section_spliter, num_sections):
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


_FENCES = ("```json", "```Json", "```JSON", "```")


def json_format(response):
    body = response.strip()
    for fence in _FENCES:
        body = body.removeprefix(fence)
    try:
        json.loads(body.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(response):
    """A title in double angular brackets that is not empty: from the first << of a line to its last >>."""
    spans = ((line, line.find("<<"), line.rfind(">>")) for line in response.split("\n"))
    return any(0 <= start < end - 2 and line[start:end].lstrip("<").rstrip(">").strip() for line, start, end in spans)


def number_placeholders(response, num_placeholders):
    return sum(map(_brackets, response.split("\n"))) >= num_placeholders


def _brackets(line):
    """How many [placeholders] a line has; by find, as a pattern takes quadratic time on a line of opening brackets."""
    found, start = 0, line.find("[")
    while start >= 0 and (end := line.find("]", start)) >= 0:
        found += 1
        start = line.find("[", end)
    return found


def postscript(response, postscript_marker):
    marks = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    mark = marks.get(postscript_marker, re.escape(postscript_marker.strip().lower()))
    return re.search(mark, response.lower()) is not None


# ---------------------------------------------------------------- whole responses


def two_responses(response):
    """Two different answers divided by six asterisks."""
    parts = [part.strip() for part in response.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def repeat_prompt(response, prompt_to_repeat):
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response, end_phrase):
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response):
    body = response.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


def no_comma(response):
    return "," not in response


# ---------------------------------------------------------------- case and language


def response_language(response, language):
    return _is_in(response, language)


def english_capital(response):
    return response.isupper() and _is_in(response, "en")


def english_lowercase(response):
    return response.islower() and _is_in(response, "en")


def _is_in(response, code):
    """Whether a text is in a language; None if it has no letters."""
    found = language.detect(response)
    return found and found == code


def capital_word_frequency(response, capital_relation, capital_frequency):
    return _holds(sentences.capital_words(response), capital_relation, capital_frequency)


# ---------------------------------------------------------------- what only Tulu has


def choice(response, options):
    """The answer is one of the options, or a part of one, as in Tulu's function."""
    return any(response.strip() in option for option in options)


def starred_paragraphs(response, num_paragraphs):
    """Exactly so many paragraphs divided by `* * *`, none of them empty."""
    parts = "\n".join(line.strip() for line in response.splitlines()).strip().split("* * *")
    return all(part.strip() for part in parts) and len(parts) == num_paragraphs


INSTRUCTIONS = {
    "keywords:existence": (existence, {"keywords": texts}),
    "keywords:frequency": (frequency, {"keyword": text, "relation": relation, "frequency": count}),
    "keywords:forbidden_words": (forbidden_words, {"forbidden_words": texts}),
    "keywords:letter_frequency": (
        letter_frequency,
        {"letter": letter, "let_relation": relation, "let_frequency": count},
    ),
    "language:response_language": (response_language, {"language": language_code}),
    "length_constraints:number_sentences": (number_sentences, {"relation": relation, "num_sentences": count}),
    "length_constraints:number_paragraphs": (number_paragraphs, {"num_paragraphs": count}),
    "length_constraints:number_words": (number_words, {"relation": relation, "num_words": count}),
    "length_constraints:nth_paragraph_first_word": (
        nth_paragraph_first_word,
        {"num_paragraphs": count, "nth_paragraph": count, "first_word": text},
    ),
    "detectable_content:number_placeholders": (number_placeholders, {"num_placeholders": count}),
    "detectable_content:postscript": (postscript, {"postscript_marker": text}),
    "detectable_format:number_bullet_lists": (number_bullet_lists, {"num_bullets": count}),
    "detectable_format:constrained_response": (constrained_response, {}),
    "detectable_format:number_highlighted_sections": (number_highlighted_sections, {"num_highlights": count}),
    "detectable_format:multiple_sections": (multiple_sections, {"section_spliter": text, "num_sections": count}),
    "detectable_format:json_format": (json_format, {}),
    "detectable_format:title": (title, {}),
    "combination:two_responses": (two_responses, {}),
    "combination:repeat_prompt": (repeat_prompt, {"prompt_to_repeat": text}),
    "startend:end_checker": (end_checker, {"end_phrase": text}),
    "startend:quotation": (quotation, {}),
    "change_case:capital_word_frequency": (
        capital_word_frequency,
        {"capital_relation": relation, "capital_frequency": count},
    ),
    "change_case:english_capital": (english_capital, {}),
    "change_case:english_lowercase": (english_lowercase, {}),
    "punctuation:no_comma": (no_comma, {}),
    "tulu:choice": (choice, {"options": texts}),
    "tulu:starred_paragraphs": (starred_paragraphs, {"num_paragraphs": count}),
}
