"""Streams of messages that grow, sent as what is new in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadResponse, StateError
from ..memory import Memory
from ..schema import AgentMessage

__all__ = ["MessageDecoder", "MessageEncoder", "message_from"]

_GROWING = ("content", "reasoning")


class MessageEncoder:
    """Messages as events: `message` with a whole one, or `delta` with what its texts have more than the one before."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def encode(self, message: AgentMessage) -> dict[str, Any]:
        """The event for the next message."""
        last, self._last = self._last, message.__dict__.copy()
        new = {}
        for name, value in self._last.items():
            if value == last.get(name, _NOTHING):
                continue
            before = last.get(name) or ""
            if name not in _GROWING or not last or not isinstance(value, str) or not isinstance(before, str):
                break
            if not value.startswith(before):
                break
            new[name] = value[len(before) :]
        else:
            return {"type": "delta", **new}
        return {"type": "message", "message": message.plain("the message")}


_NOTHING = object()


class MessageDecoder:
    """What `MessageEncoder` encoded, as messages again."""

    def __init__(self) -> None:
        self._last: AgentMessage | None = None

    def decode(self, event: Mapping[str, Any]) -> AgentMessage:
        """The message that an event stands for.

        Raises:
            BadResponse: it is no such event.
        """
        if event.get("type") == "delta":
            if self._last is None:
                raise BadResponse("the stream begins in the middle of a message")
            message = self._last.twin()
            for name in _GROWING:
                if name in event:
                    before = getattr(message, name) or ""
                    if not isinstance(before, str):
                        raise BadResponse(f"the stream adds to a {name} that is no text but {type(before).__name__}")
                    setattr(message, name, before + str(event[name]))
        else:
            message = message_from(event.get("message"))
        self._last = message
        return message.clone()


def message_from(plain: Any) -> AgentMessage:
    """The message in a response.

    Raises:
        BadResponse: it is none.
    """
    try:
        return Memory.parse([plain])[0]
    except StateError as error:
        raise BadResponse(f"the server's message cannot be read: {error}") from error
