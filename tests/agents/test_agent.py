"""An agent: a model with a memory, a prompt, a parser and an aggregator between them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent, AsyncStreamingAgent, StreamingAgent, Workflow
from lagentlike.aggregators import InternLMToolAggregator
from lagentlike.errors import InvalidArgument, LLMError
from lagentlike.llms import AsyncScriptedLLM, ScriptedLLM
from lagentlike.memory import Memory
from lagentlike.prompts import ToolParser
from lagentlike.schema import AgentMessage, AgentStatusCode, Completion, TokenSpan, ToolCall, Usage


def test_takes_model_and_prompt_in_that_order() -> None:
    agent = Agent(ScriptedLLM(["Hello!"]), "Be brief.")
    reply = agent("Hi")
    assert (reply.sender, reply.content) == ("Agent", "Hello!")
    agent.llm.assert_asked("Be brief.", role="system")
    assert agent.llm.requests[0].messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize("colour", [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent, Workflow])
def test_its_signature_tells_what_it_takes(colour: type[Agent]) -> None:
    assert list(inspect.signature(colour).parameters) == (
        ["llm", "template", "memory", "output_format", "aggregator", "name", "description", "hooks"]
    )


def test_remembers_the_conversation() -> None:
    agent = Agent(ScriptedLLM(["one", "two"]), name="bot")
    agent("a")
    agent("b")
    assert [(m["role"], m["content"]) for m in agent.llm.requests[1].messages] == [
        ("user", "a"), ("assistant", "one"), ("user", "b"),
    ]  # fmt: skip


def test_a_forward_that_nobody_called_is_refused_instead_of_asked_without_its_message() -> None:
    agent = Agent(ScriptedLLM(["never"]), "Be brief.")
    with pytest.raises(InvalidArgument, match=r"message='Hello': it is not in memory: call the agent itself"):
        agent.forward("Hello")
    assert not agent.llm.requests


def test_a_session_that_is_given_by_its_place_is_told_to_go_by_name() -> None:
    with pytest.raises(InvalidArgument, match=r"message=3: .*the rest by name: session_id="):
        Agent(ScriptedLLM(["never"]))("Hello", 3)  # type: ignore[arg-type]


def test_sees_only_the_window_of_its_memory() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: "r"), memory={"type": Memory, "recent_n": 2})
    for text in "abc":
        agent(text)
    assert [m["content"] for m in agent.llm.requests[-1].messages] == ["r", "c"]
    assert len(agent.state_dict()["memory"]) == 6


def test_takes_over_all_that_a_model_gave() -> None:
    answer = Completion(
        "text",
        tool_calls=[ToolCall("f", {}, id="1")],
        reasoning="because",
        usage=Usage(1, 2, 3),
        model="m",
        finish_reason="tool_calls",
        tokens=TokenSpan([1], [-0.1]),
    )
    reply = Agent(ScriptedLLM([answer]))("hi")
    assert (reply.content, reply.reasoning, reply.usage, reply.model) == ("text", "because", Usage(1, 2, 3), "m")
    assert (reply.tool_calls, reply.finish_reason, reply.tokens) == (answer.tool_calls, "tool_calls", answer.tokens)
    assert type(reply.content) is str


def test_what_the_parser_makes_of_an_answer_is_in_formatted() -> None:
    parser = ToolParser("code", template="Write code.", begin="<c>", end="</c>")
    agent = Agent(ScriptedLLM(["so <c>1</c>"]), output_format=parser)
    assert agent("hi").formatted == {"tool_type": "code", "thought": "so ", "action": "1", "status": 1}
    agent.llm.assert_asked("Write code.", role="system")


def test_the_aggregator_is_used() -> None:
    agent = Agent(ScriptedLLM(["x"]), aggregator=InternLMToolAggregator())
    agent(AgentMessage(sender="tool", content="4"))
    assert agent.llm.requests[0].messages == [{"role": "environment", "content": "4"}]


def test_options_of_a_call_are_parameters_of_the_model() -> None:
    agent = Agent(ScriptedLLM(["x"], temperature=1.0))
    agent("hi", temperature=0.0, stop_words=["\n"])
    agent.llm.assert_asked(temperature=0.0, stop_words=["\n"])


def test_without_a_model_it_says_what_to_do() -> None:
    with pytest.raises(InvalidArgument, match=r"llm=None.*define forward"):
        Agent()("hi")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"llm": "gpt-4o"}, "llm="),
        ({"name": ""}, "name="),
        ({"name": 5}, "name="),
        ({"memory": 5}, "memory="),
        ({"llm": {"type": "nowhere.Model"}}, r"llm\['type'\]="),
        ({"output_format": {"type": 5}}, r"output_format\['type'\]="),
        ({"hooks": [5]}, "hook="),
    ],
)
def test_arguments_that_make_no_sense_are_named(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgument, match=argument):
        Agent(**options)


async def test_all_four_colours_ask_the_same_and_answer_the_same() -> None:
    kinds: list[Any] = [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent]
    asked, replies, states = [], [], []
    for kind in kinds:
        llm: Any = (AsyncScriptedLLM if issubclass(kind, AsyncAgent) else ScriptedLLM)(
            ["one two", "three"], chunk_size=4
        )
        agent = kind(llm, "system", name="bot", output_format=ToolParser("t", begin="<", end=">"))
        for text in ("a", "b"):
            if kind is Agent:
                reply = agent(text)
            elif kind is AsyncAgent:
                reply = await agent(text)
            elif kind is StreamingAgent:
                *_, reply = agent(text)
            else:
                *_, reply = [part async for part in agent(text)]
            replies.append(reply)
        asked.append([request.messages for request in llm.requests])
        states.append(agent.state_dict("all"))
    assert all(one == asked[0] for one in asked)
    assert all(one == states[0] for one in states)
    assert replies[::2] == [replies[0]] * 4


def test_a_stream_gives_the_answer_so_far_and_at_last_the_whole() -> None:
    answer = Completion("one two", reasoning="hm", usage=Usage(1, 1, 1))
    parts = list(StreamingAgent(ScriptedLLM([answer], chunk_size=3), name="bot")("hi"))
    assert [(part.content, part.stream_state) for part in parts] == [
        ("one", AgentStatusCode.STREAM_ING), ("one tw", AgentStatusCode.STREAM_ING),
        ("one two", AgentStatusCode.STREAM_ING), ("one two", AgentStatusCode.END),
    ]  # fmt: skip
    assert {part.sender for part in parts} == {"bot"}
    assert parts[-1].usage == Usage(1, 1, 1)


def test_an_empty_answer_is_an_answer() -> None:
    assert Agent(ScriptedLLM([""]))("hi").content == ""
    parts = list(StreamingAgent(ScriptedLLM([""]))("hi"))
    assert (parts[-1].content, parts[-1].stream_state) == ("", AgentStatusCode.END)


def test_a_stream_that_breaks_leaves_what_came_with_the_error() -> None:
    agent = StreamingAgent(ScriptedLLM([LLMError("cut", partial="one two")], chunk_size=4))
    with pytest.raises(LLMError) as caught:
        list(agent("hi"))
    assert caught.value.partial == "one two"
    assert [message.content for message in caught.value.produced] == ["one two"]
    assert agent.state_dict() == {"memory": []}


def test_a_forward_of_ones_own_may_use_all_of_it() -> None:
    class Custom(Agent):
        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> AgentMessage | str:
            formatted_messages = self.aggregator.aggregate(
                self.memory.get(session_id), self.name, self.output_format, self.template
            )
            llm_response = self.llm.chat(formatted_messages, **kwargs)
            return AgentMessage(sender=self.name, content=llm_response, formatted="mine")

    reply = Custom(ScriptedLLM([Completion("x", usage=Usage(1, 5, 5))]), "system")("hi", top_p=0.5)
    assert (reply.content, reply.formatted, reply.usage) == ("x", "mine", Usage(1, 5, 5))


def test_a_streaming_forward_of_ones_own_may_yield_texts() -> None:
    class Counting(StreamingAgent):
        def forward(self, *message: AgentMessage, session_id: Any = 0, **kwargs: Any) -> Iterator[str]:
            for number in range(1, 4):
                yield " ".join(map(str, range(1, number + 1)))

    assert [part.content for part in Counting()("count")] == ["1", "1 2", "1 2 3", "1 2 3"]
