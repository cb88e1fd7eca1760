"""Autodiff twins: forward and cost in float64, written plainly from the equations, differentiated by `jax.grad`.

Nothing here calls lr_nn, so that an error of the forward pass is seen as well as one of the backward pass.
"""

from functools import wraps

import jax
import jax.numpy as jnp
import numpy as np


def in_float64(function):
    """Run `function(case, *arrays)` with every float in float64 and hand back NumPy."""

    def widen(a):
        a = np.asarray(a)
        return jnp.asarray(a, np.float64 if jnp.issubdtype(a.dtype, jnp.floating) else None)

    @wraps(function)
    def wrapped(case, *args):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, function(case, *jax.tree.map(widen, args)))

    return wrapped


def compiled(function):
    """One program instead of many small ones, where vmap makes operations that no other test shares."""
    return jax.jit(function, static_argnums=0)


def _outputs(case, params, x, shifts=None):
    """a_0, ..., a_{L-1}, η with z_l = a_{l-1} w_l + b_l + shift_l."""
    a, outputs = x, [x]
    twins = [*case.hidden, lambda z: z]
    for i, ((w, b), twin) in enumerate(zip(params, twins)):
        z = jnp.einsum("ni,io->no", a, w)
        if b is not None:
            z = z + jnp.broadcast_to(b, z.shape)
        if shifts is not None:
            z = z + shifts[i]
        a = twin(z)
        outputs.append(a)
    return tuple(outputs)


def _losses(case, params, batch, shifts=None):
    eta = _outputs(case, params, batch.x, shifts)[-1]
    if batch.offset is not None:
        eta = eta + batch.offset.reshape(eta.shape)
    return case.loss.twin(eta, batch.y)


def _cost(params, case, batch, l1, l2):
    losses = _losses(case, params, batch)
    s = jnp.ones_like(losses) if batch.weight is None else batch.weight
    penalty = sum(l1 * jnp.abs(w).sum() + l2 / 2 * jnp.square(w).sum() for w, _ in params)
    return (s * losses).sum() / s.sum() + penalty


@in_float64
def outputs(case, params, x):
    """The activations a_0, ..., a_{L-1} and, last, η without an offset."""
    return _outputs(case, params, x)


@in_float64
def losses(case, params, batch):
    """ℓ_i, (n,)."""
    return _losses(case, params, batch)


@in_float64
def value_and_gradient(case, params, batch, l1=0.0, l2=0.0):
    """J and ∂J/∂params."""
    return jax.value_and_grad(_cost)(params, case, batch, l1, l2)


@in_float64
def deltas(case, params, batch):
    """∂ℓ_i/∂z_l by perturbing every z_l: (δ_1, ..., δ_L)."""
    shifts = tuple(jnp.zeros((batch.x.shape[0], w.shape[1])) for w, _ in params)
    return jax.grad(lambda shifts: _losses(case, params, batch, shifts).sum())(shifts)


@in_float64
@compiled
def jacobians(case, params, x):
    """∂η_ij/∂z_l for every layer, as (k, n, d_l)."""
    shifts = tuple(jnp.zeros((x.shape[0], w.shape[1])) for w, _ in params)
    full = jax.jacobian(lambda shifts: _outputs(case, params, x, shifts)[-1])(shifts)
    return jax.tree.map(lambda j: jnp.einsum("ikid->kid", j), full)


@in_float64
def input_gradient(case, params, batch):
    """∂ℓ_i/∂x_i, (n, d)."""
    return jax.grad(lambda x: _losses(case, params, batch._replace(x=x)).sum())(batch.x)


@in_float64
def loss_value(loss, eta, y):
    """ℓ_i of a row of cases.LOSSES at η."""
    return loss.twin(eta, y)


@in_float64
def loss_residual(loss, eta, y):
    """∂ℓ_i/∂η, (n, k)."""
    return jax.grad(lambda eta: loss.twin(eta, y).sum())(eta)


@in_float64
@compiled
def loss_hessian(loss, eta, y):
    """∂²ℓ_i/∂η², (n, k, k)."""
    return jnp.einsum("iaib->iab", jax.hessian(lambda eta: loss.twin(eta, y).sum())(eta))
