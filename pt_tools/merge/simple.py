"""Sums: copies, linear merges (soups) and task arithmetic."""

from __future__ import annotations

import math

import numpy as np

from pt_tools.merge.method import Block, Method, Parameters

PART = 1 << 15  # entries at a time where temporaries are made: they stay in the cache


class Copy(Method):
    """One model's tensor as it is; the engine copies the bytes where the format does not change."""

    name = "copy"
    models = (1, 1)

    def verbatim(self, parameters: Parameters) -> bool:
        return True

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        np.copyto(block.out, block.models[0])


def add_weighted(arrays, weights, out: np.ndarray, work: np.ndarray) -> None:
    """out = Σ w_i x_i in fp32: each product rounded, summed in order from +0, so that no sum is -0."""
    for index, (weight, array) in enumerate(zip(weights, arrays)):
        into = work if index else out
        np.multiply(array, np.float32(weight), out=into)
        if index:
            np.add(out, work, out=out)
    np.add(out, np.float32(0), out=out)


def add_fused(arrays, weights, out: np.ndarray, work: np.ndarray) -> None:
    """out = Σ w_i x_i in fp32, one rounding for each product and sum (fused multiply-add), in order from +0.

    An fp64 product of fp32 numbers is exact; its fp64 sum is rounded twice, which shows once in 2²⁹ entries or less.
    Products with powers of two are exact in fp32 too, and need no detour.
    """
    np.multiply(arrays[0], np.float32(weights[0]), out=out)
    np.add(out, np.float32(0), out=out)
    for weight, array in zip(weights[1:], arrays[1:]):
        if abs(math.frexp(np.float32(weight))[0]) in (0, 0.5):
            np.multiply(array, np.float32(weight), out=work)
            np.add(out, work, out=out)
            continue
        for start in range(0, len(out), PART):
            part = slice(start, start + PART)
            wide = array[part].astype(np.float64)
            wide *= np.float64(np.float32(weight))
            wide += out[part].astype(np.float64)
            out[part] = wide


def fp32_sum(weights) -> np.float32:
    """Σ w_i rounded after every addition."""
    total = np.float32(0)
    with np.errstate(over="ignore"):
        for weight in weights:
            total += np.float32(weight)
    return total


def check_sum(parameters: Parameters) -> None:
    """ValueError if sums are to be divided by a Σ w_i that is infinite, which would make all of them 0."""
    if parameters.shared["normalize"] and not np.isfinite(fp32_sum(parameters.weights())):
        raise ValueError("the weights sum to more than float32 holds, so they cannot be normalised")


class Linear(Method):
    """Σ w_i x_i, divided by Σ w_i if `normalize`.

    With equal weights it is a model soup (arXiv:2203.05482) and, of reward models from one start, WARM
    (arXiv:2401.12187); soup, uniform_soup and warm are other names for it. A wider sum than fp32's is rounded after every
    product and addition, as one fused operation.
    """

    name = "linear"
    own = {"weight": 1.0}
    shared = {"normalize": True}
    buffers = 1
    spreads_nonfinite = True

    def check(self, parameters: Parameters) -> None:
        if parameters.shared["normalize"] and not fp32_sum(parameters.weights()):
            raise ValueError("the weights sum to 0, so they cannot be normalised")
        check_sum(parameters)

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        weights = parameters.weights()
        add_fused(block.models, weights, block.out, block.scratch[0])
        total = fp32_sum(weights) if parameters.shared["normalize"] else np.float32(1)
        if total != 1:
            np.divide(block.out, total, out=block.out)


class TaskArithmetic(Method):
    """b + λ Σ w_i (x_i - b), the sum divided by Σ w_i if `normalize` (arXiv:2212.04089).

    λ > 1 extrapolates. Two models with weights of 1 are a model and a chat vector: x + (chat - b).
    """

    name = "task_arithmetic"
    base = "required"
    own = {"weight": 1.0}
    shared = {"lambda": 1.0, "normalize": False}
    buffers = 1
    spreads_nonfinite = True

    def check(self, parameters: Parameters) -> None:
        check_sum(parameters)

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        for model in block.models:
            np.subtract(model, block.base, out=model)
        weights = parameters.weights()
        add_weighted(block.models, weights, block.out, block.scratch[0])
        total = fp32_sum(weights) if parameters.shared["normalize"] else np.float32(1)
        if total != 1 and abs(total) >= 1e-8:
            np.divide(block.out, total, out=block.out)
        if parameters.shared["lambda"] != 1:
            np.multiply(block.out, np.float32(parameters.shared["lambda"]), out=block.out)
        np.add(block.base, block.out, out=block.out)
