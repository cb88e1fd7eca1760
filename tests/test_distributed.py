"""Processes on the loopback: the result of one, a world of one mind, and nobody left waiting for the lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from tolerances import assert_close
from world import FIT, HEARTBEAT, TABLE, N, many, train

import lr_nn
from lr_nn import data, penalties, sharded
from lr_nn.cli import main
from lr_nn.cli.world import known
from lr_nn.sharded.watch import LOST

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

SCRIPT = Path(__file__).with_name("world.py")
# To start JAX and to compile, on a machine that is busy.
PATIENCE = 400


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@contextmanager
def world(what, processes, devices, out, **environment):
    """The processes, started; killed when the test is over, whatever happened."""
    port = free_port()
    env = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "NPROC": "8",
        "PYTHONPATH": str(SCRIPT.parents[1]),
    }
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    started = []
    try:
        for process in range(processes):
            own = {name: value for name, value in environment.items() if process == 1}
            command = [sys.executable, str(SCRIPT), what, str(process), str(processes), str(port), str(out)]
            started.append(subprocess.Popen(command, env=env | own, **output))
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ends(process, within=PATIENCE):
    """The exit code of a process, and what it told."""
    told, _ = process.communicate(timeout=within)
    return process.returncode, told


def under_way(out):
    """Wait until a process of "endless" has written a checkpoint."""
    before = time.monotonic() + PATIENCE
    while not list(out.glob("step_*")):
        assert time.monotonic() < before, "the training did not begin"
        time.sleep(0.05)


def here(devices):
    """Rows over some devices of this process."""
    return sharded.data_parallel(Mesh(jax.devices()[:devices], ("rows",)))


def test_two_processes_find_what_one_finds(tmp_path):
    write_table(tmp_path / TABLE)
    with world("results", 2, 2, tmp_path) as started:
        for code, told in map(ends, started):
            assert code == 2, told  # that of the last command, of which they are of two minds
            assert "the processes differ in their options: --l1 is 0.0 in process 0, 1.0 in process 1" in told
    np.testing.assert_allclose(np.load(tmp_path / "many.npy"), many(here(4)).coefficients, atol=1e-6)
    first, second = tmp_path / "0", tmp_path / "1"
    the_first_alone_speaks_and_writes(first, second)
    the_fit_is_that_of_one(tmp_path / TABLE, lr_nn.load_model(first / "fitted"), tmp_path / "one")
    said = json.loads((first / "said").read_text().splitlines()[-1])
    the_training_is_that_of_one(tmp_path / TABLE, lr_nn.load_model(first / "trained"), said["history"])


def the_first_alone_speaks_and_writes(first, second):
    assert sorted(path.name for path in first.iterdir()) == ["fitted", "said", "trained"]
    assert [path.name for path in second.iterdir()] == ["said"] and not (second / "said").read_text()
    said = [json.loads(line) for line in (first / "said").read_text().splitlines()]  # and nothing of Gloo's
    assert [one["status"] for one in said] == ["converged", "completed", "completed"]
    assert all(one["devices"] == 4 and one["judged"]["rows"] == 12 for one in said)


def the_fit_is_that_of_one(table, fitted, out):
    assert main(["fit", str(table), *FIT, "--no-report", "--out", str(out)]) == 0
    one = lr_nn.load_model(out)
    assert fitted.schema == one.schema
    for two, alone in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(one.params)):
        np.testing.assert_allclose(two, alone, atol=1e-8)
    assert fitted.facts["judged"] == pytest.approx(one.facts["judged"], rel=1e-8)


def the_training_is_that_of_one(table, trained, history):
    """Interrupted and resumed, it is the library's on as many devices of one process."""
    rows, held = data.split(trained.schema.rows(data.open_table(table)), 0.2, key=jax.random.key(0))
    net, (start, key) = trained.net, map(jax.random.key, (0, 1))
    given = {"optimizer": optax.sgd(1e-3), "epochs": 3, "batch_size": 8, "key": key, "validation": held}
    expected = here(4).train(net, lr_nn.init(net, start), rows, penalty=penalties.l2(0.01), **given)
    for two, alone in zip(jax.tree.leaves(trained.params), jax.tree.leaves(expected.params)):
        assert_close(two, alone, length=10_000)
    assert list(history) == list(expected.history)
    for name, column in expected.history.items():
        assert_close(np.array(history[name], np.float32), column.astype(np.float32), length=10_000)


def write_table(path):
    rng = np.random.default_rng(0)
    size, colour, count = rng.normal(size=N), rng.choice(["red", "blue"], N), rng.integers(0, 3, N)
    lines = [f"{s},{c},{w},{s + rng.normal() > 0}" for s, c, w in zip(size, colour, count)]
    path.write_text("\n".join(["size,colour,count,y", *lines]) + "\n", encoding="utf-8")


def test_a_process_that_is_lost_ends_the_others_in_time(tmp_path):
    out = tmp_path / "kept"
    with world("endless", 2, 1, out) as started:
        the_other_ends(started, 1, out)
    with world("resumed", 2, 1, out) as started:
        the_other_ends(started, 0, tmp_path / "kept.again")
    # Between the two they went on to where one that nobody disturbed comes.
    with np.load(f"{out}.npz") as arrays:
        epochs, leaves = arrays["epochs"], [arrays[name] for name in arrays if name != "epochs"]
    for found, expected in zip(leaves, jax.tree.leaves(train(here(2), int(epochs)).params)):
        assert_close(found, expected, length=10_000)


def the_other_ends(started, killed, out):
    """When one of two is killed, in the stated time and with the message."""
    under_way(out)
    os.kill(started[killed].pid, signal.SIGKILL)
    began = time.monotonic()
    code, told = ends(started[1 - killed])
    assert time.monotonic() - began < 3 * HEARTBEAT
    assert code == LOST, told
    assert f"process {killed}" in told and "was lost" in told
    assert "Restart all 2 processes" in told and "resume=True" in told


def test_a_signal_to_one_is_a_signal_to_all_and_so_is_an_error(tmp_path):
    out = tmp_path / "kept"
    with world("signal", 2, 1, out) as started:
        under_way(out)
        started[1].send_signal(signal.SIGTERM)
        codes, told = zip(*(ends(process) for process in started))
    assert list(out.glob("step_*"))
    for text in told:
        assert "interrupted by SIGTERM after step" in text
        # Then they ask for different things, and are refused.
        assert "the processes differ in the training: epochs is 1 in process 0, 2 in process 1" in text
    # Then one of them fails, and tells the other why, which ends with the same exit code.
    assert codes == (1, 1), told
    assert "process 1 of 2 failed: ValueError: this one has had enough" in told[0]


def test_processes_with_other_settings_are_refused(tmp_path):
    with world("command", 2, 1, tmp_path / TABLE, JAX_ENABLE_X64="1") as started:
        for code, told in map(ends, started):
            assert code == 2 and "Traceback" not in told, told
            assert "the processes differ in versions and settings: jax_enable_x64" in told


def test_files_are_known_by_their_names_sizes_and_ends(tmp_path):
    for folder in ("a", "b", "a/red"):
        (tmp_path / folder).mkdir()
    for name, text in (("a/1.csv", "1"), ("a/red/2.csv", "2"), ("a/.hidden", "x"), ("b/1.csv", "3")):
        (tmp_path / name).write_text(text)
    a, b = (known([tmp_path / name, tmp_path / "missing"]) for name in "ab")
    assert list(a) == ["a/1.csv", "a/red/2.csv"] and a["a/1.csv"] != b["b/1.csv"]
    assert a["a/1.csv"].startswith("1 bytes, ") and known([tmp_path / "a" / "1.csv"]) == {"1.csv": a["a/1.csv"]}
    for i in range(1001):
        (tmp_path / "b" / f"{i}.png").touch()
    assert list(known([tmp_path / "b"])) == ["b"]


def test_what_makes_no_world_is_refused():
    with pytest.raises(ValueError, match="coordinator must be host:port"):
        sharded.initialize("localhost", 2, 0)
    with pytest.raises(ValueError, match=r"process_id must be in \[0, 2\); got 2"):
        sharded.initialize("localhost:1234", 2, 2)
    with pytest.raises(ValueError, match="processes must be at least 1"):
        sharded.initialize("localhost:1234", 0, 0)
    with pytest.raises(ValueError, match="must be positive"):
        sharded.initialize("localhost:1234", 2, 0, heartbeat_seconds=0)
    with socket.socket() as taken, pytest.raises(OSError, match="of the coordinator cannot be had"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sharded.initialize(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0)


def test_one_process_agrees_with_itself():
    assert sharded.agree("anything", epochs=3) is None
