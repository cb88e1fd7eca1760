"""Right gradients of functions other than networks: normalised, attended, gated, looked up, sorted, accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np

from benchmarks.referees import Suspect
from benchmarks.right_cases import attention, cumulative, gating, normalisation, sorting, tables
from benchmarks.right_cases.case import Case

FAMILIES = {
    "normalisation": normalisation.CASES,
    "attention": attention.CASES,
    "gating": gating.CASES,
    "table look-ups": tables.CASES,
    "sorted values": sorting.CASES,
    "cumulative": cumulative.CASES,
}
FORMULATIONS: dict[str, Callable[[Case], Callable[..., Any]]] = {
    "jax.grad": lambda case: jax.jit(jax.grad(case.value)),
    "jax.grad of an equal function": lambda case: jax.jit(jax.grad(case.rewritten)),
    "jax.jacfwd": lambda case: jax.jit(jax.jacfwd(case.value)),
}


def suspects(count: int) -> Iterator[Suspect]:
    """`count` right gradients, by fixed seeds; families, their members, formulations and types take turns."""
    return islice(_endless(), count)


def _endless() -> Iterator[Suspect]:
    families, formulations, seed = list(FAMILIES.items()), list(FORMULATIONS.items()), 0
    while True:
        turn, at = divmod(seed, len(families))
        family, members = families[at]
        name, draw = list(members.items())[turn % len(members)]
        formulation, gradient = formulations[(turn // len(members) + at) % len(formulations)]
        case = draw(np.random.default_rng(seed))
        dtype = ("float32", "float64")[(turn // 2) % 2]
        yield Suspect(f"{family}: {name} {seed}, {formulation}", case, gradient(case), dtype)
        seed += 1
