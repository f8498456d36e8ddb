"""Forms of prompts whose answers can be verified.

Each function makes the fields of a record out of a row, and takes what it reads out of it. A worked answer that a verifier
does not need stays as `solution`.
"""

import re

from pt_tools.curate import turns
from pt_tools.curate.turns import named, string
from pt_tools.record import as_turns

MATH = re.compile(r"gsm8k|math|aime|amc|dapo|olympiad|deepscaler|numina|minerva|orz")


def math_verifier(answer):
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float, type(None))):
        raise ValueError("the answer to check against is neither text nor a number")
    if answer is None or not str(answer).strip():
        raise ValueError("the answer to check against is empty")
    if isinstance(answer, float) and abs(answer) >= 2**63:
        raise ValueError("the answer to check against is a number beyond 64 bits; it must be text")
    return {"name": "math", "answer": str(answer).strip()}


def is_gsm8k(row):
    return isinstance(row["answer"], str) and "####" in row["answer"]


def gsm8k(row):
    problem, solution = string(row, "question"), string(row, "answer")
    _, mark, gold = solution.rpartition("####")
    if not mark:
        raise ValueError("answer has no #### before the result")
    row["solution"] = solution
    return {"prompt": as_turns(problem, "user"), "verifier": math_verifier(gold)}


def math(row):
    problem = string(row, "problem")
    answer = row.pop("answer") if "answer" in row else _boxed(row["solution"])
    return {**named(row, "unique_id", "math"), "prompt": as_turns(problem, "user"), "verifier": math_verifier(answer)}


def _boxed(solution):
    r"""What the last \boxed{...} holds."""
    start = solution.rfind("\\boxed{") if isinstance(solution, str) else -1
    depth = 0
    for i in range(start + 6, len(solution)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(solution[i], 0)
        if depth == 0:
            return solution[start + 7:i]
    raise ValueError(r"solution has no \boxed{...}")


def ifeval(row):
    verifier = _constraints(row.pop("instruction_id_list"), row.pop("kwargs"))
    prompt = as_turns(string(row, "prompt"), "user")
    return {**named(row, "key", "ifeval"), "prompt": prompt, "verifier": verifier}


def _constraints(ids, kwargs):
    ids, kwargs = ids if isinstance(ids, list) else None, kwargs if isinstance(kwargs, list) else []
    kwargs = [kw or {} for kw in kwargs or [{}] * len(ids or ())]
    if ids is None or len(ids) != len(kwargs) or not all(isinstance(kw, dict) for kw in kwargs):
        raise ValueError("instruction_id_list and kwargs are not lists of one length")
    # Arrow files fill absent arguments with null.
    kwargs = [{key: value for key, value in kw.items() if value is not None} for kw in kwargs]
    return {"name": "constraints", "instruction_id_list": ids, "kwargs": kwargs}


# --- data sets of RLVR, which name the verifier in a column -------------------------------------------------------


def is_rlvr(row):
    return not isinstance(row.get("verifier"), (dict, list))  # a record of ours says itself how it is verified


def rlvr(row):
    """open-instruct's columns: ground_truth, and dataset or verifier that names how it is checked; a number needs neither."""
    given = turns.turns(row.pop("messages"), "messages") if "messages" in row else turns.prompt(row.pop("prompt"))
    truth = row.pop("ground_truth")
    if given and given[-1]["role"] == "assistant":
        given = given[:-1]
    names = row["dataset"] if "dataset" in row else row.pop("verifier", None)
    if names is None and not re.search(r"[0-9\\]", str(truth)):
        raise ValueError("no dataset or verifier says how the ground_truth is checked")
    names = "math" if names is None else names
    names, truths = _lists(names, truth)
    verifiers = [_verifier(str(name).lower(), one) for name, one in zip(names, truths)]
    return {"prompt": given, "verifier": verifiers[0] if len(verifiers) == 1 else verifiers}


def _lists(names, truth):
    """Names of verifiers and what each needs, of one length: a row may have several."""
    if not isinstance(names, list):
        return [names], [truth[0] if isinstance(truth, list) and len(truth) == 1 else truth]
    if len(names) == 1 and not (isinstance(truth, list) and len(truth) == 1):
        truth = [truth]
    if not names or not isinstance(truth, list) or len(truth) != len(names):
        raise ValueError("dataset and ground_truth are not lists of one length")
    return names, truth


def _verifier(name, truth):
    if name in ("gsm8k", "math"):
        return math_verifier(truth)
    if name in ("string_matcher", "exact"):
        return {"name": "exact", "answer": truth}
    if name in ("code", "code_stdio"):
        return _code(turns.parsed(truth, "ground_truth"))
    if not name.startswith("ifeval"):
        raise ValueError(f"no verifier is known for the data set {name!r:.40}")
    truth = turns.parsed(truth, "ground_truth")
    if isinstance(truth, list) and len(truth) == 1:
        truth = truth[0]
    if not isinstance(truth, dict):
        raise ValueError("ground_truth is not an object")
    ids = truth.get("instruction_id_list", truth.get("instruction_id"))
    if ids is not None:
        return _constraints(ids, truth.get("kwargs"))
    from pt_tools.curate import tulu

    return _constraints(*tulu.constraints(truth))


def _code(tests):
    """Asserts, or pairs of input and output (as objects, or as two lists)."""
    if isinstance(tests, dict) and isinstance(tests.get("inputs"), list) and isinstance(tests.get("outputs"), list):
        if len(tests["inputs"]) != len(tests["outputs"]):
            raise ValueError("inputs and outputs are not of one length")
        tests = [{"input": i, "output": o} for i, o in zip(tests["inputs"], tests["outputs"])]
    tests = tests if isinstance(tests, list) else []
    if tests and all(isinstance(test, str) for test in tests):
        return {"name": "code", "tests": tests}
    if tests and all(isinstance(test, dict) and {"input", "output"} <= test.keys() for test in tests):
        return {"name": "code", "stdio": [{"input": test["input"], "output": test["output"]} for test in tests]}
    raise ValueError("ground_truth has neither asserts nor inputs and outputs")


def is_verl(row):
    return isinstance(row["reward_model"], dict) and "ground_truth" in row["reward_model"]


def verl(row):
    """verl's columns: data_source names the kind of answer, reward_model has it."""
    given, truth = turns.prompt(row.pop("prompt")), row.pop("reward_model")["ground_truth"]
    name = str(row["data_source"]).lower()
    value = truth if MATH.search(name) else _tests(truth)
    if not MATH.search(name) and not isinstance(value, (list, dict)):
        raise ValueError(f"no verifier is known for the data source {name!r:.40}")
    verifier = math_verifier(truth) if MATH.search(name) else _code(value)
    return {"prompt": given, "verifier": verifier}


def _tests(truth):
    try:
        return turns.parsed(truth, "ground_truth")
    except ValueError:
        return None


# --- benchmarks ---------------------------------------------------------------------------------------------------


def humaneval(row):
    """The verifier gets the prompt too: a completion is the whole function, or only what continues the prompt."""
    name, test, start = string(row, "entry_point"), string(row, "test"), string(row, "prompt")
    verifier = {"name": "code", "tests": [f"{test.rstrip()}\n\ncheck({name})"], "entry_point": name, "prompt": start}
    return {**named(row, "task_id", "humaneval"), "prompt": as_turns(start, "user"), "verifier": verifier}


def mbpp(row):
    """The task and its asserts (they name the function), as the paper prompts."""
    task, tests, setup = string(row, "text"), row.pop("test_list"), turns.optional(row, "test_setup_code").strip()
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise ValueError("test_list is not a list of strings")
    prompt = f"{task}\nYour code should pass these tests:\n" + "\n".join(tests)
    verifier = {"name": "code", "tests": [f"{setup}\n{test}" if setup else test for test in tests]}
    return {**named(row, "task_id", "mbpp"), "prompt": as_turns(prompt, "user"), "verifier": verifier}


def mt_bench(row):
    """The first turn is the prompt; all turns stay under `turns`, for who asks the second."""
    if not isinstance(row["turns"], list) or not row["turns"]:
        raise ValueError("turns is not a list of prompts")
    return {**named(row, "question_id", "mt_bench"), "prompt": turns.prompt(row["turns"][0], "turns[0]")}


GAME24 = """Use the four numbers {} and the operations + - * / to reach 24. Use every number exactly once.
End with the expression, as in: Answer: (1 + 2) * (3 + 5)"""


def game24(row):
    """The puzzles of the tree-of-thought paper: four numbers a row."""
    puzzle = row.pop("Puzzles")
    numbers = puzzle.split() if isinstance(puzzle, str) else []
    if len(numbers) != 4 or not all(number.isdecimal() for number in numbers):
        raise ValueError("Puzzles is not four whole numbers")
    prompt = GAME24.format(", ".join(numbers))
    verifier = {"name": "game24", "numbers": [int(number) for number in numbers]}
    return {**named(row, "Rank", "game24"), "prompt": as_turns(prompt, "user"), "verifier": verifier}
