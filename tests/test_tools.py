"""The tools that are ready: made when they are first asked for, one object each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lagentlike.tools
from lagentlike import ActionExecutor, AgentMessage
from lagentlike.schema import ToolCall

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
