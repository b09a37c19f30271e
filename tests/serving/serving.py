"""What the tests of servers share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.serving import AgentServer


def echo(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
    """What the user said so far, as a model's answer."""
    return "heard " + ", ".join(message["content"] for message in messages if message["role"] == "user")


def an_agent(replies: Any = echo, **options: Any) -> AsyncAgent:
    return AsyncAgent(AsyncScriptedLLM(replies), **options)


@asynccontextmanager
async def serving(agent: Any = None, **options: Any) -> AsyncIterator[tuple[AgentServer, Ask]]:
    """A server over an agent, and what asks it: `status, answer = await ask("POST", "/forward", {...})`."""
    async with (
        AgentServer(an_agent() if agent is None else agent, port=0, **options) as server,
        aiohttp.ClientSession(server.url) as http,
    ):

        async def ask(
            method: str, path: str, body: Any = None, token: str | None = None, **more: Any
        ) -> tuple[int, Any]:
            headers = {**more.pop("headers", {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            async with http.request(method, path, data=data, headers=headers, **more) as response:
                return response.status, json.loads(await response.read())

        yield server, ask


Ask = Callable[..., Any]


async def raw(port: int, sent: bytes, wait: float = 60.0) -> bytes:
    """What a server answers to bytes, until it closes or has answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(wait):
            return await reader.read(65536)
    finally:
        writer.close()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something to be so."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it never came"
        await asyncio.sleep(0.005)
