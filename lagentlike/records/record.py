"""The record of one conversation, from which every other form of it is derived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ..errors import StateError
from ..memory import Memory
from ..schema import AgentMessage, to_plain, Usage
from .encoding import encoded

__all__ = ["ConversationRecord"]

_SUM = b',"sum":"'
_TAIL = len(_SUM) + 16 + 2  # the checksum's digits, a quote, the closing brace


@dataclass(slots=True)
class ConversationRecord:
    """One conversation with all that is known of it.

    Attributes:
        id: tells it from every other record.
        model: the model that answered.
        messages: all of it in order, the system prompt that the model was really sent included (its sender is
            `system`), with tool calls and results, reasoning, usage, token ids and log-probabilities where known.
        tools: JSON schemas of the tools that the model was offered.
        started_at, ended_at: seconds since 1970, UTC.
        completed: whether it came to its own end.
        finish_reason: why it ended.
        usage: requests and tokens of all of it.
        metadata: what else is kept with it; plain JSON data.
        agent: name of the agent whose messages are the assistant's; "" where everybody but `user` and `system` is it.
    """

    id: str
    model: str
    messages: list[AgentMessage]
    tools: list[dict[str, Any]] = field(default_factory=list)
    started_at: float = 0.0
    ended_at: float = 0.0
    completed: bool = True
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    metadata: dict[str, Any] = field(default_factory=dict)
    agent: str = ""

    def role_of(self, message: AgentMessage) -> str:
        """What a message of this record is in a chat: `system`, `user`, `assistant` or `tool`."""
        if message.tool_results is not None:
            return "tool"
        if message.sender == "system":
            return "system"
        is_own = message.is_from(self.agent) if self.agent else message.sender != "user"
        return "assistant" if is_own else "user"

    def to_dict(self) -> dict[str, Any]:
        """This record as plain JSON data, which `from_dict` reads.

        Raises:
            TypeError: something in it has no JSON form; the message names where it is.
        """
        plain = {name: _plain(getattr(self, name), name) for name in _FIELDS if name != "messages"}
        plain["messages"] = [
            _plain_message(message, f"messages[{index}]") for index, message in enumerate(self.messages)
        ]
        return plain

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The record that `to_dict` gave.

        Raises:
            StateError: a field is missing, unknown or of the wrong kind.
        """
        try:
            values = {**saved, "messages": Memory.parse(saved["messages"]), "usage": Usage(**saved["usage"])}
            record = cls(**values)
        except (TypeError, KeyError) as error:
            raise StateError(f"this is no saved conversation: {type(error).__name__} {error}") from None
        for name, kind in _KINDS.items():
            if not isinstance(getattr(record, name), kind):
                raise StateError(f"this is no saved conversation: {name} is {getattr(record, name)!r}")
        return record

    def to_line(self) -> bytes:
        """This record as one line of JSON, without its line break; it ends with a checksum of all before it.

        Raises:
            TypeError: something in it has no JSON form; the message names where it is.
        """
        body = encoded(self.to_dict())[:-1]
        return b'%b%b%b"}' % (body, _SUM, _checksum(body))

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """The record that `to_line` wrote.

        Raises:
            StateError: the line is damaged, or no record.
        """
        return cls.from_dict(checked_line(line))


def _plain_message(message: AgentMessage, where: str) -> dict[str, Any]:
    """A message as plain data, without what is as it is by default."""
    return {
        name: _plain(value, f"{where}.{name}")
        for name, value in message.__dict__.items()
        if value is not _DEFAULTS[name]
    }


def _plain(value: Any, where: str) -> Any:
    """`to_plain`, past it for most of what there is."""
    kind = type(value)
    if value is None or kind is bool or (kind is str and value.isascii()):
        return value
    return _plain_usage(value) if kind is Usage else to_plain(value, where)


def _plain_usage(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in _USAGE_FIELDS}


def checked_line(line: bytes) -> dict[str, Any]:
    """The plain data of a record's line, its checksum verified.

    Raises:
        StateError: the line is damaged.
    """
    body, tail = line[:-_TAIL], line[-_TAIL:]
    if tail != b'%b%b"}' % (_SUM, _checksum(body)):
        raise StateError("the line is damaged: its checksum does not fit")
    saved: dict[str, Any] = json.loads(body + b"}")  # not the fast codec, which rounds integers beyond 64 bits
    return saved


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode()


_DEFAULTS = {name: item.default for name, item in AgentMessage.model_fields.items()}
_USAGE_FIELDS = tuple(item.name for item in fields(Usage))
_FIELDS = tuple(item.name for item in fields(ConversationRecord))
_KINDS: dict[str, Any] = {
    "id": str,
    "model": str,
    "tools": list,
    "started_at": int | float,
    "ended_at": int | float,
    "completed": bool,
    "finish_reason": str | None,
    "metadata": dict,
    "agent": str,
}
