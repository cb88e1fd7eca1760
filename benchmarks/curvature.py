"""Products, diagonals and factors of curvature beside one gradient, and beside the best autodiff forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

import lr_nn
from benchmarks import harness, torch_peers
from benchmarks.harness import compare, compiled
from benchmarks.mlp import peer_cost
from lr_nn import curvature, losses

SHAPES = (((784, 100, 10), 512), ((784, 512, 512, 10), 512))


def logits(params, x):
    """η as a user of jax.nn writes it."""
    for layer in params[:-1]:
        x = jax.nn.sigmoid(x @ layer.w + layer.b)
    return x @ params[-1].w + params[-1].b


def hessian_by_autodiff(params, x, y, v):
    """`jax.jvp` of `jax.grad`: the Hessian-vector product of the JAX documentation."""
    return jax.jvp(lambda params: jax.grad(peer_cost)(params, x, y), (params,), (v,))[1]


def ggn_by_autodiff(params, x, y, v):
    """Jᵀ H J v by `jax.linearize` and its transpose, the Hessian of the loss in η by `jax.jvp` of `jax.grad`."""
    eta, push = jax.linearize(lambda params: logits(params, x), params)
    pull = jax.linear_transpose(push, params)

    def slope(eta):
        return jax.grad(lambda eta: optax.softmax_cross_entropy_with_integer_labels(eta, y).mean())(eta)

    return pull(jax.jvp(slope, (eta,), (push(v),))[1])[0]


def ggn_by_vjp(params, x, y, v):
    """The same with `jax.jvp` and `jax.vjp`, the network run twice."""
    eta, eta_dot = jax.jvp(lambda params: logits(params, x), (params,), (v,))

    def slope(eta):
        return jax.grad(lambda eta: optax.softmax_cross_entropy_with_integer_labels(eta, y).mean())(eta)

    return jax.vjp(lambda params: logits(params, x), params)[1](jax.jvp(slope, (eta,), (eta_dot,))[1])[0]


def by_hand(net: lr_nn.Network, key: jax.Array) -> dict[str, Callable]:
    """Each quantity with the forward and backward pass that it needs."""

    def of_batch(function: Callable) -> Callable:
        return lambda params, x, y, v: function(params, lr_nn.Batch(x, y), v)

    return {
        "gradient": of_batch(lambda params, batch, v: lr_nn.gradient(lr_nn.backprop(net, params, batch))),
        "Hessian product": of_batch(lambda params, batch, v: curvature.hessian(net, params, batch) @ v),
        "GGN product": of_batch(lambda params, batch, v: curvature.ggn(net, params, batch) @ v),
        "GGN diagonal, exact": of_batch(lambda params, batch, v: curvature.ggn(net, params, batch).diagonal()),
        "K-FAC factors, 1 sample": of_batch(
            lambda params, batch, v: curvature.kfac(net, params, batch, kind="sampled", key=key).factors
        ),
    }


def by_autodiff() -> dict[str, Callable]:
    """The products as a user of JAX's transformations writes them."""
    return {
        "Hessian product by jvp of grad": hessian_by_autodiff,
        "GGN product by linearize": ggn_by_autodiff,
        "GGN product by jvp and vjp": ggn_by_vjp,
    }


def _setting(sizes: tuple[int, ...], n: int):
    """Network, parameters, a direction and data of one case."""
    net = lr_nn.mlp(sizes, loss=losses.categorical)
    key = jax.random.key(0)
    params, v = lr_nn.init(net, key), lr_nn.init(net, jax.random.key(1))
    x, y = jax.random.uniform(key, (n, sizes[0])), jax.random.randint(key, (n,), 0, sizes[-1])
    return f"{'-'.join(map(str, sizes))}, {n} rows", net, (params, x, y, v)


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Time and temporary memory relative to our gradient."""
    found = []
    for sizes, n in SHAPES[: 1 if small else None]:
        case, net, data = _setting(sizes, n)
        functions = by_hand(net, jax.random.key(0)) | by_autodiff()
        competitors = {name: compiled(function, *data) for name, function in functions.items()}
        found += compare(case, competitors, "gradient", rounds, n=n)
    return found


def torch_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """The same beside BackPACK; nothing where it is not installed."""
    found = []
    for sizes, n in SHAPES[: 1 if small else None] if torch_peers.installed() else ():
        case, net, data = _setting(sizes, n)
        ours = by_hand(net, jax.random.key(0))
        peers = torch_peers.curvature_peers(*data)
        for name in ("Hessian product", "GGN product", "GGN diagonal, exact"):
            torch_peers.agree(ours[name](*data), peers[f"{name} by BackPACK, 1 thread"]())
        competitors = {name: compiled(function, *data) for name, function in ours.items()}
        found += compare(case, {**competitors, **peers}, "gradient", rounds, n=n)
    return found


def system_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Conjugate gradients on the damped GGN, the same number of products; nothing else differs."""
    found = []
    for sizes, n in SHAPES[: 1 if small else None]:
        case, net, data = _setting(sizes, n)

        def ours(params, x, y, v, net=net):
            # A tolerance of 1e-30 is not met: every step is taken. (The result is then NaN, and costs the same.)
            op = curvature.ggn(net, params, lr_nn.Batch(x, y))
            return curvature.solve(op, v, DAMPING, tol=1e-30, max_steps=STEPS)

        competitors: dict[str, Any] = {
            "GGN system": compiled(ours, *data),
            "GGN system by jax.scipy's cg": compiled(_cg_by_autodiff, *data),
        }
        found += compare(case, competitors, "GGN system", rounds // 3 + 1, n=n)
    return found


DAMPING, STEPS = 1e-2, 20


def _cg_by_autodiff(params, x, y, v):
    """jax.scipy's conjugate gradients on the product by `jax.linearize`, made once."""
    eta, push = jax.linearize(lambda params: logits(params, x), params)
    pull = jax.linear_transpose(push, params)

    def slope(eta):
        return jax.grad(lambda eta: optax.softmax_cross_entropy_with_integer_labels(eta, y).mean())(eta)

    _, hessian = jax.linearize(slope, eta)

    def damped(u):
        return jax.tree.map(lambda product, u: product + DAMPING * u, pull(hessian(push(u)))[0], u)

    return jax.scipy.sparse.linalg.cg(damped, v, tol=1e-30, maxiter=STEPS)[0]


def diagonal_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """The exact diagonal of the Hessian beside BackPACK; nothing where it is not installed."""
    if not torch_peers.installed():
        return []
    case, net, (params, x, y, _) = _setting(*SHAPES[0])

    def ours(params, x, y):
        return curvature.hessian(net, params, lr_nn.Batch(x, y)).diagonal()

    peers = torch_peers.hessian_diagonal_peers(params, x, y)
    torch_peers.agree(ours(params, x, y), peers["Hessian diagonal, exact by BackPACK, 1 thread"]())
    competitors: dict[str, Any] = {"Hessian diagonal, exact": compiled(ours, params, x, y), **peers}
    return compare(case, competitors, "Hessian diagonal, exact", rounds, n=len(x))


SECTIONS = {
    "system": (system_rows, "20 steps of conjugate gradients on the damped GGN; time relative to ours"),
    "diagonal": (diagonal_rows, "The exact diagonal of the Hessian; time relative to ours"),
    "curvature": (rows, "Curvature; time relative to our own gradient"),
    "torch": (torch_rows, "Curvature beside BackPACK; time relative to our own gradient"),
}

main = harness.command("curvature", SECTIONS)
