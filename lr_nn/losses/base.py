"""The base classes `Loss` and `Separable`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.losses.optional import ELEMENTWISE, OPTIONAL
from lr_nn.trees import lift


@dataclass(frozen=True)
class Loss(ABC):
    """ℓ(η, y), its derivatives in η, and the law p(y | η) that it is the negative log-likelihood of.

    `value` and `residual` are enough to train. Every other method is optional: a function that needs one which is not
    stated raises NotImplementedError with its name. The flags `convex`, `canonical`, `shift_invariant` and
    `concordance` promise nothing unless stated, and `lr_nn.audit_loss` checks what they promise. `fit` gives a
    certificate where a loss states a finite `concordance` and its second derivative, or is `convex` with an l2 penalty
    on every weight; otherwise it finds a stationary point.

    `name` is the name of the class unless stated. Two losses are equal if they are of one class with equal parameters,
    so that they compile once; a class with parameters is a frozen dataclass.

    >>> from lr_nn import losses
    >>> losses.huber(1.5) == losses.huber(1.5)
    True
    """

    @property
    def name(self) -> str:
        """The name in messages and files."""
        return type(self).__name__

    @property
    def target(self) -> str:
        """What its targets must be, in words; `valid` says it in code."""
        return "finite numbers"

    @property
    def least_outputs(self) -> int:
        """The smallest k that makes sense."""
        return 1

    @property
    def task(self) -> Literal["values", "labels", "classes"]:
        """What is predicted: chooses the metrics."""
        return "values"

    @property
    def convex(self) -> bool:
        """Is ℓ convex in η, for all targets? True where the concordance is finite."""
        return self.concordance < float("inf")

    @property
    def canonical(self) -> bool:
        """Is the Hessian of ℓ in η its Fisher, for all targets?"""
        return False

    @property
    def shift_invariant(self) -> bool:
        """Does a shift common to all outputs, η + c, leave ℓ unchanged?"""
        return False

    @property
    def concordance(self) -> float:
        """c with |D³ℓ[u, u, v]| ≤ c ‖v‖ D²ℓ[u, u] in η: how fast the Hessian changes (Bach, 2010); ∞ if not known."""
        return float("inf")

    @property
    def smooth(self) -> bool:
        """Has ℓ a derivative at η = y? If not, `fit` refuses it, and `lr_nn.train` takes it."""
        return True

    @property
    def couples_outputs(self) -> bool:
        """Is ℓ not a sum over outputs?"""
        return True

    def check(self) -> None:
        """Raise TypeError or ValueError if the class is not one that a network can hold."""
        check.static_record(self.name, self)
        if self.task not in ("values", "labels", "classes"):
            raise ValueError(f"task of the loss {self.name} must be values, labels or classes; got {self.task!r}")
        for flag in ("convex", "canonical", "shift_invariant", "smooth", "couples_outputs"):
            if not isinstance(getattr(self, flag), (bool, np.bool_)):
                raise TypeError(
                    f"{flag} of the loss {self.name} must be True or False; got {getattr(self, flag)!r:.100}"
                )
        if not self.concordance >= 0:
            raise ValueError(f"concordance of the loss {self.name} must be at least 0; got {self.concordance}")

    def states(self, part: str) -> bool:
        """Does the loss state this optional method?"""
        return getattr(type(self), part) is not getattr(Loss, part)

    def require(self, part: str) -> None:
        """Raise NotImplementedError, with what `part` is and is for, if the loss does not state it."""
        if not self.states(part):
            raise self._missing(part)

    def describe(self, part: str) -> str:
        """What this optional method is, and what needs it."""
        return OPTIONAL[part]

    def lowest(self, y: jax.Array) -> jax.Array:
        """The smallest ℓ that encoded targets (n, k) allow, (n,)."""
        return jnp.zeros(y.shape[0], y.dtype)

    def recession(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The directions η̇ along which ℓ never grows, for encoded targets (n, k): a cone for every example.

        Rows r (n, c, k) and booleans (n, c): η̇_i is in the cone if r·η̇_i ≥ 0 for its rows, and = 0 where the boolean
        is True. None if the cone holds 0 alone.
        """
        return None

    @abstractmethod
    def value(self, eta: jax.Array, y: ArrayLike) -> jax.Array:
        """ℓ_i, (n,), of η (n, k) and targets of the same shape and dtype."""

    @abstractmethod
    def residual(self, eta: jax.Array, y: ArrayLike) -> jax.Array:
        """δ_L = ∂ℓ_i/∂η, (n, k)."""

    def mean(self, eta: jax.Array) -> jax.Array:
        """The mean of the response (the inverse link): probabilities or values, (n, k)."""
        raise self._missing("mean")

    def hessian_multiply(self, eta: jax.Array, y: ArrayLike, v: jax.Array) -> jax.Array:
        """(∂²ℓ_i/∂η²) v_i, shaped as `v`. It may be indefinite where the link is not canonical."""
        raise self._missing("hessian_multiply")

    def fisher_multiply(self, eta: jax.Array, v: jax.Array) -> jax.Array:
        """F_i v_i with F_i = E[residual residualᵀ], y drawn from p(y | η): positive semidefinite."""
        raise self._missing("fisher_multiply")

    def fisher_factor(self, eta: jax.Array) -> jax.Array:
        """Columns f_c of a factor of the Fisher, as seeds (k, n, k): F_i = Σ_c f_{c,i} f_{c,i}ᵀ."""
        raise self._missing("fisher_factor")

    def fisher_diagonal(self, eta: jax.Array) -> jax.Array:
        """The diagonal of F_i, (n, k)."""
        return jnp.square(self.fisher_factor(eta)).sum(axis=0)

    def sample(self, eta: jax.Array, key: jax.Array) -> jax.Array:
        """Encoded targets (n, k) drawn from p(y | η)."""
        raise self._missing("sample")

    def constant(self, mean: jax.Array) -> jax.Array:
        """The η (k,) of the best constant model, by the mean target (k,)."""
        raise self._missing("constant")

    def valid(self, y: Any) -> Any:
        """Which entries of the targets are admissible, elementwise; NaN and infinity never are."""
        return check.is_finite(y)

    def targets(self, y: ArrayLike, n: int, k: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
        """Admit targets for n examples and k outputs, (n, k), or (n,) where k = 1, as an array of `dtype`; else raise.

        ValueError for a wrong length, shape or (in a concrete array) value; TypeError for text and sparse arrays.
        """
        y = check.numeric("targets", y)
        self._shape(y, n, k)
        y = check.cast(y, dtype)
        check.require(f"targets of a {self.name} loss", y, self.valid, self.target)
        return y

    def masked_targets(self, y: Any, counted: Any, k: int) -> Any:
        """Targets of k outputs shaped as `y`: where `counted` (n,) is False, invalid ones become 0, or class 0.

        For rows of weight zero, whose targets may be anything: padding, a missing value.
        """
        valid = self.valid(y)
        return where_counted(counted | (valid if valid.ndim == 1 else valid.all(axis=1)), y, 0)

    def encode(self, y: ArrayLike, eta: jax.Array) -> jax.Array:
        """Admitted targets as an array of the shape and dtype of `eta`."""
        y = jnp.asarray(y)
        self._shape(y, *eta.shape)
        return y.reshape(eta.shape).astype(eta.dtype)

    def target_rows(self, y: ArrayLike, eta: jax.Array) -> jax.Array:
        """The targets passed to `value` and `residual`: encoded rows, or labels where a loss takes them as they are."""
        return self.encode(y, eta)

    def _missing(self, part: str) -> NotImplementedError:
        return NotImplementedError(f"the loss {self.name} states no {self.describe(part)}: add it to the class")

    def _shape(self, y: Any, n: int, k: int) -> None:
        if y.ndim and y.shape[0] != n:
            raise ValueError(f"x has {n} rows but y has {y.shape[0]}; they must be the same examples")
        if y.shape != (n, k) and not (k == 1 and y.shape == (n,)):
            expected = f"({n}, {k})" + (f" or ({n},)" if k == 1 else "")
            raise ValueError(
                f"targets of a {self.name} loss with {k} outputs must have shape {expected}; got {y.shape}"
            )


class Separable(Loss):
    """A loss that is a sum over outputs, ℓ_i = Σ_j ℓ(η_ij, y_ij), given by elementwise functions of (η, y).

    `term` and `slope` are enough to train. Both get η and y as flat vectors.
    """

    couples_outputs = False

    @abstractmethod
    def term(self, eta: jax.Array, y: jax.Array) -> jax.Array:
        """ℓ(η_ij, y_ij), elementwise."""

    @abstractmethod
    def slope(self, eta: jax.Array, y: jax.Array) -> jax.Array:
        """∂ℓ/∂η_ij, elementwise."""

    def curvature(self, eta: jax.Array, y: jax.Array) -> jax.Array:
        """∂²ℓ/∂η_ij², elementwise."""
        raise self._missing("curvature")

    def information(self, eta: jax.Array) -> jax.Array:
        """E[(∂ℓ/∂η_ij)²] under p(y | η), elementwise: the diagonal of the Fisher."""
        raise self._missing("information")

    def states(self, part):
        elementwise = ELEMENTWISE.get(part, part)
        return any(getattr(type(self), name) is not getattr(Separable, name) for name in {part, elementwise})

    def describe(self, part):
        return super().describe(ELEMENTWISE.get(part, part))

    def value(self, eta, y):
        return self._flat(self.term, eta, self.encode(y, eta)).sum(axis=1)

    def residual(self, eta, y):
        return self._flat(self.slope, eta, self.encode(y, eta))

    def hessian_multiply(self, eta, y, v):
        return lift(self._whole(self.curvature(eta, self.encode(y, eta)), eta), v.ndim) * v

    def fisher_multiply(self, eta, v):
        return lift(self._whole(self.information(eta), eta), v.ndim) * v

    def fisher_diagonal(self, eta):
        return self._flat(self.information, eta)

    def fisher_factor(self, eta):
        columns = jnp.eye(eta.shape[1], dtype=eta.dtype)[:, None, :]
        return columns * sqrt(self._whole(self.information(eta), eta))[None]

    def _flat(self, function, eta, *others):
        """function(η, ...) on flattened arrays: XLA:CPU is ten times slower over a short trailing axis.

        No `optimization_barrier` here: it keeps the compiler from folding a constant η, and XLA:CPU of JAX 0.10.2
        makes NaN of max(0, 0) in a sum.
        """
        flat = [a.reshape(-1) for a in (eta, *others)]
        return self._whole(function(*flat), flat[0]).reshape(eta.shape)

    def _whole(self, found, eta):
        """The result of an elementwise method, which may be constant, in the shape of `eta`."""
        return jnp.broadcast_to(jnp.asarray(found), eta.shape)


def sqrt(a: jax.Array) -> jax.Array:
    """√a for a ≥ 0, whose derivative at 0 is taken as 0 instead of infinite."""
    zero = a == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, a)))


def where_counted(counted: ArrayLike, y: Any, otherwise: Any) -> Any:
    """Rows of `y` where `counted` (n,), else `otherwise`, in the dtype of `y`: NumPy if both arguments are."""
    np_or_jnp: Any = jnp if isinstance(y, jax.Array) or isinstance(counted, jax.Array) else np
    y = np_or_jnp.asarray(y)
    rows = np_or_jnp.asarray(counted).reshape(-1, *(1,) * (y.ndim - 1))
    return np_or_jnp.where(rows, y, np_or_jnp.asarray(otherwise, y.dtype))
