"""The Hessian of a sample of rows as the first guess of L-BFGS: a float32 Cholesky factor, one for each output."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Layer

__all__ = ["Factor", "build", "identity", "solve"]

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


def build(sample: OneLayer, theta: jax.Array, rows: int) -> Factor:
    """The factor at θ from the rows of `sample`, which stand for so many `rows`.

    Of a loss that couples its outputs only the diagonal of its curvature is used, averaged over outputs where they
    are many. Where correlations are no larger than those of independent columns on so few rows, they are noise, and
    the factor is the scale and what bends it along θ; one scale where columns differ no more than by noise.
    """
    sample, theta = jax.tree.map(lambda a: a.astype(jnp.float32), (sample, theta))
    curvature = sample.net.loss.fisher_diagonal(sample.eta(theta))
    if _outputs(sample) == 1:
        curvature = curvature.mean(axis=1, keepdims=True)
    w, d = sample.split(theta).w, sample.x.shape[1]
    w = w if w.shape[1] == curvature.shape[1] else jnp.zeros((d, 1), w.dtype)
    squares = sample.share @ (sample.x * sample.x)

    def one(each: tuple[jax.Array, jax.Array]) -> Factor:
        curvature, w = each
        weight = sample.share * curvature
        hessian = sample.weighted_gram(weight)
        diagonal = jnp.diagonal(hessian)
        noise = (weight * weight).sum() / weight.sum() ** 2
        if len(sample.y) < rows:
            mean = squares.mean()
            # The squares of normal columns that are alike have a relative variance of 2 · noise.
            alike = ((squares - mean) ** 2).sum() <= 4 * d * noise * mean**2
            common = diagonal.at[:d].set(weight.sum() * mean + sample.ridge()[:d])
            diagonal = jnp.where(alike, common, diagonal)
        scale = lax.rsqrt(jnp.maximum(diagonal, jnp.finfo(jnp.float32).tiny))
        scaled, eye = scale[:, None] * hessian * scale[None], jnp.eye(len(scale), dtype=hessian.dtype)

        def invert() -> jax.Array:
            found = solve_triangular(jnp.linalg.cholesky(scaled + JITTER * eye), eye, lower=True)
            return jnp.where(jnp.isfinite(found).all(), found, eye)

        if len(sample.y) == rows:
            return Factor(scale, invert())
        model, inverse = _bent(scaled, w / scale[:d])
        independent = ((scaled - model) ** 2).sum() <= 2 * len(scale) ** 2 * noise
        return Factor(scale, lax.cond(independent, lambda: inverse, invert))

    return lax.map(one, (curvature.T, w.T))


def _bent(scaled: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """I + u (K - I) uᵀ, K = uᵀ H u: the scaled Hessian H along w and the bias, the identity elsewhere; and its L⁻¹.

    Of independent columns the curvature of a loss depends on η alone, and so bends H along w and the bias.
    """
    q, length = len(scaled), jnp.linalg.norm(w)
    u = jnp.append(w / jnp.where(length > 0, length, 1), jnp.zeros(q - len(w), w.dtype))[:, None]
    u = jnp.concatenate([u, jnp.eye(q, dtype=u.dtype)[:, len(w) :]], axis=1)
    small, (one, eye) = u.T @ scaled @ u, (jnp.eye(size, dtype=u.dtype) for size in (q, u.shape[1]))
    small = small.at[0, 0].set(jnp.where(length > 0, small[0, 0], 1)) + JITTER * eye
    inverse = solve_triangular(jnp.linalg.cholesky(small), eye, lower=True)
    return one + u @ (small - eye) @ u.T, one + u @ (inverse - eye) @ u.T


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
