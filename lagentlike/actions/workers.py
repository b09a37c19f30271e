"""Daemon threads for blocking tools, so that one that never returns keeps neither the loop nor the process."""

from __future__ import annotations

import contextvars
import ctypes
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from ..errors import ToolTimeout

__all__ = ["run_within", "submit"]

T = TypeVar("T")

IDLE_SECONDS = 10.0
"""How long a thread waits for its next piece of work before it ends."""


def submit(function: Callable[..., T], *args: Any) -> Future[T]:
    """Run a blocking function in a thread of its own, with the caller's context variables.

    As many run at once as are given: whoever calls this bounds them. The thread is used again when the function
    returns, and does not keep the process alive until then.
    """
    work = _Work(contextvars.copy_context(), function, args)
    _workers.give(work)
    return work.future


class _Work:
    __slots__ = ("args", "context", "function", "future")

    def __init__(self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.context = context
        self.function = function
        self.args = args
        self.future: Future[Any] = Future()

    def run(self, done: Callable[[], None]) -> None:
        """Do it; `done` is called before anybody hears of the result, so that the thread can be had again."""
        if not self.future.set_running_or_notify_cancel():
            done()
            return
        try:
            result = self.context.run(self.function, *self.args)
        except BaseException as error:  # noqa: BLE001  # SystemExit of a tool must not end the thread unseen
            done()
            self.future.set_exception(error)
        else:
            done()
            self.future.set_result(result)


class _Workers:
    """Idle threads, last used first."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._guard = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def give(self, work: _Work) -> None:
        with self._guard:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.inbox.put(work)
            worker.start()
        else:
            worker.inbox.put(work)

    def rest(self, worker: _Worker) -> None:
        with self._guard:
            self._idle.append(worker)

    def leave(self, worker: _Worker) -> bool:
        """Whether an idle thread may end: not when work is on its way to it."""
        with self._guard:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
        return False

    def _forget(self) -> None:
        """In a forked child there are no threads but its own."""
        self._idle = []
        self._guard = threading.Lock()


class _Worker(threading.Thread):
    def __init__(self, workers: _Workers) -> None:
        super().__init__(name="lagentlike-tool", daemon=True)
        self.inbox: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self.workers = workers

    def run(self) -> None:
        while True:
            try:
                work = self.inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if self.workers.leave(self):
                    return
                continue
            work.run(lambda: self.workers.rest(self))
            del work


_workers = _Workers()


def run_within(seconds: float | None, function: Callable[..., T], *args: Any) -> T:
    """Run Python code in another thread, and stop it when it takes too long.

    It is stopped by an exception raised in it, which C code (such as `time.sleep`) only sees when it returns.

    Raises:
        ToolTimeout: it took longer; the message tells whether it could be stopped.
    """
    if seconds is None:
        return submit(function, *args).result()
    stoppable = _Stoppable(function, args)
    future = submit(stoppable.run)
    try:
        return future.result(seconds)  # type: ignore[no-any-return]
    except TimeoutError:
        stoppable.stop()
    try:
        future.result(STOP_SECONDS)
    except TimeoutError:
        raise ToolTimeout(
            f"it took longer than {seconds:g} seconds and cannot be stopped: it is still running"
        ) from None
    except BaseException as error:
        if not isinstance(error, _Stopped):
            raise
    raise ToolTimeout(f"it took longer than {seconds:g} seconds and was stopped")


STOP_SECONDS = 1.0
"""How long code may take to end after it was told to."""


class _Stopped(BaseException):
    """Raised in code that takes too long; no `except Exception` catches it."""


class _Stoppable:
    """A function that can be stopped from another thread, and only while it runs."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._guard = threading.Lock()
        self._thread: int | None = None

    def run(self) -> Any:
        with self._guard:
            self._thread = threading.get_ident()
        try:
            return self._function(*self._args)
        finally:
            with self._guard:
                self._thread = None

    def stop(self) -> None:
        with self._guard:
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(_Stopped))
