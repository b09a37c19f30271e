"""Keep the sessions of a unit in a store, turn by turn, and few of them in memory."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from operator import eq, is_
from typing import Any, Protocol, TypeVar

from ..concurrency import in_thread
from ..errors import InvalidArgument, StateError
from .manager import MemoryManager
from .memory import Mark
from .state import plain_state, SessionId, SessionState
from .store import Change, Kept, SessionStore, Tail, to_json

__all__ = ["LONG", "Keeper", "surely", "unused"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Key = TypeVar("Key")
Entry = TypeVar("Entry", bound="_Used")

LONG = 200
"""Messages: to read or to write down more than these takes milliseconds, for which an event loop should not wait."""


class _Unit(Protocol):
    """What a keeper needs of a unit."""

    def named_states(self) -> Any: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], session_id: SessionId = 0) -> Any: ...


@dataclass
class _Held:
    """A session in memory, as the store has it.

    Attributes:
        version, note: as the store has them.
        marks: how much of each memory the store has.
        logs: the same for memories of agents elsewhere: the hashes of their messages as JSON.
        values: the other states, as JSON.
        users: how many use it at present.
        used: when it was used last.
    """

    version: int = 0
    note: Any = None
    marks: dict[str, Mark] = field(default_factory=dict)
    logs: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    users: int = 0
    used: float = 0.0


class Keeper:
    """Keeps the sessions of a unit in a store; `agent.keep(store)` makes one and has it called for each turn.

    What is written of a turn is what is new in it: the messages that were added, and the other states that changed. An
    agent elsewhere is asked for all that it remembers of the session, of which what is new is written as well.

    Args:
        unit: whose sessions they are.
        store: where they are kept.
        max_sessions: most sessions in memory; those not used for longest leave it, and are read again when they are
            used.
        ttl: seconds after which a session that is not used leaves the memory, at the end of somebody's turn.
        on_evict: called with the id of each session that leaves the memory.
    """

    def __init__(
        self,
        unit: _Unit,
        store: SessionStore,
        max_sessions: int = 10_000,
        ttl: float | None = None,
        on_evict: Callable[[SessionId], None] | None = None,
    ) -> None:
        if not isinstance(store, SessionStore):
            raise InvalidArgument("store", store, "give a store, such as SQLiteStore('sessions.db')")
        if isinstance(max_sessions, bool) or not isinstance(max_sessions, int) or max_sessions < 1:
            raise InvalidArgument("max_sessions", max_sessions, "give a number of at least 1")
        if ttl is not None and not ttl > 0:
            raise InvalidArgument("ttl", ttl, "give seconds, more than 0, or None")
        self.store = store
        self._unit = unit
        self._max_sessions = max_sessions
        self._ttl = ttl
        self._on_evict = on_evict
        self._held: OrderedDict[SessionId, _Held] = OrderedDict()  # the one used last is last
        self._guard = threading.Lock()  # so that no session is taken while it leaves the memory

    async def fetch(self, session_id: SessionId) -> Any:
        """Have a session in memory as the store has it, and tell the note that was kept with it.

        A session that the store does not have stays as it is in memory, unless it was deleted there since.

        Raises:
            StateError: what is kept cannot be read, or does not fit the unit; nothing is changed.
        """
        held = self._held.get(session_id)
        version = await self.store.version(session_id)
        if version != (0 if held is None else held.version):
            kept = await self.store.load(session_id)
            held = self._held.setdefault(session_id, _Held())
            messages = 0 if kept is None else sum(kept.lengths.values())
            states = self._states()
            await self._done(states, lambda: self._take_over(session_id, held, states, kept), messages)
        return None if held is None else held.note

    async def write(self, session_id: SessionId, note: Any = None) -> None:
        """Keep what is new in a session since it was fetched or written; a cancellation waits until that is done.

        Args:
            session_id: the session, no other turn of which is under way.
            note: plain data that is kept beside it.

        Raises:
            SessionConflict: another process went on in it; it is fetched anew the next time.
            StateError: it cannot be written; what is kept is as before.
        """
        held, states = self._held.setdefault(session_id, _Held()), self._states()
        there = sum(_mark(state, session_id)[1] for _, state in states if isinstance(state, MemoryManager))
        new = there - sum(length for _, length in held.marks.values())
        change, marks, logs = await self._done(states, lambda: self._change(session_id, held, states, note), new)
        await surely(self.store.append(session_id, change))
        held.version, held.note, held.marks, held.logs = change.version, note, marks, logs
        held.values |= change.values

    async def delete(self, session_id: SessionId) -> None:
        """Forget a session for good, here and in the store."""
        await self.store.delete(session_id)
        await self._done(self._states(), lambda: self._reset(session_id))
        self._held.pop(session_id, None)

    def is_kept(self, session_id: SessionId) -> bool:
        """Whether the store had the session when it was fetched or written last."""
        held = self._held.get(session_id)
        return held is not None and held.version > 0

    def take(self, session_id: SessionId) -> None:
        """Have a session stay in memory until `leave`."""
        with self._guard:
            self._held.setdefault(session_id, _Held()).users += 1

    def leave(self, session_id: SessionId) -> None:
        """Take `take` back; sessions that are too many, or were not used for too long, leave the memory."""
        with self._guard:
            held = self._held.get(session_id)
            if held is not None:
                held.users -= 1
                held.used = time.monotonic()
                self._held.move_to_end(session_id)
            gone = unused(self._held, self._max_sessions, self._ttl)
            for one in gone:
                self.forget(one)
        for one in gone:
            if self._on_evict is not None:
                try:
                    self._on_evict(one)
                except Exception:
                    logger.exception("on_evict failed")

    def forget(self, session_id: SessionId) -> None:
        """Let a session go from this memory; in the store, and in agents elsewhere, it stays."""
        self._held.pop(session_id, None)
        for _, state in self._states():
            if not state.spreads:
                state.reset(session_id)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r}, {len(self)} sessions in memory)"

    def _take_over(self, session_id: SessionId, held: _Held, states: _States, kept: Kept | None) -> None:
        if kept is None:  # it was deleted
            self._reset(session_id)
            held.version, held.note, held.marks, held.logs, held.values = 0, None, {}, {}, {}
            return
        spread = {path for path, state in states if state.spreads}
        state: dict[str, Any] = dict(kept.messages)
        for path, value in kept.values.items():
            if path not in spread:
                state[path] = value
            elif isinstance(value, dict):
                state |= {_beside(path, key): item for key, item in value.items()}
            else:
                raise StateError(f"{path}: expected a dict, got {type(value).__name__}")
        self._unit.load_state_dict(state, session_id)
        held.version, held.note = kept.version, kept.note
        held.marks = {path: _mark(state, session_id) for path, state in states if isinstance(state, MemoryManager)}
        elsewhere = kept.messages.keys() - held.marks.keys()
        held.logs = {path: [hash(to_json(one)) for one in kept.messages[path]] for path in elsewhere}
        held.values = {path: to_json(value) for path, value in kept.values.items()}

    def _change(
        self, session_id: SessionId, held: _Held, states: _States, note: Any
    ) -> tuple[Change, dict[str, Mark], dict[str, list[int]]]:
        """What is new in a session; and its marks and logs when the store has that."""
        marks: dict[str, Mark] = {}
        logs: dict[str, list[int]] = {}
        tails, values = {}, {}
        for path, state in states:
            if isinstance(state, MemoryManager):
                marks[path] = log, length = _mark(state, session_id)
                before, known = held.marks.get(path, ([], 0))
                start = min(known, length) if log is before else _shared(before[:known], log[:length], is_)
                if start < length or start < known:
                    new = enumerate(log[start:length], start)
                    tails[path] = Tail(start, [to_json(plain_state(one, f"{path}: message {at}")) for at, one in new])
            elif state.persistent:
                value = state.dump(session_id)
                if state.spreads:
                    elsewhere = {_beside(path, key): key for key, item in value.items() if _are_messages(item)}
                    for where, key in elsewhere.items():
                        texts = [to_json(one) for one in value[key]]
                        logs[where] = hashes = [hash(text) for text in texts]
                        kept = held.logs.get(where, [])
                        start = _shared(kept, hashes, eq)
                        if start < len(hashes) or start < len(kept):
                            tails[where] = Tail(start, texts[start:])
                    value = {key: item for key, item in value.items() if _beside(path, key) not in elsewhere}
                text = to_json(value)
                if held.values.get(path) != text:
                    values[path] = text
        tails |= {where: Tail(0, []) for where in held.logs.keys() - logs.keys()}  # that is no memory any more
        lengths = {path: length for path, (_, length) in marks.items()} | {path: len(log) for path, log in logs.items()}
        version = held.version + random.getrandbits(32) + 1  # drawn, so that no other change makes the same one
        return Change(held.version, version, lengths, tails, values, to_json(note)), marks, logs

    def _states(self) -> _States:
        return list(self._unit.named_states())

    def _reset(self, session_id: SessionId) -> None:
        for _, state in self._states():
            state.reset(session_id)

    async def _done(self, states: _States, work: Callable[[], T], messages: int = 0) -> T:
        """Do something with the unit; in a thread where there is much to do, or a part of the unit is elsewhere."""
        if messages > LONG or any(state.spreads for _, state in states):
            return await in_thread(work)
        return work()


_States = list[tuple[str, SessionState]]


def _mark(memories: MemoryManager, session_id: SessionId) -> Mark:
    memory = memories.memory_map.get(session_id)
    return ([], 0) if memory is None else memory.mark()


async def surely(work: Coroutine[Any, Any, T]) -> T:
    """Wait for something that a cancellation must not break off: whoever goes on finds it done, or not done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:  # there may be several
            cancelled = error
    failed = task.exception()
    if cancelled is not None:
        raise cancelled from failed
    return task.result()


class _Used(Protocol):
    """Something that is in memory: how many use it at present, and when it was used last."""

    users: int
    used: float


def unused(entries: OrderedDict[Key, Entry], most: int, ttl: float | None) -> list[Key]:
    """What is too much in memory, or was not used for too long, and is not in use.

    Args:
        entries: what is there, the one used last at the end.
        most: so many may stay.
        ttl: seconds without use after which one goes; None for any.
    """
    oldest = time.monotonic() - (ttl or float("inf"))
    surplus = len(entries) - most
    gone: list[Key] = []
    for key, entry in entries.items():
        if len(gone) >= surplus and entry.used > oldest:
            break
        if not entry.users:
            gone.append(key)
    return gone


def _shared(first: list[T], second: list[T], same: Callable[[T, T], bool]) -> int:
    """How many items two logs have in common, from the beginning on."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, pair in pairs if not same(*pair)), min(len(first), len(second)))


def _beside(path: str, key: str) -> str:
    """The path of what an agent elsewhere calls `key`, whose state is at a path of this tree."""
    parent, dot, _ = path.rpartition(".")
    return f"{parent}{dot}{key}"


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "sender" in one for one in value)
