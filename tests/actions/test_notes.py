"""Notes that a model keeps, for a session or in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor
from lagentlike.actions.notes import Notes
from lagentlike.errors import InvalidArgument
from lagentlike.schema import AgentMessage, ToolCall, ToolResult


def call(executor: ActionExecutor, session_id: Any = 0, **arguments: Any) -> ToolResult:
    message = AgentMessage(content="", tool_calls=[ToolCall("memory", arguments)])
    results = executor(message, session_id=session_id).tool_results
    assert results is not None
    return results[0]


def test_notes_of_each_session_are_saved_and_forked_with_it() -> None:
    executor = ActionExecutor(Notes())
    call(executor, action="add", text="likes tea")
    assert call(executor, 1, action="list").text == "there are no notes"
    executor.fork(0, 2)
    call(executor, 2, action="add", text="likes rain")
    assert call(executor, action="list").text == "likes tea"
    other = ActionExecutor(Notes())
    other.load_state_dict(executor.state_dict(2), 5)
    assert call(other, 5, action="list").text == "likes tea\nlikes rain"


def test_notes_are_replaced_removed_and_searched_by_words() -> None:
    executor = ActionExecutor(Notes())
    for text in ("The user likes tea", "The user lives in Oslo"):
        call(executor, action="add", text=text)
    assert call(executor, action="search", text="oslo USER").text == "The user lives in Oslo"
    assert call(executor, action="search", text="coffee").text == "there are no such notes"
    assert "2 notes hold 'The user'" in call(executor, action="remove", old_text="The user").text
    assert call(executor, action="replace", old_text="tea", text="The user likes cocoa").success
    assert call(executor, action="remove", old_text="Oslo").success
    assert call(executor, action="list").text == "The user likes cocoa"
    assert not call(executor, action="add", text=" ").success


def test_a_note_too_many_is_refused_and_nothing_changed() -> None:
    executor = ActionExecutor(Notes(max_chars=10))
    call(executor, action="add", text="12345678")
    assert "would have 11 characters" in call(executor, action="add", text="abc").text
    assert call(executor, action="list").text == "12345678"


def test_a_file_is_shared_by_sessions_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "in" / "notes.json"
    executor = ActionExecutor(Notes(path, max_chars=100_000))
    call(executor, action="add", text="first")
    assert call(executor, 9, action="list").text == "first"
    code = (
        "import sys; from lagentlike.actions.notes import Notes\n"
        f"notes = Notes({str(path)!r}, max_chars=100_000)\n"
        "for n in range(25): assert notes({'action': 'add', 'text': f'{sys.argv[1]} {n}'}).errmsg is None"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(call(executor, action="list").text.splitlines()) == 51
    assert executor.state_dict(0) == {"memory.notes": []}


def test_a_file_that_holds_no_notes_is_an_error_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text("{}")
    assert "holds no notes" in call(ActionExecutor(Notes(path)), action="add", text="x").text
    assert path.read_text() == "{}"


def test_a_wrong_bound_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="max_chars=0"):
        Notes(max_chars=0)


def test_calls_that_run_side_by_side_lose_nothing() -> None:
    calls = [ToolCall("memory", {"action": "add", "text": f"note {n}"}) for n in range(16)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            tool = Notes()
            ActionExecutor(tool)(AgentMessage(content="", tool_calls=calls))
            assert len(tool.notes[0]) == 16
    finally:
        sys.setswitchinterval(interval)
