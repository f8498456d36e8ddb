"""pt-eval: figures by hand, masked completions, votes, instructions, comparisons, pairs, files, and real models."""

import itertools
import json
import random
from collections import Counter
from statistics import fmean

import pytest

from pt_tools import __version__
from pt_tools.rewards import constraints, evaluate, evaluate_against, evaluate_protocol, evaluate_table, stats


def record(id, domain, rewards, key="math", **more):
    """A record scored by its verifier; a reward of None is a grader's failure."""
    completions = [
        {"text": "x", "finish": "stop", "scores": {} if r is None else {key: r}, "errors": {key: "lost"} if r is None else {}, "reward": r}
        for r in rewards
    ]
    return {"id": id, "domain": domain, "verifier": {"name": "math", "answer": "1"}, "completions": completions, **more}


RECORDS = [
    record("a", "m", [1.0, 1.0, 0.0, 0.0]),
    record("b", "m", [1.0, 1.0, 1.0, 1.0]),
    record("c", "s", [0.0, 0.0, 0.0, 1.0]),
    record("d", "s", [None, 1.0, None, None]),
    record("e", "s", [None, None, None, None]),
]


def lines(records):
    return "".join(json.dumps(each) + "\n" for each in records)


def test_figures_by_hand(pt):
    done = pt("pt-eval", "--k", "1,2,4", "--json", input=lines(RECORDS), check=0)
    report = json.loads(done.out)
    m, s = report["domains"]["m"], report["domains"]["s"]
    assert (m["n"], m["samples"], m["mean"], m["reward"]) == (2, 8, 0.75, 0.75)
    assert (s["n"], s["samples"], s["mean"]) == (2, 5, (0.25 + 1.0) / 2)
    assert m["pass@2"]["mean"] == pytest.approx((5 / 6 + 1) / 2) and m["pass@4"]["mean"] == 1.0
    assert s["pass@2"] == pytest.approx({"n": 1, **stats.proportion([0.5])._asdict()})
    assert (m["low"], m["high"]) == pytest.approx(stats.proportion([0.5, 1.0])[1:])
    assert report["mean"] == pytest.approx(stats.macro([stats.proportion([0.5, 1.0]), stats.proportion([0.25, 1.0])])._asdict())
    assert report["extra"]["pass@1"] == pytest.approx(report["mean"])
    assert report["extra"]["ungraded_completions"] == 7 and report["extra"]["finish"] == {"stop": 20}
    assert (report["rows"]["in"], report["rows"]["out"], report["rows"]["masked"]) == (5, 5, 1)
    assert (report["measure"], report["by"]) == ("pass@1", "domain")
    assert "1 masked [masked: no completion could be graded (1)]" in done.err


def test_the_table(pt):
    out = pt("pt-eval", "--k", "2", input=lines(RECORDS), check=0).out.splitlines()
    assert out[0].split() == ["domain", "prompts", "pass@1", "95", "%", "pass@2"]
    assert [line.split()[:3] for line in out[1:4]] == [["m", "2", "0.750"], ["s", "2", "0.625"], ["mean", "4", "0.688"]]
    assert out[1].split()[-1] == "0.917" and out[4] == ""
    assert "samples 4; verifiers math; interval wilson; prompts" in out[5] and len(out) == 6


def test_what_correct_means():
    two = {"verifier": [{"name": "math", "answer": "1"}, {"name": "math", "answer": "2", "key": "b"}]}
    assert evaluate.outcome(two, {"scores": {"math": 1.0, "b": 0.0}, "reward": 1.0}) is False
    assert evaluate.outcome(two, {"scores": {"math": 1.0, "b": 1.0}, "reward": 2.0}) is True
    assert evaluate.outcome(two, {"scores": {"math": 1.0}, "errors": {"b": "lost"}, "reward": None}) is None
    assert evaluate.outcome(two, {"scores": {"correct": 5.0, "ended": 1.0}, "reward": 3.0}) is True
    assert evaluate.outcome(two, {"scores": {}, "errors": {"correct": "lost"}, "reward": None}) is None
    assert evaluate.outcome({}, {"reward": 1.0}) is True and evaluate.outcome({}, {"reward": None}) is None
    for rec, completion in ((two, {"text": "x"}), (two, {"scores": {"judge": 1.0}, "reward": 1.0}), ({}, {})):
        with pytest.raises(ValueError, match="no scores"):
            evaluate.outcome(rec, completion)


def test_win_rate_over_another_model(pt, tmp_path):
    other = [record("a", "m", [0.0]), record("b", "m", [1.0]), record("c", "s", [1.0, 0.0]), record("zz", "s", [0.0])]
    (tmp_path / "other.jsonl").write_text(lines(other))
    report = json.loads(pt("pt-eval", "--against", "other.jsonl", "--json", input=lines(RECORDS), check=0).out)
    against = report["extra"]["against"]
    # a: two of four beat 0, two tie: .75; b: all tie: .5; c: of 4 x 2 pairs 1 wins, 4 tie, 3 lose: .375
    assert against["domains"]["m"]["mean"] == 0.625 and against["domains"]["s"]["mean"] == 0.375
    assert against["mean"]["mean"] == 0.5 and against["unmatched"] == 2  # zz, and d of ours
    swapped = json.loads(pt("pt-eval", "--against", "-", "other.jsonl", "--json", input=lines(RECORDS), check=0).out)
    assert swapped["extra"]["against"]["mean"]["mean"] == 0.5
    (tmp_path / "none.jsonl").write_text(lines([record("zz", "s", [0.0])]))
    assert "same id" in pt("pt-eval", "--against", "none.jsonl", input=lines(RECORDS), check=3).err


def test_a_report_file_is_whole_and_kept(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    first = pt("pt-eval", "in.jsonl", "-o", "eval.json", check=0)
    report = json.loads((tmp_path / "eval.json").read_text())
    assert report["mean"] == json.loads((tmp_path / "eval.json.manifest.json").read_text())["final"]["mean"]
    again = pt("pt-eval", "in.jsonl", "-o", "eval.json", check=0)
    assert "nothing to do" in again.err and again.out == first.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json", "eval.json.manifest.json", "in.jsonl"]


def test_errors(pt):
    unscored = {"id": "a", "verifier": {"name": "math", "answer": "1"}, "completions": [{"text": "1"}]}
    assert "stdin:1: a completion has no scores" in pt("pt-eval", input=lines([unscored]), check=3).err
    assert "no completions" in pt("pt-eval", input=lines([{"id": "a"}]), check=3).err
    assert "no prompt has a graded completion" in pt("pt-eval", input=lines(RECORDS[4:]), check=3).err
    assert "pass@8 needs at least 8 samples" in pt("pt-eval", "--k", "8", input=lines(RECORDS), check=3).err
    assert "whole numbers" in pt("pt-eval", "--k", "two", input="", check=2).err
    assert "needs at least -n 4" in pt("pt-eval", "--maj", "4", "-m", "x", input="", check=2).err
    assert "--maj: k must be" in pt("pt-eval", "--maj", "0", input="", check=2).err
    assert "maj@8 needs at least 8 samples" in pt("pt-eval", "--maj", "8", input=lines(RECORDS), check=3).err
    odd = {**RECORDS[0], "source": 5}
    assert "stdin:1: source is not a string" in pt("pt-eval", "--by", "source", input=lines([odd]), check=3).err


def test_a_real_model_is_sampled_and_verified(pt, world, policy, tmp_path):
    prompts = [json.loads(line) for line in open(world / "heldout.jsonl")][:12]
    (tmp_path / "prompts.jsonl").write_text(lines(prompts))
    argv = ["pt-eval", "prompts.jsonl", "-m", policy, "-n", "3", "--k", "3", "--max-new-tokens", "8", "--threads", "1", "--json"]
    report = json.loads(pt(*argv, check=0).out)
    assert sum(part["n"] for part in report["domains"].values()) == 12
    assert {part["samples"] // part["n"] for part in report["domains"].values()} == {3}
    assert set(report["domains"]) == {prompt["domain"] for prompt in prompts}
    assert sum(report["extra"]["finish"].values()) == 36
    assert report["mean"]["mean"] < 0.5  # random weights
    protocol = report["protocol"]
    assert protocol["sampling"] == [{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8, "seed": 0}]
    assert protocol["samples"] == {"least": 3, "most": 3} and protocol["prompts"]["n"] == 12
    assert set(protocol["verifiers"]) == {"math", "constraints"} & set(protocol["verifiers"]) != set()


@pytest.mark.slow
def test_sampled_here_or_by_the_other_commands(pt, world, policy, tmp_path):
    prompts = [json.loads(line) for line in open(world / "heldout.jsonl")][:12]
    (tmp_path / "prompts.jsonl").write_text(lines(prompts))
    how = ["-m", policy, "-n", "3", "--max-new-tokens", "8", "--threads", "1"]
    report = json.loads(pt("pt-eval", "prompts.jsonl", *how, "--k", "3", "--json", check=0).out)
    pt("pt-sample", "prompts.jsonl", *how, "-o", "s.jsonl", check=0)
    pt("pt-score", "--verify", "s.jsonl", "-o", "v.jsonl", check=0)
    other = json.loads(pt("pt-eval", "v.jsonl", "--k", "3", "--json", check=0).out)
    assert {**other, "protocol": 0, "rows": 0} == {**report, "protocol": 0, "rows": 0}
    for name in ("models", "sampling", "tokenizer", "template", "samples", "verifiers", "prompts"):
        assert other["protocol"][name] == report["protocol"][name] and report["protocol"][name], name
    assert other["protocol"]["graded_by"][0]["pt-tools"] == __version__


def test_options_of_sampling_are_refused_where_nothing_is_sampled(pt):
    for flags in (["-n", "4"], ["--temperature", "0"], ["--seed", "1"], ["--threads", "1"], ["--verifier", "format"]):
        assert "of use only with -m" in pt("pt-eval", *flags, input=lines(RECORDS), check=2).err
    for flags in (["-n", "4"], ["--k", "1"], ["--maj", "1"], ["--against", "x"], ["--unsafe-local"]):
        assert "of use only with completions" in pt("pt-eval", "--reward-model", "x", *flags, input="", check=2).err
    assert "one of them" in pt("pt-eval", "--reward-model", "x", "-m", "x", input="", check=2).err


# --- votes --------------------------------------------------------------------------------------------------------


def answered(id, gold, texts, **more):
    """A record graded by the real math verifier."""
    from pt_tools import rewards

    made = {"id": id, "prompt": f"question {id}", "verifier": {"name": "math", "answer": gold}, **more}
    made["completions"] = [{"text": text if text is None else f"The answer is {text}.", "finish": "stop"} for text in texts]
    for completion in made["completions"]:
        completion["text"] = completion["text"] or "I do not know"
    rewards.score(made)
    return made


def test_votes_are_for_answers_not_for_texts():
    """0.5, 1/2 and 50/100 are one answer with three votes; 3 has two; two completions have none."""
    one = answered("a", "0.5", ["3", "0.5", "1/2", None, "3", "50/100", None])
    tally = evaluate.Tally(majority=(1, 2, 5, 7))
    tally.add(one)
    assert tally.prompts[0].votes == (((2, 0), (3, 3)), 2)
    report = tally.report()["domains"]["all"]
    assert report["maj@7"]["mean"] == 1.0 and [report["mean"], report["maj@1"]["mean"]] == pytest.approx([3 / 7] * 2)
    sets = list(itertools.combinations("aaabb..", 5))
    won = [Counter(x for x in s if x != ".").most_common() for s in sets]
    share = fmean(1.0 if v[0][0] == "a" and (len(v) == 1 or v[1][1] < v[0][1]) else 0.5 if len(v) > 1 and v[0][1] == v[1][1]
                  else 0.0 for v in won)
    assert report["maj@5"]["mean"] == pytest.approx(share)


def test_votes_of_other_verifiers_are_texts():
    made = record("a", "m", [1.0, 0.0, 0.0, 1.0], key="regex")
    made["verifier"] = {"name": "regex", "pattern": "x"}
    for completion, text in zip(made["completions"], ("yes  it is", "no", "", "yes it\nis")):
        completion["text"] = text
    tally = evaluate.Tally(majority=(3, 4))
    tally.add(made)
    assert tally.prompts[0].votes == (((1, 0), (2, 2)), 1)
    assert tally.report()["domains"]["m"]["maj@4"]["mean"] == 1.0


def test_a_right_answer_among_scattered_wrong_ones_wins_the_vote(pt):
    records = [answered(str(i), "7", ["7", "7", str(10 + i), str(20 + i), str(30 + i)], domain="m") for i in range(6)]
    records += [answered(f"s{i}", "7", ["7", "9", "9", "9", "8"], domain="s") for i in range(4)]
    done = pt("pt-eval", "--maj", "5,1", "--k", "5", input=lines(records), check=0).out.splitlines()
    assert done[0].split()[5:] == ["pass@5", "maj@1", "maj@5"]
    assert [line.split()[-3:] for line in done[1:4]] == [["1.000", "0.400", "1.000"], ["1.000", "0.200", "0.000"],
                                                         ["1.000", "0.300", "0.500"]]


# --- grouping, bounds, repeated prompts ---------------------------------------------------------------------------


def test_by_source_and_by_bootstrap(pt):
    records = [{**each, "source": source} for each, source in zip(RECORDS[:4], "yxyx")]
    report = json.loads(pt("pt-eval", "--by", "source", "--interval", "bootstrap", "--json", input=lines(records), check=0).out)
    assert {name: part["mean"] for name, part in report["domains"].items()} == {"x": 1.0, "y": 0.375} and report["by"] == "source"
    assert report["domains"]["y"] == {**report["domains"]["y"], **stats.bootstrap([(0.5, 1), (0.25, 1)])._asdict()}
    assert report["protocol"]["interval"] == "bootstrap"


def test_a_repeated_prompt_counts_once_in_the_bounds(pt):
    records = [{**record(f"{i}{copy}", "m", [float(i % 3 == 0)]), "prompt": f"q{i}"} for i in range(12) for copy in range(5)]
    done = pt("pt-eval", "--json", input=lines(records), check=0)
    part = json.loads(done.out)["domains"]["m"]
    once = stats.proportion([float(i % 3 == 0) for i in range(12)])
    assert part["n"] == 60 and (part["mean"], part["low"], part["high"]) == pytest.approx(once)
    assert "48 records repeat a prompt" in done.err and json.loads(done.out)["extra"]["repeated_prompts"] == 48


def test_mean_reward_beside_the_pass_rate(pt):
    """Partial scores: mean@n is their mean; no answer is right at 0.5. Rewards beyond 0 to 1 are no proportion."""
    records = [record(f"{i}", "m", [0.5, 1.0, value]) for i, value in enumerate([0.25, 0.5, 3.0])]
    out = pt("pt-eval", "--json", input=lines(records), check=0).out
    part = json.loads(out)["domains"]["m"]
    values = [fmean([0.5, 1.0, value]) for value in (0.25, 0.5, 3.0)]
    assert part["mean@n"] == pytest.approx({"n": 3, **stats.student(stats.parts_of(values))._asdict()})
    assert part["reward"] == part["mean@n"]["mean"] and part["mean"] == pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 3)
    assert "mean@n" in pt("pt-eval", input=lines(records), check=0).out.splitlines()[0]


# --- instructions -------------------------------------------------------------------------------------------------


def test_strict_and_loose_by_prompt_and_by_instruction(data):
    """Real prompts of IFEval; the figures of a loop that pools as the paper does."""
    from pt_tools import record as rec, rewards

    rng, rows = random.Random(0), [json.loads(line) for line in open(data / "ifeval" / "input_data.jsonl")][:120]
    texts = ["Sure, here it is:\n*no commas here*\nBye", "one, two", "HELLO WORLD", "hello world. P.S. bye", '"quoted"']
    tally, twin = evaluate.Tally(), {name: [] for name in ("prompt", "instruction")}
    for row in rows:
        made = rec.convert(row, "ifeval")
        made["completions"] = [{"text": rng.choice(texts), "finish": "stop"} for _ in range(2)]
        rewards.score(made)
        tally.add(made)
        for completion in made["completions"]:
            both = constraints.both(made["verifier"] if isinstance(made["verifier"], dict) else made["verifier"][0], completion["text"])
            twin["prompt"].append([all(each) for each in both])
            twin["instruction"] += zip(*both)
    found = tally.report()["extra"]["instructions"]
    for unit, values in twin.items():
        for mode, mine in zip(("strict", "loose"), zip(*values)):
            assert found[f"{unit}_{mode}"]["mean"] == pytest.approx(sum(mine) / len(mine)), (unit, mode)
    assert found["instruction_loose"]["mean"] > found["instruction_strict"]["mean"] > found["prompt_strict"]["mean"] > 0
    strict = tally.report()["domains"]
    assert fmean(part["mean"] for part in strict.values()) == pytest.approx(found["prompt_strict"]["mean"])


def test_instructions_in_the_table(pt):
    spec = {"name": "constraints", "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    made = {"id": "a", "domain": "if", "prompt": "q", "verifier": spec, "completions": [
        {"text": "Well, then\nall of this is said in small letters", "scores": {"constraints": 0.0}, "reward": 0.0}]}
    out = pt("pt-eval", input=lines([made]), check=0).out
    row = next(line for line in out.splitlines() if line.startswith("if ") and "(" in line)
    assert row.split()[1::2] == ["0.000", "1.000", "0.000", "1.000"] and "prompt strict" in out


# --- two runs -----------------------------------------------------------------------------------------------------


def runs(seed, prompts=40, samples=1, gain=0.3):
    """Two runs on the same prompts: pass rates of the second lower by `gain`."""
    rng = random.Random(seed)
    rates = [rng.choice([0.9, 0.6, 0.4]) for _ in range(prompts)]
    return [[record(f"p{i}", "ms"[i % 2], [float(rng.random() < rate - less) for _ in range(samples)], prompt=f"q{i}")
             for i, rate in enumerate(rates)] for less in (0.0, gain)]  # fmt: skip


def compared(ours, theirs, **settings):
    tallies = []
    for records in (ours, theirs):
        tallies.append(evaluate.Tally(**settings))
        for each in records:
            tallies[-1].add(each)
    return evaluate_against.compare(*tallies)


def means(records):
    return [fmean(completion["reward"] for completion in each["completions"]) for each in records]


@pytest.mark.parametrize("samples", [1, 4])
def test_difference_of_two_runs(samples):
    ours, theirs = runs(4, samples=samples)
    found = compared(ours, theirs)["difference"]
    differences = [a - b for a, b in zip(means(ours), means(theirs))]
    m, s = found["domains"]["m"], found["domains"]["s"]
    assert m["mean"] == pytest.approx(fmean(differences[::2])) and m["n"] == s["n"] == 20
    assert (m["better"], m["worse"]) == (sum(d > 0 for d in differences[::2]), sum(d < 0 for d in differences[::2]))
    assert m["p"] == stats.sign_flip(differences[::2])[0]
    assert m["test"] == ("mcnemar exact" if samples == 1 else stats.sign_flip(differences[::2])[1])
    assert found["mean"]["mean"] == pytest.approx((m["mean"] + s["mean"]) / 2) and found["mean"]["p"] < 0.1
    assert found["mean"]["low"] < found["mean"]["mean"] < found["mean"]["high"]
    turned = compared(theirs, ours)["difference"]
    assert turned["mean"]["mean"] == pytest.approx(-found["mean"]["mean"])
    assert turned["domains"]["m"]["p"] == m["p"] and turned["domains"]["m"]["low"] == pytest.approx(-m["high"])


def test_pairing_sees_what_unpaired_bounds_hide():
    """A run that is better on 8 of 100 prompts and worse on none: the two intervals overlap, the difference is clear."""
    ours = [record(f"p{i}", "m", [float(i < 58)]) for i in range(100)]
    theirs = [record(f"p{i}", "m", [float(i < 50)]) for i in range(100)]
    found = compared(ours, theirs)["difference"]["domains"]["m"]
    assert found["p"] == 2 / 2**8 and found["low"] > 0
    assert stats.proportion(means(ours)).low < stats.proportion(means(theirs)).high


def test_records_of_one_prompt_flip_together():
    ours, theirs = runs(5, prompts=8)
    copies = [[{**each, "id": f"{each['id']}/{copy}", "domain": "m"} for each in run for copy in range(6)] for run in (ours, theirs)]
    single = [[{**each, "domain": "m"} for each in run] for run in (ours, theirs)]
    assert compared(*copies)["difference"]["mean"]["p"] == compared(*single)["difference"]["mean"]["p"]
    many, few = (compared(*pair)["difference"]["domains"]["m"] for pair in (copies, single))
    assert (many["mean"], many["low"], many["high"]) == pytest.approx((few["mean"], few["low"], few["high"]))
    booted = compared(*single, interval="bootstrap")["difference"]["domains"]["m"]
    parts = stats.parts_of(a - b for a, b in zip(means(ours), means(theirs)))
    assert (booted["mean"], booted["low"], booted["high"]) == pytest.approx(stats.bootstrap(parts))


def test_difference_in_the_report_and_the_table(pt, tmp_path):
    ours, theirs = runs(4)
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8, "seed": 0}
    for run, temperature, seed in ((ours, 1.0, 1), (theirs, 0.5, 2)):
        for each in run:
            each["template"], each["completions"][0]["sampling"] = "t", {**sampling, "temperature": temperature, "seed": seed}
    theirs[0]["id"] = "z\x1b[31m"
    (tmp_path / "theirs.jsonl").write_text(lines(theirs))
    (tmp_path / "ours.jsonl").write_text(lines(ours))
    done = pt("pt-eval", "ours.jsonl", "--against", "theirs.jsonl", "-o", "e.json", check=0)
    against = json.loads((tmp_path / "e.json").read_text())["extra"]["against"]
    assert against["unmatched"] == 2 and against["unmatched_ids"] == {"here": ["p0"], "there": ["z\x1b[31m"]}
    assert against["differing"] == ["temperature: 1.0 | 0.5"] and "differ in temperature: 1.0 | 0.5" in done.err
    assert against["protocol"]["sampling"][0]["temperature"] == 0.5
    assert "2 prompts are in only one of the two files: p0, z\\x1b[31m" in done.err and "\x1b" not in done.err
    assert {"domains", "mean", "unmatched"} <= against.keys() and against["mean"].keys() == {"mean", "low", "high"}
    table = done.out.splitlines()
    row = next(line for line in table[table.index(next(x for x in table if x.startswith("pass@1 gained"))):] if line.startswith("m "))
    part = against["difference"]["domains"]["m"]
    assert row.split()[1:3] == [str(part["n"]), f"{part['mean']:+.3f}"] and row.endswith("mcnemar exact")


def test_protocols_that_differ():
    def noted(**more):
        protocol = evaluate_protocol.Protocol()
        made = record("a", "m", [1.0, 0.0], template=more.get("template", "t"))
        made["verifier"] = {"name": more.get("verifier", "math"), "answer": "1"}
        for completion in made["completions"]:
            completion["sampling"] = {"temperature": more.get("temperature", 1.0), "seed": more.get("seed", 0)}
            completion["details"] = {"math": {"tier": more["tier"]} if "tier" in more else [True]}
        protocol.add(made)
        return protocol.report(interval="wilson")

    assert evaluate_protocol.differing(noted(), noted(seed=3)) == []
    assert evaluate_protocol.differing(noted(), noted(temperature=0.0, template="u")) == ["temperature: 1.0 | 0.0", "template: t | u"]
    assert evaluate_protocol.differing(noted(tier="bwrap"), noted(tier="unshare")) == ["tiers: bwrap | unshare"]
    assert evaluate_protocol.differing(noted(tier="bwrap"), noted()) == []
    [found] = evaluate_protocol.differing(noted(), noted(verifier="regex"))
    assert found.startswith("verifiers: math ") and found.endswith(f" | regex pt-tools {__version__}")
    assert evaluate_protocol.versions(["math", "no-such"])["no-such"] == {"pt-tools": __version__}
    assert noted()["prompts"] == noted(temperature=0.0)["prompts"] != noted(verifier="regex")["prompts"]


# --- reward models ------------------------------------------------------------------------------------------------


def test_accuracy_of_a_reward_model(pt, world, policy, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    model.save_pretrained(tmp_path / "rm")
    tok = AutoTokenizer.from_pretrained(policy)
    tok.save_pretrained(tmp_path / "rm")
    prompts = [json.loads(line) for line in open(world / "heldout.jsonl")][:6]
    pairs = [{"id": f"p{i}", "domain": "ab"[i % 2], "prompt": each["prompt"],
              "chosen": [{"role": "assistant", "content": f"The answer is {i}."}],
              "rejected": [{"role": "assistant", "content": "no idea"}]} for i, each in enumerate(prompts)]  # fmt: skip
    pairs[4]["rejected"] = [{**pairs[4]["chosen"][0], "train": False}]
    (tmp_path / "pairs.jsonl").write_text(lines([*pairs, {"id": "x", "prompt": "q", "chosen": "a"}]))

    def reward(pair, side):
        text = tok.apply_chat_template([*pair["prompt"], *pair[side]], tokenize=False)
        with torch.no_grad():
            return float(model.eval()(**tok(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0])

    margins = [reward(pair, "chosen") - reward(pair, "rejected") for pair in pairs]
    assert margins[4] == 0
    argv = ["pt-eval", "pairs.jsonl", "--reward-model", "rm", "--threads", "1", "--on-error", "skip", "-o", "e.json"]
    done = pt(*argv, check=0)
    report = json.loads((tmp_path / "e.json").read_text())
    values = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    assert report["domains"]["a"]["mean"] == pytest.approx(fmean(values[::2])) and report["domains"]["b"]["mean"] == fmean(values[1::2])
    assert report["extra"]["ties"] == report["domains"]["a"]["ties"] == 1 and report["measure"] == "accuracy"
    assert done.out.split()[:5] == ["domain", "pairs", "accuracy", "95", "%"]
    assert len(report["protocol"]["reward_model"][0]) == 64
    assert report["rows"] == {**report["rows"], "in": 7, "out": 6, "errored": 1}


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_fits_and_steers_nothing(pt):
    records = [record(f"{i}", domain, [1.0] * 64) for i, domain in enumerate(("x" * 80, "\x1b[2J\n[red]"))]
    ks = "1,2,4,8,16,24,32,48,64"
    out = pt("pt-eval", "--k", ks, "--maj", ks, input=lines(records), check=0).out
    assert max(map(len, out.splitlines())) <= 100 and "\x1b" not in out and "\\x1b[2J\\n[red]" in out
    assert all(f"{name}@{k}" in out for name in ("pass", "maj") for k in ks.split(","))
    assert sum(line.startswith("domain") for line in out.splitlines()) > 1


def test_a_wide_protocol_is_cut(pt):
    report = {"tiers": ["t" * 300], "interval": "wilson", "prompts": {"sha256": "0" * 64}, "pt_tools": "1",
              "sampling": [{"temperature": 1.0, "note": "n" * 300}]}  # fmt: skip
    assert max(map(len, evaluate_table._wrapped(evaluate_table._protocol(report)))) <= 100


# --- rows that no one means well with -----------------------------------------------------------------------------

ODD = [None, True, 0, -1, 1.5, "", "x", "\x1b[31m", [], [1], ["a"], [[]], [{}], {}, {"a": 1}, {"answer": 3}, {"tier": []}]


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def test_any_type_anywhere_is_counted_or_refused():
    spec = {"name": "constraints", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["a"]}]}
    rows = [answered("a", "7", ["7", "8", None], source="s", domain="d", template="t"),
            {"id": "b", "prompt": [{"role": "user", "content": "q"}], "verifier": [spec, {"name": "math", "answer": "1"}],
             "completions": [{"text": "a", "finish": "stop", "model": "m", "sampling": {"seed": 1}, "reward": 1.0,
                              "scores": {"constraints": 1.0, "math": 0.0}, "details": {"constraints": [True]}, "errors": {}}]}]
    rng, counted = random.Random(0), 0
    for _ in range(2000):
        row = json.loads(json.dumps(rng.choice(rows)))
        *path, last = rng.choice(list(places(row)))
        inner = row
        for key in path:
            inner = inner[key]
        inner[last] = rng.choice(ODD)
        tally, protocol = evaluate.Tally((1,), (1,), by=rng.choice(["domain", "source"])), evaluate_protocol.Protocol()
        try:
            if not tally.add(row):
                continue
        except ValueError:
            continue  # a bad row, exit code 3; anything else is a bug
        protocol.add(row)
        report = {**tally.report(), "protocol": protocol.report(interval="wilson")}
        report["extra"]["against"] = evaluate_against.compare(tally, tally)
        evaluate_protocol.differing(report["protocol"], report["protocol"])
        assert all(line.isprintable() and len(line) <= 100 for line in evaluate_table.text(json.loads(json.dumps(report))))
        counted += 1
    assert counted > 500


def test_faults_of_the_other_file_are_named_by_its_lines(pt, tmp_path):
    (tmp_path / "other.jsonl").write_text("\n\n" + lines(RECORDS) + '\n{"id": "x"}\n')
    done = pt("pt-eval", "--against", "other.jsonl", input=lines(RECORDS), check=3)
    assert f"other.jsonl:{len(RECORDS) + 4}: the record has no completions" in done.err


def test_rewards_too_large_to_average_are_bad_data(pt):
    assert "overflow" in pt("pt-eval", input=lines([record("a", "m", [1.7e308] * 3)]), check=3).err
