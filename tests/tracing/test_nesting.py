"""Spans know what they are part of in every mixture of colours, threads, tasks and streams."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from lagentlike.actions import AsyncActionExecutor, calculator
from lagentlike.agents import (
    Agent,
    AgentTool,
    AIAgent,
    AsyncAgent,
    AsyncReAct,
    AsyncSequential,
    AsyncStreamingAgent,
    AsyncStreamingSequential,
    HFAgent,
    ReAct,
    Sequential,
    StreamingAgent,
    StreamingSequential,
)
from lagentlike.budget import Budget
from lagentlike.errors import BudgetExceeded
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, ScriptedLLM
from lagentlike.sandbox import create_tool_backend, ToolExecutor
from lagentlike.schema import AgentMessage, Completion, ToolCall, Usage
from lagentlike.tools import build_tool_registry
from lagentlike.tracing import current_span

from .telling import ask, Listener, llm_for

AGENTS = {
    Sequential: Agent,
    AsyncSequential: AsyncAgent,
    StreamingSequential: StreamingAgent,
    AsyncStreamingSequential: AsyncStreamingAgent,
}


@pytest.fixture
def told() -> Iterator[Listener]:
    """A tracer that is attached; afterwards, no span has been left entered."""
    with Listener() as listener:
        yield listener
    assert current_span() is None


def said(text: str, tokens: int = 3) -> Completion:
    return Completion(text, usage=Usage(1, 10, tokens))


def parents(told: Listener) -> dict[str, str | None]:
    """The name of each span's parent, by the span's."""
    names = {span["span_id"]: span["name"] for span in told.ended}
    assert len(names) == len(told.ended) == len(told.spans)
    return {span["name"]: names.get(span["parent_id"]) for span in told.ended}


@pytest.mark.parametrize("kind", AGENTS)
async def test_workflows(kind: Any, told: Listener) -> None:
    agents = [
        AGENTS[kind](llm_for(kind, [said(f"from {name}")], path=f"llm of {name}"), name=name) for name in ("a", "b")
    ]
    await ask(kind(kind(agents[0], name="inner"), agents[1], name="outer"))
    assert parents(told) == {
        "outer": None,
        "inner": "outer",
        "a": "inner",
        "b": "outer",
        "llm of a": "a",
        "llm of b": "b",
    }
    assert {span["name"]: span["path"] for span in told.ended if span["kind"] == "turn"} == {
        "outer": "",
        "inner": "0",
        "a": "0.0",
        "b": "1",
    }
    assert told.named("outer")["tokens_out"] == 6
    assert told.named("inner")["tokens_out"] == 3


@pytest.mark.parametrize("kind", [Agent, AsyncAgent])
async def test_map_begins_a_trace_for_each_call_and_inside_a_turn_none(kind: Any, told: Listener) -> None:
    agent = kind(llm_for(kind, lambda messages, params: "Hello"), name="one")
    given = agent.map(["a", "b", "c"])
    await given if kind.colour.is_async else given
    assert len({span["trace_id"] for span in told.ended}) == 3

    class Asks(kind):  # type: ignore[misc]  # either
        def __init__(self) -> None:
            super().__init__(name="asks")
            self.one = agent

    if kind.colour.is_async:

        async def forward(self: Any, *message: Any, session_id: Any = 0) -> str:
            return str(len(await self.one.map(["a", "b"], [1, 2])))
    else:

        def forward(self: Any, *message: Any, session_id: Any = 0) -> str:  # type: ignore[misc]
            return str(len(self.one.map(["a", "b"], [1, 2])))

    made = type("Made", (Asks,), {"forward": forward})()
    told.ended.clear()
    await ask(made)
    (outer,) = [span for span in told.ended if span["name"] == "asks"]
    inner = [span for span in told.ended if span["name"] == "one"]
    assert [span["parent_id"] for span in inner] == [outer["span_id"]] * 2
    assert {span["path"] for span in inner} == {"one"}


async def test_agents_side_by_side(told: Listener) -> None:
    class Both(AsyncAgent):
        def __init__(self) -> None:
            super().__init__(name="both")
            for name in ("left", "right"):
                setattr(self, name, AsyncAgent(AsyncScriptedLLM(["x"], delay=0.01, path=f"{name} llm"), name=name))

        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Any:
            replies = await asyncio.gather(self.left(*message), self.right(*message))
            return replies[0]

    await Both()("Q")
    assert parents(told) == {
        "both": None,
        "left": "both",
        "right": "both",
        "left llm": "left",
        "right llm": "right",
    }


@pytest.mark.parametrize("kind", [ReAct, AsyncReAct])
async def test_calls_in_worker_threads_and_on_the_background_loop_have_their_own_agents(
    kind: Any, told: Listener
) -> None:
    """Several calls of one message run side by side, each asking an agent of its own colour."""
    inner = {name: Agent(ScriptedLLM(["x"], path=f"{name} llm"), name=f"{name} agent") for name in ("one", "two")}
    far = AsyncAgent(AsyncScriptedLLM(["x"], path="far llm"), name="far agent")

    def one() -> str:
        """One."""
        time.sleep(0.02)
        return str(inner["one"]("Q").content)

    def two() -> str:
        """Two."""
        return str(inner["two"]("Q").content)

    async def three() -> str:
        """Three."""
        await asyncio.sleep(0.01)
        return str((await far("Q")).content)

    calls = [ToolCall(name, {}, id=name) for name in ("one", "two", "three")]
    script = [Completion("", tool_calls=calls, finish_reason="tool_calls"), "done"]
    await ask(kind(llm_for(kind, script, path="llm"), [one, two, three], name="boss"))
    found = parents(told)
    executor = "AsyncActionExecutor" if kind.colour.is_async else "ActionExecutor"
    assert [found[name] for name in ("one", "two", "three")] == [executor] * 3
    assert (found["one agent"], found["two agent"], found["far agent"]) == ("one", "two", "three")
    assert (found["one llm"], found["two llm"], found["far llm"]) == ("one agent", "two agent", "far agent")
    assert len({span["trace_id"] for span in told.ended}) == 1


def test_an_agent_as_a_tool_and_one_that_takes_over(told: Listener) -> None:
    helper = Agent(ScriptedLLM([said("yes")]), name="helper", description="Helps.")
    expert = AIAgent(ScriptedLLM([said("Bonjour")]), name="expert", description="French.")
    script = [ToolCall("helper", {"request": "help"}), ToolCall("transfer_to_expert", {})]
    boss = AIAgent(ScriptedLLM(script), tools=[AgentTool(helper)], handoffs=[expert], name="boss", enabled_toolsets=[])
    assert boss("Q").content == "Bonjour"
    turns = {span["name"]: span for span in told.ended if span["kind"] == "turn"}
    tools = {span["name"]: span for span in told.ended if span["kind"] == "tool"}
    assert turns["helper"]["parent_id"] == tools["helper"]["span_id"]
    assert turns["expert"]["trace_id"] == turns["boss"]["trace_id"]
    assert "?" not in {span["path"] for span in turns.values()}
    assert turns["boss"]["tokens_out"] == 6


def test_calls_that_cannot_be_made_have_a_span_too(told: Listener) -> None:
    def known(number: int) -> str:
        """Known."""
        return str(number)

    script = [ToolCall("unknown", {"x": 1}, id="a"), ToolCall("known", {"number": "many"}, id="b"), "done"]
    ReAct(ScriptedLLM(script), [known])("Q")
    tools = [span for span in told.ended if span["kind"] == "tool"]
    assert [(span["name"], span["call_id"], span["status"]) for span in tools] == [
        ("unknown", "a", "error"),
        ("known", "b", "error"),
    ]
    assert tools[1]["state"] == "args_error"


async def test_calls_in_a_sandbox(told: Listener) -> None:
    settings = {"tool_pool_mode": "bwrap", "slots_per_container": 1, "max_containers": 1}
    async with ToolExecutor(create_tool_backend(settings), build_tool_registry(), settings) as executor:
        await executor.execute("t", ToolCall("bash", {"command": "echo hi"}, id="one"))
        await executor.execute("t", ToolCall("bash", {"command": "exit 3"}, id="two"))
        await executor.execute("t", ToolCall("nope", {}, id="three"))
    assert [(span["name"], span["call_id"], span["status"]) for span in told.ended] == [
        ("bash", "one", "ok"),
        ("bash", "two", "error"),
        ("nope", "three", "error"),
    ]
    assert told.ended[0]["content"]["result"] == "hi\n"


# Streams


def test_a_stream_is_no_part_of_what_reads_it_once_it_has_begun(told: Listener) -> None:
    """Each part may be read elsewhere; what runs between two parts is not part of the stream."""
    inner = StreamingAgent(ScriptedLLM(["abcd"], chunk_size=1, path="stream llm"), name="stream")
    stream: Any = inner("Q")
    readers = [ThreadPoolExecutor(1) for _ in range(2)]
    for number in range(4):
        _, current = readers[number % 2].submit(lambda: (next(stream), current_span())).result()
        assert current is None
        Agent(ScriptedLLM(["x"], path="other llm"), name="other")("Q")
    assert readers[0].submit(lambda: [*stream, current_span()]).result()[-1] is None
    for reader in readers:
        reader.shutdown()
    traces = {span["trace_id"] for span in told.ended if span["name"].startswith("stream")}
    assert len(traces) == 1
    assert not traces & {span["trace_id"] for span in told.ended if span["name"].startswith("other")}


async def test_streams_that_are_read_in_turn_keep_apart(told: Listener) -> None:
    def made(name: str) -> Any:
        agent = AsyncStreamingAgent(AsyncScriptedLLM(["abcd"], chunk_size=1, path=f"{name} llm"), name=name)
        return AsyncStreamingSequential(agent, name=f"{name} outer")("Q")

    streams = [made("a"), made("b")]
    while streams:
        for stream in list(streams):
            if await anext(stream, None) is None:
                streams.remove(stream)
            assert current_span() is None
    assert parents(told) == {
        "a outer": None,
        "a": "a outer",
        "a llm": "a",
        "b outer": None,
        "b": "b outer",
        "b llm": "b",
    }


async def test_a_stream_read_in_other_tasks_and_closed_in_yet_another_is_abandoned(told: Listener) -> None:
    stream: Any = AsyncStreamingAgent(AsyncScriptedLLM(["abcd"], chunk_size=1))("Q")
    await asyncio.create_task(anext(stream))
    await asyncio.create_task(anext(stream))
    await asyncio.create_task(stream.aclose())
    assert {span["status"] for span in told.ended} == {"abandoned"}
    assert not told.open


def test_a_stream_that_is_dropped_is_abandoned(told: Listener) -> None:
    stream: Any = StreamingAgent(ScriptedLLM(["abcd"], chunk_size=1))("Q")
    next(stream)
    del stream
    gc.collect()
    assert {span["status"] for span in told.ended} == {"abandoned"}


def test_a_stream_that_nobody_reads_has_no_span(told: Listener) -> None:
    llm = ScriptedLLM(["abcd"])
    StreamingAgent(llm)("Q")
    stream: Any = llm.stream_chat([{"role": "user", "content": "Q"}])
    del stream
    assert not told.spans


def test_a_blocking_stream_over_the_background_loop_has_its_requests(told: Listener) -> None:
    """An async agent asked in a blocking tool, whose agent streams in a thread."""

    async def far() -> str:
        """Far."""
        agent = AsyncStreamingAgent(AsyncScriptedLLM(["abc"], chunk_size=1, path="far llm"), name="far agent")
        return [str(part.content) async for part in agent("Q")][-1]

    ReAct(ScriptedLLM([ToolCall("far", {}), "done"]), [far])("Q")
    found = parents(told)
    assert (found["far agent"], found["far llm"]) == ("far", "far agent")


# Endings


async def test_cancelling_ends_every_span_as_cancelled(told: Listener) -> None:
    started = asyncio.Event()

    async def wait() -> str:
        """Wait."""
        started.set()
        await asyncio.sleep(60)
        return ""

    agent = AsyncReAct(AsyncScriptedLLM([ToolCall("wait", {})]), [wait], name="boss")
    task = asyncio.ensure_future(agent("Q"))
    await started.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert not told.open
    assert {span["name"]: span["status"] for span in told.ended if span["name"] != "AsyncAgent"} == {
        "scripted": "ok",
        "wait": "cancelled",
        "AsyncActionExecutor": "cancelled",
        "boss": "cancelled",
    }


async def test_a_tool_that_overruns_ends_in_time_and_what_it_goes_on_to_do_is_still_part_of_it(told: Listener) -> None:
    release, over = threading.Event(), threading.Event()

    def slow() -> str:
        """Slow."""
        release.wait(30)
        Agent(ScriptedLLM(["late"]), name="late")("Q")
        over.set()
        return ""

    executor = AsyncActionExecutor([slow], timeout=0.05)
    await executor(AgentMessage(content="", tool_calls=[ToolCall("slow", {})]))
    slow_span = told.named("slow")
    assert slow_span["status"] == "error"
    release.set()
    assert await asyncio.to_thread(over.wait, 30)
    assert told.named("late")["parent_id"] == slow_span["span_id"]


def test_a_turn_that_is_refused_before_it_begins_ends(told: Listener) -> None:
    agent = Agent(ScriptedLLM(["x"]))
    with pytest.raises(ValueError, match="session_id"):
        agent("Q", session_id=1.5)
    with pytest.raises(BudgetExceeded), Budget(requests=0):
        agent("Q")
    assert [(span["kind"], span["error"]["type"]) for span in told.ended] == [
        ("turn", "InvalidArgument"),
        ("request", "BudgetExceeded"),
        ("turn", "BudgetExceeded"),
    ]


def test_who_comes_in_the_middle_hears_of_what_begins_from_then_on() -> None:
    late = Listener()

    def attach() -> str:
        """Attach."""
        late.attach()
        return ""

    with Listener() as told:
        try:
            ReAct(ScriptedLLM([ToolCall("attach", {}), "done"]), [attach])("Q")
        finally:
            late.detach()
    assert [span.kind for span in late.spans] == ["turn", "request"]
    assert len(late.ended) == 2
    assert not told.open


async def test_a_chain_of_a_rollout_is_one_turn(told: Listener) -> None:
    result = await HFAgent(AsyncTinyLM(), tools=[calculator]).run(["What is the result of 12 * 34?"], num_chains=2)
    chains = [span for span in told.ended if span["name"] == "HFAgent"]
    assert len({span["trace_id"] for span in told.ended}) == len(chains) == len(result) == 2
    assert {span["path"] for span in told.ended if span["kind"] == "turn"} >= {"", "agent"}
    assert {span["finish_reason"] for span in chains} == {one.finish_reason for one in result}
    assert {span["name"] for span in told.ended if span["kind"] == "tool"} == {"calculator"}
