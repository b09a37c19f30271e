"""Several servers over one store: turns alternate, and of two at once one is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.serving import AgentServer, AsyncHTTPAgentClient

from .kill_server import say, ServerProcess
from .serving import an_agent, until


@asynccontextmanager
async def servers(place: str, agents: list[AsyncAgent]) -> AsyncIterator[list[AgentServer]]:
    started = [AgentServer(agent, port=0, store=place) for agent in agents]
    for server in started:
        await server.start()
    try:
        yield started
    finally:
        for server in started:
            await server.stop()


async def test_servers_take_turns_in_a_session(store_place: str) -> None:
    async with servers(store_place, [an_agent(), an_agent()]) as both:
        clients = [AsyncHTTPAgentClient(url=server.url) for server in both]
        replies = [(await clients[number % 2](str(number), session_id="ann")).content for number in range(6)]
        assert replies[-1] == "heard 0, 1, 2, 3, 4, 5"
        await asyncio.to_thread(clients[0].reset, "ann")
        assert (await clients[1]("new", session_id="ann")).content == "heard new"


async def test_of_two_turns_at_once_one_is_refused_and_nothing_is_lost(store_place: str) -> None:
    both_begun = asyncio.Barrier(2)

    async def echo_together(messages: Any, params: Any) -> str:
        if messages[-1]["content"] != "after":
            await both_begun.wait()
        return "heard " + ", ".join(message["content"] for message in messages if message["role"] == "user")

    agents = [AsyncAgent(AsyncScriptedLLM(echo_together)) for _ in range(2)]
    async with servers(store_place, agents) as both, aiohttp.ClientSession() as http:

        async def forward(server: AgentServer, text: str, key: str) -> tuple[int, Any]:
            body = {"message": text, "session_id": "ann"}
            async with http.post(f"{server.url}/forward", json=body, headers={"Idempotency-Key": key}) as response:
                return response.status, await response.json()

        answers = await asyncio.gather(forward(both[0], "left", "1"), forward(both[1], "right", "2"))
        assert sorted(status for status, _ in answers) == [200, 409]
        refused = next(answer for status, answer in answers if status == 409)
        assert refused["error"]["code"] == "SessionConflict"
        stood = next(answer for status, answer in answers if status == 200)["message"]["content"]
        answers = await asyncio.gather(*(forward(server, "same", "3") for server in both))
        assert {(status, answer["message"]["content"]) for status, answer in answers} == {(200, f"{stood}, same")}
        assert (await forward(both[0], "after", "4"))[1]["message"]["content"] == f"{stood}, same, after"


async def test_what_one_server_answered_the_other_one_has_after_a_kill(store_place: str, tmp_path: Any) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    first, second = (ServerProcess(folder, "--store", store_place) for folder in folders)
    async with aiohttp.ClientSession() as http:
        for number in range(3):
            assert await say(http, first.url, "ann", f"a{number}")
            assert await say(http, second.url, "ann", f"b{number}")
        asking = asyncio.create_task(say(http, first.url, "ann", "last"))
        await until(lambda: first.begun == 4)
        first.process.kill()
        answered = await asking
        assert await say(http, second.url, "ann", "b3")
        async with http.get(f"{second.url}/sessions/ann") as response:
            said = [message["content"] for message in (await response.json())["messages"][::2]]
    expected = ["a0", "b0", "a1", "b1", "a2", "b2", "last", "b3"]
    assert said in (expected, [text for text in expected if text != "last" or answered])
    second.process.terminate()
    assert await asyncio.to_thread(second.wait) == 0
    first.wait()
