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
from lagentlike.errors import ServerError
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.module import AsyncModule, Module
from lagentlike.schema import AgentMessage

from ..colours import parts_of


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


class Resilient(Workflow):
    """Asks again where a model fails, with two messages at once; says nothing of what it does in between."""

    agent_class: Any = Agent
    llm_class: Any = ScriptedLLM

    def __init__(self, replies: list[Any]) -> None:
        super().__init__()
        self.caught: list[str] = []
        self.worker = self.agent_class(self.llm_class(replies, chunk_size=100), name="worker")
        self.quiet = Quiet() if not self.colour.is_async else AsyncQuiet()

    def steps(self, *message: AgentMessage, session_id: Any, **kwargs: Any) -> Steps:
        while True:
            try:
                reply = yield Call(self.worker, (message[0], AgentMessage(content="please")))
                break
            except ServerError as error:
                self.caught.append(str(error))
                yield Call(self.quiet, message[0], shown=False)
        return reply


class Quiet(Module):
    def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
        return "heard by nobody"


class AsyncQuiet(AsyncModule):
    async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
        return "heard by nobody"


class AsyncResilient(Resilient, AsyncWorkflow):
    agent_class = AsyncAgent
    llm_class = AsyncScriptedLLM


class StreamingResilient(Resilient, StreamingWorkflow):
    agent_class = StreamingAgent


class AsyncStreamingResilient(AsyncResilient, AsyncStreamingWorkflow):
    agent_class = AsyncStreamingAgent


@pytest.mark.parametrize("kind", [Resilient, AsyncResilient, StreamingResilient, AsyncStreamingResilient])
def test_a_call_s_error_is_raised_where_the_call_was_yielded(kind: Any) -> None:
    agent = kind([ServerError("down"), "up"])

    async def parts() -> list[str]:
        if agent.colour.is_streaming:
            return [part.content async for part in agent("hi")]
        return [(await agent("hi")).content]

    if agent.colour.is_async:
        said = asyncio.run(parts())
    else:
        said = [part.content for part in agent("hi")] if agent.colour.is_streaming else [agent("hi").content]
    assert agent.caught == ["down"]
    assert set(said) == {"up"}  # what is not shown is given out by no stream
    assert [message.content for message in agent.worker.memory.get()] == ["hi", "please", "up"]


def test_an_error_that_steps_lets_pass_takes_the_turn_back() -> None:
    agent = Resilient([ServerError("down"), ValueError("bad")])
    with pytest.raises(ValueError, match="bad"):
        agent("hi")
    assert (len(agent.memory.get()), len(agent.worker.memory.get())) == (0, 0)
