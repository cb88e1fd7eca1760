"""Operations that move numbers and change none: their adjoints move back, or add up what was spread."""

from __future__ import annotations

import numpy as np

from lr_nn.graph.rules.base import Rule, flat


def moves(operation: str, forward, derivative, equation: str, *adjoints: str) -> Rule:
    """A rule that costs no arithmetic; a single text of adjoints serves every operand."""
    texts = adjoints[0] if len(adjoints) == 1 else adjoints
    return Rule(operation, forward, derivative, equation, texts, cost=lambda v, *operands: 0)


def _spread(x, *, shape, broadcast_dimensions):
    lifted = np.ones(len(shape), int)
    lifted[list(broadcast_dimensions)] = x.shape
    return np.broadcast_to(x.reshape(lifted), shape)


def _gathered(g, v, x, *, broadcast_dimensions):
    others = tuple(i for i in range(g.ndim) if i not in broadcast_dimensions)
    once = g.sum(axis=others)
    stretched = tuple(i for i, (a, b) in enumerate(zip(x.shape, once.shape)) if a != b)
    return once.sum(axis=stretched, keepdims=True).reshape(x.shape)


def _section(start_indices, limit_indices, strides):
    strides = strides or (1,) * len(start_indices)
    return tuple(slice(*which) for which in zip(start_indices, limit_indices, strides))


def _slice(x, *, start_indices, limit_indices, strides):
    return x[_section(start_indices, limit_indices, strides)]


def _unslice(g, v, x, *, start_indices, limit_indices, strides):
    return _placed(g, x.shape, _section(start_indices, limit_indices, strides))


def _placed(g, shape, where):
    """Zeros of `shape` with `g` at a place."""
    whole = np.zeros(shape, g.dtype)
    whole[where] = g
    return whole


def _landing(shape, out, padding_config):
    """Where the entries of an array of `shape` land in the padded `out`: those that do, and their places."""
    kept, places = [], []
    for size, limit, (low, _, interior) in zip(shape, out, padding_config):
        place = low + np.arange(size) * (interior + 1)
        inside = (place >= 0) & (place < limit)
        kept.append(np.flatnonzero(inside))
        places.append(place[inside])
    return np.ix_(*kept), np.ix_(*places)


def padded(x, value, padding_config):
    """`x` with `value` before, after and between its entries; a negative number of them cuts off."""
    shape = tuple(
        low + high + size + max(size - 1, 0) * interior for size, (low, high, interior) in zip(x.shape, padding_config)
    )
    whole = np.full(shape, value, x.dtype)
    kept, places = _landing(x.shape, shape, padding_config)
    whole[places] = x[kept]
    return whole


def unpadded(g, shape, padding_config):
    """The adjoint of `padded` in its array: what landed comes back."""
    kept, places = _landing(shape, g.shape, padding_config)
    back = np.zeros(shape, g.dtype)
    back[kept] = g[places]
    return back


def _pad(g, v, x, value, *, padding_config):
    rest = g.copy()
    rest[_landing(x.shape, g.shape, padding_config)[1]] = 0
    return unpadded(g, x.shape, padding_config), rest.sum()


def _bounds(sizes):
    return np.cumsum([0, *sizes])


def _joined(g, v, *operands, dimension):
    return tuple(np.split(g, _bounds(x.shape[dimension] for x in operands)[1:-1], axis=dimension))


def _origin(x, sizes, starts):
    """Where a window of `sizes` begins: starts that would run over the edge are moved back."""
    return tuple(
        slice(s, s + n) for s, n in ((min(max(int(s), 0), d - n), n) for s, n, d in zip(starts, sizes, x.shape))
    )


def _window(x, *starts, slice_sizes):
    return x[_origin(x, slice_sizes, starts)]


def _unwindow(g, v, x, *starts, slice_sizes):
    return (_placed(g, x.shape, _origin(x, slice_sizes, starts)), *(None for _ in starts))


def _update(x, update, *starts):
    whole = x.copy()
    whole[_origin(x, update.shape, starts)] = update
    return whole


def _updated(g, v, x, update, *starts):
    where = _origin(x, update.shape, starts)
    rest = g.copy()
    rest[where] = 0
    return (rest, g[where], *(None for _ in starts))


def _reshaped(g, v, x):
    return g.reshape(x.shape)


def _iota(*, dtype, shape, dimension):
    ramp = np.arange(shape[dimension]).reshape([-1 if i == dimension else 1 for i in range(len(shape))])
    return np.broadcast_to(ramp, shape).astype(dtype)


RULES: tuple[Rule, ...] = (
    moves("reshape", lambda x, *, new_sizes: x.reshape(new_sizes), _reshaped, "{0} as {new_sizes}", "{bar} in shape"),
    moves(
        "squeeze", lambda x, *, dimensions: x.squeeze(dimensions), _reshaped, "{0} without axes {dimensions}", "{bar}"
    ),
    moves(
        "transpose",
        lambda x, *, permutation: x.transpose(permutation),
        lambda g, v, x, *, permutation: g.transpose(np.argsort(permutation)),
        "{0} with axes {permutation}",
        "{bar} with its axes put back",
    ),
    moves("broadcast_in_dim", _spread, _gathered, "{0} spread to {shape}", "Σ {bar} over the axes spread"),
    moves(
        "rev",
        lambda x, *, dimensions: np.flip(x, dimensions),
        lambda g, v, x, *, dimensions: np.flip(g, dimensions),
        "{0} backwards along {dimensions}",
        "{bar} backwards along {dimensions}",
    ),
    moves("slice", _slice, _unslice, "{0} from {start_indices} to {limit_indices}", "{bar} at its place, else 0"),
    moves(
        "dynamic_slice",
        _window,
        _unwindow,
        "{0} from ({rest}), {slice_sizes}",
        "{bar} at its place, else 0",
    ),
    moves(
        "dynamic_update_slice",
        _update,
        _updated,
        "{0} with {1} put in",
        "{bar} of {self}'s places",
    ),
    moves(
        "pad",
        lambda x, value, *, padding_config: padded(x, value, padding_config),
        _pad,
        "{0} padded with {1}",
        "{bar} where {0} is",
        "Σ {bar} where {0} is not",
    ),
    moves(
        "concatenate",
        lambda *operands, dimension: np.concatenate(operands, axis=dimension),
        _joined,
        "({operands}) joined along axis {dimension}",
        "{bar} of {self}'s places",
    ),
    moves(
        "stack",
        lambda *operands, axis: np.stack(operands, axis=axis),
        lambda g, v, *operands, axis: [np.take(g, k, axis=axis) for k in range(len(operands))],
        "({operands}) stacked along axis {axis}",
        "{bar} of {self}'s place",
    ),
    moves(
        "unstack",
        lambda x, *, axis: tuple(np.moveaxis(x, axis, 0)),
        lambda g, v, x, *, axis: np.stack(g if isinstance(g, tuple) else (g,), axis=axis),
        "{0} unstacked along axis {axis}",
        "{bar} at its place",
    ),
    moves(
        "split",
        lambda x, *, sizes, axis: tuple(np.split(x, _bounds(sizes)[1:-1], axis=axis)),
        lambda g, v, x, *, axis: np.concatenate(g if isinstance(g, tuple) else (g,), axis=axis),
        "{0} split along axis {axis}",
        "{bar} at its place",
    ),
    moves("optimization_barrier", lambda *xs: xs, lambda g, v, *xs: g, "({operands})", "{bar}"),
    moves("device_put", lambda *xs: xs, lambda g, v, *xs: g, "({operands})", "{bar}"),
    flat("iota", _iota, "0, 1, 2, ... along axis {dimension}"),
)
