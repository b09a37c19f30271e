"""Calls that a person must approve: which they are, and how the decision reaches the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InvalidArgument, StateError
from ..schema import AgentMessage, ToolCall, unchecked_message

__all__ = ["Approve", "decision_message", "decision_of", "verdict"]

Approve = Callable[[ToolCall], Any]
"""Gets a call and returns whether it may be made, or `(whether, reason)`; async agents take async functions too."""


def decision_message(call_id: str, approved: bool, reason: str) -> AgentMessage:
    """What a paused run is sent to go on."""
    if not isinstance(approved, bool):
        raise InvalidArgument("approved", approved, "give True or False")
    content = {"call_id": call_id, "approved": approved, "reason": str(reason)}
    return unchecked_message(content=content, type=_DECISION)


def decision_of(message: AgentMessage) -> tuple[str, bool, str] | None:
    """The call's id, whether it is approved, and why; None of any other message."""
    if message.type != _DECISION:
        return None
    try:
        given = message.content
        return str(given["call_id"]), given["approved"] is True, str(given.get("reason", ""))
    except (AttributeError, KeyError, TypeError) as error:
        raise StateError(f"a decision holds call_id, approved and reason, not {message.content!r}") from error


def verdict(returned: Any) -> tuple[bool, str]:
    """What an `approve` function returned: only True approves."""
    if isinstance(returned, tuple) and len(returned) == 2:
        return returned[0] is True, str(returned[1] or "")
    return returned is True, ""


_DECISION = "approval"
