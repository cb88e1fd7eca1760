"""Losses under `jit`, on meshes and under JAX's debugging flags: what the compiler and the flags may not spoil."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LOSSES
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tolerances import assert_close

from lr_nn import activations, losses, probability

K = 2
rows = pytest.mark.parametrize("row", LOSSES.values(), ids=LOSSES)


def points(row, n=16, k=K):
    rng = np.random.default_rng(0)
    y = row.targets(rng, n, k)
    return jnp.asarray(rng.normal(size=(n, k)), jnp.float32), jnp.asarray(y, None if y.ndim == 1 else jnp.float32)


def quantities(loss, eta, y):
    """Every function of η of a loss but the samples."""
    v = jnp.stack([jnp.ones_like(eta), jnp.tanh(eta)])
    return {
        "value": loss.value(eta, y),
        "residual": loss.residual(eta, y),
        "hessian_multiply": loss.hessian_multiply(eta, y, v),
        "fisher_multiply": loss.fisher_multiply(eta, v),
        "fisher_factor": loss.fisher_factor(eta),
        "fisher_diagonal": loss.fisher_diagonal(eta),
        "mean": loss.mean(eta),
        "encode": loss.encode(y, eta),
    }


@rows
@pytest.mark.parametrize("n", [4096, 100_000])
@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_sums_over_a_constant_predictor_are_right_under_jit(row, n, constant):
    """XLA:CPU of JAX 0.10.2 made NaN of the sum of max(0, 0) that a barrier had kept from being folded."""
    k = row.loss.least_outputs
    y = jnp.asarray(np.tile(row.targets(np.random.default_rng(0), 16, k), (n // 16, *[1] * (k == 1))))
    y = y.reshape(-1) if k > 1 else y.astype(jnp.float32)

    @jax.jit
    def sums(y):
        eta = jnp.full((n, k), constant, jnp.float32)
        hessian = row.loss.hessian_multiply(eta, y, jnp.ones_like(eta))
        return row.loss.value(eta, y).sum(), row.loss.residual(eta, y).sum(axis=0), hessian.sum(axis=0)

    few = y[:16]
    eta = jnp.full((16, k), constant, jnp.float32)
    value, residual, hessian = sums(y)
    assert_close(value / n, row.loss.value(eta, few).mean(), length=n)
    assert_close(residual / n + 1, row.loss.residual(eta, few).mean(axis=0) + 1, length=n)
    assert_close(hessian / n + 1, row.loss.hessian_multiply(eta, few, jnp.ones_like(eta)).mean(axis=0) + 1, length=n)


@rows
def test_no_loss_hides_its_argument_from_the_compiler(row):
    assert "optimization_barrier" not in str(jax.make_jaxpr(lambda *a: quantities(row.loss, *a))(*points(row)))


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "categorical"])
def test_value_and_residual_share_their_exponentials(name):
    row = LOSSES[name]
    program = jax.jit(lambda eta, y: (row.loss.value(eta, y).sum(), row.loss.residual(eta, y)))
    eta, y = points(row, n=512)
    compiled = program.lower(eta, y).compile()
    assert compiled.cost_analysis()["transcendentals"] <= 2.1 * eta.size
    text = compiled.as_text()
    # One fused program may evaluate it twice from one line; it never has two different lines.
    shapes = {line.split(" exponential(")[0].split(" = ")[1] for line in text.splitlines() if " exponential(" in line}
    assert len(shapes) == 1


@rows
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=["Explicit", "Auto"])
@pytest.mark.parametrize("active", [False, True], ids=["", "set_mesh"])
def test_rows_may_be_sharded_over_a_mesh(row, kind, active):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(kind,))
    eta, y = points(row)

    @jax.jit
    def everything(eta, y):
        slope = jax.grad(lambda eta: row.loss.value(eta, y).sum())(eta)
        masked = row.loss.masked_targets(y, eta[:, 0] > 0, eta.shape[1]).astype(eta.dtype)
        return slope, masked, row.loss.sample(eta, jax.random.key(0)), quantities(row.loss, eta, y)

    expected = everything(eta, y)
    with jax.set_mesh(mesh) if active else contextlib.nullcontext():
        placed = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("rows"))) for a in (eta, y)]
        found = everything(*placed)
    jax.tree.map(assert_close, found, expected)


def test_one_output_may_be_sharded_over_a_mesh():
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    eta, y = points(LOSSES["bernoulli"], k=1)
    function = jax.jit(lambda eta, y: quantities(losses.bernoulli, eta, y))
    placed = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("rows"))) for a in (eta, y)]
    jax.tree.map(assert_close, function(*placed), function(eta, y))


FLAGS = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "enable_checks": lambda: jax.enable_checks(True),
}


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "disable_jit"])
@pytest.mark.parametrize("flag", FLAGS)
def test_good_data_raise_nothing_under_debugging_flags(flag, jit):
    huge = jnp.asarray([[1e4, -1e4], [0.0, -0.0], [-1e4, 1e4], [1e4, 1e4]])
    probabilities = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
    labels = jnp.asarray([0, 1, 1, 0])

    def everything():
        for row in LOSSES.values():
            eta = huge.clip(-1e4, 1) if row.overflows else huge
            y = labels if row.loss.task == "classes" else probabilities.round()
            quantities(row.loss, eta, y)
            jax.grad(lambda eta, loss=row.loss, y=y: loss.value(eta, y).sum())(eta)
            row.loss.targets(row.loss.masked_targets(y, labels > 0, 2), 4, 2)
        quantities(losses.categorical, huge, probabilities)
        for activation in (getattr(activations, name) for name in activations.__all__ if name.islower()):
            if isinstance(activation, activations.Activation):
                a = activation.value(huge)
                activation.derivative(a), activation.second_derivative(a)
        for function in (probability.expit, probability.log_expit, probability.softplus):
            function(huge)
        probability.odds(probabilities[2:]), probability.log_odds(probabilities[2:])
        probability.bernoulli_negative_log_likelihood(huge, probabilities)
        probability.bernoulli_likelihood(probabilities, probabilities.round())
        probability.bernoulli_log_likelihood(probabilities, probabilities)
        probability.categorical_likelihood(probabilities, labels)
        probability.categorical_log_likelihood(probabilities[2:], labels[2:])
        probability.categorical_negative_log_likelihood(huge, labels)
        probability.entropy(probabilities), probability.kl_divergence(probabilities, probabilities)
        probability.cross_entropy(probabilities, probabilities)
        probability.average(huge, jnp.ones(4)), probability.coin_toss_estimate(3, 4)
        probability.coin_toss_descent(3, 4, steps=2)

    with FLAGS[flag](), contextlib.nullcontext() if jit else jax.disable_jit():
        everything()


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint32])
def test_a_traced_label_of_no_class_makes_its_row_nan_and_no_other(dtype):
    eta, labels = jnp.asarray([[0.0, 1.0, 2.0]] * 4), np.array([0, 2, 3, 255 if dtype == np.uint32 else -1], dtype)

    @jax.jit
    def traced(y):
        admitted = losses.categorical.targets(y, 4, 3)
        encoded = losses.categorical.encode(admitted, eta)
        likelihoods = (
            probability.categorical_likelihood(jax.nn.softmax(eta), y),
            probability.categorical_log_likelihood(jax.nn.softmax(eta), y),
            probability.categorical_negative_log_likelihood(eta, y),
        )
        slope = jax.grad(lambda eta: losses.categorical.value(eta, admitted).sum())(eta)
        rows = quantities(losses.categorical, eta, admitted)
        again = losses.categorical.value(eta, encoded), losses.categorical.residual(eta, encoded)
        return *likelihoods, slope, rows["value"], rows["residual"], rows["hessian_multiply"][0], encoded, *again

    for found in traced(labels):
        missing = np.isnan(np.asarray(found)).reshape(4, -1)
        assert not missing[:2].any() and missing[2:].all()


def test_a_wide_label_does_not_wrap_around_into_a_class(float64):
    eta, y = jnp.zeros((2, 3)), jnp.array([2**32 + 1, 1])
    value = jax.jit(lambda y: losses.categorical.value(eta, losses.categorical.targets(y, 2, 3)))(y)
    assert np.isnan(np.asarray(value)).tolist() == [True, False]


@pytest.mark.parametrize("y", [np.array([7, 1, -3]), np.array([[np.nan, 1], [0, 1], [3, -1]])], ids=["labels", "rows"])
@pytest.mark.parametrize("as_jax", [False, True], ids=["numpy", "jax"])
def test_masked_targets_are_valid_where_they_are_not_counted(y, as_jax):
    counted = np.array([False, True, False])
    masked = losses.categorical.masked_targets(jnp.asarray(y) if as_jax else y, counted, 2)
    assert isinstance(masked, jax.Array if as_jax else np.ndarray) and masked.shape == y.shape
    assert masked[1].tolist() == y[1].tolist()
    losses.categorical.targets(masked, 3, 2)
    if y.ndim == 2:
        for name in ("bernoulli", "poisson", "squared_error", "squared_error of sigmoid"):
            LOSSES[name].loss.targets(LOSSES[name].loss.masked_targets(y, counted, 2), 3, 2)
        assert losses.bernoulli.masked_targets(y[:, 0], counted, 1)[[0, 2]].tolist() == [0, 0]
    traced = jax.jit(losses.categorical.masked_targets, static_argnums=2)(y, counted, 2)
    assert traced.tolist() == np.asarray(masked).tolist()


def test_soft_targets_mix_the_losses_of_their_classes(float64):
    rng = np.random.default_rng(1)
    eta, soft = (
        jnp.asarray(rng.normal(size=(5, 3))),
        rng.dirichlet(np.ones(3), 5) * np.linspace(0.9995, 1.0005, 5)[:, None],
    )
    y = losses.categorical.targets(soft, 5, 3, jnp.float64)
    by_class = [losses.categorical.value(eta, np.full(5, c)) for c in range(3)]
    assert_close(losses.categorical.value(eta, y), (soft * np.stack(by_class, axis=1)).sum(axis=1), length=3)
    slope = jax.grad(lambda eta: losses.categorical.value(eta, y).sum())
    assert_close(losses.categorical.residual(eta, y), slope(eta), length=3)
    v = jnp.asarray(rng.normal(size=(5, 3)))
    assert_close(losses.categorical.hessian_multiply(eta, y, v), jax.jvp(slope, (eta,), (v,))[1], length=3)
    best = jnp.log(jnp.asarray(soft))
    assert_close(losses.categorical.lowest(y), losses.categorical.value(best, y), length=3)
    assert losses.categorical.lowest(jnp.eye(3)).tolist() == [0, 0, 0]


def test_a_soft_row_recedes_only_where_its_classes_rise_together():
    rises, equal = losses.categorical.recession(np.array([[0.25, 0.75, 0], [0, 0, 1.0]]))
    assert rises[0].tolist() == [[0, 1, -1], [-1, 1, 0]] and equal[0].tolist() == [False, True]
    assert rises[1].tolist() == [[-1, 0, 1], [0, -1, 1]] and equal[1].tolist() == [False, False]


@pytest.mark.parametrize("y", [[0.5, 0.502], [1.2, -0.2], [np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]])
def test_rows_that_are_no_distributions_are_refused(y):
    with pytest.raises(ValueError, match=r"rows that are distributions .*at row 1"):
        losses.categorical.targets(np.array([[0.5, 0.5005], y]), 2, 2)


@pytest.mark.parametrize("module", [losses, activations, probability], ids=lambda module: module.__name__)
def test_modules_list_what_is_public(module):
    assert sorted(module.__all__) == module.__all__ and all(hasattr(module, name) for name in module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__
