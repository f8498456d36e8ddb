"""The format verifier: R1's template, other tags, and every way to get it wrong."""

import random
import threading

import pytest

from pt_tools.rewards import tags

R1 = {"name": "format"}
INSIDE = {**R1, "start_inside": True}
FREE = {**R1, "tags": ["think"], "answer": "free"}  # R1 itself; V3.1 to V4 with start_inside
GOOD = [
    (R1, "<think>a</think><answer>b</answer>"),
    (R1, " \n<think>\na\n</think>\n\n<answer> 5 </answer>\n"),
    (R1, "<think>1 < 2, <b>bold</b>, <thinking></thinking></think><answer>{}</answer>"),
    (R1, "<think>…</think><answer>\U0001f600</answer>"),
    (INSIDE, "a</think><answer>b</answer>"),
    (FREE, "<think>a</think>b"),
    ({**FREE, "start_inside": True}, "a\n</think>\n\nb\n"),
    ({**R1, "tags": ["plan", "code", "test-1"]}, "<plan>a</plan> <code>b</code> <test-1>c</test-1>"),
]
BAD = {
    "empty": [
        (R1, ""), (R1, " \n"), (R1, "<think></think><answer>b</answer>"), (R1, "<think>a</think><answer> \n\t</answer>"),
        (R1, "<think>\u200b\ufeff</think><answer>b</answer>"), (R1, "<think>a</think><answer>\u3164\u2800\u00ad</answer>"),
        (R1, "<think>\x00\x1b</think><answer>b</answer>"), (R1, "<think>\u0301\ufe0f</think><answer>b</answer>"),
        (INSIDE, "</think><answer>b</answer>"), (FREE, "<think>a</think>"), (FREE, "<think>a</think>\u200b\n"), (FREE, "<think> </think>b"),
    ],
    "unclosed": [
        (R1, "<think>a"), (R1, "<think>a</think>"), (R1, "<think>a</think><answer>b"), (R1, "<think>a<answer>b</answer>"),
        (R1, "a</think><answer>b</answer>"), (R1, "<think>a</think>b</answer>"), (R1, "<answer>b</answer>"), (INSIDE, "a"),
        (R1, "<think>a</think ><answer>b</answer>"), (R1, "<THINK>a</THINK><answer>b</answer>"), (R1, "＜think＞a＜/think＞<answer>b</answer>"),
    ],
    "nested": [
        (R1, "<think>a<answer>b</answer></think>"), (R1, "<think>a<think>b</think></think><answer>c</answer>"),
        (R1, "<answer><think>a</think>b</answer>"), (R1, "<think>a<answer></think>b</answer>"), (INSIDE, "<think>a</think></think><answer>b</answer>"),
    ],
    "repeated": [
        (R1, "<think>a</think><think>a</think><answer>b</answer>"), (R1, "<think>a</think><answer>b</answer><answer>c</answer>"),
        (R1, "<think>a</think><answer>b</answer>" * 2), (R1, "<think>a</think><answer>b</answer></answer>"),
        (INSIDE, "<think>a</think><answer>b</answer>"), (FREE, "<think>a</think>b</think>c"), (R1, "<think>" * 300_000),
    ],
    "late": [
        (R1, "Well. <think>a</think><answer>b</answer>"), (R1, "<think>a</think>so<answer>b</answer>"),
        (R1, "<think>a</think><answer>b</answer> Done."), (R1, "<think>a</think><answer>b</answer>\u200b"), (FREE, "Well <think>a</think>b"),
        (R1, "\ufeff<think>a</think><answer>b</answer>"),
    ],
    "order": [
        (R1, "<answer>b</answer><think>a</think>"), (R1, "</think>a<think><answer>b</answer>"), (R1, "<think>a</answer><answer>b</think>"),
        (R1, "</think><think></answer><answer>"),
    ],
    "huge": [(R1, "<think>" + "a" * 1_000_000 + "</think><answer>b</answer>")],
}  # fmt: skip


@pytest.mark.parametrize("spec, text", GOOD)
def test_what_is_laid_out_as_told(spec, text):
    tags.check(spec)
    assert tags.grade(spec, {"text": text}) == (1.0, None) and tags.well_formed(spec, {"text": text}) == 1.0


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not(kind, limit):
    for spec, text in BAD[kind]:
        with limit(5):
            score, detail = tags.grade(spec, {"text": text})
        assert score == 0.0 and detail["reason"], text[:100]


def test_the_reason_says_what_is_wrong():
    reasons = {
        "<think>a</think>": "no <answer>",
        "<think></think><answer>b</answer>": "<think> is empty",
        "<think>a</think><answer>b</answer><answer>c</answer>": "<answer> is repeated",
        "<think>a<answer>b</answer></think>": "the tags are nested or in the wrong order",
        "Hm <think>a</think><answer>b</answer>": "text before the first tag",
        "<think>a</think><answer>b</answer>!": "text outside the tags",
    }
    assert {text: tags.grade(R1, {"text": text})[1]["reason"] for text in reasons} == reasons


def naive(text, names, free):
    marks = [f"<{slash}{name}>" for name in names for slash in ("", "/")]
    for name in names:
        before, opening, rest = text.partition(f"<{name}>")
        inside, closing, text = rest.partition(f"</{name}>")
        if before.strip() or not opening or not closing or not inside.strip() or any(mark in inside for mark in marks):
            return 0.0
    return 0.0 if any(mark in text for mark in marks) or bool(text.strip()) != free else 1.0


def test_as_a_naive_reader_finds():
    rng, pieces = random.Random(0), ["<think>", "</think>", "<answer>", "</answer>", "a", " ", "\n", "<b>"]
    right = {True: "<think> a</think> <answer>a </answer>", False: "<think>a</think> a"}
    seen = {0.0: 0, 1.0: 0}
    for turn in range(20_000):
        free = bool(turn % 2)
        names = ["think"] if free else ["think", "answer"]
        parts = [piece for piece in tags._pattern(("think", "answer")).split(right[not free])]
        marks = tags._pattern(("think", "answer")).findall(right[not free])
        parts = [item for pair in zip(parts, [*marks, ""]) for item in pair]
        for _ in range(rng.randrange(3)):
            parts[rng.randrange(len(parts))] = rng.choice(pieces)
        text = "".join(parts) if turn % 3 else "".join(rng.choices(pieces, k=rng.randrange(9)))
        spec = {"tags": names, "answer": "free" if free else "tagged"}
        expected = naive(text, names, free)
        assert tags.grade(spec, {"text": text})[0] == expected, text
        seen[expected] += 1
    assert min(seen.values()) > 2000


@pytest.mark.parametrize("spec", [
    {"tags": []}, {"tags": "think"}, {"tags": ["a", "a"]}, {"tags": ["a b"]}, {"tags": [1]}, {"tags": ["é"]}, {"tags": [""]},
    {"tags": ["a"] * 17}, {"start_inside": 1}, {"start_inside": None}, {"answer": "boxed"}, {"tag": ["a"]}, {"strict": True},
])  # fmt: skip
def test_what_can_never_grade_is_refused(spec):
    with pytest.raises(ValueError):
        tags.check({**R1, **spec})


def test_the_same_from_eight_threads():
    rows = [*GOOD, *(row for kind, rows in BAD.items() if kind != "huge" for row in rows)]
    expected = [tags.grade(spec, {"text": text}) for spec, text in rows]
    found = [None] * 8

    def work(at):
        found[at] = [tags.grade(spec, {"text": text}) for spec, text in rows]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8
