"""Messages that cross an agent's border are its own, whoever edits them afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncStreamingAgent, StreamingAgent
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import AgentMessage, Completion, ToolCall


def _remembered(agent: Agent) -> list[Any]:
    return [message.content for message in agent.memory.get_memory(0)]


def test_editing_what_was_given_and_got_leaves_memory_alone() -> None:
    agent = Agent(ScriptedLLM(["answer"]))
    asked = AgentMessage(content="question", extra_info={"n": [1]})
    reply = agent(asked)
    asked.content = reply.content = "edited"
    asked.extra_info["n"].append(2)
    assert _remembered(agent) == ["question", "answer"]
    assert agent.memory.get_memory(0)[0].extra_info == {"n": [1]}


def test_editing_the_calls_of_a_reply_leaves_memory_and_model_alone() -> None:
    scripted = Completion("", tool_calls=[ToolCall("add", {"a": 1}, id="1")])
    agent = Agent(ScriptedLLM([scripted, scripted]))
    for session_id in (0, 1):
        reply = agent("add", session_id=session_id)
        assert reply.tool_calls is not None
        reply.tool_calls[0].arguments["a"] = 2  # type: ignore[index]
        kept = agent.memory.get_memory(session_id)[1]
        assert kept.tool_calls is not None
        assert kept.tool_calls[0].arguments == {"a": 1}


def test_a_text_to_an_agent_named_user_is_not_its_own() -> None:
    model = ScriptedLLM(["answer"])
    Agent(model, name="user")("question")
    assert model.requests[0].messages == [{"role": "user", "content": "question"}]


def test_a_hook_edits_the_call_and_not_the_caller() -> None:
    class Shout(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            messages[0].content = messages[0].content.upper()

    agent = Agent(ScriptedLLM(["answer"]), hooks=[Shout()])
    asked = AgentMessage(content="question")
    agent(asked)
    assert asked.content == "question"
    assert _remembered(agent) == ["QUESTION", "answer"]


def test_editing_a_part_of_a_stream_leaves_the_reply_alone() -> None:
    agent = StreamingAgent(ScriptedLLM(["one two"], chunk_size=4))
    parts = []
    for part in agent("Count"):
        parts.append(part.content)
        part.content = "edited"
    assert parts == ["one ", "one two", "one two"]
    assert _remembered(agent) == ["Count", "one two"]


class LastPartIsAll(AsyncStreamingAgent):
    async def forward(self, *message: AgentMessage, **kwargs: Any) -> AsyncIterator[AgentMessage]:
        async for part in super().forward(*message, **kwargs):
            if part.stream_state:
                yield part


async def test_editing_the_last_part_leaves_the_reply_alone_where_it_is_that_part() -> None:
    agent = LastPartIsAll(AsyncScriptedLLM(["one two"], chunk_size=4))
    async for part in agent("Count"):
        if part.stream_state:
            part.content = "edited"
    assert part.content == "one two"
    assert _remembered(agent) == ["Count", "one two"]


class Reusing(StreamingAgent):
    """Yields one message again and again."""

    def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
        part = AgentMessage(sender=self.name, content="", stream_state=1)
        for letter in "abc":
            part.content += letter
            yield part


def test_parts_of_a_forward_that_reuses_its_message_stay_apart() -> None:
    assert [part.content for part in Reusing()("go")] == ["a", "ab", "abc", "abc"]


class Keeping(Agent):
    """Keeps what it is given and what it gives."""

    def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AgentMessage:
        self.given, self.made = message[0], AgentMessage(sender=self.name, content="made")
        self.given.content = "edited inside"
        return self.made


@pytest.mark.parametrize("asked", ["question", AgentMessage(content="question")])
def test_a_forward_may_edit_what_it_is_given_and_keep_what_it_gives(asked: Any) -> None:
    agent = Keeping()
    reply = agent(asked)
    agent.made.content = "edited later"
    assert reply.content == "made"
    assert _remembered(agent) == ["question", "made"]
    assert isinstance(asked, str) or asked.content == "question"


def test_a_forward_set_on_an_object_gets_copies() -> None:
    agent = Agent(ScriptedLLM([]))
    asked = AgentMessage(content="question")

    def forward(message: AgentMessage, session_id: Any = 0) -> str:
        message.content = "edited inside"
        return "answer"

    agent.forward = forward  # type: ignore[method-assign]
    assert agent(asked).content == "answer"
    assert asked.content == "question"
    assert _remembered(agent) == ["question", "answer"]
