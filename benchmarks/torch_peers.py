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


def transformer_peers(params: Any, tokens: jax.Array, *, heads: int, max_norm: float) -> Peers:
    """The gradient, and the clipped gradient by Opacus, of the transformer of `benchmarks.taps`."""
    from torch import nn

    model, criterion = _transformer(params, heads), nn.CrossEntropyLoss()
    ids, targets = _tensor(tokens[:, :-1]).long().contiguous(), _tensor(tokens[:, 1:]).long().reshape(-1)

    def of_loss(logits: Any) -> tuple:
        return logits.reshape(len(targets), -1), targets

    def gradient():
        model.zero_grad()
        criterion(*of_loss(model(ids))).backward()
        return [p.grad for p in model.parameters()]

    ghost = _ghost_of(_transformer(params, heads), criterion, ids, of_loss, max_norm, shape=tuple(ids.shape))
    return threaded({"gradient by PyTorch": gradient, "clipped gradient by Opacus, ghost clipping": ghost})


def _transformer(params: Any, heads: int):
    """The transformer of `benchmarks.taps` as a module; the parameters of the head come last."""
    import torch
    from torch import nn
    from torch.nn.functional import gelu, scaled_dot_product_attention

    def dense(layer: dict[str, Any]) -> nn.Linear:
        linear = nn.Linear(*layer["w"].shape)
        with torch.no_grad():
            linear.weight.copy_(_tensor(layer["w"].T))
            linear.bias.copy_(_tensor(layer["b"]))
        return linear

    class Block(nn.Module):
        def __init__(self, block: dict[str, Any], width: int) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
            self.qkv, self.out, self.up, self.down = (dense(block[name]) for name in ("qkv", "out", "up", "down"))

        def forward(self, h: Any) -> Any:
            n, positions, width = h.shape
            qkv = self.qkv(self.before(h)).reshape(n, positions, 3, heads, width // heads)
            q, k, v = (qkv[:, :, part].transpose(1, 2) for part in range(3))
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.out(mixed.transpose(1, 2).reshape(n, positions, width))
            return h + self.down(gelu(self.up(self.between(h)), approximate="tanh"))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = params["tokens"].shape[1]
            self.tokens = nn.Embedding.from_pretrained(_tensor(params["tokens"]), freeze=False)
            self.positions = nn.Embedding.from_pretrained(_tensor(params["positions"]), freeze=False)
            self.blocks = nn.ModuleList([Block(block, width) for block in params["blocks"]])
            self.last, self.head = nn.LayerNorm(width, eps=1e-6), dense(params["head"])

        def forward(self, ids: Any) -> Any:
            h = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]).repeat(len(ids), 1))
            for block in self.blocks:
                h = block(h)
            return self.head(self.last(h))

    return Transformer()


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
    model, criterion, inputs, targets = _model(params, x, y)
    return _ghost_of(model, criterion, inputs, lambda z: (z, targets), max_norm)


def _ghost_of(model: Any, criterion: Any, inputs: Any, of_loss: Callable[[Any], tuple], max_norm: float, **shape: Any):
    """Ghost clipping of a model; `of_loss` the arguments of Opacus' loss at its outputs."""
    import torch
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

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
            loss(*of_loss(module(inputs)), **shape).backward()
        optimizer.pre_step()
        return [p.grad for p in module.parameters()]

    return run
