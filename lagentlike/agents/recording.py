"""What an agent did in a session, read from its memory as a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..memory import SessionId
from ..records import ConversationRecord
from ..schema import AgentMessage, Usage
from .agent import Agent
from .recall import tools_beside

__all__ = ["record_of"]


def record_of(
    root: Agent, session_id: SessionId, reply: AgentMessage | None = None, **details: Any
) -> ConversationRecord:
    """The record of a session.

    Its messages are those of the agent that answers: of the root if that asks a model, else of the first agent in its
    tree that did. What the other agents remember is in `metadata["agents"]`, by their paths.

    Args:
        root: the agent that was called.
        session_id: the session.
        reply: what the call gave; its `finish_reason` is why the record ended.
        details: further fields of the record, such as `id`.
    """
    asked = [
        (path, unit)
        for path, unit in root.named_modules()
        if isinstance(unit, Agent) and unit.llm is not None and _answered(unit, session_id)
    ]
    messages: list[AgentMessage] = []
    values: dict[str, Any] = {"id": str(session_id), "model": "", **details}
    usage = Usage()
    for number, (path, unit) in enumerate(asked):
        remembered = _remembered(root, path, unit, session_id)
        for message in remembered:
            if message.usage is not None and message.is_from(unit.name):
                usage += message.usage
        if number:
            values["metadata"] = {**values.get("metadata", {})}
            others = values["metadata"].setdefault("agents", {})
            others[path] = [message.plain() for message in remembered]
            continue
        messages = [*_instructions(unit, session_id, remembered), *remembered]
        values.setdefault("agent", unit.name)
        values.setdefault("tools", tools_beside(root, path))
        values["model"] = values["model"] or _model(remembered)
    reason = None if reply is None else reply.finish_reason
    values.setdefault("finish_reason", reason)
    values.setdefault("completed", reason in (None, "stop"))
    return ConversationRecord(messages=messages, usage=usage, **values)


def _answered(unit: Agent, session_id: SessionId) -> bool:
    memory = None if unit.memory is None else unit.memory.get(session_id)
    return memory is not None and any(message.is_from(unit.name) for message in memory.get_memory())


def _remembered(root: Agent, path: str, unit: Agent, session_id: SessionId) -> list[AgentMessage]:
    """What a unit remembers, as the agent around it tells it where that knows more."""
    around = root.get_submodule(path.rpartition(".")[0])
    told: Callable[[SessionId], list[AgentMessage]] | None = getattr(around, "remembered", None)
    if path and told is not None and getattr(around, "agent", None) is unit:
        return told(session_id)
    return [] if unit.memory is None else unit.memory.get(session_id).get_memory()


def _instructions(unit: Agent, session_id: SessionId, remembered: list[AgentMessage]) -> list[AgentMessage]:
    """The system prompt that the model was sent, where it is not among what is remembered."""
    if any(message.sender == "system" for message in remembered):
        return []
    sent = (message for message in unit._prompt(session_id) if message["role"] == "system")
    return [AgentMessage(content=message["content"], sender="system") for message in sent]


def _model(remembered: list[AgentMessage]) -> str:
    return next((message.model for message in reversed(remembered) if message.model), "")
