"""Rows of tables: CSV and TSV (`csv`), Parquet and Arrow files (`pyarrow`), data sets of the hub (`datasets`).

What a table cannot leave out is left out here, at every depth: nulls and NaN.
"""

import csv
import datetime
import decimal

from pt_tools.curate import turns
from pt_tools.errors import BadData, Usage

TEXT, BINARY = (".csv", ".tsv"), (".parquet", ".arrow")
PACKED = (".gz", ".zst")
BATCH = 1024  # rows held at once
_MAX_CELL = 2**28
_NUMBERS, _BOOLEANS = ("weight", "margin", "reward"), ("safety", "label")


class BadRow(ValueError):
    """Why a row cannot be had, and what there is of it."""

    def __init__(self, reason, raw):
        super().__init__(reason)
        self.raw = raw


def is_table(path: str) -> bool:
    """Whether the name of a file is that of a table."""
    name = path.lower()
    return name.removesuffix(".gz").removesuffix(".zst").endswith(TEXT) or name.endswith(BINARY)


def rows(path: str, file):
    """(number, row) of an open table; of a CSV file the line where the row begins, else the rows from 1.

    A row that cannot be had is a BadRow. BadData for a file that cannot be read on.
    """
    name = path.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith(TEXT):
        yield from _lines(path, file, "\t" if name.endswith(".tsv") else ",")
    else:
        for number, row in enumerate(_batches(path, file), 1):
            yield number, _plain_row(row)


# --- CSV ----------------------------------------------------------------------------------------------------------


def _lines(path, file, delimiter):
    csv.field_size_limit(_MAX_CELL)
    lines = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(file))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    before = 0
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise BadData("a column occurs twice", f"{path}:1")
        before = reader.line_num
        for cells in reader:
            if cells:
                yield before + 1, _row(header, cells)
            before = reader.line_num
    except csv.Error as error:
        raise BadData(f"not CSV ({error})", f"{path}:{before + 1}") from None
    except UnicodeDecodeError:
        raise BadData("not UTF-8", f"{path}:{before + 1}") from None
    except (EOFError, OSError) as error:
        raise BadData(f"cannot be read: {error}", f"{path}:{before + 1}") from None


def _row(header, cells):
    if len(cells) != len(header):
        return BadRow(f"{len(cells)} cells, where the header has {len(header)}", ",".join(cells))
    try:
        return {key: _cell(key, cell) for key, cell in zip(header, cells)}
    except ValueError as reason:
        return BadRow(str(reason), ",".join(cells))


def _cell(key, text):
    """A cell is text; a list or an object is JSON, and a few columns have a type."""
    if key in _NUMBERS:
        return turns.number(text, key)
    if key in _BOOLEANS:
        return turns.boolean(text)
    if text[:1] in ("[", "{"):
        import orjson

        try:
            return orjson.loads(text)
        except ValueError:
            return text
    return text


# --- Parquet, Arrow, the hub --------------------------------------------------------------------------------------


def _batches(path, file):
    import pyarrow

    try:
        if path.lower().endswith(".parquet"):
            import pyarrow.parquet

            batches = pyarrow.parquet.ParquetFile(file).iter_batches(BATCH)
        else:
            batches = _arrow(pyarrow, file)
        for batch in batches:
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadData(f"cannot be read: {str(error).splitlines()[0]}", path) from None


def _arrow(pyarrow, file):
    """The batches of an Arrow stream (what `datasets` writes) or an Arrow file."""
    start = file.read(6)
    file.seek(0)
    if start == b"ARROW1":
        reader = pyarrow.ipc.open_file(file)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return pyarrow.ipc.open_stream(file)


def hub(name: str, split: str):
    """(number, row) of a data set's split, streamed; `name` may end in ":CONFIG", and may be a local directory.

    Usage: there is no such data set, configuration or split, or it cannot be reached. BadData: it cannot be read on.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        found = _load(datasets, name, split)
    except Exception as error:  # the library raises many kinds: offline, no such name, config or split
        raise Usage(f"cannot load {name}, split {split}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    numbered = enumerate(found, 1)
    while True:
        try:
            number, row = next(numbered)
        except StopIteration:
            return
        except Exception as error:
            raise BadData(f"cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}", name) from error
        yield number, _plain_row(row)


def _load(datasets, name, split):
    import os

    if os.path.isfile(os.path.join(name, "dataset_dict.json")):
        return datasets.load_from_disk(name)[split]
    if os.path.isfile(os.path.join(name, "state.json")):  # one split, saved by itself
        found = datasets.load_from_disk(name)
        if found.split is not None and str(found.split) != split:
            raise LookupError(f"it holds the split {found.split}")
        return found
    path, _, config = name.partition(":")
    return datasets.load_dataset(path, config or None, split=split, streaming=True)


def _plain_row(row):
    try:
        return {key: _plain(value, key) for key, value in row.items() if _is_there(value)}
    except ValueError as reason:
        return BadRow(str(reason), str(row)[:1000])


def _is_there(value):
    return value is not None and not (isinstance(value, float) and value != value)


def _plain(value, where):
    """A value of JSON; Arrow gives every row all keys, null where it had none."""
    if type(value) in (str, int, bool, float):
        return value
    if isinstance(value, dict):
        return {key: _plain(v, where) for key, v in value.items() if _is_there(v)}
    if isinstance(value, list):
        return [_plain(v, where) for v in value]
    if value is None or isinstance(value, (datetime.date, datetime.time)):
        return value and value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise ValueError(f"{where} holds {type(value).__name__}, which is no JSON")
