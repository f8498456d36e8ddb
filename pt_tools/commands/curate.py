"""pt-curate: from data as it comes to records, and from records to the records that a stage wants."""

from pt_tools.cli import Group

FORMS, SELECT, DEDUP, CHOOSE = (f"pt_tools.commands.curate_{name}" for name in ("forms", "select", "dedup", "choose"))

main = Group("pt-curate", "Make, check, mix, split and choose records.", {
    "convert": (FORMS, "Turn data into records."),
    "validate": (FORMS, "Check records, and say where the first fault is (exit code 3)."),
    "stats": (FORMS, "Count records and measure their lengths, by source and domain."),
    "split": (SELECT, "Split records into parts that share no prompt."),
    "mix": (SELECT, "Mix files or sources in given amounts, in random order."),
    "decontaminate": (DEDUP, "Drop rows whose prompts overlap evaluation prompts."),
    "pair": (CHOOSE, "Make preference pairs of every record's scored completions."),
    "best": (CHOOSE, "Make conversations of the best completions (rejection sampling)."),
})
