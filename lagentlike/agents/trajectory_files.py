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
from ..schema import AgentMessage
from .recording import record_of
from .run import run_of

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
        ended = time.time()
        began = ended - run_of(message).get("seconds", 0.0)
        details = {"started_at": began, "ended_at": ended, "metadata": {"task_id": session_id}}
        record = record_of(agent, session_id, message, id=uuid.uuid4().hex, **details)
        if agent.colour.is_async:
            return self._append(record)
        append_record(self.target, record)
        return None

    async def _append(self, record: ConversationRecord) -> None:
        await in_thread(append_record, self.target, record)
