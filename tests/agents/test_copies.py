"""Messages that cross an agent's border are its own, whoever edits them afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.agents import Agent, AIAgent, AsyncStreamingAgent, Guardrails, ReAct, StreamingAgent
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import AgentMessage, Completion, ToolCall

CALL = Completion("", tool_calls=[ToolCall("add", {"numbers": [1, 2]}, id="1")])


def add(numbers: list[int]) -> int:
    """Add numbers."""
    return sum(numbers)


def _react(llm: Any) -> ReAct:
    return ReAct(llm, [add])


def _ai_agent(llm: Any, check: Callable[..., bool] | bool = False) -> AIAgent:
    return AIAgent(llm, enabled_toolsets=[], tools=[tool(needs_approval=check)(add)])


every_loop = pytest.mark.parametrize("make", [_react, _ai_agent])


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


@every_loop
def test_inside_a_loop_messages_go_uncopied_and_nobody_outside_has_them(make: Callable[[Any], Any]) -> None:
    agent = make(ScriptedLLM([CALL, "It is 3."]))
    asked = AgentMessage(content="Add 1 and 2", extra_info={"n": [1]})
    reply = agent(asked)
    outer, inner = agent.memory.get_memory(0), agent.agent.memory.get_memory(0)
    assert outer[0] is inner[0]
    before = [message.model_dump() for message in (*outer, *inner)]
    asked.extra_info["n"].append(2)
    reply.content = "edited"
    assert [message.model_dump() for message in (*outer, *inner)] == before
    assert outer[1].content == inner[-1].content == "It is 3."


def test_a_check_inside_a_loop_may_edit_what_it_is_given_and_got() -> None:
    other = Agent(ScriptedLLM(["fine"] * 9))

    def check(arguments: dict[str, Any]) -> bool:
        arguments["numbers"].append(99)
        other("May it?").content = "edited"
        return False

    agent = _ai_agent(ScriptedLLM([CALL, "It is 3."]), check)
    agent("Add 1 and 2")
    calls = agent.agent.memory.get_memory(0)[1].tool_calls
    assert calls[0].arguments == {"numbers": [1, 2]}
    assert _remembered(other)[:2] == ["May it?", "fine"]


def test_a_hook_inside_a_loop_edits_its_own_copies() -> None:
    class Edit(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            messages[0].content = "edited"

        def after_agent(self, agent: Any, message: Any, session_id: Any) -> None:
            message.content = "edited reply"

    agent = ReAct(ScriptedLLM(["answer"]), [add])
    agent.agent.register_hook(Edit())
    assert agent("question").content == "edited reply"
    assert _remembered(agent) == ["question", "edited reply"]
    assert _remembered(agent.agent) == ["edited", "answer"]


def test_a_guardrail_may_edit_the_content_it_is_given() -> None:
    def brief(content: list[dict[str, Any]]) -> None:
        content[0]["text"] = "edited"

    model = ScriptedLLM(["answer"])
    agent = AIAgent(model, enabled_toolsets=[], guardrails=Guardrails(input=[brief]))
    agent(AgentMessage(content=[{"type": "text", "text": "question"}]))
    assert model.requests[0].messages[-1]["content"] == [{"type": "text", "text": "edited"}]
    assert _remembered(agent)[0] == [{"type": "text", "text": "question"}]
