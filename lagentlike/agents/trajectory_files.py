"""Keep each run of an agent in a trajectory file."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any, TYPE_CHECKING

from ..concurrency import in_thread
from ..hooks import Hook
from ..memory import SessionId
from ..records import append_record, ConversationRecord
from ..schema import AgentMessage, Usage
from .compression import is_mark
from .conversation import is_system, system_message
from .run import Run, run_of

if TYPE_CHECKING:
    from .ai_agent import AIAgent

__all__ = ["TrajectoryFile"]


class TrajectoryFile(Hook):
    """Appends the record of a session to a trajectory file when a run ends; one that waits for an approval has not.

    Args:
        target: a `.jsonl` file, or a folder.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self.target = target

    def after_agent(self, agent: AIAgent, message: AgentMessage, session_id: SessionId) -> Any:
        if message.finish_reason == "approval_required":
            return None
        record = _record_of(agent, message, session_id)
        if agent.colour.is_async:
            return self._append(record)
        append_record(self.target, record)
        return None

    async def _append(self, record: ConversationRecord) -> None:
        await in_thread(append_record, self.target, record)


def _record_of(agent: AIAgent, reply: AgentMessage, session_id: SessionId) -> ConversationRecord:
    """A session of an agent, all of it whatever its model is still sent, after a run that gave this reply."""
    assert agent.agent.memory is not None
    remembered = [*agent.agent.memory.get(session_id), *Run.after(reply).unasked]
    messages = [_read(agent, message) for message in remembered if not is_mark(message)]
    if not any(map(is_system, messages)) and agent.agent.template:
        messages.insert(0, system_message(str(agent.agent.template)))
    told, ended = run_of(reply), time.time()
    return ConversationRecord(
        id=uuid.uuid4().hex,
        model=reply.model or agent.agent.llm.model,
        messages=messages,
        tools=agent.actions.tools(),
        started_at=ended - told.get("seconds", 0.0),
        ended_at=ended,
        completed=reply.finish_reason == "stop",
        finish_reason=reply.finish_reason,
        usage=Usage(**told.get("usage", {})),
        metadata={"task_id": session_id},
        agent=agent.agent.name,
    )


def _read(agent: AIAgent, message: AgentMessage) -> AgentMessage:
    """A message, without the text of calls that are beside it."""
    if agent.tool_format is None or not message.tool_calls:
        return message
    return message.model_copy(update={"content": agent.tool_format.parse(message.content).content})
