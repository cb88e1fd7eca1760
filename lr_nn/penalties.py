"""Penalties on the weights: J gains l1 Σ|w| + (l2/2) Σ w². Biases are free unless they have strengths of their own.

Read as a prior (maximum a posteriori), with J a mean over n = Σ s_i examples: l2 is an independent Gaussian
prior on each weight with variance 1/(n·l2); l1 a Laplace prior with scale 1/(n·l1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.trees import common_dtype, widened
from lr_nn.types import Layer, Params

if TYPE_CHECKING:
    from lr_nn.network import Network

__all__ = ["Penalty", "elastic_net", "l1", "l2"]


def __dir__() -> list[str]:
    return __all__


class Penalty(NamedTuple):
    """Strengths of the L1 and L2 penalty.

    Each is one number for all weights ((m,) for m lanes under `vmap`), or a tree like the parameters: for every layer
    a `Layer` of arrays of the shapes of w and b, one strength per coefficient, or of single numbers. None in place of a
    bias leaves it free.

    >>> import jax.numpy as jnp, lr_nn
    >>> by_column = (lr_nn.Layer(jnp.array([[0.0], [2.0]]), 0.5),)
    >>> params = (lr_nn.Layer(jnp.array([[3.0], [1.0]]), jnp.array([2.0])),)
    >>> lr_nn.penalties.l2(by_column).value(params).item()
    2.0
    """

    l1: Any = 0.0
    l2: Any = 0.0

    def value(self, params: Params) -> jax.Array:
        """Σ l1 |w| + (l2/2) w² over the weights of all layers, and the biases that have strengths: a scalar."""
        terms: list[jax.Array] = []

        def add_term(w: jax.Array, l1: jax.Array, l2: jax.Array) -> None:
            # w sign(w), because the derivative of `jnp.abs` at 0 is 1.
            terms.append((l1 * (w * jnp.sign(w)) + l2 / 2 * (w * w)).sum())

        self._map(add_term, lambda _: None, widened(params))
        dtype = common_dtype(*(term.dtype for term in terms))
        return jnp.stack([term.astype(dtype) for term in terms]).sum()

    def gradient(self, params: Params) -> Params:
        """l1 sign(w) + l2 w, with sign(0) = 0 (the subgradient of smallest norm at a kink); zero for free biases."""
        return self._map(lambda w, l1, l2: l1 * jnp.sign(w) + l2 * w, jnp.zeros_like, params)

    def hessian_diagonal(self, params: Params) -> Params:
        """The diagonal of the Hessian, like the parameters: l2, and zero for free biases. l1 has no curvature."""
        return self._map(lambda w, _, l2: jnp.broadcast_to(l2, w.shape), jnp.zeros_like, params)

    def prox(self, params: Params, step: ArrayLike) -> Params:
        """argmin_u ½‖u - w‖² + step · penalty(u) = soft(w, step·l1) / (1 + step·l2); free biases are unchanged.

        soft(w, t) = sign(w) max(|w| - t, 0). Parikh & Boyd (2014), sections 6.1.1 and 6.5.2.
        """

        def shrink(w: jax.Array, l1: jax.Array, l2: jax.Array) -> jax.Array:
            t = jnp.asarray(step, w.dtype)
            return jnp.sign(w) * jnp.maximum(jnp.abs(w) - t * l1, 0) / (1 + t * l2)

        return self._map(shrink, lambda b: b, params)

    def _map(self, penalised: Callable[..., Any], free: Callable[[jax.Array], Any], params: Params) -> Params:
        """penalised(w, l1, l2) of every weight and every bias with strengths, free(b) of the other biases."""

        def of(leaf: jax.Array | None, l1: Any, l2: Any) -> Any:
            if leaf is None:
                return None
            if l1 is None and l2 is None:
                return free(leaf)
            return penalised(
                leaf, *(jnp.asarray(0 if strength is None else strength, leaf.dtype) for strength in (l1, l2))
            )

        layers = zip(params, *(_layers(strength, params) for strength in self))
        return tuple(Layer(of(w, l1.w, l2.w), of(b, l1.b, l2.b)) for (w, b), l1, l2 in layers)


def is_tree(strength: Any) -> bool:
    """True for a strength that is a tree like the parameters; other tuples are numbers of lanes."""
    return isinstance(strength, tuple) and (not strength or any(isinstance(layer, Layer) for layer in strength))


def _layers(strength: Any, params: Params) -> tuple[Layer, ...]:
    """The strengths of every layer; ValueError for a tree that is not like the parameters."""
    if not is_tree(strength):
        return (Layer(strength, None),) * len(params)
    _check_tree("strength", strength, [jnp.shape(layer.w) for layer in params], params[0].b is not None, lanes=False)
    return strength


def check_penalty(penalty: Any, net: Network | None = None, lanes: bool = False) -> None:
    """Raise TypeError if `penalty` is neither a Penalty nor None, ValueError for a strength that will not do.

    Strengths are finite and not negative: single numbers, or, where a network is given, trees like its parameters.
    With `lanes` a leading axis is admitted.
    """
    if penalty is None:
        return
    if not isinstance(penalty, Penalty):
        raise TypeError(f"penalty must be a Penalty, such as lr_nn.penalties.l2(0.1); got {penalty!r}")
    for field, strength in penalty._asdict().items():
        name = f"penalty {field}"
        if is_tree(strength):
            if net is None:
                raise ValueError(
                    f"{name} must be one number for all weights here; strengths like the parameters are for lr_nn.cost "
                    "and its gradient, training, and curvature"
                )
            _check_tree(name, strength, net.shapes, net.bias, lanes)
        elif jnp.ndim(_strength(name, strength)) > lanes:
            expected = "one number, or one a lane, (m,)" if lanes else "a single number here"
            raise ValueError(
                f"{name} must be {expected}; got shape {np.shape(strength)}{'' if lanes else ': use vmap'}"
            )


def _check_tree(name: str, strengths: tuple, shapes: Sequence[tuple[int, ...]], bias: bool, lanes: bool) -> None:
    """Raise ValueError unless `strengths` is like parameters of these shapes, every strength admissible."""
    if len(strengths) != len(shapes) or not all(isinstance(layer, Layer) for layer in strengths):
        raise ValueError(f"{name} must be a number, or {len(shapes)} layers Layer(w, b) like the parameters")
    for number, (layer, shape) in enumerate(zip(strengths, shapes), start=1):
        if layer.w is None or (layer.b is not None and not bias):
            raise ValueError(f"{name} must have a w in every layer, and a b only where the network has one")
        for part, expected in (("w", shape), ("b", shape[1:])):
            strength = getattr(layer, part)
            if strength is None:
                continue
            got = jnp.shape(_strength(f"{name} of {part}_{number}", strength))
            if got not in ((), expected) and not (lanes and got[1:] == expected):
                each = f", or {('m', *expected)} for m lanes".replace("'", "") if lanes else ""
                raise ValueError(f"{name} of {part}_{number} must be a number or of shape {expected}{each}; got {got}")


def l1(strength: Any) -> Penalty:
    """strength · Σ|w|: a Laplace prior; makes weights exactly zero. `strength` is a field of `Penalty`."""
    strength = _strengths(strength)
    return Penalty(l1=strength, l2=_zeros(strength))


def l2(strength: Any) -> Penalty:
    """(strength/2) · Σ w²: a Gaussian prior; shrinks weights. `strength` is a field of `Penalty`."""
    strength = _strengths(strength)
    return Penalty(l1=_zeros(strength), l2=strength)


def elastic_net(strength: Any, l1_ratio: ArrayLike) -> Penalty:
    """strength · (l1_ratio Σ|w| + (1 - l1_ratio)/2 Σ w²), l1_ratio in [0, 1]. Zou & Hastie (2005)."""
    strength, ratio = _strengths(strength), _strength("l1_ratio", l1_ratio)
    check.require("l1_ratio", ratio, lambda r: r <= 1, "at most 1")
    return Penalty(
        l1=jax.tree.map(lambda leaf: leaf * ratio.astype(leaf.dtype), strength),
        l2=jax.tree.map(lambda leaf: leaf * (1 - ratio.astype(leaf.dtype)), strength),
    )


def _zeros(strengths: Any) -> Any:
    """Zeros like `strengths`, concrete where these are traced: a solver without an l1 penalty is a smaller program."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), strengths)


def _strengths(value: Any) -> Any:
    """A strength, or a tree of strengths like the parameters, as checked arrays."""
    if is_tree(value):
        return jax.tree.map(lambda leaf: _strength("strength", leaf), value)
    return _strength("strength", value)


def _strength(name: str, value: ArrayLike) -> jax.Array | np.ndarray:
    """`value` as a floating-point array, finite and not negative where it is concrete."""
    value = check.numeric(name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(np.float32)
    check.require(name, value, check.is_not_negative, "finite and not negative", axis="index")
    return value
