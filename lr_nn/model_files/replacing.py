"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A name beside `path` to write a file to; at the end of the block it becomes `path`, or after an error nothing.

    Raises FileExistsError at once where something is there already and `overwrite` does not say to replace it.
    """
    path = Path(os.path.realpath(path))
    admit(path, overwrite)
    draft = sibling(path)
    try:
        yield draft
        settle(draft)
        os.replace(draft, path)
        settle(path.parent)
    except OSError as error:
        raise _named(error, draft, path) from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, which at the end of the block becomes `folder`, or after an error nothing."""
    draft = sibling(folder)
    try:
        draft.mkdir()
        yield draft
        settle(draft)
        os.replace(draft, folder)
        settle(folder.parent)
    except OSError as error:
        raise _named(error, draft, folder) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def admit(path: Path, overwrite: bool) -> None:
    """Refuse a path that no file can be written to, or that is taken."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: name another file, or ask to overwrite it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder: make it first")


def sibling(path: Path) -> Path:
    """A hidden name in the folder of `path` that nothing has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def settle(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, are on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _named(error: OSError, draft: Path, path: Path) -> OSError:
    """The error of the system, such as a full disk, on the file that was meant and not on its draft."""
    if error.errno is None or not str(error.filename or draft).startswith(str(draft)):
        return error
    return OSError(error.errno, error.strerror, str(error.filename or draft).replace(str(draft), str(path)))
