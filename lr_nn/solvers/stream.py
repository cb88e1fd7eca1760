"""A fit of rows that do not fit into memory: begun on a sample, with its curvature, in a few passes over all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.losses import Loss
from lr_nn.solvers import certificate, passes, preconditioner, problem
from lr_nn.solvers import memory as pairs
from lr_nn.solvers.bounds import capped, uncapped
from lr_nn.solvers.certificate import Spectrum
from lr_nn.solvers.line_search import Point
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.passes import Ask, Source
from lr_nn.solvers.preconditioner import Factor
from lr_nn.solvers.run import Found
from lr_nn.types import Layer

__all__ = ["Certified", "Cost", "Place", "begin", "certify", "search"]

# Pairs of L-BFGS, trials of a length, idle steps, and how much of its promise a step must keep.
MEMORY, TRIALS, IDLE, ENOUGH = 10, 20, 3, 1e-4
# What the first step leaves of a decrement, and the decrement at which float32 is no longer good.
SHRINKS, NARROW = 1e-2, 1e-8

Model = Spectrum | Factor


class Place(NamedTuple):
    """θ, J there and its gradient, on the host."""

    theta: np.ndarray
    cost: float
    gradient: np.ndarray


@dataclass
class Cost:
    """J = Σ s ℓ / `total` + (l2/2) Σ w² over a source; the penalties and the network are those of `shell`.

    `every`: of which share of the blocks a Hessian is made, 0: of none; `worn`: what a step leaves of the decrement
    if the next is to have a new one; `narrow`: is float32 good enough to begin with? `dtype` is that of θ, `eta` the
    best constant model, `ceiling` tol · J₀.
    """

    source: Source
    shell: OneLayer
    dtype: np.dtype
    every: int
    worn: float
    narrow: bool
    passes: int = 0
    total: float = 1.0
    eta: Any = None
    ceiling: float = 0.0

    def ask(self, asks: dict[str, Ask], admitted: bool = True) -> dict[str, Any]:
        """One pass, its answers by name."""
        self.passes += 1
        return dict(zip(asks, self.source.over(*asks.values(), admitted=admitted)))

    def values(self, theta: np.ndarray, narrow: bool) -> Ask:
        """J and its gradient at θ."""
        return Ask(passes.values, (theta,), np.float32 if narrow else np.float64)

    def curvature(self, theta: np.ndarray) -> Ask:
        """The Hessian at θ, of some blocks."""
        return Ask(passes.curvature, (theta,), every=self.every)

    def report(self, theta: np.ndarray) -> dict[str, Ask]:
        """What every bound asks."""
        asks = {"extent": Ask(passes.extent, (), np.float32 if self.narrow else np.float64)}
        return {**asks, "bias": Ask(passes.bias, (theta,))} if float(self.shell.l2) > 0 else asks

    def point(self, theta: np.ndarray, found: dict[str, Any]) -> Place:
        """What a pass found at θ."""
        (cost, gradient), _ = found["values"]
        w, l2 = self.shell.split(theta).w, float(self.shell.l2)
        gradient = gradient / self.total
        gradient[: w.size] += l2 * w.reshape(-1)
        return Place(theta, float(cost) / self.total + l2 / 2 * float((w * w).sum()), gradient)

    def spectrum(self, found: dict[str, Any], likely: bool) -> Spectrum:
        """Of the likely Hessian of all rows, or of one that is certainly not above it."""
        (weight, hessian), _ = found["curvature"]
        ridge = np.asarray(self.shell.ridge(), np.float64)
        hessian = hessian / (weight if likely else self.total) + np.diag(np.repeat(ridge, self.shell.net.sizes[1]))
        return _spectrum(hessian, self.shell.net.loss, ridge)

    def strong(self, point: Place) -> float:
        """The bound by the L2 penalty, but for the bias."""
        w, l2 = self.shell.split(point.gradient).w, float(self.shell.l2)
        return float((w * w).sum()) / (2 * l2) if l2 > 0 else np.inf

    def needs_curvature(self, point: Place) -> bool:
        """Will the penalty, one step further, not give the bound?"""
        return self.strong(point) * SHRINKS > self.ceiling

    def estimate(self, point: Place, decrement: float) -> float:
        """A bound on J - J*, roughly: by the L2 penalty or by the decrement."""
        return min(self.strong(point), decrement) if self.every or not float(self.shell.l2) else self.strong(point)


class Certified(NamedTuple):
    """A point, a bound on J - J* there, and the directions that change no prediction."""

    point: Place
    bound: float
    flat: int


_spectrum = jax.jit(certificate.spectrum, static_argnames="loss")
_within = jax.jit(certificate.within, static_argnames="loss")
_remember = jax.jit(pairs.remember)


@jax.jit
def _direction(memory: pairs.Memory, gradient: jax.Array, model: Model, shell: OneLayer) -> jax.Array:
    """-H ∇J, H the pairs and the model."""

    def first(q: jax.Array) -> jax.Array:
        if isinstance(model, Factor):
            return shell.centred(preconditioner.solve(shell, model, q))
        wide = jnp.repeat(model.scale, len(model.values) // len(model.scale))
        inverse = jnp.where(model.keep, 1 / jnp.where(model.keep, model.values, 1), 0)
        return shell.centred(wide * (model.vectors @ (inverse * (model.vectors.T @ (wide * q)))))

    return -pairs.multiply(memory, gradient, first)


def begin(cost: Cost, theta: np.ndarray, unknown: bool) -> tuple[Place, Spectrum | None]:
    """The first pass: rows are checked, weights added up, J is found at θ, and the Hessian there if it is unknown."""
    asks = {"look": Ask(passes.look), "values": cost.values(theta, cost.narrow)}
    known = {"curvature": cost.curvature(theta)} if unknown and cost.every else {}
    found = cost.ask({**asks, **known}, admitted=False)
    (total, sums), (highest, lowest) = found["look"]
    if not total > 0:
        raise ValueError("weight is zero for every example; at least one must be positive")
    cost.total = float(total)
    mean = np.clip(sums / total, -lowest, highest)
    cost.eta = np.asarray(problem.constant_eta(cost.source.net, jnp.asarray(mean)))
    if not np.isfinite(cost.point(theta, found).cost):
        passes.refuse_what_is_not_finite(cost.source)
        # Numbers beyond float32, or a sample that misleads: from the best constant model, in float64.
        cost.narrow, theta = False, np.zeros_like(theta)
        theta[theta.size - len(cost.eta) :] = cost.eta if cost.source.net.bias else 0
        anew = {"curvature": cost.curvature(theta)} if cost.every else {}
        found = cost.ask({"values": cost.values(theta, False), **anew})
    return cost.point(theta, found), cost.spectrum(found, likely=True) if "curvature" in found else None


def search(cost: Cost, point: Place, model: Model, tol: float, max_steps: int) -> Found:
    """Steps of L-BFGS from the model, which is made anew where it is `worn`, until a bound on J - J* is within
    tol · J₀.

    In float32 while that is good. The step after the estimate of the bound is met is the last: its pass makes what
    the bound asks for.
    """
    memory = pairs.empty(MEMORY, jnp.asarray(point.theta))
    steps = idle = 0
    before, rough, best = np.inf, True, Certified(point, np.inf, 0)
    while steps < max_steps and idle < IDLE and np.isfinite(point.cost):
        along, slope = _downhill(memory, point, model, cost.shell)
        shrinks = min(1.0, -slope / before) if 0 < before < np.inf else SHRINKS
        last = cost.estimate(point, -slope) <= cost.ceiling
        renew = bool(cost.every) and (shrinks > cost.worn or (last and cost.needs_curvature(point)))
        narrow = cost.narrow and not last and idle == 0 and -slope * shrinks > NARROW

        def asks(theta: np.ndarray, last=last, renew=renew) -> dict[str, Ask]:
            constant = {"above": Ask(passes.above, (cost.eta,))} if cost.ceiling == 0 else {}
            known = {"curvature": cost.curvature(theta)} if renew else {}
            return {**constant, **known, **(cost.report(theta) if last else {})}

        new, found = _advance(cost, point, along, slope, narrow, rough, asks)
        steps, before, rough = steps + 1, -slope, narrow
        if cost.ceiling == 0:
            (excess, far), _ = found["above"]
            cost.ceiling = tol * float(problem.achievable(excess / cost.total, far / cost.total))
        gained = new.cost < point.cost or np.linalg.norm(new.gradient) < np.linalg.norm(point.gradient)
        memory = _remember(memory, new.theta - point.theta, new.gradient - point.gradient)
        point = new
        if renew:
            model, memory = cost.spectrum(found, likely=True), pairs.empty(MEMORY, jnp.asarray(point.theta))
        if last:
            certified = certify(cost, point, found)
            gained = gained and certified.bound < best.bound
            best = min(best, certified, key=lambda each: each.bound)
            if best.bound <= cost.ceiling or not (cost.every or float(cost.shell.l2) > 0):
                break
        idle = 0 if gained else idle + 1
    if best.bound == np.inf and np.isfinite(point.cost):
        known = {"curvature": cost.curvature(point.theta)} if cost.every else {}
        found = cost.ask({"values": cost.values(point.theta, False), **known, **cost.report(point.theta)})
        best = certify(cost, cost.point(point.theta, found), found)
    point = best.point
    largest = float(np.abs(point.gradient).max())
    reached = Point(*map(jnp.asarray, (point.theta, 0.0, point.cost, point.gradient, 0.0)))
    return Found(cost.shell, reached, steps, point.cost, largest, best.bound, best.flat)


def _downhill(memory: pairs.Memory, point: Place, model: Model, shell: OneLayer) -> tuple[np.ndarray, float]:
    """A direction, and the slope of J along it: not above zero."""
    along = np.asarray(_direction(memory, jnp.asarray(point.gradient), model, shell))
    slope = float(along @ point.gradient)
    if np.isfinite(along).all() and slope <= 0:
        return along, slope
    return -point.gradient, -float(point.gradient @ point.gradient)


def _advance(
    cost: Cost,
    point: Place,
    along: np.ndarray,
    slope: float,
    narrow: bool,
    rough: bool,
    asks: Callable[[np.ndarray], dict[str, Ask]],
) -> tuple[Place, dict[str, Any]]:
    """The point a full step along, or a shorter one where that gains nothing, and what its pass found beside."""
    t = 1.0
    slack = 16 * float(np.finfo(np.float32 if narrow or rough else np.float64).eps) * (1 + abs(point.cost))
    for _ in range(TRIALS):
        theta = (point.theta + t * along).astype(cost.dtype).astype(np.float64)
        found = cost.ask({"values": cost.values(theta, narrow), **asks(theta)})
        new = cost.point(theta, found)
        if new.cost <= point.cost + ENOUGH * t * slope + slack:
            break
        there = float(along @ new.gradient)
        secant = slope / (slope - there) if np.isfinite(there) and there > slope else 0.0
        t *= min(max(secant, 0.1), 0.5)
    return new, found


def certify(cost: Cost, point: Place, found: dict[str, Any]) -> Certified:
    """The bounds of `certificate` at a point, from what its pass found."""
    shell, loss = cost.shell, cost.shell.net.loss
    squares, largest = found["extent"]
    gradient, l2, bounds, flat = shell.split(jnp.asarray(point.gradient)), jnp.asarray(shell.l2), [np.inf], 0
    if "bias" in found:
        curvature, slope = jax.tree.map(lambda a: jnp.asarray(a / cost.total), found["bias"][0])
        far = jnp.sqrt(jnp.asarray(largest[: shell.net.sizes[0]].sum()))
        bounds.append(float(uncapped(_strong(loss, gradient, l2, far, curvature, slope))))
    if "curvature" in found:
        spectrum = cost.spectrum(found, likely=False)
        if cost.every > 1 and not spectrum.keep.all():
            cost.every = 1
            spectrum = cost.spectrum(cost.ask({"curvature": cost.curvature(point.theta)}), likely=False)
        lengths, moved = np.sqrt(np.asarray(spectrum.scale) ** 2 @ largest), np.zeros(())
        if not spectrum.keep.all():
            moves = Ask(passes.moves, (spectrum.scale, certificate.flat(spectrum)))
            _, (lengths, moved) = cost.ask({"moves": moves})["moves"]
            lengths = np.sqrt(lengths)
        local = _within(loss, point.gradient, spectrum, lengths, squares / cost.total, moved)
        bounds, flat = [*bounds, float(uncapped(local.bound))], int(local.flat)
    return Certified(point, min(bounds), flat)


@partial(jax.jit, static_argnames="loss")
def _strong(
    loss: Loss, gradient: Layer, l2: jax.Array, far: jax.Array, curvature: jax.Array, slope: Layer | None
) -> jax.Array:
    """The smallest bound by the L2 penalty, capped."""
    if gradient.b is None:
        return capped(certificate.ridge(jnp.linalg.norm(gradient.w), jnp.zeros(()), l2))
    whole = certificate.around_bias(loss, gradient, l2, far, curvature)
    if slope is None:
        return capped(whole)
    return capped(jnp.fmin(whole, certificate.along_bias(loss, gradient, l2, far, curvature, slope)))
