"""Losses and activations as users write them, right ones and ones with a planted mistake: cases of the audit."""

import dataclasses
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lr_nn.activations import Activation
from lr_nn.losses import Bernoulli, Categorical, Loss, Poisson, Separable, SquaredError
from lr_nn.probability import expit, softplus
from lr_nn.trees import lift


class LogCosh(Separable):
    """log cosh(η - y): value and slope alone."""

    convex = True

    def term(self, eta, y):
        r = jnp.where(eta > y, eta - y, y - eta)
        return r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2)

    def slope(self, eta, y):
        return jnp.tanh(eta - y)


@dataclass(frozen=True)
class Coupled(Loss):
    """½ rᵀ A r with r = η - y, two outputs: convex, and a shift common to both changes it."""

    a: tuple = ((2.0, 0.9), (0.9, 1.0))
    least_outputs = 2
    concordance = 0.0

    def _matrix(self, eta):
        return jnp.asarray(self.a, eta.dtype)

    def value(self, eta, y):
        r = eta - y
        return (r * (r @ self._matrix(eta))).sum(axis=1) / 2

    def residual(self, eta, y):
        return (eta - y) @ self._matrix(eta)


class Correlated(Coupled):
    """The same with its law, a Gaussian of precision A."""

    def mean(self, eta):
        return eta

    def hessian_multiply(self, eta, y, v):
        return v @ self._matrix(eta)

    def fisher_multiply(self, eta, v):
        return v @ self._matrix(eta)

    def fisher_factor(self, eta):
        root = jnp.linalg.cholesky(self._matrix(eta))
        return jnp.broadcast_to(root.T[:, None, :], (2, *eta.shape))

    def sample(self, eta, key):
        root = jnp.linalg.cholesky(jnp.linalg.inv(self._matrix(eta)))
        return eta + jax.random.normal(key, eta.shape, eta.dtype) @ root.T


@dataclass(frozen=True)
class Pinball(Separable):
    """The quantile loss."""

    quantile: float = 0.3
    convex = True
    smooth = False

    def term(self, eta, y):
        r = y - eta
        return jnp.where(r > 0, self.quantile * r, (self.quantile - 1) * r)

    def slope(self, eta, y):
        return jnp.where(y > eta, -self.quantile, 1 - self.quantile)


@dataclass(frozen=True)
class Focal(Separable):
    """(1 - p)^γ times the cross-entropy: Lin et al. (2017)."""

    gamma: float = 2.0
    task = "labels"

    def valid(self, y):
        return (y >= 0) & (y <= 1)

    def term(self, eta, y):
        p, q, g = expit(eta), expit(-eta), self.gamma
        return y * q**g * softplus(-eta) + (1 - y) * p**g * softplus(eta)

    def slope(self, eta, y):
        p, q, g = expit(eta), expit(-eta), self.gamma
        one = -(q**g) * (q + g * p * softplus(-eta))
        zero = p**g * (p + g * q * softplus(eta))
        return y * one + (1 - y) * zero


@dataclass(frozen=True)
class Cauchy(Separable):
    """½ log(1 + (r / c)²)... times c²: not convex."""

    scale: float = 1.5

    def term(self, eta, y):
        return self.scale**2 / 2 * jnp.log1p(jnp.square((eta - y) / self.scale))

    def slope(self, eta, y):
        r = eta - y
        return r / (1 + jnp.square(r / self.scale))

    def curvature(self, eta, y):
        q = jnp.square((eta - y) / self.scale)
        return (1 - q) / (1 + q) / (1 + q)


@dataclass(frozen=True)
class NegativeBinomial(Separable):
    """Counts with a log link and r failures: (y + r) log(r + e^η) - y η."""

    r: float = 4.0
    target = "counts"
    convex = True

    def valid(self, y):
        return (y >= 0) & jnp.isfinite(y)

    def mean(self, eta):
        return jnp.exp(eta)

    def constant(self, mean):
        return jnp.log(mean)

    def term(self, eta, y):
        return (y + self.r) * (math.log(self.r) + softplus(eta - math.log(self.r))) - y * eta

    def slope(self, eta, y):
        p = expit(eta - math.log(self.r))
        return self.r * p - y * (1 - p)

    def curvature(self, eta, y):
        p = expit(eta - math.log(self.r))
        return (y + self.r) * p * (1 - p)

    def information(self, eta):
        return self.r * expit(eta - math.log(self.r))

    def sample(self, eta, key):
        gamma, poisson = jax.random.split(key)
        rate = jnp.exp(eta) * jax.random.gamma(gamma, self.r, eta.shape, eta.dtype) / self.r
        return jax.random.poisson(poisson, rate).astype(eta.dtype)


class Probit(Separable):
    """-log Φ(±η)."""

    task = "labels"
    convex = True

    def valid(self, y):
        return (y >= 0) & (y <= 1)

    def mean(self, eta):
        return jax.scipy.special.ndtr(eta)

    def term(self, eta, y):
        return -y * jax.scipy.special.log_ndtr(eta) - (1 - y) * jax.scipy.special.log_ndtr(-eta)

    def slope(self, eta, y):
        return -y * self._hazard(eta) + (1 - y) * self._hazard(-eta)

    def information(self, eta):
        return self._hazard(eta) * self._hazard(-eta)

    def sample(self, eta, key):
        return jax.random.bernoulli(key, self.mean(eta)).astype(eta.dtype)

    def _hazard(self, eta):
        """φ(η) / Φ(η), by its asymptote far to the left."""
        far = eta < -10
        near = jnp.where(far, 0, eta)
        ratio = jnp.exp(-near * near / 2 - jax.scipy.special.log_ndtr(near)) / (2 * jnp.pi) ** 0.5
        left = jnp.where(far, eta, -10)
        z = 1 / (left * left)
        series = 1 - z * (1 - z * (3 - 15 * z))
        return jnp.where(far, -left / series, ratio)


class OneVsRest(Loss):
    """A sum over classes of Bernoulli losses, for labels or rows: `value` and `residual` take rows."""

    task = "classes"
    least_outputs = 2
    convex = True

    def valid(self, y):
        return (y >= 0) & (y <= 1)

    def targets(self, y, n, k, dtype=jnp.float32):
        y = jnp.asarray(y)
        return super().targets(y, n, k, dtype) if y.ndim == 2 else y

    def encode(self, y, eta):
        return jax.nn.one_hot(y, eta.shape[1], dtype=eta.dtype) if y.ndim == 1 else y

    def value(self, eta, y):
        return (softplus(eta) - y * eta).sum(axis=1)

    def residual(self, eta, y):
        return expit(eta) - y


RIGHT_LOSSES = {
    "log-cosh": LogCosh(),
    "correlated": Correlated(),
    "pinball": Pinball(),
    "focal": Focal(),
    "cauchy": Cauchy(),
    "negative binomial": NegativeBinomial(),
    "probit": Probit(),
    "one versus rest": OneVsRest(),
}


class HardTanh(Activation):
    """Kinks at ±1."""

    def value(self, z):
        return jnp.clip(z, -1, 1)

    def derivative(self, a):
        return (jnp.square(a) < 1).astype(a.dtype)


class Relu6(Activation):
    """Kinks at 0 and 6."""

    def value(self, z):
        return jnp.minimum(jnp.maximum(z, 0), 6)

    def derivative(self, a):
        return ((a > 0) & (a < 6)).astype(a.dtype)

    def second_derivative(self, a):
        return jnp.zeros_like(a)


class Bump(Activation):
    """e^{-z²}."""

    keeps = "z"

    def value(self, z):
        return jnp.exp(-z * z)

    def derivative(self, z):
        return -2 * z * jnp.exp(-z * z)


@dataclass(frozen=True)
class Snake(Activation):
    """z + sin²(ωz)/ω: Liu Ziyin et al. (2020)."""

    omega: float = 3.0
    keeps = "z"

    def value(self, z):
        return z + jnp.square(jnp.sin(self.omega * z)) / self.omega

    def derivative(self, z):
        return 1 + jnp.sin(2 * self.omega * z)

    def second_derivative(self, z):
        return 2 * self.omega * jnp.cos(2 * self.omega * z)


class Mish(Activation):
    """z tanh(softplus(z))."""

    keeps = "z"

    def value(self, z):
        return z * jnp.tanh(softplus(z))

    def derivative(self, z):
        t = jnp.tanh(softplus(z))
        return t + z * (1 - t) * (1 + t) * expit(z)


class Selu(Activation):
    """A kink at 0 of the slopes λ and λα."""

    keeps = "z"

    def value(self, z):
        return 1.0507 * jnp.where(z > 0, z, 1.67326 * jnp.expm1(jnp.where(z > 0, 0, z)))

    def derivative(self, z):
        return 1.0507 * jnp.where(z > 0, 1, 1.67326 * jnp.exp(jnp.where(z > 0, 0, z)))


RIGHT_ACTIVATIONS = {
    "hard tanh": HardTanh(),
    "relu6": Relu6(),
    "bump": Bump(),
    "snake": Snake(),
    "fast snake": Snake(30.0),
    "mish": Mish(),
    "selu": Selu(),
}


def changed(base, *parameters, **methods):
    """An instance of a subclass of `base` in which some methods or flags are others."""
    return type(f"Wrong{base.__name__}", (base,), methods)(*parameters)


def at_entry(array, change):
    """`array` (n, k) with a change in its second output."""
    return array.at[:, 1].set(change(array[:, 1]))


@jax.custom_jvp
def fooled(r):
    """|r|^1.5, which tells autodiff that it is r²."""
    return jnp.abs(r) ** 1.5


fooled.defjvp(lambda primals, tangents: (fooled(*primals), 2 * primals[0] * tangents[0]))


class Fooled(Separable):
    """Its residual is what its custom derivative says, and not its value."""

    def term(self, eta, y):
        return fooled(eta - y)

    def slope(self, eta, y):
        return 2 * (eta - y)


class NaiveBernoulli(Bernoulli):
    """log(1 + e^η) overflows."""

    def term(self, eta, y):
        return jnp.log(1 + jnp.exp(eta)) - y * eta


class NaiveSoftmax(Categorical):
    """Exponentials of η overflow."""

    def value(self, eta, y):
        rows, total = self._rows(y, eta)
        return total * jnp.log(jnp.exp(eta).sum(axis=1)) - (rows * eta).sum(axis=1)


class LoseParameter(Separable):
    """A parameter that is no field."""

    def __init__(self, scale):
        object.__setattr__(self, "scale", scale)

    def term(self, eta, y):
        return self.scale * jnp.square(eta - y)

    def slope(self, eta, y):
        return 2 * self.scale * (eta - y)


class NoisySquaredError(SquaredError):
    """Noise of twice the standard deviation; the Fisher is of the true law."""

    def sample(self, eta, key):
        return eta + 2 * jax.random.normal(key, eta.shape, eta.dtype)


# The loss, and the rows of the audit that are wrong.
WRONG_LOSSES = {
    "residual of the other sign": (changed(LogCosh, slope=lambda self, eta, y: jnp.tanh(y - eta)), "residual"),
    "residual twice": (changed(LogCosh, slope=lambda self, eta, y: 2 * jnp.tanh(eta - y)), "residual"),
    "residual a thousandth too large": (
        changed(LogCosh, slope=lambda self, eta, y: 1.001 * jnp.tanh(eta - y)),
        "residual",
    ),
    "residual of one output": (
        changed(
            Correlated, residual=lambda self, eta, y: at_entry(Correlated.residual(self, eta, y), lambda r: 0.5 * r)
        ),
        "residual",
        "fisher_multiply",
        "sample",
    ),
    "residual of negative eta": (
        changed(LogCosh, slope=lambda self, eta, y: jnp.where(eta < -1, 0, jnp.tanh(eta - y))),
        "residual",
    ),
    "residual outside its kink": (
        changed(Pinball, slope=lambda self, eta, y: jnp.where(y >= eta, -1.3 * 0.3, 0.7)),
        "residual",
    ),
    "value that fools autodiff": (Fooled(), "residual"),
    "residual of y squared": (
        changed(Bernoulli, slope=lambda self, eta, y: expit(eta) - jnp.square(y)),
        "residual",
        "constant",
    ),
    "curvature twice": (
        changed(Cauchy, curvature=lambda self, eta, y: 2 * Cauchy.curvature(self, eta, y)),
        "hessian_multiply",
    ),
    "curvature of the wrong sign far out": (
        changed(Cauchy, curvature=lambda self, eta, y: jnp.abs(Cauchy.curvature(self, eta, y))),
        "hessian_multiply",
    ),
    "Hessian of the transpose": (
        changed(
            Correlated,
            hessian_multiply=lambda self, eta, y, v: v @ jnp.asarray([[2.0, 0.9], [0.8, 1.0]], eta.dtype),
        ),
        "hessian_multiply",
    ),
    "Hessian product that is not linear": (
        changed(Correlated, hessian_multiply=lambda self, eta, y, v: jnp.abs(v) @ self._matrix(eta)),
        "hessian_multiply",
    ),
    "Fisher twice": (
        changed(SquaredError, information=lambda self, eta: 2 * jnp.ones_like(eta)),
        "fisher_multiply",
        "canonical",
    ),
    "Fisher a tenth too large": (
        changed(Bernoulli, information=lambda self, eta: 1.1 * Bernoulli.information(self, eta)),
        "hessian_multiply",
        "fisher_multiply",
        "canonical",
    ),
    "Fisher without the correlation": (
        changed(
            Categorical, fisher_multiply=lambda self, eta, v: lift(self.mean(eta) * (1 - self.mean(eta)), v.ndim) * v
        ),
        "hessian_multiply",
        "fisher_multiply",
        "fisher_factor",
        "canonical",
    ),
    "factor of another matrix": (
        changed(Correlated, fisher_factor=lambda self, eta: 1.4 * Correlated.fisher_factor(self, eta)),
        "fisher_factor",
        "fisher_diagonal",
    ),
    "diagonal of another matrix": (
        changed(Categorical, fisher_diagonal=lambda self, eta: self.mean(eta)),
        "fisher_diagonal",
    ),
    "law of twice the noise": (NoisySquaredError(), "fisher_multiply", "sample"),
    "law of another mean": (
        changed(SquaredError, sample=lambda self, eta, key: 0.1 + SquaredError.sample(self, eta, key)),
        "mean",
        "sample",
    ),
    "law of targets that are not valid": (changed(Bernoulli, sample=SquaredError.sample), "sample"),
    "mean of another link": (changed(SquaredError, mean=lambda self, eta: 1.1 * eta), "mean"),
    "constant off by one": (changed(Bernoulli, constant=lambda self, mean: jnp.log(mean)), "constant"),
    "lowest value too high": (changed(Poisson, lowest=Loss.lowest), "lowest"),
    "falsely convex": (changed(Cauchy, convex=True), "convex"),
    "falsely convex by its concordance": (changed(Focal, concordance=5.0), "convex", "concordance"),
    "falsely canonical": (changed(Cauchy, canonical=True), "canonical"),
    "falsely canonical, its Hessian constant": (
        changed(Correlated, canonical=True, fisher_multiply=lambda self, eta, v: v, fisher_factor=Loss.fisher_factor),
        "fisher_multiply",
        "canonical",
    ),
    "falsely shift invariant": (changed(Correlated, shift_invariant=True), "shift_invariant"),
    "concordance too small": (changed(Bernoulli, concordance=0.8), "concordance"),
    "concordance too small for three classes": (changed(Categorical, concordance=1.2), "concordance"),
    "falsely smooth": (changed(Pinball, smooth=True), "smooth"),
    "falsely a sum over outputs": (changed(Correlated, couples_outputs=False), "couples_outputs"),
    "labels that are not their rows": (
        changed(Categorical, value=lambda self, eta, y: (1 if y.ndim == 2 else 2) * Categorical.value(self, eta, y)),
        "labels",
    ),
    "softplus that overflows": (NaiveBernoulli(), "far field in float32", "far field in bfloat16"),
    "softmax that overflows": (NaiveSoftmax(), "far field in float32", "far field in bfloat16"),
    "float32 for float64": (
        changed(LogCosh, slope=lambda self, eta, y: jnp.tanh(eta - y).astype(jnp.float32)),
        "shapes and dtypes",
    ),
    "float16 for float32": (
        changed(LogCosh, term=lambda self, eta, y: LogCosh.term(self, eta, y).astype(jnp.float16)),
        "shapes and dtypes",
    ),
    "value per output": (changed(Correlated, value=lambda self, eta, y: jnp.square(eta - y)), "value"),
    "value averaged": (
        changed(Correlated, value=lambda self, eta, y: jnp.square(eta - y).sum(axis=1) / len(eta)),
        "value",
        "residual",
        "hessian_multiply",
    ),
    "value NaN at zero": (
        changed(LogCosh, term=lambda self, eta, y: jnp.where(eta == 0, jnp.nan, LogCosh.term(self, eta, y))),
        "value",
        "residual",
    ),
    "products without leading axes": (
        changed(Correlated, fisher_multiply=lambda self, eta, v: jnp.einsum("nk,kj->nj", v, self._matrix(eta))),
        "fisher_multiply",
    ),
    "a parameter that is no field": (LoseParameter(2.0), "equality and hash"),
    "a branch on values": (
        changed(LogCosh, slope=lambda self, eta, y: jnp.tanh(eta - y) if (eta > y).all() else eta),
        "residual",
    ),
}


class WrongSine(Activation):
    """The root has lost the sign."""

    def value(self, z):
        return jnp.sin(z)

    def derivative(self, a):
        return jnp.sqrt((1 - a) * (1 + a))


@dataclass(frozen=True)
class Unhashable(Activation):
    """A field that has no hash."""

    slopes: list = dataclasses.field(default_factory=lambda: [1.0])

    def value(self, z):
        return z

    def derivative(self, a):
        return jnp.ones_like(a)


WRONG_ACTIVATIONS = {
    "sine of its output": (WrongSine(), "derivative"),
    "derivative of z, keeps a": (changed(Bump, keeps="a"), "derivative"),
    "derivative of a, keeps z": (changed(HardTanh, keeps="z", derivative=lambda self, z: 1 - z), "derivative"),
    "derivative twice": (changed(Mish, derivative=lambda self, z: 2 * Mish.derivative(self, z)), "derivative"),
    "derivative of one side": (changed(Selu, derivative=lambda self, z: 1.0507 * jnp.ones_like(z)), "derivative"),
    "derivative outside its kink": (
        changed(Relu6, derivative=lambda self, a: jnp.where(a == 0, -1, Relu6.derivative(self, a))),
        "derivative",
    ),
    "second derivative without its sign": (
        changed(Snake, second_derivative=lambda self, z: -Snake.second_derivative(self, z)),
        "second_derivative",
    ),
    "keeps both": (changed(Bump, keeps="both"), "keeps"),
    "softplus that overflows": (
        changed(Bump, value=lambda self, z: jnp.log(1 + jnp.exp(z)), derivative=lambda self, z: expit(z)),
        "far field in float32",
        "far field in bfloat16",
    ),
    "not elementwise": (
        changed(Bump, value=lambda self, z: z - z.mean(), derivative=lambda self, z: jnp.ones_like(z)),
        "value",
    ),
    "float32 for bfloat16": (
        changed(Bump, value=lambda self, z: jnp.exp(-(z.astype(jnp.float32) ** 2))),
        "shapes and dtypes",
    ),
    "shape lost": (changed(Bump, derivative=lambda self, z: -2 * (z * jnp.exp(-z * z)).ravel()), "shapes and dtypes"),
    "initial weights of another shape": (
        changed(Bump, initializer=lambda self: lambda key, shape, dtype: jnp.ones(shape[::-1], dtype)),
        "initializer",
    ),
    "initial weights that are infinite": (
        changed(Bump, initializer=lambda self: lambda key, shape, dtype: jnp.full(shape, jnp.inf, dtype)),
        "initializer",
    ),
    "a parameter without a hash": (Unhashable(), "equality and hash"),
    "a branch on values": (
        changed(Bump, derivative=lambda self, z: z if (z > 0).all() else -z),
        "derivative",
        "shapes and dtypes",
    ),
}
