"""The roles inside a jail. A message is four bytes of length and that many of JSON (values.py).

`solution` runs the submission and answers calls; `program` runs it as a main program; `tester` runs the tests, in a
jail of its own, with a stand-in for each name of the submission. Stand-ins are all that connects the two: what a tester
gets is plain data made by another process, so nothing in a submission can reach the comparison, and a test counts only
if the tester says that it passed.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import importlib.abc
import io
import itertools
import os
import struct
import sys
import threading
import types

from pt_tools.rewards.jail import values

MAX_ITEMS = 100_000  # of a lazy result
MAX_REASON = 200


def run(fd):
    """Do what the first message asks, then end the process."""
    gc.enable()
    sys.stdin, sys.stdout, sys.stderr = (open(n, "r" if n == 0 else "w", closefd=False) for n in range(3))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["program"]
    pipe = Pipe(fd)
    pipe.send(b"ready")
    order = values.loads(pipe.receive())
    {"solution": solution, "program": program, "tester": tester}[order["role"]](pipe, order)


class Pipe:
    def __init__(self, fd):
        self.fd, self.lock = fd, threading.RLock()

    def send(self, data):
        data = struct.pack("<I", len(data)) + data
        while data:
            data = data[os.write(self.fd, data) :]

    def receive(self):
        return self._exactly(struct.unpack("<I", self._exactly(4))[0])

    def _exactly(self, size):
        parts = bytearray()
        while len(parts) < size:
            block = os.read(self.fd, size - len(parts))
            if not block:
                os._exit(0)  # the other side is gone
            parts += block
        return bytes(parts)


class Text(importlib.abc.InspectLoader):
    """Loads a module from a text."""

    def __init__(self, text):
        self.text = text

    def get_source(self, name):
        return self.text


def load(module, text):
    Text(text).exec_module(module)


def new_module(name):
    module = types.ModuleType(name)
    module.__builtins__ = builtins
    module.__spec__ = None
    sys.modules[name] = module
    return module


def text_of(error):
    try:
        return str(error)[:MAX_REASON]
    except BaseException:
        return ""


def why(error):
    """A short reason: the exception's type and text."""
    name, text = type(error).__name__, text_of(error)
    return (f"{name}: {text}" if text else name)[:MAX_REASON]


# ---- the submission's side


def solution(pipe, order):
    """Load the texts as one module, then answer [operation, …] with ["ok", value] or ["error", type, text]."""
    module = new_module("solution")
    kept = Kept()
    try:
        for text in order["texts"]:
            load(module, text)
    except BaseException as error:
        pipe.send(values.dumps(["error", type(error).__name__, why(error)]))
        os._exit(1)
    pipe.send(values.dumps(["ok", None]))
    while True:
        data = pipe.receive()
        try:
            operation, *arguments = values.loads(data, kept.resolve)
            answer = values.dumps(["ok", OPERATIONS[operation](module, *arguments)], kept.refer)
        except BaseException as error:  # SystemExit too
            kind = next((k.__name__ for k in type(error).__mro__ if vars(builtins).get(k.__name__) is k), "Exception")
            answer = values.dumps(["error", kind, text_of(error)])
        pipe.send(answer)


class Kept(list):
    """Objects that are no plain values, by number."""

    def refer(self, value):
        self.append(value)
        return len(self) - 1

    def resolve(self, number):
        return self[number]


def _named(module, name):
    if name not in vars(module):
        raise NameError(f"name {name!r} is not defined")
    return vars(module)[name]


def _call(module, name, target, arguments, named):
    return (target if name is None else _named(module, name))(*arguments, **named)


OPERATIONS = {
    "call": _call,
    "name": _named,
    "getattr": lambda module, target, name: getattr(target, name),
    "setattr": lambda module, target, name, value: setattr(target, name, value),
    "list": lambda module, target: list(itertools.islice(target, MAX_ITEMS)),
    "next": lambda module, target: next(target),
    "bool": lambda module, target: bool(target),
    "len": lambda module, target: len(target),
    "item": lambda module, target, key: target[key],
    "text": lambda module, target: str(target),
}


def program(pipe, order):
    """Run the text as __main__; the exit status says how it ended, and one message why."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="replace")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8", "surrogateescape")
    reason, code = None, 0
    try:
        load(new_module("__main__"), order["texts"][0])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        reason = f"exit {code}"
    except BaseException as error:
        code, reason = 1, why(error)
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException as error:
        code, reason = 1, why(error)
    with contextlib.suppress(OSError):
        os.close(1)
    pipe.send(values.dumps(reason))
    pipe.receive()  # until it is known how long this process waited for a processor
    os._exit(code & 255)


# ---- the tests' side


def tester(pipe, order):
    """Run the tests in one namespace, in order; report ["pass"] or ["fail", why] for each, until the first failure
    unless `all` are wanted."""
    module = new_module("tests")
    failure = None
    try:
        for text in order["given"]:
            load(module, text)
        vars(module).update({name: importlib.import_module(name) for name in order["modules"]})
        vars(module).update({name: Standin(pipe, name) for name in order["names"]})
        load(module, order["setup"])
    except BaseException as error:
        failure = f"setup: {why(error)}"
    for text in order["tests"]:
        if not report(pipe, module, text, failure) and not order["all"]:
            break
    os._exit(0)


PASS, FULL = (values.dumps(answer) for answer in (["pass"], ["fail", "MemoryError"]))


def report(pipe, module, text, failure):
    """Run one test and say how it went; a submission that has filled the memory here must not keep it from that."""
    try:
        if failure is not None:
            raise RuntimeError(failure)
        load(module, text)
        answer = PASS
    except BaseException as error:
        answer = failed(error)
    try:
        pipe.send(answer)
    except MemoryError:
        vars(module).clear()
        pipe.send(answer)
    return answer is PASS


def failed(error):
    try:
        return values.dumps(["fail", why(error)])
    except MemoryError:
        return FULL


class Remote:
    """What the two kinds of stand-in share: every use is a request to the submission's process."""

    __slots__ = ("_pipe",)

    def _ask(self, *request):
        pipe = self._pipe
        with pipe.lock:
            pipe.send(b"?" + values.dumps(list(request), _number))
            answer, *rest = values.loads(pipe.receive(), lambda number: Ref(pipe, number))
        if answer == "ok":
            return rest[0]
        kind, text = rest
        kind = vars(builtins).get(kind)
        known = isinstance(kind, type) and issubclass(kind, Exception)
        try:
            error = kind(text) if known else RuntimeError(text)
        except TypeError:  # UnicodeDecodeError and such
            error = RuntimeError(text)
        raise error


class Standin(Remote):
    """A function or class of the submission, by name."""

    __slots__ = ("_name",)

    def __init__(self, pipe, name):
        self._pipe, self._name = pipe, name

    def __call__(self, *arguments, **named):
        return self._ask("call", self._name, None, arguments, named)

    def __getattr__(self, name):
        return getattr(self._ask("name", self._name), name)


class Ref(Remote):
    """An object that stayed in the submission's process. Two of them are never compared, and it has no operators: only
    that process could say what `f(x) < 5` or `f(x) - 5` is, and it would say what passes."""

    __slots__ = ("_number",)

    def __init__(self, pipe, number):
        object.__setattr__(self, "_pipe", pipe)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments, **named):
        return self._ask("call", None, self, arguments, named)

    def __getattr__(self, name):
        return self._ask("getattr", self, name)

    def __setattr__(self, name, value):
        self._ask("setattr", self, name, value)

    def __iter__(self):
        return iter(self._ask("list", self))

    def __next__(self):
        return self._ask("next", self)

    def __bool__(self):
        return self._ask("bool", self)

    def __len__(self):
        return self._ask("len", self)

    def __getitem__(self, key):
        return self._ask("item", self, key)

    def __str__(self):
        return self._ask("text", self)

    def __eq__(self, other):
        if isinstance(other, Ref):
            raise TypeError("two objects of the submission cannot be compared")
        return False

    __hash__ = object.__hash__


def _number(value):
    if isinstance(value, Standin):
        value = value._ask("name", value._name)
    if isinstance(value, Ref):
        return object.__getattribute__(value, "_number")
    raise values.NotPlain(f"a test passes a {type(value).__name__}")
