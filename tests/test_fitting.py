"""The parts that `fit` is assembled from, each against its definition."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from cases import on_device
from jax.flatten_util import ravel_pytree
from test_fit import K, data
from tolerances import assert_close, tolerance

import lr_nn
from lr_nn import Batch, Layer, losses, penalties
from lr_nn.fitting import separation
from lr_nn.fitting.certificate import certify
from lr_nn.fitting.descent import descend
from lr_nn.fitting.directions import Newton, NewtonCG, Pairs, factored, solve
from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import posed
from lr_nn.fitting.proximal import model_minimum
from lr_nn.fitting.settings import DEFAULT, Settings
from lr_nn.fitting.source import chunk_rows
from lr_nn.fitting.status import inward, outward
from lr_nn.fitting.terms import bucket

LENGTH, N = 100, 60
L2 = penalties.l2(0.1)
NETS = {
    "bernoulli": lr_nn.logistic_regression(4, K),
    "categorical": lr_nn.softmax_regression(4, K),
    "poisson, no bias": lr_nn.Network((4, 1), (), losses.poisson, bias=False),
    "squared error": lr_nn.linear_regression(4, 2),
}
TASKS = {"bernoulli": "logistic", "categorical": "softmax", "squared error": "linear"}
SETTINGS = {
    "one chunk": DEFAULT,
    "chunks": Settings(chunk_rows=16, least_rows_of_a_thread=4, one_thread=0),
    "an accelerator": Settings(host=()),
}
every_net = pytest.mark.parametrize("name", NETS)
every_source = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def drawn(name):
    """Rows with columns far from zero, weights and an offset."""
    net, rng = NETS[name], np.random.default_rng(3)
    x, y = data(TASKS.get(name, "poisson"), n=N, k=net.sizes[1])
    x = x / 5 + (np.array([0.0, 40.0, -3.0, 0.0]) if net.bias else 0)
    return net, Batch(x, y, rng.random(N), rng.standard_normal((N, net.sizes[1])) + net.bias * 5.0)


def problem(name, penalty=L2, settings=DEFAULT):
    net, batch = drawn(name)
    with jax.enable_x64(True):
        x = jax.device_put(batch.x) if not settings.host else batch.x
        found = posed(net, of_arrays(net, [batch._replace(x=x)], settings), penalty, settings)
    theta = np.random.default_rng(4).standard_normal(found.objective.shape) / 3
    return found.objective, found.objective.centred(theta)


def in_float64(function, *args):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(function)(*on_device(args)))


@every_source
@every_net
def test_a_pass_is_the_cost_its_gradient_and_hessian_in_centred_coordinates(name, settings):
    """Autodiff of this package's cost, through the change of coordinates."""
    net, batch = drawn(name)
    objective, theta = problem(name, settings=settings)
    frame = objective.source.frame

    def cost(theta):
        w = theta[: net.sizes[0]]
        b = theta[-1] - frame.mean @ w - frame.offset if net.bias else None
        return lr_nn.cost(net, (Layer(w, b),), Batch(*on_device(tuple(batch))), penalties.l2(0.1))

    with jax.enable_x64(True):
        expected = in_float64(lambda t: (cost(t), jax.grad(cost)(t), jax.hessian(cost)(t)), theta)
        point = replace(objective, curved=True).at(theta, closing=True)
        along = np.cos(np.arange(theta.size)).reshape(theta.shape)
        moved = objective.multiply(point, along)
    assert_close(point.cost, expected[0], LENGTH)
    assert_close(point.gradient, expected[1], LENGTH)
    whole = expected[2].reshape(theta.size, theta.size)
    if not net.loss.couples_outputs:
        k = net.sizes[1]
        whole = np.stack([expected[2][:, c, :, c] for c in range(k)])
    assert_close(point.hessian, whole.reshape(point.hessian.shape), LENGTH)
    product = np.einsum("ajbk,bk->aj", expected[2], along)
    assert_close(moved.astype(np.float32), product.astype(np.float32), LENGTH)  # the products are in float32
    x = batch.x - frame.mean[None]
    extent = np.abs(np.column_stack([x, np.ones(N)]) if net.bias else x).max(axis=0)
    assert_close(point.closing.extent, extent, LENGTH)


@every_net
def test_coordinates_go_in_and_out(name):
    objective, theta = problem(name)
    frame = objective.source.frame
    again = inward(frame, outward(frame, theta, np.float64))
    np.testing.assert_allclose(again, theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 9, 569, 1000, 16_281, 65_536])
def test_there_are_eight_sizes_of_a_chunk_an_octave(size):
    assert size <= bucket(size) <= max(size * 1.15, size + 1)
    octave = range(2**10 + 1, 2**11 + 1)
    assert len({bucket(n) for n in octave}) == 8


@pytest.mark.parametrize("n", [1, 100, 4097, 32_561, 100_000, 3_000_000])
@pytest.mark.parametrize("d", [1, 30, 108, 5_000])
def test_chunks_are_few_sizes_and_hold_all_rows(n, d):
    size = chunk_rows(n, d, DEFAULT)
    assert size <= max(DEFAULT.chunk_rows, 1) and size * -(-n // size) >= n


def test_two_loops_are_the_bfgs_update_of_the_inverse_and_old_pairs_leave():
    rng = np.random.default_rng(0)
    dense, known = np.eye(6), Pairs(3)
    pairs = [(s := rng.standard_normal(6), s + 0.1 * rng.standard_normal(6)) for _ in range(5)]
    for s, y in pairs:
        known.remember(s, y)
    for s, y in pairs[-3:]:
        rho, one = 1 / (s @ y), np.eye(6)
        dense = (one - rho * np.outer(s, y)) @ dense @ (one - rho * np.outer(y, s)) + rho * np.outer(s, s)
    vector = rng.standard_normal(6)
    assert_close(known.multiply(vector, lambda q: q), dense @ vector, LENGTH)
    before = list(known.kept)
    known.remember(pairs[0][0], -pairs[0][0])
    assert known.kept == before, "a pair of negative curvature"


def test_a_factor_solves_and_one_of_rounding_is_none():
    rng = np.random.default_rng(0)
    half = rng.standard_normal((2, 5, 5)) * 10.0 ** np.arange(-4, 6, 2)
    blocks, rows = np.einsum("bij,bik->bjk", half, half), rng.standard_normal((2, 5))
    expected = np.stack([np.linalg.solve(block, row) for block, row in zip(blocks, rows)])
    np.testing.assert_allclose(solve(factored(blocks), rows), expected, rtol=1e-6)
    assert factored(np.ones((1, 3, 3))) is None and factored(np.zeros((1, 2, 2))) is None


class Curve:
    """A cost of one number, for the loop."""

    is_sparse = ends_on_arrival = False

    def __init__(self, value, slope):
        self.value, self.slope, self.tried = value, slope, []

    def at(self, theta, closing=False):
        from lr_nn.fitting.linear import Point

        self.tried.append(float(theta[0]))
        return Point(theta, float(self.value(theta[0])), np.array([self.slope(theta[0])]))

    def estimate(self, point, decrement):
        return decrement

    def composite(self, point):
        return point.cost

    def bend(self, point, along):
        return 0.0

    def moved(self, point, along, step):
        return point.theta + step * along

    def shortened(self, along):
        return along

    def steepest(self, point):
        return -point.gradient

    def length(self, point):
        return abs(point.gradient[0])


class Downhill:
    """A direction of length one."""

    def propose(self, point):
        return -np.sign(point.gradient)

    def learn(self, old, new):
        pass


CURVES = {
    "a parabola": (lambda t: (t - 3.0) ** 2, lambda t: 2 * (t - 3.0)),
    "a steep parabola": (lambda t: (100 * t - 1.0) ** 2, lambda t: 200 * (100 * t - 1.0)),
    "softplus": (lambda t: np.log1p(np.exp(5 * (t - 2))) - t, lambda t: 5 / (1 + np.exp(5 * (2 - t))) - 1),
    "a far minimum": (lambda t: (t / 1000 - 1.0) ** 2, lambda t: (t / 1000 - 1.0) / 500),
    "infinite beyond one half": (
        lambda t: -np.log(0.5 - t) - 3 * t if t < 0.5 else np.inf,
        lambda t: 1 / (0.5 - t) - 3 if t < 0.5 else np.nan,
    ),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_step_lowers_cost_and_slope(curve):
    objective = Curve(*curve)
    point = objective.at(np.zeros(1))
    state = descend(objective, Downhill(), point, 0.0, 1, DEFAULT)
    t, slope = abs(state.point.theta[0]), abs(point.gradient[0])
    assert state.steps == 1 and state.point.is_finite
    assert state.point.cost <= point.cost - DEFAULT.decrease * t * slope
    assert abs(state.point.gradient[0]) <= DEFAULT.flat * slope


def test_the_last_full_step_begins_where_the_gap_is_met():
    objective, theta = problem("bernoulli", penalties.l2(1e-3))
    objective = replace(objective, ceiling=1e-6)
    with jax.enable_x64(True):
        start = objective.at(theta)
        best = descend(objective, Newton(objective), start, 1e-20, 100, DEFAULT).point.cost
        last = descend(objective, Newton(objective), start, 1e-6, 100, DEFAULT)
        before = descend(objective, Newton(objective), start, 1e-6, last.steps - 1, DEFAULT)
    assert last.met and not before.met
    assert before.point.cost - best <= 1e-6 and last.point.cost - best <= 1e-12


@every_net
def test_conjugate_gradients_go_where_newton_goes(name):
    objective, theta = problem(name, penalties.l2(0.1))
    with jax.enable_x64(True):
        point = objective.at(objective.centred(theta))
        newton = Newton(objective).propose(point)
        exact = replace(DEFAULT, inexact=1e-6)
        inexact = NewtonCG(objective, lambda point: lambda v: v, exact).propose(point)
    np.testing.assert_allclose(inexact, newton, rtol=1e-2, atol=1e-3 * np.abs(newton).max())


@pytest.mark.parametrize("seed", range(20))
def test_the_minimum_of_a_model_has_a_subgradient_of_zero(seed):
    rng = np.random.default_rng(seed)
    q = int(rng.integers(2, 30))
    half = rng.standard_normal((q + int(rng.integers(0, 5)), q)) @ np.diag(np.geomspace(1, 1e-2, q))
    hessian = half.T @ half + 1e-6 * np.eye(q)
    start = rng.standard_normal(q) * (rng.random(q) < 0.5)
    gradient, thresholds = rng.standard_normal(q), np.append(rng.random(q - 1), 0)
    u = model_minimum(hessian, start, gradient, thresholds, 1e-9, DEFAULT)
    slope = gradient + hessian @ (u - start)
    at_zero = np.maximum(np.abs(slope) - thresholds, 0)
    assert np.where(u == 0, at_zero, np.abs(slope + thresholds * np.sign(u))).max() <= 1e-8


BOUNDS = {
    "l2": penalties.l2(0.1),
    "none": penalties.Penalty(),
    "some columns free": penalties.l2((Layer(np.array([[0.1], [0.0], [0.3], [0.0]]), None),)),
    "the bias too": penalties.l2((Layer(0.1, 0.2),)),
}


@every_net
@pytest.mark.parametrize("distance", [1e-2, 1e-6])
@pytest.mark.parametrize("penalty", BOUNDS.values(), ids=BOUNDS)
def test_a_certificate_is_a_bound_and_near_the_optimum_tight(name, penalty, distance):
    net = NETS[name]
    if penalties.is_tree(penalty.l2):  # the strengths of every output
        w, b = penalty.l2[0]
        strengths = Layer(np.broadcast_to(w, net.sizes).astype(float), b if net.bias else None)
        penalty = penalties.Penalty(0.0, (strengths,))
    objective, theta = problem(name, penalty)
    with jax.enable_x64(True):
        best = descend(objective, Newton(objective), objective.at(theta), 1e-20, 100, DEFAULT).point
        away = distance * np.sin(np.arange(theta.size)).reshape(theta.shape)
        near = objective.at(objective.centred(best.theta + away), closing=True)
        found = certify(replace(objective, ceiling=0.0), near, DEFAULT)
    gap = near.cost - best.cost
    assert gap <= found.bound + tolerance(np.float64, N) * abs(near.cost)
    if distance < 1e-3:
        assert found.bound <= 2 * gap


def test_overlapping_classes_have_no_recession_direction_and_separated_ones_do():
    x = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    assert separation.recession_direction(losses.bernoulli, x, np.array([[0.0], [1.0], [0.0], [1.0]])) is None
    found = separation.recession_direction(losses.bernoulli, x, np.array([[0.0], [0.0], [1.0], [1.0]]))
    assert (np.array([-1, -1, 1, 1]) * (x @ found)[:, 0] >= 0).all()
    between = separation.recession_direction(losses.bernoulli, x, np.array([[0.0], [0.5], [0.5], [1.0]]))
    assert between is None, "probabilities between pin two predictors, and with them the line"


def test_the_sparsest_of_equal_directions_and_the_groups_that_make_them_equal():
    null = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -2.0]])
    direction = np.array([[3.0], [3.0], [-1.0], [2.0]])
    found = separation.sparsest(direction, null, np.ones(4))
    assert np.abs(found).sum() <= min(
        np.abs(direction + null @ np.array([[a], [b]])).sum() for a in (-3, 0) for b in (0, 1)
    )
    assert separation.groups(null, np.ones(4)) == [[0, 1, 3], [2, 3]] or len(separation.groups(null, np.ones(4))) == 2


def test_ravelled_parameters_of_a_deep_network_are_those_of_jax():
    from lr_nn.fitting.deep import Deep

    net = lr_nn.mlp((3, 2, 1))
    params = lr_nn.init(net, jax.random.key(0))
    flat, _ = ravel_pytree(params)
    again = Deep(net, Batch(None, None), penalties.Penalty(), np.float32).params(np.asarray(flat))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
