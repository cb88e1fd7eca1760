"""Linear systems with an operator, by conjugate gradients, and their derivatives by implicit differentiation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.curvature.conjugate_gradients import conjugate_gradients
from lr_nn.curvature.operators import Operator, Solvable, check_operator, check_same_layers
from lr_nn.curvature.vectors import Linear, apply
from lr_nn.trees import accumulator
from lr_nn.types import Params

# Residuals are rounded at about eps κ: 1e-6 in float32 for a condition number κ of 10.
DEFAULT_TOL = {"float32": 1e-6, "float64": 1e-10}


def solve(
    op: Operator,
    v: Params | ArrayLike,
    damping: ArrayLike = 0.0,
    *,
    tol: ArrayLike | None = None,
    max_steps: int = 1000,
    precondition: Solvable | None = None,
) -> Any:
    """u with (A + λ I) u = v, A + λ I positive definite, by conjugate gradients; u is of the kind of `v`.

    The residual satisfies ‖v - (A + λ I) u‖ ≤ tol ‖v‖, up to rounding of about eps κ ‖v‖, κ the condition number. Where
    it does not within `max_steps`, or a direction of curvature zero or below shows that the matrix is not positive
    definite, every entry of u is NaN.

    v: like the parameters or flat (p,), or many of either as `op.multiply` takes them; each is solved by itself, and
    may be NaN by itself. damping: λ, finite and not negative. tol: 1e-6 by default, 1e-10 for parameters of float64.
    max_steps: the most products with A. precondition: an operator M with a `solve`, such as `kfac(...)` or its
    `eigenbasis()`; needs λ > 0. M⁻¹ = M.solve(·, λ) should be near (A + λ I)⁻¹, and the norm of the residual r is
    √(rᵀ M⁻¹ r) then.

    Derivatives by op, v and damping, in both modes and of every order, are those of (A + λ I)⁻¹ v: each is a further
    system of the same matrix, solved to the same `tol`. Raises ValueError or TypeError for a `v` of another shape,
    settings that are out of range, or a `precondition` without a `solve`.

    Hestenes & Stiefel (1952); Nocedal & Wright (2006), section 5.1.

    >>> import lr_nn
    >>> net = lr_nn.linear_regression(1)
    >>> batch = lr_nn.Batch(x=jnp.array([[1.0], [-1.0]]), y=jnp.zeros(2))
    >>> op = lr_nn.curvature.ggn(net, lr_nn.init(net, jax.random.key(0)), batch)
    >>> lr_nn.curvature.solve(op, jnp.array([2.0, 4.0]), damping=1.0).tolist()
    [1.0, 2.0]
    """
    check_operator(op)
    damping = check.scalar("damping", damping)
    check.require("damping", damping, check.is_not_negative, "finite and not negative")
    tol = DEFAULT_TOL[accumulator(op.dtype).name] if tol is None else tol
    tol, max_steps = check.positive("tol", tol), check.positive_integer("max_steps", max_steps)
    check.require("tol", tol, lambda value: value < 1, "below 1")
    if precondition is not None:
        if not isinstance(precondition, Solvable):
            raise TypeError(
                "precondition must be an operator with a solve, such as lr_nn.curvature.kfac returns; "
                f"got {type(precondition).__name__}"
            )
        check_same_layers(op, precondition)
        check.require("damping", damping, lambda value: value > 0, "positive where there is a precondition")
    return apply(_inverse, op, v, damping, tol, np.asarray(max_steps), precondition)


def _inverse(
    op: Operator, damping: jax.Array, tol: jax.Array, max_steps: jax.Array, precondition: Solvable | None
) -> Linear:
    """(A + λ I)⁻¹ as a function of trees."""
    dtype = accumulator(op.dtype)

    def widened(function: Linear) -> Linear:
        """The same function with all leaves of the result in one dtype."""
        return lambda v: _cast(function(v), dtype)

    multiply = widened(op.damped(damping)._product)
    approximate = (lambda r: r) if precondition is None else widened(precondition._preconditioner(damping))

    def search(_: Any, target: Params) -> Params:
        largest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(target)]).max()
        # At size one, squares neither overflow nor underflow.
        scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
        scaled = jax.tree.map(lambda leaf: leaf / scale, target)
        found, converged = conjugate_gradients(multiply, approximate, scaled, tol.astype(dtype), max_steps)
        return jax.tree.map(lambda leaf: jnp.where(converged, scale * leaf, jnp.nan), found)

    return lambda v: lax.custom_linear_solve(multiply, _cast(v, dtype), search, symmetric=True)


def _cast(tree: Params, dtype: DTypeLike) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
