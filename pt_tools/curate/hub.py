"""Data sets of the hub, or local directories of the same form, through `datasets`."""

from pt_tools import stop
from pt_tools.errors import Usage


def rows(name: str, split: str):
    """The rows of a split, streamed; `name` may end in ":CONFIG". Nulls are left out, at every depth."""
    import datasets

    datasets.disable_progress_bars()
    path, _, config = name.partition(":")
    try:
        table = datasets.load_dataset(path, config or None, split=split, streaming=True)
    except Exception as error:  # the library raises many kinds: offline, no such name, config or split
        raise Usage(f"cannot load {name}, split {split}: {str(error).splitlines()[0]}") from error
    for row in table:
        stop.check()
        yield without_nulls(row)


def without_nulls(value):
    """Arrow gives every row all keys, null where it had none; a record has the keys that it has."""
    if isinstance(value, dict):
        return {key: without_nulls(v) for key, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value]
    return value
