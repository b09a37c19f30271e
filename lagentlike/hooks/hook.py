"""What a hook is, and the handle that takes it off again."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from ..schema import AgentMessage

__all__ = ["Hook", "RemovableHandle", "Replacement"]

Replacement = AgentMessage | str | Sequence[AgentMessage | str] | None
"""What a hook may return: messages that take the place of those it was given, or None to keep them."""


class Hook:
    """Called around every call of the unit it is registered with; override what you need.

    Each method may be plain or `async`, may edit the messages it is given in place (they are the unit's own copies: the
    sender's are not touched), and may return messages to take their place. What a `before_` hook leaves is what the
    memory and `forward` see; what an `after_` hook leaves is what the caller gets, while the memory keeps the reply as
    it was.

    A before-hook of an agent gets the tuple of messages that it was called with; all others get one message. The types
    of unit and session are open, so that a hook can say which ones it is for.
    """

    def before_agent(self, agent: Any, messages: Any, session_id: Any) -> Replacement | Awaitable[Replacement]:
        """Before an agent's turn, with the messages it was called with."""
        return None

    def after_agent(self, agent: Any, message: AgentMessage, session_id: Any) -> Replacement | Awaitable[Replacement]:
        """After an agent's turn, with its reply."""
        return None

    def before_action(
        self, executor: Any, message: AgentMessage, session_id: Any
    ) -> Replacement | Awaitable[Replacement]:
        """Before an executor runs tools, with the message that calls them."""
        return None

    def after_action(
        self, executor: Any, message: AgentMessage, session_id: Any
    ) -> Replacement | Awaitable[Replacement]:
        """After an executor ran tools, with the message that carries the results."""
        return None


class RemovableHandle:
    """Takes a hook off again; removing twice is no error, and it works as a context manager."""

    def __init__(self, registry: dict[object, Any], key: object) -> None:
        self._registry = registry
        self._key = key

    def remove(self) -> None:
        """Take the hook off."""
        self._registry.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
