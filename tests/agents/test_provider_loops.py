"""Tool loops over providers with formats of their own: signed thinking, calls as objects."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lagentlike.agents import (
    AIAgent,
    AsyncAIAgent,
    AsyncReAct,
    AsyncStreamingAIAgent,
    AsyncStreamingReAct,
    ReAct,
    StreamingAIAgent,
    StreamingReAct,
)
from lagentlike.llms import AsyncClaudeAPI, AsyncOllamaAPI, ClaudeAPI, OllamaAPI

from ..llms.claude_server import ClaudeServer, KEYS, text, thought, use
from ..llms.ollama_server import OllamaServer
from .looping import add

KINDS: list[Any] = [ReAct, AsyncReAct, StreamingReAct, AsyncStreamingReAct]
LOOPS: list[Any] = [AIAgent, AsyncAIAgent, StreamingAIAgent, AsyncStreamingAIAgent]
CALLS = [
    {"id": "c1", "function": {"index": 0, "name": "add", "arguments": {"a": 1, "b": 2}}},
    {"id": "c2", "function": {"index": 1, "name": "add", "arguments": {"a": 3, "b": 4}}},
]


def claude(server: ClaudeServer, kind: Any) -> Any:
    model = (
        AsyncClaudeAPI if kind in (AsyncReAct, AsyncStreamingReAct, AsyncAIAgent, AsyncStreamingAIAgent) else ClaudeAPI
    )
    return model("claude-x", key=KEYS[0], api_base=server.url, thinking=256, retry=0)


def ollama(server: OllamaServer, kind: Any) -> Any:
    model = (
        AsyncOllamaAPI if kind in (AsyncReAct, AsyncStreamingReAct, AsyncAIAgent, AsyncStreamingAIAgent) else OllamaAPI
    )
    return model("qwen3:8b", key=None, api_base=server.url, think=True, retry=0)


async def last_of(agent: Any, message: str) -> Any:
    """The last message of a turn, in whatever colour; blocking ones run beside the server's loop."""
    if not agent.colour.is_async:
        answer = await asyncio.to_thread(
            lambda: list(agent(message))[-1] if agent.colour.is_streaming else agent(message)
        )
    elif agent.colour.is_streaming:
        answer = [part async for part in agent(message)][-1]
    else:
        answer = await agent(message)
    return answer


CLAUDE = [
    [thought("two sums"), text("Let me add."), use("add", "t1", a=1, b=2), use("add", "t2", a=3, b=4)],
    [thought("done"), text("3 and 7.")],
    [text("You are welcome.")],
]


@pytest.mark.parametrize("kind", [*KINDS, *LOOPS])
async def test_claudes_thinking_goes_back_as_it_was_signed(kind: Any) -> None:
    async with ClaudeServer(*CLAUDE) as server:
        agent = kind(claude(server, kind), tools=[add]) if kind in LOOPS else kind(claude(server, kind), [add])
        assert (await last_of(agent, "1 + 2 and 3 + 4?")).content == "3 and 7."
        assert (await last_of(agent, "Thanks")).content == "You are welcome."
    first, second, third = (body["messages"] for body in server.bodies)
    assert [turn["role"] for turn in second] == ["user", "assistant", "user"]
    assert second[1]["content"] == CLAUDE[0]  # the server would have refused another signature, too
    results = {block["tool_use_id"]: block["content"][0]["text"] for block in second[2]["content"]}
    assert results == {"t1": "3", "t2": "7"}
    assert third[3]["content"] == CLAUDE[1]
    assert len(first) == 1


async def test_a_conversation_with_claude_goes_on_from_its_saved_state() -> None:
    async with ClaudeServer(*CLAUDE) as server:
        agent = AsyncReAct(claude(server, AsyncReAct), [add])
        await agent("1 + 2 and 3 + 4?")
        state = json.loads(json.dumps(agent.state_dict()))
        twin = AsyncReAct(claude(server, AsyncReAct), [add])
        twin.load_state_dict(state)
        assert (await twin("Thanks")).content == "You are welcome."
    assert server.bodies[2]["messages"][1]["content"] == CLAUDE[0]


async def test_thinking_is_not_sent_again_to_who_wants_none() -> None:
    async with ClaudeServer([thought("hm"), text("hello")], [text("bye")]) as server:
        agent = AsyncAIAgent(claude(server, AsyncAIAgent), tools=[add], reasoning="strip")
        await agent("hi")
        await agent("bye")
    assert server.bodies[1]["messages"][1]["content"] == [text("hello")]


@pytest.mark.parametrize("kind", [*KINDS, *LOOPS])
async def test_ollamas_tools_are_called_and_answered(kind: Any) -> None:
    replies = ({"thinking": "two sums", "tool_calls": CALLS}, {"content": "3 and 7."})
    async with OllamaServer(*replies) as server:
        agent = kind(ollama(server, kind), tools=[add]) if kind in LOOPS else kind(ollama(server, kind), [add])
        assert (await last_of(agent, "1 + 2 and 3 + 4?")).content == "3 and 7."
    offered, messages = server.bodies[0]["tools"], server.bodies[1]["messages"]
    assert "add" in [tool["function"]["name"] for tool in offered]
    asked = next(message for message in messages if message.get("tool_calls"))
    assert [call["function"]["arguments"] for call in asked["tool_calls"]] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    told = [message for message in messages if message["role"] == "tool"]
    assert [(one["tool_name"], one["content"]) for one in told] == [("add", "3"), ("add", "7")]
