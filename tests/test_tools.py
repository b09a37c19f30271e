"""The tools that are ready: made when they are first asked for, one object each; and tools by name."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lagentlike.tools
from lagentlike import ActionExecutor, AgentMessage
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ToolCall
from lagentlike.tools import build_tool_registry, calculator, tool, ToolRegistry

READY = ["search", "code_interpreter", "terminal", "process", "read_file", "write_file", "patch", "search_files"]


@pytest.mark.parametrize("name", READY)
def test_a_ready_tool_is_one_object_that_is_called_by_its_name(name: str) -> None:
    found = getattr(lagentlike.tools, name)
    assert found is getattr(lagentlike.tools, name)
    assert found.name == name


def test_what_is_no_tool_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'teleport'"):
        lagentlike.tools.teleport  # noqa: B018


def test_shell_and_files_work_in_the_working_directory(tmp_path: Path) -> None:
    program = (
        "from lagentlike import ActionExecutor, AgentMessage\n"
        "from lagentlike.schema import ToolCall\n"
        "from lagentlike.tools import process, read_file, terminal\n"
        "executor = ActionExecutor([terminal, process, read_file])\n"
        "for name, given in ('terminal', {'command': 'echo hello > a.txt'}), ('read_file', {'path': 'a.txt'}):\n"
        "    message = AgentMessage(content='', tool_calls=[ToolCall(name, given)])\n"
        "    print(executor(message).tool_results[0].text)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(no output)\n1|hello\n"


def test_search_without_a_key_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BING_API_KEY", raising=False)
    monkeypatch.delenv("LAGENTLIKE_SEARCH_ENDPOINT", raising=False)
    executor = ActionExecutor([lagentlike.tools.search])
    results = executor(AgentMessage(content="", tool_calls=[ToolCall("search", {"query": "x"})])).tool_results
    assert results is not None
    assert "BING_API_KEY" in results[0].text


def test_a_registry_knows_where_each_tool_runs() -> None:
    registry = ToolRegistry(["bash", calculator])
    assert registry.list_tools() == ["bash", "calculator"]
    assert [registry.where(name) for name in ("bash", "calculator", "nope")] == ["sandbox", "host", None]
    assert "bash" in registry
    assert len(registry) == 2
    assert registry.get("calculator") is calculator
    assert registry.get("bash").name == "bash"
    shown = json.loads(registry.get_prompt_tool_definitions_json())
    assert [one["function"]["name"] for one in shown] == ["bash", "calculator"]
    assert shown[0]["function"]["parameters"]["required"] == ["command"]


@pytest.mark.parametrize("twin", ["bash", calculator])
def test_a_registry_has_one_tool_of_a_name(twin: Any) -> None:
    registry = ToolRegistry(["bash", calculator])
    with pytest.raises(InvalidArgument, match="a tool of that name already"):
        registry.register(twin)
    with pytest.raises(InvalidArgument, match="the tools of sandboxes are bash"):
        registry.register("fly")


async def test_a_registry_runs_what_needs_no_sandbox() -> None:
    @tool
    async def slow() -> str:
        """Take long."""
        await asyncio.sleep(60)
        return "never"

    registry = ToolRegistry(["bash", calculator, slow])
    done = await registry.execute(ToolCall("calculator", {"expression": "6 * 7"}, id="c"))
    assert (done.success, done.output, done.id) == (True, "42", "c")
    wrong = await registry.execute(ToolCall("calculator", {}))
    assert not wrong.success
    assert "expression" in wrong.error
    refused = await registry.execute(ToolCall("bash", {"command": "ls"}))
    assert refused.error == "bash runs in a sandbox only: call it by a ToolExecutor"
    late = await registry.execute(ToolCall("slow", {}), timeout_s=0.05)
    assert late.error == "slow took longer than 0.05 seconds"
    assert "nope" in (await registry.execute(ToolCall("nope", {}))).error


def test_toolsets_of_environments_run_in_sandboxes() -> None:
    default = build_tool_registry()
    assert default.list_tools() == ["bash", "terminal_stateful", "tmux", "read_file", "write_file"]
    assert {default.where(name) for name in default.list_tools()} == {"sandbox"}
    assert build_tool_registry(["terminal", "todo"]).list_tools() == ["bash", "terminal_stateful", "todo"]
    assert build_tool_registry(["default"], ["tmux", "file"]).list_tools() == ["bash", "terminal_stateful"]
    with pytest.raises(InvalidArgument, match="use terminal, which has a sandbox"):
        build_tool_registry(["code"])
    with pytest.raises(InvalidArgument, match="the toolsets are"):
        build_tool_registry(["flying"])
    with pytest.raises(InvalidArgument, match="give a list"):
        build_tool_registry("default")


def test_tools_with_credentials_are_left_to_a_tool_server(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert build_tool_registry(["web"]).list_tools() == []
    assert "web_extract is left out: it needs credentials, and there is no tool_server_url" in caplog.text
    with_server = build_tool_registry(["web"], tool_server_url="inprocess")
    assert {with_server.where(name) for name in with_server.list_tools()} == {"server"}
