"""The cost of a one-layer network as a function of the flat vector θ = (w, b), in terms that solvers use.

η is linear in θ: along a direction it moves by η̇ = x ẇ + ḃ, so a line search reads `x` once, however many steps
it tries, and the gradient once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from lr_nn.many.line_search import Line, OnLine, Point
from lr_nn.network import Network, n_parameters
from lr_nn.row_sums import weight_gradient, weighted
from lr_nn.types import Layer

__all__ = ["OneLayer"]

# So many numbers are one core's work.
SMALL = 2**17


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneLayer:
    """J(θ) = Σ share_i ℓ_i + (l2/2) Σ w², smooth, with `share` = s / Σ s, `y` encoded, `offset` None or (n, k).

    The strength `l1` is carried for the solver that knows what to do with l1 Σ |w|; costs and gradients here are
    without it. `l2` is a number, or (d, 1), one for each row of w.
    """

    x: jax.Array
    y: jax.Array
    share: jax.Array
    offset: jax.Array | None
    l2: jax.Array
    l1: jax.Array
    net: Network = field(metadata={"static": True})

    @property
    def size(self) -> int:
        """The number of parameters."""
        return n_parameters(self.net)

    def split(self, theta: Any) -> Layer:
        """θ as weights (d, k) and bias (k,)."""
        d, k = self.net.sizes
        return Layer(theta[: d * k].reshape(d, k), theta[d * k :] if self.net.bias else None)

    def join(self, layer: Layer) -> jax.Array:
        """The inverse of `split`."""
        return layer.w.reshape(-1) if layer.b is None else jnp.concatenate([layer.w.reshape(-1), layer.b])

    def predictor(self, theta: jax.Array) -> jax.Array:
        """x w + b without the offset: linear in θ."""
        w, b = self.split(theta)
        eta = self.x @ w
        return eta if b is None else eta + b[None]

    def eta(self, theta: jax.Array) -> jax.Array:
        """x w + b + offset."""
        eta = self.predictor(theta)
        return eta if self.offset is None else eta + self.offset

    def at(self, theta: jax.Array) -> Point:
        """Everything at θ."""
        eta = self.eta(theta)
        residual = weighted(self.net.loss.residual(eta, self.y), self.share)
        return Point(theta, eta, self.cost(theta, eta), self.gradient(theta, residual), jnp.linalg.norm(theta))

    def cost(self, theta: jax.Array, eta: jax.Array) -> jax.Array:
        """J at θ, whose η is at hand."""
        w = self.split(theta).w
        return (self.share * self.net.loss.value(eta, self.y)).sum() + (self.l2 / 2 * w * w).sum()

    def line(self, point: Point, direction: jax.Array) -> Line:
        """J(θ + t direction) as a function of t: one reading of `x` for η̇, and one more where a step is taken."""
        eta_dot = self.predictor(direction)
        w, w_dot = self.split(point.theta).w, self.split(direction).w
        here, flat, bend = ((self.l2 * a * b).sum() for a, b in ((w, w), (w, w_dot), (w_dot, w_dot)))

        def at(t: jax.Array) -> OnLine:
            eta = point.eta + t * eta_dot
            residual = weighted(self.net.loss.residual(eta, self.y), self.share)
            cost = (self.share * self.net.loss.value(eta, self.y)).sum() + here / 2 + t * flat + t * t / 2 * bend
            return OnLine(cost, (residual * eta_dot).sum() + flat + t * bend, residual)

        def land(t: jax.Array, found: OnLine) -> Point:
            theta = point.theta + t * direction
            carried = point.carried + jnp.abs(t) * jnp.linalg.norm(direction)
            return Point(theta, point.eta + t * eta_dot, found.cost, self.gradient(theta, found.carry), carried)

        return Line(at, land)

    def bound(self, point: Point, decrement: jax.Array) -> jax.Array:
        """‖∇_w J‖² / (2 l2) by strong convexity; without an L2 penalty, the decrement."""
        w = self.split(point.gradient).w
        least = self.l2.min()
        return jnp.where(least > 0, (w * w).sum() / (2 * jnp.where(least > 0, least, 1)), decrement)

    def gradient(self, theta: jax.Array, residual: jax.Array) -> jax.Array:
        """∇J from the residuals at θ: xᵀ residual + l2 w, and Σ residual."""
        w, b = self.split(theta)
        # Of one output: a product and a sum, which XLA:CPU makes on all cores; a matrix times a vector, on one.
        alone = w.shape[1] == 1 and self.x.size > SMALL
        total = (self.x * residual).sum(axis=0)[:, None] if alone else weight_gradient((self.x, residual))
        by_weight = total + self.l2 * w
        return self.join(Layer(by_weight, None if b is None else residual.sum(axis=0)))

    def weighted_gram(self, weight: jax.Array) -> jax.Array:
        """Σ weight_i x̃_i x̃_iᵀ + l2, (q, q), x̃ with the constant 1 of the bias last."""
        rows = weighted(self.x, weight)
        gram = self.x.T @ rows
        if self.net.bias:
            edge = rows.sum(axis=0)
            gram = jnp.block([[gram, edge[:, None]], [edge[None], weight.sum().reshape(1, 1)]])
        return gram + jnp.diag(self.ridge())

    def hessian(self, eta: jax.Array) -> jax.Array:
        """∇²J at η, (p, p), of a canonical loss: Σ share_i Σ_c (x̃_i ⊗ f_ic)(x̃_i ⊗ f_ic)ᵀ + l2, f the Fisher factor."""
        inputs = self.inputs()
        total = jnp.diag(jnp.repeat(self.ridge(), self.net.sizes[1]))

        def add(total: jax.Array, column: jax.Array):
            rows = jnp.einsum("na,nk->nak", inputs, column).reshape(len(inputs), -1)
            return total + rows.T @ weighted(rows, self.share), None

        return jax.lax.scan(add, total, self.net.loss.fisher_factor(eta))[0]

    def centred(self, theta: jax.Array) -> jax.Array:
        """θ less its mean over the outputs of a loss that couples them, where a shift common to all changes no ℓ_i.

        With an L2 penalty the optimum is centred, and gradients at centred points are.
        """
        if not self.net.loss.couples_outputs:
            return theta
        w, b = self.split(theta)
        return self.join(Layer(w - w.mean(axis=1, keepdims=True), None if b is None else b - b.mean()))

    def centred_point(self, point: Point) -> Point:
        """The point with its θ centred, and its η with it."""
        if not self.net.loss.couples_outputs:
            return point
        shift = (point.eta if self.offset is None else point.eta - self.offset).mean(axis=1, keepdims=True)
        return point._replace(theta=self.centred(point.theta), eta=point.eta - shift)

    def ridge(self) -> jax.Array:
        """The strengths l2 of the rows of θ as (d + 1, k): none for the bias."""
        strengths = jnp.broadcast_to(self.l2, (self.x.shape[1], 1))[:, 0]
        return jnp.append(strengths, 0) if self.net.bias else strengths

    def inputs(self) -> jax.Array:
        """x with the constant 1 of the bias last: row a of θ, as (d + 1, k), multiplies its column a."""
        ones = jnp.ones((self.x.shape[0], int(self.net.bias)), self.x.dtype)
        return jnp.concatenate([self.x, ones], axis=1)
