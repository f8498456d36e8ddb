#!/usr/bin/env python3
"""A seeded corpus of chats with planted copies and planted evaluation prompts: `chats.py DIR [--rows N] [--seed S]`.

Writes DIR/chats.jsonl (records), DIR/evals.jsonl (prompts) and DIR/labels.jsonl: for every planted row its kind, the row
that it was made of, and what is known about it. Kinds: `exact` (the same texts), `folded` (other case, spacing and
punctuation), `near` (words exchanged, left out or put in; `jaccard` of the word 5-grams), `lookalike` (the same prompt,
another answer), `contaminated` (part of an evaluation prompt in a user's turn; `coverage`). A seventh of the chats begins
with one of 12 long system prompts. Most texts are English-like, many with typographic quotes, accents, code, links and
formulas; a sixth is Cyrillic, Arabic, Devanagari, Chinese or Japanese.
"""

import argparse
import itertools
import json
import random
import re
from pathlib import Path

ROWS, EVALS, SYSTEMS = 50_000, 2_000, 12
SHARES = {"exact": 0.043, "folded": 0.015, "near": 0.066, "lookalike": 0.05, "contaminated": 0.012}
STOCK = ("Please reason step by step and put your final answer on the last line of the reply.",
         "Answer the following question as well as you can and explain how you came to it.")
SCRIPTS = {"latin": 84, "cyrillic": 4, "arabic": 3, "devanagari": 3, "chinese": 4, "japanese": 2}
LETTERS = {"cyrillic": "абвгдежзиклмнопрстухцчшыьэюя", "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
           "devanagari": "कखगघचछजझटठडढतथदधनपफबभमयरलवशसह"}
SIGNS = "ािीुूेैोौ"  # vowel signs, which are marks
WORD = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]|(?:(?![\u3041-\u30ff\u4e00-\u9fff])[\w\u093e-\u094d])+")


def words(text):
    """Independent of the tools: runs of letters and digits, Chinese and Japanese characters by themselves."""
    return WORD.findall(text.lower().replace("_", " "))


def grams(text, n):
    found = words(text)
    return {tuple(found[i:i + n]) for i in range(len(found) - n + 1)}


def jaccard(a, b):
    a, b = grams(a, 5), grams(b, 5)
    return len(a & b) / len(a | b)


class Language:
    """Draws words of one script by a law like Zipf's."""

    def __init__(self, rng, script, size=20_000):
        self.script, self.joint = script, "" if script in ("chinese", "japanese") else " "
        self.vocabulary = list(dict.fromkeys(self._word(rng) for _ in range(size)))
        self.weights = list(itertools.accumulate(1 / (i + 8) for i in range(len(self.vocabulary))))

    def _word(self, rng):
        if self.script == "latin":
            syllables = [rng.choice("bcdfghjklmnprstvw") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "s", "t"])
                         for _ in range(rng.choice([1, 1, 2, 2, 2, 3, 3, 4]))]
            word = "".join(syllables)
            return word.replace("e", "é", 1) if rng.random() < 0.01 else word
        if self.script == "chinese":
            return "".join(chr(0x4E00 + min(int(rng.expovariate(1 / 1500)), 20000)) for _ in range(rng.choice([1, 2, 2])))
        if self.script == "japanese":
            return "".join(chr(rng.randrange(0x3041, 0x3093)) for _ in range(rng.choice([1, 2, 3])))
        letters = LETTERS[self.script]
        signs = SIGNS if self.script == "devanagari" else [""]
        return "".join(rng.choice(letters) + (rng.choice(signs) if rng.random() < 0.5 else "")
                       for _ in range(rng.choice([2, 3, 4, 5, 6])))

    def words(self, rng, n):
        return rng.choices(self.vocabulary, cum_weights=self.weights, k=n)


def prose(rng, tokens, joint):
    """Words as sentences and paragraphs."""
    stop = "。" if not joint else rng.choice([".", ".", ".", "!", "?"])
    parts, at = [], 0
    while at < len(tokens):
        n = rng.randint(5, 22)
        sentence = tokens[at:at + n]
        at += n
        if n > 12:
            sentence = [*sentence[:7], (sentence[7] if len(sentence) > 7 else "") + ("，" if not joint else ","), *sentence[8:]]
        parts.append(joint.join(sentence).capitalize().rstrip(",，") + stop)
    return "".join(part + rng.choice([" ", " ", " ", "\n", "\n\n"]) for part in parts).strip()


def decorated(rng, text):
    """What chats are full of: typographic marks, lists, code, links, formulas."""
    draw = rng.random()
    if draw < 0.25:
        return text.replace(", ", " — ", 1).replace(" ", " “", 1).replace(".", "”.", 1)
    if draw < 0.35:
        return "1. " + text.replace("\n", "\n- ", 3)
    if draw < 0.45:
        return text + "\n```python\nfor i in range(%d):\n    if x[i] < %d: total += x[i] * 2\n```" % (
            rng.randrange(100), rng.randrange(1000))
    if draw < 0.5:
        return text.replace(". ", ". [see](https://example.org/%d) " % rng.randrange(10**6), 1)
    if draw < 0.55:
        return text + " $x^2 + %dx - %d = 0$" % (rng.randrange(100), rng.randrange(100))
    return text


def folded(rng, text):
    """The same words in the same order; operators and symbols stay as they are."""
    if rng.random() < 0.5:
        text = text.upper() if "ß" not in text else text
    text = re.sub(r"(?<=\w)([.,!?]) ", lambda m: rng.choice(["; ", "... ", "  ", " "]), text)
    return "  " + text.replace("\n", " \n")


def near(rng, text, share):
    """Some words exchanged, left out or doubled."""
    spaced = " " in text
    tokens = text.split(" ") if spaced else list(text)
    filler = "zu" if spaced else "龍"
    for i in range(len(tokens)):
        if rng.random() < share:
            kind = rng.randrange(3)
            tokens[i] = (f"{filler}{rng.randrange(10**6)}" if spaced else chr(0x4E00 + rng.randrange(20000))) if kind == 0 else (
                "" if kind == 1 else tokens[i] + (" " if spaced else "") + filler)
    return (" " if spaced else "").join(token for token in tokens if token) or filler


class Corpus:
    def __init__(self, rows, seed):
        self.rng = random.Random(seed)
        self.languages = {script: Language(self.rng, script, 20_000 if script == "latin" else 4_000) for script in SCRIPTS}
        self.systems = [prose(self.rng, self.languages["latin"].words(self.rng, 160), " ") for _ in range(SYSTEMS)]
        self.evals = [self.question() for _ in range(EVALS)]
        self.rows, self.labels = [], []
        self.fill(rows)

    def question(self):
        """A tenth of them end with a stock phrase, which is less than half of them."""
        language = self.languages[self.rng.choices([*SCRIPTS], [*SCRIPTS.values()])[0]]
        if language.joint and self.rng.random() < 0.1:
            return f"{prose(self.rng, language.words(self.rng, self.rng.randint(40, 70)), ' ')} {self.rng.choice(STOCK)}"
        return prose(self.rng, language.words(self.rng, self.rng.randint(12, 70)), language.joint)

    def chat(self):
        rng = self.rng
        language = self.languages[rng.choices([*SCRIPTS], [*SCRIPTS.values()])[0]]
        turns = [("system", rng.choice(self.systems))] if rng.random() < 1 / 7 else []
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
            asked = prose(rng, language.words(rng, rng.randint(6, 90)), language.joint)
            if rng.random() < 0.02:
                asked += " " + rng.choice(STOCK)
            said = prose(rng, language.words(rng, min(int(rng.lognormvariate(4.75, 0.7)) + 5, 1500)), language.joint)
            turns += [("user", asked), ("assistant", decorated(rng, said))]
        return turns

    def fill(self, rows):
        planted = {kind: round(share * rows) for kind, share in SHARES.items()}
        plain = rows - sum(planted.values())
        chats = [self.chat() for _ in range(plain)]
        self.originals = len(chats)
        made = [(turns, None) for turns in chats]
        for kind, count in planted.items():
            for _ in range(count):
                source = self.rng.randrange(plain)
                made.append(getattr(self, kind)(chats[source], source))
        order = list(range(len(made)))
        self.rng.shuffle(order)
        place = {number: at for at, number in enumerate(order)}
        for at, number in enumerate(order):
            turns, label = made[number]
            self.rows.append({"id": f"chat-{at}", "source": ("web", "forum", "synthetic")[at % 3],
                              "messages": [{"role": role, "content": text} for role, text in turns]})
            if label:
                of = {"of": f"chat-{place[label.pop('source')]}"} if "source" in label else {}
                self.labels.append({"id": f"chat-{at}", **of, **label})

    def exact(self, turns, source):
        return turns, {"kind": "exact", "source": source, "jaccard": 1.0}

    def folded(self, turns, source):
        made = [(role, folded(self.rng, text)) for role, text in turns]
        return made, {"kind": "folded", "source": source, "jaccard": jaccard(spoken(turns), spoken(made))}

    def near(self, turns, source):
        share = self.rng.choice([0.003, 0.006, 0.01, 0.02, 0.03, 0.05, 0.1])
        made = [(role, text if role == "system" else near(self.rng, text, share)) for role, text in turns]
        return made, {"kind": "near", "source": source, "jaccard": round(jaccard(spoken(turns), spoken(made)), 4)}

    def lookalike(self, turns, source):
        other = self.chat()
        answers = iter([text for role, text in other if role == "assistant"] * 5)
        made = [(role, next(answers) if role == "assistant" else text) for role, text in turns]
        return made, {"kind": "lookalike", "source": source, "jaccard": round(jaccard(spoken(turns), spoken(made)), 4)}

    def contaminated(self, turns, source):
        """A fresh chat, one of whose user turns has a run of words of an evaluation prompt in its middle."""
        rng, number = self.rng, self.rng.randrange(EVALS)
        made, tokens = self.chat(), self.evals[number]
        spaced = " " in tokens
        tokens = tokens.split(" ") if spaced else list(tokens)
        n = max(1, round(len(tokens) * rng.choice([0.2, 0.35, 0.45, 0.6, 0.75, 0.9, 1.0])))
        at = rng.randrange(len(tokens) - n + 1)
        run = (" " if spaced else "").join(tokens[at:at + n])
        which = rng.choice([i for i, (role, _) in enumerate(made) if role == "user"])
        made[which] = "user", f"{made[which][1]} {run} {prose(rng, self.languages['latin'].words(rng, 9), ' ')}"
        asked = [text for role, text in made if role == "user"]
        return made, {"kind": "contaminated", "eval": f"eval-{number}", "coverage": round(coverage(self.evals[number], asked), 4)}


def spoken(turns):
    return "\n".join(text for role, text in turns if role != "system")


def coverage(item, texts, n=8):
    """Share of an item's words that lie in an n-gram that one of the texts has."""
    found, shared = words(item), set().union(*(grams(text, n) for text in texts))
    covered = set()
    for i in range(len(found) - n + 1):
        if tuple(found[i:i + n]) in shared:
            covered.update(range(i, i + n))
    return len(covered) / len(found)


def make(folder, rows=ROWS, seed=0):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(rows, seed)
    lines = {"chats": corpus.rows, "labels": corpus.labels,
             "evals": [{"id": f"eval-{i}", "prompt": text} for i, text in enumerate(corpus.evals)]}
    for name, found in lines.items():
        with open(folder / f"{name}.jsonl", "w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make(args.dir, args.rows, args.seed)


if __name__ == "__main__":
    main()
