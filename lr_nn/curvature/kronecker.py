"""Kronecker factors: of each layer's Fisher block E[aaᵀ ⊗ δδᵀ] the product A ⊗ G of A = E[aaᵀ] and G = E[δδᵀ].

Martens & Grosse (2015). The bias is the weight of a constant input 1, the last coordinate of A. Both factors are
means over examples, Σ_i s_i (·) / Σ_i s_i; n times a factor is the usual sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, singledispatch
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.backward import relative_weights, sum_over_seeds, sweep
from lr_nn.curvature.blocks import by_layer, homogeneous, matmul, split
from lr_nn.curvature.gauss_newton import sampled_residuals
from lr_nn.curvature.kronecker_eigenbasis import Eigenbasis, EigenFactors
from lr_nn.curvature.operators import Solvable
from lr_nn.curvature.vectors import Linear
from lr_nn.network import Network
from lr_nn.row_sums import counted, weighted
from lr_nn.trees import accumulator, cast, common_dtype, compiled, dtypes_of, register_class
from lr_nn.types import Backprop, Batch, Params

Kind = Literal["exact", "sampled", "empirical"]


@singledispatch
def kfac(
    net: Any,
    params: Params,
    batch: Batch,
    kind: Kind = "exact",
    key: jax.Array | None = None,
    samples: int = 1,
) -> Kfac:
    """Kronecker factors of the Fisher of every layer, as an operator.

    kind: what G is a mean of. "exact": of the Fisher F_i in η, a backward pass for each of the k columns of its
    factor. "sampled": an unbiased estimate of that, from `samples` targets an example, drawn from the model by `key`.
    "empirical": the errors at the targets as they are, as in the empirical Fisher; no further backward pass.

    `kfac(bp)`, with a pass `bp` of `taps`, returns empirical factors of the matrices of any model: see `TapKfac`.

    Raises ValueError or TypeError for data that do not fit the network, weights that are all zero, another `kind`, a
    missing `key`, or less than one sample.
    """
    batch = admit(net, params, batch)
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}; got {kind!r:.100}")
    if kind == "sampled":
        check.key(key)
    samples = check.positive_integer("samples", samples)
    return _kfac(net, params, batch, key if kind == "sampled" else None, kind, samples)


class Factors(NamedTuple):
    """`a` (d_{l-1} + 1, d_{l-1} + 1), without the + 1 where there is no bias, and `g` (d_l, d_l) of one layer."""

    a: jax.Array
    g: jax.Array


@register_class
@dataclass(frozen=True, eq=False)
class Kfac(Solvable):
    """The block-diagonal matrix of A_l ⊗ G_l, one block a layer, with the pass that its factors were made of.

    `factors`: one `Factors(a, g)` a layer, in float32 for half precision; for a running mean of them use
    `dataclasses.replace(op, factors=...)`. `damping` is λ > 0. It is split between the factors,

        A + π√λ I,  G + √λ/π I,  π² = (tr A / dim A) / (tr G / dim G),

    by their scales: Martens & Grosse (2015), section 6.3. A damping below the rounding of the factors may leave them
    indefinite; the results are then NaN.
    """

    net: Network
    params: Params
    bp: Backprop
    factors: tuple[Factors, ...]
    key: jax.Array | None
    kind: Kind = field(metadata={"static": True})
    samples: int = field(metadata={"static": True})

    def solve(self, v: Params | ArrayLike, damping: ArrayLike) -> Any:
        """(A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹ layer by layer, V the weights of `v` with the bias as last row.

        `v` like the parameters or flat, such as the gradient. Raises ValueError for a damping that is not positive,
        and for a `v` of another shape as `multiply` does.
        """
        return super().solve(v, damping)

    def logdet(self, damping: ArrayLike) -> jax.Array:
        """log det of the damped matrix, Σ_l log det((A + π√λ I) ⊗ (G + √λ/π I)), a scalar.

        log det(A ⊗ G) = dim G log det A + dim A log det G. With the sign changed and halved it is the entropy of the
        Gaussian of `sample`, up to a constant: Ritter, Botev & Barber (2018). Raises ValueError for a damping that is
        not positive.
        """
        return _logdet(self, check.positive("damping", damping))

    def sample(self, key: jax.Array, damping: ArrayLike) -> Params:
        """A draw from the normal law of mean 0 and covariance the inverse of the damped matrix, like the parameters.

        L_A⁻ᵀ Z L_G⁻¹ with Z of independent standard normals, L_A and L_G the Cholesky factors: a Laplace
        approximation with n times the factors is that of Ritter, Botev & Barber (2018), eq. 8. Raises ValueError for a
        damping that is not positive, TypeError for a `key` that is no random key.
        """
        check.key(key)
        return _sample(self, key, check.positive("damping", damping))

    def eigenbasis(self) -> Eigenbasis:
        """The eigenvectors of the factors, and the second moments mean_i s_i Σ_c (U_Aᵀ a_i δ_icᵀ U_G)² along them.

        The diagonal that is best in this basis replaces the products of eigenvalues: EK-FAC, George et al. (2018).
        Errors δ as the `kind` of the factors says; sampled ones at the same targets. The factors may come from another
        batch, by `dataclasses.replace`.
        """
        return _eigenbasis(self)

    def _product(self, v: Params) -> Params:
        """A V G layer by layer, in the dtype of the factors."""
        return by_layer(lambda factors, v: matmul(matmul(factors.a, v), factors.g), self.factors, v)

    def _diagonal(self) -> Params:
        """diag(A) diag(G)ᵀ in every layer."""
        return tuple(
            split(jnp.diagonal(a)[:, None] * jnp.diagonal(g)[None], layer)
            for (a, g), layer in zip(self.factors, self.params)
        )

    def _trace(self) -> jax.Array:
        """Σ_l tr A_l tr G_l."""
        terms = [jnp.trace(a) * jnp.trace(g) for a, g in self.factors]
        dtype = common_dtype(*(term.dtype for term in terms))
        return jnp.stack([term.astype(dtype) for term in terms]).sum()

    def _solver(self, damping: jax.Array) -> Linear:
        """(A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹ layer by layer, by the Cholesky factors."""
        roots = _roots(self, damping)
        return lambda v: by_layer(solve_by_roots, roots, v)

    def _preconditioner(self, damping: jax.Array) -> Linear:
        """The same by the inverse factors: products with them take a fifth of the time of triangular solves."""

        def inverse(root: jax.Array) -> jax.Array:
            return cho_solve((root, True), jnp.eye(len(root), dtype=root.dtype))

        inverses = [Factors(inverse(roots.a), inverse(roots.g)) for roots in _roots(self, damping)]
        return lambda v: by_layer(lambda factors, v: matmul(matmul(factors.a, v), factors.g), inverses, v)

    def _mean_over_targets(self, function: Callable[[tuple[jax.Array, ...]], Any]) -> Any:
        """Σ_c function(deltas of seed c), c the columns of the Fisher factor; the mean over c if they are samples."""
        if self.kind == "empirical":
            return function(self.bp.deltas)
        sampled = None if self.key is None else sampled_residuals(self.bp, self.key, self.samples)
        seeds = self.net.loss.fisher_factor(self.bp.eta) if sampled is None else sampled
        total = sum_over_seeds(self.net, self.params, self.bp.forward, seeds, function)
        return total if sampled is None else jax.tree.map(lambda leaf: leaf / self.samples, total)


@partial(compiled, static_argnames=("kind", "samples"))
def _kfac(net: Network, params: Params, batch: Batch, key: jax.Array | None, kind: Kind, samples: int) -> Kfac:
    made = Kfac(net, params, sweep(net, params, batch), (), key, kind, samples)
    bp = made.bp
    weight, total = relative_weights(bp)

    def moment(rows: jax.Array) -> jax.Array:
        rows = rows.astype(accumulator(rows.dtype))
        if weight is None:
            rows = rows / jnp.sqrt(total).astype(rows.dtype)
            return matmul(rows.T, rows)
        # Not √s on both sides: its derivative at a weight of zero is infinite.
        return matmul(weighted(rows, weight / total).T, counted(rows, weight[:, None]))

    outputs = made._mean_over_targets(lambda deltas: tuple(map(moment, deltas)))
    inputs = [moment(homogeneous(a, bp.bias)) for a in bp.activations]
    dtypes = [common_dtype(a.dtype, g.dtype) for a, g in zip(inputs, outputs)]
    factors = tuple(Factors(a.astype(dtype), g.astype(dtype)) for a, g, dtype in zip(inputs, outputs, dtypes))
    return replace(made, factors=factors)


def damped(factors: Factors, damping: jax.Array) -> Factors:
    """(A + π√λ I, G + √λ/π I), with π = 1 where a trace vanishes."""
    a, g = factors
    root = jnp.sqrt(damping).astype(a.dtype)
    pi = jnp.sqrt((jnp.trace(a) / a.shape[0]) / (jnp.trace(g) / g.shape[0]))
    pi = jnp.where(jnp.isfinite(pi) & (pi > 0), pi, jnp.ones_like(pi))
    return Factors(
        a + pi * root * jnp.eye(a.shape[0], dtype=a.dtype), g + root / pi * jnp.eye(g.shape[0], dtype=g.dtype)
    )


def damped_roots(factors: Factors, damping: jax.Array) -> Factors:
    """The lower Cholesky factors L_A and L_G of the damped factors."""
    return Factors(*map(jnp.linalg.cholesky, damped(factors, damping)))


def solve_by_roots(roots: Factors, v: jax.Array) -> jax.Array:
    """(L_A L_Aᵀ)⁻¹ V (L_G L_Gᵀ)⁻¹."""
    return cho_solve((roots.g, True), cho_solve((roots.a, True), v).T).T


def logdet_by_roots(roots: Factors) -> jax.Array:
    """log det(L_A L_Aᵀ ⊗ L_G L_Gᵀ)."""
    of_a, of_g = (jnp.log(jnp.diagonal(root)).sum() for root in roots)
    return 2 * (len(roots.g) * of_a + len(roots.a) * of_g)


def draw_by_roots(roots: Factors, z: jax.Array) -> jax.Array:
    """L_A⁻ᵀ Z L_G⁻¹: for standard normal Z its covariance is the inverse of L_A L_Aᵀ ⊗ L_G L_Gᵀ."""
    left = solve_triangular(roots.a, z, trans=1, lower=True)
    return solve_triangular(roots.g, left.T, trans=1, lower=True).T


def _roots(op: Kfac, damping: jax.Array) -> list[Factors]:
    return [damped_roots(factors, damping) for factors in op.factors]


@compiled
def _logdet(op: Kfac, damping: jax.Array) -> jax.Array:
    terms = [logdet_by_roots(roots) for roots in _roots(op, damping)]
    dtype = common_dtype(*(term.dtype for term in terms))
    return jnp.stack([term.astype(dtype) for term in terms]).sum()


@compiled
def _sample(op: Kfac, key: jax.Array, damping: jax.Array) -> Params:
    found = []
    for factors, layer, layer_key in zip(op.factors, op.params, jax.random.split(key, len(op.factors))):
        z = jax.random.normal(layer_key, (len(factors.a), len(factors.g)), factors.a.dtype)
        found.append(split(draw_by_roots(damped_roots(factors, damping), z), layer))
    return cast(tuple(found), dtypes_of(op.params))


@compiled
def _eigenbasis(op: Kfac) -> Eigenbasis:
    vectors = [(jnp.linalg.eigh(a)[1], jnp.linalg.eigh(g)[1]) for a, g in op.factors]
    moments = moments_along(op, vectors)
    return Eigenbasis(op.net, op.params, tuple(EigenFactors(*u, each) for u, each in zip(vectors, moments)))


def moments_along(op: Kfac, axes: Sequence[tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
    """mean_i s_i Σ_c (U_Aᵀ ã_i)_j² (U_Gᵀ δ_ic)_k² of every layer, (d_{l-1} + 1, d_l), for any matrices (U_A, U_G)."""
    bp = op.bp
    weight, total = relative_weights(bp)

    def squares(deltas: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(jnp.square(matmul(delta.astype(u.dtype), u)) for delta, (_, u) in zip(deltas, axes))

    moments = []
    for (u, _), a, along_g in zip(axes, bp.activations, op._mean_over_targets(squares)):
        along_a = jnp.square(matmul(homogeneous(a, bp.bias).astype(u.dtype), u))
        finite_g = along_g if weight is None else counted(along_g, weight[:, None])
        moments.append(matmul(weighted(along_a, weight).T, finite_g) / total.astype(u.dtype))
    return moments
