"""Records in ShareGPT form, as trajectory files have it, and back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, UTC
from typing import Any

from ..errors import StateError
from ..schema import AgentMessage, ToolCall, ToolResult
from ..trajectory import text_of
from .chat import to_openai
from .lines import Damage, read_lines
from .record import ConversationRecord

__all__ = ["from_sharegpt", "read_sharegpt", "to_sharegpt"]

_TOOLS = """You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML \
tags. You may call one or more functions to assist with the user query. If available tools are not relevant in \
assisting with user query, just respond in natural conversational language. After calling & executing the functions, \
you will be provided with function results within <tool_response> </tool_response> XML tags. Here are the available \
tools:
<tools>
{tools}
</tools>
Each function call is a JSON object with its name and arguments within <tool_call> </tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-dict>}}
</tool_call>"""

_HEAD, _FOOT = _TOOLS.format(tools="\0").split("\0")
_THINKING = re.compile(r"<think>\n(?:(?P<text>.*?)\n)?</think>\n?", re.DOTALL)
_CALL = re.compile(r"\n?<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


def to_sharegpt(record: ConversationRecord) -> dict[str, Any]:
    """A record as `{"conversations": [{"from", "value"}], "timestamp", "model", "completed"}`.

    The system text carries the tools, then the system prompt that the model was sent. Every `gpt` turn begins with a
    `<think>` block, empty without thinking; results that follow each other are one `tool` turn.

    Source: the format of Nous Research's Hermes function calling.
    """
    given = to_openai(record)
    prompt = "\n\n".join(text_of(message) for message in given["messages"] if message["role"] == "system")
    system = f"{_HEAD}{_json(given['tools'])}{_FOOT}"
    turns = [{"from": "system", "value": f"{system}\n\n{prompt}" if prompt else system}]
    for message in given["messages"]:
        role = message["role"]
        if role == "user":
            turns.append({"from": "human", "value": text_of(message)})
        elif role == "assistant":
            turns.append({"from": "gpt", "value": _said(message)})
        elif role == "tool":
            response = _response(message)
            if turns[-1]["from"] == "tool":
                turns[-1]["value"] += f"\n{response}"
            else:
                turns.append({"from": "tool", "value": response})
    stamp = datetime.fromtimestamp(record.ended_at or record.started_at, UTC).isoformat()
    return {"conversations": turns, "timestamp": stamp, "model": record.model, "completed": record.completed}


def _said(message: Mapping[str, Any]) -> str:
    thinking = message.get("reasoning")
    parts = [f"<think>\n{thinking}\n</think>" if thinking else "<think>\n</think>", text_of(message)]
    for call in message.get("tool_calls") or ():
        named = {"name": call["function"]["name"], "arguments": _as_object(call["function"]["arguments"])}
        parts.append(f"<tool_call>\n{_json(named)}\n</tool_call>")
    return "\n".join(part for part in parts if part)


def _response(message: Mapping[str, Any]) -> str:
    told = {
        "tool_call_id": message.get("tool_call_id") or "",
        "name": message.get("name") or "",
        "content": text_of(message),
    }
    return f"<tool_response>\n{_json(told)}\n</tool_response>"


_dumps = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each call


def _json(value: Any) -> str:
    """JSON text that holds no closing tag, so that it ends where its block does."""
    return _dumps(value).replace("</", "<\\/")


def _as_object(arguments: str) -> Any:
    """A call's arguments as an object; the model's own text where they are none."""
    read = _object(arguments)
    return arguments if read is None else read


def from_sharegpt(row: Mapping[str, Any]) -> ConversationRecord:
    """The record of what `to_sharegpt` gave; what that leaves out (ids, usage, tokens) is not there.

    A row of others may be without `timestamp`, `model` and `completed`, and speak of `user` and `assistant`. A call or
    a result that cannot be read stays text.

    Raises:
        StateError: it is no such row.
    """
    messages: list[AgentMessage] = []
    tools: list[dict[str, Any]] = []
    try:
        for turn in row["conversations"]:
            kind, value = turn["from"], turn["value"]
            if kind == "system":
                tools, prompt = _instructions(value, tools)
                if prompt:
                    messages.append(AgentMessage(content=prompt, sender="system"))
            elif kind in ("human", "user"):
                messages.append(AgentMessage(content=value))
            elif kind in ("gpt", "assistant"):
                messages.append(_heard(value))
            elif kind == "tool":
                results = [_result(text) for text in _RESPONSE.findall(value) or [value]]
                _tie(results, messages)
                text = "\n".join(result.output for result in results)
                messages.append(AgentMessage(content=text, sender="tool", tool_results=results))
            else:
                raise StateError(f"this is no ShareGPT row: a turn is from {kind!r}")
        ended = datetime.fromisoformat(row["timestamp"]).timestamp() if "timestamp" in row else 0.0
        model, completed = row.get("model", ""), row.get("completed", True)
        return ConversationRecord("", model, messages, tools, ended, ended, completed, agent="assistant")
    except StateError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StateError(f"this is no ShareGPT row: {type(error).__name__} {error}") from None


def _instructions(value: str, tools: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The tools and the system prompt of a system text; those before, and all of it, where it was not made here."""
    end = value.find(_FOOT, len(_HEAD))
    if not value.startswith(_HEAD) or end < 0:
        return tools, value
    return json.loads(value[len(_HEAD) : end]), value[end + len(_FOOT) :].removeprefix("\n\n")


def _heard(value: str) -> AgentMessage:
    thinking = _THINKING.match(value)
    rest = value if thinking is None else value[thinking.end() :]
    calls: list[ToolCall] = []

    def take(block: re.Match[str]) -> str:
        told = _object(block[1]) or {}
        if not isinstance(told.get("name"), str) or not isinstance(told.get("arguments"), dict | str):
            return block[0]
        calls.append(ToolCall(told["name"], told["arguments"]))
        return ""

    return AgentMessage(
        content=_CALL.sub(take, rest),
        sender="assistant",
        reasoning=None if thinking is None else thinking["text"],
        tool_calls=calls or None,
    )


def _result(text: str) -> ToolResult:
    told = _object(text) or {}
    content = told.get("content", text)
    output = content if isinstance(content, str) else _dumps(content)
    return ToolResult(True, output, id=str(told.get("tool_call_id", "")), name=str(told.get("name", "")))


def _object(text: str) -> dict[str, Any] | None:
    """The object that a text is as JSON; None where it is none."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _tie(results: list[ToolResult], messages: list[AgentMessage]) -> None:
    """Give the calls before results the ids of these: the format has them on the results alone."""
    calls = messages[-1].tool_calls if messages else None
    for call, result in zip(calls or (), results, strict=False):
        call.id = result.id


def read_sharegpt(
    path: str | os.PathLike[str], on_damage: Callable[[Damage], Any] | None = None
) -> Iterator[ConversationRecord]:
    """The conversations of a ShareGPT file.

    Args:
        path: the file.
        on_damage: told of each line that cannot be read, which is left out.

    Raises:
        StateError: a line cannot be read and there is no `on_damage`. A torn last line only gives a warning.
    """
    return read_lines(path, lambda line: from_sharegpt(json.loads(line)), on_damage)
