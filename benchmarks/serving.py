"""Measure what a server of agents holds and holds out: `python -m benchmarks.serving`.

The server runs in a process of its own, over a model that takes 50 ms; a turn is on the disk before it is answered. The
clients run in this process, so both share the machine. Each figure stands beside the one it should reach.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from lagentlike.agents import AsyncAgent, AsyncStreamingAgent
from lagentlike.llms.base import AsyncBaseLLM, Conversation, Params
from lagentlike.schema import AgentMessage, Completion
from lagentlike.serving import AgentServer
from lagentlike.serving.agent_protocol import TurnRequest
from lagentlike.serving.auth import Tokens

__all__ = ["main", "own_memory_mb"]

LATENCY_S = 0.05
MEBIBYTE = 2**20
USERS = {f"user{number}": f"token-{number}" for number in range(10)}


class Echo(AsyncBaseLLM):
    """Says what the user said so far, after the time a model takes."""

    async def _chat(self, messages: Conversation, params: Params) -> Completion:
        await asyncio.sleep(LATENCY_S)
        if messages[-1]["content"] == "flood":
            return Completion("x" * 8 * MEBIBYTE)  # more than the buffers of a connection hold
        return Completion("heard " + " ".join(item["content"] for item in messages if item["role"] == "user"))


def serve(options: dict[str, Any]) -> None:
    """Serve until told to stop; the first line printed is the address."""
    server = AgentServer(AsyncAgent(Echo()), port=0, **options)
    asyncio.run(server.serve(lambda: print(server.url, flush=True)))


class Server:
    """The server's process."""

    def __init__(self, **options: Any) -> None:
        command = [sys.executable, "-m", "benchmarks.serving", "--serve", json.dumps(options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def memory_mb(self, field: str = "VmHWM") -> float:
        """The most memory that it held, or what it holds (`VmRSS`)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{field}:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else math.nan

    def cpu_s(self) -> float:
        """The CPU time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Count the most memory anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def server_process(**options: Any) -> Iterator[Server]:
    server = Server(**options)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()


def clients() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def say(http: aiohttp.ClientSession, url: str, session: str, text: str, token: str = "") -> tuple[str, float]:
    """One turn: the reply, and how long it took."""
    began = time.perf_counter()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"message": text, "session_id": session}
    async with http.post(f"{url}/forward", json=body, headers=headers) as response:
        answer = json.loads(await response.read())
    return answer["message"]["content"], time.perf_counter() - began


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def sessions(number: int, turns: int) -> dict[str, Any]:
    """S1: many sessions at once, each with a secret that no other may see."""
    canaries = {f"s{index}": f"canary-{secrets.token_hex(8)}" for index in range(number)}
    taken: list[float] = []
    leaks = 0

    async def converse(http: aiohttp.ClientSession, url: str, name: str, canary: str) -> None:
        nonlocal leaks
        token = USERS[f"user{int(name[1:]) % len(USERS)}"]
        for turn in range(turns):
            reply, seconds = await say(http, url, name, f"{canary}-{turn}", token)
            taken.append(seconds)
            heard = re.findall(r"canary-[0-9a-f]{16}", reply)
            leaks += heard != [canary] * (turn + 1)

    with tempfile.TemporaryDirectory() as folder, server_process(token=USERS, store=f"{folder}/s.db") as server:
        async with clients() as http:
            await say(http, server.url, "warm-up", "x", USERS["user0"])
            before = server.cpu_s()
            began = time.perf_counter()
            await asyncio.gather(*(converse(http, server.url, *item) for item in canaries.items()))
            wall = time.perf_counter() - began
        memory, cpu = server.memory_mb(), server.cpu_s()
    return {
        "turns": len(taken),
        "leaks": f"{leaks} (0)",
        "p50_s": round(percentile(taken, 0.5), 3),
        "p99_s": f"{percentile(taken, 0.99):.3f} (at most 1.5)",
        "memory_mb": f"{memory:.0f} (at most 400)",
        "turns_a_second": round(len(taken) / wall),
        "server_cpu_ms_a_turn": round(1000 * (cpu - before) / len(taken), 2),
    }


async def bodies() -> dict[str, Any]:
    """S2: bodies and headers that are too large, and what they cost the server's memory."""
    head = b"POST /forward HTTP/1.1\r\nHost: localhost\r\n"
    chunk = b"%x\r\n%b\r\n" % (2**16, b"x" * 2**16)
    attacks = {
        "64 MiB in chunks": [head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 1024],
        "64 MiB declared": [head + b"Content-Length: %d\r\n\r\n" % (64 * MEBIBYTE), *[b"x" * 2**16] * 1024],
        "gzip bomb": [head + _gzipped(b"0" * 64 * MEBIBYTE)],
        "100,000 headers": [head, *[b"X-%d: y\r\n" % number for number in range(100_000)], b"\r\n"],
    }
    grown = {}
    with server_process() as server:
        async with clients() as http:
            await say(http, server.url, "warm-up", "x")
        for name, pieces in attacks.items():
            before = server.memory_mb("VmRSS")
            server.forget_peak()
            status = await _attack(server.port, pieces)
            grown[name] = f"{status}, +{server.memory_mb() - before:.1f} MiB (at most 2)"
    return grown


def _gzipped(body: bytes) -> bytes:
    packed = gzip.compress(body)
    return b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)


async def _attack(port: int, pieces: list[bytes]) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(reader.read(100))
    how = "sent whole"
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        how = "closed while it was sent"
    try:
        return f"{(await answer)[9:12].decode()}, {how}"
    except ConnectionError:
        return how
    finally:
        writer.close()


async def slow_clients(idle: int, slow: int, rounds: int) -> dict[str, Any]:
    """S3: how much slow and idle clients slow the others down."""
    taken: dict[str, list[float]] = {"alone": [], "beside": [], "alone_cpu": [], "beside_cpu": []}

    async def measure(server: Server, how: str) -> None:
        before = server.cpu_s()
        taken[how].append(await _p99(server.url))
        taken[f"{how}_cpu"].append(server.cpu_s() - before)

    with server_process() as server:
        for _ in range(rounds):
            await measure(server, "alone")
            opened = await _occupy(server, idle, slow)
            await measure(server, "beside")
            for writer in opened:
                writer.transport.abort()
            await asyncio.sleep(0.5)
    middle = {how: statistics.median(values) for how, values in taken.items()}
    return {
        "p99_alone_s": round(middle["alone"], 4),
        "p99_beside_them_s": round(middle["beside"], 4),
        "ratio": f"{middle['beside'] / middle['alone']:.2f} (at most 1.2)",
        "ratio_of_the_servers_cpu_time": round(middle["beside_cpu"] / middle["alone_cpu"], 2),
    }


async def _p99(url: str, at_once: int = 20, turns: int = 40) -> float:
    taken: list[float] = []

    async def converse(http: aiohttp.ClientSession) -> None:
        name = secrets.token_hex(8)
        taken.extend([(await say(http, url, name, str(turn)))[1] for turn in range(turns)])

    async with clients() as http:
        await asyncio.gather(*(converse(http) for _ in range(at_once)))
    return percentile(taken, 0.99)


async def _occupy(server: Server, idle: int, slow: int) -> list[asyncio.StreamWriter]:
    """Connections that send nothing, half a head, or half a body, and some that take nothing of a long answer."""
    flood = json.dumps({"message": "flood"}).encode()
    begun = [
        b"POST /forward HTTP/1.1\r\nHost: loc",
        b"POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{",
    ]
    sent = [b""] * idle + begun * (slow // 2)
    sent += [b"POST /forward HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(flood), flood)] * 8
    opened = []
    for piece in sent:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        writer.write(piece)
        opened.append(writer)
    used = -1.0
    while server.cpu_s() - used > 0.05:  # till all of them are only there
        used = server.cpu_s()
        await asyncio.sleep(1.0)
    return opened


def token_timing(tries: int) -> dict[str, Any]:
    """S4: whether the time that a refusal takes tells how much of a token was right (Welch's t-test)."""
    token = secrets.token_urlsafe(32)
    tokens = Tokens({"ann": token, "bob": secrets.token_urlsafe(32)})
    guesses = ["Bearer " + token[:-1] + "!", "Bearer !" + token[1:]]
    rng = random.Random(0)
    taken: tuple[list[float], list[float]] = ([], [])
    clock = time.perf_counter_ns
    for _ in range(tries):
        which = rng.getrandbits(1)
        began = clock()
        tokens.owner(guesses[which])
        taken[which].append(clock() - began)
    cut = percentile(taken[0] + taken[1], 0.95)  # what the machine did meanwhile is no news of the token
    right, wrong = ([value for value in values if value <= cut] for values in taken)
    spread = math.sqrt(statistics.variance(right) / len(right) + statistics.variance(wrong) / len(wrong))
    t = (statistics.mean(right) - statistics.mean(wrong)) / spread
    return {"tries": tries, "t": f"{t:.2f} (between -4 and 4)", "a_look_us": round(statistics.mean(right) / 1000, 2)}


async def disconnects(number: int) -> dict[str, Any]:
    """S9: how soon a run ends after its client has left."""
    left: dict[Any, float] = {}
    taken: list[float] = []

    class Endless(AsyncStreamingAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            try:
                while True:
                    yield "…"
                    await asyncio.sleep(0.05)
            finally:
                taken.append(time.perf_counter() - left[session_id])

    agent = Endless()
    async with AgentServer(agent, port=0) as server, clients() as http:

        async def leave(name: str) -> None:
            response = await http.post(f"{server.url}/stream", json={"message": "x", "session_id": name})
            await response.content.readany()
            await asyncio.sleep(random.uniform(0.1, 0.5))
            left[name] = time.perf_counter()
            response.close()

        await asyncio.gather(*(leave(f"s{index}") for index in range(number)))
        await asyncio.sleep(2.0)
    return {
        "runs_ended": f"{len(taken)} of {number}",
        "worst_s": f"{max(taken):.3f} (at most 1)",
        "turns_left_behind": f"{len(agent.session_ids())} (0)",
    }


async def many_sessions(number: int) -> dict[str, Any]:
    """M6: what is held after so many sessions, of which a thousand are kept in memory."""

    class Ok(AsyncAgent):
        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
            return "ok"

    gone = 0

    def count(*_: str) -> None:
        nonlocal gone
        gone += 1

    server = AgentServer(Ok(), port=0, max_sessions=1000, on_evict=count)
    held = []
    for share in range(4):
        for index in range(number // 4):
            await server.turn("", TurnRequest([AgentMessage(content="x" * 100)], f"s{share}-{index}", {}))
        held.append(round(own_memory_mb(), 1))
    return {"sessions": number, "evicted": gone, "memory_mb_at_each_quarter": f"{held} (flat)"}


def own_memory_mb() -> float:
    """The memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / MEBIBYTE


async def kills(number: int) -> dict[str, Any]:
    """How many answered turns are gone after the server was killed, so many times."""
    from tests.serving.kill_server import kill_servers

    with tempfile.TemporaryDirectory() as folder:
        counts: dict[str, int] = await kill_servers(Path(folder), number)
    return {"kills": number, "answered": counts["answered"], "lost": f"{counts['lost']} (0)", "twice": counts["twice"]}


async def draining(number: int) -> dict[str, Any]:
    """S10: SIGTERM while runs are under way, and what is there after a restart."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"store": f"{folder}/s.db"}
        with server_process(**options) as server:
            async with clients() as http:
                names = [f"s{index}" for index in range(number)]
                await asyncio.gather(*(say(http, server.url, name, "one") for name in names))
                asking = [asyncio.create_task(say(http, server.url, name, "two")) for name in names]
                await asyncio.sleep(LATENCY_S / 2)
                server.process.send_signal(signal.SIGTERM)
                began = time.perf_counter()
                outcomes = await asyncio.gather(*asking, return_exceptions=True)
                server.process.wait()
                took = time.perf_counter() - began
        answered = [name for name, outcome in zip(names, outcomes, strict=True) if isinstance(outcome, tuple)]
        with server_process(**options) as server:
            async with clients() as http:
                replies = {name: (await say(http, server.url, name, "three"))[0] for name in names}
    lost = sum(replies[name] != "heard one two three" for name in answered)
    broken = sum(reply not in ("heard one two three", "heard one three") for reply in replies.values())
    return {"in_flight": number, "answered": len(answered), "lost": f"{lost} (0)", "broken": f"{broken} (0)", "s": took}


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the name of one part")
    parser.add_argument("--short", action="store_true", help="a tenth of it")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(json.loads(options.serve))
        return
    tenth = 10 if options.short else 1
    parts: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "sessions": lambda: sessions(1000 // tenth, 5),
        "bodies": bodies,
        "slow_clients": lambda: slow_clients(2000 // tenth, 200 // tenth, 5 if tenth == 1 else 1),
        "token_timing": lambda: asyncio.to_thread(token_timing, 200_000 // tenth),
        "disconnects": lambda: disconnects(100 // tenth),
        "many_sessions": lambda: many_sessions(400_000 // tenth),
        "draining": lambda: draining(100),
        "kills": lambda: kills(20 // tenth),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            print(json.dumps({name: asyncio.run(_awaited(part))}), flush=True)


async def _awaited(part: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await part()


if __name__ == "__main__":
    main()
