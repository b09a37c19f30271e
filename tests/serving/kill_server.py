"""Kill a server of agents with SIGKILL between and within turns, start it again, and look for what it had answered."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

AGENT = """
import asyncio
from pathlib import Path
from lagentlike.agents import AsyncAgent
from lagentlike.llms import AsyncScriptedLLM

async def echo(messages, params):
    with Path(__file__).with_name("begun").open("a") as file:
        file.write("x")
    await asyncio.sleep(LATENCY)
    return "heard " + messages[-1]["content"]

agent = AsyncAgent(AsyncScriptedLLM(echo))
"""


class ServerProcess:
    """`lagentlike serve` over a small agent, in a process of its own."""

    def __init__(self, folder: Path, *options: str, latency: float = 0.0) -> None:
        path = folder / "an_agent.py"
        self._begun = folder / "begun"
        self._begun.unlink(missing_ok=True)
        path.write_text(AGENT.replace("LATENCY", repr(latency)))
        command = [sys.executable, "-m", "lagentlike.cli", "serve", str(path), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " at http://" in line, f"the server says {line!r}"
        self.url = line.split(" at ")[1].split(",")[0]

    @property
    def begun(self) -> int:
        """How many turns it began."""
        return self._begun.stat().st_size if self._begun.exists() else 0

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


async def say(http: aiohttp.ClientSession, url: str, session: str, text: str) -> bool:
    """Make one turn; whether it was answered."""
    with suppress(aiohttp.ClientError, json.JSONDecodeError):
        async with http.post(f"{url}/forward", json={"message": text, "session_id": session}) as response:
            body = await response.json()
            return response.status == 200 and body["message"]["content"] == f"heard {text}"
    return False


async def remembered(url: str, sessions: list[str]) -> dict[str, list[str]]:
    """What the user said in each session, as the server remembers it."""
    found = {}
    async with aiohttp.ClientSession() as http:
        for session in sessions:
            async with http.get(f"{url}/sessions/{session}") as response:
                messages: list[dict[str, Any]] = (await response.json()).get("messages", [])
            senders = [message["sender"] for message in messages]
            assert senders == ["user", "AsyncAgent"] * (len(senders) // 2), "a turn is there in half"
            found[session] = [message["content"] for message in messages[::2]]
    return found


async def kill_servers(
    folder: Path, kills: int, sessions: int = 8, seed: int = 0, store: str | None = None
) -> dict[str, int]:
    """Talk in some sessions, kill the server at a random moment, start it again; so many times.

    Args:
        folder: where the agent's module goes.
        kills: how often the server is killed.
        sessions: how many talk at once.
        seed: of the moments.
        store: place of an empty store; None for a file in the folder.

    Returns:
        How many turns were answered, lost (answered and not there any more) and there twice.
    """
    rng = random.Random(seed)
    names = [f"s{number}" for number in range(sessions)]
    answered: dict[str, list[str]] = {name: [] for name in names}
    counts = {"answered": 0, "lost": 0, "twice": 0}
    store = store or str(folder / "sessions.db")
    for round_ in range(kills + 1):
        server = ServerProcess(folder, "--store", store)
        found = await remembered(server.url, names)
        for name in names:
            counts["lost"] += len([text for text in answered[name] if text not in found[name]])
            counts["twice"] += len(found[name]) - len(set(found[name]))
        if round_ == kills:
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            break

        async def talk(name: str, url: str, round_: int, http: aiohttp.ClientSession) -> None:
            for turn in range(1_000_000):
                text = f"{name}-{round_}-{turn}"
                if not await say(http, url, name, text):
                    return
                answered[name].append(text)

        async with aiohttp.ClientSession() as http:
            talking = [asyncio.create_task(talk(name, server.url, round_, http)) for name in names]
            while server.begun <= sessions:  # so one of them was answered
                await asyncio.sleep(0.01)
            await asyncio.sleep(rng.uniform(0, 0.2))
            server.signal(signal.SIGKILL)
            server.wait()
            await asyncio.gather(*talking)
    counts["answered"] = sum(map(len, answered.values()))
    return counts
