"""Penalties on the weights: J gains l1 Σ|w| + (l2/2) Σ w². Biases are free.

Read as a prior (maximum a posteriori), with J a mean over n = Σ s_i examples: l2 is an independent Gaussian
prior on each weight with variance 1/(n·l2); l1 a Laplace prior with scale 1/(n·l1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.trees import common_dtype, widened
from lr_nn.types import Layer, Params

__all__ = ["Penalty", "elastic_net", "l1", "l2"]


def __dir__() -> list[str]:
    return __all__


class Penalty(NamedTuple):
    """Strengths of the L1 and L2 penalty: numbers, or arrays of shape (m,) for m lanes under `vmap`."""

    l1: Any = 0.0
    l2: Any = 0.0

    def value(self, params: Params) -> jax.Array:
        """l1 Σ|w| + (l2/2) Σ w² over the weights of all layers: a scalar."""
        # w sign(w), because the derivative of `jnp.abs` at 0 is 1.
        weights = widened([w for w, _ in params])
        terms = [self._l1(w) * (w * jnp.sign(w)).sum() + self._l2(w) / 2 * (w * w).sum() for w in weights]
        dtype = common_dtype(*(term.dtype for term in terms))
        return jnp.stack([term.astype(dtype) for term in terms]).sum()

    def gradient(self, params: Params) -> Params:
        """l1 sign(w) + l2 w, with sign(0) = 0 (the subgradient of smallest norm at a kink); zero for biases."""
        return tuple(
            Layer(self._l1(w) * jnp.sign(w) + self._l2(w) * w, None if b is None else jnp.zeros_like(b))
            for w, b in params
        )

    def hessian_diagonal(self, params: Params) -> Params:
        """The diagonal of the Hessian, like the parameters: l2 for weights, zero for biases. l1 has no curvature."""
        return tuple(
            Layer(jnp.broadcast_to(self._l2(w), w.shape), None if b is None else jnp.zeros_like(b)) for w, b in params
        )

    def prox(self, params: Params, step: ArrayLike) -> Params:
        """argmin_u ½‖u - w‖² + step · penalty(u) = soft(w, step·l1) / (1 + step·l2); biases unchanged.

        soft(w, t) = sign(w) max(|w| - t, 0). Parikh & Boyd (2014), sections 6.1.1 and 6.5.2.
        """

        def shrink(w):
            t = jnp.asarray(step, w.dtype)
            return jnp.sign(w) * jnp.maximum(jnp.abs(w) - t * self._l1(w), 0) / (1 + t * self._l2(w))

        return tuple(Layer(shrink(w), b) for w, b in params)

    def _l1(self, w: jax.Array) -> jax.Array:
        return jnp.asarray(self.l1, w.dtype)

    def _l2(self, w: jax.Array) -> jax.Array:
        return jnp.asarray(self.l2, w.dtype)


def check_penalty(penalty: Any, lanes: bool = False) -> None:
    """Raise TypeError if `penalty` is neither a Penalty nor None, ValueError for a strength that will not do.

    Strengths are finite, not negative, and single numbers: arrays (m,) only where there are `lanes`.
    """
    if penalty is None:
        return
    if not isinstance(penalty, Penalty):
        raise TypeError(f"penalty must be a Penalty, such as lr_nn.penalties.l2(0.1); got {penalty!r}")
    for name, strength in penalty._asdict().items():
        if jnp.ndim(_strength(f"penalty {name}", strength)) > lanes:
            raise ValueError(f"penalty {name} must be a single number here; got shape {jnp.shape(strength)}: use vmap")


def l1(strength: ArrayLike) -> Penalty:
    """strength · Σ|w|: a Laplace prior; makes weights exactly zero."""
    strength = _strength("strength", strength)
    return Penalty(l1=strength, l2=0 * strength)


def l2(strength: ArrayLike) -> Penalty:
    """(strength/2) · Σ w²: a Gaussian prior; shrinks weights."""
    strength = _strength("strength", strength)
    return Penalty(l1=0 * strength, l2=strength)


def elastic_net(strength: ArrayLike, l1_ratio: ArrayLike) -> Penalty:
    """strength · (l1_ratio Σ|w| + (1 - l1_ratio)/2 Σ w²), l1_ratio in [0, 1]. Zou & Hastie (2005)."""
    strength, ratio = _strength("strength", strength), _strength("l1_ratio", l1_ratio)
    check.require("l1_ratio", ratio, lambda r: r <= 1, "at most 1")
    ratio = ratio.astype(strength.dtype)
    return Penalty(l1=strength * ratio, l2=strength * (1 - ratio))


def _strength(name: str, value: ArrayLike) -> jax.Array | np.ndarray:
    """`value` as a floating-point array, finite and not negative where it is concrete."""
    value = check.numeric(name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(np.float32)
    check.require(name, value, check.is_not_negative, "finite and not negative")
    return value
