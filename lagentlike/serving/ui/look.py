"""What the page shows of an agent: its units, and what they remember of a session."""

from __future__ import annotations

import json
from typing import Any

from ...actions.base import BaseAction
from ...errors import StateError
from ...memory import MemoryManager, SessionId
from ...memory.memory import Mark
from ...memory.state import id_to_json
from ...module import Module
from ...schema import AgentMessage

__all__ = ["conversation", "key_of", "length", "recall", "title", "units"]


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


def conversation(unit: Module, session_id: SessionId, before: int | None = None, most: int = 100) -> dict[str, Any]:
    """What was said in a session, with the steps between where one memory has them all.

    That memory is the one of the child `agent`, and of its child `agent`, and so on, as long as each has all that the
    one above has. Where there is none, it is the outermost unit's.

    Args:
        before: only messages before this one, counted from 0.
        most: how many of those, the last ones.

    Returns:
        `start`, the number of the first message, and `messages`: a dict each of `message` (plain), and `point`, for
        those that the outermost unit remembers: how many messages that has up to this one.
    """
    outermost = _memory(unit, session_id)
    told, points = outermost, list(range(1, len(outermost) + 1))
    inner: Module | None = unit
    while inner is not None:
        inner = dict(inner.named_children()).get("agent")
        steps = [] if inner is None else _memory(inner, session_id)
        places = _places(outermost, steps)
        if places is None:
            break
        told, points = steps, places
    stop = len(told) if before is None else min(before, len(told))
    start = max(0, stop - most)
    shown = [{"message": _plain(told[place]), "point": points[place] or None} for place in range(start, stop)]
    return {"start": start, "messages": shown}


def recall(unit: Module, path: str, session_id: SessionId, most: int = 200) -> dict[str, Any]:
    """What one unit of the tree remembers of a session: its last `messages`, and its other `states` by name.

    Raises:
        AttributeError: there is no such unit.
    """
    module = unit.get_submodule(path)
    states: dict[str, Any] = {}
    for name, state in module._states.items():
        if not isinstance(state, MemoryManager) and state.persistent and not state.spreads:
            try:
                states[name] = state.dump(session_id)
            except StateError as error:
                states[name] = str(error)
    messages = _memory(module, session_id)
    return {"total": len(messages), "messages": [_plain(message) for message in messages[-most:]], "states": states}


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


def _places(outer: list[AgentMessage], inner: list[AgentMessage]) -> list[int] | None:
    """For each inner message, which outer one it is, counted from 1, or 0; None unless all outer ones are there."""
    places, found = [], 0
    for message in inner:
        same = found < len(outer) and _said(message) == _said(outer[found])
        found += same
        places.append(found if same else 0)
    return places if inner and found == len(outer) else None


def _said(message: AgentMessage) -> tuple[bool, Any]:
    return message.sender == "user", message.content


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
