"""What a command says: text for people or one JSON object for machines, and bars on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol


class Show(Protocol):
    """Moves a bar."""

    def __call__(self, done: float, total: float | None, word: str = "") -> None:
        """Show how much is done, of how much, and a word."""


class Terminal:
    """Where a command speaks. Text goes to standard output, unless the JSON object does; the rest to standard error."""

    def __init__(self, json: bool) -> None:
        """json: keep quiet, and print one object at the end."""
        self.json = json
        # Of many processes one speaks, and the others only of their errors.
        self.speaks = True
        self.told: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """Tell people."""
        if self.speaks and not self.json:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Tell people what is no result."""
        if self.speaks:
            print(text, file=sys.stderr, flush=True)

    def record(self, **values: Any) -> None:
        """Tell machines: entries of the object that is printed at the end."""
        self.told |= values

    def finish(self, code: int) -> None:
        """Print the object, if it is wanted."""
        if self.speaks and self.json:
            print(json.dumps(plain({**self.told, "exit_code": code}), ensure_ascii=False), flush=True)

    def fail(self, code: int, message: str) -> int:
        """Say why there is no result, the last thing that a command does; the exit code."""
        with suppress(OSError):
            self.explain(message)
        return self.end(code, message)

    def explain(self, message: str) -> None:
        """Say why there is no result."""
        self.told = {"error": message}
        print(f"error: {message}", file=sys.stderr, flush=True)

    def end(self, code: int, message: str) -> int:
        """Print the object without a result, if it is wanted and can be; the exit code."""
        self.told = {"error": message}
        with suppress(OSError):
            self.finish(code)
        return code

    @contextmanager
    def bar(self, description: str, unit: str = "rows") -> Iterator[Show]:
        """A bar with rate and time left, moved by what is yielded. Only on a terminal."""
        if not self.speaks or sys.stderr is None or not sys.stderr.isatty():  # None where it is closed
            yield _silence
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[word]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as display:
            task = display.add_task(description, total=None, rate="", word="")

            def show(done: float, total: float | None, word: str = "") -> None:
                speed = display.tasks[0].speed
                rate = "" if speed is None else f"{speed:,.0f} {unit}/s"
                display.update(task, completed=done, total=total, rate=rate, word=word)

            yield show


def _silence(done: float, total: float | None, word: str = "") -> None:
    pass


def plain(value: Any) -> Any:
    """`value` in the types of JSON; NaN and infinity, which it has not, become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
