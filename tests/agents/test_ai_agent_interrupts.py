"""An interrupt acts inside of what is under way: requests, streams, tools, approvals, sub-agents."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.actions.terminal import Terminal
from lagentlike.agents import AIAgent, AsyncAIAgent, AsyncStreamingAIAgent, StreamingAIAgent
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import Completion, ToolCall

from ..colours import parts_of
from ..llms.fault_server import answer, Behaviour, events, FaultServer, JSON_HEAD, stream_of
from .looping import add, assert_paired, call, every_colour, in_loop, make, results_of, run

SOON = 20  # seconds; what hangs here hangs for ever


def begin(agent: Any, message: Any, **options: Any) -> Future[dict[str, Any]]:
    """A run in a thread of its own."""
    future: Future[dict[str, Any]] = Future()

    def work() -> None:
        try:
            future.set_result(run(agent, message, **options))
        except BaseException as error:  # for who waits
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SOON
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def served(kind: Any, server: FaultServer, **options: Any) -> Any:
    return kind("big", "key", server.url, enabled_toolsets=[], **options)


def pending(text: str = "") -> Behaviour:
    """An answer, or a stream of one, that begins with a text and goes on for ever with nothing."""
    said = b"".join(line + b"\n\n" for line in stream_of(text).split(b"\n\n") if b'"content": "' in line)

    async def behave(writer: asyncio.StreamWriter, request: Any) -> None:
        streamed = request.json.get("stream")
        if streamed:
            await events(said, end=False)(writer, request)
        else:
            writer.write(JSON_HEAD % 1_000_000)
        while True:  # until the connection is closed
            writer.write(b"3\r\n:\n\n\r\n" if streamed else b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    return behave


# Requests


@every_colour
def test_a_request_without_an_answer_is_given_up(kind: Any) -> None:
    with FaultServer(pending(), answer("Here.")) as server:
        agent = served(kind, server)
        going = begin(agent, "hello?", task_id="t")
        until(lambda: server.requests)
        assert agent.interrupt("t", "enough")
        result = going.result(SOON)
        assert (result["finish_reason"], result["detail"], result["final_response"]) == ("interrupted", "enough", None)
        assert (result["api_calls"], result["turns"]) == (1, 0)
        assert result["messages"] == [{"role": "user", "content": "hello?"}]
        until(lambda: server.open == 0)  # the connection is closed, so the server need not go on
        assert run(agent, "still there?", task_id="t")["final_response"] == "Here."
        assert server.requests[1].json["messages"] == [{"role": "user", "content": "hello?\nstill there?"}]


@pytest.mark.parametrize("kind", [StreamingAIAgent, AsyncStreamingAIAgent])
def test_what_was_streamed_of_an_answer_stays(kind: Any) -> None:
    with FaultServer(pending("Once upon a time"), answer("… there was.")) as server:
        agent = served(kind, server)
        seen: list[str] = []
        told = threading.Event()

        def watch(part: Any) -> None:
            seen.append(part.content)
            if part.content == "Once upon a time":
                told.set()

        going = _watched(agent, "Tell.", watch)
        assert told.wait(SOON)
        assert agent.interrupt()
        last = going.result(SOON)
        assert (last.content, last.finish_reason) == ("Once upon a time", "interrupted")
        until(lambda: server.open == 0)
        assert agent.messages() == [
            {"role": "user", "content": "Tell."},
            {"role": "assistant", "content": "Once upon a time"},
        ]
        result = run(agent, "Go on.")
        assert result["final_response"] == "… there was."
        assert [message["content"] for message in server.requests[1].json["messages"]] == [
            "Tell.", "Once upon a time", "Go on.",
        ]  # fmt: skip


def _watched(agent: Any, message: str, watch: Callable[[Any], None]) -> Future[Any]:
    """A run in a thread, each of whose parts is looked at; its last part."""
    future: Future[Any] = Future()

    async def gather() -> Any:
        async for part in agent(message):
            watch(part)
        return part

    def work() -> None:
        try:
            if in_loop(type(agent)):
                future.set_result(asyncio.run(gather()))
                return
            for part in agent(message):
                watch(part)
            future.set_result(part)
        except BaseException as error:  # for who waits
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


@pytest.mark.parametrize("kind", [StreamingAIAgent, AsyncStreamingAIAgent])
def test_a_stream_ends_between_two_chunks_and_keeps_no_text_of_a_call(kind: Any) -> None:
    text = '<think>Hm.</think>I reckon.\n<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    agent = make(kind, [text, "unasked"], tool_format="hermes")
    agent.agent.llm.chunk_size = 1
    parts = []

    async def gather() -> None:
        async for part in agent("go"):
            stop_at_the_end(part)

    def stop_at_the_end(part: Any) -> None:
        parts.append(part)
        if part.content == "I reckon.":
            agent.interrupt()

    if in_loop(kind):
        asyncio.run(gather())
    else:
        for part in agent("go"):
            stop_at_the_end(part)
    assert (parts[-1].content, parts[-1].reasoning) == ("I reckon.", "Hm.")
    assert parts[-1].finish_reason == "interrupted"
    assert agent.messages()[-1] == {"role": "assistant", "content": "I reckon.", "reasoning": "Hm."}
    assert agent.agent.llm.answered == 1


async def test_a_cancelled_task_is_cancelled_still() -> None:
    async def reply(messages: Any, params: Any) -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    begun = asyncio.Event()
    agent = AsyncAIAgent(AsyncScriptedLLM([reply, "here"]), enabled_toolsets=[])
    task = asyncio.create_task(agent.run_conversation("hello?"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.messages() == []
    agent.agent.llm._replies = iter([reply])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.run_conversation("hello?"), 0.01)
    agent.agent.llm._replies = iter([reply, "here"])
    begun.clear()
    task = asyncio.create_task(agent.run_conversation("hello?"))
    await begun.wait()
    agent.interrupt()
    task.cancel()  # both at once: who runs the task goes first
    with pytest.raises(asyncio.CancelledError):
        await task
    agent.agent.llm._replies = iter(["here"])
    assert (await agent.run_conversation("hello?"))["final_response"] == "here"


# Tools


@every_colour
@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_that_hangs_is_given_up_and_finished_ones_beside_it_keep_their_results(
    kind: Any, is_async: bool
) -> None:
    begun, over, ended = threading.Event(), threading.Event(), threading.Event()

    @tool(read_only=True, name="wait")
    def wait() -> str:
        """Wait."""
        begun.set()
        over.wait(SOON)
        return "waited"

    @tool(read_only=True, name="wait")
    async def wait_async() -> str:
        """Wait."""
        begun.set()
        try:
            await asyncio.sleep(SOON)
        finally:
            ended.set()
        return "waited"

    @tool
    def write() -> str:
        """Write."""
        raise AssertionError

    calls = [call(1, 2), ToolCall("wait", {}), ToolCall("write", {})]
    agent = make(kind, [calls, "later"], tools=[add, wait_async if is_async else wait, write])
    going = begin(agent, "go", task_id="t")
    assert begun.wait(SOON)
    time.sleep(0.05)  # `add` is done by now
    assert agent.interrupt("t", "enough")
    result = going.result(SOON)
    over.set()
    assert (result["finish_reason"], result["detail"]) == ("interrupted", "enough")
    how = "it was stopped" if is_async else "it is still running, and nobody waits for its result any more"
    assert results_of(result["messages"]) == {
        "call_1": "3",
        "call_2": f"Error: wait was given up (enough): {how}",
        "call_3": "Error: this call was not made: enough",
    }
    assert_paired(result["messages"])
    assert not is_async or ended.wait(SOON)
    assert run(agent, "go on", task_id="t")["final_response"] == "later"
    assert_paired(agent.agent.llm.requests[-1].messages)


@every_colour
def test_a_tool_that_interrupts_its_own_run_ends_and_its_result_counts(kind: Any) -> None:
    @tool
    async def halt() -> str:
        """Stop."""
        agent.interrupt()
        await asyncio.sleep(0.05)
        return "halted"

    @tool
    def stop() -> str:
        """Stop."""
        agent.interrupt()
        time.sleep(0.05)
        return "stopped"

    for name in ("halt", "stop"):
        agent = make(kind, [ToolCall(name, {})], tools=[halt, stop])
        result = run(agent, "go")
        assert result["finish_reason"] == "interrupted"
        assert list(results_of(result["messages"]).values()) == [{"halt": "halted", "stop": "stopped"}[name]]


@pytest.mark.parametrize("kind", [AsyncAIAgent, AsyncStreamingAIAgent])
def test_a_person_who_is_asked_need_not_answer(kind: Any) -> None:
    begun = threading.Event()

    async def ask(called: ToolCall) -> bool:
        begun.set()
        await asyncio.Event().wait()
        return True

    @tool(needs_approval=True)
    def delete() -> str:
        """Delete."""
        raise AssertionError

    agent = make(kind, [[call(), ToolCall("delete", {})]], tools=[add, delete], approve=ask)
    going = begin(agent, "go")
    assert begun.wait(SOON)
    agent.interrupt(None, "enough")
    result = going.result(SOON)
    assert result["finish_reason"] == "interrupted"
    assert list(results_of(result["messages"]).values()) == ["3", "Error: this call was not made: enough"]


@every_colour
def test_a_sub_agent_ends_with_what_it_has(kind: Any) -> None:
    with FaultServer(pending()) as server:
        blocking = AsyncAIAgent if in_loop(kind) else AIAgent
        expert = served(blocking, server, name="expert", description="Knows.")
        agent = make(kind, [ToolCall("expert", {"request": "life"}), "unasked"], tools=[expert.as_tool()])
        going = begin(agent, "ask", task_id="t")
        until(lambda: server.requests)
        assert agent.interrupt("t", "enough")
        result = going.result(SOON)
        assert (result["finish_reason"], result["detail"]) == ("interrupted", "enough")
        assert results_of(result["messages"]) == {"call_1": "Error: expert gave no answer: enough"}
        assert expert.session_ids() == []


def test_other_sessions_go_on() -> None:
    async def reply(messages: Any, params: Any) -> str:
        await asyncio.sleep(0.2 if messages[0]["content"] == "short" else SOON)
        return "done"

    async def main() -> list[dict[str, Any]]:
        agent = AsyncAIAgent(AsyncScriptedLLM(reply), enabled_toolsets=[])
        names = ["short"] * 3 + ["long"] * 3
        tasks = [asyncio.create_task(agent.run_conversation(name, task_id=n)) for n, name in enumerate(names)]
        await asyncio.sleep(0.05)
        for number in (3, 4, 5):
            assert agent.interrupt(number)
        return await asyncio.wait_for(asyncio.gather(*tasks), SOON)

    assert [result["finish_reason"] for result in asyncio.run(main())] == ["stop"] * 3 + ["interrupted"] * 3


def test_an_answer_that_was_there_already_counts() -> None:
    agent = make(StreamingAIAgent, [Completion("done")])
    parts = parts_of(agent, "go")
    assert (parts[-1].content, parts[-1].finish_reason) == ("done", "stop")
    assert not agent.interrupt()


def test_a_blocking_model_of_ones_own_is_waited_for() -> None:
    begun, over = threading.Event(), threading.Event()

    def reply(messages: Any, params: Any) -> str:
        begun.set()
        assert over.wait(SOON)
        return "too late to stop"

    agent = AIAgent(ScriptedLLM(reply), enabled_toolsets=[])
    going = begin(agent, "go")
    assert begun.wait(SOON)
    assert agent.interrupt()
    over.set()
    assert going.result(SOON)["final_response"] == "too late to stop"


@pytest.mark.parametrize("kind", [AIAgent, AsyncAIAgent])
def test_a_command_that_runs_is_ended(kind: Any, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    command = "while true; do date +%N > beat; sleep 0.02; done"
    agent = make(kind, [ToolCall("terminal", {"command": command})], tools=[Terminal(cwd=tmp_path)])
    going = begin(agent, "go")
    until(lambda: beat.exists() and beat.read_text())
    agent.interrupt(None, "enough")
    result = going.result(SOON)
    assert list(results_of(result["messages"]).values()) == ["Error: terminal was given up (enough): it was stopped"]

    def is_still() -> bool:
        last = beat.read_text()
        time.sleep(0.3)
        return beat.read_text() == last

    until(is_still)
    agent.actions["terminal"].close()
