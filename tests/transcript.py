"""One agent in four colours, and one conversation with it."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing
from typing import Any

from lagentlike.agents import AsyncReAct, ReAct
from lagentlike.agents.react import AsyncStreamingReAct, StreamingReAct
from lagentlike.llms import AsyncTinyLM, TinyLM
from lagentlike.tools import calculator

QUESTIONS = ["My name is Ann.", "What is the result of 12 * 34?", "What is my name?", "Thank you"]
SESSION = 7
KINDS: tuple[type[ReAct], ...] = (ReAct, AsyncReAct, StreamingReAct, AsyncStreamingReAct)

Transcript = tuple[list[str], dict[str, Any]]
"""The replies, and what is remembered then."""


def define(kind: type[ReAct] = AsyncStreamingReAct) -> ReAct:
    """The agent, in one of its colours; its units are named alike in all."""
    model = AsyncTinyLM(temperature=0) if kind.colour.is_async else TinyLM(temperature=0)
    agent = kind(model, actions=[calculator], name="assistant")
    agent.agent.name, agent.actions.name = "model", "tools"
    return agent


async def talk(agent: Any) -> Transcript:
    """The conversation with an agent of any colour."""
    replies = []
    for question in QUESTIONS:
        reply: Any = None
        if agent.colour.is_async and agent.colour.is_streaming:
            async for message in agent(question, session_id=SESSION):
                reply = message
        elif agent.colour.is_async:
            reply = await agent(question, session_id=SESSION)
        elif agent.colour.is_streaming:
            with closing(agent(question, session_id=SESSION)) as stream:
                *_, reply = await asyncio.to_thread(list, stream)
        else:
            reply = await asyncio.to_thread(agent, question, session_id=SESSION)
        replies.append(reply.content)
    return replies, await asyncio.to_thread(agent.state_dict, SESSION)


def without_call_ids(state: dict[str, Any]) -> Any:
    """A state without the ids of tool calls, which are drawn."""
    return json.loads(re.sub(r"call_\w+", "call", json.dumps(state)))
