"""One class out of k, or a distribution over classes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

from lr_nn import check
from lr_nn.losses.base import Loss, sqrt, where_counted
from lr_nn.trees import lift


class Categorical(Loss):
    """ℓ = Σ_c y_c (log Σ_j e^{η_j} - η_c): softmax cross-entropy;  δ_L = (Σ_c y_c) softmax(η) - y.

    Targets are integer labels (n,) in [0, k), or rows (n, k) that are distributions, |Σ_c y_c - 1| ≤ 1e-3: one-hot
    rows or soft labels. Under `jit`, where values cannot be refused, a label outside [0, k) makes every number of its
    row NaN that depends on the target.
    """

    name = "categorical"
    least_outputs = 2
    task = "classes"
    canonical = True
    shift_invariant = True
    concordance = 2**0.5

    def constant(self, mean):
        return jnp.log(mean)

    def lowest(self, y):
        """s log s - Σ_c y_c log y_c with s = Σ_c y_c: the entropy of y, 0 for one class."""
        total = y.sum(axis=1)
        return xlogy(total, total) - xlogy(y, y).sum(axis=1)

    def recession(self, y):
        """η_c - η_j may grow for the likeliest class c and every other class j, but not where y_j > 0."""
        k = y.shape[1]
        classes = y.argmax(axis=1)
        others = (classes[:, None] + np.arange(1, k)[None]) % k
        rows = np.eye(k)[classes][:, None] - np.eye(k)[others]
        return rows, np.take_along_axis(np.asarray(y), others, axis=1) > 0

    def mean(self, eta):
        # The exponentials of `value`, so that one pass serves value and residual.
        e = jnp.exp(_shifted(eta))
        return e / e.sum(axis=-1, keepdims=True)

    def value(self, eta, y):
        rows, total = self._rows(y, eta)
        shifted = _shifted(eta)
        return total * jnp.log(jnp.exp(shifted).sum(axis=-1)) - (rows * shifted).sum(axis=-1)

    def residual(self, eta, y):
        rows, total = self._rows(y, eta)
        e = jnp.exp(_shifted(eta))
        return e * (total / e.sum(axis=-1))[:, None] - rows

    def hessian_multiply(self, eta, y, v):
        """(Σ_c y_c) (diag p - p pᵀ) v."""
        _, total = self._rows(y, eta)
        return lift(total[:, None], v.ndim) * self.fisher_multiply(eta, v)

    def fisher_multiply(self, eta, v):
        """(diag p - p pᵀ) v = p ∘ (v - the mean of v under p)."""
        p = jnp.broadcast_to(lift(self.mean(eta), v.ndim), v.shape)
        return p * (v - jnp.average(v, axis=-1, weights=p, keepdims=True))

    def fisher_diagonal(self, eta):
        p = self.mean(eta)
        return p * (1 - p)

    def fisher_factor(self, eta):
        """f_c = √p_c (e_c - p)."""
        p = self.mean(eta)
        basis = jnp.eye(eta.shape[1], dtype=eta.dtype)[:, None, :]
        return sqrt(p).T[:, :, None] * (basis - p[None])

    def sample(self, eta, key):
        check.key(key)
        return jax.nn.one_hot(jax.random.categorical(key, eta, axis=1), eta.shape[1], dtype=eta.dtype)

    def targets(self, y, n, k, dtype=jnp.float32):
        """Labels stay integers, rows become `dtype`."""
        y = check.numeric("targets", y)
        self._shape(y, n, k)
        if y.dtype.kind == "u":  # compared with k in a dtype that holds both
            y = y.astype(jnp.int32 if isinstance(y, jax.Array) else np.int64)
        if y.ndim == 1:
            check.require(f"targets of {k} classes", y, lambda y: _inside(y, k), f"integers in [0, {k})")
            return check.cast(y, np.int32) if check.is_concrete(y) else _int32(y, k)
        check.require(f"targets of {k} classes", y, _distributions, "rows that are distributions (one-hot or soft)")
        return check.cast(y, dtype)

    def masked_targets(self, y, counted, k):
        labels = np.ndim(y) == 1
        valid = _inside(y, k) if labels else _distributions(y)
        return where_counted(counted | valid, y, 0 if labels else np.eye(1, k))

    def encode(self, y, eta):
        y = jnp.asarray(y)
        self._shape(y, *eta.shape)
        return y.astype(eta.dtype) if y.ndim == 2 else _encoded(y, eta.shape[1], eta.dtype)

    def target_rows(self, y, eta):
        """Labels stay labels, which need no sum over classes."""
        return jnp.asarray(y)

    def _rows(self, y, eta):
        """Rows (n, k) and Σ_c y_c (n,) of targets; of labels that is 1, or NaN outside [0, k), without a sum."""
        y, k = jnp.asarray(y), eta.shape[1]
        self._shape(y, *eta.shape)
        if y.ndim == 2:
            return y.astype(eta.dtype), y.sum(axis=1, dtype=eta.dtype)
        return _one_hot(y, k, eta.dtype), _one(y, k, eta.dtype)

    def _shape(self, y, n, k):
        if y.shape != (n,):
            super()._shape(y, n, k)
        elif y.dtype.kind not in "biu":
            raise ValueError(
                f"targets of {k} classes must be integers in [0, {k}) or one-hot rows ({n}, {k}); "
                f"got dtype {y.dtype}: use y.astype(int)"
            )


def _shifted(eta):
    """η less its maximum over classes, held constant: a shift common to all classes changes nothing.

    Were it differentiated, derivatives would depend on how it is shared among classes that tie.
    """
    return eta - jax.lax.stop_gradient(eta.max(axis=-1, keepdims=True))


def _inside(y, k):
    """Which labels are in [0, k). A narrow dtype, which may not hold k, is widened."""
    y = y.astype(np.int32) if y.dtype.itemsize < 4 else y
    return (y >= 0) & (y < k)


def _int32(y, k):
    """Labels as int32; those that int32 may not hold, -1 where they are outside [0, k)."""
    return (jnp.where(_inside(y, k), y, -1) if y.dtype.itemsize > 4 else y).astype(jnp.int32)


def _one(y, k, dtype):
    """1 / 1 = 1 for a label in [0, k), else 0 / 0 = NaN: no constant is NaN, which `jax_debug_nans` would refuse."""
    inside = _inside(y, k).astype(dtype)
    return inside / inside


def _one_hot(y, k, dtype):
    return jax.nn.one_hot(_int32(y, k), k, dtype=dtype)


@partial(jax.jit, static_argnums=(1, 2))  # one program where nothing else is compiled around it
def _encoded(y, k, dtype):
    """One-hot rows (n, k) of labels (n,); a row of NaN for a label outside [0, k)."""
    # No product: XLA turns that with a one-hot row into a choice between the factor and 0, and the NaN is lost.
    return jnp.where(_inside(y, k)[:, None], _one_hot(y, k, dtype), _one(y, k, dtype)[:, None])


def _distributions(y):
    """Which rows are distributions up to the rounding of half precision: no entry negative, |Σ_c y_c - 1| ≤ 1e-3."""
    return (y >= 0).all(axis=1) & (abs(y.sum(axis=1, dtype=np.float32) - 1) <= 1e-3)
