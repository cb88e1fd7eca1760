"""Lanes are fits: each is what `fit` finds by itself, whatever the schedule, and disturbs no other."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lr_nn
from lr_nn import Batch, Layer, Penalty, Status, losses, penalties
from lr_nn.data import Arrays

RNG = np.random.default_rng(0)
M, N, D = 7, 60, 3
NETS = {
    "linear": lr_nn.linear_regression(D),
    "two values": lr_nn.linear_regression(D, 2),
    "logistic": lr_nn.logistic_regression(D),
    "no bias": lr_nn.Network((D, 1), (), losses.bernoulli, bias=False),
    "labels": lr_nn.logistic_regression(D, 2),
    "softmax": lr_nn.softmax_regression(D, 3),
    "counts": lr_nn.Network((D, 1), (), losses.poisson),
}


def targets(net, *shape):
    """Random targets with the axes `shape` of lanes and rows."""
    k = net.sizes[-1]
    if net.loss == losses.categorical:
        return RNG.integers(0, k, shape)
    shape = shape if k == 1 else (*shape, k)
    drawn = {losses.bernoulli: RNG.random(shape) < 0.5, losses.poisson: RNG.poisson(2.0, shape)}
    return drawn[net.loss].astype(float) if net.loss in drawn else RNG.standard_normal(shape)


def assert_lanes_are_fits(net, found, arguments, penalty=None, tol=1e-12):
    """Every lane is the fit of its arguments: costs to the certificates, coefficients where the bound tells them."""
    for i, own in enumerate(arguments):
        strength = penalty if penalty is None else Penalty(*(s[i] for s in penalty))
        one = lr_nn.fit(net, Batch(**own), penalty=strength, tol=tol)
        assert found.status[i] == one.status == Status.converged
        assert abs(found.cost[i] - one.cost) <= found.certificate[i] + one.certificate + 1e-15 * (1 + abs(one.cost))
        np.testing.assert_allclose(found.coefficients[i], one.coefficients, atol=2e-5)


@pytest.mark.parametrize("schedule", ["together", "compiled"])
@pytest.mark.parametrize(("name", "l2"), [*((name, 1e-2) for name in NETS), ("logistic", 0.0), ("softmax", 0.0)])
def test_a_lane_is_a_fit(name, l2, schedule):
    net = NETS[name]
    x, y, weight = RNG.standard_normal((M, N, D)), targets(net, M, N), RNG.integers(1, 4, (M, N))
    strengths = Penalty(np.zeros(M), np.full(M, l2))
    found = lr_nn.fit_many(net, Batch(x, y, weight), penalty=penalties.l2(l2), schedule=schedule)
    assert found.solver == schedule and not any(found.message), "no lane was left to fit"
    assert_lanes_are_fits(net, found, [{"x": x[i], "y": y[i], "weight": weight[i]} for i in range(M)], strengths)


@pytest.mark.parametrize("schedule", ["together", "each"])
@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_schedules_find_the_same(schedule, l2):
    net, x = NETS["logistic"], RNG.standard_normal((N, D))
    y, weight = targets(net, M, N), RNG.random((M, N))
    plain = lr_nn.fit_many(net, Batch(x, y, weight), penalty=penalties.l2(l2))
    other = lr_nn.fit_many(net, Batch(x, y, weight), penalty=penalties.l2(l2), schedule=schedule)
    assert (other.status == Status.converged).all() and other.solver == schedule
    assert (np.abs(other.cost - plain.cost) <= other.certificate + plain.certificate + 1e-15).all()
    np.testing.assert_allclose(other.coefficients, plain.coefficients, atol=2e-5)


@pytest.mark.parametrize("name", ["x", "y", "weight", "offset", "penalty", "start"])
def test_any_argument_may_have_lanes(name):
    net = NETS["logistic"]
    given = {"x": RNG.standard_normal((N, D)), "y": targets(net, N), "weight": RNG.random(N), "offset": RNG.random(N)}
    start = lr_nn.init(net, jax.random.key(0))
    lanes = {key: np.stack([value] * M) for key, value in given.items()}
    lanes["weight"] = RNG.random((M, N))
    lanes["offset"] = RNG.standard_normal((M, N))
    strengths = np.full(M, 1e-2)
    if name == "penalty":
        strengths = np.geomspace(1, 1e-3, M)
        found = lr_nn.fit_many(net, Batch(**given), penalty=penalties.l2(strengths))
    elif name == "start":
        starts = jax.tree.map(lambda leaf: jnp.stack([leaf * i for i in range(M)]), start)
        found = lr_nn.fit_many(net, Batch(**given), penalty=penalties.l2(1e-2), start=starts)
    else:
        found = lr_nn.fit_many(net, Batch(**{**given, name: lanes[name]}), penalty=penalties.l2(1e-2))
    arguments = [{**given, **({name: lanes[name][i]} if name in given else {})} for i in range(M)]
    assert_lanes_are_fits(net, found, arguments, Penalty(np.zeros(M), strengths))


def test_a_penalty_may_be_l1_in_some_lanes():
    net, x, y = NETS["logistic"], RNG.standard_normal((N, D)), targets(NETS["logistic"], N)
    penalty = Penalty(np.array([0.0, 1e-2, 1e-1, 0.0]), np.array([0.0, 0.0, 1e-2, 1e-2]))
    found = lr_nn.fit_many(net, Batch(x, y), penalty=penalty)
    assert_lanes_are_fits(net, found, [{"x": x, "y": y}] * 4, penalty)


def test_a_new_strength_compiles_nothing(caplog):
    net, x, y = NETS["logistic"], RNG.standard_normal((N, D)), targets(NETS["logistic"], N)
    lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(np.geomspace(1, 1e-3, M)))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(np.geomspace(3, 1e-4, M)))
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


@pytest.mark.parametrize("schedule", ["together", "each"])
def test_a_failing_lane_disturbs_no_other(schedule):
    net = NETS["logistic"]
    x, y = RNG.standard_normal((N, D)), np.stack([targets(net, N) for _ in range(5)])
    y[1] = 1.0
    y[3] = x[:, 0] > 0
    found = lr_nn.fit_many(net, Batch(x, y), schedule=schedule)
    assert [str(Status(s)) for s in found.status] == ["converged", "separated", "converged", "separated", "converged"]
    assert found.message[3] and not np.isfinite(found.certificate[[1, 3]]).any()
    assert found.direction[0].w[3, 0, 0] > 0 == abs(found.direction[0].w[0]).max()
    assert_lanes_are_fits(net, take(found, [0, 2, 4]), [{"x": x, "y": y[i]} for i in (0, 2, 4)])


def take(found, lanes):
    """Some lanes of a solution."""
    values = {name: getattr(found, name) for name in ("status", "cost", "certificate", "coefficients")}
    return type("Some", (), {name: value[lanes] for name, value in values.items()})


@pytest.mark.parametrize("net", [NETS["logistic"], NETS["linear"]], ids=["logistic", "linear"])
def test_a_lane_of_its_own_table_with_nan_is_non_finite_and_alone(net):
    x, y = RNG.standard_normal((4, N, D)), targets(net, 4, N)
    x[2, 5, 1] = np.nan
    found = lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(1e-2))
    assert [int(s) for s in found.status] == [0, 0, Status.non_finite, 0]
    assert_lanes_are_fits(
        net, take(found, [0, 1, 3]), [{"x": x[i], "y": y[i]} for i in (0, 1, 3)], Penalty(np.zeros(3), np.full(3, 1e-2))
    )


def test_lane_hands_back_a_solution():
    net, x, y = NETS["labels"], RNG.standard_normal((N, D)), targets(NETS["labels"], N)
    found = lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(np.array([1.0, 0.1])))
    one = found.lane(1)
    assert isinstance(one, lr_nn.Solution) and one.status is Status.converged and one.penalty.l2 == 0.1
    np.testing.assert_array_equal(one.coefficients, found.coefficients[1])
    assert len(found) == 2 and list(found.to_pandas()["l2"]) == [1.0, 0.1]


@pytest.mark.parametrize("engine", ["together", "each"])
def test_a_large_shared_table(engine):
    net = lr_nn.logistic_regression(30)
    x = RNG.standard_normal((5003, 30))  # no multiple of a block
    y = (RNG.random((3, 5003)) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    offset = RNG.standard_normal(5003)
    found = lr_nn.fit_many(net, Batch(x, y, None, offset), penalty=penalties.l2(1e-3), schedule=engine)
    arguments = [{"x": x, "y": y[i], "offset": offset} for i in range(3)]
    assert_lanes_are_fits(net, found, arguments, Penalty(np.zeros(3), np.full(3, 1e-3)))


def test_progress_is_reported_and_its_errors_reach_the_caller():
    net, x, y = NETS["logistic"], RNG.standard_normal((M, N, D)), targets(NETS["logistic"], M, N)
    reports = []
    lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(1e-2), progress=reports.append)
    assert [each.done for each in reports] == sorted(each.done for each in reports) and reports[-1] == (M, M, 0)
    with lr_nn.training.bar("fits") as progress:
        lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(1e-2), progress=progress)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(1e-2), progress=stop)


def test_deep_networks_begin_at_each_start():
    net = lr_nn.mlp((D, 4, 1))
    x, y = RNG.standard_normal((N, D)), targets(NETS["logistic"], N)
    starts = jax.vmap(lambda key: lr_nn.init(net, key))(jax.random.split(jax.random.key(0), 2))
    found = lr_nn.fit_many(net, Batch(x, y), start=starts, penalty=penalties.l2(1e-2), max_steps=500)
    for i in range(2):
        start = tuple(Layer(layer.w[i], layer.b[i]) for layer in starts)
        one = lr_nn.fit(net, Batch(x, y), start=start, penalty=penalties.l2(1e-2), max_steps=500)
        assert found.cost[i] == one.cost and found.params[0].w.shape == (2, D, 4)


X, Y = RNG.standard_normal((N, D)), targets(NETS["logistic"], N)
LANES = penalties.l2(np.array([1.0, 0.1]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"penalty": penalties.l2(1e-2)}, ValueError, "lane axis"),
        ({"penalty": LANES, "weight": np.ones((3, N))}, ValueError, "as many"),
        ({"penalty": LANES, "weight": np.zeros((2, N))}, ValueError, "zero for every example of lane 0"),
        ({"penalty": LANES, "weight": -np.ones(N)}, ValueError, "not negative"),
        ({"penalty": LANES, "weight": np.ones(N - 1)}, ValueError, "same examples"),
        ({"penalty": LANES, "y": Y[:-1]}, ValueError, "same examples"),
        ({"penalty": LANES, "y": Y + 0.5}, ValueError, "targets"),
        ({"penalty": LANES, "x": np.full((N, D), np.nan)}, ValueError, "finite"),
        ({"penalty": LANES, "memory": 1000}, ValueError, "memory"),
        ({"penalty": LANES, "schedule": "fast"}, ValueError, "auto, together, compiled, each"),
        ({"penalty": LANES, "offset": np.ones(3)}, ValueError, "offset"),
        ({"penalty": LANES, "y": np.zeros((N, 1, 1, 1))}, ValueError, "2 axes, or 3 with lanes first"),
        ({"x": [X, X[1:]], "y": [Y, Y[1:]]}, ValueError, "fit_groups"),
        ({"x": [X, X.astype(np.float32)], "y": [Y, Y]}, TypeError, "unequal data types"),
        ({"penalty": LANES, "start": 3}, TypeError, "start"),
        ({"penalty": LANES, "schedule": "compiled"}, ValueError, "an x of their own"),
        ({"penalty": LANES, "schedule": "together", "solver": "newton"}, ValueError, "schedule='each'"),
        ({"penalty": LANES, "dtype": int}, TypeError, "dtype"),
        ({"penalty": LANES, "progress": 3}, TypeError, "progress"),
        ({"penalty": penalties.l2(np.zeros((0,)))}, ValueError, "at least 1 lanes"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        own = {"x": X, "y": Y, **arguments}
        data = Batch(*(own.pop(name, None) for name in Batch._fields))
        lr_nn.fit_many(NETS["logistic"], data, **own)


def test_targets_that_may_be_one_table_or_lanes_are_refused_until_their_rank_says_which():
    net = lr_nn.softmax_regression(D, 4)
    x, table = RNG.standard_normal((4, D)), np.eye(4)
    with pytest.raises(ValueError, match="three axes"):
        lr_nn.fit_many(net, Batch(x, table), penalty=LANES)
    one = lr_nn.fit_many(net, Batch(x, table[None]), penalty=penalties.l2(0.1))
    rows = lr_nn.fit_many(net, Batch(x, np.eye(4)[table.astype(int)]), penalty=penalties.l2(0.1))
    assert len(one) == 1 and len(rows) == 4


def test_data_that_are_no_batch_are_refused():
    with pytest.raises(TypeError, match=r"data must be a Batch\(x, y\); got ndarray"):
        lr_nn.fit_many(NETS["logistic"], X, penalty=LANES)
    with pytest.raises(TypeError, match=r"got Arrays: read them into memory first, rows\.read\(0, len\(rows\)\)"):
        lr_nn.fit_many(NETS["logistic"], Arrays(X, Y), penalty=LANES)


def test_under_jit_it_says_what_to_call():
    with pytest.raises(TypeError, match=r"lr_nn\.many"):
        jax.jit(lambda x: lr_nn.fit_many(NETS["logistic"], Batch(x, Y), penalty=LANES))(X)


def test_lanes_of_softmax_in_float32_are_certified_where_they_are():
    net, x = NETS["softmax"], RNG.standard_normal((N, D))
    y, strengths = targets(net, M, N), np.geomspace(1e-1, 1e-4, M)
    found = lr_nn.fit_many(net, Batch(x, y), penalty=penalties.l2(strengths), tol=1e-6, dtype=np.float32)
    assert found.params[0].w.dtype == np.float32 and (found.status == Status.converged).all()
    with jax.enable_x64(True):
        for i in range(M):
            data, penalty = Batch(x, y[i]), penalties.l2(strengths[i])
            params = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], float), found.params)
            best = lr_nn.fit(net, data, penalty=penalty).cost
            assert -1e-15 <= lr_nn.cost(net, params, data, penalty) - best <= found.certificate[i] + 1e-15


@pytest.mark.parametrize("l2", [0.0, 1e-9, 1e-3])
def test_lanes_of_few_rows_that_count_among_many(l2):
    net, x = NETS["logistic"], RNG.standard_normal((2_000, D))
    weight = np.zeros((M, 2_000))
    for i in range(M):
        weight[i, RNG.choice(2_000, 40 + i, replace=False)] = RNG.integers(1, 5, 40 + i)
    y = targets(net, 2_000)
    found = lr_nn.fit_many(net, Batch(x, y, weight), penalty=penalties.l2(l2))
    rows = [{"x": x[w > 0], "y": y[w > 0], "weight": w[w > 0]} for w in weight]
    assert_lanes_are_fits(net, found, rows, Penalty(np.zeros(M), np.full(M, l2)))


@pytest.mark.parametrize("schedule", ["together", "compiled"])
def test_a_choice_of_solver_or_a_network_without_a_certificate_refuses_a_schedule(schedule):
    x, y = RNG.standard_normal((2, N, D)), targets(NETS["logistic"], 2, N)
    with pytest.raises(ValueError, match="solver='lbfgs' goes with schedule='each'"):
        lr_nn.fit_many(NETS["logistic"], Batch(x, y), solver="lbfgs", schedule=schedule)
    with pytest.raises(ValueError, match="a network without a certificate goes with schedule='each'"):
        lr_nn.fit_many(lr_nn.mlp((D, 2, 1)), Batch(x, y), schedule=schedule)


def test_a_lane_whose_every_cost_is_infinite_is_not_converged():
    net = lr_nn.Network((1, 1), (), losses.poisson, bias=False)
    found = lr_nn.fit_many(net, Batch(np.array([[1.0], [2.0]]), np.array([[1, 2], [0, 1]]), None, np.full(2, 1e3)))
    assert (found.status == Status.non_finite).all()


def test_arrays_made_under_a_mesh_are_fitted_there():
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((3, 20, 2)), rng.integers(0, 2, (3, 20)), rng.random((3, 20))
    net, penalty = lr_nn.logistic_regression(2), penalties.l2(0.1)
    expected = lr_nn.fit_many(net, Batch(x, y, weight, weight), penalty=penalty).coefficients
    with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
        found = lr_nn.fit_many(net, jax.tree.map(jnp.asarray, Batch(x, y, weight, weight)), penalty=penalty)
    np.testing.assert_allclose(found.coefficients, expected, rtol=1e-4, atol=1e-6)
