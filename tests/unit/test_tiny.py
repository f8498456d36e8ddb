"""The tiny world: deterministic, free of leaks, right where it claims to be right, and lossless when tokenised."""
import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "scripts" / "tiny"
sys.path.insert(0, str(TINY))
import blueprint  # noqa: E402
import tasks  # noqa: E402
import world  # noqa: E402

SMALL = {"corpus": 3000, "sft": 400, "prompts": 150, "rlvr": 300, "dev": 40, "heldout": 60}
FROZEN = "d96040681ca34f7e05352847494cbe4d1926e10468ab5b909620b9440c53218d"
TRAINING = ["corpus", "sft", "prompts", "rlvr"]
EXAMS = ["dev", "heldout", "dev-safety", "heldout-safety"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("world")
    world.generate(7, directory, SMALL)
    return directory


@pytest.fixture(scope="module")
def tokenizer(small):
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(small / "blank")


def rows(directory, name):
    return [json.loads(line) for line in open(directory / f"{name}.jsonl", encoding="utf-8")]


def prompt_of(row):
    return (row.get("prompt") or row["messages"])[0]["content"]


def digests(directory):
    files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command_writes_the_same_bytes_again_and_others_for_another_seed(tmp_path):
    sizes = [word for name, size in SMALL.items() for word in (f"--{name}", str(size))]
    for seed, out in [("7", "a"), ("7", "b"), ("8", "c")]:
        command = [sys.executable, str(TINY / "world.py"), "--seed", seed, "-o", str(tmp_path / out), *sizes]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed + "1"})
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] == c[name]} == {n for n in a if n.startswith("blank")}


def test_the_world_is_frozen(small):
    """Results are comparable only within one world: a change of these bytes is a new world."""
    found = digests(small)
    whole = hashlib.sha256("".join(f"{name} {found[name]}\n" for name in sorted(found)).encode()).hexdigest()
    assert whole == FROZEN


def test_it_needs_only_the_standard_library():
    code = (f"import sys; sys.path.insert(0, {str(TINY)!r}); before = set(sys.modules); import world; "
            "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
            "print(sorted(new - set(sys.stdlib_module_names)))")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['blueprint', 'tasks', 'world']"


def test_the_sizes_and_the_mix_are_as_asked(small):
    assert [len(rows(small, name)) for name in TRAINING] == [3000, 400, 150, 300]
    assert Counter(row["domain"] for row in rows(small, "heldout")) == dict.fromkeys(world.EXAM, 60)
    share = Counter(row["domain"] for row in rows(small, "corpus"))
    for domain, wanted in world.MIX.items():
        assert abs(share[domain] / 3000 - wanted) < 0.04


def naive_overlap(test, train):
    """The decontamination rule spelt out: equal when short, else more than half of the words in shared runs of eight."""
    a, b = (re.findall("[0-9a-z]+", text.lower()) for text in (test, train))
    if len(a) < 8:
        return a == b
    covered = set()
    for i in range(len(a) - 7):
        if any(a[i:i + 8] == b[j:j + 8] for j in range(len(b) - 7)):
            covered.update(range(i, i + 8))
    return len(covered) > len(a) / 2


def test_no_training_prompt_overlaps_an_examination(small):
    training = {prompt_of(row) for name in TRAINING for row in rows(small, name)}
    exams = [prompt_of(row) for name in EXAMS for row in rows(small, name)]
    assert len(exams) == len(set(exams)) == 4 * 40 + 4 * 60
    by_first = {}
    for text in training:
        by_first.setdefault(text.split()[:2][-1], []).append(text)
    for exam in exams:
        assert not [text for text in by_first.get(exam.split()[:2][-1], []) if naive_overlap(exam, text)]
    whole = {tuple(re.findall("[0-9a-z]+", text.lower())) for text in training}
    assert not whole & {tuple(re.findall("[0-9a-z]+", text.lower())) for text in exams}


def test_prompts_for_preferences_and_rl_are_distinct(small):
    for name in ["prompts", "rlvr"]:
        texts = [prompt_of(row) for row in rows(small, name)]
        assert len(texts) == len(set(texts))


def naive_answer(prompt):
    """The gold answer of an arithmetic or string prompt, computed from its words."""
    if found := re.fullmatch(r"What is (\d\d) (plus|minus) (\d\d)\?", prompt):
        return str(eval(f"{found[1]}{'+' if found[2] == 'plus' else '-'}{found[3]}"))
    name, letters = prompt.rstrip(".").rsplit(" ", 1)
    assert set(letters) <= set(tasks.LETTERS) and 3 <= len(letters) <= 5
    return {"Reverse": "".join(reversed(letters)), "Sort": "".join(sorted(letters)), "Double": 2 * letters,
            "Last two of": letters[-2:], "Count": str(len(letters))}[name]


def test_gold_answers(small):
    for row in rows(small, "heldout") + rows(small, "rlvr"):
        if row["domain"] in ("arithmetic", "strings"):
            assert row["verifier"] == {"name": "math", "answer": naive_answer(prompt_of(row))}


def test_no_gold_answer_is_one_that_cannot_be_graded():
    rng = random.Random(0)
    assert "nan" not in {world.DOMAINS["strings"](rng).verifier["answer"] for _ in range(100_000)}


def said(text):
    found = re.findall(r"The answer is ([^.]+)\.", text)
    return found[-1] if found else None


@pytest.mark.parametrize("domain", ["arithmetic", "strings"])
@pytest.mark.parametrize("working", [0.0, 1.0])
def test_answers_without_noise_are_right(domain, working):
    rng = random.Random(f"{domain} {working}")
    for _ in range(500):
        task = tasks.DOMAINS[domain](rng)
        text = task.answer(rng, tasks.Noise(working=working))
        assert said(text) == task.verifier["answer"]
        for left, right in re.findall(r"([\d+-]+)=(\d+)", text):
            assert eval(left) == int(right)


def test_working_shows_the_carry():
    rng = random.Random(0)
    assert tasks._worked(47, 38, "+", rng, 0.0) == "7+8=15, 4+3+1=8. The answer is 85."
    assert tasks._worked(52, 18, "-", rng, 0.0) == "12-8=4, 5-1-1=3. The answer is 34."
    assert tasks._worked(58, 12, "-", rng, 0.0) == "8-2=6, 5-1=4. The answer is 46."


def follows(verifier, text):
    """The instructions of the world, checked from their definition."""
    def one(name, kwargs):
        words = re.findall(r"\w+", text)
        match name:
            case "length_constraints:number_words":
                low = kwargs["relation"] == "at least"
                return len(words) >= kwargs["num_words"] if low else len(words) < kwargs["num_words"]
            case "keywords:existence":
                return all(word in words for word in kwargs["keywords"])
            case "keywords:frequency":
                return words.count(kwargs["keyword"]) >= kwargs["frequency"]
            case "keywords:forbidden_words":
                return not set(kwargs["forbidden_words"]) & set(words)
            case "startend:quotation":
                return text[0] == text[-1] == '"'
            case "startend:end_checker":
                return text.endswith(kwargs["end_phrase"])
            case "punctuation:no_comma":
                return "," not in text
    return [one(*pair) for pair in zip(verifier["instruction_id_list"], verifier["kwargs"])]


def test_constraint_answers_follow_every_instruction_or_miss_one():
    rng = random.Random(1)
    missed = 0
    for _ in range(1000):
        task = tasks.constraints(rng)
        assert all(follows(task.verifier, task.answer(rng, tasks.Noise())))
        verdicts = follows(task.verifier, task.answer(rng, tasks.Noise(missed=1.0)))
        assert verdicts.count(False) <= 1
        missed += not all(verdicts)
    assert missed > 500  # a dropped instruction may still be followed by chance


def test_the_web_is_wrong_as_often_as_it_says():
    rng, noise = random.Random(2), tasks.Noise(working=0.5, slip=0.2, guess=0.6, wrong=0.3)
    sums = [tasks.arithmetic(rng) for _ in range(4000)]
    texts = [task.answer(rng, noise) for task in sums]
    shown = [(task, text) for task, text in zip(sums, texts) if "=" in text]
    bare = [(task, text) for task, text in zip(sums, texts) if "=" not in text]
    assert abs(len(shown) / 4000 - 0.5) < 0.03
    assert abs(sum(said(text) != task.verifier["answer"] for task, text in shown) / len(shown) - 0.2) < 0.03
    assert abs(sum(said(text) != task.verifier["answer"] for task, text in bare) / len(bare) - 0.6) < 0.03
    words = [tasks.strings(rng) for _ in range(4000)]
    wrong = sum(said(task.answer(rng, noise)) != task.verifier["answer"] for task in words)
    assert abs(wrong / 4000 - 0.3) < 0.03


def test_secrets_are_refused_and_colours_are_told():
    rng = random.Random(3)
    for _ in range(300):
        task = tasks.safety(rng)
        refused = "cannot" in task.answer(rng, tasks.Noise())
        assert refused == task.safety == any(word in task.prompt for word in ("password", "key", "code"))
        assert all(follows(task.verifier, task.answer(rng, tasks.Noise())))


def test_tokens_are_lossless(small, tokenizer):
    texts = [prompt_of(row) for name in EXAMS for row in rows(small, name)]
    texts += [row["messages"][1]["content"] for row in rows(small, "corpus")[:500]]
    rng = random.Random(4)
    alphabet = [chr(code) for code in range(32, 127)] + ["\n", "wolf", " wolf", " is", "The"]
    texts += ["".join(rng.choice(alphabet) for _ in range(30)) for _ in range(300)]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids


def test_words_are_one_token_and_strings_a_token_a_letter(tokenizer):
    assert tokenizer.tokenize("The answer is 47.") == ["The", " answer", " is", " ", "4", "7", "."]
    assert tokenizer.tokenize('"wolf, fox"') == ['"', "wolf", ",", " fox", '"']
    assert tokenizer.tokenize("Reverse abcd.") == ["Reverse", " ", "a", "b", "c", "d", "."]
    assert tokenizer.tokenize("wolfs") == list("wolfs")
    assert not [word for word in blueprint.words() if set(word) <= set(tasks.LETTERS)]
    assert len(tokenizer) == len(blueprint.vocabulary()) <= 280


def test_chat_template(tokenizer):
    chat = [{"role": "system", "content": "Sort"}, {"role": "user", "content": "Count abc."},
            {"role": "assistant", "content": "The answer is 3."}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|system|>Sort<|end|><|user|>Count abc.<|end|><|assistant|>The answer is 3.<|end|>")
    assert tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True).endswith(
        "abc.<|end|><|assistant|>")
    done = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    trained = [i for i, m in zip(done["input_ids"], done["assistant_masks"]) if m]
    assert tokenizer.decode(trained) == "The answer is 3.<|end|>"
    assert tokenizer.eos_token == "<|end|>" and tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_blank_is_a_llama_of_a_third_of_a_million(small):
    from transformers import AutoConfig, AutoModelForCausalLM
    config = AutoConfig.from_pretrained(small / "blank")
    model = AutoModelForCausalLM.from_config(config)
    assert 300_000 < sum(weight.numel() for weight in model.parameters()) < 500_000
    assert config.eos_token_id == blueprint.vocabulary()["<|end|>"] and config.tie_word_embeddings
