"""Soups: closed weights against recurrences, the greedy soup against its definition, real evaluation commands."""

import json
import shlex
import sys

import numpy as np
import pytest

from pt_tools.errors import BadData, BadModel, Usage
from pt_tools.merge import METHODS, methods, soups


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_ema_is_the_recurrence(beta, count):
    values = np.random.default_rng(0).normal(size=count)
    mean = values[0]
    for value in values[1:]:
        mean = beta * mean + (1 - beta) * value
    weights = soups.ema(count, beta)
    assert np.dot(weights, values) == pytest.approx(mean, abs=1e-12) and sum(weights) == pytest.approx(1)


def test_plain_means():
    assert soups.uniform(4) == [0.25] * 4
    assert soups.last(5, 2) == [0, 0, 0, 0.5, 0.5]
    for wrong in (lambda: soups.last(3, 4), lambda: soups.last(3, 0), lambda: soups.ema(3, 1.1)):
        with pytest.raises(ValueError):
            wrong()


def test_greedy_soup_by_definition():
    """Members are numbers, their mean's score is minus the distance to a target."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values = [round(float(v), 2) for v in rng.normal(size=6)]
        said = []
        kept, best = soups.greedy(values, lambda v: -abs(v - 0.1), np.mean, said.append)
        order = sorted(values, key=lambda v: -(-abs(v - 0.1)))
        mine = [order[0]]
        for value in order[1:]:
            if -abs(sum([*mine, value]) / (len(mine) + 1) - 0.1) >= -abs(sum(mine) / len(mine) - 0.1):
                mine.append(value)
        assert kept == mine and best == -abs(sum(mine) / len(mine) - 0.1) and len(said) == 11


def test_greedy_soup_keeps_a_member_that_changes_nothing():
    assert soups.greedy([1.0, 1.0], lambda v: v, lambda members: 1.0) == ([1.0, 1.0], 1.0)


def printing(text, status=0):
    code = f"import sys; sys.stdout.write({text!r}.replace('DIR', sys.argv[1])); sys.exit({status})"
    return shlex.join([sys.executable, "-c", code, "{}"])


def test_scores_of_real_commands(tmp_path):
    table = json.dumps({"domains": {"math": {"mean": 0.1}}, "mean": {"mean": 0.25, "low": 0}}, indent=1)
    lines = 'note {x\n{"mean": {"mean": 9}}\n' + table + "\n"
    for text, score in ((table, 0.25), (lines, 0.25), ("loss\n0.5\n", 0.5),
                        ('{"mean": {"mean": 1}}\nend\n', 1.0), ("-3", -3.0)):
        assert soups.evaluator(printing(text))(tmp_path) == score


def test_the_command_gets_the_directory_as_one_word(tmp_path):
    odd = tmp_path / "a b; echo 7"
    code = "import sys; print(len(sys.argv) + (sys.argv[1] == sys.argv[2][2:]))"
    command = shlex.join([sys.executable, "-c", code, "{}", "x={}"])
    assert soups.evaluator(command)(odd) == 4


@pytest.mark.parametrize("text", ["", "nothing", "nan", '{"mean": 3}', '{"mean": {"mean": "x"}}', '{"a": 1}', "{"])
def test_output_without_a_score(tmp_path, text):
    with pytest.raises(BadData):
        soups.evaluator(printing(text))(tmp_path)


def test_commands_that_fail(tmp_path):
    with pytest.raises(BadModel, match="status 3"):
        soups.evaluator(printing("1", 3))(tmp_path)
    with pytest.raises(Usage, match="{}"):
        soups.evaluator("echo 1")
    with pytest.raises(Usage, match="cannot run"):
        soups.evaluator("/no/such/program {}")(tmp_path)


def test_the_registry():
    for name in METHODS:
        one = methods.get(name)
        assert one.name == name and one.base in ("none", "optional", "required") and one.__doc__
    with pytest.raises(Usage, match="no such method: tie"):
        methods.get("tie")
