"""What a model finds in past sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import SearchSessions
from lagentlike.agents import Agent
from lagentlike.errors import InvalidArgument
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import SessionStore, SQLiteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    store = SQLiteStore(tmp_path / "s.db")
    agent = Agent(ScriptedLLM(["Noted."] * 9), name="helper")
    agent.keep(store)
    agent("My cat is Tom.", session_id=("ann", "pets"))
    agent("My cat is Kitty.", session_id=("bob", "pets"))
    yield store
    store.blocking.close()


def text(tool: SearchSessions, session_id: Any = 0, **arguments: Any) -> str:
    return tool(arguments, session_id=session_id).text


def test_it_finds_messages_of_all_sessions(store: SessionStore) -> None:
    lines = text(SearchSessions(store), query="cat").splitlines()
    assert lines == [
        "[session ('bob', 'pets'), message 0] user: My cat is Kitty.",
        "[session ('ann', 'pets'), message 0] user: My cat is Tom.",
    ]
    assert text(SearchSessions(store), query="dog") == "nothing was found"


def test_by_owner_it_finds_those_of_the_owner(store: SessionStore) -> None:
    tool = SearchSessions(store, by_owner=True)
    assert text(tool, ("ann", "new"), query="cat") == "[session ('ann', 'pets'), message 0] user: My cat is Tom."
    assert "belongs to nobody" in text(tool, "ann", query="cat")


def test_wrong_arguments_are_told_to_the_model(store: SessionStore) -> None:
    assert "1 to 20" in text(SearchSessions(store), query="cat", limit=0)
    with pytest.raises(InvalidArgument):
        SearchSessions("s.db")  # type: ignore[arg-type]
