"""One model beside a base, entry by entry: interpolation, bounded steps, and copying."""

from __future__ import annotations

import math

import numpy as np

from pt_tools.merge.method import Method


class WiseFt(Method):
    """(1−η) b + η x: WiSE-FT, and LITI of WARP. η outside [0, 1] extrapolates."""

    name = "wise_ft"
    base = "required"
    models = (1, 1)
    shared = {"eta": ...}

    def check(self, parameters):
        if not math.isfinite(parameters.shared["eta"]):
            raise ValueError(f"eta: {parameters.shared['eta']} is not finite")

    def apply(self, block, parameters, stats):
        eta = parameters.shared["eta"]
        np.multiply(block.models[0], np.float32(eta), out=block.out)
        block.out += block.base * np.float32(1 - eta)


class Nearswap(Method):
    """k x + (1−k) b with k = min(1, t/|x−b|): the model where it is within t of the base, else t towards it.

    Written as the value of [b−t, b+t] nearest to x, which is the same and needs no division.
    """

    name = "nearswap"
    base = "required"
    models = (1, 1)
    shared = {"t": ...}

    def check(self, parameters):
        if not 0 <= parameters.shared["t"] < math.inf:
            raise ValueError(f"t: {parameters.shared['t']} is not in [0, ∞)")

    def apply(self, block, parameters, stats):
        t = np.float32(parameters.shared["t"])
        np.maximum(block.models[0], block.base - t, out=block.out)
        np.minimum(block.out, block.base + t, out=block.out)


class Passthrough(Method):
    """`scale` times the model; for frankenmerges, whose work is in choosing the tensors."""

    name = "passthrough"
    models = (1, 1)
    own = {"scale": 1.0}

    def check(self, parameters):
        if not math.isfinite(parameters.own[0]["scale"]):
            raise ValueError(f"scale: {parameters.own[0]['scale']} is not finite")

    def verbatim(self, parameters):
        return parameters.own[0]["scale"] == 1

    def apply(self, block, parameters, stats):
        np.multiply(block.models[0], np.float32(parameters.own[0]["scale"]), out=block.out)
