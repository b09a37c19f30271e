"""Agents that write tool calls as InternLM2 does, and read code and plugins apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lagentlike.actions import ActionExecutor, BaseAction, IPythonInteractive, tool, tool_api
from lagentlike.agents import AgentForInternLM, AsyncAgent, AsyncAgentForInternLM, AsyncMathCoder, MathCoder
from lagentlike.agents.stream import get_plugin_prompt
from lagentlike.errors import InvalidArgument
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import AgentMessage, Completion


@tool
def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where.
    """
    return f"sunny in {city}"


@tool
def run_code(command: str) -> str:
    """Run code."""
    return str(eval(command))


class Shelf(BaseAction):
    """A shelf of books."""

    @tool_api
    def take(self, title: str) -> str:
        """Take a book.

        Args:
            title: which.
        """
        return title

    @tool_api
    def put(self, title: str) -> str:
        """Put a book back.

        Args:
            title: which.
        """
        return title


PLUGIN = 'I look.<|action_start|><|plugin|>\n{"name": "weather", "parameters": {"city": "Rome"}}'
CODE = "I compute.<|action_start|><|interpreter|>\n6 * 7"


def test_plugins_and_code_go_to_their_own_executors() -> None:
    agent = AgentForInternLM(ScriptedLLM([PLUGIN, CODE, "Sunny, and 42."]), [weather], [run_code], "Be helpful.")
    assert agent("ask").content == "Sunny, and 42."
    assert list(dict(agent.named_children())) == ["plugin_executor", "interpreter_executor", "agent"]
    asked = agent.agent.llm.requests[-1].messages
    assert [(m["role"], m["content"]) for m in asked if m["role"] != "system"] == [
        ("user", "ask"),
        ("assistant", f"{PLUGIN[: PLUGIN.index('{')]}{PLUGIN[PLUGIN.index('{') :]}<|action_end|>\n"),
        ("environment", "sunny in Rome"),
        ("assistant", f"{CODE}<|action_end|>\n"),
        ("environment", "42"),
    ]
    system = [m for m in asked if m["role"] == "system"]
    assert [m.get("name") for m in system] == [None, None, "plugin", "interpreter"]
    assert '"weather"' in system[2]["content"]


async def test_the_async_form_does_the_same() -> None:
    agent = AsyncAgentForInternLM(AsyncScriptedLLM([PLUGIN, CODE, "Done."]), [weather], [run_code])
    assert (await agent("ask")).content == "Done."
    assert isinstance(agent, AgentForInternLM)
    assert isinstance(agent, AsyncAgent)


def test_one_kind_of_tool_is_enough_and_none_is_not() -> None:
    assert AgentForInternLM(ScriptedLLM([PLUGIN, "x"]), plugins=[weather])("ask").content == "x"
    assert AgentForInternLM(ScriptedLLM([CODE, "x"]), interpreter=[run_code])("ask").content == "x"
    with pytest.raises(InvalidArgument, match=r"plugins=None: give plugins, an interpreter, or both"):
        AgentForInternLM(ScriptedLLM([]))


def test_a_call_that_cannot_be_read_is_told_to_the_model() -> None:
    broken = "<|action_start|><|plugin|>\n{'name': weather}"
    agent = AgentForInternLM(ScriptedLLM([broken, "Sorry."]), plugins=[weather])
    assert agent("ask").content == "Sorry."
    assert agent.agent.llm.requests[1].messages[-1]["role"] == "environment"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ('<|action_start|><|plugin|>\n{"name": "weather", "parameters": {"city": "Rome"}}', "length"),
        ("<|action_start|><|interpreter|>\n6 * 7", "length"),
        ("<|action_start|><|interpreter|>\n<|action_start|><|interpreter|>\n6 * 7<|action_end|>\n", "stop"),
        ('<|action_start|><|plugin|>\n{"command": "6 * 7"}<|action_end|>\n', "stop"),
    ],
    ids=["cut plugin", "cut code", "nested code", "no plugin"],
)
def test_a_call_that_is_cut_off_or_no_call_is_not_made(written: str, reason: str) -> None:
    llm = ScriptedLLM([Completion(written, finish_reason=reason), "Sorry."])
    agent = AgentForInternLM(llm, plugins=[run_code, weather], interpreter=[run_code])
    assert agent("ask").content == "Sorry."
    assert "the call cannot be read" in llm.requests[1].messages[-1]["content"]


def test_it_ends_when_it_asked_too_often() -> None:
    agent = AgentForInternLM(ScriptedLLM(lambda messages, params: PLUGIN), plugins=[weather], max_turn=2)
    assert agent("ask").content == "sunny in Rome"
    assert agent.agent.llm.answered == 2


def test_a_math_coder_runs_code_in_a_session_that_keeps_its_variables() -> None:
    replies = [
        "x first.<|action_start|><|interpreter|>\nx = 20",
        "now.<|action_start|><|interpreter|>\nprint(x + 1)",
        "\\boxed{21}",
    ]
    agent = MathCoder(ScriptedLLM(replies), interpreter=[IPythonInteractive()])
    assert agent("20 + 1?", session_id="s").content == "\\boxed{21}"
    assert agent.agent.llm.requests[2].messages[-1] == {"role": "environment", "content": "21"}
    assert isinstance(agent, AgentForInternLM)


async def test_an_async_math_coder_uses_a_kernel_by_default() -> None:
    agent = AsyncMathCoder(AsyncScriptedLLM([CODE, "\\boxed{42}"]))
    (name,) = agent.interpreter_executor.keys()
    assert name in ("AsyncIPythonInterpreter", "IPythonInterpreter")
    reply = await agent("6 * 7?")
    assert reply.content == "\\boxed{42}"
    assert agent.agent.llm.requests[1].messages[-1]["content"] == "42"
    await agent.interpreter_executor[name].aclose()


def test_its_state_goes_there_and_back() -> None:
    def make(replies: list[Any]) -> AgentForInternLM:
        return AgentForInternLM(ScriptedLLM(replies), [weather], [run_code])

    agent, other = make([PLUGIN, "x", "y"]), make(["y"])
    agent("ask")
    other.load_state_dict(json.loads(json.dumps(agent.state_dict())))
    agent("more")
    other("more")
    assert other.state_dict() == agent.state_dict()
    assert other.agent.llm.requests[-1].messages == agent.agent.llm.requests[-1].messages


def test_tools_are_described_for_a_prompt() -> None:
    (described,) = json.loads(get_plugin_prompt(weather))
    assert described["name"] == "weather"
    assert described["parameters"][0]["name"] == "city"
    apis = json.loads(get_plugin_prompt([Shelf(), weather]))
    assert [api["name"] for api in apis] == ["Shelf.take", "Shelf.put", "weather"]
    assert "Take a book" in apis[0]["description"]
    assert "Shelf" in apis[0]["description"]


def test_descriptions_are_those_of_the_executor() -> None:
    executor = ActionExecutor([weather])
    assert executor.description()[0]["name"] == json.loads(get_plugin_prompt(weather))[0]["name"]
    assert AgentMessage(content="x").is_from("user")
