"""How far from the optimum at most: bounds on J(θ) - J*, from convexity, at a point and in its precision.

The argument of `definite` rests on |D³ℓ[u, u, v]| ≤ c ‖v‖ D²ℓ[u, u], c the loss's `concordance`: Bach (2010).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from lr_nn.losses import Loss
from lr_nn.many import proximal
from lr_nn.many.line_search import Point
from lr_nn.many.one_layer import OneLayer
from lr_nn.types import Layer

__all__ = ["definite", "drift", "ridge", "rounding", "shift", "sparse", "strong"]

# The reciprocal condition of a Hessian below which its factor is not believed, relative to its size and rounding.
SINGULAR = 1e-2


def strong(objective: OneLayer, point: Point, enough: jax.Array) -> jax.Array:
    """The bound of an L2 penalty: J minimised over the bias is l2-strongly convex in w.

    (‖∇_w J‖ + R c)² / (2 l2) + ε u, with ε = ‖∇_b J‖, R = max ‖x_i‖, u a bound on the distance of b from its best
    value at w, and c one on the change of the residuals on the way there. Where that is more than `enough`, and the
    outputs are not coupled, the change is computed to first order, at the price of another pass.
    """
    gradient = objective.split(point.gradient)
    if gradient.b is None:
        return ridge(jnp.linalg.norm(gradient.w), jnp.zeros_like(point.cost), objective.l2)
    loss, reach, curvature = objective.net.loss, _reach(objective), bias_curvature(objective, point.eta)
    whole = around_bias(loss, gradient, objective.l2, reach, curvature)
    if loss.couples_outputs:
        return whole

    def first_order() -> jax.Array:
        return along_bias(loss, gradient, objective.l2, reach, curvature, bias_slope(objective, point.eta))

    return jax.lax.cond(whole <= enough, lambda: whole, first_order)


def around_bias(loss: Loss, gradient: Layer, l2: jax.Array, reach: jax.Array, curvature: jax.Array) -> jax.Array:
    """The bound of `strong` from `bias_curvature` alone."""
    assert gradient.b is not None
    distance, change = bias_distance(loss, gradient.b, curvature)
    return ridge(jnp.linalg.norm(gradient.w), reach * change, l2) + jnp.linalg.norm(gradient.b) * distance


def along_bias(
    loss: Loss, gradient: Layer, l2: jax.Array, reach: jax.Array, curvature: jax.Array, slope: Layer
) -> jax.Array:
    """The bound of `strong`, the change of ∇_w J on the way to the best bias to first order, by `bias_slope`."""
    across, along = slope
    assert gradient.b is not None and along is not None
    distance, _ = bias_distance(loss, gradient.b, curvature)
    # |r(b + u) - r(b) - u r'(b)| ≤ (e^{cu} - 1) u r'(b), once for x and once for the step of b that is taken here.
    rest = 2 * reach * jnp.linalg.norm(along * distance * jnp.expm1(loss.concordance * distance))
    turned = gradient.w - across * (gradient.b / along)[None]
    return ridge(jnp.linalg.norm(turned), rest, l2) + jnp.linalg.norm(gradient.b) * distance


def bias_slope(objective: OneLayer, eta: jax.Array) -> Layer:
    """Σ share_i r'(η_i) x̃_i, how fast the gradient changes with the bias, where the outputs are not coupled."""
    curvature = objective.share[:, None] * objective.net.loss.fisher_diagonal(eta)
    return objective.split(objective.gradient(jnp.zeros(objective.size, eta.dtype), curvature))


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
    distance, change = bias_distance(objective.net.loss, b, bias_curvature(objective, point.eta))
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


def bias_curvature(objective: OneLayer, eta: jax.Array) -> jax.Array:
    """∇²J in the bias: (k,), or (k, k) of coupled outputs."""
    loss = objective.net.loss
    if not loss.couples_outputs:
        return (objective.share[:, None] * loss.fisher_diagonal(eta)).sum(axis=0)
    columns = loss.fisher_factor(eta)
    return jnp.einsum("cni,cnj->ij", columns, objective.share[None, :, None] * columns)


def bias_distance(loss: Loss, slope: jax.Array, curvature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far b is from its best value at most, and the sum of ‖changes of share_i δ_i‖ on the way."""
    k = len(slope)
    if loss.couples_outputs:
        least = jnp.linalg.eigvalsh(curvature + jnp.ones((k, k)) / k * jnp.trace(curvature))[0]
    else:
        least = curvature.min()
    distance = shift(loss.concordance, jnp.linalg.norm(slope), least)
    # Residuals of a loss that is a sum over outputs all move one way with b: their changes add up to that of the slope.
    return distance, distance / 2 if loss.couples_outputs else jnp.abs(slope).sum()


def definite(objective: OneLayer, point: Point) -> jax.Array:
    """½ e^{ρM} δ², δ the Newton decrement: needs no penalty, but a Hessian H that is definite; ∞ where it is not.

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
