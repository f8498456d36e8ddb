"""Named rules: texts that each must find and must not, completions, marks, and what selection keeps."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import user

from pt_tools import record
from pt_tools.curate import faults, phrases, rules, texts
from pt_tools.curate.expression import parse
from pt_tools.curate.phrases import Phrases, read
from pt_tools.curate.selection import Condition, Labels, Selection, label, select


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def chat(text, asked="What is it?", **more):
    return {"messages": [user(asked), assistant(text)], **more}


PROSE = "The fox ran over the hill and into the wood where it had lived for years. "
LONG = PROSE * 2 + "It was a quiet evening in autumn. Nobody had seen the fox for a week, and the farmer began to think that"

FOUND = {
    "refusal": ["I'm sorry, but I can't help with that.", "I cannot provide instructions for this.", "As an AI, I am unable to assist you.",
                "Sorry, I can't do that.", "I won’t help you to hurt anyone.", "I must decline.", "I'd rather not say.", "I’m not comfortable answering.",
                "<think>Let me see.</think>I'm afraid I cannot answer.", "很抱歉，我无法提供这些信息。", "申し訳ありませんが、お答えできません。",
                "죄송하지만 도와드릴 수 없습니다.", "Lo siento, pero no puedo ayudar.", "Je suis désolé, je ne peux pas vous aider.",
                "Es tut mir leid, dabei kann ich nicht helfen.", "Извините, я не могу помочь.", "آسف، لا أستطيع المساعدة.", "אני מצטער, אני לא יכול לעזור.",
                "Ich kann dir dabei leider nicht helfen."],
    "self-reference": ["As an AI language model, I do not eat.", "Well, as a large language model, I have no body.", "I'm just an AI.", "I am a virtual assistant.",
                       "I am ChatGPT.", "My name is Claude.", "As Bard, I would say so.", "I was trained by OpenAI.", "I'm a model that was developed by Anthropic.",
                       "This is against OpenAI's use case policy.", "It is past my knowledge cutoff.", "The knowledge cut-off is near.",
                       "As of my last update, he is alive.", "My training data only goes up to then.", "I don't have access to real-time information.",
                       "作为一个人工智能语言模型，我没有感情。", "我是由OpenAI训练的。", "Als KI-Sprachmodell habe ich keine Gefühle.",
                       "Als künstliche Intelligenz kann ich das nicht wissen.", "En tant que modèle de langage, je n'ai pas d'opinion.",
                       "En tant qu'IA, je ne mange pas.", "Como modelo de lenguaje, no puedo opinar.", "Как языковая модель, я не имею мнения.",
                       "Как большая языковая модель, я не ем."],
    "truncated": ["One, two,", "He said:", "f(x) = (", LONG, PROSE * 3 + "Then it went into the", "Here:\n```python\nx = 1\n", "それは、", PROSE + "and saw the",
                  "<think>Let me see. It is"],
    "fence": ["```python\nx = 1", "```\na\n```\n```\nb", "~~~\na\n```\n", "```\na\n```python\nb\n```", "Do ```this\nand that"],
    "think": ["<think>Hm", "Hm</think>Yes", "<think>a<think>b</think></think>", "</think><think>", "<think>a</think></think>"],
    "repetition": ["I will go there now and then I will go. " * 5, "\n".join(["This line is long enough to count."] * 4 + ["And so is this other one here."]),
                   "我喜欢吃苹果和香蕉，" * 12, "ha" * 400],
    "mixed-scripts": ["This answer starts in English и потом продолжается на русском языке очень долго и подробно, and so on it goes for a while here.",
                      "这个问题的答案很简单，因为我们可以看到这里的数字 which is quite obvious to anyone who looks at all of these numbers here 所以答案是四"],
    "language:keep=en|de": ["Je ne sais pas où il est, mais il va venir demain avec ses amis.", "これは日本語の文章です。とても短いです。", "שלום לכולם, מה שלומכם היום?"],
    "language:drop=zh": ["这个问题的答案很简单，因为我们可以看到这里的数字。"],
    "keywords:words=bomb|New York|c++|爆弾": ["A BOMB!", "in new\nyork, say", "I write C++.", "それは爆弾です"],
    "keywords:words=bomb,of=prompt": [],
    "pii": ["Write to jane@corp.com.", "Call 415-555-0100."],
    "pii:kinds=card|key": ["4111 1111 1111 1111"],
    "length:unit=words,min=3,max=5": ["one two", "one two three four five six"],
    "length:unit=chars,max=4": ["שלום!", "12345"],
}
NOT_FOUND = {
    "refusal": ["I can't recommend this enough!", "I cannot help but smile.", "The shop won't help you.", "Sorry to hear that. Try again.",
                "You can say: no.", PROSE * 6 + "I cannot help with that.", "抱歉让您久等了。", "He could not provide an answer.",
                "Ich kann das. Nicht helfen will er."],
    "self-reference": ["GPT-2 was used as a language model by the authors.", "OpenAI was founded in 2015.", "ChatGPT is a chatbot developed by OpenAI.",
                       "A cutoff of 5 Hz is used.", "She works as an assistant.", "Claude Monet painted it.", "My name is Clara.", "Gemini is a constellation.",
                       "Als KI-Forscher war ich dort.", "Künstliche Intelligenz ist mein Fach, und ich mag es.", "En tant que mère, je dors peu.",
                       "Come como un rey; no puedo más.", "Как языковая школа, мы учим."],
    "truncated": ["Yes", "42", "Paris, France", "It is so.", PROSE * 3, "- one\n- two\n- three", "Best wishes,\nAnna", "Dear Bob. All is well. So be it. I go.\n\nBest wishes,",
                  "```python\nx = 1\n```", PROSE + "See https://example.org/a/b/c/d and then also all the others at https://example.org/e", "| a | b |\n| c | d |",
                  "そうです。"],
    "fence": ["no fence", "```python\nx = 1\n```", "````\n```\na\n```\n````", "Use ```x``` inline.", "1. Do:\n   ```sh\n   ls\n   ```\n2. Go", "~~~\n```\n~~~",
              "> ```\n> a\n> ```"],
    "think": ["Yes", "<think>Hm</think>Yes", "<think>a</think>b<think>c</think>d"],
    "repetition": [LONG, "", "one two three", "```\n}\n}\n}\n}\n}\n}\n```", "a b c d e f g h i j"],
    "mixed-scripts": ["Привет! " * 10, "使用Python编写一个函数，然后运行它，最后检查输出是否正确，这样就可以了。", "α + β = γ, so the angle is right and we are done with it.",
                      PROSE + "Tokyo (東京) is large.", "日本語とカタカナとひらがなが混ざっていても同じ言語です。", "é à ü ñ " * 20],
    "language:keep=en|de": ["This is plain English, as you can see from the words.", "Das ist ein schöner Tag und wir gehen jetzt nach Hause.", "x = 1", "42",
                            "```python\nprint('bonjour mes amis, où est la gare?')\n```", "Let $x$ be so that $\\frac{1}{x} = 2$. Find the value of $x$."],
    "language:drop=zh": ["This is plain English, as you can see.", "これは日本語の文章です。"],
    "keywords:words=bomb|New York|c++|爆弾": ["bombs away", "a new yorker", "c+", "the letter c"],
    "keywords:words=bomb,of=prompt": ["A bomb!"],
    "pii": ["No one is at home at 10:30:15 on 2024-05-01."],
    "pii:kinds=card|key": ["jane@corp.com"],
    "length:unit=words,min=3,max=5": ["one two three", "one two three four five", "東京は"],
    "length:unit=chars,max=4": ["שלום", "1234"],
}


@pytest.mark.parametrize("spec", FOUND)
def test_what_a_rule_finds(spec):
    rule = rules.parse(f"{spec},of=response" if ":" in spec and "of=" not in spec else spec if "of=" in spec else f"{spec}:of=response")
    for text in FOUND[spec]:
        found = rule.find(chat(text))
        assert found and len(found) <= 80, text
        assert rules.parse(f"not-{rule.name}").find(chat(text)) is None
    for text in NOT_FOUND[spec]:
        assert rule.find(chat(text)) is None, (text, rule.find(chat(text)))
        if texts.texts(chat(text), rule.of):
            assert rules.parse(f"not-{rule.name}").find(chat(text)) == f"no {spec.partition(':')[0]}"


def test_every_rule_has_its_examples_and_is_described():
    from pt_tools.commands import curate_filter

    assert {spec.partition(":")[0] for spec in FOUND} == set(rules.RULES) and FOUND.keys() == NOT_FOUND.keys()
    assert all(f"{name}: " in curate_filter.filter.help for name in rules.RULES)


def test_what_the_parts_of_a_record_are():
    turns = [{"role": "system", "content": "s"}, user("u"), assistant("a", train=False), user("v"), assistant("b", reasoning_content="t"),
             {"role": "tool", "content": "r"}, assistant("c")]
    for rec, asked, said in (
            ({"messages": turns}, ["s", "u", "v", "r"], ["<think>t</think>b", "c"]), ({"text": "t"}, [], ["t"]),
            ({"prompt": "u"}, ["u"], []), ({"prompt": turns[:4]}, ["s", "u", "v"], []),
            ({"prompt": "u", "completion": "a"}, ["u"], ["a"]), ({"prompt": [user("u")], "completion": [assistant("a")], "label": True}, ["u"], ["a"]),
            ({"prompt": "u", "chosen": "a", "rejected": "b"}, ["u"], ["a"]), ({"chosen": "Is it? Yes", "rejected": "Is it? No"}, ["Is it?"], [" Yes"]),
            ({"chosen": [user("u"), assistant("a")], "rejected": [user("u"), assistant("b")]}, ["u"], ["a"]),
            ({"prompt": "u", "completions": [{"text": "a"}]}, ["u"], [])):
        assert (texts.texts(rec, "prompt"), texts.texts(rec, "response"), texts.texts(rec, "all")) == (asked, said, asked + said)


@pytest.mark.parametrize("spec, reason", [
    ("nonsense", "unknown rule 'nonsense'; known: refusal, "), ("", "unknown rule ''"), ("not-", "unknown rule"), ("refusal:x=1", "unknown key 'x'; known: of"),
    ("refusal:of=all,of=prompt", "not of the form"), ("refusal:of", "not of the form"), ("refusal:=1", "not of the form"), ("refusal:of=", "not of the form"),
    ("refusal:of=answer", "of is one of response, prompt, all"), ("repetition:n=x", "n is a number, not 'x'"), ("repetition:n=0", "n must be"),
    ("repetition:max=-1", "limit must be"), ("language", "give keep=, the languages wanted, or drop="), ("language:keep=en,drop=de", "give keep="),
    ("language:keep=xx", "unknown language 'xx'; known: ar"), ("length:max=3", "counts tokens with --tokenizer"), ("length:unit=words", "give min=, max="),
    ("length:unit=words,min=3,max=2", "in this order"), ("length:unit=lines,max=1", "unit is tokens, words or chars"), ("keywords", "give file= or words="),
    ("keywords:file=nowhere", "nowhere: no such file"), ("keywords:words=|", "there are no phrases"), ("pii:kinds=name", "kinds are email, phone"),
    ("think:tag=a b", "tag is the name of a tag"), ("think:tag=<", "tag is the name of a tag")])
def test_rules_that_are_none(spec, reason):
    with pytest.raises(ValueError, match=reason):
        rules.parse(spec)


def test_keys_of_rules():
    assert rules.parse("think:tag=reasoning").find(chat("<reasoning>a")) == "<reasoning> is not closed"
    assert rules.parse("repetition:max=0.9").find(chat("I will go there now and then I will go. " * 5)) is None
    assert rules.parse("repetition:n=2,max=0.4").find(chat("a b a b a b a b")) is not None
    assert rules.parse("refusal:of=prompt").find(chat("Yes", "I cannot help you.")) is not None
    assert rules.parse("length:unit=chars,min=9,of=prompt").find(chat("a long answer", "short")) == "5 chars"
    assert rules.parse("mixed-scripts:max=0.9").find(chat(FOUND["mixed-scripts"][0])) is None


def test_what_has_nothing_to_look_at_is_never_hit():
    for spec in ("refusal", "not-refusal", "length:unit=words,min=3,of=response", "truncated", "not-truncated"):
        assert rules.parse(spec).find({"prompt": "Who?"}) is None


def test_phrases(tmp_path):
    (tmp_path / "list").write_text("\ufeff# not this\n\n  Mein Kampf \nשלום עולם\n東京\n:-)\n", encoding="utf-8")
    listed = Phrases(read(str(tmp_path / "list")))
    for text, found in (("I read mein\tKAMPF.", "Mein Kampf"), ("mein Kampfhund", ""), ("אמרתי שלום עולם!", "שלום עולם"), ("שלום", ""), ("東京都", "東京"),
                        ("well :-) yes", ":-)"), ("not this", ""), ("", ""), ("Mein, Kampf", "Mein Kampf")):
        assert listed.find(text) == found, text
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read(str(tmp_path / "bytes"))


def test_what_is_looked_for_first_is_in_every_phrase(data):
    """The quick look at single words must let every text through that the patterns fit."""
    from pt_tools.stream import Reader

    said = [text for texts_ in FOUND.values() for text in texts_] + [text for texts_ in NOT_FOUND.values() for text in texts_]
    for name in ("preference/harmless-base-test.jsonl.gz", "sft/alpaca_en_demo.json", "sft/glaive_toolcall_en_demo.json", "preference/kto_en_demo.json"):
        for row in Reader([str(data / name)], arrays=True):
            said += [text for value in row.values() if isinstance(value, (str, list)) for text in ([value] if isinstance(value, str) else [
                turn.get("value") or turn.get("content") or "" for turn in value if isinstance(turn, dict)])]
    found = Counter()
    for text in said:
        for patterns, may in ((phrases._REFUSALS, phrases.may_refuse), (phrases._SELF, phrases.may_tell)):
            if phrases._any(patterns).search(text):
                assert may(text.lower()), text
                found[may] += 1
    assert found[phrases.may_refuse] > 100 and found[phrases.may_tell] > 80


def naive_phrase(phrase, text):
    found = [w for w in "".join(c.lower() if c.isalnum() else " " for c in text).split()]
    wanted = phrase.lower().split()
    return any(found[i:i + len(wanted)] == wanted for i in range(len(found)))


@given(st.lists(st.sampled_from(["ab", "Ab", "c", "ab c", "-", "."]), max_size=8).map(" ".join), st.sampled_from(["ab", "AB c", "c ab", "c"]))
def test_phrases_against_a_naive_twin(text, phrase):
    assert bool(Phrases([phrase]).find(text)) == naive_phrase(phrase, text)


# --- selection ----------------------------------------------------------------------------------------------------


def plan(*specs, where=(), **more):
    return Selection([Condition(text, parse(text)) for text in where], [rules.parse(spec) for spec in specs], **more)


SAMPLED = {"id": "s", "prompt": "What?", "completions": [
    {"text": "I cannot help with that.", "reward": 1.0}, {"text": "It is so.", "reward": 0.0}, {"text": "It is", "finish": "length"}]}


def test_completions_are_judged_one_by_one():
    counts = Counter()
    made, reason = select(plan("refusal", "truncated"), SAMPLED, counts)
    assert reason is None and made == {**SAMPLED, "completions": [SAMPLED["completions"][1]]} and counts["completions", "dropped"] == 2
    assert counts["hit", "refusal"] == counts["hit", "truncated"] == 1
    long = "length:unit=words,min=9,of=response"
    assert select(plan(long), SAMPLED, Counter()) == (None, f"{long} in every completion")
    assert select(plan(f"not-{long}"), SAMPLED, Counter())[0] is SAMPLED
    assert select(plan("keywords:words=what,of=prompt"), SAMPLED, Counter()) == (None, "keywords:words=what,of=prompt")
    assert select(plan("pii"), SAMPLED, Counter())[0] is SAMPLED, "the same object where nothing changes"
    empty = {"prompt": "What?", "completions": []}
    assert select(plan("refusal"), empty, Counter()) == (empty, None)


def test_reasons_come_in_their_order():
    rec = chat("I cannot help with that.", id="a")
    chosen = plan("refusal", where=["n > 3"], drop=frozenset("a"), keep=frozenset("b"))
    assert select(chosen, rec, Counter()) == (None, "drop")
    assert select(chosen._replace(drop=frozenset()), rec, Counter()) == (None, "keep")
    assert select(chosen._replace(drop=frozenset(), keep=None), rec, Counter()) == (None, "where: n > 3")
    assert select(chosen._replace(drop=frozenset(), keep=None, where=[]), rec, Counter()) == (None, "refusal")
    nameless = chat("Yes.")
    assert select(plan(drop=frozenset([record.content_hash(nameless)])), nameless, Counter()) == (None, "drop")


def test_marks():
    counts = Counter()
    chosen = plan("refusal", "truncated", where=["n > 3"], mark=True)
    made, reason = select(chosen, SAMPLED, counts)
    assert reason is None and made["rules"] == {"where": "n > 3"}
    assert [c.get("rules") for c in made["completions"]] == [{"refusal": "I cannot help"}, None, {"truncated": "finish is length"}]
    assert select(chosen, made, Counter())[0] is made
    other, _ = select(plan("pii", mark=True), {**made, "n": 9}, Counter())
    assert "rules" not in other or "where" not in other["rules"], "what was asked again and is no longer so is gone"
    assert other["completions"][0]["rules"] == {"refusal": "I cannot help"}, "marks of other rules stay"
    clean = chat("It is so.")
    assert select(chosen._replace(where=[]), clean, Counter())[0] is clean
    assert record.content_hash(made) == record.content_hash(SAMPLED)


WORDS = st.lists(st.sampled_from(["I cannot help", "with that.", "as an AI, I", "<think>", "</think>", "```", "\n", "jane@corp.com", "415-555-0100", "東京は", "שלום",
                                  "The end.", "the", ",", "Call me at", "4111 1111 1111 1111", "8.8.8.8", "[EMAIL_1]", "ab cd ab cd"]),
                 min_size=1, max_size=10).map(" ".join)
RECORDS = st.one_of(
    st.builds(chat, WORDS, WORDS), st.builds(lambda a, b: {"prompt": a, "chosen": a + "1", "rejected": b + "2"}, WORDS, WORDS),
    st.builds(lambda t: {"text": t}, WORDS),
    st.builds(lambda p, cs: {"prompt": p, "completions": [{"text": c, "token_ids": [1], "logprobs": [0.5]} for c in cs]}, WORDS, st.lists(WORDS, max_size=3)))
SPECS = [name for name in rules.RULES if name not in ("length", "language", "keywords")] + [
    "length:unit=words,max=6", "language:keep=en", "keywords:words=end", "not-pii", "not-think"]


@given(RECORDS, st.lists(st.sampled_from(SPECS), unique=True, max_size=4), st.booleans(), st.sampled_from([(), ("email",), ("email", "phone", "ip", "key", "card")]))
def test_selection_is_idempotent_and_counts_what_it_drops(rec, specs, mark, scrub):
    rec = json.loads(json.dumps(rec))
    if not rec.get("text", "x").strip() or rec.get("chosen") == rec.get("rejected", "-"):
        return
    chosen, counts = plan(*specs, mark=mark, scrub=scrub), Counter()
    made, reason = select(chosen, rec, counts)
    assert (made is None) == (reason is not None)
    assert rec == json.loads(json.dumps(rec))
    if made is None:
        assert not mark and any(reason.startswith(name) for name in specs)
        return
    again, reason = select(chosen, made, Counter())
    if not scrub or not specs:  # placeholders may be found by other rules than what they stand for
        assert again == made and reason is None
    if not mark:
        gone = len(rec.get("completions", ())) - len(made.get("completions", ()))
        assert gone == counts["completions", "dropped"] >= 0


# --- labels -------------------------------------------------------------------------------------------------------


def labels(values=None, let=None, where=(), specs=(), **more):
    return Labels(values or {}, {key: Condition(text, parse(text)) for key, text in (let or {}).items()},
                  [Condition(text, parse(text)) for text in where], [rules.parse(spec) for spec in specs], **more)


def test_labels():
    rec = chat("I cannot help with that.", source="web")
    assert label(labels({"safety": True, "domain": "d"}), rec) == {**rec, "safety": True, "domain": "d"}
    assert label(labels({"safety": True}, where=["source == 'web'"], specs=["refusal"]), rec) == {**rec, "safety": True}
    assert label(labels({"safety": True}, where=["source == 'wiki'"]), rec) is None
    assert label(labels({"safety": True}, specs=["refusal", "truncated"]), rec) is None
    assert label(labels({"source": "web"}), rec) is rec, "the same value is no change"
    with pytest.raises(ValueError, match='source is "web" already; --replace changes it'):
        label(labels({"source": "wiki"}), rec)
    assert label(labels({"source": "wiki"}, replace=True), rec)["source"] == "wiki"
    assert label(labels(let={"n": "len(messages)", "m": "missing", "l": "language(text(messages))"}), rec) == {**rec, "n": 2, "l": "en"}
    with pytest.raises(ValueError, match="domain is a number, not a string"):
        label(labels(let={"domain": "len(messages)"}), rec)
    with pytest.raises(ValueError, match="beyond 64 bits"):
        label(labels(let={"n": "9223372036854775807 * 3"}), rec)
    with pytest.raises(ValueError, match="no arithmetic with a text"):
        label(labels({"a": 1}, where=["source + 1 > 0"]), rec)


@given(st.sampled_from([{"safety": True}, {"a": [1, {"b": None}]}, {"weight": 0.5}]), st.booleans(), RECORDS)
def test_labels_are_idempotent(values, replace, rec):
    if not rec.get("text", "x").strip():
        return
    once = label(labels(values, {"n": "len(text(prompt))"}, replace=replace), rec)
    assert label(labels(values, {"n": "len(text(prompt))"}, replace=replace), once) is once
    assert {key: once[key] for key in rec} == rec


def test_the_language_that_is_spoken():
    assert faults.spoken("[asy]\nlabel(\"$B$\", B, dir(0));\n[/asy] Find the length of the side.") == "en"
    assert faults.spoken("E, B, G, D, A, E") is None and faults.spoken("") is None
