"""Methods whose result lies in the span of the models (or of their differences from the base).

All lengths and angles among N vectors are in their Gram matrix, so one pass collects the N² scalar products in double
precision, the method is a formula on that small matrix, and the result is one weighted sum. The vectors are whole
tensors, or rows or columns of them where a method offers that. An N×N matrix per row costs nothing: rows are
computed as they pass by.
"""

from __future__ import annotations

import numpy as np

from pt_tools.merge.method import Block, Method, Parameters

PART = 16384  # entries worked on at a time: temporaries stay in the cache
PARALLEL = 1e-4  # sine of the angle below which two vectors count as parallel or antipodal: interpolate linearly


def parts(length: int) -> list[slice]:
    """The slices of at most PART entries that make up a block."""
    return [slice(start, start + PART) for start in range(0, length, PART)]


def differences(block: Block, part: slice) -> list[np.ndarray]:
    """x_i − b of one part, or x_i where there is no base."""
    if block.base is None:
        return [model[part] for model in block.models]
    return [model[part] - block.base[part] for model in block.models]


def product(a: np.ndarray, b: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Scalar products in double precision (no BLAS: its threads would change the order of the sum)."""
    return np.multiply(a, b, dtype=np.float64).sum(axis)


def gram(vectors: list[np.ndarray], axis: int | None = None) -> np.ndarray:
    """(..., N, N) scalar products of N arrays, over all entries or along `axis`."""
    size = len(vectors)
    pairs = {(i, j): product(vectors[i], vectors[j], axis) for i in range(size) for j in range(i + 1)}
    return np.stack([np.stack([pairs[max(i, j), min(i, j)] for j in range(size)], -1) for i in range(size)], -2)


def combine(block: Block, part, vectors: list[np.ndarray], coefficients) -> None:
    """out = (b +) Σ c_i v_i for one part; coefficients are numbers or arrays that broadcast against the vectors."""
    total = np.zeros_like(vectors[0])
    for coefficient, vector in zip(coefficients, vectors):
        total += np.asarray(coefficient, np.float32) * vector
    block.out[part] = total.reshape(-1) if block.base is None else block.base[part] + total.reshape(-1)


class Span(Method):
    """A method given by `coefficients(gram, parameters)`: (..., N, N) → (..., N) over whole tensors."""

    base = "optional"
    passes = 1

    def coefficients(self, gram: np.ndarray, parameters: Parameters) -> np.ndarray:
        raise NotImplementedError

    def observe(self, number, block, parameters, stats):
        return sum(gram(differences(block, part)) for part in parts(len(block.out)))

    def fold(self, number, state, partial):
        return partial if state is None else state + partial

    def finish(self, number, state, shape, parameters, stats):
        return self.coefficients(state, parameters)

    def apply(self, block, parameters, stats):
        for part in parts(len(block.out)):
            combine(block, part, differences(block, part), stats[0])


def lengths(gram: np.ndarray) -> np.ndarray:
    """(..., N) Euclidean norms."""
    return np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))


def inverse(values: np.ndarray) -> np.ndarray:
    """1/v, and 0 for 0: a zero vector has no direction."""
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def cosines(gram: np.ndarray) -> np.ndarray:
    """(..., N, N) in [−1, 1]; 0 beside a zero vector."""
    scale = inverse(lengths(gram))
    return np.clip(gram * scale[..., :, None] * scale[..., None, :], -1.0, 1.0)


def slerp(gram: np.ndarray, t: float) -> np.ndarray:
    """(..., 2) coefficients sin((1−t)Ω)/sin Ω and sin(tΩ)/sin Ω; (1−t, t) for parallel, antipodal or zero vectors."""
    angle = np.arccos(cosines(gram)[..., 0, 1])
    sine = np.sin(angle)
    curved = (sine > PARALLEL) & (lengths(gram) > 0).all(-1)
    sine = np.where(curved, sine, 1.0)
    return np.stack([np.where(curved, np.sin(share * angle) / sine, share) for share in (1 - t, t)], -1)


class NuSlerp(Span):
    """SLERP with t = w₂/(w₁+w₂), ½ where the weights cancel; with a base it turns the differences: b + slerp(d₁, d₂).

    `nuslerp_flatten` takes the tensor as one vector. Without it the vectors lie along the last axis or, with
    `nuslerp_row_wise`, across the other axes (that is what the name means in mergekit). There a tensor of more than
    two axes counts as a matrix with the last axis as its columns; a vector is one vector either way.
    """

    name = "nuslerp"
    models = (2, 2)
    own = {"weight": 1.0}
    shared = {"nuslerp_flatten": True, "nuslerp_row_wise": False}

    def check(self, parameters):
        if not all(np.isfinite(parameters.weights())):
            raise ValueError("weight: must be finite")
        if parameters.shared["nuslerp_row_wise"] and parameters.shared["nuslerp_flatten"]:
            raise ValueError("nuslerp_row_wise: has no effect on flattened tensors; give nuslerp_flatten: false")

    def whole_rows(self, parameters):
        return not parameters.shared["nuslerp_flatten"]

    def along(self, parameters: Parameters) -> int | None:
        """The axis of the vectors in a block seen as a matrix."""
        if parameters.shared["nuslerp_flatten"]:
            return None
        return 0 if parameters.shared["nuslerp_row_wise"] else 1

    def passes_for(self, parameters):
        return 0 if self.along(parameters) == 1 else 1

    def coefficients(self, gram, parameters):
        first, second = parameters.weights()
        total = first + second
        return slerp(gram, second / total if abs(total) > 1e-6 else 0.5)

    def observe(self, number, block, parameters, stats):
        if self.along(parameters) is None:
            return super().observe(number, block, parameters, stats)
        return gram(matrices(block), 0)

    def apply(self, block, parameters, stats):
        axis = self.along(parameters)
        if axis is None:
            return super().apply(block, parameters, stats)
        axis, vectors = 1 if len(block.shape) < 2 else axis, matrices(block)
        of_each = stats[0] if axis == 0 else self.coefficients(gram(vectors, 1), parameters)[:, None, :]
        combine(block, slice(None), vectors, np.moveaxis(of_each, -1, 0))


def matrices(block: Block) -> list[np.ndarray]:
    """(rows, row length) differences of a block of whole rows."""
    return [vector.reshape(-1, block.row_length) for vector in differences(block, slice(None))]


class Warp(Span):
    """Steps 2 and 3 of WARP: b + η · slerp(d_1 … d_N), b the policy from which all N started (step 1, the moving
    average that anchors the KL, belongs to training).

    N vectors are turned into one in order, the m-th with t = 1/m, as in the paper. η = 1 is the pure SLERP; smaller η
    gives the front between reward and KL, and the next round starts from one of its points.
    """

    name = "warp"
    base = "required"
    shared = {"eta": 1.0}

    def check(self, parameters):
        if not np.isfinite(parameters.shared["eta"]):
            raise ValueError(f"eta: {parameters.shared['eta']} is not finite")

    def coefficients(self, gram, parameters):
        one = np.eye(len(gram))
        merged = one[0]
        for number in range(1, len(gram)):
            pair = np.stack([merged, one[number]])
            merged = slerp(pair @ gram @ pair.T, 1 / (number + 1)) @ pair
        return parameters.shared["eta"] * merged


class MultiSlerp(Span):
    """N models on a sphere: the normalised mean direction at the mean length.

    With u_i = x_i/‖x_i‖ and m = Σw_i u_i / ‖Σw_i u_i‖ the published step moves m by v = Σw_i(u_i − ⟨u_i,m⟩m). That v is
    zero for all weights, as Σw_i u_i is a multiple of m; so the result is m · Σw_i‖x_i‖ (see `karcher` for the true
    mean). Directions that cancel (‖Σw_i u_i‖ ≤ eps) have no mean: Σw_i x_i then.
    """

    name = "multislerp"
    models = (2, None)
    own = {"weight": 1.0}
    shared = {"normalize_weights": True, "eps": 1e-8}

    def check(self, parameters):
        weights = parameters.weights()
        if not all(np.isfinite(weights)):
            raise ValueError("weight: must be finite")
        if parameters.shared["normalize_weights"] and abs(weights.sum()) < 1e-6:
            raise ValueError("weight: sum to zero and cannot be normalised")
        if not 0 <= parameters.shared["eps"] < 1:
            raise ValueError(f"eps: {parameters.shared['eps']} is not in [0, 1)")

    def coefficients(self, gram, parameters):
        weights = parameters.weights()
        if parameters.shared["normalize_weights"]:
            weights = weights / weights.sum()
        norms = lengths(gram)
        directions = weights * inverse(norms)
        length = np.sqrt(max(directions @ gram @ directions, 0.0))
        if length <= parameters.shared["eps"]:
            return weights
        return directions * (weights @ norms / length)


class Karcher(Span):
    """The mean on the sphere, equal weights: m ← exp_m(mean log_m(u_i)) until the step is below `tol`.

    log_m(u) = θ/sin θ · (u − cos θ · m), exp_m(v) = cos‖v‖ · m + sin‖v‖ · v/‖v‖; the result is m · mean ‖x_i‖. It
    starts at the normalised mean of the directions, or at the first direction where they cancel. Zero vectors have no
    direction, but count in the mean length; the antipode of m has no direction to go to and pulls nowhere.
    """

    name = "karcher"
    base = "none"
    models = (2, None)
    shared = {"max_iter": 10, "tol": 1e-5}

    def check(self, parameters):
        if not (isinstance(parameters.shared["max_iter"], int) and parameters.shared["max_iter"] >= 1):
            raise ValueError(f"max_iter: {parameters.shared['max_iter']} is not a whole number above 0")
        if not parameters.shared["tol"] > 0:
            raise ValueError(f"tol: {parameters.shared['tol']} is not above 0")

    def coefficients(self, gram, parameters):
        norms = lengths(gram)
        real = norms > 0
        if not real.any():
            return np.zeros(len(norms))
        cosine, share = cosines(gram), real / real.sum()
        start = np.sqrt(max(share @ cosine @ share, 0.0))
        mean = share / start if start > 1e-8 else np.eye(len(norms))[real.argmax()]
        for _ in range(parameters.shared["max_iter"]):
            mean, length = step(cosine, share, mean)
            if length < parameters.shared["tol"]:
                break
        return mean * inverse(norms) * norms.mean()


def step(cosine: np.ndarray, share: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, float]:
    """One step towards the mean on the sphere and its length; `mean` as coefficients of the unit vectors."""
    to_mean = np.clip(cosine @ mean, -1.0, 1.0)
    angle, sine = np.arccos(to_mean), np.sqrt(1 - to_mean**2)
    pull = share * np.where(sine > 1e-8, angle / np.where(sine > 1e-8, sine, 1.0), to_mean > 0)
    tangent = pull - (pull @ to_mean) * mean
    length = np.sqrt(max(tangent @ cosine @ tangent, 0.0))
    if length > 0:
        mean = np.cos(length) * mean + np.sin(length) / length * tangent
        mean = mean / np.sqrt(mean @ cosine @ mean)
    return mean, length


class ModelStock(Span):
    """t · mean(x_i) + (1−t) · b with t = N c/(1 + (N−1) c), c the mean cosine between the N differences from the base
    (arXiv:2403.19522).

    Differences that point apart (c < 0) make t negative, as the formula says; where its divisor is 0 the base is left.
    A model equal to the base has cosine 0 with all others. `filter_wise` takes c of every row (last axis) instead of
    the whole tensor.
    """

    name = "model_stock"
    base = "required"
    models = (2, None)
    shared = {"filter_wise": False}

    def passes_for(self, parameters):
        return 0 if parameters.shared["filter_wise"] else 1

    def whole_rows(self, parameters):
        return parameters.shared["filter_wise"]

    def coefficients(self, gram, parameters):
        size = gram.shape[-1]
        others = ~np.eye(size, dtype=bool)
        mean = cosines(gram)[..., others].mean(-1)
        divisor = 1 + (size - 1) * mean
        # N c/(1 + (N−1) c) of the mean: that over N of each
        share = np.divide(mean, divisor, out=np.zeros_like(mean), where=np.abs(divisor) > 1e-6)
        return np.repeat(share[..., None], size, -1)

    def apply(self, block, parameters, stats):
        if not parameters.shared["filter_wise"]:
            return super().apply(block, parameters, stats)
        vectors = matrices(block)
        of_row = self.coefficients(gram(vectors, 1), parameters)[:, None, :]
        combine(block, slice(None), vectors, np.moveaxis(of_row, -1, 0))
