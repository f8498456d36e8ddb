"""The program in a completion's text, and what a test's text asks of it."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import textwrap
import warnings

FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^\s`]*)[^`]*")
PYTHON = ("python", "py", "python3", "python2", "{python}", "{.python}")


def program(text, names=()):
    """The program in a text: after the thinking part, the last fenced block that defines one of `names`, else the last
    python block, else the last block, else all of it. A fence that is never closed ends with the text."""
    text = answer(text)
    found = blocks(text)
    if not found:
        return text
    best = [code for _, code in found if any(defines(code, name) for name in names)]
    best = best or [code for language, code in found if language in PYTHON] or [code for _, code in found]
    return best[-1]


def answer(text):
    """The text without byte-order marks and without a thinking part; one that never ends leaves nothing."""
    thinking, end, rest = text.rpartition("</think>")
    if not end:
        rest = "" if text.lstrip("\ufeff \t\r\n").startswith("<think>") else text
    return rest.lstrip("\r\n" if end else "").replace("\ufeff", "")


def blocks(text):
    """[(language, code)] of the fenced blocks, in order, each without the indentation of its fence."""
    found, lines, fence = [], None, None
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if lines is None:
            match = FENCE.fullmatch(line.rstrip("\r\n"))
            if match:
                fence, language, lines = match, match[3].lower(), []
        elif bare.startswith(fence[2]) and not bare.strip(fence[2][0]):
            found.append((language, "".join(lines)))
            lines = None
        else:
            indent = fence[1]
            lines.append(line[len(indent) :] if line.startswith(indent) else line)
    if lines:
        found.append((language, "".join(lines)))
    return found


def defines(code, name):
    """Whether a line of the code, not indented, defines `name`."""
    name = re.escape(name)
    return bool(re.search(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*[:=][^=]", code, re.MULTILINE))


def unindented(code, names):
    """The code; without its common indentation if that is what hides a definition of one of `names`."""
    if any(defines(code, name) for name in names):
        return code
    flat = textwrap.dedent(code)
    return flat if any(defines(flat, name) for name in names) else code


# ---- tests


def parse(text):
    """The syntax tree of a text of the data. ValueError if it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"a test is no Python ({type(error).__name__})") from None


def wanted(texts, given=(), entry_point=None):
    """(names that the submission must define, standard modules that the tests expect) of the texts of tests.

    These are the names that the tests use and that neither they, nor the `given` texts, nor Python define. So no
    submission can put its own `set` or `isclose` into a comparison. Tests that use none must be about a built-in name
    that they call first (`assert sum(10, 15) == 6`).
    """
    trees = [parse(text) for text in texts]
    given = [parse(text) for text in given]
    bound = set().union(*map(_bound, trees + given))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    loads = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    owners = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    free = {name for name in loads - bound if not hasattr(builtins, name)}
    modules = free & owners & sys.stdlib_module_names
    names = free - modules
    if entry_point:
        names.add(entry_point)
    if not names:
        names = {name for node in nodes if isinstance(node, ast.Assert) for name in _called(node.test)}
    if not names:
        raise ValueError("the tests call nothing of the submission")
    return sorted(names), sorted(modules - names)


def _bound(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _called(node):
    """The name that the left side of a condition calls."""
    while isinstance(node, (ast.Compare, ast.UnaryOp)):
        node = node.left if isinstance(node, ast.Compare) else node.operand
    return [node.func.id] if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else []
