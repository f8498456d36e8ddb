"""Words, prompt keys and n-grams as numbers: against twins that go character by character."""

import re
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pt_tools.curate import grams, words
from pt_tools.curate.words import prompt_key

TEXT = st.text(st.one_of(
    st.sampled_from("abcXYZ 019 .,-+*\n_<>%éÉßẞİıΣςσ“”—’日本ไทยкК🙂👍×÷−€ÅK𝐀ｱは가Ⓐª½"), st.sampled_from(["\u0301", "\u0307", "\u200d", "\u093e"]),
    st.characters(codec="utf-8")), max_size=40)


def spelled(text):
    """Character by character, from the definition."""
    text = unicodedata.normalize("NFC", text).replace("İ", "i").lower().replace("ς", "σ")
    found, word = [], ""
    for c in text:
        han = 0x20000 <= ord(c) < 0x40000
        letter = ord(c) < 0x40000 and (c.isalnum() or unicodedata.category(c)[0] == "M" or han)
        alone = letter and (han or any(a <= ord(c) <= b for a, b in words.SPACELESS))
        if alone or not letter:
            found += [word] if word else []
            found += [c] if alone else []
            word = ""
        else:
            word += c
    return found + ([word] if word else [])


@given(TEXT)
def test_words_are_those_of_the_twin(text):
    assert words.words(text) == spelled(text)


def test_words_of_many_scripts():
    assert words.words("Don't_stop: ÉTÉ 3.14") == ["don", "t", "stop", "été", "3", "14"]
    assert words.words("東京は,ok。") == ["東", "京", "は", "ok"]
    assert words.words("สวัสดี") == list("สวัสดี")  # five characters, one of them a mark, each by itself
    assert words.words("हिन्दी की") == ["हिन्दी", "की"]  # vowel signs belong to the word
    assert words.words("مرحبا بالعالم!") == ["مرحبا", "بالعالم"]
    assert words.words("e\u0301te\u0301") == words.words("été") == ["été"]
    assert words.words("İSTANBUL ΟΔΟΣ") == ["istanbul", "οδοσ"]
    assert words.words("") == words.words("?! —") == []


BETWEEN = re.compile(f"[{words.BETWEEN}]")


def test_every_separator_is_one():
    """What prompt keys fold away is no letter, no mark and no operator."""
    for code in range(0x110000):
        c = chr(code)
        if BETWEEN.fullmatch(c):
            assert not c.isalnum() and unicodedata.category(c)[0] != "M" and c not in words.OPERATORS, hex(code)


def test_operators_of_other_forms_count():
    """In Chinese and Japanese a sum may be written with signs of full width."""
    others = [c for c in map(chr, range(128, 0x110000)) if unicodedata.normalize("NFKC", c) in (*words.OPERATORS, "-")]
    assert len(others) > 15
    for c in [*others, "⁄", "٪", "‰"]:
        assert prompt_key([f"５{c}３"]) != prompt_key(["５ ３"]), hex(ord(c))
    assert len({prompt_key([f"５{c}３＝？"]) for c in "＋－＊／％＾"}) == 6


def test_letters_of_another_length_in_lower_case_are_known():
    every = (chr(code) for code in range(128, words.PLANES) if not 0xD800 <= code < 0xE000)
    assert {c for c in every if len(words.fold(c).encode()) != len(c.encode())} <= {*words.RESIZED} | {
        c for c in map(chr, range(128, words.PLANES)) if unicodedata.normalize("NFC", c) != c}
    for c in words.RESIZED:
        assert words.words(f"a{c}b") == [f"a{words.fold(c)}b"]


def test_every_sign_between_words_is_a_space():
    """Whatever its bytes in UTF-8 are."""
    signs = BETWEEN.findall("".join(map(chr, (*range(0x80, 0xD800), *range(0xE000, 0x10000)))))
    assert len(signs) > 500
    assert {c for c in signs if prompt_key([f"б{c}b {c}{c} b{c}"]) != ("б b b",)} <= {"İ"}
    for c in map(chr, range(0xA0, 0x3000)):
        if not BETWEEN.match(c) and not unicodedata.combining(c) and unicodedata.normalize("NFC", c) == c:
            assert c.lower() in prompt_key([f"б{c}b"])[0] or c in "×÷−" + "İς", hex(ord(c))


def test_prompt_keys():
    assert prompt_key(["What is 2+2?"]) == prompt_key(["what  IS 2 + 2"]) == ("what is 2 + 2",)
    assert len({prompt_key([f"What is 47{op}38?"]) for op in "+-*/^"}) == 5
    assert prompt_key(["47-38"]) == prompt_key(["47 − 38"])
    assert prompt_key(["a well-known man"]) == prompt_key(["A well known man."])
    assert prompt_key(["?!"]) != prompt_key(["!?"])
    assert prompt_key(["a b"]) != prompt_key(["a", "b"])
    assert prompt_key(["“Ça va” — ¿qué?"]) == prompt_key(["ça va: que\u0301"])
    assert prompt_key(["東京。 大阪"]) == prompt_key(["東京大阪"]) != prompt_key(["東京"])
    assert prompt_key(["good 👍"]) != prompt_key(["good 👎"])
    assert prompt_key(["की"]) != prompt_key(["कि"])


@given(TEXT, st.randoms(use_true_random=False))
def test_a_prompt_key_does_not_see_case_spacing_and_punctuation(text, rng):
    text = text.replace("-", " ")  # before a digit it is a minus
    other = "".join(rng.choice([c, c.upper() if len(c.upper()) == 1 and c.upper().lower() == c else c]) if c.isalnum() else c for c in text)
    other = other.replace(" ", rng.choice(["  ", "\n", ", ", " — "])) + rng.choice(["", "!", " …", "。"])
    if words.words(text):
        assert prompt_key([other]) == prompt_key([unicodedata.normalize("NFD", text)]) == prompt_key([text])
        assert words.words(other) == words.words(text)


@given(st.lists(TEXT, max_size=8))
def test_numbers_are_one_to_one_with_words(texts):
    numbers, starts = grams.hash_words(texts)
    assert len(starts) == len(texts) + 1 and starts[-1] == len(numbers)
    of = {}
    for text, start, end in zip(texts, starts, starts[1:]):
        found = words.words(text)
        assert len(found) == end - start
        for word, number in zip(found, numbers[start:end].tolist()):
            assert of.setdefault(word, number) == number
    assert len(set(of.values())) == len(of)


def test_long_words_differ_by_any_character():
    base = "x" * 700
    texts = [base[:i] + "y" + base[i + 1:] for i in (0, 7, 8, 9, 63, 64, 65, 400, 699)] + [base, base[:-1], base + "x", "x" * 64, "x" * 63]
    numbers, starts = grams.hash_words(texts)
    assert len(set(numbers.tolist())) == len(texts) and starts.tolist() == list(range(len(texts) + 1))


def test_texts_do_not_depend_on_what_is_beside_them(monkeypatch):
    texts = ["İ one", "plain words here", "東京", "ẞ", "", "e\u0301"]
    alone = [grams.hash_words([text])[0].tolist() for text in texts]
    for piece in (1, 10, 2**17):
        monkeypatch.setattr(grams, "PIECE", piece)
        numbers, starts = grams.hash_words(texts)
        assert [numbers[a:b].tolist() for a, b in zip(starts, starts[1:])] == alone


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=9), max_size=6), st.integers(1, 6))
def test_ngrams_do_not_cross_texts(texts, n):
    numbers, starts = grams.hash_words([" ".join(words) for words in texts])
    found, places = grams.ngrams(numbers, starts, n)
    wanted = [[tuple(text[i:i + n]) for i in range(len(text) - n + 1)] for text in texts]
    assert np.diff(places).tolist() == [len(of_text) for of_text in wanted]
    of = {}
    for gram, number in zip((gram for of_text in wanted for gram in of_text), found.tolist()):
        assert of.setdefault(gram, number) == number
    assert len(set(of.values())) == len(of)
