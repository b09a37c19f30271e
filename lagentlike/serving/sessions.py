"""The sessions of a server: whose they are, whose turn it is, which are in memory, which are kept."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..concurrency import in_thread
from ..errors import SessionConflict, StateError
from ..memory import Keeper, Memory, MemoryManager, SessionId, SessionState
from ..memory.keeper import LONG, surely, unused
from ..module import Module
from ..schema import AgentMessage
from ..turn import take_back

__all__ = ["NotKept", "Session", "Sessions"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class NotKept(StateError):
    """A session cannot be read from where it is kept, or what a turn left cannot be written there."""


class Session:
    """One session as its server knows it.

    Attributes:
        owner: whose token made it.
        name: its id, as clients know it.
        unit_id: its id, as the unit knows it.
        spoken: whether there is anything to remember of it.
        last: the last turn that was answered: its key, and the reply.
        undo: the last turns that can be taken back, all of them within the same turn of the client's.
    """

    __slots__ = ("began", "last", "lock", "name", "owner", "spoken", "undo", "unit_id", "used", "users")

    def __init__(self, owner: str, name: str) -> None:
        self.owner = owner
        self.name = name
        self.unit_id: SessionId = (owner, name) if owner else name
        self.lock = asyncio.Lock()
        self.spoken = False
        self.last: Mapping[str, Any] | None = None
        self.undo: list[Undo] = []
        self.users = 0
        self.began = time.monotonic()
        self.used = 0.0

    def answered(self, turn: str | None) -> AgentMessage | None:
        """The reply of a turn, if it is the last one that was answered."""
        if turn is None or self.last is None or self.last["turn"] != turn:
            return None
        return Memory.parse([self.last["reply"]])[0]


class Undo(NamedTuple):
    """What it takes to take back the last turn of a session.

    Attributes:
        within: the client's turn that it is part of.
        record: what it did to memories.
        last, spoken: those of the session, before it.
    """

    within: str
    record: Sequence[Any]
    last: Mapping[str, Any] | None
    spoken: bool


class Sessions:
    """The sessions of one unit.

    Args:
        unit: what has them in memory.
        max_sessions: most sessions in memory; the ones not used for longest go first.
        ttl: seconds after which a session that is not used goes.
        on_evict: called with owner and id of each session that goes. It is in the store still, if there is one; else
            it is forgotten.

    Attributes:
        keeper: keeps them in a store after each turn; None for memory alone.
    """

    def __init__(
        self, unit: Module, max_sessions: int, ttl: float | None, on_evict: Callable[[str, str], None] | None
    ) -> None:
        self._unit = unit
        self.keeper: Keeper | None = None
        self._max_sessions = max_sessions
        self._ttl = ttl
        self._on_evict = on_evict
        self._known: OrderedDict[tuple[str, str], Session] = OrderedDict()  # the one used last is last

    def __len__(self) -> int:
        return len(self._known)

    @asynccontextmanager
    async def use(self, owner: str, name: str) -> AsyncIterator[Session]:
        """A session for oneself alone, as it was kept last; others wait in line."""
        session = self._session(owner, name)
        session.users += 1
        try:
            async with session.lock:
                await self.fetch(session)
                yield session
        finally:
            session.users -= 1
            session.used = time.monotonic()
            if session.spoken:
                self._known.move_to_end((owner, name))
            elif not session.users:
                self._drop(session)
            self.sweep()

    def _session(self, owner: str, name: str) -> Session:
        """What is known of a session; one that the program itself began, or loaded, has spoken."""
        session = self._known.get((owner, name))
        if session is None:
            session = self._known[owner, name] = Session(owner, name)
            if self.keeper is None:
                session.spoken = any(state.knows(session.unit_id) for state in self._states_here())
        return session

    async def fetch(self, session: Session) -> None:
        """Have a session as it was kept last, by whichever server.

        Raises:
            NotKept: it cannot be read.
        """
        if self.keeper is None:
            return
        try:
            last = await self.keeper.fetch(session.unit_id)
        except StateError as error:
            logger.exception("session %s cannot be read", session.name)
            raise NotKept(f"the session cannot be read: {error}") from error
        if last is not session.last:  # it went on elsewhere
            session.undo.clear()
        session.last, session.spoken = last, self.keeper.is_kept(session.unit_id)

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[Session]:
        """A session of its own, which is forgotten after its one use."""
        session = Session("~", uuid.uuid4().hex)
        try:
            yield session
        finally:
            kept = self.keeper is not None and self.keeper.is_kept(session.unit_id)  # by the unit itself
            await surely(self._delete(session) if kept else self._reset(session))

    async def keep(
        self,
        session: Session,
        turn: str | None = None,
        reply: AgentMessage | None = None,
        within: str | None = None,
        record: Sequence[Any] = (),
    ) -> None:
        """Keep a session as it is now, with the reply of its last turn; a cancellation waits until that is done.

        Args:
            session: the session.
            turn: the key of its last turn.
            reply: the reply.
            within: what the turn is part of, if it may have to be taken back.
            record: what the turn did to memories.

        Raises:
            SessionConflict: another server went on in it; this turn is taken back.
            NotKept: it cannot be kept; the session is as it was kept last.
        """
        try:
            last = None if turn is None or reply is None else {"turn": turn, "reply": reply.plain("the reply")}
        except TypeError as error:
            raise NotKept(f"the reply cannot be kept: {error}") from error
        undo = None if within is None or last is None else Undo(within, record, session.last, session.spoken)
        await surely(self._keep(session, last, undo))

    async def take_back(self, session: Session, turn: str) -> bool:
        """Take back the last turn of a session, if that is the one and it can be; whether it is taken back.

        Raises:
            SessionConflict, NotKept: as `keep` does; then the turn stands.
        """
        if not session.undo or session.last is None or session.last["turn"] != turn:
            return False
        await surely(self._take_back(session, session.undo[-1]))
        return True

    async def messages(self, session: Session) -> list[dict[str, Any]]:
        """The conversation of a session, as plain data."""
        memory: MemoryManager | None = getattr(self._unit, "memory", None)
        if memory is None:
            return []
        return await self._done(partial(memory.save, session.unit_id), len(memory.get(session.unit_id)))

    async def state(self, session: Session) -> dict[str, Any]:
        """What the unit remembers of a session."""
        memories = [state for _, state in self._unit.named_states() if isinstance(state, MemoryManager)]
        length = sum(len(memory.get(session.unit_id)) for memory in memories)
        return await self._done(partial(self._unit.state_dict, session.unit_id), length)

    async def load(self, session: Session, state: Mapping[str, Any]) -> None:
        """Put a state in the place of what the unit remembers of a session.

        Raises:
            StateError: it does not fit.
        """
        length = sum(len(value) for value in state.values() if isinstance(value, list))
        await self._done(partial(self._unit.load_state_dict, state, session.unit_id), length)

    async def fork(self, session: Session, new: Session) -> None:
        """Let a session that has not spoken begin where another one is."""
        await self._done(partial(self._unit.fork, session.unit_id, new.unit_id))
        await self.keep(new)

    async def delete(self, session: Session) -> None:
        """Forget a session for good."""
        await surely(self._delete(session))

    async def names(self, owner: str) -> list[str]:
        """The sessions of an owner, the oldest first."""
        if self.keeper is not None:
            kept: list[Any] = await self.keeper.store.session_ids(owner or None)
            return [one[1] if isinstance(one, tuple) else one for one in kept if owner or isinstance(one, str)]
        here = [session for session in self._known.values() if session.owner == owner and session.spoken]
        return [session.name for session in sorted(here, key=lambda session: session.began)]

    def sweep(self) -> None:
        """Let go of sessions that are too many, or were not used for too long."""
        for key in unused(self._known, self._max_sessions, self._ttl):
            session = self._known[key]
            self._drop(session)
            if self._on_evict is not None:
                try:
                    self._on_evict(session.owner, session.name)
                except Exception:
                    logger.exception("on_evict failed")

    def _drop(self, session: Session) -> None:
        """Let a session go from this memory; what is elsewhere stays there."""
        del self._known[session.owner, session.name]
        if self.keeper is not None:
            self.keeper.forget(session.unit_id)
            return
        for state in self._states_here():
            state.reset(session.unit_id)

    def _states_here(self) -> list[SessionState]:
        return [state for _, state in self._unit.named_states() if not state.spreads]

    async def _keep(self, session: Session, last: Mapping[str, Any] | None, undo: Undo | None = None) -> None:
        if self.keeper is not None:
            try:
                await self.keeper.write(session.unit_id, last)
            except Exception as error:
                await self._reset(session)
                self.keeper.forget(session.unit_id)
                session.undo.clear()
                if isinstance(error, SessionConflict):
                    raise
                logger.exception("session %s cannot be kept", session.name)
                raise NotKept(f"the turn cannot be kept, and is taken back: {error}") from error
        if undo is None or (session.undo and session.undo[-1].within != undo.within):
            session.undo.clear()
        if undo is not None:
            session.undo.append(undo)
        session.last, session.spoken = last, True

    async def _take_back(self, session: Session, undo: Undo) -> None:
        earlier = session.undo[:-1]
        await self._done(partial(take_back, undo.record))
        if undo.spoken:
            await self._keep(session, undo.last)
        else:
            await self._delete(session)
        session.undo[:] = earlier

    async def _delete(self, session: Session) -> None:
        if self.keeper is not None:
            await self.keeper.delete(session.unit_id)
        else:
            await self._reset(session)
        session.spoken, session.last = False, None
        session.undo.clear()

    async def _reset(self, session: Session) -> None:
        await self._done(partial(self._unit.reset, session.unit_id, recursive=True))

    async def _done(self, work: Callable[[], T], messages: int = 0) -> T:
        """Do something with the unit; in a thread where there is much to do, or a part of the unit is elsewhere."""
        if messages > LONG or any(state.spreads for _, state in self._unit.named_states()):
            return await in_thread(work)
        return work()
