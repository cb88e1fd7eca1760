"""The traced function with a perturbation behind every tap: its derivative at zero is the tap's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from lr_nn.graph.control_flow import scan_counts
from lr_nn.taps.sites import REMAT, count_taps, has_taps
from lr_nn.taps.tap import tap_p

# One entry for each tap, in the order of the program; None for a tap that no leaf reaches.
PerTap = list[Any]


def run(closed: ClosedJaxpr, arguments: list[Any], perturbations: PerTap) -> tuple[list[Any], PerTap]:
    """The outputs of the program with `perturbations` added to z of its taps, and what the taps keep of their inputs.

    Inside of a scan both have the axis of its steps in front.
    """
    kept: PerTap = []
    outputs = _evaluate(closed.jaxpr, closed.consts, arguments, iter(perturbations), kept)
    return outputs, kept


def _evaluate(
    jaxpr: Jaxpr, constants: list[Any], arguments: list[Any], perturbations: Iterator[Any], kept: PerTap
) -> list[Any]:
    """Evaluate equation by equation; take perturbations from the iterator, append to `kept`."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments]))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if eqn.primitive is tap_p:
            results = [_tap(eqn, inputs, perturbations, kept)]
        elif any(map(has_taps, jaxprs_in_params(eqn.params))):
            call = _scan if eqn.primitive.name == "scan" else _call
            results = call(eqn, inputs, perturbations, kept)
        else:
            with eqn.ctx.manager:
                found = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
            results = found if eqn.primitive.multiple_results else [found]
        values.update(zip(eqn.outvars, results))
    return [read(atom) for atom in jaxpr.outvars]


def _tap(eqn: JaxprEqn, inputs: list[Any], perturbations: Iterator[Any], kept: PerTap) -> jax.Array:
    operation, perturbation = eqn.params["operation"], next(perturbations)
    z = operation.apply(*inputs)
    kept.append(None if perturbation is None else operation.input_kept(*inputs))
    return z if perturbation is None else z + perturbation


def _inner(eqn: JaxprEqn) -> tuple[Jaxpr, list[Any]]:
    """The program of a call or of a scan, and its constants."""
    inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
    return getattr(inner, "jaxpr", inner), list(getattr(inner, "consts", ()))


def _call(eqn: JaxprEqn, inputs: list[Any], perturbations: Iterator[Any], kept: PerTap) -> list[Any]:
    """The results of a call, inlined; a `remat` keeps its policy of what is saved for the backward pass."""
    jaxpr, constants = _inner(eqn)
    if eqn.primitive.name not in REMAT:
        return _evaluate(jaxpr, constants, inputs, perturbations, kept)
    taken = [next(perturbations) for _ in range(count_taps(jaxpr))]
    results, inner_kept = _rematerialised(eqn, _as_function(jaxpr, constants))(inputs, taken)
    kept.extend(inner_kept)
    return results


def _as_function(jaxpr: Jaxpr, constants: list[Any]) -> Callable[[list[Any], PerTap], tuple[list[Any], PerTap]]:
    def function(inputs: list[Any], perturbations: PerTap) -> tuple[list[Any], PerTap]:
        kept: PerTap = []
        return _evaluate(jaxpr, constants, inputs, iter(perturbations), kept), kept

    return function


def _rematerialised(eqn: JaxprEqn, function: Callable) -> Callable:
    return jax.checkpoint(function, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])


def _scan(eqn: JaxprEqn, inputs: list[Any], perturbations: Iterator[Any], kept: PerTap) -> list[Any]:
    """A scan whose perturbations are one more input of each step, and what is kept one more output."""
    jaxpr, constants = _inner(eqn)
    parameters = eqn.params
    begin, carries = scan_counts(eqn)
    outer, start, slices = inputs[:begin], inputs[begin : begin + carries], inputs[begin + carries :]
    body = _as_function(jaxpr, constants)

    def step(carry: list[Any], at: tuple[list[Any], PerTap]) -> tuple[list[Any], tuple[list[Any], PerTap]]:
        of_step, of_taps = at
        results, step_kept = body([*outer, *carry, *of_step], of_taps)
        return results[:carries], (results[carries:], step_kept)

    taken = [next(perturbations) for _ in range(count_taps(jaxpr))]
    carry, (stacked, step_kept) = jax.lax.scan(
        step,
        list(start),
        (list(slices), taken),
        length=parameters["length"],
        reverse=parameters["reverse"],
        unroll=parameters["unroll"],
    )
    kept.extend(step_kept)
    return [*carry, *stacked]


def zeros(closed: ClosedJaxpr, active: list[bool]) -> PerTap:
    """A zero perturbation for every active tap."""
    outputs = _outputs(closed.jaxpr, ())
    return [_zeros(lead, z) if each else None for each, (lead, z) in zip(active, outputs)]


def _zeros(lead: tuple[int, ...], z: Any) -> jax.Array:
    """Zeros of the type of z: inside of `shard_map` its errors would else be summed over the mesh."""
    array = jnp.zeros((*lead, *z.shape), z.dtype)
    varying = tuple(z.manual_axis_type.varying if hasattr(z, "manual_axis_type") else z.vma)
    return jax.lax.pcast(array, varying, to="varying") if varying else array


def _outputs(jaxpr: Jaxpr, lead: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The lengths of the scans around every tap, and the type of its z."""
    for eqn in jaxpr.eqns:
        if eqn.primitive is tap_p:
            yield lead, eqn.outvars[0].aval
        for inner in jaxprs_in_params(eqn.params):
            around = (*lead, eqn.params["length"]) if eqn.primitive.name == "scan" else lead
            yield from _outputs(inner, around)
