"""Call a function that may block, await, raise or never return, without harm to the event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..actions.running import is_users_interrupt
from ..actions.workers import submit_from_loop

__all__ = ["Outcome", "Overran", "begin", "call", "is_async", "stop"]

GRACE_SECONDS = 0.5
"""How long an async function that is cancelled may take to end."""


class Overran(Exception):  # told to its caller alone
    """The function took too long; the text says whether it was stopped."""


async def call(function: Callable[..., Any], arguments: Mapping[str, Any], timeout: float | None = None) -> Any:
    """What `function(**arguments)` gives: an async function awaited in this loop, a blocking one run in a thread.

    Raises:
        Overran: it took longer than `timeout` seconds. A thread cannot be stopped: nobody waits for it any more.
        Exception: what the function raised; a `RuntimeError` in the place of what would end a task or a thread
            (`SystemExit`, a `CancelledError` of its own making).
    """
    started = begin(function, arguments)
    try:
        done, _ = await asyncio.wait([started], timeout=timeout)
    except asyncio.CancelledError:
        await stop(started)
        raise
    if not done:
        stopped = "and was stopped" if await stop(started) else "and is still running, with nobody waiting for it"
        raise Overran(f"it took longer than {timeout:g} seconds {stopped}")
    value = started.result().value()
    return await call(_itself, {"awaitable": value}, timeout) if inspect.isawaitable(value) else value


def begin(function: Callable[..., Any], arguments: Mapping[str, Any]) -> asyncio.Future[Outcome]:
    """Start `function(**arguments)`: an async function in a task, a blocking one in a thread.

    The future never has an exception: what the function raises is in its `Outcome`.
    """
    if is_async(function):
        return asyncio.create_task(_awaited(function, arguments))
    return submit_from_loop(_called, function, arguments)


async def stop(started: asyncio.Future[Outcome]) -> bool:
    """Stop what `begin` started; whether it ended. A thread goes on by itself."""
    if not isinstance(started, asyncio.Task):
        return started.done()
    started.cancel()
    done, _ = await asyncio.wait([started], timeout=GRACE_SECONDS)
    return bool(done)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a function, or an object that is called as one, is to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # it is looked at, not called


@dataclass(slots=True)
class Outcome:
    """What a call came to; an error is kept, so that neither a task nor a thread is ended by it."""

    returned: Any = None
    error: BaseException | None = None

    def value(self) -> Any:
        if self.error is None:
            return self.returned
        if isinstance(self.error, Exception):
            raise self.error
        raise RuntimeError(f"it raised {self.error!r}") from self.error


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Outcome:
    try:
        return Outcome(function(**arguments))
    except BaseException as error:  # noqa: BLE001  # that is what this function is for
        return Outcome(error=error)


async def _awaited(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Outcome:
    task = asyncio.current_task()
    try:
        return Outcome(await function(**arguments))
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        return Outcome(error=error)
    except KeyboardInterrupt as error:
        if is_users_interrupt(error):
            raise
        return Outcome(error=error)
    except GeneratorExit:  # the loop is gone, and this coroutine is being thrown away
        raise
    except BaseException as error:  # noqa: BLE001  # that is what this function is for
        return Outcome(error=error)


async def _itself(awaitable: Any) -> Any:
    return await awaitable
