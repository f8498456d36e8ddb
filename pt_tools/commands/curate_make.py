"""pt-curate gatt, synth: records that a model is to answer, and dialogues made of its answers."""

from pt_tools import options, record
from pt_tools.cli import command
from pt_tools.errors import BadData, Usage
from pt_tools.options import REQUIRED, opt

SEED = "Seed of everything random."


@options.config
class Gatt(options.Input, options.Output, options.Parallel, options.Common):
    step: str = opt("start", "start: dialogues into prompts; next: answered prompts into prompts of the next turn; train: "
                    "answered dialogues into training records.", choices=("start", "next", "train"))
    instructions: str | None = opt(None, 'Lists of instructions, one a line: {"name": "Figure", "instruction": "Always act '
                                   'as {value}.", "values": ["Napoleon", …]}.', metavar="FILE", input=True)
    lists: int = opt(3, "Combine the values of at most so many lists in one instruction.", least=1)
    short: float = opt(0.5, 'Share of the dialogues that are trained with a short form, as "Figure: Napoleon".', least=0,
                       most=1)
    turn_by_turn: bool = opt(False, "Leave out the answers that the dialogues have, and sample them all, with --step next "
                             "between.")
    seed: int = opt(0, SEED, least=0)


GATT = ["pt-curate gatt chats.jsonl --instructions lists.jsonl -o asked.jsonl",
        "pt-curate gatt --step train answered.jsonl -o gatt.jsonl",
        "pt-curate gatt chats.jsonl --instructions lists.jsonl --turn-by-turn -o turn1.jsonl",
        "pt-curate gatt --step next answered.jsonl -o turn2.jsonl"]


@command("pt-curate gatt", Gatt, reads="messages", writes="records", examples=GATT)
def gatt(cfg, job):
    """Make Ghost Attention data of dialogues (Llama 2).

    --step start puts an instruction in front of every user turn, and leaves the last answer to pt-sample; --step train
    makes of its answers records with the instruction in the first turn only, and a loss on the last answer only. With
    --turn-by-turn the answers before it are sampled too: after each pt-sample, --step train takes the dialogues that are
    answered to their end, and --step next makes the prompts of the others' next turn, until there are none. Of several
    completions the one with the highest reward counts.
    """
    from pt_tools import blocks

    started = cfg.step == "start"
    if not started:
        options.refuse_unused(cfg, ("instructions", "lists", "short", "turn_by_turn", "seed"),
                              "is of use only with --step start")
    elif not cfg.instructions:
        raise Usage("--step start needs --instructions")
    settings = (cfg.seed, cfg.lists, cfg.short, cfg.turn_by_turn) if started else ()
    blocks.run(job, _ghosts, cfg.step, _lists(cfg.instructions) if started else None, settings, jobs=cfg.jobs)


def _lists(path):
    from pt_tools import stream
    from pt_tools.curate.ghost import Lists

    try:
        return Lists(list(stream.Reader([path], arrays=True)))
    except ValueError as error:
        raise BadData(str(error), path) from None


def _ghosts(records, out, step, lists, settings):
    from pt_tools.curate import ghost

    for rec in record.checked(records):
        record.ensure_id(rec)
        try:
            made, why = ((ghost.start(rec, lists, *settings), None) if step == "start" else
                         ghost.following(rec) if step == "next" else ghost.trained(rec))
        except ValueError as reason:
            records.reject(str(reason), rec)
            continue
        if made is None:
            records.rows.add("dropped", 1, why)
        else:
            out.write(made)


@options.config
class Synth(options.Input, options.Output, options.Common):
    template: tuple = opt(REQUIRED, "Jinja file of a request: {{ persona }}, or any key of the persona's row, and "
                          "{{ seed }}.", metavar="FILE", multiple=True, input=True, named=True)
    seeds: tuple = opt((), "Seed prompts for {{ seed }}, in any form that convert knows.", metavar="FILE", multiple=True,
                       input=True)
    count: int | None = opt(None, "Draw so many of all combinations; without it all are made.", least=1)
    done: tuple = opt((), "Leave out requests that are answered in this file.", metavar="FILE", multiple=True, input=True)
    dry_run: bool = opt(False, "Say how many requests there would be, and make none.", result=False)
    seed: int = opt(0, SEED, least=0)


SYNTH = ["pt-curate synth personas.jsonl --template math.jinja --count 100 -o requests.jsonl",
         "pt-curate synth personas.jsonl --template math.jinja --template similar.jinja --seeds prompts.jsonl --dry-run",
         "pt-curate synth personas.jsonl --template math.jinja --done scored.jsonl -o rest.jsonl",
         "pt-curate synth scored.jsonl --template answer.jinja -o prompts.jsonl"]


@command("pt-curate synth", Synth, reads="personas", writes="records", examples=SYNTH)
def synth(cfg, job):
    """Make requests for pt-sample of personas, templates and seed prompts.

    Reads rows with a persona ({"persona": "a baker who …"}, or whatever keys the templates name) and renders every
    template for every row, and for every seed prompt if it has {{ seed }}, in a sandbox. The id of a request is a hash
    of what it is made of, so that --done finds what is answered already, and a larger --count adds to a smaller one; `synth`
    says what it is made of. What a model answered can be a prompt in its turn: give its file instead of personas, with a
    template such as {{ completions[0].text }}. Rows are read twice, see pt-curate mix; seed prompts, the numbers of drawn
    combinations and hashes of answered ids are held in memory.
    """
    from pt_tools import readback, synthesis

    if cfg.dry_run and cfg.out:
        raise Usage("--dry-run makes nothing to write; leave out --out")
    templates, seeds = _templates(cfg), _seeds(cfg)
    with readback.opened(job) as files:
        synthesis.run(job, files, templates, seeds, cfg)


def _templates(cfg):
    from pt_tools.curate.synth import Template

    try:
        templates = [Template(path) for path in cfg.template]
    except ValueError as error:
        raise Usage(f"--template: {error}") from None
    impersonal = [template.name for template in templates if not template.personal]
    if impersonal:
        raise Usage(f"--template: {impersonal[0]} has nothing of the persona's row; every request would be the same")
    if bool(cfg.seeds) != any(template.seeded for template in templates):
        raise Usage("--seeds: no template has {{ seed }}" if cfg.seeds else "a template has {{ seed }}; give --seeds")
    if len({template.digest for template in templates}) < len(templates):
        raise Usage("--template: one is given twice")
    return templates


def _seeds(cfg):
    """The records of --seeds, without repetitions."""
    from pt_tools import stream
    from pt_tools.curate import synth

    reader, seeds = stream.Reader(cfg.seeds, arrays=True), {}
    for row in reader:
        try:
            rec = record.convert(row)
        except ValueError as reason:
            raise BadData(str(reason), reader.where) from None
        seeds.setdefault(synth.digest(record.ensure_id(rec)), rec)
    if cfg.seeds and not seeds:
        raise BadData("no seed prompts", cfg.seeds[0])
    return list(seeds.values())
