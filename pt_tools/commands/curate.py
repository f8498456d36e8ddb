"""pt-curate: from data as it comes to records, and from records to the records that a stage wants."""

from pt_tools.cli import Group
from pt_tools.commands.curate_choose import best, pair
from pt_tools.commands.curate_dedup import decontaminate
from pt_tools.commands.curate_forms import convert, stats, validate
from pt_tools.commands.curate_select import mix, split

main = Group("pt-curate", "Make, check, mix, split and choose records.")
for verb in (convert, validate, stats, split, mix, decontaminate, pair, best):
    main.add(verb)
