"""One memory for each session."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import InvalidArgument
from ..registry import create_object
from ..schema import AgentMessage
from .memory import Mark, Memory, Outermost
from .state import check_session_id, SessionId, SessionState

__all__ = ["MemoryManager"]


class MemoryManager(SessionState):
    """One memory for each session, made when the session first speaks.

    Args:
        memory: what a session's memory is made from: `dict(type=Memory, recent_n=10)`, a class, or a `Memory` whose
            settings new sessions get.
    """

    def __init__(self, memory: Mapping[str, Any] | type[Memory] | Memory | None = None) -> None:
        self._make = _memory_factory(memory)
        self.memory_map: dict[SessionId, Memory] = {}

    def open(self, session_id: SessionId = 0) -> Memory:
        """The session's memory, made if need be."""
        memory = self.memory_map.get(session_id)
        if memory is None:
            memory = self.memory_map.setdefault(check_session_id(session_id), self._make())
        return memory

    def get(self, session_id: SessionId = 0) -> Memory:
        """The session's memory; an empty one, which is not kept, for a session that has not spoken."""
        memory = self.memory_map.get(session_id)
        return self._make() if memory is None else memory

    def get_memory(self, session_id: SessionId = 0, **options: Any) -> list[AgentMessage]:
        """The session's messages; options as for `Memory.get_memory`."""
        return self.get(session_id).get_memory(**options)

    def add(self, memories: AgentMessage | str | Sequence[AgentMessage | str], session_id: SessionId = 0) -> None:
        """Append to the session's memory."""
        self.open(session_id).add(memories)

    def delete(self, index: int | Sequence[int], session_id: SessionId = 0) -> None:
        """Remove messages of the session; see `Memory.delete`."""
        self.get(session_id).delete(index)

    def load(self, memories: Any, session_id: SessionId = 0, overwrite: bool = True) -> None:
        """Take over what `save` gave; see `Memory.load`."""
        parsed = self.parse([memories] if isinstance(memories, str | Mapping | AgentMessage) else memories)
        self.open(session_id).load(parsed, overwrite=overwrite)

    def save(self, session_id: SessionId = 0) -> list[dict[str, Any]]:
        """The session's messages as plain dicts."""
        return self.get(session_id).save()

    def session_ids(self) -> list[SessionId]:
        return [session_id for session_id, memory in list(self.memory_map.items()) if len(memory)]

    def knows(self, session_id: SessionId) -> bool:
        return len(self.get(session_id)) > 0

    def dump(self, session_id: SessionId) -> list[dict[str, Any]]:
        return self.save(session_id)

    def parse(self, value: Any) -> list[AgentMessage]:
        return Memory.parse(value)

    def restore(self, session_id: SessionId, parsed: list[AgentMessage]) -> None:
        if parsed:
            self.open(session_id)._replace(parsed)
        else:
            self.reset(session_id)

    def snapshot(self, session_id: SessionId) -> Callable[[], None]:
        memory = self.memory_map.get(session_id)
        if memory is None:
            return partial(self.reset, session_id)
        mark = memory.mark()

        def put_back() -> None:
            memory.rewind(mark)
            self.memory_map[session_id] = memory

        return put_back

    def fork(self, session_id: SessionId, new_session_id: SessionId) -> None:
        if session_id in self.memory_map:
            self.memory_map[check_session_id(new_session_id)] = self.memory_map[session_id].fork()

    def standing(self, session_id: SessionId, reader: Outermost | None) -> Mark | None:
        """The point where the session stands between turns; see `Memory.standing`. None if nothing is known of it."""
        memory = self.memory_map.get(session_id)
        return None if memory is None else memory.standing(reader)

    def as_of(self, session_id: SessionId, mark: Mark | None) -> MemoryManager:
        """One that has this session alone, as it was at a point."""
        past = copy.copy(self)
        memory = self.memory_map.get(session_id)
        past.memory_map = {} if memory is None or mark is None else {session_id: memory.fork(mark)}
        return past

    def adopt(self, past: MemoryManager, session_id: SessionId) -> None:
        """Take a session over from one that `as_of` gave."""
        if session_id in past.memory_map:
            self.memory_map[session_id] = past.memory_map[session_id]

    def is_changing(self, session_id: SessionId, reader: Outermost | None) -> bool:
        """Whether a turn of the session is under way; see `Memory.is_changing`."""
        memory = self.memory_map.get(session_id)
        return memory is not None and memory.is_changing(reader)

    def reset(self, session_id: SessionId = 0) -> None:
        self.memory_map.pop(session_id, None)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self.memory_map

    def __len__(self) -> int:
        return len(self.memory_map)

    def __repr__(self) -> str:
        messages = sum(len(memory) for memory in self.memory_map.values())
        return f"{type(self).__name__}({len(self.memory_map)} sessions, {messages} messages)"


def _memory_factory(memory: Any) -> Callable[[], Memory]:
    if memory is None:
        return Memory
    if isinstance(memory, Memory):
        return partial(type(memory), recent_n=memory.recent_n)
    if isinstance(memory, type) and issubclass(memory, Memory):
        return memory
    if isinstance(memory, Mapping) and "type" in memory:
        first = create_object(memory, "memory")
        if not isinstance(first, Memory):
            raise InvalidArgument("memory", memory, "its 'type' must be Memory or a subclass of it")
        return partial(create_object, memory, "memory")
    raise InvalidArgument("memory", memory, "give dict(type=Memory, …), a Memory class, or a Memory")
