"""What asks a training to end, Ctrl-C and SIGTERM, is noted, so that it ends where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT.name, signal.SIGTERM.name)


class Asked:
    """The name of the signal that asked for an end, None if there was none."""

    signal: str | None = None


@contextmanager
def noted(wanted: bool) -> Iterator[Asked]:
    """Note the first SIGINT or SIGTERM in the `Asked` that is yielded; a second one does what it would have done.

    Only the main thread of a process can: elsewhere, or if not `wanted`, everything stays as it is.
    """
    asked = Asked()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.signal is None:
            asked.signal = signal.Signals(number).name
            return
        _restore(before)
        os.kill(os.getpid(), number)

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # A handler that is not Python's, None, could not be put back; one that ignores is meant to.
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            before[number] = signal.signal(number, note)
    try:
        yield asked
    finally:
        _restore(before)


def _restore(before: dict[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
