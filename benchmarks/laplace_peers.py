"""laplace-torch and laplax, as their documentation sets them up: optional peers of `lr_nn.laplace`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.torch_peers import threaded

Peers = dict[str, Callable[[], Any]]
# Our names of structures, and theirs: the Hessian structure and the subset of weights.
STRUCTURES = {"kfac": ("kron", "all"), "diagonal": ("diag", "all"), "full": ("full", "all")}


def torch_installed() -> bool:
    """Are PyTorch and laplace-torch there?"""
    return all(find_spec(name) for name in ("torch", "laplace"))


def laplax_installed() -> bool:
    """Is laplax there?"""
    return find_spec("laplax") is not None


def torch_fits(params: Any, x: np.ndarray, y: np.ndarray, structure: str, prior: float) -> Peers:
    """The posterior of classes by laplace-torch, each backend at 1 and 2 threads; the data are one batch."""
    return threaded(
        {f"laplace-torch, {name}": _fit(params, x, y, structure, prior, name) for name in ("curvlinops", "BackPACK")}
    )


def torch_predictions(params: Any, x: np.ndarray, y: np.ndarray, structure: str, prior: float, new: Any) -> Peers:
    """The covariance of η at `new` rows (n, k, k) by the linearised predictive of laplace-torch."""
    import torch

    law, rows = _fit(params, x, y, structure, prior, "BackPACK")(), torch.from_numpy(np.array(new))
    return threaded({"laplace-torch": lambda: law._glm_predictive_distribution(rows)[1].detach().numpy()})


def torch_tuning(params: Any, x: np.ndarray, y: np.ndarray, structure: str, prior: float) -> Peers:
    """The prior by the evidence, in the 100 steps of Adam that are the default of laplace-torch."""
    law = _fit(params, x, y, structure, prior, "BackPACK")()

    def tune():
        law.prior_precision = prior
        law.optimize_prior_precision(method="marglik")
        return law.prior_precision.item()

    return threaded({"laplace-torch, 100 steps": tune})


def _fit(params: Any, x: Any, y: Any, structure: str, prior: float, backend: str) -> Callable[[], Any]:
    import torch
    from laplace import Laplace
    from laplace.curvature import BackPackGGN, CurvlinopsGGN

    layers: list[torch.nn.Module] = []
    for layer in params:
        linear = torch.nn.Linear(*layer.w.shape, bias=layer.b is not None)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.array(layer.w.T)))
            if layer.b is not None:
                linear.bias.copy_(torch.from_numpy(np.array(layer.b)))
        layers += [linear, torch.nn.Tanh()]
    data = torch.utils.data.TensorDataset(torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y)).long())
    hessian, subset = STRUCTURES[structure]

    def run():
        law = Laplace(
            torch.nn.Sequential(*layers[:-1]),
            "classification",
            subset_of_weights=subset,
            hessian_structure=hessian,
            prior_precision=prior,
            backend={"BackPACK": BackPackGGN, "curvlinops": CurvlinopsGGN}[backend],
        )
        law.fit(torch.utils.data.DataLoader(data, batch_size=len(data)))
        return law

    return run


def laplax_peers(params: Any, x: np.ndarray, y: np.ndarray, structure: str, prior: float, new: Any) -> tuple[Any, Any]:
    """Two functions by laplax: the posterior, and the variance of η at `new` rows, compiled once.

    Its curvature product is compiled, as its argument `curv_mv_jit` offers, again for every posterior.
    """
    from laplax import laplace
    from laplax.eval.pushforward import lin_pred_mean, lin_pred_var, lin_setup, set_lin_pushforward
    from loguru import logger

    logger.disable("laplax")

    def model(input, params):
        for layer in params[:-1]:
            input = jnp.tanh(input @ layer.w + (0 if layer.b is None else layer.b))
        return input @ params[-1].w + (0 if params[-1].b is None else params[-1].b)

    data = {"input": jnp.asarray(x), "target": jnp.asarray(y)}

    def fit():
        made, _ = laplace(
            model,
            params,
            data,
            loss_fn="cross_entropy",
            curv_type=structure,
            num_curv_samples=len(x),
            num_total_samples=len(x),
            curv_mv_jit=True,
        )
        return made

    predict = set_lin_pushforward(
        model_fn=model,
        mean_params=params,
        posterior_fn=fit(),
        prior_arguments={"prior_prec": prior},
        pushforward_fns=[lin_setup, lin_pred_mean, lin_pred_var],
        loss_scaling_factor=1.0,
    )
    program, rows = jax.jit(jax.vmap(predict)), jnp.asarray(new)
    return fit, lambda: np.asarray(program(rows)["pred_var"])
