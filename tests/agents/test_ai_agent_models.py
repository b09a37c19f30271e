"""What the loop makes of models: thinking, calls as text, windows that are too small, servers that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lagentlike.actions import calculator
from lagentlike.agents import AIAgent, AsyncAIAgent, Compressed, DropOldest, RunLimits, StreamingAIAgent
from lagentlike.agents.reasoning import split_thinking
from lagentlike.concurrency import run_in_background
from lagentlike.errors import ContextLengthExceeded, InvalidArgument
from lagentlike.llms import AsyncTinyLM, GPTAPI, ScriptedLLM, TinyLM
from lagentlike.memory import Memory
from lagentlike.prompts.parsers.tool_formats import tool_format, tool_format_names
from lagentlike.schema import AgentMessage, Completion, ToolCall
from lagentlike.serving import ModelServer

from ..colours import parts_of
from ..llms.fault_server import answer, chunk, completion, events, FaultServer, raw, refuse, reply, reset, stream_of
from .looping import add, assert_paired, call, every_colour, make, results_of, run

# Thinking


@every_colour
@pytest.mark.parametrize(
    "thoughtful",
    [
        Completion("It is 3.", reasoning="1 and 2"),
        "<think>1 and 2</think>It is 3.",
        "\n<think>\n1 and 2\n</think>\n\nIt is 3.",
        "1 and 2</think>It is 3.",  # the template wrote the opening mark
    ],
)
def test_thinking_is_told_apart_and_kept(kind: Any, thoughtful: Any) -> None:
    agent = make(kind, [thoughtful])
    result = run(agent, "1 + 2?")
    assert result["final_response"] == "It is 3."
    assert result["messages"][-1] == {"role": "assistant", "content": "It is 3.", "reasoning": "1 and 2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no thinking", (None, "no thinking")),
        ("<think>cut", ("cut", "")),
        ("<think></think>x", ("", "x")),
        ("Use `</think>` to end it", (None, "Use `</think>` to end it")),
        ("a <think>b</think> c", (None, "a <think>b</think> c")),
        ("", (None, "")),
    ],
)
def test_only_thinking_at_the_beginning_is_thinking(text: str, expected: Any) -> None:
    assert split_thinking(text) == expected


@pytest.mark.parametrize(("policy", "sent"), [("echo", True), ("strip", False), ("auto", True)])
def test_thinking_is_given_back_as_the_policy_says(policy: Any, sent: bool) -> None:
    thought = Completion("", tool_calls=[call()], reasoning="let me add")
    agent = make(AIAgent, [thought, "3", "bye"], reasoning=policy)
    run(agent, "go")
    run(agent, "bye")
    for request in agent.agent.llm.requests[1:]:
        said = request.messages[1]
        assert said.get("reasoning_content") == ("let me add" if sent else None)
        assert "reasoning" not in said
    assert agent.messages()[1]["reasoning"] == "let me add"


def test_servers_known_to_be_strict_get_no_thinking() -> None:
    for url, sent in (("https://api.openai.com/v1", False), ("http://127.0.0.1:1/v1", True)):
        assert AIAgent("m", "k", url, enabled_toolsets=[]).agent.aggregator.echo is sent
    assert AIAgent("m", "k", enabled_toolsets=[], reasoning="echo").agent.aggregator.echo


def test_a_server_that_refuses_thinking_is_asked_without_it(no_leaks: None) -> None:
    thought = {"content": "hm", "reasoning_content": "deep"}
    no = refuse(400, "Unknown parameter: 'messages[1].reasoning_content'.")
    with FaultServer(reply(completion(message=thought)), no, answer("fine"), answer("good")) as server:
        agent = AIAgent("m", "k", server.url, enabled_toolsets=[])
        run(agent, "one")
        assert run(agent, "two")["final_response"] == "fine"
        assert run(agent, "three")["final_response"] == "good"
        bodies = [request.json["messages"] for request in server.requests]
        agent.agent.llm.close()
    assert ["reasoning_content" in messages[1] for messages in bodies[1:]] == [True, False, False]


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_in_details_is_read_too(streamed: bool, no_leaks: None) -> None:
    details = [{"type": "reasoning.text", "text": "1 and "}, {"type": "reasoning.encrypted", "data": "x"}]
    more = [{"type": "reasoning.summary", "summary": "2"}]
    if streamed:
        said = b"".join(chunk({"reasoning_details": part}) for part in (details, more)) + stream_of("It is 3.")
        server = FaultServer(events(said))
    else:
        server = FaultServer(reply(completion("It is 3.", message={"reasoning_details": details + more})))
    with server:
        agent = (StreamingAIAgent if streamed else AIAgent)("m", "k", server.url, enabled_toolsets=[])
        assert run(agent, "1 + 2?")["messages"][-1]["reasoning"] == "1 and 2"
        agent.agent.llm.close()


def test_a_refusal_over_thinking_is_an_error_where_the_policy_is_fixed() -> None:
    with FaultServer(refuse(400, "Unknown parameter: reasoning_content")) as server:
        result = run(AIAgent("m", "k", server.url, enabled_toolsets=[], reasoning="echo"), "one")
        assert (result["finish_reason"], len(server.requests)) == ("error", 1)


# Calls as text

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@every_colour
def test_calls_may_be_text(kind: Any) -> None:
    agent = make(kind, [f"<think>add</think>Let me see. {CALL}", "It is 3."], tool_format="hermes", system_prompt="Hi.")
    result = run(agent, "1 + 2?")
    assert result["final_response"] == "It is 3."
    said = result["messages"][2]
    assert (said["content"], said["reasoning"]) == ("Let me see.", "add")
    assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    assert_paired(result["messages"])
    first, second = agent.agent.llm.requests
    assert not first.tools
    assert first.messages[0]["content"].startswith("Hi.\n\n# Tools")
    assert '"name": "add"' in first.messages[0]["content"]
    assert [item["role"] for item in second.messages] == ["system", "user", "assistant", "user"]
    assert second.messages[2] == {"role": "assistant", "content": f"Let me see. {CALL}", "reasoning_content": "add"}
    assert second.last == "<tool_response>\n3\n</tool_response>"


def test_a_system_message_of_a_session_tells_of_the_tools_too() -> None:
    agent = make(AIAgent, ["x", "y"], tool_format="hermes")
    run(agent, "hi", system_message="Be brief.")
    run(agent, "hi", system_message="Be brief.")
    for request in agent.agent.llm.requests:
        assert request.messages[0]["content"].startswith("Be brief.\n\n# Tools")
        assert [item["role"] for item in request.messages].count("system") == 1


def test_calls_in_thinking_or_code_are_no_calls_and_one_that_is_cut_is_an_error() -> None:
    agent = make(AIAgent, [f"<think>{CALL}</think>no call"], tool_format="hermes")
    assert run(agent, "go")["tool_calls"] == 0
    agent = make(AIAgent, [f"```\n{CALL}\n```"], tool_format="hermes")
    assert run(agent, "go")["tool_calls"] == 0
    agent = make(AIAgent, ['<tool_call>{"name": "add", "arg', "sorry"], tool_format="hermes")
    result = run(agent, "go")
    assert "not closed" in next(iter(results_of(result["messages"]).values()))
    assert result["final_response"] == "sorry"


def test_calls_of_a_history_are_shown_as_text() -> None:
    first = make(AIAgent, [call(1, 2), "3"])
    history = run(first, "1 + 2?")["messages"]
    agent = make(AIAgent, ["yes"], tool_format="hermes")
    run(agent, "sure?", conversation_history=history)
    said = agent.agent.llm.requests[0].messages[2]
    assert (said["role"], said["content"]) == ("assistant", CALL)
    assert "tool_calls" not in said


@pytest.mark.parametrize("name", tool_format_names())
def test_every_registered_format_works_in_the_loop(name: str) -> None:
    agent = make(AIAgent, ["x"], tools=[add], tool_format=name)
    written = agent.tool_format.write([call(1, 2), call(3, 4)])
    agent.agent.llm._replies = iter([written, "Both added."])
    result = run(agent, "add")
    assert list(results_of(result["messages"]).values()) == ["3", "7"]
    assert result["final_response"] == "Both added."
    assert_paired(result["messages"])


# Compression


class Window(ScriptedLLM):
    """A model whose window takes so many characters."""

    def __init__(self, size: int, replies: Any = None) -> None:
        super().__init__(replies or (lambda messages, params: f"reply to {messages[-1]['content'][:20]}"))
        self.size = size

    def _chat(self, messages: Any, params: Any) -> Completion:
        used = sum(len(str(message["content"])) for message in messages)
        if used > self.size:
            self._take(messages, params) if self._always is None else None
            raise ContextLengthExceeded(f"{used} > {self.size}", used=used, limit=self.size)
        return super()._chat(messages, params)


def agent_over(llm: Any, **options: Any) -> AIAgent:
    return AIAgent(llm, enabled_toolsets=[], tools=[add], system_prompt="Be kind.", **options)


def test_a_conversation_that_does_not_fit_is_compressed_and_nothing_is_forgotten() -> None:
    agent = agent_over(Window(2000))
    for number in range(40):
        result = agent.run_conversation(f"message {number} " + "x" * 100)
        assert result["final_response"] == f"reply to message {number} xxxxxxxxxx"[:29]
    assert len(result["messages"]) == 1 + 80  # all of it is there
    asked = agent.agent.llm.requests[-1].messages
    assert len(asked) < 40
    assert asked[0] == {"role": "system", "content": "Be kind."}
    assert "Earlier messages are left out" in asked[1]["content"]
    assert "The first request was: message 0 " in asked[1]["content"]

    other = agent_over(Window(2000))
    other.load_state_dict(agent.state_dict())
    other.run_conversation("and on")
    agent.run_conversation("and on")
    assert other.agent.llm.requests[-1].messages == agent.agent.llm.requests[-1].messages
    assert other.messages() == agent.messages()


def test_calls_and_results_are_kept_or_dropped_together() -> None:
    def replies(messages: Any, params: Any) -> Any:
        return call(len(messages), 1) if messages[-1]["role"] == "user" else "added " + "y" * 150

    for size in range(700, 1700, 100):
        agent = agent_over(Window(size, replies))
        for number in range(25):
            assert agent.run_conversation(f"add {number} " + "x" * 50)["finish_reason"] == "stop"
        for request in agent.agent.llm.requests:
            assert_paired(request.messages)
        assert_paired(agent.messages())


def test_a_message_that_alone_is_too_long_is_a_clear_end() -> None:
    agent = agent_over(Window(500))
    agent.run_conversation("hello")
    result = agent.run_conversation("x" * 600)
    assert result["finish_reason"] == "context_overflow"
    assert "does not fit the model's window" in result["detail"]
    assert result["messages"][-1] == {"role": "user", "content": "x" * 600}


def test_training_compresses_nothing() -> None:
    agent = agent_over(Window(500)).train()
    agent.run_conversation("x" * 200)
    agent.run_conversation("y" * 200)
    assert agent.run_conversation("z" * 200)["finish_reason"] == "context_overflow"


@every_colour
def test_a_compressor_of_one_s_own_says_what_is_kept(kind: Any) -> None:
    seen: list[list[AgentMessage]] = []

    def summarize(messages: list[AgentMessage]) -> Compressed:
        seen.append(messages)
        return Compressed(len(messages) - 1, "We said hello.")

    too_long = ContextLengthExceeded("too long")
    agent = make(kind, ["hi", too_long, "so we did"], compressor=summarize)
    run(agent, "hello")
    assert run(agent, "what did we say?")["final_response"] == "so we did"
    assert [message.content for message in seen[0]] == ["hello", "hi", "what did we say?"]
    assert agent.agent.llm.requests[-1].messages == [
        {"role": "user", "content": "We said hello.\nwhat did we say?"},
    ]


def test_an_async_compressor_is_awaited() -> None:
    async def summarize(messages: Any) -> Compressed:
        return Compressed(1, "summary")

    agent = make(AsyncAIAgent, ["hi", ContextLengthExceeded("too long"), "ok"], compressor=summarize)
    run(agent, "hello")
    assert run(agent, "well?")["final_response"] == "ok"


def test_a_compression_is_taken_back_with_its_run() -> None:
    agent = make(AIAgent, ["hi", call(), ContextLengthExceeded("long"), call(), KeyboardInterrupt(), "fine"])
    run(agent, "hello")
    before = agent.state_dict()
    with pytest.raises(KeyboardInterrupt):
        run(agent, "go")
    assert agent.state_dict() == before
    run(agent, "again")
    assert [item["content"] for item in agent.agent.llm.requests[-1].messages] == ["hello", "hi", "again"]


@pytest.mark.parametrize("made", [Compressed(99, ""), "short", Compressed(-1, "")])
def test_a_compressor_that_keeps_what_is_not_there_is_an_error(made: Any) -> None:
    agent = make(AIAgent, [ContextLengthExceeded("long")], compressor=lambda messages: made)
    with pytest.raises(InvalidArgument, match="compressor"):
        run(agent, "go")


def test_a_result_cannot_be_kept_without_its_call() -> None:
    agent = make(
        AIAgent, [call(), ContextLengthExceeded("long")], compressor=lambda messages: Compressed(len(messages) - 1, "")
    )
    with pytest.raises(InvalidArgument, match="keep_from"):
        run(agent, "go")
    with pytest.raises(InvalidArgument, match="keep=1"):
        DropOldest(keep=1)


class LastOnes(Memory):
    size = 6

    def get_memory(self, recent_n: int | None = None, filter_func: Any = None) -> list[AgentMessage]:
        return super().get_memory(self.size if recent_n is None else recent_n, filter_func)


class Discreet(Memory):
    def get_memory(self, recent_n: int | None = None, filter_func: Any = None) -> list[AgentMessage]:
        shown = super().get_memory(recent_n, filter_func)
        return [message for message in shown if "secret" not in str(message.content)]


class Masking(Memory):
    def get_memory(self, recent_n: int | None = None, filter_func: Any = None) -> list[AgentMessage]:
        shown = [message.clone() for message in super().get_memory(recent_n, filter_func)]
        for message in shown:
            message.content = message.content.replace("secret", "***")
        return shown


@pytest.mark.parametrize("memory", [Memory, LastOnes, Discreet, Masking])
def test_what_a_compressor_keeps_is_sent_whatever_a_memory_shows(memory: Any) -> None:
    script = ["a", "b", "c", ContextLengthExceeded("too long"), "d", "e"]
    agent = make(
        AIAgent, script, memory=memory, compressor=lambda messages: Compressed(len(messages) - 3, "We counted.")
    )
    for message in ["1", "secret 2", "3", "4", "5"]:
        run(agent, message)
    assert [[item["content"] for item in request.messages] for request in agent.agent.llm.requests[-2:]] == [
        ["We counted.\n3", "c", "4"],
        ["We counted.\n3", "c", "4", "d", "5"],
    ]


@pytest.mark.parametrize("is_own_kind", [False, True])
def test_a_window_of_memory_splits_no_call_from_its_result(is_own_kind: bool) -> None:
    for size in range(1, 8):
        windowed = type("Windowed", (LastOnes,), {"size": size})
        agent = make(
            AIAgent,
            [call(), "three"] * 4,
            memory=windowed if is_own_kind else {"type": Memory, "recent_n": size},
        )
        for _ in range(4):
            result = run(agent, "go")
        for request in agent.agent.llm.requests:
            assert_paired(request.messages)
        assert len(result["messages"]) == 4 * 4  # a session is told of whole


# Real servers


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModelServer]:
    """A server over the embedded model, on the background loop."""
    server = ModelServer(AsyncTinyLM(), ["tinylm"], port=0)
    run_in_background(server.start())
    yield server
    run_in_background(server.stop())


@every_colour
def test_a_real_server_gives_what_the_embedded_model_does(kind: Any, tiny: ModelServer) -> None:
    embedded = AIAgent("TinyLM", enabled_toolsets=[], tools=[calculator]).run_conversation("What is 6 * 7?")
    agent = kind("tinylm", "unused", tiny.url, enabled_toolsets=[], tools=[calculator])
    result = run(agent, "What is 6 * 7?")
    assert result["final_response"] == embedded["final_response"]
    assert [message["role"] for message in result["messages"]] == [item["role"] for item in embedded["messages"]]
    assert result["usage"]["prompt_tokens"] == embedded["usage"]["prompt_tokens"]
    if kind.colour.is_streaming:
        assert len(parts_of(agent, "What is 6 * 7?", session_id="again")) > 3


def _calling(*calls: tuple[str, str], text: str | None = None) -> Any:
    items = [
        {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(calls)
    ]
    return reply(completion(text, message={"tool_calls": items}, choice={"finish_reason": "tool_calls"}))


def test_a_server_s_faults_are_ridden_out(no_leaks: None) -> None:
    soon = {"Retry-After": "0"}
    with FaultServer(
        refuse(429, headers=soon),
        _calling(("add", '{"a": 1, "b": 2}')),
        refuse(503, headers=soon),
        _calling(("add", '{"a": 1,'), ("nothing", "{}")),
        reply(completion("")),
        reset,
        reply(completion("It is ", choice={"finish_reason": "length"})),
        answer("three."),
    ) as server:
        agent = AIAgent("m", "k", server.url, enabled_toolsets=[], tools=[add])
        result = run(agent, "1 + 2?")
        agent.agent.llm.close()
        bodies = [request.json for request in server.requests]
    assert (result["final_response"], result["finish_reason"]) == ("It is three.", "stop")
    assert_paired(result["messages"])
    for body in bodies:
        assert_paired(body["messages"])
        assert all(message["content"] is not None or message.get("tool_calls") for message in body["messages"])
    assert len(bodies) == 8


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_server_that_refuses_is_asked_once(status: int, no_leaks: None) -> None:
    with FaultServer(refuse(status, "no")) as server, FaultServer(answer("unasked")) as other:
        second = GPTAPI("m", key=None, api_base=other.url)
        agent = AIAgent("m", "secret", server.url, enabled_toolsets=[], fallback_models=[second])
        result = run(agent, "hi")
        agent.agent.llm.llms[0].close()
        assert (len(server.requests), len(other.requests)) == (1, 0)
    assert result["finish_reason"] == "error"
    assert "secret" not in json.dumps(result)


def test_a_server_that_is_down_is_stood_in_for(no_leaks: None) -> None:
    with FaultServer(refuse(500, headers={"Retry-After": "0"})) as down, FaultServer(answer("here")) as up:
        first, second = (GPTAPI("m", key=None, api_base=server.url, retry=1) for server in (down, up))
        agent = AIAgent(first, enabled_toolsets=[], fallback_models=[second])
        assert run(agent, "hi")["final_response"] == "here"
        assert len(down.requests) == 2
        first.close()
        second.close()


def test_a_server_s_window_is_met_with_compression(no_leaks: None) -> None:
    window = refuse(
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        code="context_length_exceeded",
    )
    with FaultServer(answer("one"), answer("two"), window, answer("three")) as server:
        agent = AIAgent("m", "k", server.url, enabled_toolsets=[])
        for text in ("a", "b"):
            run(agent, text * 100)
        assert run(agent, "c")["final_response"] == "three"
        assert len(server.requests[3].json["messages"]) < len(server.requests[2].json["messages"])
        agent.agent.llm.close()


def test_a_stream_that_is_cut_is_no_answer(no_leaks: None) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with FaultServer(raw(head + chunk({"content": "It"}), reset)) as server:
        agent = StreamingAIAgent("m", "k", server.url, enabled_toolsets=[])
        result = run(agent, "hi")
        agent.agent.llm.close()
    assert (result["finish_reason"], agent.messages()) == ("error", [])


def test_training_keeps_the_tokens_of_each_answer() -> None:
    agent = AIAgent(TinyLM(), enabled_toolsets=[], tools=[calculator]).train()
    agent.chat("What is the result of 12 + 30?")
    [trajectory] = agent.trajectories()
    assert trajectory.counts.missing == 0
    assert trajectory.tools == agent.actions.tools()
    assert isinstance(trajectory.messages[1]["tool_calls"], list)


def test_an_empty_reply_ends_a_run_in_training() -> None:
    agent = make(AIAgent, [""]).train()
    assert run(agent, "go")["finish_reason"] == "empty_reply"
    assert len(agent.agent.memory.get()) == 2  # it was sampled


@every_colour
def test_what_a_run_that_ended_early_says_has_no_text_of_calls(kind: Any) -> None:
    said = f"Let me see.\n{tool_format('hermes').write([call()])}"
    agent = make(kind, [said, said], tool_format="hermes", max_turns=1)
    assert run(agent, "go")["final_response"] == "Let me see."  # calls of the last turn
    agent = make(kind, [said] * 3, tool_format="hermes", limits=RunLimits(tool_calls=1))
    assert run(agent, "go")["final_response"] == "Let me see."
    bad = f"Hm.\n{tool_format('hermes').write([ToolCall('nothing', {})])}"
    agent = make(kind, [bad] * 3, tool_format="hermes")
    assert run(agent, "go")["final_response"] == "Hm."
