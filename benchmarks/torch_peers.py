"""BackPACK and Opacus on CPU PyTorch, as their documentation sets them up: optional peers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

THREADS = (1, 2)
Peers = dict[str, Callable[[], Any]]


def installed() -> bool:
    """Are PyTorch, BackPACK and Opacus (the extra `peers`) there?"""
    return all(find_spec(name) for name in ("torch", "backpack", "opacus"))


def per_example_peers(params: Any, x: jax.Array, y: jax.Array, *, max_norm: float) -> Peers:
    """Norms and second moments with the gradient by BackPACK, clipped gradients by Opacus."""
    from backpack.extensions import BatchL2Grad, SumGradSquared

    found = {
        "gradient by PyTorch": _gradient(params, x, y),
        "gradient + all norms by BackPACK": _backpack(params, x, y, BatchL2Grad),
        "gradient + second moment by BackPACK": _backpack(params, x, y, SumGradSquared),
        "clipped gradient by Opacus, ghost clipping": _ghost(params, x, y, max_norm),
    }
    return threaded(found)


def curvature_peers(params: Any, x: jax.Array, y: jax.Array, v: Any) -> Peers:
    """Products, the exact diagonal and K-FAC factors by BackPACK."""
    from backpack.extensions import KFAC, DiagGGNExact
    from backpack.hessianfree.ggnvp import ggn_vector_product
    from backpack.hessianfree.hvp import hessian_vector_product

    model, criterion, inputs, targets = _model(params, x, y)
    tangents = [_tensor(leaf) for layer in v for leaf in (layer.w.T, layer.b)]

    def hessian():
        return hessian_vector_product(criterion(model(inputs), targets), list(model.parameters()), tangents)

    def ggn():
        eta = model(inputs)
        return ggn_vector_product(criterion(eta, targets), eta, model, tangents)

    found = {
        "gradient by PyTorch": _gradient(params, x, y),
        "Hessian product by BackPACK": hessian,
        "GGN product by BackPACK": ggn,
        "GGN diagonal, exact by BackPACK": _backpack(params, x, y, DiagGGNExact),
        "K-FAC factors, 1 sample by BackPACK": _backpack(params, x, y, lambda: KFAC(mc_samples=1)),
    }
    return threaded(found)


def hessian_diagonal_peers(params: Any, x: jax.Array, y: jax.Array) -> Peers:
    """The exact diagonal of the Hessian by BackPACK."""
    from backpack.extensions import DiagHessian

    return threaded({"Hessian diagonal, exact by BackPACK": _backpack(params, x, y, DiagHessian)})


def agree(ours: Any, theirs: list[Any]) -> None:
    """Raise AssertionError unless both computed the same, layer by layer: PyTorch keeps weights transposed."""
    leaves = [leaf for layer in ours for leaf in (layer.w.T, layer.b)]
    for own, other in zip(leaves, theirs, strict=True):
        expected = other.detach().numpy()
        np.testing.assert_allclose(np.asarray(own), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def threaded(found: Peers) -> Peers:
    """Each peer at each number of threads."""
    import torch

    def at(run: Callable[[], Any], threads: int) -> Callable[[], Any]:
        def measured():
            torch.set_num_threads(threads)
            return run()

        return measured

    return {f"{name}, {k} thread{'s' * (k > 1)}": at(run, k) for name, run in found.items() for k in THREADS}


def _tensor(a: Any):
    import torch

    return torch.from_numpy(np.array(a))


def _model(params: Any, x: jax.Array, y: jax.Array):
    """The same network and data in PyTorch: sigmoid layers, mean cross-entropy."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for layer in params:
        linear = nn.Linear(*layer.w.shape)
        with torch.no_grad():
            linear.weight.copy_(_tensor(layer.w.T))
            linear.bias.copy_(_tensor(layer.b))
        layers += [linear, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), _tensor(x), _tensor(y).long()


def _gradient(params: Any, x: jax.Array, y: jax.Array) -> Callable[[], Any]:
    model, criterion, inputs, targets = _model(params, x, y)

    def run():
        model.zero_grad()
        criterion(model(inputs), targets).backward()
        return [p.grad for p in model.parameters()]

    return run


def _backpack(params: Any, x: jax.Array, y: jax.Array, extension: Callable[[], Any]) -> Callable[[], Any]:
    """The gradient and, beside it, what the extension saves in its field of each parameter."""
    from backpack import backpack, extend

    model, criterion, inputs, targets = _model(params, x, y)
    model, criterion = extend(model), extend(criterion)
    field = extension().savefield

    def run():
        model.zero_grad()
        with backpack(extension()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of hooks that see no gradient of the inputs
            criterion(model(inputs), targets).backward()
        return [getattr(p, field) for p in model.parameters()]

    return run


def _ghost(params: Any, x: jax.Array, y: jax.Array, max_norm: float) -> Callable[[], Any]:
    """Ghost clipping without noise: norms by the identity, then a second backward pass."""
    import torch
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model, criterion, inputs, targets = _model(params, x, y)
    module = GradSampleModuleFastGradientClipping(model, max_grad_norm=max_norm, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=max_norm,
        expected_batch_size=len(inputs),
    )
    loss = DPLossFastGradientClipping(module, optimizer, criterion)

    def run():
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss(module(inputs), targets).backward()
        optimizer.pre_step()
        return [p.grad for p in module.parameters()]

    return run
