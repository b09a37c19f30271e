"""What a model is shown of a conversation that is too long for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lagentlike.agents import Agent
from lagentlike.aggregators import BudgetAggregator
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import Memory
from lagentlike.schema import AgentMessage, ChatMessage, ToolCall, ToolResult


def bot(content: str, **fields: Any) -> AgentMessage:
    return AgentMessage(sender="bot", content=content, **fields)


def by_length(message: AgentMessage) -> int:
    return len(message.content)


def a_long_talk() -> list[AgentMessage]:
    """Thirty rounds; every third has a tool call."""
    messages: list[AgentMessage] = []
    for number in range(30):
        messages.append(AgentMessage(content=f"question {number}"))
        if number % 3 == 0:
            messages.append(bot("", tool_calls=[ToolCall("look", {"at": number}, id=f"c{number}")]))
            result = ToolResult(True, f"seen {number}", id=f"c{number}", name="look")
            messages.append(AgentMessage(sender="tools", content="", tool_results=[result]))
        messages.append(bot(f"answer {number}"))
    return messages


def test_a_conversation_that_fits_is_shown_whole() -> None:
    memory = Memory()
    memory.add(["one", bot("two"), "three"])
    shown = BudgetAggregator(max_tokens=1000, max_messages=3).aggregate(memory, "bot")
    assert [message["content"] for message in shown] == ["one", "two", "three"]


@pytest.mark.parametrize("options", [{"max_messages": 7}, {"max_tokens": 40, "count": by_length}, {"max_tokens": 60}])
def test_what_is_shown_fits_and_results_go_with_their_calls(options: dict[str, Any]) -> None:
    aggregator, memory = BudgetAggregator(**options), Memory()
    for message in a_long_talk():
        memory.append(message)
        shown = aggregator.aggregate(memory, "bot")
        called = {call["id"] for item in shown for call in item.get("tool_calls", ())}
        assert {item["tool_call_id"] for item in shown if item["role"] == "tool"} <= called
        assert shown[0]["role"] == "user"
        assert len(shown) <= options.get("max_messages", 100) + 1
    assert shown[0]["content"].startswith("(Earlier messages are left out here. The first request was: question 0)")
    assert shown[-1]["content"] == "answer 29"


def test_the_cuts_are_the_same_whenever_it_looks() -> None:
    step_by_step, at_once = Memory(), Memory()
    aggregator = BudgetAggregator(max_tokens=80)
    for message in a_long_talk():
        step_by_step.append(message)
        shown = aggregator.aggregate(step_by_step, "bot")
        at_once = Memory()
        at_once.add(list(step_by_step))
        assert BudgetAggregator(max_tokens=80).aggregate(at_once, "bot") == shown


def test_between_cuts_messages_are_rendered_once() -> None:
    rendered: list[str] = []

    class Watching(BudgetAggregator):
        def render(self, message: AgentMessage, name: str, parser: Any) -> list[dict[str, Any]]:
            rendered.append(message.content)
            return super().render(message, name, parser)

    agent = Agent(ScriptedLLM(lambda messages, params: "yes"), aggregator=Watching(max_messages=100))
    for number in range(500):
        agent(str(number))
    assert len(rendered) < 2 * 1000  # a window that slides would have rendered 50,000


def test_a_summary_stands_for_what_was_left_out_and_goes_into_the_next() -> None:
    asked: list[list[str]] = []

    def summarize(messages: Sequence[AgentMessage]) -> str:
        asked.append([message.content for message in messages])
        return f"summary {len(asked)}"

    llm = ScriptedLLM(lambda messages, params: "yes")
    agent = Agent(llm, aggregator=BudgetAggregator(max_messages=4, summarize=summarize))
    for number in range(5):
        agent(str(number))
    assert asked == [["0", "yes", "1"], ["summary 1", "yes", "2", "yes"]]
    assert llm.requests[-1].messages[0]["content"].startswith("summary 2")
    assert len(agent.memory.get(0)) == 10  # type: ignore[union-attr]


def test_a_turn_taken_back_takes_its_cut_back() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "yes"), aggregator=BudgetAggregator(max_messages=4))
    agent("0")
    agent("1")
    before = agent.aggregator.aggregate(agent.memory.get(0), agent.name)  # type: ignore[union-attr]

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    handle = agent.register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        agent("2")
    handle.remove()
    assert agent.aggregator.aggregate(agent.memory.get(0), agent.name) == before  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{}, {"max_tokens": 0}, {"max_messages": True}, {"max_messages": 3, "keep": 1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        BudgetAggregator(**options)


def test_edits_of_what_was_shown_hold_for_one_request() -> None:
    memory = Memory()
    memory.add([f"m{number}" for number in range(3)] + [bot("x")])
    aggregator = BudgetAggregator(max_messages=10)
    shown = aggregator.aggregate(memory, "bot")
    assert isinstance(shown[0], ChatMessage)
    shown[0]["content"] = "edited"
    assert aggregator.aggregate(memory, "bot")[0]["content"] == "m0\nm1\nm2"
