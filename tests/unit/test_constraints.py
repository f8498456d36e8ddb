"""The constraints verifier: each instruction on hand-written texts with both verdicts, arguments, modes, languages."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from pt_tools import rewards
from pt_tools.rewards import constraints, sentences
from pt_tools.rewards.instructions import INSTRUCTIONS

LESS, LEAST = "less than", "at least"

# id, arguments, texts that follow, texts that do not
CASES = [
    ("keywords:existence", {"keywords": ["cat", "red dog"]}, ["A Red Dog, a CAT", "concatenate red dogs"], ["cat", "red-dog cat"]),
    ("keywords:frequency", {"keyword": "cat", "relation": LEAST, "frequency": 2}, ["Cat cat", "catcat x"], ["cat", "dog"]),
    ("keywords:frequency", {"keyword": "c+", "relation": LESS, "frequency": 2}, ["cc ccc c", "c+ only"], ["c+ and C+"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "c++"]}, ["concatenate", "cats", "c+"], ["a Cat.", "I like c++."]),
    ("keywords:letter_frequency", {"letter": "E", "let_relation": LEAST, "let_frequency": 3}, ["eEe", "tree e"], ["tree", ""]),
    ("keywords:letter_frequency", {"letter": "e", "let_relation": LESS, "let_frequency": 2}, ["me", "xyz"], ["see", "Eve"]),
    ("keywords:letter_frequency", {"letter": "#", "let_relation": LEAST, "let_frequency": 2}, ["#a #b"], ["#a"]),
    ("length_constraints:number_words", {"relation": LEAST, "num_words": 3}, ["one two three", "it's me"], ["one two", "-- ... one"]),
    ("length_constraints:number_words", {"relation": LESS, "num_words": 3}, ["one two", "x"], ["one two three"]),
    ("length_constraints:number_sentences", {"relation": LEAST, "num_sentences": 2}, ["One. Two.", "Is it? Yes"], ["One.", "Dr. Who came."]),
    ("length_constraints:number_sentences", {"relation": LESS, "num_sentences": 2}, ["Mr. Smith has 3.5 cats.", "A"], ["One! Two!"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "a *** b ***"], ["a\n\nb", "a *** b *** c", "a *** *** b"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"},
        ["one\n\nhello two", 'one\n\n"Hello," he said'],
        ["hello\n\none", "one\n\nHelloo", "one\n\nhello\n\nthree", "hello", "one\n\n\n\nhello"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b c]", "[][x]"], ["[a]", "a [b\nc] [d]", "(a) (b)"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Hi.\nP.S. bye", "p. s. ok"], ["PS bye", "Hi"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Hi\nP.P.S bye", "p. p. s. ok"], ["P.S. bye"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n* b", "- a\n  - b\ntext"], ["* a", "* a\n* b\n- c", "** a\n** b"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, ["*\nb", "*\n* b", "**\n\t- b"], ["*", "**a**", "• a", "1. a"]),
    ("detectable_format:constrained_response", {}, ["My answer is yes.", "Well: My answer is maybe."], ["my answer is yes.", "yes"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and *b*", "**a b** *c*"], ["*a*", "* * and **", "*a\nb* *c*"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1 a\nSection 2 b", "Section1 Section2 Section 3"],
        ["Section 1", "SECTION 1 SECTION 2", "Section A Section B"],
    ),
    ("detectable_format:json_format", {}, ['{"a": [1]}', '```json\n{"a": 1}\n```', "3"], ["{'a': 1}", "{", "[" * 100_000, "Here: {}"]),
    ("detectable_format:title", {}, ["<<My title>>\ntext", "x <<y>> z"], ["<<>>", "<title>", "<< >>", "<<a\nb>>"]),
    ("combination:two_responses", {}, ["one ****** two", "one\n******\ntwo\n******"], ["one", "one ****** one", "a ****** b ****** c", "a ****** ****** b"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write a poem. "}, ["write a poem. Roses", "  WRITE A POEM."], ["Sure: Write a poem.", "Write"]),
    ("startend:end_checker", {"end_phrase": "The end."}, ["bye. the end.", '"x the end."  '], ["The end. Bye", "The end"]),
    ("startend:quotation", {}, ['"hi"', ' "a" b "c" '], ['"hi', 'hi"', '"', "'hi'"]),
    ("punctuation:no_comma", {}, ["a b", "1.000"], ["a, b", "1,000"]),
    ("change_case:english_capital", {}, ["THE CAT IS HERE.", "ROSES AND 12 CATS!"], ["THE cAT", "DIE KATZE IST NICHT DAS", "12"]),
    ("change_case:english_lowercase", {}, ["the cat is here.", "roses and 12 cats!"], ["The cat", "die katze ist nicht das", "12"]),
    ("change_case:capital_word_frequency", {"capital_relation": LEAST, "capital_frequency": 2}, ["NASA and I", "DON'T", "U.S. USA"], ["NASA", "Nasa Usa"]),
    ("change_case:capital_word_frequency", {"capital_relation": LESS, "capital_frequency": 2}, ["NASA", "none"], ["NASA ESA", "I I"]),
    ("tulu:choice", {"options": ["(A) red", "(B) blue"]}, ["(A) red", " red "], ["(A) red, I think", "green"]),
    ("tulu:starred_paragraphs", {"num_paragraphs": 2}, ["a\n * * * \nb", "a* * *b"], ["a\n***\nb", "a", "a\n* * *", "* * * a * * * b"]),
    ("language:response_language", {"language": "de"}, ["Das ist nicht der richtige Weg."], ["This is not the way.", "12"]),
]  # fmt: skip


def grade(ids, kwargs, text, mode="strict"):
    return constraints.grade({"instruction_id_list": ids, "kwargs": kwargs, "mode": mode}, {"text": text})


@pytest.mark.parametrize("name, kwargs, good, bad", CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_instruction(name, kwargs, good, bad):
    assert [grade([name], [kwargs], text) for text in good] == [(1.0, [True])] * len(good)
    assert [grade([name], [kwargs], text) for text in bad] == [(0.0, [False])] * len(bad)


def test_every_instruction_has_a_case():
    ifeval = {name for name in INSTRUCTIONS if not name.startswith("tulu:")}
    assert {case[0] for case in CASES} == set(INSTRUCTIONS) and len(ifeval) == 25


def test_the_score_is_one_only_if_all_hold():
    ids, kwargs = ["punctuation:no_comma", "startend:quotation"], [{}, {}]
    texts = ['"a b"', '"a, b"', "a b", "a, b", ""]
    assert [grade(ids, kwargs, text) for text in texts] == [
        (1.0, [True, True]), (0.0, [False, True]), (0.0, [True, False]), (0.0, [False, False]), (0.0, [False, False])
    ]  # fmt: skip
    assert grade([], [], "text") == (0.0, [])


def test_loose_forgives_first_line_last_line_and_asterisks():
    ids, kwargs = ["punctuation:no_comma"], [{}]
    assert grade(ids, kwargs, "Sure, here:\nno comma", "strict")[0] == 0.0
    assert grade(ids, kwargs, "Sure, here:\nno comma", "loose")[0] == 1.0
    assert grade(ids, kwargs, "Sure,\nno comma\nbye, bye", "loose")[0] == 1.0
    assert grade(ids, kwargs, "ok\na, b\nok", "loose")[0] == 0.0
    assert grade(["startend:end_checker"], [{"end_phrase": "The end."}], "**The end.**", "loose")[0] == 1.0
    assert grade(ids, kwargs, "a, b", "loose")[0] == 0.0  # the empty rest is no text


@pytest.mark.parametrize(
    "ids, kwargs, why",
    [
        (["length:words"], [{}], "unknown instruction"),
        (["length_constraints:number_words"], [{"relation": LEAST}], "num_words is missing"),
        (["length_constraints:number_words"], [{"relation": "more than", "num_words": 3}], "relation must be"),
        (["length_constraints:number_words"], [{"relation": LEAST, "num_words": 2.5}], "whole number"),
        (["length_constraints:number_words"], [{"relation": LEAST, "num_words": True}], "whole number"),
        (["keywords:existence"], [{"keywords": []}], "list of texts"),
        (["keywords:existence"], [{"keywords": None}], "keywords is missing"),
        (["keywords:letter_frequency"], [{"letter": "ab", "let_relation": LESS, "let_frequency": 1}], "one letter"),
        (["language:response_language"], [{"language": "tlh"}], "no language"),
        (["punctuation:no_comma"], [{}, {}], "same length"),
        (["punctuation:no_comma"], None, "same length"),
        (["punctuation:no_comma"], ["x"], "must be an object"),
        (["punctuation:no_comma"], [False], "must be an object"),
        (["punctuation:no_comma"], [{"relation": LEAST}], "no_comma has no argument 'relation'"),
        ([["punctuation:no_comma"]], [{}], "unknown instruction"),
    ],
)
def test_an_unusable_row_is_refused_and_never_rewarded(ids, kwargs, why):
    record = {"verifier": {"name": "constraints", "instruction_id_list": ids, "kwargs": kwargs}}
    with pytest.raises(ValueError, match=why):
        rewards.check(record)
    verdict = rewards.verify(record, "text")
    assert verdict.reward is None and why in verdict.errors["constraints"] and not verdict.scores


@pytest.mark.parametrize("extra, why", [
    ({"mod": "loose"}, "unknown key 'mod'"), ({"mode": "both"}, "unknown mode"), ({"fail_closed": 0}, "true or false"),
])  # fmt: skip
def test_an_object_with_a_slip_is_refused(extra, why):
    with pytest.raises(ValueError, match=why):
        constraints.check({"name": "constraints", "instruction_id_list": [], "kwargs": [], **extra})


def test_both_modes_at_once_are_those_of_the_grades():
    ids = ["punctuation:no_comma", "startend:quotation", "detectable_format:number_highlighted_sections"]
    spec = {"name": "constraints", "key": "k", "instruction_id_list": ids, "kwargs": [{}, {}, {"num_highlights": 1}], "mode": "loose"}
    assert constraints.both(spec, 'Sure, *here*:\n"a"') == ([False, False, True], [True, True, True])
    assert constraints.both(spec, '"a"') == ([True, True, False], [True, True, False])
    assert constraints.both(spec, " ") == ([False] * 3, [False] * 3)
    assert constraints.grade(spec, {"text": 'Sure, *here*:\n"a"'}) == (1.0, [True] * 3)


def test_a_language_that_cannot_be_told_is_followed_only_where_one_asks_for_it():
    ids, kwargs = ["language:response_language", "change_case:english_lowercase"], [{"language": "de"}, {}]
    spec = {"instruction_id_list": ids, "kwargs": kwargs}
    assert constraints.grade(spec, {"text": "12 + 3"}) == (0.0, [False, False])
    assert constraints.grade({**spec, "fail_closed": True}, {"text": "12 + 3"}) == (0.0, [False, False])
    assert constraints.grade({**spec, "fail_closed": False}, {"text": "12 + 3"}) == (0.0, [True, False])  # no small letter
    assert constraints.grade({**spec, "fail_closed": False}, {"text": "this is not german"}) == (0.0, [False, True])
    assert constraints.grade({**spec, "fail_closed": False}, {"text": " "}) == (0.0, [False, False])


def test_eight_threads_give_the_verdicts_of_one(data):
    rows = [json.loads(line) for line in open(data / "ifeval" / "input_data.jsonl")]
    answers = [row["output"] for row in json.load(open(data / "dolly" / "dolly_3k.json"))[: len(rows)]]
    pairs = [({key: row[key] for key in ("instruction_id_list", "kwargs")}, text) for row, text in zip(rows, answers)]
    alone = [constraints.both(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pair: constraints.both(*pair), pairs)) == alone
    assert 0 < sum(map(all, (strict for strict, _ in alone))) < len(rows)
    assert all(strict <= loose for both in alone for strict, loose in zip(*both))


def test_null_arguments_of_other_instructions_are_no_arguments():
    kwargs = {"relation": LEAST, "num_words": 2.0, "keywords": None, "language": None}
    assert grade(["length_constraints:number_words"], [kwargs], "two words") == (1.0, [True])


COUNTS = {
    "": 0, " \n": 0, "One": 1, "One. Two? Three!": 3, "no capitals. still two": 2, "Version 2.5 is out.\n\nGet it (now!) Here.": 3,
    "Mr. Smith met Dr. J. Doe at 5 p.m. yesterday.": 1, "He lives in the U.S. However, she does not.": 2, "the U.S. Senate": 1,
    "e.g. this": 2, "1. Apples\n2. Pears": 3, "1. apples\n2. pears": 1, "It was 1990. Then it rained.": 2, "A. Red\nB. Blue": 3,
    'He said "Go." Then he left.': 2, "(It rained.) We left.": 2, "Really?! Yes!!! No": 3, "Wait... what? No!": 2, "Wait... This is it.": 2,
    "A line\nwithout stops\n\nis one": 1, "See a.b.c for more.": 1, "**Bold.** Then plain.": 2, "**Bold.**": 2, "end.": 1, "… so": 1,
}  # fmt: skip
CAPITALS = {
    "": 0, "I am": 1, "NASA, ESA and a U.S. team": 3, "DON'T": 2, "IT'S CANNOT": 4, "COVID-19 x": 1, "A/B": 1, "A,B": 2, "DON’T": 2,
    "**BIG** (BIG) \"BIG\"": 3, "Mcdonald'S": 1, "3D 2024 -- A--B": 3, "John": 0, "THE END.": 2,
}  # fmt: skip


def test_sentences_and_capital_words():
    assert {text: sentences.count(text) for text in COUNTS} == COUNTS
    quoted = sentences.split(' He said "Go." Then he left. (It rained.)  No')
    assert quoted == ['He said "Go."', "Then he left.", "(It rained.)", "No"]
    assert {text: sentences.capital_words(text) for text in CAPITALS} == CAPITALS


def test_all_ifeval_prompts_load(data):
    rows = [json.loads(line) for line in open(data / "ifeval" / "input_data.jsonl")]
    assert len(rows) == 541
    for row in rows:
        verifier = {"name": "constraints", "instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]}
        rewards.check({"verifier": verifier})
        verdict = rewards.verify({"verifier": verifier}, row["prompt"])
        assert len(verdict.details["constraints"]) == len(row["instruction_id_list"]) and not verdict.errors


def test_hostile_texts_cost_no_reward_and_little_time(limit):
    hostile = ["*" * 300_000, "[" * 300_000, "<<" * 200_000, "- " * 200_000, "." * 400_000, "\n\n" * 200_000, '"' * 300_000, "A." * 200_000]
    rng = random.Random(0)
    hostile += ["* " * 200_000, "a. " * 200_000, "\ud800" * 300_000, "." + " " * 400_000, "(\n" * 200_000, '."' * 200_000, "1.(" * 200_000]
    hostile += ["".join(rng.choices("*-[]<>.\n \"'A", k=200_000)), " \n" * 200_000 + "x"]
    for name, kwargs in {case[0]: case[1] for case in CASES}.items():
        with limit(120):  # linear work takes a fraction of a second, quadratic work hours
            for text in hostile:
                grade([name], [kwargs], text)
    assert grade(["punctuation:no_comma"], [{}], "x" * 1_000_001) == (0.0, [False])
