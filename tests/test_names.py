"""A subclass that takes a name which a unit keeps for itself is told so, instead of breaking it."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, BaseAction, tool
from lagentlike.agents import Agent, AsyncStreamingAgent, ReAct, Sequential
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.module import Module
from lagentlike.schema import AgentMessage, ToolCall


@pytest.mark.parametrize(
    ("base", "name", "owner"),
    [
        (Module, "_as_reply", "Module"),
        (Module, "_children", "Module"),
        (Agent, "_states", "Module"),
        (Agent, "_open_memory", "Agent"),
        (Agent, "_prompt", "Agent"),
        (AsyncStreamingAgent, "_model", "Agent"),
        (Sequential, "_route", "Sequential"),
        (ReAct, "_filled", "ReAct"),
        (ActionExecutor, "_calls_of", "ActionExecutor"),
        (BaseAction, "_text", "BaseAction"),
    ],
)
def test_a_private_name_of_a_base_is_refused_in_a_class_and_on_an_object(base: Any, name: str, owner: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"Mine\.{name}=.*{owner} keeps this name for itself: choose another"):
        type("Mine", (base,), {name: lambda self: None})
    with pytest.raises(InvalidArgument, match=f"{name}=None"):
        type("Mine", (base,), {"__annotations__": {name: "list[str]"}})
    mine = type("Mine", (base,), {})
    with pytest.raises(InvalidArgument, match=rf"Mine\.{name}=\['x'\]"):
        setattr(mine.__new__(mine), name, ["x"])


def test_an_object_of_the_class_itself_is_guarded_too() -> None:
    agent = Agent(ScriptedLLM(["hello"]))
    with pytest.raises(InvalidArgument, match="_prompt"):
        agent._prompt = "Be brief."  # type: ignore[assignment,method-assign]
    assert agent("hi").content == "hello"


def test_names_that_nobody_else_has_are_free_and_need_not_be_kept_from_subclasses_of_ones_own() -> None:
    class Planner(Agent):
        _plan: list[str]

        def __init__(self) -> None:
            super().__init__(ScriptedLLM(["hello"]))
            self._plan = ["first"]
            self._register = self._steps = 3
            self.__hidden = True

        def _next(self) -> str:
            return self._plan[0]

    class Better(Planner):
        def _next(self) -> str:
            return "better " + super()._next()

    planner = Better()
    assert planner._next() == "better first"
    assert planner("hi").content == "hello"
    planner.load_state_dict(planner.state_dict())
    planner.register_forward_hook(lambda unit, messages, reply: None)


def test_what_an_executor_knows_of_its_tools_cannot_be_hidden() -> None:
    @tool
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    class Mine(ActionExecutor):
        def __init__(self) -> None:
            super().__init__([double])
            self._tools = self._routes = self._answers = None

    message = AgentMessage(content="", tool_calls=[ToolCall("double", {"number": 2})])
    assert Mine()(message).content == "4"
    assert len(Mine().tools()) == 1


@pytest.mark.parametrize(("name", "value"), [("calls", []), ("name", 5), ("training", None)])
def test_an_attribute_that_turns_count_on_keeps_its_kind(name: str, value: Any) -> None:
    agent = Agent(ScriptedLLM(["hello"]))
    with pytest.raises(InvalidArgument, match=rf"Agent\.{name}=.*choose another one"):
        setattr(agent, name, value)
    assert agent("hi").content == "hello"


def test_a_class_may_say_what_its_units_are_called() -> None:
    class Writer(Agent):
        name = "writer"

    assert Writer(ScriptedLLM(["a draft"]))("Write.").sender == "writer"
    assert Writer(ScriptedLLM(["a draft"]), name="ann")("Write.").sender == "ann"
