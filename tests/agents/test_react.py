"""Reason, act, observe: tools are called until there is an answer, in all four colours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, AsyncActionExecutor, tool
from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncReAct,
    AsyncStreamingReAct,
    ReAct,
    StreamingAgent,
    StreamingReAct,
)
from lagentlike.budget import Budget
from lagentlike.errors import BudgetExceeded, InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM, TinyLM
from lagentlike.prompts import ToolParser
from lagentlike.schema import AgentMessage, AgentStatusCode, ToolCall

from ..colours import parts_of


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


@tool
def fail() -> str:
    """Always fails."""
    raise LookupError("out of order")


def call(a: int, b: int) -> ToolCall:
    return ToolCall("add", {"a": a, "b": b})


KINDS: list[Any] = [ReAct, AsyncReAct, StreamingReAct, AsyncStreamingReAct]
every_colour = pytest.mark.parametrize("kind", KINDS)


def make(kind: Any, replies: Any, actions: Any = (add,), **options: Any) -> Any:
    llm = (AsyncScriptedLLM if issubclass(kind, AsyncAgent) else ScriptedLLM)(replies, chunk_size=100)
    return kind(llm, list(actions), **options)


@every_colour
def test_native_calls_are_run_until_there_is_an_answer(kind: Any) -> None:
    agent = make(kind, [call(1, 2), [call(3, 3), call(10, 5)], "All added."])
    reply = parts_of(agent, "add")[-1]
    assert (reply.content, reply.stream_state) == ("All added.", AgentStatusCode.END)
    llm = agent.agent.llm
    llm.assert_exhausted()
    assert llm.requests[0].tools == ["add"]
    assert [message["role"] for message in llm.requests[2].messages] == [
        "user", "assistant", "tool", "assistant", "tool", "tool",
    ]  # fmt: skip
    results = [m for m in llm.requests[2].messages if m["role"] == "tool"]
    assert [result["content"] for result in results] == ["3", "6", "15"]
    calls = [c["id"] for m in llm.requests[2].messages for c in m.get("tool_calls", ())]
    assert [result["tool_call_id"] for result in results] == calls


@every_colour
def test_the_tree_has_the_model_and_the_tools(kind: Any) -> None:
    agent = make(kind, [call(1, 2), "3"])
    parts_of(agent, "add", session_id="s")
    assert {key: len(value) for key, value in agent.state_dict("s").items()} == {"memory": 2, "agent.memory": 4}
    assert [path for path, _ in agent.named_modules()] == ["", "actions", "actions.add", "agent"]
    again = make(kind, [])
    assert again.load_state_dict(agent.state_dict("all"), "all") == ([], [])
    assert again.state_dict("all") == agent.state_dict("all")


@every_colour
def test_a_tool_that_fails_or_is_unknown_is_told_to_the_model(kind: Any) -> None:
    agent = make(
        kind, [ToolCall("fail", {}), ToolCall("nothing", {}), ToolCall("add", "{broken"), "Sorry."], [add, fail]
    )
    assert parts_of(agent, "try")[-1].content == "Sorry."
    told = [m["content"] for m in agent.agent.llm.requests[-1].messages if m["role"] == "tool"]
    assert len(told) == 3
    assert "out of order" in told[0]
    assert "nothing" in told[1]
    assert all(text.startswith("Error: ") for text in told)


@every_colour
def test_it_ends_without_tools_when_it_asked_too_often(kind: Any) -> None:
    agent = make(kind, [call(1, 1), call(2, 2), "Enough."], max_turn=2)
    reply = parts_of(agent, "add")[-1]
    assert (reply.content, reply.finish_reason, reply.stream_state) == ("Enough.", "max_turns", AgentStatusCode.END)
    assert agent.agent.llm.requests[-1].tools == []


@every_colour
def test_a_failing_model_takes_the_whole_turn_back(kind: Any) -> None:
    agent = make(kind, [call(1, 2), LookupError("down")])
    with pytest.raises(LookupError) as caught:
        parts_of(agent, "add")
    assert agent.session_ids() == []
    assert [result.output for m in caught.value.produced for result in m.tool_results or ()][:1] == ["3"]


def test_a_stream_shows_calls_results_and_the_answer_as_they_come() -> None:
    agent = make(StreamingReAct, [call(1, 2), "It is 3."])
    parts = parts_of(agent, "add")
    assert all(part.stream_state == AgentStatusCode.STREAM_ING for part in parts[:-1])
    shown = [("call" if p.tool_calls else "result" if p.tool_results else p.content) for p in parts]
    assert shown[0] == "call"
    assert "result" in shown
    assert shown[-1] == "It is 3."
    assert isinstance(agent.agent, StreamingAgent)


TEXT = ToolParser("tool", template="Write <call>{json}</call>.", begin="<call>", end="</call>", validate="json.loads")


@every_colour
def test_a_text_protocol_works_for_models_without_native_calls(kind: Any) -> None:
    written = f"Let me.<call>{json.dumps({'name': 'add', 'parameters': {'a': 1, 'b': 2}})}</call>"
    agent = make(
        kind, [written, "It is 3."], template="Tools: {action_info}\nFormat: {output_format}", output_format=TEXT
    )
    assert parts_of(agent, "add")[-1].content == "It is 3."
    requests = agent.agent.llm.requests
    assert "tools" not in requests[0].params or not requests[0].params["tools"]
    system = requests[0].messages[0]["content"]
    assert '"name": "add"' in system
    assert "Format: Write <call>{json}</call>." in system
    assert requests[1].messages[-1]["content"] == "3"


def test_the_end_may_be_told_by_a_condition() -> None:
    agent = make(ReAct, [call(1, 2), "not yet", "DONE"], finish_condition=lambda message: "DONE" in message.content)
    assert agent("add").content == "DONE"


def test_several_messages_are_asked_as_one() -> None:
    agent = make(ReAct, ["ok"])
    agent("a", "b")
    assert agent.agent.llm.requests[0].messages == [{"role": "user", "content": "a\nb"}]


def test_options_of_the_call_reach_the_model() -> None:
    agent = make(ReAct, [call(1, 2), "3"])
    agent("add", temperature=0.5)
    assert [request.params["temperature"] for request in agent.agent.llm.requests] == [0.5, 0.5]


def test_tools_are_taken_in_every_form() -> None:
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    for actions in (add, [add], double, ActionExecutor([add]), [{"type": "lagentlike.actions.FinishAction"}]):
        assert len(ReAct(ScriptedLLM([]), actions).actions) == 1
    executor = ActionExecutor([add])
    assert ReAct(ScriptedLLM([]), executor).actions is executor


def test_what_makes_no_sense_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"(?s)actions=.*needs an ActionExecutor"):
        ReAct(ScriptedLLM([]), AsyncActionExecutor([add]))
    for max_turn in (0, True, 1.5, "3"):
        with pytest.raises(InvalidArgument, match="max_turn="):
            ReAct(ScriptedLLM([]), [add], max_turn=max_turn)  # type: ignore[arg-type]


def test_a_budget_of_tool_calls_holds() -> None:
    agent = make(ReAct, [call(1, 2), call(3, 4), "done"])
    with Budget(tool_calls=1) as budget, pytest.raises(BudgetExceeded):
        agent("add")
    assert budget.tool_calls == 1
    assert agent.session_ids() == []


async def test_many_sessions_at_once_do_not_mix() -> None:
    def answer(messages: Any, params: Any) -> Any:
        number = int(messages[0]["content"])
        if messages[-1]["role"] == "user":
            return call(number, number)
        return f"{number} doubled is {messages[-1]['content']}"

    agent = AsyncReAct(AsyncScriptedLLM(answer), [add])
    replies = await agent.map([str(number) for number in range(100)])
    assert [reply.content for reply in replies] == [f"{number} doubled is {2 * number}" for number in range(100)]


def test_forms_are_instances_of_the_pattern_and_their_colour() -> None:
    assert isinstance(make(AsyncReAct, []), (ReAct, AsyncAgent))
    assert isinstance(make(StreamingReAct, []), ReAct)
    assert isinstance(make(AsyncStreamingReAct, []), AsyncReAct)
    assert isinstance(make(AsyncReAct, []).actions, AsyncActionExecutor)
    assert type(make(ReAct, []).agent) is Agent


def test_the_embedded_model_uses_a_tool() -> None:
    from lagentlike.actions import calculator

    agent = ReAct(TinyLM(), actions=[calculator])
    assert agent("What is the result of 12 * 34?").content == "The result of 12 * 34 is 408."
    assert [message["sender"] for message in agent.state_dict()["agent.memory"]] == [
        "user", "Agent", "ActionExecutor", "Agent",
    ]  # fmt: skip


def test_memories_share_what_is_handed_on_and_stay_as_they_were() -> None:
    react = ReAct(ScriptedLLM([ToolCall("add", {"a": 1, "b": 2}), "It is 3."]), actions=[add])
    reply = react("1 + 2?")
    reply.content = "edited"
    reply.usage.requests = 7
    outer, inner = react.memory.get(0), react.agent.memory.get(0)
    assert [message.content for message in outer] == ["1 + 2?", "It is 3."]
    assert [message.content for message in inner] == ["1 + 2?", "", "3", "It is 3."]
    assert (outer[0] is inner[0], outer[1] is inner[3]) == (True, True)
    assert outer[1].usage.requests == 1


def test_what_a_hook_or_a_condition_does_to_a_reply_is_remembered_by_the_agent_around() -> None:
    def louder(unit: Any, messages: Any, reply: AgentMessage) -> None:
        reply.content += "!"

    def condition(message: AgentMessage) -> bool:
        message.content += "?"
        return True

    hooked = ReAct(ScriptedLLM(["yes"]), actions=[add])
    hooked.agent.register_forward_hook(louder)
    asked = ReAct(ScriptedLLM(["yes"]), actions=[add], finish_condition=condition)
    for react, answer in ((hooked, "yes!"), (asked, "yes?")):
        assert react("Well").content == answer
        assert [message.content for message in react.memory.get(0)] == ["Well", answer]
        assert [message.content for message in react.agent.memory.get(0)] == ["Well", "yes"]


def test_a_message_of_the_caller_is_not_kept() -> None:
    message = AgentMessage(content={"texts": ["1 + 2?"]})
    react = ReAct(ScriptedLLM(["3"]), actions=[add])
    react(message)
    message.content["texts"].append("edited")
    for memory in (react.memory.get(0), react.agent.memory.get(0)):
        assert memory[0].content == {"texts": ["1 + 2?"]}
