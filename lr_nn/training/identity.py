"""The identity of a training: settings that must match before a checkpoint is resumed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lr_nn.activations import Activation
from lr_nn.data.rows import Rows
from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.penalties import Penalty, is_tree
from lr_nn.training import checkpoints
from lr_nn.training.checkpoints import ForeignError
from lr_nn.training.steps import Noise, State
from lr_nn.types import Batch


def identity(
    net: Network,
    data: Batch | Rows | str,
    validation: Batch | Rows | str | None,
    batch_size: int,
    key: jax.Array | None,
    penalty: Penalty | None,
    optimizer: optax.GradientTransformation,
    state: State,
    schema: Any,
    *,
    lanes: bool = False,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """What identifies a training, as JSON: all that determines its steps except the initial parameters."""
    parts: list[Activation | Loss] = [*net.hidden, net.loss]
    own = [part for part in parts if _is_own(part)]
    return {
        "network": _without_addresses(repr(net)),
        "data": _fingerprint(data),
        "validation data": None if validation is None else _fingerprint(validation),
        "batch size": batch_size,
        "key": None if key is None else np.asarray(key_data(key)).tolist(),
        "penalty": None if penalty is None else {name: _strengths(each) for name, each in penalty._asdict().items()},
        "optimiser": _program(optimizer, state, lanes),
        "schema": schema,
        **({} if noise is None else {"privacy": {name: float(each) for name, each in noise._asdict().items()}}),
        **({OWN_PARTS: [_part_program(part, net.sizes[-1]) for part in own]} if own else {}),
    }


def _strengths(strength: Any) -> Any:
    """A single number, one a lane, or the digest of strengths like the parameters."""
    if not is_tree(strength):
        return np.asarray(strength, np.float64).tolist()
    return _digest((str(path), np.asarray(leaf)) for path, leaf in jax.tree.leaves_with_path(strength))


def _fingerprint(data: Batch | Rows | str) -> str:
    """SHA-256 of every byte of a batch, or the fingerprint of `Rows`; text is a fingerprint already."""
    if isinstance(data, str):
        return data
    if isinstance(data, Rows):
        return f"rows {data.fingerprint()}"
    return f"batch {_digest((name, array) for name, array in data._asdict().items() if array is not None)}"


def _digest(arrays: Iterable[tuple[str, Any]]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in arrays:
        whole = np.ascontiguousarray(array)
        digest.update(f"{name}{whole.dtype}{whole.shape}".encode())
        digest.update(whole.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _program(optimizer: optax.GradientTransformation, state: State, lanes: bool) -> str:
    """A digest of what the optimiser computes, as JAX writes it down: of its kind, its rates, its schedules."""
    update = optax.with_extra_args_support(optimizer).update

    def updated(gradient, opt_state, params):
        value = sum(leaf.sum() for leaf in jax.tree.leaves(params))
        return update(gradient, opt_state, params, value=value, grad=gradient, value_fn=lambda params: value)

    return _program_digest(jax.vmap(updated) if lanes else updated, state.params, state.opt_state, state.params)


def _is_own(part: Activation | Loss) -> bool:
    """True for an activation or a loss of the user's own, which its name does not identify."""
    nested = (value for value in vars(part).values() if isinstance(value, (Activation, Loss)))
    return not type(part).__module__.startswith("lr_nn.") or any(map(_is_own, nested))


def _part_program(part: Activation | Loss, k: int) -> str:
    """A digest of what an activation or a loss computes."""
    z = jnp.zeros((2, k))
    if isinstance(part, Activation):
        return _program_digest(lambda z: (a := part.value(z), part.derivative(part.kept(z, a))), z)
    return _program_digest(lambda eta, y: (part.value(eta, y), part.residual(eta, y)), z, z)


def _program_digest(function: Callable, *args: Any) -> str:
    program = jax.make_jaxpr(function)(*args)
    digest = hashlib.sha256(_without_addresses(str(program)).encode())
    for constant in program.consts:
        digest.update(np.asarray(key_data(constant)).tobytes())
    return digest.hexdigest()


def _without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "", text)


def versions() -> dict[str, str]:
    """Versions of the packages that determine a step."""
    found = {"numpy": np.__version__, "jax": jax.__version__, "optax": optax.__version__}
    try:
        return {"lr_nn": version("lr-nn"), **found}
    except PackageNotFoundError:
        return found


def compare(saved: checkpoints.Saved, config: dict[str, Any]) -> None:
    """Raise ForeignError if a checkpoint is of another training. Programs are compared under the same versions."""
    same = saved.record["versions"] == versions()
    there = saved.record["config"]
    for name in {**config, **there}:
        theirs, mine = there.get(name), config.get(name)
        if json.dumps(theirs, sort_keys=True) != json.dumps(mine, sort_keys=True) and (same or name not in PROGRAMS):
            values = "" if name in DIGESTS else f": {theirs} there, {mine} here"
            raise ForeignError(f"{saved.path} is of another training, its {name} is another one{values}")


OWN_PARTS = "loss or activation"
PROGRAMS = ("optimiser", OWN_PARTS)
DIGESTS = (OWN_PARTS, "data", "validation data", "optimiser", "schema")


def is_key(leaf: Any) -> bool:
    """True for a typed random key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def key_data(leaf: Any) -> Any:
    """A leaf as numbers; of a random key, the numbers that it wraps."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
