"""Fits against optima found by other means, and what a certificate promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from cases import on_device
from jax.flatten_util import ravel_pytree
from scipy.special import logsumexp
from tolerances import assert_close, tolerance

import lr_nn
from lr_nn import Batch, Status, penalties
from lr_nn.fitting import Settings

LENGTH = 1000
N, D, K = 60, 4, 3
GAP = 1e-12


def data(task, n=N, d=D, k=1, seed=0, noise=1.0):
    """Rows that do not separate, with targets drawn from a model of the task."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.logspace(0, 1, d)[None] + rng.standard_normal(d)[None]
    eta = (x - x.mean(axis=0)[None]) @ rng.standard_normal((d, k)) / (10 * noise) + rng.standard_normal(k)[None] / 4
    if task == "linear":
        return x, eta + rng.standard_normal(eta.shape)
    if task == "logistic":
        return x, (rng.random(eta.shape) < 1 / (1 + np.exp(-eta))).astype(float)
    if task == "poisson":
        return x, rng.poisson(np.exp(eta)).astype(float)
    p = np.exp(eta - logsumexp(eta, axis=1, keepdims=True))
    return x, np.array([rng.choice(k, p=row) for row in p])


NETS = {
    "linear": (lr_nn.linear_regression(D), 1),
    "linear, 3 outputs": (lr_nn.linear_regression(D, K), K),
    "logistic": (lr_nn.logistic_regression(D), 1),
    "logistic, 3 labels": (lr_nn.logistic_regression(D, K), K),
    "logistic, no bias": (lr_nn.Network((D, 1), (), lr_nn.losses.bernoulli, bias=False), 1),
    "softmax": (lr_nn.softmax_regression(D, K), K),
    "poisson": (lr_nn.Network((D, 1), (), lr_nn.losses.poisson), 1),
}
PENALTIES = {
    "none": None,
    "l2": penalties.l2(0.01),
    "l1": penalties.l1(0.02),
    "elastic": penalties.elastic_net(0.02, 0.5),
}
every_net = pytest.mark.parametrize("name", NETS)
smooth = pytest.mark.parametrize("penalty", [None, penalties.l2(0.01)], ids=["none", "l2"])
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)


def rows(name, **more):
    net, k = NETS[name]
    return net, *data(name.split(",")[0], k=k, **more)


def cost(net, layer, x, y, weight=None, offset=None, penalty=None):
    """J in float64 by this package's own cost, which has twins of its own."""
    with jax.enable_x64(True):
        params = (lr_nn.types.Layer(*on_device((layer.w, layer.b))),)
        return float(lr_nn.cost(net, params, lr_nn.Batch(x, y, weight, offset), penalty))


def reference(net, x, y, penalty=None, weight=None, offset=None):
    """J* of a smooth cost by trust-region Newton of SciPy on derivatives by autodiff."""
    with jax.enable_x64(True):
        params = lr_nn.init(net, jax.random.key(0), jnp.float64)
        flat, unravel = ravel_pytree(params)
        batch = lr_nn.Batch(x, y, weight, offset)

        @jax.jit
        def value(theta):
            return lr_nn.cost(net, unravel(theta), batch, penalty)

        found = scipy.optimize.minimize(
            value, np.zeros(len(flat)), jac=jax.grad(value), hess=jax.hessian(value), method="trust-exact", tol=1e-13
        )
        return float(found.fun), np.asarray(found.x)


@smooth
@every_net
def test_the_optimum_is_that_of_another_solver_on_derivatives_by_autodiff(name, penalty):
    net, x, y = rows(name)
    found = lr_nn.fit(net, Batch(x, y), penalty=penalty)
    best, theta = reference(net, x, y, penalty)
    assert found.status is Status.converged, found.message
    assert abs(found.cost - best) <= 1e-11
    assert_close(found.cost, cost(net, found.params[0], x, y, penalty=penalty), LENGTH)
    if name != "softmax":
        layer = found.params[0]
        coefficients = np.concatenate([np.ravel(layer.w), [] if layer.b is None else layer.b])
        np.testing.assert_allclose(coefficients, theta, rtol=1e-5, atol=1e-6)


@every_penalty
@every_net
def test_the_subgradient_vanishes_and_nothing_nearby_is_lower(name, penalty):
    net, x, y = rows(name)
    found = lr_nn.fit(net, Batch(x, y), penalty=penalty)
    assert found.status is Status.converged, found.message
    assert found.gradient_norm <= 1e-6
    rng = np.random.default_rng(1)
    (layer,) = found.params
    for size in (1e-1, 1e-3):
        moved = jax.tree.map(lambda a, size=size: a + size * rng.standard_normal(a.shape), layer)
        assert cost(net, moved, x, y, penalty=penalty) > found.cost - GAP


@every_penalty
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
@pytest.mark.parametrize("name", ["logistic", "softmax", "poisson", "linear"])
def test_the_certificate_is_a_bound(name, tol, penalty):
    net, x, y = rows(name)
    loose, tight = (
        lr_nn.fit(net, Batch(x, y), penalty=penalty, tol=t, solver=solver)
        for t, solver in ((tol, "auto"), (1e-13, "auto"))
    )
    slack = tolerance(np.float64, N) * (1 + abs(tight.cost))
    assert tight.cost - slack <= loose.cost <= tight.cost + loose.certificate + slack
    assert loose.status is Status.converged and loose.steps <= tight.steps


@smooth
@pytest.mark.parametrize("name", ["logistic", "logistic, 3 labels", "softmax", "poisson", "linear"])
def test_every_solver_ends_at_the_same_optimum(name, penalty):
    net, x, y = rows(name)
    solvers = ("newton", "lbfgs", "newton_cg", *(("closed_form",) if name == "linear" else ()))
    found = [lr_nn.fit(net, Batch(x, y), penalty=penalty, solver=solver) for solver in solvers]
    assert [f.solver for f in found] == list(solvers)
    for f in found:
        assert f.status is Status.converged, f.message
        rounding = tolerance(np.float64, N) * abs(f.cost)
        assert abs(f.cost - found[0].cost) <= f.certificate + found[0].certificate + rounding
        np.testing.assert_allclose(f.params[0].w, found[0].params[0].w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("most", [1, 200], ids=["a few of the rows", "all"])
def test_many_rows_are_begun_on_a_sample_and_end_at_the_optimum_of_all(most):
    """`most`: rows a column of the factor."""
    x, y = data("logistic", n=4000, d=20)
    x = np.column_stack([x, np.arange(4000) % 2000 == 0])  # a category that the sample does not know
    net, settings = lr_nn.logistic_regression(21), Settings(sample_from=0, sample_least=20, sample_most=most)
    penalty = penalties.l2(1e-4)
    found = [lr_nn.fit(net, Batch(x, y), penalty=penalty, solver=s, settings=settings) for s in ("lbfgs", "newton")]
    assert [f.status for f in found] == [Status.converged] * 2
    assert abs(found[0].cost - found[1].cost) <= GAP


@pytest.mark.parametrize("name", ["logistic", "logistic, 3 labels", "softmax", "linear"])
def test_of_many_columns_those_that_matter_are_found(name):
    """The conditions of Karush, Kuhn and Tucker at all columns, of which most never entered a working set."""
    task, k = name.split(",")[0], NETS[name][1]
    net = {"logistic": lr_nn.logistic_regression, "linear": lr_nn.linear_regression}.get(
        task, lr_nn.softmax_regression
    )(150, k)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 150))
    y = data(task, n=100, k=k)[1]
    found = lr_nn.fit(net, Batch(x, y), penalty=penalties.l1(0.08), tol=1e-10)
    assert found.status is Status.converged, found.message
    (w, _) = found.params[0]
    _, ((slope, _),) = lr_nn.value_and_gradient(net, tuple(map(on_device, found.params)), lr_nn.Batch(x, y))
    assert 0 < (w != 0).any(axis=1).sum() < 75
    assert (np.abs(np.asarray(slope))[w == 0] <= 0.08 + 1e-5).all()
    np.testing.assert_allclose(np.asarray(slope)[w != 0], -0.08 * np.sign(w[w != 0]), atol=1e-5)


@every_penalty
@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_integer_weights_are_duplicated_rows(name, penalty):
    net, x, y = rows(name)
    counts = np.random.default_rng(2).integers(0, 4, N)
    weighted = lr_nn.fit(net, Batch(x, y, counts), penalty=penalty)
    repeated = lr_nn.fit(net, Batch(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0)), penalty=penalty)
    assert weighted.status is repeated.status is Status.converged
    assert abs(weighted.cost - repeated.cost) <= GAP
    np.testing.assert_allclose(weighted.params[0].w, repeated.params[0].w, rtol=1e-4, atol=1e-6)


def test_an_offset_that_is_a_model_is_taken_off_the_coefficients():
    net, x, y = rows("logistic")
    plain = lr_nn.fit(net, Batch(x, y))
    shift = np.array([0.1, -0.2, 0.05, 0.0])
    moved = lr_nn.fit(net, Batch(x, y, None, x @ shift + 0.3))
    np.testing.assert_allclose(moved.coefficients[:, 0], plain.coefficients[:, 0] - [*shift, 0.3], rtol=1e-5, atol=1e-6)
    assert abs(moved.cost - plain.cost) <= GAP


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_the_unit_of_a_feature_is_the_unit_of_its_coefficient(scale, solver):
    net, x, y = rows("logistic")
    units = np.array([1, scale, 1, 1 / scale])
    plain, scaled = lr_nn.fit(net, Batch(x, y)), lr_nn.fit(net, Batch(x * units[None], y), solver=solver)
    assert scaled.status is Status.converged, scaled.message
    assert abs(plain.cost - scaled.cost) <= GAP
    np.testing.assert_allclose(scaled.params[0].w[:, 0] * units, plain.params[0].w[:, 0], rtol=1e-4)


def test_a_fit_of_the_breast_cancer_data_is_that_of_scikit_learn():
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    peer = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(x, y)
    found = lr_nn.fit(lr_nn.logistic_regression(30), Batch(x, y), penalty=penalties.l2(1e-2))
    np.testing.assert_allclose(found.params[0].w[:, 0], peer.coef_[0], rtol=1e-6)
    np.testing.assert_allclose(found.params[0].b, peer.intercept_, rtol=1e-6)


@pytest.mark.parametrize("penalty", [penalties.l1(0.03), penalties.elastic_net(0.05, 0.7)], ids=["l1", "elastic"])
def test_a_sparse_fit_has_the_zeros_and_the_numbers_of_scikit_learn(penalty):
    from sklearn.linear_model import ElasticNet

    x, y = data("linear", n=200, d=D)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    total = float(penalty.l1 + penalty.l2)
    peer = ElasticNet(alpha=total, l1_ratio=float(penalty.l1) / total, tol=1e-14, max_iter=10**6).fit(x, y[:, 0])
    found = lr_nn.fit(lr_nn.linear_regression(D), Batch(x, y), penalty=penalty)
    assert found.status is Status.converged, found.message
    np.testing.assert_allclose(found.params[0].w[:, 0], peer.coef_, rtol=1e-5, atol=1e-7)


def test_above_the_largest_gradient_of_a_constant_model_an_l1_penalty_leaves_the_constant_model():
    net, x, y = rows("logistic")
    centred = y[:, 0] - y.mean()
    largest = np.abs(x.T @ centred).max() / N
    above, below = (lr_nn.fit(net, Batch(x, y), penalty=penalties.l1(f * largest)) for f in (1.001, 0.95))
    assert above.status is below.status is Status.converged
    assert (above.params[0].w == 0).all() and (below.params[0].w != 0).sum() == 1
    np.testing.assert_allclose(above.params[0].b, np.log(y.mean() / (1 - y.mean())), rtol=1e-6)


SEPARABLE = {
    "completely": (np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]),
    "but for a tie": (np.array([[-2.0], [0.0], [0.0], [2.0]]), [0, 0, 1, 1]),
    "one class only": (np.array([[-2.0], [0.5], [0.1], [2.0]]), [1, 1, 1, 1]),
}


@pytest.mark.parametrize("x, y", SEPARABLE.values(), ids=SEPARABLE)
def test_separated_data_have_no_maximum_and_the_direction_is_named(x, y):
    found = lr_nn.fit(lr_nn.logistic_regression(1), Batch(x, y))
    assert found.status is Status.separated and str(found.status) == "separated"
    assert "coefficient" in found.message and not found.certificate < np.inf
    (direction,) = found.direction
    gains = (2 * np.array(y) - 1) * (x @ direction.w + direction.b[None])[:, 0]
    assert (gains >= -1e-9).all() and gains.max() > 0
    assert np.abs(found.coefficients).max() < 1e6
    held = lr_nn.fit(lr_nn.logistic_regression(1), Batch(x, y), penalty=penalties.l2(1e-3))
    if len(set(y)) > 1:
        assert held.status is Status.converged and held.direction is None
    else:  # no penalty holds the bias
        assert held.status is Status.separated and held.direction[0].w == 0 != held.direction[0].b


def test_a_class_apart_and_a_count_never_seen_are_separated_too():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 2))
    classes = np.where(x[:, 0] > 0.5, 2, rng.integers(0, 2, 40))
    assert lr_nn.fit(lr_nn.softmax_regression(2, 3), Batch(x, classes)).status is Status.separated
    group = np.repeat([0.0, 1.0], 20)
    counts = np.where(group == 1, 0, rng.poisson(3, 40))
    found = lr_nn.fit(lr_nn.Network((1, 1), (), lr_nn.losses.poisson), Batch(group[:, None], counts))
    assert found.status is Status.separated and found.direction[0].w[0, 0] < 0


@pytest.mark.parametrize("name", ["linear", "logistic", "softmax", "poisson"])
def test_duplicated_columns_are_an_optimum_that_is_not_the_only_one(name):
    net, x, y = rows(name)
    twice = np.concatenate([x, x[:, :1]], axis=1)
    wider = lr_nn.Network((D + 1, net.sizes[1]), (), net.loss)
    found, once = lr_nn.fit(wider, Batch(twice, y)), lr_nn.fit(net, Batch(x, y))
    assert found.status is Status.rank_deficient and "penalty" in found.message
    assert abs(found.cost - once.cost) <= GAP and found.certificate <= 1e-12
    assert lr_nn.fit(wider, Batch(twice, y), penalty=penalties.l2(0.1)).status is Status.converged


def test_more_columns_than_rows_are_fitted_with_a_penalty():
    x, y = data("linear", n=10, d=30)
    net = lr_nn.linear_regression(30)
    assert lr_nn.fit(net, Batch(x, y)).status is Status.rank_deficient
    found = lr_nn.fit(net, Batch(x, y), penalty=penalties.l2(0.1))
    best, _ = reference(net, x, y, penalties.l2(0.1))
    assert found.status is Status.converged and abs(found.cost - best) <= 1e-11


def test_of_softmax_without_a_penalty_coefficients_sum_to_zero_over_classes():
    net, x, y = rows("softmax")
    found = lr_nn.fit(net, Batch(x, y))
    assert np.abs(found.coefficients.sum(axis=1)).max() <= 1e-14
    assert np.abs(found.coefficients).min() > 0


def test_results_are_numpy_in_float64_and_jax_is_left_as_it_was():
    net, x, y = rows("logistic")
    found = lr_nn.fit(net, Batch(x.astype(np.float32), y))
    leaves = jax.tree.leaves(found.params)
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float64 for leaf in leaves)
    assert jnp.ones(1).dtype == jnp.float32 and not jax.config.jax_enable_x64
    assert all(
        type(value) in (float, int) for value in (found.cost, found.gradient_norm, found.certificate, found.steps)
    )


def test_in_float32_the_certificate_is_still_a_bound_in_float64():
    net, x, y = rows("logistic")
    found, exact = lr_nn.fit(net, Batch(x, y), dtype=np.float32, tol=1e-5), lr_nn.fit(net, Batch(x, y))
    assert found.params[0].w.dtype == np.float32 and found.status is Status.converged
    assert cost(net, jax.tree.map(np.float64, found.params[0]), x, y) - exact.cost <= found.certificate <= 1e-5


@pytest.mark.parametrize("solver", ["lbfgs", "newton_cg"])
def test_a_deep_network_is_brought_to_a_stationary_point_and_says_so(solver):
    x, y = data("softmax", k=K)
    x = x / 10
    net, penalty = lr_nn.mlp((D, 5, K), lr_nn.activations.tanh, lr_nn.losses.categorical), penalties.l2(1e-3)
    found = lr_nn.fit(net, Batch(x, y), penalty=penalty, solver=solver, max_steps=2000)
    assert found.status is Status.converged and found.solver == solver, found.message
    assert "stationary" in found.message and found.certificate == np.inf
    with jax.enable_x64(True):
        params = tuple(lr_nn.types.Layer(*map(jnp.asarray, layer)) for layer in found.params)
        start = lr_nn.init(net, jax.random.key(0), jnp.float64)
        costs = [lr_nn.value_and_gradient(net, p, lr_nn.Batch(x, y), penalty) for p in (params, start)]
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(costs[0][1]))
    assert largest <= 1e-6 * float(costs[1][0]) and found.cost < float(costs[1][0])
    assert_close(found.cost, float(costs[0][0]), LENGTH)


def test_too_few_steps_say_so_and_a_start_at_the_optimum_needs_few():
    net, x, y = rows("logistic")
    short = lr_nn.fit(net, Batch(x, y), max_steps=1)
    assert short.status is Status.max_steps and short.steps == 1 and "allow more steps" in short.message
    whole = lr_nn.fit(net, Batch(x, y))
    assert lr_nn.fit(net, Batch(x, y), start=whole.params).steps <= 2 < whole.steps


def test_weights_of_every_size_are_the_same_problem():
    net, x, y = rows("logistic")
    plain = lr_nn.fit(net, Batch(x, y))
    for size in (1e-12, 1e12):
        found = lr_nn.fit(net, Batch(x, y, np.full(N, size)))
        assert found.status is Status.converged and abs(found.cost - plain.cost) <= GAP


X, Y = data("logistic")
NET = lr_nn.logistic_regression(D)
BAD = X.copy()
BAD[17, 2] = np.nan
REFUSALS = {
    "NaN": (lambda: lr_nn.fit(NET, Batch(BAD, Y)), ValueError, "x must be finite; got nan at row 17"),
    "a traced x": (lambda: jax.jit(lambda x: lr_nn.fit(NET, Batch(x, Y)).cost)(X), TypeError, "fit runs on the host"),
    "x too narrow": (lambda: lr_nn.fit(NET, Batch(X[:, :2], Y)), ValueError, r"x must have shape \(n, 4\)"),
    "targets of two": (lambda: lr_nn.fit(NET, Batch(X, Y + 1)), ValueError, "0 or 1, or probabilities"),
    "x alone": (lambda: lr_nn.fit(NET, X), TypeError, r"data must be a Batch\(x, y\) or Rows; got ndarray"),
    "the arguments of another library": (lambda: lr_nn.fit(NET, X, Y), TypeError, "positional arguments"),
    "no targets": (lambda: lr_nn.fit(NET, Batch(X, None)), TypeError, r"data need targets: pass Batch\(x, y\)"),
    "fewer targets": (lambda: lr_nn.fit(NET, Batch(X, Y[:-1])), ValueError, "60 rows but y has 59"),
    "a deep network with l1": (
        lambda: lr_nn.fit(lr_nn.mlp((D, 2, 1)), Batch(X, Y), penalty=penalties.l1(0.1)),
        ValueError,
        "an l1 penalty is for one layer",
    ),
    "newton of a deep network": (
        lambda: lr_nn.fit(lr_nn.mlp((D, 2, 1)), Batch(X, Y), solver="newton"),
        ValueError,
        "one of auto, lbfgs, newton_cg",
    ),
    "an absolute error": (
        lambda: lr_nn.fit(lr_nn.Network((D, 1), (), lr_nn.losses.absolute_error), Batch(X, Y)),
        ValueError,
        "use lr_nn.train for absolute_error",
    ),
    "a solver unheard of": (
        lambda: lr_nn.fit(NET, Batch(X, Y), solver="sgd"),
        ValueError,
        "solver must be one of auto",
    ),
    "closed form of a logistic": (
        lambda: lr_nn.fit(NET, Batch(X, Y), solver="closed_form"),
        ValueError,
        "squared error",
    ),
    "newton with l1": (
        lambda: lr_nn.fit(NET, Batch(X, Y), solver="newton", penalty=penalties.l1(0.1)),
        ValueError,
        "l1 penalty needs solver='proximal'",
    ),
    "tolerance zero": (lambda: lr_nn.fit(NET, Batch(X, Y), tol=0.0), ValueError, "tol must be between 0 and 1"),
    "no steps": (lambda: lr_nn.fit(NET, Batch(X, Y), max_steps=0), ValueError, "max_steps must be at least 1"),
    "weights all zero": (lambda: lr_nn.fit(NET, Batch(X, Y, np.zeros(N))), ValueError, "weight is zero for every"),
    "a negative penalty": (
        lambda: lr_nn.fit(NET, Batch(X, Y), penalty=penalties.Penalty(0.0, -1.0)),
        ValueError,
        "negative",
    ),
    "a start of other shapes": (
        lambda: lr_nn.fit(NET, Batch(X, Y), start=lr_nn.init(lr_nn.mlp((3, 1)), jax.random.key(0))),
        ValueError,
        "expected shapes",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
