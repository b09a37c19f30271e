"""Agents for actors: what they answer says where they are and what they remember."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, Sequential, StreamingAgent
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import SessionValue
from lagentlike.schema import AgentMessage
from lagentlike.tracing import JSONLTracer


def count(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
    """How many messages the model is shown, and the last of them."""
    return f"{len(messages)}: {messages[-1]['content']}"


def talker() -> Agent:
    return Agent(ScriptedLLM(count, chunk_size=2), name="talker", description="It counts.")


def traced(path: str) -> Agent:
    """An agent whose process writes what it does to a file."""
    JSONLTracer(path).attach()
    return talker()


def streamer() -> StreamingAgent:
    return StreamingAgent(ScriptedLLM(count, chunk_size=2), name="streamer")


def team() -> Sequential:
    """Agents within an agent."""
    return Sequential(("first", Agent(ScriptedLLM(count), name="first")), ("last", talker()), name="team")


class Odd(Exception):
    """An error that no pickle brings back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Worker(AsyncAgent):
    """Does what it is told; `pid`, `sleep`, `fail`, `odd`, `die`, `training`."""

    def __init__(self) -> None:
        self.turns = SessionValue(int)

    async def forward(self, message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
        self.turns[session_id] += 1
        word, *rest = str(message.content).split()
        if word == "sleep":
            await asyncio.sleep(float(rest[0]))
        if word == "fail":
            raise LookupError("there is none")
        if word == "odd":
            raise Odd(1, 2)
        if word == "die":
            os._exit(9)
        if word == "die-once":
            try:
                with open(rest[0], "x"):
                    os._exit(9)
            except FileExistsError:
                return "alive"
        if word == "training":
            return str(self.training)
        if word == "turns":
            return str(self.turns[session_id])
        return str(os.getpid())


class Slow(Agent):
    """Holds its thread for half a second."""

    def forward(self, message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
        time.sleep(0.5)
        return "slept"


class Breaking(AsyncStreamingAgent):
    """Ends its process in the middle of a stream."""

    async def forward(self, message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(0.2)
        if message.content == "die":
            os._exit(9)
        yield "one two"


def broken() -> Agent:
    raise LookupError("there is no model here")
