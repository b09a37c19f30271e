"""Run one call of a tool so that nothing the tool does gets out, except cancellation and the user's own Ctrl-C."""

from __future__ import annotations

import asyncio
import dis
import functools
import inspect
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING, TypeVar

from .. import tapes
from ..concurrency import background, run_in_background, Stop, Stopped
from ..errors import ColourError
from ..schema import ActionReturn
from ..tracing import spans
from .result import as_return, failed
from .workers import submit, submit_from_loop

if TYPE_CHECKING:
    from .base import ToolAPI

__all__ = ["PreparedCall", "on_background", "run_call", "run_call_async", "run_calls", "run_calls_async"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_SECONDS = 0.5
"""How long an async tool that is cancelled may take to end."""


@dataclass(slots=True)
class PreparedCall:
    """A tool with arguments that fit it.

    Attributes:
        api: the tool.
        arguments: what the model gave, for `ActionReturn.args`.
        kwargs: what the function is called with.
        timeout: seconds it may take; None for as long as it likes.
        call_id: what the model called the call, for tracers.
    """

    api: ToolAPI
    arguments: dict[str, Any]
    kwargs: dict[str, Any]
    timeout: float | None = None
    call_id: str | None = None

    def returned(self, value: Any) -> ActionReturn:
        return as_return(value, self.api.name, self.arguments, self.api.max_length)

    def failed(self, what: BaseException | str) -> ActionReturn:
        if isinstance(what, BaseException):
            logger.info("tool %s failed: %s", self.api.name, type(what).__name__, exc_info=what)
        return failed(what, self.api.name, self.arguments, max_length=self.api.max_length)

    def overran(self, stopped: bool) -> ActionReturn:
        return self.failed(f"{self.api.name} took longer than its {self.timeout:g} seconds: {_end(stopped)}")

    def given_up(self, why: Stopped) -> ActionReturn:
        return self.failed(
            f"{self.api.name} was given up ({why}): {_end(self.api.is_async or self.api.action.interruptible)}"
        )

    def not_made(self, reason: str) -> ActionReturn:
        return self.failed(f"this call was not made: {reason}")


def _end(stopped: bool) -> str:
    return "it was stopped" if stopped else "it is still running, and nobody waits for its result any more"


def run_call(call: PreparedCall, stop: Stop | None = None) -> ActionReturn:
    """Run a call and wait for it: in this thread, or in another one if there may be an end to the waiting; async tools
    on the background loop.
    """
    if not spans.tracers:
        return _run_taped(call, stop) if tapes.current is not None else _run(call, stop)
    with spans.begin_tool(call.api.name, call.call_id, call.arguments) as span:
        result = _run_taped(call, stop)
        span.returned(result)
        return result


def _run_taped(call: PreparedCall, stop: Stop | None) -> ActionReturn:
    tape = tapes.current
    return _run(call, stop) if tape is None else tape.tool(call, lambda: _run(call, stop))


def _run(call: PreparedCall, stop: Stop | None) -> ActionReturn:
    if call.api.is_async:
        try:
            return run_in_background(_run_stoppable(call, stop))
        except ColourError as error:
            return call.failed(error)
    if call.api.action.stops_itself:
        stop = None
    if call.timeout is None and stop is None:
        return _invoke(call)
    if stop is not None and stop.reason is not None:
        return call.not_made(stop.reason)
    try:
        with (stop or Stop()).waiting() as waiting:
            future = submit(_invoke, call)
            try:
                return waiting.result(future, call.timeout)
            finally:
                future.cancel()
    except TimeoutError:
        return call.overran(stopped=call.api.action.interruptible)
    except Stopped as why:
        return call.given_up(why)


def run_call_async(call: PreparedCall, stop: Stop | None = None) -> Coroutine[Any, Any, ActionReturn]:
    """Run a call and await it: an async tool in this loop, a blocking one in a thread."""
    return _run_told(call, stop) if spans.tracers or tapes.current is not None else _run_stoppable(call, stop)


async def _run_told(call: PreparedCall, stop: Stop | None) -> ActionReturn:
    if not spans.tracers:
        return await _run_taped_async(call, stop)
    with spans.begin_tool(call.api.name, call.call_id, call.arguments) as span:
        result = await _run_taped_async(call, stop)
        span.returned(result)
        return result


async def _run_taped_async(call: PreparedCall, stop: Stop | None) -> ActionReturn:
    tape = tapes.current
    if tape is None:
        return await _run_stoppable(call, stop)
    result: ActionReturn = await tape.tool_async(call, lambda: _run_stoppable(call, stop))
    return result


async def _run_stoppable(call: PreparedCall, stop: Stop | None) -> ActionReturn:
    if stop is None or call.api.action.stops_itself:
        return await _run_async(call)
    if stop.reason is not None:
        return call.not_made(stop.reason)
    try:
        with stop.watching():
            return await _run_async(call)
    except Stopped as why:
        return call.given_up(why)


async def _run_async(call: PreparedCall) -> ActionReturn:
    """Run a call within its time limit."""
    if not call.api.is_async:
        waiting = submit_from_loop(_invoke, call)
        if call.timeout is None:
            return await waiting
        try:
            done, _ = await asyncio.wait([waiting], timeout=call.timeout)
            return waiting.result() if done else call.overran(stopped=call.api.action.interruptible)
        finally:
            waiting.cancel()
    if call.timeout is None:
        return await _await(call)
    task = asyncio.create_task(_await(call))
    try:
        done, _ = await asyncio.wait([task], timeout=call.timeout)
    except BaseException:
        await _stop(task)
        raise
    if done:
        return task.result()
    return call.overran(stopped=await _stop(task))


def run_calls(calls: list[PreparedCall], max_concurrency: int, stop: Stop | None = None) -> list[ActionReturn]:
    """Run calls side by side in threads; their results in order. A single one runs in this thread.

    With a `stop`, each runs in a thread of its own; those under way are given up when it is to stop, and the others are
    not made.
    """
    if len(calls) <= 1 or max_concurrency == 1:
        return [run_call(call, stop) for call in calls]
    results: list[ActionReturn | None] = [None] * len(calls)
    queue = iter(range(len(calls)))
    guard = threading.Lock()
    abandoned = threading.Event()

    def work_off() -> None:
        while not abandoned.is_set():
            with guard:
                index = next(queue, None)
            if index is None:
                return
            results[index] = run_call(calls[index], stop)

    workers = [submit(work_off) for _ in range(min(len(calls), max_concurrency))]
    try:
        for worker in workers:
            worker.result()
    except BaseException:
        abandoned.set()
        for worker in workers:
            worker.cancel()
        raise
    return [result for result in results if result is not None]


async def run_calls_async(
    calls: list[PreparedCall], max_concurrency: int, stop: Stop | None = None
) -> list[ActionReturn]:
    """Run calls side by side in tasks; their results in order. `stop` is as for `run_calls`."""
    if len(calls) == 1:
        return [await run_call_async(calls[0], stop)]
    slots = asyncio.Semaphore(max_concurrency)

    async def run(call: PreparedCall) -> ActionReturn:
        async with slots:
            return await run_call_async(call, stop)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(call)) for call in calls]
    except BaseExceptionGroup as failures:  # of a tape: what a tool raises is its result
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def on_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await, in whatever loop, a coroutine that runs on the background loop and shares what lives there."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, background.loop()))


def _invoke(call: PreparedCall) -> ActionReturn:
    """Call the function in this thread; whatever it raises is the call's result."""
    try:
        value = call.api.function(**call.kwargs)
        if inspect.isawaitable(value):
            value = run_in_background(_awaited(value))
        return call.returned(value)
    except KeyboardInterrupt as error:
        if is_users_interrupt(error):
            raise
        return call.failed(error)
    except BaseException as error:  # noqa: BLE001  # that is what this function is for
        return call.failed(error)


async def _await(call: PreparedCall) -> ActionReturn:
    """Await the function in this task; whatever it raises by itself is the call's result."""
    me = asyncio.current_task()
    before = 0 if me is None else me.cancelling()
    try:
        value = await call.api.function(**call.kwargs)
        if me is not None and me.cancelling() > before:  # the tool kept it to itself
            raise asyncio.CancelledError
        return call.returned(value)
    except asyncio.CancelledError as error:
        if me is not None and me.cancelling():
            raise
        return call.failed(error)
    except GeneratorExit as error:
        if not _is_running(me):  # the loop is gone, and this coroutine is being thrown away
            raise
        return call.failed(error)
    except KeyboardInterrupt as error:
        if is_users_interrupt(error):
            raise
        return call.failed(error)
    except BaseException as error:  # noqa: BLE001  # that is what this function is for
        return call.failed(error)


async def _awaited(value: Any) -> Any:
    return await value


async def _stop(task: asyncio.Task[Any]) -> bool:
    """Cancel a task; whether it ended soon."""
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=GRACE_SECONDS)
    return bool(done)


def _is_running(task: asyncio.Task[Any] | None) -> bool:
    try:
        return task is not None and asyncio.current_task() is task
    except RuntimeError:
        return False


def is_users_interrupt(error: KeyboardInterrupt) -> bool:
    """Whether a signal raised it (the user pressed Ctrl-C), and not a `raise` in some code."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = _code(signal.getsignal(signal.SIGINT))
    frames = list(_frames(error))
    if not frames or any(code is handler for code, _ in frames):
        return True
    code, instruction = frames[-1]
    return dis.opname[code.co_code[instruction]] not in _RAISING


_RAISING = ("RAISE_VARARGS", "RERAISE")


def _frames(error: BaseException) -> Iterator[tuple[Any, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_lasti
        trace = trace.tb_next


def _code(handler: Callable[..., Any] | int | None) -> Any:
    """The code of a signal handler that is written in Python."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return getattr(handler, "__code__", None)
