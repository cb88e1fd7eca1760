"""The one tolerance table: a multiple of the dtype's epsilon, growing with the length of the reduction.

Rounding errors of a sum of `length` terms grow like √length (Higham & Mary, 2019); a problem of a known condition
number multiplies them by it. The relative tolerance holds entry by entry; the absolute one is relative to the
largest magnitude of the reference array, for what cancels.
"""

import jax
import jax.numpy as jnp
import numpy as np

MULTIPLE = 4
STANDARD_ERRORS = 5


def tolerance(dtype, length: int = 1, condition: float = 1) -> float:
    """4 eps (1 + √length) condition."""
    return MULTIPLE * float(jnp.finfo(dtype).eps) * (1 + length**0.5) * condition


def assert_close(actual, desired, length: int = 1, dtype=None, condition: float = 1) -> None:
    """`actual` is `desired` up to the rounding of its own dtype (or of `dtype`) in sums of `length` terms."""
    tol = tolerance(dtype or jnp.result_type(actual), length, condition)
    actual, desired = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    assert actual.shape == desired.shape
    assert not np.isnan(desired).any(), "the reference is NaN"
    finite = np.abs(desired[np.isfinite(desired)])
    np.testing.assert_allclose(actual, desired, rtol=tol, atol=tol * finite.max(initial=0))


def assert_trees_close(actual, desired, length: int = 1, dtype=None) -> None:
    """`assert_close` leaf by leaf, for trees of one structure."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(desired)):
        assert_close(a, b, length, dtype)


def assert_mean_close(samples, expected) -> None:
    """The mean over the first axis is within five standard errors of `expected` (and some entry varies)."""
    samples, expected = np.asarray(samples, np.float64), np.asarray(expected, np.float64)
    error = samples.std(axis=0) / len(samples) ** 0.5
    assert samples.shape[1:] == expected.shape and (error > 0).any()
    slack = tolerance(np.float32) * np.abs(expected).max()
    assert (np.abs(samples.mean(axis=0) - expected) <= STANDARD_ERRORS * error + slack).all()
