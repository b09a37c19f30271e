"""One memory for each session, made when the session first speaks."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lagentlike.errors import InvalidArgument, StateError
from lagentlike.memory import Memory, MemoryManager


class Other(Memory):
    """A memory of another kind."""


def test_makes_a_memory_when_the_session_first_speaks() -> None:
    manager = MemoryManager()
    assert len(manager.get("new")) == 0
    assert "new" not in manager
    manager.add("hi", "new")
    assert "new" in manager
    assert (len(manager), manager.session_ids()) == (1, ["new"])
    assert [message.content for message in manager.get_memory("new")] == ["hi"]


def test_sessions_do_not_see_each_other() -> None:
    manager = MemoryManager()
    for session_id in (0, "0", ("0", 0)):
        manager.add(repr(session_id), session_id)
    assert [manager.save(one)[0]["content"] for one in (0, "0", ("0", 0))] == ["0", "'0'", "('0', 0)"]


@pytest.mark.parametrize(
    ("memory", "kind", "recent_n"),
    [
        (None, Memory, None),
        (Other, Other, None),
        (Other(recent_n=2), Other, 2),
        ({"type": Memory, "recent_n": 3}, Memory, 3),
        ({"type": "lagentlike.memory.Memory", "recent_n": 4}, Memory, 4),
    ],
    ids=["nothing", "a class", "a memory", "dict(type=class)", "dict(type=path)"],
)
def test_takes_a_memory_in_every_form(memory: Any, kind: type, recent_n: int | None) -> None:
    manager = MemoryManager(memory)
    first, second = manager.open(1), manager.open(2)
    assert first is not second
    assert (type(first), first.recent_n) == (kind, recent_n)


@pytest.mark.parametrize("memory", [5, "memory", dict, {"type": dict}, {"recent_n": 2}])
def test_refuses_what_makes_no_memory(memory: Any) -> None:
    with pytest.raises(InvalidArgument, match="memory="):
        MemoryManager(memory)


@pytest.mark.parametrize("memory", [None, Other(recent_n=2), {"type": Memory, "recent_n": 3}])
def test_copies_and_pickles(memory: Any) -> None:
    manager = MemoryManager(memory)
    manager.add("hi", "a")
    for twin in (copy.deepcopy(manager), pickle.loads(pickle.dumps(manager))):
        twin.add("more", "a")
        assert len(twin.get("a")) == 2
        assert twin.open("b").recent_n == manager.open("b").recent_n
    assert len(manager.get("a")) == 1


def test_deletes_and_loads_by_session() -> None:
    manager = MemoryManager()
    manager.add(["a", "b", "c"], 1)
    manager.delete([0, 1], 1)
    assert [message["content"] for message in manager.save(1)] == ["c"]
    manager.load(manager.save(1), 2, overwrite=False)
    manager.load("d", 2, overwrite=False)
    assert [message["content"] for message in manager.save(2)] == ["c", "d"]
    with pytest.raises(StateError):
        manager.load([5], 3)
    assert 3 not in manager


def test_forgets_a_session() -> None:
    manager = MemoryManager()
    manager.add("a", 1)
    manager.reset(1)
    manager.reset("never there")
    assert manager.session_ids() == []


def test_refuses_a_session_id_that_does_not_survive_json() -> None:
    with pytest.raises(InvalidArgument, match="session_id="):
        MemoryManager().open(1.5)


def test_threads_that_open_a_session_together_get_one_memory() -> None:
    for attempt in range(50):
        manager = MemoryManager()
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(manager.open, [attempt] * 8))
        assert len(set(map(id, opened))) == 1


def test_shows_how_much_it_holds() -> None:
    manager = MemoryManager()
    manager.add(["a", "b"], 1)
    manager.add("c", 2)
    assert repr(manager) == "MemoryManager(2 sessions, 3 messages)"
