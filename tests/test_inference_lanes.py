"""Many fits at once, tables to read, and what is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, Status, inference, losses, penalties
from lr_nn.data import Arrays
from lr_nn.penalties import Penalty
from lr_nn.types import Layer, Solution

M, N, D = 3, 40, 2
FIELDS = (
    *("coefficients", "standard_errors", "z", "p_values", "intervals", "covariance", "log_likelihood", "deviance"),
    *("null_log_likelihood", "aic", "bic", "degrees_of_freedom", "n"),
)
RATIOS = ("pearson_chi2", "mcfadden_r2")
SQUARES = ("r_squared", "adjusted_r_squared", "f_statistic", "f_p_value")


def stacked(solutions):
    """Single fits as one solution of lanes."""
    layers = [solution.params[0] for solution in solutions]
    return Solution(
        params=(Layer(np.stack([w for w, _ in layers]), np.stack([b for _, b in layers])),),
        status=np.array([solution.status for solution in solutions], np.int8),
        steps=np.array([solution.steps for solution in solutions]),
        cost=np.array([solution.cost for solution in solutions]),
        gradient_norm=np.array([solution.gradient_norm for solution in solutions]),
        certificate=np.array([solution.certificate for solution in solutions]),
        penalty=Penalty(0.0, np.array([float(solution.penalty.l2) for solution in solutions])),
        solver="newton",
        message="",
    )


NETS = {
    "logistic": lr_nn.logistic_regression(D),
    "2 labels": lr_nn.logistic_regression(D, 2),
    "linear": lr_nn.linear_regression(D),
    "softmax": lr_nn.softmax_regression(D, 3),
    "poisson": lr_nn.Network((D, 1), (), losses.poisson),
}


def lanes(name, strengths=(0.0,) * M, shared=False, seed=0):
    """A solution of lanes, its network and batch, and the batches of the lanes alone with their solutions."""
    net, rng = NETS[name], np.random.default_rng(seed)
    k = net.sizes[1]
    x = rng.standard_normal((M, N, D))
    x = np.broadcast_to(x[:1], x.shape) if shared else x
    y = {"linear": rng.standard_normal((M, N)), "softmax": rng.integers(0, 3, (M, N))}.get(name)
    y = (rng.integers(0, 2, (M, N, k)) if k > 1 else rng.integers(0, 2, (M, N))) if y is None else y
    weight = rng.permuted(np.tile(np.arange(N) % 3.0, (M, 1)), axis=1)
    offset = rng.standard_normal((M, N, k)) / 3
    single = [Batch(x[i], y[i], weight[i], offset[i]) for i in range(M)]
    solutions = [
        lr_nn.fit(net, Batch(b.x, b.y, b.weight, b.offset), penalty=penalties.l2(s)) for b, s in zip(single, strengths)
    ]
    return stacked(solutions), net, Batch(x[0] if shared else x, y, weight, offset), single, solutions


@pytest.mark.parametrize("shared", [False, True], ids=["own x", "shared x"])
@pytest.mark.parametrize("strengths", [(0.0,) * M, (0.1, 0.01, 1.0)], ids=["none", "l2"])
@pytest.mark.parametrize("name", NETS)
def test_every_lane_is_its_own_summary(name, strengths, shared):
    many, net, batch, singles, solutions = lanes(name, strengths, shared)
    for covariance in ("fisher", "hc1"):
        found = inference.summary(net, many, batch, covariance=covariance)
        for i in range(M):
            alone = inference.summary(net, solutions[i], singles[i], covariance=covariance)
            for field in (*FIELDS, *(SQUARES[: 4 if strengths == (0.0,) * M else 2] if name == "linear" else RATIOS)):
                assert_close(getattr(found, field)[i], getattr(alone, field), N, np.float64, condition=100)


def test_lanes_are_many_for_several_threads(monkeypatch):
    monkeypatch.setattr("lr_nn.inference.covariance.CACHED", 1)
    many, net, batch, singles, solutions = lanes("logistic")
    found = inference.summary(net, many, batch)
    for i in range(M):
        alone = inference.summary(net, solutions[i], singles[i])
        assert_close(found.standard_errors[i], alone.standard_errors, N, np.float64, condition=100)


def test_a_lane_that_did_not_converge_has_no_numbers_and_leaves_the_others_alone():
    many, net, batch, singles, solutions = lanes("logistic")
    many.status[1] = Status.separated
    found = inference.summary(net, many, batch)
    assert np.isnan(found.standard_errors[1]).all() and np.isnan(found.p_values[1]).all()
    alone = inference.summary(net, solutions[2], singles[2])
    assert_close(found.standard_errors[2], alone.standard_errors, N, np.float64, condition=100)


def test_rows_of_weight_zero_may_hold_any_finite_numbers():
    many, net, batch, _, _ = lanes("logistic")
    empty = np.argwhere(batch.weight == 0)
    x, y, offset = batch.x.copy(), batch.y.astype(float), batch.offset.copy()
    for i, row in empty:
        x[i, row], y[i, row], offset[i, row] = 1e200, 7.0, -1e300
    found, plain = (inference.summary(net, many, b) for b in (batch, Batch(x, y, batch.weight, offset)))
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(plain, field))


def test_a_table_shows_every_number_and_goes_to_pandas():
    many, net, batch, singles, solutions = lanes("softmax")
    found = inference.summary(net, solutions[0], singles[0], names=["dose", "age"], outputs=["none", "mild", "severe"])
    text = str(found)
    assert max(map(len, text.splitlines())) <= 78
    for word in ("Softmax regression", "McFadden R2", "mild", "severe", "dose", "bias", "P>|z|", "[0.025", "0.975]"):
        assert word in text
    assert f"{found.coefficients[0, 1]:.4g}" in text and f"{found.log_likelihood:.3f}" in text
    frame = found.to_pandas()
    assert list(frame.index.names) == ["output", "name"]
    assert frame.loc[("severe", "age"), "coefficient"] == found.coefficients[1, 1]
    both = inference.summary(net, many, batch)
    assert "lane 2 of 3" in str(both)
    assert both.to_pandas().loc[(2, "y1", "x0"), "standard_error"] == both.standard_errors[2, 0, 0]


def test_names_are_the_columns_of_a_frame():
    x, y = np.random.default_rng(0).standard_normal((20, 2)), np.tile([0, 1], 10)
    for table in (pd.DataFrame(x, columns=["dose", "age"]), pa.table({"dose": x[:, 0], "age": x[:, 1]})):
        found = inference.summary(NET, lr_nn.fit(NET, Batch(table, y)), Batch(table, y))
        assert list(found.to_pandas().index) == list(found.names) == ["dose", "age", "bias"]
        own = inference.summary(NET, lr_nn.fit(NET, Batch(table, y)), Batch(table, y), names=["a", "b"])
        assert own.names == ("a", "b", "bias")
    for table in (x, pd.DataFrame(x)):  # columns that are numbers are no names
        found = inference.summary(NET, lr_nn.fit(NET, Batch(table, y)), Batch(table, y))
        assert found.names == ("x0", "x1", "bias")


X, Y = np.random.default_rng(0).standard_normal((20, 2)), np.tile([0, 1], 10)
NET = lr_nn.logistic_regression(2)
FIT = lr_nn.fit(NET, Batch(X, Y))
REFUSED = {
    "groups missing": ({"covariance": "cluster"}, "needs groups"),
    "groups for nothing": ({"groups": Y}, "covariance='cluster'"),
    "groups of another length": ({"covariance": "cluster", "groups": Y[:3]}, "one label a row of x"),
    "one group": ({"covariance": "cluster", "groups": 0 * Y}, "at least 2 clusters"),
    "an unknown covariance": ({"covariance": "hc7"}, "fisher, hc0, hc1 or cluster"),
    "a level in percent": ({"level": 95}, "between 0 and 1"),
    "names too few": ({"names": ["a"]}, "2 names"),
    "a reference without classes": ({"reference": 0}, "leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_told_what_to_do(name):
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        inference.summary(NET, FIT, Batch(X, Y), **arguments)


def test_what_has_no_standard_errors_is_refused():
    with pytest.raises(ValueError, match="l1 penalty"):
        inference.summary(NET, lr_nn.fit(NET, Batch(X, Y), penalty=penalties.l1(0.1)), Batch(X, Y))
    deep = lr_nn.mlp((2, 2, 1))
    with pytest.raises(ValueError, match="one-layer"):
        inference.summary(deep, FIT, Batch(X, Y))
    with pytest.raises(ValueError, match="likelihood"):
        inference.summary(lr_nn.Network((2, 1), (), losses.absolute_error), FIT, Batch(X, Y))
    twice = lr_nn.fit(NET, Batch(X[:, [0, 0]], Y))
    with pytest.raises(ValueError, match="drop columns"):
        inference.summary(NET, twice, Batch(X[:, [0, 0]], Y))
    with pytest.raises(ValueError, match="same examples"):
        inference.summary(NET, FIT, Batch(X, Y[:4]))
    with pytest.raises(ValueError, match="depend on each other"):
        inference.wald_test(inference.summary(NET, FIT, Batch(X, Y)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="one output"):
        inference.firth(lr_nn.softmax_regression(2, 3), Batch(X, Y))
    with pytest.raises(TypeError, match=r"data must be a Batch.*rows\.read\(0, len\(rows\)\)"):
        inference.summary(NET, FIT, Arrays(X, Y))
    with pytest.raises(ValueError, match="weight must have 1 axes, without lanes"):
        inference.summary(NET, FIT, Batch(X, Y, np.ones((2, 20))))
    with pytest.raises(TypeError, match="net must be a Network"):
        inference.summary(FIT, NET, Batch(X, Y))
    with pytest.raises(TypeError, match=r"lr_nn\.fit returned"):
        inference.summary(NET, FIT.params, Batch(X, Y))
