"""Each fit of a path, a fold, a resample or a group is the `fit` of its rows, and a fit that failed counts nowhere."""

from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest

import lr_nn
from lr_nn import Batch, Penalty, Status, many, penalties
from lr_nn.many.draws import generator

RNG = np.random.default_rng(1)
N, D = 90, 4
NET = lr_nn.logistic_regression(D)
X = RNG.standard_normal((N, D))
Y = (RNG.random(N) < 1 / (1 + np.exp(-2 * X[:, 0] + X[:, 1]))).astype(int)
WEIGHT = RNG.integers(1, 4, N)
STRENGTHS = np.array([1e-3, 1.0, 3e-2])
KEY = jax.random.key(3)


@pytest.mark.parametrize("penalty", [penalties.l2(STRENGTHS), penalties.l1(STRENGTHS / 10)], ids=["l2", "l1"])
def test_a_path_is_a_fit_for_each_strength_in_the_order_they_came(penalty):
    path = lr_nn.regularization_path(NET, Batch(X, Y, WEIGHT), penalty=penalty)
    for i in range(3):
        one = lr_nn.fit(NET, Batch(X, Y, WEIGHT), penalty=Penalty(penalty.l1[i], penalty.l2[i]))
        np.testing.assert_allclose(path.coefficients[i], one.coefficients, atol=1e-5)
    assert list(path.strengths) == list(penalty.l1 + penalty.l2)
    assert list(path.to_pandas()["nonzero"]) == [(np.abs(c[:-1]) > 0).sum() for c in path.coefficients]


def test_no_weight_is_left_from_the_largest_strength_on():
    top = many.largest_strength(NET, Batch(X, Y))
    path = lr_nn.regularization_path(NET, Batch(X, Y), penalty=penalties.l1(top * np.array([1.001, 0.999])))
    assert [(c[:-1] != 0).sum() for c in path.coefficients] == [0, 1]


def test_folds_are_fits_of_the_other_rows_scored_on_their_own():
    rows = np.arange(N) % 3
    found = lr_nn.cross_validate(NET, Batch(X, Y, WEIGHT), folds=rows, penalty=penalties.l2(STRENGTHS))
    for f in range(3):
        inside = rows != f
        for i, strength in enumerate(STRENGTHS):
            one = lr_nn.fit(NET, Batch(X[inside], Y[inside], WEIGHT[inside]), penalty=penalties.l2(strength))
            np.testing.assert_allclose(found.solutions.coefficients[3 * f + i], one.coefficients, atol=1e-5)
            held = lr_nn.Batch(X[~inside], Y[~inside], WEIGHT[~inside])
            np.testing.assert_allclose(found.scores[f, i], lr_nn.cost(NET, one.params, held), rtol=1e-5)
    assert found.best == int(found.mean.argmin()) and found.chosen().l2 == STRENGTHS[found.best]
    assert found.mean[found.simplest] <= found.mean[found.best] + found.standard_error[found.best]
    assert STRENGTHS[found.simplest] >= STRENGTHS[found.best]
    assert found.to_pandas().shape == (3, 8)


def test_lanes_score_together_as_each_alone():
    strengths = penalties.l2(np.geomspace(1, 1e-4, 12))
    plain = lr_nn.cross_validate(NET, Batch(X, Y), penalty=strengths)
    alone = lr_nn.cross_validate(NET, Batch(X, Y), penalty=strengths, schedule="each")
    np.testing.assert_allclose(alone.scores, plain.scores, rtol=1e-5)
    assert (alone.solutions.status == Status.converged).all()


def test_drawn_folds_have_their_share_of_every_class():
    y = np.repeat([0, 1, 2], [40, 30, 20])
    net = lr_nn.softmax_regression(D, 3)
    found = lr_nn.cross_validate(net, Batch(X, y), folds=5, penalty=penalties.l2(np.array([1.0])))
    for f in range(5):
        assert list(np.bincount(y[found.rows == f])) == [8, 6, 4]
    again = lr_nn.cross_validate(
        net, Batch(X, y), folds=5, penalty=penalties.l2(np.array([1.0])), key=jax.random.key(1)
    )
    assert (again.rows != found.rows).any()


@pytest.mark.parametrize("by_weight", [False, True])
@pytest.mark.parametrize("net", [NET, lr_nn.softmax_regression(D, 2)], ids=["logistic", "softmax"])
def test_a_fold_without_a_class_outside_is_separated_and_chooses_nothing(net, by_weight):
    rows, weight = np.arange(N) % 3, np.where((Y == 1) & (np.arange(N) % 3 > 0), 0, WEIGHT)
    if not by_weight:
        rows, weight = np.where(Y == 1, 0, RNG.integers(1, 3, N)), WEIGHT
    found = lr_nn.cross_validate(net, Batch(X, Y, weight), folds=rows, penalty=penalties.l2(STRENGTHS))
    status = found.solutions.status.reshape(3, 3)
    assert (status[0] == Status.separated).all() and (status[1:] == Status.converged).all()
    assert np.isnan(found.scores[0]).all() and np.isfinite(found.scores[1:]).all()
    assert np.isnan([found.mean, found.standard_error]).all() and list(found.failed) == [1, 1, 1]
    for choice in (lambda: found.best, lambda: found.simplest, found.chosen):
        with pytest.raises(ValueError, match=r"fold 0 at strength 0.001 .separated.*add an l2 penalty.*other folds"):
            choice()
    assert found.chosen(1) == Penalty(0.0, 1.0)
    assert list(found.to_pandas()["failed"]) == [1, 1, 1]


@pytest.mark.parametrize("max_steps", [30, 100])
def test_a_strength_where_a_fold_failed_is_not_chosen(max_steps):
    y, strengths = (X[:, 0] > 0).astype(int), np.array([0.0, 1e-4, 1.0])
    found = lr_nn.cross_validate(NET, Batch(X, y), penalty=penalties.l2(strengths), max_steps=max_steps)
    others = lr_nn.cross_validate(NET, Batch(X, y), penalty=penalties.l2(strengths[1:]))
    assert list(found.failed) == [5, 0, 0] and np.isnan(found.scores[:, 0]).all()
    np.testing.assert_allclose(found.scores[:, 1:], others.scores, rtol=1e-5)
    assert found.best == 1 + others.best and found.simplest == 1 + others.simplest
    assert found.chosen() == others.chosen()


def test_the_refusal_of_folds_without_steps_asks_for_more():
    found = lr_nn.cross_validate(NET, Batch(X, Y), penalty=penalties.l2(STRENGTHS), max_steps=1)
    with pytest.raises(ValueError, match=r"fold 0 .*max_steps.* and 10 more; max_steps: raise max_steps"):
        found.chosen()


def test_rows_of_weight_zero_are_in_no_fold():
    weight, rows = np.where(np.arange(N) % 4 == 0, 0, WEIGHT), np.arange(N) % 3
    kept = weight > 0
    found = lr_nn.cross_validate(NET, Batch(X, Y, weight), folds=rows, penalty=penalties.l2(STRENGTHS))
    without = lr_nn.cross_validate(
        NET, Batch(X[kept], Y[kept], weight[kept]), folds=rows[kept], penalty=penalties.l2(STRENGTHS)
    )
    np.testing.assert_allclose(found.scores, without.scores, rtol=1e-5)


def test_drawn_folds_share_the_rows_of_positive_weight_of_every_class():
    y, weight = np.repeat([0, 1], [60, 30]), np.ones(N)
    weight[:40] = weight[66:] = 0
    found = lr_nn.cross_validate(NET, Batch(X, y, weight), folds=2, penalty=penalties.l2(np.array([1.0])))
    for f in range(2):
        assert list(np.bincount(y[(found.rows == f) & (weight > 0)])) == [10, 3]


def test_other_names_of_the_classes_mirror_the_coefficients_and_keep_the_scores():
    strengths = penalties.l2(STRENGTHS)
    found, mirrored = (lr_nn.cross_validate(NET, Batch(X, y, WEIGHT), folds=4, penalty=strengths) for y in (Y, 1 - Y))
    assert (found.rows == mirrored.rows).all()
    np.testing.assert_allclose(found.solutions.coefficients, -mirrored.solutions.coefficients, atol=1e-5)
    np.testing.assert_allclose(found.scores, mirrored.scores, rtol=1e-5)

    y, names, net = RNG.integers(0, 3, N), np.array([2, 0, 1]), lr_nn.softmax_regression(D, 3)
    found, renamed = (lr_nn.cross_validate(net, Batch(X, labels), penalty=strengths) for labels in (y, names[y]))
    np.testing.assert_allclose(found.solutions.coefficients, renamed.solutions.coefficients[..., names], atol=1e-5)
    np.testing.assert_allclose(found.scores, renamed.scores, rtol=1e-5)


def test_other_names_of_the_classes_keep_the_standard_errors_of_a_bootstrap():
    found, mirrored = (
        lr_nn.bootstrap(NET, Batch(X, y), samples=50, penalty=penalties.l2(1e-2), key=KEY) for y in (Y, 1 - Y)
    )
    np.testing.assert_allclose(found.standard_errors, mirrored.standard_errors, rtol=1e-4)
    np.testing.assert_allclose(found.intervals(), -mirrored.intervals()[..., ::-1], atol=1e-5)


def test_permuted_folds_permute_the_scores():
    rows, order = np.arange(N) % 3, np.array([2, 0, 1])
    found, permuted = (
        lr_nn.cross_validate(NET, Batch(X, Y), folds=folds, penalty=penalties.l2(STRENGTHS))
        for folds in (rows, order[rows])
    )
    np.testing.assert_allclose(found.scores, permuted.scores[order], rtol=1e-5)
    np.testing.assert_allclose(found.mean, permuted.mean, rtol=1e-5)


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    net, y = lr_nn.Network((1, 1), (), lr_nn.losses.squared_error, bias=False), RNG.standard_normal(200)
    found = lr_nn.bootstrap(net, Batch(np.ones((200, 1)), y), samples=4000)
    error = y.std() / 200**0.5
    assert abs(found.standard_errors[0, 0] / error - 1) < 5 / (2 * 4000) ** 0.5
    assert abs(found.bias[0, 0]) < 5 * error / 4000**0.5
    low, high = found.intervals(0.9)[0, 0]
    assert abs((high - low) / (2 * 1.645 * error) - 1) < 0.1
    mirrored = found.intervals(0.9, method="basic")[0, 0]
    np.testing.assert_allclose(mirrored, 2 * y.mean() - np.array([high, low]))


@pytest.mark.parametrize("method", ["rows", "bayesian"])
def test_resamples_are_weights(method):
    found = lr_nn.bootstrap(NET, Batch(X, Y), samples=3, method=method, penalty=penalties.l2(1e-2), key=KEY)
    drawn = generator(KEY)
    weights = drawn.multinomial(N, np.full(N, 1 / N), size=3) if method == "rows" else drawn.exponential(size=(3, N))
    for i in range(3):
        kept = weights[i] > 0
        one = lr_nn.fit(NET, Batch(X[kept], Y[kept], weights[i][kept]), penalty=penalties.l2(1e-2))
        np.testing.assert_allclose(found.coefficients[i], one.coefficients, atol=1e-5)


@pytest.mark.parametrize("max_steps", [30, 100])
def test_resamples_without_an_optimum_are_left_out_and_counted(max_steps):
    data, rows = Batch(X[:12, :1], np.arange(12) % 3 == 0), lr_nn.logistic_regression(1)
    found = lr_nn.bootstrap(rows, data, samples=200, max_steps=max_steps)
    ended = found.solutions.status == Status.converged
    assert 0 < found.failed == 200 - ended.sum() and f"; {found.failed} left out" in str(found)
    kept = found.solutions.coefficients[ended]
    np.testing.assert_allclose(found.coefficients, kept)
    np.testing.assert_allclose(found.standard_errors, kept.std(axis=0, ddof=1))
    np.testing.assert_allclose(found.intervals(0.5)[..., 0], np.quantile(kept, 0.25, axis=0))


def test_a_bootstrap_without_optima_refuses():
    found = lr_nn.bootstrap(NET, Batch(X, Y), samples=3, penalty=penalties.l2(1e-2))
    estimate = replace(found, estimate=replace(found.estimate, status=Status.max_steps))
    np.testing.assert_allclose(estimate.standard_errors, found.standard_errors)
    for number in (lambda: estimate.bias, lambda: estimate.intervals(method="basic"), estimate.to_pandas):
        with pytest.raises(ValueError, match=r"the fit of all rows has no optimum .max_steps.; max_steps: raise"):
            number()
    stopped = lr_nn.bootstrap(NET, Batch(X, Y), samples=3, max_steps=1)
    with pytest.raises(ValueError, match=r"fewer than two resamples .*3 left out.*raise max_steps"):
        _ = stopped.standard_errors


def test_groups_are_drawn_whole():
    groups = np.repeat(["a", "b", "c"], 30)
    y = np.repeat([0.0, 1.0, 2.0], 30)
    net = lr_nn.Network((1, 1), (), lr_nn.losses.squared_error, bias=False)
    found = lr_nn.bootstrap(net, Batch(np.ones((90, 1)), y), samples=50, groups=groups)
    assert set((3 * found.coefficients.ravel()).round(6)) <= set(range(7))


SIZES = [1, 3, 17, 40, 29]
LABELS = np.repeat(["e", "d", "c", "b", "a"], SIZES)


def test_a_group_is_a_fit_of_its_rows():
    order = np.random.default_rng(0).permutation(N)
    groups = LABELS[order]
    found = lr_nn.fit_groups(NET, Batch(X, Y, WEIGHT), groups, penalty=penalties.l2(1e-2))
    assert list(found.labels) == list("abcde") and list(found.sizes) == SIZES[::-1]
    for i, label in enumerate(found.labels):
        inside = groups == label
        one = lr_nn.fit(NET, Batch(X[inside], Y[inside], WEIGHT[inside]), penalty=penalties.l2(1e-2))
        assert found.solutions.status[i] == one.status
        if one.status == Status.converged:
            np.testing.assert_allclose(found.solutions.coefficients[i], one.coefficients, atol=1e-5)
            np.testing.assert_allclose(
                found.predict(X[inside], groups[inside]), lr_nn.predict(NET, one.params, X[inside]), atol=1e-5
            )
    assert list(found.to_pandas()["rows"]) == SIZES[::-1]


def test_a_table_of_groups_names_coefficients_by_the_columns_of_the_frame():
    names = ["cost", *(f"column {a}" for a in range(1, D))]
    frame = pd.DataFrame(X, columns=names)
    found, plain = (lr_nn.fit_groups(NET, Batch(x, Y), LABELS, penalty=penalties.l2(1e-2)) for x in (frame, X))
    assert found.names == (*names, "bias") and plain.names[0] == "x0"
    np.testing.assert_array_equal(found.to_pandas()["coefficient cost"], found.solutions.coefficients[:, 0, 0])
    np.testing.assert_array_equal(found.to_pandas()["cost"], found.solutions.cost)


def test_a_group_knows_nothing_of_another():
    x, labels = X.copy(), np.repeat(["a", "b"], [40, 50])
    x[60] = np.nan
    found = lr_nn.fit_groups(NET, Batch(x, Y), labels, penalty=penalties.l2(1e-2))
    assert [Status(s) for s in found.solutions.status] == [Status.converged, Status.non_finite]


def test_groups_of_as_many_rows_as_classes_have_labels():
    net = lr_nn.softmax_regression(D, 16)
    x, y, groups = RNG.standard_normal((256, D)), RNG.integers(0, 16, 256), np.repeat(np.arange(16), 16)
    found = lr_nn.fit_groups(net, Batch(x, y), groups, penalty=penalties.l2(0.1))
    one = lr_nn.fit(net, Batch(x[:16], y[:16]), penalty=penalties.l2(0.1))
    assert found.solutions.status[0] == one.status


@pytest.mark.parametrize("label", [0, 1])
def test_groups_of_one_class_are_separated_whatever_their_size(label):
    groups = np.repeat(np.arange(9), np.arange(4, 13))
    n = len(groups)
    x = RNG.standard_normal((n, D))
    found = lr_nn.fit_groups(NET, Batch(x, np.full(n, label)), groups, penalty=penalties.l2(0.1))
    assert (found.solutions.status == Status.separated).all() and found.solutions.direction is not None


def test_groups_without_an_optimum_say_so_and_others_are_fitted():
    found = lr_nn.fit_groups(NET, Batch(X, np.arange(N) % 2), LABELS)
    statuses = dict(zip(found.labels, map(Status, found.solutions.status)))
    assert statuses["a"] == statuses["b"] == Status.converged
    assert statuses["e"] == Status.separated
    separated = np.isin(LABELS, found.failed)
    assert "e" in found.failed and "a" not in found.failed
    assert (np.isnan(found.predict(X, LABELS))[:, 0] == separated).all()


def validate(weight=None, **keywords):
    return lr_nn.cross_validate(NET, Batch(X, Y, weight), **{"penalty": penalties.l2(STRENGTHS), **keywords})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lr_nn.fit_groups(NET, Batch(X, Y), LABELS[:-1]), "one label a row"),
        (lambda: lr_nn.fit_groups(NET, Batch(X, Y[:-1]), LABELS), "same examples"),
        (lambda: lr_nn.fit_groups(NET, Batch(X, Y), np.where(np.arange(N) == 3, np.nan, 1.0)), "missing label"),
        (lambda: validate(penalty=penalties.l2(1.0)), "strengths"),
        (lambda: validate(penalty=penalties.l2(np.zeros(0))), r"strengths of shape \(t,\), t > 0"),
        (lambda: validate(penalty=Penalty(np.ones(3), np.ones(2))), "got 3 of penalty l1, 2 of penalty l2"),
        (lambda: validate(penalty=Penalty(np.ones(1), np.ones(2))), "got 1 of penalty l1, 2 of penalty l2"),
        (lambda: validate(penalty=Penalty(l2=np.ones((2, 2)))), r"penalty l2 must be one number, or one a lane"),
        (lambda: validate(penalty=Penalty(l2=np.array([1, -1.0]))), "penalty l2 .* got -1 at index 1"),
        (lambda: validate(penalty=Penalty(l1=np.array([np.nan, 1]))), "penalty l1 .* got nan at index 0"),
        (lambda: validate(folds=1), "between 2"),
        (lambda: validate(folds=N + 1), "between 2"),
        (lambda: validate(folds=5, weight=np.arange(N) < 4), "between 2 and the 4 rows of positive weight"),
        (lambda: validate(folds=np.arange(N) % 2, weight=np.arange(N) % 2), "fold 0 has no row of positive weight"),
        (lambda: validate(folds=np.ones(N, int)), "two folds; got only 1"),
        (lambda: validate(folds=np.arange(N) % 2 / 2), "whole numbers or text.*float64"),
        (lambda: validate(folds=np.arange(N) % 3 - 1), "not be negative; got -1 at row 0"),
        (lambda: validate(folds=np.where(np.arange(N) == 3, np.nan, 1)), "missing label at row 3"),
        (lambda: validate(folds=np.ones(3)), "one label a row"),
        (lambda: validate(folds=[([0, 1], [2]), ([2], [0, 1])]), "folds must have one label a row"),
        (lambda: lr_nn.bootstrap(NET, Batch(X, Y), groups=np.ones(N)), "at least two rows, or groups"),
        (lambda: lr_nn.bootstrap(lr_nn.mlp((D, 2, 1)), Batch(X, Y)), "one layer"),
        (lambda: lr_nn.bootstrap(NET, Batch(X, Y), samples=1), "at least 2"),
        (lambda: lr_nn.bootstrap(NET, Batch(X, Y), method="jack"), "bayesian"),
        (lambda: lr_nn.bootstrap(NET, Batch(X, Y), groups=np.ones(3)), "one label a row"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_resamples_and_folds_are_a_function_of_the_key_typed_or_raw():
    def draw(key):
        return lr_nn.cross_validate(NET, Batch(X, Y), penalty=penalties.l2(np.array([1.0])), key=key).rows

    raw = np.asarray(jax.random.key_data(KEY))
    assert (draw(KEY) == draw(raw)).all() and (draw(KEY) == draw(jax.numpy.asarray(raw))).all()
    assert (draw(None) == draw(None)).all() and (draw(KEY) != draw(jax.random.key(4))).any()
    with pytest.raises(TypeError, match="key must be a random key"):
        draw(0)
    with pytest.raises(ValueError, match="key must be one key"):
        lr_nn.bootstrap(NET, Batch(X, Y), key=jax.random.split(KEY))


@pytest.mark.parametrize("settings", [{"tol": 1e-4}, {"max_steps": 1}, {"solver": "lbfgs"}, {"dtype": np.float32}])
def test_settings_are_those_of_fit(settings):
    def ends(found):
        return found.solutions if hasattr(found, "solutions") else found

    strengths = penalties.l2(STRENGTHS)
    plain = lr_nn.fit_many(NET, Batch(X, Y), penalty=strengths, **settings)
    for call in (lr_nn.regularization_path, lr_nn.cross_validate):
        found = ends(call(NET, Batch(X, Y), penalty=strengths, **settings))
        assert found.params[0].w.dtype == plain.params[0].w.dtype and found.solver == plain.solver
        assert (found.status == (Status.max_steps if "max_steps" in settings else Status.converged)).all()


def test_an_unknown_group_has_no_prediction():
    found = lr_nn.fit_groups(NET, Batch(X, Y), LABELS, penalty=penalties.l2(1e-2))
    with pytest.raises(ValueError, match="'z'"):
        found.predict(X[:2], np.array(["a", "z"]))


def test_progress_of_groups_counts_all_groups_and_a_table_of_resamples_names_columns():
    import pandas

    sizes = np.repeat([20, 300, 40], [5, 4, 3])
    groups = np.repeat(np.arange(12), sizes)
    x = np.random.default_rng(3).standard_normal((len(groups), 2))
    data = Batch(x, x[:, 0] + np.cos(5 * x[:, 1]))
    reports = []
    lr_nn.fit_groups(lr_nn.linear_regression(2), data, groups, progress=reports.append)
    assert [each.done for each in reports] == sorted(each.done for each in reports) and reports[-1] == (12, 12, 0)
    frame = pandas.DataFrame(x, columns=["height", "weight"])
    table = lr_nn.bootstrap(lr_nn.linear_regression(2), data._replace(x=frame), samples=20).to_pandas()
    assert list(table.index.get_level_values("coefficient")) == ["height", "weight", "bias"]
