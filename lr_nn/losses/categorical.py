"""Exactly one class out of k."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.losses.base import Loss
from lr_nn.trees import lift


class Categorical(Loss):
    """ℓ = log Σ_c e^{η_c} - η_y: softmax cross-entropy, exactly one class; δ_L = softmax(η) - y.

    Targets are integer labels (n,) in [0, k), or one-hot rows (n, k).
    """

    name = "categorical"
    least_outputs = 2
    task = "classes"
    concordance = 2**0.5

    def constant(self, mean):
        return jnp.log(mean)

    def recession(self, y):
        """η_y - η_j may grow for every other class j."""
        n, k = y.shape
        classes = y.argmax(axis=1)
        others = (classes[:, None] + np.arange(1, k)[None]) % k
        rows = np.eye(k)[classes][:, None] - np.eye(k)[others]
        return rows, np.zeros((n, k - 1), bool)

    def mean(self, eta):
        # The exponentials of `value`, so that one pass serves value and residual.
        e = jnp.exp(eta - eta.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def value(self, eta, y):
        shifted = eta - eta.max(axis=-1, keepdims=True)
        return jnp.log(jnp.exp(shifted).sum(axis=-1)) - (self.encode(y, eta) * shifted).sum(axis=-1)

    def residual(self, eta, y):
        return self.mean(eta) - self.encode(y, eta)

    def hessian_multiply(self, eta, y, v):
        return self.fisher_multiply(eta, v)

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
        return jnp.sqrt(p).T[:, :, None] * (basis - p[None])

    def sample(self, eta, key):
        check.key(key)
        return jax.nn.one_hot(jax.random.categorical(key, eta, axis=1), eta.shape[1], dtype=eta.dtype)

    def targets(self, y, n, k, dtype=jnp.float32):
        """Labels stay integers, one-hot rows become `dtype`."""
        y = check.numeric("targets", y)
        self._shape(y, n, k)
        if y.dtype.kind == "u":  # compared with k in a dtype that holds both
            y = y.astype(jnp.int32 if isinstance(y, jax.Array) else np.int64)
        if y.ndim == 1:
            check.require(f"targets of {k} classes", y, lambda y: (y >= 0) & (y < k), f"integers in [0, {k})")
        else:
            check.require(
                f"targets of {k} classes", y, lambda y: ((y == 0) | (y == 1)).all(1) & (y.sum(1) == 1), "one-hot rows"
            )
        return jnp.asarray(y, np.int32 if y.ndim == 1 else dtype)

    def encode(self, y, eta):
        y = jnp.asarray(y)
        self._shape(y, *eta.shape)
        if y.ndim == 1:
            return jax.nn.one_hot(y.astype(jnp.int32), eta.shape[1], dtype=eta.dtype)
        return y.astype(eta.dtype)

    def _shape(self, y, n, k):
        if y.shape != (n,):
            super()._shape(y, n, k)
        elif y.dtype.kind not in "biu":
            raise ValueError(
                f"targets of {k} classes must be integers in [0, {k}) or one-hot rows ({n}, {k}); "
                f"got dtype {y.dtype}: use y.astype(int)"
            )
