"""Inference after a fit: standard errors, intervals, tests, influence, and Firth's fit of separated data.

For one-layer networks with a likelihood, fitted without a penalty or with an L2 one.
"""

from lr_nn.inference.bias_reduction import firth
from lr_nn.inference.diagnostics import Influence, influence, leave_one_out
from lr_nn.inference.estimates import Summary, summary
from lr_nn.inference.hypotheses import Test, likelihood_ratio_test, score_test, wald_test
from lr_nn.inference.margins import MarginalEffects, marginal_effects
from lr_nn.inference.profile import profile_intervals

__all__ = [
    "Influence",
    "MarginalEffects",
    "Summary",
    "Test",
    "firth",
    "influence",
    "leave_one_out",
    "likelihood_ratio_test",
    "marginal_effects",
    "profile_intervals",
    "score_test",
    "summary",
    "wald_test",
]


def __dir__() -> list[str]:
    return __all__
