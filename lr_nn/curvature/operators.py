"""Operators: symmetric matrices over the parameters of a network, defined by their products with vectors.

A vector is a tree like the parameters, or flat, (p,) in the order of `ravel_pytree(params)`; many vectors are the
columns of (p, m), or a tree with a leading axis m on every leaf. The result is of the same kind. Operators are pytrees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.curvature.vectors import Linear, apply, map_columns, on_flat
from lr_nn.network import Network, n_parameters
from lr_nn.trees import accumulator, common_dtype, compiled, dtypes_of, register_class, widened
from lr_nn.types import Params

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

# A dense matrix of this size takes 256 MiB in float32.
MOST_PARAMETERS = 8192


class Operator(ABC):
    """A symmetric (p, p) matrix A over the parameters of a network, `params` of `net`.

    `A + B`, `A - B`, `-A`, `c * A`, `A * c`, `A / c` and `A.damped(damping)` are operators too; a product with a sum is
    two products. A and B must have the same layers: ValueError otherwise.
    """

    if TYPE_CHECKING:  # fields of a class, or those of its operand

        @property
        def net(self) -> Network:
            """The network."""

        @property
        def params(self) -> Params:
            """Its parameters."""

    # NumPy would take an operator for an array of objects; so np.float64(2) * A is left to `__rmul__`.
    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        p = n_parameters(self.net)
        return p, p

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a product with a flat vector: the widest dtype of the parameters."""
        return common_dtype(*jax.tree.leaves(dtypes_of(self.params)))

    def multiply(self, v: Params | ArrayLike) -> Any:
        """A v, in the dtypes of the parameters; also written `op @ v`.

        v: like the parameters or flat (p,); or m vectors, each leaf with a leading axis m, or flat (p, m), which are
        multiplied in blocks of 64. Raises TypeError or ValueError for a `v` of another shape.
        """
        return apply(_multiplier, self, v)

    def __matmul__(self, v: Params | ArrayLike) -> Any:
        """`multiply`."""
        return self.multiply(v)

    def dense(self) -> jax.Array:
        """The matrix itself, (p, p) in the order of `ravel_pytree(params)`, in float32 for half precision.

        It is the product with the identity. Raises ValueError above 8,192 parameters.
        """
        p = n_parameters(self.net)
        if p > MOST_PARAMETERS:
            raise ValueError(f"a dense matrix of {p} parameters exceeds the limit of {MOST_PARAMETERS}; use op @ v")
        return _dense(self)

    def diagonal(self) -> Params:
        """The diagonal, like the parameters, in float32 for half precision."""
        return _diagonal(self)

    def trace(self) -> jax.Array:
        """The trace, a scalar."""
        return _trace(self)

    def damped(self, damping: ArrayLike) -> Operator:
        """A + damping · I. Raises ValueError for a `damping` that is not one finite number."""
        return Damped(self, _factor("damping", damping))

    def __add__(self, other: Operator) -> Operator:
        """A + B."""
        if not isinstance(other, Operator):
            return NotImplemented
        check_same_layers(self, other)
        return Sum(self, other)

    def __sub__(self, other: Operator) -> Operator:
        """A - B."""
        return self + -other if isinstance(other, Operator) else NotImplemented

    def __neg__(self) -> Operator:
        """-A."""
        return self * -1.0

    def __mul__(self, factor: ArrayLike) -> Operator:
        """c A, `factor` c one finite number or a traced scalar."""
        return Scaled(self, _factor("the factor of an operator", factor))

    def __rmul__(self, factor: ArrayLike) -> Operator:
        """c A."""
        return self * factor

    def __truediv__(self, divisor: ArrayLike) -> Operator:
        """A / c."""
        return self * (1 / check.scalar("the divisor of an operator", divisor))

    def to_scipy(self) -> LinearOperator:
        """The matrix as a `scipy.sparse.linalg.LinearOperator`, for `eigsh`, `lobpcg` and others.

        It is of the dtype of the parameters, float32 for half precision. Raises TypeError for traced operators.
        """
        check.on_host("to_scipy", self, "op @ v")
        from scipy.sparse.linalg import LinearOperator  # imported late: no other function here needs SciPy

        dtype = accumulator(self.dtype)

        def multiply(v: np.ndarray) -> np.ndarray:
            return np.array(self.multiply(v), dtype)

        return LinearOperator(
            self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, rmatmat=multiply, dtype=dtype
        )

    @abstractmethod
    def _product(self, v: Params) -> Params:
        """`multiply` of one admitted tree, in the dtype of sums; for use inside a compiled function."""

    @abstractmethod
    def _diagonal(self) -> Params:
        """`diagonal`, for use inside a compiled function."""

    @abstractmethod
    def _trace(self) -> jax.Array:
        """`trace`, for use inside a compiled function."""


class Solvable(Operator):
    """An operator whose damped matrix has an inverse in closed form."""

    def solve(self, v: Params | ArrayLike, damping: ArrayLike) -> Any:
        """The damped inverse times `v`, of the same kind as `v`; `damping` > 0.

        Raises ValueError for a damping that is not positive, and for a `v` of another shape as `multiply` does.
        """
        return apply(_solver, self, v, check.positive("damping", damping))

    @abstractmethod
    def _solver(self, damping: jax.Array) -> Linear:
        """`solve` as a function of one admitted tree, its factorisation made once."""

    def _preconditioner(self, damping: jax.Array) -> Linear:
        """`_solver` for many products one after another, where rounding does not matter."""
        return self._solver(damping)


@dataclass(frozen=True, eq=False)
class Derived(Operator):
    """An operator made of `operator`, of the same network."""

    operator: Operator

    @property
    def net(self) -> Network:
        """The network."""
        return self.operator.net

    @property
    def params(self) -> Params:
        """Its parameters."""
        return self.operator.params


@register_class
@dataclass(frozen=True, eq=False)
class Scaled(Derived):
    """`factor` times `operator`."""

    factor: jax.Array

    def _product(self, v: Params) -> Params:
        return self._scaled(self.operator._product(v))

    def _diagonal(self) -> Params:
        return self._scaled(self.operator._diagonal())

    def _trace(self) -> jax.Array:
        return self._scaled(self.operator._trace())

    def _scaled(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: self.factor.astype(leaf.dtype) * leaf, tree)


@register_class
@dataclass(frozen=True, eq=False)
class Damped(Derived):
    """`operator` plus `damping` times the identity."""

    damping: jax.Array

    def _product(self, v: Params) -> Params:
        scaled = jax.tree.map(lambda leaf: self.damping.astype(leaf.dtype) * leaf, widened(v))
        return _add(self.operator._product(v), scaled)

    def _diagonal(self) -> Params:
        return jax.tree.map(lambda leaf: leaf + self.damping.astype(leaf.dtype), self.operator._diagonal())

    def _trace(self) -> jax.Array:
        trace = self.operator._trace()
        return trace + self.damping.astype(trace.dtype) * n_parameters(self.net)


@register_class
@dataclass(frozen=True, eq=False)
class Sum(Derived):
    """`operator` plus `other`; a product has the dtypes of the parameters of `operator`."""

    other: Operator

    def _product(self, v: Params) -> Params:
        return _add(self.operator._product(v), self.other._product(v))

    def _diagonal(self) -> Params:
        return _add(self.operator._diagonal(), self.other._diagonal())

    def _trace(self) -> jax.Array:
        return _add(self.operator._trace(), self.other._trace())


def _add(a: Any, b: Any) -> Any:
    """a + b leaf by leaf, each in the wider dtype of its two terms."""

    def add(a: jax.Array, b: jax.Array) -> jax.Array:
        dtype = common_dtype(a.dtype, b.dtype)
        return a.astype(dtype) + b.astype(dtype)

    return jax.tree.map(add, a, b)


def _factor(name: str, value: ArrayLike) -> jax.Array:
    value = check.scalar(name, value)
    check.require(name, value, check.is_finite, "finite")
    return value


def flat_product(op: Operator) -> Callable[[jax.Array], jax.Array]:
    """A v as a function of one flat vector (p,), in the dtype of sums; for use inside a compiled function."""
    return on_flat(op.net, op._product, accumulator(op.dtype))


def check_operator(op: Any) -> None:
    """Raise TypeError if `op` is no operator."""
    if not isinstance(op, Operator):
        raise TypeError(f"op must be an operator, such as lr_nn.curvature.ggn returns; got {type(op).__name__}")


def check_same_layers(op: Operator, other: Operator) -> None:
    """Raise ValueError if two operators belong to networks of different sizes, or one with a bias and one without."""
    layers = [f"sizes {net.sizes} with bias={net.bias}" for net in (op.net, other.net)]
    if layers[0] != layers[1]:
        raise ValueError(f"two operators must be of networks with the same layers; got {layers[0]} and {layers[1]}")


def _multiplier(op: Operator) -> Linear:
    return op._product


def _solver(op: Solvable, damping: jax.Array) -> Linear:
    return op._solver(damping)


@compiled
def _dense(op: Operator) -> jax.Array:
    return map_columns(flat_product(op), jnp.eye(op.shape[0], dtype=accumulator(op.dtype)))


@compiled
def _diagonal(op: Operator) -> Params:
    return op._diagonal()


@compiled
def _trace(op: Operator) -> jax.Array:
    return op._trace()
