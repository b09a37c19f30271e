"""Where blocking and async code meet: the only such place.

Blocking units run the same coroutines as async ones, stepped without an event loop; what can only be done by an event
loop (HTTP, an async tool under a blocking executor) runs on one background loop of this process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from .errors import ColourError, SessionBusy

__all__ = [
    "LoopThread",
    "TurnQueue",
    "background",
    "in_thread",
    "iterate_in_background",
    "run_in_background",
    "step",
    "stepped",
]

T = TypeVar("T")


def step(coroutine: Coroutine[Any, Any, T], doing: str = "this call") -> T:
    """Run a coroutine that never has to wait to its end, without an event loop.

    It works in a plain script, in Jupyter and inside a running event loop alike.

    Raises:
        ColourError: the coroutine awaited something that needs an event loop; `doing` says in the message what it did.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RuntimeError as error:
        if str(error) != "no running event loop":
            raise
        raise _waited(doing, error) from error
    waited = _waited(doing)
    try:
        coroutine.throw(waited)  # what is open in it is closed, and knows why
    except StopIteration as stop:  # it caught that, and came to its end without waiting
        result = stop.value
        return result
    coroutine.close()
    raise waited


def _waited(doing: str, error: Exception | None = None) -> ColourError:
    waited = ColourError(
        f"{doing} had to wait for something asynchronous, which a blocking call cannot do: "
        "use the async class (AsyncAgent, AsyncActionExecutor, …), or make it a plain function"
    )
    if error is not None:
        waited.__dict__.update(error.__dict__)  # what a turn that was given up left with it
    return waited


@contextmanager
def stepped(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter and leave an async context manager from blocking code, by `step`."""
    value = step(manager.__aenter__(), "entering the call")
    try:
        yield value
    except BaseException as error:
        if not step(manager.__aexit__(type(error), error, error.__traceback__), "leaving the call"):
            raise
    else:
        step(manager.__aexit__(None, None, None), "leaving the call")


class _Waiter(Protocol):
    def wake(self) -> bool:
        """Hand it the turn; False if nobody is there any more to take it."""


class _ThreadWaiter:
    """A blocked thread."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wake(self) -> bool:
        self.event.set()
        return True


class _TaskWaiter:
    """A waiting asyncio task, woken from whatever thread."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> bool:
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # its loop was closed while it waited
            return False
        return True

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


GRACE = 5.0
"""Seconds that an open stream gets to go on before a turn that its last reader waits for gives up."""

NESTED = (
    "this call runs inside a turn of the same unit and session, and would wait for itself: "
    "use another session_id, or call a sub-unit instead"
)
_OPEN_STREAM = (
    "a stream of the same unit and session is still open here: read it to its end, or close it with closing() or "
    "aclosing()"
)


_guard = threading.Lock()  # of all queues: it is held for an instant, and there are queues by the thousand


class TurnQueue:
    """A first-come lock that threads and asyncio tasks may wait for together.

    The turns of one session hold it one after another. Taking it again from the call that holds it is an error instead
    of a deadlock. The turn of a stream runs in whatever thread or task reads its next part, and rests in between, while
    its consumer does what it likes: whoever read last and then waits in line may be the one that would read on, or not.
    """

    __slots__ = ("_held", "_runner", "_steps", "_waiters", "rests")

    def __init__(self) -> None:
        self._waiters: deque[_Waiter] | None = None  # most lines never have any
        self._held = False
        self._runner: object = None  # the thread's id or the task in which the holder runs, or ran last
        self._steps = 0  # how often a stream went on, or a turn ended
        self.rests = False
        """Whether the turn that holds it is a stream that waits to be read on."""

    @property
    def idle(self) -> bool:
        """Whether nobody holds it or waits for it."""
        return not self._held

    def take(self, runner: object) -> bool:
        """Make a turn in `runner` (a thread's id or a task) the holder if there is none; whether that worked."""
        with _guard:
            if self._held:
                return False
            self._held, self._runner = True, runner
            return True

    def acquire(self) -> None:
        """Block this thread until it is its turn.

        Raises:
            SessionBusy: this thread holds it already, or is the one that would have to read a stream on.
        """
        me = threading.get_ident()
        with _guard:
            if not self._held:
                self._held, self._runner = True, me
                return
            suspect = self._is_last(me)
            waiter = _ThreadWaiter()
            self._line_up(waiter)
        try:
            seen = self._steps
            while not waiter.event.wait(GRACE if suspect else None):
                seen = self._still_going(seen)
        except BaseException:
            self._abandon(waiter)
            raise
        self._runner = me

    async def acquire_async(self) -> None:
        """Wait until it is this task's turn.

        Raises:
            SessionBusy: this task holds it already, or is the one that would have to read a stream on.
        """
        me = asyncio.current_task()
        with _guard:
            if not self._held:
                self._held, self._runner = True, me
                return
            suspect = self._is_last(me)
            waiter = _TaskWaiter()
            self._line_up(waiter)
        try:
            seen = self._steps
            while suspect and not (await asyncio.wait([waiter.future], timeout=GRACE))[0]:
                seen = self._still_going(seen)
            await waiter.future
        except BaseException:
            self._abandon(waiter)
            raise
        self._runner = me

    def run(self, runner: object) -> None:
        """Say that the stream that holds it goes on in a thread or task."""
        self._runner, self.rests = runner, False

    def rest(self) -> None:
        """Say that the stream that holds it gave a part, and waits to be read on."""
        self._steps += 1
        self.rests = True

    def release(self) -> None:
        """Hand it to the next in line."""
        with _guard:
            self._runner, self.rests = None, False
            self._steps += 1
            while self._waiters:
                if self._waiters.popleft().wake():
                    return
            self._held = False

    def _is_last(self, me: object) -> bool:
        """Whether the holder, a stream at rest, was last read by this thread or task.

        Raises:
            SessionBusy: the holder runs in it, and would wait for itself.
        """
        if self._runner != me:
            return False
        if not self.rests:
            raise SessionBusy(NESTED)
        return True

    def _still_going(self, seen: int) -> int:
        """How far turns have come.

        Raises:
            SessionBusy: not a step since that was looked at.
        """
        if self._steps == seen:
            raise SessionBusy(_OPEN_STREAM)
        return self._steps

    def _line_up(self, waiter: _Waiter) -> None:
        if self._waiters is None:
            self._waiters = deque()
        self._waiters.append(waiter)

    def _abandon(self, waiter: _Waiter) -> None:
        """Leave the line; if the turn was already handed over, pass it on."""
        with _guard:
            waiting = self._waiters is not None and waiter in self._waiters
            if self._waiters is not None and waiting:
                self._waiters.remove(waiter)
        if not waiting:
            self.release()


class LoopThread:
    """One event loop in a daemon thread, started on first use and anew after a fork."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), daemon=True, name=self._name)
                self._thread.start()
            return self._loop

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop())

    def is_current(self) -> bool:
        return self._thread is threading.current_thread()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit):  # of a coroutine, whose caller gets it: the others go on
                continue
            return


background = LoopThread("lagentlike-loop")


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and block until it is done.

    An interrupt of this thread (Ctrl-C) cancels it.

    Raises:
        ColourError: called from the background loop itself, which would wait for itself.
    """
    if background.is_current():
        coroutine.close()
        raise ColourError("a blocking call was made from async code on the background loop: use its async form there")
    future = background.submit(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate_in_background(stream: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over an async iterator that lives on the background loop; closing this iterator closes that one."""

    async def next_item() -> T:
        return await anext(stream)

    try:
        while True:
            try:
                yield run_in_background(next_item())
            except StopAsyncIteration:
                return
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            run_in_background(close())


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking function in a worker thread, with this task's context variables."""
    loop = asyncio.get_running_loop()
    context = copy_context()
    return await loop.run_in_executor(None, lambda: context.run(function, *args, **kwargs))
