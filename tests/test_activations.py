"""Activations and their derivatives from what they keep, against the autodiff of their `jax.nn` twins."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ACTIVATIONS
from tolerances import assert_close, assert_mean_close

from lr_nn import activations

# 0 is among them: there every kink is to be that of the twin.
POINTS = np.concatenate([np.linspace(-4, 4, 25), np.linspace(-12, 12, 5), [-1e-3, 1e-3]])
# 0 is among them, so that errors are measured by the largest slope: autodiff itself loses digits at the ends.
SATURATED = np.concatenate([np.linspace(-50, -18, 16), [0.0], np.linspace(18, 50, 15)])


def kept(activation, z):
    """The argument of the derivatives at z."""
    return activation.kept(z, activation.value(z))


rows = pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=ACTIVATIONS)


def elementwise_gradient(function):
    return jax.jit(jax.grad(lambda z: function(z).sum()))


@rows
def test_the_value_is_that_of_the_twin(float64, row):
    for z in (jnp.asarray(POINTS), jnp.asarray(SATURATED)):
        assert_close(row.activation.value(z), row.twin(z))


@rows
def test_the_derivative_is_that_of_autodiff(float64, row):
    z = jnp.asarray(POINTS)
    assert_close(row.activation.derivative(kept(row.activation, z)), elementwise_gradient(row.twin)(z), condition=8)


@rows
def test_autodiff_of_the_value_is_the_derivative_beside_it_kinks_included(float64, row):
    z = jnp.asarray(POINTS)
    autodiff = elementwise_gradient(row.activation.value)(z)
    assert_close(autodiff, row.activation.derivative(kept(row.activation, z)), condition=8)


@rows
def test_the_second_derivative_is_that_of_autodiff(float64, row):
    z = jnp.asarray(POINTS)
    expected = elementwise_gradient(elementwise_gradient(row.twin))(z)
    assert_close(row.activation.second_derivative(kept(row.activation, z)), expected, condition=32)


@rows
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64], ids=["float32", "bfloat16", "float64"])
def test_derivatives_are_right_and_of_their_dtype_at_saturation(row, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        z = jnp.asarray(SATURATED, dtype)
        a = row.activation.value(z)
        at = row.activation.kept(z, a)
        first, second = row.activation.derivative(at), row.activation.second_derivative(at)
        assert a.dtype == first.dtype == second.dtype == dtype
        assert_close(first, elementwise_gradient(row.twin)(z))
        # The twin loses digits in 1 - σ, beside a second derivative of at most a quarter.
        assert_close(second, elementwise_gradient(elementwise_gradient(row.twin))(z), condition=16)


def test_the_kinks_are_where_the_design_puts_them():
    zero = jnp.zeros(1)

    def slope(activation):
        return activation.derivative(kept(activation, zero))[0]

    assert activations.step.value(zero)[0] == 0
    assert slope(activations.relu) == 0
    assert slope(activations.leaky_relu(0.5)) == slope(activations.elu) == 1


def test_softplus_has_a_slope_where_one_minus_exp_has_lost_it():
    z = jnp.array([-20.0, -30.0])
    a = activations.softplus.value(z)
    assert (1 - jnp.exp(-a) == 0).all()
    assert_close(activations.softplus.derivative(a), np.exp([-20.0, -30.0]))


def test_tanh_is_the_sigmoid_of_twice_z_stretched(float64):
    z = jnp.asarray(POINTS)
    assert_close(activations.tanh.value(z), 2 * np.asarray(activations.sigmoid.value(2 * z)) - 1)


@rows
def test_equal_activations_are_one_and_unequal_ones_are_not(row):
    twin = type(row.activation)(**vars(row.activation))
    assert twin == row.activation and hash(twin) == hash(row.activation) and twin is not row.activation
    others = [other.activation for other in ACTIVATIONS.values() if other is not row]
    assert row.activation not in others
    assert activations.leaky_relu(0.1) != activations.leaky_relu(0.2)


def test_equal_activations_compile_once():
    function = jax.jit(chex.assert_max_traces(lambda activation, z: activation.value(z), n=2), static_argnums=0)
    chex.clear_trace_counter()
    z = jnp.ones(3)
    function(activations.leaky_relu(0.1), z)
    function(activations.leaky_relu(0.1), z)
    function(activations.leaky_relu(0.2), z)
    with pytest.raises(AssertionError, match="traced"):
        function(activations.leaky_relu(0.3), z)


@pytest.mark.parametrize(
    "activation", [*(row.activation for row in ACTIVATIONS.values()), activations.leaky_relu(2)], ids=repr
)
def test_initial_weights_keep_the_scale_of_the_signal(activation):
    """Glorot: Var w = 2 / (d_in + d_out); He: Var w = 2 / ((1 + slope²) d_in), slope 0 for relu and its like."""
    d_in, d_out = 300, 100
    w = activation.initializer()(jax.random.key(0), (d_in, d_out), jnp.float32)
    he = dict.fromkeys(("relu", "silu", "gelu", "gelu_tanh", "sine"), 0.0)
    slope = {**he, "leaky_relu": getattr(activation, "slope", 0.0)}.get(activation.name)
    variance = 2 / (d_in + d_out) if slope is None else 2 / ((1 + slope**2) * d_in)
    draws = np.asarray(w, np.float64).reshape(-1, 1)
    assert_mean_close(draws, [0.0])
    assert_mean_close(draws**2, [variance])


@pytest.mark.parametrize("slope", [0.0, -0.1, float("inf"), float("nan")])
def test_a_leaky_rectifier_needs_a_positive_slope(slope):
    with pytest.raises(ValueError, match="finite slope > 0"):
        activations.leaky_relu(slope)
