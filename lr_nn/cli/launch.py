"""From words to an exit code: options parsed, the command run, every mistake of the user one message."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lr_nn.cli.terminal import Terminal
from lr_nn.cli.wording import in_options

FINE, LOOK, MISTAKE, FAILURE = 0, 1, 2, 3
INTERRUPTED, TERMINATED, UNREAD = 128 + signal.SIGINT, 128 + signal.SIGTERM, 141
STOPPED = {
    INTERRUPTED: "interrupted; nothing is half written",
    TERMINATED: "terminated; nothing is half written",
    UNREAD: "the reader of the output went away",
}
# Seconds until a signal that could not be raised comes again.
AGAIN = 0.05


class Terminated(BaseException):
    """SIGTERM arrived: what is half done is taken back on the way out, and the process ends."""


# The exceptions that end a command from without.
STOPS: dict[type[BaseException], int] = {
    KeyboardInterrupt: INTERRUPTED,
    Terminated: TERMINATED,
    BrokenPipeError: UNREAD,
}


def launch(name: str, description: str, arguments: Sequence[str], terminal: Terminal) -> int:
    """Run one command; the exit code."""
    options = parse(name, description, arguments)
    # A command is a module of this package with a function `run(options, terminal) -> exit code`.
    code: int = import_module(f"lr_nn.cli.{name}").run(options, terminal)
    return code


def guarded(arguments: Sequence[str], work: Callable[[Terminal], int]) -> int:
    """The exit code of `work`, every way that it can end told in a message."""
    terminal = Terminal(json="--json" in arguments)
    arrived: list[int] = []
    try:
        with signals() as arrived:
            code = work(terminal)
            terminal.finish(code)
            return code
    except SystemExit as end:  # of the parser, which has said why
        code = end.code if isinstance(end.code, int) else MISTAKE
        return terminal.end(code, "the options do not fit") if code else code
    except BrokenPipeError:
        # Python would complain once more when it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return UNREAD
    except (KeyboardInterrupt, Terminated) as stopped:
        return terminal.fail(*judged(stopped))
    except Exception as error:
        if arrived:  # some libraries make another exception of it
            return terminal.fail(128 + arrived[-1], STOPPED[128 + arrived[-1]])
        if "--debug" in arguments:
            raise
        return terminal.fail(*judged(error))


def judged(error: BaseException) -> tuple[int, str]:
    """The exit code for an exception, and what to say: is it something that the user can put right?"""
    if type(error) in STOPS:
        code = STOPS[type(error)]
        return code, STOPPED[code]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != "lr_nn":
        return MISTAKE, f'{error.name} is not installed: pip install "lr-nn[cli]"'
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return MISTAKE, f"out of memory: give fewer rows at a time by --memory or --batch-size ({error})"
    if isinstance(error, (ValueError, OSError, ImportError)):
        return MISTAKE, in_options(str(error))
    return FAILURE, f"lr-nn failed: {type(error).__name__}: {error} (--debug shows where; please report it)"


def parse(name: str, description: str, arguments: Sequence[str]) -> Any:
    """The options of a command, by tyro, which ends the program where they do not fit."""
    try:
        import tyro
    except ImportError as error:
        raise ImportError('the command line needs tyro: pip install "lr-nn[cli]"') from error
    from lr_nn.cli import options

    kind = getattr(options, name.capitalize())
    return tyro.cli(kind, prog=f"lr-nn {name}", description=f"{description}.", args=list(arguments))


@contextmanager
def signals() -> Iterator[list[int]]:
    """Make Ctrl-C and SIGTERM exceptions, so that what is half written is taken back; yields those that arrived.

    Only a main thread can. One that arrives where nothing can be raised, as in the collector of garbage, comes again.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return

    def stop(number: int, frame: Any) -> None:
        arrived.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def unheard(found: Any) -> None:
        if isinstance(found.exc_value, (Terminated, KeyboardInterrupt)):
            threading.Timer(AGAIN, signal.raise_signal, arrived[-1:]).start()
        else:
            hook(found)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, unheard
    try:
        yield arrived
    finally:
        if sys.unraisablehook is unheard:
            sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
