"""Trajectories read from memory, for any composition and colour."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncReAct, ReAct, Sequential, StreamingReAct
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncTinyLM, ScriptedLLM, TinyLM
from lagentlike.memory import Memory
from lagentlike.schema import ToolCall
from lagentlike.tools import calculator

QUESTION = "What is the result of 1 + 1?"


def test_a_tool_session_is_one_segment_with_both_answers() -> None:
    agent = ReAct(TinyLM(), actions=[calculator]).train()
    agent(QUESTION)
    [trajectory] = agent.trajectories()
    [segment] = trajectory.segments
    assert trajectory.agent == "agent"
    assert [turn.message for turn in segment.turns] == [1, 3]
    assert trajectory.counts.extended == 1
    assert [tool["function"]["name"] for tool in trajectory.tools] == ["calculator"]
    assert trajectory.usage.requests == 2
    assert trajectory.finish_reason == "no_tool_calls"
    engine = TinyLM().engine
    assert [engine.decode(segment.ids[turn.start : turn.stop]) for turn in segment.turns] == [
        trajectory.messages[index]["content"][0]["text"] for index in (1, 3)
    ]


def test_each_agent_of_a_workflow_has_its_own() -> None:
    writer = Agent(TinyLM(), "You are a writer.", name="writer")
    critic = Agent(TinyLM(), "Critique the text you are given.", name="critic")
    team = Sequential(writer, critic).train()
    team("Write about tea.", session_id="a")
    team("Write about rain.", session_id="b")
    assert [(item.session_id, item.agent) for item in team.trajectories("all")] == [
        ("a", "0"),
        ("a", "1"),
        ("b", "0"),
        ("b", "1"),
    ]
    [first, second] = team.trajectories("a")
    assert first.messages[0] == {"role": "system", "content": [{"type": "text", "text": "You are a writer."}]}
    assert second.messages[1]["content"] == first.messages[-1]["content"]


def test_a_fork_has_its_past_and_its_own_future() -> None:
    agent = Agent(TinyLM()).train()
    agent("Hello", session_id="a")
    agent.fork("a", "b")
    agent("Who are you?", session_id="b")
    [first], [second] = agent.trajectories("a"), agent.trajectories("b")
    assert (first.counts.turns, second.counts.turns) == (1, 2)
    assert second.segments[0].ids[: len(first.segments[0])] == first.segments[0].ids


async def test_async_and_streaming_agents_have_them_too() -> None:
    agent = AsyncReAct(AsyncTinyLM(), actions=[calculator]).train()
    await agent(QUESTION)
    streaming = StreamingReAct(TinyLM(), actions=[calculator]).train()
    for _ in streaming(QUESTION):
        continue
    [one], [other] = agent.trajectories(), streaming.trajectories()
    assert one.segments == other.segments


def test_without_train_mode_the_ids_are_counted_as_missing() -> None:
    agent = Agent(TinyLM())
    agent("Hello")
    [trajectory] = agent.trajectories()
    assert (trajectory.segments, trajectory.counts.missing) == ([], 1)


def test_the_reason_tells_what_the_last_answer_was() -> None:
    call = ToolCall("calculator", {"expression": "1 + 1"}, id="a")
    agent = ReAct(ScriptedLLM([call, call, "enough"]), actions=[calculator], max_turn=2)
    agent("count")
    [trajectory] = agent.trajectories()
    assert trajectory.final_response == "enough"
    assert trajectory.finish_reason == "no_tool_calls"


@pytest.mark.parametrize("session_id", [[1], {"a": 1}, 1.5])
def test_what_is_no_session_is_refused(session_id: Any) -> None:
    with pytest.raises(InvalidArgument, match="session_id"):
        Agent(TinyLM()).trajectories(session_id)


def test_a_memory_that_shows_its_last_messages_alone_keeps_each_answer_at_its_place() -> None:
    agent = Agent(TinyLM(), memory={"type": Memory, "recent_n": 3}).train()
    for text in ("Hello", "Who are you?", "Thanks"):
        agent(text)
    [trajectory] = agent.trajectories()
    spoken = [message["content"][0]["text"] for message in trajectory.messages if message["role"] == "assistant"]
    assert spoken[-1] == "You are welcome!"
    last = trajectory.segments[-1]
    assert TinyLM().detokenize(last.ids[last.turns[-1].start : last.turns[-1].stop]) == spoken[-1]
    assert trajectory.messages[last.turns[-1].message]["content"][0]["text"] == spoken[-1]


def test_a_session_that_never_spoke_has_none() -> None:
    assert Agent(TinyLM()).trajectories("nobody") == []
