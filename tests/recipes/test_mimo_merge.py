"""make mimo-merge: a teacher a domain from the SFT model, their merge, and what the merge keeps of their gains."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_tulu3 import ROOT, commands, make

DOMAINS = ("arithmetic", "strings", "constraints")
TEACHERS = [f"teacher-{domain}" for domain in DOMAINS]
MADE = (*TEACHERS, "merge")
LAMBDA = 0.75
SMALL = {"SEED": "4", "MERGE": "task_arithmetic", "MERGE_FLAGS": f"--lambda {LAMBDA}",
         "BASE_FLAGS": "--lr 2e-3 --batch-size 64 --max-steps 150 --max-length 64",
         "TEACHER_FLAGS": "--lr 3e-4 --batch-size 128 --group-size 8 --max-steps 2 --max-new-tokens 24"}


def small(*goals, **variables):
    return make(*goals, **{**SMALL, **variables})


def lines_of(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def test_it_is_listed_and_the_readme_has_it():
    listed = subprocess.run(["make", "--no-print-directory", f"VENV={sys.prefix}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(re.match("make( |$)", line) for line in listed.splitlines())
    assert "make mimo-merge " in listed and "`make mimo-merge`" in (ROOT / "README.md").read_text()


def test_it_prints_a_script_of_valid_commands(tmp_path):
    """Base and SFT once, every teacher from the SFT model on the prompts of its domain, the merge of them over it."""
    text = subprocess.run(["make", "-n", "mimo-merge", f"VENV={sys.prefix}", f"RUNS={tmp_path}"], cwd=ROOT,
                          capture_output=True, text=True, check=True).stdout
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    stages = [line for line in lines_of(text) if line.startswith("pt-")]
    names = [line.split()[0] for line in stages]
    assert (names.count("pt-sft"), names.count("pt-rlvr"), names.count("pt-merge"), names.count("pt-dpo")) == (2, 3, 1, 0)
    first, mine = f"{tmp_path}/tiny/tulu3", f"{tmp_path}/tiny/mimo"
    for domain, line in zip(DOMAINS, (line for line in stages if line.startswith("pt-rlvr"))):
        assert line.startswith(f"pt-rlvr {mine}/clean/{domain}.jsonl -m {first}/sft -o {mine}/teacher-{domain} --seed 0 ")
        filtered = f"pt-curate filter 'domain == \"{domain}\"' {first}/clean/rlvr.jsonl -o {mine}/clean/{domain}.jsonl"
        assert stages.index(filtered) < stages.index(line)
    (merge,) = (line for line in stages if line.startswith("pt-merge"))
    assert f" --base {first}/sft {' '.join(f'{mine}/{t}' for t in TEACHERS)} -o {mine}/merge" in merge
    script = "\n".join(f"{line} --print-config >/dev/null" for line in stages)
    done = subprocess.run(["bash", "-eu", "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr


def test_the_plain_mean_has_no_base(tmp_path):
    (merge,) = (line for line in small("-n", "mimo-merge", RUNS=tmp_path, MERGE="linear", MERGE_FLAGS="").splitlines()
                if line.startswith("pt-merge"))
    assert merge.startswith(f"pt-merge linear {tmp_path}/tiny/mimo/teacher-arithmetic ") and "--base" not in merge


@pytest.mark.parametrize("flag", ([], ["-n"]))
@pytest.mark.parametrize("scale", ("8b", "70b", "real"))
def test_a_scale_without_settings_is_one_clear_line(tmp_path, scale, flag):
    settings = [f"VENV={sys.prefix}", f"SCALE={scale}", f"RUNS={tmp_path}", f"DATA={tmp_path}"]
    done = subprocess.run(["make", "--no-print-directory", *flag, "mimo-merge", *settings], cwd=ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"has settings for SCALE=tiny only, none for SCALE={scale}" in line
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


def evaluation(**means) -> dict:
    scores = {d: {"mean": v, "low": v - 0.05, "high": v + 0.05, "n": 10} for d, v in means.items()}
    mean = sum(means.values()) / len(means)
    return {"domains": scores, "mean": {"mean": mean, "low": mean - 0.03, "high": mean + 0.03}}


def test_kept_by_hand(tmp_path):
    """Best teacher by domain, not by name; a merge may keep less than nothing, more than all, and no gain has no share."""
    results = {"sft": evaluation(a=0.5, b=0.4, c=0.3), "t1": evaluation(a=0.75, b=0.25, c=0.25),
               "t2": evaluation(a=0.25, b=0.6, c=0.3), "m": evaluation(a=0.625, b=0.35, c=0.45)}
    stages = []
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
        stages += ["--stage", name, tmp_path / name, tmp_path / f"{name}.json"]
    report = [sys.executable, ROOT / "scripts/report.py"]
    subprocess.run([*report, "-o", tmp_path / "table.json", "--recipe", "r", "--scale", "s", "--seed", "0", *stages,
                    "--kept", "m", "sft", "t1", "t2"], check=True)
    rows = json.loads((tmp_path / "table.json").read_text())["stages"]
    assert [row["extra"] for row in rows[:3]] == [{}, {}, {}]
    kept = rows[3]["extra"]["kept"]
    assert kept["over"] == "sft" and list(kept["domains"]) == ["a", "b", "c"]
    assert kept["domains"]["a"] == pytest.approx({"best_teacher": "t1", "before": 0.5, "best": 0.75, "after": 0.625, "kept": 0.5})
    assert kept["domains"]["b"] == pytest.approx({"best_teacher": "t2", "before": 0.4, "best": 0.6, "after": 0.35, "kept": -0.25})
    assert kept["domains"]["c"] == {"best_teacher": "t2", "before": 0.3, "best": 0.3, "after": 0.45, "kept": None}
    assert kept["mean"] == pytest.approx({"before": 0.4, "best": 0.55, "after": 0.475, "kept": 0.5})
    shown = subprocess.run([*report, "--show", tmp_path / "table.json"], capture_output=True, text=True, check=True).stdout
    cells = [re.split(r"\s*[│┃]\s*", line.strip("│┃ ")) for line in shown.splitlines()]
    assert ["domain", "sft", "best teacher", "m", "share kept"] in cells
    assert ["a", "0.500", "t1 0.750", "0.625", "50%"] in cells and ["b", "0.400", "t2 0.600", "0.350", "-25%"] in cells
    assert ["c", "0.300", "t2 0.300", "0.450", "no gain"] in cells
    assert ["mean", "0.400", "of each domain 0.550", "0.475", "50%"] in cells


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    small("mimo-merge", RUNS=path)
    return path


def tensors(path) -> dict:
    return load_file(path / "model.safetensors")


def weights(runs) -> dict:
    """The weight files of the stages, by inode: another one is another file."""
    return {stage: (runs / "tiny/mimo" / stage / "model.safetensors").stat().st_ino for stage in MADE}


@pytest.mark.slow
def test_every_teacher_learned_from_the_prompts_of_its_domain(runs):
    rows = [json.loads(line) for line in (runs / "tiny/tulu3/clean/rlvr.jsonl").read_text().splitlines()]
    start = tensors(runs / "tiny/tulu3/sft")
    for domain in DOMAINS:
        own = [json.loads(line) for line in (runs / f"tiny/mimo/clean/{domain}.jsonl").read_text().splitlines()]
        assert own == [row for row in rows if row["domain"] == domain] and len(own) > 1000
        teacher = runs / f"tiny/mimo/teacher-{domain}"
        assert json.loads((teacher / "MANIFEST.json").read_text())["rows"]["in"] == len(own)
        assert any((value != start[name]).any() for name, value in tensors(teacher).items())


@pytest.mark.slow
def test_the_merge_is_the_sft_model_and_the_sum_of_what_the_teachers_changed(runs):
    base, merged = tensors(runs / "tiny/tulu3/sft"), tensors(runs / "tiny/mimo/merge")
    teachers = [tensors(runs / "tiny/mimo" / teacher) for teacher in TEACHERS]
    assert merged.keys() == base.keys()
    for name, value in merged.items():
        start = base[name].astype(np.float64)
        wanted = start + LAMBDA * sum(teacher[name].astype(np.float64) - start for teacher in teachers)
        assert np.abs(value - wanted).max() <= 1e-6 * np.abs(wanted).max(), name


@pytest.mark.slow
def test_the_table_says_what_the_evaluations_say(runs):
    table = json.loads((runs / "tiny/mimo/table.json").read_text())
    assert (table["recipe"], table["scale"], table["seed"]) == ("mimo", "tiny", 4)
    stages = {stage["name"]: stage for stage in table["stages"]}
    assert list(stages) == ["base", "sft", *MADE]
    files = {name: runs / "tiny" / ("mimo" if name in MADE else "tulu3") / f"eval/{name}.json" for name in stages}
    found = {name: json.loads(file.read_text()) for name, file in files.items()}
    for name, stage in stages.items():
        for domain in DOMAINS:
            assert stage["domains"][domain] == {k: found[name]["domains"][domain][k] for k in ("n", "mean", "low", "high")}
        assert name == "merge" or stage["seconds"] > 0 and stage["rows"]["in"] == stage["rows"]["out"] > 0
    scores = {name: {d: found[name]["domains"][d]["mean"] for d in DOMAINS} for name in found}
    for domain, row in stages["merge"]["extra"]["kept"]["domains"].items():
        before, best, after = scores["sft"][domain], max(scores[t][domain] for t in TEACHERS), scores["merge"][domain]
        assert (row["before"], row["best"], row["after"]) == (before, best, after) and scores[row["best_teacher"]][domain] == best
        assert row["kept"] == (pytest.approx((after - before) / (best - before)) if best > before else None)


@pytest.mark.slow
def test_a_second_make_runs_nothing(runs):
    assert commands(small("mimo-merge", RUNS=runs)) == []


@pytest.mark.slow
def test_another_merge_trains_no_teacher_again(runs):
    before = weights(runs)
    ran = commands(small("mimo-merge", RUNS=runs, MERGE="ties", MERGE_FLAGS="--density 0.5"))
    after = weights(runs)
    assert ran == ["pt-merge", "pt-sample", "pt-score", "pt-eval"]
    assert [stage for stage in MADE if after[stage] != before[stage]] == ["merge"]
    final = json.loads((runs / "tiny/mimo/merge/MANIFEST.json").read_text())["final"]
    assert final["method"] == "ties"
    small("mimo-merge", RUNS=runs)


@pytest.mark.slow
def test_another_training_makes_teachers_and_merge_again_but_no_sft(runs):
    before = weights(runs)
    ran = commands(small("mimo-merge", RUNS=runs, TEACHER_FLAGS=SMALL["TEACHER_FLAGS"].replace("3e-4", "4e-4")))
    after = weights(runs)
    assert all(after[stage] != before[stage] for stage in MADE) and "pt-sft" not in ran and "pt-curate" not in ran
