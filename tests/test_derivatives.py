"""Derivatives of orders 1 to 4 of losses, activations and probabilities, at ties and far out, against closed forms.

The references are written in NumPy with float64: derivatives of the sigmoid are polynomials in its value, those of
log Σ e^η along a direction are the cumulants of that direction under the softmax.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import ACTIVATIONS, LOSSES
from numpy.polynomial import HermiteE, Polynomial
from tolerances import assert_close

from lr_nn import activations, losses, probability

POINTS = np.array([0.0, -0.0, 1e-3, -1e-3, 1.0, -1.0, 30.0, -30.0, 1e4, -1e4])
# Where e^η is not so large that errors relative to it hide all others.
BELOW = np.array([0.0, -0.0, 1e-3, -1e-3, 1.0, -1.0, -30.0, -1e4])
ORDERS = 5
CONDITION = 8


def sigmoid_polynomial(polynomial, z, order):
    """The derivative of polynomial(σ(z)): that of p(σ) is p'(σ) σ (1 - σ). At -|z|, where σ keeps its digits."""
    flipped = polynomial(Polynomial([1, -1]))  # p(σ(z)) = p(1 - σ(-z))
    slope = Polynomial([0, 1, -1])
    for _ in range(order):
        polynomial, flipped = polynomial.deriv() * slope, flipped.deriv() * slope * -1
    small = np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z)))
    return np.where(z > 0, flipped(small), polynomial(small))


def sigmoid(z, order):
    return sigmoid_polynomial(Polynomial([0, 1]), z, order)


def softplus(z, order):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) if order == 0 else sigmoid(z, order - 1)


def tanh(z, order):
    return 2.0 ** (order + 1) * sigmoid(2 * z, order) - (order == 0)


def line(z, order, slope):
    return slope * z if order == 0 else (slope + 0 * z) * (order == 1)


def powers(z, order, exponent):
    """z^exponent, of either sign."""
    return math.prod(exponent - i for i in range(order)) * z ** float(exponent - order)


def logarithm(z, order):
    return np.log(z) if order == 0 else powers(z, order - 1, -1)


def density(z, order):
    """φ^(m)(z) = (-1)^m He_m(z) φ(z), with Hermite's polynomials; 0 for m = -1 stands for Φ."""
    if order < 0:
        return scipy.stats.norm.cdf(z)
    z = np.clip(z, -60, 60)  # φ is 0 there, where powers of z are not
    return (-1) ** order * HermiteE.basis(order)(z) * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def times_z(function):
    """Derivatives of z f(z): z f^(m) + m f^(m-1)."""
    return lambda z, m: z * function(z, m) + (m * function(z, m - 1) if m else 0)


def softsign(z, order):
    """z / (1 + |z|); with |·|'(0) = 0 all derivatives at 0 but the first are 0."""
    size, side = 1 + np.abs(z), np.where(z < 0, -1.0, 1.0)
    if order == 0:
        return z / size
    found = math.factorial(order) * (-side / size) ** (order - 1) / size**2
    return np.where(z == 0, order == 1, found)


def sigmoid_of_cubic(z, order):
    """Derivatives of sigmoid(c (z + b z³)) by the formula of Faà di Bruno."""
    b, c = 0.044715, 2 * math.sqrt(2 / math.pi)
    z = np.clip(z, -60, 60)
    inner = (c * (z + b * z**3), c * (1 + 3 * b * z**2), c * 6 * b * z, c * 6 * b + 0 * z, 0 * z)
    f = [sigmoid(inner[0], m) for m in range(5)]
    g = inner
    return (
        f[0],
        f[1] * g[1],
        f[2] * g[1] ** 2 + f[1] * g[2],
        f[3] * g[1] ** 3 + 3 * f[2] * g[1] * g[2] + f[1] * g[3],
        f[4] * g[1] ** 4 + 6 * f[3] * g[1] ** 2 * g[2] + f[2] * (3 * g[2] ** 2 + 4 * g[1] * g[3]) + f[1] * g[4],
    )[order]


ACTIVATION_REFERENCES = {
    "identity": lambda z, m: line(z, m, 1),
    "step": lambda z, m: (z > 0) * float(m == 0),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": lambda z, m: line(z, m, z > 0),
    "leaky_relu": lambda z, m: line(z, m, np.where(z >= 0, 1, 0.125)),
    "elu": lambda z, m: np.where(z > 0, line(z, m, 1), np.exp(np.minimum(z, 0)) - (m == 0)),
    "softplus": softplus,
    "silu": times_z(sigmoid),
    "gelu": times_z(lambda z, m: density(z, m - 1)),
    "gelu_tanh": times_z(sigmoid_of_cubic),
    "sine": lambda z, m: np.sin(z + m * np.pi / 2),
    "softsign": softsign,
}

LOSS_REFERENCES = {
    "squared_error": lambda z, y, m: ((z - y) ** 2 / 2, z - y, 1 + 0 * z, 0 * z, 0 * z)[m],
    "absolute_error": lambda z, y, m: (np.abs(z - y), np.sign(z - y), 0 * z, 0 * z, 0 * z)[m],
    "huber": lambda z, y, m: np.where(
        np.abs(z - y) <= 1.25,
        ((z - y) ** 2 / 2, z - y, 1 + 0 * z, 0 * z, 0 * z)[m],
        (1.25 * (np.abs(z - y) - 0.625), 1.25 * np.sign(z - y), 0 * z, 0 * z, 0 * z)[m],
    ),
    "bernoulli": lambda z, y, m: softplus(z, m) - y * line(z, m, 1),
    "poisson": lambda z, y, m: np.exp(z) - y * line(z, m, 1),
    "squared_error of sigmoid": lambda z, y, m: sigmoid_polynomial(Polynomial([-y, 1]) ** 2 / 2, z, m),
    "squared_error of relu": lambda z, y, m: np.where(
        z > 0, ((z - y) ** 2 / 2, z - y, 1 + 0 * z, 0 * z, 0 * z)[m], y**2 / 2 * (m == 0)
    ),
    "poisson of softplus": lambda z, y, m: np.exp(z) + (m == 0) - y * softplus(z, m),
}


@jax.jit(static_argnums=0)
def by_both_modes(function, z):
    """Derivatives of orders 0 to 4 of an elementwise function, by nested `jax.jvp` and by nested `jax.grad`."""
    forward, backward = [function], [function]
    for _ in range(ORDERS - 1):
        forward.append(lambda z, f=forward[-1]: jax.jvp(f, (z,), (jnp.ones_like(z),))[1])
        backward.append(lambda z, f=backward[-1]: jax.grad(lambda z: f(z).sum())(z))
    return [f(z) for f in forward], [f(z) for f in backward]


def assert_derivatives(function, reference, points=POINTS, dtype=jnp.float32, first=0):
    """`function` is the derivative of order `first` of `reference(z, order)`, and so are its own derivatives."""
    z = jnp.asarray(points, dtype)
    for derivatives in by_both_modes(function, z):
        for order, found in enumerate(derivatives[: ORDERS - first], first):
            assert found.dtype == dtype
            if dtype == jnp.bfloat16:
                assert np.isfinite(np.asarray(found, np.float64)).all()
            else:
                assert_close(found, reference(np.asarray(z, np.float64), order), condition=CONDITION)


dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])


@dtypes
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_derivatives_of_every_order(name, dtype):
    activation, reference = ACTIVATIONS[name].activation, ACTIVATION_REFERENCES[name]
    assert_derivatives(activation.value, reference, dtype=dtype)
    if dtype == jnp.float32:
        assert_derivatives(lambda z: activation.derivative(activation.kept(z, activation.value(z))), reference, first=1)
        second = activation.second_derivative
        assert_derivatives(lambda z: second(activation.kept(z, activation.value(z))), reference, first=2)


@dtypes
@pytest.mark.parametrize("name", LOSS_REFERENCES)
def test_losses_residuals_and_curvatures_have_derivatives_of_every_order(name, dtype):
    row, some = LOSSES[name], [0.0, 0.25, 1.0]
    each = BELOW if row.overflows else POINTS
    points, targets = np.tile(each, len(some)), jnp.asarray(np.repeat(some, len(each))[:, None], dtype)

    def value(z):
        return row.loss.value(z[:, None], targets)

    def residual(z):
        return row.loss.residual(z[:, None], targets)[:, 0]

    def curvature(z):
        return row.loss.hessian_multiply(z[:, None], targets, jnp.ones_like(z)[:, None])[:, 0]

    def reference(z, order):
        parts = zip(np.split(z, len(some)), some)
        return np.concatenate([LOSS_REFERENCES[name](z, y, order) for z, y in parts])

    assert_derivatives(value, reference, points, dtype)
    if dtype == jnp.float32:
        assert_derivatives(residual, reference, points, first=1)
        assert_derivatives(curvature, reference, points, first=2)


def cumulants(eta, v):
    """The derivatives of log Σ_c e^{η_c} along v, of orders 0 to 4: the cumulants of v under softmax(η)."""
    shifted = eta - eta.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    mean = (p * v).sum(axis=1)
    second, third, fourth = ((p * (v - mean[:, None]) ** m).sum(axis=1) for m in (2, 3, 4))
    return np.log(np.exp(shifted).sum(axis=1)) + eta.max(axis=1), mean, second, third, fourth - 3 * second**2


TIED = np.array([[0, 0, 0], [-0.0, 0, -0.0], [1, 1, -1], [30, 30, -30], [1e4, 1e4, 0], [1e4, -1e4, 0], [-1, -1e4, 1]])


def derivatives_along(function, eta, along):
    """Derivatives of orders 0 to 4 of function(η) along a direction."""
    functions = [function]
    for _ in range(ORDERS - 1):
        functions.append(lambda eta, f=functions[-1]: jax.jvp(f, (eta,), (along,))[1])
    return jax.jit(lambda eta: [f(eta) for f in functions])(eta)


@dtypes
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft labels"])
def test_the_categorical_loss_has_derivatives_of_every_order_where_classes_tie(soft, dtype):
    v, labels = np.array([0.5, -1.0, 2.0]), np.arange(len(TIED)) % 3
    rows = np.tile([0.25, 0.5, 0.25], (len(TIED), 1)) if soft else np.eye(3)[labels]
    y = jnp.asarray(rows, dtype) if soft else labels
    eta, along = jnp.asarray(TIED, dtype), jnp.broadcast_to(jnp.asarray(v, dtype), TIED.shape)
    reference = list(cumulants(np.asarray(eta, np.float64), v[None]))
    reference[0] = reference[0] - (rows * np.asarray(eta, np.float64)).sum(axis=1)
    reference[1] = reference[1] - rows @ v

    def value(eta):
        return losses.categorical.value(eta, y)

    def negative_log_likelihood(eta):
        return probability.categorical_negative_log_likelihood(eta, labels)

    def residual(eta):
        return (losses.categorical.residual(eta, y) * along).sum(axis=1)

    def slope(eta):
        return (jax.grad(lambda eta: value(eta).sum())(eta) * along).sum(axis=1)

    def curvature(eta):
        return (losses.categorical.hessian_multiply(eta, y, along) * along).sum(axis=1)

    for first, functions in enumerate([(value, negative_log_likelihood)[: 2 - soft], (residual, slope), (curvature,)]):
        for function in functions:
            for order, found in enumerate(derivatives_along(function, eta, along)[: ORDERS - first], first):
                assert np.isfinite(np.asarray(found, np.float64)).all()
                if dtype == jnp.float32:
                    assert_close(found, reference[order], length=3, condition=CONDITION)


@dtypes
@pytest.mark.parametrize(
    ("function", "reference"),
    {
        "expit": (probability.expit, sigmoid),
        "softplus": (probability.softplus, softplus),
        "log_expit": (probability.log_expit, lambda z, m: (-1) ** (m + 1) * softplus(-z, m)),
        "surprise": (
            lambda z: probability.bernoulli_negative_log_likelihood(z, jnp.ones_like(z)),
            lambda z, m: softplus(z, m) - line(z, m, 1),
        ),
    }.values(),
    ids=["expit", "softplus", "log_expit", "bernoulli_negative_log_likelihood"],
)
def test_functions_of_the_logit_have_derivatives_of_every_order(function, reference, dtype):
    assert_derivatives(function, reference, dtype=dtype)


INTERIOR = np.array([0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("function", "reference", "points"),
    {
        "odds": (probability.odds, lambda p, m: powers(1 - p, m, -1) * (-1) ** m - (m == 0), INTERIOR),
        "log_odds": (probability.log_odds, lambda p, m: logarithm(p, m) - (-1) ** m * logarithm(1 - p, m), INTERIOR),
        "likelihood of 1": (
            lambda p: probability.bernoulli_likelihood(p, jnp.ones_like(p)),
            lambda p, m: line(p, m, 1),
            np.array([0, *INTERIOR, 1]),
        ),
        "likelihood of 0": (
            lambda p: probability.bernoulli_likelihood(p, jnp.zeros_like(p)),
            lambda p, m: (m == 0) - line(p, m, 1),
            np.array([0, *INTERIOR, 1]),
        ),
        "log likelihood of 1": (
            lambda p: probability.bernoulli_log_likelihood(p, jnp.ones_like(p)),
            logarithm,
            np.array([*INTERIOR, 1]),
        ),
        "log likelihood of 0": (
            lambda p: probability.bernoulli_log_likelihood(p, jnp.zeros_like(p)),
            lambda p, m: (-1) ** m * logarithm(1 - p, m),
            np.array([0, *INTERIOR]),
        ),
        "entropy": (
            lambda p: probability.entropy(p[:, None]),
            lambda p, m: -(p * logarithm(p, m) + m * (logarithm(p, m - 1) if m else 0)),
            INTERIOR,
        ),
        "divergence by p": (
            lambda p: probability.kl_divergence(p[:, None], jnp.full_like(p, 0.5)[:, None]),
            lambda p, m: p * logarithm(p, m) + m * (logarithm(p, m - 1) if m else 0) - line(p, m, np.log(0.5)),
            INTERIOR,
        ),
        "divergence by q": (
            lambda q: probability.kl_divergence(jnp.full_like(q, 0.5)[:, None], q[:, None]),
            lambda q, m: 0.5 * (np.log(0.5) * (m == 0) - logarithm(q, m)),
            INTERIOR,
        ),
        "divergence of the impossible": (
            lambda q: probability.kl_divergence(jnp.zeros_like(q)[:, None], q[:, None]),
            lambda q, m: 0 * q,
            np.array([0, *INTERIOR, 1]),
        ),
        "cross entropy of the impossible": (
            lambda q: probability.cross_entropy(jnp.zeros_like(q)[:, None], q[:, None]),
            lambda q, m: 0 * q,
            np.array([0, *INTERIOR, 1]),
        ),
    }.values(),
)
def test_functions_of_probabilities_have_derivatives_of_every_order(function, reference, points):
    assert_derivatives(function, reference, points)


def test_the_slope_of_an_entropy_at_an_impossible_event_is_large_and_finite():
    slope = jax.grad(probability.entropy)(jnp.array([0.0, 1.0]))
    assert_close(slope[1], -1)
    assert 80 < slope[0] < np.inf


def test_the_fisher_factor_has_a_derivative_where_the_fisher_vanishes():
    eta = jnp.array([[1e4, -1e4, 0.0]])
    for loss in (losses.bernoulli, losses.categorical):
        assert np.isfinite(np.asarray(jax.jacobian(loss.fisher_factor)(eta))).all()


def test_a_missing_number_stays_one():
    nan = jnp.full((1, 2), jnp.nan)
    for row in ACTIVATIONS.values():
        assert row.activation is activations.step or jnp.isnan(row.activation.value(nan)).all()
    for name in ("bernoulli", "poisson", "squared_error", "absolute_error", "squared_error of relu"):
        assert jnp.isnan(LOSSES[name].loss.value(nan, jnp.zeros((1, 2)))).all()
