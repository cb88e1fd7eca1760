"""Triangular factors of matrices, and systems of them; axes before the last two are of a batch.

Sources: Murray, Differentiation of the Cholesky decomposition (2016); de Hoog, Anderssen & Lukas, Differentiation of
matrix functionals using triangular factorization (2011), for L U.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lr_nn.graph.rules.base import Rule


def _transposed(a):
    return np.swapaxes(a, -1, -2)


def _substitute(t, b, *, lower):
    """t⁻¹ b of triangular t, row by row; a zero on the diagonal gives infinity or NaN, as in JAX."""
    x, n = np.array(b), t.shape[-1]
    for i in range(n) if lower else reversed(range(n)):
        known = slice(0, i) if lower else slice(i + 1, n)
        row = x[..., i, :] - np.einsum("...j,...jk->...k", t[..., i, known], x[..., known, :])
        x[..., i, :] = row / t[..., i, i, None]
    return x


def _triangle(a, *, lower, unit_diagonal):
    """The triangle of `a` that counts, with ones on its diagonal where that is taken as one."""
    t = np.tril(a) if lower else np.triu(a)
    return _with_ones(t) if unit_diagonal else t


def _with_ones(a):
    eye = np.eye(a.shape[-2], a.shape[-1], dtype=bool)
    return np.where(eye, np.ones((), a.dtype), a)


def _triangular_solve(a, b, *, left_side, lower, transpose_a, unit_diagonal):
    t = _triangle(a, lower=lower, unit_diagonal=unit_diagonal)
    t, lower = (_transposed(t), not lower) if transpose_a else (t, lower)
    if left_side:
        return _substitute(t, b, lower=lower)
    return _transposed(_substitute(_transposed(t), _transposed(b), lower=not lower))


def _triangular_solved(g, x, a, b, *, left_side, lower, transpose_a, unit_diagonal):
    """b̄ = t⁻ᵀ x̄ and t̄ = -b̄ xᵀ of t x = b; b̄ = x̄ t⁻ᵀ and t̄ = -xᵀ b̄ of x t = b."""
    by_b = _triangular_solve(
        a, g, left_side=left_side, lower=lower, transpose_a=not transpose_a, unit_diagonal=unit_diagonal
    )
    by_t = -(by_b @ _transposed(x)) if left_side else -(_transposed(x) @ by_b)
    by_a = _transposed(by_t) if transpose_a else by_t
    offset = int(unit_diagonal)
    return np.tril(by_a, -offset) if lower else np.triu(by_a, offset), by_b


def _system(shapes, *, left_side, transpose_a) -> str:
    a = "{0}⁻ᵀ" if transpose_a else "{0}⁻¹"
    return f"{a} {{1}}" if left_side else f"{{1}} {a}"


def _system_adjoints(shapes, *, left_side, transpose_a, lower) -> tuple[str, str]:
    a = "{0}⁻¹" if transpose_a else "{0}⁻ᵀ"
    by_b = f"{a} {{bar}}" if left_side else f"{{bar}} {a}"
    product = f"({by_b}) {{out}}ᵀ" if left_side else f"{{out}}ᵀ ({by_b})"
    by_a = f"({product})ᵀ" if transpose_a else product
    return f"-{'tril' if lower else 'triu'} {by_a}", by_b


def _cholesky(a):
    """L with L Lᵀ = a; NaN for a matrix that is not positive definite."""
    factors = np.full(a.shape, np.nan, a.dtype)
    for i in np.ndindex(*a.shape[:-2]):
        try:
            factors[i] = np.linalg.cholesky(a[i])
        except np.linalg.LinAlgError:
            continue
    return factors


def _halved(a):
    """The lower triangle of `a`, with half of its diagonal."""
    return np.tril(a) - _diagonal(a) / 2


def _diagonal(a):
    return np.where(np.eye(a.shape[-1], dtype=bool), a, 0)


def _cholesky_adjoint(g, v, a):
    """L⁻ᵀ Φ(Lᵀ L̄) L⁻¹, Φ the lower triangle with half of its diagonal."""
    low = np.tril(v)
    inner = _halved(_transposed(low) @ np.tril(g))
    left = _substitute(_transposed(low), inner, lower=False)
    return _transposed(_substitute(_transposed(low), _transposed(left), lower=False))


def _lu(a) -> tuple[Any, Any, Any]:
    """L and U in one array, the pivots, and the permutation p with a[p] = L U, as in LAPACK."""
    from scipy.linalg import lapack

    m, n = a.shape[-2:]
    factors = np.array(a)
    pivots = np.zeros((*a.shape[:-2], min(m, n)), np.int32)
    order = np.broadcast_to(np.arange(m, dtype=np.int32), a.shape[:-1]).copy()
    getrf = lapack.get_lapack_funcs("getrf", (factors,))
    for i in np.ndindex(*a.shape[:-2]):
        factors[i], pivots[i], _ = getrf(a[i]) if a.size else (a[i], pivots[i], 0)
        for row, other in enumerate(pivots[i]):
            order[i][[row, other]] = order[i][[other, row]]
    return factors, pivots, order


def _lu_adjoint(g, v, a):
    """With L (m, m) and U (n, n) filled up by the identity: P ā = L⁻ᵀ (tril₋₁(Lᵀ ḡ) + triu(ḡ Uᵀ)) U⁻ᵀ."""
    (factors, _, order), g = v, g[0]
    (m, n), k = factors.shape[-2:], min(factors.shape[-2:])
    low, up = (np.broadcast_to(np.eye(size, dtype=a.dtype), (*a.shape[:-2], size, size)).copy() for size in (m, n))
    low[..., :, :k] += np.tril(factors, -1)[..., :, :k]
    up[..., :k, :] = np.triu(factors)[..., :k, :]
    inner = np.tril(_transposed(low) @ g, -1) + np.triu(g @ _transposed(up))
    left = _substitute(_transposed(low), inner, lower=False)
    permuted = _transposed(_substitute(up, _transposed(left), lower=False))
    found = np.empty_like(permuted)
    np.put_along_axis(found, np.broadcast_to(order[..., None], found.shape).astype(int), permuted, axis=-2)
    return found


RULES: tuple[Rule, ...] = (
    Rule(
        "cholesky",
        _cholesky,
        _cholesky_adjoint,
        "L with L Lᵀ = {0}",
        ("{out}⁻ᵀ Φ({out}ᵀ {bar}) {out}⁻¹, Φ = tril with half the diagonal",),
        cost=lambda v, a: v.size * v.shape[-1] // 3,
    ),
    Rule(
        "triangular_solve",
        _triangular_solve,
        _triangular_solved,
        _system,
        _system_adjoints,
        cost=lambda v, a, b: b.size * a.shape[-1],
    ),
    Rule(
        "lu",
        _lu,
        _lu_adjoint,
        "L U of {0} with its rows permuted",
        ("L⁻ᵀ (tril₋₁(Lᵀ {bar}) + triu({bar} Uᵀ)) U⁻ᵀ, rows in their old order",),
        cost=lambda v, a: 2 * a.size * min(a.shape[-2:]) // 3,
    ),
)
