"""What a first fit compiles, and that nothing which changes from fit to fit compiles again."""

import jax
import numpy as np
import pytest

import lr_nn
from benchmarks.cold import compilations
from lr_nn import Batch, Layer, Network, inference, losses, penalties

RNG = np.random.default_rng(0)
N, D = 569, 30
X = RNG.standard_normal((N, D))
TARGETS = {
    "bernoulli": (RNG.random(N) < 0.5).astype(float),
    "categorical": RNG.integers(0, 3, N),
    "poisson": RNG.poisson(2.0, N).astype(float),
    "squared_error": RNG.standard_normal(N),
}
OUTPUTS = {"categorical": 3}
every_loss = pytest.mark.parametrize("name", TARGETS)


def net(name, d=D):
    return Network((d, OUTPUTS.get(name, 1)), (), getattr(losses, name))


def fit(name, x=X, y=None, d=D, penalty=penalties.l2(1e-2), **more):  # noqa: B008
    y = TARGETS[name][: len(x)] if y is None else y
    data = {key: more.pop(key) for key in ("weight", "offset") if key in more}
    return lr_nn.fit(net(name, d), Batch(x[:, :d], y, **data), penalty=penalty, **more)


def programs(call):
    with compilations() as compiled:
        found = call()
    assert found.status == lr_nn.Status.converged, found.message
    return len(compiled)


@every_loss
def test_a_first_fit_compiles_four_programs_at_most(name):
    jax.clear_caches()
    assert 0 < programs(lambda: fit(name)) <= 4


@every_loss
def test_no_other_rows_columns_strengths_weights_starts_or_tolerances_compile(name):
    first = fit(name)
    start = (Layer(np.zeros((D, OUTPUTS.get(name, 1))), np.zeros(OUTPUTS.get(name, 1))),)
    again = {
        "another n": lambda: fit(name, X[:-1]),
        "another d": lambda: fit(name, d=17),
        "another strength": lambda: fit(name, penalty=penalties.l2(3.0)),
        "strengths of coefficients": lambda: fit(
            name, penalty=penalties.l2((Layer(np.full(first.params[0].w.shape, 0.5), None),))
        ),
        "weights": lambda: fit(name, weight=RNG.random(N) + 0.5),
        "an offset": lambda: fit(name, offset=RNG.standard_normal((N, OUTPUTS.get(name, 1)))),
        "a start": lambda: fit(name, start=start),
        "a tolerance": lambda: fit(name, tol=1e-3),
        "float32": lambda: fit(name, X.astype(np.float32)),
        "a JAX array": lambda: fit(name, jax.device_put(X.astype(np.float32))),
        "columns in Fortran's order": lambda: fit(name, np.asfortranarray(X)),
        "an l1 penalty": lambda: fit(name, penalty=penalties.l1(1e-2)),
    }
    counts = {case: programs(call) for case, call in again.items()}
    assert not any(counts.values()), counts


@pytest.mark.parametrize("n", [20_000, 32_561])
def test_one_row_less_of_many_compiles_nothing(n):
    x, y = RNG.standard_normal((n, 12)), (RNG.random(n) < 0.5).astype(float)
    network = lr_nn.logistic_regression(12)
    lr_nn.fit(network, Batch(x, y))
    assert programs(lambda: lr_nn.fit(network, Batch(x[:-1], y[:-1]), solver="lbfgs")) == 0


def test_a_summary_compiles_little():
    solution = fit("bernoulli", penalty=None)
    jax.clear_caches()
    with compilations() as compiled:
        inference.summary(net("bernoulli"), solution, Batch(X, TARGETS["bernoulli"]))
    assert len(compiled) <= 4


def many_programs(call):
    with compilations() as compiled:
        found = call()
    assert (found.status == lr_nn.Status.converged).all(), found
    return len(compiled)


@every_loss
def test_a_first_cross_validation_compiles_five_programs_at_most_and_another_n_none(name):
    strengths = penalties.l2(np.geomspace(1, 1e-3, 5))

    def folds(n, d=D):
        data = Batch(X[:n, :d], TARGETS[name][:n])
        return lr_nn.cross_validate(net(name, d), data, penalty=strengths, folds=np.arange(n) % 4).solutions

    jax.clear_caches()
    assert 0 < many_programs(lambda: folds(N)) <= 5
    assert many_programs(lambda: folds(N - 1)) == many_programs(lambda: folds(300)) == 0
    assert many_programs(lambda: folds(N, 17)) == 0


@every_loss
def test_another_number_of_lanes_of_their_own_x_compiles_nothing(name):
    def fits(m, n, schedule):
        x = RNG.standard_normal((m, n, 5))
        data = Batch(x, np.stack([TARGETS[name][:n]] * m))
        return lr_nn.fit_many(net(name, 5), data, penalty=penalties.l2(1e-1), schedule=schedule)

    for schedule, most in (("together", 4), ("compiled", 1)):
        jax.clear_caches()
        assert 0 < many_programs(lambda schedule=schedule: fits(5, 250, schedule)) <= most
        assert many_programs(lambda schedule=schedule: fits(7, 249, schedule)) == 0
