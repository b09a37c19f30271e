"""Tools that run code do so in a sandbox, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import (
    ActionExecutor,
    BaseAction,
    file_tools,
    IPythonInteractive,
    IPythonInteractiveManager,
    IPythonInterpreter,
    PythonInterpreter,
    Terminal,
    tools_of,
)
from lagentlike.errors import InvalidArgument
from lagentlike.sandbox import Bwrap, Limits
from lagentlike.schema import ActionReturn, AgentMessage, ToolCall

MAKERS: dict[str, Callable[..., BaseAction]] = {
    "kernel": IPythonInterpreter,
    "shell": IPythonInteractive,
    "shells": IPythonInteractiveManager,
    "program": lambda **options: PythonInterpreter(answer_expr=None, **options),
    "terminal": Terminal,
}
READ = """
found = []
for path in {paths}:
    try:
        found.append(open(path).read())
    except OSError:
        pass
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 2)
    found.append("connected")
except OSError:
    pass
"-".join(found) or "nothing"
"""


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Callable[..., BaseAction]:
    return MAKERS[request.param]


def run(tool: BaseAction, code: str) -> Any:
    """What a tool gives for Python code, the terminal through a Python of its own."""
    if isinstance(tool, Terminal):
        code = f"python3 - <<'END'\nimport ast\ncode = {code!r}\nlines = ast.parse(code)\n{_SHOWN}END\n"
    call = ToolCall(tool.name, {"command": code})
    try:
        results = ActionExecutor([tool])(AgentMessage(content="", tool_calls=[call])).tool_results
        assert results is not None
        return results[0]
    finally:
        close = getattr(tool, "close", None)
        if close is not None:
            close()


_SHOWN = """
last = lines.body.pop()
scope = {}
exec(compile(lines, "code", "exec"), scope)
print(eval(compile(ast.Expression(last.value), "code", "eval"), scope))
"""


def test_code_sees_nothing_of_this_machine(
    maker: Callable[..., BaseAction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    secret = tmp_path / "secret"
    secret.write_text("private")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = READ.format(paths=[str(secret), "/etc/shadow"], port=server.getsockname()[1])
        result = run(maker(), code)
    assert (result.success, result.text.strip("'")) == (True, "nothing"), result.text


def test_without_a_sandbox_nothing_is_run(
    maker: Callable[..., BaseAction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = maker()
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(tool, f"open({str(tmp_path / 'ran')!r}, 'w').close()\n1")
    assert not result.success
    assert "bwrap is not installed" in result.text or "there is no shell" in result.text
    assert not (tmp_path / "ran").exists()


def test_without_a_sandbox_no_file_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = ActionExecutor(file_tools(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    call = ToolCall("write_file", {"path": "a", "content": ""})
    results = tools(AgentMessage(content="", tool_calls=[call])).tool_results
    assert results is not None
    assert "bwrap is not installed" in results[0].text
    assert list(tmp_path.iterdir()) == []


def test_an_isolation_can_be_chosen(maker: Callable[..., BaseAction]) -> None:
    small = Bwrap(Limits(memory=200 * 2**20))
    result = run(maker(isolation=small), "len(bytearray(300 << 20))")
    assert not result.success, "it takes more memory than it may"
    with pytest.raises(InvalidArgument, match="unsafe_local"):
        maker(isolation="no")


def test_toolsets_whose_code_cannot_be_isolated_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {tool.name for tool in tools_of(["code", "terminal"])} == {"code_interpreter", "terminal", "process"}
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert tools_of(["code", "terminal", "file"]) == []


def test_a_program_in_this_machine_is_asked_for_by_name(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    returned = PythonInterpreter(answer_expr=None, isolation="unsafe_local")(f"open({str(marker)!r}, 'w').close()\n1")
    assert isinstance(returned, ActionReturn)
    assert returned.text == "1"
    assert marker.exists()
