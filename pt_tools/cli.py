"""From a Config and a function to a Unix command: options, input, output, promises, exit code.

`@command` turns the fields of a frozen dataclass into flags, fills it from flags, `--config FILE.toml` and defaults (in
that order), and runs the function inside one funnel that maps every error to one line and one exit code.
"""

import io
import keyword
import math
import operator
import os
import re
import sys

import click

from pt_tools import errors, options, stop
from pt_tools.errors import PtError, Usage

# What a path in an option can be that no stage can use; a program's own files are made by it and always fit.
WRONG_NAME = ("EACCES", "EPERM", "EISDIR", "ENOTDIR", "EEXIST", "ENAMETOOLONG", "ELOOP")
OUT_OF_STORAGE = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG", "ENOMEM")
_verbose = False
_WITHIN = {"at least": operator.ge, "at most": operator.le, "above": operator.gt, "below": operator.lt}


class Switch(click.Option):
    """A flag that its --no- form takes back (from a file of options); help shows the form that changes the default."""

    def get_help_record(self, ctx):
        names, help = super().get_help_record(ctx)
        return names if "[default: True]" in help else names.partition(" / ")[0], help


class Command(click.Command):
    """A click command that knows its Config and says its options bundle by bundle."""

    def __init__(self, name, config, main, reads, writes, examples):
        self.config, self.function = config, main
        self.reads, self.writes, self.examples = reads, writes, examples
        params = [_parameter(f) for f in options.fields(config).values()] + _config_options()
        super().__init__(name, params=params, help=main.__doc__, callback=self._call,
                         context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})

    def _call(self, config_file, print_config, **given):
        global _verbose
        values, origins = resolve(self.config, given, config_file)
        _verbose = values["verbose"]
        if print_config:
            click.echo(toml(values, origins), nl=False)
            return 0
        missing = [f for f in options.fields(self.config).values()
                   if f.metadata["required"] and values[f.name] is None]
        if missing:
            meta = missing[0].metadata
            what = meta["metavar"] if meta["argument"] else options.flag(missing[0].name)
            raise Usage(f"{what} is required; see {self.name} --help")
        from pt_tools import job

        return job.run(self, self.config(**values))

    def format_options(self, ctx, formatter):
        by_name = {p.name: p.get_help_record(ctx) for p in self.params if isinstance(p, click.Option)}
        for title, names in options.sections(self.config):
            records = [by_name[n] for n in names if by_name.get(n)]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        with formatter.section("Config"):
            formatter.write_dl([by_name[n] for n in ("config_file", "print_config")] + [("-h, --help", "Show this.")])

    def format_epilog(self, ctx, formatter):
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(" " * formatter.current_indent + example + "\n")

    def __call__(self, *args, **kwargs):
        sys.exit(funnel(self, *args))


class Group(click.Group):
    """Commands that share a name: `pt-curate VERB`. A verb's module is imported when the verb is asked for.

    `verbs`: name -> (module, the first sentence of its description); the function in the module has the verb's name.
    """

    def __init__(self, name, help, verbs):
        super().__init__(name, help=help, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
        self.verbs = verbs

    def all(self) -> dict:
        """Every verb's command by its name."""
        return {name: self.get_command(None, name) for name in self.verbs}

    def list_commands(self, ctx):
        return list(self.verbs)

    def get_command(self, ctx, name):
        if name not in self.verbs:
            return None
        import importlib

        return getattr(importlib.import_module(self.verbs[name][0]), name)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.verbs.items()])

    def __call__(self, *args, **kwargs):
        sys.exit(funnel(self, *args))


def command(name, config, *, reads, writes, examples, cls=Command):
    """Decorate `main(cfg, job)`; `writes` is "model", "records", "files" or "report" (see job.py)."""
    return lambda main: cls(name, config, main, reads, writes, examples)


def _parameter(field):
    meta, kind = field.metadata, options.kind(field)
    if field.name == "files":
        return click.Argument(["files"], nargs=-1, required=False, metavar=meta["metavar"] or "[FILE]...")
    if meta["argument"]:
        many = meta["multiple"]
        return click.Argument([field.name], nargs=-1 if many else 1, required=False,
                              metavar=f"[{meta['metavar']}]..." if many else meta["metavar"])
    flag = options.flag(field.name)
    help = meta["help"] + _default_note(field)
    names = [flag] + ([meta["short"]] if meta["short"] else []) + [field.name]
    if kind is bool:
        names[0] = f"{flag}/--no-{flag[2:]}"
        return Switch(names, default=None, is_flag=True, help=help)
    type = click.Choice(meta["choices"]) if meta["choices"] else {int: click.INT, float: click.FLOAT}.get(kind, click.STRING)
    return click.Option(names, default=None, type=type, multiple=meta["multiple"], metavar=meta["metavar"], help=help)


def _default_note(field) -> str:
    if field.metadata["required"]:
        return "  [required]"
    if field.default is None or field.default is False or field.default == ():
        return ""
    return f"  [default: {field.default}]"


def _config_options():
    return [click.Option(["--config", "config_file"], metavar="FILE", help="Read options from a TOML file; flags win."),
            click.Option(["--print-config"], is_flag=True, help="Print every option with its value and origin, and stop.")]


def resolve(config, given: dict, config_file: str | None) -> tuple[dict, dict]:
    """Values of all fields and where each came from ("flag", the file, or "default")."""
    from_file = _read_toml(config_file) if config_file else {}
    fields = options.fields(config)
    unknown = sorted(from_file.keys() - fields.keys())
    if unknown:
        raise Usage(f"unknown option {unknown[0]!r}", config_file)
    values, origins = {}, {}
    for name, field in fields.items():
        if given.get(name) not in (None, ()):
            values[name], origins[name] = given[name], "flag"
        elif name in from_file:
            values[name], origins[name] = _checked(field, from_file[name], config_file), config_file
        else:
            values[name], origins[name] = field.default, "default"
        _check_bounds(field, values[name])
    if values.get("on_error") == "fail":
        for name in ("rejects", "max_bad"):
            if values.get(name) is not None:
                raise Usage(f"{options.flag(name)} is of use only with --on-error skip")
    return values, origins


def _check_bounds(field, value):
    if value == "":
        raise Usage(f"{options.flag(field.name)} is empty")
    if isinstance(value, float) and not math.isfinite(value):
        raise Usage(f"{options.flag(field.name)} must be a finite number, not {value}")
    for words, bound in field.metadata["bounds"].items():
        if bound is not None and value is not None and not _WITHIN[words](value, bound):
            raise Usage(f"{options.flag(field.name)} must be {words} {bound}, not {value}")


def _read_toml(path: str) -> dict:
    import tomllib

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise Usage(f"no such file: {path}" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage(f"not TOML: {error}", path) from None
    out = {_field_name(name): value for name, value in table.items()}
    if len(out) < len(table):
        raise Usage("an option is given twice, with - and with _", path)
    return out


def _field_name(key: str) -> str:
    name = key.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _checked(field, value, where):
    if field.metadata["multiple"]:
        values = value if isinstance(value, list) else [value]
        return tuple(str(v) for v in values)
    kind = options.kind(field)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    choices = field.metadata["choices"]
    if type(value) is not kind or (choices and value not in choices):
        wanted = f"one of {', '.join(choices)}" if choices else kind.__name__
        raise Usage(f"{field.name} = {value!r} is not {wanted}", where)
    return value


def toml(values: dict, origins: dict) -> str:
    """The values as TOML that --config reads again, each with its origin as a comment."""
    import json

    lines = []
    for name, value in values.items():
        key = options.flag(name)[2:]
        if value is None:
            lines.append(f"# {key} =  # {origins[name]}")
        else:
            text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
            lines.append(f"{key} = {text}  # {origins[name]}")
    return "\n".join(lines) + "\n"


def funnel(command, args=None) -> int:
    """Run a command and turn whatever happens into an exit code and at most one line on stderr."""
    global _verbose
    args = list(sys.argv[1:] if args is None else args)
    _verbose = any(a in ("-v", "--verbose") for a in args)  # until the options are read
    try:
        stop.install()
        if sys.stdout is None:
            raise Usage("stdout is closed")
        _buffer_stdout()
        if f"_{command.name.upper().replace('-', '_')}_COMPLETE" in os.environ:
            command.main(args, command.name)  # shell completion, click's own
        # Not click's main(): it turns a broken pipe into exit code 1.
        with command.make_context(command.name, args) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        if _verbose and not isinstance(error, (BrokenPipeError, SystemExit, click.exceptions.Exit)):
            import traceback

            traceback.print_exc()
        return _code(command.name, error)


def _code(name: str, error: BaseException) -> int:
    """The exit code for an error, after its one line is said."""
    if isinstance(error, BrokenPipeError):
        _drop_stdout()
        stop.die("SIGPIPE")
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, errors.Stopped) and stop.requested() == "SIGINT":
        _say(name, str(error))
        stop.die("SIGINT")
    if isinstance(error, KeyboardInterrupt):
        stop.die("SIGINT")
    error = _known(error)
    _say(name, str(error))
    if isinstance(error, errors.Exhausted):
        _drop_stdout()
    return error.code


def _known(error: BaseException) -> PtError:
    import errno

    if isinstance(error, PtError):
        return error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return Usage("a command is missing; see --help")
    if isinstance(error, click.ClickException):
        return Usage(error.format_message())
    if type(error).__name__ == "SafetensorError" and (number := re.search(r"os error (\d+)", str(error))):
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, OSError) and errno.errorcode.get(error.errno) in OUT_OF_STORAGE:
        return errors.Exhausted(f"{error.strerror}", error.filename or "output")
    if isinstance(error, OSError) and errno.errorcode.get(error.errno) in WRONG_NAME and error.filename is not None:
        return Usage(f"{error.filename}: {(error.strerror or '').lower()}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return errors.Exhausted(f"out of memory: {str(error).splitlines()[0] if str(error) else 'allocation failed'}")
    return PtError(f"unexpected {type(error).__name__}: {error} (a bug; -v prints the traceback)")


def _say(name: str, text: str) -> None:
    try:
        print(f"{name}: {errors.redacted(text)}", file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        pass  # stderr is closed: the exit code still speaks


def _buffer_stdout() -> None:
    """Put a buffer before stdout where PYTHONUNBUFFERED left none: there a write may end half way and not be an error."""
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(sys.stdout.buffer), sys.stdout.encoding, sys.stdout.errors)


def _drop_stdout() -> None:
    # What is still buffered cannot be written; without this the interpreter complains once more at exit.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError:
        pass
