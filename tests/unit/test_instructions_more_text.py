"""The sentences and tokens under the second set of instructions, and its plainest rules on real texts."""

import json

from pt_tools.rewards.instructions_more import INSTRUCTIONS
from pt_tools.rewards.instructions_more_text import sentences, tokens


def test_sentences_by_rule():
    assert sentences("Mr. Fox met Dr. Who. He ran!") == ["Mr. Fox met Dr. Who.", "He ran!"]
    assert sentences("Pay 3.50 at a.com, e.g. now. So?") == ["Pay 3.50 at a.com, e.g. now.", "So?"]
    assert sentences("Wait... what") == ["Wait...", "what"]
    assert sentences('"Go." She left.') == ['"Go".', "She left."]
    assert sentences("Acme Inc. He left.") == ["Acme Inc", "He left."]  # the rule loses the full stop
    assert sentences("ab.cd e. f") == ["ab.", "cd e. f"]
    assert sentences("no end") == ["no end"] and sentences(" \n") == []


def test_tokens_of_a_treebank():
    assert tokens("Don't stop, Mr. Fox. I'm \"it\".") == [
        "Do", "n't", "stop", ",", "Mr.", "Fox", ".", "I", "'m", "``", "it", "''", "."
    ]  # fmt: skip
    assert tokens("I cannot -- 'tis (3,000) at 9:30: dogs' $5...") == [
        "I", "can", "not", "--", "'", "tis", "(", "3,000", ")", "at", "9:30", ":", "dogs", "'", "$", "5", "..."
    ]  # fmt: skip
    assert tokens("") == tokens(" \n") == []


def test_real_prompts_get_verdicts_of_their_own(data):
    """On IFEval's prompts as if they were responses, twins in a second way of writing give the same verdicts."""
    prompts = [json.loads(line)["prompt"] for line in (data / "ifeval" / "input_data.jsonl").read_text().splitlines()]
    assert len(prompts) == 541
    twins = {
        "format:no_whitespace": lambda text: not any(map(str.isspace, text)),
        "keywords:palindrome": lambda text: any(list(word) == list(reversed(word)) for word in text.split()),
        "words:vowel": lambda text: text.strip().count("\n") == 0 and sum(v in text.lower() for v in "aeiou") < 4,
        "words:consonants": lambda text: all(
            any(a in "bcdfghjklmnpqrstvwxyz" and b in "bcdfghjklmnpqrstvwxyz" for a, b in zip(word, word[1:]))
            for word in text.lower().split()
        ),
        "count:count_unique": lambda text: sorted(set(tokens(text))) == sorted(tokens(text)),
        "punctuation:punctuation_dot": lambda text: text.count(".") == 0,
    }
    for name, twin in twins.items():
        for text in [part for prompt in prompts for part in (prompt, prompt.split()[0], " ".join(prompt.split()[:4]))]:
            assert INSTRUCTIONS[name][0](text) is bool(twin(text)), (name, text)
