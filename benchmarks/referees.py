"""Referees of a gradient, each asked as its authors mean it: does it object?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]


class Problem(Protocol):
    """A value as a function of parameters and data, and NumPy arrays at which its gradient is judged."""

    @property
    def value(self) -> Function: ...
    @property
    def params(self) -> Any: ...
    @property
    def batch(self) -> Any: ...


class Suspect(NamedTuple):
    """A gradient, of the value of its setting, and the dtype in which it is judged."""

    name: str
    setting: Problem
    gradient: Function
    dtype: str


def objects_audit(value: Function, gradient: Function, params: Any, batch: Any) -> bool:
    """`lr_nn.audit` with its defaults."""
    from lr_nn import audit

    return not audit(value, gradient, params, batch).ok


def objects_check_grads(value: Function, gradient: Function, params: Any, batch: Any) -> bool:
    """`jax.test_util.check_grads` of order 1 with its default tolerances, in reverse mode."""
    from jax.test_util import check_grads

    function, leaves = as_custom_vjp(value, gradient, params, batch)
    return _fails(lambda: check_grads(function, leaves, order=1, modes=["rev"]))


def objects_chex(value: Function, gradient: Function, params: Any, batch: Any) -> bool:
    """`chex.assert_numerical_grads` of order 1 with its default tolerances, in reverse mode."""
    import chex

    function, leaves = as_custom_vjp(value, gradient, params, batch)
    return _fails(lambda: chex.assert_numerical_grads(function, leaves, order=1, modes=["rev"]))


def as_custom_vjp(value: Function, gradient: Function, params: Any, batch: Any) -> tuple[Function, tuple[Any, ...]]:
    """The value as a function of the leaves of `params`, whose derivative is `gradient`; and these leaves."""
    leaves, structure = jax.tree.flatten(params)

    @jax.custom_vjp
    def function(*leaves: Any) -> Any:
        return value(jax.tree.unflatten(structure, leaves), batch)

    def forward(*leaves: Any) -> Any:
        return function(*leaves), leaves

    def backward(leaves: Any, cotangent: Any) -> Any:
        slopes = gradient(jax.tree.unflatten(structure, leaves), batch)
        return tuple(cotangent * slope for slope in jax.tree.leaves(slopes))

    function.defvjp(forward, backward)
    return function, tuple(leaves)


def _fails(check: Callable[[], Any]) -> bool:
    try:
        with np.errstate(all="ignore"):
            check()
    except AssertionError:
        return True
    return False


# By name: how it is asked, and in which dtype; None for that of the suspect.
REFEREES: Mapping[str, tuple[Function, str | None]] = {
    "lr_nn.audit": (objects_audit, None),
    "jax.test_util.check_grads": (objects_check_grads, None),
    "jax.test_util.check_grads, float64": (objects_check_grads, "float64"),
    "chex.assert_numerical_grads": (objects_chex, None),
    "chex.assert_numerical_grads, float64": (objects_chex, "float64"),
}


def placed(tree: Any, dtype: Any) -> Any:
    """Arrays of JAX, floats in `dtype`; labels stay integers."""
    return jax.tree.map(lambda a: jnp.asarray(a, dtype if a.dtype.kind == "f" else None), tree)


def trial(suspect: Suspect, referee: str) -> tuple[bool, float]:
    """Whether a referee objects to a gradient, and the seconds that it took, value and gradient being compiled."""
    objects, dtype = REFEREES[referee]
    with jax.enable_x64((dtype or suspect.dtype) == "float64"):
        params, batch = placed((suspect.setting.params, suspect.setting.batch), dtype or suspect.dtype)
        jax.block_until_ready((suspect.setting.value(params, batch), suspect.gradient(params, batch)))
        began = time.perf_counter()
        verdict = objects(suspect.setting.value, suspect.gradient, params, batch)
        return verdict, time.perf_counter() - began
