"""What a type checker sees of calls; checked by `test_typing.py`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncSequential,
    AsyncStreamingAgent,
    AsyncStreamingSequential,
    Sequential,
    StreamingAgent,
    StreamingSequential,
)
from lagentlike.hooks import Hook, RemovableHandle
from lagentlike.memory import Memory
from lagentlike.module import IncompatibleKeys, Module
from lagentlike.schema import AgentMessage


class Coder(Agent):
    """A blocking agent as the tutorial writes it."""

    def __init__(self, max_turn: int = 3) -> None:
        self.agent = Agent()
        self.max_turn = max_turn

    def forward(self, message: AgentMessage, session_id: int = 0) -> AgentMessage:
        for _ in range(self.max_turn):
            message = self.agent(message, session_id=session_id)
        return message


class Blogger(AsyncAgent):
    """An async agent as the tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = AsyncAgent(name="writer")

    async def forward(self, message: AgentMessage, session_id: int = 0) -> AgentMessage:
        return await self.writer(message, session_id=session_id)


class Counting(StreamingAgent):
    """A streaming agent."""

    def forward(self, message: AgentMessage, session_id: int = 0) -> Iterator[str]:
        yield "1"


class AsyncCounting(AsyncStreamingAgent):
    """An async streaming agent."""

    async def forward(self, message: AgentMessage, session_id: int = 0) -> AsyncIterator[str]:
        yield "1"


class Prefix(Hook):
    """A hook."""

    def before_agent(self, agent: Any, messages: tuple[AgentMessage, ...], session_id: Any) -> None:
        for message in messages:
            message.content = f"> {message.content}"


def blocking() -> None:
    assert_type(Agent()("hi"), AgentMessage)
    assert_type(Agent()(AgentMessage(content="hi"), "more", session_id=("a", 1), temperature=0.5), AgentMessage)
    assert_type(Coder()("hi"), AgentMessage)
    assert_type(Sequential(Agent())("hi"), AgentMessage)
    assert_type(Coder().agent("hi"), AgentMessage)
    assert_type(Agent().map(["hi"], session_ids=[0], progress=True), list[AgentMessage | Exception])


async def awaited() -> None:
    assert_type(await AsyncAgent()("hi"), AgentMessage)
    assert_type(await Blogger()("hi", session_id=1), AgentMessage)
    assert_type(await AsyncSequential(AsyncAgent())("hi"), AgentMessage)
    assert_type(await Blogger().map(["hi"]), list[AgentMessage | Exception])


def streaming() -> None:
    assert_type(StreamingAgent()("hi"), Iterator[AgentMessage])
    assert_type(Counting()("hi"), Iterator[AgentMessage])
    for part in StreamingSequential(StreamingAgent())("hi"):
        assert_type(part, AgentMessage)


async def async_streaming() -> None:
    assert_type(AsyncStreamingAgent()("hi"), AsyncIterator[AgentMessage])
    assert_type(AsyncCounting()("hi"), AsyncIterator[AgentMessage])
    async for part in AsyncStreamingSequential(AsyncStreamingAgent())("hi"):
        assert_type(part, AgentMessage)


def the_tree(agent: Agent) -> None:
    assert_type(agent.state_dict(), dict[str, Any])
    assert_type(agent.load_state_dict({}), IncompatibleKeys)
    assert_type(agent.get_submodule("a.b"), Module)
    assert_type(next(agent.named_agents()), tuple[str, Agent])
    assert_type(next(agent.named_modules()), tuple[str, Module])
    assert_type(agent.register_hook(Prefix()), RemovableHandle)
    assert_type(agent.train(), Agent)
    assert_type(Coder().eval().max_turn, int)
    assert agent.memory is not None
    assert_type(agent.memory.get(0), Memory)
    assert_type(agent.memory.get(0).get_memory(), list[AgentMessage])


def mistakes() -> None:
    Agent()(5)  # type: ignore[arg-type]
    AsyncAgent()("hi").content  # type: ignore[attr-defined]  # noqa: B018  # it was not awaited
    StreamingAgent()("hi").content  # type: ignore[attr-defined]  # noqa: B018  # it is a stream
    Agent(nmae="x")  # type: ignore[call-arg]
