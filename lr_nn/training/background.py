"""A failed call of orbax has one report, its exception: what its threads print about the same failure is dropped."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

ORBAX = f"{os.sep}orbax{os.sep}"
# absl is what orbax logs by; asyncio logs a task that ended with an exception which nobody awaited.
LOGGERS = ("absl", "asyncio")
# Seconds to wait for the threads of a failed call: their other writes fail or end soon.
WAIT_FOR_THREADS = 5.0


@contextmanager
def reported_once() -> Iterator[None]:
    """Make the exception of the block the only report of a failure in it.

    orbax writes in threads. If one fails, orbax raises the error, and there are three more reports: orbax logs the
    error, sometimes from a thread that outlives the call; asyncio logs the failed tasks that nobody awaited, when they
    are collected; and orbax has closed an event loop that other writes call when they end, each of which then prints
    "Event loop is closed". They are dropped if the block raises, also those that would come later. Other reports, and
    those of a block that succeeds, are passed on.
    """
    loggers, records, before = [logging.getLogger(name) for name in LOGGERS], _Records(), sys.unraisablehook

    def unraisable(found: Any) -> None:
        if not _calls_a_closed_loop(found):
            before(found)

    for logger in loggers:
        logger.addFilter(records)
    sys.unraisablehook = unraisable
    try:
        yield
    except BaseException:
        _join(records.threads())
        _retrieve_exceptions()
        if not records.keep_dropping():
            for logger in loggers:
                logger.removeFilter(records)
        raise
    for logger in loggers:
        logger.removeFilter(records)
    if sys.unraisablehook is unraisable:
        sys.unraisablehook = before
    for record in records.held:
        logging.getLogger(record.name).handle(record)


class _Records(logging.Filter):
    """Holds the records about orbax that this thread logs, and threads that start from now on."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[logging.LogRecord] = []
        self.caller = threading.current_thread()
        self.others = WeakSet(thread for thread in threading.enumerate() if thread is not self.caller)
        self.left: WeakSet[threading.Thread] | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        thread = threading.current_thread()
        # A record of asyncio names the file of the task's coroutine in its message.
        if ORBAX not in record.pathname and not (record.name == "asyncio" and ORBAX in record.getMessage()):
            return True
        if self.left is not None:
            return thread not in self.left
        if thread in self.others:
            return True
        self.held.append(record)
        return False

    def threads(self) -> list[threading.Thread]:
        """The threads alive that started in the block."""
        return [each for each in threading.enumerate() if each not in self.others and each is not self.caller]

    def keep_dropping(self) -> bool:
        """From now on drop what the threads log that started in the block and are left; False if there are none."""
        self.held.clear()
        self.left = WeakSet(self.threads())
        return bool(self.left)


def _join(threads: list[threading.Thread]) -> None:
    """Wait for orbax's threads, whose own `join` would raise their errors once more."""
    end = time.monotonic() + WAIT_FOR_THREADS
    for thread in threads:
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread, max(0.0, end - time.monotonic()))


def _retrieve_exceptions() -> None:
    """Mark as awaited what is left of the event loops that orbax has closed, so that asyncio does not log it."""
    futures = [each for each in gc.get_objects() if issubclass(type(each), asyncio.Future)]
    closed = {each.get_loop() for each in futures if _of_orbax(each) and each.get_loop().is_closed()}
    for each in futures:
        if each.get_loop() not in closed:
            continue
        if not each.done():
            each._log_destroy_pending = False  # no call of a closed loop will end it
        elif not each.cancelled():
            each.exception()


def _of_orbax(future: asyncio.Future[Any]) -> bool:
    code = getattr(future.get_coro(), "cr_code", None) if isinstance(future, asyncio.Task) else None
    return code is not None and ORBAX in code.co_filename


def _calls_a_closed_loop(found: Any) -> bool:
    """Is it the RuntimeError of a result that comes after its event loop was closed?"""
    trace = found.exc_traceback
    if not isinstance(found.exc_value, RuntimeError) or trace is None:
        return False
    loop = trace.tb_frame.f_locals.get("self")
    return trace.tb_frame.f_code.co_name == "call_soon_threadsafe" and hasattr(loop, "is_closed") and loop.is_closed()
