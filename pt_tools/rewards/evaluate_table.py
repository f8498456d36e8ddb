"""A report of pt-eval as text: aligned columns, at most 100 characters wide, nothing that steers a terminal."""

from __future__ import annotations

from pt_tools.errors import printable

WIDTH = 100
NAME = 32  # the longest name shown


def text(report):
    """The lines of the report's tables: figures by domain, instructions, comparison, and how they came about."""
    tables = [_figures(report)]
    extra = report["extra"]
    if "instructions" in extra:
        tables.append(_instructions(report))
    if "against" in extra:
        tables += _against(extra["against"], report["by"])
    lines = []
    for table in tables:
        lines += [*_aligned(table), ""]
    return [*lines, *_wrapped(_protocol(report["protocol"]))]


def _figures(report):
    domains, extra, measure = report["domains"], report["extra"], report["measure"]
    told = {measure} if _graded_in_parts(domains) else {measure, "mean@n"}
    more = [name for name in extra if "@" in name and name not in told]
    rows = [[report["by"], "prompts" if measure == "pass@1" else "pairs", measure, "95 %", *more]]
    rows[0] += ["ties"] if "ties" in extra else []
    total = {**report["mean"], **extra, "n": sum(part["n"] for part in domains.values())}
    for name, part in (*domains.items(), ("mean", total)):
        figures = [_figure(part[each]["mean"]) if each in part else "" for each in more]
        rows.append([name, str(part["n"]), *_cells(part), *figures, *([str(part["ties"])] if "ties" in extra else [])])
    return rows


def _graded_in_parts(domains):
    """Whether the rewards say more than right and wrong."""
    return any("mean@n" in part and part["mean@n"]["mean"] != part["mean"] for part in domains.values())


def _instructions(report):
    names = list(report["extra"]["instructions"])
    rows = [["instructions", *(name.replace("_", " ") for name in names)]]
    parts = [(name, part["instructions"]) for name, part in report["domains"].items() if "instructions" in part]
    for name, part in (*parts, ("mean", report["extra"]["instructions"])):
        rows.append([name, *(f"{_figure(part[each]['mean'])} ({_bounds(part[each])})" for each in names)])
    return rows


def _against(against, by):
    wins, change = against, against["difference"]
    if wins["mean"]:
        yield [["win rate", "prompts", "mean", "95 %"], *_named(wins, lambda part: _cells(part))]
    yield [["pass@1 gained", "prompts", "mean", "95 %", "p", "test"],
           *_named(change, lambda part: [*_cells(part, "+"), f"{part['p']:.2g}", part["test"]])]


def _named(parts, cells):
    rows = [[name, str(part["n"]), *cells(part)] for name, part in parts["domains"].items()]
    return [*rows, ["mean", str(sum(part["n"] for part in parts["domains"].values())), *cells(parts["mean"])]]


def _figure(value, sign=""):
    return f"{round(value, 3) + 0.0:{sign}.3f}" if abs(value) < 1000 else f"{value:{sign}.4g}"


def _bounds(part, sign=""):
    return f"{_figure(part['low'], sign)}{' ' if sign else '-'}{_figure(part['high'], sign)}"


def _cells(part, sign=""):
    return [_figure(part["mean"], sign), _bounds(part, sign)]


def _aligned(rows):
    """The rows as lines; columns that do not fit follow below, each time with the first column."""
    rows = [[printable(cell) for cell in row] for row in rows]
    rows = [[row[0] if len(row[0]) <= NAME else row[0][: NAME - 1] + "…", *row[1:]] for row in rows]
    first, *columns = zip(*rows)
    lines, block = [], []
    for column in (*columns, None):
        if column is None or block and _width([first, *block, column]) > WIDTH:
            shown = [first, *block]
            widths = [max(map(len, each)) for each in shown]
            lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in zip(*shown)]
            block = []
        block.append(column)
    return lines


def _width(columns):
    return sum(max(map(len, column)) + 2 for column in columns) - 2


def _protocol(protocol):
    """Phrases that say how the figures came about."""
    for sampling in protocol.get("sampling", ()):
        yield ", ".join(f"{name} {value}" for name, value in sampling.items()) if isinstance(sampling, dict) else str(sampling)
    samples = protocol.get("samples")
    if samples:
        least, most = samples["least"], samples["most"]
        yield f"samples {least}" if least == most else f"samples {least} to {most}"
    for name in ("models", "reward_model", "tokenizer", "template", "tiers"):
        if protocol.get(name):
            yield f"{name} {' '.join(str(each)[:12] for each in protocol[name])}"
    if protocol.get("verifiers"):
        yield "verifiers " + " ".join(protocol["verifiers"])
    yield f"interval {protocol['interval']}"
    yield f"prompts {protocol['prompts']['sha256'][:12]}"
    yield f"pt-tools {protocol['pt_tools']}"


def _wrapped(phrases):
    lines, line = [], ""
    for phrase in map(printable, phrases):
        phrase = phrase if len(phrase) <= WIDTH - 2 else phrase[: WIDTH - 3] + "…"
        if line and len(line) + 2 + len(phrase) > WIDTH:
            lines.append(line + ";")
            line = ""
        line += ("; " if line else "") + phrase
    return [*lines, line]
