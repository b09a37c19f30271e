"""An agent as a model of OpenAI's chat completions, asked by the official client and by our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from lagentlike.actions import calculator
from lagentlike.agents import (
    Agent,
    AsyncAgent,
    AsyncReAct,
    AsyncStreamingAgent,
    AsyncStreamingReAct,
    AsyncStreamingSequential,
    ReAct,
    Sequential,
)
from lagentlike.concurrency import run_in_background
from lagentlike.errors import BudgetExceeded
from lagentlike.llms import AsyncScriptedLLM, AsyncTinyLM, GPTAPI, ScriptedLLM, TinyLM
from lagentlike.serving import AgentServer

from .serving import an_agent, echo, serving

SUM: list[Any] = [{"role": "user", "content": "What is the result of 12 * 34?"}]
HI: list[Any] = [{"role": "user", "content": "one"}]


@pytest.fixture(scope="module")
def server() -> Iterator[AgentServer]:
    """A server over an agent with a calculator and the embedded model."""
    server = AgentServer(AsyncStreamingReAct(AsyncTinyLM(), actions=[calculator], name="counter"), port=0)
    run_in_background(server.start())
    yield server
    run_in_background(server.stop())


@pytest.fixture
def client(server: AgentServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_the_official_client_asks_and_the_tools_run_on_the_server(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="counter", messages=SUM)
    assert reply.choices[0].message.content == "The result of 12 * 34 is 408."
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0


def test_the_official_client_streams(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="counter", messages=SUM, stream=True, stream_options=options))
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "The result of 12 * 34 is 408."
    assert len([text for text in texts if text]) > 3
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    "where",
    [{"extra_headers": {"X-Session-Id": "ann"}}, {"user": "bob"}, {"metadata": {"session_id": "eve"}}],
    ids=["header", "user", "metadata"],
)
def test_a_session_is_named_and_goes_on(client: openai.OpenAI, where: Any) -> None:
    client.chat.completions.create(model="counter", messages=[{"role": "user", "content": "My name is Ann."}], **where)
    asked: list[Any] = [{"role": "user", "content": "What is my name?"}]
    reply = client.chat.completions.with_raw_response.create(model="counter", messages=asked, **where)
    assert reply.parse().choices[0].message.content == "Your name is Ann."
    assert reply.headers["X-Session-Id"] in ("ann", "bob", "eve")


def test_a_session_takes_the_new_messages_of_a_whole_conversation(client: openai.OpenAI, server: AgentServer) -> None:
    history: list[Any] = []
    for text in ("My name is Bob.", "What is my name?"):
        history.append({"role": "user", "content": text})
        reply = client.chat.completions.create(model="counter", messages=history, user="whole")
        history.append({"role": "assistant", "content": reply.choices[0].message.content})
    assert history[-1]["content"] == "Your name is Bob."
    assert len(server.unit.state_dict("whole")["memory"]) == 4


def test_without_a_session_the_conversation_is_what_the_client_sends(
    client: openai.OpenAI, server: AgentServer
) -> None:
    known = server.unit.session_ids()
    history: list[Any] = [
        {"role": "user", "content": "My name is Eve."},
        {"role": "assistant", "content": "Nice to meet you, Eve."},
        {"role": "user", "content": "What is my name?"},
    ]
    reply = client.chat.completions.create(model="counter", messages=history)
    assert reply.choices[0].message.content == "Your name is Eve."
    assert server.unit.session_ids() == known


def test_the_agent_is_listed_as_a_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["counter"]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4o", messages=HI)


def test_our_own_client_of_models_works_with_it(server: AgentServer) -> None:
    outer = Agent(GPTAPI("counter", api_base=f"{server.url}/v1"))
    assert outer("What is the result of 12 * 34?").content == "The result of 12 * 34 is 408."


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": [{"role": "system", "content": "Obey me."}, *HI]}, "messages[0].role"),
        ({"messages": [*HI, {"role": "tool", "tool_call_id": "x", "content": "2"}]}, "messages[1].role"),
        ({"messages": [*HI, {"role": "assistant", "content": "hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"tools": []}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_an_agent_does_not_serve_is_refused(change: Any, param: str) -> None:
    async with serving() as (_, ask):
        status, answer = await ask("POST", "/v1/chat/completions", {"model": "AsyncAgent", "messages": HI, **change})
    assert (status, answer["error"]["param"]) == (400, param)


async def test_texts_in_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "o"}, {"type": "text", "text": "ne"}]
    async with serving() as (_, ask):
        body = {"model": "AsyncAgent", "messages": [{"role": "user", "content": parts}]}
        answer = (await ask("POST", "/v1/chat/completions", body))[1]
    assert answer["choices"][0]["message"]["content"] == "heard one"


async def test_a_team_cannot_take_a_conversation_over_and_says_so() -> None:
    past = [*HI, {"role": "assistant", "content": "hm"}, *HI]
    team = Sequential(Agent(ScriptedLLM(["a", "b"])), Agent(ScriptedLLM(["a", "b"])))
    async with serving(team) as (_, ask):
        status, answer = await ask("POST", "/v1/chat/completions", {"model": "Sequential", "messages": past})
        assert (status, answer["error"]["param"]) == (400, "messages")
        assert "X-Session-Id" in answer["error"]["message"]
        assert (await ask("POST", "/v1/chat/completions", {"model": "Sequential", "messages": HI}))[0] == 200


@pytest.mark.parametrize("kind", [ReAct, AsyncReAct])
async def test_agents_of_other_colours_answer_in_one_piece(kind: Any) -> None:
    agent = kind(AsyncTinyLM() if kind is AsyncReAct else TinyLM(), actions=[calculator], name="counter")
    async with (
        serving(agent) as (server, _),
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(model="counter", messages=SUM, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == "The result of 12 * 34 is 408."


async def test_several_answers_of_one_stream_are_set_apart() -> None:
    writer = AsyncStreamingAgent(AsyncScriptedLLM(["one two"] * 2, chunk_size=3), name="writer")
    critic = AsyncStreamingAgent(AsyncScriptedLLM(["three"] * 2, chunk_size=3), name="critic")
    team = AsyncStreamingSequential(writer, critic, name="team")
    async with (
        serving(team) as (server, _),
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(model="team", messages=HI, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        whole = await client.chat.completions.create(model="team", messages=HI, user="x")
    assert "".join(texts) == "one two\n\nthree"
    assert whole.choices[0].message.content == "three"


async def test_an_error_before_the_first_word_is_a_status_even_of_a_stream() -> None:
    async with serving(an_agent([BudgetExceeded("requests", 2, 1)] * 2)) as (_, ask):
        for stream in (False, True):
            body = {"model": "AsyncAgent", "messages": HI, "stream": stream}
            status, answer = await ask("POST", "/v1/chat/completions", body)
            assert (status, answer["error"]["code"]) == (429, "BudgetExceeded")


async def test_sampling_is_let_through() -> None:
    llm = AsyncScriptedLLM(echo)
    async with serving(AsyncAgent(llm)) as (_, ask):
        body = {"model": "AsyncAgent", "messages": HI, "temperature": 0, "max_tokens": 5, "stop": "x"}
        assert (await ask("POST", "/v1/chat/completions", body))[0] == 200
    assert {name: llm.requests[0].params[name] for name in ("temperature", "max_new_tokens", "stop_words")} == {
        "temperature": 0,
        "max_new_tokens": 5,
        "stop_words": ["x"],
    }
