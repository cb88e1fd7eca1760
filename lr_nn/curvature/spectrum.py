"""Eigenvalues of an operator from products with vectors: the Lanczos process with full reorthogonalisation.

The process keeps an orthonormal basis Q of a Krylov space, one vector a row, and the matrix T = Q A Qᵀ, with

    A Qᵀ = Qᵀ T + β q eᵀ,

e the last unit vector and q the next vector of the basis. With T s = θ s, θ is a Ritz value, Qᵀ s its Ritz vector, and
β |s_last| the norm of the residual A Qᵀ s - θ Qᵀ s. Golub & Van Loan (2013), sections 10.1 and 10.3; Saad (2011),
chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.curvature.blocks import matmul
from lr_nn.curvature.operators import Operator, check_operator, flat_product
from lr_nn.curvature.vectors import unflatten
from lr_nn.trees import accumulator, cast, compiled, dtypes_of
from lr_nn.types import Params

# Vectors in the basis of `largest`, of which a restart keeps half: the default of ARPACK's `eigsh` for one eigenvalue.
BASIS = 20
# β below this many units of rounding of ‖A‖ is zero: what is left of A q has no direction of its own.
BREAKDOWN = 10


class RitzPairs(NamedTuple):
    """Approximate eigenpairs of an operator, in ascending order of their values.

    `values` (steps,); `vectors` (p, steps), orthonormal columns in the order of `ravel_pytree(params)`; `weights`
    (steps,), the squared inner products of the vectors with the start vector, which sum to one; `errors` (steps,), the
    norms of the residuals A u - θ u: an eigenvalue of A is at most that far from θ, up to rounding.
    """

    values: jax.Array
    vectors: jax.Array
    weights: jax.Array
    errors: jax.Array


class LargestEigenpair(NamedTuple):
    """The algebraically largest eigenvalue of an operator.

    `value` θ, a scalar; `vector` u, like the parameters, of norm one and either sign; `error` ‖A u - θ u‖: an
    eigenvalue of A is at most that far from `value`, up to rounding; `steps` the number of products with A;
    `converged` True if `error` is at most tol ‖A‖.
    """

    value: jax.Array
    vector: Params
    error: jax.Array
    steps: jax.Array
    converged: jax.Array


def lanczos(op: Operator, key: jax.Array, steps: int) -> RitzPairs:
    """The Ritz pairs of `steps` products with A, from a random start vector v of norm one.

    The extreme eigenvalues come first. values and weights are a Gauss quadrature of the spectrum as v sees it,

        vᵀ f(A) v ≈ Σ_j weights_j f(values_j),

    exact for polynomials f of degree 2 steps - 1: the mean over keys estimates tr f(A) / p. Where the Krylov space of v
    is exhausted, a random direction orthogonal to it continues the process, without a weight: every value is a Ritz
    value, and `steps` = p gives every eigenvalue as often as it occurs. The basis is kept orthogonal by Gram-Schmidt,
    twice each step: about 4 steps² p multiplications, and 2 steps p numbers in memory, beside the products.

    steps: static under `jit`. Raises ValueError for fewer than 1 or more than p; TypeError for what is no operator or
    no random key. Lanczos (1950); Golub & Meurant (2010), chapter 6.
    """
    check_operator(op)
    check.key(key)
    steps, (p, _) = check.positive_integer("steps", steps), op.shape
    if steps > p:
        raise ValueError(f"steps must be at most the number of parameters, {p}; got {steps}")
    return _lanczos(op, key, steps)


def largest(op: Operator, key: jax.Array, *, tol: ArrayLike = 1e-6, max_steps: int = 1000) -> LargestEigenpair:
    """The algebraically largest eigenvalue of A and its eigenvector, by Lanczos with restarts.

    The smallest eigenvalue is -largest(-op, key).value. The search ends when ‖A u - θ u‖ ≤ tol ‖A‖, with the largest
    ‖A q‖ of its unit vectors q for ‖A‖, or where another cycle would take more than `max_steps` products with A. It
    starts from a random vector, which has a part along every eigenvector with probability one. If A holds a NaN, the
    value is NaN and `converged` False.

    max_steps: static under `jit`. The function has no derivative; that of an eigenvalue is uᵀ (∂A) u. Memory: 21
    vectors. Raises ValueError for a `tol` or `max_steps` that is not positive; TypeError for what is no operator or no
    random key. Wu & Simon (2000), thick-restart Lanczos.

    >>> import lr_nn
    >>> net = lr_nn.linear_regression(1)
    >>> batch = lr_nn.Batch(x=jnp.array([[3.0], [-3.0]]), y=jnp.zeros(2))
    >>> op = lr_nn.curvature.ggn(net, lr_nn.init(net, jax.random.key(0)), batch)
    >>> round(lr_nn.curvature.largest(op, jax.random.key(0)).value.item(), 4)
    9.0
    """
    check_operator(op)
    check.key(key)
    return _largest(op, key, check.positive("tol", tol), check.positive_integer("max_steps", max_steps))


class _Krylov(NamedTuple):
    """Q with the next vector (m + 1, p), the lower triangle of T (m, m), β, and the largest ‖A q‖."""

    basis: jax.Array
    projected: jax.Array
    beta: jax.Array
    scale: jax.Array


@partial(compiled, static_argnames="steps")
def _lanczos(op: Operator, key: jax.Array, steps: int) -> RitzPairs:
    found = _extend_basis(flat_product(op), _initial_basis(op, key, steps), 0, key)
    values, s = _eigh(found.projected)
    vectors = matmul(found.basis[:-1].T, s)
    return RitzPairs(values, vectors, jnp.square(s[0]), found.beta * jnp.abs(s[-1]))


@partial(compiled, static_argnames="max_steps")
def _largest(op: Operator, key: jax.Array, tol: jax.Array, max_steps: int) -> LargestEigenpair:
    multiply, size = flat_product(op), min(op.shape[0], BASIS, max_steps)
    kept = size // 2
    State = tuple[_Krylov, jax.Array, jax.Array, jax.Array]

    def with_ritz(found: _Krylov, steps: jax.Array) -> State:
        return (found, *_eigh(found.projected), steps)

    def error(state: State) -> jax.Array:
        found, _, s, _ = state
        return found.beta * jnp.abs(s[-1, -1])

    def unconverged(state: State) -> jax.Array:
        return (error(state) > tol.astype(dtype) * state[0].scale) & (state[3] + size - kept <= max_steps)

    def cycle(state: State) -> State:
        found, values, s, steps = state
        best = s[:, size - kept :]
        basis = jnp.zeros_like(found.basis).at[:kept].set(matmul(best.T, found.basis[:-1]))
        basis = basis.at[kept].set(found.basis[-1])
        projected = jnp.zeros_like(found.projected).at[:kept, :kept].set(jnp.diag(values[size - kept :]))
        restarted = found._replace(basis=basis, projected=projected)
        return with_ritz(_extend_basis(multiply, restarted, kept, jax.random.fold_in(key, steps)), steps + size - kept)

    start = _initial_basis(op, key, size)
    dtype = start.basis.dtype
    state = with_ritz(_extend_basis(multiply, start, 0, key), jnp.asarray(size, jnp.int32))
    found, values, s, steps = state = lax.while_loop(unconverged, cycle, state)
    vector = unflatten(op.net, matmul(s[None, :, -1], found.basis[:-1])[0])
    converged = error(state) <= tol.astype(dtype) * found.scale
    return LargestEigenpair(values[-1], cast(vector, dtypes_of(op.params)), error(state), steps, converged)


def _initial_basis(op: Operator, key: jax.Array, steps: int) -> _Krylov:
    """A state whose basis has one random unit vector and `steps` rows of zeros."""
    p, dtype = op.shape[0], accumulator(op.dtype)
    first = jax.random.normal(key, (p,), dtype)
    basis = jnp.zeros((steps + 1, p), dtype).at[0].set(_unit(first))
    return _Krylov(basis, jnp.zeros((steps, steps), dtype), jnp.zeros((), dtype), jnp.zeros((), dtype))


def _extend_basis(multiply: Callable[[jax.Array], jax.Array], start: _Krylov, first: int, key: jax.Array) -> _Krylov:
    """Lanczos steps from row `first`, the last that is not zero, until the basis is full."""
    steps, p = len(start.projected), start.basis.shape[1]
    rounding = BREAKDOWN * float(jnp.finfo(start.basis.dtype).eps)

    def step(j: jax.Array, state: _Krylov) -> _Krylov:
        basis = state.basis
        image = multiply(basis[j])
        scale = jnp.maximum(state.scale, jnp.linalg.norm(image))
        rest, inner = _orthogonalise(basis, image)
        beta = jnp.linalg.norm(rest)
        # The space is invariant, or all of it.
        done = (beta <= rounding * scale) | (j + 1 == p)
        following = lax.cond(done, lambda: _random_direction(basis, jax.random.fold_in(key, j)), lambda: _unit(rest))
        return _Krylov(
            basis.at[j + 1].set(following),
            state.projected.at[j].set(inner[:steps]),
            jnp.where(done, jnp.zeros_like(beta), beta),
            scale,
        )

    return lax.fori_loop(first, steps, step, start)


def _orthogonalise(basis: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """v less its part in the span of the rows of `basis`, and its inner products with them.

    By classical Gram-Schmidt; twice is enough: Giraud et al. (2005).
    """
    total = jnp.zeros_like(basis[:, 0])
    for _ in range(2):
        inner = matmul(basis, v[:, None])[:, 0]
        v = v - matmul(inner[None], basis)[0]
        total = total + inner
    return v, total


def _random_direction(basis: jax.Array, key: jax.Array) -> jax.Array:
    """A random unit vector orthogonal to the rows of `basis`; zero if they span the space."""
    v, _ = _orthogonalise(basis, jax.random.normal(key, basis.shape[1:], basis.dtype))
    return _unit(v)


def _unit(v: jax.Array) -> jax.Array:
    """v / ‖v‖, or zero."""
    norm = jnp.linalg.norm(v)
    return v / jnp.where(norm > 0, norm, jnp.ones_like(norm))


def _eigh(lower: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix given by its lower triangle."""
    return jnp.linalg.eigh(jnp.tril(lower) + jnp.tril(lower, -1).T, symmetrize_input=False)
