"""What fits once got wrong: each a kind, with the right value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, Layer, Network, Status, losses, penalties
from lr_nn.fitting import Settings
from lr_nn.losses import Loss, Separable

N = 200
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 3))
Y = (RNG.random(N) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
COUNTS = RNG.poisson(np.exp(0.3 * X[:, 0])).astype(float)
LOGISTIC, POISSON = lr_nn.logistic_regression(3), Network((3, 1), (), losses.poisson)
A = ((2.0, 0.9), (0.9, 1.0))


class Correlated(Loss):
    """½ rᵀ A r, A = [[2, .9], [.9, 1]]: it promises nothing."""

    def value(self, eta, y):
        r = eta - self.encode(y, eta)
        return (r * (r @ jnp.array(A, eta.dtype))).sum(axis=1) / 2

    def residual(self, eta, y):
        return (eta - self.encode(y, eta)) @ jnp.array(A, eta.dtype)


class Promised(Correlated):
    """The same, with what it may promise."""

    canonical = True
    concordance = 0.0

    def fisher_multiply(self, eta, v):
        return v @ jnp.array(A, eta.dtype)


class LogCosh(Separable):
    """log cosh(η - y), which promises nothing."""

    def term(self, eta, y):
        r = (eta - y) * jnp.sign(eta - y)
        return r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2.0)

    def slope(self, eta, y):
        return jnp.tanh(eta - y)

    def information(self, eta):
        return jnp.ones_like(eta)


class Stated(LogCosh):
    """The same, with its second derivative, and how fast that changes."""

    concordance = 2.0

    def curvature(self, eta, y):
        return 1 - jnp.tanh(eta - y) ** 2


TWO = X @ RNG.standard_normal((3, 2)) + np.array([5.0, 1.0]) + 0.1 * RNG.standard_normal((N, 2))
HEAVY = X[:, 0] + RNG.standard_t(1, N)


@pytest.mark.parametrize("loss", [Correlated(), LogCosh(), losses.huber(1.0)])
def test_a_loss_that_promises_nothing_ends_at_a_stationary_point_without_a_certificate(loss):
    y = TWO if isinstance(loss, Correlated) else HEAVY
    net = Network((3, np.ndim(y)), (), loss)
    found = lr_nn.fit(net, Batch(X, y))
    assert found.status is Status.converged and found.certificate == np.inf and "stationary point" in found.message
    params = (Layer(*map(np.float32, found.params[0])),)
    assert_close(np.float32(found.cost), lr_nn.cost(net, params, Batch(X, y)), N)


@pytest.mark.parametrize("loss", [Promised(), Stated()])
def test_what_a_loss_promises_is_used(loss):
    y = TWO if isinstance(loss, Promised) else HEAVY
    net = Network((3, np.ndim(y)), (), loss)
    found = lr_nn.fit(net, Batch(X, y))
    plain = lr_nn.fit(Network(net.sizes, (), type(loss).__base__()), Batch(X, y), tol=1e-15)
    assert found.status is Status.converged and found.certificate <= 1e-12
    assert plain.cost - found.cost <= 1e-10 and found.cost <= plain.cost + 1e-14
    np.testing.assert_allclose(found.coefficients, plain.coefficients, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_convex_loss_with_an_l2_penalty_has_the_certificate_of_strong_convexity(bias):
    net = Network((3, 1), (), losses.huber(1.0), bias=bias)
    found = lr_nn.fit(net, Batch(X, HEAVY), penalty=penalties.l2(0.1))
    assert found.status is Status.converged and found.certificate <= 1e-11, found.message


@pytest.mark.parametrize("shift", [30.0, 300.0, -1e4])
@pytest.mark.parametrize("name", ["bernoulli", "poisson", "categorical"])
@pytest.mark.parametrize("penalty", [None, penalties.l2(0.1), penalties.l1(0.01)], ids=["none", "l2", "l1"])
def test_a_constant_offset_changes_the_bias_and_nothing_else(name, shift, penalty):
    net, y = {
        "bernoulli": (LOGISTIC, Y),
        "poisson": (POISSON, COUNTS),
        "categorical": (lr_nn.softmax_regression(3, 3), np.digitize(X[:, 1] + X[:, 2], [-0.5, 0.5])),
    }[name]
    y = np.where(RNG.random(N) < 0.2, y[::-1], y)
    plain = lr_nn.fit(net, Batch(X, y), penalty=penalty)
    moved = lr_nn.fit(net, Batch(X, y, None, np.full((N, net.sizes[1]), shift)), penalty=penalty)
    assert plain.status is moved.status is Status.converged, moved.message
    np.testing.assert_allclose(moved.params[0].w, plain.params[0].w, rtol=1e-9, atol=1e-9)
    taken_off = 0 if name == "categorical" else shift  # a shift common to all classes changes nothing
    np.testing.assert_allclose(moved.params[0].b, plain.params[0].b - taken_off, rtol=1e-12, atol=1e-8)


def test_exposures_over_many_orders_are_what_a_poisson_regression_is_for():
    exposure = 10.0 ** RNG.uniform(8, 12, N)
    truth = np.array([0.3, -0.2, 0.1])
    y = RNG.poisson(exposure * np.exp(X @ truth - 18)).astype(float)
    found = lr_nn.fit(POISSON, Batch(X, y, None, np.log(exposure)))
    assert found.status is Status.converged, found.message
    mean = exposure * np.exp(X @ found.params[0].w[:, 0] + found.params[0].b[0])
    score = np.column_stack([X, np.ones(N)]).T @ (mean - y)
    error = np.sqrt(np.diag(np.linalg.inv((X * mean[:, None]).T @ X)))
    assert np.abs(score).max() <= 1e-6 * np.sqrt(mean.sum())
    assert np.abs(found.params[0].w[:, 0] - truth).max() < 4 * error.max()


@pytest.mark.parametrize("rows", [200, 5000])
def test_without_an_intercept_many_rows_are_like_few(rows):
    x = np.random.default_rng(1).standard_normal((rows, 3))
    y = (np.random.default_rng(2).random(rows) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    found = lr_nn.fit(Network((3, 1), (), losses.bernoulli, bias=False), Batch(x, y))
    assert found.status is Status.converged and found.certificate <= 1e-12


@pytest.mark.parametrize("kept", [0, 1])
def test_a_weight_that_leaves_one_class_is_separated_in_every_lane(kept):
    weight = np.stack([kept == Y, np.ones(N)]).astype(float)
    alone = lr_nn.fit(LOGISTIC, Batch(X, Y, weight[0]), penalty=penalties.l2(0.1))
    lanes = lr_nn.fit_many(LOGISTIC, Batch(X, Y, weight), penalty=penalties.l2(0.1))
    assert alone.status == lanes.status[0] == Status.separated and lanes.status[1] == Status.converged


def test_lanes_with_an_offset_end_where_a_fit_does():
    offset = np.stack([np.full((N, 1), 40.0), 3 * X[:, 1:2], np.zeros((N, 1))])
    lanes = lr_nn.fit_many(POISSON, Batch(X, COUNTS, None, offset), penalty=penalties.l2(0.01))
    assert (lanes.status == Status.converged).all(), lanes.message
    for each, coefficients in zip(offset, lanes.coefficients):
        one = lr_nn.fit(POISSON, Batch(X, COUNTS, None, each), penalty=penalties.l2(0.01))
        np.testing.assert_allclose(coefficients, one.coefficients, rtol=1e-5, atol=1e-6)


def test_columns_far_from_zero_are_solved_and_not_called_dependent():
    t = np.arange(200.0)
    y = 0.5 * t + RNG.standard_normal(200)
    near, far = (lr_nn.fit(lr_nn.linear_regression(1), Batch((t + mean)[:, None], y)) for mean in (0, 1.7e9))
    assert near.status is far.status is Status.converged
    np.testing.assert_allclose(far.params[0].w, near.params[0].w, rtol=1e-12)
    near, far = (lr_nn.fit(LOGISTIC, Batch(X + np.array([mean, 0, 0]), Y)) for mean in (0, 1e7))
    assert near.status is far.status is Status.converged
    np.testing.assert_allclose(far.params[0].w, near.params[0].w, rtol=1e-6)


@pytest.mark.parametrize("far", [1e4, -1e4, 100.0])
@pytest.mark.parametrize(("net", "y"), [(LOGISTIC, Y), (POISSON, COUNTS)], ids=["logistic", "poisson"])
def test_a_poor_start_is_not_worse_than_none(net, y, far):
    start = (Layer(np.full((3, 1), far), np.full(1, far)),)
    found, plain = (lr_nn.fit(net, Batch(X, y), start=begin) for begin in (start, None))
    assert found.status is Status.converged
    np.testing.assert_allclose(found.coefficients, plain.coefficients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_numbers_whose_squares_leave_the_floats_are_to_be_rescaled(size):
    found = lr_nn.fit(LOGISTIC, Batch(X * size, Y))
    assert found.status is Status.non_finite and "rescale" in found.message


@pytest.mark.parametrize("offset", [None, RNG.standard_normal(N)], ids=["none", "offset"])
def test_the_first_point_of_a_path_is_the_constant_model_given_the_offset(offset):
    found = lr_nn.fit(POISSON, Batch(X, COUNTS, None, offset), penalty=penalties.l1(10.0))
    assert found.status is Status.converged and not found.params[0].w.any()
    expected = np.log(COUNTS.sum() / np.exp(0 if offset is None else offset).repeat(N if offset is None else 1).sum())
    np.testing.assert_allclose(found.params[0].b, expected, rtol=1e-10)


def test_a_ridge_that_is_lost_in_rounding_is_no_error():
    x = RNG.standard_normal((50, 100)) * 1e5
    x[1] = x[0]
    found = lr_nn.fit(lr_nn.linear_regression(100), Batch(x, RNG.standard_normal(50)), penalty=penalties.l2(1e-7))
    assert found.status in (Status.converged, Status.max_steps)


def test_of_underdetermined_least_squares_the_solution_of_least_norm_where_columns_are_centred():
    x, y = RNG.standard_normal((20, 50)), RNG.standard_normal(20)
    net, shift = lr_nn.linear_regression(50), 100 * RNG.standard_normal(50)
    found, moved = lr_nn.fit(net, Batch(x, y)), lr_nn.fit(net, Batch(x + shift, y))
    assert found.status is moved.status is Status.rank_deficient
    expected = np.linalg.pinv(x - x.mean(axis=0)) @ (y - y.mean())
    np.testing.assert_allclose(found.params[0].w[:, 0], expected, atol=1e-12)
    new = RNG.standard_normal((5, 50))
    predicted = [z @ f.params[0].w + f.params[0].b for z, f in ((new, found), (new + shift, moved))]
    np.testing.assert_allclose(*predicted, atol=1e-10)


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_separation_names_the_column_that_separates_where_others_are_collinear(unit):
    group = RNG.integers(0, 4, N)
    one_hot = np.eye(4)[group]
    rare = np.zeros(N)
    rare[:3] = unit
    y = Y.copy()
    y[:3] = 0
    found = lr_nn.fit(lr_nn.logistic_regression(8), Batch(np.column_stack([X, one_hot, rare]), y))
    assert found.status is Status.separated
    assert "coefficient 7 of output 0;" in found.message and found.message.count("coefficient") == 1
    assert "1 directions change no prediction (columns 3 to 6 and the bias)" in found.message
    moved = np.flatnonzero(found.direction[0].w[:, 0])
    assert list(moved) == [7] and found.direction[0].w[7, 0] < 0 and not found.direction[0].b.any()


@pytest.mark.parametrize("seed", range(4))
def test_a_deep_fit_with_defaults_is_stationary_or_says_why_it_is_not(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, 5))
    y = (rng.random(400) < 1 / (1 + np.exp(-np.sin(x[:, 0]) - x[:, 1] * x[:, 2]))).astype(float)
    net = lr_nn.mlp((5, 4, 1), hidden=lr_nn.activations.tanh)
    found = lr_nn.fit(net, Batch(x, y))
    assert found.status is Status.converged or "the largest weight grew" in found.message
    held = lr_nn.fit(net, Batch(x, y), penalty=penalties.l2(1e-2))
    assert held.status is Status.converged, held.message


TREES = {
    "some free": (Layer(np.array([[1e-2], [0.0], [0.3]]), None),),
    "the bias too": (Layer(np.array([[1e-2], [0.1], [0.3]]), np.array([0.5])),),
}


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_strength_for_each_coefficient(tree, kind):
    """A column with a strength four times as large is one of half the size; one without is free."""
    penalty = penalties.Penalty(tree, 0.0) if kind == "l1" else penalties.Penalty(0.0, tree)
    found = lr_nn.fit(LOGISTIC, Batch(X, Y), penalty=penalty)
    assert found.status is Status.converged, found.message
    (w, b), (strength, of_bias) = found.params[0], tree[0]
    mean = 1 / (1 + np.exp(-(X @ w + b)[:, 0]))
    slope = np.append(X.T @ (mean - Y), (mean - Y).sum()) / N
    theta, strengths = np.append(w, b), np.append(strength, 0 if of_bias is None else of_bias)
    pull = strengths * (theta if kind == "l2" else np.sign(theta))
    rest = np.where((theta == 0) & (kind == "l1"), np.maximum(np.abs(slope) - strengths, 0), np.abs(slope + pull))
    assert rest.max() <= 1e-7


def test_where_strengths_differ_between_classes_nothing_is_centred():
    classes = np.digitize(X[:, 1] + RNG.standard_normal(N), [-0.5, 0.5])
    strengths = Layer(RNG.random((3, 3)), None)
    penalty = penalties.Penalty(0.0, (strengths,))
    net = lr_nn.softmax_regression(3, 3)
    found = lr_nn.fit(net, Batch(X, classes), penalty=penalty)
    assert found.status is Status.converged
    _, ((slope, _),) = lr_nn.value_and_gradient(
        net, (Layer(*map(np.float32, found.params[0])),), Batch(X, classes), penalty
    )
    assert np.abs(slope).max() <= 1e-6 and np.abs(found.params[0].w.sum(axis=1)).min() > 1e-3


def test_too_few_steps_are_not_called_dependent_columns():
    twice = np.column_stack([X, X[:, 0]])
    short, whole = (lr_nn.fit(lr_nn.logistic_regression(4), Batch(twice, Y), max_steps=most) for most in (1, 100))
    assert short.status is Status.max_steps and "columns 0 and 3" in short.message
    assert whole.status is Status.rank_deficient and whole.certificate <= 1e-12


def test_some_biases_may_be_penalised_and_others_free():
    both = (Layer(np.full((3, 2), 0.01), np.array([0.02, 0.0])),)
    y = np.column_stack([Y, (X[:, 1] + RNG.standard_normal(N) > 0.5)]).astype(float)
    for penalty in (penalties.Penalty(both, 0.0), penalties.Penalty(0.0, both)):
        found = lr_nn.fit(lr_nn.logistic_regression(3, 2), Batch(X, y), penalty=penalty)
        assert found.status is Status.converged, found.message


def test_a_certificate_in_float32_is_that_of_the_numbers_handed_back():
    classes = np.digitize(X[:, 1] + RNG.standard_normal(N), [-0.5, 0.5])
    net = lr_nn.softmax_regression(3, 3)
    for seed in range(5):
        x = X + np.random.default_rng(seed).standard_normal(3) * 10
        best = lr_nn.fit(net, Batch(x, classes))
        found = lr_nn.fit(net, Batch(x, classes), dtype=np.float32, tol=1e-6)
        eta = x @ found.params[0].w.astype(float) + found.params[0].b.astype(float)
        cost = (np.logaddexp.reduce(eta, axis=1) - eta[np.arange(N), classes]).mean()
        assert cost - best.cost <= found.certificate + 1e-14


@pytest.mark.parametrize("value", [np.nan, 1e200])
@pytest.mark.parametrize("accelerator", [False, True])
def test_rows_of_weight_zero_count_for_nothing_wherever_they_lie(value, accelerator):
    """Also where they contradict a separation, tell columns apart, or hold no number."""
    x, y, weight = X[:60].copy(), Y[:60].copy(), np.append(np.ones(40), np.zeros(20))
    x[50] = value
    settings = Settings(host=()) if accelerator else Settings()

    def fit(x, y, weight, net=LOGISTIC, **more):
        with jax.enable_x64(True):
            x = jax.device_put(x) if accelerator else x
        return lr_nn.fit(net, Batch(x, y, weight), settings=settings, **more)

    for net in (LOGISTIC, lr_nn.linear_regression(3)):
        found, alone = fit(x, y, weight, net), fit(x[:40], y[:40], None, net)
        assert found.status is alone.status is Status.converged, found.message
        np.testing.assert_allclose(found.coefficients, alone.coefficients, rtol=1e-9, atol=1e-12)
    apart = np.where(weight > 0, x[:, 0] > 0, x[:, 0] <= 0).astype(float)
    assert fit(x, apart, weight).status is Status.separated
    x[:40, 1] = x[:40, 0]
    found = fit(x, y, weight)
    assert found.status is Status.rank_deficient and found.certificate <= 1e-12


def test_a_number_that_is_none_is_named_by_the_row_that_it_came_in():
    x, weight = X.copy(), np.ones(N)
    x[6, 1], weight[5] = np.nan, 0
    with pytest.raises(ValueError, match="nan at row 6"):
        lr_nn.fit(LOGISTIC, Batch(x, Y, weight))
