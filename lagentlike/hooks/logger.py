"""Log every message that passes a unit."""

from __future__ import annotations

import logging
from typing import Any

from ..schema import AgentMessage
from .hook import Hook

__all__ = ["MessageLogger"]


class MessageLogger(Hook):
    """Logs the messages a unit is given and the reply it makes, one line each.

    Args:
        name: name of the logger.
        level: level to log at.
        max_chars: longer contents are cut to this many characters.
    """

    def __init__(self, name: str = "lagentlike.messages", level: int = logging.INFO, max_chars: int = 500) -> None:
        self.logger = logging.getLogger(name)
        self.level = level
        self.max_chars = max_chars

    def before_agent(self, agent: Any, messages: tuple[AgentMessage, ...], session_id: Any) -> None:
        for message in messages:
            self._log(message, "->", agent, session_id)

    def after_agent(self, agent: Any, message: AgentMessage, session_id: Any) -> None:
        self._log(message, "<-", agent, session_id)

    def before_action(self, executor: Any, message: AgentMessage, session_id: Any) -> None:
        self._log(message, "->", executor, session_id)

    def after_action(self, executor: Any, message: AgentMessage, session_id: Any) -> None:
        self._log(message, "<-", executor, session_id)

    def _log(self, message: AgentMessage, arrow: str, unit: Any, session_id: Any) -> None:
        if not self.logger.isEnabledFor(self.level):
            return
        text = str(message.content)[: self.max_chars + 1].replace("\r", "\\r").replace("\n", "\\n")
        if len(text) > self.max_chars:
            text = text[: self.max_chars] + "…"
        self.logger.log(self.level, "[%s] %s %s %s: %s", session_id, message.sender, arrow, unit.name, text)
