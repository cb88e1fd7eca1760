"""A failed call of orbax has one report, its exception: what its threads print about the same failure is dropped."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

ORBAX = f"{os.sep}orbax{os.sep}"


@contextmanager
def reported_once() -> Iterator[None]:
    """Make the exception of the block the only report of a failure in it.

    orbax writes in threads. If one fails, orbax raises the error and logs it, sometimes from a thread that outlives
    the call. It also closes an event loop that other writes will call when they end; each then prints "Event loop is
    closed". Both kinds of report are dropped if the block raises, also those that come later. Other reports, and those
    of a block that succeeds, are passed on.
    """
    logger, records, before = logging.getLogger("absl"), _Records(), sys.unraisablehook

    def unraisable(found: Any) -> None:
        if not _calls_a_closed_loop(found):
            before(found)

    logger.addFilter(records)
    sys.unraisablehook = unraisable
    try:
        yield
    except BaseException:
        if not records.keep_dropping():
            logger.removeFilter(records)
        raise
    logger.removeFilter(records)
    if sys.unraisablehook is unraisable:
        sys.unraisablehook = before
    for record in records.held:
        logger.handle(record)


class _Records(logging.Filter):
    """Holds the records that orbax logs in this thread and in threads that start from now on."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[logging.LogRecord] = []
        self.caller = threading.current_thread()
        self.others = WeakSet(thread for thread in threading.enumerate() if thread is not self.caller)
        self.left: WeakSet[threading.Thread] | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        thread = threading.current_thread()
        if ORBAX not in record.pathname:
            return True
        if self.left is not None:
            return thread not in self.left
        if thread in self.others:
            return True
        self.held.append(record)
        return False

    def keep_dropping(self) -> bool:
        """From now on drop what the threads log that started in the block and are left; False if there are none."""
        self.held.clear()
        self.left = WeakSet(
            thread for thread in threading.enumerate() if thread not in self.others and thread is not self.caller
        )
        return bool(self.left)


def _calls_a_closed_loop(found: Any) -> bool:
    """Is it the RuntimeError of a result that comes after its event loop was closed?"""
    trace = found.exc_traceback
    if not isinstance(found.exc_value, RuntimeError) or trace is None:
        return False
    loop = trace.tb_frame.f_locals.get("self")
    return trace.tb_frame.f_code.co_name == "call_soon_threadsafe" and hasattr(loop, "is_closed") and loop.is_closed()
