"""The passes of many lanes: sums over their rows, Hessians, bounds and models, each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_many import NETS, D, targets
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, penalties
from lr_nn.fitting.chunks import Frame
from lr_nn.fitting.settings import DEFAULT
from lr_nn.many.directions import model_minima
from lr_nn.many.inputs import OwnInputs, SharedInputs
from lr_nn.many.objective import Objective
from lr_nn.many.rows import Rows, Targets, pairs_at_once

RNG = np.random.default_rng(1)
M, N, L2 = 3, 50, 0.1
every_net = pytest.mark.parametrize("name", NETS)
shared_or_own = pytest.mark.parametrize("shared", [True, False], ids=["shared x", "own x"])


def lanes(name, shared, offset=True):
    """An objective of M lanes, and a function that is each lane's cost by this package's own, which has twins."""
    net = NETS[name]
    k, bias = net.sizes[1], net.bias
    x = RNG.standard_normal((N, D) if shared else (M, N, D)) + 1
    y, weight = targets(net, M, N), RNG.integers(0, 3, (M, N)).astype(float)
    shift = RNG.standard_normal((M, N, k)) if offset else None
    pairs = pairs_at_once(net.loss, k)
    mean = np.full(D, 0.5) if bias else np.zeros(D)
    inputs = (
        SharedInputs.of(x, Frame(mean, False, np.zeros(k), bias), 16)
        if shared
        else OwnInputs.of(x, weight, bias, bias, pairs)
    )
    own = np.arange(M)
    rows = Rows(inputs, Targets(y, weight, shift, own, own, own, y.dtype), net.loss, k, True)
    q = D + bias
    ridge = np.zeros((M, q, k))
    ridge[:, :D] = L2
    total = weight.sum(axis=1)
    worth = total**2 / (weight**2).sum(axis=1)
    objective = Objective(rows, total, worth, ridge, 0 * ridge, np.zeros(M), np.ones((M, q)), np.full(M, 1e-6))

    def cost(i, theta):
        w = theta[:D]
        b = theta[D] - jnp.asarray(np.atleast_2d(inputs.mean)[0 if shared else i]) @ w if bias else None
        batch = Batch(x if shared else x[i], y[i], weight[i], None if shift is None else shift[i])
        return lr_nn.cost(net, (lr_nn.Layer(w, b),), batch, penalties.l2(L2))

    return objective, cost, RNG.standard_normal((M, q, k)) / 3


@every_net
@shared_or_own
def test_costs_gradients_and_hessians_are_those_of_autodiff(float64, name, shared):
    objective, cost, theta = lanes(name, shared)
    point = objective.at(theta)
    hessian = objective.hessian(point)
    for i in range(M):
        own = jnp.asarray(theta[i])
        value, slope = jax.value_and_grad(lambda t, i=i: cost(i, t))(own)
        assert_close(point.cost[i], value, N)
        assert_close(point.gradient[i], slope, N)
        curvature = jax.hessian(lambda t, i=i: cost(i, t))(own)
        q, k = own.shape
        if objective.is_coupled:
            assert_close(hessian[i, 0], curvature.reshape(q * k, q * k), N)
        else:
            assert_close(hessian[i], np.einsum("ajbj->jab", curvature), N)


@every_net
@shared_or_own
def test_some_lanes_have_the_sums_that_they_have_among_all(name, shared):
    objective, _, theta = lanes(name, shared)
    with jax.enable_x64(True):
        whole, some = objective.at(theta, closing=True), np.array([2, 0])
        part = objective.take(some).at(theta[some], closing=True)
    assert_close(part.cost, whole.cost[some], N)
    assert_close(part.gradient, whole.gradient[some], N)
    assert_close(part.closing.cross, whole.closing.cross[some], N)


@every_net
@shared_or_own
@pytest.mark.parametrize("distance", [1e-1, 1e-3])
def test_a_certificate_is_a_bound(float64, name, shared, distance):
    objective, _, best = lanes(name, shared)
    for _ in range(30):  # Newton's method, to the optimum of a strictly convex cost
        point = objective.at(best)
        hessian = objective.hessian(point)
        hessian = hessian + 1e-3 * np.eye(hessian.shape[-1]) * objective.is_coupled
        gradient = objective.blocks(point.gradient, objective.is_coupled)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        best = best - 0.8 * objective.unblocked(step, objective.is_coupled)
    least = objective.at(best)
    assert np.abs(least.gradient).max() < 1e-8
    near = objective.at(objective.centred(best + distance * np.sin(np.arange(best.size)).reshape(best.shape)), True)
    bound = objective.certificate(near, DEFAULT)
    assert (near.cost - least.cost <= (1 + 1e-9) * bound).all()
    assert distance > 1e-2 or np.isfinite(bound).all()


def test_the_minimum_of_a_model_has_no_subgradient():
    roots = RNG.standard_normal((4, 6, 8))
    hessian, start, gradient = (
        roots @ np.swapaxes(roots, 1, 2),
        RNG.standard_normal((4, 6)),
        RNG.standard_normal((4, 6)),
    )
    thresholds = np.full((4, 6), 2.0)
    found = model_minima(hessian, start, gradient, thresholds, np.full(4, 1e-12), 10_000)
    slope = gradient + np.einsum("mab,mb->ma", hessian, found - start)
    zero = found == 0
    assert zero.any() and not zero.all()
    assert (np.abs(slope[zero]) <= 2).all()
    np.testing.assert_allclose(slope[~zero], -2 * np.sign(found[~zero]), atol=1e-10)


def test_another_number_of_rows_or_lanes_or_columns_compiles_nothing():
    events = []

    def listen(event, _seconds, **_):
        events.append(event)

    def fits(m, n, d):
        x = RNG.standard_normal((n, d))
        y = (RNG.random(n) < 0.5).astype(float)
        lr_nn.cross_validate(lr_nn.logistic_regression(d), Batch(x, y), penalty=penalties.l2(np.geomspace(1, 1e-3, m)))

    fits(10, 301, 5)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        fits(10, 300, 5)
        fits(7, 203, 6)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in events if event == "/jax/core/compile/backend_compile_duration"]
