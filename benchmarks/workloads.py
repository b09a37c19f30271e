"""What is asked of every client: the texts, the sizes and the loops around its calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Client", "WORKLOADS", "Workload"]

MODEL = "gpt-bench"  # Lagent accepts only names that start like this
KEY = "sk-bench"
MAX_TOKENS = 512
SYSTEM_PROMPT = "You are a helpful assistant. Answer in one or two sentences."
QUESTION = "Question {number}: which step of the plan comes next, and why does it matter?"
REPLY = (
    "The next step is to write down what is known, to compare it with what was asked, and to go on with the smallest "
    "piece that can be checked."
)

TOOL_NAME = "multiply"
TOOL_CLASS = "Multiply"  # the same for Lagent, which names a tool by its class
TOOL_DESCRIPTION = "Multiply two whole numbers."
TOOL_ARGUMENTS = {"a": 17, "b": 23}
TOOL_QUESTION = "What is 17 times 23?"
ANSWER = "17 times 23 is 391."

STREAM_PIECES = [f" piece{number:03d}" for number in range(200)]
STREAMED = "".join(STREAM_PIECES)

WRITER_PROMPT = (
    "You are an writing assistant tasked to write engaging blogpost. You try to generate the best possible for the "
    "user's request. If the user provides critique, then respond with a revised version of your previous attempts"
)
CRITIC_PROMPT = (
    "Generate critique and recommendations on the writing. Provide detailed recommendations, including requests for "
    "length, depth, style, etc..."
)
CRITIC_PREFIX = "Reflect and provide critique on the following writing. \n\n"
BLOG_REQUEST = (
    "Write an engaging blogpost on the recent updates in {topic}. The blogpost should be engaging and understandable "
    "for general audience. Should have more than 3 paragraphs but no longer than 1000 words."
)
BLOG_ROUNDS = 3


class Client(Protocol):
    """One way of doing the work; each file of `benchmarks/clients/` has one."""

    def __init__(self, address: str) -> None: ...

    async def turn(self, session_id: int, text: str) -> str:
        """One turn of a plain conversation: the whole history is sent, the reply is kept."""

    async def tool_session(self, session_id: int, question: str) -> str:
        """A conversation of its own: the model calls the tool, sees the product and answers."""

    async def stream(self, session_id: int, text: str) -> str:
        """A streamed turn, piece by piece as the client hands them on; the whole text."""

    async def refine(self, session_id: int, request: str) -> str:
        """A writer and a critic, `BLOG_ROUNDS` rounds of both, the writer's last word."""

    async def close(self) -> None: ...


@dataclass
class Timing:
    """What a run of a workload took."""

    cpu_s: float
    wall_s: float
    tail_cpu_s: float | None  # of the parts marked as the tail


class Clock:
    """CPU time of this process and wall time, from its making to `stop`."""

    def __init__(self) -> None:
        self.tail_cpu: float | None = None
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    @contextmanager
    def tail(self) -> Iterator[None]:
        """Count what is done inside separately, too."""
        before = time.process_time()
        yield
        self.tail_cpu = (self.tail_cpu or 0.0) + time.process_time() - before

    def stop(self) -> Timing:
        return Timing(time.process_time() - self.cpu, time.perf_counter() - self.wall, self.tail_cpu)


@dataclass(frozen=True)
class Workload:
    """A job, the server behaviour it wants and how its figures are counted."""

    name: str
    title: str
    path: str  # of the server; `{tools}` is the tool format the client speaks
    run: Callable[[Client, Clock], Awaitable[None]]
    count: int  # what the CPU time is divided by
    tail_count: int = 0


async def _conversations(client: Client, clock: Clock) -> None:
    for session_id in range(3):
        await _turns(client, session_id, range(250))
        with clock.tail():
            await _turns(client, session_id, range(250, 300))


async def _turns(client: Client, session_id: int, numbers: range) -> None:
    for number in numbers:
        _check(await client.turn(session_id, QUESTION.format(number=number)), REPLY)


async def _tool_sessions(client: Client, clock: Clock) -> None:
    for session_id in range(500):
        _check(await client.tool_session(session_id, TOOL_QUESTION), ANSWER)


async def _many_tool_sessions(client: Client, clock: Clock) -> None:
    async def session(session_id: int) -> None:
        _check(await client.tool_session(session_id, TOOL_QUESTION), ANSWER)

    await _side_by_side(session, 1000, 200)


async def _streams(client: Client, clock: Clock) -> None:
    for session_id in range(100):
        _check(await client.stream(session_id, QUESTION.format(number=1)), STREAMED)


async def _blogs(client: Client, clock: Clock) -> None:
    async def session(session_id: int) -> None:
        _check(await client.refine(session_id, BLOG_REQUEST.format(topic=f"topic {session_id}")), REPLY)

    await _side_by_side(session, 200, 100)


async def _side_by_side(session: Callable[[int], Awaitable[None]], count: int, at_once: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await session(number)

    await asyncio.gather(*(worker() for _ in range(at_once)))


def _check(answer: str, expected: str) -> None:
    if answer.strip() != expected.strip():
        raise RuntimeError(f"the client answered {answer!r} instead of {expected!r}: its figures would mean nothing")


async def warm_up(client: Client, workload: Workload) -> None:
    """The same calls a few times: imports, connections and caches are not what is measured."""
    for session_id in range(-3, 0):
        if workload.name == "W1":
            await client.turn(session_id, QUESTION.format(number=0))
        elif workload.name in ("W2", "W3"):
            await client.tool_session(session_id, TOOL_QUESTION)
        elif workload.name == "W4":
            await client.stream(session_id, QUESTION.format(number=1))
        else:
            await client.refine(session_id, BLOG_REQUEST.format(topic="warming up"))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "one conversation of 300 plain turns", "plain", _conversations, count=900, tail_count=150),
        Workload("W2", "tool sessions (model, tool, model), one at a time", "{tools}", _tool_sessions, count=500),
        Workload("W3", "1,000 tool sessions, 200 at once, 50 ms latency", "50ms/{tools}", _many_tool_sessions, count=1),
        Workload("W4", "streaming, 200 chunks arriving together", "stream", _streams, count=100 * len(STREAM_PIECES)),
        Workload(
            "W5", "writer / critic, 3 rounds x 200 sessions, 100 at once, 50 ms latency", "50ms/plain", _blogs, count=1
        ),
    )
}
