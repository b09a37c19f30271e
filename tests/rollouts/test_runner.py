"""Rollouts: order, isolation of failures, deadlines, cancellation, two at once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent, AsyncReAct, HFAgent
from lagentlike.errors import ColourError, InvalidArgument, ServerError
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, ScriptedLLM
from lagentlike.rollouts import (
    current_environment,
    EnvironmentPool,
    reward,
    rollout,
    RolloutEvent,
    RunResult,
    stream_rollout,
)
from lagentlike.schema import AgentMessage, ToolCall
from lagentlike.tools import answer, calculator, tool


def question(messages: list[dict[str, Any]]) -> str:
    return next(str(message["content"]) for message in messages if message["role"] == "user")


def scripted(answer: Any) -> HFAgent:
    return HFAgent(AsyncScriptedLLM(answer), tools=[calculator])


async def test_results_are_in_the_order_of_queries_and_chains_whatever_finished_first() -> None:
    async def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        await asyncio.sleep(0.05 if question(messages) == "first" else 0.0)
        return question(messages)

    result = await scripted(answer).run(["first", "second", "third"], num_chains=2)
    assert [(item.query, item.chain) for item in result] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [item.final_response for item in result] == ["first", "first", "second", "second", "third", "third"]


async def test_a_chain_whose_model_fails_ends_alone() -> None:
    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        if question(messages) == "bad":
            raise ServerError("the server is down", status=503)
        return "fine"

    agent = scripted(answer)
    result = await agent.run(["good", "bad", "good"])
    assert [item.finish_reason for item in result] == ["no_tool_calls", "error", "no_tool_calls"]
    assert result[1].error == "ServerError: the server is down"
    assert result[1].reward is None
    assert [message["role"] for message in result[1].messages] == ["user"]
    assert result.failures == [result[1]]
    assert agent.session_ids() == []


async def test_a_picture_in_a_question_reaches_an_agent_that_is_called_once() -> None:
    llm = AsyncScriptedLLM(lambda messages, params: "a picture")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": "What is this?"}, picture]
    await rollout(AsyncAgent(llm), [{"messages": [{"role": "user", "content": content}]}])
    assert llm.requests[0].last == content


async def test_strict_raises_the_first_failure() -> None:
    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        raise ServerError("the server is down", status=503)

    with pytest.raises(ServerError, match="the server is down"):
        await scripted(answer).run(["a", "b"], strict=True)


async def test_what_was_said_before_a_failure_is_kept() -> None:
    replies = iter([ToolCall("calculator", {"expression": "1 + 1"}, id="a")])

    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> Any:
        return next(replies, ServerError("gone", status=500))

    [trajectory] = await scripted(answer).run("1 + 1?")
    assert trajectory.finish_reason == "error"
    assert [message["role"] for message in trajectory.messages] == ["user", "assistant"]


async def test_a_chain_that_passes_its_deadline_ends_alone() -> None:
    async def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        await asyncio.sleep(30 if question(messages) == "slow" else 0)
        return "done"

    began = time.monotonic()
    result = await scripted(answer).run(["slow", "fast"], timeout=0.2)
    assert [item.finish_reason for item in result] == ["timeout", "no_tool_calls"]
    assert time.monotonic() - began < 5


async def test_a_model_that_raises_cancelled_cancels_its_chain_alone() -> None:
    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        if question(messages) == "bad":
            raise asyncio.CancelledError
        return "fine"

    result = await scripted(answer).run(["bad", "good"])
    assert [item.finish_reason for item in result] == ["cancelled", "no_tool_calls"]


async def test_cancelling_a_run_leaves_no_task_and_no_session() -> None:
    started = asyncio.Event()

    async def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        started.set()
        await asyncio.sleep(60)
        return "never"

    agent = scripted(answer)
    before = len(asyncio.all_tasks())
    run = asyncio.ensure_future(agent.run(["a"] * 20, num_chains=2))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert len(asyncio.all_tasks()) == before
    assert agent.session_ids() == []
    assert not agent.training


async def test_two_runs_of_one_agent_at_once_do_not_know_of_each_other() -> None:
    async def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        await asyncio.sleep(0.01)
        return f"{question(messages)}: {len(messages)} messages"

    agent = scripted(answer)
    first, second = await asyncio.gather(agent.run(["a", "b"]), agent.run(["c", "d"]))
    assert [item.final_response for item in first] == ["a: 1 messages", "b: 1 messages"]
    assert [item.final_response for item in second] == ["c: 1 messages", "d: 1 messages"]


async def test_no_more_chains_run_at_once_than_asked_for() -> None:
    running, most = 0, 0

    async def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return "done"

    await scripted(answer).run(["q"] * 30, max_concurrent_chains=7)
    assert most == 7


async def test_an_unknown_tool_is_told_to_the_model_which_may_try_again() -> None:
    replies = [ToolCall("adder", {}, id="a"), ToolCall("calculator", {"expression": "1 +"}, id="b"), "sorry"]
    [trajectory] = await scripted(replies).run("1 + 1?", max_turns=5)
    told = [message["content"][0]["text"] for message in trajectory.messages if message["role"] == "tool"]
    assert "there is no such tool: 'adder'; the tools are calculator" in told[0]
    assert "is no arithmetic expression" in told[1]
    assert trajectory.finish_reason == "no_tool_calls"
    assert trajectory.error is None


async def test_calls_of_one_answer_run_side_by_side_in_threads_and_their_results_are_in_order() -> None:
    meeting = threading.Barrier(3, timeout=10)  # passed only if all three run at once, and off the event loop

    @tool
    def meet(number: int) -> str:
        """Wait for the others."""
        meeting.wait()
        return f"met {number}"

    calls = [ToolCall("meet", {"number": number}, id=str(number)) for number in range(3)]
    agent = HFAgent(AsyncScriptedLLM([calls, "done"]), tools=[meet])
    [trajectory] = await agent.run("go")
    told = [message["content"][0]["text"] for message in trajectory.messages if message["role"] == "tool"]
    assert told == ["met 0", "met 1", "met 2"]


async def test_a_blocking_tool_does_not_hold_up_other_chains() -> None:
    release = threading.Event()

    @tool
    def block() -> str:
        """Wait."""
        return str(release.wait(20))

    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> Any:
        if messages[-1]["role"] == "tool":
            return "done"
        return ToolCall("block", {}, id="a") if question(messages) == "blocks" else "quick"

    ended = []

    def watch(event: RolloutEvent) -> None:
        if event.kind == "end":
            ended.append(event.query)
            release.set()  # only once the other chain is over

    result = await HFAgent(AsyncScriptedLLM(answer), tools=[block]).run(["blocks", "free"], on_event=watch)
    assert ended == [1, 0]
    assert [item.final_response for item in result] == ["done", "quick"]


async def test_a_call_at_the_limit_of_turns_still_has_its_result() -> None:
    calls = [ToolCall("calculator", {"expression": f"{n} + 1"}, id=str(n)) for n in range(3)]
    [trajectory] = await scripted(list(calls)).run("count", max_turns=2)
    assert trajectory.finish_reason == "max_turns"
    assert [message["role"] for message in trajectory.messages] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_a_terminal_tool_ends_the_chain() -> None:
    agent = HFAgent(AsyncScriptedLLM([ToolCall("answer", {"answer": "42"}, id="a"), "not asked"]), tools=[answer])
    [trajectory] = await agent.run("6 * 7?")
    assert trajectory.finish_reason == "tool_end"
    assert trajectory.messages[-1]["content"][0]["text"] == "42"


async def test_events_are_told_as_they_happen() -> None:
    replies = [ToolCall("calculator", {"expression": "1 + 1"}, id="a"), "2"]
    events = [event async for event in stream_rollout(scripted(replies), "1 + 1?")]
    assert [event.kind for event in events] == ["start", "answer", "results", "answer", "end"]
    assert events[-1].trajectories[0].final_response == "2"


async def test_leaving_the_events_early_cancels_the_rollout() -> None:
    async def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> str:
        await asyncio.sleep(60)
        return "never"

    agent = scripted(answer)
    before = len(asyncio.all_tasks())
    events = stream_rollout(agent, ["a", "b"])
    async for _ in events:
        break
    await events.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert len(asyncio.all_tasks()) == before
    assert agent.session_ids() == []


async def test_a_reward_sees_the_environment_that_its_chain_worked_on() -> None:
    class Box:
        def __init__(self) -> None:
            self.marks: list[str] = []

        def reset(self) -> None:
            self.marks = []

        def mark(self, text: str) -> None:
            self.marks.append(text)

        def seen(self) -> list[str]:
            return self.marks

    @tool
    async def mark(text: str) -> str:
        """Leave a mark."""
        await current_environment().mark(text)
        return "done"

    @reward
    async def marked(environment: Any, word: str) -> float:
        return float(await environment.seen() == [word])

    def answer(messages: list[dict[str, Any]], params: dict[str, Any]) -> Any:
        return "ok" if messages[-1]["role"] == "tool" else ToolCall("mark", {"text": question(messages)}, id="a")

    queries = [{"messages": [{"role": "user", "content": word}], "word": word} for word in ("one", "two", "three")]
    async with EnvironmentPool(Box, 2) as pool:
        agent = HFAgent(AsyncScriptedLLM(answer), tools=[mark])
        result = await rollout(agent, queries, reward=marked, environment=pool)
    assert result.rewards == [1.0, 1.0, 1.0]


async def test_a_reward_that_is_too_slow_marks_its_chain_alone() -> None:
    @reward
    async def slow(prediction: str) -> float:
        await asyncio.sleep(30 if prediction == "slow" else 0)
        return 1.0

    agent = scripted(lambda messages, params: question(messages))
    result = await rollout(agent, ["slow", "fast"], reward=slow, reward_timeout=0.1)
    assert result.rewards == [None, 1.0]
    assert result[0].finish_reason == "error"
    assert "the reward failed: RewardError" in str(result[0].error)


async def test_any_async_agent_rolls_out_and_each_agent_of_a_tree_has_its_trajectory() -> None:
    class Blog(AsyncAgent):
        def __init__(self) -> None:
            super().__init__()
            self.writer = AsyncAgent(AsyncTinyLM(), "You are a writer.", name="writer")
            self.critic = AsyncAgent(AsyncTinyLM(), "Critique the text you are given.", name="critic")

        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AgentMessage:
            text = await self.writer(*message, session_id=session_id)
            critique = await self.critic(text, session_id=session_id)
            return await self.writer(critique, session_id=session_id)

    agent = Blog()
    result = await rollout(agent, ["Write about tea.", "Write about rain."], num_chains=2)
    assert [(item.query, item.chain, item.agent) for item in result] == [
        (query, chain, name) for query in range(2) for chain in range(2) for name in ("writer", "critic")
    ]
    assert all(item.segments and item.counts.missing == 0 for item in result)
    assert [item.counts.turns for item in result[:2]] == [2, 1]
    assert agent.session_ids() == []
    assert not agent.training


async def test_a_failing_workflow_leaves_its_question_and_what_was_produced() -> None:
    class Flow(AsyncAgent):
        def __init__(self) -> None:
            super().__init__()
            self.one = AsyncAgent(AsyncScriptedLLM(["half"]), name="one")

        async def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AgentMessage:
            await self.one(*message, session_id=session_id)
            raise RuntimeError("broken")

    [trajectory] = await rollout(Flow(), "question")
    assert (trajectory.finish_reason, trajectory.error) == ("error", "RuntimeError: broken")
    assert [message["content"][0]["text"] for message in trajectory.messages] == ["question", "half"]


async def test_wrong_arguments_are_named_before_anything_runs() -> None:
    agent = scripted(["never"])
    with pytest.raises(ColourError, match="the async form of Agent"):
        await rollout(Agent(ScriptedLLM(["x"])), "q")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(InvalidArgument, match="num_chains=0"):
        await rollout(agent, "q", num_chains=0)
    with pytest.raises(InvalidArgument, match="timeout=-1"):
        await rollout(agent, "q", timeout=-1)
    with pytest.raises(InvalidArgument, match="max_turns=3"):
        await rollout(AsyncReAct(AsyncScriptedLLM(["x"]), actions=[]), "q", max_turns=3)
    for wrong in ([], [[]], {"question": "q"}, [{"role": "assistant", "content": "a"}], [{"role": "king"}], 7):
        with pytest.raises(InvalidArgument, match="messages"):
            await rollout(agent, wrong)


async def test_a_result_survives_json() -> None:
    result = await scripted(lambda messages, params: "fine").run([{"messages": [USER], "answer": "x"}], num_chains=2)
    assert RunResult.from_json(result.to_json()) == result
    assert result[0].metadata == {"answer": "x"}
    assert repr(result) == "RunResult(2 trajectories: 2 no_tool_calls)"


async def test_thousands_of_chains_leave_nothing_behind() -> None:
    agent = scripted(lambda messages, params: "fine")
    asked: AsyncScriptedLLM = agent.agent.llm
    await agent.run(["q"] * 200)
    asked.requests.clear()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(3):
        await agent.run(["q"] * 500)
    agent._last = None
    asked.requests.clear()
    gc.collect()
    assert len(gc.get_objects()) - before < 500


USER = {"role": "user", "content": "q"}
