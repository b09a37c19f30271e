"""The model server, driven by our own clients, by OpenAI's, and by hand."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import openai
import pytest

from lagentlike.actions import calculator
from lagentlike.agents import ReAct
from lagentlike.concurrency import run_in_background
from lagentlike.errors import (
    AuthenticationFailed,
    ContextLengthExceeded,
    InvalidArgument,
    RateLimited,
    RequestRefused,
    ServerError,
)
from lagentlike.llms import AsyncGPTAPI, AsyncScriptedLLM, AsyncTinyLM, GPTAPI, ScriptedLLM, TinyLM
from lagentlike.schema import Completion, ModelStatusCode, ToolCall
from lagentlike.serving import ModelServer

from ..llms.questions import CALCULATOR, HELLO, ONE_PLUS_ONE


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModelServer]:
    """A server over the embedded model, on the background loop."""
    server = ModelServer(AsyncTinyLM(), ["tinylm", "also-tinylm"], port=0)
    run_in_background(server.start())
    yield server
    run_in_background(server.stop())


@pytest.fixture
def client(tiny: ModelServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=tiny.url, api_key="unused", max_retries=0) as client:
        yield client


async def post(url: str, body: Any, **options: Any) -> tuple[int, Any]:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/chat/completions", data=io.BytesIO(payload), **options) as response,
    ):
        return response.status, await response.json(content_type=None)


def test_our_client_gets_what_the_model_gives(tiny: ModelServer) -> None:
    served = GPTAPI("tinylm", api_base=tiny.url)
    answer = served.chat(HELLO)
    here = TinyLM().chat(HELLO)
    assert answer == here
    assert (answer.finish_reason, answer.model) == ("stop", "tinylm")
    assert answer.usage == here.usage


def test_our_client_streams(tiny: ModelServer) -> None:
    parts = list(GPTAPI("tinylm", api_base=tiny.url).stream_chat(HELLO))
    chunks = [chunk for status, chunk, _ in parts if status == ModelStatusCode.STREAM_ING]
    assert "".join(chunks) == parts[-1][2] == TinyLM().chat(HELLO)
    assert parts[-1][2].usage == TinyLM().chat(HELLO).usage


def test_an_agent_uses_tools_through_it(tiny: ModelServer) -> None:
    agent = ReAct(GPTAPI("tinylm", api_base=tiny.url), actions=[calculator])
    assert agent("What is the result of 1 + 1?").content == "The result of 1 + 1 is 2."


def test_our_client_gets_token_ids_and_logprobs(tiny: ModelServer) -> None:
    served = GPTAPI("tinylm", api_base=tiny.url, logprobs=True, extra_body={"return_token_ids": True})
    here = TinyLM().chat(HELLO, logprobs=True).tokens
    assert here is not None
    for answer in (served.chat(HELLO), list(served.stream_chat(HELLO))[-1][2]):
        span = answer.tokens
        assert span is not None
        assert (span.ids, span.prompt_ids) == (here.ids, here.prompt_ids)
        assert span.logprobs == pytest.approx(here.logprobs)


async def test_many_at_once_through_our_async_client() -> None:
    async with ModelServer(AsyncTinyLM(), port=0) as server:
        llm = AsyncGPTAPI("tinylm", api_base=server.url)
        questions = [[{"role": "user", "content": f"My name is {name}."}] for name in ("Ann", "Bob", "Eve") * 4]
        answers = await asyncio.gather(*(llm.chat(question) for question in questions))
        assert answers == [await AsyncTinyLM().chat(question) for question in questions]


def test_the_official_client_chats(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="tinylm", messages=HELLO)
    assert reply.choices[0].message.content == TinyLM().chat(HELLO)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_official_client_streams_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tinylm", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == TinyLM().chat(HELLO)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_the_official_client_calls_tools(client: openai.OpenAI) -> None:
    history: list[Any] = list(ONE_PLUS_ONE)
    reply = client.chat.completions.create(model="tinylm", messages=history, tools=[CALCULATOR])
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.content is None
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"expression": "1 + 1"}
    history += [reply.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "2"}]
    answer = client.chat.completions.create(model="tinylm", messages=history, tools=[CALCULATOR])
    assert answer.choices[0].message.content == "The result of 1 + 1 is 2."


def test_the_official_client_streams_tool_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="tinylm", messages=ONE_PLUS_ONE, tools=[CALCULATOR]) as stream:
        reply = stream.get_final_completion()
    (call,) = reply.choices[0].message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("calculator", {"expression": "1 + 1"})
    assert reply.choices[0].finish_reason == "tool_calls"


async def test_the_official_async_client() -> None:
    async with (
        ModelServer(AsyncTinyLM(), port=0) as server,
        openai.AsyncOpenAI(base_url=server.url, api_key="unused", max_retries=0) as client,
    ):
        reply = await client.chat.completions.create(model="tinylm", messages=HELLO)
        assert reply.choices[0].message.content
        text = ""
        async for chunk in await client.chat.completions.create(model="tinylm", messages=HELLO, stream=True):
            text += chunk.choices[0].delta.content or ""
        assert text == reply.choices[0].message.content


def test_logprobs_have_tokens_bytes_and_alternatives(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="tinylm", messages=HELLO, logprobs=True, top_logprobs=3)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    spelled = b"".join(bytes(token.bytes or ()) for token in tokens).decode()
    assert spelled == f"{reply.choices[0].message.content}<|im_end|>"
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens)


def test_choices_draw_apart_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def texts() -> list[str | None]:
        reply = client.chat.completions.create(
            model="tinylm", messages=HELLO, n=6, seed=5, temperature=2.0, max_tokens=12
        )
        assert [choice.index for choice in reply.choices] == list(range(6))
        return [choice.message.content for choice in reply.choices]

    assert texts() == texts()
    assert len(set(texts())) > 1


def test_streamed_choices_come_mixed_and_whole(client: openai.OpenAI) -> None:
    texts = ["", ""]
    for chunk in client.chat.completions.create(model="tinylm", messages=HELLO, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [TinyLM().chat(HELLO)] * 2


def test_limits_and_stop_words_hold(client: openai.OpenAI) -> None:
    whole = TinyLM().chat(HELLO)
    cut = client.chat.completions.create(model="tinylm", messages=HELLO, max_completion_tokens=1)
    assert cut.choices[0].finish_reason == "length"
    stopped = client.chat.completions.create(model="tinylm", messages=HELLO, stop=whole[3])
    assert stopped.choices[0].message.content == whole[: whole.index(whole[3])]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tinylm", "also-tinylm"]
    assert client.models.retrieve("also-tinylm").owned_by == "lagentlike"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


async def test_health_needs_no_token_and_all_else_does() -> None:
    async with ModelServer(AsyncScriptedLLM(["hi"]), port=0, token="secret") as server:
        async with aiohttp.ClientSession() as http:
            async with http.get(server.url.replace("/v1", "/health")) as response:
                assert (response.status, await response.json()) == (200, {"status": "ok"})
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
                async with http.get(f"{server.url}/models", headers=headers) as response:
                    assert response.status == 401
        with pytest.raises(AuthenticationFailed):
            await AsyncGPTAPI("scripted", key="wrong", api_base=server.url).chat(HELLO)
        assert await AsyncGPTAPI("scripted", key="secret", api_base=server.url).chat(HELLO) == "hi"


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"model": None}, "model", "'model' is missing"),
        ({"messages": None}, "messages", "'messages' is missing"),
        ({"messages": "hi"}, "messages", "non-empty list"),
        ({"messages": []}, "messages", "non-empty list"),
        ({"messages": ["hi"]}, "messages[0]", "an object with 'role' and 'content'"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "neither 'content' nor 'tool_calls'"),
        ({"messages": [{"role": "oracle", "content": "x"}]}, "messages[0]['role']", "use system, user"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls", "arguments as JSON text"),
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"max_tokens": 0}, "max_tokens", "whole number"),
        ({"n": 65}, "n", "from 1 to 64"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stop": [""]}, "stop", "non-empty text"),
        ({"tools": [{}]}, "tools[0]", "'type': 'function'"),
        ({"tool_choice": "required"}, "tool_choice", "the tools on offer are []"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not served"),
        ({"presence_penalty": 1}, "presence_penalty", "not served"),
        ({"tempreature": 1}, "tempreature", "not served"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_request_is_refused_with_its_cure(change: Any, param: str, message: str, stream: bool) -> None:
    body = {"model": "tinylm", "messages": HELLO, "stream": stream, **change}
    async with ModelServer(AsyncTinyLM(), port=0) as server:
        status, answer = await post(server.url, body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert message in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": NaN}', b"[" * 100_000, b"\xff\xfe"])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    async with ModelServer(AsyncScriptedLLM(), port=0) as server:
        status, answer = await post(server.url, body)
    assert status == 400
    assert answer["error"]["message"]


async def test_a_body_beyond_a_mebibyte_is_refused() -> None:
    async with ModelServer(AsyncScriptedLLM(), port=0) as server:
        message = [{"role": "user", "content": "x" * (1024 * 1024)}]
        status, answer = await post(server.url, {"model": "scripted", "messages": message})
    assert status == 413
    assert "1048576" in answer["error"]["message"]


async def test_unknown_models_and_paths_are_404() -> None:
    async with ModelServer(AsyncScriptedLLM(), port=0) as server:
        status, answer = await post(server.url, {"model": "gpt-4o", "messages": HELLO})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert "'scripted'" in answer["error"]["message"]
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/nowhere") as response:
            assert response.status == 404
            assert (await response.json())["error"]["message"]


def test_a_conversation_that_is_too_long_is_known_as_such(tiny: ModelServer) -> None:
    with pytest.raises(ContextLengthExceeded):
        GPTAPI("tinylm", api_base=tiny.url).chat([{"role": "user", "content": "word " * 5000}])


def test_fields_that_mean_nothing_here_are_let_pass(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tinylm", messages=HELLO, user="ann", presence_penalty=0, response_format={"type": "text"}, store=False
    )
    assert reply.choices[0].message.content


async def test_what_the_model_raises_becomes_a_status() -> None:
    errors = [RateLimited("slow down"), ServerError("down"), RequestRefused("no"), ZeroDivisionError("secret path")]
    async with ModelServer(AsyncScriptedLLM(errors), port=0) as server:
        answers = [await post(server.url, {"model": "scripted", "messages": HELLO}) for _ in errors]
    assert [status for status, _ in answers] == [429, 502, 400, 500]
    assert "secret path" not in json.dumps(answers)


async def test_a_stream_that_breaks_says_so_and_never_says_done() -> None:
    broken = AsyncScriptedLLM([ServerError("down", partial="half an answer")])
    async with ModelServer(broken, port=0) as server, aiohttp.ClientSession() as http:
        body = {"model": "scripted", "messages": HELLO, "stream": True}
        async with http.post(f"{server.url}/chat/completions", json=body) as response:
            lines = [line.decode() for line in (await response.read()).splitlines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events if "choices" in event)
    assert text == "half an answer"
    assert events[-1]["error"]["type"] == "server_error"
    assert not any("finish_reason" in json.dumps(event) and '"stop"' in json.dumps(event) for event in events)


async def test_several_calls_in_one_answer_arrive_in_order() -> None:
    calls = [ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2})]
    script = [Completion("Let me see.", tool_calls=calls), calls]
    async with ModelServer(AsyncScriptedLLM(script), port=0) as server:
        llm = AsyncGPTAPI("scripted", api_base=server.url)
        whole = await llm.chat(HELLO, tools=[CALCULATOR])
        streamed = [part async for part in llm.stream_chat(HELLO, tools=[CALCULATOR])][-1][2]
    assert whole == "Let me see."
    for answer in (whole, streamed):
        assert [(call.name, call.arguments) for call in answer.tool_calls or ()] == [
            ("add", {"a": 1}),
            ("add", {"a": 2}),
        ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_request(stream: bool) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever(messages: Any, params: Any) -> str:
        started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    async with ModelServer(AsyncScriptedLLM(forever), port=0) as server:
        asking = asyncio.create_task(post(server.url, {"model": "scripted", "messages": HELLO, "stream": stream}))
        await started.wait()
        asking.cancel()
        await asyncio.wait_for(cancelled.wait(), 10)


async def test_stopping_finishes_what_is_under_way() -> None:
    going = asyncio.Event()

    async def slow(messages: Any, params: Any) -> str:
        going.set()
        await asyncio.sleep(0.2)
        return "in time"

    server = ModelServer(AsyncScriptedLLM(slow), port=0)
    await server.start()
    asking = asyncio.create_task(post(server.url, {"model": "scripted", "messages": HELLO}))
    await going.wait()
    await server.stop()
    status, answer = await asking
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "in time")


async def test_starting_and_stopping_leaves_nothing_behind(no_leaks: None) -> None:
    async with ModelServer(AsyncScriptedLLM(["hi"]), port=0) as server:
        assert (await post(server.url, {"model": "scripted", "messages": HELLO}))[0] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "set a token as well"),
        ({"host": "192.0.2.1"}, "set a token as well"),
        ({"port": 70000}, "from 0"),
        ({"token": " "}, "Bearer"),
    ],
)
def test_an_unsafe_or_wrong_setting_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        ModelServer(AsyncScriptedLLM(), **options)


def test_a_blocking_model_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="async form"):
        ModelServer(ScriptedLLM())  # type: ignore[arg-type]


async def test_a_port_that_is_taken_is_named() -> None:
    async with ModelServer(AsyncScriptedLLM(), port=0) as server:
        with pytest.raises(InvalidArgument, match=f"port={server.port}.*cannot listen"):
            await ModelServer(AsyncScriptedLLM(), port=server.port).start()
