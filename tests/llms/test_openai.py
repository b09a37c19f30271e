"""Models behind an OpenAI-compatible server: what is sent, what is read, and the two colours."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel

from lagentlike.budget import Budget
from lagentlike.errors import (
    BadResponse,
    BudgetExceeded,
    InvalidArgument,
    LLMError,
    RealRequestsForbidden,
    StreamTruncated,
)
from lagentlike.llms import AsyncGPTAPI, forbid_real_requests, GPTAPI, INTERNLM2_META
from lagentlike.llms.openai_wire import ChatAssembler, parse_completion
from lagentlike.schema import ChatMessage, Completion, ModelStatusCode, TokenSpan, ToolCall, Usage

from .asking import ask, both_ways, HI, KEY, model
from .fault_server import answer, chunk, completion, drip, events, FaultServer, Received, refuse, reply

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


async def sent(llm: AsyncGPTAPI, server: FaultServer, messages: Any = HI, **params: Any) -> Any:
    """The body of a request made with these messages and parameters."""
    await llm.chat(messages, **params)
    return server.requests[-1].json


# What is sent


async def test_parameters_go_under_the_names_of_the_server() -> None:
    async with FaultServer(answer()) as server:
        llm = model(server, max_new_tokens=7, temperature=0.5, top_p=0.9, stop_words="END", seed=3)
        body = await sent(llm, server, top_k=40, repetition_penalty=1.1)
    assert body == {
        "messages": HI,
        "model": "m",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.1,
        "stop": ["END"],
        "seed": 3,
    }


async def test_what_is_not_set_is_not_sent() -> None:
    async with FaultServer(answer()) as server:
        assert await sent(model(server), server) == {"messages": HI, "model": "m", "max_tokens": 512}
        assert await sent(model(server, max_new_tokens=None), server, tools=[]) == {"messages": HI, "model": "m"}


async def test_nothing_is_cut() -> None:
    async with FaultServer(answer()) as server:
        assert (await sent(model(server), server, max_new_tokens=1_000_000))["max_tokens"] == 1_000_000


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("gpt-4o", "max_tokens"),
        ("Qwen2.5-32B-Instruct", "max_tokens"),
        ("olmo-2", "max_tokens"),
        ("o3-mini", "max_completion_tokens"),
        ("gpt-5.1", "max_completion_tokens"),
        ("openai/gpt-5", "max_completion_tokens"),
    ],
)
async def test_newer_models_have_another_name_for_the_limit(name: str, field: str) -> None:
    async with FaultServer(answer()) as server:
        llm = AsyncGPTAPI(name, key=None, api_base=server.url, max_new_tokens=9)
        assert (await sent(llm, server))[field] == 9
        llm = AsyncGPTAPI(name, key=None, api_base=server.url, max_tokens_field="limit", max_new_tokens=9)
        assert (await sent(llm, server))["limit"] == 9


async def test_further_fields_and_headers_are_sent_as_they_are() -> None:
    async with FaultServer(answer()) as server:
        llm = model(
            server, extra_body={"guided": [1]}, headers={"X-Team": "a"}, org="org-1", chat_template_kwargs={"a": 1}
        )
        body = await sent(llm, server, min_p=0.1, max_tokens=5)
    assert body["guided"] == [1]
    assert body["chat_template_kwargs"] == {"a": 1}
    assert body["min_p"] == 0.1
    assert body["max_tokens"] == 5
    headers = server.requests[0].headers
    assert (headers["x-team"], headers["openai-organization"]) == ("a", "org-1")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("max_new_token", "max_new_tokens"), ("temprature", "temperature"), ("stop_word", "stop_words"), ("keys", "key")],
)
def test_slip_of_a_parameter_is_refused_with_the_cure(name: str, meant: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}=1: .*did you mean {meant}"):
        GPTAPI("m", **{name: 1})


async def test_slip_in_a_call_is_refused_too() -> None:
    async with FaultServer(answer()) as server:
        with pytest.raises(InvalidArgument, match="did you mean max_new_tokens"):
            await model(server).chat(HI, max_new_token=4)
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"model_type": ""}, "model_type"),
        ({"api_base": "127.0.0.1:8000"}, "api_base"),
        ({"api_base": "ftp://host/v1"}, "api_base"),
        ({"api_base": "http://u:p@host/v1"}, "api_base"),
        ({"retry": -1}, "retry"),
        ({"timeout": 0}, "timeout"),
        ({"key": "a\nb"}, "key"),
        ({"key": [""]}, "key"),
        ({"meta_template": [{"role": "environment", "api_role": "tools"}]}, "api_role"),
        ({"proxies": {"http": "socks5://127.0.0.1:1"}, "api_base": "http://127.0.0.1"}, "proxies"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        GPTAPI(**{"model_type": "m", **options})
    assert caught.value.argument == argument
    assert "p@host" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "argument"),
    [
        ([{"role": "wizard", "content": "a"}], "role"),
        ([{"role": "user"}], "message"),
        ([{"role": "user", "content": 3}], "content"),
        (["hi", {"role": "user", "content": "a"}], "message"),
        ([{"role": "user", "content": [{"type": "text", "text": {1}}]}], "message"),
    ],
)
async def test_wrong_messages_are_named(messages: Any, argument: str) -> None:
    async with FaultServer(answer()) as server:
        with pytest.raises(InvalidArgument) as caught:
            await model(server).chat(messages)
    assert caught.value.argument == argument


async def test_headers_cannot_smuggle_a_second_one() -> None:
    async with FaultServer(answer()) as server:
        with pytest.raises(InvalidArgument, match="line break"):
            await model(server, headers={"X-Team": "a\r\nX-Other: b"}).chat(HI)
    assert server.requests == []


@pytest.mark.parametrize("params", [{"temperature": float("nan")}, {"n": 2}, {"response_format": 3}])
async def test_values_that_cannot_be_sent_are_named(params: dict[str, Any]) -> None:
    async with FaultServer(answer()) as server:
        with pytest.raises(InvalidArgument, match=next(iter(params))):
            await model(server).chat(HI, **params)


@pytest.mark.parametrize(
    ("api_base", "url"),
    [
        ("http://host:8000/v1/chat/completions", "http://host:8000/v1/chat/completions"),
        ("http://host:8000/v1", "http://host:8000/v1/chat/completions"),
        ("http://host:8000/v1/", "http://host:8000/v1/chat/completions"),
        ("http://host:8000", "http://host:8000/v1/chat/completions"),
        ("https://x.azure.com/openai/deployments/d?api-version=1", "https://x.azure.com/openai/deployments/d/chat/completions?api-version=1"),
    ],
)  # fmt: skip
def test_url_is_completed(api_base: str, url: str) -> None:
    assert str(GPTAPI("m", api_base=api_base).url) == url


async def test_roles_the_server_may_not_know_are_sent_as_others() -> None:
    async with FaultServer(answer()) as server:
        messages = [
            {"role": "system", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "environment", "content": "4"},
        ]
        roles = [item["role"] for item in (await sent(model(server), server, messages))["messages"]]
        assert roles == ["system", "system", "user"]
        for template, role in [
            (INTERNLM2_META, "user"),
            ([{"role": "environment", "api_role": "system"}], "system"),
            ([{"role": "environment", "begin": "x", "end": "y", "api_role": "tool"}], "tool"),
        ]:
            body = await sent(model(server, meta_template=template), server, messages)
            assert body["messages"][-1] == {"role": role, "content": "4"}
        narrator = [{"role": "narrator", "content": "4"}]
        body = await sent(model(server, meta_template=[{"role": "narrator"}]), server, narrator)
        assert body["messages"] == [{"role": "user", "content": "4"}]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("writer", "writer"), ("my agent!", "my_agent_"), ("a" * 80, "a" * 64), ("作家", None), (3, None)],
)
async def test_names_no_server_takes_are_mended_or_left_out(name: Any, kept: str | None) -> None:
    async with FaultServer(answer()) as server:
        body = await sent(model(server), server, [{"role": "user", "content": "a", "name": name}])
    assert body["messages"][0].get("name") == kept


async def test_surrogates_and_long_integers_are_sent() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "big": 2**70}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "user", "content": "a\ud800"}]
    async with FaultServer(answer()) as server:
        body = await sent(model(server), server, messages)
    assert body["messages"][0]["tool_calls"][0]["big"] == 2**70
    assert body["messages"][1]["content"] == "a\ufffd"


async def test_a_message_is_encoded_once_however_often_it_is_sent() -> None:
    async with FaultServer(answer()) as server:
        llm = model(server)
        message = ChatMessage(role="environment", content="a")
        await llm.chat([message])
        dict.__setitem__(message, "content", "changed behind its back")
        assert (await sent(llm, server, [message, message]))["messages"] == [{"role": "user", "content": "a"}] * 2
        message["content"] = "changed openly"
        assert (await sent(llm, server, [message]))["messages"][0]["content"] == "changed openly"
        other = model(server, meta_template=[{"role": "environment", "api_role": "system"}])
        assert (await sent(other, server, [message]))["messages"][0]["role"] == "system"


@pytest.mark.parametrize("kind", [dict, ChatMessage])
async def test_edits_anywhere_in_a_long_conversation_are_sent(kind: Any) -> None:
    async with FaultServer(answer()) as server:
        llm = model(server)
        messages = [kind(role="user", content=str(number)) for number in range(99)]
        messages.append(ChatMessage(role="user", content="last"))
        assert (await sent(llm, server, messages))["messages"] == messages
        messages[50]["content"] = "changed"
        messages += [kind(role="assistant", content="a"), ChatMessage(role="user", content="b")]
        assert (await sent(llm, server, messages))["messages"] == messages
        messages += [kind(role="assistant", content="c"), ChatMessage(role="user", content="d")]
        assert (await sent(llm, server, messages))["messages"] == messages
        assert (await sent(llm, server, messages[:40]))["messages"] == messages[:40]


# Keys


async def test_key_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer(answer()) as server:
        llm = AsyncGPTAPI("m", api_base=server.url)
        await llm.chat(HI)
        monkeypatch.setenv("OPENAI_API_KEY", "from-env")
        await llm.chat(HI)
    assert [request.headers.get("authorization") for request in server.requests] == [None, "Bearer from-env"]


def test_missing_key_for_openai_itself_says_what_to_set() -> None:
    with pytest.raises(InvalidArgument, match="set the environment variable OPENAI_API_KEY"):
        GPTAPI("gpt-4o").chat(HI)


async def test_keys_are_used_in_turn() -> None:
    async with FaultServer(answer()) as server:
        llm = model(server, key=["a", "b", "c"])
        for _ in range(7):
            await llm.chat(HI)
    used = [request.headers["authorization"][-1] for request in server.requests]
    assert "".join(used) == "abcabca"


async def test_keys_that_are_all_used_up_are_each_tried_again() -> None:
    spent = refuse(429, code="insufficient_quota")
    async with FaultServer(spent, spent, answer()) as server:
        llm = model(server, key=["a", "b"])
        with pytest.raises(LLMError):
            await llm.chat(HI)
        assert await llm.chat(HI) == "hello"


def test_keys_are_never_shown() -> None:
    llm = GPTAPI("m", key=[KEY], headers={"api-key": KEY}, proxies={"https": f"http://u:{KEY}@proxy:1"})
    assert KEY not in repr(llm) + repr(vars(llm)) + str(llm)
    assert repr(llm) == "GPTAPI('m')"


async def test_proxy_is_used_and_its_password_not_shown() -> None:
    async with FaultServer(reply({"error": {"message": "the proxy says s3cret"}}, 400)) as proxy:
        url = proxy.url.replace("http://", "http://u:s3cret@").removesuffix("/v1")
        llm = AsyncGPTAPI("m", key=None, api_base="http://model.test/v1", proxies={"http": url})
        with pytest.raises(LLMError) as caught:
            await llm.chat(HI)
    assert proxy.requests[0].line == "POST http://model.test/v1/chat/completions HTTP/1.1"
    assert "s3cret" not in str(caught.value) + caught.value.raw


# What is read


def test_an_answer_has_all_that_the_server_gave() -> None:
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    made = parse_completion(json.dumps(completion("4", message={"reasoning_content": "2 + 2"}, usage=usage)).encode())
    assert isinstance(made, Completion)
    assert (made, made.reasoning, made.model, made.finish_reason) == ("4", "2 + 2", "m", "stop")
    assert made.usage == Usage(1, 30, 12, 8, 5)
    assert made.tokens is None
    assert made.tool_calls is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}, "ab"),
        ({"message": {"content": None, "refusal": "I will not"}}, "I will not"),
        ({"message": {"content": None, "reasoning": "hm"}, "choice": {"finish_reason": "length"}}, ""),
        ({"usage": None}, "hello"),
        ({"usage": {"prompt_tokens": "many", "completion_tokens": -3}}, "hello"),
        ({"choice": {"finish_reason": None}}, "hello"),
        ({"model": None}, "hello"),
    ],
    ids=str,
)
def test_unusual_answers_are_read(changes: dict[str, Any], text: str) -> None:
    made = parse_completion(json.dumps(completion(**changes)).encode())
    assert made == text
    assert made.finish_reason


@both_ways
async def test_usage_is_counted_by_model_and_budget(way: str) -> None:
    async with FaultServer(answer()) as server:
        llm = model(server)
        with Budget(requests=3) as budget:
            for _ in range(3):
                await ask(llm, way)
            with pytest.raises(BudgetExceeded):
                await ask(llm, way)
    assert llm.usage == budget.used == Usage(3, 21, 9)
    assert len(server.requests) == 3


async def test_real_requests_can_be_forbidden() -> None:
    async with FaultServer(answer()) as server:
        with forbid_real_requests(), pytest.raises(RealRequestsForbidden):
            await model(server).chat(HI)
    assert server.requests == []


CALLS = [
    {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 12345678901234567890123}'}},
    {"id": "b", "type": "function", "function": {"name": "add", "arguments": '{"x": 1'}},
    {"type": "function", "function": {"name": "now", "arguments": ""}},
]


@both_ways
async def test_tools_go_there_and_back(way: str) -> None:
    deltas = [
        chunk({"tool_calls": [{**call, "index": number, "function": {**call["function"], "arguments": ""}}]})
        for number, call in enumerate(CALLS)
    ]
    pieces = [(number, char) for number, call in enumerate(CALLS) for char in call["function"]["arguments"]]
    deltas += [chunk({"tool_calls": [{"index": number, "function": {"arguments": c}}]}) for number, c in pieces]
    message = {"content": None, "tool_calls": CALLS}

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        if request.json["messages"][-1]["role"] == "tool":
            await answer("done")(writer, request)
        elif way == "chat":
            await reply(completion(message=message, choice={"finish_reason": "tool_calls"}))(writer, request)
        else:
            await events(b"".join(deltas) + chunk(finish="tool_calls"))(writer, request)

    async with FaultServer(behave) as server:
        llm = model(server)
        first = await ask(llm, way, tools=[TOOL], tool_choice="auto", parallel_tool_calls=True)
        assert first == ""
        assert first.finish_reason == "tool_calls"
        calls = first.tool_calls or []
        assert calls[:2] == [
            ToolCall("add", {"x": 12345678901234567890123}, id="a"),
            ToolCall("add", '{"x": 1', id="b"),
        ]
        assert (calls[2].name, calls[2].arguments) == ("now", {})
        assert calls[2].id.startswith("call_")
        results = [{"role": "tool", "tool_call_id": call.id, "content": "4"} for call in calls]
        asked = {"role": "assistant", "content": None, "tool_calls": [call.as_openai() for call in calls]}
        assert await llm.chat([*HI, asked, *results], tools=[TOOL]) == "done"
    assert server.requests[0].json["tools"] == [TOOL]
    assert server.requests[0].json["tool_choice"] == "auto"
    assert json.loads(server.requests[1].json["messages"][1]["tool_calls"][0]["function"]["arguments"])


def assembled(*chunks: bytes, finish: str = "tool_calls") -> Completion:
    assembler = ChatAssembler()
    assembler.feed([item.removeprefix(b"data: ").strip() for item in (*chunks, chunk(finish=finish))])
    return assembler.close()[-1][1]


def call_chunk(**call: Any) -> bytes:
    return chunk({"tool_calls": [call]})


def test_interleaved_tool_calls_are_put_together_by_index() -> None:
    made = assembled(
        call_chunk(index=1, id="b", function={"name": "g", "arguments": '{"y"'}),
        call_chunk(index=0, id="a", function={"name": "f", "arguments": ""}),
        call_chunk(index=1, function={"arguments": ": 2}"}),
        call_chunk(index=0, function={"arguments": '{"x": 1}'}),
    )
    assert made.tool_calls == [ToolCall("f", {"x": 1}, id="a"), ToolCall("g", {"y": 2}, id="b")]


def test_tool_calls_without_an_index_go_on_with_the_last() -> None:
    made = assembled(
        call_chunk(id="a", function={"name": "f", "arguments": '{"x"'}),
        call_chunk(function={"arguments": ": 1}"}),
        call_chunk(id="b", function={"name": "g", "arguments": "{}"}),
    )
    assert made.tool_calls == [ToolCall("f", {"x": 1}, id="a"), ToolCall("g", {}, id="b")]


def test_tool_calls_that_all_say_index_zero_are_told_apart_by_id() -> None:
    made = assembled(
        call_chunk(index=0, id="a", function={"name": "f", "arguments": '{"x": 1}'}),
        call_chunk(index=0, id="b", function={"name": "f", "arguments": '{"x": 2}'}),
    )
    assert made.tool_calls == [ToolCall("f", {"x": 1}, id="a"), ToolCall("f", {"x": 2}, id="b")]


def test_repeated_id_and_name_are_not_doubled() -> None:
    made = assembled(
        call_chunk(index=0, id="a", function={"name": "f", "arguments": '{"x"'}),
        call_chunk(index=0, id="a", function={"name": "f", "arguments": ": 1}"}),
    )
    assert made.tool_calls == [ToolCall("f", {"x": 1}, id="a")]


def test_fuzzed_streams_never_fail_but_by_llm_errors() -> None:
    random_ = random.Random(4)
    pieces: list[Any] = [
        {"content": "a"}, {"content": None}, {"content": 3}, {"content": [{"text": "b"}]}, {}, None, [], "x", 5,
        {"tool_calls": None}, {"tool_calls": {}}, {"tool_calls": [None, 3, {}]}, {"role": "assistant"},
        {"tool_calls": [{"index": "0", "id": 4, "function": "f"}]}, {"reasoning_content": "r"}, {"refusal": "no"},
        {"tool_calls": [{"index": 2, "id": "c", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}, {"index": 2, "function": {"arguments": "}"}}]},
        {"tool_calls": [{"function": {"name": 3, "arguments": {"a": 1}}}]},
        {"tool_calls": [{"index": -1, "id": "", "function": {"name": "", "arguments": None}}]},
    ]  # fmt: skip
    changes: list[dict[str, Any]] = [
        {}, {}, {}, {"choices": []}, {"choices": None}, {"choices": [3]}, {"usage": 3}, {"usage": {}}, {"model": 3},
        {"choice": {"logprobs": {"content": [{}, 3, {"logprob": "x", "token": 3}]}}}, {"prompt_token_ids": [1, "2"]},
        {"choice": {"token_ids": [1, 2]}}, {"choice": {"finish_reason": "stop"}}, {"choice": {"finish_reason": 3}},
        {"choice": {"output_token_logprobs": [[1], 3, ["x", 2]]}}, {"choice": {"index": "9"}},
    ]  # fmt: skip
    finished = 0
    for _ in range(10_000):
        stream = []
        for _ in range(random_.randrange(1, 8)):
            kept = chunk(**{"delta": random_.choice(pieces), **copy.deepcopy(random_.choice(changes))})
            stream += [kept[6:].strip()] * random_.choice([1, 1, 1, 2])
        random_.shuffle(stream)
        assembler = ChatAssembler()
        try:
            assembler.feed(stream)
            made = assembler.close()[-1][1]
        except (StreamTruncated, BadResponse):
            continue
        finished += 1
        assert all(isinstance(call.arguments, dict | str) for call in made.tool_calls or ())
    assert finished > 2000


def test_text_chunks_sent_twice_are_passed_on_twice() -> None:
    assert assembled(chunk({"content": "ab"}), chunk({"content": "ab"}), finish="stop") == "abab"


async def test_reasoning_comes_apart_from_the_answer() -> None:
    stream = [
        chunk({"reasoning_content": "2 +"}),
        chunk({"reasoning": " 2"}),
        chunk({"content": "4"}),
        chunk(finish="stop"),
    ]
    async with FaultServer(events(b"".join(stream))) as server:
        parts = [item async for item in model(server).stream_chat(HI)]
    assert [(piece, made.reasoning) for _, piece, made in parts] == [
        ("", "2 +"),
        ("", "2 + 2"),
        ("4", "2 + 2"),
        ("", "2 + 2"),
    ]
    assert parts[-1][0] == ModelStatusCode.END


LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": 0}]}
BY_NAME = {"content": [{"token": "token_id:5", "logprob": -0.5}, {"token": "token_id:6", "logprob": 0}]}


@both_ways
@pytest.mark.parametrize(
    ("choice", "response", "tokens"),
    [
        ({"logprobs": LOGPROBS}, {}, TokenSpan([], [-0.5, 0.0])),
        ({"logprobs": LOGPROBS, "token_ids": [5, 6]}, {"prompt_token_ids": [1]}, TokenSpan([5, 6], [-0.5, 0.0], [1])),
        ({"logprobs": BY_NAME}, {}, TokenSpan([5, 6], [-0.5, 0.0])),
        ({"token_ids": [5, 6]}, {}, TokenSpan([5, 6])),
        ({"output_ids": [5, 6], "output_token_logprobs": [[-0.5, 5], [0.0, 6]]}, {}, TokenSpan([5, 6], [-0.5, 0.0])),
        ({"logprobs": LOGPROBS, "token_ids": [5, 6, 7]}, {}, TokenSpan([5, 6, 7])),
        ({"logprobs": None}, {}, None),
    ],
    ids=["logprobs", "vllm", "named", "ids", "lmdeploy", "unequal", "none"],
)  # fmt: skip
async def test_tokens_are_kept_as_the_engine_gave_them(
    way: str, choice: dict[str, Any], response: dict[str, Any], tokens: TokenSpan | None
) -> None:
    whole = completion("ab", choice=choice, **response)
    stream = chunk({"content": "ab"}, choice=choice, **response) + chunk(finish="stop")
    async with FaultServer(reply(whole) if way == "chat" else events(stream)) as server:
        made = await ask(model(server), way, logprobs=True)
    assert server.requests[0].json["logprobs"] is True
    assert made.tokens == tokens


async def test_tokens_of_many_chunks_are_joined() -> None:
    stream = b"".join(
        chunk({"content": "a"}, choice={"token_ids": [number], "logprobs": {"content": [{"logprob": -number}]}})
        for number in range(5)
    )
    async with FaultServer(events(stream + chunk(finish="stop"))) as server:
        made = await ask(model(server), "stream")
    assert made.tokens == TokenSpan([0, 1, 2, 3, 4], [0.0, -1.0, -2.0, -3.0, -4.0])


class Person(BaseModel):
    name: str
    friends: list[Person] = []


async def test_answers_in_json_are_asked_for() -> None:
    async with FaultServer(answer('{"name": "Ann"}')) as server:
        assert (await sent(model(server, json_mode=True), server))["response_format"] == {"type": "json_object"}
        body = await sent(model(server, response_format=Person), server)
        schema = body["response_format"]["json_schema"]
        assert (body["response_format"]["type"], schema["name"], schema["strict"]) == ("json_schema", "Person", True)
        inner = schema["schema"]["$defs"]["Person"]
        assert (inner["required"], inner["additionalProperties"]) == (["name", "friends"], False)
        assert "default" not in inner["properties"]["friends"]
        body = await sent(model(server), server, response_format={"type": "object", "title": "T"})
        assert body["response_format"]["json_schema"] == {"name": "T", "schema": {"type": "object", "title": "T"}}
        whole = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
        assert (await sent(model(server), server, response_format=whole))["response_format"] == whole
        answered = await model(server).chat(HI, response_format=Person)
        assert Person.model_validate_json(answered) == Person(name="Ann")


async def test_server_that_does_not_stream_is_read_all_the_same() -> None:
    whole = completion("ab", message={"tool_calls": CALLS[:1]}, choice={"finish_reason": "tool_calls"})
    async with FaultServer(reply(whole)) as server:
        made = await ask(model(server), "stream")
    assert made == "ab"
    assert (made.tool_calls or [])[0].arguments == {"x": 12345678901234567890123}
    assert made.usage == Usage(1, 7, 3)


async def test_stream_options_can_be_left_out() -> None:
    async with FaultServer(answer()) as server:
        await ask(model(server), "stream")
        await ask(model(server, stream_options=None), "stream")
    assert [request.json.get("stream_options") for request in server.requests] == [{"include_usage": True}, None]


# The blocking form


def test_blocking_calls_and_streams() -> None:
    with FaultServer(answer("hello world")) as server:
        llm = GPTAPI("m", key=KEY, api_base=server.url)
        assert llm.chat(HI) == "hello world"
        parts = list(llm.stream_chat(HI))
        assert "".join(piece for _, piece, _ in parts) == "hello world"
        assert parts[-1][0] == ModelStatusCode.END
        assert parts[-1][2].usage == Usage(1, 7, 3)
        assert llm.usage.requests == 2
        assert server.connections == 1
        llm.close()
        assert llm.chat(HI) == "hello world"
        assert server.connections == 2


async def test_blocking_calls_work_inside_a_running_loop() -> None:
    with FaultServer(answer()) as server:
        llm = GPTAPI("m", key=None, api_base=server.url)
        assert llm.chat(HI) == "hello"
        assert [piece for _, piece, _ in llm.stream_chat(HI)] == ["hel", "lo", ""]


def test_many_threads_share_a_model() -> None:
    def echo(number: int) -> str:
        return llm.chat([{"role": "user", "content": str(number)}])

    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        await reply(completion(request.json["messages"][0]["content"]))(writer, request)

    with FaultServer(behave) as server, ThreadPoolExecutor(16) as pool:
        llm = GPTAPI("m", key=None, api_base=server.url)
        assert list(pool.map(echo, range(300))) == [str(number) for number in range(300)]
        assert llm.usage.requests == 300
        assert server.connections <= 16


def test_batches_are_asked_side_by_side() -> None:
    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        while len(server.requests) < 4:
            await asyncio.sleep(0.005)
        await reply(completion(request.json["messages"][0]["content"]))(writer, request)

    with FaultServer(behave) as server:
        llm = GPTAPI("m", key=None, api_base=server.url, timeout=5)
        batch = [[{"role": "user", "content": str(number)}] for number in range(4)]
        assert llm.chat(batch) == ["0", "1", "2", "3"]
        assert llm.usage.requests == 4


async def test_async_batch_cancels_the_rest_when_one_fails() -> None:
    async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
        refused = request.json["messages"][0]["content"] == "2"
        await (refuse(400) if refused else drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 999, 0.01))(writer, request)

    async with FaultServer(behave) as server:
        batch = [[{"role": "user", "content": str(number)}] for number in range(4)]
        with pytest.raises(LLMError):
            await model(server).chat(batch)
        await asyncio.sleep(0.1)
        assert server.open <= 1


def test_errors_of_blocking_calls_are_the_same() -> None:
    with FaultServer(refuse(400, "no")) as server:
        llm = GPTAPI("m", key=KEY, api_base=server.url)
        for ask_ in (lambda: llm.chat(HI), lambda: list(llm.stream_chat(HI))):
            with pytest.raises(LLMError) as caught:
                ask_()
            assert KEY not in repr(caught.value)


def test_blocking_stream_left_early_closes_its_connection() -> None:
    with FaultServer(events([chunk({"content": "a"})] * 100, pause=0.01)) as server:
        stream = GPTAPI("m", key=None, api_base=server.url).stream_chat(HI)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        for _ in range(100):
            if server.open == 0:
                break
            threading.Event().wait(0.01)
        assert server.open == 0


BLOCKING = """
import sys
from lagentlike.llms import GPTAPI
llm = GPTAPI("m", key=None, api_base=sys.argv[1])
print(llm.chat([{"role": "user", "content": "hi"}]))
next(llm.stream_chat([{"role": "user", "content": "hi"}]))
"""

ASYNC = """
import asyncio, sys
from lagentlike.llms import AsyncGPTAPI
llm = AsyncGPTAPI("m", key=None, api_base=sys.argv[1])
print(asyncio.run(llm.chat([{"role": "user", "content": "hi"}])))
asyncio.run(llm.chat([{"role": "user", "content": "hi"}]))
"""


@pytest.mark.parametrize("program", [BLOCKING, ASYNC], ids=["blocking", "async"])
def test_a_program_ends_without_a_word_about_open_connections(program: str) -> None:
    with FaultServer(answer()) as server:
        command = [sys.executable, "-X", "dev", "-W", "always", "-c", program, server.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("hello\n", "", 0)


def test_models_can_be_copied_and_pickled() -> None:
    with FaultServer(answer()) as server:
        llm = GPTAPI("m", key=KEY, api_base=server.url, temperature=0.5)
        llm.chat(HI)
        for twin in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
            assert twin.chat(HI) == "hello"
            assert twin.gen_params == llm.gen_params
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}


def test_vllm_says_which_extra_it_needs() -> None:
    pytest.importorskip("lagentlike.llms.vllm")
    from lagentlike.errors import MissingExtra
    from lagentlike.llms import VllmModel

    with pytest.raises(MissingExtra, match=r"pip install 'lagentlike\[vllm\]'"):
        VllmModel("Qwen/Qwen2-7B-Instruct", meta_template=INTERNLM2_META, tp=1)
