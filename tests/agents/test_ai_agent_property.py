"""Whatever fails, is cancelled or interrupted, each call has exactly one result, and no request is without it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagentlike.actions import tool
from lagentlike.agents import RunLimits
from lagentlike.errors import BadResponse, ContextLengthExceeded, InvalidArgument, ServerError
from lagentlike.schema import Completion, ToolCall, Usage

from .looping import add, assert_paired, decide, delete, every_colour, fail, make, run

CALLS = st.sampled_from(
    [
        ToolCall("add", {"a": 1, "b": 2}),
        ToolCall("add", {"a": 1, "b": 2}, id="same"),
        ToolCall("add", '{"a": 1,'),
        ToolCall("add", {"a": "x"}),
        ToolCall("nothing", {}),
        ToolCall("", ""),
        ToolCall("fail", {}),
        ToolCall("delete", {"path": "x"}),
        ToolCall("interrupt", {}),
        ToolCall("steer", {}),
        ToolCall("exit", {}),
        ToolCall("cut", "", error="the call is not closed"),
    ]
)
REPLIES = st.one_of(
    st.lists(CALLS, min_size=1, max_size=4).map(
        lambda calls: Completion("so", tool_calls=calls, usage=Usage(1, 10, 1))
    ),
    st.sampled_from(
        [
            "done",
            "",
            Completion("cut", finish_reason="length"),
            Completion("", finish_reason="length"),
            ServerError("down"),
            BadResponse("what?"),
            ContextLengthExceeded("too long"),
            KeyboardInterrupt(),
            asyncio.CancelledError(),
        ]
    ),
)
STEPS = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(["hello", "x" * 200])),
    st.tuples(st.just("decide"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("reload")),
    st.tuples(st.just("fork")),
    st.tuples(st.just("history")),
)


def _agent(kind: Any, replies: list[Any], budget: int | None) -> Any:
    @tool
    def interrupt() -> str:
        """Interrupt the run."""
        agent.interrupt(agent.task)
        return "interrupted"

    @tool(read_only=True)
    def steer() -> str:
        """Say something to the run."""
        agent.steer(agent.task, "this way")
        return "steered"

    @tool
    def exit() -> str:  # noqa: A001  # its name for the model
        """Leave."""
        raise SystemExit(3)

    def reply(messages: Any, params: Any) -> Any:
        assert_paired(messages)
        return replies.pop(0) if replies else "the end"

    agent = make(kind, reply, [add, fail, delete, interrupt, steer, exit], max_turns=4)
    agent.limits = RunLimits(tool_calls=budget)
    agent.task = 0
    return agent


def _check(agent: Any) -> None:
    messages = agent.messages(agent.task)
    waiting: set[str] = set()
    if agent.pending(agent.task):
        waiting = {one["id"] for message in messages for one in message.get("tool_calls", ())}
    assert_paired(messages, waiting)
    for one in agent.pending(agent.task):
        assert one["id"] not in {message.get("tool_call_id") for message in messages[_last_call(messages) :]}


def _last_call(messages: list[dict[str, Any]]) -> int:
    return max(index for index, message in enumerate(messages) if message.get("tool_calls"))


def _do(agent: Any, step: Any) -> None:
    if step[0] == "say":
        run(agent, step[1], task_id=agent.task)
    elif step[0] == "decide":
        pending = agent.pending(agent.task)
        if pending:
            decide(agent, pending[step[1] % len(pending)]["id"], step[2], task_id=agent.task)
    elif step[0] == "reload":
        agent.load_state_dict(agent.state_dict(agent.task), agent.task)
    elif step[0] == "fork" and agent.task in agent.session_ids():
        agent.fork(agent.task, agent.task + 1)
        agent.task += 1
    elif step[0] == "history":
        run(agent, "again", conversation_history=agent.messages(agent.task), task_id=agent.task)


@every_colour
@settings(max_examples=150, deadline=None)
@given(
    replies=st.lists(REPLIES, max_size=12),
    steps=st.lists(STEPS, min_size=1, max_size=6),
    budget=st.sampled_from([None, None, 0, 3]),
)
def test_each_call_has_one_result(kind: Any, replies: list[Any], steps: list[Any], budget: int | None) -> None:
    agent = _agent(kind, list(replies), budget)
    for step in steps:
        before = agent.state_dict("all")
        try:
            _do(agent, step)
        except (KeyboardInterrupt, asyncio.CancelledError):
            assert agent.state_dict("all") == before
        _check(agent)
    assert not agent.interrupt(agent.task)


@every_colour
def test_the_check_sees_a_call_without_its_result(kind: Any) -> None:
    agent = _agent(kind, [], None)
    calls = [{"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    with pytest.raises(AssertionError):
        assert_paired([{"role": "assistant", "tool_calls": calls}, {"role": "user", "content": "x"}])
    with pytest.raises(InvalidArgument):
        decide(agent, "c", True)
