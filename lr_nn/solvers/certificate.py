"""How far from the optimum at most: bounds on J(θ) - J*, from convexity, at a point and in its precision.

The argument of `local` rests on |D³ℓ[u, u, v]| ≤ c ‖v‖ D²ℓ[u, u], c the loss's `concordance`: Bach (2010).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from lr_nn.solvers import proximal
from lr_nn.solvers.line_search import Point
from lr_nn.solvers.one_layer import OneLayer

# A direction moves no η if it moves none by more than that, of columns scaled to the same size.
STILL = 1e-10
# The reciprocal condition of a Hessian below which its factor is not believed, relative to its size and rounding.
SINGULAR = 1e-2


class Certificate(NamedTuple):
    """A bound on J - J* (∞ where none was found), and the number of directions along which η does not change."""

    bound: jax.Array
    flat: jax.Array


def strong(objective: OneLayer, point: Point, enough: jax.Array) -> jax.Array:
    """The bound of an L2 penalty: J minimised over the bias is l2-strongly convex in w.

    (‖∇_w J‖ + R c)² / (2 l2) + ε u, with ε = ‖∇_b J‖, R = max ‖x_i‖, u a bound on the distance of b from its best
    value at w, and c one on the change of the residuals on the way there. Where that is more than `enough`, and the
    outputs are not coupled, the change is computed to first order, at the price of another pass.
    """
    w, b = objective.split(point.gradient)
    if b is None:
        return (w * w).sum() / (2 * objective.l2)
    distance, change = _bias_distance(objective, point, b)
    reach = _reach(objective)

    def total(slope: jax.Array, slack: jax.Array) -> jax.Array:
        return ridge(jnp.linalg.norm(slope), slack, objective.l2) + jnp.linalg.norm(b) * distance

    def first_order() -> jax.Array:
        curvature = objective.share[:, None] * objective.net.loss.fisher_diagonal(point.eta)
        across, along = objective.split(objective.gradient(jnp.zeros_like(point.theta), curvature))
        assert along is not None
        # |r(b + u) - r(b) - u r'(b)| ≤ (e^{cu} - 1) u r'(b), once for x and once for the step of b that is taken here.
        c = objective.net.loss.concordance
        rest = 2 * reach * jnp.linalg.norm(along * distance * jnp.expm1(c * distance))
        return total(w - across * (b / along)[None], rest)

    whole = total(w, reach * change)
    if objective.net.loss.couples_outputs:
        return whole
    return jax.lax.cond(whole <= enough, lambda: whole, first_order)


def ridge(slope: jax.Array, slack: jax.Array, l2: jax.Array) -> jax.Array:
    """(‖∇_w J‖ + slack)² / (2 l2): how far an l2-strongly convex function is above its minimum at most."""
    return (slope + slack) ** 2 / (2 * l2)


def shift(c: float, error: jax.Array, least: jax.Array) -> jax.Array:
    """How far a bias whose slope is `error` is from its best value at most, `least` the curvature there."""
    fraction = c * error / least
    distance = -jnp.log1p(-jnp.minimum(fraction, 1)) / c if c > 0 else error / least
    return jnp.where(least > 0, distance, jnp.inf)


def sparse(objective: OneLayer, point: Point) -> jax.Array:
    """The bound of an L1 penalty: `proximal.bound`, and what the bias, not yet at its best for w, adds to it."""
    b = objective.split(point.gradient).b
    if b is None:
        return proximal.bound(objective, point, jnp.zeros_like(point.cost))
    distance, change = _bias_distance(objective, point, b)
    slack = _counted(objective, jnp.abs(objective.x).max(axis=1)).max() * change
    return proximal.bound(objective, point, slack) + jnp.linalg.norm(b) * distance


def drift(objective: OneLayer, point: Point, steps: jax.Array, little: jax.Array) -> jax.Array:
    """What to add to every bound because η was carried over `steps` steps, and is not quite that of θ.

    2 max|Δη| Σ |share_i δ_i|. The rounding of products and sums bounds Δη; where that is more than is `little`, and
    where outputs are coupled, η is made anew, at the price of a pass. Higham (2002), section 3.1.
    """
    loss, share = objective.net.loss, objective.share[:, None]

    def slopes(eta: jax.Array) -> jax.Array:
        return _counted(objective, jnp.abs(share * loss.residual(eta, objective.y)).sum(axis=1)).sum()

    def measured() -> jax.Array:
        eta = objective.eta(point.theta)
        moved = _counted(objective, jnp.abs(eta - point.eta).max(axis=1)).max()
        return 2 * moved * jnp.maximum(slopes(eta), slopes(point.eta))

    if loss.couples_outputs:
        return measured()
    far = jnp.sqrt(1 + _reach(objective) ** 2) * point.carried
    far = far if objective.offset is None else far + _counted(objective, jnp.abs(objective.offset).max(axis=1)).max()
    curvature = _counted(objective, (share * loss.fisher_diagonal(point.eta)).sum(axis=1)).sum()
    whole = rounding(loss.concordance, objective.x.shape[1], steps, far, slopes(point.eta), curvature)
    return jax.lax.cond(whole <= little, lambda: whole, measured)


def rounding(
    c: float, d: int, steps: jax.Array | int, far: jax.Array, slopes: jax.Array, curvature: jax.Array
) -> jax.Array:
    """What an η of size `far`, of d products and so many steps, may be wrong by, as an error of the cost."""
    moved = jnp.finfo(far.dtype).eps / 2 * (d + 8 + 4 * jnp.asarray(steps, far.dtype)) * far
    return 2 * moved * (slopes + moved * jnp.exp(c * moved) * curvature)


def _reach(objective: OneLayer) -> jax.Array:
    """max ‖x_i‖."""
    return jnp.sqrt(_counted(objective, (objective.x * objective.x).sum(axis=1)).max())


def _counted(objective: OneLayer, rows: jax.Array) -> jax.Array:
    """Numbers of rows (n,), zero where the weight is: such a row counts for nothing."""
    return jnp.where(objective.share > 0, rows, 0)


def _bias_distance(objective: OneLayer, point: Point, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far b is from its best value at most, and the sum of ‖changes of share_i δ_i‖ on the way."""
    loss, k = objective.net.loss, len(slope)
    c, error = loss.concordance, jnp.linalg.norm(slope)
    if loss.couples_outputs:
        columns = loss.fisher_factor(point.eta)
        curvature = jnp.einsum("cni,cnj->ij", columns, objective.share[None, :, None] * columns)
        least = jnp.linalg.eigvalsh(curvature + jnp.ones((k, k)) / k * jnp.trace(curvature))[0]
    else:
        least = (objective.share[:, None] * loss.fisher_diagonal(point.eta)).sum(axis=0).min()
    distance = shift(c, error, least)
    # Residuals of a loss that is a sum over outputs all move one way with b: their changes add up to that of the slope.
    return distance, distance / 2 if loss.couples_outputs else jnp.abs(slope).sum()


def local(objective: OneLayer, point: Point) -> Certificate:
    """½ e^{ρM} δ², δ the Newton decrement: needs no penalty, but the whole Hessian.

    Within ‖h‖_H ≤ ρ every η_i moves by at most ρ max ‖x̃_i‖_{H⁻¹} ≤ ρ M / c, so the Hessian stays above e^{-ρM} H;
    if ρ = 2 δ e^{ρM} has a solution, J is larger than here on the boundary, and the minimum lies inside.
    """
    hessian, k = objective.hessian(point.eta), objective.net.sizes[1]
    inputs = objective.inputs()
    q = inputs.shape[1]
    diagonal = jnp.diagonal(hessian).reshape(q, k).mean(axis=1)
    scale = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)
    wide = jnp.repeat(scale, k)
    scaled = wide[:, None] * hessian * wide[None]
    if objective.net.loss.couples_outputs:  # a shift common to all outputs changes nothing: give it a curvature
        scaled = scaled + jnp.kron(jnp.diag((objective.ridge() == 0).astype(scaled.dtype)), jnp.ones((k, k)) / k)
    values, vectors = jnp.linalg.eigh(scaled)
    keep = values > 8 * len(values) * jnp.finfo(values.dtype).eps * values[-1]
    turned = jnp.where(keep, (vectors.T @ (wide * point.gradient)) ** 2 / jnp.where(keep, values, 1), 0)
    lengths = jnp.sqrt(_counted(objective, ((inputs * scale[None]) ** 2).sum(axis=1)).max())
    least = jnp.where(keep, values, jnp.inf).min()
    gram = inputs.T @ (objective.share[:, None] * inputs) * scale[:, None] * scale[None]
    # Residuals carry the rounding of a mean of order one, which is all there is where the curvature has died out.
    rounding = jnp.finfo(values.dtype).eps * jnp.sqrt(jnp.trace(gram) / least)
    decrement = jnp.sqrt(turned.sum()) + rounding
    bound = _within(decrement, objective.net.loss.concordance * lengths / jnp.sqrt(least))
    # Where the curvature vanishes no η may move: else the minimum may be far away, or at infinity.
    columns = jnp.where(keep, 0, wide[:, None] * vectors).reshape(q, k, -1)
    moved = jnp.stack([_counted(objective, jnp.abs(inputs @ columns[:, c]).max(axis=1)).max() for c in range(k)])
    # A curvature below what numbers can say is none; its gradient must be none too.
    truly = (moved.max() <= STILL * lengths) & ((wide > 0) | (point.gradient == 0)).all()
    return Certificate(jnp.where(truly & jnp.isfinite(bound), bound, jnp.inf), (~keep).sum())


def definite(objective: OneLayer, point: Point) -> jax.Array:
    """The bound of `local` where the Hessian H is definite, by its Cholesky factor; ∞ where it is not.

    Within ‖h‖_H ≤ ρ no η_i moves by more than ρ (Σ_c x̃_iᵀ [H⁻¹]_cc x̃_i)^½.
    """
    inputs, k = objective.inputs(), objective.net.sizes[1]
    if k == 1:
        hessian = objective.weighted_gram(objective.share * objective.net.loss.fisher_diagonal(point.eta)[:, 0])
    else:
        hessian = objective.hessian(point.eta)
    if objective.net.loss.couples_outputs:  # a shift common to all outputs changes nothing: give it a curvature
        hessian = hessian + jnp.kron(jnp.diag((objective.ridge() == 0).astype(hessian.dtype)), jnp.ones((k, k)) / k)
    scale = jax.lax.rsqrt(jnp.diagonal(hessian))
    lower = jnp.linalg.cholesky(scale[:, None] * hessian * scale[None])
    inverse = solve_triangular(lower, jnp.diag(scale), lower=True)
    columns = inverse.reshape(len(inverse), -1, k)
    moved = jnp.einsum("pac,pbc->ab", columns, columns)
    reach = _counted(objective, ((inputs @ moved) * inputs).sum(axis=1)).max()
    # Residuals carry the rounding of a mean of order one.
    spread = objective.share @ (inputs * inputs)
    rounding = jnp.finfo(scale.dtype).eps * jnp.sqrt((jnp.diagonal(moved) * spread).sum())
    decrement = jnp.linalg.norm(inverse @ point.gradient) + rounding
    bound = _within(decrement, objective.net.loss.concordance * jnp.sqrt(reach))
    # A factor of a Hessian that is nearly singular is made of rounding.
    sound = jnp.linalg.norm(inverse / scale[None]) ** 2 * len(scale) * jnp.finfo(scale.dtype).eps < SINGULAR
    return jnp.where(sound & jnp.isfinite(bound), bound, jnp.inf)


def _within(decrement: jax.Array, m: jax.Array) -> jax.Array:
    """½ e^{u} δ² for the smallest u = 2 δ M e^{u}, come to from above; ∞ where there is none below one."""
    u = jnp.ones_like(decrement)
    for _ in range(4):
        u = 2 * decrement * m * jnp.exp(u)
    return jnp.where(2 * decrement * m * jnp.e < 1, jnp.exp(u) * decrement**2 / 2, jnp.inf)
