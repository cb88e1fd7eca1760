"""Derivatives of `implicit.fit` against differences of tight fits, the infinitesimal jackknife, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, Penalty, Status, implicit, inference, losses, many

N, D = 30, 3
X = np.random.default_rng(3).standard_normal((N, D))
WEIGHT = np.random.default_rng(4).integers(0, 4, N).astype(float)
LABELS = (X[:, 0] + np.random.default_rng(5).logistic(size=N) > 0).astype(float)
# Loss, outputs, bias, and strengths l1 and l2.
CASES = {
    "logistic, l2": ("bernoulli", 1, True, None, 0.1),
    "labels, l1": ("bernoulli", 2, True, 0.04, 0.0),
    "linear": ("squared_error", 2, False, None, 0.0),
    "poisson, both": ("poisson", 1, True, 0.3, 0.1),
    "softmax": ("categorical", 3, True, None, 0.0),
    "softmax, l1": ("categorical", 3, True, 0.04, 0.0),
}
# Steps of differences of fourth order, whose error is of the size STEP⁴.
STEP, DIFFERENCES = 2e-3, {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}


def problem(name):
    """A network and its data: rows of weight zero, offsets, soft targets, a feature far from zero."""
    (loss, k, bias, l1, l2), rng = CASES[name], np.random.default_rng(6)
    net = lr_nn.Network((D, k), (), getattr(losses, loss), bias)
    eta = X @ np.array([[1.5, -1.0, 0.3], [-1.0, 1.0, 0.0], [0.05, 0.0, 0.05]])[:, :k]
    soft = np.exp((eta + rng.standard_normal(eta.shape)) / 2)
    y = {
        "bernoulli": soft / (1 + soft),
        "squared_error": eta + rng.standard_normal(eta.shape),
        "poisson": soft,
        "categorical": soft / soft.sum(axis=1, keepdims=True),
    }[loss]
    offset = rng.standard_normal((N, k)) / 3
    shifted = X + np.array([0.0, 0.0, 5.0])
    return net, (l1, l2, shifted if bias else X, y, WEIGHT, offset)


def fitted(net, l1, l2, x, y, weight, offset):
    """All coefficients by `implicit.fit`, flat."""
    penalty = Penalty(l2=l2) if l1 is None else Penalty(l1, l2)
    found = implicit.fit(net, Batch(x, y, weight, offset), penalty)
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)])


def refitted(net, l1, l2, x, y, weight, offset):
    """The same by `lr_nn.fit`."""
    penalty = Penalty(l1=float(l1 or 0), l2=float(l2))
    found = lr_nn.fit(net, Batch(x, y, weight, offset), penalty=penalty, tol=1e-24)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found.params)])


def directions(name, at):
    """For each argument a direction in which it alone moves; rows of weight zero keep it, distributions stay ones."""
    rng = np.random.default_rng(7)
    for position, value in enumerate(at):
        if value is None or (position == 1 and value == 0):  # an l2 of zero has a derivative on one side
            continue
        moved = rng.standard_normal(np.shape(value))
        if position == 3 and CASES[name][0] == "categorical":
            moved = (moved - moved.mean(axis=1, keepdims=True)) * value.min(axis=1, keepdims=True)
        elif position == 3:
            moved = moved * np.minimum(value, 1 - value) if CASES[name][0] == "bernoulli" else moved * value
        moved = moved * (WEIGHT > 0) if position == 4 else moved
        still = [jax.tree.map(lambda leaf: jnp.zeros(np.shape(leaf)), leaf) for leaf in at]
        yield (*still[:position], moved, *still[position + 1 :])


@pytest.mark.parametrize("name", CASES)
def test_the_derivatives_are_those_of_tight_fits_forward_and_in_reverse(float64, name):
    net, at = problem(name)
    at = jax.tree.map(jnp.asarray, at)

    @jax.jit
    def derivatives(at, moves, seed):
        value, push = jax.linearize(lambda at: fitted(net, *at), at)
        [pulled] = jax.linear_transpose(push, at)(seed)
        return value, jax.vmap(push)(moves), pulled

    moves = list(directions(name, at))
    seed = np.random.default_rng(8).standard_normal(refitted(net, *at).shape)
    value, pushed, pulled = derivatives(at, jax.tree.map(lambda *leaves: jnp.stack(leaves), *moves), seed)
    np.testing.assert_allclose(value, refitted(net, *at), rtol=1e-9, atol=1e-9)
    assert (value == 0).any() == (at[0] is not None)
    for move, got in zip(moves, pushed, strict=True):
        fits = [
            factor * refitted(net, *jax.tree.map(lambda a, v, h=step * STEP: a + h * v, at, move))
            for step, factor in DIFFERENCES.items()
        ]
        np.testing.assert_allclose(got, sum(fits) / STEP, rtol=1e-6, atol=1e-6 * abs(got).max())
        assert got.any()
        assert not got[value == 0].any()
        back = sum(jax.tree.leaves(jax.tree.map(lambda bar, v: (bar * v).sum(), pulled, move)))
        assert_close(back, got @ seed, 10 * N)


def test_the_derivative_by_a_weight_is_the_infinitesimal_jackknife(float64):
    net, batch, weight = lr_nn.logistic_regression(D), Batch(X, LABELS), jnp.ones(N)
    by_weight = jax.jit(jax.jacobian(lambda s: fitted(net, None, 0.0, X, LABELS, s, None)))
    solution = lr_nn.fit(net, batch, tol=1e-24)
    hc0 = inference.summary(net, solution, batch, covariance="hc0").covariance
    jackknife = by_weight(weight)
    np.testing.assert_allclose(jackknife @ jackknife.T, hc0, rtol=1e-8, atol=1e-10)
    influence = inference.influence(net, solution, batch)
    deletion = influence.one_step[:, :, 0] - solution.coefficients[None, :, 0]
    np.testing.assert_allclose(-jackknife.T / (1 - influence.leverage[:, None]), deletion, rtol=1e-7, atol=1e-9)

    absent = weight.at[:2].set(0)
    got = by_weight(absent)
    assert abs(got[:, :2]).max() > 1e-3, "a row of weight zero would move the fit"
    for row in range(2):  # a difference on the side where the row comes in
        fits = [refitted(net, None, 0.0, X, LABELS, absent.at[row].set(step * STEP), None) for step in (0, 1, 2)]
        np.testing.assert_allclose(got[:, row], (4 * fits[1] - 3 * fits[0] - fits[2]) / (2 * STEP), rtol=1e-4)


def test_padding_has_no_derivative_and_spoils_none(float64):
    net, (_, l2, x, y, weight, offset) = problem("logistic, l2")
    by_all = jax.jit(jax.grad(lambda *at: jnp.square(fitted(net, None, *at)).sum(), argnums=tuple(range(5))))
    counts = weight > 0
    kept = by_all(l2, x[counts], y[counts], weight[counts], offset[counts])
    for bad in (np.nan, np.inf):
        padded_x, padded_y, padded_offset = (np.where(counts[:, None], leaf, bad) for leaf in (x, y, offset))
        by_strength, *by_rows = by_all(l2, padded_x, padded_y, weight, padded_offset)
        assert_close(by_strength, kept[0], 100 * N)
        for got, wanted in zip(by_rows, kept[1:], strict=True):
            assert not got[~counts].any()
            assert_close(got[counts], wanted, 100 * N)


def test_second_derivatives_are_exact(float64):
    net, at = problem("poisson, both")

    def gradient(l2):
        return jax.grad(lambda l2: jnp.square(fitted(net, at[0], l2, *at[2:])).sum())(l2)

    second = jax.jit(lambda l2: (jax.grad(gradient)(l2), jax.jacfwd(gradient)(l2)))
    first = jax.jit(gradient)
    got = second(0.1)
    wanted = sum(factor * first(0.1 + step * 5e-4) for step, factor in DIFFERENCES.items()) / 5e-4
    np.testing.assert_allclose(got, [wanted, wanted], rtol=1e-6)


def test_lanes_of_vmap_are_the_fits_alone_and_a_jacobian_has_a_column_a_row(float64):
    net, (_, _, x, y, weight, offset) = problem("logistic, l2")
    by_strength = jax.jacobian(lambda l2: implicit.fit(net, Batch(x, y, weight, offset), Penalty(l2=l2))[0].w[:, 0])
    strengths = jnp.array([0.01, 0.1, 1.0])
    lanes, alone = jax.jit(jax.vmap(by_strength))(strengths), jax.jit(by_strength)
    for strength, lane in zip(strengths, lanes, strict=True):
        assert_close(lane, alone(strength), 100 * N)


def test_a_shift_common_to_all_offsets_moves_the_bias_alone(float64):
    net, (_, l2, x, y, weight, offset) = problem("logistic, l2")
    by_offset = jax.jit(jax.jacobian(lambda offset: fitted(net, None, l2, x, y, weight, offset)))(offset)
    assert by_offset.shape == (D + 1, N, 1)
    assert_close(by_offset.sum(axis=(1, 2)), [0, 0, 0, -1], 100 * N)


def test_what_has_no_unique_certified_optimum_is_nan_with_every_derivative():
    net = lr_nn.logistic_regression(2)
    both = jax.jit(jax.value_and_grad(lambda x, y, penalty: implicit.fit(net, Batch(x, y), penalty)[0].w.sum()))
    x, noisy = X[:, :2].astype(np.float32), LABELS.astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    separated = both(x, y, Penalty())
    twice = both(x[:, [0, 0]], noisy, Penalty(l1=0.01))
    negative = both(x, noisy, Penalty(l1=-0.01)), both(x, noisy, Penalty(l2=-0.01))
    for value, gradient in (separated, twice, *negative):
        assert np.isnan(value) and np.isnan(gradient).all()
    assert many.solve(net, Batch(x, y)).status == Status.max_steps
    with jax.debug_nans(True), jax.debug_infs(True):
        value, gradient = both(x, noisy, Penalty())
        assert np.isfinite(value) and np.isfinite(gradient).all()
        with pytest.raises(FloatingPointError):
            both(x, y, Penalty())


def test_float32_has_the_derivatives_of_float64_far_from_zero():
    net, (_, l2, x, *others) = problem("logistic, l2")
    by_strength = jax.jit(jax.jacobian(lambda l2, x: fitted(net, None, l2, x, *others)[:D]))
    x = x + np.array([100.0, 0.0, 0.0])
    narrow = by_strength(np.float32(l2), x.astype(np.float32))
    with jax.enable_x64(True):
        wide = np.asarray(by_strength(l2, x))
    np.testing.assert_allclose(narrow, wide, rtol=1e-4)


def test_classes_whose_l1_optimum_is_not_unique_have_the_derivative_of_least_norm(float64):
    """Of two classes (w, -w) costs what (w + c, -w + c) does: predictions have a derivative, and so does w - -w."""
    net, two = lr_nn.softmax_regression(D, 2), lr_nn.logistic_regression(D)

    def contrast(l1):
        [(w, _)] = implicit.fit(net, Batch(X, LABELS.astype(int)), Penalty(l1=l1))
        return w[:, 1] - w[:, 0]

    got = jax.jit(jax.jacobian(contrast))(0.02)
    wanted = jax.jit(jax.jacobian(lambda l1: implicit.fit(two, Batch(X, LABELS), Penalty(l1=l1))[0].w[:, 0]))
    np.testing.assert_allclose(got, wanted(0.02), rtol=1e-9)


def test_more_features_than_rows(float64):
    rng, net, l2 = np.random.default_rng(9), lr_nn.linear_regression(40), 0.3
    x, y = rng.standard_normal((12, 40)), rng.standard_normal(12)
    got = jax.jit(jax.jacobian(lambda y: implicit.fit(net, Batch(x, y), Penalty(l2=l2))[0].w[:, 0]))(y)
    centred = x - x.mean(axis=0, keepdims=True)
    wanted = np.linalg.solve(centred.T @ centred + 12 * l2 * np.eye(40), centred.T)
    assert_close(got, wanted, 1000, condition=100)


def test_a_strength_chosen_by_its_gradient_is_that_of_a_grid(float64):
    rng, d = np.random.default_rng(0), 8
    x = rng.standard_normal((80, d))
    y = (x @ np.eye(1, d)[0] + rng.logistic(size=80) > 0).astype(float)
    net, fitted_to, held_out = lr_nn.logistic_regression(d), Batch(x[:40], y[:40]), Batch(x[40:], y[40:])

    @jax.jit
    def validation(log_l2):
        params = implicit.fit(net, fitted_to, lr_nn.penalties.l2(jnp.exp(log_l2)))
        return lr_nn.cost(net, params, held_out)

    slope, curvature = jax.jit(jax.grad(validation)), jax.jit(jax.grad(jax.grad(validation)))
    grid = np.linspace(-6.0, 1.0, 29)
    log_l2 = grid[np.argmin([validation(at) for at in grid])]
    assert grid[0] < log_l2 < grid[-1]
    start = log_l2 + 0.5
    for _ in range(6):
        start = start - slope(start) / abs(curvature(start))
    assert abs(slope(start)) < 1e-10 and abs(start - log_l2) < grid[1] - grid[0]
    assert validation(start) <= validation(log_l2)


def test_learnt_weights_of_rows_find_the_wrong_labels():
    rng, n = np.random.default_rng(1), 60
    x = rng.standard_normal((2 * n, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    wrong = np.arange(n) < 15
    noisy, clean = np.where(wrong, 1 - y[:n], y[:n]), Batch(x[n:], y[n:])
    net = lr_nn.logistic_regression(2)

    @jax.jit
    @jax.grad
    def slope(weight):
        params = implicit.fit(net, Batch(x[:n], noisy, weight), Penalty(l2=0.01))
        return lr_nn.cost(net, params, clean)

    weight = np.ones(n, np.float32)
    for _ in range(20):
        weight = np.maximum(weight - 20 * slope(weight), 0)
    assert weight[wrong].mean() < 0.3 and weight[~wrong].mean() > 1


def test_rows_over_an_explicit_mesh_are_fitted():
    over = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = jax.sharding.NamedSharding(over, jax.sharding.PartitionSpec("rows"))
    net, batch = lr_nn.logistic_regression(D), Batch(X.astype(np.float32), LABELS.astype(np.float32))
    placed = jax.tree.map(lambda leaf: jax.device_put(leaf, rows), batch)
    spread, alone = (implicit.fit(net, data, Penalty(l2=0.1))[0].w for data in (placed, batch))
    np.testing.assert_allclose(spread, alone, rtol=1e-4)


def test_mistakes_are_refused_by_name_and_fit_points_here():
    net = lr_nn.logistic_regression(D)
    batch = Batch(X.astype(np.float32), (X[:, 0] > 0).astype(np.float32))
    with pytest.raises(ValueError, match=r"implicit\.fit needs one layer"):
        implicit.fit(lr_nn.mlp((D, 2, 1)), batch)
    with pytest.raises(ValueError, match="max_steps"):
        implicit.fit(net, batch, max_steps=0)
    with pytest.raises(TypeError, match=r"under jit or vmap call lr_nn\.many\.solve, .* lr_nn\.implicit\.fit"):
        jax.grad(lambda l2: lr_nn.fit(net, batch, penalty=Penalty(l2=l2)).cost)(0.1)
