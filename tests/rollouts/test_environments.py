"""Environments: a cap, fair waiting, leases that end, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lagentlike.actions import AsyncActionExecutor, tool
from lagentlike.errors import EnvironmentFailed, InvalidArgument, LeaseExpired, PoolClosed, PoolTimeout
from lagentlike.rollouts.environments import (
    current_context,
    current_environment,
    entered,
    EnvironmentPool,
    in_context,
)
from lagentlike.schema import AgentMessage, ToolCall

pytestmark = pytest.mark.usefixtures("no_leaks")


class World:
    """A blocking environment that keeps count of itself."""

    made = 0
    open = 0
    most = 0
    guard = threading.Lock()

    def __init__(self) -> None:
        with World.guard:
            World.made += 1
            World.open += 1
            World.most = max(World.most, World.open)
        self.number = World.made
        self.count = 0
        self.inside = 0

    def reset(self, start: int = 0) -> str:
        self.count = start
        return f"start {start}"

    def step(self, by: int = 1, wait: float = 0.0) -> int:
        self.inside += 1
        assert self.inside == 1, "two calls at once"
        if wait:
            time.sleep(wait)
        self.count += by
        self.inside -= 1
        return self.count

    def crash(self) -> None:
        raise ValueError("boom")

    def close(self) -> None:
        with World.guard:
            World.open -= 1


class AsyncWorld(World):
    async def reset(self, start: int = 0) -> str:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().reset(start)

    async def step(self, by: int = 1, wait: float = 0.0) -> int:  # type: ignore[override]
        await asyncio.sleep(wait)
        return super().step(by)

    async def crash(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        raise ValueError("boom")

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().close()


@pytest.fixture(autouse=True)
def _fresh_counts() -> None:
    World.made = World.open = World.most = 0


BOTH = pytest.mark.parametrize("kind", [World, AsyncWorld])


@asynccontextmanager
async def pool_of(kind: Any, size: int = 1, **options: Any) -> AsyncIterator[EnvironmentPool]:
    async with EnvironmentPool(kind, size, **options) as pool:
        yield pool
    assert World.open == 0, "an environment was left open"
    assert (pool.alive, pool.leased, pool.waiting) == (0, 0, 0)


@BOTH
async def test_an_environment_is_reset_for_each_lease_and_used_again(kind: Any) -> None:
    async with pool_of(kind) as pool:
        for start in (5, 7):
            async with pool.lease(given={"start": start, "more": 1}) as environment:
                assert environment.first_observation == f"start {start}"
                assert await environment.step(by=2) == start + 2
                assert environment.count == start + 2
                assert isinstance(environment.unwrapped, kind)
        assert World.made == 1


@BOTH
async def test_a_thousand_leases_share_eight_environments(kind: Any) -> None:
    async with pool_of(kind, 8) as pool:

        async def chain(start: int) -> int:
            async with pool.lease(given={"start": start}) as environment:
                await environment.step()
                return int(await environment.step())

        results = await asyncio.gather(*(chain(number) for number in range(1000)))
        assert results == [number + 2 for number in range(1000)]
        assert World.most == World.made == 8


async def test_who_comes_first_gets_one_first() -> None:
    async with pool_of(World) as pool:
        order: list[int] = []

        async def chain(number: int) -> None:
            async with pool.lease():
                order.append(number)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(chain(number))
        assert order == list(range(50))


async def test_waiting_ends_with_an_error_in_time() -> None:
    async with pool_of(World) as pool, pool.lease():
        with pytest.raises(PoolTimeout, match=r"EnvironmentPool\(World, 1\) within 0\.02 seconds, spent on waiting"):
            async with pool.lease(timeout=0.02):
                pass
        assert pool.waiting == 0


async def test_one_that_gives_up_waiting_does_not_take_the_place_of_the_next() -> None:
    async with pool_of(World) as pool:
        async with pool.lease():
            waiting = [asyncio.create_task(_count(pool)) for _ in range(3)]
            await asyncio.sleep(0.01)
            waiting[0].cancel()
        assert await asyncio.gather(*waiting[1:]) == [1, 1]
        assert waiting[0].cancelled()


async def _count(pool: EnvironmentPool) -> int:
    async with pool.lease(timeout=5) as environment:
        return int(await environment.step())


async def test_one_cancelled_in_the_moment_it_is_given_an_environment_passes_it_on() -> None:
    async with pool_of(World) as pool:
        async with pool.lease():
            first, second = (asyncio.create_task(_count(pool)) for _ in range(2))
            await asyncio.sleep(0.01)
        first.cancel()  # it has been handed the environment, and has not run yet
        assert await second == 1
        assert first.cancelled()
        assert World.made == 1


@BOTH
async def test_an_environment_that_raises_is_replaced(kind: Any) -> None:
    async with pool_of(kind) as pool:
        async with pool.lease() as environment:
            with pytest.raises(EnvironmentFailed, match=rf"{kind.__name__}\.crash failed: ValueError: boom") as caught:
                await environment.crash()
            assert isinstance(caught.value.__cause__, ValueError)
            with pytest.raises(EnvironmentFailed, match="has failed: lease another"):
                await environment.step()
        assert await _count(pool) == 1
        assert World.made == 2


async def test_an_error_of_the_holder_is_no_fault_of_the_environment() -> None:
    async with pool_of(World) as pool:
        with pytest.raises(KeyError):
            async with pool.lease():
                raise KeyError("mine")
        assert await _count(pool) == 1
        assert World.made == 1


async def test_a_factory_that_fails_leaves_its_place_free() -> None:
    attempts = 0

    def factory() -> World:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("no display")
        return World()

    async with pool_of(factory) as pool:
        with pytest.raises(EnvironmentFailed, match="making an environment failed: OSError: no display"):
            await _count(pool)
        assert await _count(pool) == 1


async def test_a_reset_that_fails_closes_the_environment() -> None:
    class Bad(World):
        def reset(self, start: int = 0) -> str:
            raise ValueError("cannot")

    async with pool_of(Bad) as pool:
        for _ in range(3):
            with pytest.raises(EnvironmentFailed, match=r"Bad\.reset failed: ValueError: cannot"):
                await _count(pool)
        await asyncio.sleep(0.05)
        assert (World.made, World.open) == (3, 0)


async def test_a_reset_that_wants_what_nobody_has_says_so() -> None:
    class Level(World):
        def reset(self, level: int) -> str:  # type: ignore[override]
            return str(level)

    async with pool_of(Level) as pool:
        with pytest.raises(EnvironmentFailed, match=r"wants 'level', and there is 'answer'"):
            async with pool.lease(given={"answer": 1}):
                pass


async def test_a_close_that_fails_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    class Sticky(World):
        def close(self) -> None:
            super().close()
            raise OSError("stuck")

    async with pool_of(Sticky) as pool:
        await _count(pool)
    assert "closing a Sticky failed" in caplog.text


@BOTH
async def test_a_lease_ends_and_its_holder_is_told(kind: Any) -> None:
    async with pool_of(kind, lease_timeout=0.05) as pool:
        with pytest.raises(LeaseExpired, match=r"longer than its lease of 0\.05 seconds"):
            async with pool.lease() as environment:
                await asyncio.sleep(30)
        with pytest.raises(LeaseExpired):
            await environment.step()
        assert await _count(pool) == 1
        assert World.made == 2


async def test_a_holder_that_does_not_let_go_loses_its_environment_all_the_same() -> None:
    async with pool_of(World, lease_timeout=0.05) as pool:
        release = asyncio.Event()
        errors: list[Exception] = []

        async def holder() -> None:
            async with pool.lease() as environment:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue
                try:
                    await environment.step()
                except LeaseExpired as error:
                    errors.append(error)

        task = asyncio.create_task(holder())
        await asyncio.sleep(0.01)
        assert await _count(pool) == 1
        release.set()
        await asyncio.wait([task])
        assert len(errors) == 1
        assert World.made == 2


async def test_a_lease_ends_in_the_middle_of_a_blocking_call() -> None:
    async with pool_of(World, lease_timeout=0.05) as pool:
        with pytest.raises(LeaseExpired):
            async with pool.lease() as environment:
                await environment.step(wait=0.2)
        assert await _count(pool) == 1


@BOTH
async def test_a_call_that_takes_too_long_is_an_error(kind: Any) -> None:
    async with pool_of(kind, call_timeout=0.05) as pool:
        async with pool.lease() as environment:
            with pytest.raises(EnvironmentFailed, match=rf"{kind.__name__}\.step took longer than 0\.05 seconds"):
                await environment.step(wait=0.2)
        assert await _count(pool) == 1
        assert World.made == 2


async def test_an_environment_that_is_made_too_late_is_closed() -> None:
    release = threading.Event()

    def factory() -> World:
        release.wait(5)
        return World()

    async with pool_of(factory, call_timeout=0.03) as pool:
        with pytest.raises(EnvironmentFailed, match="making an environment took longer"):
            await _count(pool)
        release.set()
        while not World.made:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)


async def test_an_environment_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    def factory() -> World:
        time.sleep(0.1)
        return World()

    async with pool_of(factory) as pool:
        with pytest.raises(PoolTimeout, match="spent on making it ready"):
            async with pool.lease(timeout=0.03):
                pass
        assert await _count(pool) == 1
        assert World.made == 1


@BOTH
async def test_cancelling_a_holder_gives_the_environment_back(kind: Any) -> None:
    async with pool_of(kind) as pool:
        for work in ("hold", "step"):
            entered_ = asyncio.Event()

            async def hold(work: str = work, entered_: asyncio.Event = entered_) -> None:
                async with pool.lease() as environment:
                    entered_.set()
                    await (asyncio.sleep(30) if work == "hold" else environment.step(wait=0.1))

            task = asyncio.create_task(hold())
            await entered_.wait()
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await _count(pool) == 1
        assert World.made == 2  # the one that was left in the middle of a step is not used again


async def test_an_idle_environment_is_closed_after_a_while() -> None:
    async with pool_of(World, 2, idle_timeout=0.03) as pool:
        await _count(pool)
        assert World.open == 1
        await asyncio.sleep(0.1)
        assert World.open == pool.alive == 0
        assert await _count(pool) == 1


async def test_an_unhealthy_environment_is_replaced() -> None:
    class Frail(World):
        def healthy(self) -> bool:
            return self.number > 1

    async with pool_of(Frail) as pool:
        for _ in range(3):
            assert await _count(pool) == 1
        assert World.made == 2


async def test_closing_the_pool_tells_who_holds_and_who_waits() -> None:
    pool = EnvironmentPool(World, 1)

    async def hold() -> None:
        async with pool.lease() as environment:
            await asyncio.sleep(0.05)
            await environment.step()

    holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(0.02)
    await pool.close()
    assert World.open == 0
    for task in (holder, waiter):
        with pytest.raises(PoolClosed, match="was closed"):
            await task
    with pytest.raises(PoolClosed, match="is closed"):
        await _count(pool)


async def test_calls_of_several_tasks_queue_up() -> None:
    async with pool_of(World) as pool, pool.lease() as environment:
        counts = await asyncio.gather(*(environment.step(wait=0.005) for _ in range(10)))
        assert sorted(counts) == list(range(1, 11))


def test_a_pool_goes_from_loop_to_loop_and_is_in_one_at_a_time() -> None:
    pool = EnvironmentPool(World, 1)
    assert [asyncio.run(_count(pool)) for _ in range(2)] == [1, 1]
    assert World.made == 1

    async def in_two() -> None:
        async with pool.lease():
            with pytest.raises(EnvironmentFailed, match="another event loop"):
                await asyncio.to_thread(asyncio.run, _count(pool))
        await pool.close()

    asyncio.run(in_two())
    assert World.open == 0


def test_a_lease_in_a_second_loop_ends_as_in_the_first() -> None:
    pool = EnvironmentPool(World, 1, lease_timeout=0.05)

    async def overrun() -> None:
        with pytest.raises(LeaseExpired):
            async with pool.lease() as environment:
                await environment.step(wait=0.1)
        await pool.close()

    assert asyncio.run(_count(pool)) == 1
    asyncio.run(overrun())
    assert World.open == 0


# What tools see


@tool
def move(by: int) -> str:
    """Move.

    Args:
        by: How far.
    """
    return f"{current_environment().step(by)} of {current_context()}"


@tool
async def move_async(by: int) -> str:
    """Move.

    Args:
        by: How far.
    """
    return f"{await current_environment().step(by)} of {current_context()}"


@pytest.mark.parametrize("used", [move, move_async], ids=["blocking tool", "async tool"])
@BOTH
async def test_tools_have_their_chains_environment_and_the_model_does_not_know(kind: Any, used: Any) -> None:
    executor = AsyncActionExecutor([used])
    assert "environment" not in str(executor.tools())
    async with pool_of(kind, 4) as pool:

        async def chain(number: int) -> list[str]:
            with in_context(f"chain {number}"):
                async with pool.lease(given={"start": 100 * number}):
                    calls = [ToolCall(used.name, {"by": 1}, id=str(index)) for index in range(3)]
                    reply = await executor(AgentMessage(content="", tool_calls=calls), session_id=number)
                    return [result.output for result in reply.tool_results or ()]

        for number, outputs in enumerate(await asyncio.gather(*(chain(number) for number in range(12)))):
            assert sorted(outputs) == [f"{100 * number + step} of chain {number}" for step in (1, 2, 3)]
    assert current_context() is None


async def test_two_kinds_of_environment_never_mix() -> None:
    async with pool_of(World) as worlds, EnvironmentPool(AsyncWorld, 1) as others:
        async with worlds.lease() as one, others.lease() as two:
            assert current_environment(worlds) is one
            assert current_environment(others) is two
            with pytest.raises(EnvironmentFailed, match="say of which pool"):
                current_environment()
        with pytest.raises(EnvironmentFailed, match="no environment is leased"):
            current_environment()
        with pytest.raises(EnvironmentFailed, match="is leased here"):
            current_environment(worlds)
        await others.close()


async def test_a_chain_is_entered_with_its_environment() -> None:
    class Chain:
        metadata = {"start": 3}
        environment: Any = None

    chain = Chain()
    async with pool_of(World) as pool:
        async with entered(pool, chain):
            assert current_context() is chain
            assert await chain.environment.step() == 4
        async with entered(None, chain):
            assert current_context() is chain


async def test_the_pool_alone_closes_an_environment() -> None:
    async with pool_of(World) as pool, pool.lease() as environment:
        with pytest.raises(AttributeError, match="closed by its pool"):
            environment.close()
        with pytest.raises(AttributeError, match="fly"):
            environment.fly()


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"factory": 3}, "class or function"),
        ({"size": 0}, "at least 1"),
        ({"size": True}, "at least 1"),
        ({"lease_timeout": 0}, "greater than 0"),
        ({"idle_timeout": -1}, "greater than 0"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(InvalidArgument, match=cure):
        EnvironmentPool(**{"factory": World, "size": 1, **options})
