"""One unit for many messages at once: replies in order, failures among them, sessions apart."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent
from lagentlike.errors import InvalidArgument
from lagentlike.schema import AgentMessage

Answer = Callable[[str], str]


class Blocking(Agent):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
        return self.answer(" ".join(str(item.content) for item in message))


class Async(AsyncAgent):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> str:
        await asyncio.sleep(0)
        return self.answer(" ".join(str(item.content) for item in message))


class Streaming(StreamingAgent):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Iterator[str]:
        yield "..."
        yield self.answer(" ".join(str(item.content) for item in message))


class AsyncStreaming(AsyncStreamingAgent):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AsyncIterator[str]:
        yield "..."
        yield self.answer(" ".join(str(item.content) for item in message))


every_colour = pytest.mark.parametrize("kind", [Blocking, Async, Streaming, AsyncStreaming])


def run(unit: Any, *args: Any, **kwargs: Any) -> list[Any]:
    async def gather() -> list[Any]:
        return list(await unit.map(*args, **kwargs))

    return asyncio.run(gather()) if unit.colour.is_async else unit.map(*args, **kwargs)


def echo(text: str) -> str:
    return f"echo {text}"


@every_colour
def test_replies_come_in_the_order_of_the_messages(kind: Any) -> None:
    def slow_first(text: str) -> str:
        time.sleep(0.01 * (text == "0"))
        return echo(text)

    replies = run(kind(slow_first), [str(number) for number in range(20)])
    assert [reply.content for reply in replies] == [f"echo {number}" for number in range(20)]


@every_colour
def test_a_failure_is_a_result(kind: Any) -> None:
    def odd_fails(text: str) -> str:
        if int(text) % 2:
            raise LookupError(text)
        return echo(text)

    unit = kind(odd_fails)
    outcomes = run(unit, [str(number) for number in range(4)])
    assert [str(outcome) if isinstance(outcome, Exception) else outcome.content for outcome in outcomes] == [
        "echo 0", "1", "echo 2", "3",
    ]  # fmt: skip
    assert unit.session_ids() == [0, 2]


@every_colour
def test_each_call_has_a_session_of_its_own_unless_told(kind: Any) -> None:
    unit = kind(echo)
    run(unit, iter("abc"))
    assert {one: unit.memory.get(one)[0].content for one in unit.session_ids()} == {0: "a", 1: "b", 2: "c"}
    unit = kind(echo)
    run(unit, "a b c d".split(), session_ids=["x", "y", "x", ("z", 1)])
    assert {one: [m.content for m in unit.memory.get(one)][::2] for one in unit.session_ids()} == {
        "x": ["a", "c"], "y": ["b"], ("z", 1): ["d"],
    }  # fmt: skip


@every_colour
def test_a_call_may_have_several_messages_and_options(kind: Any) -> None:
    unit = kind(echo)
    replies = run(unit, [("a", AgentMessage(content="b")), ["c"], AgentMessage(content="d")], top_k=1)
    assert [reply.content for reply in replies] == ["echo a b", "echo c", "echo d"]


@every_colour
@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_calls_are_under_way_than_allowed(kind: Any, limit: int) -> None:
    guard, inside, most = threading.Lock(), 0, 0

    def counting(text: str) -> str:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.001)
        with guard:
            inside -= 1
        return text

    run(kind(counting), ["x"] * 20, max_concurrency=limit)
    assert most <= limit


async def test_async_calls_run_side_by_side() -> None:
    meeting = asyncio.Barrier(10)

    class Meets(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            await meeting.wait()
            return "met"

    replies = await asyncio.wait_for(Meets().map(["x"] * 20, max_concurrency=10), 10)
    assert len(replies) == 20


@every_colour
def test_nothing_to_do_is_done_at_once(kind: Any) -> None:
    assert run(kind(echo), []) == []


@every_colour
def test_progress_is_shown_on_stderr_when_asked_for(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(kind(echo), ["a", "b"], progress=False)
    assert capsys.readouterr().err == ""
    run(kind(echo), ["a", "b"], progress="asking")
    captured = capsys.readouterr()
    assert "asking: 100%" in captured.err
    assert "2/2" in captured.err
    assert captured.out == ""


@every_colour
@pytest.mark.parametrize(
    ("args", "kwargs", "argument"),
    [
        (["a text"], {}, "messages="),
        ([AgentMessage(content="x")], {}, "messages="),
        ([{"a": "x"}], {}, "messages="),
        ([5], {}, "messages="),
        ([["a"]], {"max_concurrency": 0}, "max_concurrency="),
        ([["a"]], {"max_concurrency": 1.5}, "max_concurrency="),
        ([["a", "b"]], {"session_ids": [1]}, "session_ids="),
        ([["a"]], {"session_ids": [None]}, "session_id="),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kind: Any, args: Any, kwargs: Any, argument: str) -> None:
    unit = kind(echo)
    with pytest.raises(InvalidArgument, match=argument):
        run(unit, *args, **kwargs)
    assert unit.calls == 0


@pytest.mark.parametrize("kind", [Blocking, Streaming])
def test_an_interrupt_stops_a_blocking_map(kind: Any) -> None:
    calls = []

    def interrupted(text: str) -> str:
        calls.append(text)
        if text == "3":
            raise KeyboardInterrupt
        time.sleep(0.001)
        return text

    with pytest.raises(KeyboardInterrupt):
        run(kind(interrupted), [str(number) for number in range(500)], session_ids=[n % 4 for n in range(500)])
    assert len(calls) < 250


async def test_cancelling_an_async_map_cancels_its_calls() -> None:
    cancelled = []

    class Stuck(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(session_id)
                raise
            return "never"

    unit = Stuck()
    task = asyncio.create_task(unit.map(["x"] * 3))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cancelled) == [0, 1, 2]
    assert unit.session_ids() == []


async def test_what_was_cancelled_inside_of_a_call_is_a_failure_of_that_call() -> None:
    class Gone(AsyncAgent):
        async def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            if message.content == "2":
                other = asyncio.create_task(asyncio.sleep(60))
                other.cancel()
                await other
            return str(message.content)

    unit = Gone()
    outcomes: list[Any] = await unit.map([str(number) for number in range(6)], max_concurrency=2)
    assert isinstance(outcomes[2], RuntimeError)
    assert isinstance(outcomes[2].__cause__, asyncio.CancelledError)
    assert [getattr(one, "content", None) for one in outcomes] == ["0", "1", None, "3", "4", "5"]
    assert unit.session_ids() == [0, 1, 3, 4, 5]
