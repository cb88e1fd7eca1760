"""One table of cases for the rules of lr_nn.graph: every operation, at random values and at its shape oddities."""

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

N = 12


def _draw(seed, *shapes, low=-2.0, high=2.0):
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(low, high, size=shape) for shape in shapes)


@dataclass(frozen=True)
class Case:
    """An operation as a function of arrays, the arrays, how its condition multiplies rounding, and its twin."""

    operation: str
    name: str
    function: Any
    args: tuple
    condition: float = 1
    twin: Any = None

    def __str__(self):
        return f"{self.operation}, {self.name}" if self.name else self.operation


def case(operation, function, *args, name="", condition=1, twin=None):
    return Case(operation, name, function, args, condition, twin or function)


def unary(operation, function, low=-2.0, high=2.0, condition=1):
    (x,) = _draw(len(operation), (3, 4), low=low, high=high)
    return [
        case(operation, function, x, condition=condition),
        case(operation, function, x[0, 0], name="scalar", condition=condition),
    ]


def binary(operation, function, low=-2.0, high=2.0):
    """On two arrays, and with a scalar on either side: its adjoint is a sum."""
    x, y = _draw(len(operation), (3, 4), (3, 4), low=low, high=high)
    return [
        case(operation, function, x, y),
        case(operation, function, x[0, 0], y, name="scalar left"),
        case(operation, function, x, y[0, 0], name="scalar right"),
        case(operation, lambda x: function(x, x * x), x, name="used twice"),
        case(operation, function, x[:0], y[:0], name="empty"),
    ]


def flat(operation, function, *args):
    """Of an operation that passes nothing back: its value enters beside the argument."""
    x, *rest = args

    def with_argument(x):
        found = function(x, *rest)
        return jnp.sum(found.astype(x.dtype)) + jnp.sum(x)

    return [case(operation, with_argument, np.asarray(x))]


X, Y = _draw(0, (3, 4), (3, 4))
BITS = np.array([[True, False, True, True], [False, False, True, False], [True, True, True, True]])
TIES = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [-1.0, 0.0, 0.0, -1.0]])
ZEROS = np.array([[1.5, 0.0, 3.0, 2.0], [0.0, 2.0, 0.0, -2.0], [-1.0, 0.5, 2.0, -1.5]])
CUBE, OTHER = _draw(1, (2, 3, 4), (2, 4, 5))

ELEMENTWISE = [
    *unary("neg", lax.neg),
    *binary("add", lax.add),
    *binary("sub", lax.sub),
    *binary("mul", lax.mul),
    *binary("div", lax.div, low=0.5, high=2),
    *binary("rem", lax.rem, low=0.3, high=3),
    case("rem", lax.rem, X, Y, name="signs"),
    *binary("pow", lax.pow, low=0.5, high=2),
    case("pow", lax.pow, X, np.array([[0, 1, 2, 3]] * 3), name="integer exponents"),
    *(case("integer_pow", lambda x, y=y: lax.integer_pow(x, y), ZEROS, name=str(y)) for y in (0, 1, 2, 3, 7)),
    *(case("integer_pow", lambda x, y=y: lax.integer_pow(x, y), X, name=str(y)) for y in (-1, -2)),
    *unary("square", lax.square),
    *unary("sqrt", lax.sqrt, low=0.1),
    *unary("rsqrt", lax.rsqrt, low=0.1),
    *unary("cbrt", lax.cbrt),
    *unary("exp", lax.exp),
    *unary("exp2", lax.exp2),
    *unary("expm1", lax.expm1),
    *unary("log", lax.log, low=0.1),
    *unary("log1p", lax.log1p, low=-0.9),
    *unary("sin", lax.sin),
    *unary("cos", lax.cos),
    *unary("tan", lax.tan, low=-1.2, high=1.2),
    *unary("asin", lax.asin, low=-0.9, high=0.9),
    *unary("acos", lax.acos, low=-0.9, high=0.9),
    *unary("atan", lax.atan),
    *binary("atan2", lax.atan2),
    *unary("sinh", lax.sinh),
    *unary("cosh", lax.cosh),
    *unary("tanh", lax.tanh),
    *unary("asinh", lax.asinh),
    *unary("acosh", lax.acosh, low=1.2, high=4),
    *unary("atanh", lax.atanh, low=-0.9, high=0.9),
    *unary("logistic", lax.logistic),
    *unary("erf", lax.erf),
    *unary("erfc", lax.erfc, condition=100),
    *unary("erf_inv", lax.erf_inv, low=-0.9, high=0.9),
    *unary("lgamma", lax.lgamma, low=0.3, high=5, condition=100),
    *unary("digamma", lax.digamma, low=0.3, high=5, condition=100),
    *unary("abs", lax.abs),
    case("abs", lax.abs, ZEROS, name="at zero"),
    *flat("sign", lax.sign, ZEROS),
    *flat("floor", lax.floor, X),
    *flat("ceil", lax.ceil, X),
    *flat("round", lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), [0.5, -0.5, 1.5, 2.5, -3.2]),
    *flat("round", lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), [0.5, -0.5, 1.5, 2.5, -3.2]),
    *flat("nextafter", lambda x: lax.nextafter(lax.stop_gradient(x), jnp.ones_like(x)), X),
    *flat("is_finite", lax.is_finite, [1.0, 2.0]),
    *(
        entry
        for op in (lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge)
        for entry in flat(op.__name__, lambda x, op=op: op(x, jnp.zeros_like(x)), ZEROS)
    ),
    *(
        entry
        for name, op in {"and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor}.items()
        for entry in flat(name, lambda x, op=op: op(x > 0, x > 1), X)
    ),
    *flat("not", lambda x: lax.bitwise_not(x > 0), X),
    case("convert_element_type", lambda x: lax.convert_element_type(x, jnp.float64), X.astype(np.float32)),
    *flat("convert_element_type", lambda x: lax.convert_element_type(x, jnp.int32), [1.7, -1.7, 3e10, -3e10, np.nan]),
    *flat("convert_element_type", lambda x: lax.convert_element_type(x, jnp.bool_), ZEROS),
    *(
        case(
            "reduce_precision",
            lambda x, bits=bits: lax.reduce_precision(x, *bits),
            np.array([1.1, -1e-7, 6e-8, 7e4, -3.0, 0.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8]),
            name=f"{bits}",
        )
        for bits in ((5, 10), (8, 7), (8, 23), (11, 52))
    ),
    case("copy", lax.copy_p.bind if hasattr(lax, "copy_p") else jnp.copy, X),
    case("stop_gradient", lambda x: lax.stop_gradient(x) * x, X),
    case("name", lambda x: checkpoint_name(x, "x"), X),
]


def _clamp(low, x, high):
    """JAX cannot differentiate its own by scalar bounds."""
    return lax.clamp(jnp.full(x.shape, low), x, jnp.full(x.shape, high))


CHOICES = [
    *binary("max", lax.max),
    *binary("min", lax.min),
    case("max", lax.max, TIES, np.full((3, 4), 2.0), name="ties"),
    case("min", lax.min, TIES, 0.0, name="ties with a scalar"),
    case("clamp", lax.clamp, -0.5, X, 0.5, name="scalar bounds", twin=_clamp),
    case("clamp", lax.clamp, X - 0.1, Y, X + 0.1, name="bounds of arrays"),
    case("clamp", lax.clamp, 1.0, TIES, 2.0, name="ties", twin=_clamp),
    case("select_n", lambda x, y: lax.select_n(BITS, x, y), X, Y),
    case("select_n", lambda x, y: lax.select_n(np.array(True), x, y), X, Y, name="one choice"),
    case("select_n", lambda *xs: lax.select_n(np.array([0, 2, 1], np.int32), *xs), X[:, 0], X[:, 1], X[:, 2], name="3"),
]


def dot(left, right, batch_left=(), batch_right=()):
    return lambda x, y: lax.dot_general(x, y, ((left, right), (batch_left, batch_right)))


def conv(strides, padding, numbers, name, shapes, **options):
    def function(x, w):
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=numbers, **options)

    return case("conv_general_dilated", function, *_draw(5, *shapes), name=name)


IMAGE = ("NCHW", "OIHW", "NCHW")
PRODUCTS = [
    case("dot_general", dot((1,), (0,)), X, Y.T.copy(), name="matrices"),
    case("dot_general", dot((0,), (0,)), X, Y, name="left transposed"),
    case("dot_general", dot((1,), (1,)), X, Y, name="right transposed"),
    case("dot_general", dot((0,), (0,)), X[0], Y[0], name="vectors"),
    case("dot_general", dot((1,), (0,)), X, Y[0], name="matrix and vector"),
    case("dot_general", dot((0,), (0,)), X[:, 0], Y, name="vector and matrix"),
    case("dot_general", dot((), ()), X[0], Y[0], name="outer"),
    case("dot_general", dot((2,), (1,), (0,), (0,)), CUBE, OTHER, name="batch"),
    case("dot_general", dot((0, 2), (0, 1)), CUBE, OTHER, name="two contracted"),
    case("dot_general", dot((1,), (2,), (2, 0), (0, 1)), CUBE, OTHER.transpose(1, 0, 2)[:, :, :3], name="batch moved"),
    case("dot_general", dot((1,), (0,)), X[:, :0], Y.T[:0], name="empty"),
    conv((1, 1), "SAME", IMAGE, "same", [(2, 3, 5, 4), (4, 3, 3, 2)]),
    conv((2, 1), [(1, 2), (0, -1)], IMAGE, "strides, padding", [(2, 3, 6, 5), (4, 3, 3, 2)]),
    conv((1, 2), "VALID", ("NHWC", "HWIO", "NHWC"), "channels last", [(2, 6, 5, 3), (2, 3, 3, 4)]),
    conv(
        (1,), [(2, 2)], ("NCH", "OIH", "NCH"), "dilated", [(2, 3, 5), (4, 3, 3)], lhs_dilation=(2,), rhs_dilation=(2,)
    ),
    conv((1, 1), "SAME", IMAGE, "groups", [(2, 4, 5, 4), (6, 2, 3, 2)], feature_group_count=2),
    conv((1, 1), "VALID", IMAGE, "batch groups", [(4, 3, 5, 4), (6, 3, 3, 2)], batch_group_count=2),
]
STRUCTURE = [
    case("reshape", lambda x: lax.reshape(x, (4, 3)), X),
    case("reshape", lambda x: lax.reshape(x, ()), np.ones((1, 1)), name="to a scalar"),
    case("squeeze", lambda x: lax.squeeze(x, (0, 2)), np.ones((1, 3, 1))),
    case("transpose", lambda x: lax.transpose(x, (2, 0, 1)), CUBE),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (1, 2)), X),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (3, 4), ()), np.asarray(2.0), name="scalar"),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (3, 4), (0, 1)), X[:, :1], name="stretched"),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (3, 4), (0,)), X[:, 0], name="trailing"),
    case("rev", lambda x: lax.rev(x, (0, 2)), CUBE),
    case("slice", lambda x: lax.slice(x, (0, 1), (3, 4), (2, 2)), X, name="strides"),
    case("slice", lambda x: lax.slice(x, (1, 0), (1, 4)), X, name="empty"),
    case("slice", lambda x: lax.slice(x, (1, 0), (3, 4)), X),
    case("dynamic_slice", lambda x: lax.dynamic_slice(x, (1, 2), (2, 2)), X),
    case("dynamic_slice", lambda x: lax.dynamic_slice(x, (9, -9), (2, 2)), X, name="over the edge"),
    case("dynamic_update_slice", lambda x, y: lax.dynamic_update_slice(x, y, (1, 1)), X, Y[:2, :2]),
    case(
        "dynamic_update_slice", lambda x, y: lax.dynamic_update_slice(x, y, (5, 5)), X, Y[:2, :2], name="over the edge"
    ),
    case("pad", lambda x, y: lax.pad(x, y, ((1, 2, 0), (0, 1, 2))), X, np.asarray(0.5)),
    case("pad", lambda x, y: lax.pad(x, y, ((-1, 2, 1), (0, -2, 0))), X, np.asarray(0.5), name="cut off"),
    case("pad", lambda x, y: lax.pad(x, y, ((-1, -2, 1), (0, -9, 2))), X, np.asarray(0.5), name="cut between"),
    case("concatenate", lambda x, y, z: lax.concatenate([x, y, z], 1), X, Y[:, :1], X[:, :0]),
    case("concatenate", lambda x: lax.concatenate([x, x], 0), X, name="twice the same"),
    case("stack", lambda x, y: jnp.stack([x, y, x], axis=1), X, Y),
    case("unstack", lambda x: jnp.unstack(x, axis=1), X),
    case("unstack", lambda x: jnp.unstack(x, axis=1)[2], X, name="one used"),
    case("split", lambda x: lax.split(x, (1, 0, 3), axis=1), X),
    case("split", lambda x: lax.split(x, (1, 3), axis=1)[1], X, name="one used"),
    case("split", lambda x: lax.split(x, (4,), axis=1), X, name="into one"),
    case("optimization_barrier", lambda x, y: lax.optimization_barrier((x, y)), X, Y),
    case("device_put", jax.device_put, X),
    case("iota", lambda x: x * lax.broadcasted_iota(jnp.float64, (3, 4), 1), X),
]
PRODUCTS_OF = {"reduce_prod": jnp.prod}
REDUCTIONS = [
    *(case("reduce_sum", lambda x, axes=axes: lax.reduce_sum(x, axes), CUBE, name=str(axes)) for axes in ((0, 2), ())),
    *(
        case(name, lambda x, op=op, axes=axes: op(x, axes), array, name=f"{kind}, {axes}")
        for name, op in {
            "reduce_max": lax.reduce_max,
            "reduce_min": lax.reduce_min,
            "reduce_prod": lax.reduce_prod,
        }.items()
        for kind, array in {"random": X, "ties": TIES, "zeros": ZEROS}.items()
        for axes in ((0,), (1,), (0, 1))
    ),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0, 2)), CUBE, name="outer axes"),
    *flat("reduce_and", lambda x: lax.reduce_and(x > 0, (1,)), X),
    *flat("reduce_or", lambda x: lax.reduce_or(x > 0, (0, 1)), X),
    *flat("reduce_xor", lambda x: lax.reduce_xor(x > 0, (1,)), X),
    *flat("argmax", lambda x: lax.argmax(x, 1, jnp.int32), TIES),
    *flat("argmin", lambda x: lax.argmin(x, 0, jnp.int32), TIES),
    *(
        case(name, lambda x, op=op, axis=axis, back=back: op(x, axis, back), array, name=f"{kind}, {axis}, {back}")
        for name, op in {
            "cumsum": lax.cumsum,
            "cumprod": lax.cumprod,
            "cummax": lax.cummax,
            "cummin": lax.cummin,
            "cumlogsumexp": lax.cumlogsumexp,
        }.items()
        for kind, array in {"random": X, "zeros": ZEROS if name == "cumprod" else Y}.items()
        for axis, back in ((0, False), (1, True))
    ),
    case("cumsum", lax.cumsum, X[:0], name="empty"),
]


def pool(operation, neutral, combine, array, padding, name="", **options):
    def function(x):
        return lax.reduce_window(x, neutral, combine, (2, 3), (1, 2), padding, **options)

    return case(operation, function, array, name=name)


WINDOWS = [
    pool("reduce_window_sum", 0.0, lax.add, X, "SAME"),
    pool("reduce_window_sum", 0.0, lax.add, X, "VALID", base_dilation=(2, 1), window_dilation=(1, 1), name="dilated"),
    pool("reduce_window_max", -np.inf, lax.max, X, "VALID"),
    pool("reduce_window_max", -np.inf, lax.max, X, ((1, 0), (1, 1)), name="padded"),
    pool("reduce_window_max", -np.inf, lax.max, TIES, "SAME", name="ties"),
    pool("reduce_window_min", np.inf, lax.min, X, "SAME"),
    pool("reduce_window_min", np.inf, lax.min, TIES, "VALID", name="ties"),
]
INDEX = np.array([[0, 1], [2, 3], [0, 1], [5, 1], [-1, 0]], np.int32)


def gather(mode, collapsed=(0, 1), offset=(), sizes=(1, 1), index=INDEX, mapped=(0, 1)):
    numbers = lax.GatherDimensionNumbers(offset, collapsed, mapped)
    return lambda x: lax.gather(x, index, numbers, sizes, mode=mode, fill_value=7.0)


def scatter(op, mode, index=INDEX, window=(), inserted=(0, 1), mapped=(0, 1), **options):
    numbers = lax.ScatterDimensionNumbers(window, inserted, mapped)
    return lambda x, y: op(x, index, y, numbers, mode=mode, **options)


UNIQUE = np.array([[0, 1], [2, 3], [1, 1], [7, 0], [-1, 0]], np.int32)
(UPDATES,) = _draw(7, (5,))
ROWS = np.array([[2], [0], [2], [4]], np.int32)
INDEXING = [
    *(case("gather", gather(mode), X, name=mode) for mode in ("clip", "fill")),
    *(
        case("gather", gather(mode, (0,), (1,), (1, 4), ROWS, (0,)), X, name=f"rows, {mode}")
        for mode in ("clip", "fill")
    ),
    case("gather", gather("promise_in_bounds", (0,), (1,), (1, 4), ROWS[:3], (0,)), X, name="promise"),
    case("gather", gather("fill", (), (1, 2), (2, 3), INDEX), X, name="windows"),
    case("gather", gather("clip", (), (0, 2), (2, 3), INDEX), X, name="windows, axes moved"),
    case("gather", lambda x: x[:, np.array([0, 2, 2])], X, name="columns"),
    case("gather", lambda x: jnp.take_along_axis(x, np.array([[0, 3], [1, 1], [2, 0]]), axis=1), X, name="along"),
    case("gather", lambda x: x[np.array([[0, 1], [2, 2]]), :, np.array([1, 3])], CUBE, name="around an axis"),
    case(
        "gather",
        jax.vmap(lambda x, i: x[i], in_axes=(0, None)),
        X,
        np.array([3, 0]),
        name="under vmap",
    ),
    case("gather", jax.vmap(lambda x, i: lax.dynamic_slice(x, (i,), (2,))), X, np.array([3, 0, 1]), name="batched"),
    *(case("scatter", scatter(lax.scatter, mode), X, UPDATES, name=mode) for mode in ("clip", "drop")),
    *(case("scatter-add", scatter(lax.scatter_add, mode), X, UPDATES, name=mode) for mode in ("clip", "drop")),
    case(
        "scatter-add", scatter(lax.scatter_add, "drop", ROWS, (1,), (0,), (0,)), X, CUBE.reshape(6, 4)[:4], name="rows"
    ),
    case("scatter", lambda x, y: x.at[1:].set(y), X, Y[1:], name="slice"),
    case("scatter-add", lambda x, y: x.at[:, np.array([1, 1])].add(y), X, Y[:, :2], name="columns"),
    case(
        "scatter-add",
        jax.vmap(lambda x, i, y: x.at[i].add(y)),
        X,
        np.array([3, 0, 1]),
        Y[:, 0],
        name="batched",
    ),
    case("sort", lambda x: lax.sort(x, dimension=0), X),
    case("sort", lambda x: lax.sort(x, dimension=1), TIES, name="ties"),
    case("sort", lambda x, y: lax.sort((x, y), dimension=1, num_keys=1), TIES, Y, name="with another"),
    case("sort", lambda x, y: lax.sort((x, y), dimension=1, num_keys=2), TIES, Y, name="two keys"),
    case("top_k", lambda x: lax.top_k(x, 2)[0], X),
    case("top_k", lambda x: lax.top_k(x, 3)[0], TIES, name="ties"),
    case("top_k", lambda x: lax.top_k(x, 2), X, name="with positions"),
]


def triangular(*flags):
    """A triangular system: from the left, lower, transposed, of unit diagonal, or not."""
    names = ("left_side", "lower", "transpose_a", "unit_diagonal")
    given = dict(zip(names, flags))
    b = RIGHT if given["left_side"] else RIGHT.swapaxes(-1, -2)
    name = ", ".join(key for key, flag in given.items() if flag)
    return case("triangular_solve", lambda a, b: lax.linalg.triangular_solve(a, b, **given), MATRICES, b, name=name)


NOISE, RIGHT, WIDE = _draw(8, (2, 4, 4), (2, 4, 3), (3, 5))
MATRICES = NOISE + 5 * np.eye(4)
FACTORS = [
    case("cholesky", jnp.linalg.cholesky, MATRICES @ MATRICES.swapaxes(-1, -2), name="batch"),
    case("cholesky", lambda a: lax.linalg.cholesky(a, symmetrize_input=False), MATRICES[0] @ MATRICES[0].T),
    *(triangular(*flags) for flags in itertools.product([True, False], repeat=4)),
    *(case("lu", lambda a: lax.linalg.lu(a)[0], a, name=name) for name, a in {"wide": WIDE, "tall": WIDE.T}.items()),
    case("lu", lax.linalg.lu, MATRICES[:, ::-1], name="batch, rows exchanged"),
]
CASES = [*ELEMENTWISE, *CHOICES, *PRODUCTS, *STRUCTURE, *REDUCTIONS, *WINDOWS, *INDEXING, *FACTORS]
