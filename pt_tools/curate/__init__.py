"""Curation: pure functions over records. They do no input or output; `commands/curate.py` does."""
