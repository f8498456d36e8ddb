"""Log-probs of completions under a reference model, computed once, block by block, so that a stop loses little."""

import safetensors
import safetensors.torch
import torch

from pt_tools import models, outdir, stop
from pt_tools.errors import BadModel
from pt_tools.trainers import head

BLOCK = 256


def load(path, tokenizer, policy):
    """The reference model of a directory; BadModel if it does not know the policy's tokens."""
    if models.tokenizer_hash(models.load_tokenizer(path)) != models.tokenizer_hash(tokenizer):
        raise BadModel("the reference has another tokenizer than the model", where=path)
    model = models.load_model(path, policy.device)
    models.check_ids(model, [[min(len(tokenizer), policy.get_input_embeddings().num_embeddings) - 1]], path)
    return model


def logps(model, dtype, rows, collate, directory, micro_batch_size, lengths, say):
    """(rows, 2) float32: log-probs of the chosen and the rejected completion, summed over their tokens.

    `collate(rows)` gives (2P, T) inputs and labels, chosen first. Blocks already in `directory` are taken from there.
    Raises Stopped between two batches.
    """
    directory.mkdir(parents=True, exist_ok=True)
    blocks, training = [], model.training
    model.eval()
    head.prepare(model)
    for start in range(0, len(rows), BLOCK):
        path, indices = directory / f"{start:09d}.safetensors", range(start, min(start + BLOCK, len(rows)))
        block = _read(path, len(indices))
        if block is None:
            with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
                block = _block(model, rows, indices, collate, micro_batch_size, lengths)
            outdir.write_atomic(path, safetensors.torch.save({"logps": block}))
            say(f"reference log-probs: {indices[-1] + 1} of {len(rows)} pairs")
        blocks.append(block)
    model.train(training)
    return torch.cat(blocks)


def _read(path, size):
    """A block of an earlier start; None where there is none, or it is damaged."""
    try:
        block = safetensors.torch.load_file(str(path)).get("logps")
    except (OSError, safetensors.SafetensorError):
        return None
    whole = block is not None and block.shape == (size, 2) and block.dtype == torch.float32
    return block if whole and bool(block.isfinite().all()) else None


@torch.no_grad()
def _block(model, rows, indices, collate, micro_batch_size, lengths):
    out = torch.empty(len(indices), 2)
    order = sorted(indices, key=lambda i: lengths[i])
    for at in range(0, len(order), micro_batch_size):
        stop.check()
        batch = order[at:at + micro_batch_size]
        inputs = {k: v.to(model.device) for k, v in collate([rows[i] for i in batch]).items()}
        sums = sequence_logps(model, inputs["input_ids"], inputs["labels"])[0]
        out[torch.tensor(batch) - indices[0]] = sums.view(2, -1).T.float().cpu()
    return out


def sequence_logps(model, input_ids, labels):
    """(sums (B,), numbers of labelled tokens (B,)) of the log-probs of the labelled tokens."""
    flat, mask = head.token_logps(model, {"input_ids": input_ids}, labels)
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat).sum(1), mask.sum(1)
