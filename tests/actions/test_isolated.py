"""Functions that run in processes of their own are killed where they take too long, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, AsyncActionExecutor, tool
from lagentlike.errors import InvalidArgument
from lagentlike.schema import AgentMessage, ToolCall, ToolResult


@tool(isolated=True)
def where(number: int, session_id: Any = 0) -> dict[str, Any]:
    """Tell where it runs."""
    return {"number": number, "process": os.getpid(), "session": session_id}


@tool(isolated=True)
def hang(how: str, note: str = "") -> None:
    """Take for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if note:
        child = subprocess.Popen(["sleep", "1000"])
        Path(note).write_text(f"{os.getpid()} {child.pid}")
    if how == "python":
        while True:
            pass
    ctypes.PyDLL(None).sleep(1000)  # holds the lock of the interpreter


@tool(isolated=True)
def end(how: str) -> Any:
    """End in some way."""
    if how == "exit":
        os._exit(3)
    if how == "exit without a child":
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(3)
    if how == "end twice":
        os.fork()
        return "once"
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "value":
        return sys.modules  # cannot be sent
    if how == "odd":
        raise type("Odd", (Exception,), {})("gone wrong")
    raise {"error": LookupError("not here"), "system exit": SystemExit(2), "interrupt": KeyboardInterrupt()}[how]


@tool(isolated=True)
def spread(numbers: list[int]) -> list[int]:
    """Work in several processes."""
    with multiprocessing.Pool(2) as pool:
        return pool.map(abs, numbers)


def result_of(
    tool: Any, arguments: dict[str, Any], timeout: float | None = None, colour: Any = ActionExecutor
) -> ToolResult:
    message = AgentMessage(content="", tool_calls=[ToolCall(tool.name, arguments)])
    executor = colour([tool], timeout=timeout)
    reply = executor(message, session_id="s")
    reply = asyncio.run(reply) if asyncio.iscoroutine(reply) else reply
    assert reply.tool_results is not None
    return reply.tool_results[0]


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return False


both = pytest.mark.parametrize("colour", [ActionExecutor, AsyncActionExecutor])


@both
def test_a_call_has_a_process_of_its_own(colour: Any) -> None:
    result = result_of(where, {"number": 7}, colour=colour)
    assert '"number": 7' in result.text
    assert '"session": "s"' in result.text
    assert str(os.getpid()) not in result.text
    assert where(7)["process"] == os.getpid(), "called from Python it is the function itself"


def test_what_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "note"
    result = result_of(hang, {"how": "c", "note": str(note)}, 5)
    assert result.text == "Error: hang took longer than its 5 seconds: it was stopped"
    processes = [int(number) for number in note.read_text().split()]
    until = time.monotonic() + 10
    while any(map(is_alive, processes)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_alive, processes))


CALL = """
import sys
from tests.actions.test_isolated import hang, result_of
if __name__ == "__main__":
    result_of(hang, {"how": "c", "note": sys.argv[1]})
"""


def test_it_ends_with_the_process_that_called_it_whatever_it_does(tmp_path: Path) -> None:
    note, script = tmp_path / "note", tmp_path / "script.py"
    script.write_text(CALL)
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    caller = subprocess.Popen([sys.executable, script, note], env={**os.environ, **paths})
    until = time.monotonic() + 30
    while not (note.exists() and len(note.read_text().split()) == 2) and time.monotonic() < until:
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    process, child = map(int, note.read_text().split())
    try:
        while is_alive(process) and time.monotonic() < until:
            time.sleep(0.02)
        assert not is_alive(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_a_call_that_is_cancelled_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    call = AgentMessage(content="", tool_calls=[ToolCall("hang", {"how": "python", "note": str(note)})])
    task = asyncio.create_task(AsyncActionExecutor([hang])(call))
    while not note.exists() or len(note.read_text().split()) < 2:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    process = int(note.read_text().split()[0])
    async with asyncio.timeout(10):
        while is_alive(process):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("exit", "its process ended before the call did (exit code 3)"),
        ("exit without a child", "its process ended before the call did (exit code 3)"),
        ("end twice", "once"),
        ("kill", "its process ended before the call did (exit code -9)"),
        ("value", "its result cannot leave its process: cannot pickle 'module' object"),
        ("odd", "Odd: gone wrong"),
        ("error", "LookupError: not here"),
        ("system exit", "SystemExit: 2"),
        ("interrupt", "KeyboardInterrupt"),
    ],
)
def test_however_it_ends_there_is_a_result(how: str, text: str) -> None:
    assert text in result_of(end, {"how": how}).text


def test_it_may_start_processes() -> None:
    assert result_of(spread, {"numbers": [-1, 2, -3]}).text == "[1, 2, 3]"


async def later() -> None:
    """Async."""


@pytest.mark.parametrize(
    ("function", "options", "cure"),
    [
        (later, {}, "by cancelling it"),
        (lambda: None, {"name": "short"}, "at the top of a module"),
        (time.sleep, {"stateful": True}, "is in this process"),
        (time.sleep, {"isolated": 1}, "give True or False"),
    ],
)
def test_what_cannot_be_isolated_is_refused(function: Any, options: dict[str, Any], cure: str) -> None:
    with pytest.raises(InvalidArgument, match=cure):
        tool(**{"isolated": True, **options})(function)
