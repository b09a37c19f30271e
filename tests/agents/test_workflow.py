"""A workflow is written once and runs in all four colours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncStreamingAgent,
    AsyncStreamingWorkflow,
    AsyncWorkflow,
    StreamingAgent,
    StreamingWorkflow,
    Workflow,
)
from lagentlike.agents.workflow import Call, Steps
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import AgentMessage


class Review(Workflow):
    """A writer and a critic, until the critic is content."""

    agent_class: Any = Agent
    llm_class: Any = ScriptedLLM

    def __init__(self, drafts: list[Any], verdicts: list[Any]) -> None:
        super().__init__()
        self.closed: list[bool] = []
        self.writer = self.agent_class(self.llm_class(drafts, chunk_size=100), name="writer")
        self.critic = self.agent_class(self.llm_class(verdicts, chunk_size=100), name="critic")

    def steps(self, *message: AgentMessage, session_id: Any, **kwargs: Any) -> Steps:
        try:
            draft = yield Call(self.writer, message[0], kwargs)
            while (verdict := (yield Call(self.critic, draft))).content != "good":
                draft = yield Call(self.writer, verdict)
            return draft
        finally:
            self.closed.append(True)


class AsyncReview(Review, AsyncWorkflow):
    agent_class = AsyncAgent
    llm_class = AsyncScriptedLLM


class StreamingReview(Review, StreamingWorkflow):
    agent_class = StreamingAgent


class AsyncStreamingReview(AsyncReview, AsyncStreamingWorkflow):
    agent_class = AsyncStreamingAgent


class MixedReview(Review, StreamingWorkflow):
    """A streaming workflow may call units that do not stream."""


every_colour = pytest.mark.parametrize(
    "kind", [Review, AsyncReview, StreamingReview, AsyncStreamingReview, MixedReview]
)


def parts_of(agent: Any, *args: Any, **kwargs: Any) -> list[AgentMessage]:
    async def gather() -> list[AgentMessage]:
        if agent.colour.is_streaming:
            return [part async for part in agent(*args, **kwargs)]
        return [await agent(*args, **kwargs)]

    if agent.colour.is_async:
        return asyncio.run(gather())
    return list(agent(*args, **kwargs)) if agent.colour.is_streaming else [agent(*args, **kwargs)]


@every_colour
def test_calls_are_made_in_order_until_it_returns(kind: Any) -> None:
    agent = kind(["one", "two"], ["bad", "good"])
    parts = parts_of(agent, "write", session_id=5, temperature=0.5)
    assert agent.writer.llm.requests[0].params["temperature"] == 0.5
    assert [m.content for m in agent.writer.memory.get(5)] == ["write", "one", "bad", "two"]
    assert [m.content for m in agent.critic.memory.get(5)] == ["one", "bad", "two", "good"]
    assert agent.closed == [True]
    assert parts[-1].stream_state == 0
    if not kind.colour.is_streaming:
        assert parts[-1].content == "two"


@every_colour
def test_the_reply_is_what_steps_returns(kind: Any) -> None:
    agent = kind(["one"], ["good"])
    reply = parts_of(agent, "write")[-1]
    assert (reply.sender, reply.content) == ("writer", "one")
    assert [m.content for m in agent.memory.get(0)] == ["write", "one"]


@every_colour
def test_a_failure_closes_the_steps_and_takes_all_back(kind: Any) -> None:
    agent = kind(["one"], [LookupError("ill")])
    with pytest.raises(LookupError):
        parts_of(agent, "write")
    assert agent.closed == [True]
    assert agent.session_ids() == []


@pytest.mark.parametrize("kind", [Workflow, AsyncWorkflow, StreamingWorkflow, AsyncStreamingWorkflow])
def test_without_steps_it_says_so(kind: Any) -> None:
    with pytest.raises(NotImplementedError, match="must define steps"):
        parts_of(kind(), "hi")
