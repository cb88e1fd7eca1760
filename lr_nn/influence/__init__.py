"""Influence functions: what each training example does to the fitted parameters and to the loss of test examples.

At a minimum θ of the cost J = Σ_i s_i ℓ_i / n + P(θ), n = Σ_i s_i, with gradients g_i = ∇ℓ_i and Hessian H of J,

    ∂θ/∂s_i   = -(H + λI)⁻¹ g_i / n
    ∂ℓ_t/∂s_i = -g_tᵀ (H + λI)⁻¹ g_i / n     positive: more of example i raises the loss of test example t

are the derivatives by the weight of example i, the divisor n held fixed: Cook & Weisberg (1980), Koh & Liang (2017),
eq. 2. λ is `damping`, on every parameter. The curvature H, penalty included, is one of

    "kfac"     A ⊗ G a layer: one eigendecomposition of the factors serves all examples
    "ekfac"    the diagonal of the GGN in the eigenbasis of A ⊗ G, for one more pass: Grosse et al. (2023)
    "ggn"      the generalised Gauss-Newton matrix: conjugate gradients for each g
    "hessian"  the exact Hessian: conjugate gradients for each g; NaN where H + λI is not positive definite

For a one-layer model with a canonical loss the last two are the same. A deep network is rarely at a minimum; with the
GGN the results are those of the network linearised in its parameters: Bae et al. (2022). The exact fits without each
row of a one-layer model are `inference.leave_one_out`.

`train` and `test` are batches in memory. g_t and g_i are gradients of single examples, unweighted. The L2 penalty
enters H; an L1 penalty, which has no curvature, is refused. Results have the precision of the parameters. Conjugate
gradients end at a relative residual of `tol`, by default 1e-6, or 1e-10 for parameters of float64; where they do not
within `max_steps`, the result is NaN. In float32 keep λ above 1e-5 of the largest curvature.
"""

from lr_nn.influence.effects import deletion, parameter_change, self_influence, tracin, upweighting

__all__ = ["deletion", "parameter_change", "self_influence", "tracin", "upweighting"]


def __dir__() -> list[str]:
    return __all__
