"""One turn of a unit of any colour, from async code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, closing, suppress
from contextvars import copy_context
from typing import Any

from ..errors import RemoteError
from ..memory import SessionId
from ..module import Module
from ..schema import AgentMessage, AgentStatusCode

__all__ = ["Part", "run_turn"]

Part = Callable[[AgentMessage], Awaitable[None]]
"""What takes the parts of a streamed reply."""


async def run_turn(
    unit: Any,
    messages: Sequence[AgentMessage],
    session_id: SessionId,
    params: Mapping[str, Any],
    part: Part | None = None,
) -> AgentMessage:
    """Call a unit and return its reply; a streaming one gives its parts to `part`.

    Blocking units run in a thread of their own. When this is cancelled, an async turn is taken back at once and a
    blocking stream at its next part; another blocking turn cannot be stopped: it comes to its end, and then stands, so
    that the cancellation is dropped. A second one leaves the thread alone with its turn.
    """
    if not unit.colour.is_async:
        return await _Thread(unit, part).run(messages, session_id, params)
    if not unit.colour.is_streaming:
        reply: AgentMessage = await unit(*messages, session_id=session_id, **params)
        return reply
    async with aclosing(unit(*messages, session_id=session_id, **params)) as stream:
        async for message in stream:
            if message.stream_state != AgentStatusCode.END and part is not None:
                await part(message)
    return message  # type: ignore[no-any-return]  # a stream has a last message, its reply


class _Left(Exception):  # it ends a thread's turn, and is no error
    """Nobody waits for the turn any more."""


class _Thread:
    """The thread of one blocking turn."""

    def __init__(self, unit: Module, part: Part | None) -> None:
        self._unit: Any = unit
        self._part = part
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[AgentMessage] = self._loop.create_future()
        self._left = False
        self._giving: Future[None] | None = None

    async def run(
        self, messages: Sequence[AgentMessage], session_id: SessionId, params: Mapping[str, Any]
    ) -> AgentMessage:
        context = copy_context()
        arguments = (self._work, messages, session_id, params)
        threading.Thread(target=context.run, args=arguments, daemon=True, name="lagentlike-turn").start()
        try:
            return await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._left = True
            if self._giving is not None:
                self._giving.cancel()
        try:
            reply = await asyncio.shield(self._ended)
        except _Left:
            raise asyncio.CancelledError from None
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return reply

    def _work(self, messages: Sequence[AgentMessage], session_id: SessionId, params: Mapping[str, Any]) -> None:
        try:
            if self._unit.colour.is_streaming:
                with closing(self._unit(*messages, session_id=session_id, **params)) as stream:
                    for message in stream:
                        if message.stream_state != AgentStatusCode.END:
                            self._give(message)
                reply = message  # a stream has a last message, its reply
            else:
                reply = self._unit(*messages, session_id=session_id, **params)
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            self._end(self._ended.set_exception, error if _can_be_set(error) else RemoteError(type(error).__name__))
        else:
            self._end(self._ended.set_result, reply)

    def _give(self, message: AgentMessage) -> None:
        if self._left:
            raise _Left
        if self._part is not None:
            self._giving = asyncio.run_coroutine_threadsafe(_given(self._part, message), self._loop)
            try:
                self._giving.result()
            except CancelledError:
                raise _Left from None

    def _end(self, settle: Callable[[Any], None], outcome: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(settle, outcome)


async def _given(part: Part, message: AgentMessage) -> None:
    await part(message)


def _can_be_set(error: BaseException) -> bool:
    """Whether a future takes it, and who waits for it survives it."""
    return isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration)
