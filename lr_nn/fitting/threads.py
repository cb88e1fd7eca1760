"""Threads of BLAS: a fit has its own, one for each chunk, and keeps the library's to one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS's own threads wait busily after a product, and halve the speed of others.

    The first of those that run at once takes them, and the last gives them back.
    """
    with _LOCK:
        if not _FITS:
            _FITS.append(_threads().limit(limits=1, user_api="blas"))
        _FITS.append(None)
    try:
        yield
    finally:
        with _LOCK:
            _FITS.pop()
            if len(_FITS) == 1:
                _FITS.pop().restore_original_limits()


_LOCK = Lock()
_FITS: list[Any] = []


@cache
def _threads() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401, so that its BLAS is there to be found

    return ThreadpoolController()
