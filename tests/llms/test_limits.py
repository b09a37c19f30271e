"""A rate limiter lets through what its limits allow, in order, to threads and tasks alike, and never more."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, UTC
from typing import Any

import pytest

from lagentlike.concurrency import Stop, Stopped
from lagentlike.errors import InvalidArgument, LimiterTimeout, LLMError, QuotaExhausted, RateLimited
from lagentlike.llms import AsyncClaudeAPI, AsyncFallbackLLM, AsyncScriptedLLM, GPTAPI, limits, RateLimiter

from . import claude_server
from .asking import ask, both_ways, HI, model
from .fault_server import answer, close, completion, FaultServer, Received, refuse, reply


class _Patience(selectors.DefaultSelector):
    """Never waits: time goes on by as much instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


@pytest.fixture
def in_fake_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Runs a coroutine on an event loop whose waiting takes no time, and by whose clock limiters go."""
    patience = _Patience()
    loop = asyncio.SelectorEventLoop(patience)
    monkeypatch.setattr(loop, "time", lambda: patience.now)
    monkeypatch.setattr(limits, "_now", lambda: patience.now)
    yield loop.run_until_complete
    loop.close()


def now() -> float:
    return asyncio.get_running_loop().time() - 1000.0


async def times(limiter: RateLimiter, count: int, tokens: int = 0, took: int | None = None) -> list[float]:
    """When each of so many requests, made at once, was let through; each ends at once."""
    passed: list[float] = []

    async def one() -> None:
        async with limiter.hold(tokens) as lease:
            passed.append(now())
            if took is not None:
                lease.settle(took)

    await asyncio.gather(*(one() for _ in range(count)))
    return passed


def test_requests_pass_at_their_rate_to_the_moment(in_fake_time: Any) -> None:
    passed = in_fake_time(times(RateLimiter(requests_per_minute=60), 150))
    assert passed == pytest.approx([0.0] * 60 + [float(second) for second in range(1, 91)], abs=1e-4)


def test_a_burst_of_one_spreads_them_evenly(in_fake_time: Any) -> None:
    passed = in_fake_time(times(RateLimiter(requests_per_minute=120, burst=1), 20))
    assert passed == pytest.approx([half / 2 for half in range(20)], abs=1e-4)


def test_tokens_pass_at_their_rate_and_are_corrected_by_what_was_used(in_fake_time: Any) -> None:
    rate = {"tokens_per_minute": 600}
    assert in_fake_time(times(RateLimiter(**rate), 9, 100)) == pytest.approx([0] * 6 + [10, 20, 30], abs=1e-4)

    async def corrected(took: int) -> float:
        limiter, start = RateLimiter(**rate), now()
        async with limiter.hold(500) as lease:
            lease.settle(took)
        async with limiter.hold(400):
            return now() - start

    assert in_fake_time(corrected(200)) == 0  # what was not used can be used by the next
    assert in_fake_time(corrected(500)) == pytest.approx(30)
    assert in_fake_time(corrected(900)) == pytest.approx(70)  # what was used beyond is made up for


def test_tokens_of_a_request_that_failed_are_given_back(in_fake_time: Any) -> None:
    async def after_a_failure() -> list[float]:
        limiter = RateLimiter(tokens_per_minute=600)
        with pytest.raises(LLMError):
            async with limiter.hold(600):
                raise LLMError("refused")
        return await times(limiter, 1, 600)

    assert in_fake_time(after_a_failure()) == [0]


def test_a_request_that_is_larger_than_a_minute_s_worth_waits_for_all_of_it(in_fake_time: Any) -> None:
    assert in_fake_time(times(RateLimiter(tokens_per_minute=60, timeout=None), 2, 1000)) == pytest.approx(
        [0, 1000], abs=1e-3
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_stretch_of_time_has_more_than_its_share(in_fake_time: Any, seed: int) -> None:
    draw = random.Random(seed)
    limiter = RateLimiter(requests_per_minute=90, burst=draw.choice([1, 5, 90]), concurrent=draw.choice([None, 3]))
    burst = limiter._limits["burst"] or 0
    passed: list[float] = []

    async def one() -> None:
        await asyncio.sleep(draw.uniform(0, 120))
        task = asyncio.ensure_future(held())
        if draw.random() < 0.3:
            await asyncio.sleep(draw.uniform(0, 5))
            task.cancel()
        await asyncio.wait([task])

    async def held() -> None:
        async with limiter.hold():
            passed.append(now())
            await asyncio.sleep(draw.uniform(0, 2))

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(300)))

    in_fake_time(all_of_them())
    assert len(passed) > 100
    assert (limiter.running, limiter.waiting) == (0, 0)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - start) * 1.5 + 1e-3


def test_only_so_many_run_at_once_and_who_came_first_goes_first(in_fake_time: Any) -> None:
    limiter = RateLimiter(concurrent=3)
    begun: list[int] = []
    peak = 0

    async def one(number: int) -> None:
        nonlocal peak
        async with limiter.hold():
            begun.append(number)
            peak = max(peak, limiter.running)
            await asyncio.sleep(1 + number % 3)

    async def many() -> None:
        await asyncio.gather(*map(one, range(30)))

    in_fake_time(many())
    assert begun == list(range(30))
    assert peak == 3


def test_nobody_overtakes_one_that_needs_much(in_fake_time: Any) -> None:
    async def one(name: str, tokens: int, order: list[str], limiter: RateLimiter) -> None:
        async with limiter.hold(tokens):
            order.append(name)

    async def all_of_them() -> list[str]:
        limiter, order = RateLimiter(tokens_per_minute=600), list[str]()
        calls = [("first", 600), ("large", 500), ("small", 1), ("small too", 1)]
        await asyncio.gather(*(one(name, tokens, order, limiter) for name, tokens in calls))
        return order

    assert in_fake_time(all_of_them()) == ["first", "large", "small", "small too"]


def test_one_that_is_cancelled_leaves_the_line_and_nobody_behind_it_waits_longer(in_fake_time: Any) -> None:
    async def some_give_up() -> list[float]:
        limiter = RateLimiter(requests_per_minute=60, burst=1)
        tasks = [asyncio.ensure_future(times(limiter, 1)) for _ in range(5)]
        await asyncio.sleep(0.5)
        for given_up in (1, 3):  # the first in line, and one in its middle
            tasks[given_up].cancel()
        await asyncio.wait(tasks)
        assert limiter.waiting == 0
        return [task.result()[0] for task in tasks if not task.cancelled()]

    assert in_fake_time(some_give_up()) == pytest.approx([0, 1, 2], abs=1e-4)


def test_one_that_is_made_again_goes_first(in_fake_time: Any) -> None:
    async def again() -> list[str]:
        limiter, order = RateLimiter(concurrent=1), list[str]()

        async def one(name: str, first: bool) -> None:
            lease = await limiter.acquire(first=first)
            order.append(name)
            await asyncio.sleep(1)
            lease.release()

        names = [("a", False), ("b", False), ("c", False), ("again", True)]
        await asyncio.gather(*(one(*name) for name in names))
        return order

    assert in_fake_time(again()) == ["a", "again", "b", "c"]


def test_a_pause_is_everybody_s_and_ends_where_it_should(in_fake_time: Any) -> None:
    async def paused() -> list[float]:
        limiter = RateLimiter()
        limiter.pause(5)
        limiter.pause(2)  # the longer one stays
        waiting = [asyncio.ensure_future(times(limiter, 1)) for _ in range(3)]
        await asyncio.sleep(1)
        limiter.pause(9)  # they wait already
        passed = [await task for task in waiting]
        limiter.pause(100)
        limiter.pause(1)
        late = asyncio.ensure_future(times(limiter, 1))
        await asyncio.sleep(3)
        limiter.resume()
        return [*[one[0] for one in passed], *await late]

    assert in_fake_time(paused()) == pytest.approx([10, 10, 10, 13], abs=1e-4)


def test_who_would_wait_too_long_is_told_at_once(in_fake_time: Any) -> None:
    async def too_long() -> None:
        limiter = RateLimiter(requests_per_minute=60, burst=1, timeout=2.5, name="acme")
        results = await asyncio.gather(*(times(limiter, 1) for _ in range(6)), return_exceptions=True)
        errors = [error for error in results if isinstance(error, BaseException)]
        assert [isinstance(error, LimiterTimeout) for error in errors] == [True] * 3
        assert now() <= 2.5 + 1e-6
        limiter.pause(60)
        with pytest.raises(LimiterTimeout, match=r"RateLimiter\('acme'.*timeout of 2.5 s: the next is in 60.0 s") as it:
            await limiter.acquire()
        assert it.value.retry_after == 60
        assert isinstance(it.value, RateLimited)
        assert isinstance(it.value, TimeoutError)
        limiter.resume()
        assert limiter.waiting == 0

    in_fake_time(too_long())


def test_who_waits_for_others_to_end_waits_no_longer_than_its_timeout(in_fake_time: Any) -> None:
    async def nothing_ends() -> float:
        limiter = RateLimiter(concurrent=1, timeout=3)
        async with limiter.hold():
            with pytest.raises(LimiterTimeout, match="1 calls wait"):
                await limiter.acquire()
        return now()

    assert in_fake_time(nothing_ends()) == pytest.approx(3)


def test_threads_and_tasks_of_several_loops_stand_in_one_line(no_leaks: None) -> None:
    limiter = RateLimiter(concurrent=1, requests_per_minute=60_000, burst=1, timeout=60)
    inside = 0
    count = 0

    def enter() -> None:
        nonlocal inside, count
        inside += 1
        count += 1
        assert inside == 1

    def leave() -> None:
        nonlocal inside
        inside -= 1

    def in_a_thread() -> None:
        for _ in range(20):
            with limiter.hold():
                enter()
                time.sleep(0.0005)
                leave()

    async def in_a_task() -> None:
        for _ in range(10):
            async with limiter.hold():
                enter()
                await asyncio.sleep(0.0005)
                leave()

    async def in_a_loop() -> None:
        await asyncio.gather(in_a_task(), in_a_task())

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(in_a_thread) for _ in range(4)] + [pool.submit(asyncio.run, in_a_loop()) for _ in range(2)]
        for one in work:
            one.result(timeout=60)
    assert (count, limiter.running, limiter.waiting) == (120, 0, 0)


def test_real_time_passes_and_no_thread_is_made_for_who_waits() -> None:
    limiter = RateLimiter(requests_per_minute=1200, burst=1)
    threads = threading.active_count()
    spent = time.process_time()

    async def many() -> int:
        tasks = [asyncio.ensure_future(times(limiter, 1)) for _ in range(11)]
        await asyncio.sleep(0.1)
        extra = threading.active_count() - threads
        await asyncio.gather(*tasks)
        return extra

    began = time.monotonic()
    assert asyncio.run(many()) == 0
    assert time.monotonic() - began >= 0.5 - 1e-3
    assert time.process_time() - spent < 0.4  # they sleep


def test_a_blocked_thread_is_woken_by_a_stop() -> None:
    limiter, stop = RateLimiter(concurrent=1), Stop()
    with limiter.hold():
        threading.Timer(0.05, stop.set, ["enough"]).start()
        with pytest.raises(Stopped, match="enough"), stop.here(), limiter.hold():
            raise AssertionError("there is no room")
    assert (limiter.running, limiter.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1s", 1),
        ("12", 12),
        ("0.5", 0.5),
        ("", 0),
        ("soon", 0),
        ("1s!", 0),
        ("2001-01-01T00:00:00Z", 0),
    ],
)
def test_all_ways_to_say_how_long_are_read(text: str, seconds: float) -> None:
    assert limits._seconds(text) == seconds


@pytest.mark.parametrize(
    "written",
    [
        lambda moment: str(moment.timestamp()),
        lambda moment: str(int(moment.timestamp() * 1000)),
        datetime.isoformat,
        lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    ],
    ids=["seconds", "milliseconds", "offset", "zulu"],
)
def test_all_ways_to_name_a_moment_are_read(written: Callable[[datetime], str]) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=900)
    assert limits._seconds(written(moment)) == pytest.approx(900, abs=120)


@pytest.mark.parametrize("form", ["x-ratelimit-{what}-{kind}", "anthropic-ratelimit-{kind}-{what}"])
@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_a_server_that_has_nothing_left_is_left_alone(in_fake_time: Any, form: str, kind: str) -> None:
    def headers(left: str, reset: str) -> dict[str, str]:
        return {form.format(what=what, kind=kind): value for what, value in (("remaining", left), ("reset", reset))}

    async def learnt() -> list[float]:
        unlimited = RateLimiter()
        for seen in (headers("5", "30s"), headers("many", "30s"), headers("0", "eventually"), headers("9" * 5000, "x")):
            unlimited.observe(seen)
        passed = await times(unlimited, 1)
        unlimited.observe(headers("0", "30s"))
        passed += await times(unlimited, 1)
        limited, start = RateLimiter(requests_per_minute=60, tokens_per_minute=60), now()
        limited.observe(headers("9" * 5000, "30s"))
        limited.observe(headers("2", "30s"))  # others have used the rest
        return passed + [moment - start for moment in await times(limited, 4, 1)]

    assert in_fake_time(learnt()) == pytest.approx([0, 30, 0, 0, 1, 2], abs=1e-4)


def test_a_copy_is_the_same_limiter_and_another_process_has_its_own() -> None:
    limiter = RateLimiter(requests_per_minute=5, timeout=3, name="acme")
    assert copy.deepcopy([limiter])[0] is limiter
    there = pickle.loads(pickle.dumps(limiter))
    assert there is not limiter
    assert (repr(there), there.timeout) == ("RateLimiter('acme', requests_per_minute=5)", 3)


@pytest.mark.parametrize("argument", ["requests_per_minute", "tokens_per_minute", "concurrent", "burst"])
@pytest.mark.parametrize("value", [0, -1, True, "5", float("nan"), float("inf")])
def test_wrong_numbers_are_named(argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{argument}=.*above 0"):
        RateLimiter(**{argument: value})


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "5", None, True])
def test_numbers_that_are_none_change_nothing(wrong: Any) -> None:
    limiter = RateLimiter(tokens_per_minute=60, concurrent=1)
    with pytest.raises(InvalidArgument, match="tokens="), limiter.hold(tokens=wrong):
        pass
    with pytest.raises(InvalidArgument, match="seconds="):
        limiter.pause(wrong)
    with limiter.hold(tokens=1) as lease, pytest.raises(InvalidArgument, match="tokens="):
        lease.settle(wrong)
    assert (limiter.running, limiter.waiting) == (0, 0)


async def test_a_hold_is_for_one_block_at_a_time() -> None:
    limiter = RateLimiter(concurrent=2, timeout=0.05)
    hold = limiter.hold()
    with hold:
        with pytest.raises(InvalidArgument, match="for each block"):
            async with hold:
                pass
        assert limiter.running == 1
    async with limiter.hold(), limiter.hold():
        with pytest.raises(LimiterTimeout), hold:
            pass
    async with hold:
        assert limiter.running == 1
    assert limiter.running == 0


def test_wrong_timeouts_are_named() -> None:
    with pytest.raises(InvalidArgument, match="timeout=-1"):
        RateLimiter(timeout=-1)
    with pytest.raises(InvalidArgument, match=r"concurrent=1\.5.*whole"):
        RateLimiter(concurrent=1.5)  # type: ignore[arg-type]


# Models behind a server


class _Counting(FaultServer):
    """Answers slowly, and knows how many requests were under way at once."""

    def __init__(self, seconds: float) -> None:
        self.busy = self.peak = 0

        async def behave(writer: asyncio.StreamWriter, request: Received) -> None:
            self.busy += 1
            self.peak = max(self.peak, self.busy)
            await asyncio.sleep(seconds)
            self.busy -= 1
            await answer()(writer, request)

        super().__init__(behave)


@both_ways
async def test_models_that_share_a_limiter_share_its_room(way: str, no_leaks: None) -> None:
    limiter = RateLimiter(concurrent=2)
    async with _Counting(0.02) as server:
        models = [model(server, limiter=limiter, key=key) for key in ("k-1", "k-2", None)]
        assert await asyncio.gather(*(ask(llm, way) for llm in models * 4)) == ["hello"] * 12
        assert 1 <= server.peak <= 2
        assert (limiter.running, limiter.waiting) == (0, 0)
        await models[0].aclose()


async def test_batches_wait_as_well(no_leaks: None) -> None:
    limiter = RateLimiter(concurrent=2)
    async with _Counting(0.01) as server:
        llm = model(server, limiter=limiter)
        assert await llm.chat([HI] * 7) == ["hello"] * 7
        assert 1 <= server.peak <= 2
        await llm.aclose()


def test_blocking_models_wait_in_threads_and_batches(no_leaks: None) -> None:
    limiter = RateLimiter(concurrent=2)
    with _Counting(0.01) as server:
        llm = GPTAPI("m", key=None, api_base=server.url, limiter=limiter)
        with ThreadPoolExecutor(6) as pool:
            assert [*pool.map(lambda _: llm.chat(HI), range(6))] == ["hello"] * 6
        assert llm.chat([HI] * 5) == ["hello"] * 5
        assert [part[2] for part in llm.stream_chat(HI)][-1] == "hello"
        assert 1 <= server.peak <= 2
        assert limiter.running == 0
        llm.close()


@both_ways
async def test_a_429_lets_everybody_wait(way: str, no_leaks: None) -> None:
    busy = refuse(429, headers={"Retry-After": "1"})
    async with FaultServer(busy, answer()) as server:
        limiter = RateLimiter(concurrent=1)
        llm = model(server, limiter=limiter)
        assert await asyncio.gather(*(ask(llm, way) for _ in range(4))) == ["hello"] * 4
        assert len(server.requests) == 5  # only the first was refused
        assert server.gaps[0] >= 1.0
        await llm.aclose()


async def test_after_a_429_that_asks_for_an_hour_nobody_asks(no_leaks: None) -> None:
    async with FaultServer(refuse(429, headers={"Retry-After": "3000"}), answer()) as server:
        limiter = RateLimiter()
        llm, other = model(server, limiter=limiter), model(server, limiter=limiter)
        with pytest.raises(RateLimited) as first:
            await llm.chat(HI)
        assert first.value.retry_after == 3000
        with pytest.raises(LimiterTimeout) as second:
            await other.chat(HI)
        assert second.value.retry_after == pytest.approx(3000, abs=60)
        assert len(server.requests) == 1
        backup = AsyncScriptedLLM(["from elsewhere"])
        assert await AsyncFallbackLLM([other, backup]).chat(HI) == "from elsewhere"
        await llm.aclose()


async def test_a_used_up_quota_is_no_reason_to_wait(no_leaks: None) -> None:
    used_up = refuse(429, code="insufficient_quota", headers={"Retry-After": "3000"})
    async with FaultServer(used_up, answer()) as server:
        llm = model(server, limiter=RateLimiter(), key=["k-1", "k-2"])
        assert await llm.chat(HI) == "hello"
        with pytest.raises(QuotaExhausted):
            async with FaultServer(used_up) as other:
                await model(other, limiter=RateLimiter()).chat(HI)
        await llm.aclose()


async def test_each_attempt_is_a_request_and_a_failed_one_gives_its_tokens_back(no_leaks: None) -> None:
    async with FaultServer(close, refuse(500), answer()) as server:
        limiter = RateLimiter(requests_per_minute=600, burst=1, tokens_per_minute=1000)
        llm = model(server, limiter=limiter, max_new_tokens=900)
        began = time.monotonic()
        assert await llm.chat(HI) == "hello"
        assert len(server.requests) == 3
        assert time.monotonic() - began >= 0.2 - 1e-3
        assert limiter._tokens.wait(990, time.monotonic()) == 0  # 10 of 1000 were used
        await llm.aclose()


@both_ways
async def test_the_answer_s_usage_corrects_what_was_supposed(way: str, no_leaks: None) -> None:
    async with FaultServer(answer()) as server:
        limiter = RateLimiter(tokens_per_minute=6000)
        llm = model(server, limiter=limiter, max_new_tokens=5000)
        for _ in range(4):
            await ask(llm, way)
        moment = time.monotonic()
        assert limiter._tokens.wait(5960, moment) == 0
        assert limiter._tokens.wait(6000, moment) > 0
        await llm.aclose()


@both_ways
async def test_claude_s_limits_are_kept_and_heeded(way: str, no_leaks: None) -> None:
    busy = claude_server.error(429, "rate_limit_error", retry_after="1")
    async with claude_server.ClaudeServer(busy, [claude_server.text("hello")]) as server:
        limiter = RateLimiter(tokens_per_minute=6000, concurrent=1)
        llm = AsyncClaudeAPI("claude", key=claude_server.KEYS[0], api_base=server.url, limiter=limiter)
        answers = await asyncio.gather(*(ask(llm, way) for _ in range(3)))  # type: ignore[arg-type]
        assert (answers, len(server.bodies)) == (["hello"] * 3, 4)
        used, moment = llm.usage.total_tokens, time.monotonic()
        assert limiter._tokens.wait(6000 - used, moment) == 0
        assert (limiter.running, limiter.waiting) == (0, 0)
        await llm.aclose()


async def test_the_wait_in_line_is_no_part_of_the_call_s_time(no_leaks: None) -> None:
    async with FaultServer(answer()) as server:
        limiter = RateLimiter()
        llm = model(server, limiter=limiter, total=0.5)
        limiter.pause(0.8)
        assert await llm.chat(HI) == "hello"
        await llm.aclose()


async def test_no_request_is_made_without_room(no_leaks: None) -> None:
    async with FaultServer(answer()) as server:
        limiter = RateLimiter(concurrent=1, timeout=0.05)
        llm = model(server, limiter=limiter)
        async with limiter.hold():
            with pytest.raises(LimiterTimeout):
                await llm.chat(HI)
            limiter.timeout = None
            task = asyncio.ensure_future(llm.chat(HI))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (len(server.requests), limiter.waiting, limiter.running) == (0, 0, 0)
        assert await llm.chat(HI) == "hello"
        await llm.aclose()


async def test_a_stream_is_under_way_until_it_is_left(no_leaks: None) -> None:
    async with FaultServer(answer("a long answer")) as server:
        limiter = RateLimiter(concurrent=1)
        llm = model(server, limiter=limiter)
        stream = llm.stream_chat(HI)
        await anext(stream)
        assert limiter.running == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert limiter.running == 0
        assert await llm.chat(HI) == "a long answer"
        await llm.aclose()


async def test_an_answer_that_says_that_nothing_is_left_lets_all_wait(no_leaks: None) -> None:
    nothing = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "700ms"}
    async with FaultServer(reply(completion(), headers=nothing), answer()) as server:
        llm = model(server, limiter=RateLimiter())
        await llm.chat(HI)
        await llm.chat(HI)
        assert server.gaps[0] >= 0.65
        await llm.aclose()


def test_a_picture_in_a_prompt_is_no_text() -> None:
    assert limits.likely_tokens(b"x " * 400) == 200
    assert limits.likely_tokens(b"x " * 400 + b"A" * 100_000) == 1200


def test_a_limiter_must_be_one() -> None:
    with pytest.raises(InvalidArgument, match="limiter=5"):
        GPTAPI("m", key=None, limiter=5)
