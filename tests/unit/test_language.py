"""Language detection: every language, English in any case, mixed texts, texts without a language."""

import json
import os
import subprocess
import sys

import pytest

from pt_tools.rewards import language

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
    assert len(texts) > 2000 and english >= 0.99 * len(texts)


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_english_in_one_case_is_english(data, change):
    rows = json.load(open(data / "dolly" / "dolly_3k.json"))
    texts = [change(row["output"]) for row in rows if len(row["output"].split()) >= 30]
    assert len(texts) > 1000 and sum(language.detect(text) == "en" for text in texts) >= 0.995 * len(texts)


def test_a_line_of_english_does_not_hide_an_answer_in_another_language():
    for lang, text in SAMPLES.items():
        assert language.detect(f"Sure! Here you go:\n\n{text} {text}") == lang
        assert language.detect(f"{text}\n\n" + SAMPLES["en"] * 8) == "en"


def test_what_is_not_among_the_languages():
    assert language.detect("Η γάτα κοιμάται στο σπίτι.") == "und"
    assert [language.detect(text) for text in ("", " \n", "12 + 3 = 15!", "🙂", "\ud800")] == [None] * 5


def test_verdicts_do_not_depend_on_the_hash_seed():
    code = f"from pt_tools.rewards import language; print([language.detect(t) for t in {list(SAMPLES.values())!r}])"
    seen = {subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                           capture_output=True).stdout for seed in ("1", "2", "3")}  # fmt: skip
    assert seen == {(repr(list(SAMPLES)) + "\n").encode()}
