"""The parts that fits are assembled from, each against its definition."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lr_nn.solvers import certificate, memory, preconditioner, proximal, separation, solve
from lr_nn.solvers.compilation import FAST_OPTIONS, fast_compile, known_options
from lr_nn.solvers.line_search import ENOUGH, FLAT, Line, OnLine, search
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.run import at
from lr_nn.solvers.smooth import LBFGS
from test_fit import K, data
from tolerances import assert_close, tolerance

import lr_nn
from lr_nn import losses

LENGTH = 100
hessian, strong = jax.jit(OneLayer.hessian), jax.jit(certificate.strong)
NETS = {
    "bernoulli": lr_nn.logistic_regression(4, K),
    "categorical": lr_nn.softmax_regression(4, K),
    "poisson, no bias": lr_nn.Network((4, 1), (), losses.poisson, bias=False),
}


def problem(name, l2=0.1, l1=0.0, offset=True):
    """An objective on drawn rows with weights and an offset, and a θ."""
    net, rng = NETS[name], np.random.default_rng(3)
    task = {"bernoulli": "logistic", "categorical": "softmax"}.get(name, "poisson")
    x, y = data(task, n=30, k=net.sizes[1])
    x = x / 5
    share = rng.random(30)
    shift = jnp.asarray(rng.standard_normal((30, net.sizes[1]))) if offset else None
    encoded = net.loss.encode(net.loss.targets(y, 30, net.sizes[1], jnp.float64), jnp.zeros((30, net.sizes[1])))
    objective = OneLayer(
        jnp.asarray(x), encoded, jnp.asarray(share / share.sum()), shift, jnp.asarray(l2), jnp.asarray(l1), net
    )
    return objective, jnp.asarray(rng.standard_normal(lr_nn.n_parameters(net)) / 3)


def cost(objective, theta):
    """J by this package's own cost, which has twins of its own."""
    params = (objective.split(theta),)
    batch = lr_nn.Batch(objective.x, objective.y, objective.share, objective.offset)
    return lr_nn.cost(objective.net, params, batch, lr_nn.Penalty(0.0, objective.l2))


every_net = pytest.mark.parametrize("name", NETS)


@every_net
def test_the_objective_has_the_derivatives_of_autodiff_in_the_order_of_theta(float64, name):
    objective, theta = problem(name)
    point = at(objective, theta)
    value, slope = jax.jit(jax.value_and_grad(lambda t: cost(objective, t)))(theta)
    assert_close(point.cost, value, LENGTH)
    assert_close(point.gradient, slope, LENGTH)
    assert_close(hessian(objective, point.eta), jax.jit(jax.hessian(lambda t: cost(objective, t)))(theta), LENGTH)


@every_net
def test_a_line_is_the_cost_along_it_and_its_landing_the_point_there(float64, name):
    objective, theta = problem(name)
    along = jnp.cos(jnp.arange(theta.size, dtype=float))
    line = objective.line(at(objective, theta), along)
    for t in (0.0, 0.3, 2.0):
        found, there = line.at(t), objective.at(theta + t * along)
        assert_close(found.cost, there.cost, LENGTH)
        assert_close(found.slope, there.gradient @ along, LENGTH)
        landed = line.land(t, found)
        assert_close(landed.carried, jnp.linalg.norm(theta) + t * jnp.linalg.norm(along), LENGTH)
        for got, expected in zip(landed[:-1], there[:-1], strict=True):
            assert_close(got, expected, LENGTH)


@every_net
def test_the_bound_on_what_eta_drifted_is_above_what_it_did(float64, name):
    objective, theta = problem(name)
    point = at(objective, theta)
    for step in range(1, 40):  # far out and back
        line = objective.line(point, 1e3 * jnp.sin(step * jnp.arange(theta.size)) * (-1) ** step)
        point = line.land(1.0, line.at(1.0))
    point = point._replace(theta=theta, eta=point.eta - objective.predictor(point.theta - theta))
    measured = certificate.drift(objective, point, jnp.asarray(39), jnp.zeros(()))
    assert 0 < measured <= certificate.drift(objective, point, jnp.asarray(39), jnp.asarray(jnp.inf))
    assert jnp.abs(objective.at(theta).cost - objective.line(point, 0 * theta).at(0.0).cost) <= measured


def test_the_last_full_step_begins_where_the_gap_is_met_and_ends_where_the_bound_is(float64):
    objective, theta = problem("bernoulli", l2=1e-3)
    factor, built = preconditioner.identity(objective), jnp.zeros((), bool)
    tolerance = jnp.asarray(1e-6)

    def after(steps, tolerance):
        direction = LBFGS(objective, objective, tolerance, factor, built)
        return jax.jit(lambda d, t, n: solve(objective, d, t, tolerance, n))(direction, theta, steps)

    best = after(100, jnp.asarray(1e-14)).point.cost
    last = after(100, tolerance)
    before = after(last.steps - 1, tolerance)
    assert last.met and not before.met
    assert before.point.cost - best <= tolerance
    assert certificate.strong(objective, last.point, tolerance) <= 1.1 * tolerance


CURVES = {
    "a parabola": lambda t: (t - 3.0) ** 2,
    "a steep parabola": lambda t: (100 * t - 1.0) ** 2,
    "softplus": lambda t: jnp.log1p(jnp.exp(5 * (t - 2))) - t,
    "a far minimum": lambda t: (t / 1000 - 1.0) ** 2,
    "a wave": lambda t: jnp.cos(t + 0.5) + t / 10,
    "infinite beyond one half": lambda t: jnp.where(t < 0.5, -jnp.log(jnp.maximum(0.5 - t, 1e-300)) - 3 * t, jnp.inf),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_step_satisfies_the_strong_wolfe_conditions(float64, curve):
    value, slope = curve(jnp.asarray(0.0)), jax.grad(curve)(jnp.asarray(0.0))
    assert slope < 0
    line = Line(lambda t: OnLine(curve(t), jax.grad(curve)(t), t), lambda t, found: None)
    t, found = search(line.at, value, slope)
    assert found.carry == t > 0
    assert found.cost <= value + ENOUGH * t * slope + 1e-12 and abs(found.slope) <= FLAT * abs(slope)


def test_two_loops_are_the_bfgs_update_of_the_inverse_and_old_pairs_leave(float64):
    rng = np.random.default_rng(0)
    dense, known = np.eye(6), memory.empty(3, jnp.zeros(6))
    pairs = [(s := rng.standard_normal(6), s + 0.1 * rng.standard_normal(6)) for _ in range(5)]
    for s, y in pairs:
        known = memory.remember(known, jnp.asarray(s), jnp.asarray(y))
    for s, y in pairs[-3:]:
        rho, one = 1 / (s @ y), np.eye(6)
        dense = (one - rho * np.outer(s, y)) @ dense @ (one - rho * np.outer(y, s)) + rho * np.outer(s, s)
    vector = rng.standard_normal(6)
    assert_close(memory.multiply(known, jnp.asarray(vector), lambda q: q), dense @ vector, LENGTH)
    kept = memory.remember(known, jnp.asarray(pairs[0][0]), -jnp.asarray(pairs[0][0]))
    assert all((a == b).all() for a, b in zip(kept, known, strict=True)), "a pair of negative curvature"


@pytest.mark.parametrize("name", ["bernoulli", "poisson, no bias"])
def test_the_factor_solves_with_the_hessian_of_a_loss_that_is_a_sum_over_outputs(float64, name):
    objective, theta = problem(name)
    objective = replace(objective, x=objective.x + 10 * objective.x[:, :1])
    factor = preconditioner.build(objective, theta, len(objective.y))
    dense = np.asarray(hessian(objective, at(objective, theta).eta))
    vector = np.sin(np.arange(theta.size))
    solved = preconditioner.solve(objective, factor, jnp.asarray(1e-30 * vector))
    np.testing.assert_allclose(np.asarray(solved) * 1e30, np.linalg.solve(dense, vector), rtol=1e-3, atol=1e-4)


def test_of_independent_columns_the_factor_is_their_scale(float64):
    rows = np.random.default_rng(0).standard_normal((400, 20)) * 10.0 ** np.arange(-4, 6).repeat(2)
    net = lr_nn.logistic_regression(20)
    y, share, zero = jnp.ones((400, 1)), jnp.full(400, 1 / 400), jnp.zeros(())
    objective = OneLayer(jnp.asarray(rows), y, share, None, zero, zero, net)
    scale, inverse = preconditioner.build(objective, jnp.zeros(21), 10**5)
    np.testing.assert_allclose(inverse[0], np.eye(21), atol=2 * preconditioner.JITTER)
    squares = (objective.inputs() ** 2).mean(axis=0) / 4
    np.testing.assert_allclose(scale[0], 1 / np.sqrt(squares), rtol=tolerance(np.float32))


def test_of_independent_columns_the_factor_knows_their_curvature_along_theta(float64):
    n, d = 4000, 20
    rng = np.random.default_rng(0)
    net, zero = lr_nn.logistic_regression(d), jnp.zeros(())
    x = jnp.asarray(rng.standard_normal((n, d)))
    objective = OneLayer(x, jnp.ones((n, 1)), jnp.full(n, 1 / n), None, zero, zero, net)
    theta = jnp.asarray(np.append(rng.standard_normal(d) / 2, 0.5))
    scale, inverse = (np.asarray(leaf, float) for leaf in preconditioner.build(objective, theta, 10**6))
    assert len(np.unique(scale[0, :d])) == 1, "columns alike have one scale"
    factor = np.linalg.inv(inverse[0] * scale[0])
    factored, dense = factor @ factor.T, np.asarray(hessian(objective, at(objective, theta).eta))
    along = np.stack([np.append(theta[:d], 0), np.append(np.zeros(d), 1)])
    np.testing.assert_allclose(along @ factored @ along.T, along @ dense @ along.T, rtol=1e-4, atol=1e-6)
    spread = np.linalg.eigvals(np.linalg.solve(factored, dense))
    assert spread.min() > 1 - 3 * np.sqrt(d / n) and spread.max() < 1 + 3 * np.sqrt(d / n)


@every_net
def test_coordinate_descent_ends_where_the_subgradient_of_the_model_vanishes(float64, name):
    objective, theta = problem(name, l1=0.05)
    point = at(objective, theta)
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), objective)
    blocks = proximal.model(narrow, narrow.eta(theta.astype(jnp.float32)))
    target = proximal.descend(objective, blocks, point, jnp.asarray(1e-14))
    shape = (-1, len(blocks))
    change = np.asarray(target - theta).reshape(shape).T
    slope = np.asarray(point.gradient).reshape(shape).T + np.einsum("bij,bj->bi", np.asarray(blocks, float), change)
    model = point._replace(theta=target, gradient=jnp.asarray(slope.T.reshape(-1)))
    for leaf in jax.tree.leaves(proximal.subgradient(objective, model)):
        assert np.abs(leaf).max() <= tolerance(np.float32)  # rounding leaves the model not quite symmetric
    assert (np.asarray(target) == 0).any()


@every_net
@pytest.mark.parametrize("distance", [1e-1, 1e-3])
def test_both_certificates_of_a_penalised_cost_are_bounds_and_near_the_optimum_tight(float64, name, distance):
    objective, theta = problem(name)
    for _ in range(30):  # Newton's method, to the optimum of a strictly convex cost
        point = at(objective, theta)
        curvature = hessian(objective, point.eta)
        if objective.net.loss.couples_outputs:
            curvature = curvature + 1e-3 * jnp.eye(theta.size)
        theta = theta - 0.8 * jnp.linalg.solve(curvature, point.gradient)
    best = at(objective, theta)
    assert jnp.abs(best.gradient).max() < 1e-8
    near = at(objective, objective.centred(theta + distance * jnp.sin(jnp.arange(theta.size))))
    gap = near.cost - best.cost
    local = jax.jit(certificate.local)(objective, near).bound
    for enough in (jnp.inf, 0.0):  # 0: the change with the bias to first order
        assert gap <= strong(objective, near, jnp.asarray(enough))
    assert gap <= local
    if distance < 1e-2:
        assert local <= 1.2 * gap


def test_overlapping_classes_have_no_recession_direction_and_separated_ones_do():
    x = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    assert separation.recession_direction(losses.bernoulli, x, np.array([[0.0], [1.0], [0.0], [1.0]])) is None
    found = separation.recession_direction(losses.bernoulli, x, np.array([[0.0], [0.0], [1.0], [1.0]]))
    assert (np.array([-1, -1, 1, 1]) * (x @ found)[:, 0] >= 0).all()
    between = separation.recession_direction(losses.bernoulli, x, np.array([[0.0], [0.5], [0.5], [1.0]]))
    assert between is None, "probabilities between pin two predictors, and with them the line"


def test_an_option_that_xla_does_not_know_is_dropped_and_the_others_stay():
    known = {"xla_backend_optimization_level": 0}
    unknown = {"xla_cpu_there_is_no_such_option": 1, "xla_backend_optimization_level_": 0}
    assert known_options(tuple((known | unknown).items())) == known
    run = fast_compile(lambda x: x + 1, known | unknown)
    assert run(jnp.ones(())) == 2


def test_a_fast_compiled_function_compiles_once_a_shape_and_asks_for_its_options_once():
    """Also where a release has dropped an option, which once made every call compile."""
    run, events = fast_compile(lambda x: x - 1, FAST_OPTIONS | {"xla_cpu_there_is_no_such_option": 2}), []

    def listen(event, _seconds, **_):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert run(np.float32(1)) == 0
        assert events, "the first call compiles"
        events.clear()
        assert run(np.float32(2)) == 1
        assert not events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
