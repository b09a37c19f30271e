"""The sandbox server and the ToolServer: who gets in, what is refused, and what comes back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lagentlike.errors import InvalidArgument, SandboxError, SlotLost
from lagentlike.sandbox import SandboxServer, ToolServer, ToolServerClient, UnsafeLocal
from lagentlike.sandbox.client import RemoteHost
from lagentlike.sandbox.host import HostCall
from lagentlike.sandbox.machine import MachineHost
from lagentlike.schema import ToolCall
from lagentlike.tools import calculator, tool, ToolRegistry

from .places import ROOT, server_environment

TOKEN = "a-token-of-some-length"
ROUTES = [
    ("GET", "/slots"),
    ("POST", "/execute"),
    ("POST", "/batch"),
    ("POST", "/reset"),
    ("POST", "/artifacts/read"),
    ("POST", "/artifacts/list"),
    ("POST", "/artifacts/archive"),
]


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[SandboxServer]:
    host = MachineHost(UnsafeLocal(), 2)
    async with SandboxServer(host, TOKEN, **{"port": 0, **options}) as server:
        yield server


async def started(folder: Path, orphan_seconds: int, *container: str) -> tuple[asyncio.subprocess.Process, RemoteHost]:
    """The program of a server on a socket in the folder, in a process of its own, and what asks it."""
    (folder / "token").write_text(TOKEN)
    words = ["--slots", "1", "--isolation", "unsafe_local", "--network", "--orphan-seconds", str(orphan_seconds)]
    words += ["--socket", str(folder / "s"), "--token-file", str(folder / "token")]
    process = await asyncio.create_subprocess_exec(
        *(*container, sys.executable, "-m", "lagentlike.sandbox.server", *words),
        env=server_environment({}, folder),
        stderr=asyncio.subprocess.DEVNULL,
    )
    host = RemoteHost("h", TOKEN, socket=str(folder / "s"))
    await host.connect(60)
    return process, host


@asynccontextmanager
async def asking(server: SandboxServer | ToolServer, token: str = TOKEN) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", headers=headers) as session:
        yield session


async def post(session: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, Any]:
    async with session.post(path, json=body) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("token", ["", "a-token-of-some-lengtH", TOKEN[:-1], TOKEN + "x", "é" * 16])
async def test_nobody_gets_in_without_the_token(token: str) -> None:
    async with serving() as server, aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for method, path in [*ROUTES, ("GET", "/nothing")]:
            async with session.request(method, path, headers=headers, json={}) as response:
                assert response.status == 401, path
                assert "Bearer" in (await response.json())["error"]
        async with session.get("/health") as response:
            assert await response.json() == {"status": "ok"}


@pytest.mark.parametrize("token", ["", "short", "ü" * 20, None, "tab\tinside-of-the-token"])
def test_a_token_that_keeps_nobody_out_is_refused(token: Any) -> None:
    host = MachineHost(UnsafeLocal(), 1)
    with pytest.raises(InvalidArgument, match="at least 16"):
        SandboxServer(host, token, port=0)
    with pytest.raises(InvalidArgument, match="at least 16"):
        ToolServer(ToolRegistry(), token)
    asyncio.run(host.close())


async def test_every_route_does_what_it_says() -> None:
    async with serving() as server, asking(server) as session:
        async with session.get("/slots") as response:
            slots = (await response.json())["slots"]
        assert list(slots) == ["slot-1", "slot-2"]
        call = {"slot": "slot-1", "tool": "bash", "arguments": {"command": "echo hi > f; pwd"}}
        status, result = await post(session, "/execute", {**call, "timeout_s": 30})
        assert (status, result["success"], result["output"]) == (200, True, slots["slot-1"] + "\n")
        calls = [{**call, "slot": name, "arguments": {"command": f"echo {name}"}} for name in slots]
        status, answer = await post(session, "/batch", {"calls": calls, "timeout_s": 30})
        assert [one["output"] for one in answer["results"]] == ["slot-1\n", "slot-2\n"]
        where = {"slot": "slot-1", "path": "f"}
        assert (await post(session, "/artifacts/read", {**where, "max_bytes": 9}))[1]["content"] == "aGkK"
        listed = await post(session, "/artifacts/list", {"slot": "slot-1", "path": ".", "recursive": False})
        assert listed[1]["entries"][0][:3] == ["f", "file", 3]
        assert (await post(session, "/artifacts/archive", {**where, "max_bytes": 9999}))[1]["success"]
        assert (await post(session, "/artifacts/read", {**where, "path": "../x", "max_bytes": 9}))[0] == 404
        status, clean = await post(session, "/reset", {"slot": "slot-1"})
        assert (status, clean["slot"]) == (200, "slot-3")
        assert not Path(slots["slot-1"]).exists()
        assert (await post(session, "/reset", {"slot": "slot-1"}))[0] == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/execute", {"slot": "slot-9", "tool": "bash", "arguments": {"command": "ls"}, "timeout_s": 1}),
        ("/execute", {"slot": ["slot-1"], "tool": "bash", "arguments": {"command": "ls"}, "timeout_s": 1}),
        ("/execute", {"slot": "slot-1", "tool": "artifacts/read", "arguments": {}, "timeout_s": 1}),
        ("/execute", {"slot": "slot-1", "tool": "bash", "arguments": {"command": 5}, "timeout_s": 1}),
        ("/execute", {"slot": "slot-1", "tool": "bash", "arguments": {"command": "ls"}, "timeout_s": 1e9}),
        ("/execute", {"slot": "slot-1", "tool": "bash", "arguments": {"command": "ls"}}),
        ("/execute", {"slot": "slot-1", "tool": "bash", "arguments": {"command": "ls"}, "timeout_s": 1, "x": 1}),
        ("/execute", [1]),
        ("/batch", {"calls": {"a": 1}, "timeout_s": 1}),
        ("/batch", {"calls": [{"slot": "slot-1"}], "timeout_s": 1}),
        ("/batch", {"calls": [{}] * 2000, "timeout_s": 1}),
        ("/reset", {"slot": "../slot-1"}),
        ("/artifacts/read", {"slot": "slot-1", "path": "f", "max_bytes": True}),
        ("/artifacts/read", {"slot": "slot-1", "path": "f", "max_bytes": -1}),
        ("/artifacts/read", {"slot": "slot-1", "path": "f", "max_bytes": 2**62}),
        ("/artifacts/archive", {"slot": "slot-1", "path": ".", "max_bytes": -1}),
        ("/artifacts/read", {"slot": "slot-1", "path": "", "max_bytes": 1}),
        ("/artifacts/list", {"slot": "slot-1", "path": "x" * 5000, "recursive": False}),
    ],
)
async def test_what_no_client_would_send_is_refused(path: str, body: Any) -> None:
    async with serving() as server, asking(server) as session:
        status, answer = await post(session, path, body)
        assert status == 400
        assert answer["error"]


async def test_bodies_that_are_no_json_or_too_large_are_refused() -> None:
    async with serving() as server, asking(server) as session:
        for body, expected in ((b"{", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b" " * 5_000_000, 413)):
            async with session.post("/execute", data=io.BytesIO(body)) as response:
                assert response.status == expected
        async with session.get("/execute") as response:
            assert response.status == 405
        async with session.post("/execute", data=b"no gzip", headers={"Content-Encoding": "gzip"}) as response:
            assert (response.status, await response.json()) == (
                400,
                {"error": "the body cannot be unpacked, or broke off"},
            )


async def test_a_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "server"
    async with serving(port=None, socket=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        host = RemoteHost("h", TOKEN, socket=str(path))
        await host.connect(10)
        assert list(host.slots()) == ["slot-1", "slot-2"]
        await host.close()
        with pytest.raises(InvalidArgument, match="cannot listen there: Address already in use"):
            async with serving(port=None, socket=path):
                raise AssertionError("two servers on one socket")
        assert path.exists(), "it is the first one's"
    assert not path.exists()
    with pytest.raises(InvalidArgument, match="cannot listen there: AF_UNIX path too long"):
        async with serving(port=None, socket=tmp_path / ("x" * 200)):
            raise AssertionError


@pytest.mark.parametrize("port", [-1, 70_000, True, "8080"])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"port=.*from 0 \(any free port\) to 65535"):
        ToolServer(ToolRegistry(), TOKEN, port=port)


async def test_a_server_that_misses_a_beat_is_asked_again() -> None:
    asked = 0

    async def slots(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=502, text="<html>Bad gateway") if asked < 3 else web.json_response({"slots": {}})

    app = web.Application()
    app.router.add_get("/slots", slots)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = RemoteHost("h", TOKEN, url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    assert await host.alive()
    await runner.cleanup()
    assert not await host.alive()
    await host.close()


async def test_a_client_that_leaves_ends_its_command() -> None:
    async with serving() as server:
        host = RemoteHost("h", TOKEN, url=f"http://127.0.0.1:{server.port}")
        await host.connect(10)
        stream = host.run_batch([HostCall("slot-1", "bash", {"command": "sleep 300"})], 300)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):  # the slot is lost, since nobody knows what the command has done
            while not (await server.host.run("slot-1", "bash", {"command": "true"}, 30)).lost:
                await asyncio.sleep(0.05)
        await host.close()


HOSTILE = [
    b"",
    b"\n",
    b"garbage\n",
    b'{"index": 0}\n',
    b'{"index": 7, "result": {"success": true}}\n',
    b'{"index": [], "result": {"success": true}}\n',
    b'{"index": 0, "result": {"success": true, "outp',
    b'{"index": 0, "result": {"success": "yes"}}\n',
    b'{"index": 0, "result": {"success": true, "output": {"a": 1}}}\n',
    b'{"index": 0, "result": {"success": true, "exit_code": 1e300}}\n',
    b'{"index": 0, "result": NaN}\n',
    b'{"index": 0, "result": ' + b"[" * 100_000 + b"\n",
    b"[" + b"1," * 10_000 + b"1]\n",
    b"\x80\x04\x95.\n",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_a_hostile_server_says_is_no_result(line: bytes) -> None:
    async def batch(request: web.Request) -> web.Response:
        return web.Response(body=line)

    app = web.Application()
    app.router.add_post("/batch", batch)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = RemoteHost("h", TOKEN, url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        calls = [HostCall("slot-1", "bash", {"command": "ls"})]
        try:
            results = [result async for _, result in host.run_batch(calls, 5)]
        except SlotLost:
            return
        assert all(result.lost for result in results)
    finally:
        await host.close()
        await runner.cleanup()


async def test_the_program_serves_until_it_is_told_to_end_or_nobody_comes(tmp_path: Path) -> None:
    process, host = await started(tmp_path, 3)
    assert not (tmp_path / "token").exists()
    results = [one async for _, one in host.run_batch([HostCall("slot-1", "bash", {"command": "echo hi"})], 30)]
    assert results[0].output == "hi\n"
    await host.close()
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def test_the_first_process_of_a_container_reaps_what_commands_leave_behind(tmp_path: Path) -> None:
    """Else what has ended counts as a process for ever, until a slot may start no more."""
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() or subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("it takes root to make a namespace of processes")
    process, host = await started(tmp_path, 60, *container)
    commands = ("(setsid sleep 0.1 &)", "sleep 0.5; ps -e -o stat= -o args= | grep ^Z; kill -TERM 1")
    results = []
    for command in commands:
        call = HostCall("slot-1", "bash", {"command": command})
        results += [one async for _, one in host.run_batch([call], 30)]
    assert [one.output for one in results] == ["", ""]
    await host.close()
    async with asyncio.timeout(60):
        assert await process.wait() == 0, "it is told to end as any other process"


def test_the_program_refuses_to_start_without_a_token_or_with_a_network_that_slots_must_not_have(
    tmp_path: Path,
) -> None:
    def told(words: list[str], **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lagentlike.sandbox.server", "--port", "0", *words],
            env=server_environment(environment, tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        return done.stderr

    assert "at least 16" in told(["--isolation", "unsafe_local", "--network"])
    if any(name.name != "lo" for name in Path("/sys/class/net").iterdir()):
        refusal = told(["--isolation", "unsafe_local"], LAGENTLIKE_SANDBOX_TOKEN=TOKEN)
        assert "slots shall have no network" in refusal


async def test_the_tool_server_serves_all_but_what_belongs_into_a_sandbox() -> None:
    @tool
    def fail() -> str:
        """Fail."""
        raise OSError("no such thing")

    tools = ToolRegistry(["bash", calculator, fail])
    async with ToolServer(tools, TOKEN) as server, asking(server) as session:
        async with session.get("/tools") as response:
            names = [one["function"]["name"] for one in (await response.json())["tools"]]
        assert names == ["calculator", "fail"]
        body = {"name": "calculator", "arguments": {"expression": "6*7"}, "id": "c", "session_id": "t"}
        status, result = await post(session, "/execute", body)
        assert (status, result["output"], result["id"]) == (200, "42", "c")
        assert (await post(session, "/execute", {**body, "arguments": {}}))[1]["success"] is False
        assert "no such thing" in (await post(session, "/execute", {"name": "fail"}))[1]["error"]
        for wrong in ({"name": "bash"}, {"name": 5}, {**body, "session_id": {}}, {**body, "timeout_s": "1"}, {"x": 1}):
            assert (await post(session, "/execute", wrong))[0] == 400
        async with aiohttp.ClientSession(server.url) as stranger, stranger.get("/tools") as response:
            assert response.status == 401


async def test_the_client_of_a_tool_server_tells_when_it_is_away() -> None:
    with pytest.raises(InvalidArgument, match="tool_server_token"):
        ToolServerClient("http://127.0.0.1:1", None)
    client = ToolServerClient("http://127.0.0.1:1", TOKEN)
    with pytest.raises(SandboxError, match="does not answer"):
        await client.execute(ToolCall("x", {}), "t", 1)
    await client.close()


def test_the_server_runs_where_only_base_dependencies_are() -> None:
    code = (
        "import sys, lagentlike.sandbox.server; print(sorted({m.split('.')[0] for m in sys.modules} & set(sys.argv)))"
    )
    heavy = ["numpy", "tokenizers", "torch", "jupyter_client", "IPython", "griffe", "modal"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.replace("'", '"')) == []
