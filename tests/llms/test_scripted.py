"""A scripted model says its lines, remembers what it was asked, and says clearly when it has no line left."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pytest

from lagentlike.budget import Budget
from lagentlike.errors import BudgetExceeded, InvalidArgument, LLMError, RateLimited, ScriptExhausted, StreamTruncated
from lagentlike.llms import AsyncScriptedLLM, forbid_real_requests, ScriptedLLM
from lagentlike.schema import Completion, ModelStatusCode, ToolCall, Usage

HI = [{"role": "user", "content": "hi"}]


def test_gives_its_replies_in_order() -> None:
    llm = ScriptedLLM(["one", "two"])
    assert [llm.chat(HI), llm.chat(HI)] == ["one", "two"]
    llm.assert_exhausted()


def test_a_reply_carries_what_a_real_answer_carries() -> None:
    answer = ScriptedLLM(["one"]).chat(HI)
    assert isinstance(answer, Completion)
    assert (answer.finish_reason, answer.model, answer.usage) == ("stop", "scripted", Usage(requests=1))


def test_tool_calls_get_ids_of_their_own() -> None:
    llm = ScriptedLLM([ToolCall("add", {"a": 1}), [ToolCall("add", {"a": 2}), ToolCall("mul", {}, id="mine")]])
    first, second = llm.chat(HI), llm.chat(HI)
    assert first == ""
    assert first.finish_reason == "tool_calls"
    assert [call.id for call in (first.tool_calls or []) + (second.tool_calls or [])] == ["call_1", "call_2", "mine"]


def test_a_completion_is_given_as_it_is() -> None:
    answer = ScriptedLLM([Completion("a", reasoning="b", finish_reason="length", usage=Usage(1, 7, 3))]).chat(HI)
    assert (answer, answer.reasoning, answer.finish_reason, answer.usage) == ("a", "b", "length", Usage(1, 7, 3))


def test_functions_see_the_conversation_and_the_parameters() -> None:
    llm = ScriptedLLM([lambda messages, params: f"{messages[-1]['content']} at {params['temperature']}"])
    assert llm.chat(HI, temperature=0.5) == "hi at 0.5"


def test_one_function_answers_every_call() -> None:
    llm = ScriptedLLM(lambda messages, params: str(len(messages)))
    assert [llm.chat(HI), llm.chat(HI * 2)] == ["1", "2"]
    llm.assert_exhausted()


def test_an_endless_script_never_runs_out() -> None:
    llm = ScriptedLLM(repeat("again"))
    assert [llm.chat(HI) for _ in range(5)] == ["again"] * 5


@pytest.mark.parametrize("error", [RateLimited("slow down", retry_after=1.0), ValueError, KeyboardInterrupt()])
def test_exceptions_of_the_script_are_raised(error: Any) -> None:
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind):
        ScriptedLLM([error]).chat(HI)


def test_running_out_says_what_was_asked() -> None:
    llm = ScriptedLLM(["only"])
    llm.chat(HI)
    with pytest.raises(ScriptExhausted, match=r"request 2 finds no reply left in the script of 1[\s\S]*user: 'hi'"):
        llm.chat(HI)


def test_replies_left_over_are_shown_and_kept() -> None:
    llm = ScriptedLLM(["one", "two"])
    with pytest.raises(AssertionError, match="after 0 requests these replies were never asked for: 'one', 'two'"):
        llm.assert_exhausted()
    assert [llm.chat(HI), llm.chat(HI)] == ["one", "two"]


def test_what_was_asked_is_kept_as_it_was() -> None:
    llm = ScriptedLLM(["one"])
    messages = [dict(HI[0])]
    llm.chat(messages, tools=[{"type": "function", "function": {"name": "add"}}])
    messages[0]["content"] = "changed"
    assert llm.requests[0].messages == HI
    assert llm.requests[0].tools == ["add"]


def test_assert_asked_finds_texts_and_parameters() -> None:
    llm = ScriptedLLM(["one"], temperature=0.2)
    llm.chat([{"role": "system", "content": "be kind"}, *HI], top_p=0.9)
    assert llm.assert_asked("be kind", "hi", temperature=0.2, top_p=0.9).last == "hi"
    llm.assert_asked("kind", role="system")
    with pytest.raises(AssertionError, match=r"no user message of request -1 holds 'kind'"):
        llm.assert_asked("kind", role="user")
    with pytest.raises(AssertionError, match=r"top_p=0.9 instead of 1"):
        llm.assert_asked(top_p=1)
    with pytest.raises(AssertionError, match=r"there is no request 1: 1 were made"):
        llm.assert_asked("hi", request=1)


@pytest.mark.parametrize(("text", "chunks"), [("", []), ("abc", ["abc"]), ("abcd", ["abcd"]), ("abcde", ["abcd", "e"])])
def test_streams_in_chunks_and_ends_with_the_whole(text: str, chunks: list[str]) -> None:
    parts = list(ScriptedLLM([text], chunk_size=4).stream_chat(HI))
    assert [chunk for status, chunk, _ in parts if status == ModelStatusCode.STREAM_ING] == chunks
    status, chunk, answer = parts[-1]
    assert (status, chunk, answer, answer.finish_reason) == (ModelStatusCode.END, "", text, "stop")


def test_a_broken_stream_gives_its_part_first() -> None:
    llm = ScriptedLLM([StreamTruncated("cut", partial="half an ans")], chunk_size=4)
    seen: list[str] = []
    with pytest.raises(StreamTruncated):
        seen.extend(chunk for _, chunk, _ in llm.stream_chat(HI))
    assert "".join(seen) == "half an ans"


async def test_async_form_is_the_same() -> None:
    async def slow(messages: Any, params: Any) -> str:
        await asyncio.sleep(0.001)
        return "slow"

    llm = AsyncScriptedLLM(["one", slow, ToolCall("add", {}), ValueError("no")], chunk_size=2, latency=0.001)
    assert await llm.chat(HI) == "one"
    assert [chunk async for _, chunk, _ in llm.stream_chat(HI)] == ["sl", "ow", ""]
    assert (await llm.chat(HI)).tool_calls == [ToolCall("add", {}, id="call_1")]
    with pytest.raises(ValueError, match="no"):
        await llm.chat(HI)
    with pytest.raises(ScriptExhausted):
        await llm.chat(HI)


async def test_a_batch_takes_replies_in_order() -> None:
    assert await AsyncScriptedLLM(["a", "b", "c"]).chat([HI, HI, HI]) == ["a", "b", "c"]
    assert ScriptedLLM(["a", "b", "c"]).chat([HI, HI, HI]) == ["a", "b", "c"]


def test_threads_share_a_script() -> None:
    llm = ScriptedLLM(str(number) for number in range(200))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: llm.chat(HI), range(200)))
    assert sorted(map(int, answers)) == list(range(200))


def test_is_not_a_real_request_but_counts_in_a_budget() -> None:
    llm = ScriptedLLM(repeat(Completion("a", usage=Usage(1, 10, 5))))
    with forbid_real_requests(), Budget(requests=2) as budget:
        llm.chat(HI)
        llm.chat(HI)
        with pytest.raises(BudgetExceeded):
            llm.chat(HI)
    assert (budget.used.total_tokens, llm.usage.requests) == (30, 2)


def test_can_be_copied_midway() -> None:
    llm = ScriptedLLM(["one", "two"])
    llm.chat(HI)
    assert copy.deepcopy(llm).chat(HI) == llm.chat(HI) == "two"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ScriptedLLM(3), "replies=3"),  # type: ignore[arg-type]
        (lambda: ScriptedLLM([], chunk_size=0), "chunk_size=0"),
        (lambda: ScriptedLLM([], latency=-1), "latency=-1"),
        (lambda: ScriptedLLM([3]).chat(HI), "reply=3"),
    ],
)
def test_wrong_arguments_are_named(build: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        build()


def test_errors_of_the_script_are_llm_errors() -> None:
    assert issubclass(ScriptExhausted, LLMError)


def test_a_conversation_is_remembered_once_and_as_it_was_asked() -> None:
    llm = ScriptedLLM(lambda messages, params: "yes")
    asked = [{"role": "user", "content": "first"}]
    llm.chat(asked)
    asked += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "second"}]
    llm.chat(asked)
    asked[0]["content"] = "changed"
    llm.chat(asked[:1])
    assert [request.messages[0]["content"] for request in llm.requests] == ["first", "first", "changed"]
    assert llm.requests[1].messages[0] is llm.requests[0].messages[0]
    assert [len(request.messages) for request in llm.requests] == [1, 3, 1]
