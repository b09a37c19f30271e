"""What must happen when clients of a server are many, slow, hostile or gone: rows S1 to S9 of the faults."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lagentlike.actions import AsyncActionExecutor, AsyncIPythonInterpreter, tool
from lagentlike.agents import AsyncAgent, AsyncReAct, AsyncStreamingAgent
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.memory import SessionValue
from lagentlike.schema import AgentMessage, ToolCall
from lagentlike.serving import AgentServer, Limits, ModelServer

from .serving import an_agent, echo, raw, serving, status_of, until

SMALL = Limits(body=10_000, read=2.0, write=2.0)


def turn(message: Any = "one", session_id: Any = "ann") -> dict[str, Any]:
    return {"message": message, "session_id": session_id}


def request(body: bytes = b"{}", *headers: bytes, length: bool = True) -> bytes:
    lines = [b"POST /forward HTTP/1.1", b"Host: 127.0.0.1", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# S1


class Team(AsyncAgent):
    """An agent with a memory, a value and a child of its own for each session."""

    def __init__(self, llm: Any) -> None:
        super().__init__()
        self.inner = AsyncAgent(llm)
        self.notes = SessionValue(list)

    async def forward(self, message: AgentMessage, session_id: Any = 0) -> AgentMessage:
        self.notes[session_id].append(message.content)
        return await self.inner(message, session_id=session_id)


async def test_no_session_sees_anything_of_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent = Team(AsyncScriptedLLM(echo, latency=0.002))
    tokens = {f"user{number}": f"token-{number}" for number in range(10)}
    canaries = {f"s{number}": f"canary-{os.urandom(8).hex()}" for number in range(100)}
    async with serving(agent, token=tokens, store=tmp_path / "s.db", max_sessions=30) as (_, ask):

        async def converse(name: str, canary: str) -> tuple[list[str], Any]:
            token = f"token-{int(name[1:]) % 10}"
            said = []
            for number in range(5):
                answer = await ask("POST", "/forward", turn(f"{canary}-{number}", name), token)
                said.append(answer[1]["message"]["content"])
            return said, (await ask("GET", f"/sessions/{name}/state", token=token))[1]

        found = await asyncio.gather(*(converse(*item) for item in canaries.items()))
        assert len(agent.session_ids()) <= 30
    for (name, canary), (said, state) in zip(canaries.items(), found, strict=True):
        assert said[-1] == "heard " + ", ".join(f"{canary}-{number}" for number in range(5))
        seen = set(re.findall(r"canary-[0-9a-f]{16}", json.dumps([said, state])))
        assert seen == {canary}, f"{name} sees what is not its own"
        assert state["notes"] == [f"{canary}-{number}" for number in range(5)]
    assert "canary-" not in caplog.text


# S2


@pytest.mark.parametrize("kind", ["agent", "model"])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(kind: str) -> None:
    server = AgentServer(an_agent(), port=0) if kind == "agent" else ModelServer(AsyncScriptedLLM(["x"]), port=0)
    path = b"/forward" if kind == "agent" else b"/v1/chat/completions"
    async with server:
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % path
        declared = await raw(server.port, head + b"Content-Length: 10000000000\r\n\r\n")
        assert status_of(declared) == 413
        chunk = b"%x\r\n%b\r\n" % (2**17, b"x" * 2**17)
        chunked = await raw(server.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 12)
        assert status_of(chunked) == 413


async def test_a_compressed_body_is_refused_unread() -> None:
    async with serving() as (_, ask):
        bomb = gzip.compress(b"0" * 10_000_000)
        status, answer = await ask("POST", "/forward", bomb, headers={"Content-Encoding": "gzip"})
        assert (status, answer["error"]["message"]) == (415, "the body is compressed: send it as it is")


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: y\r\n" % number for number in range(100_000)),
        b"".join(b"X-%d: y\r\n" % number for number in range(200)),
        b"X-Long: " + b"y" * 100_000 + b"\r\n",
    ],
    ids=["100000 headers", "200 headers", "a long one"],
)
async def test_headers_that_are_too_many_or_too_long_are_refused(headers: bytes) -> None:
    async with serving() as (server, _):
        answer = await raw(server.port, b"POST /forward HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        assert status_of(answer) == 431
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"].startswith("the headers are too")


async def test_an_address_of_a_mebibyte_is_refused() -> None:
    async with serving() as (server, _):
        answer = await raw(server.port, b"GET /sessions/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 2**20))
        assert status_of(answer) in (400, 431)


# S3


async def test_slow_and_idle_clients_are_dropped_and_the_others_are_served() -> None:
    async with serving(limits=SMALL) as (server, ask):
        connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        for number, (_, writer) in enumerate(connections):
            if number % 3 == 1:
                writer.write(b"POST /forward HTTP/1.1\r\nHost: loc")  # a head that does not end
            elif number % 3 == 2:
                writer.write(request(b"{}" * 10, length=False)[:-20] + b"Content-Length: 5000\r\n\r\n{")
        answers = await asyncio.gather(*(ask("POST", "/forward", turn(session_id=f"s{n}")) for n in range(20)))
        assert [status for status, _ in answers] == [200] * 20
        async with asyncio.timeout(60):
            await asyncio.gather(*(reader.read() for reader, _ in connections))  # each is closed from over there
        for _, writer in connections:
            writer.close()


async def test_a_body_that_comes_too_slowly_is_refused() -> None:
    async with serving(limits=SMALL) as (server, _):
        answer = await raw(server.port, request(b"{" * 10) + b"Content-Length: 5000\r\n\r\n{")
        assert status_of(answer) == 400
        slow = b"POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{"
        assert status_of(await raw(server.port, slow)) == 408


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    class Flood(AsyncStreamingAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            for number in itertools.count():
                yield AgentMessage(content=str(number) * 20_000, sender="flood")

    agent = Flood()
    async with serving(agent, limits=SMALL) as (server, ask):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        body = json.dumps(turn()).encode()
        writer.write(request(body).replace(b"/forward", b"/stream"))
        await until(lambda: len(server.sessions) == 1)
        await until(lambda: len(server.sessions) == 0)
        assert agent.session_ids() == []
        writer.transport.abort()
        assert (await ask("GET", "/health"))[0] == 200
        del reader


async def test_a_long_wait_shows_signs_of_life() -> None:
    agent = AsyncStreamingAgent(AsyncScriptedLLM(echo, latency=1.0))
    async with (
        serving(agent, limits=Limits(ping=0.1)) as (server, _),
        aiohttp.ClientSession() as http,
        http.post(server.url + "/stream", json=turn()) as response,
    ):
        said = await response.read()
        assert said.startswith(b": ping\n\n")
        assert b'"reply"' in said


# S4


async def test_only_who_has_a_token_is_let_in_and_sees_its_own_sessions() -> None:
    async with serving(token={"ann": "the-token-of-ann", "bob": "the-token-of-bob"}) as (server, ask):
        for token in (None, "", "wrong", "the-token-of-an", "the-token-of-ann2", "THE-TOKEN-OF-ANN"):
            for method, path in (
                ("POST", "/forward"),
                ("GET", "/sessions"),
                ("GET", "/v1/models"),
                ("GET", "/nowhere"),
            ):
                assert (await ask(method, path, turn() if method == "POST" else None, token))[0] == 401
        for scheme in ("Basic the-token-of-ann", "the-token-of-ann", "Bearer", "Bearer the-token-of-ann x"):
            assert (await ask("GET", "/sessions", headers={"Authorization": scheme}))[0] == 401
        assert (await ask("GET", "/health"))[0] == 200
        await ask("POST", "/forward", turn("secret"), "the-token-of-ann")
        for method, path, body in (
            ("GET", "/sessions/ann", None),
            ("GET", "/sessions/ann/state", None),
            ("DELETE", "/sessions/ann", None),
            ("POST", "/sessions/ann/fork", {"new_session_id": "mine"}),
        ):
            assert (await ask(method, path, body, "the-token-of-bob"))[0] == 404
        assert (await ask("GET", "/sessions", token="the-token-of-bob"))[1] == {"sessions": []}
        answer = (await ask("POST", "/forward", turn("two"), "the-token-of-bob"))[1]
        assert answer["message"]["content"] == "heard two"
        assert (await ask("GET", "/sessions", token="the-token-of-ann"))[1] == {"sessions": ["ann"]}
        assert server.unit.session_ids() == [("ann", "ann"), ("bob", "ann")]


# S5


@pytest.mark.parametrize(
    "session_id",
    [
        "../x",
        "%2e%2e",
        "a/b",
        "a\x00",
        "",
        "x" * 65,
        "x" * 9000,
        "аnn",
        "ann\n",
        " ann",
        "a b",
        1,
        True,
        1.5,
        [],
        {},
        ["a"],
    ],
)
async def test_a_session_id_that_is_none_is_refused(session_id: Any) -> None:
    async with serving() as (_, ask):
        status, answer = await ask("POST", "/forward", turn(session_id=session_id))
        assert (status, answer["error"]["code"]) == (400, "bad_session_id")
        body = {"model": "AsyncAgent", "messages": [{"role": "user", "content": "x"}]}
        status, answer = await ask("POST", "/v1/chat/completions", {**body, "user": session_id})
        assert (status, answer["error"]["code"]) == (400, "bad_session_id")
        assert await ask("GET", "/sessions") == (200, {"sessions": []})


@pytest.mark.parametrize(
    "path", ["%2e%2e", "a%2fb", "a%00", "%ff", "a%20b", "a.b", "%D0%B0nn", "x" * 65, "..%2f..%2fetc%2fpasswd"]
)
async def test_a_session_id_in_a_path_that_is_none_is_refused(path: str) -> None:
    async with serving() as (server, _):
        for rest in (b"", b"/state"):
            answer = await raw(
                server.port, b"GET /sessions/%b%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (path.encode(), rest)
            )
            assert status_of(answer) == 400


# S6

SMUGGLING = {
    "CL and TE": (
        b"POST /forward HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two CL": b"POST /forward HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "CL with a sign": b"POST /forward HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}",
    "xchunked": b"POST /forward HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two Host": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "obs-fold": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\n\r\n",
    "bare LF": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "LF in a chunk extension": (
        b"POST /forward HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;a\nxx\r\n{}\r\n0\r\n\r\n"
    ),
    "NUL": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: b\x00c\r\n\r\n",
    "space before the colon": b"POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Length : 2\r\n\r\n{}",
}


@pytest.mark.parametrize("vector", SMUGGLING)
async def test_what_smuggles_requests_is_refused(vector: str) -> None:
    async with serving() as (server, _):
        answer = await raw(server.port, SMUGGLING[vector].replace(b"Host: a\r", b"Host: localhost\r"))
        assert status_of(answer) == 400
        assert answer.count(b"HTTP/1.1") == 1


# S7


async def test_pages_of_elsewhere_get_nothing() -> None:
    async with serving() as (server, ask):
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}", "file://", "http://["):
            for method in ("POST", "OPTIONS"):
                headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                async with (
                    aiohttp.ClientSession() as http,
                    http.request(method, server.url + "/forward", json=turn(), headers=headers) as response,
                ):
                    assert response.status == 403
                    assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert (await ask("POST", "/forward", turn(), headers={"Origin": server.url}))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "localhost@x"]
)
async def test_a_foreign_host_name_gets_nothing(host: str) -> None:
    async with serving() as (server, ask):
        answer = await raw(server.port, b"GET /sessions HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        assert status_of(answer) in (400, 403)
        assert (await ask("GET", "/sessions", headers={"Host": f"LOCALHOST:{server.port}"}))[0] == 200


async def test_further_host_names_can_be_let_in() -> None:
    async with serving(hosts=["Agents.Example"]) as (_, ask):
        assert (await ask("GET", "/sessions", headers={"Host": "agents.example"}))[0] == 200
        assert (await ask("GET", "/sessions", headers={"Host": "evil.example"}))[0] == 403


# S8


@pytest.mark.parametrize(
    "key", ["model", "messages", "url", "tools", "api_base", "key", "template", "llm", "__class__"]
)
async def test_keys_meant_for_the_model_are_refused(key: str) -> None:
    llm = AsyncScriptedLLM(echo)
    async with serving(AsyncAgent(llm)) as (_, ask):
        assert (await ask("POST", "/forward", {**turn(), key: "x"}))[0] == 400
        assert (await ask("POST", "/forward", {**turn(), "params": {key: "x"}}))[0] == 400
        if key not in ("model", "messages"):
            body = {"model": "AsyncAgent", "messages": [{"role": "user", "content": "x"}], key: [{"x": 1}]}
            assert (await ask("POST", "/v1/chat/completions", body))[0] == 400
    assert llm.requests == []


# S9


@pytest.mark.parametrize("path", ["/forward", "/stream", "/v1/chat/completions"])
async def test_a_client_that_leaves_takes_its_turn_with_it(path: str) -> None:
    begun, ended = [], []

    class Long(AsyncStreamingAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            begun.append(session_id)
            try:
                for number in range(1000):
                    yield str(number)
                    await asyncio.sleep(0.05)
            finally:
                ended.append(session_id)

    agent = Long()
    chat = {"model": "Long", "messages": [{"role": "user", "content": "x"}], "stream": True, "user": "ann"}
    async with serving(agent) as (server, ask):
        http = aiohttp.ClientSession()
        asking = asyncio.create_task(http.post(server.url + path, json=chat if "chat" in path else turn()))
        await until(lambda: bool(begun))
        await asyncio.sleep(0.1)
        asking.cancel()
        if asking.done() and not asking.cancelled():
            asking.result().close()
        await http.close()
        await until(lambda: bool(ended))
        assert await ask("GET", "/sessions") == (200, {"sessions": []})
        assert agent.session_ids() == []


async def test_a_client_that_leaves_frees_the_kernel_it_used(tmp_path: Path) -> None:
    interpreter = AsyncIPythonInterpreter(work_dir=str(tmp_path), max_kernels=1)
    marker = interpreter.session_dir("first") / "began"
    cells = ["open('began', 'w').close()\nimport time\ntime.sleep(60)", "6 * 7"]
    replies = [ToolCall("AsyncIPythonInterpreter", {"command": cell}) for cell in cells]
    agent = AsyncReAct(AsyncScriptedLLM([*replies, "done"]), actions=AsyncActionExecutor([interpreter]))
    async with serving(agent) as (server, ask):
        async with aiohttp.ClientSession() as http:
            asking = asyncio.create_task(http.post(server.url + "/forward", json=turn(session_id="first")))
            await until(marker.exists)
            asking.cancel()
        async with asyncio.timeout(60):
            status, answer = await ask("POST", "/forward", turn(session_id="second"))
        assert (status, answer["message"]["content"]) == (200, "done")
        state = (await ask("GET", "/sessions/second/state"))[1]
        assert "42" in json.dumps(state)
    await interpreter.aclose()


async def test_a_tool_sees_the_session_of_its_own_client() -> None:
    seen = []

    @tool
    def whoami(session_id: Any) -> str:
        """Tell the session."""
        seen.append(session_id)
        return "ok"

    def reply(messages: list[dict[str, Any]], params: Any) -> Any:
        return "done" if messages[-1]["role"] == "tool" else ToolCall("whoami", {})

    agent = AsyncReAct(AsyncScriptedLLM(reply), actions=[whoami])
    async with serving(agent, token={"a": "1", "b": "2"}) as (_, ask):
        for token, session_id in (("1", "x"), ("2", "x"), ("1", "y")):
            assert (await ask("POST", "/forward", turn(session_id=session_id), token))[0] == 200
    assert seen == [("a", "x"), ("b", "x"), ("a", "y")]
