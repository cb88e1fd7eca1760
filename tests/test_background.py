"""What orbax's threads print about a failure that was raised is dropped; everything else is passed on."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lr_nn.training.background import LOGGERS, reported_once

ORBAX = str(Path("site-packages") / "orbax" / "checkpoint" / "future.py")
NO_ROOM = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from lr_nn.training import checkpoints

checkpoints.orbax()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
arrays = {str(i): np.random.default_rng(i).normal(size=600) for i in range(8)}
for step in range(5):
    try:
        checkpoints.write(Path(sys.argv[1]), step, arrays, {})
    except Exception:
        continue
    print("written")
"""


def log(message, path=ORBAX):
    logger = logging.getLogger("absl")
    logger.handle(logger.makeRecord("absl", logging.ERROR, path, 1, message, (), None))


def abandoned_tasks(path):
    """Close a loop on two tasks of a file that nobody awaits, one failed and one pending; asyncio logs both later."""
    names = {"asyncio": asyncio}
    source = "async def fail():\n    raise OSError('no room')\nasync def wait():\n    await asyncio.Event().wait()\n"
    exec(compile(source, path, "exec"), names)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(names[name]()) for name in ("fail", "wait")]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return tasks


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def call_a_closed_loop():
    """As a result does that comes when nobody waits for it."""
    loop = asyncio.new_event_loop()
    loop.close()
    try:
        loop.call_soon_threadsafe(print)
    except RuntimeError as error:
        trace = error.__traceback__.tb_next
        sys.unraisablehook(type("Found", (), {"exc_value": error, "exc_traceback": trace}))


@pytest.fixture
def reports(monkeypatch):
    """The messages of orbax's records, and of exceptions that could not be raised, that are passed on."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    monkeypatch.setattr(sys, "unraisablehook", lambda unraised: found.append(str(unraised.exc_value)))
    yield found
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)


def test_the_reports_of_a_block_that_succeeds_are_passed_on(reports):
    hook = sys.unraisablehook
    with reported_once():
        log("here")
        in_a_thread(lambda: log("in a thread")).join()
        assert not reports
    assert reports == ["here", "in a thread"] and sys.unraisablehook is hook
    assert not logging.getLogger("absl").filters


def test_the_reports_of_a_failure_that_is_raised_are_dropped_also_those_that_come_later(reports):
    raised = threading.Event()

    def fail_late():
        raised.wait()
        log("later")

    with pytest.raises(OSError, match="no room"), reported_once():
        log("here")
        late = in_a_thread(fail_late)
        raise OSError("no room")
    raised.set()
    late.join()
    call_a_closed_loop()
    assert reports == []


@pytest.mark.parametrize("path", [ORBAX, "elsewhere.py"])
def test_tasks_of_orbax_that_nobody_awaited_are_not_logged_after_a_failure_and_those_of_others_are(reports, path):
    with pytest.raises(OSError, match="no room"), reported_once():
        tasks = abandoned_tasks(path)
        raise OSError("no room")
    del tasks
    gc.collect()
    logged = sorted(report.splitlines()[0] for report in reports)
    both = ["Task exception was never retrieved", "Task was destroyed but it is pending!"]
    assert logged == ([] if path == ORBAX else both)


def test_other_reports_are_passed_on_during_a_failure_and_after_it(reports):
    log("before")
    other = threading.Event()
    before = in_a_thread(lambda: (other.wait(), log("of another save")))
    with pytest.raises(OSError, match="no room"), reported_once():
        log("of another library", "elsewhere.py")
        raise OSError("no room")
    other.set()
    before.join()
    in_a_thread(lambda: log("of the next save")).join()
    try:
        raise ValueError("unraisable")
    except ValueError as error:
        sys.unraisablehook(type("Found", (), {"exc_value": error, "exc_traceback": error.__traceback__}))
    assert reports == ["before", "of another library", "of another save", "of the next save", "unraisable"]


def test_checkpoints_that_find_no_room_print_nothing(tmp_path):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-c", NO_ROOM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
