"""The estimators are scikit-learn's in every habit, and their optima are those of its own."""

import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import optax
import pandas
import pytest
import scipy.sparse
from sklearn import linear_model
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, Status
from lr_nn.interop.sklearn import LinearRegression, LogisticRegression, MLPClassifier, MLPRegressor, Ridge
from lr_nn.interop.sklearn.common import filled

FEW = MLPClassifier(hidden_layer_sizes=(5,), epochs=5, random_state=0)


@pytest.fixture(autouse=True)
def _promotion_of_optax():
    with jax.numpy_dtype_promotion("standard"):
        yield


@parametrize_with_checks([LinearRegression(), Ridge(), LogisticRegression(), MLPClassifier(), MLPRegressor()])
def test_every_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


def blobs(n=90, d=4, k=2, seed=0):
    """Classes that overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return rng.standard_normal((n, d)) + rng.standard_normal((k, d))[y] / 2, y


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 3])
def test_logistic_regression_is_that_of_scikit_learn(k, intercept):
    x, y = blobs(k=k)
    weight = np.random.default_rng(1).random(len(x))
    peer = linear_model.LogisticRegression(
        C=1 / (0.01 * weight.sum()), fit_intercept=intercept, tol=1e-12, max_iter=1000, solver="newton-cg"
    ).fit(x, y, weight)
    ours = LogisticRegression(l2=0.01, fit_intercept=intercept).fit(x, y, weight)
    for name in ("coef_", "intercept_", "classes_"):
        close(getattr(ours, name), getattr(peer, name))
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        close(getattr(ours, method)(x), getattr(peer, method)(x))
    assert ours.score(x, y, weight) == peer.score(x, y, weight)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("outputs", [(), (3,)], ids=["one", "three"])
@pytest.mark.parametrize("l2", [0.0, 0.05], ids=["LinearRegression", "Ridge"])
def test_least_squares_are_those_of_scikit_learn(l2, outputs, intercept):
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((50, 4)), rng.standard_normal((50, *outputs)), rng.random(50)
    alpha = l2 * weight.sum()
    kind = {"fit_intercept": intercept}
    peer = linear_model.Ridge(alpha=alpha, **kind) if l2 else linear_model.LinearRegression(**kind)
    ours = Ridge(l2=l2, **kind) if l2 else LinearRegression(**kind)
    for model in (ours, peer):
        model.fit(x, y, weight)
    assert ours.coef_.shape == peer.coef_.shape and ours.predict(x).shape == y.shape
    close(ours.coef_, peer.coef_)
    close(ours.intercept_, peer.intercept_)


def test_a_fit_keeps_its_certificate_and_goes_on_into_the_package():
    x, y = blobs()
    model = LogisticRegression().fit(x, y)
    assert model.solution_.status is Status.converged and 0 <= model.solution_.certificate <= 1e-12
    assert_close(
        lr_nn.predict(model.net_, model.solution_.params, x)[:, 0], model.predict_proba(x)[:, 1], 4, np.float32
    )


def test_filling_up_rows_changes_no_weighted_mean():
    rng = np.random.default_rng(0)
    for n in (1, 31, 32, 33, 300):
        x, y, weight = rng.standard_normal((n, 2)), rng.standard_normal(n), rng.random(n)
        longer = filled(lr_nn.Batch(x, y, weight))
        assert len(longer.x) % 32 == 0 <= len(longer.x) - n < max(32, n / 4)
        assert_close(longer.weight.sum(), weight.sum(), n)
        assert_close(longer.weight @ longer.x, weight @ x, n)
        assert_close(longer.weight @ longer.y, weight @ y, n)
    large = lr_nn.Batch(np.zeros((2**17 + 1, 2)), np.zeros(2**17 + 1))
    assert filled(large) is large


@pytest.mark.parametrize(
    ("model", "other"),
    [(LogisticRegression(), {"l2": 0.1}), (FEW, {"l2": 0.1, "learning_rate": 0.1})],
    ids=["LogisticRegression", "MLPClassifier"],
)
def test_other_folds_strengths_and_rates_compile_nothing(caplog, model, other):
    x, y = blobs(n=200, d=7)  # a width that no other test has

    def compiles(model, n, weight=None):
        caplog.clear()
        with jax.log_compiles():
            model.fit(x[:n], y[:n], weight)
        return "Finished XLA compilation" in caplog.text

    clone(model).fit(x[:70], y[:70])
    assert not compiles(clone(model).set_params(**other), 90, np.ones(90))


def test_a_search_over_strengths_scores_as_scikit_learn_does_at_the_converted_ones():
    x, y = blobs(n=100, k=3)
    strengths = [1e-3, 1e-2, 1e-1]

    def search(model, grid):
        steps = Pipeline([("scale", StandardScaler()), ("model", model)])
        return GridSearchCV(steps, grid, cv=5, scoring="neg_log_loss").fit(x, y)

    ours = search(LogisticRegression(), {"model__l2": strengths})
    exact = linear_model.LogisticRegression(tol=1e-12, max_iter=1000, solver="newton-cg")
    peer = search(exact, {"model__C": [1 / (l2 * 80) for l2 in strengths]})
    close(ours.cv_results_["mean_test_score"], peer.cv_results_["mean_test_score"])
    assert ours.best_index_ == peer.best_index_
    assert (
        cross_val_score(ours.best_estimator_, x, y, cv=5) == cross_val_score(peer.best_estimator_, x, y, cv=5)
    ).all()


def test_a_frame_gives_its_names_and_asks_for_them_again():
    x, y = blobs()
    frame = pandas.DataFrame(x, columns=list("abcd"))
    labels = pandas.Series(np.where(y, "yes", "no"), index=range(1000, 1000 + len(y)))
    model = LogisticRegression().fit(frame, labels, sample_weight=pandas.Series(np.ones(len(y))))
    assert list(model.feature_names_in_) == list("abcd") and model.n_features_in_ == 4
    assert list(model.classes_) == ["no", "yes"] and set(model.predict(frame)) == {"no", "yes"}
    close(model.coef_, LogisticRegression().fit(x, y).coef_)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[list("dcba")])


def test_a_class_of_weight_zero_is_no_class():
    x, y = blobs(k=3)
    weight = (y != 1).astype(float)
    model = LogisticRegression().fit(x, y, weight)
    assert list(model.classes_) == [0, 2]
    close(model.coef_, LogisticRegression().fit(x[y != 1], y[y != 1]).coef_)


@pytest.mark.parametrize("model", [Ridge(), LogisticRegression(), FEW], ids=lambda model: type(model).__name__)
def test_what_is_pickled_predicts_the_same_and_a_clone_is_not_fitted(model):
    x, y = blobs()
    fitted = clone(model).fit(x, y)
    copy = pickle.loads(pickle.dumps(fitted))
    assert copy.net_ == fitted.net_
    np.testing.assert_array_equal(copy.predict(x), fitted.predict(x))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(x)


def test_what_keeps_a_fit_from_its_optimum_is_a_warning():
    x, y = blobs()
    with pytest.warns(ConvergenceWarning, match=r"separated.*coefficient 0 of output 0"):
        LogisticRegression(l2=0.0).fit(y[:, None], y)
    with pytest.warns(ConvergenceWarning, match=r"max_steps.*allow more steps") as told:
        LogisticRegression(l2=1e-6, max_steps=1).fit(x, y)
    assert told[0].filename == __file__
    with pytest.warns(ConvergenceWarning, match="non_finite"):
        clone(FEW).set_params(learning_rate=1e30).fit(x.astype(np.float32), y)


def test_columns_that_depend_on_one_another_have_an_optimum_and_no_warning():
    x, y = blobs()
    doubled = np.column_stack([x, x[:, 0]])
    for model in (LinearRegression(), LogisticRegression(l2=0.0)):
        once, twice = clone(model).fit(x, y), clone(model).fit(doubled, y)
        assert twice.solution_.status is Status.rank_deficient
        np.testing.assert_allclose(twice.predict(doubled), once.predict(x), rtol=1e-6)
    with pytest.warns(ConvergenceWarning, match="too little to be told") as told:
        nearly = x[:, 0] + 1e-8 * np.random.default_rng(0).standard_normal(len(x))
        LinearRegression().fit(np.column_stack([x, nearly]), y)
    assert told[0].filename == __file__


def test_an_l1_penalty_makes_zeros():
    x, y = blobs()
    model = LogisticRegression(l1=0.1, l2=0.0).fit(x, y)
    assert model.solution_.status is Status.converged and 0 < (model.coef_ == 0).sum() < 4


def test_a_network_learns_what_no_line_divides():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200, 2))
    y = np.where(x[:, 0] * x[:, 1] > 0, "same", "other")
    grown = {"hidden_layer_sizes": (16, 16), "learning_rate": 1e-2, "random_state": 0}
    model = MLPClassifier(**grown).fit(x, y)
    assert model.score(x, y) > 0.95 and LogisticRegression().fit(x, y).score(x, y) < 0.7
    values = MLPRegressor(activation="tanh", **grown).fit(x, x[:, 0] * x[:, 1])
    assert values.score(x, x[:, 0] * x[:, 1]) > 0.95
    for fitted in (model, values):
        assert fitted.n_iter_ == len(fitted.history_["cost"]) == 200
        assert fitted.history_["cost"][-1] < fitted.history_["cost"][0]


def test_a_training_is_that_of_the_package():
    x, y = blobs(n=64)
    x = x.astype(np.float32)
    model = MLPClassifier(hidden_layer_sizes=(5,), activation="tanh", l2=0.1, epochs=7, random_state=0).fit(x, y)
    first, _ = jax.random.split(jax.random.key(np.random.RandomState(0).randint(2**31 - 1)))
    net = lr_nn.mlp((4, 5, 1), lr_nn.activations.tanh)
    settings = {"optimizer": optax.adam(1e-3), "epochs": 7, "penalty": lr_nn.penalties.l2(0.1)}
    by_hand = lr_nn.train(net, lr_nn.init(net, first), Batch(x, y), **settings).params
    assert model.net_ == net
    for ours, theirs in zip(jax.tree.leaves(model.params_), jax.tree.leaves(by_hand)):
        assert_close(ours, theirs, 64, condition=7)


def test_an_activation_of_your_own_is_kept_by_a_clone():
    slope = lr_nn.activations.leaky_relu(0.3)
    model = clone(FEW).set_params(activation=slope)
    assert clone(model).fit(*blobs()).net_.hidden == (slope,)


def test_the_work_is_done_in_the_precision_of_x():
    x, y = blobs()
    for dtype in (np.float32, np.float64):
        model = clone(FEW).fit(x.astype(dtype), y)
        assert {leaf.dtype for leaf in jax.tree.leaves(model.params_)} == {np.dtype(dtype)}
        assert model.predict_proba(x).dtype == dtype
    assert not jax.config.jax_enable_x64


def test_mini_batches_and_rows_put_aside_are_drawn_by_the_random_state():
    x, y = blobs(n=300, k=3)
    few = MLPClassifier(hidden_layer_sizes=(4,), batch_size=32, epochs=40, learning_rate=0.03, patience=2)
    models = [clone(few).set_params(random_state=seed).fit(x, y) for seed in (0, 0, 1)]
    same, again, other = (model.predict_proba(x) for model in models)
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()
    assert models[0].n_iter_ < 40 and "validation_cost" in models[0].history_


X, Y = blobs()
REFUSALS = {
    "one class": (lambda: LogisticRegression().fit(X, 0 * Y), "needs at least two classes"),
    "one class that has weight": (lambda: MLPClassifier().fit(X, Y, Y), "needs at least two classes"),
    "values for labels": (lambda: LogisticRegression().fit(X, X[:, 0]), "Unknown label type"),
    "several labels": (lambda: LogisticRegression().fit(X, np.eye(2)[Y]), "should be a 1d array"),
    "NaN": (lambda: Ridge().fit(np.where(X > 1, np.nan, X), Y), "contains NaN"),
    "a negative strength": (lambda: Ridge(l2=-1.0).fit(X, Y), "penalty l2 must be finite and not negative"),
    "a solver unheard of": (lambda: LogisticRegression(solver="saga").fit(X, Y), "solver must be one of auto"),
    "no tolerance": (lambda: LinearRegression(tol=0.0).fit(X, Y), "tol must be between 0 and 1"),
    "weights of a matrix": (lambda: Ridge().fit(X, Y, np.ones((90, 2))), r"weight must have shape \(90,\)"),
    "negative weights": (lambda: Ridge().fit(X, Y, -np.ones(90)), "weight must be finite and not negative"),
    "a parameter unheard of": (lambda: Ridge().set_params(alpha=1.0), "Invalid parameter 'alpha'"),
    "an activation unheard of": (
        lambda: MLPRegressor(activation="swish").fit(X, Y),
        "must be one of .*, relu, .*swish",
    ),
    "no epochs": (lambda: MLPRegressor(epochs=0).fit(X, Y), "epochs must be at least 1"),
    "no rows in a batch": (lambda: MLPRegressor(batch_size=0).fit(X, Y), "batch_size must be at least 1"),
    "a learning rate of zero": (lambda: MLPRegressor(learning_rate=0.0).fit(X, Y), "learning_rate must be positive"),
    "a layer of no width": (lambda: MLPRegressor(hidden_layer_sizes=(0,)).fit(X, Y), "a size must be at least 1"),
}


@pytest.mark.parametrize(("call", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_sparse_table_is_refused():
    with pytest.raises(TypeError, match="dense data is required"):
        Ridge().fit(scipy.sparse.csr_array(X), Y)


def test_without_scikit_learn_the_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import lr_nn.interop.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "lr-nn[sklearn]"' in done.stderr


def test_the_checks_that_scipy_must_be_set_up_for_pass_in_a_process_where_it_is():
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "array_api", __file__],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed" in told.stdout and "skipped" not in told.stdout, told.stdout[-2000:]
