"""A fork begins where another session is, over the whole tree, and costs the same however long that is."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.agents import Agent, Sequential
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import SessionValue


def talkers() -> Sequential:
    def answer(messages: Any, params: Any) -> str:
        return " / ".join(message["content"] for message in messages)

    unit = Sequential(Agent(ScriptedLLM(answer), name="a"), Agent(ScriptedLLM(lambda messages, params: "b"), name="b"))
    unit.notes = SessionValue(list)
    return unit


def test_a_fork_has_the_past_of_every_unit() -> None:
    unit = talkers()
    unit("hi", session_id="main")
    unit.notes["main"].append("note")
    unit.fork("main", "branch")
    assert unit.state_dict("branch") == unit.state_dict("main")


def test_forks_go_their_own_ways_in_every_unit() -> None:
    unit = talkers()
    unit("hi", session_id="main")
    unit.fork("main", "branch")
    unit("left", session_id="main")
    unit("right", session_id="branch")
    unit.notes["branch"].append("note")
    for session_id, word in (("main", "left"), ("branch", "right")):
        assert [m["content"] for m in unit.state_dict(session_id)["memory"]] == ["hi", "b", word, "b"]
    assert unit.state_dict("main")["notes"] == []


def test_a_model_is_asked_with_the_past_of_its_own_branch() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "r"))
    agent("first")
    for number in range(3):
        agent.fork(0, f"fork {number}")
    agent("to the first")  # what the first branch is told is rendered before the others are asked
    for number in (2, 0, 1):
        agent(f"to {number}", session_id=f"fork {number}")
        asked = [message["content"] for message in agent.llm.requests[-1].messages]
        assert asked == ["first", "r", f"to {number}"]


def test_a_fork_of_a_fork_and_a_fork_after_a_failed_turn() -> None:
    llm = ScriptedLLM(["r1", LookupError("no"), "r2", "r3", "r4"])
    agent = Agent(llm)
    agent("first")
    agent.fork(0, 1)
    with pytest.raises(LookupError):
        agent("fails")
    agent.fork(1, 2)
    agent("a", session_id=0)
    agent("b", session_id=1)
    agent("c", session_id=2)
    asked = [[m["content"] for m in request.messages] for request in llm.requests[2:]]
    assert asked == [["first", "r1", word] for word in "abc"]


def test_messages_of_the_past_are_shared() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "r"))
    for turn in range(100):
        agent(str(turn))
    for number in range(1000):
        agent.fork(0, f"fork {number}")
    agent("on", session_id="fork 7")
    assert agent.memory.get("fork 7")[0] is agent.memory.get(0)[0]
    assert len(agent.memory.get("fork 7")) == 202
    assert len(agent.memory.get(0)) == 200


def test_a_fork_keeps_how_its_memory_was_made() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "r"), memory={"type": "lagentlike.memory.Memory", "recent_n": 1})
    agent("a")
    agent.fork(0, 1)
    agent("b", session_id=1)
    assert [m["content"] for m in agent.llm.requests[-1].messages] == ["b"]


def test_forking_what_is_not_there_or_onto_what_is_says_so() -> None:
    unit = talkers()
    unit("hi", session_id="main")
    unit("hi", session_id="other")
    with pytest.raises(InvalidArgument, match=r"session_id='gone'.*sessions are \['main', 'other'\]"):
        unit.fork("gone", "new")
    with pytest.raises(InvalidArgument, match=r"new_session_id='other'.*reset it first"):
        unit.fork("main", "other")
    with pytest.raises(InvalidArgument, match="session_id="):
        unit.fork("main", None)
