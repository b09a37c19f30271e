"""Ollama by its own API, against a server on loopback that has its shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lagentlike.errors import BadResponse, InvalidArgument, LLMError, RequestRefused, ServerError, StreamTruncated
from lagentlike.llms import AsyncOllamaAPI, OllamaAPI
from lagentlike.llms.ndjson import LineParser
from lagentlike.llms.ollama_wire import ChatLines, parse_chat
from lagentlike.llms.transport import TransportOptions
from lagentlike.registry import create_object
from lagentlike.schema import Completion, TokenSpan, ToolCall, Usage

from .asking import both_ways, given_up, HI, read_into
from .fault_server import FaultServer, JSON_HEAD, raw, reply
from .lies import answers_or_typed_errors, streamed
from .ollama_server import FIGURES, lines, OllamaServer

CALL = {"id": "call_1", "function": {"index": 0, "name": "add", "arguments": {"a": 1, "b": [2, "é"]}}}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
NDJSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"


def model(server: Any, name: str = "qwen3:8b", **options: Any) -> AsyncOllamaAPI:
    transport = TransportOptions(backoff=0.02, max_retries=options.pop("retry", 0))
    return AsyncOllamaAPI(name, api_base=server.url, key=None, transport=transport, **options)


async def ask(llm: AsyncOllamaAPI, way: str, messages: Any = HI, **params: Any) -> Completion:
    if way == "chat":
        return await llm.chat(messages, **params)
    return [answer async for _, _, answer in llm.stream_chat(messages, **params)][-1]


async def sent(messages: Any = HI, **params: Any) -> dict[str, Any]:
    async with OllamaServer() as server:
        await model(server).chat(messages, **params)
    return server.bodies[0]


async def test_parameters_go_where_the_api_has_them() -> None:
    body = await sent(
        max_new_tokens=9, temperature=0.5, top_k=-1, repetition_penalty=1.1, stop_words=["END"], seed=3, num_ctx=8192,
        options={"num_gpu": 0}, keep_alive="10m", think="low", extra_body={"shift": False}, tools=[ADD],
    )  # fmt: skip
    assert body == {
        "model": "qwen3:8b",
        "messages": HI,
        "stream": False,
        "think": "low",
        "keep_alive": "10m",
        "shift": False,
        "tools": [ADD],
        "options": {
            "temperature": 0.5,
            "top_k": 0,
            "repeat_penalty": 1.1,
            "seed": 3,
            "num_ctx": 8192,
            "num_predict": 9,
            "stop": ["END"],
            "num_gpu": 0,
        },
    }
    assert "options" not in await sent(max_new_tokens=None)
    assert "tools" not in await sent(tools=[ADD], tool_choice="none")


@pytest.mark.parametrize(
    ("wanted", "format_"),
    [
        ({"json_mode": True}, "json"),
        ({"response_format": {"type": "object", "properties": {}}}, {"type": "object", "properties": {}}),
        ({"response_format": {"type": "json_object"}}, "json"),
        ({}, None),
    ],
)
async def test_answers_in_json_are_asked_for(wanted: dict[str, Any], format_: Any) -> None:
    assert (await sent(**wanted)).get("format") == format_


async def test_messages_have_the_apis_own_form() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{a"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    body = await sent(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "environment", "content": [{"type": "text", "text": "Look:"}, picture]},
            {"role": "assistant", "content": None, "tool_calls": [call, broken], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "2"},
        ]
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look:", "images": ["aGk="]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "c1", "function": {"name": "add", "arguments": {"a": 1}}},
                {"id": "c2", "function": {"name": "add", "arguments": {"arguments": "{a"}}},
            ],
        },
        {"role": "tool", "content": "2", "tool_name": "add", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tools": [ADD], "tool_choice": "required"}, "Ollama can require no call"),
        ({"n": 2}, "one answer a conversation"),
        ({"temprature": 1}, "did you mean temperature"),
        ({"temperature": float("inf")}, "give a finite number"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
         "give a data: URL"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "text and image_url"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"role=\['user'\]: give one of"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": ["f"]}]}, "tool_calls='f': give"),
    ],
)  # fmt: skip
async def test_what_cannot_be_sent_is_said_before(arguments: dict[str, Any], says: str) -> None:
    async with OllamaServer() as server:
        with pytest.raises(InvalidArgument, match=says):
            await model(server).chat(arguments.pop("messages", HI), **arguments)
        assert server.bodies == []


@both_ways
async def test_an_answer_has_all_that_the_server_gave(way: str) -> None:
    steps = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -0.25, "bytes": [98]}]
    scripted = {"content": "Let me see.", "thinking": "a sum", "tool_calls": [CALL], "logprobs": steps}
    async with OllamaServer(scripted) as server:
        llm = model(server)
        answer = await ask(llm, way, logprobs=True)
    assert (answer, answer.reasoning, answer.model) == ("Let me see.", "a sum", "qwen3:8b")
    assert answer.tool_calls == [ToolCall("add", {"a": 1, "b": [2, "é"]}, id="call_1")]
    assert answer.finish_reason == "tool_calls"
    assert answer.usage == llm.usage == Usage(1, 26, 7)
    assert answer.tokens == TokenSpan([], [-0.5, -0.25])
    assert server.bodies[0]["logprobs"] is True


@both_ways
async def test_calls_without_an_id_get_one_and_answers_may_be_cut(way: str) -> None:
    async with OllamaServer(
        {"tool_calls": [{"function": CALL["function"]}]}, {"content": "x", "done_reason": "length"}
    ) as server:
        [call] = (await ask(model(server), way)).tool_calls or ()
        assert call.id.startswith("call_")
        assert (await ask(model(server), way)).finish_reason == "length"


async def test_a_stream_gives_text_and_thinking_as_they_come() -> None:
    async with OllamaServer({"thinking": "one two", "content": "three four"}) as server:
        items = [item async for item in model(server).stream_chat(HI)]
    assert [chunk for _, chunk, _ in items] == ["", "", "thre", "e fo", "ur", ""]
    assert [answer.reasoning for _, _, answer in items] == ["one ", *["one two"] * 5]


@both_ways
async def test_a_model_that_is_not_there_is_a_refusal(way: str) -> None:
    async with OllamaServer() as server:
        with pytest.raises(RequestRefused, match="try pulling it first") as failure:
            await ask(model(server, "missing", retry=2), way)
        assert (failure.value.status, len(server.bodies)) == (404, 1)


@both_ways
async def test_a_server_that_is_busy_is_asked_again(way: str) -> None:
    busy = {"status": 503, "error": "server busy, please try again.  maximum pending requests exceeded"}
    async with OllamaServer(busy, {"content": "at last"}) as server:
        assert await ask(model(server, retry=1), way) == "at last"


async def test_an_error_within_a_stream_keeps_what_came_before() -> None:
    async with OllamaServer(
        {"content": "half of it", "error": "an error was encountered while running the model"}
    ) as server:
        pieces: list[str] = []
        with pytest.raises(ServerError, match="while running the model") as failure:
            await read_into(pieces, model(server))
    assert failure.value.partial == "half of it"


@pytest.mark.parametrize(
    ("body", "raised"),
    [
        (b'{"model": "m", "message": {"content": "half"}, "done": false}\n', StreamTruncated),
        (b'{"model": "m", "message": {"content": "half"}, "done": false}\n{"mod', StreamTruncated),
        (b"", BadResponse),
        (b"<html>\n", BadResponse),
        (b'{"models": []}\n', BadResponse),
    ],
)
async def test_what_is_no_whole_answer_is_not_taken_for_one(body: bytes, raised: type[LLMError]) -> None:
    async with FaultServer(raw(NDJSON_HEAD + body, _close)) as server:
        with pytest.raises(raised) as failure:
            await ask(model(server), "stream")
        assert failure.value.partial in ("", "half")
    async with FaultServer(raw(JSON_HEAD % len(body) + body)) as server:
        with pytest.raises(LLMError):
            await ask(model(server), "chat")


@pytest.mark.parametrize("called", ["text/plain", "application/json", "application/octet-stream", ""])
async def test_a_stream_is_read_as_lines_whatever_it_is_called(called: str) -> None:
    told = [{"message": {"content": "two "}, "done": False}, {"message": {"content": "lines"}, "done": True}]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in told)
    head = NDJSON_HEAD.replace(b"application/x-ndjson", called.encode())
    async with FaultServer(raw(head + body, _close)) as server:
        assert await ask(model(server), "stream") == "two lines"


def test_a_server_that_sends_anything_gets_an_answer_or_a_typed_error_made_of_it() -> None:
    reply = {"thinking": "hm", "content": "hi", "tool_calls": [CALL], "logprobs": [{"token": "h", "logprob": -0.5}]}
    end = {"model": "m", "done": True, "done_reason": "stop", **FIGURES}
    whole = {**end, "message": {**reply, "role": "assistant"}, "logprobs": reply["logprobs"]}
    assert answers_or_typed_errors(parse_chat, whole) > 300
    told = [{"model": "m", **line} for line in lines(reply)]
    assert answers_or_typed_errors(streamed(ChatLines), told) > 500


async def _close(writer: Any, request: Any) -> None:
    await writer.drain()
    writer.close()


async def test_a_last_line_without_its_end_counts_if_it_is_whole() -> None:
    line = json.dumps({"model": "m", "message": {"content": "all"}, "done": True, "done_reason": "stop"}).encode()
    async with FaultServer(raw(NDJSON_HEAD + line, _close)) as server:
        assert await ask(model(server), "stream") == "all"


@both_ways
async def test_a_cancelled_call_is_given_up_by_the_server(way: str) -> None:
    async with OllamaServer() as server:
        server.delay = 30.0
        await given_up(ask(model(server), way), server)


def test_the_blocking_form_is_the_same() -> None:
    body = {"model": "m", "message": {"role": "assistant", "content": "whole"}, "done": True}
    with FaultServer(reply(body)) as server:
        llm = OllamaAPI("m", api_base=server.url, key="secret")
        assert llm.chat([HI, HI]) == ["whole", "whole"]
        assert [chunk for _, chunk, _ in llm.stream_chat(HI)] == ["whole", ""]
        llm.close()
    assert server.requests[0].line == "POST /api/chat HTTP/1.1"
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_the_key_of_the_environment_is_for_ollamas_own_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    llm = create_object(
        {"type": "lagentlike.llms.OllamaAPI", "model_type": "gpt-oss:120b", "api_base": "https://ollama.com"}
    )
    assert str(llm.url) == "https://ollama.com/api/chat"
    with pytest.raises(InvalidArgument, match="OLLAMA_API_KEY"):
        llm.chat(HI)


@pytest.mark.parametrize(
    "base", ["http://h:1", "http://h:1/", "http://h:1/api", "http://h:1/api/chat", "http://h:1/v1"]
)
def test_any_of_a_servers_addresses_will_do(base: str) -> None:
    assert str(OllamaAPI("m", api_base=base).url) == "http://h:1/api/chat"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_found_in_pieces_of_any_size(size: int) -> None:
    data = b'{"a": "\xc3\xa9"}\n\n{"b": 2}\r\n  \n{"c": 3}'
    parser = LineParser()
    lines = [line for start in range(0, len(data), size) for line in parser.feed(data[start : start + size])]
    assert [json.loads(line) for line in lines] == [{"a": "é"}, {"b": 2}]
    assert parser.close() == b'{"c": 3}'
    assert parser.close() is None
