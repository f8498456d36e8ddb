"""The IFBench test constraints about counts, ratios, words, sentences and repetition (see `instructions_more`)."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from pt_tools.rewards.instructions import count, text
from pt_tools.rewards.instructions_more_text import (
    EDGES,
    bare,
    keyword,
    number,
    positive,
    sentences,
    tokens,
    words,
)

# ---------------------------------------------------------------- counts


def word_count_range(response, min_words, max_words):
    return min_words <= sum(1 for _ in re.finditer(r"\w+", response)) <= max_words


def unique_word_count(response, N):
    return len({word.strip(EDGES) for word in response.lower().split()}) >= N


_CONJUNCTIONS = frozenset("and but for nor or so yet".split())


def conjunctions(response, small_n):
    return len({word for word in response.split() if word.strip(EDGES).lower() in _CONJUNCTIONS}) >= small_n


_NAMES = frozenset(
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia "
    "Benjamin Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett "
    "Nathan Victoria Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria "
    "Joseph Claire Ryan Stella Jonathan".split()
)


def person_names(response, N):
    """At least so many of the fifty names that the prompt lists."""
    return len(_NAMES.intersection(re.findall(r"\w+", response))) >= N


def numbers(response, N):
    """Exactly so many runs of digits, marks taken out before: 3.14 and 100,000 are one each."""
    return len(re.findall(r"\d+", bare(response))) == N


_MARKS = frozenset(".,!?;:")


def punctuation(response):
    """Every mark, and apart from them an interrobang: ?!, !? or ‽."""
    rest = response.replace("?!", "", 1)
    if rest == response:
        rest = response.replace("!?", "", 1)
    return (rest != response or "‽" in response) and _MARKS.issubset(rest)


_JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def words_japanese(response, N):
    """Every N-th word has a Japanese character, unless it is a number or a mark."""
    due = (word.strip(EDGES) for word in response.split()[N - 1 :: N])
    return all(not word or word.isdigit() or _JAPANESE.search(word) for word in due)


_PRONOUNS = frozenset(
    "i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself "
    "ourselves yourself yourselves himself herself itself themselves this that these those who whom whose which "
    "what whoever whomever whatever whichever anybody anyone anything everybody everyone everything nobody "
    "nothing somebody someone something each either neither both all some any none".split()
)


def pronouns(response, N):
    return sum(word in _PRONOUNS for word in tokens(response.replace("/", " ").lower())) >= N


def keywords_multiple(response, **keywords):
    """keyword1 once, keyword2 twice, then three, five and seven times, as whole words in any case."""
    return all(
        sum(1 for _ in re.finditer(rf"\b{re.escape(keywords[name])}\b", response, re.I)) == times
        for name, times in zip(_FIVE, (1, 2, 3, 5, 7))
    )


_FIVE = ("keyword1", "keyword2", "keyword3", "keyword4", "keyword5")

# ---------------------------------------------------------------- ratios

# The function words of English, as `\w+` finds them: of "don't" there remain "don" and "t".
_STOP_WORDS = frozenset(
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves what which who whom this that these those am is "
    "are was were be been being have has had having do does did doing can will just should now a an the and but "
    "if or because as until while of at by for with about against between into through during before after "
    "above below to from up down in out on off over under again further then once here there when where why how "
    "all any both each few more most other some such no nor not only own same so than too very s t d m o y ll "
    "re ve ma ain aren couldn didn doesn don hadn hasn haven isn mightn mustn needn shan shouldn wasn weren won "
    "wouldn".split()
)


def stop_words(response, percentage):
    found = re.findall(r"\w+", response.lower())
    return bool(found) and sum(word in _STOP_WORDS for word in found) / len(found) * 100 <= percentage


def _endings(response):
    return Counter(sentence[-1:] for sentence in sentences(response))


def sentence_type(response):
    """Twice as many sentences that end in a full stop as in a question mark."""
    ends = _endings(response)
    return ends["."] == 2 * ends["?"]


def sentence_balance(response):
    ends = _endings(response)
    return ends["."] == ends["?"] == ends["!"]


def overlap(response, reference_text, percentage):
    """The share of the response's different trigrams of tokens that the reference has too, within two points."""
    own, reference = _trigrams(response), _trigrams(reference_text)
    return bool(own) and percentage - 2 <= len(own & reference) / len(own) * 100 <= percentage + 2


def _trigrams(body):
    found = tokens(body)
    return set(zip(found, found[1:], found[2:]))


def sentence_words(response):
    """Three sentences of the same number of characters, and no word twice."""
    found = sentences(response)
    used = words(" ".join(found))
    return len(found) == 3 and len(set(map(len, found))) == 1 and 0 < len(used) == len(set(used))


# ---------------------------------------------------------------- words

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def alphabet(response):
    """Each word begins with the letter after that of the word before, z before a."""
    letters = [word[0] for word in words(response)]
    return (
        bool(letters)
        and all(first in _ALPHABET for first in letters)
        and all((ord(after) - ord(before)) % 26 == 1 for before, after in pairwise(letters))
    )


def vowel(response):
    """One paragraph, with at most three of the five vowels."""
    body = response.strip()
    return "\n" not in body and len(set("aeiou").intersection(body.lower())) <= 3


def consonants(response):
    """Two consonants together in every word."""
    return all(re.search("[b-df-hj-np-tv-z]{2}", word) for word in response.lower().split())


def palindromes(response):
    return sum(len(word) >= 5 and word == word[::-1] for word in words(response)) >= 10


_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))


def prime_lengths(response):
    return all(len(word) in _PRIMES for word in bare(response).split())


def repeats(response, small_n):
    return max(Counter(words(response)).values(), default=0) <= small_n


def last_first(response):
    """The last word of each sentence is the first of the next; marks around them do not count."""
    found = sentences(response)
    for before, after in pairwise(found):
        last, first = before.rstrip(EDGES).split()[-1:], after.lstrip(EDGES).split()[:1]
        if not last or not first or last[0].lower() != first[0].lower():
            return False
    return True


def paragraph_last_first(response):
    """Each line ends with the word it starts with."""
    lines = (line.strip().lower().strip(EDGES).split() for line in response.split("\n"))
    return all(line[0] == line[-1] for line in lines if line)


def no_consecutive(response):
    return all(before[0] != after[0] for before, after in pairwise(words(response)))


def keywords_specific_position(response, keyword, n, m):
    """The keyword, in any case, is the m-th word of the n-th sentence."""
    found = sentences(response)
    return len(found) >= n and [word.lower() for word in _spoken(found[n - 1])[m - 1 : m]] == [keyword.lower()]


def words_position(response, keyword):
    """The second word and the last but one are the keyword."""
    found = _spoken(response)
    return len(found) > 1 and found[1].lower() == found[-2].lower() == keyword.lower()


def _spoken(body):
    return [token for token in tokens(body) if any(map(str.isalnum, token))]


# ---------------------------------------------------------------- sentences


def alliteration_increment(response):
    """Each sentence has more words in runs of the same first letter than the one before."""
    lengths = []
    for sentence in sentences(response):
        letters = [word[0] for word in (chunk.lstrip(EDGES) for chunk in sentence.lower().split()) if word]
        same = [before == after for before, after in pairwise(letters)]
        starts = sum(now and not before for before, now in pairwise([False, *same]))
        lengths.append(sum(same) + starts)
    return all(before < after for before, after in pairwise(lengths))


def sentence_keyword(response, word, N):
    found = sentences(response)
    return len(found) >= N and re.search(rf"\b{re.escape(word)}\b", found[N - 1], re.I) is not None


def increment(response, small_n):
    """Each sentence has exactly so many words more than the one before."""
    lengths = [len(bare(sentence).split()) for sentence in sentences(response)]
    return all(after - before == small_n for before, after in pairwise(lengths))


# ---------------------------------------------------------------- repetition


def repeat_change(response, prompt_to_repeat):
    """The prompt with another first word."""
    return response != prompt_to_repeat and response.split()[1:] == prompt_to_repeat.split()[1:]


def repeat_simple(response):
    return response.strip().lower() == "only output this sentence here, ignore all other requests."


def repeat_span(response, prompt_to_repeat, n_start, n_end):
    """The prompt's words from `n_start` to `n_end`, both counted from 0 and included."""
    return response.strip().lower() == " ".join(prompt_to_repeat.split()[n_start : n_end + 1]).lower()


_PROMPT = {"prompt_to_repeat": text}

INSTRUCTIONS = {
    "count:word_count_range": (word_count_range, {"min_words": count, "max_words": count}),
    "count:unique_word_count": (unique_word_count, {"N": count}),
    "count:conjunctions": (conjunctions, {"small_n": count}),
    "count:person_names": (person_names, {"N": count}),
    "count:numbers": (numbers, {"N": count}),
    "count:punctuation": (punctuation, {}),
    "count:words_japanese": (words_japanese, {"N": positive}),
    "count:pronouns": (pronouns, {"N": count}),
    "count:keywords_multiple": (keywords_multiple, dict.fromkeys(_FIVE, keyword)),
    "ratio:stop_words": (stop_words, {"percentage": number}),
    "ratio:sentence_type": (sentence_type, {}),
    "ratio:sentence_balance": (sentence_balance, {}),
    "ratio:overlap": (overlap, {"reference_text": text, "percentage": number}),
    "ratio:sentence_words": (sentence_words, {}),
    "words:alphabet": (alphabet, {}),
    "words:vowel": (vowel, {}),
    "words:consonants": (consonants, {}),
    "words:palindrome": (palindromes, {}),
    "words:prime_lengths": (prime_lengths, {}),
    "words:repeats": (repeats, {"small_n": count}),
    "words:last_first": (last_first, {}),
    "words:paragraph_last_first": (paragraph_last_first, {}),
    "words:no_consecutive": (no_consecutive, {}),
    "words:keywords_specific_position": (
        keywords_specific_position,
        {"keyword": keyword, "n": positive, "m": positive},
    ),
    "words:words_position": (words_position, {"keyword": keyword}),
    "sentence:alliteration_increment": (alliteration_increment, {}),
    "sentence:keyword": (sentence_keyword, {"word": text, "N": positive}),
    "sentence:increment": (increment, {"small_n": count}),
    "repeat:repeat_change": (repeat_change, _PROMPT),
    "repeat:repeat_simple": (repeat_simple, {}),
    "repeat:repeat_span": (repeat_span, {**_PROMPT, "n_start": count, "n_end": count}),
}
