"""The expressions of `pt-curate filter` and `tag`: Python's syntax, fields of the record as names, and nothing else.

An expression is parsed, checked node by node, and turned into functions; no part of it is ever run as code. A missing
field is null. Only `==`, `!=` and `in` look at null: any order comparison with it is false, arithmetic with it is null.
"""

import ast
import functools
import operator
import re
import warnings
from typing import NamedTuple

from pt_tools.curate import functions

MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 100
CPU_S = 1.0  # processor time for one row, where a pattern or a comprehension could take long

CONSTANTS = {"null": None, "true": True, "false": False}
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
               ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
_ORDER = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}


class Row(NamedTuple):
    """What an expression sees of one record: its fields, and the variables of comprehensions."""

    rec: dict
    names: dict


def parse(text: str):
    """The function record -> value of an expression. ValueError says what in the text is wrong, and where.

    The function raises ValueError for a record on which the expression makes no sense: text compared with numbers, a
    division by zero, a pattern that takes too long.
    """
    if not text.strip():
        raise ValueError("it is empty")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    try:
        tree = _tree(text)
    except SyntaxError as error:
        where = f" at column {error.offset}" if error.offset else " at its end" if error.offset == 0 else ""
        raise ValueError(f"{error.msg}{where}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ValueError("nested too deeply, or no text") from None
    compiler = _Compiler()
    value = compiler.node(tree.body)
    return functools.partial(_guarded if compiler.may_take_long else _plain, value)


def _tree(text):
    with warnings.catch_warnings(action="ignore"):  # of "\d", which means what it should
        return ast.parse(text.strip(), mode="eval")


def fields(text: str) -> set[str]:
    """The fields that an expression that can be parsed names."""
    nodes = list(ast.walk(_tree(text)))
    others = {node.func for node in nodes if isinstance(node, ast.Call)}
    bound = {node.target.id for node in nodes if isinstance(node, ast.comprehension)}
    names = {node.id for node in nodes if isinstance(node, ast.Name) and node not in others}
    return names - bound - CONSTANTS.keys()


def _plain(value, rec):
    try:
        return value(Row(rec, {}))
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except (OverflowError, RecursionError):
        raise ValueError("a number or a value that is too large") from None


def _guarded(value, rec):
    from pt_tools.rewards import common

    try:
        with common.cpu_limit(CPU_S):
            found = _plain(value, rec)
            functions.equal(found, found)  # a list of lists that share items could be too long to be written
            return found
    except common.TooSlow:
        raise ValueError(f"takes more than {CPU_S:g} s of processor time") from None


class _Compiler:
    """Nodes of a syntax tree into functions Row -> value."""

    def __init__(self):
        self.may_take_long, self._depth, self._bound = False, 0, []

    def node(self, node):
        make = getattr(self, f"_{type(node).__name__.lower()}", None)
        if make is None:
            raise _wrong(node, f"{_NAMES.get(type(node).__name__, type(node).__name__)} cannot be used here")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _wrong(node, "nested too deeply")
        made = make(node)
        self._depth -= 1
        return made

    # --- values ---------------------------------------------------------------------------------------------------

    def _constant(self, node):
        if not isinstance(node.value, (str, int, float, bool, type(None))):
            raise _wrong(node, f"{ast.unparse(node)} cannot be used here")
        value = node.value
        return lambda row: value

    def _name(self, node):
        name = node.id
        if name in CONSTANTS:
            value = CONSTANTS[name]
            return lambda row: value
        if name in self._bound:
            return lambda row: row.names[name]
        return lambda row: functions.field(row.rec, name)

    def _attribute(self, node):
        value, name = self.node(node.value), node.attr
        return lambda row: functions.get(value(row), name)

    def _subscript(self, node):
        value = self.node(node.value)
        if isinstance(node.slice, ast.Slice):
            parts = [part and self.node(part) for part in (node.slice.lower, node.slice.upper)]
            if node.slice.step is not None:
                raise _wrong(node, "a slice has a start and an end only")
            return lambda row: functions.cut(value(row), *(part and part(row) for part in parts))
        index = self.node(node.slice)
        return lambda row: functions.item(value(row), index(row))

    def _list(self, node):
        parts = [self.node(part) for part in node.elts]
        return lambda row: [part(row) for part in parts]

    _tuple = _set = _list

    # --- operators ------------------------------------------------------------------------------------------------

    def _boolop(self, node):
        parts = [self.node(part) for part in node.values]
        ends = operator.not_ if isinstance(node.op, ast.And) else operator.truth

        def run(row):  # as in Python, the value that decides
            for part in parts:
                value = part(row)
                if ends(value):
                    break
            return value

        return run

    def _unaryop(self, node):
        value = self.node(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda row: not value(row)
        if isinstance(node.op, ast.USub):
            return lambda row: functions.arithmetic(operator.sub, 0, value(row))
        raise _wrong(node, "this operator cannot be used here")

    def _binop(self, node):
        if type(node.op) not in _ARITHMETIC:
            raise _wrong(node, "the operators are + - * / // %")
        act, left, right = _ARITHMETIC[type(node.op)], self.node(node.left), self.node(node.right)
        return lambda row: functions.arithmetic(act, left(row), right(row))

    def _compare(self, node):
        values = [self.node(part) for part in (node.left, *node.comparators)]
        tests = [_test(node, op) for op in node.ops]
        if len(tests) == 1:
            test, (left, right) = tests[0], values
            return lambda row: test(left(row), right(row))

        def run(row):  # every value once: nested chains would take twice as long with every level
            left = values[0](row)
            for test, value in zip(tests, values[1:]):
                right = value(row)
                if not test(left, right):
                    return False
                left = right
            return True

        return run

    def _ifexp(self, node):
        test, then, otherwise = self.node(node.test), self.node(node.body), self.node(node.orelse)
        return lambda row: then(row) if test(row) else otherwise(row)

    # --- functions and comprehensions -----------------------------------------------------------------------------

    def _call(self, node):
        if not isinstance(node.func, ast.Name) or node.func.id not in functions.FUNCTIONS:
            raise _wrong(node, f"the functions are {', '.join(sorted(functions.FUNCTIONS))}")
        name = node.func.id
        act, least, most = functions.FUNCTIONS[name]
        if node.keywords or not least <= len(node.args) <= most:
            raise _wrong(node, f"{name} takes {least if least == most else f'{least} to {most}'} values")
        if name in ("match", "field"):
            return self._match(node) if name == "match" else self._field(node)
        values = [self.node(part) for part in node.args]
        return lambda row: act(*[value(row) for value in values])

    def _field(self, node):
        """A field by its name as a text, for names that are no Python."""
        name = self._text(node, node.args[0])
        return lambda row: functions.field(row.rec, name)

    def _match(self, node):
        text, pattern = node.args
        if not self._text(node, pattern).isprintable():
            raise _wrong(node, r'write the pattern as r"…", so that \b is the border of a word')
        try:
            search = re.compile(pattern.value).search
        except (re.error, RecursionError, OverflowError) as error:
            raise _wrong(node, f"the pattern cannot be compiled ({error})") from None
        self.may_take_long, value = True, self.node(text)
        return lambda row: functions.match(value(row), search)

    def _text(self, node, value):
        if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
            raise _wrong(node, f"{node.func.id} takes a text in quotes there")
        return value.value

    def _generatorexp(self, node):
        if len(node.generators) != 1 or not isinstance(node.generators[0].target, ast.Name):
            raise _wrong(node, "a comprehension has one `for NAME in`")
        loop = node.generators[0]
        items, name = self.node(loop.iter), loop.target.id
        if name in CONSTANTS or name in self._bound:
            raise _wrong(node, f"{name} has a meaning already")
        self.may_take_long = True
        self._bound.append(name)
        value, tests = self.node(node.elt), [self.node(test) for test in loop.ifs]
        self._bound.pop()

        def run(row):
            found = []
            for row.names[name] in functions.items(items(row)):
                if all(test(row) for test in tests):
                    found.append(value(row))
            return found

        return run

    _listcomp = _generatorexp


def _test(node, op):
    """The function (left, right) -> true or false of a comparison."""
    kind = type(op)
    if kind in _ORDER:
        return functools.partial(functions.ordered, _ORDER[kind])
    tests = {ast.Eq: functions.equal, ast.NotEq: lambda a, b: not functions.equal(a, b), ast.In: functions.within,
             ast.NotIn: lambda a, b: not functions.within(a, b)}
    if kind not in tests:
        raise _wrong(node, "the comparisons are == != < <= > >= in, and not in")
    return tests[kind]


_NAMES = {"Lambda": "lambda", "NamedExpr": ":=", "JoinedStr": "an f-string", "Dict": "an object", "DictComp": "an object",
          "Starred": "*", "Await": "await", "SetComp": "a set of this form"}


def _wrong(node, what):
    column = getattr(node, "col_offset", None)
    return ValueError(what if column is None else f"{what} (column {column + 1})")
