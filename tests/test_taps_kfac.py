"""Kronecker factors of taps, whose biases lie in leaves of their own layout."""

import jax
import jax.numpy as jnp
import numpy as np
from tolerances import assert_close

from lr_nn import taps
from lr_nn.curvature import kfac

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(7, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=4)


def solved(layout, b, v):
    """(A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹ of a layer whose bias is `layout` of its leaf."""

    def losses(tap, params, x):
        return jnp.square(jnp.tanh(tap.dense(x, params["w"], layout(params["b"])))).sum(axis=1)

    params, direction = ({"w": jnp.asarray(W), "b": jnp.asarray(each)} for each in (b, v))
    return kfac(taps.backprop(losses, params, jnp.asarray(X))).solve(direction, 0.1)


def test_a_bias_may_be_rearranged_in_its_leaf():
    v = np.arange(4.0)
    plain = solved(lambda b: b, B, v)
    turned = solved(lambda b: b.T.reshape(-1), B.reshape(2, 2).T, v.reshape(2, 2).T)
    assert_close(turned["w"], plain["w"], 50)
    assert_close(turned["b"].T.reshape(-1), plain["b"], 50)


def test_a_bias_that_is_a_part_of_its_leaf_is_left_to_the_diagonal():
    found = solved(lambda b: b[:4], np.concatenate([B, B]), np.ones(8))
    gradients = jax.vmap(jax.grad(lambda b, x: jnp.square(jnp.tanh(x @ W + b)).sum()), (None, 0))(B, jnp.asarray(X))
    second_moment = jnp.concatenate([jnp.square(gradients).mean(axis=0), jnp.zeros(4)])
    assert_close(found["b"], 1 / (second_moment + 0.1), 50)


def test_a_bias_beside_a_transposed_matrix_is_left_to_the_diagonal():
    square = RNG.normal(size=(3, 3))

    def losses(tap, params, x):
        return jnp.square(jnp.tanh(tap.dense(x, params["w"].T, params["b"]))).sum(axis=1)

    params = {"w": jnp.asarray(square), "b": jnp.asarray(B[:3])}
    found = kfac(taps.backprop(losses, params, jnp.asarray(X))).multiply(params)
    deltas = jax.vmap(jax.grad(lambda z: jnp.square(jnp.tanh(z)).sum()))(jnp.asarray(X @ square.T + B[:3]))
    assert_close(found["w"], (deltas.T @ deltas) @ square @ (X.T @ X) / 7**2, 50)
    assert_close(found["b"], jnp.square(deltas).mean(axis=0) * B[:3], 50)
