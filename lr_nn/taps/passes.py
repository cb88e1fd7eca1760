"""One forward and one backward pass of a function with taps, from which per-example quantities are computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.taps.example_axes import example_axes
from lr_nn.taps.layouts import Operand, untransposed
from lr_nn.taps.program import run, zeros
from lr_nn.taps.sites import Site, Survey, survey
from lr_nn.taps.tap import Recorder, plain
from lr_nn.taps.uses import Outer, Rows, Use
from lr_nn.trees import accumulator, compiled, register_class

Losses = Callable[..., jax.Array]
Axes = tuple[int | None, ...]


@register_class
@dataclass(frozen=True)
class TapPass:
    """One forward and one backward pass of a function with taps.

    `losses` ℓ_i (n,); `weight` (n,), or None for ones; `uses` of every leaf of the parameters: its per-example
    gradients in factored form, one for each tap that the leaf meets. `operands` says where each use lies in its leaf.
    Static are `operands`, `biases` (for each leaf the number of the leaf that is its bias, if one tap is the only use
    of both, else None), `structure` of the parameters, and `shapes` and `leaf_dtypes` of the leaves.
    """

    losses: jax.Array
    weight: jax.Array | None
    uses: tuple[tuple[Use, ...], ...]
    operands: tuple[tuple[Operand, ...], ...] = field(metadata={"static": True})
    biases: tuple[int | None, ...] = field(metadata={"static": True})
    structure: Any = field(metadata={"static": True})
    shapes: tuple[tuple[int, ...], ...] = field(metadata={"static": True})
    leaf_dtypes: tuple[str, ...] = field(metadata={"static": True})

    @property
    def n(self) -> int:
        """The number of examples."""
        return self.losses.shape[0]

    @property
    def layer_count(self) -> int:
        """The number of leaves, which take the place of layers."""
        return len(self.uses)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of sums over examples."""
        return accumulator(self.losses.dtype)

    @property
    def dtypes(self) -> Any:
        """The name of every leaf's dtype, in a tree like the parameters."""
        return self.tree(self.leaf_dtypes)

    def tree(self, leaves: Sequence[Any]) -> Any:
        """A tree like the parameters, with these leaves."""
        return jax.tree.unflatten(self.structure, leaves)


def backprop(
    function: Losses,
    params: Any,
    *args: Any,
    weight: ArrayLike | None = None,
    untapped: Literal["refuse", "vmap"] = "refuse",
    in_axes: Any = 0,
) -> TapPass:
    """One forward and one backward pass of `function(tap, params, *args) -> losses (n,)`, any function of JAX.

    The function calls `tap.dense`, `tap.embedding`, `tap.scale_shift` and `tap.conv` where its layers meet leaves of
    `params`. The first axis of their inputs is that of the n examples, or any other axis, also that of `lax.map`, which
    the program carries to the losses. An example must not influence the loss of another one: batch normalisation
    does. Layers may be inside of `jit`, `vmap`, `checkpoint` and `scan`; a leaf may be used any number of times, also
    transposed, reshaped, sliced or cast. `args` are traced: bind settings of Python by `functools.partial`.

    weight: example weights (n,), read as in a `Batch`. untapped: what happens to a leaf that is used elsewhere than in
    a tap: "refuse" raises; "vmap" computes its gradients by `vmap(grad)`, one backward pass for each example, and
    takes memory n × leaf; `in_axes` are then the axes of `args`, as those of `jax.vmap`.

    The pass is taken by `lr_nn.gradient`, the functions of `per_example`, `private.private_gradient` and
    `curvature.kfac`; their results are like `params`. One program is compiled for each function (so define it once,
    outside of a loop) and each shape of its arguments.

    Raises ValueError for leaves without a tap, by name, for parameters without leaves, for losses of another shape, and
    for weights that are negative or all zero; TypeError for leaves that are no floats and for a function without a
    hash; NotImplementedError for a tap inside of other control flow.

    >>> import jax, jax.numpy as jnp
    >>> from lr_nn import per_example, taps
    >>> def losses(tap, params, x, y):
    ...     hidden = jnp.tanh(tap.dense(x, params["w"], params["b"]))
    ...     return jnp.square(hidden.sum(axis=1) - y)
    >>> params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    >>> bp = taps.backprop(losses, params, jnp.ones((4, 3)), jnp.zeros(4))
    >>> per_example.squared_norms(bp).shape
    (4,)
    """
    if untapped not in {"refuse", "vmap"}:
        raise ValueError(f"untapped must be 'refuse' or 'vmap'; got {untapped!r:.100}")
    if not callable(function) or not isinstance(function, Hashable):
        raise TypeError(
            f"function must be hashable and callable: one program is compiled for each; got {type(function).__name__}"
        )
    if not jax.tree.leaves(params):
        raise ValueError("params has no leaves: there is nothing to differentiate by")
    for path, leaf in jax.tree.leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"leaf params{jax.tree_util.keystr(path)} must be of floats: pass it as an argument of its own"
            )
    if weight is not None:
        weight = check.numeric("weight", weight)
        if weight.ndim != 1:
            raise ValueError(f"weight must have shape (n,); got {weight.shape}")
        weight = check.weights(weight, len(weight), None)
    axes = _axes(in_axes, args) if untapped == "vmap" else ()
    return _backprop(function, params, args, weight, untapped, axes)


def _axes(in_axes: Any, args: tuple[Any, ...]) -> Axes:
    """The axis of every array of `args`."""
    try:
        prefix = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        trees = jax.tree.broadcast(prefix, args, is_leaf=lambda axis: axis is None)
    except ValueError as error:
        raise ValueError(
            f"in_axes must be one axis, or one for each of the {len(args)} args, as those of jax.vmap; got {in_axes!r}"
        ) from error
    structure: Any = jax.tree.structure(args)
    return tuple(structure.flatten_up_to(trees))


@partial(compiled, static_argnums=(0, 4, 5))
def _backprop(
    function: Losses, params: Any, args: tuple[Any, ...], weight: jax.Array | None, untapped: str, axes: Axes
) -> TapPass:
    named, structure = jax.tree.flatten_with_path(params)
    leaves, rest = [leaf for _, leaf in named], jax.tree.leaves(args)
    closed = jax.make_jaxpr(partial(function, Recorder()))(params, *args)
    n = _examples(closed.out_avals, weight)
    found = survey(closed.jaxpr, len(leaves))
    names = [jax.tree_util.keystr(path) for path, _ in named]
    if found.untapped and untapped == "refuse":
        raise ValueError(_untapped_message(found, names))

    def losses_of(perturbations: list[Any]) -> tuple[jax.Array, list[Any]]:
        (losses,), kept = run(closed, [*leaves, *rest], perturbations)
        return losses, kept

    active = [site.active for site in found.sites]
    losses, pullback, kept = jax.vjp(losses_of, zeros(closed, active), has_aux=True)
    (deltas,) = pullback(jnp.ones_like(losses))
    uses: list[list[tuple[Operand, Use]]] = [[] for _ in leaves]
    for site, shared, site_kept, delta in zip(found.sites, example_axes(closed.jaxpr), kept, deltas):
        for operand, use in _uses(site, shared, site_kept, delta, n):
            if operand.leaf not in found.untapped:
                uses[operand.leaf].append((operand, use))
    for leaf, gradients in _by_vmap(function, params, args, axes, sorted(found.untapped), n).items():
        uses[leaf].append((Operand(leaf), Rows(gradients[:, None])))
    return TapPass(
        losses,
        weight,
        tuple(tuple(use for _, use in each) for each in uses),
        tuple(tuple(operand for operand, _ in each) for each in uses),
        _biases(found, [len(each) for each in uses]),
        structure,
        tuple(jnp.shape(leaf) for leaf in leaves),
        tuple(jnp.result_type(leaf).name for leaf in leaves),
    )


def _examples(outputs: Sequence[Any], weight: jax.Array | None) -> int:
    """n, from the shape of the losses."""
    shapes = [each.shape for each in outputs]
    if len(outputs) != 1 or len(shapes[0]) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        got = [f"{each.dtype.name}{list(each.shape)}" for each in outputs]
        raise ValueError(f"the function must return the losses (n,) of the examples, of floats; got {', '.join(got)}")
    if (n := shapes[0][0]) == 0:
        raise ValueError("the function returned no losses; a batch has at least one example")
    if weight is not None and weight.shape != (n,):
        raise ValueError(f"weight must have shape ({n},), that of the losses; got {weight.shape}")
    return n


def _untapped_message(found: Survey, names: list[str]) -> str:
    tapped = {operand.leaf for site in found.sites for operand in site.operands if operand is not None}
    lines = [
        f"params{names[leaf]} is {'also ' if leaf in tapped else ''}used without a tap, by {where}"
        for leaf, where in sorted(found.untapped.items())
    ]
    hint = (
        'call tap.dense, embedding, scale_shift or conv there, or pass untapped="vmap", which takes n backward passes'
    )
    return "; ".join(lines) + ": " + hint


def _uses(site: Site, shared: tuple[bool, ...], kept: Any, delta: Any, n: int) -> list[tuple[Operand, Use]]:
    """The uses of leaves by one tap. A use of a transposed matrix becomes one of the matrix itself.

    `shared`: see `example_axes`.
    """
    if not site.active:
        return []
    operation = site.operation
    found: list[tuple[Operand, Use]] = []
    examples = _example_axis(site, shared, n)
    for slot, operand, shape in zip(operation.slots, site.operands, site.shapes):
        if operand is None:
            continue
        slices = [site.scans.index(scan) for scan in operand.scans]
        if examples in slices:
            raise NotImplementedError(
                f"a scan over the {n} examples takes a slice of a leaf for each of them, as {operation.slots} of "
                f"tap.{operation.name}; the parameters of a tap are those of all examples"
            )
        inputs = _arranged(kept, examples, slices, kept.ndim - operation.features)
        errors = _arranged(delta, examples, slices, delta.ndim - 1)
        use = operation.use(slot, inputs, errors, shape)
        if isinstance(use, Outer) and (original := untransposed(operand)) is not None:
            found.append((original, use.transposed()))
        else:
            found.append((operand, use))
    return found


def _biases(found: Survey, counts: list[int]) -> tuple[int | None, ...]:
    """For each leaf the leaf of its bias, where one tap is the only use of both, and uses the matrix as it is."""
    biases: list[int | None] = [None] * len(counts)
    for site in found.sites:
        operands = dict(zip(site.operation.slots, site.operands))
        w, b = operands.get("w"), operands.get("b")
        if w is None or b is None or w.scans != b.scans or not {w.leaf, b.leaf}.isdisjoint(found.untapped):
            continue
        if counts[w.leaf] == counts[b.leaf] == 1 and untransposed(w) is None:
            biases[w.leaf] = b.leaf
    return tuple(biases)


def _example_axis(site: Site, shared: tuple[bool, ...], n: int) -> int:
    """Which axis of the scans and of the tap's input is that of the examples.

    The one that the losses have too. Where that is not known, the first of the input, or one that `vmap` put there.
    """
    found = [axis for axis, same in enumerate(shared) if same]
    if len(found) == 1:
        return found[0]
    first, end = len(site.scans), len(site.input_shape) - site.operation.own_axes
    sizes = enumerate(site.input_shape[:end][: site.mapped + 1], first)
    candidates = [axis for axis, size in sizes if size == n and (not found or axis in found)]
    if len(candidates) == 1 or (n == 1 and candidates):  # axes of length one are alike
        return candidates[0]
    problem = "is none of them" if not candidates else "could be any of several axes"
    raise ValueError(
        f"the first axis of the input of tap.{site.operation.name} must be that of the {n} examples, or an axis that "
        f"the program carries to the losses; its shape is {site.input_shape}, with {site.mapped} axes of vmap in "
        f"front, and the axis of the examples {problem}"
    )


def _arranged(array: jax.Array, examples: int, slices: list[int], lead: int) -> jax.Array:
    """(n, S, T, ...) of an array whose first `lead` axes are those of scans, examples and positions."""
    positions = [axis for axis in range(lead) if axis != examples and axis not in slices]
    array = array.transpose(examples, *slices, *positions, *range(lead, array.ndim))
    sizes = array.shape[1 : 1 + len(slices)], array.shape[1 + len(slices) : lead]
    return array.reshape(array.shape[0], *map(prod, sizes), *array.shape[lead:])


def _by_vmap(
    function: Losses, params: Any, args: tuple[Any, ...], axes: Axes, which: list[int], n: int
) -> dict[int, jax.Array]:
    """The per-example gradients of some leaves, (n, *shape) each, by a backward pass of its own for each example."""
    if not which:
        return {}
    leaves, structure = jax.tree.flatten(params)

    def loss(chosen: dict[int, jax.Array], rows: tuple[Any, ...]) -> jax.Array:
        merged = [chosen.get(leaf, value) for leaf, value in enumerate(leaves)]
        return function(plain, jax.tree.unflatten(structure, merged), *rows)[0]

    rows, args_structure = jax.tree.flatten(args)

    def gradients(rows: list[Any]) -> dict[int, jax.Array]:
        batch = [row if axis is None else jnp.expand_dims(row, axis) for row, axis in zip(rows, axes)]
        return jax.grad(loss)({leaf: leaves[leaf] for leaf in which}, jax.tree.unflatten(args_structure, batch))

    return jax.vmap(gradients, (list(axes),), axis_size=n)(rows)
