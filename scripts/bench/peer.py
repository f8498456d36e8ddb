"""The peers' side of a benchmark: `peer.py PART WORK` prints the seconds of one unit. TRL is called as its users do."""

import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import world  # noqa: E402

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

PLAIN = dict(bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none",
             disable_tqdm=True)


def load(work):
    return AutoModelForCausalLM.from_pretrained(work / "base"), AutoTokenizer.from_pretrained(work / "base")


def data(part, *columns):
    return Dataset.from_list([{name: row[name] for name in columns} for row in world.rows(part)])


def timed(run, units):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / units


def bench_sft(work):
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load(work)
    args = SFTConfig(str(work / "trl"), per_device_train_batch_size=world.SFT["batch_size"],
                     max_steps=world.SFT["max_steps"], learning_rate=1e-4, **PLAIN)
    trainer = SFTTrainer(model, args, train_dataset=data("sft", "prompt", "completion"), processing_class=tokenizer)
    return timed(trainer.train, world.SFT["max_steps"])


def bench_dpo(work):
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = load(work)
    args = DPOConfig(str(work / "trl"), per_device_train_batch_size=world.DPO["batch_size"],
                     max_steps=world.DPO["max_steps"], learning_rate=1e-5, **PLAIN)
    rows = data("dpo", "prompt", "chosen", "rejected")
    trainer = DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)
    return timed(trainer.train, world.DPO["max_steps"])


def bench_rlvr(work):
    from trl import GRPOConfig, GRPOTrainer

    from pt_tools import rewards

    def reward(completions, **_):
        record = {"verifier": world.verifier()}
        return [rewards.verify(record, text).reward for text in completions]

    model, tokenizer = load(work)
    args = GRPOConfig(str(work / "trl"), per_device_train_batch_size=world.RLVR["batch_size"],
                      num_generations=world.RLVR["group_size"], max_completion_length=world.LONGEST,
                      max_steps=world.RLVR["max_steps"], learning_rate=1e-5, **PLAIN)
    trainer = GRPOTrainer(model, reward, args, train_dataset=data("rlvr", "prompt"), processing_class=tokenizer)
    return timed(trainer.train, world.RLVR["max_steps"])


def bench_sample(work):
    model, tokenizer = load(work)
    model.eval()
    tokenizer.padding_side = "left"
    texts = [row["prompt"] for row in world.rows("rlvr", world.SAMPLE["prompts"])]
    batches = [texts[i : i + world.SAMPLE["batch_size"] // world.SAMPLE["samples"]]
               for i in range(0, len(texts), world.SAMPLE["batch_size"] // world.SAMPLE["samples"])]
    made = []

    def run():
        torch.manual_seed(0)
        for batch in batches:
            inputs = tokenizer(batch, return_tensors="pt", padding=True, return_token_type_ids=False)
            out = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=world.LONGEST,
                                 num_return_sequences=world.SAMPLE["samples"])
            made.append(out[:, inputs["input_ids"].shape[1] :])

    seconds = timed(run, 1)
    # A row is done at its first end-of-text token, which counts; what follows is padding.
    count = sum(int(((rows == 1).cumsum(1) - (rows == 1).long() == 0).sum()) for rows in made)
    return seconds / count * 1000


if __name__ == "__main__":
    part, work = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print({"sft": bench_sft, "dpo": bench_dpo, "rlvr": bench_rlvr, "sample": bench_sample}[part](work))
