"""The No-U-Turn sampler on the hand-written gradient, handed to JAX by `custom_vjp` (Hoffman & Gelman, 2014).

The potential of a Bayesian logistic regression is U(θ) = Σ_i ℓ_i(θ) + ½ Σ w² / variance, n times the penalised cost.
`jax.grad(potential)` runs the gradient of lr_nn, and so does every sampler that differentiates a log density by JAX,
such as blackjax. Here it is algorithm 3 of the paper, in coordinates in which Laplace's approximation, a normal law at
the mode, is standard.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_breast_cancer

import lr_nn
from lr_nn import Batch, curvature, penalties


def potential_of(net, batch, variance):
    """U as a function of parameters, whose derivative is written by hand."""
    n = len(batch.y)
    options = net, batch, penalties.l2(1 / (n * variance))

    @jax.custom_vjp
    def potential(params):
        return n * lr_nn.cost(options[0], params, *options[1:])

    def forward(params):
        value, gradient = lr_nn.value_and_gradient(options[0], params, *options[1:])
        return n * value, jax.tree.map(lambda leaf: n * leaf, gradient)

    potential.defvjp(forward, lambda gradient, seed: (jax.tree.map(lambda leaf: seed * leaf, gradient),))
    return potential


def nuts(rng, value_and_gradient, z, samples, step):
    """Samples (samples, p) of exp(-U) by slice sampling on doubled Hamiltonian paths, and gradients per sample."""
    calls = 0

    def tree(z, r, u, sign, depth, h0):
        """The ends of a path of 2^depth steps, a point of it, how many are in the slice, and whether to go on."""
        nonlocal calls
        if depth == 0:
            calls += 1
            r = r - 0.5 * sign * step * value_and_gradient(z)[1]
            z = z + sign * step * r
            value, gradient = value_and_gradient(z)
            r = r - 0.5 * sign * step * gradient
            energy = value + 0.5 * r @ r
            return z, r, z, r, z, int(u <= h0 - energy), u < h0 - energy + 1000
        z0, r0, z1, r1, pick, n, go_on = tree(z, r, u, sign, depth - 1, h0)
        if go_on:
            far = (z0, r0) if sign < 0 else (z1, r1)
            a, b, c, d, other, m, more = tree(*far, u, sign, depth - 1, h0)
            (z0, r0) = (a, b) if sign < 0 else (z0, r0)
            (z1, r1) = (c, d) if sign > 0 else (z1, r1)
            pick = other if rng.random() < m / max(n + m, 1) else pick
            n, go_on = n + m, more and (z1 - z0) @ r0 >= 0 and (z1 - z0) @ r1 >= 0
        return z0, r0, z1, r1, pick, n, go_on

    drawn = np.empty((samples, len(z)))
    for i in range(samples):
        r = rng.normal(size=len(z))
        h0, u = value_and_gradient(z)[0] + 0.5 * r @ r, np.log(rng.random())
        z0, r0, z1, r1, n, depth, go_on = z, r, z, r, 1, 0, True
        while go_on and depth < 8:
            sign = rng.choice([-1, 1])
            a, b, c, d, pick, m, more = tree(*((z0, r0) if sign < 0 else (z1, r1)), u, sign, depth, h0)
            (z0, r0) = (a, b) if sign < 0 else (z0, r0)
            (z1, r1) = (c, d) if sign > 0 else (z1, r1)
            z = pick if more and rng.random() < m / n else z
            n, go_on, depth = n + m, more and (z1 - z0) @ r0 >= 0 and (z1 - z0) @ r1 >= 0, depth + 1
        drawn[i] = z
    return drawn, calls / samples


def main(samples=2000, features=4, rows=569, variance=10.0):
    """Posterior means and deviations of the coefficients by NUTS, and those of Laplace's approximation."""
    table = load_breast_cancer()
    x = table.data[:rows, :features]
    batch = Batch(((x - x.mean(0)) / x.std(0)).astype(np.float32), table.target[:rows])
    net = lr_nn.logistic_regression(features)
    mode = lr_nn.fit(net, batch, penalty=penalties.l2(1 / (rows * variance))).params
    mode, unravel = ravel_pytree(jax.tree.map(jnp.float32, mode))
    prior = ravel_pytree(unravel(jnp.ones_like(mode))[0]._replace(b=jnp.zeros(1)))[0] / variance
    precision = rows * curvature.ggn(net, unravel(mode), batch).dense() + jnp.diag(prior)
    root = jnp.linalg.cholesky(jnp.linalg.inv(precision))
    potential = potential_of(net, batch, variance)
    whitened = jax.jit(jax.value_and_grad(lambda z: potential(unravel(mode + root @ z)) - potential(unravel(mode))))

    def value_and_gradient(z):
        value, gradient = whitened(z.astype(np.float32))
        return float(value), np.asarray(gradient, float)

    drawn, gradients = nuts(np.random.default_rng(0), value_and_gradient, np.zeros(len(mode)), samples, 0.5)
    theta = np.asarray(mode) + drawn @ np.asarray(root).T
    result = {"mean": theta.mean(0), "deviation": theta.std(0), "mode": np.asarray(mode)}
    result |= {"Laplace": np.sqrt(np.diag(root @ root.T)), "gradients": gradients}
    print("\n".join(f"{name:10} {np.round(value, 2)}" for name, value in result.items()))
    return result


def check(result):
    """NUTS agrees with Laplace to a fraction of a deviation: n is large, so the posterior is nearly normal."""
    assert (np.abs(result["mean"] - result["mode"]) < 0.5 * result["Laplace"]).all()
    assert (np.abs(np.log(result["deviation"] / result["Laplace"])) < 0.3).all()


SMALL = {"samples": 300, "features": 2}

if __name__ == "__main__":
    main()
