"""The share of words in the target language, counted by hand."""

import json
import threading

import pytest

from pt_tools.rewards import consistency, language

ENGLISH = "First we look at the triangle and we find that its area is what the question asked for."  # 18 words
GERMAN = "Zuerst sehen wir uns das Dreieck an und dann ist die Fläche nicht mehr schwer zu finden."  # 17 words
CHINESE = "首先我们看这个三角形然后求面积"  # 15 characters
JAPANESE = "まずこの三角形を見て、それから面積を求めます"  # 21 characters, 5 of them Han


def count(text, code="en"):
    consistency.check({"name": "language", "language": code})
    return consistency.count(text, code)


@pytest.mark.parametrize("text, code, expected", [
    (ENGLISH, "en", (18, 18)), (ENGLISH, "zh", (0, 18)), (ENGLISH, "de", (0, 18)), (GERMAN, "de", (17, 17)), (GERMAN, "en", (0, 17)),
    (CHINESE, "zh", (15, 15)), (CHINESE, "en", (0, 15)), (CHINESE, "ja", (0, 15)), (JAPANESE, "ja", (21, 21)), (JAPANESE, "zh", (0, 21)),
    (f"{ENGLISH} {CHINESE}", "en", (18, 33)), (f"{ENGLISH}{CHINESE}", "zh", (15, 33)), (f"{ENGLISH}\n{GERMAN}", "en", (18, 35)),
    (f"{ENGLISH}\n{GERMAN}", "de", (17, 35)), ("Wait, 因此 the answer is 5.", "en", (4, 6)), ("我们用 Python 来算", "zh", (5, 6)),
    ("don’t and don't", "en", (3, 3)), ("cafe\u0301 on the way", "en", (4, 4)), ("Привет, the word", "ru", (1, 3)),
    ("한국어 문장은 이렇게 씁니다 ok", "ko", (4, 5)), ("สวัสดี the", "th", (4, 5)), ("בוקר טוב x", "he", (2, 2)),
    ("ＡＢＣ the word", "en", (3, 3)),
])  # fmt: skip
def test_words_by_hand(text, code, expected):
    assert count(text, code) == expected


@pytest.mark.parametrize("text", [
    "", "12 + 34 = 46", "x y z", "```python\nprint('the answer')\n```", "`the answer`", "$\\text{the answer}$", "\\(the answer\\)",
    "$$\nthe answer\n$$", "\\[ the\n answer \\]", "\\begin{align} the answer \\end{align}", "\\alpha \\le \\beta", "https://the.answer/is",
    "<think>", "!?…", "\U0001f600", "\x00\x1b[31", "\ud800",
])  # fmt: skip
def test_what_is_no_word(text):
    assert count(text) == (0, 0)
    assert consistency.grade({"language": "en"}, {"text": text}) == (0.0, {"reason": "no words"})


@pytest.mark.parametrize("text, words", [
    ("it costs $5 and then $10 more", 5), ("```\nthe answer", 2), ("\\[ the answer", 2), ("$the answer", 2), ("a $x$ and $y$ b", 1),
    ("the ``` not code", 3), ("5 $ and $ 6", 1),
])  # fmt: skip
def test_what_is_never_closed_is_text(text, words):
    assert count(text) == (words, words)


def test_the_part_that_counts():
    text = f"<think>{ENGLISH}</think>\n{CHINESE}"
    shares = {of: consistency.grade({"language": "en", "of": of}, {"text": text}) for of in ("thinking", "answer", "all")}
    assert shares["thinking"] == (1.0, {"words": 18, "target": 18})
    assert shares["answer"] == (0.0, {"words": 15, "target": 0})
    assert shares["all"] == (18 / 33, {"words": 33, "target": 18})
    assert consistency.grade({"language": "en"}, {"text": f"{ENGLISH}</think>{CHINESE}"})[0] == 1.0  # the template opened it
    assert consistency.grade({"language": "en"}, {"text": ENGLISH})[0] == 1.0  # no tags: all of it
    assert consistency.grade({"language": "en", "of": "answer"}, {"text": f"<think>{ENGLISH}"}) == (0.0, {"reason": "no words"})


@pytest.mark.parametrize("every, share", [(1, 1 / 2), (2, 2 / 3), (5, 5 / 6), (10, 10 / 11)])
def test_the_share_falls_with_every_foreign_word(every, share):
    words = (ENGLISH.rstrip(".") + " ").split() * 10
    mixed = [word + (" 因" if at % every == every - 1 else "") for at, word in enumerate(words)]
    assert consistency.grade({"language": "en"}, {"text": " ".join(mixed)})[0] == pytest.approx(share)


def test_human_english(data):
    rows = json.loads((data / "dolly" / "dolly_3k.json").read_text())
    texts = [row["output"] for row in rows if len(row["output"].split()) >= 30][:500]
    shares = [consistency.grade({"language": "en", "of": "all"}, {"text": text})[0] for text in texts]
    assert len(shares) == 500 and sum(shares) / 500 > 0.985
    for text in texts[:100]:
        english, total = count(text)
        assert count(f"{text} {CHINESE}") == (english, total + 15)


HUGE = ["\\[" * 400_000, "$a" * 400_000, "`a\n" * 300_000, "```" * 300_000, "中" * 900_000, "word " * 180_000, "\\begin{" * 100_000,
        "$$" * 400_000, "http://" * 100_000, "a. " * 300_000, "\u0301" * 900_000, "\ud800" * 900_000, "<think>" * 100_000]  # fmt: skip


@pytest.mark.parametrize("text", HUGE, ids=lambda text: ascii(text[:4]))
def test_huge_texts_are_bounded(text, limit):
    with limit(30):
        assert consistency.grade({"language": "en"}, {"text": text})[0] in (0.0, 1.0)
    assert "longer than" in consistency.grade({"language": "en"}, {"text": text * 11})[1]["reason"]


@pytest.mark.parametrize("spec", [{}, {"language": "xx"}, {"language": None}, {"language": ["en"]}, {"language": "English"},
                                  {"language": "en", "of": "cot"}, {"language": "en", "share": 0.5}])  # fmt: skip
def test_what_can_never_grade_is_refused(spec):
    with pytest.raises(ValueError):
        consistency.check({"name": "language", **spec})


def test_every_language_that_can_be_detected_is_a_target():
    for code in language.LANGUAGES:
        consistency.check({"name": "language", "language": code})


def test_the_same_from_eight_threads():
    texts = [ENGLISH, GERMAN, CHINESE, JAPANESE, f"{ENGLISH}\n{GERMAN}", f"{CHINESE}{ENGLISH}"] * 20
    expected = [(count(text), count(text, "de"), count(text, "ja")) for text in texts]
    found = [None] * 8

    def work(at):
        found[at] = [(count(text), count(text, "de"), count(text, "ja")) for text in texts]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8
