"""Tools of MCP servers: real programs over stdio, real services over HTTP, and none left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from lagentlike.actions import ActionExecutor, AsyncActionExecutor, toolsets
from lagentlike.actions.mcp import MCPServer
from lagentlike.actions.toolsets import register_toolset, resolve_toolset, tools_of
from lagentlike.errors import InvalidArgument, ToolError
from lagentlike.schema import AgentMessage, ToolCall, ToolResult

PROGRAM = '''
import asyncio, os, sys
from mcp.server import MCPServer
from mcp_types import ImageContent, ToolAnnotations

server = MCPServer("probe")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b

@server.tool()
def facts() -> dict[str, str | None]:
    """Tell about the process."""
    return {"pid": str(os.getpid()), "token": os.environ.get("PROBE_TOKEN"), "other": os.environ.get("UNRELATED")}

@server.tool(name="look/around")
def look() -> ImageContent:
    """Give a picture."""
    return ImageContent(type="image", data="iVBORw0KGgo=", mime_type="image/png")

@server.tool()
def fail() -> str:
    """Fail."""
    raise RuntimeError("inside")

@server.tool()
async def wait(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "waited"

if len(sys.argv) > 1:
    server.run("streamable-http", port=int(sys.argv[1]))
else:
    server.run()
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcp") / "probe.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def server(program: Path) -> Iterator[MCPServer]:
    """A server over stdio."""
    with MCPServer(sys.executable, [str(program)], env={"PROBE_TOKEN": "hush"}, timeout=20) as server:
        yield server


class Service:
    """A server over HTTP that can be killed and started again."""

    def __init__(self, program: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.program = program
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(self.program), str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail("the service did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def service(program: Path) -> Iterator[Service]:
    service = Service(program)
    yield service
    service.kill()


def call(executor: ActionExecutor, name: str, **given: Any) -> ToolResult:
    arguments = given.get("arguments", given)
    results = executor(AgentMessage(content="", tool_calls=[ToolCall(name, arguments)])).tool_results
    assert results is not None
    return results[0]


def pid_of(executor: ActionExecutor) -> int:
    return int(json.loads(call(executor, "facts").text)["pid"])


def gone(pid: int, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_tools_keep_names_descriptions_and_schemas(server: MCPServer) -> None:
    executor = ActionExecutor(server.tools())
    shown = {one["function"]["name"]: one["function"] for one in executor.tools()}
    assert list(shown) == ["add", "facts", "look_around", "fail", "wait"]
    assert shown["add"]["description"] == "Add two numbers."
    assert shown["add"]["parameters"]["properties"]["b"] == {"default": 1, "title": "B", "type": "integer"}
    assert shown["add"]["parameters"]["required"] == ["a"]
    add, facts = executor.find("add"), executor.find("facts")
    assert add is not None
    assert facts is not None
    assert (add.read_only, facts.read_only) == (True, False)


def test_calls_give_text_pictures_and_errors(server: MCPServer) -> None:
    executor = ActionExecutor(server.tools())
    assert call(executor, "add", a=2, b=3).text == "5"
    picture = call(executor, "look_around")
    assert picture.metadata["items"] == [{"type": "image", "content": "data:image/png;base64,iVBORw0KGgo="}]
    failed, wrong = call(executor, "fail"), call(executor, "add", a="x")
    assert (failed.success, wrong.success) == (False, False)
    assert "fail" in failed.text
    assert "valid integer" in wrong.text


def test_only_the_given_variables_reach_the_program(server: MCPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRELATED", "private")
    facts = json.loads(call(ActionExecutor(server.tools()), "facts").text)
    assert (facts["token"], facts["other"]) == ("hush", None)


def test_secrets_are_in_no_repr_and_no_state(program: Path) -> None:
    with MCPServer(sys.executable, [str(program)], env={"PROBE_TOKEN": "hush"}) as server:
        executor = ActionExecutor(server.tools())
        assert "hush" not in repr(server) + repr(executor) + json.dumps(executor.state_dict("all"))
    remote = MCPServer(url="https://me:hush@host/mcp?key=hush", headers={"Authorization": "hush"})
    assert repr(remote) == "MCPServer(url='https://host/mcp')"


def test_a_prefix_tells_servers_apart(program: Path) -> None:
    with MCPServer(sys.executable, [str(program)], prefix="a_") as server:
        executor = ActionExecutor(server.tools())
        assert call(executor, "a_add", a=1).text == "2"


def test_a_killed_server_is_reported_and_started_again(server: MCPServer) -> None:
    executor = ActionExecutor(server.tools())
    first = pid_of(executor)
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    results = [call(executor, "add", a=1) for _ in range(2)]  # the first may come before the end is noticed
    assert results[1].text == "2"
    second = pid_of(executor)
    assert second != first
    server.close()
    assert gone(second)


async def test_a_call_under_way_when_the_server_is_killed_fails_and_the_next_one_works(program: Path) -> None:
    async with MCPServer(sys.executable, [str(program)]) as server:
        executor = AsyncActionExecutor(await server.atools())

        async def make(name: str, **arguments: Any) -> ToolResult:
            message = AgentMessage(content="", tool_calls=[ToolCall(name, arguments)])
            results = (await executor(message)).tool_results
            assert results is not None
            return results[0]

        pid = int(json.loads((await make("facts")).text)["pid"])
        waiting = asyncio.create_task(make("wait", seconds=600))
        await make("add", a=1)  # the other one is under way by now
        os.kill(pid, signal.SIGKILL)
        result = await waiting
        assert not result.success
        assert "died during the call" in result.text
        assert (await make("add", a=1)).text == "2"


def test_a_call_that_takes_too_long_ends_and_the_server_lives(program: Path) -> None:
    with MCPServer(sys.executable, [str(program)], timeout=1) as server:
        executor = ActionExecutor(server.tools())
        pid = pid_of(executor)
        result = call(executor, "wait", seconds=600)
        assert not result.success
        assert "1 seconds" in result.text
        assert pid_of(executor) == pid


def test_a_program_that_does_not_start_says_why() -> None:
    with MCPServer(sys.executable, ["-c", "import sys; sys.exit('no licence')"]) as server:
        with pytest.raises(ToolError, match="no licence"):
            server.tools()
        assert "no licence" in str(server.unavailable())
    with MCPServer("/no/such/program") as server, pytest.raises(ToolError, match="cannot be used"):
        server.tools()
    with (
        MCPServer(sys.executable, ["-c", "import time; time.sleep(600)"], connect_timeout=1) as server,
        pytest.raises(ToolError, match="not ready within 1 seconds"),
    ):
        server.tools()


def test_nothing_runs_when_the_tools_are_no_longer_used(program: Path) -> None:
    executor = ActionExecutor(MCPServer(sys.executable, [str(program)]).tools())
    pid = pid_of(executor)
    del executor
    for _ in range(30):  # the loop's thread may hold the last call for a moment
        gc.collect()
        if gone(pid, 1):
            return
    pytest.fail("the server still runs")


def test_a_service_is_called_over_http_and_again_after_it_was_killed(service: Service) -> None:
    with MCPServer(url=service.url, timeout=10, connect_timeout=5) as server:
        executor = ActionExecutor(server.tools())
        assert call(executor, "add", a=2, b=2).text == "4"
        service.kill()
        dead = call(executor, "add", a=1)
        assert not dead.success
        assert not call(executor, "add", a=1).success
        service.start()
        results = [call(executor, "add", a=1) for _ in range(2)]
        assert results[-1].text == "2"


def test_a_service_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        with MCPServer(url=f"http://127.0.0.1:{taken.getsockname()[1]}/mcp", connect_timeout=5) as server:
            assert "cannot be used" in str(server.unavailable())


def test_a_server_is_a_toolset(server: MCPServer) -> None:
    before = dict(toolsets._toolsets)
    try:
        register_toolset(server.toolset("probe"))
        assert resolve_toolset("probe")[:2] == ["add", "facts"]
        register_toolset(MCPServer("/no/such/program").toolset("broken"))
        assert [tool.name for tool in tools_of(["probe", "broken"])][:2] == ["add", "facts"]
    finally:
        toolsets._toolsets.clear()
        toolsets._toolsets.update(before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "the command of a program, or the url"),
        ({"command": "a", "url": "http://b"}, "the command of a program, or the url"),
        ({"url": "ftp://b"}, "starts with http://"),
        ({"command": "a", "args": "b c"}, "a list of texts"),
        ({"command": "a", "timeout": None}, "give seconds"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        MCPServer(**options)


LIAR = """
import json, sys, time

def tool(name, **schema):
    return {"name": name, "inputSchema": {"type": "object", **schema}}

TOOLS = {
    "names": [tool(name) for name in ("a b", "a_b", "a_b", "\u641c\u7d22", "\u8ba1\u7b97", "x" * 70, "x" * 71, "")],
    "schemas": [
        tool("odd", properties={"a": True, "b": {"type": ["string", "null"]}, "c": {"anyOf": [True]}, "d": {"enum": 7}})
    ] + [
        tool("none", properties=None, required=None),
    ],
}
pages = 0
for line in sys.stdin:
    message = json.loads(line)
    method, answer = message.get("method"), {}
    if method == "initialize":
        time.sleep(1.0 if sys.argv[1] == "slow" else 0)
        answer = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}}
        answer["serverInfo"] = {"name": "liar", "version": "1"}
    elif method == "tools/list":
        pages += 1
        answer = {"tools": TOOLS.get(sys.argv[1], [tool("plain")])}
        if sys.argv[1] == "pages":
            answer = {"tools": [], "nextCursor": str(pages)}
        if sys.argv[1] == "nothing":
            answer = {}
    elif method == "tools/call":
        answer = {"content": [{"type": "text", "text": message["params"]["name"]}]}
        if sys.argv[1] == "result":
            answer = {"content": [{"type": "text"}]}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer}), flush=True)
"""


def lying(how: str) -> MCPServer:
    return MCPServer(sys.executable, ["-c", LIAR, how], timeout=20)


def test_tools_whose_names_cannot_be_told_apart_are_numbered() -> None:
    with lying("names") as server:
        executor = ActionExecutor(server.tools())
        assert executor.keys() == ["a_b", "a_b_2", "a_b_3", "__", "___2", "x" * 64, "x" * 60 + "_2", "_"]
        assert call(executor, "___2").text == "计算"
        assert call(executor, "x" * 60 + "_2").text == "x" * 71


def test_odd_schemas_can_be_shown() -> None:
    with lying("schemas") as server:
        executor = ActionExecutor(server.tools())
        assert [item["name"] for item in executor.description()[0]["parameters"]] == ["a", "b", "c", "d"]
        assert "It takes a (any, optional), b (string or null, optional)" in call(executor, "odd", arguments="[1]").text
        assert call(executor, "none").text == "none"


@pytest.mark.parametrize(("how", "said"), [("pages", "more than 1000 pages"), ("nothing", "what is no answer")])
def test_a_server_that_does_not_list_its_tools_is_unavailable(how: str, said: str) -> None:
    with lying(how) as server:
        with pytest.raises(ToolError, match=said):
            server.tools()
        assert said in str(server.unavailable())


def test_an_answer_that_is_none_is_told() -> None:
    with lying("result") as server:
        assert "the MCP server gave what is no answer" in call(ActionExecutor(server.tools()), "plain").text


async def test_who_gives_up_waiting_for_a_slow_server_may_ask_again() -> None:
    async with lying("slow") as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.atools(), 0.3)
        assert [tool.name for tool in await server.atools()] == ["plain"]
