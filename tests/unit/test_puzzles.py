"""Game of 24 and countdown: every puzzle solved by an own search, every answer checked by an own reader."""

import ast
import csv
import itertools
import random
import re
import threading
from collections import Counter
from fractions import Fraction

import pytest

from pt_tools import rewards
from pt_tools.rewards import puzzles

GAME = {"name": "game24", "numbers": [4, 9, 10, 13]}
RIGHT = "(13 - 9) * (10 - 4)"
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def score(text, spec=GAME):
    part = puzzles.GAME24 if spec["name"] == "game24" else puzzles.COUNTDOWN
    part.check(spec)
    found, detail = part.grade(spec, {"text": text})
    assert found in (0.0, 1.0) and (found == 1.0) != ("reason" in detail)
    return found


def countdown(expression, numbers, target, every=None):
    spec = {"name": "countdown", "numbers": numbers, "target": target, **({} if every is None else {"all": every})}
    return score(f"<answer>{expression}</answer>", spec)


@pytest.mark.parametrize("text", [
    f"Answer: {RIGHT} = 24", f"answer: {RIGHT}", f"**Answer:** {RIGHT} = 24", f"The answer is {RIGHT}.", f"Answer:\n{RIGHT} = 24.",
    f"Steps:\n13 - 9 = 4 (left: 4 4 10)\n10 - 4 = 6 (left: 4 6)\n4 * 6 = 24 (left: 24)\nAnswer: {RIGHT} = 24\n",
    f"Answer: 4 + 9 = 24\nWait.\nAnswer: {RIGHT} = 24\n\nInput and steps are above.", f"<think>Answer: 4 * 9</think>{RIGHT}",
    f"I try 4 * 9 first.\n{RIGHT} = 24", f"<answer>{RIGHT}</answer>", f"<answer>4</answer> so <answer>\n{RIGHT} = 24\n</answer> done",
    f"$\\boxed{{{RIGHT}}}$", "\\boxed{(13-9)\\times(10-4)=24}", "\\boxed{\\left(13-9\\right)\\cdot\\left(10-4\\right)}", f"`{RIGHT}`",
    "Answer: (13 − 9) × (10 – 4) = 24", "Answer: (10 - 4) * (13 - 9) = 24 (all four used)", "Answer: (10-4)*(13-9)=24.0",
    "Answer: ((((10)-(4))))*(13-9) = 6 * 4 = 24", f"Answer: ${RIGHT} = 24$", f"Answer: {RIGHT} = 24, as asked",
    f"One way is this.\nThe solution is ${RIGHT} = 24$.", f"**Expression:** {RIGHT}", f"```\n{RIGHT}\n```", f"My try: 4 * 6\n\nThen: {RIGHT}",
])  # fmt: skip
def test_where_the_answer_is_found(text):
    assert score(text) == 1.0


# class of trick -> answers to 4 9 10 13 (or the numbers given) that must score 0
HOSTILE = {
    "nothing": ["", " \n", "Answer:", "<answer></answer>", "\\boxed{}", "Answer: none", "24", "Answer: 24", "<answer>24</answer>", "\x00", "\ud800"],
    "other numbers": ["Answer: 4 * 6", "Answer: 4 * 9 - 13 + 1", "Answer: 24 + (4 + 9 - 13) * 10", "Answer: (13-9)*(10-4)*1", "Answer: 12 + 12"],
    "a number left out": ["Answer: 13 + 9 + 4 - 2", "Answer: (10 - 4) * 4", "Answer: 10 + 14"],
    "a number twice": ["Answer: (13-9)*(10-4) + 4 - 4", "Answer: (13-9)*(10-4)*(13-9)/(13-9)"],
    "another value": ["Answer: 4 + 9 + 10 + 13", "Answer: (13 - 9) * (10 + 4) = 24", "Answer: 13 - 9 * 10 - 4"],
    "a wrong claim": [f"Answer: {RIGHT} = 25", f"Answer: {RIGHT} = 240", f"Answer: {RIGHT} = 24 + 1", f"Answer: {RIGHT} = 24/5", f"Answer: {RIGHT} =",
                      f"Answer: {RIGHT} = 24.5", f"Answer: {RIGHT} = -24", f"Answer: {RIGHT} = two dozen"],
    "powers": ["Answer: 4 ** 9 + 10 * 13", "Answer: (13-9)*(10-4)**1", "Answer: (13-9)^(10-4)", "Answer: 9**9**9**9 + 4 + 10 + 13"],
    "floor division": ["Answer: 13 // 9 * (10 - 4)", "Answer: (13-9)*(10-4)//1", "Answer: 100 // 4"],
    "remainder and bits": ["Answer: 13 % 9 * (10 - 4)", "Answer: (13 & 9) + 10 + 4", "Answer: 13 << 9 >> 10 | 4", "Answer: ~4", "Answer: 13 @ 9"],
    "signs": ["Answer: -(13 - 9) * (10 - 4)", "Answer: +(13 - 9) * (10 - 4)", "Answer: --(13 - 9) * (10 - 4)", "Answer: (9-13)*(4-10)*--1", "Answer: 13--9"],
    "decimals": ["Answer: (13.0 - 9) * (10 - 4)", "Answer: 13.9 + 10.1", "Answer: 4.9 * 10 - 13", "Answer: .4", "Answer: 1e1", "Answer: 4,9"],
    "glued digits": ["Answer: 49 - 13 - 10 - 2", "Answer: (1 3 - 9) * (10 - 4)", "Answer: 13 - 9 10 - 4", "Answer: 0x18", "Answer: 1_0", "Answer: (013-9)*(10-04)"],
    "no operator": ["Answer: (13 - 9)(10 - 4)", "Answer: 4 (10 - 4)", "Answer: 13 9 10 4", "Answer: (13 - 9) x (10 - 4)", "Answer: 4 plus 20"],
    "functions and names": ["Answer: abs(9 - 13) * (10 - 4)", "Answer: sqrt(9)", "Answer: 4!", "Answer: max(4, 9, 10, 13)", "Answer: int('24')", "Answer: x",
                            "Answer: __import__('os').system('true')", "Answer: (lambda: 24)()", "Answer: 24 if 4+9+10+13 else 0", "Answer: [24][0]", "Answer: True*24"],
    "other digits": ["Answer: (１３ - 9) * (10 - 4)", "Answer: (13 - ९) * (10 - 4)", "Answer: (13 - 9) * (10 - ⁴)", "Answer: ²⁴", "Answer: Ⅳ * 6", "Answer: ㉔", "Answer: ½"],
    "by zero": ["Answer: 4 / (13 - 13)", "Answer: 24 / 0", "Answer: (9 + 4 - 13) / (9 + 4 - 13) * 10", "Answer: 10 / (13 - 9 - 4)"],
    "unbalanced": ["Answer: (13 - 9 * (10 - 4)", "Answer: 13 - 9) * (10 - 4", "Answer: ()", "Answer: (13 - 9) * (10 - 4) +", "Answer: * 4", "Answer: ((", "\\boxed{(13-9)*(10-4)"],
    "comparisons": ["Answer: 24 == (13-9)*(10-4)", f"Answer: 24 = {RIGHT}", f"Answer: x = {RIGHT}", "Answer: 4 < 9", "Answer: ="],
    "several answers": [f"Answer: {RIGHT} or 4 * 6", f"Answer: {RIGHT}; 4 * 6", f"Answer: {RIGHT} = 24\nAnswer: 4 * 6", f"<answer>{RIGHT}</answer><answer>4</answer>",
                        f"Answer: {RIGHT}, {RIGHT}", f"\\boxed{{{RIGHT}}} \\boxed{{5}}", f"Answer: 4 * 6\n{RIGHT}"],
    "only in the thinking": [f"<think>Answer: {RIGHT} = 24</think>", f"<think>{RIGHT}</think> I give up.", f"<think>Answer: {RIGHT} = 24", f"Answer: {RIGHT}</think>Answer: 1"],
    "huge": ["Answer: " + "(" * 400_000, "(" * 1_000_001, "Answer: " + "1" * 500_000, "Answer: " + "4+" * 400, "Answer: " + "9*" * 499 + "9", "Answer: " * 120_000,
             "\\boxed{" * 140_000, "<answer>" * 120_000, "Answer: " + "(" * 60 + RIGHT + ")" * 60, "Answer: " + "\\frac{" * 160, "answer is " * 90_000, "-" * 900, "{" * 900_000],
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_tricks_score_nothing(kind, limit):
    for text in HOSTILE[kind]:
        with limit(5):
            assert score(text) == 0.0, text[:200]
            assert rewards.verify({"verifier": GAME}, text).errors == {}


def test_countdown_by_hand():
    assert countdown("3 * 7 + 25", [3, 7, 25], 46) == 1 and countdown("25 + 3 * 7 = 46", [3, 7, 25], 46, True) == 1
    assert countdown("25 - 7", [3, 7, 25], 18) == 1 and countdown("25 - 7", [3, 7, 25], 18, False) == 1
    assert countdown("25 - 7", [3, 7, 25], 18, True) == 0  # 3 is not used
    assert countdown("7", [3, 7], 7) == 1 and countdown("7", [3, 7], 7, True) == 0
    assert countdown("3 + 3", [3, 7], 6) == 0 and countdown("3 + 3", [3, 3], 6, True) == 1
    assert countdown("8 / (3 - 8 / 3)", [8, 8, 3, 3], 24, True) == 1
    assert countdown("\\frac{8}{3-\\frac{8}{3}}", [8, 8, 3, 3], 24, True) == 1 and countdown("8 ÷ (3 − 8 ÷ 3)", [8, 8, 3, 3], 24) == 1
    assert countdown("-3 + 7", [3, 7], 4) == countdown("-(3 - 7)", [3, 7], 4) == countdown("7 * -3", [3, 7], -21) == 1
    assert countdown("-3 + 7", [4, 7], 4) == countdown("7 - 3", [3, 7], -4) == 0
    assert countdown("1 / 3", [1, 3], 0) == 0 and countdown("3 - 7", [3, 7], -4) == 1 and countdown("3 - 7 = -4", [3, 7], -4) == 1
    for expression, target in [("7**3", 343), ("7//3", 2), ("7.3", 7), ("73", 73), ("7^3", 343), ("7 3", 73), ("+3 + 7", 10), ("--3 + 7", 10)]:
        assert countdown(expression, [3, 7], target) == 0, expression  # some pay elsewhere


@pytest.mark.parametrize("spec", [
    {"numbers": []}, {"numbers": None}, {"numbers": "4 9"}, {"numbers": [1.0]}, {"numbers": [True]}, {"numbers": [-1]}, {"numbers": [10**10]},
    {"numbers": [1] * 21}, {"target": "24"}, {"target": 24.0}, {"target": None}, {"all": True}, {"operators": "+"},
])  # fmt: skip
def test_what_can_never_grade_is_refused(spec):
    with pytest.raises(ValueError):
        puzzles.GAME24.check({**GAME, **spec})
    if "all" not in spec:
        with pytest.raises(ValueError):
            puzzles.COUNTDOWN.check({**GAME, "name": "countdown", "target": 24, **spec})
    for more in ({}, {"target": 3, "all": 1}):
        with pytest.raises(ValueError):
            puzzles.COUNTDOWN.check({"name": "countdown", "numbers": [3], **more})


def solutions(items):
    """Every expression over all of [(value, text)], as (value, text)."""
    if len(items) == 1:
        yield items[0]
        return
    for (i, (x, a)), (j, (y, b)) in itertools.permutations(enumerate(items), 2):
        rest = [item for k, item in enumerate(items) if k not in (i, j)]
        made = [(x - y, f"({a} - {b})")]
        if i < j:
            made += [(x + y, f"({a} + {b})"), (x * y, f"({a} * {b})")]
        if y:
            made.append((x / y, f"({a} / {b})"))
        for item in made:
            yield from solutions([item, *rest])


def puzzles_of(data):
    with open(data / "game24" / "24.csv", newline="") as file:
        return [[int(number) for number in row["Puzzles"].split()] for row in csv.DictReader(file)]


def reference(text, numbers):
    """The last line `Answer: X = 24`: X has exactly the numbers, and is worth 24. Read with Python's own grammar."""
    lines = [line for line in text.split("\n") if line.startswith("Answer: ")]
    if not lines:
        return 0.0
    left = lines[-1].removeprefix("Answer: ").split("=")[0].strip()
    try:
        value, used = walk(ast.parse(left, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return 0.0
    return float(value == 24 and Counter(used) == Counter(numbers))


def walk(node):
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value), [node.value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.UnaryOp):
        value, used = walk(node.operand)
        return -value, used
    if not isinstance(node, ast.BinOp) or type(node.op) not in SIGNS:
        raise ValueError("not of the game")
    (x, left), (y, right) = walk(node.left), walk(node.right)
    return {"+": x.__add__, "-": x.__sub__, "*": x.__mul__, "/": x.__truediv__}[SIGNS[type(node.op)]](y), left + right


def transcript(solution, rng):
    steps = [f"{a} = {b} (left: {c})" for a, b, c in zip(*[rng.sample(range(30), 3) for _ in range(3)])]
    return "\n".join([*steps, f"Answer: {solution}{rng.choice([' = 24', ' = 24', ''])}", *rng.choice([[], [""], ["", "Input: 1 2 3 4"]])])


def mutated(solution, rng):
    """One small change to a solution; most of them are wrong."""
    spots = list(re.finditer(r"[0-9]+|[-+*/]", solution))
    spot = rng.choice(spots)
    new = str(rng.randrange(1, 14)) if spot.group().isdigit() else rng.choice("+-*/")
    new = rng.choice([new, new, new, spot.group() + rng.choice(["", " 1", "0", ".0", "*", "()"])])
    return solution[: spot.start()] + new + solution[spot.end() :]


def test_all_real_puzzles_and_mutations_of_their_solutions(data):
    rng, seen = random.Random(0), Counter()
    boards = puzzles_of(data)
    assert len(boards) == 1362
    for numbers in boards:
        found = next(text for value, text in solutions([(float(n), str(n)) for n in numbers]) if abs(value - 24) < 1e-9)
        spec = {"name": "game24", "numbers": numbers, "target": 24}
        assert score(transcript(found[1:-1], rng), spec) == 1.0, found
        for _ in range(6):
            text = transcript(mutated(found, rng), rng)
            expected = reference(text, numbers)
            assert score(text, spec) == expected, text
            seen[expected] += 1
        for other in (f"{found} + 1", f"-({found})", f"{found} * 1", f"({found}) ** 1", f"{found} // 1", found.replace(" ", "", 1)[1:]):
            assert score(f"Answer: {other} = 24", spec) == 0.0, other
    assert seen[0.0] > 6000 and seen[1.0] > 300


def test_random_expressions_as_the_reference_reads_them():
    rng, seen = random.Random(1), Counter()
    for _ in range(20_000):
        numbers = [rng.randrange(1, 7) for _ in range(3)]
        text = "".join(rng.choices([*map(str, numbers * 2), *"+-*/()+-*/", " "], k=rng.randrange(1, 9)))
        try:
            value, used = walk(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError):
            value, used = None, []
        assert countdown(text, numbers, 5, True) == float(value == 5 and Counter(used) == Counter(numbers)), text
        seen[value is not None] += 1
    assert min(seen.values()) > 2000


def test_the_same_from_eight_threads():
    texts = [*(text for kind, rows in HOSTILE.items() if kind != "huge" for text in rows), f"Answer: {RIGHT} = 24"]
    expected = [rewards.verify({"verifier": GAME}, text) for text in texts]
    found = [None] * 8

    def work(at):
        found[at] = [rewards.verify({"verifier": GAME}, text) for text in texts]

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [expected] * 8 and expected[-1].reward == 1.0
