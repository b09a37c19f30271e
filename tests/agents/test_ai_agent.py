"""The tool-calling loop: what is asked, what is answered, and why a run ends."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import calculator, tool
from lagentlike.agents import AIAgent, AsyncAIAgent, RunLimits, StreamingAIAgent
from lagentlike.budget import Budget
from lagentlike.errors import (
    AuthenticationFailed,
    ColourError,
    ContextLengthExceeded,
    InvalidArgument,
    LLMError,
    RequestRefused,
    ScriptExhausted,
    ServerError,
    StateError,
)
from lagentlike.llms import AsyncTinyLM, GPTAPI, ScriptedLLM, TinyLM
from lagentlike.schema import AgentMessage, Completion, ToolCall, Usage

from ..colours import parts_of
from .looping import add, assert_paired, call, cut, every_colour, make, results_of, run

# An answer


@every_colour
def test_tools_are_called_until_there_is_an_answer(kind: Any) -> None:
    agent = make(kind, [call(1, 2), [call(3, 3), call(10, 5)], "All added."], system_prompt="Add.")
    result = run(agent, "add")
    assert result["final_response"] == "All added."
    assert (result["finish_reason"], result["completed"], result["detail"]) == ("stop", True, None)
    assert (result["api_calls"], result["turns"], result["tool_calls"]) == (3, 3, 3)
    assert result["usage"]["requests"] == 3
    assert [message["role"] for message in result["messages"]] == [
        "system", "user", "assistant", "tool", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip
    assert result["messages"][2]["content"] is None
    assert results_of(result["messages"]) == {"call_1": "3", "call_2": "6", "call_3": "15"}
    assert_paired(result["messages"])
    assert json.loads(json.dumps(result)) == result


@every_colour
def test_chat_gives_the_text_and_goes_on_with_the_task(kind: Any) -> None:
    agent = make(kind, [lambda messages, _: f"{len(messages)} messages"] * 3)

    def chat(*args: Any) -> Any:
        answer = agent.chat(*args)
        return asyncio.run(answer) if agent.colour.is_async else answer

    assert chat("one", "a") == "1 messages"
    assert chat("two", "a") == "3 messages"
    assert chat("one", "b") == "1 messages"
    assert agent.session_ids() == ["a", "b"]


def test_parts_of_a_stream_come_as_they_are_made() -> None:
    agent = make(StreamingAIAgent, [Completion("Let me see.", tool_calls=[call()]), "It is three."])
    agent.agent.llm.chunk_size = 4
    parts = parts_of(agent, "1 + 2?")
    assert [part.content for part in parts if not part.tool_results][-1] == "It is three."
    assert "It i" in [part.content for part in parts]
    assert [part.tool_results[0].output for part in parts if part.tool_results] == ["3"]
    assert (parts[-1].finish_reason, parts[-1].sender) == ("stop", "StreamingAIAgent")


def test_the_embedded_model_works_from_end_to_end() -> None:
    agent = AIAgent()
    result = agent.run_conversation("What is the result of 12 + 30?")
    assert "42" in result["final_response"]
    assert results_of(result["messages"]).popitem()[1] == "42"
    assert result["usage"]["completion_tokens"] > 0
    assert [item.agent for item in agent.trajectories()] == ["agent"]


async def test_the_embedded_model_works_awaited() -> None:
    agent = AsyncAIAgent("tinylm", enabled_toolsets=[], tools=[calculator])
    assert isinstance(agent.agent.llm, AsyncTinyLM)
    assert "42" in await agent.chat("What is the result of 12 + 30?")


def test_a_toolset_s_tools_are_there_and_own_tools_go_before_them() -> None:
    @tool
    def delegate(task: str) -> str:
        """Do it oneself."""
        return task

    agent = make(AIAgent, ["x"], tools=[delegate], enabled_toolsets=["delegation"])
    assert agent.actions.keys() == ["delegate"]
    assert agent.actions["delegate"] is delegate
    assert make(AIAgent, ["x"], tools=[], enabled_toolsets=["delegation"]).actions.keys() == ["delegate"]
    left_out = make(AIAgent, ["x"], tools=[], enabled_toolsets=["delegation"], disabled_toolsets=["delegation"])
    assert left_out.actions.keys() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_turns": 0}, "max_turns=0"),
        ({"model": ""}, "model=''"),
        ({"reasoning": "some"}, "reasoning='some'"),
        ({"tool_format": "none"}, "tool_format='none'"),
        ({"enabled_toolsets": ["nothing"]}, "toolset='nothing'"),
        ({"handoffs": ["someone"]}, "agent='someone'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        AIAgent(**{"enabled_toolsets": [], **options})


def test_a_model_of_the_other_colour_is_refused() -> None:
    with pytest.raises(ColourError):
        AsyncAIAgent(TinyLM(), enabled_toolsets=[])


def test_a_name_is_a_model_behind_a_server() -> None:
    agent = AIAgent("big", "secret-key", "http://127.0.0.1:9/v1", enabled_toolsets=[])
    assert isinstance(agent.agent.llm, GPTAPI)
    assert str(agent.agent.llm.url) == "http://127.0.0.1:9/v1/chat/completions"
    assert agent.agent.llm.gen_params["max_new_tokens"] is None
    assert "secret-key" not in repr(agent)
    assert "secret-key" not in str(agent.summary())


# How calls are made


def test_only_reading_tools_run_side_by_side_and_results_keep_their_order() -> None:
    running, most = set(), []
    both = threading.Barrier(2, timeout=5)

    def track(name: str) -> str:
        running.add(name)
        most.append(len(running))
        time.sleep(0.01)
        running.discard(name)
        return name

    @tool(read_only=True)
    def read(name: str) -> str:
        """Read."""
        both.wait()
        return track(name)

    @tool
    def write(name: str) -> str:
        """Write."""
        assert not running
        return track(name)

    calls = [ToolCall((name[0] == "r" and "read") or "write", {"name": name}) for name in ("r1", "r2", "w1", "w2")]
    result = run(make(AIAgent, [calls, "done"], tools=[read, write]), "go")
    assert list(results_of(result["messages"]).values()) == ["r1", "r2", "w1", "w2"]


@every_colour
def test_a_failing_tool_is_an_error_for_the_model(kind: Any) -> None:
    result = run(make(kind, [[ToolCall("fail", {}), call()], "sorry"]), "go")
    assert results_of(result["messages"]) == {"call_1": "Error: LookupError: out of order", "call_2": "3"}
    assert result["completed"]


@every_colour
def test_unknown_tools_and_bad_arguments_go_back_to_the_model(kind: Any) -> None:
    bad = [ToolCall("nothing", {}), ToolCall("add", '{"a": 1,'), call("x")]  # type: ignore[arg-type]
    result = run(make(kind, [bad, call(), "fine"]), "go")
    errors = list(results_of(result["messages"]).values())
    assert "there is no such tool: 'nothing'" in errors[0]
    assert errors[1].startswith("Error: ")
    assert errors[2].startswith("Error: ")
    assert (errors[3], result["finish_reason"]) == ("3", "stop")


@every_colour
def test_three_replies_of_bad_calls_end_the_run(kind: Any) -> None:
    agent = make(kind, [[call(), ToolCall("nothing", {})], ToolCall("add", "[1]"), ToolCall("", "{"), "unasked"])
    result = run(agent, "go")
    assert (result["finish_reason"], result["api_calls"], result["completed"]) == ("invalid_tool_calls", 3, False)
    assert_paired(result["messages"])
    assert agent.agent.llm.answered == 3


def test_a_good_call_begins_the_count_anew() -> None:
    bad = ToolCall("nothing", {})
    assert run(make(AIAgent, [bad, bad, call(), bad, bad, "fine"]), "go")["finish_reason"] == "stop"


def test_calls_get_ids_of_their_own() -> None:
    twins = Completion("", tool_calls=[call(id="same"), call(3, 4, id="same"), call(5, 6, id="other")])
    result = run(make(AIAgent, [twins, "done"]), "go")
    ids = [one["id"] for one in result["messages"][1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert (ids[0], ids[2]) == ("same", "other")
    assert list(results_of(result["messages"]).values()) == ["3", "7", "11"]


def test_a_hundred_thousand_calls_in_a_reply_are_bounded() -> None:
    replies = [[call()] * 100_000, "done"]
    result = run(make(AIAgent, replies, system_prompt=None, limits=RunLimits(tool_calls=None)), "go")
    made = [text for text in results_of(result["messages"]).values() if text == "3"]
    assert len(made) == 128
    assert result["finish_reason"] == "stop"
    assert run(make(AIAgent, replies, system_prompt=None), "go")["finish_reason"] == "budget_exceeded"


def test_a_run_has_limits_unless_it_is_said_otherwise() -> None:
    agent = make(AIAgent, ["done"])
    assert None not in (agent.limits.tool_calls, agent.limits.tokens, agent.limits.seconds)


# Why it ends


@every_colour
def test_at_the_last_turn_the_model_is_asked_once_more_without_tools(kind: Any) -> None:
    agent = make(kind, [call(), call(), "so far: 3"], max_turns=2)
    result = run(agent, "go")
    assert (result["final_response"], result["finish_reason"]) == ("so far: 3", "max_turns")
    assert not result["completed"]
    llm = agent.agent.llm
    assert [len(request.tools) for request in llm.requests] == [3, 3, 0]
    assert "Give the answer that you have so far" in llm.requests[2].last


def test_calls_of_the_last_turn_are_not_made_but_answered() -> None:
    result = run(make(AIAgent, [call(), call()], max_turns=1), "go")
    assert (result["finish_reason"], result["tool_calls"]) == ("max_turns", 1)
    assert_paired(result["messages"])
    assert "not made" in list(results_of(result["messages"]).values())[-1]


@every_colour
def test_an_answer_that_was_cut_off_is_continued(kind: Any) -> None:
    result = run(make(kind, [cut("Once upon "), cut("a time "), "there was."]), "tell")
    assert (result["final_response"], result["finish_reason"]) == ("Once upon a time there was.", "stop")
    assert result["api_calls"] == 3


def test_an_answer_without_end_ends() -> None:
    result = run(make(AIAgent, [cut("la ")] * 9), "sing")
    assert (result["final_response"], result["finish_reason"], result["api_calls"]) == ("la la la la ", "length", 4)


@every_colour
def test_an_empty_reply_is_asked_for_again(kind: Any) -> None:
    agent = make(kind, ["", Completion(" \n", usage=Usage(1, 5, 2)), "here"])
    result = run(agent, "go")
    assert (result["final_response"], result["api_calls"], result["turns"]) == ("here", 3, 1)
    assert len(agent.agent.memory.get()) == 2  # nothing of the empty ones stays
    assert result["usage"]["completion_tokens"] == 2  # but they cost


@every_colour
def test_three_empty_replies_end_the_run_and_its_message_waits_for_the_next(kind: Any) -> None:
    agent = make(kind, ["", "", "", "at last"])
    result = run(agent, "hello?")
    assert (result["finish_reason"], result["final_response"]) == ("empty_reply", None)
    assert result["messages"] == [{"role": "user", "content": "hello?"}]
    assert run(agent, "anybody?")["final_response"] == "at last"
    assert agent.agent.llm.requests[-1].last == "hello?\nanybody?"


@pytest.mark.parametrize(
    ("limits", "detail"),
    [
        (RunLimits(tool_calls=2), "limit of 2 tool calls is used up"),
        (RunLimits(tokens=25), "limit of 25 tokens is used up"),
        (RunLimits(cost=0.00002, prompt_price=1, completion_price=2), "cost is used up"),
        (RunLimits(seconds=0), "limit of 0 seconds"),
    ],
)
def test_a_limit_ends_the_run_and_what_was_done_is_kept(limits: RunLimits, detail: str) -> None:
    step = Completion("thinking", tool_calls=[call()], usage=Usage(1, 10, 3))
    agent = make(AIAgent, [step] * 9, limits=limits)
    result = run(agent, "go")
    assert (result["finish_reason"], result["completed"]) == ("budget_exceeded", False)
    assert detail in result["detail"]
    assert result["messages"][0] == {"role": "user", "content": "go"}
    assert_paired(result["messages"])
    if limits.seconds is None:
        assert (result["api_calls"], result["final_response"]) == (2, "thinking")


@every_colour
def test_a_budget_around_the_run_ends_it_too(kind: Any) -> None:
    agent = make(kind, [call(), call(), "unasked"])
    with Budget(requests=2):
        result = run(agent, "go")
    assert (result["finish_reason"], result["turns"]) == ("budget_exceeded", 2)
    assert "budget of 2 requests" in result["detail"]
    assert_paired(result["messages"])
    assert run(agent, "and now?")["final_response"] == "unasked"
    assert_paired(agent.messages())


def test_a_budget_of_tool_calls_leaves_no_call_without_its_result() -> None:
    with Budget(tool_calls=1):
        result = run(make(AIAgent, [[call(), ToolCall("fail", {}), call()], "unasked"]), "go")
    assert result["finish_reason"] == "budget_exceeded"
    assert next(iter(results_of(result["messages"]).values())) == "3"
    assert_paired(result["messages"])


# Model faults


@every_colour
def test_a_model_that_fails_takes_the_run_back(kind: Any) -> None:
    agent = make(kind, ["hello", call(), ServerError("down", status=503), "again"])
    run(agent, "hi")
    before = agent.state_dict()
    result = run(agent, "go")
    assert (result["finish_reason"], result["completed"], result["final_response"]) == ("error", False, None)
    assert result["detail"] == "ServerError: down"
    assert results_of(result["messages"]) == {"call_1": "3"}  # what was lost is shown
    assert agent.state_dict() == before
    with pytest.raises(ScriptExhausted):
        run(make(kind, []), "go")


def test_chat_raises_what_the_model_does() -> None:
    with pytest.raises(ServerError):
        make(AIAgent, [ServerError("down")]).chat("hi")


@every_colour
def test_a_fallback_model_goes_on_where_one_fails(kind: Any) -> None:
    second = make(kind, [call(), "from the second"]).agent.llm
    agent = make(kind, [ServerError("down"), ServerError("down")], fallback_models=[second])
    assert run(agent, "go")["final_response"] == "from the second"


@pytest.mark.parametrize("error", [AuthenticationFailed("no", status=401), RequestRefused("no", status=400)])
def test_a_refused_request_goes_to_no_other_model(error: LLMError) -> None:
    second = ScriptedLLM(["unasked"])
    result = run(make(AIAgent, [error], fallback_models=[second]), "go")
    assert (result["finish_reason"], second.answered) == ("error", 0)


# Conversations


@every_colour
def test_a_history_takes_the_place_of_what_is_remembered(kind: Any) -> None:
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 2?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "easy",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a": 3, "b": 4}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "lost", "content": "?"},
    ]
    agent = make(kind, ["forgotten", "It is 3."], system_prompt="Be long.")
    run(agent, "old")
    result = run(agent, "well?", conversation_history=history)
    assert result["messages"][:3] == history[:3]
    assert results_of(result["messages"]) == {"c1": "3", "c2": "Error: this call was not made: the run ended before it"}
    assert_paired(result["messages"])
    assert agent.agent.llm.requests[-1].messages[0] == {"role": "system", "content": "Be brief."}
    assert "reasoning_content" in agent.agent.llm.requests[-1].messages[2]


def test_a_run_that_fails_puts_back_what_a_history_replaced() -> None:
    agent = make(AIAgent, ["hello", ServerError("down"), KeyboardInterrupt()])
    run(agent, "hi")
    before = agent.state_dict()
    assert run(agent, "x", conversation_history=[{"role": "user", "content": "y"}])["finish_reason"] == "error"
    assert agent.state_dict() == before
    with pytest.raises(KeyboardInterrupt):
        run(agent, "x", conversation_history=[])
    assert agent.state_dict() == before


@pytest.mark.parametrize("item", [{"role": "king"}, "text", {"content": "x"}])
def test_a_history_that_is_none_is_refused(item: Any) -> None:
    agent = make(AIAgent, ["x"])
    if item == {"role": "king"}:
        item = {"role": "assistant", "content": "x", "tool_calls": [{"id": "c1"}]}
    with pytest.raises(InvalidArgument, match="conversation_history"):
        run(agent, "x", conversation_history=[item])


@every_colour
def test_a_system_message_holds_for_its_session_from_there_on(kind: Any) -> None:
    agent = make(kind, ["x"] * 4, system_prompt="Be nice.")
    run(agent, "hi", system_message="Be rude.", task_id="a")
    run(agent, "hi", system_message="Be rude.", task_id="a")
    run(agent, "hi", task_id="a")
    run(agent, "hi", task_id="b")
    asked = [request.messages for request in agent.agent.llm.requests]
    assert [messages[0]["content"] for messages in asked] == ["Be rude.", "Be rude.", "Be rude.", "Be nice."]
    assert [[item["role"] for item in messages].count("system") for messages in asked] == [1, 1, 1, 1]
    assert agent.messages("a")[0] == {"role": "system", "content": "Be rude."}


def test_editing_what_a_run_gave_changes_nothing() -> None:
    agent = make(AIAgent, [call(), "three", "four"])
    result = run(agent, "go")
    before = agent.messages()
    result["messages"][1]["tool_calls"][0]["function"]["name"] = "edited"
    result["messages"].clear()
    assert agent.messages() == before
    run(agent, "and on")
    assert agent.agent.llm.requests[-1].messages[1]["tool_calls"][0]["function"]["name"] == "add"


def test_a_message_may_have_parts() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    agent = make(AIAgent, ["A picture."])
    assert run(agent, parts)["messages"][0] == {"role": "user", "content": parts}


def test_a_session_goes_on_in_another_process_s_agent(tmp_path: Path) -> None:
    first = make(AIAgent, [call(), "3"])
    run(first, "1 + 2?", task_id="t")
    first.save(tmp_path / "state.json")
    second = make(AIAgent, ["still 3"])
    second.load(tmp_path / "state.json")
    assert second.messages("t") == first.messages("t")
    run(second, "sure?", task_id="t")
    assert len(second.agent.llm.requests[0].messages) == 5


def test_a_state_that_is_none_is_refused() -> None:
    agent = make(AIAgent, ["hi", "x"])
    run(agent, "hi")
    state = agent.state_dict()
    for run_ in ({"pending": 3}, {"unasked": [{"nothing": 1}]}, {"results": [[]]}, {"decisions": [1]}):
        state["memory"][-1]["extra_info"] = {"run": run_}
        agent.load_state_dict(state)
        with pytest.raises(StateError, match="last reply"):
            agent("go on")
    state["memory"][-1]["extra_info"] = {"run": {"active": "transfer_to_nobody"}}
    agent.load_state_dict(state)
    with pytest.raises(StateError, match="transfer_to_nobody"):
        agent("go on")


@every_colour
def test_cancelled_runs_leave_nothing(kind: Any) -> None:
    agent = make(kind, [call(), KeyboardInterrupt(), "fine"])
    with pytest.raises(KeyboardInterrupt):
        run(agent, "go")
    assert agent.messages() == []
    assert run(agent, "go")["final_response"] == "fine"


def test_verbose_logging_tells_of_each_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lagentlike.messages"):
        run(make(AIAgent, [call(), "three"], verbose_logging=True), "1 + 2?")
    logged = [record.getMessage() for record in caplog.records]
    assert "[0] user -> LoopModel: 1 + 2?" in logged
    assert "[0] LoopModel <- LoopModel: three" in logged
    assert "[0] ActionExecutor <- ActionExecutor: 3" in logged


def test_a_turn_costs_no_more_late_than_early() -> None:
    """What is rendered and looked at each turn is what is new in it, counted in calls of functions."""
    import gc
    import sys

    agent = make(AIAgent, iter(lambda: "fine", None))

    def calls_of_a_turn() -> int:
        count = 0

        def profile(frame: Any, event: str, arg: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        gc.disable()  # what others have it call is not the turn's
        sys.setprofile(profile)
        try:
            agent("hello")
        finally:
            sys.setprofile(None)
            gc.enable()
        return count

    agent.agent.llm._take = lambda messages, params: "fine"  # the script's own record grows
    for _ in range(40):
        agent("hello")
    early = calls_of_a_turn()
    for _ in range(200):
        agent("hello")
    assert calls_of_a_turn() <= early + 5


def test_it_is_an_agent_of_the_core() -> None:
    agent = make(AIAgent, ["hi"] * 9, name="helper")
    agent("hello", session_id=("a", 1))
    agent.fork(("a", 1), "b")
    assert len(agent.messages("b")) == 2
    agent.reset("b", recursive=True)
    assert agent.session_ids() == [("a", 1)]
    assert [path for path, _ in agent.named_agents()] == ["agent"]
    assert "max_turns=20" in repr(agent)
    replies = agent.map(["x", "y"])
    assert [reply.content for reply in replies if isinstance(reply, AgentMessage)] == ["hi", "hi"]
    assert agent.actions.tools()[0]["function"]["name"] == add.name


def test_overflow_without_a_compressor_is_a_clear_end() -> None:
    agent = make(AIAgent, [call(), ContextLengthExceeded("too long: 9000 > 8192")], compressor=None)
    result = run(agent, "go")
    assert result["finish_reason"] == "context_overflow"
    assert "does not fit the model's window: too long: 9000 > 8192" in result["detail"]
    assert_paired(result["messages"])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("limits", {"tokens": 5}),
        ("guardrails", [str]),
        ("compressor", "drop"),
        ("approve", True),
        ("tools", add),
        ("handoffs", AIAgent(ScriptedLLM(), enabled_toolsets=[])),
        ("fallback_models", "gpt-4o"),
    ],
)
def test_what_cannot_do_its_part_is_refused_when_the_agent_is_made(argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{argument}=(.|\n)*: give "):
        AIAgent(ScriptedLLM(), **{"enabled_toolsets": [], argument: value})


def test_limits_and_guardrails_may_be_described() -> None:
    agent = AIAgent(ScriptedLLM(["hi"]), enabled_toolsets=[], limits={"type": RunLimits, "tool_calls": 5})
    assert agent.limits == RunLimits(tool_calls=5)
