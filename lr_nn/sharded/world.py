"""A world of processes: joined through `jax.distributed`, of one mind, and watched."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the key-value store has no other door

from lr_nn import check
from lr_nn.sharded.watch import LOST, Watch, ended, on_abort, watch

__all__ = ["agree", "initialize"]

T = TypeVar("T")

# A connection is given up after so many seconds without the other processes.
JOIN = 300.0
# Milliseconds at a time that an answer is waited for: between them Python hears signals.
MOMENT = 500


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: float = 60.0,
    join_seconds: float = JOIN,
) -> None:
    """Make this process one of many, before anything else asks JAX for its devices.

    coordinator: the address "host:port" of process 0, the same in all; processes: their number; process_id: which one
    this is. All three are found under Slurm, Open MPI, Kubernetes jobs and on TPU pods: leave them out there. Called
    again, it does nothing.

    It ends when all have come, and have found that they run the same code of lr_nn and the same versions of JAX, with
    the same settings and as many devices each: ValueError otherwise, in all of them, naming what differs. A process
    that is lost, silent for `heartbeat_seconds`, or that ends with an error, ends all: each prints which one it was
    and what to do, and ends with exit code 75, or with that of the error. Where not all have come in `join_seconds`,
    those that have end with 75.

    Raises ValueError where there is no coordinator, or the numbers make no world; OSError where its port is taken;
    RuntimeError where JAX has devices already.
    """
    if not heartbeat_seconds > 0:
        raise ValueError(f"heartbeat_seconds must be positive; got {heartbeat_seconds}")
    if not join_seconds >= 1:
        raise ValueError(f"join_seconds must be at least 1; got {join_seconds}")
    if processes is not None:
        processes = check.positive_integer("processes", processes)
        if process_id is not None and not 0 <= process_id < processes:
            raise ValueError(f"process_id must be in [0, {processes}); got {process_id}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"coordinator must be host:port, such as 10.0.0.1:1234; got {coordinator!r}")
    if jax.distributed.is_initialized():
        return
    if coordinator is not None and process_id == 0:
        _check_free(int(coordinator.rpartition(":")[2]))
    where = "" if coordinator is None else f" at {coordinator}"
    alone = f"not all processes met{where} within {join_seconds:g} s; this one ends with exit code {LOST}. Restart all"
    on_abort(lambda: ended(f"{alone}.", LOST))
    try:
        with _signals_end_it():
            jax.distributed.initialize(
                coordinator,
                processes,
                process_id,
                initialization_timeout=int(join_seconds),
                heartbeat_timeout_seconds=int(2 * heartbeat_seconds) + 10,  # ours comes first, and can name who is lost
            )
    except ValueError as error:
        raise ValueError(
            f"no world to join: {error} Name coordinator='host:port', processes and process_id, "
            "or start under Slurm, Open MPI, Kubernetes or on a TPU pod"
        ) from error
    state = distributed.global_state
    _WATCHES.append(watch(state.client, state.process_id, state.num_processes, heartbeat_seconds))
    agree("versions and settings", **_ours())


def _check_free(port: int) -> None:
    """Refuse a port that is taken: JAX would crash."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise OSError(f"port {port} of the coordinator cannot be had ({error.strerror}): name another") from error


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Ctrl-C and SIGTERM end a process that waits for others, when Python hears nothing; then they do what they did.

    JAX would keep SIGTERM to itself, and a process go on as if there had been none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if callable(handler) and not isinstance(handler, signal.Handlers):
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def failed(error: BaseException, code: int) -> None:
    """Tell the other processes, if there are any, that this one ends by `error` with an exit code, as they then do.

    For a program that catches its errors itself; what is not caught is told by Python's hook.
    """
    for watching in _WATCHES:
        watching.failed(error, code)


def agree(what: str, **facts: Any) -> None:
    """Refuse to go on where the processes differ in any of `facts`, which go into JSON.

    Every process calls it, in the same order; alone, it does nothing. ValueError in all of them, naming the fact and
    who has which.
    """
    if is_alone():
        return
    each = told({"": what, **facts})
    first = each[0]
    for process, theirs in enumerate(each):
        for name in first | theirs:
            here, there = first.get(name), theirs.get(name)
            if repr(here) != repr(there):  # NaN is NaN
                raise ValueError(
                    f"the processes differ in {what}: {name} is {here!r} in process 0, {there!r} in process {process}; "
                    "start all of them alike"
                )


def told(facts: Any) -> list[Any]:
    """What every process has to say, in JSON, in their order. Every process calls it, in the same order."""
    text = json.dumps(facts, default=str)
    if not jax.distributed.is_initialized():
        return [json.loads(text)]
    state: Any = distributed.global_state
    _ROUNDS.append(0)
    place = f"lr_nn/facts/{len(_ROUNDS)}/"
    state.client.key_value_set(f"{place}{state.process_id}", text)
    return [json.loads(_answer(state.client, f"{place}{process}")) for process in range(state.num_processes)]


def _answer(client: Any, key: str) -> str:
    """What another process has to say, however long it takes: whether it still lives, the watch looks."""
    while True:
        try:
            found: str = client.blocking_key_value_get(key, MOMENT)
            return found
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def is_alone() -> bool:
    """Are there no other processes?"""
    return not jax.distributed.is_initialized() or distributed.global_state.num_processes == 1


def of_first(function: Callable[[], T]) -> T:
    """What `function` returns in process 0, through JSON, in all: the others wait, and do not call it."""
    if is_alone():
        return function()
    found: T = told(function() if distributed.global_state.process_id == 0 else None)[0]
    return found


def first_then_others(function: Callable[[], T]) -> T:
    """What `function` returns, called by the first process, and when that is done by the others."""
    found = function() if jax.process_index() == 0 else None
    told("done")
    return function() if found is None else found


def largest(array: np.ndarray) -> np.ndarray:
    """The largest of what the processes have, in every process."""
    if jax.process_count() == 1:
        return array
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(array)).max(axis=0)


def from_first(array: np.ndarray) -> np.ndarray:
    """The array of process 0, in every process: for what is decided by a clock."""
    if jax.process_count() == 1:
        return array
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return np.asarray(broadcast_one_to_all(array))


def exchanged(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The arrays of every process, in every process; their shapes may differ."""
    from jax.experimental.multihost_utils import process_allgather

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    own = np.frombuffer(buffer.getvalue(), np.uint8)
    lengths = np.asarray(process_allgather(np.array(len(own), np.int32))).reshape(-1)
    told = np.asarray(process_allgather(np.pad(own, (0, int(lengths.max()) - len(own)))))
    found = []
    for length, bytes_ in zip(lengths, told):
        with np.load(io.BytesIO(bytes_[:length].tobytes()), allow_pickle=False) as file:
            found.append(dict(file))
    return found


def digest(tree: Any) -> str:
    """What tells arrays from others, in a few letters."""
    found = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(
            jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:12]


_ROUNDS: list[int] = []
_WATCHES: list[Watch] = []


def _ours() -> dict[str, Any]:
    """What must be the same in all processes."""
    settings = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
    return {
        "lr_nn": _code(),
        "jax": f"{jax.__version__}, jaxlib {version('jaxlib')}",
        "optax": version("optax"),
        **{name: str(jax.config.values[name]) for name in settings},
        "devices": f"{jax.local_device_count()} of {jax.local_devices()[0].device_kind}",
    }


@cache
def _code() -> str:
    """A digest of the source of this package."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}".encode() + path.read_bytes())
    return f"source {digest.hexdigest()[:12]}"
