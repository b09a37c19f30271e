"""A model with a cache asks once for what is the same, and gives back exactly what it was answered."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent, AsyncAgent
from lagentlike.budget import Budget
from lagentlike.errors import BudgetExceeded, InvalidArgument, RateLimited, ServerError, StateError
from lagentlike.llms import (
    AsyncCachedLLM,
    AsyncScriptedLLM,
    AsyncTinyLM,
    CachedLLM,
    caches,
    FallbackLLM,
    forbid_real_requests,
    GPTAPI,
    MemoryCache,
    ScriptedLLM,
    SQLiteCache,
    TinyLM,
)
from lagentlike.rollouts import rollout
from lagentlike.rollouts.agents import HFAgent
from lagentlike.schema import Completion, TokenSpan, ToolCall, Usage

from .asking import HI
from .fault_server import answer, chunk, events, FaultServer


def counting(*, latency: float = 0.0, **params: Any) -> ScriptedLLM:
    """A model that numbers its answers."""
    numbers = itertools.count(1)
    return ScriptedLLM(
        lambda messages, params: Completion(f"answer {next(numbers)}", usage=Usage(1, 10, 5)), latency=latency, **params
    )


def counting_async(**params: Any) -> AsyncScriptedLLM:
    numbers = itertools.count(1)
    return AsyncScriptedLLM(
        lambda messages, params: Completion(f"answer {next(numbers)}", usage=Usage(1, 10, 5)), **params
    )


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def streamed(llm: Any, messages: Any = HI, **params: Any) -> list[Any]:
    return [
        (int(status), piece, so_far, so_far.extras()) for status, piece, so_far in llm.stream_chat(messages, **params)
    ]


# What is the same request


def test_the_same_request_is_made_once() -> None:
    llm = CachedLLM(counting())
    assert [llm.chat(HI), llm.chat(HI), llm.chat(say("other")), llm.chat(HI)] == ["answer 1"] * 2 + [
        "answer 2",
        "answer 1",
    ]
    assert (llm.hits, llm.misses, llm.saved) == (2, 2, Usage(2, 20, 10))


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"max_new_tokens": 7}, {"stop_words": ["."]}, {"tools": [{"type": "function"}]}, {"seed": 1}],
)
def test_other_parameters_are_another_request(change: dict[str, Any]) -> None:
    llm = CachedLLM(counting())
    llm.chat(HI)
    assert llm.chat(HI, **change) == "answer 2"
    assert llm.chat(HI, **change) == "answer 2"


def test_parameters_of_the_model_and_of_the_call_are_the_same() -> None:
    cache = MemoryCache()
    llm = CachedLLM(counting(temperature=0, top_p=None), cache)
    llm.chat(HI)
    assert CachedLLM(counting(), cache).chat(HI, temperature=0) == "answer 1"
    llm.update_gen_params(max_new_tokens=9)
    assert llm.chat(HI) == "answer 2"


def test_another_model_server_or_version_is_another_request() -> None:
    cache = MemoryCache()
    with FaultServer(answer("a")) as one, FaultServer(answer("b")) as two:
        asked = [
            CachedLLM(GPTAPI(name, key=None, api_base=url, temperature=0), cache, version=version)
            for name, url, version in (("m", one.url, ""), ("m", two.url, ""), ("n", one.url, ""), ("m", one.url, "2"))
        ]
        assert [llm.chat(HI) for llm in asked * 2] == ["a", "b", "a", "a"] * 2
        assert (len(one.requests), len(two.requests)) == (3, 1)


def test_keys_are_no_part_of_a_request_and_nowhere_in_the_file(tmp_path: Path) -> None:
    cache = SQLiteCache(tmp_path / "answers.db")
    with FaultServer(answer()) as server:
        for key in ("sk-first-0123456789", "sk-second-0123456789"):
            CachedLLM(GPTAPI("m", key=key, api_base=server.url, temperature=0), cache).chat(HI)
        assert len(server.requests) == 1
    cache.close()
    assert not any(b"sk-" in path.read_bytes() for path in tmp_path.iterdir())


def test_ids_of_tool_calls_that_are_drawn_anew_are_the_same_request() -> None:
    def conversation(id_: str) -> list[dict[str, Any]]:
        call = {"id": id_, "type": "function", "function": {"name": "add", "arguments": "{}"}}
        return [*HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": id_, "content": "3"}]

    llm = CachedLLM(counting())
    assert llm.chat(conversation("call_a")) == llm.chat(conversation("call_b")) == "answer 1"


# What is drawn at random


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, False),  # the server's own temperature
        ({"temperature": 0.7}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.7, "seed": 5}, True),
        ({"temperature": 0.7, "top_k": 1}, True),
    ],
)
def test_what_a_server_draws_is_kept_only_if_that_is_reproducible(
    params: Any, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultServer(answer()) as server:
        llm = CachedLLM(GPTAPI("m", key=None, api_base=server.url, **params))
        for _ in range(3):
            llm.chat(HI)
        assert len(server.requests) == (1 if kept else 3)
        assert (llm.hits, llm.misses, llm.passed) == ((2, 1, 0) if kept else (0, 0, 3))
    assert sum("drawn at random" in record.message for record in caplog.records) == (0 if kept else 1)


def test_draws_are_kept_when_that_is_wanted_and_those_of_a_batch_are_several() -> None:
    llm = CachedLLM(counting(temperature=1.0), sampled=True)
    first = llm.chat([HI] * 4)
    assert sorted(first) == [f"answer {number}" for number in (1, 2, 3, 4)]
    assert llm.chat([HI] * 4) == first
    assert llm.chat(HI) == first[0]
    assert len(set(llm.chat([HI] * 6))) == 6


def test_in_a_batch_equal_greedy_requests_are_one_and_seeded_ones_are_several() -> None:
    llm = CachedLLM(counting(latency=0.01))
    assert llm.chat([HI] * 4) == ["answer 1"] * 4
    assert len(set(llm.chat([HI] * 4, seed=7, temperature=1))) == 4
    assert llm.chat([HI, HI], seed=8, temperature=1) == llm.chat([HI] * 4, seed=7, temperature=1)[1:3]


def test_a_batch_of_the_embedded_model_is_the_same_as_without_a_cache() -> None:
    batch = [say("Hello"), say("What is 2 + 2?"), say("Hello")]
    options: Any = {"seed": 3, "temperature": 0.9, "logprobs": True, "max_new_tokens": 12}
    plain = TinyLM().chat(batch, **options)
    llm = CachedLLM(TinyLM())
    for _ in range(2):
        answers = llm.chat(batch, **options)
        assert [one.tokens.ids for one in answers] == [one.tokens.ids for one in plain]
    assert (llm.misses, llm.hits) == (3, 3)


# What comes back


ODD = Completion(
    "text \ud83d \x00 é",
    tool_calls=[ToolCall("add", {"a": 2**70, "b": [1.5, None]}, id="call_9"), ToolCall("broken", "{", error="no JSON")],
    reasoning="because",
    usage=Usage(1, 7, 3, cached_tokens=2),
    model="m-1",
    finish_reason="tool_calls",
    tokens=TokenSpan([1, 2], [-0.1, -1e-17], [5, 6, 7], [[(1, -0.1), (3, float("-inf"))], [(2, -1e-17)]]),
    blocks=[{"type": "thinking", "signature": "x"}],
)


@pytest.mark.parametrize("cache", ["memory", "file"])
def test_an_answer_comes_back_exactly(cache: str, tmp_path: Path) -> None:
    llm = CachedLLM(ScriptedLLM([ODD]), None if cache == "memory" else tmp_path / "answers.db")
    first, again = llm.chat(HI), llm.chat(HI)
    assert str.__str__(again) == str.__str__(first)
    assert again.usage == Usage(0, 7, 3, cached_tokens=2)  # its tokens, and no request
    assert {**again.extras(), "usage": None} == {**first.extras(), "usage": None}
    assert type(again.tokens.top_logprobs[0][0]) is tuple
    llm.cache.close()


def test_a_stream_comes_back_in_its_parts() -> None:
    llm = CachedLLM(ScriptedLLM(["a text of some length"], chunk_size=4))
    first = streamed(llm)
    again = streamed(llm)
    assert [part[:3] for part in again] == [part[:3] for part in first]
    assert len(again) == 7
    assert llm.chat(HI) == "a text of some length"
    assert (llm.hits, llm.misses) == (2, 1)


def test_a_stream_of_the_embedded_model_comes_back_with_the_tokens_of_each_part() -> None:
    llm = CachedLLM(TinyLM(max_new_tokens=12))
    first = streamed(llm, say("Hello"), logprobs=True)
    again = streamed(llm, say("Hello"), logprobs=True)
    for part in (first[-1], again[-1]):
        part[3]["usage"] = None
    assert again == first


def test_a_stream_with_reasoning_comes_back_with_it() -> None:
    thinking = [chunk({"reasoning_content": "I "}), chunk({"reasoning_content": "think"}), chunk({"content": "so"})]
    with FaultServer(events(b"".join([*thinking, chunk(finish="stop"), b"data: [DONE]\n\n"]))) as server:
        llm = CachedLLM(GPTAPI("m", key=None, api_base=server.url, temperature=0))
        first, again = streamed(llm), streamed(llm)
        assert len(server.requests) == 1
    assert [part[3]["reasoning"] for part in again] == ["I ", "I think", "I think", "I think"]
    first[-1][3]["usage"] = again[-1][3]["usage"] = None
    assert again == first


def test_what_was_not_streamed_is_streamed_as_one_part() -> None:
    llm = CachedLLM(ScriptedLLM(["all at once"], chunk_size=2))
    llm.chat(HI)
    assert [part[1] for part in streamed(llm)] == ["all at once", ""]


def test_a_stream_that_is_left_is_not_kept() -> None:
    llm = CachedLLM(ScriptedLLM(["long enough", "the second"], chunk_size=2))
    for _ in zip(llm.stream_chat(HI), range(2), strict=False):
        pass
    assert llm.chat(HI) == "the second"


async def test_the_async_form_is_the_same(no_leaks: None, tmp_path: Path) -> None:
    cache = SQLiteCache(tmp_path / "answers.db")
    llm = AsyncCachedLLM(counting_async(chunk_size=3), cache)
    assert [await llm.chat(HI), await llm.chat(HI)] == ["answer 1"] * 2
    assert await llm.chat([HI, say("b"), say("b")]) == ["answer 1", "answer 2", "answer 2"]
    assert [piece async for _, piece, _ in llm.stream_chat(say("c"))] == ["ans", "wer", " 3", ""]
    assert [piece async for _, piece, _ in llm.stream_chat(say("c"))] == ["ans", "wer", " 3", ""]
    blocking = CachedLLM(counting(), cache)
    assert blocking.chat(say("c")) == "answer 3"
    cache.close()


# Errors and budgets


def test_errors_are_not_kept() -> None:
    llm = CachedLLM(ScriptedLLM([ServerError("down"), "up again"]))
    with pytest.raises(ServerError):
        llm.chat(HI)
    assert llm.chat(HI) == "up again"


def test_a_hit_is_charged_to_no_budget() -> None:
    llm = CachedLLM(counting())
    with Budget(requests=1) as budget:
        assert [llm.chat(HI) for _ in range(3)] == ["answer 1"] * 3
        with pytest.raises(BudgetExceeded):
            llm.chat(say("other"))
    assert (budget.used, llm.usage) == (Usage(1, 10, 5), Usage(1, 10, 5))


def test_a_hit_is_no_real_request() -> None:
    with FaultServer(answer()) as server:
        llm = CachedLLM(GPTAPI("m", key=None, api_base=server.url, temperature=0))
        llm.chat(HI)
    with forbid_real_requests():
        assert llm.chat(HI) == "hello"


def test_it_goes_into_agents_and_over_fallbacks() -> None:
    llm = CachedLLM(FallbackLLM([ScriptedLLM([ServerError("down")]), counting()]))
    assert [Agent(llm)("Hello").content for _ in range(2)] == ["answer 1"] * 2
    assert (repr(llm), llm.hits) == ("CachedLLM('scripted or scripted')", 1)


async def test_sessions_of_an_agent_share_it() -> None:
    agent = AsyncAgent(AsyncCachedLLM(counting_async()))
    replies = await asyncio.gather(*(agent("Hello", session_id=number) for number in range(20)))
    assert {reply.content for reply in replies} == {"answer 1"}


async def test_rollouts_get_the_same_tokens_from_it() -> None:
    llm = AsyncCachedLLM(AsyncTinyLM())
    first, again = [await rollout(HFAgent(llm), [say("Hello")]) for _ in range(2)]
    assert first[0].segments
    assert again[0].segments == first[0].segments
    assert (llm.hits, llm.misses, again[0].usage.requests) == (1, 1, 0)


# Requests at the same time


def test_threads_that_ask_the_same_at_once_make_one_request() -> None:
    llm = CachedLLM(counting(latency=0.1))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: llm.chat(HI), range(8))) == {"answer 1"}
    assert (llm.hits, llm.misses) == (7, 1)


async def test_tasks_that_ask_the_same_at_once_make_one_request() -> None:
    llm = AsyncCachedLLM(counting_async(latency=0.05))
    assert set(await asyncio.gather(*(llm.chat(HI) for _ in range(50)))) == {"answer 1"}
    assert (llm.hits, llm.misses) == (49, 1)


async def test_one_that_is_cancelled_takes_nobody_with_it() -> None:
    gate, numbers = asyncio.Event(), itertools.count(1)

    async def slowly(messages: Any, params: Any) -> str:
        number = next(numbers)
        await gate.wait()
        return f"answer {number}"

    llm = AsyncCachedLLM(AsyncScriptedLLM(slowly))
    tasks = [asyncio.ensure_future(llm.chat(HI)) for _ in range(5)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()  # the one that asks
    tasks[2].cancel()  # one that waits
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results if isinstance(result, str)] == ["answer 2"] * 3
    assert isinstance(results[0], asyncio.CancelledError)
    assert llm.misses == 2


async def test_an_error_is_everybody_s_who_waited_for_it() -> None:
    llm = AsyncCachedLLM(AsyncScriptedLLM([RateLimited("slow down"), "later"], latency=0.05))
    results = await asyncio.gather(*(llm.chat(HI) for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [RateLimited] * 4
    assert await llm.chat(HI) == "later"


async def test_a_budget_that_is_used_up_is_its_owner_s_alone() -> None:
    llm = AsyncCachedLLM(counting_async(latency=0.02))

    async def poor() -> str:
        with Budget(requests=0):
            return str(await llm.chat(HI))

    results = await asyncio.gather(poor(), llm.chat(HI), llm.chat(HI), return_exceptions=True)
    assert isinstance(results[0], BudgetExceeded)
    assert results[1:] == ["answer 1"] * 2


def test_loops_and_threads_wait_for_each_other() -> None:
    cache = MemoryCache()
    blocking, awaited = CachedLLM(counting(latency=0.15), cache), AsyncCachedLLM(counting_async(), cache)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(blocking.chat, HI)
        while not blocking.misses:
            time.sleep(0.005)
        others = [pool.submit(asyncio.run, awaited.chat(HI)) for _ in range(3)]
        assert {one.result(timeout=30) for one in [first, *others]} == {"answer 1"}
    assert awaited.misses == 0


# Where answers are kept


@pytest.fixture(params=["memory", "file"])
def make_cache(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(MemoryCache(**options) if request.param == "memory" else SQLiteCache(tmp_path / "c.db", **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_what_was_not_used_for_longest_goes_first(make_cache: Any) -> None:
    cache = make_cache(max_bytes=1000)
    for number in range(9):
        cache.put(f"k{number}", b"x" * 100)
        time.sleep(0.001)
    assert cache.get("k0") == b"x" * 100
    time.sleep(0.001)
    cache.put("new", b"y" * 250)
    kept = [name for name in [f"k{number}" for number in range(9)] if cache.get(name) is not None]
    assert "k0" in kept
    assert "k1" not in kept
    assert "k8" in kept
    assert cache.get("new") == b"y" * 250
    cache.put("large", b"z" * 2000)
    assert cache.get("large") is None
    cache.put("k8", b"other")
    assert cache.get("k8") == b"other"


def test_answers_have_their_time(make_cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(caches, "_now", lambda: now)
    cache = make_cache(ttl=60)
    cache.put("a", b"1")
    now += 59
    assert cache.get("a") == b"1"
    now += 2
    assert cache.get("a") is None
    cache.put("a", b"2")
    assert cache.get("a") == b"2"


def test_a_file_is_found_again_and_is_its_user_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "below" / "answers.db"
    first = CachedLLM(counting(), path)
    first.chat(HI)
    first.cache.close()
    again = CachedLLM(counting(), path)
    again.chat(HI)
    assert (again.hits, again.misses) == (1, 0)
    assert path.stat().st_mode & 0o077 == 0
    again.cache.close()


@pytest.mark.parametrize("damage", ["flipped", "cut", "no JSON", "no answer", "text"])
def test_a_damaged_entry_is_asked_for_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    llm = CachedLLM(counting(), tmp_path / "answers.db")
    llm.chat(HI)
    cache: Any = llm.cache
    database = sqlite3.connect(cache.path, isolation_level=None)
    ((key, value),) = database.execute("SELECT key, value FROM answers").fetchall()
    if damage == "flipped":
        database.execute("UPDATE answers SET value = ?", (value.replace(b"answer 1", b"answer 5"),))
    elif damage == "cut":
        database.execute("UPDATE answers SET value = ?", (value[:-9],))
    elif damage == "text":
        database.execute("UPDATE answers SET value = 'text'")
    else:
        cache.put(key, b"{" if damage == "no JSON" else b'{"answer": {"text": 5}}')
    database.close()
    assert llm.chat(HI) == "answer 2"
    assert llm.chat(HI) == "answer 2"
    assert sum("damaged" in record.message for record in caplog.records) == 1
    cache.close()


def test_a_file_that_breaks_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    llm = CachedLLM(counting(), tmp_path / "answers.db")
    llm.chat(HI)
    cache: Any = llm.cache
    cache.close()
    assert llm.chat(HI) == "answer 2"
    assert any("cannot be read" in record.message for record in caplog.records)


def test_a_file_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("some words that are no database, and long enough to be sure of that " * 20)
    with pytest.raises(StateError, match=r"words\.txt.*no cache"):
        CachedLLM(counting(), words)
    assert words.read_text().startswith("some words")
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(StateError, match="something else"):
        SQLiteCache(other)


def _ask_all(path: str, start: Any) -> None:
    start.wait()
    llm = CachedLLM(ScriptedLLM(lambda messages, params: messages[-1]["content"].upper()), path)
    for number in range(60):
        assert llm.chat(say(f"text {number}")) == f"TEXT {number}"


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    processes = [context.Process(target=_ask_all, args=(str(path), start)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    cache = SQLiteCache(path)
    assert len(cache) == 60
    cache.close()


_WRITER = """
import sys
from lagentlike.llms import CachedLLM, ScriptedLLM
llm = CachedLLM(ScriptedLLM(lambda messages, params: messages[-1]["content"] * 50), sys.argv[1])
for number in range(1_000_000):
    llm.chat([{"role": "user", "content": f"text {number} "}])
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    for after in (3, 17, 40):
        with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == after:
                    process.send_signal(signal.SIGKILL)
                    break
        llm = CachedLLM(counting(), path)
        for number in range(after + 1):
            assert llm.chat(say(f"text {number} ")) == f"text {number} " * 50
        assert llm.misses == 0
        cache: Any = llm.cache
        ((found,),) = cache._reader().execute("PRAGMA integrity_check").fetchall()
        assert found == "ok"
        ((counted, held),) = (
            cache._reader().execute("SELECT bytes, (SELECT SUM(length(value)) FROM answers) FROM size").fetchall()
        )
        assert counted == held
        cache.close()


def test_a_fork_goes_on_with_a_connection_of_its_own(tmp_path: Path) -> None:
    llm = CachedLLM(counting(), tmp_path / "answers.db")
    llm.chat(HI)
    child = os.fork()
    if not child:
        code = 1
        try:
            llm.chat(say("of the child"))
            code = 0 if (llm.hits, llm.chat(HI), llm.hits) == (0, "answer 1", 1) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    llm.chat(say("of the child"))
    assert llm.hits == 1
    llm.cache.close()


def test_copies_share_a_cache_and_other_processes_the_file(tmp_path: Path) -> None:
    cache = SQLiteCache(tmp_path / "answers.db", max_bytes=5000, ttl=60)
    assert copy.deepcopy([cache])[0] is cache
    there = pickle.loads(pickle.dumps(cache))
    cache.put("a", b"1")
    assert (there.get("a"), there.max_bytes, there.ttl) == (b"1", 5000, 60)
    for one in (cache, there):
        one.close()


def test_threads_may_use_a_file_at_once(tmp_path: Path) -> None:
    llm = CachedLLM(ScriptedLLM(lambda messages, params: messages[-1]["content"]), tmp_path / "answers.db")
    barrier = threading.Barrier(6)

    def work(_: int) -> None:
        barrier.wait()
        for number in range(40):
            assert llm.chat(say(f"text {number}")) == f"text {number}"

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert (llm.misses, llm.hits) == (40, 200)
    llm.cache.close()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CachedLLM("gpt-4o"), "llm='gpt-4o'"),
        (lambda: CachedLLM(AsyncTinyLM()), "llm=AsyncTinyLM"),
        (lambda: AsyncCachedLLM(TinyLM()), "llm=TinyLM"),
        (lambda: CachedLLM(TinyLM(), {}), "cache={}"),  # type: ignore[arg-type]
        (lambda: MemoryCache(max_bytes=0), "max_bytes=0"),
        (lambda: MemoryCache(ttl=0), "ttl=0"),
    ],
)
def test_wrong_arguments_are_named(build: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        build()


def test_what_has_no_json_form_is_asked_for_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    llm = CachedLLM(counting())
    assert [llm.chat(HI, processors=[object()]) for _ in range(2)] == ["answer 1", "answer 2"]
    assert llm.passed == 2
    assert any("processors" in record.message for record in caplog.records)
