"""Calls that a person must approve, checks around a run, and words from outside while it is under way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.agents import AIAgent, AsyncAIAgent, Guardrails, Refuse, StreamingAIAgent
from lagentlike.agents.ai_agent import AsyncStreamingAIAgent
from lagentlike.errors import InvalidArgument, ServerError, StateError
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.schema import AgentMessage, Completion, ToolCall

from .looping import add, assert_paired, call, cut, decide, delete, every_colour, make, results_of, run

DELETE = ToolCall("delete", {"path": "/tmp/x"})
MIXED = [call(1, 2), DELETE, call(3, 4), ToolCall("delete", {"path": "/tmp/y"})]

# Approvals


@every_colour
def test_a_call_that_needs_approval_pauses_the_run(kind: Any) -> None:
    agent = make(kind, [MIXED, "done"])
    result = run(agent, "go", task_id="t")
    assert (result["finish_reason"], result["completed"], result["turns"]) == ("approval_required", False, 1)
    assert result["pending"] == agent.pending("t")
    assert [(one["id"], one["name"], one["arguments"]) for one in result["pending"]] == [
        ("call_2", "delete", {"path": "/tmp/x"}),
        ("call_4", "delete", {"path": "/tmp/y"}),
    ]
    assert results_of(result["messages"]) == {"call_1": "3"}  # what stands before it is made, what comes after is not
    assert "asks before each call" in result["detail"]

    result = decide(agent, "call_4", True, task_id="t")
    assert result["finish_reason"] == "approval_required"
    assert [one["id"] for one in result["pending"]] == ["call_2"]

    result = decide(agent, "call_2", False, "it is mine", task_id="t")
    assert (result["finish_reason"], result["final_response"]) == ("stop", "done")
    assert results_of(result["messages"]) == {
        "call_1": "3",
        "call_2": "Error: not approved: it is mine",
        "call_3": "7",
        "call_4": "deleted /tmp/y",
    }
    assert (result["turns"], result["api_calls"], result["tool_calls"]) == (2, 2, 3)
    assert_paired(result["messages"])
    assert agent.pending("t") == []


@every_colour
def test_a_paused_run_goes_on_in_another_agent(kind: Any, tmp_path: Path) -> None:
    first = make(kind, [DELETE])
    run(first, "go", task_id="t")
    first.save(tmp_path / "state.json")
    second = make(kind, ["gone"])
    second.load(tmp_path / "state.json")
    assert second.pending("t") == first.pending("t")
    result = decide(second, "call_1", True, task_id="t")
    assert (result["final_response"], results_of(result["messages"])) == ("gone", {"call_1": "deleted /tmp/x"})
    assert second.agent.llm.requests[0].messages[-1]["content"] == "deleted /tmp/x"


def test_a_paused_run_goes_on_in_another_process(tmp_path: Path) -> None:
    agent = make(AIAgent, [DELETE])
    run(agent, "go", task_id="t")
    agent.save(tmp_path / "state.json")
    script = tmp_path / "resume.py"
    script.write_text(
        "import json, sys\n"
        "from lagentlike.agents import AIAgent\n"
        "from lagentlike.actions import tool\n"
        "from lagentlike.llms import ScriptedLLM\n"
        "@tool(needs_approval=True)\n"
        "def delete(path: str) -> str:\n"
        "    'Delete.'\n"
        "    return 'really deleted ' + path\n"
        "agent = AIAgent(ScriptedLLM(['gone']), enabled_toolsets=[], tools=[delete])\n"
        "agent.load(sys.argv[1])\n"
        "[waiting] = agent.pending('t')\n"
        "print(json.dumps(agent.approve('t', waiting['id'], True)))\n"
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "state.json"], capture_output=True, text=True, check=True, timeout=60
    )
    result = json.loads(done.stdout)
    assert (result["final_response"], result["finish_reason"]) == ("gone", "stop")
    assert results_of(result["messages"]) == {"call_1": "really deleted /tmp/x"}


@every_colour
def test_who_goes_on_without_deciding_has_not_approved(kind: Any) -> None:
    agent = make(kind, [MIXED, "as you like"])
    run(agent, "go")
    result = run(agent, "never mind")
    assert result["final_response"] == "as you like"
    results = results_of(result["messages"])
    assert results["call_1"] == "3"
    assert {results[id_] for id_ in ("call_2", "call_3", "call_4")} == {"Error: not approved: the user went on"}
    assert (result["turns"], agent.pending()) == (1, [])
    assert_paired(result["messages"])


@every_colour
@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (True, "deleted /tmp/x"),
        ((True, "sure"), "deleted /tmp/x"),
        (False, "Error: not approved"),
        ((False, "no way"), "Error: not approved: no way"),
        ("yes", "Error: not approved"),  # only True approves
        (None, "Error: not approved"),
    ],
)
def test_a_callback_decides_at_once(kind: Any, verdict: Any, expected: str) -> None:
    seen = []

    def approve(asked: ToolCall) -> Any:
        seen.append((asked.name, dict(asked.arguments)))  # type: ignore[arg-type]
        asked.arguments["path"] = "/"  # type: ignore[index]  # a copy: nothing comes of it
        return verdict

    result = run(make(kind, [[call(), DELETE], "done"], approve=approve), "go")
    assert results_of(result["messages"]) == {"call_1": "3", "call_2": expected}
    assert seen == [("delete", {"path": "/tmp/x"})]


async def test_an_async_callback_is_awaited_and_a_plain_one_blocks_nobody() -> None:
    async def ask(asked: ToolCall) -> bool:
        await asyncio.sleep(0)
        return True

    agent = AsyncAIAgent(AsyncScriptedLLM([DELETE, "gone"]), enabled_toolsets=[], tools=[delete], approve=ask)
    assert await agent.chat("go") == "gone"

    main, seen = threading.get_ident(), []
    agent = AsyncAIAgent(
        AsyncScriptedLLM([DELETE, "gone"]),
        enabled_toolsets=[],
        tools=[delete],
        approve=lambda asked: seen.append(threading.get_ident()) or True,
    )
    assert await agent.chat("go") == "gone"
    assert seen != [main]


def test_a_tool_may_ask_only_for_some_arguments() -> None:
    @tool(needs_approval=lambda arguments: "the root is dear" if arguments["path"] == "/" else False)
    def remove(path: str) -> str:
        """Remove."""
        return "gone"

    agent = make(AIAgent, [[ToolCall("remove", {"path": "x"}), ToolCall("remove", {"path": "/"})]], tools=[remove])
    result = run(agent, "go")
    assert results_of(result["messages"]) == {"call_1": "gone"}
    assert [(one["id"], one["reason"]) for one in result["pending"]] == [("call_2", "the root is dear")]


def test_a_decision_on_a_call_that_does_not_wait_is_refused() -> None:
    agent = make(AIAgent, [DELETE, "gone", "more"])
    with pytest.raises(InvalidArgument, match=r"call_id='call_1'.*waiting are \[\]"):
        decide(agent, "call_1", True)
    run(agent, "go")
    before = agent.state_dict()
    with pytest.raises(InvalidArgument, match="call_9"):
        decide(agent, "call_9", True)
    with pytest.raises(InvalidArgument, match="approved='yes'"):
        decide(agent, "call_1", "yes")  # type: ignore[arg-type]
    with pytest.raises(StateError):
        agent(AgentMessage(content="yes", type="approval"))
    assert agent.state_dict() == before
    decide(agent, "call_1", True)
    with pytest.raises(InvalidArgument):
        decide(agent, "call_1", True)  # a call is made once


def test_a_model_that_fails_after_the_decision_leaves_the_call_waiting() -> None:
    agent = make(AIAgent, [DELETE, ServerError("down"), "gone"])
    run(agent, "go")
    assert decide(agent, "call_1", False)["finish_reason"] == "error"
    assert [one["id"] for one in agent.pending()] == ["call_1"]
    assert decide(agent, "call_1", False)["final_response"] == "gone"


def test_a_paused_session_may_be_forked_and_decided_both_ways() -> None:
    agent = make(AIAgent, [DELETE, "gone", "kept"])
    run(agent, "go", task_id="a")
    agent.fork("a", "b")
    assert results_of(decide(agent, "call_1", True, task_id="a")["messages"])["call_1"] == "deleted /tmp/x"
    assert results_of(decide(agent, "call_1", False, task_id="b")["messages"])["call_1"] == "Error: not approved"


def test_a_paused_call_that_is_no_longer_remembered_is_no_call() -> None:
    agent = make(AIAgent, [DELETE, "x"])
    run(agent, "go")
    agent.agent.reset()
    with pytest.raises(InvalidArgument, match="no longer has the calls"):
        decide(agent, "call_1", True)


# Guardrails


@every_colour
def test_an_input_is_refused_or_rewritten(kind: Any) -> None:
    def no_secrets(content: str) -> Any:
        if "password" in content:
            return Refuse("I do not talk about passwords.")
        return content.replace("Bob", "somebody") if "Bob" in content else None

    agent = make(kind, ["fine"], guardrails=Guardrails(input=[no_secrets]))
    result = run(agent, "the password?")
    assert (result["final_response"], result["finish_reason"]) == ("I do not talk about passwords.", "guardrail")
    assert agent.agent.llm.answered == 0
    result = run(agent, "Who is Bob?")
    assert result["messages"][-2:] == [
        {"role": "user", "content": "Who is somebody?"},
        {"role": "assistant", "content": "fine"},
    ]


@every_colour
def test_a_call_is_refused_or_rewritten(kind: Any) -> None:
    def only_small(asked: ToolCall) -> Any:
        arguments: Any = asked.arguments
        if arguments.get("a") == 13:
            return Refuse("13 is unlucky")
        if arguments.get("a") == 100:
            asked.arguments = {**arguments, "a": 10}
            return asked
        return None

    agent = make(kind, [[call(13, 1), call(100, 1), call(1, 1)], "ok"], guardrails=Guardrails(tool_call=[only_small]))
    result = run(agent, "go")
    assert list(results_of(result["messages"]).values()) == ["Error: 13 is unlucky", "11", "2"]
    arguments = [one["function"]["arguments"] for one in result["messages"][1]["tool_calls"]]
    assert arguments[1] == '{"a": 100, "b": 1}'  # what the model said stays
    assert_paired(result["messages"])


@every_colour
def test_the_model_may_answer_anew_what_was_refused(kind: Any) -> None:
    def polite(text: str) -> Any:
        return Refuse("say please") if "please" not in text else text.upper()

    agent = make(kind, ["give", cut("give, "), "please"], guardrails=Guardrails(output=[polite]))
    result = run(agent, "go")
    assert (result["final_response"], result["finish_reason"]) == ("GIVE, PLEASE", "stop")
    assert agent.agent.llm.requests[1].last == "This answer was refused: say please"

    agent = make(kind, ["give"] * 3, guardrails=Guardrails(output=[polite]))
    result = run(agent, "go")
    assert (result["final_response"], result["finish_reason"], result["api_calls"]) == ("say please", "guardrail", 3)


def test_async_guardrails_are_awaited() -> None:
    async def shout(text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    assert run(make(AsyncAIAgent, ["hi"], guardrails=Guardrails(output=[shout])), "go")["final_response"] == "HI"


def test_a_guardrail_that_returns_no_call_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match=r"guardrails\.tool_call"):
        run(make(AIAgent, [call(), "x"], guardrails=Guardrails(tool_call=[lambda asked: "no"])), "go")
    with pytest.raises(InvalidArgument, match="input"):
        Guardrails(input="no")


def test_what_a_guardrail_makes_of_a_call_is_what_must_be_approved() -> None:
    def to_tmp(asked: ToolCall) -> Any:
        if asked.name == "add":
            return ToolCall("delete", {"path": "/tmp/sum"})
        return None

    agent = make(AIAgent, [[call(), call()], "ok"], guardrails=Guardrails(tool_call=[to_tmp]))
    result = run(agent, "go")
    assert [one["arguments"] for one in result["pending"]] == [{"path": "/tmp/sum"}]
    result = decide(agent, "call_1", True)
    assert result["finish_reason"] == "approval_required"
    result = decide(agent, "call_2", False)
    assert list(results_of(result["messages"]).values()) == ["deleted /tmp/sum", "Error: not approved"]
    assert_paired(result["messages"])


# Interrupts and words


def _agent_that(does: Any, replies: list[Any], kind: Any = AIAgent, **options: Any) -> Any:
    """An agent whose tool `step` does something to it."""

    @tool
    def step() -> str:
        """Do a step."""
        return does(agent) or "stepped"

    agent = make(kind, replies, tools=[step, add], **options)
    return agent


STEP = ToolCall("step", {})


@every_colour
def test_an_interrupt_takes_effect_between_calls_and_all_have_a_result(kind: Any) -> None:
    agent = _agent_that(lambda agent: agent.interrupt("t", "enough") and None, [[STEP, STEP, call()], "later"], kind)
    result = run(agent, "go", task_id="t")
    assert (result["finish_reason"], result["detail"], result["completed"]) == ("interrupted", "enough", False)
    assert results_of(result["messages"]) == {
        "call_1": "stepped",
        "call_2": "Error: this call was not made: enough",
        "call_3": "Error: this call was not made: enough",
    }
    assert_paired(result["messages"])
    assert agent.agent.llm.answered == 1
    result = run(agent, "go on", task_id="t")  # the model is told then
    assert result["final_response"] == "later"
    assert_paired(agent.agent.llm.requests[-1].messages)
    assert_paired(result["messages"])


def test_an_interrupt_comes_from_another_thread() -> None:
    running, stopped = threading.Event(), threading.Event()

    def wait(agent: Any) -> None:
        running.set()
        assert stopped.wait(10)

    agent = _agent_that(wait, [STEP, "unasked"])
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run(agent, "go", task_id="t")))
    thread.start()
    assert running.wait(10)
    assert not agent.interrupt("another")
    assert agent.interrupt("t")
    stopped.set()
    thread.join(10)
    assert found[0]["finish_reason"] == "interrupted"
    assert not agent.interrupt("t")  # nobody is there any more


async def test_an_interrupt_comes_from_another_task() -> None:
    async def reply(messages: Any, params: Any) -> Any:
        await asyncio.sleep(0.02)
        return call()

    agent = AsyncAIAgent(AsyncScriptedLLM(reply), enabled_toolsets=[], tools=[add], max_turns=1000)
    task = asyncio.create_task(agent.run_conversation("go", task_id="t"))
    await asyncio.sleep(0.1)
    assert agent.interrupt("t")
    result = await asyncio.wait_for(task, 10)
    assert result["finish_reason"] == "interrupted"
    assert_paired(result["messages"])


@every_colour
def test_what_is_said_to_a_run_comes_with_the_next_request(kind: Any) -> None:
    agent = _agent_that(lambda agent: agent.steer("t", "mind the gap") and None, [STEP, "minded"], kind)
    result = run(agent, "go", task_id="t")
    assert result["final_response"] == "minded"
    assert agent.agent.llm.requests[1].messages[-2]["role"] == "tool"
    assert agent.agent.llm.requests[1].messages[-1] == {"role": "user", "content": "mind the gap"}
    assert not agent.steer("t", "too late")
    with pytest.raises(InvalidArgument):
        agent.steer("t", " ")


def test_what_is_said_while_the_model_answers_is_answered_too() -> None:
    def answer(messages: Any, params: Any) -> str:
        if len(messages) == 1:
            agent.steer(None, "in French")
        return f"answer {len(messages)}"

    agent = make(AIAgent, answer)
    result = run(agent, "go")
    assert (result["final_response"], result["turns"]) == ("answer 3", 2)


@every_colour
def test_what_is_said_to_a_run_that_ends_waits_for_the_next(kind: Any) -> None:
    def say(agent: Any) -> None:
        agent.steer(None, "later, then")
        agent.interrupt()

    agent = _agent_that(say, [STEP, "heard"], kind)
    assert run(agent, "go")["messages"][-1] == {"role": "user", "content": "later, then"}
    assert run(agent, "go on")["final_response"] == "heard"
    assert agent.agent.llm.requests[-1].last == "later, then\ngo on"


def test_what_is_said_before_a_pause_comes_after_the_results() -> None:
    agent = _agent_that(lambda agent: agent.steer(None, "and then") and None, [])
    agent.actions["delete"] = delete
    for approved in (True, None):
        agent.agent.llm._replies = iter([[STEP, DELETE], "done"])
        run(agent, "go")
        result = run(agent, "no") if approved is None else decide(agent, agent.pending()[0]["id"], approved)
        assert result["final_response"] == "done"
        assert_paired(result["messages"])
        assert_paired(agent.agent.llm.requests[-1].messages)
        assert "and then" in agent.agent.llm.requests[-1].last


def test_a_stream_that_is_left_takes_the_run_back() -> None:
    agent = make(StreamingAIAgent, [call(), "three", "four"])
    stream = agent("1 + 2?")
    for part in stream:
        if part.tool_results:
            break
    stream.close()
    assert agent.messages() == []
    assert not agent.interrupt()
    assert run(agent, "2 + 2?")["final_response"] == "three"


async def test_a_run_that_is_cancelled_is_taken_back() -> None:
    async def hang(messages: Any, params: Any) -> Any:
        if len(messages) == 1:
            return call()
        await asyncio.sleep(60)

    for kind in (AsyncAIAgent, AsyncStreamingAIAgent):
        agent = kind(AsyncScriptedLLM(hang), enabled_toolsets=[], tools=[add])
        task = asyncio.create_task(agent.run_conversation("go"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert agent.messages() == []
        assert not agent.interrupt()


def test_sessions_of_one_agent_do_not_hear_each_other() -> None:
    def step(agent: Any) -> None:
        agent.interrupt("a")

    agent = _agent_that(step, lambda messages, _: STEP if messages[-1]["role"] == "user" else "done")
    assert run(agent, "go", task_id="b")["finish_reason"] == "stop"
    assert run(agent, "go", task_id="a")["finish_reason"] == "interrupted"


def test_text_beside_calls_is_kept_when_the_run_pauses() -> None:
    agent = make(AIAgent, [Completion("I will delete it.", tool_calls=[DELETE])])
    assert run(agent, "go")["final_response"] == "I will delete it."
    assert isinstance(agent.agent.llm, ScriptedLLM)
