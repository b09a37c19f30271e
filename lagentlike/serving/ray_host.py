"""What runs in an actor: an agent, turn by turn, and what each turn changed."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from ..cluster import ray_module
from ..errors import InvalidArgument, RemoteError
from ..memory import SessionId
from ..memory.state import ALL_SESSIONS
from ..module import Module
from ..registry import create_object
from ..schema import AgentMessage
from ..tracing.propagation import part_of
from .ray_sessions import Blank, Changes, Watcher
from .turns import run_turn

__all__ = ["AgentHost", "Description", "Outcome", "Request"]


class Description(NamedTuple):
    """What a caller needs to know of the agent."""

    name: str
    description: str | None
    kind: str
    blank: Blank
    state: Mapping[str, Any]


class Request(NamedTuple):
    """A turn to make.

    Attributes:
        loads: whether `state` is to take the place of what is known of the session.
        within: the span that the turn is part of, as a `traceparent`; None where nobody listens.
    """

    messages: Sequence[AgentMessage]
    session_id: SessionId
    params: Mapping[str, Any]
    training: bool
    loads: bool
    state: Mapping[str, Any] | None
    within: str | None


class Outcome(NamedTuple):
    """What a turn came to; an error is a result."""

    reply: AgentMessage | None
    error: Exception | None
    changes: Changes


class AgentHost:
    """The actor.

    Args:
        source: an agent, its `dict(type=...)`, or what is called to get one.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._locks: WeakValueDictionary[SessionId, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> Description | Exception:
        """Make the agent."""
        try:
            self._agent = agent = _made(self._source)
            self._watcher = Watcher(agent)
            description = getattr(agent, "description", None)
            return Description(
                agent.name, description, type(agent).__name__, Blank.of(agent), agent.state_dict(ALL_SESSIONS)
            )
        except Exception as error:  # noqa: BLE001  # the caller raises it
            return _portable(error)

    async def live(self) -> None:
        """Never end: who waits for it learns when the actor does."""
        await asyncio.Event().wait()

    async def turn(self, request: Request) -> Outcome:
        """Make a turn."""
        return await self._turn(request, None)

    async def stream(self, request: Request) -> AsyncIterator[AgentMessage | Outcome]:
        """Make a turn, giving the parts of the reply as they come; the last item is the outcome."""
        parts: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        turn = asyncio.create_task(self._turn(request, parts))
        turn.add_done_callback(lambda _: parts.put_nowait(None))
        try:
            while (part := await parts.get()) is not None:
                yield part
            yield await turn
        finally:
            turn.cancel()

    async def forget(self, session_id: SessionId) -> None:
        """A session is over."""
        async with self._lock(session_id):
            self._watcher.forget(session_id)

    async def _turn(self, request: Request, parts: asyncio.Queue[AgentMessage | None] | None) -> Outcome:
        session_id, reply, error = request.session_id, None, None
        async with self._lock(session_id):
            try:
                if request.loads:
                    self._watcher.load(session_id, request.state)
                if self._agent.training != request.training:
                    self._agent.train(request.training)
                part = None if parts is None else parts.put
                with part_of(request.within):
                    reply = await run_turn(self._agent, request.messages, session_id, request.params, part)
            except Exception as failure:  # noqa: BLE001  # the caller raises it
                error = _portable(failure)
            return Outcome(reply, error, self._watcher.changes(session_id))

    def _lock(self, session_id: SessionId) -> asyncio.Lock:
        """What the calls of a session take one after the other."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock


def _made(source: Any) -> Module:
    made = create_object(source, "agent")
    if not isinstance(made, Module) and callable(made):
        made = made()
    if not isinstance(made, Module):
        raise InvalidArgument("agent", made, "give an agent, dict(type=...) of one, or what is called to get one")
    return made


def _portable(error: Exception) -> Exception:
    """An error that the caller's process can raise, with the way it took here."""
    cloudpickle = ray_module().cloudpickle
    note = "in the actor:\n" + "".join(traceback.format_exception(error))
    try:
        there: Exception = cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001  # whatever an exception's pickling raises
        there = RemoteError(type(error).__name__)
    there.add_note(note)
    return there
