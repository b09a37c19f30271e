"""The tree: units are in it by assignment, whatever way they are assigned, and can be looked at and reached."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import pytest

from lagentlike.agents import (
    Agent,
    AgentDict,
    AgentList,
    AsyncAgent,
    AsyncStreamingAgent,
    Sequential,
    StreamingAgent,
)
from lagentlike.aggregators import DefaultAggregator
from lagentlike.errors import ColourError, InvalidArgument
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.memory import SessionValue
from lagentlike.module import AsyncModule, Module
from lagentlike.prompts import StrParser, ToolParser
from lagentlike.schema import AgentMessage, Completion, Usage


class Leaf(Module):
    """A unit without memory."""

    def forward(self, *message: AgentMessage, session_id: Any = 0) -> str:
        return "leaf"


class Tree(Agent):
    """Two levels, with one unit in two places."""

    def __init__(self) -> None:
        super().__init__(name="tree")
        self.left = Agent(name="left")
        self.right = Sequential(Agent(name="a"), Agent(name="b"))
        self.also_left = self.left


# Attributes


@pytest.mark.parametrize("calls_super", ["first", "last", "never"])
def test_units_are_registered_by_assignment_with_or_without_super_init(calls_super: str) -> None:
    class Unit(Agent):
        def __init__(self) -> None:
            if calls_super == "first":
                super().__init__()
            self.child = Leaf()
            self.notes = SessionValue(list)
            self.number = 5
            if calls_super == "last":
                super().__init__()

    unit = Unit()
    assert dict(unit.named_children()) == {"child": unit.child}
    assert list(unit.state_dict()) == ["memory", "notes"]


def test_assigning_something_else_takes_a_unit_out() -> None:
    unit = Tree()
    for value in (None, 5, "text"):
        unit.left = Leaf()
        assert "left" in dict(unit.named_children())
        unit.left = value
        assert "left" not in dict(unit.named_children())
        assert unit.left == value


def test_assigning_another_unit_keeps_its_place() -> None:
    unit = Tree()
    unit.left = other = Leaf()
    assert [name for name, _ in unit.named_children()] == ["left", "right", "also_left"]
    assert unit.left is other


def test_a_memory_may_take_a_units_place_and_the_other_way_round() -> None:
    unit = Agent()
    unit.thing = Leaf()
    unit.thing = SessionValue(list)
    assert (list(unit.children()), list(unit.state_dict())) == ([], ["memory", "thing"])
    unit.thing = Leaf()
    assert (len(list(unit.children())), list(unit.state_dict())) == (1, ["memory"])


def test_deleting_takes_a_unit_out() -> None:
    unit = Tree()
    del unit.left
    assert "left" not in dict(unit.named_children())
    with pytest.raises(AttributeError):
        del unit.left
    del unit.memory
    assert "memory" not in unit.state_dict()


def test_an_assignment_that_fails_registers_nothing() -> None:
    class Fixed(Agent):
        @property
        def fixed(self) -> int:
            return 1

    unit = Fixed()
    with pytest.raises(AttributeError):
        unit.fixed = Leaf()  # type: ignore[misc]
    assert list(unit.children()) == []


def test_units_in_plain_lists_are_not_in_the_tree() -> None:
    unit = Agent()
    unit.hidden = [Leaf()]
    unit.shown = AgentList([Leaf()])
    assert [path for path, _ in unit.named_modules()] == ["", "shown", "shown.0"]


# add_module


def test_add_module_is_assignment_by_name() -> None:
    unit = Agent()
    unit.add_module("child", Leaf())
    unit.add_agent("made", {"type": Agent, "name": "m"})
    assert isinstance(unit.child, Leaf)
    assert unit.made.name == "m"
    unit.add_module("child", None)
    assert unit.child is None
    assert [name for name, _ in unit.named_children()] == ["made"]


@pytest.mark.parametrize("name", ["", "a.b", 5, None, "forward", "memory", "llm"])
def test_add_module_refuses_a_name_that_cannot_be_one(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="name="):
        Agent().add_module(name, Leaf())


@pytest.mark.parametrize("module", [5, "agent", Leaf, {"type": dict}])
def test_add_module_refuses_what_is_no_unit(module: Any) -> None:
    with pytest.raises(InvalidArgument, match="module="):
        Agent().add_module("child", module)


# Walking the tree


def test_walks_give_each_unit_once_with_its_first_path() -> None:
    unit = Tree()
    assert [path for path, _ in unit.named_modules()] == ["", "left", "right", "right.0", "right.1"]
    assert list(unit.modules()) == [unit, unit.left, unit.right, unit.right[0], unit.right[1]]
    assert list(unit.children()) == [unit.left, unit.right]
    assert [name for name, _ in unit.named_children()] == ["left", "right"]
    everywhere = [path for path, _ in unit.named_modules(prefix="root", remove_duplicate=False)]
    assert everywhere == ["root", "root.left", "root.right", "root.right.0", "root.right.1", "root.also_left"]


def test_agents_are_the_children_that_are_agents() -> None:
    unit = Tree()
    unit.leaf = Leaf()
    assert dict(unit.named_agents()) == {"left": unit.left, "right": unit.right}
    assert list(unit.agents()) == [unit.left, unit.right]


def test_a_unit_is_found_by_its_path() -> None:
    unit = Tree()
    assert unit.get_submodule("") is unit
    assert unit.get_submodule("right.1").name == "b"
    with pytest.raises(AttributeError, match=r"'right.2'.*Sequential has no child '2'; its children are \['0', '1'\]"):
        unit.get_submodule("right.2")
    with pytest.raises(AttributeError, match="has no child 'name'"):
        unit.get_submodule("name")


def test_apply_goes_through_children_first_and_each_once() -> None:
    unit, seen = Tree(), []
    assert unit.apply(lambda module: seen.append(module.name)) is unit
    assert seen == ["left", "a", "b", "Sequential", "tree"]


def test_apply_calls_a_unit_shared_by_two_branches_once() -> None:
    shared = Leaf()
    unit = AgentList([AgentList([shared]), AgentList([shared])])
    seen: list[Module] = []
    unit.apply(seen.append)
    assert seen.count(shared) == 1
    assert seen[-1] is unit


def test_a_shared_unit_is_in_the_state_once() -> None:
    unit = Tree()
    assert list(unit.state_dict()) == ["memory", "left.memory", "right.memory", "right.0.memory", "right.1.memory"]


# Training


def test_training_asks_models_for_log_probabilities() -> None:
    unit = Tree()
    unit.left.llm = ScriptedLLM(["a", "b", "c"])
    assert not unit.training
    assert unit.train() is unit
    assert all(module.training for module in unit.modules())
    unit.left("hi")
    unit.left("hi", logprobs=False)
    assert unit.eval() is unit
    unit.left("hi")
    assert [request.params.get("logprobs") for request in unit.left.llm.requests] == [True, False, None]
    with pytest.raises(InvalidArgument, match="mode="):
        unit.train("yes")  # type: ignore[arg-type]


# Looking at it


def test_repr_shows_the_tree() -> None:
    unit = Tree()
    unit.left.llm = ScriptedLLM([])
    unit.left.output_format = ToolParser("code")
    assert repr(unit) == (
        "Tree(\n"
        "  name='tree'\n"
        "  (left): Agent(name='left', llm=ScriptedLLM('scripted'), output_format=ToolParser('code'))\n"
        "  (right): Sequential(\n"
        "    (0): Agent(name='a')\n"
        "    (1): Agent(name='b')\n"
        "  )\n"
        "  (also_left): Agent(name='left', llm=ScriptedLLM('scripted'), output_format=ToolParser('code'))\n"
        ")"
    )
    assert repr(Leaf()) == "Leaf()"
    assert repr(AgentDict({"x": Leaf()})) == "AgentDict(\n  (x): Leaf()\n)"


def test_summary_tells_units_sessions_and_usage_without_asking_a_model() -> None:
    llm = ScriptedLLM(lambda messages, params: Completion("r", usage=Usage(1, 10, 5)))
    unit = Sequential(Agent(llm, name="first"), Agent(llm, name="second"))
    unit("hi", session_id="s")
    unit("hi", session_id=7)
    asked = llm.answered
    summary = unit.summary()
    assert llm.answered == asked
    assert [(row["path"], row["unit"], row["model"], row["calls"]) for row in summary.rows] == [
        ("", "Sequential", "", 2), ("0", "Agent", "scripted", 2), ("1", "Agent", "scripted", 2),
    ]  # fmt: skip
    assert summary.sessions == [
        {"session_id": "s", "messages": 6, "usage": Usage(2, 20, 10)},
        {"session_id": 7, "messages": 6, "usage": Usage(2, 20, 10)},
    ]
    assert summary.usage == Usage(4, 40, 20)
    lines = str(summary).splitlines()
    assert lines[0].split() == ["unit", "class", "model", "tools", "calls", "tokens"]
    assert lines[2].split() == ["(root)", "Sequential", "2"]
    assert lines[3].split() == ["0", "Agent", "scripted", "2", "30"]
    assert lines[-1].split() == ["7", "6", "2", "20", "10"]


def test_summary_shows_the_tools_of_an_executor() -> None:
    from lagentlike.actions import ActionExecutor, calculator

    unit = Agent()
    unit.executor = ActionExecutor([calculator])
    rows = {row["path"]: row for row in unit.summary().rows}
    assert rows["executor"]["tools"] == ["calculator"]
    assert "executor.calculator" in rows


def test_the_mermaid_picture_has_each_unit_once_and_survives_any_name() -> None:
    unit = Tree()
    unit.left.llm = ScriptedLLM([], path='a "b" <c>')
    picture = unit.to_mermaid().splitlines()
    assert picture[0] == "flowchart TD"
    assert sum("<i>" in line for line in picture) == 5
    assert sum("-->" in line for line in picture) == 4
    assert '  n1["left<br/><i>Agent</i><br/>a &quot;b&quot; &lt;c&gt;"]' in picture


def test_units_can_be_copied_whole() -> None:
    unit = Tree()
    unit.memory.add("hi")
    unit.left.register_hook(Hook())
    twin = copy.deepcopy(unit)
    twin.memory.add("more")
    assert (len(unit.memory.get(0)), len(twin.memory.get(0))) == (1, 2)
    assert twin.left is twin.also_left
    assert twin.left is not unit.left
    assert len(twin.left._hooks) == 1


def test_units_can_be_pickled() -> None:
    unit = Sequential(Agent(name="a", memory={"type": "lagentlike.memory.Memory", "recent_n": 2}), Agent(name="b"))
    unit[0].memory.add("hi")
    twin = pickle.loads(pickle.dumps(unit))
    assert twin.state_dict() == unit.state_dict()
    assert repr(twin) == repr(unit)
    assert twin[0].memory.open("new").recent_n == 2


# What the tree cannot hold


@pytest.mark.parametrize("plain", [[Agent()], (Agent(),), {"a": Agent()}], ids=["list", "tuple", "dict"])
def test_units_in_a_plain_collection_are_told_to_be_out_of_the_tree(plain: Any) -> None:
    unit = Leaf()
    with pytest.warns(UserWarning, match=rf"Leaf.parts is a {type(plain).__name__} of units.*AgentList"):
        unit.parts = plain


def test_collections_of_other_things_and_private_ones_are_nobodys_business() -> None:
    unit = Leaf()
    unit.tools, unit.empty, unit.numbers, unit._apart = [Leaf()], [], [1, Agent()], [Agent()]
    assert not list(unit.children())


def test_a_plain_collection_of_units_that_are_in_the_tree_is_fine() -> None:
    unit = Leaf()
    unit.first, unit.second = Agent(), Agent()
    unit.in_turn = [unit.first, unit.second]
    assert [name for name, _ in unit.named_children()] == ["first", "second"]


def test_a_unit_cannot_be_inside_itself() -> None:
    outer, inner = Agent(), Agent()
    outer.inner = inner
    with pytest.raises(InvalidArgument, match=r"(?s)Agent.back=.*a tree has no circles"):
        inner.back = outer
    with pytest.raises(InvalidArgument, match=r"(?s)Agent.me=.*a tree has no circles"):
        outer.me = outer
    assert [name for name, _ in outer.named_modules()] == ["", "inner"]


# Hooks


def test_a_handle_removes_its_own_hook_and_twice_is_no_error() -> None:
    unit, log = Leaf(), []
    first = unit.register_forward_pre_hook(lambda *_: log.append("first"))
    first.remove()
    unit.register_forward_pre_hook(lambda *_: log.append("second"))
    first.remove()
    unit("hi")
    assert log == ["second"]
    with unit.register_forward_pre_hook(lambda *_: log.append("third")):
        unit("hi")
    unit("hi")
    assert log == ["second", "second", "third", "second"]


@pytest.mark.parametrize("hook", [5, "hook", Hook, lambda *given: None])
def test_what_is_no_hook_is_refused(hook: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"hook=.*register_forward_hook"):
        Leaf().register_hook(hook)


def test_a_function_hook_must_be_a_function() -> None:
    with pytest.raises(InvalidArgument, match="hook="):
        Leaf().register_forward_hook(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="for a Hook there is register_hook"):
        Leaf().register_forward_hook(Hook())  # type: ignore[arg-type]


def test_a_function_hook_that_takes_something_else_is_refused_when_it_is_registered() -> None:
    with pytest.raises(InvalidArgument, match=r"takes \(message\), and must take \(unit, messages, reply\)"):
        Leaf().register_forward_hook(lambda message: None)
    with pytest.raises(InvalidArgument, match=r"must take \(unit, messages\)"):
        Leaf().register_forward_pre_hook(lambda unit, messages, kwargs: None)
    with pytest.raises(InvalidArgument, match=r"must take \(unit, messages, kwargs, reply\)"):
        Leaf().register_forward_hook(lambda unit, messages, reply: None, with_kwargs=True)
    with pytest.raises(InvalidArgument, match=r"must take \(unit, messages, kwargs\)"):
        Leaf().register_forward_pre_hook(lambda unit, messages: None, with_kwargs=True)
    Leaf().register_forward_hook(print)


@mock.patch("os.getpid")
def counted(unit: Any, messages: Any, getpid: Any) -> None:
    getpid()


def test_a_function_hook_takes_what_its_decorator_does() -> None:
    leaf = Leaf()
    leaf.register_forward_pre_hook(counted)
    assert leaf("a")


class Several(Hook):
    """A hook that is iterable itself."""

    def __iter__(self) -> Iterator[Hook]:
        return iter(())


def test_hooks_are_given_one_or_several() -> None:
    assert len(Agent(hooks=Hook())._hooks) == len(Agent(hooks=(Hook() for _ in "1"))._hooks) == 1
    assert len(Agent(hooks=[Hook(), {"type": Hook}])._hooks) == 2
    assert len(Agent(hooks=Several())._hooks) == 1
    for wrong in ("logging", Hook):
        with pytest.raises(InvalidArgument, match=re.escape(f"hook={wrong!r}: give a Hook object")):
            Agent(hooks=wrong)  # type: ignore[arg-type]


# Colours


def test_a_forward_of_another_colour_is_refused_when_the_class_is_defined() -> None:
    with pytest.raises(ColourError, match=r"Wrong.forward is an `async def`.*derive from AsyncAgent"):

        class Wrong(Agent):
            async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
                return "x"

    with pytest.raises(ColourError, match="derive from StreamingAgent"):

        class Streams(Agent):
            def forward(self, message: AgentMessage, session_id: Any = 0) -> Iterator[str]:
                yield "x"

    with pytest.raises(ColourError, match="derive from Agent"):

        class Blocks(AsyncAgent):
            def forward(self, message: AgentMessage, session_id: Any = 0) -> str:  # type: ignore[override]
                return "x"

    with pytest.raises(ColourError, match="derive from AsyncStreamingAgent"):

        class StreamsAsync(AsyncAgent):
            async def forward(self, message: AgentMessage, session_id: Any = 0) -> AsyncIterator[str]:
                yield "x"

    with pytest.raises(ColourError, match="derive from AsyncAgent"):

        class Awaits(AsyncStreamingAgent):
            async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:  # type: ignore[override]
                return "x"


def test_a_forward_without_session_id_is_refused_when_the_class_is_defined() -> None:
    with pytest.raises(InvalidArgument, match=r"Forgot.forward=.*it must take session_id"):

        class Forgot(Agent):
            def forward(self, message: AgentMessage) -> str:
                return "x"

    class Kwargs(Agent):
        def forward(self, message: AgentMessage, **kwargs: Any) -> str:
            return str(kwargs["session_id"])

    assert Kwargs()("hi", session_id=3).content == "3"


def test_a_streaming_forward_may_hand_over_another_stream() -> None:
    class Delegates(StreamingAgent):
        def __init__(self) -> None:
            self.inner = StreamingAgent(ScriptedLLM(["one two"], chunk_size=4))

        def forward(self, message: AgentMessage, session_id: Any = 0) -> Iterator[AgentMessage]:
            return self.inner(message, session_id=session_id)

    assert [part.content for part in Delegates()("hi")] == ["one ", "one two", "one two"]


def test_a_streaming_forward_that_gives_no_stream_is_told() -> None:
    class Whole(StreamingAgent):
        def forward(self, message: AgentMessage, session_id: Any = 0) -> Any:
            return "whole"

    with pytest.raises((ColourError, InvalidArgument), match="forward"):
        list(Whole()("hi"))


def test_an_async_form_is_an_instance_of_both() -> None:
    assert issubclass(AsyncAgent, Agent)
    assert issubclass(AsyncAgent, AsyncModule)
    assert issubclass(AsyncStreamingAgent, AsyncAgent)
    assert isinstance(AsyncAgent(), Agent)


@pytest.mark.parametrize(
    ("kind", "llm", "cure"),
    [
        (Agent, AsyncScriptedLLM(), "give it ScriptedLLM"),
        (StreamingAgent, AsyncScriptedLLM(), "give it ScriptedLLM"),
        (AsyncAgent, ScriptedLLM(), "give it AsyncScriptedLLM"),
        (AsyncStreamingAgent, ScriptedLLM(), "give it AsyncScriptedLLM"),
    ],
)
def test_a_model_of_the_other_colour_is_refused_when_the_agent_is_made(kind: Any, llm: Any, cure: str) -> None:
    with pytest.raises(ColourError, match=cure):
        kind(llm)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("llm", ScriptedLLM),
        ("output_format", "hermes"),
        ("output_format", StrParser),
        ("aggregator", "default"),
        ("aggregator", DefaultAggregator),
    ],
)
def test_what_cannot_do_its_part_is_refused_when_the_agent_is_made(argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{argument}=.*such as"):
        Agent(**{argument: value})
