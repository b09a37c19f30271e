"""How a session was at some point, for other sessions to begin there."""

from __future__ import annotations

from ...memory import MemoryManager, SessionId
from ...module import Module

__all__ = ["Point"]


class Point:
    """How a session of a whole tree is between two turns.

    It shares the messages with the session, so it costs the same however long that is. States that are not persistent
    are not in it: a session that begins here begins without them, as one that is loaded does.

    Args:
        unit: the outermost unit, no part of whose state is elsewhere.
        session_id: the session, no turn of which is under way.

    >>> from lagentlike import Agent, ScriptedLLM
    >>> agent = Agent(ScriptedLLM(["One.", "Two."]))
    >>> reply = agent("Hi", session_id="ann")
    >>> point = Point(agent, "ann")
    >>> reply = agent("And?", session_id="ann")
    >>> point.begin("bob")
    >>> len(agent.memory.get_memory("ann")), len(agent.memory.get_memory("bob"))
    (4, 2)
    """

    def __init__(self, unit: Module, session_id: SessionId) -> None:
        self._session_id = session_id
        self._memories: list[tuple[MemoryManager, MemoryManager]] = []
        self._values = []
        for _, state in unit.named_states():
            if isinstance(state, MemoryManager):
                self._memories.append((state, state.as_of(session_id, state.standing(session_id, None))))
            elif state.persistent and state.knows(session_id):
                self._values.append((state, state.dump(session_id)))

    def begin(self, session_id: SessionId) -> None:
        """Let a session that nothing is known of begin here."""
        for memory, past in self._memories:
            past.fork(self._session_id, session_id)
            memory.adopt(past, session_id)
            past.reset(session_id)
        for state, value in self._values:
            state.restore(session_id, state.parse(value))
