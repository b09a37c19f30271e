"""What the page shows of an agent: its units, and what they remember of a session."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from ...actions.base import BaseAction
from ...errors import StateError
from ...memory import Memory, MemoryManager, SessionId
from ...memory.memory import Mark
from ...memory.state import id_to_json
from ...module import Module
from ...schema import AgentMessage

__all__ = ["conversation", "is_elsewhere", "key_of", "length", "recall", "session_ids", "title", "trunk", "units"]


def units(unit: Module) -> list[dict[str, Any]]:
    """The tree, a row a unit: `path`, `name`, `unit` (class), `model`, and so on."""
    rows = []
    for path, module in unit.named_modules():
        llm = getattr(module, "llm", None)
        rows.append(
            {
                "path": path,
                "name": module.name,
                "unit": type(module).__name__,
                "colour": module.colour.name.lower().replace("_", " "),
                "model": None if llm is None else str(getattr(llm, "model", None) or type(llm).__name__),
                "is_tool": isinstance(module, BaseAction),
                "memory": _manager(module) is not None,
            }
        )
    return rows


def key_of(session_id: SessionId) -> str:
    """A session's id as the page has it: JSON text."""
    return json.dumps(id_to_json(session_id))


def title(unit: Module, session_id: SessionId) -> str:
    """How a session began, in some words; empty where nothing is remembered of it."""
    log, length = _standing(unit, session_id)
    return " ".join(_text(log[0]).split())[:80] if length else ""


def length(unit: Module, session_id: SessionId) -> int:
    """How many messages the outermost unit remembers of a session."""
    return _standing(unit, session_id)[1]


def session_ids(unit: Module) -> list[SessionId]:
    """The sessions that anything in the tree remembers here, in this process."""
    states = [state for _, state in unit.named_states() if not state.spreads]
    return list(dict.fromkeys(session_id for state in states for session_id in state.session_ids()))


def is_elsewhere(unit: Module) -> bool:
    """Whether the outermost unit has its memory in another process, so that to look at it takes a request."""
    return _manager(unit) is None and any(state.spreads for state in unit._states.values())


def trunk(unit: Module, session_id: SessionId) -> list[list[AgentMessage]]:
    """What is remembered of a session by the outermost unit, its child `agent`, the child `agent` of that and so on."""
    if is_elsewhere(unit):
        state, memories, path = unit.state_dict(session_id), [], "memory"
        while isinstance(state.get(path), list):
            memories.append(Memory.parse(state[path]))
            path = f"agent.{path}"
        return memories or [[]]
    memories = []
    inner: Module | None = unit
    while inner is not None:
        memories.append(_memory(inner, session_id))
        inner = dict(inner.named_children()).get("agent")
    return memories


def conversation(memories: list[list[AgentMessage]], before: int | None = None, most: int = 100) -> dict[str, Any]:
    """What was said in a session: what its outermost unit remembers, and the steps between.

    Args:
        memories: what `trunk` gave.
        before: only messages before this one, counted from 0.
        most: how many of those, the last ones.

    Returns:
        `start`, the number of the first message, and `messages`: a dict each of `message` (plain), and `point`, for
        those that the outermost unit remembers: how many messages that has up to this one.
    """
    outermost, *below = memories
    told = [_Told(message, point) for point, message in enumerate(outermost, 1)]
    for inner in below:
        told = _with_steps(told, inner)
    stop = len(told) if before is None else min(before, len(told))
    start = max(0, stop - most)
    return {"start": start, "messages": [one.plain() for one in told[start:stop]]}


def recall(unit: Module, path: str, session_id: SessionId, most: int = 200) -> dict[str, Any]:
    """What one unit of the tree remembers of a session: its last `messages`, and its other `states` by name.

    Raises:
        AttributeError: there is no such unit.
    """
    module = unit.get_submodule(path)
    states: dict[str, Any] = {}
    for name, state in module._states.items():
        if not isinstance(state, MemoryManager) and state.persistent and not is_elsewhere(module):
            try:
                states[name] = state.dump(session_id)
            except StateError as error:
                states[name] = str(error)
    messages = trunk(module, session_id)[0]
    return {"total": len(messages), "messages": [_plain(message) for message in messages[-most:]], "states": states}


class _Told:
    """A message of a conversation, and the place it has in the outermost memory; 0 if it is not there."""

    __slots__ = ("ending", "message", "point")

    def __init__(self, message: AgentMessage, point: int = 0) -> None:
        self.message = message
        self.point = point
        self.ending = message if point else None  # the outermost unit's form of it, which says how the turn ended

    @property
    def is_asked(self) -> bool:
        return self.message.sender == "user"

    def same_as(self, other: AgentMessage) -> bool:
        return self.is_asked == (other.sender == "user") and self.message.content == other.content

    def plain(self) -> dict[str, Any]:
        told = _plain(self.message)
        if self.ending is not None and self.ending is not self.message:
            ended = _plain(self.ending)
            told |= {name: ended[name] for name in ("extra_info", "finish_reason") if name in ended}
        return {"message": told, "point": self.point or None}


def _with_steps(told: list[_Told], inner: list[AgentMessage]) -> list[_Told]:
    """A conversation with what an inner unit remembers between, if that was asked the same."""
    asked = []
    at = 0
    for place, one in enumerate(told):
        if one.is_asked:
            found = next((at for at in range(at, len(inner)) if one.same_as(inner[at])), None)
            if found is not None:
                asked.append((place, found))
                at = found + 1
            elif not asked:
                return told  # it is asked something else
    merged: list[_Told] = []
    for (place, at), (next_place, next_at) in pairwise([(0, 0), *asked, (len(told), len(inner))]):
        merged += _turn_with_steps(told[place:next_place], inner[at:next_at])
    return merged if asked else told


def _turn_with_steps(told: list[_Told], inner: list[AgentMessage]) -> list[_Told]:
    merged: list[_Told] = []
    waiting: list[_Told] = []  # what the inner unit was not told
    at = 0
    for one in told:
        found = next((place for place in range(at, len(inner)) if one.same_as(inner[place])), None)
        if found is None:
            waiting.append(one)
            continue
        merged += _between(inner[at:found], waiting)
        one.message = inner[found]
        merged.append(one)
        at, waiting = found + 1, []
    return merged + _between(inner[at:], waiting)


def _between(steps: list[AgentMessage], waiting: list[_Told]) -> list[_Told]:
    """Steps, and what was said meanwhile: what somebody decided on calls stands before their results."""
    decided = any(one.is_asked for one in waiting)
    cut = next((at for at, step in enumerate(steps) if decided and step.tool_results is not None), len(steps))
    return [*map(_Told, steps[:cut]), *waiting, *map(_Told, steps[cut:])]


def _manager(unit: Module) -> MemoryManager | None:
    memory = unit._states.get("memory")
    return memory if isinstance(memory, MemoryManager) else None


def _standing(unit: Module, session_id: SessionId) -> Mark:
    """What a unit remembers of a session between turns."""
    manager = _manager(unit)
    return (None if manager is None else manager.standing(session_id, None)) or ([], 0)


def _memory(unit: Module, session_id: SessionId) -> list[AgentMessage]:
    log, length = _standing(unit, session_id)
    return log[:length]


def _plain(message: AgentMessage) -> dict[str, Any]:
    """A message as plain data, with its content as `text` beside it, without token ids."""
    try:
        plain = message.plain("the message")
    except TypeError:
        plain = {"content": str(message.content), "sender": message.sender}
    told = {name: value for name, value in plain.items() if value is not None and name != "tokens"}
    return {**told, "text": _text(message)}


def _text(message: AgentMessage) -> str:
    try:
        return message.text
    except TypeError:
        return str(message.content)
