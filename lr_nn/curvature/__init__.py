"""Curvature of the cost from one forward and one backward pass.

`ggn`, `hessian` and `empirical_fisher` return operators, symmetric matrices (p, p) over the parameters: `op @ v` and
`op.multiply(v)`, with `v` like the parameters or flat in the order of `ravel_pytree`, `op.dense()`, `op.diagonal()`,
`op.trace()`, and `op.traces()`, one an example. They are means over examples, Σ_i s_i (·) / Σ_i s_i, to which the l2
of a penalty adds its strength on the diagonal of the weights. `kfac` returns Kronecker factors with products, solves,
the log-determinant, samples and the eigenbasis; `ntk` and `ntk_trace` are kernels between examples. An operator is a
pytree that keeps its parameters and its pass over the batch.
"""

from lr_nn.curvature.gauss_newton import ggn
from lr_nn.curvature.kronecker import kfac
from lr_nn.curvature.loss_hessian import hessian
from lr_nn.curvature.outer_products import empirical_fisher
from lr_nn.curvature.tangent_kernel import ntk, ntk_trace

__all__ = ["empirical_fisher", "ggn", "hessian", "kfac", "ntk", "ntk_trace"]


def __dir__() -> list[str]:
    return __all__
