"""Claude through Anthropic's SDK, which talks to a server on loopback that checks requests as the API does."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel

from lagentlike.agents import AsyncAgent
from lagentlike.budget import Budget
from lagentlike.errors import (
    AuthenticationFailed,
    BadResponse,
    BudgetExceeded,
    ConnectFailed,
    ContextLengthExceeded,
    InvalidArgument,
    LLMError,
    MissingExtra,
    QuotaExhausted,
    RateLimited,
    RealRequestsForbidden,
    RequestRefused,
    RequestTimeout,
    ResponseTooLarge,
    ServerError,
    StreamTruncated,
)
from lagentlike.llms import AsyncClaudeAPI, ClaudeAPI, forbid_real_requests, RateLimiter
from lagentlike.llms.claude_wire import MessageAssembler, parse_message
from lagentlike.llms.transport import TransportOptions
from lagentlike.registry import create_object
from lagentlike.schema import Completion, ToolCall, Usage

from .asking import given_up, HI, read_into
from .claude_server import ClaudeServer, drained, error, event, events, KEYS, text, thought, use, whole
from .fault_server import events as sse
from .fault_server import FaultServer, hang, raw, reply, reset
from .lies import answers_or_typed_errors, streamed

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}
WAYS = pytest.mark.parametrize("way", ["chat", "stream"])


def model(server: Any, retry: int = 0, **options: Any) -> AsyncClaudeAPI:
    names = TransportOptions.__dataclass_fields__
    given = {name: options.pop(name) for name in list(options) if name in names}
    transport = TransportOptions(**{"backoff": 0.02, "max_retries": retry, **given})
    return AsyncClaudeAPI(
        "claude-x", key=options.pop("key", KEYS[0]), api_base=server.url, transport=transport, **options
    )


async def ask(llm: AsyncClaudeAPI, way: str, messages: Any = HI, **params: Any) -> Completion:
    if way == "chat":
        return await llm.chat(messages, **params)
    answer: Completion = (await drained(llm.stream_chat(messages, **params)))[-1][2]
    return answer


async def sent(messages: Any = HI, **params: Any) -> dict[str, Any]:
    """The body that the SDK sends for these messages and parameters."""
    async with ClaudeServer() as server:
        await model(server).chat(messages, **params)
    return server.bodies[0]


# What is sent


async def test_parameters_go_under_the_names_of_the_api() -> None:
    body = await sent(
        max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=5, stop_words=["END"], metadata={"user_id": "u"}
    )
    assert body == {
        "model": "claude-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
    }


async def test_turns_alternate_with_results_first_and_without_empty_texts() -> None:
    body = await sent(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a"},
            {"role": "environment", "content": "b"},
            {"role": "assistant", "content": "  ", "tool_calls": [
                {"id": "c.1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{broken"}},
            ]},
            {"role": "user", "content": "and hurry"},
            {"role": "tool", "tool_call_id": "c.1", "content": "2"},
            {"role": "tool", "tool_call_id": "c2", "content": ""},
            {"role": "developer", "content": "In French."},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "go on"},
        ],
        tools=[ADD],
    )  # fmt: skip
    assert body["system"] == [text("Be brief."), text("In French.")]
    assert body["messages"] == [
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": [use("add", "c_1", a=1), use("add", "c2", arguments="{broken")]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c_1", "content": [text("2")]},
                {"type": "tool_result", "tool_use_id": "c2"},
                text("and hurry"),
                text("go on"),
            ],
        },
    ]


async def test_images_and_documents_are_sent_as_the_api_has_them() -> None:
    picture, web, page = "data:image/png;base64,aGk=", "https://host/cat.jpg", "data:application/pdf;base64,JVBE"
    body = await sent(
        [
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": picture}},
                {"type": "image_url", "image_url": {"url": web, "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": page}},
            ]}
        ]
    )  # fmt: skip
    assert body["messages"][0]["content"] == [
        text("Look:"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": web}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
    ]


@pytest.mark.parametrize(
    ("choice", "more", "expected"),
    [
        (None, {}, None),
        ("auto", {}, None),
        ("none", {}, {"type": "none"}),
        ("required", {}, {"type": "any"}),
        ({"type": "function", "function": {"name": "add"}}, {}, {"type": "tool", "name": "add"}),
        ({"type": "any"}, {}, {"type": "any"}),
        (None, {"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", {"parallel_tool_calls": False}, {"type": "any", "disable_parallel_tool_use": True}),
    ],
)
async def test_tools_are_offered_and_required(choice: Any, more: dict[str, Any], expected: Any) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    body = await sent(tools=[ADD, search], tool_choice=choice, **more)
    schema = ADD["function"]["parameters"]  # type: ignore[index]
    assert body["tools"] == [{"name": "add", "description": "Add two numbers.", "input_schema": schema}, search]
    assert body.get("tool_choice") == expected


class Point(BaseModel):
    x: int


async def test_thinking_and_structured_output_are_asked_for() -> None:
    body = await sent(thinking=1024, max_new_tokens=2048, response_format=Point, reasoning_effort="low")
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"]["schema"]["required"] == ["x"]
    assert (await sent(thinking=True))["thinking"] == {"type": "adaptive"}
    assert (await sent(thinking=False))["thinking"] == {"type": "disabled"}


async def test_what_is_cached_is_marked() -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant", "user")]
    body = await sent(turns, cache="1h", tools=[ADD])
    mark = {"type": "ephemeral", "ttl": "1h"}
    assert body["system"][-1]["cache_control"] == mark
    marked = ["cache_control" in turn["content"][-1] for turn in body["messages"]]
    assert marked == [False, False, True, False, True]
    assert "cache_control" not in json.dumps(body["tools"])  # the system prompt's mark covers them
    assert (await sent(tools=[ADD], cache=True))["tools"][-1]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in json.dumps(await sent(turns))


async def test_a_tree_in_train_mode_may_hold_claude_too() -> None:
    async with ClaudeServer() as server:
        critic = AsyncAgent(model(server)).train()
        assert (await critic("hi")).tokens is None
    assert "logprobs" not in server.bodies[0]


async def test_an_answer_that_is_begun_is_gone_on_with() -> None:
    body = await sent([*HI, {"role": "assistant", "content": "Hello, "}])
    assert body["messages"][-1] == {"role": "assistant", "content": [text("Hello,")]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_new_tokens": None}, "max_new_tokens=None: Claude must be told"),
        ({"thinking": 600}, "max_new_tokens=512: thinking counts as part of it: give more than 600"),
        ({"thinking": "much"}, "thinking='much': give how many tokens"),
        ({"cache": "2h"}, "cache='2h': give True, '5m' or '1h'"),
        ({"repetition_penalty": 1.1}, "Claude knows no such penalty"),
        ({"json_mode": True}, "give response_format"),
        ({"temperature": float("nan")}, "give a finite number"),
        ({"n": 2}, "one answer a conversation"),
        ({"tools": [{"name": "x"}]}, "as executor.tools"),
        ({"max_new_token": 4}, "did you mean max_new_tokens"),
    ],
)
async def test_what_cannot_be_sent_is_said_before(arguments: dict[str, Any], says: str) -> None:
    async with ClaudeServer() as server:
        with pytest.raises(InvalidArgument, match=says):
            await model(server).chat(HI, **arguments)
        assert server.bodies == []


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "system", "content": "x"}], "something beside the system prompt"),
        ([{"role": "critic", "content": "x"}], r"messages\[0\]\['role'\]='critic': give one of system, developer"),
        ([{"role": ["user"], "content": "x"}], r"messages\[0\]\['role'\]=\['user'\]: give one of"),
        ([{"role": "user", "content": 5}], r"messages\[0\]\['content'\]=5: give a text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "give parts of type text"),
        ([*HI, {"role": "assistant", "content": "", "tool_calls": ["f"]}], r"messages\[1\]\['tool_calls'\]='f'"),
    ],
)
async def test_messages_that_cannot_be_sent_are_named(messages: Any, says: str) -> None:
    async with ClaudeServer() as server:
        with pytest.raises(InvalidArgument, match=says):
            await model(server).chat(messages)


async def test_roles_are_sent_as_the_meta_template_says() -> None:
    async with ClaudeServer() as server:
        llm = model(
            server,
            meta_template=[{"role": "critic", "api_role": "user"}, {"role": "environment", "api_role": "system"}],
        )
        await llm.chat([{"role": "environment", "content": "rules"}, {"role": "critic", "content": "hm"}])
    assert server.bodies[0]["system"] == [text("rules")]
    with pytest.raises(InvalidArgument, match="api_role='judge'"):
        ClaudeAPI("m", key="k", meta_template=[{"role": "critic", "api_role": "judge"}])


# What is read


@WAYS
async def test_an_answer_has_all_that_the_server_gave(way: str) -> None:
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 7,
             "output_tokens_details": {"thinking_tokens": 2}}  # fmt: skip
    blocks = [thought("a sum"), text("Let me see."), use("add", "t1", a=1), use("add", "t2", a={"deep": [1, "é"]})]
    async with ClaudeServer({"content": blocks, "usage": usage}) as server:
        llm = model(server)
        answer = await ask(llm, way, tools=[ADD])
    assert answer == "Let me see."
    assert answer.reasoning == "a sum"
    assert answer.tool_calls == [
        ToolCall("add", {"a": 1}, id="t1"),
        ToolCall("add", {"a": {"deep": [1, "é"]}}, id="t2"),
    ]
    assert answer.blocks == blocks
    assert (answer.finish_reason, answer.model) == ("tool_calls", "claude-x")
    assert answer.usage == llm.usage == Usage(1, 123, 7, 100, 2)


async def test_a_stream_gives_text_and_thinking_as_they_come() -> None:
    async with ClaudeServer([thought("one two"), text("three four")]) as server:
        items = await drained(model(server).stream_chat(HI))
    assert [chunk for _, chunk, _ in items] == ["", "", "thre", "e fo", "ur", ""]
    assert [answer.reasoning for _, _, answer in items] == ["one ", *["one two"] * 5]
    assert [answer.text for _, _, answer in items][2:] == ["thre", "three fo", "three four", "three four"]


@WAYS
@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
async def test_the_reason_why_an_answer_ended_is_told_in_our_words(reason: str, finish: str, way: str) -> None:
    async with ClaudeServer({"content": [text("x")], "stop_reason": reason}) as server:
        assert (await ask(model(server), way)).finish_reason == finish


@WAYS
async def test_plain_answers_need_no_blocks_and_may_be_empty(way: str) -> None:
    async with ClaudeServer([text("x")], []) as server:
        answer = await ask(model(server), way)
        empty = await ask(model(server), way)
    assert answer.blocks is None
    assert (empty, empty.tool_calls, empty.finish_reason) == ("", None, "stop")


@WAYS
async def test_what_a_call_tells_beside_itself_goes_back_with_it(way: str) -> None:
    plain = {**use("add", a=1), "caller": {"type": "direct"}}
    async with ClaudeServer([text("x"), plain], [{**use("screenshot"), "toolset_name": "computer"}]) as server:
        assert (await ask(model(server), way, tools=[ADD])).blocks is None
        told = await ask(model(server), way, tools=[ADD])
    assert told.blocks == [{**use("screenshot"), "toolset_name": "computer"}]


@pytest.mark.parametrize("form", ["whole", "streamed"])
def test_a_server_that_sends_anything_gets_an_answer_or_a_typed_error_made_of_it(form: str) -> None:
    asked = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    cited = {**text("It is."), "citations": [{"type": "char_location", "cited_text": "a"}]}
    answer = whole({"model": "m"}, [thought("hm"), asked, cited, use("add", a=1)])
    if form == "whole":
        assert answers_or_typed_errors(parse_message, answer) > 400
    else:
        told = [json.loads(one.split(b"data: ")[1]) for one in events(answer, size=9)]
        assert answers_or_typed_errors(streamed(MessageAssembler), told) > 1000


@WAYS
async def test_results_of_the_apis_own_tools_go_back_with_what_cites_them(way: str) -> None:
    found = {
        "type": "web_search_tool_result",
        "tool_use_id": "s1",
        "content": [{"type": "web_search_result", "encrypted_content": "E"}],
    }
    asked = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    cited = {**text("It is so."), "citations": [{"type": "web_search_result_location", "encrypted_index": "I"}]}
    async with ClaudeServer([asked, found, cited]) as server:
        answer = await ask(model(server), way)
        assert (answer, answer.blocks) == ("It is so.", [asked, found, cited])
        said = {"role": "assistant", "content": answer.text, "blocks": answer.blocks}
        await ask(model(server), way, [*HI, said, {"role": "user", "content": "more"}])
        assert server.bodies[1]["messages"][1]["content"] == [asked, found, cited]


SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}


@WAYS
async def test_an_answer_that_is_paused_is_gone_on_with(way: str) -> None:
    paused = {"content": [thought("hm"), text("Let me look."), SEARCH], "stop_reason": "pause_turn"}
    rest = [FOUND, thought("so"), text(" It is so.")]
    async with ClaudeServer(paused, rest, [text("Gladly.")]) as server:
        llm = model(server)
        agent = AsyncAgent(llm)
        with Budget(requests=3) as budget:
            if way == "chat":
                reply = await agent("Look it up.")
                answer = reply.content
            else:
                items = await drained(llm.stream_chat(HI))
                assert "".join(chunk for _, chunk, _ in items) == items[-1][2].text
                assert [len(so_far.text) for _, _, so_far in items] == sorted(
                    len(so_far.text) for _, _, so_far in items
                )
                answer, reply = items[-1][2].text, items[-1][2]
            assert answer == "Let me look. It is so."
            assert (reply.reasoning, reply.finish_reason) == ("hmso", "stop")
            assert reply.blocks == [*paused["content"], *rest]
            assert server.bodies[1]["messages"][1] == {"role": "assistant", "content": paused["content"]}
            assert budget.used == llm.usage == Usage(2, 20, 10)
            if way == "chat":
                assert (await agent("More?")).content == "Gladly."
                assert server.bodies[2]["messages"][1]["content"] == reply.blocks


@WAYS
async def test_an_answer_that_is_paused_for_ever_or_without_budget_ends(way: str) -> None:
    async with ClaudeServer({"content": [text("on ")], "stop_reason": "pause_turn"}) as server:
        answer = await ask(model(server), way)
        assert (answer.finish_reason, len(server.bodies)) == ("pause_turn", 11)
        assert answer.text == "on " * 11
        with Budget(requests=2), pytest.raises(BudgetExceeded):
            await ask(model(server), way)
    assert len(server.bodies) == 13


@WAYS
async def test_an_error_after_a_pause_keeps_what_came_before(way: str) -> None:
    async with ClaudeServer({"content": [text("half ")], "stop_reason": "pause_turn"}, error(400, "x")) as server:
        with pytest.raises(RequestRefused) as failure:
            await ask(model(server), way)
    assert failure.value.partial == "half "


@pytest.mark.parametrize("space", ["", " ", "\n\n"])
async def test_white_space_between_blocks_does_not_keep_them_from_going_back(space: str) -> None:
    blocks = [thought("hm"), text("It is so"), text(space), {**text("here."), "citations": [{"type": "char_location"}]}]
    async with ClaudeServer(blocks) as server:
        answer = await ask(model(server), "chat")
        said = {"role": "assistant", "content": answer.text, "blocks": answer.blocks}
        await ask(model(server), "chat", [*HI, said, {"role": "user", "content": "more"}])
    assert answer.text == f"It is so{space}here."
    assert server.bodies[1]["messages"][1]["content"] == [block for block in blocks if block != text(space)]


async def test_a_call_without_an_id_gets_one_and_can_be_answered() -> None:
    nameless = {"type": "tool_use", "name": "add", "input": {"a": 1}}
    async with ClaudeServer([thought("hm"), nameless], [text("2")]) as server:
        answer = await ask(model(server), "chat", tools=[ADD])
        [call] = answer.tool_calls or ()
        said = {"role": "assistant", "content": "", "blocks": answer.blocks, "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": {"a": 1}}}
        ]}  # fmt: skip
        result = {"role": "tool", "tool_call_id": call.id, "content": "2"}
        assert await ask(model(server), "chat", [*HI, said, result], tools=[ADD]) == "2"


async def test_an_answer_that_was_edited_is_sent_as_it_is_now_with_its_thinking() -> None:
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    blocks = [thought("hm"), hidden, text("one"), use("add", "t1", a=1)]
    edited = {"role": "assistant", "content": "two", "blocks": blocks}
    body = await sent([*HI, edited, {"role": "user", "content": "more"}])
    assert body["messages"][1]["content"] == [thought("hm"), hidden, text("two")]


async def test_a_call_that_was_cut_keeps_what_was_written() -> None:
    stream = [event("message_start", message=whole({"model": "m"}, []) | {"stop_reason": None}),
              event("content_block_start", index=0, content_block=use("add", "t1")),
              event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"a": '}),
              event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 9}),
              event("message_stop")]  # fmt: skip
    async with FaultServer(sse(b"".join(stream))) as server:
        answer = await ask(model(server), "stream")
    [call] = answer.tool_calls or ()
    assert (call.arguments, answer.finish_reason) == ('{"a": ', "length")


# What goes wrong


@WAYS
@pytest.mark.parametrize(
    ("status", "kind", "message", "raised"),
    [
        (400, "invalid_request_error", "prompt is too long: 209 tokens > 200 maximum", ContextLengthExceeded),
        (400, "invalid_request_error", "Your credit balance is too low to access the API.", QuotaExhausted),
        (400, "invalid_request_error", "temperature: no", RequestRefused),
        (401, "authentication_error", "invalid x-api-key", AuthenticationFailed),
        (403, "permission_error", "no", AuthenticationFailed),
        (404, "not_found_error", "model: claude-x", RequestRefused),
        (413, "request_too_large", "no", RequestRefused),
        (429, "rate_limit_error", "slow down", RateLimited),
        (500, "api_error", "no", ServerError),
        (529, "overloaded_error", "Overloaded", ServerError),
    ],
)
async def test_refusals_are_typed(way: str, status: int, kind: str, message: str, raised: type[LLMError]) -> None:
    async with ClaudeServer(error(status, kind, message)) as server:
        with pytest.raises(raised) as failure:
            await ask(model(server), way)
        assert len(server.bodies) == 1
    assert type(failure.value) is raised
    assert failure.value.status == status
    assert message in str(failure.value)


@WAYS
@pytest.mark.parametrize("status", [408, 409, 429, 500, 529])
async def test_what_may_pass_is_asked_again_by_our_policy_alone(status: int, way: str) -> None:
    async with ClaudeServer(error(status, "x"), error(status, "x"), [text("at last")]) as server:
        assert await ask(model(server, retry=2), way) == "at last"
        assert len(server.bodies) == 3
    async with ClaudeServer(error(status, "x")) as server:
        with pytest.raises(LLMError):
            await ask(model(server, retry=1), way)
        assert len(server.bodies) == 2


async def test_retry_after_is_obeyed_and_told() -> None:
    async with ClaudeServer(error(429, "rate_limit_error", retry_after="99"), [text("hi")]) as server:
        with pytest.raises(RateLimited) as failure:
            await model(server, retry=3).chat(HI)  # 99 s are longer than max_retry_after
        assert failure.value.retry_after == 99


@WAYS
@pytest.mark.parametrize(
    ("kind", "raised"),
    [("overloaded_error", ServerError), ("rate_limit_error", RateLimited), ("invalid_request_error", RequestRefused)],
)
async def test_an_error_within_a_stream_keeps_what_came_before(kind: str, raised: type[LLMError], way: str) -> None:
    good = events(whole({"model": "m"}, [text("half of it")]))
    bad = event("error", error={"type": kind, "message": "no"})
    async with FaultServer(sse([b"".join(good[:5]), bad], pause=0.05)) as server:
        pieces: list[str] = []
        with pytest.raises(raised) as failure:
            await read_into(pieces, model(server))
    assert failure.value.partial == "".join(pieces) == "half of "


async def test_an_error_before_the_first_text_is_asked_again() -> None:
    good = events(whole({"model": "m"}, [text("whole")]))
    bad = good[0] + event("error", error={"type": "overloaded_error", "message": "no"})
    async with FaultServer(sse(bad), sse(b"".join(good))) as server:
        assert await ask(model(server, retry=1), "stream") == "whole"


@pytest.mark.parametrize("cut", [1, 3, 5, 6])
async def test_a_stream_that_ends_too_early_is_no_answer(cut: int) -> None:
    good = events(whole({"model": "m"}, [text("half of it")]))
    async with FaultServer(sse(b"".join(good[:cut]))) as server:
        with pytest.raises(StreamTruncated) as failure:
            await ask(model(server), "stream")
    assert "half of it".startswith(failure.value.partial)


async def test_a_connection_that_breaks_within_a_stream_is_told() -> None:
    good = b"".join(events(whole({"model": "m"}, [text("half of it")]))[:4])
    async with FaultServer(sse(good, pause=0.01, end=False)) as server:
        server.behaviours[0] = _then(server.behaviours[0], reset)
        with pytest.raises(StreamTruncated, match="broke off"):
            await ask(model(server), "stream")


def _then(first: Any, second: Any) -> Any:
    async def behave(writer: Any, request: Any) -> None:
        await first(writer, request)
        await writer.drain()
        await second(writer, request)

    return behave


@WAYS
async def test_time_limits_have_names(way: str) -> None:
    async with FaultServer(hang) as server:
        with pytest.raises(RequestTimeout, match=r"sent nothing for 0\.2 s \(first_byte\)"):
            await ask(model(server, first_byte=0.2), way)
        with pytest.raises(RequestTimeout, match=r"within the 0\.2 s of the call \(total\)"):
            await ask(model(server, total=0.2), way)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 10000\r\n\r\n"
    begun = b"".join(events(whole({"model": "m"}, [text("half")]))[:4])
    async with FaultServer(raw(head + begun, hang)) as server:
        with pytest.raises(RequestTimeout, match=r"sent nothing for 0\.2 s \(idle\)"):
            await ask(model(server, idle=0.2), way)


@WAYS
async def test_a_server_that_is_not_there_or_hangs_up_is_told(way: str) -> None:
    async with FaultServer(reset) as server:
        with pytest.raises(ConnectFailed, match="without an answer"):
            await ask(model(server), way)
    with pytest.raises(ConnectFailed, match=r"no connection to 127\.0\.0\.1"):
        await ask(model(server), way)  # which is closed now


@WAYS
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{broken", {}),
        (b"[]", {}),
        (b'{"type": "message"}', {}),
        (b"<html>", {"Content-Type": "text/html"}),
        (b"", {}),
    ],
)
async def test_what_is_no_answer_is_not_taken_for_one(body: bytes, headers: dict[str, str], way: str) -> None:
    async with FaultServer(reply(body, headers=headers)) as server:
        with pytest.raises(BadResponse):
            await ask(model(server), way)


@WAYS
async def test_an_answer_may_be_compressed_and_has_a_cap_on_its_size(way: str) -> None:
    message = json.dumps(whole({"model": "m"}, [text("x" * 100_000)])).encode()
    async with FaultServer(reply(gzip.compress(message), headers={"Content-Encoding": "gzip"})) as server:
        assert len(await ask(model(server), way)) == 100_000
        with pytest.raises(ResponseTooLarge):
            await ask(model(server, max_bytes=10_000), way)


@WAYS
async def test_of_a_refusal_no_more_is_read_than_an_error_shows(way: str) -> None:
    async def endless(writer: asyncio.StreamWriter, request: Any) -> None:
        writer.write(b"HTTP/1.1 400 X\r\nContent-Length: 999999999999\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    bomb = reply(gzip.compress(b"x" * 2**26), 400, {"Content-Encoding": "gzip"})
    async with FaultServer(endless, bomb) as server, asyncio.timeout(20):
        for _ in server.behaviours:
            with pytest.raises(RequestRefused, match=r"answered 400$") as failure:
                await ask(model(server), way)
            assert failure.value.raw == ""


async def test_a_redirect_is_not_followed() -> None:
    async with FaultServer(reply(b"", 302, {"Location": "http://elsewhere/"})) as server:
        with pytest.raises(RequestRefused, match="redirects to http://elsewhere/"):
            await model(server).chat(HI)


# Keys, proxies, limits


async def test_keys_are_used_in_turn_and_skipped_where_no_money_is_left() -> None:
    broke = error(400, "invalid_request_error", "Your credit balance is too low")
    async with ClaudeServer([text("a")], [text("b")], broke, [text("c")], [text("d")]) as server:
        llm = model(server, key=list(KEYS))
        assert [await llm.chat(HI) for _ in range(4)] == ["a", "b", "c", "d"]
    used = [headers.get("Authorization") or headers.get("X-Api-Key") for headers in server.headers]
    assert [next(place for place, key in enumerate(KEYS) if key in one) for one in used] == [0, 1, 0, 1, 1]


async def test_the_key_of_the_environment_is_used_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEYS[1])
    async with ClaudeServer() as server:
        assert await model(server, key="ENV").chat(HI) == "hello"
        with pytest.raises(AuthenticationFailed):
            await model(server, key=None).chat(HI)  # none is sent, though there is one
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(InvalidArgument, match="set the environment variable ANTHROPIC_API_KEY"):
        ClaudeAPI("m").chat(HI)


async def test_keys_are_never_shown() -> None:
    echo = error(401, "authentication_error", f"invalid key {KEYS[0]}")
    async with ClaudeServer(echo) as server:
        llm = model(server)
        with pytest.raises(AuthenticationFailed) as failure:
            await llm.chat(HI)
    shown = f"{failure.value!r} {failure.value} {failure.value.raw} {llm!r} {llm.__dict__}"
    assert "***" in shown
    assert KEYS[0] not in shown
    assert failure.value.__cause__ is None


async def test_a_proxy_is_used() -> None:
    good = json.dumps(whole({"model": "m"}, [text("by proxy")])).encode()
    async with FaultServer(reply(good)) as proxy:
        llm = AsyncClaudeAPI(
            "m", key="k", api_base="http://claude.invalid", proxies={"http": proxy.url.removesuffix("/v1")}
        )
        assert await llm.chat(HI) == "by proxy"
    assert proxy.requests[0].line.startswith("POST http://claude.invalid/v1/messages ")


async def test_headers_and_fields_of_ones_own_are_sent() -> None:
    async with ClaudeServer() as server:
        llm = model(server, headers={"anthropic-beta": "new-2026"}, extra_body={"service_tier": "auto"})
        await llm.chat(HI)
        await drained(llm.stream_chat(HI))
    assert [headers["anthropic-beta"] for headers in server.headers] == ["new-2026"] * 2
    assert [body["service_tier"] for body in server.bodies] == ["auto"] * 2


async def test_budgets_and_limiters_hold() -> None:
    async with ClaudeServer() as server:
        with Budget(requests=1):
            await model(server).chat(HI)
            with pytest.raises(BudgetExceeded):
                await model(server).chat(HI)
        limiter = RateLimiter(concurrent=1)
        llm = model(server, limiter=limiter)
        assert await llm.chat([HI, HI, HI]) == ["hello"] * 3
        await drained(llm.stream_chat(HI))
        assert limiter.running == 0
    with forbid_real_requests(), pytest.raises(RealRequestsForbidden):
        await model(server).chat(HI)


# Colours


@WAYS
async def test_a_cancelled_call_is_given_up_by_the_server(way: str) -> None:
    async with ClaudeServer() as server:
        server.delay = 30.0
        await given_up(ask(model(server), way), server)


async def test_a_stream_that_is_left_closes_its_connection() -> None:
    begun = b"".join(events(whole({"model": "m"}, [text("x" * 1000)]))[:50])
    async with FaultServer(sse([begun, *[b": ping\n\n"] * 500], pause=0.05)) as server:
        stream = model(server).stream_chat(HI)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while server.open:
                await asyncio.sleep(0.01)


async def test_connections_are_kept_alive() -> None:
    good = json.dumps(whole({"model": "m"}, [text("x")])).encode()
    async with FaultServer(reply(good)) as server:
        llm = model(server)
        for _ in range(4):
            await llm.chat(HI)
        assert server.connections == 1
        await llm.aclose()
        await llm.chat(HI)
        assert server.connections == 2


def test_blocking_calls_streams_and_batches() -> None:
    good = sse(b"".join(events(whole({"model": "m"}, [text("streamed")]))))
    once = reply(json.dumps(whole({"model": "m"}, [text("whole")])).encode())

    async def either(writer: Any, request: Any) -> None:
        await (good if request.json.get("stream") else once)(writer, request)

    with FaultServer(either) as server:
        llm = ClaudeAPI("m", key="k", api_base=server.url)
        assert llm.chat(HI) == "whole"
        assert llm.chat([HI, HI]) == ["whole", "whole"]
        assert "".join(chunk for _, chunk, _ in llm.stream_chat(HI)) == "streamed"
        assert llm.usage.requests == 4
        llm.close()


def test_a_program_ends_without_a_word_about_open_connections() -> None:
    once = reply(json.dumps(whole({"model": "m"}, [text("whole")])).encode())
    with FaultServer(once) as server:
        program = (
            "import asyncio; from lagentlike.llms import AsyncClaudeAPI, ClaudeAPI\n"
            f"options = dict(model_type='m', key='k', api_base={server.url!r})\n"
            "print(ClaudeAPI(**options).chat([{'role': 'user', 'content': 'hi'}]))\n"
            "print(asyncio.run(AsyncClaudeAPI(**options).chat([{'role': 'user', 'content': 'hi'}])))\n"
        )
        ran = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert ran.stdout.split() == ["whole", "whole"]
    assert "Warning" not in ran.stderr


def test_a_fork_asks_by_clients_of_its_own_and_ends_at_once() -> None:
    with FaultServer(reply(whole({"model": "m"}, [text("whole")]))) as server:
        program = (
            "import os, sys; from lagentlike.llms import ClaudeAPI\n"
            f"llm = ClaudeAPI('m', key='k', api_base={server.url!r})\n"
            "def ask(): print(llm.chat([{'role': 'user', 'content': 'hi'}]), flush=True)\n"
            "ask()\n"
            "child = os.fork()\n"
            "ask()\n"
            "child and sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["whole"] * 3
    assert ran.stderr == ""


def test_models_can_be_copied_pickled_and_made_from_a_dict() -> None:
    made = create_object({"type": "lagentlike.llms.ClaudeAPI", "model_type": "m", "key": "k", "thinking": 100})
    for twin in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (type(twin), twin.gen_params["thinking"]) == (ClaudeAPI, 100)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("http://h:1/v1/", "http://h:1/v1/messages"),
        ("http://h:1/gate/v1/messages", "http://h:1/gate/v1/messages"),
    ],
)
def test_any_of_a_servers_addresses_will_do(base: str, url: str) -> None:
    assert str(ClaudeAPI("m", key="k", api_base=base).url) == url


def test_it_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(MissingExtra, match=r"lagentlike\[anthropic\]"):
        ClaudeAPI("m", key="k")
