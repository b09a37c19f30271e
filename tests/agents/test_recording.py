"""Records read from what agents remember."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.actions import calculator
from lagentlike.agents import Agent, AIAgent, ReAct
from lagentlike.agents.recording import record_of
from lagentlike.llms import ScriptedLLM, TinyLM
from lagentlike.prompts.parsers.tool_formats import tool_format, tool_format_names
from lagentlike.records import ConversationRecord, from_openai, from_sharegpt, to_openai, to_sharegpt
from lagentlike.schema import AgentMessage, ToolCall


def test_a_tool_agent_s_record_has_its_system_prompt_calls_and_tools() -> None:
    for agent in (
        ReAct(TinyLM(), [calculator], template="You are brief."),
        AIAgent(enabled_toolsets=[], tools=[calculator], system_prompt="You are brief."),
    ):
        reply = agent("What is the result of 1 + 1?", session_id="s")
        record = record_of(agent, "s", reply, started_at=1.0)
        told = to_openai(record)
        assert [message["role"] for message in told["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
        assert told["messages"][0]["content"] == "You are brief."
        assert told["messages"][-1]["content"] == "The result of 1 + 1 is 2."
        assert told["tools"][0]["function"]["name"] == "calculator"
        assert (record.id, record.model, record.completed, record.started_at) == ("s", "tinylm", True, 1.0)
        assert record.usage.requests == 2


@pytest.mark.parametrize("name", tool_format_names())
def test_a_record_of_calls_as_text_has_tools_calls_and_the_very_text(name: str) -> None:
    form = tool_format(name, [tool.schema.openai for tool in calculator.apis().values()])
    calls = [ToolCall("calculator", {"expression": text}, id="functions.calculator:0") for text in ("6 * 7", "</x>")]
    said = [form.write(calls[:1], "Let me see."), "\n" + form.write(calls[1:]) + "\n", "It is 42."]
    agent = AIAgent(ScriptedLLM(said), enabled_toolsets=[], tools=[calculator], tool_format=name)
    reply = agent("6 * 7?")
    record = record_of(agent, 0, reply)
    back = ConversationRecord.from_line(record.to_line())
    assert back == record
    assert back.tools == agent.actions.tools()
    own = [message for message in back.messages if back.role_of(message) == "assistant"]
    assert [(message.extra_info or {}).get("text", message.content) for message in own] == said
    assert [message.content for message in own] == ["Let me see.", "", "It is 42."]
    told = to_openai(back)
    assert [message["role"] for message in told["messages"]] == [
        "system", "user", "assistant", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert told["messages"][1:] == agent.messages()[1:]
    assert to_openai(from_openai(told)) == told
    assert to_openai(from_sharegpt(to_sharegpt(back)))["messages"] == told["messages"]


class Team(Agent):
    def __init__(self) -> None:
        super().__init__()
        self.writer = Agent(ScriptedLLM(["A text.", "A better text."]), name="writer")
        self.critic = Agent(ScriptedLLM(["Too short."]), name="critic")

    def forward(self, message: AgentMessage, session_id: Any = 0) -> AgentMessage:
        for agent in (self.writer, self.critic, self.writer):
            message = agent(message, session_id=session_id)
        return message


def test_of_a_team_the_first_agent_is_told_and_the_others_are_kept_with_it() -> None:
    team = Team()
    record = record_of(team, 0, team("Write"))
    assert [record.role_of(message) for message in record.messages] == ["user", "assistant", "user", "assistant"]
    assert record.agent == "writer"
    assert [message["content"] for message in record.metadata["agents"]["critic"]] == ["A text.", "Too short."]


def test_an_agent_that_asked_no_model_has_an_empty_record() -> None:
    record = record_of(Agent(ScriptedLLM([])), "s")
    assert (record.messages, record.model, record.completed) == ([], "", True)


def test_a_run_that_was_cut_short_is_not_complete() -> None:
    agent = Agent(ScriptedLLM([]))
    record = record_of(agent, 0, AgentMessage(content="", finish_reason="max_turns"))
    assert (record.finish_reason, record.completed) == ("max_turns", False)
