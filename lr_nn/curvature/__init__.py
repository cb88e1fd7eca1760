"""Curvature from one backward pass: products, diagonals, Kronecker factors and the tangent kernel.

Every matrix, in whatever form, is a mean over examples, Σ_i s_i (·) / Σ_i s_i, of a curvature of ℓ_i; `ggn.trace`,
`ntk` and `ntk_trace` are per example. No penalty is added: an L2 penalty adds its strength to the diagonal of the
weights. All raise ValueError for a `Backprop` of another network and for weights that are negative, of another
length, or all zero.
"""

from lr_nn.curvature import empirical_fisher, ggn, hessian, kfac
from lr_nn.curvature.ntk import ntk, ntk_trace

__all__ = ["empirical_fisher", "ggn", "hessian", "kfac", "ntk", "ntk_trace"]
