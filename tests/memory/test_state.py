"""Values by session, and the ids that sessions may have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lagentlike.agents import Agent
from lagentlike.errors import InvalidArgument, StateError
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import check_session_id, SessionValue


def test_each_session_has_its_own_value() -> None:
    notes: SessionValue[list[str]] = SessionValue(list)
    notes[0].append("a")
    notes["x"] = ["b"]
    assert (notes[0], notes["x"], notes[1]) == (["a"], ["b"], [])


def test_is_part_of_the_state_of_the_unit_that_holds_it() -> None:
    def make() -> Agent:
        agent = Agent(ScriptedLLM([]))
        agent.notes = SessionValue(dict)
        return agent

    agent = make()
    agent.notes[7]["todo"] = ["milk"]
    state = json.loads(json.dumps(agent.state_dict(7)))
    assert state == {"memory": [], "notes": {"todo": ["milk"]}}
    other = make()
    other.load_state_dict(state, 7)
    assert other.state_dict(7) == state
    other.notes[7]["todo"].append("tea")
    assert state["notes"] == {"todo": ["milk"]}
    other.reset(7)
    assert other.state_dict(7) == {"memory": [], "notes": {}}


def test_a_fork_gets_a_copy() -> None:
    notes: SessionValue[list[int]] = SessionValue(list)
    notes[0].append(1)
    notes.fork(0, 1)
    notes[1].append(2)
    assert (notes[0], notes[1]) == ([1], [1, 2])
    notes.fork("unknown", "other")
    assert notes.session_ids() == [0, 1]


def test_a_value_of_another_kind_is_refused() -> None:
    with pytest.raises(StateError, match="expected a list, got dict"):
        SessionValue(list).parse({})


def test_a_value_without_json_form_is_refused_when_it_is_written() -> None:
    notes: SessionValue[Any] = SessionValue(dict)
    notes[0]["x"] = {1, 2}
    with pytest.raises(StateError, match=r"session 0\['x'\]"):
        notes.dump(0)


def test_the_default_is_a_function() -> None:
    with pytest.raises(InvalidArgument, match="default="):
        SessionValue([])  # type: ignore[arg-type]


@pytest.mark.parametrize("session_id", [0, -1, 10**30, "", "a", "日本", (0,), ("a", (1, "b"))])
def test_ids_that_survive_json_are_taken(session_id: Any) -> None:
    assert check_session_id(session_id) == session_id


@pytest.mark.parametrize("session_id", [None, True, 1.0, b"a", (), ("a", 1.5), [1], frozenset(), "all", object()])
def test_other_ids_are_refused_with_a_cure(session_id: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"choose another id|give an int, a text, or a tuple"):
        check_session_id(session_id)
