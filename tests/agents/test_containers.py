"""Agents in a row, in a list, in a dict."""

from __future__ import annotations

from typing import Any

import pytest

from lagentlike.agents import (
    Agent,
    AgentDict,
    AgentList,
    AsyncAgent,
    AsyncSequential,
    AsyncStreamingAgent,
    AsyncStreamingSequential,
    Sequential,
    StreamingAgent,
    StreamingSequential,
)
from lagentlike.errors import ColourError, InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.module import Module
from lagentlike.schema import AgentMessage

from ..colours import parts_of


def adding(word: str) -> Any:
    return lambda messages, params: f"{messages[-1]['content']} {word}"


def row(colour: str = "") -> Any:
    kinds: dict[str, tuple[Any, Any, Any]] = {
        "": (Sequential, Agent, ScriptedLLM),
        "async": (AsyncSequential, AsyncAgent, AsyncScriptedLLM),
        "streaming": (StreamingSequential, StreamingAgent, ScriptedLLM),
        "async streaming": (AsyncStreamingSequential, AsyncStreamingAgent, AsyncScriptedLLM),
    }
    container, agent, llm = kinds[colour]
    return container(*(agent(llm(adding(word), chunk_size=100), name=word) for word in ("a", "b", "c")))


every_colour = pytest.mark.parametrize("colour", ["", "async", "streaming", "async streaming"])


@every_colour
def test_each_gets_the_reply_of_the_one_before(colour: str) -> None:
    unit = row(colour)
    assert parts_of(unit, "x", session_id=3)[-1].content == "x a b c"
    assert {key: len(value) for key, value in unit.state_dict(3).items()} == {
        "memory": 2, "0.memory": 2, "1.memory": 2, "2.memory": 2,
    }  # fmt: skip


@every_colour
@pytest.mark.parametrize(
    ("exit_at", "content"), [(0, "x a"), (1, "x a b"), (2, "x a b c"), (4, "x a b c a\nx a b c b")]
)
def test_it_may_end_early_or_go_round(colour: str, exit_at: int, content: str) -> None:
    reply = parts_of(row(colour), "x", exit_at=exit_at)[-1].content
    assert reply == content if exit_at < 3 else reply.startswith("x a b c a")


@every_colour
@pytest.mark.parametrize("exit_at", [-1, 1.0, True, "1"])
def test_an_exit_that_is_none_is_refused(colour: str, exit_at: Any) -> None:
    with pytest.raises(InvalidArgument, match="exit_at="):
        parts_of(row(colour), "x", exit_at=exit_at)


def test_a_streaming_row_gives_out_what_each_does() -> None:
    for colour in ("streaming", "async streaming"):
        parts = parts_of(row(colour), "x")
        assert [(part.sender, part.content, int(part.stream_state)) for part in parts] == [
            ("a", "x a", 1), ("a", "x a", 1), ("b", "x a b", 1), ("b", "x a b", 1), ("c", "x a b c", 1),
            ("c", "x a b c", 0),
        ]  # fmt: skip


def test_an_empty_row_says_so() -> None:
    with pytest.raises(InvalidArgument, match="give Sequential at least one agent"):
        Sequential()("x")


def test_units_of_another_colour_are_refused_when_the_row_is_made() -> None:
    with pytest.raises(ColourError, match=r"agents\['0'\] is AsyncAgent"):
        Sequential(AsyncAgent())
    with pytest.raises(ColourError, match=r"agents\['x'\] is Agent"):
        AsyncSequential(("x", Agent()))


def test_a_row_is_indexed_sliced_named_and_counted() -> None:
    unit = Sequential({"first": Agent(name="f"), "second": Agent(name="s")})
    assert (len(unit), unit[0].name, unit[-1].name, unit["second"].name) == (2, "f", "s", "s")
    assert [child.name for child in unit] == ["f", "s"]
    tail = unit[1:]
    assert isinstance(tail, Sequential)
    assert [name for name, _ in tail.named_children()] == ["second"]
    with pytest.raises(IndexError):
        unit[5]
    with pytest.raises(InvalidArgument, match="module="):
        Sequential(5)
    with pytest.raises(InvalidArgument, match="agents='a': there are two of this name"):
        Sequential(("a", Agent()), ("a", Agent()))


def test_an_agent_of_a_row_is_replaced_in_its_place_and_added_at_its_end() -> None:
    unit = row()
    unit[1] = Agent(ScriptedLLM(adding("B")))
    unit["2"] = Agent(ScriptedLLM(adding("C")))
    assert unit.append(Agent(ScriptedLLM(adding("d")))) is unit
    assert unit("x").content == "x a B C d"
    for add in (unit.append, lambda agent: unit.__setitem__(0, agent), lambda agent: unit.add_agent("more", agent)):
        with pytest.raises(ColourError, match="is AsyncAgent"):
            add(AsyncAgent())
    assert unit("x").content == "x a B C d"
    with pytest.raises(IndexError):
        unit[9] = Agent()
    with pytest.raises(InvalidArgument, match="'1' is taken"):
        Sequential(("1", Agent())).append(Agent())


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (AsyncSequential, (Sequential, AsyncAgent)),
        (StreamingSequential, (Sequential, StreamingAgent)),
        (AsyncStreamingSequential, (AsyncSequential, AsyncStreamingAgent)),
    ],
)
def test_each_form_is_an_instance_of_the_row_and_of_its_colour(kind: type, bases: tuple[type, ...]) -> None:
    assert all(isinstance(kind(), base) for base in bases)


def test_a_list_behaves_as_one() -> None:
    units = AgentList([Agent(name="a")])
    units.append(Agent(name="c")).extend([{"type": Agent, "name": "d"}])
    units.insert(1, Agent(name="b"))
    assert [unit.name for unit in units] == ["a", "b", "c", "d"]
    assert units.pop(0).name == "a"
    del units[-1]
    units[0] = Agent(name="B")
    assert [(name, unit.name) for name, unit in units.named_children()] == [("0", "B"), ("1", "c")]
    assert (len(units), units[-1].name) == (2, "c")
    assert [unit.name for unit in units[:1]] == ["B"]
    assert units[:1][0] is units[0]
    with pytest.raises(IndexError):
        units[9] = Agent()
    with pytest.raises(InvalidArgument, match="agents="):
        AgentList(Agent())  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        units("hi")


def test_a_dict_behaves_as_one() -> None:
    units = AgentDict({"a": Agent(name="a")})
    units.update([("b", Agent(name="b"))])
    units["c"] = {"type": Agent, "name": "c"}
    assert (list(units), len(units), "a" in units, "z" in units) == (["a", "b", "c"], 3, True, False)
    assert [name for name, _ in units.items()] == list(units.keys()) == ["a", "b", "c"]
    assert [unit.name for unit in units.values()] == ["a", "b", "c"]
    assert units.pop("a").name == "a"
    del units["b"]
    with pytest.raises(KeyError):
        del units["b"]
    with pytest.raises(KeyError):
        units["b"]
    with pytest.raises(InvalidArgument, match="name="):
        units["keys"] = Agent()
    with pytest.raises(InvalidArgument, match=r"agents=Agent\(\): give a dict of units by name"):
        AgentDict([Agent()])  # type: ignore[list-item]
    units.clear()
    assert len(units) == 0


def test_lists_and_dicts_are_called_by_who_holds_them() -> None:
    class Panel(Agent):
        def __init__(self) -> None:
            self.judges = AgentList(Agent(ScriptedLLM([f"vote {n}"]), name=f"judge {n}") for n in range(3))

        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            return ", ".join(judge(message, session_id=session_id).content for judge in self.judges)

    panel = Panel()
    assert panel("?").content == "vote 0, vote 1, vote 2"
    assert isinstance(panel.judges, Module)
    assert list(panel.state_dict()) == ["memory", "judges.0.memory", "judges.1.memory", "judges.2.memory"]
