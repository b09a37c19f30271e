"""Code that nobody waits for any more is interrupted, and the next piece of code does not wait behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import (
    ActionExecutor,
    AsyncActionExecutor,
    BaseAction,
    IPythonInteractive,
    IPythonInteractiveManager,
    IPythonInterpreter,
    PythonInterpreter,
)
from lagentlike.schema import AgentMessage, ToolCall, ToolResult

PATIENCE = 20.0
"""Seconds within which all is over; what is given up would take much longer."""

MAKERS: dict[str, Callable[..., Any]] = {
    "kernel": IPythonInterpreter,
    "shell": IPythonInteractive,
    "shells": IPythonInteractiveManager,
}


@pytest.fixture(params=MAKERS)
def tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tool = MAKERS[request.param](timeout=300)
    yield tool
    tool.close()


def calling(tool: BaseAction, code: str) -> AgentMessage:
    return AgentMessage(content="", tool_calls=[ToolCall(tool.name, {"command": code})])


def result_of(message: AgentMessage) -> ToolResult:
    assert message.tool_results is not None
    return message.tool_results[0]


SLOW = "import time\ntime.sleep(200)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{SLOW}"


def test_a_call_whose_time_is_up_is_interrupted(tool: Any) -> None:
    tool("x = 3")
    began = time.monotonic()
    late = result_of(ActionExecutor([tool], timeout=0.5)(calling(tool, SLOW)))
    assert "took longer than its 0.5 seconds: it was stopped" in late.text
    assert tool("x").text == "3", "variables are kept"
    assert time.monotonic() - began < PATIENCE


async def test_a_call_whose_task_is_cancelled_is_interrupted(tool: Any) -> None:
    executor = AsyncActionExecutor([tool])
    await executor(calling(tool, "x = 3"))
    began = time.monotonic()
    task = asyncio.ensure_future(executor(calling(tool, SLOW)))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert result_of(await executor(calling(tool, "x"))).text == "3"
    assert time.monotonic() - began < PATIENCE


async def test_an_async_executor_whose_time_is_up_interrupts_too(tool: Any) -> None:
    began = time.monotonic()
    tool("x = 3")
    late = result_of(await AsyncActionExecutor([tool], timeout=0.5)(calling(tool, SLOW)))
    assert "it was stopped" in late.text
    assert result_of(await AsyncActionExecutor([tool])(calling(tool, "x"))).text == "3"
    assert time.monotonic() - began < PATIENCE


def test_one_that_does_not_heed_the_interrupt_is_killed(tool: Any) -> None:
    tool("x = 3")
    began = time.monotonic()
    ActionExecutor([tool], timeout=0.5)(calling(tool, STUBBORN))
    told = tool("'x' in globals()").text
    assert "variables are gone" in told
    if not told.endswith("False"):  # it was in the process already, and has ended with it
        told = tool("'x' in globals()").text
    assert told.endswith("False")
    assert time.monotonic() - began < PATIENCE


def test_a_program_is_ended() -> None:
    tool = PythonInterpreter(timeout=300, answer_expr=None)
    began = time.monotonic()
    late = result_of(ActionExecutor([tool], timeout=0.5)(calling(tool, SLOW)))
    assert "it was stopped" in late.text
    assert time.monotonic() - began < PATIENCE
