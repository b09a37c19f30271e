"""What the tests of the tool-calling loop have in common."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.agents import AIAgent, AsyncAIAgent, AsyncStreamingAIAgent, StreamingAIAgent
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import Completion, ToolCall

KINDS: list[Any] = [AIAgent, AsyncAIAgent, StreamingAIAgent, AsyncStreamingAIAgent]
every_colour = pytest.mark.parametrize("kind", KINDS)


@tool(read_only=True)
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


@tool
def fail() -> str:
    """Always fails."""
    raise LookupError("out of order")


@tool(needs_approval=True)
def delete(path: str) -> str:
    """Delete a file.

    Args:
        path: the file.
    """
    return f"deleted {path}"


TOOLS = (add, fail, delete)


def call(a: int = 1, b: int = 2, **fields: Any) -> ToolCall:
    return ToolCall("add", {"a": a, "b": b}, **fields)


def cut(text: str) -> Completion:
    return Completion(text, finish_reason="length")


def make(kind: Any, replies: Any, tools: Any = TOOLS, **options: Any) -> Any:
    """An agent of a colour over a script."""
    llm = (AsyncScriptedLLM if issubclass(kind, AsyncAIAgent) else ScriptedLLM)(replies, chunk_size=100)
    return kind(llm, enabled_toolsets=options.pop("enabled_toolsets", []), tools=list(tools), **options)


def run(agent: Any, message: Any, **options: Any) -> dict[str, Any]:
    """What a run gives, whatever the agent's colour."""
    result = agent.run_conversation(message, **options)
    return asyncio.run(result) if agent.colour.is_async else result


def decide(agent: Any, call_id: str, approved: bool, reason: str = "", task_id: Any = None) -> dict[str, Any]:
    result = agent.approve(task_id, call_id, approved, reason)
    return asyncio.run(result) if agent.colour.is_async else result


def results_of(messages: list[dict[str, Any]]) -> dict[str, str]:
    """The results among messages, by the ids of their calls."""
    return {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}


def assert_paired(messages: list[dict[str, Any]], open_calls: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Each call has one result, which comes before anything else does; but for calls that wait."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert waiting
            assert message["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting, f"without a result: {waiting}"
        waiting = [one["id"] for one in message.get("tool_calls", ())]
    assert set(waiting) <= open_calls, f"without a result: {waiting}"


def in_loop(kind: Any) -> bool:
    return issubclass(kind, AsyncAIAgent)
