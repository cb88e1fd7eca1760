"""Strengths translated from other libraries lead to the optima that those libraries find."""

import numpy as np
import pytest
import scipy.optimize
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, Layer, Penalty, Status
from lr_nn.interop import conventions

N, D, K = 200, 4, 3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
ETA = X @ np.array([1.0, -0.5, 0.2, 0.0]) + 0.3
VALUES = 10 * (ETA + RNG.standard_normal(N))
LABELS = (RNG.random(N) < 1 / (1 + np.exp(-ETA))).astype(int)
CLASSES = (ETA + RNG.standard_normal((K, N))).argmax(axis=0)
COUNTS = RNG.poisson(np.exp(ETA / 2))
WEIGHTS = RNG.random(N) + 0.1
LINEAR, LOGISTIC, SOFTMAX = lr_nn.linear_regression(D), lr_nn.logistic_regression(D), lr_nn.softmax_regression(D, K)
POISSON = lr_nn.Network((D, 1), (), lr_nn.losses.poisson)


def fitted(net, y, penalty, weight=None):
    """Coefficients (k, d) at the optimum."""
    found = lr_nn.fit(net, Batch(X, y, weight), penalty=penalty)
    assert found.status is Status.converged, found.message
    return found.params[0].w.T


def agree(ours, theirs):
    np.testing.assert_allclose(ours, np.reshape(theirs, ours.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["rows", "weights"])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("net", "y"), [(LOGISTIC, LABELS), (SOFTMAX, CLASSES)], ids=["two", "three"])
def test_scikit_learn_logistic(net, y, l1_ratio, weight):
    from sklearn.linear_model import LogisticRegression

    peer = LogisticRegression(C=0.05, l1_ratio=l1_ratio, solver="saga", tol=1e-10, max_iter=10**5)
    n = N if weight is None else weight.sum()
    ours = fitted(net, y, conventions.scikit_learn_logistic(0.05, n, l1_ratio), weight)
    agree(ours, peer.fit(X, y, weight).coef_)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["rows", "weights"])
def test_scikit_learn_ridge(weight):
    from sklearn.linear_model import Ridge

    n = N if weight is None else weight.sum()
    ours = fitted(LINEAR, VALUES, conventions.scikit_learn_ridge(7.0, n), weight)
    agree(ours, Ridge(7.0).fit(X, VALUES, weight).coef_)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["rows", "weights"])
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
def test_scikit_learn_elastic_net(l1_ratio, weight):
    from sklearn.linear_model import ElasticNet

    peer = ElasticNet(2.0, l1_ratio=l1_ratio, tol=1e-14, max_iter=10**6).fit(X, VALUES, weight)
    agree(fitted(LINEAR, VALUES, conventions.scikit_learn_elastic_net(2.0, l1_ratio), weight), peer.coef_)


@pytest.mark.parametrize(
    ("name", "y", "loss"),
    [
        ("MLPClassifier", LABELS, lr_nn.losses.bernoulli),
        ("MLPClassifier", CLASSES, lr_nn.losses.categorical),
        ("MLPRegressor", np.column_stack([VALUES, ETA]) / 10, lr_nn.losses.squared_error),
    ],
    ids=["two classes", "three classes", "two values"],
)
def test_scikit_learn_mlp_states_the_cost_that_ours_has_at_its_coefficients(float64, name, y, loss):
    from sklearn import neural_network

    few = {"solver": "lbfgs", "max_iter": 10**4, "max_fun": 10**6, "random_state": 0}
    peer = getattr(neural_network, name)(hidden_layer_sizes=(5,), activation="tanh", alpha=30.0, **few).fit(X, y)
    params = tuple(Layer(w, b) for w, b in zip(peer.coefs_, peer.intercepts_))
    net = lr_nn.mlp((D, 5, peer.n_outputs_), lr_nn.activations.tanh, loss)
    outputs = peer.n_outputs_ if name == "MLPRegressor" else 1
    ours = lr_nn.cost(net, params, Batch(X, y), conventions.scikit_learn_mlp(30.0, N, outputs))
    assert_close(ours, outputs * peer.loss_, N)


def objective_of_glmnet(theta, scaled, lambda_, alpha):
    """Friedman, Hastie & Tibshirani (2010), equation 1, for a response already scaled."""
    bias, w = theta[0], theta[1:]
    rss = np.square(scaled - bias - X @ w).sum()
    return rss / (2 * N) + lambda_ * ((1 - alpha) / 2 * np.square(w).sum() + alpha * np.abs(w).sum())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_glmnet_scales_the_response_of_its_gaussian_family(alpha):
    """At what `conventions.glmnet` leads to, its objective is lowest, says Powell, who needs no derivative."""
    lambda_, sd = 1.5, VALUES.std()
    found = lr_nn.fit(LINEAR, Batch(X, VALUES), penalty=conventions.glmnet(lambda_, alpha, sd)).coefficients[:, 0]
    ours = np.append(found[-1], found[:-1]) / sd
    arguments = (VALUES / sd, lambda_ / sd, alpha)
    peer = scipy.optimize.minimize(
        objective_of_glmnet, np.zeros(D + 1), arguments, "Powell", options={"xtol": 1e-10, "ftol": 1e-14}
    )
    assert objective_of_glmnet(ours, *arguments) <= peer.fun * (1 + 1e-12)
    np.testing.assert_allclose(ours, peer.x, rtol=1e-5, atol=1e-5)


def test_glmnet_leaves_other_responses_as_they_are():
    penalty = conventions.glmnet(0.05, 0.5)
    agree(fitted(LOGISTIC, LABELS, penalty), fitted(LOGISTIC, LABELS, lr_nn.penalties.elastic_net(0.05, 0.5)))


@pytest.mark.parametrize(("name", "net", "y"), [("Logit", LOGISTIC, LABELS), ("Poisson", POISSON, COUNTS)])
def test_statsmodels_discrete(name, net, y):
    import statsmodels.api as sm

    free = np.append(0, np.full(D, 8.0))
    exact = {"acc": 1e-14, "maxiter": 10**4, "trim_mode": "off", "qc_tol": 1, "disp": 0}
    peer = getattr(sm, name)(y, sm.add_constant(X)).fit_regularized(alpha=free, **exact)
    agree(fitted(net, y, conventions.statsmodels_discrete(8.0, N)), peer.params[1:])


@pytest.mark.parametrize("L1_wt", [0.3, 1.0])
@pytest.mark.parametrize("name", ["OLS", "GLM of values", "GLM of labels"])
def test_statsmodels_elastic_net(name, L1_wt):
    import statsmodels.api as sm

    constant = sm.add_constant(X)
    net, y, model = {
        "OLS": (LINEAR, VALUES, sm.OLS(VALUES, constant)),
        "GLM of values": (LINEAR, VALUES, sm.GLM(VALUES, constant)),
        "GLM of labels": (LOGISTIC, LABELS, sm.GLM(LABELS, constant, family=sm.families.Binomial())),
    }[name]
    free = np.append(0, np.full(D, 0.1))
    peer = model.fit_regularized(alpha=free, L1_wt=L1_wt, cnvrg_tol=1e-13, maxiter=10**4)
    agree(fitted(net, y, conventions.statsmodels_elastic_net(0.1, L1_wt)), peer.params[1:])


def test_statsmodels_ridge():
    import statsmodels.api as sm

    free = np.append(0, np.full(D, 0.1))
    peer = sm.OLS(VALUES, sm.add_constant(X)).fit_regularized(alpha=free, L1_wt=0)
    agree(fitted(LINEAR, VALUES, conventions.statsmodels_elastic_net(0.1, 0.0)), peer.params[1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conventions.scikit_learn_logistic(0.0, N), "C must be positive and finite; got 0"),
        (lambda: conventions.scikit_learn_logistic(1.0, 0), "n must be positive"),
        (lambda: conventions.scikit_learn_ridge(-1.0, N), "alpha must be finite and not negative; got -1"),
        (lambda: conventions.scikit_learn_elastic_net(1.0, 1.5), "l1_ratio must be between 0"),
        (lambda: conventions.glmnet(0.1, -1.0), "alpha must be between 0"),
        (lambda: conventions.glmnet(0.1, 0.5, 0.0), "sd_y must be positive"),
        (lambda: conventions.statsmodels_discrete(np.nan, N), "alpha must be finite"),
        (lambda: conventions.statsmodels_elastic_net(1.0, 2.0), "L1_wt must be between 0"),
    ],
)
def test_strengths_that_mean_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_translation_is_plain_numbers():
    assert conventions.scikit_learn_logistic(2.0, 50, 0.25) == Penalty(0.0025, 0.0075)
