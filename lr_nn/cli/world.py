"""--distributed: one of many processes that were all started with the same command."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import jax

from lr_nn import check, sharded
from lr_nn.cli.launch import judged
from lr_nn.cli.options import Learning
from lr_nn.cli.terminal import Terminal
from lr_nn.sharded import world

L = TypeVar("L", bound=Learning)

# Bytes at each end of a file by which it is known, and files of which each is looked at and can be named.
ENDS, LOOKED_AT = 2**16, 1000
# What may differ between processes; what coordinator is meant, joining it has shown.
OWN = ("coordinator", "process_id")


@contextmanager
def joined(options: L, terminal: Terminal) -> Iterator[tuple[L, sharded.RowParallel | None]]:
    """The options for this process, of which the first alone speaks and writes, and the devices of all processes.

    Without --distributed the options as they are, and None.
    The processes are of one mind about their options and files when this begins, and end together: with the first,
    or when one has failed.
    """
    if not options.distributed:
        if (options.coordinator, options.processes, options.process_id) != (None, None, None):
            raise ValueError("--coordinator, --processes and --process-id are for many processes: add --distributed")
        yield options, None
        return
    if options.processes is not None:
        check.positive_integer("--processes", options.processes)
    with _standard_output_is_ours():
        try:
            at = (options.coordinator, options.processes, options.process_id)
            sharded.initialize(*at, heartbeat_seconds=options.heartbeat_seconds)
            terminal.speaks = jax.process_index() == 0
            _agree(options)
            yield options if terminal.speaks else replace(options, out=None), sharded.data_parallel()
            world.told("done")
        except BaseException as error:
            world.failed(error, judged(error)[0])
            raise


def _agree(options: Learning) -> None:
    chosen = {name: value for name, value in asdict(options).items() if name not in OWN}
    sharded.agree("their options", **{f"--{name.replace('_', '-')}": value for name, value in chosen.items()})
    named = (options.data, options.labels, options.y)
    sharded.agree("their files", **known([Path(path) for path in named if path is not None]))


@contextmanager
def _standard_output_is_ours() -> Iterator[None]:
    """What Gloo prints there of its connections goes to standard error: machines read the one object."""
    if sys.stdout is None:  # it is closed
        yield
        return
    usual, kept = sys.stdout, os.dup(1)
    usual.flush()
    os.dup2(2, 1)
    with open(kept, "w", encoding=usual.encoding, errors=usual.errors) as ours:
        sys.stdout = ours if usual is sys.__stdout__ else usual
        try:
            yield
        finally:
            sys.stdout = usual
            ours.flush()
            ctypes.CDLL(None).fflush(None)  # what C has still in its own buffer
            os.dup2(kept, 1)


def known(paths: list[Path]) -> dict[str, str]:
    """What tells files, and those of folders, from others: name -> size and a digest of both ends.

    Of folders of very many files it is one digest of their names and sizes.
    """
    found: dict[str, str] = {}
    for path in paths:
        inside = [each for each in sorted(path.rglob("*")) if each.is_file() and each.name[0] not in "._"]
        if len(inside) > LOOKED_AT:
            text = "".join(f"{each.relative_to(path)} {each.stat().st_size}\n" for each in inside)
            found[path.name] = f"{len(inside):,} files, {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        else:
            names = {str(each.relative_to(path.parent)): each for each in inside or [path] if each.is_file()}
            found |= {name: _ends(each) for name, each in names.items()}
    return found


def _ends(path: Path) -> str:
    """The size of a file, and a digest of its first and its last bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, size - ENDS))
        digest.update(file.read(ENDS))
    return f"{size:,} bytes, {digest.hexdigest()[:12]}"
