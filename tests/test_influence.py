"""Influence functions against dense float64 autodiff, and against models fitted again without each row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.linalg
from cases import NETWORKS, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import assert_close

import lr_nn
from lr_nn import Layer, influence, losses, penalties

LENGTH, L2, DAMPING = 100, 0.05, 2.0
DEEP = NETWORKS["bernoulli, sigmoid, 2 layers"]
CASES = {
    "kfac, bernoulli, 2 layers": ("kfac", DEEP),
    "ekfac, bernoulli, 2 layers": ("ekfac", DEEP),
    "ggn, bernoulli, 2 layers": ("ggn", DEEP),
    "hessian, bernoulli, 2 layers": ("hessian", DEEP),
    "kfac, poisson, 3 layers": ("kfac", network("poisson", "tanh", 3)),
    "ggn, categorical, 1 layer, no bias": ("ggn", NETWORKS["categorical, 1 layer, no bias"]),
}
# Of conjugate gradients, whose residual is relative 1e-13.
CONDITION, TOL = 1e4, 1e-13


def setting(case):
    """Network, parameters, weighted training rows, and test rows."""
    test = batch(case, 3, weighted=True, seed=9)
    return case.net, on_device(parameters(case.net)), batch(case, weighted=True), test


@reference.in_float64
@reference.compiled
def gradients(case, params, rows):
    """g_i, (n, p)."""
    flat, unravel = ravel_pytree(params)
    return jax.jacobian(lambda flat: reference._losses(case, unravel(flat), rows))(flat)


@reference.in_float64
@reference.compiled
def hessian(case, params, rows, l2):
    """The Hessian of the cost, (p, p)."""
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda flat: reference._cost(unravel(flat), case, rows, 0.0, l2))(flat)


@reference.in_float64
@reference.compiled
def jacobian(case, params, x):
    """∂η/∂θ, (n, k, p)."""
    flat, unravel = ravel_pytree(params)
    return jax.jacobian(lambda flat: reference._outputs(case, unravel(flat), x)[-1])(flat)


def dense(case, curvature):
    """H + λI with the penalty on the weights, dense."""
    params, rows = parameters(case.net), batch(case, weighted=True)
    penalised = ravel_pytree([Layer(np.ones_like(w), None if b is None else np.zeros_like(b)) for w, b in params])[0]
    ridge = np.diag(L2 * np.asarray(penalised) + DAMPING)
    if curvature == "hessian":
        return hessian(case, params, rows, L2) + DAMPING * np.eye(len(ridge))
    share = rows.weight / rows.weight.sum()
    *inputs, eta = reference.outputs(case, params, rows.x)
    fisher = reference.loss_hessian(case.loss, eta, rows.y)
    j = jacobian(case, params, rows.x)
    exact = np.einsum("n,nap,nab,nbq->pq", share, j, fisher, j)
    if curvature == "ggn":
        return exact + ridge
    blocks, constant = [], np.ones((len(eta), int(case.net.bias)))
    for inner, j in zip(inputs, reference.jacobians(case, params, rows.x), strict=True):
        a = np.concatenate([inner, constant], axis=1)
        right = np.einsum("n,kni,nkl,lnj->ij", share, j, fisher, j)
        blocks.append((np.einsum("n,ni,nj->ij", share, a, a), right))
    if curvature == "kfac":
        return scipy.linalg.block_diag(*(np.kron(*sides) for sides in blocks)) + ridge
    return in_eigenbasis(blocks, exact, ridge)


def in_eigenbasis(blocks, exact, ridge):
    """Along the eigenvectors of D^{-½} (A ⊗ G) D^{-½} the diagonal of D^{-½} GGN D^{-½} alone, D = `ridge`."""
    root, start, bases = np.sqrt(np.diag(ridge)), 0, []
    for a, g in blocks:
        inputs = root[start : start + len(a) * len(g)].reshape(len(a), len(g))[:, 0]
        bases.append(np.kron(np.linalg.eigh(a / np.outer(inputs, inputs))[1], np.linalg.eigh(g)[1]))
        start += len(a) * len(g)
    u = scipy.linalg.block_diag(*bases)
    moments = np.diag(u.T @ (exact / np.outer(root, root)) @ u)
    return np.outer(root, root) * (u @ np.diag(moments + 1) @ u.T)


def keywords(curvature):
    return {"damping": DAMPING, "curvature": curvature, "penalty": penalties.l2(L2), "tol": TOL}


@pytest.mark.parametrize(("curvature", "case"), CASES.values(), ids=CASES)
def test_influence_is_that_of_the_dense_inverse(float64, curvature, case):
    net, params, train, test = setting(case)
    g, g_test = gradients(case, parameters(net), train), gradients(case, parameters(net), test)
    solved = np.linalg.solve(dense(case, curvature), g.T)
    total, share = train.weight.sum(), train.weight / train.weight.sum()
    at, given = (net, params, train), keywords(curvature)
    assert_close(influence.upweighting(*at, test, **given), -g_test @ solved / total, LENGTH, condition=CONDITION)
    without = g_test @ (solved - (solved @ share)[:, None]) * (share / (1 - share))
    assert_close(influence.deletion(*at, test, **given), without, LENGTH, condition=CONDITION)
    own = np.einsum("np,pn->n", g, solved)
    assert (own > 0).all()
    assert_close(influence.self_influence(*at, **given), own, LENGTH, condition=CONDITION)
    change = influence.parameter_change(*at, train, **given)
    assert jax.tree.structure(change) == jax.tree.structure(params)
    flat = np.concatenate([np.asarray(leaf).reshape(len(g), -1) for leaf in jax.tree.leaves(change)], axis=1)
    assert_close(flat, -solved.T / total, LENGTH, condition=CONDITION)


# Against models fitted again.

N, D = 40, 3
RNG = np.random.default_rng(0)
X, WEIGHT = RNG.normal(size=(N, D)), RNG.integers(1, 4, size=N).astype(float)
LABELS = (X @ [1.5, -1.0, 0.5] + RNG.logistic(size=N) > 0).astype(float)
LOGISTIC, PENALTY = lr_nn.logistic_regression(D), penalties.l2(0.02)
TEST = lr_nn.Batch(RNG.normal(size=(4, D)), np.array([[0.0], [1.0], [1.0], [0.0]]))


def fitted(weight):
    rows = lr_nn.Batch(X, LABELS, weight)
    return lr_nn.fit(LOGISTIC, rows, penalty=PENALTY).params, rows


def losses_of_test_rows(params):
    return reference.losses(network("bernoulli", depth=1), params, TEST)


@pytest.mark.parametrize(("curvature", "damping"), [("hessian", 0.0), ("kfac", 1e-6)])
def test_deletion_predicts_the_loss_of_models_fitted_without_each_row_of_weight_one(float64, curvature, damping):
    params, rows = fitted(WEIGHT)
    predicted = influence.deletion(LOGISTIC, params, rows, TEST, curvature=curvature, damping=damping, penalty=PENALTY)
    some = np.flatnonzero(WEIGHT == 1)[:12]
    refits = [losses_of_test_rows(fitted(np.where(np.arange(N) == i, 0, WEIGHT))[0]) for i in some]
    actual = np.array(refits).T - losses_of_test_rows(params)[:, None]
    predicted = np.asarray(predicted)[:, some]
    assert np.corrcoef(predicted.ravel(), actual.ravel())[0, 1] > 0.99
    if curvature == "hessian":
        assert np.abs(predicted - actual).max() < 0.15 * np.abs(actual).max()


def test_the_derivative_of_a_fit_by_a_weight_is_that_of_the_parameters_less_the_change_of_the_divisor(float64):
    """With the divisor n free too, dθ/ds_i = -H⁻¹ (g_i - ḡ) / n; ḡ is minus the gradient of the penalty."""
    params, rows = fitted(WEIGHT)
    bare = influence.parameter_change(LOGISTIC, params, rows, rows, curvature="ggn", damping=0.0, penalty=PENALTY)
    mean = jax.tree.map(lambda a: np.tensordot(WEIGHT / WEIGHT.sum(), np.asarray(a), 1), bare)
    step, row = 1e-4, np.arange(N) == 7
    ends = [fitted(WEIGHT + sign * step * row)[0] for sign in (1, -1)]
    for above, below, change, average in zip(*map(jax.tree.leaves, (*ends, bare, mean)), strict=True):
        np.testing.assert_allclose((above - below) / (2 * step), np.asarray(change)[7] - average, rtol=1e-5, atol=1e-8)


def test_integer_weights_are_duplicated_rows_in_any_order(float64):
    params, rows = fitted(WEIGHT)
    order = RNG.permutation(np.repeat(np.arange(N), WEIGHT.astype(int)))
    repeated = lr_nn.Batch(X[order], LABELS[order])
    for curvature in ("kfac", "ggn"):
        given = {"curvature": curvature, "damping": 0.1, "penalty": PENALTY, "tol": TOL}
        once = influence.upweighting(LOGISTIC, params, rows, TEST, **given)
        many = influence.upweighting(LOGISTIC, params, repeated, TEST, **given)
        assert_close(many, np.asarray(once)[:, order], LENGTH, condition=CONDITION)


def test_rows_over_an_explicit_mesh_have_the_influence_of_the_rows():
    over = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    rows = batch(DEEP, 16)
    params, placed = on_device((parameters(DEEP.net), rows), np.float32)
    placed = jax.tree.map(lambda a: jax.device_put(a, NamedSharding(over, P("rows"))), placed)
    once, spread = (influence.upweighting(DEEP.net, params, at, at, damping=DAMPING) for at in (rows, placed))
    assert_close(spread, once, LENGTH, condition=10)


# TracIn.


def test_tracin_adds_the_step_times_the_products_of_gradients_at_every_checkpoint(float64):
    net, _, train, test = setting(DEEP)
    points, steps = [parameters(net, seed=seed) for seed in range(3)], [0.5, 0.25, 0.1]
    expected = sum(
        step * gradients(DEEP, params, test) @ gradients(DEEP, params, train).T
        for params, step in zip(points, steps, strict=True)
    )
    got = influence.tracin(net, map(on_device, points), steps, train, test)
    assert_close(got, expected, LENGTH)


def test_tracin_of_small_steps_is_the_loss_that_gradient_descent_on_one_example_removes(float64):
    net, params, train, test = setting(DEEP)
    one = train._replace(x=train.x[:1], y=train.y[:1], weight=None)
    points = [params]
    for _ in range(4):
        gradient = lr_nn.gradient(lr_nn.backprop(net, points[-1], one))
        points.append(jax.tree.map(lambda w, g: w - 1e-5 * g, points[-1], gradient))
    removed = [reference.losses(DEEP, jax.tree.map(np.asarray, at), test) for at in (points[0], points[-1])]
    got = influence.tracin(net, points[:-1], [1e-5] * 4, one, test)
    np.testing.assert_allclose(np.asarray(got)[:, 0], removed[0] - removed[1], rtol=1e-3)


# Numbers and refusals.


def test_an_indefinite_hessian_gives_nan(float64):
    net, params, train, test = setting(DEEP)
    lowest = np.linalg.eigvalsh(hessian(DEEP, parameters(net), train, 0.0)).min()
    assert lowest < 0
    got = influence.upweighting(net, params, train, test, curvature="hessian", damping=-lowest / 2)
    assert np.isnan(got).any()


def test_half_precision_is_summed_in_float32_and_all_functions_run_under_jit():
    net, params, train, test = setting(DEEP)
    expected = influence.upweighting(net, params, train, test, damping=DAMPING)
    traced = jax.jit(lambda params, train: influence.upweighting(net, params, train, test, damping=DAMPING))
    assert_close(traced(params, train), expected, LENGTH, condition=10)
    narrow = on_device(params, jnp.bfloat16)
    half = influence.upweighting(net, narrow, train, test, damping=DAMPING)
    assert half.dtype == jnp.float32
    assert_close(half, expected, LENGTH, jnp.bfloat16)
    change = influence.parameter_change(net, narrow, train, test, damping=DAMPING)
    assert {leaf.dtype for leaf in jax.tree.leaves(change)} == {jnp.dtype(jnp.bfloat16)}
    assert [leaf.shape for leaf in jax.tree.leaves(change)] == [(3, *a.shape) for a in jax.tree.leaves(params)]


def small(**given):
    net = lr_nn.logistic_regression(2)
    rows = lr_nn.Batch(np.eye(2), np.array([0.0, 1.0]))
    at = (net, lr_nn.init(net, jax.random.key(0)), given.pop("train", rows))
    return influence.upweighting(*at, rows, **{"damping": 0.1} | given)


def traced(checkpoints):
    net = lr_nn.Network((2, 1), (), losses.bernoulli)
    rows = lr_nn.Batch(np.eye(2), np.array([0.0, 1.0]))
    return influence.tracin(net, checkpoints, [0.1], rows, rows)


TREE = penalties.l2((Layer(jnp.ones((2, 1)), jnp.ones(1)),))
REFUSALS = {
    "curvature": (lambda: small(curvature="fisher"), "curvature must be one of .*; got 'fisher'"),
    "damping of kfac": (lambda: small(damping=0.0), "damping of curvature='kfac' must be positive; got 0"),
    "damping": (lambda: small(damping=-1.0, curvature="ggn"), "damping must be finite and not negative; got -1"),
    "tol": (lambda: small(curvature="ggn", tol=1.0), "tol must be below 1, .*; got 1"),
    "l1": (lambda: small(penalty=penalties.l1(0.1)), "penalty l1 must be 0, because l1 has no curvature; got 0.1"),
    "tree": (
        lambda: small(penalty=TREE),
        "curvature='kfac' takes one l2 strength for all weights; use curvature='ggn'",
    ),
    "no checkpoints": (
        lambda: traced([]),
        r"step_sizes must have one number for each of 0 checkpoints; got shape \(1,\)",
    ),
    "a checkpoint": (
        lambda: traced([(Layer(jnp.ones((3, 1)), jnp.ones(1)),)]),
        r"checkpoints\[0\] does not fit the network",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
