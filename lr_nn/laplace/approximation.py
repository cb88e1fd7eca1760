"""The posterior, its predictions, draws and evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check, losses
from lr_nn.admission import admit_inputs
from lr_nn.backward import loss_part
from lr_nn.curvature.operators import MOST_PARAMETERS
from lr_nn.data import Rows
from lr_nn.laplace.curvature_sums import (
    Structure,
    curvature_sums,
    in_scope,
    likelihood,
    n_in_scope,
)
from lr_nn.laplace.evidence import Evidence, refuse_unbounded, squared_norm
from lr_nn.laplace.spectra import Spectrum, moments, spectrum_of
from lr_nn.network import Network, check_network
from lr_nn.trees import accumulator, common_dtype, compiled, dtypes_of, register_class
from lr_nn.types import Batch, Params

LIKELIHOODS = (losses.squared_error, losses.bernoulli, losses.categorical, losses.poisson)


class Predictive(NamedTuple):
    """The normal distribution of η, output by output: `mean` (n, k) and `variance` (n, k), without the noise."""

    mean: jax.Array
    variance: jax.Array


def posterior(
    net: Network,
    params: Params,
    data: Batch | Rows,
    structure: Structure = "kfac",
    prior: ArrayLike = 1.0,
    *,
    noise: ArrayLike = 1.0,
) -> Posterior:
    """N(θ*, Λ⁻¹) with Λ = Σ_i s_i J_iᵀ F_i J_i / σ² + τ I at θ* = `params`, sums over the examples of `data`.

    structure: the form in which Λ is kept.

    - "kfac": Kronecker factors, a block A ⊗ G a layer with n A ⊗ G + τ I inverted exactly in their eigenbasis; exact
      for one layer with the squared error. Ritter, Botev & Barber (2018).
    - "diagonal": the diagonal of the GGN.
    - "last_layer": the full GGN of the last layer; the other parameters are fixed.
    - "full": the full GGN. As for "last_layer", at most 8,192 parameters, of which it keeps a square matrix.

    prior: τ > 0, the precision of every parameter, biases too; ∞ is a point at θ*. noise: σ² > 0, of the squared error
    only. data: a Batch, or Rows that are read once in blocks. Integer weights are duplicated rows.

    Where the curvature is not finite every result is NaN. Raises ValueError or TypeError for data that do not fit, an
    unknown structure, a prior or noise that is not positive, a noise of another loss, or too many parameters, and
    NotImplementedError for a loss that states no Fisher.

    >>> import jax.numpy as jnp, lr_nn
    >>> from lr_nn import laplace
    >>> net = lr_nn.linear_regression(1)
    >>> batch = lr_nn.Batch(x=jnp.array([[1.0], [-1.0]]), y=jnp.array([1.0, -1.0]))
    >>> params = (lr_nn.Layer(jnp.array([[0.5]]), jnp.zeros(1)),)
    >>> mean, variance = laplace.posterior(net, params, batch, prior=2.0).predictive(jnp.array([[4.0]]))
    >>> print(f"{mean.item():.4f} {variance.item():.4f}")  # 4² / (2 + τ) + 1 / (2 + τ)
    2.0000 4.2500
    """
    check_network(net)
    net.loss.require("fisher_factor")
    check.on_host("laplace.posterior", (params, data if isinstance(data, tuple) else None))
    if structure not in get_args(Structure):
        raise ValueError(f"structure must be one of {get_args(Structure)}; got {structure!r:.100}")
    size = n_in_scope(net, structure)
    if structure in ("full", "last_layer") and size > MOST_PARAMETERS:
        raise ValueError(
            f"structure={structure!r} keeps a square matrix of {size} parameters, more than {MOST_PARAMETERS}; "
            "use 'kfac' or 'diagonal'"
        )
    precision, variance = _hyperparameter("prior", prior), _hyperparameter("noise", noise)
    if likelihood(net.loss) != losses.squared_error and variance != 1:
        raise ValueError(f"noise is the variance of the squared error; leave it 1 for {net.loss.name}")
    sums = curvature_sums(net, params, data, structure)
    dtype = accumulator(common_dtype(*jax.tree.leaves(dtypes_of(params))))
    return Posterior(
        net,
        params,
        spectrum_of(sums, structure, dtype),
        precision,
        variance,
        sums.weight,
        sums.loss,
        sums.log_normaliser,
        structure,
    )


def _hyperparameter(name: str, value: ArrayLike) -> np.float64:
    check.on_host("laplace.posterior", value)
    number = check.numeric(name, value)
    if np.ndim(number):
        raise ValueError(f"{name} must be a single number; got shape {np.shape(number)}")
    check.require(name, number, lambda v: v > 0, "positive")
    return np.float64(number)


@register_class
@dataclass(frozen=True, eq=False)
class Posterior:
    """N(params, Λ⁻¹), a pytree. For another τ or σ²: `dataclasses.replace(posterior, prior=..., noise=...)`.

    `prior` is τ and `noise` σ²; `spectrum` the curvature without them; `weight`, `loss` and `log_normaliser` are
    Σ s_i, Σ s_i ℓ_i and, for counts, Σ s_i log y_i!.
    """

    net: Network
    params: Params
    spectrum: Spectrum
    prior: Any
    noise: Any
    weight: Any
    loss: Any
    log_normaliser: Any
    structure: Structure = field(metadata={"static": True})

    def predictive(self, x: ArrayLike, offset: ArrayLike | None = None) -> Predictive:
        """Mean η(θ*) and variance diag(J Λ⁻¹ Jᵀ) of η, each (n, k), without the noise σ² of an observation.

        "kfac" and "diagonal" compute the variance from activations and deltas, never a Jacobian (k, p); "full" and
        "last_layer" make it for a block of rows at a time. Raises ValueError or TypeError for inputs that do not fit.
        """
        return _predictive(self, admit_inputs(self.net, self.params, x, offset))

    def covariance(self, x: ArrayLike) -> jax.Array:
        """The covariance J Λ⁻¹ Jᵀ of the k outputs of η at every row, (n, k, k), without the noise."""
        return _covariance(self, admit_inputs(self.net, self.params, x))

    def probabilities(self, x: ArrayLike, offset: ArrayLike | None = None) -> jax.Array:
        """Predictive probabilities (n, k) by the probit approximation, m and v the mean and variance of η.

        Of labels sigmoid(κ m), κ = 1 / √(1 + π v / 8), MacKay (1992); of classes softmax(κ ∘ m) with a κ for each
        class from its own variance, the extended MacKay approximation of Gibbs (1998). For classes it ignores that
        outputs covary, and is not invariant to a random shift common to all; `monte_carlo_mean` is.

        Raises ValueError for a loss that is neither bernoulli nor categorical, else as `predictive` does.
        """
        if self.net.loss not in (losses.bernoulli, losses.categorical):
            raise ValueError(
                f"probabilities are of a bernoulli or categorical loss; for {self.net.loss.name} use predictive or "
                "monte_carlo_mean"
            )
        return _probabilities(self, admit_inputs(self.net, self.params, x, offset))

    def monte_carlo_mean(
        self, x: ArrayLike, key: jax.Array, *, samples: int = 1000, offset: ArrayLike | None = None
    ) -> jax.Array:
        """E[mean of the response], (n, k): the average of the inverse link over draws of η.

        Probabilities for labels and classes, the rate for counts. The draws of one row have the full covariance of its
        outputs. Its standard error falls as 1/√samples. Raises NotImplementedError for a loss that states no mean,
        TypeError for a `key` that is no random key, else as `predictive` does.
        """
        self.net.loss.require("mean")
        check.key(key)
        samples = check.positive_integer("samples", samples)
        return _monte_carlo_mean(self, admit_inputs(self.net, self.params, x, offset), key, samples)

    def sample(self, key: jax.Array) -> Params:
        """A draw of the parameters, like `params`; with "last_layer" the other layers stay at θ*.

        Many: `jax.vmap(posterior.sample)(jax.random.split(key, m))`. Raises TypeError for what is no random key.
        """
        check.key(key)
        return _sample(self, key)

    def log_marginal_likelihood(self) -> float:
        """log p(y | θ*) + log p(θ*) - ½ log det Λ + (P/2) log 2π, with all constants; P parameters are random.

        The likelihood is that of squared_error (with σ²), bernoulli, categorical or poisson (with log y!), or of one of
        these `through` an activation. Exact for linear regression where θ* is the optimum under the same τ and σ².
        Raises ValueError for another loss.
        """
        return self._evidence().value(float(self.prior), float(self.noise))

    def effective_parameters(self) -> float:
        """γ = Σ_j λ_j / (λ_j + σ² τ): the number of directions that the data determine, between 0 and P."""
        return self._evidence().effective_parameters(float(self.prior), float(self.noise))

    def _evidence(self) -> Evidence:
        check.on_host("the evidence", self)
        loss = likelihood(self.net.loss)
        if loss not in LIKELIHOODS:
            known = ", ".join(loss.name for loss in LIKELIHOODS)
            raise ValueError(f"the evidence needs a likelihood: a loss of {known}; got {self.net.loss.name}")
        scope = in_scope(self.params, self.structure)
        values = jax.tree.leaves(self.spectrum.eigenvalues())
        outputs = self.net.sizes[-1] if loss == losses.squared_error else 0
        return Evidence(
            np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in values]),
            float(squared_norm(jax.tree.leaves(scope))),
            float(self.loss),
            float(self.log_normaliser),
            float(self.weight) * outputs,
        )


Hyperparameter = Literal["prior", "noise"]


def maximize_evidence(posterior: Posterior, *, over: tuple[Hyperparameter, ...] | None = None) -> Posterior:
    """The posterior with the prior τ, and noise σ² of the squared error, that maximise its evidence at the same θ*.

    over: ("prior",) keeps the noise; None takes both for the squared error. The evidence is concave in (log τ, log σ²)
    and its maximum is found to rounding by Newton's method, on the eigenvalues alone: no pass over the data. At the
    maximum τ = γ / ‖θ*‖² and σ² = 2 L / (N - γ), MacKay (1992). θ* is then no longer the optimum under τ: fit again,
    make the posterior again, and repeat, for MacKay's joint optimum.

    Raises ValueError where the evidence has no maximum (θ* = 0, no curvature, or residuals that are all zero), and as
    `Posterior.log_marginal_likelihood` does.
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior must be what laplace.posterior returns; got {type(posterior).__name__}")
    gaussian = likelihood(posterior.net.loss) == losses.squared_error
    over = over if over is not None else ("prior", "noise") if gaussian else ("prior",)
    if "prior" not in over or set(over) - set(get_args(Hyperparameter)) or ("noise" in over and not gaussian):
        raise ValueError(f"over must be ('prior',), or ('prior', 'noise') for the squared error; got {over!r:.100}")
    evidence, tune_noise = posterior._evidence(), "noise" in over
    refuse_unbounded(evidence, tune_noise)
    prior = float(posterior.prior) if np.isfinite(posterior.prior) else 1.0
    prior, noise = evidence.maximum(prior, float(posterior.noise), tune_noise)
    return replace(posterior, prior=np.float64(prior), noise=np.float64(noise))


@compiled
def _predictive(law: Posterior, inputs: Batch) -> Predictive:
    return Predictive(*_moments(law, inputs, full=False))


@compiled
def _covariance(law: Posterior, inputs: Batch) -> jax.Array:
    return _moments(law, inputs, full=True)[1]


@compiled
def _probabilities(law: Posterior, inputs: Batch) -> jax.Array:
    mean, variance = _moments(law, inputs, full=False)
    # NaN where the variance overflows: ∞ would be a probability of a half.
    known = jnp.isfinite(variance).astype(mean.dtype)
    return loss_part(law.net, "mean", mean.shape, mean / jnp.sqrt(1 + jnp.pi / 8 * variance) * (known / known))


@partial(compiled, static_argnames="samples")
def _monte_carlo_mean(law: Posterior, inputs: Batch, key: jax.Array, samples: int) -> jax.Array:
    mean, covariance = _moments(law, inputs, full=True)
    values, vectors = jnp.linalg.eigh(covariance)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]

    def add_draw(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        z = jax.random.normal(key, mean.shape, mean.dtype)
        eta = mean + jnp.einsum("nkr,nr->nk", root, z)
        return total + loss_part(law.net, "mean", eta.shape, eta), None

    return jax.lax.scan(add_draw, jnp.zeros_like(mean), jax.random.split(key, samples))[0] / samples


@compiled
def _sample(law: Posterior, key: jax.Array) -> Params:
    dtype = accumulator(common_dtype(*jax.tree.leaves(dtypes_of(law.params))))
    return law.spectrum.draw(key, law.spectrum.variances(law.prior, law.noise, dtype), law.net, law.params)


def _moments(law: Posterior, inputs: Batch, full: bool) -> tuple[jax.Array, jax.Array]:
    return moments(law.net, law.params, law.spectrum, law.prior, law.noise, inputs, full)
