"""pt-score as a process: what it writes, in which order, and with which exit code."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

MATH = {"name": "math", "answer": "72"}
QUIET = {"name": "constraints", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}


def record(id, verifier, *texts, **more):
    completions = [{"text": text, "finish": "stop", "token_ids": [1, 2]} for text in texts]
    return {"id": id, "verifier": verifier, "completions": completions, **more}


def lines(records):
    return "".join(json.dumps(each) + "\n" for each in records)


RECORDS = [
    record("b", MATH, "The answer is 72.", "The answer is 73.", "", domain="m", note={"kept": None}),
    record("a", QUIET, '"yes"', "a, b"),
    record("c", {"name": "math"}, "The answer is 72."),
    record("d", [MATH, {**QUIET, "key": "form"}], '"The answer is 72."'),
]


def test_verdicts_stand_where_the_design_says(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    done = pt("pt-score", "--verify", "in.jsonl", check=0)
    out = [json.loads(line) for line in done.out.splitlines()]
    assert [each["id"] for each in out] == ["b", "a", "c", "d"]
    first = out[0]["completions"]
    assert [(each["scores"]["math"], each["reward"], each["errors"]) for each in first] == [(1.0, 1.0, {}), (0.0, 0.0, {}), (0.0, 0.0, {})]
    assert first[2]["details"]["math"] == {"reason": "empty"}
    assert [each["details"]["constraints"] for each in out[1]["completions"]] == [[True, True], [False, False]]
    assert out[2]["completions"][0]["errors"] == {"math": "the gold answer is missing"}
    assert out[2]["completions"][0]["scores"] == {} and out[2]["completions"][0]["reward"] is None
    assert out[3]["completions"][0]["scores"] == {"math": 1.0, "form": 1.0} and out[3]["completions"][0]["reward"] == 2.0
    for before, after in zip(RECORDS, out):  # everything else passes through
        kept = [{key: each[key] for key in ("text", "finish", "token_ids")} for each in after["completions"]]
        assert {**after, "completions": kept} == before
    assert "4 in, 4 out, 1 masked [masked: math: the gold answer is missing (1)]" in done.err


def test_rows_of_public_data_are_graded_as_they_are(pt):
    """IFEval's columns (as Arrow fills them, too), Tulu's RLVR columns and GSM8K's need no verifier of ours."""
    nulls = dict.fromkeys(("num_words", "relation", "keywords", "language", "nth_paragraph"))
    ask = [{"role": "user", "content": "q"}]
    rows = [
        ({"key": 1, "prompt": "q", "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
          "kwargs": [nulls, {**nulls, "num_words": 3, "relation": "less than"}]}, "a b", "a b c", "constraints"),
        ({"messages": ask, "ground_truth": "72", "dataset": "gsm8k"}, "So the answer is 72.", "So the answer is 73.", "math"),
        ({"messages": ask, "ground_truth": "\\frac{1}{2}", "dataset": "MATH"}, "\\boxed{0.5}", "\\boxed{2}", "math"),
        ({"messages": ask, "ground_truth": '{"func_name": "validate_no_commas", "N": null}', "dataset": "ifeval"}, "a", "a,",
         "constraints"),
        ({"question": "q", "answer": "9 * 8 = <<9*8=72>>72\n#### 72"}, "#### 72", "#### 7", "math"),
    ]
    given = [{**row, "completions": [{"text": right}, {"text": wrong}]} for row, right, wrong, _ in rows]
    out = [json.loads(line) for line in pt("pt-score", "--verify", input=lines(given), check=0).out.splitlines()]
    for (row, _, _, name), after in zip(rows, out):
        assert [each["scores"] for each in after["completions"]] == [{name: 1.0}, {name: 0.0}]
        assert {key: after[key] for key in row} == row and after["verifier"]["name"] == name
    bad = {**given[0], "kwargs": [{}]}
    assert "of one length" in pt("pt-score", "--verify", input=lines([bad]), check=3).err
    assert "no verifier" in pt("pt-score", "--verify", input=lines([{"prompt": "q", "completions": []}]), check=3).err


def test_scoring_twice_changes_nothing_and_files_equal_stdout(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    once = pt("pt-score", "--verify", "in.jsonl", check=0).stdout
    assert pt("pt-score", "--verify", input=once, check=0).stdout == once
    pt("pt-score", "--verify", "in.jsonl", "-o", "out.jsonl", check=0)
    assert (tmp_path / "out.jsonl").read_bytes() == once
    rows = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["rows"]
    assert (rows["in"], rows["out"], rows["masked"]) == (4, 4, 1)


def test_raters_are_aspects_from_one_to_five(pt):
    pool = record("a", MATH, "The answer is 72.", "The answer is 73. dog")
    done = pt("pt-score", "--verify", "--raters", "correct,ended,format", input=lines([pool]), check=0)
    good, bad = json.loads(done.out)["completions"]
    assert good["scores"] == {"math": 1.0, "correct": 5.0, "ended": 5.0, "format": 5.0} and good["reward"] == 5.0
    assert bad["scores"] == {"math": 0.0, "correct": 1.0, "ended": 5.0, "format": 3.0} and bad["reward"] == 3.0


def test_usage_and_bad_rows(pt, tmp_path):
    assert pt("pt-score", input="", check=2).err.startswith("pt-score: say how to score")
    assert "unknown rater 'nice'" in pt("pt-score", "--raters", "nice", input="", check=2).err
    assert "named twice" in pt("pt-score", "--raters", "ended,ended", input="", check=2).err
    assert pt("pt-score", "--verify", input="", check=0).out == ""
    bad = [{"id": "x", "verifier": MATH}, record("y", {"name": "os.system"}, "72"), record("z", None, "72"), RECORDS[0]]
    for number, why in enumerate(("no completions", "code to import", "no verifier")):
        done = pt("pt-score", "--verify", input=lines(bad[number:]), check=3)
        assert f"stdin:1: " in done.err and why in done.err and not done.out
    done = pt("pt-score", "--verify", "--on-error", "skip", "--rejects", "bad.jsonl", input=lines(bad), check=0)
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["b"]
    assert [json.loads(line)["row"]["id"] for line in open(tmp_path / "bad.jsonl")] == ["x", "y", "z"]
    assert "4 in, 1 out, 3 errored" in done.err


def test_jobs_change_nothing_but_the_time(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines([{**each, "id": f"{each['id']}{n}"} for n in range(40) for each in RECORDS]))
    once = pt("pt-score", "--verify", "--raters", "ended", "in.jsonl", check=0)
    two = pt("pt-score", "--verify", "--raters", "ended", "-j", "2", "in.jsonl", check=0)
    assert two.stdout == once.stdout and len(two.stdout.splitlines()) == 160
    assert two.err.split(" in ")[0] == once.err.split(" in ")[0]


FUNCTION = """
import os, time
def shout(completion, spec):
    if completion["text"] == "die": os._exit(1)
    if completion["text"] == "raise": raise KeyError("no")
    return {"score": completion["text"].count("!") / 4, "detail": "counted"}
"""


def test_a_users_function_grades_and_its_failure_is_an_error(pt, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    rows = [record("a", None, "hi!!", "raise", "die", "")]
    done = pt("pt-score", "--verifier", "loud=mine:shout", "-j", "2", input=lines(rows), check=0)
    found = json.loads(done.out)["completions"]
    assert [each["scores"] for each in found] == [{"loud": 0.5}, {}, {}, {"loud": 0.0}]
    assert [each["reward"] for each in found] == [0.5, None, None, 0.0]
    assert "KeyError" in found[1]["errors"]["loud"] and "Lost" in found[2]["errors"]["loud"]
    assert pt("pt-score", "--verifier", "mine:shout", "--verify", input=lines(rows), check=3).err.count("no verifier") == 1
    for wrong, why in [("nonsense", "unknown verifier"), ("{", "no JSON object"), ('{"name": "length", "x": 1}', "length")]:
        assert why in pt("pt-score", "--verifier", wrong, input=lines(rows), check=2).err


def test_a_function_that_changed_is_run_again(pt, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    (tmp_path / "in.jsonl").write_text(lines([record("a", None, "hi!!")]))
    argv = ("pt-score", "--verifier", "mine:shout", "in.jsonl", "-o", "out.jsonl")
    pt(*argv, check=0)
    assert "nothing to do" in pt(*argv, check=0).err
    (tmp_path / "mine.py").write_text(FUNCTION.replace("/ 4", "/ 2"))
    pt(*argv, check=0)
    assert json.loads((tmp_path / "out.jsonl").read_text())["completions"][0]["scores"] == {"shout": 1.0}


def test_explain_says_what_was_found(pt):
    done = pt("pt-score", "--verify", "--explain", "-q", input=lines([record("a", MATH, "The answer is 71.", "\x1b[2J")]), check=0)
    first, second = done.err.splitlines()
    assert first == 'a[0] reward 0: math 0 {"answer": "71", "reason": "wrong answer"}'
    assert second == 'a[1] reward 0: math 0 {"reason": "no answer"}' and "\x1b" not in done.err


def test_a_killed_run_goes_on_where_it_was(pt, tmp_path):
    """The function leaves a mark a call: what was scored before the kill is not scored again, and the bytes are the same."""
    (tmp_path / "mine.py").write_text(
        "import os, time\ndef slow(completion, spec):\n"
        "    open('calls', 'a').write('x')\n"
        "    while os.path.getsize('calls') > 100 and not os.path.exists('go'): time.sleep(0.01)\n"
        "    return len(completion['text'])\n")
    rows = [record(f"r{n}", None, "y" * (n % 7)) for n in range(400)]
    (tmp_path / "in.jsonl").write_text(lines(rows))
    argv = ("pt-score", "--verifier", "mine:slow", "in.jsonl", "-o")
    (tmp_path / "go").touch()
    whole = pt(*argv, "whole.jsonl", check=0) and (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "calls").unlink()
    (tmp_path / "go").unlink()
    process = subprocess.Popen([Path(sys.executable).parent / argv[0], *argv[1:], "out.jsonl"], cwd=tmp_path,
                               stderr=subprocess.DEVNULL)
    journal = tmp_path / "out.jsonl.run" / "scored.jsonl"
    while not (journal.exists() and journal.stat().st_size):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    with open(journal, "ab") as file:
        file.write(b'{"id": "r')  # a torn line
    assert not (tmp_path / "out.jsonl").exists()
    (tmp_path / "go").touch()
    kept = journal.read_bytes().count(b"\n")
    before = (tmp_path / "calls").stat().st_size
    pt(*argv, "out.jsonl", check=0)
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    # the worker of the killed run may have ended its last call after it
    assert kept >= 64 and (tmp_path / "calls").stat().st_size - before in (400 - kept, 401 - kept)
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["rows"]["out"] == 400


def test_a_wrong_name_on_the_command_line_is_said_at_once(pt, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    rows = lines([record("a", MATH, "72")])
    for argv, why in [
        (("--verifier", "nowhere:f"), "--verifier: nowhere:f: the worker did not start: ModuleNotFoundError"),
        (("--verifier", "mine:g"), "has no attribute 'g'"),
        (("--verifier", "mine:shout", "--verifier", "mine:shout"), "--verifier: two verifiers share the key 'shout'"),
        (("--combine", "math +"), "--combine: at 7"),
        (("--verify", "-o", "x.jsonl", "--on-error", "skip", "--rejects", "./x.jsonl"), "--rejects and --out are one file"),
    ]:
        done = pt("pt-score", *argv, input=rows, check=2)
        assert why in done.err and not done.out


def test_a_function_elsewhere_that_changed_is_run_again(pt, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "far.py").write_text("def one(completion, spec): return 1\n")
    (tmp_path / "in.jsonl").write_text(lines([record("a", None, "hi")]))
    spec = json.dumps({"name": "user", "function": "far:one", "path": ["lib"]})
    argv = ("pt-score", "--verifier", spec, "in.jsonl", "-o", "out.jsonl")
    pt(*argv, check=0)
    assert "nothing to do" in pt(*argv, check=0).err
    (tmp_path / "lib" / "far.py").write_text("def one(completion, spec): return 2\n")
    pt(*argv, check=0)
    assert json.loads((tmp_path / "out.jsonl").read_text())["completions"][0]["scores"] == {"user": 2.0}


def test_large_details_are_the_same_from_several_processes(pt, tmp_path):
    (tmp_path / "mine.py").write_text("def wordy(completion, spec): return {'score': 1, 'detail': 'x' * 1_500_000}\n")
    rows = lines([record("a", None, *"abcdefghijkl")])
    one, two = (pt("pt-score", "--verifier", "mine:wordy", "-j", jobs, input=rows, check=0).stdout for jobs in "12")
    assert one == two and len(one) > 18_000_000


def test_why_a_rule_made_no_reward(pt):
    wide = {**record("w", None, "72"), "completions": [{"text": "", "scores": {"h": 1e308}}]}
    reasons = [
        ("sum", record("a", MATH, "72"), "no score 'math'"), ("sum", record("a", None, "72"), "the record has no verifier"),
        ("10 * h", wide, "the reward is not finite"), ("h + x", wide, "no score 'x'"),
        ("sum", {**record("a", MATH), "completions": [{"text": "", "errors": {"other": "o", "math": "why"}}]}, "math: why"),
    ]
    for rule, row, why in reasons:
        done = pt("pt-score", "--combine", rule, input=lines([row]), check=0)
        assert json.loads(done.out)["completions"][0]["reward"] is None and f"[masked: {why} (1)]" in done.err


def test_the_number_of_cores_does_not_count_where_no_model_computes(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    argv = ("pt-score", "--verify", "in.jsonl", "-o", "out.jsonl")
    pt(*argv, check=0)
    cores = os.sched_getaffinity(0)
    pin = f"import os, sys; os.sched_setaffinity(0, [{min(cores)}]); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", pin, Path(sys.executable).parent / argv[0], *argv[1:]], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "nothing to do" in done.stderr


def test_a_password_in_an_address_is_not_left_behind(pt, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines(RECORDS))
    done = pt("pt-score", "--judge", "http://me:hush@127.0.0.1:9/v1", "in.jsonl", "-o", "out.jsonl", check=2)
    assert "must not hold a user" in done.err and "hush" not in done.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]


def test_a_penalty_says_nothing_of_correctness(pt):
    penalty = {"name": "repetition", "n": 1}
    row = record("a", [MATH, penalty], "72 72. The answer is 72.", "The answer is 73.")
    done = pt("pt-score", "--verify", "--raters", "correct", "--combine", "sum", input=lines([row]), check=0)
    right, wrong = json.loads(done.out)["completions"]
    assert right["scores"]["repetition"] < 0 and right["scores"]["math"] == 1.0 and right["scores"]["correct"] == 5.0
    assert 0 < right["reward"] < 1 and wrong["scores"]["correct"] == 1.0
    report = json.loads(pt("pt-eval", "--json", input=done.out, check=0).out)
    assert report["mean"]["mean"] == 0.5


def test_a_journal_with_an_unreadable_line_in_its_middle(tmp_path):
    from pt_tools import grading

    path = tmp_path / "scored.jsonl"
    rows = [record(f"r{n}", None, "x") for n in range(6)]
    with grading.Journal(path) as journal:
        journal.add(rows)
    whole = path.read_bytes()
    third = len(b"".join(whole.splitlines(keepends=True)[:3]))
    path.write_bytes(whole[:third] + b"\0" * 20 + whole[third + 20 :])
    with grading.Journal(path) as journal:
        assert [journal.take(row) is not None for row in rows] == [True] * 3 + [False] * 3
        journal.add(rows[3:])
        assert list(journal.read()) == rows
    assert path.read_bytes() == whole


def test_a_batch_has_time_for_the_limits_of_its_verifiers():
    from pt_tools.rewards import verifiers

    slow = {"name": "code", "timeout_s": 600}
    assert verifiers._longest(record("a", None, "")) == verifiers.COMPLETION_S
    assert verifiers._longest(record("a", [MATH, slow], "")) == verifiers.COMPLETION_S + 1200
    assert verifiers._longest(record("a", [{"timeout_s": "x"}, {"timeout_s": 1e300}, 5], "")) == verifiers.COMPLETION_S
