"""The thread that starts sandboxes: they end with the thread that started them, so it lives as long as this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["spawner"]

T = TypeVar("T")


class _Spawner:
    """One thread that calls functions in turn.

    `bwrap --die-with-parent` asks the kernel for a signal when its parent ends, and to the kernel that is the thread.
    """

    _running: bool

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def call(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Have a function called in the thread."""
        future: Future[T] = Future()
        with self._guard:
            if not self._running:
                self._running = True
                threading.Thread(target=_work, args=(self._calls,), name="lagentlike-spawner", daemon=True).start()
        self._calls.put((future, function, args))
        return future

    def _forget(self) -> None:
        """At first, and in a forked child, there is no thread."""
        self._guard = threading.Lock()
        self._calls: SimpleQueue[Any] = SimpleQueue()
        self._running = False


def _work(calls: SimpleQueue[Any]) -> None:
    while True:
        future, function, args = calls.get()
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = function(*args)
        except BaseException as error:  # noqa: BLE001  # who asked for it is told
            future.set_exception(error)
        else:
            future.set_result(result)
        del future, function, args


spawner = _Spawner()
