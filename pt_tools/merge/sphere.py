"""SLERP on whole flattened tensors: one pass for the angle, then a weighted sum."""

from __future__ import annotations

import math

import numpy as np

from pt_tools.merge.method import Block, Method, Parameters
from pt_tools.merge.numbers import dot
from pt_tools.merge.simple import add_weighted

PARALLEL = 0.9995  # |cosine| above which the arc is taken for a line


def coefficients(products: np.ndarray, t: float) -> tuple[float, float]:
    """Factors of a and b at t on the arc, from <a,a>, <a,b>, <b,b>: sin((1-t)O)/sin O and sin(tO)/sin O.

    They act on the vectors themselves, not on unit vectors. Nearly parallel or opposite vectors, or a zero one: 1-t, t.
    """
    norm = math.sqrt(products[0] * products[2])
    cosine = min(1.0, max(-1.0, products[1] / norm)) if norm else 1.0
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


class Slerp(Method):
    """sin((1-t)O)/sin O · a + sin(tO)/sin O · b, O the angle of the flattened tensors; a line where |cos O| > 0.9995.

    `a` and `b` are the two models in their order.
    """

    name = "slerp"
    models = (2, 2)
    shared = {"t": 0.5}
    passes = 1
    buffers = 1

    def observe(self, number: int, block: Block, parameters: Parameters, stats: list) -> np.ndarray:
        (a, b), work = block.models, block.scratch[0]
        return np.array([dot(a, a, work), dot(a, b, work), dot(b, b, work)])

    def fold(self, number: int, state, partial: np.ndarray) -> np.ndarray:
        return partial if state is None else state + partial

    def apply(self, block: Block, parameters: Parameters, stats: list) -> None:
        add_weighted(block.models, coefficients(stats[0], parameters.shared["t"]), block.out, block.scratch[0])
