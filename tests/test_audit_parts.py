"""The parts of the referee on what is known by hand: lengths of sums, Monte-Carlo roundings, slopes, windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lr_nn.referee.jaxprs import longest_sum, narrowest
from lr_nn.referee.monte_carlo_arithmetic import expected_error
from lr_nn.referee.taylor import STEPS, taylor
from lr_nn.referee.verdicts import errors

EPS = np.finfo(np.float32).eps


def program(function, *arguments):
    return jax.make_jaxpr(function)(*arguments).jaxpr


@pytest.mark.parametrize(
    ("function", "shapes", "length"),
    [
        (lambda x: x * 2, [(5,)], 1),
        (jnp.sum, [(5, 7)], 35),
        (lambda x: x.sum(axis=0), [(5, 7)], 5),
        (jnp.matmul, [(5, 7), (7, 3)], 7),
        (lambda x, w: jax.jit(jnp.matmul)(x, w).sum(), [(5, 7), (7, 3)], 15),
        (jnp.cumsum, [(9,)], 9),
        (lambda x: jax.lax.scan(lambda c, r: (c + r @ r, None), 0.0, x)[0], [(5, 7)], 35),
    ],
)
def test_the_longest_sum_of_a_program(function, shapes, length):
    assert longest_sum(program(function, *map(jnp.ones, shapes))) == length


def test_the_narrowest_type_of_a_program_looks_inside_its_calls():
    def inner(x):
        return jax.jit(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) + 1)(x)

    assert narrowest(program(inner, jnp.ones(3))) == jnp.bfloat16
    assert narrowest(program(lambda x: x + 1, jnp.ones(3))) == np.float32


def test_a_narrow_type_that_rounds_nothing_is_not_the_narrowest():
    def masked(x, y):
        return x * (y > 0).astype(jnp.bfloat16).astype(jnp.float32) + jnp.ones(3, jnp.float16).astype(jnp.float32)

    assert narrowest(program(masked, jnp.ones(3), jnp.ones(3))) == np.float32


def test_a_difference_that_cancels_must_expect_the_roundings_of_what_it_was_made_of(float64):
    # exp(x) is rounded by ε ξ exp(x), ξ uniform with variance 1/3; the difference by hardly more.
    expected = expected_error(lambda x: jnp.exp(x) - np.e)(EPS, jnp.ones(1000))[0]
    assert abs(np.sqrt(np.mean(expected**2)) / (EPS * np.e / 3**0.5) - 1) < 0.1


def test_what_rounds_nothing_expects_nothing(float64):
    (expected,) = expected_error(lambda x: -jnp.flip(x.reshape(2, 3)).T)(EPS, jnp.arange(6.0))
    assert (expected == 0).all()


def test_the_terms_of_a_sum_are_rounded_each(float64):
    # Σ x (1 + ε ξ) has standard deviation ε sqrt(n / 3); rounding the sum itself adds ε n / sqrt(3).
    n = 400
    (expected,) = expected_error(lambda x: x.sum(axis=0) - n)(EPS, jnp.ones((n, 500)))
    assert abs(np.sqrt(np.mean(expected**2)) / (EPS * np.sqrt((n + n**2) / 3)) - 1) < 0.1


def test_errors_are_relative_to_the_leaf_and_to_the_entry_and_in_units_in_the_last_place():
    found = errors(np.array([1.5, 3.0, 8.0]), np.array([1.0, 4.0, 8.0]), np.float32)
    assert found == (1 / 8, 0.25, 0.5 / EPS, 0.25 / EPS)
    assert errors(np.zeros(2), np.array([0.0, 0.0]), np.float32) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "function",
    [
        jax.jit(lambda x: jnp.exp(x) - np.e),
        lambda x: jax.lax.scan(lambda c, r: (c, jnp.exp(r) - np.e), 0.0, x)[1],
        lambda x: jax.nn.relu(jnp.exp(x)) - np.e,
        jax.checkpoint(lambda x: jnp.exp(x) - np.e),
    ],
    ids=["jit", "scan", "custom_jvp", "checkpoint"],
)
def test_calls_are_opened(float64, function):
    (expected,) = expected_error(function)(EPS, jnp.ones(1000))
    assert 0.5 * EPS < np.sqrt(np.mean(expected**2)) < 4 * EPS


def on_a_line(function, slope, curvature=0.0):
    return taylor(function(STEPS), float(function(0.0)), function(-STEPS), slope, curvature)


def test_slopes_of_a_smooth_function():
    found = on_a_line(np.exp, slope=1.0, curvature=1.0)
    np.testing.assert_allclose(found.slopes, [1, 2, 3], atol=0.1)
    assert not found.refuted and not found.kink and 1e-17 < found.floor < 1e-14


@pytest.mark.parametrize("slope", [0.0, 0.99, 1.0001, -1.0])
def test_a_wrong_slope_of_a_smooth_function_is_refuted(slope):
    found = on_a_line(np.exp, slope)
    assert found.refuted and not found.kink and abs(found.slopes[1] - 1) < 0.1


def test_a_slope_that_roundings_hide_is_not_refuted():
    assert not on_a_line(np.exp, slope=1 + 1e-9).refuted


def test_a_remainder_that_vanishes_has_no_slope():
    found = on_a_line(lambda h: 3 + 2 * h, slope=2.0)
    assert np.isnan(found.slopes[1]) and found.windows[1] is None and not found.refuted


@pytest.mark.parametrize(("slope", "between"), [(1.0, True), (0.5, True), (0.0, True), (1.1, False), (-0.1, False)])
def test_at_a_kink_the_slopes_between_its_sides_are_told_from_the_others(slope, between):
    found = on_a_line(lambda h: 1 + np.maximum(h, 0), slope)
    assert found.kink and found.between == between


def test_a_kink_nearby_is_none_here():
    found = on_a_line(lambda h: np.cos(h) + np.maximum(h - 1e-3, 0), slope=0.0)
    assert not found.kink and not found.refuted


def test_values_that_overflow_leave_the_rest():
    found = on_a_line(lambda h: np.where(h > 0.1, np.inf, np.exp(h)), slope=1.0)
    assert abs(found.slopes[1] - 2) < 0.1


def test_a_function_that_saturates_on_the_way_does_not_refute_its_slope():
    found = on_a_line(lambda h: 2e3 + 6e-11 * np.tanh(80 * np.asarray(h)), slope=80 * 6e-11)
    assert not found.refuted


def test_a_small_wrong_slope_beside_a_large_right_one_is_refuted():
    assert on_a_line(lambda h: 5 + 3 * np.sin(h), slope=3.003).refuted
    assert on_a_line(lambda h: 5 + h**2, slope=0.003).refuted
