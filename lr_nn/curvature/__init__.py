"""Curvature of the cost from one forward and one backward pass.

`ggn`, `hessian` and `empirical_fisher` return symmetric matrices (p, p) over the parameters, as operators: weighted
means over examples, Σ_i s_i (·) / Σ_i s_i, plus the l2 strength of a penalty on the diagonal entries of the weights.
`kfac` returns Kronecker factors as an operator, with solves, the log-determinant, samples and the eigenbasis.

    op @ v                                      products; v like the parameters or flat, one vector or many
    op.dense()  op.diagonal()  op.trace()       exact; op.traces(), one per example, of a mean over examples
    op + other  op - other  -op  c * op         operators again; also op.damped(damping) = op + damping · I
    op.shape  op.dtype  op.to_scipy()           for the sparse linear algebra of SciPy

`lanczos`, `largest`, `solve`, `hutchinson_trace` and `hutchinson_diagonal` take any of these operators and ask it only
for products. An operator is a pytree that keeps its parameters and its pass over the batch. `ntk` and `ntk_trace` are
kernels between examples.
"""

from lr_nn.curvature.gauss_newton import ggn
from lr_nn.curvature.hutchinson import hutchinson_diagonal, hutchinson_trace
from lr_nn.curvature.kronecker import kfac
from lr_nn.curvature.linear_systems import solve
from lr_nn.curvature.loss_hessian import hessian
from lr_nn.curvature.outer_products import empirical_fisher
from lr_nn.curvature.spectrum import lanczos, largest
from lr_nn.curvature.tangent_kernel import ntk, ntk_trace

__all__ = [
    "empirical_fisher",
    "ggn",
    "hessian",
    "hutchinson_diagonal",
    "hutchinson_trace",
    "kfac",
    "lanczos",
    "largest",
    "ntk",
    "ntk_trace",
    "solve",
]


def __dir__() -> list[str]:
    return __all__
