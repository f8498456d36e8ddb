"""Post-training of language models as Unix tools."""

__version__ = "0.2.0"
