"""Rollouts whose rewards and environments fail: each chain is marked, and none is silently scored 0."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.agents import AsyncAgent, AsyncReAct
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncScriptedLLM
from lagentlike.rollouts import rollout
from lagentlike.rollouts.environments import current_environment, EnvironmentPool
from lagentlike.rollouts.rewards import reward
from lagentlike.schema import ToolCall

QUERIES = [{"messages": [{"role": "user", "content": f"{number}?"}], "fault": number % 5} for number in range(20)]


@reward(timeout=0.1)
def faulty(fault: int, prediction: str) -> Any:
    if fault == 1:
        raise ValueError("boom")
    if fault == 2:
        return float("nan")
    if fault == 3:
        threading.Event().wait(0.3)
    return None if fault == 4 else 1.0


async def test_every_fault_of_a_reward_marks_its_chain_and_no_other() -> None:
    agent = AsyncAgent(AsyncScriptedLLM(lambda messages, params: "yes"))
    result = await rollout(agent, QUERIES, reward=faulty)
    assert [one.reward for one in result] == [1.0, None, None, None, None] * 4
    told = ["boom", "no finite number", "longer than 0.1 seconds", "NoneType"]
    for one in result:
        fault = one.metadata["fault"]
        if fault:
            assert one.finish_reason == "error"
            assert told[fault - 1] in str(one.error)
        else:
            assert one.error is None


async def test_a_reward_that_cannot_be_reckoned_is_refused_before_anything_runs() -> None:
    llm = AsyncScriptedLLM(lambda messages, params: "yes")
    with pytest.raises(InvalidArgument, match=r"'answer'.*it has 'fault'"):
        await rollout(AsyncAgent(llm), QUERIES, reward="exact_match")
    assert llm.answered == 0


class Door:
    """An environment that breaks in the chain that says so."""

    open = 0

    def __init__(self) -> None:
        Door.open += 1

    def reset(self, fault: int) -> None:
        self.fault = fault
        if fault == 1:
            raise OSError("stuck")

    def step(self) -> str:
        if self.fault == 2:
            raise OSError("broken")
        return f"fault {self.fault}"

    def close(self) -> None:
        Door.open -= 1
        if self.fault == 3:
            raise OSError("jammed")


@tool
def push() -> str:
    """Push the door."""
    return str(current_environment().step())


def _script(messages: Any, params: Any) -> Any:
    return ToolCall("push", {}) if messages[-1]["role"] == "user" else messages[-1]["content"]


async def test_an_environment_that_crashes_ends_its_chain_alone_and_nothing_leaks() -> None:
    agent = AsyncReAct(AsyncScriptedLLM(_script), actions=[push])
    async with EnvironmentPool(Door, 4) as pool:
        result = await rollout(agent, QUERIES, environment=pool, reward=reward(lambda prediction, fault: fault))
        assert pool.leased == 0
    assert Door.open == 0
    for one in result:
        fault = one.metadata["fault"]
        if fault == 1:
            assert (one.reward, one.finish_reason) == (None, "error")
            assert "stuck" in str(one.error)
        elif fault == 2:
            assert "broken" in one.final_response  # the model was told, and went on
        else:
            assert one.final_response == f"fault {fault}"
            assert one.reward == fault


async def test_cancelling_a_rollout_gives_every_environment_back() -> None:
    agent = AsyncReAct(AsyncScriptedLLM(_script, latency=0.05), actions=[push])
    async with EnvironmentPool(Door, 4) as pool:
        running = asyncio.create_task(rollout(agent, QUERIES, environment=pool))
        while pool.leased < 4:
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert pool.leased == pool.waiting == 0
    assert Door.open == 0
