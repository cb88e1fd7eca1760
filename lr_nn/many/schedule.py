"""Lanes one after another, side by side, or through a queue of slots: the same states, steps and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lr_nn.many import lane
from lr_nn.many.lane import Lane, Report, State
from lr_nn.many.one_layer import OneLayer

__all__ = ["Ran", "Stack", "one_by_one", "queued", "side_by_side"]

# Slots are filled anew when so large a part of them is empty.
REFILL = 0.25


class Stack(NamedTuple):
    """m lanes in one set of arrays, where what several share stands once.

    `objective` has leaves with a leading axis: strengths one for each lane, or one for all; `y`, `share`, `offset` and
    `x` one for each owner, or one for all; and lane i is that of `owner[i]`. An `x` without such an axis, (n, d), is
    given in float32 as `narrow`, too. `start` (m, p), `ceiling` (m,).
    """

    objective: OneLayer
    narrow: jax.Array | None
    owner: jax.Array
    start: jax.Array
    ceiling: jax.Array

    def pick(self, i: Any) -> Lane:
        """Lane i."""
        objective = self.problem(i)
        narrow = objective if self.narrow is None else replace(objective, x=self.narrow)
        columns = lane.columns_of(narrow.x, objective.net)
        return Lane(objective, lane.narrowed(narrow), columns, self.start[i], self.ceiling[i])

    def problem(self, i: Any) -> OneLayer:
        """The cost of lane i, for a solver that needs no more."""
        whole, owner = self.objective, self.owner[i]

        def of(leaf: jax.Array | None, j: Any) -> Any:
            return None if leaf is None else leaf[j if len(leaf) > 1 else 0]

        return replace(
            whole,
            x=of(whole.x, owner) if self.narrow is None else whole.x,
            y=of(whole.y, owner),
            share=of(whole.share, owner),
            offset=of(whole.offset, owner),
            l2=of(whole.l2, i),
            l1=of(whole.l1, i),
        )


class Ran(NamedTuple):
    """A report with a leading lane axis, and the steps that were computed for it, of lanes and of empty slots."""

    report: Report
    computed: jax.Array


Solve = Callable[[Lane, jax.Array], Report]


@partial(jax.jit, static_argnames=("solve", "slots"))
def one_by_one(stack: Stack, max_steps: jax.Array, solve: Solve, slots: int) -> Ran:
    """No lane waits for another; its numbers stay in a core's cache."""
    report = lax.map(lambda i: solve(stack.pick(i), max_steps), jnp.arange(len(stack.start)))
    return Ran(report, report.steps.sum())


@partial(jax.jit, static_argnames=("solve", "slots"))
def side_by_side(stack: Stack, max_steps: jax.Array, solve: Solve, slots: int) -> Ran:
    """All at once: each runs as long as the slowest."""
    report = jax.vmap(lambda i: solve(stack.pick(i), max_steps))(jnp.arange(len(stack.start)))
    return Ran(report, report.steps.max() * len(stack.start))


class _Queue(NamedTuple):
    """The lane in each slot (m: none), its data and state; the next to come; θ and steps of those that left."""

    ids: jax.Array
    lanes: Lane
    states: State
    waiting: jax.Array
    theta: jax.Array
    steps: jax.Array
    computed: jax.Array


@partial(jax.jit, static_argnames=("solve", "slots"))
def queued(stack: Stack, max_steps: jax.Array, solve: Solve, slots: int) -> Ran:
    """A fixed number of slots side by side: who has converged leaves, who waits takes its place.

    For devices that need many lanes at once, and `lane.smooth`, whose steps it takes; others run side by side.
    Reports are made of all lanes in the end, as many at a time.
    """
    if solve is not lane.smooth:
        return side_by_side(stack, max_steps, solve, slots)
    m = len(stack.start)
    slots = min(slots, m)

    def enter(ids: jax.Array) -> tuple[Lane, State]:
        lanes = jax.vmap(stack.pick)(jnp.minimum(ids, m - 1))
        return lanes, jax.vmap(lane.begin)(lanes)

    def running(queue: _Queue) -> jax.Array:
        return (queue.ids < m) & jax.vmap(lambda state: lane.goes_on(state, max_steps))(queue.states)

    def leave(queue: _Queue) -> _Queue:
        """Slots that are done give up their lane, and take the next."""
        done = ~running(queue)
        place = jnp.where(done, queue.ids, m)
        theta = queue.theta.at[place].set(queue.states.point.theta, mode="drop")
        steps = queue.steps.at[place].set(queue.states.steps, mode="drop")
        ids = jnp.where(done, jnp.minimum(queue.waiting + jnp.cumsum(done) - 1, m), queue.ids)
        fresh, states = enter(ids)
        states = jax.tree.map(partial(_where, done), states, queue.states)
        waiting = jnp.minimum(queue.waiting + done.sum(), m)
        return _Queue(ids, fresh, states, waiting, theta, steps, queue.computed)

    def turn(queue: _Queue) -> _Queue:
        on = running(queue)
        stepped = jax.vmap(lane.step)(queue.lanes, queue.states)
        queue = queue._replace(
            states=jax.tree.map(partial(_where, on), stepped, queue.states), computed=queue.computed + slots
        )
        on = running(queue)
        empty = (~on).sum()
        worth = (empty >= max(1, int(REFILL * slots))) & (queue.waiting < m)
        return lax.cond(worth | ~on.any(), leave, lambda queue: queue, queue)

    ids = jnp.arange(slots)
    lanes, states = enter(ids)
    theta, steps = jnp.zeros_like(stack.start), jnp.zeros(m, states.steps.dtype)
    first = _Queue(ids, lanes, states, jnp.full((), slots), theta, steps, jnp.zeros((), int))
    last = lax.while_loop(lambda queue: (queue.ids < m).any(), turn, first)

    def tell(i: jax.Array) -> Report:
        one = stack.pick(i)
        return lane.report(one, lane.at(one, last.theta[i]), last.steps[i])

    return Ran(lax.map(tell, jnp.arange(m), batch_size=slots), last.computed)


def _where(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b)


ORDERS = {"one_by_one": one_by_one, "side_by_side": side_by_side, "queue": queued}
