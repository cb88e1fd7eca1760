"""Fits at the edge of what data may be: each ends with the truth about it."""

import contextlib

import jax
import numpy as np
import pytest

import lr_nn
from lr_nn import Batch, Status, losses, penalties
from lr_nn.fitting import separation
from lr_nn.types import Layer

RNG = np.random.default_rng(0)
X1, Z = RNG.standard_normal((2, 60))
Y = (RNG.random(60) < 0.5).astype(float)
TWO, EIGHT = lr_nn.logistic_regression(2), lr_nn.logistic_regression(8)


def test_a_start_at_which_the_gradient_is_zero_stays_there():
    net = lr_nn.Network((1, 1), (), losses.squared_error, bias=False)
    start = (Layer(np.array([[1.0]]), None),)
    x, y = np.array([[1.0], [-1.0]]), np.array([1.5, -1.5])
    found = lr_nn.fit(net, Batch(x, y), penalty=penalties.l2(0.5), solver="newton", start=start)
    assert found.status is Status.converged and found.params[0].w[0, 0] == 1.0


@pytest.mark.parametrize("other", [X1 + 1e-8 * Z, X1.astype(np.float32)], ids=["a shadow", "a float32 copy"])
def test_columns_too_near_to_be_told_apart_are_not_called_an_optimum(other):
    found = lr_nn.fit(TWO, Batch(np.column_stack([X1, other]), Y))
    assert found.status is Status.rank_deficient and found.certificate == np.inf
    assert "drop columns" in found.message


def test_a_saturated_offset_leaves_no_bound_that_is_not_a_number():
    found = lr_nn.fit(
        lr_nn.logistic_regression(1), Batch(X1[:, None], Y, None, 1000 * (2 * Y - 1)), penalty=penalties.l2(0.1)
    )
    assert found.status is Status.converged and found.certificate < 1e-20


@pytest.mark.parametrize("penalty", [None, penalties.l2(1e-3)], ids=["none", "l2"])
def test_least_squares_do_not_mind_the_units_of_columns(penalty):
    y = X1 + Z
    found = lr_nn.fit(lr_nn.linear_regression(2), Batch(np.column_stack([X1 * 1e8, Z * 1e-8]), y), penalty=penalty)
    assert found.status is Status.converged, found.message
    if penalty is None:
        np.testing.assert_allclose(found.coefficients[:, 0], [1e-8, 1e8, 0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("penalty", [None, penalties.l2(0.1), penalties.l1(0.1)], ids=["none", "l2", "l1"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_of_targets_that_are_constant_the_constant_is_the_optimum(value, penalty):
    found = lr_nn.fit(lr_nn.linear_regression(2), Batch(np.column_stack([X1, Z]), np.full(60, value)), penalty=penalty)
    assert found.status is Status.converged, found.message
    np.testing.assert_allclose(found.coefficients[:, 0], [0, 0, value], atol=1e-12)


@pytest.mark.parametrize("wild", [0.5, 1e200])
def test_a_row_of_weight_zero_counts_for_nothing(wild):
    """Neither for separation, which it would break, nor for the bounds."""
    x, weight = np.append(X1, [wild, -0.5])[:, None], np.append(np.ones(60), [0.0, 0.0])
    net = lr_nn.logistic_regression(1)
    apart = lr_nn.fit(net, Batch(x, np.append(X1 > 0, [False, True]).astype(float), weight))
    assert apart.status is Status.separated
    found = lr_nn.fit(net, Batch(x, np.append(Y, [0.0, 1.0]), weight), penalty=penalties.l2(0.1))
    alone = lr_nn.fit(net, Batch(X1[:, None], Y), penalty=penalties.l2(0.1))
    assert found.status is Status.converged
    np.testing.assert_allclose(found.coefficients, alone.coefficients, rtol=1e-9)


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_steps_are_taken_than_allowed(most):
    x = np.column_stack([X1, Z])
    found = lr_nn.fit(TWO, Batch(x, Y), penalty=penalties.l2(1e-4), solver="lbfgs", max_steps=most)
    assert found.steps <= most


def test_a_tiny_l1_beside_an_l2_penalty_is_certified_by_the_latter():
    found = lr_nn.fit(TWO, Batch(np.column_stack([X1, Z]), Y), penalty=penalties.Penalty(1e-9, 0.1))
    assert found.status is Status.converged, found.message


def test_separation_of_many_rows_is_seen_from_a_few():
    x = np.random.default_rng(0).standard_normal((50_000, 2))
    y = (x[:, 0] > 0.1).astype(float)
    apart = lr_nn.fit(TWO, Batch(x, y))
    assert apart.status is Status.separated
    (w, _) = apart.direction[0]
    assert w[0, 0] > 0


@pytest.mark.parametrize("solver", ["lbfgs", "newton", "closed_form"])
def test_a_large_mean_of_the_targets_does_not_loosen_what_converged_means(solver):
    x, y, net = np.column_stack([X1, Z]), X1 + RNG.standard_normal(60), lr_nn.linear_regression(2)
    far, near = (lr_nn.fit(net, Batch(x, y + shift), penalty=penalties.l2(0.1), solver=solver) for shift in (1e4, 0.0))
    np.testing.assert_allclose(far.params[0].w, near.params[0].w, rtol=1e-5)


def test_without_a_bias_one_class_is_an_ordinary_problem():
    net = lr_nn.Network((2, 1), (), losses.bernoulli, bias=False)
    found = lr_nn.fit(net, Batch(np.column_stack([X1, Z]), np.ones(60)), penalty=penalties.l2(0.1))
    assert found.status is Status.converged, found.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_named_before_least_squares_fail(value):
    x = np.column_stack([X1, Z])
    x[5, 1] = value
    with pytest.raises(ValueError, match="x must be finite"):
        lr_nn.fit(lr_nn.linear_regression(2), Batch(x, Y))


@pytest.mark.parametrize("dtype", [int, np.float16])
def test_a_precision_that_solvers_do_not_have_is_refused(dtype):
    with pytest.raises(TypeError, match="float32 or float64"):
        lr_nn.fit(TWO, Batch(np.column_stack([X1, Z]), Y), dtype=dtype)


def test_a_curvature_that_underflows_at_the_start_is_no_end():
    mark = np.zeros(60)
    mark[-2:] = 1
    y = Y.copy()
    y[-2:] = [0.0, 1.0]
    found = lr_nn.fit(TWO, Batch(np.column_stack([X1, mark]), y, None, 1000 * mark), solver="newton")
    assert found.status is Status.converged, found.message
    alone = lr_nn.fit(TWO, Batch(np.column_stack([X1, mark]), y))
    np.testing.assert_allclose(found.coefficients, alone.coefficients - [[0], [1000], [0]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.01])
@pytest.mark.parametrize("make", [lr_nn.logistic_regression, lambda d: lr_nn.softmax_regression(d, 3)])
def test_of_more_columns_than_rows_the_conditions_of_a_sparse_optimum_hold(make, share):
    n, d = 120, 700
    x = np.random.default_rng(1).standard_normal((n, d))
    classes = np.digitize(x[:, :5].sum(axis=1), [-1.0, 1.0])
    net = make(d)
    y = classes if net.sizes[1] == 3 else (classes > 1).astype(float)
    targets = np.eye(3)[classes] if net.sizes[1] == 3 else y[:, None]
    l1 = share * np.abs(x.T @ (targets - targets.mean(axis=0))).max() / n
    found = lr_nn.fit(net, Batch(x, y), penalty=penalties.l1(l1), tol=1e-10)
    assert found.status is Status.converged, found.message
    w = found.params[0].w
    slope = x.T @ (np.asarray(lr_nn.predict(net, found.params, x)) - targets) / n
    assert 5 <= (w != 0).any(axis=1).sum() <= n
    accuracy = 1e-4 * l1  # float32 predictions
    assert np.abs(slope[w == 0]).max() <= l1 + accuracy
    np.testing.assert_allclose(slope[w != 0], -l1 * np.sign(w[w != 0]), atol=accuracy)


def test_rows_of_weight_zero_may_hold_numbers_that_overflow():
    y = np.abs(np.round(X1))
    x, weight = np.column_stack([X1, Z]), np.ones(60)
    clean = lr_nn.fit(lr_nn.Network((2, 1), (), losses.poisson), Batch(x, y))
    for huge in (1e4, 1e200):
        x2, y2, weight2 = np.append(x, [[huge, -huge]], axis=0), np.append(y, 3.0), np.append(weight, 0.0)
        found = lr_nn.fit(lr_nn.Network((2, 1), (), losses.poisson), Batch(x2, y2, weight2))
        assert found.status is Status.converged, found.message
        np.testing.assert_array_equal(found.coefficients, clean.coefficients)


@pytest.mark.parametrize("far", [1e3, 1e10])
def test_a_far_row_is_no_separation(far):
    x, y = np.column_stack([X1, Z]), Y.copy()
    x[0, 0], y[0] = far, 1.0
    found = None
    with contextlib.suppress(separation.UndecidedError):
        found = separation.recession_direction(losses.bernoulli, np.column_stack([x, np.ones(60)]), y[:, None])
    assert found is None


def test_separation_is_looked_for_in_parts(monkeypatch):
    monkeypatch.setattr(separation, "NUMBERS", 2**7)
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal((200, 3)), np.ones(200)])
    classes = (x[:, :3] @ rng.standard_normal((3, 3))).argmax(axis=1)
    found = separation.recession_direction(losses.categorical, x, np.eye(3)[classes])
    lead = np.take_along_axis(x @ found, classes[:, None], axis=1) - x @ found
    assert lead.min() >= -1e-6 * np.abs(found).max() and lead.max() > 0
    between = np.where(rng.random(200) < 0.5, 0.5, (x[:, 0] > 0).astype(float))[:, None]
    assert separation.recession_direction(losses.bernoulli, x, between) is None
    classes[:20] = 0
    assert separation.recession_direction(losses.categorical, x, np.eye(3)[classes]) is None


def test_more_parameters_than_a_hessian_may_have_can_fit_every_row_and_be_certified():
    x = np.random.default_rng(0).standard_normal((40, 3000))
    found = lr_nn.fit(lr_nn.linear_regression(3000), Batch(x, x[:, 0] + 1))
    assert found.status is Status.rank_deficient and found.certificate < 1e-20 and "2961 directions" in found.message


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_sparse_fit_takes_no_more_steps_than_it_may(most):
    x = np.random.default_rng(0).standard_normal((80, 300))
    found = lr_nn.fit(
        lr_nn.logistic_regression(300), Batch(x, (x[:, 0] > 0) * 1.0), penalty=penalties.l1(1e-3), max_steps=most
    )
    assert found.status is Status.max_steps and found.steps == most


def test_a_start_at_the_optimum_of_many_rows_is_not_left_for_that_of_a_sample():
    x = np.random.default_rng(0).standard_normal((70_000, 30))
    y = (np.random.default_rng(1).random(70_000) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    net, penalty = lr_nn.logistic_regression(30), penalties.l2(1e-3)
    first = lr_nn.fit(net, Batch(x, y), penalty=penalty, tol=1e-10)
    again = lr_nn.fit(net, Batch(x, y), penalty=penalty, tol=1e-10, start=first.params)
    assert again.status is Status.converged and again.steps < first.steps


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        np.asfortranarray,
        lambda x: x.astype(np.float32),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1],
        lambda x: x.astype(">f8"),
    ],
    ids=["as it is", "Fortran", "float32", "strided", "reversed", "another byte order"],
)
@pytest.mark.parametrize("rows", [60, 1501], ids=["few rows", "many"])
def test_the_layout_of_a_table_changes_no_fit(change, rows):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, 8)), (rng.random(rows) < 0.5).astype(float)
    penalty, laid_out = penalties.l2(0.1), change(x)
    plain = np.ascontiguousarray(laid_out, laid_out.dtype.newbyteorder("="))
    one, same = (lr_nn.fit(EIGHT, Batch(inputs, y), penalty=penalty) for inputs in (laid_out, plain))
    many = lr_nn.fit_many(EIGHT, Batch(laid_out, np.stack([y, 1 - y])), penalty=penalty, tol=1e-12)
    for found in (one.params, jax.tree.map(lambda leaf: leaf[0], many.params)):
        np.testing.assert_allclose(found[0].w, same.params[0].w, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [2, 100_000])
def test_what_overflows_in_a_table_ends_as_a_status_without_a_warning(rows):
    x, y = np.full((rows, 3), 1e300), np.arange(rows) % 2.0
    found = lr_nn.fit_many(lr_nn.logistic_regression(3), Batch(x, np.stack([y, 1 - y])), penalty=penalties.l2(0.1))
    assert "too large" in found.message[0] and np.isinf(found.certificate).all()


def test_a_start_may_be_lists_and_strengths_may_not_be_traced():
    start = (Layer([[0.1], [0.2]], [0.0]),)
    x = np.column_stack([X1, Z])
    assert lr_nn.fit(TWO, Batch(x, Y), start=start).status is Status.converged
    with pytest.raises(TypeError, match="runs on the host"):
        jax.jit(lambda s: lr_nn.fit(TWO, Batch(x, Y), penalty=penalties.Penalty(0.0, s)).cost)(1.0)
    with pytest.raises(TypeError, match="runs on the host"):
        jax.jit(lambda tol: lr_nn.fit(TWO, Batch(x, Y), tol=tol).cost)(1e-3)
