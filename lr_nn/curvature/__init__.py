"""Curvature from one backward pass: products, diagonals, Kronecker factors and the tangent kernel.

Every function is a mean over examples, Σ_i s_i (·) / Σ_i s_i, of a curvature of ℓ_i; no penalty is added (an L2
penalty adds its strength to the diagonal of the weights).
"""

from lr_nn.curvature import empirical_fisher, ggn, hessian, kfac
from lr_nn.curvature.ntk import ntk, ntk_trace

__all__ = ["empirical_fisher", "ggn", "hessian", "kfac", "ntk", "ntk_trace"]
