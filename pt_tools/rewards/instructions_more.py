r"""The second set of instructions, 85 ids in the shape of `instructions.INSTRUCTIONS`, standard library only.

Here are the 29 training constraints of IF-RLVR (Pyatkin et al., 2025, arXiv:2507.02833; verifiers: `IFEvalG` of
allenai/open-instruct); the two modules joined below hold 56 of the 58 test constraints of IFBench (allenai/IFBench).
Ids and names of arguments are those of the published rows, whose null arguments are passed over; a prompt that has to
be copied comes as the argument `prompt_to_repeat`. Left out: `words:start_verb` (needs a part-of-speech model) and
`words:odd_even_syllables` (needs a pronouncing dictionary).

Verdicts follow the references, also where they pay for less than is asked:

| id | is content with |
|---|---|
| copy:repeat_phrase | a change in the last repetition only |
| detectable_format:sentence_hyphens | anything behind the last sentence that has a partner; a text of one sentence |
| detectable_format:bigram_wrapping | a last word without a partner |
| keywords:exclude_word_harder | the word beside a mark, at a line's end or in another case |
| keywords:palindrome | any word of one character, as "a" |
| count:count_unique | small and capital letters as a difference: "The the"; but each mark counts as a word |
| count:conjunctions | one conjunction in several spellings: "and", "And", "and," |
| ratio:sentence_type, ratio:sentence_balance | a text without any such sentence |
| format:list | the separator anywhere, not only before items |
| format:sub-bullets | a text without bullets; any hyphen as a sub-bullet |
| format:quotes | apostrophes as quotation marks |
| format:quote_unquote | an explanation of one letter; single quotation marks |
| format:output_template | the three labels in any order |
| custom:word_reverse | "eagle bald" in any text |
| custom:csv_special_character | anything in the rows behind the first special field |
| custom:date_format_list | any dates of Napoleon's life; the 31st behind month 00 |
| repeat:repeat_change | any change of the first word, of case or of white space too |
| rules about every word or sentence | a text of one word or one sentence |

Marks count as words, because the tokens are those of a treebank, in count:counting_composition, count:count_unique,
keywords:keyword_specific_position and keywords:start_end. Differences from the references:

| id | here | reference |
|---|---|---|
| all | an argument that is missing, or 0 where that counts as missing, makes the row unusable | drawn at random |
| new:copy_span_idx | `n_start` 0 is the first character | drawn at random |
| keywords of IF-RLVR | plain text | a pattern |
| all | a response that cannot be checked is not followed (an empty CSV field, a broken quotation) | an exception |
| all with tokens | ends of sentences by rule, `pt_tools.rewards.sentences` | by the punkt model |
| all with words | `\w` of Python, without the vowel signs of Indian scripts | that of its nltk release |
| format:line_indent | too many lines to be indented ever further fail at once | fail, in quadratic time |

IFBench's checkers changed over time. Followed are the forms that do what the published prompts say: words, not
characters, in repeat:repeat_span and ratio:overlap; whole words in count:keywords_multiple; marks are no words in
words:words_position and words:keywords_specific_position, and case does not matter there; whole words in
sentence:keyword; all words differ in ratio:sentence_words; marks before the first letter are skipped in
custom:sentence_alphabet; all kinds of pronouns count in count:pronouns, those in "we're" too; words of one letter count in
format:title_case.
"""

from __future__ import annotations

import re

from pt_tools.rewards import instructions_more_formats, instructions_more_ifbench
from pt_tools.rewards.instructions import count, letter, letter_frequency, relation, text
from pt_tools.rewards.instructions_more_text import keyword, occurrences, positive, sentences, tokens

# ---------------------------------------------------------------- copies


def repeat_phrase(response, phrase, small_n):
    """Exactly so many variants of the phrase, each with at most one word changed, the last with one."""
    wanted = phrase.split()
    found = [variant.split() for variant in _variants(response, wanted[0] + " ", " " + wanted[-1])]
    if len(found) != small_n or any(len(variant) != len(wanted) for variant in found):
        return False
    changes = [sum(map(str.__ne__, variant, wanted)) for variant in found]
    return max(changes) <= 1 == changes[-1]


def _variants(response, first, last):
    """The shortest stretches of a line from one text to another; by find, so that a line of beginnings is linear."""
    for line in response.split("\n"):
        start = line.find(first)
        while start >= 0 and (end := line.find(last, start + len(first))) >= 0:
            yield line[start : end + len(last)]
            start = line.find(first, end + len(last))


def copy(response, prompt_to_repeat):
    """The prompt and nothing else; case and outer white space do not count."""
    return response.strip().lower() == prompt_to_repeat.strip().lower()


def copy_span(response, prompt_to_repeat, n_start, n_end):
    """The prompt's characters from `n_start` up to, not including, `n_end`."""
    return copy(response, prompt_to_repeat[n_start:n_end])


def copying_multiple(response, prompt_to_repeat, N):
    parts = response.split("******")
    return len(parts) == N and all(copy(part, prompt_to_repeat) for part in parts)


# ---------------------------------------------------------------- form


def sentence_hyphens(response):
    """Sentences joined by hyphens: what stands between hyphens is, in turn, a sentence of the text with spaces."""
    expected = sentences(response.replace("-", " "))
    return all(part == sentence for part, sentence in zip(response.split("-"), expected))


def square_brackets(response):
    return all(word.startswith("[") and word.endswith("]") for word in response.split())


def bigram_wrapping(response):
    """<<two words>> <<each pair>> in double angular brackets."""
    words = response.split()
    return all(first.startswith("<<") and second.endswith(">>") for first, second in zip(words[::2], words[1::2]))


def _two_paragraphs(response, divider):
    parts = [part.strip() for part in response.split(divider)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == 2


def paragraphs(response):
    return _two_paragraphs(response, "***")


def paragraphs2(response):
    return _two_paragraphs(response, "\n\n")


def punctuation_dot(response):
    return "." not in response


def punctuation_exclamation(response):
    return "!" not in response


# ---------------------------------------------------------------- words in places


def no_adjacent_consecutive(response):
    """No word begins with the letter that follows the first letter of the word before it."""
    letters = [word[0].lower() for word in response.split()]
    single = len(letters) < 2 or all(len(first) == 1 for first in letters)
    return single and all(ord(after) - ord(before) != 1 for before, after in zip(letters, letters[1:]))


def first_word_sent(response, first_word):
    return all(sentence.split()[:1] and _same(sentence.split()[0], first_word) for sentence in sentences(response))


def first_word_answer(response, first_word):
    return bool(response.split()) and _same(response.split()[0], first_word)


def last_word_sent(response, last_word):
    return all(last_word_answer(sentence, last_word) for sentence in sentences(response))


def last_word_answer(response, last_word):
    """The last word, marks taken out of it."""
    return bool(response.split()) and _same(re.sub(r"[^\w\s]", "", response.split()[-1]), last_word)


def _same(word, wanted):
    return word.lower() == wanted.lower()


def keyword_specific_position(response, keyword, n, m):
    """The keyword is the m-th token of the n-th sentence, in its own case."""
    found = sentences(response)
    return len(found) >= n and tokens(found[n - 1])[m - 1 : m] == [keyword]


def start_end(response):
    words = tokens(response)
    return len(words) > 1 and _same(words[0], words[-1])


def palindrome(response):
    return any(word == word[::-1] for word in response.split())


# ---------------------------------------------------------------- counts


def word_once(response, keyword):
    return occurrences(keyword, response) == 1


def word_count_different_numbers(response, keyword, relation, frequency):
    return _holds(occurrences(keyword, response), relation, frequency)


def _holds(n, wanted, bound):
    return n < bound if wanted == "less than" else n >= bound


def exclude_word_harder(response, keyword):
    return f" {keyword} " not in response


def count_increment_word(response, keyword1, keyword2):
    return occurrences(keyword1, response) == 1 and occurrences(keyword2, response) == 2


def lowercase_counting(response, N):
    return sum(1 for _ in re.finditer(r"\b[a-z]+\b", response)) <= N


def letter_counting(response, N, relation):
    return _holds(len(re.sub(r"[^a-zA-Z]+", "", response)), relation, N)


def count_unique(response):
    words = tokens(response)
    return len(words) == len(set(words))


def counting_composition(response, n_sent, n_words):
    """Three paragraphs divided by ***, of so many sentences each, of so many tokens each."""
    parts = [sentences(part) for part in response.split("***")]
    return len(parts) == 3 and all(
        len(part) == n_sent and all(len(tokens(sentence)) == n_words for sentence in part) for part in parts
    )


_PROMPT = {"prompt_to_repeat": text}

IF_RLVR = {
    "copy:repeat_phrase": (repeat_phrase, {"phrase": text, "small_n": positive}),
    "copy:copy": (copy, _PROMPT),
    "new:copy_span_idx": (copy_span, {**_PROMPT, "n_start": count, "n_end": count}),
    "copy:copying_simple": (copy, _PROMPT),
    "copy:copying_multiple": (copying_multiple, {**_PROMPT, "N": positive}),
    "detectable_format:sentence_hyphens": (sentence_hyphens, {}),
    "detectable_format:square_brackets": (square_brackets, {}),
    "detectable_format:bigram_wrapping": (bigram_wrapping, {}),
    "paragraphs:paragraphs": (paragraphs, {}),
    "paragraphs:paragraphs2": (paragraphs2, {}),
    "punctuation:punctuation_dot": (punctuation_dot, {}),
    "punctuation:punctuation_exclamation": (punctuation_exclamation, {}),
    "keywords:no_adjacent_consecutive": (no_adjacent_consecutive, {}),
    "first_word:first_word_sent": (first_word_sent, {"first_word": keyword}),
    "first_word:first_word_answer": (first_word_answer, {"first_word": keyword}),
    "last_word:last_word_sent": (last_word_sent, {"last_word": keyword}),
    "last_word:last_word_answer": (last_word_answer, {"last_word": keyword}),
    "keywords:keyword_specific_position": (
        keyword_specific_position,
        {"keyword": keyword, "n": positive, "m": positive},
    ),
    "keywords:start_end": (start_end, {}),
    "keywords:palindrome": (palindrome, {}),
    "keywords:word_once": (word_once, {"keyword": keyword}),
    "keywords:word_count_different_numbers": (
        word_count_different_numbers,
        {"keyword": keyword, "relation": relation, "frequency": count},
    ),
    "keywords:exclude_word_harder": (exclude_word_harder, {"keyword": keyword}),
    "count:count_increment_word": (count_increment_word, {"keyword1": keyword, "keyword2": keyword}),
    "count:lowercase_counting": (lowercase_counting, {"N": positive}),
    "letters:letter_counting": (letter_counting, {"N": positive, "relation": relation}),
    "letters:letter_counting2": (
        letter_frequency,
        {"letter": letter, "let_relation": relation, "let_frequency": count},
    ),
    "count:count_unique": (count_unique, {}),
    "count:counting_composition": (counting_composition, {"n_sent": positive, "n_words": positive}),
}

INSTRUCTIONS = {**IF_RLVR, **instructions_more_ifbench.INSTRUCTIONS, **instructions_more_formats.INSTRUCTIONS}
