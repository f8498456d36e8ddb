"""One class per exit code; the docstring is the line that the man pages print for that code."""

import re


SECRET = re.compile(
    r"hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}|xox[abprs]-[\w-]{8,}"
    r"|AKIA[A-Z0-9]{12,}|AIza[\w-]{20,}|(?<=Bearer )\S{8,}|(?<=://)[^/\s]+(?=@)"
    r"|(?i:(?<=token=)|(?<=key=)|(?<=secret=)|(?<=password=))[^&\s]{6,}")


def redacted(text: str) -> str:
    """The text without what looks like a secret."""
    return SECRET.sub("[redacted]", text)


def printable(text: str) -> str:
    """One line without control characters: names and words of the data must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class PtError(Exception):
    """unexpected failure (a bug); run again with -v for the traceback"""

    code = 1

    def __init__(self, message: str, where: str | None = None):
        super().__init__(message)
        self.where = where

    def __str__(self) -> str:
        message = " ".join(str(self.args[0]).split())
        return printable(f"{self.where}: {message}" if self.where else message)


class Usage(PtError):
    """wrong use: unknown, missing or unused option, or an input that does not exist"""

    code = 2


class BadData(PtError):
    """bad data: a row that cannot be read or used, named by file and line"""

    code = 3


class BadModel(PtError):
    """bad or unsafe model directory or checkpoint"""

    code = 4


class Diverged(PtError):
    """diverged: a non-finite number in a loss, a gradient or a tensor; nothing was saved after it"""

    code = 5


class Locked(PtError):
    """another process is writing this output"""

    code = 6


class Exhausted(PtError):
    """out of storage or memory"""

    code = 7


class NoSandbox(PtError):
    """no sandbox to run model-written code in"""

    code = 8


class Stopped(PtError):
    """stopped on request (TERM, USR1, USR2), state saved: run the same line again"""

    code = 75


def table() -> list[tuple[int, str]]:
    """Exit codes and their meaning, in order, for help and man pages."""
    classes = [PtError, *PtError.__subclasses__()]
    return [(0, "finished")] + sorted((cls.code, cls.__doc__) for cls in classes)
