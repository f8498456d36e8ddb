"""Runs a method over arrays as the engine does, with any size of blocks, in any order of computing them."""

from unittest.mock import patch

import numpy as np

from pt_tools.merge.method import Block, Parameters


def parameters(method, count, own=None, **shared):
    """Defaults of the method, with lists in `own` giving one value a model."""
    own = own or {}
    each = tuple({**method.own, **{name: values[i] for name, values in own.items()}} for i in range(count))
    return Parameters(each, {**method.shared, **shared})


def run(method, models, base=None, given=None, size=4096, seed=0, name="w"):
    """The merged tensor in fp32. Blocks are computed last to first, folded first to last."""
    with patch("pt_tools.merge.engine.BLOCK", size):
        return _run(method, models, base, given, size, seed, name)


def _run(method, models, base, given, size, seed, name):
    models = [np.asarray(model, np.float32) for model in models]
    given = given or parameters(method, len(models))
    shape = models[0].shape
    if method.whole_rows(given):
        row = shape[-1] if shape else 1
        size = max(1, size // row) * row
    flat = [model.reshape(-1) for model in models]
    flat_base = None if base is None else np.asarray(base, np.float32).reshape(-1)
    out = np.full(flat[0].size, np.nan, np.float32)

    def block(start):
        part = slice(start, min(start + size, out.size))
        scratch = [np.full(part.stop - start, np.nan, np.float32) for _ in range(method.buffers)]
        return Block([one[part].copy() for one in flat], None if base is None else flat_base[part].copy(), out[part],
                     start, name, shape, scratch, seed)

    method.check(given)
    starts, stats = range(0, out.size, size), []
    for number in range(method.passes_for(given)):
        chosen = [starts[place] for place in method.select(number, len(starts), given, stats)]
        partials = {start: method.observe(number, block(start), given, stats) for start in reversed(chosen)}
        state = None
        for start in chosen:
            state = method.fold(number, state, partials[start])
        stats = [*stats, method.finish(number, state, shape, given, stats)]
    for start in reversed(starts):
        method.apply(block(start), given, stats)
    return out.reshape(shape)
