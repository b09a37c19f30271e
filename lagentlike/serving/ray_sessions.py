"""What an actor's agent remembers of each session, kept by whoever calls it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from ..errors import StateError
from ..memory import check_session_id, Memory, MemoryManager, SessionId, SessionState
from ..memory.memory import Outermost
from ..memory.state import plain_state
from ..module import Module
from ..schema import AgentMessage

__all__ = ["Blank", "Changes", "Line", "Record", "SessionRecords", "Watcher"]


class _Log(NamedTuple):
    """The first `length` of a list that only grows: plain messages of one memory."""

    items: list[Any]
    length: int

    def plain(self) -> list[Any]:
        return self.items[: self.length]


class _Added(NamedTuple):
    """What a memory has got after its first `start` messages."""

    start: int
    items: list[Any]


Changes = dict[str, Any]
"""What changed in a session, by the path of the state: `_Added` messages, or a whole new value."""


@dataclass(frozen=True)
class Blank:
    """What a tree remembers of a session that it does not know.

    Attributes:
        values: by the path of the state.
        memories: the paths of those that are memories.
    """

    values: Mapping[str, Any]
    memories: frozenset[str]

    @staticmethod
    def of(unit: Module) -> Blank:
        states = {path: state for path, state in unit.named_states() if state.persistent}
        nobody = ("lagentlike", "nobody")
        values = {path: state.dump(nobody) for path, state in states.items()}
        return Blank(values, frozenset(path for path, state in states.items() if isinstance(state, MemoryManager)))


class Record:
    """A session's state, never changed once it is made; successors share what they have in common."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any], blank: Blank) -> None:
        self._values = {
            path: _Log(list(value), len(value)) if path in blank.memories else value for path, value in values.items()
        }

    def with_changes(self, changes: Changes) -> Record:
        """What it becomes by a turn."""
        twin = Record.__new__(Record)
        twin._values = self._values.copy()
        for path, change in changes.items():
            if not isinstance(change, _Added):
                is_log = isinstance(self._values.get(path), _Log)
                twin._values[path] = _Log(change, len(change)) if is_log else change
                continue
            items, _ = log = self._values.get(path) or _Log([], 0)
            if len(items) != change.start:
                items = log.plain()
            items += change.items
            twin._values[path] = _Log(items, len(items))
        return twin

    def plain(self) -> dict[str, Any]:
        """It as plain data, which nobody may edit."""
        return {path: value.plain() if isinstance(value, _Log) else value for path, value in self._values.items()}

    def since(self, other: Record | None) -> list[Any]:
        """The messages of the outermost agent that it has, and another one had not."""
        mine = self._values.get("memory")
        theirs = None if other is None else other._values.get("memory")
        return mine.plain()[theirs.length if isinstance(theirs, _Log) else 0 :] if isinstance(mine, _Log) else []


class SessionRecords(SessionState):
    """The sessions of an agent that runs elsewhere, as they were after their last turns.

    Args:
        blank: what that agent remembers of a session that it does not know.
        on_reset: called with a session that is forgotten.
    """

    spreads: ClassVar[bool] = True

    def __init__(self, blank: Blank, on_reset: Callable[[SessionId], None]) -> None:
        self._blank, self._on_reset = blank, on_reset
        self._records: dict[SessionId, Record] = {}

    def get(self, session_id: SessionId) -> Record | None:
        return self._records.get(session_id)

    def put(self, session_id: SessionId, record: Record | None) -> None:
        if record is None:
            self._records.pop(session_id, None)
        else:
            self._records[session_id] = record

    def apply(self, session_id: SessionId, before: Record | None, changes: Changes) -> Record | None:
        """Take over what a turn changed; the new record, or None where the session was changed here meanwhile."""
        if self._records.get(session_id) is not before:
            return None
        record = (before or Record(self._blank.values, self._blank)).with_changes(changes)
        self._records[session_id] = record
        return record

    def session_ids(self) -> list[SessionId]:
        return [session_id for session_id in list(self._records) if self.knows(session_id)]

    def knows(self, session_id: SessionId) -> bool:
        record = self._records.get(session_id)
        return record is not None and record.plain() != self._blank.values

    def dump(self, session_id: SessionId) -> dict[str, Any]:
        record = self._records.get(session_id)
        return copy.deepcopy(dict(self._blank.values) if record is None else record.plain())

    def parse(self, value: Any) -> Record:
        if not isinstance(value, Mapping) or value.keys() != self._blank.values.keys():
            raise StateError(f"expected a dict with the keys {sorted(self._blank.values)}, got {_keys_of(value)}")
        plain: dict[str, Any] = plain_state(value, "the state")
        for path in self._blank.memories:
            try:
                Memory.parse(plain[path])
            except StateError as error:
                raise StateError(f"{path}: {error}") from error
        return Record(copy.deepcopy(plain), self._blank)

    def restore(self, session_id: SessionId, parsed: Record) -> None:
        self._records[check_session_id(session_id)] = parsed

    def snapshot(self, session_id: SessionId) -> Callable[[], None]:
        return partial(self.put, session_id, self._records.get(session_id))

    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        if session_id in self._records:
            self._records[check_session_id(new_session_id)] = self._records[session_id]

    def reset(self, session_id: SessionId) -> None:
        if self._records.pop(session_id, None) is not None:
            self._on_reset(session_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._records)} sessions)"


class Line(Memory):
    """Where the turns of a session line up: what a turn does to the session's record, it can take back."""

    def __init__(self, records: SessionRecords, session_id: SessionId) -> None:
        super().__init__()
        self._records, self._session_id = records, session_id

    def append(self, message: AgentMessage) -> None:
        """The agent elsewhere remembers it."""

    def begin(self, outermost: Outermost) -> Any:
        return self.mark()

    def mark(self) -> Any:  # a `Mark` for this class alone to read
        return self._records.get(self._session_id), 0

    def stands_at(self, mark: Any) -> bool:
        return self._records.get(self._session_id) is mark[0]

    def rewind(self, mark: Any) -> list[AgentMessage]:
        now, then = self._records.get(self._session_id), mark[0]
        if now is then or now is None:
            return []
        self._records.put(self._session_id, then)
        return Memory.parse(now.since(then))


class Watcher:
    """Tells what turns changed in an agent's tree since that was last told."""

    def __init__(self, unit: Module) -> None:
        self._unit = unit
        self._told: dict[SessionId, dict[str, Any]] = {}

    def load(self, session_id: SessionId, values: Mapping[str, Any] | None) -> None:
        """Put a session in place of what the tree remembers of it."""
        self._unit.reset(session_id, recursive=True)
        if values is not None:
            self._unit.load_state_dict(values, session_id)
        self._told.pop(session_id, None)
        self.changes(session_id)

    def changes(self, session_id: SessionId) -> Changes:
        """What is new; from now on it is told."""
        told = self._told.setdefault(session_id, {})
        found: Changes = {}
        for path, state in self._unit.named_states():
            if not state.persistent:
                continue
            if isinstance(state, MemoryManager):
                log, length = state.get(session_id).mark()
                before, count = told.get(path, (None, 0))
                if before is log and count <= length:
                    if count < length:
                        found[path] = _Added(count, [plain_state(message, path) for message in log[count:length]])
                elif before is not None or length:
                    found[path] = state.dump(session_id)
                told[path] = log, length
            else:
                value = state.dump(session_id)
                if path not in told or value != told[path]:
                    found[path] = told[path] = value
        return found

    def forget(self, session_id: SessionId) -> None:
        """The session is over."""
        self._told.pop(session_id, None)
        self._unit.reset(session_id, recursive=True)


def _keys_of(value: Any) -> str:
    return f"the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
