"""Runs a submission against its tests: what goes into the jails, what comes out, and the comparison out here.

Every function returns (passed: list of bool, reason or None). Failed and NoSandbox are the grader's own failures.
"""

from __future__ import annotations

import contextlib
import math
import os
import select

from pt_tools.errors import printable
from pt_tools.rewards import sandbox
from pt_tools.rewards.jail import values
from pt_tools.rewards.sandbox import Ended, Failed, Late

MAX_REASON = 300
MIN_OUTPUT = 2**20  # bytes that a program may write, or twice what is expected
EXIT_S = 1.0  # for a process that has closed its pipe to end by itself
REL_TOL, ABS_TOL = 1e-6, 1e-9


def run_tests(plan, texts, tier):
    """Asserts: the tests run in one jail, the submission in another; every value that crosses is plain."""
    passed, clock = [], sandbox.Clock(plan.timeout_s)
    with clock.run(plan.limits, tier) as solution:
        reason = _load(solution, texts, clock)
        if reason:
            return passed, reason
        with clock.run(plan.limits, tier) as tester:
            order = {"role": "tester", "names": plan.names, "modules": plan.modules, "given": plan.given,
                     "setup": plan.setup, "tests": plan.tests, "all": plan.fraction}
            reason = None
            try:
                tester.send(values.dumps(order), clock)
                while len(passed) < len(plan.tests):
                    report = _next_report(tester, solution, clock)
                    passed.append(report[0] == "pass")
                    if not passed[-1]:
                        reason = reason or clean(f"wrong: test {len(passed)}: {report[1]}")
                        if not plan.fraction:
                            break
            except Late:
                reason = reason or f"timeout: test {len(passed) + 1}"
            except Lost as lost:
                reason = reason or f"{lost}: test {len(passed) + 1}"
            except Ended:
                raise Failed(f"the tests' own process died ({tester.close()})") from None
    return passed, reason


def _loads(data):
    """Values from a jail, in this process, which nobody kills."""
    return values.loads(data, tables=values.NAMED)


class Lost(Exception):
    """The submission's process has ended; the text says how."""


def _next_report(tester, solution, clock):
    """Carry the tester's questions to the submission and the answers back, until the tester reports on a test."""
    while True:
        frame = tester.receive(clock)
        if not frame.startswith(b"?"):
            return _loads(frame)
        answer = _answer(solution, frame[1:], clock)
        with contextlib.suppress(Ended):  # a tester that has no memory for the answer has left its report
            tester.send(answer, clock)


def _answer(solution, frame, clock):
    try:
        solution.send(frame, clock)
        return solution.receive(clock)
    except Ended:
        raise Lost(_how(solution)) from None


def _load(solution, texts, clock):
    """Hand over the program -> None, or why it could not be loaded."""
    try:
        answer = _loads(_answer(solution, values.dumps({"role": "solution", "texts": texts}), clock))
        return None if answer == ["ok", None] else clean(f"import: {answer[2]}")
    except Late:
        return "timeout: import"
    except Lost as lost:
        return f"{lost}: import"
    except (values.NotPlain, TypeError, IndexError, KeyError):
        return "import: no answer"


def _how(jail):
    """How a jailed process ended, in words; it has closed its pipe."""
    jail.wait(sandbox.Clock(EXIT_S))
    ended = jail.close()
    if "over" in ended:
        return "killed: disk"
    return f"exit {ended['exit']}" if "exit" in ended else f"killed: signal {ended['signal']}"


def run_calls(plan, texts, tier):
    """Calls of the entry point, compared here (`same`)."""
    passed, reason, clock = [], None, sandbox.Clock(plan.timeout_s)
    with clock.run(plan.limits, tier) as solution:
        reason = _load(solution, texts, clock)
        if reason:
            return passed, reason
        for call in plan.calls:
            failure, over = _one_call(solution, plan.names[0], call, clock)
            passed.append(failure is None)
            reason = reason or failure and clean(f"{failure}: test {len(passed)}")
            if failure and (over or not plan.fraction):
                break
    return passed, reason


def _one_call(solution, name, call, clock):
    """(None or why it failed, whether the process is of no more use)."""
    request = values.dumps(["call", name, None, call["args"], {}])
    try:
        status, *rest = _loads(_answer(solution, request, clock))
        if status != "ok":
            return ": ".join(filter(None, map(str, rest))), False
        return None if same(rest[0], call["expected"]) else "wrong", False
    except Late:
        return "timeout", True
    except Lost as lost:
        return str(lost), True
    except (values.NotPlain, TypeError, ValueError, IndexError) as error:
        return f"no plain value ({error})", False


def same(got, expected):
    """Whether a returned value is what JSON expects: tuples count as lists and keys as their strings; true is not 1;
    numbers are equal, or, where one is a float, within 1e-6 of the larger or within 1e-9."""
    if isinstance(expected, bool) or isinstance(got, bool) or expected is None or got is None:
        return got is expected
    if isinstance(expected, list):
        return isinstance(got, (list, tuple)) and len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return False
        named = {key if isinstance(key, str) else str(key): value for key, value in got.items()}
        return named.keys() == expected.keys() and len(named) == len(got) and all(
            same(named[key], expected[key]) for key in expected)
    if isinstance(expected, str):
        return isinstance(got, str) and got == expected
    if not isinstance(got, (int, float)):
        return False
    if isinstance(got, int) and isinstance(expected, int):
        return got == expected
    try:
        return math.isclose(got, expected, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    except OverflowError:
        return False


def run_stdio(plan, texts, tier):
    """Main programs: what each prints for an input, compared here; every case is a process of its own."""
    passed, reason, clock = [], None, sandbox.Clock(plan.timeout_s)
    for number, case in enumerate(plan.stdio, 1):
        failure = _one_program(plan, texts[-1], case, tier, clock)
        passed.append(failure is None)
        reason = reason or failure and clean(f"{failure}: test {number}")
        if failure and (not plan.fraction or not clock.left()):
            break
    return passed, reason


def _one_program(plan, text, case, tier, clock):
    """None, or why the program failed on this input."""
    most = max(MIN_OUTPUT, 2 * len(case["output"]))
    output, how = run_program(text, case["input"], plan.limits, tier, clock, most)
    if how != "exit 0":
        return how
    return None if lines(output.decode("utf-8", "replace")) == lines(case["output"]) else "wrong"


def run_program(text, stdin, limits, tier, clock, most=MIN_OUTPUT):
    """Run a main program on the text `stdin` -> (what it wrote, some `most` bytes, and how it ended: "exit 0", …).

    It ends when its main process does: what that has started is killed, and does not keep its output open.
    """
    given = os.memfd_create("stdin", os.MFD_CLOEXEC)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    output = bytearray()
    try:
        with open(given, "wb", closefd=False) as file:
            file.write(stdin.encode("utf-8", "surrogatepass"))
        os.lseek(given, 0, os.SEEK_SET)
        with clock.run(limits, tier, given, writing) as jail:
            os.close(writing)
            writing = None
            jail.send(values.dumps({"role": "program", "texts": [text]}), clock)
            if not _read(reading, output, most, clock, jail):
                return output, "killed: too much output"
            reason = _reason(jail, clock)
            clock.settle(jail)
            with contextlib.suppress(Ended):
                jail.send(b"", clock)
            if not jail.wait(clock):
                return output, "timeout"
            how = _how(jail)
            if not _read(reading, output, most, clock):
                return output, "killed: too much output"
            return output, clean(reason) if how == "exit 1" and isinstance(reason, str) else how
    except Late:
        return output, "timeout"
    except Ended:
        return output, "exit"
    finally:
        for fd in (given, reading, writing):
            if fd is not None:
                os.close(fd)


def _reason(jail, clock):
    """What the process says about its end, for which it waits; nothing depends on it."""
    try:
        return _loads(jail.receive(clock))
    except (Ended, values.NotPlain):
        return None


def _read(fd, output, most, clock, jail=None):
    """Collect in `output` what comes until the pipe is closed, or `jail` says that it has ended; False if that is more
    than `most` bytes. Late."""
    files = [fd] if jail is None else [fd, jail.fileno()]
    while len(output) <= most:
        found = sandbox.ready(files, select.POLLIN, clock)
        if not found:
            raise Late
        if fd not in found:
            return True
        block = os.read(fd, 2**18)
        if not block:
            return True
        output += block
    return False


def lines(text):
    """A text's lines without white space at their ends and without empty lines at the end."""
    return "\n".join(line.rstrip() for line in text.rstrip().replace("\r\n", "\n").split("\n"))


def clean(reason):
    return printable(reason)[:MAX_REASON]
