"""Threads that live as long as this process: sandboxes end with the thread that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["closer", "spawner"]

T = TypeVar("T")


class _Service:
    """One thread that calls functions in turn, started when it is first needed."""

    _running: bool

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def call(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Have a function called in the thread."""
        future: Future[T] = Future()
        with self._guard:
            if not self._running:
                self._running = True
                threading.Thread(target=_work, args=(self._calls,), name=self._name, daemon=True).start()
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


# `bwrap --die-with-parent` asks the kernel for a signal when its parent ends, and to the kernel that is the thread.
spawner = _Service("lagentlike-spawner")
closer = _Service("lagentlike-closer")
