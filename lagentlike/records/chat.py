"""Records as OpenAI's message dicts, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..aggregators import DefaultAggregator
from ..errors import StateError
from ..llms.codec import parse_arguments
from ..schema import AgentMessage, ToolCall, ToolResult
from .lines import Damage, read_lines
from .record import ConversationRecord

__all__ = ["from_openai", "read_openai", "to_openai"]


def to_openai(record: ConversationRecord) -> dict[str, Any]:
    """A record as `{"messages": […], "tools": […]}`.

    An assistant's message has its thinking as `reasoning` and its calls as `tool_calls`; its `content` is None where it
    says nothing beside its calls. Results are messages of role `tool`.
    """
    return {
        "messages": [item for message in record.messages for item in _rendered(record, message)],
        "tools": record.tools,
    }


def _rendered(record: ConversationRecord, message: AgentMessage) -> list[dict[str, Any]]:
    role = record.role_of(message)
    (first, *more) = _AGGREGATOR.render(message, message.sender if role == "assistant" else "", None) or [{}]
    if role == "tool":
        return [first, *more] if first else []
    first["role"] = role
    if role == "assistant":
        if message.tool_calls and not first["content"]:
            first["content"] = None
        if message.reasoning is not None:
            first["reasoning"] = message.reasoning
    return [first]


_AGGREGATOR = DefaultAggregator()


def from_openai(row: Mapping[str, Any]) -> ConversationRecord:
    """The record of what `to_openai` gave; what that leaves out (ids, usage, tokens) is not there.

    Raises:
        StateError: it is no such conversation.
    """
    messages: list[AgentMessage] = []
    try:
        for item in row["messages"]:
            message = _read(item)
            if message.tool_results is not None and messages and messages[-1].tool_results is not None:
                messages[-1].tool_results += message.tool_results
                messages[-1].content += f"\n{message.content}"
            else:
                messages.append(message)
    except (KeyError, TypeError, AttributeError) as error:
        raise StateError(f"this is no conversation in chat format: {type(error).__name__} {error}") from None
    return ConversationRecord("", str(row.get("model", "")), messages, list(row.get("tools") or ()), agent="assistant")


def _read(item: Mapping[str, Any]) -> AgentMessage:
    role, content = item["role"], item.get("content")
    if role == "tool":
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        result = ToolResult(True, text, id=item.get("tool_call_id") or "", name=item.get("name") or "")
        return AgentMessage(content=text, sender="tool", tool_results=[result])
    if role != "assistant":
        return AgentMessage(content=content, sender="system" if role == "system" else "user")
    calls = [
        ToolCall(call["function"]["name"], _arguments(call["function"]["arguments"]), id=call.get("id") or "")
        for call in item.get("tool_calls") or ()
    ]
    thinking = item.get("reasoning", item.get("reasoning_content"))
    said = "" if content is None else content
    return AgentMessage(content=said, sender="assistant", tool_calls=calls or None, reasoning=thinking)


def _arguments(given: Any) -> dict[str, Any] | str:
    return parse_arguments(given) if isinstance(given, str) else given


def read_openai(
    path: str | os.PathLike[str], on_damage: Callable[[Damage], Any] | None = None
) -> Iterator[ConversationRecord]:
    """The conversations of a JSONL file of `{"messages": […], "tools": […]}`.

    Args:
        path: the file.
        on_damage: told of each line that cannot be read, which is left out.

    Raises:
        StateError: a line cannot be read and there is no `on_damage`. A torn last line only gives a warning.
    """
    return read_lines(path, lambda line: from_openai(json.loads(line)), on_damage)
