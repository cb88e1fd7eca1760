"""The taps of a traced function, and the leaves of the parameters that each of them uses.

A leaf is followed from the arguments through `jit`, `remat`, `scan`, transposes, reshapes, slices and casts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise
from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from lr_nn.graph.control_flow import scan_counts
from lr_nn.taps.layouts import Operand, rearranged
from lr_nn.taps.operations import Operation
from lr_nn.taps.tap import tap_p

SAME = frozenset({"convert_element_type", "copy", "copy_p", "sharding_constraint"})
REMAT = frozenset({"checkpoint", "remat", "remat2"})
# Calls whose one inner program has the operands and results of the call.
CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"}) | REMAT
RULES = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})


class Site(NamedTuple):
    """One tap: its operation, the leaf of each parameter, the shape of its input, and the scans around it.

    `operands` has None for a parameter that comes from no leaf. `shapes` are those of the parameters. `scans` holds the
    numbers of the scans, outermost first. `mapped` counts the leading axes of the input that `vmap` added.
    """

    operation: Operation
    operands: tuple[Operand | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    input_shape: tuple[int, ...]
    scans: tuple[int, ...]
    mapped: int

    @property
    def active(self) -> bool:
        """True if a parameter comes from a leaf."""
        return any(operand is not None for operand in self.operands)


@dataclass
class Survey:
    """What `survey` finds: the sites in the order of the program, and where leaves are used without a tap.

    `calls`: the calls around the equation that it visits, outermost first.
    """

    sites: list[Site] = field(default_factory=list)
    untapped: dict[int, str] = field(default_factory=dict)
    calls: list[JaxprEqn] = field(default_factory=list)
    numbers: Any = field(default_factory=count)


Origins = Sequence[Operand | None]


def survey(jaxpr: Jaxpr, leaves: int) -> Survey:
    """The taps of a program whose first `leaves` arguments are the leaves of the parameters."""
    found = Survey()
    origins: list[Operand | None] = [Operand(leaf) for leaf in range(leaves)]
    outputs = _walk(jaxpr, [*origins, *[None] * (len(jaxpr.invars) - leaves)], (), found)
    for operand in outputs:
        if operand is not None:
            found.untapped.setdefault(operand.leaf, "the result")
    return found


def has_taps(jaxpr: Jaxpr) -> bool:
    """True if the program or one inside of it has a tap."""
    return count_taps(jaxpr) > 0


def count_taps(jaxpr: Jaxpr) -> int:
    """The number of taps of the program and of those inside of it."""
    return sum(
        1 if eqn.primitive is tap_p else sum(map(count_taps, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns
    )


def where(eqn: JaxprEqn, calls: Sequence[JaxprEqn] = ()) -> str:
    """The operation and its line of source, or that of the innermost call that has one."""
    lines = (source_info_util.summarize(each.source_info) for each in (eqn, *reversed(calls)))
    return f"{eqn.primitive.name} at {next(filter(None, lines), 'an unknown line')}"


def _walk(jaxpr: Jaxpr, origins: Origins, scans: tuple[int, ...], found: Survey) -> list[Operand | None]:
    """Visit every equation; the origins of the outputs."""
    known: dict[Any, Operand] = {}

    def read(atom: Any) -> Operand | None:
        return None if isinstance(atom, Literal) else known.get(atom)

    def write(variables: Sequence[Any], operands: Origins) -> None:
        known.update({var: operand for var, operand in zip(variables, operands) if operand is not None})

    write(jaxpr.invars, origins)
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if eqn.primitive is tap_p:
            found.sites.append(_site(eqn, inputs, scans))
            _note(found, inputs[:1], eqn)
        elif any(map(has_taps, jaxprs_in_params(eqn.params))) or any(inputs):
            write(eqn.outvars, _through(eqn, inputs, scans, found))
    return [read(atom) for atom in jaxpr.outvars]


def _site(eqn: JaxprEqn, inputs: Origins, scans: tuple[int, ...]) -> Site:
    operation, (x, *parameters) = eqn.params["operation"], eqn.invars
    operands = tuple(
        operand and operation.layout(slot, operand, _shape(each))
        for slot, operand, each in zip(operation.slots, inputs[1:], parameters)
    )
    shapes = tuple(_shape(each) for each in parameters)
    return Site(operation, operands, shapes, _shape(x), scans, eqn.params["mapped"])


def _note(found: Survey, operands: Origins, eqn: JaxprEqn) -> None:
    for operand in operands:
        if operand is not None:
            found.untapped.setdefault(operand.leaf, where(eqn, found.calls))


def _through(eqn: JaxprEqn, inputs: Origins, scans: tuple[int, ...], found: Survey) -> Origins:
    """The origins of the outputs of an equation that is no tap."""
    name = eqn.primitive.name
    if name in CALLS or (name in RULES and not any(map(has_taps, jaxprs_in_params(eqn.params)))):
        inner, *_ = jaxprs_in_params(eqn.params)
        found.calls.append(eqn)
        outputs = _walk(inner, inputs, scans, found)
        found.calls.pop()
        return outputs
    if name == "scan":
        return _through_scan(eqn, inputs, scans, found)
    if any(map(has_taps, jaxprs_in_params(eqn.params))):
        raise NotImplementedError(
            f"a tap inside of {where(eqn, found.calls)} cannot be followed; "
            "taps may be inside of jit, checkpoint, scan and vmap"
        )
    if name == "stop_gradient":
        return [None]
    moved = _rearranged(eqn, inputs[0]) if inputs and inputs[0] is not None else None
    if moved is None:
        _note(found, inputs, eqn)
        return [None] * len(eqn.outvars)
    return moved


def _through_scan(eqn: JaxprEqn, inputs: Origins, scans: tuple[int, ...], found: Survey) -> Origins:
    inner, number = next(iter(jaxprs_in_params(eqn.params))), next(found.numbers)
    constants, carries = scan_counts(eqn)
    start = constants + carries
    unchanged = [a is b for a, b in zip(inner.invars[constants:start], inner.outvars[:carries])]
    for operand, same in zip(inputs[constants:start], unchanged):
        if not same:
            _note(found, [operand], eqn)
    origins = [
        *inputs[:constants],
        *(operand if same else None for operand, same in zip(inputs[constants:start], unchanged)),
        *(operand and operand._replace(scans=(*operand.scans, number)) for operand in inputs[start:]),
    ]
    outputs = _walk(inner, origins, (*scans, number), found)
    # What a step leaves to the next one is not followed there, unless it came in as it is.
    lost = [None if same else operand for operand, same in zip(outputs, unchanged)]
    _note(found, [*lost, *outputs[carries:]], eqn)
    kept = [operand if same else None for operand, same in zip(outputs, unchanged)]
    return [*kept, *[None] * (len(eqn.outvars) - carries)]


def _rearranged(eqn: JaxprEqn, operand: Operand) -> list[Operand] | None:
    """The operand after an equation that only rearranges its entries, for each output; None for every other one."""
    name, shape, parameters = eqn.primitive.name, _shape(eqn.invars[0]), eqn.params
    result: Any = eqn.outvars[0].aval
    if name in SAME and jnp.issubdtype(result.dtype, jnp.floating):
        return [operand]
    if name == "transpose":
        return [rearranged(operand, "transpose", parameters["permutation"], shape)]
    if name in {"reshape", "squeeze", "expand_dims"} or (name == "broadcast_in_dim" and prod(shape) == result.size):
        in_order = parameters.get("dimensions") is None or name != "reshape"
        return [rearranged(operand, "reshape", result.shape, shape)] if in_order else None
    parts = [rearranged(operand, "slice", bounds, shape) for bounds in _slices(eqn, shape)]
    if name == "unstack":
        one = tuple(1 if axis == parameters["axis"] else size for axis, size in enumerate(shape))
        parts = [rearranged(part, "reshape", result.shape, one) for part in parts]
    return parts or None


def _slices(eqn: JaxprEqn, shape: tuple[int, ...]) -> list[tuple]:
    """For each output the (start, stop, stride) of every axis; none for an equation that takes no such slices."""
    name, parameters = eqn.primitive.name, eqn.params
    whole = [(0, size, 1) for size in shape]
    if name == "slice":
        strides = parameters["strides"] or (1,) * len(shape)
        bounds = zip(parameters["start_indices"], parameters["limit_indices"], strides)
        return [tuple(tuple(map(int, each)) for each in bounds)]
    if name == "rev":
        back = enumerate(whole)
        return [tuple((at[1] - 1, None, -1) if axis in parameters["dimensions"] else at for axis, at in back)]
    if name not in {"split", "unstack"}:
        return []
    axis = parameters["axis"]
    sizes = map(int, parameters["sizes"]) if name == "split" else [1] * shape[axis]
    stops = list(accumulate(sizes, initial=0))
    return [(*whole[:axis], (start, stop, 1), *whole[axis + 1 :]) for start, stop in pairwise(stops)]


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape
