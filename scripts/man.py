"""Man pages from the commands themselves: python scripts/man.py DIR (`--check` compares instead of writing).

One page a command (git's way for verbs: pt-curate-convert(1)), pt-record(5) from the record's schema,
pt-verifiers(7) and pt-merge-methods(7) from the verifiers' and methods' own descriptions, pt(7) from the exit codes.
"""

import importlib
import inspect
import re
import sys
import tomllib
from pathlib import Path

import click

from pt_tools import __version__, errors, options, record, rewards

ROOT = Path(__file__).resolve().parent.parent


def commands() -> dict:
    """Every command and verb by its page name."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    found = {}
    for name, target in sorted(scripts.items()):
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        found[name] = command
        for verb in command.all().values() if hasattr(command, "all") else ():
            found[verb.name.replace(" ", "-")] = verb
    return found


def escape(text: str) -> str:
    """Text as roff: backslashes and leading control characters made harmless, hyphens kept as typed, ASCII only."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def head(name: str, section: int, line: str) -> list[str]:
    return [f'.TH "{name.upper()}" "{section}" "" "pt\\-tools {__version__}" "pt\\-tools"', ".ad l", ".nh", ".SH NAME",
            f"{escape(name)} \\- {escape(line.rstrip('.'))}"]


def paragraphs(text: str) -> list[str]:
    out = []
    for block in re.split(r"\n\s*\n", text.strip()):
        out += [".PP", escape(" ".join(block.split()))]
    return out


def option(param, ctx) -> list[str]:
    names, help = param.get_help_record(ctx)
    names = escape(names).replace("|", "|\\:")  # a line may break after each choice
    return [".TP", f"\\fB{names}\\fR", escape(help)]


def command_page(name: str, command) -> str:
    lines = (command.help or "").strip().splitlines() or [""]
    ctx = click.Context(command, info_name=command.name)
    out = head(name, 1, lines[0])
    usage = " ".join(command.collect_usage_pieces(ctx))
    out += [".SH SYNOPSIS", f"\\fB{escape(command.name)}\\fR {escape(usage)}", ".SH DESCRIPTION", *paragraphs(command.help or "")]
    if isinstance(command, click.Group):
        out += [".SH COMMANDS"]
        for verb in command.all().values():
            page = verb.name.replace(" ", "-")
            out += [".TP", f"\\fB{escape(page)}\\fR(1)", escape((verb.help or "").strip().splitlines()[0])]
    else:
        out += option_sections(command, ctx)
        out += [".SH EXAMPLES", ".nf", *(escape(e) for e in command.examples), ".fi"]
    out += exit_status()
    return "\n".join(out + [".SH SEE ALSO", "\\fBpt\\fR(7), \\fBpt\\-record\\fR(5), \\fBpt\\-verifiers\\fR(7)"]) + "\n"


def option_sections(command, ctx) -> list[str]:
    params = {p.name: p for p in command.params if isinstance(p, click.Option)}
    out = []
    files = options.fields(command.config).get("files")
    if files is not None:
        out += [".SH ARGUMENTS", ".TP", "\\fBFILE\\fR", escape(files.metadata["help"])]
    for title, names in [*options.sections(command.config), ("Config", ["config_file", "print_config"])]:
        records = [line for n in names if n in params for line in option(params[n], ctx)]
        if records:
            out += [f".SH {'OPTIONS' if title == 'Options' else title.upper() + ' OPTIONS'}", *records]
    return out


def exit_status() -> list[str]:
    out = [".SH EXIT STATUS"]
    for code, meaning in errors.table():
        out += [".TP", f"\\fB{code}\\fR", escape(meaning)]
    return out


def record_page() -> str:
    out = head("pt-record", 5, "one prompt with all its completions, one JSON object on one line")
    out += [".SH DESCRIPTION", *paragraphs(record.__doc__), ".SH FIELDS"]
    for name, (type_, writer, meaning) in record.FIELDS.items():
        out += [".TP", f"\\fB{escape(name)}\\fR ({escape(type_)}; written by {escape(writer)})", escape(meaning)]
    return "\n".join(out) + "\n"


def verifiers_page() -> str:
    out = head("pt-verifiers", 7, "how completions are graded: verifiers, judges, rules that combine scores")
    out += [".SH DESCRIPTION", *paragraphs(GRADING)]
    names = {}
    for name, target in rewards.VERIFIERS.items():
        names.setdefault(target.partition(":")[0], []).append(name)
    rooms = {", ".join(found): module for module, found in names.items()}
    rooms |= {"equal answers": "answers", "sandbox": "sandbox", "user functions": "user", "judge": "judge_modes"}
    for title, module in {**rooms, "combination": "combine"}.items():
        text = importlib.import_module(f"pt_tools.rewards.{module}").__doc__
        out += [f".SH {escape(title.upper())}", ".nf", escape(text.strip()), ".fi"]
    return "\n".join(out) + "\n"


def methods_page() -> str:
    from pt_tools import merge
    from pt_tools.merge import methods, verbs

    out = head("pt-merge-methods", 7, "what pt-merge computes: formulas, parameters, rules")
    out += [".SH DESCRIPTION", *paragraphs(MERGING)]
    for name in merge.METHODS:
        method = methods.get(name)
        out += [f".SH {escape(name.upper())}", ".nf", escape(inspect.cleandoc(method.__doc__)), ".fi", *paragraphs(needs(method))]
    out += [".SH SOUPS AND ADAPTERS"]
    for name, verb in verbs.VERBS.items():
        out += [".TP", f"\\fB{escape(name)}\\fR", escape(verb.does)]
    return "\n".join(out + [".SH SEE ALSO", "\\fBpt\\-merge\\fR(1)"]) + "\n"


def needs(method) -> str:
    """What a merge method takes, in words."""
    least, most = method.models
    many = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
    base = {"required": " beside a base", "optional": ", and a base if --base names one", "none": ""}[method.base]

    def listed(table):
        return ", ".join(name if value is ... else f"{name} ({str(value).lower()})" for name, value in table.items()) or "none"

    return (f"Models: {many}{base}. Parameters of every model (default): {listed(method.own)}. "
            f"Parameters of the merge: {listed(method.shared)}.")


MERGING = """\
x_i are the models, b the base, d_i = x_i - b, w_i the weights; formulas hold for every tensor by itself.

Parameters are flags (-w, --density, --lambda, --t, ...) or --param [FILTER:]NAME=VALUE: a number for all tensors or for
those with FILTER in their name, or a gradient [a,b,...] over the layers, interpolated from the first layer to the
last; tensors in no layer have the first value. With several models, commas outside brackets separate their values.

Arithmetic is in float32 and rounds once, to the nearest even, when a result is stored. The result does not depend on the
number of threads, on the size of shards, or on the order of tensors: random masks are drawn for every block from the seed,
the tensor's name, the model's place and the block's place."""

GRADING = """\
A record names its verifier: an object with a name, or a list of them, with a key where a name occurs twice. Who runs
pt-score, pt-eval or pt-rlvr can add one to every record with --verifier; only there can it be a function of one's own.

What a completion causes (empty, unparsable, too slow, hostile) scores 0, with the reason in details. What the data, the
grader or the machine causes is tried once more, then stands in errors: no score, reward null, masked in training."""

PROMISES = """\
Data goes to stdout or to --out; everything else goes to stderr. A model command prints the directory that it made, so
that m=$(pt-sft ...) works.

An output appears whole or not at all, and an old one survives any failure. Scratch lies in OUT.run/ and nowhere else.

After any kill the same line goes on from the newest complete checkpoint, or starts clean; it never needs a rm. The
result is the same to the last bit as without the kill (same machine, number of threads and versions).

A line that is already done is not done again: the run key (options, content of the inputs, versions) is compared with
the manifest of the output.

TERM, USR1 and USR2 finish the step, save, and exit 75. Ctrl-C does the same and ends by SIGINT. A second signal ends
at once.

No update and no save comes from a non-finite number.

Every row is accounted for: in = out + dropped + errored, with reasons, on stderr and in the manifest.

A scorer's failure is never a reward: the sample is masked out and counted.

Weights are read and written as safetensors only; no code from a model directory runs."""


def promises_page() -> str:
    out = head("pt", 7, "what every command of pt-tools keeps")
    out += [".SH PROMISES", *paragraphs(PROMISES)]
    return "\n".join(out + exit_status()) + "\n"


def pages() -> dict[str, str]:
    out = {f"{name}.1": command_page(name, command) for name, command in commands().items()}
    return {**out, "pt-record.5": record_page(), "pt-verifiers.7": verifiers_page(),
            "pt-merge-methods.7": methods_page(), "pt.7": promises_page()}


def main():
    check = "--check" in sys.argv
    target = Path([a for a in sys.argv[1:] if a != "--check"][0])
    wanted = pages()
    stale = [n for n, text in wanted.items() if not (target / n).exists() or (target / n).read_text() != text]
    extra = [p.name for p in target.glob("*.[1-8]") if p.name not in wanted]
    if check:
        if stale or extra:
            sys.exit(f"man pages are not current (run make man): {', '.join(stale + extra)}")
        return
    target.mkdir(exist_ok=True)
    for name in extra:
        (target / name).unlink()
    for name, text in wanted.items():
        (target / name).write_text(text)


if __name__ == "__main__":
    main()
