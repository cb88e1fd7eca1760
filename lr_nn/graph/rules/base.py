"""What a rule is: an operation with its value, its derivative and the equations that say both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lr_nn.graph import keys

__all__ = ["Rule", "rule"]


class Kind(NamedTuple):
    """The shape and dtype that an operation gives by JAX's account."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Rule:
    """One operation: how its value comes from its operands, and the adjoints of these from its own; see `rule`.

    elementwise: operands of shape () stand beside arrays, and their adjoints are sums. cost: the number of
    arithmetic operations, of (value, *operands); None counts one for every entry of the value.
    """

    operation: str
    forward: Callable[..., Any]
    derivative: Callable[..., Any] | None
    equation: str | Callable[..., str]
    adjoints: tuple[str, ...] | str | Callable[..., tuple[str, ...]]
    elementwise: bool = False
    cost: Callable[..., int] | None = None

    def gives_adjoint(self, position: int) -> bool:
        """Has the operand at `position` an adjoint?"""
        if self.derivative is None or self.adjoints == "":
            return False
        return not isinstance(self.adjoints, tuple) or bool(self.adjoints[position])

    def values(self, operands: Sequence[np.ndarray], params: Mapping[str, Any], kinds: Sequence[Kind]) -> list:
        """The value of each result, in the shape and dtype that JAX gives it."""
        if isinstance(self.adjoints, tuple) and len(self.adjoints) != len(operands):
            raise ValueError(
                f"adjoints of the rule for {self.operation!r} has {len(self.adjoints)} texts for {len(operands)} "
                'operands; give one each, "" for none, or a single text for all'
            )
        with np.errstate(all="ignore"):
            found = self.forward(*map(widened, operands), **_named(self._of_forward, params))
            found = _listed(found)
            if len(found) != len(kinds):
                raise ValueError(
                    f"forward of the rule for {self.operation!r} gave {len(found)} values; {len(kinds)} due"
                )
            return [self._fit("forward", value, kind) for value, kind in zip(found, kinds)]

    def pull(
        self,
        adjoints: Sequence[np.ndarray],
        values: Sequence[np.ndarray],
        operands: Sequence[np.ndarray],
        params: Mapping[str, Any],
    ) -> list:
        """What each operand gains, in its own shape and dtype; None where nothing comes back."""
        if self.derivative is None:
            return [None] * len(operands)
        adjoint, value = (x[0] if len(x) == 1 else tuple(x) for x in (_wide(adjoints), _wide(values)))
        with np.errstate(all="ignore"):
            found = self.derivative(adjoint, value, *_wide(operands), **_named(self._of_derivative, params))
            found = _listed(found)
            if len(found) != len(operands):
                raise ValueError(
                    f"derivative of the rule for {self.operation!r} gave {len(found)} adjoints for "
                    f"{len(operands)} operands; give None where there is none"
                )
            return [
                None if gain is None else self._fit("derivative", summed(gain, x.shape), Kind(x.shape, x.dtype))
                for gain, x in zip(found, operands)
            ]

    def work(self, values: Sequence[np.ndarray], operands: Sequence[np.ndarray], params: Mapping[str, Any]) -> int:
        """The number of arithmetic operations."""
        if self.cost is None:
            return sum(value.size for value in values)
        return int(self.cost(values[0], *operands, **_named(_keywords(self.cost), params)))

    def equation_text(self, shapes: Sequence[tuple[int, ...]], params: Mapping[str, Any]) -> str:
        """The equation, with places for names."""
        text = self.equation
        return text if isinstance(text, str) else text(shapes, **_named(_keywords(text), params))

    def adjoint_texts(self, shapes: Sequence[tuple[int, ...]], params: Mapping[str, Any]) -> tuple[str, ...]:
        """The equations of the adjoints, one an operand, with places for names."""
        texts = self.adjoints
        if callable(texts):
            texts = texts(shapes, **_named(_keywords(texts), params))
        return (texts,) * len(shapes) if isinstance(texts, str) else texts

    @cached_property
    def _of_forward(self) -> frozenset[str] | None:
        return _keywords(self.forward)

    @cached_property
    def _of_derivative(self) -> frozenset[str] | None:
        return None if self.derivative is None else _keywords(self.derivative)

    def _fit(self, part: str, value: Any, kind: Kind) -> np.ndarray:
        value = np.asarray(value)
        if value.shape != kind.shape:
            raise ValueError(
                f"{part} of the rule for {self.operation!r} must give shape {kind.shape}; got {value.shape}"
            )
        if not is_real(value.dtype):
            raise ValueError(f"{part} of the rule for {self.operation!r} must give real numbers; got {value.dtype}")
        return value.astype(kind.dtype, copy=False)


def rule(
    operation: str,
    forward: Callable[..., Any],
    derivative: Callable[..., Any] | None,
    *,
    equation: str | None = None,
    adjoints: Iterable[str] | str | None = None,
) -> Rule:
    """A rule for an operation, to be given to `trace(..., rules=[...])`, where it goes before the built-in one.

    operation: the name of a primitive ("cholesky"), or of a nested call ("relu"), which is then kept as one node.
    forward: `forward(*operands, *, <parameters>) -> value`, on NumPy arrays; a tuple where there are several results.
    derivative: `derivative(adjoint, value, *operands, *, <parameters>)` -> one adjoint an operand, None where there
    is none; of one operand the array alone will do. None: the operation passes nothing back.
    Both get those parameters of the primitive that they name behind the `*`; half precision comes as float32.
    equation: the value in words of its operands {0}, {1}, ..., or {operands}, and the parameters by name.
    adjoints: for each operand what it gains, in words also of {out}, {bar} (the adjoint of the result) and {self}
    (the operand); "" for none; one text may serve all.

    >>> import numpy as np
    >>> from lr_nn import graph
    >>> cube = graph.rule("integer_pow", lambda x, *, y: x**y, lambda g, value, x, *, y: g * y * x ** (y - 1),
    ...                   equation="{0}^{y}", adjoints=["{y} {0}^({y}-1) {bar}"])
    >>> [gradient] = graph.trace(lambda x: x**3, 2.0, rules=[cube]).backward()
    >>> print(gradient)
    12.0
    """
    if not isinstance(operation, str):
        raise TypeError(f"operation must be the name of a primitive or of a nested call; got {operation!r}")
    if not callable(forward) or not (derivative is None or callable(derivative)):
        raise TypeError(f"forward and derivative of the rule for {operation!r} must be functions")
    if not isinstance(equation, (str, type(None))):
        raise TypeError(f"equation of the rule for {operation!r} must be a text; got {equation!r:.60}")
    if equation is None:
        equation = f"{operation}({{operands}})"
    if adjoints is None:
        adjoints = "" if derivative is None else "{bar} ∂{out}/∂{self}"
    if not isinstance(adjoints, str):
        adjoints = tuple(adjoints) if isinstance(adjoints, Iterable) else (adjoints,)
        if not all(isinstance(text, str) for text in adjoints):
            raise TypeError(f"adjoints of the rule for {operation!r} must be a text, or one an operand; got {adjoints}")
    return Rule(operation, forward, derivative, equation, adjoints)


def elementwise(operation: str, forward: Callable[..., Any], derivative: Any, equation: str, *adjoints: str) -> Rule:
    """A rule entry by entry; without a derivative nothing comes back."""
    return Rule(operation, forward, derivative, equation, adjoints if derivative else "", elementwise=True)


def slope(operation: str, forward: Callable[..., Any], slope: Any, equation: str, adjoint: str) -> Rule:
    """A rule of one operand, x̄ = v̄ slope(v, x)."""
    return elementwise(operation, forward, lambda g, y, x: g * slope(y, x), equation, adjoint)


def flat(operation: str, forward: Callable[..., Any], equation: str) -> Rule:
    """A rule entry by entry that passes nothing back: the derivative is zero or there is none."""
    return elementwise(operation, forward, None, equation)


def kind_of(atom: Any) -> Kind:
    """That of a variable or literal of a jaxpr; of random keys that of their integers, of complex numbers of pairs."""
    shape, dtype = atom.aval.shape, atom.aval.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return Kind((*shape, 2), np.dtype(np.float32 if dtype.itemsize == 8 else np.float64))
    return Kind(*keys.kind_of_data(shape, dtype)) if keys.is_key(dtype) else Kind(shape, dtype)


def is_float(dtype: Any) -> bool:
    """Is it a real floating dtype, bfloat16 included?"""
    return bool(jnp.issubdtype(dtype, jnp.floating))


def is_real(dtype: Any) -> bool:
    """Is it a dtype of real numbers, whole ones and booleans included?"""
    return is_float(dtype) or bool(jnp.issubdtype(dtype, jnp.integer)) or bool(jnp.issubdtype(dtype, jnp.bool_))


def widened(array: np.ndarray) -> np.ndarray:
    """Half precision as float32, as hardware keeps it while it computes."""
    return array.astype(np.float32) if array.dtype.itemsize < 4 and is_float(array.dtype) else array


def summed(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The adjoint of what was broadcast from `shape`: a sum over the axes that were spread."""
    array = np.asarray(array)
    lead = array.ndim - len(shape)
    if array.shape == shape or lead < 0:
        return array
    spread = tuple(i for i, size in enumerate(array.shape) if i < lead or (shape[i - lead] == 1 and size != 1))
    total = array.sum(axis=spread, keepdims=True)
    return total.reshape(total.shape[lead:])


def _wide(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [widened(array) for array in arrays]


def _listed(found: Any) -> list:
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _keywords(function: Callable[..., Any]) -> frozenset[str] | None:
    """The parameters that a function names behind `*`; None for all."""
    if isinstance(function, np.ufunc):
        return frozenset()
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of a function in C, which has none
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def named(function: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the parameters that a function names behind `*`."""
    return _named(_keywords(function), params)


def _named(names: frozenset[str] | None, params: Mapping[str, Any]) -> dict[str, Any]:
    return dict(params) if names is None else {name: params[name] for name in names if name in params}
