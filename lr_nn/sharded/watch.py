"""Heartbeats between processes, through the key-value store of `jax.distributed`.

JAX ends a process whose coordinator is gone by an abort that tells little, and leaves one that waits for a lost peer
in a collective. Here every process beats, looks at the beats of the others, and ends itself with a sentence.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import jax

# Of sysexits.h: a failure that passes, try again.
LOST = 75
BEATS = "lr_nn/beats/"
DONE, FAILED = "done", "failed: "
# What errors say that come of a connection to another process.
BROKEN = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "onnection")


class Watch:
    """The beats of process `me` of `count`, and what it makes of those of the others."""

    def __init__(self, client: Any, me: int, count: int, seconds: float) -> None:
        """Nothing is said yet."""
        self.client, self.me, self.count, self.seconds = client, me, count, seconds
        self.pause = seconds / 5
        # Pauses without a new beat of each process. Counted, not timed: a machine that slept has missed none.
        self.silent = dict.fromkeys(set(range(count)) - {me}, 0)
        self.since_heard = 0
        self.told: dict[int, str] = {}
        self.lock, self.last_word, self.code = threading.Lock(), "", 1

    def start(self) -> None:
        """From now on, until JAX leaves the world."""
        self._say("0")
        for loop in (self._beat, self._judge):
            threading.Thread(target=loop, name=f"lr_nn{loop.__name__}", daemon=True).start()

    def failed(self, error: BaseException, code: int) -> None:
        """Tell the others that this process will end with an exit code that is not 0, as they then do, and why."""
        if any(sign in str(error) for sign in BROKEN):  # by another's end: let it be found
            time.sleep(2 * self.seconds)
        self.code = code
        self._say(f"{FAILED}{code}: {type(error).__name__}: {error}".removesuffix(": ")[:500], last=True)

    def leave(self) -> None:
        """The last that this process does: it says that its work is done, or waits until its failure has been seen."""
        self._say(DONE, last=True)
        if self.last_word != DONE:
            time.sleep(2 * self.pause)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)  # the usual way out waits for the others

    def ended_by_jax(self) -> None:
        """JAX found its coordinator or a peer gone, and is about to abort."""
        self._end("process 0, the coordinator, was lost, or its network")

    def _say(self, text: str, last: bool = False) -> None:
        with self.lock, suppress(Exception):  # `_judge` counts the silence of a coordinator
            if not self.last_word:
                self.last_word = text if last else ""
                self.client.key_value_set(f"{BEATS}{self.me}", text, allow_overwrite=True)

    def _beat(self) -> None:
        beats = 0
        while jax.distributed.is_initialized():
            time.sleep(self.pause)
            beats += 1
            self._say(str(beats))
            try:
                told = {int(key.rsplit("/", 1)[1]): text for key, text in self.client.key_value_dir_get(BEATS)}
            except Exception:  # of whatever kind: `_judge` counts
                continue
            self.since_heard = 0
            for process in self.silent:
                new = told.get(process) != self.told.get(process)
                self.silent[process] = 0 if new or told.get(process) == DONE else self.silent[process] + 1
            self.told = told

    def _judge(self) -> None:
        while True:
            time.sleep(self.pause)
            if not jax.distributed.is_initialized() or self.last_word.startswith(FAILED):
                return
            self.since_heard += 1
            for process, text in self.told.items():
                if process != self.me and text.startswith(FAILED):
                    code, why = text.removeprefix(FAILED).split(": ", 1)
                    self._end(f"process {process} of {self.count} {FAILED}{why}", int(code))
            lost = [process for process, pauses in self.silent.items() if pauses * self.pause >= self.seconds]
            if lost:
                names = ", ".join(map(str, lost))
                self._end(f"process {names} of {self.count} was lost: no heartbeat for {self.seconds:g} s")
            if self.since_heard * self.pause >= self.seconds:
                self._end(f"process 0 of {self.count}, the coordinator, was lost: no answer for {self.seconds:g} s")

    def _end(self, why: str, code: int = LOST) -> None:
        """No clean-up: it would wait for those that are gone."""
        if self.last_word.startswith(FAILED):
            os._exit(self.code)  # it has told its own error
        sys.stdout.flush()
        advice = (
            f"Restart all {self.count} processes; with checkpoints, train(..., resume=True), or lr-nn train --resume, "
            "goes on from the last one."
        )
        ended(f"{why}. Process {self.me} ends with exit code {code}. {advice}", code)


def watch(client: Any, me: int, count: int, seconds: float) -> Watch:
    """Start to watch, and to tell the others how this process ends."""
    watching = Watch(client, me, count, seconds)
    on_abort(watching.ended_by_jax)
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        usual(kind, error, trace)
        watching.failed(error, 1)
        watching.leave()

    sys.excepthook = hook
    atexit.register(watching.leave)
    watching.start()
    return watching


def ended(why: str, code: int) -> None:
    """End at once, with a sentence."""
    os.write(2, f"\nlr_nn: {why}\n".encode())
    os._exit(code)


def on_abort(then: Callable[[], None]) -> None:
    """Call `then` where C++ aborts. A handler of Python's own would run in the main thread, and later: too late."""
    global _HANDLER  # noqa: PLW0603, for the life of the process
    _HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: then())
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    install(signal.SIGABRT, ctypes.cast(_HANDLER, ctypes.c_void_p))


_HANDLER: Any = None
