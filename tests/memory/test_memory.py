"""A memory keeps messages in order, never changes one, and can be taken back or forked at no cost."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, RuleBasedStateMachine

from lagentlike.errors import InvalidArgument, StateError
from lagentlike.memory import Memory
from lagentlike.schema import ActionReturn, ActionStatusCode, AgentMessage, ToolCall, ToolResult


def filled(*texts: str, **options: Any) -> Memory:
    memory = Memory(**options)
    memory.add(list(texts))
    return memory


def texts(memory: Memory) -> list[Any]:
    return [message.content for message in memory.get_memory()]


def test_adds_texts_and_messages_in_order() -> None:
    memory = Memory()
    memory.add("a")
    memory.add(AgentMessage(sender="bot", content="b"))
    memory.add(["c", AgentMessage(content="d")])
    assert [(m.sender, m.content) for m in memory] == [("user", "a"), ("bot", "b"), ("user", "c"), ("user", "d")]
    assert (len(memory), memory[0].content, memory[-1].content) == (4, "a", "d")


def test_keeps_a_copy_of_what_is_added() -> None:
    memory, message = Memory(), AgentMessage(content={"a": [1]})
    memory.add(message)
    message.content["a"].append(2)
    assert texts(memory) == [{"a": [1]}]


@pytest.mark.parametrize("item", [5, None, {"content": "x"}, ["a", 5]])
def test_refuses_what_is_no_message(item: Any) -> None:
    with pytest.raises((InvalidArgument, TypeError)):
        Memory().add(item)


def test_shows_the_last_few_when_asked() -> None:
    memory = filled("a", "b", "c")
    assert [m.content for m in memory.get_memory(recent_n=2)] == ["b", "c"]
    assert memory.get_memory(recent_n=0) == []
    assert len(memory.get_memory(recent_n=10)) == 3


def test_is_indexed_and_sliced_as_a_list() -> None:
    memory = filled("a", "b", "c")
    assert (memory[0].content, memory[-1].content) == ("a", "c")
    assert [message.content for message in memory[-2:]] == ["b", "c"]
    memory.rewind((memory.mark()[0], 2))
    assert [message.content for message in memory[:]] == ["a", "b"]
    with pytest.raises(IndexError):
        memory[2]


def test_its_own_window_holds_unless_another_is_asked_for() -> None:
    memory = filled("a", "b", "c", recent_n=1)
    assert texts(memory) == ["c"]
    assert len(memory) == len(list(memory)) == 3
    assert [m.content for m in memory.get_memory(recent_n=3)] == ["a", "b", "c"]


def test_filters_by_index_and_message() -> None:
    memory = filled("a", "b", "c", "d")
    kept = memory.get_memory(recent_n=3, filter_func=lambda index, message: index != 1 and message.content != "d")
    assert [m.content for m in kept] == ["b"]


@pytest.mark.parametrize("recent_n", [-1, 1.5, True, "3"])
def test_refuses_a_window_that_is_none(recent_n: Any) -> None:
    with pytest.raises(InvalidArgument, match="recent_n="):
        Memory(recent_n)
    with pytest.raises(InvalidArgument, match="recent_n="):
        filled("a").get_memory(recent_n)


@pytest.mark.parametrize(
    ("index", "left"),
    [(0, "bcd"), (-1, "abc"), ([0, 1], "cd"), ([1, 0], "cd"), ([0, -4], "bcd"), ([3, -3], "ac"), ([], "abcd")],
)
def test_deletes_at_indexes_of_the_memory_as_it_is(index: Any, left: str) -> None:
    memory = filled(*"abcd")
    memory.delete(index)
    assert texts(memory) == list(left)


@pytest.mark.parametrize("index", [4, -5, [0, 4], True, "0", [0.0]])
def test_deleting_what_is_not_there_deletes_nothing(index: Any) -> None:
    memory = filled(*"abcd")
    with pytest.raises(InvalidArgument, match="index="):
        memory.delete(index)
    assert texts(memory) == list("abcd")


def test_saves_plain_dicts_and_loads_them_again() -> None:
    memory = filled("a", "b")
    saved = memory.save()
    assert saved[0] == {
        "content": "a",
        "sender": "user",
        "formatted": None,
        "extra_info": None,
        "type": None,
        "receiver": None,
        "stream_state": 0,
    }
    other = filled("old")
    other.load(saved)
    assert other.save() == saved
    other.load(["c", {"content": "d"}, AgentMessage(content="e")], overwrite=False)
    assert texts(other) == list("abcde")
    other.load("alone")
    assert texts(other) == ["alone"]


def test_what_is_loaded_is_of_the_kinds_that_were_saved() -> None:
    memory = Memory()
    returned = ActionReturn(type="t", result=[{"type": "text", "content": "4"}], state=ActionStatusCode.SUCCESS)
    memory.add(AgentMessage(content=returned))
    memory.add(AgentMessage(content="x", tool_calls=[ToolCall("add", {"a": 1}, id="1")]))
    memory.add(AgentMessage(content="", tool_results=[ToolResult(True, "2", id="1", name="add")]))
    loaded = Memory()
    loaded.load(memory.save())
    assert list(loaded) == list(memory)
    assert loaded[0].content.text == "4"
    assert type(loaded[0].content.state) is ActionStatusCode


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        (5, "expected a list"),
        ({"a", "b"}, "expected a list"),
        ([5], "message 0 is int"),
        (["ok", {"content": "x", "evil": 1}], r"message 1 has unknown fields \['evil'\]"),
        ([{"sender": "user"}], "message 0, field content"),
        ([{"content": "x", "sender": 5}], "message 0, field sender"),
        ([{"content": "x", "stream_state": 99}], "message 0, field stream_state"),
        ([{"content": {1: 2}}], "text keys"),
    ],
)
def test_what_is_no_state_is_refused_whole(items: Any, complaint: str) -> None:
    memory = filled("a")
    with pytest.raises(StateError, match=complaint):
        memory.load(items)
    assert texts(memory) == ["a"]


def test_what_has_no_json_form_is_named_when_it_is_saved() -> None:
    memory = Memory()
    memory.add(["ok", AgentMessage(content={"a": [object()]})])
    with pytest.raises(StateError, match=r"message 1\.?.*content\['a'\]\[0\]"):
        memory.save()


def test_goes_back_to_a_mark() -> None:
    memory = filled("a")
    mark = memory.mark()
    memory.add(["b", "c"])
    assert [message.content for message in memory.rewind(mark)] == ["b", "c"]
    memory.add("d")
    assert texts(memory) == ["a", "d"]
    assert memory.rewind(mark)[0].content == "d"
    assert texts(memory) == ["a"]


def test_goes_back_to_a_mark_from_before_a_deletion() -> None:
    memory = filled("a", "b")
    mark = memory.mark()
    memory.delete(0)
    memory.add("c")
    assert [message.content for message in memory.rewind(mark)] == ["c"]
    assert texts(memory) == ["a", "b"]


def test_forks_go_their_own_ways() -> None:
    memory = filled("a")
    twin = memory.fork()
    memory.add("b")
    twin.add("c")
    assert (texts(memory), texts(twin)) == (["a", "b"], ["a", "c"])
    assert memory[0] is twin[0]


def test_a_fork_shares_its_past_until_it_writes() -> None:
    memory = filled(*map(str, range(100)))
    forks = [memory.fork() for _ in range(1000)]
    assert all(fork._log is memory._log for fork in forks)


def test_going_back_far_leaves_a_fork_whole() -> None:
    memory = filled("a")
    mark = memory.mark()
    memory.add("b")
    twin = memory.fork()
    inner = memory.mark()
    memory.add("c")
    memory.rewind(inner)
    memory.rewind(mark)
    memory.add("d")
    assert (texts(memory), texts(twin)) == (["a", "d"], ["a", "b"])


def test_views_are_forgotten_when_what_they_show_changes() -> None:
    memory = filled("a", "b")
    for change in (lambda: memory.delete(0), lambda: memory.load(["x"]), lambda: memory.rewind(memory.mark())):
        memory.views = {"key": "view"}
        change()
        assert memory.views == {}


def test_copies_and_pickles_without_its_lock() -> None:
    memory = filled("a", recent_n=3)
    memory.turns.acquire()
    for twin in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert (texts(twin), twin.recent_n, twin.turns.idle) == (["a"], 3, True)
        twin.add("b")
    assert texts(memory) == ["a"]


def test_shows_its_size() -> None:
    assert repr(filled("a", "b")) == "Memory(2 messages)"
    assert repr(Memory(5)) == "Memory(0 messages, recent_n=5)"


class Histories(RuleBasedStateMachine):
    """Any mix of adding, deleting, forking and going back leaves every branch as a list would have it."""

    @initialize()
    def begin(self) -> None:
        self.branches: list[tuple[Memory, list[str], list[tuple[Any, list[str]]]]] = [(Memory(), [], [])]
        self.count = 0

    @rule(which=st.integers(0, 100))
    def add(self, which: int) -> None:
        memory, model, _ = self.branches[which % len(self.branches)]
        self.count += 1
        memory.add(str(self.count))
        model.append(str(self.count))

    @rule(which=st.integers(0, 100))
    def mark(self, which: int) -> None:
        memory, model, marks = self.branches[which % len(self.branches)]
        marks.append((memory.mark(), list(model)))

    @rule(which=st.integers(0, 100), mark=st.integers(0, 100))
    def rewind(self, which: int, mark: int) -> None:
        memory, model, marks = self.branches[which % len(self.branches)]
        if marks:
            point, then = marks[mark % len(marks)]
            memory.rewind(point)
            model[:] = then

    @rule(which=st.integers(0, 100), index=st.integers(0, 100))
    def delete(self, which: int, index: int) -> None:
        memory, model, _ = self.branches[which % len(self.branches)]
        if model:
            memory.delete(index % len(model))
            del model[index % len(model)]

    @rule(which=st.integers(0, 100))
    def fork(self, which: int) -> None:
        memory, model, _ = self.branches[which % len(self.branches)]
        self.branches.append((memory.fork(), list(model), []))

    @invariant()
    def every_branch_is_as_a_list_would_be(self) -> None:
        for memory, model, _ in self.branches:
            assert texts(memory) == model
            assert len(memory) == len(model)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.text(), max_size=20), st.integers(0, 25))
@settings(max_examples=200, deadline=None)
def test_a_window_is_the_end_of_the_whole(contents: list[str], recent_n: int) -> None:
    memory = filled(*contents)
    assert [m.content for m in memory.get_memory(recent_n)] == (contents[-recent_n:] if recent_n else [])
