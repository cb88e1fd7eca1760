"""The Laplace approximation: the normal distribution N(θ*, Λ⁻¹) of the parameters, from the curvature at θ*.

    Λ = Σ_i s_i J_iᵀ F_i J_i / σ² + τ I,     J_i = ∂η_i/∂θ,  F_i the Fisher weight of the loss in η

The first term is the generalised Gauss-Newton matrix (GGN) of the *summed* weighted likelihood; τ is the precision of
a normal prior on all parameters, biases too; σ² is the noise variance of the squared error, y ~ N(η, σ² I), and 1 for
every other loss. MacKay (1992); Daxberger et al. (2021).

    posterior = laplace.posterior(net, params, data, structure="kfac", prior=1.0)
    mean, variance = posterior.predictive(x)          of η, without the noise
    posterior.probabilities(x)                        by the probit approximation
    posterior = laplace.maximize_evidence(posterior)  τ and σ² by the evidence: MacKay (1992), Immer et al. (2021)

η is linearised in the parameters, η(θ) ≈ η(θ*) + J (θ - θ*), which makes it normal with covariance J Λ⁻¹ Jᵀ and is what
the GGN assumes: Immer, Korzepa & Bauer (2021). For linear regression with the squared error everything is exact, if θ*
is the optimum under the same τ and σ²: the ridge fit with l2 = τ σ² / Σ s_i, its bias penalised as well.

The curvature is kept by its eigenvalues λ and eigenvectors, so that log det Λ = Σ_j log(λ_j / σ² + τ), solves and
draws cost the same for every τ and σ².
"""

from lr_nn.laplace.approximation import Posterior, Predictive, maximize_evidence, posterior

__all__ = ["Posterior", "Predictive", "maximize_evidence", "posterior"]


def __dir__() -> list[str]:
    return __all__
