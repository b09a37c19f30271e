"""Budgets: what is used up is refused before it is spent, in whatever colour, thread or task."""

from __future__ import annotations

import asyncio
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent
from lagentlike.budget import Budget, charge_request, charge_tool_call, charge_usage
from lagentlike.errors import BudgetExceeded, InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import Completion, Usage


def answering(tokens: int = 10) -> ScriptedLLM:
    return ScriptedLLM(lambda messages, params: Completion("x", usage=Usage(1, tokens - 1, 1)))


def test_without_a_budget_everything_is_allowed() -> None:
    charge_request()
    charge_usage(Usage(1, 10**9, 0))
    charge_tool_call()


@pytest.mark.parametrize(("limit", "allowed"), [({"requests": 2}, 2), ({"tokens": 25}, 3), ({"requests": 0}, 0)])
def test_a_request_too_many_is_refused_before_it_is_made(limit: dict[str, Any], allowed: int) -> None:
    llm = answering(10)
    agent = Agent(llm)
    with Budget(**limit) as budget:
        for _ in range(allowed):
            agent("hi")
        with pytest.raises(BudgetExceeded, match="is used up"):
            agent("hi")
    assert llm.answered == budget.used.requests == allowed
    assert budget.used.total_tokens == allowed * 10
    assert len(agent.memory.get(0)) == 2 * allowed
    agent("again")


def test_tool_calls_are_counted_apart() -> None:
    with Budget(tool_calls=1) as budget:
        charge_tool_call()
        with pytest.raises(BudgetExceeded, match="budget of 1 tool calls"):
            charge_tool_call()
    assert budget.tool_calls == 1


def test_time_runs_out() -> None:
    with Budget(seconds=0.01) as budget:
        charge_request()
        time.sleep(0.02)
        for charge in (charge_request, charge_tool_call):
            with pytest.raises(BudgetExceeded, match="seconds"):
                charge()
    assert budget.seconds >= 0.02


def test_the_tightest_of_nested_budgets_holds_and_all_count() -> None:
    with Budget(requests=10) as outer:
        with Budget(requests=1) as inner:
            charge_request()
            with pytest.raises(BudgetExceeded, match="budget of 1"):
                charge_request()
        with Budget(requests=5):
            for _ in range(5):
                charge_request()
            with pytest.raises(BudgetExceeded, match="budget of 5"):
                charge_request()
    assert inner.used.requests == 1
    assert outer.used.requests == 6


def test_a_refused_request_is_counted_nowhere() -> None:
    with Budget(requests=10) as outer, Budget(requests=0), pytest.raises(BudgetExceeded):
        charge_request()
    assert outer.used.requests == 0


async def test_tasks_started_in_the_block_share_it() -> None:
    agent = AsyncAgent(AsyncScriptedLLM(lambda messages, params: "x"))
    with Budget(requests=3) as budget:
        outcomes = await agent.map(["hi"] * 5)
    assert [type(outcome).__name__ for outcome in outcomes].count("BudgetExceeded") == 2
    assert budget.used.requests == 3


async def test_tasks_beside_each_other_have_budgets_of_their_own() -> None:
    async def work(count: int) -> int:
        with Budget(requests=count) as budget:
            for _ in range(count):
                charge_request()
                await asyncio.sleep(0)
        return budget.used.requests

    assert await asyncio.gather(*(work(count) for count in range(5))) == [0, 1, 2, 3, 4]


def test_threads_never_spend_more_than_there_is() -> None:
    def spend(_: int) -> int:
        spent = 0
        for _ in range(200):
            try:
                charge_request()
            except BudgetExceeded:
                continue
            charge_usage(Usage(1, 3, 0))
            spent += 1
        return spent

    with Budget(requests=1000) as budget, ThreadPoolExecutor(8) as pool:
        contexts = [copy_context() for _ in range(16)]
        spent = list(pool.map(lambda context: context.run(spend, 0), contexts))
    assert sum(spent) == budget.used.requests == 1000
    assert budget.used.prompt_tokens == 3000


def test_one_budget_is_entered_once_at_a_time() -> None:
    budget = Budget(requests=1)
    with budget, pytest.raises(InvalidArgument, match="in use"):
        budget.__enter__()
    with budget:
        charge_request()
    with budget, pytest.raises(BudgetExceeded):
        charge_request()


@pytest.mark.parametrize("name", ["requests", "tokens", "tool_calls", "seconds"])
@pytest.mark.parametrize("limit", [-1, "many", True, float("nan")])
def test_a_limit_that_is_none_is_refused(name: str, limit: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}="):
        Budget(**{name: limit})


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BudgetExceeded("tokens", 5, 3)))
    assert (error.what, error.used, error.limit) == ("tokens", 5, 3)
