"""The gradient written by hand beside `jax.grad` of the same cost: how far apart, and how long each takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import lr_nn
from lr_nn import Batch, Layer, Network
from lr_nn.types import Params

by_hand = jax.jit(lr_nn.value_and_gradient)
by_autodiff = jax.jit(jax.value_and_grad(lr_nn.cost, argnums=1))

SAMPLE_SECONDS = 2e-3


class Difference(NamedTuple):
    """Distances between gradients, each the largest over the leaves.

    relative: ‖hand - autodiff‖ / ‖autodiff‖, both in float32. hand_ulp, autodiff_ulp: the largest error against
    float64, in float32 units in the last place of the largest entry of the leaf.
    """

    relative: float
    hand_ulp: float
    autodiff_ulp: float


class StepTimes(NamedTuple):
    """Medians, in seconds, of one value and gradient; `ratio` is the median of hand / autodiff over pairs."""

    hand: float
    autodiff: float
    ratio: float


def random_point(net: Network, seed: int) -> Params:
    """Parameters to compare gradients at: every entry from N(0, 1/d_in), so that no logit is large.

    Not the start of training, where symmetry hides mistakes, nor its end, where what is left of the gradient is
    mostly rounding.
    """
    rng = np.random.default_rng(seed)

    def draw(*shape: int, inputs: int) -> jax.Array:
        return jax.device_put(rng.normal(0, inputs**-0.5, shape).astype(np.float32))

    return tuple(Layer(draw(d_in, d_out, inputs=d_in), draw(d_out, inputs=d_in)) for d_in, d_out in net.shapes)


def gradient_difference(net: Network, params: Params, batch: Batch) -> Difference:
    """Hand against `jax.grad` in float32, and each against `jax.grad` in float64, at the same float32 inputs."""
    with jax.default_matmul_precision("highest"):
        hand = _float64(by_hand(net, params, batch)[1])
        autodiff = _float64(by_autodiff(net, params, batch)[1])
    with jax.enable_x64(True):
        reference = _float64(by_autodiff(net, _float64(params), batch._replace(x=_float64(batch.x)))[1])
    return Difference(
        relative=_largest(lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b), hand, autodiff),
        hand_ulp=_largest(_ulp, hand, reference),
        autodiff_ulp=_largest(_ulp, autodiff, reference),
    )


def step_times(net: Network, params: Params, batch: Batch, repeats: int) -> StepTimes:
    """Both compiled and warm, measured in turn: hand, autodiff, autodiff, hand, ..."""
    functions = (by_hand, by_autodiff)
    with jax.default_matmul_precision("highest"):
        first = [_seconds(function, 1, net, params, batch) for _ in range(2) for function in functions]
        calls = max(1, round(SAMPLE_SECONDS / min(first)))
        samples = []
        for i in range(repeats):
            order = (0, 1) if i % 2 == 0 else (1, 0)
            pair = {which: _seconds(functions[which], calls, net, params, batch) for which in order}
            samples.append((pair[0], pair[1]))
    hand, autodiff = np.array(samples).T
    return StepTimes(*(float(np.median(values)) for values in (hand, autodiff, hand / autodiff)))


def finished(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), once it is there: what to put a clock around."""
    return jax.block_until_ready(function(*args))


def _seconds(function: Callable[..., Any], calls: int, *args: Any) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        result = function(*args)
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / calls


def _float64(tree: Any) -> Any:
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def _largest(distance: Callable[[np.ndarray, np.ndarray], Any], a: Any, b: Any) -> float:
    return max(float(distance(p, q)) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def _ulp(a: np.ndarray, reference: np.ndarray) -> float:
    return np.abs(a - reference).max() / np.spacing(np.abs(reference).max().astype(np.float32))
