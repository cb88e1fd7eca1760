"""The Hessian of a sample of rows as the first guess of L-BFGS: a float32 Cholesky factor, one for each output."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Layer

JITTER = 1e-6


class Factor(NamedTuple):
    """Of each output (or one for all): a scale (·, q), and L⁻¹ (·, q, q), L Lᵀ the scaled Hessian.

    q = d, and one more for the bias. The inverse, so that a solve is two products: a triangular solve would be LAPACK's
    on a CPU, whose threads are then in the way of XLA's for a while.
    """

    scale: jax.Array
    inverse: jax.Array


def identity(objective: OneLayer) -> Factor:
    """A factor that changes nothing, of the shape that `build` gives."""
    q, k = objective.net.sizes[0] + objective.net.bias, _outputs(objective)
    return Factor(jnp.ones((k, q), jnp.float32), jnp.broadcast_to(jnp.eye(q, dtype=jnp.float32), (k, q, q)))


def build(sample: OneLayer, theta: jax.Array) -> Factor:
    """The factor at θ from the rows of `sample`.

    Of a loss that couples its outputs only the diagonal of its curvature is used, averaged over outputs where they
    are many. Where correlations are no larger than those of independent columns on so few rows, they are noise, and
    the factor is the scale alone.
    """
    sample, theta = jax.tree.map(lambda a: a.astype(jnp.float32), (sample, theta))
    eta = sample.predictor(theta)
    curvature = sample.net.loss.fisher_diagonal(eta if sample.offset is None else eta + sample.offset)
    if _outputs(sample) == 1:
        curvature = curvature.mean(axis=1, keepdims=True)

    def one(curvature: jax.Array) -> Factor:
        weight = sample.share * curvature
        hessian = sample.weighted_gram(weight)
        scale = lax.rsqrt(jnp.maximum(jnp.diagonal(hessian), jnp.finfo(jnp.float32).tiny))
        scaled, eye = scale[:, None] * hessian * scale[None], jnp.eye(len(scale), dtype=hessian.dtype)
        noise = len(scale) ** 2 * (weight * weight).sum() / weight.sum() ** 2
        independent = ((scaled - eye) ** 2).sum() <= 2 * noise

        def invert() -> jax.Array:
            return solve_triangular(jnp.linalg.cholesky(scaled + JITTER * eye), eye, lower=True)

        return Factor(scale, lax.cond(independent, lambda: eye, invert))

    return lax.map(one, curvature.T)


def solve(objective: OneLayer, factor: Factor, vector: jax.Array) -> jax.Array:
    """The inverse of the factored Hessian times `vector` (p,), in float32 but for its scale."""
    size = jnp.abs(vector).max()
    size = jnp.where(size > 0, size, 1)
    w, b = objective.split(vector / size)
    columns = (w if b is None else jnp.concatenate([w, b[None]])).T.astype(jnp.float32)

    scaled = factor.scale * columns
    if factor.scale.shape[0] == 1:
        solved = factor.scale * (scaled @ factor.inverse[0].T @ factor.inverse[0])
    else:
        half = jnp.einsum("kab,kb->ka", factor.inverse, scaled)
        solved = factor.scale * jnp.einsum("kab,ka->kb", factor.inverse, half)
    solved = solved.T.astype(vector.dtype) * size
    return objective.join(Layer(solved[: w.shape[0]], None if b is None else solved[-1]))


def _outputs(objective: OneLayer) -> int:
    """How many factors: one for each output, or one for all where that would be too many numbers."""
    q, k = objective.net.sizes[0] + objective.net.bias, objective.net.sizes[1]
    return k if k * q * q <= MOST else 1


MOST = 2**22
