"""An agent that runs in actors of a Ray cluster, as an agent of this program."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Self
from weakref import finalize, WeakValueDictionary

from ..agents import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from ..cluster import Cluster, ending_of, ROOM_AFTER
from ..concurrency import iterate_in_background, run_in_background
from ..errors import ActorLost, InvalidArgument
from ..hooks import Hook
from ..memory import Memory, SessionId
from ..memory.state import ALL_SESSIONS
from ..module import Module
from ..schema import AgentMessage
from ..tracing.propagation import traceparent
from .ray_host import AgentHost, Description, Outcome, Request
from .ray_pool import ActorPool, PoolSettings, Seat
from .ray_sessions import Line, SessionRecords

__all__ = [
    "AgentRayActor",
    "AsyncAgentRayActor",
    "AsyncStreamingAgentRayActor",
    "StreamingAgentRayActor",
]

_LOOK_EVERY = 2.0
"""Seconds between two looks at whether the cluster is still there, while one waits for it."""


class AgentRayActor(Agent):
    """An agent in actors of a Ray cluster, called like any other: it nests, has sessions and state, raises its errors.

    Making one waits until the agent in the first actor is made; from async code, make it in `asyncio.to_thread`.

    What its sessions remember is here: an actor has a copy, and says after each turn what the turn changed. So
    `state_dict` asks nobody, a turn is atomic, and a session whose actor ends goes on in another one from its last turn
    that was answered. What the agent has besides (`SessionState` that is not persistent, kernels, caches) ends with its
    actor.

    Args:
        agent: `dict(type=...)` of an agent, a class or a function that makes one in each actor, or an agent, which is
            copied. It may be of any colour.
        num_gpus: GPUs that are set aside for each actor; parts of one are allowed.
        num_cpus: cores that are set aside for each actor.
        resources: other things that an actor needs of its machine, by Ray's names for them.
        runtime_env: what Ray is to prepare on the machines (`working_dir`, `pip`, `env_vars` …).
        min_size: so many actors there are always.
        max_size: at most so many: sessions are spread over them, and a session stays with its actor.
        idle_seconds: an actor beyond `min_size` that had nothing to do for so long ends.
        retries: how often a turn whose actor ended is begun again in another one; what its tools did in the world may
            then be done again. It fails with `ActorLost` otherwise.
        address: the cluster, as for `RayEngine`.
        name, description: of the agent, unless they are given.
        hooks: as for `Agent`; they run here.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterLost: there is no cluster at the address.
        Whatever making the agent raises.
    """

    def __init__(
        self,
        agent: Any,
        num_gpus: float = 0,
        *,
        num_cpus: float = 1,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        min_size: int = 1,
        max_size: int = 1,
        idle_seconds: float = 60.0,
        retries: int = 0,
        address: str | None = None,
        name: str | None = None,
        description: str | None = None,
        hooks: Hook | Mapping[str, Any] | Sequence[Hook | Mapping[str, Any]] | None = None,
    ) -> None:
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidArgument("retries", retries, "give how often a turn is begun again, from 0")
        settings = PoolSettings(min_size, max_size, idle_seconds)
        options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "runtime_env": runtime_env}
        chosen = {key: value for key, value in options.items() if value is not None}
        self._remote = remote = _Remote(agent, Cluster(address), chosen, settings, retries)
        self._finish = finalize(self, remote.close)
        try:
            found = run_in_background(remote.described())
        except BaseException:
            self.close()
            raise
        super().__init__(name=name or found.name, description=description or found.description, hooks=hooks)
        self.memory = None  # what is remembered is in `sessions`
        self.sessions = remote.sessions = SessionRecords(found.blank, remote.pool.forget)
        self.load_state_dict(found.state, ALL_SESSIONS)

    @property
    def size(self) -> int:
        """How many actors there are at present."""
        return self._remote.pool.size

    @property
    def actors(self) -> list[Any]:
        """Ray's handles of the actors."""
        return self._remote.pool.actors

    def close(self) -> None:
        """End the actors; state can still be read. They end with this program anyway."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the turn in the session's actor."""
        return run_in_background(self._remote.reply(message, session_id, kwargs, self.training))

    def extra_repr(self) -> str:
        return f"{self._remote.kind}, actors={self.size}"

    def _open_memory(self, session_id: SessionId) -> Memory:
        return self._remote.line(session_id)


class AsyncAgentRayActor(AgentRayActor, AsyncAgent):
    """An agent in actors of a Ray cluster, called with `await`; see `AgentRayActor`."""

    async def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Any:
        """Make the turn in the session's actor."""
        return await self._remote.reply(message, session_id, kwargs, self.training)


class StreamingAgentRayActor(AgentRayActor, StreamingAgent):
    """An agent in actors of a Ray cluster, whose call is an iterator of messages; see `AgentRayActor`."""

    def forward(self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any) -> Iterator[AgentMessage]:
        """Make the turn in the session's actor, giving out its messages as they come."""
        parts = self._remote.turn(message, session_id, kwargs, self.training, True)
        with closing(iterate_in_background(parts)) as stream:  # type: ignore[type-var]  # it is a generator
            yield from stream


class AsyncStreamingAgentRayActor(AsyncAgentRayActor, AsyncStreamingAgent):
    """An agent in actors of a Ray cluster, whose call is an async iterator of messages; see `AgentRayActor`."""

    async def forward(  # type: ignore[override]  # the streaming form of the same call
        self, *message: AgentMessage, session_id: SessionId = 0, **kwargs: Any
    ) -> AsyncIterator[AgentMessage]:
        """Make the turn in the session's actor, giving out its messages as they come."""
        async with aclosing(self._remote.turn(message, session_id, kwargs, self.training, True)) as stream:
            async for part in stream:
                yield part


class _Remote:
    """The turns of one agent's sessions, as coroutines."""

    sessions: SessionRecords
    kind = ""

    def __init__(
        self, source: Any, cluster: Cluster, options: Mapping[str, Any], settings: PoolSettings, retries: int
    ) -> None:
        self._cluster, self._ray, self._retries = cluster, cluster.ray, retries
        if isinstance(source, Module):
            _check_portable(self._ray, source)
        self._wanted = {name: value for name, value in options.items() if name != "runtime_env"}
        host = self._ray.remote(AgentHost).options(scheduling_strategy="SPREAD", **options)
        self.pool = ActorPool(lambda: host.remote(source), cluster.kill, settings)
        self._lines: WeakValueDictionary[SessionId, Line] = WeakValueDictionary()

    def line(self, session_id: SessionId) -> Line:
        """Where the turns of a session line up."""
        return self._lines.setdefault(session_id, Line(self.sessions, session_id))

    async def described(self) -> Description:
        """What the agent is."""
        seat = self.pool.first
        try:
            found = await self._started(seat)
        except self._ray.exceptions.RayError as error:
            raise ActorLost(f"the actor ended before the agent was made: {ending_of(error).how}") from error
        assert found is not None, "there is no other actor to turn to"
        self.kind = found.kind
        return found

    async def turn(
        self,
        messages: Sequence[AgentMessage],
        session_id: SessionId,
        params: Mapping[str, Any],
        training: bool,
        streaming: bool = False,
    ) -> AsyncGenerator[AgentMessage, None]:
        """The messages of one turn: the reply, and if it is streaming, before that the parts as they come."""
        left = self._retries
        while True:
            seat, ref = self.pool.take(session_id), None
            try:
                if await self._started(seat) is None:
                    continue
                before = self.sessions.get(session_id)
                loads = session_id not in seat.known or seat.known.pop(session_id) is not before
                state = before.plain() if loads and before is not None else None
                request = Request(messages, session_id, params, training, loads, state, traceparent())
                if streaming:
                    ref = seat.actor.stream.options(num_returns="streaming").remote(request)
                    while not isinstance(item := await self._got(await self._got(anext(ref))), Outcome):
                        left = 0  # there is no taking it back
                        yield item
                else:
                    ref = seat.actor.turn.remote(request)
                    item = await self._got(ref)
                ref = None
                if item.error is not None:
                    raise item.error
                record = self.sessions.apply(session_id, before, item.changes)
                if record is not None:
                    seat.known[session_id] = record
                yield item.reply
                return
            except self._ray.exceptions.RayActorError as error:
                self.pool.lost(seat)
                if not left:
                    how = ending_of(error).how
                    raise ActorLost(f"the actor of session {session_id!r} ended during its turn: {how}") from error
                left -= 1
            except (asyncio.CancelledError, GeneratorExit):
                if ref is not None:
                    self._ray.cancel(ref)
                raise
            finally:
                self.pool.give_back(seat)

    async def reply(self, *turn: Any) -> AgentMessage:
        """The reply of one turn; arguments as for `turn`."""
        async with aclosing(self.turn(*turn)) as messages:
            return await anext(messages)

    def close(self) -> None:
        """End the actors."""
        self.pool.close()
        self._cluster.close()

    async def _started(self, seat: Seat) -> Description | None:
        """What the agent of an actor is, when it is made; None where another actor is to be asked.

        Raises:
            Whatever making it raised.
        """
        started = asyncio.shield(asyncio.wrap_future(seat.started))
        due = time.monotonic() + ROOM_AFTER
        while not (await asyncio.wait([started], timeout=_LOOK_EVERY))[0]:
            self._cluster.check()
            if self.pool.is_late(seat):
                return None
            if time.monotonic() > due:
                due = math.inf
                self._cluster.say_room(self._wanted)
        found = started.result()
        if isinstance(found, Exception):
            self.pool.lost(seat)
            raise found
        return found

    async def _got(self, what: Awaitable[Any]) -> Any:
        """The result of something that comes from the cluster, while that is there."""
        waiting = asyncio.ensure_future(what)
        try:
            while not (await asyncio.wait([waiting], timeout=_LOOK_EVERY))[0]:
                self._cluster.check()
            return waiting.result()
        finally:
            waiting.cancel()


def _check_portable(ray: Any, agent: Module) -> None:
    try:
        ray.cloudpickle.dumps(agent)
    except Exception as error:
        cure = f"it cannot be copied to an actor ({error}): give dict(type=...), or a function that makes it"
        raise InvalidArgument("agent", agent, cure) from error
