"""Where blocking and async code meet: stepping, waiting in line together, one background loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from typing import Any

import pytest

from lagentlike.concurrency import (
    background,
    in_thread,
    iterate_in_background,
    result_of,
    run_in_background,
    step,
    stepped,
    Stop,
    Stopped,
    TurnQueue,
)
from lagentlike.errors import ColourError, SessionBusy


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Stepping


def test_a_coroutine_that_never_waits_runs_without_a_loop() -> None:
    async def inner() -> int:
        return 1

    async def outer() -> int:
        return await inner() + await inner()

    assert step(outer()) == 2


@pytest.mark.parametrize("seconds", [0, 0.001])
@pytest.mark.parametrize("inside", [False, True], ids=["no loop", "in a loop"])
def test_a_coroutine_that_waits_is_refused_and_closed(seconds: float, inside: bool) -> None:
    closed = []

    async def waits() -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            closed.append(True)

    async def run() -> None:
        step(waits(), "the hook")

    with pytest.raises(ColourError, match=r"the hook had to wait .* use the async class"):
        asyncio.run(run()) if inside else step(waits(), "the hook")
    assert closed == [True]


def test_a_coroutine_that_does_without_what_it_waited_for_goes_on() -> None:
    async def waits() -> str:
        try:
            await asyncio.sleep(0)
        except ColourError:
            return "went on"
        return "waited"

    assert step(waits()) == "went on"


def test_other_runtime_errors_are_passed_on() -> None:
    async def fails() -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        step(fails())


def test_async_context_managers_are_entered_and_left_from_blocking_code() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def manager(swallow: bool) -> AsyncIterator[int]:
        try:
            yield 7
        except LookupError as error:
            log.append(f"saw {error}")
            if not swallow:
                raise
        finally:
            log.append("left")

    with stepped(manager(False)) as value:
        assert value == 7
    with pytest.raises(LookupError), stepped(manager(False)):
        raise LookupError("a")
    with stepped(manager(True)):
        raise LookupError("b")
    assert log == ["left", "saw a", "left", "saw b", "left"]


# Waiting in line


def test_threads_and_tasks_wait_in_one_line_first_come_first_served() -> None:
    queue, order = TurnQueue(), []
    queue.acquire()

    def thread(number: int) -> None:
        queue.acquire()
        order.append(number)
        queue.release()

    async def task(number: int) -> None:
        await queue.acquire_async()
        order.append(number)
        await asyncio.sleep(0)
        queue.release()

    workers = []
    for number in range(20):
        target = (
            (lambda number=number: asyncio.run(task(number))) if number % 2 else (lambda number=number: thread(number))
        )
        worker = threading.Thread(target=target)
        worker.start()
        workers.append(worker)
        until(lambda number=number: len(queue._waiters) == number + 1)
    queue.release()
    for worker in workers:
        worker.join(10)
    assert order == list(range(20))
    assert queue.idle


def test_only_one_holds_it_at_a_time_among_threads_and_tasks() -> None:
    queue = TurnQueue()
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)

    def leave() -> None:
        nonlocal inside
        inside -= 1
        queue.release()

    def thread() -> None:
        for _ in range(100):
            queue.acquire()
            enter()
            leave()

    async def tasks() -> None:
        async def task() -> None:
            for _ in range(20):
                await queue.acquire_async()
                enter()
                await asyncio.sleep(0)
                leave()

        await asyncio.gather(*(task() for _ in range(5)))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(job) for job in (thread, lambda: asyncio.run(tasks())) * 4]:
            future.result(30)
    assert most == 1
    assert queue.idle


async def test_cancelling_a_waiting_task_takes_it_out_of_the_line() -> None:
    queue = TurnQueue()
    await queue.acquire_async()

    async def take() -> str:
        await queue.acquire_async()
        queue.release()
        return "had it"

    waiting, next_one = asyncio.create_task(take()), asyncio.create_task(take())
    await asyncio.sleep(0)
    waiting.cancel()
    queue.release()
    assert await asyncio.wait_for(next_one, 10) == "had it"
    assert waiting.cancelled()
    assert queue.idle


async def test_a_turn_handed_to_a_task_that_is_cancelled_meanwhile_is_passed_on() -> None:
    queue = TurnQueue()
    await queue.acquire_async()
    first, second = asyncio.create_task(queue.acquire_async()), asyncio.create_task(queue.acquire_async())
    await asyncio.sleep(0)
    queue.release()  # hands it to the first, which has not woken yet
    first.cancel()
    await asyncio.wait_for(second, 10)
    assert first.cancelled()
    queue.release()
    assert queue.idle


def test_a_waiter_whose_loop_is_gone_is_passed_over() -> None:
    queue = TurnQueue()
    queue.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    queue.release()
    assert queue.idle
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is left pending on purpose


def test_taking_it_again_in_the_same_thread_or_task_is_an_error() -> None:
    queue = TurnQueue()
    queue.acquire()
    with pytest.raises(SessionBusy, match="would wait for itself"):
        queue.acquire()
    queue.release()

    async def nested() -> None:
        await queue.acquire_async()
        with pytest.raises(SessionBusy):
            await queue.acquire_async()
        queue.release()

    asyncio.run(nested())
    assert queue.idle


# The background loop


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


def test_coroutines_run_on_one_background_loop() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: run_in_background(where()), range(8))) == {"lagentlike-loop"}
    assert background._thread is not None
    assert background._thread.daemon


async def test_it_works_inside_a_running_loop_too() -> None:
    assert run_in_background(where()) == "lagentlike-loop"


def test_errors_come_back_and_the_loop_goes_on() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    for error in (LookupError("x"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)):
            run_in_background(fail(error))
        assert run_in_background(where()) == "lagentlike-loop"


def test_waiting_for_oneself_is_an_error() -> None:
    async def nested() -> None:
        run_in_background(where())

    with pytest.raises(ColourError, match="use its async form"):
        run_in_background(nested())


def test_an_interrupt_of_the_caller_cancels_what_it_waits_for() -> None:
    code = """
import asyncio, os, signal, threading, time
from lagentlike.concurrency import run_in_background
state = []
async def stuck():
    state.append("in")
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        state.append("cancelled")
        raise
try:
    run_in_background(stuck())
except KeyboardInterrupt:
    time.sleep(0.1)
    print(state)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['in', 'cancelled']"


def test_a_forked_process_gets_a_loop_of_its_own() -> None:
    code = """
import os, threading
from lagentlike.concurrency import run_in_background
async def pid():
    return os.getpid()
assert run_in_background(pid()) == os.getpid()
child = os.fork()
if child == 0:
    os._exit(0 if run_in_background(pid()) == os.getpid() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert run_in_background(pid()) == os.getpid()
print("both")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("both", 0), done.stderr


def test_async_iterators_are_read_in_blocking_code_and_closed() -> None:
    log: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            log.append(threading.current_thread().name)

    assert list(iterate_in_background(numbers())) == [0, 1, 2]
    with closing(iterate_in_background(numbers())) as stream:
        assert next(stream) == 0
    assert log == ["lagentlike-loop"] * 2


async def test_worker_threads_see_the_context_of_their_task() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="default")
    variable.set("mine")
    name, value = await in_thread(lambda: (threading.current_thread().name, variable.get()))
    assert value == "mine"
    assert name != threading.current_thread().name
    assert os.getpid()


# Stopping


def test_a_thread_that_waits_for_a_future_is_woken() -> None:
    stop, never, waits = Stop(), Future[int](), threading.Event()
    found: list[BaseException] = []

    def wait() -> None:
        with stop.here():
            waits.set()
            try:
                result_of(never)
            except Stopped as stopped:
                found.append(stopped)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waits.wait(10)
    stop.set("enough")
    thread.join(10)
    assert [str(one) for one in found] == ["enough"]
    with pytest.raises(Stopped, match="enough"), stop.here():
        raise AssertionError
    done = Future[int]()
    done.set_result(1)
    assert result_of(done) == 1


def test_what_runs_on_the_background_loop_is_cancelled_and_has_ended_then() -> None:
    stop, begun, ended = Stop(), threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupt() -> None:
        assert begun.wait(10)
        stop.set("enough")

    threading.Thread(target=interrupt).start()
    with pytest.raises(Stopped, match="enough"), stop.here():
        run_in_background(work())
    assert ended.is_set()


async def test_what_is_awaited_is_cancelled_once_and_the_task_goes_on() -> None:
    stop = Stop()
    asyncio.get_running_loop().call_later(0.01, stop.set, "enough")
    with pytest.raises(Stopped, match="enough"):
        await stop.guard(asyncio.Event().wait())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    with pytest.raises(Stopped):
        await stop.guard(asyncio.sleep(0))
    assert await Stop().guard(asyncio.sleep(0, "slept")) == "slept"


async def test_of_a_stream_the_items_up_to_the_stop_are_given_out() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    stop = Stop()
    items = stop.each_async(numbers())
    assert [await anext(items), await anext(items)] == [1, 2]
    asyncio.get_running_loop().call_soon(stop.set, "enough")
    with pytest.raises(Stopped):
        await anext(items)
    assert closed == [True]
    with pytest.raises(Stopped):
        next(stop.each(iter([3])))
    assert list(Stop().each(iter([3, 4]))) == [3, 4]


async def test_whoever_cancels_the_task_as_well_is_obeyed() -> None:
    stop = Stop()

    async def work() -> None:
        await stop.guard(asyncio.Event().wait())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    stop.set("enough")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_stops_from_inside_is_let_end() -> None:
    stop = Stop()

    async def work() -> str:
        stop.set("enough")
        await asyncio.sleep(0.01)
        return "done"

    assert await stop.guard(work()) == "done"
