"""Targets at which a loss is audited: the user's, drawn from its law, or of the kinds that it admits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.losses import Loss
from lr_nn.referee.part_checks import tuple_of
from lr_nn.referee.traced_parts import evaluate, quiet

# Rows of each kind of target, and the most rows that are audited.
EACH, MOST = 5, 16


class Targets(NamedTuple):
    """Admitted targets of k outputs.

    `y`: as `value` takes them, (t, k), or labels (t,). `rows`: encoded, (t, k). `labels`: admitted labels (m,) of a
    loss whose `target_rows` may keep them, or None. `is_stated`: whether the class or the user says which targets are
    valid; where neither does, a claim that fails at some candidates is undecided. `source`: the kinds of targets.
    `left_out`: why candidates were left out at which the value is not finite; empty where the set is stated.
    """

    y: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None
    k: int
    is_stated: bool
    source: str
    left_out: str = ""

    def subsets(self) -> Iterator[tuple[str, np.ndarray]]:
        """Masks (t,) of candidate target sets, with names: all, y >= 0, y in [0, 1]."""
        yield "", np.ones(len(self.rows), bool)
        if not self.is_stated:
            for name, inside in (("y >= 0", self.rows >= 0), ("y in [0, 1]", (self.rows >= 0) & (self.rows <= 1))):
                if (mask := np.asarray(inside.all(axis=1))).any() and not mask.all():
                    yield name, mask


def default_outputs(loss: Loss) -> int:
    """The number of outputs of an audit that is given neither `y` nor `k`."""
    return max(loss.least_outputs, 3)


def example_targets(loss: Loss, k: int, rng: np.random.Generator, draws: np.ndarray | None) -> Targets:
    """Targets of k outputs made by the audit: some of the `draws` (m, k) from `sample`, else what `targets` admits.

    Raises:
        ValueError: none of the candidates is admitted.
    """
    states_valid = any(getattr(type(loss), name) is not getattr(Loss, name) for name in ("valid", "targets"))
    if draws is None:
        targets = _admitted(loss, _candidates(loss, k, rng), k, states_valid)
        return targets if states_valid else _with_finite_value(loss, targets)
    kinds = {"drawn from sample": draws[rng.choice(len(draws), MOST // 2, replace=False)]}
    if states_valid:
        kinds["mixtures of draws"] = _mixtures(draws, rng)
    if loss.task == "classes":
        kinds["labels"] = rng.integers(k, size=EACH).astype(np.int32)
    return _admitted(loss, kinds, k, True)


def given_targets(loss: Loss, y: ArrayLike, k: int | None, rng: np.random.Generator) -> Targets:
    """The user's targets (n,) or (n, k), at most 16 rows of them; `k` None: as many outputs as they have.

    Raises:
        ValueError: they are not admitted by the loss.
        TypeError: they are no numbers.
    """
    array = np.asarray(check.numeric("y", y))
    if array.ndim not in (1, 2) or not len(array):
        raise ValueError(f"y must be targets (n,) or (n, k) with n > 0; got shape {array.shape}")
    sizes = [k] if k is not None else [array.shape[1]] if array.ndim == 2 else [1, _classes(loss, array)]
    if len(array) > MOST:
        array = array[np.sort(rng.choice(len(array), MOST, replace=False))]
    refusals = []
    for size in sizes:
        try:
            return _targets(loss, array, None, size, True, "given")
        except (TypeError, ValueError) as error:
            refusals.append(error)
    refusal = refusals[0 if loss.least_outputs == 1 else -1]
    raise ValueError(f"y is not admitted by the loss {loss.name}: {refusal}") from refusal


def _classes(loss: Loss, y: np.ndarray) -> int:
    """The number of classes of labels (n,): those that occur, at least 3 unless the loss needs more."""
    return max(loss.least_outputs, 3, int(y.max()) + 1 if np.isfinite(y).all() else 0)


def _mixtures(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weighted means of pairs of rows: soft labels, probabilities, broken counts."""
    share = rng.uniform(0.1, 0.9, size=(EACH, 1))
    first, second = (rows[rng.integers(len(rows), size=EACH)] for _ in range(2))
    return share * first + (1 - share) * second


def _candidates(loss: Loss, k: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Targets of every kind that a loss of this task may have."""
    shape, task = (EACH, k), loss.task
    classes = np.concatenate([np.arange(k), rng.integers(k, size=EACH)])[: max(k, EACH)]
    kinds: dict[str, Callable[[], np.ndarray]] = {
        "bits": lambda: np.concatenate([np.eye(1, k), 1 - np.eye(1, k), rng.integers(0, 2, size=shape)])[:EACH] * 1.0,
        "probabilities": lambda: rng.uniform(0.05, 0.95, size=shape),
        "normal numbers": lambda: rng.normal(size=shape),
        "counts": lambda: rng.poisson(2.0, size=shape) * 1.0,
        "positive numbers": lambda: rng.exponential(size=shape) + 0.1,
        "one-hot rows": lambda: np.eye(k)[classes],
        "soft rows": lambda: rng.dirichlet(np.ones(k), size=EACH),
        "labels": lambda: classes.astype(np.int32),
    }
    likely = {"labels": 2, "values": 5}.get(task, 0)
    names = list(kinds)[:likely] if likely else list(kinds)[5:]
    return {name: kinds[name]() for name in names}


def _admitted(loss: Loss, kinds: dict[str, np.ndarray], k: int, is_stated: bool) -> Targets:
    """The kinds that `loss.targets` admits, as one array; labels apart from rows."""
    admitted: dict[str, np.ndarray] = {}
    refusal: Exception | None = None
    for name, y in kinds.items():
        try:
            taken = _admit(loss, y, k)
        except Exception as error:  # a refusal, or a mistake in a user's `targets`
            refusal = error
            continue
        admitted[name] = y if y.ndim == 2 else np.asarray(taken)
    if not admitted:
        raise ValueError(
            f"none of the audit's example targets with {k} outputs is admitted by the loss {loss.name} ({refusal}): "
            "pass some of your own, audit_loss(loss, y=...), and k=... if it needs another number of outputs"
        ) from refusal
    source = ", ".join(admitted)
    rows = [y for y in admitted.values() if y.ndim == 2]
    if not rows:
        return _targets(loss, kinds["labels"], None, k, is_stated, source)
    takes_labels = type(loss).target_rows is not Loss.target_rows
    share = max(1, MOST // len(rows))
    y = np.concatenate([y[:share] for y in rows])
    return _targets(loss, y, admitted.get("labels") if takes_labels else None, k, is_stated, source)


def _with_finite_value(loss: Loss, targets: Targets) -> Targets:
    """The targets at which the value is finite at η = 0, all if it is nowhere."""
    with quiet(x64=True):
        found = evaluate({"value": loss.value}, np.zeros(targets.rows.shape), targets.y)
    value = found.results.get("value")
    if value is None or np.shape(value) != (len(targets.y),):
        return targets
    finite = np.isfinite(value)
    if finite.all() or not finite.any():
        return targets
    y, rows = targets.y[finite], targets.rows[finite]
    example = targets.rows[~finite][0]
    left_out = f"value is {value[~finite][0]} at y = {tuple_of(example)}: state which targets are valid(y)"
    return targets._replace(y=y, rows=rows, left_out=left_out)


def _admit(loss: Loss, y: np.ndarray, k: int) -> Any:
    with quiet(x64=True):
        return loss.targets(y, len(y), k, np.float64)


def _targets(loss: Loss, y: np.ndarray, labels: Any, k: int, is_stated: bool, source: str) -> Targets:
    with quiet(x64=True):
        admitted = _admit(loss, y, k)
        eta = jax.numpy.asarray(np.zeros((len(y), k)))
        rows = np.asarray(loss.encode(admitted, eta), np.float64)
        taken = np.asarray(loss.target_rows(admitted, eta))
    return Targets(taken, rows, labels, k, is_stated, source)
