"""Complex numbers as pairs of real ones: a complex array of shape s is an array (*s, 2), and so is its adjoint.

The adjoint of z = x + iy is x̄ + iȳ, the gradient by both parts. So v = f(z) of complex derivative f' hands back
z̄ = conj(f'(z)) v̄: the rules of real numbers at conjugate values; and v = A z hands back z̄ = Aᴴ v̄.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from lr_nn.graph.rules.base import Rule, named

# Rules of real numbers that hold for complex ones as they are.
SAME = {
    *("add", "add_any", "broadcast_in_dim", "concatenate", "copy", "cos", "cosh", "cumsum", "dot_general"),
    *("dynamic_slice", "dynamic_update_slice", "exp", "expm1", "integer_pow", "log", "log1p", "mul", "neg", "pad"),
    *("reduce_sum", "reshape", "rev", "select_n", "sin", "sinh", "slice", "split", "sqrt", "square", "squeeze"),
    *("stack", "stop_gradient", "sub", "tan", "tanh", "transpose", "unstack"),
}


def is_complex(dtype: Any) -> bool:
    """True for a dtype of complex numbers."""
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.complexfloating))


def parts(array: Any) -> Any:
    """Complex numbers as pairs; any other array as it is."""
    array = np.asarray(array)
    return np.stack([array.real, array.imag], axis=-1) if is_complex(array.dtype) else array


def joined(pairs: np.ndarray) -> np.ndarray:
    """Complex numbers from pairs."""
    return pairs[..., 0] + 1j * pairs[..., 1]


def conjugate(array: np.ndarray, paired: bool) -> np.ndarray:
    """The conjugates of pairs; an array that is not of pairs as it is."""
    return array * np.array([1, -1], array.dtype) if paired else array


def rule_of(eqn: JaxprEqn, table: Mapping[str, Rule]) -> Rule | None:
    """The rule of an operation on complex numbers, if there is one; `table` has those of real numbers."""
    name = eqn.primitive.name
    function = OWN.get(name)
    if function is None and name in SAME:
        function = Function(table[name].forward, _at_conjugates(table[name].derivative), table[name].equation_text)
    if function is None:
        return None
    complex_in, complex_out = (
        [is_complex(getattr(atom.aval, "dtype", None)) for atom in atoms] for atoms in (eqn.invars, eqn.outvars)
    )
    return _on_pairs(name, function, complex_in, complex_out)


@dataclass(frozen=True)
class Function:
    """A function of complex numbers, with its derivative (adjoint, value, *operands) and its equation of shapes."""

    forward: Callable[..., Any]
    derivative: Callable[..., Any] | None
    equation: Callable[..., str]


def _on_pairs(name: str, function: Function, complex_in: list[bool], complex_out: list[bool]) -> Rule:
    """The rule of a function of complex numbers, on pairs."""

    def given(operands):
        return [joined(operand) if c else operand for operand, c in zip(operands, complex_in)]

    def results(found):
        found = [joined(each) if c else each for each, c in zip(_listed(found), complex_out)]
        return found[0] if len(complex_out) == 1 else tuple(found)

    def forward(*operands, **params):
        found = _listed(function.forward(*given(operands), **named(function.forward, params)))
        return [parts(value + 0j) if c else value for value, c in zip(found, complex_out)]

    def derivative(g, value, *operands, **params):
        found = function.derivative(  # type: ignore[misc]
            results(g), results(value), *given(operands), **named(function.derivative, params)
        )
        return [
            None if gain is None else parts(gain + 0j) if c else np.real(gain)
            for gain, c in zip(_listed(found), complex_in)
        ]

    def equation(shapes, **params):
        return function.equation([s[:-1] if c else s for s, c in zip(shapes, complex_in)], params)

    text = "(∂{out}/∂{self})ᴴ {bar}"
    return Rule(name, forward, derivative if function.derivative else None, equation, text)


def _at_conjugates(derivative: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The derivative with all values but the adjoint conjugate."""
    if derivative is None:
        return None

    def conjugated(g, value, *operands, **params):
        return derivative(g, np.conj(value), *map(np.conj, operands), **named(derivative, params))

    return conjugated


def _listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _axes(lengths):
    return tuple(range(-len(lengths), 0))


def _transform(x, *, fft_type, fft_lengths):
    """The discrete Fourier transform, its inverse, and those of real numbers (0 to 3), over the last axes."""
    transform = (np.fft.fftn, np.fft.ifftn, np.fft.rfftn, np.fft.irfftn)[int(fft_type)]
    return transform(x, s=fft_lengths, axes=_axes(fft_lengths))


def _transformed(g, v, x, *, fft_type, fft_lengths):
    """Aᴴ ḡ. Of n numbers: n times the inverse of the transform, and a transform over n of the inverse."""
    axes, n = _axes(fft_lengths), np.prod(fft_lengths)
    kind = int(fft_type)
    if kind == 0:
        return n * np.fft.ifftn(g, axes=axes)
    if kind == 1:
        return np.fft.fftn(g, axes=axes) / n
    if kind == 2:  # the frequencies that a real transform leaves out have no adjoint
        missing = fft_lengths[-1] - g.shape[-1]
        whole = np.concatenate([g, np.zeros((*g.shape[:-1], missing), g.dtype)], axis=-1)
        return n * np.fft.ifftn(whole, axes=axes).real
    count = np.full(x.shape[-1], 2.0)  # a frequency stands for its conjugate too, the first and the middle one do not
    count[0] = 1
    if fft_lengths[-1] % 2 == 0:
        count[-1] = 1
    return np.fft.rfftn(g, axes=axes) * (count / n).astype(g.dtype)


def _divided(g, v, x, y):
    return g / np.conj(y), -g * np.conj(v / y)


def _modulus(g, v, x):
    return np.where(v == 0, 0, g * x / np.where(v == 0, 1, v))


def _says(text: str) -> Callable[..., str]:
    return lambda shapes, params: text


TRANSFORMS = ("F {0}", "F⁻¹ {0}", "F {0}", "F⁻¹ {0}")
OWN = {
    "fft": Function(_transform, _transformed, lambda shapes, params: TRANSFORMS[int(params["fft_type"])]),
    "complex": Function(lambda x, y: x + 1j * y, lambda g, v, x, y: (g.real, g.imag), _says("{0} + i {1}")),
    "real": Function(np.real, lambda g, v, x: g, _says("Re {0}")),
    "imag": Function(np.imag, lambda g, v, x: 1j * g, _says("Im {0}")),
    "conj": Function(np.conj, lambda g, v, x: np.conj(g), _says("conj {0}")),
    "abs": Function(np.abs, _modulus, _says("|{0}|")),
    "div": Function(np.divide, _divided, _says("{0} / {1}")),
    "convert_element_type": Function(lambda x: x + 0j, lambda g, v, x: g, _says("{0} + 0i")),
}
