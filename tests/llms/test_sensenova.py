"""SenseNova in both its formats, against answers in the shapes that it gives."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest

from lagentlike.errors import AuthenticationFailed, InvalidArgument, RateLimited
from lagentlike.llms import AsyncSensenovaAPI, SensenovaAPI
from lagentlike.registry import create_object
from lagentlike.schema import Completion, ToolCall, Usage

from .asking import both_ways, HI
from .fault_server import answer as compatible
from .fault_server import events, FaultServer, Received, refuse, reply

SECRET = "S3cret-of-the-access-key-0123456789"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "knowledge_tokens": 0, "total_tokens": 10}


def native(text: str, calls: Any = None, finish: str = "stop") -> Any:
    """An answer of `/v1/llm/chat-completions`, streamed if that was asked for."""
    head = {"id": "c1", "usage": USAGE}
    first = {"index": 0, "role": "assistant", "finish_reason": ""}
    whole = {**first, "message": text, "finish_reason": finish, **({"tool_calls": calls} if calls else {})}
    chunks = [{**first, "delta": piece} for piece in (text[:3], text[3:])]
    chunks.append({**first, "delta": "", "finish_reason": finish, **({"tool_calls": calls} if calls else {})})
    told = [
        {"data": {**head, "choices": [choice], "plugins": {}}, "status": {"code": 0, "message": "ok"}}
        for choice in chunks
    ]
    stream = b"".join(b"data:" + json.dumps(one).encode() + b"\n\n" for one in told) + b"data:[DONE]\n\n"

    async def behave(writer: Any, request: Received) -> None:
        once = reply({"data": {**head, "choices": [whole], "plugins": {}}})
        await (events(stream) if request.json.get("stream") else once)(writer, request)

    return behave


def model(server: FaultServer, **options: Any) -> AsyncSensenovaAPI:
    base = server.url + options.pop("path", "/llm/chat-completions")
    return AsyncSensenovaAPI("SenseChat-5", sensenova_api_base=base, **{"key": "sk-1", "retry": 0, **options})


async def ask(llm: AsyncSensenovaAPI, way: str, **params: Any) -> Completion:
    if way == "chat":
        return await llm.chat(HI, **params)
    return [answer async for _, _, answer in llm.stream_chat(HI, **params)][-1]


@both_ways
async def test_the_older_format_is_spoken_and_read(way: str) -> None:
    async with FaultServer(native("你好 there")) as server:
        llm = model(server, max_new_tokens=9, temperature=0.5, repetition_penalty=1.05, stop_words=["END"])
        answer = await ask(llm, way, know_ids=["k"])
    assert (answer, answer.finish_reason, answer.usage) == ("你好 there", "stop", Usage(1, 7, 3))
    body = server.requests[0].json
    assert server.requests[0].line == "POST /v1/llm/chat-completions HTTP/1.1"
    assert {**body, "stream": None} == {
        "messages": HI,
        "model": "SenseChat-5",
        "max_new_tokens": 9,
        "temperature": 0.5,
        "repetition_penalty": 1.05,
        "stop": ["END"],
        "know_ids": ["k"],
        "stream": None,
    }
    assert body.get("stream") is (True if way == "stream" else None)


@both_ways
async def test_calls_are_read_in_the_older_format(way: str) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    async with FaultServer(native("", [call], "tool_calls")) as server:
        answer = await ask(model(server), way)
    assert answer.tool_calls == [ToolCall("add", {"a": 1}, id="call_1")]
    assert answer.finish_reason == "tool_calls"


@both_ways
async def test_any_other_address_is_asked_in_openais_format(way: str) -> None:
    async with FaultServer(compatible("hello")) as server:
        assert await ask(model(server, path="", max_new_tokens=9, json_mode=True), way) == "hello"
    assert server.requests[0].line == "POST /v1/chat/completions HTTP/1.1"
    assert server.requests[0].json["max_tokens"] == 9
    assert server.requests[0].json["response_format"] == {"type": "json_object"}


@both_ways
async def test_an_access_key_signs_a_token_for_each_request(way: str) -> None:
    async with FaultServer(native("a")) as server:
        await ask(model(server, key=["AK1." + SECRET, "sk-plain", "e.y.token"]), way)
        llm = model(server, key=["AK1." + SECRET, "sk-plain", "e.y.token"])
        for _ in range(3):
            await ask(llm, way)
    sent = [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]
    claims = jwt.decode(sent[0], SECRET, algorithms=["HS256"], issuer="AK1")  # PyJWT checks exp, nbf and the signature
    assert 1700 < claims["exp"] - time.time() <= 1800
    assert sent[2:] == ["sk-plain", "e.y.token"]
    assert SECRET not in str(server.requests)


@both_ways
async def test_refusals_are_typed_and_show_no_secret(way: str) -> None:
    told = {"error": {"code": 16, "message": f"token of {SECRET} expired", "details": []}}
    async with FaultServer(reply(told, 401), refuse(429, "slow", headers={"Retry-After": "7"})) as server:
        llm = model(server, key="AK1." + SECRET)
        with pytest.raises(AuthenticationFailed, match=r"token of \*\*\* expired") as failure:
            await ask(llm, way)
        assert SECRET not in failure.value.raw
        with pytest.raises(RateLimited) as limited:
            await ask(llm, way)
    assert limited.value.retry_after == 7


async def test_what_the_older_format_has_not_is_said() -> None:
    async with FaultServer(native("a")) as server:
        with pytest.raises(InvalidArgument, match="use the compatible one"):
            await model(server, json_mode=True).chat(HI)


def test_the_blocking_form_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSENOVA_API_KEY", "sk-env")
    with FaultServer(native("hello")) as server:
        base = server.url + "/llm/chat-completions"
        llm = create_object({"type": "lagentlike.llms.SensenovaAPI", "api_base": base})
        assert isinstance(llm, SensenovaAPI)
        assert llm.chat([HI, HI]) == ["hello", "hello"]
        assert "".join(chunk for _, chunk, _ in llm.stream_chat(HI)) == "hello"
        llm.close()
    assert server.requests[0].headers["authorization"] == "Bearer sk-env"
    monkeypatch.delenv("SENSENOVA_API_KEY")
    with pytest.raises(InvalidArgument, match="SENSENOVA_API_KEY"):
        SensenovaAPI().chat(HI)
