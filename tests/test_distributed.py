"""Processes on the loopback: the result of one, a world of one mind, and nobody left waiting for the lost."""

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
import pytest
from jax.sharding import Mesh
from tolerances import assert_close
from world import HEARTBEAT, results, train

from lr_nn import sharded
from lr_nn.sharded.watch import LOST

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

SCRIPT = Path(__file__).with_name("world.py")
# To start JAX and to compile, on a machine that is busy.
PATIENCE = 120


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
        "XLA_FLAGS": f"--xla_cpu_use_fusion_emitters=false --xla_force_host_platform_device_count={devices}",
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
    out = tmp_path / "found.npz"
    with world("results", 2, 2, out) as started:
        for code, told in map(ends, started):
            assert code == 0, told
    expected = results(here(4))
    with np.load(out) as arrays:
        found = [arrays[name] for name in arrays]
    assert len(found) == len(expected) > 8
    for two, one in zip(found, expected):
        if one.dtype == np.float32:
            assert_close(two, one, length=10_000)
        else:  # a fit, to its certificate
            np.testing.assert_allclose(two, one, atol=1e-6)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_lost_ends_the_others_in_time(tmp_path, killed):
    out = tmp_path / "kept"
    with world("endless", 2, 1, out) as started:
        under_way(out)
        os.kill(started[killed].pid, signal.SIGKILL)
        began = time.monotonic()
        code, told = ends(started[1 - killed])
        assert time.monotonic() - began < 3 * HEARTBEAT
    assert code == LOST, told
    assert f"process {killed}" in told and "was lost" in told
    assert "Restart all 2 processes" in told and "resume=True" in told
    if killed == 1:
        goes_on_from_its_checkpoint(out)


def goes_on_from_its_checkpoint(out):
    """A world of two goes on to where one that nobody disturbed comes."""
    with world("resumed", 2, 1, out) as started:
        for code, told in map(ends, started):
            assert code == 0, told
    with np.load(f"{out}.npz") as arrays:
        epochs, leaves = arrays["epochs"], [arrays[name] for name in arrays if name != "epochs"]
    for found, expected in zip(leaves, jax.tree.leaves(train(here(2), int(epochs)).params)):
        assert_close(found, expected, length=10_000)


def test_a_signal_to_one_is_a_signal_to_all(tmp_path):
    out = tmp_path / "kept"
    with world("endless", 2, 1, out) as started:
        under_way(out)
        started[1].send_signal(signal.SIGTERM)
        for code, told in map(ends, started):
            assert code == 143, told
            assert "interrupted by SIGTERM after step" in told
    assert list(out.glob("step_*"))


def test_a_process_that_fails_tells_the_others_why(tmp_path):
    with world("raise", 2, 1, tmp_path / "progress") as started:
        codes, told = zip(*(ends(process) for process in started))
    assert codes == (LOST, 1), told
    assert "process 1 of 2 failed: ValueError: this one has had enough" in told[0]


def test_processes_that_ask_for_different_things_are_refused(tmp_path):
    with world("differ", 2, 1, tmp_path / "nothing") as started:
        for code, told in map(ends, started):
            assert code == 1, told
            assert "the processes differ in the training: epochs is 1 in process 0, 2 in process 1" in told


def test_processes_with_other_settings_are_refused(tmp_path):
    with world("differ", 2, 1, tmp_path / "nothing", JAX_ENABLE_X64="1") as started:
        for code, told in map(ends, started):
            assert code == 1, told
            assert "the processes differ in versions and settings: jax_enable_x64" in told


def test_what_makes_no_world_is_refused():
    with pytest.raises(ValueError, match="coordinator must be host:port"):
        sharded.initialize("localhost", 2, 0)
    with pytest.raises(ValueError, match=r"process_id must be in \[0, 2\); got 2"):
        sharded.initialize("localhost:1234", 2, 2)
    with pytest.raises(ValueError, match="processes must be at least 1"):
        sharded.initialize("localhost:1234", 0, 0)
    with pytest.raises(ValueError, match="must be positive"):
        sharded.initialize("localhost:1234", 2, 0, heartbeat_seconds=0)


def test_one_process_agrees_with_itself():
    assert sharded.agree("anything", epochs=3) is None
