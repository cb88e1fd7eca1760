"""Which axis of each tap is that of the examples: axes are followed from the taps to the losses of the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, count
from operator import mul
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from lr_nn.graph.control_flow import scan_counts
from lr_nn.taps.tap import tap_p

# One label for each axis of a value.
Labels = tuple[int, ...]


def example_axes(jaxpr: Jaxpr) -> list[tuple[bool, ...]]:
    """For each tap and each axis in front of its own, those of scans first: whether the losses have that axis too.

    Two axes are one where an operation carries one to the other, such as equal axes of operands that are added. An
    operation that is not known here ends an axis, so that no axis of a tap may be found.
    """
    found = _Axes()
    ((losses,),) = found.walk(jaxpr, [found.new(var) for var in jaxpr.invars], ())
    return [tuple(found.root(label) == found.root(losses) for label in labels) for labels in found.taps]


class _Axes:
    """Labels of axes, and which of them are one: a forest whose trees are the axes."""

    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        self.numbers = count()
        self.taps: list[Labels] = []

    def root(self, label: int) -> int:
        while label in self.parents:
            label = self.parents[label]
        return label

    def unify(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a != b:
            self.parents[a] = b

    def fresh(self, number: int) -> Labels:
        return tuple(next(self.numbers) for _ in range(number))

    def new(self, atom: Any) -> Labels:
        return self.fresh(len(atom.aval.shape))

    def walk(self, jaxpr: Jaxpr, inputs: Sequence[Labels], scans: Labels) -> list[Labels]:
        """The labels of the outputs."""
        known: dict[Any, Labels] = dict(zip(jaxpr.invars, inputs))

        def read(atom: Any) -> Labels:
            return self.new(atom) if isinstance(atom, Literal) or atom not in known else known[atom]

        for eqn in jaxpr.eqns:
            known.update(zip(eqn.outvars, self._through(eqn, [read(atom) for atom in eqn.invars], scans)))
        return [read(atom) for atom in jaxpr.outvars]

    def _through(self, eqn: JaxprEqn, inputs: list[Labels], scans: Labels) -> list[Labels]:
        name, inner = eqn.primitive.name, list(jaxprs_in_params(eqn.params))
        if eqn.primitive is tap_p:
            return [self._tap(eqn, inputs[0], scans)]
        if name == "scan":
            return self._scan(eqn, inner[0], inputs, scans)
        if name == "while":
            return inputs[len(inputs) - len(eqn.outvars) :]
        if name == "cond":
            branches = [self.walk(branch, inputs[1:], scans) for branch in inner]
            return [self._joined(each, eqn.outvars[i]) for i, each in enumerate(zip(*branches))]
        if inner and len(inner[0].invars) == len(inputs) and len(inner[0].outvars) == len(eqn.outvars):
            return self.walk(inner[0], inputs, scans)
        return self._primitive(eqn, inputs)

    def _primitive(self, eqn: JaxprEqn, inputs: list[Labels]) -> list[Labels]:
        name = eqn.primitive.name
        if name in RULES:
            return [RULES[name](self, eqn, *inputs)]
        if "axes" in eqn.params and name.startswith(("reduce_", "arg")):
            kept = [axis for axis in range(len(inputs[0])) if axis not in eqn.params["axes"]]
            return [tuple(inputs[0][axis] for axis in kept)]
        return [self._elementwise(eqn, inputs, out) for out in eqn.outvars]

    def _tap(self, eqn: JaxprEqn, x: Labels, scans: Labels) -> Labels:
        lead = x[: len(x) - eqn.params["operation"].own_axes]
        self.taps.append((*scans, *lead))
        return (*lead, *self.new(eqn.outvars[0])[len(lead) :])

    def _scan(self, eqn: JaxprEqn, inner: Jaxpr, inputs: list[Labels], scans: Labels) -> list[Labels]:
        constants, carries = scan_counts(eqn)
        (step,) = self.fresh(1)
        for label, *_ in inputs[constants + carries :]:
            self.unify(label, step)
        slices = [labels[1:] for labels in inputs[constants + carries :]]
        outputs = self.walk(inner, [*inputs[: constants + carries], *slices], (*scans, step))
        carried = inputs[constants : constants + carries]
        results = [self._joined(each, var) for each, var in zip(zip(carried, outputs), eqn.outvars)]
        return [*results, *((step, *labels) for labels in outputs[carries:])]

    def _joined(self, several: Sequence[Labels], like: Any) -> Labels:
        """The labels of values that are the same value."""
        for labels in several[1:]:
            for a, b in zip(several[0], labels):
                self.unify(a, b)
        return several[0] if several else self.new(like)

    def _elementwise(self, eqn: JaxprEqn, inputs: list[Labels], out: Any) -> Labels:
        """Each axis of the result is that axis of the operands with as many axes, where it has the same size."""
        labels = self.new(out)
        for atom, operand in zip(eqn.invars, inputs):
            if len(operand) == len(labels):
                for a, b, size, other in zip(operand, labels, _shape(atom), _shape(out)):
                    if size == other:
                        self.unify(a, b)
        return labels


def _dot_general(axes: _Axes, eqn: JaxprEqn, left: Labels, right: Labels) -> Labels:
    (left_summed, right_summed), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    for a, b in zip((*left_summed, *left_batch), (*right_summed, *right_batch)):
        axes.unify(left[a], right[b])
    left_free = [label for axis, label in enumerate(left) if axis not in {*left_summed, *left_batch}]
    right_free = [label for axis, label in enumerate(right) if axis not in {*right_summed, *right_batch}]
    return (*(left[axis] for axis in left_batch), *left_free, *right_free)


def _convolution(axes: _Axes, eqn: JaxprEqn, x: Labels, _: Labels) -> Labels:
    numbers, labels = eqn.params["dimension_numbers"], list(axes.new(eqn.outvars[0]))
    if eqn.params["batch_group_count"] == 1:
        labels[numbers.out_spec[0]] = x[numbers.lhs_spec[0]]
    return tuple(labels)


def _transpose(axes: _Axes, eqn: JaxprEqn, x: Labels) -> Labels:
    return tuple(x[axis] for axis in eqn.params["permutation"])


def _squeeze(axes: _Axes, eqn: JaxprEqn, x: Labels) -> Labels:
    return tuple(label for axis, label in enumerate(x) if axis not in eqn.params["dimensions"])


def _broadcast(axes: _Axes, eqn: JaxprEqn, x: Labels, *_: Labels) -> Labels:
    labels, after = list(axes.new(eqn.outvars[0])), _shape(eqn.outvars[0])
    for axis, label, size in zip(eqn.params["broadcast_dimensions"], x, _shape(eqn.invars[0])):
        if after[axis] == size:
            labels[axis] = label
    return tuple(labels)


def _reshape(axes: _Axes, eqn: JaxprEqn, x: Labels, *_: Labels) -> Labels:
    """An axis stays itself if as many entries lie before it as before, and it has the same size."""
    before, after = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    if eqn.params["dimensions"] is not None:
        return axes.new(eqn.outvars[0])
    known = {(start, size): label for start, size, label in zip(accumulate(before, mul, initial=1), before, x)}
    starts = accumulate(after, mul, initial=1)
    return tuple(known.get((start, size), fresh) for start, size, fresh in zip(starts, after, axes.new(eqn.outvars[0])))


def _gather(axes: _Axes, eqn: JaxprEqn, x: Labels, indices: Labels) -> Labels:
    numbers, labels = eqn.params["dimension_numbers"], list(axes.new(eqn.outvars[0]))
    for a, b in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims):
        axes.unify(x[a], indices[b])
    batch = [axis for axis in range(len(labels)) if axis not in numbers.offset_dims]
    labels_of_indices = zip(batch, indices[:-1])
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    whole = zip(numbers.offset_dims, [axis for axis in range(len(x)) if axis not in gone])
    for axis, label in labels_of_indices:
        labels[axis] = label
    for axis, source in whole:
        if eqn.params["slice_sizes"][source] == _shape(eqn.invars[0])[source]:
            labels[axis] = x[source]
    return tuple(labels)


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


RULES: dict[str, Callable[..., Labels]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "gather": _gather,
}
