"""Servers of agents in processes of their own: started, drained, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lagentlike.agents import AsyncAgent
from lagentlike.errors import ConnectFailed, InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, TinyLM
from lagentlike.serving import AgentAPIServer, AsyncHTTPAgentServer, HTTPAgentClient, HTTPAgentServer

from ..processes import await_death, is_alive
from .kill_server import kill_servers, remembered, say, ServerProcess
from .serving import an_agent, serving, until

CONFIG: Any = {"type": "lagentlike.agents.Agent", "llm": {"type": TinyLM}, "name": "tiny"}


async def is_listening(url: str) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    except ConnectionError:
        return False
    writer.close()
    return True


def test_it_starts_a_process_and_is_a_client_of_it(tmp_path: Path, no_leaks: None) -> None:
    for _ in range(2):
        with HTTPAgentServer(None, CONFIG, port=0, token="t", store=tmp_path / "s.db") as agent:
            assert agent.is_alive
            agent("My name is Ann.", session_id="ann") if not agent.session_ids() else None
            pid = agent.process.pid
            assert pid != os.getpid()
            assert HTTPAgentClient(url=agent.url, token="t").session_ids() == ["ann"]
            reply = agent("What is my name?", session_id="ann")
            assert reply.content == "Your name is Ann."
            agent.load_state_dict({"memory": agent.state_dict("ann")["memory"][:2]}, "ann")
        assert not is_alive(pid)
        with pytest.raises(ConnectFailed):
            agent("one")


def test_its_graphics_cards_are_chosen_and_the_async_form_answers() -> None:
    config = {"type": "lagentlike.agents.Agent", "llm": {"type": "lagentlike.llms.ScriptedLLM", "replies": ["ok"]}}
    with AsyncHTTPAgentServer("3", config, port=0) as agent:
        environment = Path(f"/proc/{agent.process.pid}/environ").read_bytes().split(b"\0")
        assert b"CUDA_VISIBLE_DEVICES=3" in environment
        assert asyncio.run(agent("one")).content == "ok"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "give dict"),
        (AsyncAgent(), "give dict"),
        ({"type": "lagentlike.agents.Agent", "llm": TinyLM}, "config"),
        ({"type": "lagentlike.agents.Agent", "llm": AsyncScriptedLLM(["x"])}, "plain values"),
        ({"type": "no.such.Agent"}, "cannot import 'no.such'"),
        ("lagentlike.agents.nobody", "has no 'nobody'"),
    ],
)
def test_what_cannot_be_started_says_why(config: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        HTTPAgentServer(config=config, port=0)


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, sys\n"
        "from lagentlike.serving import HTTPAgentServer\n"
        "agent = HTTPAgentServer(config={'type': 'lagentlike.agents.Agent'}, port=0)\n"
        "print(agent.process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    starter = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid = int(starter.stdout)
    assert await_death(pid, 60)


async def test_lagents_own_routes(tmp_path: Path) -> None:
    async with AgentAPIServer(an_agent(), port=0) as server, aiohttp.ClientSession(server.url) as http:
        async with http.get("/health_check") as response:
            assert response.status == 200
        message = {"content": "one", "sender": "user", "formatted": None, "extra_info": None, "type": None}
        body = {"message": [message, "two"], "session_id": 3, "temperature": 0.5}
        async with http.post("/chat_completion", json=body) as response:
            assert (await response.json())["content"] == "heard one\ntwo"
        async with http.get("/memory/3") as response:
            assert len((await response.json())["memory"]) == 3
        for wrong in ({"message": "x", "session_id": True}, {"message": "x", "tools": []}, [1]):
            async with http.post("/chat_completion", json=wrong) as response:
                assert response.status == 400


def test_no_turn_that_was_answered_is_lost_when_the_server_is_killed(tmp_path: Path, store_place: str) -> None:
    counts = asyncio.run(kill_servers(tmp_path, kills=2, store=store_place))
    assert counts["answered"] > 2
    assert (counts["lost"], counts["twice"]) == (0, 0)


async def test_a_server_that_is_told_to_stop_finishes_its_turns_and_goes_on_later(tmp_path: Path) -> None:
    store = str(tmp_path / "sessions.db")
    server = ServerProcess(tmp_path, "--store", store, latency=1.0)
    names = [f"s{number}" for number in range(100)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        turns = [asyncio.create_task(say(http, server.url, name, "one")) for name in names]
        await until(lambda: server.begun == 100)
        server.signal(signal.SIGTERM)
        answered = await asyncio.gather(*turns)
        assert not await say(http, server.url, "late", "two")
    assert await asyncio.to_thread(server.wait) == 0
    assert all(answered)
    again = ServerProcess(tmp_path, "--store", store)
    assert await remembered(again.url, names) == {name: ["one"] for name in names}
    async with aiohttp.ClientSession() as http:
        assert await say(http, again.url, "s0", "two")
    again.signal(signal.SIGTERM)
    assert await asyncio.to_thread(again.wait) == 0


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, latency=60)
    async with aiohttp.ClientSession() as http:
        turn = asyncio.create_task(say(http, server.url, "ann", "one"))
        await until(lambda: server.begun == 1)
        server.signal(signal.SIGTERM)
        while await is_listening(server.url):
            await asyncio.sleep(0.02)
        server.signal(signal.SIGTERM)
        assert not await turn
    assert await asyncio.to_thread(server.wait) == -signal.SIGTERM


async def test_a_server_holds_nothing_after_its_end(no_leaks: None, tmp_path: Path) -> None:
    async with serving(store=tmp_path / "s.db") as (_, ask):
        await ask("POST", "/forward", {"message": "one", "session_id": "ann"})
