"""The referee: is this gradient that of this value?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.referee.findings import findings
from lr_nn.referee.jaxprs import eps
from lr_nn.referee.points import Point, closer
from lr_nn.referee.programs import Programs
from lr_nn.referee.report import Leaf, Report
from lr_nn.referee.second_order import laws
from lr_nn.referee.subject import Subject, is_of_two_types


def audit(
    value_fn: Callable[..., Any],
    gradient_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    dtypes: Sequence[Any] | None = None,
    points: Mapping[str, tuple[Any, ...]] | None = None,
    hessian: Callable[..., Any] | None = None,
    ggn: Callable[..., Any] | None = None,
    pushforward: Callable[..., Any] | None = None,
    pullback: Callable[..., Any] | None = None,
    key: jax.Array | None = None,
) -> Report:
    """Whether `gradient_fn(params, *args)` is the gradient of `value_fn(params, *args)`, for each leaf and type.

    The gradient is compared entry by entry with a float64 reference, `jax.grad` of the value, beside `jax.grad` in
    the gradient's own type. An entry is right if its error is at most 4 (1 + √length) times what the computation must
    expect of its roundings, measured by Monte-Carlo arithmetic; `length` is that of its longest sum. The reference is
    itself under suspicion: the values of the function, along a random direction within each leaf, decide between it
    and the gradient (Taylor remainders), so that a wrong `custom_vjp` or a `stop_gradient` inside the value is found.
    All of this happens at the given point, where the parameters are multiplied by 1e-3, 30 and 1e4 (a leaf of zeros
    is made random first), where the arrays among `args` are multiplied by 100 (but for those within [0, 1], which may
    be labels), and at `points`. What is below the roundings of a leaf's largest entry is not seen.

    A leaf is *undecided* at a point where a number is not finite, or where the values do not resolve the derivative:
    they are constant, steps or rounding noise at the scale of its Taylor series, as those of a saturated softmax. Then
    points closer to the given one are audited, and the farthest that is decided counts. The report is ok if nothing
    that is decided is wrong and the given point is decided, each leaf in one type at least.

    `value_fn` must be traceable by JAX; `gradient_fn` may be any function, of NumPy too. Python's numbers in `args`
    are settings; arrays are data, and those of floating point are cast to the type of the audit.

    Args:
        value_fn: (params, *args) -> one real number.
        gradient_fn: (params, *args) -> like params.
        params: a pytree of real floating-point arrays.
        args: further arguments, any pytrees.
        dtypes: the types to audit in; by default that of the parameters (the narrowest) and float64.
        points: further points by name, each (params, *args).
        hessian: (params, v, *args) -> H v; must be symmetric, and the derivative of `gradient_fn` along v.
        ggn: (params, v, *args) -> G v; must be symmetric and positive semidefinite.
        pushforward: (params, v, *args) -> the tangent of some outputs; `pullback` must be its adjoint.
        pullback: (params, seed, *args) -> like params, seed shaped like the pushforward's result.
        key: of the random directions; None is a fixed one.

    Returns:
        Report: `.ok`, `.leaves`, `.worst`, `.undecided` (point, leaf, dtype, reason, decided_at), `.second_order`;
        `print(report)` is a table, `.to_json()`, `.figure()`.

    Raises:
        TypeError: a value that JAX cannot trace, parameters that are not floating point, tracers.
        ValueError: a value that is not one number, a gradient of another structure or shape than params, parameters
            that are not finite, a pushforward without its pullback.

    >>> import jax.numpy as jnp
    >>> report = audit(lambda w: jnp.sum(w**3), lambda w: 2 * w**2, jnp.arange(1.0, 4.0))
    >>> report.ok, report.worst.name
    (False, 'params')
    """
    if (pushforward is None) != (pullback is None):
        raise ValueError("pushforward and pullback are audited together, one against the other: pass both or neither")
    products = {"hessian": hessian, "ggn": ggn, "pushforward": pushforward, "pullback": pullback}
    for name, product in products.items():
        if product is not None and not callable(product):
            raise TypeError(f"{name} must be a function of (params, v, *args); got {type(product).__name__}")
    if key is not None:
        check.key(key)
    seed = 0 if key is None else int.from_bytes(np.asarray(jax.random.key_data(key)).tobytes(), "little")
    subject = Subject.of(value_fn, gradient_fn, params, args)
    given = narrowest_of(params)
    types = types_of([given, np.float64] if dtypes is None else dtypes)
    asked = subject.points(params, points or {}, seed)
    places = [within(subject, point, given) for point in asked]

    def between(far: Point) -> list[Point]:
        return [point.cast(given) for point in closer(asked[0], far, seed)]

    try:
        programs = Programs(subject, places[0], hessian)
        table = findings(programs, places, between, types, seed)
    except (TypeError, ValueError) as error:
        names = [] if jnp.result_type(float) == np.float64 else subject.held("fiu")
        if not names or not is_of_two_types(error):
            raise
        raise TypeError(
            f"value_fn or gradient_fn holds the 64-bit array {names[0]!r} of NumPy, which JAX cannot trace in two "
            f"types at once: pass it as an argument, audit(value_fn, gradient_fn, params, {names[0]})"
        ) from error
    leaves = tuple(
        Leaf(name, str(dtype), shape, tuple(found))
        for dtype, of_leaves in table.items()
        for name, shape, found in zip(subject.names, subject.shapes, of_leaves)
    )
    return Report(leaves, laws(subject, programs.hand, places[0], hessian, ggn, pushforward, pullback, seed))


def types_of(dtypes: Any) -> list[Any]:
    """The types to audit in, each once."""
    try:
        types = list(dict.fromkeys(jnp.dtype(dtype) for dtype in dtypes))
    except TypeError as error:
        raise TypeError(f"dtypes must be a list of types, such as [np.float32]; got {dtypes!r}") from error
    if not types:
        raise ValueError("dtypes is empty: name one type at least, such as [np.float64]")
    for dtype in types:
        if not jnp.issubdtype(dtype, np.floating) or dtype.itemsize > 8 or not dtype.isnative:
            raise TypeError(f"dtypes must be floating-point types; got {dtype}")
    return types


def within(subject: Subject, point: Point, dtype: Any) -> Point:
    """A point in the type of the audit, which must be able to hold it unless the audit has multiplied it itself."""
    place = point.cast(dtype)
    for name, leaf in zip(subject.names, jax.tree.leaves(place.params)):
        if not point.is_far and not np.isfinite(leaf.astype(np.float64)).all():
            raise ValueError(f"{name} holds a number that {dtype} cannot hold: audit under jax.enable_x64(True)")
    return place


def narrowest_of(params: Any) -> Any:
    """The narrowest type among the parameters, as JAX is set to compute it."""
    return max((jax.dtypes.canonicalize_dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(params)), key=eps)
