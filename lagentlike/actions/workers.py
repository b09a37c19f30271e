"""Daemon threads for blocking tools, so that one that never returns keeps neither the loop nor the process."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ..errors import ToolTimeout

__all__ = ["run_within", "submit", "submit_from_loop", "when_given_up"]

T = TypeVar("T")

IDLE_SECONDS = 10.0
"""How long a thread waits for its next piece of work before it ends."""


def submit(function: Callable[..., T], *args: Any) -> Future[T]:
    """Run a blocking function in a thread, with the caller's context variables.

    As many run at once as are given: whoever calls this bounds them. A thread is used again when its function returns,
    and does not keep the process alive until then. Who waits no more cancels the future, which stops nothing by itself:
    see `when_given_up`.
    """
    future: Future[T] = Future()
    _workers.give(_Work(function, args, future))
    return future


def submit_from_loop(function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """The same for the running event loop, at half the cost of a future of either kind."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    _workers.give(_LoopWork(function, args, future, loop))
    return future


@contextmanager
def when_given_up(function: Callable[[], Any]) -> Iterator[None]:
    """A block in which a function is called, from whatever thread, if nobody waits any more for what is done here."""
    work: _Work | None = getattr(_here, "work", None)
    wanted = [True]

    def look(future: Any) -> None:
        if future.cancelled() and wanted:
            function()

    if work is not None:
        work.when_done(look)
    try:
        yield
    finally:
        wanted.clear()


class _Work:
    """A function that somebody waits for."""

    __slots__ = ("_args", "_context", "_function", "_future")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], future: Any) -> None:
        self._context = contextvars.copy_context()
        self._function = function
        self._args = args
        self._future = future

    def run(self) -> None:
        if self._future.cancelled():
            return
        _here.work = self
        try:
            result = self._context.run(self._function, *self._args)
        except BaseException as error:  # noqa: BLE001  # SystemExit of a tool must not end the thread unseen
            self.deliver(None, error)
        else:
            self.deliver(result, None)
        finally:
            _here.work = None

    def deliver(self, result: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self._future.set_result(result)
            else:
                self._future.set_exception(error)
        except InvalidStateError:
            return  # nobody waits any more

    def when_done(self, function: Callable[[Any], None]) -> None:
        """Have a function called with the future when that is done or cancelled."""
        self._future.add_done_callback(function)


class _LoopWork(_Work):
    """A function that a task waits for; results that come close together wake the loop once."""

    __slots__ = ("_loop",)

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], future: Any, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(function, args, future)
        self._loop = loop

    def deliver(self, result: Any, error: BaseException | None) -> None:
        if isinstance(error, StopIteration):  # no coroutine can be given it
            told = RuntimeError("a blocking function raised StopIteration")
            told.__cause__ = error
            error = told
        with _arrived_guard:
            arrived = _arrived.setdefault(self._loop, [])
            arrived.append((self._future, result, error))
            first = len(arrived) == 1
        if first:
            try:
                self._loop.call_soon_threadsafe(_hand_out, self._loop)
            except RuntimeError:  # the loop was closed meanwhile, and nobody waits any more
                _arrived.pop(self._loop, None)

    def when_done(self, function: Callable[[Any], None]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._future.add_done_callback, function)


_here = threading.local()
"""`work`: what this thread does."""

_arrived: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}
_arrived_guard = threading.Lock()


def _hand_out(loop: asyncio.AbstractEventLoop) -> None:
    """Give the results that have come to those who wait in this loop."""
    with _arrived_guard:
        arrived = _arrived.pop(loop, [])
    for future, result, error in arrived:
        if future.done():
            continue  # cancelled
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class _Workers:
    """The threads, and the work that none of them has taken yet.

    A thread that takes work and leaves some wakes the next one, so that a burst of quick calls is done by one or two
    threads and a burst of slow ones by as many as there are calls.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def give(self, work: _Work) -> None:
        with self._guard:
            self._waiting.append(work)
            worker = self._next()
        if worker is not None:
            self._wake(worker)

    def take(self) -> _Work | None:
        """The next work for a thread that has come; None if it may rest."""
        with self._guard:
            work = self._waiting.popleft() if self._waiting else None
            worker = self._next() if self._waiting else None
        if worker is not None:
            self._wake(worker)
        return work

    def came(self) -> None:
        """A thread that was woken is there."""
        with self._guard:
            self._coming = False

    def rest(self, worker: _Worker) -> bool:
        """Whether a thread may wait; not when work came meanwhile."""
        with self._guard:
            if self._waiting:
                return False
            self._idle.append(worker)
            return True

    def leave(self, worker: _Worker) -> bool:
        """Whether a waiting thread may end; not when it was just woken."""
        with self._guard:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
        return False

    def _next(self) -> _Worker | None:
        """The thread to wake for what is waiting, unless one is coming already."""
        if self._coming:
            return None
        self._coming = True
        return self._idle.pop() if self._idle else _Worker(self)

    def _wake(self, worker: _Worker) -> None:
        try:
            worker.wake()
        except RuntimeError:  # no more threads can be started
            self.came()
            raise

    def _forget(self) -> None:
        """At first, and in a forked child, there are no threads."""
        self._guard = threading.Lock()
        self._idle: list[_Worker] = []
        self._waiting: deque[_Work] = deque()
        self._coming = False


class _Worker(threading.Thread):
    def __init__(self, workers: _Workers) -> None:
        super().__init__(name="lagentlike-tool", daemon=True)
        self._workers = workers
        self._woken = threading.Lock()
        self._woken.acquire()

    def wake(self) -> None:
        if self.ident is None:
            self.start()
        else:
            self._woken.release()

    def run(self) -> None:
        while True:
            self._workers.came()
            while True:
                work = self._workers.take()
                if work is not None:
                    work.run()
                    del work
                elif self._workers.rest(self):
                    break
            if not self._woken.acquire(timeout=IDLE_SECONDS) and self._workers.leave(self):
                return
            # if it was woken in the moment between the two, the signal is still there


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
