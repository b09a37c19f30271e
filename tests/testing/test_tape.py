"""What is recorded is played again, exactly, in any order, and says clearly what it does not have."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lagentlike import tapes
from lagentlike.agents import Agent, AIAgent, AsyncAgent, AsyncReAct, AsyncStreamingAgent, ReAct, StreamingAgent
from lagentlike.budget import Budget
from lagentlike.errors import (
    BudgetExceeded,
    ContextLengthExceeded,
    InvalidArgument,
    LLMError,
    NotRecorded,
    RateLimited,
    RealRequestsForbidden,
    ScriptExhausted,
    ServerError,
    StateError,
    StreamTruncated,
)
from lagentlike.llms import (
    AsyncClaudeAPI,
    AsyncGPTAPI,
    AsyncScriptedLLM,
    AsyncTinyLM,
    CachedLLM,
    FallbackLLM,
    forbid_real_requests,
    GPTAPI,
    ScriptedLLM,
    TinyLM,
)
from lagentlike.rollouts import rollout
from lagentlike.rollouts.agents import HFAgent
from lagentlike.schema import AgentMessage, Completion, TokenSpan, ToolCall, Usage
from lagentlike.testing import record, replay
from lagentlike.testing.entry import Entry
from lagentlike.tools import tool
from lagentlike.tracing import Tracer
from tests.llms import claude_server as claude
from tests.llms.asking import read_into
from tests.llms.fault_server import answer, completion, events, FaultServer, refuse, reply, stream_of
from tests.llms.lies import mutants

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tapes" / "one.jsonl"


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# All ways to call


def blocking(llm: Any) -> list[Any]:
    return [llm.chat(HI)]


def blocking_stream(llm: Any) -> list[Any]:
    return [(piece, so_far) for _, piece, so_far in llm.stream_chat(HI)]


async def awaited(llm: Any) -> list[Any]:
    return [await llm.chat(HI)]


async def awaited_stream(llm: Any) -> list[Any]:
    return [(piece, so_far) async for _, piece, so_far in llm.stream_chat(HI)]


WAYS = {False: (blocking, blocking_stream), True: (awaited, awaited_stream)}


async def in_all_ways(path: Path, make: Callable[[bool], Any]) -> None:
    """Record and replay in each colour; `make` is told whether the model is async."""
    for is_async, ways in WAYS.items():
        for way in ways:
            with record(path):
                made = way(make(is_async))
                first = await made if is_async else made
            with replay(path) as tape:
                made = way(make(is_async))
                again = await made if is_async else made
            assert told(again) == told(first)
            assert (tape.played, tape.made, tape.unplayed) == (1, 0, [])


def told(found: list[Any]) -> Any:
    """All that is in some answers, or parts of a stream."""
    return [(item, item.extras()) if isinstance(item, Completion) else (*item, item[1].extras()) for item in found]


async def test_the_embedded_model_is_played_again_to_the_last_bit(path: Path) -> None:
    options: Any = {"logprobs": True, "top_logprobs": 2, "max_new_tokens": 8, "temperature": 1.5}
    await in_all_ways(path, lambda is_async: (AsyncTinyLM if is_async else TinyLM)(**options))


async def test_a_scripted_model_is_played_again(path: Path) -> None:
    odd = Completion(
        "half a \ud83d character\n",
        tool_calls=[ToolCall("add", {"a": 2**70}, id="call_1"), ToolCall("broken", "{", id="call_2", error="no JSON")],
        reasoning="because",
        usage=Usage(1, 7, 3),
        tokens=TokenSpan([1], [-0.1], [5], [[(1, -0.1), (2, float("-inf"))]]),
        blocks=[{"type": "thinking"}],
    )
    scripted = {True: AsyncScriptedLLM, False: ScriptedLLM}
    await in_all_ways(path, lambda is_async: scripted[is_async]([odd], chunk_size=3))


async def test_a_model_behind_a_server_is_played_again_without_it(path: Path) -> None:
    made = 0

    def make(is_async: bool) -> Any:
        nonlocal made
        made += 1
        url = server.url if made % 2 else "http://127.0.0.1:1/v1"  # nobody is there
        return (AsyncGPTAPI if is_async else GPTAPI)("m", key="k" if made % 2 else "ENV", api_base=url, retry=0)

    with FaultServer(answer("hello there")) as server:
        await in_all_ways(path, make)
        assert len(server.requests) == 4


def test_a_record_needs_neither_key_nor_permission(path: Path) -> None:
    with FaultServer(answer()) as server, record(path):
        GPTAPI("gpt-4o", key="k", api_base=server.url).chat(HI)
    with forbid_real_requests(), replay(path):
        assert GPTAPI("gpt-4o").chat(HI) == "hello"
    with forbid_real_requests(), record(path), pytest.raises(RealRequestsForbidden):
        GPTAPI("gpt-4o", key="k").chat(HI)


@pytest.mark.parametrize("kind", [Agent, AsyncAgent, StreamingAgent, AsyncStreamingAgent])
async def test_agents_of_every_colour_are_played_again(path: Path, kind: Any) -> None:
    scripted = AsyncScriptedLLM if kind in (AsyncAgent, AsyncStreamingAgent) else ScriptedLLM

    async def talk(replies: list[str]) -> list[str]:
        agent = kind(scripted(replies))
        said = []
        for text in ("Hello", "Goodbye"):
            made = agent(text)
            if kind is AsyncAgent:
                said.append((await made).content)
            elif kind is AsyncStreamingAgent:
                said += [part.content async for part in made]
            else:
                said += [made.content] if kind is Agent else [part.content for part in made]
        return said

    with record(path):
        first = await talk(["Good morning!", "Good night!"])
    with replay(path):
        assert await talk([]) == first


async def test_batches_are_played_again_each_conversation_by_itself(path: Path) -> None:
    batch = [say("a"), say("b"), say("a")]
    options: Any = {"seed": 3, "temperature": 1.2, "max_new_tokens": 6, "logprobs": True}
    plain = TinyLM().chat(batch, **options)
    with record(path):
        assert TinyLM().chat(batch, **options) == plain
    with replay(path) as tape:
        again = TinyLM().chat(batch, **options)
        assert [one.tokens for one in again] == [one.tokens for one in plain]
    with replay(path):
        assert await AsyncTinyLM().chat(batch, **options) == plain
    assert tape.played == 3


def test_the_usage_is_counted_and_budgets_are_charged_as_they_were(path: Path) -> None:
    def ask() -> tuple[Usage, Usage]:
        llm = ScriptedLLM([Completion("a", usage=Usage(1, 10, 5))] * 2)
        with Budget(requests=2) as budget:
            llm.chat(say("1"))
            llm.chat(say("2"))
            with pytest.raises(BudgetExceeded):
                llm.chat(say("3"))
        return llm.usage, budget.used

    with record(path):
        first = ask()
    with replay(path):
        assert ask() == first == (Usage(2, 20, 10), Usage(2, 20, 10))


# Errors and broken streams


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("busy", retry_after=2.5, status=429, raw="slow"),
        ContextLengthExceeded("long", used=9, limit=8, status=400),
        ServerError("down", status=503),
        StreamTruncated("cut", partial="half an"),
        LLMError("some other"),
    ],
)
async def test_errors_are_played_as_the_same_errors(path: Path, error: LLMError) -> None:
    for is_async, ways in WAYS.items():
        for way in ways:
            seen = []
            for mode in (record, replay):
                llm = (AsyncScriptedLLM if is_async else ScriptedLLM)([error] if mode is record else [])
                with mode(path), pytest.raises(type(error)) as failed:
                    await way(llm) if is_async else way(llm)
                seen.append((type(failed.value), str(failed.value), vars(failed.value)))
            assert seen[0] == seen[1]


def test_an_error_of_ones_own_is_played_as_the_nearest_of_ours(path: Path) -> None:
    class Throttled(RateLimited):
        def __init__(self, region: str) -> None:
            super().__init__(f"{region} is busy", retry_after=3.0)
            self.region = region

    for mode, replies in ((record, [Throttled("eu")]), (replay, [])):
        with mode(path), pytest.raises(RateLimited, match="eu is busy") as failed:
            ScriptedLLM(replies).chat(HI)
    assert (type(failed.value), failed.value.retry_after, failed.value.region) == (RateLimited, 3.0, "eu")


async def test_the_parts_before_an_error_come_again(path: Path) -> None:
    for mode in (record, replay):
        seen: list[str] = []
        llm = AsyncScriptedLLM(
            [StreamTruncated("cut", partial="half an answer")] if mode is record else [], chunk_size=5
        )
        with mode(path), pytest.raises(StreamTruncated):
            await read_into(seen, llm)
        assert seen == ["half ", "an an", "swer"]


def test_an_error_of_a_server_is_played_again(path: Path) -> None:
    with FaultServer(refuse(404, "no such model")) as server:
        for mode in (record, replay):
            with mode(path), pytest.raises(LLMError, match="no such model") as failed:
                GPTAPI("m", key=None, api_base=server.url).chat(HI)
            assert failed.value.status == 404
        assert len(server.requests) == 1


async def test_a_stream_that_was_left_is_played_as_far_as_it_was_read(path: Path) -> None:
    async def first_parts(count: int, llm: Any) -> list[str]:
        seen: list[str] = []
        items = llm.stream_chat(HI)
        async for _, piece, _ in items:
            seen.append(piece)
            if len(seen) == count:
                break
        await items.aclose()
        return seen

    with record(path):
        assert await first_parts(2, AsyncScriptedLLM(["a long answer"], chunk_size=2)) == ["a ", "lo"]
    with replay(path):
        assert await first_parts(2, AsyncScriptedLLM([])) == ["a ", "lo"]
    with replay(path), pytest.raises(NotRecorded, match=r"line 1 .* not read to its end"):
        await first_parts(3, AsyncScriptedLLM([]))


def test_each_model_of_a_fallback_is_played_again(path: Path) -> None:
    def models(*replies: Any) -> FallbackLLM:
        first, second = (ScriptedLLM([one] if one else [], path=f"m{n}") for n, one in enumerate(replies))
        return FallbackLLM([first, second])

    with record(path):
        assert models(ServerError("down"), "up").chat(HI) == "up"
    with replay(path) as tape:
        assert models(None, None).chat(HI) == "up"
    assert tape.played == 2


def test_a_cache_is_passed_over(path: Path) -> None:
    llm = CachedLLM(ScriptedLLM(["one", "two"]))
    llm.chat(HI)
    with record(path):
        assert llm.chat(HI) == "two"
    with replay(path):
        assert llm.chat(HI) == "two"
    assert llm.chat(HI) == "one"


# Tools


class Counter:
    """Tools that know how often they ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

        @tool
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            self.ran.append("add")
            return a + b

        @tool
        def fail() -> str:
            """Fail."""
            self.ran.append("fail")
            raise OSError("the disk is full")

        @tool
        async def wait(seconds: float) -> str:
            """Wait."""
            self.ran.append("wait")
            await asyncio.sleep(seconds)
            return f"waited {seconds}"

        self.tools = [add, fail, wait]


CALLS = [
    [ToolCall("add", {"a": 1, "b": 2}), ToolCall("fail", {}), ToolCall("wait", {"seconds": 0.01})],
    ToolCall("add", {"a": 3, "b": 4}),
    "Done.",
]


def run(replies: list[Any]) -> tuple[list[str], list[Any]]:
    counter, llm = Counter(), ScriptedLLM(replies)
    agent = ReAct(llm, actions=counter.tools)
    assert agent("Go").content == "Done."
    results = [result for message in agent.memory.get(0) for result in message.tool_results or ()]
    return sorted(counter.ran), [(result.name, result.success, result.text) for result in results]


async def run_async(replies: list[Any]) -> tuple[list[str], list[Any]]:
    counter, llm = Counter(), AsyncScriptedLLM(replies)
    agent = AsyncReAct(llm, actions=counter.tools)
    assert (await agent("Go")).content == "Done."
    results = [result for message in agent.memory.get(0) for result in message.tool_results or ()]
    return sorted(counter.ran), [(result.name, result.success, result.text) for result in results]


async def test_tools_are_not_run_again(path: Path) -> None:
    with record(path):
        ran, results = run(CALLS)
    assert ran == ["add", "add", "fail", "wait"]
    with replay(path) as tape:
        assert run([]) == ([], results)
    assert (tape.played, tape.unplayed) == (7, [])
    with replay(path):
        assert await run_async([]) == ([], results)
    with record(path):
        await run_async(CALLS)
    with replay(path):
        assert run([]) == ([], results)


async def test_tools_can_be_run_all_or_some(path: Path) -> None:
    with record(path):
        ran, results = run(CALLS)
    with replay(path, tools=False):
        assert run([]) == (ran, results)
    with replay(path, tools=["fail", "wait"]):
        assert run([]) == (["add", "add"], results)
    with replay(path, tools="add"):
        assert await run_async([]) == (["fail", "wait"], results)
    with record(path, tools="wait"):
        run(CALLS)
    assert [line["name"] for line in lines(path) if line["call"] == "tool"] == ["wait"]


async def test_a_tool_call_that_is_not_there_is_an_error_and_no_result(path: Path) -> None:
    with record(path):
        run(CALLS)
    text = path.read_text().replace('"a": 1, "b": 2}, "result"', '"a": 1, "b": 5}, "result"')
    hashes = {line["hash"] for line in lines(path) if line.get("name") == "add" and line["arguments"]["a"] == 1}
    path.write_text(text.replace(hashes.pop(), "0" * 16))
    expected = r"the tool add: the nearest one \(line \d\) differs in the arguments of 'add':[\s\S]*-.*5[\s\S]*\+.*2"
    with replay(path), pytest.raises(NotRecorded, match=expected):
        run([])
    with replay(path), pytest.raises(NotRecorded, match=expected):
        await run_async([])


# What is not there


def recorded(path: Path) -> None:
    llm = ScriptedLLM(["four", "six"], temperature=0.5)
    with record(path):
        llm.chat([{"role": "system", "content": "Be brief.\nBe kind."}, *say("What is 2 + 2?")])
        llm.chat([{"role": "system", "content": "Be brief."}, *say("What is 3 + 3?")], top_p=0.9)


@pytest.mark.parametrize(
    ("messages", "params", "expected"),
    [
        (
            [{"role": "system", "content": "Be brief.\nBe rude."}, *say("What is 2 + 2?")],
            {},
            r"line 1\) differs in messages\[0\] \(system\):[\s\S]*-Be kind.*\n\+Be rude",
        ),
        (
            [{"role": "system", "content": "Be brief."}, *say("What is 3 + 4?")],
            {"top_p": 0.9},
            r"line 2\) differs in messages\[1\] \(user\):[\s\S]*-.*3 \+ 3[\s\S]*\+.*3 \+ 4",
        ),
        (
            [{"role": "system", "content": "Be brief."}, *say("What is 3 + 3?")],
            {"top_p": 0.8, "seed": 4},
            r'line 2\) differs in the parameters seed, top_p:[\s\S]*-.*"seed": null[\s\S]*\+.*"top_p": 0.8',
        ),
        (
            [{"role": "system", "content": "Be brief."}, *say("What is 3 + 3?"), *say("And 4?")],
            {"top_p": 0.9},
            r"line 2\) differs in messages\[2\]: there are 3, which is more than the 2 recorded\n[\s\S]*\+.*And 4\?",
        ),
        ([{"role": "system", "content": "Be brief."}], {"top_p": 0.9}, r"there are 1, which is fewer than the 2"),
    ],
)
def test_the_error_shows_what_differs(path: Path, messages: Any, params: Any, expected: str) -> None:
    recorded(path)
    with replay(path), pytest.raises(NotRecorded, match=expected) as missing:
        ScriptedLLM([], temperature=0.5).chat(messages, **params)
    assert f"record({str(path)!r})" in str(missing.value)


def test_the_error_shows_another_model_and_a_call_too_many(path: Path) -> None:
    recorded(path)
    messages = [{"role": "system", "content": "Be brief."}, *say("What is 3 + 3?")]
    with replay(path) as tape:
        with pytest.raises(NotRecorded, match="differs in the model: 'scripted' was recorded, 'other' is asked"):
            ScriptedLLM([], temperature=0.5, path="other").chat(messages, top_p=0.9)
        llm = ScriptedLLM([], temperature=0.5)
        assert llm.chat(messages, top_p=0.9) == "six"
        with pytest.raises(NotRecorded, match=r"it is there 1 times \(line 2\), and was asked for once more"):
            llm.chat(messages, top_p=0.9)
        with pytest.raises(AssertionError, match=r"not asked for:\nline 1: model scripted: 'What is 2 \+ 2\?'"):
            tape.assert_exhausted()


def test_the_error_of_an_empty_tape_says_so(path: Path) -> None:
    with record(path):
        pass
    with replay(path), pytest.raises(NotRecorded, match="there is no model request in it"):
        ScriptedLLM([]).chat(HI)


def test_other_tools_are_another_request_and_do_not_fill_the_file(path: Path) -> None:
    counter = Counter()
    with record(path):
        ReAct(ScriptedLLM(["Done."]), actions=counter.tools)("Go")
    (line,) = lines(path)
    assert line["params"]["tools"]["names"] == ["add", "fail", "wait"]
    assert "Add two numbers" not in path.read_text()
    with replay(path), pytest.raises(NotRecorded, match="differs in the parameters tools"):
        ReAct(ScriptedLLM([]), actions=counter.tools[:2])("Go")


def test_what_is_missing_can_be_asked_for(path: Path) -> None:
    recorded(path)
    before = path.read_bytes()
    with replay(path, on_missing="call") as tape:
        assert ScriptedLLM(["live"]).chat(HI) == "live"
        assert (tape.made, tape.played) == (1, 0)
    assert path.read_bytes() == before


def test_what_is_missing_can_be_added(path: Path) -> None:
    for replies in (["one"], ["two"], []):
        with replay(path, on_missing="record"):
            llm = ScriptedLLM(replies)
            said = [llm.chat(say("a"))] + ([llm.chat(say("b"))] if replies != ["one"] else [])
    assert said == ["one", "two"]
    assert [line["answer"]["text"] for line in lines(path)] == ["one", "two"]
    with replay(path):
        assert [ScriptedLLM([]).chat(say(text)) for text in "ba"] == ["two", "one"]


# Many at once


def talk_of(name: str) -> Callable[..., str]:
    def says(messages: Any, params: Any) -> str:
        return f"{messages[-1]['content']} {len(messages)} {name}"

    return says


async def sessions(llm: Any, order: list[int]) -> dict[int, list[str]]:
    agent = AsyncAgent(llm)
    said: dict[int, list[str]] = {}

    async def one(number: int) -> None:
        said[number] = [(await agent(f"{text} {number}", session_id=number)).content for text in ("Hello", "Bye")]

    await asyncio.gather(*map(one, order))
    return said


async def test_sessions_are_played_in_any_order_and_give_the_same_file(path: Path, tmp_path: Path) -> None:
    async def slowly(messages: Any, params: Any) -> str:
        await asyncio.sleep(random.uniform(0, 0.01))
        return talk_of("x")(messages, params)

    numbers = list(range(25))
    with record(path):
        first = await sessions(AsyncScriptedLLM(slowly), numbers)
    random.shuffle(numbers)
    with replay(path) as tape:
        assert await sessions(AsyncScriptedLLM([]), numbers) == first
    tape.assert_exhausted()
    with record(tmp_path / "again.jsonl"):
        await sessions(AsyncScriptedLLM(slowly), numbers)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    order = [line["messages"][0]["content"] for line in lines(path)]
    assert order == sorted(order)  # a conversation's lines stand together


def test_threads_are_recorded_and_played(path: Path) -> None:
    def ask(llm: Any) -> list[str]:
        with ThreadPoolExecutor(8) as pool:  # it has no context of ours
            return list(pool.map(lambda number: llm.chat(say(f"{number}")), range(40)))

    with record(path):
        first = ask(ScriptedLLM(talk_of("x"), latency=0.001))
    with replay(path):
        assert ask(ScriptedLLM([])) == first
    assert len(lines(path)) == 40


def test_equal_calls_get_their_answers_in_their_order(path: Path) -> None:
    with record(path):
        llm = ScriptedLLM(["first", "second", "third"])
        first = [llm.chat(HI) for _ in range(3)]
    with replay(path):
        assert [ScriptedLLM([]).chat(HI) for _ in range(3)] == first
    with record(path), ThreadPoolExecutor(1) as pool:  # in a file that is put in order too
        slow = ScriptedLLM(["slow"], latency=0.3)
        beside = pool.submit(slow.chat, say("other"))
        time.sleep(0.05)
        llm = ScriptedLLM(["z", "m", "a"])
        first = [llm.chat(HI) for _ in range(3)]
        beside.result()
    with replay(path):
        assert [ScriptedLLM([]).chat(HI) for _ in range(3)] == first == ["z", "m", "a"]


def test_ids_that_servers_draw_do_not_change_the_file(path: Path, tmp_path: Path) -> None:
    def calls(id_: str) -> Any:
        function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
        return reply(completion(None, message={"tool_calls": [{"id": id_, "type": "function", "function": function}]}))

    def ask(url: str) -> None:
        assert ReAct(GPTAPI("m", key=None, api_base=url), actions=Counter().tools)("Go").content == "Three."

    for name, id_ in (("a", "call_x1"), ("b", "call_y2")):
        with FaultServer(calls(id_), answer("Three.")) as server, record(tmp_path / name):
            ask(server.url)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with replay(tmp_path / "a"):
        ask("http://127.0.0.1:1/v1")


async def test_an_agent_that_reads_calls_from_text_is_played_again(path: Path) -> None:
    written = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'

    def ask(replies: list[str]) -> Any:
        counter = Counter()
        agent = AIAgent(ScriptedLLM(replies), tools=counter.tools, tool_format="hermes")
        return agent.chat("Go"), counter.ran

    with record(path):
        assert ask([written, "Three."]) == ("Three.", ["add"])
    with replay(path):
        assert ask([]) == ("Three.", [])


def test_tracers_are_told_of_calls_that_are_played(path: Path) -> None:
    class Names(Tracer):
        def __init__(self) -> None:
            self.ended: list[tuple[str, str, Any]] = []

        def end(self, span: Any) -> None:
            self.ended.append((span.kind, span.name, span.attributes.get("state", span.attributes.get("tokens_out"))))

    told = []
    for mode, replies in ((record, CALLS), (replay, [])):
        with mode(path), Names() as names:
            run(replies)
        told.append(sorted(names.ended, key=str))
    assert told[0] == told[1]
    assert [kind for kind, *_ in told[0]].count("tool") == 4


# Its file


def test_it_is_readable_and_the_same_each_time(path: Path, tmp_path: Path) -> None:
    for place in (path, tmp_path / "again.jsonl"):
        with record(place):
            agent = Agent(ScriptedLLM(["Grüß Gott!", "Tschüß!"]))
            agent("Hello")
            agent("Bye")
    assert path.read_bytes() == (tmp_path / "again.jsonl").read_bytes()
    assert "Grüß Gott!" in path.read_text()
    first, second = lines(path)
    assert list(first) == ["call", "hash", "model", "messages", "params", "answer"]
    assert first["messages"] == [{"role": "user", "content": "Hello"}]
    assert second["messages"][-1]["content"] == "Bye"


def test_secrets_are_not_written_and_calls_are_found_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "abracadabra-1234")
    secret = "sk-proj-Abcdefgh0123456789"
    words = f"my token is abracadabra-1234, the key {secret}, the word xyzzy"

    def ask(url: str, key: str) -> Any:
        return GPTAPI("m", key=key, api_base=url).chat(say(words + f" and key-{key}"))

    with FaultServer(answer(f"you said {secret} and key-plain-and-long")) as server:
        with record(path, secrets=["xyzzy"]):
            assert ask(server.url, "plain-and-long").startswith("you said sk-proj")
        assert server.requests[0].json["messages"][0]["content"].startswith(words)
        with replay(path, secrets=["xyzzy"]):
            assert ask(server.url, "plain-and-long") == "you said *** and key-***"
        assert len(server.requests) == 1
    text = path.read_text()
    for word in ("abracadabra", secret, "xyzzy", "plain-and-long"):
        assert word not in text


def test_a_secret_that_is_cut_by_the_parts_of_a_stream_is_not_written(path: Path) -> None:
    secret = "sk-proj-Abcdefgh0123456789"
    with record(path):
        parts = list(ScriptedLLM([f"it is {secret}"], chunk_size=5).stream_chat(HI))
    assert "".join(piece for _, piece, _ in parts) == f"it is {secret}"
    assert "proj" not in path.read_text()
    assert "6789" not in path.read_text()
    with replay(path):
        assert [piece for _, piece, _ in ScriptedLLM([]).stream_chat(HI)] == ["it is ***", ""]


def test_an_id_that_is_a_word_of_the_answer_changes_nothing_else(path: Path) -> None:
    odd = Completion("7", tool_calls=[ToolCall("pick", {"id": "7", "what": "7"}, id="7")])
    with record(path):
        first = ScriptedLLM([odd]).chat(HI)
    with replay(path):
        again = ScriptedLLM([]).chat(HI)
    assert (again, again.tool_calls) == ("7", [ToolCall("pick", {"id": "7", "what": "7"}, id="call_1")])
    assert first.tool_calls == odd.tool_calls


def test_a_call_that_ends_after_the_tape_does_no_harm(path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with record(path):
            late = pool.submit(ScriptedLLM(["late"], latency=0.2).chat, HI)
            time.sleep(0.05)
        assert late.result() == "late"
    assert lines(path) == []


async def test_rollouts_are_played_again_with_their_tokens(path: Path) -> None:
    async def tokens() -> Any:
        result = await rollout(HFAgent("tiny"), [say("Hello"), say("What is 2 + 2?")], num_chains=2)
        assert all(trajectory.segments for trajectory in result)
        return [(trajectory.messages, trajectory.segments, trajectory.usage) for trajectory in result]

    with record(path):
        first = await tokens()
    with replay(path) as tape:
        assert await tokens() == first
    assert (tape.played, tape.made) == (4, 0)


async def test_signed_thoughts_of_claude_are_played_again(path: Path) -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with claude.ClaudeServer(
        [claude.thought("hm"), claude.use("add", a=1, b=2)], [claude.text("Three.")]
    ) as server:
        with record(path):
            llm = AsyncClaudeAPI("claude", key=claude.KEYS[0], api_base=server.url)
            first = AsyncReAct(llm, actions=[add])
            assert (await first("Go")).content == "Three."
    with replay(path) as tape:
        again = AsyncReAct(AsyncClaudeAPI("claude", key=None), actions=[add])
        assert (await again("Go")).content == "Three."
    assert (tape.played, tape.made) == (3, 0)


def test_code_in_an_answer_stays_code(path: Path) -> None:
    code = 'token = tokenizer.encode(text)\npassword = read("password.txt")\n'
    with record(path):
        ScriptedLLM([code]).chat(HI)
    with replay(path):
        assert ScriptedLLM([]).chat(HI) == code


def test_what_changes_each_time_can_be_left_out(path: Path) -> None:
    def ask(replies: list[str], day: str) -> str:
        return str(ScriptedLLM(replies).chat([{"role": "system", "content": f"Today is {day}."}, *HI]))

    with record(path, ignore=r"\d{4}-\d\d-\d\d"):
        ask(["fine"], "2024-02-29")
    assert "Today is …." in path.read_text()
    with replay(path, ignore=[r"\d{4}-\d\d-\d\d"]):
        assert ask([], "2031-01-01") == "fine"
    with replay(path), pytest.raises(NotRecorded, match="2031"):
        ask([], "2031-01-01")


async def test_times_are_kept_where_they_are_wanted(path: Path) -> None:
    pieces = [stream_of("abc", size=1)[:400], stream_of("abc", size=1)[400:]]
    with FaultServer(events(pieces, pause=0.3)) as server, record(path, timing=True):
        for _ in GPTAPI("m", key=None, api_base=server.url).stream_chat(HI):
            pass
    assert lines(path)[0]["seconds"][-1] >= 0.3
    for timing, least in ((True, 0.25), (False, 0.0)):
        began = time.monotonic()
        with replay(path, timing=timing):
            items = AsyncGPTAPI("m", key=None).stream_chat(HI)
            assert [piece async for _, piece, _ in items] == ["a", "b", "c", ""]
        assert time.monotonic() - began >= least


_RECORDING = """
import sys
from lagentlike.llms import ScriptedLLM
from lagentlike.testing import record
llm = ScriptedLLM(lambda messages, params: messages[-1]["content"] * 200)
with record(sys.argv[1]):
    for number in range(1_000_000):
        llm.chat([{"role": "user", "content": f"text {number} "}])
        print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_whole_lines(path: Path) -> None:
    for after in (2, 31):
        with subprocess.Popen([sys.executable, "-c", _RECORDING, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == after:
                    process.send_signal(signal.SIGKILL)
                    break
        with replay(path):
            llm = ScriptedLLM([])
            for number in range(after + 1):
                assert llm.chat(say(f"text {number} ")) == f"text {number} " * 200


def test_a_torn_last_line_is_left_out_and_gone_on_after(path: Path) -> None:
    recorded(path)
    path.write_bytes(path.read_bytes()[:-30])
    messages = [{"role": "system", "content": "Be brief."}, *say("What is 3 + 3?")]
    with replay(path), pytest.raises(NotRecorded):
        ScriptedLLM([], temperature=0.5).chat(messages, top_p=0.9)
    with replay(path, on_missing="record"):
        assert ScriptedLLM(["six"], temperature=0.5).chat(messages, top_p=0.9) == "six"
    assert [line["answer"]["text"] for line in lines(path)] == ["four", "six"]


@pytest.mark.parametrize(
    "damage", ["{", '{"call": "model"}', "[]", '{"call": "dream"}', '{"call": "tool", "name": "a"}']
)
def test_a_damaged_line_is_named(path: Path, damage: str) -> None:
    recorded(path)
    path.write_text(damage + "\n" + path.read_text())
    with pytest.raises(StateError, match=r"one\.jsonl:1: "), replay(path):
        pass


def test_whatever_is_wrong_in_a_line_is_found_when_the_file_is_read(path: Path) -> None:
    request = {"call": "model", "hash": "h", "model": "m", "messages": [], "params": {}}
    text = {"text": "hello", "tokens": {"ids": [1, 2], "logprobs": [-0.1, -0.2]}, "reasoning": "r"}
    answered = {**request, "answer": text, "parts": ["he", ["l", 1, 1], "lo"], "seconds": [0.1, 0.2, 0.3]}
    failed = {**request, "error": {"type": "RateLimited", "message": "m", "retry_after": 1.5}}
    used = {"call": "tool", "hash": "h", "name": "f", "arguments": {}, "result": {"state": "API_ERROR", "errmsg": "e"}}
    damaged = 0
    for line in (one for entry in (answered, failed, used) for one in mutants(entry)):
        try:
            entry = Entry.read(json.dumps(line).encode())
        except ValueError:
            damaged += 1
            continue
        if entry.call == "tool":
            entry.returned({})
        else:
            with suppress(LLMError):
                list(entry.played())
    assert damaged > 200


def test_a_tape_runs_once_at_a_time_and_begins_anew(path: Path) -> None:
    recorded(path)
    tape = replay(path)
    with tape, pytest.raises(InvalidArgument, match="make one for each block"), tape:
        pass
    assert tapes.current is None
    with tape:
        assert len(tape.unplayed) == len(lines(path))


def test_the_innermost_tape_holds(path: Path, tmp_path: Path) -> None:
    llm = ScriptedLLM(["one", "two", "three"])
    with record(path):
        llm.chat(say("a"))
        with record(tmp_path / "inner.jsonl"):
            llm.chat(say("b"))
        llm.chat(say("c"))
    assert [line["answer"]["text"] for line in lines(path)] == ["one", "three"]
    assert [line["answer"]["text"] for line in lines(tmp_path / "inner.jsonl")] == ["two"]
    assert ScriptedLLM(["live"]).chat(say("a")) == "live"


def test_what_was_recorded_before_an_error_is_kept(path: Path) -> None:
    with pytest.raises(ScriptExhausted), record(path):
        ScriptedLLM(["one"]).chat(HI) + ScriptedLLM([]).chat(say("more"))
    with replay(path):
        assert ScriptedLLM([]).chat(HI) == "one"


@pytest.mark.parametrize(
    ("enter", "message"),
    [
        (lambda path: replay(path), "path=.*no such file"),
        (lambda path: replay(path, on_missing="skip"), "on_missing='skip'"),
        (lambda path: record(path, ignore="("), r"ignore='\('"),
    ],
)
def test_wrong_arguments_are_named(path: Path, enter: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message), enter(path):
        pass


def test_a_message_that_is_no_text_is_played_again(path: Path) -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    for mode, replies in ((record, ["a cat"]), (replay, [])):
        with mode(path):
            agent = Agent(ScriptedLLM(replies))
            assert agent(AgentMessage(content=parts)).content == "a cat"
