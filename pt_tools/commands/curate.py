"""pt-curate: from data as it comes to records, and from records to the records that a stage wants."""

import gc
import os

gc.set_threshold(100_000)  # rows are trees: to look for cycles among them for every few hundred objects finds none

from pt_tools.cli import Group  # noqa: E402 (what is loaded has no cycles to look for either)

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts threads for linear algebra, of which there is none here

FORMS, FILTER, SELECT, DEDUP, DECONTAMINATE, CHOOSE, MAKE = (f"pt_tools.commands.curate_{name}" for name in (
    "forms", "filter", "select", "dedup", "decontaminate", "choose", "make"))

main = Group("pt-curate", "Make, check, mix, split and choose records.", {
    "convert": (FORMS, "Turn data into records."),
    "validate": (FORMS, "Check records, and say where the first fault is (exit code 3)."),
    "stats": (FORMS, "Count records and measure their lengths, by source and domain."),
    "diff": (FILTER, "Compare two files of records by id."),
    "filter": (FILTER, "Keep the records that an expression, rules or lists of ids leave."),
    "tag": (FILTER, "Write labels into records: domain, safety, source, weight, or a key of your own."),
    "split": (SELECT, "Split records into parts that share no prompt."),
    "mix": (SELECT, "Mix files or sources in given amounts, in random order."),
    "dedup": (DEDUP, "Drop copies of rows, in one file or several."),
    "sketch": (DEDUP, "Sketch a shard: the first of two steps of near-dedup, for shards that are worked on at once or anywhere."),
    "cluster": (DEDUP, "Say which rows of sketched shards are copies: the second step of near-dedup."),
    "decontaminate": (DECONTAMINATE, "Drop rows whose prompts overlap evaluation prompts."),
    "pair": (CHOOSE, "Make preference pairs of every record's scored completions."),
    "best": (CHOOSE, "Make conversations of the best completions (rejection sampling)."),
    "gatt": (MAKE, "Make Ghost Attention data of dialogues (Llama 2)."),
    "synth": (MAKE, "Make requests for pt-sample of personas, templates and seed prompts."),
})
