"""What went wrong in Lagent does not go wrong here: one test for each defect seen there, named for it."""

from __future__ import annotations

import ast
import asyncio
import configparser
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest

import lagentlike
from lagentlike.actions import ActionExecutor, AsyncActionExecutor, BaseAction, IPythonInteractive, tool, tool_api
from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncReAct,
    AsyncSequential,
    AsyncStreamingSequential,
    Sequential,
    StreamingAgent,
    StreamingSequential,
)
from lagentlike.errors import AuthenticationFailed, ConnectFailed, InvalidArgument, LLMError, ServerError
from lagentlike.hooks import Hook
from lagentlike.llms import AsyncGPTAPI, AsyncScriptedLLM, GPTAPI, ScriptedLLM
from lagentlike.memory import Memory, SessionValue
from lagentlike.schema import AgentMessage, FunctionCall

PACKAGE = Path(lagentlike.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
HI = [{"role": "user", "content": "hi"}]


def test_a_row_takes_its_own_state_back() -> None:
    row = Sequential(Agent(ScriptedLLM(["a"])), Agent(ScriptedLLM(["b"])))
    row("hi")
    state = row.state_dict()
    assert row.load_state_dict(state) == ([], [])
    assert row.state_dict() == state


def test_assigning_none_over_a_child_takes_it_out() -> None:
    agent = Agent()
    agent.child = Agent()
    agent.child = None
    assert list(agent.children()) == []
    assert list(agent.state_dict()) == ["memory"]


def test_a_forward_that_raises_leaves_no_unanswered_message() -> None:
    agent = Agent(ScriptedLLM([LookupError("down"), "fine"]))
    with pytest.raises(LookupError):
        agent("lost")
    agent("hi")
    assert [message["content"] for message in agent.state_dict()["memory"]] == ["hi", "fine"]


async def test_concurrent_calls_of_one_session_do_not_interleave() -> None:
    async def slowly(messages: Any, params: Any) -> str:
        await asyncio.sleep(0.001)
        return "r"

    agent = AsyncAgent(AsyncScriptedLLM(slowly))
    await asyncio.gather(*(agent("q") for _ in range(10)))
    assert [message["content"] for message in agent.state_dict()["memory"]] == ["q", "r"] * 10


async def test_an_async_hook_works_in_an_async_agent() -> None:
    class Later(Hook):
        async def before_agent(self, agent: Any, messages: Any, session_id: Any) -> None:
            await asyncio.sleep(0.001)
            messages[0].content += "!"

    agent = AsyncAgent(AsyncScriptedLLM(lambda messages, params: messages[-1]["content"]), hooks=Later())
    assert (await agent("hi")).content == "hi!"


def test_one_message_returned_by_a_hook_stays_one_message() -> None:
    class Replacing(Hook):
        def before_agent(self, agent: Any, messages: Any, session_id: Any) -> AgentMessage:
            return AgentMessage(content="one")

    class Counting(Agent):
        def forward(self, *message: AgentMessage, session_id: Any = 0) -> str:
            return f"{len(message)}: {message[0].content}"

    assert Counting(hooks=Replacing())("hi").content == "1: one"


def test_one_retry_against_a_closed_port_ends() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        llm = GPTAPI("m", key="k", retry=1, api_base=f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        with pytest.raises(ConnectFailed):
            llm.chat(HI)


class Completions(BaseHTTPRequestHandler):
    """A server of chat completions that remembers what it was asked and over how many connections."""

    protocol_version = "HTTP/1.1"
    status = 200
    connections = 0
    asked: list[dict[str, Any]]

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(request)
        choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
        answer = {"choices": [choice]} if self.status == 200 else {"error": {"message": "no"}}
        body = json.dumps(answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the base class
        """Nothing on stderr."""


@contextmanager
def completions(status: int = 200) -> Iterator[tuple[str, Any]]:
    handler: Any = type("Handler", (Completions,), {"status": status, "asked": [], "connections": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions", handler
        finally:
            server.shutdown()
            thread.join()


def test_any_model_name_is_asked_and_the_tokens_are_not_cut() -> None:
    with completions() as (url, handler):
        assert GPTAPI("my-own-model-9", key="k", api_base=url, max_new_tokens=50_000).chat(HI) == "hello"
    asked = handler.asked[0]
    assert asked["model"] == "my-own-model-9"
    assert 50_000 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))


def test_no_async_code_sleeps_with_its_thread() -> None:
    class Sleeps(ast.NodeVisitor):
        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            for child in node.body:
                calls = [inner for inner in ast.walk(child) if isinstance(inner, ast.Call)]
                sleeps = [call for call in calls if ast.unparse(call.func) in ("time.sleep", "sleep")]
                found.extend(f"{path.name}:{call.lineno}" for call in sleeps)
            self.generic_visit(node)

    found: list[str] = []
    for path in SOURCES:
        Sleeps().visit(ast.parse(path.read_text(encoding="utf-8")))
    assert found == []


async def test_requests_share_a_connection() -> None:
    with completions() as (url, handler):
        llm = AsyncGPTAPI("m", key="k", api_base=url)
        for _ in range(20):
            await llm.chat(HI)
        assert len(handler.asked) == 20
        assert handler.connections == 1


@tool
def everything(
    numbers: list[int],
    table: dict[str, float],
    mode: Literal["fast", "slow"],
    note: str | None = None,
    *,
    size: int | str = 3,
) -> str:
    """Take all kinds of things."""
    return ""


def test_schemas_keep_their_types_and_what_is_required() -> None:
    (described,) = ActionExecutor([everything]).tools()
    schema = described["function"]["parameters"]
    kinds = schema["properties"]
    assert kinds["numbers"]["type"] == "array"
    assert kinds["numbers"]["items"]["type"] == "integer"
    assert kinds["table"]["type"] == "object"
    assert kinds["table"]["additionalProperties"]["type"] == "number"
    assert kinds["mode"]["enum"] == ["fast", "slow"]
    assert "string" in json.dumps(kinds["note"])
    assert "integer" in json.dumps(kinds["size"])
    assert schema["required"] == ["numbers", "table", "mode"]


def test_the_session_reaches_the_tool() -> None:
    class Remembering(BaseAction):
        """Tells the session."""

        @tool_api
        def run(self, session_id: Any = 0) -> str:
            """Tell the session."""
            return repr(session_id)

    executor = ActionExecutor([Remembering(), IPythonInteractive()])
    call = AgentMessage(content=FunctionCall("Remembering", {}))
    assert executor(call, session_id=("user", 7)).content.text == "('user', 7)"
    shell = [
        AgentMessage(content={"name": "IPythonInteractive", "parameters": {"command": code}}) for code in ("x = 1", "x")
    ]
    executor(shell[0], session_id="a")
    assert executor(shell[1], session_id="a").content.text == "1"
    assert "NameError" in executor(shell[1], session_id="b").content.text


def test_the_executor_is_in_the_tree_and_in_the_state() -> None:
    class Notes(BaseAction):
        def __init__(self) -> None:
            super().__init__()
            self.notes = SessionValue(list)

        @tool_api
        def run(self, note: str, session_id: Any = 0) -> str:
            """Keep a note."""
            self.notes[session_id].append(note)
            return "kept"

    agent = Agent()
    agent.executor = ActionExecutor([Notes()])
    agent.executor(AgentMessage(content=FunctionCall("Notes", {"note": "milk"})))
    assert agent.get_submodule("executor") is agent.executor
    assert agent.state_dict() == {"memory": [], "executor.Notes.notes": ["milk"]}
    assert "(executor): ActionExecutor" in repr(agent)


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationFailed), (500, ServerError), (404, LLMError)])
def test_errors_of_a_server_are_raised(status: int, error: type[LLMError]) -> None:
    with completions(status) as (url, _), pytest.raises(error) as caught:
        GPTAPI("m", key="k", retry=0, api_base=url).chat(HI)
    assert caught.value.status == status


def test_a_server_runs_from_any_folder(tmp_path: Path) -> None:
    code = """
import asyncio, urllib.request
from lagentlike.llms import AsyncTinyLM
from lagentlike.serving.model_server import ModelServer
async def main():
    async with ModelServer(AsyncTinyLM(), port=0) as server:
        url = server.url.replace("/v1", "/health")
        print(await asyncio.to_thread(lambda: urllib.request.urlopen(url).status))
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "200", done.stderr


MODULES = {
    "griffelib": "griffe",
    "opentelemetry_api": "opentelemetry",
    "pillow": "pil",
    "python_pptx": "pptx",
    "pyzmq": "zmq",
}
"""What packages are imported as, where that is another name."""


def test_every_import_is_declared() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    declared = setup["options"]["install_requires"] + "\n" + "\n".join(setup["options.extras_require"].values())
    names = {re.split(r"[<>=\[ ;]", line.strip())[0].lower().replace("-", "_") for line in declared.splitlines()}
    names |= {module for package, module in MODULES.items() if package in names}
    imported: dict[str, str] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            for module in modules:
                imported.setdefault(module.partition(".")[0], path.name)
    foreign = {name: where for name, where in imported.items() if name not in {*sys.stdlib_module_names, "lagentlike"}}
    undeclared = {name: where for name, where in foreign.items() if name.lower() not in names}
    assert undeclared == {}


def test_deleting_the_first_two_messages_deletes_the_first_two() -> None:
    memory = Memory()
    memory.add(["a", "b", "c"])
    memory.delete([0, 1])
    assert [message.content for message in memory] == ["c"]


def test_removing_a_hook_twice_is_no_error() -> None:
    handle = Agent().register_hook(Hook())
    handle.remove()
    handle.remove()


def test_async_forms_are_instances_of_the_async_class() -> None:
    assert isinstance(AsyncSequential(), AsyncAgent)
    assert isinstance(AsyncStreamingSequential(), AsyncAgent)
    assert isinstance(StreamingSequential(), StreamingAgent)
    assert issubclass(AsyncReAct, AsyncAgent)
    assert issubclass(AsyncActionExecutor, ActionExecutor)


def test_input_is_not_checked_by_assert() -> None:
    """Asserts vanish under `python -O`, and say nothing of the cure; those on a function's arguments check input."""
    found = []
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            arguments = function.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            parameters = {argument.arg for argument in every} - {"self", "cls"}
            for node in ast.walk(function):
                if isinstance(node, ast.Assert):
                    parts = list(ast.walk(node.test))
                    inner = {id(part.value) for part in parts if isinstance(part, ast.Attribute)}
                    bare = {part.id for part in parts if isinstance(part, ast.Name) and id(part) not in inner}
                    if bare & parameters:
                        found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
    with pytest.raises(InvalidArgument):
        Agent(ScriptedLLM([]))("hi", session_id=None)
