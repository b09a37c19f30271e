"""The ready-made hooks: logging, and turning what a parser found into a call."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, FinishAction, tool
from lagentlike.agents import Agent, AsyncAgent
from lagentlike.errors import InvalidArgument
from lagentlike.hooks import ActionPreprocessor, Hook, InternLMActionProcessor, MessageLogger
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import ActionReturn, ActionStatusCode, AgentMessage, FunctionCall, ToolCall, ToolStatusCode


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def run_code(command: str) -> str:
    """Run code."""
    return f"ran {command}"


def parsed(action: Any, tool_type: str = "plugin") -> AgentMessage:
    status = ToolStatusCode.VALID_TOOL
    formatted = {"tool_type": tool_type, "thought": "hm", "action": action, "status": status}
    return AgentMessage(sender="model", content="hm <call>", formatted=formatted)


# Logging


def test_every_message_that_passes_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(ScriptedLLM(["hello"]), name="bot", hooks=MessageLogger())
    with caplog.at_level(logging.INFO, logger="lagentlike.messages"):
        agent("hi", session_id="s")
    assert caplog.messages == ["[s] user -> bot: hi", "[s] bot <- bot: hello"]


def test_a_message_of_several_lines_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(ScriptedLLM(["one\r\n[s] user -> bot: forged"]), name="bot", hooks=MessageLogger())
    with caplog.at_level(logging.INFO, logger="lagentlike.messages"):
        agent("hi", session_id="s")
    assert caplog.messages[-1] == r"[s] bot <- bot: one\r\n[s] user -> bot: forged"


async def test_executors_and_async_agents_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    executor = ActionExecutor([add], hooks=[MessageLogger(name="mine", level=logging.DEBUG)])
    agent = AsyncAgent(AsyncScriptedLLM(["x"]), hooks=[MessageLogger(name="mine", level=logging.DEBUG)])
    with caplog.at_level(logging.DEBUG, logger="mine"):
        executor(AgentMessage(content=FunctionCall("add", {"a": 1, "b": 2})))
        await agent("hi")
    assert len(caplog.messages) == 4


def test_long_messages_are_cut_and_a_silent_logger_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("nobody reads this")

    agent = Agent(ScriptedLLM(["y" * 100]), hooks=MessageLogger(max_chars=5))
    with caplog.at_level(logging.INFO, logger="lagentlike.messages"):
        agent("hi")
    assert caplog.messages[-1].endswith(": yyyyy…")
    with caplog.at_level(logging.ERROR, logger="lagentlike.messages"):
        MessageLogger().before_agent(agent, (AgentMessage(content=Costly()),), 0)


# What the base class does


def test_a_hook_that_overrides_nothing_changes_nothing() -> None:
    assert Agent(ScriptedLLM(["hello"]), hooks=Hook())("hi").content == "hello"


def test_hooks_are_taken_one_or_many_or_described() -> None:
    for hooks in (Hook(), [Hook(), {"type": MessageLogger}], {"type": "lagentlike.hooks.MessageLogger"}, None, []):
        assert Agent(ScriptedLLM(["x"]), hooks=hooks)("hi").content == "x"
    with pytest.raises(InvalidArgument, match="hook="):
        Agent(hooks=[Hook])  # type: ignore[list-item]


# From a parsed answer to a call


@pytest.mark.parametrize("processor", [ActionPreprocessor(), InternLMActionProcessor()])
def test_the_call_that_a_parser_found_is_run_and_its_result_is_text(processor: Hook) -> None:
    executor = ActionExecutor([add], hooks=[processor])
    message = parsed({"name": "add", "parameters": {"a": 1, "b": 2}})
    assert executor(message).content == "3"
    assert message.content == "hm <call>"


def test_a_call_that_is_the_content_or_native_is_left_as_it_is() -> None:
    executor = ActionExecutor([add], hooks=[ActionPreprocessor()])
    assert executor(AgentMessage(content=FunctionCall("add", {"a": 1, "b": 2}))).content == "3"
    assert executor(AgentMessage(content={"name": "add", "parameters": {"a": 1, "b": 2}})).content == "3"
    reply = executor(AgentMessage(content="", tool_calls=[ToolCall("add", {"a": 1, "b": 2}, id="1")]))
    assert [result.output for result in reply.tool_results or ()] == ["3"]


def test_what_went_wrong_is_text_too() -> None:
    executor = ActionExecutor([add], hooks=[ActionPreprocessor()])
    assert "nothing" in executor(parsed({"name": "nothing", "parameters": {}})).content
    assert isinstance(executor(parsed({"name": "add", "parameters": {"a": "x"}})).content, str)
    returned = ActionReturn(state=ActionStatusCode.API_ERROR, errmsg="bad")
    assert ActionPreprocessor().after_action(executor, AgentMessage(content=returned), 0).content == "bad"


@pytest.mark.parametrize(
    ("actions", "tool_type", "options", "name"),
    [
        ([add, run_code], "interpreter", {}, "run_code"),
        ([run_code, add], "interpreter", {}, "run_code"),
        ([add], "interpreter", {}, "add"),
        ([run_code, add], "add", {}, "add"),
        ([run_code, add], "interpreter", {"interpreter": "add"}, "add"),
        ([add, FinishAction()], "interpreter", {}, "add"),
    ],
    ids=["takes the code", "first", "only", "named by its type", "told", "not the end"],
)
def test_bare_code_becomes_a_call_of_the_code_tool(actions: Any, tool_type: str, options: Any, name: str) -> None:
    executor = ActionExecutor(actions)
    message = InternLMActionProcessor(**options).before_action(executor, parsed("print(1)", tool_type), 0)
    assert message.content == {"name": name, "parameters": {"command": "print(1)"}}


def test_the_parameter_that_takes_the_code_can_be_told() -> None:
    executor = ActionExecutor([run_code])
    message = InternLMActionProcessor(code_parameter="code").before_action(executor, parsed("1"), 0)
    assert message.content == {"name": "run_code", "parameters": {"code": "1"}}


def test_code_without_any_tool_is_told_what_to_add() -> None:
    with pytest.raises(InvalidArgument, match="add IPythonInterpreter"):
        InternLMActionProcessor().before_action(ActionExecutor(), parsed("1"), 0)


def test_results_of_native_calls_stay_apart_and_those_of_calls_in_text_become_text() -> None:
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    executor = ActionExecutor([double], hooks=[ActionPreprocessor()])
    native = executor(AgentMessage(content="", tool_calls=[ToolCall("double", {"x": 1}), ToolCall("double", {"x": 2})]))
    assert [result.text for result in native.tool_results or ()] == ["2", "4"]
    calls = [{"name": "double", "parameters": {"x": x}, "id": "", "error": ""} for x in (3, 4)]
    in_text = executor(AgentMessage(content="", formatted={"tool_type": "t", "calls": calls}))
    assert (in_text.content, in_text.tool_results) == ("6\n8", None)
