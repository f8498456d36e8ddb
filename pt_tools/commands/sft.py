"""pt-sft: supervised fine-tuning."""

from pt_tools import options, settable
from pt_tools.cli import command
from pt_tools.options import opt


@options.config
class Config(options.Input, options.Model, options.Template, options.Optim, options.Run, options.Common):
    max_length: int = opt(1024, "Longest row in tokens; what is over is cut from the end and counted.", least=2)
    packing: bool = opt(False, "Join rows into windows of --max-length tokens, kept apart in attention and loss; "
                               "--batch-size then counts windows.")
    from_scratch: bool = opt(False, "Draw the weights from the seed; MODEL then holds config.json and a tokenizer only.")


EXAMPLES = [
    "pt-sft chats.jsonl -m base/ -o sft/",
    "pt-sft corpus.jsonl -m blank/ -o base/ --from-scratch --lr 2e-3 --batch-size 64 --epochs 3",
    "pt-sft chats.jsonl -m base/ -o sft/ --packing --max-length 4096 --lr 5e-6 --epochs 2 --warmup 0.03",
]


@command("pt-sft", Config, reads="messages", writes="model", examples=EXAMPLES)
def main(cfg, job):
    """Fine-tune a model on conversations, prompts with completions, or text.

    Loss is taken on assistant turns (not on those with "train": false), on completions, and on the whole of `text`
    rows, each with the stop token after it; it is averaged over the trained tokens of a batch.
    """
    settable.parse("sft", cfg.set)
    options.check_optim(cfg)
    from pt_tools.trainers import sft

    sft.train(cfg, job)
