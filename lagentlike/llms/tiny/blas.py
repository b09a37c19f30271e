"""Keeps numpy's matrix products on one thread while small models run, and gives the threads back afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy

__all__ = ["single_thread"]

_lock = threading.Lock()
_users = 0
_threads_before = 1


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run a block with OpenBLAS on one thread.

    Matrices of a tiny model are so small that handing parts to other threads costs more than it saves, by a factor of
    twenty on a busy machine. The setting is of the process; the last block to end restores what was there. With another
    BLAS, nothing is changed.
    """
    global _users, _threads_before
    control = _openblas()
    if control is None:
        yield
        return
    get, set_ = control
    with _lock:
        if _users == 0:
            _threads_before = get()
            if _threads_before != 1:
                set_(1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _threads_before != 1:
                set_(_threads_before)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """The get and set functions of the OpenBLAS that numpy's wheel carries, or None."""
    package = Path(numpy.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")) if folder.is_dir() else ():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
                set_ = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
                if get is not None and set_ is not None:
                    return get, set_
    return None
