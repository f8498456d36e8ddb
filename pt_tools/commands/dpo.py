"""pt-dpo: learning from preference pairs."""

from pt_tools import options, settable
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt

LOSSES = ("sigmoid", "sigmoid_norm", "ipo", "simpo")


@options.config
class Config(options.Input, options.Model, options.Optim, options.Run, options.Common):
    loss: str = opt("sigmoid", "sigmoid: DPO; sigmoid_norm: DPO on per-token means (Tulu 3); ipo; simpo: without a "
                               "reference.", choices=LOSSES)
    beta: float | None = opt(None, "Strength of the pull to the reference [default: 0.1; sigmoid_norm 5, simpo 2].")
    gamma: float | None = opt(None, "Target margin of simpo [default: 1].")
    sft_weight: float = opt(0.0, "Weight of the cross-entropy of the chosen completions, added to the loss.", least=0)
    reference: str | None = opt(None, "Reference model [default: MODEL as it starts].", metavar="MODEL", input=True)
    max_length: int = opt(1024, "Longest prompt + completion in tokens; what is over is cut from the end and counted.",
                          least=2)
    lr: float = opt(5e-7, "Peak learning rate.", least=0)


EXAMPLES = [
    "pt-dpo pairs.jsonl -m sft/ -o dpo/",
    "pt-dpo pairs.jsonl -m sft/ -o dpo/ --loss sigmoid_norm --beta 5 --batch-size 128 --warmup 0.1",
    "pt-dpo pairs.jsonl -m sft/ -o simpo/ --loss simpo --beta 2 --gamma 1",
]


@command("pt-dpo", Config, reads="pairs", writes="model", examples=EXAMPLES)
def main(cfg, job):
    """Train a policy on pairs of a chosen and a rejected completion (the DPO family).

    The reference's log-probs are computed once, before training. A batch counts pairs.
    """
    settable.parse("dpo", cfg.set)
    options.check_optim(cfg)
    if cfg.gamma is not None and cfg.loss != "simpo":
        raise Usage(f"--gamma is of use only with --loss simpo, not {cfg.loss}")
    if cfg.reference is not None and cfg.loss == "simpo":
        raise Usage("--reference is of no use with --loss simpo, which has no reference")
    if cfg.beta is not None and cfg.beta <= 0:
        raise Usage("--beta must be positive")
    from pt_tools.trainers import preference

    preference.train(cfg, job)
