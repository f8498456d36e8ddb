"""The constraints verifier: each instruction on hand-written texts with both verdicts, arguments, modes, languages."""

import json
import random

import pytest

from pt_tools import rewards
from pt_tools.rewards import constraints, language
from pt_tools.rewards import sentences
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
    ],
)
def test_an_unusable_row_is_refused_and_never_rewarded(ids, kwargs, why):
    record = {"verifier": {"name": "constraints", "instruction_id_list": ids, "kwargs": kwargs}}
    with pytest.raises(ValueError, match=why):
        rewards.check(record)
    verdict = rewards.verify(record, "text")
    assert verdict.reward is None and why in verdict.errors["constraints"] and not verdict.scores


def test_null_arguments_of_other_instructions_are_no_arguments():
    kwargs = {"relation": LEAST, "num_words": 2.0, "keywords": None, "language": None}
    assert grade(["length_constraints:number_words"], [kwargs], "two words") == (1.0, [True])


def test_sentences():
    texts = {"": 0, "One": 1, "One. Two? Three!": 3, "Dr. No met J. Doe at 5 p.m. yesterday.": 1, "e.g. this": 2, 'He said "Go." Then he left.': 2,
             "Wait... what? No!": 2, "Version 2.5 is out.\n\nGet it (now!) Here.": 3}  # fmt: skip
    assert {text: sentences.count(text) for text in texts} == texts


SAMPLES = {
    "en": "The cats of the town were asleep when she came home.", "de": "Die Katze schläft, weil sie müde ist und nicht spielen will.",
    "es": "Los gatos duermen en la casa porque hace mucho frío.", "fr": "Les chats dorment dans la maison parce qu'il fait froid.",
    "it": "I gatti dormono nella casa perché fuori fa molto freddo.", "pt": "Os gatos dormem em casa porque não está calor.",
    "pl": "Koty śpią w domu, ponieważ na dworze jest zimno.", "vi": "Những con mèo đang ngủ trong nhà vì trời rất lạnh.",
    "sw": "Paka wanalala katika nyumba kwa sababu ni baridi sana.", "fi": "Kissat nukkuvat talossa, koska ulkona on kylmä ja ne ovat väsyneitä.",
    "ru": "Кошки спят в доме, потому что на улице холодно.", "uk": "Коти сплять у будинку, тому що надворі холодно і їм добре.",
    "bg": "Котките спят в къщата, защото навън е студено.", "ar": "القطط تنام في البيت لأن الجو بارد في الخارج.",
    "fa": "گربه‌ها در خانه می‌خوابند چون بیرون سرد است.", "ur": "بلیاں گھر میں سو رہی ہیں کیونکہ باہر سردی ہے۔",
    "he": "החתולים ישנים בבית כי קר בחוץ.", "hi": "बिल्लियाँ घर में सो रही हैं क्योंकि बाहर ठंड है।", "mr": "बाहेर थंडी आहे म्हणून मांजरी घरात झोपल्या आहेत आणि ते छान आहे.",
    "ne": "बाहिर जाडो छ त्यसैले बिरालाहरू घरमा सुतिरहेका छन्।", "bn": "বাইরে ঠান্ডা তাই বিড়ালরা ঘরে ঘুমাচ্ছে।", "pa": "ਬਾਹਰ ਠੰਢ ਹੈ ਇਸ ਲਈ ਬਿੱਲੀਆਂ ਘਰ ਵਿੱਚ ਸੌਂ ਰਹੀਆਂ ਹਨ।",
    "gu": "બહાર ઠંડી છે તેથી બિલાડીઓ ઘરમાં સૂઈ રહી છે.", "ta": "வெளியே குளிராக இருப்பதால் பூனைகள் வீட்டில் தூங்குகின்றன.", "te": "బయట చలిగా ఉంది కాబట్టి పిల్లులు ఇంట్లో నిద్రపోతున్నాయి.",
    "kn": "ಹೊರಗೆ ಚಳಿ ಇರುವುದರಿಂದ ಬೆಕ್ಕುಗಳು ಮನೆಯಲ್ಲಿ ಮಲಗಿವೆ.", "ml": "പുറത്ത് തണുപ്പായതിനാൽ പൂച്ചകൾ വീട്ടിൽ ഉറങ്ങുന്നു.", "th": "แมวนอนอยู่ในบ้านเพราะข้างนอกหนาว",
    "ko": "밖이 추워서 고양이들이 집에서 자고 있습니다.", "ja": "外が寒いので、猫は家の中で寝ています。", "zh": "外面很冷，所以猫在家里睡觉。",
}  # fmt: skip


def test_one_sentence_of_every_language_is_recognised():
    assert set(SAMPLES) == set(language.LANGUAGES)
    assert {lang: language.detect(text) for lang, text in SAMPLES.items()} == {lang: lang for lang in SAMPLES}
    assert language.detect("12 + 3 = 15!") is None


def test_english_text_is_english(data):
    rows = json.load(open(data / "dolly" / "dolly_3k.json"))
    texts = [row["output"] for row in rows if len(row["output"].split()) >= 5]
    english = sum(language.detect(text) == "en" for text in texts)
    assert len(texts) > 2000 and english >= 0.995 * len(texts)


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
    hostile += ["".join(rng.choices("*-[]<>.\n \"'A", k=200_000)), " \n" * 200_000 + "x"]
    for name, kwargs, _, _ in CASES:
        with limit(120):  # linear work takes a fraction of a second, quadratic work hours
            for text in hostile:
                grade([name], [kwargs], text)
    assert grade(["punctuation:no_comma"], [{}], "x" * 1_000_001) == (0.0, [False])
