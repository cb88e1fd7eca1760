"""Laws that second-order products obey, whatever the function: symmetry, the adjoint identity, definiteness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee.finite_differences import CURVATURE_STEP, directions
from lr_nn.referee.jaxprs import compiled
from lr_nn.referee.points import Point
from lr_nn.referee.report import Check
from lr_nn.referee.subject import Subject

VECTORS = 4
KRYLOV = 30
INVARIANT = 1e-10
MULTIPLE = 100


def laws(
    subject: Subject,
    gradient: Callable,
    given: Point,
    hessian: Callable | None,
    ggn: Callable | None,
    pushforward: Callable | None,
    pullback: Callable | None,
    seed: int,
) -> tuple[Check, ...]:
    """The laws that the products given must obey, in float64 at the given point, leaf by leaf and over all."""
    with jax.enable_x64(True), np.errstate(all="ignore"):
        place, checks = given.cast(np.float64), []
        vectors = _vectors(subject, place, seed)
        if hessian is not None:
            product = _at(subject, hessian, place, vectors[0])
            products = [subject.like_params(product(v), "hessian") for v in vectors]
            checks += [_symmetry("hessian", vectors, products), _derivative(gradient, place, vectors, products)]
        if ggn is not None:
            product = _at(subject, ggn, place, vectors[0])
            products = [subject.like_params(product(v), "ggn") for v in vectors]
            checks += [_symmetry("ggn", vectors, products), _definite(subject, product, vectors, products)]
        if pushforward is not None and pullback is not None:
            checks.append(_adjoint(subject, place, pushforward, pullback, vectors, seed))
    return tuple(checks)


def _vectors(subject: Subject, place: Point, seed: int) -> list[Any]:
    """Random vectors over all leaves, each as long as its leaf, and for each leaf one that is zero elsewhere."""
    whole = [directions(place.params, seed + turn) for turn in range(VECTORS)]
    alone = [
        [leaf if index == own else np.zeros_like(leaf) for index, leaf in enumerate(whole[0])]
        for own in range(len(subject.shapes))
    ]
    return [jax.tree.unflatten(subject.structure, leaves) for leaves in [*whole, *alone]]


def _at(subject: Subject, function: Callable, place: Point, v: Any) -> Callable[[Any], Any]:
    """`function(params, v, *args)` at a point, as a function of v."""
    run = compiled(subject.product(function), place.params, place.arrays, v)
    return lambda v: run(place.params, place.arrays, v)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


def _allowed(size: int) -> float:
    """Rounding of products whose sums are as long as their vectors, with room for what is inside them."""
    return MULTIPLE * float(np.finfo(np.float64).eps) * (1 + size**0.5)


def _symmetry(name: str, vectors: list[Any], products: list[Any]) -> Check:
    """u · A v = v · A u for every pair."""
    v, a = np.stack([_flat(tree) for tree in vectors]), np.stack([_flat(tree) for tree in products])
    forms = v @ a.T
    norms = np.linalg.norm(v, axis=1)[:, None] * np.linalg.norm(a, axis=1)[None]
    scale = np.maximum(norms, norms.T)
    off = np.divide(np.abs(forms - forms.T), scale, out=np.zeros_like(forms), where=scale != 0)
    return Check(f"{name}: symmetric", float(off.max()), _allowed(v.shape[1]))


def _definite(subject: Subject, product: Callable, vectors: list[Any], products: list[Any]) -> Check:
    """v · G v >= 0 for every vector, and no negative Ritz value; the most negative, relative to the largest.

    Random vectors alone miss a few negative eigenvalues among many positive ones; those of G in the Krylov space of
    v, G v, G² v, ... come close to its least (Golub & Van Loan, Matrix Computations, section 10.1).
    """
    pairs = [(_flat(v), _flat(a)) for v, a in zip(vectors, products)]
    cosines = [v @ a / (np.linalg.norm(v) * np.linalg.norm(a) or 1) for v, a in pairs]
    ritz = _ritz(lambda v: _flat(product(subject.unravel(v))), pairs[0][0])
    least = np.min([*cosines, ritz.min() / (np.abs(ritz).max() or 1)])
    return Check("ggn: positive semidefinite", float(np.maximum(0.0, -least)), _allowed(len(pairs[0][0])))


def _ritz(multiply: Callable[[np.ndarray], np.ndarray], v: np.ndarray) -> np.ndarray:
    """The eigenvalues of a symmetric matrix in the Krylov space of v, with an orthonormal basis."""
    basis, images = np.zeros((0, v.size)), np.zeros((0, v.size))
    while len(basis) < min(KRYLOV, v.size):
        rest = v
        for _ in range(2):  # once leaves roundings of the components taken off
            rest = rest - (basis @ rest) @ basis
        if np.linalg.norm(rest) <= INVARIANT * np.linalg.norm(v):
            break
        basis = np.vstack([basis, rest / np.linalg.norm(rest)])
        v = multiply(basis[-1])
        images = np.vstack([images, v])
    if not np.isfinite(images).all():
        return np.full(1, np.nan)
    forms = basis @ images.T
    return np.linalg.eigvalsh((forms + forms.T) / 2) if len(basis) else np.zeros(1)


def _derivative(gradient: Callable, place: Point, vectors: list[Any], products: list[Any]) -> Check:
    """H v against a central difference of the gradient under audit, whose own error is about ε^(2/3)."""

    def ahead(v: Any, step: float) -> np.ndarray:
        return _flat(gradient(jax.tree.map(lambda p, d: p + step * d, place.params, v), place.arrays))

    errors = []
    for v, product in zip(vectors, map(_flat, products)):
        difference = (ahead(v, CURVATURE_STEP) - ahead(v, -CURVATURE_STEP)) / (2 * CURVATURE_STEP)
        errors.append(np.abs(difference - product).max(initial=0) / (np.abs(product).max(initial=0) or 1))
    return Check(
        "hessian: the derivative of the gradient",
        float(np.max(errors)),
        1e3 * float(np.finfo(np.float64).eps) ** (2 / 3),
    )


def _adjoint(
    subject: Subject, place: Point, pushforward: Callable, pullback: Callable, vectors: list[Any], seed: int
) -> Check:
    """<c, J v> = <Jᵀ c, v> for every v, with a random c each."""
    rng, errors, size = np.random.default_rng(seed), [], 1
    push = _at(subject, pushforward, place, vectors[0])
    outputs = push(vectors[0])
    if not jax.tree.leaves(outputs):
        raise ValueError("pushforward must return the tangent of some outputs; got no arrays")
    pull = _at(subject, pullback, place, outputs)
    for v in vectors:
        cotangent = jax.tree.map(lambda leaf: rng.standard_normal(jnp.shape(leaf)), outputs)
        back = subject.like_params(pull(cotangent), "pullback")
        c, jv, jtc, flat = (_flat(tree) for tree in (cotangent, push(v), back, v))
        scale = max(np.linalg.norm(c) * np.linalg.norm(jv), np.linalg.norm(jtc) * np.linalg.norm(flat))
        errors.append(abs(c @ jv - jtc @ flat) / (scale or 1))
        size = max(len(c), len(flat))
    return Check("pushforward and pullback: adjoint", float(np.max(errors)), _allowed(size))
