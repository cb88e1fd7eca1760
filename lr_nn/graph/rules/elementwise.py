"""Functions entry by entry: each row its value, its slope, and the equations of both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lr_nn.graph.rules.base import Rule, elementwise, flat, is_float, slope


def _special() -> Any:
    from scipy import special

    return special


def _round(x, *, rounding_method):
    if int(rounding_method):  # to the nearest even
        return np.rint(x)
    return np.trunc(x + np.copysign(np.nextafter(np.asarray(0.5, x.dtype), np.asarray(0, x.dtype)), x))


def _divide(x, y):
    """Integers are divided towards zero; by zero they give -1, as XLA has it."""
    if is_float(x.dtype):
        return x / y
    safe = np.where(y == 0, 1, y)
    quotient = x // safe
    towards_zero = quotient + ((x - quotient * safe != 0) & ((x < 0) != (safe < 0)))
    return np.where(y == 0, -1, towards_zero)


def _power(g, v, x, y):
    if not is_float(y.dtype):
        return g * np.where(y == 0, 0, y * np.power(x, np.where(y == 0, 1, y) - 1)), None
    return g * y * np.power(x, y - 1), g * v * np.log(np.where(x == 0, 1, x))


def _reduce_precision(x, *, exponent_bits, mantissa_bits):
    """`x` rounded to even as a float of so many bits has it; its subnormals are zero."""
    fraction, exponent = np.frexp(x)
    rounded = np.ldexp(np.rint(np.ldexp(fraction, mantissa_bits + 1)), exponent - mantissa_bits - 1)
    bias = 2 ** (exponent_bits - 1) - 1
    _, exponent = np.frexp(rounded)
    rounded = np.where(exponent > bias + 1, np.copysign(np.inf, x), rounded)
    return np.where(np.isfinite(x), np.where(exponent < 2 - bias, np.copysign(0, x), rounded), x)


def _convert(x, *, new_dtype):
    """Floats become integers towards zero, those too large the largest, NaN zero."""
    new_dtype = np.dtype(new_dtype)
    if new_dtype.kind in "iu" and is_float(x.dtype):
        limits = np.iinfo(new_dtype)
        inside = np.where((x > limits.min) & (x < limits.max), x, 0).astype(new_dtype)
        low, high = (x <= limits.min), (x >= limits.max)
        return np.select([low, high], [new_dtype.type(limits.min), new_dtype.type(limits.max)], inside)
    return (x != 0) if new_dtype.kind == "b" else x.astype(new_dtype)


def _quotient(g, v, x, y):
    return g / y, -g * x / (y * y)


def _remainder(g, v, x, y):
    return g, -g * np.trunc(x / y)


def _angle(g, v, x, y):
    return g * y / (x * x + y * y), -g * x / (x * x + y * y)


def _integer_power(g, v, x, *, y):
    return np.zeros_like(g) if y == 0 else g * y * x ** (1.0 * y - 1)


def _raised(x, *, y):
    return x ** (float(y) if is_float(x.dtype) else y)


RULES: tuple[Rule, ...] = (
    # Arithmetic.
    elementwise("neg", np.negative, lambda g, v, x: -g, "-{0}", "-{bar}"),
    elementwise("add", np.add, lambda g, v, x, y: (g, g), "{0} + {1}", "{bar}", "{bar}"),
    elementwise("add_any", np.add, lambda g, v, x, y: (g, g), "{0} + {1}", "{bar}", "{bar}"),
    elementwise("sub", np.subtract, lambda g, v, x, y: (g, -g), "{0} - {1}", "{bar}", "-{bar}"),
    elementwise("mul", np.multiply, lambda g, v, x, y: (g * y, g * x), "{0} · {1}", "{bar} · {1}", "{bar} · {0}"),
    elementwise("div", _divide, _quotient, "{0} / {1}", "{bar} / {1}", "-{bar} · {0} / {1}²"),
    elementwise("rem", np.fmod, _remainder, "{0} mod {1}", "{bar}", "-{bar} · trunc({0} / {1})"),
    elementwise("pow", np.power, _power, "{0}^{1}", "{bar} · {1} · {0}^({1} - 1)", "{bar} · {out} · log {0}"),
    elementwise("integer_pow", _raised, _integer_power, "{0}^{y}", "{bar} · {y} · {0}^({y} - 1)"),
    slope("square", np.square, lambda v, x: 2 * x, "{0}²", "{bar} · 2 · {0}"),
    # Roots, exponentials, logarithms.
    slope("sqrt", np.sqrt, lambda v, x: 0.5 / v, "√{0}", "{bar} / (2 · {out})"),
    slope("rsqrt", lambda x: 1 / np.sqrt(x), lambda v, x: -0.5 * v / x, "1 / √{0}", "-{bar} · {out} / (2 · {0})"),
    slope("cbrt", np.cbrt, lambda v, x: 1 / (3 * v * v), "∛{0}", "{bar} / (3 · {out}²)"),
    slope("exp", np.exp, lambda v, x: v, "exp {0}", "{bar} · {out}"),
    slope("exp2", np.exp2, lambda v, x: math.log(2) * v, "2^{0}", "{bar} · {out} · log 2"),
    slope("expm1", np.expm1, lambda v, x: v + 1, "exp {0} - 1", "{bar} · ({out} + 1)"),
    slope("log", np.log, lambda v, x: 1 / x, "log {0}", "{bar} / {0}"),
    slope("log1p", np.log1p, lambda v, x: 1 / (1 + x), "log(1 + {0})", "{bar} / (1 + {0})"),
    # Circular and hyperbolic functions.
    slope("sin", np.sin, lambda v, x: np.cos(x), "sin {0}", "{bar} · cos {0}"),
    slope("cos", np.cos, lambda v, x: -np.sin(x), "cos {0}", "-{bar} · sin {0}"),
    slope("tan", np.tan, lambda v, x: 1 + v * v, "tan {0}", "{bar} · (1 + {out}²)"),
    slope("asin", np.arcsin, lambda v, x: 1 / np.sqrt(1 - x * x), "asin {0}", "{bar} / √(1 - {0}²)"),
    slope("acos", np.arccos, lambda v, x: -1 / np.sqrt(1 - x * x), "acos {0}", "-{bar} / √(1 - {0}²)"),
    slope("atan", np.arctan, lambda v, x: 1 / (1 + x * x), "atan {0}", "{bar} / (1 + {0}²)"),
    elementwise(
        "atan2", np.arctan2, _angle, "atan2({0}, {1})", "{bar} · {1} / ({0}² + {1}²)", "-{bar} · {0} / ({0}² + {1}²)"
    ),
    slope("sinh", np.sinh, lambda v, x: np.cosh(x), "sinh {0}", "{bar} · cosh {0}"),
    slope("cosh", np.cosh, lambda v, x: np.sinh(x), "cosh {0}", "{bar} · sinh {0}"),
    slope("tanh", np.tanh, lambda v, x: (1 - v) * (1 + v), "tanh {0}", "{bar} · (1 - {out}²)"),
    slope("asinh", np.arcsinh, lambda v, x: 1 / np.hypot(x, 1), "asinh {0}", "{bar} / √({0}² + 1)"),
    slope("acosh", np.arccosh, lambda v, x: 1 / np.sqrt(x * x - 1), "acosh {0}", "{bar} / √({0}² - 1)"),
    slope("atanh", np.arctanh, lambda v, x: 1 / ((1 - x) * (1 + x)), "atanh {0}", "{bar} / (1 - {0}²)"),
    # Functions of probability.
    slope("logistic", lambda x: _special().expit(x), lambda v, x: v * (1 - v), "σ({0})", "{bar} · {out} · (1 - {out})"),
    slope(
        "erf",
        lambda x: _special().erf(x),
        lambda v, x: 2 / math.sqrt(math.pi) * np.exp(-x * x),
        "erf {0}",
        "{bar} · 2/√π · exp(-{0}²)",
    ),
    slope(
        "erfc",
        lambda x: _special().erfc(x),
        lambda v, x: -2 / math.sqrt(math.pi) * np.exp(-x * x),
        "erfc {0}",
        "-{bar} · 2/√π · exp(-{0}²)",
    ),
    slope(
        "erf_inv",
        lambda x: _special().erfinv(x),
        lambda v, x: math.sqrt(math.pi) / 2 * np.exp(v * v),
        "erf⁻¹ {0}",
        "{bar} · √π/2 · exp({out}²)",
    ),
    slope(
        "lgamma",
        lambda x: _special().gammaln(x),
        lambda v, x: _special().digamma(x),
        "log Γ({0})",
        "{bar} · ψ({0})",
    ),
    slope(
        "digamma",
        lambda x: _special().digamma(x),
        lambda v, x: _special().polygamma(1, x),
        "ψ({0})",
        "{bar} · ψ'({0})",
    ),
    # Sizes and signs. JAX takes +1 for the slope of |x| at 0.
    slope("abs", np.abs, lambda v, x: np.where(x >= 0, 1, -1), "|{0}|", "{bar} · sign {0}"),
    flat("sign", np.sign, "sign {0}"),
    flat("floor", np.floor, "⌊{0}⌋"),
    flat("ceil", np.ceil, "⌈{0}⌉"),
    flat("round", _round, "round {0}"),
    flat("nextafter", np.nextafter, "nextafter({0}, {1})"),
    flat("is_finite", np.isfinite, "{0} is finite"),
    # Comparisons and logic.
    flat("eq", np.equal, "{0} = {1}"),
    flat("ne", np.not_equal, "{0} ≠ {1}"),
    flat("lt", np.less, "{0} < {1}"),
    flat("le", np.less_equal, "{0} ≤ {1}"),
    flat("gt", np.greater, "{0} > {1}"),
    flat("ge", np.greater_equal, "{0} ≥ {1}"),
    flat("and", np.bitwise_and, "{0} and {1}"),
    flat("or", np.bitwise_or, "{0} or {1}"),
    flat("not", np.invert, "not {0}"),
    flat("xor", np.bitwise_xor, "{0} xor {1}"),
    # The same number in another guise.
    elementwise("convert_element_type", _convert, lambda g, v, x: g, "{0} as {new_dtype}", "{bar}"),
    elementwise(
        "reduce_precision",
        _reduce_precision,
        lambda g, v, x, *, exponent_bits, mantissa_bits: _reduce_precision(
            g, exponent_bits=exponent_bits, mantissa_bits=mantissa_bits
        ),
        "{0} in {exponent_bits} + {mantissa_bits} bits",
        "{bar} in {exponent_bits} + {mantissa_bits} bits",
    ),
    elementwise("copy", lambda x: x, lambda g, v, x: g, "{0}", "{bar}"),
    elementwise("copy_p", lambda x: x, lambda g, v, x: g, "{0}", "{bar}"),
    elementwise("name", lambda x: x, lambda g, v, x: g, "{0}", "{bar}"),
    elementwise("sharding_constraint", lambda x: x, lambda g, v, x: g, "{0}", "{bar}"),
    flat("stop_gradient", lambda x: x, "{0}, held constant"),
)
