"""Agents that ask others, hand conversations over, and keep what they did in files."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lagentlike.actions import tool
from lagentlike.agents import (
    Agent,
    AgentTool,
    AIAgent,
    AsyncAIAgent,
    AsyncStreamingAIAgent,
    Guardrails,
    HandBack,
    Handoff,
    Refuse,
    RunLimits,
    StreamingAIAgent,
)
from lagentlike.agents.recording import record_of
from lagentlike.errors import ColourError, ContextLengthExceeded, InvalidArgument, ServerError
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM, TinyLM
from lagentlike.prompts.parsers import tool_format
from lagentlike.records import read_records, read_sharegpt, records_beside, to_openai
from lagentlike.schema import Completion, ToolCall, Usage

from .looping import add, assert_paired, call, decide, delete, every_colour, make, results_of, run


def task(text: str, **more: Any) -> ToolCall:
    return ToolCall("delegate", {"task": text, **more})


def team(kind: Any, replies: Any, **options: Any) -> Any:
    return make(kind, replies, enabled_toolsets=["delegation"], **options)


def by_role(messages: list[dict[str, Any]], boss: Any, worker: Any) -> Any:
    """A reply that depends on whose conversation it is."""
    is_worker = messages[0]["role"] == "system" and "another agent hands you" in messages[0]["content"]
    return (worker if is_worker else boss)(messages)


# Sub-agents


@every_colour
def test_a_task_is_handed_to_a_sub_agent_that_sees_only_what_it_is_given(kind: Any) -> None:
    def boss(messages: Any) -> Any:
        if messages[-1]["role"] == "user":
            return Completion("", tool_calls=[task("add 1 and 2", context="be quick")], usage=Usage(1, 10, 1))
        return f"The sub-agent says: {messages[-1]['content']}"

    def worker(messages: Any) -> Any:
        seen.append([dict(message) for message in messages])
        if messages[-1]["role"] == "user":
            return Completion("", tool_calls=[call(1, 2)], usage=Usage(1, 100, 1))
        return f"it is {messages[-1]['content']}"

    seen: list[Any] = []
    agent = team(kind, lambda messages, params: by_role(messages, boss, worker))
    result = run(agent, "my secret: use a sub-agent", task_id="t")
    assert result["final_response"] == "The sub-agent says: it is 3"
    assert [message["role"] for message in seen[0]] == ["system", "user"]
    assert seen[0][1]["content"] == "add 1 and 2\n\nbe quick"
    assert "secret" not in str(seen)
    assert result["usage"]["prompt_tokens"] == 110  # its tokens are counted
    assert agent.session_ids() == ["t"]  # nothing of its conversation stays
    assert "actions.delegate.agent.agent" in [path for path, _ in agent.named_modules()]


def test_sub_agents_are_bounded_in_depth() -> None:
    tools = [request.tools for request in _deep(delegation_depth=2)]
    assert tools[0] == tools[1] == ["add", "fail", "delete", "delegate"]
    assert tools[2] == ["add", "fail", "delete"]
    assert team(AIAgent, ["x"], delegation_depth=0).actions.keys() == ["add", "fail", "delete"]


def _deep(**options: Any) -> list[Any]:
    """The requests where each agent hands on what it can."""

    def reply(messages: Any, params: Any) -> Any:
        able = any(item["function"]["name"] == "delegate" for item in params.get("tools") or ())
        return task("go on") if able and messages[-1]["role"] == "user" else "done"

    agent = team(AIAgent, reply, **options)
    assert run(agent, "go")["final_response"] == "done"
    return agent.agent.llm.requests  # type: ignore[no-any-return]


def test_sub_agents_are_bounded_in_number() -> None:
    def boss(messages: Any) -> Any:
        return task("x") if len(messages) < 60 else "enough"

    agent = team(AIAgent, lambda messages, params: by_role(messages, boss, lambda _: "done"), max_turns=40)
    results = list(results_of(run(agent, "go")["messages"]).values())
    assert results[:16] == ["done"] * 16
    assert all("handed over 16 tasks already" in result for result in results[16:])
    assert len(results) > 16
    run(agent, "go", task_id="another")  # each session has its own
    assert next(iter(results_of(agent.messages("another")).values())) == "done"


@every_colour
def test_a_sub_agent_that_fails_is_an_error_for_the_model(kind: Any) -> None:
    def worker(messages: Any) -> Any:
        raise ServerError("down")

    def boss(messages: Any) -> Any:
        return task("x") if messages[-1]["role"] == "user" else "sorry"

    result = run(team(kind, lambda messages, params: by_role(messages, boss, worker)), "go")
    assert results_of(result["messages"]) == {"call_1": "Error: ServerError: down"}
    assert result["final_response"] == "sorry"


def test_limits_and_approvals_hold_in_sub_agents() -> None:
    def boss(messages: Any) -> Any:
        return task("x") if messages[-1]["role"] == "user" else "well"

    def worker(messages: Any) -> Any:
        return ToolCall("delete", {"path": "/"})

    agent = team(AIAgent, lambda messages, params: by_role(messages, boss, worker))
    result = run(agent, "go")
    assert "sub_agent gave no answer: delete asks before each call" in next(
        iter(results_of(result["messages"]).values())
    )

    def spender(messages: Any) -> Any:
        return Completion("", tool_calls=[call()], usage=Usage(1, 1000, 1))

    agent = team(AIAgent, lambda messages, params: by_role(messages, boss, spender), limits=RunLimits(tokens=1500))
    result = run(agent, "go")
    assert "limit of 1500 tokens" in next(iter(results_of(result["messages"]).values()))
    assert result["finish_reason"] == "budget_exceeded"
    assert result["usage"]["prompt_tokens"] == 2000


def test_an_interrupt_reaches_the_sub_agent() -> None:
    def boss(messages: Any) -> Any:
        return task("x") if messages[-1]["role"] == "user" else "unasked"

    def worker(messages: Any) -> Any:
        agent.interrupt("t")
        return call()

    agent = team(AIAgent, lambda messages, params: by_role(messages, boss, worker), max_turns=5)
    result = run(agent, "go", task_id="t")
    assert result["finish_reason"] == "interrupted"
    assert "interrupted by the user" in next(iter(results_of(result["messages"]).values()))
    assert_paired(result["messages"])


def test_a_sub_agent_writes_its_calls_as_its_agent_does() -> None:
    form = tool_format("hermes")

    def boss(messages: Any) -> Any:
        return form.write([task("x")]) if len(messages) == 2 else "well done"

    def worker(messages: Any) -> Any:
        return form.write([call(2, 3)]) if len(messages) == 2 else messages[-1]["content"]

    agent = team(AIAgent, lambda messages, params: by_role(messages, boss, worker), tool_format="hermes")
    result = run(agent, "go")
    assert list(results_of(result["messages"]).values()) == ["<tool_response>\n5\n</tool_response>"]
    assert all(not request.tools for request in agent.agent.llm.requests)


def test_delegation_is_known_wherever_toolsets_are() -> None:
    program = (
        "import sys\n"
        "from lagentlike.actions.toolsets import distributions, resolve_toolset, toolset_names\n"
        "assert 'delegation' in toolset_names() and 'lagentlike.agents' not in sys.modules\n"
        "assert resolve_toolset('delegation') == ['delegate'] and set(distributions['default']) == set(toolset_names())"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Agents as tools


@every_colour
def test_an_agent_is_a_tool_for_another(kind: Any) -> None:
    blocking = AsyncAIAgent if issubclass(kind, AsyncAIAgent) else AIAgent
    expert = make(blocking, lambda messages, params: f"about {messages[-1]['content']}: {len(messages)}", name="expert")
    ask = ToolCall("oracle", {"request": "life"})
    agent = make(kind, [ask, ask, "I see"], tools=[expert.as_tool("oracle", "Knows everything.")])
    result = run(agent, "ask")
    assert list(results_of(result["messages"]).values()) == ["about life: 1", "about life: 1"]  # each by itself
    assert agent.actions.tools()[0]["function"]["description"] == "Knows everything."
    assert expert.session_ids() == []
    assert "actions.oracle.agent" in [path for path, _ in agent.named_modules()]


def test_any_agent_may_be_a_tool() -> None:
    expert = Agent(ScriptedLLM([Completion("42", usage=Usage(1, 7, 1))]), name="expert", description="Knows it.")
    agent = make(AIAgent, [ToolCall("expert", {"request": "life"}), "ok"], tools=[AgentTool(expert)])
    result = run(agent, "ask")
    assert results_of(result["messages"]) == {"call_1": "42"}
    assert result["usage"]["prompt_tokens"] == 7
    with pytest.raises(InvalidArgument, match="agent"):
        AgentTool("expert")  # type: ignore[arg-type]


def test_a_streaming_agent_as_a_tool_gives_its_last_word() -> None:
    expert = StreamingAIAgent(ScriptedLLM(["one two three"], chunk_size=4), enabled_toolsets=[], name="expert")
    agent = make(AIAgent, [ToolCall("expert", {"request": "x"}), "ok"], tools=[expert.as_tool()])
    assert list(results_of(run(agent, "go")["messages"]).values()) == ["one two three"]
    slow = AsyncStreamingAIAgent(AsyncScriptedLLM(["one two"], chunk_size=4), enabled_toolsets=[], name="expert")
    other = make(AsyncAIAgent, [ToolCall("expert", {"request": "x"}), "ok"], tools=[slow.as_tool()])
    assert list(results_of(run(other, "go")["messages"]).values()) == ["one two"]


# Handoffs


@every_colour
def test_a_conversation_is_handed_over_for_good(kind: Any) -> None:
    expert = make(kind, ["Bonjour.", "Encore."], name="Marie", description="Speaks French.")
    agent = make(kind, [[call(), ToolCall("transfer_to_Marie", {})]], handoffs=[expert])
    result = run(agent, "French, please", task_id="t")
    assert (result["final_response"], result["finish_reason"], result["completed"]) == ("Bonjour.", "stop", True)
    assert (result["turns"], result["api_calls"]) == (2, 2)
    assert expert.agent.llm.requests[0].last == (
        "You take over this conversation. So far:\nuser: French, please\n"
        'assistant calls add({"a": 1, "b": 2})\nassistant calls transfer_to_Marie({})'
    )
    assert_paired(result["messages"])
    result = run(agent, "more", task_id="t")
    assert result["final_response"] == "Encore."
    assert agent.agent.llm.answered == 1
    assert [message["content"] for message in result["messages"] if message["role"] == "assistant"] == [
        None, "Bonjour.", "Encore.",
    ]  # fmt: skip
    assert "Hand the conversation over to Marie. Speaks French." in str(agent.actions.tools())


def test_a_handoff_survives_its_process_and_its_agent_may_ask_for_approval(tmp_path: Path) -> None:
    def build(boss: Any, expert: Any) -> AIAgent:
        other = make(AIAgent, expert, name="ops")
        return make(AIAgent, boss, handoffs=[Handoff(other, "Deletes.", brief=lambda messages: "delete x")])

    first = build([ToolCall("transfer_to_ops", {})], [ToolCall("delete", {"path": "x"})])
    result = run(first, "go")
    assert (result["finish_reason"], [one["name"] for one in result["pending"]]) == ("approval_required", ["delete"])
    assert first.others["transfer_to_ops"].agent.llm.requests[0].last == "delete x"
    first.save(tmp_path / "state.json")
    second = build([], ["deleted"])
    second.load(tmp_path / "state.json")
    result = decide(second, second.pending()[0]["id"], True)
    assert (result["final_response"], result["finish_reason"]) == ("deleted", "stop")
    assert_paired(result["messages"])


def test_what_is_said_reaches_the_agent_that_took_over() -> None:
    def answer(messages: Any, params: Any) -> Any:
        if len(messages) == 1:
            agent.steer(None, "quickly")
        return f"answer {len(messages)}"

    expert = make(AIAgent, answer, name="ops")
    agent = make(AIAgent, [ToolCall("transfer_to_ops", {})], handoffs=[expert])
    assert run(agent, "go")["final_response"] == "answer 3"


def test_a_plain_agent_may_take_over() -> None:
    plain = Agent(ScriptedLLM(["I am plain."]), name="plain one")
    agent = make(AIAgent, [ToolCall("transfer_to_plain_one", {})], handoffs=[plain])
    result = run(agent, "go")
    assert (result["final_response"], result["finish_reason"]) == ("I am plain.", "stop")


def _helped(kind: Any, boss: Any, expert: Any, **options: Any) -> Any:
    """An agent and one that can take its conversations over, and hand them back."""
    other = make(kind, expert, [add, delete, HandBack()], name="ops", description="Does things.", system_prompt="Do.")
    return make(kind, boss, handoffs=[Handoff(other, **options)], system_prompt="Lead.")


def _of(agent: Any) -> Any:
    """The model of the agent that takes over."""
    return agent.others["transfer_to_ops"].agent.llm


TO_OPS, BACK = ToolCall("transfer_to_ops", {}), ToolCall("transfer_back", {"message": "added them"})


@every_colour
def test_a_conversation_is_handed_back_and_the_first_agent_goes_on(kind: Any) -> None:
    agent = _helped(kind, [TO_OPS, "All is done.", TO_OPS, "Again."], [[call(), BACK], BACK])
    result = run(agent, "1 + 2?", task_id="t")
    assert (result["final_response"], result["finish_reason"]) == ("All is done.", "stop")
    assert (result["turns"], result["api_calls"], result["tool_calls"]) == (3, 3, 3)
    assert result["usage"]["requests"] == 3
    assert_paired(result["messages"])
    assert [message["role"] for message in result["messages"]] == [
        "system", "user", "assistant", "tool", "user", "assistant",
    ]  # fmt: skip
    assert agent.agent.llm.requests[1].last == (
        'ops had the conversation:\nops calls add({"a": 1, "b": 2})\nops calls transfer_back({"message": "added them"})'
        "\ntool: 3\ntool: added them\nops hands it back: added them"
    )
    result = run(agent, "and again", task_id="t")  # it can be handed over again
    assert result["final_response"] == "Again."
    assert _of(agent).requests[1].last.startswith("You take over this conversation. So far:\nuser: 1 + 2?\n")
    assert "All is done." in _of(agent).requests[1].last
    assert agent.agent.llm.requests[3].last == (
        'ops had the conversation:\nops calls transfer_back({"message": "added them"})\ntool: added them\n'
        "ops hands it back: added them"
    )
    assert_paired(result["messages"])
    for llm in (agent.agent.llm, _of(agent)):
        for request in llm.requests:
            assert_paired(request.messages)


@every_colour
def test_it_is_handed_back_messages_later_and_in_another_process(kind: Any, tmp_path: Path) -> None:
    first = _helped(kind, [TO_OPS], ["What shall I do?"])
    assert run(first, "help", task_id="t")["final_response"] == "What shall I do?"
    first.save(tmp_path / "state.json")
    second = _helped(kind, ["Gladly."], [BACK])
    second.load(tmp_path / "state.json")
    result = run(second, "thank you", task_id="t")
    assert (result["final_response"], result["turns"]) == ("Gladly.", 2)
    told = second.agent.llm.requests[0].last
    assert "ops: What shall I do?\nuser: thank you\n" in told
    assert told.endswith("ops hands it back: added them")
    assert_paired(second.agent.llm.requests[0].messages)


def test_what_was_said_to_the_other_passes_the_guardrails_of_who_has_it_again() -> None:
    secret = Guardrails(input=[lambda text: Refuse("no secrets") if "secret" in text else text.replace("darn", "…")])
    other = make(AIAgent, ["Yes?", BACK, "Yes?", BACK], [HandBack()], name="ops")
    agent = make(AIAgent, [TO_OPS, "Done.", TO_OPS], handoffs=[other], guardrails=secret)
    run(agent, "help")
    assert run(agent, "darn")["final_response"] == "Done."
    assert "user: …" in agent.agent.llm.requests[1].last
    run(agent, "more")
    result = run(agent, "my secret")
    assert (result["final_response"], result["finish_reason"]) == ("no secrets", "guardrail")
    assert_paired(result["messages"])
    assert "secret" not in str(agent.agent.llm.requests)


@every_colour
def test_a_handoff_may_be_for_one_answer(kind: Any) -> None:
    agent = _helped(kind, [TO_OPS, "You are welcome."], ["It is 3."], returns=True)
    result = run(agent, "1 + 2?")
    assert (result["final_response"], result["finish_reason"], result["turns"]) == ("It is 3.", "stop", 2)
    result = run(agent, "thanks")
    assert result["final_response"] == "You are welcome."
    assert agent.agent.llm.requests[1].last == ("ops had the conversation:\nops: It is 3.\nYou have it again.\nthanks")
    assert_paired(result["messages"])


def test_one_that_waits_for_an_approval_has_it_until_its_answer() -> None:
    agent = _helped(AIAgent, [TO_OPS, "Good."], [[call(), ToolCall("delete", {"path": "x"})], "Deleted."], returns=True)
    result = run(agent, "delete x")
    assert (result["finish_reason"], result["turns"], result["tool_calls"]) == ("approval_required", 2, 2)
    result = decide(agent, agent.pending()[0]["id"], True)
    assert (result["final_response"], result["finish_reason"]) == ("Deleted.", "stop")
    assert (result["turns"], result["api_calls"], result["tool_calls"]) == (3, 3, 3)  # each counted once
    assert result["usage"]["requests"] == 3
    assert agent.pending() == []
    assert run(agent, "thanks")["final_response"] == "Good."
    assert "ops: Deleted." in agent.agent.llm.requests[1].last


def test_two_agents_that_pass_a_conversation_to_and_fro_come_to_an_end() -> None:
    agent = _helped(AIAgent, lambda messages, params: TO_OPS if params.get("tools") else "Enough.", lambda *_: BACK)
    result = run(agent, "go")
    assert (result["final_response"], result["finish_reason"]) == ("Enough.", "max_turns")
    assert result["turns"] <= 22


@every_colour
def test_an_interrupt_before_the_other_has_begun_leaves_it_to_be_told_later(kind: Any) -> None:
    agent = _helped(kind, [TO_OPS], ["Here I am."])
    handle = agent.actions.register_forward_hook(lambda *_: agent.interrupt("t") and None)
    result = run(agent, "go", task_id="t")
    assert (result["finish_reason"], _of(agent).answered) == ("interrupted", 0)
    handle.remove()
    result = run(agent, "go on", task_id="t")
    assert result["final_response"] == "Here I am."
    assert _of(agent).requests[0].last == (
        "You take over this conversation. So far:\nuser: go\nassistant calls transfer_to_ops({})\ngo on"
    )


@every_colour
def test_an_agent_that_nobody_handed_over_to_may_say_so_too(kind: Any) -> None:
    agent = make(kind, [Completion("Not mine.", tool_calls=[BACK])], [HandBack()])
    result = run(agent, "go")
    assert (result["final_response"], result["finish_reason"]) == ("Not mine.", "handed_back")
    assert (result["detail"], result["completed"]) == ("added them", False)
    assert_paired(result["messages"])


# Trajectory files


@every_colour
def test_each_run_is_kept_in_a_trajectory_file(kind: Any, tmp_path: Path) -> None:
    thought = Completion("", tool_calls=[call()], reasoning="add them", usage=Usage(1, 10, 5))
    agent = make(kind, [thought, "It is 3.", "Bye."], system_prompt="Be nice.", save_trajectories=tmp_path / "out")
    run(agent, "1 + 2?", task_id="t")
    run(agent, "bye", task_id="t")
    path = tmp_path / "out" / "trajectories.jsonl"
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert [turn["from"] for turn in first["conversations"]] == ["system", "human", "gpt", "tool", "gpt"]
    assert first["completed"] is True
    assert first["conversations"][0]["value"].endswith("Be nice.")
    assert '"name": "add"' in first["conversations"][0]["value"]
    assert "add them" in first["conversations"][2]["value"]
    assert len(second["conversations"]) == 7
    records = list(read_records(records_beside(path)))
    assert records[0].usage == Usage(2, 10, 5)
    assert (records[0].finish_reason, records[0].metadata) == ("stop", {"task_id": "t"})
    assert records[0].tools == agent.actions.tools()
    assert records[0].id != records[1].id
    assert len(list(read_sharegpt(path))) == 2


def test_a_run_that_ends_early_is_kept_and_one_that_waits_is_not(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    agent = make(AIAgent, [ToolCall("delete", {"path": "x"}), call()], save_trajectories=True, max_turns=1)
    run(agent, "go")
    path = tmp_path / "trajectories" / "trajectories.jsonl"
    assert not path.exists()
    decide(agent, "call_1", True)
    [record] = read_records(records_beside(path))
    assert (record.completed, record.finish_reason) == (False, "max_turns")
    assert record.messages[-1].tool_results is not None  # the call of the last turn has its result too


def test_a_record_of_a_session_has_every_result_and_no_mark() -> None:
    too_long = ContextLengthExceeded("too long")
    agent = make(AIAgent, ["hi", too_long, call(), call()], max_turns=1, tools=[add])
    run(agent, "hello", task_id="t")
    result = run(agent, "go", task_id="t")
    record = record_of(agent, "t")
    assert [record.role_of(message) for message in record.messages] == [
        "user", "assistant", "user", "assistant", "tool", "user", "assistant", "tool",
    ]  # fmt: skip
    assert to_openai(record)["messages"] == result["messages"]
    assert record.tools == agent.actions.tools()


def test_calls_as_text_are_kept_once(tmp_path: Path) -> None:
    said = 'So: <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    agent = make(AIAgent, [said, "3"], tool_format="hermes", save_trajectories=tmp_path / "x.jsonl")
    run(agent, "go")
    turn = json.loads((tmp_path / "x.jsonl").read_text())["conversations"][2]
    assert turn["value"].count("<tool_call>") == 1


def test_a_file_that_cannot_be_written_takes_the_run_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    agent = make(AIAgent, ["hi"], save_trajectories=tmp_path / "file" / "x.jsonl")
    with pytest.raises(OSError, match="file"):
        run(agent, "go")
    assert agent.messages() == []


def test_everything_at_once() -> None:
    """Several sessions of one agent with all its rules on run side by side and stay apart."""

    @tool(read_only=True)
    async def slow(text: str) -> str:
        """Echo."""
        await asyncio.sleep(0.001)
        return text

    async def reply(messages: Any, params: Any) -> Any:
        await asyncio.sleep(0)
        name = messages[0]["content"]
        if len(messages) < 6:
            return [ToolCall("slow", {"text": name}), ToolCall("slow", {"text": name + "!"})]
        return f"{name} is done"

    agent = AsyncAIAgent(
        AsyncScriptedLLM(reply),
        enabled_toolsets=[],
        tools=[slow, add, delete],
        guardrails=Guardrails(output=[lambda text: Refuse("no") if "never" in text else None]),
        limits=RunLimits(tool_calls=10),
    )

    async def main() -> list[dict[str, Any]]:
        return await asyncio.gather(*(agent.run_conversation(f"s{n}", task_id=n) for n in range(50)))

    for number, result in enumerate(asyncio.run(main())):
        assert result["final_response"] == f"s{number} is done"
        assert set(results_of(result["messages"]).values()) == {f"s{number}", f"s{number}!"}
        assert_paired(result["messages"])


def test_an_agent_with_handoffs_can_be_pickled() -> None:
    agent = AIAgent(TinyLM(), enabled_toolsets=[], handoffs=[Agent(TinyLM(), name="other")])
    twin = pickle.loads(pickle.dumps(agent))
    assert twin.actions.tools() == agent.actions.tools()


@pytest.mark.parametrize("other", [AsyncAIAgent, StreamingAIAgent, AsyncStreamingAIAgent])
def test_an_agent_that_cannot_be_called_here_is_refused_for_a_handoff(other: Any) -> None:
    with pytest.raises(ColourError, match=f"handoffs: forward of {other.__name__} is"):
        make(AIAgent, [], handoffs=[make(other, [])])
    make(StreamingAIAgent, [], handoffs=[make(AIAgent, []), make(StreamingAIAgent, [], name="another")])
