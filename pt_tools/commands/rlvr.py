"""pt-rlvr: reinforcement learning from verifiable rewards."""

from pt_tools import options, settable
from pt_tools.cli import command
from pt_tools.errors import Usage
from pt_tools.options import opt

EXAMPLES = [
    "pt-rlvr prompts.jsonl -m dpo/ -o rlvr/",
    "pt-rlvr prompts.jsonl -m dpo/ -o rlvr/ --group-size 16 --batch-size 512 --clip-high 0.28 --loss-aggregation token",
    "pt-rlvr prompts.jsonl -m base/ -o zero/ --kl 0.001 --updates-per-rollout 16 --loss-aggregation sequence",
]


@options.config
class Config(options.Verifying, options.Input, options.Model, options.Optim, options.Sampling, options.Run, options.Common):
    group_size: int = opt(8, "Completions per prompt.", least=1)
    batch_size: int = opt(256, "Completions per optimizer step, over all devices.", least=1, most=2**31 - 1)
    micro_batch_size: int = opt(0, "Completions per forward pass of the update; 0 is as many as fit.", least=0)
    updates_per_rollout: int = opt(1, "Optimizer steps (minibatches) per rollout of that many times --batch-size.", least=1)
    sample_batch_size: int = opt(512, "Completions in flight while sampling.", least=1)
    advantage: str = opt("grpo", "grpo: reward less group mean, over the group's standard deviation; mean: without the "
                         "division (Dr. GRPO); rloo: reward less the mean of the others.", choices=("grpo", "mean", "rloo"))
    loss_aggregation: str = opt("token", "Mean over the tokens of a step (DAPO); over completions of their token means "
                                "(GRPO, sequence); sum over completions times --max-new-tokens (Dr. GRPO, constant).",
                                choices=("token", "sequence", "constant"))
    clip_low: float = opt(0.2, "The probability ratio counts down to 1 less this.", least=0)
    clip_high: float = opt(0.2, "The probability ratio counts up to 1 plus this.", least=0, most=10**6)
    kl: float = opt(0.0, "Weight of the KL to the reference in the loss.", least=0)
    kl_estimator: str = opt("k3", "k3 as in GRPO, k2, or unbiased: k3 times the probability ratio (DeepSeek-V3.2).",
                            choices=("k2", "k3", "unbiased"))
    reference: str | None = opt(None, "Reference model of --kl [default: MODEL as it starts].", metavar="MODEL", input=True)
    jobs: int = opt(1, "Processes that verify at once; 0 is one a core.", short="-j", least=0, result=False)
    lr: float = opt(1e-6, "Peak learning rate.", least=0)
    schedule: str = opt("constant", "Learning rate after the warm-up.", choices=("linear", "cosine", "constant"))


@command("pt-rlvr", Config, reads="prompts with verifiers", writes="model", examples=EXAMPLES)
def main(cfg, job):
    """Train a model on its own completions, graded by the verifiers of the records (the GRPO family).

    A completion whose grader fails is masked out of the loss and counted. Without --kl, groups whose rewards are all
    equal are left out of a step and of its normaliser. --epochs counts passes over the prompts.
    """
    settable.parse("onpolicy", cfg.set)
    options.check_optim(cfg)
    _check(cfg)
    from pt_tools.trainers import rlvr

    rlvr.train(cfg, job)


def _check(cfg):
    if cfg.temperature <= 0:
        raise Usage("--temperature must be above 0: a greedy group is the same completion over and over")
    if cfg.group_size < 2:
        raise Usage("--group-size must be at least 2: an advantage is relative to the group")
    if cfg.batch_size % cfg.group_size:
        raise Usage(f"--batch-size {cfg.batch_size} is not a multiple of --group-size {cfg.group_size}")
    if not cfg.kl:
        options.refuse_unused(cfg, ("reference", "kl_estimator"), "is of use only with --kl")
