"""Reward models and log-probs as scorers: against plain transformers row by row, and whatever the neighbours are."""

import copy
import json
import random
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from rows import assistant, user
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers import LlamaConfig, LlamaForSequenceClassification

from pt_tools import models, scoring, stop
from pt_tools.errors import BadModel, Stopped
from tests import toys

CFG = types.SimpleNamespace(threads=1, device="cpu", dtype="float32")
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
SMALL = {"vocab_size": 102, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.2}  # fmt: skip
WITH_TOOLS = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}" + toys.CHAT


def record(prompt, *texts, **more):
    return {"prompt": prompt, **more, "completions": [{"text": text, "finish": "stop"} for text in texts]}


RECORDS = [
    record([user("Say 1.")], "1", "", "one and only one", " \n"),
    record([{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Hello"), user("Who?")], "Me.", "x" * 60),
    record([user("2 + 2?")], "4", "four", tools=TOOLS),
    record("Once upon", " a time", ""),
    record([user("Go")], *("ab" * n for n in range(1, 25))),
]


def reward_model(path, pad=0, tok=None, seed=0, labels=1):
    """A directory with a decoder that has a random head."""
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=labels, pad_token_id=pad))
    models.save_model(model, tok or toys.tokenizer(WITH_TOOLS), path)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return reward_model(tmp_path_factory.mktemp("rm") / "rm")


def naive_ids(tok, rec, text):
    if isinstance(rec["prompt"], str):
        return tok(rec["prompt"] + text, add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
    turns = [*rec["prompt"], assistant(text)]
    whole = tok.apply_chat_template(turns, tools=rec.get("tools"), tokenize=False)
    return tok(whole, add_special_tokens=False)["input_ids"]


def naive(directory, rec, text, back=1):
    """One row through the body alone; the head by hand on the hidden state `back` places from the end."""
    tok, model = AutoTokenizer.from_pretrained(directory), LlamaForSequenceClassification.from_pretrained(directory)
    with torch.no_grad():
        hidden = model.eval().model(input_ids=torch.tensor([naive_ids(tok, rec, text)])).last_hidden_state
    return float((hidden[0, -back] * model.score.weight[0].detach()).sum())


def rewards_of(scorer, records):
    records = copy.deepcopy(records)
    scorer.score(records)
    assert all(completion["errors"] == {} for rec in records for completion in rec["completions"])
    return [completion["scores"]["rm"] for rec in records for completion in rec["completions"]]


def test_a_reward_is_the_heads_number_at_the_last_token(directory):
    expected = [naive(directory, rec, c["text"]) for rec in RECORDS for c in rec["completions"]]
    found = rewards_of(scoring.RewardModel("rm", directory, CFG, 5), RECORDS)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(x, 4) for x in found}) == len(found) == 34


def test_a_reward_does_not_depend_on_its_neighbours(directory):
    one = rewards_of(scoring.RewardModel("rm", directory, CFG, 1), RECORDS)
    many = scoring.RewardModel("rm", directory, CFG, 64)
    assert rewards_of(many, RECORDS) == pytest.approx(one, abs=1e-5)
    order = random.Random(0).sample(range(len(RECORDS)), len(RECORDS))
    mixed = copy.deepcopy([RECORDS[i] for i in order])
    many.score(mixed)
    back = sorted(zip(order, mixed), key=lambda pair: pair[0])
    assert [c["scores"]["rm"] for _, rec in back for c in rec["completions"]] == pytest.approx(one, abs=1e-5)


def test_a_forward_holds_so_many_rows_and_tokens(directory, monkeypatch):
    shapes, scorer = [], scoring.RewardModel("rm", directory, CFG, 4)
    scorer.model.register_forward_pre_hook(lambda *a: shapes.append(tuple(a[2]["input_ids"].shape)), with_kwargs=True)
    one = rewards_of(scorer, RECORDS)
    assert sum(rows for rows, _ in shapes) == 34 and max(rows for rows, _ in shapes) == 4 and len(shapes) == 9
    shapes.clear()
    monkeypatch.setattr(scoring.rollout, "SCORE_TOKENS", 100)
    assert rewards_of(scorer, RECORDS) == pytest.approx(one, abs=1e-5)
    assert sum(rows for rows, _ in shapes) == 34 and all(rows == 1 or rows * width <= 100 for rows, width in shapes)
    assert max(rows for rows, _ in shapes) > 1


def test_the_tokenizers_padding_side_changes_nothing(directory, tmp_path):
    left = reward_model(tmp_path / "left", tok=toys.tokenizer(WITH_TOOLS, padding_side="left"))
    assert AutoTokenizer.from_pretrained(left).padding_side == "left"
    expected = rewards_of(scoring.RewardModel("rm", directory, CFG, 8), RECORDS)
    assert rewards_of(scoring.RewardModel("rm", left, CFG, 8), RECORDS) == expected


CLOSED = toys.CHAT.replace("<|end|>\n", "<|end|>")


@pytest.mark.parametrize("pad, back", [(1, 2), (0, 1), (None, 1), (-1, 1)])
def test_a_model_is_read_where_its_pad_token_makes_it_read(pad, back, tmp_path):
    """Trained with pad = end-of-text (1) it is read before that token; without a usable pad token at the last one."""
    path = reward_model(tmp_path / "rm", pad=pad, tok=toys.tokenizer(CLOSED))
    expected = [naive(path, rec, c["text"], back) for rec in RECORDS for c in rec["completions"]]
    assert rewards_of(scoring.RewardModel("rm", path, CFG, 8), RECORDS) == pytest.approx(expected, abs=1e-5)


def test_an_encoder_never_sees_the_padding(tmp_path):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SMALL, num_labels=1, pad_token_id=0))
    models.save_model(model, toys.tokenizer(), tmp_path / "rm")
    one = rewards_of(scoring.RewardModel("rm", tmp_path / "rm", CFG, 1), RECORDS)
    assert rewards_of(scoring.RewardModel("rm", tmp_path / "rm", CFG, 16), RECORDS) == pytest.approx(one, abs=1e-5)
    assert len({round(x, 5) for x in one}) == len(one)


def test_the_text_is_scored_not_the_ids_of_another_tokenizer(directory):
    records = copy.deepcopy(RECORDS)
    for rec in records:
        rec.update(prompt_ids=[7, 7], tokenizer="other", template="other")
        for completion in rec["completions"]:
            completion.update(token_ids=[99999, 3], scores={"math": 1.0, "rm": 55.0}, reward=1.0)
            completion["errors"] = {"rm": "earlier"}
    scorer = scoring.RewardModel("rm", directory, CFG, 8)
    expected = iter(rewards_of(scorer, RECORDS))
    scorer.score(records)
    for rec in records:
        for completion in rec["completions"]:
            assert completion["scores"] == {"math": 1.0, "rm": next(expected)}
            assert completion["errors"] == {} and completion["reward"] == 1.0 and completion["token_ids"] == [99999, 3]


def test_what_cannot_be_scored_is_an_error_and_never_a_number(directory, tmp_path):
    good, bad = RECORDS[0], record([user("Say 1.")], "x" * 200, "\ud800", None, "lost")
    bad["completions"][3]["finish"] = "error"
    odd = [{"prompt": ["Say"], "completions": [{"text": "a"}]}, {"completions": [{"text": "a"}]}]
    records = [copy.deepcopy(good), bad, *odd]
    scorer = scoring.RewardModel("rm", directory, CFG, 8)
    scorer.score(records)
    assert [c["scores"]["rm"] for c in records[0]["completions"]] == pytest.approx(rewards_of(scorer, [good]), abs=1e-5)
    failed = [c for rec in records[1:] for c in rec["completions"]]
    whys = ["210 tokens, the context of the reward model is 128", "surrogates not allowed", "no text",
            "there is no completion to score", "", "no record"]
    for completion, why in zip(failed, whys, strict=True):
        assert completion["scores"] == {} and why in completion["errors"]["rm"]


def test_a_reward_that_is_not_finite_is_an_error(directory):
    scorer = scoring.RewardModel("rm", directory, CFG, 8)
    scorer.model.get_input_embeddings().weight.data[scorer.tok.convert_tokens_to_ids("z")] = float("nan")
    records = [record([user("Hi")], "zoo", "zoos and ants", "ants")]
    expected = naive(directory, records[0], "ants")
    scorer.score(records)
    zoo, zoos, ants = records[0]["completions"]
    for completion in (zoo, zoos):
        assert completion["scores"] == {} and completion["errors"] == {"rm": "reward is not finite"}
    assert ants["scores"]["rm"] == pytest.approx(expected, abs=1e-5) and ants["errors"] == {}


@pytest.mark.parametrize(
    "template, why",
    [
        ("{{ raise_exception('no turns here') }}", "chat template: no turns here"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "leaves out"),
        (None, "chat template"),
    ],
)
def test_a_template_that_cannot_show_the_answer_is_an_error(template, why, tmp_path):
    path = reward_model(tmp_path / "rm", tok=toys.tokenizer(template))
    records = copy.deepcopy(RECORDS[:1])
    scoring.RewardModel("rm", path, CFG, 8).score(records)
    assert all(c["scores"] == {} and why in c["errors"]["rm"] for c in records[0]["completions"])


def test_end_of_text_follows_a_template_without_end_of_turn():
    tok = toys.tokenizer("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}")
    assert scoring.encode(tok, [user("a")], "b") == [3, *tok("a")["input_ids"], 4, *tok("b")["input_ids"], 1]
    tok = toys.tokenizer()
    assert scoring.encode(tok, [user("a")], "b")[-2:] == [1, tok.convert_tokens_to_ids("\n")]
    assert scoring.encode(tok, "a", "b") == [*tok("ab")["input_ids"], 1]
    assert scoring.encode(tok, "a", [assistant("b")]) == scoring.encode(tok, [user("a")], "b")


def test_only_a_reward_model_is_taken_for_one(tmp_path, policy):
    with pytest.raises(BadModel, match="one output, this one has 3"):
        scoring.RewardModel("rm", reward_model(tmp_path / "three", labels=3), CFG)
    with pytest.raises(BadModel, match="score.weight"):
        scoring.RewardModel("rm", policy, CFG)
    small = reward_model(tmp_path / "small")
    scorer = scoring.RewardModel("rm", small, CFG)
    scorer.tok = AutoTokenizer.from_pretrained(policy)  # has more tokens than the model
    assert len(scorer.tok) > 110
    with pytest.raises(BadModel, match="token id 110 has no embedding"):
        scorer.score([record([user("Say it.")], scorer.tok.convert_ids_to_tokens(110))])


def test_pairs(directory):
    turns = [user("Say 1.")]
    pairs = [
        {"prompt": turns, "chosen": "1", "rejected": [assistant("2")]},
        {"chosen": [*turns, assistant("1")], "rejected": [*turns, assistant("2")]},
        {"prompt": "Once", "chosen": " upon", "rejected": " more"},
        {"chosen": "Once upon", "rejected": "Once more"},
        {"prompt": turns, "chosen": "1", "rejected": "x" * 200},
        {"prompt": turns},
    ]
    a, b = (naive(directory, record(turns), text) for text in ("1", "2"))
    c, d = (naive(directory, record("Once"), text) for text in (" upon", " more"))
    found = scoring.RewardModel("rm", directory, CFG, 3).pairs(copy.deepcopy(pairs))
    expected = [(a, b), (a, b), (c, d), (c, d)]
    assert [p[:2] for p in found[:4]] == [pytest.approx(pair, abs=1e-5) for pair in expected]
    assert [p[2] for p in found[:4]] == [None] * 4
    assert found[4][0] == pytest.approx(a, abs=1e-5) and found[4][1] is None and "128" in found[4][2]
    assert found[5] == (None, None, "no pair: chosen or rejected is missing")


# --- log-probs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampled(world, policy, tmp_path_factory):
    """Records that pt-sample made with the policy, as a real process."""
    import subprocess
    import sys
    from pathlib import Path

    out = tmp_path_factory.mktemp("sampled") / "samples.jsonl"
    rows = [{"id": str(i), "prompt": [user(text)]} for i, text in enumerate(["2 + 3 =", "Say it.", "reverse: a b c"])]
    toys.write(out.with_name("prompts.jsonl"), rows)
    argv = [str(Path(sys.executable).parent / "pt-sample"), out.with_name("prompts.jsonl"), "-m", policy, "-n", "4"]
    argv += ["--max-new-tokens", "24", "--seed", "3", "--threads", "1", "-o", out]
    subprocess.run(list(map(str, argv)), check=True, capture_output=True, timeout=300)
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture(scope="module")
def teacher(world, tmp_path_factory):
    """Another model with the same tokenizer and a template of its own."""
    path = tmp_path_factory.mktemp("teacher") / "teacher"
    tok = models.load_tokenizer(str(world / "blank"))
    tok.chat_template = "Q:" + tok.chat_template
    models.save_model(models.from_config(str(world / "blank"), seed=9), tok, path)
    return path


def test_log_probs_of_the_sampling_model_are_the_recorded_ones(sampled, policy):
    records = copy.deepcopy(sampled)
    scorer = scoring.Logprobs("self", policy, CFG)
    scorer.score(records)
    lengths = [len(c["logprobs"]) for rec in records for c in rec["completions"]]
    assert len(lengths) == 12 and sum(lengths) > 100
    for before, after in zip(sampled, records):
        for was, now in zip(before["completions"], after["completions"]):
            assert now.pop("teachers") == {"self": {"logprobs": pytest.approx(was["logprobs"], abs=1e-4)}}
            assert now == was  # nothing else is touched
    assert scorer.keys == ()


def test_log_probs_of_a_teacher_are_plain_log_softmax_after_the_policys_prompt(sampled, teacher):
    records = copy.deepcopy(sampled)
    scoring.Logprobs("math", teacher, CFG).score(records)
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    for rec in records:
        for c in rec["completions"]:
            ids = rec["prompt_ids"] + c["token_ids"]
            with torch.no_grad():
                table = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].float(), -1)
            start = len(rec["prompt_ids"])
            expected = [float(table[start + t - 1, token]) for t, token in enumerate(c["token_ids"])]
            assert c["teachers"]["math"]["logprobs"] == pytest.approx(expected, abs=1e-5)
            assert all(x == float(f"{x:.7g}") for x in c["teachers"]["math"]["logprobs"])
            assert c["teachers"]["math"]["logprobs"] != pytest.approx(c["logprobs"], abs=1e-2)


def test_ids_that_the_teacher_cannot_read_are_errors(sampled, teacher):
    scorer = scoring.Logprobs("math", teacher, CFG)
    other, textual, long, empty, fine = (copy.deepcopy(sampled[0]) for _ in range(5))
    other["tokenizer"] = "0123456789abcdef"
    for c in textual["completions"]:
        del c["token_ids"], c["logprobs"]
    long["completions"][0]["token_ids"] = [5] * 300
    empty["completions"][0]["token_ids"] = []
    stale = {"errors": {"teachers.math": "earlier", "math": "kept"}, "teachers": {"code": {"logprobs": []}}}
    fine["completions"][0].update(stale)
    for c in other["completions"]:
        c.update(teachers={"math": {"logprobs": [-1.0]}}, scores={"math": 1.0})
    scorer.score([other, textual, long, empty, fine])
    for c in other["completions"]:
        assert c["errors"] == {"teachers.math": "ids of another tokenizer"}
        assert c["teachers"] == {} and c["scores"] == {"math": 1.0}
    assert {c["errors"]["teachers.math"] for c in textual["completions"]} == {"no token ids; pt-sample writes them"}
    total = len(long["prompt_ids"]) + 300
    assert long["completions"][0]["errors"] == {"teachers.math": f"{total} tokens, the context of the model is 256"}
    assert len(long["completions"][1]["teachers"]["math"]["logprobs"]) == len(long["completions"][1]["token_ids"])
    assert empty["completions"][0]["teachers"] == {"math": {"logprobs": []}}
    assert fine["completions"][0]["errors"] == {"math": "kept"}
    assert set(fine["completions"][0]["teachers"]) == {"code", "math"}


def test_log_probs_that_are_not_finite_are_an_error(sampled, teacher):
    scorer = scoring.Logprobs("math", teacher, CFG)
    scorer.model.get_output_embeddings().weight.data[0] = float("nan")
    records = copy.deepcopy(sampled[:1])
    scorer.score(records)
    assert {c["errors"]["teachers.math"] for c in records[0]["completions"]} == {"log-probs are not finite"}
    assert all("teachers" not in c for c in records[0]["completions"])


# --- both -----------------------------------------------------------------------------------------------------------


def test_the_command_runs_models_and_combines_their_scores(pt, sampled, teacher, directory, tmp_path):
    safe = reward_model(tmp_path / "safe", seed=1)
    rows = [{**rec, "safety": i == 0} for i, rec in enumerate(sampled)]
    toys.write(tmp_path / "samples.jsonl", rows)
    argv = ["--reward-model", f"helpful={directory}", "--reward-model", f"safe={safe}", "--logprobs", f"math={teacher}"]
    argv += ["--combine", "llama2(helpful, safe)", "--threads", 1, "--batch-size", 5]
    pt("pt-score", "samples.jsonl", *argv, "-o", "out.jsonl", check=0)
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    found = [(rec, c) for rec in scored for c in rec["completions"]]
    for rec, c in found:
        assert len(c["teachers"]["math"]["logprobs"]) == len(c["token_ids"])
        expected = {name: naive(path, rec, c["text"]) for name, path in (("helpful", directory), ("safe", safe))}
        assert c["scores"] == {name: pytest.approx(x, abs=1e-5) for name, x in expected.items()}
    h, s = (1 / (1 + np.exp(-np.array([c["scores"][name] for _, c in found]))) for name in ("helpful", "safe"))
    taken = np.where(np.array([rec["safety"] for rec, _ in found]) | (s < 0.15), s, h)
    raw = np.log(taken / (1 - taken))
    assert [c["reward"] for _, c in found] == pytest.approx(((raw - raw.mean()) / raw.std()).tolist(), abs=1e-6)
    assert len({c["reward"] for _, c in found}) > 6


def test_threads_share_a_scorer(sampled, teacher, directory):
    scorers = [scoring.Logprobs("math", teacher, CFG), scoring.RewardModel("rm", directory, CFG, 4)]

    def scored(_):
        records = copy.deepcopy(sampled)
        for scorer in scorers:
            scorer.score(records)
        return records

    alone = scored(None)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(scored, range(8))) == [alone] * 8


def test_a_stop_is_served_between_batches(sampled, teacher, directory):
    stop.request("SIGTERM")
    try:
        for scorer in (scoring.Logprobs("math", teacher, CFG), scoring.RewardModel("rm", directory, CFG)):
            with pytest.raises(Stopped):
                scorer.score(copy.deepcopy(sampled))
    finally:
        stop.clear()


def test_close_frees_the_model(directory):
    scorer = scoring.RewardModel("rm", directory, CFG)
    scorer.close()
    assert scorer.model is None
