"""The first call of a function in a fresh process: its time, and how many programs XLA compiles for it.

Every number comes from a process of its own without a compilation cache. Clock and count start when everything is
imported, the function is looked up, the devices are known, and keys and arrays exist. Compilations are counted by the
event that JAX records for each of them, which is exact on every machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.harness import relative

ROOT = Path(__file__).parents[1]
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
SIZES, ROWS = (784, 100, 10), 1024
FUNCTIONS = ("init", "value_and_gradient", "backprop", "predict")
ALL = "all four"
# The last commit whose functions ran operation by operation.
BEFORE = "70f5379"
OURS, EARLIER, PEER = "lr_nn", f"lr_nn at {BEFORE}", "jax.nn, optax, jax.jit"
HAVE_A_PEER = ("init", "value_and_gradient", "predict")


@contextmanager
def compilations() -> Iterator[list[float]]:
    """The seconds of every backend compilation inside the block, one entry each."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def arrays(n: int) -> tuple[Any, jax.Array, jax.Array]:
    """Parameters as leaves, x (n, 784) and labels (n,): NumPy's numbers on the device, so that nothing is compiled."""
    rng = np.random.default_rng(0)
    leaves = [
        (rng.normal(0, d_in**-0.5, (d_in, d_out)).astype(np.float32), np.zeros(d_out, np.float32))
        for d_in, d_out in pairwise(SIZES)
    ]
    x, y = rng.random((n, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], n, dtype=np.int32)
    return jax.device_put((leaves, x, y))


def ours(name: str, earlier: bool) -> Callable[[int], Callable[[], Any]]:
    """For a number of rows: one call of the function of `lr_nn` on them."""
    import lr_nn

    function, key = getattr(lr_nn, name), jax.random.key(0)
    net = lr_nn.mlp(SIZES, loss=lr_nn.losses.categorical)

    def of(n: int) -> Callable[[], Any]:
        leaves, x, y = arrays(n)
        params = tuple(lr_nn.Layer(*leaf) for leaf in leaves)
        batch = (x, y) if earlier and name == "backprop" else (lr_nn.Batch(x, y),)
        at = {"init": (key,), "predict": (params, x)}.get(name, (params, *batch))
        return lambda: jax.block_until_ready(jax.tree.leaves(function(net, *at)))

    return of


def peers(name: str) -> Callable[[int], Callable[[], Any]]:
    """The same as a user of jax.nn and optax writes it, under `jax.jit`."""
    from benchmarks.mlp import peer_cost
    from lr_nn import Layer

    def init(key: jax.Array) -> Any:
        draw = jax.nn.initializers.glorot_uniform()
        keys = jax.random.split(key, len(SIZES) - 1)
        return [(draw(k, shape), jnp.zeros(shape[1])) for k, shape in zip(keys, pairwise(SIZES))]

    def predict(params: Any, x: jax.Array) -> jax.Array:
        for layer in params[:-1]:
            x = jax.nn.sigmoid(x @ layer.w + layer.b)
        return jax.nn.softmax(x @ params[-1].w + params[-1].b)

    functions: dict[str, Callable] = {"init": init, "predict": predict}
    function, key = jax.jit(functions.get(name, jax.value_and_grad(peer_cost))), jax.random.key(0)

    def of(n: int) -> Callable[[], Any]:
        leaves, x, y = arrays(n)
        params = tuple(Layer(*leaf) for leaf in leaves)
        at = {"init": (key,), "predict": (params, x)}.get(name, (params, x, y))
        return lambda: jax.block_until_ready(function(*at))

    return of


def measure(name: str, competitor: str) -> dict[str, Any]:
    """Seconds, CPU seconds and programs of the first calls; programs of second calls and of another batch size."""
    names = FUNCTIONS if name == ALL else (name,)
    calls = [peers(each) if competitor == PEER else ours(each, competitor == EARLIER) for each in names]
    first, other = [of(ROWS) for of in calls], [of(ROWS + 1) for of in calls]
    jax.devices()
    counts = []
    for stage in (first, first, other):
        with compilations() as compiled:
            began, began_cpu = time.perf_counter(), time.process_time()
            for call in stage:
                call()
            counts.append((len(compiled), time.perf_counter() - began, time.process_time() - began_cpu))
    (programs, seconds, cpu_seconds), (again, *_), (another, *_) = counts
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "programs": programs,
        "programs_of_the_second_call": again,
        "programs_of_another_batch_size": another,
    }


def in_a_process(name: str, competitor: str, source: Path) -> dict[str, Any]:
    """`measure` in a new process that imports the `lr_nn` of a folder."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (source, ROOT)))}
    command = [sys.executable, "-P", "-m", "benchmarks.cold", name, competitor, str(source)]
    done = subprocess.run(command, env=outside | paths, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} of {competitor} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def earlier(folder: Path) -> bool:
    """Write the library of `BEFORE` into a folder; False where its commit isn't known."""
    packed = subprocess.run(["git", "archive", BEFORE, "lr_nn"], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        return False
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
    return True


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """A row for each function and competitor, time relative to ours; competitors take turns, a process a call."""
    rounds, found = 1 if small else max(3, rounds // 4), []
    with tempfile.TemporaryDirectory() as folder:
        sources = {OURS: ROOT, PEER: ROOT} | ({EARLIER: Path(folder)} if earlier(Path(folder)) else {})
        for name in FUNCTIONS[-1:] if small else (*FUNCTIONS, ALL):
            competing = [each for each in sources if each != PEER or name in HAVE_A_PEER]
            runs: dict[str, list[dict[str, Any]]] = {each: [] for each in competing}
            for turn in range(rounds):
                for each in np.random.default_rng(turn).permutation(competing):
                    runs[each].append(in_a_process(name, each, sources[each]))
            found += [_row(name, each, runs[each], runs[OURS]) for each in competing]
    return found


def _row(name: str, competitor: str, taken: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> dict[str, Any]:
    seconds, unit = (np.array([each["seconds"] for each in runs]) for runs in (taken, baseline))
    counts = {key: {each[key] for each in taken} for key in taken[0] if key.startswith("programs")}
    if any(len(count) > 1 for count in counts.values()):
        raise RuntimeError(f"{name} of {competitor} compiles another number of programs in each process: {counts}")
    return {
        "case": f"{'-'.join(map(str, SIZES))}, {ROWS:,} rows: {name}",
        "competitor": competitor,
        **relative(seconds, unit),
        "ratios": [float(f"{ratio:.4g}") for ratio in seconds / unit],
        "rounds": len(taken),
        "seconds": round(float(np.median(seconds)), 3),
        "cpu_seconds": round(float(np.median([each["cpu_seconds"] for each in taken])), 3),
        **{key: count.pop() for key, count in counts.items()},
        "bar_programs": len(FUNCTIONS) if name == ALL else 1,
    }


SECTIONS: dict[str, harness.Section] = {
    "cold": (rows, "First call in a fresh process, no compilation cache; time relative to lr_nn"),
}
main = harness.command("cold", SECTIONS)


if __name__ == "__main__":
    import lr_nn

    function, competitor, source = sys.argv[1:]
    assert Path(str(lr_nn.__file__)).is_relative_to(Path(source).resolve()), lr_nn.__file__
    print(json.dumps(measure(function, competitor)))
