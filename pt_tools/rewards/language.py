"""Which language a text is written in: by script, then by function words, endings and letters. Deterministic.

Covers the thirty languages of IFEval and Chinese. It is no general detector: text in the Latin script counts as English
unless the words of another of these languages outweigh the English ones, and so does text all in capitals. On whole
answers it agrees with langdetect, which IFEval's reference uses; on a few words, which langdetect often takes for
another language, or on halves in two languages, it need not.
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
_WEIGHTS = {"latin": 1, "han": 2, "kana": 2, "hangul": 0.8}  # of a character beside those of another script
_WORDS = {
    "latin": {
        "en": "the a an of to and in is it that for was on are with as i you his they at be this have from or had "
        "by not but what all were we when your can said there use each which she do how their if will my me "
        "no so our us he her than more them other who time some any may like well also then these been would "
        "could should about into out up one two new many most only over such because through where after "
        "before being between both does own same while don't it's i'm",
        "de": "der die das und ist nicht ein eine einen ich du er sie wir ihr zu den dem des mit auf für von im in "
        "sich auch es an als wie war aber bei oder nach aus wenn noch wird sind über dass daß mein dein kein "
        "haben hat werden diese dieser dieses einer eines zur zum vom beim durch können kann muss sollte "
        "waren wurde worden immer sehr nur so mehr man da doch zwischen vor unter gegen ohne bis ihre ihren "
        "seine uns euch mich dich alle viele",
        "es": "el la los las de que y en un una es no se por con para su al lo como más pero sus le ya o este sí "
        "porque esta entre cuando muy sin sobre también me hasta hay donde son del tu mi está yo nos tiene "
        "puede ser ha han fue era estar están usted mis tus nuestro nuestra todo todos toda todas otro otra "
        "así bien cada desde durante antes después hacer gran ese esa eso mucho siempre qué cómo él ella "
        "ellos hace solo debe",
        "fr": "le la les de des et en un une est que qui dans pour pas sur au aux avec ce cette il elle nous vous "
        "ne se je son sa ses mais ou où par plus du leur sont être avoir fait tout comme ont été ils à c'est "
        "peut cet ces n'est d'un d'une qu'il l' d' très aussi bien sans sous après avant entre depuis chaque "
        "vos votre nos notre mon ma mes ton ta tes eux doit faire fois tous toutes toute deux si lui était "
        "plusieurs pendant peu",
        "it": "il lo la i gli le di che e è un una in per con non si da del della dei delle al alla sono come più "
        "ma anche su nel nella ha questo questa io mi ti ci perché quando suo sua essere sia stato stata "
        "hanno può dello degli dai dal dalla nei nelle sul sulla sui siamo era erano tutti tutte tutto ogni "
        "molto prima dopo senza tra fra noi voi loro lui lei mio mia tuo tua suoi sue dove cui così già "
        "quindi però deve ciò",
        "pt": "o a os as de que e do da em um uma para com não se na no por mais dos das como mas ao ele ela seu "
        "sua ou quando muito nos já eu também só pelo pela até isso são é você está foi ser tem pode têm "
        "foram estão este esta esse essa isto nós eles elas dele dela meu minha teu tua nosso nossa todo "
        "todos toda todas muita bem sem sobre após antes depois entre cada fazer deve pelos pelas aos às lhe "
        "onde quem porque então ainda sempre",
        "pl": "i w na z do się że nie to jest o jak po co ale za od przez dla tak czy być był była są jego jej ich "
        "tylko już lub może które który która oraz przy mnie mi ma ten ta tego tym tej te mają można bardzo "
        "więcej gdy gdzie kiedy wszystko wszystkie ze pod nad bez między jako nas nam was wam którzy których "
        "każdy także również jeśli aby żeby nawet został została",
        "vi": "và của là có không được cho trong một những các với người này đã để khi đến từ về như tôi bạn ở ra "
        "thì sẽ cũng nhưng lại vào rất phải nếu tại bằng hơn nhiều đó nào làm thể việc năm sau trước trên "
        "dưới giữa mà do theo đang chúng ta anh chị em ông bà nó họ cách điều gì ai hay hoặc cả hết con thời "
        "gian nhất cùng còn mới",
        "sw": "na ya wa kwa ni la za katika kuwa hii kama cha yake hiyo pia lakini au sana wakati watu mimi wewe "
        "yeye sisi hivyo vya yangu yako wao huu huo zaidi ili bila kila moja hapa hakuna kuna kwamba ambayo "
        "ambao ambapo hata tu tena kisha baada kabla ndani nje kubwa ndogo nzuri mtu watoto wetu yetu wenu "
        "yao zao lake lao wako wangu changu chake kutoka kwenye hadi pamoja kwani ikiwa basi hivi hilo hili "
        "hayo haya kitu vitu mara siku mwaka wengi nyingi mengi nina ana tuna una bado sasa unaweza tunaweza "
        "anaweza karibu jinsi gani nini nani wapi lini",
        "fi": "ja on ei se että hän oli mutta kun niin kuin ovat olla myös joka ole sen tai minä sinä he me mikä "
        "tämä jos nyt vain voi hänen ne siitä sitä minun kanssa eivät en et emme ette ollut olisi tulee "
        "voivat voidaan pitää tämän tässä tällä tätä nämä näiden jotka jonka jossa kuten kaikki kaikkien "
        "paljon hyvin hyvä enemmän vielä aina sekä koska kuinka missä mitä kuka meidän teidän heidän sinun "
        "siinä sillä niiden vaan mukaan jälkeen ennen välillä ilman kautta jo saa itse toinen",
    },
    "cyrillic": {
        "ru": "и в не на я что он с как это по но из у к она за то так же от его все мы вы бы для о был быть есть "
        "или мой ты этот эта эти этого чтобы если когда где уже ещё еще только может можно нужно очень более "
        "свой своей нас вас им них её ее тоже также во со при под над между через после была были будет лет",
        "uk": "і в не на я що він з як це та але із у до вона за то так же від його все ми ви для про був бути є "
        "або мій ти й який яка які якщо щоб коли де вже ще тільки може можна треба дуже більше свій своєї нас "
        "вас їм них її також при під над між через після була були буде років цього цей ця ці",
        "bg": "и в не на аз че той с как това по но от у към тя за то така същия ги го ще се са съм да е или което "
        "който този тази тези която които ако когато къде вече още само може можем трябва много повече свой "
        "своята нас вас им ни ми ви му ѝ също със във при под над между през след беше бяха бъде няма има "
        "като до",
    },
    "arabic": {
        "ar": "في من على أن إلى التي الذي هذا هذه كان لا ما مع عن كل أو هو هي ثم قد بعد عند لم لن أنا إن ذلك تلك "
        "هناك حيث كما بين يمكن يجب أكثر أيضا غير به له لها فيها عليه كانت يكون تكون نحن أنت بعض جدا منذ حتى "
        "إذا أي ولا وفي ومن التى الذين خلال",
        "fa": "و در به از که این است را با برای آن یک می ها خود تا بر کند شود ما شما او هم من نیز ای هر شد بود اگر "
        "نیست شده کرد کرده کنید کنیم باشد دارد دارند دارم بودن هستند هستم خواهد باید اما ولی چه چون پس همه "
        "همین بسیار خیلی بین پیش روی دیگر مورد های هایی آنها ایشان وی نمی",
        "ur": "کے کی کا میں ہے اور سے کو نے یہ ہیں پر اس کہ کر ایک بھی تھا ہو نہیں جو آپ ہم وہ گیا لیے ہوا ہوئے "
        "ہوتا ہوتی ہوتے کیا گئی گئے رہا رہی رہے تھی تھے تو ان اپنے اپنی جس یا تک ساتھ بعد لئے ہے۔ کوئی کچھ "
        "بہت کرنے کرتا کرتے کریں گا گے گی ہو۔ دو سب مگر لیکن جب اگر",
    },
    "devanagari": {
        "hi": "है के में की का और से को हैं पर यह एक ने कि भी नहीं हो कर था इस मैं आप हम वह लिए तो जो या थे अपने "
        "करने करना किया किए गया गई गए रहा रही रहे सकते सकता होता होती होते हुए हुई लेकिन क्या कोई कुछ बहुत "
        "साथ बाद सभी उनके इसके जब अगर मैंने मेरे हमारे आपके द्वारा रूप तक करते करता",
        "mr": "आहे आणि या च्या ला ने हे की तो ते मी आहेत होते होता एक नाही असे त्या मध्ये साठी पण ही आम्ही तुम्ही "
        "काय करून त्यांच्या नाहीत हा त्यांनी त्याच्या त्यामुळे माझ्या तुमच्या आपल्या करणे केले केला केली झाले "
        "झाला झाली असते असतो अशा किंवा म्हणून म्हणजे पासून सर्व खूप जर जेव्हा कारण परंतु पुन्हा होतो होती "
        "आम्हाला त्याला येथे मधील वर तर",
        "ne": "छ र को मा का ले यो हो छन् पनि गर्न एक लागि भएको थियो म हामी तपाईं छैन वा गरेको हुन् गर्ने तर भने "
        "त्यो होस गर्नु गर्छ गर्छन् हुन्छ हुन्छन् भयो भएका थिए थिएन उनी उनले हाम्रो मेरो तपाईंको यस यसको यसले "
        "त्यसैले अथवा सबै धेरै तथा अनि पछि अघि देखि सम्म बारेमा भन्ने भन्दा जुन छु छौं छौ हरू सक्छ सक्छन् "
        "गरेर गरी आफ्नो जस्तै नै पर्छ",
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
        "ar": "ةىأإؤي", "fa": "\u200c", "ur": "ٹڈڑںےہھ",
    },
    "devanagari": {
        "mr": "ळ",
    },
}  # fmt: skip
_ENDINGS = {  # the last three letters of words of five and more: commoner in this language than in the others
    "latin": {
        "en": "ing ess ted lly ity tly cal ely ers ght led ful sed ies ive ous ple ked ack ugh hed ard ear uld ome nal",
        "de": "ten len gen hen ern sch ben cht ahl kte eit ung zen hte hlt eln ich ken ell eht rde cke lte ück ält nds",
        "es": "ión ría nes dad ios los ñas víe tán sos jos cer tos ror ces rse cia ado ada aron ías emo ndo iva",
        "fr": "eur ées urs ant ème ère ède uez sez lez ité eau vez nés ons ule îne été tée ait ent eux que oir ais ier",
        "it": "ato ati are tto ori llo tti eri ore nti ere zza rso nno zzo gio ssi tà ità gli ggi cco nto nte lla",
        "pt": "ção ões eis iro nha rão nça nho ião erá dos ças tão lha iga eio aram ndo dade sse mos gem",
        "pl": "nie ych cji ane wać cja ści ony ski cie ość ego iem owy any nym cych uje tów ała iej łem ami kie ców",
        "vi": "ờng ống yền ững ợng ớng ếng ười ưng úng ính iều ước ương yện iệu iết",
        "sw": "sha iwa aji hwa iri dhi eza ani aka ari nye izo vyo fya ote jwa eka asa iko twa ana ili nya wa oka",
        "fi": "aan een ään ttu llä ssa tta ssä vat iin tää stä kki ksi kin eet kaa itä nut tty lla sta uus nen lle",
    },
    "cyrillic": {
        "ru": "ный ные ать ное ных ной ным ить тся ную ция ием еть ает ыми щие ого его ами ость ешь ский ого",
        "uk": "ння них іть ені ати ька ції тів ний ним ити ція уть ути ній ної лів цій ого ими ість ський ають",
        "bg": "ата ето ете ени ане ите ият ява ост ото яна тен ват аме ите ция ват ена ски тва яха ния",
    },
    "arabic": {
        "ar": "نات لية كون يمة ودة لمة الة ارة ادة يات ين ات ون راء كثر تها ية",
        "fa": "نید ارد یست شته های ستی ایی اده وند نیم نده اید افت یند ند دید تان ترین انی شود کند",
        "ur": "انے یاں نوں وئی ائے ئیں یں ہیں ہلے تے کتی وئے رنے ریں نا ونے تا تھا",
    },
    "devanagari": {
        "hi": "ें। िये रें ोना हें हीं रने रता नों रके ाकि सके पने ियों ाओं तों गों",
        "mr": "ाठी ाची ्या ेले ्ही ्ये ाही ेला वले ून ाला ावर ाचा ाचे ांना तात मध्ये तील ेली ायचे णे णि",
        "ne": "होस एको हरु ्नु ेको हरू न्छ ्दछ र्न र्छ ाको मा का ले को बाट न्छन् दै लाई नन् ोस् र्ने",
    },
}  # fmt: skip
_WORDS = {script: {lang: set(words.split()) for lang, words in table.items()} for script, table in _WORDS.items()}
_ENDINGS = {
    script: {lang: {ending[-3:] for ending in endings.split()} for lang, endings in table.items()}
    for script, table in _ENDINGS.items()
}

LANGUAGES = sorted({*_ONE_LANGUAGE.values(), *(lang for table in _WORDS.values() for lang in table), "ja", "zh"})


def detect(text):
    """The language code of `text`: one of LANGUAGES, "und" if its script is none of theirs, None if without letters."""
    scripts = Counter()
    for char, n in Counter(text).items():
        scripts[_script(char)] += n
    del scripts[None]
    if not scripts:
        return "und" if any(map(str.isalpha, text)) else None
    script = max(scripts, key=lambda script: scripts[script] * _WEIGHTS.get(script, 1.3))
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
    endings = Counter()
    for word, n in words.items():
        endings[word[-3:]] += n if len(word) > 4 else 0
    letters = Counter(text)
    known = {}
    for lang, own in _WORDS[script].items():
        known[lang] = [n for word, n in words.items() if word in own]
        known[lang] += [0.5 * endings[ending] for ending in _ENDINGS[script][lang] if endings[ending]]
        known[lang] += [0.5 * letters[letter] for letter in _LETTERS[script].get(lang, "") if letters[letter]]
    if script == "latin":  # names and loan words are not yet another language
        needed = sum(words.values()) / 10
        known = {lang: n for lang, n in known.items() if lang == "en" or (len(n) > 1 and sum(n) >= needed)}
        if needed > 3:  # of a text in two languages the other one is what stands out
            known["en"].append(-0.2 * sum(known["en"]))
    return max(known, key=lambda lang: sum(known[lang]))  # a tie goes to the first of the table: en, ru, ar, hi
