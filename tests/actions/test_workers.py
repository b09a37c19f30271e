"""Threads for blocking tools."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time

import pytest

from lagentlike.actions.workers import run_within, submit, submit_from_loop, when_given_up
from lagentlike.errors import ToolTimeout


def test_results_and_errors_come_back() -> None:
    assert submit(pow, 2, 5).result(10) == 32
    for error in (ValueError("x"), SystemExit(1), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            submit(fail).result(10)


async def test_a_task_gets_results_and_errors() -> None:
    assert await submit_from_loop(pow, 2, 5) == 32
    with pytest.raises(ZeroDivisionError):
        await submit_from_loop(lambda: 1 / 0)


def test_as_many_run_at_once_as_are_given() -> None:
    meeting = threading.Barrier(40, timeout=20)
    futures = [submit(meeting.wait) for _ in range(40)]
    assert sorted(future.result(20) for future in futures) == list(range(40))


async def test_quick_work_does_not_wait_behind_slow_work() -> None:
    release = threading.Event()
    slow = [submit_from_loop(release.wait, 30) for _ in range(20)]
    quick = [submit_from_loop(int, "1") for _ in range(20)]
    assert await asyncio.wait_for(asyncio.gather(*quick), 10) == [1] * 20
    release.set()
    assert await asyncio.gather(*slow) == [True] * 20


def test_nothing_is_lost_when_many_threads_submit() -> None:
    done: list[int] = []

    def many(start: int) -> None:
        for number in range(start, start + 500):
            done.append(submit(abs, number).result(20))  # noqa: PERF401

    threads = [threading.Thread(target=many, args=(start * 500,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(4000))


async def test_a_burst_of_quick_work_needs_few_threads() -> None:
    assert await asyncio.gather(*(submit_from_loop(abs, number) for number in range(5000))) == list(range(5000))
    started = time.monotonic()
    naps = [submit_from_loop(time.sleep, 0.05) for _ in range(50)]
    await asyncio.gather(*naps)
    assert time.monotonic() - started < 2


async def test_cancelled_waiting_is_no_error() -> None:
    release = threading.Event()
    waiting = submit_from_loop(release.wait, 30)
    waiting.cancel()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await submit_from_loop(abs, -1) == 1


def test_a_loop_may_end_before_its_work() -> None:
    release = threading.Event()

    async def leave() -> None:
        submit_from_loop(release.wait, 30)
        await asyncio.sleep(0)

    asyncio.run(leave())
    release.set()
    assert submit(abs, -1).result(10) == 1


def test_context_variables_of_the_caller_are_seen() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    assert submit(variable.get).result(10) == 7


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    submit(abs, -1).result(10)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if submit(abs, -3).result(10) == 3 else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_code_that_takes_too_long_is_stopped() -> None:
    def forever() -> None:
        while True:
            time.sleep(0.001)

    with pytest.raises(ToolTimeout, match="was stopped"):
        run_within(0.1, forever)
    with pytest.raises(ToolTimeout, match="still running"):
        run_within(0.1, time.sleep, 3)
    assert run_within(None, abs, -1) == run_within(10, abs, -1) == 1
    with pytest.raises(ZeroDivisionError):
        run_within(10, lambda: 1 / 0)


def waits(begun: threading.Event, given_up: threading.Event) -> bool:
    with when_given_up(given_up.set):
        begun.set()
        return given_up.wait(20)


def test_what_nobody_waits_for_any_more_is_told() -> None:
    begun, given_up = threading.Event(), threading.Event()
    future = submit(waits, begun, given_up)
    assert begun.wait(20)
    assert future.cancel()
    assert given_up.wait(20)


async def test_what_no_task_waits_for_any_more_is_told() -> None:
    begun, given_up = threading.Event(), threading.Event()
    waiting = submit_from_loop(waits, begun, given_up)
    while not begun.is_set():
        await asyncio.sleep(0.01)
    waiting.cancel()
    while not given_up.is_set():
        await asyncio.sleep(0.01)


def test_what_is_waited_for_is_told_nothing() -> None:
    told: list[bool] = []

    def work() -> int:
        with when_given_up(lambda: told.append(True)):
            return 1

    future = submit(work)
    assert future.result(20) == 1
    assert not future.cancel()
    with when_given_up(lambda: told.append(True)):
        assert work() == 1, "in a thread that nobody can give up"
    assert told == []


async def test_a_stop_iteration_reaches_who_waits_and_delays_nobody() -> None:
    waiting = [submit_from_loop(lambda: next(iter(()))), submit_from_loop(lambda: 5)]
    async with asyncio.timeout(20):
        error, five = await asyncio.gather(*waiting, return_exceptions=True)
    assert five == 5
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, StopIteration)
