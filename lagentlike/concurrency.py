"""Where blocking and async code meet: the only such place.

Blocking units run the same coroutines as async ones, stepped without an event loop; what can only be done by an event
loop (HTTP, an async tool under a blocking executor) runs on one background loop of this process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from contextvars import ContextVar, copy_context, Token
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from .errors import ColourError, SessionBusy

__all__ = [
    "LoopThread",
    "Stop",
    "Stopped",
    "TurnQueue",
    "background",
    "in_thread",
    "in_threads",
    "iterate_in_background",
    "on_background",
    "result_of",
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


class Stopped(Exception):  # to be stopped is no error
    """Something was given up because somebody wanted it to stop; the text says why."""


class Stop:
    """Tells what is under way to stop, from any thread.

    What waits by its means is woken and raises `Stopped`, at once. The call that says so itself, such as a tool which
    stops the run that it is called in, is let end.

    Attributes:
        reason: why, once somebody wants that.
    """

    __slots__ = ("_listeners", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        self._listeners: set[_Listener] = set()

    def set(self, reason: str) -> None:
        """Say that it is to stop."""
        self.reason = reason
        me = _listening.get()
        for listener in list(self._listeners):  # whoever comes later sees the reason
            if listener is not me:
                listener.wake()

    def check(self) -> None:
        """Raise `Stopped` if it is to stop."""
        if self.reason is not None:
            raise Stopped(self.reason)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Await something, which is cancelled when it is to stop."""
        try:
            with self.watching():
                return await awaitable
        finally:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()  # where it was never begun

    async def each_async(self, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Give out items, up to where it is to stop; what waits for the next one is cancelled."""
        watch = self.watching()
        while True:
            with watch:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """Give out items, up to where it is to stop: between two of them, or sooner where `here` reaches."""
        while True:
            self.check()
            token = _stop_here.set(self)  # as `here` does, in a sixth of the time
            try:
                item = next(items, _NOTHING)
            finally:
                _stop_here.reset(token)
            if item is _NOTHING:
                return
            yield item  # type: ignore[misc]  # it is none other

    @contextmanager
    def here(self) -> Iterator[None]:
        """Let what this thread waits for, in requests over HTTP and of local models, be stopped."""
        self.check()
        token = _stop_here.set(self)
        try:
            yield
        finally:
            _stop_here.reset(token)

    def watching(self) -> Watch:
        """A block whose awaiting is cancelled when it is to stop."""
        return Watch(self)

    def waiting(self) -> Waiting:
        """A block in which a thread waits for futures, until it is to stop."""
        return Waiting(self)


class _Listener:
    """Something under way that is woken when it is to stop."""

    __slots__ = ("_stop", "_token")

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._token: Token[_Listener | None] | None = None

    def wake(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        stop = self._stop
        stop._listeners.add(self)
        self._token = _listening.set(self)
        if stop.reason is not None:
            self._leave()
            raise Stopped(stop.reason)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        assert self._token is not None
        _listening.reset(self._token)
        self._stop._listeners.discard(self)


class Watch(_Listener):
    """Cancels what its block awaits, as `asyncio.timeout` does when time is up."""

    __slots__ = ("_cancelling", "_fired", "_is_open", "_loop", "_task")

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self._is_open = self._fired = False

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        super().__enter__()
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._leave()
        if self._fired:
            self._fired = False
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise Stopped(self._stop.reason) from error

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._is_open and not self._fired:
            self._fired = True
            self._task.cancel()


class Waiting(_Listener):
    """A thread that waits for a future, or until it is to stop."""

    __slots__ = ("_event",)

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self._event = threading.Event()

    def wake(self) -> None:
        self._event.set()

    def result(self, future: Future[T], timeout: float | None = None) -> T:
        """The result of a future.

        Raises:
            Stopped: it is to stop, and there is no result yet.
            TimeoutError: it took longer.
        """
        future.add_done_callback(lambda _: self._event.set())
        self._event.wait(timeout)
        if future.done():
            return future.result()
        self._stop.check()
        raise TimeoutError


def result_of(future: Future[T], timeout: float | None = None) -> T:
    """Wait for a future, or until what this thread does is to stop; see `Stop.here`.

    Raises:
        Stopped: it is to stop.
        TimeoutError: it took longer than `timeout` seconds.
    """
    stop = _stop_here.get()
    if stop is None:
        return future.result(timeout)
    with stop.waiting() as waiting:
        return waiting.result(future, timeout)


_NOTHING = object()
_listening: ContextVar[_Listener | None] = ContextVar("lagentlike_listening", default=None)
_stop_here: ContextVar[Stop | None] = ContextVar("lagentlike_stop", default=None)


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

    An interrupt of this thread (Ctrl-C) cancels it, and so does a `Stop`.

    Raises:
        ColourError: called from the background loop itself, which would wait for itself.
        Stopped: it is to stop; see `Stop.here`.
    """
    return _run_in_background(coroutine, _stop_here.get())


def _run_in_background(coroutine: Coroutine[Any, Any, T], stop: Stop | None = None) -> T:
    if background.is_current():
        coroutine.close()
        raise ColourError("a blocking call was made from async code on the background loop: use its async form there")
    future = background.submit(coroutine if stop is None else stop.guard(coroutine))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def on_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that belongs to the background loop, from whatever loop."""
    if background.is_current():
        return await coroutine
    return await asyncio.wrap_future(background.submit(coroutine))


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
            _run_in_background(close())


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking function in a worker thread, with this task's context variables."""
    loop = asyncio.get_running_loop()
    context = copy_context()
    return await loop.run_in_executor(None, lambda: context.run(function, *args, **kwargs))


def in_threads(calls: Sequence[Callable[[], T]], most: int = 64) -> list[T]:
    """The results of blocking calls made side by side, in order, each with this thread's context variables.

    Where one fails, those that have not begun are not made; its error is raised when the others have ended.
    """
    if len(calls) == 1:
        return [calls[0]()]
    with concurrent.futures.ThreadPoolExecutor(min(len(calls), most) or 1, "lagentlike-call") as pool:
        work = [pool.submit(copy_context().run, call) for call in calls]
        try:
            return [one.result() for one in work]
        except BaseException:
            for one in work:
                one.cancel()
            raise
