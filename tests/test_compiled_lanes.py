"""The parts that compiled lanes are assembled from, each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fit import K, data
from tolerances import assert_close, tolerance

import lr_nn
from lr_nn import losses
from lr_nn.many import certificate, memory, proximal
from lr_nn.many.one_layer import OneLayer
from lr_nn.referee.compilation import FAST_OPTIONS, fast_compile, known_options

LENGTH = 100
at, hessian, strong = jax.jit(OneLayer.at), jax.jit(OneLayer.hessian), jax.jit(certificate.strong)
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
def test_the_certificate_of_a_penalised_cost_is_a_bound(float64, name, distance):
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
    for enough in (jnp.inf, 0.0):  # 0: the change with the bias to first order
        assert near.cost - best.cost <= strong(objective, near, jnp.asarray(enough))


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
