"""The log evidence log p(y) ≈ log p(y | θ*) + log p(θ*) - ½ log det Λ + (P/2) log 2π, and its maximum, in NumPy.

    E(τ, σ²) = -L/σ² - (N/2) log 2πσ² - C - τ‖θ*‖²/2 - ½ Σ_j log(1 + λ_j / (σ²τ))

L = Σ_i s_i ℓ_i; N = Σ_i s_i k for the squared error, else 0, with σ² = 1; C the log normaliser of counts; P
random parameters, whose value is θ*. With γ = Σ_j λ_j / (λ_j + σ²τ), the effective number of parameters,

    ∂E/∂log τ = (γ - τ‖θ*‖²) / 2,     ∂E/∂log σ² = L/σ² - (N - γ)/2:

MacKay (1992), section 4.4. In (log τ, log σ²) E is a sum of concave functions: it has one maximum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# A Newton step in log τ and log σ² is at most this long: E changes its curvature by a bounded factor along it.
LONGEST_STEP = 3.0
# The search ends after a step this short: the next one is about its square, below rounding.
SHORTEST_STEP = 1e-9
# A step is not halved if its predicted gain is less than this fraction of |E|: rounding of E hides such a gain.
LEAST_GAIN = 1e-10
MAX_STEPS = 200


class Evidence(NamedTuple):
    """E as a function of τ and σ², by its constants λ (P,), ‖θ*‖², L, C and N."""

    eigenvalues: np.ndarray
    squared_norm: float
    loss: float
    log_normaliser: float
    observations: float

    def value(self, prior: float, noise: float) -> float:
        """E(τ, σ²)."""
        fit = self.loss / noise + self.observations / 2 * np.log(2 * np.pi * noise) + self.log_normaliser
        shrinkage = prior * self.squared_norm if self.squared_norm else 0.0  # also for τ = ∞
        return float(-fit - shrinkage / 2 - np.log1p(self.eigenvalues / (noise * prior)).sum() / 2)

    def effective_parameters(self, prior: float, noise: float) -> float:
        """γ."""
        return float(self._shares(prior, noise).sum())

    def maximum(self, prior: float, noise: float, tune_noise: bool) -> tuple[float, float]:
        """(τ, σ²) with the largest E, by Newton's method from the given ones; σ² stays without `tune_noise`.

        NaN where an eigenvalue is NaN, or after `MAX_STEPS`.
        """
        free = slice(0, 2 if tune_noise else 1)
        point = np.log([prior, noise])
        for _ in range(MAX_STEPS):
            slope, curvature = self._derivatives(*np.exp(point))
            step = np.zeros(2)
            step[free] = np.linalg.solve(-curvature[free, free], slope[free])
            step *= LONGEST_STEP / max(LONGEST_STEP, float(np.linalg.norm(step)))
            before = self._at(point)
            while slope @ step > LEAST_GAIN * abs(before) and self._at(point + step) < before:
                step /= 2
            point = point + step
            if np.abs(step).max() <= SHORTEST_STEP:
                return tuple(np.exp(point).tolist())
        return np.nan, np.nan if tune_noise else noise

    def _at(self, point: np.ndarray) -> float:
        return self.value(*np.exp(point))

    def _shares(self, prior: float, noise: float) -> np.ndarray:
        """λ_j / (λ_j + σ²τ), (P,)."""
        return self.eigenvalues / (self.eigenvalues + noise * prior)

    def _derivatives(self, prior: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """The gradient (2,) and Hessian (2, 2) of E in (log τ, log σ²)."""
        shares = self._shares(prior, noise)
        shrinkage, fit = prior * self.squared_norm / 2, self.loss / noise
        slope = np.array([shares.sum() / 2 - shrinkage, fit - (self.observations - shares.sum()) / 2])
        shared = (shares * (1 - shares)).sum() / 2
        return slope, -np.array([[shared + shrinkage, shared], [shared, shared + fit]])


def refuse_unbounded(evidence: Evidence, tune_noise: bool) -> None:
    """Raise ValueError where E has no maximum."""
    for name, amount, remedy in (
        ("all parameters are zero, so that every larger prior is better", evidence.squared_norm, "train them first"),
        ("the curvature is zero, so that every smaller prior is better", evidence.eigenvalues.max(), "use other data"),
        (
            "every residual is zero, so that every smaller noise is better",
            evidence.loss if tune_noise else 1.0,
            "keep the noise fixed, over=('prior',)",
        ),
    ):
        if amount == 0:
            raise ValueError(f"the evidence has no maximum: {name}; {remedy}")


def squared_norm(layers: Any) -> np.float64:
    """‖θ‖² over some layers, in float64."""
    return np.float64(sum(float(np.square(np.asarray(a, np.float64)).sum()) for a in layers))
