"""`many.solve` against `lr_nn.fit`: the same optimum, a bound that holds, and a status that promises no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lr_nn
from lr_nn import Batch, Penalty, Status, losses
from lr_nn.many import solve

N, D = 60, 3
LOSSES = {"squared_error": 1, "bernoulli": 1, "bernoulli of 3": 3, "categorical": 3, "poisson": 1}
PENALTIES = {"none": (0.0, 0.0), "l2": (0.0, 0.1), "l1": (0.03, 0.0), "both": (0.02, 0.05)}


def problem(name, dtype=np.float64):
    """A network, and rows of it with weights, some of them zero, offsets, and a feature far from zero."""
    k, rng = LOSSES[name], np.random.default_rng(5)
    net = lr_nn.Network((D, k), (), getattr(losses, name.split()[0]))
    x = rng.standard_normal((N, D)).astype(np.float32)
    eta = x @ rng.standard_normal((D, k)) / 2
    y = {
        "squared_error": eta + rng.standard_normal((N, k)),
        "poisson": rng.poisson(np.exp(eta)),
        "categorical": (eta + rng.gumbel(size=(N, k))).argmax(axis=1),
    }.get(name, (eta + rng.logistic(size=(N, k)) > 0).astype(float))
    offset = (rng.standard_normal((N, k)) / 3).astype(np.float32)
    x = x + np.array([0, 0, 20], np.float32)
    return net, Batch(x.astype(dtype), y, rng.integers(0, 4, N).astype(float), offset)


def gap(net, batch, penalty, params):
    """J - J*, in float64."""
    best = lr_nn.fit(net, batch, penalty=penalty, tol=1e-12)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return float(lr_nn.cost(net, wide, batch, penalty)) - best.cost, best


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", LOSSES)
def test_it_finds_the_optimum_of_fit_and_its_certificate_is_above_the_gap(float64, name, penalty):
    strengths = Penalty(*PENALTIES[penalty])
    for dtype, near in ((np.float64, 1e-4), (np.float32, 0.02)):
        net, batch = problem(name, dtype)
        found = jax.jit(solve)(net, batch, strengths) if penalty == "l1" else solve(net, batch, strengths)
        assert found.certificate.dtype == found.params[0].w.dtype == dtype
        missing, best = gap(net, problem(name)[1], strengths, found.params)
        assert missing <= found.certificate + 1e-14
        # In float32 the weights of classes have no curvature along their mean: only an l2 penalty certifies them.
        assert found.status == Status.converged or (dtype, name, penalty) == (np.float32, "categorical", "l1")
        for got, expected in zip(found.params[0], best.params[0]):
            np.testing.assert_allclose(got, expected, atol=near * (20 if got.ndim == 1 else 1))


@pytest.mark.parametrize("name", ["bernoulli of 3", "categorical"])
def test_a_traced_l1_of_zero_is_no_l1(float64, name):
    net, batch = problem(name)
    traced = jax.jit(lambda l1: solve(net, batch, Penalty(l1, 0.0)))(0.0)
    plain = solve(net, batch)
    assert traced.status == plain.status == Status.converged
    np.testing.assert_allclose(traced.params[0].w, plain.params[0].w, atol=1e-5)
    if name == "categorical":
        np.testing.assert_allclose(traced.params[0].w.sum(axis=1), 0, atol=1e-12)


def test_lanes_of_vmap_and_the_steps_of_scan_are_the_fits_alone():
    net, batch = problem("bernoulli", np.float32)
    strengths, shift = jnp.array([0.01, 0.1, 1.0]), jnp.array([0.0, 0.5, 1.0])

    def one(l2, by):
        return solve(net, batch._replace(x=batch.x + by), lr_nn.penalties.l2(l2))

    lanes = jax.jit(jax.vmap(one))(strengths, shift)
    _, scanned = jax.jit(lambda *each: jax.lax.scan(lambda carry, own: (carry, one(*own)), 0, each))(strengths, shift)
    for i in range(3):
        alone = one(strengths[i], shift[i])
        assert alone.status == lanes.status[i] == scanned.status[i] == Status.converged
        for got in (lanes, scanned):
            np.testing.assert_allclose(got.params[0].w[i], alone.params[0].w, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_without_an_optimum_never_converge(float64, dtype):
    rng, net = np.random.default_rng(0), lr_nn.logistic_regression(2)
    x = rng.standard_normal((30, 2)).astype(dtype)
    fit = jax.jit(lambda x, y, l2: solve(net, Batch(x, y), Penalty(0.0, l2)))
    up = x[:, 0] > 0
    for rows, y in ((x, up), (np.sign(x), up & (x[:, 1] > 0)), (x, np.zeros(30)), (x[:, [0, 0]], x[:, 1] > 0)):
        found = fit(rows, y.astype(dtype), 0.0)
        assert found.status == Status.max_steps and found.certificate == np.inf
    for y in (np.zeros(30, dtype), np.ones(30, dtype)):  # the bias of one class has no optimum, whatever the penalty
        assert fit(x, y, 0.1).status == Status.max_steps
        assert fit(x[:1], y[:1], 0.1).status == Status.max_steps
    assert fit(np.where(x > 1, np.nan, x), up.astype(dtype), 0.1).status == Status.non_finite
    noisy = x[:, 0] + rng.logistic(size=30) > 0
    negative = fit(x, noisy.astype(dtype), -0.05)
    assert negative.status == Status.non_finite and negative.certificate == np.inf


def test_exchanging_the_labels_changes_the_signs(float64):
    net, batch = problem("bernoulli")
    ours, theirs = (solve(net, batch._replace(y=y, offset=None)) for y in (batch.y, 1 - batch.y))
    np.testing.assert_allclose(ours.params[0].w, -theirs.params[0].w, rtol=1e-9)
    np.testing.assert_allclose(ours.params[0].b, -theirs.params[0].b, rtol=1e-9)


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_rows_of_weight_zero_count_for_nothing(float64, name):
    net, batch = problem(name)
    counts = batch.weight > 0
    y = np.where(counts.reshape(-1, *(1,) * (batch.y.ndim - 1)), batch.y, np.array(-7, batch.y.dtype))
    fit = jax.jit(lambda batch: solve(net, batch, lr_nn.penalties.l2(0.1)))
    kept = fit(Batch(*(leaf[counts] for leaf in batch)))
    for bad in (np.nan, np.inf, 1e30):
        x = np.where(counts[:, None], batch.x, bad)
        got = fit(batch._replace(x=x, y=y, offset=np.where(counts[:, None], batch.offset, bad)))
        assert got.status == Status.converged
        np.testing.assert_allclose(got.params[0].w, kept.params[0].w, atol=1e-7)


def test_mistakes_are_refused_at_once():
    net, batch = problem("bernoulli", np.float32)
    with pytest.raises(ValueError, match=r"certif|concordance"):
        solve(lr_nn.mlp((D, 2, 1)), batch)
    with pytest.raises(ValueError, match="huber"):
        solve(lr_nn.Network((D, 1), (), losses.huber(1.0)), batch)
    with pytest.raises(ValueError, match="shape"):
        jax.jit(lambda x: solve(net, batch._replace(x=x)))(batch.x[:, :2])
    with pytest.raises(ValueError, match="use vmap"):
        solve(net, batch, lr_nn.penalties.l2(jnp.ones(3)))
    with pytest.raises(ValueError, match="tol"):
        solve(net, batch, tol=0.0)
    with pytest.raises(ValueError, match="max_steps"):
        solve(net, batch, max_steps=0)
