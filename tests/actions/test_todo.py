"""The list of what is to be done."""

from __future__ import annotations

import json
import sys
from typing import Any

from lagentlike.actions import ActionExecutor
from lagentlike.actions.todo import Todo
from lagentlike.schema import AgentMessage, ToolCall, ToolResult


def call(executor: ActionExecutor, session_id: Any = 0, **arguments: Any) -> ToolResult:
    message = AgentMessage(content="", tool_calls=[ToolCall("todo", arguments)])
    results = executor(message, session_id=session_id).tool_results
    assert results is not None
    return results[0]


def states(result: ToolResult) -> dict[str, str]:
    return {item["id"]: item["status"] for item in json.loads(result.text)["todos"]}


def test_a_list_is_written_merged_and_shown() -> None:
    executor = ActionExecutor(Todo())
    first = call(
        executor, todos=[{"id": "a", "content": "read", "status": "in_progress"}, {"id": "b", "content": "write"}]
    )
    assert states(first) == {"a": "in_progress", "b": "pending"}
    more = [{"id": "a", "content": "read", "status": "completed"}, {"id": "c", "content": "test"}]
    assert states(call(executor, todos=more, merge=True)) == {"a": "completed", "b": "pending", "c": "pending"}
    assert json.loads(call(executor).text)["left"] == 2
    assert states(call(executor, todos=[{"id": "z", "content": "rest"}])) == {"z": "pending"}


def test_each_session_has_a_list_that_is_saved_with_it() -> None:
    executor = ActionExecutor(Todo())
    call(executor, todos=[{"id": "a", "content": "read"}])
    assert states(call(executor, 1)) == {}
    other = ActionExecutor(Todo())
    other.load_state_dict(json.loads(json.dumps(executor.state_dict(0))), 3)
    assert states(call(other, 3)) == {"a": "pending"}


def test_what_is_no_list_is_refused_and_nothing_changed() -> None:
    executor = ActionExecutor(Todo())
    call(executor, todos=[{"id": "a", "content": "read"}])
    assert "same id" in call(executor, todos=[{"id": "b", "content": "x"}, {"id": "b", "content": "y"}]).text
    assert not call(executor, todos=[{"id": "b", "content": "x", "status": "soon"}]).success
    assert not call(executor, todos=[{"id": str(n), "content": "x"} for n in range(100)], merge=True).success
    assert states(call(executor)) == {"a": "pending"}


def test_calls_that_run_side_by_side_lose_nothing() -> None:
    calls = [ToolCall("todo", {"merge": True, "todos": [{"id": str(n), "content": "x"}]}) for n in range(16)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            tool = Todo()
            ActionExecutor(tool)(AgentMessage(content="", tool_calls=calls))
            assert len(tool.items[0]) == 16
    finally:
        sys.setswitchinterval(interval)
