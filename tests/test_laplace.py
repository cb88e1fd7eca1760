"""Laplace approximations: exact for Bayesian linear regression, and against dense float64 autodiff for small nets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.linalg
import scipy.special
import scipy.stats
from cases import NETWORKS, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import assert_close, assert_mean_close, assert_trees_close

import lr_nn
from lr_nn import laplace, losses
from lr_nn.data.arrays import Arrays
from lr_nn.laplace import curvature_sums, spectra

STRUCTURES = ("kfac", "diagonal", "last_layer", "full")
LENGTH, PRIOR = 50, 0.7
CASES = {
    "squared_error, tanh, 2 layers": network("squared_error", "tanh"),
    "categorical, 1 layer, no bias": NETWORKS["categorical, 1 layer, no bias"],
    "poisson, elu, 2 layers, no bias": NETWORKS["poisson, elu, 2 layers, no bias"],
    "bernoulli, sigmoid, 2 layers": NETWORKS["bernoulli, sigmoid, 2 layers"],
}
BERNOULLI = CASES["bernoulli, sigmoid, 2 layers"]
structures = pytest.mark.parametrize("structure", STRUCTURES)
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def noise_of(case):
    return 0.3 if case.net.loss == losses.squared_error else 1.0


def setting(case, n=7):
    """Parameters on the device, weighted rows with an offset, and further inputs."""
    rows = batch(case, n, weighted=True, offset=True)
    return on_device(parameters(case.net)), rows, np.random.default_rng(5).normal(size=(3, case.net.sizes[0]))


def make(case, structure, rows=None, **keywords):
    params, weighted_rows, _ = setting(case)
    rows = weighted_rows if rows is None else rows
    keywords = {"prior": PRIOR, "noise": noise_of(case)} | keywords
    return laplace.posterior(case.net, params, rows, structure, **keywords)


@reference.in_float64
@reference.compiled
def jacobian(case, params, x):
    """∂η/∂θ, (n, k, p), by autodiff."""
    flat, unravel = ravel_pytree(params)
    return jax.jacobian(lambda flat: reference._outputs(case, unravel(flat), x)[-1])(flat)


def in_law(net, structure):
    """Which of the p parameters have a law."""
    p, last = lr_nn.n_parameters(net), (net.sizes[-2] + net.bias) * net.sizes[-1]
    return slice(p - last if structure == "last_layer" else 0, p)


def curvature(case, params, rows, structure):
    """Σ s_i J_iᵀ F_i J_i as the structure keeps it, dense, of the parameters with a law."""
    eta = reference.outputs(case, params, rows.x)[-1] + rows.offset
    fisher = reference.loss_hessian(case.loss, eta, rows.y)
    if structure == "kfac":
        return kronecker_blocks(case, params, rows, fisher)
    j = jacobian(case, params, rows.x)[:, :, in_law(case.net, structure)]
    dense = np.einsum("n,nap,nab,nbq->pq", rows.weight, j, fisher, j)
    return np.diag(np.diag(dense)) if structure == "diagonal" else dense


def kronecker_blocks(case, params, rows, fisher):
    """n A ⊗ G a layer, A and G weighted means of ã ãᵀ and of E[δ δᵀ]."""
    n, found = rows.weight.sum(), []
    inputs = reference.outputs(case, params, rows.x)[:-1]
    constant = np.ones((len(rows.x), int(case.net.bias)))
    for inner, j in zip(inputs, reference.jacobians(case, params, rows.x), strict=True):
        a = np.concatenate([inner, constant], axis=1)
        left = np.einsum("n,ni,nj->ij", rows.weight, a, a)
        right = np.einsum("n,kni,nkl,lnj->ij", rows.weight, j, fisher, j)
        found.append(np.kron(left, right) / n)
    return scipy.linalg.block_diag(*found)


def precision(case, params, rows, structure):
    """Λ."""
    found = curvature(case, params, rows, structure) / noise_of(case)
    return found + PRIOR * np.eye(len(found))


def log_likelihood(case, params, rows):
    """Σ s_i log p(y_i | η_i), by the laws of SciPy."""
    eta = reference.outputs(case, params, rows.x)[-1] + rows.offset
    if case.net.loss == losses.squared_error:
        terms = scipy.stats.norm(eta, noise_of(case) ** 0.5).logpdf(rows.y).sum(axis=1)
    elif case.net.loss == losses.poisson:
        terms = scipy.stats.poisson(np.exp(eta)).logpmf(rows.y).sum(axis=1)
    elif case.net.loss == losses.bernoulli:
        terms = scipy.stats.bernoulli(scipy.special.expit(eta)).logpmf(rows.y).sum(axis=1)
    else:
        terms = scipy.special.log_softmax(eta, axis=1)[np.arange(len(eta)), rows.y]
    return rows.weight @ terms


@structures
@cases
def test_the_law_of_eta_and_the_evidence_are_those_of_the_dense_ggn(float64, case, structure):
    params, rows, x = setting(case)
    made, offset = make(case, structure), np.ones((3, case.net.sizes[-1]))
    expected = precision(case, parameters(case.net), rows, structure)
    condition = np.linalg.cond(expected)
    j = jacobian(case, parameters(case.net), x)[:, :, in_law(case.net, structure)]
    covariance = np.einsum("nap,pq,nbq->nab", j, np.linalg.inv(expected), j)
    mean, variance = made.predictive(x, offset)
    assert_close(mean, reference.outputs(case, parameters(case.net), x)[-1] + offset, LENGTH)
    assert_close(made.covariance(x), covariance, LENGTH, condition=condition)
    assert_close(variance, np.einsum("naa->na", covariance), LENGTH, condition=condition)
    theta = np.asarray(ravel_pytree(params)[0])[in_law(case.net, structure)]
    evidence = (
        log_likelihood(case, parameters(case.net), rows)
        + scipy.stats.norm(0, PRIOR**-0.5).logpdf(theta).sum()
        - np.linalg.slogdet(expected)[1] / 2
        + len(theta) / 2 * np.log(2 * np.pi)
    )
    assert_close(made.log_marginal_likelihood(), evidence, LENGTH)
    gamma = len(theta) - PRIOR * np.trace(np.linalg.inv(expected))
    assert_close(made.effective_parameters(), gamma, LENGTH, condition=condition)


@pytest.mark.parametrize("structure", ["kfac", "last_layer", "full"])
def test_draws_have_mean_theta_and_the_inverse_of_the_precision_for_covariance(float64, structure):
    """Whitened by the dense Cholesky factor every second moment is that of the identity; the rest stays."""
    params, rows, _ = setting(BERNOULLI)
    expected = precision(BERNOULLI, parameters(BERNOULLI.net), rows, structure)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.jit(jax.vmap(make(BERNOULLI, structure).sample))(keys)
    moved = np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(drawn)) - np.asarray(ravel_pytree(params)[0])
    some = in_law(BERNOULLI.net, structure)
    assert not np.delete(moved, np.r_[some], axis=1).any()
    white = moved[:, some] @ np.linalg.cholesky(expected)
    assert_mean_close(white, np.zeros(len(expected)))
    assert_mean_close(np.einsum("sp,sq->spq", white, white), np.eye(len(expected)))


# Bayesian linear regression, in closed form.

RNG = np.random.default_rng(3)
X, TIMES, K = RNG.normal(size=(12, 3)), np.array([1, 2, 0, 3] * 3), 2
Y = X @ RNG.normal(size=(3, K)) + 0.5 + 0.4 * RNG.normal(size=(12, K))
LINEAR = lr_nn.linear_regression(3, K)
DESIGN, TARGETS = np.repeat(np.c_[X, np.ones(12)], TIMES, axis=0), np.repeat(Y, TIMES, axis=0)


def ridge(prior, noise):
    """θ*, its Λ for one output, and the rows that an integer weight stands for."""
    matrix = DESIGN.T @ DESIGN / noise + prior * np.eye(4)
    theta = np.linalg.solve(matrix, DESIGN.T @ TARGETS / noise)
    return (lr_nn.Layer(jnp.asarray(theta[:3]), jnp.asarray(theta[3])),), matrix


def bayesian_regression(structure, prior, noise):
    """The posterior at the ridge estimate; rows of weight zero have no numbers for targets."""
    rows = lr_nn.Batch(X, np.where(TIMES[:, None] > 0, Y, np.nan), TIMES.astype(float))
    return laplace.posterior(LINEAR, ridge(prior, noise)[0], rows, structure, prior, noise=noise)


def log_evidence(hyperparameters):
    """log N(y; 0, σ² I + X̃ X̃ᵀ / τ) of all outputs, as a function of (log τ, log σ²)."""
    prior, noise = jnp.exp(hyperparameters)
    covariance = noise * jnp.eye(len(DESIGN)) + DESIGN @ DESIGN.T / prior
    law = jax.scipy.stats.multivariate_normal
    return sum(law.logpdf(jnp.asarray(y), jnp.zeros(len(y)), covariance) for y in TARGETS.T)


@pytest.mark.parametrize("structure", ["kfac", "last_layer", "full"])
def test_bayesian_linear_regression_is_exact_and_integer_weights_are_duplicated_rows(float64, structure):
    made, (_, matrix) = bayesian_regression(structure, 0.4, 0.2), ridge(0.4, 0.2)
    x = np.c_[X[:3], np.ones(3)]
    variance = np.einsum("ni,ij,nj->n", x, np.linalg.inv(matrix), x)
    assert_close(made.covariance(X[:3]), variance[:, None, None] * np.eye(K), LENGTH, condition=np.linalg.cond(matrix))
    assert_close(made.log_marginal_likelihood(), log_evidence(np.log([0.4, 0.2])), LENGTH)


def test_refitting_and_maximizing_the_evidence_in_turn_ends_at_the_maximum_of_the_exact_evidence(float64):
    prior, noise = 3.0, 3.0
    for _ in range(30):
        best = laplace.maximize_evidence(bayesian_regression("kfac", prior, noise))
        prior, noise = best.prior, best.noise
    point = jnp.log(jnp.array([prior, noise]))
    slope, curved = jax.jit(lambda point: (jax.grad(log_evidence)(point), jax.hessian(log_evidence)(point)))(point)
    assert np.abs(np.linalg.solve(curved, slope)).max() < 1e-9
    assert (np.linalg.eigvalsh(curved) < 0).all()
    assert_close(best.log_marginal_likelihood(), log_evidence(point), LENGTH)


@pytest.mark.parametrize("start", [(1e-6, 1e-6), (1e6, 1e6), (np.inf, 1.0)])
@pytest.mark.parametrize("structure", ["kfac", "last_layer"])
def test_the_maximum_satisfies_mackays_equations_from_every_start(float64, structure, start):
    case = CASES["squared_error, tanh, 2 layers"]
    params, rows, _ = setting(case)
    best = laplace.maximize_evidence(make(case, structure, prior=start[0], noise=start[1]))
    gamma = best.effective_parameters()
    theta = np.asarray(ravel_pytree(params)[0])[in_law(case.net, structure)]
    assert 0 < gamma < len(theta)
    assert_close(best.prior, gamma / (theta @ theta), LENGTH, condition=1e3)
    outputs = rows.weight.sum() * case.net.sizes[-1]
    assert_close(best.noise, 2 * float(best.loss) / (outputs - gamma), LENGTH, condition=1e3)
    for factor in (0.9, 1.1):
        for other in (replace(best, prior=factor * best.prior), replace(best, noise=factor * best.noise)):
            assert other.log_marginal_likelihood() < best.log_marginal_likelihood()
    alone = laplace.maximize_evidence(replace(best, prior=1.0, noise=0.5), over=("prior",))
    assert alone.noise == 0.5 and alone.log_marginal_likelihood() < best.log_marginal_likelihood()


# Invariants.


@pytest.mark.parametrize("structure", ["kfac", "diagonal", "full"])
def test_rows_of_a_file_read_in_blocks_and_in_any_order_give_the_posterior_of_the_arrays(
    float64, monkeypatch, structure
):
    _, rows, x = setting(BERNOULLI)
    made = make(BERNOULLI, structure)
    order = np.array([3, 1, 6, 0, 2, 5, 4])
    monkeypatch.setattr(curvature_sums, "BLOCK_SIZE", 3 * sum(BERNOULLI.net.sizes))
    streamed = make(BERNOULLI, structure, Arrays(*(a[order] for a in rows)))
    assert_close(streamed.covariance(x), made.covariance(x), LENGTH, condition=100)
    assert_close(streamed.log_marginal_likelihood(), made.log_marginal_likelihood(), LENGTH)


@pytest.mark.parametrize("structure", ["kfac", "full"])
def test_predictions_in_blocks_of_rows_are_those_of_the_rows(float64, monkeypatch, structure):
    made, x = make(BERNOULLI, structure), np.random.default_rng(0).normal(size=(5, 4))
    parts = [made.covariance(x[:2]), made.covariance(x[2:4]), made.covariance(x[4:])]
    monkeypatch.setattr(spectra, "BLOCK_SIZE", 2 * made.spectrum.numbers_per_row(BERNOULLI.net))
    assert_close(made.covariance(x), np.concatenate(parts), LENGTH)


def test_rows_over_an_explicit_mesh_give_the_law_of_the_rows():
    over = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    rows = batch(BERNOULLI, 16)
    params, placed = on_device((parameters(BERNOULLI.net), rows), np.float32)
    placed = jax.tree.map(lambda a: jax.device_put(a, NamedSharding(over, P("rows"))), placed)
    made, spread = (laplace.posterior(BERNOULLI.net, params, data) for data in (rows, placed))
    assert_close(spread.covariance(placed.x), made.covariance(rows.x), LENGTH, condition=10)


@pytest.mark.parametrize("structure", ["diagonal", "last_layer"])
def test_an_infinite_prior_is_a_point(float64, structure):
    params, _, x = setting(BERNOULLI)
    made = replace(make(BERNOULLI, structure), prior=np.inf)
    assert not np.asarray(made.predictive(x).variance).any()
    assert_trees_close(made.sample(jax.random.key(0)), params)
    expected = lr_nn.predict(BERNOULLI.net, params, x)
    assert_close(made.probabilities(x), expected)
    assert_close(made.monte_carlo_mean(x, jax.random.key(0), samples=5), expected, LENGTH)
    assert made.effective_parameters() == 0 and made.log_marginal_likelihood() == -np.inf


# Probabilities.


def quadrature(function, mean, variance):
    """E[function(η)], η ~ N(mean, variance), by 60 Gauss-Hermite nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    eta = mean[..., None] + np.sqrt(variance)[..., None] * nodes
    return function(eta) @ weights / np.sqrt(2 * np.pi)


def test_probabilities_of_labels_are_near_their_integral_and_monte_carlo_converges_to_it(float64):
    x = setting(BERNOULLI)[2]
    made = make(BERNOULLI, "full")
    mean, variance = map(np.asarray, made.predictive(x))
    exact = quadrature(scipy.special.expit, mean, variance)
    assert_close(made.probabilities(x), scipy.special.expit(mean / np.sqrt(1 + np.pi * variance / 8)), LENGTH)
    assert np.abs(np.asarray(made.probabilities(x)) - exact).max() < 0.02
    # The variance of a probability is at most 1/4.
    drawn = made.monte_carlo_mean(x, jax.random.key(1), samples=10_000)
    assert np.abs(np.asarray(drawn) - exact).max() < 5 * 0.5 / 100


def test_where_the_variance_overflows_a_probability_is_nan():
    made = small()
    assert np.isfinite(made.probabilities(np.full((1, 2), 1e10, np.float32))).all()
    assert np.isnan(made.probabilities(np.full((1, 2), 1e25, np.float32))).all()


def test_probabilities_of_classes_scale_each_logit_and_monte_carlo_uses_their_covariance(float64):
    case = CASES["categorical, 1 layer, no bias"]
    x = setting(case)[2]
    made = make(case, "full")
    mean, covariance = np.asarray(made.predictive(x)[0]), np.asarray(made.covariance(x))
    scale = np.sqrt(1 + np.pi / 8 * np.einsum("naa->na", covariance))
    assert_close(made.probabilities(x), scipy.special.softmax(mean / scale, axis=1), LENGTH)
    rng = np.random.default_rng(0)
    eta = np.stack([rng.multivariate_normal(m, c, size=20_000) for m, c in zip(mean, covariance, strict=True)])
    exact = scipy.special.softmax(eta, axis=2).mean(axis=1)
    drawn = np.asarray(made.monte_carlo_mean(x, jax.random.key(1), samples=10_000))
    assert np.abs(drawn - exact).max() < 5 * 0.5 / 100
    assert_close(drawn.sum(axis=1), np.ones(3), 10_000)


def test_monte_carlo_of_counts_has_the_mean_of_the_lognormal_law(float64):
    case = CASES["poisson, elu, 2 layers, no bias"]
    x, made = setting(case)[2], replace(make(case, "kfac"), prior=20.0)
    mean, variance = map(np.asarray, made.predictive(x))
    rate = np.exp(mean + variance / 2)
    drawn = np.asarray(made.monte_carlo_mean(x, jax.random.key(1), samples=10_000))
    assert (np.abs(drawn - rate) < 5 * rate * np.sqrt(np.expm1(variance) / 10_000)).all()


# Numbers and refusals.


def test_float32_on_the_device_agrees_and_a_posterior_is_a_pytree():
    with jax.enable_x64(True):
        expected = np.asarray(make(BERNOULLI, "kfac").covariance(setting(BERNOULLI)[2]))
    params, rows, x = setting(BERNOULLI)
    made = laplace.posterior(BERNOULLI.net, params, rows, prior=PRIOR)
    assert_close(jax.jit(lambda law, x: law.covariance(x))(made, x), expected, LENGTH, condition=100)
    half = laplace.posterior(BERNOULLI.net, on_device(params, jnp.bfloat16), rows, prior=PRIOR)
    assert half.predictive(x).variance.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(half.sample(jax.random.key(0)))} == {jnp.dtype(jnp.bfloat16)}


def test_parameters_that_diverged_give_nan_and_no_error():
    net = lr_nn.poisson_regression(1)
    params = (lr_nn.Layer(np.full((1, 1), 1e3, np.float32), np.zeros(1, np.float32)),)
    made = laplace.posterior(net, params, lr_nn.Batch(np.ones((3, 1)), np.ones(3)))
    assert np.isnan(made.predictive(np.ones((1, 1))).variance).all()
    assert np.isnan(laplace.maximize_evidence(made).prior)


def test_a_loss_through_an_activation_has_the_evidence_of_its_inner_law(float64):
    """Through the identity nothing changes; through another activation the noise is still that of the targets."""
    case = CASES["squared_error, tanh, 2 layers"]
    inner = lr_nn.losses.through(lr_nn.activations.identity, losses.squared_error)
    same = replace(case, net=lr_nn.mlp(case.net.sizes, case.net.hidden, inner))
    assert_close(make(same, "full", noise=0.3).log_marginal_likelihood(), make(case, "full").log_marginal_likelihood())


def small(**keywords):
    rows = lr_nn.Batch(np.eye(2), np.array([0.0, 1.0]))
    net = keywords.pop("net", lr_nn.logistic_regression(2))
    params = tuple(lr_nn.Layer(np.ones(shape, np.float32), np.ones(shape[1], np.float32)) for shape in net.shapes)
    return laplace.posterior(net, params, keywords.pop("data", rows), **keywords)


def zeros():
    rows = lr_nn.Batch(np.eye(2), np.array([0.0, 1.0]))
    net = lr_nn.logistic_regression(2)
    return laplace.posterior(net, lr_nn.init(net, jax.random.key(0)), rows)


HUBER = lr_nn.Network((2, 1), (), losses.huber(1.0))
LARGE = lr_nn.mlp((2, 2000, 20, 1))
REFUSALS = {
    "structure": (lambda: small(structure="kron"), "structure must be one of .*'kfac'.*; got 'kron'"),
    "prior": (lambda: small(prior=0.0), "prior must be positive; got 0"),
    "priors": (lambda: small(prior=np.ones(3)), r"prior must be a single number; got shape \(3,\)"),
    "noise": (lambda: small(noise=2.0), "noise is the variance of the squared error; leave it 1 for bernoulli"),
    "size": (lambda: small(net=LARGE, structure="full"), "keeps a square matrix of 46041 parameters, more than 8192"),
    "no weight": (
        lambda: small(data=Arrays(np.eye(2), np.zeros(2), np.zeros(2))),
        "weight is zero for every example; at least one must be positive",
    ),
    "a bad row of a file": (
        lambda: small(data=Arrays(np.eye(2), np.array([0.0, 2.0]))),
        "targets of a bernoulli loss must be 0 or 1.*; got 2 at row 1",
    ),
    "probabilities": (
        lambda: small(net=lr_nn.linear_regression(2)).probabilities(np.eye(2)),
        "probabilities are of a bernoulli or categorical loss; for squared_error use predictive",
    ),
    "evidence": (lambda: small(net=HUBER).log_marginal_likelihood(), "the evidence needs a likelihood: .*; got huber"),
    "over": (lambda: laplace.maximize_evidence(small(), over=("noise",)), r"over must be \('prior',\)"),
    "zeros": (lambda: laplace.maximize_evidence(zeros()), "no maximum: all parameters are zero.*; train them first"),
}


@pytest.mark.parametrize(("call", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
