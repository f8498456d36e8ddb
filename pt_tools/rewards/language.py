"""Which language a text is written in: by script, then by letters and function words. Deterministic, standard library.

Covers the thirty languages of IFEval. It is no general detector: short or mixed text in the Latin script counts as
English unless the words of another language outweigh the English ones.
"""

from __future__ import annotations

import functools
import re
from collections import Counter

# First code point, last code point, script. Kana and Hangul decide over the Han characters they are mixed with.
_BLOCKS = [
    (0x41, 0x24F, "latin"), (0x1E00, 0x1EFF, "latin"), (0x400, 0x52F, "cyrillic"), (0x590, 0x5FF, "hebrew"),
    (0x600, 0x6FF, "arabic"), (0x750, 0x77F, "arabic"), (0xFB50, 0xFDFF, "arabic"), (0xFE70, 0xFEFF, "arabic"),
    (0x900, 0x97F, "devanagari"), (0x980, 0x9FF, "bengali"), (0xA00, 0xA7F, "gurmukhi"), (0xA80, 0xAFF, "gujarati"),
    (0xB80, 0xBFF, "tamil"), (0xC00, 0xC7F, "telugu"), (0xC80, 0xCFF, "kannada"), (0xD00, 0xD7F, "malayalam"),
    (0xE00, 0xE7F, "thai"), (0x3040, 0x30FF, "kana"), (0x3400, 0x9FFF, "han"), (0xAC00, 0xD7AF, "hangul"),
]  # fmt: skip
_ONE_LANGUAGE = {
    "hebrew": "he", "bengali": "bn", "gurmukhi": "pa", "gujarati": "gu", "tamil": "ta", "telugu": "te",
    "kannada": "kn", "malayalam": "ml", "thai": "th", "hangul": "ko",
}  # fmt: skip
_WORDS = {
    "latin": {
        "en": "the a an of to and in is it that for was on are with as i you his they at be this have from or "
        "had by not but what all were we when your can said there use each which she do how their if will "
        "my me no so our us he her",
        "de": "der die das und ist nicht ein eine einen ich du er sie wir ihr zu den dem des mit auf für von im "
        "in sich auch es an als wie war aber bei oder nach aus wenn noch wird sind über dass daß mein "
        "dein kein haben hat werden",
        "es": "el la los las de que y en un una es no se por con para su al lo como más pero sus le ya o este "
        "sí porque esta entre cuando muy sin sobre también me hasta hay donde son del tu mi está yo nos",
        "fr": "le la les de des et en un une est que qui dans pour pas sur au aux avec ce cette il elle nous "
        "vous ne se je son sa ses mais ou où par plus du leur sont être avoir fait tout comme ont été ils "
        "à c'est",
        "it": "il lo la i gli le di che e è un una in per con non si da del della dei delle al alla sono come "
        "più ma anche su nel nella ha questo questa io mi ti ci perché quando suo sua essere gli",
        "pt": "o a os as de que e do da em um uma para com não se na no por mais dos das como mas ao ele ela "
        "seu sua ou quando muito nos já eu também só pelo pela até isso são é você está foi ser tem",
        "pl": "i w na z do się że nie to jest o jak po co ale za od przez dla tak czy być był była są jego jej "
        "ich tylko już lub może które który która oraz przy mnie mi ma",
        "vi": "và của là có không được cho trong một những các với người này đã để khi đến từ về như tôi bạn ở "
        "ra thì sẽ cũng nhưng lại vào rất phải nếu",
        "sw": "na ya wa kwa ni la za katika kuwa hii kama cha yake hiyo pia lakini au sana wakati watu mimi "
        "wewe yeye sisi hivyo vya yangu yako wao huu huo zaidi ili bila kila moja hapa",
        "fi": "ja on ei se että hän oli mutta kun niin kuin ovat olla myös joka ole sen tai minä sinä he me "
        "mikä tämä jos nyt vain voi hänen ne siitä sitä minun kanssa",
    },
    "cyrillic": {
        "ru": "и в не на я что он с как это по но из у к она за то так же от его все мы вы бы для о был быть "
        "есть или мой ты",
        "uk": "і в не на я що він з як це та але із у до вона за то так же від його все ми ви для про був бути "
        "є або мій ти й",
        "bg": "и в не на аз че той с как това по но от у към тя за то така същия ги го ще се са съм да е или "
        "което който за",
    },
    "arabic": {
        "ar": "في من على أن إلى التي الذي هذا هذه كان لا ما مع عن كل أو هو هي ثم قد بعد عند لم لن أنا إن",
        "fa": "و در به از که این است را با برای آن یک می ها خود تا بر کند شود ما شما او هم من نیز ای هر شد بود "
        "اگر",
        "ur": "کے کی کا میں ہے اور سے کو نے یہ ہیں پر اس کہ کر ایک بھی تھا ہو نہیں جو آپ ہم وہ گیا لیے",
    },
    "devanagari": {
        "hi": "है के में की का और से को हैं पर यह एक ने कि भी नहीं हो कर था इस मैं आप हम वह लिए तो जो या थे "
        "अपने",
        "mr": "आहे आणि या च्या ला ने हे की तो ते मी आहेत होते होता एक नाही असे त्या मध्ये साठी पण ही आम्ही "
        "तुम्ही काय करून त्यांच्या",
        "ne": "छ र को मा का ले यो हो छन् पनि गर्न एक लागि भएको थियो म हामी तपाईं छैन वा गरेको हुन् गर्ने तर भने "
        "त्यो",
    },
}  # fmt: skip
_LETTERS = {  # letters that (nearly) only one language of a script has
    "latin": {
        "de": "ßäöü", "es": "ñ¿¡", "pl": "łąęśżźćń", "vi":
        "ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ", "pt": "ãõ", "fr": "çêœèù", "fi": "äö",
    },
    "cyrillic": {
        "ru": "ыэё", "uk": "іїєґ", "bg": "ъ",
    },
    "arabic": {
        "ar": "ةىأإؤي", "fa": "یپچژگک", "ur": "ٹڈڑںےہھ",
    },
    "devanagari": {
        "mr": "ळ",
    },
}  # fmt: skip
_WORDS = {script: {lang: set(words.split()) for lang, words in table.items()} for script, table in _WORDS.items()}

LANGUAGES = sorted({*_ONE_LANGUAGE.values(), *(lang for table in _WORDS.values() for lang in table), "ja", "zh"})


def detect(text):
    """The language code of `text`, None if it has no letters of a known script."""
    scripts = Counter(filter(None, map(_script, text)))
    if not scripts:
        return None
    script = scripts.most_common(1)[0][0]
    if script in ("han", "kana"):
        return "ja" if scripts["kana"] * 10 > scripts["han"] else "zh"
    if script in _ONE_LANGUAGE:
        return _ONE_LANGUAGE[script]
    return _by_words(text.lower(), script)


@functools.lru_cache(maxsize=65536)
def _script(char):
    if not (char.isalpha() or ord(char) > 0x2FF):
        return None
    code = ord(char)
    return next((name for first, last, name in _BLOCKS if first <= code <= last), None)


def _by_words(text, script):
    words = Counter(re.findall(r"[^\W\d_](?:[^\W\d_]|[\u0900-\u097f'])*", text))
    letters = Counter(text)
    known = {lang: [n for word, n in words.items() if word in own] for lang, own in _WORDS[script].items()}
    for lang, own in _LETTERS[script].items():
        known[lang] += [0.5 * letters[letter] for letter in own if letters[letter]]
    if script == "latin":  # names and loan words are not yet another language
        needed = sum(words.values()) / 10
        known = {lang: n for lang, n in known.items() if lang == "en" or (len(n) > 1 and sum(n) >= needed)}
    return max(known, key=lambda lang: sum(known[lang]))  # a tie goes to the first of the table: en, ru, ar, hi
